"""Networks off the grid against an event-driven network in NumPy, central differences and one another, at any dt."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxlif as jl
from jaxlif.networks import (
    Arriving,
    Dense,
    DenseParams,
    PreciseDense,
    PreciseDenseParams,
    PreciseRecurrent,
    Sequential,
    cross_entropy,
    first_spike_logits,
    flight_record,
    init_neurons,
    init_precise,
    init_recurrent,
    summary,
    timed_spikes,
)
from jaxlif.networks.precise import TimedSpikes
from jaxlif.synapses.precise import step_of
from tests.event_driven import Train, run

KEYS = jax.random.split(jax.random.key(0), 4)
NUM_IN, HIDDEN, OUT, DURATION, LONGEST = 5, 6, 3, 24.0, 5.0
TIMES = np.array([0.3, 2.0, 4.1, 7.7, 9.9])  # ms; one on the grid


def neuron(dt, surrogate=None):
    return jl.PreciseSynaptic(jl.PreciseLIF(dt=dt, surrogate=surrogate), jl.ExponentialCurrent())


def drawn(key, num_in, num_out, gain=5.0, tau_m=10.0, tau_syn=5.0, t_ref=2.0):
    own = init_neurons(num_out, tau_m=tau_m, t_ref=t_ref)
    return init_precise(key, num_in, num_out, neuron=own, gain=gain, tau_syn=tau_syn)


def network(dt):
    return Sequential((PreciseRecurrent(neuron(dt), LONGEST), PreciseDense(neuron(dt), LONGEST)))


def parameters():
    """Return two layers, the first recurrent, each neuron and each delay another; t_ref is off the grid."""
    rng = np.random.default_rng(0)
    sizes = ((NUM_IN + HIDDEN, HIDDEN, 14.0, 2.0), (HIDDEN, OUT, 7.0, 0.0))
    layers = []
    for key, (num_in, num_out, gain, shortest) in zip(KEYS[:2], sizes, strict=True):
        p = drawn(key, num_in, num_out, gain, tau_syn=4.0)
        own = replace(
            p.neuron.neuron,
            tau_m=jnp.asarray(rng.uniform(6.0, 12.0, num_out)),
            v_th=jnp.asarray(rng.uniform(0.9, 1.1, num_out)),
            v_reset=jnp.asarray(rng.uniform(-0.2, 0.1, num_out)),
            t_ref=jnp.full(num_out, 2.37),
        )
        synapse = replace(p.neuron.synapse, tau_syn=jnp.asarray(rng.uniform(3.0, 6.0, (1, num_out))))
        delay = jnp.asarray(rng.uniform(shortest, LONGEST, (num_in, num_out)))
        layers.append(replace(p, neuron=replace(p.neuron, neuron=own, synapse=synapse), delay=delay))
    return tuple(layers)


PARAMS = parameters()


def simulated(dt, params=PARAMS, times=TIMES):
    return jl.simulate(network(dt), params, timed_spikes(times, dt=dt, num_steps=round(DURATION / dt)))[1]


def trains(output, dt):
    """Return the spike times of each neuron."""
    each = zip(np.transpose(output.spikes), np.transpose(output.spike_time), strict=True)
    return [np.flatnonzero(spikes) * dt + times[spikes > 0] for spikes, times in each]


def event_driven(p, inputs, grid):
    """Return the spikes of a layer's neurons, and their voltages on a grid, under trains of spikes."""
    delay, found = np.broadcast_to(p.delay, p.weight.shape), []
    for j in range(p.weight.shape[1]):
        own = {name: float(np.broadcast_to(x, p.weight.shape[1:])[j]) for name, x in vars(p.neuron.neuron).items()}
        time = np.concatenate([train + d for train, d in zip(inputs, delay[:, j], strict=True)])
        weight = np.repeat(p.weight[:, j], [len(train) for train in inputs])
        order = np.argsort(time)
        train = Train(time[order], np.zeros(len(time), int), weight[order])
        tau = float(p.neuron.synapse.tau_syn[0, j])
        found.append(run(own, "exponential", (tau,), train, np.zeros(1), DURATION, grid))
    return [spikes for spikes, _ in found], np.transpose([v for _, v in found])


