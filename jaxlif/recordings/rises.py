"""Fast peaks of a voltage, by how far and how steeply it rises and falls, whatever voltage they reach."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SLOWEST = 10.0  # mV/ms: slower than any spike's rise, and faster than a membrane that is driven
NEIGHBOUR = 1.5  # factor between a level and the next one
_FEW_MORE = 1.5  # times the peaks above a level that may be above the next lower one
TALLEST = 3.0  # times the level by which the steepest rise exceeds it, at least
GAP = 1.5  # ratio of two slopes between which there is a gap
NEAR = 5.0  # ms before a peak from which its height is measured, and after a spike in which the voltage falls by itself
_OVER = 0.5  # ms over which a rise is measured: noise of 1 mV is then 3 mV/ms, and a spike's rise is hardly blunted
_BRIEF = 0.4  # ms: what is shorter as a whole is no spike, whose foot is wider even where its half is 0.2 ms
_SAMPLES, _FINE = 3, 0.25  # that an artefact has at most, where they are finer than 0.25 ms and a spike has more
_AT_ONCE = 0.1  # ms in which an artefact rises by most of its height, and no spike does
_MOST = 0.75  # of the height
_COARSE = 0.5  # ms: where samples are farther apart, a spike may rise and fall in one of them as an artefact does
_RESET = 3.0  # mV by which a peak that is drawn for a sample or two, or a very fast spike, leaves the voltage lower
_ALIKE, _SATURATED = 3, 100.0  # peaks of exactly one voltage, mV, that are drawn; from there on an amplifier's end
_CHUNK = 4_000_000  # samples around peaks that are looked at together


class Rises(NamedTuple):
    """The fast peaks of a sweep, of each: the sample at which it crosses half of its height, and what it is like.

    ``sudden`` is one that no membrane makes by itself, and ``reset`` one after which the voltage is lower than before.
    """

    crossing: Int[np.ndarray, " peaks"]
    top: Float[np.ndarray, " peaks"]  # mV
    height: Float[np.ndarray, " peaks"]  # mV
    slope: Float[np.ndarray, " peaks"]  # mV/ms
    sudden: Bool[np.ndarray, " peaks"]
    reset: Bool[np.ndarray, " peaks"]


def steps_of(time: float, dt: float) -> int:
    """Return the samples that a time takes, up to rounding."""
    return int(np.ceil(time / dt * (1.0 - 1e-6)))


def rises(v: Float[np.ndarray, " T"], dt: float, height: float, width: float) -> Rises:
    """Return the peaks that stand out by a height (mV) from what is 5 ms before and ``width`` (ms) after them.

    Between two peaks the voltage falls as far. The height is that of the voltage without what lasts under 0.4 ms.
    """
    brief = max(int(_BRIEF / dt * (1.0 + 1e-6)), _SAMPLES if dt <= _FINE else 0) + 1
    filled = -_opened(-v, brief)  # an artefact downwards is filled up
    slow = _opened(filled, brief)
    found = _standing_out(filled, slow, dt, height, width)
    if brief == 1:
        return found
    short = _standing_out(filled, slow, dt, height, width, short=True)
    order = np.argsort(np.append(found.crossing, short.crossing), kind="stable")
    return Rises(*(np.append(a, b)[order] for a, b in zip(found, short, strict=True)))


def _standing_out(
    filled: np.ndarray, slow: np.ndarray, dt: float, height: float, width: float, short: bool = False
) -> Rises:
    """Return the peaks of what is slow, or the short ones, which are no peaks of it."""
    v = filled if short else slow
    before, after = steps_of(NEAR, dt), steps_of(width, dt)
    peaks = _peaks(v, np.maximum(_lowest(v, before, 0), _lowest(v, 0, after)) + height, height)
    bounds = np.concatenate([[0], peaks, [v.size - 1]])
    first, last = np.maximum(peaks - before, bounds[:-2]), np.minimum(peaks + before, bounds[2:])
    parts = np.array_split(np.arange(peaks.size), 1 + peaks.size * before // _CHUNK)
    found = []
    for n in parts:
        back = np.maximum(peaks[n, None] - np.arange(before, -1, -1), first[n, None])
        ahead = np.minimum(peaks[n, None] + np.arange(before + 1), last[n, None])
        # Of two tops that are equal the second has no foot.
        tall = v[peaks[n]] - v[back].min(axis=1)
        kept = tall >= height
        if short:
            kept &= slow[peaks[n]] - slow[back].min(axis=1) < np.minimum(height, 0.5 * tall)
        found.append(_measured(filled, slow, back[kept], ahead[kept], dt, short))
    return Rises(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _peaks(v: np.ndarray, least: np.ndarray, height: float) -> np.ndarray:
    """Return the peaks that reach what they have to, each by a height above what lies between it and a higher one."""
    from scipy.signal import find_peaks  # takes half a second to load

    high = np.concatenate([[False], v >= least, [False]])
    # A run of high samples ends with one that is lower than all, which parts it from the next run.
    (own,) = np.nonzero(high[1:] | high[:-1])
    tops = np.append(-np.inf, np.where(high[own + 1], v[np.minimum(own, v.size - 1)], -np.inf))
    peaks, _ = find_peaks(tops, prominence=height)
    return np.asarray(own[peaks - 1])


def _measured(
    filled: np.ndarray, slow: np.ndarray, back: np.ndarray, ahead: np.ndarray, dt: float, short: bool
) -> Rises:
    """Measure peaks by the samples [peaks, window] that lead to them and follow them."""
    v = filled if short else slow
    up, down = v[back], v[ahead]
    height = up[:, -1] - up.min(axis=1)
    middle = (up[:, -1] - 0.5 * height)[:, None]
    rows, size = np.arange(height.size), back.shape[1]
    crossing = back[rows, np.minimum(size - (up < middle)[:, ::-1].argmax(axis=1), size - 1)]
    lag, over, beside = max(1, round(_AT_ONCE / dt)), max(1, round(_OVER / dt)), steps_of(_BRIEF, dt) + 1
    # Where a spike is hardly longer than an artefact, only its foot is left of it, and that is sudden.
    rise = filled[np.hstack([back, ahead[:, 1:beside]])]
    fall = filled[np.hstack([back[:, -beside:], ahead[:, 1:]])]
    top, least = rise.max(axis=1), _MOST * (rise.max(axis=1) - rise.min(axis=1))
    sudden = (_steepest(up, lag) >= _MOST * height) & (_steepest(rise, lag) >= least) & (dt <= _COARSE)
    sudden &= (dt <= _AT_ONCE * 1.001) | (_steepest(-fall, lag) >= least)
    left = np.maximum(crossing - beside, 0)
    right = np.minimum(ahead[rows, (down < middle).argmax(axis=1)] + beside, slow.size - 1)
    reset = slow[left] - slow[right] >= _RESET
    return Rises(crossing, top, height, _steepest(up, over) / (over * dt), sudden | short, reset)


def _steepest(x: np.ndarray, lag: int) -> np.ndarray:
    return np.asarray((x[:, lag:] - x[:, :-lag]).max(axis=1))


def _opened(x: np.ndarray, samples: int) -> np.ndarray:
    """Return x without its peaks that are shorter than some samples."""
    return -_lowest(-_lowest(x, 0, samples - 1), samples - 1, 0) if samples > 1 else x


def _lowest(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Return the lowest of the samples n - before to n + after, for each n, by windows that double."""
    lowest, length, size = np.pad(x, (before, after), constant_values=np.inf), 1, before + after + 1
    while length < size:
        step = min(length, size - length)
        np.minimum(lowest[:-step], lowest[step:], out=lowest[:-step])
        length += step
    return lowest[: x.size]


