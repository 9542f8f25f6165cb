"""Which recording to make next: what candidate protocols would do to the intervals of a fit.

A candidate is simulated with the fitted neuron; the Fisher information that it is expected to bring adds to that of the
recording which was fitted.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from string import ascii_lowercase
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif import stimulus
from jaxlif.checks import numbers, positive
from jaxlif.fitting.data import Data, Uncertainty
from jaxlif.fitting.intervals import narrowed
from jaxlif.fitting.joint_likelihood import JointLoss
from jaxlif.fitting.lanes import cut_lanes, single_precision
from jaxlif.fitting.result import RecordingFit
from jaxlif.neurons.adaptive import AdaptiveLIF, AdaptiveLIFParams
from jaxlif.neurons.wrappers import EscapeNoise, escape_inputs
from jaxlif.simulation import simulate

SWEEPS = 8  # of a candidate that are simulated side by side
SWEEP = 4000.0  # ms; more would only make the expectation less noisy


class Advice(NamedTuple):
    """What recordings would do to the intervals of a fit.

    ``candidates`` [C], the most helpful first; ``parameters`` [n]; ``ratios`` [C, n]: the width of an interval after
    the recording over that before; ``duration`` [C]: how long each is, ms in total.
    """

    candidates: tuple[str, ...]
    parameters: tuple[str, ...]
    ratios: np.ndarray
    duration: tuple[float, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table as text: a row for each parameter, a column for each candidate, its best marked."""
        letters = ascii_lowercase[: len(self.candidates)]
        best = self.ratios.argmin(axis=0)
        body = (
            (name, *(f"{ratio:.2f}{'*' if c == best[n] else ' '}" for c, ratio in enumerate(self.ratios[:, n])))
            for n, name in enumerate(self.parameters)
        )
        return [("parameter", *(f"{letter} " for letter in letters)), *body]

    def legend(self) -> list[str]:
        """Return what the columns stand for, and by what all intervals would shrink on the geometric mean."""
        means = np.exp(np.log(self.ratios).mean(axis=1))
        lines = zip(ascii_lowercase, self.candidates, self.duration, means, strict=False)
        return [f"{letter}  {mean:.2f}  {name}, {time / 1000.0:g} s" for letter, name, time, mean in lines]


def advise_protocol(
    fit: RecordingFit,
    candidates: Mapping[str, np.ndarray] | None = None,
    *,
    parameters: Iterable[str] | None = None,
    duration: float | None = None,
    seed: int = 0,
) -> Advice:
    r"""Predict by how much further recordings would narrow the intervals of a fit.

    With the informations :math:`F_s, F_v` of spikes and voltage, each the sum over the fitted recording and the
    candidate, the covariance is :math:`F^{-1} (\phi_s F_s + \phi_v F_v) F^{-1}`. That of a candidate is expected:
    it is simulated with the fitted neuron and its own noise.

    Args:
        fit: an adaptive neuron with escape noise, model "gif".
        candidates: by name a current [T] or [S, T], pA, at the dt of the fitted recording; at most 26. By default
            variants of the current that was fitted: its noise again, larger, smaller, slower, around other means, below
            threshold, and steps.
        parameters: those to rank by, and to list; all that have an interval by default.
        duration: of every candidate, ms in total; by default that of the recording which was fitted, or of each of the
            candidates given.
        seed: of the noise.

    Source: Fisher information as a criterion of design: Atkinson, Donev & Tobias 2007, Optimum Experimental Designs.
    """
    if fit.model != "gif" or fit.uncertainty is None:
        raise ValueError(f'model = "{fit.model}": advice needs the Fisher information that a fit of model "gif" leaves')
    known, dt = fit.uncertainty, float(fit.data["dt_ms"])
    told = [name for name in known.names if name not in fit.undetermined]
    names = tuple(told if parameters is None else parameters)
    unknown = [name for name in names if name not in told]
    if unknown or not names:
        raise ValueError(f"parameters = {unknown or names}: this fit has intervals of {', '.join(told) or 'none'}")
    if duration is not None:
        duration = positive("duration", duration, "ms")
    with single_precision():
        currents = _variants(fit, known, dt, seed) if candidates is None else _checked(candidates)
        shortest = known.stimulus.duration if candidates is None else None
        lengths = {name: duration or shortest or current.size * dt for name, current in currents.items()}
        ratios = np.array([_ratios(fit, known, x, lengths[name], seed) for name, x in currents.items()])
    ratios = ratios[:, [known.names.index(name) for name in names]]
    order = np.argsort(np.log(ratios).mean(axis=1))
    ranked = tuple(list(currents)[c] for c in order)
    return Advice(ranked, names, ratios[order], tuple(lengths[name] for name in ranked))


