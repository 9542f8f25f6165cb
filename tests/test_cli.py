"""The command line: good paths, and for everything bad one line, exit status 2 and nothing half-written."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from click.testing import CliRunner

import jaxlif as jl
from jaxlif import pictures, report
from jaxlif.cli import main
from jaxlif.fitting.drift import Drift
from jaxlif.interop import to_brian2, to_nest, to_script

FIGURES = ("voltage", "raster", "intervals", "worst")
DT, DURATION = 0.5, 2000.0  # ms
TRUTH = jl.LIFParams(tau_m=12.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.0)


def call(*args):
    with jax.enable_x64(False):  # as a fresh process does it
        return CliRunner().invoke(main, [str(arg) for arg in args])


def good(*args):
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result


def bad(*args):
    """Return the one line of a refusal."""
    result = call(*args)
    lines = result.output.strip().splitlines()
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(lines) == 1 and lines[0].startswith("Error: "), lines
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return lines[0]


@cache
def simulated(seed, duration):
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(seed), 180.0, 150.0, 5.0, duration, DT)
    _, output = jl.simulate(jl.LIF(dt=DT), TRUTH, noise)
    return np.asarray(noise), np.asarray(output.v), np.asarray(output.spikes) > 0


def cell(seed=0, duration=DURATION, drawn=20.0):
    """Return current [1, T], voltage with its spikes drawn for one step, and the spike raster of the true neuron."""
    noise, v, spikes = simulated(seed, duration)
    return noise[None].copy(), np.where(spikes, drawn, v)[None], spikes[None].copy()


@pytest.fixture
def drawn():
    """Ask for the figures, which take most of a fit's time: without this a test has the page alone."""


@pytest.fixture(autouse=True)
def pictures_where_asked_for(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "pictures", lambda *args: ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def recording(folder):
    current, voltage, _ = cell()
    np.savez(folder / "cell.npz", current=current, voltage=voltage, dt=DT)
    return folder / "cell.npz"


@pytest.fixture(scope="module")
def fitted(folder, recording):
    """The folder of a fit, and what the command printed."""
    return folder / "out", good("fit", recording, "--out", folder / "out").output


@pytest.fixture(scope="module")
def steps(folder):
    """A step family of the true neuron: two silent levels and six that fire."""
    levels = np.array([-50.0, 50.0, 160.0, 200.0, 250.0, 300.0, 350.0, 400.0])
    current = np.zeros((len(levels), 1600))
    current[:, 400:1400] = levels[:, None]
    _, output = jl.simulate(jl.LIF(dt=DT), TRUTH, current.T)
    path = folder / "steps.npz"
    np.savez(path, current=current, voltage=np.asarray(output.v).T, spikes=np.asarray(output.spikes).T, dt=DT)
    return path


# --- fit --------------------------------------------------------------------------------------------------


def test_fit_writes_a_fit_a_report_and_figures_and_nothing_else(fitted):
    out, printed = fitted
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["fit.json", "report.html"] + [f"{n}.{kind}" for n in FIGURES for kind in ("png", "svg")]
    )
    for words in ("membrane time constant", "GΩ", "coincidence factor", "report.html", "fit.json"):
        assert words in printed


def test_fit_json_holds_everything(fitted, recording):
    document = json.loads((fitted[0] / "fit.json").read_text())
    assert document["format"] == "jaxlif fit 1" and document["model"] == "lif"
    assert document["protocol"] == "fluctuating"
    units = {name: p["unit"] for name, p in document["parameters"].items()}
    assert units == {"tau_m": "ms", "r_m": "GΩ", "v_rest": "mV", "v_th": "mV", "v_reset": "mV", "t_ref": "ms"}
    for name, parameter in document["parameters"].items():
        assert parameter["standard_name"] and parameter["bounds"][0] <= parameter["value"] <= parameter["bounds"][1]
        # Noiseless data of the model itself; the drawn spikes leave the rest of the trace untouched.
        assert parameter["value"] == pytest.approx(getattr(TRUTH, name), rel=2e-3), name
    assert set(document["scores"]) == {"train", "test"}
    assert document["scores"]["test"]["coincidence_factor"] > 0.99
    assert document["scores"]["test"]["voltage_variance_explained"] > 0.999
    assert document["train_ms"] == [0.0, 0.7 * DURATION]
    assert document["data"]["name"] == "cell.npz" and document["data"]["dt_ms"] == DT
    assert document["data"]["sha256"] == hashlib.sha256(recording.read_bytes()).hexdigest()
    assert document["seed"] == 0 and document["warnings"] == []
    assert {"jaxlif", "jax", "jaxlib", "optax", "numpy", "python"} == set(document["versions"])


