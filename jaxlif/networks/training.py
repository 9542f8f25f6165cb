"""Train a network epoch by epoch: batches of arrays or of a stream, validation, checkpoints that survive a kill, many
devices, many seeds.

Everything random derives from one key and the number of the epoch. A run that was killed therefore continues from its
checkpoint to the same numbers, bit by bit, as one that was not.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree
from tqdm import tqdm

from jaxlif.checks import function, length, number, optimiser, whole
from jaxlif.fitting.bounds import Bounds, Coordinates, coordinates
from jaxlif.networks.checkpoints import Point, Store, fingerprint, open_store
from jaxlif.networks.course import Callback, Course, Training
from jaxlif.networks.epoch import HOLD_OUT, Fixed, Problem, State, batch_mesh, num_samples, start, typed_key
from jaxlif.networks.samples import Stream, given, hold_out
from jaxlif.networks.work import Work, require_losses
from jaxlif.processes import cores

Batches = Callable[[int], Iterable[PyTree]]


def train(
    loss: Callable[..., Any],
    params: PyTree,
    bounds: Bounds,
    data: PyTree | Batches,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    key: Array,
    validation: PyTree | Batches | float | None = None,
    metric: Callable[[Any, Any], Array] | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    mesh: Mesh | None = None,
    average: float | None = None,
) -> Training:
    r"""Minimise ``loss`` over shuffled batches, or over a stream of them, in coordinates without bounds.

    Epoch e takes the samples in the order ``permutation(fold_in(key, e), samples)``; what is left over after the last
    whole batch is dropped. A step whose loss, gradient or update is not finite is skipped and counted; an epoch before
    whose end ten in a row were skipped is the last. Warned of are such an end, a parameter whose gradient is 0 through
    a whole epoch, and at the end hidden layers without a spike and parameters that break a rule. Random keys among
    the parameters, as :class:`DropoutParams` hold them, are others in each step; in validation nothing is dropped.

    Args:
        loss: ``loss(params, batch, key)``, a scalar, or a scalar and a dict of scalars to record. ``batch`` is
            ``data`` with ``batch_size`` samples; the key is new in each step and the same in each validation.
        params, bounds, optimizer: as for :func:`jaxlif.fit`. ``optax.contrib.reduce_on_plateau`` in the optimiser sees
            once an epoch the validation loss, or without validation the mean loss of the steps.
        data: a pytree of arrays [samples, ...]; they stay on the device, with a mesh a part of them on each. Or a
            stream: ``data(epoch)`` makes an iterable of batches, arrays [batch_size, ...], taken in its order.
        epochs: passes over the data, those of a continued checkpoint included.
        batch_size: samples in a batch, B.
        key: random key, of everything random in the training; it is consumed.
        validation: held-out arrays or a stream, like ``data``, or the fraction of ``data`` that :func:`hold_out` cuts
            off with this key. The epoch with the best metric, or without a metric the smallest loss, is kept; of equals
            the first.
        metric: ``metric(params, batch)``, higher is better, averaged over the held-out samples in batches; or the name
            of an auxiliary number of the loss, which then costs no second simulation.
        folder: of checkpoints, one after each epoch, saved as a whole or not at all. The last two are kept, and the
            same call continues from the last. Data (of a stream the first batch), start, loss, network, optimiser and
            versions must be the same: what they compute is compared, not how they are written.
        callback: ``callback(params, history)`` after each epoch, with the :class:`Training`'s history so far; True ends
            the training there.
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
    key, epochs, optimizer = typed_key(key), whole("epochs", epochs, 1), optimiser(optimizer)
    callback = None if callback is None else function("callback", callback)
    if isinstance(validation, float | int | np.number):
        if callable(data):
            raise ValueError(f"validation = {validation:g}: a fraction is cut off arrays, and data is a function")
        data, validation = hold_out(data, float(validation), jax.random.fold_in(key, HOLD_OUT))
    problem, data, validation = _problem(
        loss, coordinates(params, bounds), data, optimizer, batch_size, validation, metric, average, key, mesh
    )
    work, fixed = Work(problem, data, validation), Fixed(params, np.asarray(jax.random.key_data(key)))
    require_losses(work, params, key)
    state = start(problem, fixed)
    (course,) = _courses(work, [(params, fixed.noise, state)])
    about = {} if folder is None else fingerprint(problem, params, state, *work.shown, key)
    with nullcontext() if folder is None else open_store(folder, about) as store:
        _run(course, fixed, store, epochs, callback, progress)
    return course.result()


