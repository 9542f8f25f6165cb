"""Can a network's weights be read off the spike trains of its neurons?

Question: all neurons of a recurrent network are recorded, and the current into each is known. Does fitting a network
to the recorded trains give back the weights between the neurons, and does it predict trains that it was not fitted to?
Here the recording is made by a network, the teacher, so that the true weights are known.

Method: 20 LIF neurons with escape noise and random weights, each driven by a fluctuating current of its own. With the
recorded spikes forced (each neuron is reset at its own, and its input is what those of the others send) the negative
log-likelihood is convex in the weights. ``jl.fit`` minimises it from weights of 0 with L-BFGS, the resting voltage of
each neuron free as well and started 1 mV off. The last quarter of the time is held out. Reported: the correlation and
slope of fitted against true weights; held-out bits per spike over a Poisson train for the fitted network, the teacher
itself, and a network without connections fitted alike; the rates of the fitted network when it runs freely with new
noise. Seeds draw weights, currents and noise. No number was tuned on held-out time.

Command: python experiments/target_trains.py (about two minutes on two cores; --quick: a smoke run that writes nothing)
"""

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
from jaxlif.losses import bits_per_spike, point_process_log_likelihood
from jaxlif.networks import Dense, DenseParams, Feedback, FeedbackParams


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1, 2)
    num_neurons: int = 20
    seconds: float = 40.0
    held_out: float = 0.25  # of the time, at its end
    dt: float = 1.0  # ms
    mean: float = 120.0  # pA, of the current into each neuron; the rheobase is 150
    sd: float = 60.0  # pA
    tau: float = 20.0  # ms
    weight: float = 300.0  # pA for one step, standard deviation: 3 mV in the neuron's voltage
    share: float = 0.5  # of the pairs that are connected
    t_ref: float = 2.0  # ms
    delta_v: float = 2.0  # mV
    lambda_0: float = 0.2  # 1/ms
    num_steps: int = 60


QUICK = Config(seeds=(0,), num_neurons=6, seconds=4.0, num_steps=10)


class Recorded(NamedTuple):
    """The currents into the neurons, pA, and their spikes, both [T, N]."""

    current: jax.Array
    spikes: jax.Array


class Result(NamedTuple):
    """What one seed gave."""

    true: np.ndarray  # [N, N] pA, from row to column
    found: np.ndarray
    bits: dict[str, float]  # held out, by model
    rates: np.ndarray  # [2, N] Hz: recorded, and of the fitted network running freely
    seconds: float


def main(config: Config, write: bool) -> None:
    results = [run(config, seed) for seed in config.seeds]
    publish("target_trains", claims_of(results), lambda: draw(results), write=write)


def run(config: Config, seed: int) -> Result:
    keys = jax.random.split(jax.random.key(seed), 4)
    teacher = make_teacher(config, keys[0])
    current = draw_current(config, keys[1])
    data = Recorded(current, free_run(config, teacher, current, keys[2]))
    cut = int((1.0 - config.held_out) * len(current))
    start = time.perf_counter()
    fits = {name: fit(config, teacher, Recorded(*(x[:cut] for x in data)), name) for name in ("fitted", "unconnected")}
    seconds = time.perf_counter() - start
    bits = {name: held_out_bits(config, params, data, cut) for name, params in (fits | {"teacher": teacher}).items()}
    again = free_run(config, fits["fitted"], current, keys[3])
    rates = 1000.0 / config.dt * np.stack([np.mean(x[cut:], axis=0) for x in (data.spikes, again)])
    return Result(np.asarray(teacher.path.weight), np.asarray(fits["fitted"].path.weight), bits, rates, seconds)


def make_teacher(config: Config, key: jax.Array) -> FeedbackParams:
    first, second = jax.random.split(key)
    shape = (config.num_neurons, config.num_neurons)
    connected = jax.random.bernoulli(first, config.share, shape) & ~jnp.eye(config.num_neurons, dtype=bool)
    weight = config.weight * jax.random.normal(second, shape) * connected
    neuron = jl.AdaptiveLIFParams(
        t_ref=config.t_ref, delta_v=config.delta_v, lambda_0=config.lambda_0, v_rest=jnp.full(config.num_neurons, -70.0)
    )
    return FeedbackParams(neuron=neuron, path=DenseParams(weight=weight))


def draw_current(config: Config, key: jax.Array) -> jax.Array:
    def one(key):
        return jl.stimulus.ornstein_uhlenbeck(
            key, mean=config.mean, sd=config.sd, tau=config.tau, duration=1000.0 * config.seconds, dt=config.dt
        )

    return jax.vmap(one, out_axes=1)(jax.random.split(key, config.num_neurons))


def free_run(config: Config, params: FeedbackParams, current: jax.Array, key: jax.Array) -> jax.Array:
    """Return the spikes [T, N] of the network that runs by itself."""
    cell = Feedback(jl.EscapeNoise(jl.AdaptiveLIF(dt=config.dt)), Dense())
    return jl.simulate(cell, params, jl.escape_inputs(key, current))[1].spikes


