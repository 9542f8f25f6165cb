"""Linear recurrences over a long time axis, computed in blocks side by side, with one stored array for the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def to_blocks(x: np.ndarray, length: int, fill: float = 0.0) -> np.ndarray:
    """Cut time into blocks that lie side by side: [S, T] becomes [length, blocks, S], the rest filled up.

    Example:
        >>> to_blocks(np.arange(5.0)[None], 2)[:, :, 0]
        array([[0., 2., 4.],
               [1., 3., 0.]])
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

    Every block runs from 0 in one scan of ``length`` steps over all blocks and sweeps at once; then the ends are
    chained and what each block inherits is added. The gradient runs the same recurrence backwards and needs y alone.

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
    _, alone = jax.lax.scan(_step(decay), jnp.zeros_like(inputs[0]), (keep, inputs))
    survives = _powers(decay, len(inputs))
    survives = survives if keep is None else survives * jnp.cumprod(keep, axis=0)

    def chain(before, x):
        end, share = x
        return end + share * before, before

    last = jnp.broadcast_to(survives[-1], inputs.shape[1:])
    _, inherited = jax.lax.scan(chain, start, (alone[-1], last))
    return alone + survives * inherited[None]


def _step(decay):
    def step(y, x):
        keep, u = x
        y = decay * y + u if keep is None else decay * keep * y + u
        return y, y

    return step


def _powers(decay, length):
    exponents = jnp.arange(1, 1 + length).astype(decay.dtype)
    return (decay**exponents)[:, None, None]


def _forward(decay, keep, inputs, start):
    y = _solve(decay, keep, inputs, start)
    return y, (decay, keep, y, start)


def _backward(residuals, cotangent):
    decay, keep, y, start = residuals
    # The adjoint G_n = g_n + d m_{n+1} G_{n+1} is the same recurrence on time reversed.
    shifted = None if keep is None else _reversed(_later(keep))
    adjoint = _reversed(_solve(decay, shifted, _reversed(cotangent), jnp.zeros_like(start)))
    kept = adjoint if keep is None else adjoint * keep
    before = jnp.concatenate([start[None], y[-1, :-1]])
    previous = jnp.concatenate([before[None], y[:-1]])
    return jnp.sum(kept * previous), None, adjoint, decay * kept[0, 0]


def _later(keep):
    """Return m_{n+1}; at a block's end it is the next block's first."""
    following = jnp.concatenate([keep[0, 1:], jnp.zeros_like(keep[0, :1])])
    return jnp.concatenate([keep[1:], following[None]])


def _reversed(x):
    return jnp.flip(x, axis=(0, 1))


recurrence.defvjp(_forward, _backward)
