"""How a LIF, and a membrane that never spikes, are fitted.

Current steps: tau_m, r_m and v_rest to all sweeps below threshold, each from its own rest and by its noise; then v_th,
v_reset and t_ref, and tau_m within its errors, to the number of spikes and the first spike of every sweep.

Any other current: with the resets forced at the recorded spikes, tau_m, r_m, v_rest and v_reset are fitted to the
voltage between them by gradient; the refractory period, which has none, by a search over whole steps; the threshold in
closed loop, by the spikes of the neuron itself.
"""

from dataclasses import replace

import jax
import numpy as np

from jaxlif.fitting import membrane
from jaxlif.fitting.bounds import coordinates
from jaxlif.fitting.data import Data, Options, Outcome, with_spikes
from jaxlif.fitting.fi_curve import poor_curve
from jaxlif.fitting.intervals import Estimate, determined
from jaxlif.fitting.notes import at_bounds, spontaneous
from jaxlif.fitting.step_family import Family, constant_levels, has_deflections, protocol_notes, rectification
from jaxlif.fitting.step_membrane import fit_membrane, stretches
from jaxlif.fitting.step_spikes import fit_spikes
from jaxlif.fitting.threshold import bracket_threshold, choose_threshold, reliable_stimuli
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams

LEAST_SAMPLES = 20  # samples away from spikes, for six parameters
MEMBRANE, TEXTBOOK = ("tau_m", "r_m", "v_rest"), (20.0, 0.1)  # ms, GΩ
FREE = (*MEMBRANE, "v_reset")  # what the voltage between spikes determines


# --- current steps ----------------------------------------------------------------------------------------


def fit_steps(data: Data, options: Options) -> Outcome:
    """Fit the membrane to what is below threshold, and to spikes what makes them, with tau_m within its errors."""
    part = data.window(*options.window)
    passive, known, sweeps, notes = step_membrane(part, options)
    family = Family(part, part.spikes)
    found = fit_spikes(passive, known, family, bounds=options.bounds, seed=options.seed)
    poor = poor_curve(found.curve)
    if poor:  # spikes that no LIF fires say nothing of its tau_m
        found = fit_spikes(passive, known, family, bounds=options.bounds, free_tau_m=False, seed=options.seed)
    curve = found.curve | {"epoch_ms": [family.rising.start, family.rising.stop]}
    lowest = float(data.voltage.min())
    deep = (
        f"v_reset = {found.params.v_reset:.4g} mV lies below everything recorded ({lowest:.4g} mV): the f-I curve asks"
        " for it, the voltage between spikes is not the cell's",
    ) * (found.params.v_reset < lowest)
    intervals = known.intervals() if poor or found.estimate is None else found.estimate.intervals()
    warnings = notes + spontaneous(found.params) + deep + poor
    return Outcome(found.params, warnings, curve, sweeps, intervals=intervals)


def step_membrane(data: Data, options: Options) -> tuple[LIFParams, Estimate, np.ndarray, tuple[str, ...]]:
    """Fit tau_m, r_m and v_rest to steps; return them, errors, the sweeps that were used and notes. Hum and noise may
    be in the cell, or in the record of its current alone: the voltage says which.
    """
    family = Family(data, data.spikes)
    heard = (data, replace(data, current=constant_levels(data)))
    found = min(
        (fit_membrane(stretches(x, family), options.bounds, family.baselines) for x in heard), key=lambda f: f.left
    )
    tau_m, r_m, v_rest = found.estimate.values.tolist()
    params = LIFParams(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_th=v_rest + 50.0, v_reset=v_rest)
    notes = rectification(family.deflections, r_m) + protocol_notes(data, data.spikes)
    return params, found.estimate, found.sweeps, notes


def _fit_subthreshold(data: Data, options: Options, length: int) -> tuple[LIFParams, Estimate]:
    """Fit tau_m, r_m and v_rest to voltages with hardly a spike."""
    rest = float(np.median(data.voltage))
    tau_m, r_m, v_rest = membrane.regress_membrane(data) or (*TEXTBOOK, rest)
    # A sweep may have spikes beside the step: there it is reset.
    values = options.inside(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_reset=rest)
    start = LIFParams(**values, v_th=values["v_reset"] + 50.0, t_ref=length * data.dt)
    free = {name: options.bounds[name] for name in values}
    params = jax.tree.map(float, membrane.refine_membrane(start, data, free, progress=options.progress).params)
    return params, membrane.membrane_estimate(params, data, MEMBRANE)


