"""What a voltage shows without a model: of the membrane by steps that evoke no spike, and of a spike by its shape."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxlif.fitting.step_family import baselines_before, steady_voltage
from jaxlif.recordings import Recording
from jaxlif.recordings.protocol import step_family

LINEAR = 15.0  # mV of deflection up to which a membrane counts as linear
SAG = 5.0  # mV of deflection from which a sag is more than noise
SAG_AT = -100.0  # mV: IPFX takes the sweep whose trough is nearest to it
AVERAGED = 5.0  # ms about the trough of a sag, as in IPFX
SIGNAL = 20.0  # times the noise that deflections must be for a time constant, as in IPFX
SETTLED = 5.0  # times the time to 63 % of the deflection in which an exponential is over
ONSET = 10.0  # mV/ms at which a spike starts
FINE = 0.25  # ms: the coarsest sampling at which an upstroke has samples enough
_SLOPE = 0.1  # ms on either side over which dV/dt is taken
_PEAK = 5.0  # ms after the mark within which the peak comes
_BEFORE = 10.0  # ms before the mark within which a spike starts
_STEEPEST = 1.0  # ms before the mark, and up to the peak, within which the upstroke is steepest


class SilentStep(NamedTuple):
    """A silent step: its voltage mV, its baseline mV, its size pA, and how far it deflects in the end, mV."""

    voltage: np.ndarray
    baseline: float
    size: float
    deflection: float


def silent_steps(recording: Recording, spikes: np.ndarray) -> list[SilentStep]:
    """Return the steps without a spike that no block can have silenced; a second one where nothing fired before it."""
    tests, others = step_family(recording)
    fires = [bool(spikes[e.sweep, e.start : e.stop].any()) for e in tests]
    ceiling = min((e.level for e, fired in zip(tests, fires, strict=True) if fired), default=np.inf)
    epochs = [e for e, fired in zip(tests, fires, strict=True) if not fired]
    epochs += [e for e in others if not spikes[e.sweep, : e.stop].any()]
    epochs = [e for e in epochs if e.level < ceiling]
    found = []
    for epoch, baseline, holding in zip(epochs, *baselines_before(recording, spikes, epochs), strict=True):
        voltage = recording.measured_voltage()[epoch.sweep, epoch.start : epoch.stop]
        deflection = steady_voltage(recording, epoch) - float(baseline)
        found.append(SilentStep(voltage, float(baseline), float(epoch.level - holding), deflection))
    largest = max((abs(step.size) for step in found), default=0.0)
    return [step for step in found if np.isfinite(step.deflection) and abs(step.size) > 0.05 * largest]


def linear_steps(steps: list[SilentStep]) -> list[SilentStep]:
    """Return the steps that deflect by 15 mV at most, hyperpolarising ones where there are any; else the smallest."""
    steps = [step for step in steps if step.size < 0.0] or steps
    small = [step for step in steps if abs(step.deflection) <= LINEAR]
    return small or [min(steps, key=lambda step: abs(step.deflection))]


def sag(steps: list[SilentStep], dt: float) -> float | None:
    """Return the sag of the hyperpolarising step whose trough is nearest to -100 mV, None where none is deep enough."""
    half, found = max(0, round(0.5 * AVERAGED / dt)), []
    for step in (step for step in steps if step.size < 0.0):
        lowest = int(np.argmin(step.voltage))
        trough = float(step.voltage[max(0, lowest - half) : lowest + half + 1].mean())
        if (depth := step.baseline - trough) >= SAG:
            found.append((abs(trough - SAG_AT), (depth + step.deflection) / depth))
    return min(found)[1] if found else None


def input_resistance(steps: list[SilentStep]) -> tuple[float, float]:
    """Return the deflection over the step, GΩ, the median weighted by size, and its standard error.

    That of one or two steps is what the voltage wanders by in the end of the larger one.
    """
    sizes, deflections = np.array([(step.size, step.deflection) for step in steps]).T
    slope = float(_weighted_median(deflections / sizes, np.abs(sizes)))
    if len(steps) < 3:
        largest = max(steps, key=lambda step: abs(step.size))
        return slope, float(np.std(largest.voltage[-max(2, len(largest.voltage) // 10) :])) / abs(largest.size)
    scatter = deflections - slope * sizes
    return slope, float(np.sqrt(scatter @ scatter / (len(steps) - 1) / (sizes @ sizes)))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the median over the first axis: of d / s, weighted by s, the slope of least absolute deviations."""
    order = np.argsort(values, axis=0)
    below = np.cumsum(weights[order], axis=0)
    middle = np.argmax(below >= 0.5 * below[-1] * (1.0 - 1e-9), axis=0)
    return np.asarray(np.take_along_axis(values, np.take_along_axis(order, middle[None], 0), 0)[0])


def response(steps: list[SilentStep]) -> np.ndarray:
    """Return the response per pA, GΩ, in which neither what comes by itself in some steps shows nor a drift."""
    longest = max(len(step.voltage) for step in steps)
    steps = [step for step in steps if 2 * len(step.voltage) >= longest]
    length, sizes = min(len(step.voltage) for step in steps), np.array([step.size for step in steps])
    moved = np.stack([step.voltage[:length] - step.baseline for step in steps])
    return _weighted_median(moved / sizes[:, None], np.abs(sizes))


def exponential(response: np.ndarray, dt: float) -> tuple[float, float] | None:
    r"""Fit :math:`b - r e^{-t/\tau}` from 10 % of the peak to the peak, and return tau and r; None where unclear.

    For a time constant b and r are linear and solved for. What comes at once, as an electrode's drop, is in b alone.
    """
    from scipy.optimize import minimize_scalar  # takes half a second to load

    end, top = float(response[-max(1, len(response) // 10) :].mean()), int(np.argmax(response))
    first = int(np.argmax(response >= 0.1 * response[top]))
    # A voltage that wanders has its peak anywhere: five time constants are enough.
    last = min(top, round(SETTLED * int(np.argmax(response >= (1.0 - np.exp(-1.0)) * end))))
    if last - first < 10 or end <= 0.0:
        return None
    rise, times = response[first : last + 1], dt * np.arange(first + 1, last + 2)
    y = rise - rise.mean()

    def _solved(tau: float) -> tuple[float, float]:
        x = -np.exp(-times / tau)
        x -= x.mean()
        r = float(x @ y / (x @ x))
        return float(np.mean((y - r * x) ** 2)), r

    grid = np.geomspace(2.0 * dt, dt * len(rise), 40)
    best = int(np.argmin([_solved(tau)[0] for tau in grid]))
    if not 0 < best < len(grid) - 1:
        return None
    bracket = np.log(grid[best - 1]), np.log(grid[best + 1])
    tau = float(np.exp(minimize_scalar(lambda x: _solved(np.exp(x))[0], bounds=bracket, method="bounded").x))
    error, r = _solved(tau)
    return (tau, r) if r > SIGNAL * np.sqrt(error) else None


# --- spikes -----------------------------------------------------------------------------------------------


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
