"""What voltage and spikes say about the parameters of a joint loss: its Fisher information, taken apart."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.forced_adaptive import forced_adaptive, lanes, log_rate
from jaxlif.fitting.joint_loss import JointLoss, Sample, Samples, penalty, side_by_side
from jaxlif.losses import point_process_log_likelihood


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
    grams = side_by_side(lambda sample: _grams(_rows(loss, vector, sample, active)), samples)
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
    return jax.hessian(lambda x: penalty(loss.params(x, sample), sample.bend))(vector)


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
        x, spikes, active = map(lanes, (rate, sweeps.spikes, sweeps.free * sweeps.judged))
        return point_process_log_likelihood(x, spikes, dt=loss.dt, active=active)

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
