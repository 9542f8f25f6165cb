"""Recordings in NumPy archives: ``current`` in pA, ``voltage`` in mV, ``dt`` in ms."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.files import load_arrays
from jaxlif.recordings.units import Corrections, to_library_unit

_PER_SWEEP = ("current", "voltage", "spikes")
_UNITS = {
    f"{part}{quantity}": (quantity, unit)
    for part in ("", "electrode_")
    for quantity, unit in (("voltage", "mV"), ("current", "pA"))
}
KNOWN = (*_PER_SWEEP, "dt", "electrode_current", "electrode_voltage", "stimulus")


def read_npz(path: Path, current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Read the fields of a recording from an .npz archive; arrays with other names are ignored.

    Only a name that is nearly a missing one of these is refused.

    Args:
        path: the archive, with ``current`` [T], [sweeps, T] or [stimuli, repeats, T], ``dt``, and optionally
            ``voltage``, ``spikes``, ``electrode_current``, ``electrode_voltage`` and ``stimulus``, the names of the
            stimuli, [sweeps] or [stimuli].
        current: what the current is, "recorded" or "commanded"; the archive does not say it.
        corrections: units in place of mV and pA.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`.

    Raises:
        ValueError: for a file that is no archive or is cut short, a missing array, or a pickled one.
    """
    return fields_of(load_arrays(path, KNOWN), current, corrections)


def fields_of(arrays: dict[str, np.ndarray], current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Return the fields of a recording whose arrays have these names."""
    for name in ("current", "dt"):
        if name not in arrays:
            unit = "pA" if name == "current" else "ms"
            raise ValueError(f"the array `{name}` ({unit}) is missing")
    names = _stimulus_names(arrays.pop("stimulus", None), arrays["current"].shape)
    fields = {name: _flatten(value) if name in _PER_SWEEP else value for name, value in arrays.items()} | names
    for name in fields.keys() & _UNITS.keys():
        fields[name] = _in_library_unit(name, fields[name], corrections)
    return fields | {"current_source": current or "unknown"}


def _in_library_unit(name: str, values: np.ndarray, corrections: Corrections) -> np.ndarray:
    quantity, unit = _UNITS[name]
    factor = to_library_unit(quantity, corrections.unit(quantity, unit))
    return values if factor == 1.0 else factor * values


def _flatten(array: np.ndarray) -> np.ndarray:
    """Put stimuli and repeats on one axis of sweeps."""
    return array.reshape(-1, array.shape[-1]) if array.ndim == 3 else np.atleast_1d(array)


def _stimulus_names(names: np.ndarray | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a name for each sweep; an array that holds no text is none of names and ignored."""
    if names is None or names.dtype.kind != "U":
        return {}
    if names.ndim > 1:
        raise ValueError(f"stimulus has shape {names.shape}: one name for each sweep or stimulus is expected")
    if names.ndim == 1 and len(shape) == 3 and len(names) == shape[0]:
        names = np.repeat(names, shape[1])
    return {"stimulus": str(names) if names.ndim == 0 else names.tolist()}
