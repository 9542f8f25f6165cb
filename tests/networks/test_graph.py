"""Layers and networks against a plain Python loop of steps, and what they refuse."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Recurrent,
    Sequential,
    init_dense,
    init_neurons,
    init_recurrent,
)
from jaxlif.networks.layers import NetworkOutput, signal
from jaxlif.neurons.cell import SpikingOutput
from jaxlif.neurons.leaky import LeakyOutput

T, IN, N, OUT = 10, 5, 7, 3
NETWORK = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
CLOSE = {"rtol": 1e-12, "atol": 1e-13}  # the same sums in another order


def make_params():
    keys = jax.random.split(jax.random.key(3), 4)
    hidden = init_recurrent(keys[1], N, gain=15.0, tau_m=jnp.linspace(5.0, 20.0, N), t_ref=2.0)
    first = replace(init_dense(keys[0], IN, N, gain=20.0), bias=jax.random.normal(keys[3], (N,)))
    return first, hidden, init_dense(keys[2], N, OUT, gain=3.0, bias=False), jl.LeakyParams(tau_m=10.0)


def make_inputs():
    return jax.random.uniform(jax.random.key(4), (T, IN))


def by_hand(params, inputs):
    """Step the whole network in Python, in plain indexing: no layer, no scan."""
    dense, hidden, projection, readout = params
    neuron, lif = hidden.neuron, NETWORK.layers[1].neuron
    state, spikes, v = lif.init_state(neuron, jnp.zeros(N, inputs.dtype)), jnp.zeros(N, inputs.dtype), readout.v_rest
    all_spikes, all_v = [], []
    for x in inputs:
        current = jnp.einsum("i,ij->j", x, dense.weight) + dense.bias + jnp.einsum("i,ij->j", spikes, hidden.weight)
        state, output = lif.step(neuron, state, current)
        spikes = output.spikes
        v_inf = readout.v_rest + readout.r_m * jnp.einsum("i,ij->j", spikes, projection.weight)
        v = v + (v_inf - v) * (1.0 - jnp.exp(-1.0 / readout.tau_m))
        all_spikes.append(spikes)
        all_v.append(v)
    return jnp.stack(all_spikes), jnp.stack(all_v)


def by_scan(params, inputs):
    _, output = jl.simulate(NETWORK, params, inputs)
    return output.layers[1].spikes, output.output.v


def with_gradient(run):
    def loss(params, inputs):
        spikes, v = run(params, inputs)
        return jnp.sum(v**2) + jnp.sum(jnp.mean(spikes, axis=0) ** 2), (spikes, v)

    return jax.jit(jax.grad(loss, has_aux=True))


def test_outputs_and_gradients_equal_those_of_a_python_loop():
    """In double precision; chunks, steps, batches and single precision are the contract's, for every cell."""
    params, inputs = make_params(), make_inputs()
    gradient, (spikes, v) = with_gradient(by_scan)(params, inputs)
    expected, (expected_spikes, expected_v) = with_gradient(by_hand)(params, inputs)
    assert 0.1 < spikes.mean() < 0.9
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(v, expected_v, **CLOSE)
    # Both are chain rules over the same numbers; only the order of the sums differs.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), gradient, expected)
    assert all(np.abs(g).max() > 1e-3 for g in (gradient[0].weight, gradient[1].weight, gradient[1].neuron.tau_m))


