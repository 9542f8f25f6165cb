"""What the epochs share: the sizes, the arrays, and the lines by which ``../epoch.py`` drives one process.

A script says its version, then takes ``case BATCHES B T FOLDER`` (prepares, trains one epoch and answers ``ready LOSS
SECONDS``: the mean loss of that epoch and its time, compilation included), ``go K`` and ``quit``, as in ``serve.py``.
The arrays lie in the folder as raw float32: inputs [BATCHES, B, T, 4] and labels [BATCHES, B, T].
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from serve import seconds

NUM_IN, NUM_HIDDEN, NUM_OUT = 4, 35, 6
SKIP = 10  # steps at the start that do not count
LEARNING_RATE = 1e-3  # small: the epochs that are timed should cost the same, so the firing must not change much
TAU_M, TAU_READOUT = 20.0, 20.0  # steps
BETA = math.exp(-1.0 / TAU_M)  # of the neurons
BETA_READOUT = math.exp(-1.0 / TAU_READOUT)


class Problem(NamedTuple):
    """The batches of an epoch, B, T, and the folder of its arrays."""

    batches: int
    batch: int
    steps: int
    folder: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays by name; weights from row to column."""
        sequences = (self.batches, self.batch, self.steps)
        return {
            "inputs": (*sequences, NUM_IN),
            "labels": sequences,
            "weight": (NUM_IN, NUM_HIDDEN),
            "recurrent": (NUM_HIDDEN, NUM_HIDDEN),
            "readout": (NUM_HIDDEN, NUM_OUT),
        }

    def path(self, name: str) -> str:
        """Return where an array's raw float32 numbers lie."""
        return str(Path(self.folder) / f"{name}.f32")

    def line(self) -> str:
        """Return the order that hands this problem over."""
        return f"case {self.batches} {self.batch} {self.steps} {self.folder}"


def serve_epochs(version: str, prepare: Callable[[Problem], Callable[[], float]]) -> None:
    """Answer orders until the input ends.

    Args:
        version: what to say first.
        prepare: makes a function that trains one epoch and returns its mean loss.
    """
    print(version, flush=True)
    run = None
    for line in sys.stdin:
        order, _, words = line.strip().partition(" ")
        if order == "quit":
            return
        if order == "case":
            *sizes, folder = words.split(" ", 3)
            run = prepare(Problem(*map(int, sizes), folder))
            first = seconds(run, 1)
            print(f"ready {run():.6g} {first!r}", flush=True)
        else:
            print(repr(seconds(run, int(words))), flush=True)
