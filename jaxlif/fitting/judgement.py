"""Scores of a fit on what it saw and on what was held out."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from jaxlif.fitting.drift import Drift
from jaxlif.fitting.fi_curve import curve_errors, root_mean_square
from jaxlif.fitting.likelihood import spike_bits
from jaxlif.fitting.prediction import forced_voltage, free_response, noisy_rasters
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, astray_notes, spike_scores, voltage_scores
from jaxlif.fitting.step_protocol import has_deflections, step_baselines
from jaxlif.fitting.task import Outcome, Task
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.readout import LeakyParams
from jaxlif.recordings import Recording, fi_table

MODEL_TRIALS = 128  # responses of a model with noise that are scored, over all sweeps


class Judged(NamedTuple):
    """Scores by part, and the model's mean rate in each sweep, [sweeps], Hz."""

    scores: dict[str, dict[str, Any]]
    rates: np.ndarray


def judge(
    task: Task, found: Outcome, drift: Drift | None, parts: Mapping[str, tuple[float, float]], *, noisy: bool
) -> Judged:
    """Score the model's own spikes, and its voltage with the recorded spikes forced.

    Args:
        task: recording and spikes.
        found: the fit.
        drift: terms of the sweeps, or None.
        parts: windows to score by name, ms.
        noisy: whether the model has escape noise.
    """
    driven = task.recording if drift is None else drift.driven(found.params, task.recording)
    model = _model_spikes(driven, found, noisy, task.seed)
    own_rest = "train" in parts and _steps_alone(task, found)
    voltage = forced_voltage(found.params, _at_own_rest(task, found) if own_rest else driven, task.spikes)
    scores = {name: _spike_scores(task, window, model) for name, window in parts.items()}
    if noisy:
        scores = {name: score | _likelihood(task, parts[name], found, drift) for name, score in scores.items()}
    rates = 1000.0 * model.mean(axis=-1).reshape(-1, task.recording.num_sweeps).mean(axis=0) / task.recording.dt
    if not found.curve:
        scores = {name: score | _voltage_scores(task, parts[name], voltage, found) for name, score in scores.items()}
        return Judged(scores, rates)
    # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
    scores = {name: score | dict.fromkeys(SPIKE_TIME_SCORES) for name, score in scores.items()}
    scores |= _step_scores(task, found, model, voltage) if "train" in parts else {}
    return Judged(scores, rates)


def free_run_notes(
    task: Task, found: Outcome, drift: Drift | None, numbers: np.ndarray, *, noisy: bool
) -> tuple[str, ...]:
    """Run a model freely, once, on what it was fitted to, and say where it runs away or is silent.

    Args:
        task: recording, spikes and window.
        found: the fit that is handed out.
        drift: terms of the sweeps, or None.
        numbers: what the sweeps are called, [sweeps].
        noisy: whether the model has escape noise.
    """
    if isinstance(found.params, LeakyParams):
        return ()
    driven = task.recording if drift is None else drift.driven(found.params, task.recording)
    model = _model_spikes(driven, found, noisy, task.seed, trials=1).reshape(task.spikes.shape)
    used, samples = _in_curve(task.recording, found.curve), task.samples(task.window)
    cell, own = (x[used, samples] for x in (task.spikes, model))
    return astray_notes(numbers[used], cell, own, float(found.params.t_ref), task.recording.dt)


def _in_curve(recording: Recording, curve: Mapping[str, list[float]]) -> np.ndarray:
    """Mark the sweeps whose level is not above the f-I curve that was fitted, where there is one."""
    if not curve:
        return np.ones(recording.num_sweeps, bool)
    levels = np.median(recording.window(*curve["epoch_ms"]).current, axis=1)
    return levels <= max(curve["current_pA"]) + 0.02 * np.ptp(levels)


def spike_cut(task: Task, found: Outcome) -> tuple[int, int]:
    """Return the samples before and after a spike in which voltages are not compared."""
    return found.spike_cut or (task.before_spike, task.spike_length)


