"""How long does a second of a standard network take here, and in NEST and Brian2?

Question: does a network cost what its spikes cost, in time, beside the simulators that are made for it?

Method: CUBA, COBA and Brunel's AI of ``populations.py``. In each of three rounds every program in turn settles for
0.2 s of network time, which also compiles, and then takes two parts of 1 s; the median of these is shown. Timed is what
a user waits for: here ``run``, which returns all spikes, there the simulation with recorders of all spikes. Apart are
building the network, what NEST and Brian2 prepare, and compiling, which is what the first settling takes beyond its
time; compiled code is not kept from before. NEST and Brian2 have one thread, jaxlif the cores that it is given
(``taskset -c 0`` before the command gives it one). The times are those of one machine; the rates show that all had the
same to do.

Command: python experiments/population_speed.py, after experiments/peers_nest_brian2.sh (--quick: a smoke run of CUBA
that writes nothing)
"""

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import claims
import jax
import numpy as np
from command_line import run_script
from populations import HERE, MODELS, Model, ask_nest, make

from jaxlif.networks import run

BRIAN2 = HERE.parent / ".cache" / "peers" / "brian2" / "bin" / "python"


@dataclass(frozen=True)
class Config:
    """What is timed."""

    networks: tuple[str, ...] = ("CUBA", "COBA", "AI")
    rounds: int = 3
    settle: float = 200.0  # ms
    part: float = 1000.0  # ms
    parts: int = 2


QUICK = Config(networks=("CUBA",), rounds=1, part=200.0)
TARGETS = {"CUBA": "<= 0.3", "COBA": "<= 1.0", "AI": "<= 1.5"}


def main(config: Config, write: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    rows = []
    for name in config.networks:
        rows += timed(config, name, MODELS[name]())
    claims.publish("population_speed", rows, lambda: None, write=write)


def timed(config: Config, name: str, model: Model) -> list[dict[str, Any]]:
    """Time a network in every program in turn, round by round."""
    contenders = {"jaxlif": here, "NEST": in_nest} | ({"Brian2": in_brian2} if name == "CUBA" else {})
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    first, rates = [], {}
    for seed in range(config.rounds):
        for who, contender in contenders.items():
            settling, parts, rates[who] = contender(config, model, seed)
            seconds[who] += [s * 1000.0 / config.part for s in parts]
            first += [settling] if who == "jaxlif" else []
    median = {who: float(np.median(x)) for who, x in seconds.items()}
    rows = [claims.claim(f"{name}: a second of it", median["jaxlif"], "s", TARGETS[name])]
    for who in list(contenders)[1:]:
        rows += [
            claims.claim(f"{name}: {who}", median[who], "s"),
            claims.claim(f"{name}: time of {who} over that of jaxlif", median[who] / median["jaxlif"]),
        ]
    compiling = first[0] - 1e-3 * config.settle * median["jaxlif"]
    rows.append(claims.claim(f"{name}: compiling", compiling, "s", "<= 5"))
    return rows + [claims.claim(f"{name}: rate, {who}", rate, "Hz") for who, rate in rates.items()]


def here(config: Config, model: Model, seed: int) -> tuple[float, list[float], float]:
    """Return the seconds of settling and of each part, and the rate in the last of the first population."""
    network, seconds = make(model, seed), []
    for part in [config.settle] + [config.part] * config.parts:
        start = time.perf_counter()
        activity = run(network, part, inputs=model.currents)
        seconds.append(time.perf_counter() - start)
        network = network._replace(state=activity.state)
    return seconds[0], seconds[1:], next(iter(activity.rates.values()))


def in_nest(config: Config, model: Model, seed: int) -> tuple[float, list[float], float]:
    """Do the same in NEST."""
    spikes, seconds = ask_nest(model, (seed,), [config.settle] + [config.part] * config.parts)
    first, population = next(iter(model.populations.items()))
    late = spikes[f"{seed} times {first}"] > config.settle + (config.parts - 1) * config.part
    return seconds[0, 0], list(seconds[0, 1:]), 1e3 * late.sum() / (population.size * config.part)


def in_brian2(config: Config, model: Model, seed: int) -> tuple[float, list[float], float]:
    """Do the same in Brian2, whose script has the equations of CUBA."""
    asked = json.dumps({"seed": seed, "parts": [config.settle] + [config.part] * config.parts, **model.neuron[1]})
    command = [str(BRIAN2), str(HERE / "population_brian2.py")]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Brian2 failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"][0], found["seconds"][1:], found["rate"]


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
