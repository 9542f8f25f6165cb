"""The door: units, corrections and damage; NumPy archives and MATLAB files, one line for each defect."""

import hashlib
import io
import os
import zipfile
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from jaxlif import load_fit
from jaxlif.networks import read_events
from jaxlif.recordings import RecordingWarning, read, read_recording
from jaxlif.recordings.text import read_rates
from jaxlif.recordings.units import to_library_unit
from tests.recordings import CURRENT, VOLTAGE, T, refused


def test_units_become_those_of_the_library():
    factors = {("time", "us"): 1e-3, ("time", "s"): 1e3, ("current", "A"): 1e12, ("current", "na"): 1e3}
    factors |= {
        ("voltage", "V"): 1e3,
        ("voltage", "\u03bcV"): 1e-3,
        ("voltage", "\u00b5V"): 1e-3,
        ("voltage", "mV\0"): 1,
    }
    assert {key: to_library_unit(*key) for key in factors} == factors
    with pytest.raises(ValueError, match="current in 'mV': the units known are A, mA, uA, nA, pA"):
        to_library_unit("current", "mV")


# --- the door ---------------------------------------------------------------------------------------------


def test_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(
        ValueError, match=r"cell.xls: format '.xls' is not known; known are .npz, .csv, .atf, .mat, .abf"
    ):
        read_recording(tmp_path / "cell.xls")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".abf"])
def test_missing_empty_and_damaged_files(tmp_path, suffix):
    path = tmp_path / f"cell{suffix}"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_recording(path)
    path.touch()
    assert refused(path) == "the file is empty"
    path.write_bytes(bytes(range(256)) * 4)
    assert refused(path)


def test_pipes_and_empty_folders_are_refused(tmp_path):
    for suffix in (".npz", ".csv", ".abf", ".nwb", ".ibw"):
        pipe, folder = tmp_path / f"pipe{suffix}", tmp_path / f"folder{suffix}"
        os.mkfifo(pipe)
        folder.mkdir()
        with pytest.raises(ValueError, match=f"^{pipe.name}: this is a folder, a pipe or a device"):
            read_recording(pipe)
        with pytest.raises(ValueError, match=f"^{folder.name}: there is no recording in this folder"):
            read_recording(folder)


def test_no_door_waits_at_a_pipe(tmp_path):
    for door, suffix in ((read_events, ".npz"), (read_rates, ".csv"), (load_fit, ".fit")):
        pipe = tmp_path / f"pipe{suffix}"
        os.mkfifo(pipe)
        with pytest.raises(ValueError, match=r"this is a (folder, a )?pipe or a device"):
            door(pipe)


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "cell.csv"
    path.touch()
    os.truncate(path, 2**43)  # a hole: it takes no space
    with pytest.raises(ValueError, match=r"^cell.csv: the file would need 8.8e\+03 GB: .* of memory are free"):
        read_recording(path)


def test_a_library_that_asks_for_more_than_the_memory_at_hand_fails_at_once(tmp_path, monkeypatch):
    path = saved(tmp_path, current=CURRENT, dt=0.1)
    monkeypatch.setattr("jaxlif.files.memory_at_hand", lambda: 10**8)
    with monkeypatch.context() as patched:
        patched.setitem(read._READERS, ".npz", lambda *_: np.ones(5 * 10**8, np.uint8))
        with pytest.raises(
            ValueError, match="^cell.npz: damaged, or not what its name says .*Error: Unable to allocate"
        ):
            read_recording(path)
    assert read_recording(path).num_steps == T and np.ones(5 * 10**8, np.uint8).size == 5 * 10**8


def test_whatever_a_library_raises_is_one_line_with_the_name(tmp_path, monkeypatch):
    path = saved(tmp_path, current=CURRENT, dt=0.1)
    for error in (AttributeError("a\nb"), MemoryError(), StopIteration(), ZeroDivisionError(), KeyError("x")):
        monkeypatch.setitem(read._READERS, ".npz", Mock(side_effect=error))
        with pytest.raises(ValueError) as caught:
            read_recording(path)
        start = f"cell.npz: damaged, or not what its name says ({type(error).__name__}: "
        assert str(caught.value).startswith(start) and "\n" not in str(caught.value)
        assert caught.value.__cause__ is error


