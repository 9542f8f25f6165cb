"""Networks to and from NIR, the Neuromorphic Intermediate Representation, for snnTorch, Norse, Lava, SpiNNaker 2, ...

NIR holds differential equations, not steps: dt and the surrogate are no part of a graph. What cannot be held exactly is
refused by name, never approximated. Times are written in seconds, everything else in the network's own units, all in
double precision; the graph's metadata says so. What NIR leaves to whoever runs a graph is here as everywhere in jaxlif:

* a signal is held over its step, a spike being 1; a node without memory and the next neurons act in the same step;
* every neuron is integrated exactly, starts at v_leak (one without leak at 0), and spikes at v >= v_th (NIR: v > v_th);
* a loop waits one step: where it is entered at one node, at what leads back to that node; where it is entered at
  several, past its neurons. Before the first step no neuron has spiked, but a bias in the loop acts from the start.

Graphs of snnTorch and Norse mean Euler steps: ``integration = "euler"`` reads them so. In graphs of Sinabs a neuron
without leak adds r times its input in a step: read them with dt = 1000 ms, for r is a slope per second. snnTorch 1.0
itself takes steps of 0.1 ms whatever the graph says, and one time constant and threshold for a layer; Norse 1.1 takes
R = 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxlif.checks import check_params, choice, positive
from jaxlif.files import optional
from jaxlif.interop.nir_nodes import MS, NEURON_CELLS, READERS, WRITERS, Reading, Scale, ValueParams, kind
from jaxlif.interop.nir_wires import Wires, chain, open_wires, returning
from jaxlif.networks.feedback import Feedback, FeedbackParams, Recurrent, RecurrentParams
from jaxlif.networks.graph import INPUT, Graph, Sequential, named_layer, paired
from jaxlif.networks.layers import Dense, signal
from jaxlif.neurons.cell import Cell, check_cell, step_size
from jaxlif.surrogate import SuperSpike, Surrogate

_NETWORKS = (Sequential, Graph, Recurrent, Feedback)


# --- writing ----------------------------------------------------------------------------------------------


def to_nir(network: Cell, params: PyTree, input_shape: tuple[int, ...]) -> Any:
    """Write a network as a NIR graph, one node for each layer; ``nir.write(path, graph)`` stores it.

    Dense becomes Affine, or Linear without a bias; Conv, SumPool, Flatten, Delayed, LIF and LeakyIntegrator become
    their nodes, Sequential its layers, Recurrent, Feedback and Graph graphs of their own; what :func:`from_nir` reads
    besides is written again. A network in normalised units stays in them. ``input_shape`` is that of one time slice.

    Raises:
        ValueError: for what NIR cannot express, naming layer and field: a refractory period, ``reset = "subtract"``,
            a delay spread over lags, any other layer (adaptive neurons, synapses, Normalise, ...), padding
            that is not the same on both sides; or for params that break a rule.
        ImportError: without the package ``nir``.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import init_dense
        >>> network = Sequential((Dense(), jl.LIF(dt=1.0)))
        >>> params = (init_dense(jax.random.key(0), 4, 3), jl.LIFParams(t_ref=0.0).normalised())
        >>> [kind(node) for node in to_nir(network, params, (4,)).nodes.values()]
        ['Input', 'Affine', 'LIF', 'Output']

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    nir = _nir()
    if not isinstance(input_shape, tuple | list):
        raise ValueError(f"input_shape = {input_shape!r}: input_shape must be a tuple, such as (4,)")
    check_params(params)
    check_cell(network, params)
    facts: dict[str, Any] = {"source": "jaxlif", "time_unit": "s", "reset": "value", "threshold": "v >= v_threshold"}
    dt = step_size(network)
    facts |= {} if dt is None else {"dt": dt / MS}
    if not isinstance(network, Sequential | Graph):
        network, params = Sequential((network,)), (params,)
    return _node(nir, network, params, tuple(input_shape), **facts)


