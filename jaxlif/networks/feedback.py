"""Neurons that drive one another through any path, and neurons with synapses as a layer."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.networks.layers import _dt, _require_sizes, require_drivable, require_weights_for, signal, spikes_of
from jaxlif.neurons.cell import Cell, check_cell, check_inputs, prepared, require_array_input, state_dtype
from jaxlif.neurons.escape import Noisy
from jaxlif.synapses import Drive, Synaptic, VoltageJump


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """Parameters of neurons that feed back.

    Args:
        neuron: the neuron's own parameters.
        path: those of the way from spikes to input.
    """

    neuron: Any
    path: Any


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: Any
    path: Any
    spikes: Array


@dataclass(frozen=True)
class Feedback:
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Sparse(...)))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or such a
            neuron in :class:`EscapeNoise`, whose input is :class:`Noisy`.
        path: a cell that takes the spikes [N]; its :func:`signal` is added to the input. An input of fewer numbers,
            such as [1], is broadcast to it.

    Raises:
        ValueError: for a neuron or a path with another input, a neuron without spikes, or another dt of the path; while
            simulating, for a path that returns fewer numbers than the input has.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Sparse, fixed_in_degree, init_neurons, init_sparse
        >>> target = fixed_in_degree(jax.random.key(0), 50, 50, 5)
        >>> params = FeedbackParams(neuron=init_neurons(50), path=init_sparse(jax.random.key(1), target, 50))
        >>> jl.simulate(Feedback(jl.LIF(dt=1.0), Sparse(50)), params, jnp.full((100, 1), 1.5))[1].spikes.shape
        (100, 50)
    """

    neuron: Cell
    path: Cell

    def __post_init__(self) -> None:
        require_drivable(self, self.neuron.neuron if self.takes is Noisy else self.neuron)  # type: ignore[attr-defined]
        require_array_input(self, self.path, "path")
        own, way = _dt(self.neuron), _dt(self.path)
        if own is not None and way is not None and not math.isclose(own, way, rel_tol=1e-9):
            raise ValueError(f"dt must be the same: the neuron has {own:g} ms and the path {way:g} ms")

    @property
    def takes(self) -> type | None:
        """The named tuple that the neuron takes, None for an array."""
        return getattr(self.neuron, "takes", None)

    def check(self, params: FeedbackParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        check_cell(self.neuron, params.neuron)
        check_cell(self.path, params.path)
        require_weights_for(self.neuron, params.path)

    def check_inputs(self, inputs: Any) -> None:
        """Raise ValueError where a concrete input breaks a rule of the neuron."""
        check_inputs(self.neuron, inputs)

    def prepare(self, params: FeedbackParams) -> FeedbackParams:
        """Let neuron and path compute once what depends on their parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron), path=prepared(self.path, params.path))

    def init_state(self, params: FeedbackParams, x: Array) -> FeedbackState:
        """Return fresh neurons, none of which has spiked; their number is that of the input or of their parameters."""
        x = jax.tree.map(lambda x: jnp.asarray(x, state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        spikes = jnp.zeros_like(spikes_of(self.neuron.step(params.neuron, neuron, x)[1]))
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: FeedbackParams, state: FeedbackState, x: Array) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output


@dataclass(frozen=True)
class Arriving:
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron with synapses of one kind, and not of another below them; put a
            constant current into its ``v_rest``. To a :class:`jaxlif.Conductance` negative weights are refused.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Raises:
        ValueError: for no kind, or another neuron; while simulating, for an input that the kinds do not divide.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, Sequential, init_dense
        >>> neuron = jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> network = Sequential((Dense(), Arriving(neuron)))
        >>> _, output = jl.simulate(network, (init_dense(jax.random.key(0), 4, 3), params), jnp.ones((20, 4)))
        >>> output.output.spikes.shape
        (20, 3)
    """

    neuron: Synaptic
    kinds: int = 1

    def __post_init__(self) -> None:
        _require_sizes(kinds=self.kinds)
        if not isinstance(self.neuron, Synaptic):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: Arriving needs a Synaptic neuron")
        require_array_input(self, self.neuron.neuron)

    @property
    def signed(self) -> bool:
        """Whether weights may be negative."""
        return getattr(self.neuron.synapse, "signed", True)

    def check(self, params: Any) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Array) -> None:
        """Raise ValueError where a concrete arrival breaks a rule of the synapse."""
        if hasattr(self.neuron.synapse, "check_arrivals"):
            self.neuron.synapse.check_arrivals(inputs)

    def prepare(self, params: Any) -> Any:
        """Let the neuron compute once what depends on its parameters alone."""
        return self.neuron.prepare(params)

    def init_state(self, params: Any, x: Array) -> Any:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))

    def _drive(self, x: Array) -> Drive:
        x = jnp.asarray(x, state_dtype(x))
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    x = jnp.asarray(x, arriving.dtype)
    if jnp.broadcast_shapes(x.shape, arriving.shape) != arriving.shape:
        raise ValueError(f"path returns {list(arriving.shape)}: it must be what the neurons take, {list(x.shape)}")
    return x + arriving
