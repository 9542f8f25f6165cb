"""Files of one cell that belong together: one for its electrode, one to fit, one to judge by."""

from dataclasses import replace

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.other_recording import judged_by
from jaxlif.recordings import remove_electrode
from jaxlif.spiketrains import mean_coincidence_factor, spike_times
from tests.command_line import DT, TRUTH, bad, cell, good, write

SERIES = 0.02  # GΩ in front of the cell, of which a coarse sample sees nothing but a resistance


HELD = {"current_source": "commanded"}  # and so held over each step: an electrode looks like a current that was sampled


def recorded(seed, electrode=0.0):
    """Return a trial of the true neuron behind an electrode; its spikes are known, since that moves their peaks."""
    current, voltage, spikes = (x[:1] for x in cell(seed))
    return jl.Recording(
        current=current, voltage=voltage + electrode * current, spikes=spikes, dt=DT, name=f"{seed}", **HELD
    )


def subthreshold(electrode, seed=5, steps=20000):
    """Return white noise through the membrane, by its exact solution from step to step, and the electrode."""
    current = np.random.default_rng(seed).normal(0.0, 50.0, steps)
    voltage, v, decay = [], TRUTH.v_rest, np.exp(-DT / TRUTH.tau_m)
    for i in current:
        v = TRUTH.v_rest + TRUTH.r_m * i + (v - TRUTH.v_rest - TRUTH.r_m * i) * decay
        voltage.append(v)
    return jl.Recording(current=current, voltage=np.array(voltage) + electrode * current, dt=DT, name="aec", **HELD)


@pytest.fixture(scope="module")
def fitted():
    return jl.fit_recording(recorded(0, SERIES), electrode=subthreshold(SERIES), test=recorded(1, SERIES))


def test_the_electrode_of_another_file_is_taken_off(fitted):
    ((sweeps, electrode),) = fitted.electrodes
    # The membrane's own exponential is told apart by its lags beyond 3 ms; nothing here has noise.
    assert sweeps == (0,) and electrode.resistance == pytest.approx(SERIES, rel=0.01)
    assert fitted.beside["electrode"] == {"name": "aec", "sha256": ""}
    # What is left of it moves r_m by as much, which is a sixth of the electrode's share.
    assert fitted.params.r_m == pytest.approx(TRUTH.r_m, rel=0.01)
    assert fitted.params.tau_m == pytest.approx(TRUTH.tau_m, rel=0.01)


def test_a_test_file_is_predicted_and_scored(fitted):
    test, scores = recorded(1, SERIES), fitted.scores["test_file"]
    _, output = jl.simulate(fitted.cell, fitted.params, test.current[0])
    own, model = (np.asarray(spike_times(x, DT)) for x in (test.spikes[0], output.spikes))
    gamma = mean_coincidence_factor([own], [model], duration=test.duration, delta=scores["delta"])
    assert scores["coincidence_factor"] == pytest.approx(float(gamma))
    assert scores["rate_data"] == 1000.0 * len(own) / test.duration
    assert scores["rate_model"] == 1000.0 * len(model) / test.duration
    # The model of the data itself: only the drawn spikes, which are left out, are none of its voltage.
    assert scores["voltage_variance_explained"] > 0.995 and gamma > 0.9
    assert fitted.beside["test"] == {"name": "1", "sha256": ""}


def test_what_is_tested_elsewhere_is_fitted_whole(fitted, tmp_path):
    assert fitted.window == (0.0, 2000.0) and "test" not in fitted.scores
    assert not any("nothing was held out" in note for note in fitted.warnings)
    again = jl.load_fit(fitted.save(tmp_path))
    assert again.scores == fitted.scores and again.beside == fitted.beside


