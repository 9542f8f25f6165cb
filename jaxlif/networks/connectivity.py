"""Sparse connections, whose memory and work grow with the number of synapses, and neurons that feed back through them.

A projection is stored by source: row i lists the targets of input i. Forwards only the rows of inputs that are not 0
are touched, so that a large network costs what its spikes cost.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlif.networks.layers import _require_inputs, _require_sizes, signal
from jaxlif.neurons.cell import Cell, state_dtype
from jaxlif.neurons.checks import check_cell, concrete, require, require_finite
from jaxlif.neurons.escape import Noisy
from jaxlif.synapses import Drive, Synaptic, VoltageJump

_ROWS = 16  # sources a turn: enough to hide what a turn of the loop costs, few beside the spikes of a large network


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SparseParams:
    """Parameters of a sparse projection.

    Args:
        weight: [num_in, K], row i the weights of the synapses of input i, current per unit of input.
        target: [num_in, K] int32, where they end; num_out marks a place without a synapse, whose weight is unused.

    Example:
        >>> SparseParams(weight=jnp.ones((2, 1)), target=jnp.array([[1], [0]])).weight.shape
        (2, 1)
    """

    weight: Array
    target: Array

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        if jnp.shape(self.weight) != jnp.shape(self.target):
            found = f"weight {list(jnp.shape(self.weight))}, target {list(jnp.shape(self.target))}"
            raise ValueError(f"{found}: both must be [num_in, K]")
        require_finite("weight", self.weight, "")
        if concrete(self.target):
            require(np.asarray(self.target) >= 0, "target", self.target, "", "target must be 0 or more")


@dataclass(frozen=True)
class Sparse:
    r"""A sparse projection without memory: :math:`y_j = \sum_i \sum_{k: j_{ik} = j} w_{ik} x_i`.

    The same as :class:`Dense` with zeros, gradient included, up to the order of the sums. Several synapses between the
    same two add up. On a CPU a loop takes the rows of inputs that are not 0; elsewhere all rows are summed at once.

    Args:
        num_out: number of outputs.

    Raises:
        ValueError: for no output.

    Example:
        >>> params = SparseParams(weight=jnp.array([[2.0, 3.0], [5.0, 0.0]]), target=jnp.array([[0, 2], [2, 3]]))
        >>> Sparse(3).step(params, (), jnp.array([1.0, 1.0]))[1].tolist()
        [2.0, 0.0, 8.0]
    """

    num_out: int

    def __post_init__(self) -> None:
        _require_sizes(num_out=self.num_out)

    def check(self, params: SparseParams) -> None:
        """Raise ValueError where a concrete target is beyond num_out."""
        if concrete(params.target):
            rule = f"target must be below num_out = {self.num_out}, which marks no synapse"
            require(np.asarray(params.target) <= self.num_out, "target", params.target, "", rule)

    def init_state(self, params: SparseParams, x: Array) -> tuple[()]:
        """Return nothing: a projection remembers nothing."""
        return ()

    def step(self, params: SparseParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """Project ``x`` [num_in] to [num_out]; spikes of any dtype are cast to the weight's."""
        _require_inputs(params.weight[:, 0], x)
        weight = jnp.asarray(params.weight)
        x, target = jnp.asarray(x, weight.dtype), jnp.asarray(params.target)
        return (), _project_p.bind(weight, x, target, num_out=self.num_out)


def _all_rows(weight: Array, x: Array, target: Array, *, num_out: int) -> Array:
    """Add up all synapses where they end; a target of num_out falls off."""
    return jnp.zeros((num_out,), weight.dtype).at[target].add(weight * x[:, None], mode="drop")


