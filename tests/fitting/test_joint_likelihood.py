"""The blocked forced path against stepping through TeacherForced, its gradient against autodiff of a plain loop."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data
from jaxlif.fitting.joint_likelihood import arranged, evaluate, forced_adaptive, joint_loss, penalty, spike_bits
from jaxlif.fitting.membrane import Columns, forced
from jaxlif.fitting.prediction import forced_voltage
from jaxlif.fitting.recurrence import from_lanes, recurrence, to_lanes

PARAMS = jl.AdaptiveLIFParams(
    tau_m=12.0, r_m=0.1, v_rest=-68.0, v_th=-50.0, v_reset=-60.0, t_ref=2.0, delta_v=1.5,
    eta=(20.0, -5.0), tau_eta=(5.0, 80.0), gamma=(4.0,), tau_gamma=(50.0,), coupling=jl.VoltageCoupling(),
)  # fmt: skip


@pytest.fixture
def x64():
    """Double precision, in which only the order of additions is left to differ."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def recorded():
    rng = np.random.default_rng(0)
    current = 150.0 + 100.0 * rng.standard_normal((3, 950))
    voltage = -60.0 + 3.0 * rng.standard_normal((3, 950))
    spikes = np.zeros((3, 950), bool)
    spikes[0, [50, 90, 399, 700]] = spikes[1, [10, 398, 440, 949]] = spikes[2, [400, 500]] = True
    return current, voltage, spikes


def in_lanes(recorded):
    """Arrange the sweeps with 2 ms of refractoriness and of 5 ms of upstroke."""
    current, voltage, spikes = recorded
    return arranged(Data(current, voltage, spikes=spikes, dt=0.1), 2.0, "float64")


def stepped(params, recorded, dt):
    """Return voltages before the reset and thresholds, step by step, [S, T]."""
    current, voltage, spikes = recorded
    cell = jl.TeacherForced(jl.AdaptiveLIF(dt=dt))
    inputs = jl.Forced(jnp.asarray(current.T), jnp.asarray(spikes.T, float))
    state = cell.init_state(params, jax.tree.map(lambda x: x[0], inputs))
    start = jnp.asarray(voltage[:, 0])
    state = state._replace(v=start, coupling=params.coupling.target(start))

    def step(state, x):
        ahead, _ = cell.neuron.integrate(params, state, x.input)
        state, output = cell.step(params, state, x)
        return state, (output.v_before, params.v_th + cell.neuron.rise(params, ahead))

    return [np.asarray(y).T for y in jax.lax.scan(step, state, inputs)[1]]


@pytest.mark.usefixtures("x64")
def test_the_blocks_are_the_steps(recorded):
    (data,) = in_lanes(recorded)
    trace = [from_lanes(y, (3, 950)) for y in jax.jit(forced_adaptive, static_argnums=2)(PARAMS, data, 0.1)]
    for fast, slow in zip(trace, stepped(PARAMS, recorded, 0.1), strict=True):
        # Only the order of additions differs: 1e-10 mV is a thousand roundings of -60 mV.
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_likelihood_is_that_of_the_steps(recorded):
    _, voltage, spikes = recorded
    parts = in_lanes(recorded)
    v, threshold = stepped(PARAMS, recorded, 0.1)
    expected = 0.0
    for s in range(3):
        held = 0
        for n in range(950):
            rate = 0.1 * np.exp((v[s, n] - threshold[s, n]) / 1.5)
            expected += np.log(-np.expm1(-rate)) if spikes[s, n] else -rate * (held == 0)
            held = 20 if spikes[s, n] else max(held - 1, 0)
    loss, samples = joint_loss(PARAMS, parts, 0.1)
    value, _, score = evaluate(loss, loss.vector(PARAMS), samples)
    assert float(score.log_likelihood) == pytest.approx(expected, rel=1e-10)
    near = np.zeros((3, 950), bool)
    for s, n in zip(*np.nonzero(spikes), strict=True):
        near[s, max(0, n - 50) : n + 21] = True
    assert float(score.squares) == pytest.approx(float(((v - voltage)[~near] ** 2).sum()), rel=1e-10)
    assert float(score.compared) == (~near).sum()
    # A sample of voltage counts as dt / 50 ms of one that knows nothing of its neighbours.
    variance = score.squares / score.compared
    voltage = 0.5 * (0.1 / 50.0) * score.compared * (1.0 + np.log(variance))
    weak = float(penalty(PARAMS, jnp.asarray(PARAMS.coupling.v_i)))
    assert value == pytest.approx(voltage - expected + weak, rel=1e-9)
    # Above a Poisson train of the same rate, 10 spikes in 285 ms; in single precision.
    poisson = 10.0 * np.log(10.0 / 285.0) - 10.0
    bits = (expected - 10.0 * np.log(0.1) - poisson) / (10.0 * np.log(2.0))
    current, voltage, _ = recorded
    data = Data(current, voltage, spikes=spikes, dt=0.1)
    assert spike_bits(PARAMS, data) == pytest.approx(bits, rel=1e-4)
    assert spike_bits(PARAMS, data, slice(100, 300)) is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("always", [False, True])
