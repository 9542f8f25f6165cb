"""A fit as text: rows and tables for the terminal, and one page with figures that needs no network."""

import base64
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import Drift
from jaxlif.fitting.names import STANDARD_NAMES, standard_name
from jaxlif.fitting.result import RecordingFit
from jaxlif.fitting.several import RecordingFits
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording

Scores = Mapping[str, Mapping[str, Any]]  # by part, such as "test", the scores by name
NO_INTERVALS: Mapping[str, tuple[float, float]] = MappingProxyType({})

SCORE_LABELS = {
    "rate_data": "firing rate, cell (Hz)",
    "rate_model": "firing rate, model (Hz)",
    "coincidence_factor": "coincidence factor Γ",
    "reliability": "the cell's own reliability R",
    "coincidence_factor_over_reliability": "Γ / R",
    "md_star": "Md*",
    "bits_per_spike": "log-likelihood above a Poisson train (bits per spike)",
    "voltage_rmse": "voltage RMSE, spikes forced (mV)",
    "voltage_variance_explained": "voltage variance explained",
    "rmse": "f-I curve, RMSE (Hz)",
    "rmse_held_out": "f-I curve, every second current held out, RMSE (Hz)",
    "rmse_simulated": "f-I curve counted in a simulation, RMSE (Hz)",
}
_CELL_HEADINGS = {name: (f"{name} ({STANDARD_NAMES[name][1]})", 4) for name in ("tau_m", "r_m", "v_rest", "v_th")} | {
    "rate_data": ("rate (Hz)", 3),
    "rate_model": ("model (Hz)", 3),
    "coincidence_factor": ("Γ", 3),
    "coincidence_factor_over_reliability": ("Γ / R", 3),
    "md_star": ("Md*", 3),
    "bits_per_spike": ("bits per spike", 3),
    "voltage_variance_explained": ("voltage explained", 3),
    "f_i_rmse": ("f-I RMSE (Hz)", 3),
}
_FIGURES = ("f_i_curve", "voltage", "steps", "raster", "kernels", "correlations", "intervals", "worst")
#: The names of all files that a report can have.
REPORT_FILES = frozenset(["report.html", *(f"{name}.{kind}" for name in _FIGURES for kind in ("png", "svg"))])
_PROTOCOLS = {"steps": "protocol of current steps", "fluctuating": "fluctuating current"}


def write_report(fit: RecordingFit, directory: Path, recording: Recording | None = None) -> list[Path]:
    """Write ``report.html`` and its figures, each as a PNG and an SVG file, into a directory; return the files.

    Without what was fitted there are no figures of voltage and spikes.
    """
    from jaxlif.pictures import pictures  # it loads matplotlib, which no other command needs

    written: dict[str, bytes] = {}
    figures = []
    for picture in pictures(fit, recording):
        png, svg = picture.saved()
        written |= {f"{picture.name}.png": png, f"{picture.name}.svg": svg}
        figures.append({"caption": picture.caption, "data": base64.b64encode(png).decode()})
    written["report.html"] = _page(fit, figures).encode()
    for name, content in written.items():
        (directory / name).write_bytes(content)
    return [directory / name for name in written]


def _page(fit: RecordingFit, figures: list[dict[str, str]]) -> str:
    import jinja2

    template = files("jaxlif").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    parts, scores = score_rows(fit.scores)
    own = own_scores(fit.scores)
    return environment.from_string(template).render(
        title=f"{fit.model.upper()} fitted to {fit.data['name'] or 'a recording'}",
        lead=_lead(fit),
        warnings=fit.warnings,
        parameters=parameter_rows(fit.params, fit.intervals, fit.undetermined),
        parts=parts,
        scores=[{"label": label, "cells": cells, "own": own.get(label, "")} for label, cells in scores],
        with_own=bool(own),
        sweeps=sweep_rows(fit),
        figures=figures,
        footer=f"jaxlif; seed {fit.seed}; sha256 of the data {fit.data['sha256'] or 'unknown'}",
    )


def _lead(fit: RecordingFit) -> str:
    if fit.protocol == "rates":
        return "Fitted to firing rates."
    size = f"{fit.data['sweeps']} sweeps at dt = {fit.data['dt_ms']:g} ms, current {fit.data['current_source']}"
    if fit.electrodes:
        found = ", ".join(f"{1000.0 * e.resistance:.3g} MΩ ({e.source})" for _, e in fit.electrodes)
        size += f"; taken off the voltage: an electrode of {found}"
    start, stop = fit.window
    return f"{size}; fitted on {start:g} to {stop:g} ms by the recipe for a {_PROTOCOLS[fit.protocol]}."


def parameter_rows(
    params: LIFParams | LeakyParams,
    intervals: Mapping[str, tuple[float, float]] = NO_INTERVALS,
    undetermined: Collection[str] = (),
) -> list[dict[str, str]]:
    """Return the parameters as rows of text: standard_name, name, value, interval, unit.

    An interval that was looked for in vain is "not determined", one that was not looked for "not estimated".
    """
    rows = []
    for name, value in named_leaves(params).items():
        words, unit = standard_name(name)
        interval = _interval(*intervals[name]) if name in intervals else "not estimated"
        interval = "not determined" if name in undetermined else interval
        row = {"standard_name": words, "name": name, "value": f"{value:.4g}", "interval": interval, "unit": unit}
        rows.append(row)
    return rows


