"""Train a network epoch by epoch: shuffled batches, validation, checkpoints that survive a kill, many devices.

Everything random derives from one key and the number of the epoch. A run that was killed therefore continues from its
checkpoint to the same numbers, bit by bit, as one that was not.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from jaxlif.fitting.bounds import Bounds, Coordinates, coordinates, named_leaves

# Streams of the key: below 2^31 each epoch has its own, for its order.
_NOISE, _VALIDATION, _HOLD_OUT = 2**31, 2**31 + 1, 2**31 + 2

# After so many skipped steps in a row no batch is to blame.
_ABSORBING = 10

_RESERVED = ("loss", "skipped", "validation_loss", "validation_metric")


class TrainingWarning(UserWarning):
    """A training that failed, or a checkpoint that could not be read."""


@dataclass(frozen=True)
class Training:
    """The result of :func:`train`.

    Args:
        params: the parameters after the best epoch by validation; the last ones without validation.
        last_params: the parameters after the last epoch.
        history: by name an array [epochs done]: ``loss`` and the auxiliary numbers, means over the steps that were
            not skipped; ``skipped`` steps; ``validation_loss`` and ``validation_metric`` after the epoch.
        best_epoch: the epoch, counted from 0, that ``params`` come from; -1 before the first.
        message: one line on how the training ended.
        completed: False where it failed or was interrupted.
    """

    params: Any
    last_params: Any
    history: dict[str, np.ndarray]
    best_epoch: int
    message: str
    completed: bool


def train(
    loss: Callable[..., Any],
    params: Any,
    bounds: Bounds,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    key: Array,
    validation: Any = None,
    metric: Callable[[Any, Any], Array] | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 1,
    progress: bool = False,
    mesh: Mesh | None = None,
    patience: int | None = None,
    average: float | None = None,
) -> Training:
    r"""Minimise ``loss`` over shuffled batches, in coordinates without bounds, one compiled scan per epoch.

    Epoch e takes the samples in the order ``permutation(fold_in(key, e), samples)``; what is left over after the last
    whole batch is dropped. A step whose loss, gradient or update is not finite is skipped and counted; after ten in a
    row the training stops with a warning that names the parameter.

    With ``average`` = d, validation and the result use the bias-free exponential mean of the free coordinates z,
    :math:`\bar z_n = \frac{1 - d}{1 - d^n} \sum_{k=1}^{n} d^{\,n-k} z_k`, instead of the last ones.

    Args:
        loss: ``loss(params, batch, key)``, a scalar, or a scalar and a dict of scalars to record. ``batch`` is
            ``data`` with ``batch_size`` samples; the key is new in each step and the same in each validation.
        params: the start, a pytree; its leaves have dotted names such as ``1.neuron.tau_m``.
        bounds: the free names or patterns, each with (low, high) in its unit, as for :func:`jaxlif.fit`.
        data: a pytree of arrays [samples, ...]; they stay on the device.
        optimizer: any Optax optimiser.
        epochs: passes over the data, those of a continued checkpoint included.
        batch_size: samples in a batch, B.
        key: random key, of everything random in the training; it is consumed.
        validation: held-out arrays like ``data``, or the fraction of ``data`` that :func:`hold_out` cuts off with this
            key. The epoch with the best metric, or without a metric the smallest loss, is kept; of equals the first.
        metric: ``metric(params, batch)``, higher is better; averaged over the held-out samples in batches.
        checkpoint: a folder. The state is saved there as a whole or not at all, the last two are kept, and the same
            call continues from the last. ``epochs``, ``every`` and ``patience`` may change in between.
        every: epochs between checkpoints; the last epoch is always saved.
        progress: show a progress bar.
        mesh: devices with one axis, over which each batch is split; parameters and data are on all of them.
        patience: stop after this many epochs without a better validation.
        average: d, from 0 to below 1.

    Returns:
        The :class:`Training`. Ctrl-C ends it after the last whole epoch.

    Raises:
        ValueError: for data, sizes or options that do not fit, bounds that do not fit the parameters, or a checkpoint
            of another problem or that cannot be read.
        ImportError: for ``checkpoint`` without orbax-checkpoint.

    Example:
        >>> x = jnp.linspace(-1.0, 1.0, 64)
        >>> result = train(
        ...     lambda p, batch, key: jnp.mean((p["w"] * batch["x"] - batch["y"]) ** 2), {"w": jnp.asarray(0.0)},
        ...     {"w": (-5.0, 5.0)}, {"x": x, "y": 3.0 * x}, optimizer=optax.adam(0.1), epochs=20, batch_size=8,
        ...     key=jax.random.key(0), validation=0.25,
        ... )
        >>> round(float(result.params["w"]), 1), result.history["validation_loss"].shape
        (3.0, (20,))

    Source: Polyak & Juditsky 1992, doi:10.1137/0330046 (averaging); Kingma & Ba 2015, arXiv:1412.6980 (its bias).
    """
    key = _typed(key)
    _require_options(epochs, batch_size, every, patience, average)
    data, validation = _split(data, validation, key)
    _require_judge(validation, metric, patience)
    _require_batches(data, batch_size, mesh)
    mesh = mesh and Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))
    impl = str(jax.random.key_impl(key))
    problem = _Problem(loss, metric, coordinates(params, bounds), optimizer, batch_size, average, mesh, impl)
    names = _record_names(problem, params, data, validation, key)
    fingerprint = _fingerprint(problem, params, data, validation, key, names)
    with _store(checkpoint, fingerprint) as store:
        point = store.load(partial(_point, problem, params, names, validation is not None))
        point = point._replace(state=problem.place(point.state))
        run = _Run(problem, problem.place(params), problem.place(data), problem.place(validation), key)
        point, message, completed = _loop(run, point, store, epochs, every, patience, progress)
    return _result(problem, params, point, message, completed)


def hold_out(data: Any, fraction: float, key: Array) -> tuple[Any, Any]:
    """Cut a random part off the samples, the same for the same key.

    Args:
        data: a pytree of arrays [samples, ...].
        fraction: of the samples to cut off, between 0 and 1, rounded to the nearest number of samples.
        key: random key; it is consumed.

    Returns:
        The rest and the part, each in the samples' order.

    Raises:
        ValueError: for arrays of different lengths, or a fraction that leaves no sample on either side.

    Example:
        >>> rest, part = hold_out(jnp.arange(10), 0.2, jax.random.key(0))
        >>> rest.shape, part.shape
        ((8,), (2,))
    """
    samples = _num_samples(data, "data")
    size = round(fraction * samples) if 0.0 < fraction < 1.0 else 0
    if not 0 < size < samples:
        raise ValueError(
            f"validation = {fraction:g} of {samples} samples: both parts must have at least one, so it must lie "
            "between 0 and 1"
        )
    order = np.asarray(jax.random.permutation(key, samples))
    part, rest = np.sort(order[:size]), np.sort(order[size:])
    return jax.tree.map(lambda x: x[rest], data), jax.tree.map(lambda x: x[part], data)


@dataclass(frozen=True)
class _Problem:
    """What a compiled epoch depends on besides shapes: a hashable value."""

    loss: Callable[..., Any]
    metric: Callable[..., Array] | None
    coordinates: Coordinates
    optimizer: optax.GradientTransformation
    batch_size: int
    average: float | None
    mesh: Mesh | None
    impl: str

    def place(self, tree):
        """Put the arrays of a pytree on the devices, whole on each; numbers stay numbers."""
        if self.mesh is None:
            return jax.tree.map(lambda x: x if isinstance(x, float | int) else jnp.asarray(x), tree)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda x: x if isinstance(x, float | int) else jax.device_put(_host(x), everywhere), tree)

    def spread(self, batch, axis: int = 0):
        """Split an axis of each array over the devices."""
        if self.mesh is None:
            return batch
        spec = PartitionSpec(*(None,) * axis, *self.mesh.axis_names)
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, spec))

    def gather(self, tree):
        """Have each array whole on every device."""
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec()))

    def judged(self, state):
        """Return the free coordinates that are evaluated and returned."""
        return state.free if self.average is None else state.average


class _Failure(NamedTuple):
    """Skipped steps in a row, and what the first of them saw."""

    row: Array
    epoch: Array
    step: Array
    loss: Array
    bad: dict[str, Array]  # by free name: its gradient was not finite


class _State(NamedTuple):
    """What an epoch hands to the next, on the device."""

    free: dict[str, Array]
    opt_state: Any
    average: dict[str, Array] | None
    updates: Array
    failure: _Failure


class _Point(NamedTuple):
    """A training between two epochs: what a checkpoint holds."""

    state: _State
    best: dict[str, Array] | None  # None without validation
    history: dict[str, np.ndarray]

    @property
    def epoch(self) -> int:
        """The epochs done."""
        return len(self.history["loss"])


class _Run(NamedTuple):
    """What the loop reads, the arrays on the device."""

    problem: _Problem
    params: Any
    data: Any
    validation: Any
    key: Array


def _loop(run, point, store, epochs, every, patience, progress):
    """Train until the epochs are done or something ends it; return the point, how it ended and whether as planned."""
    if point.epoch > epochs:
        raise ValueError(f"epochs = {epochs}: checkpoint {store.path} has {point.epoch} epochs already")
    saved = point.epoch
    with tqdm(total=epochs, initial=point.epoch, disable=not progress, unit="epoch") as bar:
        try:
            while point.epoch < epochs and not _ended(point, patience):
                point = _advance(run, point)
                if point.epoch % every == 0:
                    store.save(point)
                    saved = point.epoch
                bar.set_postfix({name: f"{x[-1]:.4g}" for name, x in point.history.items()}, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            return point, f"interrupted after {point.epoch} epochs", False
    if saved < point.epoch:
        store.save(point)
    return point, _ended(point, patience) or f"{point.epoch} epochs", not _failed(point)


def _advance(run: _Run, point: _Point) -> _Point:
    """Train one epoch and judge it."""
    order = _order(run.key, point.epoch, run.data, run.problem.batch_size)
    noise = _data_of(jax.random.fold_in(jax.random.fold_in(run.key, _NOISE), point.epoch))
    state, seen = _epoch(run.problem, run.params, run.data, point.state, order, np.int32(point.epoch), noise)
    record = _means(jax.device_get(seen))
    if run.validation is not None:
        noise = _data_of(jax.random.fold_in(run.key, _VALIDATION))
        judged = _evaluate(run.problem, run.params, run.problem.judged(state), run.validation, noise)
        record |= {name: float(x) for name, x in jax.device_get(judged).items()}
    history = {name: np.append(x, np.asarray(record[name], x.dtype)) for name, x in point.history.items()}
    best = point.best
    if best is not None and _best_epoch(history) == point.epoch:
        best = jax.device_get(run.problem.judged(state))
    return _Point(state, best, history)


def _order(key, epoch, data, batch_size):
    """Return the samples of each batch of an epoch, [steps, B]."""
    samples = _num_samples(data, "data")
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), samples), np.int32)
    return order[: samples // batch_size * batch_size].reshape(-1, batch_size)


@partial(jax.jit, static_argnums=0)
def _epoch(problem, params, data, state, order, epoch, noise):
    """Scan the batches of an epoch; return the state, and value, auxiliary numbers and success of each step."""
    key = jax.random.wrap_key_data(noise, impl=problem.impl)
    steps = jnp.arange(len(order), dtype=jnp.int32)
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(steps)
    body = partial(_step, problem, params, data, epoch)
    return problem.gather(jax.lax.scan(body, state, (order, steps, keys)))


def _step(problem, params, data, epoch, state, item):
    index, step, key = item
    batch = problem.spread(jax.tree.map(lambda x: x[problem.spread(index)], data))

    def objective(free):
        return _with_aux(problem.loss(problem.coordinates.to_params(free, params), batch, key))

    (value, aux), grad = jax.value_and_grad(objective, has_aux=True)(state.free)
    free, opt_state = _update(problem, state, lambda free: objective(free)[0], value, grad)
    bad = {name: ~jnp.isfinite(g).all() for name, g in grad.items()}
    sound = jnp.isfinite(value) & ~_any(bad) & _sound((state.free, state.opt_state), (free, opt_state))
    good = sound & (state.failure.row < _ABSORBING)
    updates = state.updates + 1
    moved = _State(free, opt_state, _averaged(problem, state, free, updates), updates, state.failure)
    kept = jax.tree.map(partial(jnp.where, good), moved, state)
    here = _Failure(state.failure.row, epoch, step, value.astype(state.failure.loss.dtype), bad)
    return kept._replace(failure=_counted(state.failure, here, good)), (value, aux, good)


def _update(problem, state, value_fn, value, grad):
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        optimizer = optax.with_extra_args_support(problem.optimizer)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, opt_state = optimizer.update(grad, state.opt_state, state.free, **extra)
        return optax.apply_updates(state.free, updates), opt_state


def _averaged(problem, state, free, updates):
    """Move the mean towards the new coordinates; its weights sum to one from the first update on."""
    if problem.average is None:
        return None
    weight = (1.0 - problem.average) / (1.0 - problem.average ** updates.astype(float))
    return jax.tree.map(lambda a, z: a + (z - a) * weight.astype(z.dtype), state.average, free)


def _counted(failure: _Failure, here: _Failure, good) -> _Failure:
    """Count skipped steps in a row, and keep what the first of them saw."""
    first = ~good & (failure.row == 0)
    seen = jax.tree.map(partial(jnp.where, first), here, failure)
    # Once absorbed always absorbed: later good batches change nothing.
    row = jnp.where(good, 0, jnp.minimum(failure.row + 1, _ABSORBING))
    return seen._replace(row=row)


def _sound(before, after):
    """Say whether every number that was finite still is; some optimisers start from infinity."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    fine = [(jnp.isfinite(b) | ~jnp.isfinite(a)).all() for a, b in pairs if jnp.issubdtype(b.dtype, jnp.floating)]
    return jnp.stack(fine).all()


