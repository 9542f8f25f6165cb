"""Does a network that comes as a file of NIR, with synaptic currents, learn to read Braille, and go back into one?

Question: the accuracy on the letters of ``braille.py``, on the same held-out repetitions, of recurrent CubaLIF neurons
(a membrane behind a low-pass filter); and how many spikes differ once the trained network went through a file again.
Targets: at least 88 %, in the mean over three seeds, and none.

Method: each seed writes a NIR graph with random weights, Affine -> CubaLIF with a Linear loop -> Affine -> LI, as
another library would hand it over. ``from_nir`` reads it, and it is trained as in ``braille.py`` but for the dropout of
hidden neurons: the same events, augmentation, validation repetitions and optimiser; weights, biases and the membranes'
time constants are free. The trained network is written by ``to_nir``, read again, and run on all held-out letters.

Command: python experiments/braille_cuba.py (JAXLIF_DATA names the data, see data.md; a minute on two cores;
needs nir; --quick: a smoke run that writes nothing)
"""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nir
import numpy as np
from braille import Config as Braille
from braille import Letters, augment, hold_out, load
from claims import claim, over_seeds, table, write_claims
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
from jaxlif.interop.nir_graph import from_nir, to_nir
from jaxlif.networks import Training
from jaxlif.networks.encoders import level_crossing

CHANNELS, LETTERS, S = 24, 27, 1e-3  # NIR's times are in seconds


@dataclass(frozen=True)
class Config(Braille):
    """Every number of the experiment, but for those of ``braille.py``."""

    tau_syn: float = 50.0  # ms


QUICK = Config(seeds=(0,), num_neurons=24, epochs=2)


class Trained(NamedTuple):
    """A network with its training, and the seconds that it took."""

    network: Any
    training: Training
    seconds: float


def main(config: Config, write: bool) -> None:
    letters, _ = load()
    rest, test = hold_out(letters, config.test_repetitions, config.split_seed)
    trained = [train(config, rest, seed) for seed in config.seeds]
    guesses = [predict(partial(classify, config, run.network), run.training.params, test.values) for run in trained]
    differing = sum(through_a_file(config, run, test.values) for run in trained)
    accuracies = [100.0 * float((test.labels == guess).mean()) for guess in guesses]
    claims = [
        over_seeds("accuracy on held-out repetitions", accuracies, "%", ">= 88"),
        over_seeds("accuracy on validation repetitions, best epoch", best_metrics([t.training for t in trained]), "%"),
        claim("spikes that differ after NIR", differing, "", "<= 0"),
        over_seeds("training of one seed", [run.seconds for run in trained], "s"),
    ]
    print(table(claims))
    figure = draw(config, trained, test, guesses)
    if write:
        write_claims("braille_cuba", claims, figure)


def random_graph(config: Config, seed: int) -> nir.NIRGraph:
    """Return a network as another library would hand it over, rest 0 and threshold 1."""
    rng, n = np.random.default_rng(seed), config.num_neurons

    def weight(num_in, num_out, gain):
        return gain / num_in**0.5 * rng.standard_normal((num_out, num_in))

    tau_m = S * np.asarray(draw_time_constants(jax.random.key(seed), config.tau_m, n))
    one, zero = np.ones(n), np.zeros(n)
    cuba = nir.CubaLIF(
        tau_syn=S * config.tau_syn * one, tau_mem=tau_m, r=one, v_leak=zero, v_threshold=one, v_reset=zero, w_in=one
    )
    readout = nir.LI(tau=np.full(LETTERS, S * config.tau_readout), r=np.ones(LETTERS), v_leak=np.zeros(LETTERS))
    nodes = {
        "input": nir.Input(input_type={"input": np.array([CHANNELS])}),
        "events": nir.Affine(weight=weight(CHANNELS, n, config.gain_input), bias=zero),
        "cuba": cuba,
        "loop": nir.Linear(weight=weight(n, n, config.gain_recurrent)),
        "letters": nir.Affine(weight=weight(n, LETTERS, config.gain_readout), bias=np.zeros(LETTERS)),
        "readout": readout,
        "output": nir.Output(output_type={"output": np.array([LETTERS])}),
    }
    way = ["input", "events", "cuba", "letters", "readout", "output"]
    edges = [*zip(way[:-1], way[1:], strict=True), ("cuba", "loop"), ("loop", "cuba")]
    return nir.NIRGraph(nodes=nodes, edges=edges)


def through_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nir"
        nir.write(path, graph)
        return nir.read(path)


def classify(config: Config, network: Any, params: Any, values: jax.Array, key: jax.Array | None = None):
    """Return logits [B, 27] and the spikes of a hidden neuron in a step [B]; with a key, as in training."""

    def one(values, key=None):
        values = values if key is None else augment(config, key, values)
        output = jl.simulate(network, params, level_crossing(values, config.step))[1]
        return output.output.v.mean(axis=0), output.layers[1].spikes.mean()

    return jax.vmap(one)(values) if key is None else jax.vmap(one)(values, jax.random.split(key, len(values)))


def train(config: Config, rest: Letters, seed: int) -> Trained:
    network, start = from_nir(through_file(random_graph(config, seed)), config.dt)
    seen, validation = hold_out(rest, config.validation_repetitions, seed + 1)
    parts = (Examples(part.values, part.labels) for part in (seen, validation))
    training, seconds = learn(config, partial(classify, config, network), start, *parts, jax.random.key(seed))
    return Trained(network, training, seconds)


def through_a_file(config: Config, run: Trained, values: np.ndarray) -> int:
    """Return how many hidden spikes on all held-out letters differ after the trained network went through a file."""

    def spikes(network, params):
        one = jax.jit(lambda x: jl.simulate(network, params, level_crossing(x, config.step))[1].layers[1].spikes)
        return np.asarray(jax.vmap(one)(values))

    again = from_nir(through_file(to_nir(run.network, run.training.params, (CHANNELS,))), config.dt)
    return int((spikes(run.network, run.training.params) != spikes(*again)).sum())


def draw(config: Config, trained: list[Trained], test: Letters, guesses: list[np.ndarray]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.0))
        draw_learning(axes[0], config.seeds, [run.training for run in trained])
        draw_confusion(axes[1], test.labels, guesses, LETTERS)
        axes[1].set(xlabel="answer", ylabel="letter", title="Held-out repetitions, all seeds")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
