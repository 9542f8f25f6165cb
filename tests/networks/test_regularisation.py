"""Normalisation, dropout and activity bands against their closed forms, and what they refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, Sequential, init_dense, init_neurons
from jaxlif.networks.regularisation import (
    Dropout,
    DropoutParams,
    Normalise,
    NormaliseParams,
    activity_band,
    init_normalise,
)

T, N = 20, 7
RNG = np.random.default_rng(8)
INPUTS = RNG.normal(3.0, 2.0, (T, N))
CLOSE = {"float64": {"rtol": 1e-12, "atol": 1e-12}, "float32": {"rtol": 1e-4, "atol": 1e-5}}


def test_normalise_equals_numpy(dtype):
    scale, shift = RNG.normal(size=(2, N))
    params = NormaliseParams(scale=jnp.asarray(scale, dtype), shift=jnp.asarray(shift, dtype))
    _, y = jl.simulate(Normalise(epsilon=0.1), params, jnp.asarray(INPUTS, dtype))
    spread = np.sqrt(INPUTS.var(axis=1, keepdims=True) + 0.1)
    expected = scale * (INPUTS - INPUTS.mean(axis=1, keepdims=True)) / spread + shift
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, **CLOSE[dtype])


def test_normalise_forgets_offset_and_scale():
    params = init_normalise(N, scale=2.0, shift=0.5)
    _, y = jl.simulate(Normalise(1e-12), params, INPUTS)
    _, other = jl.simulate(Normalise(1e-12), params, 7.0 * INPUTS - 30.0)
    np.testing.assert_allclose(y, other, rtol=0, atol=1e-10)
    np.testing.assert_allclose([y.mean(), y.std(axis=1).max()], [0.5, 2.0], rtol=1e-10)


def test_normalise_steps_images_and_spikes():
    images = INPUTS.reshape(T // 2, 2, N)
    params = NormaliseParams(scale=np.full((2, N), 3.0))
    _, whole = jl.simulate(Normalise(), params, images)
    stepped = np.stack([Normalise().step(params, (), x)[1] for x in images])
    np.testing.assert_allclose(whole, stepped, rtol=0, atol=1e-14)
    spikes = INPUTS > 3.0
    expected = jl.simulate(Normalise(), NormaliseParams(), spikes.astype(float))[1]
    np.testing.assert_array_equal(jl.simulate(Normalise(), NormaliseParams(), spikes)[1], expected)


def test_silence_stays_at_the_shift_with_a_finite_gradient():
    def run(x):
        return jl.simulate(Normalise(), init_normalise(N, shift=0.5), x)[1]

    np.testing.assert_array_equal(run(jnp.zeros((T, N))), np.full((T, N), 0.5))
    assert np.isfinite(jax.grad(lambda x: jnp.sum(run(x) ** 2))(jnp.zeros((T, N)))).all()


# -------------------------------------------------------------------------------------------------------------- dropout


def test_a_mask_is_the_same_in_all_steps_and_scales_what_is_left():
    inputs = RNG.normal(size=(5, 10_000))
    _, y = jl.simulate(Dropout(0.3), DropoutParams(key=jax.random.key(0)), inputs)
    dropped = (y == 0.0).all(axis=0)
    np.testing.assert_allclose(y[:, ~dropped], inputs[:, ~dropped] / 0.7, rtol=1e-14)
    # 10 000 draws: the standard error of the fraction is 0.0046; five of them.
    assert abs(dropped.mean() - 0.3) < 0.023 and not (y[:, ~dropped] == 0.0).any()


def test_keys_decide():
    def mask(seed):
        return jl.simulate(Dropout(0.5), DropoutParams(key=jax.random.key(seed)), np.ones((2, 50)))[1]

    np.testing.assert_array_equal(mask(0), mask(0))
    assert (mask(0) != mask(1)).any()
    batch = jax.vmap(lambda k: jl.simulate(Dropout(0.5), DropoutParams(key=k), jnp.ones((2, 50)))[1])
    np.testing.assert_array_equal(batch(jax.random.split(jax.random.key(3), 2))[1], mask_of_split())


def mask_of_split():
    key = jax.random.split(jax.random.key(3), 2)[1]
    return jl.simulate(Dropout(0.5), DropoutParams(key=key), np.ones((2, 50)))[1]


@pytest.mark.parametrize(("rate", "key"), [(0.0, jax.random.key(0)), (0.9, None)])
def test_evaluation_changes_nothing(rate, key):
    np.testing.assert_array_equal(jl.simulate(Dropout(rate), DropoutParams(key=key), INPUTS)[1], INPUTS)


def test_chunks_and_steps_keep_the_mask(dtype):
    cell, params, inputs = Dropout(0.5), DropoutParams(key=jax.random.key(2)), jnp.asarray(INPUTS, dtype)
    _, whole = jl.simulate(cell, params, inputs)
    state, head = jl.simulate(cell, params, inputs[:7])
    # The key is spent: another one in a later chunk draws nothing.
    _, tail = jl.simulate(cell, replace(params, key=jax.random.key(5)), inputs[7:], state)
    np.testing.assert_array_equal(whole, np.concatenate([head, tail]))
    state = cell.init_state(params, inputs[0])
    np.testing.assert_array_equal(whole, np.stack([cell.step(params, state, x)[1] for x in inputs]))
    assert whole.dtype == dtype


def test_dropout_and_normalisation_in_a_network():
    """Trained parameters beside a key: bounds name what is free, the key of each step comes with its batch."""
    network = Sequential((Dense(), Normalise(), jl.LIF(dt=1.0), Dropout(0.2), Dense()))
    first, second = jax.random.split(jax.random.key(0))
    dense = (init_dense(first, N, 9), init_normalise(9, scale=30.0), init_neurons(9))
    params = (*dense, DropoutParams(), init_dense(second, 9, 2))

    def loss(params, key):
        params = (*params[:3], DropoutParams(key=key), params[4])
        return jnp.mean((jl.simulate(network, params, INPUTS)[1].output - 1.0) ** 2)

    keys = jax.random.split(jax.random.key(1), 5)
    bounds = {"*.weight": jl.REAL, "*.scale": (0.0, np.inf), "*.shift": jl.REAL}
    result = jl.fit(loss, params, bounds, optimizer=optax.adam(0.05), num_steps=30, batches=keys)
    assert result.completed and result.losses[-5:].mean() < 0.7 * result.losses[:5].mean()
    assert (result.params[1].scale != 30.0).all()


# ------------------------------------------------------------------------------------------------------- activity bands


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
    network, first = Sequential((Dense(), jl.LIF(dt=1.0))), init_dense(jax.random.key(0), N, 6, gain=0.5)

    def rates(params):
        return jl.simulate(network, params, INPUTS)[1].output.spikes

    def loss(params):
        return activity_band(rates(params), 50.0, 200.0, 1.0)

    start = (first, init_neurons(6))
    assert (rates(start).sum(axis=0) == 0).any()
    fitted = jl.fit(loss, start, {"*.weight": jl.REAL}, optimizer=optax.adam(0.05), num_steps=300)
    assert loss(fitted.params) == 0.0


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalise(0.0), r"^epsilon = 0: epsilon must be greater than 0"),
        (lambda: init_normalise(0), r"^num_features = 0: num_features must be a whole number, 1 or more"),
        (lambda: Dropout(1.0), r"^rate = 1: rate must be 0 or more and below 1"),
        (lambda: jl.simulate(Dropout(0.5), DropoutParams(key=3), INPUTS), "^key = 3: key must be a JAX random key"),
        (lambda: Dropout(-0.1), r"^rate = -0.1"),
        (lambda: Dropout(float("nan")), r"^rate = nan"),
        (lambda: activity_band(jnp.zeros((3, 2)), 20.0, 10.0, 1.0), r"^low = 20 Hz: low must not exceed high = 10 Hz"),
        (lambda: activity_band(jnp.zeros((3, 2)), -1.0, 10.0, 1.0), r"^low = -1 Hz: low must be 0 Hz or more"),
        (lambda: activity_band(jnp.zeros((9, 3, 2)), 1.0, 10.0, 1.0), r"^spikes has shape \(9, 3, 2\): it must be one"),
        (lambda: activity_band(jnp.zeros((3, 2)), 1.0, 10.0, 0.0), r"^dt = 0 ms: dt must be greater than 0 ms"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