def train_many(
    loss: Callable[..., Any],
    params: PyTree,
    bounds: Bounds,
    data: PyTree | Batches,
    *,
    optimizer: Any,
    epochs: int,
    batch_size: int,
    keys: Array,
    hyper: PyTree = None,
    validation: PyTree | Batches | None = None,
    metric: Callable[[Any, Any], Array] | str | None = None,
    progress: bool = False,
    average: float | None = None,
) -> tuple[Training, ...]:
    """Train as :func:`train` does from several starts at once, by ``vmap``: other seeds, other hyper-parameters.

    Each result is what :func:`train` gives for that start, key and optimiser, to rounding. All share the samples, each
    in an order of its own. Hyper-parameters of the loss or the network are among the fixed parameters.

    Args:
        loss, bounds, epochs, batch_size, metric, average, progress: as for :func:`train`.
        params: the starts, each leaf [seeds, ...], such as ``jax.vmap(make_params)(keys)``.
        data, validation: as for :func:`train`, without a fraction.
        optimizer: Optax's; with ``hyper`` a function of one seed's that returns one, such as ``optax.adam``.
        keys: one for each seed, [seeds].
        hyper: arrays [seeds, ...] that the optimiser is made of, such as learning rates.

    Returns:
        A :class:`Training` for each seed. Ctrl-C ends all after the last whole epoch.

    Raises:
        ValueError: as :func:`train` does, and for starts, keys and hyper-parameters that are not as many.

    Example:
        >>> x, rates = jnp.linspace(-1.0, 1.0, 64), jnp.array([0.001, 0.1])
        >>> results = train_many(
        ...     lambda p, batch, key: jnp.mean((p["w"] * batch["x"] - batch["y"]) ** 2), {"w": jnp.zeros(2)},
        ...     {"w": (-5.0, 5.0)}, {"x": x, "y": 3.0 * x}, optimizer=optax.adam, hyper=rates, epochs=20, batch_size=8,
        ...     keys=jax.random.split(jax.random.key(0), 2),
        ... )
        >>> [round(float(result.params["w"]), 1) for result in results]
        [0.4, 3.0]
    """
    seeds, epochs = length("params", params, "seeds"), whole("epochs", epochs, 1)
    keys = typed_key(keys, (seeds,), f"one for each of the {seeds} starts is needed")
    if isinstance(validation, float | int | np.number):
        raise ValueError(f"validation = {validation:g}: all share held-out samples; cut them off by hold_out")
    hyper, each = jax.tree.map(jnp.asarray, hyper), partial(_of_seed, range(seeds))
    if hyper is not None and length("hyper", hyper, "seeds") != seeds:
        raise ValueError(f"hyper is of {length('hyper', hyper, 'seeds')} seeds: params are of {seeds}")
    optimiser(optimizer if hyper is None else function("optimizer", optimizer)(each(hyper)[0]))
    starts, noise = each(params), np.asarray(jax.random.key_data(keys))
    free = [coordinates(p, bounds) for p in starts][0]
    problem, data, validation = _problem(
        loss, free, data, optimizer, batch_size, validation, metric, average, keys, several=True
    )
    work, fixed = Work(problem, data, validation), Fixed(params, noise, hyper)
    require_losses(work, starts[0], keys[0])
    state = start(problem, fixed)
    courses = _courses(work, zip(starts, noise, each(state), strict=True))
    _run_many(courses, fixed, state, epochs, progress)
    return tuple(map(Course.result, courses))


