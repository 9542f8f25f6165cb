"""Does a training that is killed at any moment end with the same parameters, bit by bit?

Question: a process that trains a spiking network with checkpoints gets SIGKILL five times, and each time starts anew.
Is everything that it returns, parameters, averages and history, equal in every bit to a run that nobody disturbed?

Method: a recurrent network of LIF neurons learns scikit-learn's digits with everything that carries state from step to
step: Adam with a cosine schedule, random input spikes, a running average of the parameters, a validation split that
chooses the epoch. One process trains without interruption. Another one is killed: before its first checkpoint, twice at
a random moment, and twice while a checkpoint is being written (as soon as Orbax's unfinished folder is seen; whether it
was still unfinished after the kill is counted). Nothing is cached, so each start compiles anew. The last start runs to
the end. All arrays of both results are compared as bytes. How many epochs a start gets before it is killed is drawn.

Command: python experiments/kill_and_resume.py (about two minutes on two cores; --quick: fewer epochs, writes nothing)
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import claim, table, write_claims
from sklearn.datasets import load_digits

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    Recurrent,
    Sequential,
    Training,
    accuracy,
    alive_gain,
    cross_entropy,
    init_dense,
    init_neurons,
    init_recurrent,
    train,
)
from jaxlif.networks.encoders import rate_code

NETWORK = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
BOUNDS = {"*.weight": jl.REAL, "*.bias": jl.REAL, "*.neuron.tau_m": (2.0, 100.0)}


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    samples: int = 640
    num_steps: int = 20
    neurons: int = 64
    batch: int = 64
    epochs: int = 40
    learning_rate: float = 1e-2
    average: float = 0.9
    validation: float = 0.2
    moments: tuple[str, ...] = ("before the first save", "at random", "while saving", "at random", "while saving")
    longest_wait: float = 2.0  # s after a save whose number is drawn, at random
    seed: int = 0


QUICK = Config(samples=256, epochs=30, longest_wait=0.5)


def main(config: Config, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, checkpoints = (Path(folder) / name for name in ("whole.npz", "killed.npz", "checkpoints"))
        seconds = finish(start(quick, Path(folder) / "undisturbed", whole))
        random = np.random.default_rng(config.seed)
        kills = [kill(quick, checkpoints, killed, moment, config, random) for moment in config.moments]
        assert not killed.exists()
        finish(start(quick, checkpoints, killed))
        differing, compared = difference(whole, killed)
    results = [
        claim("kills by SIGKILL", len(kills), "", ">= 5"),
        claim("of them in the middle of writing a checkpoint", sum(torn for _, torn in kills), "", ">= 1"),
        claim("arrays compared as bytes", compared),
        claim("arrays that differ from the undisturbed run", differing, "", "<= 0"),
        *(claim(f"epochs saved at kill {i + 1}, {moment}", epoch) for i, (moment, (epoch, _)) in
          enumerate(zip(config.moments, kills, strict=True))),
        claim("undisturbed run, start and compilation included", seconds, "s"),
    ]  # fmt: skip
    print(table(results))
    if not quick:
        write_claims("kill_and_resume", results)


def run(config: Config, **options: Any) -> Training:
    """Train the network; ``options`` go to ``train``."""
    images, labels = load_digits(return_X_y=True)
    data = {"image": jnp.asarray(images[: config.samples] / 16.0), "label": jnp.asarray(labels[: config.samples])}
    steps = config.epochs * int(config.samples * (1.0 - config.validation) // config.batch)
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    return train(
        loss(config), make_params(config), BOUNDS, data, optimizer=optax.adam(schedule), epochs=config.epochs,
        batch_size=config.batch, key=jax.random.key(config.seed), validation=config.validation, metric="accuracy",
        average=config.average, **options,
    )  # fmt: skip


def make_params(config: Config) -> tuple:
    keys = jax.random.split(jax.random.key(config.seed), 3)
    gain = alive_gain(init_neurons(1), 30.0, input_rate=300.0, dt=1.0)
    return (
        init_dense(keys[0], 64, config.neurons, gain=gain),
        init_recurrent(keys[1], config.neurons, gain=0.5),
        init_dense(keys[2], config.neurons, 10, gain=6.0),
        jl.LeakyParams(tau_m=20.0),
    )


def loss(config: Config):
    def of_batch(params, batch, key):
        def logits(image, key):
            return jl.simulate(NETWORK, params, rate_code(key, image, config.num_steps))[1].output.v.mean(axis=0)

        z = jax.vmap(logits)(batch["image"], jax.random.split(key, len(batch["label"])))
        return cross_entropy(z, batch["label"]), {"accuracy": accuracy(z, batch["label"])}

    return of_batch


def child(config: Config, folder: str, out: str) -> None:
    """What the processes do that are killed, or not."""
    result = run(config, folder=folder)
    leaves = jax.tree.leaves((result.params, result.last_params, result.history))
    np.savez(out, *(np.asarray(x) for x in leaves))


def start(quick: bool, folder: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, __file__, "--child", str(folder), str(out), *(["--quick"] if quick else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> float:
    """Wait for a process and return the seconds that it took; stop where it failed."""
    begin = time.perf_counter()
    text, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a training process failed:\n{text}")
    return time.perf_counter() - begin


def kill(quick: bool, folder: Path, out: Path, moment: str, config: Config, random) -> tuple[int, bool]:
    """Start a training and kill it; return the epochs saved so far and whether it left an unfinished checkpoint."""
    process = start(quick, folder, out)
    goal = saved(folder) + random.integers(1, config.epochs // len(config.moments))
    while moment != "before the first save" and saved(folder) < goal:
        wait(process)
    if moment == "while saving":
        while not unfinished(folder):
            wait(process)
    else:
        time.sleep(random.uniform(0.0, config.longest_wait))
    process.kill()
    process.communicate()
    return saved(folder), unfinished(folder)


def wait(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        raise SystemExit(f"a training process ended before it could be killed:\n{process.communicate()[0]}")
    time.sleep(0.0005)


def saved(folder: Path) -> int:
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)


def unfinished(folder: Path) -> bool:
    return any("tmp" in p.name for p in folder.glob("*"))


def difference(whole: Path, killed: Path) -> tuple[int, int]:
    """Return how many arrays of two results differ in a byte, and how many there are."""
    with np.load(whole) as a, np.load(killed) as b:
        assert a.files == b.files
        return sum(a[name].tobytes() != b[name].tobytes() for name in a.files), len(a.files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = QUICK if arguments.quick else Config()
    if arguments.child:
        child(chosen, *arguments.child)
    else:
        main(chosen, arguments.quick)
