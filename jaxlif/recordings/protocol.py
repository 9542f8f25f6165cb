"""What was injected: constant epochs and their levels, step protocols, the f-I table of a step family."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxlif.recordings.recording import Recording, remembered
from jaxlif.recordings.spikes import SpikeRule
from jaxlif.recordings.units import mains

# A recorded current shows the amplifier's transient at every spike. The median over a block sees through them as long
# as they fill less than half of it: 2 to 3 ms a spike, so 10 ms.
_BLOCK = 10.0
_LEAST = 5.0  # ms of an epoch

_MAINS = (50.0, 60.0)  # Hz
_HARMONICS = 3
_ENOUGH = 8, 2000.0  # sweeps, and ms of each, that are looked at
_CHUNK = 1000.0  # ms: mains drift by some hundredths of a hertz, and their phase with them
_STANDS_OUT = 4.0  # times the amplitude at frequencies beside it from which a line is one
_OUTLIER = 2.0  # standard deviations beyond which a sample is a transient or the edge of a step


class Epoch(NamedTuple):
    """A stretch of constant current: samples ``start`` to ``stop`` (excluded) of a sweep, at ``level`` pA."""

    sweep: int
    start: int
    stop: int
    level: float


class FITable(NamedTuple):
    """A cell's f-I table: ``currents`` [K] pA, ascending, ``rates`` [K] Hz, and the time of the test epochs, ms,
    ``start`` of the first and ``stop`` of the last where they differ by sweep.
    """

    currents: Float[np.ndarray, " K"]
    rates: Float[np.ndarray, " K"]
    start: float
    stop: float


class Protocol(NamedTuple):
    """A family of steps: of every sweep the test epoch, and the other steps that are in it."""

    tests: list[Epoch]
    others: list[Epoch]


class _Grain(NamedTuple):
    """How finely a current can be described: samples to a block, noise of a sample, of a block's median, range, pA."""

    length: int
    sample_noise: float
    noise: float
    spread: float

    @property
    def jump(self) -> float:
        """Difference that makes two levels distinct, pA."""
        return 1e-9 * self.spread if self.length == 1 else 6.0 * self.noise


@remembered
def find_epochs(recording: Recording, min_duration: float = _LEAST) -> tuple[Epoch, ...]:
    """Find the epochs of constant current in every sweep, of ``min_duration`` ms at least; ramps and noise have none.

    A commanded current is compared sample by sample, a recorded one by medians of 10 ms, which see through noise and
    the amplifier's transients: an edge is where they jump by six times their noise, its sample the least-squares one.
    """
    quiet, grain = _described(recording)
    # Fewer than three medians look flat by chance.
    least = max(2, round(min_duration / recording.dt)) if grain.length == 1 else 3 * grain.length
    return tuple(
        Epoch(sweep, start, stop, _level(current[start:stop]))
        for sweep, current in enumerate(quiet)
        for start, stop in _segments(current, grain)
        if stop - start >= least and _is_flat(current[start:stop], grain)
    )


def is_step_protocol(recording: Recording) -> bool:
    """Say whether the current consists of steps: constant for 90 % of every sweep, at two levels or more."""
    covered, levels = np.zeros(recording.num_sweeps), []
    for epoch in find_epochs(recording):
        covered[epoch.sweep] += epoch.stop - epoch.start
        levels.append(epoch.level)
    constant = (covered >= 0.9 * recording.num_steps).all()
    return bool(constant and max(levels) - min(levels) > _described(recording)[1].jump)


