"""The adaptive exponential neuron against SciPy's adaptive solver of eighth order, NEST's voltages and differences."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import jaxlif as jl
from jaxlif.interop import from_nest
from jaxlif.neurons.adex import AdExState
from tests.nest import FOLDER

DT, T = 0.1, 2000
CELL = jl.AdEx(dt=DT)
#: What differs from the defaults, the current, pA, and the largest error of voltages below the upswing, mV.
NEURONS = {
    "defaults": ({}, 800.0, 5e-7),
    "refractory": ({"t_ref": 2.0}, 800.0, 5e-7),
    "off the grid": ({"t_ref": 4.97, "a": -10.0}, 600.0, 5e-7),
    "strong": ({"t_ref": 1.0, "a": 20.0}, 2500.0, 5e-7),
    "at once and strong": ({}, 3000.0, 1e-6),  # each spike's error of 1e-8 ms is the next one's delay
    "bursts": ({"v_reset": -46.0, "b": 60.0, "tau_w": 40.0, "v_th": 20.0}, 900.0, 1e-6),
    "low peak": ({"v_th": -45.0, "t_ref": 1.0}, 900.0, 1e-7),
    "sharp": ({"v_th": -40.0, "delta_t": 0.5}, 900.0, 1e-6),
    "exponential": ({"a": 0.0, "b": 0.0}, 900.0, 5e-7),
    "far too strong": ({"t_ref": 2.0, "delta_t": 0.5, "v_th": -30.0}, 10_000.0, 5e-6),
}
CURRENT = np.array([current for _, current, _ in NEURONS.values()])
EACH = [jl.AdExParams(**own) for own, _, _ in NEURONS.values()]
PARAMS = jax.tree.map(lambda *leaves: np.array(leaves), *EACH)
STORED = np.load(FOLDER / "nest_adex.npz", allow_pickle=False)
CASES = json.loads(str(STORED["meta"]))["cases"]


def exact(p, current, steps):
    """Return the voltages [T] and the spikes' steps, to 1e-12; parts of an upswing have clocks of their own."""

    def slopes(t, y):
        v, w = min(y[0], p.v_th), y[1]
        upswing = p.delta_t * np.exp((v - p.v_t) / p.delta_t)
        return (p.v_rest - v + upswing + p.r_m * (current - w)) / p.tau_m, (p.a * (v - p.v_rest) - w) / p.tau_w

    ends = DT * np.arange(1, steps + 1)
    trace, spikes, start, y = np.full(steps, p.v_reset), [], 0.0, np.array([p.v_rest, 0.0])
    while start < ends[-1] - 1e-9:
        goal = min([p.v_th, *(x for x in p.v_t + p.delta_t * np.array([5.0, 15.0, 25.0]) if x > y[0])])

        def arrives(t, y, goal=goal):
            return y[0] - goal

        arrives.terminal = True
        due = np.flatnonzero(ends > start)
        run = solve_ivp(
            slopes, (0.0, ends[-1] - start), y, "DOP853", ends[due] - start, events=arrives, rtol=1e-12, atol=1e-12
        )
        trace[due[: len(run.t)]] = run.y[0] if len(run.t) else ()
        if not run.t_events[0].size:
            break
        start, y = start + run.t_events[0][0], np.array([goal, run.y_events[0][0][1]])
        if goal < p.v_th:
            continue
        step = int(np.ceil(start / DT)) - 1
        spikes.append(step)
        y = np.array([p.v_reset, y[1] + p.b])
        if p.t_ref > 0.0:
            free = ends[step] + np.ceil(p.t_ref / DT - 1e-9) * DT
            still = p.a * (p.v_reset - p.v_rest)
            start, y[1] = free, still + (y[1] - still) * np.exp((start - free) / p.tau_w)
    return trace, spikes


@pytest.fixture(scope="module")
def simulated():
    return jl.simulate(CELL, PARAMS, np.tile(CURRENT, (T, 1)))[1]


