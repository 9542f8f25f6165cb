"""The lab's table: against eFEL where it is installed, against known membranes, and where nothing is defined."""

import csv
import warnings

import numpy as np
import pytest
from scipy.optimize import curve_fit

import jaxlif as jl
from jaxlif.features import CELL, SWEEP, recording_features
from jaxlif.recordings import RecordingWarning
from jaxlif.recordings.protocol import step_family
from tests.command_line import good

DT = 0.05
STEPS = np.array([-120.0, -80.0, -40.0, 60.0, 200.0, 260.0, 340.0, 500.0])  # pA; from 200 on the cell fires
START, STOP = 300.0, 900.0  # ms


@pytest.fixture(scope="module")
def cell():
    """A family of steps of the Hodgkin-Huxley neuron, which adapts by its M current, at rest before each."""
    current = np.zeros((len(STEPS), round(1100.0 / DT)))
    current[:, round(START / DT) : round(STOP / DT)] = STEPS[:, None]
    model, params = jl.HodgkinHuxley(dt=DT, substeps=2), jl.HodgkinHuxleyParams()
    _, output = jl.simulate(model, params, current.T)
    return jl.Recording(current=current, voltage=np.asarray(output.v).T, dt=DT)


def by_efel(recording, sweep, *names):
    """What eFEL says of a sweep, each feature its first value, or None."""
    efel = pytest.importorskip("efel", reason="eFEL is not installed (pip install 'jaxlif[dev]')")
    test = step_family(recording).tests[sweep]
    start, stop = recording.start + np.array([test.start, test.stop]) * recording.dt
    trace = {"T": recording.times, "V": recording.voltage[sweep], "stim_start": [start], "stim_end": [stop]}
    own = recording_features(recording).sweeps[sweep]
    trace["stimulus_current"] = [own.current - (own.holding or 0.0)]
    efel.reset()
    efel.set_setting("strict_stiminterval", True)
    values = efel.get_feature_values([trace], list(names), raise_warnings=False)[0]
    return [None if values[name] is None or not len(values[name]) else values[name] for name in names]


def single(recording, sweep):
    """The table of one sweep alone: its own input resistance, sag and first spike."""
    return recording_features(recording.select([sweep])).cell


def compare_trains(recording):
    """Compare the spikes of every sweep with eFEL's, and return of how many sweeps the counts are the same."""
    same = []
    for row in recording_features(recording).sweeps:
        names = "spike_count_stimint", "time_to_first_spike", "all_ISI_values", "adaptation_index"
        count, first, intervals, adaptation = by_efel(recording, row.sweep, *names)
        same.append(row.spikes == (0 if count is None else count[0]))
        if not same[-1]:
            continue
        if row.spikes == 0:
            assert row.latency is None and row.first_isi is None and row.adaptation_index is None
            continue
        # eFEL's spike is at its peak, ours at the crossing before it, and eFEL's times are a grid of 0.1 ms.
        assert -0.11 <= first[0] - row.latency <= 1.0
        if row.spikes > 1:
            np.testing.assert_allclose([row.first_isi, row.last_isi], intervals[[0, row.spikes - 2]], atol=0.5)
        if row.spikes > 3:  # fewer are not enough for eFEL
            # Intervals of 6 ms and more on a grid of 0.1 ms: (b - a) / (b + a) is off by 0.1 / 12, less in the mean.
            assert row.adaptation_index == pytest.approx(adaptation[0], abs=0.005)
    return same


def compare_shapes(recording, sweep):
    """Compare the first spike of a sweep with eFEL's."""
    found = single(recording, sweep)
    names = "AP_begin_voltage", "AP_amplitude", "AP_duration_half_width", "min_between_peaks_values"
    onset, amplitude, width, troughs = by_efel(recording, sweep, *names)
    # eFEL takes the first of its samples, 0.1 ms apart, at 10 mV/ms or more: 1 mV above the crossing and more, as dV/dt
    # has risen further. Its peak is the highest of these samples.
    assert -0.5 <= onset[0] - found["spike_threshold"] <= 2.0
    assert found["spike_amplitude"] == pytest.approx(amplitude[0], abs=2.0)
    assert found["spike_width"] == pytest.approx(width[0], abs=0.11)  # two samples of eFEL
    assert found["spike_threshold"] - found["ahp"] == pytest.approx(troughs[0], abs=0.3)  # the same
    return found