def step_family(recording: Recording) -> Protocol:
    """Find the test epoch of every sweep of a step protocol, and the steps beside it.

    A step is an epoch at another level than its sweep starts from. The test is the first that is not the same in all
    sweeps, as a calibration pulse is, and at least half as large as the largest of its sweep. Most sweeps have it at
    the same time, where noise may hide an edge; a sweep whose own lies elsewhere keeps its own.
    """
    quiet, grain = _described(recording)
    own = _steps_of_sweeps(recording)
    fixed = [step for step in own[0] if len(own) > 1 and all(_among(step, sweep, grain) for sweep in own[1:])]
    free = [[step for step in sweep if not _among(step, fixed, grain)] for sweep in own]
    candidates = [_first_large(sweep) for sweep in (free if any(free) else own)]
    shared = _commonest([step for step in candidates if step], grain) or (0, recording.num_steps)
    has_it = [any(_at(step, shared, grain) for step in sweep) for sweep in own]
    # A sweep without a step there whose first lies where others have their second has a test at the holding level.
    second = [(step.start, step.stop) for sweep, has in zip(own, has_it, strict=True) for step in sweep if has]
    tests = []
    for n, (step, has) in enumerate(zip(candidates, has_it, strict=True)):
        apart = step is not None and not has and not any(_at(step, times, grain) for times in second)
        start, stop = (step.start, step.stop) if step and apart else shared
        tests.append(Epoch(n, start, stop, _level(quiet[n, start:stop])))
    others = [s for sweep in own for s in sweep if s.stop <= tests[s.sweep].start or tests[s.sweep].stop <= s.start]
    return Protocol(tests, [Epoch(*step[:4]) for step in others])


