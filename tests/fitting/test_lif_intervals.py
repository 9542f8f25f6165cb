"""Intervals of a plain neuron against SciPy's covariance and against the scatter of repeated experiments."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.signal import lfilter
from scipy.special import stdtrit

import jaxlif as jl
from jaxlif.fitting.lif_intervals import Estimate, fi_estimate, membrane_estimate
from jaxlif.fitting.membrane import Sweeps, forced

CURRENTS = np.linspace(200.0, 600.0, 9)  # all above rheobase, 150 pA
TRUTH = jl.LIFParams(t_ref=3.0)
KNOWN = Estimate(("tau_m", "r_m"), np.array([10.0, 0.1]), np.zeros((2, 2)), 15)


def rates_of(params):
    return np.asarray(jl.theory.firing_rate(params, jnp.asarray(CURRENTS)))


def least_squares(membrane, rates):
    """Fit v_th, v_reset and t_ref by SciPy, which is independent of JAX's derivatives and of our formula."""

    def curve(_, v_th, v_reset, t_ref):
        return rates_of(replace(membrane, v_th=v_th, v_reset=v_reset, t_ref=t_ref))

    return curve_fit(curve, CURRENTS, rates, p0=(-55.0, -65.0, 3.0), xtol=1e-12, ftol=1e-12)


@pytest.fixture(scope="module")
def rates():
    return rates_of(TRUTH) + np.random.default_rng(0).normal(0.0, 1.0, len(CURRENTS))


def test_errors_of_an_f_i_curve_are_those_of_scipy(rates):
    found, covariance = least_squares(TRUTH, rates)
    params = replace(TRUTH, **dict(zip(("v_th", "v_reset", "t_ref"), map(float, found), strict=True)))
    estimate = fi_estimate(params, CURRENTS, rates, KNOWN)
    assert estimate.freedom == len(CURRENTS) - 3
    # SciPy's Jacobian is a forward difference: five digits.
    np.testing.assert_allclose(estimate.covariance, covariance, rtol=1e-4)


def test_an_error_of_the_membrane_moves_the_fit_along():
    # Noise-free rates: what is left is the error of r_m. The f-I curve fixes the currents that reach threshold and
    # reset, 150 and 50 pA, so that v_th and v_reset move by these times the error, and t_ref not at all.
    known = KNOWN._replace(covariance=np.diag([0.0, 1e-3**2]))
    estimate = fi_estimate(TRUTH, CURRENTS, rates_of(TRUTH), known)
    np.testing.assert_allclose(np.sqrt(np.diag(estimate.covariance)), [0.15, 0.05, 0.0], rtol=1e-9, atol=1e-9)


def test_too_few_firing_currents_give_no_interval():
    assert fi_estimate(TRUTH, CURRENTS[:3], rates_of(TRUTH)[:3], KNOWN) is None


def test_errors_of_the_membrane_are_the_scatter_of_repeated_experiments():
    random, cell, names = np.random.default_rng(1), jl.LIF(dt=1.0), ("r_m", "v_rest")
    current = lfilter([1.0], [1.0, -0.95], random.normal(0.0, 15.0, (1600, 2)), axis=0)
    quiet = jnp.zeros_like(jnp.asarray(current))
    clean = Sweeps(jnp.asarray(current), TRUTH.v_rest + quiet, quiet, quiet + 1.0)
    passive = replace(TRUTH, v_th=1000.0)
    v = forced(cell, passive, clean).v
    # The voltage is linear in both: its columns are differences of two simulations, the estimate is a regression.
    columns = np.stack([(forced(cell, replace(passive, r_m=1.1), clean).v - v).ravel(), (v - v + 1.0).ravel()], axis=1)
    estimates, promised = [], []
    for _ in range(60):
        # Errors that last for 10 ms, far longer than a sample: white-noise errors would be promised 4 times smaller.
        errors = lfilter([1.0], [1.0, -0.9], random.normal(0.0, 0.2, v.shape), axis=0)
        off = np.linalg.lstsq(columns, errors.ravel(), rcond=None)[0]
        params = replace(passive, r_m=0.1 + off[0], v_rest=-70.0 + off[1])
        data = clean._replace(voltage=jnp.asarray(v + errors))
        estimates.append(off)
        promised.append(np.diag(membrane_estimate(cell, params, data, names).covariance))
    # 60 repetitions know their scatter to 9 %, and the first, given sample pulls v_rest a little.
    np.testing.assert_allclose(np.sqrt(np.mean(promised, axis=0)), np.std(estimates, axis=0), rtol=0.3)


def test_intervals_of_positive_parameters_stay_positive():
    estimate = Estimate(("tau_m", "v_rest"), np.array([10.0, -70.0]), np.diag([100.0, 4.0]), 15)
    reach = float(stdtrit(15, 0.975))
    low, high = estimate.intervals()["tau_m"]
    np.testing.assert_allclose((low, high), 10.0 * np.exp(np.array([-reach, reach])), rtol=1e-12)
    np.testing.assert_allclose(estimate.intervals()["v_rest"], (-70.0 - 2 * reach, -70.0 + 2 * reach), rtol=1e-12)


def test_fits_of_both_kinds_report_intervals():
    recording = jl.simulated_recording(jax.random.key(0), repeats=1, duration=1500.0)
    fit = jl.fit_recording(recording)
    assert set(fit.intervals) == {"tau_m", "r_m", "v_rest", "v_reset"}
    for name, (low, high) in fit.intervals.items():
        assert low < getattr(fit.params, name) < high
