"""Neurons with the order of operations of snnTorch and Norse, to reproduce what was trained there, spike by spike.

They differ from :class:`jaxlif.LIF` in what a step does and when; each docstring says how. All spike strictly
above the threshold, and their surrogate sees the distance to it in the voltage's own units.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import choice, concrete, numbers, require, require_finite, require_params, require_positive
from jaxlif.neurons.cell import initial_voltage
from jaxlif.neurons.lif import LIF, LIFOutput, LIFParams, LIFState
from jaxlif.surrogate import Arctan, SuperSpike, Surrogate, spike

_SNNTORCH, _NORSE = Arctan(2.0), SuperSpike(1.0)  # what they use by default


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SnnTorchParams:
    """Parameters of snnTorch's ``Leaky``.

    Args:
        beta: what is left of the voltage after a step, scalar or [N], from 0 to 1: outside snnTorch clips it.
        threshold: scalar or [N].
    """

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
    r"""snnTorch's ``Leaky``: :math:`v_n = \beta v_{n-1} + x_n - \theta [v_{n-1} > \theta]`, spikes where v > θ.

    A spike is subtracted one step late and after the decay, so that v is recorded above the threshold and the whole θ
    is taken off, not βθ. With ``reset = "zero"`` the late reset comes before the decay; with "all", that of ``RLeaky``,
    it takes what arrives in its step with it. Without ``reset_delay`` a reset follows in the spike's own step, unless
    one came late: what stays above the threshold is reset again in the next. An input is not scaled by 1 - β, and there
    is no dt. Only a late reset is detached.

    Args:
        reset: "subtract", "zero", "all" or "none".
        reset_delay: snnTorch's default is True.
        surrogate: pseudo-derivative; snnTorch's default is ``Arctan(2.0)``.

    Raises:
        ValueError: for another reset.

    Example:
        >>> import jaxlif as jl
        >>> _, output = jl.simulate(SnnTorchLeaky(), SnnTorchParams(beta=0.5), jnp.array([1.5, 0.0, 0.0]))
        >>> output.v.tolist(), output.spikes.tolist()
        ([1.5, -0.25, -0.125], [1.0, 0.0, 0.0])

    Source: snnTorch 1.0.0; Eshraghian et al. 2023, doi:10.1109/JPROC.2023.3308088.
    """

    reset: str = "subtract"
    reset_delay: bool = True
    surrogate: Surrogate = _SNNTORCH

    def __post_init__(self) -> None:
        if self.reset not in ("subtract", "zero", "all", "none"):
            raise ValueError(f'reset = {self.reset!r}: reset must be "subtract", "zero", "all" or "none"')

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

    def step(self, params: SnnTorchParams, state: SnnTorchState, x: Array) -> tuple[SnnTorchState, LIFOutput]:
        """Advance one step under the input ``x`` [N]; the voltage is recorded after what is reset at once."""
        x = jnp.asarray(x, state.v.dtype)
        late = self._fired(params, state.v)
        v = self._reset(params, state.v, late, x)
        spikes = strictly_above(v - params.threshold, self.surrogate)
        if not self.reset_delay and self.reset != "none":
            again = spikes - late  # snnTorch detaches the late reset only
            v = v - again * (params.threshold if self.reset == "subtract" else v)
        return SnnTorchState(v), LIFOutput(spikes, v)

    def _fired(self, params: SnnTorchParams, v: Array) -> Array:
        return jnp.asarray(jax.lax.stop_gradient(v - params.threshold) > 0, v.dtype)

    def _reset(self, params: SnnTorchParams, v: Array, late: Array, x: Array) -> Array:
        if self.reset == "zero":
            return params.beta * ((1.0 - late) * v) + x
        if self.reset == "all":
            return (1.0 - late) * (params.beta * v + x)
        return params.beta * v + x - (late * params.threshold if self.reset == "subtract" else 0.0)


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
        beta: scalar or [N], from 0 to 1.
        threshold: scalar or [N].
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: as in snnTorch.
        surrogate: pseudo-derivative; snnTorch's default.

    Returns:
        The cell and its parameters.

    Raises:
        ValueError: for another name or reset, or a value that breaks a rule.

    Example:
        >>> cell, params = from_snntorch(beta=0.9)
        >>> cell.reset, params.beta
        ('subtract', 0.9)
    """
    choice("name", name, ("Leaky", "RLeaky"))
    choice("reset_mechanism", reset_mechanism, ("subtract", "zero", "none"))
    params = SnnTorchParams(beta=numbers("beta", beta), threshold=numbers("threshold", threshold))
    params.check()
    reset = "all" if (name, reset_mechanism) == ("RLeaky", "zero") else reset_mechanism
    return SnnTorchLeaky(reset, reset_delay, surrogate), params


