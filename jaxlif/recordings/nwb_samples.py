"""The samples of NWB series: units, scales and clocks of a pair, read into pA, mV and ms over the time of both."""

import re
import warnings
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import require_plain, require_stored
from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.units import Corrections, is_unit, to_library_unit

_PREFIXES = {"milli": "m", "micro": "u", "nano": "n", "pico": "p", "": ""}


class Part(NamedTuple):
    """A series, or the samples of it that make one sweep."""

    series: Any
    first: int = 0
    stop: int | None = None


class Pair(NamedTuple):
    """The stimulus and the response of a sweep."""

    stimulus: Part
    response: Part


def as_text(value: Any) -> str:
    """Return an attribute of the file as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def traces(pairs: list[Pair], corrections: Corrections) -> tuple[list[np.ndarray], list[np.ndarray]]:
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


def _require_voltage(pair: Pair, corrections: Corrections) -> None:
    series = pair.response.series
    if is_unit("current", corrections.unit("voltage", series_unit(series))):
        listed = "; ".join(f"{part.series.name}: {series_unit(part.series)}" for part in reversed(pair))
        raise ValueError(
            f"response and stimulus are both currents ({listed}), a wrong unit: if the response is the voltage, say so"
            " with `voltage_unit`"
        )


def _values(quantity: str, part: Part, corrections: Corrections) -> np.ndarray:
    series = part.series
    require_stored(f"the data of {series.name}", series.data)
    _require_scale(series)
    raw = np.asarray(series.data[part.first : part.stop])
    require_plain(f"the data of {series.name}", raw.dtype)
    raw = raw.astype(np.float64)
    if raw.size == 0 or raw.size != max(raw.shape):
        raise ValueError(f"the data of {series.name} have shape {raw.shape}: one trace [T] is expected")
    unit = corrections.unit(quantity, series_unit(series))
    return to_library_unit(quantity, unit) * (series.conversion * raw.reshape(-1) + series.offset)


def _require_scale(series: Any) -> None:
    for name, value in (("conversion", series.conversion), ("offset", series.offset)):
        if not np.isfinite(value) or (name == "conversion" and value == 0):
            raise ValueError(f"the {name} of {series.name} is {value:g}: it must be finite, and no conversion 0")


def series_unit(series: Any) -> str:
    """Return the unit that the file states, as a symbol; pynwb would put volts and amperes in its place."""
    unit = as_text(getattr(series.data, "attrs", {}).get("unit", series.unit)).strip()
    word = re.fullmatch(r"(milli|micro|nano|pico|)(volt|amp)(?:ere)?s?", unit.lower())
    return f"{_PREFIXES[word[1]]}{word[2][0].upper()}" if word else unit


def series_interval(series: Any) -> float:
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


def _same_interval(pair: Pair) -> None:
    stimulus, response = (series_interval(part.series) for part in pair)
    if abs(stimulus - response) > 1e-3 * response:
        raise ValueError(
            f"{pair.response.series.name} was sampled every {response:g} ms and its current"
            f" {pair.stimulus.series.name} every {stimulus:g} ms: they must agree"
        )


def start(part: Part) -> float:
    """Return the time of the first sample, s."""
    series = part.series
    if series.rate:
        return float(series.starting_time or 0.0) + part.first / float(series.rate)
    return 0.0 if series.timestamps is None or len(series.timestamps) == 0 else float(series.timestamps[part.first])


def _shifts(pairs: list[Pair]) -> list[int]:
    """Return how many samples each stimulus starts after its response; 0 where the two have no common clock."""
    starts = [[start(part) for part in pair] for pair in pairs]
    stimulus_moves, response_moves = (len({start[side] for start in starts}) > 1 for side in (0, 1))
    if stimulus_moves != response_moves:
        return [0] * len(pairs)
    dts = [series_interval(pair.response.series) for pair in pairs]
    return [round(1000.0 * (start[0] - start[1]) / dt) for start, dt in zip(starts, dts, strict=True)]


def _overlap(current: np.ndarray, voltage: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    if not -current.size < shift < voltage.size:
        shift = 0
    current, voltage = current[max(0, -shift) :], voltage[max(0, shift) :]
    size = min(current.size, voltage.size)
    return current[:size], voltage[:size]


def _warn_of_overlap(pairs: list[Pair], sizes: list[tuple[int, int]]) -> None:
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


def _same_tail(pairs: list[Pair], before: list[int], after: list[int]) -> None:
    if len(set(after)) > 1 and len(set(before)) == 1:
        shortest = pairs[after.index(min(after))].response.series.name
        raise ValueError(
            f"sweeps end in NaN after {sorted(set(after))} of {before[0]} samples (the shortest is {shortest}):"
            " choose some of one length with `sweeps`"
        )
