"""Does the exact gradient of spike times make a fitted neuron's spikes coincide better, where a surrogate does not?

Question: a plain LIF was fitted to a cell's voltage and its threshold chosen in closed loop. Near such a fit a
surrogate gradient was seen not to descend the loss of the hard spikes that it is meant for. ``PreciseLIF`` has exact
spike times and their exact gradient. Does a descent by it lower that loss, and do more of the model's spikes then
coincide with the cell's, on time that was not fitted?

Method: nine repeats of a frozen noise, the electrode taken off. Start: ``fit_recording`` of a plain LIF on 0-8 s. The
loss is the van Rossum distance (10 ms) of the model's hard spikes to the mean train of the repeats, in windows of
500 ms from 0.5 to 8 s; each window is simulated once for each repeat, whose recorded spikes are forced up to its start.
It is descended by Adam, at several learning rates, in four coordinates (of the six parameters the spikes determine no
more: v_rest and r_m only set the unit and the origin of the voltage): tau_m and t_ref as logarithms, v_th and v_reset
in units of v_th - v_rest at the start. Ways: "exact", ``PreciseLIF`` and autodiff; "surrogate", ``LIF`` with its
default surrogate; "random", without a gradient: random steps of the same length, kept where the loss of ``PreciseLIF``
falls. All have the same number of steps. Of all steps of all learning rates of a way, the one with the best
coincidences (4 ms, one-to-one, freely running from the recording's start) on 8-10 s is chosen; 10-14 s is scored once,
for it, for the step of the lowest loss and for the start. Whether a small step against the gradient lowers the hard
loss is asked at the start, window by window, and for the loss over all windows at points drawn around the start; random
directions of the same length are the measure. Standard errors are over repeats (jackknife): they do not hold what
another stretch of noise would change.

Command: JAXLIF_DATA=folder python experiments/exact_twin.py (about three minutes on one core; --quick: a smoke run that
writes nothing)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import claims
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.audit import Agreement, agreement, smoothed_slopes
from jaxlif.losses import van_rossum
from jaxlif.neurons.lif import LIFState, refractory_steps
from jaxlif.neurons.precise import PreciseState
from jaxlif.recordings import remove_electrode
from jaxlif.spiketrains import mean_coincidence_factor, reliability, spike_times


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    file: str = "l5_pyramidal_frozen_noise.npz"
    fitted: tuple[float, float] = (0.0, 8_000.0)  # ms
    chosen: tuple[float, float] = (8_000.0, 10_000.0)
    judged: tuple[float, float] = (10_000.0, 14_000.0)
    dt: float = 0.1  # ms, of the recording
    length: float = 500.0  # ms, of a window
    tau: float = 10.0  # ms, of the loss
    most: int = 64  # spikes of the model in a window that the exact loss has room for
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)  # of Adam
    num_steps: int = 60
    sizes: tuple[float, ...] = (0.0003, 0.003, 0.03)  # lengths of a trial step
    points: int = 48  # around the start
    spread: float = 0.02  # their standard deviation in each coordinate
    directions: int = 16  # random ones for each window
    delta: float = 4.0  # ms
    noise: float = 0.01  # standard deviation over which the loss is smoothed
    pairs: int = 64  # of opposite shifts
    seed: int = 0


QUICK = Config(
    fitted=(0.0, 2_000.0),
    judged=(8_000.0, 10_000.0),
    rates=(0.01,),
    num_steps=2,
    sizes=(0.01,),
    points=2,
    directions=2,
    pairs=4,
)
WAYS = ("exact", "surrogate", "random")
NAMES = ("tau_m", "t_ref", "v_th", "v_reset")
SILENT = 1e3  # mV: a threshold out of reach


class Cell(NamedTuple):
    """The cell: the current that all repeats received [T], pA, and their spikes [R, T]."""

    current: np.ndarray
    spikes: np.ndarray

    def trains(self, window: tuple[float, float], dt: float) -> list[np.ndarray]:
        """Return the spike times of every repeat in a window, ms from its start."""
        return [inside(np.asarray(spike_times(train, dt)), window) for train in self.spikes]


def inside(train: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    return train[(train > window[0]) & (train <= window[1])] - window[0]


class Windows(NamedTuple):
    """The windows of the loss: W, of T steps, each once for every one of R repeats."""

    before: jax.Array  # [L, W, 1] pA, up to the start
    during: jax.Array  # [T, W, 1] pA
    passed: jax.Array  # [W, R] steps of ``before`` up to the repeat's last spike in it
    times: jax.Array  # [W, K] ms from the start, the spikes of all repeats; inf where there are fewer
    raster: jax.Array  # [T, W, 1] the mean train of the repeats
    own: jax.Array  # [W] squared norm of the mean train, filtered


def windows_of(cell: Cell, config: Config) -> Windows:
    """Cut the fitted time, but not the recording's first window, which has no spikes before it."""
    dt, current, spikes = config.dt, cell.current, cell.spikes
    steps, first, stop = (round(t / dt) for t in (config.length, *config.fitted))
    starts = np.arange(max(first, steps), stop - steps + 1, steps)
    last = np.array([[np.flatnonzero(train[:s])[-1] + 1 for train in spikes] for s in starts])
    longest = int((starts[:, None] - last).max())
    cut = np.stack([current[s - longest : s + steps] for s in starts], axis=1)[..., None]
    counts = np.stack([spikes[:, s : s + steps].sum(axis=0) for s in starts], axis=1)
    trains = [dt * (1.0 + np.repeat(np.arange(steps), n)) for n in counts.T]
    times = np.stack([np.pad(t, (0, counts.sum(axis=0).max() - len(t)), constant_values=np.inf) for t in trains])
    own = [np.exp(-np.abs(t[:, None] - t) / config.tau).sum() / len(spikes) ** 2 for t in trains]
    return Windows(
        before=jnp.asarray(cut[:longest]),
        during=jnp.asarray(cut[longest:]),
        passed=jnp.asarray(last - (starts[:, None] - longest)),
        times=jnp.asarray(times),
        raster=jnp.asarray(counts[..., None] / len(spikes)),
        own=jnp.asarray(own),
    )


