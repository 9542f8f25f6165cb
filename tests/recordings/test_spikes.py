"""Spikes by a threshold: hand-made traces, a plain loop as oracle, what is left out and said, counts of real cells."""

from dataclasses import replace

import numpy as np
import pytest

from jaxlif.recordings import Recording, SpikeRule, read_recording
from jaxlif.recordings.spikes import detect_spikes, spike_notes


def at(voltage, dt=0.1, **options):
    return np.flatnonzero(detect_spikes(np.asarray(voltage, float), dt, **({"threshold": 0.0} | options))).tolist()


def spiking(times, size=400, rest=-65.0):
    """Triangular spikes of 100 mV: up in 4 samples, down in 8."""
    voltage = np.full(size, rest)
    for time in times:
        voltage[time : time + 13] += np.concatenate([np.linspace(0, 100, 5), np.linspace(87.5, 0, 8)])
    return voltage


def test_the_first_sample_at_or_above_the_level_is_marked():
    assert at([-60, -1, 0, 20, -60, -60]) == [2]
    assert at([-60, -1, 0, 20, -60], threshold=20.0) == [3]
    assert at([-60, -1, 0, 20, -60], threshold=21.0) == []


def test_a_spike_drawn_for_one_sample_is_found():
    voltage = np.full(100, -60.0)
    voltage[[10, 50]] = 20.0
    assert at(voltage) == [10, 50]


def test_a_trace_that_starts_or_ends_above_the_level_has_no_spike_there():
    assert at([10, 10, -60, -60, 10, -60, 10]) == [4]


def by_a_loop(voltage, dt, threshold=0.0, height=10.0, width=20.0, dead_time=0.5):
    """The rule as one would say it, sample by sample: armed below, crossing, back in time, not too soon."""
    found, armed, crossing = [], True, None
    for n in range(1, len(voltage)):
        if crossing is None and armed and voltage[n - 1] < threshold <= voltage[n]:
            crossing, armed = n, False
        if voltage[n] <= threshold - height:
            back = crossing is not None and (n - crossing) * dt <= width + 1e-9
            if back and (not found or (crossing - found[-1]) * dt >= dead_time - 1e-9):
                found.append(crossing)
            crossing, armed = None, True
    return found


@pytest.mark.parametrize("dt", [0.05, 0.1, 1.0])
def test_a_plain_loop_finds_the_same_spikes(dt):
    random = np.random.default_rng(round(1000 * dt))
    # Noise that crosses the level fast and slowly, with plateaus, and spikes on it.
    noise = 12.0 * np.cumsum(random.standard_normal(20000)) * np.sqrt(dt) * 0.2
    voltage = -20.0 + 25.0 * np.sin(noise / 20.0) + 2.0 * random.standard_normal(noise.size)
    for first in random.integers(0, noise.size - 20, 200):
        voltage[first : first + 4] += [40.0, 80.0, 60.0, -20.0]
    for rule in ({}, {"threshold": -20.0, "dead_time": 3.0}, {"width": 2.0, "height": 30.0}):
        expected = by_a_loop(voltage, dt, **rule)
        assert len(expected) > 20 and at(voltage, dt, **rule) == expected


def test_plateaus_and_a_jump_at_the_end_are_no_spikes():
    voltage = spiking([100, 300], size=8000)
    voltage[1000:6000] = 5.0 + 3.0 * np.random.default_rng(0).standard_normal(5000)  # 500 ms, as a model cell's
    voltage[7900:] = 0.0  # what an amplifier writes after its protocol
    assert at(voltage) == [103, 303]


def test_noise_on_a_flank_makes_no_second_spike_whatever_the_dead_time():
    voltage = spiking([100])
    voltage[103:105] = [1.0, -1.0]
    assert at(voltage, dead_time=0.0) == [103]


@pytest.mark.parametrize("threshold", [None, 0.0])
@pytest.mark.parametrize("method", ["level", "dvdt"])
@pytest.mark.parametrize("rate", [300, 507, 800])
def test_fast_spiking_is_counted_whole(rate, method, threshold):
    """Spikes of 100 mV that last 0.6 ms, every 1000 / rate ms for 200 ms: there are 0.2 * rate of them."""
    dt = 0.02
    voltage = np.full(round(250 / dt), -60.0)
    times = (20.0 + np.arange(round(0.2 * rate)) * 1000.0 / rate) / dt
    for first in times.round().astype(int):
        voltage[first : first + 30] = np.interp(np.arange(30), [0, 12, 29], [-60.0, 40.0, -60.0])
    assert detect_spikes(voltage, dt, method=method, threshold=threshold).sum() == times.size


