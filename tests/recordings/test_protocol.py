"""Protocols: epochs of clean and noisy currents, what is no step protocol, and f-I tables with known answers."""

import numpy as np
import pytest

from jaxlif.recordings import Recording, read_recording
from jaxlif.recordings.notes import notes_on
from jaxlif.recordings.protocol import Epoch, fi_table, find_epochs, is_step_protocol, step_family


def family(levels, noise=0.0, dt=0.1, seed=0):
    """A family of 200 ms steps in sweeps of 500 ms, from 100 to 300 ms, on a holding current of -10 pA."""
    current = np.full((len(levels), round(500 / dt)), -10.0)
    current[:, round(100 / dt) : round(300 / dt)] += np.asarray(levels, float)[:, None]
    return Recording(current + noise * np.random.default_rng(seed).standard_normal(current.shape), dt=dt)


def ornstein_uhlenbeck(tau, size=40000, dt=0.1, seed=0):
    normal = np.random.default_rng(seed).standard_normal(size)
    current, decay = np.zeros(size), np.exp(-dt / tau)
    for n in range(1, size):
        current[n] = decay * current[n - 1] + np.sqrt(1 - decay**2) * normal[n]
    return 100.0 * current


def with_transients(recording, times, sweep):
    """Add the amplifier's response to spikes: -600 and +600 pA, 1 ms each, and a tail that shifts the median."""
    current = np.array(recording.current)
    for time in times:
        current[sweep, time : time + 10] -= 600.0
        current[sweep, time + 10 : time + 20] += 600.0
        current[sweep, time + 20 : time + 50] += np.linspace(60.0, 0.0, 30)
    return Recording(current, dt=recording.dt)


def test_clean_steps_are_exact():
    expected = Epoch(0, 0, 1000, -10.0), Epoch(0, 1000, 3000, 90.0), Epoch(0, 3000, 5000, -10.0)
    assert find_epochs(family([100.0])) == expected


def test_a_sweep_at_the_holding_level_is_one_epoch():
    assert find_epochs(family([0.0, 50.0]))[0] == Epoch(0, 0, 5000, -10.0)


def test_short_epochs_are_left_out():
    current = np.repeat([0.0, 100.0, 0.0], [1000, 30, 1000])
    assert len(find_epochs(Recording(current, dt=0.1))) == 2
    assert len(find_epochs(Recording(current, dt=0.1), 3.0)) == 3


@pytest.mark.parametrize("dt", [0.02, 0.1, 0.5])
def test_noisy_steps_keep_edges_and_levels(dt):
    levels = np.array([10.0, 30.0, -50.0])
    epochs = find_epochs(family(levels, noise=4.0 if dt < 0.5 else 1.0, dt=dt))
    assert [epoch.sweep for epoch in epochs] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    edges = dt * np.array([[epoch.start, epoch.stop] for epoch in epochs[1::3]])
    np.testing.assert_allclose(edges, [[100.0, 300.0]] * 3, atol=max(1.0, dt))
    np.testing.assert_allclose([epoch.level for epoch in epochs[1::3]], levels - 10.0, atol=0.5)


def test_transients_at_spikes_do_not_cut_an_epoch():
    clean = family([100.0, 200.0], noise=4.0)
    epochs = find_epochs(with_transients(clean, range(1050, 2900, 170), sweep=1))
    assert len(epochs) == 6
    np.testing.assert_allclose(epochs[4].level, 190.0, atol=2.0)


def filtered_noise(length, seed):
    """Twenty sweeps of white noise, each summed over ``length`` samples."""
    white = np.random.default_rng(seed).standard_normal((20, 5000 + length - 1))
    return np.stack([np.convolve(sweep, np.ones(length), mode="valid") for sweep in white])


# In the second case the noise passes for white, and false edges have to be merged away.
@pytest.mark.parametrize(("level", "length", "seed"), [(60.0, 10, 0), (15.0, 5, 3)])
def test_filtered_noise_does_not_cut_an_epoch(level, length, seed):
    current = family([level] * 20).current + filtered_noise(length, seed)
    assert len(find_epochs(Recording(current, dt=0.1))) == 60


