"""Checkpoints of a training through Orbax: saved as a whole or not at all, read only for the problem they are of.

A problem is its data, its start and its programs, loss, network, optimiser and metric as they go to the compiler,
gradients and constants included. So two problems that compute anything differently never share a checkpoint.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.training_epoch import Problem, State, is_key, update, value_and_gradient

_SOFTWARE, _LOSS, _OPTIMISER, _METRIC = "software", "loss or network", "optimiser", "metric"
_FAILED = "failed"  # a file beside a point from which the training failed


class TrainingWarning(UserWarning):
    """A training that failed or learns nothing, or a checkpoint that could not be read."""


class Point(NamedTuple):
    """A training between two epochs: what a checkpoint holds."""

    state: State
    best: dict[str, Any] | None  # None without validation
    history: dict[str, np.ndarray]

    @property
    def epoch(self) -> int:
        """The epochs done."""
        return len(self.history["loss"])


def fingerprint(problem: Problem, params: Any, data: Any, validation: Any, key: Any, names: tuple) -> dict[str, str]:
    """Describe the problem in words that a checkpoint of another one does not match."""
    free = problem.coordinates.to_free(params)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = problem.optimizer.init(free)
    return {
        "parameters": _shapes(params),
        "bounds": ", ".join(f"{name} ({x.low!r}, {x.high!r})" for name, x in problem.coordinates.free),
        "starting values": _digest(jax.tree.leaves(params)),
        "optimiser state": _shapes(opt_state),
        # Not the program's: what optax.inject_hyperparams keeps there, such as the rate.
        "starting optimiser state": _digest(jax.tree.leaves(opt_state)),
        "data": _shapes(data),
        "values of the data": _digest(jax.tree.leaves(data)),
        "validation": _shapes(validation),
        "values of the validation": _digest(jax.tree.leaves(validation)),
        "batch_size": str(problem.batch_size),
        "key": f"{problem.impl} {np.asarray(jax.random.key_data(key)).tolist()}",
        "average": str(problem.average),
        "history": ", ".join(names),
        _SOFTWARE: f"jaxlif {version('jaxlif')} on jax {jax.__version__} and optax {version('optax')}",
        **_programs(problem, params, free, opt_state, data, key),
    }


def _programs(problem: Problem, params, free, opt_state, data, key) -> dict[str, str]:
    """Digest what is computed: the loss with its gradient, an update, and the metric."""
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((problem.batch_size, *x.shape[1:]), x.dtype), data)

    def _updated(free, opt_state):
        # What a line search evaluates is the loss, whose program is another entry.
        return update(problem, free, opt_state, lambda free: jnp.sum(next(iter(free.values()))), 0.0, free)

    metric = problem.metric
    return {
        _LOSS: _program(value_and_gradient.program(problem), free, params, batch, key),
        _OPTIMISER: _program(jax.jit(_updated), free, opt_state),
        _METRIC: _program(jax.jit(metric), params, batch) if callable(metric) else str(metric),
    }


def _program(function: Any, *arguments: Any) -> str:
    """Digest a function as it is handed to the compiler: the same in every process, on every device."""
    traced = function.trace(*arguments)
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    # A call back into Python stands there by its address.
    lines = [line for line in text.splitlines() if "callback" not in line]
    return _digest([np.frombuffer("\n".join(lines).encode(), np.uint8), *traced.jaxpr.consts])


def _shapes(tree) -> str:
    leaves = named_leaves(tree).items()
    return ", ".join(f"{name} {jnp.result_type(x)}{list(jnp.shape(x))}".strip() for name, x in leaves) or "empty"


def _digest(arrays) -> str:
    digest = hashlib.sha256()
    for x in arrays:
        x = np.asarray(jax.device_get(jax.random.key_data(x) if is_key(x) else x))
        digest.update(f"{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:16]


class NoStore:
    """Where no checkpoint is asked for: nothing is saved, and every training starts anew."""

    path = "None"

    def save(self, point: Point) -> None:
        """Do nothing."""

    def load(self, start: Callable[..., Point]) -> Point:
        """Return the start."""
        return start()

    def fail(self) -> None:
        """Do nothing."""


class Store:
    """Checkpoints in a folder, through Orbax, which renames a folder into place once it is written."""

    def __init__(self, path: Path, manager: Any, args: Any, problem: dict[str, str]) -> None:
        self.path, self.manager, self.args, self.problem = path, manager, args, problem

    def save(self, point: Point) -> None:
        """Save a point under the number of epochs done."""
        leaves = _packed(point)
        about = {"problem": self.problem, "sha256": _digest(leaves.values())}
        items = self.args.Composite(point=self.args.StandardSave(leaves), about=self.args.JsonSave(about))
        self.manager.save(point.epoch, args=items, force=True)

    def fail(self) -> None:
        """Note that what came after the last point failed: another optimiser may continue from there."""
        last = self.manager.latest_step()
        if last is not None and jax.process_index() == 0:
            (self.path / str(last) / _FAILED).touch()

    def load(self, start: Callable[..., Point]) -> Point:
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

    def _read(self, epoch: int, template: Point) -> Point:
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
        free = {_OPTIMISER} if (where / _FAILED).exists() else set()
        if saved.get(_SOFTWARE) != self.problem[_SOFTWARE]:
            free |= {_SOFTWARE, _LOSS, _OPTIMISER, _METRIC}
            warnings.warn(
                f"checkpoint {where} was saved by {saved.get(_SOFTWARE, 'an earlier jaxlif')}, this is "
                f"{self.problem[_SOFTWARE]}: whether loss, network and optimiser are the same cannot be told",
                TrainingWarning,
                stacklevel=5,
            )
        for name, here in self.problem.items():
            if name not in free and saved.get(name) != here:
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
def open_store(path: str | os.PathLike | None, problem: dict[str, str]) -> Iterator[NoStore | Store]:
    """Open the folder of a problem's checkpoints, or nothing for no path."""
    if path is None:
        yield NoStore()
        return
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError('checkpoint needs orbax-checkpoint: pip install "jaxlif[snn]"') from error
    if not isinstance(path, str | os.PathLike) or Path(path).is_file():
        what = path if isinstance(path, str | os.PathLike) else type(path).__name__
        raise ValueError(f"checkpoint = {what}: checkpoint must be a folder, or a name for one")
    folder = Path(path).absolute()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,  # what a killed process left half-written
    )
    with ocp.CheckpointManager(folder, options=options) as manager:
        yield Store(folder, manager, ocp.args, problem)


def _packed(point: Point) -> dict[str, np.ndarray]:
    """Return the leaves of a point, numbered; keys as their data, arrays without numbers left out."""
    leaves = (jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(point))
    arrays = {f"{i:06d}": np.asarray(jax.device_get(x)) for i, x in enumerate(leaves)}
    return {name: x for name, x in arrays.items() if x.size}


def _unpacked(leaves: dict[str, np.ndarray], template: Point) -> Point:
    """Return the template with its leaves replaced by the saved ones."""
    old, structure = jax.tree.flatten(template)
    new = [_like(leaves.get(f"{i:06d}"), x) for i, x in enumerate(old)]
    return jax.tree.unflatten(structure, new)


def _like(saved, x):
    """Return a saved array as what the template has in its place."""
    if saved is None:
        return x
    return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(x)) if is_key(x) else saved


def _difference(saved: str, here: str) -> tuple[str, str]:
    """Return the first parts of two lists in which they differ."""
    pairs = zip(saved.split(", "), here.split(", "), strict=False)
    return next(((a, b) for a, b in pairs if a != b), (saved or "empty", here or "empty"))
