"""A recording of a simulated cell, to try every analysis on where no real one is at hand."""

from typing import Any

import jax
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyParams
from jaxlif.recordings.recording import Recording
from jaxlif.simulation import simulate
from jaxlif.stimulus import ornstein_uhlenbeck

MEAN, SD, TAU = 120.0, 500.0, 3.0  # of the frozen current, pA, and correlation time of both noises, ms


def simulated_recording(
    key: Array,
    *,
    repeats: int = 5,
    duration: float = 6000.0,
    dt: float = 0.1,
    process_noise: float = 45.0,
    recording_noise: float = 0.1,
) -> Recording:
    r"""Record repeats of a frozen noise from a cell that makes its own spikes.

    The cell receives :math:`I(t) + \eta_i(t)` in repeat i, both Ornstein-Uhlenbeck noises of 3 ms, I of 120 ± 500 pA;
    the recording holds I alone, since no experimenter knows the cell's own noise. The regular-spiking neuron of
    :mod:`jaxlif.neurons.hodgkin_huxley` fires irregularly (CV 0.7 to 1) at about 10 Hz, and its repeats agree with a
    reliability of 0.7 to 0.9 at 4 ms.

    Args:
        key: a JAX random key; the same key gives the same recording.
        repeats: number of sweeps.
        duration: of a sweep, ms.
        dt: sampling interval, ms; integration takes five substeps.
        process_noise: SD of the current that differs from repeat to repeat, pA.
        recording_noise: SD of the white noise on the voltage, mV.

    Returns:
        Current and voltage [repeats, T]; the current is the commanded one.

    Example:
        >>> simulated_recording(jax.random.key(0), repeats=2, duration=100.0)
        Recording(simulated: 2 sweeps of 100 ms, dt = 0.1 ms, current commanded, with voltage)

    Source: Mainen & Sejnowski 1995, doi:10.1126/science.7770778 (the protocol); Pospischil et al. 2008,
    doi:10.1007/s00422-008-0263-8 (the cell).
    """
    checks.whole("repeats", repeats, 1)
    frozen_key, process_key, recording_key = jax.random.split(key, 3)
    frozen = ornstein_uhlenbeck(frozen_key, MEAN, SD, TAU, duration, dt)
    own: Any = jax.vmap(lambda k: ornstein_uhlenbeck(k, 0.0, process_noise, TAU, duration, dt))
    current = frozen[:, None] + own(jax.random.split(process_key, repeats)).T
    cell = HodgkinHuxley(dt=dt, substeps=5)
    _, output = simulate(cell, HodgkinHuxleyParams(), current)
    noise = recording_noise * jax.random.normal(recording_key, output.v.shape, output.v.dtype)
    return Recording(
        current=np.tile(np.asarray(frozen), (repeats, 1)),
        voltage=np.asarray(output.v + noise).T,
        dt=dt,
        current_source="commanded",
        name="simulated",
    )
