"""Recordings in NWB 2 files, through pynwb, which is imported only when a file is read."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import open_hdf5, optional, require_plain, require_stored
from jaxlif.recordings.notes import warn_of_difference
from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Asked, Corrections, is_unit, symbol, to_library_unit, voltage_clamp


class _Part(NamedTuple):
    """A series, or the samples of it that make one sweep."""

    series: Any
    first: int = 0
    stop: int | None = None


class _Pair(NamedTuple):
    """The stimulus and the response of a sweep."""

    stimulus: _Part
    response: _Part


def read_nwb(path: Path, asked: Asked) -> dict[str, Any]:
    """Read the fields of a recording from the current-clamp series of an NWB 2 file.

    A sweep is a CurrentClampSeries with the current of its electrode that belongs to it: by the table of intracellular
    recordings, else by sweep number, by starting time, by the numbers in the names, or as the only one. The current is
    a stimulus series (commanded), or an acquired series in amperes (recorded), which is preferred where it covers as
    many sweeps. Conversion, offset and unit are those of the file. What has no current is left out.
    """
    with _opened(path) as nwb:
        pairs, source = _pairs(nwb, asked)
        _warn_of_amplifier([pair.response.series for pair in pairs], source)
        currents, voltages = _traces(pairs, asked.corrections)
        dt = [_interval(pair.response.series) for pair in pairs]
        beside = _beside(nwb, source, asked)
    if beside is not None:
        known = [asked.corrections.corrected("current", sweep) for sweep in currents]
        pair = (known, beside) if source == "recorded" else (beside, known)
        warn_of_difference([pair], dt[0], f"the {source} one is read")
    return {"current": currents, "voltage": voltages, "dt": dt, "current_source": source}


def nwb_channels(path: Path) -> list[str]:
    """Return the series of a file by kind as "number kind in unit, electrode"."""
    with _opened(path) as nwb:
        series = [s for group in (nwb.acquisition, nwb.stimulus) for s in group.values() if _is_a(s, "TimeSeries")]
        kinds = Counter(f"{type(s).__name__} in {_unit(s) or 'no unit'} {_electrode(s)}".strip() for s in series)
    return [f"{number} {kind}" for kind, number in kinds.items()]


def _beside(nwb: Any, source: str, asked: Asked) -> list[np.ndarray] | None:
    """Return the other current of the same sweeps: the command of a recorded one, or the other way round."""
    other = "commanded" if source == "recorded" else "recorded"
    with warnings.catch_warnings(action="ignore", category=RecordingWarning):
        try:
            return _traces(_pairs(nwb, asked._replace(current=other))[0], asked.corrections)[0]
        except ValueError:
            return None  # the file holds no other current for these sweeps


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pynwb = optional("pynwb", "reading .nwb files needs pynwb", "recordings")
    with open_hdf5(path) as file:
        version = file.attrs.get("nwb_version") or (file["nwb_version"][()] if "nwb_version" in file else None)
    if version is None:
        raise ValueError("an HDF5 file without nwb_version: not an NWB file")
    if not _as_text(version).startswith("2"):
        raise ValueError(f"nwb_version = {_as_text(version)}: only NWB 2 is read")
    with warnings.catch_warnings():
        # pynwb would set "mV" to "volts" and say so; the unit is read from the file itself.
        warnings.filterwarnings("ignore", message="Unit '.*' is ignored")
        # Old files carry the schema of their day; pynwb reads them with its own, which reads the old ones.
        warnings.filterwarnings("ignore", message="Ignoring (the following )?cached namespace")
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            yield io.read()


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _is_a(series: Any, name: str) -> bool:
    # By name: a class that an extension of the file defines inherits from pynwb's.
    return any(kind.__name__ == name for kind in type(series).__mro__)


def _unit(series: Any) -> str:
    """Return the unit that the file states; pynwb would put volts and amperes in its place."""
    return symbol(_as_text(getattr(series.data, "attrs", {}).get("unit", series.unit)))


def _is_in(series: Any, quantity: str) -> bool:
    return _is_a(series, "TimeSeries") and is_unit(quantity, _unit(series))


def _electrode(series: Any) -> str:
    """Return the electrode's name, or an empty one for a series of a type that has none."""
    return getattr(getattr(series, "electrode", None), "name", "")


def _interval(series: Any) -> float:
    """Return the sampling interval in ms."""
    if series.rate is not None:
        if not (np.isfinite(series.rate) and series.rate > 0):
            raise ValueError(f"the rate of {series.name} is {series.rate:g} Hz: it must be finite and above 0 Hz")
        return 1000.0 / float(series.rate)
    if series.timestamps is None or len(series.timestamps) < 2:
        raise ValueError(f"{series.name} has neither a rate nor timestamps")
    require_stored(f"the timestamps of {series.name}", series.timestamps)
    steps = 1000.0 * np.diff(np.asarray(series.timestamps, np.float64))
    dt = float(np.mean(steps))
    if not (dt > 0 and np.abs(steps - dt).max() <= 1e-3 * dt):
        span = f"steps of {np.min(steps):.6g} to {np.max(steps):.6g} ms (0.1 % is allowed)"
        raise ValueError(f"the timestamps of {series.name} are not regular: {span}")
    return float(f"{dt:.9g}")


