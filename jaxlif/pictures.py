"""The figures of a fit, each with its caption: what a report shows; and that of a recording before any fit."""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.result import RecordingFit
from jaxlif.inspection import Inspection
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, repeats
from jaxlif.recordings.protocol import step_family
from jaxlif.spiketrains import on_grid
from jaxlif.theory import firing_rate

CELL, MODEL = "black", plotting.PALETTE[1]

# Without a fixed salt the names inside an SVG file, and with them its bytes, differ from run to run.
_STYLE = plotting.STYLE | {"svg.hashsalt": "jaxlif"}


class Picture(NamedTuple):
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure

    def saved(self) -> tuple[bytes, bytes]:
        """Return the figure as PNG and as SVG, and close it."""
        png, svg = io.BytesIO(), io.BytesIO()
        self.figure.savefig(png, format="png", dpi=130)
        self.figure.set_layout_engine("none")  # the layout stays; made anew it would take as long as drawing
        self.figure.savefig(svg, format="svg", dpi=130, metadata={"Date": None})
        plt.close(self.figure)
        return png.getvalue(), svg.getvalue()


def pictures(fit: RecordingFit, recording: Recording | None = None) -> Iterator[Picture]:
    """Draw the figures of a fit one by one, in the order of a report; whoever takes one saves or closes it."""
    with plt.rc_context(_STYLE):
        if fit.curve:
            yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", _curve(fit))
        if recording is None:
            return
        scored = fit.as_scored()  # of a part that was not fitted a prediction
        yield from _of_steps(scored, recording) if fit.protocol == "steps" and fit.curve else _judged(scored, recording)
        if isinstance(fit.params, AdaptiveLIFParams):
            caption = "What a spike leaves behind: the spike-triggered current η and the movement of the threshold γ."
            yield Picture("kernels", caption, _kernels(fit.params))


def _of_steps(fit: RecordingFit, recording: Recording) -> Iterator[Picture]:
    """Draw the recorded sweeps and the free-running model around the epoch whose rates were fitted."""
    start, stop = fit.curve["epoch_ms"]
    margin = 0.1 * (stop - start)
    window = max(start - margin, recording.start), min(stop + margin, float(recording.times[-1]))
    levels = np.array([test.level for test in step_family(recording).tests])
    free = fit.predict(recording)
    own = [free.spike_time[free.spike_sweep == sweep] for sweep in range(recording.num_sweeps)]

    chosen = np.unique(np.linspace(0, recording.num_sweeps - 1, 4).round().astype(int))
    figure, axes = _subplots((9.0, 1.9 * len(chosen)), len(chosen), sharex=True)
    labels = ("recorded", "model")
    for ax, sweep in zip(axes[:, 0], chosen, strict=True):
        spikes = on_grid(own[sweep], recording.dt, recording.num_steps)
        plotting.trace(recording.times, recording.measured_voltage()[sweep], ax=ax, color=CELL, label=labels[0])
        plotting.trace(recording.times, free.voltage[sweep], spikes, ax=ax, color=MODEL, label=labels[1])
        ax.set_title(f"{levels[sweep]:.4g} pA")
        ax.label_outer()
        labels = ("", "")  # in the first panel alone
    axes[0, 0].set_xlim(window)
    caption = "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV."
    yield Picture("steps", caption, figure)

    order = np.argsort(levels, kind="stable")
    cell = [recording.times[train] for train in fit.spike_rule.find(recording)[order]]
    model = [own[n] + recording.start for n in order]
    figure, ax = _raster(cell, model, 0.4, window, max(10.0, (stop - start) / 50.0))
    ticks = np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))
    ax.set_yticks(ticks, [f"{levels[order[n]]:.4g}" for n in ticks])
    ax.set_ylabel("current (pA)")
    caption = "Spikes of every sweep, the cell's in black and the model's above them, with their mean rates."
    yield Picture("raster", caption, figure)


