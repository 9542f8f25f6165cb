import itertools
import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import quad, solve_ivp

import jaxlif as jl

DATA = Path(__file__).parent / "data"
SHUNTING = np.load(DATA / "shunting.npz")
# A passive membrane: the threshold is out of reach. C = 250 pF, g_L = 25 nS.
PASSIVE = jl.LIFParams(tau_m=10.0, r_m=0.04, v_rest=-70.0, v_th=1e3, v_reset=-70.0, t_ref=2.0)


# -------------------------------------------------------------------------------------------------- shunting inhibition


def shunting_arrivals(dt, num_steps, inhibition=15.0):
    """Return arrivals [T, K = exc, inh; N = exc alone, inh alone, both], nS: Brian2 adds a weight at label + dt."""
    w = np.zeros((num_steps, 2, 3))
    for kind, (times, weight, cells) in enumerate(
        [(SHUNTING["exc_times"], 2.0, [0, 2]), (SHUNTING["inh_times"], inhibition, [1, 2])]
    ):
        for t in times:
            w[round(t / dt), kind, cells] += weight
    return w


def shunted(dt=0.01, duration=160.0, inhibition=15.0):
    num_steps = round(duration / dt)
    synapse = jl.ConductanceParams(tau_syn=jnp.array([5.0, 10.0]), e_rev=jnp.array([0.0, -70.0]))
    inputs = jl.Drive(jnp.asarray(shunting_arrivals(dt, num_steps, inhibition), float), jnp.zeros((num_steps, 3)))
    cell, params = jl.Synaptic(jl.LIF(dt=dt), jl.Conductance()), jl.SynapticParams(neuron=PASSIVE, synapse=synapse)
    return jl.simulate(cell, params, inputs)[1].v


def exponential_euler(arrivals, dt):
    """Step Brian2's scheme: within a step the conductances are those of its start."""
    v, g, trace = np.full(3, -70.0), np.zeros((2, 3)), []
    for w in arrivals:
        total = 25.0 + g.sum(axis=0)
        v_inf = (25.0 * -70.0 + g[0] * 0.0 + g[1] * -70.0) / total
        v = v_inf + (v - v_inf) * np.exp(-dt * total / 250.0)
        g = g * np.exp(-dt / np.array([[5.0], [10.0]])) + w
        trace.append(v)
    return np.array(trace)


def test_shunting_inhibition_alone_moves_nothing(dtype):
    v = shunted()
    assert v.dtype == dtype
    assert (v[:, 1] == -70.0).all()  # exactly: its driving force is 0
    assert v[:, 0].max() > -66.0


def test_shunting_inhibition_divides_excitation():
    """Brian2's figure in continuous time: with inhibition the peak falls from 4.510 to 2.570 mV, by 43.0 %."""
    peak = np.asarray(shunted()).max(axis=0) + 70.0
    np.testing.assert_allclose(peak, [4.510, 0.0, 2.570], atol=5e-4)  # the digits given
    assert f"{100 * (1 - peak[2] / peak[0]):.1f} %" == "43.0 %"


@pytest.mark.parametrize("inhibition, reduction", [(5.0, 19.3), (15.0, 43.0), (40.0, 67.8)])
def test_shunting_takes_away_the_more_the_larger_it_is(inhibition, reduction):
    v = np.asarray(shunted(inhibition=inhibition))
    peak = v.max(axis=0) + 70.0
    np.testing.assert_allclose(100.0 * (1.0 - peak[2] / peak[0]), reduction, atol=0.05)  # the digits given
    assert (v[:, 1] == -70.0).all()  # alone it moves nothing


