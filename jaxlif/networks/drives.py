"""What drives a population from outside, drawn within the step from the network's key."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cell import Parameter


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PoissonParams:
    """The ``rate`` of all that reaches a neuron, Hz, and the ``weight`` of each arrival, one number or [n] each."""

    rate: Parameter
    weight: Parameter

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_not_negative("rate", self.rate, "Hz")
        checks.require_finite("weight", self.weight, "")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NoiseParams:
    """``mean`` and standard deviation ``sd`` of a current, pA, its correlation time ``tau``, ms; numbers or [n]."""

    mean: Parameter = 0.0
    sd: Parameter
    tau: Parameter = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_finite("mean", self.mean, "pA")
        checks.require_not_negative("sd", self.sd, "pA")
        checks.require_not_negative("tau", self.tau, "ms")


class Drive(ABC):
    """One drive of one population; ``receptor`` is None for a current."""

    population: str
    receptor: str | None

    @abstractmethod
    def draw(self, params: Any, key: Array, like: Array, dt: float) -> Array:
        """Return the random numbers of one step, for neurons ``like`` [n]."""

    @abstractmethod
    def advance(self, params: Any, state: Array, drawn: Array, dt: float) -> tuple[Array, Array]:
        """Return the state after a step, and what the drive gives in it, [n]. The first state is a draw too."""


@dataclass(frozen=True)
class PoissonDrive(Drive):
    r"""Independent Poisson trains into every neuron: in a step :math:`w k`, :math:`k \sim \mathrm{Poisson}(\nu\,dt)`.

    Exact for up to 60 arrivals in a step. Counts have no gradient with respect to the rate.

    Args:
        population: which is driven.
        receptor: at which the trains arrive.
    """

    population: str
    receptor: str

    def draw(self, params: PoissonParams, key: Array, like: Array, dt: float) -> Array:
        """Return counts: how many steps of the distribution lie below an even number."""
        # In the default precision, so that a key gives the same trains in every other.
        even = jax.random.uniform(key, like.shape)
        rate = jax.lax.stop_gradient(jnp.asarray(params.rate, even.dtype))
        mean = jnp.broadcast_to(rate * (dt / 1000.0), like.shape)
        first = jnp.exp(-mean)

        def _next(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            k, chance, below, count = carry
            # A sum that ends at its last digit below 1 is never reached by an even number that lies beyond it.
            more = (even >= below) & (chance > finest * below)
            chance = chance * mean / (k + 1.0)
            return k + 1.0, chance, below + chance, count + more.astype(even.dtype)

        def _left(carry: tuple[Array, Array, Array, Array]) -> Array:
            return (carry[0] < _MOST) & ((even >= carry[2]) & (carry[1] > finest * carry[2])).any()

        finest = jnp.finfo(even.dtype).eps / 2.0
        start = (jnp.zeros((), even.dtype), first, first, jnp.zeros_like(even))
        count = jax.lax.while_loop(_left, _next, start)[3]
        # While tracing nothing was checked: a rate that is none, or too high, has no counts.
        exact = (mean >= 0.0) & (mean <= _MEAN * (1.0 + 1e-6))
        return jax.lax.stop_gradient(jnp.where(exact, count, jnp.nan)).astype(like.dtype)

    def advance(self, params: PoissonParams, state: Array, drawn: Array, dt: float) -> tuple[Array, Array]:
        """Weigh the counts; nothing is remembered."""
        return state, drawn * jnp.asarray(params.weight, drawn.dtype)


_MEAN, _MOST = 60.0, 200  # arrivals in a step, and far beyond any of such a mean


@dataclass(frozen=True)
class NoiseDrive(Drive):
    r"""A fluctuating current into every neuron, its own, held over each step: :math:`\tau \dot I = \mu - I + noise`.

    An Ornstein-Uhlenbeck process, exact at any dt and stationary from the first step on; with tau = 0 a new draw in
    each step. It has a gradient with respect to mean, sd and tau.

    Args:
        population: which is driven.
    """

    population: str
    receptor: None = None

    def draw(self, params: NoiseParams, key: Array, like: Array, dt: float) -> Array:
        """Return standard normal numbers."""
        return jax.random.normal(key, like.shape).astype(like.dtype)

    def advance(self, params: NoiseParams, state: Array, drawn: Array, dt: float) -> tuple[Array, Array]:
        """Return the current of this step, pA, and let it relax."""
        white = jnp.asarray(params.tau, drawn.dtype) <= 0.0
        leak = dt / jnp.where(white, 1.0, params.tau)
        kept, spread = jnp.exp(-leak), jnp.sqrt(-jnp.expm1(-2.0 * leak))
        after = jnp.where(white, drawn, kept * state + spread * drawn)
        return after, params.mean + params.sd * state


def poisson_drive(population: str, *, rate: Any, weight: Any, receptor: str | None = None) -> tuple[Drive, Any]:
    """Drive a population by Poisson trains, all of them together ``rate`` Hz for each neuron: see PoissonDrive."""
    return PoissonDrive(population, receptor or ""), PoissonParams(rate=rate, weight=weight)


def noise_drive(population: str, *, sd: Any, mean: Any = 0.0, tau: Any = 0.0) -> tuple[Drive, Any]:
    """Drive a population by a fluctuating current, pA, of each neuron's own: see NoiseDrive."""
    return NoiseDrive(population), NoiseParams(mean=mean, sd=sd, tau=tau)


def check_drive(drive: Drive, params: Any, dt: float) -> None:
    """Refuse parameters of another drive, and more arrivals in a step than are drawn exactly."""
    kind = PoissonParams if isinstance(drive, PoissonDrive) else NoiseParams
    checks.require_params(drive, params, kind)
    params.check()
    if isinstance(params, PoissonParams) and checks.concrete(params.rate):
        most = _MEAN * 1000.0 / dt
        rule = f"rate must be at most {most:g} Hz, {_MEAN:g} arrivals in a step of {dt:g} ms"
        checks.require(np.asarray(params.rate) <= most, "rate", params.rate, "Hz", rule)
