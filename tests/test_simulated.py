"""The simulated recording: as irregular and as reliable as a good real one, and a function of its key."""

import jax
import numpy as np
import pytest

from jaxlif import spiketrains
from jaxlif.recordings import repeats
from jaxlif.recordings.protocol import is_step_protocol
from jaxlif.recordings.spikes import detect_spikes
from jaxlif.simulated import simulated_recording


@pytest.mark.parametrize("seed", [0, 1])
def test_rate_irregularity_and_reliability(seed):
    cell = simulated_recording(jax.random.key(seed))
    assert cell.voltage.shape == (5, 60000)
    trains = spiketrains.spike_times(detect_spikes(cell.voltage, cell.dt).T, cell.dt)
    rates = [1000.0 * train.size / cell.duration for train in trains]
    assert 7.0 < min(rates) < max(rates) < 13.0
    assert all(spiketrains.cv(train) > 0.5 for train in trains)
    assert 0.65 < spiketrains.reliability(trains, duration=cell.duration, delta=4.0) < 0.92
    assert [group.tolist() for group in repeats(cell)] == [[0, 1, 2, 3, 4]] and not is_step_protocol(cell)


def test_the_key_decides():
    one, same, other = (simulated_recording(jax.random.key(k), repeats=2, duration=500.0) for k in (3, 3, 4))
    np.testing.assert_array_equal(one.voltage, same.voltage)
    assert np.abs(one.current - other.current).max() > 100.0


def test_noises_are_of_the_size_asked_for():
    quiet = simulated_recording(jax.random.key(0), repeats=2, duration=500.0, process_noise=0.0, recording_noise=0.0)
    np.testing.assert_array_equal(quiet.voltage[0], quiet.voltage[1])
    noisy = simulated_recording(jax.random.key(0), repeats=2, duration=500.0, process_noise=0.0)
    np.testing.assert_allclose(np.std(noisy.voltage - quiet.voltage), 0.1, rtol=0.05)


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats = 0"):
        simulated_recording(jax.random.key(0), repeats=0)
