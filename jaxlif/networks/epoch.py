"""What a training computes: steps over the batches of an epoch, the same on one device, on many, and for many seeds."""

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

from jaxlif.checks import random_key
from jaxlif.compiled import compiled
from jaxlif.fitting.bounds import Coordinates
from jaxlif.fitting.fit import update
from jaxlif.networks.delays import DropoutParams

_Tree = TypeVar("_Tree")

# Streams of the key: below 2^31 each epoch has its own, for its order.
NOISE, VALIDATION, HOLD_OUT = np.uint32(2**31), np.uint32(2**31 + 1), np.uint32(2**31 + 2)


@dataclass(frozen=True)
class Problem:
    """What a compiled epoch depends on besides shapes: a hashable value."""

    loss: Callable[..., Any]
    metric: Callable[..., Array] | str | None
    coordinates: Coordinates
    optimizer: Any  # Optax's, or a function of a seed's ``hyper`` that returns one
    batch_size: int
    samples: int
    average: float | None
    mesh: Mesh | None
    impl: str  # of the training's key
    several: bool = False  # seeds at once: what is one seed's is [seeds, ...]

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
        return order, self.key(noise, epoch)

    def key(self, noise: Any, epoch: Any) -> Array:
        """Return the key of an epoch's steps."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(noise, impl=self.impl), NOISE), epoch)

    def optimiser(self, hyper: Any) -> optax.GradientTransformation:
        """Return the optimiser, made of a seed's hyper-parameters where it has some."""
        return self.optimizer if hyper is None else self.optimizer(hyper)


class State(NamedTuple):
    """What an epoch hands to the next, on the device."""

    free: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None
    updates: Any


class Seen(NamedTuple):
    """What an epoch's steps saw, each [steps]; of several seeds [seeds, steps]."""

    numbers: dict[str, Array]  # loss, auxiliary numbers and the gradient's norm over all free coordinates
    largest: dict[str, Array]  # by free name: the largest component of its gradient
    good: Array  # the step was not skipped


class Fixed(NamedTuple):
    """What no step changes: the parameters, the data of the training's key and what the optimiser is made of; of
    several seeds each leaf is [seeds, ...].
    """

    params: Any
    noise: Any
    hyper: Any = None


def start(problem: Problem, fixed: Fixed) -> State:
    """Return the state before the first epoch, in the host's memory."""

    def _one(params: Any, hyper: Any) -> State:
        free = problem.coordinates.to_free(params)
        with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
            opt_state = problem.optimiser(hyper).init(free)
        return State(free, opt_state, None if problem.average is None else free, jnp.zeros((), jnp.int32))

    return State(*jax.tree.map(on_host, _over_seeds(problem, _one, fixed.params, fixed.hyper)))


def _over_seeds(problem: Problem, function: Callable[..., _Tree], *arguments: Any) -> _Tree:
    """Call a function of what is one seed's, on what is several's where they are several."""
    return (jax.vmap(function) if problem.several else function)(*arguments)


@compiled(keep=4)
def run_epoch(problem: Problem, fixed: Fixed, data: Any, state: State, epoch: Any) -> tuple[State, Seen]:
    """Scan the batches of an epoch, of arrays on the devices."""

    def _one(fixed: Fixed, state: State) -> tuple[State, Seen]:
        order, key = problem.order(fixed.noise, epoch)
        steps = jnp.arange(len(order), dtype=jnp.int32)
        keys = jax.vmap(partial(jax.random.fold_in, key))(steps)

        def _body(state: State, item: Any) -> tuple[State, Seen]:
            index, step, key = item
            # Each device picks what it has of the batch; the parts then travel to where the batch is split.
            batch = problem.laid_out(jax.tree.map(lambda x: x[index], data), *problem.axes)
            return _step(problem, fixed, batch, (epoch, step), key, state)

        return jax.lax.scan(_body, state, (order, steps, keys))

    return problem.laid_out(_over_seeds(problem, _one, fixed, state))


