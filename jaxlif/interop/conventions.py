"""Neurons with the order of operations of snnTorch and Norse, to reproduce what was trained there, spike by spike.

All spike strictly above the threshold, and their surrogate sees the distance to it in the voltage's own units.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import choice, concrete, numbers, positive, require, require_finite, require_params, require_positive
from jaxlif.neurons.cell import SpikingOutput, initial_voltage
from jaxlif.neurons.lif import LIF, LIFParams, LIFState
from jaxlif.surrogate import Arctan, SuperSpike, Surrogate, spike

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


class SnnTorchState(NamedTuple):
    """Voltage [N]."""

    v: Array


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
        other = 'snnTorch\'s RLeaky is from_snntorch("RLeaky"), with another reset'
        return other if self.reset == "zero" else None

    def check(self, params: SnnTorchParams) -> None:
        """Refuse parameters of another neuron."""
        require_params(self, params, SnnTorchParams)

    def init_state(self, params: SnnTorchParams, x: Array) -> SnnTorchState:
        """Return the voltage 0 in the shape of the input ``x`` and the parameters."""
        return SnnTorchState(initial_voltage(0.0, params, x))

    def step(self, params: SnnTorchParams, state: SnnTorchState, x: Array) -> tuple[SnnTorchState, SpikingOutput]:
        """Advance one step under the input ``x`` [N]; the voltage is recorded after what is reset at once."""
        late = jnp.asarray(jax.lax.stop_gradient(state.v - params.threshold) > 0, state.v.dtype)
        v = _RESETS[self.reset](state.v, jnp.asarray(x, state.v.dtype), late, params.beta, params.threshold)
        spikes = _strictly_above(v - params.threshold, self.surrogate)
        if not self.reset_delay and self.reset != "none":
            v = v - (spikes - late) * (params.threshold if self.reset == "subtract" else v)
        return SnnTorchState(v), SpikingOutput(spikes, v)


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
        """Spike where v > v_th."""
        return v, _strictly_above(v - params.v_th, self.surrogate)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NorseParams:
    """The membrane, without refractoriness, and the time constant of the current, ms."""

    neuron: LIFParams
    tau_syn: Array | float = 5.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        self.neuron.check()
        require_positive("tau_syn", self.tau_syn, "ms")


class NorseState(NamedTuple):
    """The membrane's state, and the current [N]."""

    neuron: LIFState
    current: Array


@dataclass(frozen=True)
class NorseLIF:
    """Norse's ``LIFCell``: a current that jumps, drives its membrane in the same step, and only then decays."""

    membrane: NorseLIFBox = NorseLIFBox()

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.membrane.dt

    def check(self, params: NorseParams) -> None:
        """Refuse parameters of another neuron."""
        require_params(self, params, NorseParams)

    def init_state(self, params: NorseParams, x: Array) -> NorseState:
        """Return the neuron at rest without current, in the shape of the input ``x`` and the parameters."""
        state = self.membrane.init_state(params.neuron, x)
        return NorseState(state, jnp.zeros_like(state.v))

    def step(self, params: NorseParams, state: NorseState, x: Array) -> tuple[NorseState, SpikingOutput]:
        """Advance one step in which ``x`` [N] arrives."""
        current = state.current + jnp.asarray(x, state.current.dtype)
        neuron, output = self.membrane.step(params.neuron, state.neuron, current)
        return NorseState(neuron, current - self.dt / params.tau_syn * current), output


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
) -> tuple[NorseLIF | NorseLIFBox, NorseParams | LIFParams]:
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
        >>> cell.dt, params.neuron.tau_m, params.tau_syn
        (1.0, 20.0, 5.0)

    Source: Norse 1.1.0, norse.torch.functional; Pehle & Pedersen 2021, doi:10.5281/zenodo.4422025.
    """
    choice("name", name, ("LIFCell", "LIFBoxCell"))
    if name == "LIFBoxCell" and tau_syn_inv is not None:
        raise ValueError(f"tau_syn_inv = {tau_syn_inv}: a LIFBoxCell has no current, leave it out")
    require_positive("tau_mem_inv", tau_mem_inv, "1/s")
    potentials = {"v_rest": v_leak, "v_th": v_th, "v_reset": v_reset}
    neuron = LIFParams(tau_m=1e3 / tau_mem_inv, r_m=1.0, t_ref=0.0, **potentials)
    neuron.check()
    membrane = NorseLIFBox(dt=1e3 * positive("dt", dt, "s"), surrogate=surrogate, detach_reset=detach_reset)
    if name == "LIFBoxCell":
        return membrane, neuron
    tau_syn_inv = 200.0 if tau_syn_inv is None else tau_syn_inv
    require_positive("tau_syn_inv", tau_syn_inv, "1/s")
    return NorseLIF(membrane), NorseParams(neuron=neuron, tau_syn=1e3 / tau_syn_inv)


def _strictly_above(distance: Array, surrogate: Surrogate) -> Array:
    """Emit a spike where the distance to threshold is positive; :func:`jaxlif.spike` also does where it is 0."""
    return 1.0 - spike(-distance, surrogate)
