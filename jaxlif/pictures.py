"""The figures of a fit, each with its caption: what a report shows; and that of a recording before any fit."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.bounds import STANDARD_NAMES
from jaxlif.fitting.result import KERNELS, RecordingFit
from jaxlif.fitting.several import RecordingFits
from jaxlif.inspection import Inspection
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, repeats
from jaxlif.spiketrains import on_grid
from jaxlif.theory import firing_rate, rheobase
from jaxlif.traces import Answers, envelope

PANELS = 48  # steps that are drawn, and
PIXELS = 300  # to each of them
PARTS = {"fitted": "full", "held out": "none", "left out": "left"}  # how a sweep's dots are filled
PLAIN = ("tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref", "delta_v")  # what cells are compared by
_AROUND = (5.0, 10.0)  # ms before and after a spike that are drawn
_LAID = 500  # spikes that are laid over one another at most
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


def pictures(fit: RecordingFit, answers: Answers | None = None) -> Iterator[Picture]:
    """Draw the figures of a fit one by one, in the order of a report; whoever takes one saves or closes it."""
    with plt.rc_context(_STYLE):
        if answers is None:
            figure, axes = _subplots((6.0, 4.0))
            currents, rates = (np.array(fit.curve[name]) for name in ("current_pA", "rate_Hz"))
            fine = np.linspace(currents.min(), currents.max(), 400)
            fitted = np.asarray(firing_rate(fit.params, fine))
            plotting.fi_curve(currents, rates, fine, fitted, theory_label="fitted closed form", ax=axes[0, 0])
            yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", figure)
            return
        if answers.recording.voltage is not None and answers.spikes.any():
            caption = "Where spikes were found: in sweeps with few, a typical number and the most, and all of them laid"
            figure = _found(answers.recording, answers.spikes)
            yield Picture("spikes", f"{caption} over one another, the marked sample at 0 ms.", figure)
        yield from _of_steps(answers) if answers.steps else _judged(answers)
        if isinstance(fit.params, AdaptiveLIFParams) and (fit.params.eta or fit.params.gamma):
            caption = (
                "What a spike leaves behind once the refractory period is over, with its 95 % band: the spike-triggered"
                " current η and the movement of the threshold γ."
            )
            yield Picture("kernels", caption, _kernels(fit, float(fit.params.t_ref)))


# --- steps ------------------------------------------------------------------------------------------------


def _of_steps(answers: Answers) -> Iterator[Picture]:
    """Draw f-I curve, sweeps and spikes of a family of steps, the model running freely."""
    if answers.fires:
        caption = (
            "f-I curve, counted in each sweep: filled what was fitted, open what was held out. The rheobase of the cell"
            " lies in the grey band, that of the model at the dashed line."
        )
        yield Picture("f_i_curve", caption, _counted_curve(answers))
    order = np.argsort([step.level for step in answers.steps], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, PANELS).round().astype(int))]
    which = "all steps" if len(chosen) == len(order) else f"{len(chosen)} of {len(order)} steps"
    caption = f"Voltage of {which}, recorded in black and of the free-running model in colour (* held out)."
    yield Picture("steps", caption, _all_steps(answers, chosen))
    if not answers.fires:
        return
    window = _around(answers)
    model, cell = ([trains[n] for n in order] for trains in (answers.model, answers.cell))
    figure, ax = _raster(cell, model, 0.4, window, max(10.0, (window[1] - window[0]) / 60.0))
    ticks = np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))
    ax.set_yticks(ticks, [f"{answers.steps[order[n]].level:.4g}" for n in ticks])
    ax.set_ylabel("current (pA)")
    caption = "Spikes of every sweep, the cell's in black and the model's above them, with their mean rates."
    yield Picture("raster", caption, figure)


def _around(answers: Answers) -> tuple[float, float]:
    """Return the time of the steps with a tenth of it on both sides, ms."""
    recording = answers.recording
    first, last = min(s.start for s in answers.steps), max(s.stop for s in answers.steps)
    margin = (last - first) // 10
    ends = max(first - margin, 0), min(last + margin, recording.num_steps) - 1
    return float(recording.times[ends[0]]), float(recording.times[ends[1]])


def _counted_curve(answers: Answers) -> Figure:
    """Draw the rates of cell and model in the step of each sweep, and where both begin to fire."""
    figure, axes = _subplots((6.4, 4.0))
    ax, dt, times = axes[0, 0], answers.recording.dt, answers.recording.times
    levels = np.array([step.level for step in answers.steps])
    order = np.argsort(levels, kind="stable")
    firing = {}
    for name, trains, color, marker in (("cell", answers.cell, CELL, "o"), ("model", answers.model, MODEL, "s")):
        spans = [(times[s.start], times[s.stop - 1], dt * (s.stop - s.start)) for s in answers.steps]
        counted = zip(trains, spans, strict=True)
        rates = np.array([1000.0 * np.sum((t >= low) & (t <= high)) / length for t, (low, high, length) in counted])
        firing[name] = levels[rates > 0.0]
        ax.plot(levels[order], rates[order], color=color, linewidth=0.8, alpha=0.6)
        for text in PARTS:
            seen = answers.part == text
            look: dict[str, Any] = {"color": color, "fillstyle": PARTS[text], "label": f"{name}, {text}"}
            if seen.any():
                ax.plot(levels[seen], rates[seen], marker, **look)
    if firing["cell"].size:
        silent = levels[levels < firing["cell"].min()]
        ax.axvspan(silent.max() if silent.size else levels.min(), firing["cell"].min(), color="0.9", zorder=0)
    params = answers.scored.params  # of a plain neuron in closed form, of others the lowest step that fires
    onset = float(rheobase(params)) if type(params) is LIFParams else firing["model"].min(initial=np.inf)
    if levels.min() <= onset <= levels.max():
        ax.axvline(onset, color=MODEL, linestyle="--", linewidth=0.9)
    ax.set(xlabel="current (pA)", ylabel="firing rate (Hz)", ylim=(0.0, None))
    ax.margins(x=0.03)
    ax.legend()
    return figure


def _all_steps(answers: Answers, chosen: np.ndarray) -> Figure:
    """Draw recorded and free-running voltage of sweeps, a panel each, the axes those of the recording."""
    recording, window = answers.recording, _around(answers)
    part = (recording.times >= window[0]) & (recording.times <= window[1])
    recorded, own = recording.measured_voltage()[:, part], answers.free.voltage[:, part]
    low, high = float(recorded.min()), float(recorded.max())
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = _subplots((9.0, 0.6 + 1.25 * rows), rows, columns, sharex=True, sharey=True)
    for ax, sweep in zip(axes.flat, chosen, strict=False):
        spikes = on_grid(answers.model[sweep] - recording.start, recording.dt, recording.num_steps)[part]
        for values, color in ((np.where(spikes > 0, high, own[sweep]), MODEL), (recorded[sweep], CELL)):
            drawn, samples = envelope(values, PIXELS)
            ax.plot(window[0] + samples * recording.dt * np.arange(drawn.size), drawn, color=color, linewidth=0.7)
        mark = " *" if answers.part[sweep] == "held out" else ""
        ax.set_title(f"{answers.steps[sweep].level:.4g} pA{mark}", fontsize="small", pad=2.0)
    for n, ax in enumerate(axes.flat):
        ax.tick_params(labelbottom=n + columns >= len(chosen))
        if n >= len(chosen):
            ax.set_axis_off()
    axes[0, 0].set(xlim=window, ylim=(low - 0.03 * (high - low), high + 0.03 * (high - low)))
    figure.supxlabel("time (ms)", fontsize="medium")
    figure.supylabel("voltage (mV)", fontsize="medium")
    return figure


# --- any other current ------------------------------------------------------------------------------------


def _judged(answers: Answers) -> Iterator[Picture]:
    """Draw a second of the part that was held out, or of the whole, in the sweeps that were, or all."""
    fit, recording, spikes = answers.scored, answers.recording, answers.spikes
    sweeps = np.array(fit.held_out or range(recording.num_sweeps), int)
    window, samples = _second(recording, spikes[sweeps], fit.scores.get("test", fit.scores["train"]))
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"

    # The voltage with forced spikes is what the electrode would see, of a sweep with a typical number of spikes.
    sweep = int(sweeps[np.argsort(spikes[sweeps, samples].sum(axis=1), kind="stable")[len(sweeps) // 2]])
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    compared = spike_mask(spikes[sweep], before=before, after=after)
    forced = np.where(compared, answers.forced[sweep], np.nan)
    voltages = recording.measured_voltage()[sweep, samples], forced[samples]
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    plotting.fit_overlay(recording.times[samples], *voltages, spikes[sweep, samples], labels=labels)
    figure = plt.gcf()
    figure.set_size_inches(9.0, 5.0)
    figure.axes[0].set_xlim(window)
    caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
    yield Picture("voltage", caption, figure)
    if not answers.fires:
        return

    # The most repeated stimulus, and rates in bins of 10 ms.
    groups = (sweeps[g] for g in repeats(recording.select(sweeps)))
    group = max(groups, key=lambda g: (spikes[g].any(), len(g), spikes[g].sum()))
    cell = [recording.times[train] for train in spikes[group]]
    count = len(group) if fit.model == "gif" else 1
    free = answers.to(recording.select(group[:1]), repeats=count, seed=fit.seed)
    own = [free.spike_time[free.spike_repeat == k] + recording.start for k in range(count)]
    figure, ax = _raster(cell, own, len(cell), window, 10.0)
    ax.set_yticks([0, len(cell) - 1, len(cell) + 0.5 * (count - 1)], ["1", str(len(cell)), "model"])
    ax.set_ylabel("repeat")
    caption = f"Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in {part}."
    yield Picture("raster", caption, figure)


def _second(recording: Recording, spikes: np.ndarray, part: Mapping[str, Any]) -> tuple[tuple[float, float], slice]:
    """Return the first second of a part of the time in which the cell fires as often as in most, and its samples."""
    length = round(1000.0 / recording.dt)
    first, last = (round((part[name] - recording.start) / recording.dt) for name in ("start_ms", "stop_ms"))
    starts = np.arange(first, max(last - length, first) + 1, length)
    counts = np.array([spikes[:, n : n + length].sum() for n in starts])
    n = int(starts[np.argmax(counts >= np.median(counts))])
    ends = n, min(n + length, recording.num_steps)
    return (recording.start + recording.dt * ends[0], recording.start + recording.dt * ends[1]), slice(*ends)


def _subplots(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


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


def _kernels(fit: RecordingFit, t_ref: float) -> Figure:
    """Draw both kernels after the refractory period, which hides them, with their bands."""
    figure, axes = _subplots((9.0, 3.0), 1, 2)
    first = max(t_ref, 1.0)
    t = np.geomspace(first, max(500.0, 2.0 * first), 300)
    for ax, (kind, (name, unit)) in zip(axes[0], KERNELS.items(), strict=True):
        value, low, high = fit.kernel(kind, t)
        ax.plot(t, value, color=MODEL)
        ax.fill_between(t, low, high, color=MODEL, alpha=0.25, linewidth=0)
        ax.axhline(0.0, color=plotting.GUIDE, linewidth=0.8)
        ax.set(xscale="log", xlabel="time after a spike (ms)", ylabel=f"{name} ({unit})", xlim=(t[0], t[-1]))
    return figure


def parameters_of(found: RecordingFits) -> Figure:
    """Draw the neuron's parameters of several cells, a cell a row, with their 95 % intervals."""
    table, missing = found.table(), [None] * len(found.fits)
    names = [name for name in STANDARD_NAMES if name in table and name in PLAIN]
    with plt.rc_context(_STYLE):
        height = 1.2 + 0.22 * len(found.fits)
        figure, axes = _subplots((1.6 + 1.6 * len(names), height), 1, len(names), sharey=True)
        for ax, name in zip(axes[0], names, strict=True):
            value, low, high = (np.array(table.get(name + end, missing), float) for end in ("", "_low", "_high"))
            plotting.estimates(value, low, high, table["cell"], xlabel=f"{name} ({STANDARD_NAMES[name][1]})", ax=ax)
            ax.tick_params(axis="y", length=0)
        figure.suptitle("bars 95 % interval, open: none estimated, cross: not determined", fontsize="small")
    return figure