def test_hum_does_not_cut_an_epoch():
    clean = family([300.0] * 20)
    hum = 4.0 * np.sin(2.0 * np.pi * 0.05 * clean.times + 1.0)
    assert len(find_epochs(Recording(clean.current + hum, dt=0.1))) == 60


def hums(recording):
    return [n for n in notes_on(recording, np.zeros(recording.current.shape, bool)) if "has a hum of" in n]


# Amplitudes up to that of the smallest step, a frequency that drifts, and a third harmonic.
@pytest.mark.parametrize(
    ("dt", "hertz", "amplitude", "third"),
    [(0.2, 50.0, 6.0, 0.0), (0.1, 60.0, 6.0, 2.0), (0.5, 49.95, 20.0, 0.0), (0.05, 60.05, 3.0, 0.0)],
)
@pytest.mark.parametrize("noise", [1.5, 0.0])
def test_hum_does_not_hide_the_steps(dt, hertz, amplitude, third, noise):
    levels = np.arange(-60.0, 241.0, 20.0)
    clean, rng = family(levels, noise=noise, dt=dt), np.random.default_rng(0)
    turns = hertz / 1000.0 * clean.times + rng.uniform(size=(len(levels), 1))
    hum = amplitude * np.sin(2.0 * np.pi * turns) + third * np.sin(6.0 * np.pi * turns)
    table = fi_table(recording := Recording(clean.current + hum, dt=dt), np.zeros(hum.shape, bool))
    np.testing.assert_allclose(table.currents, levels - 10.0, atol=0.5)  # the noise of medians over 200 ms
    np.testing.assert_allclose([table.start, table.stop], [100.0, 300.0], atol=dt)
    (note,) = hums(recording)
    found = float(note.split("hum of ")[1].split(" pA")[0])
    assert found == pytest.approx(amplitude, rel=0.1) and f"at {round(hertz)} Hz" in note and hums(clean) == []


def test_hum_makes_no_steps_of_a_ramp_and_a_wave_is_a_stimulus():
    ramp = 0.1 * np.arange(0.0, 2000.0, 0.1)
    wave = np.sin(0.1 * np.pi * np.arange(0.0, 2000.0, 0.1))
    noise = np.random.default_rng(0).standard_normal(ramp.size)
    assert not is_step_protocol(Recording(ramp + 6.0 * wave + noise, dt=0.1))
    whole = Recording(100.0 * wave + 100.0 * (ramp > 100.0), dt=0.1)
    assert not is_step_protocol(whole) and hums(whole) == []