def _active_rows(weight: Array, x: Array, target: Array, *, num_out: int) -> Array:
    """Add up the rows of the inputs that are not 0, some at a time."""
    num_in = x.shape[0]
    rows = min(_ROWS, num_in)
    # Whole turns: the last one is filled up with num_in, a row that is not there.
    turns = -(-num_in // rows)
    (active,) = jnp.nonzero(x, size=turns * rows, fill_value=num_in)
    used = -(-jnp.count_nonzero(x) // rows)

    def add(turn, y):
        row = jax.lax.dynamic_slice_in_dim(active, turn * rows, rows)
        w, s = (jnp.take(a, row, axis=0, mode="fill", fill_value=0) for a in (weight, x))
        ends = jnp.take(target, row, axis=0, mode="fill", fill_value=num_out)
        return y.at[ends].add(w * s[:, None], mode="drop")

    return jax.lax.fori_loop(0, used, add, jnp.zeros((num_out,), weight.dtype))


# A primitive, not a custom_jvp: where JAX differentiates a scan twice it drops such a rule, and the derivative of the
# loop itself would miss the inputs that are 0.
_project_p = Primitive("sparse_projection")
_project_p.def_impl(jax.jit(_project_p.bind, static_argnames="num_out"))
_project_p.def_abstract_eval(lambda weight, x, target, *, num_out: jax.core.ShapedArray((num_out,), weight.dtype))
mlir.register_lowering(_project_p, mlir.lower_fun(_all_rows, multiple_results=False))
mlir.register_lowering(_project_p, mlir.lower_fun(_active_rows, multiple_results=False), platform="cpu")


def _project_jvp(primals, tangents, *, num_out):
    """The product rule over all synapses: an input of 0 has a derivative too."""
    (weight, x, target), (weight_dot, x_dot, _) = primals, tangents
    pairs = ((weight_dot, x), (weight, x_dot))
    terms = [_all_rows(w, s, target, num_out=num_out) for w, s in pairs if ad.Zero not in (type(w), type(s))]
    return _project_p.bind(*primals, num_out=num_out), sum(terms[1:], terms[0])


def _project_batch(arguments, axes, *, num_out):
    """One after the other where the rows of each are few, all together elsewhere."""
    moved = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arguments, axes, strict=True)]
    where = tuple(None if d is None else 0 for d in axes)
    batched = [a for a, d in zip(moved, where, strict=True) if d is not None]

    def one(batched):
        rest = iter(batched)
        return _project_p.bind(
            *(a if d is None else next(rest) for a, d in zip(moved, where, strict=True)), num_out=num_out
        )

    def together(*moved):
        return jax.vmap(partial(_all_rows, num_out=num_out), where)(*moved)

    return jax.lax.platform_dependent(*moved, cpu=lambda *_: jax.lax.map(one, batched), default=together), 0


ad.primitive_jvps[_project_p] = _project_jvp
batching.primitive_batchers[_project_p] = _project_batch


def to_dense(params: SparseParams, num_out: int) -> Array:
    """Return the weight [num_in, num_out] of a :class:`Dense` that computes the same.

    Args:
        params: the sparse projection.
        num_out: number of outputs.

    Example:
        >>> to_dense(SparseParams(weight=jnp.array([[2.0, 3.0]]), target=jnp.array([[0, 2]])), 3).tolist()
        [[2.0, 0.0, 3.0]]
    """
    rows = jnp.arange(params.weight.shape[0])[:, None]
    return jnp.zeros((params.weight.shape[0], num_out), params.weight.dtype).at[rows, params.target].add(params.weight)


def from_dense(weight: Array) -> SparseParams:
    """Return the synapses of a weight [num_in, num_out]: its entries that are not 0.

    Args:
        weight: [num_in, num_out].

    Raises:
        ValueError: for a weight that is no matrix.

    Example:
        >>> from_dense(jnp.array([[0.0, 2.0], [3.0, 4.0]])).target.tolist()
        [[1, 2], [0, 1]]
    """
    if jnp.ndim(weight) != 2:
        raise ValueError(f"weight {list(jnp.shape(weight))}: weight must be a matrix [num_in, num_out]")
    padded = np.pad(np.asarray(weight), ((0, 0), (0, 1)))
    target = _rows([np.flatnonzero(row) for row in padded], padded.shape[1] - 1)
    return SparseParams(weight=jnp.asarray(np.take_along_axis(padded, target, axis=1)), target=jnp.asarray(target))