@pytest.mark.parametrize("name", NEURONS)
def test_voltages_and_spikes_are_those_of_a_fine_solver(name, simulated):
    n, (_, current, atol) = list(NEURONS).index(name), NEURONS[name]
    v, spikes = exact(EACH[n], current, steps := 1000)
    assert len(spikes) >= 2
    np.testing.assert_array_equal(np.flatnonzero(simulated.spikes[:steps, n]), spikes)
    below = v < EACH[n].v_t + 3.0 * EACH[n].delta_t  # above, an error of 1e-9 ms is some 1e-6 mV, or any number
    np.testing.assert_allclose(simulated.v[:steps, n][below], v[below], rtol=0, atol=atol)


def nest_run(name):
    """Return cell, params and inputs of a stored run."""
    case, weight = CASES[name], STORED["arrival_weight"]
    cell, params = from_nest(case["model"], case["params"], dt=DT)
    arrivals = np.zeros((T, 2))
    np.add.at(arrivals, (STORED["arrival_step"], np.where(weight > 0, 0, 1)), weight * case["scale"])
    arrivals = np.abs(arrivals) if "cond" in case["model"] else arrivals
    return cell, params, jl.Drive(jnp.asarray(arrivals, float), jnp.full(T, case["current"]))


@pytest.mark.parametrize("name", CASES)
def test_all_models_of_nest_are_reproduced(name):
    """To less than what NEST's own solver leaves at its default tolerance; the stored run has 1e-12."""
    _, output = jl.simulate(*nest_run(name))
    spikes, v = (np.flatnonzero(output.spikes) + 1) * DT, STORED[f"{name}/v"]
    np.testing.assert_allclose(spikes, STORED[f"{name}/spikes"], rtol=0, atol=1e-9)
    below = v < -44.0
    np.testing.assert_allclose(output.v[19::20][below], v[below], rtol=0, atol=float(STORED[f"{name}/solver"]))


KINDS = {
    "ampa": (jl.Conductance(), jl.ConductanceParams(tau_syn=0.5, e_rev=0.0), 20.0),
    "nmda": (jl.NMDA(), jl.NMDAParams(tau_rise=2.0, tau_decay=40.0), 30.0),
    "gaba": (
        jl.DoubleExponentialConductance(),
        jl.DoubleExponentialConductanceParams(tau_rise=0.5, tau_decay=6.0, e_rev=-80.0),
        10.0,
    ),
    "other": (jl.AlphaCurrent(), jl.CurrentParams(tau_syn=1.5), 200.0),
}


