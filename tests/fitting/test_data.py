"""The container of a fit: what its parts hold is what the whole holds there."""

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data, Drift, Options, with_spikes


@pytest.fixture(scope="module")
def data():
    """Four sweeps of 103 samples, no two numbers alike, with a spike in each."""
    rows = np.arange(4 * 103.0).reshape(4, 103)
    spikes = np.zeros(rows.shape, bool)
    spikes[range(4), [10, 40, 70, 100]] = True
    recording = jl.Recording(rows, -rows / 10.0, dt=0.1, start=5.0, stimulus=["a", "a", "b", "b"])
    drift = Drift(np.arange(4.0), 1.0 + np.arange(4.0))
    return Data.of(recording, spikes, drift=drift, judged=rows % 7 > 0)


def test_a_part_holds_what_the_whole_holds_there(data):
    part = data.select([3, 1]).window(6.0, 9.0)
    assert (part.start, part.num_steps, part.stimulus) == (6.0, 30, ["b", "a"])
    for name in ("current", "voltage", "spikes", "judged"):
        np.testing.assert_array_equal(getattr(part, name), getattr(data, name)[[3, 1], 10:40], err_msg=name)
    assert part.drift.offset.tolist() == [3.0, 1.0] and part.drift.gain.tolist() == [4.0, 2.0]
    assert data.samples((6.0, 9.0)) == slice(10, 40) and data.select(range(4)) is data


def test_coarser_data_hold_means_of_the_current_ends_of_the_voltage_and_every_spike(data):
    coarse = data.coarser()  # at 0.2 ms, the largest multiple of 0.1 ms up to 0.25 ms; the last sample has no partner
    assert coarse.dt == 0.2 and coarse.num_steps == 51 and coarse.coarser() is coarse
    np.testing.assert_array_equal(coarse.current[:, 7], 0.5 * (data.current[:, 14] + data.current[:, 15]))
    np.testing.assert_array_equal(coarse.voltage[:, 7], data.voltage[:, 15])
    assert np.argwhere(coarse.spikes).tolist() == [[0, 5], [1, 20], [2, 35], [3, 50]]
    assert coarse.judged[0, :5].tolist() == [False, True, True, False, True], "both of its samples"


def test_some_sweeps_stand_for_all(data):
    assert data.few().current[:, 0].tolist() == [0.0, 206.0, 309.0]


def test_a_window_without_spikes_or_without_samples_is_refused(data):
    assert with_spikes(data, (5.0, 7.0)).num_steps == 20
    with pytest.raises(ValueError, match="window = 5 to 6 ms: no spike falls into this window"):
        with_spikes(data, (5.0, 6.0))
    with pytest.raises(ValueError, match="window = 5 to 5.1 ms: give at least two samples"):
        data.window(5.0, 5.1)


def test_a_start_is_put_inside_its_bounds():
    options = Options((0.0, 1.0), {"tau_m": (5.0, 15.0), "r_m": (0.1, 0.3)})
    assert options.inside(tau_m=6.0, r_m=0.3) == {"tau_m": 6.0, "r_m": 0.2}