def fixed_in_degree(
    key: Array, num_in: int, num_out: int, in_degree: int, *, self_connections: bool = True
) -> np.ndarray:
    r"""Give every output the same number of inputs, all different, drawn evenly.

    Args:
        key: random key.
        num_in: number of inputs.
        num_out: number of outputs.
        in_degree: inputs of each output.
        self_connections: whether input i may reach output i; False for neurons that do not excite themselves.

    Returns:
        Targets [num_in, K] as :class:`SparseParams` takes them; K is the largest number that any input reaches.

    Raises:
        ValueError: for a size below 1, or more inputs than there are.

    Example:
        >>> target = fixed_in_degree(jax.random.key(0), 100, 50, 10)
        >>> np.bincount(target[target < 50]).tolist() == [10] * 50
        True

    Source: Brunel 2000, doi:10.1023/A:1008925309027 (networks with a fixed in-degree).
    """
    _require_sizes(num_in=num_in, num_out=num_out, in_degree=in_degree)
    most = num_in - (not self_connections)
    if in_degree > most:
        raise ValueError(f"in_degree = {in_degree}: in_degree must not exceed the {most} inputs that there are")
    rng = _generator(key)
    sources = np.stack([_draw(rng, num_in, in_degree, None if self_connections else j) for j in range(num_out)])
    order = np.argsort(sources.ravel(), kind="stable")  # by source, and of each the targets in order
    target = np.repeat(np.arange(num_out), in_degree)[order]
    cuts = np.cumsum(np.bincount(sources.ravel(), minlength=num_in))[:-1]
    return _rows(np.split(target, cuts), num_out)


def pairwise(key: Array, num_in: int, num_out: int, probability: float, *, self_connections: bool = True) -> np.ndarray:
    r"""Connect every input with every output with the same probability, each pair on its own.

    Args:
        key: random key.
        num_in: number of inputs.
        num_out: number of outputs.
        probability: of a synapse, above 0 and up to 1.
        self_connections: whether input i may reach output i.

    Returns:
        Targets [num_in, K] as :class:`SparseParams` takes them; K is the largest number that any input reaches.

    Raises:
        ValueError: for a size below 1, or another probability.

    Example:
        >>> target = pairwise(jax.random.key(0), 100, 200, 0.1)
        >>> abs(int((target < 200).sum()) - 2000) < 4 * 2000**0.5
        True

    Source: Erdős & Rényi 1959; Vogels & Abbott 2005, doi:10.1523/JNEUROSCI.3508-05.2005.
    """
    _require_sizes(num_in=num_in, num_out=num_out)
    if not 0.0 < probability <= 1.0:
        raise ValueError(f"probability = {probability:g}: probability must be above 0 and at most 1")
    rng = _generator(key)
    # A binomial number of targets, drawn evenly, is the same as one draw for each pair.
    most = [num_out - (not self_connections and i < num_out) for i in range(num_in)]
    return _rows(
        [
            np.sort(_draw(rng, num_out, rng.binomial(n, probability), i if n < num_out else None))
            for i, n in enumerate(most)
        ],
        num_out,
    )


def connect(target: np.ndarray, num_out: int, weight: Array | float = 1.0) -> SparseParams:
    """Give the synapses of :func:`fixed_in_degree` or :func:`pairwise` their weights.

    Args:
        target: [num_in, K].
        num_out: number of outputs.
        weight: one for all, or one for each input, [num_in]: a neuron excites or inhibits all that it reaches.

    Returns:
        Parameters of a :class:`Sparse` in JAX's default precision.

    Raises:
        ValueError: for another shape of the weight.

    Example:
        >>> connect(np.array([[0, 1], [1, 2]]), 2, jnp.array([1.0, -4.0])).weight.tolist()
        [[1.0, 1.0], [-4.0, 0.0]]
    """
    weight = jnp.asarray(weight, float)
    if weight.shape not in ((), target.shape[:1]):
        raise ValueError(
            f"weight {list(weight.shape)}: weight must be one number or one for each of {len(target)} inputs"
        )
    weight = jnp.broadcast_to(weight[..., None], target.shape) if weight.ndim else jnp.full(target.shape, weight)
    return _without_padding(weight, target, num_out)


