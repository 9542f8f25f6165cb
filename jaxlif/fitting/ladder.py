"""The ladder: which mechanisms does this cell need?

Every rung adds one mechanism to the one below and is fitted to the same part of the window; the rest of the window says
what it was worth, in bits per spike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax

from jaxlif.fitting.data import Data
from jaxlif.fitting.gif import BEND, LEAST_GAIN, LEAST_JUDGED, held_out_bits, judged_spikes, race, split
from jaxlif.fitting.joint_likelihood import joint_loss
from jaxlif.fitting.optimise import believable, refine
from jaxlif.fitting.traces import arranged, refractory_period, regress
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling

MEMBRANE = ("tau_m", "r_m", "v_rest", "v_reset", "v_th", "delta_v")
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
    """The rungs from the plain neuron to the full one.

    Args:
        rungs: in order.
        least: bits per spike below which a gain is taken for chance.
        judged: held-out spikes that judged, where they are known.
    """

    rungs: tuple[Rung, ...]
    least: float
    judged: int | None = None

    @property
    def sentence(self) -> str:
        """Say in words which mechanisms this cell needs."""
        rungs = [rung for rung in self.rungs[1:] if not rung.failed]
        needed = [f"{rung.name} ({rung.gain:+.2f} bits)" for rung in rungs if rung.gain >= self.least]
        idle = [rung.name for rung in rungs if rung.gain < self.least]
        failed = [rung.name for rung in self.rungs if rung.failed]
        plain = "a plain neuron with escape noise does for this cell"
        parts = [f"this cell needs {', '.join(needed)}" if needed else plain]
        parts += [f"it gains nothing from {', '.join(idle)}"] * bool(idle)
        parts += [f"the fit failed with {', '.join(failed)}, of which nothing is known"] * bool(failed)
        if self.judged is not None and self.judged < MANY:
            parts.append(f"only {self.judged} spikes judge: {self.judged**-0.5:.1g} bits either way are chance")
        return "; ".join(parts)


def fit_ladder(data: Data, *, least: float = LEAST_GAIN, progress: bool = False) -> Ladder:
    """Fit the rungs on the same part of the traces and judge them on the rest.

    The rungs: a LIF with escape noise; refractoriness; spike-triggered currents; a threshold that moves at spikes; one
    that follows the voltage. The last two are those that compete where :func:`jaxlif.fit_recording` chooses a "gif".

    Args:
        data: voltage without the electrode, and spikes; some sweeps of them are used.
        least: bits per spike from which on a gain counts.
        progress: show progress bars.

    Returns:
        The :class:`Ladder`.

    Raises:
        ValueError: where fewer than ten spikes are left to judge.

    Example:
        >>> import jaxlif as jl, jax.numpy as jnp, numpy as np
        >>> params = jl.AdaptiveLIFParams(t_ref=0.5, eta=(80.0,), tau_eta=(60.0,), delta_v=1.5)
        >>> current = 250.0 + jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 0.0, 150.0, 5.0, 6000.0, 0.5)
        >>> inputs = jl.escape_inputs(jax.random.key(1), jnp.tile(current[:, None], (1, 2)))
        >>> _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=0.5)), params, inputs)
        >>> current, voltage, spikes = [np.asarray(x).T for x in (inputs.input, output.v, output.spikes > 0)]
        >>> ladder = fit_ladder(Data(current, voltage, spikes=spikes, dt=0.5))
        >>> ladder.rungs[2].name, ladder.rungs[2].gain > 0.1, ladder.rungs[4].gain < 0.1
        ('spike-triggered currents', True, True)

    Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4 (a ladder of models, judged on held-out data).
    """
    few = data.few().coarser()
    judged = judged_spikes(few)
    if judged < LEAST_JUDGED:
        raise ValueError(
            f"{judged} spikes are left to judge by, the last fifth of them all in time: {LEAST_JUDGED} are needed, and"
            " some before them"
        )
    rungs: list[Rung] = []
    with jax.enable_x64(False):
        for name, params, held in _levels(few, regress(data, t_ref=refractory_period(data)), progress):
            best = max((rung.held_out for rung in rungs), default=held)
            rungs.append(Rung(name, params, held, held - best, failed=held < best - COLLAPSED))
    return Ladder(tuple(rungs), least, judged)


def _levels(few: Data, full: AdaptiveLIFParams, progress: bool) -> Iterator[tuple[str, AdaptiveLIFParams, float]]:
    """Yield each level's name, parameters and held-out bits; one starts from the level below and from a regression."""
    full = replace(full, t_ref=refractory_period(few))
    # No mechanism above the membrane: jumps of 0 that stay.
    bare = replace(full, eta=(0.0,) * len(full.eta), gamma=(0.0,) * len(full.gamma), coupling=_uncoupled(full))
    below, held = _fit(few, [replace(bare, t_ref=few.dt)], MEMBRANE, progress)
    yield "LIF", below, held
    below, held = _fit(few, [bare, replace(below, t_ref=full.t_ref)], MEMBRANE, progress)
    yield "refractoriness", below, held
    starts = [replace(x, eta=full.eta, tau_eta=full.tau_eta) for x in (bare, below)]
    yield "spike-triggered currents", *_fit(few, starts, (*MEMBRANE, *CURRENTS), progress)
    plain, best = race(few, full, progress)
    for name, found in (("a threshold that moves at spikes", plain), ("a threshold that follows the voltage", best)):
        assert found is not None
        yield name, found.params, found.held_out


def _uncoupled(params: AdaptiveLIFParams) -> VoltageCoupling:
    return VoltageCoupling(b=0.0, v_i=params.v_th - BEND)


def _fit(
    data: Data, starts: list[AdaptiveLIFParams], free: tuple[str, ...], progress: bool
) -> tuple[AdaptiveLIFParams, float]:
    """Refine all starts on the fitted part, and return the best with its score on the rest."""
    fitted = split(data)
    moving = tuple(name for name in free if name != "v_rest" or data.v_rest is None)
    found = []
    for start in starts:
        loss, samples = joint_loss(start, arranged(data.judging(fitted), float(start.t_ref)), data.dt)
        params, value = refine(loss, believable(loss, start, samples), samples, moving, progress=progress)
        found.append((value, params))
    best = min(found, key=lambda pair: pair[0])[1]
    return best, held_out_bits(loss, best, data.judging(~fitted))
