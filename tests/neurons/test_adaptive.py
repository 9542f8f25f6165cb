"""The adaptive neuron and its escape noise, against a plain loop, closed forms and the plain neuron."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.neurons.wrappers import Noisy

DT = 0.1
PARAMS = jl.AdaptiveLIFParams(
    tau_m=15.0,
    t_ref=3.0,
    v_reset=-65.0,
    eta=(60.0, 15.0),
    tau_eta=(10.0, 90.0),
    gamma=(3.0,),
    tau_gamma=(40.0,),
    a=(1.0,),
    tau_a=(120.0,),
    coupling=jl.VoltageCoupling(b=0.4, tau=6.0, v_i=-62.0, k=2.0),
    mechanisms=(
        jl.MembraneCurrent(a=3.0, tau=30.0, v_i=-60.0, k=3.0),
        jl.MembraneCurrent(a=-0.5, tau=5.0, v_i=-72.0, k=1.0),
    ),
    delta_v=1.5,
)
CURRENT = np.random.default_rng(5).normal(350.0, 400.0, 6000)


def loop(p, current, dt, log_noise=None):
    """Step the neuron in plain Python, straight from its equations; return spikes, voltages and thresholds."""
    v, left, u = p.v_rest, 0, 0.0
    w, h = [0.0] * len(p.eta), [0.0] * len(p.gamma)
    following = (*p.mechanisms, p.coupling)
    x = [m.k * math.log1p(math.exp((v - m.v_i) / m.k)) for m in following]
    spikes, voltages, thresholds = [], [], []
    for n, i in enumerate(current):
        net = i - sum(w) - u - sum(m.a * y for m, y in zip(p.mechanisms, x[:-1], strict=True))
        u_next = p.a[0] * (v - p.v_rest) + (u - p.a[0] * (v - p.v_rest)) * math.exp(-dt / p.tau_a[0])
        to = [m.k * math.log1p(math.exp((v - m.v_i) / m.k)) for m in following]
        x = [t + (y - t) * math.exp(-dt / m.tau) for t, y, m in zip(to, x, following, strict=True)]
        v_inf = p.v_rest + p.r_m * net
        if left == 0:
            v = v_inf + (v - v_inf) * math.exp(-dt / p.tau_m)
        theta = p.v_th + sum(h) + p.coupling.b * x[-1]
        rise = 0.0 if log_noise is None else p.delta_v * (log_noise[n] - math.log(p.lambda_0 * dt))
        spiked = left == 0 and v >= theta + rise
        w = [y * math.exp(-dt / tau) + spiked * jump for y, tau, jump in zip(w, p.tau_eta, p.eta, strict=True)]
        h = [y * math.exp(-dt / tau) + spiked * jump for y, tau, jump in zip(h, p.tau_gamma, p.gamma, strict=True)]
        left = math.ceil(p.t_ref / dt - 1e-9) if spiked else max(left - 1, 0)
        v, u = (p.v_reset if spiked else v), u_next
        spikes.append(spiked), voltages.append(v), thresholds.append(theta)
    return np.array(spikes), np.array(voltages), np.array(thresholds)


def test_it_is_its_equations():
    """A plain loop in double precision; 6000 steps of rounding stay below 1e-10 mV."""
    spikes, voltages, thresholds = loop(PARAMS, CURRENT, DT)
    assert 20 < spikes.sum() < 100
    cell = jl.AdaptiveLIF(dt=DT)

    def step(state, x):
        tested = PARAMS.v_th + cell.rise(PARAMS, cell.integrate(PARAMS, state, x)[0])
        state, output = cell.step(PARAMS, state, x)
        return state, (output, tested)

    _, (output, tested) = jax.lax.scan(step, cell.init_state(PARAMS, CURRENT[0]), CURRENT)
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose(output.v, voltages, rtol=0, atol=1e-10)
    np.testing.assert_allclose(tested, thresholds, rtol=0, atol=1e-10)


def test_escape_noise_is_the_same_loop_with_a_random_threshold():
    noise = np.random.default_rng(6).exponential(1.0, len(CURRENT))
    spikes, voltages, _ = loop(PARAMS, CURRENT, DT, np.log(noise))
    cell = jl.EscapeNoise(jl.AdaptiveLIF(dt=DT))
    _, output = jl.simulate(cell, PARAMS, Noisy(CURRENT, noise))
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose(output.v, voltages, rtol=0, atol=1e-10)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_normalised_neuron_is_the_same_neuron(noisy):
    """The neuron in mV, and a plain loop in normalised units: the same spikes, and voltages that map.

    Voltages of 70 mV over a span of 15 mV carry 1e-15 of rounding a step, 6000 steps less than 1e-11.
    """
    noise = np.random.default_rng(6).exponential(1.0, len(CURRENT))
    cell, inputs = jl.AdaptiveLIF(dt=DT), CURRENT
    if noisy:
        cell, inputs = jl.EscapeNoise(cell), Noisy(CURRENT, noise)
    _, output = jl.simulate(cell, PARAMS, inputs)
    span = PARAMS.v_th - PARAMS.v_rest
    scaled = PARAMS.r_m * CURRENT / span
    spikes, voltages, _ = loop(PARAMS.normalised(), scaled, DT, np.log(noise) if noisy else None)
    assert spikes.sum() > 20
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose((output.v - PARAMS.v_rest) / span, voltages, rtol=0, atol=1e-11)


def test_neurons_are_normalised_each_by_its_own_span():
    many = replace(PARAMS, r_m=jnp.array([0.1, 0.15]), v_rest=jnp.array([-70.0, -66.0]), v_th=jnp.array([-55.0, -52.0]))
    _, output = jl.simulate(jl.AdaptiveLIF(dt=DT), many, np.tile(CURRENT[:, None], 2))
    scaled = CURRENT[:, None] * np.asarray(many.r_m / (many.v_th - many.v_rest))
    _, normal = jl.simulate(jl.AdaptiveLIF(dt=DT), many.normalised(), scaled)
    assert (output.spikes.sum(axis=0) > 10).all()
    np.testing.assert_array_equal(output.spikes, normal.spikes)


def test_only_a_threshold_above_rest_is_a_unit():
    with pytest.raises(ValueError, match="v_rest = -50 mV: v_rest must be below v_th = -55 mV"):
        replace(PARAMS, v_rest=-50.0).normalised()


def test_without_terms_it_is_the_plain_neuron(dtype):
    """Bit by bit, in both precisions."""
    plain = jl.LIFParams(t_ref=3.0)
    adaptive = jl.AdaptiveLIFParams(**vars(plain))
    current = jnp.asarray(CURRENT, dtype)
    _, a = jl.simulate(jl.LIF(dt=DT), plain, current)
    _, b = jl.simulate(jl.AdaptiveLIF(dt=DT), adaptive, current)
    np.testing.assert_array_equal(a.spikes, b.spikes)
    np.testing.assert_array_equal(a.v, b.v)


def test_a_clamped_neuron_spikes_at_the_hazard_of_its_distance():
    """Without leak to speak of, v stays at rest and spikes are Poisson: rate lambda_0 exp((v_rest - v_th)/delta_v)."""
    params = jl.AdaptiveLIFParams(v_rest=-55.0, v_th=-52.0, v_reset=-55.0, t_ref=0.0, delta_v=1.0)
    inputs = jl.escape_inputs(jax.random.key(3), jnp.zeros((20_000, 20)))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), params, inputs)
    expected = -math.expm1(-math.exp(-3.0) * DT)
    # 400 000 steps: the standard error of a probability of 0.005 is 1.1e-4; four of them.
    assert float(output.spikes.mean()) == pytest.approx(expected, abs=4.5e-4)


def test_the_steady_rate_obeys_the_mean_adaptation_current():
    """With a slow w the neuron fires as a LIF does under I - eta tau_eta rate (Benda & Herz 2003)."""
    params = jl.AdaptiveLIFParams(eta=(2.0,), tau_eta=(1000.0,), t_ref=2.0)
    _, output = jl.simulate(jl.AdaptiveLIF(dt=DT), params, jnp.full(100_000, 400.0))
    rate = float(output.spikes[50_000:].sum()) / 5.0
    plain = jl.LIFParams(t_ref=2.0)
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        reached = float(jl.theory.firing_rate(plain, 400.0 - 2.0 * 1000.0 * middle / 1000.0))
        low, high = (middle, high) if reached > middle else (low, middle)
    # The count over 5 s rounds to 0.2 Hz, the spike to the end of its step makes intervals of 30 ms 0.2 % longer.
    assert rate == pytest.approx(middle, abs=0.4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"eta": (1.0,)}, "eta has 1 terms and tau_eta 2: they come in pairs"),
        ({"tau_gamma": (-3.0,)}, "tau_gamma.0 = -3 ms: tau_gamma.0 must be greater than 0 ms"),
        ({"delta_v": 0.0}, "delta_v = 0 mV: delta_v must be greater than 0 mV"),
        ({"coupling": jl.VoltageCoupling(tau=0.0)}, "coupling.tau = 0 ms: coupling.tau must be greater than 0 ms"),
        ({"coupling": jl.VoltageCoupling(v_i=math.nan)}, "coupling.v_i = nan mV: coupling.v_i must be finite"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        jl.simulate(jl.AdaptiveLIF(), replace(PARAMS, **change), CURRENT)
