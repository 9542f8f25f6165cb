"""The teacher-forced adaptive neuron over whole recordings at once, and its joint likelihood of spikes and voltage.

With the spikes given, spike-triggered currents and threshold movements are linear in them and the voltage is linear
between them: what :class:`TeacherForced` steps through is computed in blocks side by side.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.recurrence import recurrence, to_blocks
from jaxlif.losses import point_process_log_likelihood
from jaxlif.neurons.adaptive import AdaptiveLIFParams

BLOCK = 200  # steps; a few hundred fill the vector units and keep the number of scan steps small


class ForcedSweeps(NamedTuple):
    """Recorded sweeps in blocks [length, blocks, S].

    ``current`` in pA and ``voltage`` in mV; ``spikes``, ``previous`` (those of the step before), ``free`` (not held
    after a spike), ``judged`` (in the window, for spikes) and ``compared`` (in the window and away from spikes, for
    the voltage), 0 or 1; ``start`` [S], the voltage before the first step; ``at`` [N], the places of all spikes in the
    flat array, filled up with places beyond its end; ``offset`` [S], what a sweep's resting potential is above v_rest,
    mV.
    """

    current: Array
    voltage: Array
    spikes: Array
    previous: Array
    free: Array
    judged: Array
    compared: Array
    start: Array
    at: Array
    offset: Array


class ForcedTrace(NamedTuple):
    """Voltage before resets and threshold, [length, blocks, S], mV."""

    v: Array
    threshold: Array


def forced_sweeps(
    current: np.ndarray,
    voltage: np.ndarray,
    spikes: np.ndarray,
    *,
    refractory: int,
    before: int,
    judged: np.ndarray | None = None,
    room: int | None = None,
    offset: np.ndarray | None = None,
    dtype: str = "float32",
) -> ForcedSweeps:
    """Arrange recorded sweeps for :func:`forced_adaptive`.

    Args:
        current: [S, T], pA.
        voltage: [S, T], mV.
        spikes: [S, T], booleans.
        refractory: steps for which the voltage is held after a spike.
        before: steps before a spike at which voltages are not compared, the upstroke.
        judged: [S, T] or [T], booleans: where spikes and voltage count; everywhere by default.
        room: N, the most spikes; by default as many as there are.
        offset: [S], what each sweep's resting potential is above v_rest, mV; 0 by default.
        dtype: of the arrays; single precision is twice as fast and gives the same fit.
    """
    held, near = _after(spikes, 1, refractory + 1), _after(spikes, -before, refractory + 1)
    judged = np.ones(spikes.shape, bool) if judged is None else np.broadcast_to(judged, spikes.shape)
    rows = {
        "current": current,
        "voltage": voltage,
        "spikes": spikes & judged,
        "previous": _after(spikes, 1, 2),
        "free": ~held,
        "judged": judged,
        "compared": judged & ~near,
    }
    blocks = {name: jnp.asarray(to_blocks(x.astype(dtype), BLOCK, name == "free")) for name, x in rows.items()}
    at = np.flatnonzero(to_blocks(spikes, BLOCK))
    room = len(at) if room is None else room
    at = np.pad(at, (0, room - len(at)), constant_values=blocks["current"].size).astype(np.int32)
    rest = np.zeros(len(voltage)) if offset is None else offset
    ends = (jnp.asarray(x.astype(dtype)) for x in (voltage[:, 0], rest))
    return ForcedSweeps(**blocks, **dict(zip(("start", "offset"), ends, strict=True)), at=jnp.asarray(at))


def _after(spikes: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Mark the steps from ``first`` to ``stop`` (excluded), counted from each spike."""
    marked = np.zeros(spikes.shape, bool)
    sweeps, steps = np.nonzero(spikes)
    for offset in range(first, stop):
        inside = (steps + offset >= 0) & (steps + offset < spikes.shape[1])
        marked[sweeps[inside], steps[inside] + offset] = True
    return marked


