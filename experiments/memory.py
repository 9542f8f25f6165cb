"""How much memory does a fit of a plain neuron need, for a sample of a recording and for another recording?

Question: does the memory of a fit stay below 100 bytes a sample, and that of many recordings below that of one program
for each length?
Method: a LIF under noise, with 0.3 mV of noise on its voltage. Fits of two lengths run in a process each; the
difference of the highest memory that the system has seen (``ru_maxrss``), over that of the lengths, is what a sample
costs, the recording itself included; glibc is told to give back every freed array, as it does those of longer
recordings anyway. Then recordings of unequal lengths, within a factor of two, are fitted one after
another in one process; reported is what the process holds after the last, less what it held after the first.
Command: python experiments/memory.py (--quick: a smoke run that writes nothing).
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass

import claims
import jax
import numpy as np
from command_line import run_script
from scipy.signal import lfilter

import jaxlif as jl

TRUTH = jl.LIFParams(tau_m=12.0, t_ref=3.0)
DT = 0.1  # ms


@dataclass(frozen=True)
class Config:
    """What is fitted, in samples."""

    lengths: tuple[int, int] = (1_500_000, 3_000_000)
    cells: int = 20
    shortest: int = 20_000


QUICK = Config(lengths=(20_000, 40_000), cells=2, shortest=5000)


def main(config: Config, write: bool) -> None:
    first, last = (measured("one", n) for n in config.lengths)
    per_sample = (last["peak"] - first["peak"]) / (config.lengths[1] - config.lengths[0])
    many = measured("many", config.shortest, config.cells)
    rows = [
        claims.claim("memory of a fit for a sample, the recording included", per_sample, "B", "<= 100"),
        claims.claim("highest memory of the longer of both fits", last["peak"] / 1e6, "MB"),
        claims.claim(f"memory that {config.cells} unequal recordings leave", many["left"] / 1e6, "MB", "<= 500"),
        claims.claim("of which each takes on average", many["left"] / 1e6 / (config.cells - 1), "MB", "<= 42"),
    ]
    print(claims.table(rows))
    if write:
        claims.write_claims("memory", rows)


def measured(what: str, *numbers: int) -> dict[str, float]:
    """Run one of the measurements in a process of its own."""
    command = [sys.executable, __file__, what, *map(str, numbers)]
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=given_back)
    return json.loads(done.stdout.splitlines()[-1])


def one(steps: int) -> dict[str, float]:
    """Fit one recording and return the highest memory of the process, B."""
    jl.fit_recording(recording(steps))
    return {"peak": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def many(shortest: int, cells: int) -> dict[str, float]:
    """Fit recordings of unequal lengths and return what the process holds after the last above the first, B."""
    longest, held = recording(2 * shortest), []
    for n in range(cells):
        steps = shortest + n * shortest // cells
        part = longest.window(0.0, steps * DT)
        jl.fit_recording(part)
        held.append(resident())
    return {"left": held[-1] - held[0]}


def resident() -> float:
    """Return the memory that the process holds, B; on Linux."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return float(file.read().split()[1]) * resource.getpagesize()


def recording(steps: int) -> jl.Recording:
    """Return a simulated recording, made in pieces so that it costs less memory than its fit."""
    rng, decay = np.random.default_rng(0), np.exp(-DT / 5.0)
    white = 150.0 * np.sqrt(1.0 - decay**2) * rng.normal(size=steps)
    current, voltage, state = 180.0 + lfilter([1.0], [1.0, -decay], white), np.zeros(steps), None
    with jax.enable_x64(True):
        for first in range(0, steps, 100_000):
            part = slice(first, first + 100_000)
            state, output = jl.simulate(jl.LIF(dt=DT), TRUTH, current[part], state)
            voltage[part] = np.where(output.spikes > 0, 20.0, output.v + rng.normal(0.0, 0.3, len(output.v)))
    return jl.Recording(current=current, voltage=voltage, dt=DT, name="simulated")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in ("one", "many"):
        print(json.dumps({"one": one, "many": many}[sys.argv[1]](*map(int, sys.argv[2:]))))
    else:
        run_script(main, Config(), QUICK, __doc__)
