"""A fit as text: rows and tables for the terminal, and one page with figures that needs no network."""

import base64
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.features import recording_features
from jaxlif.fitting.bounds import STANDARD_NAMES, named_leaves, standard_name
from jaxlif.fitting.result import KERNEL_TIMES, KERNELS, TERMS, RecordingFit
from jaxlif.fitting.several import RecordingFits
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.recordings import Recording
from jaxlif.recordings.notes import without_padding
from jaxlif.traces import Answers, zoomable

SHOWN = 4  # notes; the others are folded
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
    "spikes_per_step": "spikes per step, cell",
    "spikes_per_step_rmse": "spikes per step, RMSE of the model's",
    "spikes_per_step_rmse_to_20": "the same where the cell fires 20 at most",
    "spikes_per_step_share_above_20": "the same above 20, as a share",
    "latency_error": "first spike, median error (ms)",
    "silent_steps": "share of the silent steps that the model leaves silent",
    "subthreshold_voltage_rmse": "voltage RMSE before the first spike (mV)",
    "subthreshold_voltage_variance_explained": "voltage variance explained before the first spike",
    "rmse": "f-I curve, RMSE (Hz)",
    "rmse_held_out": "f-I curve, every second current held out, RMSE (Hz)",
    "rmse_interpolated": "the same by linear interpolation, the baseline to beat (Hz)",
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
_FIGURES = ("f_i_curve", "spikes", "voltage", "steps", "raster", "kernels")
_TABLES = ("features_sweeps.csv", "features_cell.csv")
#: The names of all files that a report can have.
REPORT_FILES = frozenset(["report.html", *_TABLES, *(f"{name}.{kind}" for name in _FIGURES for kind in ("png", "svg"))])
_PROTOCOLS = {"steps": "protocol of current steps", "fluctuating": "fluctuating current"}


def write_report(fit: RecordingFit, directory: Path, recording: Recording | None = None) -> list[Path]:
    """Write ``report.html``, figures as PNG and SVG, and the lab's table as CSV into a directory; return the files.
    Without what was fitted there is no table, and there are no figures of voltage and spikes.
    """
    from jaxlif.pictures import pictures  # it loads matplotlib, which no other command needs

    written: dict[str, bytes] = {}
    figures = []
    answers = None if recording is None else Answers(fit, recording)
    for picture in pictures(fit, answers):
        png, svg = picture.saved()
        written |= {f"{picture.name}.png": png, f"{picture.name}.svg": svg}
        figures.append({"caption": picture.caption, "data": base64.b64encode(png).decode()})
    written["report.html"] = _page(fit, figures, answers).encode()
    written |= {} if answers is None else {name: text.encode() for name, text in _tables(answers).items()}
    for name, content in written.items():
        (directory / name).write_bytes(content)
    return [directory / name for name in written]


def write_cells(found: RecordingFits, directory: Path) -> None:
    """Write the parameters of several cells into a directory: ``cells.csv`` and a figure; none of none."""
    from jaxlif.pictures import Picture, parameters_of

    if found.fits:
        png, svg = Picture("cells", "", parameters_of(found)).saved()
        for kind, content in {"csv": found.csv().encode(), "png": png, "svg": svg}.items():
            (directory / f"cells.{kind}").write_bytes(content)


def _tables(answers: Answers) -> dict[str, str]:
    """Return the lab's table of what was fitted, without the electrode's drop, beside the model as it was scored."""
    fit, (recording, _) = answers.fit, without_padding(answers.recording)
    drop = fit.electrode_drop(recording) if fit.electrodes else None
    measured = partial(recording_features, recording, spike_rule=fit.spike_rule, electrode_drop=drop)
    if not answers.fires:
        return measured().files()
    return measured(predicted=answers.free.raster(recording.dt)[..., : recording.num_steps]).files()


def _page(fit: RecordingFit, figures: list[dict[str, str]], answers: Answers | None) -> str:
    import jinja2

    template = files("jaxlif").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        title=f"{fit.model.upper()} fitted to {fit.data['name'] or 'a recording'}",
        lead=_lead(fit),
        sweeps=sweep_line(fit),
        verdict=fit.verdict,
        notes=fit.notes[:SHOWN],
        folded=fit.notes[SHOWN:],
        parameters=parameter_rows(fit),
        kernels=kernel_rows(fit),
        scores=score_rows(fit.scores),
        traces=None if answers is None else zoomable(answers),
        figures=figures,
        footer=f"jaxlif; seed {fit.seed}; sha256 of the data {fit.data['sha256'] or 'unknown'}",
    )


