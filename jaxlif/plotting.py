"""Figures of voltages, spikes, rates and fits: functions of arrays that return the Axes they drew on.

Nothing here knows a neuron, and nothing calls ``plt.show``. A figure made here has the look of :data:`STYLE`;
``plt.rcParams.update(STYLE)`` gives it to figures of your own. ``import jaxlif`` leaves this module out:
``from jaxlif import plotting``.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

#: Colours that the colour-blind tell apart: blue, vermillion, green, orange, purple, sky.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
#: Lines that are no data: a threshold, a zero.
GUIDE = "#7F7F7F"
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
    t, v = _vector("t", t), _over_time("v", v, "t", t)
    if spikes is not None:
        spikes = _same_shape("spikes", spikes, "v", v)
        v = np.where(spikes > 0, spike_height, v)
    ax = _axes(ax)
    ax.plot(t, v, **line)
    if v_th is not None:
        _mark_threshold(ax, v_th)
    return _finish(ax, "time (ms)", "voltage (mV)")


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
    ax = _axes(ax)
    size = float(np.clip(300.0 / max(len(trains), 1), 1.5, 9.0))
    look: dict[str, Any] = {"color": "black", "markersize": size, "markeredgewidth": 0.8} | marks
    ax.plot(np.concatenate([*trains, []]), rows, "|", **look)
    ax.set_ylim(-0.5, max(len(trains), 1) - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if t is not None:
        ax.set_xlim(np.min(t), np.max(t))
    return _finish(ax, "time (ms)", ylabel)


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
    current = _vector("current", current)
    rate = _same_shape("rate", rate, "current", current)
    if (theory_current is None) != (theory_rate is None):
        raise ValueError("theory_current and theory_rate must be given together")
    ax = _axes(ax)
    (dots,) = ax.plot(current, rate, "o", label=label, zorder=3, clip_on=False, **marks)
    if theory_current is not None and theory_rate is not None:
        theory_current = _vector("theory_current", theory_current)
        theory_rate = _same_shape("theory_rate", theory_rate, "theory_current", theory_current)
        ax.plot(theory_current, theory_rate, color=dots.get_color(), label=theory_label)
    ax.set_ylim(bottom=0.0, auto=True)
    return _finish(ax, "current (pA)", "firing rate (Hz)")


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
    t = _vector("t", t)
    voltages = [_same_shape("recorded", recorded, "t", t), _same_shape("predicted", predicted, "t", t)]
    residual = voltages[0] - voltages[1]
    if np.isnan(residual).all():
        raise ValueError("recorded and predicted have no sample in common: one must be a number in both")
    upper, lower = _pair(axes)
    upper.plot(t, voltages[0], color="black", label=labels[0], linewidth=1.0)
    upper.plot(t, voltages[1], color=PALETTE[1], label=labels[1])
    if spikes is not None:
        _ticks_above(upper, t[_same_shape("spikes", spikes, "t", t) > 0], 1.03, "black")
    if predicted_spikes is not None:
        predicted_spikes = _same_shape("predicted_spikes", predicted_spikes, "t", t)
        _ticks_above(upper, t[predicted_spikes > 0], 1.08, PALETTE[1])
    upper.set_title(f"RMSE {np.sqrt(np.nanmean(residual**2)):.2f} mV", loc="right", pad=20.0)
    lower.plot(t, residual, color=PALETTE[0], linewidth=0.8)
    lower.axhline(0.0, color=GUIDE, linewidth=0.8, linestyle="--", zorder=1)
    _finish(upper, "", "voltage (mV)")
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), ncols=2, frameon=False)
    return upper, _finish(lower, "time (ms)", "residual (mV)")


def loss_history(losses: ArrayLike, *, ax: Axes | None = None, **line: Any) -> Axes:
    """Draw a loss against the optimiser's steps, logarithmically where it is positive, and mark its best.

    Args:
        losses: loss before each step, [S]; NaN where it was none.
        ax: Axes to draw on; a new figure by default.
        **line: properties of the line.

    Returns:
        The Axes.

    Raises:
        ValueError: for another rank, or where no loss is a number.

    Example:
        >>> ax = loss_history([4.0, 1.0, 2.0])
        >>> ax.get_yscale(), ax.lines[1].get_xdata().tolist(), ax.lines[1].get_ydata().tolist()
        ('log', [1], [1.0])
    """
    losses = _vector("losses", losses)
    if not np.isfinite(losses).any():
        raise ValueError(f"losses holds {losses.size} values: at least one must be finite")
    best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
    ax = _axes(ax)
    (curve,) = ax.plot(losses, **line)
    label = f"best: {losses[best]:.4g} at step {best}"
    ax.plot([best], [losses[best]], "o", color=curve.get_color(), label=label)
    ax.set_yscale("log" if np.nanmin(losses) > 0 else "linear")
    ax.legend(frameon=False)
    return _finish(ax, "step", "loss")


def _vector(name: str, value: ArrayLike) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: it must be one-dimensional and not empty")
    return array


def _same_shape(name: str, value: ArrayLike, other: str, reference: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != reference.shape:
        raise ValueError(f"{name} has shape {array.shape}: it must have that of {other}, {reference.shape}")
    return array


def _over_time(name: str, value: ArrayLike, other: str, t: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim not in (1, 2) or len(array) != len(t):
        rule = f"it must be [T] or [T, N] with T = {len(t)} as in {other}"
        raise ValueError(f"{name} has shape {array.shape}: {rule}")
    return array


def _grid_trains(spikes: Any, t: ArrayLike) -> list[np.ndarray]:
    t = _vector("t", t)
    grid = _over_time("spikes_or_times", spikes, "t", t).reshape(len(t), -1)
    return [t[column > 0] for column in grid.T]


def _listed_trains(times: Any) -> list[np.ndarray]:
    if hasattr(times, "ndim"):
        raise ValueError("t = None: an array of spikes [T, N] needs t [T]; times come as a list of arrays")
    trains = [np.asarray(train, float) for train in times]
    for i, train in enumerate(trains):
        if train.ndim != 1:
            raise ValueError(f"spikes_or_times[{i}] has shape {train.shape}: it must be one-dimensional")
    return trains


def _axes(ax: Axes | None) -> Axes:
    """Return ``ax`` in the shared look, or the Axes of a new figure."""
    if ax is None:
        with plt.rc_context(STYLE):
            return plt.subplots()[1]
    if not ax.has_data():
        ax.set_prop_cycle(STYLE["axes.prop_cycle"])
    return ax


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


def _finish(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Name the axes, clear the frame, and name the lines where there are two or more of them."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(frameon=False)
    return ax


def gradient_audit(
    names: Sequence[str],
    gradients: dict[str, ArrayLike],
    smoothed: ArrayLike,
    error: ArrayLike,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw gradients beside the slope of the smoothed loss, one group of bars for each parameter.

    Args:
        names: of the parameters, [P].
        gradients: by label a gradient, [P].
        smoothed: slope of the smoothed loss, [P].
        error: its standard error, [P].
        ax: Axes to draw on; a new figure by default.

    Returns:
        The Axes.

    Raises:
        ValueError: where a length is not P.

    Example:
        >>> gradient_audit(["tau_m", "v_th"], {"surrogate": [1.0, -2.0]}, [1.1, -1.8], [0.1, 0.1]).get_ylabel()
        'd loss / d relative change'
    """
    bars = {label: np.asarray(g, float) for label, g in gradients.items()} | {"smoothed": np.asarray(smoothed, float)}
    for label, height in bars.items():
        if height.shape != (len(names),):
            raise ValueError(f"{label} has shape {height.shape}: one number for each of {len(names)} names is expected")
    ax = _axes(ax)
    width, centres = 0.8 / len(bars), np.arange(len(names))
    for n, (label, height) in enumerate(bars.items()):
        offset = (n - 0.5 * (len(bars) - 1)) * width
        ax.bar(centres + offset, height, width, label=label, yerr=error if label == "smoothed" else None)
    ax.axhline(0.0, color=GUIDE, linewidth=0.8)
    ax.set_xticks(centres, list(names))
    ax.set_ylabel("d loss / d relative change")
    ax.legend(frameon=False)
    return ax


