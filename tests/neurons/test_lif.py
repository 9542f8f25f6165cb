import json
import math
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.neurons.lif import LIFState, refractory_steps
from tests import nest

DT = 0.1
RNG = np.random.default_rng(7)
NOISE = RNG.normal(300.0, 300.0, (400, 3))  # pA: above rheobase on average, a few spikes of each neuron in 40 ms
MIXED = jl.LIFParams(
    tau_m=jnp.array([10.0, 7.0, 25.0]),
    r_m=jnp.array([0.1, 0.2, 0.4]),
    v_rest=jnp.array([-70.0, -62.0, -50.0]),  # the last above threshold: it fires by itself
    v_th=jnp.array([-55.0, -54.0, -51.0]),
    v_reset=jnp.array([-65.0, -66.0, -60.0]),
    t_ref=jnp.array([0.0, 0.25, 2.0]),
)


def plain_lif(p, current, dt, reset, v_0=None):
    """Step one neuron through the equations in Python floats; return v after each step, and the spikes."""
    v, left, decay = (p.v_rest if v_0 is None else v_0), 0, math.exp(-dt / p.tau_m)
    trace, spikes = [], []
    for i in current:
        if left > 0:
            left, spiked = left - 1, False
        else:
            v_inf = p.v_rest + p.r_m * i
            v = v_inf + (v - v_inf) * decay
            spiked = v >= p.v_th
        if spiked:
            v = p.v_reset if reset == "value" else v - (p.v_th - p.v_reset)
            left = math.ceil(round(p.t_ref / dt, 6))
        trace.append(v)
        spikes.append(float(spiked))
    return np.array(trace), np.array(spikes)


def neuron(params, n):
    """Take neuron n out of [N] parameters, in Python floats."""
    return jax.tree.map(lambda x: float(x[n]), params)


def spike_times(spikes, dt=DT):
    return (np.flatnonzero(np.asarray(spikes)) + 1) * dt


# ------------------------------------------------------------------------------------- against NEST and closed forms

# Float64: both sides round; the two longest cond_exp integrate with NEST's adaptive Runge-Kutta, whose own
# tolerance is what separates them. Float32: a unit in the last place at 70 mV is 7.6e-6 mV, and the leak lets about
# a dozen of the roundings of the last tau_m stand: 1e-4.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@pytest.mark.parametrize("name", nest.CASES)
def test_nest(dtype, name):
    case = nest.load(name)
    _, output = jl.simulate(case.cell, case.params, case.inputs)
    steps = len(case.v)
    assert output.v.dtype == output.spikes.dtype == dtype
    times = spike_times(output.spikes[:steps])
    np.testing.assert_allclose(times, case.spike_times, rtol=0, atol=1e-9)  # the same steps: NEST prints n dt
    atol = 1e-8 if (name, dtype) == ("iaf_cond_exp__spikes", "float64") else TOLERANCE[dtype]
    np.testing.assert_allclose(output.v[:steps], case.v, rtol=0, atol=atol)


def test_the_nest_cases_are_worth_comparing():
    """Every kind of stimulus but the first spikes, in every model."""
    counts = {name: len(nest.load(name).spike_times) for name in nest.CASES}
    assert list(counts.values()) == [0, 3, 5, 9, 15, 0, 3, 5, 9, 15, 0, 3, 5, 9, 12]  # R I = 12 mV never fires


