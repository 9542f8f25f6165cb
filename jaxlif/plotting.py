"""Figures of voltages, spikes and rates: functions of arrays that return the Axes they drew on.

Times ``t`` [T] are in ms, voltages in mV, ``spikes`` are 0 or 1 in the shape of the voltage; ``ax`` are the Axes to
draw on, by default those of a new figure. Shapes that do not fit together raise ValueError. Nothing here knows a neuron
or calls ``plt.show``; ``plt.rcParams.update(STYLE)`` gives your own figures the same look. ``from jaxlif import
plotting`` loads it.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from jaxlif.checks import numbers, require_same_shape

#: Colours that the colour-blind tell apart: blue, vermillion, green, orange, purple, sky.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
#: Lines that are no data: a threshold, a zero.
GUIDE = "#7F7F7F"
# What a spike rises to for one step where it is drawn by hand, mV.
_SPIKE_HEIGHT = 20.0
#: Matplotlib settings of the shared look.
STYLE: Any = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.figsize": (6.4, 3.0),
    "font.size": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
}


def trace(
    t: ArrayLike,
    v: ArrayLike,
    spikes: ArrayLike | None = None,
    *,
    v_th: float | None = None,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """Draw voltages [T] or [T, N] against time, each spike by hand as one sample at 20 mV, and mark a threshold v_th.

    ``line`` are properties of the line, such as ``label`` or ``color``.

    Example:
        >>> ax = trace([0.1, 0.2, 0.3], [-56.0, -65.0, -64.0], spikes=[0, 1, 0])
        >>> ax.lines[0].get_ydata().tolist()
        [-56.0, 20.0, -64.0]
    """
    t, v = _over_time(t, "v", v)
    if spikes is not None:
        v = np.where(_like("spikes", spikes, "v", v) > 0, _SPIKE_HEIGHT, v)
    ax = _axes(ax)
    ax.plot(t, v, **line)
    if v_th is not None:
        ax.axhline(v_th, color=GUIDE, linewidth=0.8, linestyle="--", zorder=1)
        look: dict[str, Any] = {"color": GUIDE, "va": "center", "fontsize": "small"}
        ax.text(1.01, v_th, "threshold", transform=ax.get_yaxis_transform(), **look)
    return _named(ax, "time (ms)", "voltage (mV)")


def detected(t: ArrayLike, v: ArrayLike, spikes: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw a recorded voltage [T] and a dot on it where each spike was found.

    Example:
        >>> ax = detected([0.1, 0.2, 0.3], [-56.0, 10.0, -64.0], spikes=[0, 1, 0])
        >>> ax.lines[1].get_xdata().tolist(), ax.lines[1].get_ydata().tolist()
        ([0.2], [10.0])
    """
    t, v = _vector("t", t), _vector("v", v)
    found = _like("spikes", spikes, "v", v) > 0
    ax = trace(t, v, ax=ax, color="black", linewidth=0.8)
    ax.plot(t[found], v[found], "o", color=PALETTE[1], markersize=3.0)
    return ax


def raster(
    spikes_or_times: ArrayLike | Sequence[ArrayLike] | Mapping[str, Sequence[ArrayLike]],
    t: ArrayLike | None = None,
    *,
    ylabel: str = "neuron",
    ax: Axes | None = None,
    **marks: Any,
) -> Axes:
    """Draw a tick for each spike: neurons or trials (``ylabel``) upwards, time to the right.

    With ``t`` the spikes are 0 or 1, [T] or [T, N]; without, a list of N arrays of spike times, ms, or several such
    lists by name, one above the other, such as the populations of a network. ``marks`` are properties of the ticks,
    such as ``color`` or ``markersize``.

    Example:
        >>> ax = raster([[12.0, 40.0], [], [25.0]], ylabel="trial")
        >>> ax.lines[0].get_xdata().tolist(), ax.lines[0].get_ydata().tolist()
        ([12.0, 40.0, 25.0], [0, 0, 2])
    """
    names: dict[str, int] = {}
    if t is None:
        if hasattr(spikes_or_times, "ndim"):
            raise ValueError("t = None: an array of spikes [T, N] needs t [T]; times come as a list of arrays")
        given: Any = spikes_or_times
        if isinstance(given, Mapping):
            names, given = {name: len(part) for name, part in given.items()}, [*chain(*given.values())]
        trains = [np.asarray(numbers(f"spikes_or_times[{n}]", times, rank=1)) for n, times in enumerate(given)]
    else:
        t, spikes = _over_time(t, "spikes_or_times", spikes_or_times)
        trains = [t[column > 0] for column in spikes.reshape(t.size, -1).T]
    ax = _axes(ax)
    rows = np.repeat(np.arange(len(trains)), [train.size for train in trains])
    count = max(len(trains), 1)
    look: dict[str, Any] = {"color": "black", "markersize": float(np.clip(300.0 / count, 1.5, 9.0))}
    ax.plot(np.concatenate([*trains, []]), rows, "|", **({"markeredgewidth": 0.8} | look | marks))
    ax.set_ylim(-0.5, count - 0.5)
    if names:
        ends = np.cumsum([*names.values()])
        ax.set_yticks(ends - 0.5 * np.array([*names.values()]) - 0.5, [*names])
        ax.hlines(ends[:-1] - 0.5, 0.0, 1.0, GUIDE, linewidth=0.8, transform=ax.get_yaxis_transform())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if t is not None:
        ax.set_xlim(np.min(t), np.max(t))
    return _named(ax, "time (ms)", ylabel)


