"""Spyx: ``snn.run`` of ``LIF`` or ``RLIF`` (flax NNX) under jit and value_and_grad.

Kinder than its quickstart, which scans ``Sequential(Linear, LIF)``: the ``Linear`` is applied to [T, B, N_in] before
``snn.run``, so that it is one matmul. Weights are split off with ``nnx.split``, and jax.jit takes the place of
nnx.jit, which costs more per call. Reset by subtraction one step late, not detached; superspike of k = 25, the default.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

import math
from importlib.metadata import version

import spyx.nn as snn
from flax import nnx
from jax_pass import array, passes
from serve import serve

BETA = math.exp(-1.0 / 20.0)
#: The input is not multiplied by 1 - beta here, so the weights are.
SCALE = 1.0 - BETA


class Layer(nnx.Module):
    """A projection and neurons."""

    def __init__(self, problem):
        rngs, shape = nnx.Rngs(0), (problem.num_out,)
        self.projection = nnx.Linear(problem.num_in, problem.num_out, use_bias=False, rngs=rngs)
        self.projection.kernel[...] = SCALE * array(problem, "weight")
        self.neuron = (snn.RLIF if problem.recurrent else snn.LIF)(shape, beta=BETA, rngs=rngs)
        if problem.recurrent:
            self.neuron.recurrent_w[...] = SCALE * array(problem, "recurrent")

    def __call__(self, inputs):
        """Return the spikes [T, B, N_out] of inputs [T, B, N_in]."""
        return snn.run(self.neuron, self.projection(inputs))[0]


def prepare(problem):
    graph, weights, rest = nnx.split(Layer(problem), is_weight, ...)
    return passes(problem, lambda w, x: nnx.merge(graph, w, rest)(x), weights)


def is_weight(path, value):
    return path[-1] in ("kernel", "recurrent_w")


if __name__ == "__main__":
    serve(version("spyx"), prepare)
