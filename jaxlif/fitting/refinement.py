"""A joint loss is minimised by L-BFGS in coordinates in which its information is the identity.

Without that a fit would need thousands of steps: a single amplitude and its time constant trade for one another.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from jaxlif.fitting.information import information, scales
from jaxlif.fitting.joint_loss import JointLoss, Samples, evaluate, with_variance
from jaxlif.neurons.adaptive import AdaptiveLIFParams

ROUNDS = (15, 20, 30, 30, 30, 30)  # the most steps before each new whitening
ENOUGH = 0.5  # nats: a round that gains less is the last
FINE = 0.02  # nats: so is a step within a round


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

    It ends when a round has gained less than half a nat, a quarter of the height at which a 95 % interval ends.

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
