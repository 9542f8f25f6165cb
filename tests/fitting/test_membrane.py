"""Intervals of a plain neuron against the scatter of repeated experiments."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.signal import lfilter
from scipy.special import stdtrit

import jaxlif as jl
from jaxlif.fitting.data import Data
from jaxlif.fitting.intervals import Estimate, flat_coordinates, is_determined
from jaxlif.fitting.membrane import Profile, columns, forced, membrane_estimate, with_refractory
from jaxlif.fitting.several import RecordingFits
from jaxlif.report import parameter_rows

TRUTH = jl.LIFParams(t_ref=3.0)


@pytest.mark.parametrize("stimulus", ["noise", "pulse"])
def test_errors_of_the_membrane_are_the_scatter_of_repeated_experiments(stimulus):
    random, cell, names = np.random.default_rng(1), jl.LIF(dt=1.0), ("r_m", "v_rest")
    current = lfilter([1.0], [1.0, -0.95], random.normal(0.0, 15.0, (1600, 2)), axis=0)
    if stimulus == "pulse":  # all that is known of r_m comes from 40 ms
        current = 0.0 * current
        current[300:340] = 100.0
    quiet = np.zeros(current.T.shape)
    clean = Data(current.T, TRUTH.v_rest + quiet, spikes=quiet > 0, dt=1.0)
    held = jax.tree.map(jnp.asarray, columns(clean))
    passive = replace(TRUTH, v_th=1000.0)
    v = forced(cell, passive, held).v
    # The voltage is linear in both: its columns are differences of two simulations, the estimate is a regression.
    regressors = np.stack(
        [(forced(cell, replace(passive, r_m=1.1), held).v - v).ravel(), (v - v + 1.0).ravel()], axis=1
    )
    estimates, promised = [], []
    for _ in range(60):
        # Errors that last for 10 ms, far longer than a sample: white-noise errors would be promised 4 times smaller.
        errors = lfilter([1.0], [1.0, -0.9], random.normal(0.0, 0.2, v.shape), axis=0)
        off = np.linalg.lstsq(regressors, errors.ravel(), rcond=None)[0]
        params = replace(passive, r_m=0.1 + off[0], v_rest=-70.0 + off[1])
        data = replace(clean, voltage=np.asarray(v + errors).T)
        estimates.append(off)
        promised.append(np.diag(membrane_estimate(params, data, names).covariance))
    # 60 repetitions know their scatter to 9 %, and the first, given sample pulls v_rest a little.
    np.testing.assert_allclose(np.sqrt(np.mean(promised, axis=0)), np.std(estimates, axis=0), rtol=0.3)


def test_intervals_of_positive_parameters_stay_positive():
    estimate = Estimate(("tau_m", "v_rest"), np.array([10.0, -70.0]), np.diag([100.0, 4.0]), 15)
    reach = float(stdtrit(15, 0.975))
    low, high = estimate.intervals()["tau_m"]
    np.testing.assert_allclose((low, high), 10.0 * np.exp(np.array([-reach, reach])), rtol=1e-12)
    np.testing.assert_allclose(estimate.intervals()["v_rest"], (-70.0 - 2 * reach, -70.0 + 2 * reach), rtol=1e-12)


def test_the_interval_of_t_ref_ends_where_its_profile_has_risen():
    """A parabola with its minimum at 3 ms, whose rise of quantile² is 1.5 steps away, and a reset that moves along."""
    estimate = Estimate(
        ("tau_m", "r_m", "v_rest", "v_reset"), np.array([10.0, 0.1, -70.0, -60.0]), np.zeros((4, 4)), 15, 0.04
    )
    t_ref = np.arange(1.0, 6.0)
    errors = (estimate.quantile**2 * 0.04) * (t_ref - 3.0) ** 2 / 1.5**2 / 1000.0
    solutions = np.stack([0.1 + 0.0 * t_ref, -70.0 + 0.0 * t_ref, -60.0 + 2.0 * (t_ref - 3.0)], axis=1)
    grams = np.tile(np.diag([1e12, 1e12, 1e12]), (5, 1, 1))  # each is known with its t_ref
    found = with_refractory(estimate, Profile(t_ref, errors, solutions, grams), 1000.0)
    # 2, 3 and 4 ms are allowed; the first that are not are 1 and 5 ms.
    assert found["t_ref"] == (1.0, 5.0)
    np.testing.assert_allclose([found["v_reset"], found["v_rest"]], [(-62.0, -58.0), (-70.0, -70.0)])
    flat = with_refractory(estimate, Profile(t_ref, 1e-9 * errors, solutions, grams), 1000.0)
    assert flat["t_ref"] == (-np.inf, np.inf) and flat["v_reset"] == pytest.approx((-64.0, -56.0))


def test_what_a_masked_pulse_does_not_show_is_not_determined(tmp_path):
    """Pulses whose every sample lies within a spike's mask: nothing is left of r_m, v_reset and t_ref."""
    dt = 0.5
    current = np.zeros((6, 1000))
    current[:, 300:304] = 2000.0
    truth = jl.LIFParams(tau_m=15.0, r_m=0.15, v_th=-48.0, v_rest=-68.0, t_ref=3.0)
    _, output = jl.simulate(jl.LIF(dt=dt), truth, jnp.asarray(current.T))
    noise = np.random.default_rng(0).normal(0.0, 0.05, current.shape)
    voltage = np.where(np.asarray(output.spikes).T > 0, 20.0, np.asarray(output.v).T) + noise
    fit = jl.fit_recording(jl.Recording(current=current, voltage=voltage, dt=dt))
    assert set(fit.undetermined) == {"r_m", "v_th", "v_reset", "t_ref"}
    # What is left is the decay to rest after each spike.
    for name, (low, high) in fit.intervals.items():
        assert low <= getattr(truth, name) <= high, name
    assert set(fit.intervals) == {"tau_m", "v_rest"}
    assert "not determined by these data: r_m, v_reset, t_ref, v_th" in " ".join(fit.warnings)
    rows = {name: interval for name, _, interval, *_ in parameter_rows(fit)}
    assert rows["r_m"] == "not determined" and " to " in rows["tau_m"]
    path = fit.save(tmp_path)
    assert json.loads(path.read_text())["parameters"]["r_m"]["interval_95"] is None
    assert jl.load_fit(path).undetermined == fit.undetermined
    table = RecordingFits({"a": fit}, {}).table()
    assert "r_m" not in table and table["tau_m"] == [fit.params.tau_m]


