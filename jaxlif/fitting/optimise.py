"""A joint loss is minimised by L-BFGS in coordinates in which its information is the identity.

Without that a fit would need thousands of steps: a single amplitude and its time constant trade for one another.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from jaxlif.fitting.bounds import Interval
from jaxlif.fitting.data import Drift
from jaxlif.fitting.joint_likelihood import (
    ForcedSweeps,
    JointLoss,
    Sample,
    Samples,
    evaluate,
    forced_adaptive,
    penalty,
    with_variance,
)
from jaxlif.neurons.adaptive import AdaptiveLIFParams

ROUNDS = (15, 20, 30, 30, 30, 30)  # the most steps before each new whitening
ENOUGH = 0.5  # nats: a round that gains less is the last
FINE = 0.02  # nats: so is a step within a round
WIDTHS = (8.0, 4.0, 2.0, 1.0)  # mV: of the escape noise, where a start makes the spikes less likely than none would


def refine(
    loss: JointLoss,
    params: AdaptiveLIFParams,
    samples: Samples,
    free: Iterable[str],
    *,
    progress: bool = False,
) -> tuple[AdaptiveLIFParams, float]:
    """Minimise the loss by L-BFGS over the coordinates that match ``free``, whitened anew before every round.

    It ends when a round has gained less than half a nat, a quarter of the height at which a 95 % interval ends.
    Returned are the parameters at the minimum, Python floats, and the loss there.
    """
    active, value = loss.active(free), np.inf
    for k, steps in enumerate(ROUNDS):
        vector = loss.vector(params)
        samples = with_variance(loss, params, samples) if k else samples
        # Any metric of about the right shape will do: that of the first part of the sweeps.
        metric = information(loss, vector, samples[0], active) + prior_information(loss, vector, samples, active)
        axes = whitening(len(samples) * metric, scales(loss, samples)[active])
        vector, before, value = _minimise(loss, vector, samples, active, axes, steps, progress)
        params = jax.tree.map(float, loss.params(jnp.asarray(vector), samples[0].params))
        if before - value < ENOUGH:
            break
    return params, value


def _minimise(
    loss: JointLoss,
    vector: np.ndarray,
    samples: Samples,
    active: np.ndarray,
    axes: np.ndarray,
    steps: int,
    progress: bool,
) -> tuple[np.ndarray, float, float]:
    """Return where a round ends, and the loss before and after it."""
    from scipy.optimize import minimize  # takes as long to load as half of JAX

    def _at(y: np.ndarray) -> np.ndarray:
        point = vector.copy()
        point[active] += axes @ y
        return point

    def _objective(y: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, _ = evaluate(loss, _at(y), samples)
        # A line search that left the sensible range turns back.
        return (value, axes.T @ gradient[active]) if np.isfinite(value) else (1e30, np.zeros_like(y))

    start = evaluate(loss, vector, samples)[0]
    with tqdm(total=steps, disable=not progress, unit="step") as bar:
        found = minimize(
            _objective,
            np.zeros(len(active)),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: bar.update(),
            options={"maxiter": steps, "maxcor": 20, "ftol": FINE / max(abs(start), 1.0)},
        )
    if not np.isfinite(found.x).all():
        return vector, start, start  # a line search that was lost
    return _at(found.x), start, float(found.fun)


def believable(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples) -> AdaptiveLIFParams:
    r"""Return a start under which the spikes are at least as likely as under a constant rate.

    From one far off the gradient leads to a noise so wide that the voltage no longer matters. It gets the width with
    the least loss, each at the threshold at which the expected spikes E are as many as the recorded ones, n.
    """
    count = sum(float(sample.sweeps.spikes.sum()) for sample in samples)
    time = sum(float((sample.sweeps.free * sample.sweeps.judged).sum()) for sample in samples) * loss.dt
    likely = float(evaluate(loss, loss.vector(params), samples)[2].log_likelihood)
    if not count or likely >= count * (np.log(count / time) - 1.0):
        return params
    (threshold,), moved, found = loss.active(["v_th"]), params, []
    for width in WIDTHS:
        moved = replace(moved, delta_v=width)
        for _ in range(3):  # dL / dv_th = (E - n) / delta_v, and E goes with exp(-v_th / delta_v)
            expected = count - width * evaluate(loss, loss.vector(moved), samples)[1][threshold]
            moved = replace(moved, v_th=float(moved.v_th) + width * float(np.log(max(expected, 1e-2) / count)))
        found.append((evaluate(loss, loss.vector(moved), samples)[0], moved))
    return min(found, key=lambda pair: pair[0])[1]


def estimate_drift(params: AdaptiveLIFParams, sweeps: list[ForcedSweeps], dt: float) -> Drift:
    """Estimate the terms of each sweep by least squares on its voltage, in which both are linear.

    They come on top of what the sweeps hold already, with a mean offset of 0 and a mean gain of 1: a common part
    belongs to the parameters. Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    rows = np.concatenate([np.asarray(_terms(params, part, dt)) for part in sweeps])
    counted = [part.compared.reshape(-1, len(part.start)).any(axis=0) for part in sweeps]
    rows = rows[np.concatenate(counted)]
    return Drift(rows[:, 0] - rows[:, 0].mean(), rows[:, 1] / rows[:, 1].mean())


