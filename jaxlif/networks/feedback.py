"""Layers in loops and on any graph, and neurons with synapses as a layer."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree

from jaxlif.checks import whole
from jaxlif.networks.layers import NetworkOutput, Sequential, named_layer, paired, require_weights_for, signal
from jaxlif.networks.recurrent import require_drivable, spikes_of
from jaxlif.neurons.cell import (
    Cell,
    check_cell,
    check_inputs,
    input_kind,
    prepared,
    require_array_input,
    state_dtype,
    step_size,
)
from jaxlif.neurons.wrappers import EscapeNoise, Noisy
from jaxlif.synapses import Drive, Synaptic, VoltageJump

Edge = tuple[int, int]
INPUT = -1  # the network's input, as the source of an edge


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """Parameters of neurons that feed back.

    Args:
        neuron: the neuron's own parameters.
        path: those of the way from spikes to input.
    """

    neuron: PyTree
    path: PyTree


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: PyTree
    path: PyTree
    spikes: Array


@dataclass(frozen=True)
class Feedback:
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Dense()))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or such a
            neuron in :class:`EscapeNoise`, whose input is :class:`Noisy`.
        path: a cell that takes the spikes [N]; its signal is added to the input. An input of fewer numbers, such as
            [1], is broadcast to it.

    Raises:
        ValueError: for a neuron or a path with another input, a neuron without spikes, or another dt of the path; while
            simulating, for a path that returns fewer numbers than the input has.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Delayed, DelayParams, Dense, init_dense, init_neurons
        >>> cell = Feedback(jl.LIF(dt=1.0), Sequential((Delayed(dt=1.0, max_delay=5.0), Dense())))
        >>> path = DelayParams(delay=jnp.linspace(0.0, 5.0, 50)), init_dense(jax.random.key(1), 50, 50, bias=False)
        >>> params = FeedbackParams(neuron=init_neurons(50), path=path)
        >>> jl.simulate(cell, params, jnp.full((100, 1), 1.5))[1].spikes.shape
        (100, 50)

    Source: Queant, Rançon, Cottereau & Masquelier 2025, doi:10.48550/arXiv.2509.24852 (learned recurrent delays).
    """

    neuron: Cell
    path: Cell

    def __post_init__(self) -> None:
        require_drivable(self, self.neuron.neuron if isinstance(self.neuron, EscapeNoise) else self.neuron)
        require_array_input(self, self.path, "path")
        own, way = step_size(self.neuron), step_size(self.path)
        if own is not None and way is not None and not math.isclose(own, way, rel_tol=1e-9):
            raise ValueError(f"dt must be the same: the neuron has {own:g} ms and the path {way:g} ms")

    @property
    def takes(self) -> type | None:
        """The named tuple that the neuron takes, None for an array."""
        return input_kind(self.neuron)

    def check(self, params: FeedbackParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        check_cell(self.neuron, params.neuron)
        check_cell(self.path, params.path)
        require_weights_for(self.neuron, params.path)

    def check_inputs(self, inputs: PyTree) -> None:
        """Raise ValueError where a concrete input breaks a rule of the neuron."""
        check_inputs(self.neuron, inputs)

    def prepare(self, params: FeedbackParams) -> FeedbackParams:
        """Let neuron and path compute once what depends on their parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron), path=prepared(self.path, params.path))

    def init_state(self, params: FeedbackParams, x: PyTree) -> FeedbackState:
        """Return fresh neurons, none of which has spiked; their number is that of the input or of their parameters."""
        x = jax.tree.map(lambda x: jnp.asarray(x, state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        spikes = jnp.zeros_like(spikes_of(self.neuron.step(params.neuron, neuron, x)[1]))
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: FeedbackParams, state: FeedbackState, x: PyTree) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    x = jnp.asarray(x, arriving.dtype)
    if jnp.broadcast_shapes(x.shape, arriving.shape) != arriving.shape:
        raise ValueError(f"path returns {list(arriving.shape)}: it must be what the neurons take, {list(x.shape)}")
    return x + arriving


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
        whole("kinds", self.kinds, 1)
        if not isinstance(self.neuron, Synaptic):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: Arriving needs a Synaptic neuron")
        require_array_input(self, self.neuron.neuron)

    @property
    def signed(self) -> bool:
        """Whether weights may be negative."""
        return self.neuron.synapse.signed

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Array) -> None:
        """Raise ValueError where a concrete arrival breaks a rule of the synapse."""
        self.neuron.synapse.check_arrivals(inputs)

    def prepare(self, params: PyTree) -> PyTree:
        """Let the neuron compute once what depends on its parameters alone."""
        return prepared(self.neuron, params)

    def init_state(self, params: PyTree, x: Array) -> PyTree:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: PyTree, state: PyTree, x: Array) -> tuple[PyTree, Any]:
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


class GraphState(NamedTuple):
    """The layers' states, and what each layer that feeds back passed on in the step before."""

    layers: tuple[Any, ...]
    before: dict[int, Array]


@dataclass(frozen=True)
class Graph:
    r"""Layers that feed one another along any edges: :math:`x^b_n = \sum_{a \to b} y^a_n + \sum_{a \to b} y^a_{n-1}`.

    The first sum is over ``edges``, in the same step, the second over ``feedback``, one step later. Before the first
    step no neuron has spiked: a layer without memory that feeds back has passed on what it makes of silence.
    A chain is faster as :class:`Sequential`, neurons that drive themselves as :class:`Recurrent` or :class:`Feedback`.

    Args:
        layers: cells; what the last one puts out is the graph's output.
        edges: pairs (from, to) of indices of layers, from -1 for the input, always from a lower to a higher one.
        feedback: pairs whose signal arrives one step later.

    Raises:
        ValueError: for layers whose dt disagree, an edge to nowhere or against the order, or a layer that no edge
            leads to; while simulating, for signals of different shapes that meet.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, init_dense, init_neurons
        >>> skip = Graph((Dense(), jl.LIF(dt=1.0), Dense()), edges=((-1, 0), (0, 1), (1, 2), (-1, 2)))
        >>> params = (init_dense(jax.random.key(0), 4, 4), init_neurons(4), init_dense(jax.random.key(1), 4, 2))
        >>> jl.simulate(skip, params, jnp.ones((20, 4)))[1].output.shape
        (20, 2)
    """

    layers: tuple[Cell, ...]
    edges: tuple[Edge, ...]
    feedback: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        Sequential(self.layers)  # which refuses none, dt that disagree, and those that take no array
        require_array_input(self, self.layers[0], "layer 0")
        last = len(self.layers) - 1
        for edge in (*self.edges, *self.feedback):
            if not (isinstance(edge, tuple) and len(edge) == 2 and all(isinstance(n, int) for n in edge)):
                raise ValueError(f"edge {edge!r}: it must be a pair of indices, (from, to)")
        for a, b in self.edges:
            if not INPUT <= a < b <= last:
                raise ValueError(f"edge ({a}, {b}): it must lead from a layer, or {INPUT}, to a later one up to {last}")
        for a, b in self.feedback:
            if not (0 <= a <= last and 0 <= b <= last):
                raise ValueError(f"feedback ({a}, {b}): it must lead from one layer to another, 0 to {last}")
        for b in set(range(last + 1)) - {b for _, b in self.edges}:
            raise ValueError(f"layer {b} ({type(self.layers[b]).__name__}): no edge leads to it")

    @property
    def dt(self) -> float | None:
        """The step that the layers share, ms, or None where none has one."""
        return Sequential(self.layers).dt

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of its layer."""
        for i, (layer, p) in enumerate(paired(self.layers, params)):
            with named_layer(i, layer):
                check_cell(layer, p)
                for a in (a for a, b in self.edges + self.feedback if b == i and a != INPUT):
                    require_weights_for(layer, params[a])

    def prepare(self, params: PyTree) -> PyTree:
        """Let each layer compute once what depends on its parameters alone."""
        return tuple(prepared(layer, p) for layer, p in paired(self.layers, params))

    def init_state(self, params: PyTree, x: Array) -> GraphState:
        """Return each layer's fresh state, and what those that feed back pass on in silence."""
        states: list[Any] = []
        signals = {INPUT: jnp.zeros_like(x)}
        for i, (layer, p) in enumerate(paired(self.layers, params)):
            with named_layer(i, layer):
                inputs = _sum([signals[a] for a, b in self.edges if b == i])
                states.append(layer.init_state(p, inputs))
                signals[i] = _silent(layer, p, states[-1], inputs)
        return GraphState(tuple(states), {a: signals[a] for a, _ in self.feedback})

    def step(self, params: PyTree, state: GraphState, x: Array) -> tuple[GraphState, NetworkOutput]:
        """Advance every layer one step, in order; ``x`` is the network's input."""
        states, outputs = [], []
        signals = {INPUT: jnp.asarray(x)}
        for i, ((layer, p), s) in enumerate(zip(paired(self.layers, params), state.layers, strict=True)):
            with named_layer(i, layer):
                now = [signals[a] for a, b in self.edges if b == i]
                s, output = layer.step(p, s, _sum(now + [state.before[a] for a, b in self.feedback if b == i]))
            signals[i] = signal(output)
            states.append(s)
            outputs.append(output)
        return GraphState(tuple(states), {a: signals[a] for a in state.before}), NetworkOutput(tuple(outputs))


def _sum(signals: list[Array]) -> Array:
    """Add what arrives along several edges; one alone keeps its dtype."""
    if len({jnp.shape(s) for s in signals}) > 1:
        shapes = ", ".join(str(list(jnp.shape(s))) for s in signals)
        raise ValueError(f"signals of shapes {shapes} meet: they must be the same")
    if len(signals) == 1:
        return signals[0]
    dtype = state_dtype(signals)
    return sum((jnp.asarray(s, dtype) for s in signals[1:]), start=jnp.asarray(signals[0], dtype))


def _silent(layer: Cell, params: Any, state: Any, inputs: Array) -> Array:
    """Return what a layer passes on before anything has happened: no spikes, a membrane at rest."""
    memory = bool(jax.tree.leaves(state))
    output = layer.step(params, state, jnp.zeros_like(inputs) if memory else inputs)[1]
    passed = signal(output)
    return jnp.zeros_like(passed) if hasattr(output, "spikes") else passed
