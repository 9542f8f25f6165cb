"""A prior learned from all problems, on lines whose best estimate is known in closed form."""

from typing import NamedTuple

import jax
import numpy as np

from jaxlif.fitting.pooling import Errors, fit_pooled

MEAN, COVARIANCE = np.array([1.0, 2.0]), np.array([[0.5, 0.2], [0.2, 0.3]])
X = np.array([0.0, 1.0, 2.0, 3.0])
DESIGN = np.stack([np.ones(4), X], axis=1)


class Line(NamedTuple):
    y: np.ndarray


def left_over(z, line):
    return Errors(z[0] + z[1] * X - line.y, line.y[:0])


def lines(count, seed):
    rng = np.random.default_rng(seed)
    truth = rng.multivariate_normal(MEAN, COVARIANCE, count)
    return truth, Line(truth @ DESIGN.T + rng.normal(0.0, 1.0, (count, 4)))


def pooled(data, groups=None):
    count = len(data.y)
    groups = np.zeros(count, int) if groups is None else groups
    options = {"mean": np.zeros(2), "spread": np.full(2, 3.0), "counts": np.full(count, 4.0), "pooled": 2}
    with jax.enable_x64(True):
        return fit_pooled(left_over, data, np.zeros((count, 1, 2)), groups=groups, **options)


def test_estimates_are_as_good_as_with_the_true_prior():
    truth, data = lines(200, 0)
    found = pooled(data)
    inverse = np.linalg.inv(COVARIANCE)
    best = (data.y @ DESIGN + MEAN @ inverse) @ np.linalg.inv(DESIGN.T @ DESIGN + inverse)
    alone = data.y @ DESIGN @ np.linalg.inv(DESIGN.T @ DESIGN)
    errors = [np.mean((z - truth) ** 2) for z in (found.coordinates, best, alone)]
    # The noise of a line comes from its four points, so that some lines are held too much and others too little.
    assert errors[0] < 1.2 * errors[1]
    assert errors[0] < 0.6 * errors[2]
    # Drawn to a median, which lies below the mean for the skewed estimates from four points.
    assert 0.7 < np.median(found.noise) < 1.1


def test_one_problem_stays_between_its_data_and_the_prior_given():
    _, data = lines(1, 1)
    found = pooled(data).coordinates[0]
    alone = np.linalg.lstsq(DESIGN, data.y[0], rcond=None)[0]
    assert np.abs(found - alone).max() < 3.0


def test_groups_and_broken_problems_keep_to_themselves():
    _, data = lines(30, 2)
    groups = np.arange(30) % 2
    before = pooled(data, groups)
    changed = data.y.copy()
    changed[1::2] *= 10.0
    changed[0] = np.nan
    after = pooled(Line(changed), groups)
    assert np.isnan(after.coordinates[0]).all()
    without_first = pooled(Line(data.y[2::2]))
    np.testing.assert_allclose(after.coordinates[2::2], without_first.coordinates, rtol=1e-9)
    assert np.abs(after.coordinates[1::2] - before.coordinates[1::2]).max() > 1.0