def test_shunting_equals_brian2_up_to_brian2s_own_error():
    """Brian2 freezes g over a step and so is off by O(dt): it equals that scheme, and the scheme tends to ours."""
    ours = np.asarray(shunted())
    scheme = {dt: exponential_euler(shunting_arrivals(dt, round(160.0 / dt)), dt) for dt in (0.01, 0.02)}
    for n, brian in ((0, SHUNTING["v_exc"]), (2, SHUNTING["v_both"])):
        # Samples every 0.5 ms; the one at t = 0 is the initial voltage. The loop above is Brian2's to rounding.
        np.testing.assert_allclose(scheme[0.01][49::50, n], brian[1:], rtol=0, atol=1e-11)
        # g is too large by dt/(2 tau_e) = 0.1 % for dt = 0.01, which is 4.5e-3 mV of 4.51 mV at most.
        np.testing.assert_allclose(ours[49::50, n], brian[1:], rtol=0, atol=4.6e-3)
    # Arrivals are labels + dt, so only the isolated kick at 20 ms compares: shifted by 0.01 ms for dt = 0.02.
    error = [np.abs(scheme[dt][:, 0].max() - ours[:, 0].max()) for dt in (0.01, 0.02)]
    np.testing.assert_allclose(error[1] / error[0], 2.0, atol=0.02)  # first order, towards ours


def test_a_constant_conductance_reaches_its_closed_form():
    """tau_syn of 1e9 ms holds g: then v goes to V_inf with tau_eff, both given by an independent table."""
    g_e, g_i, v_inf, tau_eff = SHUNTING["static"].T
    synapse = jl.ConductanceParams(tau_syn=1e9, e_rev=jnp.array([0.0, -70.0]))
    arrivals = np.zeros((501, 2, len(g_e)))
    arrivals[0] = [g_e, g_i]  # at the end of the first step, during which nothing happens
    inputs = jl.Drive(jnp.asarray(arrivals), jnp.zeros((501, len(g_e))))
    cell = jl.Synaptic(jl.LIF(dt=0.1), jl.Conductance())
    _, output = jl.simulate(cell, jl.SynapticParams(neuron=PASSIVE, synapse=synapse), inputs)
    t = 0.1 * np.arange(501)[:, None]
    expected = v_inf + (-70.0 - v_inf) * np.exp(-t / tau_eff)
    np.testing.assert_allclose(output.v, expected, rtol=0, atol=1e-6)  # g has decayed by 5e-8 at the end
    np.testing.assert_allclose(output.v[1:51], expected[1:51], rtol=0, atol=1e-7)
    assert (output.v[:, g_e == 0.0] == -70.0).all()


