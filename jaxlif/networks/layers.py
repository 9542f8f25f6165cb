"""Layers of a network: cells like any other, for one sample; ``jax.vmap`` makes batches.

Networks use the neuron in normalised units (rest 0, threshold 1, resistance 1): weights are then currents in
units of the rheobase, and times stay in ms. Images are [C, L] or [C, H, W], channels first as in PyTorch and NIR.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from jaxlif.checks import floats, number, numbers, positive, random_key, require_params, whole
from jaxlif.networks.projection import project
from jaxlif.neurons.cell import state_dtype
from jaxlif.neurons.lif import LIFParams

Sizes = int | tuple[int, ...]
Padding = str | int | tuple[int, ...]


class NetworkOutput(NamedTuple):
    """The outputs of all layers, in order, so that hidden spikes can be seen and regularised."""

    layers: tuple[Any, ...]

    @property
    def output(self) -> Any:
        """The last layer's output."""
        return self.layers[-1]


def signal(output: Any) -> Any:
    """Return what a layer passes on: its spikes if any, else its voltage, else itself; of a network, of the last."""
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

    def scan(self, params: DenseParams, state: tuple[()], inputs: Array, *, unroll: int = 1) -> tuple[tuple[()], Array]:
        """Project ``inputs`` [T, num_in], all steps at once."""
        require_input(params.weight, inputs[0])
        y = project(jnp.asarray(inputs, params.weight.dtype), jnp.asarray(params.weight))
        return (), y if params.bias is None else y + params.bias[None]


def require_input(weight: Array | np.ndarray, x: Array) -> None:
    """Refuse an input of another size than a weight takes."""
    if jnp.shape(x) != weight.shape[:1]:
        raise ValueError(f"weight {list(weight.shape)} takes an input [{weight.shape[0]}], not {list(jnp.shape(x))}")


@dataclass(frozen=True)
class Conv(Stateless):
    r"""A convolution over a line or an image: :math:`y_{o,i} = b_o + \sum_{c,k} W_{c,o,k}\, x_{c,si+k-p}`.

    As everywhere in deep learning it is a correlation: the kernel is not reversed. It does not run over time; for that
    see :class:`Delayed`. The weight, [num_in, num_out, *kernel], says how many axes there are.

    Args:
        stride: s, places between outputs, one number or one for each axis.
        padding: "SAME" pads with zeros to ceil(L/s) outputs, the odd one at the end; "VALID" pads nothing; a number,
            or one for each axis, pads so many zeros, p, on both sides.

    Example:
        >>> params = DenseParams(weight=jnp.array([[[1.0, 1.0]]]))
        >>> Conv(padding="VALID").step(params, (), jnp.array([[1.0, 2.0, 3.0]]))[1].tolist()
        [[3.0, 5.0]]

    Source: LeCun, Bottou, Bengio & Haffner 1998, doi:10.1109/5.726791.
    """

    stride: Sizes = 1
    padding: Padding = "SAME"

    def __post_init__(self) -> None:
        per_axis("stride", self.stride)
        zeros(self.padding)

    def check(self, params: DenseParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, DenseParams)

    def apply(self, params: DenseParams, x: Array) -> Array:
        """Convolve ``x`` [num_in, ...] to [num_out, ...]; spikes of any dtype are cast to the weight's."""
        sizes, found = list(params.weight.shape), list(jnp.shape(x))
        axes = len(sizes) - 2
        if axes < 1 or 0 in sizes:
            raise ValueError(f"weight {sizes}: Conv takes [num_in, num_out, *kernel], each of its sizes 1 or more")
        if len(found) != axes + 1 or found[0] != sizes[0]:
            places = {1: "L", 2: "H, W"}.get(axes, "*places")
            raise ValueError(f"weight {sizes} takes an input [{sizes[0]}, {places}], not {found}")
        pads = zeros(self.padding, axes)
        _require_room(f"weight {sizes}", sizes[2:], found[1:], pads)
        x, stride = jnp.asarray(x, params.weight.dtype)[None], per_axis("stride", self.stride, axes)
        form = jax.lax.ConvDimensionNumbers(*((*pair, *range(2, axes + 2)) for pair in ((0, 1), (1, 0), (0, 1))))
        y = jax.lax.conv_general_dilated(x, jnp.asarray(params.weight), stride, pads, dimension_numbers=form)[0]
        return y if params.bias is None else y + params.bias.reshape((-1,) + (1,) * axes)


