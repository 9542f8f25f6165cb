"""Layers in a row, or on any graph: networks, which are cells too."""

import math
from abc import ABC
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree

from jaxlif.checks import concrete, require
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.delays import Arriving
from jaxlif.networks.layers import NetworkOutput, signal, within
from jaxlif.networks.precise import PreciseDense, TimedSpikes, require_room
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import Cell
from jaxlif.neurons.precise import PreciseLIF
from jaxlif.simulation import scan_cell

Edge = tuple[int, int]
_States = tuple[Any, ...]  # one for each layer
_Run = Callable[[Cell, Any, Any, Any], tuple[Any, Any]]
INPUT = -1  # the network's input, as the source of an edge


class _Network(ABC):
    """Layers that feed one another along edges, in the same step, and along ``feedback``, one step later."""

    layers: tuple[Cell, ...]
    edges: tuple[Edge, ...]
    feedback: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple):
            raise ValueError(f"layers = {type(self.layers).__name__}: layers must be a tuple of cells")
        if not self.layers:
            raise ValueError("layers = (): a network needs at least one layer")
        for i, layer in enumerate(self.layers):
            if i or not protocol.is_cell(layer):
                self._require_passed(i, layer)
        steps = enumerate(map(protocol.step_size, self.layers))
        timed = [(f"layer {i} ({type(self.layers[i]).__name__})", dt) for i, dt in steps if dt is not None]
        # 0.1 + 0.2 and 0.3 are the same step.
        if not all(math.isclose(dt, timed[0][1], rel_tol=1e-9) for _, dt in timed):
            found = ", ".join(f"{name} has {dt:g} ms" for name, dt in timed)
            raise ValueError(f"dt must be the same in all layers: {found}")

    def _require_slopes(self) -> None:
        """Refuse what passes spikes on whose gradient is 0."""
        for a in {a for a, b in self.edges + self.feedback if a != INPUT and not takes_times(self.layers[b])}:
            with named_layer(a, self.layers[a]):
                require_slope(self.layers[a])

    def _require_passed(self, index: int, layer: Cell) -> None:
        """Refuse a layer that takes something else than an array."""
        protocol.require_array_input(self, layer, f"layer {index}")

    @property
    def dt(self) -> float | None:
        """The step that the layers share, ms, or None where none has one."""
        return next((dt for layer in self.layers if (dt := protocol.step_size(layer)) is not None), None)

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of its layer."""
        for i, (layer, p) in enumerate(paired(self.layers, params)):
            with named_layer(i, layer):
                protocol.check_cell(layer, p)
                for a in {a for a, b in self.edges + self.feedback if b == i and a != INPUT}:
                    self._check_weights(layer, params, a)
        _require_one_unit(self.layers, self.edges, params)

    def _check_weights(self, layer: Cell, params: PyTree, source: int) -> None:
        if require_weights_for(layer, params[source]):
            for a in {a for a, b in self.edges if b == source and a != INPUT}:
                self._check_weights(layer, params, a)

    def prepare(self, params: PyTree) -> PyTree:
        """Let each layer compute once what depends on its parameters alone."""
        return tuple(protocol.prepared(layer, p) for layer, p in paired(self.layers, params))

    def _fresh(self, params: PyTree, x: PyTree) -> tuple[_States, dict[int, Any]]:
        """Return each layer's state, in the shape of what reaches it, and what each passes on in silence."""

        def _init(layer: Cell, p: PyTree, _: None, x: PyTree) -> tuple[Any, Any]:
            # One step shows the shape of the layer's output; the compiler drops its arithmetic.
            state = layer.init_state(p, x)
            still = jax.tree.map(jnp.zeros_like, x) if jax.tree.leaves(state) else x
            output = layer.step(p, state, still)[1]
            # Before anything has happened there are no spikes, and a membrane is at rest.
            return state, jax.tree.map(jnp.zeros_like, output) if isinstance(output, protocol.HasSpikes) else output

        states, _, signals = self._through(_init, params, (None,) * len(self.layers), x)
        return states, signals

    def _through(
        self, run: _Run, params: PyTree, state: _States, x: PyTree, before: dict[int, Array] | None = None
    ) -> tuple[_States, NetworkOutput, dict[int, Any]]:
        """Call ``run(layer, params, state, x) -> (state, output)`` on each layer; ``before`` arrives along feedback."""
        states, outputs = [], {INPUT: x}
        for i, ((layer, p), s) in enumerate(zip(paired(self.layers, params), state, strict=True)):
            with named_layer(i, layer):
                late = [before[a] for a, b in self.feedback if b == i] if before else []
                arriving = [outputs[a] if a == INPUT else given(layer, outputs[a]) for a, b in self.edges if b == i]
                s, output = run(layer, p, s, _sum(arriving + late))
            states.append(s)
            outputs[i] = output
        del outputs[INPUT]
        return tuple(states), NetworkOutput(tuple(outputs.values())), {a: signal(y) for a, y in outputs.items()}


