r"""The joint likelihood of the spikes and the voltage of a neuron that is made to spike where the cell did.

.. math:: -L + \frac{w}{2} N \log\frac{SSE}{N} + \frac{1}{2} \sum_i \left(\frac{z_i - m_i}{s_i}\right)^2

L is the log-likelihood of the spikes under escape noise, SSE the sum of squared errors of the N voltages away from
spikes, :math:`w = dt / 50\,ms`, as errors less than a memory apart count as one, and z the free coordinates: logarithms
of what is positive; jumps by what is left of them at the end of the refractory period, and conductances, in the voltage
that they make, mV. Every coordinate has a weak Gaussian prior (m, s).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import REAL, Coordinates, coordinates, named_leaves
from jaxlif.fitting.data import Data
from jaxlif.fitting.lanes import SIDE_BY_SIDE, Lanes, begin, cut_lanes, forced, single_precision, stretch, stretches
from jaxlif.losses import bits_per_spike
from jaxlif.neurons.adaptive import AdaptiveLIFParams

VOLTAGE_MEMORY = 25.0  # ms: how long an error of the voltage lasts, so that samples are not counted as independent
POSITIVE = (0.0, np.inf)
FREE = dict.fromkeys(("tau_m", "r_m", "delta_v"), POSITIVE) | dict.fromkeys(
    ("v_rest", "v_reset", "v_th", "eta.*", "gamma.*"), REAL
)
#: Mean and standard deviation; a mean of None is where a fit starts. Jumps in mV at the end of the refractory period.
PRIORS: dict[str, tuple[float | None, float]] = {
    "tau_m": (None, 2.0),
    "r_m": (None, 2.0),
    "v_*": (None, 30.0),
    "delta_v": (0.7, 1.0),  # 2 mV, give or take a factor e
    "eta.*": (0.0, 25.0),
    "gamma.*": (0.0, 25.0),
}
STRETCH = 100  # steps: with 30 coordinates and lanes their derivatives fill a megabyte
RUNAWAY = 6.0  # log-rate, from which on the expected spikes of a step are counted as those there: a search may pass by


class Score(NamedTuple):
    """Log-likelihood of the spikes, nats; sum of squared voltage errors, mV²; the number of voltages compared."""

    log_likelihood: float
    squares: float
    compared: float
    error: float = 0.0  # their sum, mV

    @property
    def levelled(self) -> "Score":
        """The score of a voltage that is off by a constant alone."""
        return self._replace(squares=self.squares - self.error**2 / max(self.compared, 1.0))


class Pieces(NamedTuple):
    """What voltage and spikes say about P coordinates: scores [2, lanes, P] and information [2, P, P].

    The score is the slope of the log-likelihood in each lane, the information its expected curvature.
    """

    scores: np.ndarray
    information: np.ndarray


@dataclass(frozen=True)
class Coordinate:
    """How free coordinates and parameters belong together: a value, for which the loss is compiled once."""

    coordinates: Coordinates
    dt: float

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the free parameters."""
        return tuple(name for name, _ in self.coordinates.free)

    def params(self, vector: Array, fixed: AdaptiveLIFParams) -> AdaptiveLIFParams:
        """Return the parameters at a vector of free coordinates; ``fixed`` has the others, in these units."""
        free = {name: vector[i] for i, name in enumerate(self.names)}
        return _in_volts(self.coordinates.to_params(free, fixed), back=True)

    def vector(self, params: AdaptiveLIFParams) -> np.ndarray:
        """Return the free coordinates of parameters, in double precision."""
        free = self.coordinates.to_free(_in_volts(params))
        return np.array([float(free[name]) for name in self.names])


def _in_volts(params: AdaptiveLIFParams, *, back: bool = False) -> AdaptiveLIFParams:
    """Turn jumps at spikes into what is left at the end of the refractory period, and currents into mV; or ``back``."""
    sign, r_m = (1.0, 1.0 / params.r_m) if back else (-1.0, params.r_m)

    def _carried(jumps: tuple[Any, ...], taus: tuple[Any, ...], unit: Any) -> tuple[Any, ...]:
        return tuple(unit * jump * jnp.exp(sign * params.t_ref / tau) for jump, tau in zip(jumps, taus, strict=True))

    def _scaled(mechanism: Any) -> Any:
        return replace(mechanism, **{name: r_m * getattr(mechanism, name) for name in mechanism.conductances})

    return replace(
        params,
        eta=_carried(params.eta, params.tau_eta, r_m),
        gamma=_carried(params.gamma, params.tau_gamma, 1.0),
        mechanisms=tuple(map(_scaled, params.mechanisms)),
    )


