"""PreciseSynaptic against NEST's precise models, an event-driven oracle and central differences, whatever dt."""

import json
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxlif as jl
from jaxlif.interop import from_nest
from tests.event_driven import Train, run

DATA = Path(__file__).parent / "data"
SYNAPSES = {
    "iaf_psc_delta_ps": jl.VoltageJump(),
    "iaf_psc_exp_ps": jl.ExponentialCurrent(),
    "iaf_psc_alpha_ps": jl.AlphaCurrent(),
}
NAMES = [field.name for field in fields(jl.LIFParams)]


def cell(synapse, dt):
    return jl.PreciseSynaptic(jl.PreciseLIF(dt=dt), synapse)


def spike_times(output, dt):
    """Return the times of each neuron's spikes."""
    trains = zip(np.transpose(output.spikes), np.transpose(output.spike_time), strict=True)
    return [np.flatnonzero(spikes) * dt + times[spikes > 0] for spikes, times in trains]


def rows(weight, kinds):
    """Return weights [S, N] by their sign as [S, K, N]: NEST's excitatory and inhibitory receptor."""
    return np.stack([np.maximum(weight, 0.0), np.minimum(weight, 0.0)], axis=1) if kinds else weight


def cases_of(stored):
    """Return the parameters of NEST's neurons, [N] each, by name, and those that they have here."""
    meta = json.loads(str(stored["meta"]))
    cases = meta["params"] if isinstance(meta["params"], list) else [meta["params"] | {"dt": meta["dt"]}]
    own = [{name: x for name, x in case.items() if name not in ("I_e", "dt", "factor")} for case in cases]
    built = [from_nest(meta["model"], p, dt=case["dt"])[1] for p, case in zip(own, cases, strict=True)]
    params = jax.tree.map(lambda *x: np.stack(x, axis=-1), *built)
    return {name: np.array([case[name] for case in cases]) for name in cases[0]}, params


@pytest.mark.parametrize("model", SYNAPSES)
def test_arrivals_off_the_grid_as_in_nest(model):
    """All cases as the neurons of one run, at 1 ms: NEST took 0.1 ms, 1 ms for a coarse one and 0.01 for a fast one.

    NEST looks for a crossing at the ends of its stretches, and what is above threshold inside one alone escapes it.
    """
    stored = np.load(DATA / f"nest_{model}__off_grid.npz", allow_pickle=False)
    p, params = cases_of(stored)
    arrivals, times = jl.timed_arrivals(
        stored["arrival_time"], rows(stored["arrival_weight"].T, "tau_syn_ex" in p), dt=1.0, num_steps=80
    )
    drive = jl.TimedDrive(arrivals, times, np.tile(p["I_e"], (80, 1)))
    _, output = jl.simulate(cell(SYNAPSES[model], 1.0), params, drive)
    for found, expected in zip(spike_times(output, 1.0), stored["spikes"], strict=True):
        # Both are rounding of 80 ms, after resets that magnify it.
        np.testing.assert_allclose(found, expected[np.isfinite(expected)], rtol=0, atol=1e-11)
    np.testing.assert_allclose(output.v, stored["v"].T, rtol=0, atol=1e-11)
    assert np.isfinite(stored["spikes"]).sum() >= 20


def test_arrivals_on_the_grid_as_in_nest():
    """614 arrivals at the ends of steps of 0.1 ms."""
    stored = np.load(DATA / "nest_iaf_psc_exp_ps__spikes.npz", allow_pickle=False)
    _, params = cases_of(stored)
    weights = rows(stored["arrival_weight"][:, None], 2)
    arrivals, times = jl.timed_arrivals(0.1 * stored["arrival_step"], weights, dt=1.0, num_steps=300)
    _, output = jl.simulate(
        cell(jl.ExponentialCurrent(), 1.0), params, jl.TimedDrive(arrivals, times, np.zeros((300, 1)))
    )
    (found,) = spike_times(output, 1.0)
    np.testing.assert_allclose(found, stored["spikes"], rtol=0, atol=1e-11)
    np.testing.assert_allclose(output.v[:, 0], stored["v"][1:], rtol=0, atol=1e-11)


# ----------------------------------------------------------------------------------------------------------- the oracle

