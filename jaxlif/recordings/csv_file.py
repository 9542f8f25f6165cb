"""Recordings in text tables whose header names quantities and units: ``time_ms,current_pA,voltage_mV``."""

import csv
import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.recordings.units import NO_CORRECTIONS, Corrections, to_library_unit

_QUANTITIES = {
    "time": ("time", "t"),
    "current": ("current", "i", "im", "imemb", "command"),
    "voltage": ("voltage", "v", "vm", "potential"),
    "rate": ("rate", "f", "frequency"),
    "sweep": ("sweep",),
}


class _Column(NamedTuple):
    """What a column holds, the number of its sweep, and the factor to the library's unit."""

    quantity: str
    sweep: int
    factor: float


def read_csv(path: Path, current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Read the fields of a recording from a table separated by commas, semicolons or tabs.

    The header names the quantity and its unit in any punctuation: ``time_ms``, ``time (s)``, ``Vm [mV]``. Several
    sweeps are numbered columns (``current_pA_1``, ``voltage_mV_1``, ...; a single current serves all voltages) or a
    column ``sweep``. Other columns are ignored. The sampling interval comes from the time.

    Args:
        path: the table.
        current: what the current is, "recorded" or "commanded"; the table does not say it.
        corrections: units in place of those in the header.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array for each sweep.

    Raises:
        ValueError: for a missing column or unit, a cell that is no number, or a time that is not uniform.
    """
    columns, table = _read_table(path, corrections)
    blocks = [table]
    by_sweep = [n for n, column in enumerate(columns) if column and column.quantity == "sweep"]
    if by_sweep:
        number = table[:, by_sweep[0]]
        _, first = np.unique(number, return_index=True)
        blocks = [table[number == number[row]] for row in np.sort(first)]
    fields: dict[str, Any] = {"dt": _sampling_interval(_take(columns, blocks[0], "time"))}
    for block in blocks[1:]:
        _same_interval(fields["dt"], _sampling_interval(_take(columns, block, "time")))
    sweeps = {name: [s for b in blocks for s in _take(columns, b, name)] for name in ("current", "voltage")}
    return fields | _pair(sweeps["current"], sweeps["voltage"]) | {"current_source": current or "unknown"}


class RatesTable(NamedTuple):
    """Target firing rates: currents [K] pA, rates [K] Hz, and the file's checksum."""

    currents: np.ndarray
    rates: np.ndarray
    sha256: str


def read_rates(path: str | Path, corrections: Corrections = NO_CORRECTIONS) -> RatesTable:
    """Read firing rates from a table with the columns ``current_pA`` and ``rate_Hz``, or other units of theirs.

    Args:
        path: the table, with a header that names the units.
        corrections: of the current.

    Returns:
        The :class:`RatesTable`, in the order of the file.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for a missing column or unit, or a cell that is no number. The message starts with the file's name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        columns, table = _read_table(path, corrections)
        currents, rates = (_take(columns, table, quantity) for quantity in ("current", "rate"))
        if len(currents) != 1 or len(rates) != 1:
            raise ValueError("one column current_pA and one column rate_Hz are expected")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return RatesTable(
        corrections.corrected("current", currents[0]), rates[0], hashlib.sha256(path.read_bytes()).hexdigest()
    )


def _read_table(path: Path, corrections: Corrections) -> tuple[list[_Column | None], np.ndarray]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"not a text file ({error.reason} at byte {error.start})") from error
    lines = [line for line in lines if line.strip()]
    if len(lines) < 3:
        raise ValueError(f"{len(lines)} lines: a header and at least two samples are expected")
    delimiter = max(",;\t", key=lines[0].count)
    columns = [_parse_header(cell, corrections) for cell in next(csv.reader(lines[:1], delimiter=delimiter))]
    used = [n for n, column in enumerate(columns) if column]
    if not used:
        raise ValueError(f"the header {lines[0]!r} names no time, current or voltage with its unit")
    try:
        table = np.loadtxt(lines[1:], delimiter=delimiter, usecols=used, ndmin=2, comments=None, quotechar='"')
    except ValueError as error:
        raise ValueError(f"a cell is missing or no number ({str(error).partition(';')[0]})") from error
    return [columns[n] for n in used], table


def _parse_header(cell: str, corrections: Corrections) -> _Column | None:
    """Split "current_pA_1" or "time (s)" into quantity, unit and sweep number; None for another quantity."""
    words = re.findall(r"[a-zµμ]+|\d+", cell.lower())
    quantity = next((name for name, synonyms in _QUANTITIES.items() if words and words[0] in synonyms), None)
    if quantity is None:
        return None
    number = next((int(word) for word in words if word.isdigit()), 1)
    units = [word for word in words[1:] if not word.isdigit()]
    if quantity == "sweep":
        return _Column(quantity, number, 1.0)
    stated = units[-1] if units else ""
    unit = corrections.unit(quantity, stated) if quantity in ("voltage", "current") else stated
    if not unit:
        raise ValueError(f"column {cell.strip()!r} names no unit: write for example time_ms, current_pA or voltage_mV")
    return _Column(quantity, number, to_library_unit(quantity, unit))


def _take(columns: list[_Column | None], table: np.ndarray, quantity: str) -> list[np.ndarray]:
    """Return the columns of a quantity in the order of their sweep numbers, in the library's unit."""
    found = [(c.sweep, n, c.factor) for n, c in enumerate(columns) if c and c.quantity == quantity]
    numbers = [sweep for sweep, _, _ in found]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"several columns hold the {quantity} of sweep {max(numbers, key=numbers.count)}")
    return [factor * table[:, n] for _, n, factor in sorted(found)]


def _sampling_interval(times: list[np.ndarray]) -> float:
    if not times:
        raise ValueError("no time column: name one time_ms or time_s, the sampling interval comes from it")
    time = times[0]
    if time.size < 2:
        raise ValueError("a sweep has fewer than 2 samples")
    dt = (time[-1] - time[0]) / (time.size - 1)
    # A tenth of a sample leaves room for times that were rounded to a few digits, and none for a missing sample.
    if dt <= 0 or (np.abs(time - time[0] - dt * np.arange(time.size)) > 0.1 * dt).any():
        change = np.diff(time)
        row = int(np.argmax(np.abs(change - np.median(change))))
        raise ValueError(
            f"the time does not rise uniformly: row {row + 1} to {row + 2} of a sweep is {time[row]:g} to"
            f" {time[row + 1]:g} ms, the median step {np.median(change):g} ms"
        )
    # Nine digits undo the rounding of the subtraction: 0.1 and not 0.09999999999990905.
    return float(f"{dt:.9g}")


def _same_interval(dt: float, other: float) -> None:
    if abs(other - dt) > 1e-3 * dt:
        raise ValueError(f"sweeps were sampled at different intervals, {dt:g} and {other:g} ms")


def _pair(current: list[np.ndarray], voltage: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    if not current:
        raise ValueError("no current column: name one current_pA or current_nA")
    if not voltage:
        return {"current": current}
    if len(current) == 1:
        current = current * len(voltage)
    if len(current) != len(voltage):
        raise ValueError(f"{len(current)} current and {len(voltage)} voltage columns: they must pair up")
    return {"current": current, "voltage": voltage}
