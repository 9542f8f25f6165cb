"""What feeds what in a NIR graph: subgraphs opened, loops cut where a signal waits one step, chains found."""

from collections.abc import Callable, Hashable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

NEURONS = ("IF", "LIF", "CubaLIF", "I", "LI", "CubaLI")
SPIKING = ("IF", "LIF", "CubaLIF")

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


def kind(node: Any) -> str:
    """Return a node's type in NIR."""
    return type(node).__name__


def shown(name: Name) -> str:
    """Return a node's name as messages have it."""
    return repr(".".join(name))


def wires(graph: Any, unfold: Callable[[Any], Any]) -> Wires:
    """Open a graph's subgraphs and cut its loops; ``unfold`` may make a subgraph of a node."""
    nodes, edges, start, end = _opened(graph, unfold, ())
    edges = _without_passes(nodes, edges, start, end)
    inner = {name: node for name, node in nodes.items() if kind(node) not in ("Input", "Output")}
    _require_ways(inner, edges, start, end)
    _require_shapes(nodes, edges, end)
    neurons = {name for name, node in inner.items() if kind(node) in NEURONS}
    _in_order([e for e in edges if not neurons & set(e)])  # which refuses a loop without a neuron
    late = returning(edges, neurons, start)
    now = [e for e in edges if e not in late]
    order = [name for name in _in_order(now) if name in inner]
    return Wires({name: inner[name] for name in order}, now, [e for e in edges if e in late], start, end)


def returning(edges: Iterable[Edge], neurons: set[Any], start: Hashable) -> set[Edge]:
    """Return the edges whose signal acts one step later, whatever the order of the edges.

    Where a loop is entered at one node, they are those that lead back to it. Where it is entered at several, they are
    those that lead past a neuron to a node that is no further from the input than that neuron, counted in neurons.
    """
    edges = list(edges)
    always = _dominators(edges, start)
    back = {(a, b) for a, b in edges if b in always[a]}
    reached = _reached([e for e in edges if e not in back])
    depth = _depth(edges, neurons, start)
    past = {a: depth[a] + (a in neurons) for a in depth}
    return back | {(a, b) for a, b in edges if a in reached.get(b, ()) and depth[b] < past[a]}


def _depth(edges: list[Edge], neurons: set[Any], start: Hashable) -> dict[Any, int]:
    """Return the least number of neurons that a way from the start to each node passes."""
    depth: dict[Any, int] = {start: 0}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            new = depth[a] + (a in neurons) if a in depth else None
            if new is not None and new < depth.get(b, new + 1):
                depth[b], changed = new, True
    return depth


def _dominators(edges: list[Edge], start: Hashable) -> dict[Any, set[Any]]:
    """Return for each node those that every way from the start to it passes, itself among them."""
    names = {name for edge in edges for name in edge}
    always = {name: {start} if name == start else set(names) for name in names}
    changed = True
    while changed:
        changed = False
        for name in names - {start}:
            new = {name}.union(set.intersection(*(always[a] for a, b in edges if b == name)))
            changed |= new != always[name]
            always[name] = new
    return always


def _reached(edges: Iterable[Edge]) -> dict[Any, set[Any]]:
    """Return for each node that leads anywhere all that can be reached from it."""
    follow: dict[Any, set[Any]] = {}
    for a, b in edges:
        follow.setdefault(a, set()).add(b)
    reached = {}
    for name in follow:
        seen: set[Any] = set()
        todo = [name]
        while todo:
            new = follow.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        reached[name] = seen
    return reached


def _in_order(edges: Iterable[Edge]) -> list[Any]:
    sorter: TopologicalSorter = TopologicalSorter()
    for a, b in edges:
        sorter.add(b, a)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        loop = ", ".join(shown(name) for name in error.args[1])
        raise ValueError(f"the loop {loop} has no neuron: its signal would depend on itself at once") from error


def _opened(graph: Any, unfold: Callable[[Any], Any], path: Name) -> tuple[dict[Name, Any], list[Edge], Name, Name]:
    """Return nodes and edges, those of subgraphs among them, and the names of the input and the output."""
    _require_edges(graph)
    nodes: dict[Name, Any] = {}
    edges: list[Edge] = []
    ends: dict[str, tuple[Name, Name]] = {}
    for name, node in graph.nodes.items():
        here, node = (*path, name), unfold(node)
        if kind(node) == "NIRGraph":
            inner, between, *inner_ends = _opened(node, unfold, here)
            ends[name] = (inner_ends[0], inner_ends[1])
            nodes |= inner
            edges += between
        else:
            nodes[here] = node
            ends[name] = (here, here)
    edges += [(ends[a][1], ends[b][0]) for a, b in graph.edges]
    return nodes, edges, _only(graph, "Input", path), _only(graph, "Output", path)


