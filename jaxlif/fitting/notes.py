"""What the user should know about a fit: what its data, its parameters and its scores do not say by themselves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlif.fitting.bounds import STANDARD_NAMES
from jaxlif.fitting.data import Data, Outcome
from jaxlif.fitting.fi_curve import blocked
from jaxlif.fitting.intervals import is_inside
from jaxlif.fitting.judgement import Judged
from jaxlif.fitting.prepare import ADAPTIVE, Case
from jaxlif.fitting.scores import unreliable_notes
from jaxlif.fitting.step_family import Family, rectification
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings.notes import DRIFT
from jaxlif.recordings.protocol import is_step_protocol, step_family

TAU_M = (0.5, 200.0)  # ms, from an octopus cell to a hippocampal granule cell at rest, with room
R_M = (0.002, 10.0)  # GΩ, from a large motoneuron to the smallest granule cell
C_M = (1.0, 800.0)  # pF
USUAL_C_M, USUAL_THRESHOLD = 100.0, 20.0  # pF, and mV above the rest
HIGHEST = 80.0  # mV above the rest that a threshold can lie
MOVED = 5.0  # mV: a family of currents that moves a voltage by less has no f-I curve
SAME_LEVEL = 0.05  # share of a level by which another differs
POOR = 0.5  # share of the variance of the fitted voltage below which the fit is doubted
NOTHING_HELD_OUT = "nothing was held out: the scores are those of the data that were fitted"


def fit_notes(
    case: Case,
    found: Outcome,
    final: Outcome,
    judged: Judged,
    bounds: Mapping[str, tuple[float, float]],
    undetermined: tuple[str, ...],
) -> tuple[str, ...]:
    """Return all that a fit has to say, the worst first: of its model, its data, its parameters and its scores."""
    (first, last), adaptive, r_m = case.window, case.model in ADAPTIVE, float(final.params.r_m)
    steps = is_step_protocol(case.fitted)
    linear = isinstance(final.params, AdaptiveLIFParams) and not final.params.mechanisms
    vague = f"not determined by these data: {', '.join(undetermined)}: any other value would do about as well"
    again = final is not found and "test" in judged.scores
    part = f"without the sweeps {', '.join(map(str, case.held))}" if len(case.held) else f"to {first:g} to {last:g} ms"
    refitted = f"the parameters are those of a refit to the whole recording, the scores those of a fit {part} alone"
    return (
        *judged.astray,
        *case.notes,
        *protocol_doubts(case.fitted, r_m, adaptive=adaptive),
        *(rectification(Family(case.fitted, case.fitted.spikes).deflections, r_m) if linear and steps else ()),
        *(refitted,) * again,
        *final.warnings,
        *(vague,) * bool(undetermined),
        *at_bounds(found.params, bounds),
        *unlikely_membrane(final.params),
        *score_notes(case.fitted, judged.scores),
        *(unreliable_notes(case.recording, case.data.spikes) if case.protocol == "fluctuating" else ()),
        *judged.outside,
    )


def protocol_doubts(data: Data, r_m: float, *, adaptive: bool = False) -> tuple[str, ...]:
    """Say what a family of steps lacks, or what else than its steps differs between its sweeps; of an adaptive neuron
    also what it takes as it is, and a recipe of steps deals with.
    """
    if not is_step_protocol(data):
        return ()
    family, notes = Family(data, data.spikes), []
    holding = family.baselines.current[np.isfinite(family.baselines.current)]
    if holding.size and (moved := r_m * float(np.ptp(holding))) > DRIFT:
        text = f"the holding current differs by {np.ptp(holding):.3g} pA between sweeps"
        notes.append(f"{text}: the cell rests up to {moved:.2g} mV from where it does in others")
    tests, others = step_family(data)  # one sweep may step from level to level
    more = any(o.level * tests[0].level > 0.0 and abs(o.level / tests[0].level - 1.0) > SAME_LEVEL for o in others)
    if len(currents := family.table.currents) == 1 and not more:
        notes.append(f"the current has one level, {currents[0]:.4g} pA: nothing tells how the cell answers another")
    if adaptive and not data.terms.offset.any() and family.baselines.drift >= DRIFT:
        text = f"the rest moves by {family.baselines.drift:.2g} mV from sweep to sweep"
        notes.append(f"{text}: one v_rest stands for all, and r_m and v_th make up for it (--drift, or --model lif)")
    of_block = blocked(currents, family.table.rates, "are fitted as if it had (--sweeps)") if adaptive else ()
    return (*notes, *of_block)


def at_bounds(params: LIFParams | LeakyParams, limits: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Say which parameters ended at or outside their bounds: those are not estimates."""
    notes = []
    for name, (low, high) in limits.items():
        value, unit = float(getattr(params, name)), STANDARD_NAMES[name][1]
        if not is_inside(name, value, (low, high)):
            where = "at the end of" if low <= value <= high else "outside"
            notes.append(f"{name} = {value:.4g} {unit} lies {where} its bounds, {low:g} to {high:g} {unit}")
    return tuple(notes)


