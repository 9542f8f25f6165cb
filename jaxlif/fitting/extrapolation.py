"""Does a prediction leave what the model was fitted to? A regime is a kind of input and how the cell answers it.

A model of one regime can be silent or fire twice too often in another, and nothing in its held-out time says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxlif.recordings import Recording, repeats, stimulus_label

WIDER = 1.2  # factor by which a current may leave the fitted range without a word
FASTER = 1.5  # and a rate
COLLAPSED = 0.5  # share of the fitted likelihood, in bits per spike, below which it has collapsed


@dataclass(frozen=True)
class Regime:
    """An input that a model was fitted to.

    Args:
        stimulus: what it is called.
        mean_pA: mean of the current.
        sd_pA: its standard deviation.
        rate_Hz: the cell's firing rate.
    """

    stimulus: str
    mean_pA: float
    sd_pA: float
    rate_Hz: float


def regimes(recording: Recording, spikes: np.ndarray) -> tuple[Regime, ...]:
    """Return the regimes of a recording, one for each stimulus.

    Args:
        recording: its current.
        spikes: [sweeps, T], booleans.

    Example:
        >>> recording = Recording(current=np.array([[0.0, 200.0] * 500]), dt=1.0, stimulus="a")
        >>> regimes(recording, np.eye(1, 1000) > 0)
        (Regime(stimulus='stimulus a', mean_pA=100.0, sd_pA=100.0, rate_Hz=1.0),)
    """
    found = []
    for group in repeats(recording):
        current = recording.current[group]
        rate = 1000.0 * float(spikes[group].mean()) / recording.dt
        found.append(Regime(stimulus_label(recording, group), float(current.mean()), float(current.std()), rate))
    return tuple(found)


def extrapolation_notes(
    known: Iterable[Regime],
    recording: Recording,
    rates: np.ndarray,
) -> tuple[str, ...]:
    """Say where a recording's current, or the model's answer to it, lies outside the regimes that were fitted.

    Args:
        known: the regimes of the fit.
        recording: what is predicted.
        rates: the model's rate in each of its sweeps, [sweeps], Hz.
    """
    known = tuple(known)
    if not known:
        return ()
    notes = []
    for group in repeats(recording):
        reasons = [*_input(known, recording.current[group]), *_answer(known, float(np.mean([rates[s] for s in group])))]
        if reasons:
            notes.append(f"{stimulus_label(recording, group)} is outside what was fitted: {', and '.join(reasons)}")
    return tuple(notes)


def collapse_notes(fitted: float, here: float | None) -> tuple[str, ...]:
    """Say where the likelihood of the recorded spikes, in bits each, is far below that of the fitted ones."""
    if here is None or here >= COLLAPSED * fitted:
        return ()
    return (
        f"the likelihood collapses: the recorded spikes have {here:.2f} bits each here, and {fitted:.2f} where the"
        " model was fitted",
    )


def _input(known: tuple[Regime, ...], current: np.ndarray) -> Iterable[str]:
    """Compare mean and spread; a mean is judged by the distance from the fitted range in fitted spreads."""
    sd, spreads = float(current.std()), [r.sd_pA for r in known]
    mean, means = float(current.mean()), [r.mean_pA for r in known]
    slack = (WIDER - 1.0) * max(*map(abs, means), *spreads)
    for name, value, low, high, margin in (
        ("mean", mean, min(means), max(means), slack),
        ("SD", sd, min(spreads), max(spreads), (WIDER - 1.0) * max(spreads)),
    ):
        if not low - margin <= value <= high + margin:
            fitted = f"{low:.4g} pA" if low == high else f"{low:.4g} to {high:.4g} pA"
            yield f"the {name} of its current is {value:.4g} pA where {fitted} were fitted"


def _answer(known: tuple[Regime, ...], rate: float) -> Iterable[str]:
    low, high = min(r.rate_Hz for r in known), max(r.rate_Hz for r in known)
    if rate == 0.0:
        yield "the model is silent"
    elif not low / FASTER <= rate <= high * FASTER:
        fitted = f"{low:.3g} Hz" if low == high else f"{low:.3g} to {high:.3g} Hz"
        yield f"the model fires at {rate:.3g} Hz where the cell fired at {fitted} in the fit"
