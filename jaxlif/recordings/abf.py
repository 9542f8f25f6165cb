"""Recordings in Axon binary files, through pyabf, which is imported only when a file is read."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.files import optional
from jaxlif.recordings.notes import warn_of_difference
from jaxlif.recordings.protocol import medians
from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.units import Asked, is_unit, to_library_unit, voltage_clamp

# Sections of an ABF2 file that pyabf reads, of 18, the last with an entry a sweep; and where an ABF1 header has the
# numbers of samples and sweeps, the blocks of data and tags, and the numbers of tags and of samples a sweep.
_SECTIONS = [0, 1, 2, 3, 5, 6, 9, 10, 11, 15]
_MOST_ENTRIES = 2**17  # in a section, of all but samples: pyabf reads them one by one
_ABF1 = (10, 16, 40, 44, 48, 138)
_FIRST_LEVEL = 61  # the user list's number for the level of an ABF2 file's first epoch, and 50 epochs follow
_BLOCK = 10.0  # ms of a median, which sees through capacitive transients and the amplifier's at spikes
_FOLLOWS = 0.95  # share of the variance from which on a current is a copy of its command
_RESPONDS = 0.1  # share from which on a voltage has to do with a command at all


_Sweeps = list[np.ndarray]


class _Channel(NamedTuple):
    """Number, name and unit of a channel of the file."""

    number: int
    name: str
    unit: str


def read_abf(path: Path, asked: Asked) -> dict[str, Any]:
    """Read the fields of a recording from an ABF1 or ABF2 file.

    Channels are chosen by their unit; a file whose output is a voltage is voltage clamp. A recorded current is
    preferred to the command, whose scale is set by hand and often wrong. Of several voltages, or currents, one is to be
    named; of as many currents as voltages, the one at the same place belongs to it. A corrected unit is that of the
    channels that are read; where none is of its kind, of the one that is named, or of all.
    """
    unit, name = asked.corrections.current_unit, asked.channel
    with warnings.catch_warnings():
        # pyabf warns of stimulus files that it does not find; what that means for the command is tested below.
        warnings.filterwarnings("ignore", module="pyabf")
        abf = _open(path)
        dt = 1000.0 / abf.sampleRate
        inputs, outputs = _channels(abf.adcNames, abf.adcUnits), _channels(abf.dacNames, abf.dacUnits)
        active = _active(abf, outputs)
        inputs = _relabelled(inputs, "voltage", asked.corrections.voltage_unit, name)
        recorded = _relabelled(_of_kind(inputs, "current"), "current", unit, name)
        used = recorded if asked.current != "commanded" else []
        if not used:
            outputs = _relabelled(outputs, "current", unit, name)
        if unit is None:
            _require_current_clamp(abf, inputs, outputs, active, dt)
        if not (voltages := _of_kind(inputs, "voltage")):
            raise ValueError(_no_voltage(inputs, active))
        known = voltages + _of_kind(used or outputs, "current")
        if name not in (None, *(channel.name for channel in known)):
            raise ValueError(f"electrode_channel = {name!r}: the channels are {_listed(known)}")
        read = _only("voltage", voltages, name)
        voltage = _input(abf, read, "voltage")
        measured = {channel: _input(abf, channel, "current") for channel in recorded}
        found = [
            (c, waveforms(abf, c.number, to_library_unit("current", c.unit))) for c in _of_kind(outputs, "current")
        ]
    commands = {channel: waveform for channel, waveform in found if waveform is not None}
    if asked.current == "recorded" and not used:
        raise ValueError(f'current = "recorded": no channel is a current ({_listed(inputs)})')
    if not (data := measured if used else commands):
        why = (_of_kind(outputs, "current") and _unread_list(abf)) or _listed(outputs)
        otherwise = f"recorded is {_listed(recorded) or 'no current'}; is a unit wrong (`current_unit`)?"
        raise ValueError(f"no command is a current that the file holds ({why}), {otherwise}")
    # Where not each voltage has a command of its own, those that vary are meant.
    varying = [channel for channel, waveform in commands.items() if _varies(waveform)] or list(commands)[:1]
    currents = used or (list(commands) if len(commands) == len(voltages) else varying)
    in_order = len(currents) == len(voltages) and name not in [channel.name for channel in currents]
    chosen = currents[voltages.index(read)] if in_order else _only("current", currents, name)
    current = [asked.corrections.corrected("current", sweep) for sweep in data[chosen]]
    if len(used) == 1 < len(voltages) and chosen.name != name:
        text = f"the only recorded current, {chosen.name}, is taken for that of {read.name}: was it injected there"
        warnings.warn(f"{text}, and not into another of {_listed(voltages)}?", RecordingWarning, stacklevel=3)
    pairs = [(current, other) if used else (other, current) for other in (commands if used else measured).values()]
    warn_of_difference(pairs, dt, "the recorded one is used" if used else "the command was asked for")
    fields = {"current": data[chosen], "voltage": voltage, "dt": dt}
    return fields | {"current_source": "recorded" if used else "commanded"}


def abf_channels(path: Path) -> list[str]:
    """Return inputs and outputs of a file as "name: unit"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        abf = _open(path)
    inputs, outputs = _channels(abf.adcNames, abf.adcUnits), _channels(abf.dacNames, abf.dacUnits)
    return [f"{_listed(inputs)}; output {_listed(outputs)}"]


