"""Can weights, time constants and the delay of a network be fitted by gradient to what its populations do?

Question: of a network of excitatory and inhibitory neurons only statistics are known: the rate, the coefficient of
variation of intervals, and the pairwise correlation of spike counts in bins of 2, 5 and 20 ms of both populations. Does
the gradient through their spikes lead to the parameters that made them?

Method: the statistics are those of a teacher, 200 excitatory and 50 inhibitory noisy LIF neurons with recurrent
synapses and a fluctuating current into each, over 30 trials of 2 s. The network that is fitted has the same rules but
connections of its own, and starts with four weights, two membrane time constants and the delay off by a random factor.
An update simulates two trials of new noise; the loss is the product of their deviations from the targets, of rates in
their logarithms, in units of a trial's standard deviation: unlike a square it has no share of the trials' own variance.
It goes down in coordinates in which the surrogate's Jacobian, at the start and once more, is round; at first a rate may
be a tenth off. In a recurrent network the slope through time grows without bound: states are passed on without it every
50 ms. Held out: new noise, 40 s in one piece, against the teacher alike. On the first seed the surrogate's Jacobian,
and that of jaxlif's default, are compared with differences over +-10 % that share their noise. The errors that the
teacher's 60 s leave follow from that Jacobian and the trials' standard deviations; that the two networks' connections
differ is not in them. The numbers of ``Config`` were set by hand on seeds 9 and 0.

Command: python experiments/network_statistics.py (some ten minutes on two cores; --quick: a smoke run, writes nothing)
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from claims import claim, over_seeds, publish
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.losses import count_correlation, interval_cv
from jaxlif.networks import FixedInDegree, Network, Population, Projection, build, noise_drive, run

NAMES = ("E->E", "E->I", "I->E", "I->I", "tau_m of E", "tau_m of I", "delay")


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[int, int] = (200, 50)  # E, I
    degrees: tuple[int, int] = (40, 20)  # synapses from E and from I that a neuron gets
    truth: tuple[float, ...] = (20.0, 20.0, -50.0, -50.0, 20.0, 10.0, 2.0)  # pA, ms; as NAMES
    tau_syn: tuple[float, float] = (3.0, 6.0)  # ms
    dt: float = 1.0  # ms
    delta_v: float = 3.0  # mV, of the escape noise
    lambda_0: float = 0.3  # 1/ms
    mean: float = 150.0  # pA, of the current into each neuron; the rheobase is 150
    sd: float = 60.0  # pA
    tau: float = 5.0  # ms
    widths: tuple[float, ...] = (2.0, 5.0, 20.0)  # ms, of the bins in which spikes are counted
    surrogate: jl.surrogate.Surrogate = jl.Gaussian(0.2)  # 3 mV
    detach_reset: bool = False
    settle: int = 200  # steps that do not count
    steps: int = 2000  # that do
    segment: int = 50  # steps through which the gradient goes back
    target_trials: int = 30
    off: float = 0.15  # standard deviation of the logarithm of a parameter's error at the start
    # Updates; rate, which falls to 0 along a cosine; least deviation of a rate that counts as one, of its logarithm.
    stages: tuple[tuple[int, float, float], ...] = ((30, 0.1, 0.1), (60, 0.15, 0.02))
    longest: float = 10.0  # of a slope, in coordinates in which the loss is round
    jacobian_trials: int = 6
    difference: float = 0.1
    difference_trials: int = 16
    test: float = 40_000.0  # ms


QUICK = Config(
    seeds=(0,), sizes=(40, 10), degrees=(8, 4), steps=400, target_trials=2, stages=((2, 0.1, 0.1),), jacobian_trials=2,
    difference_trials=2, test=1000.0,
)  # fmt: skip


class Result(NamedTuple):
    """What one seed gave; statistics are those of E, then those of I: rate, CV, correlations."""

    start: np.ndarray  # [7] logarithm of start over truth
    end: np.ndarray  # [7] the same after the fit
    losses: np.ndarray
    before: np.ndarray  # [S] on held-out noise
    after: np.ndarray
    teacher: np.ndarray
    again: np.ndarray  # the teacher once more
    seconds: float


def main(config: Config, write: bool) -> None:
    results = [run_seed(config, seed) for seed in config.seeds]
    slopes = compare_slopes(config, config.seeds[0])
    publish(
        "network_statistics", claims_of(config, results, slopes), lambda: draw(config, results, slopes), write=write
    )


def run_seed(config: Config, seed: int) -> Result:
    keys = jax.random.split(jax.random.key(seed), 8)
    truth = jnp.zeros(len(NAMES))
    teacher, student = (make_network(config, key) for key in keys[:2])
    trials = every_trial(config, teacher, truth, jax.random.split(keys[2], config.target_trials))
    target, sd = jnp.mean(trials, axis=0), jnp.std(trials, axis=0, ddof=1)
    start = config.off * jax.random.normal(keys[3], truth.shape)
    begun = time.perf_counter()
    losses, end = fitted(config, student, start, target, sd, keys[4])
    seconds = time.perf_counter() - begun
    tested = [
        held_out(config, network, at, key)
        for network, at, key in (
            (student, start, keys[5]),
            (student, end, keys[5]),
            (teacher, truth, keys[6]),
            (teacher, truth, keys[7]),
        )
    ]
    return Result(np.asarray(start), np.asarray(end), losses, *tested, seconds)


def make_network(config: Config, key: jax.Array) -> Network:
    neuron = jl.AdaptiveLIF(dt=config.dt, surrogate=config.surrogate, detach_reset=config.detach_reset)
    cell = jl.EscapeNoise(jl.Synaptic(neuron, jl.ExponentialCurrent()))
    noise = {"delta_v": config.delta_v, "lambda_0": config.lambda_0}
    params = jl.SynapticParams(
        neuron=jl.AdaptiveLIFParams(v_rest=-70.0, v_th=-55.0, v_reset=-60.0, t_ref=2.0, **noise),
        synapse=jl.CurrentParams(tau_syn=jnp.asarray(config.tau_syn)),
    )
    kinds = {"cell": cell, "params": params, "receptors": ("exc", "inh"), "v": lambda rng, n: rng.uniform(-70, -55, n)}
    return build(
        key,
        {name: Population(size=n, **kinds) for name, n in zip("EI", config.sizes, strict=True)},
        [
            Projection(source=source, target="*", rule=FixedInDegree(n), weight=sign, delay=2.0, receptor=receptor)
            for source, n, sign, receptor in zip("EI", config.degrees, (1.0, -1.0), ("exc", "inh"), strict=True)
        ],
        [noise_drive(name, mean=config.mean, sd=config.sd, tau=config.tau) for name in "EI"],
        max_delay=6.0,
        interpolate=True,
    )


def placed(config: Config, params: jl.networks.PopulationParams, at: jax.Array) -> jl.networks.PopulationParams:
    """Return parameters of the network, the free ones at the truth times the exponential of ``at``."""
    values = jnp.asarray(config.truth) * jnp.exp(at)
    neurons = {
        name: replace(params.neurons[name], neuron=replace(params.neurons[name].neuron, tau_m=tau_m))
        for name, tau_m in zip("EI", values[4:6], strict=True)
    }
    weight = dict(zip(NAMES[:4], values[:4], strict=True))
    return replace(params, weight=weight, delay=dict.fromkeys(weight, values[6]), neurons=neurons)


def statistics(config: Config, network: Network, at: jax.Array, key: jax.Array) -> jax.Array:
    """Return the statistics [S] of one trial, rates as logarithms, with the slopes of the surrogate."""
    params = replace(placed(config, network.params, at), key=key)

    def segment(state, inputs):
        state, output = jl.simulate(network.cell, params, inputs, jax.lax.stop_gradient(state))
        return state, output.spikes

    parts = (config.settle + config.steps) // config.segment
    _, spikes = jax.lax.scan(segment, network.state, jnp.zeros((parts, config.segment)))
    return jnp.concatenate([of_spikes(config, s.reshape(-1, s.shape[-1])[config.settle :]) for s in spikes.values()])


def of_spikes(config: Config, spikes: jax.Array) -> jax.Array:
    correlations = [count_correlation(spikes, config.dt, width=width) for width in config.widths]
    rate = 1000.0 / config.dt * jnp.mean(spikes)
    return jnp.stack([jnp.log(rate + 0.1), interval_cv(spikes), *correlations])


def every_trial(config: Config, network: Network, at: jax.Array, keys: jax.Array) -> jax.Array:
    """Return the statistics [trials, S]."""
    return _trials(config, network.cell, network.params, network.state, at, keys)


def slopes_of(config: Config, network: Network, at: jax.Array, keys: jax.Array) -> jax.Array:
    """Return the surrogate's slopes [S, 7], mean over trials."""
    return jnp.mean(_slopes(config, network.cell, network.params, network.state, at, keys), axis=0)


