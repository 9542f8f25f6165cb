"""Where a cell rests: its voltage before the stimulus begins."""

import numpy as np

from jaxlif.recordings.recording import Recording

DRIFT = 2.0  # mV by which the rest may move from sweep to sweep before that is said
QUIET = 0.05  # share of the largest current up to which its mean counts as none
MEAN = 10.0  # ms over which that mean is taken: measured currents are noisy
SETTLED = 100.0  # ms of no current that a resting potential is taken from, at least
LEFT_OUT = 0.5  # share of the quiet stretch that is given to what came before it


def resting_potentials(recording: Recording, spikes: np.ndarray) -> np.ndarray | None:
    """Return the resting potential of each sweep: the mean voltage at the end of its quiet start.

    A sweep's quiet start ends where the mean over 10 ms exceeds 5 % of the recording's largest current; its first half
    is left to what came before it.

    Args:
        recording: current and voltage.
        spikes: [sweeps, T], booleans.

    Returns:
        [sweeps], mV; None where some sweep has less than 100 ms without current at its start, or a spike there.

    Example:
        >>> current = np.concatenate([np.zeros((1, 2000)), np.full((1, 2000), 100.0)], axis=1)
        >>> recording = Recording(current=current, voltage=np.full(current.shape, -63.0), dt=0.1)
        >>> resting_potentials(recording, np.zeros(current.shape, bool))
        array([-63.])
    """
    rest = quiet_voltage(recording, spikes)
    return None if np.isnan(rest).any() else rest


def quiet_voltage(recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Return the resting potential of each sweep as :func:`resting_potentials` does, NaN where it is not known.

    Args:
        recording: current and voltage.
        spikes: [sweeps, T], booleans.
    """
    length = min(max(1, round(MEAN / recording.dt)), recording.num_steps)
    total = np.cumsum(np.pad(recording.current, ((0, 0), (1, 0))), axis=1)
    means = np.abs(total[:, length:] - total[:, :-length]) / length
    loud = means > QUIET * np.abs(recording.current).max()
    # The first mean that is loud has its loud samples at its end.
    ends = np.where(loud.any(axis=1), loud.argmax(axis=1), recording.num_steps)
    known = [end >= SETTLED / recording.dt and not train[:end].any() for train, end in zip(spikes, ends, strict=True)]
    rows = zip(recording.measured_voltage(), ends, known, strict=True)
    return np.array([voltage[int(LEFT_OUT * end) : end].mean() if calm else np.nan for voltage, end, calm in rows])


def rest_notes(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say that the cell rests elsewhere in other sweeps, for a model that has one resting potential for all.

    Args:
        recording: current and voltage.
        spikes: [sweeps, T], booleans.
    """
    rest = resting_potentials(recording, spikes)
    if rest is None or np.ptp(rest) < DRIFT:
        return ()
    return (
        f"the rest moves by {np.ptp(rest):.2g} mV from sweep to sweep, {rest.min():.4g} to {rest.max():.4g} mV before"
        " the stimulus: one v_rest stands for all",
    )
