"""One door to every file format: the suffix chooses the reader, the reader's fields make a checked Recording."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.files import checksum, reading, require_file, require_memory
from jaxlif.recordings.abf_file import abf_channels, read_abf
from jaxlif.recordings.csv_file import read_csv
from jaxlif.recordings.ibw_file import read_ibw
from jaxlif.recordings.mat_file import read_mat
from jaxlif.recordings.npz_file import read_npz
from jaxlif.recordings.nwb_file import nwb_channels, read_nwb
from jaxlif.recordings.recording import Recording, RecordingWarning, sweep_indices
from jaxlif.recordings.units import Corrections

_Reader = Callable[[Path, str | None, Corrections], dict[str, Any]]
_LARGEST = {"voltage": (1e4, "mV"), "current": (1e6, "pA")}  # 10 V and 1 µA, beyond any amplifier
_Sweeps = int | slice | Sequence[int] | None
_READERS = {".npz": read_npz, ".csv": read_csv, ".atf": read_csv, ".mat": read_mat}
_FORMATS = (*_READERS, ".abf", ".nwb", ".ibw")


def read_recording(
    path: str | Path,
    *,
    current: str | None = None,
    sweeps: _Sweeps = None,
    electrode_channel: str | None = None,
    voltage_unit: str | None = None,
    voltage_gain: float = 1.0,
    voltage_offset: float = 0.0,
    current_unit: str | None = None,
    current_gain: float = 1.0,
    current_offset: float = 0.0,
) -> Recording:
    """Read a recording from an .npz, .csv, .atf, .mat, .abf, .nwb or .ibw file.

    Units are converted to pA, mV and ms from what the file says; see :func:`jaxlif.recordings.npz_file.read_npz`,
    :func:`jaxlif.recordings.csv_file.read_csv` (and .atf), :func:`jaxlif.recordings.mat_file.read_mat`,
    :func:`jaxlif.recordings.abf_file.read_abf`,
    :func:`jaxlif.recordings.nwb_file.read_nwb` and :func:`jaxlif.recordings.ibw_file.read_ibw` for the layouts. Of
    Igor binary waves, which hold one channel of one sweep each, any one stands for all of its protocol.

    Args:
        path: the file.
        current: which current an .abf or .nwb file is asked for, "recorded" or "commanded" (None: the recorded one
            where there is one); for the other formats, which hold one current, what that current is.
        sweeps: numbers of the sweeps to read, from 0; None for all.
        electrode_channel: name of the electrode of an .nwb file, or of the channel of an .abf file, needed
            where it holds several: "V2" of the voltages, "I1" of the currents, "V2,I1" where both are to be chosen.
        voltage_unit: the unit of the file's voltage, where the file states a wrong one. In an .abf file without a
            voltage it makes one of the channel that is named, or of the only one.
        voltage_gain: factor to that voltage, where the file was scaled wrongly.
        voltage_offset: mV, added after it.
        current_unit: the unit of the file's current, likewise.
        current_gain: likewise.
        current_offset: pA, likewise.

    Returns:
        The recording, with the file's name and its SHA-256: of an .ibw file, that of all files read, one after another.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for an unknown format, an empty, damaged or incomplete file, or values that
            :class:`Recording` refuses. The message starts with the file's name.
        ImportError: for a format whose library is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "cell.npz"
        ...     np.savez(path, current=np.zeros(1000), voltage=np.linspace(-70.0, -69.0, 1000), dt=0.1)
        ...     read_recording(path)
        Recording(cell.npz: 1 sweep of 100 ms, dt = 0.1 ms, current unknown, with voltage)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(f"{path.name}: format {path.suffix!r} is not known; known are {', '.join(_FORMATS)}")
    if current not in (None, "recorded", "commanded"):
        raise ValueError(f'current = {current!r}: it must be "recorded", "commanded" or None')
    corrections = Corrections(
        voltage_unit=voltage_unit,
        voltage_gain=voltage_gain,
        voltage_offset=voltage_offset,
        current_unit=current_unit,
        current_gain=current_gain,
        current_offset=current_offset,
    )
    with reading(path):
        require_file(path)
        if suffix != ".nwb":  # of which the sweeps that are asked for are read
            require_memory(path.stat().st_size, "the file")
        fields = _reader(suffix, electrode_channel, sweeps)(path, current, corrections)
        fields = _choose(fields, sweeps) if suffix in (*_READERS, ".abf") else fields
        files = fields.pop("files", [path])
        fields = _corrected(_stack(fields, sweeps), corrections)
        _require_possible(fields)
        return Recording(**fields, corrections=corrections.given(), name=path.name, sha256=checksum(files))


