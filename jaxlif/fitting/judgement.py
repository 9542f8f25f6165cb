"""Scores of a fit on what it saw and on what was held out."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from jaxlif.fitting.data import Data, Drift, Options
from jaxlif.fitting.fi_curve import curve_errors, root_mean_square
from jaxlif.fitting.likelihood import spike_bits
from jaxlif.fitting.membrane import BEFORE_SPIKE, spike_length
from jaxlif.fitting.prediction import forced_voltage, free_response, noisy_rasters
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, astray_notes, spike_scores, voltage_scores
from jaxlif.fitting.step_protocol import has_deflections, step_baselines
from jaxlif.fitting.task import Outcome
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.recordings import Recording, fi_table

MODEL_TRIALS = 128  # responses of a model with noise that are scored, over all sweeps


class Judged(NamedTuple):
    """Scores by part, and the model's mean rate in each sweep, [sweeps], Hz."""

    scores: dict[str, dict[str, Any]]
    rates: np.ndarray


def judge(
    data: Data, found: Outcome, options: Options, parts: Mapping[str, tuple[float, float]], *, noisy: bool
) -> Judged:
    """Score the model's own spikes, and its voltage with the recorded spikes forced.

    Args:
        data: the sweeps, with their terms.
        found: the fit.
        options: what was asked for.
        parts: windows to score by name, ms.
        noisy: whether the model has escape noise.
    """
    driven = _driven(data, found)
    model = _model_spikes(driven, found, noisy, options.seed)
    own_rest = "train" in parts and _steps_alone(data, found)
    voltage = forced_voltage(found.params, _at_own_rest(data, found, options) if own_rest else driven, data.spikes)
    scores = {name: _spike_scores(data, window, model) for name, window in parts.items()}
    if noisy:
        scores = {name: score | _likelihood(data, parts[name], found) for name, score in scores.items()}
    rates = 1000.0 * model.mean(axis=-1).reshape(-1, data.num_sweeps).mean(axis=0) / data.dt
    if not found.curve:
        scores = {name: score | _voltage_scores(data, parts[name], voltage, found) for name, score in scores.items()}
        return Judged(scores, rates)
    # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
    scores = {name: score | dict.fromkeys(SPIKE_TIME_SCORES) for name, score in scores.items()}
    scores |= _step_scores(data, found, options, model, voltage) if "train" in parts else {}
    return Judged(scores, rates)


def _driven(data: Data, found: Outcome) -> Data:
    return data if data.drift is None else data.drift.driven(found.params, data)


def free_run_notes(
    data: Data, found: Outcome, options: Options, numbers: np.ndarray, *, noisy: bool
) -> tuple[str, ...]:
    """Run a model freely, once, on what it was fitted to, and say where it runs away or is silent.

    Args:
        data: the sweeps, with their terms.
        found: the fit that is handed out.
        options: what was asked for, with the window that was fitted.
        numbers: what the sweeps are called, [sweeps].
        noisy: whether the model has escape noise.
    """
    if isinstance(found.params, LeakyParams):
        return ()
    model = _model_spikes(_driven(data, found), found, noisy, options.seed, trials=1).reshape(data.spikes.shape)
    used, samples = _in_curve(data, found.curve), data.samples(options.window)
    cell, own = (x[used, samples] for x in (data.spikes, model))
    return astray_notes(numbers[used], cell, own, float(found.params.t_ref), data.dt)


def _in_curve(recording: Recording, curve: Mapping[str, list[float]]) -> np.ndarray:
    """Mark the sweeps whose level is not above the f-I curve that was fitted, where there is one."""
    if not curve:
        return np.ones(recording.num_sweeps, bool)
    levels = np.median(recording.window(*curve["epoch_ms"]).current, axis=1)
    return levels <= max(curve["current_pA"]) + 0.02 * np.ptp(levels)


def spike_cut(data: Data, found: Outcome) -> tuple[int, int]:
    """Return the samples before and after a spike in which voltages are not compared."""
    return found.spike_cut or (data.steps(BEFORE_SPIKE), spike_length(data))


def rest_of_time(data: Data, window: tuple[float, float]) -> tuple[float, float] | None:
    """Return the longer of what lies after and before the window, unless both are shorter than 100 ms."""
    begin, end = data.start, data.start + data.duration
    rests = [(window[1], end), (begin, window[0])]
    longest = max(rests, key=lambda rest: rest[1] - rest[0])
    return longest if longest[1] - longest[0] >= 100.0 else None


def _model_spikes(driven: Recording, found: Outcome, noisy: bool, seed: int, trials: int = MODEL_TRIALS) -> np.ndarray:
    """Return the model's spikes [sweeps, T], or, of a model with noise, [repeats, sweeps, T]."""
    if not noisy:
        return free_response(found.params, driven).spikes
    count = max(1, trials // driven.num_sweeps)
    return noisy_rasters(cast(AdaptiveLIFParams, found.params), driven, repeats=count, seed=seed)


def _spike_scores(data: Data, window: tuple[float, float], model: np.ndarray) -> dict[str, Any]:
    part = data.window(*window)
    scores = spike_scores(part, part.spikes, model[..., data.samples(window)])
    return {"start_ms": window[0], "stop_ms": window[1]} | scores


def _likelihood(data: Data, window: tuple[float, float], found: Outcome) -> dict[str, Any]:
    return {"bits_per_spike": spike_bits(cast(AdaptiveLIFParams, found.params), data, data.samples(window))}


def _step_scores(
    data: Data, found: Outcome, options: Options, model: np.ndarray, voltage: np.ndarray
) -> dict[str, dict[str, Any]]:
    # Above threshold the voltage of a step protocol is the spike mechanism's, not the membrane's.
    fitted = options.window[0], found.curve["epoch_ms"][1]  # type: ignore[assignment]
    membrane = _voltage_scores(data, fitted, voltage, found)
    return {"membrane": membrane, "f_i": _curve_scores(data, options.window, found.curve, model)}


def _at_own_rest(data: Data, found: Outcome, options: Options) -> Data:
    """Return a family of steps whose currents hold what each sweep rests elsewhere before its step, if it is known."""
    part = data.window(*options.window)
    voltage, current = step_baselines(part, part.spikes)
    rest = voltage - float(found.params.r_m) * current
    known = np.isfinite(rest)
    if not known.any():
        return data
    middle = float(np.median(rest[known]))
    return Drift.of_rest(np.where(known, rest, middle), middle).driven(found.params, data)


def _steps_alone(data: Data, found: Outcome) -> bool:
    """Say whether a fit was made by the recipe for steps, which measures them from each sweep's own rest."""
    passive = isinstance(found.params, LeakyParams)
    return bool(found.curve) or (passive and has_deflections(data, data.spikes))


def _voltage_scores(data: Data, window: tuple[float, float], voltage: np.ndarray, found: Outcome) -> dict[str, Any]:
    before, after = spike_cut(data, found)
    part = data.window(*window).select(found.fitted_sweeps)
    predicted = voltage[found.fitted_sweeps][:, data.samples(window)]
    return voltage_scores(part, part.spikes, predicted, before=before, after=after)


def _curve_scores(
    data: Data, window: tuple[float, float], curve: dict[str, list[float]], model: np.ndarray
) -> dict[str, float]:
    """Return root mean square errors of the f-I curve, Hz: fitted, predicted, and counted in a simulation."""
    simulated = fi_table(data.window(*window), model[:, data.samples(window)]).rates[: len(curve["rate_Hz"])]
    return curve_errors(curve) | {"rmse_simulated": root_mean_square(simulated, curve["rate_Hz"])}
