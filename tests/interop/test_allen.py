"""Allen GLIF models: by hand, against AllenSDK's own spikes, and step by step against its equations as a plain loop."""

import copy
import math
import re

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop.allen import from_allen


def method(name, **params):
    return {"name": name, "params": params}


# A neuron of the size of the published ones, in the published form; SI units.
GLIF3 = {
    "type": "GLIF",
    "El_reference": -0.07,
    "El": 0.0,
    "C": 1.1e-10,
    "R_input": 2.6e8,
    "th_inf": 0.027,
    "dt": 5e-5,
    "spike_cut_length": 84,
    "asc_tau_array": [0.1, 0.0333],
    "asc_amp_array": [-3.1e-11, -3.6e-11],
    "init_voltage": 0.0,
    "init_threshold": 0.027,
    "init_AScurrents": [0.0, 0.0],
    "th_adapt": None,
    "coeffs": {"a": 1, "C": 1.1, "b": 1, "G": 0.9, "th_inf": 1.02, "asc_amp_array": [1.2, 0.8]},
    "voltage_dynamics_method": method("linear_forward_euler"),
    "voltage_reset_method": method("zero"),
    "threshold_dynamics_method": method("inf"),
    "threshold_reset_method": method("inf"),
    "AScurrent_dynamics_method": method("exp"),
    "AScurrent_reset_method": method("sum", r=[1.0, 1.0]),
}
GLIF1 = GLIF3 | {"AScurrent_dynamics_method": method("none"), "AScurrent_reset_method": method("none")}
SPIKE = {"a_spike": 0.0035, "b_spike": 71.6}
MOVING = {
    "voltage_reset_method": method("v_before", a=0.0, b=0.004),
    "threshold_dynamics_method": method("spike_component", **SPIKE, a_voltage=0.0, b_voltage=0.0),
    "threshold_reset_method": method("three_components", **SPIKE),
}
CONFIGS = {
    "GLIF1": GLIF1,
    "GLIF1 no cut": GLIF1 | {"spike_cut_length": 0},
    "GLIF3": GLIF3,
    "GLIF2 fixed reset": GLIF1 | MOVING,
    "GLIF4 fixed reset": GLIF3 | MOVING,
    "GLIF4 no cut": GLIF3 | MOVING | {"spike_cut_length": 0},
}
TIME = 0.05 * np.arange(8000)  # ms
CURRENT = 250.0 + 120.0 * np.sin(0.11 * TIME) + 90.0 * np.sin(0.037 * TIME**1.1)  # pA

# The steps in which AllenSDK 2.16.2 (allensdk.model.glif, GlifNeuron.run) finds spikes for these configs and CURRENT.
ALLENSDK = {
    "GLIF1": [227, 493, 944, 1340, 2142, 2453, 2704, 3416, 3800, 4265, 4625, 4907, 5774, 6042, 6337, 6960, 7344, 7868],
    "GLIF1 no cut": [
        227,
        404,
        612,
        1009,
        1328,
        1627,
        2287,
        2489,
        2654,
        2853,
        3511,
        3807,
        4138,
        4508,
        4727,
        4927,
        5735,
        5957,
        6131,
        6345,
        6886,
        7205,
        7584,
        7958,
    ],
    "GLIF3": [227, 535, 1295, 2394, 2712, 3863, 4626, 5892, 6241, 7332],
    "GLIF2 fixed reset": [
        227,
        483,
        899,
        1300,
        1714,
        2328,
        2577,
        2858,
        3564,
        3909,
        4381,
        4688,
        4976,
        5794,
        6051,
        6344,
        6946,
        7312,
        7824,
    ],
    "GLIF4 fixed reset": [227, 521, 1265, 2377, 2680, 3829, 4595, 5016, 6039, 7092, 7981],
    "GLIF4 no cut": [227, 427, 1004, 1567, 2477, 2715, 3866, 4596, 4921, 6014, 6320, 7459],
}


def test_glif1_by_hand():
    """Coefficients multiply; the amplitudes of a model without after-spike currents are not used."""
    params, notes = from_allen(GLIF1)
    assert type(params) is jl.LIFParams
    expected = {
        "tau_m": 0.26 / 0.9 * 121.0,  # ms = GΩ pF
        "r_m": 0.26 / 0.9,
        "v_rest": -70.0,
        "v_th": -70.0 + 27.54,
        "v_reset": -70.0,
        "t_ref": 4.2,
    }
    assert vars(params) == pytest.approx(expected, rel=1e-12)
    assert notes == (
        "AllenSDK's spike times are 0.05 ms earlier: it labels a spike with the start of its step",
        "tau_m is RC; AllenSDK's forward Euler at 0.05 ms is met by forward_euler=True",
    )