def test_only_known_kinds_of_current_can_be_asked_for(tmp_path):
    with pytest.raises(ValueError, match="current = 'measured'"):
        read_recording(tmp_path / "cell.npz", current="measured")


def test_validation_errors_name_the_file(tmp_path):
    np.savez(tmp_path / "cell.npz", current=CURRENT, voltage=VOLTAGE[1:], dt=0.1)
    with pytest.raises(ValueError, match="cell.npz: current has shape .1, 50. and voltage .1, 49."):
        read_recording(tmp_path / "cell.npz")


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_units_gains_and_offsets_are_corrected_at_the_door(tmp_path, suffix):
    """V = gain x + offset after the unit; a trace of the electrode came through the same amplifier."""
    path = tmp_path / f"cell{suffix}"
    if suffix == ".npz":
        np.savez(path, current=CURRENT, voltage=VOLTAGE, dt=0.1, electrode_current=CURRENT, electrode_voltage=VOLTAGE)
    else:
        table = np.stack([0.1 * np.arange(T), CURRENT, VOLTAGE], axis=1)
        np.savetxt(path, table, delimiter=",", header="time_ms,current_pA,voltage_mV", comments="")
    given = {"current_unit": "nA", "current_gain": -5e-3, "voltage_gain": 0.9, "voltage_offset": -3.0}
    cell = read_recording(path, **given)
    np.testing.assert_allclose(cell.current[0], -5.0 * CURRENT, rtol=1e-12)
    np.testing.assert_allclose(cell.voltage[0], 0.9 * VOLTAGE - 3.0, rtol=1e-12)
    assert cell.corrections == given and read_recording(path).corrections == {}
    if suffix == ".npz":
        np.testing.assert_allclose(cell.electrode_current, cell.current[0], rtol=0)
        np.testing.assert_allclose(cell.electrode_voltage, cell.voltage[0], rtol=0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("time_ms,command_mV,current_pA", "the output is a voltage (command_mV): a voltage-clamp recording"),
        ("time_ms,Cmd 0 (mV),IN 0 (pA)", "the output is a voltage (Cmd 0 (mV)): a voltage-clamp recording"),
        ("time_ms,current_pA,Vm_pA", "column 'Vm_pA' is a voltage by its name and a current by its unit: a wrong unit"),
        ("time_ms,I_mV,voltage_mV", "column 'I_mV' is a current by its name and a voltage by its unit: a wrong unit"),
    ],
)
def test_a_table_of_a_voltage_clamp_or_with_a_wrong_unit_is_refused(tmp_path, header, message):
    (tmp_path / "cell.csv").write_text(f"{header}\n0,1,-70\n1,2,-71\n2,3,-72\n")
    assert refused(tmp_path / "cell.csv").startswith(message)


