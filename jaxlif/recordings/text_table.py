"""Tables in text files: encoding, header, separator and decimal mark are told from the file, or refused by the cell."""

import csv
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlif.recordings.recording import RecordingWarning

_MOST_LINES_ABOVE = 200  # that a program writes over the header of its table


class TextTable(NamedTuple):
    """The cells of a header, the lines under it, what separates their cells, and whether the last line is ended."""

    header: list[str]
    lines: list[str]
    delimiter: str
    ended: bool

    def numbers(self, used: list[int]) -> np.ndarray:
        """Return the numbers [rows, columns] of some columns; decimal commas are read, unless commas separate cells.

        Raises:
            ValueError: for a row of another width than the header, a cell that is no number or a last one that was cut.
        """
        lines = [";".join(row[n] for n in used) for row in self.rows()]
        _require_one_mark(lines)
        try:
            numbers = np.loadtxt([x.replace(",", ".") for x in lines], delimiter=";", ndmin=2, comments=None)
        except ValueError as error:
            raise ValueError(_bad_cell(self, used) or str(error)) from error
        if not self.ended and len(self.header) - 1 in used:
            _require_uncut([row[-1] for row in self.rows()])
        return numbers

    def rows(self) -> Iterator[list[str]]:
        """Yield the cells of every row; those beyond the header are left out where they are empty, and else refused."""
        width = len(self.header)
        for n, row in enumerate(csv.reader(self.lines, delimiter=self.delimiter)):
            if len(row) < width or any(cell.strip() for cell in row[width:]):
                wide = "are the decimals commas?" if self.delimiter == "," else "which column is it of?"
                why = wide if len(row) > width else "a cell is missing"
                raise ValueError(f"row {n + 1} has {len(row)} cells and the header {width}: {why}")
            yield row[:width]


def read_text_table(path: Path, is_header: Callable[[list[str]], bool]) -> TextTable:
    """Read a table separated by commas, semicolons or tabs, in UTF-8, UTF-16 with its mark, or Windows' Latin-1.

    Args:
        path: the file.
        is_header: says whether the cells of a line are the header; what stands above it is left out. The first line
            is taken where none is.

    Raises:
        ValueError: for a file that is no text, or has less than a header and two rows.
    """
    text = _text(path)
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 3:
        raise ValueError(f"{len(lines)} lines: a header and at least two samples are expected")
    first = next((n for n, line in enumerate(lines[:_MOST_LINES_ABOVE]) if is_header(_cells(line))), 0)
    delimiter = max(",;\t", key=lines[first].count)
    (header,) = csv.reader(lines[first : first + 1], delimiter=delimiter)
    return TextTable(header, lines[first + 1 :], delimiter, text.endswith("\n"))


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


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], delimiter=max(",;\t", key=line.count)))


def _require_one_mark(lines: list[str]) -> None:
    """Refuse a table with decimal points and decimal commas: one of them would group the thousands."""
    comma, point = (next((n + 1 for n, line in enumerate(lines) if mark in line), None) for mark in ",.")
    if comma and point:
        raise ValueError(f"row {comma} has a comma and row {point} a point: which of them marks the decimals?")


def _bad_cell(table: TextTable, used: list[int]) -> str | None:
    """Name the first cell that is no number."""
    for n, row in enumerate(table.rows()):
        for i in used:
            try:
                float(row[i].replace(",", "."))
            except ValueError:
                return f"row {n + 1}, column {table.header[i].strip()!r}: {row[i]!r} is no number"
    return None


def _require_uncut(column: list[str]) -> None:
    """Refuse a last cell with fewer decimals than all above it, in a file whose last line is not ended."""
    *others, last = (len(cell.strip().replace(",", ".").partition(".")[2]) for cell in column)
    if last < min(others):
        raise ValueError(
            f"the file ends within a number: {column[-1]!r} in the last row has {last} decimals, the others"
            f" {min(others)} or more"
        )
    if last < max(others) or last == 0:
        text = f"the last line is not ended: was its last number, {column[-1].strip()}, cut?"
        warnings.warn(text, RecordingWarning, stacklevel=6)
