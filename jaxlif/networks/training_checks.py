"""What :func:`jaxlif.networks.train` refuses, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxlif.checks import arrays_of_numbers, function, number, optimiser, random_key, scalar, whole
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.training_epoch import Problem, is_key, with_aux

_REAL = (np.floating, np.integer, np.bool_)
_RESERVED = ("loss", "skipped", "gradient_norm", "validation_loss", "validation_metric")


def typed_key(key: Array) -> Array:
    """Return one typed key, also of an old-style one."""
    key = key if is_key(random_key(key)) else jax.random.wrap_key_data(jnp.asarray(key))
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}: one key is needed")
    return key


def require_numbers(epochs: int, batch_size: int, every: int, patience: int | None, average: float | None) -> None:
    """Refuse numbers that mean nothing."""
    for name, value in {"epochs": epochs, "batch_size": batch_size, "every": every}.items():
        whole(name, value, 1)
    if patience is not None:
        whole("patience", patience, 1)
    if average is not None and not 0.0 <= number("average", average) < 1.0:
        raise ValueError(f"average = {average:g}: the decay of the mean must be 0 or more and below 1")


def require_functions(loss: Any, optimizer: Any, metric: Any, record: Any, mesh: Any) -> None:
    """Refuse what is not what the training will call, or split its work over."""
    function("loss", loss), optimiser(optimizer)
    if metric is not None and not isinstance(metric, str):
        function("metric", metric)
    if record is not None:
        function("record", record)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ValueError(f"mesh is {type(mesh).__name__}: mesh must be a jax.sharding.Mesh")


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
    arrays_of_numbers(name, data)
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
    aux = _returned(jax.eval_shape(problem.loss, params, batch, key))
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
    # The held-out samples may be longer, say, but what cannot be judged is said now and not after an epoch.
    held_out = jax.tree.map(lambda x: jax.ShapeDtypeStruct((problem.batch_size, *x.shape[1:]), x.dtype), validation)
    _returned(jax.eval_shape(problem.loss, params, held_out, key))
    if callable(problem.metric):
        scalar("the metric", jax.eval_shape(problem.metric, params, held_out), *_REAL)
    return (*names, "validation_loss") + (("validation_metric",) if problem.metric is not None else ())


def _returned(output: Any) -> dict[str, Any]:
    """Return the auxiliary numbers among what a loss returns, refusing what is no scalar."""
    if isinstance(output, tuple) and not (len(output) == 2 and isinstance(output[1], dict)):
        raise ValueError("the loss returned a tuple: it must be a scalar, or (scalar, dict of scalars)")
    value, aux = with_aux(output)
    scalar("the loss", value, np.floating)
    for name, x in aux.items():
        scalar(f"the loss, as its auxiliary {name!r},", x, *_REAL)
    return aux
