from collections import namedtuple
from dataclasses import replace

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jaxlif import (
    AdaptiveLIF,
    AdaptiveLIFParams,
    LeakyParams,
    LIFParams,
    MembraneCurrent,
    ResonantLIFParams,
    VoltageCoupling,
    simulate,
    theory,
)
from tests.theory.cell import CELL, EXPECTED, in_arrays, tolerance

PLAIN_FIELDS = namedtuple("PLAIN_FIELDS", "tau_m r_m v_rest v_th v_reset t_ref")  # a neuron without rules of its own


# Compiled once for all tests of one dtype and shape.
RATE = jax.jit(theory.firing_rate)
RATE_AND_GRADIENT = jax.jit(jax.value_and_grad(theory.firing_rate, argnums=(0, 1)))
SLOPE = jax.jit(jax.vmap(jax.grad(theory.firing_rate, argnums=1), (None, 0)))


def variants():
    for i, v_reset in enumerate(EXPECTED["fi_v_reset"]):
        for j, t_ref in enumerate(EXPECTED["fi_t_ref"]):
            yield replace(CELL, v_reset=float(v_reset), t_ref=float(t_ref)), (i, j)


# ------------------------------------------------------------------------------------------- constant current


def test_equilibrium_and_rheobase():
    np.testing.assert_allclose(theory.equilibrium(CELL, jnp.array([0.0, 120.0, 160.0])), [-70.0, -58.0, -54.0])
    assert theory.rheobase(CELL) == 150.0
    assert theory.equilibrium(CELL, theory.rheobase(CELL)) == CELL.v_th


SPIKE_TRIGGERED = AdaptiveLIFParams(eta=(60.0,), tau_eta=(80.0,), gamma=(4.0,), tau_gamma=(50.0,))
SUBTHRESHOLD = AdaptiveLIFParams(a=(5.0,), tau_a=(30.0,))
OPENED = AdaptiveLIFParams(mechanisms=(MembraneCurrent(a=5.0),))
COUPLED = AdaptiveLIFParams(coupling=VoltageCoupling(v_i=-60.0))
RESONANT = ResonantLIFParams()


def of_rates():
    yield theory.firing_rate
    yield lambda params, mean: theory.diffusion_rate(params, mean, 1.0)


def of_the_membrane():
    yield from (theory.equilibrium, lambda p, x: theory.step_response(p, x, 1.0), theory.spike_latency)
    yield from (lambda p, x: theory.exponential_psp(p, x, 5.0, 1.0), lambda p, x: theory.alpha_psp(p, x, 5.0, 1.0))
    yield lambda p, _: theory.rheobase(p)


@pytest.mark.parametrize("closed_form", [*of_rates()])
@pytest.mark.parametrize("params", [SPIKE_TRIGGERED, SUBTHRESHOLD, OPENED, COUPLED, RESONANT])
@pytest.mark.parametrize("transformed", [False, True])
def test_a_neuron_whose_rate_this_is_not_is_refused(closed_form, params, transformed):
    message = f"params = {type(params).__name__}: this closed form does not have their (eta|a|mechanisms|coupling)"
    with pytest.raises(ValueError, match=message):
        (jax.jit(closed_form) if transformed else closed_form)(params, 20.0)


@pytest.mark.parametrize("closed_form", [*of_the_membrane()])
@pytest.mark.parametrize("params", [SUBTHRESHOLD, OPENED, RESONANT])
def test_a_membrane_that_adapts_is_refused(closed_form, params):
    with pytest.raises(ValueError, match=f"{type(params).__name__}: .* does not have their (a|mechanisms)$"):
        closed_form(params, 20.0)


def test_a_threshold_that_follows_the_voltage_has_another_rheobase():
    with pytest.raises(ValueError, match="AdaptiveLIFParams: .* does not have their coupling"):
        theory.rheobase(COUPLED)
    current = jnp.full(2000, 1.05 * 150.0)  # above what the plain neuron's threshold needs
    assert simulate(AdaptiveLIF(), COUPLED, current)[1].spikes.sum() == 0
    # Without a spike the membrane is the plain one.
    assert theory.equilibrium(COUPLED, 120.0) == theory.equilibrium(CELL, 120.0)


