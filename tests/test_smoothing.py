"""Slopes without derivatives, against losses whose smoothed slope is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif.smoothing import Evidence, agreement, gather

KEY = jax.random.key(0)
NOISE = 0.1
RNG = np.random.default_rng(1)
D = 400
SLOPE = RNG.normal(size=D)


def normal(key):
    return jax.random.normal(key, (D,))


def linear(x):
    return jnp.dot(SLOPE, x)


def rough(x):
    """A slope among jumps some ten times as large, within the noise."""
    return 0.02 * linear(x) + jnp.sin(1e5 * jnp.sum(x))


def at_angle(cosine):
    """Return a gradient with this cosine to SLOPE, of another length."""
    other = RNG.normal(size=D)
    other -= other @ SLOPE / (SLOPE @ SLOPE) * SLOPE
    unit, across = (x / np.linalg.norm(x) for x in (SLOPE, other))
    return 7.0 * (cosine * unit + np.sqrt(1.0 - cosine**2) * across)


def judged(gradient, directions, slopes):
    """Return the agreement that given pairs show."""
    along = directions @ (gradient / np.linalg.norm(gradient))
    total, turned = slopes @ directions, along @ directions
    return agreement(Evidence(total, slopes**2 @ directions**2, turned, slopes, along, np.sum(directions**2, axis=1)))


def test_mean_and_error_are_those_of_the_single_pairs(dtype):
    """The oracle: every pair by itself, in a plain loop."""
    slope = jnp.asarray(SLOPE, dtype)
    evidence = gather(lambda x: jnp.dot(slope, x) + jnp.sum(x**3), normal, KEY, NOISE, 50)
    each = []
    for key in jax.random.split(KEY, 50):
        e = np.asarray(normal(key), float)
        values = [SLOPE @ x + np.sum(x**3) for x in (NOISE * e, -NOISE * e)]
        each.append((values[0] - values[1]) / (2.0 * NOISE) * e)
    # Sums of 400 numbers; in single precision the difference of two losses over 0.2.
    close = {"rtol": 0, "atol": 1e-11 if dtype == "float64" else 2e-3}
    np.testing.assert_allclose(evidence.mean, np.mean(each, axis=0), **close)
    np.testing.assert_allclose(evidence.error, np.std(each, axis=0, ddof=1) / np.sqrt(50), **close)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_a_slope_along_the_gradient_is_found_exactly(cosine):
    """Of a linear loss regression leaves nothing, with eight pairs for 400 numbers: but for rounding."""
    found = agreement(gather(linear, normal, KEY, NOISE, 8, gradient=cosine * SLOPE, budget=8))
    assert found.slope == pytest.approx(cosine * np.linalg.norm(SLOPE), rel=1e-9)
    assert found.cosine == pytest.approx(cosine, abs=1e-9) and found.doubt < 1e-9
    assert found.downhill == cosine and found.decided


def audits(cosine, pairs):
    """Return 200 agreements with a linear loss that has jumps as large as its slope."""
    gradient, length = at_angle(cosine), np.linalg.norm(SLOPE)
    draws = (RNG.normal(size=(pairs, D)) for _ in range(200))
    return [judged(gradient, x, x @ SLOPE + length * RNG.normal(size=pairs)) for x in draws]


@pytest.mark.parametrize("cosine", [-0.7, 0.0, 0.3, 0.9])
def test_the_cosine_and_its_doubt_are_right_in_the_mean(cosine):
    """With fewer pairs than numbers, and the doubt is the spread."""
    found, length = audits(cosine, 300), np.linalg.norm(SLOPE)
    slopes, errors = np.array([(f.slope, f.error) for f in found]).T
    cosines, doubts = np.array([(f.cosine, f.doubt) for f in found]).T
    # Four standard errors of a mean of 200, and of a spread, 5 %.
    assert np.mean(slopes) == pytest.approx(cosine * length, abs=4.0 * slopes.std() / np.sqrt(200))
    assert np.mean(errors) == pytest.approx(slopes.std(), rel=0.2)
    # A ratio is unbiased, and its spread known, to first order only: two such errors.
    assert np.mean(cosines) == pytest.approx(cosine, abs=0.3 * cosines.std())
    assert np.median(doubts) == pytest.approx(cosines.std(), rel=0.4)


@pytest.mark.parametrize("cosine", [-0.7, 0.3, 0.9])
def test_what_few_pairs_decide_is_right(cosine):
    """32 pairs decide some of the 200, and all of those rightly."""
    decided = [f for f in audits(cosine, 32) if f.decided]
    assert decided
    for f in decided:
        assert f.downhill * cosine >= 0.0 and f.poor <= (abs(cosine) < 0.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loss_of_jumps_alone_gets_its_verdict(sign):
    """The loss counts thresholds passed: no derivative anywhere, smoothed slope h phi(c / sigma) / sigma."""
    height, distance = RNG.normal(size=D), RNG.uniform(-2.0, 2.0, D)
    slope = height * np.exp(-0.5 * distance**2) / np.sqrt(2.0 * np.pi) / NOISE

    def jumps(x):
        return jnp.sum(jnp.where(x >= NOISE * distance, height, 0.0))

    evidence = gather(jumps, normal, KEY, NOISE, 32, gradient=sign * slope, budget=4096)
    found = agreement(evidence)
    assert found.decided and found.downhill == sign
    assert abs(found.slope - sign * np.linalg.norm(slope)) < 4.0 * found.error
    assert abs(found.cosine - sign) < 4.0 * found.doubt
    # Each number's mean is normal: of 400, none beyond five errors.
    assert np.max(np.abs(evidence.mean - slope) / evidence.error) < 5.0


def test_pairs_are_drawn_until_it_is_decided_and_within_the_budget():
    few = agreement(gather(linear, normal, KEY, NOISE, 32, gradient=at_angle(0.9), budget=4096))
    many = agreement(gather(rough, normal, KEY, NOISE, 32, gradient=at_angle(0.9), budget=1000))
    assert few.decided and few.pairs < 300
    assert not many.decided and 900 < many.pairs <= 1000
    assert gather(rough, normal, KEY, NOISE, 32, budget=1000).pairs == 32, "without a gradient nothing is judged"


def test_more_pairs_are_new_ones():
    evidence = gather(rough, normal, KEY, NOISE, 64, gradient=at_angle(0.9), budget=512)
    assert evidence.pairs == len(np.unique(evidence.slopes)) == 512


def test_a_gradient_of_zero_is_judged_by_the_slope_alone():
    sloping = agreement(gather(linear, normal, KEY, NOISE, 128, gradient=0.0 * SLOPE, budget=128))
    flat = agreement(gather(lambda x: 0.0 * x[0], normal, KEY, NOISE, 128, gradient=0.0 * SLOPE, budget=128))
    assert np.isnan(sloping.cosine) and sloping.sloping and sloping.decided
    # The slope's square from 128 pairs is known to sqrt(2 * 400) / 128 = 22 %, and 18 % for each pair's own spread.
    assert sloping.norm == pytest.approx(np.linalg.norm(SLOPE), rel=0.6)
    assert np.isnan(flat.cosine) and not flat.sloping and not flat.decided and flat.norm == 0.0


def test_chance_alone_rarely_decides():
    """Of 1000 gradients without any relation to a loss of noise, some three in 1000 seem to point up or down."""
    gradient = at_angle(0.5)
    found = [judged(gradient, RNG.normal(size=(8, D)), RNG.normal(size=8)).downhill != 0 for _ in range(1000)]
    # Twice 0.00135, and four standard errors of the count.
    assert np.mean(found) < 0.0027 + 4.0 * np.sqrt(0.0027 / 1000)
