"""Least squares for many problems of one kind at once, each held by a prior that is learned from all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

ROUNDS = 12  # of fitting every problem and learning the prior
FIRST_STEPS, STEPS = 40, 6  # Levenberg-Marquardt updates in the first round and in the others
NOISE_CELLS = 3.0  # observations that the noise of the others counts for in a problem's own
LEAST_NOISE = 1e-3  # the least standard deviation of an observation


class Errors(NamedTuple):
    """What a problem's coordinates leave over, with zeros where a problem is padded."""

    observed: Array  # [K], in the unit of the observations, whose noise is unknown
    known: Array  # [P], in units of their own, known noise


class Pooled(NamedTuple):
    """The fit of every problem: coordinates [problems, n], NaN where none was found, and noise [problems]."""

    coordinates: np.ndarray
    noise: np.ndarray  # standard deviation of an observation


class _Posterior(NamedTuple):
    """What one round leaves of one start: coordinates, their covariance, penalised loss, errors, leverages."""

    z: Array  # [n]
    covariance: Array  # [n, n]
    loss: Array
    observed: Array  # [K]
    leverage: Array  # [K], variance of the prediction


def fit_pooled(
    errors: Callable[[Array, Any], Errors],
    problems: Any,
    starts: np.ndarray,
    *,
    mean: np.ndarray,
    spread: np.ndarray,
    counts: np.ndarray,
    groups: np.ndarray,
    pooled: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Pooled:
    r"""Find for every problem the most probable coordinates, under a normal prior that all of a group share.

    .. math::
        \min_z \; \sum_k e_k(z)^2 / s^2 + \sum_p k_p(z)^2 + (z - \mu)^T \Sigma^{-1} (z - \mu)

    by Levenberg and Marquardt's method. Then the noise s of every problem, the mean :math:`\mu` and the covariance
    :math:`\Sigma` are re-estimated from the fits and their posterior covariances, and all that is repeated: the
    expectation-maximisation algorithm with a normal approximation of each posterior. The prior given counts as much
    as one problem, so that few problems stay near it.

    Args:
        errors: of a problem, at its coordinates [n]; hashable by value, as it is compiled once.
        problems: a pytree of arrays, each with the problems in front.
        starts: coordinates to start from [problems, starts, n].
        mean: of the first prior [n].
        spread: its standard deviations [n].
        counts: observations of every problem, without what is padded [problems].
        groups: number of the group of every problem [problems]; nothing passes from one group to another.
        pooled: how many of the coordinates, from the first, share what is learned; the others keep the first prior.
        mesh: devices over whose first axis the problems are spread.
        progress: show a progress bar.

    Returns:
        The :class:`Pooled`.

    Source: Dempster, Laird & Rubin 1977, doi:10.1111/j.2517-6161.1977.tb01600.x; Marquardt 1963, doi:10.1137/0111030.
    """
    size = len(starts)
    missing = -size % (mesh.devices.shape[0] if mesh else 1)
    problems, z = (jax.tree.map(lambda x: _filled(x, missing), x) for x in (problems, starts))
    noise = np.ones(size)
    means, covariances = np.tile(mean, (size, 1)), np.tile(np.diag(spread**2), (size, 1, 1))
    for n in tqdm(range(ROUNDS), disable=not progress, unit="round"):
        inverse_roots = np.linalg.inv(np.linalg.cholesky(covariances))
        prior = tuple(_filled(x, missing) for x in (noise, means, inverse_roots))
        found = _round(errors, mesh, problems, z, prior, STEPS if n else FIRST_STEPS)
        z = found.z
        best = jax.tree.map(np.asarray, _best(found, size))
        for group in np.unique(groups):
            own = (groups == group) & np.isfinite(best.loss)
            if own.any():
                noise[own] = _noise(best, own, noise, counts)
                means[own, :pooled], covariances[own, :pooled, :pooled] = _moments(best, own, mean, spread, pooled)
    return Pooled(np.where(np.isfinite(best.loss)[:, None], best.z, np.nan), noise)


def _filled(x: np.ndarray, missing: int) -> np.ndarray:
    """Repeat the first problem, so that the problems divide evenly over the devices."""
    return np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) if missing else x


