"""Checkpoints of a training through Orbax: saved as a whole or not at all, read only for the problem they are of.

A problem is its data, its start and its programs, loss, network, optimiser and metric as they go to the compiler,
gradients and constants included. So two problems that compute anything differently never share a checkpoint.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.files import optional
from jaxlif.fitting.fit import update
from jaxlif.networks.epoch import Problem, State, is_key, objective


class Point(NamedTuple):
    """A training between two epochs: what a checkpoint holds."""

    state: State
    best: dict[str, Any] | None  # None without validation
    history: list[dict[str, float]]

    @property
    def epoch(self) -> int:
        """The epochs done."""
        return len(self.history)


def fingerprint(problem: Problem, params: Any, start: State, data: Any, validation: Any, key: Any) -> dict[str, str]:
    """Describe the problem by digests that a checkpoint of another one does not match."""
    free, opt_state, metric, batch = start.free, start.opt_state, problem.metric, problem.batch_shapes(data)

    def _gradient(free: Any, params: Any, batch: Any, key: Any) -> Any:
        return jax.value_and_grad(partial(objective, problem, params, batch, key), has_aux=True)(free)

    def _updated(free: Any, opt_state: Any) -> Any:
        # What a line search evaluates is the loss, whose program is another entry.
        return update(problem.optimizer, free, opt_state, lambda free: jnp.sum(next(iter(free.values()))), 0.0, free)

    return {
        "software": f"jaxlif {version('jaxlif')} on jax {jax.__version__} and optax {version('optax')}",
        "batch_size": str(problem.batch_size),
        "key": f"{problem.impl} {np.asarray(jax.random.key_data(key)).tolist()}",
        "average": str(problem.average),
        "bounds": ", ".join(f"{name} ({x.low!r}, {x.high!r})" for name, x in problem.coordinates.free),
        "start": _digest(params),
        "data": _digest(data),
        "validation": _digest(validation),
        "loss or network": _program(_gradient, free, params, batch, key),
        # The start beside the program: optax.inject_hyperparams keeps the rate in it.
        "optimiser": _program(_updated, free, opt_state) + _digest(opt_state),
        "metric": _program(metric, params, batch) if callable(metric) else str(metric),
    }


def _program(function: Any, *arguments: Any) -> str:
    """Digest a function as it is handed to the compiler: the same in every process, on every device."""
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    # A call back into Python stands there by its address.
    lines = [line for line in text.splitlines() if "callback" not in line]
    return _digest(traced.jaxpr.consts, "\n".join(lines))


def _digest(tree: Any, text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        x = np.asarray(jax.device_get(jax.random.key_data(x) if is_key(x) else x))
        about = f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape} "
        digest.update(about.encode() + np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:16]


class Store(NamedTuple):
    """Checkpoints of a problem in a folder, through Orbax, which renames a folder into place once it is written."""

    folder: Path
    manager: Any
    args: Any
    problem: dict[str, str]

    def save(self, point: Point) -> None:
        """Save a point under the number of epochs done."""
        if point.epoch in self.manager.all_steps():
            return
        leaves = _packed(point)
        about = {"problem": self.problem, "history": point.history, "sha256": _digest(leaves, str(point.history))}
        items = self.args.Composite(point=self.args.StandardSave(leaves), about=self.args.JsonSave(about))
        self.manager.save(point.epoch, args=items, force=True)

    def load(self, start: Point) -> Point:
        """Return the last point, or the start where there is none; refuse one that is damaged or of another problem."""
        if (epoch := self.manager.latest_step()) is None:
            return start
        where, remedy = f"checkpoint {self.folder}/{epoch}", "remove it to continue from the one before"
        items = self.args.Composite(point=self.args.StandardRestore(), about=self.args.JsonRestore())
        try:
            found = self.manager.restore(epoch, args=items)
        except Exception as error:  # of any type: a damaged file can fail anywhere in the reader
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ValueError(f"{where} is damaged: {reason}; {remedy}") from error
        about, leaves = found["about"], {name: np.asarray(x) for name, x in sorted(found["point"].items())}
        for name, here in self.problem.items():
            if (there := about["problem"].get(name)) != here:
                what = f"its {name} is {there}, here it is {here}"
                raise ValueError(f"{where} is of another problem: {what}; name another folder")
        if _digest(leaves, str(about["history"])) != about["sha256"]:
            raise ValueError(f"{where} is damaged: its checksum differs; {remedy}")
        state, best = _unpacked(leaves, start)
        return Point(state, best, about["history"])


@contextmanager
def open_store(folder: str | os.PathLike[str], problem: dict[str, str]) -> Iterator[Store]:
    """Open the folder of a problem's checkpoints."""
    ocp = optional("orbax.checkpoint", "folder needs orbax-checkpoint", "snn")
    if not isinstance(folder, str | os.PathLike) or Path(folder).is_file():
        what = folder if isinstance(folder, str | os.PathLike) else type(folder).__name__
        raise ValueError(f"folder = {what}: folder must be a folder for checkpoints, or a name for one")
    path = Path(folder).absolute()
    # What a killed process left half-written is removed.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    with ocp.CheckpointManager(path, options=options) as manager:
        yield Store(path, manager, ocp.args, problem)


def _packed(point: Point) -> dict[str, np.ndarray]:
    """Return the arrays of a point, numbered; keys as their data, arrays without numbers left out."""
    leaves = (jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves((point.state, point.best)))
    arrays = {f"{i:06d}": np.asarray(jax.device_get(x)) for i, x in enumerate(leaves)}
    return {name: x for name, x in arrays.items() if x.size}


def _unpacked(leaves: dict[str, np.ndarray], start: Point) -> Any:
    """Return state and best of a start with their arrays replaced by the saved ones."""

    def _saved(name: str, x: Any) -> Any:
        saved = leaves.get(name, x)
        return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(x)) if is_key(x) else saved

    old, structure = jax.tree.flatten((start.state, start.best))
    return jax.tree.unflatten(structure, [_saved(f"{i:06d}", x) for i, x in enumerate(old)])
