"""How well do small spiking networks read handwritten digits, by exact and by surrogate gradients?

Question: the accuracy on MNIST's 10 000 test images of four networks with some 100 hidden neurons, and the time of a
training. Targets: 97.5 % for each of the first two.

* latency, exact: a pixel spikes once, the brighter the earlier, within 10 ms; dark ones never. 784 inputs -> 128 LIF
  neurons with exponential synapses -> 10 that do not spike, ``PreciseDense``: spikes of hidden neurons keep their
  times, and gradients are exact.
* rate, surrogate: a pixel spikes in each of 25 steps with the probability of its brightness. 784 -> 100 LIF -> 10.
* rows and permuted rows, surrogate: the image row by row, 28 inputs in each of 28 steps, in one variant after a fixed
  shuffle of all pixels. 28 -> 128 recurrent adaptive LIF neurons -> 10.

Method: the logits are the readouts' voltages, meaned over time. Weights, biases and time constants are free. Adam along
a cosine, the exponential mean of the parameters, in training images shifted by a pixel at most (not for permuted rows).
5000 of the training images choose the epoch, and chose the learning rates and epochs; the test is read once for each
network, when all have trained. Seeds draw weights, batches and spikes, and train side by side, one on each core.

Command: python experiments/mnist.py (some 25 minutes on two cores; needs JAXLIF_DATA, see data.md; --quick: a smoke run
that writes nothing)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from claims import over_seeds, spiking_path, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import (
    Arriving,
    Dense,
    PreciseDense,
    Recurrent,
    Sequential,
    Training,
    accuracy,
    cross_entropy,
    hold_out,
    init_adaptive,
    init_dense,
    init_neurons,
    init_precise,
    init_recurrent,
    train_many,
)
from jaxlif.networks.encoders import latency_code, rate_code


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1)
    held_out: int = 5000
    batch: int = 100
    epochs: int | None = None  # those of each network, by default
    final: float = 0.01  # of the learning rate, at the end of the cosine
    average: float = 0.995  # of the parameters' exponential mean
    shift: int = 1  # pixels at most
    slope: float = 10.0  # of SuperSpike
    images: int | None = None  # of the training set, all by default
    variants: tuple[str, ...] = ("latency, exact", "rate, surrogate", "rows, surrogate", "permuted rows, surrogate")


QUICK = Config(seeds=(0,), held_out=100, epochs=1, images=400)


class Digits(NamedTuple):
    """Images [D, 28, 28], 0 to 255, and labels [D]."""

    images: jax.Array
    labels: jax.Array


class Variant(NamedTuple):
    """A network: its cell, its start from a key, its input [T, ...] from a key and an image, 0 to 1, and more."""

    network: Sequential
    init: Callable[[jax.Array], tuple]
    encode: Callable[[jax.Array, jax.Array], jax.Array]
    free: dict[str, tuple[float, float]]
    learning_rate: float
    epochs: int
    shifted: bool = True
    target: str | None = None


class Trained(NamedTuple):
    """A network's training, its seconds and its accuracy on the test."""

    training: Training
    seconds: float
    test: float = 0.0


BIAS = {"*.bias": jl.REAL}
FREE = {"*.weight": jl.REAL, "*.tau_m": (2.0, 200.0)}


