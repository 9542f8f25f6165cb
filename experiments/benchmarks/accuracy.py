"""How exact are spike times and rates for a given cost, on the grid and off it?

Question: what does a spike time's last decimal cost, and how much cheaper is it from ``PreciseLIF``?

Method: noise that is held for 1 ms at a time drives the note's neuron; it is the same current at every dt, so that all
errors are the simulation's. Reference: a loop in float64 NumPy in this file, from event to event, with the closed form
of the crossing; it shares no code with the library. ``LIF`` and ``PreciseLIF`` run in float32 at dt from 0.01 to 1 ms.
A grid spike counts at its step's end, where the library puts it. Spikes match where they are less than half of t_ref
apart, which is unique; error: the mean distance of matched spikes, which forgives the coarse grids their largest
errors; the unmatched, missed or made up, are counted beside it. Rate error: the mean over traces of the difference in
spikes over the duration. Cost: the compiled gradient of one trace with respect to all six parameters, which contains
the forward pass, per second of simulated time; all are timed in turn, medians over rounds, compilation left out.

Command: python experiments/benchmarks/accuracy.py (--quick: a smoke run that writes nothing)
"""

import math
import sys
from dataclasses import dataclass
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
from timing import gradient, interleave, output_weights, timed

import jaxlif as jl
from jaxlif import plotting

CELLS = {"LIF": jl.LIF, "PreciseLIF": jl.PreciseLIF}


@dataclass(frozen=True)
class Config:
    """Every number of the benchmark."""

    dts: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # ms; each goes into ``held``
    held: float = 1.0  # ms for which the current stays the same
    duration: float = 4000.0  # ms
    traces: int = 16  # for the errors; one is timed
    mean: float = 130.0  # pA; the rheobase is 150
    sd: float = 60.0  # pA
    tau: float = 10.0  # ms
    rounds: int = 7


QUICK = Config(dts=(0.1, 1.0), duration=500.0, traces=2, rounds=5)


class Errors(NamedTuple):
    """Mean error of matched spikes, ms; share of unmatched spikes; mean rate error, Hz."""

    time: float
    unmatched: float
    rate: float


def main(config: Config, write: bool) -> None:
    key = jax.random.key(0)
    keys = jax.random.split(key, config.traces)
    draw_one = jax.vmap(
        lambda k: jl.stimulus.ornstein_uhlenbeck(k, config.mean, config.sd, config.tau, config.duration, config.held)
    )
    current = draw_one(keys).T
    truth = [exact_spikes(jl.LIFParams(), trace, config.held) for trace in np.asarray(current, np.float64).T]
    found = {at: errors(config, *at, current, truth) for at in points(config)}
    costs = cost(config, current[:, 0])
    rows = targets(config, found, costs, truth) + numbers(found, costs)
    print(table(rows))
    figure = draw(config, found, costs)
    if write:
        write_claims("benchmark_accuracy", rows, figure)


def points(config: Config) -> list[tuple[str, float]]:
    """Return every cell with every dt."""
    return [(name, dt) for name in CELLS for dt in config.dts]


def exact_spikes(params: jl.LIFParams, current: np.ndarray, held: float) -> np.ndarray:
    """Return the spike times of one trace, from event to event: an independent reference in float64."""
    v, wake, times = params.v_rest, 0.0, []
    for n, level in enumerate(current):
        target, end = params.v_rest + params.r_m * level, (n + 1) * held
        now = max(n * held, wake)
        while now < end:
            crossing = math.inf
            if target > params.v_th:
                crossing = now + params.tau_m * math.log((target - v) / (target - params.v_th))
            if crossing > end:
                v = target + (v - target) * math.exp(-(end - now) / params.tau_m)
                break
            times.append(crossing)
            v, wake = params.v_reset, crossing + params.t_ref
            now = wake
    return np.array(times)


