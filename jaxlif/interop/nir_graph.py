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

from collections import defaultdict
from collections.abc import Hashable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxlif.checks import check_params, choice, positive
from jaxlif.interop.nir_nodes import (
    MS,
    NEURON_CELLS,
    NEURONS,
    SPIKING,
    TABLE,
    WRITERS,
    Reading,
    Scale,
    ValueParams,
    integers,
    kind,
)
from jaxlif.networks.feedback import Feedback, FeedbackParams, Recurrent, RecurrentParams
from jaxlif.networks.graph import INPUT, Graph, Sequential, named_layer, paired
from jaxlif.networks.layers import Dense, signal
from jaxlif.neurons.cell import Cell, check_cell, step_size
from jaxlif.surrogate import SuperSpike, Surrogate

Name = tuple[str, ...]  # of a node: those of the graphs around it, and its own
Edge = tuple[Any, Any]


# --- writing ----------------------------------------------------------------------------------------------


def to_nir(network: Cell, params: PyTree, input_shape: tuple[int, ...], dt: float | None = None) -> Any:
    r"""Write a network as a NIR graph, one node for each layer.

    Dense becomes Affine, or Linear without a bias; Conv, SumPool, Flatten, Delayed, LIF and LeakyIntegrator become
    their nodes, Sequential its layers, Recurrent, Feedback and Graph graphs of their own. What :func:`from_nir` reads
    besides (CubaLIF, CubaLI, IF, I, Scale, Threshold) is written again.

    Args:
        network: a :class:`Sequential`, or a single layer.
        params: its parameters; a network in normalised units stays in them.
        input_shape: shape of one time slice of the input.
        dt: step, ms, for the metadata; the network's own by default.

    Returns:
        A ``nir.NIRGraph``; ``nir.write(path, graph)`` stores it.

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
    own = step_size(network)
    if None not in (dt, own) and dt != own:
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {own:g} ms")
    step = own if dt is None else dt
    facts: dict[str, Any] = {"source": "jaxlif", "time_unit": "s", "reset": "value", "threshold": "v >= v_threshold"}
    facts |= {} if step is None else {"dt": step / MS}
    if not isinstance(network, Sequential | Graph):
        network, params = Sequential((network,)), (params,)
    return _node(nir, network, params, tuple(input_shape), **facts)


_NETWORKS = (Sequential, Graph, Recurrent, Feedback)


def _node(nir: Any, layer: Any, p: Any, shape: tuple[int, ...], **metadata: Any) -> Any:
    """Return a layer's node, a network's graph; by exact types, since a subclass may compute something else."""
    if type(layer) in (Recurrent, Feedback):
        if {type(cell) for cell in _all_cells(layer.path)} & {*NEURON_CELLS}:
            raise ValueError("path: its neuron takes a step before the first input, and NIR has no way to say so")
        loop = Graph((layer.neuron, layer.path), ((INPUT, 0), (0, 1)), ((1, 0),))
        return _graph_node(nir, loop, (p.neuron, p.path), shape, ("lif", "w_rec"), recurrent_delay="one step")
    if type(layer) in (Sequential, Graph):
        _require_readable(layer)
        return _graph_node(nir, layer, p, shape, **metadata)
    if type(layer) not in WRITERS:
        known = ", ".join(sorted({cell.__name__ for cell in (*WRITERS, *_NETWORKS)}))
        raise ValueError(f"{type(layer).__name__}: NIR has no node for it; it has nodes for {known}")
    return WRITERS[type(layer)](nir, layer, p, shape)


def _all_cells(layer: Cell) -> list[Cell]:
    inside = layer.layers if isinstance(layer, Sequential | Graph) else ()
    return [layer, *(cell for inner in inside for cell in _all_cells(inner))]


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
    def _run(x):
        return signal(layer.step(params, layer.init_state(params, x), x)[1])

    return jax.eval_shape(_run, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape


# --- reading ----------------------------------------------------------------------------------------------


def from_nir(
    graph: Any,
    dt: float | None = None,
    *,
    surrogate: Surrogate | None = None,
    reset: str = "value",
    integration: str = "exact",
) -> tuple[Sequential, tuple]:
    r"""Read a NIR graph as a network, for any step.

    A chain becomes its layers, neurons that drive themselves :class:`Recurrent` or :class:`Feedback`; a graph with
    branches, or with other loops, becomes one :class:`Graph`.

    Args:
        graph: a ``nir.NIRGraph``, such as ``nir.read(path)``, with graphs within it or not.
        dt: step, ms; that in the graph's metadata by default.
        surrogate: pseudo-derivative of all spikes, SuperSpike by default: a graph has none.
        reset: "value", which is NIR's, or "subtract", which takes off v_threshold - v_reset: a graph trained with it
            does not say so.
        integration: "exact", or "euler" for a graph whose time constants mean Euler steps of dt: each becomes
            :math:`-dt / \ln(1 - dt/\tau)`, with which an exact step does the same, and a CubaLIF becomes an LI, which
            acts in the same step, and a LIF.

    Returns:
        The network and its parameters, in JAX's default precision, with times in ms and the rest in the graph's units.

    Raises:
        ValueError: naming the node, for one or an option that jaxlif does not have, a number that breaks a rule, a loop
            without a neuron, a node off the way from the input to the output, or signals of another shape than a node
            takes; for several inputs or outputs, times in another unit than seconds, or no dt.
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
    wires = _wires(graph, euler)
    read = {name: _read(name, node, how) for name, node in wires.nodes.items()}
    blocks = _chain(wires)
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
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR graphs need the package nir: pip install 'jaxlif[snn]'") from error
    return nir


