"""Weights of few bits: their values against a loop in NumPy, their gradient, and a file that spikes bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.interop.nir_graph import from_nir, to_nir
from jaxlif.networks import (
    Dense,
    DenseParams,
    Recurrent,
    RecurrentParams,
    Sequential,
    init_neurons,
    quantise,
)

RNG = np.random.default_rng(2)
KERNEL = (
    RNG.normal(0.0, 1.0, (3, 4, 5)) * np.array([0.1, 1.0, 0.0, 100.0])[:, None]
)  # four outputs, one without weights
N, T = 6, 40


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("bits", [2, 8])
def test_values_lie_on_the_grid(bits, axis, dtype):
    weight, bias = jnp.asarray(KERNEL, dtype), jnp.asarray(RNG.normal(0.0, 1.0, 4), dtype)
    layers = (DenseParams(weight=weight, bias=bias), jl.LeakyParams())
    found, rest = quantise(layers, bits, axis=axis)
    assert found.bias is bias and rest == layers[1] and found.weight.dtype == dtype
    most = 2 ** (bits - 1) - 1
    pairs = [(weight, found.weight)]
    if axis is not None:
        pairs = [(weight[:, n], found.weight[:, n]) for n in range(4)]
    for part, ours in pairs:
        step = np.abs(part).max() / most or 1.0
        steps, sizes = (np.asarray(x, float) / step for x in (part, ours))
        # Whole numbers but for rounding, the nearest ones, of either sign up to the most.
        np.testing.assert_allclose(sizes, np.rint(sizes), rtol=0, atol=1e-6 * most)
        assert np.abs(sizes - steps).max() < 0.5 + 1e-6 * most and np.abs(sizes).max() < most + 0.5
        assert len(np.unique(ours)) <= 2**bits - 1


def test_the_gradient_goes_straight_through():
    layers = {"a.weight": jnp.asarray(KERNEL), "tau": jnp.asarray(3.0)}

    def loss(p):
        return jnp.sum(jnp.sin(p["a.weight"]) * p["tau"])

    found = jax.grad(lambda p: loss(quantise(p, 3)))(layers)
    expected = jax.grad(loss)(quantise(layers, 3))  # that at the rounded weights
    for name in layers:
        np.testing.assert_array_equal(found[name], expected[name])


def test_weights_trained_with_three_bits_spike_alike_in_a_file(tmp_path):
    nir = pytest.importorskip("nir")
    network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
    hidden = RecurrentParams(neuron=init_neurons(N, tau_m=10.0), weight=RNG.normal(0.0, 2.0, (N, N)))
    first, last = (DenseParams(weight=RNG.normal(0.0, 4.0, size)) for size in ((4, N), (N, 1)))
    params = first, hidden, last, jl.LeakyParams(tau_m=20.0)
    inputs, target = (RNG.random((T, 4)) < 0.3).astype(float), np.sin(0.1 * np.arange(T))[:, None]

    def loss(p):
        return jnp.mean((jl.simulate(network, quantise(p, 3, axis=1), inputs)[1].output.v - target) ** 2)

    fit = jl.fit(loss, params, {"*.weight": jl.REAL}, optimizer=optax.adam(0.05), num_steps=60)
    assert fit.losses[-1] < 0.5 * fit.losses[0]
    exported = quantise(fit.params, 3, axis=1)
    assert max(len(np.unique(column)) for column in np.asarray(exported[0].weight).T) > 2
    nir.write(tmp_path / "network.nir", to_nir(network, exported, (4,)))
    again, read = from_nir(nir.read(tmp_path / "network.nir"))
    for name in (0, 1, 2):
        np.testing.assert_array_equal(read[name].weight, exported[name].weight)
    ours, theirs = (jl.simulate(cell, p, inputs)[1] for cell, p in ((network, exported), (again, read)))
    assert ours.layers[1].spikes.sum() > 10.0
    np.testing.assert_array_equal(ours.layers[1].spikes, theirs.layers[1].spikes)
    np.testing.assert_array_equal(ours.output.v, theirs.output.v)


def test_bad_calls_are_refused_by_name():
    layers = (DenseParams(weight=KERNEL),)
    for arguments, message in (
        ((1,), "bits = 1: bits must be from 2 to 16"),
        ((17,), "bits = 17: bits must be from 2 to 16"),
        ((2.5,), "bits = 2.5: bits must be a whole number"),
        ((8, "*.wieght"), "'\\*.wieght', which is no parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            quantise(layers, *arguments)
    with pytest.raises(ValueError, match=r"axis = 3: 0.weight has shape \[3, 4, 5\], and no such axis"):
        quantise(layers, axis=3)
