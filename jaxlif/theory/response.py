r"""How the rate of a neuron in white noise follows a mean that is modulated: its linear response.

Everything follows from the first passage from y to a threshold, :math:`\langle e^{-sT/\tau_m} \rangle =
\psi(y)/\psi(y_{th})`, where :math:`\tfrac12 \psi'' - y\psi' = s\psi` and :math:`\psi` stays small to the left.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Complex, Real

from jaxlif import checks
from jaxlif.theory.diffusion import diffusion_rate, read_noise
from jaxlif.theory.quadrature import gauss


def rate_response(
    params: Any, mean: Real[ArrayLike, "..."], sd: Real[ArrayLike, "..."], frequency: Real[ArrayLike, "..."]
) -> Complex[Array, "..."]:
    r"""Find the linear response of :func:`diffusion_rate` to a small modulation of the mean.

    A mean of :math:`\mu + \epsilon \cos \omega t` gives the rate :math:`\nu + \epsilon\,\mathrm{Re}\,(\chi
    e^{i\omega t})`, with

    .. math::
        \chi = \frac{\nu}{\sqrt 2\,\sigma}\, \frac{1}{1 + s}\,
        \frac{\psi'(y_{th}) - \psi'(y_{reset})}{\psi(y_{th}) - e^{-s t_{ref}/\tau_m} \psi(y_{reset})},
        \qquad s = i \omega \tau_m

    mean is :math:`v_{rest} + r_m I`, modulated as its current is: the membrane filters it here and not before.

    Args:
        params: parameters of a neuron, such as `LIFParams`.
        mean: mean of the free membrane, mV.
        sd: its standard deviation, mV, greater than 0.
        frequency: of the modulation, Hz, of one shape with the others; at 0 Hz the response is the slope of the rate.

    Returns:
        The response, Hz/mV: its absolute value is the gain, its angle the phase by which the rate leads.

    Raises:
        ValueError: for an sd of 0, a negative frequency, and as :func:`diffusion_rate`.

    Example:
        >>> from jaxlif import LIFParams
        >>> response = rate_response(LIFParams(), -58.0, 2.0, jnp.array([0.0, 20.0, 200.0]))
        >>> jnp.abs(response).round(3).tolist()
        [7.001, 7.517, 2.321]

    Source: Brunel, Chance, Fourcaud & Abbott 2001, doi:10.1103/PhysRevLett.86.2186; Lindner & Schimansky-Geier 2001,
    doi:10.1103/PhysRevLett.86.2934.
    """
    checks.require_positive("sd", sd, "mV")
    frequency = jnp.asarray(checks.numbers("frequency", frequency, "Hz"))
    checks.require_not_negative("frequency", frequency, "Hz")
    mean, sd, _, low, high = read_noise(params, mean, sd, 0.0, None)
    low, high = jnp.minimum(low, 26.0), jnp.minimum(high, 27.0)  # beyond which the rate is 0 in any precision
    rate, slope = jax.jvp(lambda mean: diffusion_rate(params, mean, sd), (mean,), (jnp.ones_like(mean),))
    still = frequency == 0.0
    omega = 2.0 * math.pi / 1000.0 * jnp.where(still, 1.0, frequency)
    phase = jax.lax.complex(jnp.zeros_like(omega), omega)
    s = phase * jnp.asarray(params.tau_m, phase.dtype)
    passage, at_reset, at_threshold = _passage(low, high, s)
    cycle = passage + phase * jnp.asarray(params.t_ref, phase.dtype)
    ratio = (at_threshold - at_reset * jnp.exp(-passage)) / -jnp.expm1(-cycle)
    gain = jnp.asarray(rate / (math.sqrt(2.0) * sd), phase.dtype)
    return jnp.where(still, slope.astype(phase.dtype), gain / (1.0 + s) * ratio)


# The continued fraction is used left of this, where its 160 terms give every digit; a series right of it.
_EDGE = -1.5


def _passage(low: Array, high: Array, s: Array) -> tuple[Array, Array, Array]:
    r"""Return :math:`\ln(\psi(high)/\psi(low))`, and :math:`\psi'/\psi` at low and high."""
    crosses = low < _EDGE
    bounds = (low, high, jnp.minimum(low, _EDGE), jnp.minimum(high, _EDGE))
    low, high, *left, s, crosses = jnp.broadcast_arrays(*(y.astype(s.dtype) for y in bounds), s, crosses)

    def _stretched(x: Array) -> Array:  # in equal steps of asinh y, over the decades to the left
        return _slope(jnp.sinh(x), s) * jnp.cosh(x)

    passage = gauss(_stretched, jnp.arcsinh(left[0]), jnp.arcsinh(left[1]), 48)
    at_low, _ = _advance(left[0], low, _slope(left[0], s), s)
    begin = jnp.where(crosses, left[1], low)
    at_high, rest = _advance(begin, high, jnp.where(crosses, _slope(left[1], s), at_low), s)
    return passage + rest, at_low, at_high


def _slope(y: Array, s: Array) -> Array:
    r"""Compute :math:`\psi'/\psi` left of ``_EDGE`` by its continued fraction."""
    count = 160

    def _term(k: Array, below: Array) -> Array:
        return -2.0 * y + 2.0 * (s + (count - k)) / below

    below: Array = jax.lax.fori_loop(0, count, _term, -2.0 * y + 0.0 * s)
    return 2.0 * s / below


def _advance(start: Array, end: Array, slope: Array, s: Array) -> tuple[Array, Array]:
    r"""Carry :math:`\psi'/\psi` from start to end by Taylor's series in 96 steps; return the logarithm of psi too."""
    h = (end - start) / 96
    safe = jnp.where(h == 0, 1.0, h)

    def _step(n: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, total = carried
        y = start + n * h

        def _add(k: Array, terms: tuple[Array, ...]) -> tuple[Array, ...]:
            before, last, value, change = terms
            new = (2.0 * y * h * (k - 1) * last + 2.0 * (s + (k - 2)) * h**2 * before) / (k * (k - 1))
            return last, new, value + new, change + k * new

        first = slope * h
        _, _, value, change = jax.lax.fori_loop(2, 40, _add, (jnp.ones_like(first), first, first, first))
        return jnp.where(h == 0, slope, change / (safe * (1.0 + value))), total + jnp.log1p(value)

    carried: tuple[Array, Array] = jax.lax.fori_loop(0, 96, _step, (slope, 0.0 * s))
    return carried
