"""Steady firing rates beyond the plain closed form: with adaptation, and averaged over a threshold that varies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlif.theory import firing_rate, rheobase

_REACH = 5.0  # standard deviations of the noise that the average covers; 6e-7 of it lies outside
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(16)[i] + (1.0, 0.0)[i]) for i in (0, 1))
_LEAST_RATE = 1e-3  # Hz; keeps 1 / rate finite where the neuron is silent


def adapted_rate(params: Any, adaptation: ArrayLike, current: ArrayLike) -> Array:
    r"""Find the steady firing rate where every spike triggers a current against the next ones.

    .. math::
        f = F(I - A f)

    with F of :func:`jaxlif.theory.firing_rate`. Solved as its inverse, :math:`F^{-1}(f) + A f = I`, whose left side is
    convex: Newton's method falls on the root from above. The gradient is that of the implicit function.

    Args:
        params: the neuron; scalars.
        adaptation: A, pA/Hz, 0 or more: strength times time constant of the triggered current; scalar.
        current: I, pA, any shape.

    Returns:
        The rate, Hz, of the current's shape; 0 at and below rheobase.

    Example:
        >>> from jaxlif.neurons.lif import LIFParams
        >>> rate = adapted_rate(LIFParams(), 1.0, jnp.array([120.0, 160.0, 300.0]))
        >>> rate.round(3).tolist()
        [0.0, 9.993, 74.452]
        >>> firing_rate(LIFParams(), 300.0 - 1.0 * rate[2]).round(3).tolist()
        74.452

    Source: Benda & Herz 2003, doi:10.1162/089976603322385063 (a rate that adapts by a subtracted current).
    """
    current = jnp.asarray(current)
    overdrive = current - rheobase(params)
    fires = overdrive > 0
    # A current that fires, where this one does not, keeps that branch finite: its gradient is multiplied by 0.
    safe = jnp.where(fires, overdrive, 1.0)
    return jnp.where(fires, _root(params, jnp.asarray(adaptation, current.dtype), safe), 0.0)


def noisy_rate(params: Any, noise: ArrayLike, current: ArrayLike, adaptation: ArrayLike | None = None) -> Array:
    r"""Average the steady firing rate over a current, or a rheobase, that varies from trial to trial.

    .. math::
        \bar f(I) = \int f(I + \sigma x)\, \phi(x)\, dx = \int_0^\infty \Phi\big((I - f^{-1}(r)) / \sigma\big)\, dr

    with f of :func:`jaxlif.theory.firing_rate` or :func:`adapted_rate`, and the standard normal density :math:`\phi`
    and distribution :math:`\Phi`. The second form needs the inverse of f only, which is closed, and is smooth in every
    parameter where f has an infinite slope: the curve bends at the rheobase instead of breaking.

    Args:
        params: the neuron; scalars.
        noise: :math:`\sigma`, pA, more than 0; scalar.
        current: I, pA, any shape.
        adaptation: pA/Hz, as for :func:`adapted_rate`; None for none.

    Returns:
        The mean rate, Hz, of the current's shape.

    Example:
        >>> from jaxlif.neurons.lif import LIFParams
        >>> noisy_rate(LIFParams(), 20.0, jnp.array([100.0, 150.0, 300.0])).round(2).tolist()
        [0.18, 19.1, 98.64]
        >>> noisy_rate(LIFParams(), 1e-3, 300.0).round(3) == firing_rate(LIFParams(), 300.0).round(3)
        Array(True, dtype=bool)
    """
    current = jnp.asarray(current)
    sigma = jnp.asarray(noise, current.dtype)
    slope = None if adaptation is None else jnp.asarray(adaptation, current.dtype)
    # The integrand is 1 below the first and 0 above the second rate, so that moving them changes nothing.
    low, high = (jax.lax.stop_gradient(_steady(params, slope, current + x * sigma)) for x in (-_REACH, _REACH))
    nodes, weights = (jnp.asarray(x, current.dtype) for x in (_NODES, _WEIGHTS))
    nodes = nodes.reshape((1,) * current.ndim + (-1,))
    rate = jnp.maximum(low[..., None] + (high - low)[..., None] * nodes, _LEAST_RATE)
    above = (current - rheobase(params))[..., None] - _overdrive(params, slope, rate)
    return low + (high - low) * (jax.scipy.special.ndtr(above / sigma) @ weights)


def _steady(params: Any, adaptation: Array | None, current: Array) -> Array:
    return firing_rate(params, current) if adaptation is None else adapted_rate(params, adaptation, current)


def _overdrive(params: Any, adaptation: Array | None, rate: Array) -> Array:
    """Return what a rate takes above the rheobase, pA."""
    x = (1000.0 / rate - params.t_ref) / params.tau_m
    plain = (params.v_th - params.v_reset) / params.r_m * jnp.exp(-x) / -jnp.expm1(-x)
    return plain if adaptation is None else plain + adaptation * rate


def _root(params: Any, adaptation: Array, overdrive: Array) -> Array:
    def excess(rate):
        return _overdrive(params, adaptation, rate) - overdrive

    def solve(function, rate):
        def newton(_, rate):
            value, slope = jax.jvp(function, (rate,), (jnp.ones_like(rate),))
            return rate - jnp.where(value > 0, value / slope, 0.0)

        return jax.lax.fori_loop(0, 40, newton, rate)

    plain = 1000.0 / (params.t_ref + params.tau_m * jnp.log1p((params.v_th - params.v_reset) / params.r_m / overdrive))
    linear = overdrive / jnp.maximum(adaptation, jnp.finfo(overdrive.dtype).tiny)
    guess = jax.lax.stop_gradient(jnp.minimum(plain, linear))  # each of them lies above the root
    return jax.lax.custom_root(excess, guess, solve, lambda g, y: y / g(jnp.ones_like(y)))
