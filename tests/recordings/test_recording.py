"""Recording: what is refused, what is warned of, cuts in time and over sweeps, and which sweeps are repeats."""

import numpy as np
import pytest

from jaxlif.recordings import Recording, read_recording, repeats
from jaxlif.recordings.notes import rest_notes


def noise(seed, shape, sd=1.0):
    return sd * np.random.default_rng(seed).standard_normal(shape)


def recording(**changes):
    current = np.tile(np.repeat([0.0, 100.0], 50), (3, 1))
    fields = {"current": current, "voltage": -70.0 + 0.1 * current, "dt": 0.1} | changes
    return Recording(**fields)


def test_one_sweep_becomes_a_row_and_arrays_cannot_be_written():
    single = Recording(np.arange(4, dtype=np.float32), dt=0.5)
    assert single.current.shape == (1, 4) and single.current.dtype == np.float64 and single.voltage is None
    with pytest.raises(ValueError, match="read-only"):
        single.current[0, 0] = 1.0


def test_the_callers_array_stays_writable():
    current = np.arange(4.0)
    Recording(current, dt=0.5)
    current[0] = 7.0


def test_size_and_clock():
    cell = recording(start=5.0)
    assert (cell.num_sweeps, cell.num_steps, cell.duration) == (3, 100, 10.0)
    np.testing.assert_allclose(cell.times[[0, -1]], [5.1, 15.0])


def test_window_keeps_the_clock_and_every_array():
    spikes = np.zeros((3, 100), bool)
    spikes[:, 60] = True
    cut = recording(spikes=spikes, start=5.0).window(10.0, 12.0)
    np.testing.assert_allclose(cut.times, 5.0 + 0.1 * np.arange(51, 71))
    assert cut.current.shape == cut.voltage.shape == cut.spikes.shape == (3, 20)
    assert np.flatnonzero(cut.spikes[0]).tolist() == [10]


def test_window_holds_the_steps_between_its_bounds():
    cut = Recording(np.arange(100.0), dt=0.1).window(2.0, 3.0)
    np.testing.assert_array_equal(cut.current[0], np.arange(20.0, 30.0))


@pytest.mark.parametrize("bounds", [(-1.0, 5.0), (5.0, 11.0), (5.0, 5.1), (6.0, 5.0)])
def test_window_outside_is_refused(bounds):
    with pytest.raises(ValueError, match="window .* at least two samples within 0 to 10 ms"):
        recording().window(*bounds)


def test_select_reorders_sweeps():
    cell = Recording(np.arange(12.0).reshape(3, 4), dt=1.0)
    np.testing.assert_array_equal(cell.select([2, -3]).current[:, 0], [8.0, 0.0])
    assert cell.select(1).num_sweeps == 1 and cell.select(slice(1, None)).num_sweeps == 2


@pytest.mark.parametrize("sweeps", [3, [-4], [], [0.5], slice(5, 9)])
def test_select_of_a_missing_sweep_is_refused(sweeps):
    with pytest.raises(ValueError, match="the recording has 3, numbered 0 to 2"):
        recording().select(sweeps)


@pytest.mark.parametrize(
    ("dt", "guess"),
    [
        (0.0001, "it looks like seconds: pass 0.1"),
        (5e-5, "it looks like seconds: pass 0.05"),
        (10000.0, "it looks like a rate in Hz: pass 0.1"),
        (20.0, "it looks like microseconds: pass 0.02 or a rate in kHz: pass 0.05"),
    ],
)
def test_dt_in_another_unit_is_refused_with_its_value_in_ms(dt, guess):
    with pytest.raises(ValueError) as error:
        recording(dt=dt)
    assert str(error.value) == f"dt = {dt:g} ms is implausible (0.004 to 5 ms are accepted); {guess}"


@pytest.mark.parametrize("dt", [0.004, 5.0, np.array([0.1]), np.float32(0.1)])
def test_plausible_dt_is_accepted(dt):
    assert isinstance(recording(dt=dt).dt, float)


@pytest.mark.parametrize("dt", [0.0, -0.1, np.nan, np.inf, [0.1, 0.1]])
def test_dt_that_is_no_interval_is_refused(dt):
    with pytest.raises(ValueError, match="dt = .* must be one positive, finite number of ms"):
        recording(dt=dt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voltage": np.zeros((3, 99))}, r"current has shape \(3, 100\) and voltage \(3, 99\): they must agree"),
        ({"voltage": np.zeros((2, 100))}, r"current has shape \(3, 100\) and voltage \(2, 100\)"),
        ({"spikes": np.zeros((3, 99))}, r"current has shape \(3, 100\) and spikes \(3, 99\)"),
        ({"spikes": np.full((3, 100), 12.5)}, "spikes must be a raster"),
        ({"current": np.zeros((2, 3, 100))}, "current has shape \\(2, 3, 100\\)"),
        ({"current": np.zeros(1), "voltage": None}, "current has shape \\(1,\\)"),
        ({"current": ["a", "b"]}, "current = .*: current must be a number or an array of numbers, pA"),
        ({"current_source": "guessed"}, "current_source = 'guessed'"),
        ({"electrode_current": np.zeros(10)}, "belong together"),
        (
            {"electrode_current": np.zeros(10), "electrode_voltage": np.zeros(9)},
            r"electrode_current has shape \(1, 10\) and electrode_voltage \(1, 9\)",
        ),
        ({"electrode_current": np.zeros((2, 9)), "electrode_voltage": np.zeros((2, 9))}, "one trace"),
    ],
)
def test_bad_arrays_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recording(**changes)


