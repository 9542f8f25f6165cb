"""The slope of a loss seen from a little distance, from pairs of opposite shifts, and what it says of a gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_ONE_IN = 1.35e-3  # the tail of a normal distribution beyond three standard errors
_ROUND = 64  # pairs that are computed at once
_CLOSE = 0.2  # a cosine known to this is good enough for a word


class Evidence(NamedTuple):
    """What M pairs have shown; directions are standard normal, a pytree each, of d numbers in all."""

    total: Any  # of slope times direction, over the pairs
    square: Any  # of its squares
    turned: Any  # of component times direction
    slopes: np.ndarray  # [M] of the loss along each direction
    along: np.ndarray  # [M] component of each direction along the gradient; 0 where there is no gradient
    lengths: np.ndarray  # [M] squared length of each direction

    @property
    def pairs(self) -> int:
        """M."""
        return len(self.slopes)

    @property
    def mean(self) -> Any:
        """The slope of the smoothed loss."""
        return jax.tree.map(lambda x: x / self.pairs, self.total)

    @property
    def error(self) -> Any:
        """Its standard error."""
        m = self.pairs
        return jax.tree.map(
            lambda t, s: np.sqrt(np.maximum(s - t**2 / m, 0.0) / ((m - 1) * m)), self.total, self.square
        )


class Agreement(NamedTuple):
    """How a gradient agrees with the slope of the smoothed loss: numbers without the noise of many directions.

    Args:
        slope: of the smoothed loss along the gradient.
        error: its standard error.
        norm: length of the smoothed slope over all directions.
        cosine: of the angle between both, nan for a gradient of 0.
        doubt: its standard error.
        downhill: 1 where the loss falls against the gradient, -1 where it grows, 0 where neither is beyond chance.
        sloping: whether there is a slope beyond chance, along the gradient or across.
        pairs: M.
    """

    slope: float
    error: float
    norm: float
    cosine: float
    doubt: float
    downhill: int
    sloping: bool
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether more pairs would change no word."""
        if np.isnan(self.cosine):
            return self.sloping
        return (self.downhill != 0 and self.doubt <= _CLOSE) or self.poor

    @property
    def poor(self) -> bool:
        """Whether the slope is known to lead elsewhere, even if not whether the gradient points up or down."""
        return abs(self.cosine) + 3.0 * self.doubt < 0.5


