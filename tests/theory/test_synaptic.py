from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

import jaxlif as jl
from jaxlif import theory
from tests.theory.cell import CELL, EXPECTED, differences, in_arrays, tolerance

DATA = Path(__file__).parent.parent / "data"
PEAK = jax.jit(theory.psp_peak)

PSP_AND_SLOPE = jax.jit(
    lambda psp, params, tau_syn, t: jax.vmap(jax.value_and_grad(lambda tau, t: psp(params, 1.0, tau, t)), (None, 0))(
        tau_syn, t
    ),
    static_argnums=0,
)
PSP = jax.jit(lambda psp, *arguments: psp(*arguments), static_argnums=0)


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


# A rise of none, one that is no time constant of the others, that of the membrane, and that of an alpha current.
RISES = [0.0, 1.0, 10.0, 5.0]


def current(t, tau_syn, tau_rise):
    """Return a current whose peak is 1, found by a search."""
    if tau_rise == 0.0:
        return np.exp(-t / tau_syn)
    if tau_rise == tau_syn:
        return np.e * t / tau_syn * np.exp(-t / tau_syn)

    def shape(t):
        return np.exp(-t / tau_syn) - np.exp(-t / tau_rise)

    found = minimize_scalar(lambda t: -abs(shape(t)), bounds=(0.0, 100.0), method="bounded", options={"xatol": 1e-10})
    return shape(t) / shape(found.x)


@pytest.mark.parametrize("tau_rise", RISES)
def test_the_double_exponential_and_its_moments(tau_rise):
    """By quadrature: the convolution, and Campbell's integrals of current and potential and their squares."""

    def evoked(t):
        return 0.01 * quad(lambda s: current(s, 5.0, tau_rise) * np.exp((s - t) / 10.0), 0.0, t, epsrel=1e-11)[0]

    t = np.array([0.2, 3.0, 9.0, 30.0, 90.0])
    found = PSP(theory.double_exponential_psp, CELL, 100.0, tau_rise, 5.0, t)
    np.testing.assert_allclose(found, [100.0 * evoked(x) for x in t], rtol=1e-9)  # of the search for the peak
    nodes, weights = np.polynomial.legendre.leggauss(200)
    times, weights = 125.0 * (nodes + 1.0), 125.0 * weights  # e^-25 is left at 250 ms
    i = 2.0 * current(times, 5.0, tau_rise)
    u = np.asarray(theory.double_exponential_psp(CELL, 2.0, tau_rise, 5.0, times))
    for moments, x in (
        (theory.synaptic_moments(2.0, 300.0, 5.0, tau_rise), i),
        (theory.voltage_moments(CELL, 2.0, 300.0, 5.0, tau_rise), u),
    ):
        np.testing.assert_allclose(moments, [0.3 * weights @ x, 0.3 * weights @ x**2], rtol=1e-8)


@pytest.mark.parametrize("tau_rise", RISES)
@pytest.mark.parametrize("tau_syn", [0.5, 10.0, 40.0])
def test_the_peak_is_where_the_potential_is_largest(dtype, tau_syn, tau_rise):
    params = in_arrays(CELL, dtype)
    peak = PEAK(params, -100.0, tau_syn, tau_rise)
    with jax.enable_x64(True):
        shape = jax.jit(lambda t: theory.double_exponential_psp(CELL, 100.0, tau_rise, tau_syn, t))
        found = minimize_scalar(
            lambda t: -float(shape(t)), bounds=(0.0, 100.0), method="bounded", options={"xatol": 1e-9}
        )
    # Where a curve is flat a search for its largest value finds half of the digits.
    np.testing.assert_allclose(peak.t, found.x, rtol={"float64": 1e-6, "float32": 1e-4}[dtype])
    np.testing.assert_allclose(peak.v, found.fun, rtol={"float64": 1e-12, "float32": 1e-5}[dtype])


