"""The compiled part of a training: one scan over the batches of an epoch, the same on one device and on many."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlif.compiled import compiled
from jaxlif.fitting.bounds import Coordinates
from jaxlif.networks.regularisation import DropoutParams

# Streams of the key: below 2^31 each epoch has its own, for its order.
NOISE, VALIDATION, HOLD_OUT = np.uint32(2**31), np.uint32(2**31 + 1), np.uint32(2**31 + 2)

#: After so many skipped steps in a row no batch is to blame.
ABSORBING = 10


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
    impl: str

    def place(self, tree, *axes):
        """Put the arrays of a pytree on the devices, whole on each or split along axes; numbers stay numbers."""
        if self.mesh is None:
            return jax.tree.map(lambda x: x if isinstance(x, float | int) else jnp.asarray(x), tree)
        where = NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: x if isinstance(x, float | int) else jax.device_put(on_host(x), where), tree)

    def place_samples(self, data):
        """Split arrays [samples, ...] over the devices, the last sample repeated until each has as many."""
        if self.mesh is None:
            return self.place(data)
        places = -(-self.samples // self.mesh.size) * self.mesh.size
        index = np.minimum(np.arange(places), self.samples - 1)
        return self.place(jax.tree.map(lambda x: on_host(x)[index], data), *self.mesh.axis_names)

    def place_batches(self, data):
        """Return whole batches [count, B, ...], each split over the devices, and what is left over; None for none."""
        axes = () if self.mesh is None else (None, *self.mesh.axis_names)
        data = jax.tree.map(on_host, data)
        count, left = divmod(num_samples(data), self.batch_size)
        used = count * self.batch_size
        whole = jax.tree.map(lambda x: x[:used].reshape(count, self.batch_size, *x.shape[1:]), data) if count else None
        rest = jax.tree.map(lambda x: x[used:], data) if left else None
        return self.place(whole, *axes), self.place(rest)

    def spread(self, batch):
        """Split the first axis of each array over the devices."""
        if self.mesh is None:
            return batch
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, PartitionSpec(*self.mesh.axis_names)))

    def gather(self, tree):
        """Have each array whole on every device."""
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec()))

    def judged(self, state):
        """Return the free coordinates that are evaluated and returned."""
        return state.free if self.average is None else state.average

    def rebuilt(self, free, params):
        """Return parameters with the free ones at coordinates that may be in the host's memory."""
        return self.coordinates.to_params(jax.tree.map(jnp.asarray, free), params)

    def order(self, noise, epoch):
        """Return the samples of each batch of an epoch, [steps, B], and the epoch's key."""
        key = jax.random.wrap_key_data(noise, impl=self.impl)
        order = jax.random.permutation(jax.random.fold_in(key, epoch), self.samples).astype(jnp.int32)
        order = order[: self.samples // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
        return order, jax.random.fold_in(jax.random.fold_in(key, NOISE), epoch)


class Failure(NamedTuple):
    """Skipped steps in a row, and what the first of them saw."""

    row: Any
    epoch: Any
    step: Any
    loss: Any
    bad: dict[str, Any]  # by free name: its gradient was not finite


class State(NamedTuple):
    """What an epoch hands to the next, on the device."""

    free: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None
    updates: Any
    failure: Failure


class Steps(NamedTuple):
    """What an epoch's steps saw, each [steps]."""

    loss: Array
    aux: dict[str, Array]
    norm: Array  # of the gradient, over all free coordinates
    idle: dict[str, Array]  # by free name: its gradient was zero in every component
    good: Array  # the step was not skipped


def start(problem: Problem, params: Any) -> State:
    """Return the state before the first epoch, in the host's memory."""
    free = problem.coordinates.to_free(params)
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        opt_state = problem.optimizer.init(free)
    zero = np.int32(0)
    failure = Failure(zero, zero, zero, np.float32(0.0), dict.fromkeys(free, np.bool_(False)))
    average = None if problem.average is None else free
    return jax.tree.map(on_host, State(free, opt_state, average, zero, failure))


@compiled(keep=4)
def run_epoch(problem: Problem, params: Any, data: Any, state: State, epoch: Any, noise: Any) -> tuple[State, Steps]:
    """Scan the batches of an epoch; ``noise`` is the data of the training's key."""
    order, key = problem.order(noise, epoch)
    steps = jnp.arange(len(order), dtype=jnp.int32)
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(steps)
    body = partial(_step, problem, params, data, epoch)
    return problem.gather(jax.lax.scan(body, state, (order, steps, keys)))


def _step(problem, params, data, epoch, state, item):
    index, step, key = item
    # Each device picks what it has of the batch; the parts then travel to where the batch is split.
    batch = problem.spread(jax.tree.map(lambda x: x[index], data))

    params = at_step(params, epoch, step)
    (value, aux), grad = value_and_gradient.__wrapped__(problem, state.free, params, batch, key)

    def _value(free):
        return _objective(problem, free, params, batch, key)[0]

    free, opt_state = update(problem, state.free, state.opt_state, _value, value, grad)
    bad = {name: ~jnp.isfinite(g).all() for name, g in grad.items()}
    sound = jnp.isfinite(value) & ~_any(bad) & _sound((state.free, state.opt_state), (free, opt_state))
    good = sound & (state.failure.row < ABSORBING)
    updates = state.updates + 1
    moved = State(free, opt_state, _averaged(problem, state, free, updates), updates, state.failure)
    kept = jax.tree.map(partial(jnp.where, good), moved, state)
    here = Failure(state.failure.row, epoch, step, value.astype(state.failure.loss.dtype), bad)
    idle = {name: ~(g != 0.0).any() for name, g in grad.items()}
    seen = Steps(value, aux, _norm(grad, value.dtype), idle, good)
    return kept._replace(failure=_counted(state.failure, here, good)), seen


def _objective(problem, free, params, batch, key):
    return with_aux(problem.loss(problem.coordinates.to_params(free, params), batch, key))


@compiled(keep=4)
def value_and_gradient(problem: Problem, free: Any, params: Any, batch: Any, key: Any) -> Any:
    """Return the loss with its auxiliary numbers, and its gradient by the free coordinates."""
    return jax.value_and_grad(partial(_objective, problem), has_aux=True)(free, params, batch, key)


def update(problem: Problem, free: Any, opt_state: Any, value_fn: Any, value: Any, grad: Any) -> tuple[Any, Any]:
    """Return the free coordinates and the optimiser's state after an update."""
    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.with_extra_args_support(problem.optimizer)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, opt_state = optimizer.update(grad, opt_state, free, **extra)
        return optax.apply_updates(free, updates), opt_state


def _averaged(problem, state, free, updates):
    """Move the mean towards the new coordinates; its weights sum to one from the first update on."""
    if problem.average is None:
        return None
    weight = (1.0 - problem.average) / (1.0 - problem.average ** updates.astype(float))
    return jax.tree.map(lambda a, z: a + (z - a) * weight.astype(z.dtype), state.average, free)


def _counted(failure: Failure, here: Failure, good) -> Failure:
    """Count skipped steps in a row, and keep what the first of them saw."""
    first = ~good & (failure.row == 0)
    seen = jax.tree.map(partial(jnp.where, first), here, failure)
    # Once absorbed always absorbed: later good batches change nothing.
    row = jnp.where(good, 0, jnp.minimum(failure.row + 1, ABSORBING))
    return seen._replace(row=row)


def _sound(before, after):
    """Say whether every number that was finite still is; some optimisers start from infinity."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    fine = [(jnp.isfinite(b) | ~jnp.isfinite(a)).all() for a, b in pairs if jnp.issubdtype(b.dtype, jnp.floating)]
    return jnp.stack(fine).all()


def _any(flags):
    return jnp.stack(list(flags.values())).any()


def _norm(grad, dtype):
    return jnp.sqrt(sum(jnp.sum(g**2).astype(dtype) for g in grad.values()))


def with_aux(output: Any) -> tuple[Any, dict[str, Any]]:
    """Return a loss and its auxiliary numbers, none where it returned a scalar."""
    return output if isinstance(output, tuple) else (output, {})


@compiled(keep=4)
def evaluate(problem: Problem, params: Any, free: Any, validation: Any, noise: Any) -> dict[str, Array]:
    """Return loss and metric, means over all held-out samples, from whole batches and what is left over."""
    key = jax.random.fold_in(jax.random.wrap_key_data(noise, impl=problem.impl), VALIDATION)
    fitted = problem.coordinates.to_params(free, without_dropout(params))
    whole, rest = validation
    count, left = (0 if x is None else num_samples(x) for x in validation)
    samples = count * problem.batch_size + left
    parts = []
    if count:
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))
        each = jax.lax.map(lambda item: _scores(problem, fitted, problem.spread(item[0]), item[1]), (whole, keys))
        parts.append(jax.tree.map(lambda x: x.mean() * (count * problem.batch_size / samples), each))
    if left:
        scores = _scores(problem, fitted, rest, jax.random.fold_in(key, count))
        parts.append(jax.tree.map(lambda x: x * (left / samples), scores))
    return problem.gather(jax.tree.map(lambda *x: sum(x), *parts))


def _scores(problem, params, batch, key):
    value, aux = with_aux(problem.loss(params, batch, key))
    if problem.metric is None:
        return {"validation_loss": value}
    metric = aux[problem.metric] if isinstance(problem.metric, str) else problem.metric(params, batch)
    return {"validation_loss": value, "validation_metric": jnp.asarray(metric, float)}


def at_step(params: Any, epoch: Any, step: Any) -> Any:
    """Return the parameters of a step: the keys among them, typed or old, are others in each."""

    def _fresh(path, x):
        if is_key(x):
            return _folded(x, epoch, step)
        name = jax.tree_util.keystr(path[-1:], simple=True) if path else ""
        if name == "key" and jnp.result_type(x) == jnp.uint32 and jnp.shape(x)[-1:] == _OLD_KEY:
            return jax.random.key_data(_folded(jax.random.wrap_key_data(x), epoch, step))
        return x

    return jax.tree_util.tree_map_with_path(_fresh, params)


_OLD_KEY = (2,)  # of the default generator


def _folded(keys, epoch, step):
    def _one(key):
        return jax.random.fold_in(jax.random.fold_in(key, epoch), step)

    return jax.vmap(_one)(keys.reshape(-1)).reshape(keys.shape) if keys.shape else _one(keys)


def without_dropout(params: Any) -> Any:
    """Return the parameters for an evaluation, in which nothing is dropped."""

    def _quiet(node):
        return DropoutParams() if isinstance(node, DropoutParams) else node

    return jax.tree.map(_quiet, params, is_leaf=lambda node: isinstance(node, DropoutParams))


def num_samples(data: Any) -> int:
    """Return the number of samples of arrays that have been checked."""
    return len(jax.tree.leaves(data)[0])


def on_host(x: Any) -> Any:
    """Return an array in the host's memory, which carries no weak type; keys stay where they are."""
    return x if is_key(x) else np.asarray(x)


def is_key(x: Any) -> bool:
    """Say whether an array holds random keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
