r"""Closed forms for a constant current, and for constant conductances beside it."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks

# By what they act on, the mechanisms of `AdaptiveLIFParams` and `ResonantLIFParams` that the formulas do not have.
ON_THE_VOLTAGE = ("a", "mechanisms")
_BEFORE_A_SPIKE = (*ON_THE_VOLTAGE, "coupling")


def equilibrium(params: Any, current: Real[ArrayLike, "*N"]) -> Float[Array, "..."]:
    r"""Find the voltage, mV, at which a constant current, pA, holds the membrane: :math:`v_\infty = v_{rest} + r_m I`.

    Example:
        >>> from jaxlif import LIFParams
        >>> equilibrium(LIFParams(v_rest=-70.0, r_m=0.1), jnp.array([120.0, 160.0])).tolist()
        [-58.0, -54.0]
    """
    require_plain(params, checks.MEMBRANE, ON_THE_VOLTAGE)
    return jnp.asarray(params.v_rest + params.r_m * jnp.asarray(checks.numbers("current", current, "pA")))


def rheobase(params: Any) -> Float[Array, "..."]:
    r"""Find the largest constant current, pA, that never makes the neuron fire: :math:`(v_{th} - v_{rest}) / r_m`.

    Example:
        >>> from jaxlif import LIFParams
        >>> float(rheobase(LIFParams(v_rest=-70.0, v_th=-55.0, r_m=0.1)))
        150.0
    """
    require_plain(params, (*checks.MEMBRANE, "v_th"), _BEFORE_A_SPIKE)
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
    return passage_time(params, _start(params, v_0), overdrive)


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
    require_plain(params)
    interval: Array = params.t_ref + spike_latency(params, current, v_0=params.v_reset)
    return 1000.0 / interval


def _start(params: Any, v_0: ArrayLike | None) -> Array:
    return jnp.asarray(params.v_rest if v_0 is None else checks.numbers("v_0", v_0, "mV"))


def passage_time(params: Any, v_0: Array, overdrive: Array) -> Array:
    r"""Return the time from v_0 to threshold, :math:`\tau_m \ln(1 + (v_{th} - v_0) / (v_\infty - v_{th}))`."""
    gap = jnp.maximum(params.v_th - v_0, 0.0)
    silent = overdrive <= 0  # not "fires where > 0": an overdrive of NaN is no silence
    # The inner where keeps the branch that is not taken finite: its gradient is multiplied by 0, not dropped.
    time = params.tau_m * jnp.log1p(gap / jnp.where(silent, 1.0, overdrive))
    return jnp.where(silent & (gap > 0), jnp.inf, time)


def require_plain(
    params: Any, fields: tuple[str, ...] = checks.PLAIN, mechanisms: tuple[str, ...] = checks.MECHANISMS
) -> None:
    """Refuse values that break their rules, and a mechanism that a formula would pass over."""
    checks.require_fields("this closed form", params, fields, mechanisms)
    params.check() if isinstance(params, checks.Checked) else checks.check_fields(params)