@dataclass(frozen=True)
class SumPool(Stateless):
    """The sum over windows of an input [C, L] or [C, H, W]: the number of spikes in each.

    Window and stride are one number or one for each axis; by default windows do not overlap. "VALID" leaves out what
    fills no window, "SAME" fills it up with zeros, a number, or one for each axis, pads so many on both sides.

    Example:
        >>> SumPool(2).step(None, (), jnp.array([[1.0, 0.0, 1.0, 1.0]]))[1].tolist()
        [[1.0, 2.0]]
    """

    window: Sizes = 2
    stride: Sizes | None = None
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        per_axis("window", self.window)
        if self.stride is not None:
            per_axis("stride", self.stride)
        zeros(self.padding)

    def windows(self, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the window and the stride along each of the axes."""
        window = per_axis("window", self.window, axes)
        return window, window if self.stride is None else per_axis("stride", self.stride, axes)

    def apply(self, params: None, x: Array) -> Array:
        """Add up the windows of ``x`` [C, ...]."""
        x = jnp.asarray(x, state_dtype(x))
        if x.ndim < 2:
            raise ValueError(f"SumPool takes an input [C, L] or [C, H, W], not {list(x.shape)}")
        (window, stride), pads = self.windows(x.ndim - 1), zeros(self.padding, x.ndim - 1)
        _require_room(f"window {list(window)}", window, x.shape[1:], pads)
        pads = pads if isinstance(pads, str) else ((0, 0), *pads)
        # Not a JAX array: only a known start lets JAX see a sum, whose gradient it has.
        first = np.asarray(0.0, x.dtype)
        return jnp.asarray(jax.lax.reduce_window(x, first, jax.lax.add, (1, *window), (1, *stride), pads))


@dataclass(frozen=True)
class Flatten(Stateless):
    """All places and channels in a row, the last axis fastest: from an image to a :class:`Dense` layer.

    Example:
        >>> Flatten().step(None, (), jnp.array([[1.0, 2.0], [3.0, 4.0]]))[1].tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    def apply(self, params: None, x: Array) -> Array:
        """Return ``x`` as [N]."""
        return jnp.ravel(x)


@dataclass(frozen=True)
class Normalise(Stateless):
    r"""Layer normalisation of each step's input by itself: :math:`y = (x - \bar x)/\sqrt{s^2 + \epsilon}`.

    Mean and variance are those over all features of one sample in one step; a step without any spread stays at 0. It
    has no parameters: gain and shift of a current are the neurons' ``r_m`` and ``v_rest``, which may be free.

    Example:
        >>> Normalise(epsilon=1e-12).apply((), jnp.array([1.0, 3.0])).round(6).tolist()
        [-1.0, 1.0]

    Source: Ba, Kiros & Hinton 2016, doi:10.48550/arXiv.1607.06450.
    """

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)

    def check(self, params: Any) -> None:
        """Refuse parameters, which would change nothing."""
        if jax.tree.leaves(params):
            raise ValueError(f"params = {type(params).__name__}: Normalise has none, give () or None")

    def apply(self, params: Any, x: Array) -> Array:
        """Normalise ``x`` over all its features."""
        x = jnp.asarray(x, state_dtype(x))
        if x.size < 2:
            raise ValueError(f"input {list(x.shape)}: the spread over features needs two or more")
        distance = x - jnp.mean(x)
        return distance / jnp.sqrt(jnp.mean(distance**2) + self.epsilon)


@contextmanager
def within(where: str) -> Iterator[None]:
    """Say where an error comes from, such as a layer whose params lack a field."""
    try:
        yield
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where}: {error}") from error


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

    Independent inputs of mean square q give a current of variance :math:`g^2 q`, in units of a normalised neuron's
    rheobase; rare spikes need a larger gain. With a kernel, inputs and outputs are the channels of a :class:`Conv`.

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
    tau_m = per_neuron("tau_m", tau_m, num_neurons)
    params = LIFParams(tau_m=tau_m, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=t_ref)
    params.check()
    return params


def per_neuron(name: str, value: ArrayLike, num_neurons: int) -> Array:
    """Return a number, or one for each neuron, as [N]."""
    whole("num_neurons", num_neurons, 1)
    value = numbers(name, value)
    if jnp.shape(value) not in ((), (1,), (num_neurons,)):
        raise ValueError(
            f"{name} has shape {jnp.shape(value)}: {name} must be a number or one for each of {num_neurons}"
        )
    return jnp.broadcast_to(jnp.asarray(value, float), (num_neurons,))


# --- sizes of kernels and windows ---


def per_axis(name: str, value: Any, axes: int | None = None, least: int = 1) -> tuple[int, ...]:
    """Return a size for each axis, refusing those that are none; without ``axes`` as many as there are."""
    sizes = value if isinstance(value, tuple | list) else (value,) * (axes or 1)
    if axes is not None and len(sizes) != axes:
        raise ValueError(f"{name} = {value}: {name} must be one number, or one for each of {axes} axes")
    return tuple(whole(name, n, least) for n in sizes)


def zeros(padding: Padding, axes: int | None = None) -> Any:
    """Return the padding as JAX takes it: "SAME", or the zeros before and after each axis."""
    if padding == "SAME":
        return padding
    if isinstance(padding, str) and padding != "VALID":
        raise ValueError(f'padding = {padding!r}: padding must be "SAME", "VALID" or a number of zeros')
    return tuple((n, n) for n in per_axis("padding", 0 if padding == "VALID" else padding, axes, least=0))


def _require_room(what: str, sizes: Any, places: Any, pads: Any) -> None:
    """Refuse a kernel or a window that has no place in the padded input: nothing would come out."""
    if pads != "SAME" and any(k > n + 2 * p for k, n, (p, _) in zip(sizes, places, pads, strict=True)):
        padded = [p for p, _ in pads]
        raise ValueError(f"{what}: with padding {padded} it must fit into the input {list(places)}")