def with_synapses(p, arrivals, current):
    """Return voltages [T] and spikes' steps under KINDS, as linear filters in one system with the neuron, to 1e-11."""
    rise, decay = np.array([np.nan, 2.0, 0.5, 1.5]), np.array([0.5, 40.0, 6.0, 1.5])
    single, equal = np.isnan(rise), rise == decay
    peak = np.where(equal, decay, np.log(decay / rise) * rise * decay / np.where(equal, 1.0, decay - rise))
    height = np.where(equal, peak * np.exp(-1.0), np.exp(-peak / decay) - np.exp(-peak / rise))
    height /= np.where(equal, 1.0, 1.0 / rise - 1.0 / decay)
    e_rev, jumps = np.array([0.0, 0.0, -80.0]), arrivals / np.where(single, 1.0, height)
    y, trace, spikes, left = np.array([p.v_rest, 0.0, *np.zeros(8)]), [], [], 0

    def slopes(t, y):
        v, (x, drive) = p.v_reset if left else min(y[0], p.v_th), y[2:].reshape(2, 4)
        block = np.array([1.0, 1.0 / (1.0 + np.exp(-0.062 * v) / 3.57), 1.0])
        into = current + np.sum(x[:3] * block * (e_rev - v)) + x[3] - y[1]
        v_dot = p.v_rest - v + p.delta_t * np.exp((v - p.v_t) / p.delta_t) + p.r_m * into
        synapses = [np.where(single, 0.0, drive) - x / decay, np.where(single, 0.0, -drive / rise)]
        return np.concatenate([[0.0 if left else v_dot / p.tau_m, (p.a * (v - p.v_rest) - y[1]) / p.tau_w], *synapses])

    def peaks(t, y):
        return y[0] - p.v_th

    peaks.terminal = True
    for n, jump in enumerate(jumps):
        run = solve_ivp(slopes, (0.0, DT), y, "DOP853", rtol=1e-11, atol=1e-11, events=peaks)
        y, left = run.y[:, -1], max(left - 1, 0)
        if run.t_events[0].size:
            spikes.append(n)
            left = 1 + int(np.ceil(p.t_ref / DT - 1e-9))
            y = run.y_events[0][0] + np.array([0.0, p.b, *np.zeros(8)])
            y[0] = p.v_reset
            y, left = solve_ivp(slopes, (run.t_events[0][0], DT), y, rtol=1e-11, atol=1e-11).y[:, -1], left - 1
        y[2:6] += np.where(single, jump, 0.0)
        y[6:] += np.where(single, 0.0, jump)
        trace.append(y[0])
    return np.array(trace), spikes


def test_all_kinds_of_synapse_act_on_it_together():
    """NMDA too, exactly in its voltage."""
    rng, params = np.random.default_rng(6), jl.AdExParams(t_ref=1.0)
    kinds, own, scale = ({name: row[i] for name, row in KINDS.items()} for i in range(3))
    arrivals = np.array([*scale.values()]) * rng.exponential(1.0, (500, 4)) * (rng.random((500, 4)) < 0.03)
    cell = jl.Synaptic(CELL, jl.Kinds(kinds))
    x = jl.Drive(arrivals, np.full(500, 300.0))
    _, output = jl.simulate(cell, jl.SynapticParams(neuron=params, synapse=own), x)
    v, spikes = with_synapses(params, arrivals, 300.0)
    assert len(spikes) >= 2
    np.testing.assert_array_equal(np.flatnonzero(output.spikes), spikes)
    np.testing.assert_allclose(output.v[v < -44.0], v[v < -44.0], rtol=0, atol=1e-6)


def test_single_precision_spikes_in_the_same_steps():
    """Where a spike's time is not the next one's delay; voltages to a few of their 4e-6 mV, magnified by an upswing."""
    with jax.enable_x64(False):
        cell, params, x = nest_run("cond_alpha")
        _, output = jl.simulate(cell, params, x)
        assert output.v.dtype == jnp.float32
        np.testing.assert_allclose((np.flatnonzero(output.spikes) + 1) * DT, STORED["cond_alpha/spikes"], atol=1e-4)
        v = STORED["cond_alpha/v"]
        np.testing.assert_allclose(output.v[19::20][v < -44.0], v[v < -44.0], rtol=0, atol=1e-2)


@pytest.mark.parametrize("t_ref", [0.0, 2.0])
def test_the_gradient_is_exact(t_ref):
    """Voltages past three spikes against central differences, whose error is some 1e-5 of it."""
    params = jl.AdExParams(t_ref=jnp.asarray(t_ref))

    def late(params):
        return jnp.sum(jl.simulate(CELL, params, jnp.full(600, 900.0))[1].v[jnp.array([50, 120, 200, 400, 500, 590])])

    gradient = jax.jit(jax.grad(late))(params)
    for name in ("tau_m", "r_m", "v_rest", "v_reset", "v_t", "delta_t", "a", "tau_w", "b"):
        value = getattr(params, name)
        up, down = (late(replace(params, **{name: value * (1.0 + e)})) for e in (1e-6, -1e-6))
        np.testing.assert_allclose(getattr(gradient, name), (up - down) / (2e-6 * value), rtol=1e-4)
    assert gradient.t_ref == 0.0


