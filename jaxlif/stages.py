"""What is being done, by name and on stderr, while somebody waits in front of a terminal."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from shutil import get_terminal_size
from typing import Any

from tqdm import tqdm

EVERY = 0.5  # s between two signs of life


def room() -> dict[str, int]:
    """Return the room for a bar: some terminals say that they have none, and nothing would be drawn in that."""
    size = get_terminal_size()
    return {"ncols": size.columns, "nrows": size.lines}


class _Shown:
    """The line of the stage that is reached; a stage that is over leaves its name and time behind."""

    def __init__(self) -> None:
        self.line = tqdm(bar_format="{desc} ({elapsed})", desc="start", leave=False, **room())
        self.name, self.begun = "", time.monotonic()

    def begin(self, name: str) -> None:
        """Leave the stage that is over behind, and show the next."""
        if self.name:
            self.line.write(f"{self.name}: {time.monotonic() - self.begun:.1f} s", file=sys.stderr)
        self.name, self.begun = name, time.monotonic()
        self.line.reset()
        self.line.set_description_str(name)


_SHOWN: ContextVar[_Shown | None] = ContextVar("shown", default=None)


def stage(name: str) -> None:
    """Begin a stage of what is being shown, if anything is: what it does, in a few words."""
    if (shown := _SHOWN.get()) is not None and name != shown.name:
        shown.begin(name)


@contextmanager
def stages(show: bool) -> Iterator[None]:
    """Show the stages of a block, with the time that the current one has taken, as long as it lasts."""
    if not show or _SHOWN.get() is not None:
        yield
        return
    shown = _Shown()
    token = _SHOWN.set(shown)
    try:
        with ticking(shown.line):
            yield
        shown.begin("")
    finally:
        _SHOWN.reset(token)
        shown.line.close()


@contextmanager
def ticking(bar: Any) -> Iterator[None]:
    """Draw a bar again and again, so that its time goes on however long nothing else happens."""
    if bar.disable:
        yield
        return
    over = threading.Event()

    def _tick() -> None:
        while not over.wait(EVERY):
            bar.refresh()

    thread = threading.Thread(target=_tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