def _start(part: _Part) -> float:
    """Return the time of the first sample, s."""
    series = part.series
    if series.rate:
        return float(series.starting_time or 0.0) + part.first / float(series.rate)
    return 0.0 if series.timestamps is None or len(series.timestamps) == 0 else float(series.timestamps[part.first])


def _values(quantity: str, part: _Part, corrections: Corrections) -> np.ndarray:
    series, name = part.series, f"the data of {part.series.name}"
    require_stored(name, series.data)
    for field, value in (("conversion", series.conversion), ("offset", series.offset)):
        if not np.isfinite(value) or (field == "conversion" and value == 0):
            raise ValueError(f"the {field} of {series.name} is {value:g}: it must be finite, and no conversion 0")
    raw = np.asarray(series.data[part.first : part.stop])
    require_plain(name, raw.dtype)
    if raw.size == 0 or raw.size != max(raw.shape):
        raise ValueError(f"{name} have shape {raw.shape}: one trace [T] is expected")
    factor = to_library_unit(quantity, corrections.unit(quantity, _unit(series)))
    return np.asarray(factor * (series.conversion * raw.astype(np.float64).reshape(-1) + series.offset))


def _pairs(nwb: Any, asked: Asked) -> tuple[list[_Pair], str]:
    """Return the chosen sweeps of the electrode that have a current, and whether that was recorded or commanded."""
    responses = _of_electrode(_responses(nwb), asked.channel)
    clamped = [*responses, *(s for s in nwb.stimulus.values() if _is_a(s, "PatchClampSeries"))]
    if nwb.sweep_table is not None and any(series.sweep_number is None for series in clamped):
        raise ValueError("the sweep table numbers series without a sweep_number of their own: write it into each")
    groups = {"recorded": nwb.acquisition, "commanded": nwb.stimulus}
    found = {
        source: _match(nwb, responses, _currents(group, responses, asked.corrections))
        for source, group in groups.items()
        if asked.current in (None, source)
    }
    source = max(found, key=lambda name: len(found[name]))
    if not (pairs := found[source]):
        raise ValueError(_no_current(nwb, responses, asked.current))
    paired = {pair.response.series.object_id for pair in pairs}
    if alone := sorted(series.name for series in responses if series.object_id not in paired):
        text = f"{len(alone)} of {len(responses)} CurrentClampSeries have no current and are left out"
        warnings.warn(f"{text} ({', '.join(alone[:3])})", RecordingWarning, stacklevel=4)
    return pairs if asked.sweeps is None else [pairs[i] for i in sweep_indices(asked.sweeps, len(pairs))], source


def _responses(nwb: Any) -> list[Any]:
    acquired = nwb.acquisition.values()
    series = [s for s in acquired if _is_a(s, "CurrentClampSeries") and not _is_a(s, "IZeroClampSeries")]
    if not series:
        kinds = Counter(type(s).__name__ for s in acquired)
        listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "nothing"
        what = "a voltage-clamp recording" if "VoltageClampSeries" in kinds else "nothing that a fit could use"
        raise ValueError(f"no CurrentClampSeries among the acquisition ({listed}): {what}")
    return [s for s in series if not is_unit("current", _unit(s))] or series


def _of_electrode(responses: list[Any], electrode: str | None) -> list[Any]:
    counts = Counter(map(_electrode, responses))
    listed = ", ".join(f"{name!r}: {number} series" for name, number in sorted(counts.items()))
    if electrode is None and len(counts) > 1:
        raise ValueError(f"{len(counts)} electrodes ({listed}): choose one with `electrode_channel`")
    if electrode is not None and electrode not in counts:
        raise ValueError(f"electrode_channel = {electrode!r}: the electrodes in current clamp are {listed}")
    return [series for series in responses if electrode in (None, _electrode(series))]


def _currents(group: Any, responses: list[Any], corrections: Corrections) -> list[Any]:
    """Return the currents of the responses' electrode: other series in amperes, or, with a unit given, the injected."""
    named, known = corrections.current_unit is not None, {series.object_id for series in responses}
    others = (s for s in group.values() if s.object_id not in known and not _is_a(s, "VoltageClampSeries"))
    injected = (s for s in others if _is_in(s, "current") or (named and _is_a(s, "CurrentClampStimulusSeries")))
    return [s for s in injected if _electrode(s) in ("", _electrode(responses[0]))]


