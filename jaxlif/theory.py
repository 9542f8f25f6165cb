r"""Closed forms of the leaky integrate-and-fire neuron for a constant current, and its synaptic potentials.

``params`` is anything with the fields of `LIFParams`: ``tau_m`` (ms), ``r_m`` (GΩ), ``v_rest``, ``v_th``,
``v_reset`` (mV) and ``t_ref`` (ms). An adaptive or resonant neuron is taken where its mechanisms change nothing, such
as before its first spike, and refused with a ValueError elsewhere; so is a concrete value that breaks its rule, of the
parameters as in a simulation and of the arguments. A traced NaN gives NaN. Everything is differentiable and broadcasts
scalars against arrays of one shape; for more, use ``jax.vmap``. Time is continuous here: a simulation on a grid finds
its spikes up to one step later.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlif.checks import concrete, number, numbers, require, require_finite, require_not_negative, require_positive

# By what they act on, the mechanisms of `AdaptiveLIFParams` and `ResonantLIFParams` that the formulas here do not have.
_ON_THE_VOLTAGE = ("a",)
_BEFORE_A_SPIKE = (*_ON_THE_VOLTAGE, "coupling")
_ON_THE_RATE = (*_BEFORE_A_SPIKE, "eta", "gamma", "b")

# The rules of a neuron's fields, for params that have none of their own.
_RULES = {"tau_m": (require_positive, "ms"), "r_m": (require_positive, "GΩ"), "t_ref": (require_not_negative, "ms")}
_RULES |= dict.fromkeys(("v_rest", "v_th", "v_reset"), (require_finite, "mV"))


def equilibrium(params: Any, current: ArrayLike) -> Array:
    r"""Find the voltage at which a constant current holds the membrane.

    :math:`v_\infty = v_{rest} + r_m I`.

    Args:
        params: the neuron.
        current: I, pA, any shape.

    Returns:
        The voltage, mV, of the current's shape.

    Example:
        >>> from jaxlif import LIFParams
        >>> equilibrium(LIFParams(v_rest=-70.0, r_m=0.1), jnp.array([120.0, 160.0])).tolist()
        [-58.0, -54.0]
    """
    _require_plain(params, _ON_THE_VOLTAGE)
    return params.v_rest + params.r_m * jnp.asarray(numbers("current", current, "pA"))


def rheobase(params: Any) -> Array:
    r"""Find the largest constant current that never makes the neuron fire.

    :math:`I_{rh} = (v_{th} - v_{rest}) / r_m`.

    Args:
        params: the neuron.

    Returns:
        The current, pA, of the parameters' shape.

    Raises:
        ValueError: for a neuron with subthreshold adaptation or a threshold that follows the voltage.

    Example:
        >>> from jaxlif import LIFParams
        >>> float(rheobase(LIFParams(v_rest=-70.0, v_th=-55.0, r_m=0.1)))
        150.0
    """
    _require_plain(params, _BEFORE_A_SPIKE)
    return jnp.asarray((params.v_th - params.v_rest) / params.r_m)


def step_response(params: Any, current: ArrayLike, t: ArrayLike, v_0: ArrayLike | None = None) -> Array:
    r"""Follow the voltage under a constant current, without a threshold.

    :math:`v(t) = v_\infty + (v_0 - v_\infty)\, e^{-t/\tau_m}`.

    Args:
        params: the neuron.
        current: I, pA, a scalar or of the shape of t.
        t: time since the current was switched on, ms, any shape; not negative.
        v_0: the voltage at t = 0, mV; by default v_rest.

    Returns:
        The voltage, mV.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(step_response(LIFParams(tau_m=10.0), 120.0, t=10.0)), 4)
        -62.4146

    Source: Gerstner et al. 2014, doi:10.1017/CBO9781107447615, chapter 1.
    """
    end, start = equilibrium(params, current), _start(params, v_0)
    t = jnp.asarray(numbers("t", t, "ms"))
    require_not_negative("t", t, "ms")
    # The change from the start rather than the distance from the end: accurate for short times too.
    return start - (end - start) * jnp.expm1(-t / params.tau_m)


def first_spike_time(params: Any, current: ArrayLike, v_0: ArrayLike | None = None) -> Array:
    r"""Find when a constant current first brings the voltage to threshold.

    :math:`t^* = \tau_m \ln \frac{v_\infty - v_0}{v_\infty - v_{th}}`.

    Args:
        params: the neuron.
        current: I, pA, any shape.
        v_0: the voltage at t = 0, mV; by default v_rest.

    Returns:
        The time, ms: inf at or below rheobase, 0 from a v_0 at or above threshold. Its gradient is finite
        everywhere.

    Example:
        >>> from jaxlif import LIFParams
        >>> [round(float(first_spike_time(LIFParams(), current)), 4) for current in (120.0, 160.0)]
        [inf, 27.7259]
    """
    lowest, current = rheobase(params), jnp.asarray(numbers("current", current, "pA"))
    # From the rheobase, so that the overdrive is exactly 0 there: one rounding error above 0 would be 3 Hz.
    overdrive = params.r_m * (current - lowest)
    return _passage_time(params, _start(params, v_0), overdrive)


def _start(params, v_0):
    return jnp.asarray(params.v_rest if v_0 is None else numbers("v_0", v_0, "mV"))


def _passage_time(params, v_0, overdrive):
    r"""Return the time from v_0 to threshold, :math:`\tau_m \ln(1 + (v_{th} - v_0) / (v_\infty - v_{th}))`."""
    gap = jnp.maximum(params.v_th - v_0, 0.0)
    silent = overdrive <= 0  # not "fires where > 0": an overdrive of NaN is no silence
    # The inner where keeps the branch that is not taken finite: its gradient is multiplied by 0, not dropped.
    time = params.tau_m * jnp.log1p(gap / jnp.where(silent, 1.0, overdrive))
    return jnp.where(silent & (gap > 0), jnp.inf, time)


def interspike_interval(params: Any, current: ArrayLike) -> Array:
    r"""Find the interval between two spikes under a constant current.

    :math:`T = t_{ref} + \tau_m \ln \frac{v_\infty - v_{reset}}{v_\infty - v_{th}}`.

    Args:
        params: the neuron.
        current: I, pA, any shape.

    Returns:
        The interval, ms; inf at or below rheobase.

    Raises:
        ValueError: as for `firing_rate`.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(interspike_interval(LIFParams(v_reset=-65.0, t_ref=5.0), 160.0)), 4)
        28.979
    """
    _require_plain(params, _ON_THE_RATE)
    return params.t_ref + first_spike_time(params, current, v_0=params.v_reset)


def firing_rate(params: Any, current: ArrayLike) -> Array:
    r"""Give the f-I curve: the firing rate under a constant current.

    :math:`f = 1000 / \left(t_{ref} + \tau_m \ln \frac{v_\infty - v_{reset}}{v_\infty - v_{th}}\right)` above
    rheobase, 0 at or below it.

    Args:
        params: the neuron.
        current: I, pA, any shape.

    Returns:
        The rate, Hz, of the current's shape. Its gradient is finite everywhere: 0 at and below rheobase, and
        falling from very large values just above.

    Raises:
        ValueError: for a neuron with adaptation or a threshold that moves: simulate it and count.

    Example:
        >>> from jaxlif import LIFParams
        >>> firing_rate(LIFParams(), jnp.array([120.0, 160.0, 300.0])).round(4).tolist()
        [0.0, 34.5078, 98.929]

    Source: Gerstner et al. 2014, doi:10.1017/CBO9781107447615, chapter 1.
    """
    return 1000.0 / interspike_interval(params, current)


def current_for_rate(params: Any, rate: ArrayLike) -> Array:
    r"""Find the constant current that makes the neuron fire at a given rate: the inverse of `firing_rate`.

    .. math::
        I = I_{rh} + \frac{v_{th} - v_{reset}}{r_m} \frac{1}{e^x - 1}, \qquad x = (1000/f - t_{ref}) / \tau_m

    Args:
        params: the neuron.
        rate: f, Hz, any shape; not negative.

    Returns:
        The current, pA, of the rate's shape; the rheobase for 0. Under a trace, nan for a rate out of range.

    Raises:
        ValueError: a concrete rate is negative, or not below 1000 / t_ref; or as for `firing_rate`.

    Example:
        >>> from jaxlif import LIFParams
        >>> current_for_rate(LIFParams(), jnp.array([0.0, 50.0])).round(4).tolist()
        [150.0, 178.7217]
    """
    _require_plain(params, _ON_THE_RATE)
    rate = jnp.asarray(numbers("rate", rate, "Hz", finite=False))
    possible = (rate >= 0) & (rate * params.t_ref < 1000.0)
    _require(possible, rate, params.t_ref)
    # Where x < 1000, asked without dividing by a rate of 0; beyond, 1/(e^x - 1) is 0 in any precision.
    fires = (rate * (1000.0 * params.tau_m + params.t_ref) > 1000.0) & possible
    x = (1000.0 / jnp.where(fires, rate, 1.0) - params.t_ref) / params.tau_m
    overdrive = (params.v_th - params.v_reset) * jnp.where(fires, jnp.exp(-x) / -jnp.expm1(-x), 0.0)
    return jnp.where(possible, rheobase(params) + overdrive / params.r_m, jnp.nan)


def exponential_psp(params: Any, weight: ArrayLike, tau_syn: ArrayLike, t: ArrayLike) -> Array:
    r"""Follow the potential that an exponential synaptic current evokes.

    :math:`I = w\, e^{-t/\tau_s}` gives

    .. math::
        u(t) = \frac{r_m w}{\tau_m} \int_0^t e^{-s/\tau_s} e^{-(t-s)/\tau_m} ds
             = r_m w\, \frac{\tau_s}{\tau_s - \tau_m} \left(e^{-t/\tau_s} - e^{-t/\tau_m}\right)

    computed from the integral, which has no singular point at :math:`\tau_s = \tau_m`.

    Args:
        params: the neuron; only tau_m and r_m count.
        weight: w, the current at t = 0, pA.
        tau_syn: decay time of the current, ms.
        t: time since the current's onset, ms, any shape.

    Returns:
        The deflection from rest, mV, of the shape of t; 0 for t <= 0.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(exponential_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=10.0)), 6)
        1.471518
    """
    weight, tau_syn, t = _psp(params, weight, tau_syn, t)
    t, slow, span, _ = _two_decays(params, tau_syn, t)
    return params.r_m * weight / params.tau_m * t * jnp.exp(-slow) * _moment(span, 0)


def alpha_psp(params: Any, weight: ArrayLike, tau_syn: ArrayLike, t: ArrayLike) -> Array:
    r"""Follow the potential that an alpha-shaped synaptic current evokes.

    :math:`I = w\, \frac{e\, t}{\tau_s} e^{-t/\tau_s}`, with its peak w at :math:`\tau_s`, gives

    .. math::
        u(t) = \frac{r_m w\, e}{\tau_m \tau_s} \int_0^t s\, e^{-s/\tau_s} e^{-(t-s)/\tau_m} ds

    smooth at :math:`\tau_s = \tau_m` too.

    Args:
        params: the neuron; only tau_m and r_m count.
        weight: w, the peak of the current, pA.
        tau_syn: rise time of the current, ms.
        t: time since the current's onset, ms, any shape.

    Returns:
        The deflection from rest, mV, of the shape of t; 0 for t <= 0.

    Example:
        >>> from jaxlif import LIFParams
        >>> round(float(alpha_psp(LIFParams(tau_m=10.0, r_m=0.04), 100.0, tau_syn=10.0, t=20.0)), 6)
        2.943036
    """
    weight, tau_syn, t = _psp(params, weight, tau_syn, t)
    t, slow, span, synapse_is_fast = _two_decays(params, tau_syn, t)
    # With s = ut or s = (1 - u)t, whichever makes the exponent negative.
    shape = jnp.where(synapse_is_fast, _moment(span, 1), _moment(span, 0) - _moment(span, 1))
    return params.r_m * weight * math.e / (params.tau_m * tau_syn) * t**2 * jnp.exp(-slow) * shape


def shot_noise(params: Any, weights: ArrayLike, rates: ArrayLike, dt: float) -> tuple[Array, Array]:
    r"""Find mean and standard deviation of the free membrane under independent Poisson inputs (Campbell's theorem).

    Each spike is a current w held over one step of dt, as a dense layer sends it. With :math:`p = \nu\,dt/1000`, the
    probability of a spike in a step,

    .. math::
        \mu = v_{rest} + r_m \sum w p, \qquad
        \sigma^2 = r_m^2 \tanh\!\left(\frac{dt}{2 \tau_m}\right) \sum w^2 p (1 - p)

    exact on the grid; for :math:`dt \ll \tau_m` and rare spikes Campbell's :math:`\sum \nu \int u^2(t)\,dt`, u the
    potential of one spike.

    Args:
        params: the neuron; only tau_m, r_m and v_rest count, scalars or [N].
        weights: w of each input, pA, [K] or [K, N].
        rates: :math:`\nu` of each input, Hz, [K].
        dt: time step, ms.

    Returns:
        Mean and standard deviation, mV, scalars or [N], without a threshold.

    Example:
        >>> from jaxlif import LIFParams
        >>> cell = LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0)
        >>> mean, sd = shot_noise(cell, jnp.full(100, 100.0), jnp.full(100, 10.0), dt=1.0)
        >>> round(float(mean), 3), round(float(sd), 3)
        (-60.0, 2.224)

    Source: Campbell 1909, Proc. Camb. Phil. Soc. 15:117; Papoulis & Pillai 2002, ISBN 0-07-366011-6, section 10-2.
    """
    _require_plain(params, _ON_THE_VOLTAGE)
    weights, rates = numbers("weights", weights, "pA"), numbers("rates", rates, "Hz", rank=1)
    require_positive("dt", number("dt", dt, "ms"), "ms")
    require_not_negative("rates", rates, "Hz")
    if jnp.shape(weights)[:1] != jnp.shape(rates):
        found = f"weights has shape {jnp.shape(weights)} and rates {jnp.shape(rates)}"
        raise ValueError(f"{found}: both count the inputs, [K, ...] and [K]")
    if concrete(rates):
        rule = f"rates must be 1000 / dt = {1000.0 / dt:g} Hz at most, a spike in every step"
        require(np.asarray(rates) <= 1000.0 / dt * (1.0 + 1e-6), "rates", rates, "Hz", rule)
    weights = jnp.asarray(weights)
    chance = jnp.asarray(rates) * (dt / 1000.0)
    mean = params.v_rest + params.r_m * jnp.tensordot(chance, weights, 1)
    variance = jnp.tensordot(chance * (1.0 - chance), weights**2, 1)
    return mean, params.r_m * jnp.sqrt(jnp.tanh(dt / (2.0 * jnp.asarray(params.tau_m))) * variance)


def diffusion_rate(params: Any, mean: ArrayLike, sd: ArrayLike, dt: float = 0.0) -> Array:
    r"""Find the firing rate of a neuron whose free membrane fluctuates as white noise makes it (Siegert's formula).

    .. math::
        \frac{1000}{\nu} = t_{ref} + \tau_m \sqrt\pi \int_{y_{reset}}^{y_{th}} e^{u^2} (1 + \mathrm{erf}\,u)\,du,
        \qquad y = \frac{v - \mu}{\sqrt 2\,\sigma}

    On a grid the threshold is only tested once a step, which acts like a threshold that is higher by 0.5826 standard
    deviations of one step's noise, :math:`\sigma \sqrt{2\,dt / \tau_m}`.

    Args:
        params: the neuron.
        mean: :math:`\mu` of the free membrane, mV, any shape.
        sd: :math:`\sigma` of the free membrane, mV, likewise; 0 gives the f-I curve.
        dt: time step of a simulation, ms; 0 for continuous time.

    Returns:
        The rate, Hz; 0 where the mean is more than 12.7 standard deviations below threshold.

    Raises:
        ValueError: as for `firing_rate`.

    Example:
        >>> from jaxlif import LIFParams
        >>> diffusion_rate(LIFParams(), jnp.array([-58.0, -54.0]), 2.0).round(3).tolist()
        [14.205, 42.876]

    Source: Siegert 1951, doi:10.1103/PhysRev.81.617; Brunel 2000, doi:10.1023/A:1008925309027; Chernoff 1965,
    doi:10.1214/aoms/1177700268 (the shift on a grid).
    """
    _require_plain(params, _ON_THE_RATE)
    require_not_negative("dt", number("dt", dt, "ms"), "ms")
    tau_m, mean, sd = map(jnp.asarray, (params.tau_m, numbers("mean", mean, "mV"), numbers("sd", sd, "mV")))
    require_not_negative("sd", sd, "mV")
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


def _siegert_integral(low, high):
    r"""Integrate :math:`e^{u^2} (1 + \mathrm{erf}\,u)` from low to high, with 64 Gauss-Legendre nodes in asinh u."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    # Equal steps in asinh u: the integrand falls like 1/|u| over decades to the left.
    start, half = jnp.arcsinh(low), 0.5 * (jnp.arcsinh(high) - jnp.arcsinh(low))

    def _term(node):
        s = start + half * (1.0 + node.astype(half.dtype))
        return _scaled_erfc(-jnp.sinh(s)) * jnp.cosh(s)

    terms = jax.vmap(_term)(jnp.asarray(nodes))
    return half * jnp.tensordot(jnp.asarray(weights, half.dtype), terms, 1)


def _scaled_erfc(x):
    r"""Compute :math:`e^{x^2} \mathrm{erfc}\,x`: from 6 upwards, where the product loses digits, by its series."""
    far = x > 6.0
    near, x = jnp.where(far, 0.0, x), jnp.where(far, x, 6.0)
    ratio = -1.0 / (2.0 * x**2)
    series = jnp.ones_like(x)
    for k in range(11, 0, -1):
        series = 1.0 + (2 * k - 1) * ratio * series
    return jnp.where(far, series / (x * math.sqrt(math.pi)), jnp.exp(near**2) * jax.scipy.special.erfc(near))


def _psp(params, weight, tau_syn, t):
    """Read the arguments of a potential, refusing a membrane that adapts."""
    _require_plain(params, _ON_THE_VOLTAGE)
    require_positive("tau_syn", tau_syn, "ms")
    return numbers("weight", weight, "pA"), numbers("tau_syn", tau_syn, "ms"), numbers("t", t, "ms")


def _require_plain(params, mechanisms):
    """Refuse values that break their rules, and one of the named mechanisms, which a formula would pass over."""
    kind = type(params).__name__.removeprefix("_")
    later = {_BEFORE_A_SPIKE: ("v_rest", "v_th"), _ON_THE_RATE: ("v_rest", "v_th", "v_reset", "t_ref")}
    for field in ("tau_m", "r_m", *later.get(mechanisms, ())):
        if not hasattr(params, field):
            raise ValueError(f"params = {kind}: it has no {field}, which this closed form needs")
    if hasattr(params, "check"):
        params.check()
    else:
        for field, (rule, unit) in _RULES.items():
            rule(field, getattr(params, field, 1.0), unit)
    for name in mechanisms:
        terms = getattr(params, name, None)
        if terms is not None and not (isinstance(terms, tuple) and not terms):
            raise ValueError(f"{kind} has {name}: this closed form is of neurons without it; simulate the neuron")


def _require(possible, rate, t_ref):
    """Refuse concrete rates that no current reaches; tracers pass."""
    if not isinstance(possible, jax.core.Tracer) and not bool(possible.all()):
        bad = jnp.broadcast_to(rate, possible.shape)[~possible][0]
        limit = jnp.min(1000.0 / jnp.asarray(t_ref))
        raise ValueError(f"rate = {bad:g} Hz: it must not be negative, and below 1000 / t_ref = {limit:g} Hz")


def _two_decays(params, tau_syn, t):
    """Write exp(-s/tau_s) exp(-(t-s)/tau_m) as exp(-slow) exp(-u span): both decay, so none overflows."""
    t = jnp.maximum(jnp.asarray(t), 0.0)
    synapse, membrane = t / tau_syn, t / params.tau_m
    synapse_is_fast = synapse >= membrane
    slow = jnp.where(synapse_is_fast, membrane, synapse)
    fast = jnp.where(synapse_is_fast, synapse, membrane)
    return t, slow, fast - slow, synapse_is_fast


def _moment(x, power):
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