def test_what_is_left_out_is_counted_and_its_option_named():
    """Two spikes that end at -25 mV, one 1 ms after another, one plateau of 60 ms, one cut off by the end.

    Between two dips the voltage recovers to 5 mV below its rest: no spike has its peak there.
    """
    voltage = spiking([100, 300, 310, 2000], size=4000)
    for first in (600, 900):
        voltage[first : first + 13] += 0.4 * (spiking([0])[:13] + 65.0)
    voltage[1200:1800] = 12.0
    voltage[3000:3020], voltage[3009:3012] = -95.0, -70.0
    voltage[3998:] = 20.0
    recording = Recording(np.zeros(4000), voltage, dt=0.1)
    rule = SpikeRule(threshold=0.0, dead_time=2.0)
    dead, plateau, end, below = spike_notes(recording, rule)
    assert "2 fast peaks end below 0 mV, the highest at -25 mV" in below and "--spike-threshold" in below
    assert "1 crossings of 0 mV come within the dead time of 2 ms" in dead and "--dead-time" in dead
    assert "1 times the voltage stays above 0 mV, for up to 60 ms" in plateau and "--spike-width" in plateau
    assert end.startswith("1 sweeps end above 0 mV")
    # With what the notes advise, they have nothing more to say.
    wider = SpikeRule(threshold=-30.0, width=100.0, dead_time=0.0)
    assert wider.find(recording).sum() == 7 and len(spike_notes(recording, wider)) == 1
    flat = np.where(np.arange(4000) < 2000, -60.0, -61.0)
    assert spike_notes(Recording(np.zeros(4000), flat, dt=0.1), rule) == ()
    known = Recording(np.zeros(4000), voltage, dt=0.1, spikes=np.zeros(4000))
    (missed,) = spike_notes(known, SpikeRule())  # but for the one that comes 1 ms after another
    assert missed.startswith("the recording's own spikes are 0 where its voltage has 5")
    whole = replace(known, spikes=detect_spikes(voltage, 0.1))
    assert spike_notes(whole, SpikeRule()) == () and "holds its spikes" in spike_notes(known, rule)[0]
    assert () == spike_notes(Recording(np.zeros(9), dt=0.1), rule)


def test_spikes_on_a_depolarised_trough_are_said_to_be_one():
    voltage = np.full(400, -60.0)
    voltage[100:150] = -5.0
    voltage[[110, 130]] = 40.0
    assert at(voltage) == [110]
    (note,) = spike_notes(Recording(np.zeros(400), voltage, dt=0.1), SpikeRule(threshold=0.0))
    assert note.startswith("1 more crossings") and at(voltage, threshold=20.0) == [110, 130]


def test_slow_crossings_are_no_spikes_to_the_slope_and_said():
    voltage = spiking([100])
    voltage[200:300] = np.interp(np.arange(100), [0, 50, 99], [-65.0, 5.0, -65.0])
    assert at(voltage) == [103, 247] and at(voltage, method="dvdt") == [101]
    (note,) = spike_notes(Recording(np.zeros(400), voltage, dt=0.1), SpikeRule("dvdt", threshold=0.0))
    assert note.startswith("1 crossings of 0 mV rise slower than 20 mV/ms") and "--spike-method" in note


def test_dead_time_counts_from_the_last_spike_kept():
    voltage = np.full(100, -60.0)
    voltage[[10, 25, 32, 55]] = 20.0
    assert at(voltage, dead_time=2.0) == [10, 32, 55]
    assert at(voltage, dead_time=0.0) == [10, 25, 32, 55]
    assert at(voltage, dead_time=1.5) == [10, 25, 55]


def test_sweeps_are_independent():
    voltage = np.stack([spiking([50]), spiking([49, 200])])
    raster = detect_spikes(voltage, 0.1, threshold=0.0)
    assert raster.shape == voltage.shape and raster.dtype == bool
    assert [np.flatnonzero(sweep).tolist() for sweep in raster] == [[53], [52, 203]]


def test_the_slope_method_marks_the_foot():
    assert at(spiking([50, 200]), method="dvdt") == [51, 201]


def test_the_slope_method_needs_the_peak_in_time():
    small = 0.6 * (spiking([50]) + 65.0) - 65.0
    assert at(small, method="dvdt") == []
    assert at(small, method="dvdt", threshold=-10.0) == [51]
    assert at(spiking([50]), method="dvdt", peak_within=0.1) == []
    assert at(spiking([50]), method="dvdt", peak_within=0.2) == [51]
    assert at(spiking([50]), method="dvdt", slope=300.0) == []


@pytest.mark.parametrize(
    ("voltage", "options", "message"),
    [
        (np.zeros((2, 2, 5)), {}, "voltage has shape"),
        (np.array([0.0, np.nan]), {}, "voltage.1. = nan mV: voltage must be finite"),
        (np.zeros(5), {"dt": 0.0}, "dt = 0 ms: dt must"),
        (np.zeros(5), {"dead_time": -1.0}, "dead_time = -1 ms: dead_time must be"),
        (np.zeros(5), {"threshold": "0"}, "threshold = '0': threshold must be a number, mV"),
        (np.zeros(5), {"width": np.nan}, "width = nan ms: width must be finite"),
        (np.zeros(5), {"method": "peak"}, "method = 'peak'"),
    ],
)
def test_bad_input_is_refused(voltage, options, message):
    with pytest.raises(ValueError, match=message):
        detect_spikes(voltage, **({"dt": 0.1} | options))


@pytest.mark.parametrize("method", ["level", "dvdt"])
def test_counts_of_real_cells(data_folder, method):
    interneuron = read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf", sweeps=-1)
    step = interneuron.window(146.85, 646.85)
    assert detect_spikes(step.voltage, step.dt, method=method).sum() == 64
    pyramidal = read_recording(data_folder / "recordings" / "l5_pyramidal_frozen_noise.npz")
    counts = detect_spikes(pyramidal.voltage, pyramidal.dt, method=method).sum(axis=1)
    assert counts.tolist() == [163, 159, 161, 163, 163, 166, 169, 169, 170]
