"""The figures of a fit, each with its caption: what a report shows; and that of a recording before any fit."""

import io
from collections.abc import Iterator
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
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
    with plt.rc_context(_STYLE):
        for caption, figure in _drawn(fit, recording):
            yield Picture(caption.removeprefix("step_"), _CAPTIONS[caption].format(part=part), figure)


def _drawn(fit: RecordingFit, recording: Recording | None) -> Iterator[tuple[str, Figure]]:
    if fit.curve:
        yield "f_i_curve", _curve(fit)
    if recording is None:
        return
    shown = _shown(fit.as_scored(), recording)  # of a part that was not fitted a prediction
    if fit.protocol == "steps" and fit.curve:
        free = shown.fit.predict(recording)
        yield "steps", _steps(shown, free)
        yield "step_raster", _step_raster(shown, free)
    else:
        yield "voltage", _voltage(shown)
        if not isinstance(fit.params, LIFParams):
            return
        free = shown.fit.predict(recording, seed=fit.seed)
        yield "raster", _raster(shown)
    if isinstance(fit.params, AdaptiveLIFParams):
        yield "kernels", _kernels(fit.params)
        if fit.uncertainty is not None:
            yield "correlations", _correlations(fit.uncertainty.names, fit.uncertainty.correlations)
    if (shown.spikes.sum(axis=1) > 1).any():
        yield "intervals", _intervals(shown, free)
    if segments := _worst_segments(shown):
        yield "worst", _worst(shown, segments)


_CAPTIONS = {
    "f_i_curve": "f-I curve: measured, and the closed form of the fitted neuron.",
    "steps": "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV.",
    "step_raster": "Spikes of every sweep, the cell's in black and the model's above them, with their mean rates.",
    "voltage": "Voltage with the recorded spikes forced, and its residual away from spikes, in {part}.",
    "raster": "Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in {part}.",
    "kernels": "What a spike leaves behind: the spike-triggered current η and the movement of the threshold γ.",
    "correlations": "Correlations of the parameters: near 1 or -1 the data determine only a combination of the two.",
    "intervals": "Intervals between spikes: the cell's and the model's.",
    "worst": "Where the voltage with the recorded spikes forced is worst, away from spikes: the largest RMSE first.",
}


class _Shown(NamedTuple):
    """A fit and its recording; the voltage with forced spikes is what the electrode would see, NaN around spikes."""

    fit: RecordingFit
    recording: Recording
    spikes: np.ndarray
    recorded: np.ndarray
    forced: np.ndarray


def _shown(fit: RecordingFit, recording: Recording) -> _Shown:
    spikes, found = fit.spike_rule.find(recording), fit.predict(recording, force_spikes=True)
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    compared = spike_mask(spikes.T, before=before, after=after).T
    forced = np.where(compared, found.voltage + found.electrode_drop, np.nan)
    return _Shown(fit, recording, spikes, recording.measured_voltage(), forced)


def _judged(shown: _Shown) -> tuple[tuple[float, float], np.ndarray]:
    """Return a second of the part that was held out, or of the whole, and the sweeps that were, or all."""
    start = shown.fit.scores.get("test", shown.fit.scores["train"])["start_ms"]
    window = start, min(start + 1000.0, shown.recording.start + shown.recording.duration)
    return window, np.array(shown.fit.held_out or range(shown.recording.num_sweeps), int)


def _samples(recording: Recording, start: float, stop: float) -> slice:
    return slice(*(round((t - recording.start) / recording.dt) for t in (start, stop)))


def _around_epoch(shown: _Shown, share: float) -> tuple[float, float]:
    """Return the epoch whose rates were fitted, with a share of its length on both sides."""
    start, stop = shown.fit.curve["epoch_ms"]
    margin = share * (stop - start)
    return max(start - margin, shown.recording.start), min(stop + margin, float(shown.recording.times[-1]))


