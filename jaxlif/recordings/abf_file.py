"""Recordings in Axon binary files, through pyabf, which is imported only when a file is read."""

import warnings
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


def read_abf(path: Path, current: str | None, electrode: str | None = None) -> dict[str, Any]:
    """Read the fields of a recording from an ABF1 or ABF2 file.

    Channels are chosen by their unit. A current that the amplifier recorded is preferred to the command: the
    command's scale is set by hand and often wrong, and the recorded current holds the holding current and what the
    amplifier really did. ``current`` asks for one of them.

    Args:
        path: the file.
        current: "recorded", "commanded", or None for the recorded one where there is one.
        electrode: name of the voltage channel; None for the first, with a warning where there are several. Of as many
            current channels the one at the same place belongs to it, else the first.

    Returns:
        Fields of :class:`jaxlif.recordings.Recording`; one array for each sweep.

    Raises:
        ValueError: for a damaged file, one without a voltage channel or the one asked for, or one without the current
            asked for.
        ImportError: without pyabf.
    """
    with warnings.catch_warnings():
        # pyabf warns of stimulus files that it does not find; what that means for the command is tested below.
        warnings.simplefilter("ignore")
        abf = _open(path)
        inputs = _channels(abf.adcNames, abf.adcUnits)
        voltage, recorded = _pair(inputs, electrode)
        measured = _input(abf, recorded, "current") if recorded and current != "commanded" else None
        command = _command(abf, wanted=measured is None) if current != "recorded" else None
        mv = _input(abf, voltage, "voltage")
    if current == "recorded" and measured is None:
        raise ValueError(f'current = "recorded": no channel is a current ({_listed(inputs)})')
    _warn_of_choice(inputs, electrode)
    _warn_of_disagreement(measured, command)
    source = "commanded" if measured is None else "recorded"
    return {
        "current": command if measured is None else measured,
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


def _channels(names: list[str], units: list[str]) -> list[_Channel]:
    """Number the channels, without the bytes that pad their names in the file."""
    named = zip(names, units, strict=True)
    return [_Channel(n, name.strip(" \0"), unit.strip(" \0")) for n, (name, unit) in enumerate(named)]


def _of_kind(channels: list[_Channel], quantity: str) -> list[_Channel]:
    return [channel for channel in channels if is_unit(quantity, channel.unit)]


def _pair(inputs: list[_Channel], electrode: str | None) -> tuple[_Channel, _Channel | None]:
    """Return the voltage channel of an electrode and the channel of its current, None where that was not recorded."""
    voltages, currents = (_of_kind(inputs, quantity) for quantity in ("voltage", "current"))
    if not voltages:
        raise ValueError(f"no channel is a voltage ({_listed(inputs)}): is it a voltage-clamp recording?")
    names = [channel.name for channel in voltages]
    if electrode is not None and electrode not in names:
        raise ValueError(f"electrode = {electrode!r}: the voltage channels are {_listed(voltages)}")
    place = 0 if electrode is None else names.index(electrode)
    current = currents[place] if len(currents) == len(voltages) else next(iter(currents), None)
    return voltages[place], current


def _listed(channels: list[_Channel]) -> str:
    return ", ".join(f"{c.name or f'channel {c.number}'}: {c.unit or 'no unit'}" for c in channels)


def _input(abf: Any, channel: _Channel, quantity: str) -> list[np.ndarray]:
    factor = to_library_unit(quantity, channel.unit)
    return [factor * sweep.astype(np.float64) for sweep in _sweeps(abf, channel.number)]


def _sweeps(abf: Any, channel: int) -> list[np.ndarray]:
    sweeps = []
    for sweep in abf.sweepList:
        abf.setSweep(sweep, channel=channel)
        sweeps.append(abf.sweepY)
    return sweeps


def _command(abf: Any, *, wanted: bool) -> list[np.ndarray] | None:
    """Return the commanded current of every sweep, or None where there is none and none is wanted."""
    # Not every output has an input of its own number: look at all, take the one that carries a protocol.
    outputs = _channels(abf.dacNames, abf.dacUnits)
    waveforms = [_waveforms(abf, channel) for channel in outputs if is_unit("current", channel.unit)]
    commands = [waveform for waveform in waveforms if waveform is not None]
    if commands:
        return next((c for c in commands if _varies(c)), commands[0])
    if wanted:
        raise ValueError(
            f"no command is a current that the file holds ({_listed(outputs)}),"
            " and no current was recorded: store the current beside the voltage in an .npz"
        )
    return None


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


def _warn_of_choice(inputs: list[_Channel], electrode: str | None) -> None:
    for quantity in ("voltage", "current"):
        found = _of_kind(inputs, quantity)
        if len(found) > 1 and electrode is None:
            warnings.warn(
                f"{len(found)} channels are a {quantity} ({_listed(found)}): the first is read; name the voltage's"
                " channel with `electrode` for another",
                RecordingWarning,
                stacklevel=4,
            )


def _warn_of_disagreement(recorded: list[np.ndarray] | None, command: list[np.ndarray] | None) -> None:
    """Warn of a recorded current that does not follow the command: a channel that was not connected."""
    if recorded is None or command is None or not _varies(command):
        return
    a, b = np.concatenate(recorded), np.concatenate(command)
    if a.size == b.size and (np.std(a) == 0 or np.corrcoef(a, b)[0, 1] < 0.5):
        warnings.warn(
            "the recorded current does not follow the command: if its channel was not connected, ask for"
            ' current="commanded"',
            RecordingWarning,
            stacklevel=4,
        )
