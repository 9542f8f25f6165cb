"""Networks to and from NIR, the Neuromorphic Intermediate Representation, for snnTorch, Norse, Lava, SpiNNaker 2, ...

NIR holds differential equations, not steps: dt and the surrogate are no part of a graph. What a node cannot hold is
refused by name, never approximated. Times are written in seconds, everything else in the network's own units, all in
double precision; the graph's metadata says so. Three conventions are left to whoever runs a graph: a neuron of
:class:`jaxlif.LIF` spikes at v >= v_th (NIR: v > v_th), it is integrated exactly (others may take Euler steps), and a
recurrent spike acts in the next step. snnTorch 1.0 takes Euler steps of 0.1 ms whatever the graph says, and one time
constant and threshold for a layer; Norse 1.1 takes Euler steps of the dt that it is given, and R = 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.networks.convolution import Conv1D, Conv2D, ConvParams, Flatten, SumPool
from jaxlif.networks.delays import Delayed, DelayedRecurrent, DelayedRecurrentParams, DelayParams
from jaxlif.networks.layers import Dense, DenseParams, Recurrent, RecurrentParams, Sequential, _naming, signal
from jaxlif.neurons.checks import check_cell, check_params
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.readout import LeakyIntegrator, LeakyParams
from jaxlif.surrogate import SuperSpike, Surrogate

_MS = 1000.0  # in a second


def to_nir(network: Sequential, params: tuple, input_shape: tuple[int, ...], dt: float | None = None) -> Any:
    r"""Write a network as a NIR graph, a chain of one node for each layer.

    ===============================  ==========================================================
    layer                            node
    ===============================  ==========================================================
    Dense                            Affine, or Linear without a bias
    Conv1D, Conv2D, SumPool          Conv1d, Conv2d, SumPool2d
    Flatten, Delayed                 Flatten, Delay
    LIF, LeakyIntegrator             LIF, LI
    Recurrent, DelayedRecurrent      a graph of its own: LIF -> (Delay ->) Linear -> LIF
    Sequential                       its layers
    ===============================  ==========================================================

    Args:
        network: the network.
        params: its parameters; a network in normalised units stays in them.
        input_shape: shape of one time slice of the input.
        dt: step, ms, for the metadata; the network's own by default.

    Returns:
        A ``nir.NIRGraph``; ``nir.write(path, graph)`` stores it.

    Raises:
        ValueError: for what NIR cannot express, naming layer and field: a refractory period, ``reset = "subtract"``,
            a delay spread over lags, any other layer (adaptive neurons, synapses, MaxPool, Normalise, ...), padding
            that is not the same on both sides; or for params that break a rule.
        ImportError: without the package ``nir``.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import init_dense
        >>> network = Sequential((Dense(), jl.LIF(dt=1.0)))
        >>> params = (init_dense(jax.random.key(0), 4, 3), jl.LIFParams(t_ref=0.0).normalised())
        >>> graph = to_nir(network, params, (4,))
        >>> [type(node).__name__ for node in graph.nodes.values()]
        ['Input', 'Affine', 'LIF', 'Output']

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    nir = _nir()
    check_params(params)
    check_cell(network, params)
    step = _step(network, dt)
    nodes, shape = {"input": nir.Input(np.array(input_shape))}, tuple(input_shape)
    for i, (layer, p) in enumerate(_flat(network, params)):
        with _naming(i, layer):
            node = _node(nir, layer, p, shape)
            shape = _output_shape(layer, p, shape)
        nodes[f"{i}_{type(node).__name__.lower()}"] = node
    nodes["output"] = nir.Output(np.array(shape))
    names = list(nodes)
    return nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False)), metadata=_metadata(step))


def _step(network: Sequential, dt: float | None) -> float | None:
    if dt is not None and network.dt is not None and dt != network.dt:
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {network.dt:g} ms")
    return network.dt if dt is None else dt


def _metadata(dt: float | None) -> dict[str, Any]:
    facts = {"source": "jaxlif", "time_unit": "s", "reset": "value", "threshold": "v >= v_threshold"}
    return facts | ({} if dt is None else {"dt": dt / _MS})


def _flat(network: Sequential, params: tuple) -> Iterator[tuple[Any, Any]]:
    for layer, p in zip(network.layers, params, strict=True):
        if isinstance(layer, Sequential):
            yield from _flat(layer, p)
        else:
            yield layer, p


