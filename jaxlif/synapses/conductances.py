"""Synaptic conductances, which drive and shunt: exponential, alpha and double-exponential ones, and NMDA's."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.synapses.base import Drive, SynapticState
from jaxlif.synapses.courses import Branch, TimedSynapse, integrate_courses, per_kind


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ConductanceParams:
    """Time constants ``tau_syn``, ms, and reversal potentials ``e_rev``, mV, scalar, [K] or [K, N]."""

    tau_syn: protocol.Parameter = 5.0
    e_rev: protocol.Parameter = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_syn", self.tau_syn, "ms")
        checks.require_finite("e_rev", self.e_rev, "mV")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DoubleExponentialConductanceParams:
    """Time constants of rise and decay, ms, and reversal potentials ``e_rev``, mV, scalar, [K] or [K, N]."""

    tau_rise: protocol.Parameter = 1.0
    tau_decay: protocol.Parameter = 5.0
    e_rev: protocol.Parameter = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_positive("tau_rise", self.tau_rise, "ms")
        checks.require_positive("tau_decay", self.tau_decay, "ms")
        checks.require_finite("e_rev", self.e_rev, "mV")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NMDAParams(DoubleExponentialConductanceParams):
    """Those of a double-exponential conductance, and the concentration ``mg`` of magnesium outside, mM."""

    tau_rise: protocol.Parameter = 2.0
    tau_decay: protocol.Parameter = 100.0
    mg: protocol.Parameter = 1.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        super().check()
        checks.require_not_negative("mg", self.mg, "mM")


class OpenSynapse(TimedSynapse):
    """Synapses that open channels, 0 nS or more."""

    needs: ClassVar[tuple[str, ...]] = ("integrate_conductances",)
    signed: ClassVar[bool] = False

    def branch(self, p: Any, state: Any, v: Array) -> Branch:
        """Return the channels, whose current is linear in the voltage."""
        flows = self.flows(p, state)
        return Branch(flows, per_kind("e_rev", p.e_rev, flows[0].size) - v[None], 1.0)

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and the conductances, then add the arrivals to these."""
        branch = self.branch(params.synapse, state.synapse, state.neuron.v)
        inner, v = integrate_courses(neuron, params, state, x, (branch,))
        return SynapticState(inner, self.advanced(params.synapse, state.synapse, neuron.dt, x.arrivals)), v


