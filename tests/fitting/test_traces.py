"""What the recipe for adaptive neurons works on."""

from dataclasses import replace

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.traces import arranged, regress

DT = 0.1


def traces(sweeps=2, steps=1003):
    rng = np.random.default_rng(0)
    spikes = np.zeros((sweeps, steps), bool)
    spikes[0, [200, 701]] = spikes[1, [0, 650]] = True
    current = rng.normal(100.0, 50.0, spikes.shape)
    return Data(current, rng.normal(-65.0, 2.0, spikes.shape), spikes=spikes, dt=DT)


def test_coarser_traces_hold_means_of_the_current_and_ends_of_the_rest():
    fine = traces()
    coarse = fine.coarser()  # at 0.2 ms, the largest multiple of 0.1 ms up to 0.25 ms
    assert coarse.dt == 0.2 and coarse.current.shape == coarse.voltage.shape == coarse.spikes.shape == (2, 501)
    np.testing.assert_array_equal(coarse.current[:, 7], 0.5 * (fine.current[:, 14] + fine.current[:, 15]))
    np.testing.assert_array_equal(coarse.voltage[:, 7], fine.voltage[:, 15])
    assert np.flatnonzero(coarse.spikes[0]).tolist() == [100, 350]
    assert coarse.coarser() is coarse


def test_arranged_to_a_length_nothing_beyond_the_traces_counts():
    plain, longer = (arranged(t, 4.0) for t in (traces(), replace(traces(), length=1500)))
    assert longer[0].voltage.size > plain[0].voltage.size
    for name in ("spikes", "judged", "compared"):
        assert float(getattr(longer[0], name).sum()) == float(getattr(plain[0], name).sum()), name


def test_the_regression_sees_the_exponentials_of_a_plain_loop():
    """A silent membrane with known spike-triggered currents: the regression is exact to rounding."""
    rng, taus, jumps = np.random.default_rng(1), (4.0, 60.0), np.array([80.0, 20.0])
    spikes = np.zeros((2, 20_000), bool)
    spikes[0, 500::2500] = spikes[1, 900::3100] = True
    current, left, v = np.tile(rng.normal(100.0, 80.0, 20_000), (2, 1)), np.zeros((2, 2)), np.full(2, -65.0)
    voltage = np.zeros(spikes.shape)
    for n in range(spikes.shape[1]):
        left = left * np.exp(-DT / np.array(taus))[:, None] + (spikes[:, n - 1] if n else 0.0)
        drive = 0.1 * (current[:, n] - jumps @ left)
        v = v + DT / 20.0 * (-65.0 - v + drive)  # the Euler step that the regression assumes
        voltage[:, n] = v
    found = regress(Data(current, voltage, spikes=spikes, dt=DT), t_ref=4.0)
    np.testing.assert_allclose([found.tau_m, found.r_m, found.v_rest], [20.0, 0.1, -65.0], rtol=1e-8)
    np.testing.assert_allclose(found.eta, jumps, rtol=1e-6)
