"""Populations against NEST, against dense layers, and against the numbers that rules and drives promise."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import poisson

import jaxlif as jl
from jaxlif.networks import (
    Activity,
    AllToAll,
    Arriving,
    Dense,
    DenseParams,
    Edges,
    Feedback,
    FeedbackParams,
    FixedInDegree,
    NetworkWarning,
    NoiseParams,
    Pairwise,
    PoissonParams,
    Population,
    Probe,
    Projection,
    build,
    noise_drive,
    poisson_drive,
    run,
)
from jaxlif.networks.drives import NoiseDrive, PoissonDrive
from jaxlif.synapses import Kinds, TsodyksMarkramParams

KEY = jax.random.key(0)
NEST = np.load(Path(__file__).parents[1] / "data" / "nest_network.npz", allow_pickle=False)
CELL = jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
PARAMS = jl.SynapticParams(neuron=jl.LIFParams(t_ref=2.0), synapse=jl.CurrentParams(tau_syn=np.array([2.0, 10.0])))
KINDS = {"cell": CELL, "params": PARAMS, "receptors": ("exc", "inh")}


# ------------------------------------------------------------------------------------------------------------- NEST


def nest_network(cut):
    """Return NEST's network as two populations, neurons below ``cut`` and the rest, one cell or two."""
    p = json.loads(str(NEST["meta"]))
    neuron = jl.LIFParams(
        tau_m=p["tau_m"],
        r_m=p["tau_m"] / p["C_m"],
        v_rest=p["E_L"],
        v_th=p["V_th"],
        v_reset=p["V_reset"],
        t_ref=p["t_ref"],
    )
    synapse = jl.CurrentParams(tau_syn=np.array([p["tau_syn_ex"], p["tau_syn_in"]]))
    kinds = {"cell": CELL, "params": jl.SynapticParams(neuron=neuron, synapse=synapse), "receptors": ("exc", "inh")}
    sizes = {"a": cut, "b": 12 - cut}
    starts = {"a": 0, "b": cut}
    projections = []
    for source, first in starts.items():
        for target, begin in starts.items():
            for receptor, kind in (("exc", NEST["weight"] > 0), ("inh", NEST["weight"] < 0)):
                inside = (NEST["source"] >= first) & (NEST["source"] < first + sizes[source])
                inside &= (NEST["target"] >= begin) & (NEST["target"] < begin + sizes[target]) & kind
                if inside.any():
                    rule = Edges(NEST["source"][inside] - first, NEST["target"][inside] - begin)
                    given = {"weight": NEST["weight"][inside], "delay": NEST["delay"][inside], "receptor": receptor}
                    projections.append(Projection(source=source, target=target, rule=rule, **given))
    populations = {name: Population(size=n, **kinds) for name, n in sizes.items()}
    return build(KEY, populations, projections), {"a": NEST["current"][:cut], "b": NEST["current"][cut:]}


