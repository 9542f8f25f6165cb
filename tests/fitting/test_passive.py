"""The membrane alone, on voltages made by NumPy: closed exponentials under steps, a plain loop under noise."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from click.testing import CliRunner

import jaxlif as jl
from jaxlif.cli import main
from tests.command_line import TABLES

DT = 0.5
CELL = jl.LeakyParams(tau_m=15.0, r_m=0.15, v_rest=-68.0)
MODEL_CELL = jl.LeakyParams(tau_m=15.0, r_m=0.5, v_rest=-3.3)  # resistors and a capacitor: plateaus above 0 mV
LEVELS = np.array([-100.0, -50.0, 50.0, 100.0])


def membrane(params, current):
    """Return the voltage of a membrane at rest at first, step by step: exact for a current that is held."""
    decay, v, trace = np.exp(-DT / params.tau_m), np.full(len(current), params.v_rest), []
    for column in current.T:
        v_inf = params.v_rest + params.r_m * column
        v = v_inf + (v - v_inf) * decay
        trace.append(v)
    return np.stack(trace, axis=1)


def step_recording(params, noise=0.1):
    current = np.zeros((4, 2000))
    current[:, 400:1400] = LEVELS[:, None]
    voltage = membrane(params, current)
    # The loop against the closed exponential of the last step.
    t = (np.arange(400, 1400) - 399) * DT
    closed = params.v_rest + params.r_m * LEVELS[-1] * (1.0 - np.exp(-t / params.tau_m))
    np.testing.assert_allclose(voltage[-1, 400:1400], closed, rtol=0, atol=1e-9)
    voltage += np.random.default_rng(0).normal(0.0, noise, current.shape)
    return jl.Recording(current=current, voltage=voltage, dt=DT)


def noise_recording(params):
    rng = np.random.default_rng(1)
    current = 30.0 * np.cumsum(rng.normal(size=(4, 2000)), axis=1) / 20.0
    current -= current.mean()
    voltage = membrane(params, current) + rng.normal(0.0, 0.1, current.shape)
    return jl.Recording(current=current, voltage=voltage, dt=DT)


@pytest.mark.parametrize("params", [CELL, MODEL_CELL], ids=["cell", "model cell"])
@pytest.mark.parametrize("make", [step_recording, noise_recording])
def test_the_membrane_comes_back_within_its_intervals(params, make, tmp_path):
    recording = make(params)
    fit = jl.fit_recording(recording, "passive")
    assert set(fit.intervals) == {"tau_m", "r_m", "v_rest"} and fit.undetermined == ()
    for name, value in asdict(params).items():
        low, high = fit.intervals[name]
        # 0.1 mV of noise on thousands of samples: a per cent of tau_m, less of the others. An interval holds the truth
        # 19 times in 20; half its width more makes that 997 in 1000 of these twelve.
        assert low - 0.5 * (high - low) <= value <= high + 0.5 * (high - low), name
        assert high - low < (0.1 if name == "v_rest" else 0.1 * value), name
    steps = make is step_recording
    assert fit.protocol == ("steps" if steps else "fluctuating") and ("test" in fit.scores) == (not steps)
    # What is left is the noise, 0.1 mV of 0.01 mV² known to 2 % from some thousand samples.
    assert fit.scores["train" if steps else "test"]["voltage_rmse"] == pytest.approx(0.1, rel=0.06)
    assert not any("spike" in note and "no spikes" not in note for note in fit.warnings), fit.warnings
    again = jl.load_fit(fit.save(tmp_path))
    assert again.params == fit.params and isinstance(again.params, jl.LeakyParams)
    prediction = again.predict(recording)
    assert prediction.spike_time.size == 0 and not any("outside" in note for note in prediction.notes)
    np.testing.assert_allclose(prediction.voltage, membrane(fit.params, recording.current), rtol=0, atol=1e-9)
    forced = again.predict(recording, force_spikes=True)
    np.testing.assert_array_equal(forced.voltage[:, 0], recording.voltage[:, 0])


def test_a_membrane_under_a_rest_that_drifts_is_judged_at_each_sweeps_own():
    recording = step_recording(CELL)
    offsets = np.array([0.0, 3.0, 6.0, 9.0])
    fit = jl.fit_recording(replace(recording, voltage=recording.voltage + offsets[:, None]), "passive")
    assert fit.params.v_rest == pytest.approx(CELL.v_rest + np.median(offsets), abs=0.1)
    # The noise of 0.1 mV, and baselines known to 0.1 mV * sqrt(pi / 2 / 100).
    assert fit.scores["train"]["voltage_rmse"] == pytest.approx(0.1, rel=0.06)
    (note,) = (note for note in fit.warnings if "rest moves by 9" in note)
    assert note.endswith("and v_rest is that of the middle one") and "f-I curve" not in str(fit.warnings)


@pytest.fixture(scope="module")
def mixed():
    """Steps whose largest makes the cell spike."""
    recording = step_recording(CELL)
    voltage = np.array(recording.voltage)
    voltage[-1, 500:1300:100] = 30.0
    return replace(recording, voltage=voltage)


def test_sweeps_with_spikes_are_left_out_and_said(mixed):
    fit = jl.fit_recording(mixed, "passive")
    assert "fitted to the sweeps without a spike: 0, 1, 2" in fit.warnings and fit.data["sweeps"] == 3
    assert fit.params.tau_m == pytest.approx(15.0, rel=0.02)
    with pytest.raises(ValueError, match="every sweep has spikes"):
        jl.fit_recording(mixed.select([3]), "passive")
    with pytest.raises(ValueError, match=r"held_out = 'sweep:0': .* choose the sweeps"):
        jl.fit_recording(mixed, "passive", held_out="sweep:0")


def test_what_needs_spikes_is_refused_with_advice():
    recording = step_recording(CELL)
    for model in ("lif", "gif"):
        with pytest.raises(
            ValueError, match="voltage has no spikes.*the membrane alone is fitted with `model` passive"
        ):
            jl.fit_recording(recording, model)
    with pytest.raises(ValueError, match="voltage has no spikes: the recording's own `spikes` are False"):
        jl.fit_recording(replace(recording, spikes=np.zeros(recording.current.shape, bool)))
    with pytest.raises(ValueError, match='drift is for "gif" and "deterministic-gif"'):
        jl.fit_recording(recording, "passive", drift=True)
    with pytest.raises(ValueError, match="finds its own start"):
        jl.fit_recording(recording, "passive", start=jl.LIFParams())


def test_the_command_line_fits_predicts_and_exports_a_membrane(tmp_path):
    recording, file = step_recording(CELL), tmp_path / "cell.npz"
    np.savez(file, current=recording.current, voltage=recording.voltage, dt=DT)
    run, out = CliRunner().invoke, tmp_path / "out"
    refused = run(main, ["fit", str(file), "--out", str(out)])
    assert refused.exit_code == 2 and "fitted with --model passive" in refused.output and not out.exists()
    fitted = run(main, ["fit", str(file), "--model", "passive", "--out", str(out)])
    assert fitted.exit_code == 0 and "spike threshold" not in fitted.output, fitted.output
    assert {path.name for path in out.iterdir()} == {"fit.json", "report.html", "steps.png", "steps.svg", *TABLES}
    predicted = run(main, ["predict", str(out / "fit.json"), str(file), "--out", str(tmp_path / "p.npz")])
    assert predicted.exit_code == 0 and "voltage variance explained" in predicted.output, predicted.output
    for target, message in {
        "json": "passive for json",
        "nest": "no neuron of nest",
        "brian2": "no neuron of brian2",
    }.items():
        script = tmp_path / f"cell.{'json' if target == 'json' else 'py'}"
        assert message in run(main, ["export", str(out / "fit.json"), "--to", target, "--out", str(script)]).output
