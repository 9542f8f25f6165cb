"""Rate, CV, density and response under white noise, and the intervals of escape noise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.linalg import solve_banded
from scipy.special import erfcx

import jaxlif as jl
from jaxlif import LIF, simulate, theory
from tests.theory.cell import CELL, differences, in_arrays

RATE = jax.jit(theory.diffusion_rate)
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
    rate = RATE  # one program for all
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


# ------------------------------------------------------------------------------------------------ intervals

CV = jax.jit(jax.vmap(theory.interval_cv, (None, 0, 0)))
# From 0.01 Hz to 0.998 of 1000 / t_ref.
MEAN = np.array([-67.4, -64.0, -60.0, -55.0, -40.0, 1e3, 1e4])
SD = np.array([2.5, 3.0, 0.9, 2.0, 3.0, 20.0, 2.0])


def passage_moments(mean, sd):
    """Return mean and variance, in tau_m, of the time from reset to threshold: the moments' own equations, solved."""
    low, high = ((v - mean) / (np.sqrt(2.0) * sd) for v in (CELL.v_reset, CELL.v_th))

    def slopes(y, f):  # of the slopes of the two cumulants, and of their integrals
        first, second, *_ = f
        return [2.0 * y * first + 2.0, 2.0 * y * second + 2.0 * first**2, first, second]

    left = min(low, 0.0) - 9.0
    begin = [1.0 / -left * (1.0 - 0.5 / left**2), 1.0 / (-left) ** 3, 0.0, 0.0]  # small: all of it is forgotten
    options = {"rtol": 1e-11, "atol": 1e-14, "method": "LSODA"}
    middle = solve_ivp(slopes, (left, low), begin, **options).y[:2, -1]
    return solve_ivp(slopes, (low, high), [*middle, 0.0, 0.0], **options).y[2:, -1]


def test_the_cv_solves_the_equations_of_the_moments(dtype):
    mean, sd = np.array([-64.0, -60.0, -55.0, -50.0, -58.0]), np.array([3.0, 3.0, 2.0, 2.5, 2.0])
    found = CV(in_arrays(CELL, dtype), jnp.asarray(mean, dtype), jnp.asarray(sd, dtype))
    assert found.dtype == dtype
    cumulants = np.array([passage_moments(*each) for each in zip(mean, sd, strict=True)])
    expected = 10.0 * np.sqrt(cumulants[:, 1]) / (5.0 + 10.0 * cumulants[:, 0])
    np.testing.assert_allclose(found, expected, rtol={"float64": 1e-8, "float32": 1e-5}[dtype])  # 1e-9 by the solver


def first_passages(mean, sd, count, dt):
    """Draw the times from reset to threshold in exact steps; whether a step crossed between its ends is drawn too."""
    rng, v, times, t = np.random.default_rng(0), np.full(count, CELL.v_reset), [], 0.0
    decay = np.exp(-dt / CELL.tau_m)
    while v.size:
        end = mean + (v - mean) * decay + sd * np.sqrt(1.0 - decay**2) * rng.standard_normal(v.size)
        gaps = np.maximum(CELL.v_th - v, 0.0) * np.maximum(CELL.v_th - end, 0.0)
        crossed = rng.random(v.size) < np.exp(-gaps * CELL.tau_m / (sd**2 * dt))
        times.append(np.full(crossed.sum(), t + 0.5 * dt))
        v, t = end[~crossed], t + dt
    return np.concatenate(times)


def test_rate_and_cv_as_simulated():
    intervals = CELL.t_ref + first_passages(-52.0, 3.0, 40_000, 0.05)
    # Standard errors of 0.2 % and 0.5 %.
    np.testing.assert_allclose(1000.0 / intervals.mean(), RATE(CELL, -52.0, 3.0), rtol=0.01)
    np.testing.assert_allclose(intervals.std() / intervals.mean(), theory.interval_cv(CELL, -52.0, 3.0), rtol=0.01)


@pytest.mark.parametrize("of", [theory.diffusion_rate, theory.interval_cv])
def test_gradients_from_silence_to_saturation(of):
    def value(x):
        params = replace(CELL, tau_m=x[0], v_reset=x[1], v_th=x[2], t_ref=x[3])
        return of(params, x[4], x[5], 0.0, x[6])

    values, gradients = (jax.jit(jax.vmap(f)) for f in (value, jax.grad(value)))
    points = np.array([[10.0, -65.0, -55.0, 5.0, m, s, 0.5] for m, s in zip(MEAN, SD, strict=True)])
    eps = 1e-3 * np.array([10.0, 1.0, 1.0, 5.0, 1.0, 1.0, 0.5])
    found, expected = gradients(jnp.asarray(points)), differences(values, points, eps)
    # A difference of values V has an error of about 1e-15 V / eps: where V hardly depends on something that is all.
    noise = 1e-14 * np.abs(values(jnp.asarray(points)))[:, None] / eps
    np.testing.assert_array_less(np.abs(found - expected), 1e-6 * np.abs(expected) + noise)


