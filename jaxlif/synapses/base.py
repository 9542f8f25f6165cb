"""What synapses have in common, the neuron that they make, and the fastest of them, which moves the voltage at once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons import lif
from jaxlif.neurons.precise import PreciseLIF


class Drive(NamedTuple):
    """What reaches a neuron in one step.

    ``arrivals`` are the weights arriving at its end: [N] in mV for voltage jumps, [K, N] for K kinds of synapse in pA
    (currents) or nS (conductances), [K] for all neurons alike; what arrives at time t belongs to step t/dt - 1.
    ``input`` is the wrapped neuron's own input, a current [N] in pA.
    """

    arrivals: Array
    input: Any


class SynapticState(NamedTuple):
    """The neuron's state, and that of the synapses: their currents [K, N], pA, or conductances [K, N], nS, beside what
    feeds those that rise, a tuple of the kinds' states, or nothing.
    """

    neuron: Any
    synapse: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SynapticParams:
    """The wrapped neuron's parameters, and those of its synapse, such as :class:`CurrentParams`, None for jumps."""

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

    def check(self, params: SynapticParams) -> None:
        """Refuse parameters of another synapse."""
        if self.params is not None:
            checks.require_params(self, params.synapse, self.params, "params.synapse")
        elif jax.tree.leaves(params.synapse):
            found = type(params.synapse).__name__
            raise ValueError(f"params.synapse = {found}: {type(self).__name__} takes none")

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
    also one that has synapses, currents and conductances a :class:`jaxlif.neurons.cell.OpenNeuron`, such as
    :class:`jaxlif.LIF`, :class:`jaxlif.AdaptiveLIF`, :class:`jaxlif.ResonantLIF` and :class:`jaxlif.AdEx`.

    Args:
        neuron: the spiking neuron.
        synapse: :class:`VoltageJump`; :class:`ExponentialCurrent`, :class:`AlphaCurrent` or
            :class:`DoubleExponentialCurrent`; :class:`Conductance`, :class:`AlphaConductance`,
            :class:`DoubleExponentialConductance` or :class:`NMDA`; several of them as :class:`Kinds`.

    Example:
        >>> import jaxlif as jl
        >>> cell = Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
        >>> params = SynapticParams(synapse=jl.CurrentParams(tau_syn=jnp.array([2.0, 5.0])))
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
        if isinstance(self.neuron, PreciseLIF):
            rule = "Synaptic needs a neuron with integrate, emit and settle; this one goes into PreciseSynaptic"
            raise ValueError(f"neuron = PreciseLIF: {rule}")
        protocol.require_verbs(self, self.neuron, (*protocol.SPIKING, *self.synapse.needs))

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt

    def check(self, params: SynapticParams) -> None:
        """Refuse parameters of another synapse, and what breaks a rule of the neuron."""
        checks.require_params(self, params, SynapticParams)
        self.synapse.check(params)
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

    What arrives during refractoriness is lost, or with ``refractory_input`` kept: what the membrane would leave of it,
    :math:`w\, e^{-(t_{end} - t)/\tau_m}`, is added in the first free step, as NEST's iaf_psc_delta does it. That takes
    a neuron which says what is left, :class:`jaxlif.LIF` or :class:`jaxlif.AdaptiveLIF`.

    Example:
        >>> import jaxlif as jl
        >>> cell, x = Synaptic(jl.LIF(), VoltageJump()), Drive(jnp.asarray(2.0), jnp.asarray(0.0))
        >>> params = SynapticParams()
        >>> float(cell.step(params, cell.init_state(params, x), x)[1].v)
        -68.0
    """

    refractory_input: bool = False

    def __post_init__(self) -> None:
        checks.choice("refractory_input", self.refractory_input, (False, True))

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Beside the verbs of all spiking neurons what is left of a jump, where that is asked."""
        return ("remaining",) if self.refractory_input else ()

    def init_state(self, params: SynapticParams, x: Drive) -> Any:
        """Return nothing, or that nothing is kept."""
        if not self.refractory_input:
            return ()
        shape = jnp.broadcast_shapes(*map(jnp.shape, jax.tree.leaves((params.neuron, x))))
        return jnp.zeros(shape, protocol.state_dtype(params, x))

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron, then add the jumps."""
        inner, v = neuron.integrate(params.neuron, state.neuron, x.input)
        jumps = jnp.asarray(x.arrivals, v.dtype)
        if not self.refractory_input:
            return SynapticState(inner, ()), v + jumps
        waiting = state.neuron.refractory > 0
        kept = state.synapse + jnp.where(waiting, jumps * neuron.remaining(params.neuron, state.neuron), 0.0)
        return SynapticState(inner, jnp.where(waiting, kept, 0.0)), v + jumps + jnp.where(waiting, 0.0, kept)