def test_it_is_an_event_driven_network_whatever_dt():
    grid = np.arange(2.0, DURATION + 1.0, 2.0)
    inputs, hidden = [TIMES[[i]] for i in range(NUM_IN)], [np.empty(0)] * HIDDEN
    while True:  # each round is right for one delay more
        before, (hidden, _) = hidden, event_driven(PARAMS[0], inputs + hidden, grid)
        if all(np.array_equal(a, b) for a, b in zip(before, hidden, strict=True)):
            break
    expected, v = event_driven(PARAMS[1], hidden, grid)
    assert min(map(len, hidden)) >= 2 and sum(map(len, expected)) >= 8
    for dt in (2.0, 0.05):
        output = simulated(dt)
        for layer, spikes in zip(output.layers, (hidden, expected), strict=True):
            for a, b in zip(trains(layer, dt), spikes, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)  # rounding, magnified from spike to spike
        every = round(2.0 / dt)
        np.testing.assert_allclose(output.output.v[every - 1 :: every], v, rtol=0, atol=1e-11)


@pytest.mark.parametrize("synapse", [jl.ExponentialCurrent(), jl.VoltageJump()])
def test_a_readout_that_does_not_spike(synapse):
    """Its voltages are those of an event-driven neuron out of reach of threshold, or of jumps that decay; gradients."""
    p, currents = PARAMS[1], isinstance(synapse, jl.ExponentialCurrent)
    own = {"tau_m": p.neuron.neuron.tau_m, "r_m": jnp.full(OUT, 1.5), "v_rest": jnp.array([0.1, -0.2, 0.0])}
    neuron = jl.SynapticParams(neuron=jl.LeakyParams(**own), synapse=p.neuron.synapse if currents else None)
    layer = PreciseDense(jl.PreciseSynaptic(jl.LeakyIntegrator(dt=2.0), synapse), LONGEST)
    times = jnp.linspace(0.3, 9.9, HIDDEN)
    point, unravel = ravel_pytree((replace(p, neuron=neuron), times))

    def loss(x):
        params, times = unravel(x)
        v = jl.simulate(layer, params, timed_spikes(times, dt=2.0, num_steps=12))[1].v
        return jnp.sum(v * jax.random.normal(KEYS[2], v.shape)), v

    gradient, v = jax.jit(jax.grad(loss, has_aux=True))(point)
    steps = np.array([1, -1, 2, -2])[:, None, None] * 1e-3 * np.eye(len(point))
    up, down, far_up, far_down = jax.jit(jax.vmap(jax.vmap(loss)))(point[None, None] + steps)[0]
    np.testing.assert_allclose(gradient, (8 * (up - down) - (far_up - far_down)) / 12e-3, rtol=0, atol=1e-9)
    grid = np.arange(2.0, DURATION + 1.0, 2.0)
    if currents:
        high = replace(p.neuron, neuron=replace(p.neuron.neuron, v_th=1e6, **own))
        known = event_driven(replace(p, neuron=high), [np.asarray(times)[[i]] for i in range(HIDDEN)], grid)[1]
    else:
        since = grid[:, None, None] - np.asarray(times[:, None] + p.delay)
        known = np.asarray(own["v_rest"]) + (
            np.where(since < 0, 0.0, np.exp(-since / np.asarray(own["tau_m"]))) * np.asarray(p.weight)
        ).sum(axis=1)
    np.testing.assert_allclose(v, known, rtol=0, atol=1e-12)


