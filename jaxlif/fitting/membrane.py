"""The membrane between spikes: a regression for the start, the gradient under teacher forcing, 95 % intervals.

With the resets forced at the recorded spikes the voltage is linear in r_m, v_rest and v_reset and smooth in tau_m, so
that a fit neither gets lost nor needs the threshold.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import Bounds
from jaxlif.fitting.data import Data, cut, filled, padded_length, simulated
from jaxlif.fitting.fit import Fit, fit, lbfgs
from jaxlif.fitting.intervals import UNKNOWN, Estimate, sandwich
from jaxlif.losses import spike_mask, voltage_mse
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.wrappers import Forced, ForcedOutput, TeacherForced
from jaxlif.simulation import simulate

BEFORE_SPIKE = 3.0  # ms left out before a spike's upward crossing: the upstroke is no membrane
LONGEST_REFRACTORY = 15.0  # ms: longest refractory period tried
LONGEST_SPIKE = 20.0  # ms after it within which the spike's shape ends
BLOCKS = 16  # of samples, over which the gradient's scatter is taken
UNSEEN = 1e-6  # mV or Hz for a unit of a parameter: what moves an observation by less does not move it


class Columns(NamedTuple):
    """Sweeps as a loop over time takes them: current pA, voltage mV, spikes and mask 0 or 1, all [T, S], as views."""

    current: Any
    voltage: Any
    spikes: Any
    mask: Any


def columns(data: Data) -> Columns:
    """Return data with time first; the mask is where they are judged."""
    return Columns(data.current.T, data.voltage.T, data.spikes.T, data.judged.T)


def spike_length(data: Data) -> int:
    """Return the samples from a spike's upward crossing until its mean shape has fallen to the trough."""
    longest = min(data.steps(LONGEST_SPIKE), data.num_steps - 1)
    sweep, step = np.nonzero(data.spikes[:, : data.num_steps - longest])
    if not len(sweep):
        return max(1, longest)
    shape = np.mean([data.voltage[s, n : n + longest + 1] for s, n in zip(sweep, step, strict=True)], axis=0)
    # The first sample near the trough: where the voltage is held, noise decides which one is the lowest.
    return max(1, int(np.argmax(shape <= shape.min() + 0.005 * np.ptp(shape))))


def between_spikes(data: Data, window: tuple[float, float]) -> Data:
    """Return the sweeps in a window, judged where the voltage is the membrane's; they start from the first that is."""
    before, after = data.steps(BEFORE_SPIKE), spike_length(data)
    # From the whole sweep: a spike just outside the window reaches into it.
    part = data.judging(spike_mask(data.spikes.T, before=before, after=after).T > 0).window(*window)
    first = np.take_along_axis(part.voltage, part.judged.argmax(axis=1)[:, None], axis=1)
    return replace(part, voltage=np.concatenate([first, part.voltage[:, 1:]], axis=1))


def regress_membrane(data: Data) -> tuple[float, float, float] | None:
    """Return tau_m, r_m and v_rest by V[k+1] = a V[k] + (1 - a)(v_rest + r_m I[k]), a = exp(-1 ms / tau_m), with means
    over 1 ms, free of the noise that dV/dt would amplify; None where that is no membrane.
    """
    length = max(1, data.steps(1.0))
    current, voltage, mask = (_block_means(x.T, length) for x in (data.current, data.voltage, data.judged))
    # The current that acts between the centres of two blocks is half of each.
    between = 0.5 * (current[1:] + current[:-1])
    valid = (mask[1:] == 1.0) & (mask[:-1] == 1.0)
    regressors = np.stack([voltage[:-1][valid], between[valid], np.ones(valid.sum())], axis=1)
    if len(regressors) < 10 or np.ptp(regressors[:, 1]) == 0:
        return None
    (a, b, c), *_ = np.linalg.lstsq(regressors, voltage[1:][valid], rcond=None)
    if not (0.0 < a < 1.0 and b > 0.0):
        return None
    return float(-length * data.dt / np.log(a)), float(b / (1.0 - a)), float(c / (1.0 - a))


def _block_means(x: np.ndarray, length: int) -> np.ndarray:
    whole = x.shape[0] // length * length
    return np.asarray(x[:whole].reshape(-1, length, x.shape[1]).mean(axis=1))


def forced(cell: Any, params: LIFParams, data: Columns) -> ForcedOutput:
    """Simulate the sweeps with their recorded spikes forced, from their first voltage, at the end of the first step."""
    state, first = forced_start(cell, params, data)
    _, later = simulate(TeacherForced(cell), params, Forced(data.current[1:], data.spikes[1:]), state)
    return ForcedOutput(*jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later))