def _any(flags):
    return jnp.stack(list(flags.values())).any()


def _with_aux(output):
    return output if isinstance(output, tuple) else (output, {})


def _means(seen):
    """Average value and auxiliary numbers over the steps that were not skipped; nan where all were."""
    value, aux, good = seen
    means = {name: float(np.mean(x[good], dtype=float)) if good.any() else np.nan for name, x in aux.items()}
    loss = float(np.mean(value[good], dtype=float)) if good.any() else np.nan
    return {"loss": loss, "skipped": int(np.sum(~good)), **means}


@partial(jax.jit, static_argnums=0)
def _evaluate(problem, params, free, validation, noise):
    """Return loss and metric, means over all held-out samples, from whole batches and what is left over."""
    key = jax.random.wrap_key_data(noise, impl=problem.impl)
    fitted = problem.coordinates.to_params(free, params)
    samples, size = _num_samples(validation, "validation"), problem.batch_size
    count = samples // size
    parts = []
    if count:
        whole = jax.tree.map(lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), validation)
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))
        each = jax.lax.map(lambda item: _scores(problem, fitted, problem.spread(item[0]), item[1]), (whole, keys))
        parts.append(jax.tree.map(lambda x: x.mean() * (count * size / samples), each))
    if samples % size:
        rest = jax.tree.map(lambda x: x[count * size :], validation)
        scores = _scores(problem, fitted, rest, jax.random.fold_in(key, count))
        parts.append(jax.tree.map(lambda x: x * (samples % size / samples), scores))
    return problem.gather(jax.tree.map(lambda *x: sum(x), *parts))


