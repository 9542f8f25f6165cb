"""What does one spiking layer cost, forward and gradient, in jaxlif, in five other libraries, and as bare matmuls?

Question: how long does one pass take, the loss and its gradient with respect to the weights, for a projection and its
LIF neurons, feed-forward and with all-to-all recurrence?

Method: spikes [T, B, N_in] of probability 0.1 in float32 -> weights without bias -> LIF neurons whose membrane decays
by exp(-1/20) in a step, threshold 1, reset by subtraction or to zero, a surrogate gradient. The loss is the mean of
all spikes times fixed normal numbers, so that every output has its own cotangent; the gradient is that of the weights,
recurrent ones included, and nothing else. All contenders read the same numbers. Each runs in a process of its own, by
``peers/<name>.py``, whose first lines say which of the library's ways it takes, the fastest on a CPU that we found, and
what differs: surrogates, and reset by subtraction or to zero, at once or one step late. Differing resets make the
firing differ a little. The matmuls are those of the forward and the gradient, in JAX, with nothing between them
(``peers/matmuls.py``).

A round times every contender in turn, the others asleep, after a pause that lets their threads stop spinning and
that lasts, within limits, until no other program runs; the numbers are medians over rounds. Compilation is left out and
given apart, as the first pass. All may use all cores. ``OMP_WAIT_POLICY=PASSIVE`` keeps PyTorch's threads from spinning
for each other, which takes them ten to a hundred times as long as soon as another program has one of the cores.

Command: python experiments/benchmarks/layer.py (before it, experiments/benchmarks/peers.sh builds the libraries'
environments; one that is missing is left out; --quick: a smoke run that writes nothing)
"""

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent)]  # claims.py lies in experiments/

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script
from matplotlib.ticker import LogLocator
from peers.serve import Problem
from servers import Server, Stopped, Turns, leave_out, require_built
from timing import Timing, interleave

from jaxlif import plotting

OWN, MATMULS = "jaxlif", "matmuls"
#: The other libraries, and the target of their time over that of jaxlif.
PEERS = {"snntorch": ">= 10", "spikingjelly": ">= 2", "norse": None, "spyx": ">= 1", "jaxpike": ">= 1"}


@dataclass(frozen=True)
class Config(Turns):
    """Every number of the benchmark, but for those of the turns."""

    layers: tuple[tuple[int, int, int, int], ...] = ((500, 16, 512, 512), (100, 32, 128, 256))  # T, B, N_in, N_out
    rate: float = 0.1  # spikes per input and step
    gain: float = 16.0  # of the projection, units of the rheobase
    gain_recurrent: float = 1.0


QUICK = Config(layers=((20, 4, 32, 32), (10, 4, 16, 32)), at_least=0.01, patience=0, rounds=5)


class Measured(NamedTuple):
    """The timings of one layer by contender, and their spikes per neuron-step."""

    problem: Problem
    timings: dict[str, Timing]
    rates: dict[str, float]

    @property
    def name(self) -> str:
        """The layer in words."""
        kind = "recurrent" if self.problem.recurrent else "feed-forward"
        return f"{self.problem.num_in} to {self.problem.num_out}, {kind}"

    def ratio(self, what: str, to: str) -> float:
        """Return the ratio of two medians."""
        return self.timings[what].median / self.timings[to].median


