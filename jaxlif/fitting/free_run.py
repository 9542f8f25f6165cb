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
    recording = Recording(current=np.concatenate([gain * current for gain in GAINS]), dt=coarse.dt)
    trials = -(-times // len(GAINS))
    found = noisy_response(params, recording, repeats=trials, seed=seed) if noisy else free_response(params, recording)
    rows = np.split(found.spikes.reshape(-1, *recording.current.shape), len(GAINS), axis=1)
    rates = [1000.0 * float(raster.mean()) / coarse.dt for raster in rows]
    shortest = CRAMPED * (float(params.t_ref) + 2.0 * coarse.dt)
    cramped = [float(np.mean(x <= shortest)) if (x := _intervals(raster, coarse.dt)).size else 0.0 for raster in rows]
    return FreeRun(1000.0 * float(data.spikes.mean()) / data.dt, tuple(rates), tuple(cramped))


def _intervals(rasters: np.ndarray, dt: float) -> np.ndarray:
    """Return all intervals of rasters [..., T], ms."""
    lane, step = np.nonzero(rasters.reshape(-1, rasters.shape[-1]))
    return np.asarray(dt * np.diff(step)[np.diff(lane) == 0])
