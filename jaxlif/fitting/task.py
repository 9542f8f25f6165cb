"""What a recipe finds."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxlif.fitting.data import Data, Drift, Options
from jaxlif.fitting.intervals import Uncertainty
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams


class Outcome(NamedTuple):
    """What a recipe found.

    The parameters; what the user should know; for steps the f-I table with the fitted rates, and the sweeps whose
    voltage was fitted; the samples before and after a spike in which voltages are not compared, where they are not the
    recording's; 95 % intervals of the parameters, by name; where a recipe can go on from here with more data, how; what
    else is known about the parameters; the terms of single sweeps; and the likelihood of the fitted spikes, in bits
    each.
    """

    params: LIFParams | LeakyParams
    warnings: tuple[str, ...] = ()
    curve: dict[str, list[float]] = {}
    fitted_sweeps: np.ndarray | slice = slice(None)
    spike_cut: tuple[int, int] | None = None
    intervals: Mapping[str, tuple[float, float]] = {}
    refit: "Callable[[Data, Options], Outcome] | None" = None
    uncertainty: Uncertainty | None = None
    drift: Drift | None = None
    bits_per_spike: float | None = None