def test_counts_latencies_and_intervals_are_those_of_efel(cell):
    assert all(compare_trains(cell))
    assert recording_features(cell).sweeps[-1].adaptation_index > 0.01


@pytest.mark.parametrize("sweep", range(3))
def test_deflections_are_those_of_efel_and_ipfx(cell, sweep):
    found = single(cell, sweep)
    resistance, sag, tau = by_efel(cell, sweep, "ohmic_input_resistance_vb_ssse", "sag_ratio1", "time_constant")
    assert found["input_resistance"] == pytest.approx(resistance[0], rel=1e-3)  # mean or median of a flat baseline
    if found["sag"] is not None:
        # The trough is a mean of 5 ms here, as in IPFX, and a single sample in eFEL.
        assert found["sag"] == pytest.approx(sag[0], abs=2e-3)
    # eFEL takes a regression of the logarithm over another part of the decay: 1 % off for an exponential as such.
    assert found["time_constant"] == pytest.approx(tau[0], rel=0.15)
    # The definition of IPFX, by another program: three free numbers between 10 % of the deflection and its peak.
    v = cell.voltage[sweep, round(START / DT) : round(STOP / DT)] - cell.voltage[sweep, round(START / DT) - 1]
    start, peak = np.argmax(v <= 0.1 * v.min()), np.argmin(v)
    times = DT * np.arange(peak - start)
    (tau, *_), _ = curve_fit(lambda t, tau, a, b: b + a * np.exp(-t / tau), times, v[start:peak], (20.0, 5.0, -5.0))
    assert found["time_constant"] == pytest.approx(tau, rel=0.03)  # the end at five time constants


@pytest.mark.parametrize("sweep", range(4, 8))
def test_the_shape_of_a_spike_is_that_of_efel(cell, sweep):
    found = compare_shapes(cell, sweep)
    depth, fast = by_efel(cell, sweep, "AHP_depth", "fast_AHP")
    assert found["ahp_depth"] == pytest.approx(depth[0], abs=0.01)  # mean or median of a flat baseline
    assert found["ahp"] == pytest.approx(fast[0], abs=2.0)  # of a threshold on eFEL's grid


def around(recording):
    """The 150 ms before the tests, so that no other step is there, and all after it."""
    tests = step_family(recording).tests
    begin = max(0, min(test.start for test in tests) - round(150.0 / recording.dt))
    end = max(test.stop for test in tests) + round(20.0 / recording.dt)
    return recording.start + begin * recording.dt, recording.start + min(end, recording.num_steps) * recording.dt


REAL = {
    "2019_07_24_0055_fsi.abf": [7, 9, 14],
    "ferguson2015_PYR1.abf": [9, 15, 24],
    "LantyerEtAl2018_180817_ME_9_CC.nwb": [3, 5, 7],
    "dorsal_raphe/DRN159_5HT/current_steps.abf": [5, 8, 12],
    "dorsal_raphe/DRN162_5HT/current_steps.abf": [8, 11, 15],
    "B6_Ch3_IDRest_181.ibw": [0, 2, 4],
}


