"""Recordings in Axon binary files, through pyabf, which is imported only when a file is read."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.recordings.abf_command import unread_list, waveforms
from jaxlif.recordings.clamp import is_current_clamp, voltage_clamp
from jaxlif.recordings.commanded import varies, warn_of_difference
from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.units import Corrections, is_unit, to_library_unit

# Sections of an ABF2 file that pyabf reads, of 18, the last with an entry a sweep; and where an ABF1 header has the
# numbers of samples and sweeps, the blocks of data and tags, and the numbers of tags and of samples a sweep.
_SECTIONS = [0, 1, 2, 3, 5, 6, 9, 10, 11, 15]
_MOST_ENTRIES = 2**17  # in a section, of all but samples: pyabf reads them one by one
_ABF1 = (10, 16, 40, 44, 48, 138)


class _Channel(NamedTuple):
    """Number, name and unit of a channel of the file."""

    number: int
    name: str
    unit: str


class _Choice(NamedTuple):
    """The names that were asked for, the voltage channel that is read, and all of them."""

    named: tuple[str, ...]
    voltage: _Channel
    voltages: list[_Channel]


def read_abf(path: Path, current: str | None, corrections: Corrections, electrode: str | None = None) -> dict[str, Any]:
    """Read the fields of a recording from an ABF1 or ABF2 file.

    Channels are chosen by their unit; a file whose output is a voltage is voltage clamp. A current that the amplifier
    recorded is preferred to the command: the command's scale is set by hand and often wrong, and the recorded current
    holds the holding current and what the amplifier really did. ``current`` asks for one of them. Where several
    channels are a voltage, one is to be named; of as many currents, recorded or commanded, the one at the same place
    belongs to it.

    Args:
        path: the file.
        current: "recorded", "commanded", or None for the recorded one where there is one.
        corrections: units in place of those of the channels that are read; where no channel is a voltage, or no output
            a current, they make one of the channel that is named, or of the only one.
        electrode: name of the channel to read, needed where there are several of a kind: "V2" of the voltages, "I1" of
            the currents, and "V2,I1" where both are to be chosen.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array for each sweep.

    Raises:
        ValueError: for a damaged file, voltage clamp, one without a voltage channel, the one asked for or the current
            asked for, or several channels to choose from.
        ImportError: without pyabf.
    """
    with warnings.catch_warnings():
        # pyabf warns of stimulus files that it does not find; what that means for the command is tested below.
        warnings.filterwarnings("ignore", module="pyabf")
        abf = _open(path)
        inputs, outputs = _channels(abf.adcNames, abf.adcUnits), _channels(abf.dacNames, abf.dacUnits, "output")
        active = _active(abf, outputs)
        inputs = _relabelled(inputs, "voltage", corrections.voltage_unit, electrode)
        recorded = _relabelled(_of_kind(inputs, "current"), "current", corrections.current_unit, electrode)
        if current == "commanded" or not recorded:
            outputs = _relabelled(outputs, "current", corrections.current_unit, electrode)
        used = recorded if current != "commanded" else []
        if corrections.current_unit is None:
            _require_current_clamp(abf, inputs, outputs, active)
        choice = _choice(inputs, used or outputs, active, electrode)
        mv = _input(abf, choice.voltage, "voltage")
        measured = _input(abf, _current("current", used, choice), "current") if used else None
        commands = _commands(abf, outputs)
        beside = [_input(abf, channel, "current") for channel in recorded]
    if current == "recorded" and measured is None:
        raise ValueError(f'current = "recorded": no channel is a current ({_listed(inputs)})')
    dt = 1000.0 / abf.sampleRate
    read = _command(abf, commands, recorded, outputs, choice) if measured is None else measured
    known = [corrections.corrected("current", sweep) for sweep in read]
    if measured is None:
        warn_of_difference([(other, known) for other in beside], dt, "the command was asked for")
    else:
        _warn_of_a_shared_current(used, choice)
        warn_of_difference([(known, command) for command in commands.values()], dt, "the recorded one is used")
    return {
        "current": read,
        "voltage": mv,
        "dt": dt,
        "current_source": "commanded" if measured is None else "recorded",
    }


def abf_channels(path: Path) -> list[str]:
    """Return inputs and outputs of a file as "name: unit"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        abf = _open(path)
    inputs, outputs = _channels(abf.adcNames, abf.adcUnits), _channels(abf.dacNames, abf.dacUnits, "output")
    return [f"{_listed(inputs)}; output {_listed(outputs)}"]


