"""Synapses that tire and warm up within a second: short-term depression and facilitation."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cascade import cascade
from jaxlif.neurons.cell import Parameter, state_dtype


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TsodyksMarkramParams:
    """Short-term plasticity of a presynaptic neuron, scalar or [N] each.

    Args:
        use: U, the share of what is ready that a first spike releases, more than 0 and at most 1.
        tau_rec: time constant of the recovery, ms; 0 for no depression.
        tau_fac: time constant with which facilitation is forgotten, ms; 0 for none.
        tau_psc: of what was released, which recovers only as it decays, ms; None for at once. It is the time constant
            of the exponential current behind it, where there is one.
    """

    use: Parameter = 0.5
    tau_rec: Parameter = 800.0
    tau_fac: Parameter = 0.0
    tau_psc: Parameter | None = None

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        if checks.concrete(checks.require_positive("use", self.use, "")):
            checks.require(np.asarray(self.use) <= 1.0, "use", self.use, "", "use must be 1 or less")
        checks.require_not_negative("tau_rec", self.tau_rec, "ms")
        checks.require_not_negative("tau_fac", self.tau_fac, "ms")
        if self.tau_psc is not None:
            checks.require_positive("tau_psc", self.tau_psc, "ms")
            checks.require_positive("tau_rec", self.tau_rec, "ms")


class TsodyksMarkramState(NamedTuple):
    """What spikes have added to the use, and the shares active and inactive; what is left is ready; each [N]."""

    use: Array
    active: Array
    inactive: Array


@dataclass(frozen=True)
class TsodyksMarkram:
    r"""Short-term depression and facilitation: spikes [N] become the shares [N] that they release.

    .. math::
        \dot x = (1 - x)/\tau_{rec}, \quad \dot u = -u/\tau_{fac}; \qquad
        \text{at a spike} \quad u \leftarrow u + U (1 - u), \quad \text{release } u x, \quad x \leftarrow x - u x

    Exact between spikes, which are those of presynaptic neurons: it goes in front of :class:`jaxlif.networks.Dense` or
    :class:`jaxlif.networks.Sparse`, whose weights are then those of a release of everything. With ``tau_psc`` what is
    released first stays active, NEST's tsodyks_synapse; without it is NEST's tsodyks2_synapse.

    Args:
        dt: step, ms.

    Example:
        >>> import jaxlif as jl
        >>> spikes = jnp.zeros(400).at[jnp.array([0, 200])].set(1.0)
        >>> released = jl.simulate(TsodyksMarkram(dt=0.1), TsodyksMarkramParams(use=0.5, tau_rec=100.0), spikes)[1]
        >>> released[jnp.array([0, 200])].round(3).tolist()  # 1/2, then half of 1 - e^(-0.2)/2
        [0.5, 0.295]

    Source: Tsodyks, Pawelzik & Markram 1998, doi:10.1162/089976698300017502; Tsodyks, Uziel & Markram 2000,
    doi:10.1523/JNEUROSCI.20-01-j0003.2000.
    """

    dt: float = 0.1

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")

    def check(self, params: Any) -> None:
        """Refuse parameters of another cell."""
        checks.require_params(self, params, TsodyksMarkramParams)

    def check_inputs(self, inputs: Any) -> None:
        """Refuse spikes other than 0 and 1, where they are at hand."""
        checks.require_binary("inputs", inputs)

    def init_state(self, params: TsodyksMarkramParams, x: Array) -> TsodyksMarkramState:
        """Return synapses that have not been used, in the shape of the spikes ``x`` and the parameters."""
        shape = jnp.broadcast_shapes(*(jnp.shape(leaf) for leaf in jax.tree.leaves((params, x))))
        rest = jnp.zeros(shape, state_dtype(params, x))
        return TsodyksMarkramState(rest, rest, rest)

    def step(
        self, params: TsodyksMarkramParams, state: TsodyksMarkramState, x: Array
    ) -> tuple[TsodyksMarkramState, Array]:
        """Recover for one step, at whose end the spikes ``x`` [N], 0 or 1, release."""
        spikes = jnp.asarray(x, state.use.dtype)
        use, inactive = state.use * _left(params.tau_fac, self.dt), state.inactive * _left(params.tau_rec, self.dt)
        active = state.active
        if params.tau_psc is not None:
            fed = cascade(self.dt, 1.0 / params.tau_psc, 1.0 / params.tau_rec) / params.tau_psc
            inactive, active = inactive + active * fed, active * _left(params.tau_psc, self.dt)
        use = use + spikes * params.use * (1.0 - use)
        released = spikes * use * (1.0 - active - inactive)
        if params.tau_psc is None:
            return TsodyksMarkramState(use, active, inactive + released), released
        return TsodyksMarkramState(use, active + released, inactive), released


def _left(tau: Parameter, dt: float) -> Array:
    """Return what is left after a step, nothing of a time constant of 0, whose gradient would be nan."""
    tau = jnp.asarray(tau)
    return jnp.where(tau > 0.0, jnp.exp(-dt / jnp.where(tau > 0.0, tau, 1.0)), 0.0)
