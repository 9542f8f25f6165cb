"""Synapses by composition: ``Synaptic(neuron, synapse)`` is a spiking neuron like the one that it wraps.

Arrivals are the summed weights of the spikes that reach a neuron in a step; they act at the step's end, after the
integration: a voltage jump is seen by that step's threshold test, a current or a conductance from the next step on.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.neurons.cell import SpikingNeuron, state_dtype
from jaxlif.neurons.checks import require_finite, require_positive
from jaxlif.neurons.lif import LIFOutput, LIFParams, LIFState


class Drive(NamedTuple):
    """What reaches a neuron in one step.

    ``arrivals`` are the weights arriving at its end: [N] in mV for voltage jumps, [K, N] for K kinds of synapse in pA
    (currents) or nS (conductances); what arrives at time t belongs to step t/dt - 1. ``input`` is the wrapped neuron's
    own input, a current [N] in pA.
    """

    arrivals: Array
    input: Any


class SynapticState(NamedTuple):
    """The neuron's state, and the synaptic currents [K, N], pA, or conductances [K, N], nS (none for jumps)."""

    neuron: Any
    synapse: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SynapticParams:
    """Parameters of a neuron and of its synapses.

    Args:
        neuron: the wrapped neuron's parameters.
        synapse: :class:`CurrentParams` or :class:`ConductanceParams`; nothing for voltage jumps.

    Example:
        >>> SynapticParams(synapse=CurrentParams(tau_syn=2.0)).synapse.tau_syn
        2.0
    """

    neuron: Any = LIFParams()
    synapse: Any = None


class Synapse(Protocol):
    """A kind of synapse: its closed state, and the neuron's voltage integrated with it over one step."""

    def targets(self, x: Drive) -> tuple[int, ...]:
        """Return the shape of the neurons that the arrivals of ``x`` reach."""

    def init_state(self, params: Any, x: Drive) -> Any:
        """Return closed synapses for the arrivals of ``x``."""

    def integrate(self, neuron: Any, params: SynapticParams, state: Any, x: Drive) -> tuple[SynapticState, Array]:
        """Return the state after the step, arrivals added, and the voltage at its end."""


