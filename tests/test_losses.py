"""Losses against plain NumPy, their refusals, and their gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif import losses, spiketrains

RNG = np.random.default_rng(0)
T, N = 40, 3
V, TARGET = RNG.normal(-60.0, 5.0, (2, T, N))
MASK = RNG.random((T, N)) < 0.6
TRAIN, OTHER = (RNG.random((2, T, N)) < 0.2).astype(float)
# Sums of a hundred terms: a few units in the last place of either precision.
RTOL = {"float64": 1e-12, "float32": 1e-5}


def gradient_agrees(loss, x):
    """Compare a directional derivative with the central difference, whose error at 1e-5 is far below 1e-6."""
    direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
    exact = jnp.vdot(jax.grad(loss)(x), direction)
    central = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    assert float(exact) != 0.0
    np.testing.assert_allclose(exact, central, rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_voltage_mse(dtype, masked):
    v, target = jnp.asarray(V, dtype), jnp.asarray(TARGET, dtype)
    value = losses.voltage_mse(v, target, jnp.asarray(MASK) if masked else None)
    squares = ((V - TARGET) ** 2)[MASK] if masked else (V - TARGET) ** 2
    assert value.dtype == dtype and value.shape == ()
    np.testing.assert_allclose(value, squares.mean(), rtol=RTOL[dtype])


def test_voltage_mse_where_nothing_counts_is_zero_with_a_finite_gradient():
    value, grad = jax.value_and_grad(losses.voltage_mse)(jnp.asarray(V), jnp.asarray(TARGET), jnp.zeros((T, N)))
    assert value == 0.0 and (grad == 0.0).all()


def test_rate_mse(dtype):
    rates, target = np.array([0.0, 12.5, 40.0]), np.array([1.0, 10.0, 44.0])
    value = losses.rate_mse(jnp.asarray(rates, dtype), jnp.asarray(target, dtype))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, (1.0 + 6.25 + 16.0) / 3.0, rtol=RTOL[dtype])


@pytest.mark.parametrize("dt", [0.1, 2.0])
def test_spike_count_rate(dtype, dt):
    value = losses.spike_count_rate(jnp.asarray(TRAIN, dtype), dt)
    assert value.dtype == dtype and value.shape == (N,)
    np.testing.assert_allclose(value, TRAIN.sum(axis=0) / (T * dt / 1000.0), rtol=RTOL[dtype])


def filtered(train, tau, dt):
    kernel = np.exp(-dt / tau * np.arange(T))
    return np.stack([np.convolve(column, kernel)[:T] for column in train.T], axis=1)


@pytest.mark.parametrize(("tau", "dt"), [(10.0, 0.5), (2.0, 1.0)])
def test_filtered_spikes_are_a_convolution(dtype, tau, dt):
    value = losses.filtered_spikes(jnp.asarray(TRAIN, dtype), tau=tau, dt=dt)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, filtered(TRAIN, tau, dt), rtol=RTOL[dtype], atol=RTOL[dtype])


@pytest.mark.parametrize(("tau", "dt"), [(10.0, 0.5), (0.7, 1.0)])
def test_van_rossum_is_the_exact_distance_of_the_spike_times(dtype, tau, dt):
    value = losses.van_rossum(jnp.asarray(TRAIN, dtype), jnp.asarray(OTHER, dtype), tau=tau, dt=dt)
    times = [[dt * (np.flatnonzero(column) + 1) for column in train.T] for train in (TRAIN, OTHER)]
    exact = [spiketrains.van_rossum(a, b, tau=tau) for a, b in zip(*times, strict=True)]
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.mean(exact), rtol=RTOL[dtype])
    assert losses.van_rossum(jnp.asarray(TRAIN, dtype), jnp.asarray(TRAIN, dtype), tau=tau, dt=dt) == 0.0


@pytest.mark.parametrize("masked", [False, True])
def test_forced_spike_loss(dtype, masked):
    x = RNG.normal(0.0, 3.0, (T, N))
    probability = 1.0 / (1.0 + np.exp(-x))
    terms = -np.where(TRAIN > 0, np.log(probability), np.log1p(-probability))
    mask = jnp.asarray(MASK) if masked else None
    value = losses.forced_spike_loss(jnp.asarray(x, dtype), jnp.asarray(TRAIN, dtype), mask)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, (terms[MASK] if masked else terms).sum() / TRAIN.sum(), rtol=RTOL[dtype])


def test_forced_spike_loss_far_from_threshold_stays_finite():
    distance = jnp.asarray([1e4, -1e4])
    value, grad = jax.value_and_grad(losses.forced_spike_loss)(distance, jnp.asarray([0.0, 1.0]))
    assert value == 2e4 and jnp.isfinite(grad).all() and (jnp.abs(grad) == 1.0).all()


def test_gradients():
    v, train, other = map(jnp.asarray, (V, TRAIN, OTHER))
    gradient_agrees(lambda x: losses.voltage_mse(x, jnp.asarray(TARGET), jnp.asarray(MASK)), v)
    gradient_agrees(lambda x: losses.rate_mse(x, jnp.asarray(TARGET[:, 0])), v[:, 0])
    gradient_agrees(lambda x: jnp.sum(losses.spike_count_rate(x, 0.1) ** 2), train)
    gradient_agrees(lambda x: losses.van_rossum(x, other, tau=10.0, dt=0.5), train)
    gradient_agrees(lambda x: losses.forced_spike_loss((x + 60.0) / 5.0, train, jnp.asarray(MASK)), v)


@pytest.mark.parametrize(
    "call",
    [
        losses.voltage_mse,
        lambda a, b: losses.voltage_mse(a, a, b),
        losses.rate_mse,
        lambda a, b: losses.van_rossum(a, b, tau=10.0, dt=0.1),
        losses.forced_spike_loss,
        lambda a, b: losses.forced_spike_loss(a, a, b),
    ],
)
@pytest.mark.parametrize("shape", [(T, 1), (T,), (T, 1, N), ()])
def test_no_loss_broadcasts(call, shape):
    with pytest.raises(ValueError, match=r"has shape \(40, 3\) and .*: they must agree"):
        call(jnp.zeros((T, N)), jnp.zeros(shape))


def brute_force_mask(train, before, after):
    mask = np.ones(train.shape, bool)
    for index in np.argwhere(train > 0):
        for n in range(len(train)):
            if index[0] - before <= n < index[0] + after:
                mask[n, *index[1:]] = False
    return mask


@pytest.mark.parametrize("before", [0, 1, 5, 60])
@pytest.mark.parametrize("after", [0, 1, 7, 60])
@pytest.mark.parametrize("columns", [None, 3])
def test_spike_mask(before, after, columns):
    shape = (T,) if columns is None else (T, columns)
    train = np.random.default_rng(before + 100 * after).random(shape) < 0.1
    train[0], train[-1] = True, True
    expected = brute_force_mask(train, before, after)
    np.testing.assert_array_equal(losses.spike_mask(train, before=before, after=after), expected)


def test_spike_mask_refuses_negative_counts():
    with pytest.raises(ValueError, match="before = -1, after = 2 samples: both must be 0 or more"):
        losses.spike_mask([0, 1], before=-1, after=2)
