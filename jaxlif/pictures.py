"""The figures of a fit, each with its caption: what a report shows; and that of a recording before any fit."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.result import Prediction, RecordingFit
from jaxlif.inspection import Inspection
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, repeats, step_family
from jaxlif.spiketrains import on_grid
from jaxlif.theory import firing_rate

WORST, WORST_LENGTH = 3, 250.0  # how many of the worst segments are shown, and how long each of them is, ms
CELL, MODEL = "black", plotting.PALETTE[1]

# Without a fixed salt the names inside an SVG file, and with them its bytes, differ from run to run.
_STYLE = plotting.STYLE | {"svg.hashsalt": "jaxlif"}


class Image(NamedTuple):
    """A figure as files, with its name and caption."""

    name: str
    caption: str
    png: bytes
    svg: bytes


def images(fit: RecordingFit, recording: Recording | None = None) -> Iterator[Image]:
    """Draw the figures of a fit one by one as PNG and SVG."""
    with plt.rc_context(_STYLE):
        for picture in pictures(fit, recording):
            png = _saved(picture.figure, "png")
            picture.figure.set_layout_engine("none")  # the layout stays; made anew it would take as long as drawing
            svg = _saved(picture.figure, "svg")
            plt.close(picture.figure)
            yield Image(picture.name, picture.caption, png, svg)


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


class Picture(NamedTuple):
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


def pictures(fit: RecordingFit, recording: Recording | None = None) -> Iterator[Picture]:
    """Draw the figures of a fit one by one, in the order of a report; whoever takes one closes it."""
    if fit.curve:
        yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", _curve(fit))
    if recording is None:
        return
    # What is shown of a part that was not fitted is a prediction.
    shown = _Shown(fit.as_scored(), recording)
    if fit.protocol == "steps" and fit.curve:
        free = shown.fit.predict(recording)
        caption = "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV."
        yield Picture("steps", caption, _steps(shown, free))
        caption = "Spikes of every sweep, the cell's in black and the model's above them, with their mean rates."
        yield Picture("raster", caption, _step_raster(shown, free))
    else:
        part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
        caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
        yield Picture("voltage", caption, _voltage(shown))
        if not isinstance(fit.params, LIFParams):
            return
        caption = "Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in"
        yield Picture("raster", f"{caption} {part}.", _raster(shown))
        free = shown.fit.predict(recording, seed=fit.seed)
    if isinstance(fit.params, AdaptiveLIFParams):
        caption = "What a spike leaves behind: the spike-triggered current η and the movement of the threshold γ."
        yield Picture("kernels", caption, _kernels(fit.params))
        if fit.uncertainty is not None:
            caption = "Correlations of the parameters: near 1 or -1 the data determine only a combination of the two."
            figure = _correlations(fit.uncertainty.names, fit.uncertainty.correlations)
            yield Picture("correlations", caption, figure)
    if (shown.spikes.sum(axis=1) > 1).any():
        caption = "Intervals between spikes: the cell's and the model's."
        yield Picture("intervals", caption, _intervals(shown, free))
    if segments := _worst_segments(shown):
        caption = (
            "Where the voltage with the recorded spikes forced is worst, away from spikes: the largest RMSE first."
        )
        yield Picture("worst", caption, _worst(shown, segments))


@dataclass(frozen=True)
class _Shown:
    """A fit and what it was fitted to, with what several figures need of both."""

    fit: RecordingFit
    recording: Recording

    @cached_property
    def spikes(self) -> np.ndarray:
        return self.fit.spike_rule.find(self.recording)

    @cached_property
    def recorded(self) -> np.ndarray:
        return self.recording.measured_voltage()

    @cached_property
    def forced(self) -> np.ndarray:
        """The model's voltage with the recorded spikes forced, as the electrode sees it; NaN around spikes."""
        found = self.fit.predict(self.recording, force_spikes=True)
        before, after = (round(t / self.recording.dt) for t in self.fit.spike_cut)
        compared = spike_mask(self.spikes.T, before=before, after=after).T
        return np.where(compared, found.voltage + found.electrode_drop, np.nan)

    @cached_property
    def window(self) -> tuple[float, float]:
        """A second of the part that was held out, or of the whole where nothing was."""
        start = self.fit.scores.get("test", self.fit.scores["train"])["start_ms"]
        return start, min(start + 1000.0, self.recording.start + self.recording.duration)

    @cached_property
    def sweeps(self) -> np.ndarray:
        """Those that were held out, or all."""
        return np.array(self.fit.held_out or range(self.recording.num_sweeps), int)

    def samples(self, window: tuple[float, float]) -> slice:
        return slice(*(round((t - self.recording.start) / self.recording.dt) for t in window))

    def trains(self, sweeps: np.ndarray) -> list[np.ndarray]:
        return [self.recording.times[self.spikes[sweep]] for sweep in sweeps]

    def around_epoch(self, share: float) -> tuple[float, float]:
        """The epoch whose rates were fitted, with a share of its length on both sides."""
        start, stop = self.fit.curve["epoch_ms"]
        times, margin = self.recording.times, share * (stop - start)
        return max(start - margin, self.recording.start), min(stop + margin, float(times[-1]))


