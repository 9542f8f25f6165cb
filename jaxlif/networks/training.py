"""Train a network epoch by epoch: shuffled batches, validation, checkpoints that survive a kill, many devices.

Everything random derives from one key and the number of the epoch. A run that was killed therefore continues from its
checkpoint to the same numbers, bit by bit, as one that was not.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree
from tqdm import tqdm

from jaxlif.checks import check_params, function, number, optimiser, random_key, whole
from jaxlif.fitting.bounds import Bounds, coordinates
from jaxlif.networks.checkpoints import Point, Store, fingerprint, open_store
from jaxlif.networks.epoch import (
    HOLD_OUT,
    Problem,
    Seen,
    at_step,
    batch_mesh,
    evaluate,
    is_key,
    num_samples,
    on_host,
    require_losses,
    require_samples,
    run_epoch,
    start,
    without_dropout,
)

_STUCK = 10  # skipped steps in a row at the end of an epoch, after which no batch is to blame


class TrainingWarning(UserWarning):
    """A training that failed, or learns nothing."""


@dataclass(frozen=True)
class Training:
    """The result of :func:`train`.

    ``history`` holds by name an array [epochs done]: ``loss``, the auxiliary numbers and ``gradient_norm`` (over all
    free coordinates), means over the steps that were not skipped; ``skipped`` steps; ``validation_loss`` and
    ``validation_metric`` after the epoch.
    """

    params: PyTree  # after the best epoch by validation; the last ones without validation
    last_params: PyTree  # after the last epoch
    history: dict[str, np.ndarray]
    best_epoch: int  # counted from 0, that ``params`` come from; -1 before the first
    message: str  # how the training ended, and which of the parameters break a rule of theirs
    completed: bool  # False where it was stopped, interrupted, or no validation was a finite number


def train(
    loss: Callable[..., Any],
    params: PyTree,
    bounds: Bounds,
    data: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    key: Array,
    validation: PyTree | float | None = None,
    metric: Callable[[Any, Any], Array] | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
    mesh: Mesh | None = None,
    average: float | None = None,
) -> Training:
    r"""Minimise ``loss`` over shuffled batches, in coordinates without bounds, one compiled scan per epoch.

    Epoch e takes the samples in the order ``permutation(fold_in(key, e), samples)``; what is left over after the last
    whole batch is dropped. A step whose loss, gradient or update is not finite is skipped and counted; an epoch before
    whose end ten in a row were skipped is the last. Warned of are such an end, a parameter whose gradient is 0 through
    a whole epoch, and parameters that break a rule of theirs at the end. Random keys among the parameters, as
    :class:`DropoutParams` hold them, are others in each step; in validation nothing is dropped.

    Args:
        loss: ``loss(params, batch, key)``, a scalar, or a scalar and a dict of scalars to record. ``batch`` is
            ``data`` with ``batch_size`` samples; the key is new in each step and the same in each validation.
        params, bounds, optimizer: as for :func:`jaxlif.fit`.
        data: a pytree of arrays [samples, ...]; they stay on the device, with a mesh a part of them on each.
        epochs: passes over the data, those of a continued checkpoint included.
        batch_size: samples in a batch, B.
        key: random key, of everything random in the training; it is consumed.
        validation: held-out arrays like ``data``, or the fraction of ``data`` that :func:`hold_out` cuts off with this
            key. The epoch with the best metric, or without a metric the smallest loss, is kept; of equals the first.
        metric: ``metric(params, batch)``, higher is better, averaged over the held-out samples in batches; or the name
            of an auxiliary number of the loss, which then costs no second simulation.
        folder: of checkpoints, one after each epoch, saved as a whole or not at all. The last two are kept, and the
            same call continues from the last. Data, start, loss, network, optimiser and versions must be the same: what
            they compute is compared, not how they are written.
        progress: show a progress bar.
        mesh: devices with one axis, over which the samples and each batch are split; parameters are on all of them.
        average: d, from 0 to below 1, for the bias-free exponential mean of the free coordinates z,
            :math:`\bar z_n = \frac{1 - d}{1 - d^n} \sum_{k=1}^{n} d^{\,n-k} z_k`, in validation and result.

    Returns:
        The :class:`Training`. Ctrl-C ends it after the last whole epoch.

    Raises:
        ValueError: for arguments that do not fit, a sample that is nan, or a checkpoint of another problem or damaged.

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
    key = _typed_key(key)
    # Numbers of Python: arrays are no part of a compiled program's key.
    epochs, batch_size = whole("epochs", epochs, 1), whole("batch_size", batch_size, 1)
    average = None if average is None else float(number("average", average))
    if average is not None and not 0.0 <= average < 1.0:
        raise ValueError(f"average = {average:g}: the decay of the mean must be 0 or more and below 1")
    function("loss", loss), optimiser(optimizer)
    if isinstance(validation, float | int | np.number):
        data, validation = hold_out(data, float(validation), jax.random.fold_in(key, HOLD_OUT))
    samples = require_samples(data, "data")
    if samples < batch_size:
        raise ValueError(f"batch_size = {batch_size}: data has {samples} samples, not enough for one batch")
    if mesh is not None:
        mesh = batch_mesh(mesh, batch_size)
    free, impl = coordinates(params, bounds), str(jax.random.key_impl(key))
    problem = Problem(loss, metric, free, optimizer, batch_size, samples, average, mesh, impl)
    require_losses(problem, params, data, validation, key)
    state = start(problem, params)
    point = Point(state, None if validation is None else state.free, [])
    run = _Run(problem, params, data, validation, np.asarray(jax.random.key_data(key)))
    about = {} if folder is None else fingerprint(problem, params, state, data, validation, key)
    with nullcontext() if folder is None else open_store(folder, about) as store:
        point, early = _loop(run, point, store, epochs, progress)
    return _result(problem, params, point, early)


