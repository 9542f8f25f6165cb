"""Starting values, against a plain filter and against random spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

from jaxlif.networks import gain_to_drive, init_dense, init_resonant, log_uniform, scale_to_drive

TAU = np.array([2.0, 8.0, 30.0])
SPIKES = (np.random.default_rng(0).random((6, 300, 4)) < 0.1).astype(float)


def filtered(currents):
    """Pass [samples, T, N] through the exact filter of each membrane, by SciPy."""
    kept = np.exp(-0.5 / TAU)
    columns = [lfilter([1.0 - k], [1.0, -k], currents[..., i], axis=1) for i, k in enumerate(kept)]
    return np.stack(columns, axis=-1)


def test_a_scaled_projection_moves_each_voltage_by_the_drive():
    projection = scale_to_drive(init_dense(jax.random.key(1), 4, 3), SPIKES, tau_m=TAU, dt=0.5, drive=2.0)
    assert projection.bias.shape == (3,)
    # Rounding of a mean over 1800 voltages.
    np.testing.assert_allclose(filtered(SPIKES @ np.asarray(projection.weight)).std((0, 1)), 2.0, rtol=1e-12)


def test_the_gain_agrees_with_random_spikes():
    """200 inputs for 40 s: the slowest membrane has some 700 independent voltages, 3 % of error; five of them."""
    spikes = (np.random.default_rng(1).random((1, 80_000, 200)) < 0.05).astype(float)
    gain = gain_to_drive(tau_m=TAU, dt=0.5, rate=0.05, drive=1.5)
    weight = np.asarray(gain) * np.asarray(init_dense(jax.random.key(2), 200, 3).weight)
    # These weights have a mean square of their own; the formula's is that of spikes about 0, not about their mean.
    weight /= np.sqrt(200 * np.mean((weight / np.asarray(gain)) ** 2, axis=0))
    centred = filtered(spikes @ weight - 0.05 * weight.sum(0))
    np.testing.assert_allclose(centred.std((0, 1)), 1.5 * np.sqrt(1.0 - 0.05), rtol=0.15)


def test_resonant_neurons_fill_their_ranges():
    params = init_resonant(jax.random.key(3), 500, tau_m=(3.0, 30.0), a=50.0, b=10.0, dt=2.0)
    params.check()
    assert 3.0 < params.tau_m.min() < 3.5 and 26.0 < params.tau_m.max() < 30.0
    assert 0.0 < params.a.min() and 45.0 < params.a.max() < 50.0
    # Spiking in every step: w(1 - e^(-dt/tau)) = b, so w stays below 10.
    steady = params.b / -np.expm1(-2.0 / params.tau_w)
    assert 0.0 < steady.min() and 9.0 < steady.max() < 10.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: log_uniform(jax.random.key(0), 5.0, 5.0, 3), "low = 5: low must be below high = 5"),
        (lambda: gain_to_drive(tau_m=10.0, dt=1.0, rate=2.0), "rate = 2: rate must be 1 spike per step or less"),
        (lambda: gain_to_drive(tau_m=0.0, dt=1.0, rate=0.1), "tau_m = 0 ms: tau_m must be greater than 0 ms"),
        (
            lambda: scale_to_drive(init_dense(jax.random.key(1), 4, 3), jnp.zeros((1, 5, 4)), tau_m=10.0, dt=1.0),
            r"sd\[0\] = 0: the inputs do not move the voltage",
        ),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
