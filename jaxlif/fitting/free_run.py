"""A model is run freely before it is handed over: a hundred times the recording, at half to one and a half its input.

A likelihood is taken with the spikes forced: it may be fine where the neuron alone runs away, or never fires.
"""

from typing import NamedTuple

import numpy as np

from jaxlif.fitting.data import Data
from jaxlif.fitting.prediction import free_response, noisy_response
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording

GAINS = (0.5, 0.75, 1.0, 1.25, 1.5)
TIMES = 100  # the recording, over all gains, for a model with noise; one without answers alike each time
PIECE = 10_000.0  # ms that are run at a stretch: far longer than any kernel
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
    current = _pieces(coarse.terms.driven(params, coarse).current, coarse.steps(PIECE))
    scaled = np.concatenate([gain * current for gain in GAINS])
    recording = Recording(current=scaled, dt=coarse.dt)
    repeats = max(1, times * coarse.spikes.size // scaled.size)
    found = noisy_response(params, recording, repeats=repeats, seed=seed) if noisy else free_response(params, recording)
    spikes = found.spikes.reshape(-1, len(GAINS), *current.shape).swapaxes(0, 1)
    spikes = spikes.reshape(len(GAINS), -1, current.shape[1])
    shortest = CRAMPED * (float(params.t_ref) + 2.0 * coarse.dt)
    rates = 1000.0 * spikes.mean(axis=(1, 2)) / coarse.dt
    cramped = [np.mean(x <= shortest) if (x := _intervals(raster, coarse.dt)).size else 0.0 for raster in spikes]
    return FreeRun(1000.0 * float(data.spikes.mean()) / data.dt, tuple(map(float, rates)), tuple(map(float, cramped)))


def _pieces(current: np.ndarray, length: int) -> np.ndarray:
    """Cut sweeps into pieces of one length, [pieces, T]; what is left at the end of a sweep is not run."""
    length = min(length, current.shape[1])
    count = current.shape[1] // length
    return np.asarray(current[:, : count * length].reshape(-1, length))


def _intervals(raster: np.ndarray, dt: float) -> np.ndarray:
    """Return all intervals of rasters [R, T], ms."""
    lane, step = np.nonzero(raster)
    return np.asarray(dt * np.diff(step)[np.diff(lane) == 0])