HOLD, DURATION = 4.0, 40.0  # ms
RNG = np.random.default_rng(6)
NEURON = {"tau_m": 8.0, "r_m": 0.05, "v_rest": -70.0, "v_th": -55.0, "v_reset": -64.0, "t_ref": 2.37}
TRAIN = Train(
    np.sort(RNG.uniform(0.0, DURATION, 80)),
    RNG.integers(0, 2, 80),
    RNG.exponential(1.0, 80),
)
CURRENT = RNG.normal(200.0, 60.0, int(DURATION / HOLD))
# The fastest ones are above threshold for less than 1 ms.
CASES = {
    "jump": ("jump", jl.VoltageJump(), None, (5.0, -2.0)),
    "fast": ("exponential", jl.ExponentialCurrent(), (0.3, 0.5), (5000.0, -2000.0)),
    "equal": ("exponential", jl.ExponentialCurrent(), (8.0, 8.0), (150.0, -60.0)),
    "alpha": ("alpha", jl.AlphaCurrent(), (0.4, 3.0), (1500.0, -100.0)),
    "near": ("exponential", jl.ExponentialCurrent(), (8.0 + 1e-7, 5.0), (150.0, -60.0)),
}


def simulated(case, dt):
    """Return spike times and the voltage each 2 ms."""
    _, synapse, taus, scales = CASES[case]
    steps = round(DURATION / dt)
    weight = TRAIN.weight * np.array(scales)[TRAIN.kind]
    if taus is not None:
        weight = weight[:, None] * np.eye(2)[TRAIN.kind]
    arrivals, times = jl.timed_arrivals(TRAIN.time, weight, dt=dt, num_steps=steps, slots=round(6 * dt) + 4)
    params = jl.SynapticParams(
        neuron=jl.LIFParams(**NEURON), synapse=None if taus is None else jl.CurrentParams(tau_syn=jnp.array(taus))
    )
    drive = jl.TimedDrive(arrivals, times, jnp.repeat(jnp.asarray(CURRENT), round(HOLD / dt)))
    _, output = jl.simulate(cell(synapse, dt), params, drive)
    fired = np.flatnonzero(output.spikes)
    every = round(2.0 / dt)
    return fired * dt + np.asarray(output.spike_time)[fired], np.asarray(output.v)[every - 1 :: every]


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_event_driven_neuron_at_any_dt(case):
    kind, _, taus, scales = CASES[case]
    train = TRAIN._replace(weight=TRAIN.weight * np.array(scales)[TRAIN.kind])
    spikes, v = run(NEURON, kind, taus, train, CURRENT, HOLD, np.arange(2.0, DURATION + 1.0, 2.0))
    assert len(spikes) > 2
    for dt in (0.5, 2.0) if case == "fast" else (2.0,):
        found, voltages = simulated(case, dt)
        # Rounding of 40 ms and 70 mV, which spikes that hardly cross magnify.
        np.testing.assert_allclose(found, spikes, rtol=0, atol=1e-12)
        np.testing.assert_allclose(voltages, v, rtol=0, atol=1e-12)


def test_what_rises_above_threshold_for_a_moment_is_a_spike():
    """A voltage that is below threshold at the start and at the end of its step, and of all stretches in it."""
    tau_m, tau_syn = 5.0, 0.5
    top = tau_m * tau_syn / (tau_m - tau_syn) * np.log(tau_m / tau_syn)  # after the arrival
    peak = 0.1 * tau_syn / (tau_m - tau_syn) * (np.exp(-top / tau_m) - np.exp(-top / tau_syn))
    params = jl.SynapticParams(
        neuron=jl.LIFParams(tau_m=tau_m, r_m=0.1, v_rest=-70.0), synapse=jl.CurrentParams(tau_syn=tau_syn)
    )
    for over in (-1e-9, 1e-9):
        weight = 15.0 / peak * (1.0 + over)
        drive = jl.TimedDrive(jnp.full((3, 1, 1), weight).at[1:].set(0.0), jnp.full((3, 1), 0.3), jnp.zeros(3))
        _, output = jl.simulate(cell(jl.ExponentialCurrent(), 4.0), replace_t_ref(params, 20.0), drive)
        assert output.spikes.tolist() == [float(over > 0), 0.0, 0.0]
        if over > 0:  # the voltage is a parabola there
            width = np.sqrt(2.0 * over * tau_m * tau_syn)
            np.testing.assert_allclose(output.spike_time[0], 0.3 + top - width, rtol=0, atol=1e-2 * width)


def replace_t_ref(params, t_ref):
    return replace(params, neuron=replace(params.neuron, t_ref=t_ref))


