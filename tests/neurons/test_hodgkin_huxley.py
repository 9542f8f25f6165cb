"""The conductance-based neuron against an independent solver, at its singular points, and at rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxlif.neurons.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyParams, gates, linoid
from jaxlif.simulation import simulate

DURATION = 40.0


def derivative(current, v, m, h, n, p):
    """The published equations, written out with their own numbers, in NumPy."""
    q = HodgkinHuxleyParams()
    u = v - q.v_t
    alpha_m = -0.32 * (u - 13) / (np.exp(-(u - 13) / 4) - 1)
    beta_m = 0.28 * (u - 40) / (np.exp((u - 40) / 5) - 1)
    alpha_h, beta_h = 0.128 * np.exp(-(u - 17) / 18), 4 / (1 + np.exp(-(u - 40) / 5))
    alpha_n, beta_n = -0.032 * (u - 15) / (np.exp(-(u - 15) / 5) - 1), 0.5 * np.exp(-(u - 10) / 40)
    tau_p = q.tau_max / (3.3 * np.exp((v + 35) / 20) + np.exp(-(v + 35) / 20))
    inward = q.g_l * (q.e_l - v) + q.g_na * m**3 * h * (q.e_na - v) + current
    return [
        (inward + (q.g_k * n**4 + q.g_m * p) * (q.e_k - v)) / q.c_m,
        alpha_m * (1 - m) - beta_m * m,
        alpha_h * (1 - h) - beta_h * h,
        alpha_n * (1 - n) - beta_n * n,
        (1 / (1 + np.exp(-(v + 35) / 10)) - p) / tau_p,
    ]


@pytest.fixture(scope="module")
def reference():
    """Voltage at the ends of steps of 0.1 ms under 800 pA, which makes three spikes."""
    start = [float(x) for x in HodgkinHuxley().init_state(HodgkinHuxleyParams(), jnp.asarray(0.0))]
    times = np.linspace(0.1, DURATION, 400)
    options = {"t_eval": times, "method": "LSODA", "rtol": 1e-10, "atol": 1e-12}
    return solve_ivp(lambda t, y: derivative(800.0, *y), (0.0, DURATION), start, **options).y[0]


def voltage(substeps, dt=0.1, current=800.0, params=None):
    inputs = jnp.full(round(DURATION / dt), current)
    return simulate(HodgkinHuxley(dt=dt, substeps=substeps), params or HodgkinHuxleyParams(), inputs)[1]


def test_it_follows_the_reference_through_spikes_with_second_order(reference):
    errors = [np.sqrt(np.mean((voltage(n).v - reference) ** 2)) for n in (5, 10, 20, 40)]
    assert reference.max() > 30.0 and errors[-1] < 0.01
    np.testing.assert_allclose([a / b for a, b in zip(errors[:-1], errors[1:], strict=True)], 4.0, rtol=0.03)


def test_a_spike_is_the_upward_crossing_of_zero(reference):
    output = voltage(10)
    crossings = np.flatnonzero((reference[1:] >= 0) & (reference[:-1] < 0)) + 1
    assert crossings.size == 3
    np.testing.assert_array_equal(np.flatnonzero(output.spikes), crossings)


def test_steps_and_substeps_are_the_same_integration():
    fine, coarse = voltage(1, dt=0.05), voltage(4, dt=0.2)
    np.testing.assert_allclose(fine.v[3::4], coarse.v, rtol=1e-10)


def test_rest_is_the_published_one_and_stays():
    cell, params = HodgkinHuxley(dt=0.5, substeps=20), HodgkinHuxleyParams()
    state, _ = simulate(cell, params, jnp.zeros(6000))
    later, output = simulate(cell, params, jnp.zeros(200), state)
    np.testing.assert_allclose(state.v, -71.9, atol=0.05)
    np.testing.assert_allclose(output.v, state.v, atol=1e-6)
    assert float(output.spikes.sum()) == 0.0


def test_rheobase_and_gain_are_those_of_a_cortical_cell():
    current = jnp.array([100.0, 250.0, 600.0])
    _, output = simulate(HodgkinHuxley(dt=0.1, substeps=5), HodgkinHuxleyParams(), jnp.tile(current, (5000, 1)))
    low, middle, high = (int(n) for n in output.spikes.sum(axis=0))
    assert low == 0 and middle >= 3 and high >= 16


def test_adaptation_needs_the_m_current():
    params = HodgkinHuxleyParams(g_m=jnp.array([0.0, 22.5]))
    _, output = simulate(HodgkinHuxley(dt=0.1, substeps=5), params, jnp.full(5000, 500.0))
    first, last = ([np.diff(np.flatnonzero(s))[k] for s in np.asarray(output.spikes).T] for k in (0, -1))
    assert last[0] <= 1.1 * first[0] and last[1] > 1.5 * first[1]


def test_linoid_is_accurate_and_its_derivative_finite_everywhere(dtype):
    x = np.array([-400.0, -30.0, -1.0, -0.021, -0.019, -1e-6, 0.0, 1e-6, 0.019, 0.021, 1.0, 30.0, 400.0], dtype)
    wide = x.astype(np.longdouble)
    safe = np.where(wide == 0, 1, wide)
    value = np.where(wide == 0, 1, safe / np.expm1(safe))
    np.testing.assert_allclose(linoid(jnp.asarray(x)), value.astype(dtype), rtol=20 * np.finfo(dtype).eps, atol=1e-30)
    slope = np.asarray(jax.vmap(jax.grad(linoid))(jnp.asarray(x)))
    assert np.isfinite(slope).all() and slope.dtype == dtype
    assert float(slope[6]) == -0.5
    np.testing.assert_allclose(slope[[3, 4, 8, 9]], -0.5 + x[[3, 4, 8, 9]] / 6.0, rtol=1e-5)


@pytest.mark.parametrize("u", [13.0, 15.0, 40.0])
def test_rates_have_finite_gradients_at_their_singular_voltages(u):
    jacobian = jax.jit(jax.jacfwd(lambda v, p: jnp.stack([x for pair in gates(v, p) for x in pair])))
    params = HodgkinHuxleyParams(v_t=-56.0)  # so that v - v_t is u to the last bit
    assert np.isfinite(jacobian(params.v_t + u, params)).all()


@jax.jit
def last_voltage(params):
    return simulate(HodgkinHuxley(dt=0.1, substeps=2), params, jnp.full(100, 300.0))[1].v[-1]


gradient = jax.jit(jax.grad(last_voltage))


def test_the_gradient_is_that_of_the_trace():
    exact = gradient(HodgkinHuxleyParams())
    for field, h in (("g_l", 1e-4), ("c_m", 1e-3), ("v_t", 1e-4), ("g_m", 1e-3)):
        value = getattr(HodgkinHuxleyParams(), field)
        up, down = (last_voltage(HodgkinHuxleyParams(**{field: value + d})) for d in (h, -h))
        np.testing.assert_allclose(getattr(exact, field), (up - down) / (2 * h), rtol=1e-5)


def test_the_gradient_of_a_trace_from_a_singular_voltage_is_finite():
    exact = gradient(HodgkinHuxleyParams(e_l=-70.0, v_t=-83.0))
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(exact))


def test_dtype_and_shape_are_kept(dtype):
    cell, params = HodgkinHuxley(), HodgkinHuxleyParams()
    state, output = simulate(cell, params, jnp.full((20, 3), 300.0, dtype))
    for leaf in jax.tree.leaves((state, output)):
        assert leaf.dtype == dtype and leaf.shape[-1:] == (3,)
    many = HodgkinHuxleyParams(g_l=jnp.linspace(5.0, 7.0, 4, dtype=dtype))
    assert simulate(cell, many, jnp.full(20, 300.0, dtype))[1].v.shape == (20, 4)


@pytest.mark.parametrize(
    ("options", "message"), [({"substeps": 0}, "substeps = 0: substeps must be 1"), ({"dt": 0.0}, "dt")]
)
def test_bad_numerics_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HodgkinHuxley(**options)


@pytest.mark.parametrize("field", ["c_m", "g_l", "g_na", "g_k", "g_m", "e_l", "e_na", "e_k", "v_t", "tau_max"])
def test_check_names_the_field(field):
    bad = np.nan if field.startswith(("e", "v")) else -1.0
    with pytest.raises(ValueError, match=f"{field} = "):
        HodgkinHuxleyParams(**{field: bad}).check()
