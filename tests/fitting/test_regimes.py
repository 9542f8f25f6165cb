"""Several stimuli in one recording: what is held out, where the cell rests, how sweeps drift, and what is outside."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data, Drift
from jaxlif.fitting.extrapolation import Regime, collapse_notes, extrapolation_notes
from jaxlif.fitting.gif_recipe import estimate_drift
from jaxlif.fitting.lanes import single_precision
from jaxlif.fitting.prediction import forced_voltage, free_response
from jaxlif.fitting.prepare import default_split, held_out_sweeps
from jaxlif.fitting.scores import spike_scores, unreliable_notes
from jaxlif.fitting.threshold import Bracket, choose_threshold, reliable_stimuli
from jaxlif.losses import spike_mask
from jaxlif.pictures import pictures
from jaxlif.recordings import Recording
from jaxlif.recordings.notes import resting_potentials
from jaxlif.traces import Answers

DT = 0.5
TRUTH = jl.AdaptiveLIFParams(
    tau_m=20.0, r_m=0.1, v_rest=-65.0, v_th=-50.0, v_reset=-60.0, t_ref=4.0, delta_v=1.0,
    eta=(40.0, 15.0), tau_eta=(6.0, 80.0), gamma=(4.0,), tau_gamma=(50.0,),
)  # fmt: skip
REST = np.array([-66.0, -65.5, -64.5, -64.0])  # two repeats of each of two stimuli


def recorded():
    """Return two stimuli, twice each, after 400 ms of rest; the cell rests elsewhere in every sweep."""
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 0.0, 1.0, 4.0, 6000.0, DT)
    on = np.arange(noise.size) * DT >= 400.0
    current = np.stack([on * (mean + sd * np.asarray(noise)) for mean, sd in ((170.0, 120.0), (220.0, 70.0))])
    inputs = jl.escape_inputs(jax.random.key(1), jnp.asarray(np.repeat(current, 2, axis=0).T))
    params = replace(TRUTH, v_rest=jnp.asarray(REST))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), params, inputs)
    spikes = np.asarray(output.spikes).T > 0
    noise = 0.2 * np.random.default_rng(0).standard_normal(spikes.shape)
    voltage = np.where(spikes, 30.0, np.asarray(output.v).T + noise)
    names = ["weak", "weak", "strong", "strong"]
    return Recording(np.repeat(current, 2, axis=0), voltage, dt=DT, spikes=spikes, stimulus=names)


@pytest.fixture(scope="module")
def recording():
    return recorded()


@pytest.fixture(scope="module")
def result(recording):
    return jl.fit_recording(recording, "gif", electrode=None, coupling=False, held_out="stimulus:strong")


def test_sweeps_are_chosen_by_stimulus_by_repeat_and_by_number(recording):
    chosen = {"stimulus:weak": [0, 1], "repeat:1": [1, 3], "repeat:0": [0, 2], "sweep:3,0": [0, 3]}
    for text, sweeps in chosen.items():
        assert held_out_sweeps(recording, text).tolist() == sweeps, text
    assert held_out_sweeps(recording, [-1]).tolist() == [3] and held_out_sweeps(recording, None).size == 0


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("stimulus:soft", ["stimulus:soft", "weak, strong"]),
        ("stimulus:weak,strong", ["no sweep is left"]),
        ("repeat:2", ["repeat:2", "'2' is no repeat", "which has 0, 1"]),
        ("sweep:0,x", ["'x' is no sweep", "0, 1, 2, 3"]),
        ("sweep:", ["'' is no sweep"]),
        ("weak", ["'weak'", "stimulus:NAME"]),
    ],
)
def test_what_cannot_be_held_out_is_refused(recording, choice, words):
    with pytest.raises(ValueError) as caught:
        held_out_sweeps(recording, choice)
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_rest_is_the_voltage_before_the_stimulus(recording):
    # 200 ms of 0.2 mV noise, 400 samples: 0.01 mV, five of them; escape noise put no spike there.
    np.testing.assert_allclose(resting_potentials(recording, recording.spikes), REST, atol=0.05)
    late = recording.window(500.0, 6000.0)
    assert resting_potentials(late, late.spikes) is None
    early = np.array(recording.spikes)
    early[2, 100] = True
    assert resting_potentials(recording, early) is None


def test_v_rest_is_measured_and_the_held_out_sweeps_have_their_own(recording, result):
    assert result.rest == "measured" and result.held_out == (2, 3)
    assert result.params.v_rest == pytest.approx(REST[:2].mean(), abs=0.05)
    assert "v_rest" not in result.intervals  # what is measured is not fitted
    np.testing.assert_allclose(result.params.v_rest + result.drift.offset, REST, atol=0.05)
    assert result.scores["test"]["voltage_variance_explained"] > 0.95
    # The true neuron's own rate, under noise that is another's: a tenth off is 3 standard errors of 200 spikes.
    assert result.scores["test"]["rate_model"] == pytest.approx(result.scores["test"]["rate_data"], rel=0.25)


def test_a_fit_with_sweep_terms_survives_its_file_and_predicts_its_own_sweeps(recording, result, tmp_path):
    again = jl.load_fit(result.save(tmp_path))
    assert again.regimes == result.regimes and again.held_out == (2, 3) and again.rest == "measured"
    np.testing.assert_array_equal(again.drift.offset, result.drift.offset)
    one, two = (r.predict(recording.select([3]), seed=1) for r in (result, again))
    assert np.array_equal(one.spike_time, two.spike_time) and not any("rests" in note for note in one.notes)
    blind = again.predict(Recording(recording.current[:1], dt=DT))
    assert any("where the cell rests is not known (no voltage)" in note for note in blind.notes)


def test_another_recording_rests_where_its_own_voltage_says(recording, result):
    shifted = replace(recording.select([0]), voltage=recording.voltage[:1] + 2.0)
    terms, notes = result._terms(shifted)
    assert terms.offset[0] == pytest.approx(REST[0] + 2.0 - result.params.v_rest, abs=0.05) and notes == ()


def test_a_shifted_rest_is_a_constant_current(recording):
    shift, gain = np.array([1.5, -2.0]), np.array([1.1, 0.9])
    part = recording.select([0, 2])
    driven = Drift(shift, gain).driven(TRUTH, part)
    moved = replace(TRUTH, v_rest=jnp.asarray(TRUTH.v_rest + shift))
    _, direct = jl.simulate(jl.AdaptiveLIF(dt=DT), moved, jnp.asarray((gain[:, None] * part.current).T))
    told = free_response(TRUTH, driven)
    # They start at different rests, which 400 ms, 20 time constants, forget: e^-20 of 2 mV.
    later = np.s_[:, 800:]
    assert np.array_equal(np.asarray(direct.spikes).T[later] > 0, told.spikes[later])
    np.testing.assert_allclose(np.asarray(direct.v).T[later], told.voltage[later], atol=1e-6)


def test_drift_comes_back(recording):
    """A voltage made by the forced neuron itself with known terms, and 0.3 mV of noise."""
    drift = Drift(np.array([0.5, -0.5, 1.0, -1.0]), np.array([1.05, 0.95, 1.1, 0.9]))
    data = Data.of(recording, recording.spikes)

    def forced_with(terms, data):
        return forced_voltage(TRUTH, terms.driven(TRUTH, data), data.spikes)

    noise = 0.3 * np.random.default_rng(0).standard_normal(data.voltage.shape)
    noisy = replace(data, voltage=forced_with(drift, data) + noise)
    with single_precision():
        found = estimate_drift(TRUTH, noisy)
        again = estimate_drift(TRUTH, replace(noisy, drift=found))
        measured = estimate_drift(TRUTH, replace(noisy, voltage=noisy.voltage + 1.0, v_rest=TRUTH.v_rest))
    # Bayes on the voltage, which is linear in both terms: a sample counts as dt / 50 ms of one with its own error.
    none, one, zero = forced_with(Drift.none(4), noisy), np.ones(4), np.zeros(4)
    columns = np.stack([forced_with(x, noisy) - none for x in (Drift(one, one), Drift(zero, 2.0 * one))])
    clear = spike_mask(data.spikes.T, before=10, after=9).T
    expected = []
    for x, error, counts in zip(columns.swapaxes(0, 1), noisy.voltage - none, clear, strict=True):
        x, error = x[:, counts], error[counts]
        weight = DT / 50.0 / (error**2).mean()
        expected.append(np.linalg.solve(weight * x @ x.T + np.diag([1.0 / 3.0**2, 1.0 / 0.15**2]), weight * x @ error))
    offset, gain = np.array(expected).T
    np.testing.assert_allclose(found.offset, offset - offset.mean(), atol=2e-3)  # single precision
    np.testing.assert_allclose(found.gain, (1.0 + gain) / (1.0 + gain).mean(), atol=2e-4)
    # What is found comes on top of what sweeps have. Then the noise is left: each is known to 0.05 mV and half a per
    # cent, as the mean current pulls like an offset.
    np.testing.assert_allclose(again.offset, drift.offset, atol=0.15)
    np.testing.assert_allclose(again.gain, drift.gain, atol=0.015)
    # Where the rest was measured a common part of the offsets is theirs.
    assert measured.offset.mean() == pytest.approx(1.0, abs=0.1) and found.offset.mean() == pytest.approx(0.0, abs=1e-6)


def test_few_samples_leave_the_terms_of_a_sweep_at_their_prior(recording):
    """5 ms of a voltage 6 mV too high: an offset as Bayes has it, between 0 and 6 mV."""
    data = Data.of(recording.select([0]), recording.spikes[:1])
    judged = np.zeros(data.spikes.shape, bool)
    judged[:, 200:210] = True  # before the current begins: the gain tells nothing there
    voltage = np.full(data.voltage.shape, TRUTH.v_rest + 6.0)
    voltage[:, 0] = TRUTH.v_rest
    short = replace(data, voltage=voltage, judged=judged, v_rest=TRUTH.v_rest, drift=Drift.none(1))
    with single_precision():
        found = estimate_drift(TRUTH, short)
    # An offset pulls the voltage there by 1 - e^(-100 ms / 20 ms), and the error is all of the 6 mV.
    pull = 1.0 - np.exp(-np.arange(200.5, 210.0) / 40.0)
    told = (DT / 50.0) / 36.0 * (pull**2).sum()
    expected = (DT / 50.0) / 36.0 * 6.0 * pull.sum() / (told + 1.0 / 9.0)
    assert found.offset[0] == pytest.approx(expected, rel=1e-3) and expected < 0.3
    assert found.gain[0] == pytest.approx(1.0)


def test_drift_is_found_where_the_rest_is_not_tied(recording):
    options = {"electrode": None, "coupling": False, "held_out": "sweep:1,3"}
    fitted = jl.fit_recording(recording, "gif", rest="fitted", drift=True, **options)
    kept = [0, 2]
    # 6 s of 0.2 mV noise around the right model: a tenth of the 2 mV between the sweeps.
    np.testing.assert_allclose(fitted.drift.offset[kept], REST[kept] - REST[kept].mean(), atol=0.2)
    np.testing.assert_allclose(fitted.drift.gain, 1.0, atol=0.03)
    # Mechanisms that the cell does not have would make up for what the sweeps differ by.
    assert fitted.params.mechanisms == () and fitted.params.tau_m == pytest.approx(TRUTH.tau_m, rel=0.05)
    # Nothing is known of a sweep that was held out.
    assert fitted.rest == "fitted" and not np.asarray(fitted.drift.offset)[[1, 3]].any()


NOISES = (Regime("stimulus a", 200.0, 50.0, 8.0), Regime("stimulus b", 400.0, 100.0, 20.0))
STEPS = tuple(
    Regime(f"sweep {n}", mean, 2.0 * mean, rate) for n, (mean, rate) in enumerate([(20, 0), (40, 0), (60, 9)])
)


def outside(known, inputs, rates, **names):
    """Return the notes on currents of which mean and SD are exact."""
    wave = np.sign(np.arange(2000) % 2 - 0.5)
    current = np.array([mean + sd * wave for mean, sd in inputs], float)
    return extrapolation_notes(known, Recording(current, dt=1.0, **names), np.array(rates))


@pytest.mark.parametrize(
    ("known", "mean", "sd", "rate", "words"),
    [
        (NOISES, 300.0, 80.0, 12.0, ""),
        (
            NOISES,
            700.0,
            80.0,
            12.0,
            "sweep 0 is outside what was fitted: the mean of its current is 700 pA where 200 to",
        ),
        (NOISES, 300.0, 200.0, 12.0, "the SD of its current is 200"),
        (NOISES, 300.0, 80.0, 0.0, "the model is silent"),
        (NOISES, 300.0, 80.0, 40.0, "the model fires at 40 Hz where the cell fired at 8 to 20 Hz"),
        (NOISES, 300.0, 80.0, 6.0, ""),  # 8 Hz over 1.5 are 5.3 Hz
        (NOISES, 300.0, 80.0, 5.0, "the model fires at 5 Hz"),
        (NOISES, 300.0, 80.0, 29.0, ""),
        (STEPS, 40.0, 80.0, 0.0, ""),  # the cell was silent there too
        (STEPS, 60.0, 120.0, 0.0, "the model is silent"),  # it fired at no more
    ],
)
def test_what_lies_outside_is_named(known, mean, sd, rate, words):
    notes = outside(known, [(mean, sd)], [rate])
    assert len(notes) == bool(words) and all(words in note for note in notes), notes


def test_several_stimuli_that_are_outside_alike_are_one_line():
    inputs, rates = [(700.0 + n, 80.0) for n in range(12)], [12.0] * 11 + [0.0]
    many, silent = outside(NOISES, inputs, rates)
    assert many.startswith(
        "the stimuli of sweeps 0, 1, 2, 3, 4, 5, 6, 7 and 3 more are outside what was fitted: the mean"
    )
    assert "their current is 700 to 710 pA" in many and silent.startswith("the stimulus of sweep 11 is outside")
    (named,) = outside(NOISES, inputs[:2], rates[:2], stimulus=["loud", "louder"])
    assert named.startswith("stimuli loud, louder are outside")


def test_a_collapsed_likelihood_is_named_and_a_lower_one_is_not():
    assert "2.00 bits each here, and 5.00" in collapse_notes(5.0, 2.0)[0]
    assert collapse_notes(5.0, 3.0) == () and collapse_notes(5.0, None) == ()


def test_another_regime_is_said_at_prediction(recording, result):
    louder = replace(recording.select([0]), current=4.0 * recording.current[:1], spikes=None, voltage=None)
    assert any("is outside what was fitted: the mean of its current" in n for n in result.predict(louder).notes)


def test_an_unreliable_stimulus_has_no_part_in_the_choice_of_a_threshold(recording):
    """Spikes of the second stimulus at random: the first alone is left, or where both are, the rates."""
    rng = np.random.default_rng(0)
    random = rng.random(recording.spikes.shape) < 0.005
    mixed = np.where(np.arange(4)[:, None] < 2, recording.spikes, random)
    told, silent, known = (reliable_stimuli(Data.of(recording, x)) for x in (mixed, random, recording.spikes))
    (kept,) = told.repeats
    assert not told.by_rate and set(kept.stimulus) == {"weak"}
    assert "stimulus strong (R = " in told.notes[0] and "no part" in told.notes[0]
    assert len(silent.repeats) == 2 and silent.by_rate and "by the rate alone" in silent.notes[0]
    assert known.notes == () and not known.by_rate


def test_the_rate_alone_sets_the_threshold_of_an_unreliable_cell(recording):
    random = np.random.default_rng(0).random(recording.spikes.shape) < 0.005  # 10 Hz
    stimuli = reliable_stimuli(Data.of(recording, random))
    params = jl.LIFParams(tau_m=20.0, r_m=0.1, v_rest=-65.0, v_reset=-60.0, t_ref=4.0)
    v_th = choose_threshold(params, stimuli, Bracket(-30.0, -58.0, -30.0), limits=(-110.0, 40.0))
    own = free_response(replace(params, v_th=v_th), recording).spikes
    # 64 thresholds set the rate to a few per cent; two stimuli share one.
    assert own.sum() == pytest.approx(random.sum(), rel=0.3)
    assert spike_scores(recording, random, own)["coincidence_factor_over_reliability"] is None
    assert unreliable_notes(recording, random)[0].startswith("stimulus weak: the cell's own reliability")


def test_a_recording_is_not_outside_itself_but_what_was_held_out_of_it_may_be(recording, result):
    own = result.predict(recording.select([0, 1]))
    assert not any("outside" in note for note in own.notes)
    # A fit of other currents knows none of these sweeps' regimes; only those that were held out are unknown to it.
    other = replace(result, regimes=(Regime("stimulus weak", -500.0, 1.0, 10.0),))
    (note,) = [note for note in other.predict(recording).notes if "outside" in note]
    assert note.startswith("stimulus strong is outside")


def test_figures_in_a_part_not_fitted_show_sweeps_that_were_not(recording, result):
    """The voltage is that of a held-out sweep, and the cell's two rows of spikes are those of the held-out repeats."""
    shown = {p.name: p for p in pictures(result, Answers(result, recording)) if p.name in ("voltage", "raster")}
    assert all("a part not fitted" in picture.caption for picture in shown.values())
    labels = [line.get_label() for line in shown["voltage"].figure.axes[0].lines]
    assert any(label in ("recorded, sweep 2", "recorded, sweep 3") for label in labels), labels
    drawn = np.concatenate(
        [line.get_xdata() for line in shown["raster"].figure.axes[0].lines if line.get_marker() == "|"]
    )
    rows = np.concatenate(
        [line.get_ydata() for line in shown["raster"].figure.axes[0].lines if line.get_marker() == "|"]
    )
    expected = np.concatenate([recording.times[train] for train in recording.spikes[2:]])
    np.testing.assert_array_equal(np.sort(drawn[rows < 2]), np.sort(expected))
    plt.close("all")


@pytest.mark.parametrize(
    ("spikes", "window", "held"),
    [
        ([[10, 90], [50, 60]], (0.0, 70.0), []),  # both parts of the time have spikes
        ([[10], [20], [30], [], [40], [50]], (0.0, 100.0), [1, 5]),  # of the sweeps that fire every third
        ([[90], [80]], (0.0, 100.0), [1]),
        ([[10, 20]], (0.0, 100.0), []),  # nothing can be held out
    ],
)
def test_what_is_held_out_where_nobody_says(spikes, window, held):
    trains = np.zeros((len(spikes), 100), bool)
    for train, steps in zip(trains, spikes, strict=True):
        train[steps] = True
    found = default_split(Recording(np.zeros(trains.shape), dt=1.0), trains)
    assert found[0] == window and found[1].tolist() == held


def test_options_are_checked(recording):
    with pytest.raises(ValueError, match="""rest = 'free': rest must be "auto" or "fitted""" + '"'):
        jl.fit_recording(recording, "gif", rest="free")
    with pytest.raises(ValueError, match='drift is for "gif" and "deterministic-gif"'):
        jl.fit_recording(recording, drift=True)
