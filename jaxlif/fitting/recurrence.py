"""Linear recurrences over a long time axis, computed in blocks side by side, with one stored array for the gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def to_lanes(x: np.ndarray, length: int, fill: float = 0.0) -> np.ndarray:
    """Cut time into blocks that lie side by side: [S, T] becomes [length, blocks * S], the rest filled up.

    Example:
        >>> to_lanes(np.arange(5.0)[None], 2).tolist()
        [[0.0, 2.0, 4.0], [1.0, 3.0, 0.0]]
    """
    sweeps, steps = x.shape
    blocks = -(-steps // length)
    padded = np.pad(x, ((0, 0), (0, blocks * length - steps)), constant_values=fill)
    return np.ascontiguousarray(padded.reshape(sweeps, blocks, length).transpose(2, 1, 0).reshape(length, -1))


def from_lanes(y: Array | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Undo :func:`to_lanes` for an array of a shape [S, T]."""
    sweeps, steps = shape
    return np.asarray(y).reshape(len(y), -1, sweeps).transpose(2, 1, 0).reshape(sweeps, -1)[:, :steps]


@jax.custom_vjp
def recurrence(decay: Array, keep: Array | None, inputs: Array, start: Array) -> Array:
    r"""Solve :math:`y_n = d\, m_n\, y_{n-1} + u_n` in blocks.

    All blocks of all sweeps run side by side, twice: from 0, for what they leave to the next; and, after these ends
    have been chained, from where each begins. The gradient runs the same recurrence backwards and needs y alone.

    Args:
        decay: d, a scalar; it may come with a gradient.
        keep: m, [length, blocks * S], 0 or 1: 0 forgets; None for 1 everywhere. It has no gradient.
        inputs: u, [length, blocks * S].
        start: y before the first step, [S].

    Returns:
        y, [length, blocks * S].

    Example:
        >>> ones = jnp.ones((3, 2))
        >>> from_lanes(recurrence(jnp.asarray(0.5), None, ones, jnp.zeros(1)), (1, 4)).tolist()
        [[1.0, 1.5, 1.75, 1.875]]

    Source: Blelloch 1990, Prefix sums and their applications (blocked linear recurrences).
    """
    return _run(decay if keep is None else decay * keep, inputs, start)


def _run(decayed: Array, inputs: Array, start: Array, *, reverse: bool = False) -> Array:
    constant = not jnp.ndim(decayed)
    xs = inputs if constant else (decayed, inputs)

    def _step(y: Array, x: Any) -> tuple[Array, Array]:
        d, u = (decayed, x) if constant else x
        return (d * y + u,) * 2

    def _chain(before: Array, x: tuple[Array, ...]) -> tuple[Array, Array]:
        end, share = x
        return end + share * before, before

    nothing = jnp.zeros_like(inputs[0])
    ends = jax.lax.scan(lambda y, x: (_step(y, x)[0], None), nothing, xs, reverse=reverse)[0]
    shares = nothing + decayed ** len(inputs) if constant else jnp.prod(decayed, axis=0)
    by_block = (x.reshape(-1, *start.shape) for x in (ends, shares))
    begin = jax.lax.scan(_chain, start, tuple(by_block), reverse=reverse)[1].reshape(-1)
    return jax.lax.scan(_step, begin, xs, reverse=reverse)[1]


def _forward(decay: Array, keep: Array | None, inputs: Array, start: Array) -> tuple[Array, Any]:
    y = recurrence(decay, keep, inputs, start)
    return y, (decay, keep, y, start)


def _backward(residuals: Any, cotangent: Array) -> tuple[Array, None, Array, Array]:
    decay, keep, y, start = residuals
    # The adjoint G_n = g_n + d m_{n+1} G_{n+1} is the same recurrence backwards in time.
    decayed = decay if keep is None else decay * _later(keep, len(start))
    adjoint = _run(decayed, cotangent, jnp.zeros_like(start), reverse=True)
    kept = adjoint if keep is None else adjoint * keep
    before = jnp.concatenate([start, y[-1, : -len(start)]])
    slope = jnp.sum(kept[1:] * y[:-1]) + jnp.sum(kept[0] * before)
    return slope, None, adjoint, decay * kept[0, : len(start)]


def _later(keep: Array, sweeps: int) -> Array:
    """Return m_{n+1}; at a block's end it is the next block's first."""
    following = jnp.concatenate([keep[0, sweeps:], jnp.zeros_like(keep[0, :sweeps])])
    return jnp.concatenate([keep[1:], following[None]])


recurrence.defvjp(_forward, _backward)
