"""The recipe for adaptive neurons: a regression, then everything by gradient on the joint likelihood.

Several starts compete on a few sweeps with the end of the window held out, which also decides whether the threshold
follows the voltage; the winner is refined on all sweeps and the whole window.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import Data, Drift, Options, Outcome, with_spikes
from jaxlif.fitting.drift import estimate_drift
from jaxlif.fitting.intervals import Uncertainty, uncertainty
from jaxlif.fitting.joint_likelihood import JointLoss, evaluate, joint_loss
from jaxlif.fitting.optimise import believable, refine
from jaxlif.fitting.prediction import noisy_rasters
from jaxlif.fitting.scores import spike_scores
from jaxlif.fitting.threshold import choose_twin, reliable_stimuli
from jaxlif.fitting.traces import UPSTROKE, arranged, refractory_period, regress
from jaxlif.losses import bits_per_spike
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.recordings import Recording

BEND = 10.0  # mV below the voltage at spikes where the coupling's bend starts
COUPLING_STARTS = (8.0, 25.0)  # ms: the likelihood has a basin at each of these time constants
LEAST_GAIN = 0.02  # bits per spike on held-out time that a voltage-coupled threshold must bring
DRIFT_ROUNDS = 2  # of the sweeps' own terms and the common parameters in turn
TRIALS = 5  # responses to each of these sweeps that are looked at when a stage is checked
SLIP = 0.02  # of Md*: what chance does to it in so few
FITTED = 0.8  # share of the window that they fit; the rest judges
LEAST_JUDGED = 10  # spikes there: fewer decide nothing


class AdaptiveFit(NamedTuple):
    """Parameters as Python floats, what is known about them, the likelihood of the spikes in bits each, and notes."""

    params: AdaptiveLIFParams
    known: Uncertainty | None
    bits_per_spike: float
    notes: tuple[str, ...] = ()


def fit_gif(data: Data, options: Options, *, deterministic: bool = False, intervals: bool = True) -> Outcome:
    """Fit an adaptive neuron with escape noise, or its deterministic twin, to a recording's voltage and spikes.

    Args:
        data: the recording.
        options: what was asked for.
        deterministic: choose a threshold for the neuron without noise, in closed loop.
        intervals: estimate them; for a fit that is only scored and then refitted they would be lost.

    Raises:
        ValueError: where no spike falls into the window, or the data do not look like a leaky membrane.
    """
    # Where a fit to the whole recording follows, it needs no other program.
    part = replace(with_spikes(data, options.window), length=0 if intervals else data.num_steps)
    wanted = intervals and not options.drift
    fitted = fit_adaptive(part, coupling=options.coupling, intervals=wanted, progress=options.progress)
    if options.drift:
        part, fitted = _with_drift(part, fitted, intervals, options.progress)
    return _outcome(part, fitted, deterministic)


def _with_drift(data: Data, fitted: AdaptiveFit, intervals: bool, progress: bool) -> tuple[Data, AdaptiveFit]:
    """Fit the sweeps' own terms and the common parameters in turn."""
    notes = fitted.notes
    with jax.enable_x64(False):
        for left in reversed(range(DRIFT_ROUNDS)):
            params, terms = fitted.params, data.terms
            more = estimate_drift(params, arranged(data, float(params.t_ref)), data.dt)
            data = replace(data, drift=Drift(terms.offset + more.offset, terms.gain * more.gain))
            fitted = _polish(data, params, progress, intervals=intervals and not left)
    return data, fitted._replace(notes=notes)


def _outcome(data: Data, fitted: AdaptiveFit, deterministic: bool) -> Outcome:
    """Choose the twin where one is wanted, and say how to go on with more of the data."""
    noisy, known, bits, notes = fitted
    more = partial(_more, fitted, data.drift, deterministic)
    params, notes = noisy, notes + (known.notes if known else ())
    if deterministic:
        stimuli = reliable_stimuli(data)
        notes += stimuli.notes
        params = choose_twin(params, stimuli._replace(repeats=[_received(s, params) for s in stimuli.repeats]))
    cut = data.steps(UPSTROKE), data.steps(float(params.t_ref)) + 1
    # What closed loop has changed is no longer what the interval was for.
    before, chosen = named_leaves(noisy), named_leaves(params)
    pairs = known.intervals if known else {}
    intervals = {name: pair for name, pair in pairs.items() if chosen[name] == before[name]}
    return Outcome(
        params,
        notes,
        spike_cut=cut,
        intervals=intervals,
        refit=more,
        uncertainty=known,
        drift=data.terms,
        bits_per_spike=bits,
    )


