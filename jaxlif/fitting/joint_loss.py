"""The joint likelihood of spikes and voltage of a forced adaptive neuron, minimised in whitened coordinates.

The loss is worse conditioned than 1e5: a single amplitude and its time constant trade for one another. In coordinates
in which its information is the identity L-BFGS needs some tens of steps, in single precision too. An evaluation over a
whole recording takes far longer than a call from Python, so that one compiled gradient serves the optimiser
and the held-out score.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import minimize
from tqdm import tqdm

from jaxlif.fitting.bounds import REAL, Bounds, Coordinates, coordinates
from jaxlif.fitting.forced_adaptive import ForcedSweeps, JointScore, forced_adaptive, joint_score, log_rate
from jaxlif.losses import point_process_log_likelihood
from jaxlif.neurons.adaptive import AdaptiveLIFParams

POSITIVE = (0.0, np.inf)
FREE: dict[str, tuple[float, float]] = {
    "tau_m": POSITIVE,
    "r_m": POSITIVE,
    "v_rest": REAL,
    "v_reset": REAL,
    "eta.*": REAL,
    "tau_eta.*": POSITIVE,
    "v_th": REAL,
    "delta_v": POSITIVE,
    "gamma.*": REAL,
    "tau_gamma.*": POSITIVE,
    "coupling.b": REAL,
    "coupling.tau": POSITIVE,
    "coupling.v_i": REAL,
    "coupling.k": POSITIVE,
}
BEND_WIDTH = 3.0  # mV, give or take a factor e
TAU_RANGE = (2.0, 500.0)  # ms; beyond, a time constant is penalised: a trace says nothing about it
ROUNDS = (15, 20, 30, 30, 30, 30)  # the most steps before each new whitening
ENOUGH = 2.0  # nats: a round that gains less is the last
FINE = 0.1  # nats: so is a step within a round
VOLTAGE_MEMORY = 25.0  # ms: how long an error of the voltage lasts, so that samples are not counted as independent


class Sample(NamedTuple):
    """What the loss is taken on: some sweeps, and what is not free.

    ``params`` fill in what is not free, with the jumps left at the end of the refractory period; ``bend`` is where v_i
    started, mV; ``variance`` that of the voltage's error, mV²; ``share`` that of the penalties which these sweeps bear.
    """

    sweeps: Any
    params: AdaptiveLIFParams
    bend: Array
    variance: Array
    share: Array


@dataclass(frozen=True)
class JointLoss:
    r"""The loss :math:`-L + \frac{w}{2} (SSE / \sigma^2 + N \log \sigma^2)`: spikes and voltage by their likelihoods.

    It adds up over sweeps. :math:`w = dt / (2 \cdot 25\,ms)` counts voltages less than a memory apart as one. Weak
    penalties keep time constants within 2 to 500 ms, k within some factor e of 3 mV (a narrow bend is as good as a
    corner, where the loss is flat in log k) and v_i within some 15 mV of its start. The jumps' coordinates are what is
    left of them at the end of the refractory period: before, nothing shows them, and a jump would trade for its time
    constant.

    Args:
        coordinates: the free parameters.
        dt: sampling interval, ms.
    """

    coordinates: Coordinates
    dt: float

    def __call__(self, vector: Array, sample: Sample) -> tuple[Array, JointScore]:
        """Return the loss at a vector of free coordinates, and the score it is made of."""
        params = self.params(vector, sample)
        score = joint_score(params, sample.sweeps, self.dt)
        voltage = score.squares / sample.variance + score.compared * jnp.log(sample.variance)
        penalty = sample.share * _penalty(params, sample.bend)
        return 0.5 * self.weight * voltage - score.log_likelihood + penalty, score

    @property
    def weight(self) -> float:
        """The share of a sample of voltage that counts, w."""
        return self.dt / (2.0 * VOLTAGE_MEMORY)

    def params(self, vector: Array, sample: Sample) -> AdaptiveLIFParams:
        """Return the parameters at a vector of free coordinates."""
        free = {name: vector[i] for i, (name, _) in enumerate(self.coordinates.free)}
        return _scaled_jumps(self.coordinates.to_params(free, sample.params), 1.0)

    def vector(self, params: AdaptiveLIFParams) -> np.ndarray:
        """Return the free coordinates of parameters, in double precision."""
        free = self.coordinates.to_free(_scaled_jumps(params, -1.0))
        return np.array([float(free[name]) for name, _ in self.coordinates.free])


def _scaled_jumps(params: AdaptiveLIFParams, sign: float) -> AdaptiveLIFParams:
    """Carry the jumps from the end of the refractory period back to the spike, or, with -1, the other way."""

    def carried(jumps, taus):
        return tuple(jump * jnp.exp(sign * params.t_ref / tau) for jump, tau in zip(jumps, taus, strict=True))

    return replace(params, eta=carried(params.eta, params.tau_eta), gamma=carried(params.gamma, params.tau_gamma))


def _penalty(params: AdaptiveLIFParams, bend: Array) -> Array:
    low, high = map(float, np.log(TAU_RANGE))
    taus = (*params.tau_eta, *params.tau_gamma, *([params.coupling.tau] if params.coupling else []))
    outside = (jnp.maximum(jnp.log(t) - high, 0.0) + jnp.maximum(low - jnp.log(t), 0.0) for t in taus)
    penalty = 20.0 * sum((x**2 for x in outside), jnp.zeros_like(bend))
    if params.coupling is None:
        return penalty
    width = jnp.log(params.coupling.k) - float(np.log(BEND_WIDTH))
    return penalty + 0.5 * width**2 + 0.5 * ((params.coupling.v_i - bend) / 15.0) ** 2


def joint_loss(
    params: AdaptiveLIFParams,
    parts: Sequence[ForcedSweeps],
    dt: float,
    bounds: Bounds = FREE,
    *,
    variance: float | None = None,
) -> tuple[JointLoss, "Samples"]:
    """Make the loss and what it works on from a start.

    Args:
        params: the start, scalars.
        parts: the recorded sweeps, in parts of one shape, which the loss is compiled for.
        dt: sampling interval, ms.
        bounds: the free parameters; those of terms that ``params`` do not have are left away.
        variance: of the voltage's error, mV²; by default that at the start.
    """
    known = {name: pair for name, pair in bounds.items() if _has(params, name)}
    dtype = parts[0].voltage.dtype
    start = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    loss = JointLoss(coordinates(start, known), dt)
    bend = jnp.asarray(0.0 if params.coupling is None else params.coupling.v_i, dtype)
    numbers = bend, jnp.asarray(variance or 1.0, dtype), jnp.asarray(1.0 / len(parts), dtype)
    samples = [Sample(part, _scaled_jumps(start, -1.0), *numbers) for part in parts]
    return loss, samples if variance else with_variance(loss, params, samples)


def free_bounds(names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the bounds of the parameters named alone.

    Example:
        >>> free_bounds(["eta.1"])
        {'eta.1': (-inf, inf)}
    """
    return {name: pair for name in names for pattern, pair in FREE.items() if fnmatchcase(name, pattern)}


