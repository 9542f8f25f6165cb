"""From a recording to what a fit sees: its spikes, the sweeps and the window to fit, and what is left to judge by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxlif.checks import numbers as checked_numbers
from jaxlif.fitting.data import Data, Drift
from jaxlif.fitting.step_family import has_deflections, has_fi_curve, is_family, no_fi_curve
from jaxlif.recordings import Electrode, Recording, SpikeRule, remove_electrode, repeats
from jaxlif.recordings.notes import (
    copies,
    held_current,
    is_sampled,
    notes_on,
    require_stimulus,
    rest_notes,
    resting_potentials,
    without_padding,
)
from jaxlif.recordings.protocol import step_family
from jaxlif.recordings.recording import sweep_indices
from jaxlif.recordings.spikes import no_spikes

ADAPTIVE = ("gif", "deterministic-gif")  # they find their own start, and have no bounds
SHARE = 0.7  # of the time that is fitted where nothing else was asked for
LEAST_REST = 100.0  # ms of time beside the window that can judge


@dataclass(frozen=True, eq=False)
class Case:
    """A recording prepared for one model."""

    model: str
    recording: Recording  # as it was given, without what was padded
    data: Data  # all sweeps, as a fit sees them
    window: tuple[float, float]  # the part of the time to fit, ms
    kept: np.ndarray  # numbers of the sweeps to fit
    held: np.ndarray  # and of those to judge by
    protocol: str  # "steps" or "fluctuating"
    refit: bool  # to the whole recording, once the model has been scored
    sampled: bool  # whether the current was sampled beside the voltage, and not held
    electrodes: tuple[tuple[tuple[int, ...], Electrode], ...]  # that were taken off, each with its sweeps
    notes: tuple[str, ...]  # what preparing has to say

    @property
    def fitted(self) -> Data:
        """The sweeps to fit."""
        return self.data.select(self.kept)

    def complete(self) -> "Case":
        """Return the case with the sweeps that judged among those to fit, of several copies of one trial the first."""
        return replace(self, kept=_first_copies(self.recording, np.arange(self.recording.num_sweeps)))

    @property
    def rest(self) -> tuple[float, float] | None:
        """The longer of what lies after and before the window, unless both are shorter than 100 ms."""
        (begin, end), (first, last) = self.data.whole, self.window
        longest = max([(last, end), (begin, first)], key=lambda part: part[1] - part[0])
        return longest if longest[1] - longest[0] >= LEAST_REST else None

    def with_drift(self, found: Drift | None) -> "Case":
        """Return the case with fitted terms of the sweeps that were kept; the others have what their rest says."""
        if found is None:
            return self
        terms = Drift(self.data.terms.offset.copy(), np.ones(self.data.num_sweeps))
        terms.offset[self.kept], terms.gain[self.kept] = found.offset, found.gain
        return replace(self, data=replace(self.data, drift=terms))


def prepare(
    recording: Recording,
    model: str,
    *,
    window: tuple[float, float] | None = None,
    held_out: str | Sequence[int] | None = None,
    electrode: Electrode | float | str | None = "auto",
    rest: str = "auto",
    rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    tested: bool = False,
) -> Case:
    """Find spikes, take the electrode off and split; a recording that cannot be fitted is refused.

    Where another recording is the test, ``tested``, no time of this one is held out unless it was asked for.
    """
    rule = rule.found_in(recording)  # which some sweeps of it may not show
    recording, notes = without_padding(recording)
    if model == "passive":
        recording, notes = _silent(recording, rule, held_out, notes)
    spikes = checked_spikes(recording, rule, model)
    part, held, why = _split(recording, spikes, model, window, held_out, tested)
    kept = _first_copies(recording, np.setdiff1d(np.arange(recording.num_sweeps), held))
    adaptive, sampled = model in ADAPTIVE, is_sampled(recording, spikes)
    removed = remove_electrode(recording, spikes, None if electrode == "auto" and not adaptive else electrode)
    measured = resting_potentials(removed.recording, spikes) if adaptive and rest == "auto" else None
    own: dict[str, Any] = {}
    if measured is not None:
        v_rest = float(measured[kept].mean())  # of the sweeps to fit
        own = {"v_rest": v_rest, "drift": Drift.of_rest(measured, v_rest)}
    protocol = _protocol(recording, spikes, kept, model)
    notes += notes_on(recording, spikes, rule, held=held, compensated=removed.recording) + removed.notes + why
    if model == "lif" and protocol == "fluctuating":
        chosen = recording.select(kept)
        notes += no_fi_curve(chosen, spikes[kept]) + rest_notes(chosen, spikes[kept])
    return Case(
        model=model,
        recording=recording,
        data=Data.of(held_current(removed.recording, sampled), spikes, **own),
        window=part,
        kept=kept,
        held=held,
        protocol=protocol,
        refit=window is None and held_out is None and not (tested and not len(held)),
        sampled=sampled,
        electrodes=removed.electrodes,
        notes=notes,
    )


def _silent(
    recording: Recording, rule: SpikeRule, held_out: str | Sequence[int] | None, notes: tuple[str, ...]
) -> tuple[Recording, tuple[str, ...]]:
    """Return the sweeps of a recording that have no spike, and say which these are where others have some."""
    silent = np.flatnonzero(~rule.find(recording).any(axis=1))
    if len(silent) == recording.num_sweeps:
        return recording, notes
    if not len(silent):
        raise ValueError('model = "passive": every sweep has spikes; "lif" fits the membrane between them')
    if held_out is not None:
        raise ValueError(f'held_out = {held_out!r}: model = "passive" leaves sweeps with spikes out; choose the sweeps')
    return recording.select(silent), (*notes, f"fitted to the sweeps without a spike: {', '.join(map(str, silent))}")


def checked_spikes(recording: Recording, rule: SpikeRule, model: str = "lif") -> np.ndarray:
    """Return the spikes of a recording that can be fitted; one without a stimulus or spikes is refused."""
    recording.measured_voltage()  # which is refused where there is none
    spikes = rule.find(recording)
    if not spikes.any() and model != "passive":
        own = "the recording's own `spikes` are False in every sample; without them they are looked for"
        why = no_spikes(recording, rule) if recording.spikes is None else own
        raise ValueError(f"voltage has no spikes: {why}; the membrane alone is fitted with `model` passive")
    require_stimulus(recording, spikes)  # after the spikes: those that are not known hide what the current does
    return spikes


def _protocol(recording: Recording, spikes: np.ndarray, kept: np.ndarray, model: str) -> str:
    is_family = {"lif": has_fi_curve, "passive": has_deflections}.get(model)
    return "steps" if is_family and is_family(recording.select(kept), spikes[kept]) else "fluctuating"


# --- what is fitted, and what judges ----------------------------------------------------------------------


def _split(
    recording: Recording,
    spikes: np.ndarray,
    model: str,
    window: tuple[float, float] | None,
    held_out: str | Sequence[int] | None,
    tested: bool,
) -> tuple[tuple[float, float], np.ndarray, tuple[str, ...]]:
    """Return the window to fit, the sweeps to hold out, and why these where nobody asked for them."""
    everything, held = (recording.start, recording.start + recording.duration), held_out_sweeps(recording, held_out)
    if window is not None:
        return _checked_window(recording, window), held, ()
    if len(held) or (model == "passive" and has_deflections(recording, spikes)):
        return everything, held, ()
    if is_family(recording):
        return everything, every_second_step(recording, spikes), ()
    if tested:
        return everything, held, ()
    part, held = default_split(recording, spikes)
    if part != everything:
        return part, held, ()
    listed = f"of the sweeps {', '.join(map(str, held))}" if len(held) else "nothing"
    return part, held, (f"all spikes fall into one part of the time: held out instead of its end: {listed}",)


def _checked_window(recording: Recording, window: tuple[float, float]) -> tuple[float, float]:
    begin, end = recording.start, recording.start + recording.duration
    pair = checked_numbers("window", window, "ms", rank=1)
    if len(pair) != 2:
        raise ValueError(f"window = {window!r}: window must be a pair (start, stop), ms")
    first, last = map(float, pair)
    if not begin <= first < last <= end + 1e-6:
        rule = f"it must lie inside the recording, {begin:g} to {end:g} ms"
        raise ValueError(f"window = {first:g} to {last:g} ms: {rule}")
    return first, min(last, end)


def default_split(recording: Recording, spikes: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
    """Return the window to fit, ms, and the sweeps to hold out: time where both of its parts have spikes, else sweeps.

    Example:
        >>> early = np.zeros((3, 100), bool)
        >>> early[:, 5] = True
        >>> default_split(Recording(current=np.tile(np.arange(100.0), (3, 1)), dt=1.0), early)
        ((0.0, 100.0), array([1]))
    """
    cut = round(SHARE * recording.num_steps)
    if spikes[:, :cut].any() == spikes[:, cut:].any():  # or neither, in a passive membrane
        return (recording.start, recording.start + SHARE * recording.duration), np.zeros(0, int)
    return (recording.start, recording.start + recording.duration), np.flatnonzero(spikes.any(axis=1))[1::3]


def every_second_step(recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Return every second sweep of a step family, in the order of its currents, of those that fire and of the others.

    Two of each kind at least are left to fit; copies of one trial are on one side.

    Example:
        >>> current = np.zeros((7, 100))
        >>> current[:, 20:80] = np.arange(7.0)[:, None]
        >>> spikes = np.zeros((7, 100), bool)
        >>> spikes[2:, 50] = True
        >>> every_second_step(Recording(current=current, dt=1.0), spikes)
        array([3, 5])
    """
    trials = copies(recording)
    levels, order = [test.level for test in step_family(recording).tests], np.unique(trials)
    order = order[np.argsort([levels[n] for n in order], kind="stable")]
    fires = np.asarray(spikes.any(axis=1))[order]
    held = [group[1::2] for group in (order[fires], order[~fires]) if len(group) > 2]
    return np.flatnonzero(np.isin(trials, np.concatenate([*held, np.zeros(0, int)])))