def init_sparse(key: Array, target: np.ndarray, num_out: int, *, gain: float = 1.0) -> SparseParams:
    r"""Draw the weights of given synapses, :math:`w \sim N(0, g^2 / \bar k)`, with the mean in-degree :math:`\bar k`.

    As with :func:`init_dense`, independent inputs of mean square q give a current of variance :math:`g^2 q`.

    Args:
        key: random key.
        target: [num_in, K], of :func:`fixed_in_degree` or :func:`pairwise`.
        num_out: number of outputs.
        gain: :math:`g`, in units of the rheobase.

    Returns:
        Parameters of a :class:`Sparse` in JAX's default precision.

    Raises:
        ValueError: for no synapse at all.

    Example:
        >>> target = fixed_in_degree(jax.random.key(0), 1000, 1000, 25)
        >>> params = init_sparse(jax.random.key(1), target, 1000, gain=2.0)
        >>> round(float(params.weight[params.target < 1000].std() * 5.0), 1)
        2.0
    """
    synapses = int((np.asarray(target) < num_out).sum())
    if synapses == 0:
        raise ValueError("target has no synapse: at least one is needed")
    scale = gain / math.sqrt(synapses / num_out)
    return _without_padding(scale * jax.random.normal(key, target.shape), target, num_out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """Parameters of neurons that feed back.

    Args:
        neuron: the neuron's own parameters.
        path: those of the way from spikes to input.
    """

    neuron: Any
    path: Any


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: Any
    path: Any
    spikes: Array


@dataclass(frozen=True)
class Feedback:
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Sparse(...)))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or the
            :class:`Noisy` input of :class:`EscapeNoise`.
        path: a cell that takes the spikes [N]; its :func:`signal` is added to the input. An input of fewer numbers,
            such as [1], is broadcast to it.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import init_neurons
        >>> target = fixed_in_degree(jax.random.key(0), 50, 50, 5)
        >>> params = FeedbackParams(neuron=init_neurons(50), path=init_sparse(jax.random.key(1), target, 50))
        >>> jl.simulate(Feedback(jl.LIF(dt=1.0), Sparse(50)), params, jnp.full((100, 1), 1.5))[1].spikes.shape
        (100, 50)
    """

    neuron: Cell
    path: Cell

    def check(self, params: FeedbackParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        check_cell(self.neuron, params.neuron)
        check_cell(self.path, params.path)

    def init_state(self, params: FeedbackParams, x: Array) -> FeedbackState:
        """Return fresh neurons, none of which has spiked; their number is that of the input or of their parameters."""
        x = jax.tree.map(lambda x: jnp.asarray(x, state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        spikes = jnp.zeros_like(self.neuron.step(params.neuron, neuron, x)[1].spikes)
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: FeedbackParams, state: FeedbackState, x: Array) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output


@dataclass(frozen=True)
class Arriving:
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron; put a constant current into its ``v_rest``.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Raises:
        ValueError: for no kind; while simulating, for an input that the kinds do not divide.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, Sequential, init_dense
        >>> neuron = jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> network = Sequential((Dense(), Arriving(neuron)))
        >>> _, output = jl.simulate(network, (init_dense(jax.random.key(0), 4, 3), params), jnp.ones((20, 4)))
        >>> output.output.spikes.shape
        (20, 3)
    """

    neuron: Synaptic
    kinds: int = 1

    def __post_init__(self) -> None:
        _require_sizes(kinds=self.kinds)

    def check(self, params: Any) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def init_state(self, params: Any, x: Array) -> Any:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))

    def _drive(self, x: Array) -> Drive:
        x = jnp.asarray(x, state_dtype(x))
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    return jnp.asarray(x, arriving.dtype) + arriving


def _without_padding(weight: Array, target: np.ndarray, num_out: int) -> SparseParams:
    """Set the weights of places without a synapse to 0."""
    ends = jnp.asarray(target, jnp.int32)
    return SparseParams(weight=jnp.where(ends < num_out, weight, 0.0), target=ends)


def _generator(key: Array) -> np.random.Generator:
    """Return NumPy's generator, seeded by a key: the shapes depend on what is drawn, which JAX does not trace."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


def _draw(rng: np.random.Generator, among: int, number: int, but: int | None) -> np.ndarray:
    """Draw different integers below ``among``, all but one."""
    if but is None:
        return rng.choice(among, number, replace=False, shuffle=False)
    drawn = rng.choice(among - 1, number, replace=False, shuffle=False)
    return drawn + (drawn >= but)


def _rows(rows: list[np.ndarray], num_out: int) -> np.ndarray:
    """Fill rows of different lengths up with num_out."""
    target = np.full((len(rows), max(1, *map(len, rows))), num_out, np.int32)
    for i, row in enumerate(rows):
        target[i, : len(row)] = row
    return target
