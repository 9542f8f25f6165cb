"""Losses, gradients and what a flight recorder saw."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from numpy.typing import ArrayLike

from jaxlif.plotting.style import GUIDE, PALETTE, STYLE, drawing_axes, finish, vector


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
    losses = vector("losses", losses)
    if not np.isfinite(losses).any():
        raise ValueError(f"losses holds {losses.size} values: at least one must be finite")
    best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
    ax = drawing_axes(ax)
    (curve,) = ax.plot(losses, **line)
    label = f"best: {losses[best]:.4g} at step {best}"
    ax.plot([best], [losses[best]], "o", color=curve.get_color(), label=label)
    ax.set_yscale("log" if np.nanmin(losses) > 0 else "linear")
    ax.legend(frameon=False)
    return finish(ax, "step", "loss")


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
    ax = drawing_axes(ax)
    _bar_groups(ax, list(names), bars, {"smoothed": error})
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
    ax = drawing_axes(ax)
    cosines = {label: np.array([groups[x].cosine for x in layers]) for label, groups in comparisons.items()}
    for label, bars in _bar_groups(ax, layers, cosines).items():
        ratios = [f"×{comparisons[label][layer].norm_ratio:.2g}" for layer in layers]
        ax.bar_label(bars, ratios, fontsize="small", padding=2.0)
    ax.set_ylim(-1.2, 1.2)
    return finish(ax, "", "cosine with the smoothed slope")


def _bar_groups(
    ax: Axes, names: list[str], heights: dict[str, np.ndarray], errors: Mapping[str, ArrayLike] = MappingProxyType({})
) -> dict[str, BarContainer]:
    """Draw a group of bars for each name and in it a bar for each label; return the bars by label."""
    width, centres = 0.8 / len(heights), np.arange(len(names))
    bars = {}
    for n, (label, height) in enumerate(heights.items()):
        offset = (n - 0.5 * (len(heights) - 1)) * width
        bars[label] = ax.bar(centres + offset, height, width, label=label, yerr=errors.get(label))
    ax.axhline(0.0, color=GUIDE, linewidth=0.8)
    ax.set_xticks(centres, names)
    return bars


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
    times = vector("edges", edges)
    for label, values in {**gradients, "smoothed": smoothed, "error": error}.items():
        if np.shape(values) != (times.size - 1,):
            raise ValueError(
                f"{label} has shape {np.shape(values)}: a number for each of {times.size - 1} windows is due"
            )
    ax = drawing_axes(ax)
    for label, values in gradients.items():
        ax.stairs(np.asarray(values, float), times, baseline=None, linewidth=1.4, label=label, color=_next_color(ax))
    middle, color = 0.5 * (times[1:] + times[:-1]), "black"
    ax.errorbar(middle, np.asarray(smoothed), np.asarray(error), fmt="o", color=color, label="smoothed", capsize=2.0)
    ax.axhline(0.0, color=GUIDE, linewidth=0.8)
    finish(ax, "time (ms)", "d loss / d input in a window")
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
    axes = _panels(count, (4.6 * count + 1.0, 3.0))
    if any(name.startswith("layer ") for name in audit.comparisons["cell"]):
        layer_cosines(audit.comparisons, ax=axes[0])
    else:
        _audited_bars(audit, axes[0])
    if audit.windows:
        gradients = {label: audit.windows[label] for label in audit.comparisons}
        gradient_over_time(audit.edges * dt, gradients, audit.windows["smoothed"], audit.windows["error"], ax=axes[1])
    axes[0].figure.suptitle(audit.verdict, fontsize="medium")
    return axes


def _panels(count: int, size: tuple[float, float]) -> list[Axes]:
    with plt.rc_context(STYLE | {"figure.figsize": size}):
        return list(plt.subplots(1, count, squeeze=False)[1][0])


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
    axes = _panels(count, (3.6 * count, 2.9))
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
