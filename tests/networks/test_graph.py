"""A graph of layers: equal to the cells that it generalises, and refusals."""

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
    Graph,
    Sequential,
    init_dense,
    init_neurons,
    signal,
)

N, T = 5, 60
LIF = jl.LIF(dt=1.0)
INPUTS = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (T, N)))
WAY = DenseParams(weight=jax.random.normal(jax.random.key(1), (N, N)), bias=jnp.full(N, 0.2))
NEURON = init_neurons(N)


def outputs(cell, params):
    return jl.simulate(cell, params, INPUTS)[1]


def test_neurons_that_drive_themselves_are_feedback():
    """From the first step on: silence passes the way's bias on."""
    loop = Graph((LIF, Dense()), ((-1, 0), (0, 1)), ((1, 0),))
    found = outputs(loop, (NEURON, WAY)).layers[0]
    wanted = outputs(Feedback(LIF, Dense()), FeedbackParams(neuron=NEURON, path=WAY))
    assert 0.05 < wanted.spikes.mean() < 0.9
    np.testing.assert_array_equal(found.spikes, wanted.spikes)
    np.testing.assert_array_equal(found.v, wanted.v)


def test_a_chain_is_sequential_and_a_branch_adds():
    first = init_dense(jax.random.key(2), N, N, gain=3.0)
    chain = outputs(Sequential((Dense(), LIF)), (first, NEURON)).layers
    graph = Graph((Dense(), LIF, Dense()), ((-1, 0), (0, 1), (0, 2), (1, 2)))
    found = outputs(graph, (first, NEURON, WAY)).layers
    np.testing.assert_array_equal(found[1].spikes, chain[1].spikes)
    merged = np.asarray(chain[0] + chain[1].spikes) @ np.asarray(WAY.weight) + np.asarray(WAY.bias)
    np.testing.assert_allclose(signal(found[2]), merged, rtol=0, atol=1e-12)  # a matmul may sum in another order


REFUSED = {
    "backwards": (((-1, 0), (1, 0)), (), r"^edge \(1, 0\): it must lead from a layer, or -1, to a later one up to 1"),
    "nowhere": (((-1, 0), (0, 2)), (), r"^edge \(0, 2\): it must lead"),
    "feedback of the input": (((-1, 0), (0, 1)), ((-1, 0),), r"^feedback \(-1, 0\): it must lead from one layer"),
    "no pair": (((-1, 0, 1),), (), r"^edge \(-1, 0, 1\): it must be a pair of indices"),
    "no index": (((-1.0, 0.0),), (), r"^edge \(-1.0, 0.0\): it must be a pair"),
    "unreached": (((-1, 0),), ((0, 1),), r"^layer 1 \(LIF\): no edge leads to it"),
}


@pytest.mark.parametrize(("edges", "feedback", "message"), REFUSED.values(), ids=REFUSED)
def test_edges_that_lead_nowhere_are_refused(edges, feedback, message):
    with pytest.raises(ValueError, match=message):
        Graph((LIF, LIF), edges, feedback)


def test_signals_that_would_broadcast_are_refused():
    graph = Graph((Dense(), LIF), ((-1, 0), (0, 1), (-1, 1)))
    with pytest.raises(
        ValueError, match=r"layer 1 \(LIF\): signals of shapes \[1\], \[5\] meet: they must be the same"
    ):
        outputs(graph, (init_dense(jax.random.key(0), N, 1), NEURON))
    with pytest.raises(ValueError, match="params are for 1 layers: this network has 2"):
        outputs(graph, (NEURON,))
