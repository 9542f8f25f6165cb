r"""Closed forms of the leaky integrate-and-fire neuron for a constant current, and for one that fluctuates.

``params`` is anything with the fields of `LIFParams`. An adaptive or resonant neuron is taken where its mechanisms
change nothing, such as before its first spike, and refused with a ValueError elsewhere; so is a concrete value that
breaks its rule. A traced NaN gives NaN. Everything is differentiable and broadcasts scalars against arrays of one
shape; for more, use ``jax.vmap``. Time is continuous here: a grid finds its spikes up to one step later.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks

# By what they act on, the mechanisms of `AdaptiveLIFParams` and `ResonantLIFParams` that the formulas here do not have.
_ON_THE_VOLTAGE = ("a", "mechanisms")
_BEFORE_A_SPIKE = (*_ON_THE_VOLTAGE, "coupling")


def equilibrium(params: Any, current: Real[ArrayLike, "*N"]) -> Float[Array, "..."]:
    r"""Find the voltage, mV, at which a constant current, pA, holds the membrane: :math:`v_\infty = v_{rest} + r_m I`.

    Example:
        >>> from jaxlif import LIFParams
        >>> equilibrium(LIFParams(v_rest=-70.0, r_m=0.1), jnp.array([120.0, 160.0])).tolist()
        [-58.0, -54.0]
    """
    _require_plain(params, checks.MEMBRANE, _ON_THE_VOLTAGE)
    return jnp.asarray(params.v_rest + params.r_m * jnp.asarray(checks.numbers("current", current, "pA")))


def rheobase(params: Any) -> Float[Array, "..."]:
    r"""Find the largest constant current, pA, that never makes the neuron fire: :math:`(v_{th} - v_{rest}) / r_m`.

    Example:
        >>> from jaxlif import LIFParams
        >>> float(rheobase(LIFParams(v_rest=-70.0, v_th=-55.0, r_m=0.1)))
        150.0
    """
    _require_plain(params, (*checks.MEMBRANE, "v_th"), _BEFORE_A_SPIKE)
    return jnp.asarray((params.v_th - params.v_rest) / params.r_m)


def step_response(
    params: Any, current: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."], v_0: Real[ArrayLike, "..."] | None = None
) -> Float[Array, "..."]:
    r"""Follow the voltage under a constant current: :math:`v(t) = v_\infty + (v_0 - v_\infty)\, e^{-t/\tau_m}`.

    In mV, for a current in pA that is switched on at t = 0, ms; from v_0, mV, by default v_rest. Without a threshold.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(step_response(LIFParams(tau_m=10.0), 120.0, t=10.0)), 4)
        -62.4146
    """
    end, start = equilibrium(params, current), _start(params, v_0)
    t = jnp.asarray(checks.numbers("t", t, "ms"))
    checks.require_not_negative("t", t, "ms")
    # The change from the start rather than the distance from the end: accurate for short times too.
    return start - (end - start) * jnp.expm1(-t / params.tau_m)


def spike_latency(
    params: Any, current: Real[ArrayLike, "..."], v_0: Real[ArrayLike, "..."] | None = None
) -> Float[Array, "..."]:
    r"""Find when a constant current first brings the voltage to threshold.

    :math:`t^* = \tau_m \ln \frac{v_\infty - v_0}{v_\infty - v_{th}}`.

    In ms, from v_0, mV, by default v_rest: inf at or below rheobase, 0 from a v_0 at or above threshold. Its gradient
    is finite everywhere.

    Example:
        >>> from jaxlif import LIFParams
        >>> [round(float(spike_latency(LIFParams(), current)), 4) for current in (120.0, 160.0)]
        [inf, 27.7259]
    """
    lowest, current = rheobase(params), jnp.asarray(checks.numbers("current", current, "pA"))
    # From the rheobase, so that the overdrive is exactly 0 there: one rounding error above 0 would be 3 Hz.
    overdrive = params.r_m * (current - lowest)
    return _passage_time(params, _start(params, v_0), overdrive)


def firing_rate(params: Any, current: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    r"""Give the f-I curve: the firing rate, Hz, under a constant current, pA, of any shape.

    :math:`f = 1000 / \left(t_{ref} + \tau_m \ln \frac{v_\infty - v_{reset}}{v_\infty - v_{th}}\right)` above
    rheobase, 0 at or below it. Its gradient is finite everywhere: 0 at and below rheobase, and falling from very large
    values just above. A neuron with adaptation or a threshold that moves is refused: simulate it and count.

    Example:
        >>> from jaxlif import LIFParams
        >>> firing_rate(LIFParams(), jnp.array([120.0, 160.0, 300.0])).round(4).tolist()
        [0.0, 34.5078, 98.929]

    Source: Gerstner et al. 2014, doi:10.1017/CBO9781107447615, chapter 1.
    """
    _require_plain(params)
    interval: Array = params.t_ref + spike_latency(params, current, v_0=params.v_reset)
    return 1000.0 / interval


def exponential_psp(
    params: Any, weight: Real[ArrayLike, "..."], tau_syn: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""Follow the potential, mV, that an exponential synaptic current :math:`w\, e^{-t/\tau_s}` evokes.

    :math:`u(t) = \frac{r_m w}{\tau_m} \int_0^t e^{-s/\tau_s} e^{-(t-s)/\tau_m} ds`, the deflection from rest, which has
    no singular point at :math:`\tau_s = \tau_m`; 0 for t <= 0. The weight is in pA, tau_syn and t in ms.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(exponential_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=10.0)), 6)
        1.471518
    """
    weight, _, t, slow, span, _ = _two_decays(params, weight, tau_syn, t)
    return jnp.asarray(params.r_m * weight / params.tau_m * t * jnp.exp(-slow) * _moment(span, 0))