Samples = list[Sample]


def with_variance(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples) -> Samples:
    """Return the samples with the variance of the voltage's error at some parameters.

    Args:
        loss: the loss.
        params: where.
        samples: what it works on.
    """
    score = evaluate(loss, loss.vector(params), samples)[2]
    squares, compared = float(score.squares), float(score.compared)
    variance = jnp.asarray(max(squares / max(compared, 1.0), 1e-6), samples[0].bend.dtype)
    return [sample._replace(variance=variance) for sample in samples]


def _has(params: AdaptiveLIFParams, pattern: str) -> bool:
    value = getattr(params, pattern.split(".")[0])
    return value is not None and not (isinstance(value, tuple) and not value)


@partial(jax.jit, static_argnums=0)
def _value_and_gradient(loss: JointLoss, vector: Array, sample: Sample) -> Any:
    return jax.value_and_grad(loss, has_aux=True)(vector, sample)


def evaluate(loss: JointLoss, vector: np.ndarray, samples: Samples) -> tuple[float, np.ndarray, JointScore]:
    """Return the loss at a vector of free coordinates, its gradient in double precision, and the score.

    Args:
        loss: the loss.
        vector: [n].
        samples: what it works on.
    """
    point = jnp.asarray(vector, samples[0].bend.dtype)
    parts = _side_by_side(partial(_value_and_gradient, loss, point), samples)
    value = sum(float(v) for (v, _), _ in parts)
    gradient = sum((np.asarray(g, float) for _, g in parts), np.zeros(len(vector)))
    score = jax.tree.map(lambda *x: sum(map(float, x)), *(s for (_, s), _ in parts))
    return value, gradient, score


