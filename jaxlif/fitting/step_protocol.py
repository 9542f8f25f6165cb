"""The recipe for current steps: the membrane from small subthreshold steps, the rest from the f-I curve."""

from typing import NamedTuple

import jax
import numpy as np

from jaxlif.fitting.fi_curve import fit_fi_curve
from jaxlif.fitting.lif_intervals import Estimate, all_intervals, fi_estimate, membrane_estimate
from jaxlif.fitting.membrane import refine_membrane, regress_membrane
from jaxlif.fitting.task import Outcome, Task
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import FITable, Recording, fi_table, is_step_protocol

RECTIFICATION = 1.5  # a ratio of input resistances beyond which one number does not describe the membrane


class Deflection(NamedTuple):
    """A subthreshold step: its sweep, its size in pA and the input resistance at its end, GΩ."""

    sweep: int
    step: float
    resistance: float


def has_fi_curve(recording: Recording, spikes: np.ndarray) -> bool:
    """Say whether there are steps with levels enough for an f-I curve, three that fire and one that deflects below.

    Args:
        recording: any recording.
        spikes: [sweeps, T], booleans.
    """
    if not is_step_protocol(recording):
        return False
    table = fi_table(recording, spikes)
    enough = len(table.currents) >= 5 and (table.rates > 0).sum() >= 3
    return bool(enough and _deflections(recording, spikes, table))


def no_fi_curve(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say why current steps were not fitted as such, in one line; nothing for another current.

    Args:
        recording: any recording.
        spikes: [sweeps, T], booleans.
    """
    if not is_step_protocol(recording) or has_fi_curve(recording, spikes):
        return ()
    table = fi_table(recording, spikes)
    below = len(_deflections(recording, spikes, table))
    return (
        f"the current is made of steps, but no f-I curve with a membrane below it: of {len(table.currents)} levels"
        f" {int((table.rates > 0).sum())} fire (3 of 5 are needed), and {below} sweeps deflect the voltage without a"
        " spike (1 is needed); fitted like a fluctuating current, to the voltage between spikes",
    )


def fit_steps(task: Task) -> Outcome:
    """Fit tau_m, r_m and v_rest to the smallest subthreshold step, then v_th, v_reset and t_ref to the f-I curve.

    Args:
        task: the recording and what was asked for.
    """
    window = task.recording.window(*task.window)
    table = fi_table(window, task.spikes[:, task.samples(task.window)])
    deflections = _deflections(task.recording, task.spikes, table)
    membrane, known = _fit_membrane(task, table, _smallest(deflections))
    fitted = fit_fi_curve(membrane, table.currents, table.rates, bounds=task.bounds, seed=task.seed)
    curve = fitted.table(table.currents, table.rates) | {"epoch_ms": [table.start, table.stop]}
    sweeps = np.array([d.sweep for d in _smallest(deflections)])
    lowest = float(task.recording.measured_voltage().min())
    warnings = _rectification(deflections, membrane) + _spontaneous(fitted.params) + _deep_reset(fitted.params, lowest)
    intervals = all_intervals(known, fi_estimate(fitted.params, table.currents, table.rates, known))
    return Outcome(fitted.params, warnings, curve, sweeps, intervals=intervals)


def _fit_membrane(task: Task, table: FITable, smallest: list[Deflection]) -> tuple[LIFParams, Estimate]:
    """Fit the voltage of the smallest steps that stay below threshold, from the start of the window on."""
    data = task.sweeps((task.window[0], table.stop), np.array([d.sweep for d in smallest]))
    rest, resistance = float(np.median(data.voltage)), float(np.median([d.resistance for d in smallest]))
    tau_m, r_m, v_rest = regress_membrane(data, task.recording.dt) or (20.0, resistance, rest)
    values = task.inside(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_reset=rest)
    start = LIFParams(**values, v_th=values["v_reset"] + 50.0, t_ref=task.spike_length * task.recording.dt)
    free = {name: task.bounds[name] for name in values}
    result = refine_membrane(task.cell, start, data, free, progress=task.progress)
    params = jax.tree.map(float, result.params)
    # v_reset is no part of it: nothing spikes here.
    return params, membrane_estimate(task.cell, params, data, ("tau_m", "r_m", "v_rest"))


def _deflections(recording: Recording, spikes: np.ndarray, table: FITable) -> list[Deflection]:
    """Return the steps in the test epoch without a spike, with the resistance from its last fifth and 50 ms before."""
    start, stop = (round((t - recording.start) / recording.dt) for t in (table.start, table.stop))
    before, late = slice(max(0, start - round(50.0 / recording.dt)), start), slice(stop - (stop - start) // 5, stop)
    found = []
    rows = zip(recording.current, recording.measured_voltage(), spikes, strict=True)
    for sweep, (current, v, train) in enumerate(rows):
        step = float(np.median(current[start:stop]) - np.median(current[before])) if start else 0.0
        if step and not train[start:stop].any():
            found.append(Deflection(sweep, step, float(np.median(v[late]) - np.median(v[before])) / step))
    noise = 0.05 * max((abs(d.step) for d in found), default=0.0)
    return [d for d in found if abs(d.step) > noise]


def _smallest(deflections: list[Deflection]) -> list[Deflection]:
    limit = 1.25 * min(abs(d.step) for d in deflections)
    return [d for d in deflections if abs(d.step) <= limit]


def _rectification(deflections: list[Deflection], membrane: LIFParams) -> tuple[str, ...]:
    """Warn where the input resistance depends on the step: a linear membrane then holds near the smallest ones only."""
    resistances = [d.resistance for d in deflections]
    low, high = min(resistances), max(resistances)
    if 0.0 < low and high <= RECTIFICATION * low:
        return ()
    listed = ", ".join(f"{d.resistance:.3g} GΩ at {d.step:+.4g} pA" for d in sorted(deflections, key=lambda d: d.step))
    if low <= 0.0:
        return (f"the input resistance is not positive ({listed}): is the sign of the current flipped?",)
    off, step = max((abs((membrane.r_m - d.resistance) * d.step), d.step) for d in deflections)
    return (
        f"the membrane rectifies: input resistance {listed}; tau_m and r_m come from the smallest steps, and at"
        f" {step:+.4g} pA the model ends {off:.3g} mV from the cell",
    )


def _spontaneous(params: LIFParams) -> tuple[str, ...]:
    if params.v_rest < params.v_th:
        return ()
    return (f"v_rest = {params.v_rest:.4g} mV lies above v_th = {params.v_th:.4g} mV: the model fires without current",)


def _deep_reset(params: LIFParams, lowest: float) -> tuple[str, ...]:
    if params.v_reset >= lowest:
        return ()
    return (
        f"v_reset = {params.v_reset:.4g} mV lies below everything recorded ({lowest:.4g} mV): the f-I curve asks for"
        " it, the voltage between spikes is not the cell's",
    )
