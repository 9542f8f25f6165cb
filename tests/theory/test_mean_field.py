"""Populations that drive one another, and ions in balance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif import theory
from jaxlif.theory import Moments, fixed_points, jump_moments
from tests.theory.cell import differences, in_arrays
from tests.theory.test_diffusion import siegert

NEURON = jl.LIFParams(tau_m=20.0, v_rest=0.0, v_th=20.0, v_reset=10.0, t_ref=2.0)
SEARCH = jax.jit(theory.mean_field_rates)


def network(weight, in_degree, mean, variance):
    """Return one population's coupling and external input."""
    return jump_moments(NEURON, jnp.array([[weight]]), jnp.array([[in_degree]])), Moments(
        *map(jnp.atleast_1d, (mean, variance))
    )


def test_brunels_network_a(dtype):
    """Brunel 2000: 56.1 Hz by his equations, by an independent program, for g = 5, eta = 2 and J = 0.3 mV."""
    params = in_arrays(NEURON, dtype)
    weight, in_degree = jnp.array([[0.3, -1.5]] * 2, dtype), jnp.array([[200.0, 50.0]] * 2, dtype)
    external = jump_moments(params, jnp.full(2, 0.3, dtype), jnp.full(2, 2e6 / 300.0, dtype))
    found = fixed_points(params, jump_moments(params, weight, in_degree), external)
    np.testing.assert_allclose(found.rates, [[56.1, 56.1]], atol=0.05)  # the digits given
    assert found.kinds == ("stable",) and found.rates.dtype == dtype


def test_all_three_states_of_a_population_that_excites_itself():
    """Each reproduces itself through SciPy's Siegert; the one between is the watershed of the others."""
    found = fixed_points(NEURON, *network(0.2, 100.0, 8.0, 9.0))
    for (rate,), (eigenvalue,) in zip(found.rates, found.eigenvalues, strict=True):
        mean, sd = 8.0 + 0.4 * rate, np.sqrt(9.0 + 0.04 * rate)
        np.testing.assert_allclose(rate, siegert(NEURON, mean, sd), rtol=1e-8)
        steps = [siegert(NEURON, 8.0 + 0.4 * r, np.sqrt(9.0 + 0.04 * r)) for r in (1.001 * rate, 0.999 * rate)]
        np.testing.assert_allclose(eigenvalue, ((steps[0] - steps[1]) / (0.002 * rate) - 1.0) / 20.0, rtol=1e-3)
    assert found.kinds == ("stable", "unstable, leaves for another state", "stable")


def test_slow_inhibition_oscillates():
    """The eigenvalues are those of the flow: from beside the state it spirals away, once around in their period."""
    weight, in_degree = jnp.array([[0.5, -1.5], [0.5, -0.75]]), jnp.array([[200.0, 50.0]] * 2)
    coupling, external = (
        jump_moments(NEURON, weight, in_degree),
        Moments(jnp.array([22.0, 15.0]), jnp.array([9.0, 9.0])),
    )
    found = fixed_points(NEURON, coupling, external, tau=jnp.array([10.0, 40.0]))
    assert found.kinds == ("unstable, oscillates away at 14.4 Hz",)

    def flow(rates, _):
        mean, sd = external.mean + coupling.mean @ rates, jnp.sqrt(external.variance + coupling.variance @ rates)
        new = rates + 0.01 * (theory.diffusion_rate(NEURON, mean, sd) - rates) / jnp.array([10.0, 40.0])
        return new, new

    begin = jnp.asarray(found.rates[0]) + jnp.array([1e-6, 0.0])
    away = np.asarray(jax.jit(lambda r: jax.lax.scan(flow, r, length=7000))(begin)[1]) - found.rates[0]  # 70 ms
    # A step of Euler's multiplies a deviation by 1 + dt lambda: three points in a row give both eigenvalues.
    moved = np.linalg.solve(away[1000:3000:1000], away[1100:3100:1000])
    np.testing.assert_allclose(
        np.sort_complex(np.log(np.linalg.eigvals(moved))), np.sort_complex(found.eigenvalues[0]), rtol=0.01
    )


