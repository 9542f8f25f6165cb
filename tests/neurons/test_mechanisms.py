"""Mechanisms that follow the voltage, against their differential equations and limits that are known otherwise."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxlif as jl
from jaxlif.neurons.a_current import ACurrent
from jaxlif.neurons.exponential import Exponential
from jaxlif.neurons.mechanisms import Mechanism

SILENT = jl.AdaptiveLIFParams(tau_m=20.0, r_m=0.1, v_rest=-70.0, v_th=1000.0)
A, E = ACurrent(g=8.0), Exponential()


def slope_with_a_current(t, y, current):
    """dv/dt and dh/dt of the membrane with a transient potassium current."""
    v, h = y
    gate = 1.0 / (1.0 + np.exp(-(v + 35.0) / 8.0))
    dv = (-70.0 - v + 0.1 * (current - 8.0 * gate * h * (v + 90.0))) / 20.0
    return [dv, (1.0 / (1.0 + np.exp((v + 65.0) / 8.0)) - h) / 40.0]


def slope_of_the_exponential(t, y, current):
    """dv/dt of the exponential neuron, whose upstroke stays past 6 mV above -50 mV."""
    upstroke = 20.0 * np.exp(min((y[0] + 50.0) / 2.0, 3.0))
    return [(-70.0 - y[0] + 0.1 * (current + upstroke)) / 20.0]


@pytest.mark.parametrize(
    ("mechanism", "slope", "start", "current", "duration", "top"),
    [
        (A, slope_with_a_current, [-70.0, 1.0 / (1.0 + np.exp(-5.0 / 8.0))], 500.0, 100.0, -30.0),
        (E, slope_of_the_exponential, [-70.0], 165.0, 100.0, -54.0),  # below the rheobase
        (E, slope_of_the_exponential, [-70.0], 400.0, 19.0, -42.0),  # through its upstroke
    ],
)
def test_smaller_steps_come_to_the_differential_equation(mechanism, slope, start, current, duration, top):
    """Held over a step, a mechanism is exact to first order: half the step, half the error."""
    times = np.arange(1.0, duration + 0.5)
    exact = solve_ivp(slope, (0.0, duration), start, args=(current,), t_eval=times, rtol=1e-10, atol=1e-10).y[0]
    found = []
    for dt in (0.05, 0.025):
        cell, params = jl.AdaptiveLIF(dt=dt), replace(SILENT, mechanisms=(mechanism,))
        v = jl.simulate(cell, params, jnp.full(round(duration / dt), current))[1].v
        found.append(np.asarray(v)[round(1.0 / dt) - 1 :: round(1.0 / dt)])
    assert exact.max() > top  # where it bends
    coarse, fine = (np.abs(v - exact).max() for v in found)
    assert coarse < 0.5 and fine == pytest.approx(0.5 * coarse, rel=0.1)
    # What is left of second order, after the first is taken off, is another factor dt over the fastest time.
    assert np.abs(2.0 * found[1] - found[0] - exact).max() < 0.1 * fine


def test_a_current_that_is_always_open_is_the_subthreshold_adaptation():
    """Far above v_i it is a low-passed a (v - v_i): the adaptation, and a constant current a (v_rest - v_i)."""
    adapted = jl.AdaptiveLIFParams(t_ref=3.0, a=(2.0,), tau_a=(60.0,), eta=(20.0,), tau_eta=(40.0,))
    current = np.random.default_rng(5).normal(350.0, 400.0, 5000)
    open_below = jl.MembraneCurrent(a=2.0, tau=60.0, v_i=-1000.0, k=4.0)
    same = replace(adapted, a=(), tau_a=(), mechanisms=(open_below,))
    _, one = jl.simulate(jl.AdaptiveLIF(dt=0.1), adapted, current)
    _, two = jl.simulate(jl.AdaptiveLIF(dt=0.1), same, current + 2.0 * (adapted.v_rest + 1000.0))
    assert one.spikes.sum() > 10
    np.testing.assert_array_equal(one.spikes, two.spikes)
    # A current of some 2000 pA is rounded to 2e-13 pA, 2e-14 mV a step.
    np.testing.assert_allclose(one.v, two.v, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", [A, E, jl.MembraneCurrent(a=2.0), jl.VoltageCoupling()])
def test_a_voltage_held_for_long_is_where_a_mechanism_begins(mechanism):
    v = jnp.array([-80.0, -45.0, -20.0])
    state = mechanism.begin(jnp.full(3, -60.0))
    for _ in range(3000):
        state = mechanism.advance(state, v, 1.0)
    for left, begun in zip(jax.tree.leaves(state), jax.tree.leaves(mechanism.begin(v)), strict=True):
        np.testing.assert_allclose(left, begun, rtol=1e-9, atol=1e-12)  # e^-30 of the rest, and rounding


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        (jl.MembraneCurrent(tau=0.0), "mechanisms.1.tau = 0 ms: mechanisms.1.tau must be greater than 0 ms"),
        (jl.MembraneCurrent(k=-1.0), "mechanisms.1.k = -1 mV: mechanisms.1.k must be greater than 0 mV"),
        (jl.MembraneCurrent(a=np.inf), "mechanisms.1.a = inf nS: mechanisms.1.a must be finite"),
        (jl.MembraneCurrent(v_i=np.nan), "mechanisms.1.v_i = nan mV: mechanisms.1.v_i must be finite"),
        (ACurrent(g=-2.0), "mechanisms.1.g = -2 nS: mechanisms.1.g must be greater than 0 nS"),
        (ACurrent(e_k=np.nan), "mechanisms.1.e_k = nan mV: mechanisms.1.e_k must be finite"),
        (Exponential(delta_t=0.0), "mechanisms.1.delta_t = 0 mV: mechanisms.1.delta_t must be greater than 0 mV"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(mechanism, message):
    params = jl.AdaptiveLIFParams(mechanisms=(jl.MembraneCurrent(), mechanism))
    with pytest.raises(ValueError, match=f"^{message}$"):
        jl.simulate(jl.AdaptiveLIF(), params, jnp.zeros(3))


@pytest.mark.parametrize("mechanism", [A, E])
def test_what_has_no_normalised_form_says_so(mechanism):
    with pytest.raises(ValueError, match=f"^{type(mechanism).__name__} has no form in normalised units$"):
        jl.AdaptiveLIFParams(mechanisms=(mechanism,)).normalised()


def test_a_mechanism_without_its_verbs_says_which():
    @dataclass(frozen=True)
    class Half(Mechanism):
        def begin(self, v):
            return v

    with pytest.raises(TypeError, match="Half.* abstract method '?advance"):
        Half()
