"""Where the spikes of a recorded voltage are."""

import numpy as np


def detect_spikes(
    voltage: np.ndarray,
    dt: float,
    *,
    method: str = "level",
    threshold: float = 0.0,
    slope: float = 20.0,
    dead_time: float = 2.0,
    peak_within: float = 2.0,
) -> np.ndarray:
    r"""Mark the spikes of a voltage trace.

    "level" marks the first sample at or above ``threshold``: :math:`v_{n-1} < \theta \le v_n`. A trace that starts
    above it has no spike there. "dvdt" marks the first sample at which
    :math:`(v_n - v_{n-1}) / dt` reaches ``slope``, the foot of the spike, provided that the voltage reaches
    ``threshold`` within ``peak_within`` of it. A spike less than ``dead_time`` after the last one is not counted.

    Args:
        voltage: membrane potential, [T] or [sweeps, T], mV.
        dt: sampling interval, ms.
        method: "level" or "dvdt".
        threshold: the voltage that a spike reaches, mV.
        slope: the rate of rise that a spike's foot reaches, mV/ms.
        dead_time: least time between two spikes, ms.
        peak_within: time in which a spike reaches ``threshold`` after its foot, ms; used by "dvdt" only.

    Returns:
        A boolean raster of the shape of ``voltage``.

    Raises:
        ValueError: for another method or shape, values that are not finite, a dt that is not positive, or a negative
            time.

    Example:
        >>> detect_spikes(np.array([-60.0, -20.0, 30.0, -70.0, -60.0]), 1.0).astype(int)
        array([0, 0, 1, 0, 0])
        >>> detect_spikes(np.array([-60.0, -20.0, 30.0, -70.0, -60.0]), 1.0, method="dvdt").astype(int)
        array([0, 1, 0, 0, 0])

    Source: 20 mV/ms is the default slope (``dv_cutoff``) of the Allen Institute's ipfx.
    """
    voltage = np.asarray(voltage, np.float64)
    _check(voltage, dt, dead_time=dead_time, peak_within=peak_within)
    if method == "level":
        candidates = _upward_crossings(voltage, threshold)
    elif method == "dvdt":
        rise = np.diff(voltage, axis=-1, prepend=voltage[..., :1]) / dt
        candidates = _upward_crossings(rise, slope)
        candidates &= _reached_within(voltage, threshold, _steps(peak_within, dt))
    else:
        raise ValueError(f'method = {method!r}: it must be "level" or "dvdt"')
    return _separate(candidates, _steps(dead_time, dt))


def _check(voltage: np.ndarray, dt: float, **times: float) -> None:
    if voltage.ndim not in (1, 2):
        raise ValueError(f"voltage has shape {voltage.shape}: [T] or [sweeps, T] is expected")
    if not np.isfinite(voltage).all():
        raise ValueError(f"voltage has {int((~np.isfinite(voltage)).sum())} values that are not finite")
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"dt = {dt} ms: dt must be greater than 0 ms")
    for name, value in times.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value} ms: {name} must be 0 ms or more")


def _steps(time: float, dt: float) -> int:
    return int(np.ceil(time / dt * (1.0 - 1e-6)))


def _upward_crossings(x: np.ndarray, level: float) -> np.ndarray:
    crossings = np.zeros(x.shape, bool)
    crossings[..., 1:] = (x[..., 1:] >= level) & (x[..., :-1] < level)
    return crossings


def _reached_within(voltage: np.ndarray, level: float, steps: int) -> np.ndarray:
    """Say for every sample whether the voltage reaches ``level`` at it or in the next ``steps`` samples."""
    above = np.cumsum(voltage >= level, axis=-1)
    last = np.minimum(np.arange(voltage.shape[-1]) + steps, voltage.shape[-1] - 1)
    return above[..., last] - above + (voltage >= level) > 0


def _separate(candidates: np.ndarray, steps: int) -> np.ndarray:
    """Keep of every sweep the first spike, and each that comes at least ``steps`` after the last one kept."""
    spikes = np.zeros(candidates.shape, bool)
    for kept, sweep in zip(np.atleast_2d(spikes), np.atleast_2d(candidates), strict=True):
        previous = -steps
        for sample in np.flatnonzero(sweep).tolist():
            if sample - previous >= steps:
                kept[sample] = True
                previous = sample
    return spikes
