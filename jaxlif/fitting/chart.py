"""Coordinates in which the valleys of the joint loss are straighter than in those that are fitted.

What data determine is the threshold and its slope at the voltages where a cell spikes, and how long a jump of the
threshold lasts: a large jump that decays fast does what a small, slow one does. In (v_th, b, v_i, k) and in jumps those
are curved valleys.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

SOFT = 1.0  # mV: jumps of the threshold are logarithms above, linear below
STEP = 1e-5  # of central differences, in units of the coordinates


@dataclass(frozen=True)
class Chart:
    r"""A map from straight coordinates to free ones, z, with one parameter as itself.

    The coordinate of a jump of the threshold is the arsinh of what is left of it after the refractory period; that of
    v_th is the threshold at a voltage :math:`v_*`, or :math:`v_{th} + b\,k\,\mathrm{softplus}((v_* - v_i)/k)`,
    that of b its slope there. The others are those of z. The coordinate of the parameter ``own`` depends on it alone.

    Args:
        names: of the coordinates.
        own: index of the parameter of interest.
        level: v_*, mV.
        t_ref: refractory period, ms.
        ratio: t_ref over the fitted time constant of the jump of interest, whose coordinate counts in these units.
    """

    names: tuple[str, ...]
    own: int
    level: float
    t_ref: float
    ratio: float = 0.0

    def to_straight(self, z: np.ndarray) -> np.ndarray:
        """Return the straight coordinates of free ones, [m]."""
        y = z.copy()
        for n, name in enumerate(self.names):
            if self._jump(name):
                y[n] = self._squeezed(name, z[n] * self._left_over(n, z))
        if self._coupled:
            bend, slope = self._bend(z)
            b, v_th = self.names.index("coupling.b"), self.names.index("v_th")
            y[v_th] = z[v_th] + (0.0 if v_th == self.own else z[b] * bend)
            y[b] = z[b] * (1.0 if b == self.own else slope)
        return y

    def to_free(self, y: np.ndarray) -> np.ndarray:
        """Return the free coordinates of straight ones, [m]."""
        z = y.copy()
        for n, name in enumerate(self.names):
            if self._jump(name):
                z[n] = self._stretched(name, y[n]) / self._left_over(n, y)
        if self._coupled:
            bend, slope = self._bend(y)
            b, v_th = self.names.index("coupling.b"), self.names.index("v_th")
            z[b] = y[b] / (1.0 if b == self.own else slope)
            z[v_th] = y[v_th] - (0.0 if v_th == self.own else z[b] * bend)
        return z

    def jacobian(self, y: np.ndarray) -> np.ndarray:
        """Return dz/dy, [m, m], by central differences."""
        with np.errstate(all="ignore"):
            rows = [(self.to_free(y + d) - self.to_free(y - d)) / (2.0 * STEP) for d in STEP * np.eye(len(y))]
        return np.array(rows).T

    @property
    def _coupled(self) -> bool:
        return {"v_th", "coupling.b", "coupling.v_i", "coupling.k"} <= set(self.names)

    def _jump(self, name):
        return name.partition(".")[0] in ("eta", "gamma")

    def _left_over(self, n, at):
        """Return by what a jump's coordinate is larger than what is left of it: 1, or as for the jump at the spike."""
        kind, _, number = self.names[n].partition(".")
        if n != self.own or f"tau_{kind}.{number}" not in self.names:
            return 1.0
        return np.exp(self.t_ref / np.exp(at[self.names.index(f"tau_{kind}.{number}")]) - self.ratio)

    def _squeezed(self, name, jump):
        return np.arcsinh(jump / SOFT) if name.startswith("gamma") else jump

    def _stretched(self, name, y):
        return SOFT * np.sinh(y) if name.startswith("gamma") else y

    def _bend(self, at):
        """Return what the coupling adds for b = 1 at the level, and the slope there."""
        k = np.exp(at[self.names.index("coupling.k")])
        over = (self.level - at[self.names.index("coupling.v_i")]) / k
        return k * np.logaddexp(0.0, over), expit(over)
