"""How long does a network of 4000 neurons and 320 000 synapses take, forwards and with the gradient?

Question: does a large network cost what its spikes cost, in time and in memory?

Method: the current-based network of Vogels & Abbott as it is used to compare simulators (Brette et al. 2007): 3200
excitatory and 800 inhibitory neurons (tau_m 20 ms, threshold 10 mV above reset, rest 1 mV above threshold, 5 ms of
refractoriness), every pair connected with probability 0.02, exponential currents of 5 and 10 ms, dt 0.1 ms. Differences
to that text: a spike arrives one step later, and no neuron reaches itself. 1 s is simulated in ten parts from random
voltages; the first, which compiles, is not timed. Then the gradient of the mean rate over 20 ms with respect to all
weights. Memory is that of the synapses' arrays, padding included, over that of dense weights. Beside it a step of
training: the gradient of a loss on the rates of 1000 adaptive neurons, 800 excitatory and 200 inhibitory, in noise of
their own, with 272 synapses each to either, delays of 1 to 10 ms, over 1000 steps of 1 ms, with respect to each of the
544 000 weights; median of five calls after the one that compiles. There is one run, of one seed: the times of one
machine.

Command: python experiments/large_network.py (half a minute; --quick: a smoke run that writes nothing)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import (
    Activity,
    FixedOutDegree,
    Network,
    Pairwise,
    Population,
    Projection,
    build,
    noise_drive,
    run,
)


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seed: int = 0
    num_neurons: int = 4000
    excitatory: float = 0.8  # of the neurons
    probability: float = 0.02
    weights: tuple[float, float] = (1.62, -9.0)  # mV, of the current times resistance
    tau_syn: tuple[float, float] = (5.0, 10.0)  # ms
    dt: float = 0.1  # ms
    part: float = 100.0  # ms
    parts: int = 11
    gradient_steps: int = 200
    train_neurons: int = 1000
    train_synapses: int = 272  # of each neuron to each population
    train_steps: int = 1000


QUICK = Config(
    num_neurons=400, probability=0.1, parts=5, gradient_steps=20, train_neurons=100, train_synapses=10, train_steps=50
)


def main(config: Config, write: bool) -> None:
    network = make(config)
    activity, seconds = advance(config, network)
    gradient_seconds = time_gradient(config, network._replace(state=activity[-1].state))
    table_of = network.params.table
    dense, held = 2 * 4 * config.num_neurons**2, table_of.receptor.nbytes + table_of.synapse.nbytes
    late = activity[1:]
    claims = [
        claim("synapses", sum(len(source) for source, _ in network.edges.values())),
        claim("memory of the synapses over that of dense weights", 100.0 * held / dense, "%"),
        claim("one second of the network", 1e3 / config.part * seconds, "s"),
        claim("gradient over forward, time", gradient_seconds / (seconds * config.gradient_steps / steps(config))),
        claim("mean rate of excitatory neurons", np.mean([a.rates["E"] for a in late]), "Hz"),
        claim("mean rate of inhibitory neurons", np.mean([a.rates["I"] for a in late]), "Hz"),
        *train_step(config),
    ]
    print(table(claims))
    if write:
        write_claims("large_network", claims, draw(config, late))


def steps(config: Config) -> int:
    return round(config.part / config.dt)


def make(config: Config) -> Network:
    cell = jl.Synaptic(jl.LIF(dt=config.dt), jl.ExponentialCurrent())
    neuron = jl.LIFParams(tau_m=20.0, r_m=1.0, v_rest=-49.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    params = jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=jnp.array(config.tau_syn)))
    first = int(config.excitatory * config.num_neurons)
    populations = {
        name: Population(size=n, cell=cell, params=params, receptors=("exc", "inh"), v=uniform)
        for name, n in (("E", first), ("I", config.num_neurons - first))
    }
    rule, (up, down) = Pairwise(config.probability), config.weights
    projections = [
        Projection(source="E", target="*", rule=rule, weight=up, receptor="exc"),
        Projection(source="I", target="*", rule=rule, weight=down, receptor="inh"),
    ]
    return build(jax.random.key(config.seed), populations, projections)


def uniform(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(-60.0, -50.0, n)


def advance(config: Config, network: Network) -> tuple[list[Activity], float]:
    """Return what happened in all parts, and the median time of all but the first."""
    parts, times = [], []
    for _ in range(config.parts):
        start = time.perf_counter()
        parts.append(run(network, config.part))
        times.append(time.perf_counter() - start)
        network = network._replace(state=parts[-1].state)
    return parts, float(np.median(times[1:]))


def time_gradient(config: Config, network: Network) -> float:
    def rate(weight):
        params = replace(network.params, weight=weight)
        spikes = jl.simulate(network.cell, params, jnp.zeros(config.gradient_steps), network.state)[1].spikes
        return jnp.mean(spikes["E"])

    every = {name: jnp.full(len(network.edges[name][0]), w) for name, w in network.params.weight.items()}
    return timed(jax.jit(jax.grad(rate)), every)[1]


def timed(function: Callable[[Any], Any], argument: Any) -> tuple[float, float]:
    """Return the seconds of the first call, which compiles, and the median of five more."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(function(argument))
        times.append(time.perf_counter() - start)
    return times[0], float(np.median(times[1:]))


