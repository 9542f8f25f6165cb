"""The scan of a recurrent layer, whose derivative keeps the weight's gradient out of the loop over time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.networks.precision import product
from jaxlif.neurons.cell import Cell


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def scan_recurrent(
    neuron: Cell, matmul: str | None, params: Any, weight: Array, state: tuple[Any, Array], inputs: Array
) -> tuple[tuple[Any, Array], Any]:
    r"""Scan neurons that drive one another, :math:`I_n = x_n + s_{n-1} W`.

    The tangent of a scan is a scan that is linear in the tangents, and the part of W's tangent is known before it:
    transposed, this is the gradient of W as one matmul after the backward loop, instead of an update in every step.

    Args:
        neuron: a spiking cell whose input is a current [N].
        matmul: dtype of the factors of :math:`s W`; None for the weight's own.
        params: its parameters.
        weight: W [N, N].
        state: the neurons' state, and their spikes [N] of the step before.
        inputs: x [T, N].

    Returns:
        The final state and the neuron's outputs [T, ...].
    """
    state, (outputs, _, _) = _recur(neuron, matmul, params, weight, state, inputs)
    return state, outputs


def _recur(neuron, matmul, params, weight, state, inputs):
    """Scan, and keep what each step started from: the neurons' state, and their current."""

    def step(state, x):
        cells, spikes = state
        current = x + product(spikes, weight, matmul)
        after, output = neuron.step(params, cells, current)
        return (after, output.spikes), (output, cells, current)

    return jax.lax.scan(step, state, inputs)


@scan_recurrent.defjvp
def _scan_recurrent_jvp(neuron, matmul, primals, tangents):
    params, weight, (cells, spikes), inputs = primals
    params_dot, weight_dot, (cells_dot, spikes_dot), inputs_dot = tangents
    final, (outputs, starts, currents) = _recur(neuron, matmul, params, weight, (cells, spikes), inputs)
    before = jnp.concatenate([spikes[None], outputs.spikes[:-1]])
    drive_dot = inputs_dot + product(before, weight_dot, matmul)  # transposed: the weight's gradient, one matmul

    def step(carry, x):
        moving, spikes_dot = carry
        start, current, drive_dot = x
        current_dot = drive_dot + product(spikes_dot, weight, matmul)
        primal = (params, start, current)
        tangent = (params_dot, _with_still(start, moving), current_dot)
        _, (after_dot, output_dot) = jax.jvp(neuron.step, primal, tangent)
        return (_moving(after_dot), output_dot.spikes), _moving(output_dot)

    again = jax.checkpoint(step, prevent_cse=False) if worth_recomputing(cells) else step
    carry, outputs_dot = jax.lax.scan(again, (_moving(cells_dot), spikes_dot), (starts, currents, drive_dot))
    final_dot = (_with_still(final[0], carry[0]), carry[1])
    return (final, outputs), (final_dot, _with_still(outputs, outputs_dot))


def _moving(tangents: Any) -> list[Array]:
    """Return the tangents of floating leaves: those of integers, such as steps left, cannot pass through a scan."""
    return [t for t in jax.tree.leaves(tangents) if t.dtype != jax.dtypes.float0]


def _with_still(primal: Any, moving: list[Array]) -> Any:
    """Return tangents in the form of ``primal``: ``moving`` for its floating leaves, none for the others."""
    leaves, form = jax.tree.flatten(primal)
    rest = iter(moving)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    still = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in leaves]
    return jax.tree.unflatten(form, [next(rest) if f else s for f, s in zip(floating, still, strict=True)])


def worth_recomputing(state: Any) -> bool:
    """Say whether the backward pass of a layer should make a step's intermediate numbers anew, not keep them.

    A step with several state variables has many: recomputing takes half to two thirds of the time. A plain neuron with
    its voltage alone has few, which are read faster than made.
    """
    return sum(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)) > 1
