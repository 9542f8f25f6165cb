"""What the benchmarks beside other libraries share: contenders in processes of their own, which take turns."""

import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".cache" / "peers"
#: The libraries that ``peers.sh`` builds an environment for; every other contender runs in this one.
PEERS = ("snntorch", "spikingjelly", "norse", "spyx", "jaxpike")


@dataclass(frozen=True)
class Turns:
    """The numbers of turn taking; each benchmark may have its own."""

    at_least: float = 0.1  # s of passes in a contender's turn
    pause: float = 0.05  # s before a turn
    busy: float = 0.5  # cores that are at work in the pause: then another program runs
    patience: int = 8  # pauses to wait for it to end
    rounds: int = 7


class Stopped(RuntimeError):
    """A contender's process ended; the message is its last line."""


class Server:
    """A contender in a process of its own, which answers lines (``peers/serve.py``)."""

    def __init__(self, name: str, turns: Turns, folder: str, script: str | None = None):
        self.turns, self.log, self.passes, self.disturbed = turns, Path(folder) / f"{name}.log", 1, []
        # -P: the script has the name of the library that it imports.
        command = [str(python(name)), "-P", str(HERE / "peers" / f"{script or name}.py")]
        pipe, environment = subprocess.PIPE, os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=log, text=True, bufsize=1, env=environment
            )
        self.version = self.answer()

    def order(self, line: str) -> str:
        """Send one line and return the answer."""
        try:
            self.process.stdin.write(line + "\n")
        except BrokenPipeError as error:
            raise Stopped(self.last_line()) from error
        return self.answer()

    def answer(self) -> str:
        """Return the next line that it writes."""
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise Stopped(self.last_line())
        return answer

    def last_line(self) -> str:
        """Return the last line of its errors."""
        self.process.wait(10)
        return (self.log.read_text().strip().splitlines() or ["no reason given"])[-1]

    def load(self, problem: Any) -> tuple[float, float]:
        """Hand a problem over; return the spikes per neuron-step and the seconds of the first pass."""
        _, rate, first = self.order(problem.line()).split()
        self.passes = math.ceil(self.turns.at_least / float(self.order("go 1")))
        return float(rate), float(first)

    def run(self) -> float:
        """Take one turn and return the seconds of one pass."""
        self.disturbed.append(wait_for_others(self.turns))
        return float(self.order(f"go {self.passes}"))

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def wait_for_others(turns: Turns) -> bool:
    """Sleep until no other program runs, within limits; return whether one still does."""
    for _ in range(turns.patience + 1):
        before = cpu_seconds()
        time.sleep(turns.pause)
        if cpu_seconds() - before <= turns.busy * turns.pause:
            return False
    return True


def cpu_seconds() -> float:
    """Return the time that all cores have worked, user and system, or 0 where the machine does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system = map(int, stat.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def python(name: str) -> Path:
    """Return the Python that runs a contender."""
    return ENVIRONMENTS / name / "bin" / "python" if name in PEERS else Path(sys.executable)


def require_built(name: str) -> None:
    """Raise where peers.sh has not built a library's environment."""
    failed = ENVIRONMENTS / f"{name}.failed"
    if name in PEERS and not (ENVIRONMENTS / name / ".ready").exists():
        raise Stopped(failed.read_text().strip() if failed.exists() else "run experiments/benchmarks/peers.sh first")


def leave_out(name: str, reason: Stopped) -> None:
    if name not in PEERS:
        raise SystemExit(f"{name}: {reason}")
    print(f"{name} is left out: {reason}", file=sys.stderr)