def _scores(problem, params, batch, key):
    scores = {"validation_loss": _with_aux(problem.loss(params, batch, key))[0]}
    if problem.metric is not None:
        scores["validation_metric"] = jnp.asarray(problem.metric(params, batch), float)
    return scores


def _best_epoch(history: dict[str, np.ndarray]) -> int:
    """Return the first of the best epochs by validation; the last without one, -1 before the first."""
    scores = history.get("validation_metric", -history.get("validation_loss", np.zeros(0)))
    if not np.isfinite(scores).any():
        return -1 if scores.size else len(history["loss"]) - 1
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _ended(point: _Point, patience: int | None) -> str:
    """Say why the training must end here, if it must."""
    if _failed(point):
        return f"stopped in {_culprit(point.state.failure)}"
    if patience is not None and point.epoch - 1 - _best_epoch(point.history) >= patience:
        return f"stopped after {point.epoch} epochs, the last {patience} without a better validation"
    return ""


def _failed(point: _Point) -> bool:
    return int(point.state.failure.row) >= _ABSORBING


def _culprit(failure: _Failure) -> str:
    bad = [name for name, flag in failure.bad.items() if flag]
    more = f" (first of {len(bad)} parameters)" if len(bad) > 1 else ""
    what = f"the gradient of {bad[0]}{more} is" if bad else "the optimiser's update is"
    if not bad and not np.isfinite(failure.loss):
        what = "the loss is"
    return (
        f"epoch {int(failure.epoch)}, step {int(failure.step)}: from there {_ABSORBING} steps in a row were skipped, "
        f"at the first {what} not finite, loss = {float(failure.loss):g}; the last good parameters are kept; try a "
        "lower learning rate, optax.clip_by_global_norm before the optimiser, or neurons with detach_reset=True"
    )


