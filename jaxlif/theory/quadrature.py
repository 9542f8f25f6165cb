"""The one rule by which everything is integrated here."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def gauss(term: Callable[[Array], Array], low: Array, high: Array, count: int) -> Array:
    """Integrate from low to high, of any shape, with Gauss-Legendre nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = 0.5 * (high - low)
    values = jax.vmap(lambda node: term(low + half * (1.0 + node)))(jnp.asarray(nodes, half.dtype))
    return half * jnp.tensordot(jnp.asarray(weights, values.dtype), values, 1)
