"""What the benchmarks share: interleaved timing, the gradient that is timed, and bytes by XLA's own account."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxlif as jl

#: Does its work once and returns the seconds that it took.
Contender = Callable[[], float]


class Timing(NamedTuple):
    """Median, lower and upper quartile over the rounds, s, and the first call, compilation included, s."""

    median: float
    low: float
    high: float
    first: float


def timed(function: Callable[..., Any], *args: Any) -> Contender:
    """Make a contender of a function of JAX arrays: a call lasts until its results are there."""

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        return time.perf_counter() - start

    return once


def interleave(contenders: Mapping[Any, Contender], rounds: int = 7, at_least: float = 0.02) -> dict[Any, Timing]:
    """Time all contenders in turn in every round, so that a slow moment of the machine falls on all of them.

    Args:
        contenders: what to time, by name.
        rounds: the number of rounds; every second one runs backwards.
        at_least: seconds for which a contender is called again within a round, to average short calls.

    Returns:
        The timing of one call of each; the first call, which compiles, and a second are left out of the median.
    """
    first = {name: run() for name, run in contenders.items()}
    calls = {name: max(1, math.ceil(at_least / run())) for name, run in contenders.items()}
    seconds = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            seconds[name].append(np.mean([contenders[name]() for _ in range(calls[name])]))
    return {name: Timing(*map(float, np.percentile(s, [50, 25, 75])), first[name]) for name, s in seconds.items()}


def gradient(cell: Any, checkpoint: int | None = None, unroll: int = 1) -> Callable[..., Any]:
    """Return the compiled gradient of a loss that weighs every output at every step, (params, inputs, weights)."""

    def loss(params, inputs, weights):
        _, output = jl.simulate(cell, params, inputs, checkpoint=checkpoint, unroll=unroll)
        return sum(jnp.sum(w * y) for w, y in zip(weights, output, strict=True))

    return jax.jit(jax.grad(loss))


def output_weights(cell: Any, params: Any, inputs: Any, seed: int = 0) -> list[jax.Array]:
    """Return the fixed cotangent of every output: normal numbers in the outputs' shapes."""
    shapes = jax.eval_shape(lambda p, x: jl.simulate(cell, p, x)[1], params, inputs)
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(key, y.shape, y.dtype) for key, y in zip(keys, shapes, strict=True)]


def memory(jitted: Any, *args: Any) -> Any:
    """Return XLA's memory analysis of a compiled function, with its ``temp_size_in_bytes`` and so on."""
    return jitted.lower(*args).compile().memory_analysis()