@dataclass(frozen=True)
class Conductance(OpenSynapse):
    r"""Ligand-gated channels, :math:`I = g (E_{rev} - v)`, :math:`\tau_{syn} \dot g = -g`: they drive and they shunt.

    Between arrivals the neuron obeys a linear equation with the known coefficients g(t). That of a plain or adaptive
    neuron is solved by its integrating factor, and the one integral left taken with four Gauss-Legendre nodes, whose
    error at dt = 0.1 ms is below rounding; that of a resonant one by a Magnus series of sixth order. A synapse that
    reverses at the present voltage moves it by exactly nothing.

    A weight is a conductance, 0 nS or more: it inhibits by its reversal potential, not by its sign. A negative one is
    refused where it is at hand, and gives nan under a trace.

    The nodes' error, a share of the driving force, is 3e-10 where all conductances together make r_m g dt / tau_m 1,
    1e-4 at 5 and 7e-3 at 10, beyond which the voltage is nan: conductances that act within a step need a smaller dt.

    Example:
        >>> import jaxlif as jl
        >>> cell = jl.Synaptic(jl.LIF(), Conductance())
        >>> synapse = ConductanceParams(tau_syn=jnp.array([10.0]), e_rev=jnp.array([-70.0]))
        >>> params, x = jl.SynapticParams(synapse=synapse), jl.Drive(jnp.zeros(1), jnp.asarray(0.0))
        >>> state = cell.init_state(params, x)._replace(synapse=jnp.array([15.0]))
        >>> float(cell.step(params, state, x)[1].v)
        -70.0

    Source: Koch 1999, Biophysics of Computation, chapter 1 (shunting inhibition).
    """

    params: ClassVar[type | None] = ConductanceParams

    def filters(self, p: ConductanceParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constant of the decay."""
        return (p.tau_syn,)


@dataclass(frozen=True)
class AlphaConductance(OpenSynapse):
    r"""Channels that open and close with one time constant, at most w nS at :math:`t = \tau_{syn}`:
    :math:`g = w\, \frac{t}{\tau_{syn}} e^{1 - t/\tau_{syn}}`; integrated as :class:`Conductance` is.

    Source: Rall 1967, doi:10.1152/jn.1967.30.5.1138 (the alpha function); NEST's iaf_cond_alpha.
    """

    params: ClassVar[type | None] = ConductanceParams

    def filters(self, p: ConductanceParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constant twice."""
        return p.tau_syn, p.tau_syn


@dataclass(frozen=True)
class DoubleExponentialConductance(OpenSynapse):
    r"""Channels that open and close, :math:`g \propto e^{-t/\tau_{decay}} - e^{-t/\tau_{rise}}`, at most w nS where w
    arrives alone; integrated as :class:`Conductance` is, and with equal time constants :class:`AlphaConductance`.

    Source: Roth & van Rossum 2009, doi:10.7551/mitpress/9780262013277.003.0007; NEST's iaf_cond_beta.
    """

    params: ClassVar[type | None] = DoubleExponentialConductanceParams

    def filters(self, p: DoubleExponentialConductanceParams) -> tuple[protocol.Parameter, ...]:
        """Return the time constants of rise and decay."""
        return p.tau_rise, p.tau_decay


@dataclass(frozen=True)
class NMDA(DoubleExponentialConductance):
    r"""Double-exponential channels that magnesium blocks: :math:`I = g\, B(v)\, (E_{rev} - v)` with
    :math:`B(v) = 1 / (1 + \frac{[Mg]}{3.57\,mM}\, e^{-0.062\,v / mV})`; a weight is the conductance without the block.

    B(v) (E - v) is taken as linear around the voltage of the step's start; what this leaves over acts in a second pass
    along the parabola that the first gives through the middle and the end of the step: the method is of fourth order.
    It is 2e-4 mV off where r_m g dt / tau_m is 0.3, 8e-3 at 1 and 2 at 8: there too a smaller dt helps.

    Example:
        >>> import jaxlif as jl
        >>> cell, params = jl.Synaptic(jl.LIF(), NMDA()), jl.SynapticParams(synapse=NMDAParams())
        >>> _, output = jl.simulate(cell, params, jl.Drive(jnp.zeros((300, 1)).at[0].set(10.0), jnp.zeros(300)))
        >>> bool(output.v.max() > -69.0)
        True

    Source: Jahr & Stevens 1990, doi:10.1523/JNEUROSCI.10-09-03178.1990.
    """

    params: ClassVar[type | None] = NMDAParams

    def branch(self, p: NMDAParams, state: Any, v: Array) -> Branch:
        """Return the channels, made linear around the voltage ``v``."""
        flows = self.flows(p, state)
        e_rev, mg = (per_kind(name, getattr(p, name), flows[0].size) for name in ("e_rev", "mg"))
        open_ = _unblocked(mg, v[None])
        slope = open_ * (1.0 - 0.062 * (1.0 - open_) * (e_rev - v[None]))
        push = open_ * (e_rev - v[None])

        def _bend(rise: Array) -> Array:
            exact = _unblocked(mg, v[None] + rise[None]) * (e_rev - v[None] - rise[None])
            return exact - (push - slope * rise[None])

        return Branch(flows, push, slope, _bend)


def _unblocked(mg: Array, v: Array) -> Array:
    """Return the share B(v) of the channels that magnesium leaves open."""
    return 1.0 / (1.0 + mg / 3.57 * jnp.exp(-0.062 * v))