def test_gradients_equal_central_differences():
    """Of first spikes, one of them missing, all spike times and voltages, in every parameter and the inputs' times."""
    late = replace(PARAMS[1], weight=PARAMS[1].weight.at[:, 2].multiply(0.1))
    point, unravel = ravel_pytree(((PARAMS[0], late), jnp.asarray(TIMES)))
    weigh = jax.random.normal(KEYS[2], (2, 12, OUT))

    def loss(x):
        params, times = unravel(x)
        output = simulated(2.0, params, times).output
        z = first_spike_logits(output, params[1].neuron.neuron.v_th, dt=2.0, tau=2.0, late=3.0)
        spread = jnp.sum(weigh[0] * output.spike_time) + jnp.sum(weigh[1] * output.v)
        return cross_entropy(z, jnp.asarray(1)) + 0.1 * spread, output

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))  # one program is compiled
    (_, output), gradient = both(point)
    checked = np.random.default_rng(1).choice(len(point), 80, replace=False)
    size, gradient = np.maximum(np.abs(point), 0.1)[checked], gradient[checked]
    directions, errors = size[:, None] * np.eye(len(point))[checked], []
    assert (output.spikes.sum(axis=0) > 0).tolist() == [True, True, False]
    for h in (3e-4, 1e-4, 3e-5, 1e-5):
        # Of a fourth order; a spike that hardly crosses bends sharply, and rounding is divided by the step.
        up, down, far_up, far_down = (
            np.array([both(point + k * h * direction)[0][0] for direction in directions]) for k in (1, -1, 2, -2)
        )
        slope = (8.0 * (up - down) - (far_up - far_down)) / (12.0 * h * size)
        errors.append(np.abs(slope - gradient))
    typical = 1e-2 * np.abs(gradient).max()
    assert (np.min(errors, axis=0) / np.maximum(np.abs(gradient), typical)).max() <= 1e-8
    assert (gradient != 0.0).mean() > 0.7


def test_the_earliest_neuron_wins_and_a_silent_one_comes_late_by_its_distance():
    output = simulated(2.0).output
    logits = first_spike_logits(output, 5.0, dt=2.0, tau=0.5, late=3.0)
    assert jnp.allclose(logits, jnp.array([-2.0 * train[0] for train in trains(output, 2.0)]), rtol=1e-14, atol=0.0)
    silent = output._replace(spikes=output.spikes.at[:, 1].set(0.0))
    logits = first_spike_logits(silent, 5.0, dt=2.0, tau=0.5, late=3.0)
    np.testing.assert_allclose(logits[1], -2.0 * (DURATION + 3.0 * (5.0 - output.v[:, 1].max())), rtol=1e-14)


def test_slots_hold_what_arrives_or_all_is_nan():
    times = jnp.tile(TIMES, 4) + jnp.repeat(jnp.arange(4.0), 5)
    p = drawn(KEYS[0], 20, 4, 14.0)
    spikes = timed_spikes(times, dt=2.0, num_steps=10)
    most = int(spikes.spikes.sum(axis=1).max())
    p = replace(p, delay=jnp.full((20, 4), 0.7))
    every, some = (jl.simulate(PreciseDense(neuron(2.0), 2.0, slots), p, spikes)[1] for slots in (None, most + 2))
    assert every.spikes.sum() > 4
    for a, b in zip(every, some, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)  # sums in another order
    assert most + 2 < 20
    _, full = jl.simulate(PreciseDense(neuron(2.0), 2.0, most + 2), p, jax.tree.map(jnp.ones_like, spikes))
    assert jnp.isnan(full.v[-1]).all()
    _, of_inputs = jl.simulate(PreciseDense(neuron(2.0), 2.0, most + 2), replace(p, delay=p.delay[:, :1]), spikes)
    np.testing.assert_allclose(of_inputs.v, every.v, rtol=0, atol=1e-13)


def test_single_precision_is_close():
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (PARAMS, TIMES))
    output, expected = simulated(2.0, *single), simulated(2.0)
    assert output.output.v.dtype == jnp.float32
    np.testing.assert_array_equal(output.output.spikes, expected.output.spikes)
    # Some 1e-6 of 20 ms, magnified from spike to spike.
    np.testing.assert_allclose(output.output.spike_time, expected.output.spike_time, rtol=0, atol=1e-3)


