"""A model is run freely before it is handed over: a hundred times the recording, at half to one and a half its input.

A likelihood is taken with the spikes forced: it may be fine where the neuron alone runs away, or never fires.
"""

from typing import NamedTuple

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.prediction import free_response, noisy_response
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, repeats

GAINS = (0.5, 0.75, 1.0, 1.25, 1.5)
TIMES = 100  # the recording, over all gains, for a model with noise; one without answers alike each time
AT_ONCE = 2**25  # spikes or none of a gain: of more the gains are run one by one
MOST, LEAST = 3.0, 0.1  # times the cell's rate, at its own input
CRAMPED = 1.25  # times the shortest interval: as good as the shortest
REMEDY = "fit more spikes or a wider range of currents, or a simpler model"


class FreeRun(NamedTuple):
    """Rates of the model at each gain of the input, and the shares of its intervals that are as short as can be."""

    cell: float  # Hz
    rates: tuple[float, ...]  # Hz
    cramped: tuple[float, ...]

    @property
    def fault(self) -> str:
        """Say where the model runs away or is silent, or nothing."""
        own = self.rates[GAINS.index(1.0)]
        for gain, rate, share in zip(GAINS, self.rates, self.cramped, strict=True):
            beyond = gain == 1.0 and rate > MOST * max(self.cell, 1.0)
            if beyond or (share > 0.5 and rate > MOST * max(self.cell, 1.0)):
                return f"at {gain:g} times its input it runs away ({rate:.3g} Hz; the cell {self.cell:.3g} Hz at 1)"
        if own < LEAST * self.cell:
            return f"it fires at {own:.3g} Hz where the cell fires at {self.cell:.3g} Hz"
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Say the fault with its remedy."""
        return (f"do not use this model: run freely, {self.fault}; {REMEDY}",) * bool(self.fault)


def run_freely(params: LIFParams, data: Data, *, noisy: bool, seed: int = 0, times: int = TIMES) -> FreeRun:
    """Run a model under the current that it was fitted to, at each gain, ``times`` the recording in all."""
    coarse = data.coarser()
    coarse = coarse.select([group[0] for group in repeats(coarse)])  # the same current again says nothing new
    current = coarse.terms.driven(params, coarse).current
    trials, shortest = -(-times // len(GAINS)), CRAMPED * (float(params.t_ref) + 2.0 * coarse.dt)
    together = len(GAINS) if trials * coarse.spikes.size < AT_ONCE else 1
    rates, cramped = [], []
    for first in range(0, len(GAINS), together):
        scaled = [gain * current for gain in GAINS[first : first + together]]
        driven = Recording(current=np.concatenate(scaled), dt=coarse.dt)
        found = noisy_response(params, driven, repeats=trials, seed=seed) if noisy else free_response(params, driven)
        for raster in np.split(found.spikes.reshape(-1, *driven.current.shape), together, axis=1):
            intervals = _intervals(raster, coarse.dt)
            rates.append(1000.0 * float(raster.mean()) / coarse.dt)
            cramped.append(float(np.mean(intervals <= shortest)) if intervals.size else 0.0)
    return FreeRun(1000.0 * float(data.spikes.mean()) / data.dt, tuple(rates), tuple(cramped))


def _intervals(rasters: np.ndarray, dt: float) -> np.ndarray:
    """Return all intervals of rasters [..., T], ms."""
    lane, step = np.nonzero(rasters.reshape(-1, rasters.shape[-1]))
    return np.asarray(dt * np.diff(step)[np.diff(lane) == 0])
