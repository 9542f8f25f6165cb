"""Export to NEST and Brian2: names, values and units by hand; each program's schedule as a plain loop; refusals."""

import math
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop import from_nest
from jaxlif.interop.export import to_brian2, to_nest, to_script
from jaxlif.neurons.wrappers import Noisy
from tests.neurons.test_adaptive import CURRENT, PARAMS

DT = 0.1
GIF = jl.AdaptiveLIFParams(
    tau_m=20.0,
    r_m=0.25,
    v_rest=-70.0,
    v_th=-52.0,
    v_reset=-62.0,
    t_ref=3.0,
    eta=(30.0, 5.0),
    tau_eta=(12.0, 150.0),
    gamma=(4.0, -1.0),
    tau_gamma=(30.0, 200.0),
    delta_v=1.5,
    lambda_0=0.4,
)


def test_the_plain_neuron_in_nests_names_and_units():
    params = jl.LIFParams(tau_m=20.0, r_m=0.25, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=2.0)
    expected = {
        "C_m": 80.0,  # pF = 20 ms / 0.25 GΩ
        "tau_m": 20.0,
        "E_L": -68.0,
        "V_m": -68.0,
        "V_th": -51.0,
        "V_reset": -60.0,
        "t_ref": 2.0,
    }
    assert to_nest(params) == ("iaf_psc_delta", expected)
    assert to_nest(params, synapse="exp") == ("iaf_psc_exp", expected)


def test_the_generalised_neuron_in_nests_names_and_units():
    name, parameters = to_nest(GIF)
    assert name == "gif_psc_exp"
    assert parameters == {
        "C_m": 80.0,
        "g_L": 4.0,  # nS = 1 / 0.25 GΩ
        "E_L": -70.0,
        "V_m": -70.0,
        "V_reset": -62.0,
        "t_ref": 3.0,
        "V_T_star": -52.0,
        "Delta_V": 1.5,
        "lambda_0": 400.0,  # 1/s
        "q_stc": [30.0, 5.0],
        "tau_stc": [12.0, 150.0],
        "q_sfa": [4.0, -1.0],
        "tau_sfa": [30.0, 200.0],
    }


@pytest.mark.parametrize("t_ref, dt, expected", [(2.1, 0.1, 2.1), (2.11, 0.1, 2.2), (0.3, 0.1, 0.3), (2.1, 0.5, 2.5)])
def test_the_refractory_period_is_whole_steps(t_ref, dt, expected):
    assert to_nest(jl.LIFParams(t_ref=t_ref), dt=dt)[1]["t_ref"] == expected


def test_arrays_of_one_number_are_numbers(dtype):
    params = jl.LIFParams(**{name: jnp.asarray(value, dtype) for name, value in vars(jl.LIFParams()).items()})
    _, parameters = to_nest(params)
    assert all(type(value) is float for value in parameters.values())
    assert parameters["C_m"] == pytest.approx(100.0, rel=1e-6)


def gif_psc_exp(parameters, current, uniform, dt):
    """Step NEST's gif_psc_exp as it is documented; return its spikes, and its voltage where it is not spiking."""
    p, tau_m = parameters, parameters["C_m"] / parameters["g_L"]
    stc, sfa = np.zeros(len(p["q_stc"])), np.zeros(len(p["q_sfa"]))
    v, left, spikes, voltages = p["V_m"], 0, np.zeros(len(current)), np.zeros(len(current))
    for n, i in enumerate(current):
        outward, threshold = stc.sum(), p["V_T_star"] + sfa.sum()
        stc, sfa = stc * np.exp(-dt / np.array(p["tau_stc"])), sfa * np.exp(-dt / np.array(p["tau_sfa"]))
        if left == 0:
            decay = math.exp(-dt / tau_m)
            v = decay * v + (1.0 - decay) * (p["E_L"] + (i - outward) / p["g_L"])
            rate = p["lambda_0"] / 1000.0 * math.exp((v - threshold) / p["Delta_V"])
            if uniform[n] < -math.expm1(-rate * dt):
                stc, sfa = stc + p["q_stc"], sfa + p["q_sfa"]
                left, spikes[n] = round(p["t_ref"] / dt), 1.0
        else:
            left, v = left - 1, p["V_reset"]
        voltages[n] = v
    return spikes, voltages


