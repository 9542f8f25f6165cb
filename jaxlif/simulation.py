"""The one scan over time that every cell shares."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxlif import checks
from jaxlif.compiled import compiled
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import Cell

_Witness = Callable[[Cell, Any], None]
_WITNESS: ContextVar[_Witness | None] = ContextVar("witness", default=None)


@contextmanager
def witnessed(see: _Witness) -> Iterator[None]:
    """Show a function each cell that is simulated within, with its outputs: a loss says nothing of the layers in it."""
    token = _WITNESS.set(see)
    try:
        yield
    finally:
        _WITNESS.reset(token)


def simulate(
    cell: Cell,
    params: PyTree,
    inputs: PyTree,
    state: PyTree = None,
    *,
    checkpoint: int | None = None,
    truncate: int | None = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    r"""Run a cell over time: :math:`(s_{n+1}, y_n) = step(p, s_n, x_n)` for n = 0 .. T-1, as one compiled scan.

    ``inputs[n]`` is held from n dt to (n + 1) dt and ``output[n]`` belongs to (n + 1) dt. The call compiles once for
    each cell (by value), shape and dtype; new parameter values reuse it. Inputs and parameters may come in half
    precision: the state never does.

    Args:
        cell: a frozen, hashable cell.
        params: its parameters, a pytree.
        inputs: a pytree of arrays [T, ...]; for a neuron the current [T] or [T, N], pA.
        state: where to start, such as the final state of an earlier call; fresh by default.
        checkpoint: recompute the backward pass in segments of this many steps: memory for T/checkpoint states and one
            segment instead of T steps, for about one more forward pass. The gradient is the same.
        truncate: cut the gradient through the state between segments of this many steps: truncated back-propagation
            through time (Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490). No value changes.
        unroll: steps per iteration of the compiled loop; helps on a GPU, slows a CPU down.

    Returns:
        The final state, and the outputs stacked over time [T, ...].

    Example:
        >>> import jaxlif as jl
        >>> _, output = simulate(jl.LIF(dt=0.1), jl.LIFParams(), jnp.full(1000, 300.0))
        >>> output.v.shape, int(output.spikes.sum())
        ((1000,), 10)
    """
    _require_cell(cell)
    inputs = checks.input_arrays(inputs)
    steps, unroll = checks.length("inputs", inputs, "steps"), checks.whole("unroll", unroll, 1)
    asked = {"checkpoint": checkpoint, "truncate": truncate}
    lengths = (None if n is None else min(checks.whole(name, n, 1, "steps"), steps) for name, n in asked.items())
    checks.check_params(params)
    try:
        protocol.check_cell(cell, params)
        protocol.check_inputs(cell, inputs)
        final: tuple[Any, Any] = _simulate(cell, *lengths, unroll, params, inputs, state)
    except AttributeError as error:  # such as the parameters of another cell
        kinds = f"params = {type(params).__name__}, inputs = {type(inputs).__name__}"
        raise ValueError(f"{kinds}: {type(cell).__name__} takes others ({error})") from error
    if (see := _WITNESS.get()) is not None:
        see(cell, final[1])
    return final


@compiled(values=4, keep=64)
def _simulate(
    cell: Cell, checkpoint: int | None, truncate: int | None, unroll: int, params: PyTree, inputs: PyTree, state: PyTree
) -> tuple[Any, Any]:
    params, state = jax.tree.map(checks.single, (params, state))
    fresh = cell.init_state(params, jax.tree.map(lambda x: checks.single(jnp.asarray(x)[0]), inputs))
    state = fresh if state is None else of_this_cell(state, fresh)
    run = partial(scan_cell, cell, params, unroll=unroll)
    if checkpoint is not None:
        run = partial(segmented, jax.checkpoint(run), segment=checkpoint)
    if truncate is None:
        return run(state, inputs)

    def _cut(carry: tuple[Any, Any], x: PyTree) -> tuple[Any, Any]:
        first, state = carry  # where the run starts the state may depend on the parameters, such as v_rest
        state = jax.tree.map(lambda s: jnp.where(first, s, jax.lax.stop_gradient(s)), state)
        state, output = run(state, x)
        return (jnp.zeros_like(first), state), output

    (_, state), output = segmented(_cut, (jnp.ones((), bool), state), inputs, truncate)
    return state, output


def scan_cell(
    cell: Cell, params: Any, state: Any, inputs: Any, *, unroll: int = 1, recompute: bool = True
) -> tuple[Any, Any]:
    """Run a cell over the time axis, by its own ``scan`` where it has one: :func:`simulate` without checks or jit.
    ``unroll`` reaches its inner loops too; ``recompute`` lets the backward pass compute each step again.
    """
    params = protocol.prepared(cell, params)
    if isinstance(cell, protocol.Scans):
        return cell.scan(params, state, inputs, unroll=unroll)
    # A step is computed again in the backward pass instead of keeping its intermediate numbers: a LIF's gradient takes
    # half the memory in about the same time, one with conductances a thirteenth. What a cell names is kept.
    step, kept = partial(cell.step, params), jax.checkpoint_policies.save_only_these_names(protocol.KEPT)
    again = jax.checkpoint(step, prevent_cse=False, policy=kept) if recompute else step
    return jax.lax.scan(again, state, inputs, unroll=unroll)


def segmented(run: Any, state: PyTree, inputs: PyTree, segment: int) -> tuple[Any, Any]:
    """Run whole segments in an outer scan, then what is left over."""
    steps = checks.length("inputs", inputs, "steps")
    if steps <= segment:
        return run(state, inputs)  # type: ignore[no-any-return]
    whole = steps - steps % segment
    head = jax.tree.map(lambda x: x[:whole].reshape((-1, segment) + x.shape[1:]), inputs)
    state, outputs = jax.lax.scan(run, state, head)
    outputs = jax.tree.map(lambda y: y.reshape((whole,) + y.shape[2:]), outputs)
    if whole == steps:
        return state, outputs
    state, tail = run(state, jax.tree.map(lambda x: x[whole:], inputs))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, tail)


def of_this_cell(state: Any, fresh: Any) -> Any:
    """Return a state, refusing that of another cell or size than a fresh one, or the shapes of one."""
    given, own = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (state, fresh))
    forms = [jax.tree.structure(tree) for tree in (state, fresh)]
    if given != own or forms[:1] != forms[1:]:
        raise ValueError(f"state = {type(state).__name__} with shapes {given}: it must be the cell's, {own}")
    return state


def _require_cell(cell: Cell) -> None:
    if not protocol.is_cell(cell):
        raise ValueError(f"cell = {protocol.kind_of(cell)}: a cell must be a value with a step, such as LIF(dt=0.1)")
    try:
        hash(cell)
    except TypeError as error:
        message = f"cell = {type(cell).__name__}: a cell must be a frozen dataclass of hashable fields ({error})"
        raise ValueError(message) from error
