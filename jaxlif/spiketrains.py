"""Spike trains as sorted times in ms: one train, and how alike several are. NumPy alone, nothing is differentiated.

A *train* is a sorted list of spike times, ms; *trains* are a list of them, one for each repeat of the same stimulus.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real, Shaped

from jaxlif import checks

# Times on a grid differ from a window of whole steps by rounding (10.4 - 10.0 > 0.4): a slack far above the
# rounding and far below any sampling interval makes the window closed, whatever the grid.
_SLACK = 1e-6  # ms

_Train = Real[np.ndarray, "_"] | Sequence[float]


def spike_times(spikes: Shaped[np.ndarray, "T *N"] | Sequence[int], dt: float) -> np.ndarray | list[np.ndarray]:
    r"""List the spike times of a raster, :math:`t = (n + 1)\, dt`: a spike in step n is found at the end of that step.

    One array of times, ms, for a raster [T] of 0 and 1, a list of N arrays for [T, N].

    Example:
        >>> spike_times([0, 1, 0, 1], dt=0.5).tolist()
        [1.0, 2.0]
    """
    dt, grid = float(checks.positive("dt", dt, "ms")), np.asarray(checks.numbers("spikes", spikes, rank=(1, 2)))
    checks.require_binary("spikes", grid)
    times = [(np.flatnonzero(column) + 1) * dt for column in np.atleast_2d(grid.T)]
    return times[0] if grid.ndim == 1 else times


def on_grid(times: _Train, dt: float, num_steps: int) -> Float[np.ndarray, "T"]:
    r"""Put spike times on a grid, the inverse of `spike_times`: step n takes the spike in :math:`(n\,dt, (n + 1)\,dt]`.

    0.0 or 1.0, [T]. A time outside (0, T dt] and two spikes in one step are refused.

    Example:
        >>> on_grid([1.0, 2.0], dt=0.5, num_steps=4).tolist()
        [0.0, 1.0, 0.0, 1.0]
    """
    dt, train = float(checks.positive("dt", dt, "ms")), _checked("times", times)
    num_steps = checks.whole("num_steps", num_steps)
    steps = np.ceil(train / dt - step_slack(times, dt)).astype(int) - 1
    if np.any((steps < 0) | (steps >= num_steps)):
        raise ValueError(f"times holds a spike outside (0, {num_steps * dt:g}] ms: the raster ends there")
    if np.any(np.diff(steps) == 0):
        raise ValueError(f"times holds two spikes in one step of dt = {dt:g} ms: use a smaller dt")
    return np.bincount(steps, minlength=num_steps).astype(float)


def step_slack(times: Any, dt: float) -> np.ndarray:
    """Return what a time may miss its step by, in steps; half a step where its precision resolves no more."""
    return np.minimum(_SLACK + _rounding(np.asarray(times)) / dt, 0.5)


def isi(times: _Train) -> Float[np.ndarray, "_"]:
    """Take the interspike intervals of a train, ms; none for fewer than two spikes.

    Example:
        >>> isi([10.0, 15.0, 25.0]).tolist()
        [5.0, 10.0]
    """
    return np.diff(_checked("times", times))


def cv(times: _Train) -> float:
    r"""Measure how irregular a train is: :math:`CV = \mathrm{sd}(ISI) / \mathrm{mean}(ISI)`.

    It is 0 for a clock, 1 for a long Poisson train, and nan for fewer than three spikes: one interval does not vary.

    Example:
        >>> round(cv([0.0, 5.0, 20.0]), 6)
        0.5
    """
    intervals = isi(times)
    if len(intervals) < 2 or intervals.mean() == 0:
        return float("nan")
    return float(intervals.std() / intervals.mean())


def coincidence_factor(data: _Train, model: _Train, *, duration: float, delta: float = 4.0) -> float:
    r"""Score a model train by its coincidences with a recorded one, 1 for all and 0 for as many as by chance.

    .. math::
        \Gamma = \frac{N_c - 2 \nu \Delta N_d}{\frac{1}{2} (N_d + N_m)} \cdot \frac{1}{1 - 2 \nu \Delta}

    The coincidences :math:`N_c` are the largest number of *one-to-one* matches within :math:`\pm\Delta`: a burst of
    model spikes beside one recorded spike counts once. :math:`2 \nu \Delta N_d` is what a Poisson train of the model's
    rate :math:`\nu` gets, so that the factor is not symmetric in data and model.

    All times are in ms, ``duration`` is the observed one. The factor is exactly 1 for identical trains, and nan where
    it is undefined: no spike in either train, or :math:`2 \nu \Delta \ge 1`, where a Poisson train already meets every
    spike (125 Hz at 4 ms).

    Example:
        >>> coincidence_factor([10.0, 50.0, 90.0], [11.0, 49.0, 90.0], duration=1000.0)
        1.0
        >>> round(coincidence_factor([10.0, 50.0, 90.0], [11.0, 12.0, 70.0], duration=1000.0), 4)
        0.3169

    Source: Kistler, Gerstner & van Hemmen 1997, doi:10.1162/neco.1997.9.5.1015; Jolivet et al. 2008,
    doi:10.1016/j.jneumeth.2007.11.006.
    """
    delta, duration = checks.not_negative("delta", delta, "ms"), float(checks.positive("duration", duration, "ms"))
    recorded, own = _within("data", data, duration), _within("model", model, duration)
    window = delta + _slack_of([data, model])
    chance = 2.0 * delta * len(own) / duration
    total = len(recorded) + len(own)
    if total == 0 or chance >= 1.0:
        return float("nan")
    matched, expected = 2.0 * _matches(recorded, own, window) / total, 2.0 * len(recorded) / total * chance
    return float((matched - expected) / (1.0 - chance))


def mean_coincidence_factor(
    data_trains: Sequence[_Train], model_trains: Sequence[_Train], *, duration: float, delta: float = 4.0
) -> float:
    r"""Average the coincidence factor over all pairs of a recorded and a model repeat; nan if one of them is.

    Divide by `reliability` for the share of the reproducible spikes; not where that is small, since the quotient then
    explodes for a model that fires too often. A deterministic model is a list of one train.

    Example:
        >>> round(mean_coincidence_factor([[10.0, 50.0], [12.0, 80.0]], [[11.0, 50.0]], duration=1000.0), 4)
        0.7459

    Source: Jolivet et al. 2008, doi:10.1016/j.jneumeth.2007.11.006.
    """
    data, model = _checked_all("data_trains", data_trains), _checked_all("model_trains", model_trains)
    return float(np.mean([coincidence_factor(a, b, duration=duration, delta=delta) for a in data for b in model]))


def reliability(trains: Sequence[_Train], *, duration: float, delta: float = 4.0) -> float:
    r"""Score how well a cell predicts itself: the mean coincidence factor between its repeats.

    Both orders of each pair count, because the chance level follows the rate of the second train. It is 1 for repeats
    that are all the same, about 0 for unrelated ones, nan if a factor is.

    Example:
        >>> round(reliability([[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]], duration=1000.0), 4)
        0.6612

    Source: Naud et al. 2011, doi:10.1162/NECO_a_00208.
    """
    repeats = _checked_all("trains", trains, at_least=2)
    pairs = [(a, b) for i, a in enumerate(repeats) for j, b in enumerate(repeats) if i != j]
    return float(np.mean([coincidence_factor(a, b, duration=duration, delta=delta) for a, b in pairs]))


def md_star(data_trains: Sequence[_Train], model_trains: Sequence[_Train], *, delta: float = 4.0) -> float:
    r"""Score a model by the likeness of its spike density to the cell's, corrected for the few repeats.

    .. math::
        M_d^* = \frac{2 \langle \nu_d, \nu_m \rangle}{C_{dd} + C_{mm}},
        \qquad C_{dd} = \frac{2}{n (n - 1)} \sum_{i<j} \langle d_i, d_j \rangle

    :math:`\langle a, b \rangle` is the number of pairs of spikes within :math:`\pm\Delta` (all pairs, not one-to-one)
    and :math:`\langle \nu_d, \nu_m \rangle` its mean over repeats. Leaving :math:`i = j` out of the norms keeps the
    spikes' own noise from inflating them, so that the cell's own distribution scores 1 however few the repeats.

    A single model repeat is taken as deterministic, with its own norm for C_mm. The score is 1 for the same density;
    sampling noise can lift it above 1. It means nothing where the recorded repeats, two at least, hardly coincide (C_dd
    near 0: compare with `reliability`), and is nan where both norms are 0.

    Example:
        >>> round(md_star([[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]], [[11.0, 70.0]]), 4)
        0.6

    Source: Naud, Gerhard, Mensi & Gerstner 2011, doi:10.1162/NECO_a_00208.
    """
    delta = checks.not_negative("delta", delta, "ms")
    data, model = _checked_all("data_trains", data_trains, at_least=2), _checked_all("model_trains", model_trains)
    delta += _slack_of([*data, *model])
    data, model = ([train.astype(float) for train in trains] for trains in (data, model))
    cross = _pairs(_pool(data), _pool(model), delta) / (len(data) * len(model))
    norms = _norm(data, delta) + _norm(model, delta)
    return 2.0 * cross / norms if norms > 0 else float("nan")


def _matches(data: np.ndarray, model: np.ndarray, delta: float) -> int:
    """Count the largest one-to-one matching: for sorted times, taking the earliest free pair is optimal."""
    i, j, matched, window = 0, 0, 0, delta + _SLACK
    first, second = data.tolist(), model.tolist()  # plain floats are faster to compare one by one
    while i < len(first) and j < len(second):
        lag = second[j] - first[i]
        matched += abs(lag) <= window
        i, j = i + (lag >= -window), j + (lag <= window)
    return matched


def _pairs(first: np.ndarray, second: np.ndarray, delta: float) -> int:
    """Count all pairs of spikes within the window: Kistler's inner product of two trains."""
    window = delta + _SLACK
    ends = np.searchsorted(second, first + window, side="right")
    return int(np.sum(ends - np.searchsorted(second, first - window, side="left")))


