"""Does a prediction leave what the model was fitted to? A regime is a kind of input and how the cell answers it.

A model of one regime can be silent or fire twice too often in another, and nothing in its held-out time says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxlif.recordings import Recording, repeats
from jaxlif.recordings.recording import stimulus_label

WIDER = 1.2  # factor by which a current may leave the fitted range without a word
FASTER = 1.5  # and a rate
LISTED = 8  # stimuli that a line names
COLLAPSED = 0.5  # share of the fitted likelihood, in bits per spike, below which it has collapsed


@dataclass(frozen=True)
class Regime:
    """An input that a model was fitted to."""

    stimulus: str
    mean_pA: float
    sd_pA: float
    rate_Hz: float


def regimes(recording: Recording, spikes: np.ndarray) -> tuple[Regime, ...]:
    """Return the regimes of a recording, one for each stimulus."""
    found = []
    for group in repeats(recording):
        current = recording.current[group]
        rate = 1000.0 * float(spikes[group].mean()) / recording.dt
        found.append(Regime(stimulus_label(recording, group), float(current.mean()), float(current.std()), rate))
    return tuple(found)


def extrapolation_notes(
    known: Iterable[Regime], recording: Recording, rates: np.ndarray, numbers: np.ndarray | None = None
) -> tuple[str, ...]:
    """Say where a recording's current, or the model's answer to it, lies outside the regimes that were fitted."""
    known = tuple(known)
    if not known:
        return ()
    numbers = np.arange(recording.num_sweeps) if numbers is None else numbers
    alike: dict[tuple[str, ...], list[tuple[str, tuple[float, ...]]]] = {}
    for group in repeats(recording):
        current = recording.current[group]
        reasons = dict([*_input(known, current), *_answer(known, current, float(np.mean(rates[group])))])
        name = str(numbers[group[0]]) if recording.stimulus is None else recording.stimulus[group[0]]
        alike.setdefault(tuple(reasons), []).append((name, tuple(reasons.values())))
    kind = "the stimulus of sweep" if recording.stimulus is None else "stimulus"
    return tuple(_outside(kind, reasons, found) for reasons, found in alike.items() if reasons)


def _outside(kind: str, reasons: tuple[str, ...], found: list[tuple[str, tuple[float, ...]]]) -> str:
    """Return one line for all stimuli that are outside for the same reasons, with the range of their values."""
    names, several = [name for name, _ in found], len(found) > 1
    ranges = zip(*(values for _, values in found), strict=True)
    texts = [
        reason.format(_range(values), its="their" if several else "its")
        for reason, values in zip(reasons, ranges, strict=True)
    ]
    listed = ", ".join(names[:LISTED]) + f" and {len(names) - LISTED} more" * (len(names) > LISTED)
    kind = kind.replace("stimulus", "stimuli").replace("sweep", "sweeps") if several else kind
    return f"{kind} {listed} {'are' if several else 'is'} outside what was fitted: {', and '.join(texts)}"


def _range(values: Iterable[float]) -> str:
    low, high = f"{min(values := tuple(values)):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def collapse_notes(fitted: float, here: float | None) -> tuple[str, ...]:
    """Say where the likelihood of the recorded spikes, in bits each, is far below that of the fitted ones."""
    if here is None or here >= COLLAPSED * fitted:
        return ()
    return (
        f"the likelihood collapses: the recorded spikes have {here:.2f} bits each here, and {fitted:.2f} where the"
        " model was fitted",
    )


def _input(known: tuple[Regime, ...], current: np.ndarray) -> Iterable[tuple[str, float]]:
    """Compare mean and spread; a mean is judged by the distance from the fitted range in fitted spreads."""
    means, spreads = [r.mean_pA for r in known], [r.sd_pA for r in known]
    slack = (WIDER - 1.0) * max(*map(abs, means), *spreads)
    for name, value, fitted, margin in (
        ("mean", float(current.mean()), means, slack),
        ("SD", float(current.std()), spreads, (WIDER - 1.0) * max(spreads)),
    ):
        if not min(fitted) - margin <= value <= max(fitted) + margin:
            yield f"the {name} of {{its}} current is {{}} pA where {_range(fitted)} pA were fitted", value


def _answer(known: tuple[Regime, ...], current: np.ndarray, rate: float) -> Iterable[tuple[str, float]]:
    """Compare the rate with the fitted ones; silence is odd where no fitted stimulus, or none so weak, is silent."""
    low, high = min(r.rate_Hz for r in known), max(r.rate_Hz for r in known)
    weaker = [r.rate_Hz for r in known if r.mean_pA <= current.mean() and r.sd_pA <= current.std()]
    if rate == 0.0:
        if low > 0.0 or max(weaker, default=0.0) > 0.0:
            yield "the model is silent", rate
    elif not low / FASTER <= rate <= high * FASTER:
        fired = _range((low, high))
        yield f"the model fires at {{}} Hz where the cell fired at {fired} Hz in the fit", rate
