"""Input currents and Poisson trains, [T], for `simulate`: entry n is held over step n, from n dt to (n + 1) dt.

A waveform is sampled at the *start* of each step. Durations must be whole numbers of steps; concrete values must be
finite. The random ones are functions of their key: split it before using it twice. Results have the dtype of the values
given (JAX's default for Python numbers), single precision at least.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, Real

from jaxlif import checks

Level = Real[ArrayLike, ""]


def num_steps(duration: float, dt: float) -> int:
    r"""Count the steps in a duration, safe from rounding: :math:`T = \mathrm{duration} / dt`, both in ms.

    Raises:
        ValueError: dt is not positive, the duration is negative, or it is not a whole number of steps: off by
            more than one part in a million, or by more than a hundredth of a step.

    Example:
        >>> num_steps(0.3, dt=0.1)  # although 0.3 / 0.1 < 3
        3
    """
    duration, dt = float(checks.not_negative("duration", duration, "ms")), _step(dt)
    steps = duration / dt
    if abs(steps - round(steps)) > min(1e-6 * steps, 0.01):
        raise ValueError(f"duration = {duration} ms: it must be a whole number of steps of dt = {dt} ms")
    return round(steps)


def constant(level: Level, duration: float, dt: float) -> Float[Array, "T"]:
    """Hold a current, pA, for a duration, ms, in steps of dt, ms.

    Example:
        >>> constant(160.0, duration=0.3, dt=0.1).tolist()
        [160.0, 160.0, 160.0]
    """
    return jnp.full(num_steps(duration, dt), _floating("level", level, "pA"))


def step(
    amplitude: Level, start: float, stop: float, duration: float, dt: float, baseline: Level = 0.0
) -> Float[Array, "T"]:
    r"""Switch a current on and off again: :math:`I(t) = I_0 + A\, [t_{start} \le t < t_{stop}]`.

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
        ValueError: a time is not a whole number of steps, or they are not in the order 0, start, stop, duration.

    Example:
        >>> step(50.0, start=0.1, stop=0.3, duration=0.4, dt=0.1, baseline=10.0).tolist()
        [10.0, 60.0, 60.0, 10.0]
    """
    start, stop = checks.number("start", start, "ms"), checks.number("stop", stop, "ms")
    total = num_steps(duration, dt)
    if not 0 <= start <= stop <= duration:
        raise ValueError(f"start = {start}, stop = {stop} ms: 0 <= start <= stop <= {duration} ms must hold")
    inside = (np.arange(total) >= num_steps(start, dt)) & (np.arange(total) < num_steps(stop, dt))
    amplitude, baseline = _floating("amplitude", amplitude, "pA"), _floating("baseline", baseline, "pA")
    return jnp.where(inside, baseline + amplitude, baseline)


def ramp(start_value: Level, stop_value: Level, duration: float, dt: float) -> Float[Array, "T"]:
    r"""Change a current, pA, at a constant rate: :math:`I_n = I_{start} + (I_{stop} - I_{start})\, n / T`.

    The stop value is reached at the end of the last step.

    Example:
        >>> ramp(0.0, 100.0, duration=0.4, dt=0.1).tolist()
        [0.0, 25.0, 50.0, 75.0]
    """
    total = num_steps(duration, dt)
    start_value, stop_value = _floating("start_value", start_value, "pA"), _floating("stop_value", stop_value, "pA")
    fraction = jnp.asarray(np.arange(total) / max(total, 1), jnp.result_type(start_value, stop_value))
    return start_value + (stop_value - start_value) * fraction


def sinusoid(
    mean: Level, amplitude: Level, frequency_hz: Level, duration: float, dt: float, phase: Level = 0.0
) -> Float[Array, "T"]:
    r"""Oscillate a current: :math:`I_n = \mu + A \sin(2\pi f\, n\, dt / 1000 + \varphi)`.

    Args:
        mean: pA.
        amplitude: A, pA.
        frequency_hz: f, Hz.
        duration: ms.
        dt: time step, ms.
        phase: rad.

    Returns:
        The current, pA, [T].

    Example:
        >>> sinusoid(100.0, 50.0, 250.0, duration=4.0, dt=1.0).round(6).tolist()
        [100.0, 150.0, 100.0, 50.0]
    """
    mean, amplitude = _floating("mean", mean, "pA"), _floating("amplitude", amplitude, "pA")
    frequency, phase = _floating("frequency_hz", frequency_hz, "Hz"), _floating("phase", phase, "rad")
    dtype = jnp.result_type(mean, amplitude, frequency, phase)
    seconds = jnp.asarray(np.arange(num_steps(duration, dt)) * (_step(dt) / 1000.0), dtype)
    return mean + amplitude * jnp.sin(2.0 * math.pi * frequency * seconds + phase)


def ornstein_uhlenbeck(
    key: Key[Array, ""], mean: Level, sd: Level, tau: Level, duration: float, dt: float
) -> Float[Array, "T"]:
    r"""Draw coloured noise, exactly at any dt, stationary from the first step on.

    .. math::
        I_{n+1} = \mu + a (I_n - \mu) + \sigma \sqrt{1 - a^2}\, \xi_n, \qquad a = e^{-dt/\tau},
        \qquad I_0 \sim N(\mu, \sigma^2)

    Args:
        key: a JAX random key.
        mean: pA.
        sd: of the current at any one time, pA.
        tau: correlation time, ms.
        duration: ms.
        dt: time step, ms.

    Returns:
        The current, pA, [T], differentiable in mean, sd and tau.

    Example:
        >>> noise = ornstein_uhlenbeck(jax.random.key(0), 100.0, 20.0, 3.0, duration=1000.0, dt=0.1)
        >>> noise.shape, bool(abs(noise.mean() - 100.0) < 5.0)
        ((10000,), True)

    Source: Gillespie 1996, doi:10.1103/PhysRevE.54.2084.
    """
    mean, sd, tau = _floating("mean", mean, "pA"), _floating("sd", sd, "pA"), _floating("tau", tau, "ms")
    checks.require_not_negative("sd", sd, "pA")
    checks.require_positive("tau", tau, "ms")
    # In the default precision first, so that a key gives the same noise in every other.
    normal = jax.random.normal(checks.random_key(key), (num_steps(duration, dt),))
    return mean + sd * _autoregress(normal.astype(jnp.result_type(mean, sd, tau)), _step(dt) / tau)


def poisson(
    key: Key[Array, ""], rate: Real[ArrayLike, "..."], duration: float, dt: float, shape: int | tuple[int, ...] = ()
) -> Float[Array, "T *shape"]:
    r"""Count the events of Poisson trains in each step: :math:`P(k) = m^k e^{-m} / k!`, :math:`m = \nu\, dt / 1000`.

    A step holds any number of events, so that the mean rate is :math:`\nu` at any dt; ``jnp.minimum(counts, 1)`` makes
    trains of single spikes of them, which lose the share :math:`\nu\, dt / 2000`.

    Args:
        key: a JAX random key.
        rate: :math:`\nu`, Hz; a scalar, or what broadcasts to the result, such as [T, 1] or [N]. Without gradient.
        duration: ms.
        dt: time step, ms.
        shape: of the trains, such as (N,).

    Returns:
        Counts 0, 1, 2, ... in the dtype of the rate, [T, \*shape]. Under a trace, nan for a rate out of range.

    Raises:
        ValueError: a concrete rate is negative or makes more than a million events a step, or it does not broadcast.

    Example:
        >>> counts = poisson(jax.random.key(0), 6667.0, duration=1000.0, dt=0.1)  # two in three steps
        >>> round(float(counts.mean()), 1), int(counts.max()) > 1
        (0.7, True)

    Source: Devroye 1986, doi:10.1007/978-1-4613-8643-8, chapter X.3 (inversion by sequential search).
    """
    total, dt = num_steps(duration, dt), _step(dt)
    full = (total, *(checks.whole("shape", size) for size in np.atleast_1d(shape).tolist()))
    rate = _floating("rate", rate, "Hz", rank=None)
    checks.require_not_negative("rate", rate, "Hz")
    mean = jax.lax.stop_gradient(rate * (dt / 1000.0))
    if checks.concrete(mean):
        checks.require(mean <= _MOST, "rate", rate, "Hz", f"rate must be {_MOST * 1000.0 / dt:g} Hz at most at this dt")
    if len(rate.shape) > len(full) or any(n not in (1, m) for n, m in zip(rate.shape[::-1], full[::-1], strict=False)):
        raise ValueError(f"rate has shape {rate.shape}: rate must broadcast to {full}, the steps and the trains")
    mean = mean.reshape((1,) * (len(full) - mean.ndim) + mean.shape)
    return _poisson_counts(checks.random_key(key), jnp.where((mean >= 0) & (mean <= _MOST), mean, jnp.nan), full)


_MOST = 1e6  # events a step
_PORTION = 30.0


@partial(jax.jit, static_argnums=2)
def _poisson_counts(key: Array, mean: Array, shape: tuple[int, ...]) -> Array:
    """Draw by inversion, means above 30 in portions whose counts add up: exp(-mean) must not vanish."""

    def _portion(carry):
        key, left, counts = carry
        key, now = jax.random.split(key)
        part = jnp.minimum(left, _PORTION)
        return key, left - part, counts + _inverted(now, part, shape)

    start = key, mean, jnp.broadcast_to(0.0 * mean, shape)  # a mean of nan gives nan
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] > 0), _portion, start)[2]


def _inverted(key: Array, mean: Array, shape: tuple[int, ...]) -> Array:
    """Count for how many k a uniform number lies below P(K > k)."""
    # Numbers near 0, which make rare events, keep their digits: bits, not uniform, whose steps are 1e-7.
    uniform = jax.random.bits(key, shape, jnp.uint32).astype(mean.dtype) * 2.0**-32

    def _next(carry):
        k, chance, above, counts = carry
        counts, k = counts + (uniform < above).astype(mean.dtype), k + 1.0
        chance = chance * mean / k  # P(K = k)
        # A tail is at most a geometric series: what rounding leaves of a difference must not count for ever.
        tail = chance * mean / (k + 1.0) / (1.0 - jnp.minimum(mean, k + 1.0) / (k + 2.0))
        return k, chance, jnp.where(mean < k + 1.0, jnp.minimum(above - chance, tail), above - chance), counts

    start = jnp.zeros((), mean.dtype), jnp.exp(-mean), -jnp.expm1(-mean), jnp.zeros(shape, mean.dtype)
    return jax.lax.while_loop(lambda carry: jnp.any(uniform < carry[2]), _next, start)[3]


@jax.jit
def _autoregress(normal: Array, leak: Array) -> Array:
    """Filter white noise to unit variance and the correlation exp(-leak) per step."""
    # A plain scan: an associative one takes ten times as long to compile, and gains nothing on the CPU.
    decay, spread = jnp.exp(-leak), jnp.sqrt(-jnp.expm1(-2.0 * leak))
    kicks = (spread * normal).at[:1].set(normal[:1])  # the first is the stationary draw

    def _advance(value, kick):
        return (decay * value + kick,) * 2

    return jax.lax.scan(_advance, jnp.zeros((), normal.dtype), kicks)[1]


def _floating(field: str, value: ArrayLike, unit: str, rank: int | None = 0) -> Array:
    """Return an array in the value's own floating dtype, weakly typed for a Python number; single at least."""
    return checks.single(jnp.asarray(checks.numbers(field, value, unit, rank=rank)))


def _step(dt: float) -> float:
    return float(checks.positive("dt", dt, "ms"))
