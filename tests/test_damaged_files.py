"""Damaged files of every format: read as they were, refused in one line with the name, or read with a note.

Small good files are written, each to its public layout, and spoiled: bits turned, ends cut, ranges swapped, filled,
removed or repeated, fields of the header set to extremes. Reading one must end within seconds in the good file's
values, a ValueError in one line, or a note. Other values may come without a word only where the damage lies in bytes
that no checksum covers and that are as good as the ones before: numbers in a table, samples, a gain in a header. A
fixed seed draws the damage: the suite makes a tenth of it, `python -m tests.test_damaged_files` all 2000.
"""

import importlib.util
import signal
import struct
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io

from jaxlif.networks import read_events
from jaxlif.recordings import RecordingWarning, read_recording
from tests.networks.test_events import write_bin, write_shd
from tests.recordings.test_ibw import save_sweep, wave2
from tests.recordings.test_nwb import Writer

SEED, FILES = 10, 2000
SECONDS = 5.0  # a file of some kilobytes is read in milliseconds
T = 80
STEP = np.where((np.arange(T) >= 20) & (np.arange(T) < 60), 1.0, 0.0)
CURRENT = np.stack([50.0 * STEP, -25.0 * STEP]) + 0.25 * np.arange(T)  # pA
VOLTAGE = -70.0 + 0.125 * CURRENT  # mV, so that both are whole multiples of a bit of the formats with integers


class Good(NamedTuple):
    """A good file: its path, how it is read, and how many of its first bytes a checksum covers."""

    path: Path
    read: Callable[[Path], list[np.ndarray]]
    sealed: int = 0


def _recording(path: Path) -> list[np.ndarray]:
    found = read_recording(path)
    return [np.asarray(x, float) for x in (found.current, found.voltage, found.dt)]


def _events(path: Path) -> list[np.ndarray]:
    found = read_events(path, shape=(2, 34, 34))
    return [np.asarray(x, float) for x in (found.times, found.units, found.offsets, found.labels)]


# --- good files -------------------------------------------------------------------------------------------


def _npz(path, *, compressed=False):
    save = np.savez_compressed if compressed else np.savez
    save(path, current=CURRENT, voltage=VOLTAGE, dt=0.1, note="x")


def _csv(path, delimiter=",", comma="."):
    lines = ["time_ms", *(f"{name}_{n}" for n in (1, 2) for name in ("current_pA", "voltage_mV"))]
    rows = np.column_stack([0.1 * np.arange(T), *(x[n] for n in (0, 1) for x in (CURRENT, VOLTAGE))])
    cells = [[f"{x:.5f}".replace(".", comma) for x in row] for row in rows]
    path.write_text("\n".join(delimiter.join(line) for line in [lines, *cells]) + "\n")


def _atf(path):
    above = ["ATF\t1.0", "1\t5", '"Comment="']
    names = ["Time (ms)", *(f"Trace #{n} ({unit})" for n in (1, 2) for unit in ("pA", "mV"))]
    _csv(path, "\t")
    rows = path.read_text().splitlines()[1:]
    path.write_bytes("\r\n".join([*above, "\t".join(f'"{name}"' for name in names), *rows, ""]).encode())


def _mat(path, *, compressed):
    scipy.io.savemat(path, {"current": CURRENT, "voltage": VOLTAGE, "dt": 0.1}, do_compression=compressed)


COUNTS = np.round(np.stack([VOLTAGE, CURRENT], -1) * 64.0).astype("<i2")  # [sweeps, T, channels], as ABF has them


def _put(raw, form, place, *values):
    struct.pack_into("<" + form, raw, place, *values)


