"""Does a network that starts from fitted cells learn as well as one of generic neurons?

Question: the neurons of a network are usually all alike at first, with numbers out of habit. Here they are cells whose
f-I curves were measured, fitted by ``jl.fit_fi_population``: resistances, time constants, resets and refractory periods
as they came out, however odd. Do they learn a small task as well, as fast, and at which rates?

Method: 40 cells of mouse visual cortex, fitted in one call with their passive sweeps, each used twice: 80 recurrent
neurons. ``normalised()`` gives each cell's voltage in units of its own distance from rest to threshold, so that a
weight is a share of its rheobase. The generic neurons are those of ``init_neurons``: tau_m 20 ms, reset to rest, no
refractory period. A third network is made of 80 equal neurons, the medians of the fitted parameters. All three have the
same weights at first, but for the gain of the input, which is chosen for each from the same five on the validation
digits; all train by the same rule on the same batches: scikit-learn's digits as random spikes over 40 steps of 1 ms,
weights and membrane time constants free. A stratified fifth of the digits is held out and read once; a fifth of the
rest validates. Seeds draw weights, batches and input spikes.

Command: JAXLIF_DATA=folder python experiments/network_from_cells.py (about four minutes on two cores; --quick: a smoke
run of seconds that writes nothing)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import claims
import jax
import jax.numpy as jnp
import matplotlib
from command_line import run_script

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from digits import Digits, load, make_batches, split
from fi_population import read_fi_population

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import (
    Dense,
    Recurrent,
    RecurrentParams,
    Sequential,
    accuracy,
    cross_entropy,
    init_dense,
    init_neurons,
)
from jaxlif.networks.encoders import rate_code


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    file: str = "allen_fi_curves.json"
    seeds: tuple[int, ...] = (0, 1, 2)
    split_seed: int = 0
    copies: int = 2  # of each cell
    num_steps: int = 40
    dt: float = 1.0  # ms
    gains: tuple[float, ...] = (0.75, 1.5, 3.0, 6.0, 12.0)  # of the input; chosen on validation digits, one seed
    gain_recurrent: float = 0.5
    gain_readout: float = 6.0
    tau_m_bounds: tuple[float, float] = (0.5, 1000.0)  # ms
    tau_readout: float = 20.0  # ms
    slope: float = 4.0  # of SuperSpike, as chosen in digits.py
    batch: int = 64
    epochs: int = 25
    choice_epochs: int = 5  # of a network that only chooses a gain
    learning_rate: float = 1e-2  # falls to 0 along a cosine


QUICK = Config(seeds=(0,), copies=1, num_steps=10, gains=(12.0,), epochs=1, choice_epochs=1)
NAMES = ("fitted cells", "their medians", "generic neurons")


class Result(NamedTuple):
    """What one network of one seed gave."""

    accuracy: float  # of the digits that it was read on, %
    rate: float  # Hz
    losses: np.ndarray  # [epochs]


def main(config: Config, write: bool) -> None:
    neurons = make_neurons(config)
    rest, held_out = split(load(), config.split_seed)
    training, validation = split(rest, config.split_seed)
    results = {}
    for name, neuron in neurons.items():
        trial = partial(learn, config, neuron, training=training, test=validation, seed=0, epochs=config.choice_epochs)
        early = {gain: trial(gain) for gain in config.gains}
        gain = max(early, key=lambda gain, early=early: early[gain].accuracy)
        print(f"{name}: gain {gain:g}; validation " + ", ".join(f"{g:g}: {r.accuracy:.1f} %" for g, r in early.items()))
        results[name] = [learn(config, neuron, gain, rest, held_out, seed, config.epochs) for seed in config.seeds]
    rows = claims_of(config, results)
    print(claims.table(rows))
    if write:
        claims.write_claims("network_from_cells", rows, draw(config, neurons, results))


def make_neurons(config: Config) -> dict[str, jl.LIFParams]:
    """Return the three kinds of neurons, normalised, their leaves [N]."""
    cells = read_fi_population(claims.recording_path(config.file))
    fitted = jl.fit_fi_population(cells, noise=False).params.normalised()  # their parameters are then all of them
    number = config.copies * len(fitted.tau_m)
    leaves = {name: np.broadcast_to(np.asarray(x), fitted.tau_m.shape) for name, x in vars(fitted).items()}
    cells = {name: jnp.asarray(np.tile(x, config.copies), float) for name, x in leaves.items()}
    medians = {name: jnp.full(number, np.median(x), float) for name, x in leaves.items()}
    generic = init_neurons(number)
    return dict(zip(NAMES, (jl.LIFParams(**cells), jl.LIFParams(**medians), generic), strict=True))


def make_network(config: Config) -> Sequential:
    hidden = jl.LIF(dt=config.dt, surrogate=jl.SuperSpike(config.slope))
    return Sequential((Dense(), Recurrent(hidden), Dense(), jl.LeakyIntegrator(dt=config.dt)))


def init_params(config: Config, neuron: jl.LIFParams, gain: float, key: jax.Array) -> tuple:
    first, second, third = jax.random.split(key, 3)
    number = len(neuron.tau_m)
    weight = init_dense(second, number, number, gain=config.gain_recurrent).weight
    return (
        init_dense(first, 64, number, gain=gain),
        RecurrentParams(neuron=neuron, weight=weight),
        init_dense(third, number, 10, gain=config.gain_readout),
        jl.LeakyParams(tau_m=config.tau_readout),
    )


def classify(config: Config, params: tuple, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits [B, 10], and the probability of a spike of a hidden neuron in a step."""

    def one(image, key):
        return jl.simulate(make_network(config), params, rate_code(key, image, config.num_steps))[1]

    output = jax.vmap(one)(images, jax.random.split(key, len(images)))
    return output.output.v.mean(axis=1), output.layers[1].spikes.mean()