def test_a_test_without_spikes_is_scored_and_says_so(fitted):
    test = recorded(1, SERIES)
    silent = replace(test, spikes=np.zeros_like(test.spikes), name="silent.npz")
    result = judged_by(fitted, silent)
    assert result.scores["test_file"]["rate_data"] == 0.0
    assert result.scores["test_file"]["coincidence_factor"] is None
    assert result.warnings[0].startswith("test = silent.npz: no spike is found in it, and the model fires at ")
    assert result.verdict.word != "good" and result.verdict.word != "usable", result.verdict.sentence


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda r: replace(r, voltage=None, spikes=None), "voltage is missing"),
        (lambda r: replace(r, current=1e-3 * r.current), "is a unit wrong"),
        (lambda r: replace(r, current=0.0 * r.current), "current = 0 pA in every sample"),
        (lambda r: replace(r, current=np.roll(r.current, 1500), spikes=None), "leave no trace in the voltage"),
        (lambda r: recorded(0, SERIES), "1 of its sweeps are to be fitted"),
        (lambda r: np.zeros(3), "test must be a Recording"),
    ],
)
@pytest.mark.filterwarnings("ignore::jaxlif.recordings.RecordingWarning")  # of the scale, where it is made
def test_a_test_that_cannot_judge_is_refused_before_the_fit(changed, words, monkeypatch):
    monkeypatch.setattr("jaxlif.fitting.fit_recording._recipe", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(ValueError, match=f"test = .*{words}"):
        jl.fit_recording(recorded(0, SERIES), test=changed(recorded(1, SERIES)))


def test_an_electrode_that_is_none_is_refused(monkeypatch):
    monkeypatch.setattr("jaxlif.fitting.fit_recording._recipe", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(ValueError, match="electrode = aec: its resistance was estimated as -20 MΩ"):
        jl.fit_recording(recorded(0), electrode=subthreshold(-SERIES))
    rows = [subthreshold(size, seed) for seed, size in enumerate((0.002, 0.03), start=5)]
    both = {name: np.stack([getattr(row, name)[0] for row in rows]) for name in ("current", "voltage")}
    with pytest.raises(ValueError, match="as .* MΩ in one sweep and 30 MΩ in another: they must not differ 10 times"):
        jl.fit_recording(recorded(0), electrode=jl.Recording(**both, dt=DT, **HELD))


def test_an_estimate_that_is_no_electrode_is_in_the_verdict_line(fitted):
    """From the recording itself nothing is taken off then; what cannot be told from none is no reason for doubt."""
    negative, row = subthreshold(-SERIES), subthreshold(0.0)
    noisy = replace(row, voltage=row.voltage - np.random.default_rng(0).normal(0.0, 1.0, row.voltage.shape))
    balanced, told = subthreshold(-4e-4), "is not told from 0 "  # -0.4 MΩ, with hardly any noise
    for recording, words in ((negative, "was estimated as -20 MΩ"), (noisy, told), (balanced, told)):
        removed = remove_electrode(recording, np.zeros(recording.current.shape, bool), "auto")
        (note,) = removed.notes
        assert not removed.electrodes and words in note
        said = replace(fitted, warnings=(note,)).verdict.sentence
        assert ("no electrode was taken off the voltage of 1 sweeps" in said) == (recording is negative), said


def test_steps_are_tested_by_their_counts(fitted, steps_file):
    steps = jl.read_recording(steps_file)
    steps = replace(steps, voltage=steps.voltage + SERIES * steps.current)
    scores = judged_by(fitted, steps).scores["test_file"]
    _, output = jl.simulate(fitted.cell, fitted.params, steps.current.T)
    counts, own = steps.spikes[:, 400:1400].sum(axis=1), np.asarray(output.spikes)[400:1400].sum(axis=0)
    assert scores["spikes_per_step"] == counts.mean()
    assert scores["spikes_per_step_rmse"] == pytest.approx(np.sqrt(np.mean((counts - own) ** 2.0)))
    assert scores["coincidence_factor"] is None, "spike times drift apart under constant current"


def test_an_electrode_of_short_and_noisy_sweeps_is_no_less_steady():
    """Sweeps that each tell little scatter more than tenfold by chance: that is no evidence."""
    row, rng = subthreshold(SERIES, steps=60000), np.random.default_rng(0)
    noisy = row.voltage + rng.normal(0.0, 1.5, row.voltage.shape)
    short = jl.Recording(current=row.current.reshape(30, -1), voltage=noisy.reshape(30, -1), dt=DT, **HELD)
    assert jl.recordings.estimate_electrode(short).resistance == pytest.approx(SERIES, rel=0.2)


# --- the command line -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cell")
    for name, r in {"training": recorded(0, SERIES), "test": recorded(1, SERIES)}.items():
        write(folder / f"{name}.npz", current=r.current, voltage=r.voltage, spikes=r.spikes)
    aec = subthreshold(SERIES)
    write(folder / "aec.npz", current=aec.current, voltage=aec.voltage)
    return folder


def test_the_command_fits_with_both_and_prints_the_scores(files, fitted, tmp_path):
    beside = ("--electrode", files / "aec.npz", "--test", files / "test.npz", "--current", "commanded")
    printed = good("fit", files / "training.npz", *beside, "--out", tmp_path / "out").output
    fit = jl.load_fit(tmp_path / "out" / "fit.json")
    assert fit.params == fitted.params and fit.scores["test_file"] == fitted.scores["test_file"]
    assert [len(x["sha256"]) for x in fit.beside.values()] == [64, 64]
    heading = next(line for line in printed.splitlines() if line.startswith("score"))
    assert heading.split()[1:] == ["train", "test_file"]
    assert "test_file" in (tmp_path / "out" / "report.html").read_text()


def test_a_prediction_of_what_was_fitted_raises_no_alarm(files, tmp_path):
    """Nor where only some sweeps of the file were fitted, as in a membrane's fit, or where all are padded."""
    current, voltage, _ = cell()
    levels = np.repeat([[-40.0], [30.0]], current.shape[1], axis=1) * (np.arange(current.shape[1]) > 1000)
    _, output = jl.simulate(jl.LIF(dt=DT), TRUTH, levels.T)
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.asarray(output.v).T, voltage[:1]]) + rng.normal(0.0, 0.1, (3, current.shape[1]))
    rows[:, -400:] = 0.0
    stopped = write(tmp_path / "a.npz", current=np.concatenate([levels, current[:1]]), voltage=rows)
    for model, file in (("lif", files / "training.npz"), ("passive", stopped)):
        out = tmp_path / model
        good("fit", file, "--model", model, "--out", out)
        printed = good("predict", out / "fit.json", file, "--out", tmp_path / "p.npz").output
        said = [line for line in printed.splitlines() if line.startswith("note: ")]
        own = [line for line in said if not line.startswith(("note: of the fit: ", "note: the stimulus of sweep 2 "))]
        assert not own, said  # sweep 2 has spikes, and no membrane alone was fitted to it


def test_files_of_one_cell_do_not_belong_to_several(files, tmp_path):
    several = (files / "training.npz", files / "test.npz")
    for option in ("electrode", "test"):
        line = bad("fit", *several, f"--{option}", files / "aec.npz", "--out", tmp_path / "out")
        assert f"{option} = {files / 'aec.npz'}: it belongs to one cell, and there are 2 files" in line
    assert "no.npz: no such file" in bad("fit", several[0], "--test", "no.npz", "--out", tmp_path / "out")