def test_the_peak_of_an_alpha_and_of_an_exponential_current_in_closed_form():
    expected = 10.0 * 5.0 / 5.0 * np.log(2.0)
    np.testing.assert_allclose(theory.psp_peak(CELL, 100.0, 5.0).t, expected, rtol=1e-13)
    # All three alike: t² e^-t/tau / 2 has its peak at 2 tau.
    both = theory.psp_peak(CELL, 100.0, 10.0, 10.0)
    np.testing.assert_allclose(both, [20.0, 0.1 * 100.0 * np.e * 2.0 * np.exp(-2.0)], rtol=1e-13)


def test_peaks_and_moments_have_gradients():
    """In tau_m, tau_syn and tau_rise, at once where all are the same."""

    def of(x):
        params = replace(CELL, tau_m=x[0])
        return jnp.stack(
            [*theory.psp_peak(params, 50.0, x[1], x[2]), *theory.voltage_moments(params, 50.0, 9.0, x[1], x[2])]
        )

    value, gradient = jax.jit(of), jax.jit(jax.jacrev(of))
    for x in ([10.0, 5.0, 1.0], [10.0, 10.0, 10.0], [4.0, 9.0, 4.0]):
        found = differences(value, np.array(x), np.full(3, 1e-3))
        np.testing.assert_allclose(gradient(jnp.array(x)), found, rtol=1e-7, atol=1e-9)


def test_jumps_and_conductances_as_simulated():
    """A passive membrane for 40 s: jumps, and conductances of which the excitation is a quarter of the leak."""
    rng, dt, count = np.random.default_rng(0), 0.1, 200
    rate, weight, e_rev = np.array([2500.0, 1000.0]), np.array([0.1, 0.25]), np.array([0.0, -80.0])
    passive = replace(CELL, v_th=1e3)
    events = rng.poisson(rate[:, None] * dt / 1000.0, (3000, 2, count))
    synapse = jl.ConductanceParams(tau_syn=jnp.array([3.0, 6.0]), e_rev=jnp.asarray(e_rev))
    params = jl.SynapticParams(neuron=passive, synapse=synapse)
    arrivals = jl.Drive(jnp.asarray(events * weight[:, None]), jnp.zeros((3000, count)))
    v = np.asarray(jl.simulate(jl.Synaptic(jl.LIF(dt=dt), jl.Conductance()), params, arrivals)[1].v)[1000:]
    membrane, moments = theory.conductance_moments(passive, weight, rate, np.array([3.0, 6.0]), e_rev)
    # The mean to 0.03 mV, a hundredth of the sd; the variance to 3 %, which inputs of this size are from small.
    np.testing.assert_allclose(v.mean(), moments.mean, atol=0.1)
    np.testing.assert_allclose(v.var(), moments.variance, rtol=0.05)
    np.testing.assert_allclose(membrane.tau_m, 10.0 / (1.0 + 0.1 * (0.75 + 1.5)), rtol=1e-14)
    jumped = jl.simulate(
        jl.Synaptic(jl.LIF(dt=dt), jl.VoltageJump()),
        jl.SynapticParams(neuron=passive),
        jl.Drive(jnp.asarray(0.2 * events[:, 0]), jnp.zeros((3000, count))),
    )[1].v[1000:]
    shift, variance = theory.jump_moments(passive, 0.2, 2500.0)
    np.testing.assert_allclose([jumped.mean(), jumped.var()], [-70.0 + shift, variance], rtol=0.02)


def test_constant_conductances_as_in_an_independent_table():
    g_e, g_i, v_inf, tau_eff = np.load(DATA / "shunting.npz")["static"].T
    passive = replace(CELL, r_m=0.04)
    found = jax.vmap(lambda e, i: theory.with_conductances(passive, jnp.stack([e, i]), jnp.array([0.0, -70.0])))(
        g_e, g_i
    )
    np.testing.assert_allclose(found.v_rest, v_inf, rtol=1e-14)
    np.testing.assert_allclose(found.tau_m, tau_eff, rtol=1e-13)
    assert (found.v_rest[g_e == 0.0] == -70.0).all()  # a shunt alone moves nothing, exactly


