"""The adaptive (generalised) leaky integrate-and-fire neuron: spike-triggered currents and a threshold that moves."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cell import Opened, Parameter, initial_voltage, relax
from jaxlif.neurons.lif import LIFParams, OnGrid, plain_state
from jaxlif.neurons.mechanisms import Mechanism, VoltageCoupling


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdaptiveLIFParams(LIFParams):
    r"""A :class:`LIFParams` with any number of spike-triggered currents and threshold movements.

    Each term is a pair of leaves at the same place of two tuples, its jump and its time constant.

    Args:
        eta: K jumps at a spike of an outward current, pA each.
        tau_eta: their time constants, ms.
        gamma: M jumps at a spike of the threshold, mV each.
        tau_gamma: their time constants, ms.
        a: J conductances of subthreshold adaptation, nS: :math:`\tau \dot u = a (v - v_{rest}) - u`.
        tau_a: their time constants, ms.
        coupling: of the threshold to the voltage, or None.
        mechanisms: what else follows the voltage, such as a :class:`MembraneCurrent`.
        delta_v: width of the escape noise, mV; used by :class:`EscapeNoise` and by likelihoods.
        lambda_0: its rate at threshold, 1/ms.

    Source: Mensi et al. 2012, doi:10.1152/jn.00408.2011; Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """

    eta: tuple[Parameter, ...] = ()
    tau_eta: tuple[Parameter, ...] = ()
    gamma: tuple[Parameter, ...] = ()
    tau_gamma: tuple[Parameter, ...] = ()
    a: tuple[Parameter, ...] = ()
    tau_a: tuple[Parameter, ...] = ()
    coupling: VoltageCoupling | None = None
    mechanisms: tuple[Mechanism, ...] = ()
    delta_v: Parameter = 1.0
    lambda_0: Parameter = 1.0

    @property
    def following(self) -> tuple[Mechanism, ...]:
        """All that follows the voltage."""
        return self.mechanisms if self.coupling is None else (*self.mechanisms, self.coupling)

    def normalised(self) -> Self:
        r"""Return the same neuron with v_rest = 0, v_th = 1, r_m = 1, as :meth:`LIFParams.normalised` does.

        Differences of voltages are divided by :math:`v_{th} - v_{rest}`, currents become
        :math:`r_m I / (v_{th} - v_{rest})`, and ``a`` the number :math:`a r_m`. Times, rates and numbers stay.

        Example:
            >>> p = AdaptiveLIFParams(r_m=0.1, v_rest=-70.0, v_th=-50.0, eta=(40.0,), tau_eta=(80.0,), delta_v=2.0)
            >>> p.normalised().eta, p.normalised().delta_v
            ((0.2,), 0.1)
        """
        plain, span = super().normalised(), self.v_th - self.v_rest
        return replace(
            plain,
            eta=tuple(eta * self.r_m / span for eta in self.eta),
            gamma=tuple(gamma / span for gamma in self.gamma),
            a=tuple(a * self.r_m for a in self.a),
            coupling=None if self.coupling is None else self.coupling.moved(self.v_rest, span, self.r_m),
            mechanisms=tuple(m.moved(self.v_rest, span, self.r_m) for m in self.mechanisms),
            delta_v=self.delta_v / span,
        )

    def check(self) -> None:
        """Raise ValueError where tuples do not pair up or a concrete value breaks its rule; tracers pass."""
        # v_reset may lie above v_th: a threshold that jumps at a spike is higher for a while.
        checks.check_fields(self)
        checks.require_different("v_rest", self.v_rest, "v_th", self.v_th, "mV")
        for jumps, times, unit in (("eta", "tau_eta", "pA"), ("gamma", "tau_gamma", "mV"), ("a", "tau_a", "nS")):
            sizes, taus = getattr(self, jumps), getattr(self, times)
            if len(sizes) != len(taus):
                raise ValueError(f"{jumps} has {len(sizes)} terms and {times} {len(taus)}: they come in pairs")
            for i, (size, tau) in enumerate(zip(sizes, taus, strict=True)):
                checks.require_finite(f"{jumps}.{i}", size, unit)
                checks.require_positive(f"{times}.{i}", tau, "ms")
        checks.require_positive("delta_v", self.delta_v, "mV")
        checks.require_positive("lambda_0", self.lambda_0, "1/ms")
        for i, mechanism in enumerate(self.mechanisms):
            mechanism.check_as(f"mechanisms.{i}")
        if self.coupling is not None:
            self.coupling.check_as("coupling")


class AdaptiveState(NamedTuple):
    """An adaptive neuron's voltage, mV, refractory steps left, spike-triggered currents, pA, threshold movements, mV,
    subthreshold currents, pA, each [N], and the states of what follows the voltage, the coupling's last.
    """

    v: Array
    refractory: Array
    currents: tuple[Array, ...]
    thresholds: tuple[Array, ...]
    subthreshold: tuple[Array, ...]
    following: tuple[Any, ...]


@dataclass(frozen=True)
class AdaptiveLIF(OnGrid):
    r"""The adaptive leaky integrate-and-fire neuron, also known as the generalised one (GIF).

    .. math::
        \tau_m \dot v = v_{rest} - v + r_m (I - \sum_k w_k - \sum_j u_j - \sum_i y_i), \qquad
        \theta = v_{th} + \sum_m h_m + b\,x

    At a spike :math:`w_k` grows by :math:`\eta_k` and :math:`h_m` by :math:`\gamma_m`; both decay exponentially. They
    and the currents :math:`y_i` of mechanisms are held, like the current, over a step. The neuron spikes where
    :math:`v \ge \theta`; for a random threshold wrap it in :class:`EscapeNoise`. Refractoriness holds the voltage
    alone.

    The arguments are those of :class:`LIF`, the surrogate's argument (v - theta)/abs(v_th - v_rest); ``detach_reset``
    leaves the surrogate in the gradient of the adaptation.

    Example:
        >>> import jaxlif as jl
        >>> params = jl.AdaptiveLIFParams(eta=(100.0,), tau_eta=(80.0,))
        >>> _, output = jl.simulate(jl.AdaptiveLIF(dt=0.1), params, jnp.full(3000, 300.0))
        >>> intervals = jnp.diff(jnp.flatnonzero(output.spikes))
        >>> bool(intervals[-1] > intervals[0])  # it adapts
        True

    Source: Mensi et al. 2012, doi:10.1152/jn.00408.2011; the order of operations is that of NEST's gif_psc_exp.
    """

    def check(self, params: AdaptiveLIFParams) -> None:
        """Refuse parameters of another neuron."""
        checks.require_params(self, params, AdaptiveLIFParams)

    def init_state(self, params: AdaptiveLIFParams, x: Array) -> AdaptiveState:
        """Return the neuron at rest, not refractory, with no spike behind it."""
        v = initial_voltage(params.v_rest, params, x)

        def _silent(terms: tuple[Parameter, ...]) -> tuple[Array, ...]:
            return tuple(jnp.zeros_like(v) for _ in terms)

        following = tuple(jax.tree.map(lambda x: jnp.asarray(x, v.dtype), m.begin(v)) for m in params.following)
        currents, thresholds, subthreshold = _silent(params.eta), _silent(params.gamma), _silent(params.a)
        return AdaptiveState(v, jnp.zeros(v.shape, jnp.int32), currents, thresholds, subthreshold, following)

    def integrate(self, params: AdaptiveLIFParams, state: AdaptiveState, x: Array) -> tuple[AdaptiveState, Array]:
        """Relax the voltage for one step under the current ``x`` [N], pA, less the adaptation's."""
        return self._integrated(self.membrane.integrate, params, state, x)

    def respond(self, params: AdaptiveLIFParams, *tau: Array) -> Array:
        """Return the response of the membrane, whose adaptation is held over a step."""
        return self.membrane.respond(params, *tau)

    def integrate_currents(
        self, params: AdaptiveLIFParams, state: AdaptiveState, x: Array, *synapses: Array
    ) -> tuple[AdaptiveState, Array]:
        """Relax the voltage under synaptic currents too, as :class:`LIF` does."""
        return self._integrated(self.membrane.integrate_currents, params, state, x, *synapses)

    def integrate_conductances(
        self, params: AdaptiveLIFParams, state: AdaptiveState, x: Array, opened: Opened
    ) -> tuple[AdaptiveState, Array]:
        """Relax the voltage under synaptic conductances too, as :class:`LIF` does."""
        return self._integrated(self.membrane.integrate_conductances, params, state, x, opened)

    def remaining(self, params: AdaptiveLIFParams, state: AdaptiveState) -> Array:
        """Return what the membrane, whose adaptation is held over a step, leaves of 1 mV."""
        return self.membrane.remaining(params, plain_state(state))

    def _integrated(
        self, integrate: Any, params: AdaptiveLIFParams, state: AdaptiveState, x: Array, *synapses: Any
    ) -> tuple[AdaptiveState, Array]:
        """Let the membrane integrate under what the adaptation leaves of the current, and advance the adaptation."""
        pairs = tuple(zip(params.following, state.following, strict=True))
        current = jnp.asarray(x, state.v.dtype) - sum(state.currents) - sum(state.subthreshold)
        current = current - sum(m.current(y, state.v) for m, y in pairs)
        _, v = integrate(params, plain_state(state), current, *synapses)
        target = tuple(a * (state.v - params.v_rest) for a in params.a)
        subthreshold = tuple(
            relax(u, to, tau, self.dt) for u, to, tau in zip(state.subthreshold, target, params.tau_a, strict=True)
        )
        following = tuple(m.advance(y, state.v, self.dt) for m, y in pairs)
        return state._replace(subthreshold=subthreshold, following=following), v

    def rise(self, params: AdaptiveLIFParams, state: AdaptiveState) -> Array:
        """Return how far above v_th, mV, the threshold [N] stands on which an integrated state is tested."""
        pairs = zip(params.following, state.following, strict=True)
        return sum(state.thresholds, jnp.zeros_like(state.v)) + sum(m.rise(y) for m, y in pairs)

    def emit(self, params: AdaptiveLIFParams, state: AdaptiveState, v: Array) -> tuple[Array, Array]:
        """Hold the refractory neurons, and let the others spike where v reaches the moving threshold."""
        held, _ = self.membrane.emit(params, plain_state(state), v)
        _, spikes = self.membrane.emit(params, plain_state(state), v - self.rise(params, state))
        return held, spikes

    def settle(
        self, params: AdaptiveLIFParams, state: AdaptiveState, v: Array, spikes: Array
    ) -> tuple[AdaptiveState, Array]:
        """Reset the neurons that spiked, let their adaptation jump, and everybody's decay."""
        plain, v = self.membrane.settle(params, plain_state(state), v, spikes)

        def _moved(
            terms: tuple[Array, ...], jumps: tuple[Parameter, ...], taus: tuple[Parameter, ...]
        ) -> tuple[Array, ...]:
            triples = zip(terms, jumps, taus, strict=True)
            return tuple(relax(y, jnp.zeros_like(y), tau, self.dt) + jump * spikes for y, jump, tau in triples)

        currents = _moved(state.currents, params.eta, params.tau_eta)
        thresholds = _moved(state.thresholds, params.gamma, params.tau_gamma)
        return state._replace(v=plain.v, refractory=plain.refractory, currents=currents, thresholds=thresholds), v