def _read(name: Name, node: Any, how: Reading) -> tuple[Cell, Any]:
    try:
        if kind(node) not in TABLE:
            raise ValueError("jaxlif has no layer for it")
        for field, value in vars(node).items():
            values = np.asarray(value) if isinstance(value, (float, np.floating, np.ndarray)) else np.zeros(0)
            if values.dtype.kind not in "fiu":
                raise ValueError(f"{field} of type {values.dtype}: it must hold real numbers")
            if not np.isfinite(values).all():
                raise ValueError(f"{field} = {values[~np.isfinite(values)].flat[0]}: all its numbers must be finite")
        cell, params = TABLE[kind(node)].read(node, how)
        check_params(params)
        check_cell(cell, params)
    except ValueError as error:
        raise ValueError(f"node {_shown(name)} ({kind(node)}): {error}") from error
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


def _graph(wires: "_Wires", read: dict[Name, tuple[Cell, Any]]) -> tuple[Cell, Any]:
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


# --- what feeds what --------------------------------------------------------------------------------------


class _Wires(NamedTuple):
    """The nodes of a graph, each after what feeds it in the same step, and its edges, those of a step later apart."""

    nodes: dict[Name, Any]
    edges: list[Edge]
    feedback: list[Edge]
    start: Name
    end: Name

    def before(self, name: Name) -> list[Name]:
        """Return what feeds a node, in the same step or one later."""
        return [a for a, b in (*self.edges, *self.feedback) if b == name]

    def after(self, name: Name) -> list[Name]:
        """Return what a node feeds, in the same step or one later."""
        return [b for a, b in (*self.edges, *self.feedback) if a == name]


def _wires(graph: Any, euler: bool) -> _Wires:
    """Open a graph's subgraphs and cut its loops."""
    nodes, edges, start, end = _opened(graph, euler, ())
    for name in [n for n, node in nodes.items() if kind(node) in ("Input", "Output") and n not in (start, end)]:
        into, onward = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        if name in into:
            raise ValueError(f"node {_shown(name)} leads to itself: a loop needs a neuron")
        edges = [e for e in edges if name not in e] + [(a, b) for a in into for b in onward]
        del nodes[name]
    _require_ways(nodes, edges, start, end)
    neurons = {name for name, node in nodes.items() if kind(node) in NEURONS}
    _in_order([e for e in edges if not neurons & set(e)])  # which refuses a loop without a neuron
    late = returning(edges, neurons, start)
    now = [e for e in edges if e not in late]
    order = {name: nodes[name] for name in _in_order(now) if name not in (start, end)}
    return _Wires(order, now, [e for e in edges if e in late], start, end)


def _opened(graph: Any, euler: bool, path: Name) -> tuple[dict[Name, Any], list[Edge], Name, Name]:
    """Return nodes and edges, those of subgraphs among them, and the names of the input and the output."""
    pairs = [tuple(edge) for edge in graph.edges]
    for a, b in pairs:
        if missing := [name for name in (a, b) if name not in graph.nodes]:
            raise ValueError(f"edge ({a!r}, {b!r}): there is no node {missing[0]!r}")
        if (times := pairs.count((a, b))) > 1:
            raise ValueError(f"edge ({a!r}, {b!r}): it is there {times} times, and NIR does not say what that means")
    nodes: dict[Name, Any] = {}
    edges: list[Edge] = []
    ends: dict[str, tuple[Name, Name]] = {}
    for name, node in graph.nodes.items():
        here = (*path, name)
        if kind(node) == "NIRGraph":
            inner, between, first, last = _opened(node, euler, here)
        else:
            row = {(*here, str(i)): part for i, part in enumerate(_unfolded(node, euler))}
            inner = {here: node} if len(row) == 1 else row
            between, first, last = list(zip(inner, list(inner)[1:], strict=False)), next(iter(inner)), list(inner)[-1]
        nodes |= inner
        edges += between
        ends[name] = (first, last)
    edges += [(ends[a][1], ends[b][0]) for a, b in pairs]
    return nodes, edges, _only(graph, "Input", path), _only(graph, "Output", path)


