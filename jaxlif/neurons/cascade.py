"""Low-pass filters in a row: how synapses run within a step, and what a membrane makes of them."""

from math import factorial

import jax.numpy as jnp
from jax import Array

# Below these the series, around the mean of the nodes, which saves half of the terms; above them what divides loses a
# digit or two. What is left out is 1e-17 of the sum and of its slope.
_SMALL, _PAIR_SMALL, _PAIR_TERMS = 0.1, 0.3, 12


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
    # By the series of e^(-x/2) sinh(x/2)/(x/2) near 0, where both the quotient and its gradient lose their digits.
    small = x < _SMALL
    safe, near = jnp.where(small, 1.0, x), jnp.where(small, x, 0.0)
    z, series = near * near, jnp.ones_like(x)
    for n in (288.0, 168.0, 80.0, 24.0):
        series = 1.0 + z * series * (1.0 / n)
    return jnp.where(small, jnp.exp(-0.5 * near) * series, -jnp.expm1(-safe) / safe)


def _pair(x: Array, y: Array) -> Array:
    """Return the divided difference of exp at 0, -x and -y, 0 <= x <= y: the widest pair divides, or a series does."""
    small = y < _PAIR_SMALL
    safe = jnp.where(small, 1.0, y)
    apart = (mean_decay(x) - jnp.exp(-x) * mean_decay(y - x)) / safe
    near_x, near_y = jnp.where(small, x, 0.0), jnp.where(small, y, 0.0)
    mean = (near_x + near_y) / 3.0
    a, b, c = mean, mean - near_x, mean - near_y  # add to 0
    twos, threes = -(a * b + b * c + c * a), a * b * c
    series, powers = 0.5 + twos / 24.0, [jnp.ones_like(y), jnp.zeros_like(y), twos]
    for n in range(3, _PAIR_TERMS):  # powers are the sums of all a^i b^j c^k of one degree
        powers = [*powers[1:], twos * powers[1] + threes * powers[0]]
        series = series + powers[2] * (1.0 / factorial(n + 2))
    return jnp.where(small, jnp.exp(-mean) * series, apart)
