"""Layers on any graph: branches, merges, skip connections, and loops that several layers share."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.networks.layers import NetworkOutput, Sequential, _naming, require_entries, require_weights_for, signal
from jaxlif.neurons.cell import Cell, check_cell, prepared, require_array_input, state_dtype

Edge = tuple[int, int]
INPUT = -1  # the network's input, as the source of an edge


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

    def check(self, params: tuple) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of its layer."""
        require_entries(self.layers, params)
        for i, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            with _naming(i, layer):
                check_cell(layer, p)
                for a in (a for a, b in self.edges + self.feedback if b == i and a != INPUT):
                    require_weights_for(layer, params[a])

    def prepare(self, params: tuple) -> tuple:
        """Let each layer compute once what depends on its parameters alone."""
        return tuple(prepared(layer, p) for layer, p in zip(self.layers, params, strict=True))

    def init_state(self, params: tuple, x: Array) -> GraphState:
        """Return each layer's fresh state, and what those that feed back pass on in silence."""
        require_entries(self.layers, params)
        states: list[Any] = []
        signals = {INPUT: jnp.zeros_like(x)}
        for i, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            with _naming(i, layer):
                inputs = _sum([signals[a] for a, b in self.edges if b == i])
                states.append(layer.init_state(p, inputs))
                signals[i] = _silent(layer, p, states[-1], inputs)
        return GraphState(tuple(states), {a: signals[a] for a, _ in self.feedback})

    def step(self, params: tuple, state: GraphState, x: Array) -> tuple[GraphState, NetworkOutput]:
        """Advance every layer one step, in order; ``x`` is the network's input."""
        require_entries(self.layers, params)
        states, outputs = [], []
        signals = {INPUT: jnp.asarray(x)}
        for i, (layer, p, s) in enumerate(zip(self.layers, params, state.layers, strict=True)):
            with _naming(i, layer):
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