def fit_passive(data: Data, options: Options) -> Outcome:
    """Fit tau_m, r_m and v_rest: to a family of current steps, or to the voltage under any other current."""
    if has_deflections(data, data.spikes):
        params, estimate, sweeps, notes = step_membrane(data.window(*options.window), options)
    else:
        part, length = membrane.between_spikes(data, options.window), membrane.spike_length(data)
        params, estimate = _fit_subthreshold(part, options, length)
        sweeps, notes = np.arange(data.num_sweeps), ()
    leaky = LeakyParams(tau_m=params.tau_m, r_m=params.r_m, v_rest=params.v_rest)
    return Outcome(leaky, notes, fitted_sweeps=sweeps, intervals=estimate.intervals())


# --- any other current ------------------------------------------------------------------------------------


def fit_fluctuating(data: Data, options: Options) -> Outcome:
    """Fit the membrane under teacher forcing, the refractory period by profile and the threshold in closed loop."""
    chosen = reliable_stimuli(with_spikes(data, options.window))
    part, length = membrane.between_spikes(data, options.window), membrane.spike_length(data)
    if (count := int(part.judged.sum())) < LEAST_SAMPLES:
        before = data.steps(membrane.BEFORE_SPIKE) * data.dt
        raise ValueError(
            f"voltage has only {count} samples in the window that are not within {before:g} ms before or"
            f" {length * data.dt:g} ms after a spike: a fit of the membrane needs at least {LEAST_SAMPLES}, away from"
            " spikes"
        )
    params, profile = _fit_membrane(part, options, _start(part, options, length))
    bracket = bracket_threshold(params, part)
    params = replace(params, v_th=choose_threshold(params, chosen, bracket, limits=options.bounds["v_th"]))
    intervals = membrane.with_refractory(membrane.membrane_estimate(params, part, FREE), profile, float(count))
    if set(MEMBRANE) & set(determined(params, intervals, options.bounds)[1]):
        intervals["v_th"] = -np.inf, np.inf  # it was chosen for this membrane
    return Outcome(params, chosen.notes + _at_edges(part, options, params, bracket.highest), intervals=intervals)


def _start(data: Data, options: Options, length: int) -> LIFParams:
    """Start from the given parameters, or from a regression; the threshold is out of the way until it is searched."""
    highest = float(data.voltage.max())
    if options.start is not None:
        coordinates(options.start, options.bounds)
        return replace(options.start, v_th=highest)
    guess = membrane.regress_membrane(data) or (*TEXTBOOK, float(np.median(data.voltage)))
    after = np.zeros_like(data.spikes)
    after[:, length:] = data.spikes[:, : data.num_steps - length]
    reset = np.median(data.voltage[after if after.any() else data.spikes])
    return LIFParams(**options.inside(**dict(zip(MEMBRANE, guess, strict=True)), v_reset=reset), v_th=highest)


def _fit_membrane(data: Data, options: Options, start: LIFParams) -> tuple[LIFParams, membrane.Profile]:
    """Fit the membrane; where a regression led to the end of the bounds, from a textbook's membrane too."""
    params, profile, loss = _alternated(data, options, start)
    if options.start is not None or not at_bounds(params, {name: options.bounds[name] for name in FREE}):
        return params, profile
    rest = float(np.quantile(data.voltage, 0.1))
    other = replace(start, **options.inside(**dict(zip(MEMBRANE, (*TEXTBOOK, rest), strict=True))))
    second, other_profile, lower = _alternated(data, options, other)
    return (second, other_profile) if lower < loss else (params, profile)


def _alternated(data: Data, options: Options, params: LIFParams) -> tuple[LIFParams, membrane.Profile, float]:
    """Alternate between the refractory period's profile and the gradient of everything else, until it stays."""
    free = {name: options.bounds[name] for name in FREE}
    t_ref, loss = None, np.inf
    for _ in range(4):
        profile = membrane.search_refractory(params, data, options.bounds["t_ref"])
        params = replace(params, t_ref=round(float(profile.candidates[np.argmin(profile.errors)]), 9))
        if params.t_ref == t_ref:
            break
        t_ref = params.t_ref
        result = membrane.refine_membrane(params, data, free, progress=options.progress)
        params, loss = jax.tree.map(float, result.params), result.loss
        if not all(low < getattr(params, name) < high for name, (low, high) in free.items()):
            break  # rounded onto the end of its bounds, from where nothing can start
    return params, profile, loss


def _at_edges(data: Data, options: Options, params: LIFParams, highest: float) -> tuple[str, ...]:
    """Say where a search ended at its edge."""
    notes = []
    if params.t_ref >= min(membrane.LONGEST_REFRACTORY, options.bounds["t_ref"][1]) - data.dt:
        notes.append(f"t_ref = {params.t_ref:.4g} ms is the longest that was tried: it is hardly refractoriness")
    if highest <= params.v_reset:
        notes.append(
            f"v_reset = {params.v_reset:.4g} mV lies above the voltage that the membrane reaches at the spikes"
            f" ({highest:.4g} mV at most): the membrane does not explain them"
        )
    return tuple(notes)
