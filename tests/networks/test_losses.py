"""Losses and readouts of classification against numbers worked out by hand, NumPy and closed-form gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    Sequential,
    accuracy,
    activity_band,
    cross_entropy,
    init_dense,
    init_neurons,
)


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


def test_class_weights_are_those_of_a_weighted_mean(dtype):
    rng = np.random.default_rng(4)
    logits, labels, weight = rng.normal(size=(7, 3)).astype(dtype), rng.integers(0, 3, 7), np.array([0.5, 0.0, 3.0])
    nats = np.log(np.exp(logits.astype(float)).sum(axis=1)) - logits[np.arange(7), labels]
    close = {"rtol": 1e-6 if dtype == "float32" else 1e-14}  # a few roundings
    value = cross_entropy(logits, labels, class_weight=weight)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.average(nats, weights=weight[labels]), **close)
    masked = cross_entropy(logits, np.where(np.arange(7) < 4, labels, -1), np.arange(7) < 4, class_weight=weight)
    np.testing.assert_allclose(masked, np.average(nats[:4], weights=weight[labels[:4]]), **close)
    for bad, message in {
        (1.0, 2.0): "^class_weight has 2 weights: logits have 3 classes$",
        (1.0, -2.0, 1.0): r"^class_weight\[1\] = -2: class_weight must be 0",
        3.0: r"^class_weight has shape \(\): class_weight must be an array of rank 1$",
    }.items():
        with pytest.raises(ValueError, match=message):
            cross_entropy(logits, labels, class_weight=bad)


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


T, K = 12, 4

MASKED = {
    "mean": lambda v, m: jnp.mean(v, axis=0, where=None if m is None else m[:, None]),
    "cross-entropy": lambda z, m: cross_entropy(z, jnp.full(len(z), 2), m),
    "band": lambda s, m: activity_band(s, 100.0, 150.0, 1.0, m),
}


@pytest.mark.parametrize("readout", MASKED.values(), ids=MASKED.keys())
def test_padding_changes_no_number(readout):
    """Samples of 12 and 7 steps in one batch, with nan behind the shorter, against each alone; values and gradients."""
    mask = np.arange(T) < np.array([[T], [7]])
    x = (np.random.default_rng(1).random((2, T, K)) < 0.2).astype(float)
    padded = jnp.asarray(np.where(mask[..., None], x, np.nan))

    @jax.jit
    def slope(x, m=None):
        return jax.value_and_grad(lambda x: jnp.sum(readout(x, m) ** 2))(x)

    values, gradients = jax.jit(jax.vmap(slope))(padded, jnp.asarray(mask))
    for i, n in enumerate((T, 7)):
        alone, expected = slope(jnp.asarray(x[i, :n]))
        # The same numbers, and zeros, are added: the last places alone may differ.
        np.testing.assert_allclose(values[i], alone, rtol=1e-14)
        np.testing.assert_allclose(gradients[i, :n], expected, rtol=1e-13, atol=1e-16)
        assert not gradients[i, n:].any()


def spikes_at(rates, num_steps=1000, dt=0.5):
    spikes = np.zeros((num_steps, len(rates)))
    for i, rate in enumerate(rates):
        spikes[: round(rate * num_steps * dt / 1000.0), i] = 1.0
    return spikes


def test_the_band_is_a_square_outside_and_nothing_inside(dtype):
    spikes = jnp.asarray(spikes_at([0.0, 10.0, 14.0, 20.0, 50.0]), dtype)
    value = activity_band(spikes, 10.0, 20.0, 0.5)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, (10.0**2 + 30.0**2) / 5.0, rtol=1e-5)
    assert activity_band(spikes[:, 2:3], 10.0, 20.0, 0.5) == 0.0
    np.testing.assert_allclose(activity_band(spikes[:, 1:4], 10.0, 20.0, 0.5), 0.0, atol=1e-9)
    np.testing.assert_allclose(activity_band(spikes[:, 2] > 0, 20.0, 20.0, 0.5), 36.0, rtol=1e-5)


def test_the_bands_gradient_pushes_inwards():
    spikes = spikes_at([0.0, 14.0, 50.0])
    gradient = jax.grad(lambda s: activity_band(s, 10.0, 20.0, 0.5))(jnp.asarray(spikes))
    # d/ds of (nu - bound)²/3 with nu = 2 Hz per spike in 500 ms.
    expected = np.array([-2.0 * 10.0, 0.0, 2.0 * 30.0]) * 2.0 / 3.0
    np.testing.assert_allclose(gradient, np.tile(expected, (1000, 1)), rtol=1e-12)


def test_silent_neurons_can_be_woken():
    """The surrogate's gradient reaches the weights of neurons that do not spike."""
    network, first = Sequential((Dense(), jl.LIF(dt=1.0))), init_dense(jax.random.key(0), 7, 6, gain=0.5)
    inputs = np.random.default_rng(8).normal(3.0, 2.0, (20, 7))

    def rates(params):
        return jl.simulate(network, params, inputs)[1].output.spikes

    def loss(params):
        return activity_band(rates(params), 50.0, 200.0, 1.0)

    start = (first, init_neurons(6))
    assert (rates(start).sum(axis=0) == 0).any()
    fitted = jl.fit(loss, start, {"*.weight": jl.REAL}, optimizer=optax.adam(0.05), num_steps=300)
    assert loss(fitted.params) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: activity_band(jnp.zeros((3, 2)), 20.0, 10.0, 1.0), r"^low = 20 Hz: low must not exceed high = 10 Hz"),
        (lambda: activity_band(jnp.zeros((3, 2)), -1.0, 10.0, 1.0), r"^low = -1 Hz: low must be 0 Hz or more"),
        (lambda: activity_band(jnp.zeros((9, 3, 2)), 1.0, 10.0, 1.0), r"^spikes has shape \(9, 3, 2\): it must be one"),
        (lambda: activity_band(jnp.zeros((3, 2)), 1.0, 10.0, 0.0), r"^dt = 0 ms: dt must be greater than 0 ms"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
