"""How likely recorded spikes are under a neuron with escape noise."""

import jax
import numpy as np

from jaxlif.fitting.drift import Drift
from jaxlif.fitting.forced_adaptive import joint_score
from jaxlif.fitting.traces import Traces, arranged
from jaxlif.losses import bits_per_spike
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.recordings import Recording


def spike_bits(
    params: AdaptiveLIFParams,
    recording: Recording,
    spikes: np.ndarray,
    drift: Drift | None,
    window: slice = slice(None),
) -> float | None:
    """Return the log-likelihood of recorded spikes in bits per spike above a Poisson train; None without spikes.

    Args:
        params: the neuron with escape noise.
        recording: current, and voltage without the electrode.
        spikes: [sweeps, T], booleans.
        drift: terms of the sweeps.
        window: the samples whose spikes, and whose silence, count.
    """
    if not (count := int(spikes[:, window].sum())):
        return None
    judged = np.zeros(recording.num_steps, bool)
    judged[window] = True
    traces = Traces(recording.current, recording.measured_voltage(), spikes, recording.dt, drift)
    parts = arranged(traces, float(params.t_ref), judged)
    total = sum(float(_score(params, part, recording.dt).log_likelihood) for part in parts)
    density = total - count * np.log(recording.dt)
    return float(bits_per_spike(density, count, recording.num_sweeps * judged.sum() * recording.dt))


_score = jax.jit(joint_score, static_argnums=2)
