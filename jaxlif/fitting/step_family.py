"""A family of current steps: its f-I table, where each sweep rests before its step, and what stays below threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxlif.fitting.fi_curve import blocked, rising_branch
from jaxlif.recordings import Recording
from jaxlif.recordings.notes import DRIFT
from jaxlif.recordings.protocol import (
    Epoch,
    FITable,
    fi_table,
    find_epochs,
    is_step_protocol,
    quiet_current,
    step_family,
)

BASELINE = 50.0  # ms before a test epoch that the rest is taken from
RECOVERY = 30.0  # ms after a spike in which the voltage is on its way back: no rest
HOLDING = 5.0  # pA by which holding currents differ on purpose
RECTIFICATION = 1.5  # a ratio of input resistances beyond which one number does not describe the membrane
CHARGING = 10.0  # ms of a step before its first spike that show the membrane


class Deflection(NamedTuple):
    """A subthreshold step."""

    sweep: int
    step: float  # pA
    resistance: float  # at its end, GΩ; NaN where the sweep's rest is not known


class Baselines(NamedTuple):
    """Every sweep before its test epoch; NaN where it starts with it, the voltage also where the cell fires before."""

    voltage: np.ndarray  # [sweeps], mV
    current: np.ndarray  # [sweeps], pA

    @property
    def drift(self) -> float:
        """The range of the voltages at one holding current, mV; 0 where fewer than two are known."""
        rests = self.rests()
        return float(np.ptp(rests)) if rests.size else 0.0

    def rests(self) -> np.ndarray:
        """Return the voltages that are known, without what the holding current does where that differs by sweep, mV."""
        voltage, current = (np.asarray(x[np.isfinite(self.voltage)]) for x in self)
        if voltage.size < 3 or np.ptp(current) < HOLDING:
            return voltage
        return np.asarray(voltage - np.polyval(np.polyfit(current, voltage, 1), current) + np.median(voltage))


class Steps(NamedTuple):
    """The test epochs of some sweeps of a family, and what is before them."""

    tests: list[Epoch]
    baselines: Baselines


@dataclass(frozen=True, eq=False)
class Family:
    """Current steps and what they evoked; each of its parts is looked for once."""

    recording: Recording
    spikes: np.ndarray  # [sweeps, T], booleans

    @cached_property
    def table(self) -> FITable:
        """The levels and the rates that they evoked."""
        return fi_table(self.recording, self.spikes)

    @cached_property
    def rising(self) -> FITable:
        """The part of the table that an LIF can have."""
        count = rising_branch(self.table.currents, self.table.rates)
        return self.table._replace(currents=self.table.currents[:count], rates=self.table.rates[:count])

    @property
    def ceiling(self) -> float:
        """The current, pA, above which the cell is in block."""
        count = len(self.rising.rates)
        return float(self.table.currents[count - 1 : count + 1].mean()) if count < len(self.table.rates) else np.inf

    @cached_property
    def baselines(self) -> Baselines:
        """What :func:`baselines_before` finds before each test epoch."""
        return baselines_before(self.recording, self.spikes, step_family(self.recording).tests)

    def of(self, sweeps: np.ndarray) -> Steps:
        """Return what belongs to some of the sweeps."""
        tests = step_family(self.recording).tests
        return Steps([tests[n] for n in sweeps], Baselines(*(x[sweeps] for x in self.baselines)))

    @cached_property
    def deflections(self) -> list[Deflection]:
        """The test epochs without a spike that are not in block, with the resistance by their own baseline."""
        found, ceiling = [], self.ceiling
        for n, test in enumerate(step_family(self.recording).tests):
            step, rest = float(test.level - self.baselines.current[n]), self.baselines.voltage[n]
            silent = not self.spikes[n, test.start : test.stop].any()
            if step and np.isfinite(step) and test.level < ceiling and silent:
                found.append(Deflection(n, step, (steady_voltage(self.recording, test) - float(rest)) / step))
        noise = 0.05 * max((abs(d.step) for d in found), default=0.0)
        return [d for d in found if abs(d.step) > noise]

    @cached_property
    def charging(self) -> int:
        """In how many sweeps a step moves the voltage from a known rest for 10 ms before the first spike."""
        rests, length = np.isfinite(self.baselines.voltage), round(CHARGING / self.recording.dt)
        tests = step_family(self.recording).tests
        return sum(
            bool(rests[n]) and not self.spikes[n, test.start : test.start + length].any()
            for n, test in enumerate(tests)
            if test.level != self.baselines.current[n] and test.level < self.ceiling
        )


def baselines_before(recording: Recording, spikes: np.ndarray, epochs: Sequence[Epoch]) -> Baselines:
    """Return for each epoch the medians of the 50 ms before it, or of what there is at the level before it."""
    steps = [step for part in step_family(recording) for step in part]
    length, recovery = (round(x / recording.dt) for x in (BASELINE, RECOVERY))
    voltage, current = recording.measured_voltage(), quiet_current(recording)
    rests, held = np.full((2, len(epochs)), np.nan)
    for n, epoch in enumerate(epochs):
        earlier = [e.stop for e in steps if e.sweep == epoch.sweep and e.stop <= epoch.start]
        begin = max([0, epoch.start - length - recovery, *earlier])
        part = epoch.sweep, slice(max(begin, epoch.start - length), epoch.start)
        if epoch.start > begin:
            held[n] = np.median(current[part])
            rests[n] = np.nan if spikes[epoch.sweep, begin : epoch.start].any() else np.median(voltage[part])
    return Baselines(rests, held)


def steady_voltage(recording: Recording, epoch: Epoch) -> float:
    """Return the mean voltage of the last tenth of a step, mV: the ``steady_state_voltage_stimend`` of eFEL."""
    last = max(1, (epoch.stop - epoch.start) // 10)
    return float(recording.measured_voltage()[epoch.sweep, epoch.stop - last : epoch.stop].mean())


def constant_levels(recording: Recording) -> np.ndarray:
    """Return the current [sweeps, T] that each of its epochs is constant in, pA."""
    current = np.array(quiet_current(recording))
    for epoch in find_epochs(recording):
        current[epoch.sweep, epoch.start : epoch.stop] = epoch.level
    return current


def is_family(recording: Recording) -> bool:
    """Say whether the current is made of steps, to two levels at least: what is judged by whole sweeps."""
    silent = np.zeros(recording.current.shape, bool)
    return is_step_protocol(recording) and len(fi_table(recording, silent).currents) > 1


def has_fi_curve(recording: Recording, spikes: np.ndarray) -> bool:
    """Say whether there are steps with levels enough for an f-I curve, two that fire, and a membrane that is seen."""
    if not is_step_protocol(recording):
        return False
    family = Family(recording, spikes)
    rates = family.rising.rates
    return bool(len(rates) >= 3 and (rates > 0).sum() >= 2 and family.charging)


def has_deflections(recording: Recording, spikes: np.ndarray) -> bool:
    """Say whether there are steps, one of which at least deflects the voltage without a spike."""
    return is_step_protocol(recording) and bool(Family(recording, spikes).deflections)


# --- in words ---------------------------------------------------------------------------------------------


def no_fi_curve(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say why current steps were not fitted as such, in one line; nothing for another current."""
    if not is_step_protocol(recording) or has_fi_curve(recording, spikes):
        return ()
    family = Family(recording, spikes)
    rates = family.rising.rates
    return (
        f"the current is made of steps, but no f-I curve with a membrane below it: of {len(rates)} levels"
        f" {int((rates > 0).sum())} fire (2 of 3 are needed), and {family.charging} sweeps deflect the voltage for"
        f" {CHARGING:g} ms without a spike (1 is needed); fitted like a fluctuating current, to the voltage between"
        " spikes",
        *blocked(family.table.currents, family.table.rates),
    )


