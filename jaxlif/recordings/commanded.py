"""How a recorded current differs from the command that asked for it."""

import warnings

import numpy as np

from jaxlif.recordings.protocol import steps
from jaxlif.recordings.recording import Recording, RecordingWarning

_APART = 0.05  # share of the command's range by which command and recorded current may differ
_FOLLOWS_NOT = "the recorded current does not follow the command"


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
