"""The command line: good paths, and for everything bad one line, exit status 2 and nothing half-written."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

import jaxlif as jl
from jaxlif import pictures, report
from jaxlif.fitting import fit as fit_module
from jaxlif.fitting.data import Drift
from jaxlif.interop import to_brian2, to_nest, to_script
from jaxlif.options import _sweeps
from tests.command_line import DT, DURATION, TABLES, TRUTH, bad, call, cell, good, step_family, write

FIGURES = ("spikes", "voltage", "raster")


@pytest.fixture(autouse=True)
def pictures_of_f_i_curves_alone(monkeypatch, stored):
    """Figures take most of a fit's time: ``stored`` has those of the cell."""
    drawn = pictures.pictures
    monkeypatch.setattr(pictures, "pictures", lambda fit, *recording: drawn(fit, *recording) if fit.curve else ())


@pytest.fixture
def asked(stored, monkeypatch):
    """Put the stored fit in the place of every fit; return what was asked for, each time."""
    calls = []

    def _remember(recording, **options):
        calls.append({"recording": recording} | options)
        return jl.load_fit(stored[0] / "fit.json")

    monkeypatch.setattr("jaxlif.cli.fit_recording", _remember)
    return calls


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fit_json(folder):
    return json.loads((folder / "fit.json").read_text(encoding="utf-8"))


# --- fit --------------------------------------------------------------------------------------------------


