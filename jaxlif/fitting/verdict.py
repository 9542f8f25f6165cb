"""How far to trust a fit: one word and one sentence, from what it predicted of what it did not see."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

FATAL, WHY = "do not use", "model: "  # how a note begins that decides, and one that says why this model
ALIKE = 1.1  # a ratio of the spikes that two rules find up to which it hardly matters which is taken
MANY = 3  # notes that differ in their numbers alone from which on one of them stands for all
LEAST_SPIKES = 10  # of the cell that were held out: fewer judge no model
FEW = 4  # spikes of the one that do not matter where the other is silent
LEAST_COUNT = 10.0  # spikes in a step of which an error is a share even where the cell fires fewer
HIGHEST_REST = -35.0  # mV: no neuron rests above it
UNEQUAL = 10.0  # a ratio of electrodes' resistances that no pipette has from sweep to sweep
NAMED, DOUBTS = 6, 3  # parameters, and doubts, that a sentence names
#: How notes begin that make a good score doubtful; what matches is what a sentence says of them.
GRAVE = tuple(
    re.compile(f"(?:test = .+?: |.+; )?({text})")
    for text in (
        r"the rest moves by \S+ mV from sweep to sweep",
        r"the membrane rectifies",
        r"the input resistance is not positive",
        r"the membrane explains only \d+ % of the variance of the voltage",
        r"the error of the voltage in what was held out is \d+ % of its variance",
        r"v_rest = \S+ mV lies above v_th = \S+ mV: the model fires without current",
        r"(?:tau_m|r_m) = .*?(?=: neurons have)",
        r"the threshold lies \S+ mV above the rest",
        r"\S+ = \S+ \S+ lies (?:at the end of|outside) its bounds",
        r"\d+ of \d+ spikes come within \S+ ms of a step of the current",
        r"the rates fall from .*? as in depolarisation block",
        r"the fitted curve is .*? off",
        r"the voltage jumps by \S+ mV within \S+ ms of the steps of the current \(\S+ MΩ\)",
        r"the voltage comes \S+ ms (?:after|before) the current that drives it",
        r"the holding current differs by \S+ pA between sweeps",
        r"the current has one level",
        r"the count depends on the rule",
        r"no electrode was taken off the voltage of \d+ sweeps: its resistance was estimated as [^:]+",
        r"sweep \d+, held out, is the copy of one that was fitted",
    )
)


class Verdict(NamedTuple):
    """A word, "good", "usable", "do not use" or "no verdict", and the sentence that begins with it."""

    word: str
    sentence: str


class Rule(NamedTuple):
    """From which value on a score, {0} in the text, makes a fit good, or usable; of an error up to which."""

    purpose: str
    score: str
    good: float
    usable: float
    text: str

    def worth(self, value: float) -> int:
        """Return 2 for good, 1 for usable and 0 for neither."""
        sign = 1.0 if self.good > self.usable else -1.0
        return sum(sign * value >= sign * limit for limit in (self.good, self.usable))


#: Of the rules of a purpose the first whose score is known decides. Γ alone is at most Γ/R.
RULES = (
    Rule("spike times", "md_star", 0.7, 0.4, "Md* {0:.2f}"),
    Rule("spike times", "coincidence_factor_over_reliability", 0.7, 0.4, "Γ/R {0:.2f}"),
    Rule("spike times", "bits_per_spike", 1.0, 0.5, "{0:.2f} bits per spike above a Poisson train"),
    Rule("spike times", "coincidence_factor", 0.7, 0.4, "Γ {0:.2f}"),
    Rule(
        "spike counts", "step_error", 0.1, 0.25, "{spikes_per_step_rmse:.2g} off where a step has {spikes_per_step:.3g}"
    ),
    Rule("spike counts", "curve_error", 0.1, 0.25, "{0:.0%} of the largest rate off"),
    Rule("spike counts", "rate_factor", 1.25, 2.0, "{rate_model:.3g} Hz where the cell fires at {rate_data:.3g} Hz"),
    Rule("silence", "silent_steps", 0.9, 0.6, "{0:.0%} of the silent steps"),
    Rule("first spikes", "latency_error", 5.0, 20.0, "{0:.2g} ms off"),
    Rule("voltage", "subthreshold_voltage_variance_explained", 0.8, 0.5, "{0:.0%} of its variance"),
    Rule("voltage", "voltage_variance_explained", 0.8, 0.5, "{0:.0%} of its variance"),
)
#: What a model must do at all; of a membrane without spikes the voltage.
NEEDED = ("spike times", "spike counts")


class Grade(NamedTuple):
    """What a fit is worth for a purpose, 2, 1 or 0, and the evidence in words."""

    purpose: str
    worth: int
    text: str


def verdict(fit: Any) -> Verdict:
    """Judge a ``RecordingFit`` by :data:`RULES`, its free run and what is odd about its data."""
    grades = _grades(_evidence(fit))
    odd = [*dict.fromkeys([*_odd(fit), *filter(None, map(_grave, worst_first(fit.warnings)))])]
    judges = [g for g in grades if g.purpose in NEEDED or fit.model == "passive"]
    more = f" and {len(odd) - DOUBTS} more" * (len(odd) > DOUBTS)
    aside = f"; careful: {', '.join(odd[:DOUBTS])}{more}" * bool(odd) + "".join(f"; {text}" for text in _said(fit))
    for note in fit.warnings:
        if note.startswith(FATAL):
            return Verdict(FATAL, f"{FATAL}: {note.partition(': ')[2] or note}{aside}")
    if judges and not any(g.worth for g in judges):
        return Verdict(FATAL, f"{FATAL}: wrong in {_listed(judges)}{aside}")
    if missing := _missing(fit, judges):
        return Verdict("no verdict", f"no verdict: {missing}{aside}")
    if all(g.worth == 2 for g in grades) and not odd:
        return Verdict("good", f"good: {_listed(grades)}{aside}")
    fit_for, unfit = ([g for g in grades if bool(g.worth) is kind] for kind in (True, False))
    not_for = f"; not for {_listed(unfit)}" if unfit else ""
    return Verdict("usable", f"usable for {_listed(fit_for)}{not_for}{aside}")


def worst_first(notes: Iterable[str]) -> tuple[str, ...]:
    """Put first what decides a verdict, then why this model, then what is grave; of many alike one stands for all."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"-?\d\S*", "0", note), []).append(note)
    alike = [[f"{same[0]} ({len(same) - 1} more like this)"] if len(same) >= MANY else same for same in kinds.values()]

    def _weight(note: str) -> tuple[bool, ...]:
        return not note.startswith(FATAL), not note.startswith(WHY), not _grave(note)

    return tuple(sorted((note for same in alike for note in same), key=_weight))


