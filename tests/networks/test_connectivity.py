"""Rules of connection against the counts that they promise."""

import jax
import numpy as np
import pytest

from jaxlif.networks import (
    AllToAll,
    ByDistance,
    Edges,
    FixedInDegree,
    FixedNumber,
    FixedOutDegree,
    OneToOne,
    Pairwise,
    connect,
)
from jaxlif.networks.connectivity import Ends, order_of


def matrix(rule, ends, seed=0):
    """Return how many synapses there are between each two."""
    source, target = rule.draw(np.random.default_rng(seed), ends)
    found = np.zeros((ends.num_in, ends.num_out), int)
    np.add.at(found, (source, target), 1)
    assert isinstance(rule, Edges) or (np.diff(source) >= 0).all(), "sorted by source"
    return found


@pytest.mark.parametrize("autapses", [True, False])
def test_pairs_are_connected_with_the_probability_each_on_its_own(autapses):
    drawn = matrix(Pairwise(0.1, autapses=autapses), Ends(300, 300, True))
    assert set(np.unique(drawn)) == {0, 1} and bool(np.trace(drawn)) == autapses
    for degrees in (drawn.sum(axis=0), drawn.sum(axis=1)):
        # Mean 30, variance 27, both from 300 degrees: five standard errors, of a variance sqrt(2/300) of it.
        assert abs(degrees.mean() - 30) < 5 * np.sqrt(27 / 300) and abs(degrees.var() / 27 - 1) < 5 * np.sqrt(2 / 300)


def test_a_probability_of_one_is_every_pair():
    assert (matrix(Pairwise(1.0), Ends(7, 5)) == 1).all()
    np.testing.assert_array_equal(matrix(Pairwise(1.0), Ends(6, 6, True)), 1 - np.eye(6))
    np.testing.assert_array_equal(matrix(AllToAll(), Ends(6, 6, True)), 1 - np.eye(6))
    assert (matrix(AllToAll(), Ends(6, 6)) == 1).all()


@pytest.mark.parametrize(("rule", "axis"), [(FixedInDegree, 0), (FixedOutDegree, 1)])
@pytest.mark.parametrize("multapses", [True, False])
@pytest.mark.parametrize("autapses", [True, False])
def test_degrees_are_fixed_and_partners_drawn_evenly(rule, axis, multapses, autapses):
    drawn = matrix(rule(20, multapses=multapses, autapses=autapses), Ends(40, 40, True))
    assert (drawn.sum(axis=axis) == 20).all()
    assert (drawn.max() > 1) == multapses and bool(np.trace(drawn)) == autapses
    other = drawn.sum(axis=1 - axis)
    # 800 partners over 40 neurons: 20 each, with a variance of at most 20; five standard deviations.
    assert (abs(other - 20) < 5 * np.sqrt(20)).all() and len(set(other)) > 3


def test_a_number_in_all_and_one_to_one():
    drawn = matrix(FixedNumber(2000), Ends(10, 20))
    assert drawn.sum() == 2000 and (abs(drawn - 10) < 5 * np.sqrt(10)).all()
    np.testing.assert_array_equal(matrix(OneToOne(), Ends(4, 4)), np.eye(4))


def test_the_key_decides():
    first, again, other = (connect(jax.random.key(k), Pairwise(0.5), 9, 9).target for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (np.asarray(first) != np.asarray(other)).any()


def test_distance_decides_on_a_ring():
    x = np.arange(50.0)[:, None]
    rule = ByDistance(lambda d: np.where(d < 3.5, 0.5, 0.0), period=50.0)
    drawn = sum(matrix(rule, Ends(50, 50, True, (x, x)), seed) for seed in range(40))
    apart = np.abs(x - x.T)
    near = (np.minimum(apart, 50 - apart) < 3.5) & (apart > 0)
    assert not drawn[~near].any()
    # 300 pairs, each drawn 40 times with probability 1/2: five standard errors of their mean.
    assert abs(drawn[near].mean() - 20) < 5 * np.sqrt(10 / 300)


REFUSED = {
    "probability": (lambda: Pairwise(1.2), "probability = 1.2: probability must be above 0 and at most 1"),
    "too few": (lambda: matrix(FixedInDegree(9, multapses=False), Ends(5, 5)), "number = 9: only 5 partners are there"),
    "sizes": (lambda: matrix(OneToOne(), Ends(4, 5)), "OneToOne: the sizes are 4 and 5: they must be the same"),
    "a missing neuron": (lambda: matrix(Edges([0, 4], [0, 0]), Ends(4, 4)), r"source\[1\] = 4: .* neurons 0 to 3"),
    "no positions": (lambda: matrix(ByDistance(np.exp), Ends(4, 4)), "positions = None: ByDistance needs"),
    "positions in another space": (
        lambda: matrix(ByDistance(np.exp), Ends(2, 2, False, (np.zeros((2, 1)), np.ones((2, 2))))),
        r"positions \[2, 1\] and \[2, 2\]: they must be \[2, dimensions\] and \[2, dimensions\]",
    ),
    "no chance": (
        lambda: matrix(ByDistance(np.exp), Ends(2, 2, False, (np.zeros((2, 1)), np.ones((2, 1))))),
        r"probability\[0\] = 2.71828: probability must be from 0 to 1",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counting_sorts_as_comparing_does():
    source = np.random.default_rng(4).integers(30, size=500, dtype=np.int32)
    np.testing.assert_array_equal(order_of(source, 40), np.argsort(source, kind="stable"))
