"""Synapses by composition: ``Synaptic(neuron, synapse)`` is a spiking neuron like the one that it wraps.

Arrivals are the summed weights of the spikes that reach a neuron in a step; they act at the step's end, after the
integration: a voltage jump is seen by that step's threshold test, a current or a conductance from the next step on.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons import lif


class Drive(NamedTuple):
    """What reaches a neuron in one step.

    ``arrivals`` are the weights arriving at its end: [N] in mV for voltage jumps, [K, N] for K kinds of synapse in pA
    (currents) or nS (conductances), [K] for all neurons alike; what arrives at time t belongs to step t/dt - 1.
    ``input`` is the wrapped neuron's own input, a current [N] in pA.
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
    """The wrapped neuron's parameters, and :class:`CurrentParams` or :class:`ConductanceParams`, None for jumps."""

    neuron: Any = lif.LIFParams()
    synapse: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class _Prepared(SynapticParams):
    """Parameters together with the neuron's response to its synapses, that follows from them."""

    response: Any


class Synapse(ABC):
    """A kind of synapse: its closed state, and the neuron's voltage integrated with it over one step.

    ``needs`` are the verbs of the neuron that it calls, ``params`` the type of its parameters, ``signed`` says whether
    a weight may be negative. What is inherited is that of synapses without time.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    params: ClassVar[type | None] = None
    signed: ClassVar[bool] = True

    def check_arrivals(self, arrivals: Any) -> None:
        """Refuse negative conductances, where they are at hand."""
        if not self.signed and checks.concrete(arrivals):
            rule = "a conductance must be 0 nS or more; what inhibits is its e_rev"
            checks.require(~(np.asarray(arrivals) < 0.0), "arrivals", arrivals, "nS", rule)

    def respond(self, neuron: Any, params: SynapticParams) -> Any:
        """Return what ``integrate`` needs of the parameters alone, computed once before a loop."""
        return None

    def targets(self, params: Any, x: Drive) -> tuple[int, ...]:
        """Return the shape of the neurons that the arrivals of ``x`` reach."""
        return jnp.shape(x.arrivals)

    def init_state(self, params: Any, x: Drive) -> Any:
        """Return closed synapses for the arrivals of ``x``."""
        return ()

    @abstractmethod
    def integrate(self, neuron: Any, params: Any, state: Any, x: Drive) -> tuple[SynapticState, Array]:
        """Return the state after the step, arrivals added, and the voltage at its end."""


@dataclass(frozen=True)
class Synaptic(protocol.SpikingNeuron):
    """A spiking neuron with synapses, itself a spiking neuron.

    A neuron that does not offer what the synapse needs is refused here: jumps take any with integrate, emit and settle,
    also one that has synapses, currents and conductances a :class:`jaxlif.neurons.cell.LinearNeuron`, such as
    :class:`jaxlif.LIF`, :class:`jaxlif.AdaptiveLIF` and :class:`jaxlif.ResonantLIF`.

    Args:
        neuron: the spiking neuron.
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

    neuron: protocol.SpikingNeuron
    synapse: Synapse
    takes: ClassVar[type] = Drive

    def __post_init__(self) -> None:
        if not isinstance(self.synapse, Synapse):
            found = protocol.kind_of(self.synapse)
            raise ValueError(f"synapse = {found}: Synaptic needs a kind of synapse, such as ExponentialCurrent()")
        protocol.require_verbs(self, self.neuron, (*protocol.SPIKING, *self.synapse.needs))

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt

    def check(self, params: SynapticParams) -> None:
        """Refuse parameters of another synapse, and what breaks a rule of the neuron."""
        checks.require_params(self, params, SynapticParams)
        if self.synapse.params is not None:
            checks.require_params(self.synapse, params.synapse, self.synapse.params, "params.synapse")
        protocol.check_cell(self.neuron, params.neuron)

    def check_inputs(self, inputs: Drive) -> None:
        """Refuse what the synapse or the neuron cannot take, where it is at hand."""
        self.synapse.check_arrivals(inputs.arrivals)
        protocol.check_inputs(self.neuron, inputs.input)

    def prepare(self, params: SynapticParams) -> SynapticParams:
        """Return the parameters with the neuron's response beside them, so that a loop computes it once."""
        if isinstance(params, _Prepared):
            return params
        neuron, response = protocol.prepared(self.neuron, params.neuron), self.synapse.respond(self.neuron, params)
        return _Prepared(neuron=neuron, synapse=params.synapse, response=response)

    def init_state(self, params: SynapticParams, x: Drive) -> SynapticState:
        """Return the neuron's fresh state and closed synapses."""
        reached = protocol.widened(x.input, self.synapse.targets(params, x))
        return SynapticState(self.neuron.init_state(params.neuron, reached), self.synapse.init_state(params, x))

    def integrate(self, params: SynapticParams, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Advance synapses and voltage for one step."""
        return self.synapse.integrate(self.neuron, self.prepare(params), state, x)

    def emit(self, params: SynapticParams, state: SynapticState, v: Array) -> tuple[Array, Array]:
        """Let the neuron test its threshold."""
        return self.neuron.emit(params.neuron, state.neuron, v)

    def settle(
        self, params: SynapticParams, state: SynapticState, v: Array, spikes: Array
    ) -> tuple[SynapticState, Array]:
        """Let the neuron reset; the synapses go on."""
        neuron, v = self.neuron.settle(params.neuron, state.neuron, v, spikes)
        return SynapticState(neuron, state.synapse), v


@dataclass(frozen=True)
class VoltageJump(Synapse):
    r"""Synapses so fast that a spike moves the voltage at once: :math:`v \leftarrow v + w`, w in mV.

    What arrives during refractoriness is lost.

    Example:
        >>> import jaxlif as jl
        >>> cell, x = Synaptic(jl.LIF(), VoltageJump()), Drive(jnp.asarray(2.0), jnp.asarray(0.0))
        >>> params = SynapticParams()
        >>> float(cell.step(params, cell.init_state(params, x), x)[1].v)
        -68.0
    """

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron, then add the jumps."""
        inner, v = neuron.integrate(params.neuron, state.neuron, x.input)
        return SynapticState(inner, ()), v + jnp.asarray(x.arrivals, v.dtype)


class _Decaying(Synapse):
    """Synapses that open at a spike and close exponentially, each kind on its own."""

    def targets(self, params: SynapticParams, x: Drive) -> tuple[int, ...]:
        """Return the shape of arrivals and time constants, [K, N], without the kinds of synapse."""
        return jnp.broadcast_shapes(jnp.shape(x.arrivals)[1:], jnp.shape(params.synapse.tau_syn)[1:])

    def init_state(self, params: SynapticParams, x: Drive) -> Array:
        """Return synapses at 0, [K, ...], with as many axes behind that of the kinds as the neurons have."""
        if jnp.ndim(x.arrivals) == 0:
            raise ValueError("arrivals are one number a step: they must be [K] or [K, N], for K kinds of synapse")
        own = self.targets(params, x)
        neurons = max(map(jnp.ndim, jax.tree.leaves((params.neuron, x.input))))
        shape = (len(x.arrivals), *(1,) * (neurons - len(own)), *own)
        return jnp.zeros(shape, protocol.state_dtype(params, x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CurrentParams:
    """Decay time constants ``tau_syn`` of exponential synaptic currents, ms, scalar, [K] or [K, N]."""

    tau_syn: protocol.Parameter = 5.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_syn", self.tau_syn, "ms")


@dataclass(frozen=True)
class ExponentialCurrent(_Decaying):
    r"""Currents that jump by w pA at a spike and decay: :math:`\tau_{syn} \dot I = -I`, each kind on its own.

    Current and neuron are integrated together exactly.

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570.
    """

    needs: ClassVar[tuple[str, ...]] = ("respond", "integrate_currents")
    params: ClassVar[type | None] = CurrentParams

    def respond(self, neuron: protocol.LinearNeuron, params: SynapticParams) -> Any:
        """Return what a current of 1 pA of each kind does to the neuron in a step, [K, ...]."""
        return jax.vmap(partial(neuron.respond, params.neuron))(jnp.atleast_1d(params.synapse.tau_syn))

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and the currents, then add the arrivals to the currents."""
        current, tau_syn = state.synapse, _per_kind("tau_syn", params.synapse.tau_syn, state.synapse)
        response = jax.tree.map(lambda r: _per_kind("the response of the neurons", r, current), params.response)
        inner, v = neuron.integrate_currents(params.neuron, state.neuron, x.input, current, response)
        return SynapticState(inner, _decayed(current, tau_syn, neuron.dt, x.arrivals)), v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ConductanceParams:
    """Decay time constants ``tau_syn``, ms, and reversal potentials ``e_rev``, mV, scalar, [K] or [K, N]."""

    tau_syn: protocol.Parameter = 5.0
    e_rev: protocol.Parameter = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_syn", self.tau_syn, "ms")
        checks.require_finite("e_rev", self.e_rev, "mV")


@dataclass(frozen=True)
class Conductance(_Decaying):
    r"""Ligand-gated channels, :math:`I = g (E_{rev} - v)`, :math:`\tau_{syn} \dot g = -g`: they drive and they shunt.

    Between arrivals the neuron obeys a linear equation with the known coefficients g(t). That of a plain or adaptive
    neuron is solved by its integrating factor, and the one integral left taken with four Gauss-Legendre nodes, whose
    error at dt = 0.1 ms is below rounding; that of a resonant one by a Magnus series of sixth order. A synapse that
    reverses at the present voltage moves it by exactly nothing.

    A weight is a conductance, 0 nS or more: it inhibits by its reversal potential, not by its sign. A negative one is
    refused where it is at hand, and gives nan under a trace.

    The nodes' error, a share of the driving force, is 3e-10 where all conductances together make r_m g dt / tau_m 1,
    1e-4 at 5 and 7e-3 at 10: conductances that act within a step need a smaller dt.

    Example:
        >>> import jaxlif as jl
        >>> cell = Synaptic(jl.LIF(), Conductance())
        >>> params = SynapticParams(synapse=ConductanceParams(tau_syn=jnp.array([10.0]), e_rev=jnp.array([-70.0])))
        >>> state = cell.init_state(params, Drive(jnp.zeros(1), jnp.asarray(0.0)))._replace(synapse=jnp.array([15.0]))
        >>> float(cell.step(params, state, Drive(jnp.zeros(1), jnp.asarray(0.0)))[1].v)
        -70.0

    Source: Koch 1999, Biophysics of Computation, chapter 1 (shunting inhibition).
    """

    needs: ClassVar[tuple[str, ...]] = ("integrate_conductances",)
    params: ClassVar[type | None] = ConductanceParams
    signed: ClassVar[bool] = False

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and the conductances, then add the arrivals to these."""
        g, tau_syn = state.synapse, _per_kind("tau_syn", params.synapse.tau_syn, state.synapse)
        e_rev = _per_kind("e_rev", params.synapse.e_rev, g)
        inner, v = neuron.integrate_conductances(params.neuron, state.neuron, x.input, g, tau_syn, e_rev)
        # Not below 0 itself: a difference quotient around a weight of 0 steps there.
        arrivals = jnp.asarray(x.arrivals, g.dtype)
        opened = jnp.where(arrivals < -1e-3, jnp.nan, arrivals)
        return SynapticState(inner, _decayed(g, tau_syn, neuron.dt, opened)), v


def _decayed(synapse: Array, tau_syn: Array, dt: float, arrivals: Array) -> Array:
    return synapse * jnp.exp(-dt / tau_syn) + _per_kind("arrivals", arrivals, synapse)


def _per_kind(name: str, value: Any, synapse: Array) -> Array:
    """Line up a parameter, scalar, [K] or [K, N], with a synaptic state [K, ...]."""
    leaf, kinds = jnp.asarray(value, synapse.dtype), synapse.shape[:1]
    missing = (1,) * (synapse.ndim - leaf.ndim)
    leaf = leaf.reshape(leaf.shape[:1] + missing + leaf.shape[1:]) if leaf.ndim else leaf
    if leaf.ndim not in (0, synapse.ndim) or jnp.broadcast_shapes(leaf.shape[:1], kinds) != kinds:
        raise ValueError(f"{name} has shape {leaf.shape}: it does not fit arrivals {synapse.shape}, [K, ...]")
    return leaf
