"""The steady rate, the least squares that fit it, and what a table of rates may hide."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

import jaxlif as jl
from jaxlif.fitting.bounds import REAL
from jaxlif.fitting.fi_curve import curve_errors, fit_fi_curve, fit_pooled, neuron_at, rising_branch, steady_rate
from jaxlif.fitting.fit_recording import BOUNDS

TRUTH = jl.LIFParams(tau_m=17.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.2)
NEURON = jl.LIFParams(tau_m=12.0, r_m=0.15, v_rest=-70.0, v_th=-52.0, v_reset=-62.0, t_ref=2.0)
CURRENTS = np.linspace(0.0, 600.0, 13)
MEAN, COVARIANCE = np.array([1.0, 2.0]), np.array([[0.5, 0.2], [0.2, 0.3]])
X = np.array([0.0, 1.0, 2.0, 3.0])
DESIGN = np.stack([np.ones(4), X], axis=1)


class Line(NamedTuple):
    y: np.ndarray
    weights: np.ndarray


def left_over(z, line):
    return z[0] + z[1] * X - line.y, line.y[:0]


def lines(count, seed):
    rng = np.random.default_rng(seed)
    truth = rng.multivariate_normal(MEAN, COVARIANCE, count)
    return truth, truth @ DESIGN.T + rng.normal(0.0, 1.0, (count, 4))


def pooled(y):
    starts = np.zeros((len(y), 1, 2))
    with jax.enable_x64(True):
        return fit_pooled(left_over, Line(y, np.ones_like(y)), starts, np.zeros(2), np.full(2, 3.0), pooled=2)[0]


def test_estimates_are_as_good_as_with_the_true_prior():
    truth, y = lines(200, 0)
    found = pooled(y)
    inverse = np.linalg.inv(COVARIANCE)
    best = (y @ DESIGN + MEAN @ inverse) @ np.linalg.inv(DESIGN.T @ DESIGN + inverse)
    alone = y @ DESIGN @ np.linalg.inv(DESIGN.T @ DESIGN)
    errors = [np.mean((z - truth) ** 2) for z in (found, best, alone)]
    # The noise of a line comes from its four points, so that some lines are held too much and others too little.
    assert errors[0] < 1.2 * errors[1]
    assert errors[0] < 0.6 * errors[2]
    # A prior learned from points without their own uncertainty shrinks what they say least of, to half this spread.
    assert 0.8 < np.var(found[:, 0]) / np.var(best[:, 0]) < 1.3


def test_one_problem_stays_between_its_data_and_the_prior_given_and_a_broken_one_changes_no_other():
    _, y = lines(30, 1)
    alone = np.linalg.lstsq(DESIGN, y[0], rcond=None)[0]
    assert np.abs(pooled(y[:1])[0] - alone).max() < 3.0
    found = pooled(np.where(np.arange(30)[:, None] == 7, np.nan, y))
    assert np.isnan(found[7]).all()
    np.testing.assert_allclose(np.delete(found, 7, axis=0), pooled(np.delete(y, 7, axis=0)), rtol=1e-9)


def test_the_adapted_rate_solves_its_equation_and_has_its_gradient():
    with jax.enable_x64(True):
        params, currents = NEURON, jnp.linspace(130.0, 500.0, 7)
        rate = steady_rate(params, currents, 1.5)
        closed = jl.theory.firing_rate(params, currents - 1.5 * rate)
        np.testing.assert_allclose(rate, closed, rtol=1e-9)

        @jax.jit
        def total(tau_m, a):
            return steady_rate(replace(params, tau_m=tau_m), currents, a).sum()

        point = [12.0, 1.5]
        gradient = jax.grad(total, (0, 1))(*point)
        for i, step in ((0, 1e-4), (1, 1e-5)):
            up, down = (total(*(x + sign * step * (i == k) for k, x in enumerate(point))) for sign in (1, -1))
            assert gradient[i] == pytest.approx(float(up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("adaptation", [None, 1.5])
@pytest.mark.parametrize("noise", [0.3, 60.0])
def test_the_noisy_rate_is_the_average_over_a_normal_current(noise, adaptation):
    """Against a sum over 200001 currents: 16 nodes leave 1e-3 Hz where the plain curve has its infinite slope."""
    x = np.linspace(-8.0, 8.0, 200_001)
    density = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi) * (x[1] - x[0])
    params, currents = NEURON, jnp.array([60.0, 118.0, 120.0, 123.0, 300.0])
    for current, rate in zip(currents, steady_rate(params, currents, adaptation, noise), strict=True):
        shifted = current + noise * jnp.asarray(x)
        plain = steady_rate(params, shifted, adaptation)
        assert float(rate) == pytest.approx(float(density @ np.asarray(plain)), abs=1e-3)


def test_the_noisy_rate_has_its_gradient():
    params, currents = NEURON, jnp.array([110.0, 121.0, 200.0])

    @jax.jit
    def total(v_th, noise):
        return steady_rate(replace(params, v_th=v_th), currents, 1.5, noise).sum()

    # The quadrature's limits do not move with the gradient: what they leave out, 1e-6 of the rate, bounds the error.
    gradient = jax.grad(total, (0, 1))(-52.0, 8.0)
    for i, step in ((0, 1e-4), (1, 1e-3)):
        up, down = (total(*(x + sign * step * (i == k) for k, x in enumerate((-52.0, 8.0)))) for sign in (1, -1))
        assert gradient[i] == pytest.approx(float(up - down) / (2 * step), rel=1e-4)


@pytest.mark.parametrize(
    ("rates", "count"),
    [
        ([0.0, 0.0, 10.0, 20.0, 30.0], 5),
        ([0.0, 50.0, 90.0, 40.0, 3.0], 3),
        ([0.0, 50.0, 90.0, 85.0, 60.0, 0.0], 4),
        ([0.0, 50.0, 30.0, 60.0, 61.0], 5),  # a dip
        ([0.0, 50.0, 45.0, 48.0, 41.0], 5),  # saturation, with noise
        ([0.0, 2.0, 4.0, 2.0, 0.0], 5),  # single spikes
        ([90.0, 40.0, 3.0], 1),
    ],
)
def test_the_rising_branch_ends_where_the_rates_fall_for_good(rates, count):
    assert rising_branch(np.arange(float(len(rates))), np.array(rates)) == count


@pytest.mark.parametrize("reset_bounds", [(-90.0, -60.0), (-150.0, 30.0), (-np.inf, np.inf)])
def test_no_coordinates_take_v_reset_out_of_its_bounds(reset_bounds):
    limits = {"rheobase": (-50.0, 800.0), "t_ref": (0.0, 10.0), "v_reset": reset_bounds}
    for rheobase, reset in itertools.product((-30.0, -3.0, 0.0, 7.0), (-7.0, 0.0, 7.0)):  # thresholds from -74 to 28 mV
        neuron = neuron_at(TRUTH, limits, jnp.array([rheobase, 0.0, reset]))  # in the order of their names
        assert reset_bounds[0] <= neuron.v_reset <= reset_bounds[1] and neuron.v_reset < neuron.v_th
        low, high = (TRUTH.v_rest + TRUTH.r_m * x for x in limits["rheobase"])
        assert low <= neuron.v_th < high and float(neuron.t_ref) == 5.0


def test_a_reset_below_its_bounds_is_fitted_inside_them():
    rates = np.asarray(jl.theory.firing_rate(replace(TRUTH, v_reset=-350.0), CURRENTS))
    assert -150.0 <= fit_fi_curve(TRUTH, CURRENTS, rates, bounds=BOUNDS)[0].v_reset < -149.0


def test_of_many_minima_the_lowest_is_found():
    """Rates of a pyramidal cell that rise slowly: each gap between currents in which it may begin has a minimum."""
    currents = np.array(
        [-1.2, 8.9, 18.9, 28.7, 38.8, 42.1, 51.9, 63.5, 73.7, 83.3, 93.4, 104.4, 115.1, 124.8, 134.9]
        + [148.0, 158.1, 168.2, 177.9, 188.0, 193.8, 203.9, 213.6, 223.4, 233.8, 243.5, 252.4, 262.5, 272.5, 282.3]
    )
    rates = np.array(
        [0.0, 0.0, 0.0, 0.0, 2.0, 3.0, 5.0, 9.0, 11.0, 13.0, 14.0, 16.0, 17.0, 19.0, 20.0, 22.0, 23.0, 23.0, 24.0]
        + [25.0, 25.0, 26.0, 27.0, 27.0, 28.0, 28.0, 28.0, 28.0, 29.0, 29.0]
    )
    membrane = jl.LIFParams(tau_m=11.31145, r_m=0.231070, v_rest=-57.45232, v_th=-40.0, v_reset=-60.0)
    _, table = fit_fi_curve(membrane, currents, rates, bounds=BOUNDS)
    # SciPy's differential evolution over the three parameters ends at 2.106 Hz from two seeds.
    assert curve_errors(table)["rmse"] == pytest.approx(2.106, abs=0.01)


def test_a_noisy_curve_is_fitted_as_by_another_optimiser():
    """SciPy's trust region, from the truth, on rates that no LIF has; and each half predicts the other."""
    rates = np.asarray(jl.theory.firing_rate(TRUTH, CURRENTS))
    rates = np.where(rates > 0.0, rates + np.random.default_rng(0).normal(0.0, 2.0, 13), 0.0)
    params, table = fit_fi_curve(TRUTH, CURRENTS, rates, bounds=BOUNDS | {"v_th": REAL, "v_reset": REAL})

    def neuron(x):
        return replace(TRUTH, v_th=x[0], v_reset=x[0] - np.exp(x[1]), t_ref=x[2])

    def fitted(kept):
        def left(x):
            return np.asarray(jl.theory.firing_rate(neuron(x), CURRENTS))[kept] - rates[kept]

        start = (TRUTH.v_th, np.log(TRUTH.v_th - TRUTH.v_reset), TRUTH.t_ref)
        return neuron(
            least_squares(left, start, bounds=([-70.0, -5.0, 0.0], [0.0, 5.7, 10.0]), xtol=1e-12, ftol=1e-12).x
        )

    best, even, odd = (fitted(kept) for kept in (slice(None), slice(0, None, 2), slice(1, None, 2)))
    for name in ("v_th", "v_reset", "t_ref"):
        # Both stop where steps change the sum of squares in its last digits: its root of them.
        assert getattr(params, name) == pytest.approx(float(getattr(best, name)), rel=1e-5), name
    across = np.where(np.arange(13) % 2 == 0, *(np.asarray(jl.theory.firing_rate(p, CURRENTS)) for p in (odd, even)))
    np.testing.assert_allclose(table["held_out_rate_Hz"], across, atol=1e-3)
    assert curve_errors(table)["rmse"] == pytest.approx(
        np.sqrt(np.mean((np.array(table["fitted_rate_Hz"]) - rates) ** 2))
    )
