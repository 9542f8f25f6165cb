"""The recipe for current steps: the membrane from small subthreshold steps, the rest from the f-I curve."""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from jaxlif.fitting.data import Data, Options, Outcome
from jaxlif.fitting.fi_curve import blocked, fit_fi_curve, poor_curve, rising_branch
from jaxlif.fitting.intervals import Estimate
from jaxlif.fitting.lif_intervals import all_intervals, fi_estimate, membrane_estimate
from jaxlif.fitting.membrane import between_spikes, refine_membrane, regress_membrane, spike_length
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, fi_table, find_epochs, is_step_protocol, step_family
from jaxlif.recordings.notes import DRIFT
from jaxlif.recordings.protocol import Epoch, FITable, quiet_current

BASELINE = 50.0  # ms before a test epoch that the rest is taken from
RECOVERY = 30.0  # ms after a spike in which the voltage is on its way back: no rest
HOLDING = 5.0  # pA by which holding currents differ on purpose
RECTIFICATION = 1.5  # a ratio of input resistances beyond which one number does not describe the membrane


class Deflection(NamedTuple):
    """A subthreshold step: its sweep, its size in pA and the input resistance at its end, GΩ."""

    sweep: int
    step: float
    resistance: float


class StepMembrane(NamedTuple):
    """A membrane fitted to steps: parameters and their errors, the sweeps it was fitted to, and notes."""

    params: LIFParams
    estimate: Estimate
    sweeps: np.ndarray
    notes: tuple[str, ...]


class Baselines(NamedTuple):
    """Every sweep before its test epoch: voltage [sweeps] mV and current [sweeps] pA.

    Both are NaN where it starts with it, the voltage alone where the cell fires before it: that is no rest.
    """

    voltage: np.ndarray
    current: np.ndarray

    @property
    def drift(self) -> float:
        """The range of the voltages at one holding current, mV; 0 where fewer than two are known."""
        rests = self.rests()
        return float(np.ptp(rests)) if rests.size else 0.0

    def rests(self) -> np.ndarray:
        """Return the voltages that are known, without what the holding current does where that differs by sweep, mV."""
        voltage, current = (x[np.isfinite(self.voltage)] for x in self)
        if voltage.size < 3 or np.ptp(current) < HOLDING:
            return voltage
        return voltage - np.polyval(np.polyfit(current, voltage, 1), current) + np.median(voltage)

    def aligned(self, data: Data, chosen: np.ndarray) -> Data:
        """Move the chosen sweeps to the middle baseline of all: a rest that drifts is no response to a current.

        A sweep whose rest is not known stays where it is.
        """
        known = np.isfinite(self.voltage)
        if not known.any():
            return data
        shift, held = (np.where(known, x - np.median(x[known]), 0.0)[chosen] for x in self)
        return replace(data, voltage=data.voltage - shift[:, None], current=data.current - held[:, None])


def has_fi_curve(recording: Recording, spikes: np.ndarray) -> bool:
    """Say whether there are steps with levels enough for an f-I curve, three that fire and one that deflects below."""
    if not is_step_protocol(recording):
        return False
    table = _rising(fi_table(recording, spikes))
    enough = len(table.rates) >= 5 and (table.rates > 0).sum() >= 3
    return bool(enough and _deflections(recording, spikes))


def has_deflections(recording: Recording, spikes: np.ndarray) -> bool:
    """Say whether there are steps, one of which at least deflects the voltage without a spike."""
    return is_step_protocol(recording) and bool(_deflections(recording, spikes))