def _side_by_side(function: Callable[[Sample], Any], samples: Samples) -> list[Any]:
    """Work on the parts on all cores: a loop over time fills one. The first compiles what the others use."""
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def run(sample):
        with jax.enable_x64(wide):  # a setting of the thread
            return jax.block_until_ready(function(sample))

    first, others = run(samples[0]), samples[1:]
    if not others:
        return [first]
    with ThreadPoolExecutor(min(len(others), os.cpu_count() or 1)) as pool:
        return [first, *pool.map(run, others)]


class Pieces(NamedTuple):
    r"""What the voltage, and what the spikes, say about m coordinates.

    ``scores`` [2, B, S, m]: of each the negative gradient of its part of the loss, by block of time and by sweep;
    ``information`` [2, m, m]: :math:`\frac{w}{\sigma^2} \sum \nabla v\, \nabla v^T`, and
    :math:`\sum \frac{\mu^2}{e^\mu - 1} \nabla\log\lambda\, \nabla\log\lambda^T` with :math:`\mu = \lambda\,dt`.
    """

    scores: np.ndarray
    information: np.ndarray


def information(loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray) -> np.ndarray:
    r"""Return the Fisher information of spikes and voltage on the active coordinates, [m, m].

    It is the expected Hessian of the loss, with the curvature of the penalties; never negative.

    Args:
        loss: the loss.
        vector: where, [n].
        samples: what it works on; the measured voltages do not matter.
        active: indices [m] of the coordinates.
    """
    size = _steps(loss, samples)[active]
    grams = _side_by_side(lambda sample: _grams(_rows(loss, vector, sample, active)), samples)
    gram = np.sum([np.asarray(x, float) for x in grams], axis=(0, 1))
    return gram / np.outer(size, size) + prior_information(loss, vector, samples, active)


def prior_information(loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray) -> np.ndarray:
    """Return the curvature of the penalties and the prior on v_i, [m, m].

    Args:
        loss: the loss.
        vector: where, [n].
        samples: what it works on.
        active: indices [m] of the coordinates.
    """
    # Without the sweeps, which it does not depend on: compiled once for any of them.
    sample = samples[0]._replace(sweeps=None)
    curvature = _penalty_curvature(loss, jnp.asarray(vector, sample.bend.dtype), sample)
    return np.asarray(curvature, float)[np.ix_(active, active)]


@partial(jax.jit, static_argnums=0)
def _penalty_curvature(loss: JointLoss, vector: Array, sample: Sample) -> Array:
    return jax.hessian(lambda x: _penalty(loss.params(x, sample), sample.bend))(vector)