def _norm(trains: list[np.ndarray], delta: float) -> float:
    """Average the inner product over different repeats, or take the only repeat's own."""
    own = sum(_pairs(train, train, delta) for train in trains)
    count = len(trains)
    return float(own) if count == 1 else (_pairs(_pool(trains), _pool(trains), delta) - own) / (count * (count - 1))


def _pool(trains: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(trains))


def _checked(name: str, times: Any) -> np.ndarray:
    """Return one train as an array, or raise ValueError unless it is a sorted list of finite times."""
    train = np.asarray(checks.numbers(name, times, "ms", rank=1), float)
    if np.asarray(times).dtype == bool:
        raise ValueError(f"{name} is bool: a train must be a list of times in ms, no raster")
    if np.any(np.diff(train) < 0):
        raise ValueError(f"{name} is not sorted: spike times in ms must not decrease")
    return train


def _checked_all(name: str, trains: Any, at_least: int = 1) -> list[np.ndarray]:
    """Return several trains as arrays of their precision, each checked; ValueError where there are too few."""
    if not np.iterable(trains) or isinstance(trains, str | dict):
        raise ValueError(f"{name} is {type(trains).__name__}: it must be a list of trains")
    listed = list(trains)
    if len(listed) < at_least:
        raise ValueError(f"{name} has {len(listed)} repeats: it must have at least {at_least}")
    for i, times in enumerate(listed):
        _checked(f"{name}[{i}]", times)
    return [np.asarray(times) for times in listed]


def _within(name: str, times: Any, duration: float) -> np.ndarray:
    """Return a train that is no longer than the observed time."""
    train = _checked(name, times)
    if len(train) and train[-1] - train[0] > duration + _SLACK + _slack_of([times]):
        raise ValueError(f"duration = {duration:g} ms is shorter than the train, {train[-1] - train[0]:g} ms")
    return train


def _slack_of(trains: Sequence[Any]) -> float:
    """Return how far the latest time may lie from where it belongs, ms."""
    return float(max(np.max(_rounding(np.asarray(x)), initial=0.0) for x in trains))


def _rounding(times: np.ndarray) -> np.ndarray:
    """Return two units in the last place of each time's precision.

    One for the time and one for the step that it is a multiple of: 7 x 0.1 is no longer 0.7, least of all in float32.
    """
    kind: Any = times.dtype if np.issubdtype(times.dtype, np.floating) else float
    units: np.ndarray = 2.0 * float(np.finfo(kind).eps) * np.abs(times.astype(float))
    return units
