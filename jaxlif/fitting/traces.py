"""What the recipe for adaptive neurons works on: current, voltage and spikes of a window, and a start by regression."""

from typing import NamedTuple

import numpy as np

from jaxlif.fitting.drift import Drift
from jaxlif.fitting.forced_adaptive import ForcedSweeps, forced_sweeps
from jaxlif.fitting.segments import padded_length
from jaxlif.fitting.task import Task
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.recordings import repeats

UPSTROKE = 5.0  # ms before a spike that are not compared
HELD = 4.0  # ms after a spike during which the voltage is its shape, unless the cell fires sooner
FEW = 3  # sweeps on which the starts compete
ROOM = 256  # spikes of a sweep, and multiples of it
PART = 150_000  # steps of all sweeps of a part: the temporaries of a gradient stay below what is mapped anew each time
COARSE = 0.25  # ms: steps this long do for the competition of starts
TAUS = (4.0, 60.0)  # ms: where the time constants of the spike-triggered currents start
SLOW = 600.0  # ms: of one more where there are several stimuli; within one it cannot be told from a constant current


class Traces(NamedTuple):
    """What a recipe works on.

    Current [S, T] pA, voltage [S, T] mV without the electrode, spikes [S, T], and dt in ms; the terms of single sweeps;
    the resting potential that was measured, mV, or None where it is to be fitted; and the time constants at which
    spike-triggered currents start, ms. ``length`` is that to which they are arranged, in samples: a later fit to more
    of the recording then finds its gradient compiled.
    """

    current: np.ndarray
    voltage: np.ndarray
    spikes: np.ndarray
    dt: float
    drift: Drift | None = None
    rest: float | None = None
    taus: tuple[float, ...] = TAUS
    length: int = 0

    def few(self) -> "Traces":
        """Return some of the sweeps, spread over all."""
        count = len(self.current)
        chosen = np.unique(np.linspace(0, count - 1, min(FEW, count)).round().astype(int))
        current, voltage, spikes = (x[chosen] for x in (self.current, self.voltage, self.spikes))
        drift = None if self.drift is None else self.drift.select(chosen)
        return self._replace(current=current, voltage=voltage, spikes=spikes, drift=drift)

    def coarser(self) -> "Traces":
        """Return the traces at a whole multiple of dt up to 0.25 ms: means of the current, ends of the rest."""
        factor = int(COARSE / self.dt + 1e-9)
        if factor < 2:
            return self
        steps = self.spikes.shape[1] // factor * factor
        current, spikes = (x[:, :steps].reshape(len(x), -1, factor) for x in (self.current, self.spikes))
        rows = {"current": current.mean(axis=2), "spikes": spikes.any(axis=2)}
        return self._replace(
            **rows, voltage=self.voltage[:, factor - 1 : steps : factor], dt=factor * self.dt, length=0
        )

    @property
    def terms(self) -> Drift:
        """The terms of the sweeps: none where they do not differ."""
        return Drift.none(len(self.current)) if self.drift is None else self.drift


def recorded_traces(task: Task) -> "Traces":
    """Return what a recipe works on: the window's current, voltage and spikes.

    Args:
        task: the recording and its window.

    Raises:
        ValueError: where no spike falls into the window.
    """
    window = task.samples(task.window)
    part, spikes = task.recording.window(*task.window), task.spikes[:, window]
    if not spikes.any():
        raise ValueError(f"train = {task.window[0]:g} to {task.window[1]:g} ms: no spike falls into this window")
    rest = None if task.rest is None else float(task.rest.mean())
    drift = None if rest is None else Drift.of_rest(task.rest, rest, len(spikes))
    taus = (*TAUS, SLOW) if len(repeats(part)) > 1 else TAUS
    return Traces(part.current, part.measured_voltage(), spikes, part.dt, drift, rest, taus)