def test_refractory_periods_off_the_grid_round_up_as_in_nest(dtype):
    """All t_ref between two steps, in ms, at once: 0.04 to 2.1, the last not a multiple of 0.1 in binary."""
    expected = json.loads((nest.FOLDER / "nest_tref_rounding.json").read_text())["spikes"]
    t_ref = jnp.array([float(t) for t in expected], dtype)
    params = jl.LIFParams(tau_m=10.0, r_m=0.04, v_rest=-70.0, v_th=-55.0, v_reset=-70.0, t_ref=t_ref)
    _, output = jl.simulate(jl.LIF(dt=DT), params, jnp.full(300, 1500.0))
    for n, times in enumerate(expected.values()):
        np.testing.assert_allclose(spike_times(output.spikes[:, n])[:6], times, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dt", [0.1, 0.05, 0.025, 0.01])
def test_whole_multiples_of_dt_do_not_round_up(dtype, dt):
    k = np.arange(0, 1001)
    np.testing.assert_array_equal(refractory_steps(jnp.asarray(k * dt, dtype), dt), k)
    # A hundredth of a step more is time, not rounding, in float32 too: its spacing at 1000 steps is 6e-5.
    np.testing.assert_array_equal(refractory_steps(jnp.asarray((k + 0.01) * dt, dtype), dt), k + 1)


@pytest.mark.parametrize("v_reset, period", [(-70.0, 27.725887222397812), (-65.0, 23.97895272798371)])
@pytest.mark.parametrize("t_ref", [0.0, 2.0, 5.0])
def test_the_lecture_notes_two_currents(v_reset, period, t_ref):
    """120 pA never fires and settles at -58 mV; 160 pA fires after 27.725887 ms and then every period + t_ref."""
    params = jl.LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=v_reset, t_ref=t_ref)
    _, output = jl.simulate(jl.LIF(dt=DT), params, jnp.broadcast_to(jnp.array([120.0, 160.0]), (2000, 2)))
    assert not output.spikes[:, 0].any()
    # The distance from -58 mV falls as exp(-t / tau_m): 12 mV exp(-20) at the end.
    np.testing.assert_allclose(output.v[:, 0], -58.0 - 12.0 * np.exp(-DT / 10.0 * np.arange(1, 2001)), rtol=1e-13)
    # On a grid the crossing is seen at the end of its step, which then delays every later spike.
    steps = np.array([math.ceil(27.725887222397812 / DT)] + 8 * [math.ceil(period / DT) + round(t_ref / DT)])
    steps = steps.cumsum()
    np.testing.assert_array_equal(np.flatnonzero(output.spikes[:, 1]) + 1, steps[steps <= 2000])
    true = 27.725887222397812 + (period + t_ref) * np.arange(len(steps))
    delay = spike_times(output.spikes[:, 1]) - true[: int(output.spikes[:, 1].sum())]
    assert (delay >= 0).all() and (np.diff(delay, prepend=0.0) <= DT).all()


# --------------------------------------------------------------------------------- against a loop, neuron by neuron


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_noise_through_mixed_neurons_equals_a_plain_loop(reset):
    _, output = jl.simulate(jl.LIF(dt=DT, reset=reset), MIXED, jnp.asarray(NOISE))
    for n in range(3):
        v, spikes = plain_lif(neuron(MIXED, n), NOISE[:, n], DT, reset)
        assert spikes.sum() >= 5
        np.testing.assert_array_equal(output.spikes[:, n], spikes)
        np.testing.assert_allclose(output.v[:, n], v, rtol=0, atol=1e-11)  # 400 roundings of 1e-14 mV


def test_subtraction_keeps_the_overshoot():
    params = jl.LIFParams(tau_m=1e9, r_m=0.5e9, v_rest=0.0, v_th=1.0, v_reset=0.25, t_ref=0.0)
    # tau_m so long that a step adds r_m I dt / tau_m = 1.5 mV: 1.5 -> 0.75 -> 2.25 - 0.75 -> 3 - 0.75.
    _, output = jl.simulate(jl.LIF(dt=1.0, reset="subtract"), params, jnp.full(3, 3.0))
    np.testing.assert_array_equal(output.spikes, 1.0)
    np.testing.assert_allclose(output.v, [0.75, 1.5, 2.25], rtol=1e-8)  # dt / tau_m = 1e-9 still leaks


@pytest.mark.parametrize("t_ref, steps", [(0.0, 0), (0.04, 1), (0.5, 5), (2.01, 21)])
def test_refractoriness_holds_the_reset_voltage(dtype, t_ref, steps):
    """Under a current that crosses in one step, v stays v_reset exactly for ceil(t_ref/dt) more steps."""
    params = jl.LIFParams(v_reset=-65.3, t_ref=t_ref)
    state, output = jl.simulate(jl.LIF(dt=DT), params, jnp.full(100, 1e5))
    expected = np.arange(100) % (steps + 1) == 0
    np.testing.assert_array_equal(output.spikes, expected)
    assert (output.v == jnp.asarray(-65.3, dtype)).all()  # exactly, not beside it
    assert int(state.refractory) == steps - 99 % (steps + 1)