def test_a_network_with_a_delay_for_every_synapse_equals_nest():
    network, currents = nest_network(5)
    record = (Probe("a", "v", (0,)),)
    inputs = {name: np.broadcast_to(i, (3000, len(i))) for name, i in currents.items()}
    activity = run(network, 300.0, inputs=inputs, record=record, every=1.0)
    times = np.concatenate([activity.times["a"], activity.times["b"]])
    senders = np.concatenate([activity.neurons["a"], activity.neurons["b"] + 5])
    order = np.lexsort((senders, times))
    np.testing.assert_array_equal(senders[order], NEST["senders"])
    np.testing.assert_allclose(times[order], NEST["times"], rtol=0, atol=1e-9)
    # Sums of some ten currents in another order, over 3000 steps.
    np.testing.assert_allclose(activity.traces["a", "v"][:, 0], NEST["v"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(activity.sampled, np.arange(1.0, 301.0), rtol=1e-12)


# ------------------------------------------------------------------------------------------------- dense, and gradients

N = 6
WEIGHT = np.abs(np.random.default_rng(1).normal(200.0, 100.0, (N, N)))


def test_output_and_gradient_equal_those_of_a_dense_path():
    """Whose delay is one step. Neurons that rest above threshold, from voltages of their own."""
    start = np.linspace(-62.0, -55.1, N)
    params = replace(PARAMS, neuron=replace(PARAMS.neuron, v_rest=-54.0))
    kinds = KINDS | {"params": params, "size": N, "v": start}
    synapses = {"rule": AllToAll(autapses=True), "weight": WEIGHT.ravel(), "receptor": "exc"}
    network = build(KEY, {"n": Population(**kinds)}, [Projection(source="n", target="n", **synapses)])
    cell = Feedback(Arriving(CELL, kinds=2), Dense())
    nothing, mixing = jnp.zeros((200, 2 * N)), jnp.asarray(np.random.default_rng(2).normal(size=(200, N)))
    dense = FeedbackParams(neuron=params, path=DenseParams(weight=jnp.zeros((N, 2 * N))))
    fresh = cell.init_state(dense, nothing[0])
    membrane = fresh.neuron.neuron._replace(v=jnp.asarray(start))
    fresh = fresh._replace(neuron=fresh.neuron._replace(neuron=membrane))

    def of_network(weight, tau_m):
        neurons = {"n": replace(params, neuron=replace(params.neuron, tau_m=tau_m))}
        changed = replace(network.params, weight={"n->n": weight.ravel()}, neurons=neurons)
        output = jl.simulate(network.cell, changed, jnp.zeros(200), network.state)[1]
        return jnp.sum(mixing * (output.spikes["n"] + 0.1 * output.v["n"])), output.spikes["n"]

    def of_dense(weight, tau_m):
        path = DenseParams(weight=jnp.concatenate([weight, jnp.zeros_like(weight)], axis=1))
        changed = FeedbackParams(neuron=replace(params, neuron=replace(params.neuron, tau_m=tau_m)), path=path)
        output = jl.simulate(cell, changed, nothing, fresh)[1]
        return jnp.sum(mixing * (output.spikes + 0.1 * output.v)), output.spikes

    at = jnp.asarray(WEIGHT), 10.0
    (found, spikes), slopes = jax.value_and_grad(of_network, argnums=(0, 1), has_aux=True)(*at)
    (expected, others), known = jax.value_and_grad(of_dense, argnums=(0, 1), has_aux=True)(*at)
    assert spikes.sum() > 10
    np.testing.assert_array_equal(spikes, others)
    # Sums in another order, along 200 steps whose surrogate's slope is up to 10 per mV.
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    for one, other in zip(slopes, known, strict=True):
        assert np.abs(other).max() > 0.0
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9 * np.abs(other).max())


def voltage_of_a_late_spike(network, delay, weight):
    """Return the last voltage of the neuron that a single spike reaches."""
    params = replace(network.params, delay={"a->b": delay}, weight={"a->b": weight})
    output = jl.simulate(network.cell, params, {"a": jnp.full(120, 400.0).at[60:].set(0.0)}, network.state)[1]
    return output.v["b"][-1, 0], output


def test_a_delay_between_steps_has_the_gradient_of_the_interpolation():
    network = build(
        KEY,
        {"a": Population(size=1, **KINDS), "b": Population(size=1, **KINDS)},
        [Projection(source="a", target="b", rule=AllToAll(), weight=100.0, delay=2.33, receptor="exc")],
        interpolate=True,
        max_delay=4.0,
    )
    (v, output), slopes = jax.value_and_grad(
        lambda delay, weight: voltage_of_a_late_spike(network, delay, weight), argnums=(0, 1), has_aux=True
    )(2.33, 100.0)
    assert output.spikes["a"].sum() == 1.0
    fine = [float(voltage_of_a_late_spike(network, 2.33 + d, 100.0)[0]) for d in (-1e-3, 1e-3)]
    # Linear between steps, so that the difference has no error but rounding: 1e-13 mV over 2e-3 ms.
    np.testing.assert_allclose(slopes[0], (fine[1] - fine[0]) / 2e-3, rtol=1e-7)
    np.testing.assert_allclose(slopes[1], (v + 70.0) / 100.0, rtol=1e-9)
    ends = [float(voltage_of_a_late_spike(network, d, 100.0)[0]) for d in (2.3, 2.4)]
    np.testing.assert_allclose(v, 0.7 * ends[0] + 0.3 * ends[1], rtol=1e-12)
    plain = replace(network.cell, interpolate=False)
    whole = [float(voltage_of_a_late_spike(network._replace(cell=plain), d, 100.0)[0]) for d in (2.3, 2.4)]
    np.testing.assert_allclose(ends, whole, rtol=1e-12)  # where a delay is whole steps, nothing lies between


# ----------------------------------------------------------------------------------------------------- runs and drives


def balanced(**more):
    populations = {"E": Population(size=80, **KINDS), "I": Population(size=20, **KINDS)}
    synapses = [
        Projection(source="E", target="*", rule=Pairwise(0.1), weight=60.0, delay=1.5, receptor="exc"),
        Projection(source="I", target="*", rule=FixedInDegree(4), weight=-300.0, delay=0.8, receptor="inh"),
    ]
    drives = [
        poisson_drive("E", rate=4000.0, weight=60.0, receptor="exc"),
        noise_drive("I", mean=200.0, sd=200.0, tau=5.0),
    ]
    return build(KEY, populations, synapses, drives, **more)


def test_stepping_scanning_and_running_in_parts_are_one(dtype):
    """150 steps are three blocks of random numbers, and twice 75 two parts of other blocks."""
    network = balanced()
    state, output = jl.simulate(network.cell, network.params, jnp.zeros(150), network.state)
    params, step = network.cell.prepare(network.params), jax.jit(network.cell.step)
    stepped, spikes = network.state, []
    for _ in range(150):
        stepped, one = step(params, stepped, 0.0)
        spikes.append(one.spikes["E"])
    np.testing.assert_array_equal(np.stack(spikes), output.spikes["E"])
    assert output.spikes["E"].dtype == dtype and output.spikes["E"].sum() > 20
    first = run(network, 7.5)
    second = run(network._replace(state=first.state), 7.5)
    assert (second.start, second.stop) == (pytest.approx(7.5), pytest.approx(15.0))
    steps, neurons = np.nonzero(np.asarray(output.spikes["E"]))
    times = np.concatenate([first.times["E"], second.times["E"]])
    np.testing.assert_allclose(times, 0.1 * (steps + 1), rtol=1e-9)
    np.testing.assert_array_equal(np.concatenate([first.neurons["E"], second.neurons["E"]]), neurons)
    # Compiled alone and in a loop a step may round differently.
    atol = {"float64": 1e-10, "float32": 1e-3}[dtype]
    np.testing.assert_allclose(second.state.neurons[0].neuron.v, state.neurons[0].neuron.v, rtol=0, atol=atol)
    np.testing.assert_allclose(stepped.neurons[0].neuron.v, state.neurons[0].neuron.v, rtol=0, atol=atol)


@pytest.mark.parametrize("mean", [0.05, 0.7, 8.0, 60.0])
def test_poisson_counts_have_the_moments_of_a_poisson_distribution(mean, dtype):
    params = PoissonParams(rate=10_000.0 * mean, weight=1.0)
    count = np.asarray(PoissonDrive("E", "exc").draw(params, KEY, jnp.zeros(200_000, dtype), 0.1), float)
    # Five standard errors of mean, variance and third central moment, all equal to the mean in expectation.
    n, centred = len(count), count - mean
    assert abs(count.mean() - mean) < 5 * np.sqrt(mean / n)
    assert abs((centred**2).mean() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / n)
    assert abs((centred**3).mean() - mean) < 5 * np.sqrt((mean + 24 * mean**2 + 15 * mean**3) / n)
    assert (count == np.rint(count)).all()


@pytest.mark.parametrize("tau", [0.0, 3.0])
def test_a_noisy_current_has_its_mean_deviation_and_correlation(tau):
    params, drive, dt = NoiseParams(mean=50.0, sd=20.0, tau=tau), NoiseDrive("E"), 0.5
    draws = jax.vmap(lambda key: drive.draw(params, key, jnp.zeros(2000), dt))(jax.random.split(KEY, 101))
    _, current = jax.lax.scan(lambda state, x: drive.advance(params, state, x, dt), draws[0], draws[1:])
    current = np.asarray(current)
    z = (current - 50.0) / 20.0
    # Five standard errors; neighbouring steps of one neuron are not independent, 2000 neurons are.
    assert abs(z.mean()) < 5 / np.sqrt(2000) and abs((z[0] ** 2).mean() - 1.0) < 5 * np.sqrt(2 / 2000)
    expected = np.exp(-dt / tau) if tau else 0.0
    assert abs((z[1:] * z[:-1]).mean() - expected) < 5 / np.sqrt(2000)


@pytest.mark.parametrize("mean", [0.01, 1.0, 3.0, 8.0])
def test_the_last_of_random_numbers_is_no_burst_of_arrivals(mean, monkeypatch):
    # In single precision sums end at this number or one below it, and counts went on to 200.
    last = np.nextafter(np.float32(1.0), np.float32(0.0)) - np.float32(2.0**-24)
    means = (mean * np.linspace(0.9, 1.1, 1000)).astype(np.float32)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, last))
    draw = PoissonDrive("E", "exc").draw(PoissonParams(rate=1000.0 * means, weight=1.0), KEY, jnp.zeros(1000), 1.0)
    # The count that is exceeded once in 2^24, and as many again as single precision's sums err by.
    assert np.max(np.abs(np.asarray(draw) - poisson.isf(2.0**-23, means.astype(float)))) <= 2.0


