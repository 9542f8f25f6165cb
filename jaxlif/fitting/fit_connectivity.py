"""The connections of a network, read off the spike trains of its neurons, with their intervals.

With all spikes forced the voltage of an integrate-and-fire neuron is linear in the weights of what reaches it, and the
log-likelihood of its spikes concave in them: each neuron is a problem of its own, solved by Newton's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxlif import checks, losses
from jaxlif.files import require_memory
from jaxlif.fitting.coupled import ForcedNeuron, Targets, fit_targets
from jaxlif.fitting.intervals import FLAT, SINGLE, WIDEST, sandwich
from jaxlif.neurons.adaptive import AdaptiveLIF
from jaxlif.neurons.lif import refractory_steps
from jaxlif.synapses import CurrentParams, Synaptic, SynapticParams, VoltageJump
from jaxlif.synapses.currents import Current

FREE = ("v_rest", "v_th", "v_reset")  # in which the voltage over threshold is linear
_AT_ONCE = 2**25  # numbers of a design that several neurons have together
_STEP = 0.05  # of a logarithm, for second differences
_LEAD = 2.0  # nats by which the best delay must lead: a factor of 7


@dataclass(frozen=True, eq=False)
class Connectivity:
    """The result of :func:`fit_connectivity`: from row to column, 0 on the diagonal; intervals of 95 %.

    ``interval`` and ``intervals`` are nan where the data determine nothing. A weight there is one of many that explain
    the spikes as well, or 0 where the larger all are the better; ``determined`` is False.
    """

    params: SynapticParams  # with what was fitted
    weight: Float[np.ndarray, "N N"]  # pA, mV of voltage jumps
    interval: Float[np.ndarray, "2 N N"]
    determined: Bool[np.ndarray, "N N"]
    intervals: dict[str, np.ndarray]  # of the neurons' free parameters [2, N], and of a fitted tau_syn [2], ms
    delay: float  # ms
    log_likelihood: dict[float, float]  # nats, by delay, ms
    bits: float  # per held-out spike over Poisson trains of the neurons' rates; nan where nothing is held out
    bits_unconnected: float  # the same of neurons without connections, fitted alike
    notes: tuple[str, ...]  # what is not determined


def fit_connectivity(
    spikes: Shaped[Any, "T N"],
    cell: Synaptic,
    params: SynapticParams,
    *,
    current: Shaped[Any, "T N"] | None = None,
    delay: float | Sequence[float] | None = None,
    tau_syn: tuple[float, float] | None = None,
    free: tuple[str, ...] = ("v_rest",),
    held_out: float = 0.25,
) -> Connectivity:
    r"""Fit the weights between recorded neurons to their spike trains, by maximum likelihood.

    Neuron i spikes with the rate :math:`\lambda_0 e^{(v_i - \theta_i)/\Delta_v}` of :class:`jaxlif.EscapeNoise`, is
    reset at its recorded spikes, and gets :math:`w_{ji}` from each spike of neuron j. Its log-likelihood is concave in
    its weights. Intervals follow from its curvature; they hold for spikes that the model could have made.

    Args:
        spikes: of all neurons, 0 or 1.
        cell: ``Synaptic(AdaptiveLIF(dt), synapse)``, the synapse a current or :class:`VoltageJump`.
        params: its parameters, numbers or [N] of the neurons. ``delta_v`` sets the scale of the weights.
        current: that is known, pA; none by default: what comes from elsewhere is then in v_rest and delta_v.
        delay: of all synapses, ms, whole steps; of several the likeliest is taken. One step by default.
        tau_syn: bounds, ms, between which the time constant is fitted too; by default it is that of ``params``.
        free: of each neuron beside the weights, some of "v_rest", "v_th", "v_reset".
        held_out: share of the time, at its end, that is not fitted and judged on.

    Returns:
        The :class:`Connectivity`.

    Raises:
        ValueError: a neuron without spikes in the time that is fitted, or with one while refractory; a neuron whose
            voltage is not linear in its input; what does not fit together.

    Example:
        >>> import jaxlif as jl
        >>> spikes = np.zeros((2000, 2))
        >>> spikes[25::50, 0] = spikes[28::100, 1] = 1  # every other spike of 0 makes 1 spike, 3 ms later
        >>> cell = jl.Synaptic(jl.AdaptiveLIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(neuron=jl.AdaptiveLIFParams(delta_v=2.0), synapse=jl.CurrentParams(tau_syn=3.0))
        >>> found = fit_connectivity(spikes, cell, params)
        >>> bool(found.interval[0, 0, 1] > 0.0), found.bits > found.bits_unconnected
        (True, True)

    Source: Paninski 2004, doi:10.1088/0954-898X_15_4_002 (concavity); Pillow et al. 2008, doi:10.1038/nature07140.
    """
    problem = _problem(spikes, cell, params, current, free, held_out)
    delays = np.atleast_1d(checks.numbers("delay", cell.dt if delay is None else delay, "ms", rank=(0, 1))).tolist()
    if not delays:
        raise ValueError("delay holds no number: it must be one, ms, or several of which the likeliest is taken")
    lags = [_lag(d, cell.dt, len(problem.spikes)) for d in delays]
    bounds = None if tau_syn is None else _bounds(tau_syn, cell)
    fits = {d: _fitted(problem, lag, bounds) for d, lag in zip(delays, lags, strict=True)}
    best = max(fits, key=lambda d: fits[d].value)
    return _result(problem, fits[best], {d: fit.value for d, fit in fits.items()}, best)


class _Problem(NamedTuple):
    cell: Synaptic
    params: SynapticParams  # of the neurons [N] each
    spikes: np.ndarray  # [T, N]
    current: np.ndarray  # [T, N]
    free: tuple[str, ...]
    cut: int  # the first step that is held out


class _Fitted(NamedTuple):
    """All neurons at one delay; the variance [N, L, L] that an unknown time constant adds, and its interval, ms."""

    synapse: Any
    lag: int
    targets: Targets
    more: np.ndarray | None = None
    tau_syn: np.ndarray | None = None

    @property
    def value(self) -> float:
        """Log-likelihood of the time that is fitted, nats."""
        return float(self.targets.fitted.sum())


# ------------------------------------------------------------------------------------------------- all neurons


def _fitted(problem: _Problem, lag: int, bounds: tuple[float, float] | None) -> _Fitted:
    """Fit all neurons at one delay, and the time constant of their synapses if it has bounds."""
    if bounds is None:
        return _solved_at(problem, lag, problem.params.synapse)
    from scipy.optimize import minimize_scalar  # takes a tenth of a second to load

    def _at(log_tau: float) -> _Fitted:
        return _solved_at(problem, lag, replace(problem.params.synapse, tau_syn=float(np.exp(log_tau))))

    ends = np.log(bounds)
    found = minimize_scalar(lambda x: -_at(x).value, bounds=ends, method="bounded", options={"xatol": 2e-3})
    before, here, after = (_at(float(found.x) + h) for h in (-_STEP, 0.0, _STEP))
    bend = (2.0 * here.value - before.value - after.value) / _STEP**2
    if not bend > 0.0 or min(abs(found.x - ends)) < 0.01:
        return here._replace(tau_syn=np.full(2, np.nan))
    # As the weights move with the time constant, its variance is theirs too.
    slope = (after.targets.added - before.targets.added) / (2.0 * _STEP)
    interval = np.exp(found.x + np.array([-1.96, 1.96]) / np.sqrt(bend))
    return here._replace(more=slope[:, :, None] * slope[:, None] / bend, tau_syn=interval)


def _solved_at(problem: _Problem, lag: int, synapse: Any, *, connected: bool = True) -> _Fitted:
    spikes, free, count = problem.spikes, problem.free, problem.spikes.shape[1]
    arriving = np.zeros_like(spikes)
    arriving[lag:] = spikes[:-lag]
    # A spike's effect on its own neuron is the reset.
    use = np.concatenate([~np.eye(count, dtype=bool) & connected, np.ones((count, len(free)), bool)], axis=1)
    every = ForcedNeuron(problem.params.neuron, problem.current.T, spikes.T, use.astype(spikes.dtype))
    at_once = int(np.clip(_AT_ONCE // (len(spikes) * use.shape[1]), 1, count))
    targets = fit_targets(problem.cell, free, problem.cut, at_once, synapse, arriving, every)
    found = Targets(*(np.asarray(x, float) for x in targets))
    if found.sure.all():
        return _Fitted(synapse, lag, found)
    if not connected:
        rule = "no maximum was found from params, in which it must spike neither always nor never"
        raise ValueError(f"neuron {', '.join(map(str, np.flatnonzero(found.sure == 0.0)))}: {rule}")
    # Few spikes can be explained without an error, by weights without an end.
    alone = _solved_at(problem, lag, synapse, connected=False).targets
    chosen = (np.where(found.sure.reshape(-1, *(1,) * (x.ndim - 1)), x, y) for x, y in zip(found, alone, strict=True))
    return _Fitted(synapse, lag, Targets(*chosen)._replace(sure=found.sure))


def _result(problem: _Problem, fit: _Fitted, profile: dict[float, float], delay: float) -> Connectivity:
    count, own, neuron = problem.spikes.shape[1], fit.targets, problem.params.neuron
    more = np.zeros_like(own.information) if fit.more is None else fit.more
    reach = np.stack([_reach(*x) for x in zip(own.information, own.unit, more, strict=True)])
    reach[own.sure == 0.0] = np.nan
    values = {name: getattr(neuron, name) + own.added[:, count + k] for k, name in enumerate(problem.free)}
    reaches = {name: reach[:, count + k] for k, name in enumerate(problem.free)}
    intervals = {name: np.stack([x - reaches[name], x + reaches[name]]) for name, x in values.items()}
    if fit.tau_syn is not None:
        intervals["tau_syn"] = fit.tau_syn
    weight, around = own.added[:, :count].T, reach[:, :count].T
    determined = np.isfinite(around)
    return Connectivity(
        params=SynapticParams(neuron=replace(neuron, **values), synapse=fit.synapse),
        weight=weight,
        interval=np.stack([weight - around, weight + around]),
        determined=determined,
        intervals=intervals,
        delay=delay,
        log_likelihood=profile,
        bits=_bits(problem, own),
        bits_unconnected=_bits(problem, _solved_at(problem, fit.lag, fit.synapse, connected=False).targets),
        notes=tuple(_notes(determined, intervals, profile, delay, np.flatnonzero(own.sure == 0.0))),
    )


def _reach(information: np.ndarray, unit: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return half the width of each interval [L], nan where there is none."""
    unit = np.where(unit > 0.0, unit, 1.0)  # mV that one of it moves the voltage by, at most
    share = FLAT if jnp.result_type(float) == np.float64 else SINGLE
    scaled = information / np.outer(unit, unit)
    covariance = sandwich(scaled, scaled, share=share) + more * np.outer(unit, unit)
    reach = 1.96 * np.sqrt(np.diag(covariance))
    return np.where(2.0 * reach <= WIDEST, reach / unit, np.nan)


def _bits(problem: _Problem, targets: Targets) -> float:
    """Return bits per held-out spike over a Poisson train of each neuron's rate."""
    counts = problem.spikes[problem.cut :].sum(axis=0, dtype=float)
    if not counts.any():
        return float("nan")
    dt, duration = problem.cell.dt, problem.cell.dt * (len(problem.spikes) - problem.cut)
    pairs = zip(targets.held_out - counts * np.log(dt), counts, strict=True)
    each = [losses.bits_per_spike(x, n, duration) * n if n else x / np.log(2.0) for x, n in pairs]
    return float(np.sum(each) / counts.sum())


def _notes(
    determined: np.ndarray,
    intervals: dict[str, np.ndarray],
    profile: dict[float, float],
    delay: float,
    lost: np.ndarray,
) -> Any:
    """Say what is not determined."""
    if len(lost):
        yield f"no weights explain the spikes of {', '.join(map(str, lost))} best: those that reach it are left at 0"
    pairs = np.argwhere(~determined & ~np.eye(len(determined), dtype=bool))
    if len(pairs):
        shown = ", ".join(f"{i} -> {j}" for i, j in pairs[:8])
        more = f", and {len(pairs) - 8} more" if len(pairs) > 8 else ""
        yield f"not determined: the weights {shown}{more}"
    for name, interval in intervals.items():
        missing = np.flatnonzero(~np.isfinite(interval).all(axis=0))
        if len(missing):
            of = "" if name == "tau_syn" else f" of {', '.join(map(str, missing[:8]))}"
            yield f"not determined: {name}{of}"
    others = [value for d, value in profile.items() if d != delay]
    if others and profile[delay] - max(others) < _LEAD:
        yield f"hardly determined: the delay; another is {profile[delay] - max(others):.2g} nats behind"


# ------------------------------------------------------------------------------------------------- what was given


def _problem(spikes: Any, cell: Any, params: Any, current: Any, free: tuple[str, ...], held_out: float) -> _Problem:
    _require_linear(cell, params)
    for name in (free,) if isinstance(free, str) else free:
        checks.choice("free", name, FREE)
    dtype: Any = jnp.result_type(float)
    train = np.asarray(checks.numbers("spikes", spikes, rank=2)).astype(dtype)
    checks.require_binary("spikes", train)
    steps, count = train.shape
    if count < 2:
        raise ValueError(f"spikes has shape {train.shape}: it must be [T, N] of two neurons at least")
    checks.not_negative("held_out", held_out)
    cut = steps - int(held_out * steps)
    if not held_out < 1.0 or not cut:
        raise ValueError(f"held_out = {held_out:g}: it must be from 0 to below 1, a share of the time")
    given = np.zeros_like(train) if current is None else np.asarray(checks.numbers("current", current, "pA", rank=2))
    checks.require_same_shape(spikes=train, current=given)
    require_memory(6 * train.itemsize * steps * (count + len(free)), f"the design of {steps} steps, {count} neurons")
    neuron = jax.tree.map(lambda x: _per_neuron(x, count, dtype), params.neuron)
    _require_spikes(train, cut, np.asarray(refractory_steps(neuron.t_ref, cell.dt)), cell.dt)
    return _Problem(
        cell,
        replace(params, neuron=neuron),
        train,
        given.astype(dtype),
        (free,) if isinstance(free, str) else tuple(free),
        cut,
    )


def _require_linear(cell: Any, params: Any) -> None:
    """Refuse what is not linear in its input."""
    rule = "cell must be Synaptic(AdaptiveLIF(dt), synapse), the synapse a current or VoltageJump()"
    if not (isinstance(cell, Synaptic) and type(cell.neuron) is AdaptiveLIF):
        inner = f"({type(cell.neuron).__name__})" if isinstance(cell, Synaptic) else ""
        raise ValueError(f"cell = {type(cell).__name__}{inner}: {rule}")
    if not isinstance(cell.synapse, Current | VoltageJump):
        raise ValueError(f"cell.synapse = {type(cell.synapse).__name__}: {rule}")
    checks.check_params(params)
    cell.check(params)
    if params.neuron.following:
        kinds = ", ".join(type(x).__name__ for x in params.neuron.following)
        raise ValueError(f"params.neuron has {kinds}: the voltage must be linear in the input, without mechanisms")
    for x in jax.tree.leaves(params.synapse):
        if np.size(x) != 1:
            raise ValueError(f"params.synapse has a leaf of shape {np.shape(x)}: all synapses must be of one kind")


def _per_neuron(x: Any, count: int, dtype: Any) -> np.ndarray:
    if np.shape(x) not in ((), (count,)):
        raise ValueError(f"params.neuron has a leaf of shape {np.shape(x)}: it must be one number or [{count}]")
    return np.broadcast_to(np.asarray(x, dtype), (count,))


def _require_spikes(train: np.ndarray, cut: int, held: np.ndarray, dt: float) -> None:
    """Refuse neurons that never spike in the time that is fitted, or do while they are refractory."""
    silent = np.flatnonzero(~train[:cut].any(axis=0))
    if len(silent):
        rule = f"no spike in the {cut * dt:g} ms that are fitted, from which nothing can be read"
        raise ValueError(f"neuron {', '.join(map(str, silent))}: {rule}")
    for i, steps in enumerate(held):
        times = np.flatnonzero(train[:, i])
        short = np.flatnonzero(np.diff(times) <= steps)
        if len(short):
            at, gap = (times[short[0] + 1] + 1) * dt, (times[short[0] + 1] - times[short[0]]) * dt
            rule = f"params.neuron.t_ref holds it for {steps * dt:g} ms"
            raise ValueError(f"neuron {i} spikes at {at:g} ms, {gap:g} ms after a spike: {rule}")


def _lag(delay: float, dt: float, steps: int) -> int:
    lag = round(delay / dt)
    if lag < 1 or abs(lag - delay / dt) > 1e-4 or lag >= steps:
        raise ValueError(
            f"delay = {delay:g} ms: it must be whole steps of dt = {dt:g} ms, one or more, within the time"
        )
    return lag


def _bounds(tau_syn: tuple[float, float], cell: Synaptic) -> tuple[float, float]:
    if cell.synapse.params is not CurrentParams:
        raise ValueError(f"tau_syn = {tau_syn}: {type(cell.synapse).__name__} has no tau_syn to fit")
    ends = np.asarray(checks.numbers("tau_syn", tau_syn, "ms"), float)
    if ends.shape != (2,) or not 0.0 < ends[0] < ends[1]:
        raise ValueError(f"tau_syn = {tau_syn} ms: it must be two bounds above 0, the lower first")
    low, high = ends.tolist()
    return low, high