def _best(found: _Posterior, size: int) -> _Posterior:
    """Return of every problem the start that ended lowest; not finite where none did."""
    losses = np.where(np.isfinite(found.loss), found.loss, np.inf)
    rows = np.arange(size)
    return jax.tree.map(lambda x: np.asarray(x)[rows, losses[:size].argmin(axis=1)], found)


def _noise(best: _Posterior, own: np.ndarray, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Re-estimate the standard deviation of an observation of a group's problems, each drawn a little to the others."""
    squares = np.sum(best.observed[own] ** 2 + best.leverage[own], axis=1)
    shared = NOISE_CELLS * np.median(noise[own]) ** 2
    return np.maximum(np.sqrt((squares + shared) / (counts[own] + NOISE_CELLS)), LEAST_NOISE)


def _moments(best: _Posterior, own: np.ndarray, mean: np.ndarray, spread: np.ndarray, pooled: int):
    """Return mean and covariance of the fits of a group, the prior given counting as one more of them."""
    z, covariance = best.z[own, :pooled], best.covariance[own, :pooled, :pooled]
    centre = (z.sum(axis=0) + mean[:pooled]) / (len(z) + 1.0)
    scatter = (z - centre).T @ (z - centre) + covariance.sum(axis=0) + np.diag(spread[:pooled] ** 2)
    return centre, scatter / (len(z) + 1.0)


@partial(jax.jit, static_argnums=(0, 1))
def _round(errors, mesh, problems, z, prior, steps):
    """Move all problems and starts by a number of updates."""
    starts = jax.vmap(partial(_descend, errors), in_axes=(None, 0, None, None))
    every = jax.vmap(starts, in_axes=(0, 0, 0, None))
    if mesh is None:
        return every(problems, z, prior, steps)
    split = PartitionSpec(mesh.axis_names[0])
    spread = jax.shard_map(every, mesh=mesh, in_specs=(split, split, split, PartitionSpec()), out_specs=split)
    return spread(problems, z, prior, steps)


def _descend(errors, problem, z, prior, steps):
    residuals = partial(_residuals, errors, problem, prior)
    step = partial(_marquardt, residuals)
    damping = jnp.full_like(z[0], 1e-2)
    z, _ = jax.lax.fori_loop(0, steps, lambda _, carry: step(*carry), (z, damping))
    jacobian = jax.jacfwd(residuals)(z)
    # From the triangular factor and not from the normal equations, so that no variance comes out negative.
    root = jnp.linalg.inv(jnp.linalg.qr(jacobian, mode="r"))
    observed = errors(z, problem).observed
    leverage = jnp.sum((prior[0] * jacobian[: observed.size] @ root) ** 2, axis=1)
    return _Posterior(z, root @ root.T, jnp.sum(residuals(z) ** 2), observed, leverage)


def _residuals(errors, problem, prior, z):
    noise, mean, inverse_root = prior
    left = errors(z, problem)
    return jnp.concatenate([left.observed / noise, left.known, inverse_root @ (z - mean)])


def _marquardt(residuals, z, damping):
    """Take one damped Gauss-Newton step where it does not raise the sum of squares."""
    r, jacobian = residuals(z), jax.jacfwd(residuals)(z)
    normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
    step = jnp.clip(jnp.linalg.solve(normal + damping * jnp.diag(jnp.diagonal(normal)), -gradient), -1.0, 1.0)
    # Rounding may raise the sum near the minimum, where the step still leads to a smaller gradient.
    better = jnp.sum(residuals(z + step) ** 2) <= (1.0 + 1e-12) * jnp.sum(r**2)
    damping = jnp.where(better, jnp.maximum(0.3 * damping, 1e-10), jnp.minimum(5.0 * damping, 1e10))
    return jnp.where(better, z + step, z), damping
