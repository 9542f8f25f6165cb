"""Recordings in MATLAB's .mat files (version 5, of MATLAB 5 to 7.2): variables named like the arrays of an archive.

Read by its public layout and not through scipy.io.loadmat, which ends the process on a wrong type of an element.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.files import require_known, require_memory
from jaxlif.recordings.npz_file import fields_of
from jaxlif.recordings.units import Corrections

_KNOWN = ("current", "voltage", "spikes", "dt", "electrode_current", "electrode_voltage")
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _UINT8 = 14, 15, 9
_NUMERIC_CLASSES, _IS_COMPLEX = range(6, 16), 0x800


def read_mat(path: Path, current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Read the fields of a recording from a .mat file.

    Args:
        path: the file, with ``current`` and ``dt``, and optionally ``voltage`` and ``spikes``, in pA, ms and mV. The
            longer axis is time: a column, a row, [T, sweeps] or [sweeps, T].
        current: what the current is, "recorded" or "commanded"; the file does not say it.
        corrections: units in place of mV and pA.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`.

    Raises:
        ValueError: for a damaged file, one of MATLAB 4 or 7.3, a missing variable, or one that holds no real numbers.
    """
    raw = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None or struct.unpack_from(f"{order}H", raw, 124) != (0x100,):
        raise ValueError("no .mat file of MATLAB 5 to 7.2: save it once more with save(..., '-v7')")
    variables = dict(_variables(raw[128:], order))
    require_known(variables, _KNOWN)
    arrays = {name: _array(name, variables[name], order) for name in _KNOWN if name in variables}
    return fields_of(arrays, current, corrections)


def _elements(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Split bytes into elements, each a type and its data; up to four bytes of data may stand in the tag."""
    at = 0
    while at < len(raw):
        if at + 8 > len(raw):
            raise ValueError("a .mat file that was cut short")
        kind, size = struct.unpack_from(f"{order}II", raw, at)
        small = kind >> 16
        start, kind, size = (at + 4, kind & 0xFFFF, small) if small else (at + 8, kind, size)
        if start + size > len(raw) or small > 4:
            raise ValueError(f"a .mat file that is damaged or was cut short: {size} bytes are declared at byte {at}")
        yield kind, raw[start : start + size]
        at = at + 8 if small else start + size + (-size % 8 if kind != _COMPRESSED else 0)


def _variables(raw: bytes, order: str) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """Return the name and the parts of every variable."""
    for kind, data in _elements(raw, order):
        if kind == _COMPRESSED:
            ((kind, data),) = _elements(_inflated(data, order), order)
        parts = list(_elements(data, order)) if kind == _MATRIX else []
        if len(parts) < 3 or parts[0][0] != 6 or len(parts[0][1]) != 8:
            raise ValueError("a damaged .mat file: an element is no variable")
        name = parts[2][1].decode("latin-1")
        if not name.isidentifier() and struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF != _UINT8:  # MATLAB's own
            raise ValueError(f"a damaged .mat file: {name!r} is no name")
        yield name, parts


def _inflated(data: bytes, order: str) -> bytes:
    """Decompress one element, as long as it says at its start and no longer; its checksum comes last."""
    stream = zlib.decompressobj()
    tag = stream.decompress(data, 8)
    (size,) = struct.unpack_from(f"{order}I", tag, 4)
    require_memory(2 * size, "a variable of the .mat file")
    rest = stream.decompress(stream.unconsumed_tail, size + 1)
    if len(rest) != size or not stream.eof:
        raise ValueError(f"a damaged .mat file: a variable of {size} bytes has another length")
    return tag + rest


def _array(name: str, parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    """Return one variable with time along its last axis."""
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    if len(parts) != 4 or flags & 0xFF not in _NUMERIC_CLASSES or flags & _IS_COMPLEX or parts[3][0] not in _NUMBERS:
        raise ValueError(f"the array `{name}` cannot be read; only full arrays of real numbers are")
    shape = np.frombuffer(parts[1][1], f"{order}i4").tolist()
    values = np.frombuffer(parts[3][1], order + _NUMBERS[parts[3][0]])
    if min(shape, default=-1) < 0 or prod(shape) != values.size:
        raise ValueError(f"the array `{name}` is {shape} and has {values.size} values: damaged")
    array = values.reshape(shape, order="F")
    if name in ("dt", "electrode_current", "electrode_voltage"):
        return array.reshape(-1)
    if array.ndim == 2 and shape[0] == shape[1]:
        raise ValueError(f"the array `{name}` has shape {shape}: which axis is time?")
    return array.T if array.ndim == 2 and shape[0] > shape[1] else array
