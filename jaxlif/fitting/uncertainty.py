"""Intervals for the parameters of a joint fit, and what a protocol leaves undetermined.

Voltages are not independent from sample to sample and no model is quite right, so that the inverse information alone
would not do: the scatter of the loss's gradient over blocks of time says how much information there really is. And the
loss is no parabola where parameters trade for one another, so that an interval ends where the profile of the loss does.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import stdtrit

from jaxlif.fitting.bounds import Bounds, named_leaves
from jaxlif.fitting.chart import SOFT, Chart
from jaxlif.fitting.information import pieces, prior_information, scales
from jaxlif.fitting.joint_loss import JointLoss, Samples, evaluate, with_variance
from jaxlif.fitting.profile import Rise, Valley, crossing
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.readout import LeakyParams

BLOCKS = 50  # of time, over which the gradient's scatter is taken; fewer where time is short
FEWEST = 16  # blocks of all sweeps together; where time is too short for them every sweep has its own
LAST_STEPS = 3  # Newton steps after the optimiser
SETTLED = 0.005  # nats that a Newton step could still gain
REACH, FAR = 2.0, 10.0  # a step along a valley moves the others no farther: a factor of e², 10 mV
LARGEST = 4.0  # a factor of 50, as a logarithm: an interval's half is not followed farther
VAGUE = 16.0  # an interval from a value to this many times it hardly determines the parameter
FACTOR = 1000.0  # and one to this many times it not at all
WIDEST = 200.0  # mV, or ms of t_ref, which may be 0: nor does one that is wider than any membrane's range
FLAT = 1e-10  # share of the steepest direction's information, in correlations, below which there is none
SINGLE = 1e-6  # and where it comes from differences in single precision
PART = 0.01  # share of a flat direction that makes a coordinate one of it
TIGHT = 0.95  # a correlation above this means that only a combination is determined
THREADS = 2  # a loop over time fills one core


class Stimulation(NamedTuple):
    """A current in numbers: mean and standard deviation, pA; correlation time and duration over all sweeps, ms."""

    mean: float
    sd: float
    tau: float
    duration: float


class Uncertainty(NamedTuple):
    """What is known about the n free parameters of a fit, beside their values.

    ``intervals``: by name the 95 % interval, in the parameter's unit; ``covariance`` [n, n] of ``names`` in free
    coordinates (logarithms of what is positive, jumps at the end of the refractory period); ``information`` [2, n, n]
    of the voltage and of the spikes in the same coordinates, and ``dispersion`` of both: how many times more the score
    scatters than that information says; ``voltage_error``: standard deviation of recorded from model voltage, mV;
    ``notes``: what is not determined, in words; ``stimulus``: the current that was fitted.
    """

    names: tuple[str, ...]
    intervals: dict[str, tuple[float, float]]
    covariance: np.ndarray
    information: np.ndarray
    dispersion: tuple[float, float]
    voltage_error: float
    notes: tuple[str, ...]
    stimulus: Stimulation

    @property
    def correlations(self) -> np.ndarray:
        """Correlations [n, n] of ``names`` in free coordinates."""
        sd = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sd, sd)


def is_determined(
    name: str, value: float, interval: tuple[float, float], bounds: tuple[float, float] | None = None
) -> bool:
    """Say whether an interval is one: it holds its value, and spans neither everything nor nothing.

    Args:
        name: the parameter's, which says whether it is positive.
        value: in its unit; a current is given as the voltage that it makes, mV.
        interval: likewise.
        bounds: between which it was searched for, if it was: at their ends an interval means nothing.

    Example:
        >>> is_determined("tau_m", 10.0, (8.0, 13.0)), is_determined("tau_m", 10.0, (1e-300, 1e300))
        (True, False)
    """
    low, high = interval
    if not (np.isfinite([value, low, high]).all() and low <= value <= high and low < high):
        return False
    if bounds is not None and (not is_inside(name, value, bounds) or (low <= bounds[0] and high >= bounds[1])):
        return False
    positive = name.startswith(("tau", "r_m", "delta_v", "coupling.tau", "coupling.k"))
    return high <= FACTOR * low if positive and value > 0.0 else high - low <= WIDEST


def is_inside(name: str, value: float, bounds: tuple[float, float]) -> bool:
    """Say whether a value lies inside its bounds and not at their ends; a refractory period may be 0.

    Args:
        name: the parameter's.
        value: in its unit.
        bounds: likewise.
    """
    low, high = bounds
    if name == "t_ref" and low == 0.0 and 0.0 <= value < 0.5 * high:
        return True
    first, last = (min(1e-3 * (high - low), 0.05 * abs(end)) if end else 1e-3 * (high - low) for end in bounds)
    return low + first < value < high - last


def flat_coordinates(information: np.ndarray, least: float = 0.0, share: float = FLAT) -> np.ndarray:
    """Mark the coordinates [n] that an information [n, n] says nothing about, alone or together with others.

    Args:
        information: a sum of squares.
        least: information on a single coordinate that is taken for none.
        share: of the steepest direction's that is.

    Example:
        >>> flat_coordinates(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        array([ True,  True, False])
    """
    size = np.diag(information)
    if not np.isfinite(information).all():
        return np.ones(len(size), bool)
    flat = ~(size > least)
    root = np.sqrt(np.where(flat, 1.0, size))
    values, vectors = np.linalg.eigh(
        np.where(flat[:, None] | flat, np.eye(len(size)), information / np.outer(root, root))
    )
    return flat | ((vectors[:, values < share * values.max()] ** 2).sum(axis=1) > PART)


def uncertainty(
    loss: JointLoss,
    params: AdaptiveLIFParams,
    samples: Samples,
    active: np.ndarray,
    current: np.ndarray,
    level: float,
) -> tuple[AdaptiveLIFParams, Uncertainty | None]:
    r"""Take the last steps to a minimum and give 95 % intervals around it.

    The covariance is the sandwich :math:`F^{-1} J F^{-1}` of the information :math:`F = F_s + F_v` of spikes and
    voltage and its scatter :math:`J = \phi_s F_s + \phi_v F_v`. The dispersions :math:`\phi` compare the gradients of
    blocks of time with what the information expects, on the mean over all directions: the scatter itself, of 50 blocks
    in as many dimensions as there are parameters, would be too uncertain. An interval ends where the profile of the
    loss has risen by
    :math:`\frac{1}{2} t^2 C_{ii} / (F^{-1})_{ii}`: for a parabola that is t standard errors.

    Args:
        loss: the loss that was minimised.
        params: its minimum, or nearly.
        samples: what it was minimised on.
        active: indices of the coordinates that were free.
        current: that was fitted, [S, T], pA.
        level: the voltage from which the cell spikes, mV.

    Returns:
        The parameters at the minimum, Python floats, and the :class:`Uncertainty`; None where the information is not
        finite.

    Source: White 1982, doi:10.2307/1912526; Varin, Reid & Firth 2011 (composite likelihoods), Statistica Sinica 21, 5;
    Venzon & Moolgavkar 1988, doi:10.2307/2347496 (profiles).
    """
    samples = with_variance(loss, params, samples)
    parts, scale = pieces(loss, loss.vector(params), samples, active), scales(loss, samples)[active]
    prior = prior_information(loss, loss.vector(params), samples, active)
    information = parts.information.sum(axis=0) + prior
    if not np.isfinite(information).all():
        return params, None
    flat = flat_coordinates(information, share=SINGLE)
    inverse = _inverse(information, scale)
    vector = _settled(loss, loss.vector(params), samples, active, inverse)
    params = jax.tree.map(float, loss.params(jnp.asarray(vector, samples[0].bend.dtype), samples[0]))
    blocks = _blocks(parts.scores)
    voltage, spikes = (_dispersion(b, f, scale) for b, f in zip(blocks, parts.information, strict=True))
    spread = voltage, max(spikes, 1.0)  # spikes never say more than the likelihood of the right model
    covariance = sandwich(parts.information, prior, spread, scale) + np.diag(np.where(flat, np.diag(inverse), 0.0))
    names = tuple(loss.coordinates.free[i][0] for i in active)
    quantile = float(stdtrit(blocks.shape[1] - 1, 0.975))
    heights = quantile**2 * np.diag(covariance) / np.diag(inverse)
    rise = _rise(loss, vector, samples, active, information)
    ends = _Ends(loss, params, vector, active, rise, information, scale, heights, level)

    def interval(n):
        return (-np.inf, np.inf) if flat[n] else ends.interval(n)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(interval, range(len(names))))
    known = Uncertainty(
        names,
        dict(zip(names, found, strict=True)),
        covariance,
        parts.information,
        spread,
        float(np.sqrt(samples[0].variance)),
        (),
        _stimulation(current, loss.dt),
    )
    told = known._replace(intervals=determined(params, known.intervals)[0])
    return params, known._replace(notes=(*_vague(told), *_insignificant(told), *_tied(known)))


def determined(
    params: LIFParams | LeakyParams, intervals: Mapping[str, tuple[float, float]], bounds: Bounds = MappingProxyType({})
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Return the intervals that are ones, and the names of the parameters whose are not.

    Args:
        params: the parameters, in whose units the intervals are.
        intervals: 95 % intervals by name.
        bounds: by name, where there are any.
    """
    values = {name: float(value) for name, value in named_leaves(params).items()}

    def told(name):
        unit = values["r_m"] if name.startswith("eta") else 1.0
        low, high = (unit * end for end in intervals[name])
        return is_determined(name, unit * values[name], (low, high), bounds.get(name))

    kept = {name: pair for name, pair in intervals.items() if told(name)}
    return kept, tuple(name for name in intervals if name not in kept)


def sandwich(
    information: np.ndarray, prior: np.ndarray, dispersion: tuple[float, float], scale: np.ndarray
) -> np.ndarray:
    r"""Return the covariance :math:`F^{-1} J F^{-1}`, [n, n].

    Args:
        information: of voltage and spikes, [2, n, n].
        prior: that of the prior, [n, n].
        dispersion: how many times more the score of each scatters.
        scale: what a unit is in each coordinate, [n].
    """
    inverse = _inverse(information.sum(axis=0) + prior, scale)
    return inverse @ _positive(np.tensordot(dispersion, information, 1) + prior, scale) @ inverse


def _positive(matrix, scale):
    """Take out the negative eigenvalues of a sum of squares: they are rounding, which the inverse would blow up."""
    values, vectors = np.linalg.eigh(scale[:, None] * matrix * scale)
    roots = vectors * np.sqrt(np.maximum(values, 0.0)) / scale[:, None]
    return roots @ roots.T


def _inverse(information, scale):
    """Invert; what the data leave flat must come out wide, so that only rounding is kept out."""
    values, vectors = np.linalg.eigh(scale[:, None] * information * scale)
    axes = scale[:, None] * vectors / np.sqrt(np.maximum(values, 1e-10 * values.max()))
    return axes @ axes.T


def _stimulation(current, dt):
    """Describe a current; its correlation time is the lag at which the autocorrelation has fallen to 1/e."""
    away = current - current.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(away, 2 * away.shape[1])) ** 2
    correlation = np.fft.irfft(power.sum(axis=0))[: away.shape[1]]
    lag = max(1, int(np.argmax(correlation < correlation[0] / np.e)))
    return Stimulation(float(current.mean()), float(current.std()), lag * dt, current.size * dt)


