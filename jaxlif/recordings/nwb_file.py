"""Recordings in NWB 2 files, through pynwb, which is imported only when a file is read."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.files import open_hdf5
from jaxlif.recordings.clamp import voltage_clamp
from jaxlif.recordings.commanded import warn_of_difference
from jaxlif.recordings.nwb_samples import Pair, Part, as_text, series_interval, series_unit, start, traces
from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Corrections, is_unit


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
        currents, voltages = traces(chosen, corrections)
        dt = [series_interval(pair.response.series) for pair in chosen]
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
        kinds = Counter(f"{type(s).__name__} in {series_unit(s) or 'no unit'} {_electrode(s)}".strip() for s in series)
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
            return traces(chosen, corrections)[0]
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
            # pynwb would set "mV" to "volts" and say so; the unit is read from the file itself in unit.
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
    if not as_text(version).startswith("2"):
        raise ValueError(f"nwb_version = {as_text(version)}: only NWB 2 is read")


# --- which series belong together -------------------------------------------------------------------------


def _pairs(nwb: Any, current: str | None, electrode: str | None, corrections: Corrections) -> tuple[list[Pair], str]:
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
    return [s for s in series if not is_unit("current", series_unit(s))] or series


def _is_a(series: Any, name: str) -> bool:
    # By name: a class that an extension of the file defines inherits from pynwb's.
    return any(kind.__name__ == name for kind in type(series).__mro__)


def _currents(group: Any, responses: list[Any], corrections: Corrections) -> list[Any]:
    """Return the series in amperes that are no response; with a unit given, whatever was injected in current clamp."""
    named, known = corrections.current_unit is not None, {series.object_id for series in responses}
    found = [s for s in group.values() if _is_current(s) or (named and _is_a(s, "CurrentClampStimulusSeries"))]
    return [series for series in found if series.object_id not in known]


def _is_current(series: Any) -> bool:
    return (
        _is_a(series, "TimeSeries")
        and not _is_a(series, "VoltageClampSeries")
        and is_unit("current", series_unit(series))
    )


def _electrode(series: Any) -> str:
    """Return the electrode's name, or an empty one for a series of a type that has none."""
    return getattr(getattr(series, "electrode", None), "name", "")


def _of_electrode(responses: list[Any], electrode: str | None) -> list[Any]:
    counts = Counter(_electrode(series) for series in responses)
    listed = ", ".join(f"{name!r}: {number} series" for name, number in sorted(counts.items()))
    if electrode is None and len(counts) > 1:
        raise ValueError(f"{len(counts)} electrodes ({listed}): choose one with `electrode_channel`")
    if electrode is not None and electrode not in counts:
        raise ValueError(f"electrode_channel = {electrode!r}: the electrodes in current clamp are {listed}")
    return [series for series in responses if electrode in (None, _electrode(series))]


def _of_same_electrode(stimuli: list[Any], response: Any, several: bool) -> list[Any]:
    """Return the currents of the response's electrode; any electrode's where only one responded."""
    own = [series for series in stimuli if _electrode(series) in ("", _electrode(response))]
    return own if own or several else stimuli


def _match(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[Pair]:
    """Pair by the first rule that finds a pair, the most explicit one first."""
    numbers = _sweep_table(nwb)
    keys: list[Callable[[Any], Any]] = [lambda series: _sweep_number(series, numbers), _start_key, _name_key]
    by_key = (_by_key(responses, stimuli, key) for key in keys)
    return _by_table(nwb, responses, stimuli) or next((pairs for pairs in by_key if pairs), [])


def _by_table(nwb: Any, responses: list[Any], stimuli: list[Any]) -> list[Pair]:
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
            pairs.append(Pair(_part(stimulus), _part(response)))
    return pairs


def _refers_to(reference: Any, known: set[str]) -> bool:
    return reference.timeseries is not None and reference.count > 0 and reference.timeseries.object_id in known


def _part(reference: Any) -> Part:
    return Part(reference.timeseries, int(reference.idx_start), int(reference.idx_start + reference.count))


def _by_key(responses: list[Any], stimuli: list[Any], key: Callable[[Any], Any]) -> list[Pair]:
    """Pair series with the same key; nothing where two series of a kind share one, for it tells them not apart."""
    sides = []
    for group in (stimuli, responses):
        keyed = [(key(series), series) for series in group]
        keyed = [(value, series) for value, series in keyed if value is not None]
        sides.append(dict(keyed))
        if len(sides[-1]) < len(keyed):
            return []
    shared = sorted(sides[0].keys() & sides[1].keys())
    return [Pair(Part(sides[0][value]), Part(sides[1][value])) for value in shared]


def _sweep_table(nwb: Any) -> dict[str, int]:
    """Return the sweep number of every series in the sweep table, by the identifier of the series."""
    table = nwb.sweep_table
    rows = range(len(table)) if table is not None else ()
    return {series.object_id: int(table["sweep_number"][row]) for row in rows for series in table["series"][row]}


def _sweep_number(series: Any, table: dict[str, int]) -> int | None:
    number = getattr(series, "sweep_number", None)
    return table.get(series.object_id) if number is None else int(number)


def _start_key(series: Any) -> float:
    return round(start(Part(series)), 4)


def _name_key(series: Any) -> tuple[int, ...] | None:
    """Return the numbers in a name: (1,) for both CurrentClampSeries_01 and CurrentClampStimulusSeries_01."""
    return tuple(int(number) for number in re.findall(r"\d+", series.name)) or None


def _by_order(responses: list[Any], stimuli: list[Any]) -> list[Pair]:
    if len(responses) != len(stimuli):
        return []
    orders = [sorted(group, key=lambda series: series.name) for group in (stimuli, responses)]
    return [Pair(Part(stimulus), Part(response)) for stimulus, response in zip(*orders, strict=True)]


def _warn_of_order(found: dict[str, list[Pair]]) -> None:
    if any(len(pairs) > 1 for pairs in found.values()):
        warnings.warn("stimuli and responses are paired in the order of their names", RecordingWarning, stacklevel=5)


def _no_current(nwb: Any, responses: list[Any], current: str | None) -> str:
    volts = [s for s in nwb.stimulus.values() if _is_a(s, "TimeSeries") and is_unit("voltage", series_unit(s))]
    if clamped := [pair.stimulus.series for pair in _match(nwb, responses, volts)]:
        return voltage_clamp(f"{type(clamped[0]).__name__} {clamped[0].name} in {series_unit(clamped[0])}")
    asked = f'current = "{current}": ' if current else ""
    groups = {"recorded": "acquisition", "commanded": "stimulus"}
    places = " or ".join(groups.values()) if current is None else groups[current]
    seen = [
        series for group in groups.values() for series in getattr(nwb, group).values() if _is_a(series, "TimeSeries")
    ]
    units = ", ".join(sorted({f"{type(s).__name__} in {series_unit(s)}" for s in seen}))
    return f"{asked}no current in the {places} belongs to the {len(responses)} CurrentClampSeries (found: {units})"


def _warn_of_rest(responses: list[Any], pairs: list[Pair]) -> None:
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
