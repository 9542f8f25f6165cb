"""The lab's table of a recording: what its steps, its membrane and its spikes are measured to be, without a model."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxlif import measures
from jaxlif.checks import require_same_shape
from jaxlif.fitting.scores import finite
from jaxlif.fitting.step_family import HOLDING, Baselines, baselines_before
from jaxlif.recordings import Recording, SpikeRule
from jaxlif.recordings.notes import quiet_voltage
from jaxlif.recordings.protocol import Epoch, is_step_protocol, step_family
from jaxlif.spiketrains import spike_times

SHIFT = 1.0  # mV by which a holding current may move what is still called the rest
ITSELF = 1.0  # pA: a smaller step is none
SKIPPED = 0.1, 2  # share of the spikes at the start that adaptation leaves out, and the most

# What is measured of a cell, in part, and by name what has to be said of it.
_Part = tuple[Mapping[str, float | None], Mapping[str, str]]

_RHEOBASE = ("rheobase", "rheobase_low", "rheobase_high")
_MEMBRANE = ("input_resistance", "time_constant", "capacitance")
_SPIKE = ("spike_threshold", "spike_amplitude", "spike_width", "ahp", "ahp_depth")

#: Unit and definition of each field of :class:`SweepFeatures`.
SWEEP = {
    "sweep": ("", "number of the sweep, from 0"),
    "current": ("pA", "total current of the step that is judged; without steps the mean of the sweep"),
    "holding": ("pA", "median current of the 50 ms before the step"),
    "baseline": ("mV", "median voltage of the 50 ms before the step, under the holding current (eFEL voltage_base)"),
    "spikes": ("", "spikes of the cell in the step; without steps in the sweep (eFEL spike_count_stimint)"),
    "spikes_model": ("", "the same of the model, running freely; the mean where it was presented several times"),
    "latency": ("ms", "from the start of the step to the first spike (eFEL time_to_first_spike, there to its peak)"),
    "latency_model": ("ms", "the same of the model; the median of the presentations, if more than half have a spike"),
    "first_isi": ("ms", "first interval between spikes (eFEL all_ISI_values, IPFX first_isi)"),
    "last_isi": ("ms", "last interval between spikes"),
    "adaptation_index": (
        "",
        "mean of (b - a) / (b + a) over successive intervals a, b, without the first tenth of the spikes, two at most"
        " (eFEL adaptation_index; with four spikes or fewer IPFX adapt)",
    ),
}

#: Unit and definition of what is measured of a cell.
CELL = {
    "rest": ("mV", "median of the baselines whose holding current shifts them by less than 1 mV"),
    "baseline": ("mV", "median of the sweeps' baselines, under their holding current (eFEL voltage_base)"),
    "holding": ("pA", "median of the sweeps' holding currents"),
    "rheobase": ("pA", "total current of the smallest step that fires (IPFX rheobase_i)"),
    "rheobase_low": ("pA", "largest silent step below the smallest that fires"),
    "rheobase_high": ("pA", "smallest step from which on every one fires, short of a block"),
    "input_resistance": (
        "GΩ",
        "deflection over step, the mean of the last tenth less the baseline (eFEL ohmic_input_resistance_vb_ssse): the"
        " median, weighted by size, of the silent steps that deflect by 15 mV at most, or of the smallest; of"
        " hyperpolarising ones where there are any (IPFX)",
    ),
    "time_constant": (
        "ms",
        "exponential from 10 % of the deflection to its peak (IPFX tau), five time constants at most, of the median"
        " response per pA of the same steps",
    ),
    "capacitance": ("pF", "time constant over the resistance of the same exponential"),
    "sag": (
        "",
        "(trough - end) / (trough - baseline) of the hyperpolarising step whose trough, the mean of 5 ms, is nearest to"
        " -100 mV (IPFX sag, eFEL sag_ratio1)",
    ),
    "spike_threshold": (
        "mV",
        "voltage at which dV/dt last rises through 10 mV/ms before the upstroke (eFEL AP_begin_voltage), as all of the"
        " shape of the first spike at the rheobase (IPFX); without steps the median of all spikes",
    ),
    "spike_amplitude": ("mV", "peak less threshold (eFEL AP_amplitude)"),
    "spike_width": ("ms", "width at half of the amplitude from the threshold (eFEL AP_duration_half_width)"),
    "ahp": (
        "mV",
        "threshold less the lowest voltage before the next spike or the end of the step (IPFX trough; eFEL fast_AHP)",
    ),
    "ahp_depth": ("mV", "that lowest voltage less the baseline (eFEL AHP_depth, where the first dip is the deepest)"),
}


class SweepFeatures(NamedTuple):
    """What is measured of a sweep, see ``SWEEP``; None where it is not defined."""

    sweep: int
    current: float
    holding: float | None
    baseline: float | None
    spikes: int
    spikes_model: float | None
    latency: float | None
    latency_model: float | None
    first_isi: float | None
    last_isi: float | None
    adaptation_index: float | None


class Features(NamedTuple):
    """The table: of every sweep; of the cell by the names of ``CELL``, None where it is not defined; and remarks."""

    sweeps: tuple[SweepFeatures, ...]
    cell: Mapping[str, float | None]
    remarks: Mapping[str, str]  # by name: why there is no value, of each that has none, or what has to be said of it

    def lines(self) -> dict[str, str]:
        """Return what is known of the cell as a few lines, by label."""
        known = {name: f"{x:.4g} {CELL[name][0]}".strip() for name, x in self.cell.items() if x is not None}
        rheobase = [f"{known['rheobase']}, silent at {known['rheobase_low']}"] if "rheobase" in known else []
        rheobase += [self.remarks["rheobase"]] if "rheobase" in self.remarks and known.keys() & _RHEOBASE else []
        texts = {"rheobase": "; ".join(rheobase)}
        for label, names in (("membrane", _MEMBRANE), ("spike", _SPIKE)):
            words = (name.removeprefix("spike_").replace("_", " ") for name in names)
            texts[label] = ", ".join(f"{word} {known[n]}" for word, n in zip(words, names, strict=True) if n in known)
        return {label: text for label, text in texts.items() if text}

    def files(self) -> dict[str, str]:
        """Return the two files of the table, features_sweeps.csv and features_cell.csv, by their names."""
        header = [f"{name}_{unit}" if unit else name for name, (unit, _) in SWEEP.items()]
        rows = [(name, self.cell[name], unit, self.remarks.get(name, ""), text) for name, (unit, text) in CELL.items()]
        return {
            "features_sweeps.csv": _csv([header, *self.sweeps]),
            "features_cell.csv": _csv([("feature", "value", "unit", "remark", "definition"), *rows]),
        }


def recording_features(
    recording: Recording,
    *,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    electrode_drop: Float[np.ndarray, "sweeps T"] | None = None,
    predicted: Bool[np.ndarray, "repeats sweeps T"] | None = None,
) -> Features:
    """Measure a recording as eFEL and IPFX do: f-I table, latencies, intervals, membrane, sag, shape of the spikes.

    Args:
        recording: current and, for all but the counts and times of spikes, voltage.
        spike_rule: how spikes are found where the recording does not hold them.
        electrode_drop: what the electrode adds to the voltage, mV; it is taken off first.
        predicted: spikes of a model under the same current, to stand beside the cell's.

    Returns:
        The :class:`Features`. ``SWEEP`` and ``CELL`` give each field's unit and definition.

    Raises:
        ValueError: for a recording with neither voltage nor spikes, or predictions of another shape.

    Example:
        >>> current = np.zeros((4, 2000))
        >>> current[:, 500:1500] = np.array([-50.0, 50.0, 100.0, 150.0])[:, None]
        >>> spikes = np.zeros(current.shape, bool)
        >>> spikes[2, [700, 800]] = spikes[3, [600, 650, 710, 800]] = True
        >>> found = recording_features(Recording(current=current, spikes=spikes, dt=0.5))
        >>> [sweep.spikes for sweep in found.sweeps], found.sweeps[3].latency, found.cell["rheobase"]
        ([0, 0, 2, 4], 50.5, 100.0)

    Source: eFEL, doi:10.5281/zenodo.593869; IPFX, the feature extraction of the Allen Cell Types Database.
    """
    spikes = spike_rule.find(recording)
    if predicted is not None:
        require_same_shape(current=recording.current, predicted=predicted[0])
    steps = is_step_protocol(recording)
    if electrode_drop is not None:
        recording = recording.part(np.s_[:, :], voltage=recording.measured_voltage() - electrode_drop)
    whole = [Epoch(n, 0, recording.num_steps, float(x.mean())) for n, x in enumerate(recording.current)]
    tests = step_family(recording).tests if steps else whole
    before = _baselines(recording, spikes, tests, steps=steps)
    sweeps = tuple(_sweeps(recording.dt, spikes, predicted, tests, before, steps=steps))
    parts = [_rheobase(sweeps)] if steps else []
    parts += [_membrane(recording, spikes)] if steps and recording.voltage is not None else []
    parts += [] if recording.voltage is None else [_spike(recording, spikes, tests, sweeps, steps=steps)]
    found = {name: value for values, _ in parts for name, value in values.items()}
    parts.append(_rest(sweeps, found.get("input_resistance"), steps=steps))
    cell = dict.fromkeys(CELL) | found | dict(parts[-1][0])
    why = "no silent time before a step" if steps else "the current is not made of steps"
    remarks = {name: why if recording.voltage is not None else "no voltage" for name, x in cell.items() if x is None}
    return Features(sweeps, cell, remarks | {name: text for _, said in parts for name, text in said.items()})


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)
    return text.getvalue()


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


# --- sweeps -----------------------------------------------------------------------------------------------


def _baselines(recording: Recording, spikes: np.ndarray, tests: list[Epoch], *, steps: bool) -> Baselines:
    """Return what is before the steps; without steps the voltage of a quiet start, where no current is held."""
    unknown = np.full(recording.num_sweeps, np.nan)
    if recording.voltage is None:
        return Baselines(unknown, unknown)
    return baselines_before(recording, spikes, tests) if steps else Baselines(quiet_voltage(recording, spikes), unknown)


def _sweeps(
    dt: float, spikes: np.ndarray, predicted: np.ndarray | None, tests: list[Epoch], before: Baselines, *, steps: bool
) -> Iterator[SweepFeatures]:
    for test, baseline, holding in zip(tests, *before, strict=True):
        part = slice(test.start, test.stop)
        rasters = [spikes, *(() if predicted is None else predicted)]
        times, *own = (np.asarray(spike_times(raster[test.sweep, part], dt)) for raster in rasters)
        first = [train[0] if len(train) else np.inf for train in own] if steps else []
        intervals = np.diff(times)
        yield SweepFeatures(
            sweep=test.sweep,
            current=test.level,
            holding=finite(holding),
            baseline=finite(baseline),
            spikes=len(times),
            spikes_model=float(np.mean([len(train) for train in own])) if own else None,
            latency=float(times[0]) if steps and len(times) else None,
            latency_model=finite(np.median(first)) if first else None,
            first_isi=float(intervals[0]) if len(intervals) else None,
            last_isi=float(intervals[-1]) if len(intervals) else None,
            adaptation_index=_adaptation(times) if steps else None,
        )


def _adaptation(times: np.ndarray) -> float | None:
    share, most = SKIPPED
    a = np.diff(times[min(most, int(share * len(times) + 0.5)) :])  # half of a spike is one, as in eFEL
    return float(np.mean(np.diff(a) / (a[1:] + a[:-1]))) if len(a) > 1 else None


# --- the cell ---------------------------------------------------------------------------------------------


def _rest(sweeps: tuple[SweepFeatures, ...], resistance: float | None, *, steps: bool) -> _Part:
    """Keep the rest apart from the voltage under a holding current; of an unknown input resistance 1 GΩ is feared."""
    held = [sweep.holding for sweep in sweeps if sweep.holding is not None]
    changes = bool(held) and np.ptp(held) > HOLDING
    remarks = {"holding": f"changes from sweep to sweep, {min(held):.4g} to {max(held):.4g} pA"} if changes else {}
    shifts = [abs(sweep.holding or 0.0) * (1.0 if resistance is None else resistance) for sweep in sweeps]
    rest = _median(sweep.baseline for sweep, shift in zip(sweeps, shifts, strict=True) if shift < SHIFT)
    baseline, holding = _median(sweep.baseline for sweep in sweeps), None if changes else _median(held)
    if rest is None:
        unknown = "no voltage is known of a silent and constant start"
        remarks["rest"] = unknown if baseline is None else "every sweep is under a holding current that moves it"
    return {"rest": rest, "baseline": baseline if steps else None, "holding": holding}, remarks


def _rheobase(sweeps: tuple[SweepFeatures, ...]) -> _Part:
    """Return the smallest level that fires, between the largest silent one below and that from which all fire."""
    firing = [sweep.current for sweep in sweeps if sweep.spikes]
    silent = [sweep.current for sweep in sweeps if not sweep.spikes]
    if not firing:
        low = max(silent)
        return {"rheobase_low": low}, dict.fromkeys(_RHEOBASE[::2], f"no step fires: above {low:.4g} pA")
    first, top = min(firing), max((sweep.spikes, sweep.current) for sweep in sweeps)[1]
    among = [level for level in silent if first <= level < top]
    high = min(level for level in firing if level > max(among, default=-np.inf))
    if not (below := [level for level in silent if level < first]):
        return {"rheobase_high": high}, dict.fromkeys(_RHEOBASE[:2], f"every step fires: below {first:.4g} pA")
    idle = any(s.spikes and s.holding is not None and s.current < s.holding + ITSELF for s in sweeps)
    again = ", ".join(f"{level:.4g}" for level in sorted(among))
    notes = [f"silent again at {again} pA"] * bool(among) + ["the cell fires by itself"] * idle
    values = {"rheobase": first, "rheobase_low": max(below), "rheobase_high": high}
    return values, {"rheobase": "; ".join(notes)} if notes else {}


def _membrane(recording: Recording, spikes: np.ndarray) -> _Part:
    found = measures.silent_steps(recording, spikes)
    if not found:
        return {}, dict.fromkeys((*_MEMBRANE, "sag"), "no silent step from a known baseline")
    sagging = measures.sag(found, recording.dt)
    remarks = {} if sagging is not None else {"sag": f"no silent step hyperpolarises by {measures.SAG:g} mV"}
    steps = measures.linear_steps(found)
    resistance, error = measures.input_resistance(steps)
    if resistance <= 2.0 * error:
        none = f"not determined: {resistance:.2g} GΩ with a standard error of {error:.2g} GΩ"
        return {"sag": sagging}, remarks | dict.fromkeys(_MEMBRANE, none)
    values = {"input_resistance": resistance, "sag": sagging}
    fitted = measures.exponential(measures.response(steps), recording.dt)
    if fitted is None:
        none = f"not determined: no exponential {measures.SIGNAL:g} times above its noise"
        return values, remarks | dict.fromkeys(_MEMBRANE[1:], none)
    tau, slope = fitted
    return values | {"time_constant": tau, "capacitance": tau / slope}, remarks


# --- spikes -----------------------------------------------------------------------------------------------


def _spike(
    recording: Recording, spikes: np.ndarray, tests: list[Epoch], sweeps: tuple[SweepFeatures, ...], *, steps: bool
) -> _Part:
    """Measure the first spike of the smallest step that fires, or all spikes where there are no steps."""
    firing = [sweep.sweep for sweep in sweeps if sweep.spikes]
    chosen = [min(firing, key=lambda n: sweeps[n].current)] if steps and firing else firing
    if not chosen:
        return {}, dict.fromkeys(_SPIKE, "no spike")
    shapes = []
    for n in chosen:
        marks = np.flatnonzero(spikes[n, tests[n].start : tests[n].stop])
        stops = [*map(int, marks[1:]), tests[n].stop - tests[n].start]
        count = 1 if steps else len(marks)
        # From the start of the step: an upstroke that is one with it has no foot.
        voltage = recording.measured_voltage()[n, tests[n].start : tests[n].stop]
        for mark, stop in zip(marks[:count], stops[:count], strict=True):
            shapes.append(_in_numbers(measures.spike_shape(voltage, recording.dt, int(mark), stop), sweeps[n].baseline))
    values = dict(zip(_SPIKE, map(_median, zip(*shapes, strict=True)), strict=True))
    coarse = f"dt = {recording.dt:g} ms: {measures.FINE:g} ms or less are needed"
    why = coarse if recording.dt > measures.FINE else "not in the trace"
    return values, {name: why for name in _SPIKE[:4] if values[name] is None}


def _in_numbers(shape: measures.SpikeShape, baseline: float | None) -> tuple[float | None, ...]:
    """Return threshold, amplitude, width, AHP from the threshold and AHP from the baseline."""
    onset = shape.threshold
    amplitude, ahp = (None, None) if onset is None else (shape.peak - onset, onset - shape.trough)
    return onset, amplitude, shape.width, ahp, None if baseline is None else shape.trough - baseline
