"""Recordings in NWB 2 files, through pynwb, which is imported only when a file is read."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import open_hdf5, require_plain, require_stored
from jaxlif.recordings.clamp import voltage_clamp
from jaxlif.recordings.commanded import warn_of_difference
from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Corrections, is_unit, to_library_unit

_PREFIXES = {"milli": "m", "micro": "u", "nano": "n", "pico": "p", "": ""}


class _Part(NamedTuple):
    """A series, or the samples of it that make one sweep."""

    series: Any
    first: int = 0
    stop: int | None = None


class _Pair(NamedTuple):
    """The stimulus and the response of a sweep."""

    stimulus: _Part
    response: _Part


def read_nwb(
    path: Path,
    current: str | None,
    corrections: Corrections,
    electrode: str | None = None,
    sweeps: int | slice | Sequence[int] | None = None,
) -> dict[str, Any]:
    """Read the fields of a recording from the current-clamp series of an NWB 2 file.

    A sweep is a CurrentClampSeries with the current of the same electrode that belongs to it: by the table of
    intracellular recordings where there is one, else by sweep number (of the series or of the sweep table), by
    starting time, by the numbers in the names, or by order. The current is a stimulus series (commanded) or an
    acquired series in amperes (recorded), which is preferred where it covers as many sweeps. Voltage-clamp series and
    current-clamp series without a current are left out. Conversion, offset and unit are those of the file; where
    stimulus and response start or end at different times, their overlap is read, and NaN at the end is cut away.

    Args:
        path: the file.
        current: "recorded", "commanded", or None for the recorded one where there is one.
        corrections: units in place of those of the series; a CurrentClampStimulusSeries in volts is then a current.
        electrode: name of the electrode; needed where current-clamp series come from several.
        sweeps: numbers of the sweeps to read, from 0, among those with a current; None for all.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array and one ``dt`` for each sweep.

    Raises:
        ValueError: for a damaged file, one that is not NWB 2, one without current-clamp series or their current,
            stimuli that are voltages, several electrodes to choose from, an unknown unit, timestamps that are not
            regular, or implausible values.
        ImportError: without pynwb.
    """
    with _opened(path) as nwb:
        pairs, source = _pairs(nwb, current, electrode, corrections)
        chosen = pairs if sweeps is None else [pairs[i] for i in sweep_indices(sweeps, len(pairs))]
        _warn_of_amplifier([pair.response.series for pair in chosen], source)
        currents, voltages = _traces(chosen, corrections)
        dt = [_interval(pair.response.series) for pair in chosen]
        beside = _beside(nwb, source, electrode, corrections, sweeps)
    if beside is not None:
        known = [corrections.corrected("current", sweep) for sweep in currents]
        pair = (known, beside) if source == "recorded" else (beside, known)
        warn_of_difference([pair], dt[0], f"the {source} one is read")
    return {"current": currents, "voltage": voltages, "dt": dt, "current_source": source}


def nwb_channels(path: Path) -> list[str]:
    """Return the series of a file by kind as "number kind in unit, electrode"."""
    with _opened(path) as nwb:
        series = [s for group in (nwb.acquisition, nwb.stimulus) for s in group.values() if _is_a(s, "TimeSeries")]
        kinds = Counter(f"{type(s).__name__} in {_unit(s) or 'no unit'} {_electrode(s)}".strip() for s in series)
    return [f"{number} {kind}" for kind, number in kinds.items()]


def _beside(
    nwb: Any,
    source: str,
    electrode: str | None,
    corrections: Corrections,
    sweeps: int | slice | Sequence[int] | None,
) -> list[np.ndarray] | None:
    """Return the other current of the same sweeps: the command of a recorded one, or the other way round."""
    other = {"recorded": "commanded", "commanded": "recorded"}[source]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        try:
            pairs, _ = _pairs(nwb, other, electrode, corrections)
            chosen = pairs if sweeps is None else [pairs[i] for i in sweep_indices(sweeps, len(pairs))]
            return _traces(chosen, corrections)[0]
        except ValueError:
            return None  # the file holds no other current for these sweeps


# --- the file ---------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pynwb
    except ImportError as error:
        raise ImportError('reading .nwb files needs pynwb: pip install "jaxlif[recordings]"') from error
    _require_nwb2(path)
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # pynwb would set "mV" to "volts" and say so; the unit is read from the file itself in _unit.
            warnings.filterwarnings("ignore", message="Unit '.*' is ignored")
            # Old files carry the schema of their day; pynwb reads them with its own, which reads the old ones.
            warnings.filterwarnings("ignore", message="Ignoring (the following )?cached namespace")
            nwb = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r")).read()
        yield nwb


def _require_nwb2(path: Path) -> None:
    with open_hdf5(path) as file:
        version = file.attrs.get("nwb_version") or (file["nwb_version"][()] if "nwb_version" in file else None)
    if version is None:
        raise ValueError("an HDF5 file without nwb_version: not an NWB file")
    if not _text(version).startswith("2"):
        raise ValueError(f"nwb_version = {_text(version)}: only NWB 2 is read")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --- which series belong together -------------------------------------------------------------------------


def _pairs(nwb: Any, current: str | None, electrode: str | None, corrections: Corrections) -> tuple[list[_Pair], str]:
    """Return the sweeps of the electrode that have a current, and whether that was recorded or commanded."""
    responses = _responses(nwb)
    several = len({_electrode(series) for series in responses}) > 1
    responses = _of_electrode(responses, electrode)
    stimuli = {
        source: _of_same_electrode(_currents(group, responses, corrections), responses[0], several)
        for source, group in (("recorded", nwb.acquisition), ("commanded", nwb.stimulus))
        if current in (None, source)
    }
    found = {source: _match(nwb, responses, series) for source, series in stimuli.items()}
    if not any(found.values()):
        found = {source: _by_order(responses, series) for source, series in stimuli.items()}
        _warn_of_order(found)
    source = max(found, key=lambda name: len(found[name]))
    if not found[source]:
        raise ValueError(_no_current(nwb, responses, current))
    _warn_of_rest(responses, found[source])
    return found[source], source


def _responses(nwb: Any) -> list[Any]:
    series = [
        s for s in nwb.acquisition.values() if _is_a(s, "CurrentClampSeries") and not _is_a(s, "IZeroClampSeries")
    ]
    if not series:
        kinds = Counter(type(s).__name__ for s in nwb.acquisition.values())
        listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "nothing"
        what = "a voltage-clamp recording" if "VoltageClampSeries" in kinds else "nothing that a fit could use"
        raise ValueError(f"no CurrentClampSeries among the acquisition ({listed}): {what}")
    return [s for s in series if not is_unit("current", _unit(s))] or series


def _is_a(series: Any, name: str) -> bool:
    # By name: a class that an extension of the file defines inherits from pynwb's.
    return any(kind.__name__ == name for kind in type(series).__mro__)


def _currents(group: Any, responses: list[Any], corrections: Corrections) -> list[Any]:
    """Return the series in amperes that are no response; with a unit given, whatever was injected in current clamp."""
    named, known = corrections.current_unit is not None, {series.object_id for series in responses}
    found = [s for s in group.values() if _is_current(s) or (named and _is_a(s, "CurrentClampStimulusSeries"))]
    return [series for series in found if series.object_id not in known]


def _is_current(series: Any) -> bool:
    return _is_a(series, "TimeSeries") and not _is_a(series, "VoltageClampSeries") and is_unit("current", _unit(series))


def _electrode(series: Any) -> str:
    """Return the electrode's name, or an empty one for a series of a type that has none."""
    return getattr(getattr(series, "electrode", None), "name", "")


