"""Can delays be learned from labels alone, and do they pay?

Question: spikes of twelve channels follow an event with a lag of each channel's own, which nobody tells. Does training
on "event or no event" recover the lags, and does a network with delays tell better than one without? Targets: every
lag within 1 ms, and a higher accuracy on every seed.

Method: in half of the trials an event at a random time makes channel i spike L_i ms later, L_i between 0 and 25 ms and
not whole steps, with a jitter of 0.5 ms. In the other half three or more of the channels, chosen anew in each trial,
take one another's times, so that no rate and no summed input tells the two apart. Poisson spikes lie under both.
Network: 12 inputs -> delays -> one leaky membrane, a coincidence detector -> 2 readouts, whose maximum over time is the
logit. Delays (between 0 and 40 ms), weights (positive) and the readouts are free. The delays are spread over lags by a
Gaussian, whose width narrows from 12 steps to half a step during training, and are interpolated linearly afterwards.
An update moves a delay by a fraction of the spread, so that the moves shrink with what the gradient can see. The same
network without delays trains on the same trials for as many steps. Only differences of delays are defined by the task,
since the event's time is unknown: the error of a lag is taken after removing the mean of delay + lag. Both networks are
read once, on new trials. Seeds draw the lags and the trials; none is left out and none starts twice.

The numbers of ``Config``, and the membrane, were chosen by hand on seed 9. Seeds 0 to 8 and 20 to 26 then showed what
goes wrong. Readouts that start at random stay at guessing. Delays that start at random end at a bound, so they start
together in the middle. With a learning rate that did not know of the spread, seed 8 lost a lag that it had already
found, after two thirds of the training: the spread was one step, an update moved a delay by a third of one, and a delay
that has left the coincidence by more than the spread does not come back (12 ms off). With a rate that follows the
spread but starts at three times the present one, seeds 21 and 23 drove a delay into its bound within a hundred updates,
where the logit has no gradient (1.0 and 0.8 ms off). The seeds reported are new ones. With spiking neurons in place of
the membrane the accuracy was as high on seed 9, but lags were off by 2 to 20 ms: several partial coincidences, each
with its own spike, serve the label as well as one.

Command: python experiments/delays.py (about three minutes on two cores; --quick: a smoke run that writes nothing)
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from claims import claim, over_seeds, publish
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import Dense, DenseParams, Sequential, accuracy, cross_entropy
from jaxlif.networks.delays import Delayed, DelayParams


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (30, 31, 32, 33, 34)
    num_channels: int = 12
    num_steps: int = 90
    dt: float = 1.0  # ms
    max_lag: float = 25.0  # ms
    jitter: float = 0.5  # ms, standard deviation of each spike's time
    exchanged: int = 3  # channels at least that take one another's times where there is no event
    background: float = 5.0  # Hz and channel
    tau_m: float = 2.0  # ms
    weight: float = 1.0  # of each channel at first
    max_delay: float = 40.0  # ms
    spread: tuple[float, float] = (12.0, 0.5)  # steps, first and last
    narrowing: float = 0.75  # of the training; then the spread stays
    trials: int = 128  # a batch, drawn anew for each update
    updates: int = 1200
    learning_rate: float = 3e-2
    move: float = 0.03  # of a delay at an update, in units of the spread
    test_trials: int = 2000


QUICK = Config(seeds=(9,), updates=40, trials=32, test_trials=200)


class Batch(NamedTuple):
    """A key for the trials, and the spread of the delays, steps."""

    key: jax.Array
    spread: jax.Array


class Result(NamedTuple):
    """What one seed gave."""

    lags: np.ndarray  # [N] ms
    delayed: jl.Fit
    plain: jl.Fit
    errors: np.ndarray  # [N] ms
    start_errors: np.ndarray  # [N] ms
    accuracies: tuple[float, float]  # with delays, without
    seconds: float


def main(config: Config, write: bool) -> None:
    results = [run(config, seed) for seed in config.seeds]
    publish("delays", claims_of(config, results), lambda: draw(config, results), write=write)


def run(config: Config, seed: int) -> Result:
    keys = jax.random.split(jax.random.key(seed), 3)
    lags = jax.random.uniform(keys[0], (config.num_channels,), maxval=config.max_lag)
    start = time.perf_counter()
    delayed = train(config, lags, keys[1], with_delays=True)
    seconds = time.perf_counter() - start
    plain = train(config, lags, keys[1], with_delays=False)
    scores = [evaluate(config, fit.params, lags, keys[2]) for fit in (delayed, plain)]
    first = init_params(config, True)
    errors = [lag_errors(params[0].delay, lags) for params in (delayed.params, first)]
    return Result(np.asarray(lags), delayed, plain, *errors, tuple(scores), seconds)


def make_network(config: Config, with_delays: bool) -> Sequential:
    rest = (Dense(), jl.LeakyIntegrator(dt=config.dt), Dense())
    return Sequential((Delayed(config.dt, config.max_delay), *rest) if with_delays else rest)


def init_params(config: Config, with_delays: bool) -> tuple:
    rest = (
        DenseParams(weight=jnp.full((config.num_channels, 1), config.weight)),
        jl.LeakyParams(tau_m=config.tau_m),
        # Opposite signs: with random ones, "event" may start as the class of small voltages and stay there.
        DenseParams(weight=jnp.array([[-1.0, 1.0]]), bias=jnp.zeros(2)),
    )
    return (DelayParams(delay=jnp.full(config.num_channels, 0.5 * config.max_delay)), *rest) if with_delays else rest


def draw_trials(config: Config, lags: jax.Array, key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """Return spikes [B, T, N] and labels [B], 1 for an event."""
    keys = jax.random.split(key, 5)
    shape, last = (num, config.num_channels), config.num_steps * config.dt
    labels = jax.random.bernoulli(keys[0], 0.5, (num,)).astype(jnp.int32)

    # Early enough for the longest lag and delay to end within the trial.
    event = jax.random.uniform(keys[1], (num, 1), maxval=last - config.max_lag - config.max_delay)
    right = event + lags[None] + config.jitter * jax.random.normal(keys[2], shape)
    times = jnp.where(
        labels[:, None] == 1, right, jax.vmap(partial(exchange, config))(jax.random.split(keys[3], num), right)
    )
    spikes = jax.nn.one_hot(jnp.round(times / config.dt).astype(jnp.int32), config.num_steps, axis=1)
    noise = jax.random.bernoulli(keys[4], config.background * config.dt / 1000.0, spikes.shape)
    return jnp.maximum(spikes, noise.astype(spikes.dtype)), labels


def exchange(config: Config, key: jax.Array, times: jax.Array) -> jax.Array:
    """Let some channels, their number and choice drawn anew in each trial, take one another's spike times [N]."""
    first, second = jax.random.split(key)
    order = jax.random.permutation(first, config.num_channels)
    number = jax.random.randint(second, (), config.exchanged, config.num_channels + 1)
    place = jnp.arange(config.num_channels)
    return times.at[order].set(times[order[jnp.where(place < number, (place + 1) % number, place)]])