@pytest.mark.parametrize("dt, atol", [(0.1, 1e-12), (0.5, 1e-8), (1.0, 1e-6)])
def test_conductances_equal_a_fine_integration(dt, atol):
    """Four Gauss-Legendre nodes err as dt^8: 3.5e-7 mV at 1 ms with tau_syn 0.5 ms, 256 times less at 0.5 ms."""
    g, tau, e_rev = np.array([20.0, 10.0]), np.array([0.5, 5.0]), np.array([0.0, -80.0])

    def slope(t, v):
        return (-70.0 - v + 0.04 * (300.0 + np.sum(g * np.exp(-t / tau) * (e_rev - v)))) / 10.0

    cell = jl.Synaptic(jl.LIF(dt=dt), jl.Conductance())
    synapse = jl.ConductanceParams(tau_syn=jnp.asarray(tau), e_rev=jnp.asarray(e_rev))
    params = jl.SynapticParams(neuron=PASSIVE, synapse=synapse)
    inputs = jl.Drive(jnp.zeros((40, 2)), jnp.full(40, 300.0))
    state = cell.init_state(params, jax.tree.map(lambda x: x[0], inputs))._replace(synapse=jnp.asarray(g))
    final, output = jl.simulate(cell, params, inputs, state)
    t = dt * np.arange(1, 41)
    exact = solve_ivp(slope, (0.0, t[-1]), [-70.0], t_eval=t, method="DOP853", rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(output.v, exact.y[0], rtol=0, atol=max(atol, 1e-10))  # 1e-10: solve_ivp between steps
    first = solve_ivp(slope, (0.0, dt), [-70.0], method="DOP853", rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(output.v[0], first.y[0, -1], rtol=0, atol=atol)
    np.testing.assert_allclose(final.synapse, g * np.exp(-t[-1] / tau), rtol=1e-13)


def test_closed_conductances_leave_the_plain_neuron_at_any_step():
    """A step of four time constants, where four nodes alone would miss a thousandth of the leak's integral."""
    current = jnp.array([100.0, -50.0, 300.0])
    synapse = jl.ConductanceParams(tau_syn=jnp.array([5.0]), e_rev=jnp.array([0.0]))
    cell, params = jl.Synaptic(jl.LIF(dt=40.0), jl.Conductance()), jl.SynapticParams(neuron=PASSIVE, synapse=synapse)
    v = jl.simulate(cell, params, jl.Drive(jnp.zeros((3, 1)), current))[1].v
    np.testing.assert_allclose(v, jl.simulate(jl.LIF(dt=40.0), PASSIVE, current)[1].v, rtol=1e-14)


def excited(dt, g, num_steps):
    """Return v of a neuron on which ``g`` nS of AMPA and NMDA arrive at 2 ms; what it is at 2 ms is rest."""
    cell = jl.Synaptic(jl.LIF(dt=dt), jl.Kinds({"ampa": jl.Conductance(), "nmda": jl.NMDA()}))
    own = {"ampa": jl.ConductanceParams(tau_syn=2.0), "nmda": jl.NMDAParams(tau_rise=2.0, tau_decay=60.0)}
    arrivals = jnp.zeros((num_steps, 2)).at[round(2.0 / dt) - 1].set(jnp.asarray(g))
    params = jl.SynapticParams(neuron=replace(PASSIVE, r_m=0.1), synapse=own)
    return jl.simulate(cell, params, jl.Drive(arrivals, jnp.zeros(num_steps)))[1].v


def test_nmda_is_of_fourth_order():
    """Against a fine integration: halving dt divides the error by 16, and 0.1 ms leaves less than 1e-6 mV of 17."""
    g, (rise, decay) = (20.0, 30.0), (2.0, 60.0)
    peak = rise * decay * math.log(decay / rise) / (decay - rise)
    scale = g[1] / (math.exp(-peak / decay) - math.exp(-peak / rise))

    def slope(t, v):
        nmda = scale * (np.exp(-t / decay) - np.exp(-t / rise)) / (1.0 + np.exp(-0.062 * v) / 3.57)
        return (-70.0 - v + 0.1 * (g[0] * np.exp(-t / 2.0) + nmda) * -v) / 10.0

    t = 0.4 * np.arange(1, 51)
    fine = solve_ivp(slope, (0.0, 20.0), [-70.0], t_eval=t, method="DOP853", rtol=1e-13, atol=1e-12).y[0]
    errors = []
    for dt in (0.4, 0.2, 0.1):
        v = np.asarray(excited(dt, g, round(22.0 / dt)))
        errors.append(np.abs(v[round(2.0 / dt) - 1 :: round(0.4 / dt)][1:] - fine).max())
    assert np.ptp(fine) > 15.0 and errors[-1] < 1e-6
    orders = np.log2(errors[:-1]) - np.log2(errors[1:])
    np.testing.assert_allclose(orders, 4.0, atol=0.25)  # 4.2 and 4.1, on their way to it


def test_magnesium_blocks_as_measured():
    """Without it NMDA is a double-exponential conductance; half is blocked where [Mg] = 3.57 mM e^(0.062 v / mV)."""
    cells = (jl.NMDA(), jl.DoubleExponentialConductance())
    own = jl.NMDAParams(tau_rise=2.0, tau_decay=40.0, mg=0.0)
    x = jl.Drive(jnp.zeros((60, 1)).at[0].set(5.0), jnp.zeros(60))
    runs = [(kind, jl.SynapticParams(neuron=PASSIVE, synapse=own)) for kind in cells]
    free, plain = (jl.simulate(jl.Synaptic(jl.LIF(dt=0.1), kind), params, x)[1].v for kind, params in runs)
    np.testing.assert_allclose(free, plain, rtol=1e-14)
    half = replace(own, mg=3.57 * math.exp(0.062 * -70.0))
    blocked = jl.simulate(jl.Synaptic(jl.LIF(dt=0.1), jl.NMDA()), jl.SynapticParams(neuron=PASSIVE, synapse=half), x)[1]
    np.testing.assert_allclose((blocked.v[2] + 70.0) / (free[2] + 70.0), 0.5, rtol=2e-3)  # v moves by 0.03 mV


# ------------------------------------------------------------------------------------------------- exponential currents


def test_postsynaptic_potentials_equal_the_reference(dtype):
    """Six pairs of time constants at once, equal ones and ones that differ by 1e-7 among them."""
    stored = np.load(DATA / "theory.npz")
    (tau_m, tau_syn, c_m, weight), t = stored["psp_cases"].T, stored["psp_t"]
    assert {(10.0, 10.0), (10.0, 10.000001)} < set(zip(tau_m, tau_syn, strict=True))
    neuron = jl.LIFParams(tau_m=jnp.asarray(tau_m, dtype), r_m=jnp.asarray(tau_m / c_m, dtype), v_rest=0.0, v_th=1e3)
    synapse = jl.CurrentParams(tau_syn=jnp.asarray(tau_syn, dtype)[None])
    arrivals = jnp.zeros((501, 1, 6)).at[0, 0].set(jnp.asarray(weight, dtype))
    cell = jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
    params = jl.SynapticParams(neuron=neuron, synapse=synapse)
    _, output = jl.simulate(cell, params, jl.Drive(arrivals, jnp.zeros((501, 6))))
    at = np.rint(t / 0.1).astype(int)  # output 0 is the moment of arrival
    # The peaks are 0.2 to 1.5 mV; each of 500 steps rounds v and I once.
    atol = {"float64": 1e-13, "float32": 2e-5}[dtype]
    np.testing.assert_allclose(output.v[at], stored["psp_exponential"].T, rtol=0, atol=atol)
    assert (output.v[0] == 0.0).all()


def potential(tau_syn, *, tau_m=10.0, dt=0.1, num_steps=101):
    """Return v, mV from rest, num_steps - 1 steps after 100 pA arrived."""
    params = jl.SynapticParams(
        neuron=jl.LIFParams(tau_m=tau_m, r_m=0.04, v_rest=0.0, v_th=1e3, v_reset=0.0),
        synapse=jl.CurrentParams(tau_syn=tau_syn),
    )
    inputs = jl.Drive(jnp.zeros((num_steps, 1)).at[0, 0].set(100.0), jnp.zeros(num_steps))
    return jl.simulate(jl.Synaptic(jl.LIF(dt=dt), jl.ExponentialCurrent()), params, inputs)[1].v[-1]


def test_gradient_at_equal_time_constants():
    """There u(t) = r w/tau t e^(-t/tau) and du/dtau_syn = r w/tau t^2/(2 tau^2) e^(-t/tau)."""
    value, slope = jax.value_and_grad(potential)(10.0)
    unit = 0.04 * 100.0 / 10.0 * math.exp(-1.0)
    np.testing.assert_allclose(value, unit * 10.0, rtol=1e-13)
    np.testing.assert_allclose(slope, unit * 0.5, rtol=1e-11)
    h = 1e-4  # truncation h^2/6 u''' and rounding 1e-16/h are below 1e-11
    np.testing.assert_allclose(slope, (potential(10.0 + h) - potential(10.0 - h)) / (2 * h), rtol=1e-9)
    both = jax.grad(lambda tau: potential(tau, tau_m=tau))(10.0)  # u is 4 mV x (t/tau) e^(-t/tau): extremal at t = tau
    np.testing.assert_allclose(both, 0.0, atol=1e-12)


@pytest.mark.parametrize("tau_syn", [0.5, 4.9, 4.99999, 5.00001, 5.1, 9.9, 10.1, 30.0])
def test_value_and_gradient_on_both_sides_of_the_series(tau_syn):
    """The series takes over at |dt/tau_syn - dt/tau_m| = 0.01, here tau_syn = 5 ms: no seam in value or slope."""
    a, b, t = tau_syn, 10.0, 10.0
    fast, slow = math.exp(-t / a), math.exp(-t / b)
    expected = 4.0 * a / (a - b) * (fast - slow)
    slope = 4.0 * (-b / (a - b) ** 2 * (fast - slow) + a / (a - b) * fast * t / a**2)
    value, gradient = jax.value_and_grad(potential)(tau_syn)
    # (a - b)^2 in the closed form itself magnifies rounding by 1e4 at 9.9 and 10.1.
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10)


@pytest.mark.parametrize("tau_syn", [5.5, 9.9, 9.999, 10.0, 10.0001, 10.01, 11.0])
def test_slope_of_one_step_near_equal_time_constants(dtype, tau_syn):
    """du/dtau_syn = r w/tau_m int s/tau_syn^2 e^(-s/tau_syn) e^(-(dt-s)/tau_m) ds, without the closed form's 0/0."""
    expected = quad(lambda s: 0.4 * s / tau_syn**2 * math.exp(-s / tau_syn - (0.1 - s) / 10.0), 0.0, 0.1, epsabs=1e-15)
    slope = jax.jit(jax.grad(lambda tau: potential(tau, num_steps=2)))(tau_syn)
    # The closed form itself would be off by eps/|dt/tau_syn - dt/tau_m|: 1e-11 and 1e-2 at 9.999.
    np.testing.assert_allclose(slope, expected[0], rtol={"float64": 1e-11, "float32": 1e-5}[dtype])


def test_kinds_add_up_whatever_the_shape_of_tau_syn():
    """Scalar, [K] and [K, N] time constants: the potentials of the kinds add, since the membrane is linear."""
    rng = np.random.default_rng(2)
    arrivals = jnp.asarray(rng.normal(0.0, 50.0, (200, 2, 3)))
    cell = jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
    neuron = replace(PASSIVE, v_rest=0.0)

    def v(tau_syn, arrivals):
        params = jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=tau_syn))
        return np.asarray(jl.simulate(cell, params, jl.Drive(arrivals, jnp.zeros((200, 3))))[1].v)

    per_kind = v(jnp.array([2.0, 5.0]), arrivals)
    per_neuron = v(jnp.array([[2.0] * 3, [5.0] * 3]), arrivals)
    np.testing.assert_allclose(per_kind, per_neuron, rtol=0, atol=1e-14)
    cells = jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=jnp.array([[2.0] * 3, [5.0] * 3])))
    alone = jl.simulate(cell, cells, jl.Drive(arrivals[:, :, 0], jnp.zeros(200)))[
        1
    ].v  # tau_syn says how many there are
    np.testing.assert_allclose(alone, np.repeat(per_kind[:, :1], 3, axis=1), rtol=0, atol=1e-14)
    kinds = [v(tau, arrivals.at[:, 1 - k].set(0.0)) for k, tau in enumerate((2.0, 5.0))]
    np.testing.assert_allclose(per_kind, kinds[0] + kinds[1], rtol=0, atol=1e-13)
    assert np.abs(per_kind).max() > 0.1


