"""A model's response to a recording's current: free-running, with escape noise, or with the recorded spikes forced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.data import Data, filled, padded_length, simulated
from jaxlif.fitting.joint_likelihood import ForcedSweeps, arranged, forced_adaptive
from jaxlif.fitting.membrane import columns, forced_segments
from jaxlif.fitting.recurrence import from_lanes
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyIntegrator, LeakyParams, LeakyState
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.wrappers import EscapeNoise, Noisy
from jaxlif.recordings import Recording
from jaxlif.simulation import simulate

LANES = 128  # responses simulated at a time: enough for the vector units, and little memory
LANE_STEPS = 2**23  # of all of them: fewer run side by side where they are long


class Response(NamedTuple):
    """Spikes [..., sweeps, T], booleans, and voltage [sweeps, T], mV."""

    spikes: np.ndarray
    voltage: np.ndarray


def neuron(params: LIFParams | LeakyParams, dt: float) -> Any:
    """Return the neuron, or the membrane, that has these parameters."""
    if isinstance(params, LeakyParams):
        return LeakyIntegrator(dt=dt)
    return AdaptiveLIF(dt=dt) if isinstance(params, AdaptiveLIFParams) else LIF(dt=dt)


def free_response(params: LIFParams | LeakyParams, recording: Recording) -> Response:
    """Let the neuron run under the recording's current, from rest, or from reset where it rests above threshold."""
    cell, spiking = neuron(params, recording.dt), isinstance(params, LIFParams)
    state = cell.init_state(params, jnp.asarray(recording.current[:, 0]))
    if isinstance(params, LIFParams) and params.v_rest >= params.v_th:
        state = state._replace(v=jnp.full_like(state.v, params.v_reset))
    found = Response(np.zeros(recording.current.shape, bool), np.zeros(recording.current.shape))
    for place, output in simulated(cell, params, recording.current.T, state):
        found.voltage[:, place] = output.v.T
        if spiking:
            found.spikes[:, place] = output.spikes.T > 0
    return found


def noisy_response(params: LIFParams | LeakyParams, recording: Recording, *, repeats: int, seed: int) -> Response:
    """Let the neuron with escape noise run under the recording's current several times, in single precision.

    The spikes are [repeats, sweeps, T], the voltage is that of the first repeat. The random numbers of a response
    depend on the seed, its repeat and its sweep alone.
    """
    cell, single = neuron(params, recording.dt), jax.tree.map(jnp.float32, params)
    lanes = [(repeat, sweep) for repeat in range(repeats) for sweep in range(recording.num_sweeps)]
    # The numbers of a lane do not depend on how far it runs.
    current = jnp.asarray(filled(recording.current.T.astype(np.float32), padded_length(recording.num_steps)).T)
    width = max(1, min(LANES, len(lanes), LANE_STEPS // current.shape[1]))
    found = Response(np.zeros((repeats, *recording.current.shape), bool), np.zeros(recording.current.shape))
    for first in range(0, len(lanes), width):
        chunk = lanes[first : first + width]
        # A short last chunk is filled up, so that the simulation compiles once.
        full = jnp.asarray(chunk + chunk[-1:] * (width - len(chunk)))
        spikes, voltage = (np.asarray(x)[: recording.num_steps] for x in _noisy(cell, single, current, seed, full))
        for i, (repeat, sweep) in enumerate(chunk):
            found.spikes[repeat, sweep] = spikes[:, i]
            if repeat == 0:
                found.voltage[sweep] = voltage[:, i]
    return found


@jax.jit(static_argnums=0)
def _noisy(cell: Any, params: Any, current: Array, seed: Array, lanes: Array) -> tuple[Array, Array]:
    """Return spikes and voltage of each lane, a repeat and a sweep, [T, lanes]."""

    def noise(lane: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), lane[0]), lane[1])
        return jax.random.exponential(key, current.shape[1:], jnp.float32)

    inputs = Noisy(current[lanes[:, 1]].T, jax.vmap(noise, out_axes=1)(lanes))
    _, output = simulate(EscapeNoise(cell), params, inputs)
    return output.spikes > 0, output.v


def forced_voltage(params: LIFParams | LeakyParams, recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Run the neuron from the first recorded voltage on and reset it at recorded spikes, which a membrane ignores."""
    voltage = recording.measured_voltage()
    if isinstance(params, LeakyParams):
        start, current = jnp.asarray(voltage[:, 0], float), jnp.asarray(recording.current.T)
        _, later = simulate(neuron(params, recording.dt), params, current[1:], LeakyState(start))
        return np.concatenate([voltage[:, :1], np.asarray(later.v).T], axis=1)
    if isinstance(params, AdaptiveLIFParams) and not params.a and params.t_ref > 0.0:
        return _forced_in_blocks(params, Data.of(recording, spikes))
    data, v = columns(Data.of(recording, spikes)), np.zeros(voltage.shape)
    for place, outputs in forced_segments(neuron(params, recording.dt), params, data):
        v[:, place] = outputs.v.T
    return v


def _forced_in_blocks(params: AdaptiveLIFParams, data: Data) -> np.ndarray:
    """Return the forced voltage, linear between spikes and so computed side by side: ten times as fast."""
    parts = arranged(data, float(params.t_ref), str(jnp.result_type(float)))
    shape = len(parts[0].start), data.num_steps
    found = [from_lanes(_forced_adaptive(params, part, data.dt), shape) for part in parts]
    v = np.where(data.spikes, float(params.v_reset), np.concatenate(found)[: data.num_sweeps])
    v[:, 0] = np.where(data.spikes[:, 0], v[:, 0], data.voltage[:, 0])
    return v


@jax.jit(static_argnums=2)
def _forced_adaptive(params: AdaptiveLIFParams, data: ForcedSweeps, dt: float) -> Array:
    return forced_adaptive(params, data, dt)[0]
