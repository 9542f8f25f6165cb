"""NIR: a network through a file is the same network, bit for bit; a graph runs as in plain NumPy; peers; refusals."""

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import jaxlif as jl
from jaxlif.interop.nir_graph import from_nir, to_nir
from jaxlif.interop.nir_nodes import IntegrateAndFire
from jaxlif.interop.nir_wires import returning
from jaxlif.networks import (
    Conv,
    Delayed,
    DelayParams,
    Dense,
    Feedback,
    FeedbackParams,
    Flatten,
    Graph,
    Recurrent,
    Sequential,
    SumPool,
    init_dense,
    init_neurons,
    init_recurrent,
)
from jaxlif.networks.layers import signal

nir = pytest.importorskip("nir")

T, DT = 60, 1.0
KEYS = jax.random.split(jax.random.key(0), 8)
LIF = jl.LIF(dt=DT)


def neurons(n):
    """Return heterogeneous neurons without refractoriness, their reset below rest."""
    tau_m = jnp.linspace(5.0, 20.0, n) + 0.1
    return replace(init_neurons(n), tau_m=tau_m, v_th=jnp.linspace(0.8, 1.2, n), v_reset=-0.1, r_m=1.1)


def recurrent(n, gain):
    return replace(init_recurrent(KEYS[1], n, gain=gain), neuron=neurons(n))


def delays(n, longest):
    return DelayParams(delay=jax.random.uniform(KEYS[3], (n,), minval=0.01, maxval=longest))


def plain():
    return jl.LIFParams(tau_m=12.3, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)


def pushed(params):
    """Give every channel a constant current above the rheobase, so that none stays silent."""
    return replace(params, bias=jnp.full_like(params.bias, 1.5))


def make_dense():
    layers = (Dense(), LIF, Dense(), LIF, Dense(), jl.LeakyIntegrator(dt=DT))
    first = replace(init_dense(KEYS[0], 5, 8, gain=8.0), bias=jax.random.normal(KEYS[2], (8,)))
    second = init_dense(KEYS[3], 8, 7, gain=15.0, bias=False)
    readout = jl.LeakyParams(tau_m=7.7, r_m=1.2, v_rest=0.3)
    return layers, (first, neurons(8), second, neurons(7), init_dense(KEYS[4], 7, 3), readout), (5,)


def make_recurrent():
    way = Sequential((Delayed(DT, 6.0), Dense()))
    layers = (Delayed(DT, 9.0), Dense(), Recurrent(LIF), Dense(), Feedback(LIF, way))
    late = FeedbackParams(neuron=neurons(6), path=(delays(6, 6.0), init_dense(KEYS[2], 6, 6, gain=5.0, bias=False)))
    hidden = (delays(5, 9.0), init_dense(KEYS[0], 5, 8, gain=8.0), recurrent(8, 5.0))
    return layers, (*hidden, init_dense(KEYS[4], 8, 6, gain=15.0), late), (5,)


def make_image():
    layers = (Conv(), LIF, SumPool(2), Conv(2, "VALID"), LIF, Conv(2, 1), LIF, Flatten(), Dense(), LIF)
    convs = [
        pushed(init_dense(KEYS[i], n, m, kernel=(3, 3), gain=4.0)) for i, (n, m) in enumerate(((2, 4), (4, 5), (5, 6)))
    ]
    weights = (
        convs[0],
        plain(),
        None,
        convs[1],
        plain(),
        replace(init_dense(KEYS[2], 5, 6, kernel=(3, 3), gain=30.0), bias=None),
        plain(),
        None,
    )
    return layers, (*weights, pushed(init_dense(KEYS[5], 6 * 2 * 2, 4, gain=5.0)), neurons(4)), (2, 14, 18)


def make_line():
    layers = (Conv(), LIF, Conv(2, "VALID"), LIF, Flatten())
    first, second = (pushed(init_dense(KEYS[n], n, n + 1, kernel=(6 - n,), gain=4.0)) for n in (2, 3))
    return layers, (first, plain(), second, plain(), None), (2, 11)


NETWORKS = {"dense": make_dense, "recurrent": make_recurrent, "image": make_image, "line": make_line}


def inputs_for(shape, dtype=float):
    rng = np.random.default_rng(7)
    return jnp.asarray(2.0 * np.abs(rng.normal(size=(T, *shape))), dtype)


def through_file(graph, folder):
    nir.write(folder / "network.nir", graph)
    return nir.read(folder / "network.nir")


