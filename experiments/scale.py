"""What do neurons, synapses, spikes and devices cost, and are the spikes the same on all of them?

Question: which machine does a network need that is larger than this one? And does a network that is divided over eight
devices, or over two processes, spike as on one?

Method: the neurons of ``large_network.py``, which rest 1 mV above threshold and fire at 19 Hz by themselves, or rest
elsewhere and are silent, or fire faster, so that rate and size can be chosen apart: their synapses, as many for every
neuron on average, with random delays of 0.8 to 2.3 ms and weights of 1e-6 mV, cost what others do and change nothing.
Each size is measured in a process of its own: the time to build, the highest memory of the process (``ru_maxrss``)
less that before, and the time of a step, which is that of 100 ms less that of 20 ms, over 800 steps, the median of
three: what a call costs once is in both. It is processor time, which other work on the machine changes less, but for
a comparison of devices. What a spike costs is what a step takes more than that of as many silent neurons. The network
whose spikes are compared is that of ``large_network.py`` with these delays, in which neurons do excite and inhibit
one another, driven by Poisson trains, for 1 s in double and in single precision. Two devices that share this machine
are timed with the largest but one. There is one run: the times of one machine, which did other things too.

Command: python experiments/scale.py (ten minutes on two cores, 4 GB; --quick: a smoke run that writes nothing)
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from claims import claim, table, write_claims

import jaxlif as jl
from jaxlif.networks import Network, Pairwise, Population, Projection, build, poisson_drive, run


@dataclass(frozen=True)
class Config:
    """What is measured: neurons, synapses of each, rest in mV; and the network whose spikes are compared."""

    sizes: tuple[tuple[int, int, float], ...] = (
        (10_000, 10, -70.0),
        (10_000, 100, -49.0),
        (10_000, 1000, -49.0),
        (100_000, 10, -70.0),
        (100_000, 10, -49.0),
        (100_000, 10, -40.0),
        (100_000, 100, -49.0),
        (100_000, 300, -49.0),
        (100_000, 1000, -49.0),
    )
    compared: int = 4000
    duration: float = 1000.0  # ms


FULL, QUICK = (
    Config(),
    Config(((2000, 10, -70.0), (2000, 10, -40.0), (2000, 100, -49.0), (2000, 200, -49.0)), 400, 50.0),
)


def main(config: Config, write: bool) -> None:
    rows = [measured(config, "cost", *size) for size in config.sizes]
    results = [*costs(rows), divided(config, rows)]
    for bits in ("64", "32"):
        one, eight, two = (spikes_of(config, way, bits) for way in ("one", "eight", "two"))
        for other, words in ((eight, "8 virtual devices"), (two, "2 processes")):
            same = sum(np.array_equal(one[name], other[name]) for name in one)
            results.append(claim(f"{words}, float{bits}: populations whose spikes differ", len(one) - same, "", "<= 0"))
        results.append(claim(f"spikes compared, float{bits}", sum(x.shape[1] for x in one.values())))
    print(table(results))
    if write:
        write_claims("scale", results)


def costs(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return what the sizes show."""
    largest, silent = rows[-1], {row["neurons"]: row["step"] for row in rows if row["spikes"] == 0.0}
    synapses = np.array([row["synapses"] for row in rows])
    memory, build = (np.polyfit(synapses, [row[name] for row in rows], 1)[0] for name in ("peak", "build"))
    results = [
        claim("largest network: neurons", largest["neurons"]),
        claim("largest network: synapses", largest["synapses"]),
        claim("largest network: time to build", largest["build"], "s"),
        claim("largest network: highest memory", largest["peak"] / 1e9, "GB", "<= 24"),
        claim("largest network: one second", 1e4 * largest["step"], "s"),
        claim("highest memory for a synapse", memory, "B", "<= 46"),
        claim("time to build for a synapse", 1e9 * build, "ns"),
    ]
    for n, step in silent.items():
        results.append(claim(f"{n:.0e} silent neurons: a step for each", 1e9 * step / n, "ns"))
    for row in rows:
        n, k = row["neurons"], row["synapses"] / row["neurons"]
        if row["spikes"] > 0.0:
            one = 1e6 * (row["step"] - silent[n]) / row["spikes"]
            words = f"{n:.0e} neurons, {row['spikes']:.0f} spikes a step: one with its {k:.0f} synapses"
            results.append(claim(words, one, "us"))
    return results


