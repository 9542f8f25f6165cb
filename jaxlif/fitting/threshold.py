"""The threshold: bracketed by the forced voltage, then chosen in closed loop."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.data import Data, simulated
from jaxlif.fitting.membrane import columns, forced_segments
from jaxlif.fitting.scores import DELTA, UNRELIABLE, is_astray, own_reliability, trains_of
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.recordings import repeats
from jaxlif.recordings.protocol import is_step_protocol
from jaxlif.recordings.recording import stimulus_label
from jaxlif.spiketrains import mean_coincidence_factor

SCALES = (0.6, 0.8, 1.0, 1.2)  # of the jumps of a deterministic twin
TRIED = 32  # thresholds side by side
BEYOND = 10.0  # mV searched where the forced voltages give no interval


class Bracket(NamedTuple):
    """Forced voltages, mV: the highest without a spike, and at the spikes the lowest and the highest."""

    silent: float
    lowest: float
    highest: float


def bracket_threshold(params: LIFParams, data: Data) -> Bracket:
    """Compare the teacher-forced voltage at the recorded spikes with that at all other steps. With the right membrane a
    deterministic neuron has its threshold between; a real one has no such gap.
    """
    silent, at_spikes = -np.inf, []
    for place, outputs in forced_segments(LIF(dt=data.dt), params, columns(data)):
        spiked = data.spikes.T[place]
        silent = max(silent, float(outputs.v_before[~spiked].max(initial=-np.inf)))
        at_spikes.append(outputs.v_before[spiked])
    found = np.concatenate(at_spikes)
    return Bracket(silent, float(found.min()), float(found.max()))


class Stimuli(NamedTuple):
    """The repeats of each stimulus to reproduce; whether only their number of spikes is; and what is left out."""

    repeats: list[Data]
    by_rate: bool
    notes: tuple[str, ...] = ()


def reliable_stimuli(data: Data) -> Stimuli:
    """Return the stimuli whose spikes the cell repeats; where it repeats none, and of steps, all, for their rates."""
    groups = [data.select(group) for group in repeats(data)]
    if is_step_protocol(data):  # under constant current spike times drift apart however good the rates are
        return Stimuli(groups, by_rate=True)
    own = [own_reliability(trains_of(group.spikes, data.dt), data.duration) for group in groups]
    kept = [group for group, r in zip(groups, own, strict=True) if r is None or r >= UNRELIABLE]
    if len(kept) == len(groups):
        return Stimuli(groups, by_rate=False)
    named = zip(repeats(data), own, strict=True)
    dropped = [f"{stimulus_label(data, g)} (R = {r:.2f})" for g, r in named if r is not None and r < UNRELIABLE]
    used = "it has no part in the choice of the threshold" if kept else "the threshold is chosen by the rate alone"
    note = f"the cell does not repeat its spikes for {', '.join(dropped)}: {used}"
    return Stimuli(kept or groups, by_rate=not kept, notes=(note,))


def choose_threshold(params: LIFParams, stimuli: Stimuli, bracket: Bracket, *, limits: tuple[float, float]) -> float:
    """Choose the threshold whose own spikes coincide best with the recorded ones: the middle of the bracket where that
    has a gap, else of thresholds over it side by side, and then as many around the best.
    """
    gap = 0.5 * (bracket.silent + bracket.lowest)
    if bracket.silent < bracket.lowest and limits[0] < gap < limits[1]:
        return gap
    low, high = max(bracket.lowest, float(params.v_reset) + 1e-3, limits[0]), min(bracket.highest, limits[1])
    if high <= low:
        # The forced voltage is not where a threshold may be: search above that.
        high = min(low + BEYOND, limits[1])
    if high <= low:
        raise ValueError(
            f"v_th has the bounds {limits[0]:g} to {limits[1]:g} mV: it must lie above v_reset ="
            f" {float(params.v_reset):.4g} mV, where it was fitted; change the bounds of one of them"
        )
    for _ in range(2):
        candidates = np.linspace(low, high, TRIED)
        scores = closed_loop_scores(LIF, _many(params, v_th=candidates), stimuli)
        best = int(np.argmax(scores))
        low, high = candidates[max(best - 1, 0)], candidates[min(best + 1, TRIED - 1)]
    return float(candidates[best])


def choose_twin(params: AdaptiveLIFParams, stimuli: Stimuli) -> AdaptiveLIFParams:
    """Choose the twin without noise: v_th moved by -4 to 2 delta_v, all jumps scaled. Each is judged with its four
    nearest thresholds, at delta and half of it: under one frozen noise a single one scores well by chance.
    """
    thresholds = float(params.v_th) + float(params.delta_v) * np.linspace(-4.0, 2.0, 2 * TRIED)
    found = []
    for scale in (1.0,) if stimuli.by_rate else SCALES:
        scaled = replace(params, eta=tuple(scale * x for x in params.eta), gamma=tuple(scale * x for x in params.gamma))
        scores = closed_loop_scores(AdaptiveLIF, _many(scaled, v_th=thresholds), stimuli, (0.5 * DELTA, DELTA))
        smooth = np.convolve(np.pad(scores, 2, mode="edge"), np.full(5, 0.2), mode="valid")
        best = int(np.argmax(smooth))
        found.append((smooth[best], replace(scaled, v_th=float(thresholds[best]))))
    return max(found, key=lambda pair: pair[0])[1]


def closed_loop_scores(
    neuron: type[LIF | AdaptiveLIF], params: LIFParams, stimuli: Stimuli, deltas: tuple[float, ...] = (DELTA,)
) -> np.ndarray:
    """Return the scores [C] of candidates: the coincidence factor of their own spikes, averaged over the stimuli, less
    a thousandth of the count's relative error, by rate all of it; running away or silence loses more.
    """
    found = [_scores_of_one(neuron, params, data, deltas, stimuli.by_rate) for data in stimuli.repeats]
    return np.asarray(np.mean(found, axis=0))


def _scores_of_one(neuron: Any, params: LIFParams, data: Data, deltas: tuple[float, ...], by_rate: bool) -> np.ndarray:
    """Score candidates on the repeats of one stimulus."""
    trains, shortest = trains_of(data.spikes, data.dt), float(np.max(params.t_ref)) + 2.0 * data.dt
    recorded = max(1.0, float(np.mean([len(train) for train in trains])))
    scores = []
    for model in _free_times(neuron(dt=data.dt), params, data.current[0]):
        factors = [mean_coincidence_factor(trains, [model], duration=data.duration, delta=d) for d in deltas]
        gamma = float(np.mean(factors))
        surplus = abs(len(model) - recorded) / recorded
        coincidences = gamma if np.isfinite(gamma) else -1.0
        lost = 2.0 * is_astray(recorded, model, shortest=shortest)
        scores.append(-surplus if by_rate else coincidences - 1e-3 * surplus - lost)
    return np.array(scores)


def _free_times(cell: Any, params: Any, current: np.ndarray) -> list[np.ndarray]:
    """Return the spike times of each candidate under a current [T], ms."""
    found = []
    for place, outputs in simulated(cell, params, current[:, None], None):
        step, candidate = np.nonzero(outputs.spikes > 0)
        found.append((candidate, (step + place.start + 1) * cell.dt))
    candidates, times = (np.concatenate(x) for x in zip(*found, strict=True))
    order = np.argsort(candidates, kind="stable")
    ends = np.cumsum(np.bincount(candidates, minlength=len(params.v_th)))
    return np.split(times[order], ends[:-1])


def _many(params: LIFParams, v_th: np.ndarray) -> LIFParams:
    """Return candidates for the threshold as parameters with leaves [C]."""
    changed = replace(params, v_th=jnp.asarray(v_th))
    many: LIFParams = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, float), v_th.shape), changed)
    return many
