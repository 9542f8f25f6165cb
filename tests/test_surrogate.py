import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import jaxlif as jl


def normal(x, mean, sigma):
    return math.exp(-((x - mean) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)


def logistic(x):
    return 1 / (1 + math.exp(-x))


# For each surrogate its printed formula, written again here for plain numbers, its peak, and its area over the line.
EXPECTED = {
    jl.SuperSpike(): (lambda x: 1 / (1 + 10 * abs(x)) ** 2, 1.0, 2 / 10),
    jl.SuperSpike(slope=3.0): (lambda x: 1 / (1 + 3 * abs(x)) ** 2, 1.0, 2 / 3),
    jl.Arctan(): (lambda x: 1 / (1 + (math.pi * x) ** 2), 1.0, 1.0),
    jl.Arctan(slope=5.0): (lambda x: 2.5 / (1 + (math.pi / 2 * 5 * x) ** 2), 2.5, 1.0),
    jl.Sigmoid(): (lambda x: 4 * logistic(4 * x) * (1 - logistic(4 * x)), 1.0, 1.0),
    jl.Sigmoid(slope=10.0): (lambda x: 10 * logistic(10 * x) * (1 - logistic(10 * x)), 2.5, 1.0),
    jl.Triangular(): (lambda x: max(0.0, 1 - abs(x)), 1.0, 1.0),
    jl.Triangular(height=0.3, width=0.5): (lambda x: 0.3 * max(0.0, 1 - abs(x) / 0.5), 0.3, 0.15),
    jl.Gaussian(): (lambda x: normal(x, 0, 0.5), 1 / math.sqrt(2 * math.pi) / 0.5, 1.0),
    jl.Gaussian(sigma=2.0): (lambda x: normal(x, 0, 2.0), 1 / math.sqrt(2 * math.pi) / 2.0, 1.0),
    jl.MultiGaussian(): (
        lambda x: 0.5 * (1.15 * normal(x, 0, 0.5) - 0.15 * (normal(x, 0.5, 3.0) + normal(x, -0.5, 3.0))),
        0.5 * (1.15 * 2 - 0.3 * math.exp(-1 / 72) / 3.0) / math.sqrt(2 * math.pi),
        0.5 * (1.15 - 2 * 0.15),
    ),
    jl.MultiGaussian(sigma=0.2, flank=0.4, spread=2.0, scale=1.5): (
        lambda x: 1.5 * (1.4 * normal(x, 0, 0.2) - 0.4 * (normal(x, 0.2, 0.4) + normal(x, -0.2, 0.4))),
        1.5 * (1.4 / 0.2 - 0.8 * math.exp(-1 / 8) / 0.4) / math.sqrt(2 * math.pi),
        1.5 * (1.4 - 2 * 0.4),
    ),
}
every_surrogate = pytest.mark.parametrize("surrogate", EXPECTED, ids=str)
POINTS = np.array([-3.0, -0.9, -0.25, -0.01, 0.0, 1e-9, 0.03, 0.2, 0.5, 1.0, 2.5])
# A dozen operations near 1; the logistic at |x| = 3 squares a number with relative error 1e-7 in single precision.
RTOL = {"float64": 1e-13, "float32": 5e-6}


@every_surrogate
def test_the_spikes_derivative_is_the_printed_formula(dtype, surrogate):
    derivative = jax.vmap(jax.grad(lambda x: jl.spike(x, surrogate)))(jnp.asarray(POINTS, dtype))
    assert derivative.dtype == dtype
    formula, _, _ = EXPECTED[surrogate]
    # The flanks of the last cross zero, where only the absolute error means anything.
    np.testing.assert_allclose(derivative, [formula(x) for x in POINTS], rtol=RTOL[dtype], atol=0.1 * RTOL[dtype])


@every_surrogate
def test_symmetry_peak_and_area(surrogate):
    x = jnp.linspace(0.0, 4.0, 401)
    right, left = surrogate(x), surrogate(-x)
    np.testing.assert_allclose(right, left, rtol=1e-15)  # the logistic's factors are rounded in another order
    _, peak, area = EXPECTED[surrogate]
    np.testing.assert_allclose(surrogate(jnp.asarray(0.0)), peak, rtol=1e-14)
    assert right.argmax() == 0
    # x = y/(1 - y) turns the half line into (0, 1), so that the slow tails of 1/x^2 are not cut.
    y, weight = np.polynomial.legendre.leggauss(200)
    y, weight = 0.5 + 0.5 * y, 0.5 * weight
    integral = 2 * np.sum(weight * surrogate(jnp.asarray(y / (1 - y))) / (1 - y) ** 2)
    # The kinks of the triangle cost the quadrature its digits, not the others.
    np.testing.assert_allclose(integral, area, rtol=1e-3 if isinstance(surrogate, jl.Triangular) else 1e-9)


def test_the_areas_expected_here_are_those_of_the_formulas():
    for formula, _, area in EXPECTED.values():
        halves = [quad(formula, 0, end, epsabs=1e-12, limit=200)[0] for end in (0.5, 1.0)]
        tail = quad(formula, 1.0, math.inf, epsabs=1e-12, limit=200)[0]
        np.testing.assert_allclose(2 * (halves[1] + tail), area, rtol=1e-8)


@every_surrogate
def test_forwards_it_is_the_heaviside_step(dtype, surrogate):
    tiny = float(np.finfo(dtype).tiny)
    x = jnp.array([-jnp.inf, -1e30, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, 1e30, jnp.inf], dtype)
    spikes = jl.spike(x, surrogate)
    np.testing.assert_array_equal(spikes, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    assert spikes.dtype == dtype


@every_surrogate
def test_far_away_it_vanishes_and_stays_finite(surrogate):
    """In value and in its own derivative, in single precision: squares of 1e30 overflow there."""
    with jax.enable_x64(False):
        x = jnp.array([-1e30, -1e4, -1e3, 1e3, 1e4, 1e30])
        value, slope = jax.vmap(jax.value_and_grad(surrogate))(x)
        assert np.isfinite(value).all() and np.isfinite(slope).all()
        assert (np.abs(value) < 1e-6).all() and (np.abs(slope) < 1e-8).all()
        np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x: jl.spike(x, surrogate)))(x), value)


