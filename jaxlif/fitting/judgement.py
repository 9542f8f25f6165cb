"""How good a fit is: its model run freely and with the spikes forced, on what it saw and on what it did not."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from jaxlif.fitting.data import Data, Drift, Outcome
from jaxlif.fitting.extrapolation import Regime, extrapolation_notes, regimes
from jaxlif.fitting.fi_curve import curve_errors
from jaxlif.fitting.joint_likelihood import spike_bits
from jaxlif.fitting.membrane import BEFORE_SPIKE, spike_length
from jaxlif.fitting.prediction import forced_voltage, free_response, noisy_response
from jaxlif.fitting.prepare import Case
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, astray_notes, spike_scores, voltage_scores
from jaxlif.fitting.step_family import Family, has_deflections
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.recordings.protocol import fi_table

MODEL_TRIALS = 128  # responses of a model with noise that are scored, over all sweeps


class Judged(NamedTuple):
    """Scores by part; where the model is no answer to what it was fitted to; and what was held out to it."""

    scores: dict[str, dict[str, Any]]
    astray: tuple[str, ...]
    outside: tuple[str, ...]


def judge(case: Case, found: Outcome, final: Outcome, seed: int) -> Judged:
    """Score the fit of the window on it and on the rest of the time, or on the sweeps that were held out.

    The model that is handed out, ``final``, is run freely once on what it was fitted to.
    """
    noisy, fitted = case.model == "gif", case.fitted
    rest = None if len(case.held) else case.rest
    parts = {"train": case.window} | ({} if rest is None else {"test": rest})
    scores, _ = _scores(fitted, found, parts, noisy=noisy, seed=seed)
    outside: tuple[str, ...] = ()
    if len(case.held):
        other = case.data.select(case.held)
        more, rates = _scores(other, found, {"test": other.whole}, noisy=noisy, seed=seed)
        scores, outside = scores | more, extrapolation_notes(regimes_of(fitted, case.window), other, rates, case.held)
    window = case.window if final is found else case.data.whole
    return Judged(scores, _astray(case, final, window, noisy=noisy, seed=seed), outside)


def regimes_of(data: Data, window: tuple[float, float]) -> tuple[Regime, ...]:
    """Return the regimes of a window."""
    part = data.window(*window)
    return regimes(part, part.spikes)


def spike_cut(data: Data, found: Outcome) -> tuple[int, int]:
    """Return the samples before and after a spike in which voltages are not compared."""
    return found.spike_cut or (data.steps(BEFORE_SPIKE), spike_length(data))


def _scores(
    data: Data, found: Outcome, parts: Mapping[str, tuple[float, float]], *, noisy: bool, seed: int
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Return the scores of each part, and the model's mean rate in each sweep, [sweeps], Hz."""
    driven = data.terms.driven(found.params, data)
    model = _model_spikes(driven, found, noisy, seed)
    scores: dict[str, dict[str, Any]] = {}
    for name, window in parts.items():
        part, samples = data.window(*window), data.samples(window)
        scores[name] = {"start_ms": window[0], "stop_ms": window[1]}
        scores[name] |= spike_scores(part, part.spikes, model[..., samples])
        if noisy:
            scores[name]["bits_per_spike"] = spike_bits(cast(AdaptiveLIFParams, found.params), data, samples)
    own = "train" in parts and _steps_alone(data, found)  # the recipe for steps measures from each sweep's own rest
    start = _at_own_rest(data, found, parts["train"]) if own else driven
    voltage = forced_voltage(found.params, start, data.spikes)
    if found.curve:
        # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
        scores = {name: score | dict.fromkeys(SPIKE_TIME_SCORES) for name, score in scores.items()}
        scores |= _step_scores(data, found, parts["train"], model, voltage) if "train" in parts else {}
    else:
        scores = {name: score | _voltage_scores(data, parts[name], voltage, found) for name, score in scores.items()}
    return scores, 1000.0 * model.mean(axis=-1).reshape(-1, data.num_sweeps).mean(axis=0) / data.dt


def _model_spikes(driven: Data, found: Outcome, noisy: bool, seed: int, trials: int = MODEL_TRIALS) -> np.ndarray:
    """Return the model's spikes [sweeps, T], or, of a model with noise, [repeats, sweeps, T]."""
    if not noisy:
        return free_response(found.params, driven).spikes
    repeats = max(1, trials // driven.num_sweeps)
    return noisy_response(found.params, driven, repeats=repeats, seed=seed).spikes


def _voltage_scores(data: Data, window: tuple[float, float], voltage: np.ndarray, found: Outcome) -> dict[str, Any]:
    before, after = spike_cut(data, found)
    part = data.window(*window).select(found.fitted_sweeps)
    predicted = voltage[found.fitted_sweeps][:, data.samples(window)]
    return voltage_scores(part, part.spikes, predicted, before=before, after=after)


def _step_scores(
    data: Data, found: Outcome, window: tuple[float, float], model: np.ndarray, voltage: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Score a step protocol: above threshold its voltage is the spike mechanism's, not the membrane's."""
    end = float(found.curve["epoch_ms"][1])
    simulated = fi_table(data.window(*window), model[:, data.samples(window)]).rates[: len(found.curve["rate_Hz"])]
    errors = curve_errors(found.curve | {"simulated_rate_Hz": simulated})
    return {"membrane": _voltage_scores(data, (window[0], end), voltage, found), "f_i": errors}


def _steps_alone(data: Data, found: Outcome) -> bool:
    passive = isinstance(found.params, LeakyParams)
    return bool(found.curve) or (passive and has_deflections(data, data.spikes))


def _at_own_rest(data: Data, found: Outcome, window: tuple[float, float]) -> Data:
    """Return a family of steps whose currents hold what each sweep rests elsewhere before its step, if it is known."""
    part = data.window(*window)
    voltage, current = Family(part, part.spikes).baselines
    rest = voltage - float(found.params.r_m) * current
    known = np.isfinite(rest)
    if not known.any():
        return data
    middle = float(np.median(rest[known]))
    return Drift.of_rest(np.where(known, rest, middle), middle).driven(found.params, data)


def _astray(case: Case, found: Outcome, window: tuple[float, float], *, noisy: bool, seed: int) -> tuple[str, ...]:
    """Run a model freely, once, on what it was fitted to, and say where it runs away or is silent."""
    if isinstance(found.params, LeakyParams):
        return ()
    data = case.fitted
    driven = data.terms.driven(found.params, data)
    model = _model_spikes(driven, found, noisy, seed, trials=1).reshape(data.spikes.shape)
    used = np.ones(data.num_sweeps, bool)
    if found.curve:  # sweeps whose level is not above the f-I curve that was fitted
        levels = np.median(data.window(*found.curve["epoch_ms"]).current, axis=1)
        used = levels <= max(found.curve["current_pA"]) + 0.02 * np.ptp(levels)
    cell, own = (x[used, data.samples(window)] for x in (data.spikes, model))
    return astray_notes(case.kept[used], cell, own, float(found.params.t_ref), data.dt)
