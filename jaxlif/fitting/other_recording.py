"""A fit judged by another recording: its prediction beside what the cell did there."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxlif.fitting.judgement import MODEL_TRIALS, trains_inside
from jaxlif.fitting.notes import NOTHING_HELD_OUT
from jaxlif.fitting.result import Prediction, RecordingFit, sweep_checksums
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, spike_scores, step_scores, unreliable_notes, voltage_scores
from jaxlif.fitting.step_family import is_family
from jaxlif.recordings import Recording, SpikeRule
from jaxlif.recordings.notes import require_stimulus, unpadded, without_padding
from jaxlif.recordings.protocol import step_family
from jaxlif.recordings.spikes import spike_notes
from jaxlif.stages import stage

OTHER_UNIT = 100.0  # a current that is this many times the fitted one is of another unit


def prediction_scores(
    fit: RecordingFit, recording: Recording, prediction: Prediction, *, repeats: int = 1, forced: bool = False
) -> dict[str, Any]:
    """Score a prediction of a recording with a voltage: by the voltage where the spikes were forced, else by spikes."""
    spikes = fit.spike_rule.find(recording)
    if forced or fit.model == "passive":
        before, after = (round(t / recording.dt) for t in fit.spike_cut)
        clean = replace(recording, voltage=recording.measured_voltage() - prediction.electrode_drop)
        return voltage_scores(clean, spikes, prediction.voltage, before=before, after=after)
    model = prediction.raster(recording.dt, repeats)
    scores = spike_scores(recording, spikes, model if fit.model == "gif" else model[0])
    if is_family(recording):
        # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
        inside = [slice(step.start, step.stop) for step in step_family(recording).tests]
        cell, *own = trains_inside((spikes, *model), inside, recording.dt)
        return scores | dict.fromkeys(SPIKE_TIME_SCORES) | step_scores(cell, own)
    return scores if spikes.any() else scores | dict.fromkeys(SPIKE_TIME_SCORES)


def prediction_notes(fit: RecordingFit, recording: Recording) -> tuple[str, ...]:
    """Return what to know of a recording with a voltage before a fit is judged by it."""
    recording = unpadded(recording)
    spikes = fit.spike_rule.find(recording)
    notes = fit.likelihood_note(recording) if spikes.any() else ()
    return notes + unreliable_notes(recording, spikes) + spike_notes(recording, fit.spike_rule)


def require_test(recording: Recording, test: Recording, rule: SpikeRule) -> None:
    """Refuse, before a fit, a test that cannot judge it: without voltage or stimulus, in another unit, or fitted."""
    if not isinstance(test, Recording):
        raise ValueError(f"test = {type(test).__name__}: test must be a Recording")
    name = _name(test)
    try:
        spikes = rule.find(test)
        without_padding(test)
        require_stimulus(test, spikes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if same := set(sweep_checksums(recording)).intersection(sweep_checksums(test)):
        raise ValueError(f"{name}: {len(same)} of its sweeps are to be fitted: a test is of what a fit does not see")
    here, there = (float(np.sqrt(np.mean(r.current**2))) for r in (test, recording))
    if not 1.0 / OTHER_UNIT < here / max(there, 1e-300) < OTHER_UNIT:
        sizes = f"its current is {here:.3g} pA (rms) and the fitted one {there:.3g} pA"
        raise ValueError(f"{name}: {sizes}: under {OTHER_UNIT:g} times more or less is expected; is a unit wrong?")


def judged_by(fit: RecordingFit, test: Recording) -> RecordingFit:
    """Return a fit with its scores on a test recording, ``scores["test_file"]``, and what there is to say of it."""
    stage("test file")
    whole, (test, padded) = test, without_padding(test)
    repeats = max(1, MODEL_TRIALS // test.num_sweeps) if fit.model == "gif" else 1
    free, forced = fit.predict(test, repeats=repeats, seed=fit.seed), fit.predict(test, force_spikes=True)
    scores = prediction_scores(fit, test, free, repeats=repeats)
    scores |= prediction_scores(fit, test, forced, forced=True)
    notes = padded + free.notes + prediction_notes(fit, test)
    if fit.model != "passive" and not fit.spike_rule.find(test).any():
        model = f"the model fires at {scores['rate_model']:.3g} Hz"
        notes = (f"no spike is found in it, and {model}: nothing is known of when the model's spikes come", *notes)
    warnings = tuple(f"{_name(whole)}: {note}" for note in notes)
    warnings += tuple(note for note in fit.warnings if note != NOTHING_HELD_OUT)
    beside = {**fit.beside, "test": {"name": whole.name, "sha256": whole.sha256}}
    return replace(fit, scores={**fit.scores, "test_file": scores}, warnings=warnings, beside=beside)


def _name(test: Recording) -> str:
    return f"test = {test.name or 'a recording'}"