def hold_out(data: PyTree, fraction: float, key: Array) -> tuple[PyTree, PyTree]:
    """Cut a random fraction off the samples, the same for the same key; return the rest and the part.

    ``data`` are arrays [samples, ...]; both keep the samples' order and have one at least.

    Example:
        >>> rest, part = hold_out(jnp.arange(10), 0.2, jax.random.key(0))
        >>> rest.shape, part.shape
        ((8,), (2,))
    """
    samples, key = require_samples(data, "data"), _typed_key(key)
    size = round(fraction * samples) if 0.0 < number("validation", fraction) < 1.0 else 0
    if not 0 < size < samples:
        rule = "both parts must have at least one, so it must lie between 0 and 1"
        raise ValueError(f"validation = {fraction:g} of {samples} samples: {rule}")
    order = np.asarray(jax.random.permutation(key, samples))
    part, rest = np.sort(order[:size]), np.sort(order[size:])
    return jax.tree.map(lambda x: x[rest], data), jax.tree.map(lambda x: x[part], data)


@dataclass
class _Run:
    """What an epoch reads, in the host's memory and on the devices, and what was said already."""

    problem: Problem
    params: Any
    data: Any
    validation: Any
    noise: np.ndarray  # the data of the training's key
    said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.placed = self.problem.place(self.params), self.problem.place_samples(self.data)
        self.batches = [] if self.validation is None else self.problem.batches(self.validation)
        self.held_out = [self.problem.place_batch(batch) for batch in self.batches]

    def advance(self, point: Point) -> tuple[Point, Seen]:
        """Train one epoch and judge it; return also what its steps saw."""
        problem, epoch = self.problem, np.int32(point.epoch)
        state, seen = run_epoch(problem, *self.placed, point.state, epoch, self.noise)
        seen = jax.device_get(seen)
        self._look_at_steps(point.epoch, seen)
        good = seen.good
        record = {n: float(np.mean(x[good], dtype=float)) if good.any() else np.nan for n, x in seen.numbers.items()}
        record["skipped"] = int(np.sum(~good))
        if self.held_out:
            record |= self._judged(point.epoch, problem.judged(state))
        history, best = [*point.history, record], point.best
        if best is not None and _best_epoch(history) == point.epoch:
            best = jax.device_get(problem.judged(state))
        return Point(state, best, history), seen

    def _look_at_steps(self, epoch: int, seen: Seen) -> None:
        """Look at what was skipped, and what had no gradient at all."""
        if not seen.good.all() and self._first_time("skipped"):
            # Outside of jit the loss's own checks see numbers, such as labels out of range, and raise.
            data, params = jax.tree.map(on_host, (self.data, self.params))
            order, key = self.problem.order(self.noise, epoch)
            step = int(np.argmin(seen.good))
            batch = jax.tree.map(lambda x: jnp.asarray(x[np.asarray(order[step])]), data)
            self.problem.loss(at_step(params, epoch, step), batch, jax.random.fold_in(key, step))
        names = [name for name, x in seen.largest.items() if (x == 0.0).all() and self._first_time(name)]
        if names:
            why = "neurons before it never spike (flight_record shows which), or the loss does not depend on it"
            _warn(f"the gradient of {_listed(names)} was 0 in every step of epoch {epoch}, so it learns nothing: {why}")

    def _judged(self, epoch: int, free: Any) -> dict[str, float]:
        """Return loss and metric, means over all held-out samples; say where they are no numbers."""
        problem, sizes = self.problem, [num_samples(batch) for batch in self.batches]
        judge = partial(evaluate, problem, self.placed[0], free)
        scores = jax.device_get([judge(batch, np.int32(i), self.noise) for i, batch in enumerate(self.held_out)])
        means = {name: float(np.average([x[name] for x in scores], weights=sizes)) for name in scores[0]}
        bad = [name for name, x in means.items() if not np.isfinite(x)]
        if bad and self._first_time("validation"):
            params = problem.rebuilt(jax.device_get(free), without_dropout(self.params))
            for batch in self.batches:  # outside of jit, as above
                problem.loss(params, jax.tree.map(jnp.asarray, batch), problem.order(self.noise, epoch)[1])
            what = f"the {bad[0].replace('_', ' ')} of epoch {epoch} is {means[bad[0]]:g}"
            _warn(f"{what}: such an epoch is never the best")
        return means

    def _first_time(self, what: str) -> bool:
        new = what not in self.said
        self.said.add(what)
        return new


