"""A page about a fit: tables, figures and warnings in one file that needs no network."""

import base64
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.result import Prediction, RecordingFit, write_atomically
from jaxlif.losses import spike_mask
from jaxlif.recordings import Recording, repeats
from jaxlif.spiketrains import raster
from jaxlif.tables import parameter_rows, score_rows
from jaxlif.theory import firing_rate


class Picture(NamedTuple):
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


def write_report(fit: RecordingFit, directory: Path, recording: Recording | None = None) -> list[Path]:
    """Write ``report.html`` and its figures as PNG files.

    Args:
        fit: the fit.
        directory: an existing directory.
        recording: what was fitted, for the figures of voltage and spikes.

    Returns:
        The files written.
    """
    written, embedded = [], []
    with plt.rc_context(plotting.STYLE):
        for picture in _pictures(fit, recording):
            png = _png(picture.figure)
            plt.close(picture.figure)
            written.append(write_atomically(directory / f"{picture.name}.png", png))
            embedded.append({"caption": picture.caption, "data": base64.b64encode(png).decode()})
    page = _page(fit, embedded)
    return [*written, write_atomically(directory / "report.html", page.encode())]


def _page(fit: RecordingFit, figures: list[dict[str, str]]) -> str:
    template = files("jaxlif").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    parts, scores = score_rows(fit.scores)
    return environment.from_string(template).render(
        title=f"{fit.model.upper()} fitted to {fit.data['name'] or 'a recording'}",
        lead=_lead(fit),
        warnings=fit.warnings,
        parameters=parameter_rows(fit.params, fit.intervals),
        parts=parts,
        scores=[{"label": label, "cells": cells} for label, cells in scores],
        figures=figures,
        footer=f"jaxlif; seed {fit.seed}; sha256 of the data {fit.data['sha256'] or 'unknown'}",
    )


def _lead(fit: RecordingFit) -> str:
    if fit.protocol == "rates":
        return "Fitted to firing rates."
    size = f"{fit.data['sweeps']} sweeps at dt = {fit.data['dt_ms']:g} ms, current {fit.data['current_source']}"
    return f"{size}; fitted on {fit.train[0]:g} to {fit.train[1]:g} ms by the recipe for a {_PROTOCOLS[fit.protocol]}."


_PROTOCOLS = {"steps": "protocol of current steps", "fluctuating": "fluctuating current"}


def _pictures(fit: RecordingFit, recording: Recording | None) -> Iterator[Picture]:
    if fit.curve:
        yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", _curve(fit))
    if recording is None:
        return
    free = fit.predict(recording)
    spikes = fit.spike_rule.find(recording)
    if fit.protocol == "steps":
        caption = "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV."
        yield Picture("steps", caption, _steps(fit, recording, free))
        return
    window = _window(fit, recording)
    forced = fit.predict(recording, force_spikes=True)
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
    caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
    yield Picture("voltage", caption, _voltage(fit, recording, spikes, forced, window))
    caption = f"Spikes of the cell's repeats and, above them, of the free-running model, in {part}."
    yield Picture("raster", caption, _raster(recording, spikes, free, window))


def _curve(fit: RecordingFit) -> Figure:
    figure, ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
    currents, rates = (np.array(fit.curve[name]) for name in ("current_pA", "rate_Hz"))
    fine = np.linspace(currents.min(), currents.max(), 400)
    fitted = np.asarray(firing_rate(fit.params, fine))
    plotting.fi_curve(currents, rates, fine, fitted, theory_label="fitted closed form", ax=ax)
    return figure


def _steps(fit: RecordingFit, recording: Recording, free: Prediction) -> Figure:
    """Draw four sweeps around the epoch whose rates were fitted."""
    chosen = np.unique(np.linspace(0, recording.num_sweeps - 1, 4).round().astype(int))
    figure, axes = plt.subplots(
        len(chosen), 1, figsize=(9.0, 1.9 * len(chosen)), sharex=True, squeeze=False, layout="constrained"
    )
    start, stop = fit.curve["epoch_ms"]
    epoch = recording.window(start, stop).current
    for ax, sweep in zip(axes[:, 0], chosen, strict=True):
        spikes = _spikes(free, recording, sweep)
        voltages = {"recorded": recording.measured_voltage()[sweep], "model": free.voltage[sweep]}
        plotting.trace(recording.times, voltages["recorded"], ax=ax, label="recorded", color="black")
        plotting.trace(recording.times, voltages["model"], spikes, ax=ax, label="model", color=plotting.PALETTE[1])
        ax.set_title(f"{np.median(epoch[sweep]):.4g} pA")
        ax.label_outer()
        if sweep != chosen[0]:
            ax.get_legend().remove()
    margin = 0.2 * (stop - start)
    axes[0, 0].set_xlim(max(start - margin, recording.start), min(stop + margin, recording.times[-1]))
    return figure


def _voltage(
    fit: RecordingFit, recording: Recording, spikes: np.ndarray, forced: Prediction, window: tuple[float, float]
) -> Figure:
    part, samples = recording.window(*window), _samples(recording, window)
    figure, axes = plt.subplots(
        2, 1, figsize=(9.0, 5.0), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [2, 1]}
    )
    sweep = int(spikes[:, samples].sum(axis=1).argmax())
    train = spikes[sweep, samples]
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    compared = spike_mask(train, before=before, after=after)
    predicted = np.where(compared, forced.voltage[sweep, samples], np.nan)
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    plotting.fit_overlay(part.times, part.measured_voltage()[sweep], predicted, train, axes=axes, labels=labels)
    return figure


def _raster(recording: Recording, spikes: np.ndarray, free: Prediction, window: tuple[float, float]) -> Figure:
    group = max(repeats(recording), key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell = [recording.times[spikes[sweep]] for sweep in group]
    own = free.spike_time[(free.spike_sweep == group[0]) & (free.spike_repeat == 0)] + recording.start
    figure, ax = plt.subplots(figsize=(9.0, 3.0), layout="constrained")
    plotting.raster([*cell, own], ylabel="repeat", ax=ax)
    ax.set_xlim(*window)
    ax.set_yticks([0, len(cell) - 1, len(cell)], ["1", str(len(cell)), "model"])
    return figure


def _window(fit: RecordingFit, recording: Recording) -> tuple[float, float]:
    """Return a second of the part that was held out, or of the whole where nothing was."""
    start = fit.scores.get("test", fit.scores["train"])["start_ms"]
    return start, min(start + 1000.0, recording.start + recording.duration)


def _samples(recording: Recording, window: tuple[float, float]) -> slice:
    return slice(*(round((t - recording.start) / recording.dt) for t in window))


def _spikes(prediction: Prediction, recording: Recording, sweep: int) -> np.ndarray:
    own = (prediction.spike_sweep == sweep) & (prediction.spike_repeat == 0)
    return raster(prediction.spike_time[own], recording.dt, recording.num_steps)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