def test_weights_that_arrive_at_the_ends_of_steps_are_spikes_there():
    """Arriving on the grid is PreciseDense with spikes at the ends of steps."""
    p = drawn(KEYS[3], 4, 3, 14.0)
    spikes = (jax.random.uniform(KEYS[2], (12, 4)) < 0.3).astype(float)
    dense = Sequential((Dense(), Arriving(neuron(2.0))))
    _, a = jl.simulate(dense, (DenseParams(weight=p.weight), p.neuron), spikes)
    _, b = jl.simulate(
        PreciseDense(neuron(2.0)),
        p,
        (
            timed_spikes(jnp.full(4, 1.0), dt=2.0, num_steps=12)._replace(
                spikes=spikes, spike_time=jnp.full((12, 4), 2.0)
            )
        ),
    )
    assert a.output.spikes.sum() > 3
    for x, y in zip(a.output, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-13)


def test_under_a_trace_what_is_wrong_is_nan_in_all_layers_behind():
    """And delays count without room for them in max_delay, and what has not spiked has any time."""
    p = drawn(KEYS[0], 2, 3, 14.0), drawn(KEYS[1], 3, 2, 14.0)
    net = Sequential((PreciseDense(neuron(2.0)), PreciseDense(neuron(2.0), 2.0)))

    @jax.jit
    def run(spikes, *delays):
        own = tuple(replace(p, delay=delay) for p, delay in zip(p, delays, strict=True))
        return jl.simulate(net, own, spikes)[1].output

    sorted_ = jax.jit(lambda t: timed_spikes(t, dt=2.0, num_steps=6))
    good = sorted_(jnp.array([[0.3, 1.3], [2.2, jnp.inf]]))
    expected = run(good, 0.0, 1.0)
    assert expected.spikes.sum() > 2.0
    late = run(good, 0.5, 1.0)
    same = run(sorted_(jnp.array([[0.8, 1.8], [2.7, jnp.inf]])), 0.0, 1.0)
    np.testing.assert_allclose(late.spike_time, same.spike_time, rtol=0, atol=1e-13)
    for any_time in (jnp.nan, jnp.inf, 1e9):
        silent = good._replace(spike_time=jnp.where(good.spikes > 0, good.spike_time, any_time))
        assert (run(silent, 0.0, 1.0).v == expected.v).all()
    out_of_it, twice = sorted_(jnp.array([[0.3, 13.0]])), sorted_(jnp.array([[0.1, 0.1], [0.3, 2.3]]))
    assert jnp.isnan(twice.spikes[:, 0]).all() and jnp.isfinite(twice.spikes[:, 1]).all()
    wrong = [(out_of_it, 0.0, 1.0), (twice, 0.0, 1.0), (good, 1.9, 1.0), (good, -0.1, 1.0), (good, 0.0, 2.5)]
    for case in wrong:
        assert jnp.isnan(run(*case).v[-1]).all()


def test_an_input_that_comes_twice_in_a_step_is_nan():
    p, cell = replace(drawn(KEYS[0], 1, 2), delay=jnp.ones((1, 1))), PreciseDense(neuron(2.0), 2.0)
    spikes = timed_spikes(jnp.array([[1.9], [2.1]]), dt=2.0, num_steps=3)
    with pytest.raises(ValueError, match="spikes of input 0 at 1.9 and 2.1 ms"):
        jl.simulate(cell, p, spikes)
    before, now = (
        TimedSpikes(spikes=jnp.ones(shape), spike_time=jnp.full(shape, t)) for shape, t in (((1, 1), 1.9), (1, 0.1))
    )
    assert jnp.isnan(cell._due(p.delay, before, now)[0]).all()


