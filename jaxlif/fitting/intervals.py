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
from jaxlif.fitting.joint_likelihood import JointLoss, Samples, evaluate, with_variance
from jaxlif.fitting.optimise import pieces, prior_information, scales
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams

POSITIVE = ("tau", "r_m", "delta_v", "coupling.tau", "coupling.k")
BLOCKS = 50  # of time, over which the score's scatter is taken; fewer where time is short
FEWEST = 16  # blocks of all sweeps together; where time is too short for them every sweep has its own
LAST_STEPS = 3  # Newton steps after the optimiser
SETTLED = 0.005  # nats that a Newton step could still gain
VAGUE = 16.0  # an interval from a value to this many times it hardly determines the parameter
FACTOR = 1000.0  # and one to this many times it not at all
WIDEST = 200.0  # mV, or ms of t_ref, which may be 0: nor does one that is wider than any membrane's range
UNKNOWN = 1e10  # variance of a parameter that nothing is known about, in any unit
FLAT = 1e-10  # share of the steepest direction's information, in correlations, below which there is none
SINGLE = 1e-6  # and where it comes from differences in single precision
PART = 0.01  # share of a flat direction that makes a coordinate one of it
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

    @property
    def quantile(self) -> float:
        """Standard errors from the estimate to the end of a 95 % interval."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals by name; those of positive parameters are their logarithms' and stay above 0."""
        reach = self.quantile * np.sqrt(np.diag(self.covariance))
        rows = zip(self.names, map(float, self.values), map(float, reach), strict=True)
        return {name: _interval(name, value, r) for name, value, r in rows}


def _interval(name: str, value: float, reach: float) -> tuple[float, float]:
    if name.startswith((*POSITIVE, "t_ref")) and value > 0.0:
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
        unit = values["r_m"] if name.startswith("eta") else 1.0
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
    return high <= FACTOR * low if name.startswith(POSITIVE) and value > 0.0 else high - low <= WIDEST


def is_inside(name: str, value: float, bounds: tuple[float, float]) -> bool:
    """Say whether a value lies inside its bounds and not at their ends; a refractory period may be 0."""
    low, high = bounds
    if name == "t_ref" and low == 0.0 and 0.0 <= value < 0.5 * high:
        return True
    first, last = (min(1e-3 * (high - low), 0.05 * abs(end)) if end else 1e-3 * (high - low) for end in bounds)
    return low + first < value < high - last


def uncertainty(
    loss: JointLoss, params: AdaptiveLIFParams, samples: Samples, active: np.ndarray, current: np.ndarray
) -> tuple[AdaptiveLIFParams, Uncertainty | None]:
    r"""Take the last steps to a minimum of the active coordinates, and give 95 % intervals around it.

    The covariance is the sandwich :math:`F^{-1} J F^{-1}` of the information :math:`F = F_s + F_v` of spikes and
    voltage and its scatter :math:`J = \phi_s F_s + \phi_v F_v`. The dispersions :math:`\phi` compare the scores of
    blocks of time with what the information expects, on the mean over all directions: the scatter itself, of 50 blocks
    in as many dimensions as there are parameters, would be too uncertain.

    Returned are the parameters at the minimum, Python floats, and what is known; None where that is not finite.
    Source: Varin, Reid & Firth 2011 (composite likelihoods), Statistica Sinica 21, 5.
    """
    samples = with_variance(loss, params, samples)
    vector, scale = loss.vector(params), scales(loss, samples)[active]
    scores, information = pieces(loss, vector, samples, active)
    prior = prior_information(loss, vector, samples, active)
    if not np.isfinite(information).all():
        return params, None
    vector = _settled(loss, vector, samples, active, information.sum(axis=0) + prior)
    point = jnp.asarray(vector, samples[0].bend.dtype)
    params = jax.tree.map(float, loss.params(point, samples[0].params))
    blocks = _blocks(scores)
    voltage, spikes = (_dispersion(b, f, scale) for b, f in zip(blocks, information, strict=True))
    dispersion = voltage, max(spikes, 1.0)  # spikes never say more than the likelihood of the right model
    covariance = joint_covariance(information, prior, dispersion)
    names = tuple(loss.coordinates.free[i][0] for i in active)

    def _values(x: jax.Array) -> jax.Array:
        leaves = named_leaves(loss.params(x, samples[0].params))
        return jnp.stack([leaves[name] for name in names])

    slopes = np.asarray(jax.jacfwd(_values)(point), float)[:, active]
    estimate = Estimate(names, np.asarray(_values(point)), slopes @ covariance @ slopes.T, blocks.shape[1] - 1)
    known = Uncertainty(
        names,
        estimate.intervals(),
        covariance,
        information,
        dispersion,
        float(np.sqrt(samples[0].variance)),
        (),
        _stimulation(current, loss.dt),
    )
    return params, known._replace(notes=_notes(known, determined(params, known.intervals)[0]))


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


def _settled(
    loss: JointLoss, vector: np.ndarray, samples: Samples, active: np.ndarray, information: np.ndarray
) -> np.ndarray:
    """Take Newton steps for as long as they help: the optimiser stops where it moves slowly."""
    inverse = _inverse(information, flat_coordinates(information, share=SINGLE))
    value, gradient, _ = evaluate(loss, vector, samples)
    for _ in range(LAST_STEPS):
        step = -inverse @ gradient[active]
        gain = -0.5 * float(step @ gradient[active])
        if gain < SETTLED:
            break
        ahead = vector.copy()
        ahead[active] += step / max(1.0, np.sqrt(2.0 * gain))
        after, slope, _ = evaluate(loss, ahead, samples)
        if not after < value:
            break
        vector, value, gradient = ahead, after, slope
    return vector


def _blocks(scores: np.ndarray) -> np.ndarray:
    """Add scores [2, B, S, m] up to [2, blocks, m]."""
    kinds, length, sweeps, size = scores.shape
    if length < FEWEST:
        return scores.reshape(kinds, length * sweeps, size)
    count = min(BLOCKS, length)
    return np.asarray(np.add.reduceat(scores.sum(axis=2), np.arange(count) * length // count, axis=1))


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
    notes, jumps = [], ("eta", "gamma")
    for name, (low, high) in intervals.items():
        if low < 0.0 < high and name.startswith((*jumps, "coupling.b")):
            notes.append(f"{name} cannot be told from 0: its 95 % interval is {low:.3g} to {high:.3g}")
        elif 0.0 < VAGUE * low < high and not name.startswith(jumps):
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
