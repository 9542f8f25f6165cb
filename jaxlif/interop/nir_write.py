"""Layers and their parameters as NIR's nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.interop.nir_cells import CurrentBased, CurrentBasedParams, IntegrateAndFire, Integrator, Scale, Threshold
from jaxlif.interop.nir_read import MS
from jaxlif.interop.nir_wires import returning
from jaxlif.networks.convolution import Conv1D, Conv2D, ConvParams, Flatten, SumPool
from jaxlif.networks.delays import Delayed, DelayedRecurrent, DelayParams
from jaxlif.networks.feedback import Feedback
from jaxlif.networks.graph import INPUT, Edge, Graph
from jaxlif.networks.layers import Dense, DenseParams, Recurrent, Sequential, _naming, signal
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.readout import LeakyIntegrator, LeakyParams


@dataclass(frozen=True)
class Parts:
    """What a composite layer is made of: cells and parameters, edges, the index of its output, names of nodes."""

    cells: tuple[Any, ...]
    params: tuple[Any, ...]
    edges: tuple[Edge, ...]
    feedback: tuple[Edge, ...] = ()
    last: int = -1
    names: tuple[str, ...] = ()


def write_graph(nir: Any, parts: Parts, shape: tuple[int, ...], metadata: dict[str, Any]) -> Any:
    """Return a NIR graph of an input of this shape; a composite layer is a graph of its own within it."""
    nodes, shapes, names = {"input": nir.Input(np.array(shape))}, {INPUT: shape}, {INPUT: "input"}
    for i, (cell, p) in enumerate(zip(parts.cells, parts.params, strict=True)):
        inside = shapes[next(a for a, b in parts.edges if b == i)]
        with _naming(i, cell):
            node = _node(nir, cell, p, inside)
            shapes[i] = _output_shape(cell, p, inside)
        names[i] = parts.names[i] if parts.names else f"{i}_{type(node).__name__.lower()}"
        nodes[names[i]] = node
    last = parts.last % len(parts.cells)
    nodes["output"] = nir.Output(np.array(shapes[last]))
    edges = [(names[a], names[b]) for a, b in (*parts.edges, *parts.feedback)]
    return nir.NIRGraph(nodes, [*edges, (names[last], "output")], metadata=metadata)


def parts_of(cell: Any, p: Any) -> Parts | None:
    """Return what a composite layer is made of, None for any other."""
    take = _COMPOSITES.get(type(cell))
    return None if take is None else take(cell, p)


def _chain(cells: tuple, params: tuple, names: tuple[str, ...] = ()) -> Parts:
    edges = tuple((i - 1, i) for i in range(len(cells)))
    return Parts(cells, params, edges, names=names)


def _sequential(cell: Sequential, params: tuple) -> Parts:
    return _chain(*_flat(cell, params))


def _flat(cell: Any, params: Any) -> tuple[tuple, tuple]:
    """Return the layers of a chain of chains, and their parameters."""
    if not isinstance(cell, Sequential):
        return (cell,), (params,)
    if len(params) != len(cell.layers):
        raise ValueError(f"params are for {len(params)} layers: this network has {len(cell.layers)}")
    parts = [_flat(layer, p) for layer, p in zip(cell.layers, params, strict=True)]
    return sum((cells for cells, _ in parts), ()), sum((q for _, q in parts), ())


def _loop(neuron: Any, p: Any, path: tuple, params: tuple, names: tuple[str, ...]) -> Parts:
    """Return neurons whose output goes back to them over a way without neurons."""
    if any(type(cell) in _NEURONS for cell in path):
        raise ValueError("path: its neuron takes a step before the first input, and NIR has no way to say so")
    parts = _chain((neuron, *path), (p, *params), ("lif", *names))
    return Parts(parts.cells, parts.params, parts.edges, ((len(path), 0),), 0, parts.names)


def _recurrent(cell: Recurrent, p: Any) -> Parts:
    return _loop(cell.neuron, p.neuron, (Dense(),), (DenseParams(weight=p.weight),), ("w_rec",))


def _delayed_recurrent(cell: DelayedRecurrent, p: Any) -> Parts:
    path = Delayed(cell.dt, cell.max_delay, cell.sigma), Dense()
    return _loop(cell.neuron, p.neuron, path, (p.line, DenseParams(weight=p.weight)), ("delay", "w_rec"))


def _feedback(cell: Feedback, p: Any) -> Parts:
    path, params = _flat(cell.path, p.path)
    names = ("w_rec",) if len(path) == 1 else tuple(f"path_{i}" for i in range(len(path)))
    return _loop(cell.neuron, p.neuron, path, params, names)


def _graph(cell: Graph, params: tuple) -> Parts:
    kinds = [type(layer) for layer in cell.layers]
    neurons = {i for i, k in enumerate(kinds) if k in (*_NEURONS, *_COMPOSITES)}
    last = len(kinds) - 1
    found = returning({*cell.edges, *cell.feedback, (last, "output")}, neurons, INPUT)
    if found != set(cell.feedback):
        raise ValueError(
            f"feedback {sorted(cell.feedback)}: a reader of NIR would let other signals wait: {sorted(found)}"
        )
    if len(set(cell.edges)) < len(cell.edges):
        raise ValueError(f"edges {cell.edges}: NIR has each edge once")
    if any(k in _COMPOSITES for k in kinds) and cell.feedback:
        raise ValueError("feedback around layers that are networks: put their layers into the graph itself")
    return Parts(cell.layers, params, cell.edges, cell.feedback)


_COMPOSITES: dict[type, Callable[..., Parts]] = {
    Sequential: _sequential,
    Recurrent: _recurrent,
    DelayedRecurrent: _delayed_recurrent,
    Feedback: _feedback,
    Graph: _graph,
}


def _output_shape(layer: Any, params: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    def _run(x):
        return signal(layer.step(params, layer.init_state(params, x), x)[1])

    return jax.eval_shape(_run, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape


def _node(nir: Any, layer: Any, p: Any, shape: tuple[int, ...]) -> Any:
    """Return a layer's node; exact types, since a subclass may compute something else."""
    parts = parts_of(layer, p)
    if parts is not None:
        return write_graph(nir, parts, shape, {"recurrent_delay": "one step"} if parts.feedback else {})
    make = _WRITERS.get(type(layer))
    if make is None:
        known = ", ".join(cell.__name__ for cell in (*_WRITERS, *_COMPOSITES))
        raise ValueError(f"{type(layer).__name__}: NIR has no node for it; it has nodes for {known}")
    return make(nir, layer, p, shape)