def test_the_threshold_itself_is_a_spike(dtype):
    """v >= v_th: with v_inf = v_th = v the step is exact, so the comparison is between equal numbers."""
    params = jl.LIFParams(r_m=0.5, v_rest=-70.0, v_th=-55.0, v_reset=-65.0)
    below = np.nextafter(np.asarray(-55.0, dtype), np.asarray(-56.0, dtype))
    state = LIFState(jnp.array([-55.0, below], dtype), jnp.zeros(2, jnp.int32))
    _, output = jl.simulate(jl.LIF(dt=DT), params, jnp.full((1, 2), 30.0), state)
    # The second approaches v_th from one unit below, and no unit lies between.
    assert output.spikes.tolist() == [[1.0, 0.0]]


def test_one_large_step_equals_many_small_ones():
    """Exact integration: no step size enters the voltage under a constant current."""
    params = jl.LIFParams(v_th=1e3)
    _, fine = jl.simulate(jl.LIF(dt=0.01), params, jnp.full(1000, 100.0))
    _, coarse = jl.simulate(jl.LIF(dt=10.0), params, jnp.full(1, 100.0))
    np.testing.assert_allclose(coarse.v[-1], fine.v[-1], rtol=1e-13)
    np.testing.assert_allclose(coarse.v[-1], -60.0 - 10.0 * math.exp(-1.0), rtol=1e-15)


def test_a_small_step_loses_nothing_in_float32():
    """With dt/tau_m = 1e-5, 1 - exp(-dt/tau_m) formed in float32 would be wrong by up to 0.6 %."""
    with jax.enable_x64(False):
        params = jl.LIFParams(tau_m=1000.0, r_m=1.0, v_rest=0.0, v_th=1e3, v_reset=-1.0)
        _, output = jl.simulate(jl.LIF(dt=0.01), params, jnp.full(1, 100.0))
        np.testing.assert_allclose(output.v, -100.0 * np.expm1(-1e-5), rtol=3e-7)  # a few units of 6e-8


# ------------------------------------------------------------------------------------------------- shapes, one by one


def test_scalar_parameters_serve_every_neuron():
    """[N] leaves, scalar leaves and single runs agree to the rounding of a vectorised exp."""
    current = jnp.asarray(NOISE)
    scalar = jl.LIFParams(t_ref=0.5)
    vector = jax.tree.map(lambda x: jnp.full(3, x), scalar)
    _, a = jl.simulate(jl.LIF(), scalar, current)
    _, b = jl.simulate(jl.LIF(), vector, current)
    np.testing.assert_array_equal(a.spikes, b.spikes)
    np.testing.assert_allclose(a.v, b.v, rtol=1e-14)
    for n in range(3):
        _, c = jl.simulate(jl.LIF(), scalar, current[:, n])
        assert c.v.shape == c.spikes.shape == (400,)
        np.testing.assert_array_equal(a.spikes[:, n], c.spikes)
        np.testing.assert_allclose(a.v[:, n], c.v, rtol=1e-14)


def test_one_vector_parameter_spreads_one_current_over_neurons():
    params = jl.LIFParams(t_ref=jnp.array([0.0, 5.0]))
    state, output = jl.simulate(jl.LIF(), params, jnp.asarray(np.full(400, 300.0)))
    assert output.v.shape == (400, 2) and state.refractory.shape == (2,)
    assert output.spikes[:, 0].sum() > output.spikes[:, 1].sum() > 0


def test_an_integer_current_is_a_current(dtype):
    _, integer = jl.simulate(jl.LIF(), jl.LIFParams(), jnp.full(300, 200, jnp.int16))
    _, floating = jl.simulate(jl.LIF(), jl.LIFParams(), jnp.full(300, 200.0))
    assert integer.v.dtype == dtype and floating.spikes.sum() > 0
    np.testing.assert_array_equal(integer.v, floating.v)


# ------------------------------------------------------------------------------------------------------------ gradients