@pytest.mark.parametrize(
    ("neuron", "kind"),
    [(jl.LIF(dt=0.1), jl.Conductance()), (jl.ResonantLIF(dt=0.1), jl.ExponentialCurrent())],
)
def test_arrivals_without_an_axis_of_neurons_reach_them_all(kind, neuron):
    """Two kinds on two neurons, whose axes could be taken for one another: each neuron equals itself alone."""
    current = isinstance(kind, jl.ExponentialCurrent)
    kinds = {"tau_syn": jnp.array([2.0, 5.0])} | ({} if current else {"e_rev": jnp.array([0.0, -80.0])})
    synapse = (jl.CurrentParams if current else jl.ConductanceParams)(**kinds)
    arrivals = jnp.zeros((60, 2)).at[5].set(jnp.array([3.0, 1.0])).at[20, 1].set(2.0)

    def v(tau_m):
        own = (jl.LIFParams if isinstance(neuron, jl.LIF) else jl.ResonantLIFParams)(tau_m=tau_m)
        params = jl.SynapticParams(neuron=own, synapse=synapse)
        return np.asarray(jl.simulate(jl.Synaptic(neuron, kind), params, jl.Drive(arrivals, jnp.zeros(60)))[1].v)

    alone = np.stack([v(10.0), v(20.0)], axis=1)
    np.testing.assert_allclose(v(jnp.array([10.0, 20.0])), alone, rtol=0, atol=1e-12)  # rounding of 70 mV
    assert np.ptp(alone, axis=0).min() > 0.01 and np.abs(alone[:, 0] - alone[:, 1]).max() > 0.01


