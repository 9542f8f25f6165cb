"""The order of operations of snnTorch and Norse, against what they themselves did (experiments/peer_spikes.py)."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop.conventions import NorseLIFBox, SnnTorchLeaky, from_norse, from_snntorch
from jaxlif.networks import Dense, Feedback, Recurrent, RecurrentParams

DATA = Path(__file__).resolve().parents[1] / "data"
BETA = np.array([0.5, 0.8, 0.9, 0.95])
TAU_MEM_INV = np.array([400.0, 200.0, 100.0, 50.0])  # 1/s


@cache
def peer(name):
    with np.load(DATA / f"peer_{name}.npz") as stored:
        return dict(stored)


def snntorch_case(case):
    kind, *rest = case.split()
    if kind == "recurrent":
        return recurrent("snntorch", *from_snntorch("RLeaky", beta=BETA))
    beta = BETA if kind == "leaky" else 0.5
    return from_snntorch(beta=beta, reset_mechanism=rest[0], reset_delay=rest[1] == "True")


def norse_case(case):
    if case == "recurrent":
        return recurrent("norse", *from_norse("LIFCell", tau_mem_inv=TAU_MEM_INV, detach_reset=True))
    name, tau_mem_inv = case.split()[-1], 500.0 if case.startswith("tie") else TAU_MEM_INV
    tau_syn_inv = {"LIFCell": 200.0, "tie LIFCell": 1000.0}.get(case)
    return from_norse(name, tau_mem_inv=tau_mem_inv, tau_syn_inv=tau_syn_inv)


def recurrent(name, cell, params):
    return Recurrent(cell), RecurrentParams(neuron=params, weight=jnp.asarray(peer(name)["weight"]))


CASES = [
    (name, case)
    for name in ("snntorch", "norse")
    for case in dict.fromkeys(key.split("/")[0] for key in peer(name) if "/" in key)
]


def measure(output):
    """Weigh every spike and voltage by a number of its own, as the script does."""
    places = jnp.arange(output.v.size, dtype=output.v.dtype).reshape(output.v.shape)
    return jnp.sum(jnp.cos(places) * output.spikes) + 0.1 * jnp.sum(jnp.sin(places) * output.v)


@pytest.mark.parametrize(("name", "case"), CASES, ids=[" ".join(c) for c in CASES])
def test_spikes_and_gradients_are_the_peers(name, case):
    """Spikes exactly, ties with the threshold included; the rest within some roundings of single precision."""
    with jax.enable_x64(False):
        cell, params = {"snntorch": snntorch_case, "norse": norse_case}[name](case)
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        theirs = {part: peer(name)[f"{case}/{part}"] for part in ("inputs", "spikes", "v", "gradient")}

        def run(x):
            output = jl.simulate(cell, params, x)[1]
            return measure(output), output

        gradient, ours = jax.grad(run, has_aux=True)(jnp.asarray(theirs["inputs"]))
    assert 0.1 < theirs["spikes"].mean() < 0.8
    np.testing.assert_array_equal(ours.spikes, theirs["spikes"])
    # Voltages of a few units, of which 20 earlier ones still count: 1e-5 is some ten roundings of 1e-7 each.
    np.testing.assert_allclose(ours.v, theirs["v"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient, theirs["gradient"], rtol=1e-4, atol=1e-4)


def rleaky(x, weight, reset, delay):
    """Step snnTorch's RLeaky in NumPy as its source has it, with threshold 1: spikes and mem, [T, N]."""
    mem, spk, trace = np.zeros(BETA.size), np.zeros(BETA.size), []
    for x_n in x:
        late = (mem > 1.0).astype(float)
        mem = BETA * mem + x_n + spk @ weight
        mem = mem - {"subtract": late, "zero": late * mem, "none": 0.0}[reset]
        spk = (mem > 1.0).astype(float)
        if not delay:
            mem = mem - {"subtract": spk - late, "zero": (spk - late) * mem, "none": 0.0}[reset]
        trace.append((spk, mem))
    return tuple(map(np.array, zip(*trace, strict=True)))


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_rleaky_resets_as_its_source_does(reset, delay):
    """A reset to zero, which takes the input and the other neurons' spikes with it, among them."""
    x, weight = peer("snntorch")["recurrent/inputs"].astype(float), peer("snntorch")["weight"].astype(float)
    cell, params = from_snntorch("RLeaky", beta=BETA, reset_mechanism=reset, reset_delay=delay)
    output = jl.simulate(Recurrent(cell), RecurrentParams(neuron=params, weight=jnp.asarray(weight)), x)[1]
    spikes, mem = rleaky(x, weight, reset, delay)
    assert spikes.sum() > 20
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose(output.v, mem, rtol=0, atol=1e-12)


