"""How good a fit is: its model run freely and with the spikes forced, on what it saw and on what it did not."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from jaxlif.fitting.data import Data, Drift, Outcome
from jaxlif.fitting.extrapolation import Regime, extrapolation_notes, regimes
from jaxlif.fitting.fi_curve import curve_errors
from jaxlif.fitting.free_run import run_freely
from jaxlif.fitting.joint_likelihood import spike_bits
from jaxlif.fitting.membrane import BEFORE_SPIKE, spike_length
from jaxlif.fitting.prediction import forced_voltage, free_response, noisy_response
from jaxlif.fitting.prepare import Case
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, spike_scores, step_scores, voltage_scores
from jaxlif.fitting.step_family import Family, Steps, is_family
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.recordings.protocol import fi_table

MODEL_TRIALS = 128  # responses of a model with noise that are scored, over all sweeps
MODEL_STEPS = 2**23  # of all of them: fewer where they are long


class Judged(NamedTuple):
    """Scores by part; where the model is no answer to what it was fitted to; and what was held out to it."""

    scores: dict[str, dict[str, Any]]
    astray: tuple[str, ...]
    outside: tuple[str, ...]


def judge(case: Case, found: Outcome, last: Case, final: Outcome, seed: int) -> Judged:
    """Score the fit of the window on it and on the rest of the time, or on the sweeps that were held out.

    The model that is handed out, ``final``, is run freely once on what it was fitted to, the sweeps of ``last``.
    """
    noisy, fitted = case.model == "gif", case.fitted
    rest = None if len(case.held) else case.rest
    parts = {"train": case.window} | ({} if rest is None else {"test": rest})
    family = Family(case.data, case.data.spikes) if is_family(case.recording) else None
    steps, judging = (family.of(rows) if family else None for rows in (case.kept, case.held))
    scores, _ = _scores(fitted, found, parts, steps, noisy=noisy, seed=seed)
    outside: tuple[str, ...] = ()
    if len(case.held):
        other, part = case.data.select(case.held), {"test": case.data.whole}
        more, rates = _scores(other, found, part, judging, noisy=noisy, seed=seed)
        scores |= more
        if last is case:
            outside = extrapolation_notes(regimes_of(fitted, case.window), other, rates, case.held)
    return Judged(scores, _astray(last, final, noisy=noisy, seed=seed), outside)


def regimes_of(data: Data, window: tuple[float, float]) -> tuple[Regime, ...]:
    """Return the regimes of a window."""
    part = data.window(*window)
    return regimes(part, part.spikes)


def spike_cut(data: Data, found: Outcome) -> tuple[int, int]:
    """Return the samples before and after a spike in which voltages are not compared."""
    return found.spike_cut or (data.steps(BEFORE_SPIKE), spike_length(data))


def _scores(
    data: Data,
    found: Outcome,
    parts: Mapping[str, tuple[float, float]],
    steps: Steps | None,
    *,
    noisy: bool,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Return the scores of each part, and the model's mean rate in each sweep, [sweeps], Hz."""
    driven = data.terms.driven(found.params, data)
    model = _model_spikes(driven, found, noisy, seed)
    voltage = forced_voltage(found.params, _at_own_rest(driven, found, steps) if steps else driven, data.spikes)
    scores: dict[str, dict[str, Any]] = {}
    for name, window in parts.items():
        part, samples = data.window(*window), data.samples(window)
        scores[name] = {"start_ms": window[0], "stop_ms": window[1]}
        scores[name] |= spike_scores(part, part.spikes, model[..., samples])
        if noisy:
            scores[name]["bits_per_spike"] = spike_bits(cast(AdaptiveLIFParams, found.params), data, samples)
        if steps:
            # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
            scores[name] |= dict.fromkeys(SPIKE_TIME_SCORES) | _of_steps(data, window, steps, model, voltage)
    if found.curve:
        scores |= _of_curve(data, found, parts["train"], model, voltage) if "train" in parts else {}
    else:
        scores = {name: score | _voltage_scores(data, parts[name], voltage, found) for name, score in scores.items()}
    return scores, 1000.0 * model.mean(axis=-1).reshape(-1, data.num_sweeps).mean(axis=0) / data.dt


