"""Electrodes put into a simulated membrane and found again."""

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.recordings import Electrode, estimate_electrode, remove_electrode

DT = 0.1
KERNEL = 0.02 / 5.0 * np.exp(-np.arange(70) * DT / 0.5)  # GΩ: about 20 MΩ with a time constant of 0.5 ms


def trace(seed, duration=6000.0):
    """Return a current of white noise, the membrane's response by a plain loop, and the electrode's."""
    rng = np.random.default_rng(seed)
    current = rng.normal(0.0, 200.0, round(duration / DT))
    voltage, v = [], -65.0
    for i in current:
        v += DT / 20.0 * (-65.0 - v + 0.1 * i)
        voltage.append(v)
    return current, np.array(voltage), np.convolve(current, KERNEL)[: len(current)]


def test_an_electrode_trace_gives_the_electrode_back():
    current, voltage, drop = trace(0)
    recording = jl.Recording(
        current=current, voltage=voltage + drop, dt=DT, electrode_current=current, electrode_voltage=voltage + drop
    )
    electrode = estimate_electrode(recording)
    assert electrode.source == "electrode trace"
    # Lags between knots are interpolated: 3 % covers that and 6 s of noise.
    assert electrode.resistance == pytest.approx(KERNEL.sum(), rel=0.03)
    np.testing.assert_allclose(electrode.kernel[:5], KERNEL[:5], rtol=0.03)
    clean = remove_electrode(recording, np.zeros((1, len(current)), bool), "auto").recording
    assert np.std(clean.voltage[0] - voltage) < 0.05 * np.std(drop)


def test_a_recording_compensates_itself_between_its_spikes():
    current, voltage, drop = trace(1)
    spikes = np.zeros((1, len(current)), bool)
    spikes[0, 5000::9000] = True
    measured = voltage + drop
    measured[np.flatnonzero(spikes[0])] += 80.0
    recording = jl.Recording(current=current, voltage=measured, dt=DT)
    electrode = estimate_electrode(recording, spikes)
    assert electrode.source == "recording"
    assert electrode.resistance == pytest.approx(KERNEL.sum(), rel=0.05)


def test_each_stimulus_has_its_own_electrode():
    rows = [trace(seed) for seed in (2, 3)]
    scale = (1.0, 2.5)
    recording = jl.Recording(
        current=np.stack([rows[0][0]] * 2 + [rows[1][0]] * 2),
        voltage=np.stack([row[1] + k * row[2] for row, k in zip(rows, scale, strict=True) for _ in range(2)]),
        dt=DT,
    )
    removed = remove_electrode(recording, np.zeros(recording.current.shape, bool), "auto")
    assert [sweeps for sweeps, _ in removed.electrodes] == [(0, 1), (2, 3)]
    found = [electrode.resistance for _, electrode in removed.electrodes]
    np.testing.assert_allclose(found, np.multiply(scale, KERNEL.sum()), rtol=0.05)
    assert np.std(removed.recording.voltage - np.stack([rows[0][1]] * 2 + [rows[1][1]] * 2)) < 0.1


def test_a_series_resistance_takes_its_share():
    recording = jl.Recording(current=np.array([0.0, 100.0, 100.0]), voltage=np.array([-70.0, -68.0, -67.0]), dt=DT)
    removed = remove_electrode(recording, np.zeros((1, 3), bool), 0.01)
    np.testing.assert_allclose(removed.recording.voltage, [[-70.0, -69.0, -68.0]], rtol=1e-14)
    assert removed.electrodes[0][1].resistance == 0.01


def test_a_slow_current_leaves_the_voltage_alone_and_says_so():
    t = np.arange(60_000) * DT
    recording = jl.Recording(current=100.0 * np.sin(t / 500.0), voltage=-65.0 + 5.0 * np.sin(t / 500.0 - 0.1), dt=DT)
    removed = remove_electrode(recording, np.zeros(recording.current.shape, bool), "auto")
    assert removed.electrodes == () and np.array_equal(removed.recording.voltage, recording.voltage)
    assert "no electrode" in removed.notes[0]


@pytest.mark.parametrize("resistance", [-0.01, np.nan, np.inf])
def test_a_bad_series_resistance_is_refused(resistance):
    with pytest.raises(ValueError, match="series resistance = .* GΩ: series resistance must be"):
        Electrode.series(resistance, DT)


def test_the_l5_electrode(data_folder):
    recording = jl.read_recording(data_folder / "recordings" / "l5_pyramidal_frozen_noise.npz")
    # Another program (a least-squares fit of the late kernel) gives 8.0 MΩ.
    assert estimate_electrode(recording).resistance == pytest.approx(0.008, abs=0.001)


@pytest.mark.parametrize("factor", [2, 5])
def test_an_electrode_at_a_coarser_sampling_answers_as_it_does_at_its_own(factor):
    """A current held over coarse steps: the fine drop at their ends."""
    rng = np.random.default_rng(0)
    fine = Electrode(0.01 * 0.7 ** np.arange(10 * factor), 0.1, "given")
    current = rng.normal(0.0, 100.0, (2, 60))
    expected = fine.drop(np.repeat(current, factor, axis=1))[:, factor - 1 :: factor]
    np.testing.assert_allclose(fine.at(0.1 * factor).drop(current), expected, rtol=1e-12, atol=1e-12)
    recording = jl.Recording(current=current, voltage=expected - 65.0, dt=0.1 * factor)
    removed = remove_electrode(recording, np.zeros(current.shape, bool), fine).recording
    np.testing.assert_allclose(removed.voltage, -65.0, rtol=1e-12)


def test_a_series_resistance_is_one_at_every_sampling():
    assert Electrode.series(0.02, 0.1).at(0.025).kernel.tolist() == [0.02]


def test_steps_show_no_electrode_and_lose_none():
    """Through a membrane of 10 ms and an electrode of 10 MΩ: an edge of each sweep would tell them apart by noise."""
    t = np.arange(10_000) * DT
    on = (t >= 200.0) & (t < 700.0)
    relaxed = 1.0 - np.exp(-np.clip(t - 200.0, 0.0, None) / 10.0)
    levels = np.arange(-60.0, 61.0, 20.0)[:, None]
    noise = 0.1 * np.random.default_rng(0).standard_normal((len(levels), t.size))
    voltage = -65.0 + levels * on * (0.1 * relaxed + 0.01) + noise
    recording = jl.Recording(current=levels * on, voltage=voltage, dt=DT)
    removed = remove_electrode(recording, np.zeros(voltage.shape, bool), "auto")
    assert removed.electrodes == () and np.array_equal(removed.recording.voltage, voltage)
    assert removed.notes == ("no electrode was taken off the voltage: steps of current do not show one",)
