"""Synaptic currents, which do not follow the voltage: exponential, alpha and double-exponential ones, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.synapses.base import Drive, SynapticParams, SynapticState
from jaxlif.synapses.courses import Branch, Flow, TimedSynapse, per_kind


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CurrentParams:
    """Time constants ``tau_syn`` of exponential or alpha synaptic currents, ms, scalar, [K] or [K, N]."""

    tau_syn: protocol.Parameter = 5.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_syn", self.tau_syn, "ms")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DoubleExponentialCurrentParams:
    """Time constants of rise and decay of synaptic currents, ms, scalar, [K] or [K, N]; exchanged they do the same."""

    tau_rise: protocol.Parameter = 1.0
    tau_decay: protocol.Parameter = 5.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_rise", self.tau_rise, "ms")
        checks.require_positive("tau_decay", self.tau_decay, "ms")


class Current(TimedSynapse):
    """Synapses that put a current into the neuron, whatever its voltage; both are integrated together exactly."""

    needs: ClassVar[tuple[str, ...]] = ("respond", "integrate_currents")

    def respond(self, neuron: protocol.OpenNeuron, params: SynapticParams) -> tuple[Any, ...]:
        """Return what each of the courses of 1 pA of each kind does to the neuron in a step, [K, ...]."""
        taus = self.filters(params.synapse)
        return tuple(_responses(neuron, params.neuron, taus[-n:]) for n in range(1, len(taus) + 1))

    def branch(self, p: Any, state: Any, v: Array) -> Branch:
        """Return the currents, which do not follow the voltage."""
        return Branch(self.flows(p, state))

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and the currents, then add the arrivals to the currents."""
        flows = self.flows(params.synapse, state.synapse)
        inner, v = integrate_flows(neuron, params, state, x, flows, params.response)
        return SynapticState(inner, self.advanced(params.synapse, state.synapse, neuron.dt, x.arrivals)), v


@dataclass(frozen=True)
class ExponentialCurrent(Current):
    r"""Currents that jump by w pA at a spike and decay: :math:`\tau_{syn} \dot I = -I`, each kind on its own.

    Current and neuron are integrated together exactly.

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570.
    """

    params: ClassVar[type | None] = CurrentParams

    def filters(self, p: CurrentParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constant of the decay."""
        return (p.tau_syn,)


@dataclass(frozen=True)
class AlphaCurrent(Current):
    r"""Currents that rise and decay with one time constant, to a peak of w pA at :math:`t = \tau_{syn}`:
    :math:`I = w\, \frac{t}{\tau_{syn}} e^{1 - t/\tau_{syn}}`, each kind on its own, exact with the neuron.

    Example:
        >>> import jaxlif as jl
        >>> cell, params = jl.Synaptic(jl.LIF(dt=0.1), AlphaCurrent()), jl.SynapticParams(synapse=CurrentParams())
        >>> state, _ = jl.simulate(cell, params, jl.Drive(jnp.zeros((51, 1)).at[0].set(100.0), jnp.zeros(51)))
        >>> round(float(state.synapse.value[0]), 3)  # pA, 5 ms after it arrived
        100.0

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570; NEST's iaf_psc_alpha.
    """

    params: ClassVar[type | None] = CurrentParams

    def filters(self, p: CurrentParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constant twice."""
        return p.tau_syn, p.tau_syn


@dataclass(frozen=True)
class DoubleExponentialCurrent(Current):
    r"""Currents :math:`I \propto e^{-t/\tau_{decay}} - e^{-t/\tau_{rise}}` that peak at w pA, w arriving alone.

    They are exact with the neuron and smooth where time constants meet: with equal ones it is :class:`AlphaCurrent`.

    Source: Rotter & Diesmann 1999, doi:10.1007/s004220050570; Roth & van Rossum 2009,
    doi:10.7551/mitpress/9780262013277.003.0007, equations 6.4 and 6.5.
    """

    params: ClassVar[type | None] = DoubleExponentialCurrentParams

    def filters(self, p: DoubleExponentialCurrentParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constants of rise and decay."""
        return p.tau_rise, p.tau_decay


def integrate_flows(
    neuron: Any, params: Any, state: SynapticState, x: Drive, flows: Sequence[Flow], responses: Sequence[Any]
) -> tuple[Any, Array]:
    """Let the neuron integrate under the sum of all courses."""

    def _lined(*each: Array) -> Array:
        pairs = zip(each, flows, strict=True)
        rows = [per_kind("the response of the neurons", response, flow.size) for response, flow in pairs]
        reach = jnp.broadcast_shapes(*(row.shape[1:] for row in rows))
        return jnp.concatenate([jnp.broadcast_to(r, (len(f.size), *reach)) for r, f in zip(rows, flows, strict=True)])

    response = jax.tree.map(_lined, *responses)
    reach = jnp.broadcast_shapes(*(flow.size.shape[1:] for flow in flows))
    current = jnp.concatenate([jnp.broadcast_to(flow.size, (len(flow.size), *reach)) for flow in flows])
    return neuron.integrate_currents(params.neuron, state.neuron, x.input, current, response)  # type: ignore[no-any-return]


def _responses(neuron: protocol.OpenNeuron, params: Any, taus: tuple[protocol.Parameter, ...]) -> Any:
    """Return the response of each kind to a current through filters, whose time constants are scalar, [K] or [K, N]."""
    rank = max(1, *map(jnp.ndim, taus))
    lined = [jnp.reshape(t, (*jnp.shape(t)[:1], *(1,) * (rank - max(1, jnp.ndim(t))), *jnp.shape(t)[1:])) for t in taus]
    kinds = max(len(t) if jnp.ndim(t) else 1 for t in lined)
    rows = [jnp.broadcast_to(t, (kinds, *jnp.shape(t)[1:])) for t in lined]
    return jax.vmap(lambda *tau: neuron.respond(params, *tau))(*rows)
