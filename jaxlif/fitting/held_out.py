"""What is kept from a fit to judge it by: time, repeats or stimuli."""

from collections.abc import Sequence

import numpy as np

from jaxlif.recordings import Recording, repeats
from jaxlif.recordings.recording import sweep_indices

KINDS = ("stimulus", "repeat", "sweep")
FITTED = 0.7  # share of the time that is fitted where nothing else was asked for


def held_out_sweeps(recording: Recording, choice: str | Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Return the numbers of the sweeps that a fit does not see.

    Args:
        recording: whose sweeps.
        choice: "stimulus:04" for all sweeps of a named stimulus, "repeat:3" for the fourth repeat of every stimulus,
            "sweep:0,5" or a sequence of numbers for single sweeps; several after commas, negative ones count from the
            end. None for no sweep.

    Raises:
        ValueError: for another choice, a name or number that does not exist, or one that leaves nothing to fit.

    Example:
        >>> ramp = np.arange(400.0)
        >>> recording = Recording(current=np.stack([ramp, ramp, -ramp, -ramp]), dt=0.1, stimulus=["a", "a", "b", "b"])
        >>> held_out_sweeps(recording, "stimulus:b"), held_out_sweeps(recording, "repeat:-1")
        (array([2, 3]), array([1, 3]))
    """
    if choice is None:
        return np.zeros(0, int)
    found = _named(recording, choice) if isinstance(choice, str) else sweep_indices(choice, recording.num_sweeps)
    found = np.unique(found)
    if len(found) == recording.num_sweeps:
        raise ValueError(f"held_out = {choice!r}: no sweep is left to fit")
    return found


def default_split(recording: Recording, spikes: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
    """Return the window to fit, ms, and the sweeps to hold out: time where both of its parts have spikes, else sweeps.

    Args:
        recording: whose time.
        spikes: [sweeps, T], booleans.

    Example:
        >>> early = np.zeros((3, 100), bool)
        >>> early[:, 5] = True
        >>> default_split(Recording(current=np.tile(np.arange(100.0), (3, 1)), dt=1.0), early)
        ((0.0, 100.0), array([1]))
    """
    cut = round(FITTED * recording.num_steps)
    if spikes[:, :cut].any() and spikes[:, cut:].any():
        return (recording.start, recording.start + FITTED * recording.duration), np.zeros(0, int)
    return (recording.start, recording.start + recording.duration), np.flatnonzero(spikes.any(axis=1))[1::3]


def _named(recording: Recording, choice: str) -> np.ndarray:
    kind, colon, rest = choice.partition(":")
    wanted = [part.strip() for part in rest.split(",")]
    if kind not in KINDS or not colon or not all(wanted):
        raise ValueError(f'held_out = {choice!r}: write "stimulus:NAME", "repeat:NUMBER" or "sweep:NUMBER"')
    if kind == "stimulus":
        return np.concatenate([_stimulus(recording, name) for name in wanted])
    try:
        numbers = [int(part) for part in wanted]
    except ValueError as error:
        raise ValueError(f"held_out = {choice!r}: {rest!r} are no whole numbers") from error
    if kind == "sweep":
        return sweep_indices(numbers, recording.num_sweeps)
    groups = repeats(recording)
    return np.concatenate([_repeat(groups, number) for number in numbers])


def _stimulus(recording: Recording, name: str) -> np.ndarray:
    known = recording.stimulus or ()
    found = np.array([s for s, own in enumerate(known) if own == name], int)
    if not len(found):
        listed = ", ".join(dict.fromkeys(known)) or "not named"
        raise ValueError(f"held_out = 'stimulus:{name}': the stimuli of this recording are {listed}")
    return found


def _repeat(groups: list[np.ndarray], number: int) -> np.ndarray:
    found = [group[number] for group in groups if -len(group) <= number < len(group)]
    if not found:
        most = max(map(len, groups))
        raise ValueError(f"held_out = 'repeat:{number}': the stimuli have up to {most} repeats, numbered from 0")
    return np.array(found)
