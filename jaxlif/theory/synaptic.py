r"""Synaptic currents that rise and decay: the potentials they evoke, and what Poisson trains of them add up to.

One current holds for all: :math:`I(t) \propto e^{-t/\tau_{syn}} - e^{-t/\tau_{rise}}`, whose peak is the weight.
Without a rise it is the exponential current, with a rise as slow as the decay the alpha current; both limits are exact
here, also where tau_syn is tau_m. The membrane has no threshold.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks
from jaxlif.theory.constant import ON_THE_VOLTAGE, require_plain
from jaxlif.theory.quadrature import gauss


class Peak(NamedTuple):
    """When a postsynaptic potential is largest, ms after its spike, and how large it is then, mV from rest."""

    t: Array
    v: Array


class Moments(NamedTuple):
    """Mean and variance of what fluctuates; of independent sources both add up."""

    mean: Array
    variance: Array


def exponential_psp(
    params: Any, weight: Real[ArrayLike, "..."], tau_syn: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""Follow the potential, mV, that an exponential synaptic current :math:`w\, e^{-t/\tau_{syn}}` evokes.

    :math:`u(t) = \frac{r_m w}{\tau_m} \int_0^t e^{-s/\tau_{syn}} e^{-(t-s)/\tau_m} ds`, the deflection from rest, which
    has no singular point at :math:`\tau_{syn} = \tau_m`; 0 for t <= 0. The weight is in pA, tau_syn and t in ms.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(exponential_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=10.0)), 6)
        1.471518
    """
    return _psp(params, weight, tau_syn, 0.0, t)