@dataclass(frozen=True)
class Synaptic:
    """A spiking neuron with synapses, itself a spiking neuron.

    Args:
        neuron: a cell with integrate, emit and settle, and linear between spikes, such as :class:`jaxlif.LIF`.
        synapse: :class:`VoltageJump`, :class:`ExponentialCurrent` or :class:`Conductance`.

    Example:
        >>> import jaxlif as jl
        >>> cell = Synaptic(jl.LIF(dt=0.1), ExponentialCurrent())
        >>> params = SynapticParams(synapse=CurrentParams(tau_syn=jnp.array([2.0, 5.0])))
        >>> arrivals = jnp.zeros((1000, 2)).at[100].set(jnp.array([100.0, -50.0]))  # pA, after 10.1 ms
        >>> _, output = jl.simulate(cell, params, Drive(arrivals, jnp.zeros(1000)))
        >>> round(float(output.v.max()), 3)
        -69.615
    """

    neuron: SpikingNeuron
    synapse: Synapse

    def init_state(self, params: SynapticParams, x: Drive) -> SynapticState:
        """Return the neuron's fresh state and closed synapses."""
        state = self.neuron.init_state(params.neuron, x.input)
        targets = self.synapse.targets(x)
        neuron = jax.tree.map(lambda s: jnp.broadcast_to(s, jnp.broadcast_shapes(s.shape, targets)), state)
        return SynapticState(neuron, self.synapse.init_state(params, x))

    def integrate(self, params: SynapticParams, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Advance synapses and voltage for one step."""
        return self.synapse.integrate(self.neuron, params, state, x)

    def emit(self, params: SynapticParams, state: SynapticState, v: Array) -> tuple[Array, Array]:
        """Let the neuron test its threshold."""
        return self.neuron.emit(params.neuron, state.neuron, v)

    def settle(
        self, params: SynapticParams, state: SynapticState, v: Array, spikes: Array
    ) -> tuple[SynapticState, Array]:
        """Let the neuron reset; the synapses go on."""
        neuron, v = self.neuron.settle(params.neuron, state.neuron, v, spikes)
        return SynapticState(neuron, state.synapse), v

    def step(self, params: SynapticParams, state: SynapticState, x: Drive) -> tuple[SynapticState, LIFOutput]:
        """Advance one step under the input and the arrivals of ``x``."""
        state, v = self.integrate(params, state, x)
        v, spikes = self.emit(params, state, v)
        state, v = self.settle(params, state, v, spikes)
        return state, LIFOutput(spikes, v)


@dataclass(frozen=True)
class VoltageJump:
    r"""Synapses so fast that a spike moves the voltage at once: :math:`v \leftarrow v + w`, w in mV.

    What arrives during refractoriness is lost.

    Example:
        >>> import jaxlif as jl
        >>> cell, x = Synaptic(jl.LIF(), VoltageJump()), Drive(jnp.asarray(2.0), jnp.asarray(0.0))
        >>> params = SynapticParams()
        >>> float(cell.step(params, cell.init_state(params, x), x)[1].v)
        -68.0
    """

    def targets(self, x: Drive) -> tuple[int, ...]:
        """Return the shape of the arrivals, [N]."""
        return jnp.shape(x.arrivals)

    def init_state(self, params: Any, x: Drive) -> tuple[()]:
        """Return nothing: a jump leaves no trace."""
        return ()

    def integrate(
        self, neuron: SpikingNeuron, params: SynapticParams, state: SynapticState, x: Drive
    ) -> tuple[SynapticState, Array]:
        """Integrate the neuron, then add the jumps."""
        inner, v = neuron.integrate(params.neuron, state.neuron, x.input)
        return SynapticState(inner, ()), v + jnp.asarray(x.arrivals, v.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CurrentParams:
    """Parameters of exponential synaptic currents.

    Args:
        tau_syn: decay time constants, ms, scalar, [K] or [K, N].
    """

    tau_syn: Array | float = 5.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_positive("tau_syn", self.tau_syn, "ms")


@dataclass(frozen=True)
class ExponentialCurrent:
    r"""Currents that jump by w pA at a spike and decay: :math:`\tau_{syn} \dot I = -I`, each kind on its own.

    Current and voltage are integrated together exactly.

    Example:
        >>> ExponentialCurrent() == ExponentialCurrent()
        True

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570.
    """

    def targets(self, x: Drive) -> tuple[int, ...]:
        """Return the shape of the arrivals, [K, N], without the kinds of synapse."""
        return jnp.shape(x.arrivals)[1:]

    def init_state(self, params: SynapticParams, x: Drive) -> Array:
        """Return no current, [K, N]."""
        return _closed(params, x)

    def integrate(
        self, neuron: Any, params: SynapticParams, state: SynapticState, x: Drive
    ) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and the currents, then add the arrivals to the currents."""
        tau_syn = _per_kind(params.synapse.tau_syn, state.synapse)
        inner, v = neuron.integrate(params.neuron, state.neuron, x.input)
        p = params.neuron
        tau_m = jnp.expand_dims(p.tau_m, 0) if jnp.ndim(p.tau_m) else p.tau_m  # [1, N] beside [K, N]
        decays = _convolved_decays(tau_m, tau_syn, neuron.dt)
        v = v + p.r_m / p.tau_m * jnp.sum(decays * state.synapse, axis=0)
        return SynapticState(inner, _decayed(state.synapse, tau_syn, neuron.dt, x)), v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ConductanceParams:
    """Parameters of exponential synaptic conductances.

    Args:
        tau_syn: decay time constants, ms, scalar, [K] or [K, N].
        e_rev: reversal potentials, mV, likewise.
    """

    tau_syn: Array | float = 5.0
    e_rev: Array | float = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_positive("tau_syn", self.tau_syn, "ms")
        require_finite("e_rev", self.e_rev, "mV")


@dataclass(frozen=True)
class Conductance:
    r"""Ligand-gated channels, :math:`I = g (E_{rev} - v)`, :math:`\tau_{syn} \dot g = -g`: they drive and they shunt.

    Between arrivals the voltage obeys a linear equation with the known coefficients g(t), solved by its integrating
    factor; the one integral left is taken with Gauss-Legendre nodes, whose error at dt = 0.1 ms is below rounding.
    A synapse that reverses at the present voltage moves it by exactly nothing.

    Example:
        >>> import jaxlif as jl
        >>> cell = Synaptic(jl.LIF(), Conductance())
        >>> params = SynapticParams(synapse=ConductanceParams(tau_syn=jnp.array([10.0]), e_rev=jnp.array([-70.0])))
        >>> state = cell.init_state(params, Drive(jnp.zeros(1), jnp.asarray(0.0)))._replace(synapse=jnp.array([15.0]))
        >>> float(cell.step(params, state, Drive(jnp.zeros(1), jnp.asarray(0.0)))[1].v)
        -70.0

    Source: Koch 1999, Biophysics of Computation, chapter 1 (shunting inhibition).
    """

    def targets(self, x: Drive) -> tuple[int, ...]:
        """Return the shape of the arrivals, [K, N], without the kinds of synapse."""
        return jnp.shape(x.arrivals)[1:]

    def init_state(self, params: SynapticParams, x: Drive) -> Array:
        """Return closed channels, [K, N]."""
        return _closed(params, x)

    def integrate(
        self, neuron: Any, params: SynapticParams, state: SynapticState, x: Drive
    ) -> tuple[SynapticState, Array]:
        """Integrate the voltage under its input and the conductances, then add the arrivals to these."""
        tau_syn = _per_kind(params.synapse.tau_syn, state.synapse)
        e_rev = _per_kind(params.synapse.e_rev, state.synapse)
        membrane: LIFState = state.neuron
        rise = _conductance_rise(params.neuron, membrane.v, state.synapse, tau_syn, e_rev, x.input, neuron.dt)
        return SynapticState(membrane, _decayed(state.synapse, tau_syn, neuron.dt, x)), membrane.v + rise


def _conductance_rise(p, v, g, tau_syn, e_rev, current, dt):
    r"""Integrate :math:`u' = -a(s) u + b(s)`, u(0) = 0, for u = v(s) - v(0) over one step."""
    leak_drive = p.v_rest - v + p.r_m * jnp.asarray(current, v.dtype)

    def _decay_exponent(s):
        return (s - p.r_m * jnp.sum(g * tau_syn * jnp.expm1(-s / tau_syn), axis=0)) / p.tau_m

    def _drive(s):
        return (leak_drive + p.r_m * jnp.sum(g * jnp.exp(-s / tau_syn) * (e_rev - v[None]), axis=0)) / p.tau_m

    end = _decay_exponent(dt)
    return sum(w * dt * jnp.exp(_decay_exponent(s * dt) - end) * _drive(s * dt) for s, w in _QUADRATURE)


# Four Gauss-Legendre nodes and weights on [0, 1].
_QUADRATURE = [(0.5 + 0.5 * float(s), 0.5 * float(w)) for s, w in zip(*np.polynomial.legendre.leggauss(4), strict=True)]


def _convolved_decays(tau_m, tau_syn, dt):
    r"""Return :math:`\int_0^{dt} e^{-(dt-s)/\tau_m} e^{-s/\tau_{syn}} ds`, also for equal time constants."""
    y = dt / tau_syn - dt / tau_m
    # (1 - e^-y)/y by its series near 0, where both the quotient and its gradient lose their digits.
    small = jnp.abs(y) < 1e-2
    safe = jnp.where(small, 1.0, y)
    series = 1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0 * (1.0 - y / 6.0))))
    return dt * jnp.exp(-dt / tau_m) * jnp.where(small, series, -jnp.expm1(-safe) / safe)


def _closed(params: SynapticParams, x: Drive) -> Array:
    return jnp.zeros(jnp.shape(x.arrivals), state_dtype(params, x))


def _decayed(synapse: Array, tau_syn: Array, dt: float, x: Drive) -> Array:
    return synapse * jnp.exp(-dt / tau_syn) + jnp.asarray(x.arrivals, synapse.dtype)


def _per_kind(value: Any, synapse: Array) -> Array:
    """Line up a parameter, scalar, [K] or [K, N], with a synaptic state [K, ...]."""
    value = jnp.asarray(value, synapse.dtype)
    return value.reshape(value.shape + (1,) * (synapse.ndim - value.ndim)) if value.ndim else value