def test_kinds_have_an_axis_of_neurons_where_one_of_them_has():
    """Parameters [3] of one kind, under arrivals and a current that all share: the states of the others line up."""
    cell = jl.Synaptic(jl.LIF(), jl.Kinds({"nmda": jl.NMDA(), "other": jl.AlphaCurrent()}))
    own = {"nmda": jl.NMDAParams(mg=jnp.array([0.9, 1.0, 1.1])), "other": jl.CurrentParams()}
    state = cell.init_state(jl.SynapticParams(synapse=own), jl.Drive(jnp.zeros(2), jnp.zeros(())))
    assert [y.value.shape for y in state.synapse] == [(1, 3), (1, 1)] and state.neuron.v.shape == (3,)


# ---------------------------------------------------------------------------------------------- when arrivals take hold


def first_moves(cell, params, arrivals):
    """Return the voltage after the step at whose end something arrives, and after the next."""
    _, output = jl.simulate(cell, params, jl.Drive(arrivals, jnp.zeros(len(arrivals))))
    return output.v.tolist(), output.spikes.tolist()


def test_a_jump_is_seen_at_once_and_tested_at_once():
    cell, neuron = jl.Synaptic(jl.LIF(dt=0.1), jl.VoltageJump()), jl.LIFParams(t_ref=0.1)
    jumps = jnp.array([2.0, 0.0, 15.0, 7.0, 3.0])
    v, spikes = first_moves(cell, jl.SynapticParams(neuron=neuron), jumps)
    decayed = -70.0 + 2.0 * math.exp(-0.1 / 10.0)
    np.testing.assert_allclose(v[:2], [-68.0, decayed], rtol=1e-15)
    # 2 mV e^-0.02 + 15 mV crosses 15 mV; the next step is refractory, and its 7 mV are lost.
    assert spikes == [0.0, 0.0, 1.0, 0.0, 0.0] and v[2:4] == [-65.0, -65.0]
    np.testing.assert_allclose(v[4], -70.0 + 5.0 * math.exp(-0.01) + 3.0, rtol=1e-15)


