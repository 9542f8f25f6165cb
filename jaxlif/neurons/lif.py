"""The leaky integrate-and-fire neuron on a time grid."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cascade import cascade
from jaxlif.neurons.cell import (
    SPIKING,
    Opened,
    Parameter,
    SpikingNeuron,
    initial_voltage,
    over_kinds,
    relax,
)
from jaxlif.neurons.time_axis import charge_and_reset, stepped
from jaxlif.surrogate import SuperSpike, Surrogate, spike


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LIFParams:
    r"""Physics of :math:`\tau_m \dot v = v_{rest} - v + r_m I` with threshold, reset and refractoriness.

    The defaults are the neuron of the lecture note: :math:`c_m = \tau_m / r_m` = 100 pF.

    Args:
        tau_m: membrane time constant, ms, scalar or [N] like every field.
        r_m: membrane resistance, GΩ.
        v_rest: resting (leak reversal) potential, mV.
        v_th: threshold, mV.
        v_reset: voltage after a spike, mV.
        t_ref: absolute refractory period, ms.

    Example:
        >>> params = LIFParams(tau_m=20.0, r_m=0.2)
        >>> params.c_m, params.g_l
        (100.0, 5.0)

    Source: Lapicque 1907; Gerstner et al. 2014, doi:10.1017/CBO9781107447615, chapter 1.
    """

    tau_m: Parameter = 10.0
    r_m: Parameter = 0.1
    v_rest: Parameter = -70.0
    v_th: Parameter = -55.0
    v_reset: Parameter = -65.0
    t_ref: Parameter = 5.0

    @classmethod
    def from_circuit(
        cls, *, c_m: Parameter, g_l: Parameter | None = None, r_m: Parameter | None = None, **rest: Parameter
    ) -> Self:
        r"""Make parameters from the RC circuit: :math:`r_m = 1/g_l`, :math:`\tau_m = r_m c_m`; c_m in pF.

        Give either the leak conductance g_l, nS, or the resistance r_m, GΩ; ``rest`` are the other fields.

        Example:
            >>> LIFParams.from_circuit(c_m=250.0, g_l=25.0).tau_m
            10.0
        """
        if g_l is not None and r_m is None:
            r_m = 1.0 / g_l
        elif g_l is not None or r_m is None:
            raise ValueError("from_circuit needs exactly one of g_l (nS) and r_m (GΩ)")
        return cls(tau_m=r_m * c_m, r_m=r_m, **rest)

    @property
    def c_m(self) -> Parameter:
        """Membrane capacitance, pF."""
        return self.tau_m / self.r_m

    @property
    def g_l(self) -> Parameter:
        """Leak conductance, nS."""
        return 1.0 / self.r_m

    def normalised(self) -> Self:
        r"""Return the same neuron with v_rest = 0, v_th = 1, r_m = 1: :math:`v' = (v - v_{rest})/(v_{th} - v_{rest})`.

        A current I in pA becomes :math:`r_m I / (v_{th} - v_{rest})`; times stay in ms.

        Raises:
            ValueError: where v_rest is not below v_th.

        Example:
            >>> n = LIFParams(v_rest=-70.0, v_th=-50.0, v_reset=-60.0).normalised()
            >>> n.v_rest, n.v_th, n.v_reset, n.r_m
            (0.0, 1.0, 0.5, 1.0)
        """
        checks.require_below("v_rest", self.v_rest, "v_th", self.v_th, "mV")
        v_reset = (self.v_reset - self.v_rest) / (self.v_th - self.v_rest)
        return replace(self, v_rest=0.0, v_th=1.0, v_reset=v_reset, r_m=1.0)

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.check_fields(self)
        checks.require_below("v_reset", self.v_reset, "v_th", self.v_th, "mV")
        checks.require_different("v_rest", self.v_rest, "v_th", self.v_th, "mV")


class LIFState(NamedTuple):
    """Voltage [N], mV, and the number of steps [N] that the neuron is still refractory."""

    v: Array
    refractory: Array


@dataclass(frozen=True)
class OnGrid(SpikingNeuron):
    """The numerics of neurons that spike on the grid, and the plain neuron that these make their membrane."""

    dt: float = 0.1
    surrogate: Surrogate = SuperSpike()
    reset: str = "value"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")
        checks.choice("reset", self.reset, ("value", "subtract"))

    @property
    def membrane(self) -> "LIF":
        """The plain neuron that integrates, tests and resets."""
        return LIF(self.dt, self.surrogate, self.reset, self.detach_reset)


@dataclass(frozen=True)
class LIF(OnGrid):
    r"""The leaky integrate-and-fire neuron: exact on the grid, a surrogate gradient at the threshold.

    A step integrates :math:`\tau_m \dot v = v_{rest} - v + r_m I` exactly for the current held over it, tests
    :math:`v \ge v_{th}`, resets, holds the voltage for :math:`\lceil t_{ref}/dt \rceil` steps, and records. The
    gradient with respect to ``t_ref`` is zero, because it acts through a whole number of steps.

    Args:
        dt: step, ms.
        surrogate: pseudo-derivative of the spike in the distance (v - v_th)/|v_th - v_rest|.
        reset: "value" sets v to v_reset; "subtract" lowers it by v_th - v_reset.
        detach_reset: keep the surrogate out of the reset's gradient. Without it the gradient of a long noisy trace
            can explode, above all where the voltage spends time below v_reset.

    Example:
        >>> cell, params = LIF(dt=0.1), LIFParams(t_ref=0.0)
        >>> state = cell.init_state(params, jnp.asarray(160.0))
        >>> state, output = cell.step(params, state, jnp.asarray(160.0))
        >>> round(float(output.v), 4)
        -69.8408

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570 (exact integration);
    Neftci, Mostafa & Zenke 2019, doi:10.1109/MSP.2019.2931595 (surrogate gradients).
    """

    def check(self, params: LIFParams) -> None:
        """Refuse parameters with a mechanism that this neuron does not have."""
        checks.require_fields(type(self).__name__, params)

    def init_state(self, params: LIFParams, x: Array) -> LIFState:
        """Return the neuron at rest, not refractory, in the shape of the input ``x`` and the parameters."""
        v = initial_voltage(params.v_rest, params, x)
        return LIFState(v, jnp.zeros(v.shape, jnp.int32))

    def integrate(self, params: LIFParams, state: LIFState, x: Array) -> tuple[LIFState, Array]:
        """Relax the voltage for one step under the current ``x`` [N], pA."""
        v_inf = params.v_rest + params.r_m * jnp.asarray(x, state.v.dtype)
        return state, relax(state.v, v_inf, params.tau_m, self.dt)

    def respond(self, params: LIFParams, *tau: Array) -> Array:
        """Return the rise [N], mV, that a current of 1 pA through low-pass filters of ``tau`` causes in a step."""
        return params.r_m / params.tau_m * cascade(self.dt, 1.0 / params.tau_m, *(1.0 / t for t in tau))

    def integrate_currents(
        self, params: LIFParams, state: LIFState, x: Array, current: Array, response: Array
    ) -> tuple[LIFState, Array]:
        """Relax the voltage for one step under the currents [K, N], pA, too, which change within it: exactly."""
        state, v = self.integrate(params, state, x)
        return state, v + over_kinds(response * current)

    def integrate_conductances(
        self, params: LIFParams, state: LIFState, x: Array, opened: Opened
    ) -> tuple[LIFState, Array]:
        """Integrate the voltage for one step under conductances too, which change within it."""
        return state, state.v + _conductance_rise(params, state.v, x, opened, self.dt)

    def remaining(self, params: LIFParams, state: LIFState) -> Array:
        """Return what the membrane leaves of 1 mV, [N], after as many steps as the neuron is still refractory."""
        return jnp.exp(-state.refractory.astype(state.v.dtype) * self.dt / params.tau_m)

    def emit(self, params: LIFParams, state: LIFState, v: Array) -> tuple[Array, Array]:
        """Hold the refractory neurons, and let the others spike where v >= v_th."""
        held = state.refractory > 0
        v = jnp.where(held, state.v, v)
        return v, jnp.where(held, 0.0, spike(threshold_distance(params, v), self.surrogate))

    def settle(self, params: LIFParams, state: LIFState, v: Array, spikes: Array) -> tuple[LIFState, Array]:
        """Reset the neurons that spiked and start their refractoriness; count down the others'."""
        spikes = jax.lax.stop_gradient(spikes) if self.detach_reset else spikes
        if self.reset == "value":
            # Not v + s (v_reset - v), whose rounding would leave v beside v_reset.
            v = v * (1.0 - spikes) + params.v_reset * spikes
        else:
            v = v - (params.v_th - params.v_reset) * spikes
        counting = jnp.maximum(state.refractory - 1, 0)
        return LIFState(v, jnp.where(spikes > 0, refractory_steps(params.t_ref, self.dt), counting)), v

    def scan(self, params: LIFParams, state: LIFState, inputs: Array, *, unroll: int = 1) -> tuple[LIFState, Any]:
        """Advance through ``inputs`` [T, N]; equal to stepping, bit by bit, in less time and memory."""
        own = all(getattr(type(self), verb) is getattr(LIF, verb) for verb in (*SPIKING, "step"))
        # Of few neurons XLA compiles the plain loop as a whole; unrolled, it copies all of what it overwrites.
        if not own or unroll > 1 or state.v.size < 16 or jax.default_backend() != "cpu":
            return stepped(self, params, state, inputs, unroll)
        missing = (1,) * (state.v.ndim + 1 - inputs.ndim)
        inputs = jnp.asarray(inputs, state.v.dtype).reshape(inputs.shape[:1] + missing + inputs.shape[1:])
        return charge_and_reset(self, params, state, jnp.broadcast_to(inputs, inputs.shape[:1] + state.v.shape))


