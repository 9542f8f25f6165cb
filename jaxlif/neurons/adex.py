"""The exponential and the adaptive exponential integrate-and-fire neuron, integrated up to the spike and past it.

Here the exponential current is part of the membrane and followed to its explosion. The mechanism
:class:`jaxlif.Exponential` is the same current held over a step and bounded, for the fits of an AdaptiveLIF.
"""

from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxlif import checks
from jaxlif.neurons.cell import Opened, Parameter, SpikingNeuron, initial_voltage, over_kinds, relax
from jaxlif.neurons.lif import LIFParams, refractory_steps
from jaxlif.neurons.upswing import ALONE, WITH_SYNAPSES, Course, Drive, coordinate, course_of, mean_of_decay, voltage
from jaxlif.surrogate import SuperSpike, Surrogate, spike


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdExParams(LIFParams):
    r"""A :class:`LIFParams` with an exponential upswing above ``v_t``, and an adaptation current w.

    The defaults are those of NEST and, but for v_th and v_reset, of the source. The exponential integrate-and-fire
    neuron is ``AdExParams(a=0.0, b=0.0)``.

    Args:
        v_th: the peak at which the upswing ends in a spike, mV.
        v_t: voltage where the exponential current outgrows the leak, mV.
        delta_t: width of the upswing, mV.
        a: conductance of the adaptation, nS.
        tau_w: its time constant, ms.
        b: jump of w at a spike, pA.

    Example:
        >>> round(float(AdExParams().rheobase), 3), round(float(AdExParams(a=0.0, b=0.0).rheobase), 3)
        (627.182, 546.0)

    Source: Fourcaud-Trocmé et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003; Brette & Gerstner 2005,
    doi:10.1152/jn.00686.2005.
    """

    tau_m: Parameter = 281.0 / 30.0
    r_m: Parameter = 1.0 / 30.0
    v_rest: Parameter = -70.6
    v_th: Parameter = 0.0
    v_reset: Parameter = -60.0
    t_ref: Parameter = 0.0
    v_t: Parameter = -50.4
    delta_t: Parameter = 2.0
    a: Parameter = 4.0
    tau_w: Parameter = 144.0
    b: Parameter = 80.5

    @property
    def rheobase(self) -> Array:
        r"""Current, pA, from which on a slow ramp ends in spikes: where rest vanishes or becomes unstable.

        There :math:`e^{(v - v_T)/\Delta_T}` is 1 more than the smaller of :math:`a r_m` and :math:`\tau_m/\tau_w`
        (Touboul & Brette 2008, doi:10.1007/s00422-008-0267-4); without adaptation :math:`(v_T - v_{rest} - \Delta_T)
        / r_m`. Needs :math:`a r_m > -1`.
        """
        excess = jnp.minimum(jnp.asarray(self.a * self.r_m), self.tau_m / self.tau_w)
        lifted = self.v_t + self.delta_t * jnp.log1p(excess) - self.v_rest
        return (1.0 / self.r_m + self.a) * lifted - self.delta_t * (1.0 + excess) / self.r_m

    def normalised(self) -> Self:
        r"""Return the same neuron with v_rest = 0, v_th = 1, r_m = 1, as :meth:`LIFParams.normalised` does.

        A current, ``b`` among them, becomes :math:`r_m I / (v_{th} - v_{rest})`, and ``a`` the number :math:`a r_m`.

        Example:
            >>> n = AdExParams(v_rest=-70.0, v_th=-20.0, v_t=-50.0, delta_t=2.0, b=75.0).normalised()
            >>> n.v_t, n.delta_t, n.b
            (0.4, 0.04, 0.05)
        """
        span = self.v_th - self.v_rest
        moved = {"v_t": (self.v_t - self.v_rest) / span, "delta_t": self.delta_t / span}
        return replace(super().normalised(), **moved, a=self.a * self.r_m, b=self.b * self.r_m / span)

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        super().check()
        for field, unit in (("delta_t", "mV"), ("tau_w", "ms")):
            checks.require_positive(field, getattr(self, field), unit)
        for field, unit in (("v_t", "mV"), ("a", "nS"), ("b", "pA")):
            checks.require_finite(field, getattr(self, field), unit)
        checks.require_below("v_t", self.v_t, "v_th", self.v_th, "mV")
        checks.require_different("v_rest", self.v_rest, "v_t", self.v_t, "mV")


