"""A page about a fit: tables, figures and warnings in one file that needs no network."""

import base64
import io
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.result import RecordingFit
from jaxlif.pictures import NAMES, pictures
from jaxlif.recordings import Recording
from jaxlif.tables import own_scores, parameter_rows, score_rows, sweep_rows
from jaxlif.writing import write_atomically

# Without a fixed salt the names inside an SVG file, and with them its bytes, differ from run to run.
_STYLE = plotting.STYLE | {"svg.hashsalt": "jaxlif"}


def report_files() -> list[str]:
    """Return the names of all files that a report can have."""
    return ["report.html", *(f"{name}.{kind}" for name in NAMES for kind in ("png", "svg"))]


def write_report(fit: RecordingFit, directory: Path, recording: Recording | None = None) -> list[Path]:
    """Write ``report.html`` and its figures, each as a PNG and an SVG file.

    Args:
        fit: the fit.
        directory: an existing directory.
        recording: what was fitted, for the figures of voltage and spikes.

    Returns:
        The files written.
    """
    written, embedded = [], []
    with plt.rc_context(_STYLE):
        for picture in pictures(fit, recording):
            png = _image(picture.figure, "png")
            picture.figure.set_layout_engine("none")  # the layout stays; made anew it would take as long as drawing
            svg = _image(picture.figure, "svg")
            plt.close(picture.figure)
            written.append(write_atomically(directory / f"{picture.name}.png", png))
            written.append(write_atomically(directory / f"{picture.name}.svg", svg))
            embedded.append({"caption": picture.caption, "data": base64.b64encode(png).decode()})
    page = _page(fit, embedded)
    return [*written, write_atomically(directory / "report.html", page.encode())]


def _page(fit: RecordingFit, figures: list[dict[str, str]]) -> str:
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
    return f"{size}; fitted on {fit.train[0]:g} to {fit.train[1]:g} ms by the recipe for a {_PROTOCOLS[fit.protocol]}."


_PROTOCOLS = {"steps": "protocol of current steps", "fluctuating": "fluctuating current"}


def _image(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
