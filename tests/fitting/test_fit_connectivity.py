"""Connectivity from spike trains against a plain loop, an optimiser that knows no curvature, and a network itself."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.coupled import ForcedNeuron, design
from jaxlif.networks import AllToAll, Population, Projection, build

N, T, CUT, LAG = 3, 2400, 1800, 2
CELL = jl.Synaptic(jl.AdaptiveLIF(dt=1.0), jl.ExponentialCurrent())
NEURON = jl.AdaptiveLIFParams(t_ref=2.0, delta_v=2.0, lambda_0=0.2, gamma=(3.0,), tau_gamma=(30.0,))
PARAMS = jl.SynapticParams(neuron=NEURON, synapse=jl.CurrentParams(tau_syn=4.0))
WEIGHT = np.array([[0.0, 150.0, -100.0], [100.0, 0.0, 80.0], [0.0, -150.0, 0.0]])  # pA
CURRENT = 130.0 + 50.0 * np.random.default_rng(0).normal(size=(T, N))


def run(weight, v_rest, spikes=None):
    """Return log-rates [T, N], where neurons can spike, and spikes: a loop over time, given spikes or its own."""
    p, tau, rng = NEURON, 4.0, np.random.default_rng(1)
    v, held, rise, synaptic = v_rest, np.zeros(N, int), np.zeros(N), np.zeros(N)
    kept, left = np.exp(-1.0 / p.tau_m), np.exp(-1.0 / tau)
    moved = p.r_m * tau / (tau - p.tau_m) * (left - kept)  # by a current that decays over a step, mV/pA
    made, log_rate, active = np.zeros((T, N)), np.zeros((T, N)), np.zeros((T, N), bool)
    for n in range(T):
        rest = v_rest + p.r_m * CURRENT[n]
        v = np.where(held > 0, p.v_reset, rest + (v - rest) * kept + moved * synaptic)
        source = made if spikes is None else spikes
        synaptic = synaptic * left + (source[n - LAG] @ weight if n >= LAG else 0.0)
        active[n], log_rate[n] = held == 0, np.log(p.lambda_0) + (v - p.v_th - rise) / p.delta_v
        made[n] = (rng.random(N) < -np.expm1(-np.exp(log_rate[n]))) & active[n]
        spiked = source[n] > 0
        rise = rise * np.exp(-1.0 / p.tau_gamma[0]) + p.gamma[0] * spiked
        v, held = np.where(spiked, p.v_reset, v), np.where(spiked, 2, np.maximum(held - 1, 0))
    return log_rate, active, made


SPIKES = run(WEIGHT, np.full(N, NEURON.v_rest))[2]


def log_likelihoods(weight, v_rest):
    """Return those of all neurons over the time that is fitted, and that which is held out, [2, N]."""
    log_rate, active, _ = run(weight, v_rest, SPIKES)
    likely = np.log(-np.expm1(-np.exp(log_rate)))
    each = np.where(SPIKES > 0, likely, np.where(active, -np.exp(log_rate), 0.0))
    return np.stack([each[:CUT].sum(axis=0), each[CUT:].sum(axis=0)])


def test_the_loop_makes_spikes():
    assert (SPIKES.sum(axis=0) > 50).all()


def test_weights_and_intervals_are_those_of_a_plain_loop():
    """At the maximum its likelihood, which is concave, has no slope; its curvature gives the intervals."""
    found = jl.fit_connectivity(SPIKES, CELL, PARAMS, current=CURRENT, delay=2.0)
    v_rest = found.params.neuron.v_rest
    # Of each neuron, its two weights and resting voltage, and so all neurons at once.
    others = [np.delete(np.arange(N), i) for i in range(N)]
    unit = np.array([1.0, 1.0, 0.02])  # pA, pA, mV: alike in what they do

    def at(shift):
        weight, rest = found.weight.copy(), v_rest + unit[2] * shift[2]
        for i in range(N):
            weight[others[i], i] += shift[:2]
        return log_likelihoods(weight, rest)[0]

    here, steps = at(np.zeros(3)), np.eye(3)
    slope = np.stack([at(a) - at(-a) for a in steps]) / 2.0
    curved = np.stack([[at(a + b) - at(a - b) - at(b - a) + at(-a - b) for a in steps] for b in steps]) / 4.0
    for i in range(N):
        inverse = np.linalg.inv(-curved[:, :, i])
        # In nats: Newton's method ends where a step gains 1e-6, and the differences err by the third derivative.
        assert slope[:, i] @ inverse @ slope[:, i] < 1e-4
        reach = 1.96 * np.sqrt(np.diag(inverse)) * unit
        ends = np.append(found.interval[1, others[i], i], found.intervals["v_rest"][1, i])
        # Differences over steps of 1 pA miss a ten-thousandth of the curvature.
        np.testing.assert_allclose(ends - np.append(found.weight[others[i], i], v_rest[i]), reach, rtol=1e-3)
    assert found.log_likelihood[2.0] == pytest.approx(here.sum(), rel=1e-12)
    assert found.determined.sum() == N * (N - 1) and not found.notes
    counts, duration = SPIKES[CUT:].sum(axis=0), float(T - CUT)
    poisson = counts * np.log(counts / duration) - counts
    bits = (log_likelihoods(found.weight, v_rest)[1] - poisson).sum() / counts.sum() / np.log(2.0)
    assert found.bits == pytest.approx(bits, rel=1e-9)
    assert found.bits > found.bits_unconnected


def test_the_likeliest_delay_is_taken():
    found = jl.fit_connectivity(SPIKES, CELL, PARAMS, current=CURRENT, delay=(1.0, 2.0, 3.0))
    assert found.delay == 2.0 and found.delay == max(found.log_likelihood, key=found.log_likelihood.get)


@pytest.mark.parametrize(
    ("dtype", "synapse", "synaptic", "scale"),
    [("float64", jl.ExponentialCurrent(), PARAMS.synapse, 1.0), ("float32", jl.VoltageJump(), None, 0.03)],
    indirect=["dtype"],
)
def test_the_log_rate_is_that_of_a_network(dtype, synapse, synaptic, scale):
    """At the network's own spikes, which arrive 3 ms later."""
    cell, params = jl.Synaptic(jl.AdaptiveLIF(dt=1.0), synapse), jl.SynapticParams(neuron=NEURON, synapse=synaptic)
    weight = scale * WEIGHT
    network = build(
        jax.random.key(0),
        {"n": Population(size=N, cell=jl.EscapeNoise(cell), params=params, receptors=("any",))},
        [Projection(source="n", target="n", rule=AllToAll(), weight=weight[~np.eye(N, dtype=bool)], delay=3.0)],
    )
    source, target = network.edges["n->n"]
    given = replace(network.params, weight={"n->n": jnp.asarray(weight[source, target], dtype)})
    output = jl.simulate(network.cell, given, {"n": jnp.asarray(CURRENT, dtype)}, network.state)[1]
    spikes, v = np.asarray(output.spikes["n"]), np.asarray(output.v["n"])
    arriving = np.concatenate([np.zeros((3, N)), spikes[:-3]])
    neuron = jax.tree.map(lambda x: jnp.asarray(x, dtype), NEURON)
    own = ForcedNeuron(neuron, *(jnp.asarray(x, dtype) for x in (CURRENT[:, 1], spikes[:, 1], np.ones(N + 1))))
    base, slopes, active = design(cell, ("v_rest",), params.synapse, jnp.asarray(arriving, dtype), own)
    rise = np.zeros(T)
    for n in np.flatnonzero(spikes[:, 1]):
        rise[n + 1 :] += 3.0 * np.exp(-np.arange(T - n - 1) / 30.0)
    quiet = np.asarray(active) & (spikes[:, 1] == 0)
    log_rate = np.asarray(base) + np.asarray(slopes)[:, :N] @ weight[:, 1]
    expected = np.log(0.2) + (v[:, 1] + 55.0 - rise) / 2.0
    assert quiet.sum() > 1000 and spikes[:, 1].sum() > 30
    # Voltages of -70 mV, over a delta_v of 2 mV.
    np.testing.assert_allclose(
        log_rate[quiet], expected[quiet], rtol=0, atol={"float64": 1e-11, "float32": 1e-3}[dtype]
    )