def classify(config: Config, params: tuple, spikes: jax.Array) -> jax.Array:
    """Return the logits [B, 2]."""
    network = make_network(config, isinstance(params[0], DelayParams))
    return jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.max(axis=0))(spikes)


def train(config: Config, lags: jax.Array, trials: jax.Array, with_delays: bool) -> jl.Fit:
    def loss(params, batch):
        spikes, labels = draw_trials(config, lags, batch.key, config.trials)
        if with_delays:
            params = (replace(params[0], sigma=batch.spread), *params[1:])
        return cross_entropy(classify(config, params, spikes), labels)

    bounds = {"*.bias": jl.REAL, "*.weight": jl.REAL, f"{int(with_delays)}.weight": (0.0, np.inf)}
    return jl.fit(
        loss,
        init_params(config, with_delays),
        bounds | ({"*.delay": (0.0, config.max_delay)} if with_delays else {}),
        optimizer=optimizer(config),
        num_steps=config.updates,
        batches=Batch(jax.random.split(trials, config.updates), spreads(config)),
    )


def optimizer(config: Config) -> optax.GradientTransformation:
    def kind(free):
        return {name: "delay" if name.endswith("delay") else "weight" for name in free}

    weight = optax.cosine_decay_schedule(config.learning_rate, config.updates, alpha=0.02)
    return optax.multi_transform({"weight": optax.adam(weight), "delay": optax.adam(partial(delay_rate, config))}, kind)


def delay_rate(config: Config, update: jax.Array) -> jax.Array:
    """Return the learning rate in the logit of delay/max_delay, which in the middle counts a quarter of max_delay."""
    spread = spreads(config)[jnp.minimum(update, config.updates - 1)] * config.dt
    return config.move * spread / (0.25 * config.max_delay)