def test_the_gradient_of_the_blocks_is_that_of_a_plain_scan(always):
    rng = np.random.default_rng(1)
    keep, inputs, weight = (rng.random((2, 7)) > 0.2) * 1.0, rng.standard_normal((2, 7)), rng.standard_normal((2, 7))
    keep = np.ones_like(keep) if always else keep

    def blocked(decay, inputs, start):
        y = recurrence(decay, None if always else jnp.asarray(to_lanes(keep, 3)), inputs, start)
        return jnp.sum(y * to_lanes(weight, 3))

    def plain(decay, inputs, start):
        total, y = 0.0, start
        for n in range(7):
            y = decay * keep[:, n] * y + inputs[n % 3, 2 * (n // 3) :][:2]
            total = total + jnp.sum(weight[:, n] * y)
        return total

    point = jnp.asarray(0.8), jnp.asarray(to_lanes(inputs, 3)), jnp.asarray([0.5, -1.0])
    (value, gradient), (expected, slope) = (jax.jit(jax.value_and_grad(f, (0, 1, 2)))(*point) for f in (blocked, plain))
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    for a, b in zip(gradient, slope, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_subthreshold_adaptation_is_refused(recorded):
    (data,) = in_lanes(recorded)
    with pytest.raises(ValueError, match="a has 1 terms: a fit in blocks knows no subthreshold adaptation"):
        forced_adaptive(jl.AdaptiveLIFParams(a=(1.0,), tau_a=(10.0,)), data, 0.1)


@pytest.mark.parametrize(("t_ref", "part"), [(2.0, 150_000), (2.04, 150_000), (0.0, 150_000), (2.0, 7_000)])
def test_the_forced_voltage_of_a_recording_is_that_of_the_loop_over_time(t_ref, part, x64, monkeypatch):
    """Refractory periods on the grid, between its steps and of no time, and three sweeps in parts of two."""
    monkeypatch.setattr("jaxlif.fitting.joint_likelihood.PART", part)
    rng, params = np.random.default_rng(0), replace(PARAMS, t_ref=t_ref)
    spikes = rng.random((3, 3000)) < 0.004
    spikes[:, 0] = True  # elsewhere the first sample is taken as recorded, and one step's drift apart
    rows = rng.normal(100.0, 50.0, spikes.shape), rng.normal(-65.0, 1.0, spikes.shape), spikes, np.zeros_like(spikes)
    recording = jl.Recording(current=rows[0], voltage=rows[1], dt=0.1)
    loop = forced(jl.AdaptiveLIF(dt=0.1), params, Columns(*(jnp.asarray(row.T, float) for row in rows))).v
    # Sums of some thousand terms in another order: 1e-9 mV of rounding.
    np.testing.assert_allclose(forced_voltage(params, recording, spikes), np.asarray(loop).T, atol=1e-9, rtol=0)


def test_a_voltage_that_nothing_holds_has_no_likelihood_in_blocks(recorded):
    current, voltage, spikes = recorded
    with pytest.raises(ValueError, match="t_ref = 0 ms: a neuron forced in blocks holds its voltage for a step"):
        spike_bits(replace(PARAMS, t_ref=0.0), Data(current, voltage, spikes=spikes, dt=0.1))


def test_arranged_to_a_length_nothing_beyond_the_sweeps_counts(recorded):
    current, voltage, spikes = recorded
    data = Data(current, voltage, spikes=spikes, dt=0.1)
    plain, longer = (arranged(x, 4.0)[0] for x in (data, replace(data, length=1500)))
    assert longer.voltage.size > plain.voltage.size
    for name in ("spikes", "judged", "compared"):
        assert float(getattr(longer, name).sum()) == float(getattr(plain, name).sum()), name
