"""Where the spikes of a recorded voltage are: one rule, and what it leaves out."""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jaxlif.checks import number, numbers
from jaxlif.recordings.recording import Recording

METHODS = ("level", "dvdt")
PEAK = 20.0  # mV by which a fast peak stands out on both sides: one that may be a spike
BESIDE = 10.0  # ms on either side in which it does
AGAIN = 1.0  # ms after a crossing within which another one is noise on the same flank


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
        if self.method not in METHODS:
            raise ValueError(f'method = {self.method!r}: it must be "level" or "dvdt"')
        units = {"threshold": "mV", "slope": "mV/ms", "height": "mV"}
        for name, value in list(asdict(self).items())[1:]:
            unit = units.get(name, "ms")
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float | np.integer | np.floating)
                or not np.isfinite(value)
            ):
                raise ValueError(f"{name} = {value!r}: {name} must be a finite number of {unit}")
            if value < 0 and name != "threshold":
                raise ValueError(f"{name} = {value} {unit}: {name} must be 0 {unit} or more")

    def find(self, recording: Recording) -> np.ndarray:
        """Return the known spikes of a recording, or those that the rule finds in its voltage, [sweeps, T]."""
        if recording.spikes is not None:
            return recording.spikes
        return detect_spikes(recording.measured_voltage(), recording.dt, **asdict(self))


class LeftOut(NamedTuple):
    """What looks like a spike and is none by a rule: how often, in all sweeps.

    ``below``, fast peaks that end under the level, the highest of them at ``highest`` mV; ``dead``, within the dead
    time; ``plateaus``, crossings after which the voltage does not return in time, the longest at or above the level for
    ``longest`` ms; ``again``, crossings before it has returned; ``unfinished``, sweeps that end before it has;
    ``slow``, crossings without the steep foot that "dvdt" asks for.
    """

    below: int
    highest: float
    dead: int
    plateaus: int
    longest: float
    again: int
    unfinished: int
    slow: int


def detect_spikes(voltage: np.ndarray, dt: float, **rule: Any) -> np.ndarray:
    """Mark the spikes of a voltage trace.

    Args:
        voltage: membrane potential, [T] or [sweeps, T], mV.
        dt: sampling interval, ms.
        rule: what counts as a spike: the fields of :class:`SpikeRule`.

    Returns:
        A boolean raster of the shape of ``voltage``.

    Raises:
        ValueError: for another shape, values that are not finite, a dt that is not positive, or a rule that cannot be.

    Example:
        >>> detect_spikes(np.array([-60.0, -20.0, 30.0, -70.0, -60.0]), 1.0).astype(int)
        array([0, 0, 1, 0, 0])
        >>> detect_spikes(np.array([-60.0, -20.0, 30.0, -70.0, -60.0]), 1.0, method="dvdt").astype(int)
        array([0, 1, 0, 0, 0])
    """
    wanted = SpikeRule(**rule)
    voltage = np.asarray(numbers("voltage", voltage, "mV", finite=False), np.float64)
    _check(voltage, number("dt", dt, "ms"))
    spikes = np.zeros(voltage.shape, bool)
    for raster, v in zip(np.atleast_2d(spikes), np.atleast_2d(voltage), strict=True):
        raster[_sorted_crossings(v, dt, wanted).spikes] = True
    return spikes


def left_out(voltage: np.ndarray, dt: float, rule: SpikeRule) -> LeftOut:
    """Count what looks like a spike and is none by a rule.

    Args:
        voltage: [sweeps, T], mV.
        dt: ms.
        rule: by which spikes were found.

    Example:
        >>> v = np.full((1, 1000), -60.0)
        >>> v[0, 100:700] = 5.0
        >>> left_out(v, 0.1, SpikeRule()).plateaus, left_out(v, 0.1, SpikeRule()).longest
        (1, 60.0)
    """
    each = [_sorted_crossings(v, dt, rule) for v in voltage]
    peaks = np.concatenate([_peaks_below(v, dt, rule) for v in voltage])
    return LeftOut(
        below=peaks.size,
        highest=float(peaks.max(initial=-np.inf)),
        longest=max(sweep.longest for sweep in each),
        **{name: sum(getattr(s, name) for s in each) for name in ("dead", "plateaus", "again", "unfinished", "slow")},
    )


