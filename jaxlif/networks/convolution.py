"""Convolution and pooling: layers without memory, for inputs [C, L] or [C, H, W], channels first as in PyTorch and NIR.

The whole time axis goes through as one batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import floats, number, random_key, require_params, whole
from jaxlif.networks.layers import _require_sizes
from jaxlif.neurons.cell import state_dtype

Padding = str | int | tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ConvParams:
    """Parameters of a convolution.

    Args:
        weight: [num_out, num_in, *kernel], current per unit of input.
        bias: constant current of each output channel, [num_out], or None.

    Example:
        >>> ConvParams(weight=jnp.ones((4, 2, 3, 3))).bias is None
        True
    """

    weight: Array
    bias: Array | None = None

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        axes = max(3, jnp.ndim(self.weight))
        floats("weight", self.weight, (None,) * axes, "[num_out, num_in, *kernel]")
        if self.bias is not None:
            floats("bias", self.bias, self.weight.shape[:1], f"[{len(self.weight)}], one for each output channel")


class _Memoryless(ABC):
    """What layers share whose output depends on the input of the same step alone."""

    def init_state(self, params: Any, x: Array) -> tuple[()]:
        """Return nothing: the layer remembers nothing."""
        return ()

    def step(self, params: Any, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """Take ``x``, one time slice, through the layer."""
        state, y = self.scan(params, state, jnp.asarray(x)[None])
        return state, y[0]

    @abstractmethod
    def scan(self, params: Any, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Take ``inputs`` [T, ...] through the layer."""


@dataclass(frozen=True)
class _Conv(_Memoryless):
    stride: int | tuple[int, ...] = 1
    padding: Padding = "SAME"
    ndim: ClassVar[int]

    def __post_init__(self) -> None:
        _sizes("stride", self.stride, self.ndim)
        _pads(self.padding, self.ndim)

    def check(self, params: ConvParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, ConvParams)

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride along each axis."""
        return _sizes("stride", self.stride, self.ndim)

    def scan(self, params: ConvParams, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Convolve ``inputs`` [T, num_in, ...] to [T, num_out, ...]; spikes of any dtype are cast to the weight's."""
        self._require_image(params.weight, inputs)
        x = jnp.asarray(inputs, params.weight.dtype)
        y = jax.lax.conv_general_dilated(x, params.weight, self.strides, _pads(self.padding, self.ndim))
        if params.bias is None:
            return (), y
        return (), y + params.bias.reshape((1, -1) + (1,) * self.ndim)

    def _require_image(self, weight: Array, inputs: Array) -> None:
        found, sizes = list(jnp.shape(inputs)[1:]), list(weight.shape)
        if len(sizes) != self.ndim + 2:
            axes = "[num_out, num_in" + ", kernel" * self.ndim + "]"
            raise ValueError(f"weight {sizes}: {type(self).__name__} takes a weight {axes}")
        if len(found) != self.ndim + 1 or found[0] != sizes[1]:
            places = ", ".join(("L",) if self.ndim == 1 else ("H", "W"))
            raise ValueError(f"weight {sizes} takes an input [{sizes[1]}, {places}], not {found}")
        if 0 in sizes:
            raise ValueError(f"weight {sizes}: each of its sizes must be 1 or more")
        _require_fit("weight", sizes, sizes[2:], found[1:], self.padding)


@dataclass(frozen=True)
class Conv1D(_Conv):
    r"""A convolution along one axis: :math:`y_{o,i} = b_o + \sum_{c,k} W_{o,c,k}\, x_{c,\,s i + k - p}`.

    As everywhere in deep learning it is a correlation: the kernel is not reversed. It runs over places, not over
    time; for time see :class:`Delayed`.

    Args:
        stride: s, places between outputs.
        padding: "SAME" pads with zeros to ceil(L/s) outputs, the odd one at the end; "VALID" pads nothing; a number
            pads so many zeros on both sides.

    Raises:
        ValueError: for a stride below 1, or another padding.

    Example:
        >>> params = ConvParams(weight=jnp.array([[[1.0, 1.0]]]))
        >>> Conv1D(padding="VALID").step(params, (), jnp.array([[1.0, 2.0, 3.0]]))[1].tolist()
        [[3.0, 5.0]]
    """

    ndim: ClassVar[int] = 1


