"""Fit any pytree of parameters to any differentiable loss, as one compiled loop that knows no neuron."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from jaxlif.checks import arrays_of_numbers, function, length, number, optimiser, random_key, scalar, whole
from jaxlif.compiled import compiled
from jaxlif.fitting.bounds import Bounds, Coordinates, coordinates

IDLE = 5  # steps in a row that change nothing, after which a line search has ended
SPREAD = 2.0  # standard deviation of other starts around the first: most of a finite interval


# The zoom line search of ``optax.lbfgs()`` can fail to end at the floor of rounding; this one halves thirty times.
_LBFGS = optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(max_backtracking_steps=30, store_grad=True))


def lbfgs() -> optax.GradientTransformationExtraArgs:
    """Return L-BFGS (Liu & Nocedal 1989, doi:10.1007/BF01589116), for smooth losses over all data; always the same."""
    return _LBFGS


@dataclass(frozen=True)
class Fit:
    """The result of :func:`fit` and :func:`multistart`.

    Where every step has the same data and no key, losses compare, and ``params`` are the point of the smallest one;
    otherwise the last point, which must have a finite loss too.
    """

    params: PyTree
    loss: float  # of params; with batches, of the batch that came next
    step: int  # the number of updates that led to params
    losses: Float[np.ndarray, " steps"]  # before each update
    message: str  # how the fit ended
    completed: bool  # False where it diverged or was interrupted
    starts: Float[np.ndarray, " starts"]  # the loss that each start ended at, inf where it was never finite


def fit(
    loss: Callable[..., Array],
    params: PyTree,
    bounds: Bounds,
    *,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    data: PyTree = None,
    batches: PyTree = None,
    key: PRNGKeyArray | None = None,
    tolerance: float = 0.0,
    progress: bool = False,
) -> Fit:
    r"""Minimise ``loss`` over the parameters that ``bounds`` name, in coordinates without bounds.

    Ctrl-C ends the fit and keeps the point reached. The same ``loss``, bounds and ``optimizer`` compile once; the last
    8 such problems are kept, with what their losses hold.

    Args:
        loss: ``loss(params)``, ``loss(params, batch)`` where data or batches are given, ``loss(params, batch, key)``
            where a key is given too; a scalar. The same form as for :func:`jaxlif.networks.train`.
        params: the start, a pytree; its leaves have dotted names such as ``tau_m`` or ``hidden.neuron.tau_m``.
        bounds: the free names, each with (low, high) in its unit, ``REAL`` for none; names may be patterns such as
            ``*.tau_m``. What is not named stays fixed.
        optimizer: any Optax optimiser, such as :func:`lbfgs`. With a line search the fit also ends where five steps in
            a row change nothing.
        num_steps: updates.
        data: the batch of every step. Large arrays belong here: in the closure of ``loss`` they are constants.
        batches: instead of ``data``, a pytree of arrays [batches, ...]; step k sees batch k modulo their number.
        key: of a loss that draws; each step gets one of its own. Without data its batch is None.
        tolerance: stop where no component of the gradient (in free coordinates) exceeds this.
        progress: show a progress bar.

    Returns:
        The :class:`Fit`. One that diverged warns, as does one whose loss did not depend on a free parameter.
        A start outside its bounds, or where the loss is not finite, is refused.

    Example:
        >>> from jaxlif import LIFParams
        >>> loss, options = lambda p: (p.tau_m - 20.0) ** 2, {"optimizer": optax.adam(0.1), "num_steps": 300}
        >>> result = fit(loss, LIFParams(), {"tau_m": (2.0, 60.0)}, **options)
        >>> round(float(result.params.tau_m), 3)
        20.0
    """
    problem, given = _problem(loss, params, bounds, optimizer, num_steps, tolerance), _given(data, batches, key)
    carry = _start(problem, params, given, problem.coordinates.to_free(params))
    carry, interrupted = _run(partial(_advance, problem, False, params, given), carry, num_steps + 1, progress)
    return _result(problem, params, carry, np.atleast_1d(carry.loss), interrupted)


def multistart(
    loss: Callable[..., Array],
    params: PyTree,
    bounds: Bounds,
    *,
    key: PRNGKeyArray,
    num_starts: int,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    data: PyTree = None,
) -> Fit:
    """Fit as :func:`fit` does from several starts at once, by ``vmap``, and keep the one that ended lowest.

    The key draws the others around the first, ``params``, in free coordinates with a standard deviation of 2.

    Example:
        >>> from jaxlif import LIFParams
        >>> options = {"key": jax.random.key(0), "num_starts": 4, "optimizer": optax.adam(0.1), "num_steps": 200}
        >>> result = multistart(lambda p: jnp.cos(p.tau_m), LIFParams(), {"tau_m": (2.0, 60.0)}, **options)
        >>> round(float(jnp.cos(result.params.tau_m)), 6), result.starts.shape
        (-1.0, (4,))
    """
    problem, given = _problem(loss, params, bounds, optimizer, num_steps, 0.0), _given(data, None, None)
    free, num_starts = problem.coordinates.to_free(params), whole("num_starts", num_starts, 1)
    keys = zip(jax.random.split(random_key(key), len(free)), free.items(), strict=True)
    draws = {name: jax.random.normal(k, (num_starts, *z.shape), z.dtype).at[0].set(0.0) for k, (name, z) in keys}
    starts = {name: z[None] + SPREAD * draws[name] for name, z in free.items()}
    carry = jax.vmap(partial(_start, problem, params, given))(starts)
    carry, interrupted = _run(partial(_advance, problem, True, params, given), carry, num_steps + 1, False)
    best = jax.tree.map(lambda x: x[int(np.argmin(carry.loss))], carry)
    return _result(problem, params, best, carry.loss, interrupted)


@dataclass(frozen=True)
class _Problem:
    """What a compiled fit depends on besides shapes: a hashable value."""

    loss: Callable[..., Array]
    coordinates: Coordinates
    optimizer: optax.GradientTransformation
    num_steps: int
    tolerance: float

    def objective(self, params: PyTree, given: "_Given", step: Any) -> Callable[[dict[str, Array]], Array]:
        """Return the loss as a function of the free coordinates at a step."""
        return lambda free: self.loss(self.coordinates.to_params(free, params), *given.at(step))


class _Given(NamedTuple):
    """What the loss gets beside the parameters; where it changes from step to step, losses do not compare."""

    data: PyTree
    batches: PyTree
    key: Array | None

    @property
    def changes(self) -> bool:
        """Say whether a step's loss is of other data or noise than the last one's."""
        return self.batches is not None or self.key is not None

    def at(self, step: Any) -> tuple[Any, ...]:
        """Return what the loss gets in a step, after the parameters."""
        batches = self.batches
        data = self.data if batches is None else jax.tree.map(lambda x: x[step % len(x)], batches)
        if self.key is not None:
            return data, jax.random.fold_in(self.key, step)
        return () if data is None else (data,)


class _Carry(NamedTuple):
    step: Array
    free: dict[str, Array]
    opt_state: Any
    losses: Array
    kept: dict[str, Array]  # the free coordinates that are handed out, their loss and how many updates led to them
    loss: Array
    kept_step: Array
    steepest: dict[str, Array]  # the largest component of the gradient in each so far; not finite if one was not
    idle: Array  # steps in a row that did not change the loss
    diverged: Array
    converged: Array


def _problem(loss: Any, params: PyTree, bounds: Bounds, optimizer: Any, num_steps: int, tolerance: float) -> _Problem:
    num_steps, tolerance = whole("num_steps", num_steps, 1), float(number("tolerance", tolerance))
    return _Problem(function("loss", loss), coordinates(params, bounds), optimiser(optimizer), num_steps, tolerance)


def _given(data: PyTree, batches: PyTree, key: PRNGKeyArray | None) -> _Given:
    arrays_of_numbers("data", data)
    arrays_of_numbers("batches", batches)
    if data is not None and batches is not None:
        raise ValueError("data and batches are both given: pass one of them")
    if batches is not None:
        length("batches", batches, "batches")
    return _Given(data, batches, None if key is None else random_key(key))


def _start(problem: _Problem, params: PyTree, given: _Given, free: dict[str, Array]) -> _Carry:
    value = jax.eval_shape(problem.objective(params, given, 0), free)
    scalar("the loss", value, np.floating)
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        opt_state = problem.optimizer.init(free)
    infinite = jnp.full((), jnp.inf, value.dtype)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    losses, steepest = jnp.full(problem.num_steps + 1, infinite), dict.fromkeys(free, jnp.zeros_like(infinite))
    carry = _Carry(zero, free, opt_state, losses, free, infinite, zero, steepest, zero, no, no)
    # Weak types among the optimiser's state would compile the loop a second time for its own result.
    return _Carry(*jax.tree.map(lambda x: jnp.asarray(x, x.dtype), carry))


@compiled(values=2, keep=8)
def _advance(problem: _Problem, several: bool, params: PyTree, given: _Given, carry: _Carry, stop: Array) -> Any:
    """Take the steps up to a number of them, of one start or of several."""

    def _running(carry: _Carry) -> Array:
        return (carry.step < stop) & ~carry.diverged & ~carry.converged

    def _loop(carry: _Carry) -> Any:
        return jax.lax.while_loop(_running, partial(_update, problem, params, given), carry)

    return jax.vmap(_loop)(carry) if several else _loop(carry)


def _update(problem: _Problem, params: PyTree, given: _Given, carry: _Carry) -> _Carry:
    """Evaluate, keep the point, and move; a step that is not finite moves nothing, and the last one evaluates only."""
    objective = problem.objective(params, given, carry.step)
    value, grad = _value_and_grad(objective, given, carry)
    slopes = {name: jnp.abs(g).max(initial=0.0).astype(value.dtype) for name, g in grad.items()}
    largest = jnp.stack([*slopes.values()]).max()
    # In this form XLA computes it once; of the largest component it would again in every fusion that asks.
    diverged = ~jnp.isfinite(value) | jnp.stack([~jnp.isfinite(g).all() for g in grad.values()]).any()
    kept = ~diverged & (given.changes | (value < carry.loss))
    unchanged = _line_search(carry) & (value == carry.losses[carry.step - 1])
    idle = jnp.where(unchanged, carry.idle + 1, 0)
    moved, opt_state = update(problem.optimizer, carry.free, carry.opt_state, objective, value, grad)
    return _Carry(
        step=carry.step + jnp.where(diverged, 0, 1),
        free=_where(diverged | (carry.step >= problem.num_steps), carry.free, moved),
        opt_state=_where(diverged, carry.opt_state, opt_state),
        losses=carry.losses.at[carry.step].set(value),
        kept=_where(kept, carry.free, carry.kept),
        loss=jnp.where(kept, value, carry.loss),
        kept_step=jnp.where(kept, carry.step, carry.kept_step),
        steepest=jax.tree.map(jnp.maximum, carry.steepest, slopes),
        idle=idle,
        diverged=diverged,
        converged=((largest <= problem.tolerance) | (idle >= IDLE)) & (not given.changes),
    )


def update(optimizer: Any, free: Any, opt_state: Any, value_fn: Any, value: Any, grad: Any) -> tuple[Any, Any]:
    """Return the free coordinates and the optimiser's state after an update."""
    with jax.numpy_dtype_promotion("standard"):  # Optax itself is not clean under strict promotion
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, opt_state = optax.with_extra_args_support(optimizer).update(grad, opt_state, free, **extra)
        return optax.apply_updates(free, updates), opt_state