def alpha_psp(
    params: Any, weight: Real[ArrayLike, "..."], tau_syn: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""Follow the potential, mV, that an alpha-shaped current :math:`w\, \frac{e\, t}{\tau_s} e^{-t/\tau_s}` evokes.

    The weight is the current's peak, pA, at ``tau_syn``, ms; as :func:`exponential_psp` otherwise.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(alpha_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=20.0)), 6)
        2.943036
    """
    weight, tau_syn, t, slow, span, synapse_is_fast = _two_decays(params, weight, tau_syn, t)
    # With s = ut or s = (1 - u)t, whichever makes the exponent negative.
    shape = jnp.where(synapse_is_fast, _moment(span, 1), _moment(span, 0) - _moment(span, 1))
    return jnp.asarray(params.r_m * weight * math.e / (params.tau_m * tau_syn) * t**2 * jnp.exp(-slow) * shape)


def diffusion_rate(
    params: Any, mean: Real[ArrayLike, "..."], sd: Real[ArrayLike, "..."], dt: float = 0.0
) -> Float[Array, "..."]:
    r"""Find the firing rate of a neuron whose free membrane fluctuates as white noise makes it (Siegert's formula).

    .. math::
        \frac{1000}{\nu} = t_{ref} + \tau_m \sqrt\pi \int_{y_{reset}}^{y_{th}} e^{u^2} (1 + \mathrm{erf}\,u)\,du,
        \qquad y = \frac{v - \mu}{\sqrt 2\,\sigma}

    On a grid the threshold is only tested once a step, which acts like a threshold that is higher by 0.5826 standard
    deviations of one step's noise, :math:`\sigma \sqrt{2\,dt / \tau_m}`; dt in ms, 0 for continuous time.

    The rate is in Hz, mean and sd in mV, of any shape: 0 where the mean is more than 12.7 standard deviations below
    threshold; an sd of 0 gives the f-I curve.

    Example:
        >>> from jaxlif import LIFParams
        >>> diffusion_rate(LIFParams(), jnp.array([-58.0, -54.0]), 2.0).round(3).tolist()
        [14.205, 42.876]

    Source: Siegert 1951, doi:10.1103/PhysRev.81.617; Brunel 2000, doi:10.1023/A:1008925309027; Chernoff 1965,
    doi:10.1214/aoms/1177700268 (the shift on a grid).
    """
    _require_plain(params)
    checks.not_negative("dt", dt, "ms")
    tau_m = jnp.asarray(params.tau_m)
    mean, sd = jnp.asarray(checks.numbers("mean", mean, "mV")), jnp.asarray(checks.numbers("sd", sd, "mV"))
    checks.require_not_negative("sd", sd, "mV")
    # So little noise that it moves the rate by less than rounding: the integral is that of the f-I curve.
    still = sd <= 1e-9 * jnp.abs(mean - params.v_th)
    steady = 1000.0 / (params.t_ref + _passage_time(params, jnp.asarray(params.v_reset), mean - params.v_th))
    v_th = params.v_th + _GRID_SHIFT * sd * jnp.sqrt(2.0 * dt / tau_m)
    scale = math.sqrt(2.0) * jnp.where(still, 1.0, sd)
    high, low = (v_th - mean) / scale, (params.v_reset - mean) / scale
    # Far below threshold the rate is 0 in any precision, and the integral would overflow.
    silent, aside = high >= 9.0, still | (high >= 9.0)
    low, high = (jnp.where(aside, edge, y) for y, edge in ((low, -1.0), (high, 0.0)))
    interval = params.t_ref + tau_m * math.sqrt(math.pi) * _siegert_integral(low, high)
    return jnp.where(still, steady, jnp.where(silent, 0.0, 1000.0 / interval))


# -zeta(1/2) / sqrt(2 pi): how far beyond a boundary a Gaussian walk is on the average when it is first seen there.
_GRID_SHIFT = 0.5825971579390106


def _siegert_integral(low: Array, high: Array) -> Array:
    r"""Integrate :math:`e^{u^2} (1 + \mathrm{erf}\,u)` from low to high, with 64 Gauss-Legendre nodes in asinh u."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    # Equal steps in asinh u: the integrand falls like 1/|u| over decades to the left.
    start, half = jnp.arcsinh(low), 0.5 * (jnp.arcsinh(high) - jnp.arcsinh(low))

    def _term(node: Array) -> Array:
        s = start + half * (1.0 + node.astype(half.dtype))
        return _scaled_erfc(-jnp.sinh(s)) * jnp.cosh(s)

    terms = jax.vmap(_term)(jnp.asarray(nodes))
    return half * jnp.tensordot(jnp.asarray(weights, half.dtype), terms, 1)


def _scaled_erfc(x: Array) -> Array:
    r"""Compute :math:`e^{x^2} \mathrm{erfc}\,x`: from 6 upwards, where the product loses digits, by its series."""
    far = x > 6.0
    near, x = jnp.where(far, 0.0, x), jnp.where(far, x, 6.0)
    ratio = -1.0 / (2.0 * x**2)
    series = jnp.ones_like(x)
    for k in range(11, 0, -1):
        series = 1.0 + (2 * k - 1) * ratio * series
    return jnp.where(far, series / (x * math.sqrt(math.pi)), jnp.exp(near**2) * jax.scipy.special.erfc(near))


def _start(params: Any, v_0: ArrayLike | None) -> Array:
    return jnp.asarray(params.v_rest if v_0 is None else checks.numbers("v_0", v_0, "mV"))


def _passage_time(params: Any, v_0: Array, overdrive: Array) -> Array:
    r"""Return the time from v_0 to threshold, :math:`\tau_m \ln(1 + (v_{th} - v_0) / (v_\infty - v_{th}))`."""
    gap = jnp.maximum(params.v_th - v_0, 0.0)
    silent = overdrive <= 0  # not "fires where > 0": an overdrive of NaN is no silence
    # The inner where keeps the branch that is not taken finite: its gradient is multiplied by 0, not dropped.
    time = params.tau_m * jnp.log1p(gap / jnp.where(silent, 1.0, overdrive))
    return jnp.where(silent & (gap > 0), jnp.inf, time)


def _require_plain(
    params: Any, fields: tuple[str, ...] = checks.PLAIN, mechanisms: tuple[str, ...] = checks.MECHANISMS
) -> None:
    """Refuse values that break their rules, and a mechanism that a formula would pass over."""
    checks.require_fields("this closed form", params, fields, mechanisms)
    params.check() if isinstance(params, checks.Checked) else checks.check_fields(params)


def _two_decays(params: Any, weight: Any, tau_syn: Any, t: Any) -> tuple[Any, ...]:
    """Read weight, tau_syn and t; with slow and span exp(-s/tau_s - (t-s)/tau_m) is exp(-slow - u span): both decay."""
    _require_plain(params, checks.MEMBRANE[:2], _ON_THE_VOLTAGE)
    checks.require_positive("tau_syn", tau_syn, "ms")
    weight, tau_syn = checks.numbers("weight", weight, "pA"), checks.numbers("tau_syn", tau_syn, "ms")
    t = jnp.maximum(jnp.asarray(checks.numbers("t", t, "ms")), 0.0)
    synapse, membrane = t / tau_syn, t / params.tau_m
    is_fast = synapse >= membrane  # not the minimum, whose slope where both are equal is half of each
    slow, fast = jnp.where(is_fast, membrane, synapse), jnp.where(is_fast, synapse, membrane)
    return weight, tau_syn, t, slow, fast - slow, is_fast


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