def loops(jaxpr):
    """Return the unrolling of every loop over time of a program, at any depth."""
    found = [eqn.params["unroll"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan" and eqn.params["length"] == T]
    return found + [n for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params) for n in loops(sub)]


def test_unrolling_reaches_every_loop_and_changes_nothing():
    """Those of a recurrent layer, of neurons, and of a way back; forwards and backwards."""
    network = Sequential((NETWORK, Feedback(jl.LIF(dt=1.0), Dense())))
    params = (make_params(), FeedbackParams(neuron=init_neurons(OUT), path=init_dense(jax.random.key(1), OUT, OUT)))

    def loss(params, unroll):
        return jnp.sum(jl.simulate(network, params, make_inputs(), unroll=unroll)[1].output.v ** 2)

    program = jax.make_jaxpr(jax.grad(lambda p: loss(p, 4)))(params)
    assert len(loops(program.jaxpr)) >= 6 and set(loops(program.jaxpr)) == {4}
    plain, unrolled = (loss(params, unroll) for unroll in (1, 4))
    np.testing.assert_allclose(plain, unrolled, rtol=1e-12)  # the same sums


def test_permuting_hidden_neurons_permutes_their_spikes():
    params, inputs = make_params(), make_inputs()
    order = jax.random.permutation(jax.random.key(5), N)
    dense, hidden, projection, readout = params
    permuted = (
        DenseParams(weight=dense.weight[:, order], bias=dense.bias[order]),
        replace(
            hidden,
            weight=hidden.weight[order][:, order],
            neuron=replace(hidden.neuron, tau_m=hidden.neuron.tau_m[order]),
        ),
        DenseParams(weight=projection.weight[order]),
        readout,
    )
    spikes, v = by_scan(params, inputs)
    permuted_spikes, permuted_v = by_scan(permuted, inputs)
    np.testing.assert_array_equal(permuted_spikes, spikes[:, order])
    np.testing.assert_allclose(permuted_v, v, **CLOSE)


def test_recurrent_spikes_arrive_one_step_later():
    params = init_recurrent(jax.random.key(0), 2, gain=0.0)
    params = replace(params, weight=jnp.array([[0.0, 50.0], [0.0, 0.0]]))  # from neuron 0 to neuron 1
    inputs = jnp.zeros((4, 2)).at[1, 0].set(50.0)
    _, output = jl.simulate(Recurrent(jl.LIF(dt=1.0)), params, inputs)
    np.testing.assert_array_equal(output.spikes, [[0, 0], [1, 0], [0, 1], [0, 0]])


def test_new_values_do_not_retrace():
    traces = []

    @dataclass(frozen=True)
    class Counting(Dense):
        def step(self, params, state, x):
            traces.append(1)
            return super().step(params, state, x)

    def make():  # equal by value, made anew
        return Sequential((Counting(), Recurrent(jl.LIF(dt=1.0))))

    for scale in (1.0, 2.0, 3.0):
        params = jax.tree.map(lambda x, s=scale: s * x, make_params()[:2])
        jl.simulate(make(), params, scale * make_inputs())
        if scale == 1.0:
            first = len(traces)
    assert len(traces) == first > 0


def test_a_network_is_a_layer():
    params, inputs = make_params(), make_inputs()
    nested = Sequential((Sequential(NETWORK.layers[:2]), Sequential(NETWORK.layers[2:])))
    assert nested.dt == 1.0
    _, output = jl.simulate(nested, (params[:2], params[2:]), inputs)
    np.testing.assert_array_equal(signal(output), by_scan(params, inputs)[1])


def test_signal_is_spikes_then_voltage_then_the_array():
    spikes, v = jnp.ones(2), jnp.zeros(2)
    output = SpikingOutput(spikes=spikes, v=v)
    assert signal(output) is spikes
    assert signal(LeakyOutput(v=v)) is v
    assert signal(v) is v
    assert signal(NetworkOutput((v, output))) is spikes


@pytest.mark.parametrize("kind", [bool, "uint8", "float32"])
def test_dense_takes_spikes_of_any_dtype(kind):
    spikes = jnp.array([1, 0, 1, 1, 0]).astype(kind)
    params = init_dense(jax.random.key(0), IN, N)
    _, y = Dense().step(params, (), spikes)
    np.testing.assert_allclose(y, np.array([1.0, 0.0, 1.0, 1.0, 0.0]) @ params.weight, rtol=1e-14)
    _, scanned = Dense().scan(params, (), spikes[None])
    assert scanned.dtype == "float64"


def test_initial_scales():
    dense = init_dense(jax.random.key(0), 400, 300, gain=3.0)
    # Twelve-hundredths of a percent is the standard error of a deviation over 120 000 draws; five of them.
    np.testing.assert_allclose(dense.weight.std(), 3.0 / 20.0, rtol=0.011)
    np.testing.assert_array_equal(dense.bias, np.zeros(300))
    assert init_dense(jax.random.key(0), 2, 2, bias=False).bias is None
    recurrent = init_recurrent(jax.random.key(1), 300, gain=1.5, tau_m=15.0)
    np.testing.assert_allclose(recurrent.weight.std(), 1.5 / 300**0.5, rtol=0.012)
    neuron = recurrent.neuron
    assert (neuron.v_rest, neuron.v_th, neuron.v_reset, neuron.r_m) == (0.0, 1.0, 0.0, 1.0)
    np.testing.assert_array_equal(neuron.tau_m, np.full(300, 15.0))


def test_networks_keep_the_default_precision(dtype):
    leaves = [x for x in jax.tree.leaves(make_params()) if hasattr(x, "dtype")]
    assert {str(x.dtype) for x in leaves} == {dtype}


def test_layers_that_disagree_in_dt_are_refused():
    message = r"^dt must be the same in all layers: layer 1 \(Recurrent\) has 1 ms, layer 2 \(LIF\) has 0.1 ms$"
    with pytest.raises(ValueError, match=message):
        Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), jl.LIF(dt=0.1)))
    with pytest.raises(ValueError, match=r"layer 0 \(Sequential\) has 1 ms, layer 1 \(LIF\) has 0.5 ms"):
        Sequential((NETWORK, jl.LIF(dt=0.5)))
    with pytest.raises(ValueError, match="a network needs at least one layer"):
        Sequential(())


def test_sizes_that_disagree_are_refused():
    dense, hidden, projection, readout = make_params()
    with pytest.raises(ValueError, match=r"^layer 0 \(Dense\): weight \[5, 7\] takes an input \[5\], not \[6\]"):
        jl.simulate(NETWORK, make_params(), jnp.zeros((T, 6)))
    wrong = replace(dense, weight=jnp.zeros((IN, N + 1)), bias=None)
    with pytest.raises(ValueError, match=r"^layer 1 \(Recurrent\): weight \[7, 7\] takes an input \[7\], not \[8\]"):
        jl.simulate(NETWORK, (wrong, hidden, projection, readout), make_inputs())
    neurons = init_neurons(N + 1)
    with pytest.raises(ValueError, match=r"^layer 1 \(LIF\): .*\(8,\).*\(7,\)"):
        jl.simulate(Sequential((Dense(), jl.LIF(dt=1.0))), (dense, neurons), make_inputs())
    state = NETWORK.init_state(make_params(), make_inputs()[0])
    with pytest.raises(ValueError, match=r"^layer 0 \(Dense\)"):
        jl.simulate(NETWORK, make_params(), jnp.zeros((T, 6)), state)
    with pytest.raises(ValueError, match="params are for 2 layers: this network has 4"):
        jl.simulate(NETWORK, (dense, hidden), make_inputs())


@pytest.mark.parametrize(
    "make",
    [
        lambda: init_dense(jax.random.key(0), 0, 3),
        lambda: init_dense(jax.random.key(0), 3, 0),
        lambda: init_neurons(0),
        lambda: init_recurrent(jax.random.key(0), 0),
    ],
)
def test_sizes_below_one_are_refused(make):
    with pytest.raises(ValueError, match=r"num_\w+ = 0: num_\w+ must be a whole number, 1 or more"):
        make()
