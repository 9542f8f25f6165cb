"""What do eight seeds in one call cost, and which learning rate suits inputs that are scaled by 1 - exp(-dt/tau)?

Question: (a) ``train_many`` trains eight seeds of a small network in how many times the time of one? Target: below 3 on
two cores. (b) A neuron takes the part 1 - exp(-dt/tau) of its input in a step, 0.049 at 20 ms and 1 ms, so that weights
are 1/0.049 = 20.5 times those of a neuron that takes all of it, as snnTorch's does. Adam moves every weight by its
rate, whatever the weight: is the rate that suits also as many times larger?

Method: (a) 5 inputs -> 30 LIF neurons -> 3 leaky readouts, 30 steps, batches of 4 or 16, noise for data. One and eight
seeds run in turn in every round; an epoch is the difference between a long and a short run, divided by the epochs
between them, and the ratio is the median of the rounds' ratios, which are printed, as times on the clock and of the
processor. Eight seeds are two programs of four, each in a thread. That the first of the eight ends as its training
alone is asserted. (b)
scikit-learn's digits, rate-coded over 30 steps, 64 -> 100 LIF -> 10 leaky readouts, batches of 32, ten epochs of Adam;
accuracy on a held-out fifth of the training set after the last epoch, all rates and seeds in one call. The test set is
not read.

Command: taskset -c 0,1 python experiments/many_seeds.py (about three minutes; --quick: a smoke run that writes nothing)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import claim, over_seeds, table, write_claims
from command_line import run_script
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    Sequential,
    accuracy,
    cross_entropy,
    hold_out,
    init_dense,
    init_neurons,
    train,
    train_many,
)
from jaxlif.networks.encoders import rate_code


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    many: int = 8
    rounds: int = 7
    epochs: tuple[int, int] = (10, 110)  # of a short and a long run
    num_steps: int = 30
    small: tuple[int, int, int] = (5, 30, 3)
    small_batches: tuple[int, ...] = (4, 16)
    small_steps: int = 32  # in an epoch
    rates: tuple[float, ...] = (5e-4, 2e-3, 1e-2, 4e-2, 1.6e-1)
    seeds: int = 5
    digits: tuple[int, int, int] = (64, 100, 10)
    digits_batch: int = 32
    digits_epochs: int = 10


QUICK = Config(
    many=2, rounds=1, epochs=(1, 2), small_batches=(4,), small_steps=4, rates=(1e-2,), seeds=2, digits_epochs=1
)
BOUNDS = {"*.weight": jl.REAL, "*.bias": jl.REAL}
NETWORK = Sequential((Dense(), jl.LIF(dt=1.0), Dense(), jl.LeakyIntegrator(dt=1.0)))


def main(config: Config, write: bool) -> None:
    claims = []
    for batch in config.small_batches:
        one, ratio, work = times(config, batch)
        claims += [
            claim(f"batches of {batch}: an epoch of one seed", 1e3 * one, "ms"),
            claim(f"batches of {batch}: {config.many} seeds over one", ratio, "", "< 3"),
            claim(f"batches of {batch}: the same, processor time", work),
        ]
    for rate, values in zip(config.rates, accuracies(config), strict=True):
        claims.append(over_seeds(f"digits, validation after {config.digits_epochs} epochs, rate {rate:g}", values, "%"))
    print(table(claims))
    if write:
        write_claims("many_seeds", claims)


def times(config: Config, batch: int) -> tuple[float, float, float]:
    """Return the seconds of an epoch of one seed, and the times of it that many take, on the clock and of the
    processor, medians over the rounds.
    """
    sizes, samples = config.small, batch * config.small_steps
    keys = jax.random.split(jax.random.key(0), config.many)
    starts = jax.vmap(partial(start, sizes))(keys)
    noise = jax.random.bernoulli(jax.random.key(1), 0.1, (samples, config.num_steps, sizes[0])).astype(float)
    data = {"spikes": noise, "label": jnp.arange(samples) % sizes[2]}
    options = {"optimizer": optax.adam(1e-2), "batch_size": batch}

    def one(epochs: int) -> Any:
        first = jax.tree.map(lambda x: x[0], starts)
        return train(loss, first, BOUNDS, data, key=keys[0], epochs=epochs, **options).params

    def many(epochs: int) -> Any:
        results = train_many(loss, starts, BOUNDS, data, keys=keys, epochs=epochs, **options)
        return results[0].params

    # The same numbers, but for the order of sums in single precision.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), one(1), many(1))
    short, long = config.epochs
    rounds = np.array([[seconds(f, long) - seconds(f, short) for f in (one, many)] for _ in range(config.rounds)])
    ratios = rounds[:, 1] / rounds[:, 0]  # [rounds, clocks]
    print(np.round(ratios, 2).tolist())
    return float(np.median(rounds[:, 0, 0])) / (long - short), *np.median(ratios, axis=0).tolist()


def accuracies(config: Config) -> np.ndarray:
    """Return the accuracy, %, on held-out digits after training with each rate and seed, [rates, seeds]."""
    images, labels = load_digits(return_X_y=True)
    images, _, labels, _ = train_test_split(images / 16.0, labels, test_size=0.2, stratify=labels, random_state=0)
    data, held = hold_out({"image": images, "label": labels}, 0.2, jax.random.key(2))
    rates = jnp.repeat(jnp.array(config.rates), config.seeds)
    keys = jnp.tile(jax.random.split(jax.random.key(3), config.seeds), len(config.rates))
    results = train_many(
        partial(of_images, config.num_steps), jax.vmap(partial(start, config.digits))(keys), BOUNDS, data,
        optimizer=optax.adam, hyper=rates, keys=keys, epochs=config.digits_epochs, batch_size=config.digits_batch,
        validation=held, metric="accuracy",
    )  # fmt: skip
    scores = [100.0 * result.history["validation_metric"][-1] for result in results]
    return np.array(scores).reshape(len(config.rates), config.seeds)


def start(sizes: tuple[int, int, int], key: jax.Array) -> Any:
    """Draw a network whose neurons fire from the first step."""
    keys = jax.random.split(key)
    hidden = init_dense(keys[0], sizes[0], sizes[1], gain=12.0), init_neurons(sizes[1], tau_m=20.0)
    return (*hidden, init_dense(keys[1], sizes[1], sizes[2], gain=6.0), jl.LeakyParams(tau_m=jnp.asarray(20.0)))


def loss(params: Any, batch: Any, key: jax.Array) -> Any:
    v = jax.vmap(lambda x: jl.simulate(NETWORK, params, x)[1].output.v.mean(axis=0))(batch["spikes"])
    return cross_entropy(v, batch["label"]), {"accuracy": accuracy(v, batch["label"])}


def of_images(num_steps: int, params: Any, batch: Any, key: jax.Array) -> Any:
    keys = jax.random.split(key, len(batch["label"]))
    spikes = jax.vmap(lambda key, image: rate_code(key, image, num_steps))(keys, batch["image"])
    return loss(params, {"spikes": spikes, "label": batch["label"]}, key)


def seconds(function: Callable[[int], Any], epochs: int) -> np.ndarray:
    """Return what a training takes on the clock and of the processor."""
    began = np.array([time.perf_counter(), time.process_time()])
    jax.block_until_ready(function(epochs))
    return np.array([time.perf_counter(), time.process_time()]) - began


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