def _of_steps(
    data: Data, window: tuple[float, float], steps: Steps, model: np.ndarray, voltage: np.ndarray
) -> dict[str, Any]:
    """Score the steps of a family, as far as they lie in a part of the time, and the voltage before the first spike."""
    samples = data.samples(window)
    inside = [slice(max(t.start, samples.start), min(t.stop, samples.stop)) for t in steps.tests]
    cell, *own = trains_inside((data.spikes, *model.reshape(-1, *data.spikes.shape)), inside, data.dt)
    below = _before_spikes(data, window, voltage)
    return step_scores(cell, own) | {f"subthreshold_{name}": value for name, value in below.items()}


def _before_spikes(data: Data, window: tuple[float, float], voltage: np.ndarray) -> dict[str, Any]:
    part, samples = data.window(*window), data.samples(window)
    since = np.maximum.accumulate(data.spikes, axis=1)[:, samples]
    return voltage_scores(part, since, voltage[:, samples], before=data.steps(BEFORE_SPIKE), after=0)


def trains_inside(rasters: Iterable[np.ndarray], inside: Sequence[slice], dt: float) -> list[list[np.ndarray]]:
    """Return the spikes of rasters [sweeps, T] within a part of each sweep, ms from where that begins."""
    return [
        [dt * (np.flatnonzero(train[place]) + 1) for train, place in zip(raster, inside, strict=True)]
        for raster in rasters
    ]


def _model_spikes(driven: Data, found: Outcome, noisy: bool, seed: int, trials: int = MODEL_TRIALS) -> np.ndarray:
    """Return the model's spikes [sweeps, T], or, of a model with noise, [repeats, sweeps, T]."""
    if not noisy:
        return free_response(found.params, driven).spikes
    repeats = max(1, min(trials // driven.num_sweeps, MODEL_STEPS // driven.spikes.size))
    return noisy_response(found.params, driven, repeats=repeats, seed=seed).spikes


def _voltage_scores(data: Data, window: tuple[float, float], voltage: np.ndarray, found: Outcome) -> dict[str, Any]:
    before, after = spike_cut(data, found)
    part = data.window(*window).select(found.fitted_sweeps)
    predicted = voltage[found.fitted_sweeps][:, data.samples(window)]
    return voltage_scores(part, part.spikes, predicted, before=before, after=after)


def _of_curve(
    data: Data, found: Outcome, window: tuple[float, float], model: np.ndarray, voltage: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Score a step protocol: above threshold its voltage is the spike mechanism's, not the membrane's."""
    simulated = fi_table(data.window(*window), model[:, data.samples(window)]).rates[: len(found.curve["rate_Hz"])]
    errors = curve_errors(found.curve | {"simulated_rate_Hz": simulated})
    fitted = found.fitted_sweeps
    return {"membrane": _before_spikes(data.select(fitted), window, voltage[fitted]), "f_i": errors}


def _at_own_rest(driven: Data, found: Outcome, steps: Steps) -> Data:
    """Return steps whose currents hold what each sweep rests elsewhere before its step, if the fit did not say so."""
    voltage, current = steps.baselines
    rest = voltage - float(found.params.r_m) * current
    known = np.isfinite(rest)
    if driven.drift is not None or not known.any():
        return driven
    middle = float(np.median(rest[known]))
    return Drift.of_rest(np.where(known, rest, middle), middle).driven(found.params, driven)


def _astray(case: Case, found: Outcome, *, noisy: bool, seed: int) -> tuple[str, ...]:
    """Run a model freely under what it was fitted to, and say where it runs away or is silent."""
    if isinstance(found.params, LeakyParams):
        return ()
    data = case.fitted
    if found.curve:  # sweeps whose level is not above the f-I curve that was fitted
        levels = np.median(data.window(*found.curve["epoch_ms"]).current, axis=1)
        data = data.select(np.flatnonzero(levels <= max(found.curve["current_pA"]) + 0.02 * np.ptp(levels)))
    return run_freely(found.params, data, noisy=noisy, seed=seed).notes
