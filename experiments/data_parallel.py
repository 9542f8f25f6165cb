"""Does training over many devices, or many processes, give the losses of one device?

Question: ``train`` splits each batch over a mesh. Are the losses of eight devices, and of two processes that talk over
the loopback address, those of one device to 1e-6?

Method: the network and digits of ``kill_and_resume.py``, for a few epochs, in processes of their own: one device; eight
virtual CPU devices (``--xla_force_host_platform_device_count=8``); two processes with one device each, joined by
``jax.distributed`` on 127.0.0.1 with gloo collectives. Training and validation losses of every epoch are compared with
those of one device, in double precision, where only a mistake could make a difference of 1e-6; and in single precision,
where devices add the gradients up in another order: in a long training one spike that falls on the other side of its
threshold makes a difference for good, in these few epochs none does.

Command: python experiments/data_parallel.py (about a minute on two cores; --quick: fewer epochs, writes nothing)
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from claims import claim, table, write_claims
from kill_and_resume import Config, run

FULL = Config(epochs=5)
QUICK = replace(FULL, samples=256, epochs=1)
LOSSES = ("loss", "validation_loss")


def main(quick: bool) -> None:
    results = []
    for bits in ("64", "32"):
        histories = {way: trained(way, bits, quick) for way in ("one", "eight", "two")}
        for way, words in (("eight", "8 virtual devices"), ("two", "2 processes")):
            apart = max(largest(histories["one"][name], histories[way][name]) for name in LOSSES)
            results.append(claim(f"{words}, float{bits}: largest relative difference of a loss", apart, "", "<= 1e-6"))
        results.append(claim(f"loss of the last epoch, float{bits}", histories["one"]["loss"][-1], "nats"))
    print(table(results))
    if not quick:
        write_claims("data_parallel", results)


def largest(expected: np.ndarray, values: np.ndarray) -> float:
    return float(np.max(np.abs(values - expected) / np.abs(expected)))


def trained(way: str, bits: str, quick: bool) -> dict[str, np.ndarray]:
    """Return the history of a training in one or two processes of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{rank}.npz" for rank in range(2 if way == "two" else 1)]
        processes = [start(way, bits, quick, rank, port, out) for rank, out in enumerate(outs)]
        for process in processes:
            text, _ = process.communicate()
            if process.returncode != 0:
                raise SystemExit(f"{way}, float{bits}: a training process failed:\n{text}")
        histories = [dict(np.load(out)) for out in outs]
    for name in LOSSES:  # every process has the whole result
        np.testing.assert_array_equal(histories[0][name], histories[-1][name])
    return histories[0]


def start(way: str, bits: str, quick: bool, rank: int, port: int, out: Path) -> subprocess.Popen:
    child = ["--child", way, str(rank), str(port), str(out)]
    command = [sys.executable, __file__, *child, *(["--quick"] if quick else [])]
    flags = "--xla_force_host_platform_device_count=8" if way == "eight" else ""
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": str(bits == "64")}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train_here(config: Config, way: str, rank: int, port: int, out: str) -> None:
    """Train in this process, and write the history."""
    if way == "two":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    devices = {"one": 1, "eight": 8, "two": 2}[way]
    assert len(jax.devices()) == devices, jax.devices()
    mesh = None if way == "one" else jax.make_mesh((devices,), ("batch",))
    np.savez(out, **run(config, mesh=mesh).history)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--child", nargs=4, metavar=("WAY", "RANK", "PORT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, rank, port, out = arguments.child
        train_here(QUICK if arguments.quick else FULL, way, int(rank), int(port), out)
    else:
        main(arguments.quick)
