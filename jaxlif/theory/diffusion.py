r"""The neuron under white noise: its rate, the CV of its intervals, the density of its voltage.

All three are integrals of :math:`e^{u^2}` over :math:`u = (v - \mu)/(\sqrt 2\,\sigma)`, which span hundreds of decades.
They are taken relative to their largest value, each on nodes that lie where it is.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks
from jaxlif.theory.constant import passage_time, require_plain
from jaxlif.theory.quadrature import gauss


def diffusion_rate(
    params: Any,
    mean: Real[ArrayLike, "..."],
    sd: Real[ArrayLike, "..."],
    dt: float = 0.0,
    tau_syn: Real[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Find the firing rate of a neuron whose free membrane fluctuates as white noise makes it (Siegert's formula).

    .. math::
        \frac{1000}{\nu} = t_{ref} + \tau_m \sqrt\pi \int_{y_{reset}}^{y_{th}} e^{u^2} (1 + \mathrm{erf}\,u)\,du,
        \qquad y = \frac{v - \mu}{\sqrt 2\,\sigma}

    On a grid the threshold is only tested once a step, which acts like a threshold that is higher by 0.5826 standard
    deviations of one step's noise, :math:`\sigma \sqrt{2\,dt / \tau_m}`; dt in ms, 0 for continuous time. Noise that
    comes through exponential synapses acts, to first order in :math:`k = \sqrt{\tau_{syn}/\tau_m}`, as white noise of
    the same strength, whose sd is :math:`\sigma\sqrt{1 + k^2}`, with threshold and reset higher by 1.46 k of that.

    The rate is in Hz; mean and sd of the free membrane in mV, tau_syn in ms, of any shape; an sd of 0 gives the f-I
    curve. With synapses it is right to 3 % up to a tau_syn of a tenth of tau_m, to 8 % at a quarter and 20 % at a half,
    and refused beyond (NaN under a trace).

    Example:
        >>> from jaxlif import LIFParams
        >>> diffusion_rate(LIFParams(), jnp.array([-58.0, -54.0]), 2.0).round(3).tolist()
        [14.205, 42.876]

    Source: Siegert 1951, doi:10.1103/PhysRev.81.617; Brunel 2000, doi:10.1023/A:1008925309027; Chernoff 1965,
    doi:10.1214/aoms/1177700268 (the shift on a grid); Brunel & Sergi 1998, doi:10.1006/jtbi.1998.0782, and Fourcaud &
    Brunel 2002, doi:10.1162/089976602320264015 (that of synapses).
    """
    mean, sd, still, low, high = read_noise(params, mean, sd, dt, tau_syn)
    overdrive = mean - params.v_th
    steady = 1000.0 / (params.t_ref + passage_time(params, jnp.asarray(params.v_reset), overdrive))
    return jnp.where(still, steady, _scaled_rate(params, low, high) * jnp.exp(-(_top(high) ** 2)))