def channels_of(path: Path) -> tuple[str, ...]:
    """Return the channels of an .abf file, or the series of an .nwb file, as "name: unit"; none for other formats.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for a damaged one.
    """
    listed = {".abf": abf_channels, ".nwb": nwb_channels}.get(path.suffix.lower())
    with reading(path):
        require_file(path)
        return tuple(listed(path)) if listed else ()


def _reader(suffix: str, electrode: str | None, sweeps: _Sweeps) -> _Reader:
    """Return the reader of a format; those of .nwb and .ibw open only the sweeps that are asked for."""
    if suffix == ".nwb":
        return partial(read_nwb, electrode=electrode, sweeps=sweeps)
    if suffix == ".abf":
        return partial(read_abf, electrode=electrode)
    if electrode is not None:
        raise ValueError(
            f"electrode_channel = {electrode!r}: only .nwb and .abf files name their electrodes, leave it out"
        )
    return partial(read_ibw, sweeps=sweeps) if suffix == ".ibw" else _READERS[suffix]


def _corrected(fields: dict[str, Any], corrections: Corrections) -> dict[str, Any]:
    """Apply gain and offset, to a trace of the electrode too, which the same amplifier made."""
    names = {f"{part}{quantity}": quantity for part in ("", "electrode_") for quantity in ("voltage", "current")}
    return fields | {
        n: corrections.corrected(quantity, fields[n]) for n, quantity in names.items() if fields.get(n) is not None
    }


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


def _choose(fields: dict[str, Any], sweeps: _Sweeps) -> dict[str, Any]:
    """Keep the chosen sweeps; done before the check, so that one bad sweep does not cost the others."""
    if sweeps is None:
        return fields
    per_sweep = {n: fields[n] for n in ("current", "voltage", "spikes") if n in fields}
    per_sweep = {n: np.atleast_2d(v) if isinstance(v, np.ndarray) else v for n, v in per_sweep.items()}
    if isinstance(names := fields.get("stimulus"), list):
        fields = fields | {"stimulus": tuple(names[i] for i in sweep_indices(sweeps, len(names)))}
    return fields | {n: [v[i] for i in sweep_indices(sweeps, len(v))] for n, v in per_sweep.items()}


def _stack(fields: dict[str, Any], sweeps: _Sweeps) -> dict[str, Any]:
    """Put lists of sweeps into arrays, and the sampling intervals of all sweeps into one."""
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and name != "stimulus"}
    intervals = lists.pop("dt", [])
    if intervals and max(intervals) - min(intervals) > 1e-3 * min(intervals):
        listed = ", ".join(f"{dt:g}" for dt in sorted(set(intervals)))
        raise ValueError(f"sweeps have dt = {listed} ms: choose some of one{_example(intervals, sweeps)}")
    for name, value in lists.items():
        lengths = [sweep.size for sweep in value]
        if len(set(lengths)) > 1:
            text = f"{name} has sweeps of {sorted(set(lengths))} samples: choose some of one length"
            raise ValueError(text + _example(lengths, sweeps))
    one_dt = {"dt": intervals[0]} if intervals else {}
    return fields | one_dt | {name: np.stack(value) for name, value in lists.items()}


def _example(values: list[Any], sweeps: _Sweeps) -> str:
    """Name the keyword, and the sweeps with the commonest value where all sweeps were asked for."""
    if sweeps is not None:
        return " with `sweeps`"
    commonest = max(values, key=values.count)
    numbers = [n for n, value in enumerate(values) if value == commonest]
    return f" with `sweeps`, as {numbers}" if len(numbers) <= 20 else f" with `sweeps`, as {numbers[:20]} and more"