def _judged(fit: RecordingFit, recording: Recording) -> Iterator[Picture]:
    """Draw a second of the part that was held out, or of the whole, in the sweeps that were, or all."""
    start = fit.scores.get("test", fit.scores["train"])["start_ms"]
    window = start, min(start + 1000.0, recording.start + recording.duration)
    samples = slice(*(round((t - recording.start) / recording.dt) for t in window))
    sweeps = np.array(fit.held_out or range(recording.num_sweeps), int)
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
    spikes = fit.spike_rule.find(recording)

    # The voltage with forced spikes is what the electrode would see, of a sweep with a typical number of spikes.
    sweep = int(sweeps[np.argsort(spikes[sweeps, samples].sum(axis=1), kind="stable")[len(sweeps) // 2]])
    found = fit.predict(recording, force_spikes=True)
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    compared = spike_mask(spikes[sweep], before=before, after=after)
    forced = np.where(compared, (found.voltage + found.electrode_drop)[sweep], np.nan)
    voltages = recording.measured_voltage()[sweep, samples], forced[samples]
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    plotting.fit_overlay(recording.times[samples], *voltages, spikes[sweep, samples], labels=labels)
    figure = plt.gcf()
    figure.set_size_inches(9.0, 5.0)
    caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
    yield Picture("voltage", caption, figure)
    if not isinstance(fit.params, LIFParams):
        return

    # The most repeated stimulus, and rates in bins of 10 ms.
    groups = (sweeps[g] for g in repeats(recording.select(sweeps)))
    group = max(groups, key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell = [recording.times[train] for train in spikes[group]]
    count = len(group) if fit.model == "gif" else 1
    free = fit.predict(recording.select(group[:1]), repeats=count, seed=fit.seed)
    own = [free.spike_time[free.spike_repeat == k] + recording.start for k in range(count)]
    figure, ax = _raster(cell, own, len(cell), window, 10.0)
    ax.set_yticks([0, len(cell) - 1, len(cell) + 0.5 * (count - 1)], ["1", str(len(cell)), "model"])
    ax.set_ylabel("repeat")
    caption = f"Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in {part}."
    yield Picture("raster", caption, figure)


def _subplots(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def _curve(fit: RecordingFit) -> Figure:
    figure, axes = _subplots((6.0, 4.0))
    currents, rates = (np.array(fit.curve[name]) for name in ("current_pA", "rate_Hz"))
    fine = np.linspace(currents.min(), currents.max(), 400)
    fitted = np.asarray(firing_rate(fit.params, fine))
    plotting.fi_curve(currents, rates, fine, fitted, theory_label="fitted closed form", ax=axes[0, 0])
    return figure


def _raster(
    cell: list[np.ndarray], model: list[np.ndarray], above: float, window: tuple[float, float], width: float
) -> tuple[Figure, Axes]:
    """Draw the cell's trains by row and the model's ``above`` them, and the mean rates of both in bins of a width."""
    figure, axes = _subplots((9.0, 5.0), 2, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    ax, rate = axes[:, 0]
    bins = np.arange(window[0], window[1] + 1e-6, width)
    size = float(np.clip(220.0 / (len(cell) + len(model)), 1.5, 7.0))
    for name, trains, color, lowest in (("cell", cell, CELL, 0.0), ("model", model, MODEL, above)):
        times = np.concatenate(trains)
        rows = np.repeat(np.arange(len(trains)) + lowest, [len(train) for train in trains])
        ax.plot(times, rows, "|", color=color, markersize=size, markeredgewidth=0.8)
        counts = np.histogram(times, bins)[0]
        rate.stairs(1000.0 * counts / (width * len(trains)), bins, color=color, label=name)
    ax.set_ylim(-0.6, len(model) + above - 0.4)
    rate.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=window)
    rate.legend()
    return figure, ax


def _kernels(params: AdaptiveLIFParams) -> Figure:
    figure, axes = _subplots((9.0, 3.0), 1, 2)
    t = np.geomspace(1.0, 500.0, 300)
    terms = {"current η (pA)": (params.eta, params.tau_eta), "threshold γ (mV)": (params.gamma, params.tau_gamma)}
    for ax, (name, (sizes, taus)) in zip(axes[0], terms.items(), strict=True):
        kernel = sum((size * np.exp(-t / tau) for size, tau in zip(sizes, taus, strict=True)), np.zeros_like(t))
        held = t >= params.t_ref
        ax.plot(t[held], kernel[held])
        ax.axvspan(t[0], max(float(params.t_ref), t[0]), color="0.9", label="refractory")
        ax.axhline(0.0, color="0.6", linewidth=0.8)
        ax.set(xscale="log", xlabel="time after a spike (ms)", ylabel=name)
    axes[0, 0].legend()
    return figure


def all_sweeps(found: Inspection, recording: Recording) -> Figure:
    """Draw voltage, spikes and current of every sweep before any fit, the first sweep dark and the last light."""
    known = {"voltage (mV)": recording.voltage, "sweep": found.spikes, "current (pA)": recording.current}
    shown = {label: rows for label, rows in known.items() if rows is not None}
    with plt.rc_context(_STYLE):
        figure, axes = _subplots((8.0, 2.2 * len(shown)), len(shown), sharex=True)
        for ax, (label, rows) in zip(axes[:, 0], shown.items(), strict=True):
            if label == "sweep":
                plotting.raster([recording.times[train] for train in rows], ax=ax)
            else:
                ax.set_prop_cycle(color=plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(rows))))
                ax.plot(recording.times, rows.T, linewidth=0.7)
            ax.set(xlabel="", ylabel=label)
        ax.set_xlabel("time (ms)")
    return figure
