"""How do the time and the memory of a simulation and of its gradient grow with steps and neurons, and under a budget?

Question: is the time linear in the steps T and in the neurons N, from where on, and what does it cost to hold the
gradient of a million steps within a budget of memory?

Method: ``LIF(dt=0.1)`` in float32 under white noise, forward and gradient with respect to all six parameters, [N] each.
T grows for one neuron, then N at a fixed T. Exponent: the slope of log time over log T or N between the two largest
values; 1 is linear, 0 is free.
Budget: the objective is the mean voltage of one trace of a million steps (a squared error would keep the whole voltage
for itself, 4 MB more), compiled with the fewest checkpoints that fit by XLA's account of arguments, results and
temporaries, and timed in turn with that without a budget. The gradients of all must agree. Within a panel of the figure
all contenders are timed in turn, and the numbers are medians over rounds; compilation is left out.

Command: python experiments/benchmarks/scaling.py (--quick: a smoke run that writes nothing)
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from timing import Timing, gradient, interleave, output_weights, timed

import jaxlif as jl
from jaxlif import plotting

#: Timings by what was done, "forward" or "gradient", and T or N.
Sweep = dict[tuple[str, int], Timing]


@dataclass(frozen=True)
class Config:
    """Every number of the benchmark."""

    steps: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)  # T, for one neuron
    sizes: tuple[int, ...] = (1, 8, 64, 512, 8192)  # N
    steps_of_sizes: int = 1_000
    long: int = 1_000_000  # steps of the trace under a budget
    budget_mb: float = 64.0
    tight_mb: float = 15.0  # below what the gradient takes without checkpoints
    dt: float = 0.1  # ms
    mean: float = 200.0  # pA; the rheobase is 150
    sd: float = 300.0  # pA, white
    rounds: int = 7


QUICK = Config(
    steps=(1_000, 4_000), sizes=(1, 16), long=20_000, budget_mb=1.28, tight_mb=0.35, steps_of_sizes=200, rounds=5
)


def main(config: Config, write: bool) -> None:
    over_steps = sweep(config, {steps: (steps, 1) for steps in config.steps})
    over_sizes = sweep(config, {size: (config.steps_of_sizes, size) for size in config.sizes})
    rows = exponents("T", over_steps) + exponents("N", over_sizes)
    rows += per_step("T", over_steps, {steps: steps for steps in config.steps})
    rows += per_step("N", over_sizes, {size: size * config.steps_of_sizes for size in config.sizes})
    rows = budgets(config) + rows
    print(table(rows))
    figure = draw(config, over_steps, over_sizes)
    if write:
        write_claims("benchmark_scaling", rows, figure)


def sweep(config: Config, shapes: dict[int, tuple[int, int]]) -> Sweep:
    """Time forward and gradient for every shape (T, N), all in turn."""
    cell = jl.LIF(dt=config.dt)
    grad, contenders = gradient(cell), {}
    for at, (steps, size) in shapes.items():
        params, current = equal(size), noise(config, (steps, size))
        weights = output_weights(cell, params, current)
        contenders["forward", at] = timed(jl.simulate, cell, params, current)
        contenders["gradient", at] = timed(grad, params, current, weights)
    return interleave(contenders, config.rounds)


def noise(config: Config, shape: tuple[int, ...]) -> jax.Array:
    return config.mean + config.sd * jax.random.normal(jax.random.key(0), shape, jnp.float32)


def equal(size: int) -> jl.LIFParams:
    return jax.tree.map(lambda x: jnp.full(size, x, jnp.float32), jl.LIFParams())


def exponents(axis: str, found: Sweep) -> list[dict[str, Any]]:
    rows = []
    for what in ("forward", "gradient"):
        low, high = sorted(at for kind, at in found if kind == what)[-2:]
        slope = np.log(found[what, high].median / found[what, low].median) / np.log(high / low)
        rows.append(claim(f"{what}: time grows with {axis} to the power, {axis} = {low} to {high}", slope))
    return rows


def per_step(axis: str, found: Sweep, neuron_steps: dict[int, int]) -> list[dict[str, Any]]:
    return [
        claim(f"{what}, {axis} = {at}: per neuron-step", 1e9 * timing.median / neuron_steps[at], "ns")
        for (what, at), timing in found.items()
    ]


def budgets(config: Config) -> list[dict[str, Any]]:
    """Plan the gradient of one long trace without a budget and within two, and time all three in turn."""
    objective = mean_voltage(jl.LIF(dt=config.dt))
    params, current = jax.tree.map(jnp.float32, jl.LIFParams()), noise(config, (config.long,))
    limits = {"no budget": None, **{f"budget {mb:g} MB": mb for mb in (config.budget_mb, config.tight_mb)}}
    plans = {name: planned(objective, params, current, mb) for name, mb in limits.items()}
    same_gradients([plan.program(params, current) for plan in plans.values()])
    timings = interleave({name: timed(plan.program, params, current) for name, plan in plans.items()}, config.rounds)
    rows = []
    for name, limit in limits.items():
        rows += budget_rows(f"gradient of {config.long} steps, {name}", limit, plans[name])
        ratio = timings[name].median / timings["no budget"].median
        if limit is not None:
            rows.append(claim(f"gradient of {config.long} steps, {name}: time over no budget", ratio, "", "<= 2"))
        rows.append(claim(f"gradient of {config.long} steps, {name}: time", 1e3 * timings[name].median, "ms"))
    return rows


class Plan(NamedTuple):
    """A compiled value and gradient, what it needs, MB, and the steps in its segments, None for no checkpoint."""

    program: Callable[..., Any]
    megabytes: float
    checkpoint: int | None


def planned(objective: Callable[..., jax.Array], params: Any, current: jax.Array, limit: float | None) -> Plan:
    """Compile the gradient with the fewest checkpoints that fit a limit, MB.

    Segments of K steps keep the state at T / K places and one segment, least near the root of T.
    """
    root = round(len(current) ** 0.5)
    for checkpoint in (None, root, root // 4, 4 * root):
        gradient = jax.value_and_grad(partial(objective, checkpoint=checkpoint))
        program = jax.jit(gradient).lower(params, current).compile()
        memory = program.memory_analysis()
        parts = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
        if limit is None or sum(parts) <= 1e6 * limit:
            return Plan(program, sum(parts) / 1e6, checkpoint)
    raise ValueError(f"limit = {limit:g} MB: no number of checkpoints needs so little")


def budget_rows(name: str, limit: float | None, plan: Plan) -> list[dict[str, Any]]:
    target = None if limit is None else f"<= {limit:g}"
    return [
        claim(f"{name}: arguments, results and temporaries", plan.megabytes, "MB", target),
        claim(f"{name}: steps in a checkpoint (0 for none)", plan.checkpoint or 0),
    ]


def mean_voltage(cell: jl.LIF) -> Callable[[Any, Any, int | None], jax.Array]:
    """Return the objective, mV."""

    def objective(params, current, checkpoint=None):
        return jnp.mean(jl.simulate(cell, params, current, checkpoint=checkpoint)[1].v)

    return objective


def same_gradients(found: list[Any]) -> None:
    """Stop where checkpoints changed the gradient by more than the rounding of a long sum."""
    first, *others = [np.array(jax.tree.leaves(grad)) for _, grad in found]
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-3)


def draw(config: Config, over_steps: Sweep, over_sizes: Sweep) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
        draw_sweep(left, over_steps, "steps T", "one neuron")
        draw_sweep(right, over_sizes, "neurons N", f"{config.steps_of_sizes} steps")
        left.set_ylabel("time (ms)")
        left.legend()
    return figure


def draw_sweep(ax: plt.Axes, found: Sweep, label: str, title: str) -> None:
    for what in ("forward", "gradient"):
        at = [x for kind, x in found if kind == what]
        ax.plot(at, [1e3 * found[what, x].median for x in at], marker="o", label=what)
    start, end = at[0], at[-1]
    last = 1e3 * found["gradient", end].median
    ax.plot([start, end], [last * start / end, last], color=plotting.GUIDE, linestyle=":", label="linear")
    ax.set(xscale="log", yscale="log", xlabel=label, title=title)


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
