"""Recordings in Igor binary waves, one file a channel and sweep, through igor2, imported only when a file is read."""

import re
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Corrections, is_unit, to_library_unit

_NAME = re.compile(r"(.*(?<![a-z])ch)(\d+)(.*?)(\d*)\.ibw", re.IGNORECASE)
# Of each version: bytes of the file's and the wave's header, and where how many sizes of what follows stand.
_LAYOUTS = {1: (8, 110, 2, 1), 2: (16, 110, 2, 2), 3: (20, 110, 2, 3), 5: (64, 320, 4, 13)}
_LARGEST_INTERVAL = 5.0  # ms; that of a wave without units is in seconds, as Igor's are, unless it is longer then


class _Wave(NamedTuple):
    """Samples [T, columns] of a file, their unit in the file ("" where it has none), and their interval in ms."""

    path: Path
    data: np.ndarray
    unit: str
    dt: float

    @property
    def kind(self) -> str:
        """Return "current", "voltage", or "" for a wave without a unit."""
        return next((kind for kind in ("current", "voltage") if is_unit(kind, self.unit)), "")


class _Name(NamedTuple):
    """What a file's name says: the protocol's name without channel and sweep, the channel and the sweep."""

    protocol: tuple[str, str]
    channel: int
    sweep: int


def read_ibw(
    path: Path, current: str | None, corrections: Corrections, sweeps: int | slice | Sequence[int] | None = None
) -> dict[str, Any]:
    """Read the fields of a recording from the waves of a protocol, of which ``path`` is any one.

    Current and voltage lie in one folder under names that differ in the channel: ``B6_Ch0_IDRest_181.ibw`` and
    ``B6_Ch3_IDRest_181.ibw``. The data units tell which is which, and the magnitude where there are none. All sweeps
    of the protocol (``B6_Ch?_IDRest_*.ibw``) with both channels are read in the order of their numbers; the columns
    of a two-dimensional wave are sweeps as well. Waves hold scaled numbers: gains in their notes are not applied.

    Args:
        path: a wave of current or of voltage.
        current: what the current is, "recorded" or "commanded"; the wave does not say it.
        corrections: units in place of those of the waves.
        sweeps: numbers of the sweeps to read, from 0, in the order above; None for all.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`, with one array and one ``dt`` for each sweep; and ``files``,
        those that were read, in order.

    Raises:
        ValueError: for a damaged file, a name without a channel, a partner that is missing or not unique, or waves of
            a pair that differ in shape or sampling interval.
        ImportError: without igor2.
    """
    given = _load(path, path)
    columns, pairs = given.data.shape[1], _pairs(given)
    number = np.arange(len(pairs) * columns)
    number = number if sweeps is None else sweep_indices(sweeps, number.size)
    files = [file for n in dict.fromkeys(number // columns) for file in pairs[n]]
    waves = {file: given if file == path else _load(file, path) for file in files}
    used = [(waves[i], waves[v]) for i, v in (pairs[n] for n in number // columns)]
    for pair in used:
        _require_same_sampling(*pair, columns)
    fields: dict[str, Any] = {"dt": [voltage.dt for _, voltage in used]}
    for side, quantity in enumerate(("current", "voltage")):
        factor = _factors(quantity, {pair[side].path: pair[side] for pair in used}, corrections)
        fields[quantity] = [
            factor[w[side].path] * w[side].data[:, n] for w, n in zip(used, number % columns, strict=True)
        ]
    return fields | {"current_source": current or "unknown", "files": files}


# --- one wave ---------------------------------------------------------------------------------------------


def _load(path: Path, given: Path) -> _Wave:
    """Read a wave; an error names it where it is not the file that was given, which the caller names."""
    try:
        return _wave(path)
    except ValueError as error:
        raise ValueError(str(error) if path == given else f"{path.name}: {error}") from error


def _wave(path: Path) -> _Wave:
    try:
        from igor2 import binarywave
    except ImportError as error:
        raise ImportError('reading .ibw files needs igor2: pip install "jaxlif[recordings]"') from error
    _require_sound(path)
    wave = binarywave.load(str(path))["wave"]
    header, data = wave["wave_header"], np.asarray(wave["wData"])
    if data.dtype.kind not in "iuf" or data.ndim not in (1, 2) or data.shape[0] < 2 or data.size < header["npnts"]:
        raise ValueError(
            f"a wave of shape {data.shape} and type {data.dtype}: real numbers [T] or [T, sweeps] expected"
        )
    unit = _string(wave.get("data_units"), header["dataUnits"])
    if unit and not (is_unit("current", unit) or is_unit("voltage", unit)):
        raise ValueError(f"data unit {unit!r}: A, mA, uA, nA, pA, V, mV or uV is expected")
    return _Wave(path, data.astype(np.float64).reshape(len(data), -1), unit, _interval(wave))


def _require_sound(path: Path) -> None:
    """Refuse a wave whose headers do not add up to 0, or declare more than the file holds.

    igor2 does neither: on such a header it may wait for ever, or fail on the next file, which is sound.
    """
    with open(path, "rb") as file:
        raw = file.read(384)
    order = "<" if raw[0] else ">"
    version = int.from_bytes(raw[:2], "little" if raw[0] else "big")
    if version not in _LAYOUTS or len(raw) < sum(_LAYOUTS[version][:2]):
        raise ValueError("not an Igor binary wave, or one that was cut short")
    start, length, offset, count = _LAYOUTS[version]
    if np.frombuffer(raw[: start + length], f"{order}i2").sum() % 2**16:
        raise ValueError("a damaged Igor binary wave: its headers do not add up to their checksum")
    sizes = np.frombuffer(raw, f"{order}i4", count, offset).tolist()
    if version == 5:
        (points,), shape = (np.frombuffer(raw, f"{order}i4", n, place).tolist() for n, place in ((1, 76), (4, 132)))
        if min(shape) < 0 or points != prod(size for size in shape if size):
            raise ValueError(f"a damaged Igor binary wave: {points} points of shape {shape}")
    declared, held = start + sum(sizes), path.stat().st_size
    if min(sizes) < 0 or declared > held:
        raise ValueError(f"not an Igor binary wave, or one that was cut short: {held} bytes of {declared}")
    if declared < held:
        text = f"{path.name} has {held - declared} bytes more than its header says: is it damaged?"
        warnings.warn(text, RecordingWarning, stacklevel=6)


def _string(extended: Any, characters: Any) -> str:
    """Return a unit: up to three characters of the header, or the longer string that version 5 appends."""
    raw = bytes(extended or b"") or b"".join(np.asarray(characters).ravel().tolist())
    return raw.decode("latin-1").strip(" \0")


def _interval(wave: dict[str, Any]) -> float:
    """Return the sampling interval in ms."""
    header = wave["wave_header"]
    first = header["sfA"][0] if "sfA" in header else header["hsA"]
    short = header["dimUnits"][0] if "dimUnits" in header else header["xUnits"]
    extended = wave.get("dimension_units") or b""
    unit = _string(extended[: int(wave["bin_header"]["dimEUnitsSize"][0])] if extended else b"", short)
    if unit:
        return float(f"{to_library_unit('time', unit) * first:.12g}")
    return float(f"{1000.0 * first:.12g}") if 1000.0 * first <= _LARGEST_INTERVAL else float(first)


# --- which waves belong together --------------------------------------------------------------------------


def _pairs(given: _Wave) -> list[tuple[Path, Path]]:
    """Return the files of current and of voltage of every sweep of the protocol, in the order of the sweeps."""
    waves, own = _waves_of_protocol(given.path), _name(given.path)
    partner = _partner(given, [path for name, path in waves.items() if name.sweep == own.sweep and name != own])
    kinds = _kinds(given, partner)
    channels = [_name(kinds[quantity].path).channel for quantity in ("current", "voltage")]
    sweeps = sorted({name.sweep for name in waves if name.channel in channels})
    found = [[waves.get(_Name(own.protocol, channel, sweep)) for channel in channels] for sweep in sweeps]
    pairs = [(files[0], files[1]) for files in found if files[0] and files[1]]
    if len(pairs) < len(sweeps):
        alone = [file.name for files in found if None in files for file in files if file]
        text = f"{len(alone)} waves have no partner and are left out ({', '.join(alone[:3])})"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    return pairs


def _name(path: Path) -> _Name:
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(
            "the name has no channel, as Ch0 in B6_Ch0_IDRest_181.ibw: current and voltage cannot be paired"
        )
    head, channel, tail, sweep = found.groups()
    return _Name((head.lower(), tail.lower()), int(channel), int(sweep or -1))


def _waves_of_protocol(path: Path) -> dict[_Name, Path]:
    own = _name(path)
    files = [file for file in sorted(path.parent.iterdir()) if _NAME.fullmatch(file.name) and file.is_file()]
    named = {_name(file): file for file in files} | {own: path}
    return {name: file for name, file in named.items() if name.protocol == own.protocol}


def _partner(given: _Wave, files: list[Path]) -> _Wave:
    """Return the one wave of the same sweep that is not of the same kind."""
    waves = [_load(file, given.path) for file in files]
    fitting = [wave for wave in waves if not (wave.kind and wave.kind == given.kind)]
    if len(fitting) == 1:
        return fitting[0]
    wanted = {"current": "voltage", "voltage": "current", "": "current or voltage"}[given.kind]
    listed = ", ".join(f"{wave.path.name}: {wave.unit or 'no unit'}" for wave in waves) or "no other channel"
    if len(waves) == 1 and given.kind == "current":
        raise ValueError(f"both waves are currents ({given.path.name}: {given.unit}, {listed}): one has a wrong unit")
    raise ValueError(
        f"one wave of {wanted} of the same sweep is expected beside it, in a name that differs in the channel;"
        f" there are {len(fitting)} ({listed})"
    )


def _kinds(a: _Wave, b: _Wave) -> dict[str, _Wave]:
    """Say which of two waves is the current: by their units, and by magnitude where both have none."""
    if a.kind or b.kind:
        first_is_current = a.kind == "current" or b.kind == "voltage"
    else:
        membrane = [_is_like_a_membrane(wave) for wave in (a, b)]
        if membrane[0] == membrane[1]:
            raise ValueError(
                f"neither {a.path.name} nor {b.path.name} has a data unit, and their medians"
                f" {np.median(a.data):.4g} and {np.median(b.data):.4g} do not tell which is the voltage: set the units"
            )
        first_is_current = membrane[1]
    return {"current": a, "voltage": b} if first_is_current else {"current": b, "voltage": a}


def _is_like_a_membrane(wave: _Wave) -> bool:
    median = np.median(wave.data)
    return bool(-150.0 < median < -20.0 or -0.15 < median < -0.02)


# --- the samples ------------------------------------------------------------------------------------------


def _require_same_sampling(current: _Wave, voltage: _Wave, columns: int) -> None:
    if current.data.shape != voltage.data.shape or current.data.shape[1] != columns:
        shapes = f"{current.path.name} has shape {current.data.shape} and {voltage.path.name} {voltage.data.shape}"
        raise ValueError(f"{shapes}, [T, sweeps]: they must agree, with {columns} sweeps as in the wave given")
    if abs(current.dt - voltage.dt) > 1e-3 * voltage.dt:
        raise ValueError(
            f"{current.path.name} was sampled every {current.dt:g} ms and {voltage.path.name} every"
            f" {voltage.dt:g} ms: they must agree"
        )


def _factors(quantity: str, waves: dict[Path, _Wave], corrections: Corrections) -> dict[Path, float]:
    """Return what takes each wave to the library's unit; those without a unit share one that fits their magnitude."""
    without = [wave for wave in waves.values() if not corrections.unit(quantity, wave.unit)]
    guess = _guess(quantity, without) if without else ""
    if without:
        text = f"{len(without)} waves of {quantity} have no data unit, {without[0].path.name} for one: read in {guess}"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    units = {path: corrections.unit(quantity, wave.unit or guess) for path, wave in waves.items()}
    return {path: to_library_unit(quantity, unit) for path, unit in units.items()}


def _guess(quantity: str, waves: list[_Wave]) -> str:
    largest = max(np.abs(wave.data).max() for wave in waves)
    if quantity == "voltage":
        return "V" if largest < 0.5 else "mV"
    return "A" if largest < 1e-6 else "nA" if largest < 1.0 else "pA"