@jax.jit(static_argnums=2)
def _terms(params: AdaptiveLIFParams, part: ForcedSweeps, dt: float) -> jax.Array:
    """Return offset and gain [S, 2] of the sweeps of a part."""

    def _voltage(offset: Array, gain: Array) -> Array:
        moved = part._replace(current=gain * part.current, offset=part.offset + offset)
        return forced_adaptive(params, moved, dt)[0]

    one, zero = jnp.ones((), part.voltage.dtype), jnp.zeros((), part.voltage.dtype)
    base = _voltage(zero, one)
    # Both are linear: a difference of any size is the derivative.
    slopes = jnp.stack([_voltage(one, one) - base, _voltage(zero, 2.0 * one) - base])
    columns, compared, error = (
        x.reshape(*x.shape[:-2], -1, len(part.start)) for x in (slopes, part.compared, part.voltage - base)
    )
    gram = jnp.einsum("ins,jns,ns->sij", columns, columns, compared)
    projection = jnp.einsum("ins,ns->si", columns, compared * error)
    # A sweep that only fills up its part is compared nowhere; a millionth of a sample makes it solvable.
    solution: Array = jnp.linalg.solve(gram + 1e-6 * jnp.eye(2, dtype=gram.dtype)[None], projection[..., None])[..., 0]
    return solution.at[:, 1].add(1.0)


def whitening(curvature: np.ndarray, scale: np.ndarray, *, flattest: float = 1e-6) -> np.ndarray:
    r"""Return axes along which a loss of this information curves alike, the columns of :math:`D U \Lambda^{-1/2}`.

    D, with ``scale`` as its diagonal, makes units comparable; a direction flatter than the share ``flattest`` of the
    steepest is taken to be so steep.
    """
    values, vectors = np.linalg.eigh(scale[:, None] * curvature * scale)
    return np.asarray(scale[:, None] * vectors / np.sqrt(np.maximum(values, flattest * values.max())))