@cache
def problem(config: Config, steps: int) -> tuple[Callable[..., jax.Array], optax.GradientTransformation]:
    """Return loss and optimiser: the same objects each time, so that the training of that length compiles once."""

    def loss(params, batch):
        images, labels, key = batch
        return cross_entropy(classify(config, params, images, key)[0], labels)

    return loss, optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))


def learn(
    config: Config, neuron: jl.LIFParams, gain: float, training: Digits, test: Digits, seed: int, epochs: int
) -> Result:
    """Train a network and read it on the test digits."""
    key = jax.random.key(seed)
    batches: Any = make_batches(_Batches(config.batch, epochs), training, seed)  # type: ignore[arg-type]
    steps = len(batches[1])
    loss, optimizer = problem(config, steps)
    bounds = {"*.weight": jl.REAL, "*.bias": jl.REAL, "1.neuron.tau_m": config.tau_m_bounds}
    start = init_params(config, neuron, gain, jax.random.fold_in(key, 0))
    fit = jl.fit(loss, start, bounds, optimizer=optimizer, num_steps=steps, batches=batches)
    logits, rate = classify(config, fit.params, jnp.asarray(test.images), jax.random.fold_in(key, 2))
    score = 100.0 * float(accuracy(logits, jnp.asarray(test.labels)))
    return Result(score, 1000.0 * float(rate) / config.dt, fit.losses.reshape(epochs, -1).mean(axis=1))


class _Batches(NamedTuple):
    """What ``digits.make_batches`` asks of a configuration."""

    batch: int
    epochs: int


def claims_of(config: Config, results: dict[str, list[Result]]) -> list[dict]:
    rows = []
    for name, runs in results.items():
        rows += [
            claims.over_seeds(f"{name}: accuracy on held-out digits", [r.accuracy for r in runs], "%"),
            claims.over_seeds(f"{name}: training loss, first epoch", [r.losses[0] for r in runs], "nats"),
            claims.over_seeds(f"{name}: rate of a hidden neuron", [r.rate for r in runs], "Hz"),
        ]
    ours, *others = ([r.accuracy for r in results[name]] for name in NAMES)
    rows += [
        claims.over_seeds(f"fitted cells less {name}, by seed", np.subtract(ours, other), "%")
        for name, other in zip(NAMES[1:], others, strict=True)
    ]
    return rows


def draw(config: Config, neurons: dict[str, jl.LIFParams], results: dict[str, list[Result]]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
        for (name, neuron), color in zip(neurons.items(), plotting.PALETTE, strict=False):
            curves = np.stack([r.losses for r in results[name]])
            left.plot(np.arange(1, config.epochs + 1), curves.T, color=color)
            left.plot([], [], color=color, label=name)
            t_ref = np.broadcast_to(neuron.t_ref, neuron.tau_m.shape)
            right.plot(np.asarray(neuron.tau_m), t_ref, "o", color=color)
        left.axhline(np.log(10.0), color=plotting.GUIDE, linestyle=":")
        left.set(yscale="log", xlabel="epoch", ylabel="cross-entropy (nats)", title="Training loss, each seed")
        left.legend(fontsize="small")
        right.set(xscale="log", xlabel="tau_m before training (ms)", ylabel="t_ref (ms)", title="The neurons")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