def _trains(shown: _Shown, sweeps: np.ndarray | range) -> list[np.ndarray]:
    return [shown.recording.times[shown.spikes[sweep]] for sweep in sweeps]


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


def _beside(ax: Axes, title: str, times: Any, recorded: Any, model: Any, spikes: np.ndarray | None = None) -> None:
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
        _beside(ax, title, recording.times, shown.recorded[sweep], free.voltage[sweep], spikes)
    axes[0, 0].set_xlim(_around_epoch(shown, 0.2))
    return figure


def _voltage(shown: _Shown) -> Figure:
    """Draw a sweep with a typical number of spikes."""
    window, sweeps = _judged(shown)
    samples = _samples(shown.recording, *window)
    counts = shown.spikes[sweeps, samples].sum(axis=1)
    sweep = int(sweeps[np.argsort(counts, kind="stable")[len(counts) // 2]])
    figure, axes = _two_panels(5.0)
    voltages = shown.recorded[sweep, samples], shown.forced[sweep, samples]
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    times, spikes = shown.recording.times[samples], shown.spikes[sweep, samples]
    plotting.fit_overlay(times, *voltages, spikes, axes=axes, labels=labels)
    return figure


def _raster(shown: _Shown) -> Figure:
    """Draw the spikes of the most repeated stimulus, the model's above them, and the rates of both in bins of 10 ms."""
    fit, recording, spikes = shown.fit, shown.recording, shown.spikes
    window, sweeps = _judged(shown)
    groups = (sweeps[g] for g in repeats(recording.select(sweeps)))
    group = max(groups, key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell, count = _trains(shown, group), len(group) if fit.model == "gif" else 1
    free = fit.predict(recording.select(group[:1]), repeats=count, seed=fit.seed)
    own = [free.spike_time[free.spike_repeat == k] + recording.start for k in range(count)]
    figure, (ax, rate) = _two_panels(4.5)
    plotting.raster([*cell, *own], ylabel="repeat", ax=ax)
    ax.axhline(len(cell) - 0.5, color="0.6", linewidth=0.8)
    ax.set_yticks([0, len(cell) - 1, len(cell) + 0.5 * (count - 1)], ["1", str(len(cell)), "model"])
    ax.set_xlabel("")
    _rates(rate, cell, own, window, 10.0)
    return figure


def _step_raster(shown: _Shown, free: Prediction) -> Figure:
    """Draw the spikes of all sweeps by their level, each with the model's above it, and the rates of both."""
    start, stop = shown.fit.curve["epoch_ms"]
    levels = np.median(shown.recording.window(start, stop).current, axis=1)
    order = np.argsort(levels, kind="stable")
    figure, (ax, rate) = _two_panels(5.0)
    cell = _trains(shown, order)
    own = [free.spike_time[free.spike_sweep == sweep] + shown.recording.start for sweep in order]
    for trains, color, height in ((cell, CELL, 0.0), (own, MODEL, 0.4)):
        rows = np.repeat(np.arange(len(trains)), [len(train) for train in trains]) + height
        size = float(np.clip(110.0 / len(order), 1.5, 7.0))
        ax.plot(np.concatenate(trains), rows, "|", color=color, markersize=size, markeredgewidth=0.8)
    ticks = np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))
    ax.set_yticks(ticks, [f"{levels[order[n]]:.4g}" for n in ticks])
    ax.set(ylabel="current (pA)", ylim=(-0.6, len(order)))
    _rates(rate, cell, own, _around_epoch(shown, 0.1), max(10.0, (stop - start) / 50.0))
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
    sweeps = range(shown.recording.num_sweeps)
    cell = np.concatenate([np.diff(train) for train in _trains(shown, sweeps)])
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
        squares[shown.spikes[:, _samples(recording, start, stop)].any(axis=1)] = np.nan
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
        _beside(ax, title, shown.recording.times[part], shown.recorded[sweep, part], shown.forced[sweep, part])
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
