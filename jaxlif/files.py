"""Files: those that others wrote are checked before a library reads them; ours are there whole or not at all."""

import difflib
import hashlib
import mmap
import os
import re
import struct
import threading
import traceback
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

_HEAP, _EIGHT = b"GCOL\x01\0\0\0", b"\x08\x08"
_LIMIT = threading.RLock()
_PLAIN = "biufUS"  # kinds of arrays that hold real numbers or text: no objects, complex numbers, dates or records


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading a file leads to, AttributeError to MemoryError, into one ValueError with its name."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # The values of a damaged file overflow; they are judged afterwards.
        with np.errstate(all="ignore"), _memory_limited(path):
            yield
    except (ImportError, Warning):  # a warning where the user makes errors of them
        raise
    except Exception as error:
        text = one_line(error)
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        is_own = str(frame.f_globals.get("__name__")).startswith("jaxlif")  # and not a library's below it
        if not (isinstance(error, ValueError) and is_own):
            text = f"damaged, or not what its name says ({type(error).__name__}: {text})"
        raise ValueError(f"{path.name}: {text}") from error


def one_line(error: Exception) -> str:
    """Return the message of an exception, or its type, as one line that is not long."""
    text = " ".join(str(error).split())
    return (f"{text[:297]}..." if len(text) > 300 else text) or type(error).__name__


def require_file(path: Path) -> None:
    """Refuse a folder, a pipe or a device, on which reading would fail or wait, and an empty file."""
    if not path.is_file():
        raise ValueError("this is a folder, a pipe or a device: a file is expected")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")


