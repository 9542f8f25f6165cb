"""Recordings in text tables whose header names quantities and units: ``time_ms,current_pA,voltage_mV``."""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import checksum, reading, require_file
from jaxlif.recordings.clamp import voltage_clamp
from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.text_table import TextTable, read_text_table
from jaxlif.recordings.units import NO_CORRECTIONS, Corrections, is_unit, to_library_unit

_QUANTITIES = {
    "time": ("time", "t"),
    "current": ("current", "i", "im", "imemb", "imon", "command"),
    "voltage": ("voltage", "v", "vm", "vmon", "potential"),
    "rate": ("rate", "f", "frequency"),
    "sweep": ("sweep",),
}
_BY_UNIT = ("trace", "sweep", "signal", "channel", "in", "cmd")  # names of what amplifiers' programs export
_CELLS = ("cell", "neuron", "channel", "electrode")  # a column of this name says whose a row is
_BY_CHANNEL = ("in", "cmd", "vmon", "imon")  # names whose number is an input of the amplifier, and no sweep
_SWEEP = re.compile(r"\d+|(sweep|trace|trial|run|rep)\d+")


class _Column(NamedTuple):
    """What a column holds, the number of its sweep, and the factor to the library's unit."""

    quantity: str
    sweep: int
    factor: float


def read_csv(path: Path, current: str | None, corrections: Corrections) -> dict[str, Any]:
    """Read the fields of a recording from a table separated by commas, semicolons or tabs.

    The header names the quantity and its unit in any punctuation: ``time_ms``, ``time (s)``, ``Vm [mV]``. Several
    sweeps are numbered columns (``current_pA_1``, ``voltage_mV_1``, ...; a single current serves all voltages) or a
    column ``sweep``. Clampfit's ``Trace #1 (mV)`` and ``IN 0 (mV)`` are what their unit is of, and HEKA's
    ``Vmon-1[V]`` is read as well. Other columns, and lines above the header as those of an .atf file, are left out.
    Decimal commas are read where semicolons or tabs separate the cells. The sampling interval comes from the time.

    Args:
        path: the table.
        current: what the current is, "recorded" or "commanded"; the table does not say it.
        corrections: units in place of those in the header.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array for each sweep.

    Raises:
        ValueError: for a missing column or unit, a row of another width than the header, a cell that is no number or
            was cut, or times that are not uniform or contradict each other.
    """
    columns, table = _read_table(path, corrections)
    blocks = [table]
    by_sweep = [n for n, column in enumerate(columns) if column.quantity == "sweep"]
    if by_sweep:
        number = _whole(table[:, by_sweep[0]])
        _, first = np.unique(number, return_index=True)
        blocks = [table[number == number[row]] for row in np.sort(first)]
        if np.count_nonzero(np.diff(number)) >= len(blocks):
            text = "rows of different sweeps alternate: they are put together by the column `sweep`"
            warnings.warn(text, RecordingWarning, stacklevel=3)
    intervals = [_sampling_interval(time) for block in blocks for time in _times(columns, block)]
    for dt in intervals[1:]:
        _same_interval(intervals[0], dt)
    sweeps = {name: [_take(columns, block, name) for block in blocks] for name in ("current", "voltage")}
    pairs = [_pair(current, voltage) for current, voltage in zip(sweeps["current"], sweeps["voltage"], strict=True)]
    fields = {name: [sweep for pair in pairs for sweep in pair[name]] for name in pairs[0]}
    return fields | {"dt": intervals[0], "current_source": current or "unknown"}


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
    with reading(path):
        require_file(path)
        columns, table = _read_table(path, corrections)
        currents, rates = (list(_take(columns, table, quantity).values()) for quantity in ("current", "rate"))
        if len(currents) != 1 or len(rates) != 1:
            raise ValueError("one column current_pA and one column rate_Hz are expected")
        if not (np.isfinite(currents) & np.isfinite(rates)).all():
            row = int(np.argmin(np.isfinite(currents[0]) & np.isfinite(rates[0])))
            raise ValueError(f"row {row + 1}: {currents[0][row]:g} pA and {rates[0][row]:g} Hz must be finite")
        return RatesTable(corrections.corrected("current", currents[0]), rates[0], checksum([path]))


def _read_table(path: Path, corrections: Corrections) -> tuple[list[_Column], np.ndarray]:
    text = read_text_table(path, lambda cells: sum(_quantity(_words(cell)) is not None for cell in cells) > 1)
    found = [(n, _parse_header(cell, corrections)) for n, cell in enumerate(text.header)]
    columns = {n: column for n, column in found if column is not None}
    if not columns:
        header = text.delimiter.join(text.header)
        raise ValueError(f"the header {header!r} names no time, current or voltage with its unit")
    _require_one_cell(text, columns)
    return list(columns.values()), text.numbers(list(columns))


