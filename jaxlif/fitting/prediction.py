"""A model's response to a recording's current: free-running, with escape noise, or with the recorded spikes forced."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import SEGMENT, Data, filled, padded_length, simulated
from jaxlif.fitting.lanes import SIDE_BY_SIDE, forced_sweeps
from jaxlif.fitting.membrane import columns, forced_segments
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyIntegrator, LeakyParams, LeakyState
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.wrappers import EscapeNoise, Noisy, waiting_times
from jaxlif.recordings import Recording
from jaxlif.simulation import simulate

LANES = 512  # responses simulated at a time: enough for the vector units, and little memory
LEAD = 1000.0  # ms, or five times the slowest time constant, in which a neuron forgets how it began
ONWARD, FEW = 2, 3  # blocks that a piece adds to those before it, and so few that all are one piece


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
    depend on the seed, its repeat, its sweep and the time alone. Long sweeps are run in pieces side by side, each after
    a block of the same current and noise, in which the neuron forgets how it began.
    """
    cell, single = EscapeNoise(neuron(params, recording.dt)), jax.tree.map(jnp.float32, params)
    length, count = _blocks(params, recording)
    pieces = max(1, -(-(count - 1) // ONWARD)) if count > FEW else 1
    run = count if pieces == 1 else ONWARD + 1  # blocks of a piece, of which it shares one with the piece before
    current = filled(recording.current.T.astype(np.float32), (ONWARD * (pieces - 1) + run) * length)
    blocks = jnp.asarray(current.reshape(-1, length, recording.num_sweeps))
    spikes = np.zeros((repeats, recording.num_sweeps, len(blocks), length), bool)
    voltage = np.zeros(spikes.shape[1:])
    lanes = np.array(list(np.ndindex(repeats, recording.num_sweeps, pieces)))
    width = min(LANES, 1 << max(0, (len(lanes) - 1).bit_length() - 1))  # one of few, for which a loop compiles

    def _run(first: int) -> None:
        # A short last chunk is filled up, so that the simulation compiles once.
        repeat, sweep, piece = lanes[np.minimum(np.arange(first, first + width), len(lanes) - 1)].T
        begin = blocks[ONWARD * piece, 0, sweep]
        state = cell.init_state(single, Noisy(begin, jnp.ones_like(begin)))
        for n in range(run):
            block = ONWARD * piece + n
            state, fired, v = _noisy(cell, single, state, blocks, seed, np.stack([repeat, sweep, block]))
            own = (n > 0) | (piece == 0)
            spikes[repeat[own], sweep[own], block[own]] = np.asarray(fired).T[own]
            own &= repeat == 0
            voltage[sweep[own], block[own]] = np.asarray(v).T[own]

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:  # a loop over time fills one core
        list(pool.map(_run, range(0, len(lanes), width)))
    spikes, voltage = (x.reshape(*x.shape[:-2], -1)[..., : recording.num_steps] for x in (spikes, voltage))
    return Response(spikes, voltage)


def _blocks(params: LIFParams | LeakyParams, recording: Recording) -> tuple[int, int]:
    """Return the steps of a block, longer than any state of the neuron lasts, and how many the recording has."""
    slowest = max(float(x) for name, x in named_leaves(params).items() if "tau" in name)
    length = padded_length(round(max(LEAD, 5.0 * slowest) / recording.dt))
    if recording.num_steps <= FEW * length:
        length = padded_length(min(recording.num_steps, SEGMENT))
    return length, -(-recording.num_steps // length)


@jax.jit(static_argnums=0)
def _noisy(
    cell: EscapeNoise, params: Any, state: Any, blocks: Array, seed: Array, lanes: Array
) -> tuple[Any, Array, Array]:
    """Return the next state, and spikes and voltage [T, lanes] of lanes [3, lanes]: repeat, sweep and block."""

    def _noise(lane: Array) -> Array:
        key = jax.random.key(seed)
        for number in lane:
            key = jax.random.fold_in(key, number)
        return waiting_times(key, blocks.shape[1:2], jnp.float32)

    current = blocks[lanes[2], :, lanes[1]].T
    state, output = simulate(cell, params, Noisy(current, jax.vmap(_noise, in_axes=1, out_axes=1)(lanes)), state)
    return state, output.spikes > 0, output.v


def forced_voltage(params: LIFParams | LeakyParams, recording: Recording, spikes: np.ndarray) -> np.ndarray:
    """Run the neuron from the first recorded voltage on and reset it at recorded spikes, which a membrane ignores."""
    voltage = recording.measured_voltage()
    if isinstance(params, LeakyParams):
        start, current = jnp.asarray(voltage[:, 0], float), jnp.asarray(recording.current.T)
        _, later = simulate(neuron(params, recording.dt), params, current[1:], LeakyState(start))
        return np.concatenate([voltage[:, :1], np.asarray(later.v).T], axis=1)
    if isinstance(params, AdaptiveLIFParams):
        return forced_sweeps(params, Data.of(recording, spikes))
    data, v = columns(Data.of(recording, spikes)), np.zeros(voltage.shape)
    for place, outputs in forced_segments(neuron(params, recording.dt), params, data):
        v[:, place] = outputs.v.T
    return v
