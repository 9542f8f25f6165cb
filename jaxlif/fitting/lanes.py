"""Time cut into lanes that lie side by side, and the neuron that is made to spike where the cell did along them.

A lane is a second of a sweep after half a second of warm-up, which starts from the recorded voltage and is not judged:
recorded spikes reset the neuron, and it forgets. So one loop of a few thousand steps serves any neuron, linear or not.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
PART = 120_000  # steps of all lanes of a part
SIDE_BY_SIDE = 2  # parts: a loop over time fills one core


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
    return [lanes for _, lanes in _parts(data, params, dtype)]


def forced_sweeps(params: AdaptiveLIFParams, data: Data) -> np.ndarray:
    """Return the voltage [sweeps, T], mV, of a neuron whose spikes are the recorded ones, lane by lane."""
    found = np.zeros(data.voltage.shape)

    def _put(part: tuple[list[_Place], Lanes]) -> None:
        with single_precision():
            voltage = np.asarray(_forced(params, part[1], data.dt)[0]).T
        for (sweep, first, judged, end), lane in zip(part[0], voltage, strict=False):
            found[sweep, judged:end] = lane[judged - first : end - first]

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(_put, _parts(data.judging(np.ones((), bool)), params, "float32")))
    return found


class _Place(NamedTuple):
    """Where a lane begins, is judged from and ends in its sweep, in steps."""

    sweep: int
    first: int
    judged: int
    end: int


def _places(data: Data) -> tuple[list[_Place], tuple[int, int]]:
    """Return where all lanes are, and the shape of a part, one of a few: programs compile for a shape."""
    steps, warm = data.num_steps, data.steps(WARM_UP)
    length = min(data.steps(LENGTH), steps)
    begins = range(0, steps, length)
    every = (_Place(s, max(0, b - warm), b, min(b + length, steps)) for s in range(data.num_sweeps) for b in begins)
    places = [place for place in every if data.judged[place.sweep, place.judged : place.end].any()]
    length = length if length == steps else length + warm
    most, few = max(1, PART // length), 1 << max(0, len(places) - 1).bit_length()
    return places, (length, min(few, most) if 4 * len(places) <= most else most)


def _parts(data: Data, params: AdaptiveLIFParams, dtype: str) -> Iterator[tuple[list[_Place], Lanes]]:
    """Yield parts of lanes with their places; the last is filled up with copies of its last lane that count nothing."""
    held, since = int(refractory_steps(params.t_ref, data.dt)), _steps_since(data.spikes)
    near = ~spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=held + 1).T
    counted = {"judged": data.spikes, "active": since > held, "compared": ~near}
    rows = {"current": data.terms.current(data.current), "voltage": data.voltage, "spikes": data.spikes}
    rows |= {name: x & data.judged for name, x in counted.items()}
    kernels = {"eta": params.tau_eta, "gamma": params.tau_gamma}
    every = {float(tau) for each in kernels.values() for tau in each}
    decays = {tau: decayed(data.spikes, tau / data.dt).astype(dtype) for tau in every}
    places, shape = _places(data)
    for n in range(0, len(places), shape[1]):
        own = places[n : n + shape[1]]
        full = own + own[-1:] * (shape[1] - len(own))
        part = {name: _side_by_side(x, full, shape, dtype) for name, x in rows.items()}
        for lane, place in enumerate(full):
            for name in counted:
                part[name][: place.judged - place.first if lane < len(own) else None, lane] = 0
        for name, taus in kernels.items():
            columns = [_side_by_side(decays[float(tau)], full, shape, dtype) for tau in taus]
            part[name] = np.stack(columns, axis=1) if columns else np.zeros((shape[0], 0, shape[1]), dtype)
        sweeps, firsts = np.array([(place.sweep, place.first) for place in full]).T
        part |= {"start": data.voltage[sweeps, firsts].astype(dtype), "offset": data.terms.offset[sweeps].astype(dtype)}
        part["held"] = np.maximum(held + 1 - since[sweeps, firsts], 0).astype(np.int32)
        lanes = Lanes(**{name: jnp.asarray(x) for name, x in part.items()})
        yield own, lanes._replace(gamma=lanes.eta) if params.tau_eta == params.tau_gamma else lanes  # held once


def _side_by_side(x: np.ndarray, places: list[_Place], shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Return what is at some places of an array [S, T], [T, L], 0 where a lane is longer."""
    lanes = np.zeros(shape[::-1], dtype)
    for lane, place in zip(lanes, places, strict=True):
        lane[: place.end - place.first] = x[place.sweep, place.first : place.end]
    return np.ascontiguousarray(lanes.T)


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


_forced = jax.jit(forced, static_argnums=2)


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
        return filled.reshape(len(filled) // steps, steps, *x.shape[1:])

    return {name: _cut(x) for name, x in rows.items()}


def _bare(params: AdaptiveLIFParams) -> AdaptiveLIFParams:
    """Return the neuron without what lanes know of its spikes already."""
    return replace(params, eta=(), tau_eta=(), gamma=(), tau_gamma=())


def _summed(jumps: tuple[Any, ...], kernels: Array) -> Array:
    if not jumps:
        return jnp.zeros((len(kernels), kernels.shape[2]), kernels.dtype)
    return jnp.einsum("k,tkl->tl", jnp.stack([jnp.asarray(x, kernels.dtype) for x in jumps]), kernels)