def _first_copies(recording: Recording, sweeps: np.ndarray) -> np.ndarray:
    return np.asarray(sweeps[np.sort(np.unique(copies(recording)[sweeps], return_index=True)[1])])


def held_out_sweeps(recording: Recording, choice: str | Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Return the numbers of the sweeps that a fit does not see.

    "stimulus:04" are all sweeps of a named stimulus, "repeat:3" the fourth repeat of every stimulus, "sweep:0,5" or a
    sequence of numbers single sweeps; several after commas.

    Example:
        >>> ramp = np.arange(400.0)
        >>> recording = Recording(current=np.stack([ramp, ramp, -ramp, -ramp]), dt=0.1, stimulus=["a", "a", "b", "b"])
        >>> held_out_sweeps(recording, "stimulus:b"), held_out_sweeps(recording, "repeat:1")
        (array([2, 3]), array([1, 3]))
    """
    if choice is None:
        return np.zeros(0, int)
    found = _named(recording, choice) if isinstance(choice, str) else sweep_indices(choice, recording.num_sweeps)
    if len(found := np.unique(found)) == recording.num_sweeps:
        raise ValueError(f"held_out = {choice!r}: no sweep is left to fit")
    return found


def _named(recording: Recording, choice: str) -> np.ndarray:
    kind, _, rest = choice.partition(":")
    if kind not in ("stimulus", "repeat", "sweep"):
        raise ValueError(f'held_out = {choice!r}: write "stimulus:NAME", "repeat:NUMBER" or "sweep:NUMBER"')
    own = {"stimulus": recording.stimulus or [], "sweep": [str(s) for s in range(recording.num_sweeps)]}
    if kind == "repeat":
        place = {int(s): str(n) for group in repeats(recording) for n, s in enumerate(group)}
        own["repeat"] = [place[s] for s in range(recording.num_sweeps)]
    wanted = {part.strip() for part in rest.split(",")}
    if unknown := wanted.difference(own[kind]):
        known = ", ".join(dict.fromkeys(own[kind])) or "none"
        raise ValueError(f"held_out = {choice!r}: {min(unknown)!r} is no {kind} of this recording, which has {known}")
    return np.flatnonzero([name in wanted for name in own[kind]])