def test_rounding_decides_about_no_step(dtype):
    """Of times at the ends of steps, and late ones, which have few digits left."""
    for dt in (0.1, 0.3, 0.7):
        n = np.arange(1, 400)
        np.testing.assert_array_equal(step_of(jnp.asarray(n * dt, dtype), dt), n - 1)
        late = jnp.asarray(np.linspace(1e6, 1e6 + 2.0, 2001) * dt, dtype)
        within = np.asarray(late, float) / dt - np.asarray(step_of(late, dt), float)
        assert within.max() < 1.0 + (1e-3 if dtype == jnp.float64 else 0.2)  # 1e6 steps are 0.1 apart in float32


def test_a_silent_input_has_the_derivative_of_a_spike_at_its_steps_start():
    """So that the surrogate of a layer before reaches through delays: w k(t), k of an exponential current."""
    cell, p = PreciseDense(neuron(2.0), 2.0), drawn(KEYS[0], 2, 3, tau_m=8.0, tau_syn=4.0)
    still = timed_spikes(jnp.full(2, jnp.inf), dt=2.0, num_steps=1)

    def v(spikes):
        x = jax.tree.map(lambda x: x[0], still)
        return cell.step(p, cell.init_state(p, x), x._replace(spikes=spikes))[1].v

    kernel = 4.0 / (8.0 - 4.0) * (np.exp(-2.0 / 8.0) - np.exp(-2.0 / 4.0))
    slope = jax.jit(lambda spikes: jax.jvp(v, (spikes,), (jnp.array([0.0, 1.0]),))[1])(jnp.zeros(2))
    np.testing.assert_allclose(slope, p.weight[1] * kernel, rtol=1e-12)


NET = network(2.0)
IN_MV = jl.SynapticParams(neuron=jl.LIFParams(), synapse=jl.CurrentParams(tau_syn=4.0))
PLAIN, SOFT = jl.PreciseLIF(dt=2.0), jl.PreciseLIF(dt=2.0, surrogate=jl.SuperSpike())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Sequential((Dense(), PLAIN, Dense(), PLAIN)), r"layer 1 \(PreciseLIF\): .*a gradient of 0"),
        (lambda: jl.networks.Recurrent(PLAIN), "neuron = PreciseLIF: .*a gradient of 0"),
        (
            lambda: Sequential((Dense(), jl.LIF(dt=2.0), PreciseDense(neuron(2.0)))),
            "layer 2 = PreciseDense: it takes spikes with their times, and LIF has none",
        ),
        (lambda: PreciseDense(PLAIN), "neuron = PreciseLIF: PreciseDense needs a PreciseSynaptic"),
        (
            lambda: PreciseRecurrent(jl.PreciseSynaptic(jl.LeakyIntegrator(dt=2.0), jl.ExponentialCurrent())),
            r"neuron = PreciseSynaptic\(LeakyIntegrator\): PreciseRecurrent feeds spikes back",
        ),
        (
            lambda: jl.PreciseSynaptic(jl.LeakyIntegrator(dt=2.0), jl.VoltageJump(refractory_input=True)),
            "refractory_input = True: a LeakyIntegrator is never refractory",
        ),
        (lambda: simulated(2.0, (PARAMS[0], replace(PARAMS[1], delay=5.1))), r"layer 1 .*delay = 5.1 ms: .*max_delay"),
        (
            lambda: simulated(2.0, (replace(PARAMS[0], delay=1.5), PARAMS[1])),
            r"layer 0 .*delay\[0, 0\] = 1.5 ms: what comes back must take dt = 2 ms",
        ),
        (lambda: simulated(2.0, (replace(PARAMS[0], delay=jnp.ones(6)), PARAMS[1])), r"delay has shape \[6\]"),
        (lambda: simulated(2.0, PARAMS, np.array([0.3, 2.0, 25.0])), r"times\[0, 2\] = 25 ms: .*from 0 to 24 ms"),
        (
            lambda: simulated(2.0, PARAMS, np.array([[0.3, 2.1], [9.0, 2.2]])),
            "times of input 1: two spikes from 2 to 4 ms, and a step holds one",
        ),
        (
            lambda: jl.simulate(
                network(2.0),
                PARAMS,
                timed_spikes(TIMES, dt=2.0, num_steps=3 + 9)._replace(spike_time=jnp.full((12, 5), 3.0)),
            ),
            r"layer 0 .*spike_time.* = 3 ms: .*from 0 to dt = 2 ms",
        ),
        (
            lambda: NET.check((PARAMS[0], replace(PARAMS[1], weight=jnp.ones((6, 2))))),
            r"layer 1 .*tau_m has shape \[3\]: ",
        ),
        (
            lambda: NET.check(
                (replace(PARAMS[0], delay=2.0), replace(PARAMS[1], weight=jnp.ones((6, 3)), neuron=IN_MV))
            ),
            "inputs of 1 are at most 6 pA",
        ),
        (
            lambda: Sequential((PreciseDense(neuron(2.0, jl.SuperSpike())), PreciseDense(neuron(2.0), slots=2))),
            r"layer 1 \(PreciseDense\): slots = 2: .*surrogate",
        ),
        (lambda: PreciseRecurrent(neuron(2.0, jl.SuperSpike()), 2.0, slots=2), "slots = 2: .*surrogate"),
        (
            lambda: first_spike_logits(simulated(2.0).output, jnp.ones(2), dt=2.0, tau=1.0, late=1.0),
            r"v_th has shape \[2\]",
        ),
        (lambda: summary(NET, PARAMS, jnp.ones((1, 12, 5))), "network = Sequential: a TimedSpikes is not held"),
    ],
)
def test_what_cannot_be_right_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_layers_in_mv_and_normalised_ones_have_weights_of_their_own():
    NET.check((replace(PARAMS[0], delay=2.0), replace(PARAMS[1], weight=jnp.full((6, 3), 1500.0), neuron=IN_MV)))
    NET.check((replace(PARAMS[0], delay=10 * 0.1 + 4.0000000001), PARAMS[1]))  # rounding is not beyond max_delay