def test_what_the_data_do_not_determine_has_no_interval():
    twins = SPIKES.copy()
    twins[:, 1] = twins[:, 0]
    found = jl.fit_connectivity(twins, CELL, PARAMS, current=CURRENT, delay=2.0)
    assert found.determined.tolist() == [[False, True, False], [True, False, False], [True, True, False]]
    assert np.isnan(found.interval[:, :2, 2]).all() and np.isfinite(found.weight).all()
    assert found.notes == ("not determined: the weights 0 -> 2, 1 -> 2",)


def test_weights_without_a_finite_maximum_are_not_determined():
    """Of clocks: what comes just before a spike explains it, the better the larger its weight."""
    clock = np.zeros((T, N))
    clock[10::40, 0] = clock[27::40, 1] = clock[31::40, 2] = 1.0
    found = jl.fit_connectivity(clock, CELL, replace(PARAMS, neuron=replace(NEURON, tau_m=1.0)), delay=2.0)
    assert not found.determined[1:, 0].any() and not found.determined[:2, 2].any() and not found.determined[2, 1]
    assert (found.weight[:, 0] == 0.0).all() and found.weight[1, 2] > 1000.0 > 0.0 > found.weight[2, 1]
    assert found.notes[0] == "no weights explain the spikes of 0 best: those that reach it are left at 0"
    assert found.notes[1].startswith("not determined: the weights 0 -> 2, 1 -> 0")