def _open(path: Path) -> Any:
    try:
        import pyabf
    except ImportError as error:
        raise ImportError('reading .abf files needs pyabf: pip install "jaxlif[recordings]"') from error
    _require_whole(path)
    return pyabf.ABF(str(path))


def _require_whole(path: Path) -> None:
    """Refuse a header that contradicts itself, or declares more than the file holds, which pyabf would look for."""
    head = path.read_bytes()
    held = len(head)
    if head[:4] not in (b"ABF ", b"ABF2") or len(head) < 2048:
        raise ValueError("not an ABF file, or one that was cut short")
    if head[:4] == b"ABF2":
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
    if head[:4] == b"ABF2" and expected:
        _compare_lengths(np.frombuffer(head, "<i4", 2 * sweeps, 512 * sections[-1][0])[1::2], samples)


def _compare_lengths(lengths: np.ndarray, samples: int) -> None:
    """Doubt sweeps of more or fewer samples than there are; where they differ, pyabf cuts by their lengths: refuse."""
    if lengths.sum(dtype=int) != samples:
        text = f"sweeps of {lengths.sum(dtype=int)} samples in all are declared, and there are {samples}"
        if len(set(lengths.tolist())) > 1:
            raise ValueError(f"a damaged ABF file: {text}")
        warnings.warn(f"{text}: is the file damaged?", RecordingWarning, stacklevel=6)


def _channels(names: list[str], units: list[str], kind: str = "channel") -> list[_Channel]:
    """Number the channels; without the bytes that pad their names, and with a name that no other channel has."""
    names, units = ([text.strip(" \0") for text in texts] for texts in (names, units))
    counts = Counter(names)
    unique = [name if name and counts[name] == 1 else f"{kind} {n}" for n, name in enumerate(names)]
    return [_Channel(n, *pair) for n, pair in enumerate(zip(unique, units, strict=True))]


def _of_kind(channels: list[_Channel], quantity: str) -> list[_Channel]:
    return [channel for channel in channels if is_unit(quantity, channel.unit)]


def _relabelled(channels: list[_Channel], quantity: str, unit: str | None, electrode: str | None) -> list[_Channel]:
    """Put the unit that was given to those of the kind that it is of; where none is, to the one named, or to all."""
    if unit is None:
        return channels
    named = _names(electrode, {channel.name for channel in channels})
    wrong = _of_kind(channels, quantity) or [c for c in channels if c.name in named] or channels
    return [channel._replace(unit=unit) if channel in wrong else channel for channel in channels]


def _active(abf: Any, outputs: list[_Channel]) -> list[_Channel]:
    """Return the outputs that carry a protocol; where the file does not say which, those that are a current."""
    found = [(channel, waveforms(abf, channel.number)) for channel in outputs]
    varying = [channel for channel, waveform in found if waveform and varies(waveform)]
    return varying or _of_kind(outputs, "current") or outputs[:1]


def _require_current_clamp(abf: Any, inputs: list[_Channel], outputs: list[_Channel], active: list[_Channel]) -> None:
    """Refuse a file whose outputs are voltages, unless a recorded current is what follows them."""
    commanded = _of_kind(active, "voltage") or _of_kind(outputs, "voltage")
    if _of_kind(active, "current") or not commanded:
        return
    command = waveforms(abf, commanded[0].number)
    voltages, currents = ([_input(abf, c, kind) for c in _of_kind(inputs, kind)] for kind in ("voltage", "current"))
    pairs = ((current, voltage) for current in currents for voltage in voltages)
    if not any(command and is_current_clamp(command, *pair, 1000.0 / abf.sampleRate) for pair in pairs):
        raise ValueError(voltage_clamp(_listed(commanded)))


def _choice(inputs: list[_Channel], currents: list[_Channel], active: list[_Channel], electrode: str | None) -> _Choice:
    """Return which voltage is read, and what else was named: of the channels that hold its current."""
    voltages = _of_kind(inputs, "voltage")
    if not voltages:
        raise ValueError(_no_voltage(inputs, active))
    known = voltages + _of_kind(currents, "current")
    named = _names(electrode, {channel.name for channel in known})
    if unknown := [name for name in named if name not in {channel.name for channel in known}]:
        raise ValueError(f"electrode_channel = {unknown[0]!r}: the channels are {_listed(known)}")
    return _Choice(named, _only("voltage", voltages, named), voltages)