@dataclass(frozen=True)
class Conv2D(_Conv):
    r"""A convolution over an image: :math:`y_{o,ij} = b_o + \sum_{c,kl} W_{o,c,kl}\, x_{c,\,si+k-p,\,sj+l-p}`.

    As everywhere in deep learning it is a correlation: the kernel is not reversed.

    Args:
        stride: s, pixels between outputs, one number or (rows, columns).
        padding: "SAME" pads with zeros to ceil(H/s) by ceil(W/s) outputs, the odd ones below and at the right;
            "VALID" pads nothing; a number, or one for each axis, pads so many zeros on both sides.

    Raises:
        ValueError: for a stride below 1, or another padding.

    Example:
        >>> import jaxlif as jl
        >>> params = init_conv(jax.random.key(0), 2, 8, (3, 3))
        >>> jl.simulate(Conv2D(stride=2), params, jnp.ones((10, 2, 28, 28)))[1].shape
        (10, 8, 14, 14)

    Source: LeCun, Bottou, Bengio & Haffner 1998, doi:10.1109/5.726791.
    """

    ndim: ClassVar[int] = 2


@dataclass(frozen=True)
class _Pool(_Memoryless):
    window: int | tuple[int, ...] = 2
    stride: int | tuple[int, ...] | None = None
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        # The number of axes shows with the input only.
        for name, value in (("window", self.window), ("stride", self.stride)):
            if value is not None:
                _sizes(name, value, len(value) if isinstance(value, tuple) else 1)
        _pads(self.padding, len(self.padding) if isinstance(self.padding, tuple) else 1)

    def windows(self, places: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the window and the stride along each of ``places`` axes."""
        window = _sizes("window", self.window, places)
        return window, window if self.stride is None else _sizes("stride", self.stride, places)

    def _reduce(self, inputs: Array, start: float, combine: Callable[[Array, Array], Array]) -> Array:
        places = inputs.ndim - 2
        if places < 1:
            raise ValueError(f"{type(self).__name__} takes an input [C, L] or [C, H, W], not {list(inputs.shape[1:])}")
        window, stride = self.windows(places)
        pads = _pads(self.padding, places)
        _require_fit("window", list(window), window, inputs.shape[2:], self.padding)
        pads = pads if isinstance(pads, str) else ((0, 0), (0, 0), *pads)
        # Not a JAX array: only a known start lets JAX see a sum or a maximum, whose gradient it has.
        first = np.asarray(start, inputs.dtype)
        return jax.lax.reduce_window(inputs, first, combine, (1, 1, *window), (1, 1, *stride), pads)


@dataclass(frozen=True)
class SumPool(_Pool):
    """The sum over windows of an input [C, L] or [C, H, W]: the number of spikes in each.

    Args:
        window: places along each axis, one number or one for each.
        stride: places between windows; the window by default, so that none overlap.
        padding: "VALID" leaves out what fills no window, "SAME" fills it up with zeros, a number pads
            so many zeros on both sides.

    Raises:
        ValueError: for a window or stride below 1, or another padding.

    Example:
        >>> SumPool(2).step(None, (), jnp.array([[1.0, 0.0, 1.0, 1.0]]))[1].tolist()
        [[1.0, 2.0]]
    """

    def scan(self, params: Any, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Sum over windows of ``inputs`` [T, C, ...]."""
        x = jnp.asarray(inputs, state_dtype(inputs))
        return (), self._reduce(x, 0.0, jax.lax.add)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The maximum over windows of an input [C, L] or [C, H, W]: whether any place of each spikes.

    Of equal maxima the first one takes the gradient.

    Args:
        window: places along each axis, one number or one for each.
        stride: places between windows; the window by default, so that none overlap.
        padding: "VALID" leaves out what fills no window, "SAME" takes the maximum of what there is,
            and so does a number of places on both sides.

    Raises:
        ValueError: for a window or stride below 1, or another padding.

    Example:
        >>> MaxPool(2).step(None, (), jnp.array([[1.0, 0.0, 3.0, 5.0]]))[1].tolist()
        [[1.0, 5.0]]
    """

    def scan(self, params: Any, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Take the maximum over windows of ``inputs`` [T, C, ...]."""
        x = jnp.asarray(inputs, state_dtype(inputs))
        if not isinstance(self.padding, str):
            window, pads = self.windows(x.ndim - 2)[0], _sizes("padding", self.padding, x.ndim - 2, least=0)
            if any(p >= w for p, w in zip(pads, window, strict=True)):
                raise ValueError(f"padding = {self.padding}: it must be less than the window {window}, or one is empty")
        return (), self._reduce(x, -np.inf, jax.lax.max)


@dataclass(frozen=True)
class Flatten(_Memoryless):
    """All places and channels in a row, the last axis fastest: from an image to a :class:`Dense` layer.

    Example:
        >>> Flatten().step(None, (), jnp.array([[1.0, 2.0], [3.0, 4.0]]))[1].tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    def scan(self, params: Any, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Reshape ``inputs`` [T, ...] to [T, N]."""
        return (), jnp.reshape(inputs, (jnp.shape(inputs)[0], -1))


def init_conv(
    key: Array,
    num_in: int,
    num_out: int,
    kernel: tuple[int, ...],
    *,
    gain: float = 1.0,
    bias: bool = True,
) -> ConvParams:
    r"""Draw a convolution, :math:`W \sim N(0, g^2 / (n_{in} \prod_d k_d))`, with bias 0.

    As with :func:`init_dense`, independent inputs of mean square q give a current of variance :math:`g^2 q`, away
    from padded borders.

    Args:
        key: random key.
        num_in: channels of the input.
        num_out: channels of the output.
        kernel: its size along each axis, (k,) for :class:`Conv1D`, (rows, columns) for :class:`Conv2D`.
        gain: :math:`g`, in units of the rheobase.
        bias: whether there is one.

    Returns:
        Weight [num_out, num_in, *kernel] and bias [num_out] in JAX's default precision.

    Raises:
        ValueError: for a size below 1, or a gain that is not finite.

    Example:
        >>> params = init_conv(jax.random.key(0), 10, 100, (5, 5), gain=2.0)
        >>> params.weight.shape, round(float(params.weight.std() * 250**0.5), 1)
        ((100, 10, 5, 5), 2.0)
    """
    if not isinstance(kernel, tuple | list) or not kernel:
        raise ValueError(f"kernel = {kernel!r}: kernel must be a tuple of sizes, such as (3, 3)")
    _require_sizes(num_in=num_in, num_out=num_out, **{f"kernel_{i}": k for i, k in enumerate(kernel)})
    fan_in = num_in
    for size in kernel:
        fan_in *= size
    weight = number("gain", gain) / fan_in**0.5 * jax.random.normal(random_key(key), (num_out, num_in, *kernel))
    return ConvParams(weight=weight, bias=jnp.zeros((num_out,), weight.dtype) if bias else None)


def _sizes(name: str, value: int | tuple[int, ...], ndim: int, least: int = 1) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,) * ndim
    try:
        found = tuple(whole(name, n, least) for n in sizes)
    except ValueError:
        found = ()
    if len(found) != ndim:
        axes = f"or one for each of {ndim} axes"
        raise ValueError(f"{name} = {value}: {name} must be an integer of {least} or more, {axes}")
    return found


def _require_fit(name: str, value: list[int], sizes: Any, places: Any, padding: Padding) -> None:
    """Refuse a kernel or a window that has no place in the padded input: nothing would come out."""
    pads = _pads(padding, len(sizes))
    room = places if pads == "SAME" else [n + (0 if pads == "VALID" else 2 * pads[i][0]) for i, n in enumerate(places)]
    if pads != "SAME" and any(k > n for k, n in zip(sizes, room, strict=True)):
        raise ValueError(f"{name} {value}: with padding = {padding!r} it must fit into the input {list(places)}")


def _pads(padding: Padding, ndim: int) -> Any:
    """Return the padding as JAX takes it: a word, or the zeros before and after each axis."""
    if not isinstance(padding, str):
        return tuple((n, n) for n in _sizes("padding", padding, ndim, least=0))
    if padding not in ("SAME", "VALID"):
        raise ValueError(f'padding = {padding!r}: padding must be "SAME", "VALID" or a number of zeros')
    return padding
