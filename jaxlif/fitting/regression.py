"""Where a fit of the gif starts: a regression of the voltage's slope, and what is free after it."""

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.lanes import UPSTROKE, decayed
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams

BASIS = (3.0, 7.0, 16.0, 40.0, 90.0, 210.0, 500.0)  # ms: of kernels after a spike; fewer miss what is between
HELD = 4.0  # ms after a spike during which the voltage is its shape, unless the cell fires sooner


def refractory_period(data: Data) -> float:
    """Return the time for which the voltage is held after a spike, ms: 4, or less than the shortest interval."""
    intervals = np.concatenate([np.diff(np.flatnonzero(train)) for train in data.spikes])
    longest = intervals.min() - 1 if len(intervals) else np.inf
    return max(1, int(min(data.steps(HELD), longest))) * data.dt


def regress(data: Data) -> AdaptiveLIFParams:
    r"""Regress dV/dt on voltage, current and the kernels of the spikes, away from spikes: a membrane to start from.

    :math:`\frac{V_{n+1} - V_n}{dt} = \frac{v_{rest} - V_n}{\tau_m} + \frac{r_m}{\tau_m}(I_{n+1} - \sum_k \eta_k h_k)`
    with :math:`h_k` the exponentials of the spikes; a measured :math:`v_{rest}` is taken as it is. The threshold starts
    at the mean voltage 1 ms before a spike.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    dt, rest, held = data.dt, data.v_rest, data.steps(refractory_period(data))
    voltage = data.voltage - data.terms.offset[:, None] - (rest or 0.0)
    away = spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=held + 1).T & data.judged
    usable = away[:, 1:] & away[:, :-1]
    shapes = [decayed(data.spikes, tau / dt)[:, 1:][usable] for tau in BASIS]
    current, constant = data.terms.current(data.current)[:, 1:][usable], [np.ones(usable.sum())] * (rest is None)
    x = np.stack([voltage[:, :-1][usable], current, *shapes, *constant], axis=1)
    y = np.diff(voltage, axis=1)[usable] / dt
    slope, gain, *others = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if not slope < 0 < gain:
        raise ValueError(
            f"voltage does not relax and follow the current away from spikes (dV/dt has the slope {slope:.3g} per ms in"
            f" the voltage and {gain:.3g} mV/ms per pA in the current): current and voltage may not belong together"
        )
    return AdaptiveLIFParams(
        tau_m=float(-1.0 / slope),
        r_m=float(-gain / slope),
        v_rest=float(-others[-1] / slope) if rest is None else rest,
        v_th=_mean_voltage(data, -max(1, data.steps(1.0))),
        v_reset=_mean_voltage(data, held),
        t_ref=held * dt,
        eta=(0.0,) * len(BASIS),
        tau_eta=BASIS,
        gamma=(0.0,) * len(BASIS),
        tau_gamma=BASIS,
        delta_v=2.0,
    )


def _mean_voltage(data: Data, offset: int) -> float:
    """Return the mean voltage ``offset`` steps after the spikes, mV."""
    sweeps, steps = np.nonzero(data.spikes)
    inside = (steps + offset >= 0) & (steps + offset < data.num_steps)
    return float(data.voltage[sweeps[inside], steps[inside] + offset].mean())


def moving(data: Data) -> tuple[str, ...]:
    """Return what is free: a resting potential that was measured is not."""
    return ("*",) if data.v_rest is None else ("[!v]*", "v_[!r]*", "v_reset")