def plain_state(state: Any) -> LIFState:
    """Return the part of a neuron's state that its membrane needs."""
    return LIFState(state.v, state.refractory)


def threshold_distance(params: LIFParams, v: Array) -> Array:
    r"""Return the surrogate's argument, the dimensionless distance :math:`(v - v_{th}) / |v_{th} - v_{rest}|`."""
    # The scale is dimension, not physics: its gradient would be an artefact of the surrogate.
    return (v - params.v_th) / jax.lax.stop_gradient(jnp.abs(params.v_th - params.v_rest))


def refractory_steps(t_ref: Parameter, dt: float) -> Array:
    r"""Return the whole number of steps :math:`\lceil t_{ref}/dt \rceil` of an absolute refractory period."""
    # t_ref = 2.1, dt = 0.1 divides to a little more than 21; a millionth of it is rounding, not time.
    steps = jax.lax.stop_gradient(jnp.asarray(t_ref) / dt)
    return jnp.ceil(steps - jnp.minimum(1e-6 * steps, 0.01)).astype(jnp.int32)


# Four Gauss-Legendre nodes and weights on [0, 1].
_QUADRATURE = [(0.5 + 0.5 * float(s), 0.5 * float(w)) for s, w in zip(*np.polynomial.legendre.leggauss(4), strict=True)]


def _conductance_rise(p: LIFParams, v: Array, x: Array, opened: Opened, dt: float) -> Array:
    r"""Return u(dt) of :math:`\tau_m u' = -(1 + r_m g(s))\, u + d(s)`, u(0) = 0, where u = v(s) - v(0), by its
    integrating factor; the integral left is taken by quadrature, that of the leak alone exactly.
    """
    leak = p.v_rest - v + p.r_m * jnp.asarray(x, v.dtype)

    nodes, steps = [s * dt for s, _ in _QUADRATURE], dt / p.tau_m
    *charges, charge = opened.charge(*nodes, dt)
    each = zip(nodes, charges, opened.current(*nodes), _QUADRATURE, strict=True)
    # The integral of (1 + r_m g) / tau_m from s to the end, and what drives at s.
    shares = ((((dt - s) + p.r_m * (charge - q)) / p.tau_m, p.r_m * i, weight) for s, q, i, (_, weight) in each)
    rise = sum(weight * steps * jnp.exp(-exponent) * (leak + driven) for exponent, driven, weight in shares)
    missed = -jnp.expm1(-steps) - sum(weight * steps * jnp.exp((s - 1.0) * steps) for s, weight in _QUADRATURE)
    return rise + missed * leak
