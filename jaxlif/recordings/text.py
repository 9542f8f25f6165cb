"""Recordings in text tables whose header names quantities and units: ``time_ms,current_pA,voltage_mV``."""

import csv
import re
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxlif.files import checksum, reading, require_file
from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.units import NO_CORRECTIONS, Asked, Corrections, is_unit, to_library_unit, voltage_clamp

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
_MOST_LINES_ABOVE = 200  # that a program writes over the header of its table


class _Column(NamedTuple):
    """Where a column stands, what it holds, the number of its sweep, and the factor to the library's unit."""

    place: int
    quantity: str
    sweep: int
    factor: float


def read_csv(path: Path, asked: Asked) -> dict[str, Any]:
    """Read the fields of a recording from a table separated by commas, semicolons or tabs.

    The header names the quantity and its unit in any punctuation: ``time_ms``, ``time (s)``, ``Vm [mV]``. Several
    sweeps are numbered columns (``current_pA_1``, ``voltage_mV_1``, ...; a single current serves all voltages) or a
    column ``sweep``. Clampfit's ``Trace #1 (mV)`` and ``IN 0 (mV)`` are what their unit is of, and HEKA's
    ``Vmon-1[V]`` is read as well. Other columns, and lines above the header, are left out. Decimal commas are read
    where semicolons or tabs separate the cells. The sampling interval comes from the time.
    """
    columns, table = _read_columns(path, asked.corrections)
    blocks = _blocks(columns, table)
    times = [time for block in blocks for time in _taken(columns, block, "time")]
    if not times:
        raise ValueError("no time column: name one time_ms or time_s, the sampling interval comes from it")
    intervals = [_sampling_interval(time) for time in times]
    if np.ptp(intervals) > 1e-3 * min(intervals):
        listed = f"{min(intervals):g} and {max(intervals):g} ms"
        raise ValueError(f"columns of time or sweeps have different intervals, {listed}")
    pairs = [_pair(columns, block) for block in blocks]
    sweeps = {name: [sweep for pair in pairs for sweep in pair[name]] for name in pairs[0]}
    return {**sweeps, "dt": intervals[0], "current_source": asked.current or "unknown"}


class RatesTable(NamedTuple):
    """Target firing rates: currents [K] pA, rates [K] Hz, and the file's checksum."""

    currents: Float[np.ndarray, " K"]
    rates: Float[np.ndarray, " K"]
    sha256: str


def read_rates(path: str | Path, corrections: Corrections = NO_CORRECTIONS) -> RatesTable:
    """Read firing rates from a table with the columns ``current_pA`` and ``rate_Hz``, or other units of theirs.

    They stay in the order of the file. ``corrections`` are of the current. A missing column or unit, or a cell that is
    no number, is refused with a ValueError whose message starts with the file's name.
    """
    path = Path(path)
    with reading(path):
        require_file(path)
        columns, table = _read_columns(path, corrections)
        found = [_taken(columns, table, quantity) for quantity in ("current", "rate")]
        if [len(values) for values in found] != [1, 1]:
            raise ValueError("one column current_pA and one column rate_Hz are expected")
        pairs = np.concatenate(found)
        if (bad := ~np.isfinite(pairs).all(axis=0)).any():
            row = int(np.argmax(bad))
            raise ValueError(f"row {row + 1}: {pairs[0, row]:g} pA and {pairs[1, row]:g} Hz must be finite")
        return RatesTable(corrections.corrected("current", pairs[0]), pairs[1], checksum([path]))


# --- the text ---------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """The cells of a header, the lines under it, what separates their cells, and whether the last line is ended."""

    header: list[str]
    lines: list[str]
    delimiter: str
    ended: bool

    def rows(self) -> Iterator[list[str]]:
        """Yield the cells of every row; those beyond the header are left out where they are empty, and else refused."""
        width = len(self.header)
        for n, row in enumerate(csv.reader(self.lines, delimiter=self.delimiter)):
            if len(row) < width or any(cell.strip() for cell in row[width:]):
                wide = "are the decimals commas?" if self.delimiter == "," else "which column is it of?"
                why = wide if len(row) > width else "a cell is missing"
                raise ValueError(f"row {n + 1} has {len(row)} cells and the header {width}: {why}")
            yield row[:width]


def _read_table(path: Path) -> _Table:
    """Read a table in UTF-8, UTF-16 with its mark, or Windows' Latin-1; above the header other lines may stand."""
    text = _text(path)
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 3:
        raise ValueError(f"{len(lines)} lines: a header and at least two samples are expected")
    named = [sum(_quantity(_words(cell)) is not None for cell in _cells(line)[1]) for line in lines[:_MOST_LINES_ABOVE]]
    first = next((n for n, count in enumerate(named) if count > 1), 0)
    delimiter, header = _cells(lines[first])
    return _Table(header, lines[first + 1 :], delimiter, text.endswith("\n"))


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # in which the micro sign of a unit is a single byte
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := re.search(r"[^\n\t -~\xa0-\uffff]", text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"not a text file, or a damaged one: character {ord(found[0]):#x} in line {line}")
    return text


