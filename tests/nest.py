"""The stored NEST traces, and the same neurons in jaxlif: tests/data/README.md says where the numbers come from."""

import json
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxlif as jl

FOLDER = Path(__file__).parent / "data"
STIMULI = ("const_RI12_VR-65_tref2", "const_RI16_VR-65_tref2", "const_RI30_VR-70_tref5", "steps", "spikes")
CASES = [f"{model}__{s}" for model in ("iaf_psc_delta", "iaf_psc_exp", "iaf_cond_exp") for s in STIMULI]
NUM_STEPS = 3000  # of the longest case: the others are padded, so that each model compiles once


class Case(NamedTuple):
    """One NEST run, and the cell, params and inputs that should reproduce it."""

    cell: jl.Synaptic
    params: jl.SynapticParams
    inputs: jl.Drive
    v: np.ndarray  # [T], mV, at the ends of the steps
    spike_times: np.ndarray  # ms


def load(name):
    stored = np.load(FOLDER / f"nest_{name}.npz", allow_pickle=False)
    meta = json.loads(str(stored["meta"]))
    cell, params = BUILDERS[meta["model"]](meta["params"], meta["dt"])
    current = np.zeros(NUM_STEPS)
    current[: stored["current"].size] = stored["current"]
    arrivals = np.zeros((NUM_STEPS, 2))
    if "arrival_step" in stored:
        # NEST counts t_0 = 0 as step 0: what arrives at t_s arrives at the end of our step s - 1.
        step, weight = stored["arrival_step"].astype(int) - 1, stored["arrival_weight"]
        np.add.at(arrivals, (step, np.where(weight > 0, 0, 1)), weight)
    if isinstance(cell.synapse, jl.Conductance):
        arrivals = np.abs(arrivals)  # NEST writes an inhibitory conductance as a negative weight
    if isinstance(cell.synapse, jl.VoltageJump):
        arrivals = arrivals.sum(axis=1)
    inputs = jl.Drive(jnp.asarray(arrivals, float), jnp.asarray(current, float))
    return Case(cell, params, inputs, stored["v"][1:], stored["spikes"])


def _neuron(p, tau_m):
    return jl.LIFParams(
        tau_m=tau_m,
        r_m=tau_m / p["C_m"],
        v_rest=p["E_L"],
        v_th=p["V_th"],
        v_reset=p["V_reset"],
        t_ref=p["t_ref"],
    )


def _delta(p, dt):
    return jl.Synaptic(jl.LIF(dt=dt), jl.VoltageJump()), jl.SynapticParams(neuron=_neuron(p, p["tau_m"]))


def _exponential(p, dt):
    synapse = jl.CurrentParams(tau_syn=jnp.array([p["tau_syn_ex"], p["tau_syn_in"]]))
    params = jl.SynapticParams(neuron=_neuron(p, p["tau_m"]), synapse=synapse)
    return jl.Synaptic(jl.LIF(dt=dt), jl.ExponentialCurrent()), params


def _conductance(p, dt):
    synapse = jl.ConductanceParams(
        tau_syn=jnp.array([p["tau_syn_ex"], p["tau_syn_in"]]), e_rev=jnp.array([p["E_ex"], p["E_in"]])
    )
    params = jl.SynapticParams(neuron=_neuron(p, p["C_m"] / p["g_L"]), synapse=synapse)
    return jl.Synaptic(jl.LIF(dt=dt), jl.Conductance()), params


BUILDERS = {"iaf_psc_delta": _delta, "iaf_psc_exp": _exponential, "iaf_cond_exp": _conductance}