@dataclass(frozen=True)
class NorseLIFBox(LIF):
    r"""Norse's ``LIFBoxCell``: :class:`jaxlif.LIF` by forward Euler, :math:`v + (dt/\tau)(v_{rest} + I - v)`, v > v_th.

    Args:
        dt: step, ms.
        surrogate: pseudo-derivative; that of Norse 1.1.0 is ``SuperSpike(1.0)``, since its ``alpha`` is not used.
        reset: "value", or "subtract", which takes off v_th - v_reset.
        detach_reset: Norse's ``LIFBoxCell`` does not.

    Raises:
        ValueError: for a dt that is not positive, or another reset.

    Example:
        >>> cell, params = from_norse("LIFBoxCell", tau_mem_inv=100.0)
        >>> round(float(cell.step(params, cell.init_state(params, jnp.zeros(1)), jnp.full(1, 0.5))[1].v[0]), 6)
        0.05

    Source: Norse 1.1.0, norse.torch.functional.lif_box; Pehle & Pedersen 2021, doi:10.5281/zenodo.4422025.
    """

    dt: float = 1.0
    surrogate: Surrogate = _NORSE
    detach_reset: bool = False

    def integrate(self, params: LIFParams, state: LIFState, x: Array) -> tuple[LIFState, Array]:
        """Take an Euler step of the voltage under the current ``x`` [N]."""
        drive = params.r_m * jnp.asarray(x, state.v.dtype)
        return state, state.v + self.dt / params.tau_m * (params.v_rest - state.v + drive)

    def emit(self, params: LIFParams, state: LIFState, v: Array) -> tuple[Array, Array]:
        """Spike where v > v_th."""
        return v, strictly_above(v - params.v_th, self.surrogate)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NorseParams:
    """Parameters of Norse's ``LIFCell``.

    Args:
        neuron: the membrane, without refractoriness.
        tau_syn: time constant of the current, ms, scalar or [N].
    """

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
    r"""Norse's ``LIFCell``: a current that jumps, drives the voltage in the same step, and only then decays.

    .. math::
        i \leftarrow i + x, \qquad v \leftarrow v + (dt/\tau_m)(v_{rest} - v + i), \qquad i \leftarrow i - (dt/\tau_s) i

    Args:
        dt: step, ms.
        surrogate: pseudo-derivative; that of Norse 1.1.0 is ``SuperSpike(1.0)``, since its ``alpha`` is not used.
        detach_reset: Norse's ``LIFCell`` does not, its ``LIFRecurrentCell`` does.

    Raises:
        ValueError: for a dt that is not positive.

    Example:
        >>> cell, params = from_norse("LIFCell")
        >>> state = cell.init_state(params, jnp.zeros(1))
        >>> round(float(cell.step(params, state, jnp.full(1, 0.5))[0].current[0]), 6)  # after a decay by dt/tau_syn
        0.4

    Source: Norse 1.1.0, norse.torch.functional.lif; Pehle & Pedersen 2021, doi:10.5281/zenodo.4422025.
    """

    dt: float = 1.0
    surrogate: Surrogate = _NORSE
    detach_reset: bool = False

    def __post_init__(self) -> None:
        require_positive("dt", self.dt, "ms")

    def check(self, params: NorseParams) -> None:
        """Refuse parameters of another neuron."""
        require_params(self, params, NorseParams)

    def init_state(self, params: NorseParams, x: Array) -> NorseState:
        """Return the neuron at rest without current, in the shape of the input ``x`` and the parameters."""
        state = self._membrane().init_state(params.neuron, x)
        return NorseState(state, jnp.zeros_like(state.v))

    def step(self, params: NorseParams, state: NorseState, x: Array) -> tuple[NorseState, LIFOutput]:
        """Advance one step in which ``x`` [N] arrives."""
        current = state.current + jnp.asarray(x, state.current.dtype)
        neuron, output = self._membrane().step(params.neuron, state.neuron, current)
        return NorseState(neuron, current - self.dt / params.tau_syn * current), output

    def _membrane(self) -> NorseLIFBox:
        return NorseLIFBox(dt=self.dt, surrogate=self.surrogate, detach_reset=self.detach_reset)


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
) -> tuple[NorseLIF | NorseLIFBox, NorseParams | LIFParams]:
    """Return the neuron that Norse's cell with these parameters is; in :class:`Recurrent`, its recurrent cell.

    Args:
        name: "LIFCell" or "LIFBoxCell".
        tau_mem_inv: 1/s, scalar or [N], as in Norse; here it becomes ``tau_m`` in ms.
        tau_syn_inv: 1/s, scalar or [N], of a "LIFCell" only; 200 by default, as in Norse.
        v_leak: scalar or [N].
        v_th: scalar or [N].
        v_reset: scalar or [N].
        dt: step, **s**, as in Norse; the cell's is in ms.
        surrogate: pseudo-derivative; the default is that of Norse 1.1.0, whatever its ``alpha``.

    Returns:
        The cell and its parameters.

    Raises:
        ValueError: for another name, a time constant that the cell does not have, or a value that breaks a rule.

    Example:
        >>> cell, params = from_norse("LIFCell", tau_mem_inv=50.0)
        >>> cell.dt, params.neuron.tau_m, params.tau_syn
        (1.0, 20.0, 5.0)
    """
    if name not in ("LIFCell", "LIFBoxCell"):
        raise ValueError(f'name = {name!r}: name must be "LIFCell" or "LIFBoxCell"')
    if name == "LIFBoxCell" and tau_syn_inv is not None:
        raise ValueError(f"tau_syn_inv = {tau_syn_inv}: a LIFBoxCell has no current, leave it out")
    require_positive("tau_mem_inv", tau_mem_inv, "1/s")
    membrane: Any = {"tau_m": 1e3 / tau_mem_inv, "r_m": 1.0, "v_rest": v_leak, "v_th": v_th, "v_reset": v_reset}
    neuron = LIFParams(**membrane, t_ref=0.0)
    neuron.check()
    if name == "LIFBoxCell":
        return NorseLIFBox(dt=1e3 * dt, surrogate=surrogate), neuron
    tau_syn_inv = 200.0 if tau_syn_inv is None else tau_syn_inv
    require_positive("tau_syn_inv", tau_syn_inv, "1/s")
    return NorseLIF(dt=1e3 * dt, surrogate=surrogate), NorseParams(neuron=neuron, tau_syn=1e3 / tau_syn_inv)


def strictly_above(distance: Array, surrogate: Surrogate) -> Array:
    """Emit a spike where the distance to threshold is positive; :func:`jaxlif.spike` also does where it is 0.

    Args:
        distance: v - v_th, any shape.
        surrogate: pseudo-derivative, an even function.

    Example:
        >>> strictly_above(jnp.array([-1.0, 0.0, 1e-9]), Arctan()).tolist()
        [0.0, 0.0, 1.0]
    """
    return 1.0 - spike(-distance, surrogate)