@pytest.mark.parametrize("kind", ["current", "conductance"])
def test_a_current_moves_the_voltage_one_step_later(kind):
    if kind == "current":
        synapse, params = jl.ExponentialCurrent(), jl.CurrentParams(tau_syn=10.0)
        rise = 0.1 * 100.0 / 10.0 * 0.1 * math.exp(-0.01)  # r w/tau t e^(-t/tau) at t = dt, for equal constants
    else:
        synapse, params = jl.Conductance(), jl.ConductanceParams(tau_syn=1e12, e_rev=-60.0)
        rise = 10.0 * 10.0 / 11.0 * -math.expm1(-0.1 * 11.0 / 10.0)  # g = 100 nS against g_L = 10 nS
    cell = jl.Synaptic(jl.LIF(dt=0.1), synapse)
    v, _ = first_moves(cell, jl.SynapticParams(synapse=params), jnp.array([[100.0], [0.0]]))
    assert v[0] == -70.0
    np.testing.assert_allclose(v[1], -70.0 + rise, rtol=1e-13)


# ---------------------------------------------------------------------------------------------------------- composition


@pytest.mark.parametrize("forced", [False, True])
def test_free_and_forced_composition_equal_a_plain_loop(forced):
    """Two kinds of current, refractoriness, and resets at recorded spikes where the neuron is teacher-forced."""
    rng = np.random.default_rng(5)
    num_steps, dt, tau_m, r_m, tau_syn = 400, 0.2, 10.0, 0.1, np.array([2.0, 6.0])
    arrivals = rng.exponential(60.0, (num_steps, 2)) * rng.choice([0.0, 1.0], (num_steps, 2), p=[0.7, 0.3])
    current = rng.normal(100.0, 50.0, num_steps)
    recorded = np.zeros(num_steps)
    recorded[[30, 31, 90, 200, 204, 333]] = 1.0  # two pairs within the refractory 2 ms

    v, i_syn, left, expected = -70.0, np.zeros(2), 0, []
    for n in range(num_steps):
        before = v
        if left == 0:
            psp = sum(  # the closed form of an exponential current through the membrane for one step
                r_m * i * tau / (tau - tau_m) * (math.exp(-dt / tau) - math.exp(-dt / tau_m))
                for i, tau in zip(i_syn, tau_syn, strict=True)
            )
            v_inf = -70.0 + r_m * current[n]
            before = v_inf + (v - v_inf) * math.exp(-dt / tau_m) + psp
        own = float(left == 0 and before >= -55.0)
        spiked = recorded[n] if forced else own
        left = 10 if spiked else max(left - 1, 0)
        v = -65.0 if spiked else before
        i_syn = i_syn * np.exp(-dt / tau_syn) + arrivals[n]
        expected.append((own, v, before))
    own, v, before = np.array(expected).T
    assert own.sum() > 5

    cell = jl.Synaptic(jl.LIF(dt=dt), jl.ExponentialCurrent())
    inputs = jl.Drive(jnp.asarray(arrivals), jnp.asarray(current))
    params = jl.SynapticParams(
        neuron=jl.LIFParams(tau_m=tau_m, r_m=r_m, t_ref=2.0), synapse=jl.CurrentParams(tau_syn=jnp.asarray(tau_syn))
    )
    if forced:
        _, output = jl.simulate(jl.TeacherForced(cell), params, jl.Forced(inputs, jnp.asarray(recorded)))
        np.testing.assert_allclose(output.v_before, before, rtol=0, atol=1e-12)
    else:
        _, output = jl.simulate(cell, params, inputs)
    np.testing.assert_array_equal(output.spikes, own)
    np.testing.assert_allclose(output.v, v, rtol=0, atol=1e-12)