def _checked(candidates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not 0 < len(candidates) <= len(ascii_lowercase):
        raise ValueError(f"candidates: {len(candidates)} are given; 1 to {len(ascii_lowercase)} can be compared")
    found = {}
    for name, current in candidates.items():
        found[name] = np.atleast_2d(np.asarray(numbers(f"candidate {name!r}", current, "pA", rank=(1, 2)), float))
        if found[name].shape[1] < 2:
            raise ValueError(f"candidate {name!r} has the shape {found[name].shape}: at least two samples are needed")
    return found


def _variants(fit: RecordingFit, known: Uncertainty, dt: float, seed: int) -> dict[str, np.ndarray]:
    """Return the default candidates, [SWEEPS, T] each."""
    (mean, sd, tau, _), params = known.stimulus, cast(AdaptiveLIFParams, fit.params)  # a gif's alone are advised on
    below = 0.2 * (params.v_th - params.v_rest) / (params.r_m * np.sqrt(tau / (tau + params.tau_m)))
    noises = {
        "the same noise": (mean, sd, tau),
        "noise with 1.5 times the sd": (mean, 1.5 * sd, tau),
        "noise with 0.6 times the sd": (mean, 0.6 * sd, tau),
        "noise around a mean higher by half the sd": (mean + 0.5 * sd, sd, tau),
        "noise around a mean lower by half the sd": (mean - 0.5 * sd, sd, tau),
        "noise five times slower": (mean, sd, 5.0 * tau),
        "noise below threshold, around 0 pA": (0.0, below, tau),
    }
    keys, found = jax.random.split(jax.random.key(seed), SWEEPS), {}
    for name, (m, s, t) in noises.items():
        drawn = jax.vmap(partial(stimulus.ornstein_uhlenbeck, mean=m, sd=s, tau=t, duration=SWEEP, dt=dt))(keys)
        found[f"{name} ({m:.3g} ± {s:.3g} pA, {t:.3g} ms)"] = np.asarray(drawn, float)
    levels, on = np.linspace(-sd, mean + 2.0 * sd, SWEEPS), np.arange(drawn.shape[1]) * dt % 1000.0 < 500.0
    return found | {f"steps of 500 ms, {levels[0]:.3g} to {levels[-1]:.3g} pA": levels[:, None] * on}


def _ratios(fit: RecordingFit, known: Uncertainty, current: np.ndarray, duration: float, seed: int) -> np.ndarray:
    """Return the widths after a candidate over those before, [n]."""
    data, params = _simulated(fit, current, seed), cast(AdaptiveLIFParams, fit.params)  # as above
    loss = JointLoss(params, cut_lanes(data, params), data.dt, free=known.names)
    if known.names != loss.coordinate.names:
        own = ", ".join(loss.coordinate.names)
        raise ValueError(f"uncertainty has the names {', '.join(known.names)}: the model's are {own}")
    # Its voltage is the model's own: the error is that of the fit.
    error = loss(loss.start)[1]._replace(squares=known.voltage_error**2, compared=1.0)
    more = loss.pieces(loss.start, error).information * (duration / (current.size * data.dt))
    return narrowed(known.information, more, np.diag(1.0 / loss.sd**2), known.dispersion)


def _simulated(fit: RecordingFit, current: np.ndarray, seed: int) -> Data:
    """Let the fitted neuron answer a current."""
    dt, params = float(fit.data["dt_ms"]), jax.tree.map(jnp.float32, fit.params)
    inputs = escape_inputs(jax.random.key(seed + 1), jnp.asarray(current.T, jnp.float32))
    _, output = simulate(EscapeNoise(AdaptiveLIF(dt=dt)), params, inputs)
    spikes = np.asarray(output.spikes).T > 0
    return Data(current=current, voltage=np.asarray(output.v, float).T, dt=dt, spikes=spikes)
