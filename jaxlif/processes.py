"""Processes of this machine for work that is many pieces, as an executor of ``concurrent.futures``."""

import _thread
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import jax

from jaxlif.files import STAGED

_THREADS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # the first is XLA's
_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_platforms")
# An interrupt ends the program at once, and what tracks its locks would tell a user of those.
_WARNINGS = "ignore::UserWarning:multiprocessing.resource_tracker"
_BUSY = threading.Event()  # whether this process has work
_GRACE = 10.0  # s that a process has to put things away once nobody waits for it


def cores() -> int:
    """Return how many processes may work side by side here: one within one of them, or where an accelerator works."""
    if parent_process() is not None or jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Yield an executor of so many processes that share the cores; where the block fails, what waits is dropped.

    They do not run the script that starts them: it needs no ``if __name__ == "__main__"``, its functions a module.
    """
    settings = {name: getattr(jax.config, name) for name in _SETTINGS}
    threads = max(1, cores() // count)
    with _started_apart(threads):
        executor = _Processes(count, get_context("spawn"), _begin, (settings,))
    executor.threads = threads
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


class _Processes(ProcessPoolExecutor):
    threads = 1  # of each process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submit work, for which a process may start."""
        with _started_apart(self.threads):
            return super().submit(_work, fn, *args, **kwargs)


@contextmanager
def _started_apart(threads: int) -> Iterator[None]:
    """Let processes start that know nothing of the script, and whose libraries find so many cores."""
    main = vars(sys.modules["__main__"])
    script: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    changed = dict.fromkeys(_THREADS, str(threads))
    changed["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), _WARNINGS)))
    kept = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        main.update(script)
        for name, value in kept.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def _begin(settings: Mapping[str, Any]) -> None:
    """Begin a process with the settings of the one that starts it, and with an eye on that."""
    for name, value in settings.items():
        jax.config.update(name, value)
    threading.Thread(target=_follow, daemon=True).start()


def _work(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    _BUSY.set()
    try:
        return fn(*args, **kwargs)
    finally:
        _BUSY.clear()


def _follow() -> None:
    """End this process when the one that started it has ended, however it did; what is half-written is put away."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        _thread.interrupt_main()
        latest = time.monotonic() + _GRACE
        while _BUSY.is_set() and time.monotonic() < latest:
            time.sleep(0.1)
        for folder in tuple(STAGED):
            shutil.rmtree(folder, ignore_errors=True)  # which the interrupted work may be removing itself
        os._exit(1)