def test_teacher_forcing_a_neuron_with_its_own_spikes_changes_nothing():
    """Forced at exactly the spikes that it emits, a neuron goes the way that it goes by itself."""
    current = jnp.asarray(np.random.default_rng(3).normal(300.0, 300.0, (400, 2)))
    params = jl.LIFParams(t_ref=jnp.array([0.0, 2.0]))
    _, free = jl.simulate(jl.LIF(), params, current)
    _, forced = jl.simulate(jl.TeacherForced(jl.LIF()), params, jl.Forced(current, free.spikes))
    assert (free.spikes.sum(axis=0) >= 3).all()
    np.testing.assert_array_equal(forced.spikes, free.spikes)
    np.testing.assert_allclose(forced.v, free.v, rtol=1e-14)
    np.testing.assert_array_equal(forced.v_before >= -55.0, free.spikes == 1.0)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize(
    "kind, neuron", [*itertools.product(("current", "conductance"), ("plain", "resonant")), ("nmda", "plain")]
)
def test_gradients_of_a_passive_trace_equal_central_differences(kind, neuron):
    rng = np.random.default_rng(11)
    arrivals = jnp.asarray(rng.exponential(20.0, (100, 2)) * rng.choice([0.0, 1.0], (100, 2), p=[0.8, 0.2]))
    if kind == "current":  # equal to tau_m, and to one another, in two filters
        own = jl.DoubleExponentialCurrentParams(tau_rise=jnp.array([10.0, 3.0]), tau_decay=jnp.array([10.0, 5.0]))
        cell, synapse = jl.DoubleExponentialCurrent(), own
    elif kind == "nmda":
        taus = {"tau_rise": jnp.array([2.0, 10.0]), "tau_decay": jnp.array([30.0, 10.0])}
        cell, synapse = jl.NMDA(), jl.NMDAParams(**taus, e_rev=jnp.array([0.0, -80.0]), mg=jnp.array([1.0, 0.5]))
    else:
        cell = jl.Conductance()
        synapse = jl.ConductanceParams(tau_syn=jnp.array([2.0, 10.0]), e_rev=jnp.array([0.0, -80.0]))
    resonant = jl.ResonantLIFParams(**vars(PASSIVE), a=30.0, tau_w=20.0)
    inner, membrane = (jl.LIF, PASSIVE) if neuron == "plain" else (jl.ResonantLIF, resonant)
    cell, neuron_and_synapse = jl.Synaptic(inner(dt=0.5), cell), jl.SynapticParams(neuron=membrane, synapse=synapse)

    def loss(params, arrivals):
        v = jl.simulate(cell, params, jl.Drive(arrivals, jnp.full(100, 50.0)))[1].v
        return jnp.sum((v + 65.0) ** 2)

    point, unravel = ravel_pytree(jax.tree.map(jnp.asarray, (neuron_and_synapse, arrivals)))
    losses = jax.jit(jax.vmap(lambda x: loss(*unravel(x))))
    gradient = jax.jit(jax.grad(lambda x: loss(*unravel(x))))(point)
    # Every parameter, and ten of the arrivals.
    checked = np.r_[0 : len(point) - arrivals.size, len(point) - arrivals.size : len(point) : 20]
    point = np.asarray(point)
    h = 1e-5 * np.maximum(1.0, np.abs(point[checked]))
    shift = np.eye(len(point))[checked] * h[:, None]
    difference = (losses(point + shift) - losses(point - shift)) / (2 * h)
    # The loss is about 1e3, rounded to 1e-12 over 2e-5; truncation is of the order h^2 = 1e-10.
    np.testing.assert_allclose(gradient[checked], difference, rtol=1e-6, atol=1e-5)
    assert (gradient[checked] != 0.0).sum() > 10


