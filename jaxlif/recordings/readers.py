"""One door to every file format: the suffix chooses the reader, the reader's fields make a checked Recording."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.recordings.abf_file import read_abf
from jaxlif.recordings.csv_file import read_csv
from jaxlif.recordings.npz_file import read_npz
from jaxlif.recordings.recording import Recording, sweep_indices

_READERS = {".npz": read_npz, ".csv": read_csv, ".abf": read_abf}


def read_recording(
    path: str | Path, *, current: str | None = None, sweeps: int | slice | Sequence[int] | None = None
) -> Recording:
    """Read a recording from an .npz, .csv or .abf file.

    Units are converted to pA, mV and ms from what the file says; see :func:`jaxlif.recordings.npz_file.read_npz`,
    :func:`jaxlif.recordings.csv_file.read_csv` and :func:`jaxlif.recordings.abf_file.read_abf` for the layouts.

    Args:
        path: the file.
        current: which current an .abf file is asked for, "recorded" or "commanded" (None: the recorded one where
            there is one); for the other formats, which hold one current, what that current is.
        sweeps: numbers of the sweeps to read, from 0; None for all.

    Returns:
        The recording, with the file's name and its SHA-256.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for an unknown format, an empty, damaged or incomplete file, or values that
            :class:`Recording` refuses. The message starts with the file's name.
        ImportError: for a format whose library is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "cell.npz"
        ...     np.savez(path, current=np.zeros(1000), voltage=np.full(1000, -70.0), dt=0.1)
        ...     read_recording(path)
        Recording(cell.npz: 1 sweep of 100 ms, dt = 0.1 ms, current unknown, with voltage)
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path.name}: format {path.suffix!r} is not known; known are {', '.join(_READERS)}")
    if current not in (None, "recorded", "commanded"):
        raise ValueError(f'current = {current!r}: it must be "recorded", "commanded" or None')
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        fields = _stack(_choose(reader(path, current), sweeps))
        return Recording(**fields, name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _choose(fields: dict[str, Any], sweeps: int | slice | Sequence[int] | None) -> dict[str, Any]:
    """Keep the chosen sweeps; done before the check, so that one bad sweep does not cost the others."""
    if sweeps is None:
        return fields
    per_sweep = {n: fields[n] for n in ("current", "voltage", "spikes") if n in fields}
    per_sweep = {n: np.atleast_2d(v) if isinstance(v, np.ndarray) else v for n, v in per_sweep.items()}
    return fields | {n: [v[i] for i in sweep_indices(sweeps, len(v))] for n, v in per_sweep.items()}


def _stack(fields: dict[str, Any]) -> dict[str, Any]:
    """Put lists of sweeps into arrays."""
    lists = {name: value for name, value in fields.items() if isinstance(value, list)}
    for name, value in lists.items():
        lengths = sorted({sweep.size for sweep in value})
        if len(lengths) > 1:
            raise ValueError(f"{name} has sweeps of {lengths} samples: choose some of one length with `sweeps`")
    return fields | {name: np.stack(value) for name, value in lists.items()}
