"""The joint likelihood of spikes and voltage of a forced adaptive neuron.

An evaluation over a whole recording takes far longer than a call from Python, so that one compiled gradient serves the
optimiser and the held-out score.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import REAL, Bounds, Coordinates, coordinates
from jaxlif.fitting.forced_adaptive import ForcedSweeps, JointScore, joint_score
from jaxlif.neurons.adaptive import AdaptiveLIFParams

POSITIVE = (0.0, np.inf)
FREE: dict[str, tuple[float, float]] = {
    "tau_m": POSITIVE,
    "r_m": POSITIVE,
    "v_rest": REAL,
    "v_reset": REAL,
    "eta.*": REAL,
    "tau_eta.*": POSITIVE,
    "v_th": REAL,
    "delta_v": POSITIVE,
    "gamma.*": REAL,
    "tau_gamma.*": POSITIVE,
    "coupling.b": REAL,
    "coupling.tau": POSITIVE,
    "coupling.v_i": REAL,
    "coupling.k": POSITIVE,
}
BEND_WIDTH = 3.0  # mV, give or take a factor e
TAU_RANGE = (2.0, 500.0)  # ms; beyond, a time constant is penalised: a trace says nothing about it
VOLTAGE_MEMORY = 25.0  # ms: how long an error of the voltage lasts, so that samples are not counted as independent


class Sample(NamedTuple):
    """What the loss is taken on: some sweeps, and what is not free.

    ``params`` fill in what is not free, with the jumps left at the end of the refractory period; ``bend`` is where v_i
    started, mV; ``variance`` that of the voltage's error, mV²; ``share`` that of the penalties which these sweeps bear.
    """

    sweeps: Any
    params: AdaptiveLIFParams
    bend: Array
    variance: Array
    share: Array


@dataclass(frozen=True)
class JointLoss:
    r"""The loss :math:`-L + \frac{w}{2} (SSE / \sigma^2 + N \log \sigma^2)`: spikes and voltage by their likelihoods.

    It adds up over sweeps. :math:`w = dt / (2 \cdot 25\,ms)` counts voltages less than a memory apart as one. Weak
    penalties keep time constants within 2 to 500 ms, k within some factor e of 3 mV (a narrow bend is as good as a
    corner, where the loss is flat in log k) and v_i within some 15 mV of its start. The jumps' coordinates are what is
    left of them at the end of the refractory period: before, nothing shows them, and a jump would trade for its time
    constant.

    Args:
        coordinates: the free parameters.
        dt: sampling interval, ms.
    """

    coordinates: Coordinates
    dt: float

    def __call__(self, vector: Array, sample: Sample) -> tuple[Array, JointScore]:
        """Return the loss at a vector of free coordinates, and the score it is made of."""
        params = self.params(vector, sample)
        score = joint_score(params, sample.sweeps, self.dt)
        voltage = score.squares / sample.variance + score.compared * jnp.log(sample.variance)
        weak = sample.share * penalty(params, sample.bend)
        return 0.5 * self.weight * voltage - score.log_likelihood + weak, score

    @property
    def weight(self) -> float:
        """The share of a sample of voltage that counts, w."""
        return self.dt / (2.0 * VOLTAGE_MEMORY)

    def params(self, vector: Array, sample: Sample) -> AdaptiveLIFParams:
        """Return the parameters at a vector of free coordinates."""
        free = {name: vector[i] for i, (name, _) in enumerate(self.coordinates.free)}
        return _scaled_jumps(self.coordinates.to_params(free, sample.params), 1.0)

    def vector(self, params: AdaptiveLIFParams) -> np.ndarray:
        """Return the free coordinates of parameters, in double precision."""
        free = self.coordinates.to_free(_scaled_jumps(params, -1.0))
        return np.array([float(free[name]) for name, _ in self.coordinates.free])


def _scaled_jumps(params: AdaptiveLIFParams, sign: float) -> AdaptiveLIFParams:
    """Carry the jumps from the end of the refractory period back to the spike, or, with -1, the other way."""

    def carried(jumps, taus):
        return tuple(jump * jnp.exp(sign * params.t_ref / tau) for jump, tau in zip(jumps, taus, strict=True))

    return replace(params, eta=carried(params.eta, params.tau_eta), gamma=carried(params.gamma, params.tau_gamma))


def penalty(params: AdaptiveLIFParams, bend: Array) -> Array:
    """Return the weak penalties on time constants, k and v_i.

    Args:
        params: the neuron.
        bend: where v_i started, mV.
    """
    low, high = map(float, np.log(TAU_RANGE))
    taus = (*params.tau_eta, *params.tau_gamma, *([params.coupling.tau] if params.coupling else []))
    outside = (jnp.maximum(jnp.log(t) - high, 0.0) + jnp.maximum(low - jnp.log(t), 0.0) for t in taus)
    penalty = 20.0 * sum((x**2 for x in outside), jnp.zeros_like(bend))
    if params.coupling is None:
        return penalty
    width = jnp.log(params.coupling.k) - float(np.log(BEND_WIDTH))
    return penalty + 0.5 * width**2 + 0.5 * ((params.coupling.v_i - bend) / 15.0) ** 2


def joint_loss(
    params: AdaptiveLIFParams,
    parts: Sequence[ForcedSweeps],
    dt: float,
    bounds: Bounds = FREE,
    *,
    variance: float | None = None,
) -> tuple[JointLoss, "Samples"]:
    """Make the loss and what it works on from a start.

    Args:
        params: the start, scalars.
        parts: the recorded sweeps, in parts of one shape, which the loss is compiled for.
        dt: sampling interval, ms.
        bounds: the free parameters; those of terms that ``params`` do not have are left away.
        variance: of the voltage's error, mV²; by default that at the start.
    """
    known = {name: pair for name, pair in bounds.items() if _has(params, name)}
    dtype = parts[0].voltage.dtype
    start = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    loss = JointLoss(coordinates(start, known), dt)
    bend = jnp.asarray(0.0 if params.coupling is None else params.coupling.v_i, dtype)
    numbers = bend, jnp.asarray(variance or 1.0, dtype), jnp.asarray(1.0 / len(parts), dtype)
    samples = [Sample(part, _scaled_jumps(start, -1.0), *numbers) for part in parts]
    return loss, samples if variance else with_variance(loss, params, samples)


def free_bounds(names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the bounds of the parameters named alone.

    Example:
        >>> free_bounds(["eta.1"])
        {'eta.1': (-inf, inf)}
    """
    return {name: pair for name in names for pattern, pair in FREE.items() if fnmatchcase(name, pattern)}


