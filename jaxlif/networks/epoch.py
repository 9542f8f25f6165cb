"""What a training computes: one compiled scan over the batches of an epoch, the same on one device and on many."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlif.checks import arrays_of_numbers, function, length, require, scalar
from jaxlif.compiled import compiled
from jaxlif.fitting.bounds import Coordinates, named_leaves
from jaxlif.fitting.fit import update
from jaxlif.networks.delays import DropoutParams

_RESERVED = ("loss", "skipped", "gradient_norm", "validation_loss", "validation_metric")
_Tree = TypeVar("_Tree")
_REAL = (np.floating, np.integer, np.bool_)

# Streams of the key: below 2^31 each epoch has its own, for its order.
NOISE, VALIDATION, HOLD_OUT = np.uint32(2**31), np.uint32(2**31 + 1), np.uint32(2**31 + 2)


@dataclass(frozen=True)
class Problem:
    """What a compiled epoch depends on besides shapes: a hashable value."""

    loss: Callable[..., Any]
    metric: Callable[..., Array] | str | None
    coordinates: Coordinates
    optimizer: optax.GradientTransformation
    batch_size: int
    samples: int
    average: float | None
    mesh: Mesh | None
    impl: str  # of the training's key

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh's axis, over which samples are split; none without a mesh."""
        return () if self.mesh is None else self.mesh.axis_names

    def place(self, tree: Any, *axes: str | None) -> Any:
        """Put the arrays of a pytree on the devices, whole on each or split along axes; numbers stay numbers."""
        where = None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: x if isinstance(x, float | int) else jax.device_put(on_host(x), where), tree)

    def laid_out(self, tree: _Tree, *axes: str) -> _Tree:
        """Have each array of a computation whole on every device, or split along axes."""
        if self.mesh is not None:
            tree = jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec(*axes)))
        return tree

    def place_samples(self, data: Any) -> Any:
        """Split arrays [samples, ...] over the devices, the last sample repeated until each has as many."""
        if self.mesh is None:
            return self.place(data)
        index = np.minimum(np.arange(-(-self.samples // self.mesh.size) * self.mesh.size), self.samples - 1)
        return self.place(jax.tree.map(lambda x: on_host(x)[index], data), *self.axes)

    def batches(self, data: Any) -> list[Any]:
        """Cut arrays [samples, ...] into whole batches and what is left over, in the host's memory."""
        data, size = jax.tree.map(on_host, data), self.batch_size
        return [jax.tree.map(lambda x, i=i: x[i : i + size], data) for i in range(0, num_samples(data), size)]

    def batch_shapes(self, data: Any) -> Any:
        """Return placeholders for a batch of arrays [samples, ...]."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype), data)

    def place_batch(self, batch: Any) -> Any:
        """Split a batch over the devices, where it is whole."""
        return self.place(batch, *(self.axes if num_samples(batch) == self.batch_size else ()))

    def judged(self, state: "State") -> dict[str, Array]:
        """Return the free coordinates that are evaluated and returned."""
        return state.free if state.average is None else state.average

    def rebuilt(self, free: dict[str, Any], params: Any) -> Any:
        """Return parameters with the free ones at coordinates that may be in the host's memory."""
        return self.coordinates.to_params(jax.tree.map(jnp.asarray, free), params)

    def order(self, noise: Any, epoch: Any) -> tuple[Array, Array]:
        """Return the samples of each batch of an epoch, [steps, B], and the epoch's key."""
        key = jax.random.wrap_key_data(noise, impl=self.impl)
        order = jax.random.permutation(jax.random.fold_in(key, epoch), self.samples).astype(jnp.int32)
        order = order[: self.samples // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
        return order, jax.random.fold_in(jax.random.fold_in(key, NOISE), epoch)


class State(NamedTuple):
    """What an epoch hands to the next, on the device."""

    free: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None
    updates: Any


class Seen(NamedTuple):
    """What an epoch's steps saw, each [steps]."""

    numbers: dict[str, Array]  # loss, auxiliary numbers and the gradient's norm over all free coordinates
    largest: dict[str, Array]  # by free name: the largest component of its gradient
    good: Array  # the step was not skipped


def start(problem: Problem, params: Any) -> State:
    """Return the state before the first epoch, in the host's memory."""
    free = problem.coordinates.to_free(params)
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        opt_state = problem.optimizer.init(free)
    average = None if problem.average is None else free
    return State(*jax.tree.map(on_host, (free, opt_state, average, np.int32(0))))


@compiled(keep=4)
def run_epoch(problem: Problem, params: Any, data: Any, state: State, epoch: Any, noise: Any) -> tuple[State, Seen]:
    """Scan the batches of an epoch; ``noise`` is the data of the training's key."""
    order, key = problem.order(noise, epoch)
    steps = jnp.arange(len(order), dtype=jnp.int32)
    keys = jax.vmap(partial(jax.random.fold_in, key))(steps)
    body = partial(_step, problem, params, data, epoch)
    return problem.laid_out(jax.lax.scan(body, state, (order, steps, keys)))


def _step(problem: Problem, params: Any, data: Any, epoch: Any, state: State, item: Any) -> tuple[State, Seen]:
    index, step, key = item
    # Each device picks what it has of the batch; the parts then travel to where the batch is split.
    batch = problem.laid_out(jax.tree.map(lambda x: x[index], data), *problem.axes)
    params = at_step(params, epoch, step)
    of_free = partial(objective, problem, params, batch, key)
    (value, aux), grad = jax.value_and_grad(of_free, has_aux=True)(state.free)
    free, opt_state = update(problem.optimizer, state.free, state.opt_state, lambda z: of_free(z)[0], value, grad)
    updates = state.updates + 1
    moved = State(free, opt_state, _averaged(problem, state, free, updates), updates)
    # Not optax.apply_if_finite: it looks at gradients alone, and lets an infinite loss or update pass.
    largest = {name: jnp.max(jnp.abs(g), initial=0.0) for name, g in grad.items()}
    good = jnp.stack([jnp.isfinite(x) for x in (value, *largest.values())]).all() & _sound(state, moved)
    norm = jnp.sqrt(sum(jnp.sum(g**2).astype(value.dtype) for g in grad.values()))
    seen = Seen({"loss": value, **aux, "gradient_norm": norm}, largest, good)
    return jax.tree.map(partial(jnp.where, good), moved, state), seen


def objective(problem: Problem, params: Any, batch: Any, key: Any, free: Any) -> tuple[Any, dict[str, Any]]:
    """Return the loss with its auxiliary numbers, of the free coordinates."""
    return with_aux(problem.loss(problem.coordinates.to_params(free, params), batch, key))


def _averaged(problem: Problem, state: State, free: dict[str, Any], updates: Any) -> Any:
    """Move the mean towards the new coordinates; its weights sum to one from the first update on."""
    if problem.average is None:
        return None
    weight = (1.0 - problem.average) / (1.0 - problem.average ** updates.astype(float))
    return jax.tree.map(lambda a, z: a + (z - a) * weight.astype(z.dtype), state.average, free)


def _sound(before: State, after: State) -> Array:
    """Say whether every number that was finite still is; some optimisers start from infinity."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    fine = [(jnp.isfinite(b) | ~jnp.isfinite(a)).all() for a, b in pairs if jnp.issubdtype(b.dtype, jnp.floating)]
    return jnp.stack(fine).all()


@compiled(keep=4)
def evaluate(problem: Problem, params: Any, free: Any, batch: Any, number: Any, noise: Any) -> dict[str, Array]:
    """Return loss and metric of a batch of held-out samples, by its number."""
    key = jax.random.fold_in(jax.random.wrap_key_data(noise, impl=problem.impl), VALIDATION)
    params = problem.coordinates.to_params(free, without_dropout(params))
    value, aux = with_aux(problem.loss(params, batch, jax.random.fold_in(key, number)))
    if problem.metric is None:
        return problem.laid_out({"validation_loss": value})
    metric = aux[problem.metric] if isinstance(problem.metric, str) else problem.metric(params, batch)
    return problem.laid_out({"validation_loss": value, "validation_metric": jnp.asarray(metric, float)})


def with_aux(output: Any) -> tuple[Any, dict[str, Any]]:
    """Return a loss and its auxiliary numbers, none where it returned a scalar."""
    return output if isinstance(output, tuple) else (output, {})


def at_step(params: Any, epoch: Any, step: Any) -> Any:
    """Return the parameters of a step: the keys among them, typed or old, are others in each."""

    def _folded(key: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, epoch), step)

    def _fresh(path: tuple[Any, ...], x: Any) -> Any:
        named = jax.tree_util.keystr(path[-1:], simple=True) == "key"
        keys = jax.random.wrap_key_data(x) if named and not is_key(x) and jnp.result_type(x) == jnp.uint32 else x
        return jax.vmap(_folded)(keys.reshape(-1)).reshape(keys.shape) if is_key(keys) else x

    return jax.tree_util.tree_map_with_path(_fresh, params)


def without_dropout(params: Any) -> Any:
    """Return the parameters for an evaluation, in which nothing is dropped."""

    def _drops(node: Any) -> bool:
        return isinstance(node, DropoutParams)

    return jax.tree.map(lambda node: DropoutParams() if _drops(node) else node, params, is_leaf=_drops)


def num_samples(data: Any) -> int:
    """Return the number of samples of arrays that have been checked."""
    return len(jax.tree.leaves(data)[0])


def on_host(x: Any) -> Any:
    """Return an array in the host's memory, which carries no weak type; keys stay where they are."""
    return x if is_key(x) else np.asarray(x)


def is_key(x: Any) -> bool:
    """Say whether an array holds random keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# --- what is refused before anything is compiled ---


def one_axis(mesh: Mesh, what: str) -> Mesh:
    """Return a mesh whose one axis, that of ``what``, JAX fills; refuse any other."""
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh is {type(mesh).__name__}: mesh must be a jax.sharding.Mesh")
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh has axes {mesh.axis_names}: it must have one, that of {what}")
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def batch_mesh(mesh: Mesh, batch_size: int) -> Mesh:
    """Return a mesh for a batch; refuse one that does not fit it."""
    mesh = one_axis(mesh, "the batch")
    if batch_size % mesh.size:
        raise ValueError(f"batch_size = {batch_size}: it must be a multiple of the mesh's {mesh.size} devices")
    return mesh


def require_samples(data: Any, name: str) -> int:
    """Return the number of samples; refuse what is no array of numbers, arrays that differ in it, and nan."""
    arrays_of_numbers(name, data)
    leaves = {f"{name}.{path}".rstrip("."): x for path, x in named_leaves(data).items()}
    samples = length(name, data, "samples")
    for path, x in leaves.items():
        # A sample that is nan makes every step that sees it be skipped, and no validation that sees it the best.
        if jnp.issubdtype(x.dtype, jnp.inexact) and bool(jnp.isnan(x).any()):
            require(~np.isnan(x), path, x, "", "samples must be numbers; leave it out or fill it in")
    return samples


def require_losses(problem: Problem, params: Any, data: Any, validation: Any, key: Array) -> None:
    """Refuse what loss and metric return, from its shapes: nothing of it is found out after hours of training."""
    metric = problem.metric
    if validation is None and metric is not None:
        raise ValueError("metric is given without validation: metric needs held-out samples")
    aux = _aux_of(problem, params, data, key)
    clash = [name for name in aux if name in _RESERVED]
    if clash:
        raise ValueError(f"the loss returned an auxiliary {clash[0]!r}: that name is taken, choose another")
    if isinstance(metric, str) and metric not in aux:
        known = ", ".join(aux) or "none"
        raise ValueError(f"metric = {metric!r}: it must be an auxiliary number of the loss, which has {known}")
    if validation is None:
        return
    same: bool = jax.tree.structure(validation) == jax.tree.structure(data)  # type: ignore[operator]  # not typed in JAX
    if not same:
        raise ValueError("validation must be a pytree like data: their structures differ")
    require_samples(validation, "validation")
    _aux_of(problem, params, validation, key)  # the held-out samples may be longer, say
    if metric is not None and not isinstance(metric, str):
        function("metric", metric)
        scalar("the metric", jax.eval_shape(metric, params, problem.batch_shapes(validation)), *_REAL)


def _aux_of(problem: Problem, params: Any, data: Any, key: Array) -> dict[str, Any]:
    """Return the auxiliary numbers of a loss as placeholders, refusing what is no scalar."""
    # The parameters as they are, not their shapes: the loss's own checks see them.
    output = jax.eval_shape(partial(problem.loss, params), problem.batch_shapes(data), key)
    if isinstance(output, tuple) and not (len(output) == 2 and isinstance(output[1], dict)):
        raise ValueError("the loss returned a tuple: it must be a scalar, or (scalar, dict of scalars)")
    value, aux = with_aux(output)
    scalar("the loss", value, np.floating)
    for name, x in aux.items():
        scalar(f"the loss, as its auxiliary {name!r},", x, *_REAL)
    return aux