@pytest.mark.parametrize("name", REAL)
def test_real_steps_are_measured_as_efel_does(data_folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # the command is not the recorded current
        recording = jl.read_recording(data_folder / "recordings" / name)
    same = compare_trains(recording)
    assert np.mean(same) >= 0.9  # eFEL counts what crosses -20 mV
    for sweep in REAL[name]:
        compare_shapes(recording, sweep)
    compared = 0
    for row in recording_features(recording).sweeps:
        own = None if row.spikes else single(recording.window(*around(recording)), row.sweep)["input_resistance"]
        if own is None:
            continue
        compared += 1
        resistance, base = by_efel(recording, row.sweep, "ohmic_input_resistance_vb_ssse", "voltage_base")
        # The end of the step is the same, the baselines are of different lengths.
        apart = abs(row.baseline - base[0]) / abs(row.current - row.holding)
        assert own == pytest.approx(resistance[0], abs=apart + 0.02 * own)
    assert compared >= {"B6_Ch3_IDRest_181.ibw": 0}.get(name, 3)


def test_the_cells_rheobase_rest_and_spike(cell):
    found = recording_features(cell)
    assert [found.cell[name] for name in ("rheobase_low", "rheobase", "rheobase_high")] == [60.0, 200.0, 200.0]
    assert found.cell["holding"] == 0.0 and found.cell["rest"] == found.cell["baseline"]
    assert found.cell["rest"] == pytest.approx(-71.9, abs=0.1)  # of the docstring of its parameters
    assert found.cell["spike_threshold"] == single(cell, 4)["spike_threshold"]
    # Of the steps that deflect by 15 mV at most: at -120 pA the M current has closed further.
    assert found.cell["input_resistance"] == pytest.approx(0.14, abs=0.02)
    assert found.cell["capacitance"] == pytest.approx(300.0, rel=0.1)
    assert found.remarks == {}


def passive(
    sizes=(-60.0, -55.0, -50.0, -45.0, -40.0, 20.0), noise=0.0, drop=0.0, epsp=0.0, holding=0.0, tau=20.0, r_m=0.1
):
    """Sweeps of 700 ms by a plain RC circuit, resting at -70 mV, with a step from 200 to 500 ms; EPSPs 40 ms apart."""
    rng, dt = np.random.default_rng(0), 0.1
    current = np.full((len(sizes), 7000), holding)
    current[:, 2000:5000] += np.array(sizes)[:, None]
    voltage, v = np.zeros(current.shape), np.full(len(sizes), -70.0 + r_m * holding)
    for n in range(current.shape[1]):
        v = v + (-70.0 + r_m * current[:, n] - v) * (1.0 - np.exp(-dt / tau))
        voltage[:, n] = v
    voltage += drop * current + noise * rng.standard_normal(voltage.shape)
    for at, sweep in zip(range(2100, 7000, 400), voltage, strict=False):
        sweep[at:] += epsp * np.exp(-np.arange(7000 - at) * dt / tau)
    return jl.Recording(current=current, voltage=voltage, dt=dt)


# The drop of an electrode is in the input resistance, as in eFEL's, and in neither tau nor the capacitance.
@pytest.mark.parametrize(
    ("noise", "drop", "epsp", "rel"), [(0.0, 0.0, 0.0, 1e-3), (0.1, 0.02, 0.0, 0.02), (0.1, 0.0, 8.0, 0.05)]
)
def test_a_membrane_with_known_numbers(noise, drop, epsp, rel):
    found = recording_features(passive(noise=noise, drop=drop, epsp=epsp)).cell
    assert found["input_resistance"] == pytest.approx(0.1 + drop, rel=rel)
    assert found["time_constant"] == pytest.approx(20.0, rel=rel)
    assert found["capacitance"] == pytest.approx(200.0, rel=2.0 * rel)
    assert found["sag"] == pytest.approx(0.0, abs=0.05)
    assert found["spike_threshold"] is None


def test_an_electrode_is_taken_off():
    recording = passive(drop=0.03)
    found = recording_features(recording, electrode_drop=0.03 * recording.current)
    assert found == recording_features(passive())._replace(cell=pytest.approx(found.cell), sweeps=found.sweeps)
    assert found.cell["input_resistance"] == pytest.approx(0.1, rel=1e-3)


def test_what_is_not_defined_is_none_and_says_why():
    found = recording_features(passive(noise=0.5, sizes=(2.0, 4.0)))  # 0.2 and 0.4 mV under 0.5 mV of noise
    assert all(found.cell[name] is None for name in ("input_resistance", "time_constant", "capacitance", "sag"))
    assert found.remarks["input_resistance"].startswith("not determined: ")
    found_again = recording_features(passive(noise=0.5, sizes=(-20.0, -40.0)))  # 2 and 4 mV
    assert found_again.cell["input_resistance"] == pytest.approx(0.1, rel=0.05)
    assert found_again.remarks["time_constant"] == "not determined: no exponential 20 times above its noise"
    assert found.remarks["rheobase"] == "no step fires: above 4 pA" and found.cell["rheobase_low"] == 4.0
    assert found.cell["rheobase"] is None and found.remarks["spike_threshold"] == "no spike"
    noise = np.random.default_rng(0).standard_normal((3, 7000))
    wandering = passive(sizes=(-1.0, -2.0, -3.0))
    wandering = jl.Recording(
        current=wandering.current, voltage=wandering.voltage + np.cumsum(noise, axis=1) / 30.0, dt=0.1
    )
    found = recording_features(wandering)
    assert found.cell["input_resistance"] is None and "not determined" in found.remarks["input_resistance"]
    held = recording_features(passive(holding=-30.0))
    assert held.cell["rest"] is None and held.cell["baseline"] == pytest.approx(-73.0) and held.cell["holding"] == -30.0
    assert held.remarks["rest"] == "every sweep is under a holding current that moves it"
    little = recording_features(passive(holding=-5.0))  # 0.5 mV
    assert little.cell["rest"] == little.cell["baseline"] == pytest.approx(-70.5)


def trains(levels, counts, holding=0.0):
    """Sweeps of 500 ms with a step from 100 to 400 ms, and so many spikes in it, known and not in a voltage."""
    current = np.full((len(levels), 5000), holding)
    current[:, 1000:4000] = np.array(levels)[:, None]
    spikes = np.zeros(current.shape, bool)
    for train, count in zip(spikes, counts, strict=True):
        train[np.linspace(1100, 3900, count).astype(int)] = True
    return jl.Recording(current=current, spikes=spikes, dt=0.1)


@pytest.mark.parametrize(
    ("counts", "expected", "remark"),
    [
        ([0, 0, 1, 4, 9], (150.0, 100.0, 150.0), None),
        ([0, 2, 0, 4, 9], (100.0, 50.0, 200.0), "silent again at 150 pA"),
        ([0, 0, 3, 9, 0], (150.0, 100.0, 150.0), None),  # a block
        ([0, 0, 0, 0, 0], (None, 250.0, None), "no step fires: above 250 pA"),
        ([1, 2, 3, 4, 9], (None, None, 50.0), "every step fires: below 50 pA"),
    ],
)
def test_the_rheobase_lies_between_what_is_silent_and_what_fires(counts, expected, remark):
    found = recording_features(trains([50.0, 100.0, 150.0, 200.0, 250.0], counts))
    assert tuple(found.cell[name] for name in ("rheobase", "rheobase_low", "rheobase_high")) == expected
    assert found.remarks.get("rheobase") == remark
    assert all(value is not None or found.remarks[name] for name, value in found.cell.items())
    assert found.cell["spike_threshold"] is None and found.remarks["spike_threshold"] == "no voltage"


def test_adaptation_leaves_the_first_tenth_of_the_spikes_out():
    """Rounded with half a spike as one, and two at most, as the text of eFEL says."""
    times = [np.array(t) for t in ([10, 20, 40, 70], [10, 12, 22, 42, 72], 10 * np.arange(1, 26))]
    spikes = np.zeros((3, 3000), bool)
    for train, at in zip(spikes, times, strict=True):
        train[1000 + at] = True
    current = np.repeat([[0.0, 50.0, 0.0], [0.0, 60.0, 0.0], [0.0, 70.0, 0.0]], 1000, axis=1)
    found = recording_features(jl.Recording(current=current, spikes=spikes, dt=1.0))
    expected = np.mean([(20 - 10) / 30, (30 - 20) / 50])
    assert [sweep.adaptation_index for sweep in found.sweeps] == pytest.approx([expected, expected, 0.0])


def test_a_holding_current_that_changes_is_said():
    recording = trains([50.0, 100.0, 150.0], [0, 1, 2])
    current, voltage = np.array(recording.current), np.full(recording.current.shape, -70.0)
    current[2, :1000] = current[2, 4000:] = -20.0
    known = jl.Recording(current=current, voltage=voltage, spikes=recording.spikes, dt=0.1)
    found = recording_features(known)
    assert found.cell["holding"] is None and found.remarks["holding"] == "changes from sweep to sweep, -20 to 0 pA"
    assert [sweep.holding for sweep in found.sweeps] == [0.0, 0.0, -20.0]


def test_a_model_stands_beside_the_cell():
    recording = trains([50.0, 100.0, 150.0], [0, 2, 3])
    predicted = np.stack([recording.spikes, np.roll(recording.spikes, 50, axis=1)])
    predicted[1, 1] = False
    found = recording_features(recording, predicted=predicted)
    assert [sweep.spikes_model for sweep in found.sweeps] == [0.0, 1.0, 3.0]
    assert [sweep.latency_model for sweep in found.sweeps[:2]] == [None, None]
    assert found.sweeps[2].latency_model == pytest.approx(10.1 + 2.5)
    with pytest.raises(ValueError, match="predicted"):
        recording_features(recording, predicted=predicted[:, :2])


def test_noise_has_intervals_but_no_latency():
    rng = np.random.default_rng(0)
    current = np.concatenate([np.zeros(2000), 100.0 + 50.0 * rng.standard_normal(3000)])
    spikes = np.zeros(5000, bool)
    spikes[[2500, 2600, 2900]] = True
    voltage = np.where(spikes, 20.0, -70.0)
    found = recording_features(jl.Recording(current=current, voltage=voltage, spikes=spikes, dt=1.0))
    (sweep,) = found.sweeps
    assert (sweep.spikes, sweep.first_isi, sweep.last_isi) == (3, 100.0, 300.0)
    assert sweep.latency is None and sweep.adaptation_index is None and sweep.holding is None
    assert found.cell["rheobase"] is None and found.cell["rest"] == -70.0
    assert found.remarks["spike_threshold"] == "dt = 1 ms: 0.25 ms or less are needed"
    assert found.remarks["input_resistance"] == found.remarks["rheobase"] == "the current is not made of steps"


def test_a_fit_writes_the_table_beside_its_report(steps_file, tmp_path):
    good("fit", steps_file, "--out", tmp_path)
    with open(tmp_path / "features_sweeps.csv", encoding="utf-8") as file:
        sweeps = list(csv.DictReader(file))
    with open(tmp_path / "features_cell.csv", encoding="utf-8") as file:
        cell = {row["feature"]: row for row in csv.DictReader(file)}
    fit, recording = jl.load_fit(tmp_path / "fit.json"), jl.read_recording(steps_file)
    found = recording_features(recording)
    assert list(cell) == list(CELL) and all(row["unit"] == CELL[name][0] for name, row in cell.items())
    for name, value in found.cell.items():
        assert cell[name]["value"] == ("" if value is None else f"{value:.6g}")
        assert cell[name]["remark"] == found.remarks.get(name, "") and (value is not None or name in found.remarks)
    assert list(sweeps[0]) == [f"{name}_{unit}" if unit else name for name, (unit, _) in SWEEP.items()]
    free = fit.as_scored().predict(recording).spike_sweep
    assert [float(row["spikes_model"]) for row in sweeps] == np.bincount(free, minlength=len(sweeps)).tolist()
    assert [int(row["spikes"]) for row in sweeps] == [sweep.spikes for sweep in found.sweeps]
    assert [row["latency_ms"] for row in sweeps[:2]] == ["", ""] and float(sweeps[3]["latency_ms"]) > 0.0
