"""Train a network epoch by epoch: shuffled batches, validation, checkpoints that survive a kill, many devices.

Everything random derives from one key and the number of the epoch. A run that was killed therefore continues from its
checkpoint to the same numbers, bit by bit, as one that was not.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh
from tqdm import tqdm

from jaxlif.checks import number
from jaxlif.fitting.bounds import Bounds, coordinates
from jaxlif.networks.recorder import FlightRecord
from jaxlif.networks.training_checkpoints import Point, TrainingWarning, fingerprint, open_store
from jaxlif.networks.training_checks import (
    record_names,
    require_batches,
    require_functions,
    require_judge,
    require_numbers,
    require_samples,
    typed_key,
)
from jaxlif.networks.training_epoch import (
    ABSORBING,
    HOLD_OUT,
    Failure,
    Problem,
    evaluate,
    num_samples,
    run_epoch,
    start,
)
from jaxlif.networks.training_watch import Watch, broken_rule, last_record


@dataclass(frozen=True)
class Training:
    """The result of :func:`train`.

    Args:
        params: the parameters after the best epoch by validation; the last ones without validation.
        last_params: the parameters after the last epoch.
        history: by name an array [epochs done]: ``loss``, the auxiliary numbers and ``gradient_norm`` (over all free
            coordinates), means over the steps that were not skipped; ``skipped`` steps; ``validation_loss`` and
            ``validation_metric`` after the epoch.
        best_epoch: the epoch, counted from 0, that ``params`` come from; -1 before the first.
        message: one line on how the training ended, and which of the parameters break a rule of theirs.
        completed: False where it failed, was interrupted, or ended with an epoch all of whose steps were skipped.
        record: what ``record`` returned for the last parameters, on the first batch, or on the one that failed; None
            where it raised.
    """

    params: Any
    last_params: Any
    history: dict[str, np.ndarray]
    best_epoch: int
    message: str
    completed: bool
    record: FlightRecord | None = None


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
    metric: Callable[[Any, Any], Array] | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 1,
    progress: bool = False,
    mesh: Mesh | None = None,
    patience: int | None = None,
    average: float | None = None,
    record: Callable[[Any, Any, Array], FlightRecord] | None = None,
) -> Training:
    r"""Minimise ``loss`` over shuffled batches, in coordinates without bounds, one compiled scan per epoch.

    Epoch e takes the samples in the order ``permutation(fold_in(key, e), samples)``; what is left over after the last
    whole batch is dropped. A step whose loss, gradient or update is not finite is skipped and counted. Ten in a row are
    an absorbing failure: skipping leaves the parameters where they are, so the later steps fail too. It stops the
    training with a warning that names the parameter, and with ``record`` the layer, the time step and a remedy. A
    parameter whose gradient is 0 through a whole epoch is warned of by name, and parameters that break a rule of theirs
    at the end, such as a time constant below 0 that no bound kept above.

    Random keys among the parameters, as :class:`DropoutParams` hold them, are folded with epoch and step: each step
    drops others. In validation nothing is dropped.

    With ``average`` = d, validation and the result use the bias-free exponential mean of the free coordinates z,
    :math:`\bar z_n = \frac{1 - d}{1 - d^n} \sum_{k=1}^{n} d^{\,n-k} z_k`, instead of the last ones.

    Args:
        loss: ``loss(params, batch, key)``, a scalar, or a scalar and a dict of scalars to record. ``batch`` is
            ``data`` with ``batch_size`` samples; the key is new in each step and the same in each validation.
        params: the start, a pytree; its leaves have dotted names such as ``1.neuron.tau_m``.
        bounds: the free names or patterns, each with (low, high) in its unit, as for :func:`jaxlif.fit`.
        data: a pytree of arrays [samples, ...]; they stay on the device, with a mesh a part of them on each.
        optimizer: any Optax optimiser.
        epochs: passes over the data, those of a continued checkpoint included.
        batch_size: samples in a batch, B.
        key: random key, of everything random in the training; it is consumed.
        validation: held-out arrays like ``data``, or the fraction of ``data`` that :func:`hold_out` cuts off with this
            key. The epoch with the best metric, or without a metric the smallest loss, is kept; of equals the first.
        metric: ``metric(params, batch)``, higher is better, averaged over the held-out samples in batches; or the name
            of an auxiliary number of the loss, which then costs no second simulation.
        checkpoint: a folder. The state is saved there as a whole or not at all, the last two are kept, and the same
            call continues from the last. ``epochs``, ``every`` and ``patience`` may change in between, and after a
            failure, which is not saved, the optimiser. Data, start, loss and network must be the same: what they
            compute is compared, not how they are written.
        every: epochs between checkpoints; the last epoch is always saved.
        progress: show a progress bar.
        mesh: devices with one axis, over which the samples and each batch are split; parameters are on all of them.
        patience: stop after this many epochs without a better validation.
        average: d, from 0 to below 1.
        record: ``record(params, batch, key)``, a :func:`flight_record` of the network on a batch. Its alarms before the
            first epoch become warnings.

    Returns:
        The :class:`Training`. Ctrl-C ends it after the last whole epoch.

    Raises:
        ValueError: for data, sizes or options that do not fit, a sample that is nan, parameters that break a rule,
            bounds that do not fit them, or a checkpoint of another problem or that cannot be read.
        ImportError: for ``checkpoint`` without orbax-checkpoint.

    Example:
        >>> import jax.numpy as jnp
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
    key = typed_key(key)
    require_numbers(epochs, batch_size, every, patience, average)
    epochs, batch_size, every = int(epochs), int(batch_size), int(every)  # of arrays, which are no part of a key
    require_functions(loss, optimizer, metric, record, mesh)
    data, validation = _split(data, validation, key)
    require_judge(validation, metric, patience)
    require_batches(data, batch_size, mesh)
    mesh = mesh and Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))
    impl = str(jax.random.key_impl(key))
    samples = num_samples(data)
    problem = Problem(loss, metric, coordinates(params, bounds), optimizer, batch_size, samples, average, mesh, impl)
    names = record_names(problem, params, data, validation, key)
    with open_store(checkpoint, fingerprint(problem, params, data, validation, key, names)) as store:
        point = store.load(partial(_point, problem, params, names, validation is not None))
        point = point._replace(state=problem.place(point.state))
        held_out = None if validation is None else problem.place_batches(validation)
        noise = np.asarray(jax.random.key_data(key))
        run = _Run(problem, problem.place(params), problem.place_samples(data), held_out, noise)
        watch = Watch(run, data, record)
        point, message, completed = _loop(run, watch, point, store, epochs, every, patience, progress)
    return _result(problem, params, watch, point, message, completed)


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
        >>> import jax.numpy as jnp
        >>> rest, part = hold_out(jnp.arange(10), 0.2, jax.random.key(0))
        >>> rest.shape, part.shape
        ((8,), (2,))
    """
    samples, key = require_samples(data, "data"), typed_key(key)
    size = round(fraction * samples) if 0.0 < number("validation", fraction) < 1.0 else 0
    if not 0 < size < samples:
        raise ValueError(
            f"validation = {fraction:g} of {samples} samples: both parts must have at least one, so it must lie "
            "between 0 and 1"
        )
    order = np.asarray(jax.random.permutation(key, samples))
    part, rest = np.sort(order[:size]), np.sort(order[size:])
    return jax.tree.map(lambda x: x[rest], data), jax.tree.map(lambda x: x[part], data)


class _Run(NamedTuple):
    """What the loop reads, the arrays on the device."""

    problem: Problem
    params: Any
    data: Any
    validation: Any  # as whole batches, and what is left over
    noise: np.ndarray  # the data of the training's key


def _point(problem: Problem, params: Any, names: tuple[str, ...], validated: bool, epochs: int = 0) -> Point:
    """Return the start on the host, with room for some epochs of history: also what a checkpoint is read into."""
    state = start(problem, params)
    history = {name: np.zeros(epochs, int if name == "skipped" else float) for name in names}
    return Point(state, state.free if validated else None, history)


def _loop(run, watch, point, store, epochs, every, patience, progress):
    """Train until the epochs are done or something ends it; return the point, how it ended and whether as planned."""
    if point.epoch > epochs:
        raise ValueError(f"epochs = {epochs}: checkpoint {store.path} has {point.epoch} epochs already")
    saved, interrupted = point.epoch, False
    watch.before(point)
    with tqdm(total=epochs, initial=point.epoch, disable=not progress, unit="epoch") as bar:
        try:
            while point.epoch < epochs and not _ended(point, patience):
                point = _advance(run, watch, point)
                if point.epoch % every == 0 and not _failed(point):
                    store.save(point)
                    saved = point.epoch
                bar.set_postfix({name: f"{x[-1]:.4g}" for name, x in point.history.items()}, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            interrupted = True
    # A failure is not saved: the last checkpoint is the last good one, and another optimiser can continue from it.
    if _failed(point):
        store.fail()
    elif saved < point.epoch:
        store.save(point)
    if interrupted:
        return point, f"interrupted after {point.epoch} epochs", False
    blind = point.best is not None and point.epoch > 0 and _best_epoch(point.history) < 0
    planned = f"ended stuck in {_culprit(point.state.failure)}" if _stuck(point) else f"{point.epoch} epochs"
    return point, _ended(point, patience) or planned, not (_stuck(point) or blind)


def _advance(run: _Run, watch: "Watch", point: Point) -> Point:
    """Train one epoch and judge it."""
    state, seen = run_epoch(run.problem, run.params, run.data, point.state, np.int32(point.epoch), run.noise)
    seen = jax.device_get(seen)
    watch.after(point.epoch, state, seen)
    record = _means(seen)
    if run.validation is not None:
        judged = evaluate(run.problem, run.params, run.problem.judged(state), run.validation, run.noise)
        record |= {name: float(x) for name, x in jax.device_get(judged).items()}
        watch.judged(point.epoch, state, record)
    history = {name: np.append(x, np.asarray(record[name], x.dtype)) for name, x in point.history.items()}
    best = point.best
    if best is not None and _best_epoch(history) == point.epoch:
        best = jax.device_get(run.problem.judged(state))
    return Point(state, best, history)


def _means(seen):
    """Average loss, auxiliary numbers and norm over the steps that were not skipped; nan where all were."""
    taken = {"loss": seen.loss, **seen.aux, "gradient_norm": seen.norm}
    means = {
        name: float(np.mean(x[seen.good], dtype=float)) if seen.good.any() else np.nan for name, x in taken.items()
    }
    return means | {"skipped": int(np.sum(~seen.good))}


def _best_epoch(history: dict[str, np.ndarray]) -> int:
    """Return the first of the best epochs by validation; the last without one, -1 before the first."""
    scores = history.get("validation_metric", -history.get("validation_loss", np.zeros(0)))
    if not np.isfinite(scores).any():
        return -1 if scores.size else len(history["loss"]) - 1
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _ended(point: Point, patience: int | None) -> str:
    """Say why the training must end here, if it must."""
    if _failed(point):
        return f"stopped in {_culprit(point.state.failure)}"
    best = _best_epoch(point.history)
    if patience is not None and point.epoch - 1 - best >= patience:
        if best < 0:
            return f"stopped after {point.epoch} epochs: the validation was never a finite number"
        return f"stopped after {point.epoch} epochs, the last {patience} without a better validation"
    return ""


def _failed(point: Point) -> bool:
    return int(point.state.failure.row) >= ABSORBING


def _stuck(point: Point) -> bool:
    """Say whether a training failed, or was about to: every step of its last epoch was skipped."""
    return _failed(point) or (point.epoch > 0 and bool(np.isnan(point.history["loss"][-1])))


def _culprit(failure: Failure) -> str:
    bad = [name for name, flag in failure.bad.items() if flag]
    more = f" (first of {len(bad)} parameters)" if len(bad) > 1 else ""
    what = f"the gradient of {bad[0]}{more} is" if bad else "the optimiser's update is"
    if not bad and not np.isfinite(failure.loss):
        what = "the loss is"
    return (
        f"epoch {int(failure.epoch)}, step {int(failure.step)}: from there {int(failure.row)} steps in a row were "
        f"skipped, at the first {what} not finite, loss = {float(failure.loss):g}; the last good parameters are kept"
    )


# Clipping comes too late for a gradient that has overflowed: inf over inf is nan.
_REMEDY = (
    "try a steeper surrogate, smaller recurrent weights, neurons with detach_reset=True, or a lower learning rate "
    "with optax.clip_by_global_norm from the start"
)


def _result(problem, params, watch, point, message, completed):
    best_epoch = _best_epoch(point.history)
    last = jax.device_get(problem.judged(point.state))
    best = last if point.best is None or best_epoch < 0 else point.best
    failure = point.state.failure
    stuck = _stuck(point)
    where = (int(failure.epoch), int(failure.step)) if stuck else (0, 0)
    record, broken = last_record(watch, point, where)
    best_params, last_params = (problem.rebuilt(free, params) for free in (best, last))
    broken = broken_rule(best_params, last_params) or broken
    if stuck:
        found = broken or ("" if record is None else record.failure or "; ".join(record.alarms))
        message += f"; {found or _REMEDY}"
    elif broken:
        message += f"; {broken}"
    if stuck or broken:
        warnings.warn(f"the training {message}" if stuck else message, TrainingWarning, stacklevel=3)
    return Training(
        params=best_params,
        last_params=last_params,
        history=point.history,
        best_epoch=best_epoch,
        message=message,
        completed=completed,
        record=record,
    )


def _split(data, validation, key):
    """Return the training data and the held-out data, if any."""
    if not isinstance(validation, float | int | np.number):
        return data, validation
    return hold_out(data, float(validation), jax.random.fold_in(key, HOLD_OUT))
