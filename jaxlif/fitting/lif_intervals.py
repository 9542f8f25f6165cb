"""95 % intervals for the parameters of a plain neuron from its forced voltage."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.intervals import UNKNOWN, Estimate, sandwich
from jaxlif.fitting.membrane import SOLVED, Profile, columns, forced_segments
from jaxlif.neurons.lif import LIF, LIFParams

BLOCKS = 16  # of samples, over which the gradient's scatter is taken
UNSEEN = 1e-6  # mV or Hz for a unit of a parameter: what moves an observation by less does not move it


def membrane_estimate(params: LIFParams, data: Data, names: tuple[str, ...]) -> Estimate:
    r"""Estimate the errors of a least-squares fit of the forced voltage by the sandwich :math:`H^{-1} J H^{-1}`.

    Voltage errors last from sample to sample, so that the curvature :math:`H = \sum_t v'_t v_t'^T` alone would promise
    too much. J is what errors as long as these, anywhere in time, would make of the gradient: their autocovariance
    between the slopes. The scatter of the gradient itself over blocks of samples also knows where errors are larger;
    where a parameter is determined by many blocks, its error is the larger of both. One that a single block determines,
    as a step does tau_m, has no gradient there. Source: Newey & West 1987, doi:10.2307/1913610 (weights of the lags).
    """
    values = np.array([getattr(params, name) for name in names])
    slopes, errors = slopes_and_errors(names, params, data)
    lasting = lasting_scatter(slopes, errors, data.judged).sum(axis=0)
    # Blocks run through one sweep after the other.
    slopes, errors = slopes.reshape(len(names), -1), errors.ravel()
    curvature, least = slopes @ slopes.T, float(data.judged.sum()) * UNSEEN**2
    parts = list(zip(*(np.array_split(x, BLOCKS, axis=-1) for x in (slopes, errors)), strict=True))
    scores, shares = np.array([s @ e for s, e in parts]), np.array([(s**2).sum(axis=1) for s, _ in parts])
    spread_out = shares.sum(axis=0) ** 2 > 0.5 * BLOCKS * (shares**2).sum(axis=0)
    scattered = scores.T @ scores * BLOCKS / (BLOCKS - 1)
    blocks, covariance = (sandwich(curvature, j, least=least) for j in (scattered, lasting))
    ratio = np.diag(blocks) / np.diag(covariance).clip(np.finfo(float).tiny)
    larger = np.where(spread_out, ratio.clip(1.0), 1.0)
    covariance *= np.sqrt(np.outer(larger, larger))
    told = np.ix_(*(np.diag(covariance) < UNKNOWN,) * 2)
    spread = float(np.trace(covariance[told] @ curvature[told])) / max(1, len(told[0]))
    return Estimate(names, values, covariance, BLOCKS - 1, spread)


def lasting_scatter(slopes: np.ndarray, errors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    r"""Return :math:`\sum_{tu} v'_t \gamma_{t-u} v_u'^T` of each sweep, [S, n, n], with the errors' autocovariance.

    It is that of all sweeps, up to a block. Slopes are [n, S, T], errors and mask [S, T]; sweeps are independent.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    steps = errors.shape[1]
    lags = max(1, min(errors.size // BLOCKS, steps))
    length = next_fast_len(steps + lags, real=True)

    def _summed(rows: np.ndarray) -> np.ndarray:  # sweep by sweep: an hour of samples has 150 MB of each spectrum
        return np.asarray(irfft(sum(np.abs(rfft(row, length)) ** 2 for row in rows), length)[:lags])

    counts = _summed(mask.astype(np.float32)).clip(1.0)
    covariance = np.zeros(length)
    covariance[:lags] = (1.0 - np.arange(lags) / lags) * _summed(errors) / counts
    covariance[length - lags + 1 :] = covariance[lags - 1 : 0 : -1]
    spectrum = rfft(covariance).real.clip(0.0)
    scatter = np.zeros((len(errors), len(slopes), len(slopes)))
    for sweep in range(len(errors)):
        for n, slope in enumerate(slopes[:, sweep]):
            scatter[sweep, :, n] = slopes[:, sweep] @ irfft(rfft(slope, length) * spectrum, length)[:steps]
    return scatter


def slopes_and_errors(names: tuple[str, ...], params: LIFParams, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return dv/dp [n, S, T] by central differences and the errors [S, T], 0 where voltages are not compared."""
    values, held = np.array([float(getattr(params, name)) for name in names]), columns(data)

    def _voltage(values: np.ndarray) -> np.ndarray:
        v = np.zeros(data.judged.shape)
        for place, outputs in forced_segments(LIF(dt=data.dt), _with(params, names, values.tolist()), held):
            v[:, place] = outputs.v.T
        return np.asarray(v * counted)

    counted = np.array(data.judged)
    counted[:, 0] = False  # it is as it was recorded, whatever the neuron
    # Of r_m, v_rest and v_reset the voltage is a linear function; of tau_m an error of 1e-8 is left.
    steps = 1e-4 * np.diag(np.where(values > 0.0, values, 1.0))
    slopes = [(_voltage(values + step) - _voltage(values - step)) / (2.0 * step.max()) for step in steps]
    return np.stack(slopes), _voltage(values) - data.voltage * counted


def _with(params: LIFParams, names: tuple[str, ...], values: Any) -> LIFParams:
    return replace(params, **dict(zip(names, values, strict=True)))


def with_refractory(estimate: Estimate, profile: Profile, count: float) -> dict[str, tuple[float, float]]:
    """Return the intervals of a forced voltage, with that of t_ref, which has no gradient, and what it does to others.

    A refractory period is allowed where the sum of squares over ``count`` samples rises by no more than at the end of
    an interval; the interval of t_ref ends at the next ones that were tried and are not, and has no end where all are
    allowed. The others reach as far as any that is allowed takes them: a reset may trade for the time that it lasts.
    """
    best = int(np.argmin(profile.errors))
    rise = count * (profile.errors - profile.errors[best])
    allowed = rise <= estimate.quantile**2 * estimate.spread
    intervals, values = estimate.intervals(), dict(zip(estimate.names, estimate.values, strict=True))
    for candidate in np.flatnonzero(allowed):
        gram, moved = profile.grams[candidate], profile.solutions[candidate] - profile.solutions[best]
        reach = estimate.quantile * np.sqrt(np.diag(sandwich(gram, estimate.spread * gram, least=count * UNSEEN**2)))
        for name, shift, more in zip(SOLVED, moved, reach, strict=True):
            (low, high), at = intervals[name], float(values[name] + shift)
            intervals[name] = min(low, at - float(more)), max(high, at + float(more))
    first, last = np.flatnonzero(allowed | (np.arange(len(rise)) == best))[[0, -1]]
    low, high = map(float, profile.candidates[[max(first - 1, 0), min(last + 1, len(rise) - 1)]])
    return intervals | {"t_ref": (-np.inf, np.inf) if allowed.all() else (low, high)}
