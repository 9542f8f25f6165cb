"""The recipe for the gif: the mechanisms that the ladder has taken, refined on everything by Fisher scoring.

First at a coarse step, then at a fine one; terms of the sweeps, where they are asked for, in turn with it.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import Data, Drift, Options, Outcome, Uncertainty, with_spikes
from jaxlif.fitting.free_run import run_freely
from jaxlif.fitting.intervals import uncertainty
from jaxlif.fitting.joint_likelihood import VOLTAGE_MEMORY, JointLoss, bits_above, spike_bits
from jaxlif.fitting.ladder import climb, full_start
from jaxlif.fitting.lanes import UPSTROKE, Lanes, cut_lanes, forced, single_precision
from jaxlif.fitting.optimise import ENOUGH, STEPS, Minimum, finite, minimise
from jaxlif.fitting.prediction import noisy_response
from jaxlif.fitting.regression import moving, refractory_period, regress
from jaxlif.fitting.threshold import choose_twin, reliable_stimuli
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.recordings.protocol import is_step_protocol

DRIFT_ROUNDS = 2  # of the sweeps' own terms and the common parameters in turn
DRIFT_SD = (3.0, 0.15)  # mV, and of the gain
NARROWER, SHIFTS = (1.0, 0.7, 0.5), np.linspace(-1.5, 1.0, 6)  # of the noise, and of the threshold by its width
TRIALS, SEVERAL = 8, 8.0  # of each step; spikes, from which on their error is a share of them
WELL = 0.5  # spikes off in a step, which few trials of a cell do not tell from none
HARDLY, LIKELY = 0.75, 0.85  # of the error that must be left, and of the bits per spike that must be kept
SHRINK = (1.0, 0.3, 0.1)  # widths of the kernels' priors that are tried where a model runs away
GLANCE = 10  # times the recording that this is looked at
SCORED = 1.0  # nats a step: enough where everything is fitted once more
FINE = 0.1001  # ms: a step that shorter ones would not change
LAST_STEPS = 3  # of Fisher scoring at it


class GIFFit(NamedTuple):
    """Parameters as Python floats, what is known about them, the likelihood of the spikes in bits each, and notes."""

    params: AdaptiveLIFParams
    known: Uncertainty | None
    bits_per_spike: float | None
    notes: tuple[str, ...] = ()


def fit_gif(data: Data, options: Options, *, deterministic: bool = False, intervals: bool = True) -> Outcome:
    """Fit the gif, or its deterministic twin with a threshold chosen in closed loop, to voltage and spikes.

    Without ``intervals`` a fit to the whole recording follows, in which they would be lost.
    """
    part = with_spikes(data, options.window)
    with single_precision():
        if options.drift:  # before mechanisms are chosen, which would make up for what sweeps differ by
            part = replace(part, drift=estimate_drift(regress(part), part))
        own = options.mechanisms
        ladder = climb(part, coupling=options.coupling, mechanisms=own, progress=options.progress)
        origin, said = ladder.pruned(full_start(part.coarser(), own)), (ladder.sentence,)
        fitted = _polish(part, ladder.params, origin, options, said, intervals=intervals and not options.drift)
        for left in reversed(range(DRIFT_ROUNDS * options.drift)):
            part = replace(part, drift=estimate_drift(fitted.params, part))
            fitted = _polish(part, fitted.params, origin, options, fitted.notes, intervals=intervals and not left)
    return _outcome(part, fitted, origin, deterministic)


def _polish(
    data: Data,
    params: AdaptiveLIFParams,
    origin: AdaptiveLIFParams,
    options: Options,
    notes: tuple[str, ...] = (),
    *,
    intervals: bool = True,
) -> GIFFit:
    """Refine on everything, at a coarse step and then at a fine one; shrink kernels that make it run away."""
    coarse, enough = data.coarser(), ENOUGH if intervals else SCORED
    for shrink in SHRINK:
        loss, found = _refined(coarse, params, origin, options, STEPS, shrink, enough)
        params = loss.params(found.vector)
        if not run_freely(params, data, noisy=True, times=GLANCE).fault:
            break
    notes += (f"what a spike leaves behind was shrunk to {shrink:g} of its prior's width: run freely, it ran away",) * (
        shrink < 1.0
    )
    if intervals and (fine := data.coarser(FINE)).dt < coarse.dt:
        loss, found = _refined(coarse := fine, params, origin, options, LAST_STEPS, shrink)
        params = loss.params(found.vector)
    known = uncertainty(loss, found, data.current) if intervals else None
    return GIFFit(params, known, bits_above(found.score, coarse), notes)


def _refined(
    data: Data,
    params: AdaptiveLIFParams,
    origin: AdaptiveLIFParams,
    options: Options,
    steps: int,
    shrink: float,
    enough: float = ENOUGH,
) -> tuple[JointLoss, Minimum]:
    """Minimise over everything that is free."""
    held = min(float(params.t_ref), refractory_period(data))
    params, start = (replace(x, t_ref=held) for x in (params, origin))
    parts = cut_lanes(data, params)
    loss = JointLoss(params, parts, data.dt, free=moving(data), origin=start, shrink=shrink)
    every = np.arange(len(loss.start))
    return loss, finite(minimise(loss, loss.start, every, steps=steps, enough=enough, progress=options.progress))


def _outcome(data: Data, fitted: GIFFit, origin: AdaptiveLIFParams, deterministic: bool) -> Outcome:
    """Choose the twin where one is wanted, and say how to go on with more of the data."""
    params, known, bits, notes = fitted
    notes += known.notes if known else ()
    if deterministic:
        stimuli = reliable_stimuli(data)
        notes += stimuli.notes
        params = choose_twin(params, stimuli._replace(repeats=[_received(s, params) for s in stimuli.repeats]))
    elif is_step_protocol(data):
        params, bits, told = _with_own_noise(params, bits, data.coarser())
        notes += told
    # What closed loop has changed is no longer what the interval was for.
    before, chosen = named_leaves(fitted.params), named_leaves(params)
    pairs = known.intervals if known else {}
    return Outcome(
        params,
        notes,
        spike_cut=(data.steps(UPSTROKE), data.steps(float(params.t_ref)) + 1),
        intervals={name: pair for name, pair in pairs.items() if chosen[name] == before[name]},
        refit=partial(_refit, fitted, origin, data.drift, deterministic),
        uncertainty=known,
        drift=data.terms,
        bits_per_spike=bits,
    )


def _with_own_noise(
    params: AdaptiveLIFParams, bits: float | None, data: Data
) -> tuple[AdaptiveLIFParams, float | None, tuple[str, ...]]:
    """Choose the width of the noise and the threshold in closed loop, by the number of spikes in each step.

    With spikes forced, all that a model has wrong counts as noise; run freely it then fires where the cell is silent.
    What makes the spikes much less likely, or the numbers hardly better, is left as it is.
    """
    driven, count = data.terms.driven(params, data), data.spikes.sum(axis=1)

    def _error(some: AdaptiveLIFParams) -> float:
        model = noisy_response(some, driven, repeats=TRIALS, seed=0).spikes.sum(axis=2).mean(axis=0)
        return float(np.sqrt(np.mean(((model - count) / np.maximum(1.0, count / SEVERAL)) ** 2)))

    width = float(params.delta_v)
    moved = [replace(params, delta_v=s * width, v_th=params.v_th + x * width) for s in NARROWER for x in SHIFTS]
    if (plain := _error(params)) < WELL or bits is None:
        return params, bits, ()
    errors = [_error(some) for some in moved]
    for n in np.argsort(errors):
        if errors[n] > HARDLY * plain:
            break
        if (own := spike_bits(moved[n], data)) is not None and own > LIKELY * bits:
            return moved[n], own, ("v_th and delta_v were chosen by the number of spikes in each step",)
    return params, bits, ()


def _received(data: Data, params: AdaptiveLIFParams) -> Data:
    """Return the repeats of a stimulus under the mean current that reaches the cell, with the terms of the sweeps."""
    current = data.terms.driven(params, data).current.mean(axis=0)
    return replace(data, current=np.broadcast_to(current, data.current.shape))


def _refit(
    start: GIFFit, origin: AdaptiveLIFParams, drift: Drift | None, deterministic: bool, data: Data, options: Options
) -> Outcome:
    """Refine parameters on a wider window, or on more sweeps, whose terms are then those that were measured."""
    part = with_spikes(data, options.window)
    if drift is not None and len(drift.offset) == part.num_sweeps:
        part = replace(part, drift=drift)
    with single_precision():
        fitted = _polish(part, start.params, origin, options, start.notes)
    return _outcome(part, fitted, origin, deterministic)


def estimate_drift(params: AdaptiveLIFParams, data: Data) -> Drift:
    """Estimate what each sweep rests at above v_rest and the gain of its current, shrunk towards 0 and 1.

    By least squares on the voltage, on which both act nearly linearly, with standard deviations of 3 mV and 0.15. They
    come on top of what the sweeps have already, with a mean offset of 0 and a mean gain of 1: a common part belongs to
    the parameters. Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    terms, found = data.terms, []
    for sweep in range(data.num_sweeps):
        parts = cut_lanes(data.select([sweep]), params)
        gram, slope, error = (
            np.sum(x, axis=0) for x in zip(*(_drifted(params, p, data.dt) for p in parts), strict=True)
        )
        weight = data.dt / (2.0 * VOLTAGE_MEMORY) / max(float(error), 1e-6)
        found.append(np.linalg.solve(weight * gram + np.diag(1.0 / np.array(DRIFT_SD) ** 2), weight * slope))
    more = np.array(found)
    more[:, 1] += 1.0
    offset, gain = terms.offset + more[:, 0], terms.gain * more[:, 1]
    return Drift(offset - offset.mean() * (data.v_rest is None), gain / gain.mean())


@partial(jax.jit, static_argnums=2)
def _drifted(params: AdaptiveLIFParams, lanes: Lanes, dt: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return normal equations [2, 2] and [2] of offset and gain, and the mean squared error, mV²."""

    def _voltage(x: jax.Array) -> jax.Array:
        return forced(params, lanes._replace(current=(1.0 + x[1]) * lanes.current, offset=lanes.offset + x[0]), dt)[0]

    zero = jnp.zeros(2, lanes.voltage.dtype)
    columns = jnp.stack([jax.jvp(_voltage, (zero,), (x,))[1] for x in jnp.eye(2, dtype=zero.dtype)])
    error = lanes.voltage - _voltage(zero)
    gram = jnp.einsum("itl,jtl,tl->ij", columns, columns, lanes.compared)
    mean = jnp.sum(lanes.compared * error**2) / jnp.maximum(jnp.sum(lanes.compared), 1.0)
    return gram, jnp.einsum("itl,tl->i", columns, lanes.compared * error), mean
