"""The files that commands read and write."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.arguments import sweep_numbers
from jaxlif.fitting.result import write_atomically
from jaxlif.recordings import Recording, read_recording


def read(file: Path, current: str | None, sweeps: str | None, electrode: str | None) -> Recording:
    """Read a recording; its messages name the keywords of Python, which are these options here."""
    numbers = None if sweeps is None else sweep_numbers(sweeps)
    try:
        return read_recording(file, current=current, sweeps=numbers, electrode=electrode)
    except ValueError as error:
        text = str(error).replace("`sweeps`", "--sweeps").replace("`electrode`", "--from-electrode")
        raise ValueError(text) from error


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to an .npz file, which is there whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
