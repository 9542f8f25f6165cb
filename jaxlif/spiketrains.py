"""Spike trains as sorted lists of times in ms: statistics of one train, similarity and distance of two.

NumPy only: nothing here is differentiated, and nothing here knows a neuron. A *train* is a one-dimensional
array of sorted spike times (ms); *trains* is a list of them, one per repeat of the same stimulus.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Times on a grid differ from a window of whole steps by rounding (10.4 - 10.0 > 0.4): a slack far above the
# rounding and far below any sampling interval makes the window closed, whatever the grid.
_SLACK = 1e-6  # ms


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
    dt, grid = _positive(dt, "dt"), np.asarray(spikes)
    if grid.ndim not in (1, 2):
        raise ValueError(f"spikes has shape {grid.shape}: it must be [T] or [T, N]")
    if not np.isin(grid, (0, 1)).all():
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
    if len(times) and np.ndim(times[0]) > 0:
        return np.stack([raster(train, dt, num_steps) for train in times], axis=1)
    dt, train = _positive(dt, "dt"), _train(times, "times")
    steps = np.ceil(train / dt - _SLACK).astype(int) - 1
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
    return np.diff(_train(times, "times"))


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
    duration, train = _positive(duration, "duration"), _train(times, "times")
    if len(train) and train[-1] - train[0] > duration + _SLACK:
        raise ValueError(f"duration = {duration:g} ms is shorter than the train, {train[-1] - train[0]:g} ms")
    return 1000.0 * len(train) / duration


def coincidence_factor(
    data: ArrayLike, model: ArrayLike, *, duration: float, delta: float = 4.0, rate: float | None = None
) -> float:
    r"""Score a model train by its coincidences with a recorded one, 1 for all and 0 for as many as by chance.

    .. math::
        \Gamma = \frac{N_c - 2 \nu \Delta N_d}{\frac{1}{2} (N_d + N_m)} \cdot \frac{1}{1 - 2 \nu \Delta}

    The coincidences :math:`N_c` are the largest number of *one-to-one* matches within :math:`\pm\Delta`: a
    burst of model spikes beside one recorded spike counts once. Some programs count every recorded spike that
    has a model spike nearby, and then score bursts too well. :math:`2 \nu \Delta N_d` is what a Poisson train
    of rate :math:`\nu` gets.

    Args:
        data: recorded spike times, ms, [N_d].
        model: the model's spike times, ms, [N_m].
        duration: observed time, ms.
        delta: half-width of the window, ms.
        rate: :math:`\nu` of the Poisson train, Hz; by default the model's own, N_m / duration. With that
            default the factor is not symmetric in data and model.

    Returns:
        The factor, exactly 1 for identical trains. It is nan where it is undefined: no spike in either train,
        or :math:`2 \nu \Delta \ge 1`, where a Poisson train already meets every spike (125 Hz at 4 ms).

    Raises:
        ValueError: a train is not sorted and finite, or longer than the duration; delta or rate is negative.

    Example:
        >>> coincidence_factor([10.0, 50.0, 90.0], [11.0, 49.0, 90.0], duration=1000.0)
        1.0
        >>> round(coincidence_factor([10.0, 50.0, 90.0], [11.0, 12.0, 70.0], duration=1000.0), 4)
        0.3169

    Source: Kistler, Gerstner & van Hemmen 1997, doi:10.1162/neco.1997.9.5.1015; Jolivet et al. 2008,
    doi:10.1016/j.jneumeth.2007.11.006.
    """
    data, model, delta = _train(data, "data"), _train(model, "model"), _not_negative(delta, "delta")
    firing_rate(data, duration)  # the data too must fit into the duration
    own_rate = firing_rate(model, duration)
    nu = own_rate if rate is None else _not_negative(rate, "rate", "Hz")
    chance = 2.0 * nu * delta / 1000.0
    total = len(data) + len(model)
    if total == 0 or chance >= 1.0:
        return float("nan")
    matched, expected = 2.0 * _matches(data, model, delta) / total, 2.0 * len(data) / total * chance
    return float((matched - expected) / (1.0 - chance))


def mean_coincidence_factor(
    data_trains: Sequence[ArrayLike],
    model_trains: Sequence[ArrayLike],
    *,
    duration: float,
    delta: float = 4.0,
    rate: float | None = None,
) -> float:
    r"""Average the coincidence factor over all pairs of a recorded and a model repeat.

    :math:`\bar\Gamma = \frac{1}{R_d R_m} \sum_{ij} \Gamma(d_i, m_j)`. Divide by `reliability` for the share
    of the reproducible spikes; not where that is small, since the quotient then explodes for a model that
    fires too often.

    Args:
        data_trains: the recorded repeats, a list of trains, ms.
        model_trains: the model's repeats; a list of one for a deterministic model.
        duration: observed time of each repeat, ms.
        delta: half-width of the window, ms.
        rate: of the Poisson comparison train, Hz; by default each model train's own.

    Returns:
        The mean; nan if one of the factors is.

    Raises:
        ValueError: a list is empty, or what `coincidence_factor` raises.

    Example:
        >>> round(mean_coincidence_factor([[10.0, 50.0], [12.0, 80.0]], [[11.0, 50.0]], duration=1000.0), 4)
        0.7459

    Source: Jolivet et al. 2008, doi:10.1016/j.jneumeth.2007.11.006.
    """
    data_trains, model_trains = _trains(data_trains, "data_trains"), _trains(model_trains, "model_trains")
    factors = [
        coincidence_factor(data, model, duration=duration, delta=delta, rate=rate)
        for data in data_trains
        for model in model_trains
    ]
    return float(np.mean(factors))


def reliability(trains: Sequence[ArrayLike], *, duration: float, delta: float = 4.0) -> float:
    r"""Score how well a cell predicts itself: the coincidence factor between its repeats.

    :math:`R = \frac{2}{n (n - 1)} \sum_{i<j} \frac{1}{2} [\Gamma(i, j) + \Gamma(j, i)]`; both orders, because
    the chance level follows the rate of the second train.

    Args:
        trains: at least two repeats of the same stimulus, ms.
        duration: observed time of each repeat, ms.
        delta: half-width of the window, ms.

    Returns:
        The mean factor; 1 for repeats that are all the same, about 0 for unrelated ones, nan if a factor is.

    Raises:
        ValueError: fewer than two repeats, or what `coincidence_factor` raises.

    Example:
        >>> round(reliability([[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]], duration=1000.0), 4)
        0.6612

    Source: Naud et al. 2011, doi:10.1162/NECO_a_00208.
    """
    repeats = _trains(trains, "trains", at_least=2)
    factors = [
        coincidence_factor(first, second, duration=duration, delta=delta)
        for i, first in enumerate(repeats)
        for j, second in enumerate(repeats)
        if i != j
    ]
    return float(np.mean(factors))


def md_star(data_trains: Sequence[ArrayLike], model_trains: Sequence[ArrayLike], *, delta: float = 4.0) -> float:
    r"""Score a model by the likeness of its spike density to the cell's, corrected for the few repeats.

    .. math::
        M_d^* = \frac{2 \langle \nu_d, \nu_m \rangle}{C_{dd} + C_{mm}},
        \qquad C_{dd} = \frac{2}{n (n - 1)} \sum_{i<j} \langle d_i, d_j \rangle

    :math:`\langle a, b \rangle` is the number of pairs of spikes within :math:`\pm\Delta` (all pairs, not
    one-to-one) and :math:`\langle \nu_d, \nu_m \rangle` its mean over repeats. Leaving :math:`i = j` out of
    the norms keeps the spikes' own noise from inflating them, so that the cell's own distribution scores 1
    however few the repeats.

    Args:
        data_trains: at least two recorded repeats of the same stimulus, ms.
        model_trains: the model's repeats of it; a single one is taken as deterministic, with its own norm for
            C_mm.
        delta: half-width of the window, ms.

    Returns:
        The score, 1 for the same density; sampling noise can lift it above 1. It means nothing where the
        repeats hardly coincide (C_dd near 0: compare with `reliability`), and is nan where both norms are 0.

    Raises:
        ValueError: fewer than two recorded repeats, no model repeat, a train not sorted and finite, delta
            negative.

    Example:
        >>> round(md_star([[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]], [[11.0, 70.0]]), 4)
        0.6

    Source: Naud, Gerhard, Mensi & Gerstner 2011, doi:10.1162/NECO_a_00208.
    """
    data, delta = _trains(data_trains, "data_trains", at_least=2), _not_negative(delta, "delta")
    model = _trains(model_trains, "model_trains")
    cross = _pairs(_pool(data), _pool(model), delta) / (len(data) * len(model))
    norms = _norm(data, delta) + _norm(model, delta)
    return 2.0 * cross / norms if norms > 0 else float("nan")


def jackknife_error(statistic: Callable[[list[np.ndarray]], float], trains: Sequence[ArrayLike]) -> float:
    r"""Estimate the standard error of a score over the repeats it was computed from.

    :math:`SE^2 = \frac{n - 1}{n} \sum_i (\theta_{(i)} - \bar\theta)^2` with :math:`\theta_{(i)}` the score
    without repeat i. A bootstrap would draw the same repeat twice, and a repeat coincides perfectly with
    itself: it lifts every score over pairs of repeats. The error says nothing about another stimulus.

    Args:
        statistic: takes a list of trains, returns the score.
        trains: the repeats, ms; one more than the statistic itself needs.

    Returns:
        The standard error, in the score's unit.

    Raises:
        ValueError: fewer than two repeats, or what the statistic raises.

    Example:
        >>> trains = [[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]]
        >>> round(jackknife_error(lambda some: reliability(some, duration=1000.0), trains), 4)
        0.3388

    Source: Efron & Stein 1981, doi:10.1214/aos/1176345462.
    """
    repeats = _trains(trains, "trains", at_least=2)
    scores = np.array([statistic(repeats[:i] + repeats[i + 1 :]) for i in range(len(repeats))])
    return float(np.sqrt((len(repeats) - 1) * scores.var()))


def van_rossum(data: ArrayLike, model: ArrayLike, *, tau: float) -> float:
    r"""Measure the squared distance of two trains filtered by a causal exponential.

    .. math::
        D^2 = \frac{1}{\tau} \int_0^\infty (f - g)^2 dt
            = \frac{1}{2} \sum_k h_k^2 \left(1 - e^{-2 (t_{k+1} - t_k) / \tau}\right)

    with :math:`f(t) = \sum_{t_i \le t} e^{-(t - t_i)/\tau}`, g likewise, and :math:`h_k = f - g` just after
    event k: exact, and a sum of squares, so that nothing cancels.

    Args:
        data: spike times, ms.
        model: spike times, ms.
        tau: decay time of the filter, ms.

    Returns:
        :math:`D^2`, dimensionless: 1/2 for a spike against none, 1 for two spikes far apart, exactly 0 for
        identical trains. Its square root obeys the triangle inequality.

    Raises:
        ValueError: a train is not sorted and finite, or tau is not positive.

    Example:
        >>> van_rossum([10.0], [], tau=5.0)
        0.5

    Source: van Rossum 2001, doi:10.1162/089976601300014321.
    """
    data, model, tau = _train(data, "data"), _train(model, "model"), _positive(tau, "tau")
    times, event = np.unique(np.concatenate([data, model]), return_inverse=True)
    jumps = np.bincount(event, np.repeat([1.0, -1.0], [len(data), len(model)]), minlength=len(times))
    gaps = np.diff(times, append=np.inf) / tau
    after, difference = np.empty_like(times), 0.0
    for k, (jump, decay) in enumerate(zip(jumps, np.exp(-gaps), strict=True)):
        after[k] = difference + jump
        difference = after[k] * decay
    return float(-0.5 * np.sum(after**2 * np.expm1(-2.0 * gaps)))


def victor_purpura(data: ArrayLike, model: ArrayLike, *, cost: float) -> float:
    r"""Measure the least cost of turning one train into the other.

    .. math::
        G_{ij} = \min(G_{i-1,j} + 1,\; G_{i,j-1} + 1,\; G_{i-1,j-1} + q |d_i - m_j|)

    Deleting or inserting a spike costs 1, moving it q per ms.

    Args:
        data: spike times, ms, [n].
        model: spike times, ms, [m].
        cost: q, 1/ms; spikes further apart than 2/q are never moved onto each other.

    Returns:
        :math:`G_{nm}`, dimensionless: the difference of the counts at q = 0, the number of spikes not shared
        at large q.

    Raises:
        ValueError: a train is not sorted and finite, or the cost is negative.

    Example:
        >>> victor_purpura([10.0, 50.0], [12.0], cost=0.25)
        1.5

    Source: Victor & Purpura 1996, doi:10.1152/jn.1996.76.2.1310.
    """
    data, model, cost = _train(data, "data"), _train(model, "model"), _not_negative(cost, "cost", "1/ms")
    inserted = np.arange(len(model) + 1.0)
    row = inserted
    for count, time in enumerate(data, start=1):
        moved = np.minimum(row[1:] + 1.0, row[:-1] + cost * np.abs(model - time))
        # Insertions run along the row: min over k <= j of (candidate_k + j - k), as one running minimum.
        row = np.minimum.accumulate(np.concatenate([[count], moved]) - inserted) + inserted
    return float(row[-1])


def _matches(data, model, delta):
    """Count the largest one-to-one matching: for sorted times, taking the earliest free pair is optimal."""
    i, j, matched, window = 0, 0, 0, delta + _SLACK
    first, second = data.tolist(), model.tolist()  # plain floats are faster to compare one by one
    while i < len(first) and j < len(second):
        lag = second[j] - first[i]
        matched += abs(lag) <= window
        i, j = i + (lag >= -window), j + (lag <= window)
    return matched


def _pairs(first, second, delta):
    """Count all pairs of spikes within the window: Kistler's inner product of two trains."""
    window = delta + _SLACK
    ends = np.searchsorted(second, first + window, side="right")
    return int(np.sum(ends - np.searchsorted(second, first - window, side="left")))