def test_the_first_nan_is_located():
    voltage = np.full((3, 100), -70.0)
    voltage[1, 40:43] = np.nan
    with pytest.raises(ValueError, match=r"voltage\[1, 40\] = nan mV: voltage must be finite"):
        recording(voltage=voltage)


def test_electrode_trace_has_its_own_length():
    cell = recording(electrode_current=noise(0, 500), electrode_voltage=-70.0 + noise(1, 500))
    assert cell.electrode_current.shape == (500,) and cell.window(0.0, 5.0).electrode_voltage.shape == (500,)


def test_repr_is_one_line():
    assert repr(recording(name="x.npz")) == (
        "Recording(x.npz: 3 sweeps of 10 ms, dt = 0.1 ms, current unknown, with voltage)"
    )


def groups(currents):
    return [group.tolist() for group in repeats(Recording(np.stack(currents), dt=0.1))]


def coloured(seed, size=4000):
    kernel = np.exp(-np.arange(200) / 30.0)
    return np.convolve(noise(seed, size + 199, 50.0), kernel, mode="valid")


def test_repeats_see_through_measurement_noise_and_quantisation():
    a, b = coloured(1), coloured(2)
    measured = [a, b + noise(3, a.size, 5.0), np.round(a), b, a + noise(4, a.size, 20.0)]
    assert groups(measured) == [[0, 2, 4], [1, 3]]


def test_repeats_tell_close_steps_ramps_and_white_noises_apart():
    step = np.repeat([0.0, 1.0, 0.0], 1000)
    assert groups([300.0 * step, 290.0 * step, 300.0 * step]) == [[0, 2], [1]]
    measured = [level * step + noise(seed, step.size, 7.0) for seed, level in enumerate((100.0, 110.0, 100.0))]
    assert groups(measured) == [[0, 2], [1]]
    assert groups([np.linspace(0.0, end, 3000) for end in (100.0, 103.0)]) == [[0], [1]]
    assert groups([noise(seed, 3000, 50.0) for seed in (1, 2)]) == [[0], [1]]


@pytest.mark.parametrize(
    ("file", "expected"),
    [("l5_pyramidal_frozen_noise.npz", [9]), ("qsnmc2007_a.npz", [4] * 4), ("ferguson2015_PYR1.abf", [1] * 30)],
)
def test_repeats_of_real_recordings(data_folder, file, expected):
    cell = read_recording(data_folder / "recordings" / file)
    assert [group.size for group in repeats(cell)] == expected


def test_sweeps_keep_the_names_of_their_stimuli():
    cell = recording(stimulus=["a", "a", "b"])
    assert cell.stimulus == ("a", "a", "b")
    assert cell.select([2, 0]).stimulus == ("b", "a") and cell.window(2.0, 8.0).stimulus == cell.stimulus
    assert recording(stimulus="a").stimulus == ("a",) * 3 and recording().select([0]).stimulus is None
    with pytest.raises(ValueError, match="stimulus has 2 names for 3 sweeps"):
        recording(stimulus=["a", "b"])


@pytest.mark.parametrize("names", [["x", "y"], ["x", "x", "y", "y"]])
def test_npz_names_each_stimulus_or_each_sweep(tmp_path, names):
    current = np.repeat(noise(0, (2, 1, 50)), 2, axis=1)  # 2 stimuli, 2 repeats
    current = current if len(names) == 2 else current.reshape(4, 50)
    np.savez(tmp_path / "cell.npz", current=current, dt=0.1, stimulus=np.array(names))
    assert read_recording(tmp_path / "cell.npz").stimulus == ("x", "x", "y", "y")
    assert read_recording(tmp_path / "cell.npz", sweeps=[3, 0]).stimulus == ("y", "x")


def test_npz_names_that_do_not_fit_are_refused_and_numbers_are_none(tmp_path):
    np.savez(tmp_path / "cell.npz", current=noise(0, (4, 50)), dt=0.1, stimulus=np.array(["x", "y"]))
    with pytest.raises(ValueError, match="cell.npz: stimulus has 2 names for 4 sweeps"):
        read_recording(tmp_path / "cell.npz")
    np.savez(tmp_path / "cell.npz", current=noise(0, (4, 50)), dt=0.1, stimulus=np.arange(7.0))
    assert read_recording(tmp_path / "cell.npz").stimulus is None


def test_a_rest_that_moves_from_sweep_to_sweep_is_said():
    current = np.zeros((4, 3000))
    current[:, 2000:] = 100.0
    still = np.random.default_rng(0).normal(-65.0, 0.2, current.shape)
    moving = still + np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    none = np.zeros(current.shape, bool)
    assert rest_notes(Recording(current, still, dt=0.1), none) == ()
    (note,) = rest_notes(Recording(current, moving, dt=0.1), none)
    assert note.startswith("the rest moves by 3 mV from sweep to sweep, -65 to -62 mV")


def test_a_masked_sample_is_refused():
    """NumPy drops a mask in silence, and what lies under it would be fitted."""
    voltage = np.ma.masked_equal(np.where(np.arange(50) == 7, 999.0, -70.0), 999.0)
    with pytest.raises(ValueError, match="voltage = .* none of them masked"):
        Recording(current=np.zeros(50), voltage=voltage, dt=0.1)