def test_long_gradients_are_finite_in_single_precision():
    """10 000 steps with spikes, at once from the reset and on."""
    with jax.enable_x64(False):
        current = jnp.asarray(np.random.default_rng(0).normal(700.0, 1500.0, (10_000, 2)))
        params = replace(jax.tree.map(jnp.asarray, jl.AdExParams()), t_ref=jnp.array([0.0, 2.0]))

        def value(params):
            output = jl.simulate(CELL, params, current)[1]
            return jnp.mean(output.v) + jnp.mean(output.spikes), output.spikes

        gradient, spikes = jax.jit(jax.grad(value, has_aux=True))(params)
        assert (spikes.sum(axis=0) >= 10).all()
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_the_surrogate_sees_one_distance_that_is_continuous_at_the_spike():
    """A spike is there exactly where the distance is not negative: a little current apart, its slope is the same."""
    cell, start = jl.AdEx(surrogate=jnp.ones_like), AdExState(jnp.asarray(-43.0), jnp.asarray(0.0), jnp.asarray(0))

    @jax.jit
    @jax.value_and_grad
    def step(x, v):
        return cell.step(jl.AdExParams(), start._replace(v=v), x)[1].spikes

    least = brentq(lambda x: float(step(x, -43.0)[0]) - 0.5, 0.0, 1e5, xtol=1e-3)
    (silent, before), (spiking, after) = (step(x, -43.0) for x in (least - 1.0, least + 1.0))
    assert (silent, spiking) == (0.0, 1.0) and before > 0.0
    np.testing.assert_allclose(after, before, rtol=2e-2)  # where not even the last substeps halve the time to the peak
    # Far below v_t it is the distance (v - v_t)/|v_t - v_rest| of a LIF.
    np.testing.assert_allclose(step(0.0, -80.0)[1], DT / 281.0 / 20.2, rtol=1e-2)


def test_forced_spikes_reset_and_what_is_not_forced_stays_at_the_peak():
    cell, x = jl.TeacherForced(CELL), jl.Forced(jnp.full(T, 900.0), jnp.zeros(T).at[jnp.array([100, 500])].set(1.0))
    state, output = jl.simulate(cell, jl.AdExParams(t_ref=2.0), x)
    assert output.v[100] == -60.0 and output.v[120] == -60.0 and output.v[121] > -60.0
    np.testing.assert_array_equal(output.v[400:500], 0.0)
    assert output.v[500] == -60.0 and jnp.isfinite(state.w)


def test_a_voltage_jump_comes_at_the_end_of_a_step():
    """On top of what a neuron is that is back from its peak; lost in refractoriness; past the peak it is a spike."""
    params = jl.SynapticParams(neuron=replace(jl.AdExParams(), t_ref=np.array([0.0, 2.0, 0.0])))
    current = np.tile([900.0, 900.0, 0.0], (200, 1))
    cell, jumps = jl.Synaptic(CELL, jl.VoltageJump()), np.zeros((200, 3))
    _, without = jl.simulate(cell, params, jl.Drive(jumps, current))
    step = int(np.flatnonzero(without.spikes[:, 0])[0])
    jumps[step], jumps[50, 2] = (-1.5, -1.5, 0.0), 71.0
    _, output = jl.simulate(cell, params, jl.Drive(jumps, current))
    np.testing.assert_array_equal(output.spikes[: step + 1, :2], without.spikes[: step + 1, :2])
    np.testing.assert_allclose((output.v - without.v)[step, :2], [-1.5, 0.0], rtol=0, atol=1e-12)
    assert np.flatnonzero(output.spikes[:, 2]).tolist() == [50] and output.v[50, 2] == -60.0


