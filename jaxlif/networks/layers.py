"""Layers of a network: cells like any other, for one sample; ``jax.vmap`` makes batches.

Networks use the neuron in normalised units (rest 0, threshold 1, resistance 1): weights are then currents in
units of the rheobase, and times stay in ms.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, PyTree

from jaxlif.checks import floats, number, numbers, random_key, require_params, whole
from jaxlif.neurons.cell import check_cell, prepared, require_array_input, state_dtype
from jaxlif.neurons.lif import LIFParams
from jaxlif.synapses import Drive, Synaptic, VoltageJump


class NetworkOutput(NamedTuple):
    """The outputs of all layers, in order, so that hidden spikes can be seen and regularised."""

    layers: tuple[Any, ...]

    @property
    def output(self) -> Any:
        """The last layer's output."""
        return self.layers[-1]


def signal(output: Any) -> Any:
    """Return what a layer passes on: its spikes where it has any, else its voltage, else itself; of a network the last.

    Example:
        >>> from jaxlif.neurons.leaky import LeakyOutput
        >>> float(signal(LeakyOutput(v=jnp.asarray(0.5))))
        0.5
    """
    if isinstance(output, NetworkOutput):
        return signal(output.output)
    return getattr(output, "spikes", getattr(output, "v", output))


class Stateless(ABC):
    """What layers share that remember nothing: a function of one time slice is the whole layer."""

    @abstractmethod
    def apply(self, params: Any, x: Array) -> Any:
        """Return the output under the input ``x`` of the same step."""

    def init_state(self, params: Any, x: Array) -> tuple[()]:
        """Return nothing: the layer remembers nothing."""
        return ()

    def step(self, params: Any, state: tuple[()], x: Array) -> tuple[tuple[()], Any]:
        """Take ``x``, one time slice, through the layer."""
        return (), self.apply(params, x)

    def scan(self, params: Any, state: tuple[()], inputs: Array, *, unroll: int = 1) -> tuple[tuple[()], Any]:
        """Take ``inputs`` [T, ...] through the layer, all steps at once."""
        return (), jax.vmap(partial(self.apply, params))(inputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DenseParams:
    """The weight of a :class:`Dense` layer or, with a kernel, of a :class:`Conv`, and a constant current or None."""

    weight: Float[Array | np.ndarray, "num_in num_out *kernel"]
    bias: Float[Array | np.ndarray, " num_out"] | None = None

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        axes = max(2, len(getattr(self.weight, "shape", ())))
        floats("weight", self.weight, (None,) * axes, "[num_in, num_out] or [num_in, num_out, *kernel]")
        if self.bias is not None:
            num_out = self.weight.shape[1]
            floats("bias", self.bias, (num_out,), f"[{num_out}], one for each output")


@dataclass(frozen=True)
class Dense(Stateless):
    r"""An all-to-all projection without memory: :math:`y = x W + b`, over the whole time axis as one matmul.

    A simulation in chunks equals the whole to rounding, not bitwise: a matmul may sum in another order.

    Example:
        >>> params = DenseParams(weight=jnp.array([[1.0], [2.0]]), bias=jnp.array([0.5]))
        >>> Dense().step(params, (), jnp.array([1.0, 1.0]))[1].tolist()
        [3.5]
    """

    def check(self, params: DenseParams) -> None:
        """Raise ValueError for parameters of another kind, or of a convolution."""
        require_params(self, params, DenseParams)
        floats("weight", params.weight, (None, None), "[num_in, num_out]")

    def apply(self, params: DenseParams, x: Array) -> Array:
        """Project ``x`` [num_in] to [num_out]; spikes of any dtype are cast to the weight's."""
        require_input(params.weight, x)
        y = jnp.asarray(x, params.weight.dtype) @ params.weight
        return y if params.bias is None else y + params.bias


def require_input(weight: Array | np.ndarray, x: Array) -> None:
    """Refuse an input of another size than a weight takes."""
    if jnp.shape(x) != weight.shape[:1]:
        raise ValueError(f"weight {list(weight.shape)} takes an input [{weight.shape[0]}], not {list(jnp.shape(x))}")


@dataclass(frozen=True)
class Arriving:
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron with synapses of one kind, and not of another below them; put a
            constant current into its ``v_rest``. To a :class:`jaxlif.Conductance` negative weights are refused.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Example:
        >>> import jaxlif as jl
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> cell = Arriving(jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent()))
        >>> jl.simulate(cell, params, jnp.ones((20, 3)))[1].spikes.shape
        (20, 3)
    """

    neuron: Synaptic
    kinds: int = 1

    def __post_init__(self) -> None:
        whole("kinds", self.kinds, 1)
        if not isinstance(self.neuron, Synaptic):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: Arriving needs a Synaptic neuron")
        require_array_input(self, self.neuron.neuron)

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Array) -> None:
        """Raise ValueError where a concrete arrival breaks a rule of the synapse."""
        self.neuron.synapse.check_arrivals(inputs)

    def prepare(self, params: PyTree) -> PyTree:
        """Let the neuron compute once what depends on its parameters alone."""
        return prepared(self.neuron, params)

    def init_state(self, params: PyTree, x: Array) -> PyTree:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: PyTree, state: PyTree, x: Array) -> tuple[PyTree, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))

    def _drive(self, x: Array) -> Drive:
        x = jnp.asarray(x, state_dtype(x))
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))


def init_dense(
    key: Key[Array, ""],
    num_in: int,
    num_out: int,
    *,
    kernel: tuple[int, ...] = (),
    gain: float = 1.0,
    bias: bool = True,
) -> DenseParams:
    r"""Draw a projection, :math:`W \sim N(0, g^2 / (n_{in} \prod_d k_d))`, with bias 0, in JAX's default precision.

    Independent inputs of mean square q give a current of variance :math:`g^2 q`: with q = 1 and g = 1 one
    standard deviation is the rheobase of a normalised neuron. Rare spikes need a larger gain.

    The gain :math:`g` is in units of the rheobase. With sizes k of a kernel, inputs and outputs are the channels of a
    :class:`Conv`.

    Example:
        >>> params = init_dense(jax.random.key(0), 1000, 10, gain=2.0)
        >>> params.weight.shape, round(float(params.weight.std() * 1000**0.5), 1)
        ((1000, 10), 2.0)
    """
    if not isinstance(kernel, tuple | list):
        raise ValueError(f"kernel = {kernel!r}: kernel must be a tuple of sizes, such as (3, 3)")
    shape = whole("num_in", num_in, 1), whole("num_out", num_out, 1), *(whole("kernel", k, 1) for k in kernel)
    scale = number("gain", gain) / (num_in * math.prod(kernel)) ** 0.5
    weight = scale * jax.random.normal(random_key(key), shape)
    return DenseParams(weight=weight, bias=jnp.zeros((num_out,), weight.dtype) if bias else None)


def init_neurons(num_neurons: int, *, tau_m: Float[ArrayLike, "#N"] | float = 20.0, t_ref: float = 0.0) -> LIFParams:
    """Return N normalised neurons: rest 0, threshold 1, reset 0, resistance 1; times in ms.

    The leaf ``tau_m`` is [N] whether one or N are given, so that each neuron can learn its own.

    Example:
        >>> params = init_neurons(3, tau_m=10.0)
        >>> params.tau_m.tolist(), params.v_th
        ([10.0, 10.0, 10.0], 1.0)
    """
    whole("num_neurons", num_neurons, 1)
    if jnp.shape(tau_m) not in ((), (1,), (num_neurons,)):
        raise ValueError(f"tau_m has shape {jnp.shape(tau_m)}: tau_m must be a number or one for each of {num_neurons}")
    tau_m = jnp.broadcast_to(jnp.asarray(numbers("tau_m", tau_m, "ms"), float), (num_neurons,))
    params = LIFParams(tau_m=tau_m, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=t_ref)
    params.check()
    return params