def _dense_node(nir: Any, layer: Dense, p: DenseParams, shape: tuple[int, ...]) -> Any:
    weight = _double(p.weight).T.copy()  # NIR: from column to row
    return nir.Linear(weight) if p.bias is None else nir.Affine(weight, _double(p.bias))


def _scale_node(nir: Any, layer: Scale, p: Any, shape: tuple[int, ...]) -> Any:
    return nir.Scale(_spread(p.scale, shape))


def _threshold_node(nir: Any, layer: Threshold, p: Any, shape: tuple[int, ...]) -> Any:
    return nir.Threshold(_spread(p.threshold, shape))


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
        return (padding,) * len(places) if isinstance(padding, int) else padding
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


def _delay_node(nir: Any, layer: Delayed, p: DelayParams, shape: tuple[int, ...]) -> Any:
    if layer.sigma != 0.0 or p.sigma is not None:
        raise ValueError("sigma: NIR's Delay has no spread over lags; set the cell's to 0 and the params' to None")
    return nir.Delay(_spread(p.delay, shape) / MS)


def _lif_node(nir: Any, layer: LIF, p: LIFParams, shape: tuple[int, ...]) -> Any:
    spiking = _spiking(layer, p, shape)
    return nir.LIF(_spread(p.tau_m, shape) / MS, _spread(p.r_m, shape), _spread(p.v_rest, shape), **spiking)


def _if_node(nir: Any, layer: IntegrateAndFire, p: LIFParams, shape: tuple[int, ...]) -> Any:
    return nir.IF(_slope(p, shape), **_spiking(layer, p, shape))


def _spiking(layer: LIF, p: LIFParams, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    if type(p) is not LIFParams:
        raise ValueError(f"{type(layer).__name__} with {type(p).__name__}: NIR has a node for LIFParams only")
    if layer.reset != "value":
        raise ValueError(f'reset = "{layer.reset}": NIR sets v to v_reset; use reset = "value"')
    if np.any(np.asarray(p.t_ref) != 0):
        raise ValueError(f"t_ref = {np.max(p.t_ref):g} ms: NIR has no refractory period; t_ref must be 0 ms")
    return {"v_threshold": _spread(p.v_th, shape), "v_reset": _spread(p.v_reset, shape)}


def _li_node(nir: Any, layer: LeakyIntegrator, p: LeakyParams, shape: tuple[int, ...]) -> Any:
    return nir.LI(_spread(p.tau_m, shape) / MS, _spread(p.r_m, shape), _spread(p.v_rest, shape))


def _i_node(nir: Any, layer: Integrator, p: LeakyParams, shape: tuple[int, ...]) -> Any:
    return nir.I(_slope(p, shape))


def _slope(p: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the slope of a voltage without leak, per second and unit of input."""
    if np.any(np.asarray(p.v_rest) != 0):
        raise ValueError(f"v_rest = {np.max(np.abs(p.v_rest)):g} mV: in NIR a neuron without leak starts at 0")
    return _spread(p.r_m, shape) / (_spread(p.tau_m, shape) / MS)


def _current_node(nir: Any, layer: CurrentBased, p: CurrentBasedParams, shape: tuple[int, ...]) -> Any:
    membrane = vars(_node(nir, layer.neuron, p.neuron, shape))
    kept = {name: membrane[name] for name in ("r", "v_leak", "v_threshold", "v_reset") if name in membrane}
    times = {"tau_syn": _spread(p.tau_syn, shape) / MS, "tau_mem": membrane["tau"]}
    make = nir.CubaLIF if isinstance(layer.neuron, LIF) else nir.CubaLI
    return make(**times, **kept, w_in=_spread(p.w_in, shape))


_NEURONS: dict[type, Callable[..., Any]] = {
    LIF: _lif_node,
    IntegrateAndFire: _if_node,
    LeakyIntegrator: _li_node,
    Integrator: _i_node,
    CurrentBased: _current_node,
}
_WRITERS: dict[type, Callable[..., Any]] = _NEURONS | {
    Dense: _dense_node,
    Scale: _scale_node,
    Threshold: _threshold_node,
    Conv1D: _conv_node,
    Conv2D: _conv_node,
    SumPool: _pool_node,
    Flatten: _flatten_node,
    Delayed: _delay_node,
}


def _double(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def _spread(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return one number for each neuron, as NIR wants them."""
    try:
        return np.broadcast_to(_double(x), shape).copy()
    except ValueError as error:
        message = f"parameters {list(np.shape(x))}: they do not go with the layer's input {list(shape)}"
        raise ValueError(message) from error