class JointLoss:
    """The loss of a neuron on recorded lanes; what matches ``free`` is free, all that has a prior by default.

    Args:
        start: where the fit starts, and what is not free.
        parts: lanes of one shape.
        dt: step, ms.
        free: patterns of names.
        origin: where the priors count from whose means are the start; the start by default.
        shrink: factor on the standard deviations of what spikes leave behind, where these are few.
    """

    def __init__(
        self,
        start: AdaptiveLIFParams,
        parts: Sequence[Lanes],
        dt: float,
        *,
        free: Sequence[str] = ("*",),
        origin: AdaptiveLIFParams | None = None,
        shrink: float = 1.0,
    ) -> None:
        start = jax.tree.map(float, start)
        bounds, priors = _free(start)
        names = [name for name in bounds if any(fnmatchcase(name, pattern) for pattern in free)]
        chosen = {name: bounds[name] for name in names}  # none where a model is scored and nothing fitted
        self.coordinate = Coordinate(coordinates(start, chosen) if chosen else Coordinates(()), dt)
        self.parts, self.dt, self.fixed = list(parts), dt, jax.tree.map(jnp.float32, _in_volts(start))
        self.start, rows = self.coordinate.vector(start), [priors[name] for name in self.coordinate.names]
        begin = self.start if origin is None else self.coordinate.vector(origin)
        self.mean = np.array([z if mean is None else mean for z, (mean, _) in zip(begin, rows, strict=True)])
        kernels = np.array([name.startswith(("eta.", "gamma.")) for name in self.coordinate.names])
        self.sd = np.array([sd for _, sd in rows]) * np.where(kernels, shrink, 1.0)

    @property
    def weight(self) -> float:
        """The share of a sample of voltage that counts, w."""
        return self.dt / (2.0 * VOLTAGE_MEMORY)

    def __call__(self, vector: np.ndarray) -> tuple[float, Score]:
        """Return the loss at a vector of free coordinates, infinite where it is not defined, and what it is made of."""
        point = jnp.asarray(vector, jnp.float32)
        found = self._each(lambda part: _score(self.coordinate, point, self.fixed, part))
        score = Score(*np.sum(np.array(found, float), axis=0))
        loss = self.unseen(score) + 0.5 * np.sum(((vector - self.mean) / self.sd) ** 2)
        return (float(loss) if np.isfinite(loss) else np.inf), score

    def unseen(self, score: Score) -> float:
        """Return the loss without what the priors add, nats."""
        voltage = score.compared * np.log(max(score.squares, 1e-6) / max(score.compared, 1.0))
        return float(0.5 * self.weight * voltage - score.log_likelihood)

    def pieces(self, vector: np.ndarray, score: Score) -> Pieces:
        """Return what voltage and spikes say at a vector with its score."""
        point, error = jnp.asarray(vector, jnp.float32), self.weight * score.compared / max(score.squares, 1e-6)
        found = self._each(lambda part: _pieces(self.coordinate, point, self.fixed, part, jnp.float32(error)))
        scores, information = zip(*found, strict=True)
        each = np.concatenate(scores, axis=1).astype(float)
        each = each[:, (each != 0.0).any(axis=(0, 2))]  # without lanes that only fill up
        return Pieces(each, np.sum(information, axis=0, dtype=float))

    def _each(self, work: Callable[[Lanes], Any]) -> list[Any]:
        """Return what is found for each part, on the host; a loop over time fills one core, so two run at a time."""

        def _one(part: Lanes) -> Any:
            with single_precision():  # a setting of the thread
                return jax.tree.map(np.asarray, work(part))

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return list(pool.map(_one, self.parts))

    def params(self, vector: np.ndarray) -> AdaptiveLIFParams:
        """Return the parameters at a vector, Python floats."""
        point = jnp.asarray(vector, jnp.float32)
        found: AdaptiveLIFParams = jax.tree.map(float, self.coordinate.params(point, self.fixed))
        return found


def _free(params: AdaptiveLIFParams) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float | None, float]]]:
    """Return the bounds and the prior of every leaf that has one."""
    bounds, priors = {}, {}
    for name in named_leaves(params):
        pattern = next((p for p in FREE if fnmatchcase(name, p)), None)
        if pattern is not None:
            bounds[name], priors[name] = FREE[pattern], next(x for p, x in PRIORS.items() if fnmatchcase(name, p))
    owners = {f"mechanisms.{i}": mechanism for i, mechanism in enumerate(params.mechanisms)}
    for owner, mechanism in (owners | ({"coupling": params.coupling} if params.coupling else {})).items():
        for leaf, prior in mechanism.priors.items():
            bounds[f"{owner}.{leaf}"] = POSITIVE if leaf in mechanism.positive else REAL
            priors[f"{owner}.{leaf}"] = prior
    return bounds, priors


def log_rate(params: AdaptiveLIFParams, v: Array, threshold: Array) -> Array:
    r"""Return :math:`\log\lambda = \log\lambda_0 + (v - \theta)/\Delta_v` of the escape noise, the rate in 1/ms."""
    return jnp.log(jnp.asarray(params.lambda_0, v.dtype)) + (v - threshold) / params.delta_v


def _expected(rate: Array, dt: float) -> Array:
    return dt * jnp.exp(jnp.minimum(rate, RUNAWAY))