def params_at(z: jax.Array, start: jl.LIFParams) -> jl.LIFParams:
    """Return the parameters at coordinates [..., 4]; 0 is the start."""
    scale = start.v_th - start.v_rest
    return replace(
        jax.tree.map(jnp.asarray, start),
        tau_m=start.tau_m * jnp.exp(z[..., 0]),
        t_ref=start.t_ref * jnp.exp(z[..., 1]),
        v_th=start.v_th + scale * z[..., 2],
        v_reset=start.v_reset + scale * z[..., 3],
    )


def run(cell: jl.LIF | jl.PreciseLIF, params: jl.LIFParams, data: Windows) -> Any:
    """Return the output [T, W, R] of windows that begin with the recorded spikes forced.

    The last recorded spike leaves the neuron at v_reset and refractory; up to the start it then only integrates. It is
    held at v_reset before that spike too, so that all lanes begin together.
    """
    shape = data.passed.shape
    held: dict[str, jax.Array] = {name: jnp.broadcast_to(getattr(params, name), shape) for name in ("v_reset", "t_ref")}
    if isinstance(cell, jl.PreciseLIF):
        state: Any = PreciseState(held["v_reset"], held["t_ref"] + cell.dt * data.passed)
    else:
        state = LIFState(held["v_reset"], refractory_steps(held["t_ref"], cell.dt) + data.passed)
    before, during = (jnp.broadcast_to(x, (len(x), *shape)) for x in (data.before, data.during))
    state, _ = jl.simulate(cell, replace(params, v_th=SILENT), before, state)
    return jl.simulate(cell, params, during, state)[1]


