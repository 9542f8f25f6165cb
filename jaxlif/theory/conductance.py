"""Conductances beside the leak: they lower time constant and resistance, and pull the voltage to their reversal."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks
from jaxlif.theory.constant import ON_THE_VOLTAGE, equilibrium, require_plain
from jaxlif.theory.diffusion import diffusion_rate
from jaxlif.theory.synaptic import Moments, synaptic_moments, voltage_moments


def with_conductances(params: Any, g: Real[ArrayLike, "*K"], e_rev: Real[ArrayLike, "*K"]) -> Any:
    r"""Return the neuron that constant conductances make of one, in the same parameters.

    .. math::
        \tau_m' = \frac{\tau_m}{1 + r_m \sum g}, \quad r_m' = \frac{r_m}{1 + r_m \sum g}, \quad
        v_{rest}' = \frac{v_{rest} + r_m \sum g\,e_{rev}}{1 + r_m \sum g}

    All other formulas take it: its `equilibrium` is the steady state, its tau_m the effective time constant, its
    `rheobase` and `firing_rate` those under the conductances. The capacitance stays.

    Args:
        params: a dataclass with tau_m, r_m and v_rest, such as `LIFParams`.
        g: conductances, nS, one or K of them, 0 or more.
        e_rev: their reversal potentials, mV.

    Returns:
        The parameters, changed in these three.

    Raises:
        ValueError: for a negative conductance, for [K, N], and for a neuron with a current that follows the voltage.

    Example:
        >>> from jaxlif import LIFParams
        >>> shunted = with_conductances(LIFParams(), g=10.0, e_rev=-70.0)  # as large as the leak, at rest
        >>> float(shunted.tau_m), float(shunted.r_m), float(shunted.v_rest)
        (5.0, 0.05, -70.0)

    Source: Koch 1999, Biophysics of Computation, chapter 1.
    """
    require_plain(params, checks.MEMBRANE, ON_THE_VOLTAGE)
    g = checks.require_not_negative("g", checks.numbers("g", g, "nS", rank=(0, 1)), "nS")
    kinds = jnp.broadcast_arrays(g, checks.numbers("e_rev", e_rev, "mV", rank=(0, 1)))
    share = params.r_m * jnp.sum(kinds[0])
    # From rest, so that what reverses there leaves it exactly; one kind after the other, as there may be N rests.
    pull = sum(g * (e_rev - params.v_rest) for g, e_rev in zip(*map(jnp.ravel, kinds), strict=True))
    v_rest = params.v_rest + params.r_m * pull / (1.0 + share)
    return replace(params, tau_m=params.tau_m / (1.0 + share), r_m=params.r_m / (1.0 + share), v_rest=v_rest)


def conductance_moments(
    params: Any,
    weight: Real[ArrayLike, "*K"],
    rate: Real[ArrayLike, "*K"],
    tau_syn: Real[ArrayLike, "*K"],
    e_rev: Real[ArrayLike, "*K"],
    tau_rise: Real[ArrayLike, "*K"] = 0.0,
) -> tuple[Any, Moments]:
    r"""Find the effective membrane, and mean and variance of its voltage, under K Poisson conductances.

    The mean conductances make the membrane that of :func:`with_conductances`, whose rest is the mean voltage; what is
    left of a conductance drives it as a current :math:`w\,(e_{rev} - \langle v \rangle)`. This leaves out how the
    driving force follows the voltage, and so is right for inputs that are small beside the mean conductance.

    Args:
        params: as there.
        weight: peak conductances after one spike, nS, one or K of them, 0 or more.
        rate: summed rate of the spikes of each kind, Hz.
        tau_syn: decay time constants, ms.
        e_rev: reversal potentials, mV.
        tau_rise: rise time constants, ms; 0 for exponential, tau_syn for alpha conductances.

    Returns:
        The parameters of the effective membrane, and mean, mV, and variance, mV², of the free voltage.

    Raises:
        ValueError: as there.

    Example:
        >>> from jaxlif import LIFParams
        >>> weight, rate, tau_syn = jnp.array([0.2, 1.0]), jnp.array([2000.0, 500.0]), jnp.array([5.0, 10.0])
        >>> membrane, v = conductance_moments(LIFParams(), weight, rate, tau_syn, e_rev=jnp.array([0.0, -80.0]))
        >>> [round(float(x), 3) for x in (membrane.tau_m, v.mean, jnp.sqrt(v.variance))]
        [5.882, -64.706, 1.614]

    Source: Kuhn, Aertsen & Rotter 2004, doi:10.1523/JNEUROSCI.3349-03.2004; Richardson & Gerstner 2005,
    doi:10.1162/0899766053429444.
    """
    checks.require_not_negative("weight", checks.numbers("weight", weight, "nS"), "nS")
    membrane = with_conductances(params, synaptic_moments(weight, rate, tau_syn, tau_rise).mean, e_rev)
    each = map(jnp.ravel, jnp.broadcast_arrays(*map(jnp.asarray, (weight, e_rev, rate, tau_syn, tau_rise))))

    def _variance(weight: Array, e_rev: Array, *course: Array) -> Array:
        return voltage_moments(membrane, weight * (e_rev - membrane.v_rest), *course).variance

    return membrane, Moments(membrane.v_rest, jnp.sum(jax.vmap(_variance)(*each), axis=0))


def shunted_rate(
    params: Any,
    current: Real[ArrayLike, "..."],
    g: Real[ArrayLike, ""],
    sd: Real[ArrayLike, "..."] = 0.0,
) -> Float[Array, "..."]:
    r"""Give the f-I curve, Hz, of a neuron with a conductance that reverses at rest, and so only shunts.

    It divides the voltage below threshold by :math:`1 + r_m g`. The rate it does not divide: without noise the curve is
    shifted to the right by :math:`g\,(v_{th} - v_{rest})` and keeps its slope far above, since there the membrane has
    no time to leak. Under noise that lifts the neuron over a threshold it would not reach, the slope falls as well.

    Args:
        params: parameters of a neuron, such as `LIFParams`.
        current: pA, of any shape.
        g: the shunt, nS.
        sd: of the free membrane without the shunt, mV, from white noise in the current; the shunt divides it by
            :math:`\sqrt{1 + r_m g}`.

    Returns:
        The rate.

    Example:
        >>> from jaxlif import LIFParams
        >>> shunted_rate(LIFParams(), jnp.array([200.0, 350.0]), g=10.0).round(2).tolist()  # rheobase 300 pA, not 150
        [0.0, 76.64]

    Source: Holt & Koch 1997, doi:10.1162/neco.1997.9.5.1001; Chance, Abbott & Reyes 2002,
    doi:10.1016/S0896-6273(02)00820-6.
    """
    require_plain(params)
    shunted = with_conductances(params, checks.number("g", g, "nS"), params.v_rest)
    sd = jnp.asarray(checks.numbers("sd", sd, "mV")) * jnp.sqrt(shunted.tau_m / params.tau_m)
    return diffusion_rate(shunted, equilibrium(shunted, current), sd)