def _of_electrode(responses: list[Any], electrode: str | None) -> list[Any]:
    counts = Counter(_electrode(series) for series in responses)
    listed = ", ".join(f"{name!r}: {number} series" for name, number in sorted(counts.items()))
    if electrode is None and len(counts) > 1:
        raise ValueError(f"{len(counts)} electrodes ({listed}): choose one with `electrode`")
    if electrode is not None and electrode not in counts:
        raise ValueError(f"electrode = {electrode!r}: the electrodes in current clamp are {listed}")
    return [series for series in responses if electrode in (None, _electrode(series))]


def _of_same_electrode(stimuli: list[Any], response: Any, several: bool) -> list[Any]:
    """Return the currents of the response's electrode; any electrode's where only one responded."""
    own = [series for series in stimuli if _electrode(series) in ("", _electrode(response))]
    return own if own or several else stimuli


def _match(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[_Pair]:
    """Pair by the first rule that finds a pair, the most explicit one first."""
    numbers = _sweep_table(nwb)
    keys: list[Callable[[Any], Any]] = [lambda series: _sweep_number(series, numbers), _start_key, _name_key]
    by_key = (_by_key(responses, stimuli, key) for key in keys)
    return _by_table(nwb, responses, stimuli) or next((pairs for pairs in by_key if pairs), [])


def _by_table(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[_Pair]:
    table = nwb.intracellular_recordings
    if table is None:
        return []
    columns = table.category_tables["stimuli"]["stimulus"], table.category_tables["responses"]["response"]
    rows = [[column[row] for column in columns] for row in range(len(table))]
    known = [{series.object_id for series in group} for group in (stimuli, responses)]
    pairs = []
    for stimulus, response in rows:
        # A row without a stimulus or a response refers to no series, or to no samples of one.
        if _refers_to(stimulus, known[0]) and _refers_to(response, known[1]):
            pairs.append(_Pair(_part(stimulus), _part(response)))
    return pairs


def _refers_to(reference: Any, known: set[str]) -> bool:
    return reference.timeseries is not None and reference.count > 0 and reference.timeseries.object_id in known


def _part(reference: Any) -> _Part:
    return _Part(reference.timeseries, int(reference.idx_start), int(reference.idx_start + reference.count))


def _by_key(responses: list[Any], stimuli: list[Any], key: Callable[[Any], Any]) -> list[_Pair]:
    """Pair series with the same key; nothing where two series of a kind share one, for it tells them not apart."""
    sides = []
    for group in (stimuli, responses):
        keyed = [(key(series), series) for series in group]
        keyed = [(value, series) for value, series in keyed if value is not None]
        sides.append(dict(keyed))
        if len(sides[-1]) < len(keyed):
            return []
    shared = sorted(sides[0].keys() & sides[1].keys())
    return [_Pair(_Part(sides[0][value]), _Part(sides[1][value])) for value in shared]


def _sweep_table(nwb: Any) -> dict[str, int]:
    """Return the sweep number of every series in the sweep table, by the identifier of the series."""
    table = nwb.sweep_table
    rows = range(len(table)) if table is not None else ()
    return {series.object_id: int(table["sweep_number"][row]) for row in rows for series in table["series"][row]}


def _sweep_number(series: Any, table: dict[str, int]) -> int | None:
    number = getattr(series, "sweep_number", None)
    return table.get(series.object_id) if number is None else int(number)


def _start_key(series: Any) -> float:
    return round(_start(_Part(series)), 4)


def _name_key(series: Any) -> tuple[int, ...] | None:
    """Return the numbers in a name: (1,) for both CurrentClampSeries_01 and CurrentClampStimulusSeries_01."""
    return tuple(int(number) for number in re.findall(r"\d+", series.name)) or None


def _by_order(responses: list[Any], stimuli: list[Any]) -> list[_Pair]:
    if len(responses) != len(stimuli):
        return []
    orders = [sorted(group, key=lambda series: series.name) for group in (stimuli, responses)]
    return [_Pair(_Part(stimulus), _Part(response)) for stimulus, response in zip(*orders, strict=True)]


def _warn_of_order(found: dict[str, list[_Pair]]) -> None:
    if any(len(pairs) > 1 for pairs in found.values()):
        warnings.warn("stimuli and responses are paired in the order of their names", RecordingWarning, stacklevel=5)


def _no_current(nwb: Any, responses: list[Any], current: str | None) -> str:
    volts = [s for s in nwb.stimulus.values() if _is_a(s, "TimeSeries") and is_unit("voltage", _unit(s))]
    if clamped := [pair.stimulus.series for pair in _match(nwb, responses, volts)]:
        return voltage_clamp(f"{type(clamped[0]).__name__} {clamped[0].name} in {_unit(clamped[0])}")
    asked = f'current = "{current}": ' if current else ""
    groups = {"recorded": "acquisition", "commanded": "stimulus"}
    places = " or ".join(groups.values()) if current is None else groups[current]
    seen = [
        series for group in groups.values() for series in getattr(nwb, group).values() if _is_a(series, "TimeSeries")
    ]
    units = ", ".join(sorted({f"{type(s).__name__} in {_unit(s)}" for s in seen}))
    return f"{asked}no current in the {places} belongs to the {len(responses)} CurrentClampSeries (found: {units})"


def _warn_of_rest(responses: list[Any], pairs: list[_Pair]) -> None:
    paired = {pair.response.series.object_id for pair in pairs}
    alone = sorted(series.name for series in responses if series.object_id not in paired)
    if alone:
        listed = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
        text = f"{len(alone)} of {len(responses)} CurrentClampSeries have no current and are left out ({listed})"
        warnings.warn(text, RecordingWarning, stacklevel=5)


def _warn_of_amplifier(responses: list[Any], source: str) -> None:
    """Warn of what the amplifier did beside the command, where the file says that it did."""
    bias = [1e12 * series.bias_current for series in responses if series.bias_current and source == "commanded"]
    bias = [value for value in bias if np.isfinite(value)]
    if bias:
        span = f"{min(bias):g}" if min(bias) == max(bias) else f"{min(bias):g} to {max(bias):g}"
        text = f"the amplifier added bias_current = {span} pA in {len(bias)} sweeps; the command is read without it"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    unbalanced = [series for series in responses if series.bridge_balance == 0]
    if unbalanced:
        text = f"bridge_balance = 0 Ω in {len(unbalanced)} sweeps: the voltage holds the electrode's drop"
        warnings.warn(text, RecordingWarning, stacklevel=4)


# --- the samples ------------------------------------------------------------------------------------------


def _traces(pairs: list[_Pair], corrections: Corrections) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return current in pA and voltage in mV of every sweep, over the time that both of them cover."""
    shifts = _shifts(pairs)
    sweeps, overlaps = [], []
    for pair, shift in zip(pairs, shifts, strict=True):
        _same_interval(pair)
        _require_voltage(pair, corrections)
        current, voltage = (
            _values(quantity, part, corrections) for quantity, part in zip(("current", "voltage"), pair, strict=True)
        )
        sweeps.append(_overlap(current, voltage, shift))
        overlaps.append((sweeps[-1][0].size, max(current.size, voltage.size)))
    _warn_of_overlap(pairs, overlaps)
    trimmed = [_without_nan_tail(*sweep) for sweep in sweeps]
    _same_tail(pairs, [sweep[0].size for sweep in sweeps], [sweep[0].size for sweep in trimmed])
    return [current for current, _ in trimmed], [voltage for _, voltage in trimmed]


def _require_voltage(pair: _Pair, corrections: Corrections) -> None:
    series = pair.response.series
    if is_unit("current", corrections.unit("voltage", _unit(series))):
        raise ValueError(
            f"response and stimulus are both currents ({series.name}: {_unit(series)}; {pair.stimulus.series.name}:"
            f" {_unit(pair.stimulus.series)}), a wrong unit: if the response is the voltage, say so with `voltage_unit`"
        )


def _values(quantity: str, part: _Part, corrections: Corrections) -> np.ndarray:
    series = part.series
    require_stored(f"the data of {series.name}", series.data)
    _require_scale(series)
    raw = np.asarray(series.data[part.first : part.stop])
    require_plain(f"the data of {series.name}", raw.dtype)
    raw = raw.astype(np.float64)
    if raw.size == 0 or raw.size != max(raw.shape):
        raise ValueError(f"the data of {series.name} have shape {raw.shape}: one trace [T] is expected")
    unit = corrections.unit(quantity, _unit(series))
    return to_library_unit(quantity, unit) * (series.conversion * raw.reshape(-1) + series.offset)


def _require_scale(series: Any) -> None:
    for name, value in (("conversion", series.conversion), ("offset", series.offset)):
        if not np.isfinite(value) or (name == "conversion" and value == 0):
            raise ValueError(f"the {name} of {series.name} is {value:g}: it must be finite, and no conversion 0")


def _unit(series: Any) -> str:
    """Return the unit that the file states, as a symbol; pynwb would put volts and amperes in its place."""
    unit = _text(getattr(series.data, "attrs", {}).get("unit", series.unit)).strip()
    word = re.fullmatch(r"(milli|micro|nano|pico|)(volt|amp)(?:ere)?s?", unit.lower())
    return f"{_PREFIXES[word[1]]}{word[2][0].upper()}" if word else unit


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
        raise ValueError(
            f"the timestamps of {series.name} are not regular: steps of {steps.min():.6g} to {steps.max():.6g} ms"
            " (0.1 % is allowed)"
        )
    return float(f"{dt:.9g}")


def _same_interval(pair: _Pair) -> None:
    stimulus, response = (_interval(part.series) for part in pair)
    if abs(stimulus - response) > 1e-3 * response:
        raise ValueError(
            f"{pair.response.series.name} was sampled every {response:g} ms and its current"
            f" {pair.stimulus.series.name} every {stimulus:g} ms: they must agree"
        )


def _start(part: _Part) -> float:
    """Return the time of the first sample, s."""
    series = part.series
    if series.rate:
        return float(series.starting_time or 0.0) + part.first / float(series.rate)
    return 0.0 if series.timestamps is None or len(series.timestamps) == 0 else float(series.timestamps[part.first])


def _shifts(pairs: list[_Pair]) -> list[int]:
    """Return how many samples each stimulus starts after its response; 0 where the two have no common clock."""
    starts = [[_start(part) for part in pair] for pair in pairs]
    stimulus_moves, response_moves = (len({start[side] for start in starts}) > 1 for side in (0, 1))
    if stimulus_moves != response_moves:
        return [0] * len(pairs)
    dts = [_interval(pair.response.series) for pair in pairs]
    return [round(1000.0 * (start[0] - start[1]) / dt) for start, dt in zip(starts, dts, strict=True)]


def _overlap(current: np.ndarray, voltage: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    if not -current.size < shift < voltage.size:
        shift = 0
    current, voltage = current[max(0, -shift) :], voltage[max(0, shift) :]
    size = min(current.size, voltage.size)
    return current[:size], voltage[:size]


def _warn_of_overlap(pairs: list[_Pair], sizes: list[tuple[int, int]]) -> None:
    partial = [n for n, (overlap, longest) in enumerate(sizes) if overlap < longest]
    if partial:
        first = partial[0]
        text = (
            f"stimulus and response cover different times in {len(partial)} sweeps, whose overlap is read"
            f" ({pairs[first].response.series.name}: {sizes[first][0]} of {sizes[first][1]} samples)"
        )
        warnings.warn(text, RecordingWarning, stacklevel=5)


def _without_nan_tail(current: np.ndarray, voltage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.flatnonzero(~np.isnan(current) & ~np.isnan(voltage))
    size = known[-1] + 1 if known.size else current.size  # without any, Recording says what is wrong
    return current[:size], voltage[:size]


def _same_tail(pairs: list[_Pair], before: list[int], after: list[int]) -> None:
    if len(set(after)) > 1 and len(set(before)) == 1:
        shortest = pairs[after.index(min(after))].response.series.name
        raise ValueError(
            f"sweeps end in NaN after {sorted(set(after))} of {before[0]} samples (the shortest is {shortest}):"
            " choose some of one length with `sweeps`"
        )