def _require_one_cell(text: TextTable, columns: dict[int, _Column]) -> None:
    """Refuse a table of several cells, and say which traces are not read."""
    for quantity in ("current", "voltage"):
        channels = {
            _channel(text.header[n]): text.header[n].strip() for n, c in columns.items() if c.quantity == quantity
        }
        if len(channels) > 1:
            first, second, *_ = channels.values()
            raise ValueError(
                f"columns {first!r} and {second!r} are two channels of the {quantity}: keep one in the table, that"
                " of one cell; sweeps are numbered at the end, as in voltage_mV_1"
            )
    for n, cell in enumerate(text.header):
        words = _words(cell) if n not in columns else []
        if words and words[0].lower() in _CELLS and len(found := {row[n].strip() for row in text.rows()}) > 1:
            raise ValueError(f"column {cell.strip()!r} holds {len(found)} values: give each cell a table of its own")
        if len(words) > 1 and any(is_unit(quantity, words[-1]) for quantity in ("current", "voltage")):
            note = f"column {cell.strip()!r} is not read: its name says neither current nor voltage"
            warnings.warn(note, RecordingWarning, stacklevel=5)


def _channel(cell: str) -> tuple[str, ...]:
    """Return a column's name without its unit and the number of its sweep, which stands alone or behind "sweep"."""
    words = re.findall(r"[a-zµμ]+\d*|\d+", cell.lower())
    if words[0] in _BY_CHANNEL:
        return tuple(words)
    names = [word for word in words if not _SWEEP.fullmatch(word)]
    return tuple(names[:-1])


def _words(cell: str) -> list[str]:
    return re.findall(r"[A-Za-zµμ]+|\d+", cell)


def _quantity(words: list[str]) -> str | None:
    """Return what a column holds, by its first word; by its unit where that says nothing of it."""
    first = words[0].lower() if words else ""
    if first in _BY_UNIT and len(words) > 1:
        return next((name for name in ("voltage", "current") if is_unit(name, words[-1])), None)
    return next((name for name, synonyms in _QUANTITIES.items() if first in synonyms), None)


def _parse_header(cell: str, corrections: Corrections) -> _Column | None:
    """Split "current_pA_1" or "time (s)" into quantity, unit and sweep number; None for another quantity."""
    words = _words(cell)
    if (quantity := _quantity(words)) is None:
        return None
    number = next((int(word) for word in words if word.isdigit()), 1)
    units = [word for word in words[1:] if not word.isdigit()]
    if quantity == "sweep":
        return _Column(quantity, number, 1.0)
    stated = units[-1] if units else ""
    unit = corrections.unit(quantity, stated) if quantity in ("voltage", "current") else stated
    if not unit:
        raise ValueError(f"column {cell.strip()!r} names no unit: write for example time_ms, current_pA or voltage_mV")
    _require_clamp_of_current(cell.strip(), words[0].lower(), quantity, unit)
    return _Column(quantity, number, to_library_unit(quantity, unit))


def _require_clamp_of_current(cell: str, name: str, quantity: str, unit: str) -> None:
    """Refuse a column whose name and unit contradict each other, and the command of a voltage clamp."""
    if name in ("command", "cmd") and is_unit("voltage", unit):
        raise ValueError(voltage_clamp(cell))
    other = {"current": "voltage", "voltage": "current"}.get(quantity)
    if other is None or not is_unit(other, unit):
        return
    raise ValueError(
        f"column {cell!r} is a {quantity} by its name and a {other} by its unit: a wrong unit, for which"
        f" `{quantity}_unit` gives the right one, and `{quantity}_gain` its scale"
    )


def _take(columns: list[_Column], table: np.ndarray, quantity: str) -> dict[int, np.ndarray]:
    """Return the columns of a quantity by their sweep numbers, in their order and in the library's unit."""
    found = sorted((c.sweep, n, c.factor) for n, c in enumerate(columns) if c.quantity == quantity)
    numbers = [sweep for sweep, _, _ in found]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"several columns hold the {quantity} of sweep {max(numbers, key=numbers.count)}")
    return {sweep: factor * table[:, n] for sweep, n, factor in found}


def _times(columns: list[_Column], table: np.ndarray) -> list[np.ndarray]:
    """Return all columns of time, of which programs write one beside each trace."""
    times = [c.factor * table[:, n] for n, c in enumerate(columns) if c.quantity == "time"]
    if not times:
        raise ValueError("no time column: name one time_ms or time_s, the sampling interval comes from it")
    return times


def _whole(numbers: np.ndarray) -> np.ndarray:
    bad = ~(np.isfinite(numbers) & (numbers == np.round(numbers)))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"row {row + 1}: sweep = {numbers[row]:g}, a whole number is expected")
    return numbers


def _sampling_interval(time: np.ndarray) -> float:
    if time.size < 2:
        raise ValueError("a sweep has fewer than 2 samples")
    if not np.isfinite(time).all():
        row = int(np.argmin(np.isfinite(time)))
        raise ValueError(f"row {row + 1} of a sweep has the time {time[row]:g}: a finite number is expected")
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
        raise ValueError(f"columns of time or sweeps have different intervals, {dt:g} and {other:g} ms")


def _pair(current: dict[int, np.ndarray], voltage: dict[int, np.ndarray]) -> dict[str, list[np.ndarray]]:
    if not current:
        raise ValueError("no current column: name one current_pA or current_nA")
    if not voltage:
        return {"current": list(current.values())}
    if len(current) > 1 and current.keys() != voltage.keys():
        numbers = f"currents {list(current)} and voltages {list(voltage)}"
        raise ValueError(f"{len(current)} current and {len(voltage)} voltage columns, {numbers}: they must pair up")
    currents = list(current.values()) * (len(voltage) if len(current) == 1 else 1)
    return {"current": currents, "voltage": list(voltage.values())}