def _node(nir: Any, layer: Any, p: Any, shape: tuple[int, ...], **metadata: Any) -> Any:
    """Return a layer's node, a network's graph; by exact types, since a subclass may compute something else."""
    if type(layer) in (Recurrent, Feedback):
        path = layer.path.layers if isinstance(layer.path, Sequential) else (layer.path,)
        if {type(cell) for cell in path} & {*NEURON_CELLS, *_NETWORKS}:
            raise ValueError("path: a neuron or network on it steps before the first input, which NIR cannot say")
        loop = Graph((layer.neuron, layer.path), ((INPUT, 0), (0, 1)), ((1, 0),))
        return _graph_node(nir, loop, (p.neuron, p.path), shape, ("lif", "w_rec"), recurrent_delay="one step")
    if type(layer) in (Sequential, Graph):
        _require_readable(layer)
        return _graph_node(nir, layer, p, shape, **metadata)
    if type(layer) not in WRITERS:
        known = ", ".join(sorted({cell.__name__ for cell in (*WRITERS, *_NETWORKS)}))
        raise ValueError(f"{type(layer).__name__}: NIR has no node for it; it has nodes for {known}")
    return WRITERS[type(layer)](nir, layer, p, shape)


def _require_readable(network: Sequential | Graph) -> None:
    """Refuse a graph whose signals a reader of NIR would let wait elsewhere."""
    kinds = [type(layer) for layer in network.layers]
    neurons = {i for i, k in enumerate(kinds) if k in (*NEURON_CELLS, *_NETWORKS)}
    found = returning({*network.edges, *network.feedback, (len(kinds) - 1, "output")}, neurons, INPUT)
    if found != set(network.feedback):
        waiting = f"a reader of NIR would let other signals wait: {sorted(found)}"
        raise ValueError(f"feedback {sorted(network.feedback)}: {waiting}")
    if len(set(network.edges)) < len(network.edges):
        raise ValueError(f"edges {network.edges}: NIR has each edge once")
    if network.feedback and {*kinds} & {*_NETWORKS}:
        raise ValueError("feedback around layers that are networks: put their layers into the graph itself")


def _graph_node(
    nir: Any, network: Any, params: Any, shape: tuple[int, ...], names: tuple[str, ...] = (), **metadata: Any
) -> Any:
    """Return a NIR graph of an input of this shape; a network within is a graph of its own. Names make it a loop."""
    nodes, shapes, named = {"input": nir.Input(np.array(shape))}, {INPUT: shape}, {INPUT: "input"}
    for i, (cell, p) in enumerate(paired(network.layers, params)):
        inside = shapes[next(a for a, b in network.edges if b == i)]
        with named_layer(i, cell):
            node = _node(nir, cell, p, inside)
            shapes[i] = _output_shape(cell, p, inside)
        named[i] = names[i] if names else f"{i}_{kind(node).lower()}"
        nodes[named[i]] = node
    last = 0 if names else len(network.layers) - 1
    nodes["output"] = nir.Output(np.array(shapes[last]))
    edges = [(named[a], named[b]) for a, b in (*network.edges, *network.feedback)]
    return nir.NIRGraph(nodes, [*edges, (named[last], "output")], metadata=metadata)


