"""The membrane alone, where nothing spikes: tau_m, r_m and v_rest."""

import numpy as np

from jaxlif.fitting.step_protocol import fit_subthreshold, has_deflections, step_membrane
from jaxlif.fitting.task import Outcome, Task
from jaxlif.neurons.readout import LeakyParams


def fit_passive(task: Task) -> Outcome:
    """Fit tau_m, r_m and v_rest: to the smallest of current steps, or to the voltage under any other current.

    Args:
        task: sweeps without a spike, and what was asked for.
    """
    if has_deflections(task.recording, task.spikes):
        found = step_membrane(task)
        params, estimate, sweeps, notes = found.params, found.estimate, found.sweeps, found.notes
    else:
        params, estimate = fit_subthreshold(task, task.sweeps(task.window))
        sweeps, notes = np.arange(task.recording.num_sweeps), ()
    membrane = LeakyParams(tau_m=params.tau_m, r_m=params.r_m, v_rest=params.v_rest)
    return Outcome(membrane, notes, fitted_sweeps=sweeps, intervals=estimate.intervals())
