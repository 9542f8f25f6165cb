"""Convolution and pooling without memory, for inputs [C, L] or [C, H, W], channels first as in PyTorch and NIR."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import require_params, whole
from jaxlif.networks.layers import DenseParams, Stateless
from jaxlif.neurons.cell import state_dtype

Sizes = int | tuple[int, ...]
Padding = str | int | tuple[int, ...]


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
