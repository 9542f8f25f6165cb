"""Neurons that drive one another, directly or through any path."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, PyTree

from jaxlif.checks import check_params, floats, require_params
from jaxlif.networks.graph import require_slope, require_weights_for, worth_recomputing
from jaxlif.networks.layers import Dense, DenseParams, init_dense, init_neurons, require_input, signal
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import Cell
from jaxlif.neurons.wrappers import EscapeNoise, Noisy


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: PyTree
    path: PyTree
    spikes: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """The neuron's own parameters, and those of the way from spikes to input."""

    neuron: PyTree
    path: PyTree


@dataclass(frozen=True)
class Feedback:
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Dense()))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or such a
            neuron in :class:`EscapeNoise`, whose input is :class:`Noisy`.
        path: a cell that takes the spikes [N]; its signal is added to the input. An input of fewer numbers, such as
            [1], is broadcast to it.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Delayed, DelayParams, Sequential
        >>> cell = Feedback(jl.LIF(dt=1.0), Sequential((Delayed(dt=1.0, max_delay=5.0), Dense())))
        >>> path = DelayParams(delay=jnp.linspace(0.0, 5.0, 50)), init_dense(jax.random.key(1), 50, 50, bias=False)
        >>> params = FeedbackParams(neuron=init_neurons(50), path=path)
        >>> jl.simulate(cell, params, jnp.full((100, 1), 1.5))[1].spikes.shape
        (100, 50)

    Source: Queant, Rançon, Cottereau & Masquelier 2025, doi:10.48550/arXiv.2509.24852 (learned recurrent delays).
    """

    neuron: Cell
    path: Cell

    def __post_init__(self) -> None:
        neuron = self.neuron.neuron if isinstance(self.neuron, EscapeNoise) else self.neuron
        protocol.require_array_input(self, neuron)
        if isinstance(neuron, protocol.RefusesFeedback) and neuron.no_feedback:
            name = type(neuron).__name__
            raise ValueError(f"neuron = {name}: {type(self).__name__} feeds spikes back, and {neuron.no_feedback}")
        require_slope(neuron)
        protocol.require_array_input(self, self.path, "path")
        own, way = protocol.step_size(self.neuron), protocol.step_size(self.path)
        if own is not None and way is not None and not math.isclose(own, way, rel_tol=1e-9):
            raise ValueError(f"dt must be the same: the neuron has {own:g} ms and the path {way:g} ms")

    @property
    def takes(self) -> type | None:
        """The named tuple that the neuron takes, None for an array."""
        return protocol.input_kind(self.neuron)

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        protocol.check_cell(self.neuron, params.neuron)
        protocol.check_cell(self.path, params.path)
        require_weights_for(self.neuron, params.path)

    def check_inputs(self, inputs: PyTree) -> None:
        """Raise ValueError where a concrete input breaks a rule of the neuron."""
        protocol.check_inputs(self.neuron, inputs)

    def init_state(self, params: PyTree, x: PyTree) -> FeedbackState:
        """Return fresh neurons, none of which has spiked, as many as the input or their parameters say."""
        x = jax.tree.map(lambda x: jnp.asarray(x, protocol.state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        output = self.neuron.step(params.neuron, neuron, x)[1]
        if not isinstance(output, protocol.HasSpikes):
            raise ValueError(f"neuron gives {type(output).__name__}: a neuron that feeds back needs spikes")
        spikes = jnp.zeros_like(output.spikes)
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: PyTree, state: FeedbackState, x: PyTree) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output

    def prepare(self, params: PyTree) -> PyTree:
        """Let neuron and path compute once what depends on their parameters alone."""
        neuron, path = protocol.prepared(self.neuron, params.neuron), protocol.prepared(self.path, params.path)
        return replace(params, neuron=neuron, path=path)


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    x = jnp.asarray(x, arriving.dtype)
    if jnp.broadcast_shapes(x.shape, arriving.shape) != arriving.shape:
        raise ValueError(f"path returns {list(arriving.shape)}: it must be what the neurons take, {list(x.shape)}")
    return x + arriving


# --- directly ---------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RecurrentParams:
    """The neuron's own parameters, and the weights [N, N], from row to column, current per spike of the step before."""

    neuron: PyTree
    weight: Float[Array | np.ndarray, "N N"]

    @property
    def path(self) -> DenseParams:
        """The weight as the parameters of a dense path."""
        return DenseParams(weight=self.weight)

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        size = jnp.shape(self.weight)[0] if jnp.ndim(self.weight) else None
        floats("weight", self.weight, (size, size), "[N, N]")
        check_params(self.neuron)


