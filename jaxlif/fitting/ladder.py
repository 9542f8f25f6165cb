"""The ladder: which mechanisms does this cell need?

Every rung adds one mechanism to the one below and is fitted to the same part of the window; the rest of the window says
what it was worth, in bits per spike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxlif.fitting.data import Data, with_spikes
from jaxlif.fitting.gif_recipe import (
    BEND,
    LEAST_GAIN,
    LEAST_JUDGED,
    MEMBRANE,
    Candidate,
    compete,
    judged_spikes,
    race,
    refractory_period,
    regress,
)
from jaxlif.fitting.joint_likelihood import single_precision
from jaxlif.fitting.prepare import prepare
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.recordings import Electrode, Recording, SpikeRule

CURRENTS = ("eta.*", "tau_eta.*")
COLLAPSED = 0.5  # bits per spike below the best rung under it that only a fit that went astray loses
MANY = 400  # held-out spikes from which on a gain of some hundredths of a bit is none of chance


class Rung(NamedTuple):
    """A model of the ladder: its name, parameters, held-out bits per spike, and the gain over the best rung below.

    A fit that ``failed`` ended far below a simpler one, which it contains: it says nothing about what it adds.
    """

    name: str
    params: AdaptiveLIFParams
    held_out: float
    gain: float
    failed: bool = False


@dataclass(frozen=True)
class Ladder:
    """The rungs from the plain neuron to the full one, and the held-out spikes that ``judged``, where they are known.

    A gain below 0.02 bits per spike is taken for chance.
    """

    rungs: tuple[Rung, ...]
    judged: int | None = None

    @property
    def sentence(self) -> str:
        """Say in words which mechanisms this cell needs."""
        rungs = [rung for rung in self.rungs[1:] if not rung.failed]
        needed = [f"{rung.name} ({rung.gain:+.2f} bits)" for rung in rungs if rung.gain >= LEAST_GAIN]
        idle = [rung.name for rung in rungs if rung.gain < LEAST_GAIN]
        failed = [rung.name for rung in self.rungs if rung.failed]
        plain = "a plain neuron with escape noise does for this cell"
        parts = [f"this cell needs {', '.join(needed)}" if needed else plain]
        parts += [f"it gains nothing from {', '.join(idle)}"] * bool(idle)
        parts += [f"the fit failed with {', '.join(failed)}, of which nothing is known"] * bool(failed)
        if self.judged is not None and self.judged < MANY:
            parts.append(f"only {self.judged} spikes judge: {self.judged**-0.5:.1g} bits either way are chance")
        return "; ".join(parts)


def model_ladder(
    recording: Recording,
    *,
    window: tuple[float, float] | None = None,
    electrode: Electrode | float | str | None = "auto",
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    progress: bool = False,
) -> Ladder:
    """Say which mechanisms a cell needs: from a plain neuron with escape noise up to a voltage-coupled threshold.

    Every rung is fitted to the first 80 % of the window, on three of the sweeps, and judged on the rest of it: a LIF
    with escape noise; refractoriness; spike-triggered currents; a threshold that moves at spikes; one that follows the
    voltage. The last two are those that compete where :func:`jaxlif.fit_recording` chooses a "gif".

    Args:
        recording: current and voltage.
        window: (start, stop) in ms; by default the first 70 %, as for :func:`fit_recording`.
        electrode: what is taken off the voltage, as for :func:`fit_recording`.
        spike_rule: how spikes are found where the recording does not hold them.
        progress: show progress bars.

    Returns:
        The :class:`Ladder`; print its ``sentence``.

    Raises:
        ValueError: as :func:`fit_recording`, and where fewer than ten spikes are left to judge.

    Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4 (a ladder of models, judged on held-out data).
    """
    case = prepare(recording, "gif", window=window, electrode=electrode, rule=spike_rule)
    every = replace(case, held=np.zeros(0, int), kept=np.union1d(case.kept, case.held))
    return fit_ladder(with_spikes(every.fitted, case.window), progress=progress)


def fit_ladder(data: Data, *, progress: bool = False) -> Ladder:
    """Fit the rungs on the same part of some sweeps, and judge them on the rest."""
    few = data.few().coarser()
    judged = judged_spikes(few)
    if judged < LEAST_JUDGED:
        raise ValueError(
            f"{judged} spikes are left to judge by, the last fifth of them all in time: {LEAST_JUDGED} are needed, and"
            " some before them"
        )
    rungs: list[Rung] = []
    with single_precision():
        for name, (params, _, held) in _levels(few, regress(data), progress):
            best = max((rung.held_out for rung in rungs), default=held)
            rungs.append(Rung(name, params, held, held - best, failed=held < best - COLLAPSED))
    return Ladder(tuple(rungs), judged)


def _levels(few: Data, full: AdaptiveLIFParams, progress: bool) -> Iterator[tuple[str, Candidate]]:
    """Yield each level's name and the best fit; one starts from the level below and from a regression."""

    def _best(starts: list[AdaptiveLIFParams], free: tuple[str, ...]) -> Candidate:
        return min(compete(few, [(start, free) for start in starts], progress), key=lambda found: found.loss)

    full = replace(full, t_ref=refractory_period(few))
    # No mechanism above the membrane: jumps of 0 that stay.
    coupling = VoltageCoupling(b=0.0, v_i=full.v_th - BEND)
    bare = replace(full, eta=(0.0,) * len(full.eta), gamma=(0.0,) * len(full.gamma), coupling=coupling)
    below = _best([replace(bare, t_ref=few.dt)], MEMBRANE)
    yield "LIF", below
    below = _best([bare, replace(below.params, t_ref=full.t_ref)], MEMBRANE)
    yield "refractoriness", below
    starts = [replace(x, eta=full.eta, tau_eta=full.tau_eta) for x in (bare, below.params)]
    yield "spike-triggered currents", _best(starts, (*MEMBRANE, *CURRENTS))
    plain, coupled = race(few, full, progress)
    assert plain is not None
    yield "a threshold that moves at spikes", plain
    yield "a threshold that follows the voltage", coupled
