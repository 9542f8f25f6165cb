"""Neurons that drive one another: the layer, and a derivative that keeps its weight's gradient out of the time loop."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, PyTree

from jaxlif.checks import check_params, floats, require_params
from jaxlif.networks.layers import (
    DenseParams,
    init_dense,
    init_neurons,
    product,
    require_input,
    require_matmul,
    require_weights_for,
    worth_recomputing,
)
from jaxlif.neurons.cell import Cell, RefusesFeedback, check_cell, prepared, require_array_input


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

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        size = jnp.shape(self.weight)[0] if jnp.ndim(self.weight) else None
        floats("weight", self.weight, (size, size), "[N, N]")
        check_params(self.neuron)


class RecurrentState(NamedTuple):
    """The neurons' state, and their spikes [N] of the step before."""

    neuron: PyTree
    spikes: Array


@dataclass(frozen=True)
class Recurrent:
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
        require_matmul(self.matmul)
        require_drivable(self, self.neuron)

    def check(self, params: RecurrentParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        require_params(self, params, RecurrentParams)
        check_cell(self.neuron, params.neuron)
        require_weights_for(self.neuron, DenseParams(weight=params.weight))

    def prepare(self, params: RecurrentParams) -> RecurrentParams:
        """Let the neuron compute once what depends on its parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron))

    def init_state(self, params: RecurrentParams, x: Array) -> RecurrentState:
        """Return fresh neurons, none of which has spiked."""
        require_input(params.weight, x)
        x = jnp.asarray(x, params.weight.dtype)
        neuron = self.neuron.init_state(params.neuron, x)
        spikes = spikes_of(jax.eval_shape(self.neuron.step, params.neuron, neuron, x)[1])
        if spikes.shape != x.shape:  # such as those of parameters [N, 1]
            raise ValueError(f"neuron gives spikes {list(spikes.shape)} for an input {list(x.shape)}: they must agree")
        return RecurrentState(neuron, jnp.zeros_like(x))

    def step(self, params: RecurrentParams, state: RecurrentState, x: Array) -> tuple[RecurrentState, Any]:
        """Advance one step under the current ``x`` [N]; the output is the neuron's."""
        require_input(params.weight, x)
        current = jnp.asarray(x, params.weight.dtype) + product(state.spikes, params.weight, self.matmul)
        neuron, output = self.neuron.step(params.neuron, state.neuron, current)
        return RecurrentState(neuron, output.spikes), output

    def scan(
        self, params: RecurrentParams, state: RecurrentState, inputs: Array, *, unroll: int = 1
    ) -> tuple[RecurrentState, Any]:
        """Advance through ``inputs`` [T, N]; the weight's gradient is one matmul after the backward loop."""
        require_input(params.weight, inputs[0])
        inputs = jnp.asarray(inputs, params.weight.dtype)
        (neuron, spikes), output = _scan(self, unroll, params.neuron, params.weight, tuple(state), inputs)
        return RecurrentState(neuron, spikes), output


def init_recurrent(
    key: Key[Array, ""],
    num_neurons: int,
    *,
    gain: float = 1.0,
    tau_m: Float[Array, "#N"] | np.ndarray | float = 20.0,
    t_ref: float = 0.0,
) -> RecurrentParams:
    r"""Draw normalised neurons and the weights between them, :math:`W_{ij} \sim N(0, g^2 / N)`.

    The eigenvalues of W fill a disc of radius g. Neurons that spike with probability q in a step give one
    another a current of variance :math:`g^2 q`.

    Args:
        key: random key.
        num_neurons: N.
        gain: :math:`g`, in units of the rheobase.
        tau_m: membrane time constant, ms, scalar or [N].
        t_ref: refractory period, ms.

    Returns:
        Neurons of :func:`init_neurons` and the weight [N, N].

    Raises:
        ValueError: for no neuron.

    Example:
        >>> params = init_recurrent(jax.random.key(0), 100)
        >>> params.weight.shape, round(float(params.weight.std() * 100**0.5), 1)
        ((100, 100), 1.0)

    Source: Girko 1985, doi:10.1137/1129095 (the circular law).
    """
    neuron = init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref)
    return RecurrentParams(neuron=neuron, weight=init_dense(key, num_neurons, num_neurons, gain=gain).weight)


def require_drivable(layer: Cell, neuron: Cell) -> None:
    """Refuse a neuron that cannot be fed an array of its own spikes, when the layer is made."""
    require_array_input(layer, neuron)
    if isinstance(neuron, RefusesFeedback) and neuron.no_feedback:
        raise ValueError(
            f"neuron = {type(neuron).__name__}: {type(layer).__name__} feeds spikes back, and {neuron.no_feedback}"
        )


def spikes_of(output: Any) -> Array:
    """Return the spikes of a neuron's output, refusing a cell that has none to feed back."""
    if not hasattr(output, "spikes"):
        raise ValueError(f"neuron gives {type(output).__name__}: a neuron that feeds back needs spikes")
    return output.spikes


# --- the loop over time and its derivative ----------------------------------------------------------------


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
    carry, outputs_dot = jax.lax.scan(
        again, (_moving(cells_dot), spikes_dot), (starts, currents, drive_dot), unroll=unroll
    )
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