def layer_cosines(comparisons: dict[str, dict[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw how well gradients agree with the smoothed slope, one group of bars for each layer of a network.

    Args:
        comparisons: of an audit, by label and then by "layer 0", "layer 1", ...; other entries are left out. The
            ratio of the norms is written at each bar's end.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The Axes.

    Raises:
        ValueError: where no layer is compared.

    Example:
        >>> from jaxlif.gradients import Comparison
        >>> layer_cosines({"cell": {"layer 0": Comparison(0.9, 1.4)}}).get_ylabel()
        'cosine with the smoothed slope'
    """
    layers = [name for name in next(iter(comparisons.values()), {}) if name.startswith("layer ")]
    if not layers:
        raise ValueError("comparisons has no layer: only the audit of a Sequential has them")
    ax = _axes(ax)
    width, centres = 0.8 / len(comparisons), np.arange(len(layers))
    for n, (label, groups) in enumerate(comparisons.items()):
        cosines = np.array([groups[layer].cosine for layer in layers])
        bars = ax.bar(centres + (n - 0.5 * (len(comparisons) - 1)) * width, cosines, width, label=label)
        ax.bar_label(bars, [f"×{groups[layer].norm_ratio:.2g}" for layer in layers], fontsize="small", padding=2.0)
    ax.axhline(0.0, color=GUIDE, linewidth=0.8)
    ax.set_xticks(centres, layers)
    ax.set_ylim(-1.2, 1.2)
    return _finish(ax, "", "cosine with the smoothed slope")


def gradient_over_time(
    edges: ArrayLike, gradients: dict[str, ArrayLike], smoothed: ArrayLike, error: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw slopes with respect to the input against time: gradients as steps, the smoothed slope with its error.

    Args:
        edges: of the windows, ms, [bins + 1].
        gradients: by label a gradient, loss per unit of input, [bins].
        smoothed: slope of the smoothed loss, [bins].
        error: its standard error, [bins].
        ax: Axes to draw on; a new figure by default.

    Returns:
        The Axes.

    Raises:
        ValueError: where a length is not bins.

    Example:
        >>> gradient_over_time([0.0, 5.0, 10.0], {"cell": [1.0, 2.0]}, [1.1, 1.8], [0.1, 0.1]).get_xlabel()
        'time (ms)'
    """
    times = _vector("edges", edges)
    for label, values in {**gradients, "smoothed": smoothed, "error": error}.items():
        if np.shape(values) != (times.size - 1,):
            raise ValueError(
                f"{label} has shape {np.shape(values)}: a number for each of {times.size - 1} windows is due"
            )
    ax = _axes(ax)
    for label, values in gradients.items():
        ax.stairs(np.asarray(values, float), times, baseline=None, linewidth=1.4, label=label, color=_next_color(ax))
    middle, color = 0.5 * (times[1:] + times[:-1]), "black"
    ax.errorbar(middle, np.asarray(smoothed), np.asarray(error), fmt="o", color=color, label="smoothed", capsize=2.0)
    ax.axhline(0.0, color=GUIDE, linewidth=0.8)
    _finish(ax, "time (ms)", "d loss / d input in a window")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))  # the steps leave no corner free
    return ax


def _next_color(ax: Axes) -> str:
    """Return the next colour of the cycle; ``stairs`` takes none by itself."""
    return PALETTE[len(ax.patches) % len(PALETTE)]


def audit_panels(audit: Any, *, dt: float = 1.0) -> list[Axes]:
    r"""Draw an audit as one figure: a panel of bars, and one over time where the audit has bins.

    The bars are the parameters' slopes; a parameter with several entries shows their sum
    :math:`\sum_i \partial_i L`, the slope along a common change, with error :math:`(\sum_i e_i^2)^{1/2}`. A network
    shows its layers' cosines instead.

    Args:
        audit: a :class:`jaxlif.GradientAudit`.
        dt: step, ms, for the axis of time.

    Returns:
        The Axes, one for each panel.

    Raises:
        ValueError: for a dt that is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlif as jl
        >>> audit = jl.audit_gradient(
        ...     lambda out: jnp.mean(out.v), jl.LIF(dt=0.5), jl.LIFParams(), jnp.full(100, 60.0), key=jax.random.key(0),
        ...     samples=8, bins=4,
        ... )
        >>> len(audit_panels(audit, dt=0.5))
        2
    """
    if not dt > 0:
        raise ValueError(f"dt = {dt:g} ms: dt must be greater than 0 ms")
    count = 2 if audit.windows else 1
    with plt.rc_context(STYLE | {"figure.figsize": (4.6 * count + 1.0, 3.0)}):
        axes = list(plt.subplots(1, count, squeeze=False)[1][0])
    if any(name.startswith("layer ") for name in audit.comparisons["cell"]):
        layer_cosines(audit.comparisons, ax=axes[0])
    else:
        _audited_bars(audit, axes[0])
    if audit.windows:
        gradients = {label: audit.windows[label] for label in audit.comparisons}
        gradient_over_time(audit.edges * dt, gradients, audit.windows["smoothed"], audit.windows["error"], ax=axes[1])
    axes[0].figure.suptitle(audit.verdict, fontsize="medium")
    return axes


def _audited_bars(audit: Any, ax: Axes) -> None:
    gradients = {label: getattr(audit, label) for label in audit.comparisons}
    sums: dict[str, ArrayLike] = {
        label: [float(np.sum(g[name])) for name in audit.names] for label, g in gradients.items()
    }
    smoothed = [float(np.sum(audit.smoothed[name])) for name in audit.names]
    error = [float(np.sqrt(np.sum(audit.error[name] ** 2))) for name in audit.names]
    gradient_audit(audit.names, sums, smoothed, error, ax=ax)


def flight_panels(record: Any) -> list[Axes]:
    """Draw a flight record: rates, the share of silent, saturated and open neurons, and the gradient against time.

    Args:
        record: a :class:`jaxlif.networks.FlightRecord`.

    Returns:
        The Axes: rates, shares, and with gradients those. The title is the first alarm and how many more there are.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, DenseParams, Sequential, flight_record, init_neurons
        >>> network, params = Sequential((Dense(), jl.LIF(dt=1.0))), (DenseParams(weight=np.eye(2)), init_neurons(2))
        >>> record = flight_record(network, params, np.full((1, 50, 2), 2.0), lambda output: output.output.spikes.sum())
        >>> axes = flight_panels(record)
        >>> len(axes), axes[2].get_yscale(), axes[0].figure.get_suptitle()
        (3, 'log', 'no alarm')
    """
    count = 2 if record.gradient_norm is None else 3
    with plt.rc_context(STYLE | {"figure.figsize": (3.6 * count, 2.9)}):
        axes = list(plt.subplots(1, count, squeeze=False)[1][0])
    for name, values in zip(record.layers, record.rates, strict=True):
        x = np.sort(np.asarray(values, float))
        axes[0].plot(x, np.arange(1, x.size + 1) / x.size, drawstyle="steps-post", label=name)
    axes[0].set(xlabel="rate (Hz)", ylabel="fraction of neurons below it", ylim=(0.0, 1.02))
    axes[0].legend()
    _share_bars(record, axes[1])
    if record.gradient_norm is not None:
        # A logarithm shows neither 0 nor infinity: gaps do.
        norms = np.where(np.isfinite(record.gradient_norm) & (record.gradient_norm > 0.0), record.gradient_norm, np.nan)
        axes[2].plot(record.dt * np.arange(1, norms.shape[1] + 1), norms.T)
        axes[2].set(xlabel="time (ms)", ylabel="norm of the gradient", yscale="log")
    first, *more = record.alarms or ("no alarm",)
    title = ":".join(first.split(":")[:2])  # the layer and what is wrong, without the remedy
    axes[0].figure.suptitle(title + (f" (and {len(more)} more alarms)" if more else ""), fontsize="medium")
    return axes


def _share_bars(record: Any, ax: Axes) -> None:
    """Draw three bars for each layer; under it what its recurrence does, where it has any."""
    shares = {"silent": record.silent, "saturated": record.saturated, "surrogate open": record.occupancy}
    x = np.arange(len(record.layers))
    for i, (label, values) in enumerate(shares.items()):
        ax.bar(x + 0.27 * (i - 1), np.nan_to_num(values), 0.25, label=label, color=PALETTE[i])
    ticks = [name.removeprefix("layer ") for name in record.layers]
    for layer in np.flatnonzero(~np.isnan(record.spectral_radius)):
        ticks[layer] += f"\nradius {record.spectral_radius[layer]:.3g}, loop gain {record.loop_gain[layer]:.3g}"
    ax.set(xticks=x, ylabel="fraction", ylim=(0.0, 1.02))
    ax.set_xticklabels(ticks)
    ax.legend()
