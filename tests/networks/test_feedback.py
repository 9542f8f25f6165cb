"""Neurons in loops and on graphs against the recurrent layer, and layers of synapses against a loop in NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Arriving,
    Delayed,
    DelayParams,
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Graph,
    Pairwise,
    Recurrent,
    RecurrentParams,
    Sequential,
    Sparse,
    SparseParams,
    connect,
    init_dense,
    init_neurons,
)
from jaxlif.networks.layers import signal
from tests.networks.test_sparse import dense_of

N, T = 25, 60
RNG = np.random.default_rng(3)
LIF = jl.LIF(dt=1.0)
DRAWN = connect(jax.random.key(6), Pairwise(0.24, autapses=True), N, N)
TARGET = np.asarray(DRAWN.target)
SQUARE = replace(DRAWN, weight=jnp.asarray(RNG.normal(0.0, 2.0, TARGET.shape)))
NEURON = replace(init_neurons(N), tau_m=np.linspace(5.0, 20.0, N))
DRIVE = RNG.normal(1.0, 2.0, (T, N))
WAY = DenseParams(weight=jax.random.normal(jax.random.key(1), (N, N)), bias=jnp.full(N, 0.2))


def outputs(cell, params):
    return jl.simulate(cell, params, DRIVE)[1]


def test_feedback_through_sparse_equals_a_recurrent_layer():
    def sparse(w, x):
        params = FeedbackParams(neuron=NEURON, path=replace(SQUARE, weight=w))
        return jl.simulate(Feedback(LIF, Sparse(N)), params, x)[1]

    def dense(w, x):
        return jl.simulate(Recurrent(LIF), RecurrentParams(neuron=NEURON, weight=w), x)[1]

    def measured(run):
        def loss(w, x):
            output = run(w, x)
            return jnp.mean(jnp.cos(jnp.arange(60.0))[:, None] * output.spikes), output

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    whole = jnp.asarray(dense_of(SQUARE, N))
    (_, ours), (gw, gx) = measured(sparse)(SQUARE.weight, DRIVE)
    (_, theirs), (dw, dx) = measured(dense)(whole, DRIVE)
    assert 0.05 < ours.spikes.mean() < 0.5 and np.abs(gx).max() > 1e-5
    np.testing.assert_array_equal(ours.spikes, theirs.spikes)
    np.testing.assert_allclose(ours.v, theirs.v, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gx, dx, rtol=1e-9, atol=1e-14)  # a surrogate gradient through 60 steps grows
    found = dense_of(replace(SQUARE, weight=gw), N)
    np.testing.assert_allclose(found, np.where(whole, dw, 0.0), rtol=1e-9, atol=1e-14)


def test_the_weights_of_a_sparse_network_are_fitted():
    cell, params = Sequential((Feedback(LIF, Sparse(N)),)), (FeedbackParams(neuron=NEURON, path=SQUARE),)

    def loss(p, x):
        return (jnp.mean(jl.simulate(cell, p, x)[1].output.spikes) - 0.3) ** 2

    fit = jl.fit(loss, params, {"*.weight": jl.REAL}, optimizer=optax.adam(0.1), num_steps=20, data=DRIVE)
    assert fit.loss < 0.5 * fit.losses[0]
    np.testing.assert_array_equal(fit.params[0].path.target, SQUARE.target)


# ------------------------------------------------------------------------------------------------------------- synapses


def synaptic_by_hand(weight, tau_syn, arrivals):
    """Exact integration of LIF neurons with K = 2 exponential currents, spikes fed back one step later."""
    n = weight.shape[0]
    v, current, refractory, spikes = np.zeros(n), np.zeros((2, n)), np.zeros(n, int), np.zeros(n)
    tau_m, dt, train = 10.0, 1.0, []
    propagator = (np.exp(-dt / tau_syn) - np.exp(-dt / tau_m)) / (tau_m / tau_syn - 1.0) * -1.0  # 1/(tau_m) convolution
    for x in arrivals:
        rise = (propagator[:, None] * current).sum(axis=0)
        v = np.where(refractory > 0, v, v * np.exp(-dt / tau_m) + rise)
        current = current * np.exp(-dt / tau_syn)[:, None] + (x + spikes @ weight).reshape(2, n)
        spikes = ((v >= 1.0) & (refractory == 0)).astype(float)
        refractory = np.where(spikes > 0, 2, np.maximum(refractory - 1, 0))
        v = np.where(spikes > 0, 0.0, v)
        train.append(spikes)
    return np.stack(train)


def test_synapses_of_two_kinds_in_a_sparse_network():
    """A network of exponential synapses, excitatory and inhibitory, against a loop in NumPy."""
    tau_syn = np.array([5.0, 8.0])
    # Neurons 0 to 19 excite (targets 0 to N - 1), the others inhibit (N to 2 N - 1, the second kind).
    target = np.where(TARGET == N, 2 * N, TARGET + np.where(np.arange(N) < 20, 0, N)[:, None])
    weight = np.where(TARGET == N, 0.0, np.where(np.arange(N) < 20, 0.6, -2.0)[:, None])
    path = SparseParams(weight=jnp.asarray(weight), target=jnp.asarray(target))
    neuron = jl.SynapticParams(
        neuron=replace(init_neurons(N, tau_m=10.0), t_ref=2.0), synapse=jl.CurrentParams(tau_syn=tau_syn)
    )
    cell = Feedback(Arriving(jl.Synaptic(LIF, jl.ExponentialCurrent()), kinds=2), Sparse(2 * N))
    inputs = np.concatenate([RNG.exponential(0.6, (80, N)), np.zeros((80, N))], axis=1)
    ours = jl.simulate(cell, FeedbackParams(neuron=neuron, path=path), inputs)[1].spikes
    assert 0.02 < ours.mean() < 0.3
    np.testing.assert_array_equal(ours, synaptic_by_hand(dense_of(path, 2 * N), tau_syn, inputs))


@pytest.mark.parametrize("kind", ["current", "jump"])
def test_synapses_are_a_layer_of_a_network(kind):
    """Sequential(Dense, Arriving(Synaptic)) is the neuron under the projected arrivals, voltage jumps too."""
    weight = jnp.asarray(RNG.normal(0.5, 1.0, (4, N)))
    x = (RNG.random((40, 4)) < 0.3).astype(float)
    plain = jl.LIFParams(tau_m=10.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)
    synapse, own, arrivals = {
        "current": (jl.ExponentialCurrent(), jl.CurrentParams(tau_syn=4.0), (x @ weight)[:, None]),
        "jump": (jl.VoltageJump(), None, x @ weight),
    }[kind]
    neuron, params = jl.Synaptic(LIF, synapse), jl.SynapticParams(neuron=plain, synapse=own)
    ours = jl.simulate(Sequential((Dense(), Arriving(neuron))), (DenseParams(weight=weight), params), x)[1].output
    theirs = jl.simulate(neuron, params, jl.Drive(arrivals, jnp.zeros((40, N))))[1]
    assert ours.spikes.mean() > 0.01
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# --------------------------------------------------------------------------------------------------------------- graphs


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


# ------------------------------------------------------------------------------------------------------------- refusals

SYNAPTIC = jl.Synaptic(LIF, jl.ExponentialCurrent())
EDGES = {
    "backwards": (((-1, 0), (1, 0)), (), r"^edge \(1, 0\): it must lead from a layer, or -1, to a later one up to 1"),
    "nowhere": (((-1, 0), (0, 2)), (), r"^edge \(0, 2\): it must lead"),
    "feedback of the input": (((-1, 0), (0, 1)), ((-1, 0),), r"^feedback \(-1, 0\): it must lead from one layer"),
    "no pair": (((-1, 0, 1),), (), r"^edge \(-1, 0, 1\): it must be a pair of indices"),
    "no index": (((-1.0, 0.0),), (), r"^edge \(-1.0, 0.0\): it must be a pair"),
    "unreached": (((-1, 0),), ((0, 1),), r"^layer 1 \(LIF\): no edge leads to it"),
}


@pytest.mark.parametrize(("edges", "feedback", "message"), EDGES.values(), ids=EDGES)
def test_edges_that_lead_nowhere_are_refused(edges, feedback, message):
    with pytest.raises(ValueError, match=message):
        Graph((LIF, LIF), edges, feedback)


def test_signals_that_would_broadcast_are_refused():
    graph = Graph((Dense(), LIF), ((-1, 0), (0, 1), (-1, 1)))
    message = r"layer 1 \(LIF\): signals of shapes \[1\], \[25\] meet: they must be the same"
    with pytest.raises(ValueError, match=message):
        outputs(graph, (init_dense(jax.random.key(0), N, 1), NEURON))
    with pytest.raises(ValueError, match="params are for 1 layers: this network has 2"):
        outputs(graph, (NEURON,))


@pytest.mark.parametrize("make", [Sequential, lambda cells: Graph(cells, ((-1, 0), (0, 1), (1, 2)))])
def test_a_negative_weight_is_no_conductance_behind_a_delay_either(make):
    """Behind neurons it may be negative: they pass on spikes."""
    cell = Arriving(jl.Synaptic(LIF, jl.Conductance()))
    params = jl.SynapticParams(synapse=jl.ConductanceParams(tau_syn=5.0, e_rev=0.0))
    weight, delay = DenseParams(weight=jnp.array([[2.0, -1.0]])), DelayParams(delay=1.0)
    message = r"^layer 2 \(Arriving\): weight\[0, 1\] = -1 nS: a weight that arrives as a conductance must be 0 nS"
    with pytest.raises(ValueError, match=message):
        make((Dense(), Delayed(1.0, 3.0), cell)).check((weight, delay, params))
    make((Dense(), LIF, cell)).check((weight, NEURON, params))


def test_kinds_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"input \[5\]: for 2 kinds of synapse it must be \[2 N\]"):
        jl.simulate(Arriving(SYNAPTIC, kinds=2), jl.SynapticParams(synapse=jl.CurrentParams()), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="kinds = 0: kinds must be a whole number, 1 or more"):
        Arriving(SYNAPTIC, kinds=0)
