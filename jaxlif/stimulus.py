"""Input currents and Poisson trains, [T], for `simulate`: entry n is held over step n, from n dt to (n + 1)
dt.

A waveform is sampled at the *start* of each step. Durations must be whole numbers of steps. The random ones
are functions of their key: the same key gives the same noise, so split the key before using it twice.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def num_steps(duration: float, dt: float) -> int:
    r"""Count the steps in a duration, safe from rounding: :math:`T = \mathrm{duration} / dt`.

    Args:
        duration: ms.
        dt: time step, ms.

    Returns:
        T.

    Raises:
        ValueError: dt is not positive, the duration is negative, or it is not a whole number of steps: off by
            more than one part in a million, or by more than a hundredth of a step.

    Example:
        >>> num_steps(0.3, dt=0.1)  # although 0.3 / 0.1 < 3
        3
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt = {dt} ms: it must be positive")
    if not (math.isfinite(duration) and duration >= 0):
        raise ValueError(f"duration = {duration} ms: it must not be negative")
    steps = duration / dt
    if abs(steps - round(steps)) > min(1e-6 * steps, 0.01):
        raise ValueError(f"duration = {duration} ms: it must be a whole number of steps of dt = {dt} ms")
    return round(steps)


def constant(level: ArrayLike, duration: float, dt: float) -> Array:
    """Hold a current.

    Args:
        level: pA, scalar.
        duration: ms.
        dt: time step, ms.

    Returns:
        The current, pA, [T], in the dtype of the level (JAX's default for a Python number), as everywhere
        here.

    Raises:
        ValueError: the duration is not a whole number of steps.

    Example:
        >>> constant(160.0, duration=0.3, dt=0.1).tolist()
        [160.0, 160.0, 160.0]
    """
    return steps([level], [duration], dt)


def steps(levels: ArrayLike | list[ArrayLike], durations: list[float], dt: float) -> Array:
    """Hold one current after the other.

    Args:
        levels: pA, [K].
        durations: of each level, ms, [K].
        dt: time step, ms.

    Returns:
        The current, pA, [T], T the sum of the steps of all levels.

    Raises:
        ValueError: there are not as many durations as levels, or one is not a whole number of steps.

    Example:
        >>> steps([0.0, 120.0, 0.0], [0.1, 0.3, 0.1], dt=0.1).tolist()
        [0.0, 120.0, 120.0, 120.0, 0.0]
    """
    heights = _floating(jnp.stack([jnp.asarray(level) for level in levels]))  # type: ignore[union-attr]
    if heights.ndim != 1:
        raise ValueError(f"levels has shape {heights.shape}: it must be a list of scalars in pA, [K]")
    if len(heights) != len(durations):
        raise ValueError(f"durations has {len(durations)} entries, levels {len(heights)}: they must agree")
    counts = np.array([num_steps(duration, dt) for duration in durations], dtype=int)
    return jnp.repeat(heights, counts, total_repeat_length=int(counts.sum()))


def step(
    amplitude: ArrayLike, start: float, stop: float, duration: float, dt: float, baseline: ArrayLike = 0.0
) -> Array:
    r"""Switch a current on and off again.

    :math:`I(t) = I_0 + A\, [t_{start} \le t < t_{stop}]`.

    Args:
        amplitude: A, pA, added to the baseline.
        start: ms.
        stop: ms.
        duration: ms.
        dt: time step, ms.
        baseline: I_0, pA.

    Returns:
        The current, pA, [T].

    Raises:
        ValueError: a time is not a whole number of steps, or they are not in the order 0, start, stop,
            duration.

    Example:
        >>> step(50.0, start=0.1, stop=0.3, duration=0.4, dt=0.1, baseline=10.0).tolist()
        [10.0, 60.0, 60.0, 10.0]
    """
    if not 0 <= start <= stop <= duration:
        raise ValueError(f"start = {start}, stop = {stop} ms: 0 <= start <= stop <= {duration} ms must hold")
    first, last, total = (num_steps(time, dt) for time in (start, stop, duration))
    inside = (np.arange(total) >= first) & (np.arange(total) < last)
    amplitude, baseline = _floating(amplitude), _floating(baseline)
    return jnp.where(inside, baseline + amplitude, baseline)


def ramp(start_value: ArrayLike, stop_value: ArrayLike, duration: float, dt: float) -> Array:
    r"""Change a current at a constant rate.

    :math:`I_n = I_{start} + (I_{stop} - I_{start})\, n / T`: the stop value is reached at the end of the last
    step.

    Args:
        start_value: pA.
        stop_value: pA.
        duration: ms.
        dt: time step, ms.

    Returns:
        The current, pA, [T].

    Raises:
        ValueError: the duration is not a whole number of steps.

    Example:
        >>> ramp(0.0, 100.0, duration=0.4, dt=0.1).tolist()
        [0.0, 25.0, 50.0, 75.0]
    """
    total = num_steps(duration, dt)
    start_value, stop_value = _floating(start_value), _floating(stop_value)
    fraction = jnp.asarray(np.arange(total) / max(total, 1), jnp.result_type(start_value, stop_value))
    return start_value + (stop_value - start_value) * fraction


