"""How likely recorded spikes are under a neuron with escape noise."""

from dataclasses import replace

import jax
import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.joint_likelihood import evaluate, joint_loss
from jaxlif.fitting.traces import arranged
from jaxlif.losses import bits_per_spike
from jaxlif.neurons.adaptive import AdaptiveLIFParams


def spike_bits(params: AdaptiveLIFParams, data: Data, window: slice = slice(None)) -> float | None:
    """Return the log-likelihood of recorded spikes in bits per spike above a Poisson train; None without spikes.

    Args:
        params: the neuron with escape noise.
        data: current, voltage and spikes, with the terms of the sweeps.
        window: the samples whose spikes, and whose silence, count.
    """
    if not (count := int(data.spikes[:, window].sum())):
        return None
    judged = np.zeros(data.num_steps, bool)
    judged[window] = True
    with jax.enable_x64(False):  # as the fit, whose programs it shares
        parts = arranged(replace(data, judged=judged, length=0), float(params.t_ref))
        loss, samples = joint_loss(params, parts, data.dt)
        _, _, score = evaluate(loss, loss.vector(params), samples)
    density = float(score.log_likelihood) - count * np.log(data.dt)
    return float(bits_per_spike(density, count, data.num_sweeps * judged.sum() * data.dt))
