"""NIR: a network through a file is the same network, bit for bit; peers that read it spike alike; refusals."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop.nir_graph import from_nir, to_nir
from jaxlif.networks import Dense, Recurrent, Sequential, init_dense, init_neurons, init_recurrent
from jaxlif.networks.convolution import Conv1D, Conv2D, Flatten, MaxPool, SumPool, init_conv
from jaxlif.networks.delays import Delayed, DelayedRecurrent, DelayParams, init_delayed_recurrent, init_delays

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
    layers = (Delayed(DT, 9.0), Dense(), Recurrent(LIF), Dense(), DelayedRecurrent(LIF, DT, 6.0))
    late = replace(init_delayed_recurrent(KEYS[2], 6, max_delay=6.0, gain=5.0), neuron=neurons(6))
    hidden = (init_delays(KEYS[3], 5, max_delay=9.0), init_dense(KEYS[0], 5, 8, gain=8.0), recurrent(8, 5.0))
    return layers, (*hidden, init_dense(KEYS[4], 8, 6, gain=15.0), late), (5,)


def make_image():
    layers = (Conv2D(), LIF, SumPool(2), Conv2D(2, "VALID"), LIF, Conv2D(2, 1), LIF, Flatten(), Dense(), LIF)
    convs = [pushed(init_conv(KEYS[i], n, m, (3, 3), gain=4.0)) for i, (n, m) in enumerate(((2, 4), (4, 5), (5, 6)))]
    weights = (
        convs[0],
        plain(),
        None,
        convs[1],
        plain(),
        replace(init_conv(KEYS[2], 5, 6, (3, 3), gain=30.0), bias=None),
        plain(),
        None,
    )
    return layers, (*weights, pushed(init_dense(KEYS[5], 6 * 2 * 2, 4, gain=5.0)), neurons(4)), (2, 14, 18)


def make_line():
    layers = (Conv1D(), LIF, Conv1D(2, "VALID"), LIF, Flatten())
    first, second = (pushed(init_conv(KEYS[n], n, n + 1, (6 - n,), gain=4.0)) for n in (2, 3))
    return layers, (first, plain(), second, plain(), None), (2, 11)


NETWORKS = {"dense": make_dense, "recurrent": make_recurrent, "image": make_image, "line": make_line}


def inputs_for(shape, dtype=float):
    rng = np.random.default_rng(7)
    return jnp.asarray(2.0 * np.abs(rng.normal(size=(T, *shape))), dtype)


def through_file(graph, folder):
    nir.write(folder / "network.nir", graph)
    return nir.read(folder / "network.nir")


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
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


def test_same_padding_with_an_even_number_of_zeros():
    """Stride 2 over 13 x 11 adds 2 zeros to each axis: the same on both sides, which NIR can hold."""
    network, params = Sequential((Conv2D(2),)), (init_conv(KEYS[0], 2, 3, (3, 3)),)
    inputs = inputs_for((2, 13, 11))
    again, new = from_nir(to_nir(network, params, (2, 13, 11), dt=DT))
    assert again.layers == (Conv2D((2, 2), (1, 1)),)
    a, b = (jl.simulate(n, p, inputs)[1].output for n, p in ((network, params), (again, new)))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


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
        "AdaptiveLIF with AdaptiveLIFParams: NIR has a node for LIF with LIFParams only",
    ),
    "maximum": (MaxPool(2), None, (1, 4, 4), "MaxPool: NIR has no node for it"),
    "spread": (Delayed(DT, 3.0, sigma=1.0), DelayParams(delay=1.0), (3,), "sigma: NIR's Delay has no spread"),
    "traced spread": (Delayed(DT, 3.0), DelayParams(delay=1.0, sigma=0.5), (3,), "sigma: NIR's Delay"),
    "odd padding": (Conv2D(2), init_conv(KEYS[0], 1, 1, (3, 3)), (1, 4, 4), r'"SAME": it adds \[1, 1\] zeros'),
    "kernel": (Conv2D(1, "VALID"), init_conv(KEYS[0], 1, 1, (3, 2)), (1, 4, 4), r"kernel = \(3, 2\): NIR takes"),
    "line": (SumPool(2), None, (1, 4), r"SumPool of an input \[1, 4\]"),
    "physics": (LIF, lif_with(tau_m=-1.0), (3,), r"tau_m = -1 ms: tau_m must be greater than 0 ms"),
}


@pytest.mark.parametrize(("layer", "params", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_what_nir_cannot_hold_is_refused_by_name(layer, params, shape, message):
    with pytest.raises(ValueError, match=message):
        to_nir(Sequential((layer,)), (params,), shape)


ONE = np.ones(3)
LIF_NODE = nir.LIF(tau=0.01 * ONE, r=ONE, v_leak=0.0 * ONE, v_threshold=ONE)
CUBA = nir.CubaLIF(tau_syn=ONE, tau_mem=ONE, r=ONE, v_leak=ONE, v_threshold=ONE)


def chain(*nodes, **metadata):
    graph = nir.NIRGraph.from_list(*nodes)
    graph.metadata = metadata
    return graph


def branching():
    nodes = {"input": nir.Input(np.array([3])), "a": LIF_NODE, "b": LIF_NODE, "output": nir.Output(np.array([3]))}
    return nir.NIRGraph(nodes, [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")])


def other_subgraph():
    inner = nir.NIRGraph.from_list(LIF_NODE, nir.Linear(np.eye(3)))
    nodes = {"input": nir.Input(np.array([3])), "inner": inner, "output": nir.Output(np.array([3]))}
    return nir.NIRGraph(nodes, [("input", "inner"), ("inner", "output")], type_check=False)


def conv(**fields):
    node = nir.Conv2d((4, 4), np.ones((1, 1, 3, 3)), 1, 0, 1, 1, np.zeros(1))
    for name, value in fields.items():
        setattr(node, name, value)
    return node


UNREADABLE = {
    "cuba": (lambda: chain(CUBA), r"node 'cubalif' \(CubaLIF\): whether a spike makes its current jump by"),
    "scale": (lambda: chain(nir.Scale(ONE)), r"node 'scale' \(Scale\): jaxlif has no layer for it"),
    "branch": (branching, r"node 'input' leads to a, b: a graph must be a chain"),
    "subgraph": (other_subgraph, r"node 'inner' \(NIRGraph\): a graph within a graph must be LIF"),
    "dilation": (lambda: chain(conv(dilation=(2, 2))), r"\(Conv2d\): dilation = \(2, 2\): dilation must be 1"),
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


def test_a_step_is_needed():
    with pytest.raises(ValueError, match=r"^dt: the graph's metadata has none; give one, ms"):
        from_nir(chain(LIF_NODE))
    layers, params, shape = make_dense()
    with pytest.raises(ValueError, match=r"^dt = 2 ms: dt must be the network's, which is 1 ms"):
        to_nir(Sequential(layers), params, shape, dt=2.0)