def test_a_rate_that_cannot_be_drawn_is_no_number_while_tracing(dtype):
    rate = jnp.array([-1.0, 0.0, 600_000.0, 610_000.0, 1e6, np.nan], dtype)
    drawn = PoissonDrive("E", "exc").draw(PoissonParams(rate=rate, weight=1.0), KEY, jnp.zeros(6, dtype), 0.1)
    np.testing.assert_array_equal(np.isfinite(drawn), [False, True, True, False, False, False])


def test_a_network_draws_no_waiting_time_of_0(monkeypatch):
    monkeypatch.setattr(jax.random, "exponential", lambda key, shape, dtype=float: jnp.zeros(shape, dtype))
    params = jl.AdaptiveLIFParams(delta_v=1.0, lambda_0=1e-9)
    neuron = Population(size=2, cell=jl.EscapeNoise(jl.AdaptiveLIF(dt=0.1)), params=params)
    network = build(KEY, {"E": neuron})
    assert (network.cell.draw(network.cell.prepare(network.params), jnp.asarray(3)).noise[0] > 0.0).all()


def test_a_spike_at_the_time_from_which_activity_is_taken_is_before_it():
    # 3 x 0.1 is above 0.3 and 2 x 0.1 is not above 0.2: both are the ends of steps that are over.
    times = 0.1 * np.arange(1, 101)
    trains = {"times": {"E": times}, "neurons": {"E": np.zeros(100, int)}, "sampled": times}
    activity = Activity({"E": 1}, 0.0, 10.0, **trains, traces={("E", "v"): times[:, None]})
    for steps in range(100):
        left = activity.since(round(0.1 * steps, 1))
        assert len(left.times["E"]) == len(left.sampled) == len(left.traces["E", "v"]) == 100 - steps


