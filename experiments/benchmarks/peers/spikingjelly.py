"""SpikingJelly: ``layer.Linear`` and ``neuron.LIFNode`` in multi-step mode on [T, B, N], its PyTorch path on a CPU.

Multi-step mode hoists the projection over all steps, and LIFNode's own backward goes through the steps without
autograd's graph; its CUDA and Triton kernels need a GPU. The recurrent layer is a loop over single-step LIFNodes with
a ``Linear`` from the spikes before: ``LinearRecurrentContainer`` also multiplies by an identity [N, N] in every step.
Soft reset (v_reset None) with detach_reset, the cheapest; the default surrogate, Sigmoid of alpha 4, for which its own
backward is written.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

import math
from importlib.metadata import version

import torch
from serve import serve
from spikingjelly.activation_based import functional, layer, neuron
from torch_pass import linear, passes, tensor

TAU = 1.0 / (1.0 - math.exp(-1.0 / 20.0))  # its v += (x - v) / tau then decays by exp(-1/20)


def prepare(problem):
    mode = "s" if problem.recurrent else "m"
    projection = layer.Linear(problem.num_in, problem.num_out, bias=False, step_mode="m")
    projection.load_state_dict(linear(tensor(problem, "weight")).state_dict())
    node = neuron.LIFNode(tau=TAU, v_reset=None, detach_reset=True, step_mode=mode)
    if not problem.recurrent:
        return passes(problem, lambda x: fresh(node)(projection(x)), [projection.weight])
    feedback = linear(tensor(problem, "recurrent"))
    weights = [projection.weight, feedback.weight]
    return passes(problem, lambda x: over_time(fresh(node), feedback, projection(x)), weights)


def fresh(node):
    functional.reset_net(node)
    return node


def over_time(node, feedback, currents):
    """Return the spikes [T, B, N]."""
    spikes = [node(currents[0])]
    for current in currents[1:]:
        spikes.append(node(current + feedback(spikes[-1])))
    return torch.stack(spikes)


if __name__ == "__main__":
    serve(version("spikingjelly"), prepare)