@compiled(keep=4)
def run_batch(problem: Problem, fixed: Fixed, batch: Any, state: State, epoch: Any, step: Any) -> tuple[State, Seen]:
    """Take one step of an epoch, on a batch that all seeds share."""

    def _one(fixed: Fixed, state: State) -> tuple[State, Seen]:
        key = jax.random.fold_in(problem.key(fixed.noise, epoch), step)
        return _step(problem, fixed, batch, (epoch, step), key, state)

    return problem.laid_out(_over_seeds(problem, _one, fixed, state))


def _step(
    problem: Problem, fixed: Fixed, batch: Any, at: tuple[Any, Any], key: Any, state: State
) -> tuple[State, Seen]:
    of_free = partial(objective, problem, at_step(fixed.params, *at), batch, key)
    (value, aux), grad = jax.value_and_grad(of_free, has_aux=True)(state.free)
    resting = _with_plateaus(state.opt_state, state.opt_state, _rest)
    free, opt_state = update(problem.optimiser(fixed.hyper), state.free, resting, lambda z: of_free(z)[0], value, grad)
    opt_state, updates = _with_plateaus(opt_state, state.opt_state), state.updates + 1
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


# --- plateaus: optax.contrib.reduce_on_plateau, wherever it stands in the optimiser ---


def plateaus(opt_state: Any) -> list[Any]:
    """Return the states of plateaus in an optimiser's."""
    return [node for node in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(node)]


@compiled(keep=4)
def look_for_plateau(problem: Problem, fixed: Fixed, state: State, value: Any) -> State:
    """Show the plateaus of an optimiser what an epoch led to, and leave all else as it is."""

    def _one(fixed: Fixed, state: State, value: Any) -> State:
        still, optimizer = jax.tree.map(jnp.zeros_like, state.free), problem.optimiser(fixed.hyper)
        after = update(optimizer, state.free, state.opt_state, lambda free: value, value, still)[1]
        return state._replace(opt_state=_with_plateaus(state.opt_state, after))

    return problem.laid_out(_over_seeds(problem, _one, fixed, state, value))


def _is_plateau(node: Any) -> bool:
    return isinstance(node, optax.contrib.ReduceLROnPlateauState)


def _rest(plateau: Any) -> Any:
    """Return a plateau's state in which it scales and never looks: a step's loss is not what it waits for."""
    return plateau._replace(count=jnp.full_like(plateau.count, -(2**30)))


def _with_plateaus(opt_state: Any, source: Any, change: Callable[[Any], Any] = lambda node: node) -> Any:
    """Return an optimiser's state with the plateaus of another."""

    def _picked(own: Any, other: Any) -> Any:
        return change(other) if _is_plateau(other) else own

    return jax.tree.map(_picked, opt_state, source, is_leaf=_is_plateau)


@compiled(keep=4)
def evaluate(problem: Problem, fixed: Fixed, free: Any, batch: Any, number: Any) -> dict[str, Array]:
    """Return loss and metric of a batch of held-out samples, by its number."""

    def _one(fixed: Fixed, free: Any) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(fixed.noise, impl=problem.impl), VALIDATION)
        params = problem.coordinates.to_params(free, without_dropout(fixed.params))
        value, aux = with_aux(problem.loss(params, batch, jax.random.fold_in(key, number)))
        if problem.metric is None:
            return {"validation_loss": value}
        metric = aux[problem.metric] if isinstance(problem.metric, str) else problem.metric(params, batch)
        return {"validation_loss": value, "validation_metric": jnp.asarray(metric, float)}

    return problem.laid_out(_over_seeds(problem, _one, fixed, free))


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


def typed_key(key: Array, shape: tuple[int, ...] = (), what: str = "one key is needed") -> Array:
    """Return one typed key, or an array of them, also of old-style ones."""
    key = key if is_key(random_key(key)) else jax.random.wrap_key_data(jnp.asarray(key))
    if key.shape != shape:
        raise ValueError(f"key has shape {key.shape}: {what}")
    return key


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
