"""Long recordings in segments of a few lengths: what a fit compiles and holds does not grow with every length."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxlif.simulation import simulate

SEGMENT = 2**15  # steps: of all that is longer


def padded_length(steps: int) -> int:
    """Return the next of the lengths that programs are compiled for, four in an octave: at most a quarter more."""
    grain = 1 << max(0, (steps - 1).bit_length() - 3)
    return -(-steps // grain) * grain


def cut(arrays: Any) -> Iterator[tuple[slice, Any]]:
    """Cut arrays [T, ...] into segments of one length, the last filled up with zeros; yield each with its place."""
    steps = len(jax.tree.leaves(arrays)[0])
    size = padded_length(min(steps, SEGMENT))
    for first in range(0, steps, size):
        place = slice(first, min(first + size, steps))
        yield place, jax.tree.map(lambda x, place=place: filled(x[place], size), arrays)


def filled(x: np.ndarray, length: int) -> np.ndarray:
    """Return an array [T, ...] with zeros up to a length."""
    return x if len(x) == length else np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])


def simulated(cell: Any, params: Any, inputs: Any, state: Any) -> Iterator[tuple[slice, Any]]:
    """Simulate inputs [T, ...] in segments, the state handed on; yield the place of each and its outputs."""
    for place, part in cut(inputs):
        state, outputs = simulate(cell, params, part, state)
        count = place.stop - place.start
        yield place, jax.tree.map(lambda y, count=count: np.asarray(y)[:count], outputs)
