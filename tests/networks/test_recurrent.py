"""The recurrent layer: its derivative against that of plain steps; products in bfloat16; outputs that nobody uses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jaxlif as jl
from jaxlif.networks import Dense, Recurrent, RecurrentParams, Sequential, init_dense, init_neurons, init_recurrent
from jaxlif.networks.graph import worth_recomputing

IN, N, OUT, T = 32, 64, 4, 40


def network(matmul=None):
    hidden = Recurrent(jl.LIF(dt=1.0), matmul=matmul)
    return Sequential((Dense(matmul=matmul), hidden, Dense(matmul=matmul), jl.LeakyIntegrator(dt=1.0)))


@pytest.fixture
def problem():
    """Parameters and input spikes in single precision."""
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), 4)
        hidden = init_dense(keys[0], IN, N, gain=10.0), init_recurrent(keys[1], N, gain=3.0)
        params = (*hidden, init_dense(keys[2], N, OUT, gain=3.0), jl.LeakyParams())
        yield params, jax.random.bernoulli(keys[3], 0.2, (T, IN)).astype(jnp.float32)


def rounded(params):
    """Round the weights to bfloat16, in single precision."""

    def few(layer):
        return replace(layer, weight=layer.weight.astype(jnp.bfloat16).astype(jnp.float32))

    return (*(few(layer) for layer in params[:3]), params[3])


def value_and_gradient(matmul, params, spikes):
    def loss(params):
        return jnp.mean(jl.simulate(network(matmul), params, spikes)[1].output.v ** 2)

    return jax.jit(jax.value_and_grad(loss))(params)


def test_states_outputs_and_gradients_stay_in_single_precision(problem):
    params, spikes = problem
    state, output = jl.simulate(network("bfloat16"), params, spikes)
    _, gradient = value_and_gradient("bfloat16", params, spikes)
    floating = [x for x in jax.tree.leaves((state, output, gradient)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(floating) > 10 and {x.dtype for x in floating} == {jnp.dtype("float32")}


def test_bfloat16_is_rounding_the_weights(problem):
    params, spikes = problem
    _, few = jl.simulate(network("bfloat16"), params, spikes)
    _, exact = jl.simulate(network(), rounded(params), spikes)
    # Spikes are 0 or 1: with rounded weights every product is exact, and only the order of the sums may differ.
    np.testing.assert_array_equal(few.layers[1].spikes, exact.layers[1].spikes)
    np.testing.assert_allclose(few.output.v, exact.output.v, rtol=1e-5, atol=1e-6)
    assert 0.01 < few.layers[1].spikes.mean() < 0.5


def test_gradients_are_within_rounding(problem):
    params, spikes = problem
    value, few = value_and_gradient("bfloat16", params, spikes)
    expected_value, expected = value_and_gradient(None, rounded(params), spikes)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    for found, exact in zip(jax.tree.leaves(few), jax.tree.leaves(expected), strict=True):
        # A factor keeps 8 bits; the products of T steps multiply a handful of them.
        assert np.linalg.norm(found - exact) <= 0.02 * np.linalg.norm(exact)


def test_steps_equal_the_scan(problem):
    params, spikes = problem
    cell, current = Recurrent(jl.LIF(dt=1.0), matmul="bfloat16"), 10.0 * jnp.asarray(spikes @ params[0].weight)
    state = cell.init_state(params[1], current[0])
    _, whole = cell.scan(params[1], state, current)
    _, stepped = jax.lax.scan(lambda s, x: cell.step(params[1], s, x), state, current)
    np.testing.assert_array_equal(whole.spikes, stepped.spikes)


def test_outputs_that_nobody_uses_are_dropped(problem):
    params, spikes = problem
    seen = jax.jit(lambda p, x: jl.simulate(network(), p, x)[1].output.v[-1])
    memory = seen.lower(params, spikes).compile().memory_analysis()
    # What the layers hand on takes an array each, currents and spikes; a third would be the hidden voltages.
    assert memory.temp_size_in_bytes < 2.6 * 4 * T * N


def test_another_dtype_is_refused():
    for layer in (Dense, lambda matmul: Recurrent(jl.LIF(), matmul=matmul)):
        with pytest.raises(ValueError, match="^matmul = 'int8': matmul must be None or one of bfloat16"):
            layer(matmul="int8")


# ----------------------------------------------------------------------------------------------------------- derivative

STEPS, FEW = 20, 4
ADAPTIVE = jl.AdaptiveLIFParams(
    tau_m=10.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=1.0, eta=(0.5,), tau_eta=(20.0,)
)
NEURONS = {
    "LIF": (jl.LIF(dt=1.0), init_neurons(FEW, tau_m=jnp.linspace(5.0, 20.0, FEW), t_ref=2.0)),
    "LIF, reset in the gradient": (jl.LIF(dt=1.0, reset="subtract", detach_reset=False), init_neurons(FEW)),
    "AdaptiveLIF": (jl.AdaptiveLIF(dt=1.0), ADAPTIVE),
    "PreciseLIF": (jl.PreciseLIF(dt=1.0, surrogate=jl.SuperSpike()), init_neurons(FEW, t_ref=1.0)),
}


def few(name):
    keys = jax.random.split(jax.random.key(5), 3)
    neuron, params = NEURONS[name]
    params = jax.tree.map(lambda p: jnp.asarray(p, float), params)
    params = RecurrentParams(neuron=params, weight=8.0 * jax.random.normal(keys[0], (FEW, FEW)))
    return (
        Recurrent(neuron),
        params,
        15.0 * jax.random.uniform(keys[1], (STEPS, FEW)),
        jax.random.normal(keys[2], (2, STEPS, FEW)),
    )


def loss(run, cell, params, inputs, cotangent):
    state, output = run(cell, params, cell.init_state(params, inputs[0]), inputs)
    # The final state counts too: an input that it does not read would have gone unseen.
    return jnp.sum(cotangent * jnp.stack([output.spikes, output.v])) + jnp.sum(state.spikes * state.neuron.v)


def by_steps(cell, params, state, inputs):
    return jax.lax.scan(lambda s, x: cell.step(params, s, x), state, inputs)


@pytest.mark.parametrize("name", NEURONS)
def test_both_modes_equal_the_plain_scan_of_steps(name):
    cell, params, inputs, cotangent = few(name)
    own = jax.jit(lambda p, x: loss(Recurrent.scan, cell, p, x, cotangent))
    plain = jax.jit(lambda p, x: loss(by_steps, cell, p, x, cotangent))
    gradient = jax.grad(own, (0, 1))(params, inputs)
    assert int(jnp.count_nonzero(gradient[0].weight)) >= FEW  # there is something to compare
    # Sums in another order, in double precision.
    close = {"rtol": 1e-9, "atol": 1e-12}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **close), gradient, jax.grad(plain, (0, 1))(params, inputs)
    )
    direction = jax.tree.map(lambda p: 0.3 * p + 0.1, (params, inputs))
    _, along = jax.jvp(own, (params, inputs), direction)
    sums = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
    np.testing.assert_allclose(along, sum(jax.tree.leaves(sums)), rtol=1e-9)


def scans(jaxpr):
    """Return all scans of a program, at any depth."""
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    return found + [scan for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params) for scan in scans(sub)]


def carried_shapes(run):
    cell, params, inputs, cotangent = few("LIF")
    program = jax.make_jaxpr(jax.grad(lambda p: loss(run, cell, p, inputs, cotangent)))(params)
    carried = lambda p: p["jaxpr"].in_avals[p["num_consts"] : p["num_consts"] + p["num_carry"]]  # noqa: E731
    return {aval.shape for scan in scans(program.jaxpr) for aval in carried(scan.params)}


def test_no_loop_carries_the_gradient_of_the_weight():
    assert (FEW, FEW) in carried_shapes(by_steps)
    assert (FEW, FEW) not in carried_shapes(Recurrent.scan)


def test_only_steps_of_several_states_are_computed_again():
    assert [worth_recomputing(cell.init_state(p, jnp.ones(FEW))) for cell, p in NEURONS.values()] == [
        False,
        False,
        True,
        True,
    ]
