"""Gains from theory against simulated layers."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Recurrent,
    Sequential,
    alive_gain,
    balance,
    drive_gain,
    init_adaptive,
    init_dense,
    init_neurons,
    init_recurrent,
    scale_to_drive,
)
from jaxlif.neurons.leaky import LeakyOutput

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


ADAPTIVE = Sequential((Dense(), Recurrent(jl.AdaptiveLIF(dt=1.0))))


@jax.jit
@jax.vmap
def adaptive_rate(params, key):
    """Return the layer's mean rate, Hz, after its adaptation has settled."""
    spikes = jax.random.bernoulli(key, 0.05, (1500, IN)).astype(float)
    return 1000.0 * jl.simulate(ADAPTIVE, params, spikes)[1].output.spikes[700:].mean()


def test_adaptive_layers_fire_at_the_wanted_rate():
    """Currents and thresholds whose means at 20 Hz are half of the threshold or twice it."""
    cases, drawn = [(5.0, 2.0, 0.0, 0.0), (20.0, 0.5, 0.5, 0.0), (5.0, 0.0, 0.5, 0.0), (20.0, 0.0, 2.0, RECURRENT)], []
    for i, (tau_m, eta, gamma, recurrent) in enumerate(cases):
        start = init_adaptive(N, tau_m=tau_m, rise=gamma, tau_gamma=100.0, rate=20.0)
        # A current of the mean eta, at 20 Hz too, whose jumps last for some 50 ms.
        neuron = replace(start, eta=(eta * -np.expm1(-1.0 / 50.0) / 0.02,), tau_eta=(50.0,))
        gain = alive_gain(neuron, 20.0, input_rate=50.0, dt=1.0, recurrent_gain=recurrent, balanced=i % 2 == 0)
        for key in jax.random.split(jax.random.key(5), 3):
            keys = jax.random.split(key, 3)
            dense = init_dense(keys[0], IN, N, gain=gain)
            loop = init_recurrent(keys[1], N, gain=recurrent, neuron=jax.tree.map(jnp.asarray, neuron))
            drawn.append(((dense if i % 2 else balance(dense), loop), keys[2]))
    params, keys = jax.tree.map(lambda *x: jnp.stack(x), *drawn)
    rates = np.asarray(adaptive_rate(params, keys)).reshape(len(cases), 3).mean(axis=1)
    # Adaptation is taken at its mean: 10 % off in 192 layers like these. Draws of 3 x 100 neurons differ by 5 %.
    np.testing.assert_allclose(rates, 20.0, rtol=0.15)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tau_gamma": (20.0,)},
            r"^tau_gamma.0 = 20 ms: it must be a mean interval, 1000 / rate = 50 ms, or more, for",
        ),
        ({"gamma": (-0.1,)}, "^gamma.0 = -0.1 mV: gamma.0 must be 0 mV or more$"),
        ({"a": (0.1,), "tau_a": (90.0,)}, "^params = AdaptiveLIFParams: alive_gain does not have their a$"),
        ({"coupling": jl.VoltageCoupling()}, "alive_gain does not have their coupling$"),
    ],
)
def test_adaptation_that_its_mean_does_not_stand_for(change, message):
    with pytest.raises(ValueError, match=message):
        alive_gain(replace(init_adaptive(3), **change), 20.0, input_rate=50.0, dt=1.0)


# Drives

TAU = np.array([2.0, 8.0, 30.0])
SPIKES = (np.random.default_rng(0).random((6, 300, 4)) < 0.1).astype(float)
PASSIVE = jl.LeakyIntegrator(dt=0.5), jl.LeakyParams(tau_m=TAU)


def filtered(currents):
    """Pass [samples, T, N] through the exact filter of each membrane, by SciPy."""
    columns = [lfilter([1.0 - k], [1.0, -k], currents[..., i], axis=1) for i, k in enumerate(np.exp(-0.5 / TAU))]
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize(
    ("cell", "params", "span"),
    [(*PASSIVE, 1.0), (jl.LIF(dt=0.5), jl.LIFParams(tau_m=TAU, r_m=1.0, v_rest=-70.0, v_th=-50.0), 20.0)],
    ids=["passive", "in mV, spikes kept away"],
)
def test_a_scaled_projection_moves_each_voltage_by_the_drive(cell, params, span):
    projection = scale_to_drive(init_dense(jax.random.key(1), 4, 3), SPIKES, cell, params, drive=2.0)
    # Rounding of a mean over 1800 voltages.
    found = filtered(SPIKES @ np.asarray(projection.weight)).std((0, 1))
    np.testing.assert_allclose(found, 2.0 * span, rtol=1e-12)


@dataclass(frozen=True)
class Squared:
    """A cell whose voltage is not in proportion to its input."""

    def init_state(self, params, x):
        return ()

    def step(self, params, state, x):
        return (), LeakyOutput(x**2)


@pytest.mark.parametrize(
    ("inputs", "cell", "params"),
    [(0.0 * SPIKES, *PASSIVE), (SPIKES, Squared(), None)],
    ids=["no spikes", "a square"],
)
def test_voltages_that_weights_do_not_scale_are_refused(inputs, cell, params):
    with pytest.raises(ValueError, match=r"^drive\[0\] = \S+: it was to be 2: neuron must follow its input"):
        scale_to_drive(init_dense(jax.random.key(1), 4, 3), inputs, cell, params, drive=2.0)


def test_the_gain_for_a_drive_agrees_with_random_spikes():
    """200 inputs for 40 s: the slowest membrane has some 700 independent voltages, 3 % of error; five of them."""
    spikes = (np.random.default_rng(1).random((1, 80_000, 200)) < 0.05).astype(float)
    gain = np.asarray(drive_gain(tau_m=TAU, dt=0.5, rate=100.0, drive=1.5))
    weight = np.random.default_rng(2).normal(size=(200, 3))
    weight *= gain / np.sqrt(200 * np.mean(weight**2, axis=0))
    # The formula's mean square is that of spikes about 0, not about their mean.
    centred = filtered(spikes @ weight - 0.05 * weight.sum(0))
    np.testing.assert_allclose(centred.std((0, 1)), 1.5 * np.sqrt(1.0 - 0.05), rtol=0.15)
