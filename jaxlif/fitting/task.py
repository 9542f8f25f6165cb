"""A recording prepared for a fit: its spikes, the window to fit, and what was asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxlif.fitting.drift import Drift
from jaxlif.fitting.intervals import Uncertainty
from jaxlif.fitting.membrane import Sweeps
from jaxlif.losses import spike_mask
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.neurons.readout import LeakyParams
from jaxlif.recordings import Recording

BEFORE_SPIKE = 3.0  # ms left out before a spike's upward crossing: the upstroke is no membrane
LONGEST_SPIKE = 20.0  # ms after it within which the spike's shape ends


class Outcome(NamedTuple):
    """What a recipe found.

    The parameters; what the user should know; for steps the f-I table with the fitted rates, and the sweeps whose
    voltage was fitted; the samples before and after a spike in which voltages are not compared, where they are not the
    task's; 95 % intervals of the parameters, by name; where a recipe can go on from here with more data, how; what
    else is known about the parameters; the terms of single sweeps; and the likelihood of the fitted spikes, in bits
    each.
    """

    params: LIFParams | LeakyParams
    warnings: tuple[str, ...] = ()
    curve: dict[str, list[float]] = {}
    fitted_sweeps: np.ndarray | slice = slice(None)
    spike_cut: tuple[int, int] | None = None
    intervals: Mapping[str, tuple[float, float]] = {}
    refit: "Callable[[Task], Outcome] | None" = None
    uncertainty: Uncertainty | None = None
    drift: Drift | None = None
    bits_per_spike: float | None = None


@dataclass(frozen=True)
class Task:
    """What a recipe works on.

    Args:
        recording: the whole recording.
        spikes: [sweeps, T], booleans.
        window: the part to fit, ms.
        bounds: intervals of all parameters.
        start: where to start, or None.
        seed: of random starts.
        progress: show progress bars.
        rest: the resting potential measured in each sweep, [sweeps], mV, or None where it is fitted.
        drift: whether each sweep has an offset and a gain of its own.
    """

    recording: Recording
    spikes: np.ndarray
    window: tuple[float, float]
    bounds: Mapping[str, tuple[float, float]]
    start: LIFParams | None
    seed: int
    progress: bool
    rest: np.ndarray | None = None
    drift: bool = False

    def select(self, sweeps: np.ndarray) -> "Task":
        """Return the task of some of the sweeps."""
        if np.array_equal(sweeps, np.arange(len(self.spikes))):
            return self
        rest = None if self.rest is None else self.rest[sweeps]
        return replace(self, recording=self.recording.select(sweeps), spikes=self.spikes[sweeps], rest=rest)

    @property
    def cell(self) -> LIF:
        """The neuron at the recording's own dt."""
        return LIF(dt=self.recording.dt)

    def steps(self, time: float) -> int:
        """Return a duration in ms as a number of samples."""
        return round(time / self.recording.dt)

    def samples(self, window: tuple[float, float]) -> slice:
        """Return a window in ms as a slice of samples."""
        first, last = (self.steps(t - self.recording.start) for t in window)
        return slice(first, last)

    @property
    def before_spike(self) -> int:
        """Samples left out before each spike."""
        return self.steps(BEFORE_SPIKE)

    @property
    def spike_length(self) -> int:
        """Samples from a spike's upward crossing until its mean shape has fallen to the trough."""
        longest = min(self.steps(LONGEST_SPIKE), self.spikes.shape[1] - 1)
        sweep, step = np.nonzero(self.spikes[:, : self.spikes.shape[1] - longest])
        if not len(sweep):
            return max(1, longest)
        voltage = self.recording.measured_voltage()
        shape = np.mean([voltage[s, n : n + longest + 1] for s, n in zip(sweep, step, strict=True)], axis=0)
        # The first sample near the trough: where the voltage is held, noise decides which one is the lowest.
        return max(1, int(np.argmax(shape <= shape.min() + 0.005 * np.ptp(shape))))

    def sweeps(self, window: tuple[float, float], chosen: np.ndarray | slice = slice(None)) -> Sweeps:
        """Return the chosen sweeps in a window, arranged for a fit of the membrane."""
        part = chosen, self.samples(window)
        current, voltage = self.recording.current[part], self.recording.measured_voltage()[part]
        before, after = self.before_spike, self.spike_length
        # From the whole sweep: a spike just outside the window reaches into it.
        mask = spike_mask(self.spikes[chosen].T, before=before, after=after)[part[1]]
        # A window that starts within a spike starts from the first voltage that is none.
        first = np.take_along_axis(voltage, mask.argmax(axis=0)[:, None], axis=1)
        voltage = np.concatenate([first, voltage[:, 1:]], axis=1)
        return Sweeps(current.T, voltage.T, self.spikes[part].T, mask)

    def inside(self, **values: float) -> dict[str, float]:
        """Return starting values inside their bounds: each itself where it is, else the middle of its interval."""
        middle = {name: 0.5 * sum(self.bounds[name]) for name in values}
        legal = {name: self.bounds[name][0] < value < self.bounds[name][1] for name, value in values.items()}
        return {name: float(value) if legal[name] else middle[name] for name, value in values.items()}
