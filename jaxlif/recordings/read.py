"""One door to every file format: the suffix chooses the reader, the reader's fields make a checked Recording."""

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.checks import choice
from jaxlif.files import checksum, load_arrays, load_mat, reading, require_file, require_memory
from jaxlif.recordings.abf import abf_channels, read_abf
from jaxlif.recordings.ibw import read_ibw, waves_apart
from jaxlif.recordings.nwb import nwb_channels, read_nwb
from jaxlif.recordings.protocol import medians
from jaxlif.recordings.recording import Recording, RecordingWarning, sweep_indices
from jaxlif.recordings.text import read_csv
from jaxlif.recordings.units import Asked, Corrections, Sweeps, to_library_unit

_LARGEST = {"voltage": (1e4, "mV"), "current": (1e6, "pA")}  # 10 V and 1 µA, beyond any amplifier
_PER_SWEEP = ("current", "voltage", "spikes")
_ARRAYS = (*_PER_SWEEP, "dt", "electrode_current", "electrode_voltage")
_QUIET = 20.0  # ms of one current at the start of every sweep: the holding current
_LEVEL = 0.1  # of the currents' span: two that differ by no more are one
_LISTED = 5  # files that a line names
_UNITS = {f"{part}{name}": (name, unit) for part in ("", "electrode_") for name, (_, unit) in _LARGEST.items()}


def read_recording(
    path: str | Path | Sequence[str | Path],
    *,
    current: str | None = None,
    sweeps: Sweeps | None = None,
    electrode_channel: str | None = None,
    **corrections: Any,
) -> Recording:
    """Read a recording from an .npz, .csv, .atf, .mat, .abf, .nwb or .ibw file, or from several of one cell.

    Units become pA, mV and ms from what the file says. An .npz or .mat file holds ``current`` (pA), ``dt`` (ms) and
    optionally ``voltage`` (mV), ``spikes``, ``electrode_current`` and ``electrode_voltage``, an .npz [stimuli, repeats,
    T] and the names ``stimulus`` too; for the others see ``read_csv``, ``read_abf``, ``read_nwb`` and ``read_ibw``.

    Args:
        path: the file. Of Igor binary waves any one stands for all of its protocol. Or several files, or a folder, of
            one cell: their sweeps one after another, in the order of the names, of Igor's waves those that are listed.
        current: which current an .abf or .nwb file is asked for, "recorded" or "commanded" (None: the recorded one
            where there is one); for the other formats, which hold one current, what that current is.
        sweeps: numbers of the sweeps to read, from 0; None for all.
        electrode_channel: name of the electrode of an .nwb file, or of the channel of an .abf file, needed where it
            holds several.
        **corrections: ``voltage_unit``, ``voltage_gain``, ``voltage_offset`` (mV) and the same of the current, where
            the file is wrong about them: the fields of :class:`jaxlif.recordings.units.Corrections`.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for an unknown format, an empty, damaged or incomplete file, or values that :class:`Recording`
            refuses, in one line that starts with the file's name; and for files that cannot be of one cell: sampled
            differently, of other lengths, or with another holding current.
        ImportError: for a format whose library is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "cell.npz"
        ...     np.savez(path, current=np.zeros(1000), voltage=np.linspace(-70.0, -69.0, 1000), dt=0.1)
        ...     read_recording(path)
        Recording(cell.npz: 1 sweep of 100 ms, dt = 0.1 ms, current unknown, with voltage)
    """
    if not isinstance(path, str | Path) or Path(path).is_dir():
        return _read_together(path, sweeps, current=current, electrode_channel=electrode_channel, **corrections)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"{path.name}: format {path.suffix!r} is not known; known are {', '.join(_READERS)}")
    choice("current", current, (None, "recorded", "commanded"))
    asked = Asked(current, sweeps, electrode_channel, Corrections(**corrections))
    with reading(path):
        require_file(path)
        if suffix != ".nwb":  # of which the sweeps that are asked for are read
            require_memory(path.stat().st_size, "the file")
        if electrode_channel is not None and suffix not in (".abf", ".nwb"):
            text = f"electrode_channel = {electrode_channel!r}: only .nwb and .abf files name their electrodes"
            raise ValueError(f"{text}, leave it out")
        fields = _READERS[suffix](path, asked)
        if sweeps is not None and suffix not in (".nwb", ".ibw"):
            fields |= {n: _chosen(fields[n], sweeps) for n in (*_PER_SWEEP, "stimulus") if n in fields}
        files = fields.pop("files", [path])
        fields = _stacked(fields, sweeps)
        fields |= {n: asked.corrections.corrected(q, fields[n]) for n, (q, _) in _UNITS.items() if n in fields}
        _require_possible(fields)
        return Recording(**fields, corrections=asked.corrections.given(), name=path.name, sha256=checksum(files))


