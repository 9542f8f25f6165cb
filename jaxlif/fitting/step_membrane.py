r"""The membrane from all sweeps of a step family: each says as much as its noise, and how sweeps differ, let it.

Every sweep is a voltage :math:`b_s + c_s e^{-t/\tau_m} + r_m (h * I_s)(t)` until its first spike, with h the membrane's
exponential, its own rest b, and what is left of what came before it, c. So holding current and rest are apart, and a
rest that drifts is no response.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.intervals import Estimate
from jaxlif.fitting.membrane import BEFORE_SPIKE, BLOCKS, UNSEEN, lasting_scatter
from jaxlif.fitting.step_family import RECOVERY, Baselines, Family
from jaxlif.recordings.notes import DRIFT
from jaxlif.recordings.protocol import Epoch, step_family

NAMES = ("tau_m", "r_m", "v_rest")
CANDIDATES = 60  # time constants at which a start is looked for
REACHED = 2.0  # time constants of a step before a spike, without which a sweep says little about a membrane
ENOUGH = 2  # silent sweeps, from which on they do without those that fire
SCATTER = 3  # sweeps, from which on their scatter is known
ROUNDS, SETTLED = 10, 1e-5
SLOPE = 1e-4  # of the logarithm of tau_m, by which derivatives are taken
LEAST = 20  # samples of a stretch
ROUNDING = 1e-6  # of a parameter: no interval is narrower
FLAT = 1e-9  # share of its own information that a coordinate must have left beside the other


@dataclass(frozen=True, eq=False)
class Stretches:
    """Sweeps around the onset of their steps, away from spikes, all [S, T]; 0 where ``inside`` is False."""

    sweeps: np.ndarray  # [S], their numbers
    current: np.ndarray  # pA, from the sweeps' first sample on
    voltage: np.ndarray  # mV
    inside: np.ndarray
    since: np.ndarray  # ms since the stretch began
    lasting: np.ndarray  # [S], ms of the step that are inside
    silent: np.ndarray  # [S], whether the whole step is
    dt: float

    def select(self, rows: np.ndarray) -> "Stretches":
        """Return some of them."""
        names = ("sweeps", "current", "voltage", "inside", "since", "lasting", "silent")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def stretches(data: Data, family: Family) -> Stretches:
    """Find in every sweep, below a depolarisation block, the time around the onset of its step that has no spike."""
    tests, ceiling = step_family(family.recording).tests, family.ceiling
    coarse, factor = data.coarser(), max(1, round(data.coarser().dt / data.dt))
    found = [_around(test, coarse, factor) for test in tests]
    steps = np.arange(coarse.num_steps)
    inside = np.array([(first <= steps) & (steps < last) for first, last in found])
    lasting = np.array([last - test.start // factor for (_, last), test in zip(found, tests, strict=True)])
    silent = np.array([last >= test.stop // factor for (_, last), test in zip(found, tests, strict=True)])
    since = coarse.dt * (steps - np.array([first for first, _ in found])[:, None])
    rows = np.flatnonzero([test.level < ceiling for test in tests] & (lasting > 0) & (inside.sum(axis=1) >= LEAST))
    everything = np.arange(len(tests))
    every = Stretches(everything, coarse.current, coarse.voltage, inside, since, coarse.dt * lasting, silent, coarse.dt)
    return every.select(rows)


def _around(test: Epoch, data: Data, factor: int) -> tuple[int, int]:
    """Return the first and last sample without a spike, or what follows one, around a test's onset."""
    onset, spikes = test.start // factor, np.flatnonzero(data.spikes[test.sweep])
    before, after = spikes[spikes < onset], spikes[spikes >= onset]
    first = before[-1] + data.steps(RECOVERY) if len(before) else 0
    last = after[0] - data.steps(BEFORE_SPIKE) if len(after) else data.num_steps
    return int(first), max(int(last), int(first))


class _Linear(NamedTuple):
    """The model around a point: slopes [2, S, T] by log tau_m and log r_m, errors [S, T], mV, and rests [S], mV."""

    slopes: np.ndarray
    errors: np.ndarray
    rests: np.ndarray


