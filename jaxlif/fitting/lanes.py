"""Time cut into lanes that lie side by side, and the neuron that is made to spike where the cell did along them.

A lane is a second of a sweep after half a second of warm-up, which starts from the recorded voltage and is not judged:
recorded spikes reset the neuron, and it forgets. So one loop of a few thousand steps serves any neuron, linear or not.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.data import Data
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams, AdaptiveState
from jaxlif.neurons.lif import refractory_steps

single_precision = partial(jax.enable_x64, False)  # the information of a fit is good to a thousandth in it

UPSTROKE = 5.0  # ms before a spike that are not compared
LENGTH = 1000.0  # ms of a lane that are judged
WARM_UP = 500.0  # ms before them
PART = 250_000  # steps of all lanes of a part: two of them run side by side


class Lanes(NamedTuple):
    """Pieces of recorded sweeps, [T, L], one in each lane.

    ``current`` in pA and ``voltage`` in mV; ``spikes`` (all, which reset), ``judged`` (spikes that count), ``active``
    (steps in which one could be), ``compared`` (voltages that count: away from spikes), 0 or 1; ``eta`` and ``gamma``,
    [T, K, L], what is left of a jump of 1 by each time constant; ``start`` [L], the voltage before the first step, mV;
    ``held`` [L], refractory steps left there; ``offset`` [L], what a sweep rests at above v_rest, mV.
    """

    current: Array
    voltage: Array
    spikes: Array
    judged: Array
    active: Array
    compared: Array
    eta: Array
    gamma: Array
    start: Array
    held: Array
    offset: Array


def cut_lanes(data: Data, params: AdaptiveLIFParams, dtype: str = "float32") -> list[Lanes]:
    """Cut recorded sweeps into parts of lanes of one shape, for which a loss compiles once.

    The refractory period and the time constants of ``params`` say how long the voltage is held after a spike, and what
    the kernels are; pieces in which nothing is judged are left out.
    """
    cut = _Cut(data, dtype)
    held = int(refractory_steps(params.t_ref, data.dt))
    since = _steps_since(data.spikes)
    near = ~spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=held + 1).T
    rows = {"current": data.terms.current(data.current), "voltage": data.voltage, "spikes": data.spikes}
    later = {"judged": data.spikes, "active": since > held, "compared": ~near}
    lanes = {name: cut.rows(x) for name, x in rows.items()}
    lanes |= {name: cut.rows(x & data.judged, warm=False) for name, x in later.items()}
    for name, taus in (("eta", params.tau_eta), ("gamma", params.tau_gamma)):
        kernels = [cut.rows(decayed(data.spikes, float(tau) / data.dt)) for tau in taus]
        shape = cut.length, 0, len(cut.places)
        lanes[name] = np.stack(kernels, axis=1) if kernels else np.zeros(shape, dtype)
    lanes["start"] = cut.firsts(data.voltage).astype(dtype)
    lanes["held"] = np.maximum(held + 1 - cut.firsts(since), 0).astype(np.int32)
    lanes["offset"] = data.terms.offset[[sweep for sweep, _, _ in cut.places]].astype(dtype)
    return [Lanes(**part) for part in cut.parts(lanes, unjudged=tuple(later))]


class _Cut:
    """Where each lane begins, is judged and ends."""

    def __init__(self, data: Data, dtype: str) -> None:
        length, warm, steps = data.steps(LENGTH), data.steps(WARM_UP), data.num_steps
        length = min(length, steps)
        begins = range(0, steps, length)
        every = ((s, max(0, b - warm), b, min(b + length, steps)) for s in range(data.num_sweeps) for b in begins)
        found = [(s, a, b, e) for s, a, b, e in every if data.judged[s, b:e].any()]
        self.places = [(s, a, b) for s, a, b, _ in found]
        self.ends = [e for _, _, _, e in found]
        self.length, self.dtype = (length if length == steps else length + warm), dtype
        self.size = -(-len(found) // -(-len(found) * self.length // PART))

    def rows(self, x: np.ndarray, *, warm: bool = True) -> np.ndarray:
        """Return an array [S, T] in lanes, 0 where they are longer, and in their warm-up where this does not count."""
        lanes = np.zeros((len(self.ends), self.length), self.dtype)
        for lane, (sweep, first, judged), end in zip(lanes, self.places, self.ends, strict=True):
            begin = first if warm else judged
            lane[begin - first : end - first] = x[sweep, begin:end]
        return np.ascontiguousarray(lanes.T)

    def parts(self, lanes: dict[str, np.ndarray], *, unjudged: tuple[str, ...]) -> Iterator[dict[str, Array]]:
        """Yield parts of one size; the last is filled up with copies of its last lane in which nothing counts."""
        for first in range(0, len(self.places), self.size):
            chosen = np.minimum(np.arange(first, first + self.size), len(self.places) - 1)
            counts = np.arange(first, first + self.size) < len(self.places)
            part = {name: x[..., chosen] for name, x in lanes.items()}
            yield {name: jnp.asarray(np.where(counts, x, 0) if name in unjudged else x) for name, x in part.items()}

    def firsts(self, x: np.ndarray) -> np.ndarray:
        """Return what an array [S, T] is where each lane begins."""
        return np.array([x[sweep, first] for sweep, first, _ in self.places])


def _steps_since(spikes: np.ndarray) -> np.ndarray:
    """Return how many steps ago the last spike before each step was, many where there was none."""
    steps = np.arange(spikes.shape[1])
    last = np.maximum.accumulate(np.where(spikes, steps, -(2**30)), axis=1)
    return np.asarray(steps - np.pad(last[:, :-1], ((0, 0), (1, 0)), constant_values=-(2**30)))


def decayed(spikes: np.ndarray, steps: float) -> np.ndarray:
    """Return what is left, when each step begins, of jumps of 1 at the spikes [S, T] that decay over ``steps``."""
    from scipy.signal import lfilter

    before = np.pad(spikes[:, :-1], ((0, 0), (1, 0)))
    return np.asarray(lfilter([1.0], [1.0, -np.exp(-1.0 / steps)], before.astype(float), axis=1))


def forced(params: AdaptiveLIFParams, lanes: Lanes, dt: float) -> tuple[Array, Array]:
    """Return the voltage before resets and the threshold of a neuron whose spikes are the recorded ones, [T, L], mV.

    It equals :class:`TeacherForced` step by step but for how lanes begin; parameters are scalars.
    """
    return stretch(params, begin(params, lanes, dt), lanes, dt)[1]


def begin(params: AdaptiveLIFParams, lanes: Lanes, dt: float) -> AdaptiveState:
    """Return the state before the first step."""
    state = AdaptiveLIF(dt=dt).init_state(replace(_bare(params), v_rest=lanes.start), lanes.current[0])
    return state._replace(v=jnp.where(lanes.held > 0, params.v_reset, state.v), refractory=lanes.held)


def stretch(
    params: AdaptiveLIFParams, state: AdaptiveState, lanes: Lanes, dt: float
) -> tuple[AdaptiveState, tuple[Array, Array]]:
    """Go on from a state along some steps of lanes; return the next state, and what :func:`forced` does."""
    cell, bare = AdaptiveLIF(dt=dt), _bare(params)
    current = lanes.current + lanes.offset[None] / params.r_m - _summed(params.eta, lanes.eta)

    def _step(state: AdaptiveState, x: tuple[Array, Array]) -> tuple[AdaptiveState, tuple[Array, Array]]:
        state, v = cell.integrate(bare, state, x[0])
        threshold = bare.v_th + cell.rise(bare, state)
        v, _ = cell.emit(bare, state, v)
        return cell.settle(bare, state, v, x[1])[0], (v, threshold)

    state, (v, threshold) = jax.lax.scan(_step, state, (current, lanes.spikes))
    return state, (v, threshold + _summed(params.gamma, lanes.gamma))


def stretches(lanes: Lanes, steps: int) -> dict[str, Array]:
    """Return what depends on time, [pieces, steps, ...]; the last piece is filled up with steps that count nothing."""
    rows = {name: x for name, x in lanes._asdict().items() if name not in ("start", "held", "offset")}

    def _cut(x: Array) -> Array:
        filled = jnp.pad(x, [(0, -len(x) % steps)] + [(0, 0)] * (x.ndim - 1))
        return filled.reshape(-1, steps, *x.shape[1:])

    return jax.tree.map(_cut, rows)


def _bare(params: AdaptiveLIFParams) -> AdaptiveLIFParams:
    """Return the neuron without what lanes know of its spikes already."""
    return replace(params, eta=(), tau_eta=(), gamma=(), tau_gamma=())


def _summed(jumps: tuple[Any, ...], kernels: Array) -> Array:
    if not jumps:
        return jnp.zeros((len(kernels), kernels.shape[2]), kernels.dtype)
    return jnp.einsum("k,tkl->tl", jnp.stack([jnp.asarray(x, kernels.dtype) for x in jumps]), kernels)