def _unfolded(node: Any, euler: bool) -> list[Any]:
    """Return the nodes that one stands for: of an average, and in Euler steps of a current-based neuron."""
    import nir

    if kind(node) == "AvgPool2d":
        scale = np.array(1.0 / np.prod(integers(node.kernel_size, 2)))
        return [nir.SumPool2d(node.kernel_size, node.stride, node.padding), nir.Scale(scale)]
    if kind(node) not in ("CubaLIF", "CubaLI") or not euler:
        return [node]
    synapse = nir.LI(tau=node.tau_syn, r=node.w_in, v_leak=np.zeros_like(node.v_leak))
    membrane = {"tau": node.tau_mem, "r": node.r, "v_leak": node.v_leak}
    if kind(node) == "CubaLI":
        return [synapse, nir.LI(**membrane)]
    return [synapse, nir.LIF(**membrane, v_threshold=node.v_threshold, v_reset=node.v_reset)]


def _only(graph: Any, what: str, path: Name) -> Name:
    names = [name for name, node in graph.nodes.items() if kind(node) == what]
    if len(names) != 1:
        where = f"the graph {_shown(path)}" if path else "the graph"
        raise ValueError(f"{where} has {len(names)} {what.lower()}s: it must have one")
    return (*path, names[0])


def _require_ways(nodes: dict[Name, Any], edges: list[Edge], start: Name, end: Name) -> None:
    """Refuse what no signal reaches or what leads nowhere, and signals of another shape than a node takes."""
    for a, b in edges:
        if b == start or a == end:
            raise ValueError(f"edge ({_shown(a)}, {_shown(b)}): nothing leads into the input or out of the output")
        found, wanted = _shape(nodes[a].output_type), _shape(nodes[b].input_type)
        if b != end and None not in (found, wanted) and found != wanted:
            raise ValueError(f"edge ({_shown(a)}, {_shown(b)}): a signal {found} meets a node that takes {wanted}")
    reached = _reached(edges, start)
    for name in [*nodes, end]:
        if name not in reached and name != start:
            raise ValueError(f"node {_shown(name)}: no way leads to it from the input {_shown(start)}")
        if name != end and end not in _reached(edges, name):
            raise ValueError(f"node {_shown(name)}: no way leads from it to the output {_shown(end)}")


def _shape(types: Any) -> list[int] | None:
    """Return the shape of a node's only port, None where the graph does not say it."""
    sizes = next(iter(types.values()), None) if isinstance(types, dict) else None
    return None if sizes is None else [int(n) for n in sizes]


def returning(edges: Iterable[Edge], neurons: set[Any], start: Hashable) -> set[Edge]:
    """Return the edges whose signal acts one step later, whatever the order of the edges.

    Where a loop is entered at one node, they are those that lead back to it. Where it is entered at several, they are
    those that lead past a neuron to a node that is no further from the input than that neuron, counted in neurons.
    """
    edges = list(edges)
    # What every way from the start to a passes is what it cannot be reached without.
    back = {(a, b) for a, b in edges if a not in {start, *_reached([e for e in edges if b not in e], start)}}
    kept = [e for e in edges if e not in back]
    depth = defaultdict(lambda: float("inf"), {start: 0.0})
    for _ in edges:
        for a, b in edges:
            depth[b] = min(depth[b], depth[a] + (a in neurons))
    past = {(a, b) for a, b in kept if depth[b] < depth[a] + (a in neurons) and a in _reached(kept, b)}
    return back | past


def _reached(edges: list[Edge], start: Hashable) -> set[Any]:
    """Return all that can be reached from a node."""
    seen: set[Any] = set()
    todo = [start]
    while todo:
        at = todo.pop()
        new = {b for a, b in edges if a == at} - seen
        seen |= new
        todo += new
    return seen


def _in_order(edges: Iterable[Edge]) -> list[Any]:
    sorter: TopologicalSorter = TopologicalSorter()
    for a, b in edges:
        sorter.add(b, a)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        loop = ", ".join(_shown(name) for name in error.args[1])
        raise ValueError(f"the loop {loop} has no neuron: its signal would depend on itself at once") from error


def _shown(name: Name) -> str:
    return repr(".".join(name))


def _chain(wires: _Wires) -> list[list[Name]] | None:
    """Return the blocks of a chain, a node or a neuron with its way back to itself; None for any other graph."""
    blocks: list[list[Name]] = []
    at = wires.start
    while at != wires.end:
        way = _way_back(wires, at)
        onward = [name for name in wires.after(at) if name not in way]
        if len(onward) != 1 or [a for a in wires.before(onward[0]) if a not in _way_back(wires, onward[0])] != [at]:
            return None
        blocks.append([at, *way])
        at = onward[0]
    return blocks[1:] if sum(map(len, blocks)) == len(wires.nodes) + 1 else None


def _way_back(wires: _Wires, neuron: Name) -> list[Name]:
    """Return the nodes between a spiking neuron's output and its input, where they are one way without neurons."""
    last = [a for a, b in wires.feedback if b == neuron]
    if len(last) != 1 or kind(wires.nodes.get(neuron)) not in SPIKING:
        return []
    way = last
    while kind(wires.nodes[way[0]]) not in NEURONS:
        before = wires.before(way[0])
        if len(before) != 1 or wires.after(way[0]) != [(way[1:] + [neuron])[0]]:
            return []
        if before == [neuron]:
            return way
        way = before + way
    return []