def _linear(part: Stretches, point: np.ndarray) -> _Linear:
    """Linearise around log tau_m and log r_m, with the rest and the start of every sweep solved for."""
    r_m = float(np.exp(point[1]))
    (x, decay), after, before = (_responses(part, float(point[0]) + h) for h in (0.0, SLOPE, -SLOPE))
    mask = part.inside
    # Orthonormal: a constant, and what of the decay is none.
    size, mean = np.sqrt(mask.sum(axis=1)), (mask * decay).sum(axis=1) / mask.sum(axis=1)
    away = mask * (decay - mean[:, None])
    norm = np.sqrt((away**2).sum(axis=1)).clip(1e-30)
    basis = np.stack([mask / size[:, None], away / norm[:, None]])

    def _split(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = np.einsum("kst,st->ks", basis, y)
        return parts, mask * y - np.einsum("ks,kst->st", parts, basis)

    (constant, start), errors = _split(part.voltage - r_m * x)
    start = start / norm
    by_tau = (r_m * (after[0] - before[0]) + start[:, None] * (after[1] - before[1])) / (2.0 * SLOPE)
    slopes = np.stack([_split(by_tau)[1], _split(r_m * x)[1]])
    return _Linear(slopes, errors, constant / size - mean * start)


def _responses(part: Stretches, log_tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what a current makes of a membrane of 1 GΩ, mV, and the decay of what came before; both [S, T]."""
    from scipy.signal import lfilter

    tau = float(np.exp(log_tau))
    kept = np.exp(-part.dt / tau)
    x, _ = lfilter([1.0 - kept], [1.0, -kept], part.current, axis=1, zi=kept * part.current[:, :1])
    return x, np.exp(-part.since.clip(0.0) / tau)


def _each(part: Stretches, found: _Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each of S sweeps says that a point is off, [S, 2], and its covariance by the noise, [S, 2, 2]."""
    information = np.einsum("ist,jst->sij", found.slopes, found.slopes)
    inverse = np.linalg.inv(information)
    distances = np.einsum("sij,jst,st->si", inverse, found.slopes, found.errors)
    left = found.errors - np.einsum("ist,si->st", found.slopes, distances)
    noise = inverse @ lasting_scatter(found.slopes, left, part.inside) @ inverse
    return distances, noise + 1e-12 * np.eye(2)


def _telling(part: Stretches, point: np.ndarray) -> np.ndarray:
    """Mark the sweeps [S] that say something about both parameters: whose current changes, for long enough."""
    slopes = _linear(part, point).slopes
    tau, both, r_m = (np.einsum("st,st->s", slopes[i], slopes[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    told = (tau * r_m - both**2 > FLAT * tau * r_m) & (r_m > FLAT * r_m.max() + UNSEEN**2 * part.inside.sum(axis=1))
    if (told & part.silent).sum() >= ENOUGH:  # nearer to threshold, other currents flow
        return np.asarray(told & part.silent)
    reached = told & (part.silent | (part.lasting >= REACHED * np.exp(point[0])))
    return np.asarray(reached if reached.any() else told)


def _between(x: np.ndarray, variance: np.ndarray) -> float:
    """Return the variance of estimates [S] beyond their own (DerSimonian & Laird 1986)."""
    weights = 1.0 / variance
    total = weights.sum()
    excess = float(np.sum(weights * (x - np.sum(weights * x) / total) ** 2)) - (len(x) - 1)
    return max(0.0, excess / (total - np.sum(weights**2) / total)) if len(x) > 1 else 0.0


class MembraneFit(NamedTuple):
    """tau_m, r_m and v_rest with their errors, the sweeps that were used, and the sum of squares that is left, mV²."""

    estimate: Estimate
    sweeps: np.ndarray
    left: float


def fit_membrane(part: Stretches, bounds: Mapping[str, tuple[float, float]], baselines: Baselines) -> MembraneFit:
    r"""Fit tau_m, r_m and v_rest to what all sweeps show of them, each with the weight :math:`(V_s + \Phi)^{-1}`, V its
    noise and :math:`\Phi` how sweeps differ beyond it. An interval is of what one more sweep would show.
    """
    point = _start(part, bounds) if len(part.sweeps) else np.zeros(2)
    used = part.select(_telling(part, point)) if len(part.sweeps) else part
    if not len(used.sweeps):
        raise ValueError("current: no step moves the voltage of a sweep away from its spikes: tau_m and r_m need one")
    for _ in range(ROUNDS):
        off, noise = _each(used, _linear(used, point))
        apart = np.diag([_between(off[:, i], noise[:, i, i]) for i in range(2)])
        weights = np.linalg.inv(noise + apart)
        common = np.linalg.inv(weights.sum(axis=0))
        step = common @ np.einsum("sij,sj->i", weights, off)
        before, limits = point, np.log([bounds[name] for name in NAMES[:2]]).T
        point = np.clip(point + np.clip(step, -0.5, 0.5), *limits)  # the best inside: at an end, as a note says
        if np.abs(point - before).max() < SETTLED:
            break
    (tau_m, r_m), found = np.exp(point), _linear(used, point)
    known, held = np.isfinite(baselines.voltage), float(np.median(used.current[:, 0]))
    rests = (baselines.voltage - r_m * baselines.current)[known] if known.any() else found.rests
    scale = np.array([[tau_m, 0.0], [0.0, r_m], [0.0, -held * r_m]])
    count, scattered = len(used.sweeps), float(np.var(rests))
    # Beside the common value's own error, what one sweep shows beside another, whatever made it do so.
    around = np.diag(np.var(off, axis=0, ddof=1)) if count >= SCATTER else apart
    covariance = scale @ (common + around) @ scale.T
    spans = np.ptp(rests) >= DRIFT  # v_rest is then none of one value: that of any sweep lies within what it spans
    covariance[2, 2] += scattered if spans else 0.5 * np.pi * scattered / len(rests)
    values = np.array([tau_m, r_m, np.clip(np.median(rests), *bounds["v_rest"])])
    covariance += np.diag((ROUNDING * values) ** 2)
    estimate = Estimate(NAMES, values, covariance, count - 1 if count >= SCATTER else BLOCKS - 1)
    return MembraneFit(estimate, used.sweeps, float(np.sum(found.errors**2)))


def _start(part: Stretches, bounds: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Return log tau_m and log r_m by least squares over all that is silent, or over everything."""
    part = part.select(part.silent) if part.silent.any() else part
    best, point = np.inf, np.zeros(2)
    for tau in np.geomspace(*bounds["tau_m"], CANDIDATES + 2)[1:-1]:
        found = _linear(part, np.array([np.log(tau), 0.0]))
        errors, x = found.errors + found.slopes[1], found.slopes[1]
        r_m = float(np.sum(x * errors) / max(np.sum(x**2), 1e-30))
        left = float(np.sum((errors - r_m * x) ** 2))
        if r_m > 0.0 and left < best:
            best, point = left, np.log([tau, r_m])
    return point