def _output_shape(layer: Cell, params: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    def _run(x: jax.Array) -> Any:
        return signal(layer.step(params, layer.init_state(params, x), x)[1])

    return tuple(jax.eval_shape(_run, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape)


# --- reading ----------------------------------------------------------------------------------------------


def from_nir(
    graph: Any,
    dt: float | None = None,
    *,
    surrogate: Surrogate | None = None,
    reset: str = "value",
    integration: str = "exact",
) -> tuple[Sequential, tuple[Any, ...]]:
    r"""Read a NIR graph as a network, for any step.

    A chain becomes its layers, neurons that drive themselves :class:`Recurrent` or :class:`Feedback`; a graph with
    branches, or with other loops, becomes one :class:`Graph`.

    Args:
        graph: a ``nir.NIRGraph``, such as ``nir.read(path)``, with graphs within it or not.
        dt: step, ms; that in the graph's metadata by default.
        surrogate: pseudo-derivative of all spikes, SuperSpike by default: a graph has none.
        reset: "value", which is NIR's, or "subtract", which a graph that was trained with it does not say.
        integration: "exact", or "euler" for a graph whose time constants mean Euler steps of dt: each becomes
            :math:`-dt / \ln(1 - dt/\tau)`, with which an exact step does the same, and a CubaLIF becomes an LI, which
            acts in the same step, and a LIF.

    The parameters are in JAX's default precision, with times in ms and the rest in the graph's units.

    Raises:
        ValueError: naming the node, for what jaxlif does not have, a number that breaks a rule, a loop without neurons,
            a node off the way from the input to the output, signals of another shape than a node takes, or no dt.
        ImportError: without the package ``nir``.

    Example:
        >>> import nir, numpy as np
        >>> one = np.ones(2)
        >>> neurons = nir.LIF(tau=0.01 * one, r=one, v_leak=0.0 * one, v_threshold=one)
        >>> network, params = from_nir(nir.NIRGraph.from_list(nir.Affine(np.ones((2, 3)), one), neurons), dt=1.0)
        >>> [type(layer).__name__ for layer in network.layers], params[1].tau_m.tolist()
        (['Dense', 'LIF'], [10.0, 10.0])

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    if not isinstance(graph, _nir().NIRGraph):
        raise ValueError(f"graph = {type(graph).__name__}: graph must be a nir.NIRGraph")
    euler = choice("integration", integration, ("exact", "euler")) == "euler"
    how = Reading(_given_dt(graph, dt), surrogate or SuperSpike(), reset, euler)
    wires = open_wires(graph, euler)
    read = {name: _read(name, node, how) for name, node in wires.nodes.items()}
    blocks = chain(wires)
    layers = [_graph(wires, read)] if blocks is None else [_block([read[name] for name in names]) for names in blocks]
    return Sequential(tuple(cell for cell, _ in layers)), tuple(p for _, p in layers)


def _given_dt(graph: Any, dt: float | None) -> float:
    metadata = graph.metadata if isinstance(graph.metadata, dict) else {}
    unit = metadata.get("time_unit", "s")
    if (unit.decode() if isinstance(unit, bytes) else unit) != "s":
        raise ValueError(f"time_unit = {unit!r}: a graph's times must be in seconds")
    if dt is None and "dt" not in metadata:
        raise ValueError("dt: the graph's metadata has none; give one, ms")
    return float(positive("dt", float(metadata["dt"]) * MS if dt is None else dt, "ms"))


def _nir() -> Any:
    return optional("nir", "NIR graphs need the package nir", "snn")


def _read(name: str, node: Any, how: Reading) -> tuple[Cell, Any]:
    try:
        if kind(node) not in READERS:
            raise ValueError("jaxlif has no layer for it")
        for field, value in vars(node).items():
            values = np.asarray(value) if isinstance(value, (float, np.floating, np.ndarray)) else np.zeros(0)
            if values.dtype.kind not in "fiu":
                raise ValueError(f"{field} of type {values.dtype}: it must hold real numbers")
            if not np.isfinite(values).all():
                raise ValueError(f"{field} = {values[~np.isfinite(values)].flat[0]}: all its numbers must be finite")
        cell, params = READERS[kind(node)](node, how)
        check_params(params)
        check_cell(cell, params)
    except ValueError as error:
        raise ValueError(f"node {name!r} ({kind(node)}): {error}") from error
    return cell, params


def _block(parts: list[tuple[Cell, Any]]) -> tuple[Cell, Any]:
    """Return a layer, or a neuron with its way back to itself as the narrowest cell that is both."""
    (neuron, p), *path = parts
    if not path:
        return neuron, p
    cells, params = (tuple(x) for x in zip(*path, strict=True))
    if len(path) > 1:
        return Feedback(neuron, Sequential(cells)), FeedbackParams(neuron=p, path=params)
    if isinstance(cells[0], Dense) and params[0].bias is None:
        return Recurrent(neuron), RecurrentParams(neuron=p, weight=params[0].weight)
    return Feedback(neuron, cells[0]), FeedbackParams(neuron=p, path=params[0])


def _graph(wires: Wires, read: dict[str, tuple[Cell, Any]]) -> tuple[Cell, Any]:
    """Return all layers as one graph; where its last layer is not the output's only source, the output is one more."""
    index = {wires.start: INPUT} | {name: i for i, name in enumerate(read)}
    parts, edges = list(read.values()), wires.edges
    if [index[a] for a in wires.before(wires.end)] == [len(parts) - 1]:
        edges = [e for e in edges if e[1] != wires.end]
    else:
        index[wires.end] = len(parts)
        parts.append((Scale(), ValueParams(value=1.0)))
    pairs, late = (tuple((index[a], index[b]) for a, b in found) for found in (edges, wires.feedback))
    return Graph(tuple(cell for cell, _ in parts), pairs, late), tuple(p for _, p in parts)
