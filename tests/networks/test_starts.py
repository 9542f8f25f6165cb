"""Starts: what their parameters promise, in plain loops."""

import jax
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Arriving,
    Dense,
    Recurrent,
    Sequential,
    init_adaptive,
    init_adex,
    init_dense,
    init_neurons,
    init_recurrent,
    init_resonant,
    scale_to_drive,
)

KEY, N, IN = jax.random.key(0), 20, 8


@pytest.mark.parametrize(("dt", "tau"), [(0.5, 400.0), (2.0, 50.0)])
def test_the_threshold_rises_by_what_was_asked(dt, tau):
    """At 25 Hz, one spike in 40 ms: the mean over the last interval, when nothing of the start is left."""
    params = init_adaptive(2, tau_gamma=tau, rise=np.array([0.5, 3.0]), rate=25.0, dt=dt)
    period, height, heights = round(40.0 / dt), np.zeros(2), []
    for step in range(200 * period):
        height = height * np.exp(-dt / tau) + (step % period == 0) * np.asarray(params.gamma[0])
        heights.append(height)
    # After 8 s, 20 time constants, e^-20 of the start is left.
    np.testing.assert_allclose(np.mean(heights[-period:], axis=0), [0.5, 3.0], rtol=5e-9)


def test_resonant_neurons_fill_their_ranges():
    params = init_resonant(jax.random.key(3), 500, tau_m=(3.0, 30.0), a=50.0, b=10.0, dt=2.0)
    assert 3.0 < params.tau_m.min() < 3.5 and 26.0 < params.tau_m.max() < 30.0
    assert 0.0 < params.a.min() and 45.0 < params.a.max() < 50.0
    # Spiking in every step: w(1 - e^(-dt/tau)) = b, so w stays below 10.
    steady = params.b / -np.expm1(-2.0 / params.tau_w)
    assert 0.0 < steady.min() and 9.0 < steady.max() < 10.0


def test_an_exponential_neuron_has_rheobase_1():
    """Adaptation at 20 Hz is a current of its rise: jumps of b that decay with tau, one each 50 ms."""
    params = init_adex(2, delta_t=0.2, rise=np.array([0.4, 0.0]), rate=20.0, tau_w=100.0)
    np.testing.assert_allclose(params.rheobase, 1.0, rtol=1e-12)
    np.testing.assert_allclose(params.b * 100.0 / 50.0, [0.4, 0.0], rtol=1e-12)


def test_a_recurrent_layer_of_exponential_neurons_has_a_gradient():
    """Their step has a derivative backwards alone, and the layer's own rule asked for the other, while tracing."""
    params = init_recurrent(KEY, 3, neuron=init_adex(3, rise=0.5))
    gradient = jax.grad(lambda p: jl.simulate(Recurrent(jl.AdEx(dt=1.0)), p, np.ones((4, 3)))[1].v.sum())
    assert jax.eval_shape(gradient, params).weight.shape == (3, 3)


def test_a_recurrent_layer_with_synapses_in_one_call_fires():
    neuron = jl.SynapticParams(neuron=init_neurons(N), synapse=jl.CurrentParams(tau_syn=5.0))
    cell = Arriving(jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent()))
    spikes = jax.random.bernoulli(KEY, 0.1, (2, 200, IN)).astype(float)
    dense = scale_to_drive(init_dense(KEY, IN, N), spikes, cell, neuron)
    params = dense, init_recurrent(KEY, N, gain=0.5, neuron=neuron)
    network = Sequential((Dense(), Recurrent(cell)))
    rate = 1000.0 * jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.spikes)(spikes).mean()
    assert 2.0 < rate < 200.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: init_adaptive(3, tau_gamma=[1.0, 2.0]),
            r"tau_gamma has shape \(2,\): tau_gamma must be a number or one",
        ),
        (lambda: init_adaptive(3, rise=-1.0), r"rise\[0\] = -1: rise must be 0"),
        (lambda: init_adaptive(3, rate=0.0), "rate = 0 Hz: rate must be greater than 0 Hz"),
        (lambda: init_adex(3, delta_t=0.0), "delta_t = 0: delta_t must be greater than 0"),
        (lambda: init_resonant(KEY, 3, tau_w=(0.0, 9.0)), "low = 0: low must be greater than 0"),
        (lambda: init_recurrent(KEY, 3, neuron=init_adaptive(3), tau_m=9.0), "tau_m or t_ref is given beside neuron"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
