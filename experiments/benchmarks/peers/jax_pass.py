"""What the JAX libraries share: arrays, and one compiled pass with its gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from serve import Pass, Problem


def array(problem: Problem, name: str) -> jax.Array:
    """Read one array."""
    return jnp.asarray(np.fromfile(problem.path(name), np.float32).reshape(problem.shapes[name]))


def passes(
    problem: Problem, forward: Callable[[Any, jax.Array], jax.Array], weights: Any
) -> tuple[Pass, Callable[[], float]]:
    """Return the pass and the firing rate of a layer that maps weights and inputs [T, B, N_in] to spikes [T, B, N_out].

    The gradient is that with respect to ``weights``, a pytree.
    """
    inputs, cotangents = array(problem, "inputs"), array(problem, "cotangents")
    step = jax.jit(jax.value_and_grad(lambda w, x, c: jnp.mean(forward(w, x) * c)))

    def rate() -> float:
        _, grads = step(weights, inputs, cotangents)
        if not all(float(jnp.abs(g).sum()) > 0.0 for g in jax.tree.leaves(grads)):
            raise SystemExit("a gradient is zero or not a number")
        return float(jax.jit(forward)(weights, inputs).mean())

    return lambda: jax.block_until_ready(step(weights, inputs, cotangents)), rate
