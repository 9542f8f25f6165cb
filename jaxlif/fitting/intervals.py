"""95 % intervals: which of them say something, and those of a joint fit.

Samples of a voltage are not independent and no model is quite right, so that the inverse information alone would not
do: how the score scatters over blocks of time says how much information there really is.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.bounds import Bounds, named_leaves
from jaxlif.fitting.data import Stimulation, Uncertainty
from jaxlif.fitting.joint_likelihood import JointLoss
from jaxlif.fitting.optimise import Minimum, gradient
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams

POSITIVE = ("tau_m", "r_m", "t_ref")
KERNELS = ("eta.", "gamma.")
BLOCKS = 50  # of time, over which the score's scatter is taken; fewer where time is short
VAGUE = 16.0  # an interval from a value to this many times it hardly determines the parameter
FACTOR = 1000.0  # and one to this many times it not at all
WIDEST = 200.0  # mV, or ms of t_ref, which may be 0: nor does one that is wider than any membrane's range
UNKNOWN = 1e10  # variance of a parameter that nothing is known about, in any unit
FLAT = 1e-10  # share of the steepest direction's information, in correlations, below which there is none
SINGLE = 1e-6  # and where it comes from differences in single precision
PART = 0.01  # share of a flat direction that makes a coordinate one of it
PRIOR_ALONE = 0.5  # share of a prior's variance: data that leave more of it say less than the prior
TIGHT = 0.95  # a correlation above this means that only a combination is determined


class Estimate(NamedTuple):
    """Parameters with their errors: names [n], values [n] and covariance [n, n], each in the parameters' units.

    ``freedom`` is the number of degrees of freedom of Student's distribution; ``spread`` the variance of white noise
    that would make the errors what they are.
    """

    names: tuple[str, ...]
    values: np.ndarray
    covariance: np.ndarray
    freedom: int
    spread: float = 0.0
    positive: tuple[str, ...] = POSITIVE

    @property
    def quantile(self) -> float:
        """Standard errors from the estimate to the end of a 95 % interval."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals by name; those of positive parameters are their logarithms' and stay above 0."""
        reach = self.quantile * np.sqrt(np.diag(self.covariance))
        rows = zip(self.names, map(float, self.values), map(float, reach), strict=True)
        return {name: _interval(value, r, positive=name in self.positive) for name, value, r in rows}


def _interval(value: float, reach: float, *, positive: bool) -> tuple[float, float]:
    if positive and value > 0.0:
        factor = float(np.exp(min(reach / value, 700.0)))  # past this a double overflows
        return value / factor, value * factor
    return value - reach, value + reach


def sandwich(information: np.ndarray, scatter: np.ndarray, *, least: float = 0.0, share: float = FLAT) -> np.ndarray:
    """Return the covariance F⁻¹ J F⁻¹ [n, n] of an information F and the scatter J of the score.

    What F says nothing about, by :func:`flat_coordinates`, is :data:`UNKNOWN`. Source: White 1982, doi:10.2307/1912526.
    """
    flat = flat_coordinates(information, least, share)
    inverse = _inverse(information, flat)
    return np.where(flat[:, None] | flat, np.diag(np.full(len(flat), UNKNOWN)), inverse @ scatter @ inverse)


