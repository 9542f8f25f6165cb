"""Gains from theory against simulated layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Recurrent,
    Sequential,
    alive_gain,
    balance,
    init_dense,
    init_neurons,
    init_recurrent,
)

IN, N, T, DROP = 200, 100, 600, 100  # the first steps start from rest
RECURRENT = 4.0
NETWORK = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0))))


@jax.jit
@jax.vmap
def simulated(params, key, chance):
    """Return the layer's mean rate, Hz, and the fraction of silent neurons."""
    spikes = jax.random.bernoulli(key, jnp.broadcast_to(chance[None], (T, IN))).astype(float)
    seen = jl.simulate(NETWORK, params, spikes)[1].output.spikes[DROP:]
    return 1000.0 * seen.mean(), jnp.mean(seen.sum(axis=0) == 0)


def draw(key, gain, tau_m, recurrent, balanced):
    keys = jax.random.split(key, 3)
    dense = init_dense(keys[0], IN, N, gain=gain)
    dense = balance(dense) if balanced else dense
    return (dense, init_recurrent(keys[1], N, gain=recurrent, tau_m=tau_m)), keys[2]


CASES = [(tau_m, rate) for tau_m in (5.0, 20.0, 50.0) for rate in (10.0, 50.0, 200.0)]


def layer_rates(target, balanced, recurrent, draws=4):
    """Return the rates of layers with the gain for a target, and their silent fractions, [cases, draws]."""
    drawn, chances = [], []
    for tau_m, rate in CASES:
        gain = alive_gain(
            init_neurons(N, tau_m=tau_m), target, input_rate=rate, dt=1.0, recurrent_gain=recurrent, balanced=balanced
        )
        drawn += [draw(key, gain, tau_m, recurrent, balanced) for key in jax.random.split(jax.random.key(3), draws)]
        chances += [jnp.full(IN, rate / 1000.0)] * draws
    params, keys = jax.tree.map(lambda *x: jnp.stack(x), *drawn)
    return [np.asarray(x).reshape(len(CASES), draws) for x in simulated(params, keys, jnp.stack(chances))]


@pytest.mark.parametrize("recurrent", [0.0, RECURRENT])
def test_balanced_layers_fire_at_the_wanted_rate(recurrent):
    rates, silent = layer_rates(20.0, True, recurrent)
    # Four draws of 100 neurons for half a second: 4000 spikes, and draws that differ by about 4 %.
    np.testing.assert_allclose(rates.mean(axis=1), 20.0, rtol=0.08)
    assert silent.max() <= 0.02


def test_plain_layers_fire_at_the_wanted_rate_on_average():
    rates, silent = layer_rates(20.0, False, RECURRENT)
    # The mean currents of 100 neurons depend on the draw: layers differ by 15 %, so the mean of four by 8 %.
    np.testing.assert_allclose(rates.mean(axis=1), 20.0, rtol=0.2)
    np.testing.assert_allclose(rates.mean(), 20.0, rtol=0.1)
    assert silent[2::3].min() > 0.2  # with inputs at 200 Hz the draw silences many


def test_neurons_that_differ_and_inputs_that_differ():
    tau_m = np.linspace(5.0, 50.0, N)
    chance = np.linspace(0.0, 0.1, IN)
    gain = alive_gain(init_neurons(N, tau_m=tau_m), 30.0, input_rate=1000.0 * chance, dt=1.0)
    drawn = [draw(key, gain, tau_m, 0.0, False) for key in jax.random.split(jax.random.key(4), 36)]
    params, keys = jax.tree.map(lambda *x: jnp.stack(x), *drawn)
    rates, _ = simulated(params, keys, jnp.broadcast_to(jnp.asarray(chance), (36, IN)))
    np.testing.assert_allclose(rates.mean(), 30.0, rtol=0.06)


def test_units_do_not_matter():
    cell = jl.LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-50.0, v_reset=-65.0, t_ref=2.0)
    options = {"input_rate": 20.0, "dt": 0.5}
    pA = alive_gain(cell, 15.0, **options)
    np.testing.assert_allclose(pA, 200.0 * alive_gain(cell.normalised(), 15.0, **options), rtol=1e-3)


def test_a_balanced_weight_passes_on_no_common_input():
    params = balance(init_dense(jax.random.key(0), 50, 20, gain=3.0))
    np.testing.assert_allclose(params.weight.sum(axis=0), 0.0, atol=1e-12)
    again = balance(DenseParams(weight=params.weight + 7.0))
    np.testing.assert_allclose(again.weight, params.weight, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_rate": 0.0}, "^input_rate = 0 Hz: inputs that never spike make nothing fire$"),
        ({"input_rate": 2000.0}, r"^input_rate = 2000 Hz: input_rate must lie between 0 and 1000 / dt = 1000 Hz$"),
        ({"rate": 900.0}, r"^rate = 900 Hz: no gain reaches it, the most is \d+ Hz$"),
        ({"bias": 1.5}, "^rate = 20 Hz: bias and recurrence alone make the neurons fire faster$"),
        ({"rate": -1.0}, "^rate = -1 Hz: rate must be greater than 0 Hz$"),
        ({"dt": 0.0}, "^dt = 0 ms: dt must be greater than 0 ms$"),
    ],
)
def test_what_is_refused(change, message):
    options = {"rate": 20.0, "input_rate": 50.0, "dt": 1.0} | change
    with pytest.raises(ValueError, match=message):
        alive_gain(init_neurons(3), **options)