# ---------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "synapse, message",
    [
        (jl.CurrentParams(tau_syn=0.0), "tau_syn = 0 ms: tau_syn must be greater than 0 ms"),
        (jl.CurrentParams(tau_syn=np.array([2.0, -1.0])), "tau_syn[1] = -1 ms: tau_syn must be greater than 0 ms"),
        (jl.ConductanceParams(tau_syn=math.nan), "tau_syn = nan ms: tau_syn must be finite"),
        (jl.ConductanceParams(e_rev=math.inf), "e_rev = inf mV: e_rev must be finite"),
    ],
)
def test_a_broken_rule_is_named(synapse, message):
    kind = jl.ExponentialCurrent() if isinstance(synapse, jl.CurrentParams) else jl.Conductance()
    with pytest.raises(ValueError) as error:
        jl.simulate(
            jl.Synaptic(jl.LIF(), kind),
            jl.SynapticParams(synapse=synapse),
            jl.Drive(jnp.zeros((3, 2)), jnp.zeros(3)),
        )
    assert str(error.value) == message


def test_the_rules_of_the_wrapped_neuron_hold():
    params = jl.SynapticParams(neuron=jl.LIFParams(tau_m=-1.0))
    with pytest.raises(ValueError, match="tau_m = -1 ms"):
        jl.simulate(jl.Synaptic(jl.LIF(), jl.VoltageJump()), params, jl.Drive(jnp.zeros(3), jnp.zeros(3)))


@pytest.mark.parametrize("synapse", [jl.Conductance(), jl.NMDA()], ids=["conductance", "nmda"])
@pytest.mark.parametrize("cell", [jl.LIF(dt=0.1), jl.ResonantLIF(dt=0.1)], ids=["lif", "resonant"])
def test_a_conductance_that_acts_within_a_step_gives_no_voltage(cell, synapse):
    """Beyond r_m g dt / tau_m = 10; from -461 to -49 000 mV were returned there, far outside of all potentials."""
    own = jl.ConductanceParams(tau_syn=5.0) if isinstance(synapse, jl.Conductance) else jl.NMDAParams(mg=0.0)
    neuron = (jl.LIFParams if isinstance(cell, jl.LIF) else jl.ResonantLIFParams)(v_th=1e3)
    arrivals = jnp.zeros((60, 1, 2)).at[0, 0].set(jnp.array([9e3, 1e5]))  # r_m dt / tau_m is 0.001 per nS
    params = jl.SynapticParams(neuron=neuron, synapse=own)
    v = jl.simulate(jl.Synaptic(cell, synapse), params, jl.Drive(arrivals, jnp.zeros((60, 2))))[1].v
    assert ((v[:, 0] > -71.0) & (v[:, 0] < 5.0)).all() and np.isnan(v[-1, 1])
