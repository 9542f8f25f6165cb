"""Recordings in MATLAB's .mat files: variables named like the arrays of an .npz archive."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from jaxlif.files import require_known, require_memory, require_plain
from jaxlif.recordings.npz_file import KNOWN, fields_of
from jaxlif.recordings.units import Corrections

_PER_SWEEP = ("current", "voltage", "spikes")


def read_mat(path: Path, current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Read the fields of a recording from a .mat file, of MATLAB 4 to 7.2.

    Args:
        path: the file, with ``current`` and ``dt``, and optionally ``voltage`` and ``spikes``, in pA, ms and mV. The
            longer axis is time: a column, a row, [T, sweeps] or [sweeps, T].
        current: what the current is, "recorded" or "commanded"; the file does not say it.
        corrections: units in place of mV and pA.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`.

    Raises:
        ValueError: for a damaged file, one of MATLAB 7.3, a missing variable, or one that holds no real numbers.
    """
    try:
        declared = {name: shape for name, shape, _ in scipy.io.whosmat(path, appendmat=False)}
    except NotImplementedError as error:
        raise ValueError("a .mat file of MATLAB 7.3: save it once more with save(..., '-v7')") from error
    require_known(declared, KNOWN)
    wanted = [name for name in KNOWN if name in declared]
    require_memory(sum(8 * prod(declared[name]) for name in wanted), "the .mat file")
    arrays = scipy.io.loadmat(path, appendmat=False, variable_names=wanted)
    return fields_of({name: _array(name, arrays[name]) for name in wanted}, current, corrections)


def _array(name: str, array: Any) -> np.ndarray:
    require_plain(name, getattr(array, "dtype", np.dtype(object)))
    if name not in _PER_SWEEP or array.ndim != 2:
        return array.squeeze() if array.dtype.kind in "biuf" else array.reshape(-1)
    if array.shape[0] == array.shape[1]:
        raise ValueError(f"the array `{name}` has shape {list(array.shape)}: which axis is time?")
    return array.T if array.shape[0] > array.shape[1] else array