def log_likelihood(config: Config, params: FeedbackParams, data: Recorded, since: int = 0) -> jax.Array:
    """Return the log-likelihood of all spikes from a step on, nats, with all spikes forced."""
    earlier = jnp.concatenate([jnp.zeros_like(data.spikes[:1]), data.spikes[:-1]])
    current = data.current + earlier @ params.path.weight
    forced = jl.TeacherForced(jl.AdaptiveLIF(dt=config.dt))
    v = jl.simulate(forced, params.neuron, jl.Forced(current, data.spikes))[1].v_before
    p = params.neuron
    log_rate = jnp.log(p.lambda_0) + (v - p.v_th) / p.delta_v
    active = can_spike(config, data.spikes)
    return point_process_log_likelihood(log_rate[since:], data.spikes[since:], dt=config.dt, active=active[since:])


def can_spike(config: Config, spikes: jax.Array) -> jax.Array:
    """Say where no recorded spike is less than the refractory period old."""
    steps = round(config.t_ref / config.dt)
    recent = jnp.cumsum(spikes, axis=0) - spikes
    return recent == jnp.concatenate([jnp.zeros_like(recent[:steps]), recent[:-steps]])


def fit(config: Config, teacher: FeedbackParams, train: Recorded, name: str) -> FeedbackParams:
    """Fit weights and resting voltages, or these alone, from no weights and voltages 1 mV off."""
    start = replace(
        teacher,
        path=DenseParams(weight=jnp.zeros_like(teacher.path.weight)),
        neuron=replace(teacher.neuron, v_rest=teacher.neuron.v_rest - 1.0),
    )
    weights: dict[str, Any] = {"path.weight": jl.REAL} if name == "fitted" else {}
    scale = config.weight  # a unit of the free coordinate

    def scaled(params):
        return replace(params, path=DenseParams(weight=scale * params.path.weight))

    def loss(params, data):
        return -log_likelihood(config, scaled(params), data) / jnp.sum(data.spikes)

    bounds = weights | {"neuron.v_rest": (-80.0, -60.0)}
    return scaled(jl.fit(loss, start, bounds, optimizer=jl.lbfgs(), num_steps=config.num_steps, data=train).params)


def held_out_bits(config: Config, params: FeedbackParams, data: Recorded, cut: int) -> float:
    """Return bits per spike over a Poisson train of the same rate, mean over neurons by their spikes."""
    spikes = np.asarray(data.spikes[cut:])
    total = float(log_likelihood(config, params, data, cut)) - spikes.sum() * np.log(config.dt)
    counts, duration = spikes.sum(axis=0), config.dt * len(spikes)
    # Each neuron has a Poisson rate of its own: bits_per_spike of each, weighed by its spikes.
    poisson = sum(float(bits_per_spike(0.0, n, duration)) * n for n in counts if n)
    return (total / np.log(2.0) + poisson) / counts.sum()


def claims_of(results: list[Result]) -> list[dict]:
    pairs = [(others(r.true), others(r.found)) for r in results]
    bits = {name: np.array([r.bits[name] for r in results]) for name in results[0].bits}
    gain = (bits["fitted"] - bits["unconnected"]) / (bits["teacher"] - bits["unconnected"])
    return [
        over_seeds("correlation of fitted and true weights", [np.corrcoef(a, b)[0, 1] for a, b in pairs]),
        over_seeds("slope of fitted against true weights", [a @ b / (a @ a) for a, b in pairs]),
        over_seeds("error of a weight, RMS, of the true ones' RMS", [rms(b - a) / rms(a) for a, b in pairs]),
        over_seeds("held out: fitted network", bits["fitted"], "bits/spike"),
        over_seeds("held out: the teacher itself", bits["teacher"], "bits/spike"),
        over_seeds("held out: no connections", bits["unconnected"], "bits/spike"),
        over_seeds("share of what the connections are worth", 100.0 * gain, "%"),
        over_seeds("running freely: error of a rate, RMS", [rms(np.subtract(*r.rates)) for r in results], "Hz"),
        over_seeds("mean recorded rate", [r.rates[0].mean() for r in results], "Hz"),
        over_seeds("both fits of one seed", [r.seconds for r in results], "s"),
    ]


def others(weight: np.ndarray) -> np.ndarray:
    """Return the weights between different neurons, those of 0 too; a spike's own effect is the reset."""
    return weight[~np.eye(len(weight), dtype=bool)]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def draw(results: list[Result]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), layout="constrained")
        for i, (color, r) in enumerate(zip(plotting.PALETTE, results, strict=False)):
            left.plot(others(r.true), others(r.found), ".", color=color, markersize=3, label=f"seed {i}")
            right.plot(*r.rates, "o", color=color, markersize=4)
        for ax in (left, right):
            ax.axline((0.0, 0.0), slope=1.0, color=plotting.GUIDE, linewidth=0.8, zorder=0)
        left.set(xlabel="true weight (pA)", ylabel="fitted weight (pA)", title="Weights from spike trains")
        left.legend(fontsize="small", markerscale=3)
        right.set(xlabel="recorded rate (Hz)", ylabel="fitted network, running freely (Hz)", title="Held-out time")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
