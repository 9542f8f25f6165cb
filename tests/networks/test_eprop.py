"""E-prop against reverse-mode autodiff of the same network whose fed-back spikes carry no gradient."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Recurrent,
    RecurrentParams,
    Sequential,
    eprop_loss,
    init_neurons,
)

T, IN, N, K = 60, 4, 5, 2
RNG = np.random.default_rng(3)
DRIVE, BIAS = RNG.normal(0.0, 8.0, (IN, N)), RNG.normal(0.5, 0.3, N)
BACK, OUT = RNG.normal(0.0, 4.0, (N, N)), RNG.normal(0.0, 1.0, (N, K))
INPUTS, TARGETS = (RNG.random((T, IN)) < 0.3).astype(float), RNG.normal(0.0, 1.0, (T, K))
UNIT = {"tau_m": 8.0, "t_ref": 1.0, "r_m": 1.0, "v_rest": 0.0, "v_th": 1.0, "v_reset": -0.1}
ADAPTATION = {"eta": (0.5,), "tau_eta": (20.0,), "gamma": (0.2,), "tau_gamma": (30.0,), "a": (0.3,), "tau_a": (15.0,)}
LIF = jl.LIF(dt=1.0, detach_reset=False, reset="subtract")
SOME = replace(init_neurons(N, tau_m=np.linspace(5.0, 20.0, N), t_ref=1.5), v_rest=0.1)
CASES = {  # the layer, its neurons, and tau_m of the readouts
    "lif, readouts of two kinds": (Recurrent(LIF), SOME, [5.0, 20.0]),
    "adaptive": (Recurrent(jl.AdaptiveLIF(dt=1.0)), jl.AdaptiveLIFParams(**ADAPTATION, **UNIT), 9.0),
    "resonant, feed-forward": (jl.ResonantLIF(dt=1.0), jl.ResonantLIFParams(tau_w=30.0, a=1.0, b=0.2, **UNIT), [9.0]),
}


@dataclass(frozen=True)
class Stopped(Dense):
    """A projection through which no gradient goes back to what it takes."""

    def apply(self, params, x):
        return super().apply(params, jax.lax.stop_gradient(x))


def square(v, target):
    return jnp.sum((v - target) ** 2)


def problem(name, dtype=float):
    """Return a network, its parameters, an input and its targets."""
    layer, neuron, taus = CASES[name]
    back = RecurrentParams(neuron=neuron, weight=BACK) if isinstance(layer, Recurrent) else neuron
    readout = DenseParams(weight=OUT, bias=None if name == "adaptive" else np.ones(K))
    leak = jl.LeakyParams(tau_m=np.asarray(taus), r_m=np.array([0.8, 1.3]))
    params = DenseParams(weight=DRIVE, bias=BIAS), back, readout, leak
    network = Sequential((Dense(), layer, Dense(), jl.LeakyIntegrator(dt=1.0)))
    return network, *jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, INPUTS, TARGETS))


by_eprop = partial(eprop_loss, square)


def by_autodiff(network, params, inputs, targets):
    return square(jl.simulate(network, params, inputs)[1].output.v, targets)


def value_and_gradient(loss):
    """Return the compiled function: not one program for each operation."""
    return jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_gradient_with_the_fed_back_spikes_stopped(name):
    network, params, inputs, targets = problem(name)
    other, same = network, params
    if isinstance(network.layers[1], Recurrent):
        other = Sequential((Dense(), Feedback(network.layers[1].neuron, Stopped()), *network.layers[2:]))
        loop = FeedbackParams(neuron=params[1].neuron, path=DenseParams(weight=params[1].weight))
        same = params[0], loop, *params[2:]
    value, found = value_and_gradient(by_eprop)(network, params, inputs, targets)
    expected, stopped = value_and_gradient(by_autodiff)(other, same, inputs, targets)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(stopped), strict=True):
        assert ours.shape == theirs.shape
        # The same sums in another order, in double precision.
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)
    assert np.count_nonzero(found[0].weight) == IN * N
    if "lif" in name:
        _, whole = value_and_gradient(by_autodiff)(network, params, inputs, targets)
        ours, theirs = found[1].weight, whole[1].weight
        assert np.linalg.norm(ours - theirs) > 0.05 * np.linalg.norm(theirs), "it drops something here"
        for ours, theirs in zip(jax.tree.leaves(found[2:]), jax.tree.leaves(whole[2:]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)  # nothing in the readout


def test_single_precision_gives_the_same():
    double, single = (
        np.concatenate(
            [np.ravel(x) for x in jax.tree.leaves(value_and_gradient(by_eprop)(*problem("adaptive", kind))[1])]
        )
        for kind in (float, "float32")
    )
    # Rounding of 60 steps, in terms of the largest: no spike moves here.
    assert single.dtype == np.float32 and np.max(np.abs(single - double)) < 1e-4 * np.max(np.abs(double))


def test_its_memory_does_not_grow_with_time():
    network, params, inputs, targets = problem("lif, readouts of two kinds")

    def temporary(loss, steps):
        shapes = [jax.ShapeDtypeStruct((steps, *x.shape[1:]), x.dtype) for x in (inputs, targets)]
        program = value_and_gradient(loss).lower(network, params, *shapes).compile()
        return program.memory_analysis().temp_size_in_bytes

    flat = temporary(by_eprop, 10_000)
    assert flat == temporary(by_eprop, T)
    assert temporary(by_autodiff, 10_000) > 50.0 * flat, "autodiff's grows, and is seen to"


def network(*layers):
    return lambda: eprop_loss(square, Sequential(layers), (), jnp.ones((4, IN)), jnp.ones((4, K)))


HIDDEN, READOUT = Recurrent(LIF), jl.LeakyIntegrator(dt=1.0)
REFUSED = {
    "two hidden layers": (network(Dense(), LIF, Dense(), HIDDEN, Dense(), READOUT), "Sequential of 6 layers"),
    "a spiking readout": (network(Dense(), HIDDEN, Dense(), LIF), r"layer 3 \(LIF\): e-prop takes"),
    "spikes off the grid": (network(Dense(), jl.PreciseLIF(dt=1.0), Dense(), READOUT), r"layer 1 \(PreciseLIF\)"),
    "a loop of others": (network(Dense(), Feedback(LIF, Dense()), Dense(), READOUT), r"layer 1 \(Feedback\)"),
    "neurons of others": (
        network(Dense(), Recurrent(jl.AdEx(dt=1.0)), Dense(), READOUT),
        r"layer 1 \(Recurrent of AdEx\): e-prop takes neurons LIF, AdaptiveLIF, ResonantLIF",
    ),
    "no network": (lambda: eprop_loss(square, LIF, SOME, jnp.ones((4, N)), jnp.ones(4)), "network = LIF"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_it_is_not_exact_for_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gradient_in_the_data_is_refused():
    network, params, inputs, targets = problem("adaptive")
    for which, name in ((3, "inputs"), (4, "targets")):
        with pytest.raises(ValueError, match=f"^{name}: a gradient in them was asked for"):
            jax.grad(eprop_loss, argnums=which)(square, network, params, inputs, targets)
    with pytest.raises(ValueError, match="^the loss of a step returned .*: it must be a real scalar"):
        eprop_loss(lambda v, y: v - y, network, params, inputs, targets)
