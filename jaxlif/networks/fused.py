"""A neuron whose whole loop over time is one kernel on a GPU: its state stays in registers, its spikes leave as bits.

The kernel is traced from the neuron's own ``step``, its backward pass from that step's derivative: no equation is
written again. Pallas compiles it by Triton; JAX has announced to drop that for a compiler which lacks ``expm1``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jaxtyping import PyTree

from jaxlif.networks.feedback import moving_leaves, with_still
from jaxlif.networks.graph import worth_recomputing
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import Cell
from jaxlif.simulation import scan_cell
from jaxlif.surrogate import for_kernels

_TURN = 4  # steps: read together, their spikes in one byte, and the state before them stored for the backward pass
_BLOCK = 128  # neurons of a program, one for each thread
# What is done to each neuron by itself.
_EACH = """abs add add_any and broadcast_in_dim ceil convert_element_type cos custom_jvp_call div eq exp exp2 expm1
floor ge gt integer_pow jit le log log1p logistic lt max min mul ne neg not or pow rsqrt select_n sign sin spike sqrt
square stop_gradient sub tanh xor""".split()


@dataclass(frozen=True)
class Fused:
    """A neuron that a GPU takes through all steps in one kernel, with its gradient; elsewhere, the neuron as it is.

    A scan over time starts some kernels for every step, and keeps the state of each for the backward pass; this starts
    one, which reads and writes each number once and keeps the state of every fourth step. Parameters, state and output
    are the neuron's. On a GPU there is no forward-mode derivative (``jax.jvp``): take the neuron itself for it.

    Args:
        neuron: a cell that takes an array, whose step treats each neuron by itself and whose spikes are 0 or 1:
            :class:`jaxlif.LIF`, :class:`jaxlif.AdaptiveLIF`, :class:`jaxlif.ResonantLIF`,
            :class:`jaxlif.LeakyIntegrator`, one of your own. A recurrent layer stays a scan: a matmul stands between
            its steps.

    Raises:
        ValueError: for another cell, when it is made or simulated.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, Sequential, init_dense, init_neurons
        >>> network = Sequential((Dense(), Fused(jl.LIF(dt=1.0))))
        >>> params = init_dense(jax.random.key(0), 4, 8, gain=4.0), init_neurons(8)
        >>> jl.simulate(network, params, jnp.ones((20, 4)))[1].output.spikes.shape
        (20, 8)
    """

    neuron: Cell
    no_feedback: ClassVar[str] = "its kernel has no place for them between two steps: give it the neuron itself"

    def __post_init__(self) -> None:
        protocol.require_array_input(self, self.neuron)

    def check(self, params: PyTree) -> None:
        """Refuse what breaks a rule of the neuron."""
        protocol.check_cell(self.neuron, params)

    def check_inputs(self, inputs: Array) -> None:
        """Refuse what breaks a rule of the neuron."""
        protocol.check_inputs(self.neuron, inputs)

    def prepare(self, params: PyTree) -> PyTree:
        """Let the neuron compute once what depends on its parameters alone."""
        return protocol.prepared(self.neuron, params)

    def init_state(self, params: PyTree, x: Array) -> PyTree:
        """Return the neuron's own fresh state."""
        return self.neuron.init_state(params, x)

    def step(self, params: PyTree, state: PyTree, x: Array) -> tuple[PyTree, Any]:
        """Advance the neuron one step."""
        return self.neuron.step(params, state, x)

    def scan(self, params: PyTree, state: PyTree, inputs: Array, *, unroll: int = 1) -> tuple[PyTree, Any]:
        """Take ``inputs`` [T, N] through the neuron: in one kernel on a GPU, elsewhere by its scan."""
        require_separate(self.neuron, params, state, inputs)
        if jax.default_backend() == "gpu":
            return fused_scan(self.neuron, params, state, inputs)
        return scan_cell(self.neuron, params, state, inputs, unroll=unroll, recompute=worth_recomputing(state))


def require_separate(neuron: Cell, params: PyTree, state: PyTree, inputs: Array) -> None:
    """Refuse a cell whose step does not treat each neuron by itself: a block of neurons would lack the others."""
    size, name = _size(state), type(neuron).__name__
    for what, tree in (("state", state), ("params", params), ("input", inputs[0])):
        for shape in {jnp.shape(leaf) for leaf in jax.tree.leaves(tree)} - {size}:
            if what == "state" or np.broadcast_shapes(shape, size) != size:
                rule = "Fused needs one number for each neuron"
                raise ValueError(f"neuron = {name}: {what} of shape {shape} beside a state of {size}: {rule}")

    def _moved(*args: PyTree) -> Any:  # with its derivative, in which a surrogate of one's own shows
        return jax.jvp(neuron.step, args, with_still(args, [jnp.ones_like(x) for x in floating(args)]))

    args = jax.tree.map(jnp.asarray, (params, state, inputs[0]))
    if astray := sorted({*_primitives(jax.make_jaxpr(_moved)(*args).jaxpr)} - {*_EACH}):
        rule = "Fused needs a cell whose step treats each neuron by itself, in plain arithmetic"
        raise ValueError(f"neuron = {name}: {rule}, and this one uses {', '.join(astray)}")