def pieces(loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Take apart what voltage and spikes say about m coordinates: scores [2, B, S, m] and information [2, m, m].

    The score is the negative gradient of the loss by block of time and by sweep. The information of the voltage is
    :math:`w / \sigma^2 \sum \nabla v\, \nabla v^T`, that of the spikes :math:`\sum \mu^2 / (e^\mu - 1)\,
    \nabla\log\lambda\, \nabla\log\lambda^T` with :math:`\mu = \lambda\,dt`: first derivatives alone are needed.
    """
    size, scores, grams = _steps(loss, samples)[active], [], []
    for sample in samples:
        rows = _rows(loss, vector, sample, active)
        summed = _lane_scores(rows, _residuals(loss, jnp.asarray(vector, sample.bend.dtype), sample))
        scores.append(np.asarray(summed, float).reshape(2, -1, len(sample.sweeps.start), len(active)))
        grams.append(np.asarray(_grams(rows), float))
    return np.concatenate(scores, axis=2) / size, np.sum(grams, axis=0) / np.outer(size, size)


def information(loss: JointLoss, vector: np.ndarray, sample: Sample, active: np.ndarray) -> np.ndarray:
    """Return the information of spikes and voltage of a part, [m, m]: its expected curvature but for penalties."""
    size = _steps(loss, [sample])[active]
    grams = np.asarray(_grams(_rows(loss, vector, sample, active)), float)
    return np.asarray(grams.sum(axis=0) / np.outer(size, size))


def prior_information(loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray) -> np.ndarray:
    """Return the curvature of the penalties on the active coordinates, [m, m]."""
    sample = samples[0]
    curvature = _penalty_curvature(loss, jnp.asarray(vector, sample.bend.dtype), sample.params, sample.bend)
    return np.asarray(np.asarray(curvature, float)[np.ix_(active, active)])


@partial(jax.jit, static_argnums=0)
def _penalty_curvature(loss: JointLoss, vector: Array, fixed: AdaptiveLIFParams, bend: Array) -> Array:
    return jnp.asarray(jax.hessian(lambda x: penalty(loss.params(x, fixed), bend))(vector))


def _rows(loss: JointLoss, vector: np.ndarray, sample: Sample, active: np.ndarray) -> list[Any]:
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
def _lane_scores(rows: list[Array], residuals: Array) -> Array:
    return jnp.stack([jnp.sum(row * residuals, axis=1) for row in rows], axis=-1)


@partial(jax.jit, static_argnums=0)
def _difference(loss: JointLoss, vector: Array, step: Array, roots: Array, sample: Sample) -> Array:
    up, down = (jnp.stack(loss.response(point, sample)) for point in (vector + step, vector - step))
    return 0.5 * roots * (up - down)


@partial(jax.jit, static_argnums=0)
def _roots(loss: JointLoss, vector: Array, sample: Sample) -> Array:
    """Return the roots of the information of every sample of voltage and of log-rate, [2, length, lanes]."""
    sweeps, (_, rate) = sample.sweeps, loss.response(vector, sample)
    expected = loss.dt * jnp.exp(jnp.minimum(rate, 6.0))
    # mu^2 / (e^mu - 1), by its series where the quotient would lose its digits.
    told = jnp.where(expected < 1e-3, expected, expected**2 / jnp.expm1(jnp.maximum(expected, 1e-3)))
    voltage = loss.weight / sample.variance * sweeps.compared
    return jnp.sqrt(jnp.stack([voltage, told * sweeps.free * sweeps.judged]))


@partial(jax.jit, static_argnums=0)
def _residuals(loss: JointLoss, vector: Array, sample: Sample) -> Array:
    """Return the slopes of the negative loss in voltage and log-rate, over the root of their information."""
    slopes = jax.grad(lambda response: -loss.nats(response, sample)[0])(loss.response(vector, sample))
    roots = _roots(loss, vector, sample)
    return jnp.where(roots > 0.0, jnp.stack(slopes) / jnp.where(roots > 0.0, roots, 1.0), 0.0)


def _steps(loss: JointLoss, samples: Samples) -> np.ndarray:
    """Return a small step in each coordinate: 0.3 %, 0.05 mV, or the current that moves the voltage by 0.1 mV."""

    def _step(name: str, interval: Interval) -> float:
        if name.startswith("eta"):
            return 0.1 / float(samples[0].params.r_m)
        return 0.05 if interval.low == -np.inf and name != "coupling.b" else 0.003

    return np.array([_step(name, interval) for name, interval in loss.coordinates.free])


def scales(loss: JointLoss, samples: Samples) -> np.ndarray:
    """Return what a unit is in each coordinate, [n]: a factor e, 1 mV, or the current that moves the voltage 1 mV."""
    jump = 1.0 / float(samples[0].params.r_m)
    return np.array([jump if name.startswith("eta") else 1.0 for name, _ in loss.coordinates.free])
