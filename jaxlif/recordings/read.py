"""One door to every file format: the suffix chooses the reader, the reader's fields make a checked Recording."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.checks import choice
from jaxlif.files import checksum, load_arrays, load_mat, reading, require_file, require_memory
from jaxlif.recordings.abf import abf_channels, read_abf
from jaxlif.recordings.ibw import read_ibw, waves_apart
from jaxlif.recordings.nwb import nwb_channels, read_nwb
from jaxlif.recordings.recording import Recording, RecordingWarning, sweep_indices
from jaxlif.recordings.text import read_csv
from jaxlif.recordings.together import files_in, joined
from jaxlif.recordings.units import Asked, Corrections, Sweeps, to_library_unit

_LARGEST = {"voltage": (1e4, "mV"), "current": (1e6, "pA")}  # 10 V and 1 µA, beyond any amplifier
_PER_SWEEP = ("current", "voltage", "spikes")
_ARRAYS = (*_PER_SWEEP, "dt", "electrode_current", "electrode_voltage")
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
        files, name = files_in(Path(path), _READERS), Path(path).resolve().name
    elif files := [Path(file) for file in path]:
        name = f"{files[0].name} and {len(files) - 1} more" if len(files) > 1 else files[0].name
    else:
        raise ValueError("path = []: one file at least is expected")
    whole = joined([read_recording(file, sweeps=own, **asked) for file, own in waves_apart(files)], name)
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
