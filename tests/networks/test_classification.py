"""Cross-entropy and accuracy against numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif.networks import accuracy, class_counts, cross_entropy


def test_cross_entropy_by_hand(dtype):
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype)) + 3.0
    value = cross_entropy(logits, jnp.array([1, 2]))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, -(math.log(0.25) + math.log(0.8)) / 2, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_cross_entropy_of_huge_logits_is_finite():
    np.testing.assert_allclose(cross_entropy(jnp.array([1e4, 0.0]), jnp.array(1)), 1e4)


def test_gradient_is_softmax_minus_label():
    logits, labels = jnp.array([[0.3, -1.0, 2.0], [0.0, 0.5, -0.2]]), jnp.array([0, 2])
    expected = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[labels]) / 2
    np.testing.assert_allclose(jax.grad(cross_entropy)(logits, labels), expected, atol=1e-15)


def test_accuracy_by_hand(dtype):
    logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [5.0, -1.0], [0.0, 3.0]], dtype)
    value = accuracy(logits, jnp.array([0, 1, 1, 1]))
    assert value.dtype == dtype
    assert value == 0.75


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint64])
def test_labels_of_any_width_name_their_class(kind):
    """Class 299 has no number in eight bits, where it is 43."""
    logits = jnp.zeros((2, 300)).at[0, 43].set(1.0).at[1, 299].set(1.0)
    labels = np.array([43, 43], kind)
    assert accuracy(logits, labels) == 0.5
    exact = np.log(299.0 + np.e) - 0.5  # one logit of 1 among 300, at the label in one of two samples
    np.testing.assert_allclose(cross_entropy(logits, labels), exact, rtol=1e-12)
    with pytest.raises(ValueError, match=r"^labels\[1\] = 4.29497e\+09: labels must lie between 0 and 299$"):
        cross_entropy(logits, np.array([0, 2**32]))


@pytest.mark.parametrize("function", [cross_entropy, accuracy])
def test_refusals(function):
    with pytest.raises(ValueError, match=r"logits \[2, 3\], labels \[3\]: logits must have the labels' shape"):
        function(jnp.zeros((2, 3)), jnp.zeros(3, int))
    with pytest.raises(ValueError, match="labels are float64: labels must be integers"):
        function(jnp.zeros((2, 3)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"labels\[1\] = 3: labels must lie between 0 and 2"):
        function(jnp.zeros((2, 3)), jnp.array([0, 3]))
    with pytest.raises(ValueError, match=r"labels\[0\] = -1"):
        function(jnp.zeros((2, 3)), jnp.array([-1, 0]))


@pytest.mark.parametrize("label", [-1, 3])
def test_under_a_trace_a_label_out_of_range_makes_the_loss_nan(label):
    value, gradient = jax.jit(jax.value_and_grad(cross_entropy))(jnp.zeros((2, 3)), jnp.array([0, label]))
    assert np.isnan(value) and np.isfinite(gradient[0]).all()


def test_what_does_not_count_changes_no_number():
    """Behind a mask labels may be -1 and logits nan, in both measures and in the gradient."""
    logits, labels, mask = np.full((3, 2, 4), np.nan), np.full((3, 2), -1), np.zeros((3, 2), bool)
    logits[:, 0], labels[:, 0], mask[:, 0] = np.random.default_rng(0).normal(size=(3, 4)), [0, 3, 1], True
    for measure in (cross_entropy, accuracy):
        # Zeros are added to the same sum, perhaps in another order.
        np.testing.assert_allclose(measure(logits, labels, mask), measure(logits[:, 0], labels[:, 0]), rtol=1e-15)
    slope = jax.jit(jax.grad(cross_entropy))
    gradient = slope(logits, labels, mask)
    np.testing.assert_allclose(gradient[:, 0], slope(logits[:, 0], labels[:, 0]), rtol=1e-14)
    assert not gradient[:, 1].any()


def test_the_accuracy_of_nan_is_nan():
    assert np.isnan(accuracy(jnp.array([[0.0, jnp.nan], [1.0, 0.0]]), jnp.array([1, 0])))


def test_classes_are_counted_and_an_empty_one_is_refused():
    assert class_counts(jnp.array([[0, 2], [1, 2]]), 3).tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match=r"^class 1 of 0 to 2 has no sample: every class needs at least one"):
        class_counts(jnp.array([0, 2]), 3)
    with pytest.raises(ValueError, match=r"^class 1 \(and 2 others\) of 0 to 4 has no sample"):
        class_counts(jnp.array([0, 2]), 5)
    with pytest.raises(ValueError, match=r"^labels\[1\] = 3: labels must lie between 0 and 2$"):
        class_counts(jnp.array([0, 3]), 3)
    with pytest.raises(ValueError, match="^labels are float64: labels must be integers$"):
        class_counts(jnp.zeros(3), 1)
