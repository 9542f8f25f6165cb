"""Does a recurrent spiking network with learned membrane time constants learn handwritten digits?

Question: how accurate is a small recurrent LIF network, trained with surrogate gradients by ``jaxlif.fit``, on digits
that it never saw? Target: at least 96 % of the held-out fifth, in the mean over three seeds.

Method: scikit-learn's 1797 digits (8 x 8 pixels, ten classes). Each pixel spikes with a probability of its intensity in
each of 30 steps of 1 ms. 64 inputs -> 100 recurrent LIF neurons -> 10 leaky readouts, whose mean voltage over time is
the logit. Weights, biases and each neuron's membrane time constant (between 2 and 100 ms) are free. One fifth of the
digits, stratified and the same for all seeds, is held out and read once, at the end. A fifth of the rest validates: it
chooses the slope of the surrogate, by the mean over seeds; then the network is trained on the whole rest. The other
numbers of ``Config`` were set by hand on such validation digits. Seeds draw the weights, the order of the batches and
the input spikes.

Command: python experiments/digits.py (about two minutes on two cores; --quick: a smoke run that writes nothing)
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
from claims import over_seeds, table, write_claims
from command_line import run_script
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import (
    Dense,
    Recurrent,
    Sequential,
    accuracy,
    cross_entropy,
    init_dense,
    init_recurrent,
)
from jaxlif.networks.encoders import rate_code


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1, 2)
    split_seed: int = 0
    num_steps: int = 30
    dt: float = 1.0  # ms
    num_neurons: int = 100
    gain_input: float = 12.0  # about 8 % of the neurons spike in a step before training
    gain_recurrent: float = 0.5
    gain_readout: float = 6.0
    tau_m: float = 20.0  # ms, before training
    tau_m_bounds: tuple[float, float] = (2.0, 100.0)  # ms
    tau_readout: float = 20.0  # ms
    slopes: tuple[float, ...] = (4.0, 10.0)  # of SuperSpike; chosen on the validation digits
    batch: int = 64
    epochs: int = 50
    learning_rate: float = 1e-2  # falls to 0 along a cosine
    weight_decay: float = 0.2


QUICK = Config(seeds=(0,), num_steps=15, num_neurons=32, slopes=(4.0,), epochs=5)


class Digits(NamedTuple):
    """Images [D, 64] between 0 and 1, and labels [D]."""

    images: np.ndarray
    labels: np.ndarray


class Trained(NamedTuple):
    """A trained network's parameters, its mean loss in each epoch, and the seconds that it took."""

    params: tuple
    losses: np.ndarray
    seconds: float


def main(config: Config, write: bool) -> None:
    rest, held_out = split(load(), config.split_seed)
    slope = choose_slope(config, *split(rest, config.split_seed))
    network = make_network(config, slope)
    trained = [train(config, network, rest, seed) for seed in config.seeds]
    results = claims_of(config, network, trained, rest, held_out)
    print(f"surrogate slope chosen on the validation digits: {slope:g}")
    print(table(results))
    if write:
        write_claims("digits", results, draw(config, network, trained, held_out))


def load() -> Digits:
    images, labels = load_digits(return_X_y=True)
    return Digits((images / 16.0).astype(np.float32), labels.astype(np.int32))


def split(digits: Digits, seed: int) -> tuple[Digits, Digits]:
    """Cut off a stratified fifth; return the rest and the fifth."""
    parts = train_test_split(*digits, test_size=0.2, stratify=digits.labels, random_state=seed)
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def choose_slope(config: Config, training: Digits, validation: Digits) -> float:
    """Return the surrogate's slope with the best mean validation accuracy over the seeds."""

    def score(slope):
        network = make_network(config, slope)
        runs = [(seed, train(config, network, training, seed)) for seed in config.seeds]
        return np.mean([evaluate(config, network, run.params, validation, seed)[0] for seed, run in runs])

    return max(config.slopes, key=score) if len(config.slopes) > 1 else config.slopes[0]