def _cells(line: str) -> tuple[str, list[str]]:
    delimiter = max(",;\t", key=line.count)
    return delimiter, next(csv.reader([line], delimiter=delimiter))


def _numbers(table: _Table, used: list[int]) -> np.ndarray:
    """Return the numbers [rows, columns] of some columns; decimal commas are read, unless commas separate cells."""
    values, last = array("d"), []
    marks: dict[str, int] = {}  # of decimals, and the rows where they first stand
    for n, row in enumerate(table.rows(), start=1):
        for i in used:
            cell = row[i]
            if mark := next((c for c in ",." if c in cell), ""):
                marks.setdefault(mark, n)
            try:
                values.append(float(cell.replace(",", ".").replace("_", "?")))  # Python would take 1_0 for 10
            except ValueError as error:
                raise ValueError(f"row {n}, column {table.header[i].strip()!r}: {cell!r} is no number") from error
        last.append(row[-1])
    if len(marks) > 1:  # one of them would group the thousands
        text = f"row {marks[',']} has a comma and row {marks['.']} a point"
        raise ValueError(f"{text}: which of them marks the decimals?")
    if not table.ended and len(table.header) - 1 in used:
        _require_uncut(last)
    return np.array(values).reshape(-1, len(used))


def _require_uncut(column: list[str]) -> None:
    """Refuse a last cell with fewer decimals than all above it, in a file whose last line is not ended."""
    *others, last = (len(cell.strip().replace(",", ".").partition(".")[2]) for cell in column)
    if last < min(others):
        text = f"the file ends within a number: {column[-1]!r} in the last row has {last} decimals"
        raise ValueError(f"{text}, the others {min(others)} or more")
    if last < max(others) or last == 0:
        text = f"the last line is not ended: was its last number, {column[-1].strip()}, cut?"
        warnings.warn(text, RecordingWarning, stacklevel=6)


# --- the header -------------------------------------------------------------------------------------------


def _read_columns(path: Path, corrections: Corrections) -> tuple[list[_Column], np.ndarray]:
    """Return the columns that mean something, and their numbers [rows, columns]."""
    table = _read_table(path)
    found = [_column(n, cell, corrections) for n, cell in enumerate(table.header)]
    columns = [column for column in found if column]
    if not columns:
        header = table.delimiter.join(table.header)
        raise ValueError(f"the header {header!r} names no time, current or voltage with its unit")
    _require_one_cell(table, columns)
    return columns, _numbers(table, [column.place for column in columns])


def _words(cell: str) -> list[str]:
    return re.findall(r"[A-Za-zµμ]+|\d+", cell)


def _quantity(words: list[str]) -> str | None:
    """Return what a column holds, by its first word; by its unit where that says nothing of it."""
    first = words[0].lower() if words else ""
    if first in _BY_UNIT and len(words) > 1:
        return next((name for name in ("voltage", "current") if is_unit(name, words[-1])), None)
    return next((name for name, synonyms in _QUANTITIES.items() if first in synonyms), None)


def _column(place: int, cell: str, corrections: Corrections) -> _Column | None:
    """Split "current_pA_1" or "time (s)" into quantity, unit and sweep number; None for another quantity."""
    words = _words(cell)
    if (quantity := _quantity(words)) is None:
        return None
    number = next((int(word) for word in words if word.isdigit()), 1)
    if quantity == "sweep":
        return _Column(place, quantity, number, 1.0)
    stated = next((word for word in words[:0:-1] if not word.isdigit()), "")
    unit = corrections.unit(quantity, stated) if quantity in ("voltage", "current") else stated
    name = cell.strip()
    if not unit:
        raise ValueError(f"column {name!r} names no unit: write for example time_ms, current_pA or voltage_mV")
    if words[0].lower() in ("command", "cmd") and is_unit("voltage", unit):
        raise ValueError(voltage_clamp(name))
    other = {"current": "voltage", "voltage": "current"}.get(quantity)
    if other and is_unit(other, unit):
        raise ValueError(
            f"column {name!r} is a {quantity} by its name and a {other} by its unit: a wrong unit, for which"
            f" `{quantity}_unit` gives the right one, and `{quantity}_gain` its scale"
        )
    return _Column(place, quantity, number, to_library_unit(quantity, unit))