@pytest.mark.parametrize("interpolate", [False, True])
def test_a_delay_without_a_place_is_no_number_while_tracing(interpolate):
    way = {"rule": AllToAll(), "weight": 10.0, "receptor": "exc", "delay": 1.0}
    pair = [Projection(source="E", target="E", **way)]
    network = build(KEY, {"E": one(2)}, pair, max_delay=2.0, interpolate=interpolate)

    def _total(delay):
        weight = network.cell.prepare(replace(network.params, delay={"E->E": delay})).weight
        return weight.sum()

    delays = jnp.array([0.03, 0.1, 1.0, 2.0, 2.2])
    np.testing.assert_allclose(jax.vmap(_total)(delays), [np.nan, 20.0, 20.0, 20.0, np.nan], rtol=1e-6)


def test_activity_counts_what_a_loop_counts():
    activity = run(balanced(), 400.0).since(100.0)
    trains = activity.trains("E")
    assert sum(map(len, trains)) == len(activity.times["E"]) > 200 and min(activity.times["E"]) > 100.0
    assert activity.rates["E"] == pytest.approx(np.mean([len(t) / 0.3 for t in trains]))
    own = [np.std(np.diff(t)) / np.mean(np.diff(t)) for t in trains if len(t) > 3]
    assert activity.cv("E") == pytest.approx(np.mean(own))
    counts = activity.counts("E", 10.0)
    edges = 100.0 + 10.0 * np.arange(31)
    np.testing.assert_array_equal(counts[:, 3], np.histogram(trains[3] - 1e-6, edges)[0])
    moving = counts[:, counts.std(axis=0) > 0]
    pairs = np.corrcoef(moving.T)[np.triu_indices(moving.shape[1], 1)]
    assert activity.correlation("E", 10.0) == pytest.approx(pairs.mean())
    t, rate = activity.rate("E", 10.0)
    assert (t[0], len(t)) == (105.0, 30) and rate.mean() == pytest.approx(activity.rates["E"])
    frequency, power = activity.spectrum("E", 1.0, 100.0)
    # Parseval: the power over all frequencies is the rate's variance, up to the edges of the windows.
    assert power.sum() * frequency[1] == pytest.approx(activity.rate("E", 1.0)[1].var(), rel=0.3)


