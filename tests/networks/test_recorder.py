"""The flight recorder on networks whose behaviour is known."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Recurrent, RecurrentParams, Sequential, flight_record, init_neurons

NETWORK = Sequential((Dense(), jl.LIF(dt=1.0)))


def test_silent_saturated_and_rate_are_counted():
    # Under 100 rheobases a neuron without refractoriness spikes in every step, under none never.
    params = (DenseParams(weight=jnp.array([[100.0, 0.0, 0.0, 1.5]])), init_neurons(4))
    record = flight_record(NETWORK, params, jnp.ones((3, 40, 1)))
    assert record.silent.tolist() == [0.5] and record.saturated.tolist() == [0.25]
    spikes = np.asarray(jl.simulate(NETWORK, params, jnp.ones((40, 1)))[1].output.spikes)
    np.testing.assert_allclose(record.rates[0], 1000.0 * spikes.mean(axis=0), rtol=1e-6)
    assert record.rates[0][0] == 1000.0 and record.gradient_norm is None
    assert any("25% of the neurons spike in more than half" in alarm for alarm in record.alarms)


def test_the_spectral_radius_is_that_of_the_recurrent_weight():
    network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0))))
    weight = jnp.array([[0.0, 2.0], [-2.0, 0.0]])  # eigenvalues 2i and -2i
    params = (DenseParams(weight=jnp.ones((1, 2))), RecurrentParams(neuron=init_neurons(2), weight=weight))
    record = flight_record(network, params, jnp.ones((2, 10, 1)))
    assert record.spectral_radius[0] == pytest.approx(2.0, rel=1e-6)
    assert any("spectral radius 2" in alarm for alarm in record.alarms)


def test_the_gradient_is_that_of_a_loss_linear_in_the_spikes():
    params = (DenseParams(weight=jnp.array([[2.0, 3.0]])), init_neurons(2))
    weights = jnp.arange(1.0, 21.0)

    def loss(output):
        return jnp.einsum("btn,t->", output.output.spikes, weights)

    record = flight_record(NETWORK, params, jnp.ones((3, 20, 1)), loss)
    # d loss / d s is the step's weight for each of 3 x 2 spikes: its norm is that times sqrt(6).
    np.testing.assert_allclose(record.gradient_norm[0], np.sqrt(6.0) * np.asarray(weights), rtol=1e-5)


def test_what_is_refused():
    params = (DenseParams(weight=jnp.ones((1, 1))), init_neurons(1))
    with pytest.raises(ValueError, match=r"inputs have shape \[5\]: a batch \[B, T, ...\] is needed"):
        flight_record(NETWORK, params, jnp.ones(5))
    with pytest.raises(ValueError, match="no layer that spikes"):
        flight_record(Sequential((Dense(),)), params[:1], jnp.ones((2, 5, 1)), dt=1.0)
    with pytest.raises(ValueError, match="dt = 2 ms: dt must be the network's, which is 1 ms"):
        flight_record(NETWORK, params, jnp.ones((2, 5, 1)), dt=2.0)
