"""Escape noise as a renewal process: a neuron that forgets at each spike all that was before."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Real

from jaxlif import checks
from jaxlif.theory.constant import equilibrium, require_plain


class Renewal(NamedTuple):
    """The intervals between the spikes of a renewal process.

    ``age`` [M], ms, is the time since the last spike, from the end of refractoriness on, at the nodes of a quadrature;
    there the ``hazard`` [M], 1/ms, of the next spike, the probability ``survivor`` [M] of none yet, and the ``density``
    [M] of the intervals, 1/ms. ``rate`` is in Hz, ``cv`` the coefficient of variation.
    """

    age: Array
    hazard: Array
    survivor: Array
    density: Array
    rate: Array
    cv: Array


def escape_renewal(params: Any, current: Real[ArrayLike, ""]) -> Renewal:
    r"""Find the intervals of an `EscapeNoise` neuron under a constant current.

    From v_reset the voltage follows :func:`step_response`, and with it the hazard
    :math:`h(t) = \lambda_0 e^{(v(t) - v_{th})/\Delta_v}`; the survivor is :math:`S = e^{-\int h}`, the density of the
    intervals h S, and the rate :math:`1000 / (t_{ref} + \int S\,dt)`.

    Args:
        params: parameters with delta_v, mV, and lambda_0, 1/ms, beside the plain neuron's: `AdaptiveLIFParams` without
            a mechanism, since adaptation remembers more than the last spike.
        current: pA, one number; for more, ``jax.vmap``.

    Returns:
        The hazard, survivor and density over 24 tau_m, after which the hazard stays as it is, and rate and CV of all.
        The CV is NaN where delta_v, less than some 0.3 % of v_inf - v_th, is too small for the nodes to see all spikes.

    Raises:
        ValueError: for parameters without escape noise, or with adaptation.

    Example:
        >>> from jaxlif import AdaptiveLIFParams
        >>> found = escape_renewal(AdaptiveLIFParams(delta_v=2.0, lambda_0=0.1), 160.0)
        >>> round(float(found.rate), 3), round(float(found.cv), 3)
        (36.264, 0.351)

    Source: Gerstner et al. 2014, doi:10.1017/CBO9781107447615, chapters 7 and 9; Cox 1962, Renewal Theory.
    """
    require_plain(params, (*checks.PLAIN, "delta_v", "lambda_0"))
    v_inf = equilibrium(params, checks.number("current", current, "pA"))
    tau_m, t_ref = jnp.asarray(params.tau_m, v_inf.dtype), params.t_ref
    place, weight, up_to = (jnp.asarray(x, v_inf.dtype) for x in _PANELS)
    t, weight, up_to = tau_m * place, tau_m * weight, tau_m * up_to
    v = v_inf + (params.v_reset - v_inf) * jnp.exp(-t / tau_m)
    # Beyond e^60 no survivor is left, and nothing changes but that the exponential overflows.
    hazard = params.lambda_0 * jnp.exp(jnp.minimum((v - params.v_th) / params.delta_v, 60.0))
    whole = jnp.sum(weight * hazard, axis=1)
    before = jnp.cumsum(jnp.concatenate([0.0 * whole[:1], whole[:-1]]))
    # Not below 0: a polynomial through a hazard that explodes within a panel swings, where no survivor is left.
    risk = before[:, None] + jnp.maximum(jnp.einsum("pij,pj->pi", up_to, hazard), 0.0)
    survivor, last = jnp.exp(-risk), hazard[-1, -1]
    density = hazard * survivor
    # In units of the longest time, 1/last or 1 ms, so that a hazard of 0 has a rate and a CV.
    unit, tail, end = jnp.minimum(last, 1.0), 1.0 / jnp.maximum(last, 1.0), 24.0 * tau_m
    left = jnp.exp(-jnp.sum(whole))
    mean = unit * jnp.sum(weight * survivor) + left * tail
    after = unit * end - mean
    variance = jnp.sum(weight * density * (unit * t - mean) ** 2) + left * (
        after**2 + 2.0 * after * tail + 2.0 * tail**2
    )
    interval = unit * t_ref + mean
    flat = (jnp.ravel(x) for x in (t_ref + t, hazard, survivor, density))
    seen = jnp.abs(jnp.sum(weight * density) + left - 1.0) < 0.01
    rate, cv = 1000.0 * unit / interval, jnp.sqrt(jnp.where(seen, variance, jnp.nan)) / interval
    return Renewal._make((*flat, rate, cv))


def _panels(count: int = 256, order: int = 8, end: float = 24.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes [P, n] from 0 to end in panels, short ones first, weights [P, n], and those up to each node."""
    edges = end * np.linspace(0.0, 1.0, count + 1) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(order)
    nodes = 0.5 * (1.0 + nodes)
    powers = np.arange(order)
    # Row i integrates the polynomial through all nodes from 0 to node i.
    up_to = (nodes[:, None] ** (powers + 1) / (powers + 1)) @ np.linalg.inv(nodes[:, None] ** powers)
    width = np.diff(edges)[:, None]
    return edges[:-1, None] + width * nodes, 0.5 * width * weights, width[..., None] * up_to


_PANELS = _panels()
