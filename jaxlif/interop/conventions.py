"""Neurons with the order of operations of snnTorch and Norse, to reproduce what was trained there, spike by spike.

All spike strictly above the threshold, and their surrogate sees the distance to it in the voltage's own units.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import choice, concrete, numbers, positive, require, require_finite, require_params, require_positive
from jaxlif.neurons.cell import SpikingOutput, initial_voltage
from jaxlif.neurons.leaky import LeakyState
from jaxlif.neurons.lif import LIF, LIFParams, LIFState
from jaxlif.surrogate import Arctan, SuperSpike, Surrogate, spike
from jaxlif.synapses import CurrentParams, SynapticParams, SynapticState

_SNNTORCH, _NORSE = Arctan(2.0), SuperSpike(1.0)  # what they use by default

# The voltage v of snnTorch after a step with input x; z is 1 where the voltage before was above the threshold th.
_RESETS = {
    "subtract": lambda v, x, z, beta, th: beta * v + x - z * th,
    "zero": lambda v, x, z, beta, th: beta * ((1.0 - z) * v) + x,
    "all": lambda v, x, z, beta, th: (1.0 - z) * (beta * v + x),  # RLeaky's zero, which takes the input with it
    "none": lambda v, x, z, beta, th: beta * v + x,
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SnnTorchParams:
    """What is left of the voltage after a step, from 0 to 1, and the threshold, each scalar or [N]."""

    beta: Array | float = 0.9
    threshold: Array | float = 1.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_finite("beta", self.beta, "")
        if concrete(self.beta):
            inside = (np.asarray(self.beta) >= 0.0) & (np.asarray(self.beta) <= 1.0)
            require(inside, "beta", self.beta, "", "beta must lie between 0 and 1, where snnTorch does not clip it")
        require_positive("threshold", self.threshold, "")


@dataclass(frozen=True)
class SnnTorchLeaky:
    """snnTorch's ``Leaky``, whose reset comes a step late and is detached; no input is scaled by 1 - beta.

    Without ``reset_delay`` it comes in the spike's own step, unless one came late, and is not detached.
    """

    reset: str = "subtract"
    reset_delay: bool = True
    surrogate: Surrogate = _SNNTORCH

    def __post_init__(self) -> None:
        choice("reset", self.reset, tuple(_RESETS))

    @property
    def no_feedback(self) -> str | None:
        """Why this neuron is none of snnTorch's where its spikes are fed back."""
        return 'snnTorch\'s RLeaky is from_snntorch("RLeaky"), with another reset' if self.reset == "zero" else None

    def check(self, params: SnnTorchParams) -> None:
        """Refuse parameters of another neuron."""
        require_params(self, params, SnnTorchParams)

    def init_state(self, params: SnnTorchParams, x: Array) -> LeakyState:
        """Return the voltage 0 in the shape of the input ``x`` and the parameters."""
        return LeakyState(initial_voltage(0.0, params, x))

    def step(self, params: SnnTorchParams, state: LeakyState, x: Array) -> tuple[LeakyState, SpikingOutput]:
        """Advance one step under the input ``x`` [N]; the voltage is recorded after what is reset at once."""
        late = jnp.asarray(jax.lax.stop_gradient(state.v - params.threshold) > 0, state.v.dtype)
        v = _RESETS[self.reset](state.v, jnp.asarray(x, state.v.dtype), late, params.beta, params.threshold)
        spikes = _strictly_above(v - params.threshold, self.surrogate)
        if not self.reset_delay and self.reset != "none":
            v = v - (spikes - late) * (params.threshold if self.reset == "subtract" else v)
        return LeakyState(v), SpikingOutput(spikes, v)


@dataclass(frozen=True)
class NorseLIFBox(LIF):
    """Norse's ``LIFBoxCell``: :class:`jaxlif.LIF` by forward Euler, whose reset is not detached."""

    dt: float = 1.0
    surrogate: Surrogate = _NORSE
    detach_reset: bool = False

    def integrate(self, params: LIFParams, state: LIFState, x: Array) -> tuple[LIFState, Array]:
        """Take an Euler step of the voltage under the current ``x`` [N]."""
        drive = params.r_m * jnp.asarray(x, state.v.dtype)
        return state, state.v + self.dt / params.tau_m * (params.v_rest - state.v + drive)

    def emit(self, params: LIFParams, state: LIFState, v: Array) -> tuple[Array, Array]:
        """Hold the refractory neurons, of which Norse has none, and let the others spike where v > v_th."""
        held = state.refractory > 0
        return jnp.where(held, state.v, v), jnp.where(held, 0.0, _strictly_above(v - params.v_th, self.surrogate))


@dataclass(frozen=True)
class NorseLIF:
    """Norse's ``LIFCell``: a current that jumps, drives its neuron in the same step, and only then decays."""

    neuron: NorseLIFBox = NorseLIFBox()

    def check(self, params: SynapticParams) -> None:
        """Refuse parameters of another neuron."""
        require_params(self, params, SynapticParams)
        require_params(self, params.synapse, CurrentParams, "params.synapse")

    def init_state(self, params: SynapticParams, x: Array) -> SynapticState:
        """Return the neuron at rest without current, in the shape of the input ``x`` and the parameters."""
        state = self.neuron.init_state(params.neuron, x)
        return SynapticState(state, jnp.zeros_like(state.v))

    def step(self, params: SynapticParams, state: SynapticState, x: Array) -> tuple[SynapticState, SpikingOutput]:
        """Advance one step in which ``x`` [N] arrives."""
        current = state.synapse + jnp.asarray(x, state.synapse.dtype)
        neuron, output = self.neuron.step(params.neuron, state.neuron, current)
        return SynapticState(neuron, current - self.neuron.dt / params.synapse.tau_syn * current), output


