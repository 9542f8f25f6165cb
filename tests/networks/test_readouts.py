"""Readouts against NumPy and closed-form gradients, on plain arrays and behind a network, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, Sequential, activity_band, cross_entropy, init_dense
from jaxlif.networks.readouts import (
    first_spike_time,
    last,
    max_over_time,
    mean_over_time,
    per_step_cross_entropy,
    spike_count,
)

T, K = 12, 4
RNG = np.random.default_rng(1)
V = RNG.normal(size=(T, K))
SPIKES = np.zeros((T, K))
SPIKES[[0, 5, 7, 11], [0, 1, 1, 2]] = 1.0  # first in the first step, twice, in the last step, never


@pytest.mark.parametrize(
    ("readout", "expected"),
    [(last, V[-1]), (mean_over_time, V.mean(axis=0)), (max_over_time, V.max(axis=0)), (spike_count, V.sum(axis=0))],
)
def test_readouts_equal_numpy(dtype, readout, expected):
    z = readout(jnp.asarray(V, dtype))
    assert z.dtype == dtype and z.shape == (K,)
    np.testing.assert_allclose(z, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("readout", "share"),
    [
        (last, np.eye(T)[-1][:, None] * np.ones(K)),
        (mean_over_time, np.full((T, K), 1.0 / T)),
        (max_over_time, (V == V.max(axis=0)).astype(float)),
        (spike_count, np.ones((T, K))),
    ],
)
def test_gradients_say_which_steps_count(readout, share):
    np.testing.assert_allclose(jax.grad(lambda v: jnp.sum(readout(v)))(jnp.asarray(V)), share, rtol=1e-14)


def test_spikes_of_any_dtype_are_counted():
    for kind in (bool, "uint8", float):
        np.testing.assert_array_equal(spike_count(SPIKES.astype(kind)), [1.0, 2.0, 1.0, 0.0])
        np.testing.assert_allclose(first_spike_time(SPIKES.astype(kind), 0.5), [0.5, 3.0, 6.0, 6.5], rtol=1e-14)


def test_the_gradient_of_the_first_spike_time():
    """A spike at n < first moves the time from (first + 1) dt to (n + 1) dt; less of the first lets the next come."""
    gradient = jax.grad(lambda s: first_spike_time(s, 0.5)[1])(jnp.asarray(SPIKES))
    expected = np.zeros((T, K))
    expected[:5, 1] = 0.5 * (np.arange(5) - 5)
    expected[5, 1] = 0.5 * (5 - 7)  # to the second spike, in step 7
    np.testing.assert_allclose(gradient, expected, rtol=1e-14)


def test_the_surrogate_brings_a_first_spike_forward():
    """Behind a neuron the gradient by the current has the right sign, and a step along it the effect."""
    cell, params = jl.LIF(dt=0.5), jl.LIFParams(t_ref=0.0)

    def time(current):
        return first_spike_time(jl.simulate(cell, params, jnp.full((200, 1), 1.0) * current)[1].spikes, 0.5)[0]

    assert jax.grad(time)(200.0) < 0.0
    assert time(250.0) < time(200.0) < time(0.0) == 100.5


def test_readouts_classify():
    """Each readout's cross-entropy reaches the weights of a network."""
    network = Sequential((Dense(), jl.LIF(dt=1.0)))
    params = (init_dense(jax.random.key(0), 5, K, gain=20.0), jl.LIFParams(t_ref=0.0).normalised())
    x, label = RNG.normal(size=(50, 5)), jnp.asarray(2)

    def by_time(output):
        return -first_spike_time(output.spikes, 1.0) / 5.0

    def by_voltage(readout):
        return lambda output: readout(output.v)

    voltages = [by_voltage(readout) for readout in (last, mean_over_time, max_over_time)]
    for logits in (*voltages, by_time, lambda output: spike_count(output.spikes)):

        def loss(params, logits=logits):
            return cross_entropy(logits(jl.simulate(network, params, x)[1].output), label)

        gradient = jax.grad(loss)(params)[0].weight
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_cross_entropy_per_step_equals_the_mean_of_single_ones():
    labels = RNG.integers(0, K, T)
    single = [-(z[y] - np.log(np.exp(z).sum())) for z, y in zip(V, labels, strict=True)]
    for skip in (0, 5, T - 1):
        value = per_step_cross_entropy(jnp.asarray(V), jnp.asarray(labels), skip)
        np.testing.assert_allclose(value, np.mean(single[skip:]), rtol=1e-12)


