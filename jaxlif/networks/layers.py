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
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from jaxlif.checks import floats, number, numbers, random_key, require_params, whole
from jaxlif.neurons.lif import LIFParams


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
    """Parameters of a projection, of a :class:`Dense` layer or, with a kernel, of a :class:`Conv`.

    Args:
        weight: [num_in, num_out] or [num_in, num_out, *kernel], current per unit of input.
        bias: constant current [num_out], or None.
    """

    weight: Float[Array, "num_in num_out *kernel"]
    bias: Float[Array, " num_out"] | None = None

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

    Args:
        matmul: dtype of the product's factors, such as "bfloat16", which accelerators multiply several times faster;
            sums, outputs and parameters keep the weight's. None for the weight's own.

    Raises:
        ValueError: for another matmul.

    Example:
        >>> params = DenseParams(weight=jnp.array([[1.0], [2.0]]), bias=jnp.array([0.5]))
        >>> Dense().step(params, (), jnp.array([1.0, 1.0]))[1].tolist()
        [3.5]
    """

    matmul: str | None = None

    def __post_init__(self) -> None:
        if self.matmul not in (None, "bfloat16", "float16", "float32"):
            raise ValueError(f"matmul = {self.matmul!r}: matmul must be None or one of bfloat16, float16, float32")

    def check(self, params: DenseParams) -> None:
        """Raise ValueError for parameters of another kind, or of a convolution."""
        require_params(self, params, DenseParams)
        floats("weight", params.weight, (None, None), "[num_in, num_out]")

    def apply(self, params: DenseParams, x: Array) -> Array:
        """Project ``x`` [num_in] to [num_out]; spikes of any dtype are cast to the weight's."""
        require_input(params.weight, x)
        y = product(x, params.weight, self.matmul)
        return y if params.bias is None else y + params.bias


def product(x: Array, weight: Array, matmul: str | None = None) -> Array:
    """Multiply ``x`` [..., K] by ``weight`` [K, N], both rounded to ``matmul``; sum in the weight's dtype."""
    if matmul is None:
        return jnp.asarray(x, weight.dtype) @ weight
    few = jnp.dtype(matmul)
    return jnp.matmul(jnp.asarray(x, few), weight.astype(few), preferred_element_type=weight.dtype)


def require_input(weight: Array, x: Array) -> None:
    """Refuse an input of another size than a weight takes."""
    if jnp.shape(x) != weight.shape[:1]:
        raise ValueError(f"weight {list(weight.shape)} takes an input [{weight.shape[0]}], not {list(jnp.shape(x))}")


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

    Args:
        key: random key.
        num_in: number of inputs, or channels.
        num_out: number of outputs, or channels.
        kernel: k, its size along each axis, for a :class:`Conv`.
        gain: :math:`g`, in units of the rheobase.
        bias: whether there is one.

    Raises:
        ValueError: for a size below 1, or a gain that is not finite.

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
