"""What does one step of one neuron cost, forward and with its gradient, beside a compiled loop?

Question: how many nanoseconds does a neuron-step of ``jl.simulate`` take, how much does the gradient add, and how much
memory does it hold?

Method: ``LIF(dt=0.1)`` in float32 under white noise, v and spikes kept of every step; 1 to 8192 neurons with
parameters [N] each, and with scalars. The gradient is that of a sum of v and spikes, each weighed by fixed random
numbers, with respect to all six parameters, compiled. Beside it runs ``numba_loop.py``, loops over time and neurons
compiled by numba, with the same arithmetic in one thread; the spikes of both must be the same. A round times every
contender in turn, and the numbers are medians over rounds; compilation is left out, the checks and the dispatch of a
call are not. XLA may use all cores. Bytes: XLA's own account of the temporaries of the compiled gradient
(``memory_analysis().temp_size_in_bytes``), which leaves out its arguments (parameters, current, weights) and its
results, over N T. ``PreciseLIF`` and a LIF with two conductances for comparison.

Command: python experiments/benchmarks/neuron.py (builds .cache/peers/numba with pip where it is missing; --quick: a
smoke run that writes nothing and builds nothing)
"""

import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # claims.py lies in experiments/

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script
from timing import Timing, gradient, interleave, memory, output_weights, timed

import jaxlif as jl
from jaxlif import plotting
from jaxlif.neurons.lif import refractory_steps

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / ".cache" / "peers" / "numba"


@dataclass(frozen=True)
class Config:
    """Every number of the benchmark."""

    steps: tuple[tuple[int, int], ...] = ((1, 200_000), (32, 40_000), (512, 5_000), (8192, 400))  # N, T
    judged: int = 512  # the N of the targets
    dt: float = 0.1  # ms
    mean: float = 200.0  # pA; the rheobase is 150
    sd: float = 300.0  # pA, white
    rounds: int = 9


QUICK = Config(steps=((1, 2000), (32, 200)), judged=32, rounds=5)


class Case(NamedTuple):
    """One cell with its parameters and inputs [T, N]."""

    name: str
    cell: Any
    params: Any
    inputs: Any
    size: int
    steps: int


class Measured(NamedTuple):
    """A case's timings by "forward", "gradient" and, if it ran, "numba"; temporaries, bytes per neuron-step."""

    case: Case
    timings: dict[str, Timing]
    temporaries: float

    def nanoseconds(self, what: str) -> float:
        """Return the time of one neuron-step."""
        return 1e9 * self.timings[what].median / (self.case.size * self.case.steps)

    def ratio(self, what: str, to: str) -> float:
        """Return the ratio of two medians."""
        return self.timings[what].median / self.timings[to].median


