"""The recipe for adaptive neurons: a regression, then everything by gradient on the joint likelihood.

Several starts compete on a few sweeps with the end of the window held out, which also decides whether the threshold
follows the voltage; the winner is refined on all sweeps and the whole window.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.forced_adaptive import ForcedSweeps, forced_sweeps
from jaxlif.fitting.joint_loss import JointLoss, active_indices, evaluate, joint_loss, refine
from jaxlif.fitting.prediction import noisy_rasters
from jaxlif.fitting.scores import UNRELIABLE, spike_scores
from jaxlif.fitting.task import Outcome, Task
from jaxlif.fitting.threshold import Stimulus, choose_twin
from jaxlif.fitting.uncertainty import Uncertainty, uncertainty
from jaxlif.losses import bits_per_spike, spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.recordings import Recording, repeats
from jaxlif.spiketrains import reliability, spike_times

UPSTROKE = 5.0  # ms before a spike that are not compared
HELD = 4.0  # ms after a spike during which the voltage is its shape, unless the cell fires sooner
BEND = 10.0  # mV below the voltage at spikes where the coupling's bend starts
COUPLING_STARTS = (8.0, 25.0)  # ms: the likelihood has a basin at each of these time constants
LEAST_GAIN = 0.02  # bits per spike on held-out time that a voltage-coupled threshold must bring
FEW = 3  # sweeps on which the starts compete
PART = 150_000  # steps of all sweeps of a part: the temporaries of a gradient stay below what is mapped anew each time
TRIALS = 5  # responses to each of these sweeps that are looked at when a stage is checked
SLIP = 0.02  # of Md*: what chance does to it in so few
FITTED = 0.8  # share of the window that they fit; the rest judges


class Traces(NamedTuple):
    """Current [S, T] pA, voltage [S, T] mV without the electrode, spikes [S, T], and dt in ms."""

    current: np.ndarray
    voltage: np.ndarray
    spikes: np.ndarray
    dt: float

    def few(self) -> "Traces":
        """Return some of the sweeps, spread over all."""
        count = len(self.current)
        chosen = np.unique(np.linspace(0, count - 1, min(FEW, count)).round().astype(int))
        return self._replace(current=self.current[chosen], voltage=self.voltage[chosen], spikes=self.spikes[chosen])


class AdaptiveFit(NamedTuple):
    """Parameters as Python floats, what is known about them, and notes."""

    params: AdaptiveLIFParams
    known: Uncertainty | None
    notes: tuple[str, ...]


def fit_gif(
    task: Task, *, coupling: bool | None = None, deterministic: bool = False, intervals: bool = True
) -> Outcome:
    """Fit an adaptive neuron with escape noise, or its deterministic twin, to a recording's voltage and spikes.

    Args:
        task: the recording, without the electrode's drop, and what was asked for.
        coupling: whether the threshold follows the voltage; None lets held-out time decide.
        deterministic: choose a threshold for the neuron without noise, in closed loop.
        intervals: estimate them; for a fit that is only scored and then refitted they would be lost.

    Raises:
        ValueError: where no spike falls into the window, or the data do not look like a leaky membrane.
    """
    traces = recorded_traces(task)
    params, known, notes = fit_adaptive(traces, coupling=coupling, intervals=intervals, progress=task.progress)
    return _outcome(task, traces, params, known, notes, deterministic)


def _outcome(task, traces, noisy, known, notes, deterministic):
    """Choose the twin where one is wanted, and say how to go on with more of the data."""
    more = partial(_more, noisy, notes, deterministic)
    params, notes = noisy, notes + (known.notes if known else ())
    if deterministic:
        stimuli, unreliable = reliable_stimuli(task)
        notes += unreliable
        if stimuli:
            params = choose_twin(params, stimuli, dt=traces.dt)
    cut = task.steps(UPSTROKE), task.steps(float(params.t_ref)) + 1
    # What closed loop has changed is no longer what the interval was for.
    fitted, chosen = named_leaves(noisy), named_leaves(params)
    pairs = known.intervals if known else {}
    intervals = {name: pair for name, pair in pairs.items() if chosen[name] == fitted[name]}
    return Outcome(params, notes, spike_cut=cut, intervals=intervals, refit=more, uncertainty=known)


def _more(start, notes, deterministic, task):
    """Refine parameters on a wider window; keep the start where its spikes were better."""
    traces = recorded_traces(task)
    start = replace(start, t_ref=min(start.t_ref, refractory_period(traces)))
    with jax.enable_x64(False):
        params, known = _polish(traces, start, task.progress, rounds=(15,))
        before, after = (hard_score(p, traces) for p in (start, params))
    if before is not None and after is not None and after < before - SLIP:
        what = f"refined on all data the neuron's own spikes got worse ({before:.3f} to {after:.3f})"
        params, notes = start, (*notes, f"{what}: the parameters before that were kept")
    return _outcome(task, traces, params, known, notes, deterministic)


def hard_score(params: AdaptiveLIFParams, traces: Traces) -> float | None:
    """Score free-running spikes of a neuron with escape noise on some of the sweeps.

    Args:
        params: the neuron.
        traces: what it was fitted to.

    Returns:
        Md*, or the coincidence factor where no stimulus was repeated; None where neither is defined.
    """
    few = traces.few()
    recording = Recording(current=few.current, dt=few.dt)
    scores = spike_scores(recording, few.spikes, noisy_rasters(params, recording, repeats=TRIALS, seed=0))
    return scores["coincidence_factor"] if scores["md_star"] is None else scores["md_star"]


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
    return Traces(part.current, part.measured_voltage(), spikes, part.dt)


def fit_adaptive(
    traces: Traces, *, coupling: bool | None = None, intervals: bool = True, progress: bool = False
) -> AdaptiveFit:
    """Fit an adaptive neuron with escape noise to voltage and spikes.

    Args:
        traces: what to fit.
        coupling: whether the threshold follows the voltage; None lets held-out time decide.
        intervals: estimate what is known about the parameters.
        progress: show progress bars.

    Returns:
        The :class:`AdaptiveFit`.
    """
    # Single precision takes half the time and ends at the same fit: a posteriori the gradient's error is under 1 %.
    with jax.enable_x64(False):
        return _fit(traces, coupling, intervals, progress)


def _fit(traces: Traces, coupling: bool | None, intervals: bool, progress: bool) -> AdaptiveFit:
    start = regress(traces, t_ref=refractory_period(traces))
    if coupling is False:  # nothing competes
        return AdaptiveFit(*_polish(traces, start, progress, rounds=(15, 20), intervals=intervals), ())
    few = traces.few()
    plain = [_compete(few, start, None, progress)] if coupling is None else []
    coupled = _race(few, start, progress)
    best = min(coupled, key=lambda c: c.loss)
    notes: tuple[str, ...] = ()
    if plain:
        gain = best.held_out - plain[0].held_out
        wanted = gain >= LEAST_GAIN
        best = best if wanted else plain[0]
        verdict = "taken" if wanted else "left away"
        notes = (f"a threshold that follows the voltage changes held-out spikes by {gain:+.2g} bits each: {verdict}",)
    params, known = _polish(traces, best.params, progress, intervals=intervals)
    return AdaptiveFit(params, known, notes)


def _race(traces: Traces, start: AdaptiveLIFParams, progress: bool) -> list["Candidate"]:
    """Let the starts with a coupling compete side by side: a loop over time fills one core."""

    def compete(tau):
        with jax.enable_x64(False):  # a setting of the thread
            return _compete(traces, start, tau, progress)

    with ThreadPoolExecutor(len(COUPLING_STARTS)) as pool:
        return list(pool.map(compete, COUPLING_STARTS))


class Candidate(NamedTuple):
    """A start after its competition: parameters, loss on the fitted part, bits per spike on the rest."""

    params: AdaptiveLIFParams
    loss: float
    held_out: float


def _compete(traces: Traces, start: AdaptiveLIFParams, tau: float | None, progress: bool) -> Candidate:
    """Refine one start on the first part of the window and judge it on the rest; no tau means no coupling."""
    fitted = split(traces)
    params = replace(
        start, coupling=VoltageCoupling(b=0.0 if tau is None else 0.2, tau=tau or 8.0, v_i=start.v_th - BEND)
    )
    free = _PLAIN if tau is None else (*_PLAIN, "coupling.*")
    loss, samples = joint_loss(params, arranged(traces, float(start.t_ref), fitted), traces.dt)
    params, value = refine(loss, params, samples, free, rounds=(15, 20), progress=progress)
    return Candidate(params, value, held_out_bits(loss, params, traces, ~fitted))


def split(traces: Traces) -> np.ndarray:
    """Mark the part of the time [T] that competing starts are fitted to; the rest judges them."""
    steps = traces.spikes.shape[1]
    return np.arange(steps) < FITTED * steps


_PLAIN = ("tau_m", "r_m", "v_rest", "v_reset", "eta.*", "tau_eta.*", "v_th", "delta_v", "gamma.*", "tau_gamma.*")


def _polish(
    traces: Traces,
    params: AdaptiveLIFParams,
    progress: bool,
    *,
    rounds: tuple[int, ...] = (10, 20),
    intervals: bool = True,
) -> tuple[AdaptiveLIFParams, Uncertainty | None]:
    """Refine on everything; a coupling of strength 0 is left away."""
    coupled = params.coupling is not None and params.coupling.b != 0.0
    free = (*_PLAIN, "coupling.*") if coupled else _PLAIN
    loss, samples = joint_loss(params, arranged(traces, float(params.t_ref)), traces.dt)
    params, _ = refine(loss, params, samples, free, rounds=rounds, progress=progress)
    known = None
    if intervals:
        level = _mean_voltage(traces, -max(1, round(1.0 / traces.dt)))
        params, known = uncertainty(loss, params, samples, active_indices(loss, free), traces.current, level)
    return params if coupled else replace(params, coupling=None), known


def arranged(traces: Traces, t_ref: float, judged: np.ndarray | None = None) -> list[ForcedSweeps]:
    """Arrange the sweeps in parts of one size, for which the loss compiles once; the last is filled up, unjudged.

    Args:
        traces: the sweeps.
        t_ref: time for which the voltage is held after a spike, ms.
        judged: [T], booleans: where spikes and voltage count; everywhere by default.
    """
    count, steps = traces.spikes.shape
    size = max(1, min(count, PART // steps))
    judged = np.ones(steps, bool) if judged is None else judged
    refractory, before = round(t_ref / traces.dt), round(UPSTROKE / traces.dt)

    # Room for the spikes of any part.
    room = size * int(traces.spikes.sum(axis=1).max())

    def part(chosen):
        chosen = np.arange(chosen, chosen + size)
        rows = (x[chosen % count] for x in (traces.current, traces.voltage, traces.spikes))
        counted = judged[None] & (chosen < count)[:, None]
        return forced_sweeps(*rows, refractory=refractory, before=before, judged=counted, room=room)

    return [part(first) for first in range(0, count, size)]


def held_out_bits(loss: JointLoss, params: AdaptiveLIFParams, traces: Traces, judged: np.ndarray) -> float:
    """Return the log-likelihood of the spikes where ``judged`` [T] is true, in bits per spike above a Poisson train.

    Args:
        loss: a loss of these parameters.
        params: the neuron.
        traces: voltage and spikes.
        judged: [T], booleans.
    """
    count = int(traces.spikes[:, judged].sum())
    if not count:
        return 0.0
    _, samples = joint_loss(params, arranged(traces, float(params.t_ref), judged), traces.dt)
    _, _, score = evaluate(loss, loss.vector(params), samples)
    density = float(score.log_likelihood) - count * np.log(traces.dt)
    return float(bits_per_spike(density, count, float(judged.sum()) * traces.dt * len(traces.spikes)))


def refractory_period(traces: Traces) -> float:
    """Return the time for which the voltage is held after a spike, ms: 4, or less than the shortest interval."""
    intervals = np.concatenate([np.diff(np.flatnonzero(train)) for train in traces.spikes])
    longest = intervals.min() - 1 if len(intervals) else np.inf
    return max(1, int(min(round(HELD / traces.dt), longest))) * traces.dt


def regress(traces: Traces, *, t_ref: float, taus: tuple[float, ...] = (4.0, 60.0)) -> AdaptiveLIFParams:
    r"""Regress dV/dt on voltage, current and spike-triggered currents, away from spikes: a start.

    :math:`\frac{V_{n+1} - V_n}{dt} = \frac{v_{rest} - V_n}{\tau_m} + \frac{r_m}{\tau_m}(I_{n+1} - \sum_k \eta_k h_k)`
    with :math:`h_k` the exponentials of the spikes. The threshold starts at the mean voltage 1 ms before a spike.

    Args:
        traces: the data.
        t_ref: refractory period, ms.
        taus: time constants of the spike-triggered currents, ms.

    Raises:
        ValueError: where the data do not look like a leaky membrane.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    refractory = round(t_ref / traces.dt)
    tau_m, r_m, v_rest, jumps = _regression(traces, refractory, taus)
    return AdaptiveLIFParams(
        tau_m=tau_m,
        r_m=r_m,
        v_rest=v_rest,
        v_th=_mean_voltage(traces, -max(1, round(1.0 / traces.dt))),
        v_reset=_mean_voltage(traces, refractory),
        t_ref=refractory * traces.dt,
        eta=tuple(float(x) for x in jumps),
        tau_eta=taus,
        gamma=(3.0, 2.0),
        tau_gamma=(15.0, 100.0),
        delta_v=2.0,
    )


