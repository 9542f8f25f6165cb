"""NIR's nodes as layers and their parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.checks import check_params
from jaxlif.interop.nir_cells import (
    CurrentBased,
    CurrentBasedParams,
    IntegrateAndFire,
    Integrator,
    Scale,
    ScaleParams,
    Threshold,
    ThresholdParams,
)
from jaxlif.interop.nir_wires import Name, Wires, chain, kind, shown
from jaxlif.networks.convolution import Conv1D, Conv2D, ConvParams, Flatten, SumPool
from jaxlif.networks.delays import Delayed, DelayedRecurrent, DelayedRecurrentParams, DelayParams
from jaxlif.networks.feedback import Feedback, FeedbackParams
from jaxlif.networks.graph import INPUT, Graph
from jaxlif.networks.layers import Dense, DenseParams, Recurrent, RecurrentParams, Sequential
from jaxlif.neurons.cell import check_cell
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.readout import LeakyIntegrator, LeakyParams
from jaxlif.surrogate import Surrogate

MS = 1000.0  # in a second
Layer = tuple[Any, Any]  # a cell and its parameters


@dataclass(frozen=True)
class Reader:
    """How nodes are read: for which step, with which spikes, by which integration."""

    dt: float
    surrogate: Surrogate
    reset: str
    euler: bool

    def network(self, graph: Wires) -> tuple[Sequential, tuple]:
        """Return a chain of layers, or one layer that is a graph of them."""
        read = {name: self._named(name, node) for name, node in graph.nodes.items()}
        blocks = chain(graph)
        if blocks is None:
            cell, params = _graph(graph, read)
            return Sequential((cell,)), (params,)
        layers = [_block([read[name] for name in names]) for names in blocks]
        return Sequential(tuple(layer for layer, _ in layers)), tuple(p for _, p in layers)

    def unfold(self, node: Any) -> Any:
        """Return the graph that a node stands for: an average, and in Euler steps a current-based neuron."""
        import nir

        if kind(node) == "AvgPool2d":
            pool = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
            return _row(pool, nir.Scale(np.array(1.0 / np.prod(_integers(node.kernel_size, 2)))))
        if kind(node) not in ("CubaLIF", "CubaLI") or not self.euler:
            return node
        synapse = nir.LI(tau=node.tau_syn, r=node.w_in, v_leak=np.zeros_like(node.v_leak))
        membrane = {"tau": node.tau_mem, "r": node.r, "v_leak": node.v_leak}
        if kind(node) == "CubaLI":
            return _row(synapse, nir.LI(**membrane))
        return _row(synapse, nir.LIF(**membrane, v_threshold=node.v_threshold, v_reset=node.v_reset))

    def _named(self, name: Name, node: Any) -> Layer:
        with _saying(name, node):
            read = getattr(self, f"_{kind(node).lower()}", None)
            if read is None:
                raise ValueError("jaxlif has no layer for it")
            _require_numbers(node)
            cell, params = read(node)
            check_params(params)
            check_cell(cell, params)
        return cell, params

    def _affine(self, node: Any) -> Layer:
        return Dense(), DenseParams(weight=_array(_matrix(node.weight).T), bias=_array(node.bias))

    def _linear(self, node: Any) -> Layer:
        return Dense(), DenseParams(weight=_array(_matrix(node.weight).T))

    def _scale(self, node: Any) -> Layer:
        return Scale(), ScaleParams(scale=_array(node.scale))

    def _threshold(self, node: Any) -> Layer:
        return Threshold(self.surrogate), ThresholdParams(threshold=_array(node.threshold))

    def _conv1d(self, node: Any) -> Layer:
        return self._conv(Conv1D, node)

    def _conv2d(self, node: Any) -> Layer:
        return self._conv(Conv2D, node)

    def _conv(self, cell: Any, node: Any) -> Layer:
        for field in ("dilation", "groups"):
            if np.any(np.asarray(getattr(node, field)) != 1):
                raise ValueError(f"{field} = {getattr(node, field)}: {field} must be 1")
        padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
        padding = padding.upper() if isinstance(padding, str) else _integers(padding, cell.ndim)
        stride = _integers(node.stride, cell.ndim)
        if padding == "SAME" and set(stride) != {1}:
            raise ValueError(f"padding = same with stride = {stride}: it keeps the size only with a stride of 1")
        layer = cell(stride, padding)
        return layer, ConvParams(weight=_array(node.weight), bias=_array(node.bias))

    def _sumpool2d(self, node: Any) -> Layer:
        return SumPool(*(_integers(x, 2) for x in (node.kernel_size, node.stride, node.padding))), None

    def _flatten(self, node: Any) -> Layer:
        sizes = node.input_type["input"]
        last = (-1,) if sizes is None else (-1, len(sizes) - 1)
        if int(node.start_dim) != 0 or int(node.end_dim) not in last:
            raise ValueError(f"start_dim = {node.start_dim}, end_dim = {node.end_dim}: all axes must be flattened")
        return Flatten(), None

    def _delay(self, node: Any) -> Layer:
        delay = _array(np.asarray(node.delay) * MS)
        return Delayed(self.dt, max(self.dt, float(jnp.max(delay)))), DelayParams(delay=delay)

    def _lif(self, node: Any) -> Layer:
        return LIF(self.dt, self.surrogate, self.reset), self._spiking(node, node.tau, node.r, node.v_leak)

    def _if(self, node: Any) -> Layer:
        neuron = IntegrateAndFire(self.dt, self.surrogate, self.reset)
        return neuron, self._spiking(node, 1.0, node.r, 0.0, euler=False)

    def _spiking(self, node: Any, tau: Any, r: Any, v_leak: Any, **how: bool) -> LIFParams:
        v_th, v_reset = _array(node.v_threshold), _array(node.v_reset)
        membrane = vars(self._membrane(tau, r, v_leak, **how))
        return LIFParams(**membrane, v_th=v_th, v_reset=v_reset, t_ref=0.0)

    def _li(self, node: Any) -> Layer:
        return LeakyIntegrator(self.dt), self._membrane(node.tau, node.r, node.v_leak)

    def _i(self, node: Any) -> Layer:
        return Integrator(self.dt), self._membrane(1.0, node.r, 0.0, euler=False)

    def _membrane(self, tau: Any, r: Any, v_leak: Any, euler: bool | None = None) -> LeakyParams:
        tau_m = self._time(tau, self.euler if euler is None else euler)
        return LeakyParams(tau_m=tau_m, r_m=_array(r), v_rest=_array(v_leak))

    def _cubalif(self, node: Any) -> Layer:
        params = self._spiking(node, node.tau_mem, node.r, node.v_leak)
        return self._current_based(LIF(self.dt, self.surrogate, self.reset), params, node)

    def _cubali(self, node: Any) -> Layer:
        params = self._membrane(node.tau_mem, node.r, node.v_leak)
        return self._current_based(LeakyIntegrator(self.dt), params, node)

    def _current_based(self, neuron: Any, params: Any, node: Any) -> Layer:
        filtered = {"tau_syn": self._time(node.tau_syn, self.euler), "w_in": _array(node.w_in)}
        return CurrentBased(neuron), CurrentBasedParams(neuron=params, **filtered)

    def _time(self, tau: Any, euler: bool) -> jax.Array:
        """Return a time constant in ms: that with which an exact step does what an Euler step of ``tau`` does."""
        tau = np.asarray(tau, np.float64) * MS
        if not euler:
            return _array(tau)
        if not np.all(tau > self.dt):
            raise ValueError(f"tau = {tau.min():g} ms: it must be longer than an Euler step, which is {self.dt:g} ms")
        return _array(-self.dt / np.log1p(-self.dt / tau))


def _block(parts: list[Layer]) -> Layer:
    """Return a layer, or a neuron with its way back to itself as the narrowest cell that is both."""
    (neuron, p), *path = parts
    if not path:
        return neuron, p
    cells, params = [cell for cell, _ in path], [q for _, q in path]
    linear = isinstance(cells[-1], Dense) and params[-1].bias is None
    if linear and len(path) == 1:
        return Recurrent(neuron), RecurrentParams(neuron=p, weight=params[0].weight)
    if linear and len(path) == 2 and isinstance(cells[0], Delayed):
        line, weight = params[0], params[1].weight
        cell = DelayedRecurrent(neuron, cells[0].dt, cells[0].max_delay)
        return cell, DelayedRecurrentParams(neuron=p, weight=weight, line=line)
    way, q = (cells[0], params[0]) if len(path) == 1 else (Sequential(tuple(cells)), tuple(params))
    return Feedback(neuron, way), FeedbackParams(neuron=p, path=q)


def _graph(graph: Wires, read: dict[Name, Layer]) -> Layer:
    """Return all layers as one graph; where its last layer is not the output's only source, the output is one more."""
    index = {graph.start: INPUT} | {name: i for i, name in enumerate(read)}
    parts, sources = list(read.values()), graph.before(graph.end)
    if len(sources) == 1 and index[sources[0]] == len(parts) - 1:
        edges = [e for e in graph.edges if e[1] != graph.end]
    else:
        index[graph.end] = len(parts)
        parts.append((Scale(), ScaleParams(scale=1.0)))
        edges = graph.edges
    pairs, late = (tuple((index[a], index[b]) for a, b in found) for found in (edges, graph.feedback))
    return Graph(tuple(cell for cell, _ in parts), pairs, late), tuple(p for _, p in parts)