def main(config: Config, write: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        servers = start(config, folder)
        measured = [measure(config, problem, servers) for problem in problems(config, folder)]
        for server in servers.values():
            server.close()
    versions = {name: f"{name} {server.version}" for name, server in servers.items()} | {MATMULS: "bare matmuls"}
    disturbed = 100.0 * np.mean([turn for server in servers.values() for turn in server.disturbed])
    results = [*claims_of(measured, versions), claim("turns that began while another program ran", disturbed, "%")]
    print(table(results))
    figure = draw(measured, versions)
    if write:
        write_claims("benchmark_layer", results, figure)


def start(config: Config, folder: str) -> dict[str, Server]:
    """Start every contender that is there, and say why another is not."""
    servers = {}
    for name in (*PEERS, OWN, MATMULS):
        try:
            require_built(name)
            servers[name] = Server(name, config, folder)
        except Stopped as reason:
            leave_out(name, reason)
    return servers


def problems(config: Config, folder: str) -> Iterable[Problem]:
    """Write each layer's numbers and yield it without and with recurrence."""
    for sizes in config.layers:
        problem = Problem(False, *sizes, folder)
        for name, numbers in draws(config, problem).items():
            numbers.astype(np.float32).tofile(problem.path(name))
        yield problem
        yield problem._replace(recurrent=True)


def draws(config: Config, problem: Problem) -> dict[str, np.ndarray]:
    random, shapes = np.random.default_rng(0), problem.shapes
    return {
        "inputs": random.random(shapes["inputs"]) < config.rate,
        "cotangents": random.standard_normal(shapes["cotangents"]),
        "weight": config.gain / problem.num_in**0.5 * random.standard_normal(shapes["weight"]),
        "recurrent": config.gain_recurrent / problem.num_out**0.5 * random.standard_normal(shapes["recurrent"]),
    }


def measure(config: Config, problem: Problem, servers: dict[str, Server]) -> Measured:
    """Time all contenders in turn; one that stops is left out from here on."""
    loaded = {}
    for name, server in list(servers.items()):
        try:
            loaded[name] = server.load(problem)
        except Stopped as reason:
            leave_out(name, reason)
            del servers[name]
    timings = interleave({name: servers[name].run for name in loaded}, config.rounds, at_least=0.0)
    timings = {name: timing._replace(first=loaded[name][1]) for name, timing in timings.items()}
    found = Measured(problem, timings, {name: rate for name, (rate, _) in loaded.items() if name != MATMULS})
    print(f"{found.name}: {', '.join(f'{n} {1e3 * t.median:.3g} ms' for n, t in timings.items())}", file=sys.stderr)
    return found


def claims_of(measured: list[Measured], versions: dict[str, str]) -> list[dict[str, Any]]:
    """Return each layer's ratios, the largest's with the bare matmuls as a stretch target, then every number."""
    rows = []
    for m in measured:
        rows += ratios(m, versions)
        rows.append(against_matmuls(m, target="<= 1.5" if m is measured[0] else None))
    return rows + [row for m in measured for row in numbers(m, versions)]


def ratios(m: Measured, versions: dict[str, str]) -> list[dict[str, Any]]:
    there = [name for name in PEERS if name in m.timings]
    return [
        claim(f"{m.name}: time of {versions[name]} over jaxlif", m.ratio(name, OWN), "", PEERS[name]) for name in there
    ]


def against_matmuls(m: Measured, target: str | None) -> dict[str, Any]:
    stretch = " (stretch)" if target else ""
    return claim(f"{m.name}: time of jaxlif over its bare matmuls{stretch}", m.ratio(OWN, MATMULS), "", target)


def numbers(m: Measured, versions: dict[str, str]) -> list[dict[str, Any]]:
    rows = [claim(f"{m.name}: {versions[name]}, one pass", 1e3 * t.median, "ms") for name, t in m.timings.items()]
    rows += [claim(f"{m.name}: {versions[name]}, first pass", t.first, "s") for name, t in m.timings.items()]
    return rows + [
        claim(f"{m.name}: {versions[n]}, spikes per neuron-step", 100.0 * r, "%") for n, r in m.rates.items()
    ]


def draw(measured: list[Measured], versions: dict[str, str]) -> plt.Figure:
    """Draw the time of a pass, a panel for each layer; whiskers are the quartiles over rounds."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(8.0, 5.2), sharey=True)
        for ax, m in zip(axes.flat, measured, strict=True):
            draw_bars(ax, m, versions)
        for ax in axes[1]:
            ax.set_xlabel("one forward and gradient (ms)")
    return figure


def draw_bars(ax: plt.Axes, m: Measured, versions: dict[str, str]) -> None:
    names = [name for name in versions if name in m.timings]
    times = [[1e3 * t.median, 1e3 * (t.median - t.low), 1e3 * (t.high - t.median)] for t in map(m.timings.get, names)]
    middle, low, high = np.array(times).T
    colours = [{OWN: "C0", MATMULS: "C1"}.get(name, plotting.GUIDE) for name in names]
    ax.barh([versions[name] for name in names], middle, xerr=(low, high), color=colours, error_kw={"elinewidth": 1.0})
    for row, (value, end) in enumerate(zip(middle, middle + high, strict=True)):
        ax.annotate(f"{value:.3g}", (end, row), (5, 0), textcoords="offset points", va="center", fontsize="small")
    ax.set(xscale="log", title=f"{m.name}, T = {m.problem.steps}, batch {m.problem.batch}")
    ax.set_xlim(0.5 * middle.min(), 3.0 * middle.max())
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