@pytest.mark.parametrize("longest", [53, 2001])
def test_delays_are_the_steps_that_they_name(longest, dtype):
    """Single precision rounds 5.3 ms up, and delays of 2001 steps by more than 1e-4 of one."""
    lags = np.arange(1, longest + 1)
    rule = Edges(np.zeros(longest, int), np.zeros(longest, int))
    synapses = {"rule": rule, "weight": 1.0, "delay": 0.1 * lags, "receptor": "exc"}
    network = build(KEY, {"n": Population(size=1, **KINDS)}, [Projection(source="n", target="n", **synapses)])
    assert network.params.delay["n->n"].dtype == dtype and network.cell.max_lag == longest
    target = np.asarray(network.cell.prepare(network.params).target)[0, :longest]
    np.testing.assert_array_equal(target, 2 * (lags - 1))


# ------------------------------------------------------------------------------------------------------ what is refused


def one(size=4, **more):
    return Population(size=size, **KINDS | more)


def build_with(drives=(), **projection):
    given = {"source": "E", "target": "I", "rule": AllToAll(), "weight": 10.0, "receptor": "exc"} | projection
    return build(KEY, {"E": one(), "I": one(2)}, [Projection(**given)], drives)


def simulated(**changed):
    return jl.simulate(*moved(build_with(), **changed))


CONDUCTANCES = {
    "cell": jl.Synaptic(jl.LIF(dt=0.1), jl.Conductance()),
    "params": jl.SynapticParams(synapse=jl.ConductanceParams(e_rev=np.array([0.0, -80.0]))),
}
CURRENTS = {
    "cell": jl.Synaptic(jl.LIF(dt=0.1), Kinds({"exc": jl.ExponentialCurrent(), "inh": jl.AlphaCurrent()})),
    "params": jl.SynapticParams(synapse={"exc": jl.CurrentParams(), "inh": jl.CurrentParams()}),
    "receptors": (),
}
INHIBIT = {"rule": AllToAll(), "weight": 5.0, "receptor": "inh"}
TIRED = {
    "rule": AllToAll(autapses=True),
    "weight": 1.0,
    "receptor": "exc",
    "short_term": TsodyksMarkramParams(use=np.full(3, 0.5)),
}


def conducting_params(**synapse):
    return jl.SynapticParams(synapse=jl.ConductanceParams(**synapse))


def conducting(weight=0.1):
    kinds = {"cell": CONDUCTANCES["cell"], "params": conducting_params()}
    network = build(
        KEY,
        {"E": Population(size=2, receptors="g", **kinds)},
        [Projection(source="E", target="E", rule=AllToAll(), weight=1.0)],
        [poisson_drive("E", rate=1.0, weight=0.1)],
    )
    driven = {"E:g": PoissonParams(rate=1.0, weight=weight)}
    return network._replace(params=replace(network.params, drives=driven))


def moved(network, **changed):
    return network.cell, replace(network.params, **changed), jnp.zeros(3), network.state


