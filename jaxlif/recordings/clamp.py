"""What an amplifier was told and what it did: which of current and voltage it held, and how far it followed."""

import warnings
from collections.abc import Sequence

import numpy as np

from jaxlif.recordings.protocol import find_epochs, medians
from jaxlif.recordings.recording import Recording, RecordingWarning

_BLOCK = 10.0  # ms of a median, which sees through capacitive transients and the amplifier's at spikes
_FOLLOWS = 0.95  # share of the variance from which on a current is a copy of its command
_RESPONDS = 0.1  # share from which on a voltage has to do with a command at all
_APART = 0.05  # share of the command's range by which command and recorded current may differ
_FOLLOWS_NOT = "the recorded current does not follow the command"

_OfSweeps = Sequence[np.ndarray]


def voltage_clamp(outputs: str) -> str:
    """Say why a file whose outputs, as listed, are voltages is refused."""
    return (
        f"the output is a voltage ({outputs}): a voltage-clamp recording, where a fit needs an injected current; if it"
        " is current clamp under a wrong unit, say so with `current_unit`"
    )


def is_current_clamp(command: _OfSweeps, current: _OfSweeps, voltage: _OfSweeps, dt: float) -> bool:
    """Say whether a command whose unit is a voltage was the current's: that follows it, and the voltage responds.

    In voltage clamp the voltage, where it was recorded, follows the command more closely than the current does.
    """
    length = max(1, round(_BLOCK / dt))
    blocks = [np.concatenate([medians(sweep, length) for sweep in sweeps]) for sweeps in (command, current, voltage)]
    if any(x.size < 3 or np.ptp(x) == 0 for x in blocks):
        return False
    with_current, with_voltage = (float(np.corrcoef(blocks[0], x)[0, 1] ** 2) for x in blocks[1:])
    return with_current > _FOLLOWS and with_current > with_voltage > _RESPONDS


def varies(sweeps: _OfSweeps) -> bool:
    """Say whether any sample differs from the first."""
    return any((sweep != sweeps[0].flat[0]).any() for sweep in sweeps)


def warn_of_difference(pairs: Sequence[tuple[_OfSweeps, _OfSweeps]], dt: float, which: str) -> None:
    """Warn of a recorded current that follows no command, or whose levels are others; ``which`` says what is read."""
    even = [(a, b) for a, b in pairs if len({sweep.size for sweep in (*a, *b)}) == 1 and a[0].size > 1]
    texts = [_difference(np.stack(a), np.stack(b), dt) for a, b in even if varies(b)]
    if texts and all(texts):
        # Of several commands, or recorded currents, the one that follows best is meant.
        text = min((t for t in texts if t), key=lambda t: t.startswith(_FOLLOWS_NOT))
        warnings.warn(f"{text}; {which}", RecordingWarning, stacklevel=4)


def _difference(recorded: np.ndarray, command: np.ndarray, dt: float) -> str | None:
    """Say in which a recorded current [sweeps, T] differs from a command of the same shape, if it does."""
    if np.std(recorded) == 0 or np.corrcoef(recorded.ravel(), command.ravel())[0, 1] < 0.5:
        return f'{_FOLLOWS_NOT}: if its channel was not connected, ask for current="commanded"'
    epochs = find_epochs(Recording(command, dt=dt))
    if not epochs:
        gain = np.cov(recorded.ravel(), command.ravel())[0, 1] / np.var(command, ddof=1)
        return f"the recorded current is {gain:.3g} times the command" if abs(gain - 1.0) > 2.0 * _APART else None
    levels = np.array([epoch.level for epoch in epochs])
    measured = np.array([np.median(recorded[epoch.sweep, epoch.start : epoch.stop]) for epoch in epochs])
    offset, least = float(np.median(measured - levels)), _APART * np.ptp(command)
    apart = np.abs(measured - levels - offset)
    worst = int(apart.argmax())
    if apart[worst] > least:
        where = f"in sweep {epochs[worst].sweep} at {epochs[worst].start * dt:.4g} ms {levels[worst]:.4g}"
        return f"command and recorded current have other levels: {where} and {measured[worst]:.4g} pA"
    return f"the recorded current lies {offset:+.3g} pA beside the command throughout" if abs(offset) > least else None