def fi_table(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"] | None = None) -> FITable:
    r"""Make the f-I table of a step protocol: :math:`f = n_{spikes} / (t_{stop} - t_{start})`.

    Every sweep counts the spikes (the recording's own, or those in its voltage, where none are given) in its own test
    epoch, see :func:`step_family`; sweeps of the same level are averaged.
    """
    if not is_step_protocol(recording):
        raise ValueError("current is not made of steps (constant for 90 % of every sweep, two levels or more)")
    raster = SpikeRule().find(recording) if spikes is None else np.atleast_2d(np.asarray(spikes, bool))
    if raster.shape != recording.current.shape:
        raise ValueError(f"spikes has shape {raster.shape} and current {recording.current.shape}: they must agree")
    tests = step_family(recording).tests
    levels = np.array([test.level for test in tests])
    lengths = np.array([test.stop - test.start for test in tests])
    counts = [train[test.start : test.stop].sum() for train, test in zip(raster, tests, strict=True)]
    rates = 1000.0 * np.array(counts) / (lengths * recording.dt)
    grain = _described(recording)[1]
    order = np.argsort(levels, kind="stable")
    apart = grain.jump * np.sqrt(grain.length / lengths.min()) + 0.005 * grain.spread
    groups = np.split(order, np.flatnonzero(np.diff(levels[order]) > apart) + 1)
    bounds = min(test.start for test in tests), max(test.stop for test in tests)
    return FITable(
        np.array([levels[group].mean() for group in groups]),
        np.array([rates[group].mean() for group in groups]),
        *(float(f"{recording.start + n * recording.dt:.9g}") for n in bounds),
    )


def _level(current: np.ndarray) -> float:
    return float(np.median(current))


# --- epochs -----------------------------------------------------------------------------------------------


def quiet_current(recording: Recording) -> Float[np.ndarray, "sweeps T"]:
    """Return the current without mains hum; one as large as a tenth of all there is is the stimulus, and stays."""
    return _described(recording)[0]


@remembered
def _described(recording: Recording) -> tuple[np.ndarray, _Grain]:
    grain = _grain(recording.current, recording.dt)
    hum = mains_hum(recording) if grain.length > 1 else None
    if hum is None or hum.amplitude > 0.1 * grain.spread:
        return recording.current, grain
    harmonics = hum.frequency * np.arange(1, _HARMONICS + 1)
    count = max(1, round(recording.duration / _CHUNK))
    parts = np.array_split(_fluctuation(recording.current, hum.frequency, recording.dt), count, axis=1)
    quiet = recording.current - np.concatenate([mains(part, harmonics, recording.dt) for part in parts], axis=1)
    return quiet, _grain(quiet, recording.dt)


def _grain(current: np.ndarray, dt: float) -> _Grain:
    spread = float(np.ptp(current))
    # Filtered noise is correlated from sample to sample: at 0.2 ms it is not. Second differences see no ramps.
    lag = max(1, min(round(0.2 / dt), (current.shape[1] - 1) // 2))
    change = np.diff(current[:, ::lag], axis=1)
    bend = np.abs(np.diff(change, axis=1))
    if np.count_nonzero(bend > 1e-6 * spread) <= 0.02 * bend.size:
        return _Grain(1, 0.0, 0.0, spread)
    # Where most second differences are zero, the noise is finer than the quantum in which it was stored.
    quantum = np.abs(change[change != 0]).min()
    sample_noise = float(max(np.median(bend) / 0.6745 / np.sqrt(6.0), quantum / np.sqrt(6.0)))
    length = max(2, round(_BLOCK / dt))
    white = sample_noise * float(np.sqrt(np.pi / 2.0 * lag / length))
    # Over medians, since the amplifier's transients at spikes are several times larger than any step.
    middle = medians(current, length)
    spread = float(np.ptp(middle))
    # Hum and slow noise move the medians more than white noise would. Small beside the steps, that is noise too; as
    # large as a tenth of all there is, it is the stimulus.
    bends = np.abs(np.diff(middle, n=2, axis=1))
    slow = float(np.median(bends)) / 0.6745 / np.sqrt(6.0) if bends.size else 0.0
    return _Grain(length, sample_noise, max(white, slow) if slow <= 0.03 * spread else white, spread)


def medians(current: Float[np.ndarray, "*sweeps T"], length: int) -> Float[np.ndarray, "*sweeps blocks"]:
    """Return medians of blocks of ``length`` samples, [..., T // length]; a rest is left out."""
    blocks = max(1, current.shape[-1] // length)
    whole = current[..., : blocks * length]
    return np.asarray(np.median(whole.reshape(*whole.shape[:-1], blocks, -1), axis=-1))


def _segments(current: np.ndarray, grain: _Grain) -> list[tuple[int, int]]:
    """Return the bounds of the stretches between edges; where levels are not distinct an edge was noise."""
    sharp = grain.length == 1
    edges = np.flatnonzero(np.abs(np.diff(current)) > grain.jump) + 1 if sharp else _noisy_edges(current, grain)
    bounds = [int(n) for n in np.unique([0, *edges, current.size])]
    kept = [0]
    for start, stop in zip(bounds[1:-1], bounds[2:], strict=True):
        if sharp or abs(_level(current[start:stop]) - _level(current[kept[-1] : start])) > grain.jump:
            kept.append(start)
    return list(zip(kept, [*kept[1:], current.size], strict=True))


def _noisy_edges(current: np.ndarray, grain: _Grain) -> list[int]:
    middle = medians(current, grain.length)
    # Over two blocks, since the edge lies within one: jump[k] compares the neighbours of block k + 1.
    jumping = np.flatnonzero(np.abs(middle[2:] - middle[:-2]) > grain.jump) + 1
    runs = np.split(jumping, np.flatnonzero(np.diff(jumping) > 1) + 1) if jumping.size else []
    edges = []
    for first, last in ((int(run[0]), int(run[-1])) for run in runs):
        if last - first > 2:  # too many blocks for one edge
            edges += [first * grain.length, (last + 1) * grain.length]
            continue
        before, after, begin = middle[first - 1], middle[last + 1], (first - 1) * grain.length
        stretch = current[begin : (last + 2) * grain.length]
        # The split with the least squared error of `before` up to it and `after` from it on.
        gain = np.cumsum((stretch - after) ** 2 - (stretch - before) ** 2)
        edges.append(begin + int(np.argmax(gain)) + 1)
    return edges


def _is_flat(current: np.ndarray, grain: _Grain) -> bool:
    deviation = np.abs(current - _level(current))
    if grain.length == 1:
        return bool(deviation.max() <= 1e-6 * grain.spread)
    of_medians = np.abs(medians(current, grain.length) - _level(current))
    slow = np.quantile(of_medians, 0.9) <= 4.0 * grain.noise + 0.01 * grain.spread
    fast = np.median(deviation) / 0.6745 <= max(2.0 * grain.sample_noise, 6.0 * grain.noise) + 0.005 * grain.spread
    return bool(slow and fast)


# --- families of steps ------------------------------------------------------------------------------------


class _Step(NamedTuple):
    """An epoch at another level than its sweep's holding one, from which it departs by ``size`` pA."""

    sweep: int
    start: int
    stop: int
    level: float
    size: float


def _steps_of_sweeps(recording: Recording) -> list[list[_Step]]:
    epochs, jump = find_epochs(recording), _described(recording)[1].jump
    own = [[epoch for epoch in epochs if epoch.sweep == n] for n in range(recording.num_sweeps)]
    levels, firsts = [epoch.level for sweep in own for epoch in sweep], [sweep[0].level for sweep in own if sweep]
    # Sweeps that start with the step end at the holding level; if each has one level only, that is the step.
    at_once = bool(firsts) and np.ptp(firsts) > max(0.5 * np.ptp(levels), jump)
    whole = at_once and all(len(sweep) < 2 for sweep in own)
    holding = [0.0 if whole or not sweep else sweep[-1 if at_once else 0].level for sweep in own]
    sized = [[_Step(*e, size=e.level - held) for e in sweep] for sweep, held in zip(own, holding, strict=True)]
    return [[step for step in sweep if whole or abs(step.size) > jump] for sweep in sized]


def _among(step: _Step, steps: list[_Step], grain: _Grain) -> bool:
    """Say whether one of several steps has the same time and size, as far as noise lets them be known."""
    close = grain.jump + 0.005 * grain.spread
    return any(abs(step.size - s.size) <= close and _at(step, (s.start, s.stop), grain) for s in steps)


def _at(step: _Step, times: tuple[int, int], grain: _Grain) -> bool:
    close = 2 * grain.length if grain.length > 1 else 1
    return max(abs(step.start - times[0]), abs(step.stop - times[1])) <= close


def _first_large(sweep: list[_Step]) -> _Step | None:
    largest = max((abs(step.size) for step in sweep), default=0.0)
    return next((step for step in sweep if abs(step.size) >= 0.5 * largest), None)


def _commonest(candidates: list[_Step], grain: _Grain) -> tuple[int, int] | None:
    """Return the bounds that most steps have; where they have nothing in common, those in the middle."""
    if not candidates:
        return None
    groups = [[s for s in candidates if _at(s, (step.start, step.stop), grain)] for step in candidates]
    group = max(groups, key=len)
    group = group if len(group) >= 0.25 * len(candidates) else candidates
    return int(np.median([s.start for s in group])), int(np.median([s.stop for s in group]))


# --- the mains --------------------------------------------------------------------------------------------


class Hum(NamedTuple):
    """The frequency of a hum, Hz, and the amplitude of its first harmonic, pA."""

    frequency: float
    amplitude: float


@remembered
def mains_hum(recording: Recording) -> Hum | None:
    """Return the mains hum of a recorded current; None where no line stands out at 50 or 60 Hz, or in under 100 ms."""
    if recording.duration < 100.0:
        return None
    sweeps, samples = _ENOUGH[0], round(_ENOUGH[1] / recording.dt)
    found = [Hum(f, _line(recording.current[:sweeps, :samples], f, recording.dt)) for f in _MAINS]
    loudest = max(found, key=lambda hum: hum.amplitude)
    return loudest if loudest.amplitude > 0.0 else None


def _line(current: np.ndarray, frequency: float, dt: float) -> float:
    """Return the amplitude at a frequency, pA, or 0 where it does not stand out from those beside it."""
    x = _fluctuation(current, frequency, dt)
    window, times = np.hanning(x.shape[1]), dt * np.arange(x.shape[1])
    beside = np.array([0.0, -4.0, -3.0, 3.0, 4.0]) * max(2.0, 1000.0 / (dt * x.shape[1]))
    waves = np.exp(-2e-3j * np.pi * np.outer(frequency + beside, times))
    amplitudes = np.median(np.abs(2.0 * (window * x) @ waves.T / window.sum()), axis=0)
    return float(amplitudes[0]) if amplitudes[0] > _STANDS_OUT * amplitudes[1:].max() else 0.0


def _fluctuation(current: np.ndarray, frequency: float, dt: float) -> np.ndarray:
    """Return a current [sweeps, T] without what is slower than a period, and with its outliers cut."""
    length = max(2, round(1000.0 / frequency / dt))
    middle, samples = medians(current, length), np.arange(current.shape[1])
    centres = length * (np.arange(middle.shape[1]) + 0.5) - 0.5
    x = np.stack([sweep - np.interp(samples, centres, m) for sweep, m in zip(current, middle, strict=True)])
    limit = _OUTLIER * np.median(np.abs(x)) / 0.6745
    return np.asarray(np.clip(x, -limit, limit))