def test_the_time_constant_is_fitted_with_its_interval():
    def at(tau):
        given = replace(PARAMS, synapse=jl.CurrentParams(tau_syn=tau))
        return jl.fit_connectivity(SPIKES, CELL, given, current=CURRENT, delay=2.0)

    found = jl.fit_connectivity(SPIKES, CELL, PARAMS, current=CURRENT, delay=2.0, tau_syn=(0.5, 30.0))
    tau, (low, high) = float(found.params.synapse.tau_syn), found.intervals["tau_syn"]
    best, below, above = (at(tau * f).log_likelihood[2.0] for f in (1.0, np.exp(-0.05), np.exp(0.05)))
    assert max(below, above) < best == pytest.approx(found.log_likelihood[2.0], abs=1e-9)
    assert np.log(high / tau) == pytest.approx(1.96 * 0.05 / np.sqrt(2.0 * best - below - above), rel=1e-3)
    assert low < tau < high
    # Not knowing it widens the weights' intervals.
    assert (np.diff(found.interval, axis=0)[0] > np.diff(at(tau).interval, axis=0)[0] - 1e-9)[
        ~np.eye(N, dtype=bool)
    ].all()


def test_what_cannot_be_fitted_is_refused():
    silent, fast = SPIKES.copy(), SPIKES.copy()
    silent[:CUT, 1] = 0.0
    fast[100:102, 2] = 1.0
    lif, jumps = (jl.Synaptic(n(dt=1.0), jl.VoltageJump()) for n in (jl.LIF, jl.AdaptiveLIF))
    conductance = jl.Synaptic(jl.AdaptiveLIF(dt=1.0), jl.Conductance())
    coupled = replace(PARAMS, neuron=replace(NEURON, coupling=jl.VoltageCoupling()))
    wild = replace(PARAMS, neuron=replace(NEURON, v_rest=1e5))
    cases = (
        ("neuron 1: no spike in the 1800 ms that are fitted", (silent, CELL, PARAMS), {}),
        ("neuron 2 spikes at 102 ms, 1 ms after a spike", (fast, CELL, PARAMS), {}),
        ("cell = Synaptic", (SPIKES, lif, PARAMS), {}),
        ("cell.synapse = Conductance", (SPIKES, conductance, PARAMS), {}),
        ("params.neuron has VoltageCoupling", (SPIKES, CELL, coupled), {}),
        ("spikes holds values other than 0 and 1", (2.0 * SPIKES, CELL, PARAMS), {}),
        ("two neurons at least", (SPIKES[:, :1], CELL, PARAMS), {}),
        ("they must agree", (SPIKES, CELL, PARAMS), {"current": CURRENT[:-1]}),
        ("delay = 1.5 ms", (SPIKES, CELL, PARAMS), {"delay": 1.5}),
        ("params.synapse = CurrentParams: VoltageJump takes none", (SPIKES, jumps, PARAMS), {}),
        ("VoltageJump has no tau_syn", (SPIKES, jumps, replace(PARAMS, synapse=None)), {"tau_syn": (1.0, 5.0)}),
        ("it must be two bounds above 0", (SPIKES, CELL, PARAMS), {"tau_syn": (5.0, 1.0)}),
        ("neuron 0, 1, 2: no maximum was found", (SPIKES, CELL, wild), {"current": CURRENT, "delay": 2.0}),
        ("held_out = 1", (SPIKES, CELL, PARAMS), {"held_out": 1.0}),
        ("free", (SPIKES, CELL, PARAMS), {"free": ("tau_m",)}),
    )
    for rule, arguments, more in cases:
        with pytest.raises(ValueError, match=rule):
            jl.fit_connectivity(*arguments, **more)