def test_a_header_without_a_unit_is_read_in_the_one_that_was_given(tmp_path):
    (tmp_path / "cell.csv").write_text("time_ms,current,voltage_mV\n0,1,-70\n1,2,-71\n2,3,-72\n")
    assert read_recording(tmp_path / "cell.csv", current_unit="nA").current[0].tolist() == [1000.0, 2000.0, 3000.0]
    with pytest.raises(ValueError, match="column 'current' names no unit"):
        read_recording(tmp_path / "cell.csv")


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        ({"voltage_unit": "pA"}, "voltage_unit = 'pA': the units known are V, mV, uV"),
        ({"current_gain": 0.0}, "current_gain = 0: current_gain must be a number other than 0"),
        ({"voltage_gain": np.nan}, "voltage_gain = nan: voltage_gain must be finite"),
        ({"current_offset": np.inf}, "current_offset = inf pA: current_offset must be finite"),
    ],
)
def test_corrections_that_are_none_are_refused(tmp_path, corrections, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_recording(saved(tmp_path, current=CURRENT, dt=0.1), **corrections)


# --- .npz ------------------------------------------------------------------------------------------------


def saved(tmp_path, **arrays):
    path = tmp_path / "cell.npz"
    np.savez(path, **arrays)
    return path


def test_npz_round_trip(tmp_path):
    electrode = {"electrode_current": CURRENT[:9], "electrode_voltage": VOLTAGE[:9]}
    path = saved(tmp_path, current=CURRENT, voltage=VOLTAGE, dt=0.1, spikes=CURRENT == 7, note="x", **electrode)
    cell = read_recording(str(path), current="commanded")
    np.testing.assert_array_equal(cell.current, CURRENT[None])
    np.testing.assert_array_equal(cell.voltage, VOLTAGE[None])
    assert np.flatnonzero(cell.spikes).tolist() == [7] and cell.electrode_voltage.shape == (9,)
    assert (cell.dt, cell.name, cell.current_source) == (0.1, "cell.npz", "commanded")
    assert cell.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_npz_without_voltage_is_a_stimulus(tmp_path):
    cell = read_recording(saved(tmp_path, current=CURRENT, dt=0.1))
    assert cell.voltage is None and cell.current_source == "unknown"


def test_npz_flattens_stimuli_and_repeats_in_order(tmp_path):
    current = np.arange(2 * 3 * T, dtype=float).reshape(2, 3, T)
    cell = read_recording(saved(tmp_path, current=current, dt=0.1))
    np.testing.assert_array_equal(cell.current, current.reshape(6, T))


def test_a_bad_sweep_does_not_cost_the_others(tmp_path):
    voltage = np.stack([VOLTAGE, np.full(T, np.nan)])
    path = saved(tmp_path, current=np.stack([CURRENT] * 2), voltage=voltage, dt=0.1)
    with pytest.raises(ValueError, match=r"cell.npz: voltage\[1, 0\] = nan mV: voltage must be finite"):
        read_recording(path)
    assert read_recording(path, sweeps=0).num_sweeps == 1
    assert refused(path, sweeps=2).startswith("sweeps = 2: the recording has 2, numbered 0 to 1")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"current": CURRENT}, "the array `dt` (ms) is missing"),
        ({"voltage": VOLTAGE, "dt": 0.1}, "the array `current` (pA) is missing"),
        ({"current": np.array([None]), "dt": 0.1}, "the array `current` cannot be read; only plain numeric"),
    ],
)
def test_npz_defects_are_one_line(tmp_path, arrays, message):
    path = saved(tmp_path, **arrays)
    assert message in refused(path)


def test_a_pickled_array_with_another_name_is_ignored(tmp_path):
    read_recording(saved(tmp_path, current=CURRENT, dt=0.1, notes=np.array([None])))


def test_truncated_and_corrupted_npz(tmp_path):
    path = saved(tmp_path, current=CURRENT, dt=0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="cell.npz: not an .npz archive, or one that was cut short"):
        read_recording(path)
    path.write_bytes(whole[:300] + b"xxxx" + whole[304:])
    with pytest.raises(ValueError, match="cell.npz: damaged, or not what its name says .BadZipFile: "):
        read_recording(path)