def _require_edges(graph: Any) -> None:
    pairs = [tuple(edge) for edge in graph.edges]
    for a, b in pairs:
        for name in (a, b):
            if name not in graph.nodes:
                raise ValueError(f"edge ({a!r}, {b!r}): there is no node {name!r}")
        if (times := pairs.count((a, b))) > 1:
            raise ValueError(f"edge ({a!r}, {b!r}): it is there {times} times, and NIR does not say what that means")


def _only(graph: Any, what: str, path: Name) -> Name:
    names = [name for name, node in graph.nodes.items() if kind(node) == what]
    if len(names) != 1:
        where = f"the graph {shown(path)}" if path else "the graph"
        raise ValueError(f"{where} has {len(names)} {what.lower()}s: it must have one")
    return (*path, names[0])


def _without_passes(nodes: dict[Name, Any], edges: list[Edge], start: Name, end: Name) -> list[Edge]:
    """Join the edges that meet at a subgraph's own input or output."""
    for name, node in nodes.items():
        if kind(node) in ("Input", "Output") and name not in (start, end):
            into = [a for a, b in edges if b == name]
            onward = [b for a, b in edges if a == name]
            if name in into:
                raise ValueError(f"node {shown(name)} leads to itself: a loop needs a neuron")
            edges = [e for e in edges if name not in e] + [(a, b) for a in into for b in onward]
    return edges


def _require_ways(inner: Iterable[Name], edges: list[Edge], start: Name, end: Name) -> None:
    """Refuse what no signal reaches, or what leads nowhere: it would be left out without a word."""
    for a, b in edges:
        if b == start or a == end:
            raise ValueError(f"edge ({shown(a)}, {shown(b)}): nothing leads into the input or out of the output")
    reached = _reached(edges)
    for name in inner:
        if name not in reached.get(start, ()):
            raise ValueError(f"node {shown(name)}: no way leads to it from the input {shown(start)}")
        if end not in reached.get(name, ()):
            raise ValueError(f"node {shown(name)}: no way leads from it to the output {shown(end)}")
    if end not in reached.get(start, ()):
        raise ValueError(f"no way leads from the input {shown(start)} to the output {shown(end)}")


def _require_shapes(nodes: dict[Name, Any], edges: list[Edge], end: Name) -> None:
    """Refuse signals of another shape than a node takes, which might broadcast; an output takes any."""
    for a, b in edges:
        found, wanted = _shape(nodes[a].output_type), _shape(nodes[b].input_type)
        if b != end and None not in (found, wanted) and found != wanted:
            raise ValueError(f"edge ({shown(a)}, {shown(b)}): a signal {found} meets a node that takes {wanted}")


def _shape(types: Any) -> list[int] | None:
    """Return the shape of a node's only port, None where the graph does not say it."""
    sizes = next(iter(types.values()), None) if isinstance(types, dict) else None
    return None if sizes is None else [int(n) for n in sizes]


def chain(graph: Wires) -> list[list[Name]] | None:
    """Return the blocks of a chain, a node or a neuron with its way back to itself; None for any other graph."""
    blocks: list[list[Name]] = []
    at = graph.start
    while at != graph.end:
        way = _way_back(graph, at)
        onward = [name for name in graph.after(at) if name not in way]
        if len(onward) != 1 or [a for a in graph.before(onward[0]) if a not in _way_back(graph, onward[0])] != [at]:
            return None
        blocks.append([at, *way])
        at = onward[0]
    return blocks[1:] if sum(map(len, blocks)) == len(graph.nodes) + 1 else None


def _way_back(graph: Wires, neuron: Name) -> list[Name]:
    """Return the nodes between a spiking neuron's output and its input, where they are one way without neurons."""
    last = [a for a, b in graph.feedback if b == neuron]
    if len(last) != 1 or kind(graph.nodes.get(neuron)) not in SPIKING:
        return []
    way = last
    while kind(graph.nodes[way[0]]) not in NEURONS:
        before = graph.before(way[0])
        if len(before) != 1 or graph.after(way[0]) != [(way[1:] + [neuron])[0]]:
            return []
        if before == [neuron]:
            return way
        way = before + way
    return []
