"""The shape of a spike: where it starts, how high and how wide it is, and how deep the voltage falls after it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ONSET = 10.0  # mV/ms at which a spike starts
FINE = 0.25  # ms: the coarsest sampling at which an upstroke has samples enough
_SLOPE = 0.1  # ms on either side over which dV/dt is taken
_PEAK = 5.0  # ms after the mark within which the peak comes
_BEFORE = 10.0  # ms before the mark within which a spike starts
_STEEPEST = 1.0  # ms before the mark, and up to the peak, within which the upstroke is steepest


class SpikeShape(NamedTuple):
    """Onset threshold, peak and trough, mV, and width at half height, ms; None where the trace does not show it."""

    threshold: float | None
    peak: float
    trough: float
    width: float | None


def spike_shape(voltage: Float[np.ndarray, " T"], dt: float, mark: int, stop: int) -> SpikeShape:
    """Measure a spike by its mark, a sample of its upstroke, and the sample ``stop`` at which the next begins.

    The threshold is the voltage at which dV/dt, over 0.1 ms on either side, last rises through 10 mV/ms before its
    largest value (eFEL's ``AP_begin_voltage``); the width is that at half of the way from there to the peak
    (``AP_duration_half_width``); the trough is the lowest voltage after the peak (``min_between_peaks_values``).

    Example:
        >>> v = np.interp(np.arange(0.0, 20.0, 0.1), [0, 10, 10.5, 11.5, 20], [-60.0, -50, 30, -70, -60])
        >>> [round(x, 2) for x in spike_shape(v, 0.1, 105, 200)]
        [-50.09, 30.0, -70.0, 0.65]

    Source: the feature descriptions of eFEL, doi:10.5281/zenodo.593869.
    """
    begin = max(0, mark - round(_BEFORE / dt))
    voltage, mark = voltage[begin:stop], mark - begin
    peak = mark + int(np.argmax(voltage[mark : mark + 1 + round(_PEAK / dt)]))
    top, trough = float(voltage[peak]), float(voltage[peak:].min())
    threshold = _onset(voltage, dt, mark, peak) if dt <= FINE else None
    width = None if threshold is None else _width(voltage, peak, 0.5 * (threshold + top))
    return SpikeShape(threshold, top, trough, None if width is None else width * dt)


def _onset(v: np.ndarray, dt: float, mark: int, peak: int) -> float | None:
    reach = max(1, round(_SLOPE / dt))
    later = v[2 * reach : peak + reach + 1]
    slope = (later - v[: later.size]) / (2 * reach * dt)
    # slope[n] belongs to sample n + reach.
    early = max(0, mark - round(_STEEPEST / dt) - reach)
    if not slope[early:].size:
        return None
    steepest = early + int(np.argmax(slope[early:]))
    slow = np.flatnonzero(slope[:steepest] < ONSET)
    if slope[steepest] < ONSET or not slow.size:
        return None
    n = int(slow[-1])
    share = (ONSET - slope[n]) / (slope[n + 1] - slope[n])
    return float(v[n + reach] + share * (v[n + reach + 1] - v[n + reach]))


def _width(v: np.ndarray, peak: int, level: float) -> float | None:
    """Return the samples between the crossings of a level on either side of a peak."""
    before, after = np.flatnonzero(v[:peak] < level), np.flatnonzero(v[peak:] < level)
    if not (before.size and after.size):
        return None
    left, right = int(before[-1]), peak + int(after[0])
    rise = left + (level - v[left]) / (v[left + 1] - v[left])
    return float(right - (level - v[right]) / (v[right - 1] - v[right]) - rise)
