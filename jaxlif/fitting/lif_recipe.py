"""A LIF under a fluctuating current, and a membrane that never spikes.

With the resets forced at the recorded spikes, tau_m, r_m, v_rest and v_reset are fitted to the voltage between them by
gradient; the refractory period, which has none, by a search over whole steps; the threshold in closed loop, by the
spikes of the neuron itself.
"""

from dataclasses import replace

import jax
import numpy as np

from jaxlif.fitting.bounds import coordinates
from jaxlif.fitting.data import Data, Options, Outcome, with_spikes
from jaxlif.fitting.intervals import determined
from jaxlif.fitting.lif_intervals import membrane_estimate, with_refractory
from jaxlif.fitting.membrane import (
    BEFORE_SPIKE,
    Profile,
    between_spikes,
    profile_refractory,
    refine_membrane,
    regress_membrane,
    spike_length,
)
from jaxlif.fitting.notes import at_bounds
from jaxlif.fitting.step_protocol import fit_subthreshold, has_deflections, step_membrane
from jaxlif.fitting.threshold import bracket_threshold, choose_threshold, reliable_stimuli
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams

LEAST_SAMPLES = 20  # samples away from spikes, for six parameters
LONGEST_REFRACTORY = 15.0  # ms: longest refractory period tried
MEMBRANE, TEXTBOOK = ("tau_m", "r_m", "v_rest"), (20.0, 0.1)  # ms, GΩ
FREE = ("tau_m", "r_m", "v_rest", "v_reset")  # what the voltage between spikes determines


def fit_fluctuating(data: Data, options: Options) -> Outcome:
    """Fit the membrane under teacher forcing, the refractory period by profile and the threshold in closed loop."""
    chosen = reliable_stimuli(with_spikes(data, options.window))
    part, length = between_spikes(data, options.window), spike_length(data)
    if (count := int(part.judged.sum())) < LEAST_SAMPLES:
        raise ValueError(
            f"voltage has only {count} samples in the window that are not within"
            f" {data.steps(BEFORE_SPIKE) * data.dt:g} ms before or {length * data.dt:g} ms after a spike: a fit of the"
            f" membrane needs at least {LEAST_SAMPLES}, away from spikes"
        )
    params, profile = _fit_membrane(part, options, _start(part, options, length))
    bracket = bracket_threshold(params, part)
    params = replace(params, v_th=choose_threshold(params, chosen, bracket, limits=options.bounds["v_th"]))
    intervals = with_refractory(membrane_estimate(params, part, FREE), profile, float(count))
    if set(MEMBRANE) & set(determined(params, intervals, options.bounds)[1]):
        intervals["v_th"] = -np.inf, np.inf  # it was chosen for this membrane
    return Outcome(params, chosen.notes + _notes(part, options, params, bracket.highest), intervals=intervals)


def fit_passive(data: Data, options: Options) -> Outcome:
    """Fit tau_m, r_m and v_rest: to the smallest of current steps, or to the voltage under any other current."""
    if has_deflections(data, data.spikes):
        params, estimate, sweeps, notes = step_membrane(data, options)
    else:
        params, estimate = fit_subthreshold(between_spikes(data, options.window), options, spike_length(data))
        sweeps, notes = np.arange(data.num_sweeps), ()
    membrane = LeakyParams(tau_m=params.tau_m, r_m=params.r_m, v_rest=params.v_rest)
    return Outcome(membrane, notes, fitted_sweeps=sweeps, intervals=estimate.intervals())


def _notes(data: Data, options: Options, params: LIFParams, highest: float) -> tuple[str, ...]:
    """Say where a search ended at its edge."""
    notes = []
    if params.t_ref >= min(LONGEST_REFRACTORY, options.bounds["t_ref"][1]) - data.dt:
        notes.append(f"t_ref = {params.t_ref:.4g} ms is the longest that was tried: it is hardly refractoriness")
    if highest <= params.v_reset:
        notes.append(
            f"v_reset = {params.v_reset:.4g} mV lies above the voltage that the membrane reaches at the spikes"
            f" ({highest:.4g} mV at most): the membrane does not explain them"
        )
    return tuple(notes)