def test_leaky_with_a_reset_to_zero_is_no_rleaky():
    cell, _ = from_snntorch(beta=BETA, reset_mechanism="zero")
    for layer in (Recurrent, lambda cell: Feedback(cell, Dense())):
        with pytest.raises(ValueError, match=r"^neuron = SnnTorchLeaky: .* RLeaky is from_snntorch\(\"RLeaky\"\)"):
            layer(cell)


def test_ties_are_there():
    """Voltages on the threshold do occur in the cases that are to show that they do not spike."""
    for name, case in (("snntorch", "tie zero True"), ("norse", "tie LIFBoxCell"), ("norse", "tie LIFCell")):
        v, spikes = peer(name)[f"{case}/v"], peer(name)[f"{case}/spikes"]
        assert ((v == 1.0) & (spikes == 0.0)).sum() > 10


def test_a_late_reset_to_zero_is_the_plain_neuron():
    """Where both define the same model jaxlif's own neuron spikes alike: beta = exp(-dt/tau), r_m = 1/(1 - beta)."""
    x = peer("snntorch")["leaky zero True/inputs"].astype(float)
    params = jl.LIFParams(
        tau_m=-1.0 / np.log(BETA), r_m=1.0 / (1.0 - BETA), v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0
    )
    ours = jl.simulate(jl.LIF(dt=1.0), params, x)[1].spikes
    np.testing.assert_array_equal(ours, peer("snntorch")["leaky zero True/spikes"])


def test_a_box_with_a_refractory_period_keeps_it():
    """Under a current that crosses the threshold in any step, a spike and three steps held, again and again."""
    params = jl.LIFParams(t_ref=3.0).normalised()
    output = jl.simulate(NorseLIFBox(dt=1.0), params, jnp.full(9, 1e3))[1]
    np.testing.assert_array_equal(jnp.flatnonzero(output.spikes), [0, 4, 8])
    np.testing.assert_array_equal(output.v, jnp.full(9, params.v_reset))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SnnTorchLeaky(reset="value"), "reset = 'value': reset must be "),
        (lambda: from_snntorch(beta=np.nan), "beta = nan: beta must be finite"),
        (lambda: from_snntorch(beta=[0.5, 1.2]), r"beta\[1\] = 1.2: beta must lie between 0 and 1, where snnTorch"),
        (lambda: from_snntorch("Synaptic", beta=0.9), 'name = \'Synaptic\': name must be "Leaky" or "RLeaky"'),
        (lambda: from_snntorch(beta=0.9, threshold=0.0), "threshold = 0: threshold must be greater than 0"),
        (lambda: from_norse("LIF"), r"name = 'LIF': name must be \"LIFCell\" or \"LIFBoxCell\""),
        (lambda: from_norse("LIFBoxCell", tau_syn_inv=200.0), "tau_syn_inv = 200.0: a LIFBoxCell has no current"),
        (lambda: from_norse("LIFCell", tau_mem_inv=-1.0), "tau_mem_inv = -1 1/s: tau_mem_inv must be greater than 0"),
        (lambda: NorseLIFBox(dt=0.0), "dt = 0 ms: dt must be greater than 0 ms"),
    ],
)
def test_what_is_wrong_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
