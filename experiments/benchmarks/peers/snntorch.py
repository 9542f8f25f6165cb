"""snnTorch: ``Leaky`` in a loop over time steps, or ``RLeaky`` with all-to-all recurrence, as its tutorials train.

Kinder than its tutorials: the projection is taken out of the loop, one ``Linear`` over [T, B, N_in]. ``LeakyParallel``
and the other whole-sequence neurons have no reset, so they are another model. Reset by subtraction (the default, one
step late, detached), ``fast_sigmoid`` of slope 25, no torch.compile (not documented).
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

import math

import snntorch
import torch
from serve import serve
from snntorch import surrogate
from torch_pass import linear, passes, tensor

BETA = math.exp(-1.0 / 20.0)
#: The input is not multiplied by 1 - beta here, so the weights are.
SCALE = 1.0 - BETA


def prepare(problem):
    projection = linear(SCALE * tensor(problem, "weight"))
    spike = surrogate.fast_sigmoid(slope=25)
    if not problem.recurrent:
        neuron = snntorch.Leaky(beta=BETA, spike_grad=spike)
        return passes(problem, lambda x: over_time(neuron, projection(x)), [projection.weight])
    neuron = snntorch.RLeaky(beta=BETA, spike_grad=spike, linear_features=problem.num_out)
    neuron.recurrent = linear(SCALE * tensor(problem, "recurrent"))
    weights = [projection.weight, neuron.recurrent.weight]
    return passes(problem, lambda x: over_time(neuron, projection(x)), weights)


def over_time(neuron, currents):
    """Return the spikes [T, B, N]; the state of ``Leaky`` is mem, of ``RLeaky`` spk and mem."""
    state, spikes = neuron.reset_mem(), []
    state = state if isinstance(state, tuple) else (state,)
    for current in currents:
        found = neuron(current, *state)
        spikes.append(found[0])
        state = found[-len(state) :]
    return torch.stack(spikes)


if __name__ == "__main__":
    serve(snntorch.__version__, prepare)
