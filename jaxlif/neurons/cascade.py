"""Low-pass filters in a row: how synapses run within a step, and what a membrane makes of them."""

from math import factorial

import jax.numpy as jnp
from jax import Array

# Of the series below 1/10 and 1/2: what is left out is 1e-17 of the sum, and what divides loses a digit or two.
_SMALL, _TERMS, _PAIR_SMALL, _PAIR_TERMS = 0.1, 10, 0.5, 15


def cascade(s: Array | float, *rates: Array | float) -> Array:
    r"""Return :math:`(e^{-r_1 t} * \dots * e^{-r_n t})(s)`, convolved, for one to three rates of 0 or more, 1/ms.

    It is :math:`s^{n-1}` times the divided difference of exp at :math:`-r_i s`: symmetric in the rates, smooth and here
    without loss of digits where they are equal or nearly so, in its gradient too.

    Source: McCurdy, Ng & Parlett 1984, doi:10.1090/S0025-5718-1984-0744930-0 (divided differences of exp).
    """
    x = [jnp.asarray(rate * s) for rate in rates]
    if len(x) == 1:
        return jnp.exp(-x[0])
    low, high = jnp.minimum(x[0], x[1]), jnp.maximum(x[0], x[1])
    if len(x) == 2:
        return s * jnp.exp(-low) * mean_decay(high - low)
    low, middle = jnp.minimum(low, x[2]), jnp.maximum(low, x[2])
    middle, high = jnp.minimum(middle, high), jnp.maximum(middle, high)
    return s * s * jnp.exp(-low) * _pair(middle - low, high - low)


def mean_decay(x: Array) -> Array:
    r"""Return :math:`(1 - e^{-x})/x`, the mean of a decay, 1 at 0, for x of 0 or more."""
    # By its series near 0, where both the quotient and its gradient lose their digits.
    small = x < _SMALL
    safe, near = jnp.where(small, 1.0, x), jnp.where(small, x, 0.0)
    series = jnp.ones_like(x)
    for n in range(_TERMS, 1, -1):
        series = 1.0 - near / n * series
    return jnp.where(small, series, -jnp.expm1(-safe) / safe)


def _pair(x: Array, y: Array) -> Array:
    """Return the divided difference of exp at 0, -x and -y, 0 <= x <= y: the widest pair divides, or a series does."""
    small = y < _PAIR_SMALL
    safe = jnp.where(small, 1.0, y)
    apart = (mean_decay(x) - jnp.exp(-x) * mean_decay(y - x)) / safe
    near_x, near_y = jnp.where(small, x, 0.0), jnp.where(small, y, 0.0)
    series, power, mixed = jnp.zeros_like(y), jnp.ones_like(y), jnp.ones_like(y)
    for n in range(_PAIR_TERMS):  # mixed is the sum of all x^i y^(n - i)
        series = series + (-1.0) ** n / factorial(n + 2) * mixed
        power = power * near_y
        mixed = power + near_x * mixed
    return jnp.where(small, series, apart)
