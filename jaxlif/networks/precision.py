"""Matrix products in few bits between states in many."""

import jax.numpy as jnp
from jax import Array

_KNOWN = ("bfloat16", "float16", "float32")


def product(x: Array, weight: Array, matmul: str | None = None) -> Array:
    """Multiply ``x`` [..., K] by ``weight`` [K, N], and sum up in the weight's dtype.

    Args:
        x: spikes or currents of any dtype.
        weight: from row to column.
        matmul: the dtype that both are rounded to before; None for the weight's own.

    Returns:
        [..., N] in the weight's dtype, whatever the product's.

    Example:
        >>> weight = jnp.array([[1.0], [1.0 + 2.0**-12]], jnp.float32)
        >>> y = product(jnp.array([0.0, 1.0]), weight, "bfloat16")
        >>> float(y[0]), y.dtype.name
        (1.0, 'float32')
    """
    if matmul is None:
        return jnp.asarray(x, weight.dtype) @ weight
    few = jnp.dtype(matmul)
    return jnp.matmul(jnp.asarray(x, few), weight.astype(few), preferred_element_type=weight.dtype)


def require_matmul(matmul: str | None) -> None:
    """Refuse what is no dtype for a product."""
    if matmul is not None and matmul not in _KNOWN:
        raise ValueError(f"matmul = {matmul!r}: matmul must be None or one of {', '.join(_KNOWN)}")