def pieces(loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray) -> Pieces:
    """Take the score and the information apart; first derivatives alone are needed.

    Args:
        loss: the loss.
        vector: where, [n].
        samples: what it works on.
        active: indices [m] of the coordinates.
    """
    size, scores, grams = _steps(loss, samples)[active], [], []
    for sample in samples:
        rows = _rows(loss, vector, sample, active)
        residuals = _residuals(loss, jnp.asarray(vector, sample.bend.dtype), sample)
        scores.append(np.asarray(_block_scores(rows, residuals), float))
        grams.append(np.asarray(_grams(rows), float))
    return Pieces(np.concatenate(scores, axis=2) / size, np.sum(grams, axis=0) / np.outer(size, size))


def _rows(loss, vector, sample, active):
    """Return what a small step in each coordinate changes: central differences, by the root of their information."""
    point, away = (jnp.asarray(x, sample.bend.dtype) for x in (vector, np.diag(_steps(loss, [sample]))[active]))
    roots = _roots(loss, point, sample)
    # A loop here: inside a compiled one XLA runs the loops over time several times slower on a CPU.
    return [_difference(loss, point, step, roots, sample) for step in away]


@jax.jit
def _grams(rows: list[Array]) -> Array:
    stacked = jnp.stack(rows, axis=1).reshape(2, len(rows), -1)
    return stacked @ stacked.transpose(0, 2, 1)


@jax.jit
def _block_scores(rows: list[Array], residuals: Array) -> Array:
    return jnp.stack([jnp.sum(row * residuals, axis=1) for row in rows], axis=-1)


@partial(jax.jit, static_argnums=0)
def _difference(loss: JointLoss, vector: Array, step: Array, roots: Array, sample: Sample) -> Array:
    up, down = (_voltage_and_rate(loss, point, sample) for point in (vector + step, vector - step))
    return 0.5 * roots * (up - down)


@partial(jax.jit, static_argnums=0)
def _roots(loss: JointLoss, vector: Array, sample: Sample) -> Array:
    return jnp.sqrt(_weights(loss, _voltage_and_rate(loss, vector, sample), sample))


@partial(jax.jit, static_argnums=0)
def _residuals(loss: JointLoss, vector: Array, sample: Sample) -> Array:
    """Return the slopes of the negative loss in voltage and log-rate, over the root of their information."""
    sweeps, here = sample.sweeps, _voltage_and_rate(loss, vector, sample)

    def likelihood(rate):
        return point_process_log_likelihood(rate, sweeps.spikes, dt=loss.dt, active=sweeps.free * sweeps.judged)

    worth = loss.weight / sample.variance * sweeps.compared
    slopes, weights = (
        jnp.stack([worth * (sweeps.voltage - here[0]), jax.grad(likelihood)(here[1])]),
        _weights(loss, here, sample),
    )
    return jnp.where(weights > 0.0, slopes / jnp.sqrt(jnp.where(weights > 0.0, weights, 1.0)), 0.0)


def _voltage_and_rate(loss, vector, sample):
    """Return voltage and log-rate, [2, length, blocks, S]."""
    params = loss.params(vector, sample)
    v, threshold = forced_adaptive(params, sample.sweeps, loss.dt)
    return jnp.stack([v, log_rate(params, v, threshold)])


def _weights(loss, here, sample):
    """Return the information of every sample of voltage and of log-rate."""
    sweeps, expected = sample.sweeps, loss.dt * jnp.exp(jnp.minimum(here[1], 6.0))
    # mu^2 / (e^mu - 1), by its series where the quotient would lose its digits.
    rate = jnp.where(expected < 1e-3, expected, expected**2 / jnp.expm1(jnp.maximum(expected, 1e-3)))
    return jnp.stack([loss.weight / sample.variance * sweeps.compared, rate * sweeps.free * sweeps.judged])


def _steps(loss: JointLoss, samples: Samples) -> np.ndarray:
    """Return a small step in each coordinate: 0.3 %, 0.05 mV, or the current that moves the voltage by 0.1 mV."""

    def step(name, interval):
        if name.startswith("eta"):
            return 0.1 / float(samples[0].params.r_m)
        return 0.05 if interval.low == -np.inf and name != "coupling.b" else 0.003

    return np.array([step(name, interval) for name, interval in loss.coordinates.free])