def _lead(fit: RecordingFit) -> str:
    if fit.protocol == "rates":
        return "Fitted to firing rates."
    size = f"{fit.data['sweeps']} sweeps at dt = {fit.data['dt_ms']:g} ms, current {fit.data['current_source']}"
    if fit.electrodes:
        size_of = sorted(1000.0 * e.resistance for _, e in fit.electrodes)
        ends = f"{size_of[0]:.3g}" + f" to {size_of[-1]:.3g}" * (len(size_of) > 1)
        found = f"{ends} MΩ ({', '.join(dict.fromkeys(e.source for _, e in fit.electrodes))})"
        size += f"; taken off the voltage: an electrode of {found}"
    start, stop = fit.window
    return f"{size}; fitted on {start:g} to {stop:g} ms by the recipe for a {_PROTOCOLS[fit.protocol]}."


def parameter_rows(fit: RecordingFit) -> list[tuple[str, ...]]:
    """Return the parameters as rows of text, a heading first; terms of kernels are in :func:`kernel_rows`.

    One whose interval was looked for in vain has no value: "not determined"; without a look it is "not estimated".
    """
    rows: list[tuple[str, ...]] = [("parameter", "value", "95 % interval", "unit", "")]
    for name, value in named_leaves(fit.params).items():
        if name.startswith(TERMS):
            continue
        words, unit = standard_name(name)
        found = f"{value:.4g}", _interval(*fit.intervals[name]) if name in fit.intervals else "not estimated"
        rows.append((name, *(("", "not determined") if name in fit.undetermined else found), unit, words))
    return rows


def kernel_rows(fit: RecordingFit) -> list[tuple[str, ...]]:
    """Return what a spike leaves behind as rows of text, a heading first, with its 95 % band; none without kernels."""
    if not isinstance(fit.params, AdaptiveLIFParams):
        return []
    times = [t for t in KERNEL_TIMES if t > float(fit.params.t_ref)]
    rows: list[tuple[str, ...]] = [("after a spike (95 % band)", *(f"at {t:g} ms" for t in times), "unit")]
    for kind, (words, unit) in KERNELS.items():
        if getattr(fit.params, kind):
            found = zip(*fit.kernel(kind, np.array(times)), strict=True)
            texts = (f"{x:.3g}" + ("" if np.isnan(low) else f" ({low:.3g} to {high:.3g})") for x, low, high in found)
            rows.append((words, *texts, unit))
    return rows if len(rows) > 1 else []


def _interval(low: float, high: float) -> str:
    """Write an interval with four digits, or with as many as tell its ends apart."""
    texts = ((f"{low:.{digits}g}", f"{high:.{digits}g}") for digits in range(4, 18))
    return " to ".join(next((pair for pair in texts if pair[0] != pair[1]), (f"{low:.17g}", f"{high:.17g}")))


def score_rows(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the scores of each part, such as "test", as rows of text, a heading first: a column for each part."""
    rows: list[tuple[str, ...]] = [("score", *scores)]
    for name, label in SCORE_LABELS.items():
        values = [part.get(name) for part in scores.values()]
        if any(value is not None for value in values):
            rows.append((label, *("" if value is None else f"{value:.3g}" for value in values)))
    return rows


def cell_rows(found: RecordingFits) -> list[tuple[str, ...]]:
    """Return the fits of several cells as rows of text, a heading first: the plain neuron's parameters, and scores."""
    table = found.table()
    chosen = {name: heading for name, heading in _CELL_HEADINGS.items() if name in table}
    columns = [["" if x is None else f"{x:.{digits}g}" for x in table[name]] for name, (_, digits) in chosen.items()]
    return [("cell", *(heading for heading, _ in chosen.values())), *zip(table["cell"], *columns, strict=True)]


def sweep_line(fit: RecordingFit) -> str:
    """Return in a line how far the sweeps of a recording differ; an empty one where they do not."""
    if fit.drift is None:
        return ""
    offset, gain = fit.drift.offset, fit.drift.gain
    seen = ~np.isin(np.arange(offset.size), fit.unseen)  # whose gain was fitted, and so was a rest not measured
    known = np.ones_like(seen) if fit.rest == "measured" else seen
    parts = []
    if offset.any() and known.any():
        parts.append(f"v_rest {fit.rest}, {offset[known].min():+.2f} to {offset[known].max():+.2f} mV off its mean")
    if (gain != 1.0).any() and seen.any():
        parts.append(f"gain of the current {gain[seen].min():.3f} to {gain[seen].max():.3f}")
    return f"sweeps differ: {'; '.join(parts)}" if parts else ""


def text_table(rows: list[tuple[Any, ...]], *, right: tuple[int, ...] | None = None) -> str:
    """Align rows of text in columns; those of the numbers in ``right``, by default all but the first, to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = range(1, len(widths)) if right is None else right
    formats = [f"{{:{'>' if n in numeric else '<'}{width}}}" for n, width in enumerate(widths)]
    return "\n".join("  ".join(formats).format(*row).rstrip() for row in texts)