def _grave(note: str) -> str:
    """Return what a verdict says of a note that is grave, and nothing of another, or of counts that are about alike."""
    counts = [int(n) for n in re.findall(r"(\d+) (?:spikes rise|that rise|that cross)", note)]
    if counts and max(counts) <= ALIKE * min(counts):
        return ""
    return next((found[1] for pattern in GRAVE if (found := pattern.match(note))), "")


def measures(fit: Any) -> dict[str, float]:
    """Return the scores by which a fit is judged: of what was held out, or else of what was fitted."""
    judged = {name: x for name, x in _judged(fit).items() if x is not None}
    found: dict[str, float] = {**fit.scores.get("membrane", {}), **judged}  # of steps the smallest are fitted
    if "spikes_per_step_rmse" in found:
        few, many = (found.get(f"spikes_per_step_{name}", 0.0) for name in ("rmse_to_20", "share_above_20"))
        return found | {"step_error": max(few / LEAST_COUNT, many)}
    curve, largest = fit.scores.get("f_i", {}), max(fit.curve.get("rate_Hz", [0.0]))
    if curve:
        first, last = fit.curve.get("epoch_ms", (0.0, 1000.0))
        error = curve.get("rmse_held_out", curve["rmse"])
        return found | {"curve_error": error / max(largest, 1000.0 * LEAST_COUNT / (last - first))}
    if "spikes_data" not in found:
        return found
    low, high = sorted((found["spikes_data"], found["spikes_model"]))
    return found | {"rate_factor": high / low if low else np.inf}


def _evidence(fit: Any) -> dict[str, float]:
    """Return the scores that say something: of few spikes, or of a membrane that has none, those of the voltage."""
    found = measures(fit)
    cell, model = found.get("spikes_data", np.inf), found.get("spikes_model", np.inf)
    few = cell < LEAST_SPIKES and model <= 3.0 * cell + FEW and (model or cell <= FEW)
    if fit.model != "passive" and not few:
        return found
    return {name: x for name, x in found.items() if name.endswith("_explained")}


def _judged(fit: Any) -> Mapping[str, Any]:
    return next((fit.scores[part] for part in ("test_file", "test", "train") if part in fit.scores), {})


def _grades(known: Mapping[str, float]) -> list[Grade]:
    first: dict[str, Rule] = {}
    for rule in RULES:
        if rule.score in known:
            first.setdefault(rule.purpose, rule)
    texts = (r.text.format(known[r.score], **known).replace("%", " %") for r in first.values())
    return [Grade(r.purpose, r.worth(known[r.score]), text) for r, text in zip(first.values(), texts, strict=True)]


def _listed(grades: list[Grade]) -> str:
    return ", ".join(f"{g.purpose} ({g.text})" for g in grades)


def _missing(fit: Any, judges: list[Grade]) -> str:
    """Say what there is to judge by is missing; nothing where a verdict is possible."""
    if not {"test", "test_file"} & fit.scores.keys() and "rmse_held_out" not in fit.scores.get("f_i", {}):
        known = f"; of what was fitted: {_listed(judges)}" if judges else ""
        return f"nothing was held out, by --window or --held-out{known}"
    if judges:
        return ""
    count = round(_judged(fit).get("spikes_data") or 0)
    few = f"only {count} spikes of the cell are" if count else "no spike of the cell is"
    return f"{few} in what was held out, where {LEAST_SPIKES} are needed: hold out another part (--window, --held-out)"


def _odd(fit: Any) -> Iterator[str]:
    """Name what makes a good score doubtful."""
    if fit.data.get("sweeps") and fit.params.v_rest > HIGHEST_REST:
        yield f"a rest of {fit.params.v_rest:.3g} mV, which no neuron has: an offset of the voltage, or a dying cell"
    known = [electrode.resistance for _, electrode in fit.electrodes]
    if known and min(known) < 0.0:
        yield f"an electrode of {1000.0 * min(known):.3g} MΩ, which is negative"
    elif known and max(known) > UNEQUAL * min(known):
        yield f"electrodes of {1000.0 * min(known):.3g} to {1000.0 * max(known):.3g} MΩ in one recording"


def _said(fit: Any) -> Iterator[str]:
    """Name what a score does not show."""
    if fit.undetermined:
        more = len(fit.undetermined) - NAMED
        yield f"not determined: {', '.join(fit.undetermined[:NAMED])}" + f" and {more} more" * (more > 0)
    if fit.data.get("current_source") == "commanded":
        yield "the current is the command, not a measurement"
