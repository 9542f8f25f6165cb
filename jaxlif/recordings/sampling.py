"""What traces show: a current sampled or held, the hum of the mains, where a cell rests, sweeps padded or copied."""

import zlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlif.recordings.plausibility import away_from, mains
from jaxlif.recordings.recording import Recording, remembered

COARSE = 0.5  # ms: from this dt on half a sample matters to spike times
_BESIDE = 0.15  # share of the previous sample in the voltage's increments below which it has none
_SPIKE = (5.0, 40.0)  # ms left out before and after a spike: its currents are not the injected one

_MAINS = (50.0, 60.0)  # Hz
_HARMONICS = 3
_ENOUGH = 8, 2000.0  # sweeps, and ms of each, that are looked at
_CHUNK = 1000.0  # ms: mains drift by some hundredths of a hertz, and their phase with them
_STANDS_OUT = 4.0  # times the amplitude at frequencies beside it from which a line is one
_OUTLIER = 2.0  # standard deviations beyond which a sample is a transient or the edge of a step

_QUIET = 0.05  # share of the largest current up to which its mean counts as none
_MEAN = 10.0  # ms over which that mean is taken: measured currents are noisy
_SETTLED = 100.0  # ms of no current that a resting potential is taken from, at least
_LEFT_OUT = 0.5  # share of the quiet stretch that is given to what came before it

_LEAST = 5.0  # ms of one value at the end of a sweep from which on it may be padding
_LONGER = 10  # times the longest run of one value before it that padding with the last value is longer
_ZERO = 2.0  # mV about 0 mV in which an amplifier rests that was switched off, or sees nothing
_ZERO_LONGER = 3  # times the longest time there before, which is that of a spike's end or of a reset to 0 mV
_JUMP = 20.0  # mV to there from one sample to the next


def is_sampled(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"] | None = None) -> bool:
    r"""Return whether a current was measured at the instants of the voltage, and so far apart that it counts.

    Where the source is not known the voltage is asked, away from spikes: a current that is held has :math:`c_1 = 0` in
    :math:`V_n - V_{n-1} = a + b V_{n-1} + c_0 I_n + c_1 I_{n-1}`. A commanded one is held; below 0.5 ms it is the same.
    """
    if recording.dt < COARSE or recording.current_source == "commanded":
        return False
    if recording.current_source == "recorded":
        return True
    return recording.voltage is not None and abs(_share_before(recording, spikes)) > _BESIDE


def held_current(recording: Recording, sampled: bool) -> Recording:
    r"""Return a recording whose current is the mean over each step, as a neuron's step takes it.

    A current that was sampled ran from one sample to the next: :math:`\bar I_n = (I_{n-1} + I_n) / 2`.
    """
    if not sampled or recording.dt < COARSE or recording.current_source == "commanded":
        return recording
    before = np.concatenate([recording.current[:, :1], recording.current[:, :-1]], axis=1)
    return replace(recording, current=0.5 * (before + recording.current))


def undisturbed(
    spikes: Bool[np.ndarray, "sweeps T"] | None, shape: tuple[int, int], dt: float
) -> Bool[np.ndarray, "sweeps T-1"]:
    """Mark the increments from one sample to the next that no spike disturbs."""
    return away_from(np.zeros(shape, bool) if spikes is None else spikes, *_SPIKE, dt)[:, :-1]


def _share_before(recording: Recording, spikes: np.ndarray | None) -> float:
    """Return how much of c1 / (c0 + c1) is sure; 0 where the current does not vary from sample to sample."""
    current, voltage = recording.current, recording.measured_voltage()
    usable = undisturbed(spikes, current.shape, recording.dt)
    columns = [x[usable] for x in (voltage[:, :-1], current[:, 1:], current[:, :-1])]
    design = np.stack([*columns, np.ones(int(usable.sum()))], axis=1)
    increments = np.diff(voltage, axis=1)[usable]
    found, squares, rank, _ = np.linalg.lstsq(design, increments, rcond=1e-9)
    if rank < design.shape[1] or not squares.size:
        return 0.0
    variance = squares[0] / len(increments) * np.linalg.inv(design.T @ design)[2, 2]
    sure = max(abs(found[2]) - 2.0 * float(np.sqrt(variance)), 0.0)
    return float(sure / abs(found[1] + found[2]))


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


def without_hum(recording: Recording, hum: Hum) -> Float[np.ndarray, "sweeps T"]:
    """Return the current without a hum and its harmonics, each second of each sweep by least squares."""
    harmonics = hum.frequency * np.arange(1, _HARMONICS + 1)
    count = max(1, round(recording.duration / _CHUNK))
    parts = np.array_split(_fluctuation(recording.current, hum.frequency, recording.dt), count, axis=1)
    hums = np.concatenate([mains(part, harmonics, recording.dt) for part in parts], axis=1)
    return np.asarray(recording.current - hums)


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
    blocks = current.shape[1] // length
    medians = np.median(current[:, : blocks * length].reshape(len(current), blocks, length), axis=2)
    centres, samples = length * (np.arange(blocks) + 0.5) - 0.5, np.arange(current.shape[1])
    x = np.stack([sweep - np.interp(samples, centres, m) for sweep, m in zip(current, medians, strict=True)])
    limit = _OUTLIER * np.median(np.abs(x)) / 0.6745
    return np.asarray(np.clip(x, -limit, limit))


# --- the rest ---------------------------------------------------------------------------------------------


def resting_potentials(
    recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]
) -> Float[np.ndarray, " sweeps"] | None:
    """Return the resting potential of each sweep, mV: the mean voltage at the end of its quiet start.

    A sweep's quiet start ends where the mean over 10 ms exceeds 5 % of the recording's largest current; its first half
    is left to what came before it. None where some sweep has less than 100 ms of it, or a spike there.

    Example:
        >>> current = np.concatenate([np.zeros((1, 2000)), np.full((1, 2000), 100.0)], axis=1)
        >>> recording = Recording(current=current, voltage=np.full(current.shape, -63.0), dt=0.1)
        >>> resting_potentials(recording, np.zeros(current.shape, bool))
        array([-63.])
    """
    rest = quiet_voltage(recording, spikes)
    return None if np.isnan(rest).any() else rest