@pytest.mark.parametrize(
    ("make", "dtype"), [*((make, "float32") for make in NETWORKS.values()), (make_dense, "float64")]
)
def test_a_file_gives_the_same_spikes_bitwise(make, tmp_path, dtype):
    with jax.enable_x64(dtype == "float64"):
        layers, params, shape = make()
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
        network, inputs = Sequential(layers), inputs_for(shape, dtype)
        graph = through_file(to_nir(network, params, shape), tmp_path)
        again, new = from_nir(graph)
        before, after = (jl.simulate(n, p, inputs)[1] for n, p in ((network, params), (again, new)))
    assert [type(a) for a in again.layers] == [type(a) for a in network.layers]
    spiking = [i for i, y in enumerate(before.layers) if hasattr(y, "spikes")]
    for i in spiking:
        assert 0.01 < before.layers[i].spikes.mean() < 0.95, f"layer {i} has something to compare"
        np.testing.assert_array_equal(before.layers[i].spikes, after.layers[i].spikes)
    if dtype == "float32":  # times in seconds, in double precision, come back to the bit
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_graph_says_what_it_is(tmp_path):
    layers, params, shape = make_recurrent()
    graph = through_file(to_nir(Sequential(layers), params, shape), tmp_path)
    facts = {"source": "jaxlif", "time_unit": "s", "reset": "value", "threshold": "v >= v_threshold", "dt": 1e-3}
    assert graph.metadata == facts
    kinds = [type(n).__name__ for n in graph.nodes.values()]
    assert sorted(kinds) == sorted(["Input", "Delay", "Affine", "NIRGraph", "Affine", "NIRGraph", "Output"])
    lif = next(n for n in graph.nodes.values() if isinstance(n, nir.NIRGraph)).nodes["lif"]
    np.testing.assert_allclose(lif.tau, params[2].neuron.tau_m / 1000.0, rtol=1e-15)  # seconds


def test_a_network_of_networks_is_one_chain():
    layers, params, shape = make_dense()
    nested = Sequential((Sequential(layers[:2]), Sequential(layers[2:])))
    graph = to_nir(nested, (params[:2], params[2:]), shape)
    network, new = from_nir(graph)
    inputs = inputs_for(shape)
    before, after = jl.simulate(nested, (params[:2], params[2:]), inputs)[1], jl.simulate(network, new, inputs)[1]
    np.testing.assert_allclose(before.output.output.v, after.output.v, rtol=0, atol=1e-12)


def test_another_step_and_surrogate():
    layers, params, shape = make_dense()
    network, _ = from_nir(to_nir(Sequential(layers), params, shape), dt=0.25, surrogate=jl.Arctan())
    assert network.dt == 0.25 and network.layers[1] == jl.LIF(dt=0.25, surrogate=jl.Arctan())


# ---------------------------------------------------------------------------------------------------- graphs of others

THROUGH = (("input", "a"), ("a", "output"))
BRAILLE_INPUT = (np.random.default_rng(4).random((T, 12)) < 0.3).astype(float)


def spread(n, low, high):
    return np.linspace(low, high, n)


def affine(num_out, num_in, gain, bias=0.0, seed=0):
    rng = np.random.default_rng((seed, num_out, num_in))
    return nir.Affine(gain * rng.normal(size=(num_out, num_in)), bias + 0.3 * rng.normal(size=num_out))


def lif_node(n):
    return nir.LIF(
        tau=spread(n, 0.005, 0.02), r=spread(n, 0.9, 1.1), v_leak=spread(n, -0.1, 0.1), v_threshold=np.ones(n)
    )


def cuba_node(n):
    membrane = {"tau_mem": spread(n, 0.004, 0.02), "r": spread(n, 0.9, 1.1), "v_leak": spread(n, -0.1, 0.1)}
    thresholds = {"v_threshold": spread(n, 0.2, 0.3), "v_reset": spread(n, -0.1, 0.1)}
    return nir.CubaLIF(tau_syn=spread(n, 0.002, 0.02), w_in=spread(n, 1.0, 2.0), **membrane, **thresholds)