def protocol_notes(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say what a family of steps holds that its f-I curve does not show: a block, a rest that drifts, other steps."""
    family, curve = Family(recording, spikes), bool(spikes.any())
    moving = _drifting(family.baselines, curve=curve)
    return blocked(family.table.currents, family.table.rates) + moving + _left_out(recording, curve=curve)


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


def rectification(deflections: list[Deflection], r_m: float) -> tuple[str, ...]:
    """Warn where the input resistance depends on the step: no linear membrane then holds for all."""
    known = sorted((d for d in deflections if np.isfinite(d.resistance)), key=lambda d: d.step)
    low, high = (end((d.resistance for d in known), default=1.0) for end in (min, max))
    if 0.0 < low and high <= RECTIFICATION * low:
        return ()
    listed = ", ".join(f"{d.resistance:.3g} GΩ at {d.step:+.4g} pA" for d in known)
    if low <= 0.0:
        useless = "do not use this model: " * bool(np.median([d.resistance for d in known]) <= 0.0)  # not one odd sweep
        return (f"{useless}the input resistance is not positive ({listed}): is the sign of the current flipped?",)
    off, step = max((abs((r_m - d.resistance) * d.step), d.step) for d in known)
    return (
        f"the membrane rectifies: input resistance {listed}; one tau_m and r_m stand for all, and at"
        f" {step:+.4g} pA the model ends {off:.3g} mV from the cell",
    )
