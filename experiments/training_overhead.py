"""What does ``train`` cost over the bare loop that it runs?

Question: ``train`` shuffles, checks every step for numbers that are not finite, keeps a history, chooses an epoch by
validation and saves checkpoints. How much longer does an epoch take than the shortest code that makes the same updates,
one jitted scan over the minibatches with Optax inside, and how long is an epoch of the ECG recipe?

Method: (a) the shape of the ECG task: 515 sequences of 1301 steps with 4 channels, 35 recurrent LIF neurons, 6 leaky
readouts, cross-entropy in every step, batches of 16, float32; (b) a line fitted to 4096 points in batches of 4, where a
step is almost nothing, so that what remains is overhead. Both loops update the same parameters with the same Adam from
the same start; that the results are equal is asserted. Each contender runs in turn in every round, every second round
backwards; the ratio is the median of the rounds' ratios, which are printed. An epoch is the difference between a long
and a short run, divided by the epochs between them, so that starts and ends cancel. Seconds are those of the process's
CPU time, on one core the time that an idle machine takes.

Command: taskset -c 0 python experiments/training_overhead.py (about two minutes on one core; --quick: a smoke
run that writes nothing)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import claim, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif.networks import Dense, Recurrent, Sequential, cross_entropy, init_dense, init_recurrent, train


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    samples: int = 515
    num_steps: int = 1301
    channels: int = 4
    neurons: int = 35
    classes: int = 6
    batch: int = 16
    points: int = 4096
    line_batch: int = 4
    epochs: int = 3  # of the ECG shape in a long run; a short one has 1
    line_epochs: int = 40
    rounds: int = 9
    learning_rate: float = 1e-2


QUICK = Config(samples=48, num_steps=60, points=64, line_epochs=3, rounds=1)


class Task(NamedTuple):
    """A training problem: loss, start, free names, data, batch size, epochs of a long run."""

    loss: Callable[..., Any]
    params: Any
    bounds: dict[str, tuple[float, float]]
    data: Any
    batch: int
    epochs: int


def main(config: Config, write: bool) -> None:
    optimizer = optax.adam(config.learning_rate)
    results = []
    for name, task in {"ECG shape": ecg(config), "line": line(config)}.items():
        ours, bare, ratio = measure(task, optimizer, config.rounds)
        steps = len(jax.tree.leaves(task.data)[0]) // task.batch
        target = "<= 1" if name == "ECG shape" else None
        results += [
            claim(f"{name}: epoch of train", ours, "s", target),
            claim(f"{name}: epoch of the bare loop", bare, "s"),
            claim(f"{name}: train over the bare loop", ratio, "", "<= 1.05" if target else None),
            claim(f"{name}: overhead per step", 1e6 * (ours - bare) / steps, "µs"),
        ]
    print(table(results))
    if write:
        write_claims("training_overhead", results)


def ecg(config: Config) -> Task:
    """Make the ECG recipe's shapes, with noise for data."""
    network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
    keys = jax.random.split(jax.random.key(0), 5)
    params = (
        init_dense(keys[0], config.channels, config.neurons, gain=12.0),
        init_recurrent(keys[1], config.neurons, gain=0.5),
        init_dense(keys[2], config.neurons, config.classes, gain=6.0),
        jl.LeakyParams(tau_m=20.0),
    )
    spikes = jax.random.bernoulli(keys[3], 0.1, (config.samples, config.num_steps, config.channels))
    labels = jax.random.randint(keys[4], (config.samples, config.num_steps), 0, config.classes)

    def loss(params, batch, key):
        run = jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.v)
        return cross_entropy(run(batch["x"])[:, 10:], batch["y"][:, 10:])

    bounds = {"*.weight": jl.REAL, "*.bias": jl.REAL}
    return Task(loss, params, bounds, {"x": spikes.astype(float), "y": labels}, config.batch, config.epochs)


def line(config: Config) -> Task:
    """Make a problem whose step is almost nothing."""
    x = jnp.linspace(-1.0, 1.0, config.points)

    def loss(params, batch, key):
        return jnp.mean((params["w"] * batch["x"] - batch["y"]) ** 2)

    params, bounds = {"w": jnp.asarray(0.0)}, {"w": jl.REAL}
    return Task(loss, params, bounds, {"x": x, "y": 3.0 * x}, config.line_batch, config.line_epochs)


def measure(task: Task, optimizer: optax.GradientTransformation, rounds: int) -> tuple[float, float, float]:
    """Return the seconds of an epoch of ``train`` and of the bare loop, and their ratio, medians over the rounds."""
    bare = bare_loop(task, optimizer)
    short, ends_bare = run_train(task, optimizer, 1), bare(1)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), short, ends_bare)
    contenders = {"ours": partial(run_train, task, optimizer), "bare": bare}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            long, short = (seconds(contenders[name], epochs) for epochs in (task.epochs, 1))
            found[name].append((long - short) / (task.epochs - 1))
    print([f"{a / b:.3f}" for a, b in zip(found["ours"], found["bare"], strict=True)])
    ratio = np.median(np.array(found["ours"]) / np.array(found["bare"]))
    return float(np.median(found["ours"])), float(np.median(found["bare"])), float(ratio)


def run_train(task: Task, optimizer: optax.GradientTransformation, epochs: int) -> Any:
    return train(
        task.loss, task.params, task.bounds, task.data, optimizer=optimizer, epochs=epochs, batch_size=task.batch,
        key=jax.random.key(1),
    ).params  # fmt: skip


def bare_loop(task: Task, optimizer: optax.GradientTransformation) -> Callable[[int], Any]:
    """Return the shortest loop over epochs that makes the same updates."""
    samples = len(jax.tree.leaves(task.data)[0])
    steps = samples // task.batch

    @jax.jit
    def epoch(params, state, data, order):
        def step(carry, index):
            params, state = carry
            batch = jax.tree.map(lambda x: x[index], data)
            grad = jax.grad(task.loss, allow_int=True)(params, batch, None)
            updates, state = optimizer.update(free(grad), state, free(params))
            return (put(params, optax.apply_updates(free(params), updates)), state), None

        return jax.lax.scan(step, (params, state), order)[0]

    def run(epochs: int) -> Any:
        params, state = task.params, optimizer.init(free(task.params))
        for number in range(epochs):
            order = jax.random.permutation(jax.random.fold_in(jax.random.key(1), number), samples)
            order = order[: steps * task.batch].reshape(steps, task.batch)
            params, state = epoch(params, state, task.data, order)
        return jax.block_until_ready(params)

    return run


def free(params: Any) -> Any:
    """Return what is trained: weights, biases, and the line's slope."""
    if isinstance(params, dict):
        return params
    dense, recurrent, readout, _ = params
    return dense, recurrent.weight, readout


def put(params: Any, new: Any) -> Any:
    if isinstance(params, dict):
        return new
    return new[0], replace(params[1], weight=new[1]), new[2], params[3]


def seconds(function: Callable[..., Any], *args: Any) -> float:
    start = time.process_time()
    function(*args)
    return time.process_time() - start


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
