"""Several files of one cell as one recording: what does not go together is refused by name."""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.recordings.protocol import medians
from jaxlif.recordings.recording import Recording, RecordingWarning

QUIET = 20.0  # ms of one current at the start of every sweep: the holding current
LEVEL = 0.1  # of the currents' span: two that differ by no more are one
LISTED = 5  # files that a line names


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the recordings in a folder by their names, numbers in order; none is a ValueError, others are noted."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    known = [path for path in inside if path.suffix.lower() in suffixes and path.is_file()]
    if not known:
        raise ValueError(f"{folder.name}: there is no recording in this folder ({', '.join(suffixes)})")
    if others := sorted(path.name for path in inside if path not in known):
        listed = ", ".join(others[:LISTED]) + f" and {len(others) - LISTED} more" * (len(others) > LISTED)
        warnings.warn(f"{folder.name}: what is no recording is left out: {listed}", RecordingWarning, stacklevel=3)
    return sorted(known, key=_in_order)


def _in_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def joined(recordings: Sequence[Recording], name: str) -> Recording:
    """Return the sweeps of several recordings of one cell as one recording, in their order.

    They are sampled alike and have one length, one kind of current and one holding current; else that is a ValueError.
    """
    first, *others = recordings
    for other in others:
        for what, value in _ALIKE.items():
            here, there = value(first), value(other)
            if not np.allclose(here, there, rtol=1e-3) if isinstance(here, float) else here != there:
                raise ValueError(_apart(what, first, other, here, there))
    _require_one_holding_current(recordings)
    traces = [r for r in recordings if r.electrode_current is not None]
    if len(traces) > 1:
        raise ValueError(f"{traces[0].name} and {traces[1].name} have an electrode's trace each: fit them apart")
    arrays: dict[str, Any] = {"current": np.concatenate([r.current for r in recordings])}
    for field in ("voltage", "spikes"):
        rows = [getattr(r, field) for r in recordings]
        arrays[field] = None if rows[0] is None else np.concatenate(rows)
    if first.stimulus is not None:
        arrays["stimulus"] = [str(stimulus) for r in recordings for stimulus in r.stimulus or ()]
    arrays |= {f"electrode_{x}": getattr((traces or [first])[0], f"electrode_{x}") for x in ("current", "voltage")}
    sums = hashlib.sha256("".join(r.sha256 for r in recordings).encode()).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # each was judged when it was read
        return replace(first, **arrays, name=name, sha256=sums)


_ALIKE: dict[str, Callable[[Recording], Any]] = {
    "a sampling interval of {} ms": lambda r: r.dt,
    "sweeps of {} samples": lambda r: r.num_steps,
    "sweeps that start at {} ms": lambda r: float(r.start),
    "a current that is {}": lambda r: r.current_source,
    "a voltage: {}": lambda r: r.voltage is not None,
    "known spikes: {}": lambda r: r.spikes is not None,
    "names of stimuli: {}": lambda r: r.stimulus is not None,
}


def _apart(what: str, first: Recording, other: Recording, here: Any, there: Any) -> str:
    words = [what.format({True: "yes", False: "no"}.get(value, value)) for value in (here, there)]
    return f"{first.name} has {words[0]} and {other.name} {words[1]}: sweeps of one cell must agree; fit them apart"


def _require_one_holding_current(recordings: Sequence[Recording]) -> None:
    """Refuse files that are held at different currents, where every sweep of a file starts quietly."""
    held = [(level, r.name) for r in recordings if (level := _holding_current(r)) is not None]
    span = max(np.ptp(r.current) for r in recordings)
    if held and max(held)[0] - min(held)[0] > LEVEL * span:
        (low, one), (high, other) = min(held), max(held)
        raise ValueError(f"{one} is held at {low:.4g} pA and {other} at {high:.4g} pA: fit them apart")


def _holding_current(recording: Recording) -> float | None:
    blocks = medians(recording.current, max(1, round(1.0 / recording.dt)))
    start = blocks[:, : max(1, round(QUIET))]
    quiet = np.ptp(start) <= LEVEL * np.ptp(recording.current)
    return float(np.median(start)) if quiet else None