def test_conductances_of_neurons_that_differ_and_kinds_that_share_a_number():
    """Each neuron as if it were alone, with as many kinds as neurons; a number given once is that of every kind."""
    neurons = [replace(CELL, v_rest=v_rest, tau_m=tau_m) for v_rest, tau_m in ((-70.0, 10.0), (-62.0, 20.0))]
    both = replace(CELL, v_rest=jnp.array([-70.0, -62.0]), tau_m=jnp.array([10.0, 20.0]))
    g, e_rev = jnp.full(2, 4.0), jnp.array([0.0, -80.0])
    constant, noisy = theory.with_conductances, theory.conductance_moments
    for i, neuron in enumerate(neurons):
        rest = (neuron.v_rest + 0.1 * 4.0 * (0.0 - 80.0)) / 1.8  # by hand
        alone, one = constant(neuron, g, e_rev), noisy(neuron, g, 200.0, 5.0, e_rev)[1]
        np.testing.assert_allclose([alone.v_rest, constant(neuron, 4.0, e_rev).v_rest], rest, rtol=1e-14)
        np.testing.assert_allclose(constant(both, g, e_rev).v_rest[i], rest, rtol=1e-14)
        np.testing.assert_allclose(constant(neuron, 4.0, e_rev).tau_m, neuron.tau_m / 1.8, rtol=1e-14)
        found = [moment[i] for moment in noisy(both, g, 200.0, 5.0, e_rev)[1]]
        np.testing.assert_allclose(found, one, rtol=1e-13)
        np.testing.assert_allclose(noisy(neuron, 4.0, 200.0, 5.0, e_rev)[1], one, rtol=1e-13)
    for refused in (lambda g: constant(both, g, 0.0), lambda g: noisy(both, g, 200.0, 5.0, 0.0)):
        with pytest.raises(ValueError, match=r"^g has shape \(2, 2\): g must be an array of rank 0 or 1"):
            refused(jnp.ones((2, 2)))  # not the sum of what belongs to several neurons


@pytest.mark.parametrize("moments", [theory.jump_moments, lambda *x: theory.voltage_moments(*x, 5.0)])
def test_a_population_that_receives_has_its_own_time_constant(moments):
    params, weight, degree = replace(CELL, tau_m=np.array([10.0, 20.0])), np.full((2, 2), 0.3), np.full((2, 2), 200.0)
    with pytest.raises(ValueError, match=r"^tau_m has shape \(2,\), and the input \(2, 2\): it must be one number"):
        moments(params, weight, degree)
    rows = moments(replace(params, tau_m=params.tau_m[:, None]), weight, degree)
    for i, tau_m in enumerate(params.tau_m):
        alone = moments(replace(params, tau_m=tau_m), weight[i], degree[i])
        np.testing.assert_allclose([part[i] for part in rows], alone, rtol=1e-14)


def test_without_noise_a_shunt_shifts_the_f_i_curve():
    """Holt and Koch 1997: by g (v - v_rest), of the threshold at rheobase and of the mean far above."""
    g, params = 8.0, replace(CELL, t_ref=0.0)
    lifted = 150.0 + g * 15.0
    assert theory.shunted_rate(params, lifted, g) == 0.0 < theory.shunted_rate(params, lifted + 0.1, g)
    i = jnp.array([2e4, 4e4])
    shunted, shifted = (
        theory.shunted_rate(params, i, g),
        theory.firing_rate(params, i - g * 10.0),
    )  # -60 mV between spikes
    np.testing.assert_allclose(shunted, shifted, rtol=1e-5)  # the leak and the shunt leave something of order 1/I²
    np.testing.assert_array_equal(theory.shunted_rate(params, i, 0.0), theory.firing_rate(params, i))
