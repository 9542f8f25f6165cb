"""A model's response to a recording's current: free-running, or with the recorded spikes forced."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.membrane import Sweeps, forced
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.recordings import Recording
from jaxlif.simulate import simulate


class Response(NamedTuple):
    """Spikes [sweeps, T], booleans, and voltage [sweeps, T], mV."""

    spikes: np.ndarray
    voltage: np.ndarray


def free_response(params: LIFParams, recording: Recording) -> Response:
    """Let the neuron run under the recording's current: from rest, or from reset where it cannot rest below threshold.

    Args:
        params: the neuron.
        recording: its current and dt.
    """
    cell, current = LIF(dt=recording.dt), jnp.asarray(recording.current.T)
    state = cell.init_state(params, current[0])
    if params.v_rest >= params.v_th:
        state = state._replace(v=jnp.full_like(state.v, params.v_reset))
    _, output = simulate(cell, params, current, state)
    return Response(np.asarray(output.spikes).T > 0, np.asarray(output.v).T)


def forced_response(params: LIFParams, recording: Recording, spikes: np.ndarray) -> Response:
    """Run the neuron from the first recorded voltage on and reset it at recorded spikes.

    Args:
        params: the neuron.
        recording: its current, voltage and dt.
        spikes: recorded spikes, [sweeps, T], booleans.

    Returns:
        The spikes that the neuron would have emitted, and its voltage.
    """
    nothing = np.zeros_like(spikes)
    rows = (recording.current, recording.measured_voltage(), spikes, nothing)
    output = forced(LIF(dt=recording.dt), params, Sweeps(*(jnp.asarray(row.T, float) for row in rows)))
    return Response(np.asarray(output.spikes).T > 0, np.asarray(output.v).T)