ALL = {
    "last": last,
    "mean_over_time": mean_over_time,
    "max_over_time": max_over_time,
    "spike_count": spike_count,
    "first_spike_time": lambda s, mask=None: first_spike_time(s, 0.5, mask),
    "per_step_cross_entropy": lambda z, mask=None: per_step_cross_entropy(z, jnp.full(len(z), 2), 1, mask),
    "activity_band": lambda s, mask=None: activity_band(s, 100.0, 150.0, 1.0, mask),
}


@pytest.mark.parametrize("readout", ALL.values(), ids=ALL.keys())
def test_padding_changes_no_number(readout):
    """Samples of 12 and 7 steps in one batch, with nan behind the shorter, against each alone; values and gradients."""
    mask = np.arange(T) < np.array([[T], [7]])
    x = (RNG.random((2, T, K)) < 0.2).astype(float)
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


def test_steps_at_the_start_may_be_left_out():
    mask = np.arange(T) >= 5
    np.testing.assert_array_equal(first_spike_time(SPIKES, 0.5, mask), [6.5, 3.0, 6.0, 6.5])
    np.testing.assert_array_equal(spike_count(SPIKES, mask), [0.0, 2.0, 1.0, 0.0])
    np.testing.assert_array_equal(last(V, mask[::-1]), V[6])


@pytest.mark.parametrize("readout", [last, mean_over_time, max_over_time])
def test_where_no_step_counts_there_is_no_logit(readout):
    assert np.isnan(readout(V, np.zeros(T))).all()


def test_a_batch_by_vmap():
    batch, labels = RNG.normal(size=(3, T, K)), RNG.integers(0, K, (3, T))
    values = jax.vmap(per_step_cross_entropy)(batch, labels)
    single = [per_step_cross_entropy(jnp.asarray(b), jnp.asarray(y)) for b, y in zip(batch, labels, strict=True)]
    np.testing.assert_allclose(values, single, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: last(jnp.asarray(1.0)), r"^v has shape \(\): it must be one sample, \[T\] or \[T, N\]"),
        (
            lambda: max_over_time(jnp.zeros((0, 3))),
            r"^v has shape \(0, 3\): it must be one sample, .* with a step at least",
        ),
        (
            lambda: mean_over_time(jnp.zeros((3, T, K))),
            r"^v has shape \(3, 12, 4\): .*; a batch goes through jax.vmap$",
        ),
        (lambda: last(jnp.zeros((3, T, K))), r"^v has shape \(3, 12, 4\): it must be one sample"),
        (lambda: max_over_time(jnp.zeros((3, T, K))), r"^v has shape \(3, 12, 4\): it must be one sample"),
        (lambda: spike_count(jnp.zeros((3, T, K))), r"^spikes has shape \(3, 12, 4\): it must be one sample"),
        (lambda: first_spike_time(jnp.zeros((3, T, K)), 1.0), r"^spikes has shape \(3, 12, 4\): it must be one"),
        (
            lambda: per_step_cross_entropy(jnp.zeros((T, T, K)), jnp.zeros((T, T), int)),
            r"^logits has shape \(12, 12, 4\)",
        ),
        (lambda: per_step_cross_entropy(jnp.zeros(T), jnp.asarray(0)), r"^logits \[12\]: logits must be \[T, K\]"),
        (lambda: last(jnp.zeros((T, K)), np.ones(K)), r"^v has shape \(12,\) and mask \(4,\): they must agree"),
        (lambda: first_spike_time(jnp.asarray(SPIKES), 0.0), r"^dt = 0 ms: dt must be greater than 0 ms"),
        (lambda: per_step_cross_entropy(jnp.zeros((5, 2)), jnp.zeros(5, int), 5), r"^skip = 5 steps: .* the 5 steps"),
        (lambda: per_step_cross_entropy(jnp.zeros((5, 2)), jnp.zeros(5, int), -1), r"^skip = -1 steps"),
        (lambda: per_step_cross_entropy(jnp.zeros((5, 2)), jnp.zeros(4, int)), r"^logits \[5, 2\], labels \[4\]"),
        (lambda: per_step_cross_entropy(jnp.zeros((5, 2)), jnp.full(5, 2)), r"^labels\[0\] = 2"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