def spreads(config: Config) -> jax.Array:
    """Return the spread at each update: a geometric fall, then constant."""
    done = jnp.minimum(jnp.arange(config.updates) / (config.narrowing * config.updates), 1.0)
    first, final = config.spread
    return first * (final / first) ** done


def evaluate(config: Config, params: tuple, lags: jax.Array, key: jax.Array) -> float:
    """Return the accuracy on new trials, %, with the delays interpolated."""
    spikes, labels = draw_trials(config, lags, key, config.test_trials)
    return 100.0 * float(accuracy(classify(config, params, spikes), labels))


def lag_errors(delay: jax.Array, lags: jax.Array) -> np.ndarray:
    arrival = np.asarray(delay + lags)
    return arrival - arrival.mean()


def claims_of(config: Config, results: list[Result]) -> list[dict]:
    with_delays, without = np.array([r.accuracies for r in results]).T
    worst = [np.abs(r.errors).max() for r in results]
    return [
        claim("largest error of a lag, over all seeds", max(worst), "ms", "<= 1", seeds=len(results)),
        over_seeds("error of a lag, RMS", [np.sqrt(np.mean(r.errors**2)) for r in results], "ms"),
        over_seeds("error before training, RMS", [np.sqrt(np.mean(r.start_errors**2)) for r in results], "ms"),
        over_seeds("accuracy with delays", with_delays, "%"),
        over_seeds("accuracy without delays", without, "%"),
        claim("smallest gain by delays, over all seeds", (with_delays - without).min(), "%", "> 0", seeds=len(results)),
        over_seeds("training of one seed with delays", [r.seconds for r in results], "s"),
    ]


def draw(config: Config, results: list[Result]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(10.0, 7.0), layout="constrained")
        draw_losses(axes[0, 0], config, results)
        draw_lags(axes[0, 1], config, results)
        draw_event(axes[1], config, results[0])
    return figure


def draw_losses(ax, config: Config, results: list[Result]) -> None:
    smooth = partial(np.convolve, np.full(20, 0.05), mode="valid")
    for seed, color, r in zip(config.seeds, plotting.PALETTE, results, strict=False):
        ax.plot(smooth(r.delayed.losses), color=color, label=f"seed {seed}")
        ax.plot(smooth(r.plain.losses), color=color, linestyle="--")
    ax.plot([], [], color=plotting.GUIDE, linestyle="--", label="without delays")
    ax.axhline(np.log(2.0), color=plotting.GUIDE, linestyle=":", label="guessing, ln 2")
    ax.set(yscale="log", xlabel="update", ylabel="cross-entropy (nats)", title="Training loss, mean of 20 updates")
    ax.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 0.12))


def draw_lags(ax, config: Config, results: list[Result]) -> None:
    for seed, color, r in zip(config.seeds, plotting.PALETTE, results, strict=False):
        ax.plot(r.lags, r.lags - r.start_errors, "o", mfc="none", color=color, alpha=0.35, markersize=4)
        ax.plot(r.lags, r.lags - r.errors, "o", color=color, markersize=4, label=f"seed {seed}")
    ax.axline((0.0, 0.0), slope=1.0, color=plotting.GUIDE, linewidth=0.8, zorder=0)
    ax.plot([], [], "o", mfc="none", color=plotting.GUIDE, markersize=4, label="before training")
    ax.set(xlabel="lag of the channel (ms)", ylabel="mean arrival - learned delay (ms)", title="Lags recovered")
    ax.legend(fontsize="small")


def draw_event(axes, config: Config, result: Result) -> None:
    """Draw one event as it comes, and as the delays line it up."""
    spikes, labels = draw_trials(config, jnp.asarray(result.lags), jax.random.key(1), 32)
    trial = spikes[int(np.flatnonzero(labels == 1)[0])]
    _, lined_up = jl.simulate(Delayed(config.dt, config.max_delay), result.delayed.params[0], trial)
    t = config.dt * np.arange(1, config.num_steps + 1)
    for ax, x, title in zip(axes, (trial, lined_up), ("An event as it comes", "... and after the delays"), strict=True):
        order = np.argsort(result.lags)
        image = ax.pcolormesh(
            t, np.arange(config.num_channels), np.asarray(x)[:, order].T, cmap="gray_r", vmin=0, vmax=1
        )
        ax.set(xlabel="time (ms)", ylabel="channel, by lag", title=f"{title} (seed {config.seeds[0]})")
    axes[1].figure.colorbar(image, ax=axes[1], label="part of a spike")


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