def errors(config: Config, name: str, dt: float, current: jax.Array, truth: list[np.ndarray]) -> Errors:
    """Simulate all traces and compare their spikes with the reference."""
    cell = CELLS[name](dt=dt)
    _, output = jl.simulate(cell, jl.LIFParams(), refine(config, dt, current))
    trains = [spike_times(trace, name, dt) for trace in np.moveaxis(np.asarray(offsets(output)), -1, 0)]
    window = jl.LIFParams().t_ref / 2.0
    gaps = [nearest(train, true) for train, true in zip(trains, truth, strict=True)]
    matched = np.concatenate([gap[gap < window] for gap in gaps])
    total = sum(map(len, trains)) + sum(map(len, truth))
    rates = [abs(len(a) - len(b)) / (config.duration / 1000.0) for a, b in zip(trains, truth, strict=True)]
    return Errors(float(matched.mean()), 1.0 - 2.0 * len(matched) / total, float(np.mean(rates)))


def refine(config: Config, dt: float, current: jax.Array) -> jax.Array:
    """Return the current, given every ``held`` ms, on a grid of dt."""
    return jnp.repeat(current, round(config.held / dt), axis=0)


def offsets(output: Any) -> jax.Array:
    """Return the time of a spike within its step, -1 where there is none, nan for its end."""
    time = output.spike_time if hasattr(output, "spike_time") else jnp.nan
    return jnp.where(output.spikes > 0, time, -1.0)


def spike_times(offset: np.ndarray, name: str, dt: float) -> np.ndarray:
    """Return one trace's spike times, ms, in float64."""
    steps = np.flatnonzero(offset != -1.0)
    within = np.full(len(steps), dt) if name == "LIF" else offset[steps].astype(np.float64)
    return steps * dt + within


def nearest(train: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return every true spike's distance to the nearest of the train."""
    if not len(train) or not len(true):
        return np.full(len(true), np.inf)
    return np.abs(train[None] - true[:, None]).min(axis=1)


def cost(config: Config, current: jax.Array) -> dict[tuple[str, float], float]:
    """Return the seconds that a gradient takes per simulated second."""
    params, contenders = jax.tree.map(jnp.float32, jl.LIFParams()), {}
    for name, dt in points(config):
        cell, inputs = CELLS[name](dt=dt), refine(config, dt, current)
        weights = output_weights(cell, params, inputs)
        contenders[name, dt] = timed(gradient(cell), params, inputs, weights)
    timings = interleave(contenders, config.rounds)
    return {at: 1000.0 * timing.median / config.duration for at, timing in timings.items()}


def targets(config: Config, found: dict, costs: dict, truth: list[np.ndarray]) -> list[dict[str, Any]]:
    precise, grid = ("PreciseLIF", max(config.dts)), ("LIF", min(config.dts))
    name = f"PreciseLIF at {precise[1]:g} ms"
    other = f"LIF at {grid[1]:g} ms"
    rate = sum(map(len, truth)) / (config.traces * config.duration / 1000.0)
    return [
        claim(f"{name}: spike-time error over that of {other}", found[precise].time / found[grid].time, "", "< 1"),
        claim(f"cost of {name} over {other}", costs[precise] / costs[grid], "", "<= 0.05"),
        claim("spikes per second of the reference", rate, "Hz"),
    ]


def numbers(found: dict, costs: dict) -> list[dict[str, Any]]:
    rows = []
    for (name, dt), error in found.items():
        rows.append(claim(f"{name}, dt = {dt:g} ms: spike-time error", 1e3 * error.time, "µs"))
        rows.append(claim(f"{name}, dt = {dt:g} ms: unmatched spikes", 100.0 * error.unmatched, "%"))
        rows.append(claim(f"{name}, dt = {dt:g} ms: rate error", error.rate, "Hz"))
        rows.append(claim(f"{name}, dt = {dt:g} ms: gradient of a simulated second", 1e3 * costs[name, dt], "ms"))
    return rows


def draw(config: Config, found: dict, costs: dict) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 3.8))
        for name in CELLS:
            x = [1e3 * costs[name, dt] for dt in config.dts]
            y = [1e3 * found[name, dt].time for dt in config.dts]
            ax.plot(x, y, marker="o", label=name)
            for dt, *at in zip(config.dts, x, y, strict=True):
                ax.annotate(f"{dt:g}", at, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        ax.set(xscale="log", yscale="log", xlabel="gradient of one simulated second (ms)")
        ax.set(ylabel="spike-time error (µs)", title="Error against cost; the numbers are dt in ms")
        ax.margins(y=0.12)
        ax.legend(loc="center right")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
