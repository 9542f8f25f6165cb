"""What a stimulator leaves in a voltage: jumps at the steps of the current, and peaks that are no spikes."""

import numpy as np

from jaxlif.recordings.protocol import is_step_protocol, steps
from jaxlif.recordings.recording import Recording

_AT_STEP = 0.3  # ms after a step of the current in which no membrane has moved far and no spike has risen
_JUMP = 3.0  # mV, a jump of the voltage that is worth a note


def artefact_notes(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say where steps of the current leave peaks that were taken for spikes, or jumps that no membrane makes.

    A spike needs longer than 0.3 ms from the step that causes it, and lasts longer. In that time a voltage that follows
    the current by 3 mV or more shows the electrode (its series resistance, or a bridge that is off) or the stimulator.

    Args:
        recording: current and voltage, after what an electrode added was taken off.
        spikes: spike raster [sweeps, T], booleans.

    Returns:
        Notes, one line each; none where the current has no steps.

    Example:
        >>> current, voltage = np.zeros(1000), np.full(1000, -70.0)
        >>> current[500:] = 200.0
        >>> voltage[500:] = -60.0
        >>> artefact_notes(Recording(current=current, voltage=voltage, dt=0.1), np.zeros((1, 1000), bool))[0][:54]
        'the voltage jumps by 10 mV within 0.3 ms of the steps '
    """
    edges = _edges(recording) if is_step_protocol(recording) else []
    if not edges:
        return ()
    within = max(1, round(_AT_STEP / recording.dt))
    return _peaks(recording, spikes, edges, within) + _jumps(recording, edges, within)


def _edges(recording: Recording) -> list[tuple[int, int, float]]:
    """Return sweep, first sample and size (pA) of every step of the current that is a fifth of the largest or more."""
    epochs = steps(recording)
    pairs = [(a, b) for a, b in zip(epochs, epochs[1:], strict=False) if a.sweep == b.sweep and a.stop == b.start]
    edges = [(b.sweep, b.start, b.level - a.level) for a, b in pairs]
    largest = max((abs(size) for _, _, size in edges), default=0.0)
    return [edge for edge in edges if abs(edge[2]) > 0.2 * largest]


def _peaks(
    recording: Recording, spikes: np.ndarray, edges: list[tuple[int, int, float]], within: int
) -> tuple[str, ...]:
    voltage = recording.measured_voltage()
    count = 0
    for sweep, first, _ in edges:
        part = voltage[sweep, first : first + 3 * within]
        above = part >= 0.5 * (part[:within].max() + voltage[sweep, first - 1])  # half of its height
        narrow = 0 < above.sum() <= within
        count += int(narrow and spikes[sweep, first : first + within].any())
    if not count:
        return ()
    return (
        f"{count} of {int(spikes.sum())} spikes come within {_AT_STEP:g} ms of a step of the current and end as fast:"
        " they are stimulus artefacts rather than spikes; cut them out of the voltage, or give the recording's spikes",
    )


def _jumps(recording: Recording, edges: list[tuple[int, int, float]], within: int) -> tuple[str, ...]:
    voltage = recording.measured_voltage()
    last = recording.num_steps - 1
    jumps = np.array([voltage[s, min(n + within - 1, last)] - voltage[s, n - 1] for s, n, _ in edges])
    typical = float(np.median(np.abs(jumps)))
    if typical < _JUMP:
        return ()
    resistance = float(np.median(jumps / np.array([size for _, _, size in edges])))
    return (
        f"the voltage jumps by {typical:.3g} mV within {_AT_STEP:g} ms of the steps of the current"
        f" ({1000.0 * resistance:.3g} MΩ): an electrode's drop that was not compensated, or a stimulus artefact",
    )
