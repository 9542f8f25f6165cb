"""Can a network's weights be read off the spike trains of its neurons?

Question: all neurons of a recurrent network are recorded, and the current into each is known. Does fitting a network
to the recorded trains give back the weights between the neurons, does it predict trains that it was not fitted to, and
do its 95 % intervals hold the truth 95 times in 100? Here the recording is made by a network, the teacher, so that the
true weights are known.

Method: 20 LIF neurons with escape noise, random weights, exponential synapses and a delay of 2 ms, each driven by a
fluctuating current of its own. ``jl.fit_connectivity`` fits all weights from 0, and the resting voltage of each neuron
from 1 mV off, to the first three quarters of the time. Reported: the correlation and slope of fitted against true
weights; held-out bits per spike over a Poisson train for the fitted network and for one without connections fitted
alike; the rates of the fitted network when it runs freely with new noise; the share of intervals that hold the truth.
On some seeds the synapses' time constant and the delay are unknown too. Seeds draw weights, currents and noise. No
number was tuned on held-out time.

Command: python experiments/target_trains.py (some five minutes on two cores; --quick: a smoke run that writes nothing)
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import over_seeds, publish
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import Edges, Network, Population, Projection, build


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = tuple(range(20))
    unknown: int = 3  # of the seeds, with an unknown time constant and delay
    num_neurons: int = 20
    seconds: float = 30.0
    held_out: float = 0.25  # of the time, at its end
    dt: float = 1.0  # ms
    mean: float = 120.0  # pA, of the current into each neuron; the rheobase is 150
    sd: float = 60.0  # pA
    tau: float = 20.0  # ms
    weight: float = 100.0  # pA, standard deviation: 2.5 mV in the neuron's voltage
    share: float = 0.5  # of the pairs that are connected
    tau_syn: float = 5.0  # ms
    delay: float = 2.0  # ms
    t_ref: float = 2.0  # ms
    delta_v: float = 2.0  # mV
    lambda_0: float = 0.2  # 1/ms


QUICK = Config(seeds=(0,), unknown=1, num_neurons=6, seconds=4.0)


class Result(NamedTuple):
    """What one seed gave."""

    true: np.ndarray  # [N, N] pA, from row to column
    found: jl.Connectivity
    unknown: jl.Connectivity | None  # with the time constant and the delay fitted too
    rates: np.ndarray  # [2, N] Hz: recorded, and of the fitted network running freely
    seconds: float


def main(config: Config, write: bool) -> None:
    results = [run(config, seed, unknown=i < config.unknown) for i, seed in enumerate(config.seeds)]
    publish("target_trains", claims_of(config, results), lambda: draw(results), write=write)


def run(config: Config, seed: int, *, unknown: bool) -> Result:
    keys = jax.random.split(jax.random.key(seed), 4)
    true, current = draw_weights(config, keys[0]), draw_current(config, keys[1])
    teacher = make_network(config, keys[2], neuron_params(config, -70.0), true)
    spikes = free_run(teacher, current)
    options = {"current": current, "held_out": config.held_out}
    cell, start_params = synaptic(config), neuron_params(config, -71.0)
    start = time.perf_counter()
    found = jl.fit_connectivity(spikes, cell, start_params, delay=config.delay, **options)
    seconds = time.perf_counter() - start
    delays, bounds = config.delay + config.dt * np.arange(-1, 2), (0.3 * config.tau_syn, 3.0 * config.tau_syn)
    more = jl.fit_connectivity(spikes, cell, start_params, delay=delays, tau_syn=bounds, **options) if unknown else None
    again = free_run(make_network(config, keys[3], found.params, found.weight), current)
    cut = int((1.0 - config.held_out) * len(current))
    rates = 1000.0 / config.dt * np.stack([np.mean(x[cut:], axis=0) for x in (spikes, again)])
    return Result(true, found, more, rates, seconds)


def synaptic(config: Config) -> jl.Synaptic:
    return jl.Synaptic(jl.AdaptiveLIF(dt=config.dt), jl.ExponentialCurrent())


def neuron_params(config: Config, v_rest: float) -> jl.SynapticParams:
    neuron = jl.AdaptiveLIFParams(v_rest=v_rest, t_ref=config.t_ref, delta_v=config.delta_v, lambda_0=config.lambda_0)
    return jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=config.tau_syn))


def draw_weights(config: Config, key: jax.Array) -> np.ndarray:
    first, second = jax.random.split(key)
    shape = (config.num_neurons, config.num_neurons)
    connected = jax.random.bernoulli(first, config.share, shape) & ~jnp.eye(config.num_neurons, dtype=bool)
    return np.asarray(config.weight * jax.random.normal(second, shape) * connected)


def draw_current(config: Config, key: jax.Array) -> jax.Array:
    def one(key):
        return jl.stimulus.ornstein_uhlenbeck(
            key, mean=config.mean, sd=config.sd, tau=config.tau, duration=1000.0 * config.seconds, dt=config.dt
        )

    return jax.vmap(one, out_axes=1)(jax.random.split(key, config.num_neurons))


def make_network(config: Config, key: jax.Array, params: jl.SynapticParams, weight: np.ndarray) -> Network:
    """Return a network with escape noise of the key, and all pairs connected, so that one program runs them all."""
    source, target = np.nonzero(~np.eye(config.num_neurons, dtype=bool))
    population = Population(
        size=config.num_neurons, cell=jl.EscapeNoise(synaptic(config)), params=params, receptors=("any",)
    )
    path = Projection(
        source="n", target="n", rule=Edges(source, target), weight=weight[source, target], delay=config.delay
    )
    return build(key, {"n": population}, [path])


def free_run(network: Network, current: jax.Array) -> np.ndarray:
    """Return the spikes [T, N] of the network that runs by itself."""
    return np.asarray(jl.simulate(network.cell, network.params, {"n": current}, network.state)[1].spikes["n"])


def claims_of(config: Config, results: list[Result]) -> list[dict]:
    pairs = [(others(r.true), others(r.found.weight)) for r in results]
    more = [r.unknown for r in results if r.unknown is not None]
    return [
        over_seeds("correlation of fitted and true weights", [np.corrcoef(a, b)[0, 1] for a, b in pairs]),
        over_seeds("slope of fitted against true weights", [a @ b / (a @ a) for a, b in pairs]),
        over_seeds("error of a weight, RMS, of the true ones' RMS", [rms(b - a) / rms(a) for a, b in pairs]),
        over_seeds("95 % intervals of weights that hold the truth", [covered(r.found, r.true) for r in results], "%"),
        over_seeds(
            "95 % intervals of resting voltages that hold the truth",
            [100.0 * np.mean(np.abs(np.diff(r.found.intervals["v_rest"] > -70.0, axis=0))) for r in results],
            "%",
        ),
        over_seeds("weights that are not determined", [100.0 - shown(r.found) for r in results], "%"),
        over_seeds("held out: fitted network", [r.found.bits for r in results], "bits/spike"),
        over_seeds("held out: no connections", [r.found.bits_unconnected for r in results], "bits/spike"),
        over_seeds("running freely: error of a rate, RMS", [rms(np.subtract(*r.rates)) for r in results], "Hz"),
        over_seeds("mean recorded rate", [r.rates[0].mean() for r in results], "Hz"),
        over_seeds("fit of one seed", [r.seconds for r in results], "s"),
        over_seeds("unknown time constant and delay: delays found", [m.delay for m in more], "ms"),
        over_seeds(
            "the same: error of tau_syn", [100.0 * abs(tau_of(m) / config.tau_syn - 1.0) for m in more], "%"
        ),
        over_seeds("the same: half of its interval", [half_of_tau(m) for m in more], "%"),
        over_seeds(
            "the same: 95 % intervals of weights that hold the truth",
            [covered(r.unknown, r.true) for r in results if r.unknown is not None],
            "%",
        ),
    ]  # fmt: skip


def tau_of(found: jl.Connectivity) -> float:
    return float(found.params.synapse.tau_syn)


def half_of_tau(found: jl.Connectivity) -> float:
    """Return half the interval of the time constant over it, %."""
    return 50.0 * float(np.ptp(found.intervals["tau_syn"])) / tau_of(found)


def covered(found: jl.Connectivity, true: np.ndarray) -> float:
    """Return the share of the intervals, where there is one, that hold the truth, %."""
    low, high = found.interval
    return 100.0 * float(np.mean(((low <= true) & (true <= high))[found.determined]))


def shown(found: jl.Connectivity) -> float:
    return 100.0 * float(np.mean(others(found.determined)))


def others(weight: np.ndarray) -> np.ndarray:
    """Return the weights between different neurons, those of 0 too; a spike's own effect is the reset."""
    return weight[~np.eye(len(weight), dtype=bool)]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def draw(results: list[Result]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), layout="constrained")
        first = results[0]
        reach = 0.5 * np.diff(first.found.interval, axis=0)[0]
        true, found, reach = (others(x) for x in (first.true, first.found.weight, reach))
        left.errorbar(true, found, reach, fmt=".", markersize=3, linewidth=0.6, color=plotting.PALETTE[0])
        for color, r in zip(plotting.PALETTE, results, strict=False):
            right.plot(*r.rates, "o", color=color, markersize=4)
        for ax in (left, right):
            ax.axline((0.0, 0.0), slope=1.0, color=plotting.GUIDE, linewidth=0.8, zorder=0)
        left.set(xlabel="true weight (pA)", ylabel="fitted weight, 95 % interval (pA)", title="One seed")
        right.set(xlabel="recorded rate (Hz)", ylabel="fitted network, running freely (Hz)", title="Held-out time")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