def activity(
    trains: Mapping[str, Sequence[ArrayLike]],
    rates: Mapping[str, tuple[ArrayLike, ArrayLike]],
    cvs: Mapping[str, ArrayLike],
    spectra: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> Figure:
    """Draw what populations did: their spikes over their rates, and beside them how irregular and how rhythmic it was.

    By population the trains, ms, of its neurons; times, ms, and rates, Hz; coefficients of variation; frequencies, Hz,
    and power of the rate, Hz²/Hz.

    Example:
        >>> rates, spectra = {"E": ([1.0, 3.0], [500.0, 500.0])}, {"E": ([1.0], [2.0])}
        >>> figure = activity({"E": [[1.0, 4.0]]}, rates, {"E": [0.5]}, spectra)
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['neuron', 'neurons', 'rate (Hz)', 'power (Hz²/Hz)']
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.0, 4.6), width_ratios=(2, 1), layout="constrained")
    raster(trains, ax=axes[0, 0], markersize=1.0)
    for name, colour in zip(trains, cycle(PALETTE), strict=False):
        axes[1, 0].plot(*rates[name], color=colour, linewidth=0.8)
        axes[0, 1].hist(np.asarray(cvs[name], float), np.linspace(0.0, 2.0, 41), color=colour, alpha=0.6, label=name)
        frequency, power = (np.asarray(x, float) for x in spectra[name])
        axes[1, 1].loglog(frequency[frequency > 0], power[frequency > 0], color=colour, linewidth=0.8)
    axes[0, 1].legend()
    axes[1, 0].sharex(axes[0, 0])
    _named(axes[1, 0], "time (ms)", "rate (Hz)")
    _named(axes[0, 1], "CV of intervals", "neurons")
    _named(axes[1, 1], "frequency (Hz)", "power (Hz²/Hz)")
    return figure


def fi_curve(
    current: ArrayLike,
    rate: ArrayLike,
    theory_current: ArrayLike = (),
    theory_rate: ArrayLike = (),
    *,
    label: str = "measured",
    theory_label: str = "theory",
    ax: Axes | None = None,
) -> Axes:
    """Draw firing rates, Hz, against currents, pA: dots for what was measured [K], a line for a theory [M], if any.

    Example:
        >>> ax = fi_curve([100.0, 200.0], [0.0, 66.0], [150.0, 250.0], [0.0, 100.0])
        >>> ax.get_xlabel(), ax.get_ylabel(), len(ax.lines)
        ('current (pA)', 'firing rate (Hz)', 2)
    """
    current = _vector("current", current)
    rate = _like("rate", rate, "current", current)
    theory_current = np.asarray(numbers("theory_current", theory_current, rank=1, finite=False))
    theory_rate = _like("theory_rate", theory_rate, "theory_current", theory_current)
    ax = _axes(ax)
    (dots,) = ax.plot(current, rate, "o", label=label, zorder=3, clip_on=False)
    if theory_current.size:
        ax.plot(theory_current, theory_rate, color=dots.get_color(), label=theory_label)
    ax.set_ylim(bottom=0.0, auto=True)
    return _named(ax, "current (pA)", "firing rate (Hz)")


def estimates(
    value: ArrayLike, low: ArrayLike, high: ArrayLike, names: Sequence[str] = (), *, xlabel: str, ax: Axes | None = None
) -> Axes:
    """Draw a quantity of several cells in rows, the first at the top, each with its interval.

    All are [N], names N or none. A value without an interval, of which both ends are NaN, is an open circle, and one
    that is NaN a cross in the margin.

    Example:
        >>> ax = estimates([10.0, 12.0], [9.0, float("nan")], [11.5, float("nan")], ["a", "b"], xlabel="tau_m (ms)")
        >>> [label.get_text() for label in ax.get_yticklabels()], ax.get_xlabel()
        (['a', 'b'], 'tau_m (ms)')
    """
    value = np.asarray(numbers("value", value, rank=1, finite=False))
    low, high = _like("low", low, "value", value), _like("high", high, "value", value)
    rows, known, bare = np.arange(value.size), np.isfinite(low) & np.isfinite(high), np.isnan(low) & ~np.isnan(value)
    ax = _axes(ax)
    (dots,) = ax.plot(value[known], rows[known], "o")
    ax.hlines(rows[known], low[known], high[known], color=dots.get_color(), linewidth=1.2)
    ax.plot(value[bare], rows[bare], "o", markerfacecolor="none", color=dots.get_color())
    if (lost := rows[np.isnan(value)]).size:  # an empty line would pull the layout's margins over the whole figure
        ax.plot(np.full(lost.size, 0.03), lost, "x", color=GUIDE, transform=ax.get_yaxis_transform())
    ax.set_yticks(rows if len(names) else [], names)
    ax.set_ylim(value.size - 0.5, -0.5)
    return _named(ax, xlabel, "")


def fit_overlay(
    t: ArrayLike,
    recorded: ArrayLike,
    predicted: ArrayLike,
    spikes: ArrayLike | None = None,
    predicted_spikes: ArrayLike | None = None,
    *,
    labels: tuple[str, str] = ("recorded", "model"),
) -> tuple[Axes, Axes]:
    """Draw a recording under a model's voltage in a new figure, and below them what the model leaves over.

    All are [T]; spikes, recorded and predicted, are ticks above the voltages, in their colours. A NaN is a gap: not
    drawn, and not in the RMSE.

    Example:
        >>> upper, lower = fit_overlay([1.0, 2.0], [-70.0, -68.0], [-70.0, -66.0])
        >>> lower.lines[0].get_ydata().tolist(), upper.get_title(loc="right")
        ([0.0, -2.0], 'RMSE 1.41 mV')
    """
    t = _vector("t", t)
    voltages = {"recorded": recorded, "predicted": predicted}
    first, second = (_like(name, voltage, "t", t) for name, voltage in voltages.items())
    trains = {"spikes": spikes, "predicted_spikes": predicted_spikes}
    times = [np.empty(0) if train is None else t[_like(name, train, "t", t) > 0] for name, train in trains.items()]
    residual = first - second
    if np.isnan(residual).all():
        raise ValueError("recorded and predicted have no sample in common: one must be a number in both")
    with plt.rc_context(STYLE | {"figure.figsize": (6.4, 4.0)}):
        upper, lower = plt.subplots(2, sharex=True, height_ratios=(3, 1))[1]
    upper.plot(t, first, color="black", label=labels[0], linewidth=1.0)
    upper.plot(t, second, color=PALETTE[1], label=labels[1])
    for ticks, height, color in zip(times, (1.03, 1.08), ("black", PALETTE[1]), strict=True):
        if ticks.size:  # an empty line would pull the layout's margins over the whole figure
            look: dict[str, Any] = {"color": color, "markersize": 5.0, "clip_on": False}
            upper.plot(ticks, np.full(ticks.shape, height), "|", transform=upper.get_xaxis_transform(), **look)
    upper.set_title(f"RMSE {np.sqrt(np.nanmean(residual**2)):.2f} mV", loc="right", pad=20.0)
    lower.plot(t, residual, color=PALETTE[0], linewidth=0.8)
    lower.axhline(0.0, color=GUIDE, linewidth=0.8, linestyle="--", zorder=1)
    _named(upper, "", "voltage (mV)").legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), ncols=2, frameon=False)
    return upper, _named(lower, "time (ms)", "residual (mV)")


def _vector(name: str, value: ArrayLike) -> np.ndarray:
    array = np.asarray(numbers(name, value, rank=1, finite=False))
    if not array.size:
        raise ValueError(f"{name} has shape (0,): it must not be empty")
    return array


def _like(name: str, value: ArrayLike, other: str, reference: np.ndarray) -> np.ndarray:
    array = np.asarray(numbers(name, value, finite=False))
    require_same_shape(**{name: array, other: reference})
    return array


def _over_time(t: ArrayLike, name: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    t, array = _vector("t", t), np.asarray(numbers(name, value, finite=False))
    if array.ndim not in (1, 2) or len(array) != t.size:
        raise ValueError(f"{name} has shape {array.shape}: it must be [T] or [T, N] with T = {t.size} as in t")
    return t, array


def _axes(ax: Axes | None) -> Axes:
    """Return ``ax`` in the shared look, or the Axes of a new figure."""
    if ax is None:
        with plt.rc_context(STYLE):
            return plt.subplots()[1]
    if not ax.has_data():
        ax.set_prop_cycle(STYLE["axes.prop_cycle"])
    return ax


def _named(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Name the axes, clear the frame, and name the lines where there are two or more of them."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(frameon=False)
    return ax
