"""The leaky integrator: a membrane without spikes, for readouts and passive cells."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cell import Parameter, initial_voltage, relax


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LeakyParams:
    r"""Physics of :math:`\tau_m \dot v = v_{rest} - v + r_m I`, without a threshold.

    The defaults are normalised, as a network's readout is; beside neurons in mV it takes their v_rest and r_m.

    Args:
        tau_m: membrane time constant, ms, scalar or [N] like every field.
        r_m: membrane resistance, GΩ.
        v_rest: resting potential, mV.
    """

    tau_m: Parameter = 10.0
    r_m: Parameter = 1.0
    v_rest: Parameter = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.check_fields(self, checks.MEMBRANE)


class LeakyState(NamedTuple):
    """Voltage [N], mV."""

    v: Array


class LeakyOutput(NamedTuple):
    """Voltage [N], mV, at the step's end."""

    v: Array


@dataclass(frozen=True)
class LeakyIntegrator:
    r"""A passive membrane, :math:`\tau_m \dot v = v_{rest} - v + r_m I`, integrated exactly in steps of ``dt`` ms.

    Example:
        >>> cell, params = LeakyIntegrator(dt=10.0), LeakyParams()
        >>> state = cell.init_state(params, jnp.asarray(1.0))
        >>> round(float(cell.step(params, state, jnp.asarray(1.0))[1].v), 6)
        0.632121
    """

    dt: float = 0.1
    no_feedback: ClassVar[str] = "it has none"

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")

    def check(self, params: LeakyParams) -> None:
        """Refuse parameters of no membrane, or with adaptation, which this one does not have."""
        checks.require_fields(type(self).__name__, params, checks.MEMBRANE, ("a",))

    def init_state(self, params: LeakyParams, x: Array) -> LeakyState:
        """Return the membrane at rest, in the shape of the input ``x`` and the parameters."""
        return LeakyState(initial_voltage(params.v_rest, params, x))

    def step(self, params: LeakyParams, state: LeakyState, x: Array) -> tuple[LeakyState, LeakyOutput]:
        """Advance one step under the current ``x`` [N], pA, held over it."""
        v_inf = params.v_rest + params.r_m * jnp.asarray(x, state.v.dtype)
        v = relax(state.v, v_inf, params.tau_m, self.dt)
        return LeakyState(v), LeakyOutput(v)