def quiet_voltage(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]) -> Float[np.ndarray, " sweeps"]:
    """Return the resting potential of each sweep as :func:`resting_potentials` does, NaN where it is not known."""
    length = min(max(1, round(_MEAN / recording.dt)), recording.num_steps)
    total = np.cumsum(np.pad(recording.current, ((0, 0), (1, 0))), axis=1)
    loud = np.abs(total[:, length:] - total[:, :-length]) / length > _QUIET * np.abs(recording.current).max()
    # The first mean that is loud has its loud samples at its end.
    ends = np.where(loud.any(axis=1), loud.argmax(axis=1), recording.num_steps)
    known = [end >= _SETTLED / recording.dt and not train[:end].any() for train, end in zip(spikes, ends, strict=True)]
    rows = zip(recording.measured_voltage(), ends, known, strict=True)
    return np.array([voltage[int(_LEFT_OUT * end) : end].mean() if calm else np.nan for voltage, end, calm in rows])


# --- sweeps -----------------------------------------------------------------------------------------------


@remembered
def copies(recording: Recording) -> Int[np.ndarray, " sweeps"]:
    """Return of each sweep the number of the first whose voltage is the same in every sample; without one, its own."""
    first = np.arange(recording.num_sweeps)
    known: dict[int, list[int]] = {}
    for sweep, v in enumerate(() if recording.voltage is None else recording.voltage):
        alike = known.setdefault(zlib.crc32(v.tobytes()), [])
        first[sweep] = next((s for s in alike if np.array_equal(recording.measured_voltage()[s], v)), sweep)
        alike.append(sweep)
    return first


def padding(recording: Recording) -> Int[np.ndarray, " sweeps"]:
    """Return from which sample on each sweep is padded; T where it is not.

    A sweep that stopped early is filled up with zeros, to which the voltage jumps and near which it stays, or with its
    last value, which stays to the bit where the voltage had noise before.
    """
    voltage = recording.measured_voltage()
    zero = [_last_run(np.abs(v) < _ZERO) for v in voltage]
    same = [_last_run(np.append(False, v[1:] == v[:-1])) for v in voltage]
    least = max(_LEAST / recording.dt, _LONGER * max(run.longest for run in same))
    ends = [run.start if run.length > least and run.start > 1 else recording.num_steps for run in same]
    return np.array([_zeros_from(v, run, end) for v, run, end in zip(voltage, zero, ends, strict=True)])


def without_padding(recording: Recording) -> tuple[Recording, tuple[str, ...]]:
    """Return a recording that ends where all of its sweeps are padded, and say so; refuse one where some are."""
    ends = padding(recording)
    short = np.flatnonzero(ends < recording.num_steps)
    if not short.size:
        return recording, ()
    if short.size < recording.num_sweeps:
        when = recording.start + recording.dt * ends[short[0]]
        others = ",".join(str(s) for s in np.setdiff1d(np.arange(recording.num_sweeps), short))
        raise ValueError(
            f"voltage stays at {recording.measured_voltage()[short[0], -1]:.4g} mV from {when:.5g} ms to the end in"
            f" sweep {short[0]} ({short.size} of {recording.num_sweeps} sweeps end so): it stopped early and was"
            f" padded; choose the others, --sweeps {others}"
        )
    when = recording.start + recording.dt * ends.min()
    note = f"every sweep is padded, the first from {when:.5g} ms on, where its voltage stays at one value: cut there"
    return recording.window(recording.start, when), (note,)


def _zeros_from(v: np.ndarray, zero: "_Run", otherwise: int) -> int:
    """Return where a voltage jumps to 0 mV and stays, or something else where it does not."""
    stays = zero.length > max(2, _ZERO_LONGER * zero.longest) and zero.start > 0
    return zero.start if stays and abs(v[zero.start] - v[zero.start - 1]) > _JUMP else otherwise


class _Run(NamedTuple):
    """The run of True at the end of a sweep: its start, its length, and that of the longest run before it."""

    start: int
    length: int
    longest: int


def _last_run(flags: np.ndarray) -> _Run:
    ends = np.append(np.flatnonzero(~flags), flags.size)
    lengths = np.diff(ends, prepend=-1) - 1
    length = int(lengths[-1]) if len(ends) > 1 else 0
    return _Run(int(flags.size - lengths[-1]), length, int(lengths[:-1].max(initial=0)))
