"""Files that are there whole or not at all, in the folder that was named and nowhere else."""

import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".jaxlif-"
_DAY = 86_400.0  # s: what another machine or version has left is taken for stale after it


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name beside it, then rename, so that it is never seen half-written."""
    temporary = path.parent / _temporary_name()
    try:
        with temporary.open("xb") as file:  # unlike those of tempfile it has the mode that the umask asks for
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


@contextmanager
def staged(folder: Path, known: Callable[[], Iterable[str]] = tuple) -> Iterator[Path]:
    """Yield a folder inside ``folder`` from which all files are moved there in the end, or none of them.

    It is made at once, so that a folder that cannot be written to is refused before anything long begins; what was
    made for it is unmade where nothing came into it.

    Args:
        folder: where the files go; made where it is missing.
        known: names the files of an earlier run that are taken away where they were not written anew.
    """
    made = _make(folder)
    temporary = folder / _temporary_name()
    try:
        _sweep(folder)
        with _named(folder):
            temporary.mkdir()
        yield temporary
        new = {path.name for path in temporary.iterdir()}
        old = [folder / name for name in known() if name not in new]
        for name in sorted(new):
            os.replace(temporary / name, folder / name)
        for path in old:
            path.unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in reversed(made):
            with suppress(OSError):  # it is not empty: something was written
                path.rmdir()


@contextmanager
def staged_file(out: Path, *inputs: Path | None) -> Iterator[Path]:
    """Yield a path from which a file comes to be ``out`` in the end; refuse at once what cannot be written.

    Args:
        out: the file.
        inputs: files that are read, which ``out`` must not be.
    """
    require_file(out, *inputs)
    with staged(out.parent) as folder:
        yield folder / out.name


def require_folder(out: Path, files: Iterable[str] = ()) -> None:
    """Refuse an output folder that is a file, or in which a folder stands where a file is to be written."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out = {out}: this is a file; name a folder")
    for name in files:
        require_file(out / name)


def require_file(out: Path, *inputs: Path | None) -> None:
    """Refuse an output file that is a folder, or one of the files that are read."""
    if out.is_dir():
        raise ValueError(f"out = {out}: this is a folder; name a file")
    if any(path is not None and path.exists() and out.exists() and path.samefile(out) for path in inputs):
        raise ValueError(f"out = {out}: this file is read, and would be lost; name another")


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing; return them."""
    missing = [path for path in (*reversed(folder.absolute().parents), folder.absolute()) if not path.exists()]
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"out = {folder}: nothing can be written there ({error.strerror})") from error


def _temporary_name() -> str:
    return f"{_PREFIX}{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"


def _sweep(folder: Path) -> None:
    """Take away what runs that were killed have left in a folder, and nothing of a run that is alive."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another run sweeps too
            if _is_stale(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_stale(path: Path) -> bool:
    status = path.lstat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return False
    found = re.fullmatch(rf"{_PREFIX}(.*)-(\d+)-\w+", path.name)
    if found is not None and found[1] == platform.node() and os.name == "posix":
        return not _is_alive(int(found[2]))
    return time.time() - status.st_mtime > _DAY


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # no signal, only whether one could be sent
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