class Loop:
    """The compiled loop in a process of its own, which answers lines."""

    def __init__(self, folder: str):
        script = Path(__file__).with_name("numba_loop.py")
        self.folder = Path(folder)
        self.process = subprocess.Popen(
            [python(PEER), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.version = self.process.stdout.readline().strip()

    def order(self, line: str) -> str:
        """Send one line and return the answer."""
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise SystemExit("the compiled loop stopped")
        return answer

    def load(self, case: Case) -> None:
        """Hand over a LIF's current and parameters."""
        path = self.folder / "case.npz"
        np.savez(path, **loop_arguments(case))
        self.order(f"load {path}")

    def run(self) -> float:
        """Run once and return the seconds."""
        return float(self.order("run"))

    def spikes(self) -> np.ndarray:
        """Return the spikes [T, N] of the last run."""
        path = self.folder / "spikes.npy"
        self.order(f"save {path}")
        return np.load(path)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def main(config: Config, write: bool) -> None:
    if write and not python(PEER).exists():
        build(PEER)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(folder) if python(PEER).exists() else None
        measured = {case.name: measure(config, case, loop) for case in cases(config)}
        if loop:
            loop.close()
    results = claims_of(config, measured, loop.version if loop else "")
    print(table(results))
    figure = draw(config, measured)
    if write:
        write_claims("benchmark_neuron", results, figure)


def python(environment: Path) -> Path:
    """Return the Python of a virtual environment."""
    return environment / "bin" / "python"


def build(environment: Path) -> None:
    """Make the environment of the compiled loop."""
    venv.create(environment, with_pip=True)
    subprocess.run([python(environment), "-m", "pip", "install", "-q", "numba", "numpy"], check=True)


def cases(config: Config) -> list[Case]:
    lif = jl.LIF(dt=config.dt)
    found = []
    for size, steps in config.steps:
        current = noise(config, steps, size)
        found.append(Case(f"LIF, parameters [N], N = {size}", lif, spread(size), current, size, steps))
        found.append(Case(f"LIF, scalar parameters, N = {size}", lif, scalars(), current, size, steps))
        if size == config.judged:
            found.append(
                Case(f"PreciseLIF, N = {size}", jl.PreciseLIF(dt=config.dt), spread(size), current, size, steps)
            )
            found.append(conductances(config, current))
    return found


def noise(config: Config, steps: int, size: int) -> jax.Array:
    return config.mean + config.sd * jax.random.normal(jax.random.key(size), (steps, size), jnp.float32)


def scalars() -> jl.LIFParams:
    return jax.tree.map(jnp.float32, jl.LIFParams())


def spread(size: int) -> jl.LIFParams:
    """Return parameters [N] that all differ a little."""
    leaves, tree = jax.tree.flatten(jl.LIFParams())
    keys = jax.random.split(jax.random.key(0), len(leaves))
    factors = [jax.random.uniform(key, (size,), jnp.float32, 0.98, 1.02) for key in keys]
    return tree.unflatten([x * factor for x, factor in zip(leaves, factors, strict=True)])


def conductances(config: Config, current: jax.Array) -> Case:
    """Return a LIF with excitatory and inhibitory conductances, on which 20 spikes a second of 2 nS arrive."""
    steps, size = current.shape
    arrivals = 2.0 * jax.random.bernoulli(jax.random.key(1), 0.02 * config.dt, (steps, 2, size)).astype(jnp.float32)
    synapse = jl.ConductanceParams(tau_syn=jnp.array([5.0, 10.0]), e_rev=jnp.array([0.0, -70.0]))
    params = jl.SynapticParams(neuron=spread(size), synapse=synapse)
    cell = jl.Synaptic(jl.LIF(dt=config.dt), jl.Conductance())
    return Case(f"LIF with two conductances, N = {size}", cell, params, jl.Drive(arrivals, current), size, steps)


def measure(config: Config, case: Case, loop: Loop | None) -> Measured:
    """Time one case's contenders in turn, and check the compiled loop's spikes."""
    grad, weights = gradient(case.cell), output_weights(case.cell, case.params, case.inputs)
    contenders = {
        "forward": timed(jl.simulate, case.cell, case.params, case.inputs),
        "gradient": timed(grad, case.params, case.inputs, weights),
    }
    if loop and isinstance(case.cell, jl.LIF):
        loop.load(case)
        contenders["numba"] = loop.run
    timings = interleave(contenders, config.rounds)
    if "numba" in contenders:
        same_spikes(case, loop.spikes())
    held = memory(grad, case.params, case.inputs, weights).temp_size_in_bytes
    return Measured(case, timings, held / (case.size * case.steps))


def loop_arguments(case: Case) -> dict[str, np.ndarray]:
    params = asdict(case.params)
    tau_m, t_ref = params.pop("tau_m"), params.pop("t_ref")
    decay, waiting = jnp.expm1(-case.cell.dt / tau_m), refractory_steps(t_ref, case.cell.dt)
    return {k: np.asarray(x) for k, x in (params | {"current": case.inputs, "decay": decay}).items()} | {
        "refractory_steps": np.asarray(waiting)
    }


def same_spikes(case: Case, spikes: np.ndarray) -> None:
    """Stop unless both simulations spiked at the same steps."""
    _, output = jl.simulate(case.cell, case.params, case.inputs)
    own = np.asarray(output.spikes) > 0
    differ = int(np.count_nonzero(own != spikes))
    if differ:
        raise SystemExit(f"{case.name}: the spikes differ in {differ} of {own.size} entries")
    print(f"{case.name}: {own.sum()} spikes, the same in both", file=sys.stderr)


def claims_of(config: Config, measured: dict[str, Measured], numba: str) -> list[dict[str, Any]]:
    """Return the three targets, then every number."""
    judged = measured[f"LIF, parameters [N], N = {config.judged}"]
    rows = []
    if "numba" in judged.timings:
        metric = f"forward, N = {config.judged}: time over that of a loop by numba {numba}"
        rows.append(claim(metric, judged.ratio("forward", "numba"), "", "<= 3"))
    metric = f"gradient over forward, N = {config.judged}: time"
    rows.append(claim(metric, judged.ratio("gradient", "forward"), "", "<= 4"))
    metric = f"gradient, N = {config.judged}: temporaries per neuron-step"
    rows.append(claim(metric, judged.temporaries, "B", "<= 12"))
    return rows + [row for m in measured.values() for row in numbers(m)]


def numbers(m: Measured) -> list[dict[str, Any]]:
    """Return the numbers of one case, without targets."""
    rows = [claim(f"{m.case.name}: {what}, per neuron-step", m.nanoseconds(what), "ns") for what in m.timings]
    rows.append(claim(f"{m.case.name}: gradient over forward", m.ratio("gradient", "forward")))
    if "numba" in m.timings:
        rows.append(claim(f"{m.case.name}: forward over numba", m.ratio("forward", "numba")))
    rows.append(claim(f"{m.case.name}: temporaries per neuron-step", m.temporaries, "B"))
    return rows + [claim(f"{m.case.name}: first call, compilation included", m.timings["gradient"].first, "s")]


def draw(config: Config, measured: dict[str, Measured]) -> plt.Figure:
    """Draw the time of a neuron-step against N, parameters [N]; bars are the quartiles over rounds."""
    lif = [measured[f"LIF, parameters [N], N = {size}"] for size, _ in config.steps]
    sizes = [size for size, _ in config.steps]
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 3.6))
        for what, label in (
            ("forward", "jaxlif, forward"),
            ("gradient", "jaxlif, gradient"),
            ("numba", "numba, forward"),
        ):
            if what in lif[0].timings:
                draw_line(ax, sizes, lif, what, label)
        ax.set(xscale="log", yscale="log", xlabel="neurons", ylabel="time per neuron-step (ns)")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        ax.minorticks_off()
        ax.set_title(f"LIF, dt = {config.dt:g} ms, float32, parameters [N]")
        ax.legend()
    return figure


def draw_line(ax: plt.Axes, sizes: list[int], lif: list[Measured], what: str, label: str) -> None:
    middle = np.array([m.nanoseconds(what) for m in lif])
    relative = np.array([[t.low / t.median, t.high / t.median] for t in (m.timings[what] for m in lif)]).T
    errors = np.abs(relative - 1.0) * middle
    ax.errorbar(sizes, middle, yerr=errors, marker="o", capsize=2.0, label=label)


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
