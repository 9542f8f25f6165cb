"""What feeds what in a NIR graph: subgraphs opened, loops cut where a signal waits one step, chains found."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from jaxlif.interop.nir_nodes import NEURONS, SPIKING, integers, kind

Name = tuple[str, ...]  # of a node: those of the graphs around it, and its own
Edge = tuple[Any, Any]


class Wires(NamedTuple):
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


def open_wires(graph: Any, euler: bool) -> Wires:
    """Open a graph's subgraphs and cut its loops."""
    graph.validate_structure()  # which refuses edges to nowhere, and those that are there twice
    nodes, edges, start, end = _opened(graph, euler, ())
    for name in [n for n, node in nodes.items() if kind(node) in ("Input", "Output") and n not in (start, end)]:
        into, onward = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        if name in into:
            raise ValueError(f"node {shown(name)} leads to itself: a loop needs a neuron")
        edges = [e for e in edges if name not in e] + [(a, b) for a in into for b in onward]
        del nodes[name]
    _require_ways(nodes, edges, start, end)
    neurons = {name for name, node in nodes.items() if kind(node) in NEURONS}
    _in_order([e for e in edges if not neurons & set(e)])  # which refuses a loop without a neuron
    late = returning(edges, neurons, start)
    now = [e for e in edges if e not in late]
    order = {name: nodes[name] for name in _in_order(now) if name not in (start, end)}
    return Wires(order, now, [e for e in edges if e in late], start, end)


def _opened(graph: Any, euler: bool, path: Name) -> tuple[dict[Name, Any], list[Edge], Name, Name]:
    """Return nodes and edges, those of subgraphs among them, and the names of the input and the output."""
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
    edges += [(ends[a][1], ends[b][0]) for a, b in graph.edges]
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
        where = f"the graph {shown(path)}" if path else "the graph"
        raise ValueError(f"{where} has {len(names)} {what.lower()}s: it must have one")
    return (*path, names[0])


def _require_ways(nodes: dict[Name, Any], edges: list[Edge], start: Name, end: Name) -> None:
    """Refuse what no signal reaches or what leads nowhere, and signals of another shape than a node takes."""
    for a, b in edges:
        if b == start or a == end:
            raise ValueError(f"edge ({shown(a)}, {shown(b)}): nothing leads into the input or out of the output")
        found, wanted = _shape(nodes[a].output_type), _shape(nodes[b].input_type)
        if b != end and None not in (found, wanted) and found != wanted:
            raise ValueError(f"edge ({shown(a)}, {shown(b)}): a signal {found} meets a node that takes {wanted}")
    reached = _reached(edges, start)
    for name in [*nodes, end]:
        if name not in reached and name != start:
            raise ValueError(f"node {shown(name)}: no way leads to it from the input {shown(start)}")
        if name != end and end not in _reached(edges, name):
            raise ValueError(f"node {shown(name)}: no way leads from it to the output {shown(end)}")


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
    sorter: TopologicalSorter[Any] = TopologicalSorter()
    for a, b in edges:
        sorter.add(b, a)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        loop = ", ".join(shown(name) for name in error.args[1])
        raise ValueError(f"the loop {loop} has no neuron: its signal would depend on itself at once") from error


def shown(name: Name) -> str:
    """Return a node's name as messages have it."""
    return repr(".".join(name))


def chain(wires: Wires) -> list[list[Name]] | None:
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


def _way_back(wires: Wires, neuron: Name) -> list[Name]:
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
