"""Input currents, [T], for `simulate`: entry n is held over step n, from n dt to (n + 1) dt.

A waveform is sampled at the *start* of each step. Durations must be whole numbers of steps; concrete values must be
finite. Noise is a function of its key: split it before using it twice. Results have the dtype of the values
given (JAX's default for Python numbers), single precision at least.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, Real

from jaxlif import checks

_Level = Real[ArrayLike, ""]


def num_steps(duration: float, dt: float) -> int:
    r"""Count the steps in a duration, safe from rounding: :math:`T = \mathrm{duration} / dt`, both in ms.

    Refused where it is off a whole number by more than one part in a million, or than a hundredth of a step.

    Example:
        >>> num_steps(0.3, dt=0.1)  # although 0.3 / 0.1 < 3
        3
    """
    duration, dt = float(checks.not_negative("duration", duration, "ms")), _step(dt)
    steps = duration / dt
    if abs(steps - round(steps)) > min(1e-6 * steps, 0.01):
        raise ValueError(f"duration = {duration} ms: it must be a whole number of steps of dt = {dt} ms")
    return round(steps)


def step(
    amplitude: _Level, start: float, stop: float, duration: float, dt: float, baseline: _Level = 0.0
) -> Float[Array, "T"]:
    r"""Switch a current on and off again: :math:`I(t) = I_0 + A\, [t_{start} \le t < t_{stop}]`.

    Currents in pA, times in ms, whole numbers of steps in the order 0, start, stop, duration.

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


def ramp(start_value: _Level, stop_value: _Level, duration: float, dt: float) -> Float[Array, "T"]:
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


def sinusoid(mean: _Level, amplitude: _Level, frequency_hz: _Level, duration: float, dt: float) -> Float[Array, "T"]:
    r"""Oscillate a current, pA, about its mean: :math:`I_n = \mu + A \sin(2\pi f\, n\, dt / 1000)`.

    Example:
        >>> sinusoid(100.0, 50.0, 250.0, duration=4.0, dt=1.0).round(6).tolist()
        [100.0, 150.0, 100.0, 50.0]
    """
    mean, amplitude = _floating("mean", mean, "pA"), _floating("amplitude", amplitude, "pA")
    frequency = _floating("frequency_hz", frequency_hz, "Hz")
    dtype = jnp.result_type(mean, amplitude, frequency)
    seconds = jnp.asarray(np.arange(num_steps(duration, dt)) * (_step(dt) / 1000.0), dtype)
    return mean + amplitude * jnp.sin(2.0 * math.pi * frequency * seconds)


def ornstein_uhlenbeck(
    key: Key[Array, ""], mean: _Level, sd: _Level, tau: _Level, duration: float, dt: float
) -> Float[Array, "T"]:
    r"""Draw coloured noise, exactly at any dt, stationary from the first step on.

    .. math::
        I_{n+1} = \mu + a (I_n - \mu) + \sigma \sqrt{1 - a^2}\, \xi_n, \qquad a = e^{-dt/\tau},
        \qquad I_0 \sim N(\mu, \sigma^2)

    Mean and standard deviation of the current at any one time in pA, the correlation time tau in ms; differentiable in
    all three.

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
    noise: Array = _autoregress(normal.astype(jnp.result_type(mean, sd, tau)), _step(dt) / tau)
    return mean + sd * noise


@jax.jit
def _autoregress(normal: Array, leak: Array) -> Array:
    """Filter white noise to unit variance and the correlation exp(-leak) per step."""
    # A plain scan: an associative one takes ten times as long to compile, and gains nothing on the CPU.
    decay, spread = jnp.exp(-leak), jnp.sqrt(-jnp.expm1(-2.0 * leak))
    kicks = (spread * normal).at[:1].set(normal[:1])  # the first is the stationary draw

    def _advance(value: Array, kick: Array) -> tuple[Array, Array]:
        return (decay * value + kick,) * 2

    return jax.lax.scan(_advance, jnp.zeros((), normal.dtype), kicks)[1]


def _floating(field: str, value: ArrayLike, unit: str) -> Array:
    """Return an array in the value's own floating dtype, weakly typed for a Python number; single at least."""
    array: Array = checks.single(jnp.asarray(checks.number(field, value, unit)))
    return array


def _step(dt: float) -> float:
    return float(checks.positive("dt", dt, "ms"))