def rest_of_time(task: Task) -> tuple[float, float] | None:
    """Return the longer of what lies after and before the window, unless both are shorter than 100 ms."""
    begin, end = task.recording.start, task.recording.start + task.recording.duration
    rests = [(task.window[1], end), (begin, task.window[0])]
    longest = max(rests, key=lambda rest: rest[1] - rest[0])
    return longest if longest[1] - longest[0] >= 100.0 else None


def _model_spikes(driven: Recording, found: Outcome, noisy: bool, seed: int, trials: int = MODEL_TRIALS) -> np.ndarray:
    """Return the model's spikes [sweeps, T], or, of a model with noise, [repeats, sweeps, T]."""
    if not noisy:
        return free_response(found.params, driven).spikes
    count = max(1, trials // driven.num_sweeps)
    return noisy_rasters(cast(AdaptiveLIFParams, found.params), driven, repeats=count, seed=seed)


def _spike_scores(task: Task, window: tuple[float, float], model: np.ndarray) -> dict[str, Any]:
    samples = np.s_[:, task.samples(window)]
    scores = spike_scores(task.recording.window(*window), task.spikes[samples], model[..., task.samples(window)])
    return {"start_ms": window[0], "stop_ms": window[1]} | scores


def _likelihood(task: Task, window: tuple[float, float], found: Outcome, drift: Drift | None) -> dict[str, Any]:
    params = cast(AdaptiveLIFParams, found.params)
    bits = spike_bits(params, task.recording, task.spikes, drift, task.samples(window))
    return {"bits_per_spike": bits}


def _step_scores(task: Task, found: Outcome, model: np.ndarray, voltage: np.ndarray) -> dict[str, dict[str, Any]]:
    # Above threshold the voltage of a step protocol is the spike mechanism's, not the membrane's.
    fitted = task.window[0], found.curve["epoch_ms"][1]  # type: ignore[assignment]
    membrane = _voltage_scores(task, fitted, voltage, found)
    return {"membrane": membrane, "f_i": _curve_scores(task, found.curve, model)}


def _at_own_rest(task: Task, found: Outcome) -> Recording:
    """Return a family of steps whose currents hold what each sweep rests elsewhere before its step, if it is known."""
    spikes = task.spikes[:, task.samples(task.window)]
    voltage, current = step_baselines(task.recording.window(*task.window), spikes)
    rest = voltage - float(found.params.r_m) * current
    known = np.isfinite(rest)
    if not known.any():
        return task.recording
    middle = float(np.median(rest[known]))
    return Drift.of_rest(np.where(known, rest, middle), middle, len(rest)).driven(found.params, task.recording)


def _steps_alone(task: Task, found: Outcome) -> bool:
    """Say whether a fit was made by the recipe for steps, which measures them from each sweep's own rest."""
    passive = isinstance(found.params, LeakyParams)
    return bool(found.curve) or (passive and has_deflections(task.recording, task.spikes))


def _voltage_scores(task: Task, window: tuple[float, float], voltage: np.ndarray, found: Outcome) -> dict[str, Any]:
    samples, chosen = task.samples(window), found.fitted_sweeps
    before, after = spike_cut(task, found)
    part = task.recording.window(*window).select(chosen)
    spikes, predicted = task.spikes[chosen][:, samples], voltage[chosen][:, samples]
    return voltage_scores(part, spikes, predicted, before=before, after=after)


def _curve_scores(task: Task, curve: dict[str, list[float]], model: np.ndarray) -> dict[str, float]:
    """Return root mean square errors of the f-I curve, Hz: fitted, predicted, and counted in a simulation."""
    window = task.recording.window(*task.window)
    simulated = fi_table(window, model[:, task.samples(task.window)]).rates[: len(curve["rate_Hz"])]
    return curve_errors(curve) | {"rmse_simulated": root_mean_square(simulated, curve["rate_Hz"])}
