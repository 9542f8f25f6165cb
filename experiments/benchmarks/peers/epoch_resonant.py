"""jaxlif: the epoch of ``epoch_jaxlif.py`` with resonant neurons, the model of the ECG experiment.

Conductance, jump and time constant of each neuron's adaptation are free too. No other library here has this neuron.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last: this script hides no library

from importlib.metadata import version

import jax
from epoch_jaxlif import BOUNDS, SURROGATE
from epoch_jaxlif import prepare as prepare_network
from epoch_problem import NUM_HIDDEN, serve_epochs

import jaxlif as jl
from jaxlif.networks import init_resonant


def prepare(problem):
    neurons = init_resonant(jax.random.key(0), NUM_HIDDEN)
    adaptation = {"*.tau_w": (2.0, 2000.0), "*.a": (0.0, 120.0), "*.b": (0.0, float("inf"))}
    return prepare_network(problem, jl.ResonantLIF(dt=1.0, surrogate=SURROGATE), neurons, BOUNDS | adaptation)


if __name__ == "__main__":
    serve_epochs(version("jaxlif"), prepare)
