"""What a network is and costs, against NeuroBench's own counts and against loops over every synapse."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop import from_snntorch
from jaxlif.networks import (
    Arriving,
    Conv,
    Delayed,
    DelayParams,
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Flatten,
    Graph,
    Recurrent,
    RecurrentParams,
    Sequential,
    Sparse,
    SparseParams,
    flight_record,
    init_neurons,
    summary,
)
from jaxlif.networks.layers import Stateless

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
LIF, B, T, IN, N = jl.LIF(dt=1.0), 2, 6, 4, 5


def weight(*shape):
    """Return weights of which some are 0."""
    return jnp.asarray(RNG.integers(-20, 60, shape) * (RNG.random(shape) < 0.6), float)


DENSE, MORE, LOOP = DenseParams(weight=weight(IN, N)), DenseParams(weight=weight(N, N)), weight(N, N)
SPARSE = SparseParams(weight=weight(N, 3), target=jnp.asarray([RNG.permutation(4)[:3] for _ in range(N)]))
X = np.where(np.arange(T)[:, None] % 2, RNG.integers(0, 2, (B, T, IN)), RNG.normal(size=(B, T, IN)))


def loops(pairs):
    """Count a sample's dense operations, MACs and ACs over pairs of a weight [in, out] and inputs [B, T, in]."""
    dense = macs = acs = 0
    for w, x in pairs:
        for t in range(x.shape[1]):
            analog = any(value not in (-1, 0, 1) for value in x[:, t].ravel())
            for sample in x[:, t]:
                dense += w.size
                effective = sum(1 for i, value in enumerate(sample) for j in range(w.shape[1]) if value and w[i, j])
                macs, acs = macs + analog * effective, acs + (not analog) * effective
    return dense / len(x), macs / len(x), acs / len(x)


def late(x):
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def run(network, params):
    return jax.vmap(partial(jl.simulate, network, params))(jnp.asarray(X))[1].layers


def check(network, params, pairs):
    found = summary(network, params, X)
    assert (found.dense, found.macs, found.acs) == loops([(np.asarray(w), np.asarray(x)) for w, x in pairs])
    assert found.acs > 10 and found.macs > 10
    weights = np.concatenate([np.ravel(w) for w, _ in pairs])
    np.testing.assert_allclose(found.connection_sparsity, np.mean(weights == 0.0), rtol=1e-12)
    return found


def test_counts_are_neurobenchs():
    """The same arrays as experiments/peer_counts.py had; equal spikes, so equal counts."""
    with jax.enable_x64(False):
        peer = json.loads((ROOT / "tests" / "data" / "peer_neurobench.json").read_text())
        given = load_arrays()
        (leaky, beta), (loop, _) = from_snntorch(beta=0.5), from_snntorch("RLeaky", beta=0.5)
        layers = Conv(stride=2, padding=1), leaky, Flatten(), Dense(), Recurrent(loop), Dense(), leaky
        w = {name: DenseParams(weight=jnp.asarray(x)) for name, x in given.items()}
        recurrent = RecurrentParams(neuron=beta, weight=w["recurrent"].weight)
        found = summary(
            Sequential(layers), (w["conv"], beta, None, w["first"], recurrent, w["last"], beta), given["inputs"]
        )
    counts = peer["SynapticOperations"]
    ours = {"Dense": found.dense, "Effective_MACs": found.macs, "Effective_ACs": found.acs}
    assert ours == pytest.approx(counts, rel=1e-12)
    assert found.activation_sparsity == pytest.approx(peer["ActivationSparsity"], rel=1e-12)
    assert round(found.connection_sparsity, 4) == peer["ConnectionSparsity"]
    # 3.7 pJ of a multiplication and 0.9 pJ of an addition.
    assert found.energy == pytest.approx(1e-3 * (4.6 * counts["Effective_MACs"] + 0.9 * counts["Effective_ACs"]))


def load_arrays():
    """Return the weights and inputs of the experiment, which is no module of a package."""
    scope = {"__file__": str(ROOT / "experiments" / "peer_counts.py"), "__name__": "peer_counts"}
    exec(Path(scope["__file__"]).read_text(), scope)
    return scope["arrays"]()