def test_far_from_threshold_all_stay_finite(dtype):
    mean, sd = jnp.array([-1e4, -200.0, -80.0, 1e5, -55.0], dtype), jnp.array([1.0, 1.0, 0.5, 1.0, 0.0], dtype)
    params = in_arrays(CELL, dtype)
    rate, cv = DIFFUSION(params, mean, sd), CV(params, mean, sd)
    np.testing.assert_allclose(cv[:3], 1.0, rtol=1e-6)
    np.testing.assert_allclose(rate, [0.0, 0.0, 0.0, 200.0, 0.0], rtol=1e-3, atol=1e-30)
    slopes = jax.jit(jax.vmap(jax.grad(theory.interval_cv, (1, 2)), (None, 0, 0)))(params, mean, sd)
    assert np.isfinite(slopes).all() and np.isfinite(cv).all()


@pytest.mark.parametrize("field", ["v_reset", "v_th"])
def test_neurons_may_differ_in_one_parameter(field):
    several = replace(CELL, **{field: getattr(CELL, field) + jnp.array([0.0, 1.0, 2.0])})
    for of in (
        theory.interval_cv,
        *(lambda *x, f=f: f(*x, 20.0) for f in (theory.voltage_density, theory.rate_response)),
    ):
        assert jax.eval_shape(of, several, -57.0, 2.0).shape == (3,)
    found = jax.jit(theory.diffusion_rate)(several, -57.0, 2.0)
    each = jax.tree.map(lambda x: jnp.broadcast_to(x, 3), several)
    expected = jax.jit(jax.vmap(theory.diffusion_rate, (0, None, None)))(each, -57.0, 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_without_noise_intervals_are_all_the_same():
    np.testing.assert_array_equal(CV(CELL, jnp.array([-50.0, -60.0]), jnp.zeros(2)), [0.0, 1.0])
    assert CV(CELL, jnp.array([-50.0]), jnp.array([1e-4]))[0] < 1e-4


def test_the_rate_behind_a_synapse_as_simulated():
    """Current through exponential synapses of a tenth of tau_m: 2 % where white noise is 17 % off."""
    params, mean, sd, tau_syn, dt, count = replace(CELL, tau_m=20.0, t_ref=2.0), -52.0, 3.0, 2.0, 0.1, 1000
    rng, k = np.random.default_rng(0), np.exp(-0.1 / 2.0)
    noise = rng.standard_normal((10_000, count)) * np.sqrt(1.0 - k**2)
    current = jax.lax.scan(lambda x, n: 2 * (k * x + n,), jnp.zeros(count), jnp.asarray(noise))[1]
    middle = 0.5 * (current[1:] + current[:-1])  # over each step
    drive = (mean - params.v_rest + sd * np.sqrt((20.0 + tau_syn) / tau_syn) * middle) / params.r_m
    spikes = simulate(LIF(dt=dt), params, drive)[1].spikes[1000:]
    rate = 1000.0 * float(spikes.mean()) / dt
    found, white = RATE(params, mean, sd, tau_syn=tau_syn), RATE(params, mean, sd)
    np.testing.assert_allclose(found, rate, rtol=0.02)  # 30 000 spikes: 0.3 %
    assert white > 1.15 * rate


def test_a_synapse_too_slow_for_the_formula_is_refused():
    """At tau_m it is 40 % below what is simulated, at 2 tau_m 70 %."""
    params, moments = replace(CELL, tau_m=20.0), theory.Moments(jnp.ones(1), jnp.ones(1))
    assert theory.diffusion_rate(params, -52.0, 3.0, tau_syn=10.0) > 10.0
    message = r"^tau_syn(\[1\])? = 12 ms: it must be tau_m/2 or less"
    for slow in (12.0, jnp.array([2.0, 12.0])):
        with pytest.raises(ValueError, match=message):
            theory.interval_cv(params, -52.0, 3.0, tau_syn=slow)
    with pytest.raises(ValueError, match=message):
        theory.fixed_points(params, theory.Moments(*jnp.ones((2, 1, 1))), moments, 12.0)
    assert jnp.isnan(RATE(params, -52.0, 3.0, tau_syn=12.0))


# ------------------------------------------------------------------------------------- density and response


def fokker_planck(params, mean, sd, frequency, cells=10_000):
    """Return density, rate and response by finite volumes, the flux between them as Scharfetter and Gummel have it."""
    low, tau = min(mean, params.v_reset) - 8.0 * sd, params.tau_m
    below = round((params.v_th - params.v_reset) / (params.v_th - low) * cells)  # the reset is the middle of a cell
    h = (params.v_th - params.v_reset) / (below - 0.5)
    low = params.v_th - h * cells
    v, faces = low + h * (np.arange(cells) + 0.5), low + h * np.arange(1, cells)
    peclet = (mean - faces) * h / sd**2

    def bernoulli(x):
        return np.where(np.abs(x) < 1e-9, 1.0, x / np.expm1(np.where(np.abs(x) < 1e-9, 1.0, x)))

    # Flux over a face: forth * p[left] - back * p[right]; threshold half a cell from the last one absorbs.
    forth, back, out = sd**2 / (tau * h**2) * bernoulli(-peclet), sd**2 / (tau * h**2) * bernoulli(peclet), 0.0
    out = 2.0 * sd**2 / (tau * h**2)
    reset = cells - below

    def solve(s, source):  # s p + flux out - flux in = source
        bands = np.zeros((3, cells), complex)
        bands[1] = s + np.append(forth, out) + np.append(0.0, back)
        bands[0, 1:], bands[2, :-1] = -back, -forth
        return solve_banded((1, 1), bands, source)

    pulse = np.zeros(cells)
    pulse[reset] = 1.0
    shape = solve(0.0, pulse).real
    rate = 1.0 / (params.t_ref + shape.sum())
    p0 = rate * shape
    # The modulation moves a flux of p0 / tau over each face, and none over the threshold, where p0 is 0.
    middle = np.append(0.5 * (p0[1:] + p0[:-1]), 0.0) / (tau * h)
    s = 2j * np.pi * frequency / 1000.0
    moved = solve(s, np.append(0.0, middle[:-1]) - middle)
    returned = solve(s, pulse * np.exp(-s * params.t_ref))
    return v, p0 / h, 1000.0 * rate, 1000.0 * out * moved[-1] / (1.0 - out * returned[-1])


@pytest.mark.parametrize("mean, sd, frequency", [(-58.0, 3.0, 20.0), (-50.0, 2.0, 60.0), (-62.0, 4.0, 300.0)])
def test_density_and_response_solve_the_fokker_planck_equation(mean, sd, frequency):
    v, density, rate, response = fokker_planck(CELL, mean, sd, frequency)
    # Second order in cells of 2e-3 mV.
    np.testing.assert_allclose(RATE(CELL, mean, sd), rate, rtol=1e-4)
    np.testing.assert_allclose(DENSITY(CELL, mean, sd, v), density, rtol=0, atol=2e-4 * density.max())
    np.testing.assert_allclose(RESPONSE(CELL, mean, sd, frequency), response, rtol=5e-4)


DENSITY, RESPONSE = jax.jit(theory.voltage_density), jax.jit(theory.rate_response)


@pytest.mark.parametrize("mean, sd", [(-58.0, 2.0), (-75.0, 2.0), (-20.0, 0.5), (-56.0, 0.3)])
def test_the_density_is_one_but_for_refractoriness(mean, sd):
    low = min(mean, -65.0) - 9.0 * sd
    nodes, weights = np.polynomial.legendre.leggauss(400)
    total = 0.0
    for start, end in ((low, -65.0), (-65.0, -55.0)):  # it has a corner at the reset
        p = DENSITY(CELL, mean, sd, jnp.asarray(start + 0.5 * (end - start) * (nodes + 1.0)))
        total += 0.5 * (end - start) * float(weights @ p)
    np.testing.assert_allclose(total, 1.0 - 0.005 * RATE(CELL, mean, sd), rtol=1e-9)


def test_the_response_from_slow_to_fast():
    """At 0 Hz the slope of the rate, which low frequencies approach; far above, rate / sd times sqrt(tau_m / omega)."""
    mean, sd = jnp.array([-70.0, -58.0, -50.0, 0.0]), jnp.array([2.0, 2.0, 2.0, 1.0])
    slope = jax.jit(jax.vmap(jax.grad(theory.diffusion_rate, 1), (None, 0, 0)))(CELL, mean, sd)
    response = jax.jit(jax.vmap(theory.rate_response, (None, 0, 0, None)))
    np.testing.assert_allclose(response(CELL, mean, sd, 0.0), slope, rtol=1e-12)
    np.testing.assert_allclose(response(CELL, mean, sd, 1e-9), slope, rtol=1e-7)
    fast = RESPONSE(CELL, -58.0, 2.0, 2e5)
    expected = RATE(CELL, -58.0, 2.0) / 2.0 / np.sqrt(2.0 * np.pi * 2e5 / 1000.0 * 10.0)
    np.testing.assert_allclose([np.abs(fast), np.angle(fast)], [expected, -np.pi / 4.0], rtol=0.03)


def test_the_gain_has_a_gradient(dtype):
    """In double precision as exact as differences, in single finite from silence to saturation."""

    def gain(x):
        return jnp.abs(theory.rate_response(replace(CELL, tau_m=x[0], v_reset=x[1], t_ref=x[2]), x[3], x[4], 30.0))

    point, values = np.array([10.0, -65.0, 5.0, -58.0, 2.0]), jax.jit(gain)
    gradient = jax.jit(jax.grad(gain))
    if dtype == "float64":
        found = differences(values, point, np.full(5, 1e-3))
        np.testing.assert_allclose(gradient(point), found, rtol=1e-6)
    for mean in (-300.0, -58.0, 1e4):
        point[3] = mean
        assert np.isfinite(gradient(jnp.asarray(point, dtype))).all()


# --------------------------------------------------------------------------------------------- escape noise

RENEWAL = jax.jit(theory.escape_renewal)
NOISY = jl.AdaptiveLIFParams(delta_v=2.0, lambda_0=0.1)


@pytest.mark.parametrize("current, delta_v, lambda_0", [(160.0, 2.0, 0.1), (200.0, 0.3, 1.0), (-100.0, 1.0, 1.0)])
def test_renewal_equals_an_integration_of_the_hazard(dtype, current, delta_v, lambda_0):
    found = RENEWAL(in_arrays(replace(NOISY, delta_v=delta_v, lambda_0=lambda_0), dtype), current)
    end = -70.0 + 0.1 * current

    def hazard(t):
        return lambda_0 * np.exp((end + (-65.0 - end) * np.exp(-t / 10.0) + 55.0) / delta_v)

    def slopes(t, y):
        return [hazard(t), np.exp(-y[0]), t * np.exp(-y[0])]

    at = np.asarray(found.age[::100], float) - 5.0
    y = solve_ivp(slopes, (0.0, 240.0), np.zeros(3), t_eval=[*at, 240.0], rtol=1e-11, atol=1e-13, method="LSODA").y
    left, last = np.exp(-y[0, -1]), hazard(240.0)
    mean, second = y[1, -1] + left / last, 2.0 * (y[2, -1] + left * (240.0 / last + 1.0 / last**2))
    rtol = {"float64": 1e-9, "float32": 2e-5}[dtype]
    np.testing.assert_allclose(found.rate, 1000.0 / (5.0 + mean), rtol=rtol)
    np.testing.assert_allclose(found.cv, np.sqrt(second - mean**2) / (5.0 + mean), rtol=10 * rtol)
    np.testing.assert_allclose(found.survivor[::100], np.exp(-y[0, :-1]), rtol=0, atol=1e-9 if rtol < 1e-6 else 1e-5)
    np.testing.assert_array_equal(found.density, found.hazard * found.survivor)


def test_an_escape_too_sharp_for_the_nodes_has_no_cv():
    """By how much an interval of 4 ms varies is at most that by which the passage of v_th +- 20 delta_v does."""
    for delta_v, resolved in ((0.2, True), (0.05, False), (0.01, False)):
        found = RENEWAL(replace(NOISY, delta_v=delta_v), 400.0)
        assert bool(jnp.isnan(found.cv)) is not resolved and abs(found.rate * (5.0 + 3.36) / 1000.0 - 1.0) < 0.05
        assert not resolved or found.cv < 0.2


def test_escape_noise_as_simulated():
    inputs = jl.escape_inputs(jax.random.key(0), jnp.full((20_000, 400), 160.0))
    spikes = np.asarray(simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=0.05)), NOISY, inputs)[1].spikes)
    intervals = np.concatenate([np.diff(0.05 * np.flatnonzero(train)) for train in spikes.T])
    # 14 000 intervals: 0.3 % for the mean and 0.7 % for the CV; the long ones that 1 s cuts off are a few in 10 000.
    found = RENEWAL(NOISY, 160.0)
    np.testing.assert_allclose(1000.0 / intervals.mean(), found.rate, rtol=0.02)
    np.testing.assert_allclose(intervals.std() / intervals.mean(), found.cv, rtol=0.03)


def test_the_rate_of_escape_noise_has_a_gradient(dtype):
    def rate(x):
        params = replace(NOISY, tau_m=x[0], delta_v=x[1], lambda_0=x[2], t_ref=x[3], v_reset=x[4])
        return theory.escape_renewal(params, x[5]).rate

    point, values, gradient = np.array([10.0, 2.0, 0.1, 5.0, -65.0, 160.0]), jax.jit(rate), jax.jit(jax.grad(rate))
    if dtype == "float64":
        found = differences(values, point, 1e-3 * np.array([1.0, 1.0, 0.1, 1.0, 1.0, 10.0]))
        np.testing.assert_allclose(gradient(point), found, rtol=1e-7)
    for current in (-1e4, 0.0, 1e5):
        point[5] = current
        assert np.isfinite(gradient(jnp.asarray(point, dtype))).all()