def system(node):
    """Return a node's linear equation for each of its states, voltage last, and its drive: x' = A x + b u + c, in s."""
    at = {name: np.asarray(value, float) for name, value in vars(node).items() if isinstance(value, np.ndarray)}
    kind = type(node).__name__
    if kind in ("IF", "I"):
        return [(np.zeros((1, 1)), [r], [0.0]) for r in at["r"]]
    if kind in ("LIF", "LI"):
        return [([[-1 / t]], [r / t], [v / t]) for t, r, v in zip(at["tau"], at["r"], at["v_leak"], strict=True)]
    rows = zip(*(at[name] for name in ("tau_syn", "tau_mem", "w_in", "r", "v_leak")), strict=True)
    return [([[-1 / s, 0.0], [r / m, -1 / m]], [w / s, 0.0], [0.0, v / m]) for s, m, w, r, v in rows]


class Plain:
    """A node in plain NumPy: its equation solved by the matrix exponential of a step in which the input is held."""

    def __init__(self, node, dt):
        self.node = node
        if type(node).__name__ in ("IF", "I", "LIF", "LI", "CubaLIF", "CubaLI"):
            self.parts = [(np.asarray(a), np.asarray(b), np.asarray(c)) for a, b, c in system(node)]
            self.advance = [self.exact(a, b, c, dt) for a, b, c in self.parts]
            rest = np.atleast_1d(getattr(node, "v_leak", np.zeros(len(self.parts))))
            self.state = [np.append(np.zeros(len(a) - 1), v) for (a, _, _), v in zip(self.parts, rest, strict=True)]

    @staticmethod
    def exact(a, b, c, dt):
        n = len(a)
        grown = np.zeros((n + 2, n + 2))
        grown[:n, :n], grown[:n, n], grown[:n, n + 1] = a, b, c
        return expm(dt * grown)[:n]

    def __call__(self, x):
        kind, node = type(self.node).__name__, self.node
        if kind == "Linear":
            return node.weight @ x
        if kind == "Affine":
            return node.weight @ x + node.bias
        if kind == "Scale":
            return node.scale * x
        if kind == "Threshold":
            return (x >= node.threshold).astype(float)
        self.state = [m @ [*s, u, 1.0] for m, s, u in zip(self.advance, self.state, x, strict=True)]
        v = np.array([s[-1] for s in self.state])
        if kind in ("LI", "CubaLI", "I"):
            return v
        spikes = v >= node.v_threshold
        for i in np.flatnonzero(spikes):
            self.state[i][-1] = node.v_reset[i]
        return spikes.astype(float)


class Euler(Plain):
    """The same in Euler steps, in which the voltage sees the current of the step's end, as in snnTorch and Norse."""

    @staticmethod
    def exact(a, b, c, dt):
        n = len(a)
        advance = np.zeros((n, n + 2))
        for i in range(n):  # the current first, then the voltage with it
            old = np.eye(n, n + 2)
            old[:i] = advance[:i]
            rate = np.append(a[i], [b[i], c[i]])
            advance[i] = np.eye(n, n + 2)[i] + dt * (rate[:n] @ old + np.eye(n + 2)[n:].T @ rate[n:])
        return advance


def run(graph, inputs, order, late=(), how=Plain):
    """Run a graph node by node in NumPy: what is late arrives one step later; return all spikes and the output."""
    nodes = {name: how(graph.nodes[name], DT / 1000.0) for name in order}
    spiking = [n for n in order if hasattr(graph.nodes[n], "v_threshold")]
    # Before the first step no neuron has spiked, and a weight passes on its bias.
    before = {a: getattr(graph.nodes[a], "bias", np.zeros(graph.nodes[a].output_type["output"])) for a, _ in late}
    spikes, outputs = [], []
    for x in inputs:
        now = {"input": x}
        for name in order:
            into = [a for a, b in graph.edges if b == name]
            now[name] = nodes[name](sum(before[a] if (a, name) in late else now[a] for a in into))
        before |= {a: now[a] for a, _ in late}
        spikes.append([now[n] for n in spiking])
        outputs.append(sum(now[a] for a, b in graph.edges if b == "output"))
    return [np.array(s) for s in zip(*spikes, strict=True)], np.array(outputs)


def port(n):
    return {"input": nir.Input(np.array([n]))}, {"output": nir.Output(np.array([n]))}


def wired(num_in, num_out, nodes, edges):
    return nir.NIRGraph(port(num_in)[0] | nodes | port(num_out)[1], edges)