def _problem(
    loss: Any, free: Coordinates, data: Any, optimizer: Any, batch_size: int, validation: Any, metric: Any,
    average: float | None, key: Array, mesh: Mesh | None = None, several: bool = False,
) -> tuple[Problem, Any, Any]:  # fmt: skip
    """Return the problem, its data and its held-out samples, or none; refuse what does not fit."""
    # Numbers of Python: arrays are no part of a compiled program's key.
    batch_size = whole("batch_size", batch_size, 1)
    average = None if average is None else float(number("average", average))
    if average is not None and not 0.0 <= average < 1.0:
        raise ValueError(f"average = {average:g}: the decay of the mean must be 0 or more and below 1")
    data = given("data", data, batch_size)
    validation = None if validation is None else given("validation", validation, batch_size)
    samples = batch_size if isinstance(data, Stream) else num_samples(data)
    if samples < batch_size:
        raise ValueError(f"batch_size = {batch_size}: data has {samples} samples, not enough for one batch")
    mesh, impl = None if mesh is None else batch_mesh(mesh, batch_size), str(jax.random.key_impl(key))
    loss = function("loss", loss)
    return Problem(loss, metric, free, optimizer, batch_size, samples, average, mesh, impl, several), data, validation


def _of_seed(seeds: Iterable[int], tree: Any) -> list[Any]:
    """Return what is each seed's of arrays [seeds, ...]."""
    return [jax.tree.map(lambda x, s=s: x[s], tree) for s in seeds]


def _courses(work: Work, starts: Iterable[tuple[Any, Any, State]]) -> list[Course]:
    """Return the courses of starts, each parameters, the data of a key and a state."""
    blind = work.validation is None
    return [
        Course(
            work, params, noise, Point(state, None if blind else state.free, []), f"seed {s}: " * work.problem.several
        )
        for s, (params, noise, state) in enumerate(starts)
    ]


def _run(
    course: Course, fixed: Fixed, store: Store | None, epochs: int, callback: Callback | None, progress: bool
) -> None:
    """Train until the epochs are done or something ends it."""
    work, fixed = course.work, course.work.problem.place(fixed)
    course.point = point = store.load(course.point) if store else course.point
    if store and point.epoch > epochs:
        raise ValueError(f"epochs = {epochs}: checkpoint {store.folder} has {point.epoch} epochs already")
    course.point = point._replace(state=work.problem.place(point.state))
    with tqdm(total=epochs, initial=point.epoch, disable=not progress, unit="epoch") as bar:
        try:
            while course.point.epoch < epochs and not course.early:
                course.add(*work.end(fixed, *work.begin(fixed, course.point.state, course.point.epoch)), epochs)
                if callback and not course.early:
                    course.ask(callback)
                # An end is not saved: a failure leaves the last good checkpoint, and the same call ends there again.
                if store and not course.early:
                    store.save(course.point)
                bar.set_postfix({name: f"{x:.4g}" for name, x in course.point.history[-1].items()}, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            course.early = f"interrupted after {course.point.epoch} epochs"


def _run_many(courses: list[Course], fixed: Fixed, state: State, epochs: int, progress: bool) -> None:
    """Train until all are done; one that ends early goes on in the program, and nobody looks at it."""
    work, groups = courses[0].work, _groups(len(courses), isinstance(courses[0].work.data, Stream))
    states, parts = ([jax.tree.map(lambda x, g=g: x[g], tree) for g in groups] for tree in (state, fixed))
    parts = [work.problem.place(part) for part in parts]
    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            begin = work.begin_many(pool, parts, states)
            for epoch in tqdm(range(epochs), disable=not progress, unit="epoch"):
                begun = begin(states, epoch)
                ended = [work.end(part, *its) for part, its in zip(parts, begun, strict=True)]
                states = [state for state, _, _ in ended]
                own = [its for x in ended for its in _of_seed(range(len(courses) // len(groups)), jax.device_get(x))]
                for course, (state, seen, record) in zip(courses, own, strict=True):
                    if not course.early:
                        course.add(state, seen, record, epochs)
                if all(course.early for course in courses):
                    break
    except KeyboardInterrupt:
        for course in courses:
            course.early = course.early or f"interrupted after {course.point.epoch} epochs"


def _groups(seeds: int, streamed: bool) -> list[slice]:
    """Return which seeds go into one program: all, or on a CPU, which computes several side by side, a part for each
    core; those of a stream are together, so that it is read once.
    """
    most = 1 if streamed else cores()
    size = min(n for n in range(1, seeds + 1) if seeds % n == 0 and seeds // n <= most)
    return [slice(s, s + size) for s in range(0, seeds, size)]
