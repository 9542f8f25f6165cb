"""All sweeps of a recording on one page, before anything is fitted to them."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from jaxlif.plotting.style import GUIDE, STYLE, finish, same_shape, vector

_COLUMNS = 2000  # points of a line, of which each shows the extremes of the samples in it


def sweeps(
    t: ArrayLike,
    current: ArrayLike,
    voltage: ArrayLike | None = None,
    spikes: ArrayLike | None = None,
    rest: ArrayLike | None = None,
) -> Figure:
    """Draw voltage, spikes and current of every sweep, and over the sweeps where each rests and how often it fires.

    Args:
        t: times, ms, [T].
        current: pA, [sweeps, T].
        voltage: mV, [sweeps, T].
        spikes: 0 or 1, [sweeps, T].
        rest: resting potentials, mV, [sweeps]; NaN where one is not known.

    Returns:
        The Figure.

    Raises:
        ValueError: for shapes that do not fit together.

    Example:
        >>> figure = sweeps(np.arange(100.0), np.zeros((3, 100)), np.full((3, 100), -70.0), np.zeros((3, 100)))
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['voltage (mV)', 'sweep', 'current (pA)', 'rest (mV)', 'spikes']
    """
    t, current = vector("t", t), np.asarray(current)
    if current.ndim != 2 or current.shape[1] != t.size:
        raise ValueError(f"current has shape {current.shape}: [sweeps, T] with T = {t.size} as in t is expected")
    drawn = {"voltage (mV)": voltage, "sweep": spikes, "current (pA)": current}
    known = {label: same_shape(label, x, "current", current) for label, x in drawn.items() if x is not None}
    heights = {"voltage (mV)": 3.0, "sweep": 1.5, "current (pA)": 1.5}
    several = spikes is not None and len(current) > 1
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8.0, 1.1 * sum(heights[label] for label in known)))
        grid = figure.add_gridspec(
            len(known),
            2 if several else 1,
            height_ratios=[heights[n] for n in known],
            width_ratios=(3, 1)[: 1 + several],
        )
        rows = [figure.add_subplot(grid[n, 0]) for n in range(len(known))]
        for ax, (label, x) in zip(rows, known.items(), strict=True):
            _raster(ax, t, x) if label == "sweep" else _lines(ax, t, x)
            ax.sharex(rows[0])
            finish(ax, "time (ms)" if ax is rows[-1] else "", label)
        if several:
            _over_sweeps(figure, grid, rest, known["sweep"])
    return figure


def _lines(ax: Axes, t: np.ndarray, x: np.ndarray) -> None:
    for row, colour in zip(x, plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(x))), strict=True):
        ax.plot(*_envelope(t, row), color=colour, linewidth=0.7)


def _envelope(t: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a line of fewer points that keeps every peak: smallest and largest of each stretch."""
    length = x.size // _COLUMNS
    if length < 4:
        return t, x
    blocks = x[: x.size // length * length].reshape(-1, length)
    return np.repeat(t[: blocks.size : length], 2), np.stack([blocks.min(axis=1), blocks.max(axis=1)], axis=1).ravel()


def _raster(ax: Axes, t: np.ndarray, spikes: np.ndarray) -> None:
    row, step = np.nonzero(spikes)
    ax.plot(t[step], row, "|", color="black", markersize=max(2.0, min(8.0, 80.0 / len(spikes))), markeredgewidth=0.7)
    ax.set_ylim(-0.5, len(spikes) - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _over_sweeps(figure: Figure, grid, rest: ArrayLike | None, spikes: np.ndarray) -> None:
    number = np.arange(len(spikes))
    known = np.full(number.size, np.nan) if rest is None else same_shape("rest", rest, "the sweeps", number)
    for place, values, label in ((0, known, "rest (mV)"), (1, (spikes > 0).sum(axis=1), "spikes")):
        ax = figure.add_subplot(grid[place, 1])
        ax.plot(number, values, "o-", color=GUIDE, markersize=3.0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(ax, "sweep", label)