def test_a_fit_finds_the_neuron():
    """Teacher-forced, from its voltage below the upswing and its spikes: all parameters of the pair."""
    current = jnp.asarray(np.repeat(np.random.default_rng(2).normal(800.0, 600.0, 30), 20))
    truth = jl.AdExParams(t_ref=2.0)
    _, recorded = jl.simulate(CELL, truth, current)
    assert recorded.spikes.sum() >= 3

    def loss(params):
        _, output = jl.simulate(jl.TeacherForced(CELL), params, jl.Forced(current, recorded.spikes))
        return jnp.mean((jnp.minimum(output.v, -45.0) - jnp.minimum(recorded.v, -45.0)) ** 2)

    start = replace(truth, tau_m=11.0, r_m=0.037, v_t=-49.5, delta_t=1.7, a=3.0, b=65.0)
    bounds = {"tau_m": (2.0, 50.0), "r_m": (0.01, 0.2), "v_t": (-60.0, -40.0), "delta_t": (0.5, 5.0)}
    bounds |= {"a": (0.1, 50.0), "b": (1.0, 500.0)}
    found = jl.fit(loss, start, bounds, optimizer=jl.lbfgs(), num_steps=100).params
    for name in bounds:
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("own", [{}, {"a": 0.5}, {"a": 0.0}, {"a": -5.0, "tau_w": 20.0}, {"a": 30.0, "tau_w": 20.0}])
def test_rheobase_is_where_rest_stops_being_stable(own):
    p = jl.AdExParams(**own)
    stable = []
    for current in (float(p.rheobase) * 0.9999, float(p.rheobase) * 1.0001):
        v = np.linspace(-80.0, -45.0, 350_001)
        e = np.exp((v - p.v_t) / p.delta_t)
        rest = p.v_rest - v + p.delta_t * e + p.r_m * (current - p.a * (v - p.v_rest))
        found = np.flatnonzero((rest[:-1] > 0.0) & (rest[1:] <= 0.0))
        jacobian = [[(e[i] - 1.0) / p.tau_m, -p.r_m / p.tau_m] for i in found[:1]]
        roots = [np.linalg.eigvals([row, [p.a / p.tau_w, -1.0 / p.tau_w]]).real.max() for row in jacobian]
        stable.append(bool(roots) and roots[0] < 0.0)
    assert stable == [True, False]


def test_a_receptor_for_every_port():
    with pytest.raises(ValueError, match="^E_rev and the time constants have different numbers of ports: E_rev 2, "):
        from_nest("aeif_cond_beta_multisynapse", {"E_rev": [0.0, -85.0]}, dt=DT)


@pytest.mark.parametrize(
    "own, message",
    [
        ({"delta_t": 0.0}, "delta_t = 0 mV: delta_t must be greater than 0 mV"),
        ({"v_t": 5.0}, "v_t = 5 mV: v_t must be below v_th = 0 mV"),
        ({"tau_w": -1.0}, "tau_w = -1 ms: tau_w must be greater than 0 ms"),
        ({"v_reset": 1.0}, "v_reset = 1 mV: v_reset must be below v_th = 0 mV"),
    ],
)
def test_bad_parameters_are_refused(own, message):
    with pytest.raises(ValueError) as error:
        jl.simulate(CELL, jl.AdExParams(**own), np.zeros(3))
    assert str(error.value) == message


def test_what_does_not_hold_for_it_is_refused():
    with pytest.raises(ValueError, match="^params = AdExParams: it has no delta_v, which EscapeNoise needs"):
        x = jl.escape_inputs(jax.random.key(0), jnp.zeros((3, 1)))
        jl.simulate(jl.EscapeNoise(CELL), jl.AdExParams(), x)
    with pytest.raises(ValueError, match="^params = AdExParams: .* does not have their delta_t"):
        jl.theory.firing_rate(jl.AdExParams(), 800.0)
    with pytest.raises(ValueError, match="^params = AdExParams: LIF does not have their delta_t"):
        jl.simulate(jl.LIF(), jl.AdExParams(), np.zeros(3))