def _primitives(program: Any) -> Iterator[str]:
    """Name what a program computes by, the programs within it included."""
    for equation in program.eqns:
        yield equation.primitive.name
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                yield from _primitives(inner.jaxpr)


def floating(tree: PyTree) -> list[Array]:
    """Return the leaves that have a derivative."""
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]


def _size(state: PyTree) -> tuple[int, ...]:
    return max((jnp.shape(leaf) for leaf in jax.tree.leaves(state)), key=len, default=())


def fused_scan(neuron: Cell, params: PyTree, state: PyTree, inputs: Array) -> tuple[PyTree, Any]:
    """Run a neuron over ``inputs`` [T, ...] in one kernel: the final state and the outputs of its scan. What JAX
    compiles for the processor, beside a card too, interprets the kernel.
    """
    size, dtype = _size(state), protocol.state_dtype(state)

    def _row(x: Any) -> Array:  # [M]; a number of Python's takes the precision of the state that it meets
        x = jnp.asarray(x)
        return jnp.broadcast_to(x.astype(dtype) if jax.typeof(x).weak_type else x, size).ravel()

    inputs = jnp.asarray(inputs, None if floating(inputs) else dtype)
    steps, *each = inputs.shape
    rows = jnp.broadcast_to(inputs.reshape(steps, *(1,) * (len(size) - len(each)), *each), (steps, *size))
    final, outputs = _run(neuron, *jax.tree.map(_row, (params, state)), rows.reshape(steps, -1))
    outputs = jax.tree.map(lambda y: y.reshape(-1, *size), outputs)
    return jax.tree.map(lambda s: s.reshape(size), final), outputs


# --- the scan of M neurons and its derivative -------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(neuron: Cell, params: PyTree, state: PyTree, inputs: Array) -> tuple[PyTree, Any]:
    return _forwards(neuron, params, state, inputs, keep=False)[:2]


def _run_forwards(neuron: Cell, *primals: PyTree) -> tuple[Any, Any]:
    params, state, inputs = custom_vjp_primal_tree_values(primals)
    final, outputs, starts = _forwards(neuron, params, state, inputs, keep=True)
    return (final, outputs), (params, state, starts, inputs)


def _run_backwards(neuron: Cell, kept: tuple[Any, ...], cotangents: tuple[Any, Any]) -> Any:
    params, state, starts, inputs = kept
    ended, wanted = map(moving_leaves, cotangents)
    ended = [jnp.zeros(c.shape, c.dtype) if isinstance(c, SymbolicZero) else c for c in ended]
    # What nobody looks at, such as the voltage of a hidden layer, is not read.
    seen = [None if isinstance(c, SymbolicZero) else c for c in wanted]
    out = floating(params), floating(state), inputs
    d_params, d_state, d_inputs = _launch(partial(_backward_kernel, neuron), out, params, starts, inputs, ended, seen)
    return with_still(params, d_params), with_still(state, d_state), d_inputs


_run.defvjp(_run_forwards, _run_backwards, symbolic_zeros=True)


def _forwards(neuron: Cell, params: PyTree, state: PyTree, inputs: Array, *, keep: bool) -> tuple[PyTree, Any, PyTree]:
    """Return the final state, the outputs [T, M] and, where asked for, the state before each turn."""
    steps, turns = len(inputs), -(-len(inputs) // _TURN)
    output = jax.eval_shape(neuron.step, params, state, inputs[0])[1]

    def _rows(number: int, tree: PyTree, dtype: Any = None) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape), dtype or x.dtype), tree)

    spikes, others = _apart(output)
    out = state, _rows(steps, others), _rows(turns, spikes, jnp.uint8), _rows(turns, state) if keep else None
    final, others, packed, starts = _launch(partial(_forward_kernel, neuron), out, params, state, inputs)
    if spikes is not None:
        bits = jnp.unpackbits(packed[:, None], 1, _TURN, "little").reshape(-1, inputs.shape[1])[:steps]
        others = others._replace(spikes=bits.astype(spikes.dtype))
    return final, others, starts


def _apart(output: Any) -> tuple[Any, Any]:
    """Return the spikes of an output, None where it has none, and the output without them."""
    spikes = output.spikes if isinstance(output, protocol.HasSpikes) else None
    return spikes, output if spikes is None else output._replace(spikes=None)


# --- the kernels, of one block of neurons ------------------------------------------------------------------


