"""Spyx: ``Sequential`` of ``RLIF``, ``Linear`` and ``LI`` (flax NNX), after one ``Linear``, trained with Optax.

Kinder than its quickstart: the first ``Linear`` is applied to all steps before ``snn.run``, so that it is one matmul,
and the whole epoch is one compiled scan over batches. ``beta`` of the neurons and of the readout is a parameter per
neuron, as by default. Reset by subtraction one step late, not detached; superspike of k = 25, the default.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
import spyx.nn as snn
from epoch_problem import BETA, BETA_READOUT, LEARNING_RATE, NUM_HIDDEN, NUM_IN, NUM_OUT, SKIP, serve_epochs
from flax import nnx

#: The input is not multiplied by 1 - beta here, so the weights are.
SCALE, SCALE_READOUT = 1.0 - BETA, 10.0 * (1.0 - BETA_READOUT)


class Network(nnx.Module):
    """Projection, recurrent neurons, projection, leaky readout."""

    def __init__(self, problem):
        rngs = nnx.Rngs(0)
        self.projection = nnx.Linear(NUM_IN, NUM_HIDDEN, rngs=rngs)
        hidden, readout = snn.RLIF((NUM_HIDDEN,), rngs=rngs), nnx.Linear(NUM_HIDDEN, NUM_OUT, rngs=rngs)
        leaky = snn.LI((NUM_OUT,), rngs=rngs)
        self.projection.kernel[...] = SCALE * array(problem, "weight")
        hidden.recurrent_w[...] = SCALE * array(problem, "recurrent")
        readout.kernel[...] = SCALE_READOUT * array(problem, "readout")
        hidden.beta[...] = jnp.full(NUM_HIDDEN, BETA)
        leaky.beta[...] = jnp.full(NUM_OUT, BETA_READOUT)
        self.rest = snn.Sequential(hidden, readout, leaky)

    def __call__(self, inputs):
        """Return the logits [B, T, 6] of inputs [B, T, 4]."""
        return snn.run(self.rest, self.projection(inputs), batch_major=True)[0]


def prepare(problem):
    graph, weights, rest = nnx.split(Network(problem), nnx.Param, ...)
    data = array(problem, "inputs"), array(problem, "labels").astype(jnp.int32)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))

    def loss(weights, inputs, labels):
        logits = nnx.merge(graph, weights, rest)(inputs)[:, SKIP:]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, SKIP:]).mean()

    def step(carry, batch):
        weights, state = carry
        value, grad = jax.value_and_grad(loss)(weights, *batch)
        updates, state = optimizer.update(grad, state, weights)
        return (optax.apply_updates(weights, updates), state), value

    epoch = jax.jit(lambda weights, data: jax.lax.scan(step, (weights, optimizer.init(weights)), data))
    return lambda: float(epoch(weights, data)[1].mean())


def array(problem, name):
    """Read one array."""
    return jnp.asarray(np.fromfile(problem.path(name), np.float32).reshape(problem.shapes[name]))


if __name__ == "__main__":
    serve_epochs(version("spyx"), prepare)
