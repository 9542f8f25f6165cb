"""What an Axon binary file commanded: the waveforms of its outputs, and how a recorded current differs from them."""

import warnings
from typing import Any

import numpy as np

from jaxlif.recordings.protocol import steps
from jaxlif.recordings.recording import Recording, RecordingWarning

_FIRST_LEVEL = 61  # the user list's number for the level of an ABF2 file's first epoch, and 50 epochs follow
_APART = 0.05  # share of the command's range by which command and recorded current may differ
_FOLLOWS_NOT = "the recorded current does not follow the command"


def waveforms(abf: Any, output: int, factor: float = 1.0) -> list[np.ndarray] | None:
    """Return the command of every sweep times a factor, or None where the file does not hold it."""
    if _is_in_another_file(abf, output):
        return None
    sweeps = []
    for sweep in abf.sweepList:
        abf.setSweep(sweep)
        try:
            waveform = _waveform(abf, output, sweep)
        except (IndexError, UnboundLocalError):
            return None  # an output without an epoch table, or a stimulus file that an ABF1 header does not name
        if waveform is None:
            return None
        sweeps.append(factor * np.asarray(waveform, np.float64)[: abf.sweepY.size])
    return sweeps if all(np.isfinite(s).all() for s in sweeps) else None


def _is_in_another_file(abf: Any, output: int) -> bool:
    """Say whether the command is a stimulus file, which pyabf would open wherever the header says that it lies."""
    header = getattr(abf, "_dacSection", None) or getattr(abf, "_headerV1", None)
    return header is not None and header.nWaveformSource[output : output + 1] in ([2], (2,))


def _waveform(abf: Any, output: int, sweep: int) -> np.ndarray | None:
    """Return the command of one sweep in the file's unit: its epochs, with the level that a user list gives one."""
    from pyabf.stimulus import Stimulus
    from pyabf.waveform import EpochTable

    if not _has_list(abf):
        return Stimulus(abf, output).stimulusWaveform(sweep)
    if unread_list(abf) is not None:
        return None
    if not abf._dacSection.nWaveformEnable[output]:
        return Stimulus(abf, output).stimulusWaveform(sweep)
    table = EpochTable(abf, output)
    varied: Any = _varied_epoch(abf, table.epochs)
    # Past its end a list is repeated where that was ticked, and else its last value stays.
    count = len(abf.userList)
    varied.level = abf.userList[sweep % count if abf.userListRepeat[0] else min(sweep, count - 1)]
    varied.levelDelta = 0.0
    return table.getEpochWaveformsBySweep(abf)[sweep].getWaveform()


def _has_list(abf: Any) -> bool:
    return any(getattr(abf, "userListEnable", None) or ())


def _varied_epoch(abf: Any, epochs: list[Any]) -> Any | None:
    number = abf.userListParamToVary[0] - _FIRST_LEVEL
    return next((epoch for epoch in epochs if epoch.epochNumber == number), None)


def unread_list(abf: Any) -> str | None:
    """Say why a user list of the file cannot be followed; pyabf reads it, and does not apply it."""
    from pyabf.waveform import EpochTable

    if not _has_list(abf):
        return None
    parameters = abf.userListParamToVary
    if abf.abfVersion["major"] == 2 and len(parameters) == 1 and abf.userList:
        driven = [n for n, on in enumerate(abf._dacSection.nWaveformEnable) if on]
        if len(driven) == 1 and _varied_epoch(abf, EpochTable(abf, driven[0]).epochs):
            return None
    varied = f"parameter {parameters[0]} of the epochs"
    return f"a user list varies {varied}; read are lists of one epoch's level, in an ABF2 file with one output"


def varies(sweeps: list[np.ndarray]) -> bool:
    """Say whether any sample differs from the first."""
    return any((sweep != sweeps[0].flat[0]).any() for sweep in sweeps)


def warn_of_difference(pairs: list[tuple[list[np.ndarray], list[np.ndarray]]], dt: float, which: str) -> None:
    """Warn of a recorded current that follows no command, or whose levels are others; ``which`` says what is read."""
    comparable = [(np.stack(a), np.stack(b)) for a, b in pairs if varies(b) and _one_length(a, b)]
    texts = [_difference(a, b, dt) for a, b in comparable]
    if texts and all(texts):
        # Of several commands, or recorded currents, the one that follows best is meant.
        text = min((t for t in texts if t), key=lambda t: t.startswith(_FOLLOWS_NOT))
        warnings.warn(f"{text}; {which}", RecordingWarning, stacklevel=5)


def _one_length(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len({sweep.size for sweep in (*a, *b)}) == 1 and a[0].size > 1


def _difference(recorded: np.ndarray, command: np.ndarray, dt: float) -> str | None:
    """Say in which a recorded current [sweeps, T] differs from a command of the same shape, if it does."""
    if np.std(recorded) == 0 or np.corrcoef(recorded.ravel(), command.ravel())[0, 1] < 0.5:
        return f'{_FOLLOWS_NOT}: if its channel was not connected, ask for current="commanded"'
    epochs = steps(Recording(command, dt=dt))
    if not epochs:
        gain = np.cov(recorded.ravel(), command.ravel())[0, 1] / np.var(command, ddof=1)
        return f"the recorded current is {gain:.3g} times the command" if abs(gain - 1.0) > 2.0 * _APART else None
    levels = np.array([epoch.level for epoch in epochs])
    measured = np.array([np.median(recorded[epoch.sweep, epoch.start : epoch.stop]) for epoch in epochs])
    offset = float(np.median(measured - levels))
    apart, least = measured - levels - offset, _APART * np.ptp(command)
    worst = int(np.abs(apart).argmax())
    if abs(apart[worst]) > least:
        return (
            f"command and recorded current have other levels: in sweep {epochs[worst].sweep} at"
            f" {epochs[worst].start * dt:.4g} ms {levels[worst]:.4g} and {measured[worst]:.4g} pA"
        )
    return f"the recorded current lies {offset:+.3g} pA beside the command throughout" if abs(offset) > least else None