class AdExState(NamedTuple):
    """Voltage [N], mV, adaptation current [N], pA, and the number of steps [N] that the neuron is still refractory."""

    v: Array
    w: Array
    refractory: Array


class _Integrated(NamedTuple):
    """A state before the reset, w as without one, and what the neurons that reached the peak within the step are at its
    end where they are reset: the time since the peak, ms, and v and w. Each [N].
    """

    v: Array
    w: Array
    refractory: Array
    peaked: Array
    since: Array
    v_after: Array
    w_after: Array


@dataclass(frozen=True)
class AdEx(SpikingNeuron):
    r"""The adaptive exponential integrate-and-fire neuron, whose spike is an explosion that the step follows.

    .. math::
        \tau_m \dot v = v_{rest} - v + \Delta_T e^{(v - v_T)/\Delta_T} + r_m (I - w), \qquad
        \tau_w \dot w = a (v - v_{rest}) - w

    Where v reaches ``v_th``, within the step, v becomes ``v_reset`` and w grows by b. With t_ref = 0 both go on from
    there at once; else v stays for the rest of the step and :math:`\lceil t_{ref}/dt \rceil` more, while w goes on. The
    spike is reported at the step's end. That is NEST's order for its aeif models; Brian2 tests and resets at steps'
    ends only, which is less than a step later. At most one spike falls into a step: a second comes in the next.

    The coordinate :math:`p = \ln(1 + e^{-(v - v_T)/\Delta_T})` is linear in v below v_T and in time during the
    explosion, so that its slope is bounded everywhere. Every neuron takes substeps of fifth order, of at most 0.1 ms,
    each half of the time left to the spike, whose last ten-thousandth of tau_m has a closed form. At dt = 0.1 ms
    voltages between spikes are 1e-6 mV from the exact ones, and better where the drive is not strong. A drive that
    takes v past 20 delta_t in a step and more has too few: 0.05 mV then, which a smaller dt mends.

    Gradients of v and w are those of the exact solution, the moment of the peak included. The surrogate is that of
    ``spikes`` alone, as they leave the neuron. It sees :math:`\Delta_T (p_{peak} - p) / |v_T - v_{rest}|`, which is not
    negative exactly where a spike is: below v_T the distance of a LIF of that threshold, in the upswing the time to the
    peak, past it the time since.

    Args:
        dt: step, ms.
        surrogate: pseudo-derivative of the spike.

    Example:
        >>> import jaxlif as jl
        >>> _, output = jl.simulate(AdEx(dt=0.1), AdExParams(), jnp.full(2000, 800.0))
        >>> jnp.diff(jnp.flatnonzero(output.spikes)).tolist()[:3]  # intervals in steps: they grow
        [174, 255, 410]

    Source: Brette & Gerstner 2005, doi:10.1152/jn.00686.2005.
    """

    dt: float = 0.1
    surrogate: Surrogate = SuperSpike()
    reverse_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")

    def check(self, params: AdExParams) -> None:
        """Refuse parameters of another neuron."""
        checks.require_params(self, params, AdExParams)

    def init_state(self, params: AdExParams, x: Array) -> AdExState:
        """Return the neuron at v_rest, not refractory, without adaptation."""
        v = initial_voltage(params.v_rest, params, x)
        return AdExState(v, jnp.zeros_like(v), jnp.zeros(v.shape, jnp.int32))

    def integrate(self, params: AdExParams, state: AdExState, x: Array) -> tuple[_Integrated, Array]:
        """Move voltage and adaptation one step under the current ``x`` [N], pA."""
        return self._integrated(params, state, lambda t, v: jnp.asarray(x, v.dtype), ALONE)

    def respond(self, params: AdExParams, *tau: Array) -> tuple[Array, Array, Array]:
        """Return of a course the slower rate, how much faster the other is, 1/ms, and the number of others."""
        rates = [1.0 / t for t in tau]
        slow = reduce(jnp.minimum, rates)
        return slow, reduce(jnp.maximum, rates) - slow, jnp.full_like(slow, len(tau) - 1.0)

    def integrate_currents(
        self, params: AdExParams, state: AdExState, x: Array, current: Array, response: tuple[Array, Array, Array]
    ) -> tuple[_Integrated, Array]:
        """Move the pair one step under the currents [K, N], pA, too, which change within it."""
        slow, gap, others = response

        def _drive(t: Array, v: Array) -> Array:
            second = t[None] * mean_of_decay(gap * t[None])
            course = jnp.exp(-slow * t[None]) * jnp.where(others > 0.0, second, 1.0)
            return jnp.asarray(x, v.dtype) + over_kinds(current * course)

        return self._integrated(params, state, _drive, WITH_SYNAPSES)

    def integrate_conductances(
        self, params: AdExParams, state: AdExState, x: Array, opened: Opened
    ) -> tuple[_Integrated, Array]:
        """Move the pair one step under conductances too, which change within it, NMDA's with the voltage."""

        def _drive(t: Array, v: Array) -> Array:
            return jnp.asarray(x, v.dtype) + opened.into(t, v - state.v)

        return self._integrated(params, state, _drive, WITH_SYNAPSES)

    def _integrated(
        self, params: AdExParams, state: AdExState, drive: Drive, longest: float
    ) -> tuple[_Integrated, Array]:
        """Run every neuron's clock to the step's end, with the reset and as if there were none."""
        known = jax.tree.map(lambda x: jnp.asarray(x, state.v.dtype), params)
        none, marks = jnp.zeros_like(state.v), (coordinate(known, known.v_th), coordinate(known, known.v_reset))
        start = Course(none, coordinate(known, state.v), state.w, none, none, none)
        given, values = jax.closure_convert(drive, none, state.v)
        following = Partial(lambda values, t, v: given(t, v, *values), values)
        end = course_of((self.dt, longest), (known, following, marks), state.refractory > 0, start)
        peaked, after = end.peaked > 0.0, voltage(known, jnp.maximum(end.p, marks[0]))
        since = jnp.where(peaked, self.dt - end.t_peak, 0.0)
        staying = relax(end.w_peak, known.a * (known.v_th - known.v_rest), known.tau_w, since)
        w = jnp.where(peaked, staying, end.w)
        advanced = _Integrated(state.v, w, state.refractory, peaked, since, after, end.w)
        return advanced, jnp.where(peaked, known.v_th, after)

    def emit(self, params: AdExParams, state: _Integrated, v: Array) -> tuple[Array, Array]:
        """Hold the refractory neurons, and let the others spike where v reached the peak in the step or is there."""
        held = state.refractory > 0
        v = jnp.where(held, state.v, v)
        to_peak = coordinate(params, params.v_th) - coordinate(params, v)
        distance = params.delta_t * jnp.where(state.peaked, state.since / params.tau_m, to_peak)
        # The scale is dimension, not physics, as in `threshold_distance`.
        scale = jax.lax.stop_gradient(jnp.abs(params.v_t - params.v_rest))
        return v, jnp.where(held, 0.0, spike(distance / scale, self.surrogate))

    def settle(self, params: AdExParams, state: _Integrated, v: Array, spikes: Array) -> tuple[AdExState, Array]:
        """Reset the neurons that spiked, those that had a peak since then, and start or count their refractoriness."""
        fired, own, steps = spikes > 0, state.peaked, refractory_steps(params.t_ref, self.dt)
        # Of a neuron that is back from its peak, what arrived at the step's end is still to come.
        back = jnp.where(own & (steps == 0), state.v_after + (v - params.v_th), params.v_reset)
        w = jnp.where(fired, jnp.where(own, state.w_after, state.w + params.b), state.w)
        v = jnp.where(fired, back, v)
        refractory = jnp.where(fired, steps, jnp.maximum(state.refractory - 1, 0))
        return AdExState(v, w, refractory), v