@pytest.mark.parametrize("seed", range(3))
def test_flat_coordinates_are_those_of_the_null_space(seed):
    """Against SciPy's null space of the columns themselves, whose units differ by orders of magnitude."""
    random = np.random.default_rng(seed)
    slopes = random.normal(size=(50, 6))
    slopes[:, 4] = 2.0 * slopes[:, 1] - slopes[:, 3]  # these three trade for one another
    slopes[:, 5] = 0.0
    expected = (np.abs(null_space(slopes)) > 1e-8).any(axis=1)
    units = 10.0 ** random.uniform(-4.0, 4.0, 6)
    np.testing.assert_array_equal(flat_coordinates((slopes * units).T @ (slopes * units)), expected)
    slopes[0, 0] = np.nan
    assert flat_coordinates(slopes.T @ slopes).all()


@pytest.mark.parametrize(
    ("name", "value", "interval", "bounds", "told"),
    [
        ("tau_m", 10.0, (1.0, 900.0), None, True),
        ("tau_m", 10.0, (0.1, 101.0), None, False),  # a factor of more than 1000
        ("r_m", 0.1, (0.1, 0.1), None, False),  # of no width
        ("r_m", 0.1, (5e-307, 6e301), None, False),
        ("v_th", -50.0, (-60.0, np.inf), None, False),
        ("v_th", -50.0, (np.nan, np.nan), None, False),
        ("v_reset", -154.2, (-155.0, -153.0), (-150.0, 30.0), False),  # outside its bounds
        ("v_reset", -60.0, (-151.0, 31.0), (-150.0, 30.0), False),  # all of them
        ("v_reset", -60.0, (-149.0, 31.0), (-150.0, 30.0), True),
        ("v_reset", -60.0, (-59.0, -50.0), None, False),  # not around its value
        ("gamma.0", 4.0, (-150.0, 60.0), None, False),  # wider than 200 mV
    ],
)
def test_what_counts_as_an_interval(name, value, interval, bounds, told):
    assert is_determined(name, value, interval, bounds) == told
