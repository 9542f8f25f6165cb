"""The figures of a fit, each with its caption: what a report shows."""

from collections.abc import Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlif import plotting
from jaxlif.fitting.intervals import Uncertainty
from jaxlif.fitting.result import Prediction, RecordingFit
from jaxlif.inspection import Inspection
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, repeats, step_family
from jaxlif.spiketrains import on_grid
from jaxlif.theory import firing_rate

WORST, WORST_LENGTH = 3, 250.0  # how many of the worst segments are shown, and how long each of them is, ms

NAMES = ("f_i_curve", "voltage", "steps", "raster", "kernels", "correlations", "intervals", "worst")


class Picture(NamedTuple):
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


def pictures(fit: RecordingFit, recording: Recording | None = None) -> Iterator[Picture]:
    """Draw the figures of a fit one by one; whoever takes one closes it.

    Args:
        fit: the fit.
        recording: what was fitted, for everything that needs voltages and spikes.

    Returns:
        An iterator over the :class:`Picture` values, in the order of a report.
    """
    if fit.curve:
        yield Picture("f_i_curve", "f-I curve: measured, and the closed form of the fitted neuron.", _curve(fit))
    if recording is None:
        return
    params, known, fit = (
        fit.params,
        fit.uncertainty,
        fit.as_scored(),
    )  # what is shown of a part that was not fitted is a prediction
    spikes = fit.spike_rule.find(recording)
    forced = fit.predict(recording, force_spikes=True)
    if fit.protocol == "steps" and fit.curve:
        yield from _of_steps(fit, recording, spikes, forced)
        return
    window, shown = _window(fit, recording), np.array(fit.held_out or range(recording.num_sweeps), int)
    part = "a part not fitted" if "test" in fit.scores else "the part that was fitted"
    caption = f"Voltage with the recorded spikes forced, and its residual away from spikes, in {part}."
    yield Picture("voltage", caption, _voltage(fit, recording, spikes, forced, window, shown))
    if not isinstance(params, LIFParams):
        return
    caption = f"Spikes of the cell's repeats and, above them, of the free-running model, with their rates, in {part}."
    yield Picture("raster", caption, _raster(fit, recording, spikes, window, shown))
    if isinstance(params, AdaptiveLIFParams):
        caption = "What a spike leaves behind: the spike-triggered current η and the movement of the threshold γ."
        yield Picture("kernels", caption, _kernels(params))
        if known is not None:
            caption = "Correlations of the parameters: near 1 or -1 the data determine only a combination of the two."
            yield Picture("correlations", caption, _correlations(known))
    yield from _common(fit, recording, spikes, forced, fit.predict(recording, seed=fit.seed))


def all_sweeps(found: Inspection, recording: Recording) -> Figure:
    """Draw voltage, spikes and current of every sweep before any fit, the first sweep dark and the last light."""
    known = {"voltage (mV)": recording.voltage, "sweep": found.spikes, "current (pA)": recording.current}
    shown = {label: rows for label, rows in known.items() if rows is not None}
    figure, axes = plt.subplots(len(shown), 1, figsize=(8.0, 2.2 * len(shown)), sharex=True, squeeze=False)
    for ax, (label, rows) in zip(axes[:, 0], shown.items(), strict=True):
        if label == "sweep":
            plotting.raster([recording.times[train] for train in rows], ax=ax)
        else:
            ax.set_prop_cycle(color=plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(rows))))
            ax.plot(recording.times, rows.T, linewidth=0.7)
        ax.set(xlabel="", ylabel=label)
    ax.set_xlabel("time (ms)")
    return figure


def _of_steps(fit: RecordingFit, recording: Recording, spikes: np.ndarray, forced: Prediction) -> Iterator[Picture]:
    free = fit.predict(recording)
    caption = "Voltage of four steps: recorded, and the free-running model with its spikes drawn to 20 mV."
    yield Picture("steps", caption, _steps(fit, recording, free))
    caption = "Spikes of every sweep, the cell's in black and the model's above them, with their mean rates."
    yield Picture("raster", caption, _step_raster(fit, recording, spikes, free))
    yield from _common(fit, recording, spikes, forced, free)


