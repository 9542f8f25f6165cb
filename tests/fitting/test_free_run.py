"""A model run freely before it is handed over, against runs of its own one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data, Drift
from jaxlif.fitting.free_run import GAINS, FreeRun, run_freely

DT = 0.5
PARAMS = jl.AdaptiveLIFParams(eta=(30.0,), tau_eta=(40.0,), t_ref=3.0, delta_v=1.0)


@pytest.fixture(scope="module")
def data():
    """Two sweeps of 21 s, the second with terms of its own."""
    keys = jax.random.split(jax.random.key(0), 2)
    current = np.stack([jl.stimulus.ornstein_uhlenbeck(key, 180.0, 150.0, 5.0, 21_000.0, DT) for key in keys])
    spikes = np.random.default_rng(0).random(current.shape) < 0.01
    return Data(current, 0.0 * current, spikes=spikes, dt=DT, drift=Drift(np.array([0.0, 2.0]), np.array([1.0, 1.2])))


def test_rates_and_cramped_intervals_are_those_of_runs_one_by_one(data):
    found = run_freely(PARAMS, data, noisy=False)
    assert found.cell == pytest.approx(1000.0 * data.spikes.mean() / DT)
    for gain, rate, share in zip(GAINS, found.rates, found.cramped, strict=True):
        trains = []
        for current, shift, own in zip(data.current, (0.0, 2.0 / PARAMS.r_m), (1.0, 1.2), strict=True):
            driven = gain * (own * current + shift)
            trains.append(np.asarray(jl.simulate(jl.AdaptiveLIF(dt=DT), PARAMS, jnp.asarray(driven))[1].spikes))
        intervals = DT * np.concatenate([np.diff(np.flatnonzero(train)) for train in trains])
        assert rate == pytest.approx(np.sum(trains) / 42.0)  # 42 s in all
        # As short as can be: a quarter more than the refractory period and the step after it and before.
        assert share == pytest.approx(np.mean(intervals <= 1.25 * 4.0))


def test_noise_has_as_many_trials_as_make_up_the_time_asked_for(data):
    few, many = (run_freely(PARAMS, data, noisy=True, times=times) for times in (5, 40))
    quiet = run_freely(PARAMS, data, noisy=False)
    # 42 s and 336 s at some 20 Hz: 4 and 1 %, five of them; noise of 1 mV makes it fire sooner.
    np.testing.assert_allclose(few.rates, many.rates, rtol=0.2)
    assert all(noisy > without for noisy, without in zip(many.rates, quiet.rates, strict=True))


@pytest.mark.parametrize(
    ("rates", "cramped", "words"),
    [
        ((1.0, 5.0, 10.0, 15.0, 20.0), (0.0, 0.0, 0.0, 0.0, 0.0), ""),
        ((1.0, 5.0, 10.0, 40.0, 80.0), (0.0, 0.0, 0.0, 0.4, 0.45), ""),  # fast, but no faster than the input
        ((1.0, 5.0, 10.0, 15.0, 180.0), (0.0, 0.0, 0.0, 0.0, 0.9), "at 1.5 times its input it runs away (180 Hz; the"),
        ((1.0, 5.0, 31.0, 35.0, 40.0), (0.0, 0.0, 0.0, 0.0, 0.0), "at 1 times its input it runs away (31 Hz; the cell"),
        ((0.0, 0.2, 0.9, 2.0, 4.0), (0.0, 0.0, 0.0, 0.0, 0.0), "it fires at 0.9 Hz where the cell fires at 10 Hz"),
        ((1.0, 5.0, 10.0, 15.0, 20.0), (0.0, 0.6, 0.6, 0.6, 0.6), ""),  # a bursting cell's own rate
    ],
)
def test_a_model_that_cannot_be_used_is_told_from_one_that_can(rates, cramped, words):
    run = FreeRun(10.0, rates, cramped)
    assert run.fault.startswith(words) and bool(run.fault) == bool(words)
    assert len(run.notes) == bool(words)
    assert all(n.startswith("do not use this model: run freely, ") and "fit more spikes" in n for n in run.notes)
