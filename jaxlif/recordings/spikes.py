"""Where the spikes of a recorded voltage are: one rule, and what it leaves out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from jaxlif.checks import choice, not_negative, number, numbers, positive
from jaxlif.recordings.recording import Recording

METHODS = ("level", "dvdt")
PEAK = 20.0  # mV by which a fast peak stands out on both sides: one that may be a spike
BESIDE = 10.0  # ms on either side in which it does
AGAIN = 1.0  # ms after a crossing within which another one is noise on the same flank
_UNITS = {"threshold": "mV", "slope": "mV/ms", "height": "mV"}


@dataclass(frozen=True)
class SpikeRule:
    r"""What counts as a spike, the same for every command.

    The voltage crosses ``threshold`` upwards, :math:`v_{n-1} < \theta \le v_n`, and has fallen ``height`` below it
    within ``width``. Between two spikes it falls as far, so that noise on a flank makes no second one. What starts
    above the level, stays there as a plateau does, or ends there with its sweep is no spike.

    Args:
        method: which sample is marked: "level", the first at or above ``threshold``; or "dvdt", the foot, the first at
            which dV/dt reaches ``slope``. A crossing without such a foot is then no spike.
        threshold: the voltage that a spike reaches, mV.
        slope: the rate of rise that a spike's foot reaches, mV/ms.
        dead_time: a spike that comes less than this after the last one is not counted, ms.
        height: depth below ``threshold`` from which a spike comes and to which it returns, mV.
        width: the longest time from the crossing until the voltage has returned, ms.
        peak_within: the longest time from the foot to ``threshold``, ms.

    Raises:
        ValueError: for another method, values that are not finite, or one below 0 that cannot be.

    Source: 20 mV/ms is the slope (``dv_cutoff``) of the Allen Institute's ipfx.
    """

    method: str = "level"
    threshold: float = 0.0
    slope: float = 20.0
    dead_time: float = 0.5
    height: float = 10.0
    width: float = 20.0
    peak_within: float = 2.0

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        for name, value in list(asdict(self).items())[1:]:
            unit = _UNITS.get(name, "ms")
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ValueError(f"{name} = {value!r}: {name} must be a number, {unit}")
            (number if name == "threshold" else not_negative)(name, value, unit)

    def find(self, recording: Recording) -> Bool[np.ndarray, "sweeps T"]:
        """Return the known spikes of a recording, or those that the rule finds in its voltage."""
        if recording.spikes is not None:
            return recording.spikes
        return detect_spikes(recording.measured_voltage(), recording.dt, **asdict(self))


def detect_spikes(voltage: ArrayLike, dt: float, **rule: Any) -> Bool[np.ndarray, "*sweeps T"]:
    """Mark the spikes of a voltage [T] or [sweeps, T], mV, by the fields of :class:`SpikeRule`.

    Example:
        >>> detect_spikes(np.array([-60.0, -20.0, 30.0, -70.0, -60.0]), 1.0, method="dvdt").astype(int)
        array([0, 1, 0, 0, 0])
    """
    wanted = SpikeRule(**rule)
    trace = np.asarray(numbers("voltage", voltage, "mV", rank=(1, 2)), np.float64)
    dt = float(positive("dt", dt, "ms"))
    spikes = np.zeros(trace.shape, bool)
    for raster, v in zip(np.atleast_2d(spikes), np.atleast_2d(trace), strict=True):
        raster[_sorted_crossings(v, dt, wanted).spikes] = True
    return spikes


def spike_notes(recording: Recording, rule: SpikeRule) -> tuple[str, ...]:
    """Say what looks like a spike and was not counted as one by a rule, and which option counts it."""
    if recording.spikes is not None and rule != SpikeRule():
        return ("the recording holds its spikes: they were taken, and not those that the spike rule would find",)
    if recording.voltage is None:
        return ()
    if recording.spikes is None:
        return tuple(_left_out(recording.voltage, recording.dt, rule))
    known, found = (int(np.sum(x)) for x in (recording.spikes, rule.find(replace(recording, spikes=None))))
    missed = f"the recording's own spikes are {known} where its voltage has {found}: are some missing?"
    return (missed,) if found > 1.1 * known else ()


def _left_out(voltage: np.ndarray, dt: float, rule: SpikeRule) -> Iterator[str]:
    each = [_sorted_crossings(v, dt, rule) for v in voltage]
    peaks = np.concatenate([_peaks_below(v, dt, rule) for v in voltage])
    counts = sum((sweep.left_out for sweep in each), Counter(below=peaks.size))
    level = f"{rule.threshold:g} mV"
    texts = {
        "below": f"fast peaks end below {level}, the highest at {peaks.max(initial=-np.inf):.3g} mV, and are not"
        " counted as spikes: lower the spike threshold (--spike-threshold) if they are",
        "dead": f"crossings of {level} come within the dead time of {rule.dead_time:g} ms after a spike and are not"
        " counted: shorten it (--dead-time) if they are spikes",
        "plateaus": f"times the voltage stays above {level}, for up to {max(s.longest for s in each):.4g} ms: these are"
        f" no spikes, which fall {rule.height:g} mV below it within {rule.width:g} ms (--spike-width,"
        " --spike-threshold)",
        "again": f"more crossings of {level} come before the voltage has fallen {rule.height:g} mV below it, and count"
        " as one spike with the one before: raise the spike threshold (--spike-threshold) if they are two",
        "slow": f"crossings of {level} rise slower than {rule.slope:g} mV/ms and are not counted as spikes: use"
        " --spike-method level if they are",
        "unfinished": f"sweeps end above {level}, or before a last crossing has fallen back: it is not counted as a"
        " spike",
    }
    yield from (f"{counts[name]} {text}" for name, text in texts.items() if counts[name])


class _Crossings(NamedTuple):
    """The upward crossings of a sweep: the samples marked as spikes, how many others are what, the longest plateau."""

    spikes: list[int]
    left_out: Counter[str]
    longest: float


def _sorted_crossings(v: np.ndarray, dt: float, rule: SpikeRule) -> _Crossings:
    crossings = _upward(v, rule.threshold)
    returned = np.append(np.flatnonzero(v <= rule.threshold - rule.height), v.size)
    # The excursion that a crossing belongs to, by the sample at which it has returned.
    ends = returned[np.searchsorted(returned, crossings)]
    first = np.append(True, ends[1:] != ends[:-1])[: crossings.size]
    wide = ends - crossings > _steps_of(rule.width, dt)
    open_ended = (ends == v.size) & ~wide
    good = crossings[first & ~wide & ~open_ended]
    marked = good.tolist() if rule.method == "level" else _feet(v, good, dt, rule)
    spikes = _separate(marked, _steps_of(rule.dead_time, dt))
    plateaus = crossings[first & wide]
    far = np.append(False, np.diff(crossings) > AGAIN / dt)[: crossings.size]
    left_out = Counter(
        dead=len(marked) - len(spikes),
        plateaus=plateaus.size,
        again=int((~first & far & ~wide & ~open_ended).sum()),
        unfinished=int((first & open_ended).any()),
        slow=good.size - len(marked),
    )
    return _Crossings(spikes, left_out, max((dt * _time_above(v[n:], rule.threshold) for n in plateaus), default=0.0))


def _steps_of(time: float, dt: float) -> int:
    """Return the samples that a time takes, up to rounding."""
    return int(np.ceil(time / dt * (1.0 - 1e-6)))


def _upward(x: np.ndarray, level: float) -> np.ndarray:
    return np.flatnonzero((x[1:] >= level) & (x[:-1] < level)) + 1


def _time_above(v: np.ndarray, level: float) -> int:
    fallen = v < level
    return int(np.argmax(fallen)) if fallen.any() else v.size


def _feet(v: np.ndarray, crossings: np.ndarray, dt: float, rule: SpikeRule) -> list[int]:
    """Return the first steep sample before each crossing that has one."""
    steep = _upward(np.diff(v, prepend=v[:1]) / dt, rule.slope)
    # Not before the last crossing: that foot is the last spike's.
    after_last = np.append(0, crossings + 1)[:-1]
    first = np.searchsorted(steep, np.maximum(crossings - _steps_of(rule.peak_within, dt), after_last))
    return list(steep[first[first < np.searchsorted(steep, crossings, side="right")]].tolist())


def _separate(candidates: list[int], steps: int) -> list[int]:
    """Keep the first sample, and each that comes at least ``steps`` after the last one kept."""
    kept: list[int] = []
    for sample in candidates:
        if not kept or sample - kept[-1] >= steps:
            kept.append(sample)
    return kept


def _peaks_below(v: np.ndarray, dt: float, rule: SpikeRule) -> np.ndarray:
    """Return the voltages of fast peaks below the level."""
    from scipy.signal import find_peaks  # takes half a second to load

    beside, level = max(1, round(BESIDE / dt)), np.nextafter(rule.threshold, -np.inf)
    # A plateau as long as the window stands out from nothing, and under the median a voltage recovers without a spike.
    height = (float(np.median(v)), level)
    peaks, _ = find_peaks(v, height=height, plateau_size=(None, beside), prominence=PEAK, wlen=2 * beside + 1)
    return np.asarray(v[peaks])
