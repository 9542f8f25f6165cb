"""Loops over time that write where they read.

A scan makes a new array for what comes out of it and fills it with zeros first: on a CPU that takes longer than what a
neuron computes. Here what comes out of a step takes the place of what went in, under any ``vmap``: time stays first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_CACHED = 2**15  # numbers of each array that a sum over time takes at once


def overwrite(step: Callable[..., Any], fixed: Any, carry: Any, series: Any) -> tuple[Any, Any]:
    """Scan ``step(fixed, carry, x) -> (carry, y)`` over arrays [T, ...], y in the form of x. It has no derivative."""
    leaves, form = jax.tree.flatten((fixed, carry, series))

    def _flat(*leaves: Array) -> list[Array]:
        return jax.tree.leaves(step(*jax.tree.unflatten(form, leaves)))

    after = _OVERWRITE.bind(*leaves, step=_flat, sizes=_sizes(fixed, carry, series))
    return jax.tree.unflatten(jax.tree.structure((carry, series)), after)  # type: ignore[no-any-return]


def recurrence(step: Callable[..., Any], fixed: Any, first: Any, series: Any, drive: Array, moving: Any) -> Array:
    r"""Solve :math:`y_n = E_n y_{n-1} + P_n p + b_n` from :math:`y_{-1} = 0`, for p ``moving`` and b ``drive``.

    ``step(fixed, before, now, y, p)`` is :math:`E y + P p`, where ``before`` and ``now`` are neighbours in ``series``
    [T, ...] behind ``first``. It can be transposed in b [T, ...] and p, in which it is linear.
    """
    leaves, form = jax.tree.flatten((fixed, first, first, drive[0], moving))

    def _flat(*leaves: Array) -> Array:
        return step(*jax.tree.unflatten(form, leaves))  # type: ignore[no-any-return]

    rest, sizes = jax.tree.leaves((moving, fixed, first, series)), _sizes(moving, fixed, series)
    [y] = _RECURRENCE.bind(drive, *rest, step=_flat, sizes=sizes, reverse=False)
    return y  # type: ignore[no-any-return]


def placed(tree: Any, *, timed: bool = False) -> Any:
    """Put the axis of a batch in front, or behind time: a rule for tangents must have it where its function has it."""
    return jax.tree.map(lambda x: x if x.dtype == jax.dtypes.float0 else _PLACED.bind(x, timed=timed)[0], tree)


def _sizes(*trees: Any) -> tuple[int, ...]:
    return tuple(len(jax.tree.leaves(tree)) for tree in trees)


def _split(leaves: Sequence[Any], *sizes: int) -> list[list[Any]]:
    ends = np.cumsum(sizes)
    return [list(leaves[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def _parts(leaves: Sequence[Any], sizes: Any) -> list[list[Any]]:
    """Return what a recurrence is given: drive, moving, fixed, first, series."""
    moving, fixed, series = sizes
    return _split(leaves, 1, moving, fixed, series, series)


# --- the loops ---


def _over(steps: int, body: Callable[..., Any], state: Any) -> Any:
    """Run ``body(n, state)`` for n = 0 .. steps - 1; of an unsigned index the sign need not be looked at."""

    def _turn(turn: tuple[Array, Any]) -> tuple[Array, Any]:
        return turn[0] + np.uint32(1), body(*turn)

    return jax.lax.while_loop(lambda turn: turn[0] < np.uint32(steps), _turn, (jnp.uint32(0), state))[1]


def _at(arrays: Sequence[Array], n: Any) -> list[Any]:
    return [jax.lax.dynamic_index_in_dim(x, n, keepdims=False) for x in arrays]


def _put(x: Array, y: Array, n: Any) -> Array:
    x = jax.lax.dynamic_update_index_in_dim(x, y, n, 0)
    return x


def _overwritten(*leaves: Array, step: Any, sizes: Any) -> list[Array]:
    fixed, carry, series = _split(leaves, *sizes)

    def _body(n: Any, state: Any) -> Any:
        carry, series = state
        carry, after = _split(step(*fixed, *carry, *_at(series, n)), *sizes[1:])
        return carry, [_put(x, y, n) for x, y in zip(series, after, strict=True)]

    carry, series = _over(len(series[0]), _body, (carry, series))
    return [*carry, *series]


def _solved(*leaves: Array, reverse: bool, **options: Any) -> list[Array]:
    return (_backwards if reverse else _forwards)(*leaves, **options)


def _forwards(*leaves: Array, step: Any, sizes: Any) -> list[Array]:
    [drive], moving, fixed, first, series = _parts(leaves, sizes)

    def _body(n: Any, state: Any) -> Any:
        y, before, drive = state
        now = _at(series, n)
        y = step(*fixed, *before, *now, y, *moving) + _at([drive], n)[0]
        return y, now, _put(drive, y, n)

    return [_over(len(drive), _body, (jnp.zeros_like(drive[0]), first, drive))[2]]


def _backwards(*leaves: Array, step: Any, sizes: Any) -> list[Array]:
    [drive], moving, fixed, _, series = _parts(leaves, sizes)
    still = [jnp.zeros_like(p) for p in moving]

    def _body(i: Any, state: Any) -> Any:
        y, now, drive = state
        n = np.uint32(max(len(drive), 2) - 2) - i
        before = _at(series, n)
        back: Any = jax.linear_transpose(lambda y: step(*fixed, *before, *now, y, *still), y)
        y = back(y)[0] + _at([drive], n)[0]
        return y, before, _put(drive, y, n)

    end = drive[-1], [x[-1] for x in series], drive
    y = _over(len(drive) - 1, _body, end)[2]
    return [y, *_gathered(leaves, y, step, sizes)]


def _gathered(leaves: Sequence[Array], y: Array, step: Any, sizes: Any) -> list[Array]:
    """Return the sum of the transposed P_n y_n, over blocks of time that stay in the cache."""
    _, moving, fixed, first, series = _parts(leaves, sizes)

    def _sum(before: Any, now: Any, y: Array) -> list[Array]:
        def _each(*moving: Array) -> Array:
            still = jnp.zeros_like(y[0])
            each: Any = jax.vmap(lambda before, now: step(*fixed, *before, *now, still, *moving))
            return each(before, now)  # type: ignore[no-any-return]

        back: Any = jax.linear_transpose(_each, *moving) if moving else lambda _: ()
        return list(back(y))

    def _block(n: Any, size: int) -> list[Array]:
        def _rows(x: Array, n: Any) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, n, size)

        after = n + np.uint32(1)
        return _sum([_rows(x, n) for x in series], [_rows(x, after) for x in series], _rows(y, after))

    def _add(sums: list[Array], more: list[Array]) -> list[Array]:
        return [a + b for a, b in zip(sums, more, strict=True)]

    size = max(1, min(_CACHED // max(1, y[0].size), len(y) - 1))
    blocks, rest = divmod(len(y) - 1, size)
    sums = _sum([x[None] for x in first], [x[:1] for x in series], y[:1])
    sums = _over(blocks, lambda i, sums: _add(sums, _block(i * np.uint32(size), size)), sums) if moving else sums
    return _add(sums, _block(np.uint32(blocks * size), rest)) if rest and moving else sums


# --- what JAX asks of a primitive ---


def _batched(leaves: Any, dims: Any, kinds: Any) -> tuple[list[Array], list[int | None]]:
    """Move the axis of a batch to the front, or behind time, as ``kinds`` say; add it where there must be one."""
    size = next(x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None)
    moved = []
    for x, d, (place, must) in zip(leaves, dims, kinds, strict=True):
        if d is not None:
            x = jnp.moveaxis(x, d, place)
        elif must:
            x = jnp.repeat(jnp.expand_dims(x, place), size, axis=place)
        moved.append(x)
    return moved, [0 if d is not None or must else None for d, (_, must) in zip(dims, kinds, strict=True)]


def _batch_overwrite(leaves: Any, dims: Any, *, step: Any, sizes: Any) -> tuple[Any, Any]:
    fixed, carry, series = sizes
    leaves, axes = _batched(leaves, dims, [(0, False)] * fixed + [(0, True)] * carry + [(1, True)] * series)
    after = _OVERWRITE.bind(*leaves, step=jax.vmap(step, axes), sizes=sizes)
    return after, [0] * carry + [1] * series


def _batch_recurrence(leaves: Any, dims: Any, *, step: Any, sizes: Any, **options: Any) -> tuple[Any, Any]:
    _, moving, fixed, first, series = _parts(dims, sizes)
    # What is before the first step and what is before another must have the same axes.
    must = [pair != (None, None) for pair in zip(first, series, strict=True)]
    kinds = [(1, True)] + [(0, True)] * len(moving) + [(0, False)] * len(fixed)
    leaves, axes = _batched(leaves, dims, kinds + [(0, m) for m in must] + [(1, m) for m in must])
    _, p, rest, before, now = _parts(axes, sizes)
    step = jax.vmap(step, (*rest, *before, *now, 0, *p))
    return _RECURRENCE.bind(*leaves, step=step, sizes=sizes, **options), [1] + [0] * len(moving) * options["reverse"]


def _dense(step: Any, sizes: Any, still: Sequence[Array], y: Array, moving: Sequence[Array]) -> Array:
    """Return all E_n y_{n-1} + P_n p at once."""
    fixed, first, series = _split(still, sizes[1], sizes[2], sizes[2])

    def _late(first: Array, x: Array) -> Array:
        return jnp.concatenate([first[None], x[:-1]])

    before = [_late(a, x) for a, x in zip(first, series, strict=True)]
    each: Any = jax.vmap(lambda before, now, y: step(*fixed, *before, *now, y, *moving))
    return each(before, series, _late(jnp.zeros_like(y[0]), y))  # type: ignore[no-any-return]


def _tangent_recurrence(primals: Any, tangents: Any, *, step: Any, sizes: Any, reverse: bool, **options: Any) -> Any:
    options |= {"step": step, "sizes": sizes, "reverse": reverse}
    count = 1 + sizes[0]
    moving, still = primals[1:count], primals[count:]
    outputs = _RECURRENCE.bind(*primals, **options)
    y = outputs[0]

    def _around(*still: Array) -> list[Array]:
        """Return what of y, or of the sums, depends on what the loop only reads, with y itself kept."""
        if not reverse:
            return [_dense(step, sizes, still, y, moving)]
        linear: Any = jax.linear_transpose(lambda y, *moving: _dense(step, sizes, still, y, moving), y, *moving)
        return list(linear(y))

    drive, *moved = [ad.instantiate_zeros(t) for t in tangents[:count]]
    if all(type(t) is ad.Zero for t in tangents[count:]):
        return outputs, _RECURRENCE.bind(drive, *moved, *still, **options)
    extra, *more = jax.jvp(_around, tuple(still), tuple(ad.instantiate_zeros(t) for t in tangents[count:]))[1]
    after, *sums = _RECURRENCE.bind(drive + extra, *moved, *still, **options)
    return outputs, [after, *(a + b for a, b in zip(sums, more, strict=True))]


def _transpose_recurrence(cotangents: Any, *primals: Any, sizes: Any, reverse: bool, **options: Any) -> list[Any]:
    count = 1 + sizes[0]
    linear, still = primals[:count], primals[count:]
    given = [ad.instantiate_zeros(ct) for ct in cotangents]
    if not reverse:
        shapes = [x.aval if ad.is_undefined_primal(x) else x for x in linear[1:]]
        given += [jnp.zeros(x.shape, x.dtype) for x in shapes]
    back = _RECURRENCE.bind(*given, *still, sizes=sizes, reverse=not reverse, **options)
    back = [*back, *[None] * (count - len(back))]
    return [b if ad.is_undefined_primal(x) else None for b, x in zip(back, linear, strict=True)] + [None] * len(still)


def _primitive(name: str, run: Any, batch: Any, shapes: Callable[..., slice]) -> Primitive:
    made = Primitive(name)
    made.multiple_results = True
    made.def_impl(run)
    made.def_abstract_eval(lambda *avals, sizes=(), **options: list(avals[shapes(sizes, **options)]))
    mlir.register_lowering(made, mlir.lower_fun(run, multiple_results=True))
    batching.primitive_batchers[made] = batch
    return made


def _batch_placed(arrays: Any, dims: Any, *, timed: bool) -> tuple[list[Array], list[int]]:
    return _PLACED.bind(jnp.moveaxis(arrays[0], dims[0], int(timed)), timed=timed), [int(timed)]


_PLACED: Any = _primitive("placed", lambda x, **_: [x], _batch_placed, lambda *_, **__: slice(0, 1))
ad.deflinear2(_PLACED, lambda cotangents, _, **__: cotangents)
_OVERWRITE = _primitive("overwrite", _overwritten, _batch_overwrite, lambda sizes, **_: slice(sizes[0], None))
_RECURRENCE = _primitive(
    "recurrence", _solved, _batch_recurrence, lambda sizes, reverse, **_: slice(0, 1 + sizes[0] * reverse)
)
ad.primitive_jvps[_RECURRENCE] = _tangent_recurrence
ad.primitive_transposes[_RECURRENCE] = _transpose_recurrence
