"""How well does a small recurrent spiking network read Braille from the events of a fingertip?

Question: accuracy on 27 letters (A to Z and a space), on repetitions that were never seen. Targets: at least 88 %, in
the mean over three seeds; beyond it 95 %. Published for this data: about 80 % for a recurrent spiking network on
events, 97 % for an LSTM on the sensors' values (Müller-Cleve et al. 2022, doi:10.3389/fnins.2022.951164).

Method: each letter was read 50 times at 40 Hz by a finger with 12 tactile sensors. ``level_crossing`` turns every
sensor's value into counts of upward and downward steps, the network's only input: 24 channels -> recurrent LIF neurons
-> 27 leaky readouts, whose mean over time is the logit. Weights, biases and each neuron's membrane time constant are
free. Ten whole repetitions, the same for all seeds, are held out and read once, at the end. Of the other 40, each seed
cuts off 8 that choose the epoch; the numbers of ``Config`` were set by hand on these validation repetitions of seeds 0
and 1. In training the values get a gain, noise and a shift in time before they become events, and hidden neurons drop
out: without that the network fits all it has seen. Seeds draw the weights, the batches and the augmentation.

Command: python experiments/braille.py (JAXLIF_DATA names the data, see data.md; a few minutes on two cores; --quick: a
smoke run that writes nothing)
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, over_seeds, spiking_path, table, write_claims
from command_line import run_script
from spiking_classifier import (
    Examples,
    best_metrics,
    draw_confusion,
    draw_learning,
    draw_time_constants,
    learn,
    predict,
)

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import (
    Dense,
    Dropout,
    DropoutParams,
    Recurrent,
    Sequential,
    Training,
    init_dense,
    init_recurrent,
)
from jaxlif.networks.encoders import level_crossing


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1, 2)
    split_seed: int = 0
    test_repetitions: int = 10
    validation_repetitions: int = 8
    dt: float = 25.0  # ms, the sensors' own
    step: float = 5.0  # of the sensors' values, 0 to 255, between two events
    num_neurons: int = 128
    gain_input: float = 30.0  # events are rare: 2 % of the channels have one in a step
    gain_recurrent: float = 1.0
    gain_readout: float = 6.0
    tau_m: tuple[float, float] = (125.0, 1250.0)  # ms, drawn log-uniformly
    tau_m_bounds: tuple[float, float] = (50.0, 5000.0)  # ms
    tau_readout: float = 500.0  # ms
    slope: float = 10.0  # of SuperSpike
    dropout: float = 0.3
    shift: int = 3  # steps at most, either way
    noise: float = 1.0  # of the sensors' values, standard deviation in each step
    gain: float = 0.05  # standard deviation of each sensor's factor
    batch: int = 32
    epochs: int = 120
    learning_rate: float = 1e-2  # falls to 0 along a cosine


QUICK = Config(seeds=(0,), num_neurons=24, epochs=2)


class Letters(NamedTuple):
    """Sensor values [S, T, 12], the letter of each sample and the repetition that it belongs to."""

    values: np.ndarray
    labels: np.ndarray
    repetitions: np.ndarray


class Trained(NamedTuple):
    """A training, the samples that it was trained on, and the seconds that it took."""

    training: Training
    seen: Letters
    seconds: float


def main(config: Config, write: bool) -> None:
    letters, names = load()
    rest, test = hold_out(letters, config.test_repetitions, config.split_seed)
    network = make_network(config)
    trained = [train(config, network, rest, seed) for seed in config.seeds]
    guesses = [predict(partial(classify, config, network), run.training.params, test.values) for run in trained]
    claims = claims_of(config, network, trained, test, guesses)
    print(table(claims))
    if write:
        write_claims("braille", claims, draw(config, network, trained, test, guesses, names))


def load() -> tuple[Letters, list[str]]:
    with np.load(spiking_path("braille_taxels.npz"), allow_pickle=False) as file:
        names, labels = np.unique(file["letter"], return_inverse=True)
        letters = Letters(file["x"].astype(np.float32), labels.astype(np.int32), file["repetition"])
    return letters, names.tolist()


def hold_out(letters: Letters, number: int, seed: int) -> tuple[Letters, Letters]:
    """Cut off a number of whole repetitions; return the rest and the part."""
    repetitions = np.unique(letters.repetitions)
    chosen = np.random.default_rng(seed).choice(repetitions, number, replace=False)
    held = np.isin(letters.repetitions, chosen)
    return Letters(*(x[~held] for x in letters)), Letters(*(x[held] for x in letters))


def make_network(config: Config) -> Sequential:
    hidden = Recurrent(jl.LIF(dt=config.dt, surrogate=jl.SuperSpike(config.slope)))
    return Sequential((Dense(), hidden, Dropout(config.dropout), Dense(), jl.LeakyIntegrator(dt=config.dt)))


def init_params(config: Config, key: jax.Array) -> tuple:
    keys = jax.random.split(key, 4)
    tau_m = draw_time_constants(keys[3], config.tau_m, config.num_neurons)
    return (
        init_dense(keys[0], 24, config.num_neurons, gain=config.gain_input),
        init_recurrent(keys[1], config.num_neurons, gain=config.gain_recurrent, tau_m=tau_m),
        DropoutParams(),
        init_dense(keys[2], config.num_neurons, 27, gain=config.gain_readout),
        jl.LeakyParams(tau_m=config.tau_readout),
    )


def augment(config: Config, key: jax.Array, values: jax.Array) -> jax.Array:
    """Give the values [T, 12] of a sample other gains, noise, and another start."""
    keys = jax.random.split(key, 3)
    gain = 1.0 + config.gain * jax.random.normal(keys[0], (1, values.shape[1]))
    values = gain * values + config.noise * jax.random.normal(keys[1], values.shape)
    shift = jax.random.randint(keys[2], (), -config.shift, config.shift + 1)
    return values[jnp.clip(jnp.arange(len(values)) - shift, 0, len(values) - 1)]


def run(config: Config, network: Sequential, params: tuple, values: jax.Array):
    """Show the events of one sample [T, 12]; return the outputs of all layers over time."""
    return jl.simulate(network, params, level_crossing(values, config.step))[1]


def classify(config: Config, network: Sequential, params: tuple, values: jax.Array, key: jax.Array | None = None):
    """Return logits [B, 27] and the spikes of a hidden neuron in a step [B]; with a key, as in training."""

    def one(values, key=None):
        mine = params
        if key is not None:
            first, second = jax.random.split(key)
            values = augment(config, first, values)
            mine = (*params[:2], DropoutParams(key=second), *params[3:])
        output = run(config, network, mine, values)
        return output.output.v.mean(axis=0), output.layers[1].spikes.mean()

    return jax.vmap(one)(values) if key is None else jax.vmap(one)(values, jax.random.split(key, len(values)))


def train(config: Config, network: Sequential, rest: Letters, seed: int) -> Trained:
    seen, validation = hold_out(rest, config.validation_repetitions, seed + 1)
    first, second = jax.random.split(jax.random.key(seed))
    parts = (Examples(part.values, part.labels) for part in (seen, validation))
    training, seconds = learn(config, partial(classify, config, network), init_params(config, first), *parts, second)
    return Trained(training, seen, seconds)


def claims_of(
    config: Config, network: Sequential, trained: list[Trained], test: Letters, guesses: list[np.ndarray]
) -> list[dict]:
    def right(labels, guesses):
        return 100.0 * float((labels == guesses).mean())

    tests = [right(test.labels, guess) for guess in guesses]
    ask = partial(classify, config, network)
    seen = [right(t.seen.labels, predict(ask, t.training.params, t.seen.values)) for t in trained]
    spikes = [classify(config, network, t.training.params, test.values)[1].mean() for t in trained]
    size = sum(x.size for layer in (0, 1, 3) for x in weights(trained[0].training.params[layer]))
    return [
        over_seeds("accuracy on held-out repetitions", tests, "%", ">= 88"),
        over_seeds("the same, against the further goal", tests, "%", ">= 95"),
        over_seeds("accuracy on validation repetitions, best epoch", best_metrics([t.training for t in trained]), "%"),
        over_seeds("accuracy on training repetitions", seen, "%"),
        claim("trained parameters", size),
        over_seeds("rate of a hidden neuron, held-out", [1000.0 / config.dt * s for s in spikes], "Hz"),
        over_seeds("training of one seed", [t.seconds for t in trained], "s"),
    ]


def weights(layer) -> list[jax.Array]:
    """Return the arrays of a layer that were trained."""
    neuron = getattr(layer, "neuron", None)
    return [x for x in (layer.weight, getattr(layer, "bias", None), getattr(neuron, "tau_m", None)) if x is not None]


def draw(config, network, trained, test, guesses, names) -> plt.Figure:
    """Draw a held-out letter on its way through the first seed's network, the learning, and what is confused."""
    sample = int(np.flatnonzero(test.labels == names.index("B"))[0])
    values = test.values[sample]
    output = run(config, network, trained[0].training.params, values)
    t = 1e-3 * config.dt * np.arange(1, len(values) + 1)
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(11.0, 6.5))
        axes = figure.subplot_mosaic([["values", "learning", "matrix"], ["events", "hidden", "matrix"]])
        moving = np.flatnonzero(np.ptp(values, axis=0) > config.step)
        for taxel, color in zip(moving, plotting.PALETTE, strict=False):
            axes["values"].plot(t, values[:, taxel], color=color, label=f"sensor {taxel + 1}")
        axes["values"].set(xlabel="time (s)", ylabel="value", title="A held-out B under the finger")
        axes["values"].legend()
        plotting.raster(level_crossing(values, config.step), t, ylabel="event channel", ax=axes["events"])
        axes["events"].set(xlabel="time (s)", title="Its events: ups (0 to 11), downs (12 to 23)")
        plotting.raster(output.layers[1].spikes, t, ylabel="hidden neuron", ax=axes["hidden"], markersize=1.5)
        axes["hidden"].set(xlabel="time (s)", title="Hidden spikes")
        draw_learning(axes["learning"], config.seeds, [run.training for run in trained])
        draw_matrix(axes["matrix"], test, guesses, names)
    return figure


def draw_matrix(ax, test: Letters, guesses: list[np.ndarray], names: list[str]) -> None:
    draw_confusion(ax, test.labels, guesses, len(names))
    short = ["␣" if name == "Space" else name for name in names]
    ax.set_xticks(range(len(names)), short, fontsize=6)
    ax.set_yticks(range(len(names)), short, fontsize=6)
    ax.set(xlabel="answer", ylabel="letter", title="Held-out repetitions, all seeds")


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