def test_a_fit_read_back_is_the_same(fitted, recording, tmp_path):
    result = jl.load_fit(fitted[0] / "fit.json")
    direct = jl.fit_recording(jl.read_recording(recording))
    assert asdict(result.params) == asdict(direct.params)
    assert result.scores == direct.scores and result.train == direct.train and result.spike_rule == direct.spike_rule
    result.save(tmp_path)
    assert (tmp_path / "fit.json").read_bytes() == (fitted[0] / "fit.json").read_bytes()
    data = jl.read_recording(recording)
    for a, b in zip(result.predict(data), direct.predict(data), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_seed_writes_the_same_bytes(drawn, fitted, recording, tmp_path):
    good("fit", recording, "--out", tmp_path / "again")
    for path in fitted[0].iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def windowed(folder, recording):
    good("fit", recording, "--out", folder / "window", "--train", "0:1")
    return (folder / "window" / "fit.json").read_bytes()


@pytest.mark.parametrize("window", ["0:1s", "0:1000ms", "0:1000", " 0 : 1.0 s "])
def test_windows_in_seconds_and_ms(windowed, recording, tmp_path, window):
    assert json.loads(windowed)["train_ms"] == [0.0, 1000.0]
    good("fit", recording, "--out", tmp_path, "--train", window)
    assert (tmp_path / "fit.json").read_bytes() == windowed


def test_bounds_hold_and_are_noted(recording, tmp_path):
    printed = good("fit", recording, "--out", tmp_path, "--bounds", "tau_m=15:40", "--bounds", "t_ref=2:4").output
    document = json.loads((tmp_path / "fit.json").read_text())["parameters"]
    assert document["tau_m"]["bounds"] == [15.0, 40.0] and document["t_ref"]["bounds"] == [2.0, 4.0]
    assert 15.0 < document["tau_m"]["value"] < 15.1
    assert "note: tau_m = 15 ms lies at the end of its bounds, 15 to 40 ms" in printed


def test_spikes_that_stay_below_0_mv_need_the_option_and_are_mentioned(tmp_path):
    current, voltage, spikes = cell(drawn=-10.0)
    np.savez(tmp_path / "low.npz", current=current, voltage=voltage, dt=DT)
    line = bad("fit", tmp_path / "low.npz", "--out", tmp_path / "out")
    assert "never crosses 0 mV" in line and "-10 mV" in line and "spike threshold" in line
    good("fit", tmp_path / "low.npz", "--out", tmp_path / "out", "--spike-threshold", "-30")
    fit = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert fit["spike_rule"]["threshold"] == -30.0
    assert fit["scores"]["train"]["coincidence_factor"] > 0.99
    # Half of the spikes end below 0 mV: a fit to the other half must not pass in silence.
    rows = np.flatnonzero(spikes[0])
    voltage[0, rows[::2]] = 20.0
    np.savez(tmp_path / "half.npz", current=current, voltage=voltage, dt=DT)
    printed = good("fit", tmp_path / "half.npz", "--out", tmp_path / "half").output
    assert (
        f"{len(rows) // 2} fast peaks end below 0 mV, the highest at -10 mV, and are not counted as spikes" in printed
    )


@pytest.mark.parametrize("command", ["fit", "fi", "ladder", "predict"])
def test_every_command_that_finds_spikes_has_the_rule(recording, tmp_path, command):
    """A level that no spike reaches leaves none: whoever says so has used the option."""
    if command == "predict":
        good("fit", recording, "--out", tmp_path / "fit")
        options = (recording, "--dead-time", 20.0, "--out", tmp_path / "out.npz")
        assert "come within the dead time of 20 ms" in good("predict", tmp_path / "fit" / "fit.json", *options).output
        return
    out = () if command == "ladder" else ("--out", tmp_path / "out")
    for options in (
        ["--spike-threshold", 30.0],
        ["--spike-width", 0.0],
        ["--spike-method", "dvdt", "--spike-width", 0],
    ):
        assert "voltage has no spikes" in bad(command, recording, *out, *options)
    assert "dead_time = -1.0 ms: dead_time must be 0 ms or more" in bad(command, recording, *out, "--dead-time", -1)


def test_a_current_that_has_nothing_to_do_with_the_voltage_is_refused(tmp_path):
    _, voltage, _ = cell(seed=0)
    other, _, _ = cell(seed=1)
    np.savez(tmp_path / "swapped.npz", current=other, voltage=voltage, dt=DT)
    for command in (("fit", "--out", tmp_path / "out"), ("ladder",), ("fi", "--out", tmp_path / "out")):
        assert "leave no trace in the voltage" in bad(command[0], tmp_path / "swapped.npz", *command[1:])


def test_current_of_an_npz_can_be_named(recording, tmp_path):
    printed = good("fit", recording, "--out", tmp_path, "--current", "commanded").output
    assert "the current is the command" in printed
    assert json.loads((tmp_path / "fit.json").read_text())["data"]["current_source"] == "commanded"


def test_integers_are_numbers(recording, fitted, tmp_path):
    """An int16 file, as amplifiers write them, is read and not truncated further."""
    current, voltage, _ = cell()
    arrays = {"current": current.round().astype(np.int16), "voltage": voltage.round().astype(np.int16)}
    np.savez(tmp_path / "int.npz", **arrays, dt=DT)
    good("fit", tmp_path / "int.npz", "--out", tmp_path / "out")
    # Rounding to 1 mV and 1 pA is noise of 0.3 mV and 0.3 pA.
    assert jl.load_fit(tmp_path / "out" / "fit.json").params.tau_m == pytest.approx(TRUTH.tau_m, rel=0.02)


def test_how_sweeps_differ_is_a_line(fitted, recording, tmp_path, monkeypatch):
    assert "sweeps differ" not in fitted[1]
    drift = Drift(np.array([-0.5, 0.5]), np.array([0.98, 1.02]))
    differing = replace(jl.load_fit(fitted[0] / "fit.json"), drift=drift)
    monkeypatch.setattr("jaxlif.cli.fit_recording", lambda *args, **options: differing)
    printed = good("fit", recording, "--out", tmp_path / "out").output
    line = "sweeps differ: v_rest fitted, -0.50 to +0.50 mV off its mean; gain of the current 0.980 to 1.020"
    assert line in printed.splitlines()


# --- fit of several files ---------------------------------------------------------------------------------


def test_several_files_have_a_folder_each_and_a_bad_one_stops_nobody(fitted, recording, steps, tmp_path):
    (tmp_path / "torn.npz").write_bytes(recording.read_bytes()[:5000])
    out = tmp_path / "out"
    result = good("fit", recording, tmp_path / "torn.npz", steps, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["cell", "steps"]
    assert (out / "cell" / "fit.json").read_bytes() == (fitted[0] / "fit.json").read_bytes()
    assert {path.name for path in (out / "steps").iterdir()} == {"fit.json", "report.html"}
    lines = result.output.splitlines()
    assert lines[0].split()[:3] == ["cell", "tau_m", "(ms)"] and "Γ" in lines[0] and "f-I RMSE (Hz)" in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["cell", "steps"]
    assert f"{jl.load_fit(out / 'steps' / 'fit.json').params.tau_m:.4g}" in lines[2].split()
    assert sum(line.startswith("failed: torn: torn.npz: ") for line in lines) == 1
    assert lines[-1].startswith("2 of 3 fitted: ")


def test_warnings_of_several_files_stand_with_their_own(recording, tmp_path):
    """nA taken for pA is noted of the file that has it, on the terminal and in its fit alone."""
    np.savez(tmp_path / "na.npz", **damaged(current=1e-3 * cell()[0]))
    printed = good("fit", recording, tmp_path / "na.npz", "--out", tmp_path / "out").output
    assert "note: na: " in printed and "note: cell: " not in printed and "warning:" not in printed
    notes = {name: jl.load_fit(tmp_path / "out" / name / "fit.json").warnings for name in ("cell", "na")}
    assert not notes["cell"] and any("input resistance" in note for note in notes["na"])


def test_exit_status_1_where_none_of_several_could_be_fitted(tmp_path):
    (tmp_path / "empty.npz").write_bytes(b"")
    result = call("fit", tmp_path / "empty.npz", tmp_path / "no.npz", "--out", tmp_path / "out")
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert [line.partition(": ")[2] for line in result.output.splitlines()] == [
        "empty: empty.npz: the file is empty",
        f"no: {tmp_path / 'no.npz'}: no such file",
    ]


def test_several_files_that_cannot_be_told_apart_or_written_are_refused_at_once(recording, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlif.cli.fit_recording", lambda *args, **options: pytest.fail("nothing is fitted before"))
    out = tmp_path / "out"
    assert "have one name, cell: rename one" in bad("fit", recording, tmp_path / "cell.abf", "--out", out)
    assert "model = 'hh'" in bad("fit", recording, "b.npz", "--model", "hh", "--out", out)
    assert "Missing argument 'FILE...'" in call("fit", "--out", out).output
    assert not out.exists()
    out.mkdir()
    (out / "b").write_text("mine")
    assert "this is a file" in bad("fit", recording, "b.npz", "--out", out)
    assert [path.name for path in out.iterdir()] == ["b"]


# --- predict ----------------------------------------------------------------------------------------------


def test_predict_writes_the_named_arrays(fitted, recording, tmp_path):
    printed = good("predict", fitted[0] / "fit.json", recording, "--out", tmp_path / "p.npz", "--repeats", 3).output
    with np.load(tmp_path / "p.npz") as arrays:
        assert sorted(arrays.files) == ["electrode_drop", "spike_repeat", "spike_sweep", "spike_time", "voltage"]
        time, repeat, sweep, voltage = (arrays[n] for n in ("spike_time", "spike_repeat", "spike_sweep", "voltage"))
    _, _, spikes = cell()
    expected = (np.flatnonzero(spikes[0]) + 1) * DT  # a spike is labelled with its step's end
    assert voltage.shape == (1, DURATION / DT)
    assert np.bincount(repeat).tolist() == [len(time) // 3] * 3 and not sweep.any()
    for n in range(3):
        assert abs(len(expected) - (repeat == n).sum()) <= 1
        assert jl.spiketrains.coincidence_factor(expected, time[repeat == n], duration=DURATION, delta=1.0) > 0.97
    assert "coincidence factor" in printed and "voltage RMSE" not in printed
    assert f"{len(time)} spikes in 3 responses" in printed


def test_predict_with_forced_spikes_scores_the_voltage(fitted, recording, tmp_path):
    printed = good("predict", fitted[0] / "fit.json", recording, "--out", tmp_path / "p.npz", "--force-spikes").output
    assert "voltage RMSE, spikes forced (mV)" in printed and "voltage variance explained" in printed
    with np.load(tmp_path / "p.npz") as arrays:
        voltage = arrays["voltage"]
    _, recorded, spikes = cell()
    away = jl.losses.spike_mask(spikes[0], before=2, after=2)
    assert np.abs(voltage[0, away] - recorded[0, away]).max() < 0.1  # mV; parameters are known to 1e-3


def test_predict_without_a_voltage_prints_no_scores(fitted, tmp_path):
    current, _, _ = cell()
    np.savez(tmp_path / "stimulus.npz", current=np.repeat(current, 2, axis=0), dt=DT)
    args = ("predict", fitted[0] / "fit.json", tmp_path / "stimulus.npz", "--out", tmp_path / "p.npz")
    printed = good(*args).output
    assert "score" not in printed
    with np.load(tmp_path / "p.npz") as arrays:
        time, sweep = arrays["spike_time"], arrays["spike_sweep"]
    np.testing.assert_array_equal(time[sweep == 0], time[sweep == 1])
    line = bad(*args, "--force-spikes")
    assert "force_spikes needs a recording with a voltage" in line


def test_predict_repeats_what_the_fit_warns_of(fitted, recording, tmp_path):
    document = json.loads((fitted[0] / "fit.json").read_text(encoding="utf-8"))
    document["warnings"] = ["do not use this model"]
    (tmp_path / "fit.json").write_text(json.dumps(document), encoding="utf-8")
    printed = good("predict", tmp_path / "fit.json", recording, "--out", tmp_path / "p.npz").output
    assert "note: of the fit: do not use this model\n" in printed


def test_predict_refuses(fitted, recording, tmp_path):
    fit = fitted[0] / "fit.json"
    assert ".npz" in bad("predict", fit, recording, "--out", tmp_path / "p.txt")
    assert "repeats = 0" in bad("predict", fit, recording, "--out", tmp_path / "p.npz", "--repeats", 0)
    assert "no such file" in bad("predict", tmp_path / "no.json", recording, "--out", tmp_path / "p.npz")
    assert not list(tmp_path.iterdir())


def broken_fits(text):
    def changed(**values):
        return json.dumps(json.loads(text) | values)

    parameters = json.loads(text)["parameters"]
    no_value = {name: {k: v for k, v in p.items() if k != "value"} for name, p in parameters.items()}
    low = parameters | {"v_th": parameters["v_th"] | {"value": -100.0}}
    word = parameters | {"v_th": parameters["v_th"] | {"value": "high"}}
    return {
        "empty": ("", "Invalid JSON"),
        "truncated": (text[: len(text) // 2], "Invalid JSON"),
        "foreign": ('{"model": "gif"}', "format: field required"),
        "a list": ("[1, 2]", "the file = [1, 2]"),
        "another version": (changed(format="jaxlif fit 99"), 'reads "jaxlif fit 1"'),
        "no values": (changed(parameters=no_value), "parameters.tau_m.value: field required"),
        "a list of parameters": (changed(parameters=[1]), "parameters = [1]"),
        "unknown parameter": (changed(parameters=parameters | {"q": parameters["v_th"]}), "'q'"),
        "a word": (changed(parameters=word), "'high'"),
        "no spike rule": (changed(spike_rule=None), "spike_rule = None"),
        "v_reset above v_th": (changed(parameters=low), "v_reset must be below v_th = -100 mV"),
    }


@pytest.mark.parametrize("name", broken_fits('{"parameters": {"v_th": {"value": 1}}}'))
def test_a_broken_fit_is_refused_by_name(fitted, recording, tmp_path, name):
    text, words = broken_fits((fitted[0] / "fit.json").read_text())[name]
    (tmp_path / "fit.json").write_text(text)
    line = bad("predict", tmp_path / "fit.json", recording, "--out", tmp_path / "p.npz")
    assert words in line and "fit.json" in line
    assert not (tmp_path / "p.npz").exists()


# --- simulate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stimulus", "expected"),
    [
        ("step:250:50:150", {0: 0.0, 49: 0.0, 50: 250.0, 149: 250.0, 150: 0.0}),
        ("ramp:0:400", {0: 1.0, 100: 201.0, 199: 399.0}),
        ("sine:100:50:5", {0: 100.0, 50: 150.0, 150: 50.0}),
        ("noise:200:150:5", {}),
    ],
)
def test_simulate_each_stimulus(tmp_path, stimulus, expected):
    path = tmp_path / "new" / "s.npz"
    good("simulate", "--out", path, "--stimulus", stimulus, "--duration", 200, "--dt", 1, "--repeats", 2)
    recording = jl.read_recording(path)
    assert recording.num_sweeps == 2 and recording.dt == 1.0 and recording.num_steps == 200
    np.testing.assert_array_equal(recording.current[0], recording.current[1])
    for sample, value in expected.items():
        # Stimuli may take a step's start, middle or end: a millisecond of these is under 5 pA.
        assert recording.current[0, sample] == pytest.approx(value, abs=5.0)
    assert recording.voltage is not None and recording.spikes is not None


def test_simulate_is_the_library(tmp_path):
    good(
        "simulate", "--out", tmp_path / "s.npz", "--set", "tau_m=20", "--set", "t_ref=2", "--duration", 300, "--seed", 3
    )
    recording = jl.read_recording(tmp_path / "s.npz")
    params = jl.LIFParams(tau_m=20.0, t_ref=2.0)
    _, output = jl.simulate(jl.LIF(dt=0.1), params, recording.current[0])
    np.testing.assert_allclose(recording.voltage[0], output.v, atol=1e-9)
    np.testing.assert_array_equal(recording.spikes[0], np.asarray(output.spikes) > 0)
    assert recording.spikes.any()


def test_simulate_hodgkin_huxley_and_seeds(tmp_path):
    args = ("simulate", "--model", "hodgkin-huxley", "--duration", 200, "--repeats", 2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        good(*args, "--seed", seed, "--out", tmp_path / f"{name}.npz")
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b and a != c
    recording = jl.read_recording(tmp_path / "a.npz")
    assert recording.num_sweeps == 2 and recording.spikes is None
    assert (recording.voltage[0] != recording.voltage[1]).any(), "repeats have noise of their own"


def test_simulated_recordings_are_fitted(tmp_path, fitted):
    args = ("--fit", fitted[0] / "fit.json", "--set", "t_ref=4", "--dt", DT, "--duration", DURATION, "--repeats", 1)
    good("simulate", "--out", tmp_path / "s.npz", *args)
    good("fit", tmp_path / "s.npz", "--out", tmp_path / "out")
    params = jl.load_fit(tmp_path / "out" / "fit.json").params
    assert params.t_ref == 4.0
    assert params.tau_m == pytest.approx(TRUTH.tau_m, rel=2e-3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--duration", "-5"], ["duration", "-5", "ms"]),
        (["--duration", "nan"], ["duration", "nan"]),
        (["--duration", "10.05"], ["duration", "10.05"]),
        (["--dt", "0"], ["dt", "0", "ms"]),
        (["--dt", "-0.1"], ["dt", "-0.1", "ms"]),
        (["--repeats", "0"], ["repeats = 0"]),
        (["--stimulus", "step:100:900:100"], ["start = 900", "stop = 100", "ms"]),
        (["--stimulus", "noise:1:2"], ["noise:1:2", "noise:MEAN:SD:TAU"]),
        (["--stimulus", "noise:1:2:x"], ["'x' is not a number"]),
        (["--stimulus", "square:1"], ["square:1", "step:AMPLITUDE"]),
        (["--set", "tau_m=0"], ["tau_m = 0 ms", "greater than 0"]),
        (["--set", "tau_m=-3"], ["tau_m = -3 ms", "greater than 0"]),
        (["--set", "v_reset=-40"], ["v_reset = -40 mV", "below v_th = -55 mV"]),
        (["--set", "t_ref=nan"], ["t_ref = nan ms", "finite"]),
        (["--set", "tau=3"], ["'tau' is no parameter", "tau_m"]),
        (["--set", "tau_m=long"], ["'long' is not a number"]),
        (["--model", "hodgkin-huxley", "--set", "tau_m=20"], ["--set is of --model lif only"]),
        (["--model", "hodgkin-huxley", "--stimulus", "ramp:0:1"], ["--stimulus is of --model lif only"]),
    ],
)
def test_simulate_refuses(tmp_path, args, words):
    line = bad("simulate", "--out", tmp_path / "s.npz", *args)
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


# --- fi ---------------------------------------------------------------------------------------------------


def test_fi_of_a_table_of_rates(drawn, tmp_path):
    currents = np.linspace(400.0, 0.0, 9)
    rates = np.asarray(jl.theory.firing_rate(TRUTH, currents))
    rows = "\n".join(f"{0.001 * i:.6g},{f:.9g}" for i, f in zip(currents, rates, strict=True))
    (tmp_path / "rates.csv").write_text(f"current_pA,rate_Hz\n{rows}\n")
    args = ("--current-gain", 1000, "--tau-m", TRUTH.tau_m, "--r-m", TRUTH.r_m, "--v-rest", TRUTH.v_rest)
    printed = good("fi", tmp_path / "rates.csv", "--out", tmp_path / "out", *args).output
    fit = jl.load_fit(tmp_path / "out" / "fit.json")
    params = fit.params
    assert fit.data["corrections"] == {"current_gain": 1000.0}
    for name in ("v_th", "v_reset", "t_ref"):  # exact rates: the optimum is the truth
        assert getattr(params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    assert "fitted (Hz)" in printed and "do not determine" in printed and "threshold lies" not in printed
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"f_i_curve.png", "f_i_curve.svg", "fit.json", "report.html"}


def test_fi_of_a_recording_of_steps(drawn, steps, tmp_path):
    good("fi", steps, "--out", tmp_path)
    fit = jl.load_fit(tmp_path / "fit.json")
    assert fit.protocol == "steps" and fit.curve["current_pA"][0] == -50.0
    for name in ("tau_m", "r_m", "v_rest"):  # noiseless subthreshold steps determine the membrane
        assert getattr(fit.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    # Rates counted in 500 ms come in units of 2 Hz.
    assert fit.scores["f_i"]["rmse"] < 2.0
    assert (tmp_path / "steps.png").exists()


def test_fi_refuses(recording, steps, tmp_path):
    table = tmp_path / "rates.csv"
    table.write_text("current_pA,rate_Hz\n0,0\n100,10\n200,20\n300,30\n")
    out = tmp_path / "out"
    assert "tau_m = 0 ms: tau_m must be greater than 0 ms" in bad("fi", table, "--out", out, "--tau-m", 0)
    assert "r_m = -1 GΩ" in bad("fi", table, "--out", out, "--r-m", -1)
    assert "--tau-m is for a .csv of rates only" in bad("fi", steps, "--out", out, "--tau-m", 20)
    assert "not a family of steps" in bad("fi", recording, "--out", out)
    assert "no such file" in bad("fi", tmp_path / "no.csv", "--out", out)
    table.write_text("current_pA,rate_Hz\n0,0\n100,0\n200,0\n")
    assert "above 0 Hz" in bad("fi", table, "--out", out)
    table.write_text("current_pA,rate_Hz\n0,0\n100,-3\n200,10\n")
    assert "0 Hz or more" in bad("fi", table, "--out", out)
    table.write_text("current,rate\n0,0\n100,3\n200,10\n")
    assert "names no unit" in bad("fi", table, "--out", out)
    assert not out.exists()


# --- bad recordings ---------------------------------------------------------------------------------------


def with_value(array, value):
    array = array.copy()
    array[0, 123] = value
    return array


def damaged(**changes):
    current, voltage, _ = cell()
    arrays = {"current": current, "voltage": voltage, "dt": DT} | changes
    return {name: value for name, value in arrays.items() if value is not None}


PULSES = np.tile(np.repeat([-50.0, 100.0], 400), 5)[None, 200:]  # 200 ms each: into a resistor, a model cell's voltage
BAD_RECORDINGS = {
    "no spikes": (lambda: damaged(voltage=cell()[1].clip(max=-20.0)), ["no spikes", "0 mV", "-20 mV"]),
    "plateaus": (
        lambda: damaged(current=PULSES, voltage=0.5 * PULSES - 3.0),
        ["no spikes", "5 times the voltage stays above 0 mV, for up to 200 ms: these are no spikes"],
    ),
    "no current variation": (lambda: damaged(current=np.full((1, 4000), 100.0)), ["current = 100 pA", "varies"]),
    "lengths": (lambda: damaged(voltage=cell()[1][:, 1:]), ["current has shape (1, 4000) and voltage (1, 3999)"]),
    "sweeps": (lambda: damaged(voltage=np.repeat(cell()[1], 2, axis=0)), ["(1, 4000) and voltage (2, 4000)"]),
    "NaN": (lambda: damaged(voltage=with_value(cell()[1], np.nan)), ["voltage[0, 123] = nan mV", "finite"]),
    "infinite": (lambda: damaged(current=with_value(cell()[0], np.inf)), ["current[0, 123] = inf pA", "finite"]),
    "no dt": (lambda: damaged(dt=None), ["`dt` (ms) is missing"]),
    "dt in seconds": (lambda: damaged(dt=0.0005), ["dt = 0.0005 ms", "seconds: pass 0.5"]),
    "dt in Hz": (lambda: damaged(dt=2000.0), ["dt = 2000 ms", "a rate in Hz: pass 0.5"]),
    "dt negative": (lambda: damaged(dt=-0.5), ["dt = -0.5 ms", "positive"]),
    "volts": (lambda: damaged(voltage=1e-3 * cell()[1]), ["voltage spans", "mV", "in volts", "1000"]),
    "no voltage": (lambda: damaged(voltage=None), ["voltage is missing", "mV"]),
    "no current": (lambda: damaged(current=None), ["`current` (pA) is missing"]),
    "pickled": (lambda: damaged(voltage=np.array([{}, 1], object)), ["`voltage` cannot be read", "numeric"]),
    "words": (lambda: damaged(current=np.array(["a", "b"])), ["current = array(", "pA"]),
    "transposed": (lambda: damaged(current=cell()[0].reshape(-1, 4)), ["more sweeps than samples", "transposed"]),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_bad_recordings(tmp_path, name):
    arrays, words = BAD_RECORDINGS[name]
    np.savez(tmp_path / "bad.npz", **arrays())
    line = bad("fit", tmp_path / "bad.npz", "--out", tmp_path / "out")
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_bad_files(tmp_path, recording):
    whole = recording.read_bytes()
    files = {
        "cell.xyz": (whole, "format '.xyz' is not known"),
        "cell": (whole, "format '' is not known"),
        "empty.npz": (b"", "the file is empty"),
        "truncated.npz": (whole[: len(whole) // 2], "cut short"),
        "text.npz": (b"current,voltage\n", "not an .npz archive"),
        "damaged.npz": (whole[:300] + bytes(64) + whole[364:], "damaged, or not what its name says"),
        "empty.csv": (b"", "the file is empty"),
        "empty.abf": (b"", "the file is empty"),
        "text.abf": (b"ABF2 but no more", "not an ABF file"),
        "words.csv": (b"time_ms,current_pA,voltage_mV\n0,a,1\n1,2,3\n2,3,4\n", "no number"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        line = bad("fit", tmp_path / name, "--out", tmp_path / "out")
        assert words in line and name in line, line
    assert "no such file" in bad("fit", tmp_path / "no.npz", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("factor", "unit", "outcome"), [(1e-3, "nA", "r_m = 10 GΩ"), (1e-12, "A", "explains only")])
def test_other_units_of_current_warn_with_the_evidence(tmp_path, factor, unit, outcome):
    np.savez(tmp_path / "na.npz", **damaged(current=factor * cell()[0]))
    result = call("fit", tmp_path / "na.npz", "--out", tmp_path / "out")
    noted = json.loads((tmp_path / "out" / "fit.json").read_text())["warnings"]
    assert any("input resistance" in note and f"is the current in {unit}?" in note for note in noted)
    assert any(outcome in note for note in noted), noted
    assert "input resistance" in result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--bounds", "tau_m=40:5"], ["tau_m", "40 to 5 ms", "low less than high"]),
        (["--bounds", "tau_m=5:5"], ["tau_m", "5 to 5 ms", "low less than high"]),
        (["--bounds", "tau_m=nan:5"], ["tau_m", "nan", "ms"]),
        (["--bounds", "tau_m=5:inf"], ["tau_m", "inf ms", "finite"]),
        (["--bounds", "tau_m=-10:-5"], ["tau_m", "-10 to -5 ms", "negative"]),
        (["--bounds", "tau=5:40"], ["'tau'", "no parameter", "tau_m"]),
        (["--bounds", "tau_m=5"], ["tau_m=5", "NAME=LOW:HIGH"]),
        (["--bounds", "tau_m=5:x"], ["'x' is not a number"]),
        (["--bounds", "v_reset=-40:-30", "--bounds", "v_th=-60:-50"], ["v_reset must be below v_th", "mV"]),
        (["--bounds", "t_ref=3.01:3.04"], ["t_ref", "3.01 to 3.04 ms", "0.5 ms"]),
        (["--train", "0:10"], ["train", "0 to 10000 ms", "2000 ms"]),
        (["--train", "1:1"], ["train", "1000 to 1000 ms"]),
        (["--train", "1:0.5"], ["train", "1000 to 500 ms"]),
        (["--train", "0:3s"], ["train", "3000 ms", "0 to 2000 ms"]),
        (["--train", "ten"], ["train = 'ten'", "0:10"]),
        (["--train", "0:1.2.3"], ["train = '0:1.2.3'", "seconds"]),
        (["--train", "0:2ms"], ["0 to 2 ms", "no spike"]),
        (["--spike-threshold", "60"], ["never crosses 60 mV"]),
        (["--model", "hh"], ["model = 'hh'", "lif, adaptive, gif"]),
    ],
)
def test_bad_options(recording, tmp_path, args, words):
    line = bad("fit", recording, "--out", tmp_path / "out", *args)
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_spikes_that_leave_no_voltage_between_them_are_refused(tmp_path):
    """At 400 Hz nothing is away from a spike: the starting values must not come out as a fit."""
    fast = jl.LIFParams(tau_m=5.0, t_ref=1.0)
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 900.0, 150.0, 5.0, DURATION, DT)
    _, output = jl.simulate(jl.LIF(dt=DT), fast, noise)
    np.savez(tmp_path / "fast.npz", current=noise, voltage=output.v, spikes=output.spikes, dt=DT)
    line = bad("fit", tmp_path / "fast.npz", "--out", tmp_path / "out")
    assert "voltage has only" in line and "away from spikes" in line and "3 ms before" in line


def test_a_window_that_starts_within_a_spike(recording, tmp_path):
    """The first voltage is the peak of a spike: the neuron must not start from there."""
    _, _, spikes = cell()
    peak = (np.flatnonzero(spikes[0])[3] + 0.0) * DT  # ms: the window's first sample is the spike's
    for name, start in (("at", peak), ("before", peak - 20.0)):
        good("fit", recording, "--out", tmp_path / name, "--train", f"{start}:{start + 1000.0}ms")
        params = jl.load_fit(tmp_path / name / "fit.json").params
        assert params.tau_m == pytest.approx(TRUTH.tau_m, rel=5e-3)
        assert params.v_th == pytest.approx(TRUTH.v_th, abs=0.05)


# --- nothing half-written ---------------------------------------------------------------------------------


def test_a_file_in_the_way_is_refused_before_the_fit(recording, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlif.cli.fit_recording", lambda *args, **kwargs: pytest.fail("fitted first"))
    (tmp_path / "out").write_text("mine")
    assert "this is a file" in bad("fit", recording, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("a figure failed")])
def test_a_report_that_fails_leaves_no_folder(drawn, fitted, recording, tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(pictures, "_raster", fail)  # after the first figure was written
    assert str(error) in bad("fit", recording, "--out", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_report_that_fails_leaves_the_old_files(drawn, fitted, recording, monkeypatch):
    before = {path.name: path.read_bytes() for path in fitted[0].iterdir()}

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(report, "_page", fail)
    bad("fit", recording, "--out", fitted[0], "--train", "0:1")
    assert {path.name: path.read_bytes() for path in fitted[0].iterdir()} == before


def test_a_prediction_that_fails_leaves_the_old_file(fitted, recording, tmp_path, monkeypatch):
    (tmp_path / "p.npz").write_bytes(b"old")

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("jaxlif.fitting.result.os.replace", fail)
    assert "No space left" in bad("predict", fitted[0] / "fit.json", recording, "--out", tmp_path / "p.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]
    assert (tmp_path / "p.npz").read_bytes() == b"old"


def test_an_interrupt_ends_with_130_and_leaves_nothing(recording, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxlif.cli.fit_recording", interrupt)
    for files in ([recording], [recording, "other.npz"]):
        result = call("fit", *files, "--out", tmp_path / "out")
        assert result.exit_code == 130 and result.output.strip().splitlines()[-1] == "interrupted"
        assert not list(tmp_path.iterdir())


def test_an_interrupt_inside_a_fit_is_no_fit(recording, tmp_path, monkeypatch):
    """Half a fit of the membrane ends the command; what `jaxlif.fit` alone hands out is not taken for an answer."""

    def half(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["jaxlif.fitting.fit"], "_advance", half)
    assert call("fit", recording, "--out", tmp_path / "out").exit_code == 130
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["...npz", "..npz"])
def test_a_name_that_leads_out_of_the_folder_is_refused(recording, tmp_path, name):
    (tmp_path / name).write_bytes(recording.read_bytes())
    line = bad("fit", recording, tmp_path / name, "--out", tmp_path / "deep" / "out")
    assert "cannot be that of a folder: rename it" in line
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_every_command_tries_its_place_before_it_works(fitted, recording, tmp_path, monkeypatch):
    for name in ("jaxlif.cli.read", "jaxlif.commands.fitted.load_fit", "jaxlif.commands.simulated.run"):
        monkeypatch.setattr(name, lambda *args, **options: pytest.fail("nothing is done before"))
    (tmp_path / "file").write_text("mine")
    fit, below = fitted[0] / "fit.json", tmp_path / "file" / "below"
    for command in (
        ["fit", recording, "--out", below],
        ["fit", recording, "other.npz", "--out", below],
        ["fi", recording, "--out", below],
        ["predict", fit, recording, "--out", below / "p.npz"],
        ["export", fit, "--to", "json", "--out", below / "p.json"],
        ["simulate", "--out", below / "p.npz"],
    ):
        assert "nothing can be written there (Not a directory)" in bad(*command)
    assert "would be lost" in bad("predict", fit, recording, "--out", recording)
    (tmp_path / "out" / "fit.json").mkdir(parents=True)
    assert "fit.json: this is a folder" in bad("fit", recording, "--out", tmp_path / "out")


def test_figures_of_an_earlier_fit_are_taken_away(recording, tmp_path):
    """The figures that a fit of another kind left, where there was a fit; never anything else."""
    for name in ("kernels.png", "kernels.svg", "mine.png"):
        (tmp_path / name).write_text("old")
    good("fit", recording, "--out", tmp_path, "--train", "0:1")
    assert (tmp_path / "kernels.png").exists(), "there was no fit: they are the user's own"
    good("fit", recording, "--out", tmp_path, "--train", "0:1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "mine.png", "report.html"]


def test_all_figures_have_names_that_are_known(drawn, fitted):
    assert {path.name for path in fitted[0].iterdir()} <= {"fit.json", *report.report_files()}


# --- help, and the real command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["fit", "predict", "simulate", "fi", "pA", "mV", "ms", "GΩ", "Hz"]),
        (["fit"], ["--train", "seconds", "mV", "NAME=LOW:HIGH", "tau_m=5:40", "Examples", "fit.json", "70 %"]),
        (["predict"], ["spike_time (ms)", "spike_repeat", "spike_sweep", "voltage", "mV", "scores"]),
        (["simulate"], ["step:AMPLITUDE:START:STOP", "pA", "ms", "Hz", "noise:200:150:5", "Examples"]),
        (["fi"], ["current_pA", "rate_Hz", "GΩ", "mV", "ms"]),
    ],
)
def test_help_teaches(command, words):
    printed = good(*command, "--help").output
    assert all(word in printed for word in words), printed


def test_the_installed_command(recording, tmp_path):
    def run(*args):
        command = [sys.executable, "-c", "from jaxlif.cli import main; main()", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)

    assert good("--version").output.strip().endswith("0.1.0")
    failed = run("fit", "no.npz", "--out", "out")
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr == "Error: no.npz: no such file\n"
    fitted = run("fit", recording, "--out", "out", "--train", "0:1")
    assert fitted.returncode == 0 and fitted.stderr == ""
    assert (tmp_path / "out" / "report.html").exists()


def test_corrections_reach_every_command_that_reads_a_recording(fitted, recording, tmp_path):
    """A file in other units and scales answers as the right one does, and is named as corrected."""
    current, voltage, _ = cell()
    np.savez(tmp_path / "odd.npz", current=2.0 * current, voltage=5.0 * (voltage + 10.0), dt=DT)
    options = ("--current-gain", 0.5, "--voltage-gain", 0.2, "--voltage-offset", -10.0)
    fit = fitted[0] / "fit.json"
    printed = good("predict", fit, tmp_path / "odd.npz", *options, "--out", tmp_path / "odd_p.npz").output
    assert (
        "the fit was made with no corrections and this recording was read with voltage_gain = 0.2,"
        " voltage_offset = -10.0, current_gain = 0.5" in printed
    )
    assert "was read with" not in good("predict", fit, recording, "--out", tmp_path / "p.npz").output
    with np.load(tmp_path / "odd_p.npz") as odd, np.load(tmp_path / "p.npz") as right:
        np.testing.assert_allclose(odd["voltage"], right["voltage"], atol=1e-9)
        np.testing.assert_array_equal(odd["spike_time"], right["spike_time"])
    scripts = []
    for file, given in ((recording, ()), (tmp_path / "odd.npz", options)):
        good("export", fit, "--to", "brian2", "--out", tmp_path / "cell.py", "--drive", file, *given)
        scripts.append((tmp_path / "cell.py").read_text())
    assert scripts[0] == scripts[1]
    line = bad("export", fit, "--to", "nest", "--out", tmp_path / "cell.py", *options)
    assert "--voltage-gain is for the recording of --drive only" in line
    line = bad("fit", tmp_path / "odd.npz", "--out", tmp_path / "out", "--voltage-gain", 0)
    assert "voltage_gain = 0: voltage_gain must be a number other than 0" in line
    line = bad("fi", tmp_path / "rates.csv", "--out", tmp_path / "out", "--voltage-gain", 2)
    assert "--voltage-gain is for a recording only" in line


# --- export, sweeps, electrodes ---------------------------------------------------------------------------


def test_export_writes_what_interop_writes(fitted, recording, tmp_path):
    fit = jl.load_fit(fitted[0] / "fit.json")
    drive = jl.read_recording(recording)
    models = {"nest": to_nest(fit.params, dt=DT, synapse="exp"), "brian2": to_brian2(fit.params, dt=DT)}
    for target, model in models.items():
        path = tmp_path / f"cell_{target}.py"
        good("export", fitted[0] / "fit.json", "--to", target, "--out", path, "--drive", recording, "--synapse", "exp")
        assert path.read_text() == to_script(model, drive.current[0], dt=DT)
    good("export", fitted[0] / "fit.json", "--to", "json", "--out", tmp_path / "neuron.json")
    neuron = json.loads((tmp_path / "neuron.json").read_text())
    assert {name: p["value"] for name, p in neuron["parameters"].items()} == asdict(fit.params)
    assert neuron["model"] == "lif" and neuron["parameters"]["r_m"]["unit"] == "GΩ"


def test_export_without_a_drive_injects_one_that_fires(fitted, tmp_path):
    good("export", fitted[0] / "fit.json", "--to", "brian2", "--out", tmp_path / "cell.py")
    compile((tmp_path / "cell.py").read_text(), "cell.py", "exec")
    assert "wrote" not in bad("export", fitted[0] / "fit.json", "--to", "nest", "--out", tmp_path / "cell.json")


def test_export_repeats_what_the_fit_warns_of(fitted, recording, tmp_path):
    document = json.loads((fitted[0] / "fit.json").read_text()) | {"warnings": ["the fit is\nuseless", "and bad"]}
    (tmp_path / "fit.json").write_text(json.dumps(document))
    for target, suffix in (("nest", "py"), ("brian2", "py"), ("json", "json")):
        out = tmp_path / f"neuron.{suffix}"
        result = good("export", tmp_path / "fit.json", "--to", target, "--out", out)
        assert result.stderr.splitlines() == ["note: the fit is useless", "note: and bad"]
        if target == "json":
            assert json.loads(out.read_text())["warnings"] == document["warnings"]
        else:
            assert out.read_text().splitlines()[:2] == ["# note: the fit is useless", "# note: and bad"]


@pytest.mark.parametrize("name", ["nest", "brian2", "json", "numpy", "random"])
def test_a_script_is_not_called_as_what_it_imports(fitted, tmp_path, name):
    line = bad("export", fitted[0] / "fit.json", "--to", "nest", "--out", tmp_path / f"{name}.py")
    assert f"imports a module {name}" in line and "rename it" in line


def test_export_of_several_currents_names_the_option_that_chooses(fitted, steps, recording, tmp_path):
    command = ["export", fitted[0] / "fit.json", "--to", "brian2", "--out", tmp_path / "cell.py", "--drive"]
    assert "drive has 8 sweeps of different currents: choose one with --sweeps" in bad(*command, steps)
    good(*command, steps, "--sweeps", 3)
    [line] = [line for line in (tmp_path / "cell.py").read_text().splitlines() if line.startswith("current = ")]
    assert line == "current = [0.0]*400 + [200.0]*1000 + [0.0]*200", "a value that is held stands there once"


def test_sweeps_of_unequal_length_name_the_option_that_helps(tmp_path):
    current, voltage, _ = cell()
    lines = ["sweep,time_ms,current_pA,voltage_mV"]
    for sweep, length in enumerate((3000, 4000, 3500)):
        columns = (DT * np.arange(length), current[0, :length], voltage[0, :length])
        lines += [f"{sweep},{t:.6g},{i:.6g},{v:.6g}" for t, i, v in zip(*columns, strict=True)]
    (tmp_path / "cell.csv").write_text("\n".join(lines))
    line = bad("fit", tmp_path / "cell.csv", "--out", tmp_path / "out")
    assert "current has sweeps of [3000, 3500, 4000] samples" in line and "with --sweeps, as [0]" in line
    good("fit", tmp_path / "cell.csv", "--out", tmp_path / "out", "--sweeps", "1")
    document = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert (document["data"]["sweeps"], document["data"]["samples"]) == (1, 4000)
    assert "write numbers from 0" in bad("fit", tmp_path / "cell.csv", "--out", tmp_path / "out", "--sweeps", "2-0")


def test_an_electrode_of_a_file_without_names_is_refused(recording, tmp_path):
    line = bad("fit", recording, "--out", tmp_path / "out", "--from-electrode", "soma")
    assert "only .nwb and .abf files name their electrodes" in line


def test_an_abf_of_several_electrodes_names_the_option_that_helps(tmp_path, monkeypatch):
    abf = SimpleNamespace(adcNames=["V1", "V2"], adcUnits=["mV", "mV"], dacNames=[], dacUnits=[])
    monkeypatch.setattr("jaxlif.recordings.abf._open", lambda path: abf)
    (tmp_path / "cell.abf").write_bytes(b"ABF2")
    line = bad("fit", tmp_path / "cell.abf", "--out", tmp_path / "out")
    assert line.endswith("cell.abf: 2 channels are a voltage (V1: mV, V2: mV): choose one with --from-electrode")
    line = bad("fit", tmp_path / "cell.abf", "--out", tmp_path / "out", "--from-electrode", "V3")
    assert line.endswith("electrode_channel = 'V3': the channels are V1: mV, V2: mV")


# --- recordings that give a wrong number without a warning ------------------------------------------------


def test_steps_without_a_sweep_below_threshold_are_said(steps, tmp_path):
    with np.load(steps) as arrays:
        np.savez(tmp_path / "firing.npz", **{n: arrays[n][2:] for n in ("current", "voltage", "spikes")}, dt=DT)
    printed = good("fit", tmp_path / "firing.npz", "--out", tmp_path / "out").output
    assert "no f-I curve with a membrane below it: of 6 levels 6 fire" in printed


def test_stimulus_artefacts_are_said(steps, tmp_path):
    """20 MΩ in series and a peak of one sample at each onset, which crosses the level of a spike."""
    with np.load(steps) as arrays:
        current, voltage, spikes = (arrays[n] for n in ("current", "voltage", "spikes"))
    voltage = np.where(spikes > 0, 20.0, voltage) + 0.02 * current
    voltage[:, 400] = 30.0
    np.savez(tmp_path / "artefact.npz", current=current, voltage=voltage, dt=DT)
    printed = good("fit", tmp_path / "artefact.npz", "--out", tmp_path / "out").output
    assert "spikes come within 0.3 ms of a step of the current" in printed
    assert "the voltage jumps by" in printed


def test_a_clipped_voltage_is_said(tmp_path):
    current, voltage, _ = cell()
    np.savez(tmp_path / "clipped.npz", current=current, voltage=np.maximum(voltage, -64.0), dt=DT)
    assert "is it saturated or clipped?" in good("fit", tmp_path / "clipped.npz", "--out", tmp_path / "out").output


def test_unreliable_spikes_are_said_and_not_divided_by(tmp_path):
    """One stimulus, two responses of which one belongs to another stimulus: R is about 0."""
    (current, voltage, _), (_, other, _) = cell(seed=0), cell(seed=1)
    rows = {"current": np.repeat(current, 2, axis=0), "voltage": np.concatenate([voltage, other])}
    np.savez(tmp_path / "unreliable.npz", **rows, dt=DT)
    printed = good("fit", tmp_path / "unreliable.npz", "--out", tmp_path / "out").output
    assert "its spike times say little" in printed
    fit = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert fit["scores"]["test"]["coincidence_factor_over_reliability"] is None


def test_a_held_out_repeat_and_a_prediction_outside_what_was_fitted(tmp_path):
    current, voltage, _ = cell()
    names = {"dt": DT, "stimulus": np.array(["noise", "noise"])}
    np.savez(tmp_path / "two.npz", current=np.repeat(current, 2, 0), voltage=np.repeat(voltage, 2, 0), **names)
    good("fit", tmp_path / "two.npz", "--held-out", "repeat:1", "--out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "fit.json").read_text(encoding="utf-8"))
    assert document["held_out_sweeps"] == [1] and document["train_ms"] == [0.0, DURATION]
    assert [regime["stimulus"] for regime in document["regimes"]] == ["stimulus noise"]
    np.savez(tmp_path / "loud.npz", current=4.0 * current, dt=DT, stimulus=np.array("loud"))
    options = "--out", tmp_path / "prediction.npz"
    told = good("predict", tmp_path / "out" / "fit.json", tmp_path / "loud.npz", *options).output
    assert "note: stimulus loud is outside what was fitted: the mean of its current is" in told
    assert "notes" not in np.load(tmp_path / "prediction.npz").files
    again = good("predict", tmp_path / "out" / "fit.json", tmp_path / "two.npz", *options).output
    assert "outside" not in again
    assert "the stimuli of this recording are noise" in bad(
        "fit", tmp_path / "two.npz", "--held-out", "stimulus:soft", "--out", tmp_path / "no"
    )
    assert not (tmp_path / "no").exists()