def _output_shape(layer: Any, params: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    def _run(x):
        return signal(layer.step(params, layer.init_state(params, x), x)[1])

    return jax.eval_shape(_run, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape


def _node(nir: Any, layer: Any, p: Any, shape: tuple[int, ...]) -> Any:
    """Return a layer's node; exact types, since a subclass may compute something else."""
    make = _WRITERS.get(type(layer))
    if make is None:
        known = ", ".join(cell.__name__ for cell in _WRITERS)
        raise ValueError(f"{type(layer).__name__}: NIR has no node for it; it has nodes for {known}")
    return make(nir, layer, p, shape)


def _dense_node(nir: Any, layer: Dense, p: DenseParams, shape: tuple[int, ...]) -> Any:
    weight = _double(p.weight).T.copy()  # NIR: from column to row
    return nir.Linear(weight) if p.bias is None else nir.Affine(weight, _double(p.bias))


def _conv_node(nir: Any, layer: Conv1D | Conv2D, p: ConvParams, shape: tuple[int, ...]) -> Any:
    weight, places, kernel = _double(p.weight), shape[1:], p.weight.shape[2:]
    padding = _padding(layer.padding, places, kernel, layer.strides)
    if padding != "same" and len(set(kernel)) > 1:
        # nir takes the first size of the kernel for both when it infers shapes, and then refuses its own file.
        raise ValueError(f'kernel = {kernel}: NIR takes a kernel that is not square only with padding "SAME"')
    bias = np.zeros(len(weight)) if p.bias is None else _double(p.bias)
    if isinstance(layer, Conv1D):
        flat = padding if isinstance(padding, str) else padding[0]
        return nir.Conv1d(places[0], weight, layer.strides[0], flat, 1, 1, bias)
    return nir.Conv2d(places, weight, layer.strides, padding, (1, 1), 1, bias)


def _padding(padding: Any, places: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """Return NIR's padding: "same", which takes stride 1 only, or the zeros on either side."""
    if padding == "SAME" and set(stride) == {1}:
        return "same"
    if padding == "VALID":
        return (0,) * len(places)
    if padding != "SAME":
        return padding
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(places, kernel, stride, strict=True)]
    if any(t % 2 for t in total):
        raise ValueError(f'padding = "SAME": it adds {total} zeros here, and NIR pads both sides alike')
    return tuple(t // 2 for t in total)


def _pool_node(nir: Any, layer: SumPool, p: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) != 3:
        raise ValueError(f"SumPool of an input {list(shape)}: NIR sums over images [C, H, W] only")
    window, stride = layer.windows(2)
    return nir.SumPool2d(*(np.array(n) for n in (window, stride, _pool_padding(layer, shape, window, stride))))


def _pool_padding(layer: SumPool, shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    padding = _padding(layer.padding, shape[1:], window, stride)
    if padding != "same":
        return padding
    if any(k % 2 == 0 for k in window):
        raise ValueError(f'padding = "SAME": a window {window} needs an odd number of zeros, NIR pads both sides alike')
    return tuple(k // 2 for k in window)


def _flatten_node(nir: Any, layer: Flatten, p: Any, shape: tuple[int, ...]) -> Any:
    return nir.Flatten({"input": np.array(shape)}, 0, -1)


def _delay_node(nir: Any, layer: Any, p: DelayParams, shape: tuple[int, ...]) -> Any:
    if layer.sigma != 0.0 or p.sigma is not None:
        raise ValueError("sigma: NIR's Delay has no spread over lags; set the cell's to 0 and the params' to None")
    return nir.Delay(_spread(p.delay, shape) / _MS)


def _lif_node(nir: Any, layer: Any, p: LIFParams, shape: tuple[int, ...]) -> Any:
    if type(layer) is not LIF or type(p) is not LIFParams:
        raise ValueError(f"{type(layer).__name__} with {type(p).__name__}: NIR has a node for LIF with LIFParams only")
    if layer.reset != "value":
        raise ValueError(f'reset = "{layer.reset}": NIR sets v to v_reset; use reset = "value"')
    if np.any(np.asarray(p.t_ref) != 0):
        raise ValueError(f"t_ref = {np.max(p.t_ref):g} ms: NIR has no refractory period; t_ref must be 0 ms")
    values = (_spread(x, shape) for x in (p.r_m, p.v_rest, p.v_th, p.v_reset))
    return nir.LIF(_spread(p.tau_m, shape) / _MS, *values)


def _li_node(nir: Any, layer: LeakyIntegrator, p: LeakyParams, shape: tuple[int, ...]) -> Any:
    return nir.LI(_spread(p.tau_m, shape) / _MS, _spread(p.r_m, shape), _spread(p.v_rest, shape))


def _recurrent_node(nir: Any, layer: Recurrent | DelayedRecurrent, p: Any, shape: tuple[int, ...]) -> Any:
    size = np.array(shape)
    nodes = {"input": nir.Input(size), "lif": _lif_node(nir, layer.neuron, p.neuron, shape)}
    loop = ["lif"]
    if isinstance(layer, DelayedRecurrent):
        nodes["delay"] = _delay_node(nir, layer, p.line, shape)
        loop.append("delay")
    nodes |= {"w_rec": nir.Linear(_double(p.weight).T.copy()), "output": nir.Output(size)}
    loop += ["w_rec", "lif"]
    edges = [("input", "lif"), *zip(loop, loop[1:], strict=False), ("lif", "output")]
    return nir.NIRGraph(nodes, edges, metadata={"recurrent_delay": "one step"})


_WRITERS: dict[type, Callable[..., Any]] = {
    Dense: _dense_node,
    Conv1D: _conv_node,
    Conv2D: _conv_node,
    SumPool: _pool_node,
    Flatten: _flatten_node,
    Delayed: _delay_node,
    LIF: _lif_node,
    LeakyIntegrator: _li_node,
    Recurrent: _recurrent_node,
    DelayedRecurrent: _recurrent_node,
}


def from_nir(graph: Any, dt: float | None = None, *, surrogate: Surrogate | None = None) -> tuple[Sequential, tuple]:
    """Read a NIR graph as a network, for any step.

    Args:
        graph: a ``nir.NIRGraph``, such as ``nir.read(path)``: a chain of the nodes that :func:`to_nir` writes.
        dt: step, ms; that in the graph's metadata by default.
        surrogate: pseudo-derivative of all spikes, SuperSpike by default: a graph has none.

    Returns:
        The network and its parameters, in JAX's default precision, with times in ms and the rest in the graph's units.

    Raises:
        ValueError: for a graph that is no chain, a node or an option that jaxlif does not have, naming it, times in
            another unit than seconds, or no dt.
        ImportError: without the package ``nir``.

    Example:
        >>> import nir
        >>> one = np.ones(2)
        >>> neurons = nir.LIF(tau=0.01 * one, r=one, v_leak=0.0 * one, v_threshold=one)
        >>> network, params = from_nir(nir.NIRGraph.from_list(nir.Affine(np.ones((2, 3)), one), neurons), dt=1.0)
        >>> [type(layer).__name__ for layer in network.layers], params[1].tau_m.tolist()
        (['Dense', 'LIF'], [10.0, 10.0])

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    _nir()
    reader = _Reader(_given_dt(graph, dt), surrogate or SuperSpike())
    layers, params = [], []
    for name in _chain(graph):
        node = graph.nodes[name]
        try:
            layer, p = reader.read(node)
        except ValueError as error:
            raise ValueError(f"node {name!r} ({type(node).__name__}): {error}") from error
        layers.append(layer)
        params.append(p)
    return Sequential(tuple(layers)), tuple(params)


def _given_dt(graph: Any, dt: float | None) -> float:
    metadata = graph.metadata if isinstance(graph.metadata, dict) else {}
    unit = metadata.get("time_unit", "s")
    if (unit.decode() if isinstance(unit, bytes) else unit) != "s":
        raise ValueError(f"time_unit = {unit!r}: a graph's times must be in seconds")
    if dt is None and "dt" not in metadata:
        raise ValueError("dt: the graph's metadata has none; give one, ms")
    return float(metadata["dt"]) * _MS if dt is None else dt


def _chain(graph: Any) -> list[str]:
    """Return the names from Input to Output, refusing a graph that branches."""
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    follow = {name: [b for a, b in graph.edges if a == name] for name in kinds}
    starts = [name for name, kind in kinds.items() if kind == "Input"]
    if len(starts) != 1:
        raise ValueError(f"the graph has {len(starts)} inputs: it must have one")
    names = [starts[0]]
    while follow[names[-1]]:
        after = follow[names[-1]]
        if len(after) > 1 or after[0] in names:
            raise ValueError(f"node {names[-1]!r} leads to {', '.join(after)}: a graph must be a chain of nodes")
        names.append(after[0])
    if kinds[names[-1]] != "Output" or len(names) != len(kinds) or len(graph.edges) != len(names) - 1:
        raise ValueError(f"the graph must be one chain from its input to its output; the chain is {', '.join(names)}")
    return names[1:-1]


@dataclass(frozen=True)
class _Reader:
    dt: float
    surrogate: Surrogate

    def read(self, node: Any) -> tuple[Any, Any]:
        """Return a node's layer and parameters."""
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None:
            raise ValueError(_UNREADABLE.get(type(node).__name__, "jaxlif has no layer for it"))
        return read(node)

    def _affine(self, node: Any) -> tuple[Any, Any]:
        return Dense(), DenseParams(weight=_array(_matrix(node.weight).T), bias=_array(node.bias))

    def _linear(self, node: Any) -> tuple[Any, Any]:
        return Dense(), DenseParams(weight=_array(_matrix(node.weight).T))

    def _conv1d(self, node: Any) -> tuple[Any, Any]:
        return self._conv(Conv1D, node)

    def _conv2d(self, node: Any) -> tuple[Any, Any]:
        return self._conv(Conv2D, node)

    def _conv(self, cell: Any, node: Any) -> tuple[Any, Any]:
        for field in ("dilation", "groups"):
            if np.any(np.asarray(getattr(node, field)) != 1):
                raise ValueError(f"{field} = {getattr(node, field)}: {field} must be 1")
        padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
        padding = padding.upper() if isinstance(padding, str) else _integers(padding, cell.ndim)
        layer = cell(_integers(node.stride, cell.ndim), padding)
        return layer, ConvParams(weight=_array(node.weight), bias=_array(node.bias))

    def _sumpool2d(self, node: Any) -> tuple[Any, Any]:
        return SumPool(*(_integers(x, 2) for x in (node.kernel_size, node.stride, node.padding))), None

    def _flatten(self, node: Any) -> tuple[Any, Any]:
        axes = len(node.input_type["input"])
        if int(node.start_dim) != 0 or int(node.end_dim) not in (-1, axes - 1):
            raise ValueError(f"start_dim = {node.start_dim}, end_dim = {node.end_dim}: all axes must be flattened")
        return Flatten(), None

    def _delay(self, node: Any) -> tuple[Any, Any]:
        delay = _array(np.asarray(node.delay) * _MS)
        return Delayed(self.dt, max(self.dt, float(jnp.max(delay)))), DelayParams(delay=delay)

    def _lif(self, node: Any) -> tuple[Any, Any]:
        values = (np.asarray(node.tau) * _MS, node.r, node.v_leak, node.v_threshold, node.v_reset)
        tau_m, r_m, v_rest, v_th, v_reset = (_array(x) for x in values)
        params = LIFParams(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_th=v_th, v_reset=v_reset, t_ref=0.0)
        return LIF(dt=self.dt, surrogate=self.surrogate), params

    def _li(self, node: Any) -> tuple[Any, Any]:
        tau_m, r_m, v_rest = (_array(x) for x in (np.asarray(node.tau) * _MS, node.r, node.v_leak))
        return LeakyIntegrator(dt=self.dt), LeakyParams(tau_m=tau_m, r_m=r_m, v_rest=v_rest)

    def _nirgraph(self, node: Any) -> tuple[Any, Any]:
        """Read neurons that project to one another: LIF -> (Delay ->) Linear -> LIF."""
        by_kind = {type(n).__name__: name for name, n in node.nodes.items()}
        loop = _loop(node, by_kind)
        neuron, p = self._lif(node.nodes[by_kind["LIF"]])
        weight = self._linear(node.nodes[by_kind["Linear"]])[1].weight
        if "Delay" not in loop:
            return Recurrent(neuron), RecurrentParams(neuron=p, weight=weight)
        line, delays = self._delay(node.nodes[by_kind["Delay"]])
        params = DelayedRecurrentParams(neuron=p, weight=weight, line=delays)
        return DelayedRecurrent(neuron, self.dt, line.max_delay), params


_CUBA = "whether a spike makes its current jump by w_in or by w_in/tau_syn differs between simulators; use LIF"
_UNREADABLE = {
    "CubaLIF": _CUBA,
    "CubaLI": _CUBA,
    "IF": "a neuron of jaxlif leaks; tau is missing",
    "AvgPool2d": "jaxlif pools by sum; scale the weights after a SumPool2d instead",
}


def _loop(graph: Any, by_kind: dict[str, str]) -> list[str]:
    """Return the kinds around the loop of a recurrent graph, refusing any other graph."""
    for middle in (["Linear"], ["Delay", "Linear"]):
        loop = ["LIF", *middle, "LIF"]
        pairs = [("Input", "LIF"), *zip(loop, loop[1:], strict=False), ("LIF", "Output")]
        if set(by_kind) == {"Input", "Output", *loop} and len(graph.nodes) == len(by_kind):
            if sorted(graph.edges) == sorted((by_kind[a], by_kind[b]) for a, b in pairs):
                return loop
    raise ValueError("a graph within a graph must be LIF -> (Delay ->) Linear -> LIF between its input and output")


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR graphs need the package nir: pip install 'jaxlif[snn]'") from error
    return nir


def _double(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def _spread(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return one number for each neuron, as NIR wants them."""
    return np.broadcast_to(_double(x), shape).copy()


def _array(x: Any) -> jax.Array:
    return jnp.asarray(np.asarray(x), float)


def _matrix(weight: Any) -> np.ndarray:
    if np.ndim(weight) != 2:
        raise ValueError(f"weight {list(np.shape(weight))}: a weight must be a matrix")
    return np.asarray(weight)


def _integers(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.broadcast_to(np.asarray(value), (axes,)))