def checksum(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files, one after another."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def optional(module: str, need: str, extra: str) -> Any:
    """Import what not everybody has installed; without it the ``need`` is said, and how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{need}: pip install "jaxlif[{extra}]"') from error


STAGED: set[str] = set()  # folders that are being filled, for what ends a process at once


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to ``folder`` in the end, or none of them; ``folder`` is made only then. A
    place where nothing can be written is refused before anything long begins.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        temporary = TemporaryDirectory(prefix=".jaxlif-", dir=place)
    except OSError as error:
        raise ValueError(f"out = {folder}: nothing can be written there ({error.strerror})") from error
    with temporary as name:
        STAGED.add(name)
        try:
            yield Path(name)
            for path in sorted(Path(name).iterdir()):
                folder.mkdir(parents=True, exist_ok=True)
                path.replace(folder / path.name)
        finally:
            STAGED.discard(name)


# --- memory -----------------------------------------------------------------------------------------------


def memory_at_hand() -> int:
    """Return the bytes of memory that are free; all of the machine's where it does not say which are."""
    try:
        return 1024 * int(re.findall(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        names = getattr(os, "sysconf_names", {})
        return prod(os.sysconf(n) for n in ("SC_PHYS_PAGES", "SC_PAGE_SIZE")) if "SC_PHYS_PAGES" in names else 2**34


@contextmanager
def _memory_limited(path: Path) -> Iterator[None]:
    """Let what a file cannot need, or memory not hold, fail at once: a library takes a damaged count at its word. A
    deflated byte makes 1032, in eight-byte numbers a few thousand. Only Linux keeps this limit.
    """
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    with _LIMIT:  # the process has one: each reading puts back what it found
        before = resource.getrlimit(resource.RLIMIT_AS)
        needed = memory_at_hand() if path.is_dir() else min(memory_at_hand(), 2**31 + 10**4 * path.stat().st_size)
        limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(used + needed, *limits, 2**62), before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def require_memory(num_bytes: int, what: str) -> None:
    """Refuse what is declared larger than the memory at hand, before it is asked for."""
    if num_bytes > (free := memory_at_hand()):
        raise ValueError(f"{what} would need {num_bytes / 1e9:.3g} GB: {free / 1e9:.3g} GB of memory are free")


# --- NumPy archives ---------------------------------------------------------------------------------------


def load_arrays(path: Path, known: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the arrays with known names from an .npz archive; nothing is unpickled. Refused are damage, an array that is
    neither real numbers nor text, and a name that is nearly a known one.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("not an .npz archive, or one that was cut short")
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            archive.open(info).close()  # refuses a name that is another in the directory than before the array
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("an .npz archive with two arrays of one name")
        require_known(members, known)
        wanted = [name for name in members if name in known]
        require_memory(sum(members[name].file_size for name in wanted), "the .npz archive")
        return {name: _array(archive, name, members[name]) for name in wanted}


def require_known(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is nearly a known one that is missing: it was meant, and would be left out."""
    missing = [name for name in known if name not in names]
    for name in names:
        close = [] if name in known else difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.75)
        if close:
            raise ValueError(f"the array `{name}` is not known: is `{close[0]}` meant?")


def require_plain(name: str, kind: np.dtype) -> None:
    """Refuse an array that would lose its meaning as real numbers."""
    if kind.kind not in _PLAIN:
        raise ValueError(f"{name} cannot be read; only plain numeric and text arrays are, and it is {kind}")


def _array(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    """Read one array, whose header declares as many bytes as follow it: else the checksum would not be reached."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in headers:
            raise ValueError(f"the array `{name}` cannot be read; its format {version} is not known")
        shape, _, kind = headers[version](file)
        require_plain(f"the array `{name}`", kind)
        declared, held = prod(shape) * kind.itemsize, member.file_size - file.tell()
    if declared != held:
        raise ValueError(f"the array `{name}` {list(shape)} would have {declared} bytes, and {held} are stored")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


# --- MATLAB -----------------------------------------------------------------------------------------------

_MAT_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MAT_MATRIX, _MAT_COMPRESSED, _MAT_OWN = 14, 15, 9
_MAT_CLASSES, _MAT_IS_COMPLEX = range(6, 16), 0x800


def load_mat(path: Path, known: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the variables with known names from a .mat file of MATLAB 5 to 7.2, by its public layout, as
    :func:`load_arrays` does: scipy.io.loadmat ends the process on a wrong type of an element.
    """
    raw = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None or struct.unpack_from(f"{order}H", raw, 124) != (0x100,):
        raise ValueError("no .mat file of MATLAB 5 to 7.2: save it once more with save(..., '-v7')")
    variables = dict(_mat_variables(raw[128:], order))
    require_known(variables, known)
    return {name: _mat_array(name, variables[name], order) for name in known if name in variables}


def _mat_elements(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Split bytes into elements, each a type and its data; up to four bytes of data may stand in the tag."""
    at = 0
    while at < len(raw):
        if at + 8 > len(raw):
            raise ValueError("a .mat file that was cut short")
        kind, size = struct.unpack_from(f"{order}II", raw, at)
        small = kind >> 16
        start, kind, size = (at + 4, kind & 0xFFFF, small) if small else (at + 8, kind, size)
        if start + size > len(raw) or small > 4:
            raise ValueError(f"a .mat file that is damaged or was cut short: {size} bytes are declared at byte {at}")
        yield kind, raw[start : start + size]
        at = at + 8 if small else start + size + (-size % 8 if kind != _MAT_COMPRESSED else 0)


def _mat_variables(raw: bytes, order: str) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """Yield the name and the parts of every variable: flags, shape, name, data."""
    for kind, data in _mat_elements(raw, order):
        if kind == _MAT_COMPRESSED:
            ((kind, data),) = _mat_elements(_inflated(data, order), order)
        parts = list(_mat_elements(data, order)) if kind == _MAT_MATRIX else []
        if len(parts) < 3 or parts[0][0] != 6 or len(parts[0][1]) != 8:
            raise ValueError("a damaged .mat file: an element is no variable")
        name = parts[2][1].decode("latin-1")
        if not name.isidentifier() and struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF != _MAT_OWN:
            raise ValueError(f"a damaged .mat file: {name!r} is no name")
        yield name, parts


def _inflated(data: bytes, order: str) -> bytes:
    """Decompress one element, as long as it says at its start and no longer; its checksum comes last."""
    stream = zlib.decompressobj()
    tag = stream.decompress(data, 8)
    (size,) = struct.unpack_from(f"{order}I", tag, 4)
    require_memory(2 * size, "a variable of the .mat file")
    rest = stream.decompress(stream.unconsumed_tail, size + 1)
    if len(rest) != size or not stream.eof:
        raise ValueError(f"a damaged .mat file: a variable of {size} bytes has another length")
    return tag + rest


def _mat_array(name: str, parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    real = len(parts) == 4 and flags & 0xFF in _MAT_CLASSES and not flags & _MAT_IS_COMPLEX
    if not real or parts[3][0] not in _MAT_NUMBERS:
        raise ValueError(f"the array `{name}` cannot be read; only full arrays of real numbers are")
    shape = np.frombuffer(parts[1][1], f"{order}i4").tolist()
    values = np.frombuffer(parts[3][1], order + _MAT_NUMBERS[parts[3][0]])
    if min(shape, default=-1) < 0 or prod(shape) != values.size:
        raise ValueError(f"the array `{name}` is {shape} and has {values.size} values: damaged")
    return values.reshape(shape, order="F")


# --- HDF5 -------------------------------------------------------------------------------------------------


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file whose data are all its own: no link, storage or virtual dataset leads to another file."""
    h5py = optional("h5py", "HDF5 files need the package h5py", "snn")
    if not h5py.is_hdf5(path):
        raise ValueError("not an HDF5 file")
    with open(path, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as image:
        _require_sound_heaps(image)
    with h5py.File(path, "r") as file:
        outside = file.visititems_links(_foreign_link) or file.visititems(_foreign_data)
        if outside:
            raise ValueError(f"{outside} in another file: copy that into this one")
        yield file


def _require_sound_heaps(image: mmap.mmap) -> None:
    """Refuse a heap of strings and lists, "GCOL", with an object that takes no space: HDF5 would never come past it. An
    object is a number, 2 bytes, 6 unused, its size, 8, and the data up to a multiple of 8; number 0 is what is left,
    all of it.
    """
    if image[9:11] != _EIGHT and image[13:15] != _EIGHT:
        return  # the file's lengths and addresses are not of 8 bytes
    start = image.find(_HEAP)
    while start >= 0:
        end = min(start + struct.unpack_from("<Q", image, start + 8)[0], len(image))
        at = start + 16
        while at + 16 <= end:
            number, size = struct.unpack_from("<H6xQ", image, at)
            step = size if number == 0 else 16 + -(-size // 8) * 8
            if not 16 <= step <= end - at:
                what = f"an object of {size} bytes in the heap at byte {start}"
                raise ValueError(f"a damaged HDF5 file, or one that was cut short: {what}")
            at += step
        start = image.find(_HEAP, start + 8)


def _foreign_link(name: str, link: Any) -> str | None:
    """Say where a link leaves the file. A visitor returns what it found: HDF5 would lose an exception."""
    own = type(link).__name__ in ("HardLink", "SoftLink")
    return None if own else f"{name} is a link to {getattr(link, 'path', 'something')}"


def _foreign_data(name: str, item: Any) -> str | None:
    return f"the data of {name} lie" if hasattr(item, "chunks") and (item.external or item.is_virtual) else None


def require_stored(name: str, dataset: Any) -> None:
    """Refuse a dataset that declares more than the file stores, which HDF5 fills up with zeros, or memory holds."""
    if dataset.shape is None:
        raise ValueError(f"{name} is empty")
    if dataset.chunks:
        declared = prod(-(-size // step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
        held, unit = dataset.id.get_num_chunks(), "chunks"
    else:
        declared, held = dataset.size * dataset.id.get_type().get_size(), dataset.id.get_storage_size()
        unit = "bytes"
    if held < declared:
        raise ValueError(f"{name} {list(dataset.shape)} should have {declared} {unit}, and {held} are stored")
    require_memory(dataset.size * dataset.dtype.itemsize, name)