def _result(problem, params, point, message, completed):
    if _failed(point):
        warnings.warn(f"the training {message}", TrainingWarning, stacklevel=3)
    best_epoch = _best_epoch(point.history)
    last = jax.device_get(problem.judged(point.state))
    best = last if point.best is None or best_epoch < 0 else point.best
    return Training(
        params=_rebuilt(problem, best, params),
        last_params=_rebuilt(problem, last, params),
        history=point.history,
        best_epoch=best_epoch,
        message=message,
        completed=completed,
    )


def _rebuilt(problem, free, params):
    return problem.coordinates.to_params(jax.tree.map(jnp.asarray, free), params)


def _point(problem: _Problem, params: Any, names: tuple[str, ...], validated: bool, epochs: int = 0) -> _Point:
    """Return the start on the host, with room for some epochs of history: also what a checkpoint is read into."""
    free = problem.coordinates.to_free(params)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = problem.optimizer.init(free)
    zero: Any = np.int32(0)
    nothing: Any = np.float32(0.0)
    no: Any = np.bool_(False)
    failure = _Failure(zero, zero, zero, nothing, dict.fromkeys(free, no))
    average = None if problem.average is None else free
    state = jax.tree.map(_host, _State(free, opt_state, average, zero, failure))
    history = {name: np.zeros(epochs, int if name == "skipped" else float) for name in names}
    return _Point(state, state.free if validated else None, history)