def _common(
    fit: RecordingFit, recording: Recording, spikes: np.ndarray, forced: Prediction, free: Prediction
) -> Iterator[Picture]:
    """Draw what every recording has: intervals between spikes, and where the voltage is worst."""
    if (spikes.sum(axis=1) > 1).any():
        yield Picture(
            "intervals", "Intervals between spikes: the cell's and the model's.", _intervals(recording, spikes, free)
        )
    segments = _worst_segments(fit, recording, spikes, forced)
    if segments:
        caption = (
            "Where the voltage with the recorded spikes forced is worst, away from spikes: the largest RMSE first."
        )
        yield Picture("worst", caption, _worst(fit, recording, spikes, forced, segments))


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
    levels = [test.level for test in step_family(recording).tests]
    for ax, sweep in zip(axes[:, 0], chosen, strict=True):
        spikes = _spikes(free, recording, sweep)
        voltages = {"recorded": recording.measured_voltage()[sweep], "model": free.voltage[sweep]}
        plotting.trace(recording.times, voltages["recorded"], ax=ax, label="recorded", color="black")
        plotting.trace(recording.times, voltages["model"], spikes, ax=ax, label="model", color=plotting.PALETTE[1])
        ax.set_title(f"{levels[sweep]:.4g} pA")
        ax.label_outer()
        if sweep != chosen[0]:
            ax.get_legend().remove()
    margin = 0.2 * (stop - start)
    axes[0, 0].set_xlim(max(start - margin, recording.start), min(stop + margin, recording.times[-1]))
    return figure


def _voltage(
    fit: RecordingFit,
    recording: Recording,
    spikes: np.ndarray,
    forced: Prediction,
    window: tuple[float, float],
    shown: np.ndarray,
) -> Figure:
    part, samples = recording.window(*window), _samples(recording, window)
    figure, axes = plt.subplots(
        2, 1, figsize=(9.0, 5.0), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [2, 1]}
    )
    # A sweep with a typical number of spikes.
    sweep = int(shown[np.argsort(spikes[shown, samples].sum(axis=1), kind="stable")[len(shown) // 2]])
    train = spikes[sweep, samples]
    compared = _compared(fit, recording, spikes)[sweep, samples]
    # The recorded voltage holds the electrode's drop.
    predicted = np.where(compared, (forced.voltage + forced.electrode_drop)[sweep, samples], np.nan)
    labels = (f"recorded, sweep {sweep}", "model, recorded spikes forced")
    plotting.fit_overlay(part.times, part.measured_voltage()[sweep], predicted, train, axes=axes, labels=labels)
    return figure


def _raster(
    fit: RecordingFit, recording: Recording, spikes: np.ndarray, window: tuple[float, float], shown: np.ndarray
) -> Figure:
    """Draw the spikes of the most repeated stimulus, the model's above them, and the rates of both in bins of 10 ms."""
    group = max(
        (shown[g] for g in repeats(recording.select(shown))), key=lambda g: (spikes[g].any(), len(g), spikes[g].sum())
    )
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
    _rates(rate, {"cell": cell, "model": own}, window, 10.0)
    return figure


def _step_raster(fit: RecordingFit, recording: Recording, spikes: np.ndarray, free: Prediction) -> Figure:
    """Draw the spikes of all sweeps by their level, each with the model's above it, and the rates of both."""
    start, stop = fit.curve["epoch_ms"]
    levels = np.median(recording.window(start, stop).current, axis=1)
    order = np.argsort(levels, kind="stable")
    figure, (ax, rate) = plt.subplots(
        2, 1, figsize=(9.0, 5.0), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [2, 1]}
    )
    own = [free.spike_time[free.spike_sweep == sweep] + recording.start for sweep in order]
    cell = [recording.times[spikes[sweep]] for sweep in order]
    for trains, color, height in ((cell, "black", 0.0), (own, plotting.PALETTE[1], 0.4)):
        rows = np.repeat(np.arange(len(trains)), [len(train) for train in trains]) + height
        size = float(np.clip(110.0 / len(order), 1.5, 7.0))
        ax.plot(np.concatenate(trains), rows, "|", color=color, markersize=size, markeredgewidth=0.8)
    shown = np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))
    ax.set_yticks(shown, [f"{levels[order[n]]:.4g}" for n in shown])
    ax.set(ylabel="current (pA)", ylim=(-0.6, len(order)))
    margin = 0.1 * (stop - start)
    window = max(start - margin, recording.start), min(stop + margin, float(recording.times[-1]))
    _rates(rate, {"cell": cell, "model": own}, window, max(10.0, (stop - start) / 50.0))
    return figure


def _rates(ax: Axes, trains: dict[str, list[np.ndarray]], window: tuple[float, float], width: float) -> None:
    """Draw the mean rates of the cell's trains and of the model's, in bins of a width."""
    bins = np.arange(window[0], window[1] + 1e-6, width)
    for (name, rows), color in zip(trains.items(), ("black", plotting.PALETTE[1]), strict=True):
        counts = np.histogram(np.concatenate(rows), bins)[0]
        ax.stairs(1000.0 * counts / (width * len(rows)), bins, color=color, label=name)
    ax.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=window)
    ax.legend()