def make_network(config: Config, slope: float) -> Sequential:
    hidden = jl.LIF(dt=config.dt, surrogate=jl.SuperSpike(slope))
    return Sequential((Dense(), Recurrent(hidden), Dense(), jl.LeakyIntegrator(dt=config.dt)))


def init_params(config: Config, key: jax.Array) -> tuple:
    first, second, third = jax.random.split(key, 3)
    return (
        init_dense(first, 64, config.num_neurons, gain=config.gain_input),
        init_recurrent(second, config.num_neurons, gain=config.gain_recurrent, tau_m=config.tau_m),
        init_dense(third, config.num_neurons, 10, gain=config.gain_readout),
        jl.LeakyParams(tau_m=config.tau_readout),
    )


def run(config: Config, network: Sequential, params: tuple, image: jax.Array, key: jax.Array):
    """Show one image [64] as random spikes; return the outputs of all layers over time."""
    return jl.simulate(network, params, rate_code(key, image, config.num_steps))[1]


def classify(config: Config, network: Sequential, params: tuple, images: jax.Array, key: jax.Array):
    """Return the logits [B, 10], and the probability [B, N] of a spike of each hidden neuron in a step."""
    keys = jax.random.split(key, len(images))
    output = jax.vmap(lambda image, key: run(config, network, params, image, key))(images, keys)
    return output.output.v.mean(axis=1), output.layers[1].spikes.mean(axis=1)


def train(config: Config, network: Sequential, digits: Digits, seed: int) -> Trained:
    batches = make_batches(config, digits, seed)
    steps = len(batches[1])
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)

    def loss(params, batch):
        images, labels, key = batch
        return cross_entropy(classify(config, network, params, images, key)[0], labels)

    start = time.perf_counter()
    fitted = jl.fit(
        loss,
        init_params(config, jax.random.key(seed)),
        {"*.weight": jl.REAL, "*.bias": jl.REAL, "*.neuron.tau_m": config.tau_m_bounds},
        optimizer=optax.adamw(schedule, weight_decay=config.weight_decay),
        num_steps=steps,
        batches=batches,
    )
    seconds = time.perf_counter() - start
    return Trained(fitted.params, fitted.losses.reshape(config.epochs, -1).mean(axis=1), seconds)


def make_batches(config: Config, digits: Digits, seed: int) -> tuple:
    """Stack every batch of every epoch, each epoch in an order of its own; a batch has a key for its input spikes."""
    rng = np.random.default_rng(seed)
    whole = len(digits.labels) // config.batch * config.batch
    order = np.concatenate([rng.permutation(len(digits.labels))[:whole] for _ in range(config.epochs)])
    order = order.reshape(-1, config.batch)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), len(order))
    return jnp.asarray(digits.images[order]), jnp.asarray(digits.labels[order]), keys


def evaluate(config: Config, network: Sequential, params: tuple, digits: Digits, seed: int) -> tuple[float, float]:
    """Return the accuracy, and the probability of a spike of a hidden neuron in a step."""
    key = jax.random.fold_in(jax.random.key(seed), 2)
    logits, spikes = classify(config, network, params, jnp.asarray(digits.images), key)
    return float(accuracy(logits, jnp.asarray(digits.labels))), float(spikes.mean())


def claims_of(
    config: Config, network: Sequential, trained: list[Trained], rest: Digits, held_out: Digits
) -> list[dict]:
    def scores(digits):
        runs = zip(trained, config.seeds, strict=True)
        return np.array([evaluate(config, network, t.params, digits, seed) for t, seed in runs])

    seen, unseen = scores(rest), scores(held_out)
    hz = 1000.0 / config.dt
    tau_m = [np.asarray(t.params[1].neuron.tau_m) for t in trained]
    return [
        over_seeds("accuracy on held-out digits", 100.0 * unseen[:, 0], "%", ">= 96"),
        over_seeds("accuracy on training digits", 100.0 * seen[:, 0], "%"),
        over_seeds("rate of a hidden neuron, held-out digits", hz * unseen[:, 1], "Hz"),
        over_seeds("learned tau_m, shortest", [t.min() for t in tau_m], "ms"),
        over_seeds("learned tau_m, median", [np.median(t) for t in tau_m], "ms"),
        over_seeds("learned tau_m, longest", [t.max() for t in tau_m], "ms"),
        over_seeds("final training of one seed", [t.seconds for t in trained], "s", "<= 180"),
    ]