def rezipped(raw, name, change):
    """Return an archive with one member changed, and checksums that are right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename == name else data)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [T - 1, 9 * 10**9])
def test_an_array_that_declares_other_bytes_than_it_has(tmp_path, size):
    """The checksum stands behind the last byte: an array of fewer would be read without it, a huge one fill memory."""
    path = saved(tmp_path, current=CURRENT, dt=0.1)
    told = f"({size},), }}".encode().ljust(18)
    changed = rezipped(path.read_bytes(), "current.npy", lambda raw: raw.replace(b"(50,), }".ljust(18), told))
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=f"the array `current` .{size}. would have {8 * size} bytes, and 400 are"):
        read_recording(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voltage", VOLTAGE.astype("M8[s]"), "the array `voltage` cannot be read; only plain numeric and text arrays"),
        ("dt", np.timedelta64(1, "s"), "the array `dt` cannot be read"),
        ("voltage", VOLTAGE + 1j, "the array `voltage` cannot be read"),
        ("Voltage", VOLTAGE, "the array `Voltage` is not known: is `voltage` meant?"),
        ("votlage", VOLTAGE, "the array `votlage` is not known: is `voltage` meant?"),
        ("voltage", VOLTAGE.astype("U9"), "voltage = array("),
    ],
)
def test_npz_arrays_of_another_kind_or_a_near_name(tmp_path, name, value, message):
    path = saved(tmp_path, **({"current": CURRENT, "dt": 0.1} | {name: value}))
    assert refused(path).startswith(message)


def test_a_zip_of_something_else_is_one_line(tmp_path):
    path = tmp_path / "cell.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(ValueError, match="the array `current` \\(pA\\) is missing"):
        read_recording(path)


# --- .mat ------------------------------------------------------------------------------------------------


def matlab(tmp_path, *, compressed=True, **variables):
    path = tmp_path / "cell.mat"
    scipy.io.savemat(path, variables, do_compression=compressed)
    return path


@pytest.mark.parametrize("shape", [lambda x: x[0], lambda x: x[:1].T, lambda x: x, lambda x: x.T])
def test_mat_columns_rows_and_matrices(tmp_path, shape):
    """MATLAB has sweeps side by side, Python one under the other: time is the longer axis."""
    current, voltage = np.stack([CURRENT, 2 * CURRENT]), np.stack([VOLTAGE, VOLTAGE + 1])
    cell = read_recording(matlab(tmp_path, current=shape(current), voltage=shape(voltage), dt=0.1, note="x"))
    np.testing.assert_array_equal(cell.current, current[: cell.num_sweeps])
    np.testing.assert_array_equal(cell.voltage, voltage[: cell.num_sweeps])
    assert cell.num_sweeps == (2 if np.ndim(shape(current)) == 2 and 1 not in shape(current).shape else 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": np.zeros((0, 0))}, "dt = []"),
        ({"voltage": VOLTAGE + 1j}, "the array `voltage` cannot be read; only full arrays of real numbers are"),
        ({"voltage": {"a": 1}}, "the array `voltage` cannot be read"),
        ({"voltage": "abc"}, "the array `voltage` cannot be read"),
        ({"voltage": scipy.sparse.csc_array(VOLTAGE[None])}, "the array `voltage` cannot be read"),
        ({"voltage": None, "Voltage": VOLTAGE}, "the array `Voltage` is not known: is `voltage` meant?"),
        ({"current": np.zeros((9, 9))}, "the array `current` has shape [9, 9]: which axis is time?"),
        ({"dt": None}, "the array `dt` (ms) is missing"),
    ],
)
def test_mat_defects_are_one_line(tmp_path, change, message):
    variables = {"current": CURRENT, "voltage": VOLTAGE, "dt": 0.1} | change
    assert refused(matlab(tmp_path, **{name: x for name, x in variables.items() if x is not None})).startswith(message)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_mat_numbers_of_every_kind(tmp_path, kind, compressed):
    cell = read_recording(matlab(tmp_path, compressed=compressed, a="x", current=CURRENT.astype(kind), dt=1))
    np.testing.assert_array_equal(cell.current, [CURRENT])


def test_mat_of_other_versions_says_how_to_save_it(tmp_path):
    path = tmp_path / "cell.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(500))
    with pytest.raises(ValueError, match=r"^cell.mat: no .mat file of MATLAB 5 to 7.2: save it once more with save"):
        read_recording(path)
    scipy.io.savemat(path, {"current": CURRENT, "dt": 0.1}, format="4")
    with pytest.raises(ValueError, match=r"^cell.mat: no .mat file of MATLAB 5 to 7.2"):
        read_recording(path)


def test_mat_that_is_larger_than_it_says_or_than_memory(tmp_path):
    path = matlab(tmp_path, current=np.zeros((1, 10**6)), dt=0.1)
    raw = path.read_bytes()
    size, inflated = (
        int.from_bytes(raw[132:136], "little"),
        zlib.decompress(raw[136:][: int.from_bytes(raw[132:136], "little")]),
    )
    for told in (100, 2**32 - 1):
        packed = zlib.compress(inflated[:4] + told.to_bytes(4, "little") + inflated[8:])
        path.write_bytes(raw[:132] + len(packed).to_bytes(4, "little") + packed + raw[136 + size :])
        with pytest.raises(
            ValueError, match=r"^cell.mat: (a damaged .mat file: a variable of|a variable of the .mat file)"
        ):
            read_recording(path)


def test_a_voltage_that_never_changes_is_said(tmp_path):
    with pytest.warns(RecordingWarning, match="voltage = 0 mV in every sample: was it recorded?") as caught:
        read_recording(saved(tmp_path, current=CURRENT, voltage=0 * CURRENT, dt=0.1))
    assert caught[0].filename == __file__