def two_steps(x, p, **options):
    """Spike in the first of two steps: return the first spike and the voltage at the end."""
    _, output = jl.simulate(jl.LIF(dt=1.0, **options), p, x)
    return output.spikes[0], output.v[1]


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_gradient_through_a_reset_by_hand(reset, detach_reset):
    """Two steps of which the first spikes: u1 = v_rest + r x0 c, v1 = reset(u1), u2 = v1 e + (v_rest + r x1) c."""
    p = jl.LIFParams(tau_m=4.0, r_m=0.5, v_rest=-70.0, v_th=-60.0, v_reset=-66.0, t_ref=0.0)
    x = jnp.array([100.0, 3.0])
    e, c = math.exp(-0.25), 1.0 - math.exp(-0.25)

    def surrogate(u):  # SuperSpike of (u - v_th)/10 mV, per mV
        return 1.0 / (1.0 + 10.0 * abs(u + 60.0) / 10.0) ** 2 / 10.0

    u1 = -70.0 + 0.5 * 100.0 * c
    v1 = -66.0 if reset == "value" else u1 - 6.0
    u2 = v1 * e + (-70.0 + 1.5) * c
    assert u1 > -60.0 > u2
    attached = 0.0 if detach_reset else 1.0
    if reset == "value":  # v = u (1 - s) + v_reset s, s = 1 and then 0
        v1_u1 = attached * (-66.0 - u1) * surrogate(u1)
        v2_u2 = 1.0 + attached * (-66.0 - u2) * surrogate(u2)
    else:  # v = u - (v_th - v_reset) s
        v1_u1 = 1.0 - attached * 6.0 * surrogate(u1)
        v2_u2 = 1.0 - attached * 6.0 * surrogate(u2)
    jacobian = jax.jacobian(two_steps)(x, p, reset=reset, detach_reset=detach_reset)
    spike, v2 = two_steps(x, p, reset=reset, detach_reset=detach_reset)
    assert spike == 1.0
    np.testing.assert_allclose(v2, u2, rtol=1e-15)
    np.testing.assert_allclose(jacobian[0], [surrogate(u1) * 0.5 * c, 0.0], rtol=1e-12)
    np.testing.assert_allclose(jacobian[1], [v2_u2 * v1_u1 * e * 0.5 * c, v2_u2 * 0.5 * c], rtol=1e-12, atol=1e-17)


def test_gradient_of_a_spike_in_every_parameter_by_hand():
    """s = S((u - v_th)/scale), u = v0 e + (v_rest + r x) c with v0 = v_rest: the scale itself carries no gradient."""
    p = jl.LIFParams(tau_m=4.0, r_m=0.5, v_rest=-70.0, v_th=-60.0, v_reset=-66.0, t_ref=2.0)
    e, c, x = math.exp(-0.25), 1.0 - math.exp(-0.25), 80.0
    h = 1.0 / (1.0 + 10.0 * abs(-70.0 + 40.0 * c + 60.0) / 10.0) ** 2 / 10.0
    gradient = jax.grad(lambda p: two_steps(jnp.array([x, 0.0]), p)[0])(p)
    assert -70.0 + 40.0 * c < -60.0  # a silent neuron has a gradient too
    expected = {
        "tau_m": h * 40.0 * (-e * 1.0 / 4.0**2),  # dc/dtau = -e dt/tau^2
        "r_m": h * x * c,
        "v_rest": h,
        "v_th": -h,
        "v_reset": 0.0,
        "t_ref": 0.0,
    }
    for field in fields(p):
        np.testing.assert_allclose(getattr(gradient, field.name), expected[field.name], rtol=1e-12, atol=0)


def test_the_reset_voltage_has_the_exact_gradient_between_spikes():
    """With the spikes detached, v after a reset is linear in v_reset, v_rest and r_m: finite differences are exact."""
    p = jl.LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=-65.0, t_ref=2.0)
    current = jnp.full(330, 160.0)  # one spike, at 27.8 ms, 3.2 ms after which v is still refractory or has moved

    def end(p):
        return jl.simulate(jl.LIF(dt=DT), p, current)[1].v[-1]

    gradient = jax.grad(end)(p)
    for field in ("v_reset", "v_rest", "r_m", "tau_m"):
        value = getattr(p, field)
        h = 1e-5 * abs(value)  # moves no spike; truncation h^2 and rounding 1e-14/h are both below 1e-8
        up, down = (end(replace(p, **{field: value + s * h})) for s in (1, -1))
        np.testing.assert_allclose(getattr(gradient, field), (up - down) / (2 * h), rtol=1e-6)
    assert gradient.v_reset > 0.5