def forced_adaptive(params: AdaptiveLIFParams, data: ForcedSweeps, dt: float) -> ForcedTrace:
    r"""Return voltage and threshold of an :class:`AdaptiveLIF` whose spikes are the recorded ones.

    It equals :class:`TeacherForced` step by step, with the voltage before the reset.

    Args:
        params: scalars; ``v_rest`` and ``v_th`` may be [S]. Subthreshold adaptation is not supported.
        data: from :func:`forced_sweeps`.
        dt: step, ms.

    Raises:
        ValueError: for parameters with subthreshold adaptation.
    """
    if params.a:
        raise ValueError(f"a has {len(params.a)} terms: a fit in blocks knows no subthreshold adaptation")
    dtype, zero, shape = data.voltage.dtype, jnp.zeros_like(data.start), data.current.shape
    current, free, previous = map(lanes, (data.current, data.free, data.previous))

    def decay(tau):
        return jnp.exp(-dt / jnp.asarray(tau, dtype))

    def kernels(sizes, taus):
        terms = (size * recurrence(decay(tau), None, previous, zero) for size, tau in zip(sizes, taus, strict=True))
        return sum(terms, jnp.zeros_like(current))

    def per_sweep(x):
        x = jnp.asarray(x, dtype)
        return x if x.ndim == 0 else jnp.tile(x, shape[1])[None]

    d = decay(params.tau_m)
    rest = per_sweep(params.v_rest + data.offset)
    driven = (1.0 - d) * (rest + params.r_m * (current - kernels(params.eta, params.tau_eta)))
    v = recurrence(d, free, jnp.where(free > 0, driven, params.v_reset), data.start)
    threshold = per_sweep(params.v_th) + kernels(params.gamma, params.tau_gamma)
    if params.coupling is not None:
        d = decay(params.coupling.tau)
        target = params.coupling.target(_previous_voltage(params, data.start, previous, v))
        x = recurrence(d, None, (1.0 - d) * target, params.coupling.target(data.start))
        threshold = threshold + params.coupling.b * x
    return ForcedTrace(v.reshape(shape), threshold.reshape(shape))


def _previous_voltage(params, start, previous, v):
    """Return the voltage at the start of each step, after the reset that a spike has caused."""
    before = jnp.concatenate([start, v[-1, : -len(start)]])
    return jnp.where(previous > 0, params.v_reset, jnp.concatenate([before[None], v[:-1]]))


def log_rate(params: AdaptiveLIFParams, v: Array, threshold: Array) -> Array:
    r"""Return :math:`\log\lambda = \log\lambda_0 + (v - \theta)/\Delta_v` of the escape noise, with the rate in 1/ms.

    Args:
        params: ``delta_v`` and ``lambda_0``.
        v: voltage, mV.
        threshold: of the same shape, mV.
    """
    return jnp.log(jnp.asarray(params.lambda_0, v.dtype)) + (v - threshold) / params.delta_v


class JointScore(NamedTuple):
    """Log-likelihood of the spikes, nats; sum of squared voltage errors, mV²; the number of voltages compared."""

    log_likelihood: Array
    squares: Array
    compared: Array


def joint_score(params: AdaptiveLIFParams, data: ForcedSweeps, dt: float) -> JointScore:
    """Score spikes and voltage of the forced neuron in the judged window.

    Args:
        params: as for :func:`forced_adaptive`, with ``delta_v`` and ``lambda_0``.
        data: the sweeps.
        dt: step, ms.
    """
    v, threshold = map(lanes, forced_adaptive(params, data, dt))
    spikes, free, judged, compared, voltage = map(
        lanes, (data.spikes, data.free, data.judged, data.compared, data.voltage)
    )
    rate = log_rate(params, v, threshold)
    likelihood = point_process_log_likelihood(rate, spikes, dt=dt, active=free * judged, at=data.at)
    squares = jnp.sum(compared * (v - voltage) ** 2)
    return JointScore(likelihood, squares, jnp.sum(compared))


def lanes(x: Array) -> Array:
    """Lay blocks and sweeps side by side, [length, lanes]: an axis of a few sweeps would leave vector units idle."""
    return x.reshape(len(x), -1)
