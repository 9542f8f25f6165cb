"""Sweeps that are not what they seem: padded to a common length, or one trial stored several times."""

import zlib

import numpy as np

from jaxlif.recordings.recording import Recording

_LEAST = 5.0  # ms of one value at the end of a sweep from which on it may be padding
_JUMP = 5.0  # mV to exactly 0 mV that no membrane makes between two samples
_LONGER = 10  # times the longest run of one value before it that padding with the last value is longer


def padding(recording: Recording) -> np.ndarray:
    """Return from which sample on each sweep is padded, [sweeps]; T where it is not.

    A sweep that stopped early is filled up with zeros, to which the voltage jumps, or with its last value, which stays
    to the bit where the voltage had noise before.

    Args:
        recording: current and voltage.

    Example:
        >>> voltage = np.random.default_rng(0).normal(-60.0, 0.1, (2, 1000))
        >>> voltage[1, 800:] = 0.0
        >>> padding(Recording(current=np.zeros((2, 1000)), voltage=voltage, dt=0.1)).tolist()
        [1000, 800]
    """
    return np.array([_padded_from(v, recording.dt) for v in recording.measured_voltage()])


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
    when = recording.start + recording.dt * ends.min()
    if short.size < recording.num_sweeps:
        others = ",".join(str(s) for s in np.setdiff1d(np.arange(recording.num_sweeps), short))
        raise ValueError(
            f"voltage stays at one value from {when:.5g} ms to the end in sweep {short[0]}"
            f" ({short.size} of {recording.num_sweeps} sweeps end so): it stopped early and was padded; choose the"
            f" others, --sweeps {others}"
        )
    note = (
        f"every sweep is padded from {when:.5g} ms on or earlier, where its voltage stays at one value: cut off there"
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


def _padded_from(v: np.ndarray, dt: float) -> int:
    changes = np.flatnonzero(v[1:] != v[:-1]) + 1
    if not changes.size or v.size - changes[-1] < max(3, _LEAST / dt):
        return v.size
    start, runs = int(changes[-1]), np.diff(changes, prepend=0)
    # A model that is held at 0 mV is so at other times too.
    jumps = v[-1] == 0.0 and abs(v[start - 1]) > _JUMP and not (v[:start] == 0.0).any()
    return start if jumps or v.size - start > _LONGER * runs.max() else v.size
