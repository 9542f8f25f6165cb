"""A joint loss is minimised by L-BFGS in coordinates in which its information is the identity.

Without that a fit would need thousands of steps: a single amplitude and its time constant trade for one another.
"""

from collections.abc import Iterable
from dataclasses import replace
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
WIDTHS = (8.0, 4.0, 2.0, 1.0)  # mV: of the escape noise, where a start makes the spikes less likely than none would


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


def believable(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples) -> AdaptiveLIFParams:
    r"""Return a start under which the spikes are at least as likely as under a constant rate.

    From a start far off, spikes everywhere or nowhere, the gradient leads to a noise so wide that the voltage no longer
    matters. Such a start gets the width of :data:`WIDTHS` with the least loss, and for each the threshold at which the
    expected spikes are as many as the recorded ones, n: as :math:`\partial L / \partial v_{th} = (E - n) / \Delta_v`
    and :math:`E \propto e^{-v_{th} / \Delta_v}`, by steps of :math:`\Delta_v \log (E / n)`, the widest noise first.

    Args:
        loss: the loss.
        params: the start.
        samples: what it works on.
    """
    count = sum(float(sample.sweeps.spikes.sum()) for sample in samples)
    time = sum(float((sample.sweeps.free * sample.sweeps.judged).sum()) for sample in samples) * loss.dt
    likely = float(evaluate(loss, loss.vector(params), samples)[2].log_likelihood)
    if not count or likely >= count * (np.log(count / time) - 1.0):
        return params
    threshold = [name for name, _ in loss.coordinates.free].index("v_th")
    moved, found = params, []
    for width in WIDTHS:
        moved = replace(moved, delta_v=width)
        for _ in range(3):
            expected = count - width * evaluate(loss, loss.vector(moved), samples)[1][threshold]
            moved = replace(moved, v_th=float(moved.v_th) + width * float(np.log(max(expected, 1e-2) / count)))
        found.append((evaluate(loss, loss.vector(moved), samples)[0], moved))
    return min(found, key=lambda pair: pair[0])[1]


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
