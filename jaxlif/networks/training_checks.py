"""What :func:`jaxlif.networks.train` refuses, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.training_epoch import Problem, is_key, with_aux

_RESERVED = ("loss", "skipped", "gradient_norm", "validation_loss", "validation_metric")


def typed_key(key: Array) -> Array:
    """Return one typed key, also of an old-style one."""
    key = key if is_key(key) else jax.random.wrap_key_data(key)
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}: one key is needed")
    return key


def require_options(epochs: int, batch_size: int, every: int, patience: int | None, average: float | None) -> None:
    """Refuse numbers that mean nothing."""
    for name, value in {"epochs": epochs, "batch_size": batch_size, "every": every, "patience": patience}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} = {value}: {name} must be 1 or more")
    if average is not None and not 0.0 <= average < 1.0:
        raise ValueError(f"average = {average:g}: the decay of the mean must be 0 or more and below 1")


def require_judge(validation: Any, metric: Any, patience: int | None) -> None:
    """Refuse what needs held-out samples where there are none."""
    given = {"metric": metric, "patience": patience}
    if validation is None and any(x is not None for x in given.values()):
        name = next(name for name, x in given.items() if x is not None)
        raise ValueError(f"{name} is given without validation: {name} needs held-out samples")


def require_batches(data: Any, batch_size: int, mesh: Any) -> None:
    """Refuse batches that the samples do not fill, or that do not divide over the devices."""
    samples = require_samples(data, "data")
    if samples < batch_size:
        raise ValueError(f"batch_size = {batch_size}: data has {samples} samples, not enough for one batch")
    if mesh is not None and len(mesh.axis_names) != 1:
        raise ValueError(f"mesh has axes {mesh.axis_names}: it must have one, that of the batch")
    if mesh is not None and batch_size % mesh.size:
        raise ValueError(f"batch_size = {batch_size}: it must be a multiple of the mesh's {mesh.size} devices")


def require_samples(data: Any, name: str) -> int:
    """Return the number of samples; refuse what is no array of numbers, arrays that differ in it, and nan."""
    leaves = {f"{name}.{path}".rstrip("."): x for path, x in named_leaves(data).items()}
    for path, x in leaves.items():
        kind = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
        if not (is_key(x) or jnp.issubdtype(kind, jnp.number) or kind == np.dtype(bool)):
            raise ValueError(f"{path} is {kind}: {name} must be arrays of numbers")
    shapes = [np.shape(x) for x in leaves.values()]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{name} has shapes {shapes}: all must be arrays [samples, ...] with as many samples")
    for path, x in leaves.items():
        # A sample that is nan makes every step that sees it be skipped, and no validation that sees it the best.
        if jnp.issubdtype(x.dtype, jnp.inexact) and bool(jnp.isnan(x).any()):
            first = tuple(int(i) for i in np.argwhere(np.isnan(np.asarray(x)))[0])
            where = ", ".join(map(str, first))
            raise ValueError(f"{path}[{where}] = nan: sample {first[0]} must be numbers; leave it out or fill it in")
    return shapes[0][0]


def record_names(problem: Problem, params: Any, data: Any, validation: Any, key: Array) -> tuple[str, ...]:
    """Return the names of the history, from the shapes that the loss returns."""
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((problem.batch_size, *x.shape[1:]), x.dtype), data)
    value, aux = with_aux(jax.eval_shape(problem.loss, params, batch, key))
    for name, x in {"loss": value, **{f"auxiliary {name!r}": x for name, x in aux.items()}}.items():
        if jnp.shape(x) != ():
            raise ValueError(f"the loss returned {name} of shape {jnp.shape(x)}: it must be a scalar")
    clash = [name for name in aux if name in _RESERVED]
    if clash:
        raise ValueError(f"the loss returned an auxiliary {clash[0]!r}: that name is taken, choose another")
    if isinstance(problem.metric, str) and problem.metric not in aux:
        known = ", ".join(aux) or "none"
        raise ValueError(f"metric = {problem.metric!r}: it must be an auxiliary number of the loss, which has {known}")
    names = ("loss", *aux, "gradient_norm", "skipped")
    if validation is None:
        return names
    same: bool = jax.tree.structure(validation) == jax.tree.structure(data)  # type: ignore[operator]
    if not same:
        raise ValueError("validation must be a pytree like data: their structures differ")
    require_samples(validation, "validation")
    return (*names, "validation_loss") + (("validation_metric",) if problem.metric is not None else ())
