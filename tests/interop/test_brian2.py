"""Export to Brian2: the text by hand, and its schedule as a plain loop that evaluates that text."""

import math
import re

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop.brian2 import to_brian2, to_script
from jaxlif.neurons.escape import Noisy

DT = 0.1
FULL = jl.AdaptiveLIFParams(
    tau_m=15.0,
    t_ref=3.05,
    v_reset=-65.0,
    eta=(60.0, 15.0),
    tau_eta=(10.0, 90.0),
    gamma=(3.0,),
    tau_gamma=(40.0,),
    a=(1.0,),
    tau_a=(120.0,),
    coupling=jl.VoltageCoupling(b=0.4, tau=6.0, v_i=-62.0, k=2.0),
    delta_v=1.5,
    lambda_0=0.5,
)
CURRENT = np.random.default_rng(5).normal(350.0, 400.0, 6000)


def test_the_plain_neuron_by_hand():
    model = to_brian2(jl.LIFParams(tau_m=20.0, r_m=0.25, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=2.05))
    assert model.equations == "dv/dt = (v_rest - v + r_m*(I(t)))/tau_m : volt (unless refractory)"
    assert model[1:5] == ("v >= v_th", "v = v_reset", "t_ref + dt", "exponential_euler")
    assert model.namespace == {
        "tau_m": (20.0, "ms"),
        "r_m": (0.25, "Gohm"),
        "v_rest": (-68.0, "mV"),
        "v_th": (-51.0, "mV"),
        "v_reset": (-60.0, "mV"),
        "t_ref": (2.1, "ms"),
    }
    assert model.initial == {"v": "v_rest"}


def test_the_full_neuron_by_hand():
    model = to_brian2(FULL)
    assert model.equations.splitlines() == [
        "dv/dt = (v_rest - v + r_m*(I(t) - w_0 - w_1 - u_0))/tau_m : volt (unless refractory)",
        "dw_0/dt = -w_0/tau_eta_0 : amp",
        "dw_1/dt = -w_1/tau_eta_1 : amp",
        "dh_0/dt = -h_0/tau_gamma_0 : volt",
        "du_0/dt = (a_0*(v - v_rest) - u_0)/tau_a_0 : amp",
        "dx/dt = (k_x*log1p(exp((v - v_x)/k_x)) - x)/tau_x : volt",
    ]
    assert model.threshold == "v >= v_th + h_0 + b_x*x"
    assert model.reset.splitlines() == [
        "v = v_reset",
        "w_0 += eta_0",
        "w_1 += eta_1",
        "h_0 += gamma_0*exp(dt/tau_gamma_0)",
    ]
    units = {name: unit for name, (_, unit) in model.namespace.items()}
    assert units["eta_1"] == "pA" and units["gamma_0"] == "mV" and units["a_0"] == "nS" and units["b_x"] == "1"
    assert model.namespace["eta_1"][0] == 15.0 and model.namespace["t_ref"][0] == 3.1
    assert "delta_v" not in units and "lambda_0" not in units


def test_escape_noise_by_hand():
    model = to_brian2(FULL, escape_noise=True)
    assert model.threshold == "rand() < -expm1(-lambda_0*dt*exp((v - (v_th + h_0 + b_x*x))/delta_v))"
    assert model.namespace["lambda_0"] == (0.5, "kHz") and model.namespace["delta_v"] == (1.5, "mV")


FUNCTIONS = {"exp": np.exp, "expm1": np.expm1, "log1p": np.log1p}