@pytest.mark.parametrize("slope", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_ramps_are_no_steps(slope, noise):
    ramp = slope * np.arange(20000) * 1e-4
    measured = ramp + noise * np.random.default_rng(0).standard_normal(ramp.size)
    assert not is_step_protocol(Recording(measured, dt=0.1))


@pytest.mark.parametrize("tau", [1.0, 3.0, 30.0, 100.0, 300.0])
def test_noise_is_no_steps(tau):
    noise = Recording(ornstein_uhlenbeck(tau), dt=0.1)
    assert not is_step_protocol(noise)
    covered = sum(epoch.stop - epoch.start for epoch in find_epochs(noise))
    assert covered < (0.1 if tau < 100.0 else 0.3) * noise.num_steps


def test_one_constant_is_no_step_protocol():
    assert not is_step_protocol(Recording(np.full((2, 1000), 5.0), dt=0.1))
    assert is_step_protocol(Recording(np.array([[5.0] * 1000, [6.0] * 1000]), dt=0.1))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_shortest_recordings_have_no_epochs_but_no_error_either(size):
    noise = np.random.default_rng(0).standard_normal((2, size))
    assert find_epochs(Recording(noise, dt=0.1)) == () and not is_step_protocol(Recording(noise, dt=0.1))


def raster(recording, counts, start=1000, stop=3000):
    """So many spikes in the test epoch, and one before and one after it."""
    spikes = np.zeros(recording.current.shape, bool)
    for sweep, count in zip(spikes, counts, strict=True):
        sweep[np.linspace(start, stop, count, endpoint=False).astype(int)] = True
    spikes[:, [start - 1, stop]] = True
    return spikes


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_fi_table_counts_the_spikes_of_the_test_epoch(noise):
    cell = family([0.0, 100.0, 50.0, 100.0], noise)
    table = fi_table(cell, raster(cell, [0, 10, 3, 20]))
    np.testing.assert_allclose(table.currents, [-10.0, 40.0, 90.0], atol=noise / 5 + 1e-9)
    # A noisy edge may lie some samples off, and then the spike beside it counts.
    np.testing.assert_allclose(table.rates, [0.0, 15.0, 75.0], atol=11.0 if noise else 1e-9)
    np.testing.assert_allclose([table.start, table.stop], [100.0, 300.0], atol=0.5 if noise else 1e-9)


def test_a_drifting_holding_current_is_not_the_test_epoch():
    current = np.array(family([50.0, 100.0, 150.0]).current)
    current += np.array([0.0, 3.0, 6.0])[:, None]
    table = fi_table(Recording(current, dt=0.1), np.zeros(current.shape, bool))
    assert (table.start, table.stop) == (100.0, 300.0)
    np.testing.assert_allclose(table.currents, [40.0, 93.0, 146.0])


def test_the_test_epoch_is_on_the_recordings_clock():
    cell = family([50.0, 100.0]).window(50.0, 400.0)
    table = fi_table(cell, np.zeros(cell.current.shape, bool))
    assert (table.start, table.stop) == (100.0, 300.0)


def test_a_single_sweep_gives_one_rate():
    cell = family([100.0])
    table = fi_table(cell, raster(cell, [7]))
    assert (table.currents.tolist(), table.rates.tolist()) == ([90.0], [35.0])


def with_steps(*sweeps, size=5000, noise=0.0):
    """Sweeps on a holding current of -10 pA, each of (start, stop, size) in samples and pA."""
    current = np.full((len(sweeps), size), -10.0)
    for row, parts in zip(current, sweeps, strict=True):
        for start, stop, step in parts:
            row[start:stop] += step
    return Recording(current + noise * np.random.default_rng(0).standard_normal(current.shape), dt=0.1)


# Recorded currents have noise; then an edge is known to some samples and a rate to a spike.
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_every_sweep_counts_its_own_step_whatever_its_onset_and_length(noise):
    parts = [(500 + 300 * n, 1500 + 500 * n, 50.0 * n) for n in range(1, 6)]
    cell = with_steps(*([part] for part in parts), noise=noise)
    spikes = np.zeros(cell.current.shape, bool)
    for train, (start, stop, _) in zip(spikes, parts, strict=True):
        train[start + 10 : stop - 10 : 100] = True
        train[[20, 4990]] = True  # outside every step
    table = fi_table(cell, spikes)
    counts = [len(range(start + 10, stop - 10, 100)) for start, stop, _ in parts]
    exact = [1e4 * n / (stop - start) for n, (start, stop, _) in zip(counts, parts, strict=True)]
    np.testing.assert_allclose(table.rates, exact, rtol=0.0 if noise == 0.0 else 0.05)
    np.testing.assert_allclose(table.currents, [40.0, 90.0, 140.0, 190.0, 240.0], atol=noise / 5)
    assert (table.start, table.stop) == pytest.approx((80.0, 400.0), abs=1.0 if noise else 0.0)


def test_one_sweep_that_stops_early_keeps_its_own_length():
    cell = with_steps(*([(1000, 3000, 20.0 * n)] for n in range(1, 8)), [(1000, 2000, 160.0)], [])
    spikes = np.zeros(cell.current.shape, bool)
    spikes[7, 1000:2000:100] = True
    table = fi_table(cell, spikes)
    assert table.rates[-1] == 100.0 and table.currents[-1] == 150.0
    assert [(t.start, t.stop) for t in step_family(cell).tests] == [(1000, 3000)] * 7 + [(1000, 2000), (1000, 3000)]


def test_a_second_step_and_a_pulse_of_every_sweep_are_named_and_not_counted():
    pulse, second = (200, 700, -20.0), (3500, 4500, 100.0)
    cell = with_steps(*([pulse, (1000, 3000, 50.0 * n), second] for n in range(5)))
    tests, others = step_family(cell)
    assert [(t.start, t.stop, t.level) for t in tests] == [(1000, 3000, 50.0 * n - 10.0) for n in range(5)]
    assert [(e.start, e.stop, e.level) for e in others] == [(200, 700, -30.0), (3500, 4500, 90.0)] * 5
    # With levels of its own the second is still the second, also where the first is no step at all.
    varied = with_steps(*([(1000, 3000, 50.0 * n), (3500, 4500, 30.0 * n - 200.0)] for n in range(5)))
    tests, others = step_family(varied)
    assert {(t.start, t.stop) for t in tests} == {(1000, 3000)} and tests[0].level == -10.0
    assert [(e.start, e.stop) for e in others] == [(3500, 4500)] * 5


def test_steps_from_the_first_sample_and_whole_sweeps_are_tests():
    begin = with_steps(*([(0, 3000, 50.0 * n)] for n in range(1, 5)))
    assert {(t.start, t.stop) for t in step_family(begin).tests} == {(0, 3000)}
    whole = with_steps(*([(0, 5000, 50.0 * n)] for n in range(1, 5)))
    assert {(t.start, t.stop) for t in step_family(whole).tests} == {(0, 5000)}


def test_spikes_come_from_the_recording_or_its_voltage():
    cell = family([100.0, 200.0])
    spikes = raster(cell, [4, 8])
    spikes[:, 999] = False  # so close that the voltage would not return between the two
    voltage = np.where(spikes, 20.0, -60.0)
    known = Recording(cell.current, dt=0.1, spikes=spikes)
    seen = Recording(cell.current, voltage, dt=0.1)
    for recording in (known, seen):
        np.testing.assert_allclose(fi_table(recording).rates, [20.0, 40.0])


@pytest.mark.parametrize(
    ("recording", "spikes", "message"),
    [
        (family([100.0]), None, "voltage is missing"),
        (family([100.0]), np.zeros((2, 5000)), "spikes has shape \\(2, 5000\\)"),
        (Recording(np.linspace(0.0, 1.0, 1000), dt=0.1), None, "current is not made of steps"),
    ],
)
def test_bad_input_is_refused(recording, spikes, message):
    with pytest.raises(ValueError, match=message):
        fi_table(recording, spikes)


def test_the_interneurons_f_i_table(data_folder):
    cell = read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf")
    table = fi_table(cell)
    assert (table.start, table.stop) == (146.85, 646.85)
    np.testing.assert_array_equal(table.currents, np.arange(-100.0, 301.0, 25.0))
    assert table.rates[-1] == 128.0 and (np.diff(table.rates) >= 0).all() and (table.rates[:4] == 0).all()


def test_a_measured_step_family(data_folder):
    cell = read_recording(data_folder / "recordings" / "ferguson2015_PYR1.abf")
    assert len(find_epochs(cell)) == 90
    table = fi_table(cell)
    np.testing.assert_allclose([table.start, table.stop], [81.5, 1081.5], atol=0.5)
    assert table.currents.size == 30 and 2.0 < np.diff(table.currents).min() < np.diff(table.currents).max() < 14.0
    assert table.rates[-1] == 29.0 and (np.diff(table.rates) >= 0).all()


@pytest.mark.parametrize("file", ["171116sh_0016.abf", "l5_pyramidal_frozen_noise.npz", "qsnmc2007_a.npz"])
def test_real_ramps_and_noise_are_no_steps(data_folder, file):
    assert not is_step_protocol(read_recording(data_folder / "recordings" / file, sweeps=slice(0, 4)))


def test_one_real_step(data_folder):
    for path in sorted((data_folder / "recordings").glob("allen_step_*.npz")):
        table = fi_table(read_recording(path))
        assert (table.start, table.stop, table.rates.size) == (205.0, 1205.0, 1)