def test_gif_psc_exp_with_these_parameters_is_the_neuron_with_escape_noise():
    """A uniform number u below 1 - exp(-λ dt) is -log(1 - u) below λ dt: the same noise for both; 20 000 steps."""
    rng = np.random.default_rng(4)
    current, uniform = rng.normal(70.0, 60.0, 20_000), rng.random(20_000)
    spikes, voltages = gif_psc_exp(to_nest(GIF, dt=DT)[1], current, uniform, DT)
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), GIF, Noisy(current, -np.log1p(-uniform)))
    assert 20 < spikes.sum() < 200
    np.testing.assert_array_equal(output.spikes, spikes)
    quiet = spikes == 0  # in the step of a spike NEST still shows the voltage before the reset
    np.testing.assert_allclose(np.asarray(output.v)[quiet], voltages[quiet], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"coupling": jl.VoltageCoupling()},
            "coupling is set: NEST's gif_psc_exp has no threshold that follows the voltage",
        ),
        (
            {"mechanisms": (jl.MembraneCurrent(),)},
            "mechanisms.0 = MembraneCurrent: NEST's gif_psc_exp has no such current, mechanisms must be ()",
        ),
        (
            {"a": (2.0,), "tau_a": (100.0,)},
            "a = (2.0,) nS: NEST's gif_psc_exp has no subthreshold adaptation, a must be ()",
        ),
        (
            {"t_ref": 0.0},
            "t_ref = 0 ms: NEST's gif_psc_exp resets in it, it must be 0.1 ms or more",
        ),
        (
            {"tau_m": np.array([10.0, 20.0])},
            "tau_m has shape (2,): it must be a number, one neuron is written at a time",
        ),
        (
            {"eta": (1.0, np.ones(3))},
            "eta.1 has shape (3,): it must be a number, one neuron is written at a time",
        ),
        ({"delta_v": 0.0}, "delta_v = 0 mV: delta_v must be greater than 0 mV"),
    ],
)
def test_what_nest_does_not_have_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_nest(replace(GIF, **change))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dt": 0.0}, "dt = 0 ms: dt must be greater than 0 ms"),
        (
            {"synapse": "beta"},
            'synapse = \'beta\': synapse must be "delta", "exp", "alpha", "cond_exp", "cond_alpha" or "cond_beta"',
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_nest(jl.LIFParams(), **options)


def test_other_params_are_refused():
    with pytest.raises(
        ValueError, match="^params is a LeakyParams: it must be LIFParams, AdaptiveLIFParams or AdExParams$"
    ):
        to_nest(jl.LeakyParams())


def test_a_current_must_be_one_finite_trace():
    with pytest.raises(ValueError, match=r"^current has shape \(2, 2\): current must be an array of rank 1, pA$"):
        to_script(to_nest(jl.LIFParams()), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"^current\[1\] = nan pA: current must be finite$"):
        to_script(to_nest(jl.LIFParams()), [0.0, np.nan])
    with pytest.raises(ValueError, match="^current has 0 steps"):
        to_script(to_nest(jl.LIFParams()), [])


@pytest.mark.parametrize("model", [jl.LIFParams(), "iaf_psc_delta", {}, ("iaf_psc_delta", {}, 0.1), None])
def test_a_script_is_of_a_written_model(model):
    with pytest.raises(ValueError, match=f"^model = {type(model).__name__}: model must be what to_nest or to_brian2"):
        to_script(model, [0.0])


# --- Brian2 ---

FULL = replace(PARAMS, t_ref=3.05, lambda_0=0.5)


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
        "dv/dt = (v_rest - v + r_m*(I(t) - w_0 - w_1 - u_0 - a_x_0*x_0 - a_x_1*x_1))/tau_m : volt (unless refractory)",
        "dw_0/dt = -w_0/tau_eta_0 : amp",
        "dw_1/dt = -w_1/tau_eta_1 : amp",
        "dh_0/dt = -h_0/tau_gamma_0 : volt",
        "du_0/dt = (a_0*(v - v_rest) - u_0)/tau_a_0 : amp",
        "dx_0/dt = (k_x_0*log1p(exp((v - v_x_0)/k_x_0)) - x_0)/tau_x_0 : volt",
        "dx_1/dt = (k_x_1*log1p(exp((v - v_x_1)/k_x_1)) - x_1)/tau_x_1 : volt",
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
    own = {name: model.namespace[f"{name}_x_0"] for name in ("a", "tau", "v", "k")}
    assert own == {"a": (3.0, "nS"), "tau": (30.0, "ms"), "v": (-60.0, "mV"), "k": (3.0, "mV")}
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


@pytest.mark.parametrize(
    "params, options, message",
    [
        (
            jl.LIFParams(),
            {"escape_noise": True},
            "escape_noise is set: it needs AdaptiveLIFParams, with delta_v (mV) and lambda_0 (1/ms)",
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
        (
            jl.AdaptiveLIFParams(mechanisms=(jl.MembraneCurrent(), jl.Exponential())),
            {},
            "mechanisms.1 = Exponential: it has no Brian2 equations yet",
        ),
        (jl.LIFParams(), {"dt": -1.0}, "dt = -1 ms: dt must be greater than 0 ms"),
        (jl.LIFParams(v_reset=-50.0), {}, "v_reset = -50 mV: v_reset must be below v_th = -55 mV"),
    ],
)
def test_what_cannot_be_written_is_refused(params, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_brian2(params, **options)


@pytest.mark.parametrize(
    "model", [to_nest(jl.LIFParams()), to_nest(GIF), to_brian2(FULL), to_brian2(GIF, escape_noise=True)]
)
def test_the_script_is_python_with_the_model_in_it(model):
    text = to_script(model, [0.0, 100.0], neurons=3, seed=5)
    compile(text, "neuron.py", "exec")
    if isinstance(model, jl.interop.export.Brian2Model):
        assert model.equations in text and repr(model.threshold) in text and model.reset in text
        assert "'r_m': 0." in text and "*brian2.Gohm" in text and "brian2.seed(5)" in text
    else:
        assert repr(model[1]) in text and f"nest.Create('{model[0]}', 3," in text and "nest.rng_seed = 5" in text


def test_a_value_that_is_held_is_written_once():
    script = to_script(to_nest(jl.LIFParams()), [0.0, 0.0, 0.0, 1.5, 1.5, 0.0])
    assert "current = [0.0]*3 + [1.5]*2 + [0.0]*1  # pA" in script
    assert "current = [0.1, 0.2, 0.3]  # pA" in to_script(to_nest(jl.LIFParams()), [0.1, 0.2, 0.3])


def test_the_exponential_neuron_goes_to_nest_and_back():
    params = jl.AdExParams(
        tau_m=12.0, r_m=0.04, v_th=-10.0, t_ref=1.0, v_t=-48.0, delta_t=1.5, a=-3.0, tau_w=90.0, b=40.0
    )
    name, parameters = to_nest(params, synapse="exp")
    assert name == "aeif_psc_exp" and parameters["V_peak"] == -10.0 and parameters["V_th"] == -48.0
    back = from_nest(name, parameters, dt=DT)[1].neuron
    for field, value in vars(params).items():
        np.testing.assert_allclose(getattr(back, field), value, rtol=1e-15, err_msg=field)


def test_the_exponential_neuron_spikes_as_in_brian2():
    """Brian2 2.9 ran this script; its fourth order in steps of 0.02 ms is worth one step."""
    params, current = jl.AdExParams(t_ref=2.0), np.repeat([300.0, 800.0, 600.0, 1200.0, 0.0, 900.0], 2500)
    model = to_brian2(params, dt=0.02)
    assert "clip(v, -1*volt, v_th)" in to_script(model, current, dt=0.02) and model.namespace["delta_t"] == (2.0, "mV")
    _, output = jl.simulate(jl.AdEx(dt=0.02), params, current)
    times = (np.flatnonzero(output.spikes) + 1) * 0.02
    np.testing.assert_allclose(times, [63.84, 83.82, 155.22, 165.48, 176.88, 189.62, 281.44], rtol=0, atol=0.0201)
    with pytest.raises(ValueError, match="^escape_noise is set: it needs AdaptiveLIFParams"):
        to_brian2(params, escape_noise=True)
