"""How far apart two spike trains are: van Rossum and Victor-Purpura."""

import numpy as np
from numpy.typing import ArrayLike

from jaxlif.checks import not_negative, positive
from jaxlif.spiketrains.trains import checked_train


def van_rossum(data: ArrayLike, model: ArrayLike, *, tau: float) -> float:
    r"""Measure the squared distance of two trains filtered by a causal exponential.

    .. math::
        D^2 = \frac{1}{\tau} \int_0^\infty (f - g)^2 dt
            = \frac{1}{2} \sum_k h_k^2 \left(1 - e^{-2 (t_{k+1} - t_k) / \tau}\right)

    with :math:`f(t) = \sum_{t_i \le t} e^{-(t - t_i)/\tau}`, g likewise, and :math:`h_k = f - g` just after
    event k: exact, and a sum of squares, so that nothing cancels.

    Args:
        data: spike times, ms.
        model: spike times, ms.
        tau: decay time of the filter, ms.

    Returns:
        :math:`D^2`, dimensionless: 1/2 for a spike against none, 1 for two spikes far apart, exactly 0 for
        identical trains. Its square root obeys the triangle inequality.

    Raises:
        ValueError: a train is not sorted and finite, or tau is not positive.

    Example:
        >>> van_rossum([10.0], [], tau=5.0)
        0.5

    Source: van Rossum 2001, doi:10.1162/089976601300014321.
    """
    data, model, tau = checked_train(data, "data"), checked_train(model, "model"), positive("tau", tau, "ms")
    times, event = np.unique(np.concatenate([data, model]), return_inverse=True)
    jumps = np.bincount(event, np.repeat([1.0, -1.0], [len(data), len(model)]), minlength=len(times))
    gaps = np.diff(times, append=np.inf) / tau
    after, difference = np.empty_like(times), 0.0
    for k, (jump, decay) in enumerate(zip(jumps, np.exp(-gaps), strict=True)):
        after[k] = difference + jump
        difference = after[k] * decay
    return float(-0.5 * np.sum(after**2 * np.expm1(-2.0 * gaps)))


def victor_purpura(data: ArrayLike, model: ArrayLike, *, cost: float) -> float:
    r"""Measure the least cost of turning one train into the other.

    .. math::
        G_{ij} = \min(G_{i-1,j} + 1,\; G_{i,j-1} + 1,\; G_{i-1,j-1} + q |d_i - m_j|)

    Deleting or inserting a spike costs 1, moving it q per ms.

    Args:
        data: spike times, ms, [n].
        model: spike times, ms, [m].
        cost: q, 1/ms; spikes further apart than 2/q are never moved onto each other.

    Returns:
        :math:`G_{nm}`, dimensionless: the difference of the counts at q = 0, the number of spikes not shared
        at large q.

    Raises:
        ValueError: a train is not sorted and finite, or the cost is negative.

    Example:
        >>> victor_purpura([10.0, 50.0], [12.0], cost=0.25)
        1.5

    Source: Victor & Purpura 1996, doi:10.1152/jn.1996.76.2.1310.
    """
    data, model, cost = (
        checked_train(data, "data"),
        checked_train(model, "model"),
        not_negative("cost", cost, "1/ms"),
    )
    inserted = np.arange(len(model) + 1.0)
    row = inserted
    for count, time in enumerate(data, start=1):
        moved = np.minimum(row[1:] + 1.0, row[:-1] + cost * np.abs(model - time))
        # Insertions run along the row: min over k <= j of (candidate_k + j - k), as one running minimum.
        row = np.minimum.accumulate(np.concatenate([[count], moved]) - inserted) + inserted
    return float(row[-1])
