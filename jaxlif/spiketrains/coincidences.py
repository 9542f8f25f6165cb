"""How alike spike trains are: coincidences in windows, against chance and against the cell's own repeats."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxlif.checks import not_negative
from jaxlif.spiketrains.trains import SLACK, checked_train, checked_trains, firing_rate, rounding


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
    delta = not_negative("delta", delta, "ms")
    given = data, model
    data, model = checked_train(data, "data"), checked_train(model, "model")
    window = delta + rounding(*given)
    firing_rate(data, duration)  # the data too must fit into the duration
    own_rate = firing_rate(model, duration)
    nu = own_rate if rate is None else not_negative("rate", rate, "Hz")
    chance = 2.0 * nu * delta / 1000.0
    total = len(data) + len(model)
    if total == 0 or chance >= 1.0:
        return float("nan")
    matched, expected = 2.0 * _matches(data, model, window) / total, 2.0 * len(data) / total * chance
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
    data_trains, model_trains = checked_trains(data_trains, "data_trains"), checked_trains(model_trains, "model_trains")
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
    repeats = checked_trains(trains, "trains", at_least=2)
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
    delta, data = not_negative("delta", delta, "ms"), checked_trains(data_trains, "data_trains", at_least=2)
    model = checked_trains(model_trains, "model_trains")
    delta += rounding(*data, *model)
    data, model = ([train.astype(float) for train in trains] for trains in (data, model))
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
    repeats = checked_trains(trains, "trains", at_least=2)
    scores = np.array([statistic(repeats[:i] + repeats[i + 1 :]) for i in range(len(repeats))])
    return float(np.sqrt((len(repeats) - 1) * scores.var()))


def _matches(data, model, delta):
    """Count the largest one-to-one matching: for sorted times, taking the earliest free pair is optimal."""
    i, j, matched, window = 0, 0, 0, delta + SLACK
    first, second = data.tolist(), model.tolist()  # plain floats are faster to compare one by one
    while i < len(first) and j < len(second):
        lag = second[j] - first[i]
        matched += abs(lag) <= window
        i, j = i + (lag >= -window), j + (lag <= window)
    return matched


def _pairs(first, second, delta):
    """Count all pairs of spikes within the window: Kistler's inner product of two trains."""
    window = delta + SLACK
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
