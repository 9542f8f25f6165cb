"""Inspection: what is said of a recording is what was put into it, and what a fit would do is what it does."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner

import jaxlif as jl
from jaxlif.cli import main
from jaxlif.pictures import all_sweeps, found_spikes

DT = 0.5
LEVELS = np.array([-40.0, 40.0, 80.0, 150.0, 200.0, 250.0, 300.0])
DRIFT = 6.0  # mV over the sweeps


def family(levels=LEVELS, seed=0, wait=400):
    """Current and voltage [7, 1600] of a LIF by a plain loop, whose rest rises over the sweeps; its spikes drawn."""
    current = np.zeros((len(levels), 1600))
    current[:, wait : 1600 - wait] = levels[:, None]
    rest = -66.0 + DRIFT * np.linspace(0.0, 1.0, len(levels))
    v, voltage, spikes = rest.copy(), np.zeros(current.shape), np.zeros(current.shape, bool)
    for n in range(current.shape[1]):
        v = v + (rest + 0.1 * current[:, n] - v) * (1.0 - np.exp(-DT / 12.0))
        spikes[:, n] = v >= rest + 14.0
        voltage[:, n] = np.where(spikes[:, n], 25.0, v)
        v = np.where(spikes[:, n], rest, v)
    return current, voltage + 0.05 * np.random.default_rng(seed).standard_normal(voltage.shape), spikes


def test_what_was_put_in_is_what_is_said():
    current, voltage, spikes = family()
    found = jl.inspect_recording(jl.Recording(current=current, voltage=voltage, dt=DT, current_source="commanded"))
    facts = found.facts
    assert facts["clamp"] == "current clamp, the current commanded"
    assert facts["sweeps"] == "7 of 800 ms, sampled every 0.5 ms"
    assert facts["current"] == "-40 to 300 pA, steps, 7 different"
    assert facts["voltage"].startswith(f"{voltage.min():.4g} to {voltage.max():.4g} mV, half of the time above")
    assert facts["spikes"].startswith(f"{spikes.sum()}, {1000.0 * spikes.sum() / 7 / 800.0:.3g} Hz, in a sweep 0 to ")
    header, *rows = found.sweeps
    assert header == ("sweep", "current (pA)", "rest (mV)", "spikes")
    assert [row[1] for row in rows] == [f"0, {level:g}, 0" for level in LEVELS]
    assert [int(row[3]) for row in rows] == spikes.sum(axis=1).tolist()
    # The median of 200 samples of 0.05 mV of noise is within 0.02 mV, and is written to 0.01 mV.
    np.testing.assert_allclose([float(row[2]) for row in rows], -66.0 + np.linspace(0.0, DRIFT, 7), atol=0.025)
    assert f"of which +{DRIFT:.1f}" in facts["rest"] and found.notes == ()


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "steps: the membrane from what is below threshold, the rest from spikes at 7 levels"),
        ({"levels": LEVELS[5:]}, "like a fluctuating current, by the voltage between spikes and their times (the curr"),
        ({"levels": 0.0 * LEVELS + 200.0, "wait": 0}, "refused: current = 200 pA in every sample of every sweep"),
        ({"levels": 0.1 * LEVELS}, "refused: voltage has no spikes"),
    ],
)
def test_the_verdict_is_what_a_fit_does(changes, verdict):
    current, voltage, _ = family(**changes)
    recording = jl.Recording(current=current, voltage=voltage, dt=DT)
    found = jl.inspect_recording(recording)
    assert found.verdict.startswith(verdict)
    if verdict.startswith("refused"):
        with pytest.raises(ValueError) as error:
            jl.fit_recording(recording)
        assert found.verdict == f"refused: {error.value}"


def test_a_cell_that_fires_before_its_step_shows_no_rest_and_no_drift():
    """Ramps of 100 ms from -66 to -52 mV, in each sweep at another phase, and one that is silent."""
    current, voltage, spikes = family()
    phase = (np.arange(400) * DT + 13.0 * np.arange(1, 7)[:, None]) % 100.0
    voltage[1:, :400], spikes[1:, :400] = -66.0 + 0.14 * phase, phase < DT
    found = jl.inspect_recording(jl.Recording(current=current, voltage=voltage, spikes=spikes, dt=DT))
    rest = [row[2] for row in found.sweeps[1:]]
    assert rest[1:] == [""] * 6 and float(rest[0]) == pytest.approx(-66.0, abs=0.025)
    assert found.facts["rest"] == f"{rest[0]} mV before the current changes, in 1 sweeps within 0.00 mV"
    assert "the rest cannot be measured in 6 of 7 sweeps" in found.verdict and "rest moves" not in found.verdict
    silent = jl.inspect_recording(found.recording.select([1, 2, 3, 4, 5, 6]))
    assert silent.facts["rest"].startswith("not known")


def test_noise_and_a_stimulus_alone():
    noise = 100.0 + 50.0 * np.random.default_rng(0).standard_normal((1, 2000))
    repeated = jl.inspect_recording(jl.Recording(current=np.repeat(noise, 3, axis=0), dt=DT))
    assert repeated.facts["current"].endswith("pA, no steps, 1 different")
    assert repeated.facts["voltage"] == "none: a stimulus without a response"
    assert repeated.verdict.startswith("refused: voltage is missing") and repeated.spikes is None
    assert repeated.sweeps[1][1] == f"mean {noise.mean():.4g}, SD {noise.std():.3g}"


def test_the_figure_shows_every_sweep():
    current, voltage, spikes = family()
    recording = jl.Recording(current=current, voltage=voltage, dt=DT)
    figure = all_sweeps(jl.inspect_recording(recording), recording)
    upper, ticks, lower = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in upper.lines], voltage)
    np.testing.assert_array_equal([line.get_ydata() for line in lower.lines], current)
    np.testing.assert_array_equal(ticks.lines[0].get_ydata(), np.nonzero(spikes)[0])
    assert [ax.get_ylabel() for ax in figure.axes] == ["voltage (mV)", "sweep", "current (pA)"]
    plt.close(figure)


def test_the_figure_of_spikes_marks_each_of_a_sweep_and_lays_all_over_one_another():
    current, voltage, spikes = family()
    recording = jl.Recording(current=current, voltage=voltage, dt=DT)
    found = jl.inspect_recording(recording)
    np.testing.assert_array_equal(found.spikes, spikes)
    figure = found_spikes(found, recording)
    *sweeps, together = figure.axes
    counts = sorted(n for n in spikes.sum(axis=1) if n)
    marked = [ax.lines[1].get_xdata() for ax in sweeps]  # each sweep of 800 ms is drawn whole
    assert [times.size for times in marked] == [counts[0], counts[len(counts) // 2], counts[-1]]
    for ax, times in zip(sweeps, marked, strict=True):
        assert any(np.array_equal(times, recording.times[train]) for train in spikes)
        assert (ax.lines[1].get_ydata() > 20.0).all()
    assert len(together.lines) == spikes.sum() + 1 and together.lines[0].get_xdata()[round(5.0 / DT)] == 0.0
    plt.close(figure)
    silent = jl.Recording(current=current, voltage=np.full(voltage.shape, -65.0), dt=DT)
    assert found_spikes(jl.inspect_recording(silent), silent) is None


def call(*args):
    return CliRunner().invoke(main, ["inspect", *map(str, args)])


def test_the_command_prints_it_and_draws_it(tmp_path):
    current, voltage, _ = family()
    np.savez(tmp_path / "cell.npz", current=current, voltage=10.0 * voltage, dt=DT)
    refused = call(tmp_path / "cell.npz", "--out", tmp_path / "out")
    assert refused.exit_code == 2 and "looks 10 times too large (--voltage-gain 0.1)" in refused.output
    assert not (tmp_path / "out").exists()
    result = call(tmp_path / "cell.npz", "--voltage-gain", 0.1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = jl.inspect_recording(tmp_path / "cell.npz", voltage_gain=0.1)
    assert all(text in result.output for pair in found.facts.items() for text in pair)
    assert found.facts["corrections"] == "voltage_gain = 0.1" and found.verdict in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"inspection.png", "spikes.png"}
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_size > 20_000  # an empty page has 10 kB
    assert "no such file" in call(tmp_path / "no.npz").output


class FakeABF:
    """As much of pyabf.ABF as the reader uses."""

    adcNames, adcUnits, dacNames, dacUnits = ["Im", "Vm"], ["pA", "mV"], ["Cmd 0"], ["mV"]
    sweepList, sampleRate = range(7), 2000

    def __init__(self, data):
        self.data = data

    def setSweep(self, sweep, channel=0):  # noqa: N802 (pyabf's name)
        self.sweepY = self.data[channel][sweep]


def test_a_file_that_cannot_be_fitted_is_inspected(monkeypatch, tmp_path):
    current, _, _ = family()
    monkeypatch.setattr("jaxlif.recordings.abf._open", lambda path: FakeABF([current + 5.0, current]))
    monkeypatch.setattr("jaxlif.recordings.abf.waveforms", lambda abf, output, factor=1.0: list(factor * current))
    (tmp_path / "cell.abf").write_bytes(b"ABF2")
    result = call(tmp_path / "cell.abf")
    assert result.exit_code == 0 and "Im: pA, Vm: mV; output Cmd 0: mV" in result.output
    assert "refused: the output is a voltage (Cmd 0: mV): a voltage-clamp recording" in result.output
    assert "--current-unit" in result.output
