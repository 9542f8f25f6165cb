"""The course of one training: its points, what is said of it on the way, and how it ends."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxlif.checks import check_params
from jaxlif.files import one_line
from jaxlif.networks.checkpoints import Point
from jaxlif.networks.epoch import Seen, State, at_step, on_host, without_dropout
from jaxlif.networks.silence import silent_layers
from jaxlif.networks.work import Work

Callback = Callable[[PyTree, dict[str, np.ndarray]], Any]

_STUCK = 10  # skipped steps in a row at the end of an epoch, after which no batch is to blame


class TrainingWarning(UserWarning):
    """A training that failed, or learns nothing."""


@dataclass(frozen=True)
class Training:
    """The result of :func:`train`.

    ``history`` holds by name an array [epochs done]: ``loss``, the auxiliary numbers and ``gradient_norm`` (over all
    free coordinates), means over the steps that were not skipped; ``skipped`` steps; ``validation_loss`` and
    ``validation_metric`` after the epoch; ``plateau_scale``, by which a plateau scales the epochs to come.
    """

    params: PyTree  # after the best epoch by validation; the last ones without validation
    last_params: PyTree  # after the last epoch
    history: dict[str, np.ndarray]
    best_epoch: int  # counted from 0, that ``params`` come from; -1 before the first
    message: str  # how it ended, which parameters break a rule of theirs, which layers are silent
    completed: bool  # False where it ended early, or no validation was a finite number


@dataclass
class Course:
    """One training among the seeds of its work: where it is, why it ended early if it did, what was said already."""

    work: Work
    params: Any
    noise: np.ndarray  # the data of its key
    point: Point
    who: str = ""  # of several
    early: str = ""
    said: set[str] = field(default_factory=set)

    def add(self, state: State, seen: Seen, record: dict[str, Any], epochs: int) -> None:
        """Take in an epoch: look at it, keep the best, say whether it is the last of so many."""
        problem, epoch, best = self.work.problem, self.point.epoch, self.point.best
        history = [*self.point.history, {name: np.asarray(x).item() for name, x in record.items()}]
        if best is not None and _best_epoch(history) == epoch:
            best = jax.device_get(problem.judged(state))
        self.point = Point(state, best, history)
        self._look_at_steps(epoch, seen)
        self._look_at_validation(epoch)
        self.early = _stuck(self.point, seen, epochs)

    def ask(self, callback: Callback) -> None:
        """Call back with the parameters and the history, and end where that says so."""
        answer = callback(self._rebuilt(), _arrays(self.point.history))
        if not (answer is None or isinstance(answer, bool | np.bool_)):
            raise ValueError(f"the callback returned {type(answer).__name__}: it must be None, or True to end there")
        self.early = f"ended by the callback after {self.point.epoch} epochs" if answer else ""

    def result(self) -> Training:
        """Return what the training led to, and warn of an end that is none."""
        best_epoch, problem = _best_epoch(self.point.history), self.work.problem
        last = self._rebuilt()
        best = last if best_epoch < 0 or self.point.best is None else problem.rebuilt(self.point.best, self.params)
        broken, failed = _broken_rule({"params": best, "last_params": last}), self.early.startswith("stopped")
        quiet = "" if broken or failed else self._silence()
        notes = [self.early or f"{self.point.epoch} epochs", broken or (_REMEDY if failed else quiet)]
        message = "; ".join(note for note in notes if note)
        if failed or broken or (quiet and self._first_time(quiet)):
            self._warn(f"the training {message}" if failed else message, depth=4)
        completed = not self.early and (best_epoch >= 0 or self.point.best is None)
        return Training(best, last, _arrays(self.point.history), best_epoch, message, completed)

    def _rebuilt(self, free: Any = None, params: Any = None) -> Any:
        free = jax.device_get(self.work.problem.judged(self.point.state) if free is None else free)
        return self.work.problem.rebuilt(free, self.params if params is None else params)

    def _look_at_steps(self, epoch: int, seen: Seen) -> None:
        """Look at what was skipped, and what had no gradient at all."""
        if not seen.good.all() and self._first_time("skipped"):
            # Outside of jit the loss's own checks see numbers, such as labels out of range, and raise.
            self._loss(self.params, epoch, int(np.argmin(seen.good)))
        names = [name for name, x in seen.largest.items() if (x == 0.0).all() and self._first_time(name)]
        if names:
            why = self._silence() or "neurons before it never spike, or the loss does not depend on it"
            what = f"the gradient of {_listed(names)} was 0 in every step of epoch {epoch}"
            self._first_time(why)
            self._warn(f"{what}, so it learns nothing: {why}")

    def _look_at_validation(self, epoch: int) -> None:
        """Say where the judgement is no number."""
        record = self.point.history[-1]
        bad = [name for name, x in record.items() if name.startswith("validation_") and not np.isfinite(x)]
        if bad and self._first_time("validation"):
            params, key = self._rebuilt(params=without_dropout(self.params)), self.work.problem.key(self.noise, epoch)
            for batch in self.work.held(epoch):  # outside of jit, as above
                self.work.problem.loss(params, jax.tree.map(jnp.asarray, batch), key)
            what = f"the {bad[0].replace('_', ' ')} of epoch {epoch} is {record[bad[0]]:g}"
            self._warn(f"{what}: such an epoch is never the best")

    def _silence(self) -> str:
        """Say which layers did not spike in the first batch of the last epoch, with the parameters after it."""
        epoch = self.point.epoch - 1
        if epoch < 0:
            return ""
        try:
            params = self._rebuilt(self.point.state.free)  # where it goes on, not the average on the way
            layers = silent_layers(lambda: self._loss(params, epoch, 0))
        except Exception as error:  # of any type: an answer to a question of ours must not cost the result
            return f"the loss of one batch cannot be computed outside of jit: {one_line(error)}"
        remedy = "lower the learning rate, or raise the gain of the weights before (flight_record shows more)"
        return f"no neuron of {' and '.join(layers)} spikes in a batch: {remedy}" if layers else ""

    def _loss(self, params: Any, epoch: int, step: int) -> Any:
        """Compute the loss of a step's batch outside of jit."""
        batch = jax.tree.map(jnp.asarray, self.work.batch(self.noise, epoch, step))
        params, key = jax.tree.map(on_host, params), self.work.problem.key(self.noise, epoch)
        return self.work.problem.loss(at_step(params, epoch, step), batch, jax.random.fold_in(key, step))

    def _first_time(self, what: str) -> bool:
        new = what not in self.said
        self.said.add(what)
        return new

    def _warn(self, message: str, depth: int = 6) -> None:
        warnings.warn(f"{self.who}{message}", TrainingWarning, stacklevel=depth)  # where it was asked for


def _listed(names: list[str]) -> str:
    return f"{names[0]} (and {len(names) - 1} others)" if len(names) > 1 else names[0]


def _arrays(history: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([record[name] for record in history]) for name in (history[0] if history else ())}


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