def exact_losses(params: jl.LIFParams, data: Windows, config: Config) -> jax.Array:
    """Return the distance of every window and repeat [W, R], a function of the spikes' exact times."""
    output = run(jl.PreciseLIF(dt=config.dt), params, data)

    def distance(spikes, offset, times, own):
        (step,) = jnp.nonzero(jax.lax.stop_gradient(spikes) > 0, size=config.most, fill_value=-1)
        # More spikes than there is room for have no distance, rather than a wrong one.
        fired = jnp.where(jnp.sum(spikes) > config.most, jnp.nan, jnp.where(step >= 0, 1.0, 0.0))
        model = config.dt * step + offset[step]
        within, across = (jnp.exp(-jnp.abs(model[:, None] - t) / config.tau) for t in (model, times))
        return 0.5 * (fired @ within @ fired + own) - jnp.sum(fired @ across) / data.passed.shape[1]

    over_repeats = jax.vmap(distance, in_axes=(1, 1, None, None))
    return jax.vmap(over_repeats, in_axes=(1, 1, 0, 0))(output.spikes, output.spike_time, data.times, data.own)


def surrogate_losses(params: jl.LIFParams, data: Windows, config: Config) -> jax.Array:
    """Return the same distance [W, R] of the spikes on the grid, whose gradient is the surrogate's."""
    spikes = run(jl.LIF(dt=config.dt), params, data).spikes
    distance = partial(van_rossum, tau=config.tau, dt=config.dt)
    target = jnp.broadcast_to(data.raster, spikes.shape)
    return jax.vmap(jax.vmap(distance, in_axes=1), in_axes=1)(spikes, target)


LOSSES = {"exact": exact_losses, "surrogate": surrogate_losses, "random": exact_losses}
CELLS = {"exact": jl.PreciseLIF, "surrogate": jl.LIF, "random": jl.PreciseLIF}


class Problem(NamedTuple):
    """What a way descends, and from where."""

    way: str
    start: jl.LIFParams
    data: Windows
    config: Config

    def by_window(self, z: jax.Array) -> jax.Array:
        """Return the loss [W, 1] at coordinates [W, 1, 4], of each window its own."""
        losses = LOSSES[self.way](params_at(z, self.start), self.data, self.config)
        return jnp.mean(losses, axis=1, keepdims=True)

    def whole(self, z: jax.Array) -> jax.Array:
        """Return the mean loss at coordinates [4]."""
        return jnp.mean(LOSSES[self.way](params_at(z, self.start), self.data, self.config))