def _value_and_grad(objective: Callable[..., Array], given: _Given, carry: _Carry) -> Any:
    """Take value and gradient from a line search that has just computed them, where the data did not change."""
    if given.changes or not _line_search(carry):
        return jax.value_and_grad(objective)(carry.free)
    with jax.numpy_dtype_promotion("standard"):
        return optax.value_and_grad_from_state(objective)(carry.free, state=carry.opt_state)


def _line_search(carry: _Carry) -> bool:
    return optax.tree_utils.tree_get(carry.opt_state, "grad") is not None


def _where(condition: Array, yes: PyTree, no: PyTree) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _run(advance: Callable[..., Any], carry: _Carry, evaluations: int, progress: bool) -> tuple[_Carry, bool]:
    """Advance in about fifty chunks; return the last whole one and whether an interrupt ended the run."""
    chunk, interrupted = max(1, evaluations // 50), False
    with tqdm(total=evaluations, disable=not progress, unit="step") as bar:
        try:
            for stop in range(chunk, evaluations + chunk, chunk):
                carry = jax.block_until_ready(advance(carry, min(stop, evaluations)))
                bar.set_postfix(loss=f"{float(carry.loss.min()):.4g}", refresh=False)
                bar.update(int(carry.step.max()) - bar.n)
                if bool((carry.diverged | carry.converged).all()):
                    break
        except KeyboardInterrupt:
            interrupted = True
    return jax.device_get(carry), interrupted


def _result(problem: _Problem, params: PyTree, carry: _Carry, starts: Any, interrupted: bool) -> Fit:
    if carry.diverged and not np.isfinite(carry.loss):
        raise ValueError(f"the fit cannot start: at the start {_culprit(problem, carry)}")
    steps = min(int(carry.step), problem.num_steps)
    message, sound = _ending(problem, carry, steps, interrupted)
    if not sound:
        warnings.warn(f"the fit ended: {message}", stacklevel=3)
    return Fit(
        params=problem.coordinates.to_params(jax.tree.map(jnp.asarray, carry.kept), params),
        loss=float(carry.loss),
        step=int(carry.kept_step),
        losses=np.asarray(carry.losses[:steps]),
        message=message,
        completed=not (interrupted or bool(carry.diverged)),
        starts=np.asarray(starts),
    )


def _ending(problem: _Problem, carry: _Carry, steps: int, interrupted: bool) -> tuple[str, bool]:
    """Say how a fit ended, and whether without anything to warn of."""
    if carry.diverged:
        after = f"the point after {carry.kept_step} steps is kept"
        return f"diverged at step {steps}: {_culprit(problem, carry)}; {after}", False
    flat = ", ".join(name for name, slope in carry.steepest.items() if steps and slope == 0)
    if carry.converged and not any(carry.steepest.values()):
        return f"nothing moved: the loss does not depend on {flat} at the start (its gradient there is 0)", False
    how = "interrupted after " if interrupted else "converged after " * bool(carry.converged)
    blind = f"; the loss does not depend on {flat} (its gradient was 0 at every step)" if flat else ""
    return f"{how}{steps} steps{blind}", not flat


def _culprit(problem: _Problem, carry: _Carry) -> str:
    """Say what was not finite, and at which values of the parameters concerned."""
    bad = [name for name, slope in carry.steepest.items() if not np.isfinite(slope)]
    values = {n: np.asarray(x.to_value(jnp.asarray(carry.free[n]))) for n, x in problem.coordinates.free}
    texts = {n: f"{x:.6g}" if x.ndim == 0 else f"[{x.min():.4g} .. {x.max():.4g}]" for n, x in values.items()}
    where = ", ".join(f"{name} = {texts[name]}" for name in bad or texts)
    return f"loss = {float(carry.losses[int(carry.step)]):g}, gradient {'not ' * bool(bad)}finite, at {where}"