def forced_start(cell: Any, params: LIFParams, data: Columns) -> tuple[Any, ForcedOutput]:
    """Return the state after the first sample and the outputs [S] that belong to it, for :func:`forced`."""
    before = jnp.asarray(data.voltage[0])
    fresh = cell.init_state(params, jnp.asarray(data.current[0], before.dtype))
    state, v = cell.settle(params, fresh, before, jnp.asarray(data.spikes[0], before.dtype))
    return state, ForcedOutput(jnp.zeros_like(v), v, before)


def forced_segments(cell: Any, params: LIFParams, data: Columns) -> Iterator[tuple[slice, ForcedOutput]]:
    """Yield the outputs of :func:`forced` piece by piece, each with its place in time."""
    state, first = forced_start(cell, params, data)
    yield slice(0, 1), jax.tree.map(lambda x: np.asarray(x)[None], first)
    rows = Forced(data.current[1:], data.spikes[1:])
    for place, outputs in simulated(TeacherForced(cell), params, rows, state) if len(rows.spikes) else ():
        yield slice(place.start + 1, place.stop + 1), outputs


@dataclass(frozen=True)
class ForcedVoltageLoss:
    """The masked mean squared error, mV², of a teacher-forced voltage: a loss for :func:`jaxlif.fit`."""

    cell: LIF

    def __call__(self, params: LIFParams, data: Columns) -> Array:
        """Return the loss of ``params`` on ``data``."""
        return voltage_mse(forced(self.cell, params, data).v, data.voltage, data.mask)


def refine_membrane(params: LIFParams, data: Data, bounds: Bounds, *, progress: bool = False) -> Fit:
    """Fit every parameter named in ``bounds`` to the voltage under teacher forcing, by L-BFGS."""
    settings = {"optimizer": lbfgs(), "num_steps": 60, "tolerance": 1e-7, "progress": progress}
    if not data.spikes.any():
        bounds = {name: bound for name, bound in bounds.items() if name != "v_reset"}  # of which they say nothing
    length = padded_length(data.num_steps)
    held = jax.tree.map(lambda x: jnp.asarray(filled(x, length)), columns(data))
    with warnings.catch_warnings():
        # What the voltage does not depend on has no interval, and is named as not determined.
        warnings.filterwarnings("ignore", ".*the loss does not depend on")
        found = fit(ForcedVoltageLoss(LIF(dt=data.dt)), params, bounds, data=held, **settings)
    if found.message.startswith("interrupted"):
        raise KeyboardInterrupt  # half a step of a recipe is no result
    return found


SOLVED = ("r_m", "v_rest", "v_reset")


class Profile(NamedTuple):
    """Refractory periods, and how well each explains the voltage."""

    candidates: np.ndarray  # [C], ms
    errors: np.ndarray  # [C], the mean squares that each leaves, mV²
    solutions: np.ndarray  # [C, 3]: r_m, v_rest and v_reset solved for with each
    grams: np.ndarray  # [C, 3, 3], what says them


def profile_refractory(params: LIFParams, data: Data, candidates: np.ndarray) -> Profile:
    """Find how well each refractory period, which has no gradient, explains the voltage, with r_m, v_rest and v_reset
    solved for anew: under teacher forcing it is linear in them.
    """
    cell, held = LIF(dt=data.dt), columns(data)
    tau_m, t_ref = (jnp.asarray(x, data.voltage.dtype) for x in (params.tau_m, candidates))
    state, total = _unit_states(cell, tau_m, jax.tree.map(lambda x: jnp.asarray(x[0]), held), t_ref), None
    # The first sample is as it was recorded, whatever the neuron.
    for _, part in cut(jax.tree.map(lambda x: x[1:], held)):
        state, found = _moments(cell, tau_m, part, t_ref, state)
        found = [np.asarray(x, np.float64) for x in found]
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    grams, projections, squares = total  # type: ignore[misc]  # there is a second sample, and so a sum
    solutions = np.array([np.linalg.lstsq(g, p, rcond=None)[0] for g, p in zip(grams, projections, strict=True)])
    explained = np.array([s @ p for s, p in zip(solutions, projections, strict=True)])
    return Profile(candidates, (squares - explained) / float(data.judged.sum()), solutions, grams)


