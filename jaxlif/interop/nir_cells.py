"""Cells for those nodes of NIR that no other cell of jaxlif is."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.checks import check_params, require_finite, require_params, require_positive
from jaxlif.neurons.cell import check_cell, relax, state_dtype
from jaxlif.neurons.driven import convolved_decays
from jaxlif.neurons.lif import LIF, LIFParams, LIFState
from jaxlif.neurons.readout import LeakyIntegrator, LeakyOutput, LeakyParams, LeakyState
from jaxlif.surrogate import SuperSpike, Surrogate, spike


@dataclass(frozen=True)
class IntegrateAndFire(LIF):
    r"""A neuron without leak, :math:`c_m \dot v = I` with :math:`c_m = \tau_m / r_m`; v_rest is where it starts.

    Example:
        >>> cell, params = IntegrateAndFire(dt=1.0), LIFParams(tau_m=10.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0)
        >>> round(float(cell.step(params, cell.init_state(params, jnp.asarray(2.0)), jnp.asarray(2.0))[1].v), 6)
        0.2

    Source: Lapicque 1907.
    """

    def integrate(self, params: LIFParams, state: LIFState, x: Array) -> tuple[LIFState, Array]:
        """Add what the current ``x`` [N] brings in one step."""
        return state, _integrated(params, state.v, x, self.dt)


@dataclass(frozen=True)
class Integrator(LeakyIntegrator):
    r"""An integral of its input, :math:`c_m \dot v = I` with :math:`c_m = \tau_m / r_m`; v_rest is where it starts.

    Example:
        >>> cell, params = Integrator(dt=1.0), LeakyParams(tau_m=10.0, r_m=1.0)
        >>> round(float(cell.step(params, cell.init_state(params, jnp.asarray(2.0)), jnp.asarray(2.0))[1].v), 6)
        0.2
    """

    def step(self, params: LeakyParams, state: LeakyState, x: Array) -> tuple[LeakyState, LeakyOutput]:
        """Advance one step under the current ``x`` [N], held over it."""
        v = _integrated(params, state.v, x, self.dt)
        return LeakyState(v), LeakyOutput(v)


def _integrated(params: Any, v: Array, x: Array, dt: float) -> Array:
    return v + dt / params.tau_m * params.r_m * jnp.asarray(x, v.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CurrentBasedParams:
    """Parameters of a membrane behind a low-pass filter.

    Args:
        neuron: the membrane's.
        tau_syn: time constant of the filter, ms, scalar or [N].
        w_in: its gain, scalar or [N].
    """

    neuron: Any
    tau_syn: Array | float = 5.0
    w_in: Array | float = 1.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        check_params(self.neuron)
        require_positive("tau_syn", self.tau_syn, "ms")
        require_finite("w_in", self.w_in, "")


class CurrentBasedState(NamedTuple):
    """The membrane's state, and the synaptic current [N]."""

    neuron: Any
    current: Array