def _received(data: Data, params: AdaptiveLIFParams) -> Data:
    """Return the repeats of a stimulus under the mean current that reaches the cell, with the terms of the sweeps."""
    current = data.terms.driven(params, data).current.mean(axis=0)
    return replace(data, current=np.broadcast_to(current, data.current.shape))


def _more(start: AdaptiveFit, drift: Drift | None, deterministic: bool, data: Data, options: Options) -> Outcome:
    """Refine parameters on a wider window; keep the start where its spikes were better."""
    part, notes = replace(with_spikes(data, options.window), drift=drift), start.notes
    params = replace(start.params, t_ref=min(start.params.t_ref, refractory_period(part)))
    with jax.enable_x64(False):
        fitted, worse = _checked(part, params, _polish(part, params, options.progress), "refined on all data")
    return _outcome(part, fitted._replace(notes=(*notes, *worse)), deterministic)


def _checked(
    data: Data, start: AdaptiveLIFParams, fitted: AdaptiveFit, stage: str
) -> tuple[AdaptiveFit, tuple[str, ...]]:
    """Keep the start of a stage, and say so, where it has made the neuron's own spikes worse."""
    before, after = (hard_score(params, data) for params in (start, fitted.params))
    if before is None or after is None or after >= before - SLIP:
        return fitted, ()
    what = f"{stage} the neuron's own spikes got worse ({before:.3f} to {after:.3f})"
    return fitted._replace(params=start, known=None), (f"{what}: the parameters before that were kept",)


def hard_score(params: AdaptiveLIFParams, data: Data) -> float | None:
    """Score free-running spikes of a neuron with escape noise on some of the sweeps.

    Args:
        params: the neuron.
        data: what it was fitted to.

    Returns:
        Md*, or the coincidence factor where no stimulus was repeated; None where neither is defined.
    """
    few = data.few()
    rasters = noisy_rasters(params, few.terms.driven(params, few), repeats=TRIALS, seed=0)
    scores = spike_scores(Recording(current=few.current, dt=few.dt), few.spikes, rasters)
    return scores["coincidence_factor"] if scores["md_star"] is None else scores["md_star"]


def fit_adaptive(
    data: Data, *, coupling: bool | None = None, intervals: bool = True, progress: bool = False
) -> AdaptiveFit:
    """Fit an adaptive neuron with escape noise to voltage and spikes.

    Args:
        data: what to fit.
        coupling: whether the threshold follows the voltage; None lets held-out time decide.
        intervals: estimate what is known about the parameters.
        progress: show progress bars.

    Returns:
        The :class:`AdaptiveFit`.
    """
    # Single precision takes half the time and ends at the same fit: a posteriori the gradient's error is under 1 %.
    with jax.enable_x64(False):
        return _fit(data, coupling, intervals, progress)


def _fit(data: Data, coupling: bool | None, intervals: bool, progress: bool) -> AdaptiveFit:
    start, few = regress(data, t_ref=refractory_period(data)), data.few().coarser()
    if coupling is False:  # nothing competes
        return _polish(data, start, progress, intervals=intervals)
    if coupling is None and (judged := judged_spikes(few)) < LEAST_JUDGED:
        note = f"{judged} spikes in held-out time, of {LEAST_JUDGED} needed, do not say whether the threshold follows"
        fitted = _polish(data, start, progress, intervals=intervals)
        return fitted._replace(notes=(f"{note} the voltage: left away",))
    plain, best = race(few, start, progress, plain=coupling is None)
    notes: tuple[str, ...] = ()
    if plain is not None:
        gain, lowest = best.held_out - plain.held_out, min(best.held_out, plain.held_out)
        wanted = gain >= LEAST_GAIN
        best = best if wanted else plain
        verdict = "taken" if wanted else "left away"
        said = f"changes held-out spikes by {gain:+.2g} bits each"
        if lowest < -1.0:
            other = "without" if wanted else "with"
            said = f"is judged by a fit {other} it that went astray ({lowest:.2g} bits per held-out spike)"
        notes = (f"a threshold that follows the voltage {said}: {verdict}",)
    params = _without_coupling(replace(best.params, t_ref=start.t_ref))
    fitted = _polish(data, params, progress, intervals=intervals)
    fitted, worse = _checked(data, params, fitted, "refined on all sweeps")
    return fitted._replace(notes=(*notes, *worse))


