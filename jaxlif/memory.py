"""How much memory will a gradient through time need, and how often must it be cut to fit?"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxlif.checks import check_params, input_arrays, number, require_positive, whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a gradient will need, in bytes, by the compiler's own account.

    Args:
        checkpoint: steps in a segment, for :func:`jaxlif.simulate`; None where everything may be kept.
        arguments: the parameters and inputs themselves.
        outputs: the loss and its gradient.
        temporaries: everything in between, at its highest.
    """

    checkpoint: int | None
    arguments: int
    outputs: int
    temporaries: int

    @property
    def total(self) -> int:
        """All of it, bytes."""
        return self.arguments + self.outputs + self.temporaries


def plan(
    objective: Callable[[Any, Any, int | None], jax.Array],
    params: Any,
    inputs: Any,
    *,
    budget_mb: float | None = None,
    steps: int | None = None,
) -> Plan:
    r"""Predict the memory of a gradient through time before it runs, and choose checkpoints that fit a budget.

    The gradient is compiled and not run, so that arrays may be given as ``jax.ShapeDtypeStruct``. Without checkpoints
    it keeps a few numbers for each of the T steps; in segments of K it keeps the state at T/K places and one segment,
    :math:`m(K) \approx a\,T/K + b\,K`, least near :math:`\sqrt{T}`, and computes the forward pass once more.

    Args:
        objective: ``objective(params, inputs, checkpoint)``, the scalar loss; it hands ``checkpoint`` to
            :func:`jaxlif.simulate`.
        params: with respect to which the gradient is taken.
        inputs: a pytree of arrays [T, ...].
        budget_mb: for arguments, outputs and temporaries together, MB (1e6 bytes); no limit by default.
        steps: T, where it is not the inputs' first axis (such as [B, T, ...] for a batch).

    Returns:
        The :class:`Plan` with the fewest checkpoints that fits.

    Raises:
        ValueError: for a budget that is not positive, or below what any checkpoint reaches; the message says the least.
        RuntimeError: where the device's compiler does not tell.

    Example:
        >>> import jaxlif as jl
        >>> def objective(params, current, checkpoint):
        ...     return jnp.mean(jl.simulate(jl.LIF(), params, current, checkpoint=checkpoint)[1].v)
        >>> current = jax.ShapeDtypeStruct((100_000,), jnp.float32)
        >>> free, tight = (plan(objective, jl.LIFParams(), current, budget_mb=mb) for mb in (10.0, 2.0))
        >>> free.checkpoint, tight.checkpoint, tight.total < 2e6 < free.total
        (None, 316, True)

    Source: Griewank & Walther 2000, doi:10.1145/347837.347846 (trading recomputation for memory).
    """
    if budget_mb is not None:
        require_positive("budget_mb", number("budget_mb", budget_mb, "MB"), "MB")
    check_params(params)
    inputs = input_arrays(inputs)
    shapes = [jnp.shape(x) for x in jax.tree.leaves(inputs)]
    if steps is None and not (shapes and shapes[0]):
        raise ValueError(f"inputs have shapes {shapes}: they must be arrays [T, ...], or steps must be given")
    steps = shapes[0][0] if steps is None else whole("steps", steps, 1)
    root = max(round(steps**0.5), 1)
    tried = []
    for checkpoint in (None, root, max(root // 4, 1), min(4 * root, steps)):
        tried.append(_compiled(objective, params, inputs, checkpoint))
        log.info("checkpoint = %s: %.1f MB", checkpoint, tried[-1].total / 1e6)
        if budget_mb is None or tried[-1].total <= 1e6 * budget_mb:
            return tried[-1]
    least = min(tried, key=lambda p: p.total)
    raise ValueError(
        f"budget_mb = {budget_mb:g} MB: the least is {least.total / 1e6:.1f} MB, with checkpoint = {least.checkpoint}, "
        f"of which {(least.arguments + least.outputs) / 1e6:.1f} MB are the parameters, the inputs and the gradient"
    )


def _compiled(objective: Callable, params: Any, inputs: Any, checkpoint: int | None) -> Plan:
    """Compile the value and gradient, and read what it will need."""
    gradient = jax.value_and_grad(lambda p, x: objective(p, x, checkpoint), allow_int=True)
    memory = jax.jit(gradient).lower(params, inputs).compile().memory_analysis()
    if memory is None:
        raise RuntimeError(f"the compiler for {jax.default_backend()} does not say how much memory a program needs")
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    return Plan(checkpoint, *sizes)
