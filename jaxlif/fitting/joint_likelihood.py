"""The joint likelihood of the spikes and the voltage of a neuron that is made to spike where the cell did.

With the spikes given, spike-triggered currents and threshold movements are linear in them and the voltage is linear
between them: what :class:`TeacherForced` steps through is computed in blocks of time that lie side by side, the lanes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import REAL, Coordinates, coordinates, named_leaves
from jaxlif.fitting.data import Data, padded_length
from jaxlif.fitting.recurrence import recurrence, to_lanes
from jaxlif.losses import bits_per_spike, point_process_log_likelihood, spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import refractory_steps

single_precision = partial(jax.enable_x64, False)  # half the time and the same fit: its gradient is good to 1 %

UPSTROKE = 5.0  # ms before a spike that are not compared
BLOCK = 200  # steps; a few hundred fill the vector units and keep the number of scan steps small
PART = 150_000  # steps of all sweeps of a part: the temporaries of a gradient stay below what is mapped anew each time
ROOM = 256  # spikes of a sweep, and multiples of it
POSITIVE = ("tau_m", "r_m", "tau_eta.*", "tau_gamma.*", "delta_v", "coupling.tau", "coupling.k")
FREE = dict.fromkeys(POSITIVE, (0.0, np.inf)) | dict.fromkeys(
    ("v_rest", "v_reset", "v_th", "eta.*", "gamma.*", "coupling.b", "coupling.v_i"), REAL
)
BEND_WIDTH = 3.0  # mV, give or take a factor e
TAU_RANGE = (2.0, 500.0)  # ms; beyond, a time constant is penalised: a trace says nothing about it
VOLTAGE_MEMORY = 25.0  # ms: how long an error of the voltage lasts, so that samples are not counted as independent


# -------------------------------------------------------------------------------------------------------- the recording


class ForcedSweeps(NamedTuple):
    """Recorded sweeps in lanes, [length, blocks * S].

    ``current`` in pA and ``voltage`` in mV; ``spikes``, ``previous`` (those of the step before), ``free`` (not held
    after a spike), ``judged`` (spikes count) and ``compared`` (voltages do: away from spikes), 0 or 1; ``start`` [S],
    the voltage before the first step; ``offset`` [S], what a sweep's resting potential is above v_rest, mV; ``at`` [N],
    the places of all spikes in the flat array, filled up with places beyond its end.
    """

    current: Array
    voltage: Array
    spikes: Array
    previous: Array
    free: Array
    judged: Array
    compared: Array
    start: Array
    offset: Array
    at: Array


def arranged(data: Data, t_ref: float, dtype: str = "float32") -> list[ForcedSweeps]:
    """Arrange sweeps in parts of one size, for which the loss compiles once; the last is filled up, unjudged.

    Voltages are held for ``t_ref`` after a spike, ms; ``dtype`` is that of the arrays, and so of the fit.
    """
    (count, steps), held, terms = data.spikes.shape, int(refractory_steps(t_ref, data.dt)), data.terms
    if held < 1:
        raise ValueError(f"t_ref = {t_ref:g} ms: a neuron forced in blocks holds its voltage for a step at least")
    length = padded_length(max(steps, data.length))
    size = max(1, min(count, PART // length))
    # Room for the spikes of any part, and for some more in a longer one.
    room = size * -(-int(data.spikes.sum(axis=1).max()) // ROOM) * ROOM
    near, shape = (
        ~spike_mask(data.spikes.T, before=before, after=after).T
        for before, after in ((data.steps(UPSTROKE), held + 1), (0, held))
    )
    rows = {"current": terms.current(data.current), "voltage": data.voltage, "previous": _step_later(data.spikes)}
    rows |= {"free": ~_step_later(shape), "judged": data.judged, "compared": data.judged & ~near}

    def _part(first: int) -> ForcedSweeps:
        chosen = np.arange(first, first + size)
        more, sweeps = (chosen >= count)[:, None], chosen % count

        def _lanes(x: np.ndarray, fill: float = 0.0) -> np.ndarray:
            x = np.pad(x.astype(dtype), ((0, 0), (0, length - steps)), constant_values=fill)
            return to_lanes(x, BLOCK, fill)

        lanes = {name: _lanes(x[sweeps], name == "free") for name, x in rows.items()}
        lanes |= {name: _lanes(np.where(more, False, rows[name][sweeps])) for name in ("judged", "compared")}
        spikes = _lanes(data.spikes[sweeps])
        at = np.flatnonzero(spikes)
        at = np.pad(at, (0, room - len(at)), constant_values=spikes.size).astype(np.int32)
        ends = {"start": data.voltage[sweeps, 0].astype(dtype), "offset": terms.offset[sweeps].astype(dtype)}
        lanes |= ends | {"spikes": spikes * lanes["judged"], "at": at}
        return ForcedSweeps(**{name: jnp.asarray(x) for name, x in lanes.items()})

    return [_part(first) for first in range(0, count, size)]


def _step_later(marks: np.ndarray) -> np.ndarray:
    return np.pad(marks[:, :-1], ((0, 0), (1, 0)))


# ---------------------------------------------------------------------------------------------------- the forced neuron


def forced_adaptive(params: AdaptiveLIFParams, data: ForcedSweeps, dt: float) -> tuple[Array, Array]:
    """Return voltage before resets and threshold of an :class:`AdaptiveLIF` whose spikes are the recorded ones, mV.

    It equals :class:`TeacherForced` step by step; parameters are scalars, subthreshold adaptation is refused.
    """
    if params.a:
        raise ValueError(f"a has {len(params.a)} terms: a fit in blocks knows no subthreshold adaptation")
    zero = jnp.zeros_like(data.start)

    def _decay(tau: float | Array) -> Array:
        return jnp.exp(-dt / jnp.asarray(tau, zero.dtype))

    def _kernels(sizes: tuple[float | Array, ...], taus: tuple[float | Array, ...]) -> Array:
        terms = (
            size * recurrence(_decay(tau), None, data.previous, zero) for size, tau in zip(sizes, taus, strict=True)
        )
        return sum(terms, jnp.zeros_like(data.current))

    d = _decay(params.tau_m)
    rest = jnp.tile(params.v_rest + data.offset, data.current.shape[1] // len(zero))[None]
    driven = (1.0 - d) * (rest + params.r_m * (data.current - _kernels(params.eta, params.tau_eta)))
    v = recurrence(d, data.free, jnp.where(data.free > 0, driven, params.v_reset), data.start)
    threshold = params.v_th + _kernels(params.gamma, params.tau_gamma)
    if params.coupling is not None:
        d, begin = _decay(params.coupling.tau), params.coupling.target(data.start)
        # At the start of a step the voltage is that of the last, after the reset that a spike has caused.
        last = jnp.concatenate([jnp.concatenate([data.start, v[-1, : -len(zero)]])[None], v[:-1]])
        target = params.coupling.target(jnp.where(data.previous > 0, params.v_reset, last))
        threshold = threshold + params.coupling.b * recurrence(d, None, (1.0 - d) * target, begin)
    return v, threshold


def log_rate(params: AdaptiveLIFParams, v: Array, threshold: Array) -> Array:
    r"""Return :math:`\log\lambda = \log\lambda_0 + (v - \theta)/\Delta_v` of the escape noise, the rate in 1/ms."""
    return jnp.log(jnp.asarray(params.lambda_0, v.dtype)) + (v - threshold) / params.delta_v


# ------------------------------------------------------------------------------------------------------------- the loss


class Sample(NamedTuple):
    """What the loss is taken on: some sweeps, and what is not free.

    ``params`` fill in what is not free, with the jumps left at the end of the refractory period; ``bend`` is where v_i
    started, mV; ``variance`` that of the voltage's error, mV²; ``share`` that of the penalties which these sweeps bear.
    """

    sweeps: ForcedSweeps
    params: AdaptiveLIFParams
    bend: Array
    variance: Array
    share: Array


Samples = list[Sample]


class JointScore(NamedTuple):
    """Log-likelihood of the spikes, nats; sum of squared voltage errors, mV²; the number of voltages compared."""

    log_likelihood: Array
    squares: Array
    compared: Array


@dataclass(frozen=True)
class JointLoss:
    r"""The loss :math:`-L + \frac{w}{2} (SSE / \sigma^2 + N \log \sigma^2)`: spikes and voltage by their likelihoods.

    It adds up over sweeps. :math:`w = dt / (2 \cdot 25\,ms)` counts voltages less than a memory apart as one. Weak
    penalties keep time constants within 2 to 500 ms, k within some factor e of 3 mV (a narrow bend is as good as a
    corner, where the loss is flat in log k) and v_i within some 15 mV of its start. The jumps' coordinates are what is
    left of them at the end of the refractory period: before, nothing shows them, and a jump would trade for its time
    constant.
    """

    coordinates: Coordinates
    dt: float

    def __call__(self, vector: Array, sample: Sample) -> tuple[Array, JointScore]:
        """Return the loss at a vector of free coordinates, and the score it is made of."""
        nats, score = self.nats(self.response(vector, sample), sample)
        return nats + sample.share * penalty(self.params(vector, sample.params), sample.bend), score

    def response(self, vector: Array, sample: Sample) -> tuple[Array, Array]:
        """Return voltage, mV, and log-rate of the forced neuron in lanes."""
        params = self.params(vector, sample.params)
        v, threshold = forced_adaptive(params, sample.sweeps, self.dt)
        return v, log_rate(params, v, threshold)

    def nats(self, response: tuple[Array, Array], sample: Sample) -> tuple[Array, JointScore]:
        """Return what the loss is but for the penalties."""
        (v, rate), sweeps = response, sample.sweeps
        active = sweeps.free * sweeps.judged
        likelihood = point_process_log_likelihood(rate, sweeps.spikes, dt=self.dt, active=active, at=sweeps.at)
        score = JointScore(likelihood, jnp.sum(sweeps.compared * (v - sweeps.voltage) ** 2), jnp.sum(sweeps.compared))
        voltage = score.squares / sample.variance + score.compared * jnp.log(sample.variance)
        return 0.5 * self.weight * voltage - likelihood, score

    @property
    def weight(self) -> float:
        """The share of a sample of voltage that counts, w."""
        return self.dt / (2.0 * VOLTAGE_MEMORY)

    def params(self, vector: Array, fixed: AdaptiveLIFParams) -> AdaptiveLIFParams:
        """Return the parameters at a vector of free coordinates; ``fixed``, of a :class:`Sample`, are the others."""
        free = {name: vector[i] for i, (name, _) in enumerate(self.coordinates.free)}
        return _scaled_jumps(self.coordinates.to_params(free, fixed), 1.0)

    def vector(self, params: AdaptiveLIFParams) -> np.ndarray:
        """Return the free coordinates of parameters, in double precision."""
        free = self.coordinates.to_free(_scaled_jumps(params, -1.0))
        return np.array([float(free[name]) for name, _ in self.coordinates.free])

    def active(self, patterns: Iterable[str]) -> np.ndarray:
        """Return the indices of the coordinates whose names match one of the patterns."""
        names, patterns = [name for name, _ in self.coordinates.free], tuple(patterns)
        return np.array([i for i, name in enumerate(names) if any(fnmatchcase(name, p) for p in patterns)])


def _scaled_jumps(params: AdaptiveLIFParams, sign: float) -> AdaptiveLIFParams:
    """Carry the jumps from the end of the refractory period back to the spike, or, with -1, the other way."""

    def _carried(jumps: tuple[float | Array, ...], taus: tuple[float | Array, ...]) -> tuple[Array, ...]:
        return tuple(jump * jnp.exp(sign * params.t_ref / tau) for jump, tau in zip(jumps, taus, strict=True))

    return replace(params, eta=_carried(params.eta, params.tau_eta), gamma=_carried(params.gamma, params.tau_gamma))


def penalty(params: AdaptiveLIFParams, bend: Array) -> Array:
    """Return the weak penalties on time constants, k and v_i, which started at ``bend``, mV."""
    low, high = map(float, np.log(TAU_RANGE))
    taus = (*params.tau_eta, *params.tau_gamma, *([params.coupling.tau] if params.coupling else []))
    outside = (jnp.maximum(jnp.log(t) - high, 0.0) + jnp.maximum(low - jnp.log(t), 0.0) for t in taus)
    penalty = 20.0 * sum((x**2 for x in outside), jnp.zeros_like(bend))
    if params.coupling is None:
        return penalty
    width = jnp.log(params.coupling.k) - float(np.log(BEND_WIDTH))
    return penalty + 0.5 * width**2 + 0.5 * ((params.coupling.v_i - bend) / 15.0) ** 2


def joint_loss(
    params: AdaptiveLIFParams, parts: Sequence[ForcedSweeps], dt: float, *, variance: float | None = None
) -> tuple[JointLoss, Samples]:
    """Make the loss of a start and what it works on: parts of one shape, for which it is compiled.

    The variance of the voltage's error, mV², is that at the start where none is given.
    """
    dtype, names = parts[0].voltage.dtype, named_leaves(params)
    known = {pattern: pair for pattern, pair in FREE.items() if any(fnmatchcase(name, pattern) for name in names)}
    start = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    loss = JointLoss(coordinates(start, known), dt)
    bend = jnp.asarray(0.0 if params.coupling is None else params.coupling.v_i, dtype)
    numbers = bend, jnp.asarray(variance or 1.0, dtype), jnp.asarray(1.0 / len(parts), dtype)
    samples = [Sample(part, _scaled_jumps(start, -1.0), *numbers) for part in parts]
    return loss, samples if variance else with_variance(loss, params, samples)


def with_variance(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples) -> Samples:
    """Return the samples with the variance of the voltage's error at some parameters."""
    score = evaluate(loss, loss.vector(params), samples)[2]
    squares, compared = float(score.squares), float(score.compared)
    variance = jnp.asarray(max(squares / max(compared, 1.0), 1e-6), samples[0].bend.dtype)
    return [sample._replace(variance=variance) for sample in samples]


