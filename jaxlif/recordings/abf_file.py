"""Recordings in Axon binary files, through pyabf, which is imported only when a file is read."""

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.recordings.recording import RecordingWarning
from jaxlif.recordings.units import is_unit, to_library_unit


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


def read_abf(path: Path, current: str | None, electrode: str | None = None) -> dict[str, Any]:
    """Read the fields of a recording from an ABF1 or ABF2 file.

    Channels are chosen by their unit. A current that the amplifier recorded is preferred to the command: the
    command's scale is set by hand and often wrong, and the recorded current holds the holding current and what the
    amplifier really did. ``current`` asks for one of them. Where several channels are a voltage, one is to be named; of
    as many currents, recorded or commanded, the one at the same place belongs to it.

    Args:
        path: the file.
        current: "recorded", "commanded", or None for the recorded one where there is one.
        electrode: name of the channel to read, needed where there are several of a kind: "V2" of the voltages, "I1" of
            the currents, and "V2,I1" where both are to be chosen.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array for each sweep.

    Raises:
        ValueError: for a damaged file, one without a voltage channel, the one asked for or the current asked for, or
            several channels to choose from.
        ImportError: without pyabf.
    """
    with warnings.catch_warnings():
        # pyabf warns of stimulus files that it does not find; what that means for the command is tested below.
        warnings.simplefilter("ignore")
        abf = _open(path)
        inputs = _channels(abf.adcNames, abf.adcUnits)
        recorded = _of_kind(inputs, "current") if current != "commanded" else []
        outputs = _channels(abf.dacNames, abf.dacUnits, "output")
        choice = _choice(inputs, recorded or outputs, electrode)
        measured = _input(abf, _current("current", recorded, choice), "current") if recorded else None
        commands = _commands(abf, outputs) if current != "recorded" else {}
        mv = _input(abf, choice.voltage, "voltage")
    if current == "recorded" and measured is None:
        raise ValueError(f'current = "recorded": no channel is a current ({_listed(inputs)})')
    _warn_of_a_shared_current(recorded, choice)
    if measured is not None:
        _warn_of_disagreement(measured, commands.values())
    source = "commanded" if measured is None else "recorded"
    return {
        "current": _command(commands, outputs, choice) if measured is None else measured,
        "voltage": mv,
        "dt": 1000.0 / abf.sampleRate,
        "current_source": source,
    }


def _open(path: Path) -> Any:
    try:
        import pyabf
    except ImportError as error:
        raise ImportError('reading .abf files needs pyabf: pip install "jaxlif[recordings]"') from error
    try:
        return pyabf.ABF(str(path))
    except Exception as error:  # pyabf raises whatever the damaged byte led to
        raise ValueError(f"not an ABF file that can be read, or one that was cut short ({error})") from error


def _channels(names: list[str], units: list[str], kind: str = "channel") -> list[_Channel]:
    """Number the channels; without the bytes that pad their names, and with a name that no other channel has."""
    names, units = ([text.strip(" \0") for text in texts] for texts in (names, units))
    counts = Counter(names)
    unique = [name if name and counts[name] == 1 else f"{kind} {n}" for n, name in enumerate(names)]
    return [_Channel(n, *pair) for n, pair in enumerate(zip(unique, units, strict=True))]


def _of_kind(channels: list[_Channel], quantity: str) -> list[_Channel]:
    return [channel for channel in channels if is_unit(quantity, channel.unit)]


def _choice(inputs: list[_Channel], currents: list[_Channel], electrode: str | None) -> _Choice:
    """Return which voltage is read, and what else was named: of the channels that hold its current."""
    voltages = _of_kind(inputs, "voltage")
    if not voltages:
        raise ValueError(f"no channel is a voltage ({_listed(inputs)}): is it a voltage-clamp recording?")
    known = voltages + _of_kind(currents, "current")
    named = _names(electrode, {channel.name for channel in known})
    if unknown := [name for name in named if name not in {channel.name for channel in known}]:
        raise ValueError(f"electrode = {unknown[0]!r}: the channels are {_listed(known)}")
    return _Choice(named, _only("voltage", voltages, named), voltages)


def _names(electrode: str | None, known: set[str]) -> tuple[str, ...]:
    """Return the names that were given; a comma separates them where it is not part of a name."""
    if electrode is None or electrode in known:
        return () if electrode is None else (electrode,)
    return tuple(name.strip() for name in electrode.split(","))


def _only(kind: str, channels: list[_Channel], named: tuple[str, ...], example: str = "") -> _Channel:
    """Return the channel that was named, or the only one."""
    found = [channel for channel in channels if channel.name in named] or channels
    if len(found) > 1:
        text = f"{len(channels)} channels are a {kind} ({_listed(channels)}): choose one with `electrode`{example}"
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
    waveforms = [(channel, _waveforms(abf, channel)) for channel in _of_kind(outputs, "current")]
    return {channel: waveform for channel, waveform in waveforms if waveform is not None}


def _command(commands: dict[_Channel, list[np.ndarray]], outputs: list[_Channel], choice: _Choice) -> list[np.ndarray]:
    """Return the commanded current of the electrode."""
    if not commands:
        raise ValueError(
            f"no command is a current that the file holds ({_listed(outputs)}),"
            " and no current was recorded: store the current beside the voltage in an .npz"
        )
    # Not every output has an input of its own number: where the numbers differ, those that carry a protocol count.
    varying = [channel for channel, waveform in commands.items() if _varies(waveform)] or list(commands)[:1]
    channels = list(commands) if len(commands) == len(choice.voltages) else varying
    return commands[_current("commanded current", channels, choice)]


def _waveforms(abf: Any, channel: _Channel) -> list[np.ndarray] | None:
    """Return the command of every sweep in pA, or None where the file does not hold it."""
    from pyabf.stimulus import Stimulus

    factor = to_library_unit("current", channel.unit)
    sweeps = []
    for sweep in abf.sweepList:
        abf.setSweep(sweep)
        try:
            waveform = Stimulus(abf, channel.number).stimulusWaveform(sweep)
        except (IndexError, UnboundLocalError):
            return None  # an output without an epoch table, or a stimulus file that an ABF1 header does not name
        sweeps.append(factor * np.asarray(waveform, np.float64)[: abf.sweepY.size])
    return sweeps if all(np.isfinite(s).all() for s in sweeps) else None


def _varies(sweeps: list[np.ndarray]) -> bool:
    return any((sweep != sweeps[0].flat[0]).any() for sweep in sweeps)


def _warn_of_a_shared_current(recorded: list[_Channel], choice: _Choice) -> None:
    if len(recorded) == 1 < len(choice.voltages) and recorded[0].name not in choice.named:
        warnings.warn(
            f"the only recorded current, {recorded[0].name}, is taken for that of {choice.voltage.name}:"
            f" was it injected there, and not into another of {_listed(choice.voltages)}?",
            RecordingWarning,
            stacklevel=4,
        )


def _warn_of_disagreement(recorded: list[np.ndarray], commands: Iterable[list[np.ndarray]]) -> None:
    """Warn of a recorded current that follows no command: a channel that was not connected."""
    a, varying = np.concatenate(recorded), [np.concatenate(command) for command in commands if _varies(command)]
    comparable = [b for b in varying if a.size == b.size]
    if comparable and all(np.std(a) == 0 or np.corrcoef(a, b)[0, 1] < 0.5 for b in comparable):
        warnings.warn(
            "the recorded current does not follow the command: if its channel was not connected, ask for"
            ' current="commanded"',
            RecordingWarning,
            stacklevel=4,
        )
