"""The threshold, reset and refractory period that make the spikes of current steps: how many, and when the first."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import Bounds
from jaxlif.fitting.fi_curve import STARTS, STEPS, coordinate_limits, coordinate_start, descend, lowest, neuron_at
from jaxlif.fitting.intervals import Estimate, sandwich
from jaxlif.fitting.membrane import UNSEEN
from jaxlif.fitting.step_family import Family
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings.protocol import step_family
from jaxlif.theory import firing_rate, rheobase, spike_latency

NAMES = ("tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref")
SOFT = 0.02  # of the square of a count: how sharply one spike more sets in
SEVERAL = 8.0  # spikes, from which on their noise is a share of them
AT_ONCE = 2.0  # ms that a latency is uncertain by however short it is
LEAST, MOST = (0.3, 0.05), (1.0, 1.0)  # noise, of a count of few spikes and of log latency, that is believed
ROUNDS = 3  # of fitting and of learning the noise of both
T_REF, DEPTH = (3.0, 30.0), (np.log(10.0), 1.0)  # weak priors: mean and deviation, ms; of v_th - v_reset, log mV
PAD = 32  # sweeps that programs are compiled for are a multiple of this


class Steps(NamedTuple):
    """Steps and their spikes, [S]: pA before and in them, ms, number, ms to the first (NaN without), weight."""

    held: Any
    current: Any
    duration: Any
    count: Any
    latency: Any
    weight: Any


def steps_of(family: Family) -> Steps:
    """Return the sweeps that are not in block; a first spike that follows others is no latency."""
    dt, rows = family.recording.dt, []
    for test, rest, held in zip(step_family(family.recording).tests, *family.baselines, strict=True):
        times = dt * (np.flatnonzero(family.spikes[test.sweep, test.start : test.stop]) + 1)
        first = times[0] if len(times) and np.isfinite(rest) else np.nan
        if test.level < family.ceiling:
            rows.append((np.nan_to_num(held), test.level, dt * (test.stop - test.start), len(times), first, 1.0))
    return Steps(*np.array(rows, float).T)


def responses(params: LIFParams, steps: Steps) -> tuple[Array, Array]:
    """Return the expected number of spikes in each step and the time to the first, ms, inf where there is none. A train
    from the first on has n or n + 1 intervals, each as often: half a spike is added.
    """
    fires = steps.current > rheobase(params)
    safe = jnp.where(fires, steps.current, rheobase(params) + 1.0)
    first = spike_latency(params, safe, v_0=params.v_rest + params.r_m * steps.held)
    more = jnp.where(fires, (steps.duration - first) * firing_rate(params, safe) / 1000.0 + 0.5, -0.5)
    return 0.5 * (more + jnp.sqrt(more**2 + 4.0 * SOFT)), jnp.where(fires, first, jnp.inf)


def residuals(params: LIFParams, steps: Steps, noise: Any) -> Array:
    """Return by what counts and latencies differ from the cell's, [2, S], in units of their noise."""
    count, first = responses(params, steps)
    fired = jnp.isfinite(first) & jnp.isfinite(steps.latency)
    own, cell = (jnp.where(fired, x, 1.0) + AT_ONCE for x in (first, steps.latency))
    few = (count - steps.count) / jnp.maximum(1.0, steps.count / SEVERAL)
    return jnp.stack([steps.weight * few / noise[0], steps.weight * jnp.log(own / cell) / noise[1]])


_residuals = jax.jit(residuals)
_counts = jax.jit(lambda params, steps: responses(params, steps)[0])


def prior(params: LIFParams, membrane: Any) -> Array:
    """Return how far tau_m lies from what the voltage says (log mean, deviation), and t_ref and reset from usual."""
    depth = jnp.log(params.v_th - params.v_reset)
    rows = ((jnp.log(params.tau_m), membrane), (params.t_ref, T_REF), (depth, DEPTH))
    return jnp.stack([(x - mean) / deviation for x, (mean, deviation) in rows])


@jax.jit
def _fits(neuron: LIFParams, limits: Any, steps: Steps, weights: Array, noise: Array, known: Any, starts: Array) -> Any:
    """Return for each row of weights [W, S] the neuron that fits best, with its coordinates [W, n]."""

    def _errors(weight: Array, z: Array) -> Array:
        params = neuron_at(neuron, limits, z)
        own = residuals(params, steps._replace(weight=weight), noise)
        return jnp.concatenate([own.ravel(), prior(params, known)])

    def _one(weight: Array, z: Array) -> tuple[Array, Any]:
        z = descend(partial(_errors, weight), z, STEPS)
        return jnp.sum(_errors(weight, z) ** 2), (neuron_at(neuron, limits, z), z)

    return lowest(*jax.vmap(jax.vmap(_one, (None, 0)), (0, None))(weights, starts))


class SpikeFit(NamedTuple):
    """A neuron; its errors; and the f-I table, with the expected rates and those of fits to every second level."""

    params: LIFParams
    estimate: Estimate | None
    curve: dict[str, list[float]]