def _read_together(path: str | Path | Sequence[str | Path], sweeps: Sweeps | None, **asked: Any) -> Recording:
    """Read files, or those of a folder, as the sweeps of one cell, and of these those that are asked for."""
    if isinstance(path, str | Path):
        files, name = _files_in(Path(path)), Path(path).resolve().name
    elif files := [Path(file) for file in path]:
        name = f"{files[0].name} and {len(files) - 1} more" if len(files) > 1 else files[0].name
    else:
        raise ValueError("path = []: one file at least is expected")
    whole = _joined([read_recording(file, sweeps=own, **asked) for file, own in waves_apart(files)], name)
    return whole if sweeps is None else whole.select(sweeps)


def channels_of(path: Path) -> tuple[str, ...]:
    """Return the channels of an .abf file, or the series of an .nwb file, as "name: unit"; none for other formats."""
    listed = {".abf": abf_channels, ".nwb": nwb_channels}.get(path.suffix.lower())
    if path.is_dir():
        return ()
    with reading(path):
        require_file(path)
        return tuple(listed(path)) if listed else ()


def _read_npz(path: Path, asked: Asked) -> dict[str, Any]:
    arrays = load_arrays(path, (*_ARRAYS, "stimulus"))
    names = arrays.pop("stimulus", None)
    fields = _named(arrays, asked)
    if names is None or names.dtype.kind != "U":
        return fields  # an array that holds no text is none of names
    if names.ndim > 1:
        raise ValueError(f"stimulus has shape {names.shape}: one name for each sweep or stimulus is expected")
    if names.ndim == 1 and arrays["current"].ndim == 3 and len(names) == len(arrays["current"]):
        names = np.repeat(names, arrays["current"].shape[1])
    return fields | {"stimulus": str(names) if names.ndim == 0 else names.tolist()}


def _read_mat(path: Path, asked: Asked) -> dict[str, Any]:
    """Read variables whose longer axis is time: a column, a row, [T, sweeps] or [sweeps, T]."""
    arrays = load_mat(path, _ARRAYS)
    for name, array in arrays.items():
        if name not in _PER_SWEEP:
            arrays[name] = array.reshape(-1)
        elif array.ndim == 2 and array.shape[0] >= array.shape[1]:
            if array.shape[0] == array.shape[1]:
                raise ValueError(f"the array `{name}` has shape {list(array.shape)}: which axis is time?")
            arrays[name] = array.T
    return _named(arrays, asked)


def _named(arrays: dict[str, np.ndarray], asked: Asked) -> dict[str, Any]:
    """Return arrays with the names of a recording's fields in its units, stimuli and repeats on one axis of sweeps."""
    for name, unit in (("current", "pA"), ("dt", "ms")):
        if name not in arrays:
            raise ValueError(f"the array `{name}` ({unit}) is missing")
    fields: dict[str, Any] = {"current_source": asked.current or "unknown"}
    for name, array in arrays.items():
        if name in _PER_SWEEP:
            array = array.reshape(-1, array.shape[-1]) if array.ndim == 3 else np.atleast_1d(array)
        if name in _UNITS:
            quantity, unit = _UNITS[name]
            factor = to_library_unit(quantity, asked.corrections.unit(quantity, unit))
            array = array if factor == 1.0 else factor * array
        fields[name] = array
    return fields


_READERS: dict[str, Callable[[Path, Asked], dict[str, Any]]] = {
    ".npz": _read_npz,
    ".csv": read_csv,
    ".atf": read_csv,
    ".mat": _read_mat,
    ".abf": read_abf,
    ".nwb": read_nwb,
    ".ibw": read_ibw,
}


def _chosen(values: Any, sweeps: Sweeps) -> Any:
    """Keep the chosen sweeps; done before the check, so that one bad sweep does not cost the others."""
    if isinstance(values, str):
        return values  # one name for all
    values = np.atleast_2d(values) if isinstance(values, np.ndarray) else values
    return [values[i] for i in sweep_indices(sweeps, len(values))]


def _stacked(fields: dict[str, Any], sweeps: Sweeps | None) -> dict[str, Any]:
    """Put lists of sweeps into arrays, and the sampling intervals of all sweeps into one."""
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and name != "stimulus"}
    intervals = lists.pop("dt", [])
    if intervals and max(intervals) - min(intervals) > 1e-3 * min(intervals):
        listed = ", ".join(f"{dt:g}" for dt in sorted(set(intervals)))
        raise ValueError(f"sweeps have dt = {listed} ms: choose some of one{_alike(intervals, sweeps)}")
    for name, value in lists.items():
        lengths = [sweep.size for sweep in value]
        if len(set(lengths)) > 1:
            text = f"{name} has sweeps of {sorted(set(lengths))} samples: choose some of one length"
            raise ValueError(f"{text}{_alike(lengths, sweeps)}")
    one_dt = {"dt": intervals[0]} if intervals else {}
    return fields | one_dt | {name: np.stack(value) for name, value in lists.items()}


