"""The membrane alone, where nothing spikes: tau_m, r_m and v_rest."""

import numpy as np

from jaxlif.fitting.data import Data, Options
from jaxlif.fitting.membrane import between_spikes, spike_length
from jaxlif.fitting.step_protocol import fit_subthreshold, has_deflections, step_membrane
from jaxlif.fitting.task import Outcome
from jaxlif.neurons.leaky import LeakyParams


def fit_passive(data: Data, options: Options) -> Outcome:
    """Fit tau_m, r_m and v_rest: to the smallest of current steps, or to the voltage under any other current.

    Args:
        data: sweeps without a spike.
        options: what was asked for.
    """
    if has_deflections(data, data.spikes):
        found = step_membrane(data, options)
        params, estimate, sweeps, notes = found.params, found.estimate, found.sweeps, found.notes
    else:
        params, estimate = fit_subthreshold(between_spikes(data, options.window), options, spike_length(data))
        sweeps, notes = np.arange(data.num_sweeps), ()
    membrane = LeakyParams(tau_m=params.tau_m, r_m=params.r_m, v_rest=params.v_rest)
    return Outcome(membrane, notes, fitted_sweeps=sweeps, intervals=estimate.intervals())