def interval_cv(
    params: Any,
    mean: Real[ArrayLike, "..."],
    sd: Real[ArrayLike, "..."],
    dt: float = 0.0,
    tau_syn: Real[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Find the coefficient of variation of the intervals between the spikes of :func:`diffusion_rate`.

    .. math::
        CV^2 = 2\pi\,(\nu\tau_m)^2 \int_{y_{reset}}^{y_{th}} e^{x^2} \int_{-\infty}^x e^{u^2} (1 + \mathrm{erf}\,u)^2
        \,du\,dx

    Arguments as there. Refractoriness lengthens every interval alike, and so makes them more regular. Without noise the
    CV is 0 above threshold and 1, its limit, below.

    Example:
        >>> from jaxlif import LIFParams
        >>> interval_cv(LIFParams(), jnp.array([-70.0, -54.0]), 2.0).round(3).tolist()
        [1.0, 0.338]

    Source: Brunel 2000, doi:10.1023/A:1008925309027, appendix A.3.
    """
    mean, sd, still, low, high = read_noise(params, mean, sd, dt, tau_syn)
    rate = _scaled_rate(params, low, high) * params.tau_m / 1000.0
    variance = 2.0 * math.pi * rate**2 * _integral(_second_moment, 2, low, high)
    steady = jnp.where(mean > params.v_th, 0.0, 1.0)
    return jnp.where(still, steady, jnp.sqrt(jnp.where(still, 1.0, variance)))


def voltage_density(
    params: Any, mean: Real[ArrayLike, "..."], sd: Real[ArrayLike, "..."], v: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""Find the stationary density of the voltage of :func:`diffusion_rate`'s neuron, in continuous time.

    :math:`p(v) = \frac{\sqrt 2\,\nu\tau_m}{\sigma} e^{-y^2} \int_{\max(y, y_{reset})}^{y_{th}} e^{u^2} du`, per mV,
    and 0 above threshold. Its integral is :math:`1 - \nu\,t_{ref}`: in the rest of the time the neuron is refractory.
    v, mean and sd are in mV, sd greater than 0.

    Example:
        >>> from jaxlif import LIFParams
        >>> v = jnp.linspace(-80.0, -55.0, 2501)
        >>> p = voltage_density(LIFParams(t_ref=2.0), -58.0, 3.0, v)
        >>> round(float(0.01 * p.sum() + 0.002 * diffusion_rate(LIFParams(t_ref=2.0), -58.0, 3.0)), 4)
        1.0

    Source: Brunel & Hakim 1999, doi:10.1162/089976699300016179.
    """
    checks.require_positive("sd", sd, "mV")
    mean, sd, _, low, high = read_noise(params, mean, sd, 0.0, None)
    y = (jnp.asarray(checks.numbers("v", v, "mV")) - mean) / (math.sqrt(2.0) * sd)
    below = y < high
    y, top = jnp.where(below, y, high), _top(high)
    start = jnp.maximum(y, low)
    left, right = jnp.minimum(start, 0.0), jnp.maximum(high, 0.0)
    above = jnp.exp(start**2 - y**2 - top**2) * _near_edge(left, jnp.minimum(high, 0.0) - left)
    above -= jnp.exp(-(y**2)) * _near_edge(right, jnp.maximum(start, 0.0) - right)
    rate = _scaled_rate(params, low, high) * params.tau_m / 1000.0
    return jnp.where(below, math.sqrt(2.0) * rate / sd * above, 0.0)


# -zeta(1/2): what the shift of a boundary on a grid and that of one behind a synapse have in common.
_ZETA = 1.4603545088095868
# Integrals end where their integrand has fallen by e^-37, below rounding.
_FALL = 37.0


def read_noise(params: Any, mean: Any, sd: Any, dt: float, tau_syn: Any) -> tuple[Array, ...]:
    """Read mean and sd; say where there is no noise, and return reset and threshold in units of the noise."""
    require_plain(params)
    checks.not_negative("dt", dt, "ms")
    tau_m = jnp.asarray(checks.numbers("tau_m", params.tau_m))
    mean, sd = jnp.asarray(checks.numbers("mean", mean, "mV")), jnp.asarray(checks.numbers("sd", sd, "mV"))
    checks.require_not_negative("sd", sd, "mV")
    # So little noise that it moves the rate by less than rounding: the integral is that of the f-I curve.
    still = sd <= 1e-9 * jnp.abs(mean - params.v_th)
    # Two roots: that of a quotient has no slope in tau_m at dt = 0.
    lift: tuple[Any, Any] = _ZETA * jnp.asarray(jnp.sqrt(dt / math.pi), tau_m.dtype) / jnp.sqrt(tau_m), 0.0
    if tau_syn is not None:
        if not (checks.concrete(dt) and dt == 0.0):
            raise ValueError(f"dt = {dt} ms: dt must be 0 ms with tau_syn, which smooths the noise over a step")
        ratio = require_fast(tau_syn, tau_m)
        sd, lift = sd * jnp.sqrt(1.0 + ratio), (_ZETA * jnp.sqrt(ratio),) * 2
    scale = math.sqrt(2.0) * jnp.where(still, 1.0, sd)
    high, low = ((v - mean + by * sd) / scale for v, by in zip((params.v_th, params.v_reset), lift, strict=True))
    low, high = jnp.broadcast_arrays(jnp.where(still, -1.0, low), jnp.where(still, 0.0, high))
    return mean, sd, still, low, high


def require_fast(tau_syn: Any, tau_m: Any) -> Array:
    """Return tau_syn/tau_m, up to which the shift is of use; refuse more where it is at hand, elsewhere it is nan."""
    tau_syn = checks.require_positive("tau_syn", checks.numbers("tau_syn", tau_syn, "ms"), "ms")
    ratio = jnp.asarray(tau_syn / tau_m)
    fast = ratio <= 0.5 + 1e-6
    if checks.concrete(ratio):
        rule = "it must be tau_m/2 or less, as the rate is 40 % off at tau_m; simulate a slower synapse"
        checks.require(fast, "tau_syn", jnp.broadcast_to(tau_syn, ratio.shape), "ms", rule)
    return jnp.where(fast, ratio, jnp.nan)


def _top(high: Array) -> Array:
    """Return where e^(u²) is largest, so far as it is above 1: everything is taken relative to it."""
    return jnp.maximum(high, 0.0)


def _scaled_rate(params: Any, low: Array, high: Array) -> Array:
    """Return the rate, Hz, times e^(top²): what is left has no large exponents."""
    passage = math.sqrt(math.pi) * jnp.asarray(params.tau_m) * _integral(_bounded, 1, low, high)
    return jnp.asarray(1000.0 / (params.t_ref * jnp.exp(-(_top(high) ** 2)) + passage))


def _second_moment(x: Array) -> Array:
    r"""Compute :math:`e^{x^2} \int_{-\infty}^x e^{u^2} (1 + \mathrm{erf}\,u)^2 du`, over e^(2x²) where x > 0."""
    above = jnp.maximum(x, 0.0)
    reach = jax.lax.stop_gradient(_FALL / jnp.where(x > math.sqrt(_FALL), x, jnp.sqrt(x**2 + _FALL) - x))

    def _term(r: Array) -> Array:
        exponent = jnp.where(r < x, r**2 - 2.0 * x * r, 2.0 * x * r - r**2 - 2.0 * above**2)
        return jnp.exp(exponent) * _bounded(x - r) ** 2

    return gauss(_term, jnp.zeros_like(x), reach, 64)


def _bounded(u: Array) -> Array:
    r"""Compute :math:`e^{u^2} (1 + \mathrm{erf}\,u)`, over e^(u²) where u > 0: at most 2."""
    far = u < -6.0  # where the product of large and small loses digits
    near, x = jnp.where(far, 0.0, u), jnp.where(far, -u, 6.0)
    ratio = -1.0 / (2.0 * x**2)
    series = jnp.ones_like(x)
    for k in range(11, 0, -1):
        series = 1.0 + (2 * k - 1) * ratio * series
    product = jnp.exp(jnp.minimum(near, 0.0) ** 2) * jax.scipy.special.erfc(-near)
    return jnp.where(far, series / (x * math.sqrt(math.pi)), product)


def _integral(term: Callable[[Array], Array], power: int, low: Array, high: Array) -> Array:
    """Integrate the term, times e^(power u²) where u > 0, over e^(power top²)."""
    edge = _top(high)
    reach = jnp.clip(jnp.maximum(low, 0.0) - edge, -_reach(edge), 0.0)
    starts = jnp.stack([jnp.arcsinh(jnp.minimum(low, 0.0)), reach])
    ends = jnp.stack([jnp.arcsinh(jnp.minimum(high, 0.0)), jnp.zeros_like(edge)])

    def _both(x: Array) -> Array:
        # Below 0 in equal steps of asinh u, as the term falls like a power; above by the distance from the edge.
        below, above = x
        scales = jnp.cosh(below) * jnp.exp(-power * edge**2), _fallen(power, edge, above)
        return jnp.stack(scales) * term(jnp.stack([jnp.sinh(below), edge + above]))

    return jnp.sum(gauss(_both, starts, ends, 48), axis=0)


def _near_edge(edge: Array, reach: Array) -> Array:
    """Integrate e^(u² - edge²) from an edge towards 0, up to ``reach`` from there."""
    end = jnp.clip(reach, -_reach(edge), _reach(edge))
    return gauss(lambda r: _fallen(1, edge, r), jnp.zeros_like(edge), end, 48)


def _fallen(power: int, edge: Array, r: Array) -> Array:
    """Compute e^(power (u² - edge²)) at u = edge + r: by the distance, as squares of large numbers round."""
    return jnp.exp(power * r * (2.0 * edge + r))


def _reach(edge: Array) -> Array:
    return jax.lax.stop_gradient(_FALL / jnp.maximum(jnp.abs(edge), math.sqrt(_FALL)))
