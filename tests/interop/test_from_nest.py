"""The door from NEST, and what comes through it against NEST's stored voltages; tests/neurons/test_lif.py has more."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop import from_nest, to_nest
from jaxlif.interop.from_nest import MODELS
from tests.nest import FOLDER

SYNAPSES = np.load(FOLDER / "nest_synapses.npz", allow_pickle=False)
CASES = json.loads(str(SYNAPSES["meta"]))["cases"]


@pytest.mark.parametrize("name", CASES)
def test_synapses_are_nests(dtype, name):
    """Also tau_syn = tau_m, what arrives in 5 ms of refractoriness, a period off the grid."""
    case, weight = CASES[name], SYNAPSES["arrival_weight"] * CASES[name]["scale"]
    cell, params = from_nest(case["model"], case["params"], dt=0.1)
    arrivals = np.zeros((2000, 2))
    np.add.at(arrivals, (SYNAPSES["arrival_step"].astype(int) - 1, np.where(weight > 0, 0, 1)), weight)
    arrivals = np.abs(arrivals) if "cond" in name else arrivals.sum(axis=1) if "delta" in name else arrivals
    _, output = jl.simulate(cell, params, jl.Drive(jnp.asarray(arrivals, float), jnp.zeros(2000)))
    spikes = (np.flatnonzero(output.spikes) + 1) * 0.1
    np.testing.assert_allclose(spikes, SYNAPSES[f"{name}/spikes"], rtol=0, atol=1e-9)
    # NEST's own errors: of its adaptive solver, and of a time constant 5e-5 beside tau_m, which costs it digits.
    solver = 1e-6 if "cond" in name else 1e-9
    atol = {"float64": solver, "float32": 2e-3}[dtype]
    np.testing.assert_allclose(output.v[4::5], SYNAPSES[f"{name}/v"], rtol=0, atol=atol)


def test_defaults_are_nests():
    """Of nest.GetDefaults("iaf_cond_exp"), NEST 3.10."""
    cell, params = from_nest("iaf_cond_exp", {}, dt=0.2)
    assert cell == jl.Synaptic(jl.LIF(dt=0.2), jl.Conductance())
    np.testing.assert_allclose([params.neuron.c_m, params.neuron.g_l], [250.0, 16.6667], rtol=1e-14)
    assert [params.neuron.v_rest, params.neuron.v_th, params.neuron.v_reset, params.neuron.t_ref] == [-70, -55, -60, 2]
    np.testing.assert_allclose(params.synapse.tau_syn, [0.2, 2.0], rtol=1e-6)
    assert params.synapse.e_rev.tolist() == [0.0, -85.0]


def test_what_goes_to_nest_comes_back():
    neuron = jl.LIFParams(tau_m=17.0, r_m=0.13, v_rest=-68.0, v_th=-51.0, v_reset=-61.0, t_ref=3.0)
    back = from_nest(*to_nest(neuron), dt=0.1)[1].neuron
    for name, value in vars(neuron).items():
        np.testing.assert_allclose(getattr(back, name), value, rtol=1e-15, err_msg=name)


@pytest.mark.parametrize(
    "synapse, own",
    [
        ("exp", jl.CurrentParams(tau_syn=jnp.array([1.0, 4.0]))),
        ("alpha", jl.CurrentParams(tau_syn=3.0)),
        ("cond_exp", jl.ConductanceParams(tau_syn=jnp.array([1.0, 4.0]), e_rev=jnp.array([5.0, -77.0]))),
        ("cond_alpha", jl.ConductanceParams(tau_syn=jnp.array([1.0, 4.0]), e_rev=jnp.array([5.0, -77.0]))),
        (
            "cond_beta",
            jl.DoubleExponentialConductanceParams(
                tau_rise=jnp.array([0.5, 1.0]), tau_decay=5.0, e_rev=jnp.array([5.0, -77.0])
            ),
        ),
    ],
)
def test_synapses_go_to_nest_and_come_back(synapse, own):
    for neuron in (jl.LIFParams(t_ref=3.0), jl.AdExParams())[: 1 if synapse == "cond_beta" else 2]:
        name, parameters = to_nest(jl.SynapticParams(neuron=neuron, synapse=own), synapse=synapse)
        assert name.endswith(synapse) and set(parameters) <= set(MODELS[name].defaults) | {"V_m"}
        _, back = from_nest(name, parameters, dt=0.1)
        for field, value in vars(own).items():
            np.testing.assert_allclose(getattr(back.synapse, field), np.broadcast_to(value, 2), rtol=1e-15)
        np.testing.assert_allclose([back.neuron.tau_m, back.neuron.r_m], [neuron.tau_m, neuron.r_m], rtol=1e-15)
    with pytest.raises(ValueError, match=f'^params.synapse = NoneType: synapse = "{synapse}" takes'):
        to_nest(jl.SynapticParams(), synapse=synapse)
    three = jl.SynapticParams(synapse=type(own)(**vars(own) | {next(iter(vars(own))): jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"has shape \(3,\): NEST has two receptors"):
        to_nest(three, synapse=synapse)


def test_parameters_of_many_neurons():
    _, params = from_nest("iaf_psc_exp", {"C_m": np.array([100.0, 200.0]), "tau_syn_in": np.array([3.0, 4.0])}, dt=0.1)
    np.testing.assert_allclose(params.neuron.r_m, [0.1, 0.05], rtol=1e-15)
    np.testing.assert_array_equal(params.synapse.tau_syn, jnp.array([[2.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"tau_x": 3.0}, "parameters has tau_x: {model} has no such parameter, or none that is known here"),
        ({"I_e": 300.0}, "I_e = 300.0: a constant current belongs to the input, Drive.input, in pA, and I_e must be 0"),
        (
            {"V_m": -60.0},
            "V_m = -60.0: a neuron starts at E_L, another voltage goes into the state, and V_m must be {rest:g}",
        ),
        ({"C_m": 0.0}, "C_m = 0 pF: C_m must be greater than 0 pF"),
        ({"t_ref": -1.0}, "t_ref = -1 ms: t_ref must be 0 ms or more"),
        ({"frozen": True}, "frozen = True: it has no counterpart here, and frozen must be False"),
    ],
)
def test_what_has_no_counterpart_is_refused(model, parameters, message):
    with pytest.raises(ValueError) as error:
        from_nest(model, parameters, dt=0.1)
    assert str(error.value) == message.format(model=model, rest=MODELS[model].defaults["E_L"])


def test_the_status_of_a_fresh_neuron_will_do():
    status = {"V_m": -70.0, "V_min": -np.inf, "refractory_input": False, "global_id": 3, "frozen": False, "I_e": 0.0}
    assert from_nest("iaf_psc_delta", status, dt=0.1) == from_nest("iaf_psc_delta", {}, dt=0.1)
    with pytest.raises(ValueError, match="^V_min = -90.0: it has no counterpart here"):
        from_nest("iaf_psc_delta", {"V_min": -90.0}, dt=0.1)
    with pytest.raises(ValueError, match='^model = .hh_psc.: model must be "iaf_psc_delta", '):
        from_nest("hh_psc", {}, dt=0.1)