def fit_spikes(
    membrane: LIFParams, known: Estimate, family: Family, *, bounds: Bounds, free_tau_m: bool = True, seed: int = 0
) -> SpikeFit:
    """Fit threshold, reset and refractory period, and tau_m within its errors, to counts and first spikes of steps."""
    table, found = family.rising, steps_of(family)
    limits = coordinate_limits(membrane, table.currents, table.rates, bounds)
    limits |= {"tau_m": bounds["tau_m"]} if free_tau_m else {}
    level = np.abs(found.current[:, None] - table.currents).argmin(axis=1)
    even = level % 2 == 0
    rows = np.stack([np.ones(len(level)), even, ~even])
    extra = -len(level) % PAD
    steps = Steps(*(np.pad(x, (0, extra), mode="edge") for x in found))
    spread = float(np.sqrt(known.covariance[0, 0])) / membrane.tau_m
    around = np.log(membrane.tau_m), max(spread, 1e-3)
    draws = np.random.default_rng(seed).normal(size=(STARTS, len(limits)))
    draws[0] = 0.0
    starts = draws + coordinate_start(membrane, table.currents, table.rates, limits)
    noise, weights = np.array([1.0, 0.2]), np.pad(rows, ((0, 0), (0, extra)))
    for _ in range(ROUNDS):
        neurons, z = jax.device_get(_fits(membrane, limits, steps, weights, noise, around, starts))
        params = jax.tree.map(lambda x: float(x[0]), neurons)
        left = noise[:, None] * np.asarray(_residuals(params, steps, noise))[:, : len(level)]
        counts = [len(level) - len(limits) + 1, max(int(np.isfinite(found.latency).sum()) - 1, 1)]
        noise = np.sqrt(np.sum(left**2, axis=1) / np.maximum(counts, 1)).clip(LEAST, MOST)
        starts = np.concatenate([z, starts[: STARTS - len(z)]])
    each = [jax.tree.map(lambda x, row=row: float(x[row]), neurons) for row in range(3)]
    rates = [_level_rates(params, found, level, len(table.currents)) for params in each]
    held_out = np.where(np.arange(len(table.currents)) % 2 == 0, rates[2], rates[1])
    columns = {"current_pA": table.currents, "rate_Hz": table.rates, "fitted_rate_Hz": rates[0]}
    curve = {name: x.tolist() for name, x in (columns | {"held_out_rate_Hz": held_out}).items()}
    return SpikeFit(params, _estimate(params, known, found, noise), curve)


def _level_rates(params: LIFParams, steps: Steps, level: np.ndarray, levels: int) -> np.ndarray:
    """Return the mean expected rate at each of so many levels, Hz."""
    rates = 1000.0 * np.asarray(_counts(params, steps)) / steps.duration
    return np.asarray(np.bincount(level, rates, levels) / np.bincount(level, minlength=levels).clip(1))


@jax.jit
def _linear(values: Array, steps: Steps, noise: Array) -> tuple[Array, Array, Array, Array]:
    """Return the slopes of prior and residuals by all six parameters, the residuals, and the expected counts."""

    def _at(values: Array) -> LIFParams:
        return LIFParams(**dict(zip(NAMES, values, strict=True)))

    usual = jax.jacfwd(lambda x: prior(_at(x), (0.0, 1.0))[1:])(values)
    slopes = jax.jacfwd(lambda x: residuals(_at(x), steps, noise))(values)
    return usual, slopes, residuals(_at(values), steps, noise), responses(_at(values), steps)[0]


def _estimate(params: LIFParams, known: Estimate, steps: Steps, noise: np.ndarray) -> Estimate | None:
    """Estimate the errors of all six parameters by the scatter of sweeps or by their noise, whichever is larger. Where
    spikes pull tau_m away from what the voltage says, that counts as an error.
    """
    values = jnp.array([getattr(params, name) for name in NAMES])
    usual, slopes, left, counts = map(np.asarray, _linear(values, steps, noise))
    fired = (counts > 0.5) & (steps.count > 0)
    if fired.sum() < 3 or not np.isfinite(slopes).all():
        return None
    told = np.zeros((6, 6))
    told[:3, :3] = np.linalg.inv(known.covariance)
    fixed = told + usual.T @ usual
    curvature = np.einsum("ksi,ksj->ij", slopes, slopes) + fixed
    scores = np.einsum("ksi,ks->si", slopes, left)
    count = len(scores)
    scattered = scores.T @ scores * count / (count - 1) + fixed
    least = count * UNSEEN**2
    covariance, other = (sandwich(curvature, j, least=least) for j in (curvature, scattered))
    larger = np.sqrt((np.diag(other) / np.diag(covariance)).clip(1.0))
    covariance = covariance * np.outer(larger, larger)
    covariance[0, 0] += (params.tau_m - known.values[0]) ** 2
    covariance[:3, :3] = np.where(np.eye(3), np.maximum(covariance[:3, :3], known.covariance), covariance[:3, :3])
    return Estimate(NAMES, np.asarray(values), covariance, min(known.freedom, max(count - 6, 1)))
