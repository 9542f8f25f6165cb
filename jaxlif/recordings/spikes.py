"""Where the spikes of a recorded voltage are: one rule, and what it leaves out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from jaxlif.checks import choice, not_negative, number, numbers, positive
from jaxlif.recordings.recording import Recording, remembered
from jaxlif.recordings.rises import NEIGHBOUR, Rises, apart_from, artefacts, level_of, rises, steps_of

METHODS = ("level", "dvdt")
AGAIN = 1.0  # ms after a crossing within which another one is noise on the same flank
_HEIGHT = {True: 15.0, False: 10.0}  # mV, of spikes by their rise, and below a threshold
_SLOPE = 20.0  # mV/ms of a foot below a threshold: ``dv_cutoff`` of ipfx
_LOWEST = -20.0  # mV: where no fast peak of a recording ends above it, they are a membrane's that is driven
_SAME = 0.01  # share of the spikes by which counts may differ that do not depend on the rule
_PLATEAU = 50.0  # times the width, in which a plateau falls back
_UNITS = {"threshold": "mV", "slope": "mV/ms", "height": "mV"}


@dataclass(frozen=True)
class SpikeRule:
    r"""What counts as a spike, the same for every command.

    Without a ``threshold`` a spike is a fast peak, whatever voltage it reaches: it rises by ``height`` within 5 ms and
    as steeply as ``slope``, falls as far within ``width``, and between two of them the voltage falls as far. Its time
    is where it crosses half of its rise upwards. What is over within 0.4 ms, or rises at once, is an artefact, unless
    it leaves the voltage lower than before, as a spike does that a model draws for a sample, or all of them reach
    exactly one voltage, as drawn ones do.

    With a ``threshold`` the voltage crosses it upwards, :math:`v_{n-1} < \theta \le v_n`, and has fallen ``height``
    below it within ``width``. Between two spikes it falls as far, so that noise on a flank makes no second one. What
    starts above the level, stays there as a plateau does, or ends there with its sweep is no spike.

    Args:
        method: which sample is marked: "level", the first at or above the crossed level; or "dvdt", the foot, the first
            at which dV/dt reaches ``slope``. A crossing of a ``threshold`` without such a foot is then no spike.
        threshold: the voltage that a spike reaches, mV; None for spikes by their rise and fall.
        slope: the rate of rise that a spike reaches, mV/ms, over 0.5 ms without a ``threshold``. None finds it in the
            data, in the widest gap between the slopes of fast peaks, or takes 20 for the foot below a ``threshold``.
        dead_time: a spike that comes less than this after the last one is not counted, ms.
        height: the least rise and fall of a spike, or the depth below ``threshold`` from which it comes and to which it
            returns, mV. None is 15, or 10 below a ``threshold``.
        width: the longest time until the voltage has fallen by ``height``, ms.
        peak_within: the longest time from the foot to the crossing, ms.

    Raises:
        ValueError: for another method, values that are not finite, or one below 0 that cannot be.
    """

    method: str = "level"
    threshold: float | None = None
    slope: float | None = None
    dead_time: float = 0.5
    height: float | None = None
    width: float = 20.0
    peak_within: float = 2.0

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        for name, value in list(asdict(self).items())[1:]:
            if value is None and name in _UNITS:
                continue
            unit = _UNITS.get(name, "ms")
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ValueError(f"{name} = {value!r}: {name} must be a number, {unit}")
            (number if name == "threshold" else not_negative)(name, value, unit)

    @property
    def depth(self) -> float:
        """The height, mV, that is asked for or usual."""
        return _HEIGHT[self.threshold is None] if self.height is None else self.height

    def in_words(self) -> str:
        """Say what each spike does by the rule."""
        if self.threshold is not None:
            return f"crosses {self.threshold:g} mV upwards"
        steep = "steeply" if self.slope is None else f"at {self.slope:.3g} mV/ms"
        return f"rises by {self.depth:.3g} mV {steep} and falls as far within {self.width:g} ms"

    def find(self, recording: Recording) -> Bool[np.ndarray, "sweeps T"]:
        """Return the known spikes of a recording, or those that the rule finds in its voltage."""
        return recording.spikes if recording.spikes is not None else _raster(recording, self)

    def found_in(self, recording: Recording) -> "SpikeRule":
        """Return the rule with height and slope that it finds in a recording, to use it on others of the same cell."""
        if recording.spikes is not None or recording.voltage is None or self.threshold is not None:
            return self
        found = _found(recording, self)
        return replace(self, height=found.height, slope=found.slope)


def detect_spikes(voltage: ArrayLike, dt: float, **rule: Any) -> Bool[np.ndarray, "*sweeps T"]:
    """Mark the spikes of a voltage [T] or [sweeps, T], mV, by the fields of :class:`SpikeRule`.

    Example:
        >>> detect_spikes(np.array([-60.0, -20.0, -10.0, -70.0, -60.0]), 1.0).astype(int)
        array([0, 1, 0, 0, 0])
    """
    wanted = SpikeRule(**rule)
    trace = np.asarray(numbers("voltage", voltage, "mV", rank=(1, 2)), np.float64)
    return _marked(trace, _spikes(np.atleast_2d(trace), float(positive("dt", dt, "ms")), wanted))


class _Found(NamedTuple):
    """The samples of the spikes of each sweep, how many peaks are what else, height and slope, the longest plateau."""

    samples: list[list[int]]
    left_out: Counter[str]
    height: float
    slope: float
    longest: float = 0.0


def _spikes(voltage: np.ndarray, dt: float, rule: SpikeRule) -> _Found:
    if rule.threshold is None:
        own = _with_levels(voltage, dt, rule) if rule.slope is None else rule
        return _by_rise([rises(v, dt, own.depth, own.width) for v in voltage], voltage, dt, own)
    each = [_sorted_crossings(v, dt, rule, rule.threshold) for v in voltage]
    left_out = sum((sweep.left_out for sweep in each), Counter[str]())
    longest = max(sweep.longest for sweep in each)
    return _Found([sweep.spikes for sweep in each], left_out, rule.depth, _foot(rule), longest)


@remembered
def _found(recording: Recording, rule: SpikeRule) -> _Found:
    return _spikes(recording.measured_voltage(), recording.dt, rule)


@remembered
def _raster(recording: Recording, rule: SpikeRule) -> np.ndarray:
    return _marked(recording.measured_voltage(), _found(recording, rule))


def _marked(voltage: np.ndarray, found: _Found) -> np.ndarray:
    raster = np.zeros(voltage.shape, bool)
    for sweep, samples in zip(np.atleast_2d(raster), found.samples, strict=True):
        sweep[samples] = True
    return raster


# --- by rise and fall -------------------------------------------------------------------------------------


def _with_levels(voltage: np.ndarray, dt: float, rule: SpikeRule) -> SpikeRule:
    """Return the rule with height (mV) and slope (mV/ms) from which on peaks are spikes, by all those not much less."""
    each = [rises(v, dt, rule.depth / NEIGHBOUR, rule.width) for v in voltage]
    kept = zip(each, artefacts(each, dt), strict=True)
    heights, slopes = np.hstack([(peaks.height[~a], peaks.slope[~a]) for peaks, a in kept])
    slope = level_of(slopes[heights >= rule.depth])
    factor = apart_from(np.minimum(heights / max(rule.depth, 1e-9), slopes / slope))
    return replace(rule, height=factor * rule.depth, slope=factor * slope)


def _by_rise(each: list[Rises], voltage: np.ndarray, dt: float, rule: SpikeRule) -> _Found:
    slope, sudden = _foot(rule), artefacts(each, dt)
    chosen = [~a & (peaks.height >= rule.depth) & (peaks.slope >= slope) for peaks, a in zip(each, sudden, strict=True)]
    top = max(peaks.top[take].max(initial=-np.inf) for peaks, take in zip(each, chosen, strict=True))
    low = 0 if top > _LOWEST else sum(int(take.sum()) for take in chosen)
    good = [peaks.crossing[take & (top > _LOWEST)] for peaks, take in zip(each, chosen, strict=True)]
    if rule.method == "dvdt":
        good = [_feet(v, crossings, dt, rule, slope)[0] for v, crossings in zip(voltage, good, strict=True)]
    spikes = [_separate(samples.tolist(), steps_of(rule.dead_time, dt)) for samples in good]
    dead = sum(map(len, good)) - sum(map(len, spikes))
    left_out = Counter(dead=dead, artefacts=sum(int(a.sum()) for a in sudden), low=low)
    return _Found(spikes, left_out, rule.depth, slope)


# --- what is left out -------------------------------------------------------------------------------------


def spike_notes(recording: Recording, rule: SpikeRule) -> tuple[str, ...]:
    """Say what looks like a spike and was not counted as one by a rule, and which option counts it."""
    was_found = rule.height is not None and rule.slope is not None  # in another recording, and not asked for here
    asked = replace(rule, height=None, slope=None) if was_found else rule
    if recording.spikes is not None and asked != SpikeRule():
        return ("the recording holds its spikes: they were taken, and not those that the spike rule would find",)
    if recording.voltage is None:
        return ()
    if recording.spikes is None:
        of_rise = rule.threshold is None
        return (*_left_out(recording, rule), *(_depends(recording, rule) if of_rise else _lower(recording, rule)))
    known, found = (int(np.sum(x)) for x in (recording.spikes, rule.find(replace(recording, spikes=None))))
    missed = f"the recording's own spikes are {known} where its voltage has {found}: are some missing?"
    return (missed,) if found > 1.1 * known else ()


def no_spikes(recording: Recording, rule: SpikeRule) -> str:
    """Say why a voltage has no spikes by a rule."""
    highest, notes = recording.measured_voltage().max(), spike_notes(recording, rule)
    if rule.threshold is None and highest >= 0.0:
        notes += tuple(_left_out(recording, SpikeRule(threshold=0.0)))
    if rule.threshold is not None and highest >= rule.threshold and notes:
        return "; ".join(notes)
    never = f"it never {rule.found_in(recording).in_words()} (its largest value is {highest:.4g} mV)"
    return "; ".join((f"{never}; move the spike threshold, or give the recording's spikes", *notes))


def _left_out(recording: Recording, rule: SpikeRule) -> Iterator[str]:
    found, level = _found(recording, rule), "" if rule.threshold is None else f"{rule.threshold:g} mV"
    what = f"crossings of {level}" if level else "fast peaks"
    texts = {
        "dead": f"{what} come within the dead time of {rule.dead_time:g} ms after a spike and are not"
        " counted: shorten it (--dead-time) if they are spikes",
        "artefacts": "peaks are over or rise at once, faster than a membrane can, and leave the voltage where it was:"
        " artefacts, not counted as spikes; --spike-threshold counts them",
        "low": f"fast peaks are not counted as spikes, since none ends above {_LOWEST:g} mV: --spike-threshold counts"
        " them",
        "plateaus": f"times the voltage stays above {level}, for up to {found.longest:.4g} ms: these are"
        f" no spikes, which fall {rule.depth:g} mV below it within {rule.width:g} ms (--spike-width,"
        " --spike-threshold)",
        "again": f"more crossings of {level} come before the voltage has fallen {rule.depth:g} mV below it, and count"
        " as one spike with the one before: raise the spike threshold (--spike-threshold) if they are two",
        "slow": f"crossings of {level} rise slower than {_foot(rule):g} mV/ms and are not counted as spikes: use"
        " --spike-method level if they are",
        "unfinished": f"sweeps end above {level}, or before a last crossing has fallen back: it is not counted as a"
        " spike",
    }
    yield from (f"{found.left_out[name]} {text}" for name, text in texts.items() if found.left_out[name])


def _lower(recording: Recording, rule: SpikeRule) -> Iterator[str]:
    """Say how many spikes end below a threshold, by their rise and fall."""
    voltage, least = recording.measured_voltage(), rule.threshold
    own = SpikeRule().found_in(recording)
    peaks = [rises(v, recording.dt, own.depth, own.width) for v in voltage]
    found = _by_rise(peaks, voltage, recording.dt, own)
    tops = np.concatenate([p.top[np.isin(p.crossing, own)] for p, own in zip(peaks, found.samples, strict=True)])
    if (below := tops[tops < least]).size:
        yield (
            f"{below.size} fast peaks end below {least:g} mV, the highest at {below.max():.3g} mV, and are not counted"
            " as spikes: lower the spike threshold (--spike-threshold), or leave it out, if they are"
        )


def _depends(recording: Recording, rule: SpikeRule) -> Iterator[str]:
    """Say that a count depends on the rule: on height and slope, on the width, or that not all cross 0 mV."""
    found = _found(recording, rule)
    own, height, slope = _count(found), found.height, found.slope
    scales = {f"{x * height:.3g} mV at {x * slope:.3g} mV/ms": x for x in (1.0 / NEIGHBOUR, NEIGHBOUR)}
    others = {
        words: _count(_found(recording, replace(rule, height=x * height, slope=x * slope)))
        for words, x in scales.items()
    }
    crossing = _count(_found(recording, SpikeRule(threshold=0.0, dead_time=rule.dead_time)))
    tried = (*others.values(), *(crossing,) * (crossing > 0))  # where all end below, none is at the edge of a rule
    if any(abs(n - own) > _SAME * own for n in tried):
        counts = ", ".join(f"{n} that rise by {words}" for words, n in others.items())
        yield (
            f"the count depends on the rule: {own} spikes rise by {height:.3g} mV at {slope:.3g} mV/ms; there are"
            f" {counts}, and {crossing} that cross 0 mV (--spike-height, --spike-slope, --spike-threshold)"
        )
    elif own and not crossing:
        yield f"the {own} spikes are found by their rise and fall: none crosses 0 mV (--spike-threshold 0)"
    if late := _count(_found(recording, replace(rule, height=height, slope=slope, width=_PLATEAU * rule.width))) - own:
        yield (
            f"{late} times the voltage rises as a spike does and stays up for more than {rule.width:g} ms: plateaus are"
            " not counted as spikes (--spike-width)"
        )


def _count(found: _Found) -> int:
    return sum(map(len, found.samples))


# --- by a threshold ---------------------------------------------------------------------------------------


class _Crossings(NamedTuple):
    """The upward crossings of a sweep: the samples marked as spikes, how many others are what, the longest plateau."""

    spikes: list[int]
    left_out: Counter[str]
    longest: float


def _sorted_crossings(v: np.ndarray, dt: float, rule: SpikeRule, threshold: float) -> _Crossings:
    crossings = _upward(v, threshold)
    returned = np.append(np.flatnonzero(v <= threshold - rule.depth), v.size)
    # The excursion that a crossing belongs to, by the sample at which it has returned.
    ends = returned[np.searchsorted(returned, crossings)]
    first = np.append(True, ends[1:] != ends[:-1])[: crossings.size]
    wide = ends - crossings > steps_of(rule.width, dt)
    open_ended = (ends == v.size) & ~wide
    good = crossings[first & ~wide & ~open_ended]
    marked = good.tolist()
    if rule.method == "dvdt":
        feet, has_foot = _feet(v, good, dt, rule, _foot(rule))
        marked = feet[has_foot].tolist()
    spikes = _separate(marked, steps_of(rule.dead_time, dt))
    plateaus = crossings[first & wide]
    far = np.append(False, np.diff(crossings) > AGAIN / dt)[: crossings.size]
    left_out = Counter(
        dead=len(marked) - len(spikes),
        plateaus=plateaus.size,
        again=int((~first & far & ~wide & ~open_ended).sum()),
        unfinished=int((first & open_ended).any()),
        slow=good.size - len(marked),
    )
    return _Crossings(spikes, left_out, max((dt * _time_above(v[n:], threshold) for n in plateaus), default=0.0))


def _upward(x: np.ndarray, level: float) -> np.ndarray:
    return np.flatnonzero((x[1:] >= level) & (x[:-1] < level)) + 1


def _time_above(v: np.ndarray, level: float) -> int:
    fallen = v < level
    return int(np.argmax(fallen)) if fallen.any() else v.size


def _foot(rule: SpikeRule) -> float:
    return _SLOPE if rule.slope is None else rule.slope


def _feet(
    v: np.ndarray, crossings: np.ndarray, dt: float, rule: SpikeRule, slope: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first steep sample before each crossing, or the crossing, and whether there is one."""
    steep = np.append(_upward(np.diff(v, prepend=v[:1]) / dt, slope), v.size)
    # Not before the last crossing: that foot is the last spike's.
    after_last = np.append(0, crossings + 1)[:-1]
    first = steep[np.searchsorted(steep, np.maximum(crossings - steps_of(rule.peak_within, dt), after_last))]
    return np.minimum(first, crossings), first <= crossings


def _separate(candidates: list[int], steps: int) -> list[int]:
    """Keep the first sample, and each that comes at least ``steps`` after the last one kept."""
    kept: list[int] = []
    for sample in candidates:
        if not kept or sample - kept[-1] >= steps:
            kept.append(sample)
    return kept