def test_a_flight_record_of_spikes_with_times():
    """A jump fires the neuron at 0.4 ms, and comes back to it after 1.3: its gradient is what is left of w."""
    neurons = jl.SynapticParams(neuron=init_recurrent(KEYS[0], 1, tau_m=8.0, t_ref=2.0).neuron, synapse=())
    p = PreciseDenseParams(neuron=neurons, weight=jnp.array([[2.0], [0.5]]), delay=2.3)
    cell = PreciseRecurrent(jl.PreciseSynaptic(jl.PreciseLIF(dt=2.0), jl.VoltageJump()), 4.0)
    spikes = timed_spikes(jnp.array([0.4]), dt=2.0, num_steps=5)
    batch = jax.tree.map(lambda x: x[None], spikes)
    record = flight_record(cell, p, batch, lambda output: output.v[0, -1, 0])
    assert record.rates[0].tolist() == [100.0] and record.layers == ("PreciseRecurrent",)
    np.testing.assert_allclose(record.gradient_norm[0, 1], 0.5 * np.exp(-(10.0 - 5.0) / 8.0), rtol=1e-12)


def test_with_a_surrogate_spikes_may_pass_without_their_times():
    net = Sequential((Dense(), SOFT, Dense(), SOFT))
    hidden = init_recurrent(KEYS[0], 4, t_ref=2.0).neuron
    weights = [DenseParams(weight=jnp.full((4, 4), 1.0)), DenseParams(weight=jnp.full((4, 4), 2.0))]

    def count(weights):
        _, output = jl.simulate(net, (weights[0], hidden, weights[1], hidden), jnp.ones((10, 4)))
        return output.output.spikes.sum()

    assert all((abs(g.weight) > 0).all() for g in jax.grad(count)(weights))