def _inverse(information: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Invert on what is not flat, in correlations, so that units do not matter; the rest is 0."""
    inverse, told = np.zeros_like(information), np.ix_(~flat, ~flat)
    root = np.sqrt(np.diag(information)[~flat])
    inverse[told] = np.linalg.inv(information[told] / np.outer(root, root)) / np.outer(root, root)
    return inverse


def flat_coordinates(information: np.ndarray, least: float = 0.0, share: float = FLAT) -> np.ndarray:
    """Mark the coordinates [n] that an information [n, n] says nothing about, alone or together with others.

    Alone where it is no more than ``least``; together in directions, of correlations, below a share of the steepest.
    """
    size = np.diag(information)
    if not np.isfinite(information).all():
        return np.ones(len(size), bool)
    flat = ~(size > least)
    root = np.sqrt(np.where(flat, 1.0, size))
    correlations = np.where(flat[:, None] | flat, np.eye(len(size)), information / np.outer(root, root))
    values, vectors = np.linalg.eigh(correlations)
    return np.asarray(flat | ((vectors[:, values < share * values.max()] ** 2).sum(axis=1) > PART))


def determined(
    params: LIFParams | LeakyParams, intervals: Mapping[str, tuple[float, float]], bounds: Bounds = MappingProxyType({})
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Return the intervals that are ones, and the names of the parameters whose are not."""
    values = {name: float(value) for name, value in named_leaves(params).items()}

    def _told(name: str) -> bool:
        unit = values["r_m"] if name.endswith(".a") else 1.0
        low, high = (unit * end for end in intervals[name])
        return is_determined(name, unit * values[name], (low, high), bounds.get(name))

    kept = {name: pair for name, pair in intervals.items() if _told(name)}
    return kept, tuple(name for name in intervals if name not in kept)


def is_determined(
    name: str, value: float, interval: tuple[float, float], bounds: tuple[float, float] | None = None
) -> bool:
    """Say whether an interval is one: it holds its value, and spans neither everything nor nothing.

    A current is given as the voltage that it makes, mV. At the ends of bounds an interval means nothing.
    """
    low, high = interval
    if not (np.isfinite([value, low, high]).all() and low <= value <= high and low < high):
        return False
    if bounds is not None and (not is_inside(name, value, bounds) or (low <= bounds[0] and high >= bounds[1])):
        return False
    return high <= FACTOR * low if low > 0.0 else high - low <= WIDEST


def is_inside(name: str, value: float, bounds: tuple[float, float]) -> bool:
    """Say whether a value lies inside its bounds and not at their ends; a refractory period may be 0."""
    low, high = bounds
    if name == "t_ref" and low == 0.0 and 0.0 <= value < 0.5 * high:
        return True
    first, last = (min(1e-3 * (high - low), 0.05 * abs(end)) if end else 1e-3 * (high - low) for end in bounds)
    return low + first < value < high - last


def uncertainty(loss: JointLoss, found: Minimum, current: np.ndarray) -> Uncertainty:
    r"""Give 95 % intervals around a minimum.

    The covariance is the sandwich :math:`F^{-1} J F^{-1}` of the information :math:`F = F_s + F_v + P` of spikes,
    voltage and priors and its scatter :math:`J = \phi_s F_s + \phi_v F_v + P`. The dispersions :math:`\phi` compare
    the scores of lanes of time with what the information expects, on the mean over all directions: the scatter itself,
    of 50 lanes in as many dimensions as there are parameters, would be too uncertain. A search stops where a step gains
    little; how far the next one would go, :math:`F^{-1} g` with the slope g, is an error beside it.

    Source: Varin, Reid & Firth 2011 (composite likelihoods), Statistica Sinica 21, 5.
    """
    (scores, information), coordinate = found.pieces, loss.coordinate
    blocks, prior = _blocks(scores), np.diag(1.0 / loss.sd**2)
    voltage, spikes = (_dispersion(b, f, loss.sd) for b, f in zip(blocks, information, strict=True))
    dispersion = max(voltage, 0.0), max(spikes, 1.0)  # spikes never say more than the likelihood of the right model
    covariance = joint_covariance(information, prior, dispersion)
    total = information.sum(axis=0) + prior
    left = _inverse(total, flat_coordinates(total, share=SINGLE)) @ gradient(loss, found.vector, found.pieces)
    covariance += np.outer(left, left)

    def _values(x: jax.Array) -> jax.Array:
        leaves = named_leaves(coordinate.params(x, loss.fixed))
        return jnp.stack([leaves[name] for name in coordinate.names])

    point = jnp.asarray(found.vector, jnp.float32)
    slopes = np.asarray(jax.jacfwd(_values)(point), float)
    values = np.asarray(_values(point), float)
    positive = tuple(name for name, interval in coordinate.coordinates.free if interval.low == 0.0)
    squares, vague = slopes @ covariance @ slopes.T, np.diag(covariance) > PRIOR_ALONE * loss.sd**2
    squares[vague, vague] = UNKNOWN  # an interval that the prior gives is none of the data
    estimate = Estimate(coordinate.names, values, squares, blocks.shape[1] - 1, positive=positive)
    error = float(np.sqrt(found.score.squares / max(found.score.compared, 1.0)))
    stimulus = _stimulation(current, loss.dt)
    # Single terms of a kernel trade for one another: the kernel has a band.
    told = {name: pair for name, pair in estimate.intervals().items() if not name.startswith(KERNELS)}
    known = Uncertainty(coordinate.names, told, covariance, information, dispersion, error, (), stimulus)
    return known._replace(notes=_notes(known, determined(loss.params(found.vector), known.intervals)[0]))


def kernel_band(
    params: AdaptiveLIFParams, known: Uncertainty, kind: str, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return what a spike leaves behind and its 95 % band, each [T]: the current "eta", pA, or threshold "gamma", mV.

    At times after the spike, [T], ms; of the refractory period nothing shows the kernel.
    """
    taus = np.array(getattr(params, f"tau_{kind}"))
    unit = float(params.r_m) if kind == "eta" else 1.0  # coordinates are in mV at the end of the refractory period
    shapes = np.exp(-(times[:, None] - float(params.t_ref)) / taus)
    value = shapes @ (np.array(getattr(params, kind)) * np.exp(-float(params.t_ref) / taus))
    own = [known.names.index(name) for name in (*(f"{kind}.{k}" for k in range(len(taus))), "r_m")]
    slopes = np.column_stack([shapes / unit, -value * (kind == "eta")])  # the last by log r_m
    reach = 1.96 * np.sqrt(np.einsum("tk,kl,tl->t", slopes, known.covariance[np.ix_(own, own)], slopes))
    return value, value - reach, value + reach


def joint_covariance(information: np.ndarray, prior: np.ndarray, dispersion: tuple[float, float]) -> np.ndarray:
    """Return the covariance [n, n] that an information [2, n, n], of voltage and spikes, and that of a prior leave."""
    total, scatter = information.sum(axis=0), np.tensordot(dispersion, information, 1)
    return sandwich(total + prior, scatter + prior, share=SINGLE)


def narrowed(
    information: np.ndarray, more: np.ndarray, prior: np.ndarray, dispersion: tuple[float, float]
) -> np.ndarray:
    """Return the widths of intervals [n] with more information [2, n, n] over those without.

    What is flat is so without it: beside what a recording tells most about, it may make another direction look flat.
    """
    flat = flat_coordinates(information.sum(axis=0) + prior, share=SINGLE)

    def _variances(information: np.ndarray) -> np.ndarray:
        inverse = _inverse(information.sum(axis=0) + prior, flat)
        return np.diag(inverse @ (np.tensordot(dispersion, information, 1) + prior) @ inverse)

    before, after = _variances(information), _variances(information + more)
    # What a penalty holds, not the data, may seem to widen: it has nothing to gain.
    return np.asarray(np.minimum(np.sqrt(np.divide(after, before, out=np.ones_like(after), where=before > 0.0)), 1.0))


def _blocks(scores: np.ndarray) -> np.ndarray:
    """Add scores [2, lanes, m] up to at most 50 blocks of time, [2, blocks, m]."""
    count = min(BLOCKS, scores.shape[1])
    return np.asarray(np.add.reduceat(scores, np.arange(count) * scores.shape[1] // count, axis=1))


def _dispersion(blocks: np.ndarray, information: np.ndarray, scale: np.ndarray) -> float:
    """Return the mean ratio of the scatter to the information, over the directions that have any."""
    values, vectors = np.linalg.eigh(scale[:, None] * information * scale)
    told = values > 1e-6 * values.max()
    if not told.any():
        return 1.0  # spikes alone were fitted, or the voltage alone
    whitened = blocks @ (scale[:, None] * vectors[:, told] / np.sqrt(values[told]))
    return len(blocks) * float(np.var(whitened, axis=0, ddof=1).mean())


def _stimulation(current: np.ndarray, dt: float) -> Stimulation:
    """Describe a current; its correlation time is the lag at which the autocorrelation has fallen to 1/e."""
    away = current - current.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(away, 2 * away.shape[1])) ** 2
    correlation = np.fft.irfft(power.sum(axis=0))[: away.shape[1]]
    lag = max(1, int(np.argmax(correlation < correlation[0] / np.e)))
    return Stimulation(float(current.mean()), float(current.std()), lag * dt, current.size * dt)


def _notes(known: Uncertainty, intervals: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Say what a protocol hardly determines, what may as well be 0, and which pairs trade for one another."""
    notes = []
    for name, (low, high) in intervals.items():
        if low < 0.0 < high and name.endswith((".a", ".b")):
            notes.append(f"{name} cannot be told from 0: its 95 % interval is {low:.3g} to {high:.3g}")
        elif 0.0 < VAGUE * low < high:
            span = f"its 95 % interval spans a factor of {high / low:.2g}"
            notes.append(f"{name} is hardly determined by these data: {span}")
    correlations, names = known.correlations, known.names
    rows, columns = np.nonzero(np.triu(np.abs(correlations), 1) > TIGHT)
    pairs = sorted(zip(rows, columns, strict=True), key=lambda pair: -abs(correlations[pair]))
    if pairs:
        shown = ", ".join(f"{names[i]} and {names[j]} ({correlations[i, j]:.2f})" for i, j in pairs[:4])
        more = f", and {len(pairs) - 4} more pairs" if len(pairs) > 4 else ""
        notes.append(f"parameters that trade for one another, with their correlation: {shown}{more}")
    return tuple(notes)