def train_step(config: Config) -> list[dict[str, Any]]:
    """Return what the gradient of a loss costs with respect to every weight of a network of adaptive neurons."""
    network = make_adaptive(config)

    def loss(weight):
        params = replace(network.params, weight=weight)
        spikes = jl.simulate(network.cell, params, jnp.zeros(config.train_steps), network.state)[1].spikes
        return sum((1e3 * spikes[name].mean() - rate) ** 2 for name, rate in (("E", 10.0), ("I", 20.0)))

    gradient, weight = jax.jit(jax.grad(loss)), network.params.weight
    first, seconds = timed(gradient, weight)
    temporary = gradient.lower(weight).compile().memory_analysis().temp_size_in_bytes
    forward = timed(jax.jit(loss), weight)[1]
    return [
        claim("adaptive neurons: synapses", sum(len(source) for source, _ in network.edges.values())),
        claim("adaptive neurons: a gradient step", seconds, "s", "<= 4.0"),
        claim("adaptive neurons: gradient over forward, time", seconds / forward, target="<= 4"),
        claim("adaptive neurons: compiling the gradient", first - seconds, "s", "<= 5"),
        claim("adaptive neurons: memory of the gradient", temporary / 1e6, "MB", "<= 2000"),
    ]


def make_adaptive(config: Config) -> Network:
    cell = jl.Synaptic(jl.AdaptiveLIF(dt=1.0), jl.ExponentialCurrent())
    neuron = jl.AdaptiveLIFParams(tau_m=20.0, t_ref=2.0, eta=(20.0,), tau_eta=(100.0,))
    params = jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=jnp.array([3.0, 5.0])))
    rule = FixedOutDegree(config.train_synapses)
    sizes = {"E": int(config.excitatory * config.train_neurons)}
    sizes["I"] = config.train_neurons - sizes["E"]
    projections = [
        Projection(
            source=name,
            target="*",
            rule=rule,
            weight=lambda rng, n, scale=scale: scale * rng.uniform(0.5, 1.5, n),
            delay=lambda rng, n: rng.integers(1, 11, n).astype(float),
            receptor=receptor,
        )
        for name, scale, receptor in (("E", 6.0, "exc"), ("I", -24.0, "inh"))
    ]
    return build(
        jax.random.key(config.seed),
        {n: Population(size=size, cell=cell, params=params, receptors=("exc", "inh")) for n, size in sizes.items()},
        projections,
        [noise_drive(name, mean=160.0, sd=100.0, tau=5.0) for name in sizes],
    )


def draw(config: Config, parts: list[Activity]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", width_ratios=[2, 1])
        shown = parts[-3:]
        first = parts[0].sizes["E"]
        for name, start in (("E", 0), ("I", first)):
            times = np.concatenate([a.times[name] for a in shown])
            neurons = np.concatenate([a.neurons[name] for a in shown]) + start
            some = neurons % 20 == 0
            left.plot(times[some], neurons[some], ".", markersize=2, color=plotting.PALETTE[0])
        left.axhline(first, color=plotting.GUIDE, linewidth=0.8)
        left.set(xlabel="time (ms)", ylabel="neuron, inhibitory above the line", title="Every twentieth neuron")
        counts = sum(np.bincount(a.neurons["E"], minlength=first) for a in parts)
        right.hist(1e3 * counts / (config.part * len(parts)), bins=30, color=plotting.PALETTE[0])
        right.set(xlabel="rate (Hz)", ylabel="excitatory neurons", title="Rates")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
