"""Spike detection: hand-made traces of both methods, and the counts of real cells."""

import numpy as np
import pytest

from jaxlif.recordings import detect_spikes, read_recording


def at(voltage, dt=0.1, **options):
    return np.flatnonzero(detect_spikes(np.asarray(voltage, float), dt, **options)).tolist()


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


def test_a_trace_that_starts_above_the_level_has_no_spike_there():
    assert at([10, 10, -60, -60, 10]) == [4]


def test_dead_time_counts_from_the_last_spike_kept():
    voltage = np.full(100, -60.0)
    voltage[[10, 25, 32, 55]] = 20.0
    assert at(voltage, dead_time=2.0) == [10, 32, 55]
    assert at(voltage, dead_time=0.0) == [10, 25, 32, 55]
    assert at(voltage, dead_time=1.5) == [10, 25, 55]


def test_sweeps_are_independent():
    voltage = np.stack([spiking([50]), spiking([49, 200])])
    raster = detect_spikes(voltage, 0.1)
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
        (np.array([0.0, np.nan]), {}, "1 values that are not finite"),
        (np.zeros(5), {"dt": 0.0}, "dt = 0.0 ms"),
        (np.zeros(5), {"dead_time": -1.0}, "dead_time = -1.0 ms"),
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