def _host(x):
    """Return an array in the host's memory, which carries no weak type; keys stay where they are."""
    return x if _is_key(x) else np.asarray(x)


def _is_key(x) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data_of(key):
    return np.asarray(jax.random.key_data(key))


def _typed(key: Array) -> Array:
    key = key if _is_key(key) else jax.random.wrap_key_data(key)
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}: one key is needed")
    return key


def _split(data, validation, key):
    """Return the training data and the held-out data, if any."""
    if not isinstance(validation, float | int):
        return data, validation
    return hold_out(data, validation, jax.random.fold_in(key, _HOLD_OUT))


def _num_samples(data: Any, name: str) -> int:
    shapes = [jnp.shape(x) for x in jax.tree.leaves(data)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{name} has shapes {shapes}: all must be arrays [samples, ...] with as many samples")
    return shapes[0][0]


def _require_options(epochs, batch_size, every, patience, average):
    for name, value in {"epochs": epochs, "batch_size": batch_size, "every": every, "patience": patience}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} = {value}: {name} must be 1 or more")
    if average is not None and not 0.0 <= average < 1.0:
        raise ValueError(f"average = {average:g}: the decay of the mean must be 0 or more and below 1")


def _require_judge(validation, metric, patience):
    given = {"metric": metric, "patience": patience}
    if validation is None and any(x is not None for x in given.values()):
        name = next(name for name, x in given.items() if x is not None)
        raise ValueError(f"{name} is given without validation: {name} needs held-out samples")


