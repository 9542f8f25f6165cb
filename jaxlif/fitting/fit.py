"""Fit any pytree of parameters to any differentiable loss, as one compiled loop.

This module knows no neuron: the same function fits a cell to a recording, a curve to rates, and trains a network.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from jaxlif.checks import (
    arrays_of_numbers,
    function,
    number,
    optimiser,
    random_key,
    require_not_negative,
    scalar,
    whole,
)
from jaxlif.compiled import compiled
from jaxlif.fitting.bounds import Bounds, Coordinates, coordinates


def lbfgs() -> optax.GradientTransformationExtraArgs:
    """Return L-BFGS with a backtracking line search: for smooth losses over all data, from one start or many.

    The zoom line search of ``optax.lbfgs()`` can fail to end at the floor of rounding, under ``vmap`` above all; this
    one takes at most thirty halvings a step.

    Example:
        >>> lbfgs() is lbfgs()
        True

    Source: Liu & Nocedal 1989, doi:10.1007/BF01589116.
    """
    return _LBFGS


# One value, so that every fit of the same loss shares its compiled loop.
_LBFGS = optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(max_backtracking_steps=30, store_grad=True))


class FitWarning(UserWarning):
    """A fit that ended before its last step."""


@dataclass(frozen=True)
class Fit:
    """The result of :func:`fit`.

    Args:
        params: the fitted parameters: the best point seen where every step had the same data, the last point where
            the steps had different batches, whose losses do not compare.
        losses: [steps done], the loss before each update.
        best_loss: the smallest loss seen.
        best_step: the number of updates that led to it.
        message: one line on how the fit ended.
        completed: False where the fit diverged or was interrupted.
    """

    params: Any
    losses: np.ndarray
    best_loss: float
    best_step: int
    message: str
    completed: bool


def fit(
    loss: Callable[..., Array],
    params: Any,
    bounds: Bounds,
    *,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    data: Any = None,
    batches: Any = None,
    tolerance: float = 0.0,
    progress: bool = False,
) -> Fit:
    r"""Minimise ``loss`` over the parameters that ``bounds`` name, in coordinates without bounds.

    The loop runs compiled, in chunks between which a progress bar moves and an interrupt (Ctrl-C) is honoured: it
    ends the fit and keeps the best point so far. The same ``loss``, bounds and ``optimizer`` objects compile once; the
    last 8 such problems are kept, with what their losses hold.

    Args:
        loss: ``loss(params)``, or ``loss(params, data)``, returning a scalar.
        params: the start, a pytree; its leaves have dotted names such as ``tau_m`` or ``hidden.neuron.tau_m``.
        bounds: the free names, each with (low, high) in its unit, ``REAL`` for none; names may be patterns such as
            ``*.tau_m``. What is not named stays fixed.
        optimizer: any Optax optimiser; :func:`lbfgs` is a good choice for a smooth loss over all data. With a line
            search the fit also ends where five steps in a row change nothing.
        num_steps: updates.
        data: passed to the loss at every step. Large arrays belong here, not into the closure of ``loss``, where they
            would be compiled as constants.
        batches: instead of ``data``, a pytree of arrays [batches, ...]; step k sees batch k modulo their number.
        tolerance: stop where no component of the gradient (in free coordinates) exceeds this.
        progress: show a progress bar.

    Returns:
        The :class:`Fit`. One that diverged warns with the step and the parameter, and holds the best finite point.

    Raises:
        ValueError: for bounds that do not fit the parameters, a start outside them, or a loss that is not finite at
            the start.

    Example:
        >>> from jaxlif import LIFParams
        >>> result = fit(
        ...     lambda p: (p.tau_m - 20.0) ** 2, LIFParams(), {"tau_m": (2.0, 60.0)},
        ...     optimizer=optax.adam(0.1), num_steps=300,
        ... )
        >>> round(float(result.params.tau_m), 3)
        20.0
    """
    problem, data = _problem(loss, params, bounds, optimizer, data, batches)
    num_steps, tolerance = whole("num_steps", num_steps, 1), number("tolerance", tolerance)
    carry = _start(problem, params, data, num_steps)
    advance = partial(_advance, problem, params, data, num_steps, tolerance)
    carry, interrupted = _run(advance, carry, problem.evaluations(num_steps), progress)
    return _result(problem, params, num_steps, jax.device_get(carry), interrupted)


@dataclass(frozen=True)
class Multistart:
    """The result of :func:`multistart`.

    Args:
        best: the :class:`Fit` of the start that ended lowest.
        params: all fitted parameters, free leaves stacked [starts, ...].
        best_losses: [starts], the smallest loss of each start, ``inf`` where it was never finite.
    """

    best: Fit
    params: Any
    best_losses: np.ndarray


def multistart(
    loss: Callable[..., Array],
    params: Any,
    bounds: Bounds,
    *,
    key: Array,
    num_starts: int,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    data: Any = None,
    batches: Any = None,
    tolerance: float = 0.0,
    progress: bool = False,
    spread: float = 2.0,
) -> Multistart:
    """Fit from several starts at once, by ``vmap``, and keep the best.

    The first start is ``params``; the others are drawn around it in free coordinates.

    Args:
        loss: as for :func:`fit`, like the arguments not listed here.
        params: the first start.
        bounds: the free names and their intervals.
        key: a random key for the other starts; it is consumed.
        num_starts: number of starts.
        optimizer: any Optax optimiser.
        num_steps: updates of each start.
        data: passed to the loss.
        batches: stacked batches instead.
        tolerance: stop a start where its gradient falls below this.
        progress: show a progress bar.
        spread: standard deviation of the other starts around the first, in free coordinates; 2 covers most of a finite
            interval.

    Returns:
        The :class:`Multistart`. Starts that diverge are dropped; if all do, the first one's failure is raised.

    Raises:
        ValueError: as :func:`fit`.

    Example:
        >>> from jaxlif import LIFParams
        >>> result = multistart(
        ...     lambda p: jnp.cos(p.tau_m), LIFParams(), {"tau_m": (2.0, 60.0)}, key=jax.random.key(0),
        ...     num_starts=4, optimizer=optax.adam(0.1), num_steps=200,
        ... )
        >>> round(float(jnp.cos(result.best.params.tau_m)), 6)
        -1.0
    """
    num_starts, num_steps = whole("num_starts", num_starts, 1), whole("num_steps", num_steps, 1)
    require_not_negative("spread", number("spread", spread), "")
    random_key(key), number("tolerance", tolerance)
    problem, data = _problem(loss, params, bounds, optimizer, data, batches)
    starts = _draw_starts(problem.coordinates.to_free(params), key, num_starts, spread)
    carry = jax.vmap(lambda free: _start_at(problem, params, data, num_steps, free))(starts)
    advance = partial(_advance_all, problem, params, data, num_steps, tolerance)
    carry, interrupted = _run(advance, carry, problem.evaluations(num_steps), progress)
    carry = jax.device_get(carry)
    best_losses = np.where(np.isfinite(carry.best_loss), carry.best_loss, np.inf)
    winner = jax.tree.map(lambda x: x[int(best_losses.argmin())], carry)
    every = problem.coordinates.to_params(carry.best_free, params)
    return Multistart(_result(problem, params, num_steps, winner, interrupted), every, best_losses)


def uninterrupted(found: Fit) -> Fit:
    """Return a fit, or pass on the interrupt that ended it: half a step of a recipe is no result."""
    if found.message.startswith("interrupted"):
        raise KeyboardInterrupt
    return found


@dataclass(frozen=True)
class _Problem:
    """What a compiled fit depends on besides shapes: a hashable value."""

    loss: Callable[..., Array]
    coordinates: Coordinates
    optimizer: optax.GradientTransformation
    stacked: bool

    def objective(self, params, data, step):
        """Return the loss as a function of the free coordinates at a step."""
        if self.stacked:
            data = jax.tree.map(lambda x: x[step % len(x)], data)
        rest = () if data is None else (data,)
        return lambda free: self.loss(self.coordinates.to_params(free, params), *rest)

    def evaluations(self, num_steps):
        """Return how often the loss is taken: where losses compare, once more, to judge the last update."""
        return num_steps if self.stacked else num_steps + 1


class _Carry(NamedTuple):
    step: Array
    free: dict[str, Array]
    opt_state: Any
    losses: Array
    best_free: dict[str, Array]
    best_loss: Array
    best_step: Array
    bad: dict[str, Array]  # by free name: its gradient was not finite where the fit diverged
    idle: Array  # steps in a row that did not change the loss
    diverged: Array
    converged: Array


def _problem(loss, params, bounds, optimizer, data, batches):
    function("loss", loss), optimiser(optimizer)
    arrays_of_numbers("data", data)
    arrays_of_numbers("batches", batches)
    if data is not None and batches is not None:
        raise ValueError("data and batches are both given: pass one of them")
    if batches is not None:
        shapes = [np.shape(x) for x in jax.tree.leaves(batches)]
        lengths = {shape[0] if shape else 0 for shape in shapes}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"batches have lengths {sorted(lengths)}: all arrays must have the same number of batches")
    if isinstance(bounds, Mapping) and not bounds:
        raise ValueError("bounds are empty: name at least one parameter that is free")
    problem = _Problem(loss, coordinates(params, bounds), optimizer, batches is not None)
    return problem, data if batches is None else batches


def _start(problem, params, data, num_steps):
    return _start_at(problem, params, data, num_steps, problem.coordinates.to_free(params))


def _start_at(problem, params, data, num_steps, free):
    value = jax.eval_shape(problem.objective(params, data, 0), free)
    scalar("the loss", value, np.floating)
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        opt_state = problem.optimizer.init(free)
    infinite = jnp.full((), jnp.inf, value.dtype)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    bad = dict.fromkeys(free, no)
    losses = jnp.full(problem.evaluations(num_steps), infinite)
    carry = _Carry(zero, free, opt_state, losses, free, infinite, zero, bad, zero, no, no)
    # Weak types among the optimiser's state would compile the loop a second time for its own result.
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), carry)


@compiled(keep=8)
def _advance(problem, params, data, num_steps, tolerance, carry, stop):
    def running(carry):
        return (carry.step < stop) & ~carry.diverged & ~carry.converged

    def body(carry):
        return _update(problem, params, data, carry, num_steps, tolerance)

    return jax.lax.while_loop(running, body, carry)


@compiled(keep=8)
def _advance_all(problem, params, data, num_steps, tolerance, carries, stop):
    each = partial(_advance.__wrapped__, problem, params, data, num_steps, tolerance)
    return jax.vmap(each, in_axes=(0, None))(carries, stop)


def _update(problem, params, data, carry, num_steps, tolerance):
    """Evaluate, note the best point, and move; a step that is not finite moves nothing and ends the loop."""
    objective = problem.objective(params, data, carry.step)
    value, grad = _value_and_grad(problem, objective, carry)
    bad = {name: ~jnp.isfinite(g).all() for name, g in grad.items()}
    diverged = ~jnp.isfinite(value) | jnp.stack([jnp.zeros((), bool), *bad.values()]).any()
    better = ~diverged & (value < carry.best_loss)
    largest = jnp.stack([jnp.abs(g).max(initial=0.0).astype(value.dtype) for g in grad.values()]).max()
    unchanged = _line_search(carry) & (value == carry.losses[carry.step - 1])
    idle = jnp.where(unchanged, carry.idle + 1, 0)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.with_extra_args_support(problem.optimizer)
        updates, opt_state = optimizer.update(
            grad, carry.opt_state, carry.free, value=value, grad=grad, value_fn=objective
        )
        moved = optax.apply_updates(carry.free, updates)
    return _Carry(
        step=carry.step + jnp.where(diverged, 0, 1),
        free=_where(diverged | (carry.step >= num_steps), carry.free, moved),
        opt_state=_where(diverged, carry.opt_state, opt_state),
        losses=carry.losses.at[carry.step].set(value),
        best_free=_where(better, carry.free, carry.best_free),
        best_loss=jnp.where(better, value, carry.best_loss),
        best_step=jnp.where(better, carry.step, carry.best_step),
        bad=bad,
        idle=idle,
        diverged=diverged,
        converged=((largest <= tolerance) | (idle >= 5)) & (not problem.stacked),
    )


def _value_and_grad(problem, objective, carry):
    """Take value and gradient from a line search that has just computed them, where the data did not change."""
    if problem.stacked or not _line_search(carry):
        return jax.value_and_grad(objective)(carry.free)
    with jax.numpy_dtype_promotion("standard"):
        return optax.value_and_grad_from_state(objective)(carry.free, state=carry.opt_state)


def _line_search(carry) -> bool:
    return optax.tree_utils.tree_get(carry.opt_state, "grad") is not None


def _where(condition, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _run(advance, carry, evaluations, progress):
    """Advance in about fifty chunks; return the last whole one and whether an interrupt ended the run."""
    chunk = max(1, evaluations // 50)
    with tqdm(total=evaluations, disable=not progress, unit="step") as bar:
        try:
            for stop in range(chunk, evaluations + chunk, chunk):
                carry = jax.block_until_ready(advance(carry, min(stop, evaluations)))
                bar.set_postfix(loss=f"{float(carry.best_loss.min()):.4g}", refresh=False)
                bar.update(int(carry.step.max()) - bar.n)
                if bool((carry.diverged | carry.converged).all()):
                    break
        except KeyboardInterrupt:
            return carry, True
    return carry, False


def _result(problem, params, num_steps, carry, interrupted):
    step = min(int(carry.step), num_steps)
    if not np.isfinite(carry.best_loss) and bool(carry.diverged):
        raise ValueError(f"the fit cannot start: at the start {_culprit(problem, carry)}")
    message = f"{step} steps"
    if carry.diverged:
        culprit = _culprit(problem, carry)
        message = f"diverged at step {step}: {culprit}; the best point, after {carry.best_step} steps, is kept"
        warnings.warn(f"the fit {message}", FitWarning, stacklevel=3)
    elif interrupted:
        message = f"interrupted after {step} steps"
    elif carry.converged:
        message = f"converged after {step} steps"
    last = problem.stacked and not carry.diverged
    free = jax.tree.map(jnp.asarray, carry.free if last else carry.best_free)
    return Fit(
        params=problem.coordinates.to_params(free, params),
        losses=np.asarray(carry.losses[:step]),
        best_loss=float(carry.best_loss),
        best_step=int(carry.best_step),
        message=message,
        completed=not (interrupted or bool(carry.diverged)),
    )


def _culprit(problem, carry) -> str:
    """Say what was not finite, and at which values of the parameters concerned."""
    names = [name for name, bad in carry.bad.items() if bad] or list(carry.bad)
    intervals = dict(problem.coordinates.free)
    values = {name: np.asarray(intervals[name].to_value(jnp.asarray(carry.free[name]))) for name in names}
    where = ", ".join(f"{name} = {_summary(value)}" for name, value in values.items())
    loss = float(carry.losses[int(carry.step)])
    gradient = "gradient not finite" if any(carry.bad.values()) else "gradient finite"
    return f"loss = {loss:g}, {gradient}, at {where}"


def _summary(value) -> str:
    return f"{value:.6g}" if value.ndim == 0 else f"[{value.min():.4g} .. {value.max():.4g}]"


def _draw_starts(free, key, num_starts, spread):
    """Return free coordinates [starts, ...]: the start itself, then normal draws around it."""

    def draw(key, z):
        noise = spread * jax.random.normal(key, (num_starts, *z.shape), z.dtype)
        return jnp.broadcast_to(z, noise.shape) + noise.at[0].set(0.0)

    keys = jax.random.split(key, len(free))
    return {name: draw(k, z) for k, (name, z) in zip(keys, free.items(), strict=True)}
