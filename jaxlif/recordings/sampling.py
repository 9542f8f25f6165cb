"""What a current was between its samples: held over each step, or on its way from one sample to the next."""

from dataclasses import replace

import numpy as np

from jaxlif.recordings.recording import Recording

COARSE = 0.5  # ms: from this dt on half a sample matters to spike times
BESIDE = 0.15  # share of the previous sample in the voltage's increments below which it has none
_SPIKE = (5.0, 40.0)  # ms left out before and after a spike: its currents are not the injected one


def is_sampled(recording: Recording, spikes: np.ndarray | None = None) -> bool:
    r"""Return whether a current was measured at the instants of the voltage, and so far apart that it counts.

    A commanded current is held over each step, and below 0.5 ms half a step makes no difference. Where the source is
    not known the voltage is asked: :math:`V_n - V_{n-1} = a + b V_{n-1} + c_0 I_n + c_1 I_{n-1}` has :math:`c_1 = 0`
    under a current that is held, as in :func:`jaxlif.simulate`; a recording without voltage is taken to be so.

    Args:
        recording: its current.
        spikes: [sweeps, T], booleans, around which the voltage says nothing.
    """
    if recording.dt < COARSE or recording.current_source == "commanded":
        return False
    if recording.current_source == "recorded":
        return True
    return recording.voltage is not None and abs(_share_before(recording, spikes)) > BESIDE


def undisturbed(spikes: np.ndarray | None, shape: tuple[int, int], dt: float) -> np.ndarray:
    """Mark the increments from one sample to the next that no spike disturbs, [sweeps, T - 1].

    Args:
        spikes: [sweeps, T], booleans, or None for none.
        shape: sweeps and T.
        dt: sampling interval, ms.
    """
    mask = np.ones((shape[0], shape[1] - 1), bool)
    if spikes is None:
        return mask
    before, after = (round(t / dt) for t in _SPIKE)
    for sweep, step in zip(*np.nonzero(spikes), strict=True):
        mask[sweep, max(0, step - before) : step + after] = False
    return mask


def _share_before(recording: Recording, spikes: np.ndarray | None) -> float:
    """Return how much of c1 / (c0 + c1) is sure; 0 where the current does not vary from sample to sample."""
    current, voltage = recording.current, recording.measured_voltage()
    usable = undisturbed(spikes, current.shape, recording.dt)
    columns = [x[usable] for x in (voltage[:, :-1], current[:, 1:], current[:, :-1])]
    design = np.stack([*columns, np.ones(int(usable.sum()))], axis=1)
    increments = np.diff(voltage, axis=1)[usable]
    found, squares, rank, _ = np.linalg.lstsq(design, increments, rcond=1e-9)
    if rank < design.shape[1] or not squares.size:
        return 0.0
    variance = squares[0] / len(increments) * np.linalg.inv(design.T @ design)[2, 2]
    sure = max(abs(found[2]) - 2.0 * float(np.sqrt(variance)), 0.0)
    return float(sure / abs(found[1] + found[2]))


def sampling_notes(recording: Recording, sampled: bool) -> tuple[str, ...]:
    """Say how a current of unknown source was understood, where that matters.

    Args:
        recording: its current.
        sampled: as what it was understood.
    """
    if recording.current_source == "recorded" or not sampled:
        return ()
    return (
        f"where the current comes from is unknown: at dt = {recording.dt:g} ms it was taken to be sampled with the"
        ' voltage, and each step receives the mean of two samples; say current_source = "commanded" if it is held',
    )


def held_current(recording: Recording, sampled: bool) -> Recording:
    r"""Return a recording whose current is the mean over each step, as a neuron's step takes it.

    A current that was sampled together with the voltage ran from one sample to the next:
    :math:`\bar I_n = (I_{n-1} + I_n) / 2`.

    Args:
        recording: its current.
        sampled: whether it was; where dt is below 0.5 ms, or the current a command, it makes no difference.

    Example:
        >>> held_current(Recording(current=np.array([[0.0, 10.0, 30.0]]), dt=1.0), sampled=True).current.tolist()
        [[0.0, 5.0, 20.0]]
    """
    if not sampled or recording.dt < COARSE or recording.current_source == "commanded":
        return recording
    before = np.concatenate([recording.current[:, :1], recording.current[:, :-1]], axis=1)
    return replace(recording, current=0.5 * (before + recording.current))
