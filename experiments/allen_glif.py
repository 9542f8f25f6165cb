"""Does a GLIF model of the Allen Institute, read into jaxlif, spike where AllenSDK does?

Question: the Allen Institute publishes GLIF models of its cells as a ``neuron_config``, in SI units and for another
order of operations. Can their parameters be those of ``jaxlif.LIF`` and ``jaxlif.AdaptiveLIF``?

Method: after a spike AllenSDK cuts out t_ref = ``spike_cut_length`` dt and only then adds the amplitudes A of its
currents and a of its threshold; here they are added at the spike and decay meanwhile, eta = -A exp(t_ref / tau) and
gamma = a exp(b (t_ref - dt)). An Allen current is positive when it depolarises, an eta when it flows outward. AllenSDK
steps the voltage by forward Euler: tau_m = -dt / log(1 - dt/RC) is the one whose exact step that is. Refused are what
jaxlif does not have: a reset that depends on the voltage before the spike, a threshold that follows the voltage, and
earlier currents that a spike scales (published GLIF2, 4 and 5 have the first, GLIF5 the second). Six models of
published form and size run under one current; the steps in which AllenSDK 2.16.2 (allensdk.model.glif, GlifNeuron.run)
found spikes stand below.

Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4.

Command: python experiments/allen_glif.py (a few seconds)
"""

import math
from typing import Any

import numpy as np
from claims import claim, table, write_claims

import jaxlif as jl


def main() -> None:
    time = 0.05 * np.arange(8000)  # ms
    current = 250.0 + 120.0 * np.sin(0.11 * time) + 90.0 * np.sin(0.037 * time**1.1)  # pA
    claims = []
    for name, config in CONFIGS.items():
        params = from_allen(config)
        cell = (jl.AdaptiveLIF if isinstance(params, jl.AdaptiveLIFParams) else jl.LIF)(dt=0.05)
        found = np.flatnonzero(jl.simulate(cell, params, current)[1].spikes)
        alone = len(set(found.tolist()) ^ set(ALLENSDK[name]))
        claims.append(claim(f"{name}: spikes that one of the two has alone", alone, f"of {len(found)}", "<= 0"))
    print(table(claims))
    write_claims("allen_glif", claims)


def from_allen(config: dict[str, Any]) -> jl.LIFParams | jl.AdaptiveLIFParams:
    """Return the parameters of a GLIF1 to GLIF4 for a cell with the file's dt; refuse what the neuron does not have."""
    scale = {"G": 1.0, "C": 1.0, "th_inf": 1.0, "asc_amp_array": np.ones(len(config["asc_amp_array"]))}
    scale |= config.get("coeffs") or {}
    methods = {field: config[f"{field}_method"]["name"] for field in METHODS}
    for field, known in METHODS.items():
        if methods[field] not in known:
            raise ValueError(f"{field}_method = {methods[field]!r}: it must be one of {', '.join(known)}")
    dt, reference = 1e3 * config["dt"], 1e3 * config["El_reference"]
    t_ref = math.floor(config["spike_cut_length"]) * dt
    r_m = 1e-9 * config["R_input"] / scale["G"]
    tau_m = r_m * 1e12 * config["C"] * scale["C"]
    if methods["voltage_dynamics"] == "linear_forward_euler":
        tau_m = -dt / math.log1p(-dt / tau_m)
    membrane = {
        "tau_m": tau_m,
        "r_m": r_m,
        "v_rest": reference + 1e3 * config["El"],
        "v_th": reference + 1e3 * config["th_inf"] * scale["th_inf"],
        "v_reset": reference + after_spike(config["voltage_reset_method"]),
        "t_ref": t_ref,
    }
    terms: dict[str, Any] = {}
    if methods["AScurrent_dynamics"] == "exp":
        if any(r != 1.0 for r in config["AScurrent_reset_method"]["params"]["r"]):
            raise ValueError(
                "AScurrent_reset_method.r: a spike must leave the earlier currents as they are, r must be 1"
            )
        tau = 1e3 * np.asarray(config["asc_tau_array"])
        eta = -1e12 * np.asarray(config["asc_amp_array"]) * scale["asc_amp_array"] * np.exp(t_ref / tau)
        terms |= {"eta": tuple(eta.tolist()), "tau_eta": tuple(tau.tolist())}
    if methods["threshold_dynamics"] != "inf":
        terms |= moving_threshold(config, t_ref - dt)
    params = jl.AdaptiveLIFParams(**membrane, **terms) if terms else jl.LIFParams(**membrane)
    params.check()
    return params


METHODS = {
    "voltage_dynamics": ("linear_forward_euler", "linear_exact"),
    "voltage_reset": ("zero", "v_before"),
    "AScurrent_dynamics": ("exp", "none"),
    "AScurrent_reset": ("sum", "none"),
    "threshold_dynamics": ("inf", "spike_component", "three_components_exact"),
    "threshold_reset": ("inf", "three_components"),
}


def after_spike(method: dict[str, Any]) -> float:
    """Return the voltage after a spike, mV from El_reference."""
    if method["name"] == "zero":
        return 0.0
    if method["params"]["a"] != 0.0:
        raise ValueError(f"voltage_reset_method.a = {method['params']['a']:g}: only a slope of 0 can be read")
    return 1e3 * method["params"]["b"]


def moving_threshold(config: dict[str, Any], held: float) -> dict[str, Any]:
    """Return what a spike adds to the threshold, and its decay."""
    dynamics, reset = (config[f"threshold_{part}_method"]["params"] for part in ("dynamics", "reset"))
    if dynamics.get("a_voltage"):
        raise ValueError(f"threshold_dynamics_method.a_voltage = {dynamics['a_voltage']:g} 1/s: it must be 0")
    rate = dynamics["b_spike"]
    if reset["b_spike"] != rate:
        raise ValueError(f"threshold_reset_method.b_spike = {reset['b_spike']:g} 1/s: it must be {rate:g} 1/s")
    return {"gamma": (1e3 * reset["a_spike"] * math.exp(1e-3 * rate * held),), "tau_gamma": (1e3 / rate,)}


def method(name: str, **params: Any) -> dict[str, Any]:
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

# The steps in which AllenSDK finds spikes.
ALLENSDK = {
    "GLIF1": [
        227, 493, 944, 1340, 2142, 2453, 2704, 3416, 3800, 4265, 4625, 4907, 5774, 6042, 6337, 6960, 7344, 7868,
    ],
    "GLIF1 no cut": [
        227, 404, 612, 1009, 1328, 1627, 2287, 2489, 2654, 2853, 3511, 3807, 4138, 4508, 4727, 4927, 5735, 5957,
        6131, 6345, 6886, 7205, 7584, 7958,
    ],
    "GLIF3": [
        227, 535, 1295, 2394, 2712, 3863, 4626, 5892, 6241, 7332,
    ],
    "GLIF2 fixed reset": [
        227, 483, 899, 1300, 1714, 2328, 2577, 2858, 3564, 3909, 4381, 4688, 4976, 5794, 6051, 6344, 6946, 7312,
        7824,
    ],
    "GLIF4 fixed reset": [
        227, 521, 1265, 2377, 2680, 3829, 4595, 5016, 6039, 7092, 7981,
    ],
    "GLIF4 no cut": [
        227, 427, 1004, 1567, 2477, 2715, 3866, 4596, 4921, 6014, 6320, 7459,
    ],
}  # fmt: skip

if __name__ == "__main__":
    main()
