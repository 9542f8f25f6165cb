"""A sparse projection, whose memory and work grow with the number of synapses, and random connections for it.

It is stored by source: row i lists the targets of input i. Forwards only the rows of inputs that are not 0 are touched,
so that a large network costs what its spikes cost; :func:`deliver` is the door to how that is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key

from jaxlif.checks import concrete, floats, integers, numbers, random_key, require, whole
from jaxlif.files import require_memory
from jaxlif.networks.connectivity import SLAB, Ends, Rule, order_of
from jaxlif.networks.layers import require_input

_BLOCK = 64  # inputs that are searched at once for one that is not 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SparseParams:
    """Parameters of a sparse projection.

    Args:
        weight: [num_in, K], row i the weights of the synapses of input i, current per unit of input.
        target: [num_in, K] integers, where they end; num_out marks a place without a synapse, whose weight is unused.
    """

    weight: Float[Array | np.ndarray, "num_in K"]
    target: Int[Array | np.ndarray, "num_in K"]

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        if jnp.shape(self.weight) != jnp.shape(self.target):
            found = f"weight {list(jnp.shape(self.weight))}, target {list(jnp.shape(self.target))}"
            raise ValueError(f"{found}: both must be [num_in, K]")
        floats("weight", self.weight, (None, None), "[num_in, K]")
        integers("target", self.target)
        if concrete(self.target):
            require(np.asarray(self.target) >= 0, "target", self.target, "", "target must be 0 or more")


@dataclass(frozen=True)
class Sparse:
    r"""A sparse projection without memory: :math:`y_j = \sum_i \sum_{k: j_{ik} = j} w_{ik} x_i`.

    The same as :class:`Dense` with zeros, gradient included, up to the order of the sums. Several synapses between the
    same two add up. On a CPU a loop takes the rows of inputs that are not 0; elsewhere all rows are summed at once.

    Example:
        >>> params = SparseParams(weight=jnp.array([[2.0, 3.0], [5.0, 0.0]]), target=jnp.array([[0, 2], [2, 3]]))
        >>> Sparse(3).step(params, (), jnp.array([1.0, 1.0]))[1].tolist()
        [2.0, 0.0, 8.0]
    """

    num_out: int

    def __post_init__(self) -> None:
        whole("num_out", self.num_out, 1)

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
        weight, target = jnp.asarray(params.weight), jnp.asarray(params.target)
        require_input(weight, x)
        return (), deliver(jnp.zeros((self.num_out,), weight.dtype), weight, x, target)


def deliver(line: Array, weight: Array, x: Array, target: Array, offset: ArrayLike = 0) -> Array:
    r"""Add to a line [M] what arrives on it: :math:`y_j = l_j + \sum_i \sum_{k: j_{ik} + o = j} w_{ik} x_i`.

    Args:
        line: [M], in the dtype of the weight.
        weight: [num_in, K].
        x: [num_in], spikes or numbers.
        target: [num_in, K] integers; what ends at M or beyond is dropped.
        offset: o, added to all targets.

    Returns:
        [M]. The derivative with respect to line, weight and x is that of the sum over all rows.
    """
    x, offset = jnp.asarray(x, weight.dtype), jnp.asarray(offset, target.dtype)
    return jnp.asarray(_deliver_p.bind(line, weight, x, target, offset))


def _all_rows(line: Array, weight: Array, x: Array, target: Array, offset: Array) -> Array:
    """Add up all synapses where they end."""
    return line.at[target + offset].add(weight * x[:, None], mode="drop")


def _active_rows(line: Array, weight: Array, x: Array, target: Array, offset: Array) -> Array:
    """Add up the rows of inputs that are not 0: a block that has one is found, then each of them in it."""
    active = jnp.pad(x != 0.0, (0, -x.shape[0] % _BLOCK)).reshape(-1, _BLOCK)

    def _any(carry: tuple[Array, Array]) -> Array:
        return carry[0].any()

    def _block(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        blocks, line = carry
        block = jnp.argmax(blocks)

        def _row(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            left, line = carry
            i = jnp.argmax(left)
            row = block * _BLOCK + i
            return left.at[i].set(False), line.at[target[row] + offset].add(weight[row] * x[row], mode="drop")

        return blocks.at[block].set(False), jax.lax.while_loop(_any, _row, (active[block], line))[1]

    return jnp.asarray(jax.lax.while_loop(_any, _block, (active.any(axis=1), line))[1])


# A primitive, not a custom_jvp: where JAX differentiates a scan twice it drops such a rule, and the derivative of the
# loop itself would miss the inputs that are 0.
_deliver_p = Primitive("deliver")
_deliver_p.def_impl(jax.jit(_deliver_p.bind))
_deliver_p.def_abstract_eval(lambda line, *_: jax.core.ShapedArray(line.shape, line.dtype))
mlir.register_lowering(_deliver_p, mlir.lower_fun(_all_rows, multiple_results=False))
mlir.register_lowering(_deliver_p, mlir.lower_fun(_active_rows, multiple_results=False), platform="cpu")


def _deliver_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """The product rule over all synapses: an input of 0 has a derivative too."""
    (line, weight, x, target, offset), (line_dot, weight_dot, x_dot, *_) = primals, tangents
    moved = jnp.zeros_like(line) if type(line_dot) is ad.Zero else line_dot
    for w, s in ((weight_dot, x), (weight, x_dot)):
        moved = moved if ad.Zero in (type(w), type(s)) else _all_rows(moved, w, s, target, offset)
    return _deliver_p.bind(*primals), moved


def _deliver_batch(arguments: tuple[Array, ...], axes: tuple[int | None, ...]) -> tuple[Array, int]:
    """One after the other where the rows of each are few, all together elsewhere."""
    moved = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arguments, axes, strict=True)]
    where = tuple(None if d is None else 0 for d in axes)
    batched = [a for a, d in zip(moved, where, strict=True) if d is not None]

    def _one(batched: list[Array]) -> Any:
        rest = iter(batched)
        return _deliver_p.bind(*(a if d is None else next(rest) for a, d in zip(moved, where, strict=True)))

    def _together(*moved: Array) -> Array:
        return jax.vmap(_all_rows, where)(*moved)

    return jax.lax.platform_dependent(*moved, cpu=lambda *_: jax.lax.map(_one, batched), default=_together), 0


ad.primitive_jvps[_deliver_p] = _deliver_jvp
batching.primitive_batchers[_deliver_p] = _deliver_batch


# --- connections ------------------------------------------------------------------------------------------


def connect(
    key: Key[Array, ""], rule: Rule, num_in: int, num_out: int, weight: ArrayLike = 1.0, *, same: bool = False
) -> SparseParams:
    """Draw the synapses of a projection by a rule, and give them their weights.

    One for all, or one for each input, [num_in]: a neuron excites or inhibits all that it reaches. ``same`` says that
    inputs and outputs are the same neurons, so that none is connected with itself where the rule says so.

    Example:
        >>> from jaxlif.networks import Edges
        >>> connect(jax.random.key(0), Edges([0, 0, 1], [0, 1, 1]), 2, 2, jnp.array([1.0, -4.0])).weight.tolist()
        [[1.0, 1.0], [-4.0, 0.0]]
    """
    weight = jnp.asarray(numbers("weight", weight), float)
    if weight.shape not in ((), (num_in,)):
        raise ValueError(f"weight {list(weight.shape)}: weight must be one number, or one for each of {num_in} inputs")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(random_key(key))).ravel().tolist())
    ends = Ends(whole("num_in", num_in, 1), whole("num_out", num_out, 1), same)
    source, target = rule.draw(rng, ends)
    rows = rows_of([source], num_in)
    spread = jnp.broadcast_to(weight[:, None] if weight.ndim else weight, rows.shape)
    ends_at = np.append(target, num_out).astype(np.int32)[rows]
    return SparseParams(weight=jnp.where(ends_at < num_out, spread, 0.0), target=jnp.asarray(ends_at))


def rows_of(sources: Sequence[Int[np.ndarray, "E"]], num_in: int) -> Int[np.ndarray, "num_in K"]:
    """Return the numbers of the synapses of each input, filled up with E; K is the largest number that any has.

    They count through all of ``sources``, and stand in a row in this order.
    """
    counts, columns, number = [_counted(source, num_in) for source in sources], np.zeros(num_in, int), 0
    width, total = max(1, sum(counts, columns).max()), sum(map(len, sources))
    require_memory(16 * num_in * width, f"a table of {num_in} rows as long as the longest, {width} synapses,")
    rows = np.full((num_in, width), total, np.int32)
    for source, count in zip(sources, counts, strict=True):
        in_order = bool((source[1:] >= source[:-1]).all())
        order = np.arange(len(source), dtype=np.int32) if in_order else order_of(source, num_in)
        shift = columns - (np.cumsum(count) - count)
        for i in range(0, len(source), SLAB):
            own = order[i : i + SLAB]
            begin = source[own]
            rows[begin, shift[begin] + np.arange(i, i + len(own))] = own + np.int32(number)
        columns, number = columns + count, number + len(source)
    return rows


def _counted(source: np.ndarray, num_in: int) -> np.ndarray:
    parts = (np.bincount(source[i : i + SLAB], minlength=num_in) for i in range(0, len(source), SLAB))
    return sum(parts, np.zeros(num_in, int))
