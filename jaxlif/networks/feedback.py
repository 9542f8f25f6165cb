"""Neurons that drive one another, directly or through any path, and neurons with synapses as a layer."""

import math
from abc import ABC
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, PyTree

from jaxlif.checks import check_params, floats, require_params, whole
from jaxlif.networks.graph import require_weights_for, worth_recomputing
from jaxlif.networks.layers import Dense, DenseParams, init_dense, init_neurons, product, require_input, signal
from jaxlif.neurons.cell import (
    Cell,
    RefusesFeedback,
    check_cell,
    check_inputs,
    input_kind,
    prepared,
    require_array_input,
    state_dtype,
    step_size,
)
from jaxlif.neurons.wrappers import EscapeNoise, Noisy
from jaxlif.synapses import Drive, Synaptic, VoltageJump


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: PyTree
    path: PyTree
    spikes: Array


class _Loop(ABC):
    """A ``neuron`` whose spikes reach it one step later through a ``path``; params have a field for each."""

    neuron: Cell
    path: Cell

    def __post_init__(self) -> None:
        neuron = self.neuron.neuron if isinstance(self.neuron, EscapeNoise) else self.neuron
        require_array_input(self, neuron)
        if isinstance(neuron, RefusesFeedback) and neuron.no_feedback:
            name = type(neuron).__name__
            raise ValueError(f"neuron = {name}: {type(self).__name__} feeds spikes back, and {neuron.no_feedback}")

    @property
    def takes(self) -> type | None:
        """The named tuple that the neuron takes, None for an array."""
        return input_kind(self.neuron)

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        check_cell(self.neuron, params.neuron)
        check_cell(self.path, params.path)
        require_weights_for(self.neuron, params.path)

    def check_inputs(self, inputs: PyTree) -> None:
        """Raise ValueError where a concrete input breaks a rule of the neuron."""
        check_inputs(self.neuron, inputs)

    def init_state(self, params: PyTree, x: PyTree) -> FeedbackState:
        """Return fresh neurons, none of which has spiked; their number is that of the input or of their parameters."""
        x = jax.tree.map(lambda x: jnp.asarray(x, state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        output = self.neuron.step(params.neuron, neuron, x)[1]
        if not hasattr(output, "spikes"):
            raise ValueError(f"neuron gives {type(output).__name__}: a neuron that feeds back needs spikes")
        spikes = jnp.zeros_like(output.spikes)
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: PyTree, state: FeedbackState, x: PyTree) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    x = jnp.asarray(x, arriving.dtype)
    if jnp.broadcast_shapes(x.shape, arriving.shape) != arriving.shape:
        raise ValueError(f"path returns {list(arriving.shape)}: it must be what the neurons take, {list(x.shape)}")
    return x + arriving


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """Parameters of neurons that feed back.

    Args:
        neuron: the neuron's own parameters.
        path: those of the way from spikes to input.
    """

    neuron: PyTree
    path: PyTree


@dataclass(frozen=True)
class Feedback(_Loop):
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Dense()))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or such a
            neuron in :class:`EscapeNoise`, whose input is :class:`Noisy`.
        path: a cell that takes the spikes [N]; its signal is added to the input. An input of fewer numbers, such as
            [1], is broadcast to it.

    Raises:
        ValueError: for a neuron or a path with another input, a neuron without spikes, or another dt of the path; while
            simulating, for a path that returns fewer numbers than the input has.

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
        super().__post_init__()
        require_array_input(self, self.path, "path")
        own, way = step_size(self.neuron), step_size(self.path)
        if own is not None and way is not None and not math.isclose(own, way, rel_tol=1e-9):
            raise ValueError(f"dt must be the same: the neuron has {own:g} ms and the path {way:g} ms")

    def prepare(self, params: FeedbackParams) -> FeedbackParams:
        """Let neuron and path compute once what depends on their parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron), path=prepared(self.path, params.path))


# --- directly ---------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RecurrentParams:
    """Parameters of a layer of neurons that project to one another.

    Args:
        neuron: the neuron's own parameters, each leaf a scalar or [N].
        weight: [N, N], from row to column, current per spike of the step before.
    """

    neuron: PyTree
    weight: Float[Array, "N N"]

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
class Recurrent(_Loop):
    r"""Neurons that drive one another one step later: :math:`I_n = x_n + s_{n-1} W`.

    The input is a current [N]: put a :class:`Dense` before it, whose matmul then stays outside the loop over
    time.

    Args:
        neuron: a spiking cell whose input is a current [N].
        matmul: dtype of the factors of :math:`s W`, as for :class:`Dense`; the neurons' state keeps its own.

    Raises:
        ValueError: for another matmul, or a neuron that takes no array or has no spikes.

    Example:
        >>> from jaxlif.neurons.lif import LIF
        >>> cell, params = Recurrent(LIF(dt=1.0)), init_recurrent(jax.random.key(0), 3)
        >>> x = jnp.array([0.0, 50.0, 0.0])
        >>> cell.step(params, cell.init_state(params, x), x)[1].spikes.tolist()
        [0.0, 1.0, 0.0]
    """

    neuron: Cell
    matmul: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_array_input(self, self.neuron)
        _ = self.path  # which refuses another matmul

    @property
    def path(self) -> Dense:  # type: ignore[override] # a field elsewhere; here it follows from another
        """The way back, as a layer."""
        return Dense(self.matmul)

    def check(self, params: RecurrentParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        require_params(self, params, RecurrentParams)
        super().check(params)

    def prepare(self, params: RecurrentParams) -> RecurrentParams:
        """Let the neuron compute once what depends on its parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron))

    def init_state(self, params: RecurrentParams, x: Array) -> FeedbackState:
        """Return fresh neurons, none of which has spiked."""
        require_input(params.weight, x)
        state = super().init_state(params, x)
        require_input(params.weight, state.spikes)  # such as those of neurons [N, 1]
        return state

    def scan(
        self, params: RecurrentParams, state: FeedbackState, inputs: Array, *, unroll: int = 1
    ) -> tuple[FeedbackState, Any]:
        """Advance through ``inputs`` [T, N]; the weight's gradient is one matmul after the backward loop."""
        require_input(params.weight, inputs[0])
        inputs = jnp.asarray(inputs, params.weight.dtype)
        start = (state.neuron, state.spikes)
        (neuron, spikes), output = _scan(self, unroll, params.neuron, params.weight, start, inputs)
        return FeedbackState(neuron, (), spikes), output