def from_snntorch(
    name: str = "Leaky",
    *,
    beta: Array | float,
    threshold: Array | float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    surrogate: Surrogate = _SNNTORCH,
) -> tuple[SnnTorchLeaky, SnnTorchParams]:
    """Return the neuron that snnTorch's ``Leaky`` with these arguments is, or in :class:`Recurrent` its ``RLeaky``.

    The two differ in the reset to zero: that of ``RLeaky`` zeroes what arrives in its step too. The weight of
    :class:`Recurrent` is ``recurrent.weight`` transposed, or V on a diagonal; ``recurrent.bias`` adds to the input.

    Args:
        name: "Leaky" or "RLeaky".
        beta, threshold: scalar or [N]; beta from 0 to 1, outside snnTorch clips it.
        reset_mechanism, reset_delay, surrogate: as in snnTorch; "subtract", "zero" or "none".

    Raises:
        ValueError: for another name or reset, or a value that breaks a rule.

    Example:
        >>> import jaxlif as jl
        >>> _, output = jl.simulate(*from_snntorch(beta=0.5), jnp.array([1.5, 0.0, 0.0]))
        >>> output.v.tolist(), output.spikes.tolist()
        ([1.5, -0.25, -0.125], [1.0, 0.0, 0.0])

    Source: snnTorch 1.0.0; Eshraghian et al. 2023, doi:10.1109/JPROC.2023.3308088.
    """
    choice("name", name, ("Leaky", "RLeaky"))
    choice("reset_mechanism", reset_mechanism, ("subtract", "zero", "none"))
    params = SnnTorchParams(beta=numbers("beta", beta), threshold=numbers("threshold", threshold))
    params.check()
    reset = "all" if (name, reset_mechanism) == ("RLeaky", "zero") else reset_mechanism
    return SnnTorchLeaky(reset, reset_delay, surrogate), params


def from_norse(
    name: str,
    *,
    tau_mem_inv: Array | float = 100.0,
    tau_syn_inv: Array | float | None = None,
    v_leak: Array | float = 0.0,
    v_th: Array | float = 1.0,
    v_reset: Array | float = 0.0,
    dt: float = 1e-3,
    surrogate: Surrogate = _NORSE,
    detach_reset: bool = False,
) -> tuple[NorseLIF | NorseLIFBox, SynapticParams | LIFParams]:
    """Return the neuron that Norse's cell with these parameters is; in :class:`Recurrent`, its recurrent cell.

    Args:
        name: "LIFCell" or "LIFBoxCell".
        tau_mem_inv, tau_syn_inv: 1/s, scalar or [N]; the second of a "LIFCell" only, 200 by default, as in Norse.
        v_leak, v_th, v_reset: scalar or [N].
        dt: step, **s**, as in Norse; the cell's is in ms, as its time constants are.
        surrogate: pseudo-derivative; the default is that of Norse 1.1.0, whatever its ``alpha``.
        detach_reset: True for Norse's ``LIFRecurrentCell``.

    Raises:
        ValueError: for another name, a time constant that the cell does not have, or a value that breaks a rule.

    Example:
        >>> cell, params = from_norse("LIFCell", tau_mem_inv=50.0)
        >>> cell.neuron.dt, params.neuron.tau_m, params.synapse.tau_syn
        (1.0, 20.0, 5.0)

    Source: Norse 1.1.0, norse.torch.functional; Pehle & Pedersen 2021, doi:10.5281/zenodo.4422025.
    """
    choice("name", name, ("LIFCell", "LIFBoxCell"))
    if name == "LIFBoxCell" and tau_syn_inv is not None:
        raise ValueError(f"tau_syn_inv = {tau_syn_inv}: a LIFBoxCell has no current, leave it out")
    require_positive("tau_mem_inv", tau_mem_inv, "1/s")
    params = LIFParams(tau_m=1e3 / tau_mem_inv, r_m=1.0, v_rest=v_leak, v_th=v_th, v_reset=v_reset, t_ref=0.0)
    params.check()
    neuron = NorseLIFBox(dt=1e3 * positive("dt", dt, "s"), surrogate=surrogate, detach_reset=detach_reset)
    if name == "LIFBoxCell":
        return neuron, params
    tau_syn_inv = 200.0 if tau_syn_inv is None else tau_syn_inv
    require_positive("tau_syn_inv", tau_syn_inv, "1/s")
    return NorseLIF(neuron), SynapticParams(neuron=params, synapse=CurrentParams(tau_syn=1e3 / tau_syn_inv))


def _strictly_above(distance: Array, surrogate: Surrogate) -> Array:
    """Emit a spike where the distance to threshold is positive; :func:`jaxlif.spike` also does where it is 0."""
    return 1.0 - spike(-distance, surrogate)