def search_refractory(params: LIFParams, data: Data, bounds: tuple[float, float]) -> Profile:
    """Search whole numbers of steps, coarse to fine, for the refractory period that explains the voltage best."""
    dt, (low, high) = data.dt, bounds
    longest = high if low >= LONGEST_REFRACTORY else min(high, LONGEST_REFRACTORY)
    grid = np.arange(int(np.ceil(low / dt - 1e-6)), int(longest / dt + 1e-6) + 1)
    if not len(grid):
        raise ValueError(
            f"t_ref has the bounds {low:g} to {high:g} ms: they hold no whole number of steps of {dt:g} ms"
        )
    stride, around, tried = max(1, len(grid) // 15), grid[:: max(1, len(grid) // 15)], []
    while True:
        # One length, for which the profile is compiled once.
        candidates = np.pad(around, (0, 16 - len(around)), mode="edge")
        tried.append(profile_refractory(params, data, candidates * dt))
        if stride == 1:
            break
        best, stride = int(candidates[np.argmin(tried[-1].errors)] - grid[0]), max(1, stride // 4)
        around = grid[max(0, best - 5 * stride) : best + 5 * stride + 1 : stride]
    columns = [np.concatenate(column) for column in zip(*tried, strict=True)]
    _, order = np.unique(columns[0], return_index=True)
    return Profile(*(column[order] for column in columns))


@jax.jit(static_argnums=0)
def _unit_states(cell: Any, tau_m: Array, first: Columns, candidates: Array) -> Any:
    """Return for each candidate the states of its unit neurons after the first sample [S]."""

    def _states(t_ref: Array) -> Any:
        def _begin(params: LIFParams, start: Array) -> Any:
            one = Columns(*(x[None] for x in first))
            return forced_start(cell, params, one._replace(voltage=start * one.voltage))[0]

        return jax.vmap(_begin)(_unit_neurons(tau_m, t_ref), jnp.asarray([0.0, 0.0, 0.0, 1.0], tau_m.dtype))

    return jax.lax.map(_states, candidates)


@jax.jit(static_argnums=0)
def _moments(cell: Any, tau_m: Array, data: Columns, candidates: Array, states: Any) -> Any:
    """Return for each candidate the next states and the normal equations of the voltage on its unit responses."""

    def _respond(params: LIFParams, state: Any) -> tuple[Any, Array]:
        state, outputs = simulate(TeacherForced(cell), params, Forced(data.current, data.spikes), state)
        return state, outputs.v

    def _of_one(candidate: tuple[Array, Any]) -> tuple[Any, Any]:
        t_ref, state = candidate
        state, v = jax.vmap(_respond)(_unit_neurons(tau_m, t_ref), state)
        mask = jnp.asarray(data.mask, v.dtype)
        columns, target = v[:3] * mask[None], (data.voltage - v[3]) * mask
        gram = jnp.einsum("its,jts->ij", columns, columns)
        return state, (gram, jnp.einsum("its,ts->i", columns, target), jnp.sum(target**2))

    return jax.lax.map(_of_one, (candidates, states))


def _unit_neurons(tau_m: Array, t_ref: Array) -> LIFParams:
    """Return four neurons: one of r_m, v_rest and v_reset is 1 in the first three, none in the last."""
    unit = jnp.eye(4, 3, dtype=tau_m.dtype)
    tau_m, t_ref, v_th = (jnp.broadcast_to(jnp.asarray(x, tau_m.dtype), 4) for x in (tau_m, t_ref, 2.0))
    return LIFParams(tau_m=tau_m, t_ref=t_ref, v_th=v_th, r_m=unit[:, 0], v_rest=unit[:, 1], v_reset=unit[:, 2])


# --- intervals --------------------------------------------------------------------------------------------


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
    r"""Return :math:`\sum_{tu} v'_t \gamma_{t-u} v_u'^T` of each sweep, [S, n, n], of slopes [n, S, T], with the
    errors' autocovariance over all sweeps, up to a block; errors and mask are [S, T].
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
        moved = replace(params, **dict(zip(names, values.tolist(), strict=True)))
        for place, outputs in forced_segments(LIF(dt=data.dt), moved, held):
            v[:, place] = outputs.v.T
        return np.asarray(v * counted)

    counted = np.array(data.judged)
    counted[:, 0] = False  # it is as it was recorded, whatever the neuron
    # Of r_m, v_rest and v_reset the voltage is a linear function; of tau_m an error of 1e-8 is left.
    steps = 1e-4 * np.diag(np.where(values > 0.0, values, 1.0))
    slopes = [(_voltage(values + step) - _voltage(values - step)) / (2.0 * step.max()) for step in steps]
    return np.stack(slopes), _voltage(values) - data.voltage * counted


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