def make_braille(bias, nested):
    """Return the NIR paper's network for Braille: 12 inputs, 38 recurrent and 7 plain current-based neurons."""
    weights = affine(38, 12, 1.5), affine(38, 38, 0.5), affine(7, 38, 1.0, 0.3)
    fc1, rec, fc2 = weights if bias else [nir.Linear(w.weight) for w in weights]
    layers = {"fc1": fc1, "fc2": fc2, "lif2": cuba_node(7)}
    if not nested:
        nodes = layers | {"lif1.lif": cuba_node(38), "lif1.w_rec": rec}
        loop = [("lif1.w_rec", "lif1.lif"), ("lif1.lif", "lif1.w_rec")]
        edges = [loop[0], ("lif2", "output"), ("fc2", "lif2"), ("input", "fc1"), loop[1], ("fc1", "lif1.lif")]
        return wired(12, 7, nodes, [*edges, ("lif1.lif", "fc2")])
    loop = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    inner = wired(38, 38, {"lif": cuba_node(38), "w_rec": rec}, loop)
    edges = [("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"), ("lif2", "output")]
    return wired(12, 7, layers | {"lif1": inner}, edges)


def flat(graph):
    """Return a graph whose recurrent layer is no graph of its own."""
    nodes, inner = dict(graph.nodes), graph.nodes["lif1"]
    del nodes["lif1"]
    nodes |= {"lif1.lif": inner.nodes["lif"], "lif1.w_rec": inner.nodes["w_rec"]}
    edges = [tuple("lif1.lif" if name == "lif1" else name for name in edge) for edge in graph.edges]
    return nir.NIRGraph(nodes, [*edges, ("lif1.lif", "lif1.w_rec"), ("lif1.w_rec", "lif1.lif")])


BRAILLE = ["fc1", "lif1.lif", "lif1.w_rec", "fc2", "lif2"]
LATE = [("lif1.w_rec", "lif1.lif")]


def all_spikes(output):
    """Return the spikes of all neurons of a network, layer by layer."""
    if hasattr(output, "layers"):
        return [s for layer in output.layers for s in all_spikes(layer)]
    return [np.asarray(output.spikes)] if hasattr(output, "spikes") else []