def arranged(traces: Traces, t_ref: float, judged: np.ndarray | None = None) -> list[ForcedSweeps]:
    """Arrange the sweeps in parts of one size, for which the loss compiles once; the last is filled up, unjudged.

    Args:
        traces: the sweeps.
        t_ref: time for which the voltage is held after a spike, ms.
        judged: [T], booleans: where spikes and voltage count; everywhere by default.
    """
    count, steps = traces.spikes.shape
    length = padded_length(max(steps, traces.length))
    size = max(1, min(count, PART // length))
    judged = np.ones(steps, bool) if judged is None else judged
    refractory, before = round(t_ref / traces.dt), round(UPSTROKE / traces.dt)
    terms = traces.terms
    current = terms.current(traces.current)

    # Room for the spikes of any part, and for some more in a longer one.
    room = size * -(-int(traces.spikes.sum(axis=1).max()) // ROOM) * ROOM

    def part(chosen):
        chosen = np.arange(chosen, chosen + size)
        counted, offset = judged[None] & (chosen < count)[:, None], terms.offset[chosen % count]
        arrays = *(x[chosen % count] for x in (current, traces.voltage, traces.spikes)), counted
        *rows, counted = (np.pad(x, ((0, 0), (0, length - steps))) for x in arrays)
        settings = {"refractory": refractory, "before": before, "room": room}
        return forced_sweeps(*rows, **settings, judged=counted, offset=offset)

    return [part(first) for first in range(0, count, size)]


def refractory_period(traces: Traces) -> float:
    """Return the time for which the voltage is held after a spike, ms: 4, or less than the shortest interval."""
    intervals = np.concatenate([np.diff(np.flatnonzero(train)) for train in traces.spikes])
    longest = intervals.min() - 1 if len(intervals) else np.inf
    return max(1, int(min(round(HELD / traces.dt), longest))) * traces.dt


def regress(traces: Traces, *, t_ref: float) -> AdaptiveLIFParams:
    r"""Regress dV/dt on voltage, current and spike-triggered currents, away from spikes: a start.

    :math:`\frac{V_{n+1} - V_n}{dt} = \frac{v_{rest} - V_n}{\tau_m} + \frac{r_m}{\tau_m}(I_{n+1} - \sum_k \eta_k h_k)`
    with :math:`h_k` the exponentials of the spikes; a measured :math:`v_{rest}` is taken as it is. The threshold starts
    at the mean voltage 1 ms before a spike.

    Args:
        traces: the data.
        t_ref: refractory period, ms.

    Raises:
        ValueError: where the data do not look like a leaky membrane.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    refractory = round(t_ref / traces.dt)
    tau_m, r_m, v_rest, jumps = _regression(traces, refractory)
    return AdaptiveLIFParams(
        tau_m=tau_m,
        r_m=r_m,
        v_rest=v_rest,
        v_th=mean_voltage(traces, -max(1, round(1.0 / traces.dt))),
        v_reset=mean_voltage(traces, refractory),
        t_ref=refractory * traces.dt,
        eta=tuple(float(x) for x in jumps),
        tau_eta=traces.taus,
        gamma=(3.0, 2.0),
        tau_gamma=(15.0, 100.0),
        delta_v=2.0,
    )


def _regression(traces, refractory):
    dt, tied = traces.dt, traces.rest is not None
    voltage = traces.voltage - traces.terms.offset[:, None] - (traces.rest if tied else 0.0)
    away = spike_mask(traces.spikes.T, before=round(UPSTROKE / dt), after=refractory + 1).T
    usable = away[:, 1:] & away[:, :-1]
    shapes = [_exponentials(traces.spikes, np.exp(-dt / tau))[:, 1:][usable] for tau in traces.taus]
    current, constant = traces.terms.current(traces.current)[:, 1:][usable], [np.ones(usable.sum())] * (not tied)
    x = np.stack([voltage[:, :-1][usable], current, *shapes, *constant], axis=1)
    y = np.diff(voltage, axis=1)[usable] / dt
    slope, gain, *others = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if not slope < 0 < gain:
        raise ValueError(
            f"voltage does not relax and follow the current away from spikes (dV/dt has the slope {slope:.3g} per ms in"
            f" the voltage and {gain:.3g} mV/ms per pA in the current): current and voltage may not belong together"
        )
    jumps, rest = others[: len(traces.taus)], traces.rest if tied else -others[-1] / slope
    return *(float(x) for x in (-1.0 / slope, -gain / slope, rest)), -np.array(jumps) / gain


def _exponentials(spikes, decay):
    """Return exponentials that start the step after each spike, [S, T]."""
    y = np.zeros(spikes.shape)
    for row, train in zip(y, spikes, strict=True):
        left, starts = 0.0, np.flatnonzero(train) + 1
        for first, stop in zip(starts, np.append(starts, len(row))[1:], strict=True):
            row[first:stop] = (left + 1.0) * decay ** np.arange(stop - first)
            left = (left + 1.0) * decay ** (stop - first)
    return y


def mean_voltage(traces, offset):
    """Return the mean voltage ``offset`` steps after the spikes, mV."""
    sweeps, steps = np.nonzero(traces.spikes)
    inside = (steps + offset >= 0) & (steps + offset < traces.spikes.shape[1])
    return float(traces.voltage[sweeps[inside], steps[inside] + offset].mean())
