"""One table of NIR's nodes and the layers that they are, with the cells for those nodes that no other cell is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import check_params, require_finite, require_params, require_positive
from jaxlif.networks.delays import Delayed, DelayParams
from jaxlif.networks.layers import Conv, Dense, DenseParams, Flatten, Padding, Stateless, SumPool, per_axis, zeros
from jaxlif.neurons.cascade import cascade
from jaxlif.neurons.cell import check_cell, relax, state_dtype
from jaxlif.neurons.leaky import LeakyIntegrator, LeakyOutput, LeakyParams, LeakyState
from jaxlif.neurons.lif import LIF, LIFParams, LIFState
from jaxlif.surrogate import SuperSpike, Surrogate, spike
from jaxlif.synapses import SynapticState

MS = 1000.0  # in a second


class IntegrateAndFire(LIF):
    r"""A neuron without leak, :math:`c_m \dot v = I` with :math:`c_m = \tau_m / r_m`; v_rest is where it starts."""

    def integrate(self, params: LIFParams, state: LIFState, x: Array) -> tuple[LIFState, Array]:
        """Add what the current ``x`` [N] brings in one step."""
        return state, _integrated(params, state.v, x, self.dt)


class Integrator(LeakyIntegrator):
    r"""An integral of its input, :math:`c_m \dot v = I` with :math:`c_m = \tau_m / r_m`; v_rest is where it starts."""

    def step(self, params: LeakyParams, state: LeakyState, x: Array) -> tuple[LeakyState, LeakyOutput]:
        """Advance one step under the current ``x`` [N], held over it."""
        v = _integrated(params, state.v, x, self.dt)
        return LeakyState(v), LeakyOutput(v)


def _integrated(params: Any, v: Array, x: Array, dt: float) -> Array:
    return jnp.add(v, dt / params.tau_m * params.r_m * jnp.asarray(x, v.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CurrentBasedParams:
    """A membrane's parameters, and the time constant, ms, and the gain of the filter before it, scalars or [N]."""

    neuron: Any
    tau_syn: Array | float = 5.0
    w_in: Array | float = 1.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        check_params(self.neuron)
        require_positive("tau_syn", self.tau_syn, "ms")
        require_finite("w_in", self.w_in, "")


