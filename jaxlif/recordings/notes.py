"""What a recording says of itself before any fit, in one place and one order."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from jaxlif.recordings.plausibility import away_from
from jaxlif.recordings.protocol import find_epochs, is_step_protocol
from jaxlif.recordings.recording import Recording
from jaxlif.recordings.sampling import copies, is_sampled, mains_hum, resting_potentials
from jaxlif.recordings.spikes import SpikeRule, spike_notes

DRIFT = 2.0  # mV by which the rest may move from sweep to sweep before that is said
_AT_STEP = 0.3  # ms after a step of the current in which no membrane has moved far and no spike has risen
_JUMP = 3.0  # mV, a jump of the voltage that is worth a note
_NEAR_SPIKE = (5.0, 50.0)  # ms before and after a spike in which a voltage may stay at its extreme


def notes_on(
    recording: Recording,
    spikes: Bool[np.ndarray, "sweeps T"],
    rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    *,
    held: Sequence[int] | np.ndarray = (),
    compensated: Recording | None = None,
) -> tuple[str, ...]:
    """Return what is odd about a recording, one line each: its trials, its current, its spikes and its voltage.

    Args:
        recording: with a voltage or without.
        spikes: those that were found or known.
        rule: by which they were found.
        held: numbers of the sweeps that were held out of a fit.
        compensated: the recording without an electrode's drop, where that was taken off.

    Example:
        >>> current, voltage = np.zeros(1000), np.full(1000, -70.0)
        >>> current[500:] = 200.0
        >>> voltage[500:] = -60.0
        >>> notes_on(Recording(current=current, voltage=voltage, dt=0.1), np.zeros((1, 1000), bool))[-1][:54]
        'the voltage jumps by 10 mV within 0.3 ms of the steps '
    """
    return (
        *_copied(recording, np.asarray(held, int)),
        *_sampled(recording, spikes),
        *spike_notes(recording, rule),
        *(() if recording.voltage is None else _saturated(recording, spikes)),
        *(() if recording.voltage is None else _artefacts(compensated or recording, spikes)),
        *_humming(recording),
    )


def rest_notes(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]) -> tuple[str, ...]:
    """Say that the cell rests elsewhere in other sweeps, for a model that has one resting potential for all."""
    rest = resting_potentials(recording, spikes)
    if rest is None or np.ptp(rest) < DRIFT:
        return ()
    span = f"{np.ptp(rest):.2g} mV from sweep to sweep, {rest.min():.4g} to {rest.max():.4g} mV before the stimulus"
    return (f"the rest moves by {span}: one v_rest stands for all",)


def _copied(recording: Recording, held: np.ndarray) -> Iterator[str]:
    first = copies(recording)
    again = np.flatnonzero(first != np.arange(len(first)))
    if again.size:
        leaked = [s for s in held if np.setdiff1d(np.flatnonzero(first == first[s]), held).size]
        yield (
            f"{again.size} of {len(first)} sweeps have the voltage of an earlier one in every sample (sweep {again[0]}"
            f" that of {first[again[0]]}): one trial stored again, or a model without noise; each counts once"
        ) + "".join(f"; sweep {s}, held out, is the copy of one that was fitted, and no test" for s in leaked[:1])


def _sampled(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    if recording.current_source != "recorded" and is_sampled(recording, spikes):
        yield (
            f"where the current comes from is unknown: at dt = {recording.dt:g} ms it was taken to be sampled with the"
            " voltage, and each step receives the mean of two samples; say current_source = 'commanded' if it is held"
        )


def _humming(recording: Recording) -> Iterator[str]:
    """Say that a recorded current hums; a line that is a quarter of all there is, or more, is the stimulus."""
    hum = mains_hum(recording)
    if hum is not None and hum.amplitude <= 0.25 * np.ptp(recording.current):
        yield (
            f"the current has a hum of {hum.amplitude:.2g} pA at {hum.frequency:g} Hz: steps are looked for without it,"
            " unless it is more than a tenth of them, and the membrane is fitted with or without it, whichever the"
            " voltage follows; the model is run with it"
        )


def _saturated(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    """Warn of a voltage that stays exactly at its extreme away from spikes: an amplifier or a converter at its end."""
    v = recording.measured_voltage()[away_from(spikes, *_NEAR_SPIKE, recording.dt)]
    for end in (v.min(), v.max()) if v.size >= 100 and np.ptp(v) > 0 else ():
        if (share := float(np.mean(v == end))) > 0.005:
            where = f"{100.0 * share:.2g} % of the voltage away from spikes is exactly {end:.4g} mV"
            yield f"{where}: is it saturated or clipped?"


def _artefacts(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    """Say where steps of the current leave peaks that were taken for spikes, or jumps that no membrane makes.

    A spike needs longer than 0.3 ms from the step that causes it, and lasts longer. In that time a voltage that follows
    the current by 3 mV or more shows the electrode (its series resistance, or a bridge that is off) or the stimulator.
    """
    voltage, within = recording.measured_voltage(), max(1, round(_AT_STEP / recording.dt))
    if not (edges := _edges(recording)):
        return
    count = sum(_is_peak(voltage[s], spikes[s], n, within) for s, n, _ in edges)
    if count:
        yield (
            f"{count} of {int(spikes.sum())} spikes come within {_AT_STEP:g} ms of a step of the current and end as"
            " fast: they are stimulus artefacts rather than spikes; cut them out of the voltage, or give the"
            " recording's spikes"
        )
    ends = [min(n + within, recording.num_steps) - 1 for _, n, _ in edges]
    jumps = np.array([voltage[s, end] - voltage[s, n - 1] for (s, n, _), end in zip(edges, ends, strict=True)])
    if (typical := float(np.median(np.abs(jumps)))) >= _JUMP:
        resistance = float(np.median(jumps / np.array([size for _, _, size in edges])))
        yield (
            f"the voltage jumps by {typical:.3g} mV within {_AT_STEP:g} ms of the steps of the current"
            f" ({1000.0 * resistance:.3g} MΩ): an electrode's drop that was not compensated, or a stimulus artefact"
        )


def _edges(recording: Recording) -> list[tuple[int, int, float]]:
    """Return sweep, first sample and size (pA) of every step of the current that is a fifth of the largest or more."""
    epochs = find_epochs(recording) if is_step_protocol(recording) else ()
    pairs = [(a, b) for a, b in zip(epochs, epochs[1:], strict=False) if a.sweep == b.sweep and a.stop == b.start]
    edges = [(b.sweep, b.start, b.level - a.level) for a, b in pairs]
    largest = max((abs(size) for _, _, size in edges), default=0.0)
    return [edge for edge in edges if abs(edge[2]) > 0.2 * largest]


def _is_peak(voltage: np.ndarray, spikes: np.ndarray, first: int, within: int) -> bool:
    part = voltage[first : first + 3 * within]
    above = part >= 0.5 * (part[:within].max() + voltage[first - 1])  # half of its height
    return bool(0 < above.sum() <= within and spikes[first : first + within].any())
