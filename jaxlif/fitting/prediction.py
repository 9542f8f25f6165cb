"""A model's response to a recording's current: free-running, with escape noise, or with the recorded spikes forced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.data import Data, cut, simulated
from jaxlif.fitting.membrane import columns, forced_segments
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyIntegrator, LeakyParams, LeakyState
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.wrappers import EscapeNoise, Noisy
from jaxlif.recordings import Recording
from jaxlif.simulation import simulate

LANES = 256  # responses simulated at a time: enough for the vector units, and little memory


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
    cell, single = EscapeNoise(neuron(params, recording.dt)), jax.tree.map(jnp.float32, params)
    lanes = np.array([(repeat, sweep) for repeat in range(repeats) for sweep in range(recording.num_sweeps)])
    current, width = recording.current.T.astype(np.float32), min(LANES, len(lanes))
    found = Response(np.zeros((repeats, *recording.current.shape), bool), np.zeros(recording.current.shape))
    for first in range(0, len(lanes), width):
        # A short last chunk is filled up, so that the simulation compiles once.
        chunk = lanes[np.minimum(np.arange(first, first + width), len(lanes) - 1)]
        first_slice = jnp.asarray(current[0, chunk[:, 1]])
        state = cell.init_state(single, Noisy(first_slice, jnp.ones_like(first_slice)))
        for n, (place, part) in enumerate(cut(current)):
            state, *outputs = _noisy(cell, single, state, part, seed, chunk, n)
            spikes, voltage = (np.asarray(x)[: place.stop - place.start] for x in outputs)
            found.spikes[chunk[:, 0], chunk[:, 1], place] = spikes.T
            drawn = chunk[:, 0] == 0
            found.voltage[chunk[drawn, 1], place] = voltage.T[drawn]
    return found


@jax.jit(static_argnums=0)
def _noisy(
    cell: EscapeNoise, params: Any, state: Any, current: Array, seed: Array, lanes: Array, segment: Array
) -> tuple[Any, Array, Array]:
    """Return the next state, and spikes and voltage of each lane, a repeat and a sweep, in a segment [T, lanes]."""

    def noise(lane: Array) -> Array:
        key = jax.random.key(seed)
        for number in (*lane, segment):
            key = jax.random.fold_in(key, number)
        return jax.random.exponential(key, current.shape[:1], jnp.float32)

    inputs = Noisy(current[:, lanes[:, 1]], jax.vmap(noise, out_axes=1)(lanes))
    state, output = simulate(cell, params, inputs, state)
    return state, output.spikes > 0, output.v


def forced_voltage(params: LIFParams | LeakyParams, recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Run the neuron from the first recorded voltage on and reset it at recorded spikes, which a membrane ignores."""
    voltage = recording.measured_voltage()
    if isinstance(params, LeakyParams):
        start, current = jnp.asarray(voltage[:, 0], float), jnp.asarray(recording.current.T)
        _, later = simulate(neuron(params, recording.dt), params, current[1:], LeakyState(start))
        return np.concatenate([voltage[:, :1], np.asarray(later.v).T], axis=1)
    data, v = columns(Data.of(recording, spikes)), np.zeros(voltage.shape)
    for place, outputs in forced_segments(neuron(params, recording.dt), params, data):
        v[:, place] = outputs.v.T
    return v