@dataclass(frozen=True)
class Sequential(_Network):
    """Layers in a row, each fed with the signal of the one before in the same step: spikes, else a voltage; a cell too.

    Params and state are tuples with one entry for each layer; the output is a named tuple of all ``layers``' outputs,
    ``output`` the last one's. The whole time axis goes through one layer before the next.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, Recurrent, init_dense, init_recurrent
        >>> network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> hidden = (init_dense(keys[0], 5, 8), init_recurrent(keys[1], 8))
        >>> params = (*hidden, init_dense(keys[2], 8, 2), jl.LeakyParams())
        >>> _, output = jl.simulate(network, params, jnp.ones((20, 5)))
        >>> output.output.v.shape, output.layers[1].spikes.shape
        ((20, 2), (20, 8))
    """

    layers: tuple[Cell, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_slopes()

    @property
    def edges(self) -> tuple[Edge, ...]:  # type: ignore[override] # what a graph is given follows from the layers here
        """Each layer feeds the next."""
        return tuple((i - 1, i) for i in range(len(self.layers)))

    @property
    def takes(self) -> type | None:
        """The named tuple that the first layer takes, None for an array."""
        return protocol.input_kind(self.layers[0])

    def _require_passed(self, index: int, layer: Cell) -> None:
        """Refuse a layer that takes what the one before it does not pass on."""
        neuron: Any = protocol.innermost(self.layers[index - 1]) if index else None
        if not takes_times(layer):
            super()._require_passed(index, layer)
        elif index and not isinstance(neuron, PreciseLIF):
            before, kind = (protocol.kind_of(layer) for layer in (self.layers[index - 1], layer))
            raise ValueError(f"layer {index} = {kind}: it takes spikes with their times, and {before} has none")
        elif index and isinstance(layer, PreciseDense):
            with named_layer(index, layer):
                require_room(layer, neuron)

    def check_inputs(self, inputs: PyTree) -> None:
        """Raise ValueError where a concrete input breaks a rule of the first layer."""
        with named_layer(0, self.layers[0]):
            protocol.check_inputs(self.layers[0], inputs)

    def init_state(self, params: PyTree, x: PyTree) -> _States:
        """Return each layer's fresh state, in the shape of what the layers before it pass on."""
        return self._fresh(params, x)[0]

    def step(self, params: PyTree, state: _States, x: PyTree) -> tuple[_States, NetworkOutput]:
        """Advance every layer one step; ``x`` is the first layer's input."""
        return self._through(_step, params, state, x)[:2]

    def scan(self, params: PyTree, state: _States, inputs: PyTree, *, unroll: int = 1) -> tuple[_States, NetworkOutput]:
        """Take the ``inputs`` [T, ...] through one layer after the other."""

        def _run(layer: Cell, p: PyTree, s: PyTree, x: PyTree) -> tuple[Any, Any]:
            return scan_cell(layer, p, s, x, unroll=unroll, recompute=worth_recomputing(s))

        return self._through(_run, params, state, inputs)[:2]


class GraphState(NamedTuple):
    """The layers' states, and what each layer that feeds back passed on in the step before."""

    layers: tuple[Any, ...]
    before: dict[int, Array]


@dataclass(frozen=True)
class Graph(_Network):
    r"""Layers that feed one another along any edges: :math:`x^b_n = \sum_{a \to b} y^a_n + \sum_{a \to b} y^a_{n-1}`.

    The first sum is over ``edges``, in the same step, the second over ``feedback``, one step later. Before the first
    step no neuron has spiked: a layer without memory that feeds back has passed on what it makes of silence.
    A chain is faster as :class:`Sequential`, neurons that drive themselves as :class:`Recurrent` or :class:`Feedback`.

    Args:
        layers: cells; what the last one puts out is the graph's output.
        edges: pairs (from, to) of indices of layers, from -1 for the input, always from a lower to a higher one.
        feedback: pairs whose signal arrives one step later.

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
        super().__post_init__()
        protocol.require_array_input(self, self.layers[0], "layer 0")
        last = len(self.layers) - 1
        for edge in (*self.edges, *self.feedback):
            if not (isinstance(edge, tuple) and len(edge) == 2 and all(isinstance(n, int) for n in edge)):
                raise ValueError(f"edge {edge!r}: it must be a pair of indices, (from, to)")
        if wrong := [e for e in self.edges if not INPUT <= e[0] < e[1] <= last]:
            raise ValueError(f"edge {wrong[0]}: it must lead from a layer, or {INPUT}, to a later one up to {last}")
        if wrong := [e for e in self.feedback if not 0 <= min(e) <= max(e) <= last]:
            raise ValueError(f"feedback {wrong[0]}: it must lead from one layer to another, 0 to {last}")
        for b in set(range(last + 1)) - {b for _, b in self.edges}:
            raise ValueError(f"layer {b} ({type(self.layers[b]).__name__}): no edge leads to it")
        self._require_slopes()

    def init_state(self, params: PyTree, x: Array) -> GraphState:
        """Return each layer's fresh state, and what those that feed back pass on in silence."""
        states, signals = self._fresh(params, jnp.zeros_like(x))
        return GraphState(states, {a: signals[a] for a, _ in self.feedback})

    def step(self, params: PyTree, state: GraphState, x: Array) -> tuple[GraphState, NetworkOutput]:
        """Advance every layer one step, in order; ``x`` is the network's input."""
        states, output, signals = self._through(_step, params, state.layers, jnp.asarray(x), state.before)
        return GraphState(states, {a: signals[a] for a in state.before}), output


def takes_times(layer: Cell) -> bool:
    """Say whether a layer takes spikes with their times."""
    return protocol.input_kind(layer) is TimedSpikes


def given(layer: Cell, output: Any) -> Any:
    """Return what a layer takes of the output of one before it: spikes with their times, or a signal."""
    if not takes_times(layer):
        return signal(output)
    return TimedSpikes(output.spikes, output.spike_time)


def require_slope(neuron: Cell) -> None:
    """Refuse exact neurons whose spikes are passed on without their times: nothing behind them would be learned."""
    inner = protocol.innermost(neuron)
    if isinstance(inner, PreciseLIF) and inner.surrogate is None:
        rule = "without their times its spikes have a gradient of 0: use PreciseDense layers, or give it a surrogate"
        raise ValueError(f"neuron = PreciseLIF: {rule}")


def _step(layer: Cell, params: PyTree, state: PyTree, x: PyTree) -> tuple[Any, Any]:
    return layer.step(params, state, x)


def _sum(signals: list[Any]) -> Any:
    """Add what arrives along several edges; one alone stays as it is."""
    if len(signals) == 1:
        return signals[0]
    if len({jnp.shape(s) for s in signals}) > 1:
        shapes = ", ".join(str(list(jnp.shape(s))) for s in signals)
        raise ValueError(f"signals of shapes {shapes} meet: they must be the same")
    dtype = protocol.state_dtype(signals)
    return sum((jnp.asarray(s, dtype) for s in signals[1:]), start=jnp.asarray(signals[0], dtype))


def paired(layers: tuple[Cell, ...], params: Any) -> list[tuple[Cell, Any]]:
    """Return each layer with its parameters, refusing those that are no tuple with one entry for each."""
    if not isinstance(params, tuple | list):
        raise ValueError(f"params = {type(params).__name__}: params must be a tuple, one entry for each layer")
    if len(params) != len(layers):
        raise ValueError(f"params are for {len(params)} layers: this network has {len(layers)}")
    return list(zip(layers, params, strict=True))


def named_layer(index: int, layer: Cell) -> AbstractContextManager[None]:
    """Say which layer of a network an error comes from, such as a field that the params of another layer lack."""
    return within(f"layer {index} ({type(layer).__name__})")


def _require_one_unit(layers: tuple[Cell, ...], edges: tuple[Edge, ...], params: PyTree) -> None:
    """Refuse weights of order 1 before neurons in mV, far below 0 at rest, in a network with normalised ones."""
    leaves = [(name.split("."), x) for name, x in named_leaves(params).items() if concrete(x)]
    rests = [(int(name[0]), np.asarray(x)) for name, x in leaves if name[-1] == "v_rest"]
    near = [i for i, x in rests if (x > -5.0).all()]
    low = [i for i, x in rests if (x < -20.0).all() and not takes_conductances(layers[i])]
    for a, b in [(a, b) for a, b in edges if near and a != INPUT and b in low]:
        neuron = protocol.innermost(params[b])
        values = [
            getattr(params[b if takes_times(layers[b]) else a], "weight", None),
            *(getattr(neuron, name, None) for name in ("v_th", "v_rest", "r_m")),
        ]
        if not concrete(*values):
            continue
        weight, v_th, v_rest, r_m = (np.asarray(x, float) for x in values)
        strongest = np.abs(weight).sum(axis=tuple(n for n in range(weight.ndim) if n != 1)).max()
        rheobase = np.min((v_th - v_rest) / r_m)
        if strongest < rheobase:
            found = f"inputs of 1 are at most {strongest:.3g} pA for neurons that need {rheobase:.3g} pA to spike"
            rule = f"layer {near[0]} is normalised, and params.normalised() makes this one so"
            raise ValueError(f"layer {b} ({type(layers[b]).__name__}): {found}; {rule}")


def worth_recomputing(state: PyTree) -> bool:
    """Say whether a backward pass should make a step's numbers anew: where there is more state than a voltage."""
    # That takes half to two thirds of the time; a voltage alone is read faster.
    return sum(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)) > 1


def takes_conductances(layer: Cell) -> bool:
    """Say whether what arrives at a layer are conductances."""
    return isinstance(layer, Arriving) and not layer.neuron.synapse.signed


def require_weights_for(layer: Cell, way: PyTree) -> bool:
    """Refuse negative weights, at hand, that reach a layer as conductances; ``way`` holds the params before it. Return
    whether all of these keep the sign of what comes before them, as delays and dropout do.
    """
    if takes_conductances(layer):
        rule = "a weight that arrives as a conductance must be 0 nS or more; what inhibits is its e_rev"
        for stage in reversed(jax.tree.leaves(way, is_leaf=is_dataclass)):
            fields = vars(stage) if is_dataclass(stage) else {}
            for name in {"weight", "bias"} & fields.keys() if "neuron" not in fields else ():
                if concrete(fields[name]):
                    require(~(np.asarray(fields[name]) < 0.0), name, fields[name], "nS", rule)
            if not fields.keys() <= {"delay", "sigma", "key"}:
                return False
        return True
    return False