@dataclass(frozen=True)
class CurrentBased:
    r"""A membrane behind a low-pass filter, both solved exactly together: NIR's CubaLIF and CubaLI.

    .. math:: \tau_{syn} \dot I = -I + w_{in} x, \qquad \tau_m \dot v = v_{rest} - v + r_m I

    A spike is an input of 1 held over its step: it moves I by :math:`w_{in} (1 - e^{-dt/\tau_{syn}})`.
    """

    neuron: LIF | LeakyIntegrator

    def __post_init__(self) -> None:
        if type(self.neuron) not in (LIF, LeakyIntegrator):  # of another the membrane is not this one
            raise ValueError(f"neuron = {type(self.neuron).__name__}: it must be a LIF or a LeakyIntegrator")

    def check(self, params: CurrentBasedParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the membrane."""
        require_params(self, params, CurrentBasedParams)
        check_cell(self.neuron, params.neuron)

    def init_state(self, params: CurrentBasedParams, x: Array) -> SynapticState:
        """Return the membrane at rest, without current."""
        shape = jnp.broadcast_shapes(*(jnp.shape(leaf) for leaf in (x, params.tau_syn, params.w_in)))
        neuron = self.neuron.init_state(params.neuron, jnp.broadcast_to(x, shape))
        return SynapticState(neuron, jnp.zeros_like(neuron.v))

    def step(self, params: CurrentBasedParams, state: SynapticState, x: Array) -> tuple[SynapticState, Any]:
        """Advance one step under the input ``x`` [N], held over it; the output is the membrane's."""
        dt, tau_m = self.neuron.dt, params.neuron.tau_m
        final = params.w_in * jnp.asarray(x, state.synapse.dtype)
        # The constant current that moves the voltage in a step as one of 1 does that decays from its start.
        rates = 1.0 / tau_m, 1.0 / jnp.asarray(params.tau_syn, state.synapse.dtype)
        kept = cascade(dt, *rates) / (-tau_m * jnp.expm1(-dt / tau_m))
        neuron, output = self.neuron.step(params.neuron, state.neuron, final + kept * (state.synapse - final))
        return SynapticState(neuron, relax(state.synapse, final, params.tau_syn, dt)), output


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ValueParams:
    """The factor, or the threshold, of each signal, a scalar or of the input's shape."""

    value: Array | float

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_finite("value", self.value, "")


@dataclass(frozen=True)
class Scale(Stateless):
    """Signals times a factor of their own."""

    def apply(self, params: ValueParams, x: Array) -> Array:
        """Scale ``x``, of any shape that goes with the factors; spikes of any dtype are cast to theirs."""
        scale = jnp.asarray(params.value, state_dtype(params))
        return jnp.asarray(x, scale.dtype) * scale


class ThresholdOutput(NamedTuple):
    """Spikes, 0 or 1, of the input's shape."""

    spikes: Array


@dataclass(frozen=True)
class Threshold(Stateless):
    """A spike in every step in which the input reaches the threshold: no membrane, no reset."""

    surrogate: Surrogate = SuperSpike()

    def apply(self, params: ValueParams, x: Array) -> ThresholdOutput:
        """Compare ``x`` with the thresholds."""
        threshold = jnp.asarray(params.value, state_dtype(params, x))
        return ThresholdOutput(spike(jnp.asarray(x, threshold.dtype) - threshold, self.surrogate))


# --- the table --------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """How nodes are read: for which step, ms, with which spikes, by which integration."""

    dt: float
    surrogate: Surrogate
    reset: str
    euler: bool

    def time(self, tau: Any) -> Array:
        """Return a time constant in ms: that with which an exact step does what an Euler step of ``tau`` does."""
        tau = np.asarray(tau, np.float64) * MS
        if not self.euler:
            return _array(tau)
        if not np.all(tau > self.dt):
            raise ValueError(f"tau = {tau.min():g} ms: it must be longer than an Euler step, which is {self.dt:g} ms")
        return _array(-self.dt / np.log1p(-self.dt / tau))


def _write_dense(nir: Any, layer: Dense, p: DenseParams, shape: tuple[int, ...]) -> Any:
    weight = _double(p.weight).T.copy()  # NIR: from column to row
    return nir.Linear(weight) if p.bias is None else nir.Affine(weight, _double(p.bias))


def _read_dense(node: Any, how: Reading) -> tuple[Dense, DenseParams]:
    if np.ndim(node.weight) != 2:
        raise ValueError(f"weight {list(np.shape(node.weight))}: a weight must be a matrix")
    bias = _array(node.bias) if kind(node) == "Affine" else None
    return Dense(), DenseParams(weight=_array(np.transpose(node.weight)), bias=bias)


def _write_conv(nir: Any, layer: Conv, p: Any, shape: tuple[int, ...]) -> Any:
    weight, kernel = _double(np.swapaxes(p.weight, 0, 1)), p.weight.shape[2:]
    if len(kernel) > 2:
        raise ValueError(f"kernel = {kernel}: NIR convolves along one axis or two")
    stride = per_axis("stride", layer.stride, len(kernel))
    same = layer.padding == "SAME" and set(stride) == {1}
    padding = "same" if same else _both_sides(layer.padding, len(kernel))
    if not same and len(set(kernel)) > 1:
        # nir takes the first size of the kernel for both when it infers shapes, and then refuses its own file.
        raise ValueError(f'kernel = {kernel}: NIR takes a kernel that is not square only with padding "SAME"')
    bias = np.zeros(len(weight)) if p.bias is None else _double(p.bias)
    if len(kernel) == 1:
        return nir.Conv1d(shape[1], weight, stride[0], padding if same else padding[0], 1, 1, bias)
    return nir.Conv2d(shape[1:], weight, stride, padding, (1, 1), 1, bias)


def _read_conv(node: Any, how: Reading) -> tuple[Conv, DenseParams]:
    for field in ("dilation", "groups"):
        if np.any(np.asarray(getattr(node, field)) != 1):
            raise ValueError(f"{field} = {getattr(node, field)}: {field} must be 1")
    axes = np.ndim(node.weight) - 2
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    padding = padding.upper() if isinstance(padding, str) else _integers(padding, axes)
    stride = _integers(node.stride, axes)
    if padding == "SAME" and set(stride) != {1}:
        raise ValueError(f"padding = same with stride = {stride}: it keeps the size only with a stride of 1")
    return Conv(stride, padding), DenseParams(weight=_array(np.swapaxes(node.weight, 0, 1)), bias=_array(node.bias))


def _both_sides(padding: Padding, axes: int) -> tuple[int, ...]:
    pads = zeros(padding, axes)
    if pads == "SAME":
        raise ValueError('padding = "SAME": NIR has it for a convolution with a stride of 1; give the numbers of zeros')
    return tuple(p for p, _ in pads)


def _write_pool(nir: Any, layer: SumPool, p: None, shape: tuple[int, ...]) -> Any:
    if len(shape) != 3:
        raise ValueError(f"SumPool of an input {list(shape)}: NIR sums over images [C, H, W] only")
    window, stride = layer.windows(2)
    return nir.SumPool2d(*map(np.array, (window, stride, _both_sides(layer.padding, 2))))


def _read_flatten(node: Any, how: Reading) -> tuple[Flatten, None]:
    sizes = node.input_type["input"]
    last = (-1,) if sizes is None else (-1, len(sizes) - 1)
    if int(node.start_dim) != 0 or int(node.end_dim) not in last:
        raise ValueError(f"start_dim = {node.start_dim}, end_dim = {node.end_dim}: all axes must be flattened")
    return Flatten(), None


def _write_delay(nir: Any, layer: Delayed, p: DelayParams, shape: tuple[int, ...]) -> Any:
    if p.sigma is not None:
        raise ValueError("sigma: NIR's Delay has no spread over lags; set it to None")
    return nir.Delay(_spread(p.delay, shape) / MS)


def _read_delay(node: Any, how: Reading) -> tuple[Delayed, DelayParams]:
    delay = _array(np.asarray(node.delay) * MS)
    return Delayed(how.dt, max(how.dt, float(jnp.max(delay)))), DelayParams(delay=delay)


def _write_neuron(nir: Any, layer: Any, p: Any, shape: tuple[int, ...]) -> Any:
    if type(layer) is CurrentBased:
        membrane = vars(_write_neuron(nir, layer.neuron, p.neuron, shape))
        kept = {name: membrane[name] for name in ("r", "v_leak", "v_threshold", "v_reset") if name in membrane}
        make = nir.CubaLIF if isinstance(layer.neuron, LIF) else nir.CubaLI
        return make(
            tau_syn=_spread(p.tau_syn, shape) / MS, tau_mem=membrane["tau"], w_in=_spread(p.w_in, shape), **kept
        )
    fields = {"tau": _spread(p.tau_m, shape) / MS, "r": _spread(p.r_m, shape), "v_leak": _spread(p.v_rest, shape)}
    if type(layer) in (IntegrateAndFire, Integrator):
        if np.any(fields["v_leak"] != 0):
            raise ValueError(f"v_rest = {np.max(np.abs(p.v_rest)):g} mV: in NIR a neuron without leak starts at 0")
        fields = {"r": fields["r"] / fields["tau"]}
    if not isinstance(layer, LIF):
        return (nir.LI if type(layer) is LeakyIntegrator else nir.I)(**fields)
    if type(p) is not LIFParams:
        raise ValueError(f"{type(layer).__name__} with {type(p).__name__}: NIR has a node for LIFParams only")
    if layer.reset != "value":
        raise ValueError(f'reset = "{layer.reset}": NIR sets v to v_reset; use reset = "value"')
    if np.any(np.asarray(p.t_ref) != 0):
        raise ValueError(f"t_ref = {np.max(p.t_ref):g} ms: NIR has no refractory period; t_ref must be 0 ms")
    fields |= {"v_threshold": _spread(p.v_th, shape), "v_reset": _spread(p.v_reset, shape)}
    return (nir.LIF if type(layer) is LIF else nir.IF)(**fields)


def _read_neuron(node: Any, how: Reading) -> tuple[Any, Any]:
    based, leaky = kind(node).startswith("Cuba"), "L" in kind(node)
    tau_m = how.time(node.tau_mem if based else node.tau) if leaky else _array(MS)
    fields = {"tau_m": tau_m, "r_m": _array(node.r), "v_rest": _array(node.v_leak if leaky else 0.0)}
    cell: Any = (LeakyIntegrator if leaky else Integrator)(how.dt)
    params: Any = LeakyParams(**fields)
    if kind(node) in SPIKING:
        cell = (LIF if leaky else IntegrateAndFire)(how.dt, how.surrogate, how.reset)
        params = LIFParams(**fields, v_th=_array(node.v_threshold), v_reset=_array(node.v_reset), t_ref=0.0)
    if not based:
        return cell, params
    return CurrentBased(cell), CurrentBasedParams(neuron=params, tau_syn=how.time(node.tau_syn), w_in=_array(node.w_in))


NEURON_CELLS = (LIF, IntegrateAndFire, LeakyIntegrator, Integrator, CurrentBased)
SPIKING = ("IF", "LIF", "CubaLIF")
_POOLED = ("kernel_size", "stride", "padding")
NEURONS = (*SPIKING, "I", "LI", "CubaLI")
READERS: dict[str, Callable[[Any, Reading], tuple[Any, Any]]] = {
    **dict.fromkeys(("Affine", "Linear"), _read_dense),
    **dict.fromkeys(("Conv1d", "Conv2d"), _read_conv),
    **dict.fromkeys(NEURONS, _read_neuron),
    "SumPool2d": lambda node, how: (SumPool(*(_integers(getattr(node, n), 2) for n in _POOLED)), None),
    "Flatten": _read_flatten,
    "Delay": _read_delay,
    "Scale": lambda node, how: (Scale(), ValueParams(value=_array(node.scale))),
    "Threshold": lambda node, how: (Threshold(how.surrogate), ValueParams(value=_array(node.threshold))),
}
WRITERS: dict[type, Callable[..., Any]] = {  # by exact types: a subclass may compute something else
    Dense: _write_dense,
    Conv: _write_conv,
    **dict.fromkeys(NEURON_CELLS, _write_neuron),
    SumPool: _write_pool,
    Flatten: lambda nir, _, p, shape: nir.Flatten({"input": np.array(shape)}, 0, -1),
    Delayed: _write_delay,
    Scale: lambda nir, _, p, shape: nir.Scale(_spread(p.value, shape)),
    Threshold: lambda nir, _, p, shape: nir.Threshold(_spread(p.value, shape)),
}


def unfolded(node: Any, euler: bool) -> list[Any]:
    """Return the nodes that one stands for: of an average, and in Euler steps of a current-based neuron."""
    import nir

    if kind(node) == "AvgPool2d":
        scale = np.array(1.0 / np.prod(_integers(node.kernel_size, 2)))
        return [nir.SumPool2d(node.kernel_size, node.stride, node.padding), nir.Scale(scale)]
    if kind(node) not in ("CubaLIF", "CubaLI") or not euler:
        return [node]
    synapse = nir.LI(tau=node.tau_syn, r=node.w_in, v_leak=np.zeros_like(node.v_leak))
    membrane = {"tau": node.tau_mem, "r": node.r, "v_leak": node.v_leak}
    if kind(node) == "CubaLI":
        return [synapse, nir.LI(**membrane)]
    return [synapse, nir.LIF(**membrane, v_threshold=node.v_threshold, v_reset=node.v_reset)]


def kind(node: Any) -> str:
    """Return a node's type in NIR."""
    return type(node).__name__


def _integers(value: Any, axes: int) -> tuple[int, ...]:
    """Return one integer for each axis."""
    return tuple(int(n) for n in np.broadcast_to(np.asarray(value), (axes,)))


def _array(x: Any) -> Array:
    return jnp.asarray(np.asarray(x), float)


def _double(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def _spread(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return one number for each neuron, as NIR wants them."""
    try:
        return np.broadcast_to(_double(x), shape).copy()
    except ValueError as error:
        message = f"parameters {list(np.shape(x))}: they do not go with the layer's input {list(shape)}"
        raise ValueError(message) from error