def test_fit_writes_a_fit_a_report_and_figures_and_nothing_else(stored):
    out, printed = stored
    figures = [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    assert names(out) == sorted(["fit.json", "report.html", *TABLES, *figures])
    assert set(names(out)) <= {"fit.json", *report.REPORT_FILES}
    for words in ("membrane time constant", "GΩ", "coincidence factor", "report.html", "fit.json"):
        assert words in printed
    assert "sweeps differ" not in printed


def test_fit_json_holds_everything(stored, cell_file):
    document = fit_json(stored[0])
    assert document["format"] == "jaxlif fit 2" and document["model"] == "lif"
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
    assert document["window"] == [0.0, 0.7 * DURATION]
    assert document["data"]["name"] == "cell.npz" and document["data"]["dt_ms"] == DT
    assert document["data"]["sha256"] == hashlib.sha256(cell_file.read_bytes()).hexdigest()
    assert document["seed"] == 0 and document["warnings"] == []
    assert {"jaxlif", "jax", "jaxlib", "optax", "numpy", "python"} == set(document["versions"])


def test_a_fit_read_back_is_the_same(stored, cell_file, tmp_path):
    data, read = jl.read_recording(cell_file), jl.load_fit(stored[0] / "fit.json")
    direct = jl.fit_recording(data)
    assert asdict(read.params) == asdict(direct.params) and read.scores == direct.scores
    assert read.window == direct.window and read.spike_rule == direct.spike_rule
    read.save(tmp_path)
    assert (tmp_path / "fit.json").read_bytes() == (stored[0] / "fit.json").read_bytes()
    for a, b in zip(read.predict(data), direct.predict(data), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("option", "text", "keyword", "value"),
    [
        ("--window", "0:1", "window", (0.0, 1000.0)),
        ("--window", "0:1s", "window", (0.0, 1000.0)),
        ("--train", "0:1000ms", "window", (0.0, 1000.0)),
        ("--train", " .5 : 1.0 s ", "window", (500.0, 1000.0)),
        ("--bounds", "tau_m=15:40", "bounds", {"tau_m": (15.0, 40.0)}),
        ("--electrode", "none", "electrode", None),
        ("--electrode", "auto", "electrode", "auto"),
        ("--electrode", "0.02", "electrode", 0.02),
        ("--held-out", "repeat:1", "held_out", "repeat:1"),
        ("--model", "gif", "model", "gif"),
        ("--rest", "fitted", "rest", "fitted"),
        ("--seed", "7", "seed", 7),
        ("--spike-threshold", "-30", "spike_rule", jl.SpikeRule(threshold=-30.0)),
        ("--spike-method", "dvdt", "spike_rule", jl.SpikeRule(method="dvdt")),
        ("--spike-slope", "30", "spike_rule", jl.SpikeRule(slope=30.0)),
        ("--spike-height", "25", "spike_rule", jl.SpikeRule(height=25.0)),
        ("--spike-width", "0", "spike_rule", jl.SpikeRule(width=0.0)),
        ("--dead-time", "2", "spike_rule", jl.SpikeRule(dead_time=2.0)),
    ],
)
def test_what_is_asked_for_is_what_is_fitted(asked, cell_file, tmp_path, option, text, keyword, value):
    good("fit", cell_file, "--out", tmp_path, option, text)
    assert asked[0][keyword] == value
    defaults = {"model": "lif", "electrode": "auto", "coupling": None, "rest": "auto", "drift": False, "window": None}
    defaults |= {
        "test": None,
        "held_out": None,
        "bounds": None,
        "spike_rule": jl.SpikeRule(),
        "seed": 0,
        "progress": False,
    }
    assert asked[0] == {"recording": asked[0]["recording"]} | defaults | {keyword: value}


def test_switches_and_what_is_read(asked, cell_file, tmp_path):
    options = ["--drift", "--no-coupling", "--current", "commanded", "--sweeps", "1", "--current-gain", 2]
    bounds = ["--bounds", "tau_m=5:40", "--bounds", "v_th=-60:-40"]
    good("fit", cell_file, "--out", tmp_path, *options, *bounds)
    (call,) = asked
    assert (call["drift"], call["coupling"]) == (True, False)
    assert call["bounds"] == {"tau_m": (5.0, 40.0), "v_th": (-60.0, -40.0)}
    recording = call["recording"]
    assert recording.current_source == "commanded" and dict(recording.corrections) == {"current_gain": 2.0}
    np.testing.assert_array_equal(recording.current, 2.0 * cell()[0][1:])


def test_sweeps_are_numbers_and_ranges():
    assert _sweeps("0,2-5, 7") == [0, 2, 3, 4, 5, 7]


def test_the_ladder_is_asked_with_the_same_options(cell_file, monkeypatch):
    rung = SimpleNamespace(name="plain", held_out=1.25, explained=0.905, taken=True)
    seen = {}

    def _ladder(recording, **options):
        seen.update(options)
        return SimpleNamespace(rungs=[rung], sentence="It needs nothing.")

    monkeypatch.setattr("jaxlif.cli.model_ladder", _ladder)
    printed = good("ladder", cell_file, "--window", "0:1", "--spike-threshold", -10).output
    assert seen["window"] == (0.0, 1000.0) and seen["spike_rule"] == jl.SpikeRule(threshold=-10.0)
    assert all(words in printed for words in ("plain", "1.250", "90.5 %", "kept", "It needs nothing."))


def test_bounds_hold_and_are_noted(cell_file, tmp_path):
    printed = good("fit", cell_file, "--out", tmp_path, "--bounds", "tau_m=15:40", "--bounds", "t_ref=2:4").output
    document = fit_json(tmp_path)["parameters"]
    assert document["tau_m"]["bounds"] == [15.0, 40.0] and document["t_ref"]["bounds"] == [2.0, 4.0]
    assert 15.0 < document["tau_m"]["value"] < 15.1
    assert "note: tau_m = 15 ms lies at the end of its bounds, 15 to 40 ms" in printed


def test_spikes_that_stay_below_0_mv_are_spikes_unless_a_threshold_is_asked_for(tmp_path):
    _, voltage, spikes = cell(drawn=-10.0)
    low, counts = write(tmp_path / "low.npz", voltage=voltage), 1000.0 * spikes[0].sum() / DURATION
    printed = good("fit", low, "--out", tmp_path / "out").output
    assert "spikes are found by their rise and fall: none crosses 0 mV" in printed
    assert "the count depends on the rule" not in printed
    fit = fit_json(tmp_path / "out")
    assert fit["spike_rule"]["threshold"] is None and fit["spike_rule"]["slope"] > 10.0
    assert fit["scores"]["train"]["coincidence_factor"] > 0.99
    assert fit["scores"]["train"]["rate_data"] == pytest.approx(counts, rel=0.1)
    line = bad("fit", low, "--out", tmp_path / "none", "--spike-threshold", 0)
    assert "never crosses 0 mV" in line and "-10 mV" in line and "spike threshold" in line
    good("fit", low, "--out", tmp_path / "asked", "--spike-threshold", "-30")
    assert fit_json(tmp_path / "asked")["spike_rule"]["threshold"] == -30.0
    # Half of the spikes end below the threshold: a fit to the other half must not pass in silence.
    rows = np.flatnonzero(spikes[0])
    voltage[:, rows[::2]] = 20.0
    half = write(tmp_path / "half.npz", voltage=voltage)
    printed = good("fit", half, "--out", tmp_path / "half", "--spike-threshold", 0).output
    count = 2 * (len(rows) // 2)
    assert f"{count} fast peaks end below 0 mV, the highest at -10 mV, and are not counted as spikes" in printed


@pytest.mark.parametrize("command", ["fit", "ladder"])
def test_every_command_that_finds_spikes_has_the_rule(cell_file, tmp_path, command):
    """A level that no spike reaches leaves none: whoever says so has used the option."""
    out = () if command == "ladder" else ("--out", tmp_path / "out")
    for options in (["--spike-threshold", 30], ["--spike-width", 0], ["--spike-method", "dvdt", "--spike-width", 0]):
        assert "voltage has no spikes" in bad(command, cell_file, *out, *options)
    assert "dead_time = -1 ms: dead_time must be 0 ms or more" in bad(command, cell_file, *out, "--dead-time", -1)


def test_integers_are_numbers(asked, tmp_path):
    """An int16 file, as amplifiers write them, is read and not truncated further."""
    current, voltage = (x.round() for x in cell()[:2])
    voltage[1, 0] += 1.0  # no copy of a trial
    write(tmp_path / "int.npz", current=current.astype(np.int16), voltage=voltage.astype(np.int16))
    good("fit", tmp_path / "int.npz", "--out", tmp_path / "out", "--current-gain", 0.5)
    np.testing.assert_array_equal(asked[0]["recording"].current, 0.5 * current)
    np.testing.assert_array_equal(asked[0]["recording"].voltage, voltage)


def test_how_sweeps_differ_is_a_line(stored, cell_file, tmp_path, monkeypatch):
    drift = Drift(np.array([-0.5, 0.5]), np.array([0.98, 1.02]))
    differing = replace(jl.load_fit(stored[0] / "fit.json"), drift=drift)
    monkeypatch.setattr("jaxlif.cli.fit_recording", lambda *args, **options: differing)
    printed = good("fit", cell_file, "--out", tmp_path / "out").output
    line = "sweeps differ: v_rest fitted, -0.50 to +0.50 mV off its mean; gain of the current 0.980 to 1.020"
    assert line in printed.splitlines()


# --- fit of several files ---------------------------------------------------------------------------------


def test_several_files_have_a_folder_each_and_a_bad_one_stops_nobody(stored, cell_file, steps_file, tmp_path):
    (tmp_path / "torn.npz").write_bytes(cell_file.read_bytes()[:5000])
    out = tmp_path / "out"
    result = good("fit", cell_file, tmp_path / "torn.npz", steps_file, "--out", out, "--jobs", 1)
    assert names(out) == ["cell", "cells.csv", "cells.png", "cells.svg", "steps"]
    assert (stored[0] / "fit.json").read_bytes() == (out / "cell" / "fit.json").read_bytes(), "the same file and seed"
    assert {"fit.json", "report.html", "f_i_curve.png", "raster.svg", "steps.png"} <= set(names(out / "steps"))
    lines = result.output.splitlines()
    assert lines[0].split()[:3] == ["cell", "tau_m", "(ms)"] and "Γ" in lines[0] and "f-I RMSE (Hz)" in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["cell", "steps"]
    fit = jl.load_fit(out / "steps" / "fit.json")
    assert f"{fit.params.tau_m:.4g}" in lines[2].split()
    assert sum(line.startswith("failed: torn: torn.npz: ") for line in lines) == 1
    assert lines[-1].startswith("2 of 3 fitted: ")
    assert fit.protocol == "steps" and fit.curve["current_pA"][0] == -50.0
    for name in ("tau_m", "r_m", "v_rest"):  # noiseless subthreshold steps determine the membrane
        assert getattr(fit.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    assert fit.scores["f_i"]["rmse"] < 2.0  # rates counted in 500 ms come in units of 2 Hz


def test_warnings_of_several_files_stand_with_their_own(asked, cell_file, tmp_path):
    """nA taken for pA is noted of the file that has it, on the terminal and in its fit alone."""
    na = write(tmp_path / "na.npz", current=1e-3 * cell()[0])
    printed = good("fit", cell_file, na, "--out", tmp_path / "out", "--jobs", 1).output
    assert "note: na: " in printed and "note: cell: " not in printed and "warning:" not in printed
    notes = {name: jl.load_fit(tmp_path / "out" / name / "fit.json").warnings for name in ("cell", "na")}
    assert not notes["cell"] and any("input resistance" in note for note in notes["na"])


def test_exit_status_1_where_none_of_several_could_be_fitted(tmp_path):
    (tmp_path / "empty.npz").write_bytes(b"")
    result = call("fit", tmp_path / "empty.npz", tmp_path / "no.npz", "--out", tmp_path / "out", "--jobs", 1)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert [line.partition(": ")[2] for line in result.output.splitlines()] == [
        "empty: empty.npz: the file is empty",
        f"no: {tmp_path / 'no.npz'}: no such file",
    ]


def test_several_files_that_cannot_be_told_apart_are_refused_at_once(asked, cell_file, tmp_path):
    out = tmp_path / "out"
    assert "have one name, cell: rename one" in bad("fit", cell_file, tmp_path / "cell.abf", "--out", out)
    assert "finds its own start" in bad(
        "fit", cell_file, "b.npz", "--model", "gif", "--bounds", "t_ref=1:2", "--out", out
    )
    assert "Missing argument 'FILE...'" in bad("fit", "--out", out)
    assert not out.exists() and not asked, "nothing is fitted before"


# --- predict ----------------------------------------------------------------------------------------------


def test_predict_writes_the_named_arrays(stored, cell_file, tmp_path):
    options = ("--out", tmp_path / "p.npz", "--repeats", 3, "--dead-time", 20)
    printed = good("predict", stored[0] / "fit.json", cell_file, *options).output
    assert "come within the dead time of 20 ms" in printed
    with np.load(tmp_path / "p.npz") as arrays:
        assert sorted(arrays.files) == ["electrode_drop", "spike_repeat", "spike_sweep", "spike_time", "voltage"]
        time, repeat, sweep, voltage = (arrays[n] for n in ("spike_time", "spike_repeat", "spike_sweep", "voltage"))
    _, _, spikes = cell()
    expected = (np.flatnonzero(spikes[0]) + 1) * DT  # a spike is labelled with its step's end
    assert voltage.shape == (2, DURATION / DT)
    assert np.bincount(repeat).tolist() == [len(time) // 3] * 3 and np.bincount(sweep).tolist() == [len(time) // 2] * 2
    for n in range(3):
        found = time[(repeat == n) & (sweep == 1)]
        assert abs(len(expected) - len(found)) <= 1
        assert jl.spiketrains.coincidence_factor(expected, found, duration=DURATION, delta=1.0) > 0.97
    scores = dict(line.rsplit(None, 1) for line in printed.splitlines() if len(line.split()) > 1)
    assert scores["firing rate, model (Hz)"] == f"{len(time) / 6 / (0.001 * DURATION):.3g}"
    assert "coincidence factor Γ" in scores and "voltage RMSE" not in printed
    assert f"{len(time)} spikes in 6 responses" in printed


def test_a_repeat_in_which_the_model_is_silent_counts(stored, cell_file, tmp_path, monkeypatch):
    """The deterministic model's spikes once in two presentations: half of the rate."""
    fit, recording = jl.load_fit(stored[0] / "fit.json"), jl.read_recording(cell_file)
    once = fit.predict(recording)
    monkeypatch.setattr("jaxlif.commands.load_fit", lambda path: replace(fit, model="gif"))
    monkeypatch.setattr(jl.RecordingFit, "predict", lambda *args, **options: once)
    monkeypatch.setattr(jl.RecordingFit, "likelihood_note", lambda *args: ())
    printed = good("predict", "any.json", cell_file, "--out", tmp_path / "p.npz", "--repeats", 2).output
    rate = len(once.spike_time) / recording.num_sweeps / (0.001 * DURATION)
    [line] = [line for line in printed.splitlines() if line.startswith("firing rate, model (Hz)")]
    assert float(line.split()[-1]) == pytest.approx(rate / 2, rel=1e-2)  # three digits are printed


def test_predict_with_forced_spikes_scores_the_voltage(stored, cell_file, tmp_path):
    printed = good("predict", stored[0] / "fit.json", cell_file, "--out", tmp_path / "p.npz", "--force-spikes").output
    assert "voltage RMSE, spikes forced (mV)" in printed and "voltage variance explained" in printed
    with np.load(tmp_path / "p.npz") as arrays:
        voltage = arrays["voltage"]
    _, recorded, spikes = cell()
    away = jl.losses.spike_mask(spikes[0], before=2, after=2)
    assert np.abs(voltage[0, away] - recorded[0, away]).max() < 0.1  # mV; parameters are known to 1e-3


def test_predict_without_a_voltage_prints_no_scores(stored, tmp_path):
    args = ("predict", stored[0] / "fit.json", write(tmp_path / "s.npz", voltage=None), "--out", tmp_path / "p.npz")
    assert "score" not in good(*args).output
    with np.load(tmp_path / "p.npz") as arrays:
        time, sweep = arrays["spike_time"], arrays["spike_sweep"]
    np.testing.assert_array_equal(time[sweep == 0], time[sweep == 1])
    assert "force_spikes needs a recording with a voltage" in bad(*args, "--force-spikes")


def test_predict_repeats_what_the_fit_warns_of(stored, cell_file, tmp_path):
    document = fit_json(stored[0]) | {"warnings": ["do not use this model"]}
    (tmp_path / "fit.json").write_text(json.dumps(document), encoding="utf-8")
    printed = good("predict", tmp_path / "fit.json", cell_file, "--out", tmp_path / "p.npz").output
    assert "note: of the fit: do not use this model\n" in printed


def test_predict_refuses(stored, cell_file, tmp_path):
    fit = stored[0] / "fit.json"
    assert ".npz" in bad("predict", fit, cell_file, "--out", tmp_path / "p.txt")
    assert "'--repeats': 0 is not" in bad("predict", fit, cell_file, "--out", tmp_path / "p.npz", "--repeats", 0)
    assert "no such file" in bad("predict", tmp_path / "no.json", cell_file, "--out", tmp_path / "p.npz")
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[: len(text) // 2], "JSONDecodeError"),
        (lambda text: text.replace("fit 2", "fit 99"), "fit 99"),
    ],
)
def test_a_broken_fit_is_refused_by_name(stored, cell_file, tmp_path, spoil, words):
    (tmp_path / "fit.json").write_text(spoil((stored[0] / "fit.json").read_text()))
    line = bad("predict", tmp_path / "fit.json", cell_file, "--out", tmp_path / "p.npz")
    assert words in line and "fit.json" in line
    assert not (tmp_path / "p.npz").exists()


# --- simulate ---------------------------------------------------------------------------------------------


def test_simulate_and_seeds(tmp_path):
    args = ("simulate", "--model", "hodgkin-huxley", "--duration", 200, "--repeats", 2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        good(*args, "--seed", seed, "--out", tmp_path / "new" / f"{name}.npz")
    a, b, c = ((tmp_path / "new" / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b and a != c
    recording = jl.read_recording(tmp_path / "new" / "a.npz")
    assert (recording.num_sweeps, recording.num_steps, recording.dt) == (2, 2000, 0.1)
    np.testing.assert_array_equal(recording.current[0], recording.current[1])
    assert (recording.voltage[0] != recording.voltage[1]).any(), "repeats have noise of their own"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--duration", "-5"], ["duration", "-5", "ms"]),
        (["--duration", "nan"], ["duration", "nan"]),
        (["--duration", "10.05"], ["duration", "10.05"]),
        (["--dt", "0"], ["dt", "0", "ms"]),
        (["--dt", "-0.1"], ["dt", "-0.1", "ms"]),
        (["--repeats", "0"], ["'--repeats'", "0"]),
        (["--model", "lif"], ["'--model'", "'lif'"]),
    ],
)
def test_simulate_refuses(tmp_path, args, words):
    line = bad("simulate", "--model", "hodgkin-huxley", "--out", tmp_path / "s.npz", *args)
    assert all(word in line for word in words), line
    assert not names(tmp_path)


# --- fi ---------------------------------------------------------------------------------------------------


def test_fi_of_a_table_of_rates(tmp_path):
    currents = np.linspace(400.0, 0.0, 9)
    rates = np.asarray(jl.theory.firing_rate(TRUTH, currents))
    rows = "\n".join(f"{0.001 * i:.6g},{f:.9g}" for i, f in zip(currents, rates, strict=True))
    (tmp_path / "rates.csv").write_text(f"current_pA,rate_Hz\n{rows}\n")
    args = ("--current-gain", 1000, "--tau-m", TRUTH.tau_m, "--r-m", TRUTH.r_m, "--v-rest", TRUTH.v_rest)
    printed = good("fi", tmp_path / "rates.csv", "--out", tmp_path / "out", *args).output
    fit = jl.load_fit(tmp_path / "out" / "fit.json")
    assert fit.data["corrections"] == {"current_gain": 1000.0}
    for name in ("v_th", "v_reset", "t_ref"):  # exact rates: the optimum is the truth
        assert getattr(fit.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    assert "fitted (Hz)" in printed and "do not determine" in printed and "threshold lies" not in printed
    assert names(tmp_path / "out") == ["f_i_curve.png", "f_i_curve.svg", "fit.json", "report.html"]


def test_fi_refuses(steps_file, tmp_path):
    table = tmp_path / "rates.csv"
    table.write_text("current_pA,rate_Hz\n0,0\n100,10\n200,20\n300,30\n")
    out = tmp_path / "out"
    assert "tau_m = 0 ms: tau_m must be greater than 0 ms" in bad("fi", table, "--out", out, "--tau-m", 0)
    assert "r_m = -1 GΩ" in bad("fi", table, "--out", out, "--r-m", -1)
    assert "a recording of current steps is for jaxlif fit" in bad("fi", steps_file, "--out", out)
    assert "no such file" in bad("fi", tmp_path / "no.csv", "--out", out)
    for rows, words in (
        ("current_pA,rate_Hz\n0,0\n100,0\n200,0\n", "above 0 Hz"),
        ("current_pA,rate_Hz\n0,0\n100,-3\n200,10\n", "0 Hz or more"),
        ("current,rate\n0,0\n100,3\n200,10\n", "names no unit"),
    ):
        table.write_text(rows)
        assert words in bad("fi", table, "--out", out)
    assert not out.exists()


# --- bad recordings and options ---------------------------------------------------------------------------


def with_value(array, value):
    array[0, 123] = value
    return array


BAD_RECORDINGS = {
    "no spikes": (lambda: {"voltage": cell()[1].clip(max=-20.0)}, ["no spikes", "0 mV", "-20 mV"]),
    "no current variation": (lambda: {"current": np.full((2, 4000), 100.0)}, ["current = 100 pA", "varies"]),
    "lengths": (lambda: {"voltage": cell()[1][:, 1:]}, ["current has shape (2, 4000) and voltage (2, 3999)"]),
    "NaN": (lambda: {"voltage": with_value(cell()[1], np.nan)}, ["voltage[0, 123] = nan mV", "finite"]),
    "dt in seconds": (lambda: {"dt": 0.0005}, ["dt = 0.0005 ms", "seconds: pass 0.5"]),
    "volts": (lambda: {"voltage": 1e-3 * cell()[1]}, ["voltage spans", "mV", "in volts", "1000"]),
    "no voltage": (lambda: {"voltage": None}, ["voltage is missing", "mV"]),
    "no current": (lambda: {"current": None}, ["`current` (pA) is missing"]),
    "pickled": (lambda: {"voltage": np.array([{}, 1], object)}, ["`voltage` cannot be read", "numeric"]),
    "transposed": (lambda: {"current": cell()[0].reshape(-1, 4)}, ["more sweeps than samples", "transposed"]),
    "another's current": (lambda: {"current": cell(seed=1)[0]}, ["leave no trace in the voltage"]),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_bad_recordings(tmp_path, name):
    arrays, words = BAD_RECORDINGS[name]
    line = bad("fit", write(tmp_path / "bad.npz", **arrays()), "--out", tmp_path / "out")
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_bad_files(tmp_path, cell_file):
    whole = cell_file.read_bytes()
    files = {
        "cell.xyz": (whole, "format '.xyz' is not known"),
        "truncated.npz": (whole[: len(whole) // 2], "cut short"),
        "empty.csv": (b"", "the file is empty"),
        "text.abf": (b"ABF2 but no more", "not an ABF file"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        line = bad("fit", tmp_path / name, "--out", tmp_path / "out")
        assert words in line and name in line, line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--bounds", "tau_m=40:5"], ["bounds['tau_m'] = (40.0, 5.0)", "low must be less than high"]),
        (["--bounds", "tau_m=nan:5"], ["tau_m", "nan", "low must be less than high"]),
        (["--bounds", "tau_m=-10:-5"], ["(-10.0, -5.0) ms", "not negative"]),
        (["--bounds", "tau=5:40"], ["'tau'", "no parameter", "tau_m"]),
        (["--bounds", "tau_m=5"], ["'--bounds'", "tau_m=5", "NAME=LOW:HIGH"]),
        (["--bounds", "tau_m=5:9", "--bounds", "tau_m=6:8"], ["bounds", "twice"]),
        (["--bounds", "tau_m=5:x"], ["'--bounds'", "'x' is not a valid float"]),
        (["--bounds", "v_reset=-40:-30", "--bounds", "v_th=-60:-50"], ["v_reset must be below v_th", "mV"]),
        (["--bounds", "t_ref=3.01:3.04"], ["t_ref", "3.01 to 3.04 ms", "0.5 ms"]),
        (["--window", "0:10"], ["window", "0 to 10000 ms", "2000 ms"]),
        (["--window", "1:0.5"], ["window", "1000 to 500 ms"]),
        (["--window", "0:1000"], ["window", "0 to 1e+06 ms", "0 to 2000 ms"]),
        (["--train", "0:3s"], ["window", "3000 ms", "0 to 2000 ms"]),
        (["--window", "ten"], ["'--window'", "'ten'", "0:10"]),
        (["--train", "0:1.2.3"], ["'--window'", "'0:1.2.3'", "seconds"]),
        (["--window", "0:2ms"], ["0 to 2 ms", "no spike"]),
        (["--spike-threshold", "60"], ["never crosses 60 mV"]),
        (["--electrode", "much"], ["'--electrode'", "'much': give auto, none, a resistance in GΩ or a file"]),
        (["--model", "hh"], ["'--model'", "'hh'", "lif", "gif"]),
        (["--held-out", "stimulus:soft"], ["stimulus:soft", "'soft' is no stimulus"]),
        (["--sweeps", "2-0"], ["'--sweeps'", "write numbers from 0"]),
        (["--voltage-gain", "0"], ["voltage_gain = 0: voltage_gain must be a number other than 0"]),
        (["--from-electrode", "soma"], ["only .nwb and .abf files name their electrodes"]),
        (["--tau", "3"], ["No such option", "--tau"]),
    ],
)
def test_bad_options(cell_file, tmp_path, args, words):
    line = bad("fit", cell_file, "--out", tmp_path / "out", *args)
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_spikes_that_leave_no_voltage_between_them_are_refused(tmp_path):
    """At 400 Hz nothing is away from a spike: the starting values must not come out as a fit."""
    fast = jl.LIFParams(tau_m=5.0, t_ref=1.0)
    _, output = jl.simulate(jl.LIF(dt=DT), fast, cell()[0][0] + 720.0)
    write(tmp_path / "fast.npz", current=cell()[0][0] + 720.0, voltage=output.v, spikes=output.spikes)
    line = bad("fit", tmp_path / "fast.npz", "--out", tmp_path / "out")
    assert "voltage has only" in line and "away from spikes" in line and "3 ms before" in line


def test_a_window_that_starts_within_a_spike(cell_file, tmp_path):
    """The first voltage is the peak of a spike: the neuron must not start from there."""
    peak = (np.flatnonzero(cell()[2][0])[3] + 0.0) * DT  # ms: the window's first sample is the spike's
    for name, start in (("at", peak), ("before", peak - 20.0)):
        good("fit", cell_file, "--out", tmp_path / name, "--window", f"{start}:{start + 1400.0}ms")
        params = jl.load_fit(tmp_path / name / "fit.json").params
        assert params.tau_m == pytest.approx(TRUTH.tau_m, rel=5e-3)
        assert params.v_th == pytest.approx(TRUTH.v_th, abs=0.05)


# --- nothing half-written ---------------------------------------------------------------------------------


def test_a_file_in_the_way_is_refused_before_the_fit(asked, cell_file, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file" in bad("fit", cell_file, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine" and not asked


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("a figure failed")])
def test_a_report_that_fails_leaves_no_folder(asked, cell_file, tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(pictures, "pictures", fail)
    assert str(error) in bad("fit", cell_file, "--out", tmp_path / "new")
    assert not names(tmp_path)


def test_a_report_that_fails_leaves_the_old_files(asked, stored, cell_file, monkeypatch):
    before = {path.name: path.read_bytes() for path in stored[0].iterdir()}

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("jaxlif.fitting.result.RecordingFit.save", fail)  # after the page was written
    bad("fit", cell_file, "--out", stored[0])
    assert {path.name: path.read_bytes() for path in stored[0].iterdir()} == before


def test_a_prediction_that_fails_leaves_the_old_file(stored, cell_file, tmp_path, monkeypatch):
    (tmp_path / "p.npz").write_bytes(b"old")

    def fail(path, **arrays):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("jaxlif.commands.np.savez_compressed", fail)
    assert "No space left" in bad("predict", stored[0] / "fit.json", cell_file, "--out", tmp_path / "p.npz")
    assert names(tmp_path) == ["p.npz"] and (tmp_path / "p.npz").read_bytes() == b"old"


def test_an_interrupt_ends_with_130_and_leaves_nothing(cell_file, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxlif.cli.fit_recording", interrupt)
    for files in ([cell_file], [cell_file, "other.npz"]):
        result = call("fit", *files, "--out", tmp_path / "out", "--jobs", 1)
        assert result.exit_code == 130 and result.output.strip().splitlines()[-1] == "interrupted"
        assert not names(tmp_path)


def test_an_interrupt_inside_a_fit_is_no_fit(cell_file, tmp_path, monkeypatch):
    """Half a fit of the membrane ends the command; what `jaxlif.fit` alone hands out is not taken for an answer."""

    def half(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "_advance", half)
    assert call("fit", cell_file, "--out", tmp_path / "out").exit_code == 130
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["...npz", "..npz"])
def test_a_name_that_leads_out_of_the_folder_is_refused(cell_file, tmp_path, name):
    (tmp_path / name).write_bytes(cell_file.read_bytes())
    line = bad("fit", cell_file, tmp_path / name, "--out", tmp_path / "deep" / "out")
    assert "cannot be that of a folder: rename it" in line and names(tmp_path) == [name]


def test_every_command_tries_its_place_before_it_works(asked, stored, cell_file, tmp_path, monkeypatch):
    for name in ("cli.read_recording", "cli.read_rates", "commands.load_fit", "commands.simulated_recording"):
        monkeypatch.setattr(f"jaxlif.{name}", lambda *args, **options: pytest.fail("nothing is done before"))
    (tmp_path / "file").write_text("mine")
    fit, below = stored[0] / "fit.json", tmp_path / "file" / "below"
    for command in (
        ["fit", cell_file, "--out", below],
        ["fit", cell_file, "other.npz", "--out", below],
        ["fi", "rates.csv", "--out", below],
        ["predict", fit, cell_file, "--out", below / "p.npz"],
        ["export", fit, "--to", "json", "--out", below / "p.json"],
        ["simulate", "--model", "hodgkin-huxley", "--out", below / "p.npz"],
    ):
        assert "nothing can be written there (Not a directory)" in bad(*command)
    assert "would be lost" in bad("predict", fit, cell_file, "--out", cell_file)
    assert "is a directory" in bad("predict", fit, cell_file, "--out", tmp_path)
    (tmp_path / "out" / "fit.json").mkdir(parents=True)
    assert "fit.json: this is a folder" in bad("fit", cell_file, "--out", tmp_path / "out")


def test_figures_of_an_earlier_fit_are_taken_away(asked, cell_file, tmp_path):
    """The figures that a fit of another kind left, where there was a fit; never anything else."""
    for name in ("kernels.png", "kernels.svg", "mine.png"):
        (tmp_path / name).write_text("old")
    good("fit", cell_file, "--out", tmp_path)
    assert (tmp_path / "kernels.png").exists(), "there was no fit: they are the user's own"
    good("fit", cell_file, "--out", tmp_path)
    assert names(tmp_path) == sorted(["fit.json", "mine.png", "report.html", *TABLES])


# --- help, and the real command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["fit", "predict", "simulate", "fi", "pA", "mV", "ms", "GΩ", "Hz"]),
        (["fit"], ["--train", "seconds", "mV", "NAME=LOW:HIGH", "tau_m=5:40", "Examples", "fit.json", "70 %"]),
        (["predict"], ["spike_time (ms)", "spike_repeat", "spike_sweep", "voltage", "mV", "scores"]),
        (["simulate"], ["hodgkin-huxley", "ms", "Example"]),
        (["fi"], ["current_pA", "rate_Hz", "GΩ", "mV", "ms"]),
    ],
)
def test_help_teaches(command, words):
    printed = good(*command, "--help").output
    assert all(word in printed for word in words), printed


def test_the_real_command_in_a_process_of_its_own(tmp_path):
    """A refusal, and then the real signal while the command works."""
    code = "import signal, jaxlif.cli as cli\n"
    code += "try:\n    cli.main(['fit', 'no.npz', '--out', 'out'])\nexcept SystemExit as end:\n    print(end.code)\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what runs in the background ignores it
    code += "cli.read_recording = lambda *a, **k: signal.raise_signal(signal.SIGINT)\n"
    code += "cli.main(['fit', 'any.npz', '--out', 'out'])"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (130, "2\n") and not names(tmp_path)
    assert ended.stderr == "Error: no.npz: no such file\ninterrupted\n"
    assert good("--version").output.strip().endswith("0.1.0")


def test_corrections_reach_every_command_that_reads_a_recording(stored, cell_file, tmp_path):
    """A file in other units and scales answers as the right one does, and is named as corrected."""
    current, voltage, _ = cell()
    odd_file = write(tmp_path / "odd.npz", current=2.0 * current, voltage=5.0 * (voltage + 10.0))
    options = ("--current-gain", 0.5, "--voltage-gain", 0.2, "--voltage-offset", -10.0)
    fit = stored[0] / "fit.json"
    printed = good("predict", fit, odd_file, *options, "--out", tmp_path / "odd_p.npz").output
    read = "read with voltage_gain = 0.2, voltage_offset = -10.0, current_gain = 0.5"
    assert f"the fit was made with no corrections and this recording was {read}" in printed
    assert "was read with" not in good("predict", fit, cell_file, "--out", tmp_path / "p.npz").output
    with np.load(tmp_path / "odd_p.npz") as odd, np.load(tmp_path / "p.npz") as right:
        np.testing.assert_allclose(odd["voltage"], right["voltage"], atol=1e-9)
        np.testing.assert_array_equal(odd["spike_time"], right["spike_time"])
    scripts = []
    for file, given in ((cell_file, ()), (odd_file, options)):
        good("export", fit, "--to", "brian2", "--out", tmp_path / "cell.py", "--drive", file, *given)
        scripts.append((tmp_path / "cell.py").read_text())
    assert scripts[0] == scripts[1]
    for option, value in (("--voltage-gain", 2), ("--from-electrode", "soma")):
        line = bad("export", fit, "--to", "nest", "--out", tmp_path / "cell.py", option, value)
        assert f"{option} is for the recording of --drive only" in line


# --- export, sweeps, electrodes ---------------------------------------------------------------------------


def test_export_writes_what_interop_writes(stored, cell_file, tmp_path):
    fit = jl.load_fit(stored[0] / "fit.json")
    drive = jl.read_recording(cell_file)
    models = {"nest": to_nest(fit.params, dt=DT), "brian2": to_brian2(fit.params, dt=DT)}
    for target, model in models.items():
        path = tmp_path / f"cell_{target}.py"
        good("export", stored[0] / "fit.json", "--to", target, "--out", path, "--drive", cell_file)
        assert path.read_text() == to_script(model, drive.current[0], dt=DT)
    good("export", stored[0] / "fit.json", "--to", "json", "--out", tmp_path / "neuron.json")
    neuron = json.loads((tmp_path / "neuron.json").read_text())
    assert {name: p["value"] for name, p in neuron["parameters"].items()} == asdict(fit.params)
    assert neuron["model"] == "lif" and neuron["parameters"]["r_m"]["unit"] == "GΩ"


def test_export_without_a_drive_injects_one_that_fires(stored, tmp_path):
    good("export", stored[0] / "fit.json", "--to", "brian2", "--out", tmp_path / "cell.py")
    script = (tmp_path / "cell.py").read_text()
    compile(script, "cell.py", "exec")
    fit = jl.load_fit(stored[0] / "fit.json").params
    (current,) = (line for line in script.splitlines() if line.startswith("current = "))
    value, count = current.removeprefix("current = [").split("]*")
    rheobase = (fit.v_th - fit.v_rest) / fit.r_m
    assert float(value) == pytest.approx(1.5 * rheobase) and int(count) == 1000.0 / DT
    assert "wrote" not in bad("export", stored[0] / "fit.json", "--to", "nest", "--out", tmp_path / "cell.json")


def test_export_repeats_what_the_fit_warns_of(stored, tmp_path):
    document = fit_json(stored[0]) | {"warnings": ["the fit is\nuseless", "and bad"]}
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
def test_a_script_is_not_called_as_what_it_imports(stored, tmp_path, name):
    line = bad("export", stored[0] / "fit.json", "--to", "nest", "--out", tmp_path / f"{name}.py")
    assert f"imports a module {name}" in line and "rename it" in line


def test_export_of_several_currents_names_the_option_that_chooses(stored, steps_file, tmp_path):
    command = ["export", stored[0] / "fit.json", "--to", "brian2", "--out", tmp_path / "cell.py", "--drive"]
    assert "drive has 8 sweeps of different currents: choose one with --sweeps" in bad(*command, steps_file)
    good(*command, steps_file, "--sweeps", 3)
    [line] = [line for line in (tmp_path / "cell.py").read_text().splitlines() if line.startswith("current = ")]
    assert line == "current = [0.0]*400 + [200.0]*1000 + [0.0]*200", "a value that is held stands there once"


def test_sweeps_of_unequal_length_name_the_option_that_helps(asked, tmp_path):
    current, voltage, _ = cell()
    lines = ["sweep,time_ms,current_pA,voltage_mV"]
    for sweep, length in enumerate((3000, 4000, 3500)):
        columns = (DT * np.arange(length), current[0, :length], voltage[0, :length])
        lines += [f"{sweep},{t:.6g},{i:.6g},{v:.6g}" for t, i, v in zip(*columns, strict=True)]
    (tmp_path / "cell.csv").write_text("\n".join(lines))
    line = bad("fit", tmp_path / "cell.csv", "--out", tmp_path / "out")
    assert "current has sweeps of [3000, 3500, 4000] samples" in line and "with --sweeps, as [0]" in line
    good("fit", tmp_path / "cell.csv", "--out", tmp_path / "out", "--sweeps", "1")
    assert asked[0]["recording"].current.shape == (1, 4000)


def test_an_abf_of_several_electrodes_names_the_option_that_helps(tmp_path, monkeypatch):
    abf = SimpleNamespace(adcNames=["V1", "V2"], adcUnits=["mV", "mV"], dacNames=[], dacUnits=[], sampleRate=2000)
    monkeypatch.setattr("jaxlif.recordings.abf._open", lambda path: abf)
    (tmp_path / "cell.abf").write_bytes(b"ABF2")
    line = bad("fit", tmp_path / "cell.abf", "--out", tmp_path / "out")
    assert line.endswith("cell.abf: 2 channels are a voltage (V1: mV, V2: mV): choose one with --from-electrode")
    line = bad("fit", tmp_path / "cell.abf", "--out", tmp_path / "out", "--from-electrode", "V3")
    assert line.endswith("electrode_channel = 'V3': the channels are V1: mV, V2: mV")


# --- recordings that give a wrong number without a warning ------------------------------------------------


def artefacts():
    """20 MΩ in series and a peak of one sample at each onset, which crosses the level of a spike."""
    current, voltage, spikes = step_family()
    voltage = np.where(spikes > 0, 20.0, voltage) + 0.02 * current
    voltage[:, 400] = 30.0
    return {"current": current, "voltage": voltage}


def only_firing():
    return dict(zip(("current", "voltage", "spikes"), step_family(np.linspace(160.0, 400.0, 8)), strict=True))


def two_cells():
    """One stimulus, two responses of which one belongs to another stimulus: R is about 0."""
    return {"voltage": np.concatenate([cell()[1][:1], cell(seed=1)[1][:1]])}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (only_firing, ["a fit without the sweeps 1, 3, 5, 7 alone"]),
        (artefacts, ["peaks are over or rise at once", "artefacts, not counted", "the voltage jumps by"]),
        (lambda: {"voltage": np.maximum(cell()[1], -64.0)}, ["is it saturated or clipped?"]),
        (two_cells, ["its spike times say little"]),
        (lambda: {"current": 1e-3 * cell()[0]}, ["input resistance", "is the current in nA?", "r_m = 10 GΩ"]),
        (lambda: {"current": 1e-12 * cell()[0]}, ["input resistance", "is the current in A?", "explains only"]),
    ],
)
def test_what_would_be_wrong_in_silence_is_said(tmp_path, changed, words):
    printed = good("fit", write(tmp_path / "odd.npz", **changed()), "--out", tmp_path / "out").output
    noted = fit_json(tmp_path / "out")["warnings"]
    for word in words:
        assert word in printed and any(word in note for note in noted), (word, noted)
    if changed is two_cells:
        assert fit_json(tmp_path / "out")["scores"]["test"]["coincidence_factor_over_reliability"] is None


def test_a_held_out_repeat_and_a_prediction_outside_what_was_fitted(tmp_path):
    two = write(tmp_path / "two.npz", stimulus=np.array(["noise", "noise"]))
    good("fit", two, "--held-out", "repeat:1", "--out", tmp_path / "out")
    document = fit_json(tmp_path / "out")
    assert document["held_out"] == [1] and document["window"] == [0.0, DURATION]
    assert [regime["stimulus"] for regime in document["regimes"]] == ["stimulus noise"]
    loud = write(tmp_path / "loud.npz", current=4.0 * cell()[0], voltage=None, stimulus=np.array(["loud", "loud"]))
    options = "--out", tmp_path / "prediction.npz"
    told = good("predict", tmp_path / "out" / "fit.json", loud, *options).output
    assert "note: stimulus loud is outside what was fitted: the mean of its current is" in told
    assert "notes" not in np.load(tmp_path / "prediction.npz").files
    assert "outside" not in good("predict", tmp_path / "out" / "fit.json", two, *options).output