def found_spikes(found: Inspection, recording: Recording) -> Figure | None:
    """Draw where spikes were found before any fit; None where there are none in a voltage."""
    if recording.voltage is None or found.spikes is None or not found.spikes.any():
        return None
    with plt.rc_context(_STYLE):
        return _found(recording, found.spikes)


def _found(recording: Recording, spikes: np.ndarray) -> Figure:
    """Draw dots on up to three sweeps, for a second around their lowest spike, and beside them all spikes together."""
    voltage, dt = recording.measured_voltage(), recording.dt
    before, after = round(_AROUND[0] / dt), round(_AROUND[1] / dt)
    where, when = np.nonzero(spikes[:, : -after - 1])
    own = np.clip(when[:, None] + np.arange(-before, after + 1), 0, None)
    shapes = voltage[where[:, None], own]
    counts = spikes.sum(axis=1)
    order = np.argsort(counts, kind="stable")[int((counts == 0).sum()) :]
    figure = plt.figure(figsize=(9.0, 5.5), layout="constrained")
    rows = np.unique(order[[0, len(order) // 2, -1]])
    grid = figure.add_gridspec(len(rows), 3)
    for n, sweep in enumerate(rows):
        mine = np.flatnonzero(where == sweep)
        lowest = when[mine[np.argmin(shapes[mine].max(axis=1))]] if mine.size else int(spikes[sweep].argmax())
        first = max(0, min(lowest - round(500.0 / dt), recording.num_steps - round(1000.0 / dt)))
        part = slice(first, first + round(1000.0 / dt))
        ax = figure.add_subplot(grid[n, :2])
        plotting.detected(recording.times[part], voltage[sweep, part], spikes[sweep, part], ax=ax)
        ax.set_title(f"sweep {sweep}, {counts[sweep]} spikes in all")
        ax.set_xlabel("time (ms)" if n == len(rows) - 1 else "")
    ax = figure.add_subplot(grid[:, 2])
    shown = shapes[np.unique(np.linspace(0, len(shapes) - 1, _LAID).round().astype(int))] if len(shapes) else shapes
    ax.plot(dt * np.arange(-before, after + 1), shown.T, color=CELL, linewidth=0.5, alpha=max(0.1, len(shown) ** -0.5))
    ax.axvline(0.0, color=MODEL, linewidth=0.8)
    ax.set(xlabel="from the marked sample (ms)", ylabel="voltage (mV)", title=f"all {counts.sum()} spikes")
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