def test_jumps_in_refractoriness_are_lost_and_currents_are_not():
    """A first arrival makes the neuron spike at once, a second comes in refractoriness, a third just after it."""
    neuron = jl.LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=-65.0, t_ref=2.2)

    def simulated(synapse, own, times, weights):
        arrivals, at = jl.timed_arrivals(jnp.array(times), jnp.array(weights), dt=1.0, num_steps=3)
        drive = jl.TimedDrive(arrivals, at, jnp.zeros(3))
        return jl.simulate(cell(synapse, 1.0), jl.SynapticParams(neuron=neuron, synapse=own), drive)[1]

    output = simulated(jl.VoltageJump(), None, [0.5, 2.0, 2.9], [20.0, 7.0, 1.0])
    assert output.spikes.tolist() == [1.0, 0.0, 0.0] and output.spike_time[0] == 0.5 and output.v[1] == -65.0
    # Free at 2.7 ms.
    np.testing.assert_allclose(output.v[2], -70.0 + 5.0 * np.exp(-0.03) + np.exp(-0.01), rtol=1e-15)
    keeps = jl.VoltageJump(refractory_input=True)  # in the step of the spike, and in a later one
    output = simulated(keeps, None, [0.5, 0.8, 2.0], [20.0, 3.0, 2.0])
    left = 5.0 + 3.0 * np.exp(-0.19) + 2.0 * np.exp(-0.07)
    np.testing.assert_allclose(output.v[2], -70.0 + left * np.exp(-0.03), rtol=1e-15)
    output = simulated(keeps, None, [0.5, 0.8, 2.0], [20.0, 3.0, 12.0])
    assert output.spikes.tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_allclose(output.spike_time[2], 0.7, rtol=1e-14)
    taus = jl.CurrentParams(tau_syn=jnp.array([0.01, 2.0]))
    for time in (2.0, 2.6):  # 100 pA at 2 ms, or what is left of it at 2.6 ms
        weights = [[3e5, 0.0], [0.0, 100.0 * np.exp(-(time - 2.0) / 2.0)], [0.0, 1.0]]
        output = simulated(jl.ExponentialCurrent(), taus, [0.5, time, 2.9], weights)
        assert output.spikes.tolist() == [1.0, 0.0, 0.0]
        if time == 2.0:
            expected = output.v
    np.testing.assert_allclose(output.v, expected, rtol=1e-14)
    assert expected[1] == -65.0 and expected[2] > -70.0 + 5.0 * np.exp(-0.03) + 0.1


