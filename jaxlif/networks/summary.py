"""What a network is and costs: sizes, synaptic operations, sparsity and energy of each layer, as NeuroBench counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree, Shaped

from jaxlif.checks import positive
from jaxlif.fitting.bounds import Bounds, coordinates, named_leaves
from jaxlif.networks.delays import Arriving, Delayed, Dropout
from jaxlif.networks.feedback import Feedback
from jaxlif.networks.graph import INPUT, Graph, Sequential
from jaxlif.networks.layers import Conv, Dense, DenseParams, Flatten, Normalise, SumPool, signal
from jaxlif.networks.liveliness import layer_name
from jaxlif.networks.sparse import Sparse
from jaxlif.neurons.cell import Cell, HasSpikes, input_kind
from jaxlif.simulation import simulate

_PROJECTIONS = (Dense, Conv, Sparse)
_WITHOUT = (SumPool, Flatten, Normalise, Delayed, Dropout, Arriving)  # layers without synaptic operations
_NONE = {"synapses": 0, "connected": 0, "dense": 0.0, "macs": 0.0, "acs": 0.0}
_COLUMNS = "layer", "output", "parameters", "state (B)", "spikes", "dense", "MACs", "ACs"


class LayerSummary(NamedTuple):
    """A layer's own numbers, without those of layers inside it; operations are a sample's, the mean over the batch."""

    name: str  # such as "layer 1 (Recurrent)"; its recurrent weights are "layer 1.path (Dense)"
    shape: tuple[int, ...]  # of what it passes on in a step
    parameters: int  # floating numbers
    parameter_bytes: int
    state_bytes: int  # of one sample
    spikes: float  # of a neuron in a step; nan where the layer has none
    synapses: int  # places for a weight
    connected: int  # those with a weight other than 0
    dense: float  # synaptic operations, zeros included
    macs: float  # those of inputs other than 0 through weights other than 0, in steps with other inputs than -1, 0, 1
    acs: float  # those in steps without: a weight is only added


@dataclass(frozen=True)
class Summary:
    """The result of :func:`summary`; ``print`` shows it as a table."""

    layers: tuple[LayerSummary, ...]
    free_bytes: int | None  # of the parameters that are free; None where no bounds were given
    mac_energy: float  # pJ
    ac_energy: float  # pJ

    @property
    def parameters(self) -> int:
        """The number of floating parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def footprint(self) -> int:
        """Bytes of the parameters and of the state of one sample."""
        return sum(layer.parameter_bytes + layer.state_bytes for layer in self.layers)

    @property
    def connection_sparsity(self) -> float:
        """The fraction of all weights that are 0; nan without any."""
        places = sum(layer.synapses for layer in self.layers)
        return 1.0 - sum(layer.connected for layer in self.layers) / places if places else np.nan

    @property
    def activation_sparsity(self) -> float:
        """The fraction of neurons and steps without a spike, over all layers that spike; nan without any."""
        spiking = [layer for layer in self.layers if not np.isnan(layer.spikes)]
        sizes = [int(np.prod(layer.shape)) for layer in spiking]
        return 1.0 - float(np.average([x.spikes for x in spiking], weights=sizes)) if spiking else np.nan

    @property
    def dense(self) -> float:
        """Synaptic operations of a sample, those with a weight or an input of 0 included."""
        return sum(layer.dense for layer in self.layers)

    @property
    def macs(self) -> float:
        """Effective multiplications and additions of a sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Effective additions of a sample."""
        return sum(layer.acs for layer in self.layers)

    @property
    def energy(self) -> float:
        """What a sample's effective operations take, nJ."""
        return (self.mac_energy * self.macs + self.ac_energy * self.acs) / 1000.0

    def __str__(self) -> str:
        rows = [_COLUMNS, *map(_cells, self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [f"{row[0]:<{widths[0]}}  " + "  ".join(map(str.rjust, row[1:], widths[1:])) for row in rows]
        stored = sum(layer.parameter_bytes for layer in self.layers)
        free = "" if self.free_bytes is None else f", {self.free_bytes} free and {stored - self.free_bytes} fixed"
        sparsity = (
            f"sparsity of connections {self.connection_sparsity:.4f}, of activations {self.activation_sparsity:.4f}"
        )
        operations = f"{self.dense:g} dense operations a sample, effective {self.macs:g} MACs and {self.acs:g} ACs"
        return "\n".join(
            [
                *table,
                f"{self.parameters} parameters, {stored} B{free}; footprint with the state {self.footprint} B",
                f"{sparsity}; {operations}: {self.energy:.4g} nJ at {self.mac_energy:g} and {self.ac_energy:g} pJ",
            ]
        )


def summary(
    network: Cell,
    params: PyTree,
    inputs: Shaped[Array, "B T *N"],
    bounds: Bounds | None = None,
    *,
    mac_energy: float = 4.6,
    ac_energy: float = 0.9,
) -> Summary:
    r"""Run a batch through a network and count what it is and costs, as NeuroBench does.

    An input other than 0 through a weight other than 0 is an effective synaptic operation: an addition (AC) in steps in
    which all inputs of the layer, over the batch, are -1, 0 or 1, else a multiplication too (MAC). Dense operations
    count all. Biases, pooling, normalisation, delays and what neurons do inside are none. A sparse projection's zeros
    are its missing synapses. The footprint is parameters and state; NeuroBench's count of parameters is that of free
    ones. Energy is that of the operations alone, :math:`E = E_{MAC} n_{MAC} + E_{AC} n_{AC}`, without memory.

    Args:
        network: a :class:`Sequential` or :class:`Graph` of :class:`Dense`, :class:`Conv`, :class:`Sparse`,
            :class:`Recurrent`, :class:`Feedback`, neurons and what lies between, or one of these.
        params: its parameters.
        inputs: a batch [B, T, ...], which decides about spikes and operations.
        bounds: those of the training, to tell free parameters from fixed ones.
        mac_energy: of a multiplication with addition, pJ; 3.7 + 0.9 in 32 bit at 45 nm.
        ac_energy: of an addition, pJ.

    Raises:
        ValueError: for a layer whose operations are not known, with its name, and for inputs without a batch.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import DenseParams, init_neurons
        >>> params = DenseParams(weight=jnp.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])), init_neurons(2)
        >>> found = summary(Sequential((Dense(), jl.LIF(dt=1.0))), params, jnp.ones((1, 10, 3)).at[..., 2].set(0.0))
        >>> found.dense, found.acs, found.macs, round(found.connection_sparsity, 2)
        (60.0, 20.0, 0.0, 0.33)

    Source: Yik et al. 2025, doi:10.1038/s41467-025-56739-4 (the counts); Horowitz 2014,
    doi:10.1109/ISSCC.2014.6757323 (the energies).
    """
    mac_energy, ac_energy = positive("mac_energy", mac_energy, "pJ"), positive("ac_energy", ac_energy, "pJ")
    if (kind := input_kind(network)) is not None:
        rule = f"a {kind.__name__} is not held over a step, and NeuroBench's counts are of steps"
        raise ValueError(f"network = {type(network).__name__}: {rule}")
    if not isinstance(inputs, jax.Array | np.ndarray) or inputs.ndim < 2 or 0 in inputs.shape[:2]:
        found = list(getattr(inputs, "shape", ())) or type(inputs).__name__
        raise ValueError(f"inputs = {found}: a batch [B, T, ...] is needed")
    free = None
    if bounds is not None:
        leaves = named_leaves(params)
        free = sum(_bytes(leaves[name]) for name, _ in coordinates(params, bounds).free)
    return Summary(tuple(_layers(network, params, np.asarray(inputs), ())), free, mac_energy, ac_energy)


def _layers(layer: Any, params: Any, x: np.ndarray, path: tuple[int | str, ...]) -> Iterator[LayerSummary]:
    """Run a layer on a batch, and count it and those inside it."""
    state, output = jax.device_get(jax.vmap(partial(simulate, layer, params))(jnp.asarray(x)))
    yield from _inside(layer, params, x, state, output, path)


def _inside(
    layer: Any, params: Any, x: np.ndarray, state: Any, output: Any, path: tuple[int | str, ...]
) -> Iterator[LayerSummary]:
    if isinstance(layer, Feedback):
        yield _counted(layer, params.neuron, x, (state.neuron, state.spikes), output, path)
        late = _late(output.spikes, np.zeros_like(output.spikes[0, 0]))
        yield from _layers(layer.path, params.path, late, (*path, "path"))
    elif isinstance(layer, Sequential | Graph):
        states, kept = (state.layers, state.before) if isinstance(layer, Graph) else (state, {})
        start: Any = jax.jit(layer.init_state)(params, jnp.asarray(x[0, 0])) if kept else None
        passed: Any = {INPUT: x} | {i: np.asarray(signal(y)) for i, y in enumerate(output.layers)}
        for i, inner in enumerate(layer.layers):
            arriving = [passed[a] for a, b in layer.edges if b == i]
            arriving += [_late(passed[a], start.before[a]) for a, b in layer.feedback if b == i]
            *rows, last = _inside(inner, params[i], sum(arriving), states[i], output.layers[i], (*path, i))
            yield from (*rows, last._replace(state_bytes=last.state_bytes + _bytes(kept.get(i)) // len(x)))
    else:
        yield _counted(layer, params, x, state, output, path)


def _late(passed: np.ndarray, first: Any) -> np.ndarray:
    """Return signals [B, T, ...] one step later."""
    return np.concatenate([np.broadcast_to(first, passed[:, :1].shape), passed[:, :-1]], axis=1)


def _counted(
    layer: Any, params: Any, x: np.ndarray, state: Any, output: Any, path: tuple[int | str, ...]
) -> LayerSummary:
    shape, name = np.shape(signal(output))[2:], layer_name(layer, path)
    kind = layer.neuron if isinstance(layer, Feedback) else layer
    if not isinstance(kind, _PROJECTIONS + _WITHOUT) and not _are_neurons(params, output, shape):
        raise ValueError(f"{name}: summary does not know which synaptic operations such a layer has")
    floating = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    return LayerSummary(
        name=name,
        shape=shape,
        parameters=sum(map(np.size, floating)),
        parameter_bytes=_bytes(params),
        state_bytes=_bytes(state) // len(x),
        spikes=float(np.mean(output.spikes != 0)) if isinstance(output, HasSpikes) else np.nan,
        **(_operations(layer, params, x) if isinstance(layer, _PROJECTIONS) else _NONE),
    )


def _operations(layer: Any, params: Any, x: np.ndarray) -> dict[str, Any]:
    """Count the synapses of a projection, and a sample's operations under the inputs [B, T, ...]."""
    weight, there = np.asarray(params.weight), np.ones(np.shape(params.weight), bool)
    places = weight.size
    if isinstance(layer, Sparse):
        there, places = np.asarray(params.target) < layer.num_out, len(weight) * layer.num_out
    reached = _reached(layer, there & (weight != 0.0), x.shape[2:])
    dense = places if isinstance(layer, Sparse) else _reached(layer, there, x.shape[2:]).sum()
    effective = np.mean((x != 0).reshape(*x.shape[:2], -1) @ reached.ravel(), axis=0)
    binary = ((x == 0) | (abs(x) == 1)).all(axis=(0, *range(2, x.ndim)))
    operations = {"macs": effective[~binary].sum(), "acs": effective[binary].sum(), "dense": dense * x.shape[1]}
    connected = int(np.count_nonzero(there & (weight != 0.0)))
    return {"synapses": places, "connected": connected} | {name: float(n) for name, n in operations.items()}


def _reached(layer: Any, there: Any, shape: tuple[int, ...]) -> Any:
    """Return how many of the synapses that are there each input has."""
    if not isinstance(layer, Conv):
        return np.sum(there, axis=1, dtype=float)
    ones = DenseParams(weight=jnp.asarray(there, float))
    # The gradient of all outputs: a place near the edge has fewer.
    total = jax.jit(jax.grad(lambda x: layer.apply(ones, x).sum()))
    return np.asarray(total(jnp.zeros(shape)), float)


def _are_neurons(params: Any, output: Any, shape: tuple[int, ...]) -> bool:
    """Say whether a layer shows spikes or a voltage, and its parameters are numbers or one for each neuron."""
    sizes = [np.shape(leaf)[::-1] for leaf in jax.tree.leaves(params)]
    fits = (len(n) <= len(shape) and all(a in (1, b) for a, b in zip(n, shape[::-1], strict=False)) for n in sizes)
    return signal(output) is not output and all(fits)


def _bytes(tree: Any) -> int:
    """Return the bytes of all numbers of a pytree, Python's as JAX would store them; random keys are none."""
    kinds = [(np.size(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)]
    return sum(n * kind.itemsize for n, kind in kinds if not jnp.issubdtype(kind, jax.dtypes.prng_key))


def _cells(layer: LayerSummary) -> tuple[str, ...]:
    """Return a layer as a row of the table."""
    spikes = "" if np.isnan(layer.spikes) else f"{layer.spikes:.4f}"
    sizes = str(layer.parameters), str(layer.state_bytes), spikes
    operations = (f"{n:g}" if layer.synapses else "" for n in (layer.dense, layer.macs, layer.acs))
    return layer.name.removeprefix("layer "), "x".join(map(str, layer.shape)), *sizes, *operations