@partial(jax.jit, static_argnums=(0, 1))
def _trials(config, cell, params, state, at, keys):
    return jax.lax.map(partial(statistics, config, Network(cell, params, state, {}), at), keys)


@partial(jax.jit, static_argnums=(0, 1))
def _slopes(config, cell, params, state, at, keys):
    slopes = jax.jacrev(partial(statistics, config, Network(cell, params, state, {})))
    return jax.lax.map(lambda key: slopes(at, key), keys)


class Problem(NamedTuple):
    """A network, where it starts and along which axes it is moved; the targets [S], and their units."""

    params: Any
    state: Any
    start: jax.Array
    axes: jax.Array
    target: jax.Array
    unit: jax.Array


def fitted(
    config: Config, network: Network, at: jax.Array, target: jax.Array, sd: jax.Array, key: jax.Array
) -> tuple[np.ndarray, jax.Array]:
    """Return the losses, and where the fit ended."""

    def loss(params, problem, key):
        free = problem.start + problem.axes @ params["z"]
        own = Network(network.cell, problem.params, problem.state, {})
        one, other = ((statistics(config, own, free, k) - problem.target) / problem.unit for k in jax.random.split(key))
        return jnp.sum(one * other)

    losses = []
    is_rate = jnp.arange(len(sd)) % (2 + len(config.widths)) == 0
    for updates, rate, least in config.stages:
        unit = jnp.where(is_rate, jnp.maximum(sd, least), sd)
        key, first, second = jax.random.split(key, 3)
        slopes = slopes_of(config, network, at, jax.random.split(first, config.jacobian_trials))
        problem = Problem(network.params, network.state, at, round_axes(config, slopes / unit[:, None]), target, unit)
        steps = optax.sgd(optax.cosine_decay_schedule(rate, updates))
        fit = jl.fit(
            loss,
            {"z": jnp.zeros(len(NAMES))},
            {"z": jl.REAL},
            optimizer=optax.chain(optax.clip_by_global_norm(config.longest), steps),
            num_steps=updates,
            data=problem,
            key=second,
        )
        at = at + problem.axes @ fit.params["z"]
        losses.append(fit.losses)
    return np.concatenate(losses), at


