"""The ladder: which mechanisms does this cell need?

Every rung adds one mechanism to the one below and is fitted to the same part of the window; the rest of the window says
what it was worth, in bits per spike.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax

from jaxlif.fitting.gif import COUPLING_STARTS, held_out_bits, split
from jaxlif.fitting.joint_loss import joint_loss
from jaxlif.fitting.refinement import refine
from jaxlif.fitting.traces import Traces, arranged, refractory_period, regress
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling

MEMBRANE = ("tau_m", "r_m", "v_rest", "v_reset", "v_th", "delta_v")
CURRENTS = ("eta.*", "tau_eta.*")
THRESHOLD = ("gamma.*", "tau_gamma.*")


class Rung(NamedTuple):
    """A model of the ladder: its name, parameters, held-out bits per spike, and the gain over the rung below."""

    name: str
    params: AdaptiveLIFParams
    held_out: float
    gain: float


@dataclass(frozen=True)
class Ladder:
    """The rungs from the plain neuron to the full one.

    Args:
        rungs: in order.
        least: bits per spike below which a gain is taken for chance.
    """

    rungs: tuple[Rung, ...]
    least: float

    @property
    def sentence(self) -> str:
        """Say in words which mechanisms this cell needs."""
        needed = [f"{rung.name} ({rung.gain:+.2f} bits)" for rung in self.rungs[1:] if rung.gain >= self.least]
        idle = [rung.name for rung in self.rungs[1:] if rung.gain < self.least]
        first = (
            f"this cell needs {', '.join(needed)}" if needed else "a plain neuron with escape noise does for this cell"
        )
        return f"{first}; it gains nothing from {', '.join(idle)}" if idle else first


def fit_ladder(traces: Traces, *, least: float = 0.02, progress: bool = False) -> Ladder:
    """Fit the rungs on the same part of the traces and judge them on the rest.

    The rungs: a LIF with escape noise; refractoriness; spike-triggered currents; a threshold that moves at spikes; one
    that follows the voltage.

    Args:
        traces: voltage without the electrode, and spikes; a few sweeps are enough.
        least: bits per spike from which on a gain counts.
        progress: show progress bars.

    Returns:
        The :class:`Ladder`.

    Example:
        >>> import jaxlif as jl, jax.numpy as jnp, numpy as np
        >>> params = jl.AdaptiveLIFParams(t_ref=0.5, eta=(80.0,), tau_eta=(60.0,), delta_v=1.5)
        >>> current = 250.0 + jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 0.0, 150.0, 5.0, 6000.0, 0.5)
        >>> inputs = jl.escape_inputs(jax.random.key(1), jnp.tile(current[:, None], (1, 2)))
        >>> _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=0.5)), params, inputs)
        >>> rows = [np.asarray(x).T for x in (inputs.input, output.v, output.spikes > 0)]
        >>> ladder = fit_ladder(Traces(*rows, 0.5))
        >>> ladder.rungs[2].name, ladder.rungs[2].gain > 0.1, ladder.rungs[4].gain < 0.1
        ('spike-triggered currents', True, True)

    Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4 (a ladder of models, judged on held-out data).
    """
    rungs: list[Rung] = []
    with jax.enable_x64(False):
        for name, start, free in _levels(traces, rungs):
            params, held = _fit(traces, start, free, progress)
            rungs.append(Rung(name, params, held, held - rungs[-1].held_out if rungs else 0.0))
    return Ladder(tuple(rungs), least)


def _levels(traces: Traces, rungs: list[Rung]):
    """Yield each level's name, its starts and what it frees; it starts where the one below ended."""
    held = refractory_period(traces)
    fitted = [regress(traces, t_ref=t) for t in (traces.dt, held)]
    # No mechanism above the membrane: jumps of 0 that stay.
    bare = [replace(p, eta=(0.0,) * len(p.eta), gamma=(0.0,) * len(p.gamma), coupling=_uncoupled(p)) for p in fitted]
    yield "LIF", [bare[0]], MEMBRANE
    yield "refractoriness", [bare[1]], MEMBRANE
    below, full = rungs[-1].params, fitted[1]
    yield "spike-triggered currents", [replace(below, eta=full.eta, tau_eta=full.tau_eta)], (*MEMBRANE, *CURRENTS)
    below = rungs[-1].params
    moving = replace(below, gamma=full.gamma, tau_gamma=full.tau_gamma)
    yield "a threshold that moves at spikes", [moving], (*MEMBRANE, *CURRENTS, *THRESHOLD)
    below = rungs[-1].params
    starts = [replace(below, coupling=replace(_uncoupled(full), b=0.2, tau=tau)) for tau in COUPLING_STARTS]
    yield "a threshold that follows the voltage", starts, (*MEMBRANE, *CURRENTS, *THRESHOLD, "coupling.*")


def _uncoupled(params: AdaptiveLIFParams) -> VoltageCoupling:
    return VoltageCoupling(b=0.0, v_i=params.v_th - 10.0)


def _fit(
    traces: Traces, starts: list[AdaptiveLIFParams], free: tuple[str, ...], progress: bool
) -> tuple[AdaptiveLIFParams, float]:
    """Refine all starts on the fitted part, and return the best with its score on the rest."""
    fitted = split(traces)
    found = []
    for start in starts:
        loss, samples = joint_loss(start, arranged(traces, float(start.t_ref), fitted), traces.dt)
        moving = tuple(name for name in free if name != "v_rest" or traces.rest is None)
        params, value = refine(loss, start, samples, moving, rounds=(15, 15), progress=progress)
        found.append((value, params))
    best = min(found, key=lambda pair: pair[0])[1]
    return best, held_out_bits(loss, best, traces, ~fitted)
