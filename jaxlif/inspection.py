"""What is in a recording, before any fit, and what a fit would do with it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxlif.features import Features, recording_features
from jaxlif.fitting.prepare import checked_spikes
from jaxlif.fitting.step_family import has_fi_curve, no_fi_curve, protocol_notes
from jaxlif.recordings import Recording, SpikeRule, read_recording, repeats
from jaxlif.recordings.notes import notes_on, without_padding
from jaxlif.recordings.protocol import fi_table, find_epochs, is_step_protocol
from jaxlif.recordings.read import channels_of


class Inspection(NamedTuple):
    """What :func:`inspect_recording` found: by label what is in it, what a fit would do with it, and what is odd.

    ``sweeps`` are rows of texts, the header first. What could not be read has neither these nor arrays.
    """

    facts: dict[str, str]
    verdict: str
    notes: tuple[str, ...] = ()
    sweeps: tuple[tuple[str, ...], ...] = ()
    recording: Recording | None = None
    spikes: Bool[np.ndarray, "sweeps T"] | None = None


def inspect_recording(
    source: Recording | str | Path,
    *,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    **reading: Any,
) -> Inspection:
    """Say what is in a recording: channels, levels, rest and its drift, spikes; and what a fit would do with it.

    A file is read with the arguments of :func:`jaxlif.read_recording`. One that cannot be fitted is inspected too: that
    it is voltage clamp, or why it is refused, is in the verdict.

    Example:
        >>> current = np.repeat([[0.0, 50.0, 0.0], [0.0, 100.0, 0.0]], 1000, axis=1)
        >>> found = inspect_recording(Recording(current=current, voltage=-70.0 + 0.1 * current, dt=0.5))
        >>> found.sweeps[1:]
        (('0', '0, 50, 0', '-70.00', '0'), ('1', '0, 100, 0', '-70.00', '0'))
    """
    if isinstance(source, Recording):
        return _inspected(source, spike_rule, {})
    channels = channels_of(Path(source))
    named = {"channels": ", ".join(channels)} if channels else {}
    try:
        recording = read_recording(source, **reading)
    except ValueError as error:
        if not channels:
            raise
        return Inspection(named, f"refused: {str(error).removeprefix(f'{Path(source).name}: ')}")
    return _inspected(recording, spike_rule, named)


def _inspected(recording: Recording, rule: SpikeRule, channels: dict[str, str]) -> Inspection:
    known, rule = recording.voltage is not None or recording.spikes is not None, rule.found_in(recording)
    spikes = rule.find(recording) if known else np.zeros(recording.current.shape, bool)
    measured = recording_features(recording, spike_rule=rule) if known else None
    rest = np.array([np.nan if s.baseline is None else s.baseline for s in measured.sweeps] if measured else [])
    columns: dict[str, Any] = {"sweep": range(recording.num_sweeps), "current (pA)": _in_words(recording)}
    if np.isfinite(rest).any():
        columns["rest (mV)"] = ["" if np.isnan(mv) else f"{mv:.2f}" for mv in rest]
    columns["spikes"] = spikes.sum(axis=1)
    rows = (tuple(columns), *(tuple(map(str, row)) for row in zip(*columns.values(), strict=True)))
    notes = notes_on(recording, spikes, rule)
    facts = channels | _facts(recording, spikes, _rest(rest, measured))
    if measured is not None:
        facts |= measured.lines()
    if recording.voltage is not None and recording.spikes is None:
        facts["spikes"] += f"; each {rule.in_words()}"
    return Inspection(facts, _verdict(recording, rule), notes, rows, recording, spikes if known else None)


def _in_words(recording: Recording) -> list[str]:
    """Return for each sweep the levels of its epochs in order, or mean and SD of what has none."""
    if not is_step_protocol(recording):
        return [f"mean {np.mean(sweep):.4g}, SD {np.std(sweep):.3g}" for sweep in recording.current]
    levels: list[list[str]] = [[] for _ in range(recording.num_sweeps)]
    for epoch in find_epochs(recording):
        levels[epoch.sweep].append(f"{round(epoch.level, 1) + 0.0:g}")  # 0 and not -0
    return [", ".join(found) for found in levels]


def _facts(recording: Recording, spikes: np.ndarray, rest: str) -> dict[str, str]:
    current, kind = recording.current, "steps" if is_step_protocol(recording) else "no steps"
    different = len(repeats(recording))
    facts = {
        "clamp": f"current clamp, the current {recording.current_source}",
        "sweeps": f"{recording.num_sweeps} of {recording.duration:g} ms, sampled every {recording.dt:g} ms",
        "current": f"{current.min():.4g} to {current.max():.4g} pA, {kind}, {different} different",
    }
    if recording.corrections:
        facts["corrections"] = ", ".join(f"{name} = {value}" for name, value in recording.corrections.items())
    v, rate = recording.voltage, 1000.0 * spikes.sum(axis=1) / recording.duration
    if v is None:
        return facts | {"voltage": "none: a stimulus without a response"}
    return facts | {
        "voltage": f"{v.min():.4g} to {v.max():.4g} mV, half of the time above {np.median(v):.4g} mV",
        "rest": rest,
        "spikes": f"{int(spikes.sum())}, {rate.mean():.3g} Hz, in a sweep {np.min(rate):.3g} to {np.max(rate):.3g} Hz",
    }


def _rest(rest: np.ndarray, measured: Features | None) -> str:
    known = np.flatnonzero(np.isfinite(rest))
    if not known.size:
        return "not known: no sweep starts with a constant current under which the cell is silent"
    mv = rest[known]
    text = f"{np.median(mv):.2f} mV before the current changes, in {known.size} sweeps within {np.ptp(mv):.2f} mV"
    if measured and measured.cell["rest"] is None:
        text += ", under a holding current, which moves it"
    if known.size < 3:
        return text
    drift = (rest.size - 1) * np.polyfit(known, mv, 1)[0]
    return f"{text}, of which {drift:+.2f} mV are a drift from the first to the last"


def _verdict(recording: Recording, rule: SpikeRule) -> str:
    """Say what the fit of a plain neuron would do, by the rules it has itself."""
    try:
        recording, padded = without_padding(recording)
        spikes = checked_spikes(recording, rule)
    except ValueError as error:
        return f"refused: {error}"
    if not has_fi_curve(recording, spikes):
        why = "; ".join(padded + (no_fi_curve(recording, spikes) or ("the current is not made of steps",)))
        return f"like a fluctuating current, by the voltage between spikes and their times ({why})"
    table = fi_table(recording, spikes)
    levels = f"{len(table.currents)} levels, {table.currents.min():.4g} to {table.currents.max():.4g} pA"
    curve = "steps: the membrane from what is below threshold, the rest from spikes at"
    counted = f"{curve} {levels}, counted from {table.start:g} to {table.stop:g} ms"
    return "; ".join((counted, *padded, *protocol_notes(recording, spikes)))