Samples = list[Sample]


def with_variance(loss: JointLoss, params: AdaptiveLIFParams, samples: Samples) -> Samples:
    """Return the samples with the variance of the voltage's error at some parameters.

    Args:
        loss: the loss.
        params: where.
        samples: what it works on.
    """
    score = evaluate(loss, loss.vector(params), samples)[2]
    squares, compared = float(score.squares), float(score.compared)
    variance = jnp.asarray(max(squares / max(compared, 1.0), 1e-6), samples[0].bend.dtype)
    return [sample._replace(variance=variance) for sample in samples]


def _has(params: AdaptiveLIFParams, pattern: str) -> bool:
    value = getattr(params, pattern.split(".")[0])
    return value is not None and not (isinstance(value, tuple) and not value)


@partial(jax.jit, static_argnums=0)
def _value_and_gradient(loss: JointLoss, vector: Array, sample: Sample) -> Any:
    return jax.value_and_grad(loss, has_aux=True)(vector, sample)


def evaluate(loss: JointLoss, vector: np.ndarray, samples: Samples) -> tuple[float, np.ndarray, JointScore]:
    """Return the loss at a vector of free coordinates, its gradient in double precision, and the score.

    Args:
        loss: the loss.
        vector: [n].
        samples: what it works on.
    """
    point = jnp.asarray(vector, samples[0].bend.dtype)
    parts = side_by_side(partial(_value_and_gradient, loss, point), samples)
    value = sum(float(v) for (v, _), _ in parts)
    gradient = sum((np.asarray(g, float) for _, g in parts), np.zeros(len(vector)))
    score = jax.tree.map(lambda *x: sum(map(float, x)), *(s for (_, s), _ in parts))
    return value, gradient, score


def side_by_side(function: Callable[[Sample], Any], samples: Samples) -> list[Any]:
    """Work on the parts on all cores: a loop over time fills one. The first compiles what the others use.

    Args:
        function: of a part.
        samples: the parts.
    """
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def run(sample):
        with jax.enable_x64(wide):  # a setting of the thread
            return jax.block_until_ready(function(sample))

    first, others = run(samples[0]), samples[1:]
    if not others:
        return [first]
    with ThreadPoolExecutor(min(len(others), os.cpu_count() or 1)) as pool:
        return [first, *pool.map(run, others)]
