"""Intervals for the parameters of a joint fit, and what a protocol leaves undetermined.

Voltages are not independent from sample to sample and no model is quite right, so that the inverse information alone
would not do: the scatter of the loss's gradient over blocks of time says how much information there really is.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from jaxlif.fitting.forced_adaptive import ForcedSweeps
from jaxlif.fitting.joint_loss import JointLoss, Samples, evaluate, information, scales, whitening, with_variance
from jaxlif.neurons.adaptive import AdaptiveLIFParams

BLOCKS = 16  # of time, over which the gradient's scatter is taken
VAGUE = 0.7  # a standard error of a logarithm above this is a factor of two: not determined
TIGHT = 0.95  # a correlation above this means that only a combination is determined


class Uncertainty(NamedTuple):
    """What is known about the free parameters of a fit.

    ``intervals``: by name the 95 % interval, in the parameter's unit; ``correlations`` [n, n] of ``names`` in free
    coordinates; ``notes``: what is not determined, in words.
    """

    names: tuple[str, ...]
    intervals: dict[str, tuple[float, float]]
    correlations: np.ndarray
    notes: tuple[str, ...]


def uncertainty(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples, active: np.ndarray) -> Uncertainty:
    r"""Estimate 95 % intervals by the sandwich :math:`F^{-1} J F^{-1}`.

    F is the Fisher information, J the sum over blocks of time of :math:`g_b g_b^T`, the gradients of the blocks. The
    interval of a jump is taken at the fitted time constant.

    Args:
        loss: the loss that was minimised.
        params: its minimum.
        samples: what it was minimised on.
        active: indices of the coordinates that were free.

    Source: White 1982, doi:10.2307/1912526; Varin, Reid & Firth 2011 (composite likelihoods), Statistica Sinica 21, 5.
    """
    vector = loss.vector(params)
    covariance = _covariance(loss, vector, with_variance(loss, params, samples), active)
    sd = np.sqrt(np.diag(covariance))
    names = tuple(loss.coordinates.free[i][0] for i in active)
    reach = float(stdtrit(BLOCKS - 1, 0.975)) * sd
    factors = _factors(params)
    intervals = {
        name: tuple(
            factors.get(name, 1.0) * float(loss.coordinates.free[i][1].to_value(z))
            for z in (vector[i] - r, vector[i] + r)
        )
        for name, i, r in zip(names, active, reach, strict=True)
    }
    correlations = covariance / np.outer(sd, sd)
    notes = (*_vague(loss, names, active, sd), *_insignificant(intervals), *_tied(names, correlations))
    return Uncertainty(names, intervals, correlations, notes)  # type: ignore[arg-type]


def _factors(params):
    """Return by which factor a jump is larger than what is left of it at the end of the refractory period."""
    pairs = {"eta": params.tau_eta, "gamma": params.tau_gamma}
    return {f"{kind}.{k}": float(np.exp(params.t_ref / t)) for kind, taus in pairs.items() for k, t in enumerate(taus)}


def _covariance(loss, vector, samples, active):
    # What the data leave flat must come out wide: only rounding is kept out.
    axes = whitening(information(loss, vector, samples, active), scales(loss, samples)[active], flattest=1e-10)
    inverse = axes @ axes.T
    gradients = np.array([evaluate(loss, vector, block)[1][active] for block in _blocks(samples)])
    scatter = gradients - gradients.mean(axis=0)
    count = len(gradients)
    return inverse @ (scatter.T @ scatter) @ inverse * count / (count - 1)


def _blocks(samples: Samples):
    """Yield the samples with only one block of time judged; where time is short, one block of some sweeps."""
    _, length, count = samples[0].sweeps.current.shape
    order = np.arange(length)[:, None] + np.zeros((1, count), int)
    order = order if length >= 2 * BLOCKS else np.arange(length * count).reshape(count, length).T
    block = order * BLOCKS // (order.max() + 1)
    for b in range(BLOCKS):
        here = (block == b)[None]
        if here.any():
            yield [sample._replace(sweeps=_only(sample.sweeps, here)) for sample in samples]


def _only(sweeps: ForcedSweeps, here: np.ndarray) -> ForcedSweeps:
    names = ("spikes", "judged", "compared")
    return sweeps._replace(**{name: getattr(sweeps, name) * here.astype(sweeps.free.dtype) for name in names})


def _vague(loss, names, active, sd):
    for name, i, s in zip(names, active, sd, strict=True):
        if np.isfinite(loss.coordinates.free[i][1].low) and s > VAGUE:
            yield f"{name} is not determined by these data: its 95 % interval spans a factor of {np.exp(4 * s):.2g}"


def _insignificant(intervals):
    for name, (low, high) in intervals.items():
        if name.split(".")[0] in ("eta", "gamma") and low < 0.0 < high:
            yield f"{name} cannot be told from 0: its 95 % interval is {low:.3g} to {high:.3g}"


def _tied(names, correlations):
    """Say in one note which pairs only a combination of is determined, the tightest first."""
    rows, columns = np.nonzero(np.triu(np.abs(correlations), 1) > TIGHT)
    pairs = sorted(zip(rows, columns, strict=True), key=lambda pair: -abs(correlations[pair]))
    if pairs:
        shown = ", ".join(f"{names[i]} and {names[j]} ({correlations[i, j]:.2f})" for i, j in pairs[:4])
        more = f", and {len(pairs) - 4} more pairs" if len(pairs) > 4 else ""
        yield f"parameters that trade for one another, with their correlation: {shown}{more}"