def sinusoid(
    mean: ArrayLike,
    amplitude: ArrayLike,
    frequency_hz: ArrayLike,
    duration: float,
    dt: float,
    phase: ArrayLike = 0.0,
) -> Array:
    r"""Oscillate a current.

    :math:`I_n = \mu + A \sin(2\pi f\, n\, dt / 1000 + \varphi)`.

    Args:
        mean: pA.
        amplitude: A, pA.
        frequency_hz: f, Hz.
        duration: ms.
        dt: time step, ms.
        phase: rad.

    Returns:
        The current, pA, [T].

    Raises:
        ValueError: the duration is not a whole number of steps.

    Example:
        >>> sinusoid(100.0, 50.0, 250.0, duration=4.0, dt=1.0).round(6).tolist()
        [100.0, 150.0, 100.0, 50.0]
    """
    mean, amplitude, frequency, phase = map(_floating, (mean, amplitude, frequency_hz, phase))
    dtype = jnp.result_type(mean, amplitude, frequency, phase)
    seconds = jnp.asarray(np.arange(num_steps(duration, dt)) * (dt / 1000.0), dtype)
    return mean + amplitude * jnp.sin(2.0 * math.pi * frequency * seconds + phase)


def ornstein_uhlenbeck(key: Array, mean: ArrayLike, sd: ArrayLike, tau: ArrayLike, duration: float, dt: float) -> Array:
    r"""Draw coloured noise, exactly at any dt, stationary from the first step on.

    .. math::
        I_{n+1} = \mu + a (I_n - \mu) + \sigma \sqrt{1 - a^2}\, \xi_n, \qquad a = e^{-dt/\tau},
        \qquad I_0 \sim N(\mu, \sigma^2)

    Args:
        key: a JAX random key.
        mean: pA, scalar like the next two.
        sd: of the current at any one time, pA.
        tau: correlation time, ms.
        duration: ms.
        dt: time step, ms.

    Returns:
        The current, pA, [T], differentiable in mean, sd and tau.

    Raises:
        ValueError: the duration is not a whole number of steps.

    Example:
        >>> noise = ornstein_uhlenbeck(jax.random.key(0), 100.0, 20.0, 3.0, duration=1000.0, dt=0.1)
        >>> noise.shape, bool(abs(noise.mean() - 100.0) < 5.0)
        ((10000,), True)

    Source: Gillespie 1996, doi:10.1103/PhysRevE.54.2084.
    """
    mean, sd, tau = map(_floating, (mean, sd, tau))
    normal = jax.random.normal(key, (num_steps(duration, dt),), jnp.result_type(mean, sd, tau))
    return mean + sd * _autoregress(normal, dt / tau)


def poisson(key: Array, rate: ArrayLike, duration: float, dt: float, shape: tuple[int, ...] = ()) -> Array:
    r"""Draw Poisson spike trains on the grid.

    :math:`P(\text{spike in a step}) = 1 - e^{-\nu\, dt / 1000}`, the probability of at least one event: a
    step holds no more than one, so that the mean rate falls short of :math:`\nu` by the share
    :math:`\nu\, dt / 2000`.

    Args:
        key: a JAX random key.
        rate: :math:`\nu`, Hz; a scalar, or what broadcasts to the result, such as [T, 1] or [N].
        duration: ms.
        dt: time step, ms.
        shape: of the trains, such as (N,).

    Returns:
        0 or 1, [T, \*shape].

    Raises:
        ValueError: a concrete rate is negative, or the duration is not a whole number of steps.

    Example:
        >>> poisson(jax.random.key(0), 1000.0, duration=5.0, dt=1.0, shape=(2,)).shape
        (5, 2)
    """
    rate = _floating(rate)
    if not isinstance(rate, jax.core.Tracer) and not bool((rate >= 0).all()):
        raise ValueError(f"rate = {float(rate.min())} Hz: it must not be negative")
    probability = -jnp.expm1(-rate * (dt / 1000.0))
    full = (num_steps(duration, dt), *shape)
    return jax.random.bernoulli(key, jnp.broadcast_to(probability, full)).astype(rate.dtype)


@jax.jit
def _autoregress(normal: Array, leak: Array) -> Array:
    """Filter white noise to unit variance and the correlation exp(-leak) per step."""
    # A plain scan: an associative one takes ten times as long to compile, for every new length, and gains
    # nothing on the CPU.
    decay, spread = jnp.exp(-leak), jnp.sqrt(-jnp.expm1(-2.0 * leak))
    kicks = (spread * normal).at[:1].set(normal[:1])  # the first is the stationary draw

    def _advance(value, kick):
        return (decay * value + kick,) * 2

    return jax.lax.scan(_advance, jnp.zeros((), normal.dtype), kicks)[1]


def _floating(value: ArrayLike) -> Array:
    """Make an array in the value's own floating dtype, or JAX's default for integers and Python numbers."""
    array = jnp.asarray(float(value) if isinstance(value, int) else value)  # weakly typed
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