def _require_one_cell(table: _Table, columns: list[_Column]) -> None:
    """Refuse a table of several cells, and say which traces are not read."""
    for quantity in ("current", "voltage"):
        names = [table.header[c.place].strip() for c in columns if c.quantity == quantity]
        if len(channels := {_channel(name): name for name in names}) > 1:
            first, second, *_ = channels.values()
            raise ValueError(
                f"columns {first!r} and {second!r} are two channels of the {quantity}: keep one in the table, that"
                " of one cell; sweeps are numbered at the end, as in voltage_mV_1"
            )
    read = [column.place for column in columns]
    for n, cell in enumerate(table.header):
        words = _words(cell) if n not in read else []
        if words and words[0].lower() in _CELLS and len(found := {row[n].strip() for row in table.rows()}) > 1:
            raise ValueError(f"column {cell.strip()!r} holds {len(found)} values: give each cell a table of its own")
        if len(words) > 1 and any(is_unit(quantity, words[-1]) for quantity in ("current", "voltage")):
            note = f"column {cell.strip()!r} is not read: its name says neither current nor voltage"
            warnings.warn(note, RecordingWarning, stacklevel=5)


def _channel(cell: str) -> tuple[str, ...]:
    """Return a column's name without its unit and the number of its sweep, which stands alone or behind "sweep"."""
    words = re.findall(r"[a-zµμ]+\d*|\d+", cell.lower())
    by_channel = words[0] in _BY_CHANNEL
    return tuple(words) if by_channel else tuple(word for word in words if not _SWEEP.fullmatch(word))[:-1]


# --- the samples ------------------------------------------------------------------------------------------


def _blocks(columns: list[_Column], table: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each sweep, where a column numbers them."""
    by_sweep = [n for n, column in enumerate(columns) if column.quantity == "sweep"]
    if not by_sweep:
        return [table]
    number = table[:, by_sweep[0]]
    if (bad := ~(np.isfinite(number) & (number == np.round(number)))).any():
        row = int(np.argmax(bad))
        raise ValueError(f"row {row + 1}: sweep = {number[row]:g}, a whole number is expected")
    sweeps = list(dict.fromkeys(number.tolist()))
    if np.count_nonzero(np.diff(number)) >= len(sweeps):
        text = "rows of different sweeps alternate: they are put together by the column `sweep`"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    return [table[number == sweep] for sweep in sweeps]


def _taken(columns: list[_Column], table: np.ndarray, quantity: str) -> list[np.ndarray]:
    return [c.factor * table[:, n] for n, c in enumerate(columns) if c.quantity == quantity]


def _pair(columns: list[_Column], table: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return the currents and voltages of a block in the order of their numbers; one current serves all voltages."""
    sweeps: dict[str, dict[int, np.ndarray]] = {"current": {}, "voltage": {}}
    for n, (_, quantity, sweep, factor) in enumerate(columns):
        if sweep in (own := sweeps.get(quantity, {})):
            raise ValueError(f"several columns hold the {quantity} of sweep {sweep}")
        own[sweep] = factor * table[:, n]
    current, voltage = sweeps["current"], sweeps["voltage"]
    if not current:
        raise ValueError("no current column: name one current_pA or current_nA")
    if not voltage:
        return {"current": [current[n] for n in sorted(current)]}
    if len(current) == 1:
        current = dict.fromkeys(voltage, *current.values())
    if current.keys() != voltage.keys():
        raise ValueError(f"columns of currents {sorted(current)} and of voltages {sorted(voltage)}: they must pair up")
    return {"current": [current[n] for n in sorted(voltage)], "voltage": [voltage[n] for n in sorted(voltage)]}


def _sampling_interval(time: np.ndarray) -> float:
    if time.size < 2:
        raise ValueError("a sweep has fewer than 2 samples")
    if (bad := ~np.isfinite(time)).any():
        row = int(np.argmax(bad))
        raise ValueError(f"row {row + 1} of a sweep has the time {time[row]:g}: a finite number is expected")
    dt = (time[-1] - time[0]) / (time.size - 1)
    # A tenth of a sample leaves room for times that were rounded to a few digits, and none for a missing sample.
    if dt <= 0 or (np.abs(time - time[0] - dt * np.arange(time.size)) > 0.1 * dt).any():
        change = np.diff(time)
        row = int(np.argmax(np.abs(change - np.median(change))))
        where = f"row {row + 1} to {row + 2} of a sweep is {time[row]:g} to {time[row + 1]:g} ms"
        raise ValueError(f"the time does not rise uniformly: {where}, the median step {np.median(change):g} ms")
    # Nine digits undo the rounding of the subtraction: 0.1 and not 0.09999999999990905.
    return float(f"{dt:.9g}")