def assert_spikes(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert 0.01 < b.mean() < 0.9, "there is something to compare"
        np.testing.assert_array_equal(a, b)


def assert_runs_again(network, params, shape, inputs, output):
    """Write a network that was read, read it again, and compare what it puts out."""
    again, new = from_nir(to_nir(network, params, shape))
    np.testing.assert_allclose(signal(jl.simulate(again, new, inputs)[1]), signal(output), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bias", "nested", "cell"), [(True, False, Feedback), (True, True, Feedback), (False, False, Recurrent)]
)
def test_the_network_for_braille_spikes_as_in_numpy(bias, nested, cell, tmp_path):
    graph, inputs = make_braille(bias, nested), BRAILLE_INPUT
    network, params = from_nir(through_file(graph, tmp_path), dt=DT)
    assert type(network.layers[1]) is cell
    output = jl.simulate(network, params, inputs)[1]
    assert_spikes(all_spikes(output), run(flat(graph) if nested else graph, inputs, BRAILLE, LATE)[0])
    assert_runs_again(network, params, (12,), inputs, output)


def test_euler_steps_are_those_of_snntorch_and_norse():
    graph, inputs = make_braille(bias=True, nested=False), BRAILLE_INPUT
    network, params = from_nir(graph, dt=DT, integration="euler")
    output = jl.simulate(network, params, inputs)[1]
    stepped, exact = (run(graph, inputs, BRAILLE, LATE, how=how)[0] for how in (Euler, Plain))
    assert_spikes(all_spikes(output), stepped)
    assert any((a != b).any() for a, b in zip(stepped, exact, strict=True)), "the two differ"
    assert_runs_again(network, params, (12,), inputs, output)


def ones(n, value=1.0):
    return np.full(n, value)


ROWS = {
    "IF": [
        nir.Scale(spread(5, 0.5, 2.0)),
        nir.IF(r=spread(5, 50.0, 300.0), v_threshold=ones(5), v_reset=ones(5, -0.2)),
    ],
    "integrators": [nir.I(r=spread(5, 10.0, 20.0)), nir.LI(tau=ones(5, 0.01), r=ones(5), v_leak=spread(5, -0.2, 0.2))],
    "current-based": [nir.CubaLI(ones(5, 0.005), spread(5, 0.005, 0.02), ones(5), ones(5, 0.1), ones(5, 2.0))],
    "threshold": [nir.LI(ones(5, 0.01), ones(5), ones(5, 0.0)), nir.Threshold(spread(5, 0.5, 1.5))],
}


@pytest.mark.parametrize("nodes", ROWS.values(), ids=ROWS)
def test_nodes_in_a_row_are_as_in_numpy(nodes, tmp_path):
    """The voltages are compared to rounding, relative to an integral of 60 steps, the spikes exactly."""
    graph = nir.NIRGraph.from_list(*nodes)
    inputs = np.asarray(inputs_for((5,)))
    network, params = from_nir(through_file(graph, tmp_path), dt=DT)
    output = jl.simulate(network, params, inputs)[1]
    spikes, last = run(graph, inputs, [n for n in graph.nodes if n not in ("input", "output")])
    np.testing.assert_allclose(signal(output), last, rtol=1e-12, atol=1e-12)
    assert_spikes(all_spikes(output), spikes or [last] * isinstance(nodes[-1], nir.Threshold))
    assert_runs_again(network, params, (5,), inputs, output)


def test_a_neuron_without_leak_is_written_by_its_slope():
    """dv/dt = r_m I / tau_m: 0.2 in a step of 1 ms under a current of 4, whatever tau_m stands for."""
    params = jl.LIFParams(tau_m=10.0, r_m=0.5, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)
    graph = to_nir(IntegrateAndFire(dt=DT), params, (1,))
    np.testing.assert_allclose(graph.nodes["0_if"].r, [50.0], rtol=1e-12)  # per second
    for cell, p in ((IntegrateAndFire(dt=DT), params), from_nir(graph)):
        v = jax.tree.leaves(cell.step(p, cell.init_state(p, jnp.zeros(1)), jnp.full(1, 4.0))[1])[-1]
        np.testing.assert_allclose(v, [0.2], rtol=1e-12)


def test_an_average_is_a_sum_over_its_size():
    image = np.random.default_rng(1).normal(size=(T, 2, 4, 6))
    pool = nir.AvgPool2d(np.array([2, 3]), np.array([2, 3]), np.array([0, 0]))
    ends = {"input": nir.Input(np.array([2, 4, 6])), "output": nir.Output(np.array([2, 2, 2]))}
    network, params = from_nir(nir.NIRGraph(ends | {"a": pool}, [*THROUGH]), dt=DT)
    mean = image.reshape(T, 2, 2, 2, 2, 3).mean(axis=(3, 5))
    np.testing.assert_allclose(jl.simulate(network, params, image)[1].output, mean, rtol=0, atol=1e-15)


def skip():
    """Return a residual connection, and a merge at the output."""
    nodes = {"w": affine(5, 5, 1.0, 1.0), "l": lif_node(5), "v": affine(5, 5, 1.0, seed=1), "m": lif_node(5)}
    edges = [("input", "w"), ("w", "l"), ("l", "v"), ("v", "m"), ("w", "m"), ("l", "output"), ("m", "output")]
    return wired(5, 5, nodes, edges), ["w", "l", "v", "m"], []


def top_down():
    """Return a loop over two layers, entered at the first: what leads back to that one is late."""
    nodes = {"l": lif_node(5), "v": affine(5, 5, 1.0, 1.0), "m": lif_node(5), "w": affine(5, 5, 1.0, 0.5, seed=1)}
    edges = [("input", "l"), ("l", "v"), ("v", "m"), ("m", "w"), ("w", "l"), ("m", "output")]
    return wired(5, 5, nodes, edges), ["l", "v", "m", "w"], [("w", "l")]


def balance():
    """Return two populations that both hear the input and each other: a spike between them is late."""
    nodes = {"e": lif_node(5), "i": lif_node(5), "to_i": affine(5, 5, 1.0, 0.3), "to_e": affine(5, 5, 1.0, seed=1)}
    loop = [("e", "to_i"), ("to_i", "i"), ("i", "to_e"), ("to_e", "e")]
    edges = [("input", "e"), ("input", "i"), *loop, ("e", "output")]
    return wired(5, 5, nodes, edges), ["e", "i", "to_i", "to_e"], [("to_i", "i"), ("to_e", "e")]


def autapse():
    """Return neurons that reach themselves without a weight, as one edge."""
    edges = [("input", "l"), ("l", "l"), ("l", "output")]
    return wired(5, 5, {"l": lif_node(5)}, edges), ["l"], [("l", "l")]


@pytest.mark.parametrize("make", [skip, top_down, balance, autapse])
def test_branches_and_loops_are_as_in_numpy(make):
    graph, order, late = make()
    inputs = np.asarray(inputs_for((5,)))
    network, params = from_nir(graph, dt=DT)
    assert isinstance(network.layers[0], Graph)
    output = jl.simulate(network, params, inputs)[1]
    spikes, last = run(graph, inputs, order, late)
    assert_spikes([sum(all_spikes(output))], [sum(spikes)])
    np.testing.assert_array_equal(signal(output), last)
    assert_runs_again(network, params, (5,), inputs, output)


# ---------------------------------------------------------------------------------------------------------------- peers

PEERS = Path(__file__).resolve().parents[2] / ".cache" / "peers"


def peer(name, code, *arguments):
    """Run code in a peer's own environment and return what it prints, as JSON."""
    if not (PEERS / name / ".ready").exists():
        scripts = "experiments/benchmarks/peers.sh and experiments/peers_nir.sh install it"
        pytest.skip(f"{name} is not installed in .cache/peers/{name}: {scripts}")
    command = [PEERS / name / "bin" / "python", "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


NORSE = """
import json, sys, nir, norse.torch, torch
graph, inputs = nir.read(sys.argv[1]), json.load(open(sys.argv[2]))
module, state, spikes = norse.torch.from_nir(graph, dt=float(sys.argv[3])), None, []
for x in torch.tensor(inputs):
    with torch.no_grad():
        y, state = module(x, state)
    spikes.append(y.tolist())
print(json.dumps(spikes))
"""


def euler(tau, dt):
    """Return the time constant with which an Euler step decays as an exact one does with ``tau``."""
    return dt / -jnp.expm1(-dt / tau)


def test_norse_spikes_alike(tmp_path):
    """Norse takes Euler steps, resets to 0 and has R = 1: with tau changed for its step both are the same model."""
    params = (init_dense(KEYS[0], 5, 30, gain=8.0), init_neurons(30, tau_m=jnp.linspace(5.0, 20.0, 30)))
    network, inputs = Sequential((Dense(), LIF)), np.float32(inputs_for((5,)))
    for_norse = (params[0], replace(params[1], tau_m=euler(params[1].tau_m, DT)))
    nir.write(tmp_path / "network.nir", to_nir(network, for_norse, (5,)))
    (tmp_path / "inputs.json").write_text(json.dumps(inputs.tolist()))
    theirs = peer("norse", NORSE, tmp_path / "network.nir", tmp_path / "inputs.json", DT / 1000.0)
    ours = jl.simulate(network, params, inputs.astype(float))[1].output.spikes
    assert 0.1 < ours.mean() < 0.9
    # Theirs in single precision: no voltage of these comes within rounding of the threshold.
    np.testing.assert_array_equal(np.array(theirs), ours)


SNNTORCH = """
import json, sys, contextlib, nir, torch
from snntorch.import_nir import import_from_nir
with contextlib.redirect_stdout(sys.stderr):
    module = import_from_nir(nir.read(sys.argv[1]))
state, spikes = None, []
for x in torch.tensor(json.load(open(sys.argv[2]))):
    with torch.no_grad():
        y, state = module(x[None], state)
    spikes.append(y[0].tolist())
print(json.dumps(spikes))
"""
STEP = 0.1  # ms, which snnTorch's importer takes whatever the graph says


def alike(n, tau_m, r_m=1.0):
    """Return equal neurons that rest at and reset to 0: snnTorch imports no others."""
    return replace(init_neurons(n, tau_m=tau_m), r_m=r_m)


def make_forward(tau_m):
    cells = (Dense(), jl.LIF(dt=STEP), Dense(), jl.LIF(dt=STEP))
    weights = init_dense(KEYS[0], 5, 30, gain=8.0), init_dense(KEYS[1], 30, 20, gain=40.0, bias=False)
    return cells, (weights[0], alike(30, tau_m), weights[1], alike(20, tau_m))


def make_loop(tau_m):
    """Return neurons that drive one another; an importer's Euler step then asks for r_m = tau_m / dt."""
    neuron = alike(30, tau_m, 1.0 / -np.expm1(-STEP / TAU))
    layer = replace(init_recurrent(KEYS[2], 30, gain=0.5), neuron=neuron)
    return (Dense(), Recurrent(jl.LIF(dt=STEP))), (init_dense(KEYS[0], 5, 30, gain=0.3), layer)


TAU = 2.0  # ms


@pytest.mark.parametrize("make", [make_forward, make_loop], ids=["feed-forward", "recurrent"])
def test_snntorch_imports_and_spikes_alike(make, tmp_path):
    """snnTorch takes Euler steps of 0.1 ms: with tau changed for them both are the same model."""
    inputs = np.float32(inputs_for((5,)))
    layers, for_snntorch = make(euler(TAU, STEP))
    nir.write(tmp_path / "network.nir", to_nir(Sequential(layers), for_snntorch, (5,)))
    (tmp_path / "inputs.json").write_text(json.dumps(inputs.tolist()))
    theirs = peer("snntorch_nir", SNNTORCH, tmp_path / "network.nir", tmp_path / "inputs.json")
    ours = jl.simulate(Sequential(layers), make(TAU)[1], inputs.astype(float))[1].output.spikes
    assert 0.02 < ours.mean() < 0.9
    # Theirs in single precision: no voltage of these comes within rounding of the threshold.
    np.testing.assert_array_equal(np.array(theirs), ours)


# ------------------------------------------------------------------------------------------------------------- refusals


def lif_with(**fields):
    return replace(init_neurons(3), **fields)


ADAPTIVE = jl.AdaptiveLIFParams(**vars(jl.LIFParams(t_ref=0.0)))
REFUSED = {
    "refractory": (LIF, lif_with(t_ref=2.0), (3,), r"\(LIF\): t_ref = 2 ms: NIR has no refractory period"),
    "subtract": (jl.LIF(dt=DT, reset="subtract"), lif_with(), (3,), r'reset = "subtract": NIR sets v to v_reset'),
    "adaptive": (jl.AdaptiveLIF(dt=DT), ADAPTIVE, (3,), "AdaptiveLIF: NIR has no node for it"),
    "recurrent adaptive": (
        Recurrent(jl.AdaptiveLIF(dt=DT)),
        replace(init_recurrent(KEYS[0], 3), neuron=ADAPTIVE),
        (3,),
        r"\(Recurrent\): layer 0 \(AdaptiveLIF\): AdaptiveLIF: NIR has no node for it",
    ),
    "other params": (LIF, ADAPTIVE, (3,), "LIF with AdaptiveLIFParams: NIR has a node for LIFParams only"),
    "a neuron on the way": (
        Feedback(LIF, LIF),
        FeedbackParams(neuron=lif_with(), path=lif_with()),
        (3,),
        "path: a neuron or network on it steps before the first input",
    ),
    "other feedback": (
        Graph((LIF, LIF), ((-1, 0), (0, 1)), ((0, 1),)),
        (lif_with(), lif_with()),
        (3,),
        r"feedback \[\(0, 1\)\]: a reader of NIR would let other signals wait: \[\]",
    ),
    "fewer inputs": (LIF, lif_with(), (1,), r"parameters \[3\]: they do not go with the layer's input \[1\]"),
    "spread": (Delayed(DT, 3.0), DelayParams(delay=1.0, sigma=0.5), (3,), "sigma: NIR's Delay"),
    "padding": (Conv(2), init_dense(KEYS[0], 1, 1, kernel=(3, 3)), (1, 4, 4), r'"SAME": NIR has it for'),
    "kernel": (Conv(1, "VALID"), init_dense(KEYS[0], 1, 1, kernel=(3, 2)), (1, 4, 4), r"kernel = \(3, 2\): NIR takes"),
    "line": (SumPool(2), None, (1, 4), r"SumPool of an input \[1, 4\]"),
    "physics": (LIF, lif_with(tau_m=-1.0), (3,), r"tau_m = -1 ms: tau_m must be greater than 0 ms"),
}


@pytest.mark.parametrize(("layer", "params", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_what_nir_cannot_hold_is_refused_by_name(layer, params, shape, message):
    with pytest.raises(ValueError, match=message):
        to_nir(Sequential((layer,)), (params,), shape)


ONE = np.ones(3)
LIF_NODE = nir.LIF(tau=0.01 * ONE, r=ONE, v_leak=0.0 * ONE, v_threshold=ONE)


def chain(*nodes, **metadata):
    graph = nir.NIRGraph.from_list(*nodes)
    graph.metadata = metadata
    return graph


def graph_of(nodes, *edges):
    return nir.NIRGraph(port(3)[0] | nodes | port(3)[1], list(edges), type_check=False)


WEIGHT = nir.Linear(np.eye(3))


def conv(**fields):
    node = nir.Conv2d((4, 4), np.ones((1, 1, 3, 3)), 1, 0, 1, 1, np.zeros(1))
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def replaced(node, **fields):
    return type(node)(**{name: fields.get(name, value) for name, value in vars(node).items() if "_type" not in name})


UNREADABLE = {
    "number": (lambda: chain(replaced(LIF_NODE, tau=np.array([0.01, np.nan, 0.01]))), r"\(LIF\): tau = nan: all its"),
    "physics": (lambda: chain(replaced(LIF_NODE, tau=-0.01 * ONE)), r"node 'lif' \(LIF\): tau_m\[0\] = -10 ms"),
    "no neuron": (
        lambda: graph_of({"a": WEIGHT, "b": WEIGHT}, *THROUGH, ("a", "b"), ("b", "a")),
        r"^the loop 'a', 'b', 'a' has no neuron|^the loop 'b', 'a', 'b' has no neuron",
    ),
    "dead end": (lambda: graph_of({"a": LIF_NODE, "b": WEIGHT}, *THROUGH, ("a", "b")), r"^node 'b': no way leads from"),
    "not reached": (
        lambda: graph_of({"a": LIF_NODE, "b": WEIGHT}, *THROUGH, ("b", "a")),
        r"^node 'b': no way leads to",
    ),
    "nowhere": (
        lambda: graph_of({"a": LIF_NODE}, *THROUGH, ("a", "c")),
        r"^Edge \('a', 'c'\) references destination node 'c'",
    ),
    "twice": (
        lambda: graph_of({"a": LIF_NODE}, *THROUGH, ("input", "a")),
        r"^Duplicate edge: \('input', 'a'\)",
    ),
    "shapes": (
        lambda: graph_of({"a": nir.LIF(ONE[:1], ONE[:1], ONE[:1], ONE[:1])}, *THROUGH),
        r"^type mismatch: input.output: \[3\] -> a.input: \[1\]",
    ),
    "inputs": (
        lambda: graph_of({"a": LIF_NODE, "b": port(3)[0]["input"]}, *THROUGH, ("b", "a")),
        r"^the graph has 2 inputs: it must have one",
    ),
    "backwards": (lambda: graph_of({"a": LIF_NODE}, *THROUGH, ("a", "input")), r"nothing leads into the input"),
    "dilation": (lambda: chain(conv(dilation=(2, 2))), r"\(Conv2d\): dilation = \(2, 2\): dilation must be 1"),
    "same": (lambda: chain(conv(padding="same", stride=(2, 2))), r"padding = same with stride = \(2, 2\): it keeps"),
    "no graph": (lambda: LIF_NODE, "^graph = LIF: graph must be a nir.NIRGraph"),
    "groups": (lambda: chain(conv(groups=2)), r"groups = 2: groups must be 1"),
    "unit": (lambda: chain(LIF_NODE, time_unit="ms"), r"^time_unit = 'ms': a graph's times must be in seconds"),
    "flatten": (
        lambda: chain(nir.Flatten({"input": np.array([2, 3, 4])}, 1, -1)),
        r"start_dim = 1, end_dim = -1: all axes must be flattened",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_graphs_that_jaxlif_cannot_run_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        from_nir(make(), dt=DT)


def test_an_euler_step_is_shorter_than_the_time_constant():
    with pytest.raises(ValueError, match=r"node 'lif' \(LIF\): tau = 10 ms: it must be longer than an Euler step"):
        from_nir(chain(LIF_NODE), dt=10.0, integration="euler")
    with pytest.raises(ValueError, match=r'^integration = \'rk4\': integration must be "exact" or "euler"'):
        from_nir(chain(LIF_NODE), dt=1.0, integration="rk4")


def test_what_waits_does_not_depend_on_the_order_of_the_edges():
    edges = [("in", "a"), ("in", "b"), ("a", "b"), ("b", "w"), ("w", "a"), ("b", "out")]
    found = {frozenset(returning(some, {"a", "b"}, "in")) for some in itertools.permutations(edges)}
    assert found == {frozenset({("a", "b"), ("w", "a")})}


def test_a_step_is_needed():
    with pytest.raises(ValueError, match=r"^dt: the graph's metadata has none; give one, ms"):
        from_nir(chain(LIF_NODE))
    with pytest.raises(ValueError, match=r"^dt = 0 ms: dt must be greater than 0 ms"):
        from_nir(chain(WEIGHT), dt=0.0)
