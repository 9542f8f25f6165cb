"""f-I and V-I tables of cells: read, checked and split in halves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxlif.checks import numbers
from jaxlif.files import reading, require_file


@dataclass(frozen=True, kw_only=True, eq=False)
class FICell:
    """The firing rates of one cell under constant currents, and its voltages where it does not fire.

    Args:
        name: of the cell, unlike any other's.
        currents: [K], pA, in any order; a current may occur several times.
        rates: [K], Hz.
        passive_currents: [P], pA, of steps without a spike; None where there are none.
        passive_voltages: [P], mV, at the end of those steps.
        v_rest: resting potential, mV; used where the passive steps are not.
    """

    name: str
    currents: np.ndarray
    rates: np.ndarray
    passive_currents: np.ndarray | None = None
    passive_voltages: np.ndarray | None = None
    v_rest: float = -70.0


def read_fi_population(path: Path | str) -> list[FICell]:
    """Read cells from a table of current steps in JSON.

    The file holds ``{"cells": [{"cell", "sweeps": [{"current", "spikes", "v_rest", "v_steady"}]}]}`` in pA, Hz and mV.
    Positive currents make the f-I curve, with the mean over repeats. Negative ones without a spike make the passive
    table, each voltage corrected by the distance of its own sweep's v_rest from the cell's median.

    Args:
        path: of the file.

    Returns:
        The cells, named by their "cell".

    Raises:
        ValueError: for a file of another layout.

    Example:
        >>> import tempfile
        >>> sweeps = [{"current": c, "spikes": n, "v_rest": -70.0, "v_steady": v}
        ...           for c, n, v in ((-50.0, 0, -80.0), (50.0, 0, -60.0), (100.0, 3, None), (100.0, 5, None))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "cells.json"
        ...     _ = path.write_text(json.dumps({"cells": [{"cell": 7, "sweeps": sweeps}]}))
        ...     [cell] = read_fi_population(path)
        >>> cell.name, cell.currents.tolist(), cell.rates.tolist(), cell.passive_voltages.tolist()
        ('7', [50.0, 100.0], [0.0, 4.0], [-80.0])
    """
    path = Path(path)
    with reading(path):
        require_file(path)
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
            raise ValueError('no JSON object with "cells": [...]')
        return [_read_cell(index, entry) for index, entry in enumerate(document["cells"])]


def _read_cell(index, entry):
    try:
        fields = ("current", "spikes", "v_rest", "v_steady")
        columns = {f: np.array([sweep[f] for sweep in entry["sweeps"]], float) for f in fields}
        name = str(entry["cell"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'cells[{index}] needs "cell" and "sweeps", each sweep with {", ".join(fields)}: {error}'
        ) from error
    current, spikes, rest, steady = columns.values()
    if not (np.isfinite(current) & np.isfinite(spikes)).all():
        raise ValueError(f"cells[{index}]: current and spikes must be finite in every sweep")
    levels = np.unique(current[current > 0])
    v_rest = float(np.median(rest)) if len(rest) else np.nan
    silent = (current < 0) & (spikes == 0) & np.isfinite(steady)
    return FICell(
        name=name,
        currents=levels,
        rates=np.array([spikes[current == level].mean() for level in levels]),
        passive_currents=current[silent],
        passive_voltages=(steady - rest)[silent] + v_rest,
        v_rest=v_rest,
    )


def usable_cells(cells: Sequence[FICell], passive: str | None) -> tuple[list[FICell], dict[str, str]]:
    """Return the cells that can be fitted, and by name why the others cannot."""
    reasons = {cell.name: _fault(cell, passive) for cell in cells}
    good = [cell for cell in cells if reasons[cell.name] is None]
    if not good:
        raise ValueError(next(iter(reasons.values()), "cells are empty: at least one is needed"))
    return good, {name: f"cell {name}: {reason}" for name, reason in reasons.items() if reason}


def _fault(cell: FICell, passive: str | None) -> str | None:
    columns = {"currents": "pA", "rates": "Hz"}
    if passive is not None and cell.passive_currents is not None and cell.passive_voltages is not None:
        columns |= {"passive_currents": "pA", "passive_voltages": "mV"}
    try:
        for field, unit in columns.items():
            numbers(field, getattr(cell, field), unit, finite=False)
        numbers("v_rest", cell.v_rest, "mV", rank=0, finite=False)
    except ValueError as error:
        return str(error)
    currents, rates = np.asarray(cell.currents, float), np.asarray(cell.rates, float)
    if currents.ndim != 1 or currents.shape != rates.shape:
        return f"currents have shape {currents.shape} and rates {rates.shape}: both must be [K]"
    for field, values, unit in (("currents", currents, "pA"), ("rates", rates, "Hz")):
        if not np.isfinite(values).all():
            return f"{field}[{int((~np.isfinite(values)).argmax())}] is not a finite number of {unit}"
    if len(np.unique(currents)) < 3:
        return f"currents have {len(np.unique(currents))} levels: at least 3 are needed"
    if (rates < 0).any():
        return f"rates[{int((rates < 0).argmax())}] = {rates.min():g} Hz: a rate must be 0 Hz or more"
    if not (rates > 0).any():
        return "rates are 0 Hz at every current: at least one must be above 0 Hz"
    if passive is None:
        return None if np.isfinite(cell.v_rest) else f"v_rest = {cell.v_rest} mV: v_rest must be finite"
    return _passive_fault(cell)


def _passive_fault(cell: FICell) -> str | None:
    if cell.passive_currents is None or cell.passive_voltages is None:
        return "r_m is not determined: there are no passive_currents and passive_voltages; or pass passive=None"
    currents, voltages = (np.asarray(x, float) for x in (cell.passive_currents, cell.passive_voltages))
    if currents.ndim != 1 or currents.shape != voltages.shape:
        return f"passive_currents have shape {currents.shape} and passive_voltages {voltages.shape}: both must be [P]"
    if not (np.isfinite(currents).all() and np.isfinite(voltages).all()):
        return "passive_currents (pA) and passive_voltages (mV) must be finite"
    if len(np.unique(currents)) < 2:
        return f"r_m is not determined: passive_currents have {len(np.unique(currents))} levels, at least 2 are needed"
    r_m = passive_line(currents, voltages)[0]
    return None if r_m > 0 else f"r_m = {r_m:.3g} GΩ by the passive steps: r_m must be positive"


def passive_line(currents: np.ndarray, voltages: np.ndarray) -> tuple[float, float, float]:
    """Return slope (GΩ), intercept (mV) and residual standard deviation (mV) of a line by least squares."""
    r_m = np.cov(currents, voltages)[0, 1] / np.var(currents, ddof=1)
    v_rest = voltages.mean() - r_m * currents.mean()
    residual = np.sum((voltages - v_rest - r_m * currents) ** 2) / max(1, len(currents) - 2)
    return float(r_m), float(v_rest), float(np.sqrt(residual))


def half_of(cell: FICell, half: int) -> FICell:
    """Return every second distinct current of a cell; a current's repeats stay together."""
    kept = np.unique(cell.currents, return_inverse=True)[1] % 2 == half
    return replace(cell, currents=np.asarray(cell.currents, float)[kept], rates=np.asarray(cell.rates, float)[kept])


def sorted_cell(cell: FICell) -> FICell:
    """Return the cell with its currents in ascending order."""
    order = np.argsort(cell.currents, kind="stable")
    return replace(cell, currents=np.asarray(cell.currents, float)[order], rates=np.asarray(cell.rates, float)[order])
