"""Ends of an interval where a loss is no parabola: its profile along one parameter, the others following.

A parabola through the minimum serves a parameter that the data determine well. Where parameters trade for one another
the loss is a curved valley: its floor must be followed. A step along the valley costs one gradient, because the
information at the minimum says well enough how the others relax.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

GRADIENTS = 12  # spent on an end, at most
CLOSE = 0.2  # relative error of the height from which the last extrapolation leads to within 2 % of the distance
SETTLED = 0.2  # share of the height below which the next Newton step has brought the others to the floor
TOO_HIGH = 4.0  # times the height: from there a step is taken back

Rise = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Valley(NamedTuple):
    """A loss around its minimum: ``rise`` gives its height and gradient [m] at a displacement [m].

    ``inverse`` [m, m] is the inverse of its information at the minimum.
    """

    rise: Rise
    inverse: np.ndarray


def crossing(valley: Valley, index: int, side: int, height: float, *, limit: float = np.inf) -> float:
    r"""Find the displacement of one parameter at which the loss, minimised over the others, has risen to a height.

    Where the loss is a parabola one gradient there says so. Elsewhere the floor is followed outwards by Newton steps
    whose curvature learns from every gradient on the way (BFGS).

    Args:
        valley: the loss.
        index: of the parameter.
        side: 1 for larger, -1 for smaller values.
        height: to be reached.
        limit: distance at which the search ends.

    Returns:
        The displacement, of the sign of ``side``.

    Example:
        >>> parabola = Valley(lambda d: (2.0 * float(d @ d), 4.0 * d), np.diag([0.25, 0.25]))
        >>> crossing(parabola, 0, -1, 8.0)
        -2.0

    Source: Venzon & Moolgavkar 1988, doi:10.2307/2347496.
    """
    walk = _Walk(valley, index, side)
    goal = min(float(np.sqrt(2.0 * height * valley.inverse[index, index])), limit)
    for _ in range(GRADIENTS):
        if not walk.step_to(goal, height):
            goal = walk.distance + 0.4 * (goal - walk.distance)
            continue
        if walk.gain > SETTLED * height:
            continue  # the same distance again, nearer to the floor
        goal = min(walk.extrapolated(height), limit)
        error = abs(walk.height - height) / height
        if error < CLOSE or walk.distance >= limit:
            break
    return side * goal


class _Walk:
    """A walk along a valley's floor: where it is, the loss and its gradient there, and the curvature learnt so far."""

    def __init__(self, valley: Valley, index: int, side: int) -> None:
        self.rise, self.index, self.side = valley.rise, index, side
        self.inverse = valley.inverse.copy()
        self.at = self.gradient = np.zeros(len(valley.inverse))
        self.value = 0.0
        self.heights = [(0.0, 0.0)]  # distances, and the square roots of the floor's height there

    @property
    def distance(self) -> float:
        """How far the parameter has gone."""
        return float(abs(self.at[self.index]))

    @property
    def gain(self) -> float:
        """What the loss would lose by the Newton step of the other parameters."""
        return -0.5 * float(self.gradient @ self._relaxation())

    @property
    def height(self) -> float:
        """The floor's height here."""
        return max(self.value - self.gain, 0.0)

    def _relaxation(self):
        row = self.inverse[self.index]
        return row * (row @ self.gradient) / row[self.index] - self.inverse @ self.gradient

    def step_to(self, goal: float, height: float) -> bool:
        """Go to a distance along the floor; return False, and stay, where the loss is much higher than expected."""
        row = self.inverse[self.index]
        moved = row * self.side * (goal - self.distance) / row[self.index] + self._relaxation()
        value, gradient = self.rise(self.at + moved)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return False
        self._learn(moved, gradient - self.gradient)
        same = goal == self.distance
        if value > (self.value if same else TOO_HIGH * max(self.value, height)):
            return same  # no nearer to the floor: the curvature learnt will help the next step
        self.at, self.value, self.gradient = self.at + moved, value, gradient
        return True

    def _learn(self, moved, change):
        """Update the inverse curvature so that it explains the gradient's change (BFGS)."""
        along = float(moved @ change)
        if along <= 0.0:
            return  # a loss that bends down here teaches nothing
        turn = np.eye(len(moved)) - np.outer(moved, change) / along
        self.inverse = turn @ self.inverse @ turn.T + np.outer(moved, moved) / along

    def extrapolated(self, height: float) -> float:
        """Return where the height is, by the square root of the profile: straight for a parabola."""
        self.heights.append((self.distance, float(np.sqrt(self.height))))
        (before, low), (here, high) = self.heights[-2:]
        level = float(np.sqrt(height))
        steepness = max((high - low) / (here - before) if here != before else 0.0, 0.25 * level / max(here, before))
        return float(np.clip(here + (level - high) / steepness, 0.4 * here, 2.0 * here))
