"""The recipe for the gif: a regression, then everything by gradient on the joint likelihood.

Several starts compete on a few sweeps with the end of the window held out, which also decides whether the threshold
follows the voltage; the winner is refined on all sweeps and the whole window, with terms of the sweeps in turn.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import Data, Drift, Options, Outcome, Uncertainty, with_spikes
from jaxlif.fitting.intervals import uncertainty
from jaxlif.fitting.joint_likelihood import UPSTROKE, arranged, joint_loss, single_precision, spike_bits
from jaxlif.fitting.optimise import believable, estimate_drift, refine
from jaxlif.fitting.prediction import noisy_response
from jaxlif.fitting.scores import spike_scores
from jaxlif.fitting.threshold import choose_twin, reliable_stimuli
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.recordings import repeats

MEMBRANE = ("tau_m", "r_m", "v_rest", "v_reset", "v_th", "delta_v")
PLAIN: tuple[str, ...] = (*MEMBRANE, "eta.*", "tau_eta.*", "gamma.*", "tau_gamma.*")
COUPLED: tuple[str, ...] = (*PLAIN, "coupling.*")
HELD = 4.0  # ms after a spike during which the voltage is its shape, unless the cell fires sooner
TAUS = (4.0, 60.0)  # ms: where the time constants of the spike-triggered currents start
SLOW = 600.0  # ms: of one more where there are several stimuli; within one it cannot be told from a constant current
BEND = 10.0  # mV below the voltage at spikes where the coupling's bend starts
COUPLING_STARTS = (8.0, 25.0)  # ms: the likelihood has a basin at each of these time constants
LEAST_GAIN = 0.02  # bits per spike on held-out time that a voltage-coupled threshold must bring
DRIFT_ROUNDS = 2  # of the sweeps' own terms and the common parameters in turn
TRIALS = 5  # responses to each of these sweeps that are looked at when a stage is checked
SLIP = 0.02  # of Md*: what chance does to it in so few
FITTED = 0.8  # share of the window that the starts fit; the rest judges
LEAST_JUDGED = 10  # spikes there: fewer decide nothing


class GIFFit(NamedTuple):
    """Parameters as Python floats, what is known about them, the likelihood of the spikes in bits each, and notes."""

    params: AdaptiveLIFParams
    known: Uncertainty | None
    bits_per_spike: float | None
    notes: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """A start after its competition: parameters, loss on the fitted part, bits per spike on the rest."""

    params: AdaptiveLIFParams
    loss: float
    held_out: float


def fit_gif(data: Data, options: Options, *, deterministic: bool = False, intervals: bool = True) -> Outcome:
    """Fit the gif, or its deterministic twin with a threshold chosen in closed loop, to voltage and spikes.

    Without ``intervals`` a fit to the whole recording follows, in which they would be lost.
    """
    # The fit that follows then needs no other program.
    part = replace(with_spikes(data, options.window), length=0 if intervals else data.num_steps)
    with single_precision():
        fitted = fit_stages(part, options, intervals=intervals and not options.drift)
        for left in reversed(range(DRIFT_ROUNDS * options.drift)):
            params, notes, terms = fitted.params, fitted.notes, part.terms
            more = estimate_drift(params, arranged(part, float(params.t_ref)), part.dt)
            part = replace(part, drift=Drift(terms.offset + more.offset, terms.gain * more.gain))
            fitted = _polish(part, params, options, notes, intervals=intervals and not left)
    return _outcome(part, fitted, deterministic)


def fit_stages(data: Data, options: Options, *, intervals: bool = True) -> GIFFit:
    """Start from a regression, let starts compete where the coupling is to be chosen, and refine the best of them."""
    start, few = regress(data), data.few().coarser()
    if options.coupling is False:  # nothing competes
        return _polish(data, start, options, intervals=intervals)
    if options.coupling is None and (judged := judged_spikes(few)) < LEAST_JUDGED:
        note = f"{judged} spikes in held-out time, of {LEAST_JUDGED} needed, do not say whether the threshold follows"
        return _polish(data, start, options, (f"{note} the voltage: left away",), intervals=intervals)
    plain, best = race(few, start, options.progress, plain=options.coupling is None)
    best, notes = (best, ()) if plain is None else verdict(plain, best)
    params = replace(best.params, t_ref=start.t_ref)
    if params.coupling is not None and params.coupling.b == 0.0:
        params = replace(params, coupling=None)
    fitted = _polish(data, params, options, notes, intervals=intervals)
    return _checked(data, params, fitted, "refined on all sweeps")


def refractory_period(data: Data) -> float:
    """Return the time for which the voltage is held after a spike, ms: 4, or less than the shortest interval."""
    intervals = np.concatenate([np.diff(np.flatnonzero(train)) for train in data.spikes])
    longest = intervals.min() - 1 if len(intervals) else np.inf
    return max(1, int(min(data.steps(HELD), longest))) * data.dt


def regress(data: Data) -> AdaptiveLIFParams:
    r"""Regress dV/dt on voltage, current and spike-triggered currents, away from spikes: a start.

    :math:`\frac{V_{n+1} - V_n}{dt} = \frac{v_{rest} - V_n}{\tau_m} + \frac{r_m}{\tau_m}(I_{n+1} - \sum_k \eta_k h_k)`
    with :math:`h_k` the exponentials of the spikes; a measured :math:`v_{rest}` is taken as it is. The threshold starts
    at the mean voltage 1 ms before a spike.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    from scipy.signal import lfilter

    dt, rest, held = data.dt, data.v_rest, data.steps(refractory_period(data))
    taus = (*TAUS, SLOW) if len(repeats(data)) > 1 else TAUS
    voltage = data.voltage - data.terms.offset[:, None] - (rest or 0.0)
    away = spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=held + 1).T
    usable = away[:, 1:] & away[:, :-1]
    shapes = [lfilter([1.0], [1.0, -np.exp(-dt / tau)], data.spikes[:, :-1], axis=1)[usable] for tau in taus]
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
        eta=tuple(float(-jump / gain) for jump in others[: len(taus)]),
        tau_eta=taus,
        gamma=(3.0, 2.0),
        tau_gamma=(15.0, 100.0),
        delta_v=2.0,
    )