def round_axes(config: Config, slopes: jax.Array) -> jax.Array:
    """Return axes [7, 7] along which the loss has the same curvature, that of a start's own spread added."""
    values, vectors = jnp.linalg.eigh(slopes.T @ slopes + jnp.eye(len(NAMES)) / config.off**2)
    return vectors / jnp.sqrt(values)


def held_out(config: Config, network: Network, at: jax.Array, key: jax.Array) -> np.ndarray:
    """Return the statistics [S] of one long run, as its Activity has them."""
    params = replace(placed(config, network.params, at), key=key)
    activity = run(network._replace(params=params), config.test + config.settle * config.dt)
    activity = activity.since(config.settle * config.dt)
    return np.concatenate(
        [[activity.rates[p], activity.cv(p), *(activity.correlation(p, w) for w in config.widths)] for p in "EI"]
    )


class Slopes(NamedTuple):
    """Of all statistics [S, 7], in units of a trial's standard deviation: by differences, and by surrogates."""

    differences: np.ndarray
    ours: np.ndarray
    default: np.ndarray


def compare_slopes(config: Config, seed: int) -> Slopes:
    keys = jax.random.split(jax.random.key(seed), 8)
    network, h = make_network(config, keys[0]), config.difference
    trials = jax.random.split(keys[2], config.difference_trials)
    sd = jnp.std(every_trial(config, network, jnp.zeros(len(NAMES)), trials), axis=0, ddof=1)[:, None]
    columns = [
        jnp.mean(every_trial(config, network, h * e, trials) - every_trial(config, network, -h * e, trials), axis=0)
        for e in jnp.eye(len(NAMES))
    ]
    some = trials[: config.jacobian_trials]
    plain = replace(config, surrogate=jl.SuperSpike(), detach_reset=True, segment=config.settle + config.steps)
    both = [slopes_of(c, make_network(c, keys[0]), jnp.zeros(len(NAMES)), some) for c in (config, plain)]
    return Slopes(*(np.asarray(x / sd) for x in (jnp.stack(columns, axis=1) / (2.0 * h), *both)))