def test_the_rates_have_the_gradient_of_the_implicit_function():
    def rate(x):
        params = replace(NEURON, tau_m=x[0], v_th=x[1])
        coupling = jump_moments(params, x[2][None, None], jnp.array([[400.0]]))
        return theory.mean_field_rates(params, coupling, Moments(x[3][None], x[4][None]), jnp.array([5.0]))[0]

    point = np.array([20.0, 20.0, -0.1, 30.0, 4.0])
    expected = differences(jax.jit(rate), point, 1e-3 * np.array([10.0, 10.0, 0.1, 10.0, 1.0]))
    np.testing.assert_allclose(jax.jit(jax.grad(rate))(point), expected, rtol=1e-6)


def test_what_dies_and_what_explodes_is_said():
    silent = fixed_points(NEURON, *network(0.1, 10.0, -50.0, 1.0))
    assert silent.kinds == ("silent, stable",) and silent.rates[0, 0] < 1e-10
    full = fixed_points(NEURON, *network(0.5, 1000.0, 30.0, 1.0))
    assert full.kinds == ("saturated, stable",) and full.rates[0, 0] > 450.0
    with pytest.raises(
        ValueError, match="^starts = 64: from none were rates found that stay; do they grow without bound"
    ):
        fixed_points(replace(NEURON, t_ref=0.0), *network(0.5, 1000.0, 30.0, 1.0))


def test_what_does_not_fit_is_refused():
    coupling, external = network(0.1, 10.0, 5.0, 1.0)
    with pytest.raises(ValueError, match=r"^coupling.mean has shape \(1, 1\): it must be \(2, 2\), for 2 populations"):
        fixed_points(NEURON, coupling, Moments(jnp.zeros(2), jnp.ones(2)))
    with pytest.raises(ValueError, match=r"^external.variance\[0\] = -1 mV²: external.variance must be 0 mV² or more"):
        fixed_points(NEURON, coupling, external._replace(variance=jnp.array([-1.0])))
    with pytest.raises(ValueError, match=r"^start\[0\] = -1 Hz: start must be 0 Hz or more"):
        theory.mean_field_rates(NEURON, coupling, external, jnp.array([-1.0]))


def test_potentials_of_ions(dtype):
    """58 mV a decade at 20 °C for one charge; Goldman's is Nernst's for one ion, whatever its sign."""
    inside, outside = jnp.array([10.0, 10.0, 10.0], dtype), jnp.array([100.0, 1.0, 100.0], dtype)
    found = theory.nernst(inside, outside, [1, 2, -1], 20.0)
    assert found.dtype == dtype
    decade = 8.31446261815324 * 293.15 / 96485.33212331 * np.log(10.0) * 1000.0
    np.testing.assert_allclose(found, [decade, -0.5 * decade, -decade], rtol={"float64": 1e-12, "float32": 1e-6}[dtype])
    for ion, charge in enumerate((1, 1, -1)):
        alone = theory.goldman(jnp.eye(3, dtype=dtype)[ion], inside, outside, [1, 1, -1], 20.0)
        np.testing.assert_allclose(alone, theory.nernst(inside[ion], outside[ion], charge, 20.0), rtol=1e-6)
    # At the potential the three currents of the constant field add up to nothing.
    p, z = np.array([1.0, 0.04, 0.45]), np.array([1.0, 1.0, -1.0])
    here, there = np.array([400.0, 50.0, 40.0]), np.array([20.0, 440.0, 560.0])
    u = float(theory.goldman(p, here, there, z, 20.0)) / (decade / np.log(10.0)) * z
    currents = p * z * u * (here - there * np.exp(-u)) / (1.0 - np.exp(-u))
    np.testing.assert_allclose(
        currents.sum(), 0.0, atol={"float64": 1e-12, "float32": 1e-4}[dtype] * abs(currents).max()
    )