def test_glif3_by_hand():
    """A negative amplitude is outward, and is what is left of the jump when the cut ends."""
    params, _ = from_allen(GLIF3)
    assert params.tau_eta == pytest.approx((100.0, 33.3))
    assert params.eta == pytest.approx((31.0 * 1.2 * math.exp(4.2 / 100.0), 36.0 * 0.8 * math.exp(4.2 / 33.3)))
    assert params.gamma == () and params.a == () and params.coupling is None


def test_the_spike_component_of_a_threshold_by_hand():
    params, _ = from_allen(CONFIGS["GLIF4 fixed reset"])
    assert params.v_reset == pytest.approx(-66.0)
    assert params.tau_gamma == pytest.approx((1000.0 / 71.6,))
    assert params.gamma == pytest.approx((3.5 * math.exp(0.0716 * 4.15),))


def test_a_rest_away_from_the_reference():
    params, notes = from_allen(GLIF1 | {"El": 0.002, "init_voltage": 0.003, "init_AScurrents": [1e-12, 0.0]})
    assert (params.v_rest, params.v_reset, params.v_th) == pytest.approx((-68.0, -70.0, -42.46))
    assert notes[2:] == (
        "init_voltage = 0.003 V is not a parameter: set it in the initial state",
        "init_AScurrents = [1e-12, 0.0] A is not a parameter: set it in the initial state",
    )