def latency(config: Config) -> Variant:
    """784 -> 128 -> 10, exact: 1 ms a step, 15 steps, of which the pixels spike in the first ten."""
    neuron, readout = (
        jl.PreciseSynaptic(neuron, jl.ExponentialCurrent()) for neuron in (jl.PreciseLIF(1.0), jl.LeakyIntegrator(1.0))
    )

    def init(key):
        keys = jax.random.split(key)
        synapse = jl.CurrentParams(tau_syn=jnp.full((1, 128), 5.0))
        hidden = jl.SynapticParams(neuron=init_neurons(128, tau_m=10.0, t_ref=1.0), synapse=synapse)
        last = init_precise(keys[1], 128, 10, neuron=jl.LeakyParams(), gain=2.0, mean=0.0)
        # One course for all readouts, which weigh it: a tenth of the time.
        membranes = jl.SynapticParams(neuron=jl.LeakyParams(tau_m=20.0), synapse=jl.CurrentParams(tau_syn=5.0))
        return init_dense(keys[0], 784, 128, gain=5.0, bias=False), hidden, replace(last, neuron=membranes)

    def encode(key, image):
        spikes = latency_code(image.ravel(), 10) * (image.ravel() > 0.2)[None]
        return jnp.concatenate([spikes, jnp.zeros((5, 784))])

    network = Sequential((Dense(), Arriving(neuron), PreciseDense(readout)))
    return Variant(network, init, encode, FREE | {"*.tau_syn": (1.0, 50.0)}, 2e-2, 12, target=">= 97.5")


def rate(config: Config) -> Variant:
    """784 -> 100 -> 10 in 25 steps of the rate code."""

    def init(key):
        keys = jax.random.split(key)
        first, last = init_dense(keys[0], 784, 100, gain=8.0), init_dense(keys[1], 100, 10, gain=6.0)
        return first, init_neurons(100, tau_m=10.0), last, jl.LeakyParams(tau_m=20.0)

    layers = (Dense(), jl.LIF(dt=1.0, surrogate=jl.SuperSpike(config.slope)), Dense(), jl.LeakyIntegrator(dt=1.0))
    encode = partial(_rate_coded, 25)
    return Variant(Sequential(layers), init, encode, FREE | BIAS, 1e-2, 15, target=">= 97.5")


def _rate_coded(steps: int, key: jax.Array, image: jax.Array) -> jax.Array:
    return rate_code(key, image.ravel(), steps)


def rows(config: Config, permuted: bool = False) -> Variant:
    """28 -> 128 recurrent adaptive -> 10, a row of 28 pixels in each step."""
    order = np.random.default_rng(0).permutation(784) if permuted else np.arange(784)

    def init(key):
        keys = jax.random.split(key, 4)
        tau = {"tau_m": jnp.exp(jax.random.uniform(keys[3], (128,), minval=1.0, maxval=4.0))}
        hidden = init_recurrent(keys[1], 128, gain=1.0, neuron=init_adaptive(128, **tau))
        first, last = init_dense(keys[0], 28, 128, gain=16.0), init_dense(keys[2], 128, 10, gain=6.0)
        return first, hidden, last, jl.LeakyParams(tau_m=30.0)

    neuron = jl.AdaptiveLIF(dt=1.0, surrogate=jl.SuperSpike(config.slope))
    network = Sequential((Dense(), Recurrent(neuron), Dense(), jl.LeakyIntegrator(dt=1.0)))
    encode = lambda key, image: image.ravel()[order].reshape(28, 28)  # noqa: E731
    return Variant(network, init, encode, FREE | BIAS, 3e-2, 30, shifted=not permuted)


VARIANTS = {
    "latency, exact": latency,
    "rate, surrogate": rate,
    "rows, surrogate": rows,
    "permuted rows, surrogate": partial(rows, permuted=True),
}


def main(config: Config, write: bool) -> None:
    rest, test = load()
    rest = jax.tree.map(lambda x: x[: config.images], rest)
    rest, held_out = hold_out(rest, config.held_out / len(rest.labels), jax.random.key(0))
    variants = {name: VARIANTS[name](config) for name in config.variants}
    runs = {name: learn(config, v, rest, held_out) for name, v in variants.items()}
    test = test if write else held_out  # a smoke run has nothing to read there
    runs = {name: [read_test(variants[name], run, test) for run in each] for name, each in runs.items()}
    results = claims_of(variants, runs)
    print(table(results))
    figure = draw(runs)
    if write:
        write_claims("mnist", results, figure)


def load() -> tuple[Digits, Digits]:
    """Return the training set and the test set."""
    with np.load(spiking_path("mnist.npz"), allow_pickle=False) as file:
        parts = [Digits(file[f"{part}_x"], file[f"{part}_y"].astype(np.int32)) for part in ("train", "test")]
    return jax.tree.map(jnp.asarray, parts[0]), jax.tree.map(jnp.asarray, parts[1])


