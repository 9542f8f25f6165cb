"""Layers whose spikes reach the next one at their true times, off the grid: networks with exact gradients."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike
from jaxtyping import Float, Key, PyTree

from jaxlif import checks
from jaxlif.networks.groups import require_shapes
from jaxlif.networks.layers import init_dense, init_neurons, require_input
from jaxlif.neurons.cell import KEPT, state_dtype
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.precise import PreciseLIF, PreciseOutput
from jaxlif.synapses import CurrentParams, PreciseSynaptic, SynapticParams, TimedDrive
from jaxlif.synapses.currents import Current
from jaxlif.synapses.precise import ROUNDING, step_of


class TimedSpikes(NamedTuple):
    """Spikes [N], 0 or 1, and the time [N], ms from the step's start, of each; what has not spiked has any time."""

    spikes: Array
    spike_time: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PreciseDenseParams:
    """The neurons with their synapses, and what leads to them.

    Args:
        neuron: of the :class:`jaxlif.PreciseSynaptic` neuron.
        weight: [num_in, num_out], from row to column, current or voltage jump per spike.
        delay: ms, a number, [num_in, 1] for one of each input, [num_in, num_out] for one of each synapse.
    """

    neuron: SynapticParams
    weight: Float[Array | np.ndarray, "num_in num_out"]
    delay: Float[Array | np.ndarray, "..."] | float = 0.0

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        checks.floats("weight", self.weight, (None, None), "[num_in, num_out]")
        checks.require_not_negative("delay", self.delay, "ms")
        shape, (num_in, num_out) = jnp.shape(self.delay), self.weight.shape
        if shape not in ((), (num_in, 1), (num_in, num_out)):
            rule = f"it must be a number, [{num_in}, 1] or [{num_in}, {num_out}]"
            raise ValueError(f"delay has shape {list(shape)} for weights {[num_in, num_out]}: {rule}")
        checks.check_params(self.neuron)


class PreciseDenseState(NamedTuple):
    """The neurons' state, and what came in the last K steps, leaves [K, num_in], the oldest first."""

    neuron: PyTree
    past: TimedSpikes


