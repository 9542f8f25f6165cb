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
    PreciseRecurrent,
    Sequential,
    cross_entropy,
    first_spike_logits,
    init_precise,
    init_recurrent,
    timed_spikes,
)
from tests.event_driven import Train, run

KEYS = jax.random.split(jax.random.key(0), 4)
NUM_IN, HIDDEN, OUT, DURATION, LONGEST = 5, 6, 3, 24.0, 5.0
TIMES = np.array([0.3, 2.0, 4.1, 7.7, 9.9])  # ms; one on the grid


def neuron(dt, surrogate=None):
    return jl.PreciseSynaptic(jl.PreciseLIF(dt=dt, surrogate=surrogate), jl.ExponentialCurrent())


def network(dt):
    return Sequential((PreciseRecurrent(neuron(dt), LONGEST), PreciseDense(neuron(dt), LONGEST)))


def parameters():
    """Return two layers, the first recurrent, each neuron and each delay another; t_ref is off the grid."""
    rng = np.random.default_rng(0)
    sizes = ((NUM_IN + HIDDEN, HIDDEN, 14.0, 2.0), (HIDDEN, OUT, 7.0, 0.0))
    layers = []
    for key, (num_in, num_out, gain, shortest) in zip(KEYS[:2], sizes, strict=True):
        p = init_precise(key, num_in, num_out, gain=gain, tau_m=8.0, tau_syn=4.0)
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
    for dt in (2.0, 0.5, 0.05):
        output = simulated(dt)
        for layer, spikes in zip(output.layers, (hidden, expected), strict=True):
            for a, b in zip(trains(layer, dt), spikes, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)  # rounding, magnified from spike to spike
        every = round(2.0 / dt)
        np.testing.assert_allclose(output.output.v[every - 1 :: every], v, rtol=0, atol=1e-11)


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

    gradient, output = jax.jit(jax.grad(loss, has_aux=True))(point)
    checked = np.random.default_rng(1).choice(len(point), 80, replace=False)
    at, size, gradient = jax.jit(jax.vmap(loss)), np.maximum(np.abs(point), 0.1)[checked], gradient[checked]
    directions, errors = size[:, None] * np.eye(len(point))[checked], []
    assert (output.spikes.sum(axis=0) > 0).tolist() == [True, True, False]
    for h in (3e-4, 1e-4, 3e-5, 1e-5):
        # Of a fourth order; a spike that hardly crosses bends sharply, and rounding is divided by the step.
        up, down, far_up, far_down = (at(point[None] + k * h * directions)[0] for k in (1, -1, 2, -2))
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
    p = init_precise(KEYS[0], 20, 4, gain=14.0, t_ref=2.0)
    spikes = timed_spikes(times, dt=2.0, num_steps=10)
    most = int(spikes.spikes.sum(axis=1).max())
    p = replace(p, delay=jnp.full((20, 4), 0.7))
    every, some, few = (
        jl.simulate(PreciseDense(neuron(2.0), 2.0, slots), p, spikes)[1] for slots in (None, most + 2, 3)
    )
    assert every.spikes.sum() > 4
    for a, b in zip(every, some, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)  # sums in another order
    assert jnp.isnan(few.v[-1]).all()
    _, of_inputs = jl.simulate(PreciseDense(neuron(2.0), 2.0, most + 2), replace(p, delay=p.delay[:, :1]), spikes)
    np.testing.assert_allclose(of_inputs.v, every.v, rtol=0, atol=1e-13)


def test_single_precision_is_close(dtype):
    output = jl.simulate(
        network(2.0),
        jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS),
        timed_spikes(jnp.asarray(TIMES, dtype), dt=2.0, num_steps=12),
    )[1]
    assert output.output.v.dtype == dtype
    with jax.enable_x64(True):
        expected = simulated(2.0)
    np.testing.assert_array_equal(output.output.spikes, expected.output.spikes)
    # Some 1e-6 of 20 ms, magnified from spike to spike.
    np.testing.assert_allclose(output.output.spike_time, expected.output.spike_time, rtol=0, atol=1e-3)


def test_weights_that_arrive_at_the_ends_of_steps_are_spikes_there():
    """Arriving on the grid is PreciseDense with spikes at the ends of steps."""
    p = replace(init_precise(KEYS[3], 4, 3, gain=14.0, t_ref=2.0))
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


def test_an_input_that_comes_twice_in_a_step_under_a_trace_is_nan():
    p = replace(init_precise(KEYS[0], 1, 2, t_ref=2.0), delay=jnp.full((1, 1), 1.0))
    spikes = timed_spikes(jnp.array([[1.9], [2.1]]), dt=2.0, num_steps=3)
    cell = PreciseDense(neuron(2.0), 2.0)
    with pytest.raises(ValueError, match="spikes of input 0 at 1.9 and 2.1 ms"):
        jl.simulate(cell, p, spikes)
    assert jnp.isnan(jax.jit(lambda x: jl.simulate(cell, p, x)[1].v)(spikes)[-1]).all()
    twice = jax.jit(lambda t: timed_spikes(t, dt=2.0, num_steps=3).spikes)(jnp.array([[0.1, 0.1], [0.3, 2.3]]))
    assert jnp.isnan(twice[:, 0]).all() and jnp.isfinite(twice[:, 1]).all()


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
    ],
)
def test_what_cannot_be_right_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_with_a_surrogate_spikes_may_pass_without_their_times():
    net = Sequential((Dense(), SOFT, Dense(), SOFT))
    hidden = init_recurrent(KEYS[0], 4, t_ref=2.0).neuron
    weights = [DenseParams(weight=jnp.full((4, 4), 1.0)), DenseParams(weight=jnp.full((4, 4), 2.0))]

    def count(weights):
        _, output = jl.simulate(net, (weights[0], hidden, weights[1], hidden), jnp.ones((10, 4)))
        return output.output.spikes.sum()

    assert all((abs(g.weight) > 0).all() for g in jax.grad(count)(weights))