def divided(config: Config, rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return what two devices that share this machine make of it."""
    two = measured(config, "devices", *config.sizes[-2])
    return claim(
        f"{two['synapses']:.0e} synapses: time of a step, 2 virtual devices over one", two["wall"] / rows[-2]["wall"]
    )


# --- in processes of their own ----------------------------------------------------------------------------


def started(config: Config, way: str, *arguments: Any, flags: str = "", bits: str = "32") -> subprocess.Popen:
    child = [way, json.dumps(asdict(config)), *map(str, arguments)]
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": str(bits == "64")}
    return subprocess.Popen([sys.executable, __file__, "--child", *child], env=env, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> str:
    text, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a process failed: {process.args}")
    return text


def measured(config: Config, way: str, n: int, k: int, rest: float) -> dict[str, float]:
    flags = "--xla_force_host_platform_device_count=2" if way == "devices" else ""
    row = json.loads(finished(started(config, way, n, k, rest, flags=flags)).splitlines()[-1])
    print({name: float(f"{value:.3g}") for name, value in row.items()}, flush=True)
    return row


def spikes_of(config: Config, way: str, bits: str) -> dict[str, np.ndarray]:
    """Return times and neurons of all spikes, from one process or the first of two."""
    flags = "--xla_force_host_platform_device_count=8" if way == "eight" else ""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "spikes.npz"
        ranks = range(2 if way == "two" else 1)
        for process in [started(config, way, rank, port, out, flags=flags, bits=bits) for rank in ranks]:
            finished(process)
        return dict(np.load(out))


def cost(n: int, k: int, rest: float, mesh: Any = None) -> dict[str, float]:
    """Build and run a network, and return what it took."""
    run(network(100, 0.02, STILL, rest), 1.0)  # what Python and JAX need anyway
    before, start = peak(), time.process_time()
    made = network(n, k / n, STILL, rest)
    built = time.process_time() - start
    times = []
    for _ in range(4):  # the first are compiled
        clocks = [(time.process_time(), time.perf_counter())]
        for duration in (20.0, 100.0):
            activity = run(made, duration, mesh=mesh)
            clocks.append((time.process_time(), time.perf_counter()))
        times.append(np.diff(clocks, n=2, axis=0)[0] / 800.0)
    step, wall = np.median(times[1:], axis=0)
    spikes = sum(len(t) for t in activity.times.values()) / 1000.0
    synapses = sum(count for _, count in made.cell.sizes)
    return {
        "neurons": n,
        "synapses": synapses,
        "build": built,
        "peak": peak() - before,
        "step": step,
        "wall": wall,
        "spikes": spikes,
    }


def peak() -> float:
    """Return the highest memory that this process had, B."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


STILL, LIVELY = (1e-6, -1e-6), (1.62, -9.0)  # mV


def network(n: int, probability: float, weights: tuple[float, float], rest: float, drives: Any = ()) -> Network:
    cell = jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
    neuron = jl.LIFParams(tau_m=20.0, r_m=1.0, v_rest=rest, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    params = jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=jnp.array([5.0, 10.0])))
    first = int(0.8 * n)
    populations = {
        name: Population(size=m, cell=cell, params=params, receptors=("exc", "inh"), v=spread)
        for name, m in (("E", first), ("I", n - first))
    }
    projections = [
        Projection(source=name, target="*", rule=Pairwise(probability), weight=w, delay=some, receptor=receptor)
        for name, w, receptor in zip("EI", weights, ("exc", "inh"), strict=True)
    ]
    return build(jax.random.key(0), populations, projections, drives)


def spread(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(-60.0, -50.0, n)


def some(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return delays of whole steps, ms."""
    return np.float32(0.1) * rng.integers(8, 24, n, dtype=np.uint8)


def write_spikes(config: Config, way: str, rank: int, port: int, out: str) -> None:
    if way == "two":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    devices = {"one": 1, "eight": 8, "two": 2}[way]
    assert len(jax.devices()) == devices, jax.devices()
    mesh = None if way == "one" else jax.make_mesh((devices,), ("neurons",))
    drives = [poisson_drive("E", rate=1000.0, weight=0.3, receptor="exc")]
    activity = run(network(config.compared, 80 / config.compared, LIVELY, -49.0, drives), config.duration, mesh=mesh)
    if rank == 0:
        kept = {name: np.stack([activity.times[name], activity.neurons[name]]) for name in activity.times}
        np.savez(out, **kept)


def in_child(way: str, config: str, *arguments: str) -> None:
    if way in ("cost", "devices"):
        n, k, rest = arguments
        print(
            json.dumps(
                cost(int(n), int(k), float(rest), jax.make_mesh((2,), ("neurons",)) if way == "devices" else None)
            )
        )
    else:
        rank, port, out = arguments
        write_spikes(Config(**json.loads(config)), way, int(rank), int(port), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        in_child(*asked.child)
    else:
        main(QUICK if asked.quick else FULL, write=not asked.quick)
