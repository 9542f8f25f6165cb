"""Synapses of :class:`jaxlif.PreciseLIF`, whose spikes arrive at any time inside a step.

All arrivals of a step are known when it begins, and between them the voltage is known in closed form: what happens in a
step is exact, whatever dt, and costs as much as there are arrivals in it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.crossing import Membrane, Stretch, first_crossing
from jaxlif.neurons.leaky import LeakyIntegrator, LeakyOutput, LeakyState
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.precise import PreciseLIF, PreciseOutput
from jaxlif.synapses.base import Drive, Synapse, SynapticParams, SynapticState, VoltageJump
from jaxlif.synapses.courses import Flow
from jaxlif.synapses.currents import Current

ROUNDING = 1e-3  # of a step: how far outside of it an arrival may seem to be, at some 1e4 steps in single precision


class TimedDrive(NamedTuple):
    """What reaches a neuron within one step: up to M arrivals, in any order, each at its own time.

    ``arrivals`` are their weights: [M, N] in mV for voltage jumps, [M, K, N] in pA for K kinds of current; without N
    for all neurons alike. An empty slot weighs 0. ``times``, [M, N] or [M], are ms from the step's start, 0 to dt.
    ``input`` is the current [N], pA, held over the step.
    """

    arrivals: Array
    times: Array
    input: Any


@dataclass(frozen=True)
class PreciseSynaptic:
    r"""A :class:`jaxlif.PreciseLIF` with synapses: spikes arrive and leave off the grid, with exact gradients.

    Between arrivals :math:`\tau_m \dot v = v_{rest} - v + r_m (I + \sum_k I_k(t))` is solved in closed form. The first
    crossing of the threshold is approached from below by steps in which the highest current that can still flow does
    not reach it: none is missed, also where the voltage is below threshold again at the next arrival. Its derivative is
    that of the implicit function v(t) = v_th. Plain autodiff is exact, forwards and backwards, in weights, arrival
    times, currents and all parameters. At most one spike a step: t_ref >= dt.

    A voltage jump that arrives in refractoriness is lost, or with ``refractory_input`` what the membrane would leave of
    it is added at its end; currents go on. What arrives at a step's end belongs to that step.

    Args:
        neuron: a :class:`jaxlif.PreciseLIF`, or a :class:`jaxlif.LeakyIntegrator`, which does not spike.
        synapse: :class:`jaxlif.VoltageJump`, :class:`jaxlif.ExponentialCurrent`, :class:`jaxlif.AlphaCurrent` or
            :class:`jaxlif.DoubleExponentialCurrent`.

    Example:
        >>> import jaxlif as jl
        >>> cell = PreciseSynaptic(jl.PreciseLIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(synapse=jl.CurrentParams(tau_syn=2.0))
        >>> arrivals, times = timed_arrivals(jnp.array([2.3]), jnp.array([[1500.0]]), dt=1.0, num_steps=20)  # ms, pA
        >>> _, output = jl.simulate(cell, params, TimedDrive(arrivals, times, jnp.zeros(20)))
        >>> round(float(jl.nth_spike_time(output, 0, dt=1.0)), 6)
        3.879965

    Source: Morrison, Straube, Plesser & Diesmann 2007, doi:10.1162/neco.2007.19.1.47 (exact subthreshold integration
    with continuous spike times); Wunderlich & Pehle 2021, doi:10.1038/s41598-021-91786-z (exact gradients).
    """

    neuron: PreciseLIF | LeakyIntegrator
    synapse: Synapse
    takes: ClassVar[type] = TimedDrive

    def __post_init__(self) -> None:
        if not isinstance(self.neuron, PreciseLIF | LeakyIntegrator):
            rule = "PreciseSynaptic needs a PreciseLIF, or a LeakyIntegrator"
            raise ValueError(f"neuron = {protocol.kind_of(self.neuron)}: {rule}")
        if not isinstance(self.synapse, Current | VoltageJump):
            rule = "PreciseSynaptic takes currents of one kind, such as ExponentialCurrent(), or VoltageJump()"
            raise ValueError(f"synapse = {protocol.kind_of(self.synapse)}: {rule}")
        if isinstance(self.neuron, LeakyIntegrator) and self.synapse == VoltageJump(refractory_input=True):
            raise ValueError("refractory_input = True: a LeakyIntegrator is never refractory")

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt

    def check(self, params: SynapticParams) -> None:
        """Refuse parameters of another synapse, and what breaks a rule of the neuron."""
        checks.require_params(self, params, SynapticParams)
        self.synapse.check(params)
        self.neuron.check(params.neuron)

    def check_inputs(self, inputs: TimedDrive) -> None:
        """Refuse arrivals outside of their step, where they are at hand."""
        if checks.concrete(inputs.times):
            times, beyond = np.asarray(inputs.times), ROUNDING * self.dt
            inside = (times >= -beyond) & (times <= self.dt + beyond)
            checks.require(inside, "times", times, "ms", f"times must be in the step, from 0 to dt = {self.dt:g} ms")

    def init_state(self, params: SynapticParams, x: TimedDrive) -> SynapticState:
        """Return the neuron at rest and closed synapses."""
        slots, axes = jnp.shape(x.times)[:1], self._axes
        if jnp.ndim(x.arrivals) < 1 + axes or jnp.shape(x.arrivals)[:1] != slots or not slots:
            shape = "[M, K] or [M, K, N]" if axes else "[M] or [M, N]"
            rule = f"they must be {shape} and [M] or [M, N], of M arrivals"
            raise ValueError(f"arrivals {jnp.shape(x.arrivals)} and times {jnp.shape(x.times)} in a step: {rule}")
        own = [jnp.shape(x.arrivals)[1 + axes :], jnp.shape(x.times)[1:]]
        own += [jnp.shape(tau)[1:] for tau in jax.tree.leaves(params.synapse)]
        neuron = self.neuron.init_state(params.neuron, protocol.widened(x.input, jnp.broadcast_shapes(*own)))
        none = jnp.zeros((*jnp.shape(x.arrivals)[1 : 1 + axes], *neuron.v.shape), neuron.v.dtype)
        return SynapticState(neuron, self.synapse.init_state(params, Drive(none, neuron.v)))

    def step(self, params: SynapticParams, state: SynapticState, x: TimedDrive) -> tuple[SynapticState, Any]:
        """Advance one step in which ``x`` arrives."""
        course = _Currents(self.synapse) if isinstance(self.synapse, Current) else _Jumps()
        arrivals = _inside(x, self._axes, state.neuron.v, self.dt)
        if isinstance(self.neuron, PreciseLIF):
            return self._spiking(self.neuron, course, params, state, x.input, *_in_order(*arrivals))
        synapse, rise = course.together(params.neuron, params.synapse, state.synapse, *arrivals, self.dt)
        v = self.neuron.step(params.neuron, state.neuron, x.input)[1].v + rise
        return SynapticState(LeakyState(v), synapse), LeakyOutput(v)

    def _spiking(
        self,
        cell: PreciseLIF,
        course: Any,
        params: SynapticParams,
        state: SynapticState,
        current: Any,
        *arrivals: Array,
    ) -> tuple[SynapticState, PreciseOutput]:
        """Advance a neuron that spikes; ``arrivals`` are times and weights in order."""
        times, weights = arrivals
        own, v = params.neuron, state.neuron.v
        v_inf = jnp.broadcast_to(own.v_rest + own.r_m * jnp.asarray(current, v.dtype), v.shape)
        since = jnp.minimum(state.neuron.refractory, self.dt)
        membrane = Membrane(course, own, params.synapse, v_inf, since, v)
        keeps = isinstance(self.synapse, VoltageJump) and self.synapse.refractory_input
        if keeps:
            left = state.neuron.refractory[None] - times
            kept = state.synapse + _left(own, weights, left, left > 0.0)
            v = jnp.where(since < self.dt, v + kept, v)
        synapse, rise, stretches = _stretches(membrane, state.synapse, times, weights, self.dt)
        membrane = membrane.released(v, stretches)
        end = jnp.where(since < self.dt, membrane.voltage(rise, jnp.full_like(v, self.dt)), v)
        spiked, time = first_crossing(membrane, stretches, v, self.dt)
        highest = jnp.maximum(membrane.highest(stretches, v), end)
        neuron, output = cell.finish(own, state.neuron, end, highest, spiked, time)
        if keeps:
            late = _left(own, weights, (time + own.t_ref)[None] - times, times > time[None])
            synapse = jnp.where(spiked, late, jnp.where(since < self.dt, 0.0, kept))
        return SynapticState(neuron, synapse), output

    @property
    def _axes(self) -> int:
        """The number of axes of arrivals for the kinds of synapse."""
        return int(isinstance(self.synapse, Current))


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Jumps:
    """Synapses without a course."""

    def after(self, neuron: LIFParams, own: Any, synapse: Any, time: Array, weights: Any = 0.0) -> tuple[Any, Array]:
        """Return the synapses a time later, and what they have moved the voltage by: nothing, mV."""
        return synapse, jnp.zeros_like(time)

    def together(
        self, neuron: Any, own: Any, synapse: Any, times: Array, weights: Array, dt: float
    ) -> tuple[Any, Array]:
        """Return the synapses, and how much voltage the jumps leave, mV, at the step's end."""
        return synapse, _left(neuron, weights, dt - times, True)

    def peak(self, own: Any, synapse: Any, time: Array) -> Array:
        """Return the largest current within a time, pA: none."""
        return jnp.zeros_like(time)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Currents:
    """Currents of K kinds, which go through low-pass filters; the membrane is one more."""

    synapse: Current

    def after(self, neuron: LIFParams, own: Any, synapse: Any, time: Array, weights: Any = 0.0) -> tuple[Any, Array]:
        """Return the currents a time later, weights added, and what they have moved the voltage by, mV."""
        rate = 1.0 / jnp.asarray(neuron.tau_m, time.dtype)
        moved = self.synapse.branch(own, synapse, time).at(time[None], rate[None] if rate.ndim else rate)
        return self.synapse.advanced(own, synapse, time[None], weights), neuron.r_m * rate * jnp.sum(moved, axis=0)

    def together(
        self, neuron: Any, own: Any, synapse: Any, times: Array, weights: Array, dt: float
    ) -> tuple[Any, Array]:
        """Return the currents, and what they have moved the voltage by, mV, at the step's end: in whatever order."""
        closed = jnp.zeros((weights.shape[1], *times.shape[1:]), times.dtype)
        like = jax.tree.map(lambda x: closed, synapse)
        one = self.synapse.advanced(own, like, 0.0, 1.0)  # where all neurons are alike one course for all of them
        rate = 1.0 / jnp.asarray(neuron.tau_m, times.dtype)

        def _of_one(late: Array) -> tuple[Any, Array]:
            moved = self.synapse.branch(own, one, late).at(late[None], rate[None] if rate.ndim else rate)
            return self.synapse.advanced(own, one, late[None], 0.0), moved

        now, rise = self.after(neuron, own, synapse, jnp.full_like(weights[0, 0], dt))
        left, moved = jax.vmap(_of_one)(dt - times)
        arrived = jax.tree.map(lambda x: jnp.sum(weights * x, axis=0), left)
        return jax.tree.map(jnp.add, now, arrived), rise + neuron.r_m * rate * jnp.sum(weights * moved, axis=(0, 1))

    def peak(self, own: Any, synapse: Any, time: Array) -> Array:
        """Return a bound of the current within a time, pA."""
        flows = self.synapse.flows(own, synapse)
        return sum(jnp.sum(_peak(flow, time[None]), axis=0) for flow in flows)  # type: ignore[return-value]


def _peak(flow: Flow, time: Array) -> Array:
    """Return a bound of a course within a time, which is the course itself for a time of 0."""
    if len(flow.rates) == 1:
        return jnp.maximum(flow.size, flow.size * jnp.exp(-flow.rates[0] * time))
    # That of two filters is s e^(-rs) at most, with the lower rate r, and this grows until 1/r.
    rate = jnp.minimum(*flow.rates)
    rising = jnp.minimum(time, 1.0 / rate)
    return jnp.maximum(flow.size, 0.0) * rising * jnp.exp(-rate * rising)


def _inside(x: TimedDrive, axes: int, v: Array, dt: float) -> tuple[Array, Array]:
    """Return times [M, N] or [M, 1], nan outside of the step, and weights [M, ..., N]."""
    times, weights = _aligned(x.times, 1, v), _aligned(x.arrivals, 1 + axes, v)
    inside = jnp.clip(times, 0.0, dt)
    inside = jnp.where(jnp.abs(times - inside) <= ROUNDING * dt, inside, jnp.nan)
    return times + jax.lax.stop_gradient(inside - times), weights


def _in_order(times: Array, weights: Array) -> tuple[Array, Array]:
    """Sort arrivals by time."""
    order = jnp.argsort(jax.lax.stop_gradient(times), axis=0)
    of_weights = jnp.expand_dims(order, tuple(range(1, 1 + weights.ndim - times.ndim)))
    return jnp.take_along_axis(times, order, axis=0), jnp.take_along_axis(weights, of_weights, axis=0)


def _left(neuron: LIFParams, jumps: Array, until: Array, chosen: Array | bool) -> Array:
    """Return what the membrane leaves of the chosen jumps [M, N] in a time ``until``, all together."""
    decays = jax.vmap(lambda time: jnp.exp(-time / neuron.tau_m))(jnp.where(chosen, until, 0.0))
    return jnp.sum(jnp.where(chosen, jumps * decays, 0.0), axis=0)


def _stretches(membrane: Membrane, synapse: Any, times: Array, weights: Array, dt: float) -> tuple[Any, Array, Stretch]:
    """Return synapses and rise at the step's end, and its stretches between the arrivals."""
    start = jnp.concatenate([jnp.zeros_like(times[:1]), times])
    end = jnp.concatenate([times, jnp.full_like(times[:1], dt)])
    weights = jnp.concatenate([weights, jnp.zeros_like(weights[:1])])

    def _arrive(now: Any, x: Any) -> tuple[Any, Stretch]:
        (synapse, rise), (start, end, weights) = now, x
        stretch = Stretch(start, end, synapse, rise, rise)
        synapse, rise = membrane.after(stretch, end, weights)
        # A jump is part of the rise itself, but for who is refractory.
        jump = jnp.where(end < membrane.since, 0.0, weights) if isinstance(membrane.course, _Jumps) else 0.0
        return (synapse, rise + jump), stretch._replace(last=rise)

    (synapse, rise), stretches = jax.lax.scan(_arrive, (synapse, jnp.zeros_like(membrane.v)), (start, end, weights))
    return synapse, rise, stretches


def _aligned(value: Any, axes: int, v: Array) -> Array:
    """Put the axes of neurons behind the first ``axes`` of a value."""
    x = jnp.asarray(value, v.dtype)
    return x.reshape(x.shape[:axes] + (1,) * (v.ndim + axes - x.ndim) + x.shape[axes:])


def timed_arrivals(
    times: Float[Array | np.ndarray, " S"],
    weights: Float[Array | np.ndarray, "S ..."],
    *,
    dt: float,
    num_steps: int,
    slots: int | None = None,
) -> tuple[Float[Array, "T M ..."], Float[Array, "T M"]]:
    r"""Sort spikes into steps, for a :class:`TimedDrive`: that at t belongs to step :math:`\lceil t/dt \rceil - 1`.

    Args:
        times: when they arrive, ms from the start, delays included; differentiable. Infinity is never.
        weights: of each, as in a step's ``arrivals`` without their axis M: [S], [S, N], [S, K] or [S, K, N].
        dt: step, ms.
        num_steps: T.
        slots: M, for all steps alike; by default as many as it takes, which has to be said under a trace. A step in
            which more arrive is nan.

    Returns:
        Arrivals and times of the drive.

    Raises:
        ValueError: where something arrives before the start or after the end, or more in a step than there are slots.

    Example:
        >>> spikes, weights = jnp.array([2.3, 0.25, 2.0]), jnp.array([5.0, 3.0, 4.0])
        >>> arrivals, times = timed_arrivals(spikes, weights, dt=1.0, num_steps=3)
        >>> arrivals[:, 0].tolist(), [round(t, 3) for t in times[:, 0].tolist()]
        ([3.0, 4.0, 5.0], [0.25, 1.0, 0.3])
    """
    dt, num_steps = checks.positive("dt", dt, "ms"), checks.whole("num_steps", num_steps, 1)
    times, weights = checks.floating("times", times), checks.floating("weights", weights)
    slots = _slots(times, dt, num_steps, slots)
    step = jnp.minimum(step_of(jax.lax.stop_gradient(times), dt), num_steps).astype(jnp.int32)
    order = jnp.argsort(step)
    rank = jnp.arange(len(step), dtype=jnp.int32) - jnp.searchsorted(step[order], step[order])
    slot = jnp.zeros_like(rank).at[order].set(rank)
    arrivals = jnp.zeros((num_steps, slots, *weights.shape[1:]), weights.dtype).at[step, slot].set(weights, mode="drop")
    late = times - step.astype(times.dtype) * dt
    late = jnp.zeros((num_steps, slots), times.dtype).at[step, slot].set(late, mode="drop")
    full = jnp.zeros(num_steps, bool).at[jnp.where(slot < slots, num_steps, step)].set(True, mode="drop")
    return arrivals, jnp.where(full[:, None], jnp.nan, late)


def step_of(times: Array, dt: float) -> Array:
    """Return the step that times, ms, belong to; what is at a step's end belongs to it."""
    # 2.1 / 0.1 divides to a little more than 21, and late times have few digits left: that is rounding.
    eps, steps = float(jnp.finfo(times.dtype).eps), times / dt
    little = jnp.minimum(max(1e-9, 4.0 * eps) * steps + 80.0 * eps, 0.5 * ROUNDING)
    return jnp.maximum(jnp.ceil(steps - little) - 1.0, 0.0)


def _slots(times: Array, dt: float, num_steps: int, slots: int | None) -> int:
    """Return M, checked with the times where they are at hand."""
    if checks.concrete(times):
        with jax.ensure_compile_time_eval():
            step, known = np.asarray(step_of(times, dt)), np.asarray(times)
        inside = (known >= 0.0) & ((step < num_steps) | np.isposinf(known))
        checks.require(
            inside, "times", times, "ms", f"times must be in the run, from 0 to {num_steps * dt:g} ms, or inf"
        )
        most = int(np.bincount(step[step < num_steps].astype(int), minlength=1).max())
        slots = max(most, 1) if slots is None else slots
        if most > slots:
            raise ValueError(f"slots = {slots}: {most} spikes arrive in one step, and slots must be as many")
    elif slots is None:
        raise ValueError("slots = None: under a trace it must be a number, the most spikes that arrive in a step")
    return checks.whole("slots", slots, 1)
