"""jaxlif: ``Sequential`` of ``Dense`` and ``LIF``, or ``Dense`` and ``Recurrent``, through ``simulate`` and ``vmap``.

Time-major: ``vmap`` over axis 1 of the inputs and outputs. Reset by subtraction, SuperSpike of slope 25.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

from importlib.metadata import version

import jax
from jax_pass import array, passes
from serve import Problem, serve

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Recurrent, RecurrentParams, Sequential, init_neurons

LIF = jl.LIF(dt=1.0, reset="subtract", surrogate=jl.SuperSpike(slope=25.0))


def prepare(problem):
    names = ("weight", "recurrent") if problem.recurrent else ("weight",)
    network = Sequential((Dense(), Recurrent(LIF) if problem.recurrent else LIF))

    def forward(weights, inputs):
        params = parameters(problem, weights)
        return jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.spikes, in_axes=1, out_axes=1)(inputs)

    return passes(problem, forward, {name: array(problem, name) for name in names})


def parameters(problem: Problem, weights: dict[str, jax.Array]) -> tuple:
    """Return the network's parameters around its weights."""
    neurons, dense = init_neurons(problem.num_out, tau_m=20.0), DenseParams(weight=weights["weight"])
    if problem.recurrent:
        neurons = RecurrentParams(neuron=neurons, weight=weights["recurrent"])
    return dense, neurons


if __name__ == "__main__":
    serve(version("jaxlif"), prepare)