def paths(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Descend at every learning rate; return the coordinates [rates, steps + 1, 4] and the losses there."""
    config = problem.config
    walk = random_walk if problem.way == "random" else adam
    keys = jax.random.split(jax.random.key(config.seed), len(config.rates))
    found = jax.jit(jax.vmap(partial(walk, problem.whole, config.num_steps)))(jnp.asarray(config.rates), keys)
    return tuple(map(np.asarray, found))


def adam(loss, num_steps, rate, key):
    optimizer = optax.adam(1.0)

    def step(carry, _):
        z, state = carry
        value, slope = jax.value_and_grad(loss)(z)
        update, state = optimizer.update(slope, state)
        return (z + rate * update, state), (z, value)

    z = jnp.zeros(len(NAMES))
    return jax.lax.scan(step, (z, optimizer.init(z)), length=num_steps + 1)[1]


def random_walk(loss, num_steps, rate, key):
    """Try a step of the length of Adam's first, and keep it where the loss falls."""

    def step(carry, key):
        z, value = carry
        trial = z + rate * jax.random.normal(key, z.shape)
        after = loss(trial)
        better = after < value
        return (jnp.where(better, trial, z), jnp.where(better, after, value)), carry

    z = jnp.zeros(len(NAMES))
    return jax.lax.scan(step, (z, loss(z)), jax.random.split(key, num_steps + 1))[1]


def falls(loss, directions: int, sizes: tuple[float, ...], z: jax.Array, key: jax.Array) -> jax.Array:
    """Say where the loss is lower a step away [sizes, 1 + directions, ...]: against its gradient, and at random."""
    slope = jax.grad(lambda z: jnp.sum(loss(z)))(z)
    random = jax.random.normal(key, (directions, *z.shape))
    move = jnp.concatenate([-slope[None], random])
    move = move / jnp.linalg.norm(move, axis=-1, keepdims=True)
    trials = z + jnp.asarray(sizes).reshape((-1,) + (1,) * move.ndim) * move
    after = jax.lax.map(loss, trials.reshape((-1, *z.shape)))
    return (after < loss(z)).reshape((*trials.shape[:2], *after.shape[1:]))


class Local(NamedTuple):
    """What the gradient is worth near the start."""

    windows: np.ndarray  # [sizes, 2] share of windows whose loss falls: against the gradient, at random
    points: np.ndarray  # [sizes, 2] the same of points around the start, for the loss over all windows
    cosine: float  # with the slope of the loss seen from a little distance
    doubt: float  # its standard error


def local_evidence(problem: Problem) -> Local:
    """Take small steps from the start and from points around it."""
    config = problem.config
    first, second, third = jax.random.split(jax.random.key(config.seed), 3)
    z = jnp.zeros((problem.data.during.shape[1], 1, len(NAMES)))
    windows = jax.jit(partial(falls, problem.by_window, config.directions, config.sizes))(z, first)
    around = config.spread * jax.random.normal(second, (config.points, len(NAMES)))
    at_point = partial(falls, problem.whole, 1, config.sizes)
    points = jax.jit(partial(jax.lax.map, lambda x: at_point(*x)))((around, jax.random.split(third, config.points)))
    found = seen_from_afar(problem, third)
    by_move = np.asarray(windows).mean(axis=(2, 3)), np.asarray(points).mean(axis=0)
    pairs = (np.stack([share[:, 0], share[:, 1:].mean(axis=1)], axis=1) for share in by_move)
    return Local(*pairs, found.cosine, found.doubt)


def seen_from_afar(problem: Problem, key: jax.Array) -> Agreement:
    """Compare the gradient at the start with the slope of the loss smoothed over a standard deviation in each way."""
    z = jnp.zeros(len(NAMES))
    slope = np.asarray(jax.jit(jax.grad(problem.whole))(z))
    pairs, noise = problem.config.pairs, problem.config.noise
    return agreement(slope, *smoothed_slopes(problem.whole, z, key, noise, pairs))


def free_trains(way: str, params: jl.LIFParams, current: np.ndarray, config: Config) -> list[np.ndarray]:
    """Return the spike times, ms, of neurons [C] that run freely from the recording's start."""
    cell = CELLS[way](dt=config.dt)
    output = jax.jit(lambda p, x: jl.simulate(cell, p, x)[1])(params, jnp.asarray(current)[:, None])
    late = np.asarray(output.spike_time) if isinstance(cell, jl.PreciseLIF) else np.full(output.v.shape, config.dt)
    fired = np.asarray(output.spikes) > 0
    return [np.flatnonzero(on) * config.dt + offset[on] for on, offset in zip(fired.T, late.T, strict=True)]


def share(repeats: list[np.ndarray], model: np.ndarray, window: tuple[float, float], config: Config) -> float:
    """Return the coincidence factor of a train with the repeats, as a share of that among themselves."""
    options = {"duration": window[1] - window[0], "delta": config.delta}
    gamma = mean_coincidence_factor(repeats, [inside(model, window)], **options)
    return gamma / reliability(repeats, **options)


class Descent(NamedTuple):
    """What one way found, by learning rate and step, [rates, steps + 1, ...]."""

    z: np.ndarray
    losses: np.ndarray
    fitted: np.ndarray  # share of the reliability
    chosen: np.ndarray

    @property
    def best(self) -> tuple[int, int]:
        """The step with the most coincidences on the time that chooses, the earliest of them."""
        return np.unravel_index(np.argmax(self.chosen), self.chosen.shape)

    @property
    def lowest(self) -> tuple[int, int]:
        """The step with the lowest loss."""
        return np.unravel_index(np.argmin(self.losses), self.losses.shape)


def descend(problem: Problem, cell: Cell) -> Descent:
    """Descend, and score every step on the fitted time and on the time that chooses."""
    config = problem.config
    z, losses = paths(problem)
    current = cell.current[: round(config.chosen[1] / config.dt)]
    trains = [free_trains(problem.way, params_at(jnp.asarray(path), problem.start), current, config) for path in z]
    scores = []
    for window in (config.fitted, config.chosen):
        repeats = cell.trains(window, config.dt)
        scores.append(np.array([[share(repeats, train, window, config) for train in path] for path in trains]))
    return Descent(z, losses, *scores)


class Judged(NamedTuple):
    """Shares of the reliability on each stretch of time at one step, and what it gains over the start at the end."""

    fitted: float
    chosen: float
    judged: float
    gain: float
    error: float  # standard error of the gain over repeats


def jackknife_error(statistic: Callable[[list[np.ndarray]], float], repeats: list[np.ndarray]) -> float:
    """Return the standard error of a score over the repeats it was computed from, by leaving each of them out.

    A bootstrap would draw the same repeat twice, which coincides perfectly with itself and lifts every score.
    Source: Efron & Stein 1981, doi:10.1214/aos/1176345462.
    """
    scores = np.array([statistic(repeats[:i] + repeats[i + 1 :]) for i in range(len(repeats))])
    return float(np.sqrt((len(repeats) - 1) * scores.var()))


def judge(problem: Problem, cell: Cell, found: Descent) -> dict[str, Judged]:
    """Score the start and the steps that were picked; the last stretch of time is looked at here alone."""
    config = problem.config
    places = {"start": (0, 0), "chosen": found.best, "lowest loss": found.lowest}
    z = jnp.asarray(np.stack([found.z[place] for place in places.values()]))
    trains = free_trains(problem.way, params_at(z, problem.start), cell.current, config)
    repeats = cell.trains(config.judged, config.dt)

    def gain(train, repeats):
        return share(repeats, train, config.judged, config) - share(repeats, trains[0], config.judged, config)

    return {
        name: Judged(
            fitted=float(found.fitted[place]),
            chosen=float(found.chosen[place]),
            judged=share(repeats, train, config.judged, config),
            gain=gain(train, repeats),
            error=jackknife_error(partial(gain, train), repeats),
        )
        for (name, place), train in zip(places.items(), trains, strict=True)
    }


def held_out_losses(problem: Problem, cell: Cell, found: Descent) -> dict[str, float]:
    """Return the loss at the start and where it is lowest, in windows of the time that chooses."""
    config = replace(problem.config, fitted=problem.config.chosen)
    other = jax.jit(problem._replace(data=windows_of(cell, config)).whole)
    return {name: float(other(jnp.asarray(z))) for name, z in _ends(found)}


def _ends(found: Descent) -> Iterator[tuple[str, np.ndarray]]:
    yield "at the start", found.z[0, 0]
    yield "where that of the fitted time is lowest", found.z[found.lowest]


def start_of(config: Config) -> tuple[jl.LIFParams, Cell]:
    """Fit the plain LIF to a recording without its electrode."""
    recording = jl.read_recording(claims.recording_path(config.file))
    if recording.dt != config.dt:
        raise ValueError(f"dt = {recording.dt:g} ms: the configuration says {config.dt:g} ms")
    spikes = jl.SpikeRule().find(recording)
    clean = remove_electrode(recording, spikes, "auto").recording
    # What the fit predicts of other time is not looked at.
    start = jl.fit_recording(clean, "lif", electrode=None, window=config.fitted).params
    return start, Cell(recording.current.mean(axis=0), spikes)


class Result(NamedTuple):
    """What one way gave."""

    descent: Descent
    held_out: dict[str, float]  # losses
    judged: dict[str, Judged]
    local: Local | None


def main(config: Config, write: bool) -> None:
    start, cell = start_of(config)
    with jax.enable_x64(True):
        data = windows_of(cell, config)
        results = {way: run_way(Problem(way, start, data, config), cell) for way in WAYS}
    claims.publish("exact_twin", claims_of(results, cell, config), lambda: draw(results, config), write=write)


def run_way(problem: Problem, cell: Cell) -> Result:
    found = descend(problem, cell)
    local = None if problem.way == "random" else local_evidence(problem)
    return Result(found, held_out_losses(problem, cell, found), judge(problem, cell, found), local)


def claims_of(results: dict[str, Result], cell: Cell, config: Config) -> Iterator[dict[str, Any]]:
    spans = {name: f"{a / 1e3:g}-{b / 1e3:g} s" for name, (a, b) in _stretches(config)}
    for name, window in _stretches(config):
        counts = [len(train) for train in cell.trains(window, config.dt)]
        yield claims.claim(f"the cell: spikes of a repeat on {spans[name]}, mean", np.mean(counts))
    for way, result in results.items():
        losses = result.descent.losses
        yield claims.claim(f"{way}: loss on {spans['fitted']}, at the start", losses[0, 0])
        yield claims.claim(f"{way}: loss on {spans['fitted']}, lowest of all steps", losses.min())
        yield claims.claim(
            f"{way}: loss on {spans['fitted']}, last step, mean over learning rates", losses[:, -1].mean()
        )
        for words, loss in result.held_out.items():
            yield claims.claim(f"{way}: loss on {spans['chosen']}, {words}", loss)
        for place, scores in result.judged.items():
            for name, span in spans.items():
                yield claims.claim(f"{way}, {place}: Γ/R on {span}", getattr(scores, name))
        for place in ("chosen", "lowest loss"):
            scores = result.judged[place]
            metric = f"{way}, {place}: Γ/R on {spans['judged']}, gain over the start"
            yield claims.claim(metric, scores.gain, sd=scores.error)
    for way, result in results.items():
        if result.local is not None:
            yield from _local_claims(way, result.local, config)


def _stretches(config: Config) -> tuple[tuple[str, tuple[float, float]], ...]:
    return (("fitted", config.fitted), ("chosen", config.chosen), ("judged", config.judged))


def _local_claims(way: str, local: Local, config: Config) -> Iterator[dict[str, Any]]:
    metric = f"{way}: cosine of the gradient with the slope of the loss smoothed over {config.noise:g}"
    yield claims.claim(metric, local.cosine, sd=local.doubt)
    for words, shares in (("windows", local.windows), ("points", local.points)):
        for size, pair in zip(config.sizes, shares, strict=True):
            for move, value in zip(("against the gradient", "at random"), pair, strict=True):
                yield claims.claim(f"{way}: {words} whose loss falls, step of {size:g} {move}", 100.0 * value, "%")


def draw(results: dict[str, Result], config: Config) -> plt.Figure:
    """Draw the losses and the scores along the descents."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
        for color, (way, result) in zip(plotting.PALETTE, results.items(), strict=False):
            found, rate = result.descent, result.descent.lowest[0]
            for ax, values in zip(axes, (found.losses, found.fitted, found.chosen), strict=True):
                ax.plot(values.T, color=color, linewidth=0.6, alpha=0.4)
                ax.plot(values[rate], color=color, linewidth=1.6, label=f"{way}, {config.rates[rate]:g}")
        titles = ("loss, fitted time", "Γ/R, fitted time", "Γ/R, time that chooses the step")
        for ax, title in zip(axes, titles, strict=True):
            ax.set(title=title, xlabel="steps")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            title="bold: the learning rate of the lowest loss",
            loc="outside lower center",
            ncols=len(results),
        )
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
