"""The recipes for recordings against data whose truth is known, and against real cells where they are at hand."""

from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data
from jaxlif.fitting.membrane import profile_refractory, regress_membrane
from jaxlif.fitting.scores import spike_scores, step_scores, unreliable_notes
from jaxlif.fitting.threshold import bracket_threshold

DT = 0.1
TRUTH = jl.LIFParams(tau_m=17.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.2)


def sweeps(current, voltage, spikes, *, before, after):
    mask = jl.losses.spike_mask(spikes.T, before=before, after=after).T > 0
    return Data(np.asarray(current), np.asarray(voltage), spikes=spikes, judged=mask, dt=DT)


def noisy_recording(truth=TRUTH, *, seed=0, duration=5000.0, noise=0.2):
    """Drive the truth hard enough to fire, add measurement noise, and draw each spike as one sample of 20 mV."""
    rheobase = float(jl.theory.rheobase(truth))
    key, noise_key = jax.random.split(jax.random.key(seed))
    current = jl.stimulus.ornstein_uhlenbeck(key, 0.9 * rheobase, 0.7 * rheobase, 5.0, duration, DT)
    _, output = jl.simulate(jl.LIF(dt=DT), truth, current)
    voltage = output.v + noise * jax.random.normal(noise_key, current.shape)
    return jl.Recording(current=current, voltage=jnp.where(output.spikes > 0, 20.0, voltage), dt=DT)


def step_recording(truth, levels, *, duration=700.0):
    """Record 500 ms steps from 100 ms on, spikes drawn."""
    current = jnp.stack([jl.stimulus.step(level, 100.0, 600.0, duration, DT) for level in levels])
    _, output = jax.vmap(lambda i: jl.simulate(jl.LIF(dt=DT), truth, i))(current)
    return jl.Recording(current=current, voltage=jnp.where(output.spikes > 0, 20.0, output.v), dt=DT)


LEVELS = np.arange(-60.0, 421.0, 40.0)


@pytest.fixture(scope="module")
def noisy():
    return noisy_recording()


@pytest.fixture(scope="module")
def noisy_fit(noisy):
    return jl.fit_recording(noisy)


@pytest.fixture(scope="module")
def steps():
    return step_recording(TRUTH, LEVELS)


@pytest.fixture(scope="module")
def steps_fit(steps):
    return jl.fit_recording(steps)


@pytest.mark.parametrize("seed", range(3))
def test_all_six_parameters_come_back_from_half_off(seed):
    recording = noisy_recording(seed=seed)
    away = np.random.default_rng(seed).uniform(0.5, 1.5, 6)
    start = jl.LIFParams(**{name: v * f for (name, v), f in zip(asdict(TRUTH).items(), away, strict=True)})
    start = replace(start, v_reset=min(start.v_reset, start.v_th - 1.0))
    start = replace(start, **{name: max(getattr(start, name), -119.0) for name in ("v_rest", "v_th", "v_reset")})
    found = asdict(jl.fit_recording(recording, start=start).params)
    # 1 % is the promise; 0.2 mV of noise on 35 000 samples leaves a few tenths at worst.
    for name, value in asdict(TRUTH).items():
        assert found[name] == pytest.approx(value, rel=0.01), name
    assert abs(found["t_ref"] - TRUTH.t_ref) <= DT + 1e-9


def test_without_noise_the_free_running_model_reproduces_every_spike():
    recording = noisy_recording(noise=0.0)
    result = jl.fit_recording(recording, window=(0.0, 3500.0))
    scores = result.scores["test"]
    # The one imperfection left is where in its bracket the threshold lies, which can move a spike by a step.
    assert scores["coincidence_factor"] == 1.0
    assert scores["rate_model"] == scores["rate_data"]
    # The forced voltage differs from the truth only by the fit's own tolerance.
    assert scores["voltage_rmse"] < 1e-3