def _mean_voltage(data: Data, offset: int) -> float:
    """Return the mean voltage ``offset`` steps after the spikes, mV."""
    sweeps, steps = np.nonzero(data.spikes)
    inside = (steps + offset >= 0) & (steps + offset < data.num_steps)
    return float(data.voltage[sweeps[inside], steps[inside] + offset].mean())


def race(
    data: Data, start: AdaptiveLIFParams, progress: bool, *, plain: bool = True
) -> tuple[Candidate | None, Candidate]:
    """Let thresholds that follow the voltage compete with one that does not: return this, and the best of those."""
    start, v_i = replace(start, t_ref=refractory_period(data)), start.v_th - BEND
    starts = [(replace(start, coupling=VoltageCoupling(b=0.2, tau=tau, v_i=v_i)), COUPLED) for tau in COUPLING_STARTS]
    starts += [(replace(start, coupling=VoltageCoupling(b=0.0, v_i=v_i)), PLAIN)] * plain
    found = compete(data, starts, progress)
    first = len(COUPLING_STARTS)
    return found[first] if plain else None, min(found[:first], key=lambda candidate: candidate.loss)


def compete(data: Data, starts: Sequence[tuple[AdaptiveLIFParams, tuple[str, ...]]], progress: bool) -> list[Candidate]:
    """Refine starts of one t_ref, each with what is free, on the part of the time to fit; judge them on the rest."""
    fitted, (t_ref,) = split(data), {float(params.t_ref) for params, _ in starts}
    parts = arranged(data.judging(fitted), t_ref)
    entries = []
    for params, free in starts:  # one after the other: the first compiles what all others use
        loss, samples = joint_loss(params, parts, data.dt)
        entries.append((loss, believable(loss, params, samples), samples, _moving(data, free)))

    def _refined(entry: tuple[Any, ...]) -> Candidate:
        with single_precision():  # a setting of the thread
            params, value = refine(*entry, progress=progress)
            bits = spike_bits(params, data.judging(~fitted))
            return Candidate(params, value, np.nan if bits is None else bits)

    with ThreadPoolExecutor(len(entries)) as pool:  # a loop over time fills one core
        return list(pool.map(_refined, entries))


