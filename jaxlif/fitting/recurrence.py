"""Linear recurrences over a long time axis, computed in blocks side by side, with one stored array for the gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def to_blocks(x: np.ndarray, length: int, fill: float = 0.0) -> np.ndarray:
    """Cut time into blocks that lie side by side: [S, T] becomes [length, blocks, S], the rest filled up.

    Example:
        >>> to_blocks(np.arange(5.0)[None], 2)[:, :, 0].tolist()
        [[0.0, 2.0, 4.0], [1.0, 3.0, 0.0]]
    """
    sweeps, steps = x.shape
    blocks = -(-steps // length)
    padded = np.pad(x, ((0, 0), (0, blocks * length - steps)), constant_values=fill)
    return np.ascontiguousarray(padded.reshape(sweeps, blocks, length).transpose(2, 1, 0))


def from_blocks(y: np.ndarray, steps: int) -> np.ndarray:
    """Undo :func:`to_blocks`: [length, blocks, S] becomes [S, T]."""
    length, blocks, sweeps = y.shape
    return np.asarray(y).transpose(2, 1, 0).reshape(sweeps, blocks * length)[:, :steps]


@jax.custom_vjp
def recurrence(decay: Array, keep: Array | None, inputs: Array, start: Array) -> Array:
    r"""Solve :math:`y_n = d\, m_n\, y_{n-1} + u_n` in blocks.

    All blocks of all sweeps run side by side, twice: from 0, for what they leave to the next; and, after these ends
    have been chained, from where each begins. The gradient runs the same recurrence backwards and needs y alone.

    Args:
        decay: d, a scalar; it may come with a gradient.
        keep: m, [length, blocks, S], 0 or 1: 0 forgets; None for 1 everywhere. It has no gradient.
        inputs: u, [length, blocks, S].
        start: y before the first step, [S].

    Returns:
        y, [length, blocks, S].

    Example:
        >>> ones = jnp.ones((3, 2, 1))
        >>> from_blocks(np.asarray(recurrence(jnp.asarray(0.5), None, ones, jnp.zeros(1))), 4).tolist()
        [[1.0, 1.5, 1.75, 1.875]]

    Source: Blelloch 1990, Prefix sums and their applications (blocked linear recurrences).
    """
    return _solve(decay, keep, inputs, start)


def _solve(decay, keep, inputs, start):
    decayed = decay if keep is None else decay * keep.reshape(len(keep), -1)
    return _run(decayed, inputs.reshape(len(inputs), -1), start).reshape(inputs.shape)


def _run(decayed, inputs, start, *, reverse=False):
    """Run every block twice over lanes [length, blocks * S]: from 0 for what it leaves, then from where it begins."""
    step = _step if jnp.ndim(decayed) else partial(_constant_step, decayed)
    xs = (decayed, inputs) if jnp.ndim(decayed) else inputs
    ends, shares = _ends(decayed, inputs, step, xs, reverse)
    per_block = (-1, *start.shape)

    def chain(before, x):
        end, share = x
        return end + share * before, before

    blocks = ends.reshape(per_block), jnp.broadcast_to(shares, ends.shape).reshape(per_block)
    begin = jax.lax.scan(chain, start, blocks, reverse=reverse)[1].reshape(-1)
    return jax.lax.scan(lambda y, x: (step(y, x),) * 2, begin, xs, reverse=reverse)[1]


def _ends(decayed, inputs, step, xs, reverse):
    """Return what each block ends with from 0, and which share of its beginning survives it."""
    nothing = jnp.zeros_like(inputs[0])
    if not jnp.ndim(decayed):
        return jax.lax.scan(lambda y, x: (step(y, x), None), nothing, xs, reverse=reverse)[0], decayed ** len(inputs)

    def both(carry, x):
        y, share = carry
        return (step(y, x), x[0] * share), None

    return jax.lax.scan(both, (nothing, jnp.ones_like(nothing)), xs, reverse=reverse)[0]


def _step(y, x):
    decayed, u = x
    return decayed * y + u


def _constant_step(decay, y, u):
    return decay * y + u


def _forward(decay, keep, inputs, start):
    y = _solve(decay, keep, inputs, start)
    return y, (decay, keep, y, start)


def _backward(residuals, cotangent):
    decay, keep, y, start = residuals
    lanes = len(y), -1
    y, g = y.reshape(lanes), cotangent.reshape(lanes)
    keep = None if keep is None else keep.reshape(lanes)
    # The adjoint G_n = g_n + d m_{n+1} G_{n+1} is the same recurrence backwards in time.
    decayed = decay if keep is None else decay * _later(keep, len(start))
    adjoint = _run(decayed, g, jnp.zeros_like(start), reverse=True)
    kept = adjoint if keep is None else adjoint * keep
    before = jnp.concatenate([start, y[-1, : -len(start)]])
    slope = jnp.sum(kept[1:] * y[:-1]) + jnp.sum(kept[0] * before)
    return slope, None, adjoint.reshape(cotangent.shape), decay * kept[0, : len(start)]


def _later(keep, sweeps):
    """Return m_{n+1}; at a block's end it is the next block's first."""
    following = jnp.concatenate([keep[0, sweeps:], jnp.zeros_like(keep[0, :sweeps])])
    return jnp.concatenate([keep[1:], following[None]])


recurrence.defvjp(_forward, _backward)