def evaluate(loss: JointLoss, vector: np.ndarray, samples: Samples) -> tuple[float, np.ndarray, JointScore]:
    """Return the loss at a vector of free coordinates, its gradient in double precision, and the score.

    One compiled gradient serves the optimiser and the held-out score: an evaluation takes far longer than a call.
    """
    point = jnp.asarray(vector, samples[0].bend.dtype)
    # Handed out before any is waited for: a loop over time fills one core, and the parts run side by side.
    parts = [_value_and_gradient(loss, point, sample) for sample in samples]
    value = sum(float(v) for (v, _), _ in parts)
    gradient = sum((np.asarray(g, float) for _, g in parts), np.zeros(len(vector)))
    score = jax.tree.map(lambda *x: sum(map(float, x)), *(s for (_, s), _ in parts))
    return value, gradient, score


@partial(jax.jit, static_argnums=0)
def _value_and_gradient(loss: JointLoss, vector: Array, sample: Sample) -> tuple[tuple[Array, JointScore], Array]:
    return jax.value_and_grad(loss, has_aux=True)(vector, sample)


def spike_bits(params: AdaptiveLIFParams, data: Data, window: slice = slice(None)) -> float | None:
    """Return the log-likelihood of the judged spikes in a window in bits each above a Poisson train; None without."""
    judged = np.zeros(data.spikes.shape, bool)
    judged[:, window] = data.judged[:, window]
    if not (count := int((data.spikes & judged).sum())):
        return None
    with single_precision():
        parts = arranged(data.judging(judged), float(params.t_ref))
        loss, samples = joint_loss(params, parts, data.dt, variance=1.0)
        _, _, score = evaluate(loss, loss.vector(params), samples)
    density = float(score.log_likelihood) - count * np.log(data.dt)
    return float(bits_per_spike(density, count, float(judged.sum()) * data.dt))