def gather(
    loss_at: Callable[[Any], Array],
    draw: Callable[[Array], Any],
    key: Array,
    noise: float,
    samples: int,
    *,
    gradient: Any = None,
    budget: int = 0,
) -> Evidence:
    r"""Draw pairs of opposite shifts, twice as many again while the evidence on a gradient is undecided.

    A pair in direction :math:`\epsilon` gives the slope :math:`a = (L(\sigma\epsilon) - L(-\sigma\epsilon)) / 2\sigma`,
    and :math:`E[a\,\epsilon]` is the gradient of the smoothed loss.

    Args:
        loss_at: the loss at a shift.
        draw: a direction from a key, a pytree of standard normal arrays.
        key: of the noise.
        noise: :math:`\sigma`.
        samples: pairs to begin with.
        gradient: what is judged, a pytree like the directions; None for nothing.
        budget: pairs at most.

    Returns:
        The :class:`Evidence`.

    Example:
        >>> evidence = gather(lambda x: 3.0 * x, lambda key: jax.random.normal(key), jax.random.key(0), 0.1, 64,
        ...     gradient=np.asarray(1.0), budget=64)
        >>> agreement(evidence).cosine
        1.0
    """
    shape = jax.eval_shape(draw, key)
    run = jax.jit(partial(_each, loss_at, draw, _unit(gradient, shape), noise))
    evidence = _summed(run(jax.random.split(key, samples)))
    while gradient is not None and evidence.pairs + _ROUND <= budget and not agreement(evidence).decided:
        for _ in range(max(1, min(evidence.pairs, budget - evidence.pairs) // _ROUND)):
            # Far from what callers fold into the same key.
            more = jax.random.fold_in(key, np.uint32(2**31 + evidence.pairs))
            evidence = _joined(evidence, _summed(run(jax.random.split(more, _ROUND))))
    return evidence


def agreement(evidence: Evidence) -> Agreement:
    r"""Judge a gradient by the evidence on it.

    With :math:`z` the component of a direction along the gradient, regression gives the slope along it,
    :math:`s = \sum a z / \sum z^2`, whose error does not grow with the number of parameters. What is left,
    :math:`r = a - s z`, has across it the squared slope :math:`p^2 = \sum_{i \ne j} r_i r_j\, \epsilon_i \cdot
    \epsilon_j / M(M-1)`, with the components along the gradient taken out; its error grows with the square root of
    that number. The cosine is :math:`s / \sqrt{s^2 + p^2}`. (The mean itself, whose error grows with the number, takes
    nine pairs for each parameter to be beyond three errors.)

    Args:
        evidence: of :func:`gather`.

    Source: Hoeffding 1948, doi:10.1214/aoms/1177730196 (sums over pairs without the diagonal are unbiased).
    """
    m, a, z = evidence.pairs, evidence.slopes, evidence.along
    power = float(z @ z)
    slope = float(a @ z) / power if power else 0.0
    rest = a - slope * z
    # The larger of what equal and what unequal scatter along z give: few pairs show too little of the latter.
    scatter = max(float(rest @ rest) * power, m * float(rest**2 @ z**2)) / (m - 1)
    error = float(np.sqrt(scatter)) / power if power else 0.0
    across, doubt, null = _across(evidence, rest, slope)
    norm = float(np.hypot(slope, np.sqrt(max(across, 0.0))))
    from scipy.special import stdtrit

    beyond = stdtrit(m - 1, 1.0 - _ONE_IN)
    sure = abs(slope) > beyond * error
    turn = np.hypot(max(across, 0.0) * error, 0.5 * slope * doubt)
    return Agreement(
        slope,
        error,
        norm,
        cosine=slope / norm if power and norm else float("nan") if not power else 0.0,
        doubt=float(turn / norm**3) if norm else float("inf"),
        downhill=int(np.sign(slope)) if sure else 0,
        sloping=sure or across > beyond * null,
        pairs=m,
    )


def _across(evidence: Evidence, rest: np.ndarray, slope: float) -> tuple[float, float, float]:
    """Return the squared slope across the gradient, its standard error, and that of no slope at all."""
    m, z = evidence.pairs, evidence.along
    pairs = zip(jax.tree.leaves(evidence.total), jax.tree.leaves(evidence.turned), strict=True)
    total = sum(float(np.sum((t - slope * u) ** 2)) for t, u in pairs) - float(rest @ z) ** 2
    square = (total - float(rest**2 @ (evidence.lengths - z**2))) / (m * (m - 1))
    dimension = sum(np.size(t) for t in jax.tree.leaves(evidence.total)) - bool(z.any())
    power = float(np.mean(rest**2))
    null = np.sqrt(2.0 * dimension) * power / m
    beyond = 4.0 * max(square, 0.0) * (power + max(square, 0.0)) / m
    return square, float(np.sqrt(null**2 + beyond)), float(null)


def _unit(gradient: Any, shape: Any) -> Any:
    """Return the gradient at length 1; 0 where there is none, or where it is not finite."""
    length = 0.0
    if gradient is not None:
        length = float(np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in jax.tree.leaves(gradient))))
    if not (np.isfinite(length) and length > 0.0):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    return jax.tree.map(lambda g, x: jnp.asarray(g / length, x.dtype), gradient, shape)


def _each(loss_at, draw, unit, noise, keys):
    """Return for each key what its pair shows."""

    def _one(key):
        direction = draw(key)
        up, down = (loss_at(jax.tree.map(partial(jnp.multiply, size), direction)) for size in (noise, -noise))
        slope = (up - down) / (2.0 * noise)
        along, length = (sum(jax.tree.leaves(jax.tree.map(jnp.vdot, direction, x))) for x in (unit, direction))
        return direction, slope, along, length

    return jax.lax.map(_one, keys, batch_size=_ROUND)


def _summed(each) -> Evidence:
    direction, slopes, along, lengths = jax.tree.map(lambda x: np.asarray(x, float), each)

    def _weighted(weights, power):
        return jax.tree.map(lambda d: np.tensordot(weights**power, d**power, axes=1), direction)

    return Evidence(_weighted(slopes, 1), _weighted(slopes, 2), _weighted(along, 1), slopes, along, lengths)


def _joined(a: Evidence, b: Evidence) -> Evidence:
    sums = (jax.tree.map(np.add, x, y) for x, y in zip(a[:3], b[:3], strict=True))
    return Evidence(*sums, *(np.concatenate([x, y]) for x, y in zip(a[3:], b[3:], strict=True)))