def _settled(loss, vector, samples, active, inverse):
    """Take Newton steps for as long as they help: the optimiser stops where it moves slowly."""
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


def _blocks(scores):
    """Add scores [2, B, S, m] up to [2, blocks, m]."""
    kinds, length, sweeps, size = scores.shape
    if length < FEWEST:
        return scores.reshape(kinds, length * sweeps, size)
    count = min(BLOCKS, length)
    first = np.arange(count) * length // count
    return np.add.reduceat(scores.sum(axis=2), first, axis=1)


def _scatter(blocks):
    away = blocks - blocks.mean(axis=0)
    return away.T @ away * len(blocks) / (len(blocks) - 1)


def _dispersion(blocks, information, scale):
    """Return the mean ratio of the scatter to the information, over the directions that have any."""
    values, vectors = np.linalg.eigh(scale[:, None] * information * scale)
    told = values > 1e-6 * values.max()
    if not told.any():
        return 1.0  # spikes alone were fitted, or the voltage alone
    axes = scale[:, None] * vectors[:, told] / np.sqrt(values[told])
    return float(np.trace(axes.T @ _scatter(blocks) @ axes) / told.sum())


def _rise(loss, vector, samples, active, information) -> Rise:
    """Return the loss above its minimum; of many sweeps the first part, with a parabola for the others."""
    few = samples[: max(2, len(samples) // 4)]
    value, gradient, _ = evaluate(loss, vector, few)
    # All parts together have no gradient at the minimum, so that of the others is known too.
    others, slope = (1.0 - len(few) / len(samples)) * information, gradient[active] * (len(few) < len(samples))

    def rise(moved):
        ahead = vector.copy()
        ahead[active] += moved
        with jax.enable_x64(few[0].bend.dtype == np.float64):  # a setting of the thread
            after, there, _ = evaluate(loss, ahead, few)
        bent = others @ moved - slope
        return after - value + float(moved @ bent - 0.5 * moved @ others @ moved), there[active] + bent

    return rise


class _Ends(NamedTuple):
    """What the search for the ends of intervals needs; arrays over the active coordinates.

    ``heights`` [m]: twice the rise of the profile at the ends; ``level``: where the cell spikes, mV.
    """

    loss: JointLoss
    params: AdaptiveLIFParams
    vector: np.ndarray
    active: np.ndarray
    rise: Rise
    information: np.ndarray
    scale: np.ndarray
    heights: np.ndarray
    level: float

    def interval(self, n: int) -> tuple[float, float]:
        """Return the interval of the n-th parameter, in its unit."""
        names, forms = zip(*self._free, strict=True)
        at, t_ref = self.vector[self.active], float(self.params.t_ref)
        kind, _, number = names[n].partition(".")
        tau = f"tau_{kind}.{number}"
        ratio = t_ref / float(np.exp(at[names.index(tau)])) if tau in names else 0.0
        chart = Chart(names, n, self.level, t_ref, ratio)
        limit = np.inf if forms[n].low == -np.inf and kind != "gamma" else LARGEST
        start, valley = chart.to_straight(at), self._valley(chart)
        ends = (start[n] + crossing(valley, n, side, 0.5 * self.heights[n], limit=limit) for side in (-1, 1))
        low, high = (float(np.exp(ratio)) * _value(kind, forms[n], end) for end in ends)
        return low, high

    @property
    def _free(self):
        return [self.loss.coordinates.free[i] for i in self.active]

    def _valley(self, chart: Chart) -> Valley:
        """Return the loss in straight coordinates."""
        at = self.vector[self.active]
        start = chart.to_straight(at)
        turn = chart.jacobian(start)

        def rise(moved):
            with np.errstate(all="ignore"):
                away = chart.to_free(start + moved) - at
                if not np.isfinite(away).all():
                    return np.inf, moved
                value, gradient = self.rise(away)
                return value, chart.jacobian(start + moved).T @ gradient

        # Where the data leave the others flat they would run away.
        reach = self.scale * np.array([REACH if form.low > -np.inf else FAR for _, form in self._free])
        information = turn.T @ self.information @ turn + np.diag(reach**-2.0)
        return Valley(rise, _inverse(information, self.scale))


def _value(kind, form, end):
    """Return a parameter's value, a jump in units of what is left of it, at an end in the chart's coordinate."""
    return float(SOFT * np.sinh(end)) if kind == "gamma" else float(form.to_value(end))


def _vague(known):
    """Name what a protocol hardly determines."""
    for name, (low, high) in known.intervals.items():
        if low > 0 and name.partition(".")[0] not in ("eta", "gamma") and high > VAGUE * low:
            yield f"{name} is hardly determined by these data: its 95 % interval spans a factor of {high / low:.2g}"


def _insignificant(known):
    for name, (low, high) in known.intervals.items():
        if (name.partition(".")[0] in ("eta", "gamma") or name == "coupling.b") and low < 0.0 < high:
            yield f"{name} cannot be told from 0: its 95 % interval is {low:.3g} to {high:.3g}"


def _tied(known):
    """Say in one note which pairs only a combination of is determined, the tightest first."""
    correlations, names = known.correlations, known.names
    rows, columns = np.nonzero(np.triu(np.abs(correlations), 1) > TIGHT)
    pairs = sorted(zip(rows, columns, strict=True), key=lambda pair: -abs(correlations[pair]))
    if pairs:
        shown = ", ".join(f"{names[i]} and {names[j]} ({correlations[i, j]:.2f})" for i, j in pairs[:4])
        more = f", and {len(pairs) - 4} more pairs" if len(pairs) > 4 else ""
        yield f"parameters that trade for one another, with their correlation: {shown}{more}"