def race(
    data: Data, start: AdaptiveLIFParams, progress: bool, *, plain: bool = True
) -> tuple["Candidate | None", "Candidate"]:
    """Let thresholds that follow the voltage compete with one that does not: return this, and the best of those.

    Args:
        data: some sweeps, coarse: :meth:`Data.few` and :meth:`Data.coarser`.
        start: where all start.
        progress: show progress bars.
        plain: whether the one that does not takes part.
    """
    taus = (*COUPLING_STARTS, *(None,) * plain)
    found = dict(zip(taus, _race(data, start, taus, progress), strict=True))
    return found.pop(None, None), min(found.values(), key=lambda candidate: candidate.loss)


def _race(data: Data, start: AdaptiveLIFParams, taus: Sequence[float | None], progress: bool) -> list["Candidate"]:
    """Let starts compete side by side: a loop over time fills one core."""
    fitted, start = split(data), replace(start, t_ref=refractory_period(data))
    parts = arranged(data.judging(fitted), float(start.t_ref))
    # One after the other: the first compiles what all others use.
    entries = [_entry(data, parts, start, tau) for tau in taus]

    def compete(entry):
        loss, params, samples, free = entry
        with jax.enable_x64(False):  # a setting of the thread
            params, value = refine(loss, params, samples, free, progress=progress)
            return Candidate(params, value, held_out_bits(loss, params, data.judging(~fitted)))

    with ThreadPoolExecutor(len(entries)) as pool:
        return list(pool.map(compete, entries))


class Candidate(NamedTuple):
    """A start after its competition: parameters, loss on the fitted part, bits per spike on the rest."""

    params: AdaptiveLIFParams
    loss: float
    held_out: float


def _entry(data, parts, start, tau):
    """Return loss, parameters, samples and what is free of a start; no tau means no coupling."""
    coupling = VoltageCoupling(b=0.0 if tau is None else 0.2, tau=tau or 8.0, v_i=start.v_th - BEND)
    params = replace(start, coupling=coupling)
    loss, samples = joint_loss(params, parts, data.dt)
    return loss, believable(loss, params, samples), samples, _free(data, coupled=tau is not None)


def _without_coupling(params: AdaptiveLIFParams) -> AdaptiveLIFParams:
    """Leave away a coupling of strength 0."""
    coupling = params.coupling
    return replace(params, coupling=None) if coupling is not None and coupling.b == 0.0 else params


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


_PLAIN = ("tau_m", "r_m", "v_reset", "eta.*", "tau_eta.*", "v_th", "delta_v", "gamma.*", "tau_gamma.*")


def _free(data: Data, *, coupled: bool) -> tuple[str, ...]:
    """Return what is free: a resting potential that was measured is not."""
    return (*_PLAIN, *("v_rest",) * (data.v_rest is None), *("coupling.*",) * coupled)


def _polish(data: Data, params: AdaptiveLIFParams, progress: bool, *, intervals: bool = True) -> AdaptiveFit:
    """Refine on everything."""
    free = _free(data, coupled=params.coupling is not None)
    loss, samples = joint_loss(params, arranged(data, float(params.t_ref)), data.dt)
    params, _ = refine(loss, believable(loss, params, samples), samples, free, progress=progress)
    known: Uncertainty | None = None
    notes: tuple[str, ...] = ()
    if intervals:
        params, known = uncertainty(loss, params, samples, loss.active(free), data.current)
        notes = () if known else ("no interval: the information of the data at these parameters is not finite",)
    bits = held_out_bits(loss, params, data)
    return AdaptiveFit(params, known, bits, notes)


def held_out_bits(loss: JointLoss, params: AdaptiveLIFParams, data: Data) -> float:
    """Return the log-likelihood of the spikes that are judged, in bits per spike above a Poisson train.

    Where there are none it is not defined, and a division by 0.

    Args:
        loss: a loss of these parameters.
        params: the neuron.
        data: voltage and spikes.
    """
    count = int((data.spikes & data.judged).sum())
    _, samples = joint_loss(params, arranged(data, float(params.t_ref)), data.dt)
    _, _, score = evaluate(loss, loss.vector(params), samples)
    density = float(score.log_likelihood) - count * np.log(data.dt)
    return float(bits_per_spike(density, count, float(data.judged.sum()) * data.dt))