def test_a_recurrent_and_sparse_network_by_loops():
    """The third target is none; no pair has two synapses here, which would be two operations."""
    network = Sequential((Dense(), Recurrent(LIF), Sparse(3), jl.LeakyIntegrator(dt=1.0)))
    params = (DENSE, RecurrentParams(neuron=init_neurons(N), weight=LOOP), SPARSE, jl.LeakyParams())
    full = np.zeros((N, 4))
    np.put_along_axis(full, np.asarray(SPARSE.target), np.asarray(SPARSE.weight), axis=1)
    spikes = np.asarray(run(network, params)[1].spikes)
    found = check(network, params, [(DENSE.weight, X), (LOOP, late(spikes)), (full[:, :3], spikes)])
    np.testing.assert_allclose(found.activation_sparsity, np.mean(spikes == 0.0), rtol=1e-12)
    record = flight_record(network, params, jnp.asarray(X))
    np.testing.assert_allclose(found.layers[1].spikes, record.mean_rate[0] / 1000.0, rtol=1e-6)
    # Numbers of 8 bytes: in the neurons N time constants and 5 for all, a voltage, spikes, and 4 bytes of steps left.
    dense, neurons, loop, sparse, readout = found.layers
    assert [layer.shape for layer in found.layers] == [(N,), (N,), (N,), (3,), (3,)]
    assert (dense.parameters, loop.parameters, neurons.parameters, readout.parameters) == (IN * N, N * N, N + 5, 3)
    assert (neurons.state_bytes, readout.state_bytes, dense.state_bytes) == (N * 20, 3 * 8, 0)
    assert sparse.parameter_bytes == SPARSE.weight.nbytes + SPARSE.target.nbytes
    stored = 8 * (IN * N + N + 5 + N * N + 3) + sparse.parameter_bytes
    assert found.footprint == stored + N * 20 + 24
    free = summary(network, params, X, {"*.weight": jl.REAL})
    assert free.free_bytes == 8 * (IN * N + N * N + 3 * N)
    table = str(free).splitlines()
    assert len(table) == 8 and table[3].split()[:4] == ["1.path", "(Dense)", str(N), str(N * N)]
    assert f"{stored} B, {free.free_bytes} free and {stored - free.free_bytes} fixed" in table[6]


def test_a_graph_and_a_delayed_feedback_by_loops():
    """A path through a delay of half a step: the spikes that arrive are halves, so that they multiply. Synapses with a
    course are no weights.
    """
    path = Sequential((Delayed(dt=1.0, max_delay=2.0), Dense()))
    neuron = jl.SynapticParams(neuron=init_neurons(N), synapse=jl.CurrentParams(tau_syn=jnp.array([5.0])))
    loop = FeedbackParams(neuron=neuron, path=(DelayParams(delay=0.5), DenseParams(weight=LOOP)))
    cell = Feedback(Arriving(jl.Synaptic(LIF, jl.ExponentialCurrent())), path)
    graph = Graph((Dense(), cell, Dense()), ((-1, 0), (0, 1), (1, 2)), feedback=((2, 1),))
    params = (DENSE, loop, MORE)
    spikes = np.asarray(run(graph, params)[1].spikes)
    halves = 0.5 * (late(spikes) + late(late(spikes)))
    check(graph, params, [(DENSE.weight, X), (LOOP, halves), (MORE.weight, spikes)])


@pytest.mark.parametrize("inputs", [np.ones(4), np.ones((0, 3)), [[1.0]]])
def test_no_batch_is_refused(inputs):
    with pytest.raises(ValueError, match=r"^inputs = .*: a batch \[B, T, ...\] is needed$"):
        summary(LIF, init_neurons(1), inputs)


@dataclass(frozen=True)
class Unknown(Stateless):
    """A layer that summary cannot know."""

    def apply(self, params, x):
        return x


def test_a_layer_that_is_not_known_is_refused_by_name():
    message = r"^layer 0 \(Unknown\): summary does not know which synaptic operations such a layer has$"
    with pytest.raises(ValueError, match=message):
        summary(Sequential((Unknown(),)), (None,), X)
