"""Notes on a fit, against what they are about."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting import fit_recording
from jaxlif.fitting.data import Data, Outcome
from jaxlif.fitting.notes import score_notes, unlikely_membrane, unlikely_threshold
from jaxlif.fitting.threshold import Stimuli, closed_loop_scores, reliable_stimuli


@pytest.fixture(scope="module")
def recording():
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 150.0, 5.0, 1000.0, 0.5)
    _, output = jl.simulate(jl.LIF(dt=0.5), jl.LIFParams(), current)
    return jl.Recording(current=current, voltage=np.where(output.spikes > 0, 20.0, output.v), dt=0.5)


def fit_that_finds(params, recording, monkeypatch, model="gif", **found):
    monkeypatch.setattr(fit_recording, "fit_gif", lambda data, options, **more: Outcome(params, **found))
    return jl.fit_recording(recording, model, electrode=None)


def test_a_fit_says_which_parameters_its_data_do_not_determine(recording, monkeypatch):
    params = jl.AdaptiveLIFParams(mechanisms=(jl.MembraneCurrent(a=0.1, tau=50.0),))
    intervals = {"tau_m": (9.0, 11.0), "mechanisms.0.tau": (1e-3, 1e6), "v_th": (-90.0, 200.0)}
    fit = fit_that_finds(params, recording, monkeypatch, intervals=intervals)
    assert fit.params == params and fit.undetermined == ("mechanisms.0.tau", "v_th")
    assert set(fit.intervals) == {"tau_m"}
    assert sum("not determined by these data: mechanisms.0.tau, v_th: any other" in w for w in fit.warnings) == 1


@pytest.mark.parametrize(
    ("resistances", "mechanisms", "said"),
    [
        ((0.1, 0.1, 0.1), (), ""),
        ((0.1, 0.1, 0.21), (), "the membrane rectifies"),
        ((0.1, 0.1, 0.21), (jl.MembraneCurrent(a=0.1, tau=50.0),), ""),
        ((-0.1, -0.1, -0.11), (), "do not use this model: the input resistance is not positive"),
        ((0.1, 0.12, -0.02), (), "the input resistance is not positive"),  # one sweep may be odd
    ],
)
def test_a_gif_with_a_linear_membrane_says_that_the_cells_is_none(resistances, mechanisms, said, monkeypatch):
    t, levels = 0.5 * np.arange(1200), np.array([-150.0, -100.0, -50.0, 300.0])
    on = (t >= 150.0) & (t < 450.0)
    charged = np.where(on, 1.0 - np.exp(-(t - 150.0).clip(0.0) / 10.0), 0.0)
    voltage = -70.0 + (np.array([*resistances, 0.5 * resistances[0]]) * levels)[:, None] * charged
    voltage[3, 400:900:100] = 20.0
    current = levels[:, None] * on
    params = jl.AdaptiveLIFParams(mechanisms=mechanisms)
    monkeypatch.setattr(fit_recording, "fit_gif", lambda data, options, **more: Outcome(params))
    fit = jl.fit_recording(jl.Recording(current, voltage, dt=0.5), "gif", electrode=None, window=(0.0, 600.0))
    found = [note for note in fit.warnings if "rectifies" in note or "input resistance" in note]
    assert [note[: len(said)] for note in found] == [said] * bool(said), fit.warnings


def test_a_refit_is_of_the_whole_recording_and_only_where_nobody_chose_a_window(recording, monkeypatch):
    first, better, seen = jl.AdaptiveLIFParams(), jl.AdaptiveLIFParams(tau_m=11.0), []

    def refit(data, options):
        seen.append(options.window)
        return Outcome(better)

    monkeypatch.setattr(fit_recording, "fit_gif", lambda data, options, **more: Outcome(first, refit=refit))
    fit = jl.fit_recording(recording, "gif", electrode=None)
    assert seen == [(0.0, 1000.0)] and (fit.params, fit.scored, fit.window) == (better, first, (0.0, 700.0))
    assert any("scores those of a fit to 0 to 700 ms alone" in note for note in fit.warnings)
    fit = jl.fit_recording(recording, "gif", electrode=None, window=(0.0, 700.0))
    assert len(seen) == 1 and (fit.params, fit.scored) == (first, None)


@pytest.mark.parametrize(
    ("tau_m", "r_m", "named"),
    [
        (20.0, 0.1, ()),
        (15.0, 5.0, ()),  # a granule cell: 3 pF
        (2.5, 0.005, ()),  # a large motoneuron: 500 pF
        (20.0, 0.02, ("r_m = 0.02 GΩ and tau_m / r_m = 1e+03 pF", "10 times too large (--current-gain 0.1)")),
        (15.0, 150.0, ("r_m = 150 GΩ", "in nA, 1000 times too small (--current-gain 1000)")),
        (15.0, 1.5e-4, ("r_m = 0.00015 GΩ", "in fA, 1000 times too large (--current-gain 0.001)")),
        (20.0, 50.0, ("r_m = 50 GΩ", "100 times too small")),
        (0.1, 0.01, ("tau_m = 0.1 ms",)),
        (500.0, 1.0, ("tau_m = 500 ms",)),
        (2.0, 8.0, ("tau_m / r_m = 0.25 pF",)),
    ],
)
def test_a_membrane_that_no_neuron_has_is_said(tau_m, r_m, named):
    notes = unlikely_membrane(jl.LIFParams(tau_m=tau_m, r_m=r_m))
    assert len(notes) == bool(named) and all(words in notes[0] for words in named)


@pytest.mark.parametrize("r_m", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1e-3, "in nA, 1000 times too small (--current-gain 1000)"),
        (0.1, "10 times too small (--current-gain 10)"),
        (1.0, ""),
        (10.0, "10 times too large"),
        (1e3, "in fA, 1000 times too large"),
    ],
)
def test_rates_in_another_unit_of_current_are_said(r_m, factor, unit):
    """A threshold 15 mV above the rest, and currents up to three times the rheobase."""
    currents = factor * np.linspace(0.0, 45.0 / r_m, 10)
    notes = unlikely_threshold(jl.LIFParams(r_m=r_m, v_th=-70.0 + factor * 15.0), currents)
    assert len(notes) == bool(unit) and all(f"is the current {unit}" in note for note in notes)


@pytest.mark.parametrize("model", ["gif", "deterministic-gif"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"gamma": (-30.0,), "tau_gamma": (20.0,)},
            r"at 0.5 times its input it runs away \((\d+) Hz; the cell (\d+) Hz at 1",
        ),
        ({"v_th": 20.0}, r"it fires at (0) Hz where the cell fires at (\d+) Hz"),
        ({}, None),
    ],
)
def test_a_model_that_runs_away_or_is_silent_is_not_handed_out_without_a_word(
    recording, monkeypatch, model, change, words
):
    """A threshold that falls at each spike fires for ever; the rates are those of a run of its own."""
    params = jl.AdaptiveLIFParams(delta_v=0.5, lambda_0=1.0, **change)
    first = fit_that_finds(params, recording, monkeypatch, model).warnings[0]
    found = re.match(f"do not use this model: run freely, {words}", first)
    assert bool(found) == bool(words), first
    if found:
        own, cell = map(float, found.groups())
        assert cell == jl.SpikeRule().find(recording).sum()  # in a second
        _, output = jl.simulate(jl.AdaptiveLIF(dt=0.5), params, jnp.asarray(0.5 * recording.current[0]))
        # Without noise exactly; with it a saturated or a silent neuron does nearly the same.
        assert own == pytest.approx(float(output.spikes.sum()), rel=0.005 if model == "deterministic-gif" else 0.1)


def test_a_candidate_that_fires_all_the_time_meets_every_spike_and_never_wins():
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 150.0, 5.0, 1000.0, 0.5)
    many = jax.tree.map(lambda x: jnp.full(3, x), jl.LIFParams(t_ref=3.0, v_reset=-75.0))
    _, output = jl.simulate(jl.LIF(dt=0.5), jl.LIFParams(t_ref=3.0, v_reset=-75.0), current)
    # Its own spikes, 12 ms late: nothing coincides but by chance.
    late = np.roll(np.asarray(output.spikes) > 0, 24)[None]
    data = Data(np.asarray(current)[None], 0.0 * late, spikes=late, dt=0.5)
    many = replace(many, v_th=jnp.asarray([-69.5, -55.0, 0.0]))
    scores = closed_loop_scores(jl.LIF, many, Stimuli([data], by_rate=False))
    assert scores[0] < scores[1] - 1.0 and scores[2] < scores[1] - 1.0


def test_under_steps_the_twin_is_chosen_by_its_counts():
    current = np.zeros((2, 2000))
    current[:, 500:1500] = [[100.0], [200.0]]
    spikes = np.zeros(current.shape, bool)
    spikes[1, 600:1400:100] = True
    found = reliable_stimuli(Data(current, 0.0 * current, spikes=spikes, dt=0.5))
    assert len(found.repeats) == 2 and found.by_rate and found.notes == ()


@pytest.mark.parametrize(("held_out", "said"), [(0.9, 0), (0.4, 1), (-2.98, 1), (None, 0)])
def test_a_voltage_that_is_another_in_what_was_held_out_is_said(held_out, said):
    recording = jl.Recording(np.zeros(100), np.zeros(100), dt=0.1)
    data = Data.of(recording, np.ones((1, 100), bool))
    rates = {"rate_data": 5.0, "rate_model": 5.0}
    scores = {"train": rates | {"voltage_variance_explained": 0.6}}
    notes = score_notes(data, scores | {"test": rates | {"voltage_variance_explained": held_out}})
    assert len(notes) == said and all("in what was held out" in note for note in notes)
    assert not said or f"{100.0 * (1.0 - held_out):.0f} % of its variance" in notes[0]


def test_what_was_held_out_without_a_spike_says_nothing_of_the_model(recording):
    data = Data.of(recording, jl.SpikeRule().find(recording))
    scores = {"train": {"voltage_variance_explained": 0.9}, "test": {"rate_data": 0.0, "rate_model": 0.0}}
    (note,) = score_notes(data, scores)
    assert note.startswith("no spike falls into what was held out")
    assert score_notes(replace(data, spikes=data.spikes & False), scores) == ()