def draw(config: Config, network: Sequential, trained: list[Trained], held_out: Digits) -> plt.Figure:
    """Draw the learning curves, and one held-out digit on its way through the first seed's network."""
    digit = int(np.flatnonzero(held_out.labels == 3)[0])
    image = held_out.images[digit]
    key = jax.random.fold_in(jax.random.key(config.seeds[0]), 3)
    inputs = rate_code(key, jnp.asarray(image), config.num_steps)
    _, output = jl.simulate(network, trained[0].params, inputs)
    t = config.dt * np.arange(1, config.num_steps + 1)
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(10.0, 6.0))
        axes = figure.subplot_mosaic([["loss", "input", "image"], ["hidden", "readout", "key"]], width_ratios=[5, 5, 2])
        draw_losses(axes["loss"], config, trained)
        draw_input(axes["input"], axes["image"], t, inputs, image)
        draw_hidden(axes["hidden"], t, output.layers[1].spikes, trained[0].params[1].neuron.tau_m)
        draw_readout(axes["readout"], axes["key"], t, output.output.v, int(held_out.labels[digit]))
    return figure


def draw_losses(ax, config: Config, trained: list[Trained]) -> None:
    for seed, color, run in zip(config.seeds, plotting.PALETTE, trained, strict=False):
        ax.plot(np.arange(1, config.epochs + 1), run.losses, color=color, label=f"seed {seed}")
    ax.axhline(np.log(10.0), color=plotting.GUIDE, linestyle=":", label="guessing, ln 10")
    ax.set(yscale="log", xlabel="epoch", ylabel="cross-entropy (nats)", title="Training loss")
    ax.legend()


def draw_input(ax, picture, t, inputs, image) -> None:
    plotting.raster(inputs, t, ylabel="pixel, top row first", ax=ax, markersize=2.5)
    # Pixel 0 is the image's upper left: downwards, the raster's bands are the rows of the picture beside it.
    ax.set(xlim=(0.0, t[-1] + 0.5), ylim=(63.5, -0.5), yticks=range(0, 64, 8), title="A held-out digit as input spikes")
    picture.imshow(image.reshape(8, 8), cmap="gray_r", interpolation="nearest")
    picture.set(xticks=[], yticks=[], anchor="NW")
    picture.spines[:].set_visible(True)


def draw_hidden(ax, t, spikes, tau_m) -> None:
    order = np.argsort(np.asarray(tau_m))
    plotting.raster(np.asarray(spikes)[:, order], t, ylabel=r"neuron, by learned $\tau_m$", ax=ax, markersize=2.5)
    title = rf"Hidden spikes, $\tau_m$ from {np.min(tau_m):.0f} (below) to {np.max(tau_m):.0f} ms (above)"
    ax.set(xlim=(0.0, t[-1] + 0.5), title=title)


def draw_readout(ax, key, t, v, label: int) -> None:
    others = np.delete(np.asarray(v), label, axis=1)
    gray = ax.plot(t, others, color=plotting.GUIDE, linewidth=0.8)[0]
    (true,) = ax.plot(t, v[:, label], color=plotting.PALETTE[1], linewidth=2.0)
    ax.set(xlabel="time (ms)", ylabel="voltage (normalised)", title="Readouts", xlim=(0.0, t[-1] + 0.5))
    key.axis("off")
    key.legend([true, gray], [f"class {label}, the true one", "the other classes"], loc="upper left", borderpad=0.0)


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