def _abf1(path):
    """Write the header of ABF 1.8 that its readers need: 12 blocks, then the samples of both channels in turn."""
    raw = bytearray(6144) + COUNTS.tobytes()
    _put(raw, "4s f h i h i", 0, b"ABF ", 1.8, 5, COUNTS.size, 0, len(COUNTS))
    _put(raw, "i", 40, 12)
    _put(raw, "h f", 120, 2, 50.0)  # channels, µs between samples of any of them
    _put(raw, "i", 138, COUNTS[0].size)
    _put(raw, "f f i i", 244, 10.0, 10.0, 32768, 32768)
    _put(raw, "16h", 378, *range(16))
    _put(raw, "16h", 410, 0, 1, *[-1] * 14)
    for n, (name, unit) in enumerate(((b"Vm", b"mV"), (b"Im", b"pA"))):
        _put(raw, "10s", 442 + 10 * n, name)
        _put(raw, "8s", 602 + 8 * n, unit)
        _put(raw, "8s", 1346 + 8 * n, b"pA")
    for place in (730, 1050):
        _put(raw, "16f", place, *[1.0] * 16)
    _put(raw, "16f", 922, *[10.0 / 32768 * 64.0] * 16)
    path.write_bytes(raw)


def _abf2(path):
    """Write the sections of ABF 2 that its readers need, one in each block, the samples before the sweeps."""
    names = [b"Clampex", b"none.pro", b"Vm", b"mV", b"Im", b"pA", b"Cmd"]
    strings = b"\0\0" + b"\0".join(names) + b"\0"
    blocks = {76: (1, 512, 1), 92: (2, 128, 2), 108: (3, 256, 2), 220: (4, len(strings), 1)}
    blocks |= {236: (5, 2, COUNTS.size), 316: (5 + -(-COUNTS.nbytes // 512), 8, len(COUNTS))}
    raw = bytearray(512 * (blocks[316][0] + 1))
    _put(raw, "4s 4B I I", 0, b"ABF2", 0, 0, 0, 2, 512, len(COUNTS))
    _put(raw, "I", 60, 1)
    _put(raw, "I", 72, 2)
    for place, (block, size, count) in blocks.items():
        _put(raw, "I I q", place, block, size, count)
    _put(raw, "h f", 512, 5, 100.0)
    _put(raw, "i", 534, COUNTS[0].size)
    _put(raw, "f f i i", 622, 10.0, 10.0, 32768, 32768)
    for n, (name, unit) in enumerate(((3, 4), (5, 6))):
        _put(raw, "h", 1024 + 128 * n, n)
        _put(raw, "h f", 1050 + 128 * n, n, 1.0)
        _put(raw, "f f f", 1064 + 128 * n, 10.0 / 32768 * 64.0, 0.0, 1.0)
        _put(raw, "i i", 1098 + 128 * n, name, unit)
        _put(raw, "h", 1536 + 256 * n, n)
        _put(raw, "i i", 1560 + 256 * n, 7, 6)
    raw[2048 : 2048 + len(strings)] = strings
    raw[2560 : 2560 + COUNTS.nbytes] = COUNTS.tobytes()
    for n in range(len(COUNTS)):
        _put(raw, "i i", 512 * blocks[316][0] + 8 * n, 1000 * n, COUNTS[0].size)
    path.write_bytes(raw)


def _nwb(path):
    writer = Writer()
    for n in (0, 1):
        writer.add("I", f"stimulus_{n}", 1e-12 * CURRENT[n], sweep_number=n)
        writer.add("V", f"response_{n}", 1e-3 * VOLTAGE[n], sweep_number=n)
    writer.save(path)


def _events_npz(path):
    arrays = {"times": [0.5, 7.0, 3.0, 4.0], "units": [3, 700, 2000, 5], "offsets": [0, 2, 4], "labels": [1, 0]}
    np.savez_compressed(path, **arrays, shape=(2, 34, 34), classes=("a", "b"))


def good_files(folder: Path) -> dict[str, Good]:
    """Write a good file of every format, each into a folder of its own."""
    made: dict[str, Good] = {}

    def _add(name, file, write, read=_recording, sealed=0):
        path = folder / name / file
        path.parent.mkdir(parents=True)
        write(path)
        made[name] = Good(path, read, path.stat().st_size if sealed == -1 else sealed)

    _add("npz", "cell.npz", _npz, sealed=-1)
    _add("compressed npz", "cell.npz", lambda path: _npz(path, compressed=True), sealed=-1)
    _add("csv", "cell.csv", _csv)
    _add("semicolons", "cell.csv", lambda path: _csv(path, ";", ","))
    _add("atf", "cell.atf", _atf)
    _add("mat", "cell.mat", lambda path: _mat(path, compressed=False))
    _add("compressed mat", "cell.mat", lambda path: _mat(path, compressed=True))
    _add("abf1", "cell.abf", _abf1)
    _add("abf2", "cell.abf", _abf2)
    _add("nwb", "cell.nwb", _nwb)
    _add("ibw 5", "B6_Ch3_IDRest_1.ibw", lambda path: save_sweep(path.parent, 1), sealed=384)
    _add("ibw 2", "Ch3_1.ibw", _ibw2, sealed=126)
    _add("events npz", "events.npz", _events_npz, _events, sealed=-1)
    _add("events h5", "events.h5", lambda p: write_shd(p, [[0.0, 0.25], [0.5]], [[3, 699], [5]], [1, 0]), _events)
    if importlib.util.find_spec("tonic"):
        _add("events bin", "1/a.bin", _bin, lambda path: _events(path.parents[1]))
    return made


def _bin(path):
    """Write two classes; the file itself is a sample of the second."""
    for file in (path, path.parents[1] / "0" / "a.bin"):
        write_bin(file, [1, 0, 33, 2], [2, 240, 33, 3], [0, 0, 1, 1], [8000, 0, 10, 200])


def _ibw2(path):
    path.write_bytes(wave2(VOLTAGE[0], "mV", 1e-4))
    path.with_name("Ch0_1.ibw").write_bytes(wave2(CURRENT[0], "pA", 1e-4))


# --- damage -----------------------------------------------------------------------------------------------

EXTREMES = [struct.pack(form, value) for form in ("<i", ">i") for value in (-1, 0, 1, 2**31 - 1, -(2**31), 10**6)]
EXTREMES += [struct.pack(form, value) for form in ("<q", ">q") for value in (-1, 10**12, 2**63 - 1, 2**32 + 5)]
EXTREMES += [struct.pack(form, value) for form in ("<f", "<d", ">d") for value in (np.nan, np.inf, 0.0, -1.0, 1e30)]
OPEN = (".csv", ".atf", ".bin")  # which may be cut between two rows or events
KINDS = ("bits", "cut", "swap", "fill", "extreme", "remove", "repeat")


def damaged(rng: np.random.Generator, raw: bytes) -> tuple[str, bytes]:
    """Return what was done to a file, and the file."""
    kind = str(rng.choice(KINDS, p=(0.3, 0.15, 0.05, 0.1, 0.3, 0.05, 0.05)))
    # Headers are small, and what they say is what a reader trusts: half of the damage goes there.
    reach = min(len(raw), 600) if rng.random() < 0.5 else len(raw)
    at = int(rng.integers(reach))
    size = int(rng.integers(1, 40))
    spoiled = bytearray(raw)
    if kind == "bits":
        for place in rng.integers(reach, size=int(rng.integers(1, 4))):
            spoiled[place] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del spoiled[int(rng.integers(len(raw))) :]
    elif kind == "swap":
        other = int(rng.integers(len(raw)))
        spoiled[at : at + size], spoiled[other : other + size] = raw[other : other + size], raw[at : at + size]
    elif kind == "fill":
        spoiled[at : at + size] = bytes([int(rng.choice([0, 255, 32]))]) * len(spoiled[at : at + size])
    elif kind == "extreme":
        value = EXTREMES[int(rng.integers(len(EXTREMES)))]
        at -= at % 2
        spoiled[at : at + len(value)] = value[: len(raw) - at]
    elif kind == "remove":
        del spoiled[at : at + size]
    else:
        spoiled[at:at] = raw[at : at + size]
    return kind, bytes(spoiled)


class _TooLongError(BaseException):
    """Past the time for one file; no Exception, so that the boundary does not take it for damage."""


def _too_long(*_):
    raise _TooLongError


def verdict(good: Good, reference: list[np.ndarray]) -> str:
    """Say how a damaged file was read: "same", "refused", "noted" or "other"; or what is wrong with that."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)  # again, should a destructor have swallowed it
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = good.read(good.path)
    except ValueError as error:
        text = str(error)
        named = any(text.startswith(f"{path.name}: ") for path in (good.path, *good.path.parents))
        one = named and "\n" not in text and len(text) < 600
        return "refused" if one else f"WRONG: refused in other words than one line with the name: {text!r}"
    except _TooLongError:
        return f"WRONG: more than {SECONDS:g} s"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    if len(found) == len(reference) and all(map(np.array_equal, found, reference)):
        return "same"
    return "noted" if any(w.category is RecordingWarning for w in caught) else "other"


def spoil(folder: Path, number: int) -> tuple[Counter, list[str]]:
    """Read ``number`` damaged files; return how many of each format ended how, and what went wrong."""
    rng = np.random.default_rng(SEED)
    files = good_files(folder)
    raws = {name: good.path.read_bytes() for name, good in files.items()}
    references = {name: good.read(good.path) for name, good in files.items()}
    counts, faults = Counter(), []
    for n in range(number):
        name = list(files)[n % len(files)]
        good, raw = files[name], raws[name]
        kind, spoiled = damaged(rng, raw)
        good.path.write_bytes(spoiled)
        outcome = verdict(good, references[name])
        if outcome == "other" and good.sealed and raw[good.sealed :] == spoiled[good.sealed :]:
            outcome = "WRONG: other values in spite of a checksum"
        if outcome == "other" and kind == "cut" and good.path.suffix not in OPEN:
            outcome = "WRONG: a cut was not noticed"
        counts[name, outcome.partition(":")[0]] += 1
        if outcome.startswith("WRONG"):
            faults.append(f"{name}, file {n}, {kind}: {outcome}")
        good.path.write_bytes(raw)
    for name, good in files.items():
        assert verdict(good, references[name]) == "same", f"{name}: the good file after the damaged ones"
    return counts, faults


@pytest.fixture
def alarm():
    """Let the clock end what takes too long."""
    before = signal.signal(signal.SIGALRM, _too_long)
    yield
    signal.signal(signal.SIGALRM, before)


def test_the_good_files_hold_what_was_written(tmp_path):
    for name, good in good_files(tmp_path).items():
        found = good.read(good.path)
        if good.read is _recording and not name.startswith("ibw"):
            for values, expected in zip(found, (CURRENT, VOLTAGE, 0.1), strict=True):
                np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "place", "form", "value", "message"),
    [
        ("abf1", 10, "i", 10**9, "1000000000 entries of 2 bytes from byte 6144 are declared"),
        ("abf1", 16, "i", 1, "1 sweeps are declared, and there are 2"),
        ("abf1", 48, "i", 10**7, "10000000 entries of 64 bytes from byte 0 are declared"),
        ("abf2", 12, "I", 4, "4 sweeps are declared, and there are 2"),
        ("abf2", 164, "q", 2**25, "33554432 entries of 0 bytes from byte 0 are declared"),
        ("abf2", 224, "I", 2**30, "1 entries of 1073741824 bytes from byte 2048 are declared"),
        ("abf2", 3588, "i", 2**25, "sweeps of 33554592 samples in all are declared, and there are 320"),
    ],
)
def test_an_abf_header_that_contradicts_the_file_is_refused_before_it_is_followed(
    tmp_path, name, place, form, value, message
):
    path = tmp_path / "cell.abf"
    {"abf1": _abf1, "abf2": _abf2}[name](path)
    raw = bytearray(path.read_bytes())
    _put(raw, form, place, value)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"^cell.abf: .*{message}"):
        read_recording(path)


def test_damaged_files(tmp_path, alarm):
    _, faults = spoil(tmp_path, FILES // 10)
    assert not faults, "\n".join(faults)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as place:
        table, wrong = spoil(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else FILES)
    outcomes = ("same", "refused", "noted", "other", "WRONG")
    print(f"{'':16}" + "".join(f"{outcome:>9}" for outcome in outcomes))
    for name in dict.fromkeys(name for name, _ in table):
        print(f"{name:16}" + "".join(f"{table[name, outcome]:9d}" for outcome in outcomes))
    print("\n".join(wrong) or "nothing went wrong")
    sys.exit(bool(wrong))