# --- the file ---------------------------------------------------------------------------------------------


def _open(path: Path) -> Any:
    pyabf = optional("pyabf", "reading .abf files needs pyabf", "recordings")
    _require_whole(path)
    return pyabf.ABF(str(path))


def _require_whole(path: Path) -> None:
    """Refuse a header that contradicts itself, or declares more than the file holds, which pyabf would look for."""
    head = path.read_bytes()
    held, version2 = len(head), head[:4] == b"ABF2"
    if head[:4] not in (b"ABF ", b"ABF2") or held < 2048:
        raise ValueError("not an ABF file, or one that was cut short")
    if version2:
        sections = np.frombuffer(head, "<u4, <u4, <i8", 18, 76)[_SECTIONS].tolist()
        sweeps, expected, samples = int.from_bytes(head[12:16], "little"), sections[-1][2], sections[-3][2]
    else:
        samples, sweeps, data, tags, num_tags, length = (int.from_bytes(head[o : o + 4], "little") for o in _ABF1)
        sections = [(data, 2, samples), (tags, 64, num_tags)]
        episodic = head[8] == 5 and length  # in the other modes the sweeps differ in length, or there is one
        expected = samples / length if episodic else min(sweeps, samples)
    for block, size, count in sections:
        too_many = count != samples and (count > _MOST_ENTRIES or size * count > 32 * _MOST_ENTRIES)
        if count < 0 or too_many or 512 * block + size * count > held:
            text = f"{count} entries of {size} bytes from byte {512 * block}"
            raise ValueError(f"an ABF file that is damaged or was cut short: {text} are declared, and it holds {held}")
    if sweeps != expected and (expected or sweeps > held):
        raise ValueError(f"a damaged ABF file: {sweeps} sweeps are declared, and there are {expected:g}")
    lengths = np.frombuffer(head, "<i4", 2 * sweeps, 512 * sections[-1][0])[1::2] if version2 and expected else None
    if lengths is not None and (total := lengths.sum(dtype=int)) != samples:
        text = f"sweeps of {total} samples in all are declared, and there are {samples}"
        if len(set(lengths.tolist())) > 1:  # pyabf cuts by them
            raise ValueError(f"a damaged ABF file: {text}")
        warnings.warn(f"{text}: is the file damaged?", RecordingWarning, stacklevel=5)


def _channels(names: list[str], units: list[str]) -> list[_Channel]:
    """Number channels, without the bytes that pad their names and units."""
    stripped = [(name.strip(" \0"), unit.strip(" \0")) for name, unit in zip(names, units, strict=True)]
    return [_Channel(n, name or f"channel {n}", unit) for n, (name, unit) in enumerate(stripped)]


def _of_kind(channels: list[_Channel], quantity: str) -> list[_Channel]:
    return [channel for channel in channels if is_unit(quantity, channel.unit)]


def _listed(channels: list[_Channel]) -> str:
    return ", ".join(f"{c.name}: {c.unit or 'no unit'}" for c in channels)


def _relabelled(channels: list[_Channel], quantity: str, unit: str | None, name: str | None) -> list[_Channel]:
    """Put the unit that was given to those of the kind that it is of; where none is, to the one named, or to all."""
    if unit is None:
        return channels
    wrong = _of_kind(channels, quantity) or [c for c in channels if c.name == name] or channels
    return [channel._replace(unit=unit) if channel in wrong else channel for channel in channels]


def _input(abf: Any, channel: _Channel, quantity: str) -> _Sweeps:
    factor, sweeps = to_library_unit(quantity, channel.unit), []
    for sweep in abf.sweepList:
        abf.setSweep(sweep, channel=channel.number)
        sweeps.append(factor * abf.sweepY.astype(np.float64))
    return sweeps


# --- which channels ---------------------------------------------------------------------------------------


def _active(abf: Any, outputs: list[_Channel]) -> list[_Channel]:
    """Return the outputs that carry a protocol; where the file does not say which, those that are a current."""
    found = [(channel, waveforms(abf, channel.number)) for channel in outputs]
    varying = [channel for channel, waveform in found if waveform and _varies(waveform)]
    return varying or _of_kind(outputs, "current") or outputs[:1]


def _require_current_clamp(
    abf: Any, inputs: list[_Channel], outputs: list[_Channel], active: list[_Channel], dt: float
) -> None:
    """Refuse a file whose outputs are voltages, unless a recorded current is what follows them."""
    commanded = _of_kind(active, "voltage") or _of_kind(outputs, "voltage")
    if _of_kind(active, "current") or not commanded:
        return
    command = waveforms(abf, commanded[0].number)
    voltages, currents = ([_input(abf, c, kind) for c in _of_kind(inputs, kind)] for kind in ("voltage", "current"))
    pairs = ((current, voltage) for current in currents for voltage in voltages)
    if not any(command and _is_current_clamp(command, *pair, dt) for pair in pairs):
        raise ValueError(voltage_clamp(_listed(commanded)))