def test_jumps_on_the_grid_are_those_of_the_neuron_on_the_grid():
    """Without a current spikes come with jumps alone, here at the ends of steps."""
    jumps = np.random.default_rng(2).exponential(6.0, (100, 3)) * (np.random.default_rng(3).random((100, 3)) < 0.6)
    params = jl.SynapticParams(neuron=jl.LIFParams(t_ref=3.0))
    synapse, current = jl.VoltageJump(), np.zeros((100, 3))
    _, grid = jl.simulate(jl.Synaptic(jl.LIF(dt=1.0), synapse), params, jl.Drive(jumps, current))
    # Half of each at a time: what arrives together acts together.
    both = np.stack([0.5 * jumps, 0.5 * jumps], axis=1)
    drive = jl.TimedDrive(both, np.full((100, 2), 1.0), current)
    _, output = jl.simulate(cell(synapse, 1.0), params, drive)
    assert grid.spikes.sum() > 30
    np.testing.assert_array_equal(output.spikes, grid.spikes)
    np.testing.assert_array_equal(output.spike_time, grid.spikes)
    np.testing.assert_allclose(output.v, grid.v, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("case", ["jump", "current"])
def test_gradients_equal_central_differences(case):
    """Of voltages and spike times in weights, arrival times, currents and all parameters, forwards and backwards."""
    kinds, rng, (steps, slots, n) = case == "current", np.random.default_rng(0), (20, 3, 2)
    times = rng.uniform(0.1, 1.9, (steps, slots, n))
    arrivals = rng.exponential(1.0, (steps, slots, 2, n)) * np.array([[150.0], [-60.0]])
    synapse = jl.CurrentParams(tau_syn=jnp.array([[3.0, 10.0], [6.0, 10.0]])) if kinds else None
    arrivals = arrivals if kinds else rng.normal(0.0, 2.0, (steps, slots, n))
    params = jl.SynapticParams(
        neuron=jl.LIFParams(**{name: jnp.full(n, getattr(jl.LIFParams(t_ref=2.3), name)) for name in NAMES}),
        synapse=synapse,
    )
    drive = jl.TimedDrive(
        jnp.asarray(arrivals), jnp.asarray(times), jnp.asarray(rng.normal(80.0 if kinds else 240.0, 20.0, (steps, n)))
    )
    point, unravel = ravel_pytree((params, drive))
    weigh = jnp.asarray(rng.normal(size=(2, steps, n)))

    def observables(x):
        _, output = jl.simulate(cell(jl.ExponentialCurrent() if kinds else jl.VoltageJump(), 2.0), *unravel(x))
        return jnp.stack([jnp.mean(weigh[0] * output.v), jnp.sum(weigh[1] * output.spike_time)]), output.spikes

    _, spikes = jax.jit(observables)(point)
    assert (spikes.sum(axis=0) >= 3).all()
    gradient = np.asarray(jax.jit(jax.jacrev(lambda x: observables(x)[0]))(point))
    # Every parameter, and some of the weights, times and currents.
    first = ravel_pytree(params)[0].size
    checked = np.r_[0:first, rng.choice(np.arange(first, len(point)), 20, replace=False)]
    directions = jnp.asarray(np.eye(len(point))[checked])
    forward = jax.jit(jax.vmap(lambda d: jax.jvp(lambda x: observables(x)[0], (point,), (d,))[1]))(directions).T
    gradient = gradient[:, checked]
    np.testing.assert_allclose(forward, gradient, rtol=1e-11, atol=1e-13)
    # A spike that hardly crosses bends sharply, and rounding is divided by the step: the best of four steps counts.
    at = jax.jit(jax.vmap(lambda d: observables(point + d)[0]))
    scale = np.maximum(np.abs(point[checked]), 0.3)[:, None]
    typical, errors = 1e-3 * np.abs(gradient).max(axis=1, keepdims=True), []
    for h in (1e-3, 3e-4, 1e-4, 3e-5):
        one, two = (
            (at(k * h * scale * directions) - at(-k * h * scale * directions)) / (2 * k * h * scale) for k in (1, 2)
        )
        errors.append(np.abs((4.0 * one - two).T / 3.0 - gradient) / np.maximum(np.abs(gradient), typical))
    assert np.min(errors, axis=0).max() <= 1e-8 and np.isfinite(gradient).all()
    assert (gradient != 0.0).any(axis=0).sum() > 20


CELL = cell(jl.ExponentialCurrent(), 1.0)
PARAMS = jl.SynapticParams(neuron=jl.LIFParams(t_ref=2.0), synapse=jl.CurrentParams(tau_syn=2.0))


def drive(weight, time, steps=20, current=0.0):
    """Return one arrival in the third step."""
    arrivals = jnp.zeros((steps, 1, 1)).at[2].set(weight)
    return jl.TimedDrive(arrivals, jnp.zeros((steps, 1)).at[2].set(time), jnp.full(steps, current))


def test_synapses_at_rest_change_nothing(dtype):
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 170.0, 120.0, 5.0, 20.0, 1.0)
    _, bare = jl.simulate(CELL.neuron, PARAMS.neuron, current)
    _, output = jl.simulate(CELL, PARAMS, drive(0.0, 0.3)._replace(input=current))
    assert bare.spikes.sum() > 1 and output.v.dtype == dtype
    np.testing.assert_array_equal(output.spikes, bare.spikes)
    atol = {"float64": 1e-12, "float32": 1e-4}[dtype]  # rounding of 70 mV over a slope of 1 mV/ms
    np.testing.assert_allclose(output.v, bare.v, rtol=0, atol=atol)
    np.testing.assert_allclose(output.spike_time, bare.spike_time, rtol=0, atol=atol)


def test_a_later_arrival_makes_a_later_spike_and_the_surrogate_gives_the_silent_a_direction():
    def time(weight, time):
        return jl.nth_spike_time(jl.simulate(CELL, PARAMS, drive(weight, time))[1], 0, 1.0)

    # Without a current the whole course is shifted, from one step into the next.
    np.testing.assert_allclose(time(1500.0, 0.9) - time(1500.0, 0.1), 0.8, rtol=0, atol=1e-13)
    weight, late = jax.grad(time, argnums=(0, 1))(1500.0, 0.4)
    np.testing.assert_allclose(late, 1.0, rtol=1e-12)
    assert weight < 0.0
    soft = replace(CELL, neuron=replace(CELL.neuron, surrogate=jl.SuperSpike()))
    count = jax.grad(lambda weight, cell: jl.simulate(cell, PARAMS, drive(weight, 0.4))[1].spikes.sum())
    assert count(500.0, CELL) == 0.0 and count(500.0, soft) > 0.0


