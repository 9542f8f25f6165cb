"""Voltages, spikes and rates against time or current."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from jaxlif.plotting.style import GUIDE, PALETTE, STYLE, drawing_axes, finish, over_time, same_shape, vector


def trace(
    t: ArrayLike,
    v: ArrayLike,
    spikes: ArrayLike | None = None,
    *,
    spike_height: float = 20.0,
    v_th: float | None = None,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """Draw voltages against time, each spike by hand as one sample at ``spike_height``.

    Args:
        t: times, ms, [T].
        v: voltages, mV, [T] or [T, N].
        spikes: 0 or 1, of the shape of ``v``; none drawn by default.
        spike_height: what a spike rises to for one step, mV.
        v_th: threshold to mark, mV.
        ax: Axes to draw on; a new figure by default.
        **line: properties of the line, such as ``label`` or ``color``.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not fit together.

    Example:
        >>> ax = trace([0.1, 0.2, 0.3], [-56.0, -65.0, -64.0], spikes=[0, 1, 0])
        >>> ax.lines[0].get_ydata().tolist()
        [-56.0, 20.0, -64.0]
    """
    t, v = vector("t", t), over_time("v", v, "t", t)
    if spikes is not None:
        spikes = same_shape("spikes", spikes, "v", v)
        v = np.where(spikes > 0, spike_height, v)
    ax = drawing_axes(ax)
    ax.plot(t, v, **line)
    if v_th is not None:
        _mark_threshold(ax, v_th)
    return finish(ax, "time (ms)", "voltage (mV)")


def raster(
    spikes_or_times: ArrayLike | Sequence[ArrayLike],
    t: ArrayLike | None = None,
    *,
    ylabel: str = "neuron",
    ax: Axes | None = None,
    **marks: Any,
) -> Axes:
    """Draw a tick for each spike: neurons or trials upwards, time to the right.

    Args:
        spikes_or_times: with ``t``, 0 or 1, [T] or [T, N]; without, a list of N arrays of spike times, ms.
        t: times, ms, [T].
        ylabel: what a row is, such as "trial".
        ax: Axes to draw on; a new figure by default.
        **marks: properties of the ticks, such as ``color`` or ``markersize``.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not fit together.

    Example:
        >>> ax = raster([[12.0, 40.0], [], [25.0]], ylabel="trial")
        >>> ax.lines[0].get_xdata().tolist(), ax.lines[0].get_ydata().tolist()
        ([12.0, 40.0, 25.0], [0, 0, 2])
    """
    trains = _listed_trains(spikes_or_times) if t is None else _grid_trains(spikes_or_times, t)
    rows = np.repeat(np.arange(len(trains)), [train.size for train in trains])
    ax = drawing_axes(ax)
    size = float(np.clip(300.0 / max(len(trains), 1), 1.5, 9.0))
    look: dict[str, Any] = {"color": "black", "markersize": size, "markeredgewidth": 0.8} | marks
    ax.plot(np.concatenate([*trains, []]), rows, "|", **look)
    ax.set_ylim(-0.5, max(len(trains), 1) - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if t is not None:
        ax.set_xlim(np.min(t), np.max(t))
    return finish(ax, "time (ms)", ylabel)


def fi_curve(
    current: ArrayLike,
    rate: ArrayLike,
    theory_current: ArrayLike | None = None,
    theory_rate: ArrayLike | None = None,
    *,
    label: str = "measured",
    theory_label: str = "theory",
    ax: Axes | None = None,
    **marks: Any,
) -> Axes:
    """Draw firing rates against currents: dots for what was measured, a line for the theory.

    Args:
        current: injected currents, pA, [K].
        rate: rates measured there, Hz, [K].
        theory_current: currents of the theory, pA, [M].
        theory_rate: its rates, Hz, [M].
        label: name of the dots.
        theory_label: name of the line.
        ax: Axes to draw on; a new figure by default.
        **marks: properties of the dots, such as ``color``, which the line shares.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not fit together, or half a theory.

    Example:
        >>> ax = fi_curve([100.0, 200.0], [0.0, 66.0], [150.0, 250.0], [0.0, 100.0])
        >>> ax.get_xlabel(), ax.get_ylabel(), len(ax.lines)
        ('current (pA)', 'firing rate (Hz)', 2)
    """
    current = vector("current", current)
    rate = same_shape("rate", rate, "current", current)
    if (theory_current is None) != (theory_rate is None):
        raise ValueError("theory_current and theory_rate must be given together")
    ax = drawing_axes(ax)
    (dots,) = ax.plot(current, rate, "o", label=label, zorder=3, clip_on=False, **marks)
    if theory_current is not None and theory_rate is not None:
        theory_current = vector("theory_current", theory_current)
        theory_rate = same_shape("theory_rate", theory_rate, "theory_current", theory_current)
        ax.plot(theory_current, theory_rate, color=dots.get_color(), label=theory_label)
    ax.set_ylim(bottom=0.0, auto=True)
    return finish(ax, "current (pA)", "firing rate (Hz)")


def fit_overlay(
    t: ArrayLike,
    recorded: ArrayLike,
    predicted: ArrayLike,
    spikes: ArrayLike | None = None,
    predicted_spikes: ArrayLike | None = None,
    axes: Sequence[Axes] | None = None,
    *,
    labels: tuple[str, str] = ("recorded", "model"),
) -> tuple[Axes, Axes]:
    """Draw a recording under a model's voltage, and below them what the model leaves over.

    Spikes are ticks above the voltages, in their colours. A NaN is a gap: not drawn, and not in the RMSE.

    Args:
        t: times, ms, [T].
        recorded: recorded voltage, mV, [T].
        predicted: the model's voltage, mV, [T].
        spikes: recorded spikes, 0 or 1, [T].
        predicted_spikes: the model's spikes, 0 or 1, [T].
        axes: two Axes, for the voltages and the residual; a new figure by default.
        labels: names of the two voltages.

    Returns:
        The two Axes.

    Raises:
        ValueError: for shapes that do not fit together, gaps alone, or another number of axes.

    Example:
        >>> upper, lower = fit_overlay([1.0, 2.0], [-70.0, -68.0], [-70.0, -66.0])
        >>> lower.lines[0].get_ydata().tolist(), upper.get_title(loc="right")
        ([0.0, -2.0], 'RMSE 1.41 mV')
    """
    t = vector("t", t)
    voltages = [same_shape("recorded", recorded, "t", t), same_shape("predicted", predicted, "t", t)]
    residual = voltages[0] - voltages[1]
    if np.isnan(residual).all():
        raise ValueError("recorded and predicted have no sample in common: one must be a number in both")
    upper, lower = _pair(axes)
    upper.plot(t, voltages[0], color="black", label=labels[0], linewidth=1.0)
    upper.plot(t, voltages[1], color=PALETTE[1], label=labels[1])
    if spikes is not None:
        _ticks_above(upper, t[same_shape("spikes", spikes, "t", t) > 0], 1.03, "black")
    if predicted_spikes is not None:
        predicted_spikes = same_shape("predicted_spikes", predicted_spikes, "t", t)
        _ticks_above(upper, t[predicted_spikes > 0], 1.08, PALETTE[1])
    upper.set_title(f"RMSE {np.sqrt(np.nanmean(residual**2)):.2f} mV", loc="right", pad=20.0)
    lower.plot(t, residual, color=PALETTE[0], linewidth=0.8)
    lower.axhline(0.0, color=GUIDE, linewidth=0.8, linestyle="--", zorder=1)
    finish(upper, "", "voltage (mV)")
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), ncols=2, frameon=False)
    return upper, finish(lower, "time (ms)", "residual (mV)")


def _grid_trains(spikes: Any, t: ArrayLike) -> list[np.ndarray]:
    t = vector("t", t)
    grid = over_time("spikes_or_times", spikes, "t", t).reshape(len(t), -1)
    return [t[column > 0] for column in grid.T]


def _listed_trains(times: Any) -> list[np.ndarray]:
    if hasattr(times, "ndim"):
        raise ValueError("t = None: an array of spikes [T, N] needs t [T]; times come as a list of arrays")
    trains = [np.asarray(train, float) for train in times]
    for i, train in enumerate(trains):
        if train.ndim != 1:
            raise ValueError(f"spikes_or_times[{i}] has shape {train.shape}: it must be one-dimensional")
    return trains


def _pair(axes: Sequence[Axes] | None) -> tuple[Axes, Axes]:
    if axes is None:
        with plt.rc_context(STYLE | {"figure.figsize": (6.4, 4.0)}):
            axes = plt.subplots(2, sharex=True, height_ratios=(3, 1))[1]
    if len(axes) != 2:
        raise ValueError(f"axes has {len(axes)} Axes: it must have two, for voltages and residual")
    return axes[0], axes[1]


def _mark_threshold(ax: Axes, v_th: float) -> None:
    ax.axhline(v_th, color=GUIDE, linewidth=0.8, linestyle="--", zorder=1)
    where = ax.get_yaxis_transform()
    ax.text(1.01, v_th, "threshold", color=GUIDE, transform=where, va="center", fontsize="small")


def _ticks_above(ax: Axes, times: np.ndarray, height: float, color: str) -> None:
    """Draw spikes as ticks at a height in units of the Axes."""
    if not times.size:
        return  # an empty line would still pull the layout's margins over the whole figure
    heights, where = np.full(times.shape, height), ax.get_xaxis_transform()
    ax.plot(times, heights, "|", color=color, markersize=5.0, clip_on=False, transform=where)