@dataclass(frozen=True)
class CurrentBased:
    r"""A membrane behind a low-pass filter, both solved exactly together: NIR's CubaLIF and CubaLI.

    .. math:: \tau_{syn} \dot I = -I + w_{in} x, \qquad \tau_m \dot v = v_{rest} - v + r_m I

    A spike is an input of 1 held over its step: it moves I by :math:`w_{in} (1 - e^{-dt/\tau_{syn}})`.

    Args:
        neuron: :class:`jaxlif.LIF` or :class:`jaxlif.LeakyIntegrator`.

    Raises:
        ValueError: for another neuron, whose membrane is not this one.

    Example:
        >>> cell = CurrentBased(LeakyIntegrator(dt=1.0))
        >>> params = CurrentBasedParams(neuron=LeakyParams(tau_m=10.0), tau_syn=5.0)
        >>> round(float(cell.step(params, cell.init_state(params, jnp.asarray(1.0)), jnp.asarray(1.0))[1].v), 6)
        0.009056

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """

    neuron: LIF | LeakyIntegrator

    def __post_init__(self) -> None:
        if type(self.neuron) not in (LIF, LeakyIntegrator):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: it must be a LIF or a LeakyIntegrator")

    def check(self, params: CurrentBasedParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the membrane."""
        require_params(self, params, CurrentBasedParams)
        check_cell(self.neuron, params.neuron)

    def init_state(self, params: CurrentBasedParams, x: Array) -> CurrentBasedState:
        """Return the membrane at rest, without current."""
        shape = jnp.broadcast_shapes(*(jnp.shape(leaf) for leaf in (x, params.tau_syn, params.w_in)))
        neuron = self.neuron.init_state(params.neuron, jnp.broadcast_to(x, shape))
        return CurrentBasedState(neuron, jnp.zeros_like(neuron.v))

    def step(self, params: CurrentBasedParams, state: CurrentBasedState, x: Array) -> tuple[CurrentBasedState, Any]:
        """Advance one step under the input ``x`` [N], held over it; the output is the membrane's."""
        final = params.w_in * jnp.asarray(x, state.current.dtype)
        kept = _mean_decay(params.neuron.tau_m, params.tau_syn, self.neuron.dt)
        neuron, output = self.neuron.step(params.neuron, state.neuron, final + kept * (state.current - final))
        return CurrentBasedState(neuron, relax(state.current, final, params.tau_syn, self.neuron.dt)), output


def _mean_decay(tau_m: Any, tau_syn: Any, dt: float) -> Array:
    r"""Return the constant current that moves the voltage in a step as one of 1 does that decays from its start."""
    return convolved_decays(tau_m, tau_syn, dt) / (-tau_m * jnp.expm1(-dt / tau_m))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ScaleParams:
    """The factor of each signal, a scalar or of the input's shape."""

    scale: Array | float

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_finite("scale", self.scale, "")


@dataclass(frozen=True)
class Scale:
    """Signals times a factor of their own.

    Example:
        >>> Scale().step(ScaleParams(scale=jnp.array([2.0, 3.0])), (), jnp.ones(2))[1].tolist()
        [2.0, 3.0]
    """

    def check(self, params: ScaleParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, ScaleParams)

    def init_state(self, params: ScaleParams, x: Array) -> tuple[()]:
        """Return nothing: a factor remembers nothing."""
        return ()

    def step(self, params: ScaleParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """Scale ``x``, of any shape that goes with the factors; spikes of any dtype are cast to theirs."""
        scale = jnp.asarray(params.scale, state_dtype(params))
        return (), jnp.asarray(x, scale.dtype) * scale

    def scan(self, params: ScaleParams, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Scale ``inputs`` [T, ...]."""
        return (), jax.vmap(lambda x: self.step(params, (), x)[1])(inputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ThresholdParams:
    """The threshold of each signal, a scalar or of the input's shape."""

    threshold: Array | float

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_finite("threshold", self.threshold, "")


class ThresholdOutput(NamedTuple):
    """Spikes, 0 or 1, of the input's shape."""

    spikes: Array


@dataclass(frozen=True)
class Threshold:
    """A spike in every step in which the input reaches the threshold: no membrane, no reset.

    Args:
        surrogate: pseudo-derivative of the spike in the distance to the threshold.

    Example:
        >>> Threshold().step(ThresholdParams(threshold=1.0), (), jnp.array([0.5, 1.5]))[1].spikes.tolist()
        [0.0, 1.0]
    """

    surrogate: Surrogate = SuperSpike()

    def check(self, params: ThresholdParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, ThresholdParams)

    def init_state(self, params: ThresholdParams, x: Array) -> tuple[()]:
        """Return nothing: a threshold remembers nothing."""
        return ()

    def step(self, params: ThresholdParams, state: tuple[()], x: Array) -> tuple[tuple[()], ThresholdOutput]:
        """Compare ``x`` with the thresholds."""
        threshold = jnp.asarray(params.threshold, state_dtype(params, x))
        return (), ThresholdOutput(spike(jnp.asarray(x, threshold.dtype) - threshold, self.surrogate))
