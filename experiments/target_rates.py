"""Can a recurrent network be trained to given firing rates, one for each neuron?

Question: each neuron of a recurrent spiking network gets a target rate, drawn from a broad distribution as recordings
show it. Does training on spike counts reach all of them, and do they hold for noise that it was not trained on?

Method: 60 recurrent LIF neurons, normalised, each driven by a fluctuating current of its own, the mean of which is a
free bias; the recurrent weights are free too. The target rates are log-normal, median 8 Hz, and cut to 1 to 60 Hz. An
update simulates eight new seconds of noise (after 200 ms that do not count), reads the rates off the spikes, and steps
down the surrogate gradient of the mean squared error of the square roots of the rates, which weighs a neuron of 2 Hz
like one of 40. Seeds draw targets, weights and noise. Rates are then measured over 40 s of new noise; what a neuron of
irregular spikes at exactly its target would show there, sqrt(rate/40 s), is reported beside it. The numbers of
``Config`` were set by hand on seed 9.

Command: python experiments/target_rates.py (about two minutes on two cores; --quick: a smoke run that writes nothing)
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
import optax
from claims import over_seeds, publish
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.losses import spike_count_rate
from jaxlif.networks import Recurrent, RecurrentParams, init_recurrent


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1, 2)
    num_neurons: int = 60
    dt: float = 1.0  # ms
    median: float = 8.0  # Hz, of the target rates
    spread: float = 0.9  # standard deviation of their logarithm
    limits: tuple[float, float] = (1.0, 60.0)  # Hz
    bias: float = 0.7  # of each neuron before training, in units of the rheobase
    noise: float = 0.8  # standard deviation of the current, in units of the rheobase
    tau_noise: float = 5.0  # ms
    gain: float = 1.5  # of the recurrent weights
    t_ref: float = 2.0  # ms
    settle: int = 200  # steps that do not count
    steps: int = 1000  # that do
    trials: int = 8  # an update
    updates: int = 250
    learning_rate: float = 3e-2  # falls to 0 along a cosine
    test_trials: int = 40


QUICK = Config(seeds=(9,), num_neurons=10, updates=5, trials=2, test_trials=2)


class Params(NamedTuple):
    """The network, and the mean current [N] of each neuron."""

    network: RecurrentParams
    bias: jax.Array


class Result(NamedTuple):
    """What one seed gave."""

    target: np.ndarray  # [N] Hz
    before: np.ndarray  # [N] Hz
    after: np.ndarray  # [N] Hz, on new noise
    losses: np.ndarray
    seconds: float


def main(config: Config, write: bool) -> None:
    results = [run(config, seed) for seed in config.seeds]
    publish("target_rates", claims_of(config, results), lambda: draw(config, results), write=write)


def run(config: Config, seed: int) -> Result:
    keys = jax.random.split(jax.random.key(seed), 4)
    target = draw_targets(config, keys[0])
    start_params = init_params(config, keys[1])
    start = time.perf_counter()
    fit = train(config, start_params, target, keys[2])
    seconds = time.perf_counter() - start
    test = jax.random.split(keys[3], config.test_trials)
    before, after = (rates(config, params, test) for params in (start_params, fit.params))
    return Result(*(np.asarray(x) for x in (target, before, after)), fit.losses, seconds)


def draw_targets(config: Config, key: jax.Array) -> jax.Array:
    logarithm = jnp.log(config.median) + config.spread * jax.random.normal(key, (config.num_neurons,))
    return jnp.clip(jnp.exp(logarithm), *config.limits)


def init_params(config: Config, key: jax.Array) -> Params:
    network = init_recurrent(key, config.num_neurons, gain=config.gain, t_ref=config.t_ref)
    return Params(network, jnp.full(config.num_neurons, config.bias))


def rates(config: Config, params: Params, keys: jax.Array) -> jax.Array:
    """Return the rates [N], Hz, over one trial of new noise for each key."""

    def trial(key):
        duration = config.dt * (config.settle + config.steps)
        noise = jax.vmap(
            lambda key: jl.stimulus.ornstein_uhlenbeck(
                key, mean=0.0, sd=config.noise, tau=config.tau_noise, duration=duration, dt=config.dt
            ),
            out_axes=1,
        )(jax.random.split(key, config.num_neurons))
        _, output = jl.simulate(Recurrent(jl.LIF(dt=config.dt)), params.network, params.bias[None] + noise)
        return spike_count_rate(output.spikes[config.settle :], config.dt)

    return jnp.mean(jax.vmap(trial)(keys), axis=0)


def train(config: Config, params: Params, target: jax.Array, key: jax.Array) -> jl.Fit:
    def loss(params, keys):
        # The root of a rate of 0 has no slope; half a spike in all trials is as good as none.
        least = 500.0 / (config.trials * config.steps * config.dt)
        return jnp.mean((jnp.sqrt(rates(config, params, keys) + least) - jnp.sqrt(target + least)) ** 2)

    return jl.fit(
        loss,
        params,
        {"network.weight": jl.REAL, "bias": jl.REAL},
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.updates)),
        num_steps=config.updates,
        batches=jax.random.split(key, (config.updates, config.trials)),
    )


def claims_of(config: Config, results: list[Result]) -> list[dict]:
    seconds = config.test_trials * config.steps * config.dt / 1000.0
    return [
        over_seeds("new noise: error of a rate, RMS", [rms(r.after - r.target) for r in results], "Hz"),
        over_seeds("new noise: error of a rate, median of |error|/target", [relative(r) for r in results], "%"),
        over_seeds("new noise: largest error of a rate", [np.abs(r.after - r.target).max() for r in results], "Hz"),
        over_seeds("error before training, RMS", [rms(r.before - r.target) for r in results], "Hz"),
        over_seeds("sampling error of Poisson trains, RMS", [rms(np.sqrt(r.target / seconds)) for r in results], "Hz"),
        over_seeds("correlation with the target", [np.corrcoef(r.after, r.target)[0, 1] for r in results]),
        over_seeds("training of one seed", [r.seconds for r in results], "s"),
    ]


def relative(r: Result) -> float:
    return 100.0 * float(np.median(np.abs(r.after - r.target) / r.target))


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def draw(config: Config, results: list[Result]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), layout="constrained")
        for seed, color, r in zip(config.seeds, plotting.PALETTE, results, strict=False):
            left.plot(r.losses, color=color, label=f"seed {seed}")
            right.plot(r.target, np.maximum(r.before, 0.1), "o", mfc="none", color=color, alpha=0.3, markersize=4)
            right.plot(r.target, r.after, "o", color=color, markersize=4)
        right.axline((1.0, 1.0), (10.0, 10.0), color=plotting.GUIDE, linewidth=0.8, zorder=0)
        right.plot([], [], "o", mfc="none", color=plotting.GUIDE, markersize=4, label="before training")
        right.set(xscale="log", yscale="log", xlabel="target rate (Hz)", ylabel="rate on new noise (Hz)")
        left.set(yscale="log", xlabel="update", ylabel="squared error of root rates (Hz)", title="Training loss")
        right.set_title("One target for each neuron")
        left.legend(fontsize="small")
        right.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
