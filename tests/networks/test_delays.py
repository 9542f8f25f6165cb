"""Delays against plain NumPy: interpolation, spread, chunks, gradients, recurrence; dropout; what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Delayed,
    DelayParams,
    Dense,
    DenseParams,
    Dropout,
    DropoutParams,
    Feedback,
    FeedbackParams,
    Recurrent,
    RecurrentParams,
    Sequential,
)

T, N, DT, MAX = 40, 6, 0.5, 4.0  # K = 8 steps
RNG = np.random.default_rng(5)
INPUTS = RNG.normal(size=(T, N))
DELAY = np.array([0.0, 0.5, 1.3, 2.75, 3.99, 4.0])  # ms: none, whole, between, the longest
CLOSE = {"float64": {"rtol": 1e-12, "atol": 1e-12}, "float32": {"rtol": 1e-4, "atol": 1e-5}}


def weights_of(delay, sigma=None):
    """Return w [K + 1, N] by the definition, in plain loops."""
    lags = np.arange(round(MAX / DT) + 1)
    w = np.zeros((len(lags), len(delay)))
    for i, d in enumerate(np.asarray(delay) / DT):
        w[:, i] = np.exp(-0.5 * ((lags - d) / sigma) ** 2) if sigma else np.maximum(0.0, 1.0 - np.abs(lags - d))
    return w / w.sum(axis=0)


def delayed_by_hand(w, inputs):
    y = np.zeros_like(inputs)
    for n in range(len(inputs)):
        for k in range(min(n, len(w) - 1) + 1):
            y[n] += w[k] * inputs[n - k]
    return y


@pytest.mark.parametrize("sigma", [None, 0.4, 2.5])
def test_delays_equal_the_sum_over_lags(dtype, sigma):
    params = DelayParams(delay=jnp.asarray(DELAY, dtype), sigma=sigma)
    _, y = jl.simulate(Delayed(DT, MAX), params, jnp.asarray(INPUTS, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(y, delayed_by_hand(weights_of(DELAY, sigma), INPUTS), **CLOSE[dtype])


@pytest.mark.parametrize("sigma", [None, 1.5])
def test_stepping_equals_the_window(sigma):
    cell, params = Delayed(DT, MAX), DelayParams(delay=jnp.asarray(DELAY), sigma=sigma)
    state, step, outputs = cell.init_state(params, INPUTS[0]), jax.jit(cell.step), []
    for x in INPUTS:
        state, y = step(params, state, x)
        outputs.append(y)
    final, whole = jl.simulate(cell, params, INPUTS)
    np.testing.assert_allclose(whole, np.stack(outputs), rtol=0, atol=1e-14)
    jax.tree.map(np.testing.assert_array_equal, final, state)


@pytest.mark.parametrize("sigma", [None, 1.5])
@pytest.mark.parametrize("cut", [5, 20])
def test_chunks_equal_the_whole_bitwise(sigma, cut):
    """Chunks shorter and longer than the ring of 9: what is on its way arrives in the next."""
    cell, params = Delayed(DT, MAX), DelayParams(delay=DELAY, sigma=sigma)
    state, head = jl.simulate(cell, params, INPUTS[:cut])
    state, tail = jl.simulate(cell, params, INPUTS[cut:], state)
    final, whole = jl.simulate(cell, params, INPUTS)
    np.testing.assert_array_equal(whole, np.concatenate([head, tail]))
    jax.tree.map(np.testing.assert_array_equal, final, state)


def test_a_ramp_is_delayed_exactly():
    """A signal that is linear between the steps is shifted by the delay, whole or not."""
    ramp = np.tile(DT * np.arange(T)[:, None], (1, N))
    _, y = jl.simulate(Delayed(DT, MAX), DelayParams(delay=DELAY), ramp)
    np.testing.assert_allclose(y[10:], (ramp - DELAY)[10:], rtol=0, atol=1e-13)


def test_delays_that_divide_badly_are_whole_steps():
    """3 x 0.1 ms is not 0.3 ms in binary; the weights are continuous in the delay, so nothing jumps."""
    spikes = np.zeros((60, 4))
    spikes[0] = 1.0
    _, y = jl.simulate(Delayed(0.1, 2.1), DelayParams(delay=np.array([0.3, 0.7, 1.9, 2.1])), spikes)
    expected = np.zeros_like(spikes)
    expected[[3, 7, 19, 21], range(4)] = 1.0
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    assert Delayed(0.1, 2.1).max_lag == 21 and Delayed(0.1, 0.3).max_lag == 3 and Delayed(1.0, 0.2).max_lag == 1
    Delayed(0.1, 0.7).check(DelayParams(delay=7 * 0.1))
    Delayed(0.1, 0.1).check(DelayParams(delay=np.float32(0.1)))


@pytest.mark.parametrize("sigma", [None, 0.7])
@pytest.mark.parametrize("stepped", [False, True])
def test_the_gradient_of_the_delay_is_that_of_the_sum(sigma, stepped):
    delay, probe = jnp.array([0.2, 0.7, 1.3, 2.75 + 0.1, 3.9, 3.6]), RNG.normal(size=(T, N))

    class Stepped:  # the same cell without its scan
        init_state, step = Delayed(DT, MAX).init_state, Delayed(DT, MAX).step

    def loss(delay):
        return jnp.sum(
            probe * jl.simulate(Stepped() if stepped else cell, DelayParams(delay=delay, sigma=sigma), INPUTS)[1]
        )

    def by_hand(delay):
        return np.sum(probe * delayed_by_hand(weights_of(delay, sigma), INPUTS))

    cell, h = Delayed(DT, MAX), 1e-5
    expected = [(by_hand(delay + h * e) - by_hand(delay - h * e)) / (2.0 * h) for e in np.eye(N)]
    # Linear weights: the difference is exact but for rounding / h; Gaussian: h² times a third derivative of order 10.
    np.testing.assert_allclose(jax.grad(loss)(delay), expected, rtol=1e-7, atol=1e-8)


def test_the_gradient_of_the_input_is_the_transposed_delay():
    cell, params = Delayed(DT, MAX), DelayParams(delay=DELAY)
    a, b = RNG.normal(size=(2, T, N))
    _, pull = jax.vjp(lambda x: jl.simulate(cell, params, x)[1], jnp.asarray(a))
    forward = np.sum(b * delayed_by_hand(weights_of(DELAY), a))
    np.testing.assert_allclose(np.sum(a * pull(jnp.asarray(b))[0]), forward, rtol=1e-12)


def test_a_narrow_spread_is_the_nearest_step():
    cell = Delayed(1.0, 5.0)
    spikes = np.zeros((8, 2))
    spikes[0] = 1.0
    _, y = jl.simulate(cell, DelayParams(delay=jnp.array([1.4, 3.6]), sigma=1e-3), spikes)
    np.testing.assert_array_equal(np.argmax(y, axis=0), [1, 4])
    np.testing.assert_array_equal(np.max(y, axis=0), [1.0, 1.0])


def test_a_narrower_spread_is_no_other_trace():
    traces = []

    @jax.jit
    def run(sigma):
        traces.append(1)
        return jl.simulate(Delayed(DT, MAX), DelayParams(delay=jnp.asarray(DELAY), sigma=sigma), INPUTS)[1]

    for sigma in (0.5, 2.0):
        np.testing.assert_allclose(
            run(sigma), delayed_by_hand(weights_of(DELAY, sigma), INPUTS), rtol=1e-12, atol=1e-12
        )
    assert len(traces) == 1


def test_gradients_are_finite_for_any_spread():
    def loss(delay, sigma):
        return jnp.sum(jl.simulate(Delayed(DT, MAX), DelayParams(delay=delay, sigma=sigma), INPUTS)[1] ** 2)

    for sigma in (1e-6, 1e-2, 1.0, 1e3):
        gradient = jax.grad(loss)(jnp.asarray(DELAY), jnp.asarray(sigma))
        assert np.isfinite(gradient).all()


def test_other_shapes_of_input():
    """One delay for all channels; one channel for all delays; images."""
    cell = Delayed(DT, MAX)
    w = weights_of(np.full(N, 1.3))
    np.testing.assert_allclose(
        jl.simulate(cell, DelayParams(delay=1.3), INPUTS)[1], delayed_by_hand(w, INPUTS), atol=1e-13
    )
    fan = jl.simulate(cell, DelayParams(delay=DELAY), INPUTS[:, 0])[1]
    expected = delayed_by_hand(weights_of(DELAY), np.tile(INPUTS[:, :1], (1, N)))
    np.testing.assert_allclose(fan, expected, atol=1e-13)
    images = jl.simulate(cell, DelayParams(delay=DELAY.reshape(2, 3)), INPUTS.reshape(T, 2, 3))[1]
    straight = jl.simulate(cell, DelayParams(delay=DELAY), INPUTS)[1]
    np.testing.assert_allclose(images.reshape(T, N), straight, rtol=0, atol=1e-15)


def test_spikes_of_any_dtype_are_delayed():
    for kind in (bool, "uint8", "int32"):
        spikes = (INPUTS > 1.0).astype(kind)
        _, y = jl.simulate(Delayed(DT, MAX), DelayParams(delay=jnp.asarray(DELAY)), spikes)
        np.testing.assert_allclose(y, delayed_by_hand(weights_of(DELAY), spikes.astype(float)), atol=1e-13)


# ---------------------------------------------------------------------------------------------------------- recurrence

LIF = jl.LIF(dt=DT)
CURRENT = 3.0 + 6.0 * RNG.normal(size=(T, N))
NEURON = jl.LIFParams(tau_m=np.linspace(5.0, 15.0, N), r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=1.0)
WEIGHT = jnp.asarray(np.random.default_rng(2).normal(0.0, 4.0, (N, N)))


def run_recurrent(delay, sigma=None):
    """Run neurons whose spikes reach one another late."""
    cell = Feedback(LIF, Sequential((Delayed(DT, MAX), Dense())))
    params = FeedbackParams(neuron=NEURON, path=(DelayParams(delay=delay, sigma=sigma), DenseParams(weight=WEIGHT)))
    return jl.simulate(cell, params, CURRENT)[1]


def test_recurrent_delays_equal_a_plain_loop():
    output = run_recurrent(DELAY)
    w, step = weights_of(DELAY), jax.jit(LIF.step)
    state, spikes = LIF.init_state(NEURON, CURRENT[0]), np.zeros((T, N))
    for n in range(T):
        arriving = sum((w[k] * spikes[n - 1 - k] for k in range(min(n, len(w)))), np.zeros(N))
        state, out = step(NEURON, state, CURRENT[n] + arriving @ WEIGHT)
        spikes[n] = out.spikes
    assert 0.05 < spikes.mean() < 0.6
    np.testing.assert_array_equal(output.spikes, spikes)


def test_no_delay_is_the_recurrent_layer():
    plain = jl.simulate(Recurrent(LIF), RecurrentParams(neuron=NEURON, weight=WEIGHT), CURRENT)[1]
    delayed = run_recurrent(0.0)
    np.testing.assert_array_equal(delayed.spikes, plain.spikes)
    np.testing.assert_allclose(delayed.v, plain.v, rtol=0, atol=1e-13)


def test_recurrent_delays_have_gradients():
    gradient = jax.grad(lambda delay: jnp.sum(run_recurrent(delay, 1.0).v ** 2))(jnp.asarray(DELAY))
    assert np.isfinite(gradient).all() and np.abs(gradient).min() > 0


def test_a_fit_keeps_delays_inside_and_finds_them():
    """The delays of a smooth input, by the gradient of the interpolation."""
    truth = jnp.array([0.6, 3.3, 1.7])
    inputs = jnp.sin(jnp.linspace(0.0, 20.0, 200)[:, None] + jnp.arange(3.0)[None])
    target = jl.simulate(Delayed(DT, MAX), DelayParams(delay=truth), inputs)[1]

    def loss(params):
        return jnp.mean((jl.simulate(Delayed(DT, MAX), params, inputs)[1] - target) ** 2)

    start = DelayParams(delay=jnp.full(3, 2.0))
    found = jl.fit(loss, start, {"delay": (0.0, MAX)}, optimizer=jl.lbfgs(), num_steps=60).params.delay
    np.testing.assert_allclose(found, truth, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- dropout

FEATURES = np.random.default_rng(8).normal(3.0, 2.0, (20, 7))


def test_a_mask_is_the_same_in_all_steps_and_scales_what_is_left():
    inputs = np.random.default_rng(1).normal(size=(5, 10_000))
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


@pytest.mark.parametrize(("rate", "key"), [(0.0, jax.random.key(0)), (0.9, None)])
def test_evaluation_changes_nothing(rate, key):
    np.testing.assert_array_equal(jl.simulate(Dropout(rate), DropoutParams(key=key), FEATURES)[1], FEATURES)


def test_chunks_and_steps_keep_the_mask(dtype):
    cell, params, inputs = Dropout(0.5), DropoutParams(key=jax.random.key(2)), jnp.asarray(FEATURES, dtype)
    _, whole = jl.simulate(cell, params, inputs)
    state, head = jl.simulate(cell, params, inputs[:7])
    # The key is spent: another one in a later chunk draws nothing.
    _, tail = jl.simulate(cell, replace(params, key=jax.random.key(5)), inputs[7:], state)
    np.testing.assert_array_equal(whole, np.concatenate([head, tail]))
    state = cell.init_state(params, inputs[0])
    np.testing.assert_array_equal(whole, np.stack([cell.step(params, state, x)[1] for x in inputs]))
    assert whole.dtype == dtype


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delayed(0.0, 5.0), r"^dt = 0 ms: dt must be greater than 0 ms"),
        (lambda: Delayed(1.0, 0.0), r"^max_delay = 0 ms: max_delay must be greater than 0 ms"),
        (lambda: Dropout(1.0), r"^rate = 1: rate must be 0 or more and below 1"),
        (lambda: Dropout(-0.1), r"^rate = -0.1"),
        (lambda: Dropout(float("nan")), r"^rate = nan"),
        (lambda: jl.simulate(Dropout(0.5), DropoutParams(key=3), FEATURES), "^key = 3: key must be a JAX random key"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_delays_are_refused():
    for delay, message in (
        ([0.0, -1.0], r"^delay\[1\] = -1 ms: delay must be 0 ms or more"),
        ([0.0, 4.5], r"^delay\[1\] = 4.5 ms: delay must not exceed max_delay = 4 ms"),
    ):
        with pytest.raises(ValueError, match=message):
            jl.simulate(Delayed(DT, MAX), DelayParams(delay=np.array(delay)), INPUTS[:, :2])
        with pytest.raises(ValueError, match=message.replace("^", "")):
            run_recurrent(np.resize(delay, N))
    with pytest.raises(ValueError, match=r"^sigma = 0 steps: sigma must be greater than 0 steps"):
        jl.simulate(Delayed(DT, MAX), DelayParams(delay=1.0, sigma=0.0), INPUTS)
    with pytest.raises(ValueError, match=r"^delay \[6\]: it does not go with an input \[4\]"):
        jl.simulate(Delayed(DT, MAX), DelayParams(delay=DELAY), INPUTS[:, :4])