def glif(config, current, exact=False):
    """Step Allen's GLIF equations in SI units; return spikes and voltages, nan in a cut."""
    c, k, dt = config, config["coeffs"], config["dt"]
    capacitance, conductance = c["C"] * k["C"], k["G"] / c["R_input"]
    tau, decay = np.array(c["asc_tau_array"]), np.exp(-dt / np.array(c["asc_tau_array"]))
    has_currents = c["AScurrent_dynamics_method"]["name"] == "exp"
    amplitudes = has_currents * np.array(c["asc_amp_array"]) * np.array(k["asc_amp_array"])
    spike = c["threshold_reset_method"]["params"] or {"a_spike": 0.0, "b_spike": 1.0}
    reset, cut = c["voltage_reset_method"]["params"].get("b", 0.0), c["spike_cut_length"]
    v, moved, currents = c["init_voltage"], 0.0, np.zeros(len(tau))
    spikes, voltages, n = np.zeros(len(current)), np.full(len(current), np.nan), 0
    while n < len(current):
        inward = current[n] * 1e-12 + currents.sum()
        if exact:
            v_inf = c["El"] + inward / conductance
            v = v_inf + (v - v_inf) * math.exp(-dt * conductance / capacitance)
        else:
            v = v + (inward - conductance * (v - c["El"])) * dt / capacitance
        currents = currents * decay
        moved = moved * math.exp(-spike["b_spike"] * dt)
        voltages[n] = v
        if v > moved + c["th_inf"] * k["th_inf"]:
            spikes[n], voltages[n], v = 1.0, np.nan, reset
            currents = amplitudes + currents * np.exp(-dt * cut / tau)
            moved = moved * math.exp(-spike["b_spike"] * dt * cut) + spike["a_spike"]
            n += cut
        n += 1
    return spikes, 1e3 * (voltages + c["El_reference"])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loop_is_allensdk(name):
    spikes, _ = glif(CONFIGS[name], CURRENT)
    assert np.flatnonzero(spikes).tolist() == ALLENSDK[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_with_forward_euler_it_spikes_where_allensdk_does(name):
    params, notes = from_allen(CONFIGS[name], forward_euler=True)
    cell = (jl.AdaptiveLIF if isinstance(params, jl.AdaptiveLIFParams) else jl.LIF)(dt=0.05)
    _, output = jl.simulate(cell, params, CURRENT)
    assert np.flatnonzero(output.spikes).tolist() == ALLENSDK[name]
    _, voltages = glif(CONFIGS[name], CURRENT)
    seen = np.isfinite(voltages)
    np.testing.assert_allclose(np.asarray(output.v)[seen], voltages[seen], rtol=0, atol=1e-10)
    assert "tau_m holds AllenSDK's forward Euler: use a cell with dt = 0.05 ms" in notes


def test_without_it_it_is_the_exact_solution():
    params, _ = from_allen(GLIF3)
    _, output = jl.simulate(jl.AdaptiveLIF(dt=0.05), params, CURRENT)
    spikes, voltages = glif(GLIF3, CURRENT, exact=True)
    np.testing.assert_array_equal(output.spikes, spikes)
    seen = np.isfinite(voltages)
    np.testing.assert_allclose(np.asarray(output.v)[seen], voltages[seen], rtol=0, atol=1e-10)


def test_a_file_that_is_stepped_exactly_needs_no_euler():
    config = GLIF1 | {"voltage_dynamics_method": method("linear_exact")}
    assert from_allen(config, forward_euler=True) == from_allen(config)
    assert len(from_allen(config)[1]) == 1


def test_the_dict_is_left_as_it_was():
    before = copy.deepcopy(GLIF3)
    from_allen(GLIF3)
    assert before == GLIF3


THREE = method("three_components_exact", **SPIKE, a_voltage=34.7, b_voltage=199.0)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"voltage_reset_method": method("v_before", a=0.5, b=0.004)},
            "voltage_reset_method.a = 0.5: the voltage after a spike must not depend on that before it, only a slope "
            "of 0 can be read",
        ),
        (
            MOVING | {"threshold_dynamics_method": THREE},
            "threshold_dynamics_method.a_voltage = 34.7 1/s: AllenSDK stops it during a spike, which jaxlif's coupling "
            "does not, a_voltage must be 0",
        ),
        ({"coeffs": [1.0]}, "coeffs = [1.0]: it must be an object with names"),
        (
            {"AScurrent_reset_method": {"name": "sum", "params": 3}},
            "AScurrent_reset_method.params = 3: it must be an object with names",
        ),
        ({"C": 10**400}, "C has 401 digits: it must be finite"),
        (
            {"asc_tau_array": [1e-9, 0.1]},
            "asc_tau_array: over the refractory period it changes by exp(4.2e+06), beyond all numbers",
        ),
        (
            {"AScurrent_reset_method": method("sum", r=[1.0, 0.5])},
            "AScurrent_reset_method.r.1 = 0.5: a spike must leave the earlier currents as they are, r must be 1",
        ),
        (
            {"threshold_dynamics_method": method("fixed", value=0.02)},
            "threshold_dynamics_method = 'fixed': it must be 'inf' or 'spike_component' or 'three_components_exact'",
        ),
        (
            {"voltage_dynamics_method": method("quadratic_i_of_v")},
            "voltage_dynamics_method = 'quadratic_i_of_v': it must be 'linear_forward_euler' or 'linear_exact'",
        ),
        (
            MOVING | {"threshold_reset_method": method("three_components", a_spike=0.0035, b_spike=70.0)},
            "threshold_reset_method.b_spike = 70 1/s: it must be that of the dynamics, 71.6 1/s",
        ),
        (
            {"asc_amp_array": [1e-12]},
            "asc_amp_array has 1 terms, asc_tau_array 2 and coeffs.asc_amp_array 2: they come together",
        ),
        ({"asc_tau_array": [0.1, 0.0]}, "asc_tau_array.1 = 0 ms: asc_tau_array.1 must be greater than 0 ms"),
        (
            MOVING | {"threshold_reset_method": method("three_components", a_spike=0.0035)},
            "threshold_reset_method.b_spike = None: it must be a number",
        ),
        ({"C": None}, "C = None: it must be a number"),
        ({"C": -1e-10}, "C = -110 pF: C must be greater than 0 pF"),
        ({"spike_cut_length": -1}, "spike_cut_length = -1 steps: spike_cut_length must be 0 steps or more"),
        ({"asc_tau_array": 0.1}, "asc_tau_array = 0.1: it must be a list of numbers"),
        (
            {"threshold_reset_method": None},
            'threshold_reset_method is missing: it must be {"name": ..., "params": {...}}',
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_allen(GLIF3 | change)


def test_a_step_too_long_for_euler_is_refused():
    with pytest.raises(ValueError, match="^dt = 50 ms: forward Euler must have a step below RC = 34.9556 ms$"):
        from_allen(GLIF1 | {"dt": 0.05}, forward_euler=True)
