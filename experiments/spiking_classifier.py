"""What experiments share that train a spiking network to classify sequences and choose its epoch by validation."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import Training, accuracy, cross_entropy, train

FREE = {"*.weight": jl.REAL, "*.bias": jl.REAL}

#: (params, inputs [B, ...], key or None) to logits [B, classes] and the spikes of a hidden neuron in a step [B]; with
#: a key, as in training.
Classify = Callable[..., tuple[jax.Array, jax.Array]]


class Examples(NamedTuple):
    """Inputs [S, ...] and the class of each, [S]."""

    inputs: np.ndarray
    labels: np.ndarray


def draw_time_constants(key: jax.Array, limits: tuple[float, float], number: int) -> jax.Array:
    """Draw membrane time constants between two limits, log-uniformly."""
    low, high = np.log(limits)
    return jnp.exp(jax.random.uniform(key, (number,), minval=low, maxval=high))


def learn(
    config: Any,
    classify: Classify,
    params: tuple,
    seen: Examples,
    validation: Examples,
    key: jax.Array,
    adam: Callable[[optax.Schedule], optax.GradientTransformation] = optax.adam,
) -> tuple[Training, float]:
    """Train weights, biases and the neurons' tau_m with cross-entropy; return the training and its seconds.

    Args:
        config: with batch, epochs, learning_rate, which falls to 0 along a cosine, and tau_m_bounds.
        classify: the network.
        params: where it starts.
        seen: what trains.
        validation: what chooses the epoch.
        key: of the batches and whatever is random in training.
        adam: the optimiser of a learning rate.
    """

    def loss(params, batch, key):
        logits, _ = classify(params, batch.inputs, key)
        return cross_entropy(logits, batch.labels), {"accuracy": accuracy(logits, batch.labels)}

    def metric(params, batch):
        return accuracy(classify(params, batch.inputs)[0], batch.labels)

    schedule = optax.cosine_decay_schedule(config.learning_rate, len(seen.labels) // config.batch * config.epochs)
    start = time.perf_counter()
    training = train(
        loss,
        params,
        FREE | {"*.neuron.tau_m": config.tau_m_bounds},
        seen,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), adam(schedule)),
        epochs=config.epochs,
        batch_size=config.batch,
        key=key,
        validation=validation,
        metric=metric,
    )
    return training, time.perf_counter() - start


def predict(classify: Classify, params: tuple, inputs: np.ndarray) -> np.ndarray:
    """Return the class that the network names for each input."""
    return np.asarray(jax.jit(lambda x: classify(params, x)[0])(inputs)).argmax(axis=1)


def best_metrics(trainings: list[Training]) -> list[float]:
    """Return the accuracy on validation of the epoch that it chose, %, for each training."""
    return [100.0 * t.history["validation_metric"][t.best_epoch] for t in trainings]


def draw_learning(ax: Any, seeds: tuple[int, ...], trainings: list[Training]) -> None:
    """Draw the accuracies over the epochs, each seed in its colour, and mark the chosen epoch."""
    for seed, color, training in zip(seeds, plotting.PALETTE, trainings, strict=False):
        history, best = training.history, training.best_epoch
        ax.plot(100.0 * history["accuracy"], color=color, linewidth=0.7, linestyle=":")
        ax.plot(100.0 * history["validation_metric"], color=color, linewidth=0.9, label=f"seed {seed}")
        ax.plot(best, 100.0 * history["validation_metric"][best], "o", color=color, markersize=4.0)
    ax.set(xlabel="epoch", ylabel="accuracy (%)", title="Validation, and training with noise (dotted)")
    ax.legend(loc="lower right")


def draw_confusion(ax: Any, labels: np.ndarray, guesses: list[np.ndarray], classes: int) -> None:
    """Draw how often each class is answered by which, in per cent, over several runs."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.tile(labels, len(guesses)), np.concatenate(guesses)), 1.0)
    ax.imshow(100.0 * counts / counts.sum(axis=1, keepdims=True), cmap="Greys", vmin=0.0, vmax=100.0)
