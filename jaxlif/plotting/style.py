"""The shared look, and the checks and habits that every figure shares."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxlif.checks import numbers

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


def vector(name: str, value: ArrayLike) -> np.ndarray:
    """Return ``value`` as an array, refused unless it is one-dimensional and not empty."""
    array = np.asarray(numbers(name, value, finite=False))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: it must be one-dimensional and not empty")
    return array


def same_shape(name: str, value: ArrayLike, other: str, reference: np.ndarray) -> np.ndarray:
    """Return ``value`` as an array, refused unless it has the shape of ``reference``."""
    array = np.asarray(numbers(name, value, finite=False))
    if array.shape != reference.shape:
        raise ValueError(f"{name} has shape {array.shape}: it must have that of {other}, {reference.shape}")
    return array


def over_time(name: str, value: ArrayLike, other: str, t: np.ndarray) -> np.ndarray:
    """Return ``value`` as an array, refused unless it is [T] or [T, N]."""
    array = np.asarray(numbers(name, value, finite=False))
    if array.ndim not in (1, 2) or len(array) != len(t):
        rule = f"it must be [T] or [T, N] with T = {len(t)} as in {other}"
        raise ValueError(f"{name} has shape {array.shape}: {rule}")
    return array


def drawing_axes(ax: Axes | None) -> Axes:
    """Return ``ax`` in the shared look, or the Axes of a new figure."""
    if ax is None:
        with plt.rc_context(STYLE):
            return plt.subplots()[1]
    if not ax.has_data():
        ax.set_prop_cycle(STYLE["axes.prop_cycle"])
    return ax


def finish(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Name the axes, clear the frame, and name the lines where there are two or more of them."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(frameon=False)
    return ax
