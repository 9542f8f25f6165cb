"""The work of a training's epochs, for one seed or several: steps on arrays or a stream, validation, plateaus."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxlif.checks import function, scalar
from jaxlif.networks.epoch import (
    Fixed,
    Problem,
    Seen,
    State,
    evaluate,
    look_for_plateau,
    num_samples,
    on_host,
    plateaus,
    run_batch,
    run_epoch,
    with_aux,
)
from jaxlif.networks.samples import Stream, example

_REAL = (np.floating, np.integer, np.bool_)
_RESERVED = ("loss", "skipped", "gradient_norm", "validation_loss", "validation_metric", "plateau_scale")


@dataclass
class Work:
    """What an epoch needs, in the host's memory and on the devices; ``fixed`` and states are placed there too."""

    problem: Problem
    data: Any
    validation: Any

    def __post_init__(self) -> None:
        self.shown = example(self.data), example(self.validation)
        self.placed = None if isinstance(self.data, Stream) else self.problem.place_samples(self.data)
        at_hand = self.validation is not None and not isinstance(self.validation, Stream)
        self.held_out = [self.problem.place_batch(batch) for batch in self.held(0)] if at_hand else []

    def begin(self, fixed: Fixed, state: State, epoch: int) -> tuple[State, Any, list[Any]]:
        """Train an epoch and judge it, without waiting for the devices."""
        if isinstance(self.data, Stream):
            state, seen = self._streamed(fixed, state, epoch)
        else:
            state, seen = run_epoch(self.problem, fixed, self.placed, state, np.int32(epoch))
        return state, seen, self._judged(fixed, state, epoch)

    def begin_many(self, pool: Executor, parts: list[Fixed], states: list[State]) -> Callable[..., list[Any]]:
        """Return what begins an epoch of several groups of seeds from their states, each group in a thread of its own:
        a CPU runs what one thread starts one after the other, and threads in one program get in each other's way.
        """
        if len(parts) == 1:
            return lambda states, epoch: [self.begin(parts[0], states[0], epoch)]
        # Placed and traced in this thread, whose settings of JAX are the caller's: another would see double as single.
        program, (placed, parts, states) = run_epoch.program(self.problem), jax.device_put((self.placed, parts, states))
        traced = [program.lower(part, placed, state, np.int32(0)) for part, state in zip(parts, states, strict=True)]
        programs = list(pool.map(lambda one: one.compile(), traced))

        def _begin(states: list[State], epoch: int) -> list[Any]:
            def _train(program: Any, part: Fixed, state: State) -> Any:
                return jax.block_until_ready(program(part, placed, state, np.int32(epoch)))

            trained = pool.map(_train, programs, parts, jax.device_put(states))
            return [(*its, self._judged(part, its[0], epoch)) for part, its in zip(parts, trained, strict=True)]

        return _begin

    def end(self, fixed: Fixed, state: State, seen: Any, scores: list[Any]) -> tuple[State, Seen, dict[str, Any]]:
        """Wait for what was begun; return also what the steps saw, and what is to be recorded."""
        seen, scores = jax.device_get((seen, scores))
        record = {name: _mean(x, seen.good) for name, x in seen.numbers.items()} | {
            "skipped": (~seen.good).sum(axis=-1)
        }
        sizes = [size for size, _ in scores]
        for name in scores[0][1] if scores else ():
            record[name] = np.average([score[name] for _, score in scores], axis=0, weights=sizes)
        if plateaus(state.opt_state):
            value = np.asarray(record.get("validation_loss", record["loss"]), seen.numbers["loss"].dtype)
            state = look_for_plateau(self.problem, fixed, state, value)
            scales = [np.asarray(node.scale, float) for node in plateaus(state.opt_state)]
            record["plateau_scale"] = np.prod(scales, axis=0)
        return state, seen, record

    def held(self, epoch: int) -> Iterator[Any]:
        """Yield the held-out samples in batches, in the host's memory; none without validation."""
        if isinstance(self.validation, Stream):
            yield from self.validation.batches(epoch)
        elif self.validation is not None:
            yield from self.problem.batches(self.validation)

    def batch(self, noise: np.ndarray, epoch: int, step: int) -> Any:
        """Return the batch of a step again."""
        if isinstance(self.data, Stream):
            return next(batch for i, batch in enumerate(self.data.batches(epoch)) if i == step)
        index = np.asarray(self.problem.order(noise, epoch)[0][step])
        return jax.tree.map(lambda x: on_host(x)[index], self.data)

    def _streamed(self, fixed: Fixed, state: State, epoch: int) -> tuple[State, Any]:
        size = self.problem.batch_size
        seen: list[Any] = []
        for step, batch in enumerate(b for b in self.data.batches(epoch) if num_samples(b) == size):
            batch = self.problem.place_batch(batch)
            state, new = run_batch(self.problem, fixed, batch, state, np.int32(epoch), np.int32(step))
            # One behind: reading and computing go on side by side, and batches do not pile up.
            seen[-1:] = [*jax.device_get(seen[-1:]), new]
        if not seen:
            raise ValueError(f"data({epoch}) gave no batch of batch_size = {size} samples")
        return state, jax.tree.map(lambda *x: np.stack(x, axis=-1), *jax.device_get(seen))

    def _judged(self, fixed: Fixed, state: State, epoch: int) -> list[Any]:
        """Return the number of samples, loss and metric of each batch of held-out samples."""
        free = self.problem.judged(state)
        scores: list[Any] = []
        for i, batch in enumerate(self.held_out or map(self.problem.place_batch, self.held(epoch))):
            if not self.held_out:  # one behind, as above
                scores[-1:] = jax.device_get(scores[-1:])
            scores.append((num_samples(batch), evaluate(self.problem, fixed, free, batch, np.int32(i))))
        return scores


def _mean(x: np.ndarray, good: np.ndarray) -> Any:
    """Return the mean over the good steps, nan without one."""
    with np.errstate(invalid="ignore"):
        return np.where(good, x, 0.0).sum(axis=-1, dtype=float) / good.sum(axis=-1)


def require_losses(work: Work, params: Any, key: Array) -> None:
    """Refuse what loss and metric return, from its shapes: nothing of it is found out after hours of training."""
    problem, metric, (data, validation) = work.problem, work.problem.metric, work.shown
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