def _is_current_clamp(command: _Sweeps, current: _Sweeps, voltage: _Sweeps, dt: float) -> bool:
    """Say whether a command whose unit is a voltage was the current's: that follows it, and the voltage responds. In
    voltage clamp a recorded voltage follows the command more closely than the current does.
    """
    length = max(1, round(_BLOCK / dt))
    blocks = [np.concatenate([medians(sweep, length) for sweep in sweeps]) for sweeps in (command, current, voltage)]
    if any(x.size < 3 or np.ptp(x) == 0 for x in blocks):
        return False
    with_current, with_voltage = (float(np.corrcoef(blocks[0], x)[0, 1] ** 2) for x in blocks[1:])
    return with_current > _FOLLOWS and with_current > with_voltage > _RESPONDS


def _no_voltage(inputs: list[_Channel], active: list[_Channel]) -> str:
    if _of_kind(active, "voltage"):
        return voltage_clamp(_listed(active))
    if _of_kind(active, "current") and len(_of_kind(inputs, "current")) == len(inputs):
        return (
            f"input and output are both currents ({_listed(inputs)}; {_listed(active)}), a wrong unit: if the input is"
            " the voltage, say so with `voltage_unit`, and how it is scaled with `voltage_gain`"
        )
    return f"no channel is a voltage ({_listed(inputs)}): name its unit with `voltage_unit`, if one is"


def _only(kind: str, channels: list[_Channel], name: str | None) -> _Channel:
    """Return the channel that was named, or the only one."""
    found = [channel for channel in channels if channel.name == name] or channels
    if len(found) > 1:
        several = f"{len(channels)} channels are a {kind} ({_listed(channels)})"
        raise ValueError(f"{several}: choose one with `electrode_channel`")
    return found[0]


# --- the command ------------------------------------------------------------------------------------------


def _varies(sweeps: _Sweeps) -> bool:
    return any((sweep != sweeps[0].flat[0]).any() for sweep in sweeps)


def waveforms(abf: Any, output: int, factor: float = 1.0) -> _Sweeps | None:
    """Return the command of every sweep times a factor, or None where the file does not hold it."""
    from pyabf.stimulus import Stimulus

    header = getattr(abf, "_dacSection", None) or getattr(abf, "_headerV1", None)
    # Of source 2 is a stimulus file, which pyabf would open wherever the header says that it lies.
    if _unread_list(abf) or (header is not None and header.nWaveformSource[output : output + 1] in ([2], (2,))):
        return None
    by_list, sweeps = _has_list(abf) and abf._dacSection.nWaveformEnable[output], []
    for sweep in abf.sweepList:
        abf.setSweep(sweep)
        try:
            waveform = _by_list(abf, output, sweep) if by_list else Stimulus(abf, output).stimulusWaveform(sweep)
        except (IndexError, UnboundLocalError):
            return None  # an output without an epoch table, or a stimulus file that an ABF1 header does not name
        sweeps.append(factor * np.asarray(waveform, np.float64)[: abf.sweepY.size])
    return sweeps if all(np.isfinite(s).all() for s in sweeps) else None


def _by_list(abf: Any, output: int, sweep: int) -> Any:
    """Return the command of one sweep in the file's unit: its epochs, one with the level that a user list gives it."""
    from pyabf.waveform import EpochTable

    table = EpochTable(abf, output)
    varied: Any = _varied_epoch(abf, table)
    # Past its end a list is repeated where that was ticked, and else its last value stays.
    count = len(abf.userList)
    varied.level = abf.userList[sweep % count if abf.userListRepeat[0] else min(sweep, count - 1)]
    varied.levelDelta = 0.0
    return table.getEpochWaveformsBySweep(abf)[sweep].getWaveform()


def _has_list(abf: Any) -> bool:
    return any(getattr(abf, "userListEnable", None) or ())


def _varied_epoch(abf: Any, table: Any) -> Any | None:
    number = abf.userListParamToVary[0] - _FIRST_LEVEL
    return next((epoch for epoch in table.epochs if epoch.epochNumber == number), None)


def _unread_list(abf: Any) -> str:
    """Say why a user list of the file cannot be followed; pyabf reads it, and does not apply it."""
    from pyabf.waveform import EpochTable

    if not _has_list(abf):
        return ""
    if abf.abfVersion["major"] == 2 and len(abf.userListParamToVary) == 1 and abf.userList:
        driven = [n for n, on in enumerate(abf._dacSection.nWaveformEnable) if on]
        if len(driven) == 1 and _varied_epoch(abf, EpochTable(abf, driven[0])):
            return ""
    varied = f"a user list varies parameter {abf.userListParamToVary[0]} of the epochs"
    return f"{varied}; read are lists of one epoch's level, in an ABF2 file with one output"
