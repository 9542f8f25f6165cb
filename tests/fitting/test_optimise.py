"""Fisher scoring on recordings of a known neuron, against SciPy on the same loss."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxlif.fitting.data import Data
from jaxlif.fitting.joint_likelihood import JointLoss
from jaxlif.fitting.lanes import cut_lanes, single_precision
from jaxlif.fitting.optimise import curvature, gradient, minimise
from tests.fitting.gif_cell import DT, TRUTH, recorded


@pytest.fixture(scope="module")
def loss():
    """Of two sweeps of 8 s, in the coordinates and with the priors of the truth."""
    made = recorded(TRUTH, sweeps=2, duration=8000.0)
    with single_precision():
        return JointLoss(TRUTH, cut_lanes(Data.of(made, made.spikes), TRUTH), DT)


@pytest.fixture(scope="module")
def found(loss):
    return minimise(loss, loss.start, np.arange(len(loss.start)), enough=0.02)


def test_the_minimum_is_that_of_a_general_search(loss, found):
    scale = np.linalg.inv(np.linalg.cholesky(curvature(loss, found.pieces))).T  # near to round for a general search

    def objective(x):
        vector = loss.start + scale @ x
        value, score = loss(vector)
        return value, -scale.T @ gradient(loss, vector, loss.pieces(vector, score))

    best = minimize(objective, np.zeros(len(scale)), jac=True, method="BFGS", options={"maxiter": 60})
    # Nats: a last step that gains 0.02 leaves less than twice that, and sums of thousands round to 0.01.
    assert found.loss == pytest.approx(best.fun, abs=0.05)
    # By default it stops a tenth of an interval's height above: at twice that at most.
    assert minimise(loss, loss.start, np.arange(len(scale))).loss == pytest.approx(best.fun, abs=0.4)
    assert found.loss < loss(loss.start)[0]
    there = loss.start + scale @ best.x
    # In units in which the information is 1 both are within half a standard error, once in each direction.
    assert np.abs(np.linalg.solve(scale, found.vector - there)).max() < 0.7


def test_the_parameters_are_found_again(loss, found):
    """The loss at the truth is above the minimum by half a chi-squared of as many degrees as there are coordinates."""
    size = len(loss.start)
    assert 0.0 < loss(loss.start)[0] - found.loss < 0.5 * (size + 4.0 * np.sqrt(2.0 * size))
    params = loss.params(found.vector)
    # Some 250 spikes and 16 s of voltage.
    assert params.tau_m == pytest.approx(20.0, rel=0.03) and params.r_m == pytest.approx(0.1, rel=0.03)
    assert params.v_rest == pytest.approx(-65.0, abs=0.3) and params.v_reset == pytest.approx(-60.0, abs=0.3)
    assert params.delta_v == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize("change", [{"v_th": -80.0}, {"v_th": -20.0}, {"tau_m": 60.0, "r_m": 0.03, "delta_v": 6.0}])
def test_a_start_that_is_far_off_comes_to_the_same_minimum(loss, found, change):
    start = loss.coordinate.vector(replace(TRUTH, **change))
    assert loss(start)[0] > found.loss + 100.0
    again = minimise(loss, start, np.arange(len(start)), enough=0.02)
    assert again.loss == pytest.approx(found.loss, abs=0.5)
    assert loss.params(again.vector).v_th == pytest.approx(loss.params(found.vector).v_th, abs=0.5)


def test_what_is_not_active_stays(loss, found):
    names = loss.coordinate.names
    active = np.array([names.index("v_th"), names.index("delta_v")])
    start = loss.coordinate.vector(replace(TRUTH, v_th=-45.0))
    moved = minimise(loss, start, active)
    others = np.setdiff1d(np.arange(len(start)), active)
    np.testing.assert_array_equal(moved.vector[others], start[others])
    assert moved.loss < loss(start)[0] - 100.0 and moved.loss == loss(moved.vector)[0]