def _regression(traces, refractory, taus):
    voltage, dt = traces.voltage, traces.dt
    away = spike_mask(traces.spikes.T, before=round(UPSTROKE / dt), after=refractory + 1).T
    usable = away[:, 1:] & away[:, :-1]
    shapes = [_exponentials(traces.spikes, np.exp(-dt / tau))[:, 1:][usable] for tau in taus]
    x = np.stack([voltage[:, :-1][usable], traces.current[:, 1:][usable], np.ones(usable.sum()), *shapes], axis=1)
    y = np.diff(voltage, axis=1)[usable] / dt
    slope, gain, constant, *jumps = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if not slope < 0 < gain:
        raise ValueError(
            f"voltage does not relax and follow the current away from spikes (dV/dt has the slope {slope:.3g} per ms in"
            f" the voltage and {gain:.3g} mV/ms per pA in the current): current and voltage may not belong together"
        )
    return *(float(x) for x in (-1.0 / slope, -gain / slope, -constant / slope)), -np.array(jumps) / gain


def _exponentials(spikes, decay):
    """Return exponentials that start the step after each spike, [S, T]."""
    y, row = np.zeros(spikes.shape), np.zeros(len(spikes))
    for n in range(1, spikes.shape[1]):
        row = decay * row + spikes[:, n - 1]
        y[:, n] = row
    return y


