"""Encoders: numbers and waveforms become input spikes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike
from jaxtyping import Float, Key, Shaped

from jaxlif.checks import concrete, random_key, require, require_finite, require_positive, whole
from jaxlif.neurons.cell import state_dtype


def rate_code(
    key: Key[Array, ""], values: Shaped[ArrayLike, " *shape"], num_steps: int
) -> Float[Array, " num_steps *shape"]:
    r"""Draw spikes, 0 or 1, of probability :math:`P(s_n = 1) = x` in each of T steps, :math:`1000\,x / dt` Hz.

    Values lie in [0, 1]: 0 never spikes, 1 always does. Spikes have their dtype and carry no gradient to them. A spike
    takes 16 random bits; the part of x below :math:`2^{-16}` is drawn for 256 steps at once, which leaves two of these
    a covariance of at most :math:`2^{-34}`.

    Example:
        >>> spikes = rate_code(jax.random.key(0), jnp.array([0.0, 0.3, 1.0]), 1000)
        >>> [round(float(p), 1) for p in spikes.mean(axis=0)]
        [0.0, 0.3, 1.0]
    """
    values = _unit_interval(values, num_steps)
    coarse, fine = jax.random.split(random_key(key))
    scaled = values * 2**16
    whole = jnp.floor(scaled)
    below = jax.random.uniform(fine, (-(-num_steps // 256),) + values.shape, values.dtype) < (scaled - whole)[None]
    thresholds = jnp.repeat(whole[None] + below.astype(values.dtype), 256, axis=0)[:num_steps]
    # Draws lie in [0, 2^16): strictly below, 0 never spikes and 1 always does.
    return (_sixteen_bits(coarse, thresholds.shape).astype(values.dtype) < thresholds).astype(values.dtype)


def _sixteen_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw whole numbers below 2^16; ``jax.random.bits`` makes 64 bits for each, and takes five times as long."""
    size = math.prod(shape)
    seed = jax.random.bits(key, (2,), jnp.uint32)
    words = threefry_2x32(seed, jnp.arange(-(-size // 2), dtype=jnp.uint32))
    return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size].reshape(shape)


def latency_code(values: Shaped[ArrayLike, " *shape"], num_steps: int) -> Float[Array, " num_steps *shape"]:
    r"""Let every input spike once, the larger the earlier: in step :math:`n = round((1 - x)(T - 1))` of T.

    Values lie in [0, 1]; spikes have their dtype and carry no gradient to them.

    Example:
        >>> latency_code(jnp.array([1.0, 0.5, 0.0]), 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Source: Thorpe, Delorme & Van Rullen 2001, doi:10.1016/S0893-6080(01)00083-1 (first spikes as a code).
    """
    values = _unit_interval(values, num_steps)
    steps = jnp.round((1.0 - values) * (num_steps - 1)).astype(jnp.int32)
    return jax.nn.one_hot(steps, num_steps, axis=0, dtype=values.dtype)


def _unit_interval(values: ArrayLike, num_steps: int) -> Array:
    whole("num_steps", num_steps, 1)
    require_finite("values", values, "")
    if concrete(values):
        array = np.asarray(values)
        require((array >= 0) & (array <= 1), "values", array, "", "values must lie between 0 and 1")
    return jnp.asarray(values, state_dtype(values))


def level_crossing(values: Shaped[ArrayLike, " T *C"], step: ArrayLike) -> Float[Array, "T two_C"]:
    r"""Count the levels that each channel crosses upwards and downwards, with hysteresis ("send on delta").

    With :math:`u_n = (x_n - x_0) / \Delta`, a level follows by whole steps, :math:`m_n = m_{n-1} + k_n` from
    :math:`m_{-1} = 0` with :math:`k_n = \mathrm{trunc}(u_n - m_{n-1})`, but for rounding: 0.3 is three steps of 0.1.

    Of values [T], or [T, C] for C channels, and a step :math:`\Delta`, scalar or [C], it returns counts without a
    gradient to ``values``: C channels of ups, :math:`\max(k_n, 0)`, then C of downs.

    Example:
        >>> level_crossing(jnp.array([0.0, 0.4, 2.1, 1.2, 0.9]), 1.0).T.astype(int).tolist()
        [[0, 0, 2, 0, 0], [0, 0, 0, 0, 1]]

    Source: Miskowicz 2006, doi:10.3390/s6010049 (send on delta).
    """
    if jnp.ndim(values) not in (1, 2) or jnp.shape(values)[0] == 0:
        raise ValueError(f"values have shape {list(jnp.shape(values))}: they must be [T] or [T, C] with T = 1 or more")
    require_finite("values", values, "")
    require_positive("step", step, "")
    values = jnp.asarray(values, state_dtype(values))
    values = values.reshape(len(values), -1)
    if jnp.shape(step) not in ((), (1,), values.shape[1:]):
        raise ValueError(f"step has shape {jnp.shape(step)}: step must be a number or one for each channel")
    step = jnp.broadcast_to(jnp.asarray(step, values.dtype), values.shape[1:])
    # Of value, start, difference and quotient: what is a whole step away but for that has arrived.
    rounding = 4.0 * jnp.finfo(values.dtype).eps * (jnp.abs(values).max(axis=0) / step + 1.0)
    slack = jnp.minimum(rounding, 0.25)

    def _cross(level: Array, u: Array) -> tuple[Array, Array]:
        moved = jnp.trunc(u - level + jnp.sign(u - level) * slack)
        return level + moved, moved

    # Levels are whole numbers: they sum without rounding, where adding up steps would drift.
    heights = (values - values[:1]) / step[None]
    moves = jax.lax.scan(_cross, jnp.zeros_like(heights[0]), heights)[1]
    return jax.lax.stop_gradient(jnp.concatenate([jnp.maximum(moves, 0.0), jnp.maximum(-moves, 0.0)], axis=1))
