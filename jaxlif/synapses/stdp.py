"""Synapses that learn from the order of spikes: pair-based spike-timing dependent plasticity."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxlif import checks
from jaxlif.neurons.cell import Parameter, state_dtype


class Pairs(NamedTuple):
    """Spikes, 0 or 1, before and behind plastic synapses, of N and M neurons."""

    pre: Array
    post: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class STDPParams:
    r"""Where plastic synapses start, and how they learn.

    Args:
        weight: [N, M], from row to column, from 0 to ``w_max``; with a ``target`` [N, K], row i of neuron i's synapses.
        target: [N, K] integers, where they end; M marks a place without a synapse. None for all to all.
        w_max: the largest weight, in the weights' unit; below 0 all are.
        tau_plus: of pre before post, ms.
        tau_minus: of post before pre, ms.
        rate: of potentiation, a share of ``w_max``.
        alpha: how much more a pair depresses than it potentiates.
        mu_plus: power of what is left up to ``w_max``: 0 is additive, 1 multiplicative.
        mu_minus: power of what is left down to 0.
    """

    weight: Float[Array | np.ndarray, "N M"]
    target: Int[Array | np.ndarray, "N M"] | None = None
    w_max: Parameter = 100.0
    tau_plus: Parameter = 20.0
    tau_minus: Parameter = 20.0
    rate: Parameter = 0.01
    alpha: Parameter = 1.0
    mu_plus: Parameter = 1.0
    mu_minus: Parameter = 1.0

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule; tracers pass."""
        checks.floats("weight", self.weight, (None, None), "[N, M], or [N, K] with a target")
        if checks.concrete(self.weight, self.w_max):
            share = np.asarray(self.weight) / np.asarray(self.w_max)
            rule = f"weight must lie between 0 and w_max = {np.max(np.asarray(self.w_max)):g}"
            checks.require((share >= 0.0) & (share <= 1.0), "weight", self.weight, "", rule)
        for field in ("tau_plus", "tau_minus"):
            checks.require_positive(field, getattr(self, field), "ms")
        for field in ("rate", "alpha", "mu_plus", "mu_minus"):
            checks.require_not_negative(field, getattr(self, field), "")
        if self.target is not None:
            checks.require_same_shape(weight=self.weight, target=checks.integers("target", self.target, 2))


class STDPState(NamedTuple):
    """The weights, and the traces that spikes before [N] and behind them [M] have left."""

    weight: Array
    pre: Array
    post: Array


@dataclass(frozen=True)
class STDP:
    r"""Plastic synapses: spikes before and behind them move their weights, and those before arrive with these.

    .. math::
        \Delta w = \eta\, w_{max} (1 - w/w_{max})^{\mu_+} \sum_{pre} e^{-\Delta t/\tau_+}
        \text{ at a spike behind}, \quad
        \Delta w = -\alpha \eta\, w_{max} (w/w_{max})^{\mu_-} \sum_{post} e^{-\Delta t/\tau_-} \text{ at one before}

    All pairs count, spikes of the same step are none, and weights stop at 0 and ``w_max``. In a step potentiation is
    first, then depression, then the spikes are sent: NEST's stdp_synapse, whose delay is all dendritic, with the spikes
    behind given that much later. The state holds the weights; the output is what arrives, :math:`\sum_i pre_i w_{ij}`.

    Args:
        dt: step, ms.
        num_out: M, where the synapses have a target.

    Example:
        >>> import jaxlif as jl
        >>> pre, post = jnp.zeros((50, 1)).at[10].set(1.0), jnp.zeros((50, 1)).at[20].set(1.0)
        >>> params = STDPParams(weight=jnp.array([[50.0]]), mu_plus=0.0)
        >>> state, _ = jl.simulate(STDP(dt=1.0), params, Pairs(pre, post))
        >>> round(float(state.weight[0, 0]), 3)  # 1 % of 100, times e^(-10/20)
        50.607

    Source: Gütig, Aharonov, Rotter & Sompolinsky 2003, doi:10.1523/JNEUROSCI.23-09-03697.2003; Morrison, Diesmann &
    Gerstner 2008, doi:10.1007/s00422-008-0233-1.
    """

    dt: float = 0.1
    num_out: int | None = None
    takes: ClassVar[type] = Pairs

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")
        if self.num_out is not None:
            checks.whole("num_out", self.num_out, 1)

    def check(self, params: Any) -> None:
        """Refuse parameters of another cell, and synapses that end nowhere."""
        checks.require_params(self, params, STDPParams)
        if (params.target is None) != (self.num_out is None):
            raise ValueError(
                f"num_out = {self.num_out}: STDP needs it where its synapses have a target, and only there"
            )
        if params.target is not None and checks.concrete(params.target):
            ends, rule = (
                np.asarray(params.target),
                f"target must be 0 to num_out = {self.num_out}, which marks no synapse",
            )
            checks.require((ends >= 0) & (ends <= self.num_out), "target", ends, "", rule)

    def check_inputs(self, inputs: Pairs) -> None:
        """Refuse spikes other than 0 and 1, where they are at hand."""
        checks.require_binary("pre", inputs.pre)
        checks.require_binary("post", inputs.post)

    def init_state(self, params: STDPParams, x: Pairs) -> STDPState:
        """Return the weights as they start, with no spike behind them."""
        n, m = jnp.shape(params.weight)[0], self.num_out or jnp.shape(params.weight)[1]
        if jnp.shape(x.pre) != (n,) or jnp.shape(x.post) != (m,):
            found = f"pre {list(jnp.shape(x.pre))} and post {list(jnp.shape(x.post))}"
            raise ValueError(f"{found} in a step: they must be [{n}] and [{m}], what the weights join")
        dtype = state_dtype(params, x)
        return STDPState(jnp.asarray(params.weight, dtype), jnp.zeros(n, dtype), jnp.zeros(m, dtype))

    def step(self, params: STDPParams, state: STDPState, x: Pairs) -> tuple[STDPState, Array]:
        """Let one step's spikes at its end move the weights, and send those before; return what arrives [M]."""
        pre, post = (jnp.asarray(spikes, state.weight.dtype) for spikes in x)
        before = state.pre * jnp.exp(-self.dt / params.tau_plus)
        behind = state.post * jnp.exp(-self.dt / params.tau_minus)
        share = state.weight / params.w_max
        gain = params.rate * _power(1.0 - share, params.mu_plus) * before[:, None]
        share = jnp.minimum(share + gain * _behind(params.target, post), 1.0)
        loss = params.alpha * params.rate * _power(share, params.mu_minus) * _behind(params.target, behind)
        share = jnp.maximum(share - loss * pre[:, None], 0.0)
        weight = share * params.w_max
        return STDPState(weight, before + pre, behind + post), _sent(params.target, weight, pre, post)