def _require_batches(data, batch_size, mesh):
    samples = _num_samples(data, "data")
    if samples < batch_size:
        raise ValueError(f"batch_size = {batch_size}: data has {samples} samples, not enough for one batch")
    if mesh is not None and len(mesh.axis_names) != 1:
        raise ValueError(f"mesh has axes {mesh.axis_names}: it must have one, that of the batch")
    if mesh is not None and batch_size % mesh.size:
        raise ValueError(f"batch_size = {batch_size}: it must be a multiple of the mesh's {mesh.size} devices")


def _record_names(problem, params, data, validation, key) -> tuple[str, ...]:
    """Return the names of the history, from the shapes that the loss returns."""
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((problem.batch_size, *x.shape[1:]), x.dtype), data)
    value, aux = _with_aux(jax.eval_shape(problem.loss, params, batch, key))
    for name, x in {"loss": value, **{f"auxiliary {name!r}": x for name, x in aux.items()}}.items():
        if jnp.shape(x) != ():
            raise ValueError(f"the loss returned {name} of shape {jnp.shape(x)}: it must be a scalar")
    clash = [name for name in aux if name in _RESERVED]
    if clash:
        raise ValueError(f"the loss returned an auxiliary {clash[0]!r}: that name is taken, choose another")
    names = ("loss", "skipped", *aux)
    if validation is None:
        return names
    same: bool = jax.tree.structure(validation) == jax.tree.structure(data)  # type: ignore[operator]
    if not same:
        raise ValueError("validation must be a pytree like data: their structures differ")
    _num_samples(validation, "validation")
    return (*names, "validation_loss") + (("validation_metric",) if problem.metric is not None else ())


def _fingerprint(problem, params, data, validation, key, names) -> dict[str, str]:
    """Describe the problem in words that a checkpoint of another one does not match."""
    free = problem.coordinates.to_free(params)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = jax.eval_shape(problem.optimizer.init, free)
    values = (np.asarray(x) for x in jax.tree.leaves(params))
    return {
        "parameters": _shapes(params),
        "bounds": ", ".join(f"{name} ({x.low:g}, {x.high:g})" for name, x in problem.coordinates.free),
        "starting values": _digest(values),
        "optimiser state": _shapes(opt_state),
        "data": _shapes(data),
        "validation": _shapes(validation),
        "batch_size": str(problem.batch_size),
        "key": f"{problem.impl} {_data_of(key).tolist()}",
        "average": str(problem.average),
        "history": ", ".join(names),
    }


def _shapes(tree) -> str:
    leaves = named_leaves(tree).items()
    return ", ".join(f"{name} {jnp.result_type(x)}{list(jnp.shape(x))}".strip() for name, x in leaves) or "empty"