def artefacts(each: Sequence[Rises], dt: float) -> list[np.ndarray]:
    """Mark of each sweep the sudden peaks that are no spikes, on the falling flank of which anything is lower after."""
    found = []
    for peaks, drawn in zip(each, _drawn(each), strict=True):
        slow = np.append(-np.inf, peaks.crossing[~peaks.sudden])
        since = peaks.crossing - slow[np.searchsorted(slow, peaks.crossing, side="right") - 1]
        found.append(peaks.sudden & ~(drawn & (since * dt > NEAR)))
    return found


def _drawn(each: Sequence[Rises]) -> list[np.ndarray]:
    """Mark of each sweep the sudden peaks that a model drew: all to one voltage, or most with a reset after them."""
    sudden = [Rises(*(column[peaks.sudden] for column in peaks)) for peaks in each]
    resets, tops = (np.concatenate(column) for column in zip(*((p.reset, p.top) for p in sudden), strict=True))
    if tops.size >= _ALIKE and np.ptp(tops) == 0.0 and tops[0] < _SATURATED:
        return [peaks.sudden for peaks in each]
    mostly = bool(resets.size) and resets.mean() >= 0.5
    return [peaks.sudden & peaks.reset & mostly for peaks in each]


def level_of(slopes: np.ndarray) -> float:
    """Return the slope (mV/ms) that parts peaks best: the middle of the widest gap between their slopes, in ratio.

    It lies between the slowest that a spike may have and a third of the steepest; without a gap, it is the slowest.
    """
    top = float(slopes.max(initial=0.0)) / TALLEST
    if top <= SLOWEST:
        return SLOWEST
    edges = np.sort(np.concatenate([[SLOWEST, top], slopes[(slopes > SLOWEST) & (slopes < top)]]))
    widest = int(np.argmax(edges[1:] / edges[:-1]))
    if edges[widest + 1] < GAP * edges[widest]:
        return SLOWEST
    return float(np.sqrt(edges[widest] * edges[widest + 1]))


def apart_from(sizes: np.ndarray) -> float:
    """Return the factor, 1 or more, that spikes exceed their least size by, where smaller peaks are not much fewer.

    Peaks of a driven membrane become rarer with their size all the way, and spikes are a group by themselves: there are
    no more than half as many peaks again up to a neighbouring level below theirs. Without a group nothing is as large.
    """
    factors = 1.05 ** np.arange(200)
    many, few = (sizes.size - np.searchsorted(np.sort(sizes), level) for level in (factors / NEIGHBOUR, factors))
    return float(factors[np.argmax(many <= _FEW_MORE * few)])
