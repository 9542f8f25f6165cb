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
    # Of a constant current the stored one is what acts.
    cell, params = jl.interop.from_nest(meta["model"], meta["params"] | {"I_e": 0.0}, dt=meta["dt"])
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
