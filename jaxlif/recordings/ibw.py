"""Recordings in Igor binary waves, one file a channel and sweep, read by their public layout (Igor's PTN003)."""

import re
import struct
import warnings
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Asked, Corrections, is_unit, to_library_unit

_NAME = re.compile(r"(.*(?<![a-z])ch)(\d+)(.*?)(\d*)\.ibw", re.IGNORECASE)
# Of each version: bytes of the file's and the wave's header, and where how many sizes of what follows stand.
_LAYOUTS = {1: (8, 110, 2, 1), 2: (16, 110, 2, 2), 3: (20, 110, 2, 3), 5: (64, 320, 4, 13)}
_KINDS = {2: "f4", 4: "f8", 8: "i1", 16: "i2", 32: "i4", 128: "i8", 72: "u1", 80: "u2", 96: "u4", 192: "u8"}
# Of waves without a unit: up to which value they are in which.
_LARGEST = {"voltage": {"V": 0.5, "mV": np.inf}, "current": {"A": 1e-6, "nA": 1.0, "pA": np.inf}}
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


def read_ibw(path: Path, asked: Asked) -> dict[str, Any]:
    """Read the fields of a recording from the waves of a protocol, of which ``path`` is any one.

    Current and voltage lie in one folder under names that differ in the channel: ``B6_Ch0_IDRest_181.ibw`` and
    ``B6_Ch3_IDRest_181.ibw``. The data units tell which is which, and the magnitude where there are none. All sweeps
    of the protocol (``B6_Ch?_IDRest_*.ibw``) with both channels are read in the order of their numbers; the columns
    of a two-dimensional wave are sweeps as well. Waves hold scaled numbers: gains in their notes are not applied.
    """
    given = _load(path, path)
    columns, pairs = given.data.shape[1], _pairs(given)
    number = np.arange(len(pairs) * columns)
    number = number if asked.sweeps is None else sweep_indices(asked.sweeps, number.size)
    files = [file for n in dict.fromkeys(number // columns) for file in pairs[n]]
    waves = {file: given if file == path else _load(file, path) for file in files}
    used = [(waves[i], waves[v]) for i, v in (pairs[n] for n in number // columns)]
    for pair in used:
        _require_same_sampling(*pair, columns)
    fields: dict[str, Any] = {"dt": [voltage.dt for _, voltage in used], "files": files}
    for side, quantity in enumerate(("current", "voltage")):
        own = [pair[side] for pair in used]
        factor = _factors(quantity, {wave.path: wave for wave in own}, asked.corrections)
        fields[quantity] = [factor[w.path] * w.data[:, n] for w, n in zip(own, number % columns, strict=True)]
    return fields | {"current_source": asked.current or "unknown"}


# --- one wave ---------------------------------------------------------------------------------------------


def _load(path: Path, given: Path) -> _Wave:
    """Read a wave; an error names it where it is not the file that was given, which the caller names."""
    try:
        return _wave(path)
    except ValueError as error:
        raise ValueError(str(error) if path == given else f"{path.name}: {error}") from error


def _wave(path: Path) -> _Wave:
    """Read a wave whose headers add up to 0 and declare no more than the file holds."""
    raw = path.read_bytes()
    order, held = ("<" if any(raw[:1]) else ">"), len(raw)
    (version,) = struct.unpack_from(f"{order}h", raw.ljust(2))
    if version not in _LAYOUTS or held < sum(_LAYOUTS[version][:2]):
        raise ValueError("not an Igor binary wave, or one that was cut short")
    start, length, offset, count = _LAYOUTS[version]
    if np.frombuffer(raw[: start + length], f"{order}i2").sum() % 2**16:
        raise ValueError("a damaged Igor binary wave: its headers do not add up to their checksum")
    sizes = np.frombuffer(raw, f"{order}i4", count, offset).tolist()
    declared = start + sum(sizes)
    if min(sizes) < 0 or declared > held:
        raise ValueError(f"not an Igor binary wave, or one that was cut short: {held} bytes of {declared}")
    if declared < held:
        text = f"{path.name} has {held - declared} bytes more than its header says: is it damaged?"
        warnings.warn(text, RecordingWarning, stacklevel=5)
    if version == 5:
        points, kind, *shape, dt, unit, time_unit = struct.unpack_from(f"{order}ih50x4id56x4s4s", raw, 76)
        unit, time_unit = _extended(raw, start + sum(sizes[:3]), sizes[3:5], (unit, time_unit))
        shape = [size for size in shape if size]
    else:
        kind, unit, time_unit, points, dt = struct.unpack_from(f"{order}h32x4s4si2xd", raw, start)
        shape = [points]
    if kind not in _KINDS or len(shape) not in (1, 2) or shape[0] < 2:
        text = f"a wave of shape {tuple(shape)} and type {_KINDS.get(kind, kind)}"
        raise ValueError(f"{text}: real numbers [T] or [T, sweeps] expected")
    needed = prod(shape) * np.dtype(_KINDS[kind]).itemsize
    if min(shape) < 0 or points != prod(shape) or needed > sizes[0] - length:
        raise ValueError(f"a damaged Igor binary wave: {points} points of shape {shape} in {sizes[0] - length} bytes")
    data = np.frombuffer(raw, order + _KINDS[kind], points, start + length).reshape(shape, order="F")
    unit, time_unit = (text.decode("latin-1").strip(" \0") for text in (unit, time_unit))
    if unit and not (is_unit("current", unit) or is_unit("voltage", unit)):
        raise ValueError(f"data unit {unit!r}: A, mA, uA, nA, pA, V, mV or uV is expected")
    return _Wave(path, data.astype(np.float64).reshape(len(data), -1), unit, _interval(dt, time_unit))


def _extended(raw: bytes, at: int, sizes: list[int], short: tuple[bytes, bytes]) -> list[bytes]:
    """Return the units of data and time: up to three characters of the header, or the longer ones that are appended."""
    places = (at, at + sizes[0])
    return [raw[place : place + size] or text for place, size, text in zip(places, sizes, short, strict=True)]


def _interval(step: float, unit: str) -> float:
    seconds = not unit and 1000.0 * step <= _LARGEST_INTERVAL
    return float(f"{to_library_unit('time', unit or ('s' if seconds else 'ms')) * step:.12g}")


# --- which waves belong together --------------------------------------------------------------------------


def _pairs(given: _Wave) -> list[tuple[Path, Path]]:
    """Return the files of current and of voltage of every sweep of the protocol, in the order of the sweeps."""
    own = _name(given.path)
    files = [file for file in sorted(given.path.parent.iterdir()) if _NAME.fullmatch(file.name) and file.is_file()]
    named = {_name(file): file for file in files} | {own: given.path}
    waves = {name: file for name, file in named.items() if name.protocol == own.protocol}
    partner = _partner(given, [path for name, path in waves.items() if name.sweep == own.sweep and name != own])
    channels = [_name(wave.path).channel for wave in _current_and_voltage(given, partner)]
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
        text = "the name has no channel, as Ch0 in B6_Ch0_IDRest_181.ibw"
        raise ValueError(f"{text}: current and voltage cannot be paired")
    head, channel, tail, sweep = found.groups()
    return _Name((head.lower(), tail.lower()), int(channel), int(sweep or -1))


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


def _current_and_voltage(a: _Wave, b: _Wave) -> tuple[_Wave, _Wave]:
    """Say which of two waves is the current: by their units, and by magnitude where both have none."""
    if a.kind or b.kind:
        return (a, b) if a.kind == "current" or b.kind == "voltage" else (b, a)
    medians = [float(np.median(wave.data)) for wave in (a, b)]
    membrane = [-150.0 < x < -20.0 or -0.15 < x < -0.02 for x in medians]
    if membrane[0] == membrane[1]:
        raise ValueError(
            f"neither {a.path.name} nor {b.path.name} has a data unit, and their medians {medians[0]:.4g} and"
            f" {medians[1]:.4g} do not tell which is the voltage: set the units"
        )
    return (a, b) if membrane[1] else (b, a)


# --- the samples ------------------------------------------------------------------------------------------


def _require_same_sampling(current: _Wave, voltage: _Wave, columns: int) -> None:
    names = current.path.name, voltage.path.name
    if current.data.shape != voltage.data.shape or current.data.shape[1] != columns:
        shapes = f"{names[0]} has shape {current.data.shape} and {names[1]} {voltage.data.shape}"
        raise ValueError(f"{shapes}, [T, sweeps]: they must agree, with {columns} sweeps as in the wave given")
    if abs(current.dt - voltage.dt) > 1e-3 * voltage.dt:
        times = f"{names[0]} was sampled every {current.dt:g} ms and {names[1]} every {voltage.dt:g} ms"
        raise ValueError(f"{times}: they must agree")


def _factors(quantity: str, waves: dict[Path, _Wave], corrections: Corrections) -> dict[Path, float]:
    """Return what takes each wave to the library's unit; those without a unit share one that fits their magnitude."""
    without, guess = [wave for wave in waves.values() if not corrections.unit(quantity, wave.unit)], ""
    if without:
        largest = max(np.abs(wave.data).max() for wave in without)
        guess = next(unit for unit, most in _LARGEST[quantity].items() if not largest > most)
        text = f"{len(without)} waves of {quantity} have no data unit, {without[0].path.name} for one: read in {guess}"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    units = {path: corrections.unit(quantity, wave.unit or guess) for path, wave in waves.items()}
    return {path: to_library_unit(quantity, unit) for path, unit in units.items()}
