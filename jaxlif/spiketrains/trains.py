"""One spike train: between raster and times, intervals, rate; and the rules that every train obeys."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlif.checks import numbers, positive, whole

# Times on a grid differ from a window of whole steps by rounding (10.4 - 10.0 > 0.4): a slack far above the
# rounding and far below any sampling interval makes the window closed, whatever the grid.
SLACK = 1e-6  # ms


def spike_times(spikes: ArrayLike, dt: float) -> np.ndarray | list[np.ndarray]:
    r"""List the spike times of a raster.

    :math:`t = (n + 1)\, dt`: a spike in step n is found at the end of that step.

    Args:
        spikes: 0 or 1, [T] or [T, N].
        dt: time step, ms.

    Returns:
        The times in ms: one array for a raster [T], a list of N arrays for [T, N].

    Raises:
        ValueError: the raster has another rank or other values, or dt is not positive.

    Example:
        >>> spike_times([0, 1, 0, 1], dt=0.5).tolist()
        [1.0, 2.0]
    """
    dt, grid = float(positive("dt", dt, "ms")), np.asarray(spikes)
    if grid.ndim not in (1, 2):
        raise ValueError(f"spikes has shape {grid.shape}: it must be [T] or [T, N]")
    if grid.dtype.kind not in "biuf" or not np.isin(grid, (0, 1)).all():
        raise ValueError("spikes holds values other than 0 and 1: it must be a raster, not a list of times")
    times = [(np.flatnonzero(column) + 1) * dt for column in np.atleast_2d(grid.T)]
    return times[0] if grid.ndim == 1 else times


def raster(times: Any, dt: float, num_steps: int) -> np.ndarray:
    r"""Put spike times on a grid: the inverse of `spike_times`.

    Step n takes the spike with :math:`n\, dt < t \le (n + 1)\, dt`.

    Args:
        times: one train, or a list of N trains; ms.
        dt: time step, ms.
        num_steps: T.

    Returns:
        0.0 or 1.0, [T] for one train, [T, N] for a list.

    Raises:
        ValueError: a time lies outside (0, T dt], or two spikes fall into one step.

    Example:
        >>> raster([1.0, 2.0], dt=0.5, num_steps=4).tolist()
        [0.0, 1.0, 0.0, 1.0]
    """
    listed = bool(np.iterable(times)) and not isinstance(times, str | dict)
    if not listed:
        raise ValueError(f"times is {type(times).__name__}: it must be a list of times in ms, or a list of trains")
    if len(times) and np.ndim(times[0]) > 0:
        return np.stack([raster(train, dt, num_steps) for train in times], axis=1)
    dt, train = float(positive("dt", dt, "ms")), checked_train(times, "times")
    num_steps = whole("num_steps", num_steps)
    steps = np.ceil(train / dt - step_slack(times, dt)).astype(int) - 1
    if np.any((steps < 0) | (steps >= num_steps)):
        raise ValueError(f"times holds a spike outside (0, {num_steps * dt:g}] ms: the raster ends there")
    if np.any(np.diff(steps) == 0):
        raise ValueError(f"times holds two spikes in one step of dt = {dt:g} ms: use a smaller dt")
    return np.bincount(steps, minlength=num_steps).astype(float)


def isi(times: ArrayLike) -> np.ndarray:
    """Take the interspike intervals of a train.

    Args:
        times: spike times, ms, [n].

    Returns:
        The n - 1 intervals, ms; none for fewer than two spikes.

    Raises:
        ValueError: the times are not finite and sorted.

    Example:
        >>> isi([10.0, 15.0, 25.0]).tolist()
        [5.0, 10.0]
    """
    return np.diff(checked_train(times, "times"))


def cv(times: ArrayLike) -> float:
    r"""Measure how irregular a train is: the coefficient of variation of its intervals.

    :math:`CV = \mathrm{sd}(ISI) / \mathrm{mean}(ISI)`, with the population standard deviation: 0 for a clock,
    1 for a long Poisson train.

    Args:
        times: spike times, ms, [n].

    Returns:
        The CV; nan for fewer than three spikes, because one interval does not vary.

    Raises:
        ValueError: the times are not finite and sorted.

    Example:
        >>> round(cv([0.0, 5.0, 20.0]), 6)
        0.5
    """
    intervals = isi(times)
    if len(intervals) < 2 or intervals.mean() == 0:
        return float("nan")
    return float(intervals.std() / intervals.mean())


def firing_rate(times: ArrayLike, duration: float) -> float:
    r"""Count the spikes per second.

    :math:`\nu = 1000\, n / T`.

    Args:
        times: spike times, ms, [n].
        duration: T, the observed time, ms.

    Returns:
        The rate, Hz.

    Raises:
        ValueError: the duration is not positive, or shorter than the train.

    Example:
        >>> firing_rate([10.0, 15.0, 25.0], duration=100.0)
        30.0
    """
    duration, train = float(positive("duration", duration, "ms")), checked_train(times, "times")
    if len(train) and train[-1] - train[0] > duration + SLACK + rounding(times):
        raise ValueError(f"duration = {duration:g} ms is shorter than the train, {train[-1] - train[0]:g} ms")
    return 1000.0 * len(train) / duration


def checked_train(times: ArrayLike, name: str) -> np.ndarray:
    """Return one train as an array, or raise ValueError unless it is a sorted list of finite times."""
    given = numbers(name, times, "ms", finite=False)
    if np.asarray(times).dtype == bool:
        raise ValueError(f"{name} is bool: a train must be a list of times in ms, no raster")
    train = np.asarray(given, float)
    if train.ndim != 1:
        raise ValueError(f"{name} has shape {train.shape}: a train must be a list of times in ms, [n]")
    if not np.isfinite(train).all():
        raise ValueError(f"{name} holds a time that is not finite: every spike time must be a number of ms")
    if np.any(np.diff(train) < 0):
        raise ValueError(f"{name} is not sorted: spike times in ms must not decrease")
    return train


def checked_trains(trains: Sequence[ArrayLike], name: str, at_least: int = 1) -> list[np.ndarray]:
    """Return several trains as arrays of their precision, each checked; ValueError where there are too few."""
    if not np.iterable(trains) or isinstance(trains, str | dict):
        raise ValueError(f"{name} is {type(trains).__name__}: it must be a list of trains")
    if len(trains) < at_least:
        raise ValueError(f"{name} has {len(trains)} repeats: it must have at least {at_least}")
    for i, times in enumerate(trains):
        checked_train(times, f"{name}[{i}]")
    return [np.asarray(times) for times in trains]


def rounding(*trains: Any) -> float:
    """Return how far the latest time may lie from where it belongs, ms: two units in the last place of its precision.

    One for the time and one for the step that it is a multiple of: 7 x 0.1 is no longer 0.7, least of all in float32.
    """
    return float(max((np.max(_units(np.asarray(x)), initial=0.0) for x in trains), default=0.0))


def step_slack(times: Any, dt: float) -> np.ndarray:
    """Return what a time may miss its step by, in steps; half a step where its precision resolves no more."""
    return np.minimum(SLACK + _units(np.asarray(times)) / dt, 0.5)


def _units(times: np.ndarray) -> np.ndarray:
    kind: Any = times.dtype if np.issubdtype(times.dtype, np.floating) else float
    return 2.0 * float(np.finfo(kind).eps) * np.abs(times.astype(float))
