"""Synapses that open at a spike and close in time: low-pass filters in a row, and what they do within one step."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cascade import cascade, mean_decay
from jaxlif.synapses.base import Drive, Synapse, SynapticParams, SynapticState

_MOST = (
    10.0  # what all conductances together may make of r_m g dt / tau_m: 7e-3 of the driving force is the error there
)


class Rising(NamedTuple):
    """Of synapses that rise: their current, pA, or conductance, nS, and what it is fed by, per ms; each [K, N]."""

    value: Array
    drive: Array


class Flow(NamedTuple):
    """One course of K kinds: its size [K, ...] and the rates, 1/ms, of the filters that it passes through."""

    size: Array
    rates: tuple[Array, ...]


class Branch(NamedTuple):
    """K kinds that share their flows: what a unit of these drives at the voltage v(0), and by how much less for each mV
    above it, None for currents; ``bend`` is what is left over that many mV, where it is not linear in the voltage.
    """

    flows: tuple[Flow, ...]
    push: Any = 1.0
    slope: Any = None
    bend: Callable[[Array], Array] | None = None

    def at(self, s: Array | float, *more: Array | float) -> Array:
        """Return the flows s ms into the step, [K, ...], through filters of ``more`` rates too."""
        return reduce(jnp.add, (flow.size * cascade(s, *flow.rates, *more) for flow in self.flows))

    def along(self, s: Sequence[float], *more: float) -> list[Array]:
        """Return :meth:`at` for each time: what does not depend on the state together, which compiles faster."""
        times = jnp.asarray(s, self.flows[0].size.dtype)
        known = [jax.vmap(lambda t, flow=flow: cascade(t, *flow.rates, *more))(times) for flow in self.flows]
        pairs = [zip(self.flows, row, strict=True) for row in zip(*known, strict=True)]
        return [reduce(jnp.add, (flow.size * table for flow, table in pair)) for pair in pairs]

    def into(self, s: Array, rise: Array) -> Array:
        """Return the currents, [K, ...], at times [N] and voltages [N] above that of the start."""
        linear = self.push if self.slope is None else self.push - self.slope * rise[None]
        bent = linear if self.bend is None else linear + self.bend(rise)
        return self.at(s[None]) * bent  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Courses(protocol.Opened):
    """All branches of a neuron in one step, and where one is bent a function, for the neuron that asks for it, that
    returns the voltage's way, mV above its start: (a, b) of :math:`a s + b s^2`.
    """

    branches: tuple[Branch, ...]
    way: Callable[[], tuple[Array, Array]] | None = None

    def current(self, *s: float) -> list[Array]:
        """Return for each time the current [N], pA, that would flow at the voltage of the step's start."""
        driven = [[y * b.push for y in b.along(s)] for b in self.branches]
        if self.way is not None:
            a, b = self.way()
            rises = [t * (a + t * b) for t in s]
            bent = [(branch.bend, zip(branch.along(s), rises, strict=True)) for branch in self.branches]
            driven += [[y * bend(rise) for y, rise in pairs] for bend, pairs in bent if bend]
        return _totals(driven)

    def conductance(self, *s: float) -> list[Array]:
        """Return what it falls by for each mV above that, [N], nS."""
        return _totals([[y * b.slope for y in b.along(s)] for b in self.branches if b.slope is not None])

    def charge(self, *s: float) -> list[Array]:
        """Return for each time the integral of the conductance, [N], nS ms: a filter of rate 0 more."""
        return _totals([[y * b.slope for y in b.along(s, 0.0)] for b in self.branches if b.slope is not None])

    def into(self, s: Array, rise: Array) -> Array:
        """Return the current [N], pA, at times [N] and voltages [N] above that of the start."""
        return _total([b.into(s, rise) for b in self.branches])


def _totals(branches: Sequence[Sequence[Array]]) -> list[Array]:
    """Return for each time the sum over all kinds, [N], of what is [K, N] in each branch."""
    return [_total(kinds) for kinds in zip(*branches, strict=True)]


def _total(kinds: Sequence[Array]) -> Array:
    """Return the sum over all kinds, [N], of what is [K, N] each."""
    return reduce(jnp.add, (protocol.over_kinds(each) for each in kinds))