def _start(data: Data, options: Options, length: int) -> LIFParams:
    """Start from the given parameters, or from a regression; the threshold is out of the way until it is searched."""
    if options.start is not None:
        coordinates(options.start, options.bounds)
        return replace(options.start, v_th=float(data.voltage.max()))
    guess = regress_membrane(data) or (*TEXTBOOK, float(np.median(data.voltage)))
    after = _after_spikes(data.spikes, length)
    values = dict(zip(MEMBRANE, guess, strict=True)) | {"v_reset": np.median(data.voltage[after])}
    return LIFParams(**options.inside(**values), v_th=float(data.voltage.max()))


def _after_spikes(spikes: np.ndarray, steps: int) -> np.ndarray:
    """Mark the samples ``steps`` after each spike; the spikes themselves where the data end before."""
    shifted = np.zeros_like(spikes)
    shifted[:, steps:] = spikes[:, : spikes.shape[1] - steps]
    return shifted if shifted.any() else spikes


def _fit_membrane(data: Data, options: Options, start: LIFParams) -> tuple[LIFParams, Profile]:
    """Fit the membrane; where a regression led to the end of the bounds, from a textbook's membrane too."""
    params, profile, loss = _alternated(data, options, start)
    if options.start is not None or not at_bounds(params, {name: options.bounds[name] for name in FREE}):
        return params, profile
    rest = float(np.quantile(data.voltage, 0.1))
    other = replace(start, **options.inside(**dict(zip(MEMBRANE, (*TEXTBOOK, rest), strict=True))))
    second, other_profile, lower = _alternated(data, options, other)
    return (second, other_profile) if lower < loss else (params, profile)


def _alternated(data: Data, options: Options, params: LIFParams) -> tuple[LIFParams, Profile, float]:
    """Alternate between the refractory period's profile and the gradient of everything else, until it stays."""
    free = {name: options.bounds[name] for name in FREE}
    t_ref, loss = None, np.inf
    for _ in range(4):
        profile = _refractory_profile(data, options.bounds["t_ref"], params)
        params = replace(params, t_ref=round(float(profile.candidates[np.argmin(profile.errors)]), 9))
        if params.t_ref == t_ref:
            break
        t_ref = params.t_ref
        result = refine_membrane(params, data, free, progress=options.progress)
        params, loss = jax.tree.map(float, result.params), result.loss
        if not all(low < getattr(params, name) < high for name, (low, high) in free.items()):
            break  # rounded onto the end of its bounds, from where nothing can start
    return params, profile, loss


def _refractory_profile(data: Data, bounds: tuple[float, float], params: LIFParams) -> Profile:
    """Search whole numbers of steps, coarse to fine, for the refractory period that explains the voltage best."""
    dt, (low, high) = data.dt, bounds
    longest = high if low >= LONGEST_REFRACTORY else min(high, LONGEST_REFRACTORY)
    grid = np.arange(int(np.ceil(low / dt - 1e-6)), int(longest / dt + 1e-6) + 1)
    if not len(grid):
        raise ValueError(
            f"t_ref has the bounds {low:g} to {high:g} ms: they hold no whole number of steps of {dt:g} ms"
        )
    stride, best, tried = max(1, len(grid) // 15), None, []
    while True:
        around = grid[::stride] if best is None else grid[max(0, best - 5 * stride) : best + 5 * stride + 1 : stride]
        # One length, for which the profile is compiled once.
        candidates = np.pad(around, (0, 16 - len(around)), mode="edge")
        tried.append(profile_refractory(params, data, candidates * dt))
        best = int(candidates[np.argmin(tried[-1].errors)] - grid[0])
        if stride == 1:
            break
        stride = max(1, stride // 4)
    columns = [np.concatenate(column) for column in zip(*tried, strict=True)]
    _, order = np.unique(columns[0], return_index=True)
    return Profile(*(column[order] for column in columns))