def _no_voltage(inputs: list[_Channel], active: list[_Channel]) -> str:
    if _of_kind(active, "voltage"):
        return voltage_clamp(_listed(active))
    if _of_kind(active, "current") and len(_of_kind(inputs, "current")) == len(inputs):
        return (
            f"input and output are both currents ({_listed(inputs)}; {_listed(active)}), a wrong unit: if the input is"
            " the voltage, say so with `voltage_unit`, and how it is scaled with `voltage_gain`"
        )
    return f"no channel is a voltage ({_listed(inputs)}): name its unit with `voltage_unit`, if one is"


def _names(electrode: str | None, known: set[str]) -> tuple[str, ...]:
    """Return the names that were given; a comma separates them where it is not part of a name."""
    if electrode is None or electrode in known:
        return () if electrode is None else (electrode,)
    return tuple(name.strip() for name in electrode.split(","))


def _only(kind: str, channels: list[_Channel], named: tuple[str, ...], example: str = "") -> _Channel:
    """Return the channel that was named, or the only one."""
    found = [channel for channel in channels if channel.name in named] or channels
    if len(found) > 1:
        text = (
            f"{len(channels)} channels are a {kind} ({_listed(channels)}): choose one with `electrode_channel`{example}"
        )
        raise ValueError(text)
    return found[0]


def _current(kind: str, channels: list[_Channel], choice: _Choice) -> _Channel:
    """Return the current that was named, or of as many as there are voltages the one at the same place."""
    if len(channels) == len(choice.voltages) and not any(channel.name in choice.named for channel in channels):
        return channels[choice.voltages.index(choice.voltage)]
    example = f", such as {choice.voltage.name},{channels[0].name}" if len(choice.voltages) > 1 else ""
    return _only(kind, channels, choice.named, example)


def _listed(channels: list[_Channel]) -> str:
    return ", ".join(f"{c.name}: {c.unit or 'no unit'}" for c in channels)


def _input(abf: Any, channel: _Channel, quantity: str) -> list[np.ndarray]:
    factor = to_library_unit(quantity, channel.unit)
    return [factor * sweep.astype(np.float64) for sweep in _sweeps(abf, channel.number)]


def _sweeps(abf: Any, channel: int) -> list[np.ndarray]:
    sweeps = []
    for sweep in abf.sweepList:
        abf.setSweep(sweep, channel=channel)
        sweeps.append(abf.sweepY)
    return sweeps


def _commands(abf: Any, outputs: list[_Channel]) -> dict[_Channel, list[np.ndarray]]:
    """Return the commanded currents that the file holds, each of every sweep."""
    currents = [(channel, to_library_unit("current", channel.unit)) for channel in _of_kind(outputs, "current")]
    found = [(channel, waveforms(abf, channel.number, factor)) for channel, factor in currents]
    return {channel: waveform for channel, waveform in found if waveform is not None}


def _command(
    abf: Any,
    commands: dict[_Channel, list[np.ndarray]],
    recorded: list[_Channel],
    outputs: list[_Channel],
    choice: _Choice,
) -> list[np.ndarray]:
    """Return the commanded current of the electrode."""
    if not commands:
        why = (_of_kind(outputs, "current") and unread_list(abf)) or _listed(outputs)
        otherwise = (
            f'a current was recorded ({_listed(recorded)}): leave current = "commanded" out, or give the unit and scale'
            " of the command with `current_unit` and `current_gain`"
            if recorded
            else "and no current was recorded: store the current beside the voltage in an .npz"
        )
        raise ValueError(f"no command is a current that the file holds ({why}), {otherwise}")
    # Not every output has an input of its own number: where the numbers differ, those that carry a protocol count.
    varying = [channel for channel, waveform in commands.items() if varies(waveform)] or list(commands)[:1]
    channels = list(commands) if len(commands) == len(choice.voltages) else varying
    return commands[_current("commanded current", channels, choice)]


def _warn_of_a_shared_current(recorded: list[_Channel], choice: _Choice) -> None:
    if len(recorded) == 1 < len(choice.voltages) and recorded[0].name not in choice.named:
        warnings.warn(
            f"the only recorded current, {recorded[0].name}, is taken for that of {choice.voltage.name}:"
            f" was it injected there, and not into another of {_listed(choice.voltages)}?",
            RecordingWarning,
            stacklevel=4,
        )