def _match(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[_Pair]:
    """Pair by the first rule that finds a pair, the most explicit one first."""
    keys: list[Callable[[Any], Any]] = [
        lambda s: getattr(s, "sweep_number", None),
        lambda s: round(_start(_Part(s)), 4),
        # The numbers in a name: (1,) for both CurrentClampSeries_01 and CurrentClampStimulusSeries_01.
        lambda s: tuple(int(number) for number in re.findall(r"\d+", s.name)) or None,
    ]
    by_key = (_by_key(responses, stimuli, key) for key in keys)
    only = [_Pair(_Part(stimuli[0]), _Part(responses[0]))] if len(stimuli) == len(responses) == 1 else []
    return _by_table(nwb, responses, stimuli) or next((pairs for pairs in by_key if pairs), only)


def _by_table(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[_Pair]:
    table = nwb.intracellular_recordings
    if table is None:
        return []
    sides = ("stimuli", "stimulus", stimuli), ("responses", "response", responses)
    columns = [table.category_tables[name][column] for name, column, _ in sides]
    known = [{series.object_id for series in group} for *_, group in sides]
    rows = [[column[row] for column in columns] for row in range(len(table))]
    # A row without a stimulus or a response refers to no series, or to no samples of one.
    full = [row for row in rows if all(r.timeseries is not None and r.count > 0 for r in row)]
    ours = [row for row in full if all(r.timeseries.object_id in ids for r, ids in zip(row, known, strict=True))]
    return [_Pair(*(_Part(r.timeseries, int(r.idx_start), int(r.idx_start + r.count)) for r in row)) for row in ours]


def _by_key(responses: list[Any], stimuli: list[Any], key: Callable[[Any], Any]) -> list[_Pair]:
    """Pair series with the same key; nothing where two series of a kind share one, for it tells them not apart."""
    keyed = [[(key(series), series) for series in group] for group in (stimuli, responses)]
    known = [[pair for pair in pairs if pair[0] is not None] for pairs in keyed]
    first, second = (dict(pairs) for pairs in known)
    if len(first) < len(known[0]) or len(second) < len(known[1]):
        return []
    return [_Pair(_Part(first[value]), _Part(second[value])) for value in sorted(first.keys() & second.keys())]


def _no_current(nwb: Any, responses: list[Any], current: str | None) -> str:
    volts = [s for s in nwb.stimulus.values() if _is_in(s, "voltage")]
    if clamped := [pair.stimulus.series for pair in _match(nwb, responses, volts)]:
        return voltage_clamp(f"{type(clamped[0]).__name__} {clamped[0].name} in {_unit(clamped[0])}")
    seen = [s for group in (nwb.acquisition, nwb.stimulus) for s in group.values() if _is_a(s, "TimeSeries")]
    units = ", ".join(sorted({f"{type(s).__name__} in {_unit(s)}" for s in seen}))
    what = f"{current} current" if current else "current"
    return f"no {what} belongs to the {len(responses)} CurrentClampSeries (found: {units})"


def _warn_of_amplifier(responses: list[Any], source: str) -> None:
    """Warn of what the amplifier did beside the command, where the file says that it did."""
    bias = [1e12 * series.bias_current for series in responses if np.isfinite(series.bias_current or np.nan)]
    if bias and source == "commanded":
        span = " to ".join(f"{pA:g}" for pA in sorted({min(bias), max(bias)}))
        text = f"the amplifier added bias_current = {span} pA in {len(bias)} sweeps; the command is read without it"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    if unbalanced := sum(series.bridge_balance == 0 for series in responses):
        text = f"bridge_balance = 0 Ω in {unbalanced} sweeps: the voltage holds the electrode's drop"
        warnings.warn(text, RecordingWarning, stacklevel=4)


def _traces(pairs: list[_Pair], corrections: Corrections) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return current in pA and voltage in mV of every sweep."""
    starts = [[_start(part) for part in pair] for pair in pairs]
    stimulus_moves, response_moves = (len({start[side] for start in starts}) > 1 for side in (0, 1))
    currents, voltages = [], []
    for pair, (theirs, own) in zip(pairs, starts, strict=True):
        _require_a_pair(pair, corrections)
        current, voltage = (_values(q, part, corrections) for q, part in zip(("current", "voltage"), pair, strict=True))
        # Where one side alone starts at the same time in all sweeps, or they lie apart, the two have no common clock.
        late = round(1000.0 * (theirs - own) / _interval(pair.response.series))
        shift = late if stimulus_moves == response_moves and abs(late) < voltage.size else 0
        if shift or current.size != voltage.size:
            text = f"{current.size} samples of {pair.stimulus.series.name} start {shift} samples after"
            raise ValueError(f"{text} the {voltage.size} of {pair.response.series.name}: they must cover the same time")
        currents.append(current)
        voltages.append(voltage)
    return currents, voltages


def _require_a_pair(pair: _Pair, corrections: Corrections) -> None:
    (stimulus, response), (theirs, own) = zip(*((part.series, _interval(part.series)) for part in pair), strict=True)
    if abs(theirs - own) > 1e-3 * own:
        times = f"{response.name} was sampled every {own:g} ms and its current {stimulus.name} every {theirs:g} ms"
        raise ValueError(f"{times}: they must agree")
    if is_unit("current", corrections.unit("voltage", _unit(response))):
        listed = "; ".join(f"{series.name}: {_unit(series)}" for series in (response, stimulus))
        raise ValueError(
            f"response and stimulus are both currents ({listed}), a wrong unit: if the response is the voltage, say so"
            " with `voltage_unit`"
        )