def init_recurrent(
    key: Key[Array, ""],
    num_neurons: int,
    *,
    gain: float = 1.0,
    tau_m: Float[ArrayLike, "#N"] | float = 20.0,
    t_ref: float = 0.0,
) -> RecurrentParams:
    r"""Draw the neurons of :func:`init_neurons` and the weights between them, :math:`W_{ij} \sim N(0, g^2 / N)`.

    The eigenvalues of W fill a disc of radius g. Neurons that spike with probability q in a step give one
    another a current of variance :math:`g^2 q`.

    Example:
        >>> params = init_recurrent(jax.random.key(0), 100)
        >>> params.weight.shape, round(float(params.weight.std() * 100**0.5), 1)
        ((100, 100), 1.0)

    Source: Girko 1985, doi:10.1137/1129095 (the circular law).
    """
    neuron = init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref)
    return RecurrentParams(neuron=neuron, weight=init_dense(key, num_neurons, num_neurons, gain=gain).weight)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scan(layer, unroll, params, weight, state, inputs):
    """Scan ``inputs`` [T, N] from ``state``, the neurons' and their last spikes; return the last state and the outputs.

    The tangent of a scan is a scan that is linear in the tangents, and the part of W's tangent is known before it:
    transposed, this is the gradient of W as one matmul after the backward loop, instead of an update in every step.
    """
    state, (outputs, _, _) = _recur(layer, unroll, params, weight, state, inputs)
    return state, outputs