def _forward_kernel(
    neuron: Cell, params: PyTree, state: PyTree, inputs: Any, final: PyTree, outputs: Any, packed: Any, starts: PyTree
) -> None:
    load, store = _block_of(inputs.shape[1])
    p = load(params)

    @for_kernels()
    def _turn(turn: Any, rows: list[Any], s: PyTree) -> PyTree:
        if starts is not None:
            store(starts, s, turn)
        fired = []
        for n, x in [(n, load(inputs, n)) for n in rows]:  # all are on their way before the first is needed
            s, output = neuron.step(p, s, x)
            spikes, others = _apart(output)
            store(outputs, others, n)
            fired.append(spikes)
        store(packed, jax.tree.map(_byte, *fired), turn)
        return s

    store(final, _turns(_turn, len(inputs), load(state)))


def _byte(*spikes: Array) -> Array:
    """Pack the spikes of the steps of a turn, the first one's in the lowest bit."""
    return reduce(jnp.bitwise_or, ((s > 0).astype(jnp.int32) << k for k, s in enumerate(spikes))).astype(jnp.uint8)


def _backward_kernel(
    neuron: Cell, params: PyTree, starts: PyTree, inputs: Any, ended: Any, wanted: Any, *found: Any
) -> None:
    load, store = _block_of(inputs.shape[1])
    p, (d_params, d_state, d_inputs) = load(params), found

    @for_kernels()
    def _turn(turn: Any, rows: list[Any], carry: tuple[Any, Any]) -> tuple[Any, Any]:
        s, pulls = load(starts, turn), []
        for n, x, w in [(n, load(inputs, n), load(wanted, n)) for n in rows]:
            (s, output), pull = jax.vjp(neuron.step, p, s, x)
            w = [jnp.zeros_like(y) if c is None else c for y, c in zip(floating(output), w, strict=True)]
            pulls.append((n, pull, s, with_still(output, w)))
        total, moving = carry
        for n, pull, s, w in reversed(pulls):
            dp, ds, dx = pull((with_still(s, moving), w))
            store(d_inputs, dx, n)
            total, moving = jax.tree.map(jnp.add, total, moving_leaves(dp)), moving_leaves(ds)
        return total, moving

    carry = [jnp.zeros_like(x) for x in floating(p)], load(ended)
    store([d_params, d_state], [*_turns(_turn, len(inputs), carry, back=True)])


def _turns(turn: Callable[[Any, list[Any], Any], Any], steps: int, carry: Any, *, back: bool = False) -> Any:
    """Take a carry through all turns of the loop, the last of which may be shorter, or ``back`` through them."""
    whole, left = divmod(steps, _TURN)

    def _taken(n: Any, carry: Any, length: int = _TURN) -> Any:
        return turn(n, [n * _TURN + k for k in range(length)], carry) if length else carry

    carry = _taken(whole, carry, left) if back else carry
    carry = jax.lax.fori_loop(0, whole, lambda i, c: _taken(whole - 1 - i if back else i, c), carry) if whole else carry
    return carry if back else _taken(whole, carry, left)


def _block_of(size: int) -> tuple[Callable[..., PyTree], Callable[..., None]]:
    """Return how this program loads its neurons' numbers, of step or turn n of references [n, M], and stores them."""
    pallas, triton = _pallas()
    block = _block(size)
    first = pallas.program_id(0) * block
    here, inside = pallas.ds(first, block), first + jax.lax.iota(jnp.int32, block) < size

    def _at(ref: Any, n: tuple[Any, ...]) -> Any:
        return ref.at[(*(jnp.asarray(i, jnp.int32) for i in n), here)]

    def _load(refs: PyTree, *n: Any) -> PyTree:
        return jax.tree.map(lambda ref: triton.load(_at(ref, n), mask=inside), refs)

    def _store(refs: PyTree, values: PyTree, *n: Any) -> None:
        jax.tree.map(lambda ref, value: triton.store(_at(ref, n), value, mask=inside), refs, values)

    return _load, _store


def _launch(kernel: Callable[..., None], out: PyTree, *args: PyTree) -> Any:
    """Run a kernel over blocks of neurons; a vmap adds an axis to the grid."""
    pallas, triton = _pallas()
    out = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), out)
    size = jax.tree.leaves(args)[0].shape[-1]
    warps = triton.CompilerParams(num_warps=_block(size) // 32)
    grid = (pallas.cdiv(size, _block(size)),)
    call = partial(pallas.pallas_call, kernel, out, grid=grid, compiler_params=warps)
    # The choice is made here, where nothing is differentiated: a gradient would keep the numbers of both branches, and
    # in a vmap JAX 0.10 failed over their axes.
    return jax.lax.platform_dependent(*args, cuda=call(interpret=False), default=call(interpret=True))


def _block(size: int) -> int:
    return min(_BLOCK, max(32, 1 << (size - 1).bit_length()))


def _pallas() -> tuple[Any, Any]:
    try:
        from jax.experimental import pallas
        from jax.experimental.pallas import triton
    except ImportError as error:
        raise ImportError(f"Fused: JAX {jax.__version__} has no Triton in Pallas; take the neuron itself") from error
    return pallas, triton
