"""Scores of a model against a recording, beside what the cell's own repeats allow."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlif.losses import spike_mask
from jaxlif.recordings import Recording, repeats
from jaxlif.recordings.notes import copies
from jaxlif.recordings.recording import stimulus_label
from jaxlif.spiketrains import md_star, mean_coincidence_factor, reliability, spike_times

SPIKE_TIME_SCORES = ("coincidence_factor", "reliability", "coincidence_factor_over_reliability", "md_star")
DELTA = 4.0  # ms within which spikes coincide
FEW = 4  # spikes more or less that say nothing about a model
MANY = 20  # spikes in a step, above which an error is taken as a share of them
UNRELIABLE = 0.2  # below this reliability a quotient by it explodes, and spike times say little


def spike_scores(recording: Recording, spikes: np.ndarray, model_spikes: np.ndarray) -> dict[str, Any]:
    """Score predicted spikes [sweeps, T], with noise [repeats, sweeps, T], by groups of sweeps of one current: spike
    times averaged over the groups that the cell repeats (R >= 0.2), or over all where it repeats none.
    """
    data, dt = trains_of(spikes, recording.dt), recording.dt
    each = [trains_of(raster, dt) for raster in model_spikes.reshape(-1, *spikes.shape)]
    # A trial that is stored twice says nothing of how well the cell repeats itself.
    trials = np.unique(copies(recording))
    groups = [g for g in (np.intersect1d(group, trials) for group in repeats(recording)) if g.size]
    pairs = [([data[s] for s in g], [trains[s] for s in g for trains in each]) for g in groups]
    scored = [_group_scores(*pair, recording.duration) for pair in pairs]
    sizes = {"data": spikes.sum(axis=-1), "model": model_spikes.sum(axis=-1)}
    rates = {f"rate_{name}": 1000.0 * float(np.mean(x)) / recording.duration for name, x in sizes.items()}
    counts = {"spikes_data": int(spikes.sum()), "spikes_model": float(model_spikes.sum()) / len(each)}
    repeated = [s for s in scored if s["reliability"] is None or s["reliability"] >= UNRELIABLE]
    means = {name: _mean([s[name] for s in repeated or scored]) for name in SPIKE_TIME_SCORES}
    lowest = min((s["reliability"] for s in scored if s["reliability"] is not None), default=None)
    return {"delta": DELTA, **rates, **counts} | means | {"lowest_reliability": lowest}


def step_scores(cell: Sequence[np.ndarray], model: Sequence[Sequence[np.ndarray]]) -> dict[str, float | None]:
    """Score a model on current steps by its mean number of spikes in each and by its first one.

    ``cell`` has the times of each step's spikes, ms from its onset, ``model`` those of each repeat and step. Of more
    than 20 spikes the error is a share of them. A first spike is compared where half of the repeats have one.

    Example:
        >>> step_scores([np.zeros(0), np.array([30.0, 80.0])], [[np.zeros(0), np.array([33.0])]])["latency_error"]
        3.0
    """
    count = np.array([len(train) for train in cell], float)
    counts = np.array([[len(train) for train in repeat] for repeat in model], float)
    first = np.array([[train[0] if len(train) else np.inf for train in repeat] for repeat in model])
    off, many = counts.mean(axis=0) - count, count > MANY
    late = [abs(np.median(t) - train[0]) for t, train in zip(first.T, cell, strict=True) if len(train)]
    known, silent = [x for x in late if np.isfinite(x)], counts.mean(axis=0)[count == 0] < 0.5
    return {
        "spikes_per_step": float(count.mean()),
        "spikes_per_step_rmse": _root_mean_square(off),
        "spikes_per_step_rmse_to_20": _root_mean_square(off[~many]),
        "spikes_per_step_share_above_20": _root_mean_square(off[many] / count[many]),
        "latency_error": float(np.median(known)) if known else None,
        "silent_steps": float(silent.mean()) if silent.size else None,
    }


def _root_mean_square(errors: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else None


def own_reliability(trains: list[np.ndarray], duration: float) -> float | None:
    """Return how well a cell predicts itself, or None where that is not defined: a single repeat, no spikes."""
    return finite(reliability(trains, duration=duration, delta=DELTA)) if len(trains) > 1 else None


def is_astray(count: float, model: np.ndarray, *, shortest: float) -> bool:
    """Say whether a free-running model runs away, over three times the spikes, or twice at its shortest interval, or is
    silent where the cell is not: its spikes are no answer. A few spikes do not matter.
    """
    if not len(model):
        return count > FEW
    saturated = len(model) > 1 and np.median(np.diff(model)) <= shortest
    return len(model) > (2.0 if saturated else 3.0) * count + FEW


def unreliable_notes(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Name the stimuli whose spikes the cell does not repeat: its reliability is under 0.2."""
    trains, notes = trains_of(spikes, recording.dt), []
    for group in repeats(recording):
        own = own_reliability([trains[s] for s in group], recording.duration)
        if own is not None and own < UNRELIABLE:
            notes.append(
                f"{stimulus_label(recording, group)}: the cell's own reliability is {own:.2f}, under {UNRELIABLE:g}:"
                " its spike times say little, and Γ/R is not given"
            )
    return tuple(notes)


def voltage_scores(
    recording: Recording, spikes: np.ndarray, forced_voltage: np.ndarray, *, before: int, after: int
) -> dict[str, Any]:
    """Return RMSE, mV, and share of the variance explained of a forced voltage [sweeps, T], away from the spikes."""
    mask = spike_mask(spikes.T, before=before, after=after).T
    v = recording.measured_voltage()[mask]
    squares = (v - forced_voltage[mask]) ** 2
    variance = np.mean((v - v.mean()) ** 2)
    explained = float(1.0 - squares.mean() / variance) if variance > 0 else None
    return {"voltage_rmse": float(np.sqrt(squares.mean())), "voltage_variance_explained": explained}


def trains_of(spikes: np.ndarray, dt: float) -> list[np.ndarray]:
    """Return the spike times of each sweep of a raster, ms."""
    return [np.asarray(spike_times(train, dt)) for train in np.asarray(spikes)]


def _group_scores(data: list[np.ndarray], model: list[np.ndarray], duration: float) -> dict[str, float | None]:
    if all(np.array_equal(train, model[0]) for train in model):
        model = model[:1]  # a deterministic one answers every repeat alike
    gamma = finite(mean_coincidence_factor(data, model, duration=duration, delta=DELTA))
    own = own_reliability(data, duration)
    ratio = gamma / own if gamma is not None and own is not None and own >= UNRELIABLE else None
    return {
        "coincidence_factor": gamma,
        "reliability": own,
        "coincidence_factor_over_reliability": ratio,
        "md_star": finite(md_star(data, model, delta=DELTA)) if len(data) > 1 else None,
    }


def finite(value: Any) -> float | None:
    """Return a number, None where it is none."""
    return float(value) if np.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