@dataclass(frozen=True)
class Recurrent(Feedback):
    r"""Neurons that drive one another one step later: :math:`I_n = x_n + s_{n-1} W`.

    The input is a current [N]: put a :class:`Dense` before it, whose matmul then stays outside the loop over
    time.

    Example:
        >>> from jaxlif.neurons.lif import LIF
        >>> cell, params = Recurrent(LIF(dt=1.0)), init_recurrent(jax.random.key(0), 3)
        >>> x = jnp.array([0.0, 50.0, 0.0])
        >>> cell.step(params, cell.init_state(params, x), x)[1].spikes.tolist()
        [0.0, 1.0, 0.0]
    """

    path: Cell = field(default=Dense(), init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        protocol.require_array_input(self, self.neuron)

    def check(self, params: RecurrentParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        require_params(self, params, RecurrentParams)
        super().check(params)

    def prepare(self, params: PyTree) -> PyTree:
        """Let the neuron compute once what depends on its parameters alone."""
        return replace(params, neuron=protocol.prepared(self.neuron, params.neuron))

    def init_state(self, params: RecurrentParams, x: Array) -> FeedbackState:
        """Return fresh neurons, none of which has spiked."""
        require_input(params.weight, x)
        state = super().init_state(params, jnp.asarray(x, params.weight.dtype))
        require_input(params.weight, state.spikes)  # such as those of neurons [N, 1]
        return state

    def scan(
        self, params: RecurrentParams, state: FeedbackState, inputs: Array, *, unroll: int = 1
    ) -> tuple[FeedbackState, Any]:
        """Advance through ``inputs`` [T, N]; the weight's gradient is one matmul after the backward loop."""
        require_input(params.weight, inputs[0])
        if isinstance(protocol.innermost(self.neuron), protocol.ReverseOnly):
            again = jax.checkpoint(partial(self.step, params), prevent_cse=False)
            return jax.lax.scan(again, state, inputs, unroll=unroll)
        inputs, spikes = (jnp.asarray(x, params.weight.dtype) for x in (inputs, state.spikes))
        start = (state.neuron, spikes)
        (neuron, spikes), output = _scan(self.neuron, unroll, params.neuron, params.weight, start, inputs)
        return FeedbackState(neuron, (), spikes), output


def init_recurrent(
    key: Key[Array, ""],
    num_neurons: int,
    *,
    gain: float = 1.0,
    neuron: PyTree = None,
    tau_m: Float[ArrayLike, "#N"] | float | None = None,
    t_ref: float | None = None,
) -> RecurrentParams:
    r"""Draw the weights between neurons, :math:`W_{ij} \sim N(0, g^2 / N)`, which are those of :func:`init_neurons`.

    The eigenvalues of W fill a disc of radius g; neurons of spike probability q give one another a variance g² q.
    Others come as ``neuron``, the parameters of N of them, such as ``init_adaptive(N)``, or with synapses
    ``SynapticParams(neuron=init_neurons(N), synapse=CurrentParams())``; tau_m and t_ref are then theirs.

    Example:
        >>> params = init_recurrent(jax.random.key(0), 100)
        >>> params.weight.shape, round(float(params.weight.std() * 100**0.5), 1)
        ((100, 100), 1.0)

    Source: Girko 1985, doi:10.1137/1129095 (the circular law).
    """
    if neuron is not None and not (tau_m is None and t_ref is None):
        raise ValueError("tau_m or t_ref is given beside neuron: they must be among the parameters of neuron")
    if neuron is None:
        tau_m, t_ref = 20.0 if tau_m is None else tau_m, 0.0 if t_ref is None else t_ref
        neuron = init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref)
    return RecurrentParams(neuron=neuron, weight=init_dense(key, num_neurons, num_neurons, gain=gain).weight)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scan(neuron: Cell, unroll: int, params: Any, weight: Array, state: Any, inputs: Any) -> tuple[Any, Any]:
    """Scan ``inputs`` [T, N] from the neurons' state and their last spikes; return the last state and the outputs. The
    tangent of W acts before the loop of tangents: transposed, it is one matmul after the backward loop.
    """
    state, (outputs, _, _) = _recur(neuron, unroll, params, weight, state, inputs)
    return state, outputs


def _recur(neuron: Cell, unroll: int, params: Any, weight: Array, state: Any, inputs: Any) -> tuple[Any, Any]:
    """Scan, and keep what each step started from: the neurons' state, and their current."""

    def _step(state: tuple[Any, Array], x: Array) -> tuple[Any, Any]:
        cells, spikes = state
        current = x + spikes @ weight
        after, output = neuron.step(params, cells, current)
        return (after, output.spikes), (output, cells, current)

    return jax.lax.scan(_step, state, inputs, unroll=unroll)


@_scan.defjvp
def _scan_jvp(neuron: Cell, unroll: int, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    params, weight, (cells, spikes), inputs = primals
    params_dot, weight_dot, (cells_dot, spikes_dot), inputs_dot = tangents
    final, (outputs, starts, currents) = _recur(neuron, unroll, params, weight, (cells, spikes), inputs)
    before = jnp.concatenate([spikes[None], outputs.spikes[:-1]])
    # Transposed, this product is the weight's gradient: one matmul.
    drive_dot = inputs_dot + before @ weight_dot

    def _step(carry: tuple[Any, Array], x: tuple[Any, Array, Array]) -> tuple[Any, Any]:
        moving, spikes_dot = carry
        start, current, drive_dot = x
        current_dot = drive_dot + spikes_dot @ weight
        tangent = (params_dot, with_still(start, moving), current_dot)
        _, (after_dot, output_dot) = jax.jvp(neuron.step, (params, start, current), tangent)
        return (moving_leaves(after_dot), output_dot.spikes), moving_leaves(output_dot)

    again = jax.checkpoint(_step, prevent_cse=False) if worth_recomputing(cells) else _step
    first = (moving_leaves(cells_dot), spikes_dot)
    carry, outputs_dot = jax.lax.scan(again, first, (starts, currents, drive_dot), unroll=unroll)
    final_dot = (with_still(final[0], carry[0]), carry[1])
    return (final, outputs), (final_dot, with_still(outputs, outputs_dot))


def moving_leaves(tangents: PyTree) -> list[Array]:
    """Return the tangents of floating leaves: those of integers, such as steps left, cannot pass through a scan."""
    return [t for t in jax.tree.leaves(tangents) if t.dtype != jax.dtypes.float0]


def with_still(primal: PyTree, moving: list[Array]) -> PyTree:
    """Return tangents in the form of ``primal``: ``moving`` for its floating leaves, none for the others."""
    leaves, form = jax.tree.flatten(primal)
    rest = iter(moving)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    still = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in leaves]
    return jax.tree.unflatten(form, [next(rest) if f else s for f, s in zip(floating, still, strict=True)])