@dataclass(frozen=True)
class PreciseDense:
    r"""All-to-all synapses onto neurons in continuous time: a spike at t arrives at :math:`t + d_{ij}`, weighing w_ij.

    Between layers spikes keep their times, and autodiff differentiates them: gradients in weights, delays, time
    constants and thresholds of all layers are exact, at any dt. In :class:`Sequential` a layer's spikes reach the next
    one in the same step. A silent neuron has no spike time and no gradient, unless the :class:`jaxlif.PreciseLIF` has a
    surrogate, which replaces the derivative of ``spikes`` alone.

    Args:
        neuron: a :class:`jaxlif.PreciseSynaptic`; around a :class:`jaxlif.LeakyIntegrator`, a readout.
        max_delay: longest delay, ms.
        slots: most spikes that arrive in one step at a neuron, beyond which all is nan; as many as inputs by default.
            Where few of many inputs spike in a step, this is what the time goes with.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Sequential
        >>> hidden, readout = (PreciseDense(jl.PreciseSynaptic(neuron, jl.ExponentialCurrent()), max_delay=5.0)
        ...                    for neuron in (jl.PreciseLIF(dt=5.0), jl.LeakyIntegrator(dt=5.0)))
        >>> keys = jax.random.split(jax.random.key(0))
        >>> first = init_precise(keys[0], 5, 30, gain=8.0, neuron=init_neurons(30, t_ref=5.0))
        >>> last = init_precise(keys[1], 30, 3, neuron=jl.LeakyParams(tau_m=20.0))
        >>> spikes = timed_spikes(jnp.linspace(0.5, 9.5, 5), dt=5.0, num_steps=4)
        >>> _, output = jl.simulate(Sequential((hidden, readout)), (first, last), spikes)
        >>> output.layers[0].spike_time.shape, output.output.v.shape
        ((4, 30), (4, 3))

    Source: Göltz et al. 2021, doi:10.1038/s42256-021-00388-x (spike times by gradient); Göltz et al. 2025,
    doi:10.1038/s41467-025-63120-y (exact gradients of delays).
    """

    neuron: PreciseSynaptic
    max_delay: float = 0.0
    slots: int | None = None
    takes: ClassVar[type] = TimedSpikes

    def __post_init__(self) -> None:
        if not isinstance(self.neuron, PreciseSynaptic):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: {type(self).__name__} needs a PreciseSynaptic")
        checks.not_negative("max_delay", self.max_delay, "ms")
        if self.slots is not None:
            checks.whole("slots", self.slots, 1)

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt

    @property
    def max_lag(self) -> int:
        """The number of steps, K, after which the last spike of a step has arrived."""
        return math.ceil(self.max_delay / self.dt * (1.0 - 1e-6))

    def check(self, params: PreciseDenseParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron, or a delay is too long."""
        checks.require_params(self, params, PreciseDenseParams)
        require_shapes(params.neuron, params.weight.shape[1], self.neuron.synapse, 1)
        self.neuron.check(params.neuron)
        if checks.concrete(params.delay):
            rule = f"delay must not exceed max_delay = {self.max_delay:g} ms"
            beyond = np.asarray(params.delay) > self.max_delay * (1.0 + 1e-6)  # 7 times 0.1 is no longer than 0.7
            checks.require(~beyond, "delay", params.delay, "ms", rule)

    def check_inputs(self, inputs: TimedSpikes) -> None:
        """Raise ValueError where spikes at hand are no zeros and ones, or outside of their step."""
        spikes, times = inputs
        if jnp.shape(spikes) != jnp.shape(times):
            raise ValueError(f"spikes {list(jnp.shape(spikes))} and spike_time {list(jnp.shape(times))} must be alike")
        if checks.concrete(spikes) and checks.concrete(times):
            fired, when, beyond = np.asarray(spikes), np.asarray(times), ROUNDING * self.dt
            checks.require((fired == 0) | (fired == 1), "spikes", fired, "", "spikes must be 0 or 1")
            inside = (when >= -beyond) & (when <= self.dt + beyond) | (fired == 0)
            rule = f"spike_time must be in the step, from 0 to dt = {self.dt:g} ms"
            checks.require(inside, "spike_time", when, "ms", rule)
            if self.max_lag and len(fired):
                self._require_apart(fired.reshape(len(fired), -1) != 0, when.reshape(len(when), -1))

    def _require_apart(self, fired: np.ndarray, times: np.ndarray) -> None:
        """Refuse spikes of an input in two steps that delays may bring into one."""
        close = fired[:-1] & fired[1:] & (self.dt + times[1:] - times[:-1] < (1.0 - 1e-6) * self.dt)
        for n, i in np.argwhere(close)[:1]:
            one, two = n * self.dt + times[n, i], (n + 1) * self.dt + times[n + 1, i]
            rule = f"with delays they must be dt = {self.dt:g} ms apart"
            raise ValueError(f"spikes of input {i} at {one:g} and {two:g} ms: {rule}")

    def init_state(self, params: PreciseDenseParams, x: TimedSpikes) -> PyTree:
        """Return fresh neurons that nothing is on its way to."""
        require_input(params.weight, x.spikes)
        dtype = state_dtype(params, x)
        past = TimedSpikes(*(jnp.zeros((self.max_lag, *jnp.shape(leaf)), dtype) for leaf in x))
        still = TimedSpikes(*(jnp.zeros(jnp.shape(leaf), dtype) for leaf in x))
        return PreciseDenseState(self.neuron.init_state(params.neuron, self._drive(params, past, still)), past)

    def step(self, params: PreciseDenseParams, state: PyTree, x: TimedSpikes) -> tuple[PyTree, Any]:
        """Advance one step in which the inputs spike at times ``x``."""
        x = TimedSpikes(*(jnp.asarray(leaf, state.past.spikes.dtype) for leaf in x))
        neuron, output = self.neuron.step(params.neuron, state.neuron, self._drive(params, state.past, x))
        past = jax.tree.map(lambda old, new: jnp.concatenate([old, new[None]])[1:], state.past, x)
        return PreciseDenseState(neuron, past), output

    def _drive(self, params: PreciseDenseParams, past: TimedSpikes, x: TimedSpikes) -> TimedDrive:
        """Return what arrives in this step."""
        weight = jnp.asarray(params.weight, x.spikes.dtype)
        spikes, times = self._due(jnp.asarray(params.delay, x.spikes.dtype), past, x)
        if self.slots is not None and self.slots < len(spikes):
            spikes, times, weight = _earliest(self.slots, spikes, times, weight)
        arrivals = spikes.reshape(spikes.shape + (1,) * (2 - spikes.ndim)) * weight
        arrivals = arrivals[:, None] if isinstance(self.neuron.synapse, Current) else arrivals
        return TimedDrive(arrivals, times, jnp.zeros_like(weight[0]))

    def _due(self, delay: Array, past: TimedSpikes, x: TimedSpikes) -> tuple[Array, Array]:
        """Return the spikes, [num_in] or [num_in, num_out], that arrive in this step, and when."""
        of_inputs = delay.ndim == 0 or delay.shape[1] == 1
        late = (jnp.broadcast_to(delay, (len(x.spikes), 1))[:, 0] if of_inputs else delay)[None]
        late = jnp.where(late < -ROUNDING * self.dt, jnp.nan, late)  # nothing arrives before it has left
        line = jax.tree.map(lambda old, new: jnp.concatenate([new[None], old[::-1]]), past, x)
        spikes, times = (leaf.reshape(leaf.shape + (1,) * (late.ndim - leaf.ndim)) for leaf in line)
        lag = jnp.arange(self.max_lag + 1, dtype=late.dtype).reshape((-1,) + (1,) * (times.ndim - 1))
        times, fired = times + late, jax.lax.stop_gradient(spikes) != 0.0  # nan is
        # Rounding may not carry the longest delay beyond the line.
        here = jnp.minimum(step_of(jax.lax.stop_gradient(times), self.dt), self.max_lag) == lag
        # What has not spiked may have a surrogate's derivative.
        arrived = jnp.sum(jnp.where(here, spikes, 0.0), axis=0)
        when = jnp.sum(jnp.where(here & fired, times - lag * self.dt, 0.0), axis=0)
        # Two spikes of one input that arrive in one step would be one at the sum of their times.
        wrong = (jnp.sum(here & fired, axis=0) > 1) | jnp.any(fired & jnp.isnan(spikes + times), axis=0)
        return jnp.where(wrong, jnp.nan, arrived), when


def _earliest(slots: int, spikes: Array, times: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return of what arrives the first so many, nan where there are more."""
    fired = jax.lax.stop_gradient(spikes) != 0.0  # nan is
    order = jnp.argsort(jnp.where(fired, jax.lax.stop_gradient(times), jnp.inf), axis=0)[:slots]
    order = checkpoint_name(order, KEPT)  # sorting anew takes longer than all else
    spikes, times = (jnp.take_along_axis(x, order, axis=0) for x in (spikes, times))
    weight = weight[order] if order.ndim == 1 else jnp.take_along_axis(weight, order, axis=0)
    full = jnp.sum(fired, axis=0, keepdims=True) > slots
    return jnp.where(full, jnp.nan, spikes), times, weight


def require_room(layer: PreciseDense, before: PreciseLIF) -> None:
    """Refuse slots where what has not spiked has a derivative too."""
    if layer.slots is not None and before.surrogate is not None:
        rule = "they hold what spikes, and the surrogate's derivative is of what does not"
        raise ValueError(f"slots = {layer.slots}: {rule}")


class PreciseRecurrentState(NamedTuple):
    """The state of the layer of inputs and own spikes, and these of the step before, from that step's start."""

    layer: PreciseDenseState
    own: TimedSpikes


@dataclass(frozen=True)
class PreciseRecurrent(PreciseDense):
    """A :class:`PreciseDense` whose spikes come back to it after delays of a step or more.

    Its own spikes are the last of its inputs: weight and delay are [num_in + num_out, num_out].

    Example:
        >>> import jaxlif as jl
        >>> from dataclasses import replace
        >>> cell = PreciseRecurrent(jl.PreciseSynaptic(jl.PreciseLIF(dt=1.0), jl.ExponentialCurrent()), max_delay=2.0)
        >>> neuron = init_neurons(30, t_ref=1.0)
        >>> params = replace(init_precise(jax.random.key(0), 5 + 30, 30, gain=8.0, neuron=neuron), delay=1.5)
        >>> spikes = timed_spikes(jnp.linspace(0.5, 9.5, 5), dt=1.0, num_steps=20)
        >>> jl.simulate(cell, params, spikes)[1].spikes.shape
        (20, 30)

    Source: Mészáros, Knight & Nowotny 2025, doi:10.48550/arXiv.2501.07331 (exact gradients of recurrent delays).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.neuron.neuron, PreciseLIF):
            kind = type(self.neuron.neuron).__name__
            raise ValueError(f"neuron = PreciseSynaptic({kind}): PreciseRecurrent feeds spikes back, and it has none")
        require_room(self, self.neuron.neuron)

    def check(self, params: PreciseDenseParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule, or a spike would come back within its step."""
        super().check(params)
        if checks.concrete(params.delay):
            own = np.broadcast_to(params.delay, params.weight.shape)[-params.weight.shape[1] :]
            rule = f"what comes back must take dt = {self.dt:g} ms or longer"
            checks.require(own >= self.dt * (1.0 - 1e-6), "delay", own, "ms", rule)

    def init_state(self, params: PreciseDenseParams, x: TimedSpikes) -> PyTree:
        """Return fresh neurons, none of which has spiked."""
        none = jnp.zeros(params.weight.shape[1], state_dtype(params, x))
        own = TimedSpikes(none, none)
        return PreciseRecurrentState(super().init_state(params, _joined(x, own)), own)

    def step(self, params: PreciseDenseParams, state: PyTree, x: TimedSpikes) -> tuple[PyTree, PreciseOutput]:
        """Advance one step in which the inputs spike at times ``x``."""
        before = state.own._replace(spike_time=state.own.spike_time - self.dt)
        layer, output = super().step(params, state.layer, _joined(x, before))
        return PreciseRecurrentState(layer, TimedSpikes(output.spikes, output.spike_time)), output


def _joined(x: TimedSpikes, own: TimedSpikes) -> TimedSpikes:
    return TimedSpikes(*(jnp.concatenate([jnp.asarray(a, b.dtype), b]) for a, b in zip(x, own, strict=True)))


def init_precise(
    key: Key[Array, ""],
    num_in: int,
    num_out: int,
    *,
    neuron: LIFParams | LeakyParams | None = None,
    gain: float = 5.0,
    mean: float = 0.5,
    tau_syn: float = 5.0,
) -> PreciseDenseParams:
    r"""Draw a layer with exponential currents, :math:`W_{ij} \sim N(mg/\sqrt{n}, g^2/n)`.

    ``neuron`` is ``init_neurons(num_out)`` by default; what spikes needs a t_ref of dt. ``tau_syn``, ms, becomes
    [1, num_out], so that each neuron can learn its own.

    Example:
        >>> params = init_precise(jax.random.key(0), 5, 30, gain=6.0, neuron=init_neurons(30, t_ref=1.0))
        >>> params.weight.shape, params.neuron.synapse.tau_syn.shape
        ((5, 30), (1, 30))
    """
    weight = init_dense(key, num_in, num_out, gain=gain, bias=False).weight
    weight = weight + checks.number("mean", mean) * gain / num_in**0.5
    neuron = init_neurons(num_out) if neuron is None else neuron
    synapse = CurrentParams(tau_syn=jnp.full((1, num_out), checks.positive("tau_syn", tau_syn, "ms"), weight.dtype))
    return PreciseDenseParams(neuron=SynapticParams(neuron=neuron, synapse=synapse), weight=weight)


def timed_spikes(times: Float[ArrayLike, "*S N"], *, dt: float, num_steps: int) -> TimedSpikes:
    r"""Sort spike times into steps, for a :class:`PreciseDense` layer: that at t belongs to step :math:`\lceil t/dt
    \rceil - 1`.

    Args:
        times: ms from the start, [N] for one spike of each input, or [S, N]; infinity is never. Differentiable.
        dt: step, ms.
        num_steps: T.

    Returns:
        Spikes and their times, [T, N]; under a trace nan where one of an input's does not fit.

    Raises:
        ValueError: where a time is outside of the run, or an input spikes twice in a step.

    Example:
        >>> spikes = timed_spikes(jnp.array([2.5, jnp.inf]), dt=1.0, num_steps=4)
        >>> spikes.spikes[:, 0].tolist(), spikes.spike_time[:, 0].tolist(), float(spikes.spikes[:, 1].sum())
        ([0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.5, 0.0], 0.0)
    """
    dt, num_steps = checks.positive("dt", dt, "ms"), checks.whole("num_steps", num_steps, 1)
    times = checks.floating("times", times)
    if times.ndim not in (1, 2):
        raise ValueError(
            f"times has shape {list(times.shape)}: it must be [N] or [S, N]; a batch goes through jax.vmap"
        )
    times = times.reshape(-1, times.shape[-1])
    step = step_of(jax.lax.stop_gradient(times), dt)
    _require_steps(times, step, dt, num_steps)
    lag = jnp.arange(num_steps, dtype=times.dtype)[:, None, None]
    here = step[None] == lag
    late = jnp.sum(jnp.where(here, times[None] - lag * dt, 0.0), axis=1)
    wrong = jnp.any(~((times >= 0.0) & (jnp.isinf(times) | (step < num_steps))), axis=0) | jnp.any(
        jnp.sum(here, axis=1) > 1, axis=0
    )
    spikes = jnp.any(here, axis=1).astype(times.dtype)
    return TimedSpikes(jnp.where(wrong[None], jnp.nan, spikes), late)


def _require_steps(times: Array, step: Array, dt: float, num_steps: int) -> None:
    if not checks.concrete(times):
        return
    with jax.ensure_compile_time_eval():
        known, of = np.asarray(times), np.asarray(step)
    inside = (known >= 0.0) & ((of < num_steps) | np.isposinf(known))
    checks.require(inside, "times", known, "ms", f"times must be in the run, from 0 to {num_steps * dt:g} ms, or inf")
    order = np.sort(np.where(np.isposinf(known), -1.0 - np.arange(len(known))[:, None], of), axis=0)
    if (twice := np.argwhere(np.diff(order, axis=0) == 0)).size:
        n = int(twice[0, 1])
        start = order[twice[0, 0], n] * dt
        raise ValueError(f"times of input {n}: two spikes from {start:g} to {start + dt:g} ms, and a step holds one")