def _alike(values: list[Any], sweeps: Sweeps | None) -> str:
    """Name the keyword, and up to 20 sweeps with the commonest value where all sweeps were asked for."""
    commonest = max(values, key=values.count)
    numbers = [n for n, value in enumerate(values) if value == commonest]
    more = " and more" if len(numbers) > 20 else ""
    return " with `sweeps`" + (f", as {numbers[:20]}{more}" if sweeps is None else "")


def _require_possible(fields: dict[str, Any]) -> None:
    """Refuse what no amplifier makes, and say where a voltage is none."""
    for name, (most, unit) in _LARGEST.items():
        values = np.asarray(fields.get(name, 0.0))
        largest = np.abs(values[np.isfinite(values)]).max(initial=0.0) if values.dtype.kind in "iuf" else 0.0
        if largest > most:
            scale = "a unit, a conversion or a value in the file is wrong"
            raise ValueError(f"{name} up to {largest:.4g} {unit} (under {most:g} {unit} is expected): {scale}")
    voltage = np.asarray(fields.get("voltage", [0.0, 1.0]))
    if voltage.size and (voltage == voltage.flat[0]).all():
        text = f"voltage = {voltage.flat[0]:g} mV in every sample: was it recorded?"
        warnings.warn(text, RecordingWarning, stacklevel=3)


# --- several files of one cell as one recording ------------------------------------------------------------


def _files_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder by their names, numbers in order; none is a ValueError, others are noted."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    known = [path for path in inside if path.suffix.lower() in _READERS and path.is_file()]
    if not known:
        raise ValueError(f"{folder.name}: there is no recording in this folder ({', '.join(_READERS)})")
    if others := sorted(path.name for path in inside if path not in known):
        listed = ", ".join(others[:_LISTED]) + f" and {len(others) - _LISTED} more" * (len(others) > _LISTED)
        warnings.warn(f"{folder.name}: what is no recording is left out: {listed}", RecordingWarning, stacklevel=3)
    return sorted(known, key=_in_order)


def _in_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _joined(recordings: Sequence[Recording], name: str) -> Recording:
    """Return the sweeps of several recordings as one, in their order; refuse those that cannot be of one cell."""
    first, *others = recordings
    for other in others:
        for what, value in _SAME.items():
            here, there = value(first), value(other)
            if not np.allclose(here, there, rtol=1e-3) if isinstance(here, float) else here != there:
                one, two = (what.format({True: "yes", False: "no"}.get(x, x)) for x in (here, there))
                raise ValueError(
                    f"{first.name} has {one} and {other.name} {two}: sweeps of one cell must agree; fit them apart"
                )
    _require_one_holding_current(recordings)
    traces = [r for r in recordings if r.electrode_current is not None]
    if len(traces) > 1:
        raise ValueError(f"{traces[0].name} and {traces[1].name} have an electrode's trace each: fit them apart")
    arrays: dict[str, Any] = {"current": np.concatenate([r.current for r in recordings])}
    for field in ("voltage", "spikes"):
        rows = [getattr(r, field) for r in recordings]
        arrays[field] = None if rows[0] is None else np.concatenate(rows)
    if first.stimulus is not None:
        arrays["stimulus"] = [str(stimulus) for r in recordings for stimulus in r.stimulus or ()]
    arrays |= {f"electrode_{x}": getattr((traces or [first])[0], f"electrode_{x}") for x in ("current", "voltage")}
    sums = hashlib.sha256("".join(r.sha256 for r in recordings).encode()).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # each was judged when it was read
        return replace(first, **arrays, name=name, sha256=sums)


_SAME: dict[str, Callable[[Recording], Any]] = {
    "a sampling interval of {} ms": lambda r: r.dt,
    "sweeps of {} samples": lambda r: r.num_steps,
    "sweeps that start at {} ms": lambda r: float(r.start),
    "a current that is {}": lambda r: r.current_source,
    "a voltage: {}": lambda r: r.voltage is not None,
    "known spikes: {}": lambda r: r.spikes is not None,
    "names of stimuli: {}": lambda r: r.stimulus is not None,
}


def _require_one_holding_current(recordings: Sequence[Recording]) -> None:
    """Refuse files that are held at different currents, where every sweep of a file starts quietly."""
    held = [(level, r.name) for r in recordings if (level := _holding_current(r)) is not None]
    span = max(np.ptp(r.current) for r in recordings)
    if held and max(held)[0] - min(held)[0] > _LEVEL * span:
        (low, one), (high, other) = min(held), max(held)
        raise ValueError(f"{one} is held at {low:.4g} pA and {other} at {high:.4g} pA: fit them apart")


def _holding_current(recording: Recording) -> float | None:
    blocks = medians(recording.current, max(1, round(1.0 / recording.dt)))
    start = blocks[:, : max(1, round(_QUIET))]
    quiet = np.ptp(start) <= _LEVEL * np.ptp(recording.current)
    return float(np.median(start)) if quiet else None