@partial(jax.jit, static_argnums=0)
def _score(coordinate: Coordinate, vector: Array, fixed: AdaptiveLIFParams, lanes: Lanes) -> Array:
    params = coordinate.params(vector, fixed)
    v, threshold = forced(params, lanes, coordinate.dt)
    expected = _expected(log_rate(params, v, threshold), coordinate.dt)
    spiked = jnp.log(-jnp.expm1(-jnp.maximum(expected, 1e-20)))
    likelihood = jnp.sum(jnp.where(lanes.judged > 0, spiked, -expected * lanes.active))
    error = lanes.compared * (v - lanes.voltage)
    return jnp.stack([likelihood, jnp.sum(error**2), jnp.sum(lanes.compared), jnp.sum(error)])


@partial(jax.jit, static_argnums=0)
def _pieces(
    coordinate: Coordinate, vector: Array, fixed: AdaptiveLIFParams, lanes: Lanes, error: Array
) -> tuple[Array, Array]:
    """Return scores [2, L, P] and information [2, P, P]; ``error`` is the weight of a voltage's square.

    A stretch of time at once, with derivatives forward along all directions: what they fill stays in the cache.
    """
    directions = jnp.eye(len(vector), dtype=vector.dtype)

    def _begin(z: Array) -> tuple[Any, Array]:
        state: Any = begin(coordinate.params(z, fixed), lanes, coordinate.dt)
        return _smooth(state), state.refractory

    def _onward(part: Lanes, held: Array, z: Array, state: Any) -> tuple[Any, Array]:
        params = coordinate.params(z, fixed)
        state, (v, threshold) = stretch(params, state._replace(refractory=held), part, coordinate.dt)
        return (_smooth(state), v, log_rate(params, v, threshold)), state.refractory

    def _through(carry: Any, rows: dict[str, Array]) -> tuple[Any, None]:
        state, slopes, held, *sums = carry
        part = lanes._replace(**rows)
        (state, v, rate), (slopes, *moved), held = jax.vmap(
            lambda z, s: jax.jvp(partial(_onward, part, held), (vector, state), (z, s), has_aux=True),
            out_axes=(None, 0, None),
        )(directions, slopes)
        more = _moments(v, rate, moved, part, error, coordinate.dt)
        return (state, slopes, held, *(a + b for a, b in zip(sums, more, strict=True))), None

    state, slopes, held = jax.vmap(lambda z: jax.jvp(_begin, (vector,), (z,), has_aux=True), out_axes=(None, 0, None))(
        directions
    )
    size, lanes_ = len(vector), lanes.voltage.shape[1]
    none = jnp.zeros((2, lanes_, size), vector.dtype), jnp.zeros((2, size, size), vector.dtype)
    (*_, scores, information), _ = jax.lax.scan(_through, (state, slopes, held, *none), stretches(lanes, STRETCH))
    return scores, information


def _smooth(state: Any) -> Any:
    """Return a state without what has no derivative."""
    return state._replace(refractory=())


def _moments(v: Array, rate: Array, slopes: list[Array], lanes: Lanes, error: Array, dt: float) -> tuple[Array, Array]:
    """Return what some steps add to scores and information; slopes of voltage and log-rate are [P, T, L]."""
    expected = _expected(rate, dt)
    # mu / (e^mu - 1), by its limit where the quotient would lose its digits.
    odds = jnp.where(expected < 1e-4, 1.0, expected / jnp.expm1(jnp.maximum(expected, 1e-4)))
    residuals = (
        error * lanes.compared * (lanes.voltage - v),
        jnp.where(lanes.judged > 0, odds, -expected * lanes.active),
    )
    weights = error * lanes.compared, lanes.active * expected * odds
    scores = [jnp.einsum("ptl,tl->lp", x, r) for x, r in zip(slopes, residuals, strict=True)]
    rows = [(x * jnp.sqrt(w)[None]).reshape(len(x), -1) for x, w in zip(slopes, weights, strict=True)]
    return jnp.stack(scores), jnp.stack([x @ x.T for x in rows])


def spike_bits(params: AdaptiveLIFParams, data: Data, window: slice = slice(None)) -> float | None:
    """Return the log-likelihood of the judged spikes in a window in bits each above a Poisson train; None without."""
    judged = np.zeros(data.spikes.shape, bool)
    judged[:, window] = data.judged[:, window]
    data = data.judging(judged)
    with single_precision():
        score = JointLoss(params, cut_lanes(data, params), data.dt, free=())(np.zeros(0))[1]
    return bits_above(score, data)


def bits_above(score: Score, data: Data) -> float | None:
    """Return the log-likelihood of a score of the judged spikes in bits each above a Poisson train; None without."""
    if not (count := int((data.spikes & data.judged).sum())):
        return None
    density = score.log_likelihood - count * np.log(data.dt)
    return float(bits_per_spike(density, count, float(data.judged.sum()) * data.dt))