class PlasticPathState(NamedTuple):
    """The synapses' state, and the spikes [N] of the step before."""

    synapses: STDPState
    spikes: Array


@dataclass(frozen=True)
class PlasticPath:
    """Plastic synapses [N, N] among neurons that drive one another: the path of a :class:`jaxlif.networks.Feedback`.

    The same spikes are before and, a step later, behind the synapses: NEST's stdp_synapse with a delay of one step.

    Args:
        synapses: how they learn.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Feedback, FeedbackParams
        >>> cell = Feedback(jl.LIF(dt=0.1), PlasticPath(STDP(dt=0.1)))
        >>> params = FeedbackParams(neuron=jl.LIFParams(), path=STDPParams(weight=jnp.full((3, 3), 50.0)))
        >>> starts = jnp.arange(2000)[:, None] >= jnp.array([[0, 30, 60]])  # one after the other
        >>> state, _ = jl.simulate(cell, params, jnp.where(starts, 240.0, 0.0))
        >>> weight = state.path.synapses.weight
        >>> bool(weight[0, 1] > 50.0), bool(weight[1, 0] < 50.0)  # the first leads
        (True, True)
    """

    synapses: STDP

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.synapses.dt

    def check(self, params: Any) -> None:
        """Refuse parameters of another cell."""
        self.synapses.check(params)

    def init_state(self, params: STDPParams, x: Array) -> PlasticPathState:
        """Return the weights as they start, with no spike behind them."""
        spikes = jnp.zeros(jnp.shape(x), state_dtype(params, x))
        return PlasticPathState(self.synapses.init_state(params, Pairs(x, x)), spikes)

    def step(self, params: STDPParams, state: PlasticPathState, x: Array) -> tuple[PlasticPathState, Array]:
        """Let the spikes ``x`` [N] move the weights, and send them; return what arrives [N]."""
        synapses, arriving = self.synapses.step(params, state.synapses, Pairs(x, state.spikes))
        return PlasticPathState(synapses, jnp.asarray(x, state.spikes.dtype)), arriving


def _behind(target: Any, x: Array) -> Array:
    """Return what belongs to the neuron behind each synapse: [1, M], or [N, K] where they end."""
    return x[None] if target is None else x.at[jnp.asarray(target)].get(mode="fill", fill_value=0)


def _sent(target: Any, weight: Array, pre: Array, post: Array) -> Array:
    """Return what arrives [M] of the spikes before."""
    if target is None:
        return pre @ weight
    return jnp.zeros_like(post).at[jnp.asarray(target)].add(pre[:, None] * weight, mode="drop")


def _power(x: Array, mu: Parameter) -> Array:
    """Return x^mu for x of 0 or more, 0^0 being 1, without nan in its gradient."""
    inside = x > 0.0
    return jnp.where(inside, jnp.where(inside, x, 1.0) ** mu, jnp.where(jnp.asarray(mu) == 0.0, 1.0, 0.0))
