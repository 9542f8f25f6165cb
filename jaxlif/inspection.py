"""What is in a recording, before any fit, and what a fit would do with it."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlif.fitting.notes import saturated
from jaxlif.fitting.recordings import checked_spikes
from jaxlif.fitting.step_protocol import has_fi_curve, no_fi_curve, protocol_notes
from jaxlif.recordings import (
    Recording,
    RecordingWarning,
    SpikeRule,
    artefact_notes,
    copy_notes,
    fi_table,
    hum_notes,
    is_sampled,
    is_step_protocol,
    quiet_voltage,
    read_recording,
    repeats,
    sampling_notes,
    spike_notes,
    steps,
    without_padding,
)
from jaxlif.recordings.readers import channels_of

LEAST_REST = 10.0  # ms of a constant current at the start of a sweep


class SweepContents(NamedTuple):
    """One sweep: its current in words, the command beside a recorded one, its rest in mV or NaN, and its spikes.

    Where the sweep starts at a constant current, the rest is the voltage there, whatever that current is.
    """

    sweep: int
    current: str
    command: str
    rest: float
    spikes: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_recording` found.

    Args:
        name: of the recording.
        facts: what is in it, as pairs of a label and a text.
        sweeps: the sweeps, where it could be read.
        notes: what is odd, one line each.
        verdict: what a fit would do with it.
        recording: as read, or None.
        spikes: [sweeps, T], booleans, or None.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    sweeps: tuple[SweepContents, ...]
    notes: tuple[str, ...]
    verdict: str
    recording: Recording | None = None
    spikes: np.ndarray | None = None

    def rows(self) -> list[tuple[str, ...]]:
        """Return the sweeps as rows of text, the header first; columns of which nothing is known are left out."""
        texts = [
            (str(s.sweep), s.current, s.command, "" if np.isnan(s.rest) else f"{s.rest:.2f}", str(s.spikes))
            for s in self.sweeps
        ]
        table = [("sweep", "current (pA)", "command (pA)", "rest (mV)", "spikes"), *texts]
        known = [n for n in range(len(table[0])) if any(row[n] for row in texts)]
        return [tuple(row[n] for n in known) for row in table]


def inspect_recording(
    source: Recording | str | Path,
    *,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    **reading: Any,
) -> Inspection:
    """Say what is in a recording: channels, levels, rest and its drift, spikes; and what a fit would do with it.

    A file that cannot be fitted is inspected too: that it is voltage clamp, or why it is refused, is in the verdict.

    Args:
        source: a recording or a file.
        spike_rule: what counts as a spike.
        **reading: arguments of :func:`jaxlif.read_recording`, for a file.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for a file that is damaged or of an unknown format.
        ImportError: for a format whose library is not installed.

    Example:
        >>> import jaxlif as jl
        >>> current = np.repeat([[0.0, 50.0, 0.0], [0.0, 100.0, 0.0]], 1000, axis=1)
        >>> found = inspect_recording(Recording(current=current, voltage=-70.0 + 0.1 * current, dt=0.5))
        >>> found.rows()[1:]
        [('0', '0, 50, 0', '-70.00', '0'), ('1', '0, 100, 0', '-70.00', '0')]
        >>> dict(found.facts)["rest"]
        '-70.00 mV before the current changes, in all sweeps within 0.00 mV'
    """
    if isinstance(source, Recording):
        return _inspected(source, spike_rule, (), None, ())
    path = Path(source)
    channels = channels_of(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordingWarning)
        try:
            recording = read_recording(path, **reading)
        except ValueError as error:
            if not channels:
                raise
            refusal = str(error).removeprefix(f"{path.name}: ")
            return Inspection(path.name, (("channels", ", ".join(channels)),), (), (), f"refused: {refusal}")
    notes = tuple(dict.fromkeys(str(w.message) for w in caught))
    return _inspected(recording, spike_rule, notes, _command(path, recording, reading), channels)


def _command(path: Path, recording: Recording, reading: dict[str, Any]) -> Recording | None:
    """Return the commanded current beside a recorded one, where the file holds both."""
    if recording.current_source != "recorded" or path.suffix.lower() not in (".abf", ".nwb"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        try:
            command = read_recording(path, **reading | {"current": "commanded"})
        except ValueError:
            return None  # it holds none: there is nothing to compare
    return command if command.current.shape == recording.current.shape else None


def _inspected(
    recording: Recording, rule: SpikeRule, notes: tuple[str, ...], command: Recording | None, channels: tuple[str, ...]
) -> Inspection:
    known = recording.voltage is not None or recording.spikes is not None
    spikes = rule.find(recording) if known else np.zeros(recording.current.shape, bool)
    rest = _rests(recording, spikes)
    currents = _in_words(recording)
    commands = [""] * recording.num_sweeps if command is None else _in_words(command)
    rows = zip(range(recording.num_sweeps), currents, commands, rest, spikes.sum(axis=1), strict=True)
    return Inspection(
        recording.name,
        (("channels", ", ".join(channels)),) * bool(channels) + _facts(recording, spikes, rest),
        tuple(SweepContents(n, text, asked, float(mv), int(count)) for n, text, asked, mv, count in rows),
        notes + (_notes(recording, spikes, rule) if recording.voltage is not None else ()),
        _verdict(recording, rule),
        recording,
        spikes if known else None,
    )


def _rests(recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Return the voltage at the start of each sweep, before its current changes, or NaN: also where it fires there."""
    if recording.voltage is None:
        return np.full(recording.num_sweeps, np.nan)
    if not is_step_protocol(recording):
        return quiet_voltage(recording, spikes)
    rest = np.full(recording.num_sweeps, np.nan)
    for epoch in steps(recording, min_duration=LEAST_REST):
        if epoch.start == 0 and not spikes[epoch.sweep, : epoch.stop].any():
            rest[epoch.sweep] = np.median(recording.voltage[epoch.sweep, epoch.stop // 2 : epoch.stop])
    return rest


def _in_words(recording: Recording) -> list[str]:
    """Return for each sweep the levels of its epochs in order, or mean and SD of what has none."""
    if not is_step_protocol(recording):
        return [f"mean {np.mean(sweep):.4g}, SD {np.std(sweep):.3g}" for sweep in recording.current]
    levels: list[list[str]] = [[] for _ in range(recording.num_sweeps)]
    for epoch in steps(recording):
        levels[epoch.sweep].append(f"{round(epoch.level, 1) + 0.0:g}")  # 0 and not -0
    return [", ".join(found) for found in levels]


def _facts(recording: Recording, spikes: np.ndarray, rest: np.ndarray) -> tuple[tuple[str, str], ...]:
    kinds = {True: "steps", False: "no steps"}[is_step_protocol(recording)]
    facts = {
        "clamp": f"current clamp, the current {recording.current_source}",
        "sweeps": f"{recording.num_sweeps} of {recording.duration:g} ms, sampled every {recording.dt:g} ms",
        "current": f"{_range(recording.current)} pA, {kinds}, {_groups(recording)}",
    }
    if recording.corrections:
        facts["corrections"] = ", ".join(f"{name} = {value}" for name, value in recording.corrections.items())
    if recording.voltage is None:
        return (*facts.items(), ("voltage", "none: a stimulus without a response"))
    facts["voltage"] = f"{_range(recording.voltage)} mV, half of the time above {np.median(recording.voltage):.4g} mV"
    facts["rest"] = _rest(rest)
    rate = 1000.0 * spikes.sum(axis=1) / recording.duration
    facts["spikes"] = f"{int(spikes.sum())}, {rate.mean():.3g} Hz, in a sweep {rate.min():.3g} to {rate.max():.3g} Hz"
    return tuple(facts.items())


def _range(x: np.ndarray) -> str:
    return f"{x.min():.4g} to {x.max():.4g}"


def _groups(recording: Recording) -> str:
    sizes = [len(group) for group in repeats(recording)]
    if len(sizes) == recording.num_sweeps:
        return "each sweep another" if len(sizes) > 1 else "one stimulus"
    times = " to ".join(str(n) for n in sorted({min(sizes), max(sizes)}))
    return f"{len(sizes)} {'stimuli' if len(sizes) > 1 else 'stimulus'}, repeated {times} times"


def _rest(rest: np.ndarray) -> str:
    known = rest[np.isfinite(rest)]
    if not known.size:
        return "not known: no sweep starts with a constant current under which the cell is silent"
    where = "all" if known.size == rest.size else str(known.size)
    text = f"{np.median(known):.2f} mV before the current changes, in {where} sweeps"
    if known.size < 3:
        return f"{text} within {np.ptp(known):.2f} mV"
    drift = float(np.polyfit(np.linspace(0.0, 1.0, rest.size)[np.isfinite(rest)], known, 1)[0])
    return f"{text} within {np.ptp(known):.2f} mV, of which {drift:+.2f} mV are a drift from the first to the last"


def _notes(recording: Recording, spikes: np.ndarray, rule: SpikeRule) -> tuple[str, ...]:
    return (
        sampling_notes(recording, is_sampled(recording, spikes))
        + spike_notes(recording, rule)
        + saturated(recording, spikes)
        + artefact_notes(recording, spikes)
        + hum_notes(recording)
        + copy_notes(recording, np.zeros(0, int))
    )


def _verdict(recording: Recording, rule: SpikeRule) -> str:
    """Say what the fit of a plain neuron would do, by the rules it has itself."""
    try:
        recording, padded = without_padding(recording)
        spikes = checked_spikes(recording, rule)
    except ValueError as error:
        return f"refused: {error}"
    if has_fi_curve(recording, spikes):
        table = fi_table(recording, spikes)
        curve = (
            f"steps: the membrane from the smallest steps without a spike, the rest from an f-I curve of"
            f" {len(table.currents)} levels, {table.currents.min():.4g} to {table.currents.max():.4g} pA, counted from"
            f" {table.start:g} to {table.stop:g} ms"
        )
        return "; ".join((curve, *padded, *protocol_notes(recording, spikes)))
    why = "; ".join(padded + (no_fi_curve(recording, spikes) or ("the current is not made of steps",)))
    return f"like a fluctuating current, by the voltage between spikes and their times ({why})"