def _correlations(known: Uncertainty) -> Figure:
    figure, ax = plt.subplots(figsize=(6.0, 5.2), layout="constrained")
    image = ax.imshow(known.correlations, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    places = range(len(known.names))
    ax.set_xticks(places, known.names, rotation=90)
    ax.set_yticks(places, known.names)
    figure.colorbar(image, ax=ax, label="correlation")
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


def _intervals(recording: Recording, spikes: np.ndarray, free: Prediction) -> Figure:
    cell = np.concatenate([np.diff(recording.times[train]) for train in spikes])
    model = np.concatenate([np.diff(free.spike_time[free.spike_sweep == s]) for s in range(recording.num_sweeps)])
    figure, ax = plt.subplots(figsize=(6.0, 3.0), layout="constrained")
    both = np.concatenate([cell, model])
    bins = np.geomspace(0.9 * both.min(), 1.1 * both.max(), 40)
    for name, intervals, color in (("cell", cell, "black"), ("model", model, plotting.PALETTE[1])):
        label = f"{name}, {len(intervals)} intervals"
        ax.hist(intervals, list(bins), histtype="step", color=color, label=label)
    ax.set(xscale="log", xlabel="interval (ms)", ylabel="intervals")
    ax.legend()
    return figure


def _worst_segments(
    fit: RecordingFit, recording: Recording, spikes: np.ndarray, forced: Prediction
) -> list[tuple[int, int, int, float]]:
    """Return sweep, first and last sample and RMSE of the segments with the largest error, at most one a sweep."""
    squares = (recording.measured_voltage() - forced.voltage - forced.electrode_drop) ** 2
    squares[~_compared(fit, recording, spikes)] = np.nan
    if fit.protocol == "steps":
        start, stop = fit.curve["epoch_ms"]
        # Above threshold the voltage is the spike mechanism's, and after the step nothing was fitted.
        squares[spikes[:, _samples(recording, (start, stop))].any(axis=1)] = np.nan
        squares[:, recording.times > stop] = np.nan
    length = min(recording.num_steps, round(WORST_LENGTH / recording.dt))
    blocks = squares[:, : recording.num_steps // length * length].reshape(recording.num_sweeps, -1, length)
    known = np.isfinite(blocks).mean(axis=2) > 0.2
    errors = np.where(known, np.sqrt(np.nansum(blocks, axis=2) / np.maximum(1, np.isfinite(blocks).sum(axis=2))), -1.0)
    best = errors.argmax(axis=1)
    worst = [(s, int(b) * length, (int(b) + 1) * length, float(errors[s, b])) for s, b in enumerate(best)]
    return sorted((segment for segment in worst if segment[3] >= 0.0), key=lambda segment: -segment[3])[:WORST]


def _compared(fit: RecordingFit, recording: Recording, spikes: np.ndarray) -> np.ndarray:
    before, after = (round(t / recording.dt) for t in fit.spike_cut)
    return spike_mask(spikes.T, before=before, after=after).T


def _worst(
    fit: RecordingFit,
    recording: Recording,
    spikes: np.ndarray,
    forced: Prediction,
    segments: list[tuple[int, int, int, float]],
) -> Figure:
    figure, axes = plt.subplots(1, len(segments), figsize=(9.0, 2.8), squeeze=False, layout="constrained")
    predicted = np.where(_compared(fit, recording, spikes), forced.voltage + forced.electrode_drop, np.nan)
    recorded = recording.measured_voltage()
    for ax, (sweep, first, last, error) in zip(axes[0], segments, strict=True):
        part = slice(first, last)
        plotting.trace(recording.times[part], recorded[sweep, part], ax=ax, label="recorded", color="black")
        color = plotting.PALETTE[1]
        plotting.trace(recording.times[part], predicted[sweep, part], ax=ax, label="model", color=color)
        ax.set_title(f"sweep {sweep}: RMSE {error:.3g} mV")
        ax.label_outer()
        if ax is not axes[0, 0]:
            ax.get_legend().remove()
    return figure


def _window(fit: RecordingFit, recording: Recording) -> tuple[float, float]:
    """Return a second of the part that was held out, or of the whole where nothing was."""
    start = fit.scores.get("test", fit.scores["train"])["start_ms"]
    return start, min(start + 1000.0, recording.start + recording.duration)


def _samples(recording: Recording, window: tuple[float, float]) -> slice:
    return slice(*(round((t - recording.start) / recording.dt) for t in window))


def _spikes(prediction: Prediction, recording: Recording, sweep: int) -> np.ndarray:
    own = (prediction.spike_sweep == sweep) & (prediction.spike_repeat == 0)
    return on_grid(prediction.spike_time[own], recording.dt, recording.num_steps)