REFUSED = {
    "a population that is not there": (lambda: build_with(target="X"), "population 'X': there is none; .* E, I"),
    "a receptor that is not there": (lambda: build_with(receptor="ampa"), "receptor = 'ampa': the target has exc, inh"),
    "a missing neuron": (lambda: build_with(rule=Edges([0], [2])), r"E->I: target\[0\] = 2: .* neurons 0 to 1"),
    "a short delay": (lambda: build_with(delay=0.05), "E->I: delay = 0.05 ms: delay must be dt = 0.1 ms or more"),
    "a delay between steps": (
        lambda: build_with(delay=0.25),
        "delay = 0.25 ms: .* whole number of steps",
    ),
    "weights for others": (lambda: build_with(weight=np.ones(3)), r"weight has shape \(3,\): .* of each of 8"),
    "the sign of inhibition": (
        lambda: build_with(receptor="inh"),
        "weight = 10: into .* 'inh' it must be 0 or less",
    ),
    "the sign of excitation": (
        lambda: build_with(weight=-1.0),
        "weight = -1: into .* 'exc' it must be 0 or more",
    ),
    "a negative conductance": (
        lambda: build(
            KEY,
            {"E": one(**CONDUCTANCES)},
            [Projection(source="E", target="E", rule=AllToAll(), weight=-1.0, receptor="inh")],
        ),
        "arrivals = -1 nS: a conductance must be 0 nS or more",
    ),
    "a conductance that became negative": (
        lambda: jl.simulate(*moved(conducting(), weight={"E->E": -1.0})),
        "E->E: arrivals = -1 nS: a conductance must be 0 nS or more",
    ),
    "arrivals that became negative": (
        lambda: run(conducting(weight=-0.1), 1.0),
        "E:g: arrivals = -0.1 nS: a conductance must be 0 nS or more",
    ),
    "the sign of inhibition among kinds": (
        lambda: build(KEY, {"E": one(**CURRENTS)}, [Projection(source="E", target="E", **INHIBIT)]),
        "weight = 5: into .* 'inh' it must be 0 or less",
    ),
    "inhibition that excites": (
        lambda: build(KEY, {"E": one(cell=CONDUCTANCES["cell"], params=conducting_params(e_rev=0.0))}),
        "E: e_rev of inh = 0 mV: what inhibits must reverse below v_th",
    ),
    "receptors in another order": (
        # What was sent to "inh" had reached "exc".
        lambda: build(KEY, {"E": one(**CURRENTS | {"receptors": ("inh", "exc")})}),
        r"E: receptors = \('inh', 'exc'\): those of Kinds have names, \('exc', 'inh'\)",
    ),
    "two receptors of jumps": (
        lambda: build(KEY, {"E": one(cell=jl.Synaptic(jl.LIF(dt=0.1), jl.VoltageJump()), params=jl.SynapticParams())}),
        r"E: receptors = \('exc', 'inh'\): a voltage jump is one",
    ),
    "a weight of nobody": (
        lambda: simulated(weight={"E->E": 1.0}),
        r"weight has \['E->E'\]: it must have \['E->I'\]",
    ),
    "neurons of another number": (
        lambda: simulated(neurons={name: replace(PARAMS, neuron=jl.LIFParams(tau_m=np.ones(3))) for name in "EI"}),
        r"E: neuron.tau_m has shape \[3\]: it must be a number or \[4\]",
    ),
    "trains of another number": (
        lambda: build_with([poisson_drive("I", rate=np.ones(3), weight=1.0, receptor="exc")]),
        r"I:exc: rate has shape \[3\]: it must be a number or \[2\]",
    ),
    "a noise of another number": (
        lambda: build(KEY, {"E": one(1)}, [], [noise_drive("E", sd=np.ones(3))]),
        r"E:current: sd has shape \[3\]: it must be a number or \[1\]",
    ),
    "releases of another number": (
        # Of one neuron three would have gone through rows that are not there.
        lambda: build(KEY, {"E": one(1)}, [Projection(source="E", target="E", **TIRED)]),
        r"E->E: use has shape \[3\]: it must be a number or \[1\]",
    ),
    "a receptor called as the current is": (
        lambda: build(
            KEY,
            {"E": one(receptors=("current", "inh"))},
            [],
            [noise_drive("E", sd=1.0), poisson_drive("E", rate=1.0, weight=1.0, receptor="current")],
        ),
        "drive of E: it has two at current; add them up",
    ),
    "no time for delays": (lambda: build(KEY, {"E": one()}, max_delay=0.0), "max_delay = 0 ms: .* greater than 0 ms"),
    "delays without room": (
        lambda: build_with(delay=1e9),
        r"2.4e\+11 places on the way of spikes, for delays of up to 1e\+09 ms, are more than",
    ),
    "two of one name": (
        lambda: build(
            KEY, {"E": one()}, [Projection(source="E", target="E", rule=AllToAll(), weight=1.0, receptor="exc")] * 2
        ),
        "projection E->E:exc: two have this name",
    ),
    "no names of receptors": (lambda: build(KEY, {"E": one(receptors=())}), "E: receptors = .* must name the kinds"),
    "no population": (lambda: build(KEY, {}), "populations = {}: a network needs one at least"),
    "no rule": (lambda: build_with(rule=0.1), "rule = 0.1: it must be a rule of connection"),
    "spikes between steps": (
        lambda: build(KEY, {"E": Population(size=1, cell=jl.PreciseLIF(), params=jl.LIFParams())}),
        "E: cell = PreciseLIF: its spikes lie between steps",
    ),
    "a cell without spikes": (
        lambda: build(KEY, {"E": Population(size=1, cell=jl.LeakyIntegrator(dt=0.1), params=jl.LeakyParams())}),
        "E: cell = LeakyIntegrator: a population passes spikes on",
    ),
    "a cell around synapses": (
        lambda: build(KEY, {"E": one(cell=jl.TeacherForced(CELL))}),
        "E: cell = TeacherForced: it must be a neuron, Synaptic around one, or EscapeNoise",
    ),
    "parameters of others": (
        lambda: build(KEY, {"E": Population(size=3, cell=jl.LIF(), params=jl.LIFParams(tau_m=np.full(4, 10.0)))}),
        r"E: tau_m has shape \[4\]: it must be a number or \[3\]",
    ),
    "names for more kinds": (
        lambda: build(KEY, {"E": one(receptors=("a", "b", "c"))}),
        r"E: synapse.tau_syn has shape \[2\]: it must be a number or \[3\] or \[3, 4\]",
    ),
    "steps of two lengths": (
        lambda: build(KEY, {"E": one(), "I": Population(size=1, cell=jl.LIF(dt=0.5), params=jl.LIFParams())}),
        "dt must be the same in all populations: it is 0.1 and 0.5 ms",
    ),
    "more than memory holds": (
        lambda: build(
            KEY, {"E": one(30_000)}, [Projection(source="E", target="E", rule=AllToAll(), weight=1.0, receptor="exc")]
        ),
        "a network of 9e.08 synapses would need 63 GB",
    ),
    "too many arrivals": (
        lambda: build_with([poisson_drive("E", rate=1e6, weight=1.0, receptor="exc")]),
        r"E:exc: rate = 1e\+06 Hz: rate must be at most 600000 Hz",
    ),
    "two drives at one place": (
        lambda: build_with([noise_drive("E", sd=1.0)] * 2),
        "drive of E: it has two at its current; add them up",
    ),
    "a delay beyond the line": (lambda: simulated(delay={"E->I": 3.0}), "E->I: delay = 3 ms: .* the longest, 0.1 ms"),
    "a current for all": (
        lambda: jl.simulate(*build_with()[:2], jnp.zeros((3, 6))),
        r"input \[6\]: a step takes one",
    ),
    "a current for nobody": (lambda: run(build_with(), 1.0, inputs={"X": 1.0}), "input 'X': the populations are E, I"),
    "a current of another number": (
        lambda: run(build_with(), 1.0, inputs={"E": np.ones((10, 3))}),
        r"input 'E' \[3\]: a step takes one number, or \[4\]",
    ),
    "a state with another line": (
        # It had gone on silently, with what was on its way at other times.
        lambda: run(build_with()._replace(state=build_with(delay=0.3).state), 1.0),
        r"state = PopulationState with shapes .*\(72,\).*: it must be the cell's, .*\(24,\)",
    ),
    "no time": (lambda: run(build_with(), 0.0), "duration = 0 ms: duration must be greater than 0 ms"),
    "one thing recorded twice": (
        lambda: run(build_with(), 1.0, record=[Probe("E", "v", [0]), Probe("E", "v", np.array([1]))]),
        "record: v of E is there twice; name all neurons in one",
    ),
    "a run between steps": (lambda: run(build_with(), 0.25), "duration = 0.25 ms: it must be a whole number of steps"),
    "a probe of nothing": (
        lambda: run(build_with(), 1.0, record=(Probe("E", "w"),)),
        "variable = 'w': of E there are v, exc, inh, v, refractory",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_that_explodes_or_dies_says_so():
    mutual = {"source": "E", "target": "E", "rule": AllToAll(), "weight": 10_000.0, "receptor": "exc"}
    network = build(KEY, {"E": one(10)}, [Projection(**mutual)])
    kick = {"E": np.where(np.arange(600) < 100, 300.0, 0.0)}
    with pytest.warns(NetworkWarning, match="E fires at 4[0-9]{2} Hz, as fast as it can"):
        run(network, 60.0, inputs=kick)
    alone = build(KEY, {"E": one(40)})
    # A spike each in the last quarter of 4 ms is 1000 Hz, and no explosion: it would be an error here.
    late = alone._replace(state=alone.cell.with_voltages(alone.state, {"E": -55.2}))
    assert run(late, 4.0, inputs={"E": np.where(np.arange(40) < 31, 150.0, 300.0)}).since(3.0).rates == {"E": 1000.0}
    with pytest.warns(NetworkWarning, match=r"E fell silent after [0-9.]+ ms"):
        run(alone, 60.0, inputs=kick)
    beyond = alone._replace(state=alone.cell.with_voltages(alone.state, {"E": np.nan}))
    with pytest.warns(NetworkWarning, match="E has voltages that are no number"):
        run(beyond, 60.0, inputs=kick)


def test_synapses_that_tire_deliver_what_is_released():
    """Beside others of the same neurons that do not: the conductances are those of a loop over the spikes."""
    cell = jl.Synaptic(jl.LIF(dt=0.1), jl.Conductance())
    synapse = jl.ConductanceParams(tau_syn=np.array([5.0, 10.0]), e_rev=np.array([0.0, -80.0]))
    target = Population(size=3, cell=cell, params=jl.SynapticParams(synapse=synapse), receptors=("exc", "inh"))
    source = Population(size=2, cell=jl.LIF(dt=0.1), params=jl.LIFParams(t_ref=2.0))
    tiring = TsodyksMarkramParams(use=0.4, tau_rec=200.0, tau_fac=np.array([0.0, 300.0]))
    rules = {"rule": AllToAll(), "source": "a", "target": "b", "weight": 1.0}
    projections = [
        Projection(**rules, delay=0.5, receptor="exc", short_term=tiring),
        Projection(**rules, receptor="inh"),
    ]
    network = build(KEY, {"a": source, "b": target}, projections)
    record = (Probe("b", "exc"), Probe("b", "inh"))
    activity = run(network, 100.0, inputs={"a": np.full((1000, 2), [300.0, 400.0])}, record=record)
    expected = np.zeros((1000, 2))
    for neuron, tau_fac in enumerate((0.0, 300.0)):
        x, u, last = 1.0, 0.0, None
        for t in activity.trains("a")[neuron]:
            gap = 0.0 if last is None else t - last
            x = 1.0 - (1.0 - x) * np.exp(-gap / 200.0)
            u = u * np.exp(-gap / tau_fac) if tau_fac else 0.0
            u, last = u + 0.4 * (1.0 - u), t
            after = np.arange(round(10 * t) + 4, 1000)
            expected[after, 0] += u * x * np.exp(-0.1 * (after - after[0]) / 5.0)
            x -= u * x
            plain = np.arange(round(10 * t), 1000)
            expected[plain, 1] += np.exp(-0.1 * (plain - plain[0]) / 10.0)
    assert len(activity.times["a"]) > 20
    for k, name in enumerate(("exc", "inh")):
        np.testing.assert_allclose(activity.traces["b", name], expected[:, k : k + 1] + np.zeros(3), rtol=0, atol=1e-11)


def test_kinds_of_synapse_are_receptors_by_their_names_and_can_be_recorded():
    """A spike opens AMPA and NMDA of its own kind; what is recorded is what the synapse alone gives."""
    kinds = Kinds({"ampa": jl.Conductance(), "nmda": jl.NMDA(), "gaba": jl.Conductance()})
    own = {"ampa": jl.ConductanceParams(tau_syn=2.0), "nmda": jl.NMDAParams()}
    own |= {"gaba": jl.ConductanceParams(tau_syn=10.0, e_rev=-75.0)}
    cell, params = jl.Synaptic(jl.LIF(dt=0.1), kinds), jl.SynapticParams(synapse=own)
    projections = [
        Projection(source="a", target="b", rule=AllToAll(), weight=2.0, receptor="ampa"),
        Projection(source="a", target="b", rule=AllToAll(), weight=1.0, delay=1.0, receptor="nmda"),
    ]
    source = Population(size=1, cell=jl.LIF(dt=0.1), params=jl.LIFParams())
    network = build(KEY, {"a": source, "b": Population(size=2, cell=cell, params=params)}, projections)
    assert list(network.params.weight) == ["a->b:ampa", "a->b:nmda"]
    record = tuple(Probe("b", name) for name in ("ampa", "nmda", "gaba", "v"))
    activity = run(network, 10.0, inputs={"a": 300.0}, record=record)
    (step,) = (round(10 * t) for t in activity.times["a"])
    arrivals = jnp.zeros((100, 3)).at[step, 0].set(2.0).at[step + 9, 1].set(1.0)
    alone = jl.simulate(cell, params, jl.Drive(arrivals, jnp.zeros(100)))[1].v
    np.testing.assert_allclose(activity.traces["b", "v"], np.stack([alone, alone], axis=1), rtol=1e-13)
    t = 0.1 * np.arange(100 - step)
    ampa = 2.0 * np.exp(-t / 2.0)
    np.testing.assert_allclose(activity.traces["b", "ampa"][step:, 0], ampa, rtol=1e-10)
    assert not activity.traces["b", "gaba"].any() and activity.traces["b", "nmda"].max() > 0.5