def test_time_outside_the_window_does_not_reach_the_fit(noisy, noisy_fit):
    voltage = np.array(noisy.voltage)
    voltage[:, 35_000:] = np.where(voltage[:, 35_000:] < 10.0, -60.0, 20.0)
    changed = jl.fit_recording(jl.Recording(current=noisy.current, voltage=voltage, dt=DT))
    assert noisy_fit.window == changed.window == (0.0, 3500.0)
    assert noisy_fit.params == changed.params
    assert noisy_fit.scores["test"]["voltage_rmse"] < 1.0 < changed.scores["test"]["voltage_rmse"]


def test_the_result_does_not_depend_on_the_default_precision(noisy, noisy_fit):
    with jax.enable_x64(False):
        single = jl.fit_recording(noisy)
    assert single.params == noisy_fit.params


def test_the_profile_finds_the_refractory_period_and_its_true_error():
    recording = noisy_recording(duration=2000.0)
    spikes = recording.voltage > 10.0
    data = sweeps(recording.current, recording.voltage, spikes, before=0, after=1)
    candidates = np.arange(20, 45) * DT
    errors = profile_refractory(TRUTH, data, candidates).errors
    assert candidates[np.argmin(errors)] == pytest.approx(TRUTH.t_ref)
    # What is left at the truth is the noise: 0.04 mV^2, of 20 000 samples, known to 1 % (sqrt(2/20000)); three of them.
    assert errors.min() == pytest.approx(0.04, rel=0.03)


def test_the_profile_equals_least_squares_on_simulated_responses():
    """One candidate against a fit in NumPy on responses from a plain Python loop."""
    rng = np.random.default_rng(0)
    steps, tau_m, n_ref = 120, 9.0, 7
    current, voltage = rng.normal(100.0, 50.0, steps), rng.normal(-60.0, 2.0, steps)
    spikes, mask = np.zeros(steps), np.ones(steps)
    spikes[[20, 60]], mask[60:66] = 1.0, 0.0
    decay = np.exp(-DT / tau_m)

    def respond(r_m, v_rest, v_reset, v):
        trace, held = [v], 0  # the first sample ends the first step
        for n in range(1, steps):
            v = v if held else v_rest + r_m * current[n] + (v - v_rest - r_m * current[n]) * decay
            held = max(held - 1, 0)
            if spikes[n]:
                v, held = v_reset, n_ref
            trace.append(v)
        return np.array(trace)

    used = mask > 0
    columns = np.stack([respond(1, 0, 0, 0), respond(0, 1, 0, 0), respond(0, 0, 1, 0)], axis=1)[used]
    target = (voltage - respond(0, 0, 0, voltage[0]))[used]
    solution, *_ = np.linalg.lstsq(columns, target, rcond=None)
    expected = np.mean((target - columns @ solution) ** 2)
    rows = {"spikes": spikes[None] > 0, "judged": mask[None] > 0}
    data = Data(current[None], voltage[None], **rows, dt=DT)
    found = profile_refractory(replace(TRUTH, tau_m=tau_m), data, np.array([n_ref * DT]))
    np.testing.assert_allclose(found.solutions[0], solution, rtol=1e-6)
    assert found.errors[0] == pytest.approx(
        expected, rel=1e-9
    )  # normal equations square a condition number of about 1e3


def test_the_bracket_contains_the_threshold():
    recording = noisy_recording(duration=2000.0, noise=0.0)
    data = sweeps(recording.current, recording.voltage, recording.voltage > 10.0, before=0, after=1)
    bracket = bracket_threshold(TRUTH, data)
    assert bracket.silent < TRUTH.v_th <= bracket.lowest <= bracket.highest
    # One step of 0.1 ms moves the voltage by up to dt/tau_m times some 20 mV.
    assert bracket.lowest - bracket.silent < 0.2


def test_the_regression_starts_near_the_truth_in_spite_of_noise():
    quiet = replace(TRUTH, v_th=0.0)
    recording = noisy_recording(TRUTH, duration=2000.0)
    _, output = jl.simulate(jl.LIF(dt=DT), quiet, recording.current[0])
    voltage = np.asarray(output.v)[None] + np.random.default_rng(0).normal(0.0, 0.2, (1, 20_000))
    data = sweeps(recording.current, voltage, np.zeros(voltage.shape, bool), before=0, after=0)
    tau_m, r_m, v_rest = regress_membrane(data)
    # A start: the trapezoid of the current over 1 ms blocks and the noise in V bias tau_m by some percent.
    assert (tau_m, r_m, v_rest) == pytest.approx((17.0, 0.12, -68.0), rel=0.1)


