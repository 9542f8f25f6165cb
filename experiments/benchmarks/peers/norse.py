"""Norse: ``LIFBoxCell`` in a loop over time steps after one ``Linear`` over [T, B, N_in], or ``LIFRecurrent``.

The box neuron has no synaptic current, so it is the one that the others compute. The loop takes the place of
``Lift``, whose x[t] makes the backward pass write all T steps in every step (two to three times slower at T = 500).
``LIFRecurrent`` is the library's recurrent layer: it has a synaptic current, which decays within a step here, and
multiplies by both weights in every step. Reset to zero, not detached in the box neuron, and SuperSpike (Norse 1.1
fixes its slope at 1), all defaults.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

import math
from importlib.metadata import version

import norse.torch as norse
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from serve import serve
from torch_pass import linear, passes, tensor

DT = 0.001
TAU_MEM_INV = torch.tensor((1.0 - math.exp(-1.0 / 20.0)) / DT)  # its Euler step then decays by exp(-1/20)


def prepare(problem):
    if problem.recurrent:
        return recurrent(problem)
    projection = linear(tensor(problem, "weight"))
    neuron = norse.LIFBoxCell(LIFBoxParameters(tau_mem_inv=TAU_MEM_INV), dt=DT)
    return passes(problem, lambda x: over_time(neuron, projection(x)), [projection.weight])


def over_time(neuron, currents):
    """Return the spikes [T, B, N]."""
    state, spikes = None, []
    for current in currents:
        spike, state = neuron(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


def recurrent(problem):
    parameters = norse.LIFParameters(tau_mem_inv=TAU_MEM_INV, tau_syn_inv=torch.tensor(1.0 / DT))
    weights = [torch.nn.Parameter(tensor(problem, name).T.contiguous()) for name in ("weight", "recurrent")]
    network = norse.LIFRecurrent(
        problem.num_in,
        problem.num_out,
        p=parameters,
        input_weights=weights[0],
        recurrent_weights=weights[1],
        autapses=True,
        dt=DT,
    )
    return passes(problem, lambda x: network(x)[0], weights)


if __name__ == "__main__":
    serve(version("norse"), prepare)