def test_what_follows_a_spike_leaves_the_rheobase_and_the_first_spike():
    current = float(theory.rheobase(SPIKE_TRIGGERED))
    for factor, fires in ((0.999, False), (1.001, True)):
        _, output = simulate(AdaptiveLIF(), SPIKE_TRIGGERED, jnp.full(2000, factor * current))
        assert bool(output.spikes.any()) == fires
    _, output = simulate(AdaptiveLIF(), SPIKE_TRIGGERED, jnp.full(2000, 200.0))
    late = 0.1 * (int(output.spikes.argmax()) + 1) - float(theory.spike_latency(SPIKE_TRIGGERED, 200.0))
    assert 0.0 <= late < 0.1  # a grid finds a spike up to one step later


def test_an_adaptive_neuron_without_any_term_is_the_plain_one():
    assert theory.firing_rate(AdaptiveLIFParams(), 200.0) == theory.firing_rate(LIFParams(), 200.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.firing_rate(replace(CELL, tau_m=-10.0), 200.0), "tau_m = -10 ms: tau_m must be greater than 0"),
        (lambda: theory.rheobase(replace(CELL, r_m=np.array([0.1, 0.0]))), r"r_m\[1\] = 0 GΩ: r_m must be greater"),
        (lambda: theory.equilibrium(replace(CELL, v_rest=np.nan), 200.0), "v_rest = nan mV: v_rest must be finite"),
        (lambda: theory.diffusion_rate(replace(CELL, t_ref=-2.0), -55.0, 2.0), "t_ref = -2 ms: t_ref must be 0 ms"),
        (
            lambda: theory.firing_rate(replace(CELL, v_reset=-50.0), 200.0),
            "v_reset = -50 mV: v_reset must be below v_th",
        ),
        (lambda: theory.spike_latency(replace(CELL, v_rest=-55.0), 200.0), "v_rest = -55 mV: v_rest must differ"),
        (lambda: theory.firing_rate(LeakyParams(), 200.0), "params = LeakyParams: it has no v_th"),
        (lambda: theory.rheobase(LeakyParams()), "params = LeakyParams: it has no v_th"),
        (lambda: theory.step_response(None, 200.0, 1.0), "params = NoneType: it has no tau_m"),
        (lambda: theory.firing_rate(PLAIN_FIELDS(-10.0, 0.1, -70.0, -55.0, -65.0, 5.0), 200.0), "tau_m = -10 ms"),
        (lambda: theory.firing_rate(CELL, [200.0, np.nan]), r"current\[1\] = nan pA: current must be finite"),
        (lambda: theory.step_response(CELL, 100.0, np.array([0.0, -1.0])), r"t\[1\] = -1 ms: t must be 0 ms or more"),
        (lambda: theory.spike_latency(CELL, 200.0, v_0=np.nan), "v_0 = nan mV: v_0 must be finite"),
        (lambda: theory.exponential_psp(CELL, np.inf, 5.0, 1.0), "weight = inf pA: weight must be finite"),
        (lambda: theory.alpha_psp(CELL, 1.0, -5.0, 1.0), "tau_syn = -5 ms: tau_syn must be greater than 0 ms"),
        (lambda: theory.diffusion_rate(CELL, -55.0, -2.0), "sd = -2 mV: sd must be 0 mV or more"),
        (lambda: theory.diffusion_rate(CELL, np.nan, 2.0), "mean = nan mV: mean must be finite"),
        (lambda: theory.diffusion_rate(CELL, -55.0, 2.0, dt=-0.1), "dt = -0.1 ms: dt must be 0 ms or more"),
        (lambda: theory.interval_cv(CELL, -55.0, 2.0, 0.1, 5.0), "dt = 0.1 ms: dt must be 0 ms with tau_syn"),
        (
            lambda: theory.interval_cv(CELL, -55.0, 2.0, tau_syn=0.0),
            "tau_syn = 0 ms: tau_syn must be greater than 0 ms",
        ),
        (lambda: theory.voltage_density(CELL, -55.0, 0.0, -60.0), "sd = 0 mV: sd must be greater than 0 mV"),
        (lambda: theory.rate_response(CELL, -55.0, 2.0, -1.0), "frequency = -1 Hz: frequency must be 0 Hz or more"),
        (lambda: theory.psp_peak(CELL, 1.0, 5.0, -1.0), "tau_rise = -1 ms: tau_rise must be 0 ms or more"),
        (lambda: theory.jump_moments(CELL, 1.0, -5.0), "rate = -5 Hz: rate must be 0 Hz or more"),
        (lambda: theory.with_conductances(CELL, -5.0, 0.0), "g = -5 nS: g must be 0 nS or more"),
        (lambda: theory.conductance_moments(CELL, -5.0, 1.0, 5.0, 0.0), "weight = -5 nS: weight must be 0 nS or more"),
        (lambda: theory.escape_renewal(CELL, 200.0), "params = LIFParams: it has no delta_v"),
        (
            lambda: theory.escape_renewal(SPIKE_TRIGGERED, 200.0),
            "params = AdaptiveLIFParams: .* does not have their eta",
        ),
        (lambda: theory.nernst(0.0, 145.0), "inside = 0 mM: inside must be greater than 0 mM"),
        (lambda: theory.nernst(12.0, 145.0, 0), "valence = 0: valence must be a whole number other than 0"),
        (lambda: theory.nernst(12.0, 145.0, 1.5), "valence = 1.5: valence must be a whole number other than 0"),
        (lambda: theory.nernst(12.0, 145.0, 1, -300.0), "temperature = -300 °C: temperature must be above -273.15 °C"),
        (
            lambda: theory.goldman([1.0, 0.0], [5.0, 5.0], [5.0, 5.0], [1, 2]),
            r"valence\[1\] = 2: valence must be 1 or -1",
        ),
        (lambda: theory.goldman([0.0], [5.0], [5.0], [1]), r"permeability\[0\] = 0: .* above 0 for one ion at least"),
        (lambda: theory.goldman([1.0], [5.0, 6.0], [5.0], [1]), r"permeability has shape \(1,\) and inside \(2,\)"),
    ],
)
def test_what_breaks_a_rule_is_refused_as_in_a_simulation(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_traced_nan_is_no_silence():
    params = in_arrays(CELL, "float64")
    assert np.isnan(RATE(params, jnp.nan)) and np.isnan(RATE(replace(params, tau_m=jnp.nan), 160.0))
    assert np.isnan(jax.jit(theory.diffusion_rate)(params, jnp.nan, 2.0))


def test_step_response_equals_the_reference():
    for (v_0, drive, tau_m, v_rest), expected in zip(EXPECTED["relax_cases"], EXPECTED["relax_v"], strict=True):
        params = replace(CELL, tau_m=tau_m, v_rest=v_rest)
        v = theory.step_response(params, drive / params.r_m, jnp.asarray(EXPECTED["relax_t"]), v_0=v_0)
        np.testing.assert_allclose(v, expected, rtol=1e-13)


def test_step_response_starts_at_rest_and_ends_at_equilibrium():
    assert theory.step_response(CELL, 160.0, 0.0) == CELL.v_rest
    np.testing.assert_allclose(theory.step_response(CELL, 160.0, 1e4), theory.equilibrium(CELL, 160.0), rtol=1e-15)


def test_first_spike_of_the_lecture_note():
    assert theory.spike_latency(CELL, 120.0) == jnp.inf
    np.testing.assert_allclose(theory.spike_latency(CELL, 160.0), 27.725887222397812, rtol=1e-14)
    times = theory.spike_latency(CELL, jnp.asarray(EXPECTED["fi_ri"] / CELL.r_m))
    np.testing.assert_allclose(times, EXPECTED["fi_first_spike"], rtol=1e-12)


def test_first_spike_is_where_the_step_response_meets_threshold():
    for v_0 in (-90.0, -70.0, -55.1):
        t = theory.spike_latency(CELL, 173.0, v_0=v_0)
        np.testing.assert_allclose(theory.step_response(CELL, 173.0, t, v_0=v_0), CELL.v_th, rtol=1e-13)


@pytest.mark.parametrize("current", [0.0, 150.0, 500.0])
def test_a_membrane_at_threshold_spikes_at_once(current):
    assert theory.spike_latency(CELL, current, v_0=-55.0) == 0.0
    assert theory.spike_latency(CELL, current, v_0=-20.0) == 0.0


def test_interval_of_the_lecture_note():
    for v_reset, period in ((-70.0, 27.725887222397812), (-65.0, 23.97895272798371)):
        for t_ref in (0.0, 2.0, 5.0):
            rate = theory.firing_rate(replace(CELL, v_reset=v_reset, t_ref=t_ref), 160.0)
            np.testing.assert_allclose(1000.0 / rate, period + t_ref, rtol=1e-13)


# -------------------------------------------------------------------------------------------------- f-I curve


@pytest.mark.parametrize("params, at", list(variants()))
def test_rate_and_slope_equal_the_reference(dtype, params, at):
    params = in_arrays(params, dtype)
    current = jnp.asarray(EXPECTED["fi_ri"] / 0.1, dtype)
    rate, slope = RATE(params, current), SLOPE(params, current)
    assert rate.dtype == slope.dtype == dtype
    np.testing.assert_allclose(rate, EXPECTED["fi_rate"][at], rtol=tolerance(dtype))
    np.testing.assert_allclose(slope / params.r_m, EXPECTED["fi_slope"][at], rtol=10 * tolerance(dtype))


@pytest.mark.parametrize("params", [replace(CELL, v_th=-54.7, r_m=0.13, t_ref=t_ref) for t_ref in (0.0, 5.0)])
def test_no_spike_at_rheobase_exactly(dtype, params):
    """v_rest + r_m I rounds above v_th for some parameters: one rounding error must not fire at 3 Hz."""
    scale = jnp.linspace(0.5, 2.0, 501, dtype=dtype)
    params = replace(in_arrays(params, dtype), r_m=params.r_m * scale)
    assert not RATE(params, theory.rheobase(params)).any()
    above = jnp.nextafter(theory.rheobase(params), jnp.full_like(scale, jnp.inf))
    assert (RATE(params, above) > 0).all()


@pytest.mark.parametrize("t_ref", [0.0, 5.0])
@pytest.mark.parametrize("current", [-1e6, 0.0, 149.0, 150.0, "just above", 150.001, 160.0, 1e4, 1e9])
def test_gradient_is_finite_everywhere(dtype, t_ref, current):
    params = in_arrays(replace(CELL, t_ref=t_ref), dtype)
    if current == "just above":
        current = jnp.nextafter(jnp.asarray(150.0, dtype), jnp.asarray(jnp.inf, dtype))
    current = jnp.asarray(current, dtype)
    rate, gradient = RATE_AND_GRADIENT(params, current)
    leaves = jax.tree.leaves(gradient)
    assert all(bool(jnp.isfinite(leaf)) for leaf in [rate, *leaves])
    if current <= 150.0:
        assert rate == 0.0 and not any(leaves)


@pytest.mark.parametrize("t_ref", [0.0, 5.0])
def test_gradient_in_every_parameter(t_ref):
    params = in_arrays(replace(CELL, t_ref=t_ref), "float64")
    current = jnp.array([155.0, 200.0, 800.0])
    rate = jax.jit(lambda some: theory.firing_rate(some, current))
    jax.test_util.check_grads(rate, (params,), order=1, modes=["rev"], rtol=1e-6, eps=1e-6)


def test_rate_for_a_huge_current():
    """Without refractoriness the rate follows the current; with it, it ends at 1000 / t_ref."""
    rate = theory.firing_rate(replace(CELL, t_ref=0.0), 1e16)
    np.testing.assert_allclose(rate, 1000.0 * 0.1 * 1e16 / (10.0 * 10.0), rtol=1e-12)
    np.testing.assert_allclose(theory.firing_rate(CELL, 1e16), 200.0, rtol=1e-12)


def test_rate_broadcasts_over_neurons_and_under_vmap():
    cells = replace(CELL, tau_m=jnp.array([5.0, 10.0, 20.0]))
    current = jnp.array([140.0, 160.0, 300.0])
    one_each = theory.firing_rate(cells, current)
    by_hand = [theory.firing_rate(replace(CELL, tau_m=cells.tau_m[k]), current[k]) for k in range(3)]
    np.testing.assert_allclose(one_each, jnp.stack(by_hand), rtol=1e-14)
    table = jax.vmap(lambda i: theory.firing_rate(cells, i))(current)
    assert table.shape == (3, 3)
    np.testing.assert_allclose(jnp.diagonal(table), one_each, rtol=1e-14)