def scores(variant: Variant, params: tuple, images: jax.Array, key: jax.Array) -> jax.Array:
    """Return the logits [B, 10]."""

    def _one(image, key):
        return jl.simulate(variant.network, params, variant.encode(key, image / 255.0))[1].output.v.mean(axis=0)

    return 10.0 * jax.vmap(_one)(images.astype(jnp.float32), jax.random.split(key, len(images)))


def loss(variant: Variant, shift: int, params: tuple, batch: Digits, key: jax.Array):
    """Return the cross-entropy of shifted images, and the accuracy."""
    keys = jax.random.split(key)
    moves = jax.random.randint(keys[0], (len(batch.labels), 2), -shift, shift + 1)
    images = jax.vmap(lambda image, by: jnp.roll(image, by, (0, 1)))(batch.images, moves)
    logits = scores(variant, params, images, keys[1])
    return cross_entropy(logits, batch.labels), {"accuracy": accuracy(logits, batch.labels)}


def learn(config: Config, variant: Variant, rest: Digits, held_out: Digits) -> list[Trained]:
    """Train from all seeds at once."""
    keys = jnp.stack([jax.random.key(seed) for seed in config.seeds])
    epochs = config.epochs or variant.epochs
    steps = epochs * (len(rest.labels) // config.batch)
    schedule = optax.cosine_decay_schedule(variant.learning_rate, steps, alpha=config.final)

    def right(params: tuple, batch: Digits) -> jax.Array:
        return accuracy(scores(variant, params, batch.images, jax.random.key(0)), batch.labels)

    start = time.perf_counter()
    trainings = train_many(
        partial(loss, variant, config.shift if variant.shifted else 0),
        jax.vmap(variant.init)(keys),
        variant.free,
        rest,
        optimizer=optax.adam(schedule),
        epochs=epochs,
        batch_size=config.batch,
        keys=jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys),
        validation=held_out,
        metric=right,
        average=config.average,
    )
    seconds = (time.perf_counter() - start) / len(keys)
    return [Trained(training, seconds) for training in trainings]


def read_test(variant: Variant, run: Trained, test: Digits) -> Trained:
    """Read the test once."""
    parts = jax.tree.map(lambda x: x.reshape(20, -1, *x.shape[1:]), test)

    def _part(part):
        return accuracy(scores(variant, run.training.params, part.images, jax.random.key(0)), part.labels)

    return run._replace(test=100.0 * float(jnp.mean(jax.lax.map(jax.jit(_part), parts))))


def claims_of(variants: dict[str, Variant], runs: dict[str, list[Trained]]) -> list[dict[str, Any]]:
    rows = []
    for name, each in runs.items():
        best = [100.0 * float(run.training.history["validation_metric"][run.training.best_epoch]) for run in each]
        rows += [
            over_seeds(f"{name}: accuracy on the test", [run.test for run in each], "%", variants[name].target),
            over_seeds(f"{name}: accuracy on validation", best, "%"),
            over_seeds(f"{name}: training of a seed", [run.seconds for run in each], "s"),
        ]
    return rows


def draw(runs: dict[str, list[Trained]]) -> plt.Figure:
    """Draw how the validation images that are read wrongly become fewer, a panel for each network."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, len(runs), figsize=(2.6 * len(runs), 2.6), sharey=True, squeeze=False)
        for ax, (name, each) in zip(axes[0], runs.items(), strict=True):
            for color, run in zip(plotting.PALETTE, each, strict=False):
                wrong = 100.0 - 100.0 * run.training.history["validation_metric"]
                ax.plot(np.arange(1, len(wrong) + 1), wrong, color=color)
            ax.set(yscale="log", xlabel="epoch", title=f"{name}: {np.mean([run.test for run in each]):.1f} %")
            ax.title.set_fontsize(8)
        axes[0, 0].set(ylabel="wrong validation images (%)")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
