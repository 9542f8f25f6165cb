"""One matmul for all steps of all samples."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def project(x: Array, weight: Array) -> Array:
    """Multiply ``x`` [T, num_in] by ``weight`` [num_in, num_out]; the samples of a batch become further rows.

    Had they an axis of their own, the matmul of the weight's gradient would first transpose what comes back.
    """
    y: Array = _PROJECT.bind(x, weight)
    return y


def _multiplied(x: Array, weight: Array) -> Array:
    return x @ weight


def _batch(arrays: Any, dims: Any) -> tuple[Array, int]:
    (x, weight), (d, own) = arrays, dims
    if own is not None:
        return jax.vmap(jnp.matmul, (d, own))(x, weight), 0
    x = jnp.moveaxis(x, d, 1)
    return project(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], -1), 1


_PROJECT: Any = Primitive("project")
_PROJECT.def_impl(_multiplied)
_PROJECT.def_abstract_eval(lambda x, weight: x.update(shape=(x.shape[0], weight.shape[1])))
mlir.register_lowering(_PROJECT, mlir.lower_fun(_multiplied, multiple_results=False))
batching.primitive_batchers[_PROJECT] = _batch
ad.defbilinear(_PROJECT, lambda ct, x, weight: project(ct, weight.T), lambda ct, x, weight: x.T @ ct)