def no_fi_curve(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say why current steps were not fitted as such, in one line; nothing for another current."""
    if not is_step_protocol(recording) or has_fi_curve(recording, spikes):
        return ()
    whole = fi_table(recording, spikes)
    table = _rising(whole)
    below = len(_deflections(recording, spikes))
    return (
        f"the current is made of steps, but no f-I curve with a membrane below it: of {len(table.rates)} levels"
        f" {int((table.rates > 0).sum())} fire (3 of 5 are needed), and {below} sweeps deflect the voltage without a"
        " spike (1 is needed); fitted like a fluctuating current, to the voltage between spikes",
        *blocked(whole.currents, whole.rates),
    )


def protocol_notes(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say what a family of steps holds that its f-I curve does not show: a block, a rest that drifts, other steps."""
    table = fi_table(recording, spikes)
    moving = _drifting(step_baselines(recording, spikes), curve=bool(spikes.any()))
    return blocked(table.currents, table.rates) + moving + _left_out(recording, curve=bool(spikes.any()))


def fit_steps(data: Data, options: Options) -> Outcome:
    """Fit tau_m, r_m and v_rest to the smallest subthreshold step, then v_th, v_reset and t_ref to the f-I curve."""
    window, membrane = data.window(*options.window), step_membrane(data, options)
    table = _rising(fi_table(window, window.spikes))
    params, curve = fit_fi_curve(membrane.params, table.currents, table.rates, bounds=options.bounds, seed=options.seed)
    curve |= {"epoch_ms": [table.start, table.stop]}
    lowest, poor = float(data.voltage.min()), poor_curve(curve)
    warnings = membrane.notes + spontaneous(params) + _deep_reset(params, lowest) + poor
    counted, known = 1000.0 / (table.stop - table.start), membrane.estimate  # Hz that one spike is worth
    shape = None if poor else fi_estimate(params, table.currents, table.rates, known, resolution=counted)
    return Outcome(params, warnings, curve, membrane.sweeps, intervals=all_intervals(known, shape))


def step_membrane(data: Data, options: Options) -> StepMembrane:
    """Fit tau_m, r_m and v_rest to the smallest subthreshold steps."""
    window = data.window(*options.window)
    baselines, deflections = step_baselines(window, window.spikes), _deflections(window, window.spikes)
    chosen = np.array([d.sweep for d in _smallest(deflections)])
    before = options.window[0], fi_table(window, window.spikes).stop
    part = baselines.aligned(between_spikes(data, before, chosen), chosen)
    resistance = float(np.median(_resistances(_smallest(deflections)) or [0.1]))
    # Hum and noise may be in the cell, or in the record of its current alone: the voltage says which.
    noise = (data.current - _levels(data))[chosen, data.samples(before)]
    heard = [part, replace(part, current=part.current - noise)][: 1 + noise.any()]
    fits = [fit_subthreshold(x, options, spike_length(data), resistance) for x in heard]
    params, estimate = min(fits, key=lambda fit: fit[1].spread)
    if np.isfinite(baselines.voltage[chosen]).all():
        estimate = _with_baselines(estimate, part)
    if baselines.drift >= DRIFT:
        # The cell's v_rest is none of one value: that of any sweep lies within what it spans, and v_th moves with it.
        spans = estimate.covariance + np.diag([0.0, 0.0, float(np.var(baselines.rests()))])
        estimate = estimate._replace(covariance=spans)
    notes = _rectification(deflections, params) + protocol_notes(window, window.spikes)
    return StepMembrane(params, estimate, chosen, notes)


def _levels(recording: Recording) -> np.ndarray:
    """Return the current [sweeps, T] that each of its epochs is constant in."""
    current = np.array(quiet_current(recording))
    for epoch in find_epochs(recording):
        current[epoch.sweep, epoch.start : epoch.stop] = epoch.level
    return current


def _rising(table: FITable) -> FITable:
    """Return the part of a table that an LIF can have."""
    count = rising_branch(table.currents, table.rates)
    return table._replace(currents=table.currents[:count], rates=table.rates[:count])


def _ceiling(table: FITable) -> float:
    """Return a current between the rising branch and the falling one, pA."""
    count = rising_branch(table.currents, table.rates)
    return float(table.currents[count - 1 : count + 1].mean()) if count < len(table.rates) else np.inf


def fit_subthreshold(data: Data, options: Options, length: int, resistance: float = 0.1) -> tuple[LIFParams, Estimate]:
    """Fit tau_m, r_m and v_rest to voltages with hardly a spike."""
    rest = float(np.median(data.voltage))
    tau_m, r_m, v_rest = regress_membrane(data) or (20.0, resistance, rest)
    # A sweep may have spikes beside the step: there it is reset.
    values = options.inside(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_reset=rest)
    start = LIFParams(**values, v_th=values["v_reset"] + 50.0, t_ref=length * data.dt)
    free = {name: options.bounds[name] for name in values}
    result = refine_membrane(start, data, free, progress=options.progress)
    params = jax.tree.map(float, result.params)
    return params, membrane_estimate(params, data, ("tau_m", "r_m", "v_rest"))


def _with_baselines(estimate: Estimate, data: Data) -> Estimate:
    """Add what the errors of the baselines, by which each sweep was moved, make of r_m and v_rest.

    Both are a regression of the voltage on the current; a median has pi / 2 times the variance of a mean.
    """
    current = data.current
    sums = np.stack([current.sum(axis=1), np.full(len(current), float(data.num_steps))])  # [2, S]
    squares = np.array([[np.sum(current**2), current.sum()], [current.sum(), float(current.size)]])
    moved = np.linalg.solve(squares, sums)
    covariance = np.array(estimate.covariance)
    covariance[1:, 1:] += 0.5 * np.pi * estimate.spread * data.dt / BASELINE * moved @ moved.T
    return estimate._replace(covariance=covariance)


def step_baselines(recording: Recording, spikes: np.ndarray) -> Baselines:
    """Return the medians of the 50 ms before each test epoch, or of what there is at the level before it."""
    tests, others = step_family(recording)
    length, recovery = (round(x / recording.dt) for x in (BASELINE, RECOVERY))
    found = [_before(test, others, length + recovery) for test in tests]
    fires = np.array([train[b].any() for train, b in zip(spikes, found, strict=True)])
    rows = zip(recording.measured_voltage(), quiet_current(recording), found, strict=True)
    pairs = [[np.median(x[b][-length:]) if b.stop > b.start else np.nan for x in (v, c)] for v, c, b in rows]
    voltage, current = np.array(pairs).T
    return Baselines(np.where(fires, np.nan, voltage), current)


def _before(test: Epoch, others: list[Epoch], length: int) -> slice:
    earlier = [e.stop for e in others if e.sweep == test.sweep and e.stop <= test.start]
    return slice(max([0, test.start - length, *earlier]), test.start)


def _deflections(recording: Recording, spikes: np.ndarray) -> list[Deflection]:
    """Return the test epochs without a spike, with the resistance from their last fifth and their own baseline.

    It is NaN where that is no rest. Those above the rising branch are silent because they are in block.
    """
    found, baselines, ceiling = [], step_baselines(recording, spikes), _ceiling(fi_table(recording, spikes))
    for n, test in enumerate(step_family(recording).tests):
        late = recording.measured_voltage()[n, test.stop - (test.stop - test.start) // 5 : test.stop]
        step = test.level - baselines.current[n]
        if step and np.isfinite(step) and test.level < ceiling and not spikes[n, test.start : test.stop].any():
            found.append(Deflection(n, float(step), float(np.median(late) - baselines.voltage[n]) / float(step)))
    noise = 0.05 * max((abs(d.step) for d in found), default=0.0)
    return [d for d in found if abs(d.step) > noise]


def _smallest(deflections: list[Deflection]) -> list[Deflection]:
    limit = 1.25 * min(abs(d.step) for d in deflections)
    return [d for d in deflections if abs(d.step) <= limit]


def _resistances(deflections: list[Deflection]) -> list[float]:
    """Return the input resistances that are known, GΩ."""
    return [d.resistance for d in deflections if np.isfinite(d.resistance)]


def _drifting(baselines: Baselines, *, curve: bool) -> tuple[str, ...]:
    fires = np.isnan(baselines.voltage) & np.isfinite(baselines.current)
    unknown = (
        f"the rest cannot be measured in {fires.sum()} of {fires.size} sweeps: the cell fires before the step;"
        " neither a drift nor an input resistance is known there",
    ) * bool(fires.any())
    if baselines.drift < DRIFT:
        return unknown
    of = "v_rest and v_th are those of the middle one, and the f-I curve is one of a cell that changed"
    return (
        f"the rest moves by {baselines.drift:.2g} mV from sweep to sweep: steps were measured from each sweep's own,"
        f" {of if curve else 'and v_rest is that of the middle one'}",
        *unknown,
    )


def _left_out(recording: Recording, *, curve: bool) -> tuple[str, ...]:
    """Name the steps that are not fitted: a second one in a sweep, or a pulse that all sweeps have."""
    others = step_family(recording).others
    if not others:
        return ()
    first, of = others[0], "f-I curve" if curve else "input resistances"
    start, stop = (recording.start + n * recording.dt for n in (first.start, first.stop))
    return (
        f"{len(others)} steps beside the one that was fitted in each sweep are left out of the {of}, the first of them"
        f" {first.level:.4g} pA from {start:.5g} to {stop:.5g} ms in sweep {first.sweep}",
    )


def _rectification(deflections: list[Deflection], membrane: LIFParams) -> tuple[str, ...]:
    """Warn where the input resistance depends on the step: a linear membrane then holds near the smallest ones only."""
    deflections = [d for d in deflections if np.isfinite(d.resistance)]
    resistances = _resistances(deflections)
    if not resistances or 0.0 < min(resistances) and max(resistances) <= RECTIFICATION * min(resistances):
        return ()
    listed = ", ".join(f"{d.resistance:.3g} GΩ at {d.step:+.4g} pA" for d in sorted(deflections, key=lambda d: d.step))
    if min(resistances) <= 0.0:
        return (f"the input resistance is not positive ({listed}): is the sign of the current flipped?",)
    off, step = max((abs((membrane.r_m - d.resistance) * d.step), d.step) for d in deflections)
    return (
        f"the membrane rectifies: input resistance {listed}; tau_m and r_m come from the smallest steps, and at"
        f" {step:+.4g} pA the model ends {off:.3g} mV from the cell",
    )


def spontaneous(params: LIFParams) -> tuple[str, ...]:
    """Say where the fitted model fires without a current."""
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
