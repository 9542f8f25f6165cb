from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erfcx

from jaxlif import (
    LIF,
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

EXPECTED = np.load(Path(__file__).parent / "data" / "theory.npz")  # its README says where the numbers come from
PLAIN_FIELDS = namedtuple("PLAIN_FIELDS", "tau_m r_m v_rest v_th v_reset t_ref")  # a neuron without rules of its own
CELL = LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=-65.0, t_ref=5.0)


# Compiled once for all tests of one dtype and shape.
RATE = jax.jit(theory.firing_rate)
RATE_AND_GRADIENT = jax.jit(jax.value_and_grad(theory.firing_rate, argnums=(0, 1)))
SLOPE = jax.jit(jax.vmap(jax.grad(theory.firing_rate, argnums=1), (None, 0)))

PSP_AND_SLOPE = jax.jit(
    lambda psp, params, tau_syn, t: jax.vmap(jax.value_and_grad(lambda tau, t: psp(params, 1.0, tau, t)), (None, 0))(
        tau_syn, t
    ),
    static_argnums=0,
)
PSP = jax.jit(lambda psp, *arguments: psp(*arguments), static_argnums=0)


def in_arrays(params, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def tolerance(dtype):
    """Relative rounding after a few operations on voltages of -70 mV, a few mV apart."""
    return {"float64": 1e-12, "float32": 1e-4}[dtype]


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
    ],
)
def test_what_breaks_a_rule_is_refused_as_in_a_simulation(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_traced_nan_is_no_silence():
    params = in_arrays(CELL, "float64")
    assert np.isnan(RATE(params, jnp.nan)) and np.isnan(RATE(replace(params, tau_m=jnp.nan), 160.0))
    assert np.isnan(DIFFUSION(params, jnp.array([jnp.nan]), jnp.array([2.0]))).all()


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


# ---------------------------------------------------------------------------------------- synaptic potentials


@pytest.mark.parametrize("psp, name", [(theory.exponential_psp, "psp_exponential"), (theory.alpha_psp, "psp_alpha")])
def test_potentials_equal_the_reference(dtype, psp, name):
    for (tau_m, tau_syn, c_m, weight), expected in zip(EXPECTED["psp_cases"], EXPECTED[name], strict=True):
        params = in_arrays(replace(CELL, tau_m=tau_m, r_m=tau_m / c_m), dtype)
        u = PSP(psp, params, weight, tau_syn, jnp.asarray(EXPECTED["psp_t"], dtype))
        assert u.dtype == dtype
        # The reference is itself a difference of exponentials: at 10 and 10.000001 ms it keeps nine digits.
        atol = {"float64": 1e-8, "float32": 1e-6}[dtype]
        np.testing.assert_allclose(u, expected, rtol=max(tolerance(dtype), 1e-8), atol=atol)


CURRENTS = {
    theory.exponential_psp: lambda s, tau: np.exp(-s / tau),
    theory.alpha_psp: lambda s, tau: np.e * s / tau * np.exp(-s / tau),
}


@pytest.mark.parametrize("psp", CURRENTS)
@pytest.mark.parametrize("tau_syn", [0.5, 9.0, 9.9, 10.0, 10.00001, 10.2, 11.0, 60.0])
def test_potentials_solve_the_membrane_equation(psp, tau_syn):
    """Against quadrature of the convolution, on both sides of tau_syn = tau_m and of the series' edge."""
    for t in (0.3, 4.9, 30.0):
        integral, _ = quad(lambda s, t=t: CURRENTS[psp](s, tau_syn) * np.exp((s - t) / 10.0), 0.0, t, epsrel=1e-12)
        np.testing.assert_allclose(PSP(psp, CELL, 100.0, tau_syn, t), 0.1 * 100.0 / 10.0 * integral, rtol=1e-11)


@pytest.mark.parametrize("psp", CURRENTS)
def test_potentials_are_smooth_where_the_time_constants_meet(psp):
    """The gradient in tau_m, tau_syn and t, and how it changes with tau_syn, against central differences."""
    taus, times = [2.0, 9.999999, 10.0, 10.000001, 40.0], [0.5, 5.0, 25.0]
    points = np.array([[10.0, tau, t] for tau in taus for t in times])

    def value(point):
        return psp(replace(CELL, tau_m=point[0]), 100.0, point[1], point[2])

    def differences(function, eps):
        sides = [(function(points + eps * axis), function(points - eps * axis)) for axis in np.eye(3)]
        return jnp.stack([(right - left) / (2 * eps) for right, left in sides], axis=-1)

    def change(point):
        return jax.jvp(jax.grad(value), (point,), (jnp.array([0.0, 1.0, 0.0]),))[1]

    values, gradients, changes = (jax.jit(jax.vmap(f)) for f in (value, jax.grad(value), change))
    np.testing.assert_allclose(gradients(points), differences(values, 1e-4), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(changes(points), differences(gradients, 1e-4)[..., 1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("psp", CURRENTS)
@pytest.mark.parametrize("tau_syn", [1e-3, 10.0, 1e4])
def test_potentials_stay_finite(dtype, psp, tau_syn):
    params = in_arrays(CELL, dtype)
    t = jnp.array([-5.0, 0.0, 1e-6, 1.0, 1e3, 1e5], dtype)
    u, slope = PSP_AND_SLOPE(psp, params, jnp.asarray(tau_syn, dtype), t)
    assert np.isfinite(u).all() and np.isfinite(slope).all()
    assert (u[:2] == 0.0).all() and (u >= 0.0).all()


def test_the_alpha_current_peaks_at_its_weight():
    """A membrane much faster than the synapse follows the current: its peak is r_m w."""
    fast = replace(CELL, tau_m=1e-3)
    np.testing.assert_allclose(theory.alpha_psp(fast, 100.0, 5.0, 5.0), 0.1 * 100.0, rtol=1e-5)


# Noise


DIFFUSION = jax.jit(jax.vmap(theory.diffusion_rate, (None, 0, 0)))


def siegert(params, mean, sd):
    """Integrate in SciPy."""
    low, high = ((v - mean) / (np.sqrt(2.0) * sd) for v in (params.v_reset, params.v_th))
    return 1000.0 / (params.t_ref + params.tau_m * np.sqrt(np.pi) * quad(lambda u: erfcx(-u), low, high, limit=200)[0])


def test_the_diffusion_rate_is_siegerts(dtype):
    # From far below threshold with little noise to far above it, and on it.
    mean = np.array([-58.0, -54.0, -65.0, -50.0, -55.0, -62.0, -40.0])
    sd = np.array([2.0, 2.0, 3.0, 0.01, 0.05, 1.0, 1.0])
    found = DIFFUSION(in_arrays(CELL, dtype), jnp.asarray(mean, dtype), jnp.asarray(sd, dtype))
    assert found.dtype == dtype
    expected = [siegert(CELL, m, s) for m, s in zip(mean, sd, strict=True)]
    # 1e-10 is what quad promises; in float32 exp(u^2) at u = 5 multiplies the rounding by 50.
    np.testing.assert_allclose(found, expected, rtol={"float64": 1e-10, "float32": 3e-5}[dtype])


def test_without_noise_the_diffusion_rate_is_the_f_i_curve():
    current = jnp.array([160.0, 200.0, 300.0, 0.0, 150.0])  # the last two silent, and at rheobase
    mean, params = theory.equilibrium(CELL, current), in_arrays(CELL, "float64")
    expected, none = theory.firing_rate(CELL, current), jnp.zeros(5)
    rate = jax.jit(theory.diffusion_rate)  # one program for all
    for dt in (0.0, 0.1):
        np.testing.assert_allclose(rate(params, mean, none, dt), expected, rtol=1e-13)
    np.testing.assert_allclose(rate(params, mean, none + 1e-5, 0.0)[:3], expected[:3], rtol=1e-6)
    # Where the integral gives way to its limit nothing jumps, and the slopes in mean and sd stay finite.
    edge = 1e-9 * jnp.abs(mean + 55.0)
    beside = [rate(params, mean, factor * edge, 0.0)[:3] for factor in (0.99, 1.01)]
    np.testing.assert_allclose(beside[0], beside[1], rtol=1e-12)
    slopes = jax.jit(jax.grad(lambda mean, sd: theory.diffusion_rate(CELL, mean, sd), (0, 1)))(-54.0, 0.0)
    assert np.isfinite(slopes).all() and slopes[0] > 0


def test_far_below_threshold_the_diffusion_rate_and_its_gradient_are_0():
    rate, slope = jax.jit(jax.value_and_grad(lambda mean: theory.diffusion_rate(CELL, mean, 1.0)))(-100.0)
    assert rate == 0.0 and slope == 0.0


def test_the_rate_on_a_grid_is_as_simulated():
    """Poisson spikes through weights, each a current held over one step: near enough white noise (Campbell)."""
    dt, weights, rates = 0.5, np.linspace(-20.0, 60.0, 100), np.linspace(5.0, 60.0, 100)
    chance = rates * dt / 1000.0
    current = jnp.asarray((np.random.default_rng(0).random((2000, 50, 100)) < chance) @ weights)
    mean = CELL.v_rest + CELL.r_m * weights @ chance
    sd = CELL.r_m * np.sqrt(np.tanh(0.5 * dt / CELL.tau_m) * weights**2 @ (chance * (1.0 - chance)))
    lifted = current + (-55.0 - mean) / CELL.r_m
    fired = 1000.0 * simulate(LIF(dt=dt), CELL, lifted)[1].spikes[200:].mean() / dt
    # About 1100 spikes, more regular than a Poisson train; the largest single input is 0.3 mV.
    np.testing.assert_allclose(fired, theory.diffusion_rate(CELL, -55.0, sd, dt), rtol=0.05)
