"""Sweeps arranged for the forced adaptive neuron, and a start by regression."""

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.joint_likelihood import ForcedSweeps, forced_sweeps
from jaxlif.fitting.segments import padded_length
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.recordings import repeats

UPSTROKE = 5.0  # ms before a spike that are not compared
HELD = 4.0  # ms after a spike during which the voltage is its shape, unless the cell fires sooner
ROOM = 256  # spikes of a sweep, and multiples of it
PART = 150_000  # steps of all sweeps of a part: the temporaries of a gradient stay below what is mapped anew each time
TAUS = (4.0, 60.0)  # ms: where the time constants of the spike-triggered currents start
SLOW = 600.0  # ms: of one more where there are several stimuli; within one it cannot be told from a constant current


def arranged(data: Data, t_ref: float) -> list[ForcedSweeps]:
    """Arrange the sweeps in parts of one size, for which the loss compiles once; the last is filled up, unjudged.

    Args:
        data: the sweeps; spikes and voltage count where they are judged.
        t_ref: time for which the voltage is held after a spike, ms.
    """
    count, steps = data.spikes.shape
    length = padded_length(max(steps, data.length))
    size = max(1, min(count, PART // length))
    refractory, before, terms = data.steps(t_ref), data.steps(UPSTROKE), data.terms
    current = terms.current(data.current)

    # Room for the spikes of any part, and for some more in a longer one.
    room = size * -(-int(data.spikes.sum(axis=1).max()) // ROOM) * ROOM

    def part(chosen):
        chosen = np.arange(chosen, chosen + size)
        held, counted, voltage, spikes = (x[chosen % count] for x in (current, data.judged, data.voltage, data.spikes))
        offset, arrays = terms.offset[chosen % count], (held, voltage, spikes, counted & (chosen < count)[:, None])
        *rows, counted = (np.pad(x, ((0, 0), (0, length - steps))) for x in arrays)
        settings = {"refractory": refractory, "before": before, "room": room}
        return forced_sweeps(*rows, **settings, judged=counted, offset=offset)

    return [part(first) for first in range(0, count, size)]


def refractory_period(data: Data) -> float:
    """Return the time for which the voltage is held after a spike, ms: 4, or less than the shortest interval."""
    intervals = np.concatenate([np.diff(np.flatnonzero(train)) for train in data.spikes])
    longest = intervals.min() - 1 if len(intervals) else np.inf
    return max(1, int(min(data.steps(HELD), longest))) * data.dt


def regress(data: Data, *, t_ref: float) -> AdaptiveLIFParams:
    r"""Regress dV/dt on voltage, current and spike-triggered currents, away from spikes: a start.

    :math:`\frac{V_{n+1} - V_n}{dt} = \frac{v_{rest} - V_n}{\tau_m} + \frac{r_m}{\tau_m}(I_{n+1} - \sum_k \eta_k h_k)`
    with :math:`h_k` the exponentials of the spikes; a measured :math:`v_{rest}` is taken as it is. The threshold starts
    at the mean voltage 1 ms before a spike.

    Args:
        data: the sweeps.
        t_ref: refractory period, ms.

    Raises:
        ValueError: where the data do not look like a leaky membrane.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    refractory = data.steps(t_ref)
    taus = (*TAUS, SLOW) if len(repeats(data)) > 1 else TAUS
    tau_m, r_m, v_rest, jumps = _regression(data, refractory, taus)
    return AdaptiveLIFParams(
        tau_m=tau_m,
        r_m=r_m,
        v_rest=v_rest,
        v_th=mean_voltage(data, -max(1, data.steps(1.0))),
        v_reset=mean_voltage(data, refractory),
        t_ref=refractory * data.dt,
        eta=tuple(float(x) for x in jumps),
        tau_eta=taus,
        gamma=(3.0, 2.0),
        tau_gamma=(15.0, 100.0),
        delta_v=2.0,
    )


def _regression(data, refractory, taus):
    dt, tied = data.dt, data.v_rest is not None
    voltage = data.voltage - data.terms.offset[:, None] - (data.v_rest if tied else 0.0)
    away = spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=refractory + 1).T
    usable = away[:, 1:] & away[:, :-1]
    shapes = [_exponentials(data.spikes, np.exp(-dt / tau))[:, 1:][usable] for tau in taus]
    current, constant = data.terms.current(data.current)[:, 1:][usable], [np.ones(usable.sum())] * (not tied)
    x = np.stack([voltage[:, :-1][usable], current, *shapes, *constant], axis=1)
    y = np.diff(voltage, axis=1)[usable] / dt
    slope, gain, *others = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if not slope < 0 < gain:
        raise ValueError(
            f"voltage does not relax and follow the current away from spikes (dV/dt has the slope {slope:.3g} per ms in"
            f" the voltage and {gain:.3g} mV/ms per pA in the current): current and voltage may not belong together"
        )
    jumps, rest = others[: len(taus)], data.v_rest if tied else -others[-1] / slope
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


def mean_voltage(data: Data, offset: int) -> float:
    """Return the mean voltage ``offset`` steps after the spikes, mV."""
    sweeps, steps = np.nonzero(data.spikes)
    inside = (steps + offset >= 0) & (steps + offset < data.num_steps)
    return float(data.voltage[sweeps[inside], steps[inside] + offset].mean())