def scales(loss: JointLoss, samples: Samples) -> np.ndarray:
    """Return what a unit is in each coordinate, [n]: a factor e, 1 mV, or the current that moves the voltage 1 mV."""
    jump = 1.0 / float(samples[0].params.r_m)
    return np.array([jump if name.startswith("eta") else 1.0 for name, _ in loss.coordinates.free])


def whitening(curvature: np.ndarray, scale: np.ndarray, *, flattest: float = 1e-6) -> np.ndarray:
    r"""Return axes along which a loss curves alike, the columns of :math:`D U \Lambda^{-1/2}`.

    Args:
        curvature: its information F, [m, m]; :math:`D F D = U \Lambda U^T`.
        scale: the diagonal of D, [m], which makes coordinates of different units comparable.
        flattest: a direction flatter than this share of the steepest is taken to be so steep.

    Example:
        >>> whitening(np.diag([4.0, 25.0]), np.ones(2)).tolist()
        [[0.5, 0.0], [0.0, 0.2]]
    """
    values, vectors = np.linalg.eigh(scale[:, None] * curvature * scale)
    return scale[:, None] * vectors / np.sqrt(np.maximum(values, flattest * values.max()))


def refine(
    loss: JointLoss,
    params: AdaptiveLIFParams,
    samples: Samples,
    free: Iterable[str],
    *,
    rounds: Iterable[int] = ROUNDS,
    progress: bool = False,
) -> tuple[AdaptiveLIFParams, float]:
    """Minimise the loss by L-BFGS over the coordinates that match ``free``, whitened anew before every round.

    It ends when a round has gained less than two nats, the height at which a 95 % interval of one parameter ends.

    Args:
        loss: the loss.
        params: the start.
        samples: what it works on, with the variance at the start.
        free: names or patterns; the others keep their values.
        rounds: the most steps of each round.
        progress: show progress bars.

    Returns:
        The parameters at the minimum, Python floats, and the loss there.

    Source: Byrd et al. 1995, doi:10.1137/0916069 (L-BFGS-B).
    """
    active, value = active_indices(loss, free), np.inf
    for k, steps in enumerate(rounds):
        vector = loss.vector(params)
        samples = with_variance(loss, params, samples) if k else samples
        # Any metric of about the right shape will do: that of the first part of the sweeps.
        axes = whitening(len(samples) * information(loss, vector, samples[:1], active), scales(loss, samples)[active])
        vector, before, value = _minimise(loss, vector, samples, active, axes, steps, progress)
        params = jax.tree.map(float, loss.params(jnp.asarray(vector), samples[0]))
        if before - value < ENOUGH:
            break
    return params, value


def _minimise(loss, vector, samples, active, axes, steps, progress):
    """Return where a round ends, and the loss before and after it."""

    def at(y):
        point = vector.copy()
        point[active] += axes @ y
        return point

    start = evaluate(loss, vector, samples)[0]

    def objective(y):
        value, gradient, _ = evaluate(loss, at(y), samples)
        # A line search that left the sensible range turns back.
        return (value, axes.T @ gradient[active]) if np.isfinite(value) else (1e30, np.zeros_like(y))

    with tqdm(total=steps, disable=not progress, unit="step") as bar:
        found = minimize(
            objective,
            np.zeros(len(active)),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: bar.update(),
            options={"maxiter": steps, "maxcor": 20, "ftol": FINE / max(abs(start), 1.0)},
        )
    if not np.isfinite(found.x).all():
        return vector, start, start  # a line search that was lost
    return at(found.x), start, float(found.fun)


def active_indices(loss: JointLoss, free: Iterable[str]) -> np.ndarray:
    """Return the indices of the coordinates whose names match one of ``free``."""
    patterns = tuple(free)
    names = [name for name, _ in loss.coordinates.free]
    return np.array([i for i, name in enumerate(names) if any(fnmatchcase(name, p) for p in patterns)])