def _mean_voltage(traces, offset):
    """Return the mean voltage ``offset`` steps after the spikes, mV."""
    sweeps, steps = np.nonzero(traces.spikes)
    inside = (steps + offset >= 0) & (steps + offset < traces.spikes.shape[1])
    return float(traces.voltage[sweeps[inside], steps[inside] + offset].mean())


def reliable_stimuli(task: Task) -> tuple[list[Stimulus], tuple[str, ...]]:
    """Return the stimuli of the window whose spikes the cell repeats, and a note on those that were left out.

    Args:
        task: the recording and its window.
    """
    window, spikes = task.recording.window(*task.window), task.spikes[:, task.samples(task.window)]
    stimuli, dropped = [], []
    for group in repeats(window):
        trains = [np.asarray(spike_times(spikes[s], window.dt)) for s in group]
        own = reliability(trains, duration=window.duration) if len(group) > 1 else 1.0
        if own < UNRELIABLE:
            dropped.append(f"{own:.2f}")
        else:
            stimuli.append(Stimulus(window.current[group[0]], trains))
    if not dropped:
        return stimuli, ()
    what = f"{len(dropped)} of {len(dropped) + len(stimuli)} stimuli, with reliability {', '.join(dropped)}"
    return stimuli, (f"{what}, were left out when the threshold was chosen: their spike times say little",)