def _moving(data: Data, free: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is free: a resting potential that was measured is not."""
    return tuple(name for name in free if name != "v_rest" or data.v_rest is None)


def split(data: Data) -> np.ndarray:
    """Mark the part of the time [T] that competing starts are fitted to; the rest judges them.

    Where hardly a spike falls into the last fifth of the time, the rest is that of the last fifth of the spikes.
    """
    steps, (_, at) = data.num_steps, np.nonzero(data.spikes)
    cut = FITTED * steps
    if (at >= cut).sum() < LEAST_JUDGED:
        cut = np.quantile(at, FITTED)
    return np.arange(steps) < cut


def judged_spikes(data: Data) -> int:
    """Return how many spikes judge, or 0 where none are left to fit."""
    fitted = split(data)
    return int(data.spikes[:, ~fitted].sum()) if data.spikes[:, fitted].any() else 0


def verdict(plain: Candidate, coupled: Candidate) -> tuple[Candidate, tuple[str, ...]]:
    """Return the better of two on held-out time, and say why."""
    gain, lowest = coupled.held_out - plain.held_out, min(coupled.held_out, plain.held_out)
    wanted = gain >= LEAST_GAIN
    verdict, other = ("taken", "without") if wanted else ("left away", "with")
    said = f"changes held-out spikes by {gain:+.2g} bits each"
    if lowest < -1.0:
        said = f"is judged by a fit {other} it that went astray ({lowest:.2g} bits per held-out spike)"
    return coupled if wanted else plain, (f"a threshold that follows the voltage {said}: {verdict}",)


def _polish(
    data: Data,
    params: AdaptiveLIFParams,
    options: Options,
    notes: tuple[str, ...] = (),
    *,
    intervals: bool = True,
) -> GIFFit:
    """Refine on everything."""
    loss, samples = joint_loss(params, arranged(data, float(params.t_ref)), data.dt)
    free = _moving(data, PLAIN if params.coupling is None else COUPLED)
    params, _ = refine(loss, believable(loss, params, samples), samples, free, progress=options.progress)
    known: Uncertainty | None = None
    if intervals:
        params, known = uncertainty(loss, params, samples, loss.active(free), data.current)
        lost = "no interval: the information of the data at these parameters is not finite"
        notes += () if known else (lost,)
    return GIFFit(params, known, spike_bits(params, data), notes)


def _checked(data: Data, start: AdaptiveLIFParams, fitted: GIFFit, stage: str) -> GIFFit:
    """Keep the start of a stage, and say so, where it has made the neuron's own spikes worse."""
    before, after = (_own_spikes(params, data.few()) for params in (start, fitted.params))
    if before is None or after is None or after >= before - SLIP:
        return fitted
    what = f"{stage} the neuron's own spikes got worse ({before:.3f} to {after:.3f})"
    notes = *fitted.notes, f"{what}: the parameters before that were kept"
    return fitted._replace(params=start, known=None, notes=notes)


def _own_spikes(params: AdaptiveLIFParams, few: Data) -> float | None:
    """Score free-running spikes by Md*, or by the coincidence factor where no stimulus was repeated."""
    rasters = noisy_response(params, few.terms.driven(params, few), repeats=TRIALS, seed=0).spikes
    scores: dict[str, float | None] = spike_scores(few, few.spikes, rasters)
    return scores["coincidence_factor"] if scores["md_star"] is None else scores["md_star"]


def _outcome(data: Data, fitted: GIFFit, deterministic: bool) -> Outcome:
    """Choose the twin where one is wanted, and say how to go on with more of the data."""
    params, known, bits, notes = fitted
    notes += known.notes if known else ()
    if deterministic:
        stimuli = reliable_stimuli(data)
        notes += stimuli.notes
        params = choose_twin(params, stimuli._replace(repeats=[_received(s, params) for s in stimuli.repeats]))
    # What closed loop has changed is no longer what the interval was for.
    before, chosen = named_leaves(fitted.params), named_leaves(params)
    pairs = known.intervals if known else {}
    return Outcome(
        params,
        notes,
        spike_cut=(data.steps(UPSTROKE), data.steps(float(params.t_ref)) + 1),
        intervals={name: pair for name, pair in pairs.items() if chosen[name] == before[name]},
        refit=partial(_refit, fitted, data.drift, deterministic),
        uncertainty=known,
        drift=data.terms,
        bits_per_spike=bits,
    )


def _received(data: Data, params: AdaptiveLIFParams) -> Data:
    """Return the repeats of a stimulus under the mean current that reaches the cell, with the terms of the sweeps."""
    current = data.terms.driven(params, data).current.mean(axis=0)
    return replace(data, current=np.broadcast_to(current, data.current.shape))


def _refit(start: GIFFit, drift: Drift | None, deterministic: bool, data: Data, options: Options) -> Outcome:
    """Refine parameters on a wider window; keep the start where its spikes were better."""
    part = replace(with_spikes(data, options.window), drift=drift)
    params = replace(start.params, t_ref=min(start.params.t_ref, refractory_period(part)))
    with single_precision():
        fitted = _checked(part, params, _polish(part, params, options, start.notes), "refined on all data")
    return _outcome(part, fitted, deterministic)
