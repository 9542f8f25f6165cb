"""Weights of few bits: rounded to a grid in the forward pass, trained as if they were not."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree

from jaxlif.checks import whole
from jaxlif.fitting.bounds import REAL, coordinates


def quantise(
    params: PyTree, bits: int = 8, names: str | tuple[str, ...] = "*.weight", *, axis: int | None = None
) -> Any:
    r"""Round weights to whole multiples of a step, at most :math:`m = 2^{b-1} - 1` of either sign.

    .. math:: q(w) = s \, \mathrm{round}(w / s), \qquad s = \max |w| / m

    The gradient is the straight-through one, of the identity: called on the parameters inside a loss it trains weights
    that stay useful when rounded, and called on the result it gives those to be exported.

    Args:
        params: any pytree of parameters.
        bits: b, from 2 to 16; so a weight has one of :math:`2^b - 1` values.
        names: which, by dotted name or pattern, one or several.
        axis: the axis along which each has a step of its own, such as 1 for each output of a :class:`Dense`,
            :class:`Recurrent` or :class:`Conv`; by default an array has one.

    Raises:
        ValueError: for other numbers of bits, a name that is none of the parameters, an axis that an array lacks.

    Example:
        >>> from jaxlif.networks import DenseParams
        >>> layers = (DenseParams(weight=jnp.array([[0.75, -0.32], [0.1, 0.0]])),)
        >>> quantise(layers, bits=3)[0].weight.tolist()
        [[0.75, -0.25], [0.0, 0.0]]

    Source: Jacob et al. 2018, doi:10.1109/CVPR.2018.00286 (weights between -m and m); Bengio, Léonard & Courville
    2013, doi:10.48550/arXiv.1308.3432 (straight through).
    """
    if not 2 <= whole("bits", bits) <= 16:
        raise ValueError(f"bits = {bits}: bits must be from 2 to 16")
    chosen = coordinates(params, dict.fromkeys((names,) if isinstance(names, str) else names, REAL))
    weights = chosen.to_free(params)
    return chosen.to_params({name: _rounded(name, w, bits, axis) for name, w in weights.items()}, params)


def _rounded(name: str, weight: Array, bits: int, axis: int | None) -> Array:
    if axis is not None and not -weight.ndim <= axis < weight.ndim:
        raise ValueError(f"axis = {axis}: {name} has shape {list(weight.shape)}, and no such axis")
    others = None if axis is None else tuple({*range(weight.ndim)} - {axis % weight.ndim})
    step = jnp.max(jnp.abs(weight), axis=others, keepdims=True) / (2 ** (bits - 1) - 1)
    return _on_grid(weight, jnp.where(step > 0.0, step, 1.0))  # any will do where all weights are 0


@jax.custom_jvp
def _on_grid(weight: Array, step: Array) -> Array:
    return step * jnp.round(weight / step)


@_on_grid.defjvp
def _straight_through(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _on_grid(*primals), tangents[0]
