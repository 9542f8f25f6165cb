"""What feeds what in a NIR graph: subgraphs opened, loops cut where a signal waits one step, chains found."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any, NamedTuple

from jaxlif.interop.nir_nodes import NEURONS, SPIKING, kind, unfolded

Edge = tuple[Any, Any]


class Wires(NamedTuple):
    """The nodes of a graph, each after what feeds it in the same step, and its edges, those of a step later apart."""

    nodes: dict[str, Any]
    edges: list[Edge]
    feedback: list[Edge]
    start: str
    end: str

    def before(self, name: str) -> list[str]:
        """Return what feeds a node, in the same step or one later."""
        return [a for a, b in (*self.edges, *self.feedback) if b == name]


def open_wires(graph: Any, euler: bool) -> Wires:
    """Open a graph's subgraphs and cut its loops."""
    graph.validate_structure()  # which refuses edges to nowhere, and those that are there twice
    graph.check_types()  # which refuses signals of another shape than a node takes
    nodes, edges, start, end = _opened(graph, euler, "")
    for name in [n for n, node in nodes.items() if kind(node) in ("Input", "Output") and n not in (start, end)]:
        into, onward = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        if name in into:
            raise ValueError(f"node {name!r} leads to itself: a loop needs a neuron")
        edges = [e for e in edges if name not in e] + [(a, b) for a in into for b in onward]
        del nodes[name]
    _require_ways(nodes, edges, start, end)
    neurons = {name for name, node in nodes.items() if kind(node) in NEURONS}
    _in_order([e for e in edges if not neurons & set(e)])  # which refuses a loop without a neuron
    late = returning(edges, neurons, start)
    now = [e for e in edges if e not in late]
    order = {name: nodes[name] for name in _in_order(now) if name not in (start, end)}
    return Wires(order, now, [e for e in edges if e in late], start, end)


def _opened(graph: Any, euler: bool, path: str) -> tuple[dict[str, Any], list[Edge], str, str]:
    """Return nodes and edges, those of subgraphs among them, and the names of the input and the output."""
    nodes: dict[str, Any] = {}
    edges: list[Edge] = []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        here = f"{path}{name}"
        if kind(node) == "NIRGraph":
            inner, between, first, last = _opened(node, euler, f"{here}.")
        else:
            row = unfolded(node, euler)
            inner = {here: node} if len(row) == 1 else {f"{here}.{i}": part for i, part in enumerate(row)}
            between, first, last = list(pairwise(inner)), next(iter(inner)), list(inner)[-1]
        if twice := nodes.keys() & inner.keys():
            raise ValueError(f"node {min(twice)!r}: two nodes have this name")
        nodes |= inner
        edges += between
        ends[name] = (first, last)
    edges += [(ends[a][1], ends[b][0]) for a, b in graph.edges]
    return nodes, edges, _only(graph, "Input", path), _only(graph, "Output", path)


def _only(graph: Any, what: str, path: str) -> str:
    names = [name for name, node in graph.nodes.items() if kind(node) == what]
    if len(names) != 1:
        where = f"the graph {path[:-1]!r}" if path else "the graph"
        raise ValueError(f"{where} has {len(names)} {what.lower()}s: it must have one")
    return f"{path}{names[0]}"


def _require_ways(nodes: dict[str, Any], edges: list[Edge], start: str, end: str) -> None:
    """Refuse what no signal reaches or what leads nowhere."""
    for a, b in edges:
        if b == start or a == end:
            raise ValueError(f"edge ({a!r}, {b!r}): nothing leads into the input or out of the output")
    after, before = _reached(edges, start), _reached([(b, a) for a, b in edges], end)
    for name in [*nodes, end]:
        if name not in {*after, start}:
            raise ValueError(f"node {name!r}: no way leads to it from the input {start!r}")
        if name not in {*before, end}:
            raise ValueError(f"node {name!r}: no way leads from it to the output {end!r}")


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
        loop = ", ".join(map(repr, error.args[1]))
        raise ValueError(f"the loop {loop} has no neuron: its signal would depend on itself at once") from error


def chain(wires: Wires) -> list[list[str]] | None:
    """Return the blocks of a chain, a node or a neuron with its way back to itself; None for any other graph."""
    spiking = [(a, b) for a, b in wires.feedback if kind(wires.nodes[b]) in SPIKING]
    ways = {neuron: _way_back(wires, last, neuron) for last, neuron in spiking}
    inside = {name for way in ways.values() for name in way}
    blocks = [[name, *ways.get(name, [])] for name in wires.nodes if name not in inside]
    row = pairwise([wires.start, *(block[0] for block in blocks), wires.end])
    edges = {*row, *(edge for block in blocks for edge in pairwise(block))}
    loops = {(block[-1], block[0]) for block in blocks if len(block) > 1}
    return blocks if {*wires.edges} == edges and {*wires.feedback} == loops else None


def _way_back(wires: Wires, last: str, neuron: str) -> list[str]:
    """Return the nodes between a neuron's output and its input, where they are one way without neurons."""
    way: list[str] = []
    while last != neuron:
        before = wires.before(last)
        if kind(wires.nodes[last]) in NEURONS or len(before) != 1:
            return []
        way, last = [last, *way], before[0]
    return way