def _subplots(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def _two_panels(height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    figure, axes = _subplots((9.0, height), 2, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    return figure, (axes[0, 0], axes[1, 0])


def _curve(fit: RecordingFit) -> Figure:
    figure, axes = _subplots((6.0, 4.0))
    currents, rates = (np.array(fit.curve[name]) for name in ("current_pA", "rate_Hz"))
    fine = np.linspace(currents.min(), currents.max(), 400)
    fitted = np.asarray(firing_rate(fit.params, fine))
    plotting.fi_curve(currents, rates, fine, fitted, theory_label="fitted closed form", ax=axes[0, 0])
    return figure


def _beside(ax: Axes, times: np.ndarray, recorded: np.ndarray, model: np.ndarray, spikes=None, title: str = "") -> None:
    """Draw a recorded voltage under the model's, which are named in the first panel of a figure."""
    plotting.trace(times, recorded, ax=ax, label="recorded", color=CELL)
    plotting.trace(times, model, spikes, ax=ax, label="model", color=MODEL)
    ax.set_title(title)
    ax.label_outer()
    if ax is not ax.figure.axes[0] and (legend := ax.get_legend()):
        legend.remove()


def _steps(shown: _Shown, free: Prediction) -> Figure:
    """Draw four sweeps around the epoch whose rates were fitted."""
    recording = shown.recording
    chosen = np.unique(np.linspace(0, recording.num_sweeps - 1, 4).round().astype(int))
    figure, axes = _subplots((9.0, 1.9 * len(chosen)), len(chosen), sharex=True)
    levels = [test.level for test in step_family(recording).tests]
    for ax, sweep in zip(axes[:, 0], chosen, strict=True):
        own = (free.spike_sweep == sweep) & (free.spike_repeat == 0)
        spikes = on_grid(free.spike_time[own], recording.dt, recording.num_steps)
        title = f"{levels[sweep]:.4g} pA"
        _beside(ax, recording.times, shown.recorded[sweep], free.voltage[sweep], spikes, title)
    axes[0, 0].set_xlim(shown.around_epoch(0.2))
    return figure


def _voltage(shown: _Shown) -> Figure:
    """Draw a sweep with a typical number of spikes."""
    samples = shown.samples(shown.window)
    counts = shown.spikes[shown.sweeps, samples].sum(axis=1)
    sweep = int(shown.sweeps[np.argsort(counts, kind="stable")[len(counts) // 2]])
    figure, axes = _two_panels(5.0)
    voltages = shown.recorded[sweep, samples], shown.forced[sweep, samples]
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    times, spikes = shown.recording.times[samples], shown.spikes[sweep, samples]
    plotting.fit_overlay(times, *voltages, spikes, axes=axes, labels=labels)
    return figure


def _raster(shown: _Shown) -> Figure:
    """Draw the spikes of the most repeated stimulus, the model's above them, and the rates of both in bins of 10 ms."""
    fit, recording, spikes = shown.fit, shown.recording, shown.spikes
    groups = (shown.sweeps[g] for g in repeats(recording.select(shown.sweeps)))
    group = max(groups, key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell, count = shown.trains(group), len(group) if fit.model == "gif" else 1
    free = fit.predict(recording.select(group[:1]), repeats=count, seed=fit.seed)
    own = [free.spike_time[free.spike_repeat == k] + recording.start for k in range(count)]
    figure, (ax, rate) = _two_panels(4.5)
    plotting.raster([*cell, *own], ylabel="repeat", ax=ax)
    ax.axhline(len(cell) - 0.5, color="0.6", linewidth=0.8)
    ax.set_yticks([0, len(cell) - 1, len(cell) + 0.5 * (count - 1)], ["1", str(len(cell)), "model"])
    ax.set_xlabel("")
    _rates(rate, cell, own, shown.window, 10.0)
    return figure


def _step_raster(shown: _Shown, free: Prediction) -> Figure:
    """Draw the spikes of all sweeps by their level, each with the model's above it, and the rates of both."""
    start, stop = shown.fit.curve["epoch_ms"]
    levels = np.median(shown.recording.window(start, stop).current, axis=1)
    order = np.argsort(levels, kind="stable")
    figure, (ax, rate) = _two_panels(5.0)
    cell = shown.trains(order)
    own = [free.spike_time[free.spike_sweep == sweep] + shown.recording.start for sweep in order]
    for trains, color, height in ((cell, CELL, 0.0), (own, MODEL, 0.4)):
        rows = np.repeat(np.arange(len(trains)), [len(train) for train in trains]) + height
        size = float(np.clip(110.0 / len(order), 1.5, 7.0))
        ax.plot(np.concatenate(trains), rows, "|", color=color, markersize=size, markeredgewidth=0.8)
    ticks = np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))
    ax.set_yticks(ticks, [f"{levels[order[n]]:.4g}" for n in ticks])
    ax.set(ylabel="current (pA)", ylim=(-0.6, len(order)))
    _rates(rate, cell, own, shown.around_epoch(0.1), max(10.0, (stop - start) / 50.0))
    return figure


def _rates(
    ax: Axes, cell: list[np.ndarray], model: list[np.ndarray], window: tuple[float, float], width: float
) -> None:
    """Draw the mean rates of the cell's trains and of the model's, in bins of a width."""
    bins = np.arange(window[0], window[1] + 1e-6, width)
    for name, trains, color in (("cell", cell, CELL), ("model", model, MODEL)):
        counts = np.histogram(np.concatenate(trains), bins)[0]
        ax.stairs(1000.0 * counts / (width * len(trains)), bins, color=color, label=name)
    ax.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=window)
    ax.legend()


def _correlations(names: tuple[str, ...], correlations: np.ndarray) -> Figure:
    figure, axes = _subplots((6.0, 5.2))
    image = axes[0, 0].imshow(correlations, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    axes[0, 0].set_xticks(range(len(names)), names, rotation=90)
    axes[0, 0].set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=axes[0, 0], label="correlation")
    return figure


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


def _intervals(shown: _Shown, free: Prediction) -> Figure:
    sweeps = np.arange(shown.recording.num_sweeps)
    cell = np.concatenate([np.diff(train) for train in shown.trains(sweeps)])
    model = np.concatenate([np.diff(free.spike_time[free.spike_sweep == s]) for s in sweeps])
    figure, axes = _subplots((6.0, 3.0))
    ax, both = axes[0, 0], np.concatenate([cell, model])
    bins = np.geomspace(0.9 * both.min(), 1.1 * both.max(), 40)
    for name, intervals, color in (("cell", cell, CELL), ("model", model, MODEL)):
        ax.hist(intervals, list(bins), histtype="step", color=color, label=f"{name}, {len(intervals)} intervals")
    ax.set(xscale="log", xlabel="interval (ms)", ylabel="intervals")
    ax.legend()
    return figure


def _worst_segments(shown: _Shown) -> list[tuple[int, slice, float]]:
    """Return sweep, samples and RMSE of the segments with the largest error of the voltage, at most one a sweep."""
    recording = shown.recording
    squares = (shown.recorded - shown.forced) ** 2
    if shown.fit.protocol == "steps":
        start, stop = shown.fit.curve["epoch_ms"]
        # Above threshold the voltage is the spike mechanism's, and after the step nothing was fitted.
        squares[shown.spikes[:, shown.samples((start, stop))].any(axis=1)] = np.nan
        squares[:, recording.times > stop] = np.nan
    length = min(recording.num_steps, round(WORST_LENGTH / recording.dt))
    blocks = squares[:, : recording.num_steps // length * length].reshape(recording.num_sweeps, -1, length)
    known = np.isfinite(blocks).sum(axis=2)
    errors = np.where(known > 0.2 * length, np.sqrt(np.nansum(blocks, axis=2) / np.maximum(1, known)), -1.0)
    best = errors.argmax(axis=1) * length
    worst = [(s, slice(n, n + length), float(errors[s, n // length])) for s, n in enumerate(best.tolist())]
    return sorted((segment for segment in worst if segment[2] >= 0.0), key=lambda segment: -segment[2])[:WORST]


def _worst(shown: _Shown, segments: list[tuple[int, slice, float]]) -> Figure:
    figure, axes = _subplots((9.0, 2.8), 1, len(segments))
    for ax, (sweep, part, error) in zip(axes[0], segments, strict=True):
        title = f"sweep {sweep}: RMSE {error:.3g} mV"
        _beside(ax, shown.recording.times[part], shown.recorded[sweep, part], shown.forced[sweep, part], title=title)
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
