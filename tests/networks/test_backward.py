"""The recurrent layer's derivative against that of its plain step, in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jaxlif as jl
from jaxlif.networks import Recurrent, RecurrentParams, init_neurons
from jaxlif.networks.graph import worth_recomputing

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


@pytest.mark.parametrize("name", list(NEURONS)[1:])  # the plain one is held to a loop with its network
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