def _interval(low: float, high: float) -> str:
    """Write an interval with four digits, or with as many as tell its ends apart."""
    texts = ((f"{low:.{digits}g}", f"{high:.{digits}g}") for digits in range(4, 18))
    return " to ".join(next((pair for pair in texts if pair[0] != pair[1]), (f"{low:.17g}", f"{high:.17g}")))


def score_rows(scores: Scores) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the scores as text: the parts' names, and for each score its label and a cell for each part."""
    rows = []
    for name, label in SCORE_LABELS.items():
        values = [part.get(name) for part in scores.values()]
        if any(value is not None for value in values):
            rows.append((label, ["" if value is None else f"{value:.3g}" for value in values]))
    return list(scores), rows


def score_table(scores: Scores) -> str:
    """Return the scores as lines of text: a row for each score, a column for each part.

    Example:
        >>> print(score_table({"train": {"md_star": 0.5}, "test": {"md_star": 0.25}}))
        score  train  test
        Md*      0.5  0.25
    """
    parts, rows = score_rows(scores)
    return text_table([("score", *parts), *((label, *cells) for label, cells in rows)])


def own_scores(scores: Scores) -> dict[str, str]:
    """Return by label what the cell reaches against another repeat of its own: the ceiling of a model's score.

    Of the part that was held out, or else of the one that was fitted; nothing where no stimulus was repeated.

    Example:
        >>> own_scores({"test": {"rate_data": 8.0, "reliability": 0.75, "md_star": 0.9}})
        {'firing rate, model (Hz)': '8', 'coincidence factor Γ': '0.75', 'Γ / R': '1', 'Md*': '1'}
    """
    judged = scores.get("test", scores.get("train", {}))
    if judged.get("reliability") is None:
        return {}
    own = {"rate_model": judged["rate_data"], "coincidence_factor": judged["reliability"]}
    own |= {"coincidence_factor_over_reliability": 1.0, "md_star": 1.0}
    return {SCORE_LABELS[name]: f"{value:.3g}" for name, value in own.items()}


def cell_rows(found: RecordingFits) -> list[tuple[str, ...]]:
    """Return the fits of several cells as rows of text, a heading first: the plain neuron's parameters, and scores."""
    table = found.table()
    chosen = {name: heading for name, heading in _CELL_HEADINGS.items() if name in table}
    columns = [["" if x is None else f"{x:.{digits}g}" for x in table[name]] for name, (_, digits) in chosen.items()]
    return [("cell", *(heading for heading, _ in chosen.values())), *zip(table["cell"], *columns, strict=True)]


def sweep_rows(fit: RecordingFit) -> list[dict[str, str]]:
    """Return how the sweeps of a recording differ as rows of text: sweep, offset (mV), gain; none where they do not.

    What a fit cannot know of a sweep that was held out, and a gain that was not fitted, is empty.
    """
    rows = []
    for sweep, (offset, gain, known, fitted) in enumerate(zip(*_known_terms(fit), strict=True)):
        number = f"{sweep}{' (held out)' * (sweep in fit.held_out)}"
        texts = {"offset": f"{offset:+.2f}" if known else "", "gain": f"{gain:.3f}" if fitted else ""}
        rows.append({"sweep": number} | texts)
    return rows


def sweep_line(fit: RecordingFit) -> str:
    """Return in a line how far the sweeps of a recording differ; an empty one where they do not."""
    offset, gain, known, fitted = _known_terms(fit)
    parts = []
    if known.any():
        parts.append(f"v_rest {fit.rest}, {offset[known].min():+.2f} to {offset[known].max():+.2f} mV off its mean")
    if fitted.any():
        parts.append(f"gain of the current {gain[fitted].min():.3f} to {gain[fitted].max():.3f}")
    return f"sweeps differ: {'; '.join(parts)}" if parts else ""


def _known_terms(fit: RecordingFit) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return offset and gain of the sweeps, and in which the one and the other is known; no sweep where none differ."""
    terms = Drift.none(0) if fit.drift is None else fit.drift
    if not (terms.offset.any() or (terms.gain != 1.0).any()):
        terms = Drift.none(0)
    seen = ~np.isin(np.arange(terms.offset.size), fit.held_out)
    return terms.offset, terms.gain, seen | (fit.rest == "measured"), seen & (terms.gain != 1.0).any()


def text_table(rows: list[tuple[Any, ...]], *, right: tuple[int, ...] | None = None) -> str:
    """Align rows of text in columns; those of the numbers in ``right``, by default all but the first, to the right.

    Example:
        >>> print(text_table([("a", "1.0"), ("bcd", "12.5")]))
        a     1.0
        bcd  12.5
    """
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = range(1, len(widths)) if right is None else right
    aligned = (
        [
            text.rjust(width) if n in numeric else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in texts
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)