def _warn(message: str) -> None:
    warnings.warn(message, TrainingWarning, stacklevel=6)


def _listed(names: list[str]) -> str:
    return f"{names[0]} (and {len(names) - 1} others)" if len(names) > 1 else names[0]


def _loop(run: _Run, point: Point, store: Store | None, epochs: int, progress: bool) -> tuple[Point, str]:
    """Train until the epochs are done or something ends it; return the point, and what ended it early."""
    point = store.load(point) if store else point
    if store and point.epoch > epochs:
        raise ValueError(f"epochs = {epochs}: checkpoint {store.folder} has {point.epoch} epochs already")
    point, early = point._replace(state=run.problem.place(point.state)), ""
    with tqdm(total=epochs, initial=point.epoch, disable=not progress, unit="epoch") as bar:
        try:
            while point.epoch < epochs and not early:
                point, seen = run.advance(point)
                early = _stuck(point, seen, epochs)
                # A failure is not saved: the last checkpoint is the last good one.
                if store and not early:
                    store.save(point)
                bar.set_postfix({name: f"{x:.4g}" for name, x in point.history[-1].items()}, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            early = f"interrupted after {point.epoch} epochs"
    return point, early


def _stuck(point: Point, seen: Seen, epochs: int) -> str:
    """Say what was not finite where the last steps were all skipped: ten, or those of the last epoch."""
    good, steps = seen.good, len(seen.good)
    lost = len([*takewhile(lambda record: record["skipped"] == steps, reversed(point.history))])
    if good[-_STUCK:].any() or (lost * steps < _STUCK and lost and point.epoch < epochs):
        return ""
    first = steps - int(np.argmax(good[::-1])) if good.any() else 0
    bad = [name for name, x in seen.largest.items() if not np.isfinite(x[first])]
    value = float(seen.numbers["loss"][first])
    what = "the optimiser's update" if np.isfinite(value) else "the loss"
    what = f"the gradient of {_listed(bad)}" if bad else what
    since = f"epoch {point.epoch - max(lost, 1)}, step {first}"
    return (
        f"stopped in epoch {point.epoch - 1}: every step from {since} on was skipped, where {what} is not finite, "
        f"loss = {value:g}; the last good parameters are kept"
    )


# Clipping comes too late for a gradient that has overflowed: inf over inf is nan.
_REMEDY = (
    "try a steeper surrogate, smaller recurrent weights, neurons with detach_reset=True, or a lower learning rate "
    "with optax.clip_by_global_norm from the start"
)


def _result(problem: Problem, params: Any, point: Point, early: str) -> Training:
    best_epoch = _best_epoch(point.history)
    last = jax.device_get(problem.judged(point.state))
    best = last if point.best is None or best_epoch < 0 else point.best
    parts = {"params": problem.rebuilt(best, params), "last_params": problem.rebuilt(last, params)}
    broken = _broken_rule(parts)
    failed = early.startswith("stopped")
    notes = [early or f"{point.epoch} epochs", broken or (_REMEDY if failed else "")]
    message = "; ".join(note for note in notes if note)
    if failed or broken:
        warnings.warn(f"the training {message}" if failed else message, TrainingWarning, stacklevel=3)
    names = point.history[0] if point.history else ()
    history = {name: np.array([record[name] for record in point.history]) for name in names}
    blind = point.best is not None and best_epoch < 0
    return Training(**parts, history=history, best_epoch=best_epoch, message=message, completed=not early and not blind)


def _broken_rule(parts: dict[str, Any]) -> str:
    """Say which of the parameters that are handed out breaks a rule of its own, if one does."""
    for name, params in parts.items():
        try:
            check_params(params)
        except ValueError as error:
            return f"{name} break a rule: {error}; bounds keep a parameter inside it"
    return ""


def _best_epoch(history: list[dict[str, float]]) -> int:
    """Return the first of the best epochs by validation; the last without one, -1 before the first."""
    if not history or "validation_loss" not in history[0]:
        return len(history) - 1
    scores = np.array([record.get("validation_metric", -record["validation_loss"]) for record in history])
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores))) if np.isfinite(scores).any() else -1


def _typed_key(key: Array) -> Array:
    """Return one typed key, also of an old-style one."""
    key = key if is_key(random_key(key)) else jax.random.wrap_key_data(jnp.asarray(key))
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}: one key is needed")
    return key