def _norm(trains, delta):
    """Average the inner product over different repeats, or take the only repeat's own."""
    own = sum(_pairs(train, train, delta) for train in trains)
    count = len(trains)
    pooled = _pool(trains)
    return float(own) if count == 1 else (_pairs(pooled, pooled, delta) - own) / (count * (count - 1))


def _pool(trains):
    return np.sort(np.concatenate(trains))


def _train(times, name) -> np.ndarray:
    train = np.asarray(times, dtype=float)
    if train.ndim != 1:
        raise ValueError(f"{name} has shape {train.shape}: a train must be a list of times in ms, [n]")
    if not np.isfinite(train).all():
        raise ValueError(f"{name} holds a time that is not finite: every spike time must be a number of ms")
    if np.any(np.diff(train) < 0):
        raise ValueError(f"{name} is not sorted: spike times in ms must not decrease")
    return train


def _trains(trains, name, at_least=1) -> list[np.ndarray]:
    if len(trains) < at_least:
        raise ValueError(f"{name} has {len(trains)} repeats: it must have at least {at_least}")
    return [_train(times, f"{name}[{i}]") for i, times in enumerate(trains)]


def _positive(value, name):
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value} ms: it must be positive")
    return float(value)


def _not_negative(value, name, unit="ms"):
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} = {value} {unit}: it must not be negative")
    return float(value)