def _recur(layer, unroll, params, weight, state, inputs):
    """Scan, and keep what each step started from: the neurons' state, and their current."""

    def _step(state, x):
        cells, spikes = state
        current = x + product(spikes, weight, layer.matmul)
        after, output = layer.neuron.step(params, cells, current)
        return (after, output.spikes), (output, cells, current)

    return jax.lax.scan(_step, state, inputs, unroll=unroll)


@_scan.defjvp
def _scan_jvp(layer, unroll, primals, tangents):
    params, weight, (cells, spikes), inputs = primals
    params_dot, weight_dot, (cells_dot, spikes_dot), inputs_dot = tangents
    final, (outputs, starts, currents) = _recur(layer, unroll, params, weight, (cells, spikes), inputs)
    before = jnp.concatenate([spikes[None], outputs.spikes[:-1]])
    # Transposed, this product is the weight's gradient: one matmul.
    drive_dot = inputs_dot + product(before, weight_dot, layer.matmul)

    def _step(carry, x):
        moving, spikes_dot = carry
        start, current, drive_dot = x
        current_dot = drive_dot + product(spikes_dot, weight, layer.matmul)
        tangent = (params_dot, _with_still(start, moving), current_dot)
        _, (after_dot, output_dot) = jax.jvp(layer.neuron.step, (params, start, current), tangent)
        return (_moving(after_dot), output_dot.spikes), _moving(output_dot)

    again = jax.checkpoint(_step, prevent_cse=False) if worth_recomputing(cells) else _step
    first = (_moving(cells_dot), spikes_dot)
    carry, outputs_dot = jax.lax.scan(again, first, (starts, currents, drive_dot), unroll=unroll)
    final_dot = (_with_still(final[0], carry[0]), carry[1])
    return (final, outputs), (final_dot, _with_still(outputs, outputs_dot))


def _moving(tangents: PyTree) -> list[Array]:
    """Return the tangents of floating leaves: those of integers, such as steps left, cannot pass through a scan."""
    return [t for t in jax.tree.leaves(tangents) if t.dtype != jax.dtypes.float0]


def _with_still(primal: PyTree, moving: list[Array]) -> PyTree:
    """Return tangents in the form of ``primal``: ``moving`` for its floating leaves, none for the others."""
    leaves, form = jax.tree.flatten(primal)
    rest = iter(moving)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    still = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in leaves]
    return jax.tree.unflatten(form, [next(rest) if f else s for f, s in zip(floating, still, strict=True)])


# --- synapses ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arriving:
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron with synapses of one kind, and not of another below them; put a
            constant current into its ``v_rest``. To a :class:`jaxlif.Conductance` negative weights are refused.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Raises:
        ValueError: for no kind, or another neuron; while simulating, for an input that the kinds do not divide.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Sequential
        >>> neuron = jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> network = Sequential((Dense(), Arriving(neuron)))
        >>> _, output = jl.simulate(network, (init_dense(jax.random.key(0), 4, 3), params), jnp.ones((20, 4)))
        >>> output.output.spikes.shape
        (20, 3)
    """

    neuron: Synaptic
    kinds: int = 1

    def __post_init__(self) -> None:
        whole("kinds", self.kinds, 1)
        if not isinstance(self.neuron, Synaptic):
            raise ValueError(f"neuron = {type(self.neuron).__name__}: Arriving needs a Synaptic neuron")
        require_array_input(self, self.neuron.neuron)

    @property
    def signed(self) -> bool:
        """Whether weights may be negative."""
        return self.neuron.synapse.signed

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Array) -> None:
        """Raise ValueError where a concrete arrival breaks a rule of the synapse."""
        self.neuron.synapse.check_arrivals(inputs)

    def prepare(self, params: PyTree) -> PyTree:
        """Let the neuron compute once what depends on its parameters alone."""
        return prepared(self.neuron, params)

    def init_state(self, params: PyTree, x: Array) -> PyTree:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: PyTree, state: PyTree, x: Array) -> tuple[PyTree, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))

    def _drive(self, x: Array) -> Drive:
        x = jnp.asarray(x, state_dtype(x))
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))
