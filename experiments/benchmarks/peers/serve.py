"""The lines by which ``layer.py`` drives one library in a process of its own; the standard library only.

A script says its version, then takes ``case KIND T B N_in N_out FOLDER`` (prepares, makes the first pass and answers
``ready RATE SECONDS``: the spikes per neuron-step and the time of that pass, compilation included), ``go K`` (answers
the seconds of one of K passes) and ``quit``. A pass is one forward and one backward. The arrays lie in the folder as
raw float32, because not every library's environment has NumPy. Between orders a script sleeps on its input.

``layer.py`` runs a script as ``python -P``: it has the name of the library that it imports, and ``-P`` keeps the
script's own folder from coming first.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: One forward and backward pass, which lasts until its results are there.
Pass = Callable[[], object]


class Problem(NamedTuple):
    """One layer: whether it is recurrent, T, B, N_in, N_out, and the folder of its arrays."""

    recurrent: bool
    steps: int
    batch: int
    num_in: int
    num_out: int
    folder: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays by name: spikes in, the loss's weights, and the layer's weights from row to column."""
        return {
            "inputs": (self.steps, self.batch, self.num_in),
            "cotangents": (self.steps, self.batch, self.num_out),
            "weight": (self.num_in, self.num_out),
            "recurrent": (self.num_out, self.num_out),
        }

    def path(self, name: str) -> str:
        """Return where an array's raw float32 numbers lie."""
        return str(Path(self.folder) / f"{name}.f32")

    def line(self) -> str:
        """Return the order that hands this problem over."""
        kind = "recurrent" if self.recurrent else "feed-forward"
        return f"case {kind} {self.steps} {self.batch} {self.num_in} {self.num_out} {self.folder}"


def read(words: str) -> Problem:
    """Read what follows the word ``case``."""
    kind, *sizes, folder = words.split(" ", 5)
    return Problem(kind == "recurrent", *map(int, sizes), folder)


def serve(version: str, prepare: Callable[[Problem], tuple[Pass, Callable[[], float]]]) -> None:
    """Answer orders until the input ends.

    Args:
        version: what to say first.
        prepare: makes the pass of a problem and its rate, a function of no arguments that returns spikes per
            neuron-step.
    """
    print(version, flush=True)
    run = None
    for line in sys.stdin:
        order, _, words = line.strip().partition(" ")
        if order == "quit":
            return
        if order == "case":
            run, rate = prepare(read(words))
            first = seconds(run, 1)
            print(f"ready {rate():.6g} {first!r}", flush=True)
        else:
            print(repr(seconds(run, int(words))), flush=True)


def seconds(run: Pass, times: int) -> float:
    """Return the time of one pass, the mean over several."""
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times