def claims_of(config: Config, results: list[Result], slopes: Slopes) -> list[dict]:
    seconds = config.target_trials * config.steps * config.dt / 1000.0
    information = config.target_trials * slopes.differences.T @ slopes.differences
    errors = 100.0 * np.sqrt(np.diag(np.linalg.inv(information + np.eye(len(NAMES)) / config.off**2)))
    start, end = (100.0 * np.expm1(np.array([getattr(r, x) for r in results])) for x in ("start", "end"))
    count = 2 + len(config.widths)
    rate, cv, correlation = [0, count], [1, count + 1], [i for i in range(2 * count) if i % count > 1]

    def away(which, name, part, *, relative=False):
        scale = 100.0 if relative else 1.0
        unit = [np.abs(r.teacher[part]) if relative else 1.0 for r in results]
        return [
            scale * np.max(np.abs(getattr(r, which)[part] - r.teacher[part]) / u)
            for r, u in zip(results, unit, strict=True)
        ]

    claims = []
    for name, part, relative, unit in (
        ("rate", rate, True, "%"), ("CV", cv, False, ""), ("correlation", correlation, False, ""),
    ):  # fmt: skip
        for which, words in (("before", "before"), ("after", "fitted"), ("again", "the teacher itself, other noise")):
            metric = f"held out, {words}: largest error of a {name}"
            claims.append(over_seeds(metric, away(which, name, part, relative=relative), unit))
    for i, name in enumerate(NAMES):
        claims.append(over_seeds(f"{name}: error at the start", np.abs(start[:, i]), "%"))
        claims.append(over_seeds(f"{name}: error after the fit", np.abs(end[:, i]), "%"))
        claims.append(claim(f"{name}: standard error that {seconds:g} s of the teacher leave", errors[i], "%"))
    # Combinations of the parameters' logarithms, from the least to the best determined.
    _, axes = np.linalg.eigh(information)
    for words, part in (("least determined combination", axes[:, :1]), ("three best determined ones", axes[:, -3:])):
        for which, when in (("start", "at the start"), ("end", "after the fit")):
            values = [100.0 * np.sqrt(np.mean((getattr(r, which) @ part) ** 2)) for r in results]
            claims.append(over_seeds(f"{words}: error {when}, RMS", values, "%"))
    for words, found in (("this surrogate", slopes.ours), ("the default, through all time", slopes.default)):
        for name, part in (("rates", rate), ("CVs", cv), ("correlations", correlation)):
            cosine, ratio = alike(found[part], slopes.differences[part])
            claims.append(claim(f"slopes of {name}, {words}: cosine with differences", cosine))
            claims.append(claim(f"slopes of {name}, {words}: length over differences", ratio))
    return [*claims, over_seeds("fit of one seed", [r.seconds for r in results], "s")]


def alike(found: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Return the cosine of two Jacobians, and the ratio of their lengths."""
    sizes = np.linalg.norm(found), np.linalg.norm(known)
    return float(np.sum(found * known) / np.prod(sizes)), float(sizes[0] / sizes[1])


def draw(config: Config, results: list[Result], slopes: Slopes) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.0, 4.2), layout="constrained")
        for i, (color, r) in enumerate(zip(plotting.PALETTE, results, strict=False)):
            at = np.arange(len(NAMES)) + 0.2 * (i - 1)
            left.plot(at, np.exp(r.start), "o", mfc="none", color=color, markersize=5)
            left.plot(at, np.exp(r.end), "o", color=color, markersize=5, label=f"seed {config.seeds[i]}")
            unit = np.abs(r.teacher)
            middle.plot(
                np.arange(len(unit)) + 0.2 * (i - 1), r.before / unit, "o", mfc="none", color=color, markersize=5
            )
            middle.plot(np.arange(len(unit)) + 0.2 * (i - 1), r.after / unit, "o", color=color, markersize=5)
        left.axhline(1.0, color=plotting.GUIDE, linewidth=0.8, zorder=0)
        left.plot([], [], "o", mfc="none", color=plotting.GUIDE, label="start")
        left.set_xticks(range(len(NAMES)), NAMES, rotation=45, ha="right")
        left.set(ylabel="over the truth", title="Parameters")
        left.legend(fontsize="small")
        signs = np.sign(results[0].teacher)
        middle.plot(range(len(signs)), signs, "_", color=plotting.GUIDE, markersize=20, zorder=0)
        words = ["rate", "CV", *(f"corr. {w:g} ms" for w in config.widths)]
        middle.set_xticks(range(len(signs)), [f"{w}, {p}" for p in "EI" for w in words], rotation=45, ha="right")
        middle.set(ylabel="over the teacher's size", title="Held out: statistics")
        right.plot(slopes.differences.ravel(), slopes.ours.ravel(), "o", color=plotting.PALETTE[0], markersize=3)
        right.axline((0.0, 0.0), slope=1.0, color=plotting.GUIDE, linewidth=0.8, zorder=0)
        for axis in (right.set_xscale, right.set_yscale):
            axis("symlog", linthresh=1.0)
        right.set(xlabel="differences (sd of a trial)", ylabel="surrogate", title="Slopes")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