def test_a_batch_equals_its_members():
    """Over arrivals, and over parameters beside them: in a batch the search for crossings is one."""
    rng = np.random.default_rng(5)
    arrivals, times = jnp.asarray(rng.exponential(400.0, (4, 20, 2, 1, 3))), jnp.asarray(rng.random((4, 20, 2)))
    tau_m = jnp.array([8.0, 10.0, 12.0])

    def output(arrivals, times, tau_m):
        params = replace(PARAMS, neuron=replace(PARAMS.neuron, tau_m=tau_m))
        return jl.simulate(CELL, params, jl.TimedDrive(arrivals, times, jnp.zeros(20)))[1]

    batch = jax.jit(jax.vmap(jax.vmap(output, (0, 0, None)), (None, None, 0)))(arrivals, times, tau_m)
    alone = jax.jit(output)
    for i, tau in enumerate(tau_m):
        for b in range(4):
            one = alone(arrivals[b], times[b], tau)
            assert one.spikes.sum() > 3
            for x, y in zip(one, batch, strict=True):
                np.testing.assert_allclose(y[i, b], x, rtol=0, atol=1e-12)


def test_rates_and_the_audit_work_on_it():
    x = drive(300.0, 0.4, current=300.0)
    rate = jl.interval_rate(jl.simulate(CELL, PARAMS, x)[1], 1.0)
    assert 50.0 < rate < 200.0
    audit = jl.audit_gradient(
        lambda output: jnp.mean(output.v), CELL, PARAMS, x, key=jax.random.key(0), names=("neuron.v_rest",), samples=64
    )
    assert np.isfinite(audit.cosines["cell"])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: jl.PreciseSynaptic(jl.LIF(), jl.VoltageJump()), "neuron = LIF: PreciseSynaptic needs a PreciseLIF"),
        (
            lambda: jl.PreciseSynaptic(jl.PreciseLIF(), jl.Conductance()),
            "synapse = Conductance: PreciseSynaptic takes currents of one kind",
        ),
        (lambda: jl.simulate(CELL, PARAMS, drive(1.0, 1.2)), r"times\[2, 0\] = 1.2 ms: times must be in the step"),
        (lambda: jl.simulate(CELL, PARAMS, jl.Drive(jnp.zeros((3, 1)), jnp.zeros(3))), "inputs = Drive: PreciseSyn"),
        (
            lambda: jl.simulate(CELL, PARAMS, drive(1.0, 0.3)._replace(times=jnp.zeros((20, 2)))),
            r"arrivals \(1, 1\) and times \(2,\) in a step: they must be \[M, K\]",
        ),
        (lambda: jl.simulate(CELL, replace_t_ref(PARAMS, 0.5), drive(1.0, 0.3)), "t_ref = 0.5 ms: t_ref must be dt"),
        (
            lambda: jl.simulate(CELL, replace(PARAMS, synapse=jl.CurrentParams(tau_syn=jnp.ones(3))), drive(1.0, 0.3)),
            r"tau_syn has shape \(3,\): it does not fit arrivals \(1,\), \[K, ...\]",
        ),
        (lambda: binned([2.0, -1.0]), r"times\[1\] = -1 ms: times must be in the run, from 0 to 3 ms"),
        (lambda: binned([2.0, 3.5]), r"times\[1\] = 3.5 ms: times must be in the run, from 0 to 3 ms"),
        (lambda: binned([1.5, 2.0], slots=1), "slots = 1: 2 spikes arrive in one step"),
        (lambda: jax.jit(binned)(jnp.array([1.5, 2.0])), "slots = None: under a trace"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def binned(times, slots=None):
    return jl.timed_arrivals(jnp.asarray(times), jnp.ones(2), dt=1.0, num_steps=3, slots=slots)


def test_what_cannot_be_refused_under_a_trace_is_nan():
    v = jax.jit(lambda time: jl.simulate(CELL, PARAMS, drive(1.0, time))[1].v)
    assert np.isnan(v(1.2)[2:]).all() and np.isfinite(v(1.2)[:2]).all() and np.isfinite(v(1.0)).all()
    _, times = jax.jit(lambda times: binned(times, slots=1))(jnp.array([1.5, 2.0]))
    assert np.isnan(times[:, 0]).tolist() == [False, True, False]
    arrivals, times = jax.jit(lambda times: binned(times, slots=2))(jnp.array([jnp.inf, 2.0]))
    assert arrivals.sum() == 1.0 and times[1, 0] == 1.0  # what never comes takes no place