class TimedSynapse(Synapse):
    """Synapses of a time course, each kind on its own; the time constants of one or two filters in a row make it."""

    @abstractmethod
    def filters(self, p: Any) -> tuple[protocol.Parameter, ...]:
        """Return the time constants, ms, of the parameters ``p``: of the decay, or of rise and decay."""

    @abstractmethod
    def branch(self, p: Any, state: Any, v: Array) -> Branch:
        """Return what the synapses do in a step that starts from the voltage ``v`` [N]."""

    def targets(self, params: SynapticParams, x: Drive) -> tuple[int, ...]:
        """Return the shape of arrivals and parameters, [K, N], without the kinds of synapse."""
        leaves = (x.arrivals, *jax.tree.leaves(params.synapse))
        return jnp.broadcast_shapes(*(jnp.shape(leaf)[1:] for leaf in leaves))

    def init_state(self, params: SynapticParams, x: Drive) -> Any:
        """Return synapses at 0, [K, ...], with as many axes behind that of the kinds as the neurons have."""
        if jnp.ndim(x.arrivals) == 0:
            raise ValueError("arrivals are one number a step: they must be [K] or [K, N], for K kinds of synapse")
        own = self.targets(params, x)
        neurons = max(map(jnp.ndim, jax.tree.leaves((params.neuron, x.input))))
        shape = (len(x.arrivals), *(1,) * (neurons - len(own)), *own)
        closed = jnp.zeros(shape, protocol.state_dtype(params, x))
        return closed if len(self.filters(params.synapse)) == 1 else Rising(closed, closed)

    def flows(self, p: Any, state: Any) -> tuple[Flow, ...]:
        """Return the courses whose sum the synapses run through in a step."""
        if not isinstance(state, Rising):
            return (Flow(state, self._rates(p, state)),)
        rise, decay = self._rates(p, state.value)
        return Flow(state.value, (decay,)), Flow(state.drive, (rise, decay))

    def advanced(self, p: Any, state: Any, dt: Array | float, arrivals: Any) -> Any:
        """Return the synapses at the step's end, the arrivals added."""
        value = sum(flow.size * cascade(dt, *flow.rates) for flow in self.flows(p, state))
        first = state.value if isinstance(state, Rising) else state
        weight = per_kind("arrivals", arrivals, first)
        if not self.signed:  # not below 0 itself: a difference quotient around a weight of 0 steps there
            weight = jnp.where(weight < -1e-3, jnp.nan, weight)
        if not isinstance(state, Rising):
            return value + weight
        rise, decay = self._rates(p, first)
        return Rising(value, state.drive * cascade(dt, rise) + weight * per_peak(rise, decay))  # type: ignore[arg-type]

    def _rates(self, p: Any, state: Array) -> tuple[Array, ...]:
        names = ("tau_syn",) if len(self.filters(p)) == 1 else ("tau_rise", "tau_decay")
        return tuple(1.0 / per_kind(name, tau, state) for name, tau in zip(names, self.filters(p), strict=True))


def per_peak(rise: Array, decay: Array) -> Array:
    r"""Return the drive, per ms, that a weight of 1 adds, so that what it causes alone peaks at 1.

    With the rates a >= b the peak is at :math:`\ln(a/b)/(a - b)`, and the drive :math:`b\,e^{x/(1 - e^{-x})}` with
    x = ln(a/b); e/tau where they are equal.
    """
    low, high = jnp.minimum(rise, decay), jnp.maximum(rise, decay)
    return low * jnp.exp(1.0 / mean_decay(jnp.log1p((high - low) / low)))


def integrate_courses(
    neuron: Any, params: Any, state: SynapticState, x: Drive, branches: Sequence[Branch]
) -> tuple[Any, Array]:
    """Let the neuron integrate under its branches; where one is bent once more, along the first time's parabola."""

    def _integrated(neuron: Any, courses: Courses) -> tuple[Any, Array]:
        return neuron.integrate_conductances(params.neuron, state.neuron, x.input, courses)  # type: ignore[no-any-return]

    def _way() -> tuple[Array, Array]:
        h = 0.5 * neuron.dt
        half, whole = (_integrated(replace(neuron, dt=dt), straight)[1] - state.neuron.v for dt in (h, neuron.dt))
        return (2.0 * half - 0.5 * whole) / h, (0.5 * whole - half) / h**2

    straight = Courses(tuple(branches))
    bent = any(branch.bend for branch in branches)
    inner, v = _integrated(neuron, replace(straight, way=_way) if bent else straight)
    membrane = protocol.innermost(params.neuron)
    (charge,) = straight.charge(neuron.dt)
    # Beyond, conductances act within a step, where nobody looks: a voltage would be wrong and look like one.
    return inner, jnp.where(membrane.r_m * jnp.abs(charge) > _MOST * membrane.tau_m, jnp.nan, v)


def per_kind(name: str, value: Any, synapse: Array) -> Array:
    """Line up a parameter, scalar, [K] or [K, N], with a synaptic state [K, ...]."""
    leaf, kinds = jnp.asarray(value, synapse.dtype), synapse.shape[:1]
    missing = (1,) * (synapse.ndim - leaf.ndim)
    leaf = leaf.reshape(leaf.shape[:1] + missing + leaf.shape[1:]) if leaf.ndim else leaf
    if leaf.ndim not in (0, synapse.ndim) or jnp.broadcast_shapes(leaf.shape[:1], kinds) != kinds:
        raise ValueError(f"{name} has shape {leaf.shape}: it does not fit arrivals {synapse.shape}, [K, ...]")
    return leaf