def test_steps_give_the_membrane_from_small_steps_and_the_rest_from_rates(steps_fit):
    result = steps_fit
    assert result.protocol == "steps"
    # The passive parameters come from a noiseless exponential.
    for name in ("tau_m", "r_m", "v_rest"):
        assert getattr(result.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    # Counts in 500 ms know a rate to 2 Hz, so that a fit of them all has an error of about 2/sqrt(12) Hz.
    assert result.scores["f_i"]["rmse"] < 1.0
    assert result.params.v_th == pytest.approx(TRUTH.v_th, abs=1.0)


def test_a_rectifying_membrane_and_a_cell_that_fires_at_rest_are_named():
    recording = step_recording(TRUTH, LEVELS - 20.0)
    voltage = np.array(recording.voltage)
    voltage[0] = np.maximum(voltage[0], -71.0)  # -80 pA would take it to -77.6
    clipped = jl.Recording(current=recording.current, voltage=voltage, dt=DT)
    assert any("rectifies" in note for note in jl.fit_recording(clipped).warnings)
    assert not any("rectifies" in note for note in jl.fit_recording(recording).warnings)


def test_an_unreliable_cell_is_not_scored_by_its_reliability():
    """Four responses that share only their stimulus's mean: what one repeat says of another is chance."""
    rng = np.random.default_rng(1)
    current = np.tile(rng.normal(200.0, 10.0, 20_000), (4, 1))
    trains = rng.random(current.shape) < 1e-3
    recording = jl.Recording(current=current, dt=DT)
    scores = spike_scores(recording, trains, trains[::-1])
    assert scores["reliability"] < 0.2 and scores["coincidence_factor_over_reliability"] is None
    (note,) = unreliable_notes(recording, trains)
    assert f"the cell's own reliability is {scores['lowest_reliability']:.2f}" in note


def test_fits_of_both_kinds_report_intervals_around_their_values(noisy_fit, steps_fit):
    voltage = {"tau_m", "r_m", "v_rest", "v_reset", "t_ref"}
    assert set(noisy_fit.intervals) == voltage and set(steps_fit.intervals) == voltage | {"v_th"}
    for fit in (noisy_fit, steps_fit):
        assert fit.undetermined == ()
        for name, (low, high) in fit.intervals.items():
            assert low < getattr(fit.params, name) < high, name
    low, high = noisy_fit.intervals["tau_m"]
    assert low < TRUTH.tau_m < high < 1.05 * low


def test_a_model_is_scored_beside_what_the_cell_repeats():
    """Three repeats that share all but some spikes, and a model that misses every second of the shared ones."""
    rng = np.random.default_rng(0)
    shared = np.zeros(20_000, bool)
    shared[100::400] = True
    cell = shared[None] | (rng.random((3, 20_000)) < 5e-4)
    model = np.tile(shared & (np.arange(20_000) % 800 == 100), (3, 1))
    scores = spike_scores(jl.Recording(np.tile(rng.normal(size=20_000), (3, 1)), dt=DT), cell, model)
    trains = [np.flatnonzero(row) * DT + DT for row in cell]
    gamma = jl.spiketrains.mean_coincidence_factor(trains, [np.flatnonzero(model[0]) * DT + DT], duration=2000.0)
    own = jl.spiketrains.reliability(trains, duration=2000.0)
    assert 0.2 < gamma < own < 1.0
    assert scores["coincidence_factor_over_reliability"] == pytest.approx(float(gamma / own), rel=1e-12)
    assert (scores["rate_data"], scores["rate_model"]) == pytest.approx((cell.sum() / 6.0, 12.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "hh"}, ["hh", "lif, gif, deterministic-gif, passive"]),
        ({"model": "gif", "start": TRUTH}, ["gif", "start"]),
        ({"electrode": "yes"}, ["electrode", "yes", "auto"]),
        ({"window": (0.0, 9000.0)}, ["window", "9000 ms", "0 to 500 ms"]),
        ({"bounds": {"tau": (1.0, 2.0)}}, ["'tau'", "tau_m"]),
        ({"bounds": {"tau_m": (5.0, 2.0)}}, ["tau_m", "low"]),
        ({"start": replace(TRUTH, tau_m=900.0)}, ["tau_m = 900", "(0.5, 500)"]),
        ({"spike_rule": jl.SpikeRule(threshold=30.0)}, ["no spikes", "30 mV", "20 mV"]),
    ],
)
def test_bad_requests_are_refused_in_one_line(change, words):
    with pytest.raises(ValueError) as caught:
        jl.fit_recording(noisy_recording(duration=500.0, noise=0.0), **change)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_real_fast_spiking_interneuron(data_folder):
    pytest.importorskip("pyabf")
    result = jl.fit_recording(jl.read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf"))
    assert result.protocol == "steps"
    # A blind search over all parameters, by rates alone, reaches 3.0 Hz; first spikes count here too.
    assert result.scores["f_i"]["rmse"] <= 3.3 and result.scores["f_i"]["rmse_simulated"] <= 3.3
    assert result.scores["test"]["spikes_per_step_share_above_20"] <= 0.1
    assert result.scores["test"]["latency_error"] <= 5.0
    assert any("rectifies" in note for note in result.warnings)


def test_real_pyramidal_cell(data_folder):
    recording = jl.read_recording(data_folder / "recordings" / "l5_pyramidal_frozen_noise.npz").select([0, 1, 2])
    scores = jl.fit_recording(recording, window=(0.0, 4000.0)).scores["test"]
    # Repeats of the cell agree to 0.8; a plain LIF reaches some two thirds of that. Half of it would be a broken fit.
    assert scores["reliability"] > 0.6
    assert scores["coincidence_factor_over_reliability"] > 0.5
    assert scores["voltage_variance_explained"] > 0.7


def test_the_bounds_of_threshold_and_refractory_period_hold_for_steps(steps):
    bounds = {"v_th": (-50.0, -40.0), "t_ref": (0.5, 2.0)}  # the truth, -51 mV and 3.2 ms, lies outside
    params = jl.fit_recording(steps, bounds=bounds).params
    # The truth pulls towards the ends, which a logit reaches to rounding.
    assert params.v_th == pytest.approx(-50.0, abs=0.1) and params.v_th >= -50.0 - 1e-9
    assert 0.5 < params.t_ref <= 2.0


def test_forced_predictions_hold_the_recorded_spikes(noisy, noisy_fit):
    prediction = noisy_fit.predict(noisy, force_spikes=True)
    recorded = (np.flatnonzero(noisy.voltage[0] > 10.0) + 1) * DT
    np.testing.assert_allclose(prediction.spike_time, recorded, rtol=0, atol=1e-9)


def test_silence_where_the_cell_was_silent_is_no_complaint(steps, steps_fit):
    # Also without the voltage by which the fit knows its own sweeps.
    assert steps_fit.predict(steps).notes == () == steps_fit.predict(replace(steps, voltage=None)).notes


def test_spikes_at_the_start_of_every_sweep_leave_sweeps_to_judge_by():
    current = np.zeros((3, 4000))
    current[:, 1000:1200] = [[900.0], [1000.0], [1100.0]]
    _, output = jl.simulate(jl.LIF(dt=DT), jl.LIFParams(), current.T)
    voltage = np.where(output.spikes.T > 0, 20.0, output.v.T)
    fit = jl.fit_recording(jl.Recording(current=current, voltage=voltage, dt=DT))
    assert fit.held_out == (1,) and fit.window == (0.0, 400.0) and fit.scores["test"]["rate_data"] > 0.0
    assert fit.unseen == () and fit.as_scored().unseen == (1,)
    assert any("the scores those of a fit without the sweeps 1 alone" in note for note in fit.warnings)


def test_spike_times_under_constant_current_are_not_scored(steps_fit):
    scores = steps_fit.scores["train"]
    assert scores["coincidence_factor"] is None and scores["rate_data"] > 0.0


def test_held_out_steps_are_scored_as_counting_by_hand_does(steps, steps_fit):
    assert steps_fit.held_out == (1, 3, 5, 7, 9, 11), "of six silent and seven firing sweeps"
    test, scored = steps_fit.scores["test"], steps_fit.as_scored()
    free, onset = scored.predict(steps), 100.0
    cell = [np.flatnonzero(np.asarray(steps.voltage)[n] > 10.0) * DT + DT - onset for n in scored.unseen]
    model = [free.spike_time[free.spike_sweep == n] - onset for n in scored.unseen]
    off = [len(m) - len(c) for m, c in zip(model, cell, strict=True)]
    assert test["spikes_per_step"] == pytest.approx(np.mean([len(c) for c in cell]))
    assert test["spikes_per_step_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
    late = [abs(m[0] - c[0]) for m, c in zip(model, cell, strict=True) if len(c) and len(m)]
    assert test["latency_error"] == pytest.approx(np.median(late))
    assert test["silent_steps"] == 1.0 and test["spikes_per_step_rmse"] <= 1.0, "a count is uncertain by one"
    assert test["subthreshold_voltage_variance_explained"] > 0.999


def test_step_scores_of_a_noisy_model_are_those_of_its_mean():
    cell = [np.zeros(0), np.zeros(0), np.array([20.0, 60.0]), np.arange(5.0, 105.0, 4.0)]
    model = [
        [np.zeros(0), np.array([9.0]), np.array([26.0]), np.arange(3.0, 103.0, 5.0)],
        [np.zeros(0), np.array([7.0]), np.array([24.0, 80.0, 90.0]), np.arange(3.0, 103.0, 5.0)],
    ]
    found = step_scores(cell, model)
    assert found["spikes_per_step_rmse_to_20"] == pytest.approx(np.sqrt(1.0 / 3.0))  # off by 0, 1 and 0
    assert found["spikes_per_step_share_above_20"] == pytest.approx(5.0 / 25.0)
    assert (found["silent_steps"], found["latency_error"]) == (0.5, 3.5), "5 and 2 ms late or early"
    quiet = step_scores(cell[:2], [cell[:2]])
    assert (quiet["latency_error"], quiet["spikes_per_step_share_above_20"]) == (None, None)


def test_a_flipped_current_is_named(steps):
    voltage = np.where(steps.voltage > 10.0, 20.0, -136.0 - steps.voltage)  # mirrored about v_rest
    flipped = jl.Recording(current=steps.current, voltage=voltage, dt=DT)
    assert any("sign of the current" in note for note in jl.fit_recording(flipped).warnings)


def test_a_regression_that_leads_astray_is_not_the_last_word():
    """A second of 46 spikes, where the regression led to v_rest at its bound, tau_m nine times too long."""
    truth, dt = jl.LIFParams(tau_m=12.0), 0.5
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 200.0, 100.0, 5.0, 1000.0, dt)
    _, output = jl.simulate(jl.LIF(dt=dt), truth, current)
    found = jl.fit_recording(jl.Recording(current=current, voltage=output.v, spikes=output.spikes, dt=dt)).params
    # Without noise only the optimiser's end is left.
    for name in ("tau_m", "r_m", "v_rest", "v_reset", "t_ref"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=1e-5), name


def test_a_voltage_that_ignores_the_current_is_refused():
    rng = np.random.default_rng(1)
    voltage = rng.normal(-65.0, 1.0, (3, 30_000))
    for row in voltage:
        row[rng.choice(30_000, 30, replace=False)] = 20.0
    current = np.tile(100.0 * rng.standard_normal(30_000), (3, 1))
    with pytest.raises(ValueError, match="current: its changes .SD 100 pA around .* leave no trace in the voltage"):
        jl.fit_recording(jl.Recording(current=current, voltage=voltage, dt=0.1))
