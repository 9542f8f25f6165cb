"""What does an epoch of training a small recurrent network cost, in jaxlif, snnTorch and Spyx?

Question: how long does one pass over the training set take, with gradients through 1301 steps and the optimiser's
updates, for a network of the size of ``../ecg.py``?

Method: random spikes of the ECG data's shape, [B = 16, T = 1301, 4] in {-1, 0, 1}, and random labels -> 35 recurrent
LIF neurons, all to all, each with a decay of its own to learn -> 6 leaky readouts -> the cross-entropy of every step
after the first ten; Adam, with the gradient clipped to norm 1. All contenders start from the same weights; the mean
losses that they report show that they train the same problem. ``peers/epoch_<name>.py`` says in its first lines which
of the library's ways it takes and what differs. A fourth contender is jaxlif with the resonant neurons of the
experiment itself, which the others do not have. snnTorch, which steps in Python and has nothing to pay once an epoch,
trains an eighth of one, counted eightfold. Processes, turns and medians are those of ``layer.py``.

Command: python experiments/benchmarks/epoch.py (before it, experiments/benchmarks/peers.sh snntorch spyx; --quick: a
smoke run that writes nothing)
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent), str(HERE / "peers")]  # claims.py lies in experiments/

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script
from epoch_problem import Problem
from servers import Server, Stopped, Turns, leave_out, require_built
from timing import Timing, interleave

from jaxlif import plotting

OWN, RESONANT = "jaxlif", "resonant"
#: The other libraries, and the target of their time over that of jaxlif.
PEERS = {"snntorch": ">= 5", "spyx": ">= 1"}


@dataclass(frozen=True)
class Config(Turns):
    """Every number of the benchmark, but for those of the turns that are as everywhere."""

    batches: int = 32  # in an epoch of 515 sequences
    part: int = 8  # snnTorch is timed on this part of an epoch
    batch: int = 16
    steps: int = 1301
    rate: float = 0.1  # spikes per input and step
    gain: float = 12.0  # of the projections, units of the rheobase
    gain_recurrent: float = 1.0
    at_least: float = 0.5
    rounds: int = 5


QUICK = Config(batches=2, part=2, batch=4, steps=50, at_least=0.01, patience=0)


def main(config: Config, write: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem(config.batches, config.batch, config.steps, folder)
        for name, numbers in draws(config, problem).items():
            numbers.astype(np.float32).tofile(problem.path(name))
        servers, losses, first = start(config, problem)
        timings = interleave({name: server.run for name, server in servers.items()}, config.rounds, at_least=0.0)
        timings = {n: Timing(*(parts(config, n) * x for x in t[:3]), first[n]) for n, t in timings.items()}
        for server in servers.values():
            server.close()
    versions = {name: f"{name} {server.version}" for name, server in servers.items()}
    versions[RESONANT] = f"{versions[OWN]} with resonant neurons"
    results = claims_of(timings, losses, versions)
    print(table(results))
    figure = draw(timings, versions)
    if write:
        write_claims("benchmark_epoch", results, figure)


def parts(config: Config, name: str) -> int:
    """Return the number of passes in an epoch."""
    return config.part if name == "snntorch" else 1


def draws(config: Config, problem: Problem) -> dict[str, np.ndarray]:
    random, shapes = np.random.default_rng(0), problem.shapes
    spikes = random.random(shapes["inputs"]) < config.rate
    gains = {"weight": config.gain, "recurrent": config.gain_recurrent, "readout": 1.0}
    return {
        "inputs": spikes * random.choice([-1.0, 1.0], shapes["inputs"]),
        "labels": random.integers(0, 6, shapes["labels"]),
        **{name: gain / shapes[name][0] ** 0.5 * random.standard_normal(shapes[name]) for name, gain in gains.items()},
    }


def start(config: Config, problem: Problem) -> tuple[dict[str, Server], dict[str, float], dict[str, float]]:
    """Start every contender that is there; return them, their losses and the seconds of their first passes."""
    servers, losses, first = {}, {}, {}
    for name in (*PEERS, OWN, RESONANT):
        try:
            if name in PEERS:
                require_built(name)
            servers[name] = Server(name, config, problem.folder, script=f"epoch_{name}")
            losses[name], first[name] = servers[name].load(
                problem._replace(batches=config.batches // parts(config, name))
            )
        except Stopped as reason:
            servers.pop(name, None)
            leave_out(name, reason)
    return servers, losses, first


def claims_of(timings: dict[str, Timing], losses: dict[str, float], versions: dict[str, str]) -> list[dict[str, Any]]:
    def ratio(name, to, target=None):
        metric = f"epoch: time of {versions[name]} over {versions[to]}"
        return claim(metric, timings[name].median / timings[to].median, "", target)

    there = [name for name in PEERS if name in timings]
    rows = [ratio(name, OWN, PEERS[name]) for name in there] + [ratio(name, RESONANT) for name in there]
    rows += [claim(f"{versions[n]}, an epoch", t.median, "s") for n, t in timings.items()]
    rows += [
        claim(f"{versions[n]}, first pass with compilation", t.first, "s")
        for n, t in timings.items()
        if n != "snntorch"
    ]
    return rows + [claim(f"{versions[n]}, mean loss of the first batches", losses[n], "nats") for n in timings]


def draw(timings: dict[str, Timing], versions: dict[str, str]) -> plt.Figure:
    """Draw the time of an epoch; whiskers are the quartiles over rounds."""
    middle, low, high = np.array([t[:3] for t in timings.values()]).T
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(7.0, 2.4))
        colours = [{OWN: "C0", RESONANT: "C1"}.get(name, plotting.GUIDE) for name in timings]
        ax.barh([versions[n] for n in timings], middle, xerr=(middle - low, high - middle), color=colours)
        for row, value in enumerate(middle):
            ax.annotate(f"{value:.3g}", (high[row], row), (5, 0), textcoords="offset points", va="center")
        ax.set(xscale="log", xlim=(0.5 * middle.min(), 3.0 * high.max()), xlabel="an epoch of 512 sequences (s)")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