def spontaneous(params: LIFParams) -> tuple[str, ...]:
    """Say where the fitted model fires without a current."""
    if params.v_rest < params.v_th:
        return ()
    return (f"v_rest = {params.v_rest:.4g} mV lies above v_th = {params.v_th:.4g} mV: the model fires without current",)


def unlikely_membrane(params: LIFParams | LeakyParams) -> tuple[str, ...]:
    """Say which of a membrane's numbers no neuron has, and what scale of the current would explain it."""
    tau_m, r_m = float(params.tau_m), float(params.r_m)
    c_m, notes = tau_m / r_m, []
    if not TAU_M[0] <= tau_m <= TAU_M[1]:
        notes.append(f"tau_m = {tau_m:.3g} ms: neurons have {TAU_M[0]:g} to {TAU_M[1]:g} ms")
    if not (C_M[0] <= c_m <= C_M[1] and R_M[0] <= r_m <= R_M[1]):
        notes.append(
            f"r_m = {r_m:.3g} GΩ and tau_m / r_m = {c_m:.3g} pF: neurons have {R_M[0]:g} to {R_M[1]:g} GΩ and"
            f" {C_M[0]:g} to {C_M[1]:g} pF; {_scale_of_current(USUAL_C_M / c_m)}?"
        )
    return tuple(notes)


def unlikely_threshold(params: LIFParams, currents: np.ndarray) -> tuple[str, ...]:
    """Say where rates put the threshold so far from the rest, or their currents so near to it, that these are wrong."""
    above, moved = float(params.v_th - params.v_rest), float(params.r_m) * float(np.ptp(currents))
    if moved >= MOVED and above <= HIGHEST:
        return ()
    usual = USUAL_THRESHOLD / above if above > 0 else USUAL_THRESHOLD / moved
    return (
        f"the threshold lies {above:.2g} mV above the rest, and all currents together move the voltage by {moved:.2g}"
        f" mV: {_scale_of_current(usual)}, or is r_m = {float(params.r_m):.3g} GΩ not the cell's?",
    )


def _scale_of_current(factor: float) -> str:
    """Ask for the power of ten that is nearest to a factor."""
    gain = 10.0 ** round(np.log10(factor))
    times = f"{max(gain, 1.0 / gain):.0f} times too {'small' if gain > 1 else 'large'} (--current-gain {gain:g})"
    unit = {1000.0: "in nA, ", 1e-3: "in fA, "}.get(gain, "")
    return f"is the current {unit}{times}" if gain != 1.0 else "is the scale of the current right (--current-gain)"


def score_notes(data: Data, scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Say what the scores do not say by themselves."""
    notes = []
    if data.current_source == "commanded":
        notes.append("the current is the command, not a measurement: what the amplifier did not deliver is not seen")
    if "test" not in scores:
        notes.append(NOTHING_HELD_OUT)
    explained = scores.get("membrane", scores["train"])["voltage_variance_explained"]
    if explained is None or explained < POOR:
        notes.append(
            f"the membrane explains only {100.0 * max(explained or 0.0, 0.0):.0f} % of the variance of the voltage that"
            " it was fitted to: current and voltage may not belong together, or one membrane does not describe all"
            " sweeps"
        )
    judged = scores.get("test", scores["train"])
    elsewhere = judged.get("voltage_variance_explained")
    if explained is not None and elsewhere is not None and elsewhere < POOR <= explained:
        notes.append(
            f"the error of the voltage in what was held out is {100.0 * (1.0 - elsewhere):.0f} % of its variance: the"
            " cell or its rest was another there"
        )
    cell, model = judged["rate_data"], judged["rate_model"]
    if "f_i" in scores:
        return tuple(notes)
    if cell == 0.0 and "test" in scores and data.spikes.any():
        notes.append("no spike falls into what was held out: it says nothing about the model's spikes but their number")
    if cell != model and not 0.5 <= model / max(cell, 1e-9) <= 2.0:
        notes.append(f"the model fires at {model:.3g} Hz where the cell fires at {cell:.3g} Hz")
    return tuple(notes)
