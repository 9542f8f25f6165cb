"""A membrane under synaptic currents and conductances that decay within a step."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array


def per_kind(leaf: Any) -> Any:
    """Return a neuron's parameter, scalar or [N], beside kinds of synapse [K, N]."""
    return jnp.expand_dims(leaf, 0) if jnp.ndim(leaf) else leaf


def beside(tau_syn: Array, *leaves: Any) -> Array:
    """Return time constants, scalar, [K] or [K, N], beside parameters of :func:`per_kind`."""
    rank = max(map(jnp.ndim, leaves))
    return tau_syn.reshape(tau_syn.shape + (1,) * (rank - tau_syn.ndim)) if tau_syn.ndim else tau_syn


def convolved_decays(tau_m: Array, tau_syn: Array, dt: float) -> Array:
    r"""Return :math:`\int_0^{dt} e^{-(dt-s)/\tau_m} e^{-s/\tau_{syn}} ds`, also for equal time constants."""
    y = dt / tau_syn - dt / tau_m
    # (1 - e^-y)/y by its series near 0, where both the quotient and its gradient lose their digits.
    small = jnp.abs(y) < 1e-2
    safe = jnp.where(small, 1.0, y)
    series = 1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0 * (1.0 - y / 6.0))))
    return dt * jnp.exp(-dt / tau_m) * jnp.where(small, series, -jnp.expm1(-safe) / safe)


def conductance_rise(p: Any, v: Array, x: Array, g: Array, tau_syn: Array, e_rev: Array, dt: float) -> Array:
    r"""Return u(dt) of :math:`\tau_m u' = -(1 + r_m g(s))\, u + d(s)`, u(0) = 0, where u = v(s) - v(0).

    Solved by its integrating factor; the integral left is taken by quadrature, that of the leak alone exactly.
    """
    leak, push = p.v_rest - v + p.r_m * jnp.asarray(x, v.dtype), e_rev - v[None]

    def _exponent(s):  # the integral of (1 + r_m g) / tau_m from 0 to s
        return (s - p.r_m * jnp.sum(g * (tau_syn * jnp.expm1(-s / tau_syn)), axis=0)) / p.tau_m

    def _drive(s):
        return leak + p.r_m * jnp.sum(g * jnp.exp(-s / tau_syn) * push, axis=0)

    end, steps = _exponent(dt), dt / p.tau_m
    rise = sum(weight * steps * jnp.exp(_exponent(s * dt) - end) * _drive(s * dt) for s, weight in _QUADRATURE)
    missed = -jnp.expm1(-steps) - sum(weight * steps * jnp.exp((s - 1.0) * steps) for s, weight in _QUADRATURE)
    return rise + missed * leak


# Four Gauss-Legendre nodes and weights on [0, 1].
_QUADRATURE = [(0.5 + 0.5 * float(s), 0.5 * float(w)) for s, w in zip(*np.polynomial.legendre.leggauss(4), strict=True)]
