"""Sweeps that are not what they seem: padded to a common length, or one trial stored several times."""

import zlib
from typing import NamedTuple

import numpy as np

from jaxlif.recordings.recording import Recording

_LEAST = 5.0  # ms of one value at the end of a sweep from which on it may be padding
_LONGER = 10  # times the longest run of one value before it that padding with the last value is longer
_ZERO = 2.0  # mV about 0 mV in which an amplifier rests that was switched off, or sees nothing
_ZERO_LONGER = 3  # times the longest time there before, which is that of a spike's end or of a reset to 0 mV
_JUMP = 20.0  # mV to there from one sample to the next


def padding(recording: Recording) -> np.ndarray:
    """Return from which sample on each sweep is padded, [sweeps]; T where it is not.

    A sweep that stopped early is filled up with zeros, to which the voltage jumps and near which it stays, or with its
    last value, which stays to the bit where the voltage had noise before.

    Args:
        recording: current and voltage.

    Example:
        >>> voltage = np.random.default_rng(0).normal(-60.0, 0.1, (2, 1000))
        >>> voltage[1, 800:] = 0.0
        >>> padding(Recording(current=np.zeros((2, 1000)), voltage=voltage, dt=0.1)).tolist()
        [1000, 800]
    """
    voltage = recording.measured_voltage()
    zero = [_last_run(np.abs(v) < _ZERO) for v in voltage]
    same = [_last_run(np.append(False, v[1:] == v[:-1])) for v in voltage]
    least = max(_LEAST / recording.dt, _LONGER * max(run.longest for run in same))
    ends = [run.start if run.length > least and run.start > 1 else recording.num_steps for run in same]
    return np.array([_zeros_from(v, run, end) for v, run, end in zip(voltage, zero, ends, strict=True)])


def copies(recording: Recording) -> np.ndarray:
    """Return of each sweep the number of the first whose voltage is the same in every sample, [sweeps].

    Args:
        recording: current and voltage; without one, every sweep is its own.

    Example:
        >>> voltage = np.random.default_rng(0).normal(-60.0, 0.1, (3, 100))
        >>> copies(Recording(current=np.zeros((3, 100)), voltage=voltage[[0, 1, 0]], dt=0.1)).tolist()
        [0, 1, 0]
    """
    first = np.arange(recording.num_sweeps)
    if recording.voltage is None:
        return first
    known: dict[int, list[int]] = {}
    for sweep, v in enumerate(recording.voltage):
        alike = known.setdefault(zlib.crc32(v.tobytes()), [])
        first[sweep] = next((s for s in alike if np.array_equal(recording.voltage[s], v)), sweep)
        alike.append(sweep)
    return first


def without_padding(recording: Recording) -> tuple[Recording, tuple[str, ...]]:
    """Return a recording that ends where all of its sweeps are padded, and say so.

    Args:
        recording: current and voltage.

    Raises:
        ValueError: where some of the sweeps are padded and others are not.
    """
    ends = padding(recording)
    short = np.flatnonzero(ends < recording.num_steps)
    if not short.size:
        return recording, ()
    when = recording.start + recording.dt * ends[short[0]]
    if short.size < recording.num_sweeps:
        others = ",".join(str(s) for s in np.setdiff1d(np.arange(recording.num_sweeps), short))
        raise ValueError(
            f"voltage stays at {recording.measured_voltage()[short[0], -1]:.4g} mV from {when:.5g} ms to the end in"
            f" sweep {short[0]} ({short.size} of {recording.num_sweeps} sweeps end so): it stopped early and was"
            f" padded; choose the others, --sweeps {others}"
        )
    when = recording.start + recording.dt * ends.min()
    note = (
        f"every sweep is padded, the first from {when:.5g} ms on, where its voltage stays at one value: cut off there"
    )
    return recording.window(recording.start, when), (note,)


def copy_notes(recording: Recording, held: np.ndarray) -> tuple[str, ...]:
    """Name the sweeps that are copies of others.

    Args:
        recording: current and voltage.
        held: numbers of the sweeps that were held out.
    """
    first = copies(recording)
    again = np.flatnonzero(first != np.arange(len(first)))
    if not again.size:
        return ()
    leaked = [int(s) for s in held if (np.setdiff1d(np.flatnonzero(first == first[s]), held)).size]
    twice = (
        f"; sweep {leaked[0]}, which was held out, is the copy of one that was fitted, and no test" if leaked else ""
    )
    return (
        f"{again.size} of {len(first)} sweeps have the voltage of an earlier one in every sample (sweep {again[0]} that"
        f" of {first[again[0]]}): one trial stored again, or a model without noise; each counts once{twice}",
    )


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
    return _Run(
        int(flags.size - lengths[-1]), int(lengths[-1]) if len(ends) > 1 else 0, int(lengths[:-1].max(initial=0))
    )
