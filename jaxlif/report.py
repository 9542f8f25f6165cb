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
from jaxlif.fitting.uncertainty import Uncertainty
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
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
    if fit.electrodes:
        found = ", ".join(f"{1000.0 * e.resistance:.3g} MΩ ({e.source})" for _, e in fit.electrodes)
        size += f"; taken off the voltage: an electrode of {found}"
    return f"{size}; fitted on {fit.train[0]:g} to {fit.train[1]:g} ms by the recipe for a {_PROTOCOLS[fit.protocol]}."


_PROTOCOLS = {"steps": "protocol of current steps", "fluctuating": "fluctuating current"}


def _pictures(fit: RecordingFit, recording: Recording | None) -> Iterator[Picture]:
    if fit.curve:
        yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", _curve(fit))
    if recording is None:
        return
    spikes = fit.spike_rule.find(recording)
    if fit.protocol == "steps":
        free = fit.predict(recording)
        caption = "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV."
        yield Picture("steps", caption, _steps(fit, recording, free))
        return
    if isinstance(fit.params, AdaptiveLIFParams):
        caption = "What a spike leaves behind: the spike-triggered current η and the movement of the threshold γ."
        yield Picture("kernels", caption, _kernels(fit.params))
        if fit.uncertainty is not None:
            caption = "Correlations of the parameters: near 1 or -1 the data determine only a combination of the two."
            yield Picture("correlations", caption, _correlations(fit.uncertainty))
        yield Picture("intervals", "Intervals between spikes: the cell's and the model's.", _intervals(fit, recording))
    window = _window(fit, recording)
    forced = fit.predict(recording, force_spikes=True)
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
    caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
    yield Picture("voltage", caption, _voltage(fit, recording, spikes, forced, window))
    caption = f"Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in {part}."
    yield Picture("raster", caption, _raster(fit, recording, spikes, window))


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
    # A sweep with a typical number of spikes.
    sweep = int(np.argsort(spikes[:, samples].sum(axis=1), kind="stable")[recording.num_sweeps // 2])
    train = spikes[sweep, samples]
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    compared = spike_mask(train, before=before, after=after)
    # The recorded voltage holds the electrode's drop.
    predicted = np.where(compared, (forced.voltage + forced.electrode_drop)[sweep, samples], np.nan)
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    plotting.fit_overlay(part.times, part.measured_voltage()[sweep], predicted, train, axes=axes, labels=labels)
    return figure


def _raster(fit: RecordingFit, recording: Recording, spikes: np.ndarray, window: tuple[float, float]) -> Figure:
    """Draw the spikes of the most repeated stimulus, the model's above them, and the rates of both in bins of 10 ms."""
    group = max(repeats(recording), key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell = [recording.times[spikes[sweep]] for sweep in group]
    count = len(group) if fit.model == "gif" else 1
    free = fit.predict(recording.select(group[:1]), repeats=count, seed=fit.seed)
    own = [free.spike_time[free.spike_repeat == k] + recording.start for k in range(count)]
    figure, (ax, rate) = plt.subplots(
        2, 1, figsize=(9.0, 4.5), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [2, 1]}
    )
    plotting.raster([*cell, *own], ylabel="repeat", ax=ax)
    ax.axhline(len(cell) - 0.5, color="0.6", linewidth=0.8)
    ax.set_yticks([0, len(cell) - 1, len(cell) + 0.5 * (count - 1)], ["1", str(len(cell)), "model"])
    ax.set_xlabel("")
    bins = np.arange(window[0], window[1] + 1e-6, 10.0)
    for name, trains, color in (("cell", cell, "black"), ("model", own, plotting.PALETTE[1])):
        counts = np.histogram(np.concatenate(trains), bins)[0]
        rate.stairs(1000.0 * counts / (10.0 * len(trains)), bins, color=color, label=name)
    rate.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=window)
    rate.legend()
    return figure


def _kernels(params: AdaptiveLIFParams) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.0), layout="constrained")
    t = np.geomspace(1.0, 500.0, 300)
    for ax, sizes, taus, name in (
        (axes[0], params.eta, params.tau_eta, "current η (pA)"),
        (axes[1], params.gamma, params.tau_gamma, "threshold γ (mV)"),
    ):
        kernel = sum((size * np.exp(-t / tau) for size, tau in zip(sizes, taus, strict=True)), np.zeros_like(t))
        held = t >= params.t_ref
        ax.plot(t[held], kernel[held])
        ax.axvspan(t[0], max(float(params.t_ref), t[0]), color="0.9", label="refractory")
        ax.axhline(0.0, color="0.6", linewidth=0.8)
        ax.set(xscale="log", xlabel="time after a spike (ms)", ylabel=name)
    axes[0].legend()
    return figure


def _correlations(known: Uncertainty) -> Figure:
    figure, ax = plt.subplots(figsize=(6.0, 5.2), layout="constrained")
    image = ax.imshow(known.correlations, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    places = range(len(known.names))
    ax.set_xticks(places, known.names, rotation=90)
    ax.set_yticks(places, known.names)
    figure.colorbar(image, ax=ax, label="correlation")
    return figure


def _intervals(fit: RecordingFit, recording: Recording) -> Figure:
    spikes = fit.spike_rule.find(recording)
    cell = [np.diff(recording.times[train]) for train in spikes]
    free = fit.predict(recording, seed=fit.seed)
    model = [np.diff(free.spike_time[free.spike_sweep == s]) for s in range(recording.num_sweeps)]
    figure, ax = plt.subplots(figsize=(6.0, 3.0), layout="constrained")
    bins = np.geomspace(2.0, 2000.0, 40)
    for name, intervals, color in (("cell", cell, "black"), ("model", model, plotting.PALETTE[1])):
        ax.hist(np.concatenate(intervals), list(bins), histtype="step", color=color, label=name)
    ax.set(xscale="log", xlabel="interval (ms)", ylabel="intervals")
    ax.legend()
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