def test_a_refractory_neuron_passes_no_gradient_to_its_spikes():
    p = jl.LIFParams(t_ref=1.0)
    current = jnp.concatenate([jnp.full(1, 1e5), jnp.full(5, 100.0)])
    jacobian = jax.jacobian(lambda x: jl.simulate(jl.LIF(dt=DT), p, x)[1].spikes)(current)
    assert jacobian[0, 0] > 0
    np.testing.assert_array_equal(jacobian[1:], 0.0)


# ---------------------------------------------------------------------------------------------- units and normalisation


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_the_normalised_neuron_is_the_same_neuron(reset):
    """v' = (v - v_rest)/(v_th - v_rest) and I' = r_m I/(v_th - v_rest): the same spikes, voltages and gradients."""
    mixed = replace(MIXED, v_rest=jnp.array([-70.0, -62.0, -58.0]))  # normalised() needs v_rest < v_th
    span = mixed.v_th - mixed.v_rest
    normalised, gain = mixed.normalised(), mixed.r_m / span
    # Short: with the reset attached the gradient grows along the trace, and rounding with it.
    x = jnp.asarray(NOISE[:200])
    weight = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    def loss(x, tau_m, p):
        _, output = jl.simulate(jl.LIF(dt=DT, reset=reset, detach_reset=False), replace(p, tau_m=tau_m), x)
        return jnp.sum(weight * output.spikes), output

    slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))  # one program for both neurons

    def values_and_gradients(x, p):
        p = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3,)), p)
        return slopes(x, p.tau_m, p)

    (_, a), (x_mv, tau_mv) = values_and_gradients(x, mixed)
    (_, b), (x_one, tau_one) = values_and_gradients(x * gain[None], normalised)
    assert (a.spikes.sum(axis=0) > 0).all()
    np.testing.assert_array_equal(a.spikes, b.spikes)
    np.testing.assert_allclose(b.v, (a.v - mixed.v_rest[None]) / span[None], rtol=0, atol=1e-12)
    np.testing.assert_allclose(x_one * gain[None], x_mv, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(tau_one, tau_mv, rtol=1e-8)


def test_normalised_values_and_its_rule():
    n = jl.LIFParams(tau_m=12.0, r_m=0.3, v_rest=-70.0, v_th=-50.0, v_reset=-75.0, t_ref=3.0).normalised()
    assert n == jl.LIFParams(tau_m=12.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=-0.25, t_ref=3.0)
    with pytest.raises(ValueError, match=r"v_rest\[2\] = -50 mV: v_rest must be below v_th = -51 mV"):
        MIXED.normalised()


def test_from_circuit():
    p = jl.LIFParams.from_circuit(c_m=250.0, g_l=25.0, v_th=-50.0)
    assert p == jl.LIFParams(tau_m=10.0, r_m=0.04, v_th=-50.0)  # pF/nS = ms, 1/nS = GΩ
    assert jl.LIFParams.from_circuit(c_m=100.0, r_m=0.2) == jl.LIFParams(tau_m=20.0, r_m=0.2)
    assert (p.c_m, p.g_l) == (250.0, 25.0)
    vector = jl.LIFParams.from_circuit(c_m=np.array([100.0, 200.0]), g_l=10.0)
    np.testing.assert_array_equal(vector.tau_m, [10.0, 20.0])


@pytest.mark.parametrize("circuit", [{}, {"g_l": 25.0, "r_m": 0.04}])
def test_from_circuit_needs_one_resistance(circuit):
    with pytest.raises(ValueError, match=r"exactly one of g_l \(nS\) and r_m \(GΩ\)"):
        jl.LIFParams.from_circuit(c_m=100.0, **circuit)


# --------------------------------------------------------------------------------------------------------------- rules

BROKEN = [
    ("tau_m", 0.0, "tau_m = 0 ms: tau_m must be greater than 0 ms"),
    ("tau_m", -1.5, "tau_m = -1.5 ms: tau_m must be greater than 0 ms"),
    ("tau_m", math.nan, "tau_m = nan ms: tau_m must be finite"),
    ("tau_m", math.inf, "tau_m = inf ms: tau_m must be finite"),
    ("r_m", 0.0, "r_m = 0 GΩ: r_m must be greater than 0 GΩ"),
    ("r_m", math.nan, "r_m = nan GΩ: r_m must be finite"),
    ("t_ref", -0.1, "t_ref = -0.1 ms: t_ref must be 0 ms or more"),
    ("t_ref", math.inf, "t_ref = inf ms: t_ref must be finite"),
    ("v_rest", math.nan, "v_rest = nan mV: v_rest must be finite"),
    ("v_th", math.inf, "v_th = inf mV: v_th must be finite"),
    ("v_reset", -math.inf, "v_reset = -inf mV: v_reset must be finite"),
    ("v_reset", -55.0, "v_reset = -55 mV: v_reset must be below v_th = -55 mV"),
    ("v_reset", 3, "v_reset = 3 mV: v_reset must be below v_th = -55 mV"),
    ("v_rest", -55.0, "v_rest = -55 mV: v_rest must differ from v_th"),
    ("tau_m", np.array([10.0, -2.0]), "tau_m[1] = -2 ms: tau_m must be greater than 0 ms"),
    ("v_reset", np.array([-65.0, -60.0, -50.0]), "v_reset[2] = -50 mV: v_reset must be below v_th = -55 mV"),
]


@pytest.mark.parametrize("field, value, message", BROKEN)
def test_a_broken_rule_is_named(field, value, message):
    params = jl.LIFParams(**{field: value})  # constructing checks nothing: JAX rebuilds it with tracers and None
    with pytest.raises(ValueError) as error:
        jl.simulate(jl.LIF(), params, jnp.zeros(3))
    assert str(error.value) == message
    with pytest.raises(ValueError) as error:
        jax.tree.map(jnp.asarray, params).check()  # the same for arrays of JAX
    assert str(error.value) == message


def test_tracers_are_not_checked():
    jax.eval_shape(lambda p: p.check(), jl.LIFParams())
    v = jax.jit(lambda tau: jl.simulate(jl.LIF(), jl.LIFParams(tau_m=tau), jnp.zeros(2))[1].v)(10.0)
    np.testing.assert_array_equal(v, -70.0)


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan, math.inf])
def test_dt_must_be_positive(dt):
    for cell in (jl.LIF, jl.LeakyIntegrator):
        with pytest.raises(ValueError, match=rf"dt = {dt:g} ms: dt must be"):
            cell(dt=dt)