def spike_notes(recording: Recording, rule: SpikeRule) -> tuple[str, ...]:
    """Say what looks like a spike and was not counted as one, and which option counts it.

    Args:
        recording: whose spikes the rule found; where they are known a rule of one's own is not used.
        rule: the rule.
    """
    if recording.spikes is not None and rule != SpikeRule():
        return ("the recording holds its spikes: they were taken, and not those that the spike rule would find",)
    if recording.voltage is None:
        return ()
    if recording.spikes is not None:
        known, found = (int(np.sum(x)) for x in (recording.spikes, rule.find(replace(recording, spikes=None))))
        missed = f"the recording's own spikes are {known} where its voltage has {found}: are some missing?"
        return (missed,) if found > 1.1 * known else ()
    out, level = left_out(recording.voltage, recording.dt, rule), f"{rule.threshold:g} mV"
    texts = {
        f"fast peaks end below {level}, the highest at {out.highest:.3g} mV, and are not counted as spikes: lower the"
        " spike threshold (--spike-threshold) if they are": out.below,
        f"crossings of {level} come within the dead time of {rule.dead_time:g} ms after a spike and are not counted:"
        " shorten it (--dead-time) if they are spikes": out.dead,
        f"times the voltage stays above {level}, for up to {out.longest:.4g} ms: these are no spikes, which fall"
        f" {rule.height:g} mV below it within {rule.width:g} ms (--spike-width, --spike-threshold)": out.plateaus,
        f"more crossings of {level} come before the voltage has fallen {rule.height:g} mV below it, and count as one"
        " spike with the one before: raise the spike threshold (--spike-threshold) if they are two": out.again,
        f"crossings of {level} rise slower than {rule.slope:g} mV/ms and are not counted as spikes: use"
        " --spike-method level if they are": out.slow,
        f"sweeps end above {level}, or before a last crossing has fallen back: it is not counted as a spike": (
            out.unfinished
        ),
    }
    return tuple(f"{count} {text}" for text, count in texts.items() if count)


class _Crossings(NamedTuple):
    """The upward crossings of one sweep: the samples that are marked as spikes, and how many of the others are what."""

    spikes: list[int]
    dead: int
    plateaus: int
    again: int
    unfinished: int
    slow: int
    longest: float


def _sorted_crossings(v: np.ndarray, dt: float, rule: SpikeRule) -> _Crossings:
    crossings = _upward(v, rule.threshold)
    returned = np.append(np.flatnonzero(v <= rule.threshold - rule.height), v.size)
    # The excursion that a crossing belongs to, by the sample at which it has returned.
    ends = returned[np.searchsorted(returned, crossings)]
    first = np.append(True, ends[1:] != ends[:-1])[: crossings.size]
    wide = ends - crossings > steps_of(rule.width, dt)
    open_ended = (ends == v.size) & ~wide
    good = crossings[first & ~wide & ~open_ended]
    marked, slow = (good.tolist(), 0) if rule.method == "level" else _feet(v, good, dt, rule)
    spikes = _separate(marked, steps_of(rule.dead_time, dt))
    plateaus = crossings[first & wide]
    far = np.append(False, np.diff(crossings) > AGAIN / dt)[: crossings.size]
    return _Crossings(
        spikes=spikes,
        dead=len(marked) - len(spikes),
        plateaus=plateaus.size,
        again=int((~first & far & ~wide & ~open_ended).sum()),
        unfinished=int((first & open_ended).any()),
        slow=slow,
        longest=max((dt * _time_above(v, int(n), rule.threshold) for n in plateaus), default=0.0),
    )


def _check(voltage: np.ndarray, dt: float) -> None:
    if voltage.ndim not in (1, 2):
        raise ValueError(f"voltage has shape {voltage.shape}: [T] or [sweeps, T] is expected")
    if not np.isfinite(voltage).all():
        raise ValueError(f"voltage has {int((~np.isfinite(voltage)).sum())} values that are not finite")
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"dt = {dt} ms: dt must be greater than 0 ms")


def steps_of(time: float, dt: float) -> int:
    """Return the samples that a time takes, up to rounding."""
    return int(np.ceil(time / dt * (1.0 - 1e-6)))


def _upward(x: np.ndarray, level: float) -> np.ndarray:
    return np.flatnonzero((x[1:] >= level) & (x[:-1] < level)) + 1


def _time_above(v: np.ndarray, crossing: int, level: float) -> int:
    fallen = v[crossing:] < level
    return int(fallen.argmax()) if fallen.any() else v.size - crossing


def _feet(v: np.ndarray, crossings: np.ndarray, dt: float, rule: SpikeRule) -> tuple[list[int], int]:
    """Return the first steep sample before each crossing, and how many crossings have none."""
    steep = _upward(np.diff(v, prepend=v[:1]) / dt, rule.slope)
    # Not before the last crossing: that foot is the last spike's.
    after_last = np.append(0, crossings + 1)[:-1]
    first = np.searchsorted(steep, np.maximum(crossings - steps_of(rule.peak_within, dt), after_last))
    found = first < np.searchsorted(steep, crossings, side="right")
    return steep[first[found]].tolist(), int((~found).sum())


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
    return v[peaks]