def alpha_psp(
    params: Any, weight: Real[ArrayLike, "..."], tau_syn: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""Follow the potential, mV, that an alpha current :math:`w\, \frac{e\, t}{\tau_{syn}} e^{-t/\tau_{syn}}` evokes.

    The weight is the current's peak, pA, at ``tau_syn``, ms; as :func:`exponential_psp` otherwise.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(alpha_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=20.0)), 6)
        2.943036
    """
    return _psp(params, weight, tau_syn, tau_syn, t)


def double_exponential_psp(
    params: Any,
    weight: Real[ArrayLike, "..."],
    tau_rise: Real[ArrayLike, "..."],
    tau_decay: Real[ArrayLike, "..."],
    t: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    r"""Follow the potential, mV, that a current :math:`\propto e^{-t/\tau_{decay}} - e^{-t/\tau_{rise}}` evokes.

    The weight is the current's peak, pA; tau_rise, ms, may be 0 (an exponential current), tau_decay (an alpha current)
    or anything else; as :func:`exponential_psp` otherwise.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(double_exponential_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, 1.0, 5.0, t=8.0)), 6)
        1.476988
    """
    return _psp(params, weight, tau_decay, tau_rise, t, "tau_decay")


def psp_peak(
    params: Any,
    weight: Real[ArrayLike, "..."],
    tau_syn: Real[ArrayLike, "..."],
    tau_rise: Real[ArrayLike, "..."] = 0.0,
) -> Peak:
    """Find when :func:`double_exponential_psp` is largest, and how large; both have exact gradients.

    Example:
        >>> from jaxlif import LIFParams
        >>> peak = psp_peak(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=5.0)  # at 2 tau_syn ln 2, w r_m / 4 high
        >>> round(float(peak.t), 4), round(float(peak.v), 4)
        (6.9315, 1.0)
    """
    weight, rates = _read(params, weight, tau_syn, tau_rise)
    fixed = jax.lax.stop_gradient(rates)

    def _halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        rises = _slope(fixed, middle) > 0
        return jnp.where(rises, middle, ends[0]), jnp.where(rises, ends[1], middle)

    # A sum of three exponential times, of which this is the density, has its mode below its mean.
    end = 2.0 * sum(1.0 / rate for rate in fixed)
    t, _ = jax.lax.fori_loop(0, 64, _halve, (jnp.zeros_like(end), end))
    bend = jax.jvp(lambda t: _slope(fixed, t), (t,), (jnp.ones_like(t),))[1]
    # One step of Newton's from the end: it moves nothing but the gradient.
    return Peak(t - (_slope(rates, t) - _slope(fixed, t)) / bend, params.r_m * weight * _evoked(rates, t))


def jump_moments(params: Any, weight: Real[ArrayLike, "..."], rate: Real[ArrayLike, "..."]) -> Moments:
    r"""Find how far Poisson spikes that move the voltage at once shift it, mV, and its variance, mV² (Campbell).

    :math:`w \nu \tau_m` and :math:`w^2 \nu \tau_m / 2`, for jumps w in mV and the summed rate of the spikes in Hz.

    Example:
        >>> from jaxlif import LIFParams
        >>> [float(x) for x in jump_moments(LIFParams(tau_m=20.0), 0.5, 1000.0)]
        [10.0, 2.5]

    Source: Campbell 1909; Papoulis 1991, Probability, Random Variables, and Stochastic Processes, chapter 10.
    """
    require_plain(params, checks.MEMBRANE[:1], ON_THE_VOLTAGE)
    weight, events = jnp.asarray(checks.numbers("weight", weight, "mV")), _per_ms(rate)
    _require_rank(params, weight * events, "tau_m")
    return Moments(weight * events * params.tau_m, 0.5 * weight**2 * events * params.tau_m)


def synaptic_moments(
    weight: Real[ArrayLike, "..."],
    rate: Real[ArrayLike, "..."],
    tau_syn: Real[ArrayLike, "..."],
    tau_rise: Real[ArrayLike, "..."] = 0.0,
) -> Moments:
    r"""Find mean and variance of a synaptic current, or conductance, under Poisson spikes (Campbell's theorem).

    :math:`\nu \int k\,dt` and :math:`\nu \int k^2 dt`, k the current of :func:`double_exponential_psp` after one spike.
    The weight, its peak, is in pA or nS, and so are the results; the summed rate of the spikes in Hz.

    Example:
        >>> [round(float(x), 6) for x in synaptic_moments(weight=2.0, rate=1000.0, tau_syn=5.0)]
        [10.0, 10.0]
    """
    tau_syn, tau_rise = _time_constants(tau_syn, tau_rise)
    weight, events = jnp.asarray(checks.numbers("weight", weight, "pA or nS")), _per_ms(rate)
    k = weight * jnp.exp(_log_scale(tau_syn, tau_rise)) * tau_syn
    return Moments(events * k, events * k**2 / (2.0 * (tau_syn + tau_rise)))


def voltage_moments(
    params: Any,
    weight: Real[ArrayLike, "..."],
    rate: Real[ArrayLike, "..."],
    tau_syn: Real[ArrayLike, "..."],
    tau_rise: Real[ArrayLike, "..."] = 0.0,
) -> Moments:
    r"""Find how far synaptic currents under Poisson spikes shift the free voltage, mV, and its variance, mV².

    :math:`\nu \int u\,dt` and :math:`\nu \int u^2 dt`, u the potential of :func:`double_exponential_psp`; the weight is
    in pA, the summed rate of the spikes in Hz. The sd of :func:`diffusion_rate` is the root of the variance.

    Example:
        >>> from jaxlif import LIFParams
        >>> params = LIFParams(tau_m=20.0, r_m=0.1)
        >>> shift, variance = voltage_moments(params, jnp.array([50.0, -50.0]), 400.0, jnp.array([5.0, 10.0]))
        >>> float(params.v_rest + shift.sum()), round(float(jnp.sqrt(variance.sum())), 4)
        (-80.0, 4.6547)
    """
    current = synaptic_moments(weight, rate, tau_syn, tau_rise)
    _require_rank(params, current.mean, "tau_m", "r_m")
    _, (a, b, _) = _read(params, weight, tau_syn, 0.0)
    tau_rise = jnp.asarray(checks.numbers("tau_rise", tau_rise, "ms"))
    filtered = a / (a + b) * (1.0 + (a + b) * tau_rise) / (1.0 + a * tau_rise)
    return Moments(params.r_m * current.mean, params.r_m**2 * current.variance * filtered)


def _require_rank(params: Any, drive: Array, *fields: str) -> None:
    """Refuse [P] beside what is [P, P]: it would go with the populations that send, not with those that receive."""
    for field in fields:
        shape = jnp.shape(getattr(params, field))
        if 0 < len(shape) < drive.ndim:
            rule = "it must be one number or have as many axes, such as [P, 1] where it belongs to the rows"
            raise ValueError(f"{field} has shape {shape}, and the input {drive.shape}: {rule}")


def _psp(params: Any, weight: Any, tau_syn: Any, tau_rise: Any, t: Any, name: str = "tau_syn") -> Array:
    weight, rates = _read(params, weight, tau_syn, tau_rise, name)
    t = jnp.maximum(jnp.asarray(checks.numbers("t", t, "ms")), 0.0)
    return jnp.asarray(params.r_m * weight * _evoked(rates, t))


def _per_ms(rate: Any) -> Array:
    return jnp.asarray(checks.require_not_negative("rate", checks.numbers("rate", rate, "Hz"), "Hz")) / 1000.0


def _time_constants(tau_syn: Any, tau_rise: Any, name: str = "tau_syn") -> tuple[Array, Array]:
    tau_syn, tau_rise = checks.numbers(name, tau_syn, "ms"), checks.numbers("tau_rise", tau_rise, "ms")
    checks.require_positive(name, tau_syn, "ms")
    return jnp.asarray(tau_syn), jnp.asarray(checks.require_not_negative("tau_rise", tau_rise, "ms"))


def _log_scale(tau_syn: Array, tau_rise: Array) -> Array:
    r"""Return b t*, where :math:`e^{-bt} - e^{-ct}` peaks at t*: :math:`x \ln x/(x - 1)` of x = b/c."""
    ratio = tau_rise / tau_syn
    beyond = jnp.where(ratio > 0, ratio, 1.0) - 1.0
    small = jnp.abs(beyond) < 0.05
    terms = jnp.array([(-1) ** k / (k + 1) for k in reversed(range(14))], beyond.dtype)
    safe = jnp.where(small, 1.0, beyond)
    slope = jnp.where(small, jnp.polyval(terms, jnp.where(small, beyond, 0.0)), jnp.log1p(safe) / safe)
    return jnp.where(ratio > 0, ratio * slope, 0.0)


def _read(
    params: Any, weight: Any, tau_syn: Any, tau_rise: Any, name: str = "tau_syn"
) -> tuple[Any, tuple[Array, Array, Array]]:
    """Return the weight over the current's peak, and the rates, 1/ms, of membrane, decay and rise, of one shape."""
    require_plain(params, checks.MEMBRANE[:2], ON_THE_VOLTAGE)
    tau_syn, tau_rise = _time_constants(tau_syn, tau_rise, name)
    weight = jnp.asarray(checks.numbers("weight", weight, "pA")) * jnp.exp(_log_scale(tau_syn, tau_rise))
    # A rise so fast that it is none within rounding.
    rise = jnp.maximum(tau_rise, 0.01 * jnp.finfo(tau_syn.dtype).eps * tau_syn)
    taus = (jnp.asarray(params.tau_m), tau_syn, rise)
    shape = jnp.broadcast_shapes(*map(jnp.shape, taus))
    a, b, c = (1.0 / jnp.broadcast_to(tau, shape) for tau in taus)
    return weight, (a, b, c)


def _evoked(rates: tuple[Array, Array, Array], t: Array) -> Array:
    r"""Return :math:`a c` times the convolution of :math:`e^{-at}`, :math:`e^{-bt}` and :math:`e^{-ct}`."""
    a, _, c = rates
    slow, middle, fast = jnp.sort(jnp.stack([rate * t for rate in rates]), axis=0)
    near, far = middle - slow, fast - slow
    # Divided differences of (1 - e^-x)/x: by their quotient, or as the mean of the slope between points that are near.
    close = far - near < 0.5 * (1.0 + near)
    quotient = (_moment(near, 0) - _moment(far, 0)) / jnp.where(close, 1.0, far - near)
    span = jnp.where(close, far - near, 0.0)
    mean = gauss(lambda s: _moment(near + s * span, 1), jnp.zeros_like(near), jnp.ones_like(near), 10)
    return (a * t) * (c * t) * jnp.exp(-slow) * jnp.where(close, mean, quotient)


def _slope(rates: tuple[Array, Array, Array], t: Array) -> Array:
    """Return the slope of :func:`_evoked` in t, over a."""
    _, b, c = rates
    slow, fast = jnp.sort(jnp.stack([b * t, c * t]), axis=0)
    return c * t * jnp.exp(-slow) * _moment(fast - slow, 0) - _evoked(rates, t)


def _moment(x: Array, power: int) -> Array:
    r"""Integrate :math:`\int_0^1 u^p e^{-ux} du` for x >= 0 and p = 0 or 1."""
    small = x < 0.5
    # The closed forms lose digits as x -> 0, and their gradients more: there the series, to 1e-17 at 0.5.
    near, far = jnp.where(small, x, 0.0), jnp.where(small, 1.0, x)
    terms = [(-1) ** k / (math.factorial(k) * (k + power + 1)) for k in range(14)]
    series = jnp.polyval(jnp.array(terms[::-1], x.dtype), near)
    closed = -jnp.expm1(-far) / far
    if power == 1:
        closed = (closed - jnp.exp(-far)) / far
    return jnp.where(small, series, closed)