def test_an_unknown_reset_is_refused():
    with pytest.raises(ValueError, match='reset = \'soft\': reset must be "value" or "subtract"'):
        jl.LIF(reset="soft")


@pytest.mark.parametrize("v_reset", [-70.0, -65.0])
@pytest.mark.parametrize("t_ref", [0.0, 2.0, 5.0])
def test_the_f_i_curve_is_the_closed_form_up_to_one_step_per_interval(v_reset, t_ref):
    stored = np.load(nest.FOLDER / "theory.npz", allow_pickle=False)
    row = list(stored["fi_v_reset"]).index(v_reset), list(stored["fi_t_ref"]).index(t_ref)
    current = jnp.asarray(stored["fi_ri"]) / 0.1  # r_m I in mV over 0.1 GΩ
    params = jl.LIFParams(v_reset=v_reset, t_ref=t_ref)
    _, output = jl.simulate(jl.LIF(dt=DT), params, jnp.broadcast_to(current, (20_000, current.size)))
    times = jl.spiketrains.spike_times(np.asarray(output.spikes), DT)
    for train, rate in zip(times, stored["fi_rate"][row], strict=True):
        if rate == 0.0:
            assert len(train) == 0
        else:
            # The grid rounds the way to threshold up to whole steps; t_ref is one already.
            late = np.diff(train) - 1000.0 / rate
            assert (late > -1e-9).all() and (late < DT).all()