@every_surrogate
def test_its_own_derivative_equals_a_difference_quotient(surrogate):
    """Second-order methods differentiate the surrogate: off its kinks, its slope is the slope of the formula."""
    formula, _, _ = EXPECTED[surrogate]
    for x in (-1.3, -0.2, 0.07, 0.8):
        slope = jax.grad(jax.grad(lambda x: jl.spike(x, surrogate)))(x)
        np.testing.assert_allclose(slope, (formula(x + 1e-6) - formula(x - 1e-6)) / 2e-6, rtol=1e-7, atol=1e-9)


@every_surrogate
def test_forward_mode_and_arrays_agree_with_grad(surrogate):
    x = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
    spikes, tangent = jax.jvp(lambda x: jl.spike(x, surrogate), (x,), (2.0 * jnp.ones_like(x),))
    np.testing.assert_array_equal(spikes, x >= 0)
    np.testing.assert_allclose(tangent, 2.0 * surrogate(x), rtol=1e-15)


def test_surrogates_are_values():
    """Equal parameters are one surrogate to a compiled program, different ones or kinds are not."""
    assert jl.SuperSpike(10.0) == jl.SuperSpike() and hash(jl.SuperSpike(10.0)) == hash(jl.SuperSpike())
    kinds = (jl.SuperSpike, jl.Arctan, jl.Sigmoid, jl.Triangular, jl.Gaussian, jl.MultiGaussian)
    assert len({*EXPECTED, *(kind() for kind in kinds)}) == len(EXPECTED) == 12


def test_second_derivatives_through_a_scan_are_those_of_a_loop():
    """JAX drops a custom rule where it differentiates a scan twice, and the spikes' part of a Hessian with it."""
    cell, x = jl.LIF(dt=1.0, detach_reset=False), jnp.asarray(np.random.default_rng(0).normal(200.0, 60.0, (6, 3)))
    weigh = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 3)))

    def loss(run, point):
        output = run(jl.LIFParams(tau_m=point[0], v_th=point[1], r_m=point[2], t_ref=1.0), x)
        return jnp.sum(weigh[0] * output.spikes) + 0.1 * jnp.sum(weigh[1] * output.v)

    def loop(params, x):
        state, outputs = cell.init_state(params, x[0]), []
        for row in x:
            state, output = cell.step(params, state, row)
            outputs.append(output)
        return jax.tree.map(lambda *rows: jnp.stack(rows), *outputs)

    found, expected = (
        jax.jit(jax.hessian(lambda point, run=run: loss(run, point)))(jnp.array([10.0, -55.0, 0.1]))
        for run in (lambda params, x: jl.simulate(cell, params, x)[1], loop)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found, found.T, rtol=1e-9)
    assert (expected != 0.0).all()
