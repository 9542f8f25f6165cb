"""Recordings in Igor binary waves, one file a channel and sweep, read by their public layout (Igor's PTN003)."""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import reading
from jaxlif.recordings.recording import RecordingWarning, sweep_indices
from jaxlif.recordings.units import Asked, is_unit, to_library_unit

_NAME = re.compile(r"(.*(?<![a-z])ch)(\d+)(.*?)(\d*)\.ibw", re.IGNORECASE)
# Of each version: bytes of the file's and the wave's header, and where how many sizes of what follows stand.
_LAYOUTS = {1: (8, 110, 2, 1), 2: (16, 110, 2, 2), 3: (20, 110, 2, 3), 5: (64, 320, 4, 13)}
_KINDS = {2: "f4", 4: "f8", 8: "i1", 16: "i2", 32: "i4", 128: "i8", 72: "u1", 80: "u2", 96: "u4", 192: "u8"}
_LONGEST = 5e-3  # s of an interval


class _Wave(NamedTuple):
    """Samples [T] of a file, "current" or "voltage", their unit in the file, and their interval in ms."""

    path: Path
    data: np.ndarray
    kind: str
    unit: str
    dt: float


class _Name(NamedTuple):
    """What a file's name says: the protocol's name without channel and sweep, the channel and the sweep."""

    protocol: tuple[str, str]
    channel: int
    sweep: int


def read_ibw(path: Path, asked: Asked) -> dict[str, Any]:
    """Read the fields of a recording from the waves of a protocol, of which ``path`` is any one.

    Current and voltage lie in one folder under names that differ in the channel: ``B6_Ch0_IDRest_181.ibw`` and
    ``B6_Ch3_IDRest_181.ibw``. The data units tell which is which. All sweeps of the protocol
    (``B6_Ch?_IDRest_*.ibw``) with both channels are read in the order of their numbers. Waves hold scaled numbers:
    gains in their notes are not applied.
    """
    given = _load(path, path)
    pairs = _pairs(given)
    number = range(len(pairs)) if asked.sweeps is None else sweep_indices(asked.sweeps, len(pairs))
    files = list(dict.fromkeys(file for n in number for file in pairs[n]))
    waves = {file: given if file == path else _load(file, path) for file in files}
    used = [(waves[current], waves[voltage]) for current, voltage in (pairs[n] for n in number)]
    for current, voltage in used:
        names = current.path.name, voltage.path.name
        if current.data.size != voltage.data.size:
            sizes = f"{names[0]} has {current.data.size} samples and {names[1]} {voltage.data.size}"
            raise ValueError(f"{sizes}: they must agree")
        if abs(current.dt - voltage.dt) > 1e-3 * voltage.dt:
            times = f"{names[0]} was sampled every {current.dt:g} ms and {names[1]} every {voltage.dt:g} ms"
            raise ValueError(f"{times}: they must agree")
    fields: dict[str, Any] = {"dt": [voltage.dt for _, voltage in used], "files": files}
    for quantity, own in zip(("current", "voltage"), zip(*used, strict=True), strict=True):
        units = [asked.corrections.unit(quantity, wave.unit) for wave in own]
        fields[quantity] = [to_library_unit(quantity, u) * wave.data for u, wave in zip(units, own, strict=True)]
    return fields | {"current_source": asked.current or "unknown"}


def protocol_of(path: Path) -> tuple[Path, tuple[str, str]] | None:
    """Return what all waves of a protocol have in common, folder and name; None of what is no wave with a channel."""
    return (path.parent, _name(path).protocol) if _NAME.fullmatch(path.name) else None


def waves_apart(files: Sequence[Path]) -> list[tuple[Path, list[int] | None]]:
    """Return files to read in their order, of waves one for each protocol with the numbers of the sweeps listed."""
    groups: dict[Any, list[Path]] = {}
    for file in files:
        own = protocol_of(file) if file.suffix.lower() == ".ibw" and file.exists() else None
        groups.setdefault(own or file, []).append(file)
    return [(group[0], _sweeps_of(group) if isinstance(key, tuple) else None) for key, group in groups.items()]


def _sweeps_of(waves: list[Path]) -> list[int]:
    """Return the numbers of the sweeps that some waves of a protocol belong to."""
    with reading(waves[0]), warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # said when they are read
        pairs = _pairs(_load(waves[0], waves[0]))
        for wave in waves:
            if not any(wave in pair for pair in pairs):
                raise ValueError(f"{wave.name} has no partner: a wave of current and one of voltage make a sweep")
    return [n for n, pair in enumerate(pairs) if set(pair) & set(waves)]


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
        points, kind, size, *more, dt, unit, time_unit = struct.unpack_from(f"{order}ih50x4id56x4s4s", raw, 76)
    else:
        kind, unit, time_unit, points, dt = struct.unpack_from(f"{order}h32x4s4si2xd", raw, start)
        size, more = points, []
    if kind not in _KINDS or any(more) or size < 2:
        shape = (size, *filter(None, more))
        raise ValueError(f"a wave of shape {shape} and type {_KINDS.get(kind, kind)}: real numbers [T] expected")
    if points != size or points * np.dtype(_KINDS[kind]).itemsize > sizes[0] - length:
        raise ValueError(f"a damaged Igor binary wave: {points} points of {size} in {sizes[0] - length} bytes")
    data = np.frombuffer(raw, order + _KINDS[kind], points, start + length)
    if any(sizes[3:5]):
        raise ValueError("units of more than three characters are not read: set them as pA, mV and ms")
    unit, time_unit = (text.decode("latin-1").strip(" \0") for text in (unit, time_unit))
    quantity = next((quantity for quantity in ("current", "voltage") if is_unit(quantity, unit)), None)
    if quantity is None:
        raise ValueError(f"data unit {unit!r}: A, mA, uA, nA, pA, V, mV or uV is expected")
    # Without a unit time is in seconds, as Igor's is, unless the interval is too long then.
    time_unit = time_unit or ("s" if dt <= _LONGEST else "ms")
    dt = float(f"{to_library_unit('time', time_unit) * dt:.12g}")
    return _Wave(path, data.astype(np.float64), quantity, unit, dt)


# --- which waves belong together --------------------------------------------------------------------------


def _pairs(given: _Wave) -> list[tuple[Path, Path]]:
    """Return the files of current and of voltage of every sweep of the protocol, in the order of the sweeps."""
    own = _name(given.path)
    files = [file for file in sorted(given.path.parent.iterdir()) if _NAME.fullmatch(file.name) and file.is_file()]
    named = {_name(file): file for file in files} | {own: given.path}
    waves = {name: file for name, file in named.items() if name.protocol == own.protocol}
    partner = _partner(given, [path for name, path in waves.items() if name.sweep == own.sweep and name != own])
    both = sorted((given, partner), key=lambda wave: wave.kind)  # the current first
    channels = [_name(wave.path).channel for wave in both]
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
    """Return the one wave of the same sweep that is of the other kind."""
    waves = [_load(file, given.path) for file in files]
    fitting = [wave for wave in waves if wave.kind != given.kind]
    if len(fitting) != 1:
        listed = ", ".join(f"{wave.path.name}: {wave.unit}" for wave in waves) or "no other channel"
        raise ValueError(
            f"one wave of {'voltage' if given.kind == 'current' else 'current'} of the same sweep is expected beside"
            f" it, in a name that differs in the channel; there are {len(fitting)} ({listed}): is a unit wrong?"
        )
    return fitting[0]
