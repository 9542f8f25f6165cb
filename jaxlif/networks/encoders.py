"""Encoders: numbers between 0 and 1 become input spikes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.neurons.cell import state_dtype
from jaxlif.neurons.checks import concrete, require, require_finite


def rate_code(key: Array, values: Any, num_steps: int) -> Array:
    r"""Draw independent spikes with probability :math:`P(s_n = 1) = x` in every step.

    A value x is a mean rate of :math:`1000\,x / dt` Hz. Spikes carry no gradient back to the values.

    Args:
        key: random key.
        values: x in [0, 1], any shape.
        num_steps: T.

    Returns:
        Spikes [T, ...], 0 or 1, in the dtype of ``values``.

    Raises:
        ValueError: for a value outside [0, 1], or no step.

    Example:
        >>> spikes = rate_code(jax.random.key(0), jnp.array([0.0, 0.3, 1.0]), 1000)
        >>> [round(float(p), 1) for p in spikes.mean(axis=0)]
        [0.0, 0.3, 1.0]
    """
    values = _unit_interval(values, num_steps)
    draws = jax.random.uniform(key, (num_steps,) + values.shape, values.dtype)
    # Draws lie in [0, 1): strictly below, 0 never spikes and 1 always does.
    return (draws < values[None]).astype(values.dtype)


def latency_code(values: Any, num_steps: int) -> Array:
    r"""Let every input spike once, the larger the earlier: in step :math:`n = round((1 - x)(T - 1))`.

    The value 1 spikes in the first step, 0 in the last. Spikes carry no gradient back to the values.

    Args:
        values: x in [0, 1], any shape.
        num_steps: T.

    Returns:
        Spikes [T, ...], 0 or 1, in the dtype of ``values``.

    Raises:
        ValueError: for a value outside [0, 1], or no step.

    Example:
        >>> latency_code(jnp.array([1.0, 0.5, 0.0]), 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Source: Thorpe, Delorme & Van Rullen 2001, doi:10.1016/S0893-6080(01)00083-1 (first spikes as a code).
    """
    values = _unit_interval(values, num_steps)
    steps = jnp.round((1.0 - values) * (num_steps - 1)).astype(jnp.int32)
    return jax.nn.one_hot(steps, num_steps, axis=0, dtype=values.dtype)


def _unit_interval(values: Any, num_steps: int) -> Array:
    """Return the values as a floating array, refusing any outside [0, 1], and no step."""
    if num_steps < 1:
        raise ValueError(f"num_steps = {num_steps}: num_steps must be 1 or more")
    require_finite("values", values, "")
    if concrete(values):
        array = np.asarray(values)
        require((array >= 0) & (array <= 1), "values", array, "", "values must lie between 0 and 1")
    return jnp.asarray(values, state_dtype(values))