def _digest(arrays) -> str:
    digest = hashlib.sha256()
    for x in arrays:
        digest.update(f"{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


class _NoStore:
    """Where no checkpoint is asked for: nothing is saved, and every training starts anew."""

    path = "None"

    def save(self, point: _Point) -> None:
        """Do nothing."""

    def load(self, start: Callable[..., _Point]) -> _Point:
        """Return the start."""
        return start()


class _Store:
    """Checkpoints in a folder, through Orbax, which renames a folder into place once it is written."""

    def __init__(self, path: Path, manager: Any, args: Any, fingerprint: dict[str, str]) -> None:
        self.path, self.manager, self.args, self.fingerprint = path, manager, args, fingerprint

    def save(self, point: _Point) -> None:
        """Save a point under the number of epochs done."""
        leaves = _packed(point)
        about = {"problem": self.fingerprint, "sha256": _digest(leaves.values())}
        items = self.args.Composite(point=self.args.StandardSave(leaves), about=self.args.JsonSave(about))
        self.manager.save(point.epoch, args=items, force=True)

    def load(self, start: Callable[..., _Point]) -> _Point:
        """Return the last point that can be read, or the start where there is none."""
        reasons = {}
        for epoch in sorted(self.manager.all_steps(), reverse=True):
            try:
                point = self._read(epoch, start(epoch))
            except _Unreadable as error:
                reasons[epoch] = str(error)
                continue
            self._set_aside(reasons)
            return point
        if reasons:
            raise ValueError("; ".join(reasons.values()) + f": nothing to continue from, remove {self.path}")
        return start()

    def _read(self, epoch: int, template: _Point) -> _Point:
        about = self._restore(epoch, about=self.args.JsonRestore())["about"]
        where = self.path / str(epoch)
        if not isinstance(about, dict) or not {"problem", "sha256"} <= set(about):
            raise _Unreadable(f"checkpoint {where} does not say what it is of")
        self._require_same(where, about["problem"])
        leaves = self._restore(epoch, point=self.args.StandardRestore())["point"]
        leaves = {name: np.asarray(leaves[name]) for name in sorted(leaves)}
        if _digest(leaves.values()) != about["sha256"]:
            raise _Unreadable(f"checkpoint {where} is corrupt (its checksum differs)")
        return _unpacked(leaves, template)

    def _restore(self, epoch: int, **items: Any) -> Any:
        try:
            return self.manager.restore(epoch, args=self.args.Composite(**items))
        except Exception as error:  # of any type: a damaged file can fail anywhere in the reader
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise _Unreadable(f"checkpoint {self.path / str(epoch)} cannot be read ({reason})") from error

    def _require_same(self, where: Path, saved: dict[str, str]) -> None:
        for name, here in self.fingerprint.items():
            if saved.get(name) != here:
                there, here = _difference(str(saved.get(name)), here)
                raise ValueError(
                    f"checkpoint {where} is of another problem: its {name} is {there}, here it is {here}; "
                    "name another folder"
                )

    def _set_aside(self, reasons: dict[int, str]) -> None:
        """Rename what cannot be read, so that its number is free, and say so."""
        for epoch, reason in reasons.items():
            if jax.process_index() == 0:
                (self.path / str(epoch)).replace(self.path / f"unreadable-{epoch}-{os.getpid()}")
            warnings.warn(f"{reason}; continuing from the one before", TrainingWarning, stacklevel=5)
        if reasons:
            self.manager.reload()


class _Unreadable(Exception):
    """A checkpoint that cannot be read."""


@contextmanager
def _store(path: str | os.PathLike | None, fingerprint: dict[str, str]) -> Iterator[_NoStore | _Store]:
    if path is None:
        yield _NoStore()
        return
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError('checkpoint needs orbax-checkpoint: pip install "jaxlif[snn]"') from error
    folder = Path(path).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder, options=options) as manager:
        yield _Store(folder, manager, ocp.args, fingerprint)


def _packed(point: _Point) -> dict[str, np.ndarray]:
    """Return the leaves of a point, numbered; keys as their data, arrays without numbers left out."""
    leaves = (jax.random.key_data(x) if _is_key(x) else x for x in jax.tree.leaves(point))
    arrays = {f"{i:06d}": np.asarray(jax.device_get(x)) for i, x in enumerate(leaves)}
    return {name: x for name, x in arrays.items() if x.size}


def _unpacked(leaves: dict[str, np.ndarray], template: _Point) -> _Point:
    """Return the template with its leaves replaced by the saved ones."""
    old, structure = jax.tree.flatten(template)
    new = [_like(leaves.get(f"{i:06d}"), x) for i, x in enumerate(old)]
    return jax.tree.unflatten(structure, new)


def _like(saved, x):
    """Return a saved array as what the template has in its place."""
    if saved is None:
        return x
    return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(x)) if _is_key(x) else saved


def _difference(saved: str, here: str) -> tuple[str, str]:
    """Return the first parts of two lists in which they differ."""
    pairs = zip(saved.split(", "), here.split(", "), strict=False)
    return next(((a, b) for a, b in pairs if a != b), (saved or "empty", here or "empty"))
