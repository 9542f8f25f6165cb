"""What a training meets is looked at and said once: skipped steps, gradients of 0, numbers that break a rule."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import check_params
from jaxlif.networks.recorder import FlightRecord
from jaxlif.networks.training_checkpoints import Point, TrainingWarning
from jaxlif.networks.training_epoch import at_step, num_samples, on_host, without_dropout


class Watch:
    """Looks at what a training meets, and says each thing once."""

    def __init__(self, run: Any, data: Any, record: Callable[[Any, Any, Array], FlightRecord] | None) -> None:
        self.run, self.data, self.record = run, data, record
        self.idle: set[str] = set()
        self.checked = self.blind = False

    def before(self, point: Point) -> None:
        """Say what is wrong with the network that a training starts from."""
        if self.record is not None and point.epoch == 0:
            for alarm in self.recorded(point.state, 0, 0).alarms:
                _warn(f"before the first epoch: {alarm}")

    def after(self, epoch: int, state: Any, seen: Any) -> None:
        """Look at an epoch's steps: what was skipped, and what had no gradient at all."""
        if not seen.good.all() and not self.checked:
            self.checked = True
            # Outside of jit the loss's own checks see numbers, such as labels out of range, and raise.
            self.run.problem.loss(*self._step(int(state.failure.epoch), int(state.failure.step), self.run.params))
        idle = [name for name, x in seen.idle.items() if x.all() and name not in self.idle]
        self.idle |= set(idle)
        if idle:
            _warn(_idle_message(idle, epoch))

    def judged(self, epoch: int, state: Any, record: dict[str, Any]) -> None:
        """Look at the validation: where it is no number, that epoch can never be the best."""
        bad = [name for name, x in record.items() if name.startswith("validation") and not np.isfinite(x)]
        if not bad or self.blind:
            return
        self.blind = True
        problem = self.run.problem
        params = problem.rebuilt(jax.device_get(problem.judged(state)), without_dropout(self.run.params))
        for batch in self._held_out():
            # Outside of jit the loss's own checks see numbers, such as labels out of range, and raise.
            problem.loss(params, batch, problem.order(self.run.noise, epoch)[1])
        _warn(f"the {bad[0].replace('_', ' ')} of epoch {epoch} is {record[bad[0]]:g}: such an epoch is never the best")

    def recorded(self, state: Any, epoch: int, step: int) -> Any:
        """Return what the recorder sees at a step's batch; None without one."""
        if self.record is None:
            return None
        problem = self.run.problem
        free = jax.tree.map(on_host, problem.judged(state))
        seen = self.record(*self._step(epoch, step, problem.rebuilt(free, self.run.params)))
        if not hasattr(seen, "alarms"):
            raise ValueError(f"record returned {type(seen).__name__}: it must return a FlightRecord")
        return seen

    def _step(self, epoch: int, step: int, params: Any) -> tuple[Any, Any, Array]:
        """Return what the loss saw in a step: parameters, batch and key."""
        # From the host's memory: arrays that other processes hold too cannot be computed with outside of jit.
        data, params = jax.tree.map(on_host, (self.data, params))
        order, key = self.run.problem.order(self.run.noise, epoch)
        index = np.asarray(order[step])
        batch = jax.tree.map(lambda x: jnp.asarray(x[index]), data)
        return at_step(params, epoch, step), batch, jax.random.fold_in(key, step)

    def _held_out(self):
        """Yield the held-out samples in batches, from the host's memory."""
        whole, rest = jax.tree.map(on_host, self.run.validation)
        if whole is not None:
            for i in range(num_samples(whole)):
                yield jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), whole)
        if rest is not None:
            yield jax.tree.map(jnp.asarray, rest)


def _idle_message(names: list[str], epoch: int) -> str:
    others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
    return (
        f"the gradient of {names[0]}{others} was 0 in every step of epoch {epoch}, so it learns nothing: either "
        "neurons that it depends on never spike (flight_record shows which), or the loss does not depend on it"
    )


def _warn(message: str) -> None:
    warnings.warn(message, TrainingWarning, stacklevel=6)


def last_record(watch: Watch, point: Point, where: tuple[int, int]) -> tuple[Any, str]:
    """Return what the recorder sees at the end, or why it cannot: a training is not lost by what looks at it."""
    try:
        return watch.recorded(point.state, *where), ""
    except Exception as error:  # of any type: the recorder is the caller's
        return None, f"the recorder failed ({type(error).__name__}: {error})"


def broken_rule(best_params: Any, last_params: Any) -> str:
    """Say which of the parameters that are handed out breaks a rule of its own, if one does."""
    for name, params in {"params": best_params, "last_params": last_params}.items():
        try:
            check_params(params)
        except ValueError as error:
            return f"{name} break a rule: {error}; bounds keep a parameter inside it"
    return ""
