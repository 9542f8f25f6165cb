"""A recording beside the answers of its fit, and all of its sweeps as a part of a page that can be zoomed into."""

import base64
import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from jaxlif.fitting.result import Prediction, RecordingFit
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording
from jaxlif.recordings.protocol import Epoch, is_step_protocol, step_family
from jaxlif.recordings.recording import RecordingWarning

VALUES = 1_000_000  # of all traces together, two bytes each: about 2.7 MB of a page
DIGITS = 100.0  # steps of a millivolt, where the voltages allow it
LARGEST = 32_000  # that two bytes hold, with room


@dataclass(frozen=True, eq=False)
class Answers:
    """A recording and what the fit that its scores belong to answers to it; each answer is computed once."""

    fit: RecordingFit
    recording: Recording

    @cached_property
    def scored(self) -> RecordingFit:
        """The fit that never saw what judges it."""
        return self.fit.as_scored()

    def to(self, recording: Recording, **given: Any) -> Prediction:
        """Predict without another word on what was said of the recording as it was read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordingWarning)
            return self.scored.predict(recording, **given)

    @cached_property
    def spikes(self) -> np.ndarray:
        """The cell's spikes, [sweeps, T]."""
        return np.asarray(self.fit.spike_rule.find(self.recording))

    @cached_property
    def cell(self) -> list[np.ndarray]:
        """The times of the cell's spikes in each sweep, ms."""
        return [self.recording.times[train] for train in self.spikes]

    @cached_property
    def forced(self) -> np.ndarray:
        """What the electrode would see of the model with the recorded spikes forced, [sweeps, T], mV."""
        found = self.to(self.recording, force_spikes=True)
        return np.asarray(found.voltage + found.electrode_drop)

    @cached_property
    def free(self) -> Prediction:
        """What the model does by itself, once."""
        return self.to(self.recording, seed=self.fit.seed)

    @cached_property
    def model(self) -> list[np.ndarray]:
        """The times of the model's own spikes in each sweep, ms."""
        own = self.free.spike_time + self.recording.start
        return [own[self.free.spike_sweep == sweep] for sweep in range(self.recording.num_sweeps)]

    @property
    def fires(self) -> bool:
        """Whether the model has spikes at all."""
        return isinstance(self.fit.params, LIFParams)

    @cached_property
    def steps(self) -> list[Epoch]:
        """The step of each sweep; none of another stimulus."""
        return step_family(self.recording).tests if is_step_protocol(self.recording) else []

    @cached_property
    def part(self) -> np.ndarray:
        """What was done with each sweep: "fitted", wholly or in part, "held out" or, beyond the curve, "left out"."""
        part = np.full(self.recording.num_sweeps, "fitted", dtype=object)
        if self.steps and self.fit.curve:
            levels = np.array([step.level for step in self.steps])
            part[levels > max(self.fit.curve["current_pA"]) + 0.02 * np.ptp(levels)] = "left out"
        part[list(self.fit.held_out)] = "held out"
        return part

    def label(self, sweep: int) -> str:
        """Return a sweep's number, its step and whether it was fitted."""
        level = f", {self.steps[sweep].level:.4g} pA" if self.steps else ""
        start, stop = self.fit.window
        in_time = "test" in self.fit.scores and not self.fit.held_out
        return f"sweep {sweep}{level}, {self.part[sweep]}" + f" from {start:g} to {stop:g} ms" * in_time


def envelope(x: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Return the extremes of a trace [..., T] in bins, two values a bin in their order, and the samples of a value.

    A trace of no more than ``2 * size`` values stays as it is; of others no peak is lost.

    Example:
        >>> envelope(np.array([0.0, 5.0, 1.0, 0.0, -7.0, 0.0, 2.0, 2.0]), 2)
        (array([ 0.,  5., -7.,  2.]), 2)
    """
    steps = x.shape[-1]
    length = 2 * -(-steps // (2 * size))
    if length <= 2:
        return x, 1
    short = -steps % length
    bins = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)], mode="edge").reshape(*x.shape[:-1], -1, length)
    ends = np.sort(np.stack([bins.argmin(axis=-1), bins.argmax(axis=-1)], axis=-1), axis=-1)
    return np.take_along_axis(bins, ends, axis=-1).reshape(*x.shape[:-1], -1), length // 2


def traces(answers: Answers) -> dict[str, Any]:
    """Return what a page shows of every sweep: recorded and forced voltage, [values] as text, and all spike times."""
    recording = answers.recording
    size = max(VALUES // (4 * recording.num_sweeps), 100)
    voltages = np.stack([recording.measured_voltage(), answers.forced])
    values, samples = envelope(voltages, size)
    scale = min(DIGITS, LARGEST / max(float(np.abs(values).max()), 1.0))
    coded = np.rint(scale * values).astype("<i2")
    own = answers.model if answers.fires else [np.empty(0)] * recording.num_sweeps
    texts = [[base64.b64encode(trace.tobytes()).decode() for trace in kind] for kind in coded]
    rows = zip(range(recording.num_sweeps), *texts, answers.cell, own, strict=True)
    return {
        "start": float(recording.times[0]),
        "step": samples * recording.dt,
        "scale": scale,
        "sweeps": [
            {"label": answers.label(n), "recorded": v, "model": m, "spikes": [_times(cell), _times(free)]}
            for n, v, m, cell, free in rows
        ],
    }


def _times(train: np.ndarray) -> list[float]:
    return [float(t) for t in np.round(train, 3)]


def zoomable(answers: Answers) -> dict[str, str]:
    """Return the style, the program and the data of a plot of one sweep at a time, as a page's text. The plot is drawn
    by uPlot (MIT licence, its text beside it), which is part of the page.
    """
    folder = files("jaxlif").joinpath("templates")
    read = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("uplot.js", "uplot.css", "traces.js")}
    licence = folder.joinpath("uplot.LICENSE").read_text(encoding="utf-8")
    data = json.dumps(traces(answers), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    library = read["uplot.js"].partition("\n")[2]  # its first line is where it lies on the network
    return {"style": read["uplot.css"], "program": f"/*\n{licence}\n*/\n{library}\n{read['traces.js']}", "data": data}
