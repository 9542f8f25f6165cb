"""What an Axon binary file commanded: the waveforms of its outputs."""

from typing import Any

import numpy as np

_FIRST_LEVEL = 61  # the user list's number for the level of an ABF2 file's first epoch, and 50 epochs follow


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
