"""The bare matmuls of a layer's forward and gradient, in JAX, with nothing between them.

Forward: inputs [T B, N_in] times weight; backward: inputs transposed times the outputs' cotangents. A recurrent layer
adds, step by step in a scan, T of [B, N] times [N, N] forward and T times the transpose backward, and one of spikes
[T B, N] transposed times the cotangents. Here the spikes are fixed random ones, and nothing waits for a result of
another matmul; the gradient of the inputs, which no layer here needs, is left out.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import jax
import jax.numpy as jnp
from jax_pass import array
from serve import serve


def prepare(problem):
    inputs, cotangents, weight = (array(problem, name) for name in ("inputs", "cotangents", "weight"))
    arguments = [flat(inputs), cotangents, weight]
    if problem.recurrent:
        arguments += [array(problem, "recurrent"), (cotangents > 1.5).astype(jnp.float32)]
    step = jax.jit(recurrent if problem.recurrent else feed_forward)
    return lambda: jax.block_until_ready(step(*arguments)), lambda: 0.0


def feed_forward(inputs, cotangents, weight):
    return inputs @ weight, inputs.T @ flat(cotangents)


def recurrent(inputs, cotangents, weight, recurrent_weight, spikes):
    forward = in_turn(spikes, recurrent_weight)
    backward = in_turn(cotangents, recurrent_weight.T)
    return *feed_forward(inputs, cotangents, weight), forward, backward, flat(spikes).T @ flat(cotangents)


def in_turn(xs, weight):
    """Multiply each of xs [T, B, N] by ``weight``, one after the other, and keep the last product."""
    return jax.lax.scan(lambda last, x: (x @ weight, None), jnp.zeros_like(xs[0]), xs)[0]


def flat(x):
    return x.reshape(-1, x.shape[-1])


if __name__ == "__main__":
    serve(jax.__version__, prepare)