def brian2_schedule(model, current, uniform, dt):
    """Run a model's text in Brian2's order: state update by exponential Euler, threshold, reset.

    ms, mV, pA, GΩ and nS, and kHz for a rate, are consistent: the units' names need no factor. A derivative linear in
    its own variable y, f(y) = f(0) + s y, relaxes to -f(0)/s at the rate s, everything else held over the step.
    """
    scope = FUNCTIONS | {name: value for name, (value, _) in model.namespace.items()} | {"dt": dt}
    lines = [re.fullmatch(r"d(\w+)/dt = (.*) : .*", line).groups() for line in model.equations.splitlines()]
    rates = {name: compile(text, name, "eval") for name, text in lines}
    threshold, reset = compile(model.threshold, "threshold", "eval"), compile(model.reset, "reset", "exec")
    state = dict.fromkeys(rates, 0.0)
    state |= {name: float(eval(text, scope | {"v": scope["v_rest"]})) for name, text in model.initial.items()}
    held = round(eval(model.refractory, scope) / dt)  # active again that many steps after the spike
    last, spikes, voltages = -math.inf, [], []
    for n, i in enumerate(current):
        now = scope | {"I": lambda t, i=i: i, "t": n * dt, "rand": lambda n=n: uniform[n]}
        active, new = n - last >= held, {}
        for name, rate in rates.items():
            at_zero, at_one = (eval(rate, now | state | {name: y}) for y in (0.0, 1.0))
            slope = at_one - at_zero
            new[name] = -at_zero / slope + (state[name] + at_zero / slope) * math.exp(slope * dt)
        state = new | ({} if active else {"v": state["v"]})
        spiked = bool(active and eval(threshold, now | state))
        if spiked:
            last, after = n, now | state
            exec(reset, after)
            state = {name: after[name] for name in state}
        spikes.append(spiked), voltages.append(state["v"])
    return np.array(spikes), np.array(voltages)


@pytest.mark.parametrize("t_ref", [0.0, 3.05])
def test_the_text_in_brian2s_order_is_the_adaptive_neuron(t_ref):
    params = jl.AdaptiveLIFParams(**vars(FULL) | {"t_ref": t_ref})
    spikes, voltages = brian2_schedule(to_brian2(params, dt=DT), CURRENT, np.zeros(len(CURRENT)), DT)
    _, output = jl.simulate(jl.AdaptiveLIF(dt=DT), params, CURRENT)
    assert spikes.sum() > 20
    np.testing.assert_array_equal(output.spikes, spikes)
    # The relaxation is computed from two values of a derivative here: 6000 steps of 1e-12 mV.
    np.testing.assert_allclose(output.v, voltages, rtol=0, atol=1e-8)


def test_the_text_in_brian2s_order_is_the_plain_neuron():
    spikes, voltages = brian2_schedule(to_brian2(jl.LIFParams(), dt=DT), CURRENT, np.zeros(len(CURRENT)), DT)
    _, output = jl.simulate(jl.LIF(dt=DT), jl.LIFParams(), CURRENT)
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose(output.v, voltages, rtol=0, atol=1e-8)


def test_the_text_in_brian2s_order_has_the_escape_noise():
    uniform = np.random.default_rng(7).random(len(CURRENT))
    spikes, _ = brian2_schedule(to_brian2(FULL, dt=DT, escape_noise=True), CURRENT, uniform, DT)
    cell = jl.EscapeNoise(jl.AdaptiveLIF(dt=DT))
    _, output = jl.simulate(cell, FULL, Noisy(CURRENT, -np.log1p(-uniform)))
    assert spikes.sum() > 20
    np.testing.assert_array_equal(output.spikes, spikes)


@pytest.mark.parametrize("params, noise", [(jl.LIFParams(), False), (FULL, False), (FULL, True)])
def test_the_script_is_python_with_the_model_in_it(params, noise):
    model = to_brian2(params, escape_noise=noise)
    text = to_script(model, [0.0, 100.0], neurons=3, seed=5)
    compile(text, "neuron.py", "exec")
    assert model.equations in text and repr(model.threshold) in text and model.reset in text
    assert "'tau_m': " in text and "*brian2.Gohm" in text and "brian2.seed(5)" in text


@pytest.mark.parametrize(
    "params, options, message",
    [
        (
            jl.LIFParams(),
            {"escape_noise": True},
            "escape_noise is set: params must be AdaptiveLIFParams, with delta_v (mV) and lambda_0 (1/ms)",
        ),
        (
            jl.LIFParams(tau_m=np.ones(2)),
            {},
            "tau_m has shape (2,): it must be a number, one neuron is written at a time",
        ),
        (
            jl.AdaptiveLIFParams(coupling=jl.VoltageCoupling(b=np.ones(4))),
            {},
            "coupling.b has shape (4,): it must be a number, one neuron is written at a time",
        ),
        (jl.LIFParams(), {"dt": -1.0}, "dt = -1 ms: dt must be greater than 0 ms"),
        (jl.LIFParams(v_reset=-50.0), {}, "v_reset = -50 mV: v_reset must be below v_th = -55 mV"),
    ],
)
def test_what_cannot_be_written_is_refused(params, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_brian2(params, **options)