def _row(*nodes: Any) -> Any:
    """Return nodes in a row as a graph of its own."""
    import nir

    inner = {str(i): node for i, node in enumerate(nodes)}
    names = ["input", *inner, "output"]
    ends = {"input": nir.Input(nodes[0].input_type), "output": nir.Output(nodes[-1].output_type)}
    return nir.NIRGraph(inner | ends, list(zip(names, names[1:], strict=False)), type_check=False)


@contextmanager
def _saying(name: Name, node: Any) -> Iterator[None]:
    """Say which node an error comes from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"node {shown(name)} ({kind(node)}): {error}") from error


def _require_numbers(node: Any) -> None:
    """Refuse NaN, infinity and what is no real number."""
    for field, value in vars(node).items():
        if isinstance(value, (float, np.floating, np.ndarray)):
            values = np.asarray(value)
            if values.dtype.kind not in "fiu":
                raise ValueError(f"{field} of type {values.dtype}: it must hold real numbers")
            if not np.isfinite(values).all():
                raise ValueError(f"{field} = {values[~np.isfinite(values)].flat[0]}: all its numbers must be finite")


def _array(x: Any) -> jax.Array:
    return jnp.asarray(np.asarray(x), float)


def _matrix(weight: Any) -> np.ndarray:
    if np.ndim(weight) != 2:
        raise ValueError(f"weight {list(np.shape(weight))}: a weight must be a matrix")
    return np.asarray(weight)


def _integers(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.broadcast_to(np.asarray(value), (axes,)))
