"""Readers: units and layouts of each format, one line for each defect, and the traps of real files."""

import hashlib
import io
import os
import sys
import warnings
import zipfile
import zlib
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from jaxlif.fitting import load_fit, read_fi_population
from jaxlif.networks import read_events
from jaxlif.recordings import RecordingWarning, abf_file, detect_spikes, read_rates, read_recording, readers
from jaxlif.recordings.units import to_library_unit

T = 50
CURRENT = np.arange(T, dtype=float)
VOLTAGE = -70.0 + 0.1 * CURRENT


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


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
    with pytest.raises(ValueError, match="the file is empty"):
        read_recording(path)
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ValueError) as error:
        read_recording(path)
    assert one_line(error).startswith(f"cell{suffix}: ")


def test_pipes_and_folders_are_refused(tmp_path):
    for suffix in (".npz", ".csv", ".abf", ".nwb", ".ibw"):
        pipe, folder = tmp_path / f"pipe{suffix}", tmp_path / f"folder{suffix}"
        os.mkfifo(pipe)
        folder.mkdir()
        for path in (pipe, folder):
            with pytest.raises(ValueError, match=f"^{path.name}: this is a folder, a pipe or a device"):
                read_recording(path)


def test_no_door_waits_at_a_pipe(tmp_path):
    for read, suffix in (
        (read_events, ".npz"),
        (read_rates, ".csv"),
        (read_fi_population, ".json"),
        (load_fit, ".fit"),
    ):
        pipe = tmp_path / f"pipe{suffix}"
        os.mkfifo(pipe)
        with pytest.raises(ValueError, match=r"this is a (folder, a )?pipe or a device"):
            read(pipe)


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
        patched.setitem(readers._READERS, ".npz", lambda *_: np.ones(5 * 10**8, np.uint8))
        with pytest.raises(
            ValueError, match="^cell.npz: damaged, or not what its name says .*Error: Unable to allocate"
        ):
            read_recording(path)
    assert read_recording(path).num_steps == T and np.ones(5 * 10**8, np.uint8).size == 5 * 10**8


def test_whatever_a_library_raises_is_one_line_with_the_name(tmp_path, monkeypatch):
    path = saved(tmp_path, current=CURRENT, dt=0.1)
    for error in (AttributeError("a\nb"), MemoryError(), StopIteration(), ZeroDivisionError(), KeyError("x")):
        monkeypatch.setitem(readers._READERS, ".npz", Mock(side_effect=error))
        with pytest.raises(ValueError) as caught:
            read_recording(path)
        assert one_line(caught).startswith(f"cell.npz: damaged, or not what its name says ({type(error).__name__}: ")
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
    with pytest.raises(ValueError) as error:
        read_recording(tmp_path / "cell.csv")
    assert one_line(error).startswith(f"cell.csv: {message}")


def test_a_header_without_a_unit_is_read_in_the_one_that_was_given(tmp_path):
    (tmp_path / "cell.csv").write_text("time_ms,current,voltage_mV\n0,1,-70\n1,2,-71\n2,3,-72\n")
    assert read_recording(tmp_path / "cell.csv", current_unit="nA").current[0].tolist() == [1000.0, 2000.0, 3000.0]
    with pytest.raises(ValueError, match="column 'current' names no unit"):
        read_recording(tmp_path / "cell.csv")


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        ({"voltage_unit": "pA"}, "voltage_unit = 'pA': the units known are V, mV, uV"),
        ({"current_gain": 0.0}, "current_gain = 0.0: it must be a finite number other than 0"),
        ({"voltage_gain": np.nan}, "voltage_gain = nan: it must be"),
        ({"current_offset": np.inf}, "current_offset = inf pA: it must be a finite number of pA"),
    ],
)
def test_corrections_that_are_none_are_refused(tmp_path, corrections, message):
    with pytest.raises(ValueError) as error:
        read_recording(saved(tmp_path, current=CURRENT, dt=0.1), **corrections)
    assert one_line(error).startswith(message)


# --- .npz -------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="cell.npz: sweeps = 2: the recording has 2, numbered 0 to 1"):
        read_recording(path, sweeps=2)


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
    with pytest.raises(ValueError) as error:
        read_recording(path)
    assert message in one_line(error)


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
    with pytest.raises(ValueError) as error:
        read_recording(path)
    assert one_line(error).startswith(f"cell.npz: {message}")


def test_a_zip_of_something_else_is_one_line(tmp_path):
    path = tmp_path / "cell.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(ValueError, match="the array `current` \\(pA\\) is missing"):
        read_recording(path)


# --- .csv -------------------------------------------------------------------------------------------------


def written(tmp_path, header, *columns, delimiter=",", fmt="%.6g"):
    path, text = tmp_path / "cell.csv", io.StringIO()
    np.savetxt(text, np.column_stack(columns), delimiter=delimiter, header=header, comments="", fmt=fmt)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "factors"),
    [
        ("time_ms,current_pA,voltage_mV", (1.0, 1.0, 1.0)),
        ("time (s), current (nA), voltage (mV)", (1e-3, 1e-3, 1.0)),
        ('"t [us]","I [A]","Vm [V]"', (1e3, 1e-12, 1e-3)),
    ],
)
def test_csv_units_come_from_the_header(tmp_path, header, factors):
    columns = [f * c for f, c in zip(factors, (0.1 * np.arange(T), CURRENT, VOLTAGE), strict=True)]
    cell = read_recording(written(tmp_path, header, *columns, fmt="%.12g"))
    assert cell.dt == 0.1
    np.testing.assert_allclose(cell.current, CURRENT[None], rtol=1e-9)
    np.testing.assert_allclose(cell.voltage, VOLTAGE[None], rtol=1e-9)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_delimiters_and_unknown_columns(tmp_path, delimiter):
    header = delimiter.join(["\ufefftemperature_C", "time_ms", "current_pA"])
    cell = read_recording(written(tmp_path, header, CURRENT, 0.1 * CURRENT, CURRENT, delimiter=delimiter))
    assert cell.voltage is None and cell.num_steps == T


def test_csv_numbered_columns_are_sweeps_in_the_order_of_their_numbers(tmp_path):
    header = "time_ms,voltage_mV_2,current_pA_2,voltage_mV_1,current_pA_1"
    columns = (0.1 * CURRENT, VOLTAGE + 1, CURRENT + 1, VOLTAGE, CURRENT)
    cell = read_recording(written(tmp_path, header, *columns))
    np.testing.assert_allclose(cell.current, [CURRENT, CURRENT + 1])
    np.testing.assert_allclose(cell.voltage, [VOLTAGE, VOLTAGE + 1])


def test_csv_one_current_serves_several_voltages(tmp_path):
    header = "time_ms,current_pA,voltage_1_mV,voltage_2_mV"
    cell = read_recording(written(tmp_path, header, 0.1 * CURRENT, CURRENT, VOLTAGE, VOLTAGE))
    np.testing.assert_allclose(cell.current, [CURRENT, CURRENT])


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        (
            "time_ms,current_pA,voltage_mV,voltage2_mV",
            "columns 'voltage_mV' and 'voltage2_mV' are two channels of the volt",
        ),
        ("time_ms,current_pA,v_cell1_mV,v_cell2_mV", "columns 'v_cell1_mV' and 'v_cell2_mV' are two channels"),
        ("time_ms,I_pA,Vmon-1[mV],Vmon-2[mV]", "columns 'Vmon-1.mV.' and 'Vmon-2.mV.' are two channels"),
        ("time_ms,I_pA,voltage_mV,cell", f"column 'cell' holds {T} values: give each cell a table of its own"),
        ("time_ms,I_pA,Vm_sweep1_mV,Vm_sweep2_mV", None),
        ("time_ms,I_pA,V_1_mV,V_2_mV", None),
    ],
)
def test_two_cells_in_one_table_are_no_sweeps(tmp_path, header, refused):
    path = written(tmp_path, header, 0.1 * CURRENT, CURRENT, VOLTAGE, VOLTAGE + CURRENT)
    if refused is None:
        np.testing.assert_allclose(read_recording(path).voltage, [VOLTAGE, VOLTAGE + CURRENT])
    else:
        with pytest.raises(ValueError, match=refused):
            read_recording(path)


def test_a_trace_that_is_not_read_is_said(tmp_path):
    path = written(tmp_path, "time_ms,current_pA,voltage_mV,membrane_mV", 0.1 * CURRENT, CURRENT, VOLTAGE, VOLTAGE + 1)
    with pytest.warns(RecordingWarning, match="column 'membrane_mV' is not read") as caught:
        np.testing.assert_allclose(read_recording(path).voltage, [VOLTAGE])
    assert caught[0].filename == __file__


def test_csv_sweep_column(tmp_path):
    sweep, time = np.repeat([4, 2], T), np.tile(0.1 * CURRENT, 2)
    columns = (sweep, time, np.concatenate([CURRENT, -CURRENT]))
    path = written(tmp_path, "sweep,time_ms,current_pA", *columns)
    np.testing.assert_allclose(read_recording(path).current, [CURRENT, -CURRENT])
    assert read_recording(path, sweeps=[1]).current[0, 1] == -1.0


def test_csv_sweeps_whose_rows_alternate_are_put_together_and_said(tmp_path):
    columns = (np.tile([0, 1], T), np.repeat(0.1 * CURRENT, 2), np.stack([CURRENT, -CURRENT], 1).ravel())
    with pytest.warns(RecordingWarning, match="rows of different sweeps alternate") as caught:
        cell = read_recording(written(tmp_path, "sweep,time_ms,current_pA", *columns))
    np.testing.assert_allclose(cell.current, [CURRENT, -CURRENT])
    assert caught[0].filename == __file__


def test_csv_time_rounded_to_few_digits_is_uniform(tmp_path):
    time = np.arange(300) / 30.0
    cell = read_recording(written(tmp_path, "time_ms,current_pA", time, np.arange(300), fmt="%.3f"))
    assert cell.dt == pytest.approx(1 / 30, rel=1e-4)


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("time_ms,current,voltage_mV", (CURRENT, CURRENT, VOLTAGE), "column 'current' names no unit: write for"),
        (
            "time_ms,current_mV",
            (CURRENT, CURRENT),
            "column 'current_mV' is a current by its name and a voltage by its unit",
        ),
        ("time_ms,voltage_mV", (CURRENT, VOLTAGE), "no current column"),
        ("current_pA,voltage_mV", (CURRENT, VOLTAGE), "no time column"),
        ("time_ms,current_pA,I_nA", (CURRENT, CURRENT, CURRENT), "'current_pA' and 'I_nA' are two channels of the"),
        ("time_ms,I_pA,I_pA", (CURRENT, CURRENT, CURRENT), "several columns hold the current of sweep 1"),
        ("a,b", (CURRENT, CURRENT), "names no time, current or voltage"),
        (
            "time_ms,current_pA",
            (np.delete(np.arange(T + 1.0), 7), CURRENT),
            "row 7 to 8 of a sweep is 6 to 8 ms, the median step 1 ms",
        ),
        ("time_ms,current_pA", (-CURRENT, CURRENT), "the time does not rise uniformly"),
        ("sweep,time_ms,current_pA", (CURRENT, CURRENT, CURRENT), "fewer than 2 samples"),
        ("sweep,time_ms,current_pA", (CURRENT > 20, CURRENT, CURRENT), "sweeps of [21, 29] samples"),
        ("time_s,current_pA", (CURRENT, CURRENT), "dt = 1000 ms is implausible"),
    ],
)
def test_csv_defects_are_one_line(tmp_path, header, columns, message):
    path = written(tmp_path, header, *columns)
    with pytest.raises(ValueError) as error:
        read_recording(path)
    assert message in one_line(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_ms,current_pA\n0,1\n0.1,2\n0.2", "row 3 has 1 cells and the header 2: a cell is missing"),
        ("time_ms,current_pA\n0,1\n0.1,x\n0.2,3", "row 2, column 'current_pA': 'x' is no number"),
        ("time_ms,current_pA\n0,1\n", "2 lines: a header and at least two samples"),
        ("0,1\n0.1,2\n0.2,3\n", "the header '0,1' names no"),
    ],
)
def test_csv_broken_text_is_one_line(tmp_path, text, message):
    (tmp_path / "cell.csv").write_text(text)
    with pytest.raises(ValueError) as error:
        read_recording(tmp_path / "cell.csv")
    assert message in one_line(error)


TABLE = ["time (ms);current (pA);voltage (mV)", "0,0;0;-67,78", "0,1;5;-68,12", "0,2;10;-68,02"]


def table(tmp_path, lines, *, encoding="utf-8", end="\n", suffix=".csv"):
    path = tmp_path / f"cell{suffix}"
    path.write_bytes(("\n".join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        (TABLE, "utf-8"),
        ([line.replace(";", "\t") for line in TABLE], "utf-16"),
        ([line.replace(";", "\t").replace(",", ".") for line in TABLE], "utf-8-sig"),
        ([line.replace(";", "; ") + ";" for line in TABLE], "ascii"),
        (["sep=;", "Protocol: 3 steps", *TABLE], "ascii"),
        (['"' + line.replace(";", '","') + '"' for line in TABLE], "ascii"),
        (["time (µs);I (nA);V (µV)", "0;0;-67780", "100;,005;-68120", "200;,010;-68020"], "cp1252"),
    ],
)
def test_tables_as_programs_and_countries_write_them(tmp_path, lines, encoding):
    cell = read_recording(table(tmp_path, lines, encoding=encoding))
    np.testing.assert_allclose(cell.voltage, [[-67.78, -68.12, -68.02]], rtol=1e-12)
    np.testing.assert_allclose(cell.current, [[0.0, 5.0, 10.0]], rtol=1e-12)
    assert cell.dt == 0.1


@pytest.mark.parametrize(
    ("header", "factors"),
    [
        ("Time (s)\tTrace #1 (mV)\tTrace #1 (pA)", (1e-3, 1.0, 1.0)),
        ("Time (ms)\tIN 0 (mV)\tCmd 0 (nA)", (1.0, 1.0, 1e-3)),
        ("Time[s]\tVmon-1[V]\tImon-1[A]", (1e-3, 1e-3, 1e-12)),
        ("Time[s]\tV-mon[V]\tI-mon[A]", (1e-3, 1e-3, 1e-12)),
    ],
)
def test_headers_of_clampfit_and_heka(tmp_path, header, factors):
    above = ["ATF\t1.0", "2     3     ", '"AcquisitionMode=Episodic Stimulation"', '"Signals="\t"IN 0"\t"Cmd 0"']
    rows = np.column_stack([0.1 * CURRENT, VOLTAGE, CURRENT]) * factors
    lines = [*above, '"' + header.replace("\t", '"\t"') + '"', *("\t".join(f"{x:.9g}" for x in row) for row in rows)]
    cell = read_recording(table(tmp_path, lines, suffix=".atf"))
    np.testing.assert_allclose(cell.voltage, [VOLTAGE], rtol=1e-8)
    np.testing.assert_allclose(cell.current, [CURRENT], rtol=1e-8)
    assert cell.dt == pytest.approx(0.1, rel=1e-8)


def test_traces_are_numbered_sweeps_and_times_may_be_repeated(tmp_path):
    lines = ["Time (ms),Trace #2 (mV),Trace #1 (mV),Time (ms),Trace #1 (pA),Trace #2 (pA)"]
    lines += [f"{0.1 * n:.1f},{n},{-n},{0.1 * n + 7:.1f},{-10 * n},{10 * n}" for n in range(9)]
    cell = read_recording(table(tmp_path, lines))
    np.testing.assert_allclose(cell.voltage, [-np.arange(9.0), np.arange(9.0)])
    np.testing.assert_allclose(cell.current, [-10 * np.arange(9.0), 10 * np.arange(9.0)])


ROWS = ["time_ms,current_pA,voltage_mV", "0.0,0,-70.00", "0.1,1,-69.99", "0.2,2,-69.98"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ROWS[0], "0,0,-67,8", "1,0,-68,1"], "row 1 has 4 cells and the header 3: are the decimals commas?"),
        ([*ROWS, "0.3,3,3,-69.97"], "row 4 has 4 cells and the header 3: are the decimals commas?"),
        ([*ROWS, "0.3,3"], "row 4 has 2 cells and the header 3: a cell is missing"),
        ([*TABLE, "0.3;5;-67,1"], "row 1 has a comma and row 4 a point: which of them marks the decimals?"),
        ([*TABLE, "0,3;1,000,5;-67,1"], "row 4, column 'current (pA)': '1,000,5' is no number"),
        ([*ROWS, "nan,3,-69.97", "0.4,4,-69.97"], "row 4 of a sweep has the time nan: a finite number is expected"),
        ([*ROWS, "0.3,3,nan", "0.4,4,-69.97"], "voltage[0, 3] = nan mV: voltage must be finite"),
        ([*ROWS, "0.3,7e300,-69.97"], "current up to 7e+300 pA (under 1e+06 pA is expected): a unit, a conversion"),
        (
            [line + ",1" if n else line + ",sweep" for n, line in enumerate(ROWS)] + ["0.3,3,-69.97,nan"],
            "row 4: sweep = nan",
        ),
        (
            [f"{line},{n / 2}" if n else line + ",time_s_2" for n, line in enumerate(ROWS)],
            "columns of time or sweeps have",
        ),
        (["time_ms,current_MA,voltage_mV", *ROWS[1:]], "current in 'MA': the units known are A, mA, uA, nA, pA"),
        (["time_ms,current_pA,voltage_MV", *ROWS[1:]], "voltage in 'MV': the units known are V, mV, uV"),
        (["time_ms,current_\0A,voltage_mV", *ROWS[1:]], "not a text file, or a damaged one: character 0x0 in line 1"),
        (
            ["t_ms,I_pA_1,I_pA_2,V_mV_2,V_mV_3", *(r + ",0,0" for r in ROWS[1:])],
            "2 current and 2 voltage columns,",
        ),
    ],
)
def test_tables_that_would_be_read_wrongly_are_refused(tmp_path, lines, message):
    with pytest.raises(ValueError) as error:
        read_recording(table(tmp_path, lines))
    assert one_line(error).startswith(f"cell.csv: {message}")


@pytest.mark.parametrize("end", ["0.3,3,-6", "0.3,3,-69", "0.3,3,-69.9"])
def test_a_number_that_was_cut_at_the_end_of_the_file_is_refused(tmp_path, end):
    cell = end.rpartition(",")[2]
    with pytest.raises(ValueError, match=f"cell.csv: the file ends within a number: '{cell}' in the last row has"):
        read_recording(table(tmp_path, [*ROWS, end], end=""))
    if cell != "-6":
        assert read_recording(table(tmp_path, [*ROWS, end])).voltage[0, -1] == float(cell), "the line is ended"
    assert read_recording(table(tmp_path, ROWS, end="")).num_steps == 3, "all decimals are there"


def test_a_number_that_may_have_been_cut_is_said(tmp_path):
    path = table(tmp_path, ["time_ms,current_pA", "0.0,10", "0.1,11", "0.2,1"], end="")
    with pytest.warns(RecordingWarning, match="the last line is not ended: was its last number, 1, cut?") as caught:
        assert read_recording(path).current[0, -1] == 1.0
    assert caught[0].filename == __file__


def test_a_voltage_that_never_changes_is_said(tmp_path):
    with pytest.warns(RecordingWarning, match="voltage = 0 mV in every sample: was it recorded?") as caught:
        read_recording(saved(tmp_path, current=CURRENT, voltage=0 * CURRENT, dt=0.1))
    assert caught[0].filename == __file__


# --- .mat -------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError) as error:
        read_recording(matlab(tmp_path, **{name: x for name, x in variables.items() if x is not None}))
    assert one_line(error).startswith(f"cell.mat: {message}")


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


# --- .abf -------------------------------------------------------------------------------------------------


class FakeABF(SimpleNamespace):
    """As much of pyabf.ABF as the reader uses: inputs [channels, sweeps, T], and names with their units."""

    def setSweep(self, sweep, channel=0):  # noqa: N802 (pyabf's name)
        self.sweepY = self.data[channel][sweep]


def fake(monkeypatch, inputs, outputs=(), commands=None):
    """Let the reader open a file of these (name, unit, data) inputs and (name, unit) outputs."""
    names, units, data = zip(*inputs, strict=True)
    out_names, out_units = zip(*outputs, strict=True) if outputs else ((), ())
    sweeps = range(len(data[0]))
    abf = FakeABF(adcNames=names, adcUnits=units, data=data, sweepList=sweeps, sampleRate=10000)
    abf.dacNames, abf.dacUnits = out_names, out_units
    monkeypatch.setattr(abf_file, "_open", lambda path: abf)

    def stimulus(abf, channel):
        if commands is None:
            raise IndexError(channel)
        return SimpleNamespace(stimulusWaveform=lambda sweep: commands[channel][sweep])

    monkeypatch.setattr("pyabf.stimulus.Stimulus", stimulus)


@pytest.fixture
def abf_path(tmp_path):
    path = tmp_path / "cell.abf"
    path.write_bytes(b"ABF2")
    return path


TWO = np.float32([CURRENT, 2 * CURRENT])
MILLIVOLT = np.float32([VOLTAGE, VOLTAGE])


def test_abf_channels_are_chosen_by_unit_and_a_recorded_current_is_preferred(monkeypatch, abf_path):
    inputs = [("Imemb", "nA", TWO / 1000), ("Vm", "V\0", MILLIVOLT / 1000)]
    fake(monkeypatch, inputs, [("Cmd 0", "pA")], [TWO])
    cell = read_recording(abf_path)
    assert cell.current_source == "recorded" and cell.dt == 0.1
    np.testing.assert_allclose(cell.current, TWO, rtol=1e-6)
    np.testing.assert_allclose(cell.voltage, MILLIVOLT, rtol=1e-6)


def test_abf_command_can_be_asked_for_and_is_used_where_nothing_was_recorded(monkeypatch, abf_path):
    inputs = [("Imemb", "pA", TWO), ("Vm", "mV", MILLIVOLT)]
    fake(monkeypatch, inputs, [("Cmd 0", "nA")], [3 * TWO / 1000])
    with pytest.warns(RecordingWarning, match="recorded current is 0.333 times the command; the command was asked"):
        cell = read_recording(abf_path, current="commanded")
    assert cell.current_source == "commanded"
    np.testing.assert_allclose(cell.current, 3 * TWO, rtol=1e-6)
    fake(monkeypatch, inputs[1:], [("Cmd 0", "nA")], [3 * TWO / 1000])
    assert read_recording(abf_path).current_source == "commanded"


def test_abf_command_is_the_output_that_varies(monkeypatch, abf_path):
    outputs = [("Cmd 0", "pA"), ("Cmd 1", "mV"), ("Cmd 2", "pA")]
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT)], outputs, [0 * TWO, TWO, 5 * TWO])
    np.testing.assert_allclose(read_recording(abf_path).current, 5 * TWO)


@pytest.mark.parametrize(
    ("inputs", "outputs", "commands", "asked", "message"),
    [
        ([("Im", "pA", TWO)], [("Cmd 0", "mV")], [TWO], None, "the output is a voltage (Cmd 0: mV)"),
        ([("Im", "pA", TWO)], [("Cmd 0", "V")], None, None, "the output is a voltage (Cmd 0: V)"),
        (
            [("Im", "", TWO)],
            [("Cmd 0", "pA")],
            [TWO],
            None,
            "no channel is a voltage (Im: no unit): name its unit with",
        ),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "mV")], [TWO], None, "the output is a voltage (Cmd 0: mV)"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [np.nan * TWO], None, "no command is a current that the file"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], None, None, "no command is a current that the file holds"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [TWO], "recorded", "no channel is a current (Vm: mV)"),
    ],
)
def test_abf_without_what_is_needed_is_one_line(monkeypatch, abf_path, inputs, outputs, commands, asked, message):
    fake(monkeypatch, inputs, outputs, commands)
    with pytest.raises(ValueError) as error:
        read_recording(abf_path, current=asked)
    assert message in one_line(error)


def steps_of(levels, rest=0.0, size=2000):
    """Sweeps [levels, T] of a step in their middle."""
    return rest + np.outer(levels, (np.arange(size) // (size // 4)) % 3 == 1)


def relaxed(x, tau=200.0):
    """Follow x as a membrane does, with a time constant in samples: a plain loop."""
    y = np.zeros_like(x)
    for n in range(1, x.shape[1]):
        y[:, n] = y[:, n - 1] + (x[:, n - 1] - y[:, n - 1]) / tau
    return y


COMMAND = steps_of(np.arange(-40.0, 41.0, 20.0))
HISS = 0.5 * np.random.default_rng(0).standard_normal(COMMAND.shape)


@pytest.mark.parametrize(
    ("current", "voltage"),
    [
        (2.0 * COMMAND + HISS, COMMAND - 70.0 + 0.1 * HISS),
        (2.0 * COMMAND + HISS, 2.0 * HISS - 60.0),
        (HISS, 0.05 * relaxed(COMMAND)),
    ],
    ids=["the voltage follows", "a channel of something else", "no current follows"],
)
def test_an_abf_whose_output_is_a_voltage_is_voltage_clamp(monkeypatch, abf_path, current, voltage):
    """Whatever its channels are called: a clamped membrane's current follows the command too."""
    fake(
        monkeypatch,
        [("Im", "pA", current), ("Vm", "mV", voltage)],
        [("Cmd 0", "mV"), ("b", "pA")],
        [COMMAND, 0.0 * COMMAND],
    )
    for asked in (None, "recorded", "commanded"):
        with pytest.raises(ValueError, match="the output is a voltage .Cmd 0: mV.: a voltage-clamp recording") as error:
            read_recording(abf_path, current=asked)
        assert one_line(error)
    assert read_recording(abf_path, current_unit="pA").num_sweeps == 5, "the user may know better"


def test_an_output_that_moves_something_else_leaves_a_voltage_clamp_one(monkeypatch, abf_path):
    """A clamped voltage that was recorded, at one level, while a piezo moves; two of them need no choice first."""
    inputs = [("Ipatch", "pA", 2.0 * COMMAND), ("V", "mV", 0.0 * COMMAND - 80.0), ("W", "mV", HISS - 60.0)]
    fake(monkeypatch, inputs, [("Cmd 0", "mV"), ("piezo", "um")], [0.0 * COMMAND, COMMAND])
    with pytest.raises(ValueError, match="the output is a voltage .Cmd 0: mV.: a voltage-clamp recording"):
        read_recording(abf_path)


def test_an_abf_in_current_clamp_under_a_wrong_unit_of_its_command(monkeypatch, abf_path):
    inputs = [("Im", "pA", 20.0 * COMMAND + HISS), ("Vm", "mV", relaxed(COMMAND) - 70.0)]
    fake(monkeypatch, inputs, [("Cmd 0", "mV"), ("Cmd 1", "mV")], [COMMAND, 0.0 * COMMAND])
    np.testing.assert_array_equal(read_recording(abf_path).current, 20.0 * COMMAND + HISS)
    with pytest.raises(ValueError, match=r"no command is a current .*, a current was recorded \(Im: pA\): leave"):
        read_recording(abf_path, current="commanded")
    cell = read_recording(
        abf_path, current="commanded", current_unit="pA", current_gain=20.0, electrode_channel="Cmd 0"
    )
    np.testing.assert_array_equal(cell.current, 20.0 * COMMAND)
    assert cell.corrections == {"current_unit": "pA", "current_gain": 20.0}


def test_an_abf_whose_input_and_output_are_currents_has_a_wrong_unit(monkeypatch, abf_path):
    fake(monkeypatch, [("IN 0", "pA", 20.0 * MILLIVOLT)], [("Cmd 0", "pA"), ("Cmd 1", "mV")], [TWO, 0.0 * TWO])
    with pytest.raises(ValueError, match=r"input and output are both currents \(IN 0: pA; Cmd 0: pA\), a wrong unit"):
        read_recording(abf_path)
    cell = read_recording(abf_path, voltage_unit="mV", voltage_gain=0.05)
    np.testing.assert_allclose(cell.voltage, MILLIVOLT, rtol=1e-6)
    np.testing.assert_array_equal(cell.current, TWO)


@pytest.mark.parametrize(
    ("inputs", "electrode"),
    [([("a", "pA", 20.0 * MILLIVOLT), ("b", "pA", TWO)], "a"), ([("a", "V", MILLIVOLT), ("b", "pA", TWO)], None)],
)
def test_the_unit_of_an_abf_channel_is_the_one_that_was_given(monkeypatch, abf_path, inputs, electrode):
    fake(monkeypatch, inputs)
    gain = 0.05 if electrode else 1.0
    cell = read_recording(abf_path, voltage_unit="mV", voltage_gain=gain, electrode_channel=electrode)
    assert number_of(cell) == (pytest.approx(0.0, abs=1e-5), 1)


def test_abf_warns_of_an_unconnected_current(monkeypatch, abf_path):
    noise = np.random.default_rng(0).standard_normal((2, T))
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT), ("I", "pA", noise)], [("Cmd 0", "pA")], [TWO])
    with pytest.warns(RecordingWarning, match="recorded current does not follow the command"):
        read_recording(abf_path)


def stepped(*levels, holding=0.0):
    """Sweeps of 300 ms, each with a step from 100 to 200 ms."""
    return np.array([np.repeat([holding, holding + level, holding], 1000) for level in levels])


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (stepped(-50.0, 50.0, 100.0), None),
        (stepped(-50.0, 52.0, 98.0, holding=1.0), None),
        (stepped(-50.0, 50.0, 150.0), "other levels: in sweep 2 at 100 ms 100 and 150 pA; the recorded one is used"),
        (stepped(-50.0, 50.0, 100.0, holding=-20.0), "the recorded current lies -20 pA beside the command throughout"),
    ],
)
def test_abf_warns_where_command_and_recorded_current_differ(monkeypatch, abf_path, measured, message):
    noise = 0.5 * np.random.default_rng(0).standard_normal(measured.shape)
    voltage = -60.0 + 0.05 * measured
    fake(
        monkeypatch,
        [("V", "mV", voltage), ("I", "pA", measured + noise)],
        [("C", "pA"), ("D", "pA")],
        [stepped(-50.0, 50.0, 100.0), 0 * measured],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_recording(abf_path)
    assert [message in str(w.message) for w in caught] == [True] * (message is not None)


def abf_with_user_list(monkeypatch, values, parameter, repeat=0, lists=1):
    """An ABF2 file of four sweeps of 640 samples whose epochs are 0, then 50 pA and 10 more in every sweep, then 0."""
    pyabf = pytest.importorskip("pyabf")
    abf = object.__new__(type("ListedABF", (pyabf.ABF,), {"setSweep": FakeABF.setSweep}))
    epochs = {"nDACNum": [0] * 3, "nEpochNum": [0, 1, 2], "nEpochType": [1] * 3, "fEpochInitLevel": [0.0, 50.0, 0.0]}
    epochs |= {"fEpochLevelInc": [0.0, 10.0, 0.0], "lEpochDurationInc": [0] * 3, "lEpochInitDuration": [100, 200, 50]}
    epochs |= {"lEpochPulsePeriod": [0] * 3, "lEpochPulseWidth": [0] * 3}
    outputs = {"nWaveformEnable": [1, 0], "nWaveformSource": [1, 1], "nInterEpisodeLevel": [0, 0]}
    vars(abf).update(
        adcNames=["V"], adcUnits=["mV"], dacNames=["Cmd"], dacUnits=["pA"], sweepList=range(4), sampleRate=10000,
        dataRate=10000, data=[-60.0 + 50.0 * np.eye(4, 640)], holdingCommand=[0.0, 0.0], sweepPointCount=640,
        abfVersion={"major": 2}, _epochPerDacSection=SimpleNamespace(**epochs), _dacSection=SimpleNamespace(**outputs),
        _protocolSection=SimpleNamespace(nActiveDACChannel=1), userList=values, userListEnable=[1] * lists,
        userListParamToVary=[parameter] * lists, userListRepeat=[repeat] * lists,
    )  # fmt: skip
    monkeypatch.setattr(abf_file, "_open", lambda path: abf)


@pytest.mark.parametrize(
    ("values", "repeat", "levels"),
    [
        ([-200.0, 25.0, 600.0, 7.0], 0, [-200.0, 25.0, 600.0, 7.0]),
        ([-200.0, 25.0], 1, [-200.0, 25.0, -200.0, 25.0]),
        ([-200.0, 25.0], 0, [-200.0, 25.0, 25.0, 25.0]),
    ],
)
def test_a_user_list_of_an_abf_sets_the_levels_of_its_epoch(monkeypatch, abf_path, values, repeat, levels):
    """The epochs follow the first 640 / 64 samples: Clampex holds for a 64th of the sweep."""
    abf_with_user_list(monkeypatch, values, parameter=62, repeat=repeat)
    expected = np.zeros((4, 640))
    expected[:, 110:310] = np.array(levels)[:, None]
    np.testing.assert_array_equal(read_recording(abf_path).current, expected)


@pytest.mark.parametrize("change", [{"parameter": 112}, {"parameter": 70}, {"lists": 2}, {"values": None}])
def test_a_user_list_that_is_not_read_is_refused(monkeypatch, abf_path, change):
    abf_with_user_list(monkeypatch, **({"values": [1.0, 2.0], "parameter": 62} | change))
    with pytest.raises(ValueError, match=r"no command is a current that the file holds \(a user list varies"):
        read_recording(abf_path)


def test_a_command_that_lies_in_another_file_is_not_read(monkeypatch, abf_path):
    """pyabf would look for the stimulus file in three places, one of them named by the header."""
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [TWO])
    opened = abf_file._open(abf_path)
    opened._dacSection = SimpleNamespace(nWaveformEnable=[1], nWaveformSource=[1])
    assert read_recording(abf_path).current_source == "commanded"
    opened._dacSection.nWaveformSource = [2]
    with pytest.raises(ValueError, match=r"no command is a current that the file holds \(Cmd 0: pA\), and no current"):
        read_recording(abf_path)


def channels(*names):
    """Make inputs of these names: V2 is the voltage plus 2 mV, I3 three times the current."""
    data = {"V": ("mV", lambda n: MILLIVOLT + n), "I": ("pA", lambda n: n * TWO)}
    return [(name, data[name[0]][0], data[name[0]][1](int(name[1]))) for name in names]


def number_of(recording):
    """Return which voltage and which current a recording holds."""
    return float(np.mean(recording.voltage - MILLIVOLT)), float(np.mean(recording.current) / np.mean(TWO))


@pytest.mark.parametrize(
    ("names", "electrode", "expected"),
    [
        (("I3", "V2"), None, (2, 3)),
        (("V1", "I1", "V2", "I3"), "V2", (2, 3)),
        (("V1", "I1", "V2", "I3"), "V1", (1, 1)),
        (("V1", "I1", "V2", "I3"), "I1,V2", (2, 1)),
        (("V1", "I1", "I2"), "I2", (1, 2)),
        (("V1", "I1", "I2"), "V1, I1", (1, 1)),
        (("V1", "V2", "I1", "I2", "I3"), "V1,I3", (1, 3)),
    ],
)
def test_an_electrode_of_an_abf_brings_its_own_current(monkeypatch, abf_path, names, electrode, expected):
    fake(monkeypatch, channels(*names))
    assert number_of(read_recording(abf_path, electrode_channel=electrode)) == expected


@pytest.mark.parametrize(
    ("names", "electrode", "message"),
    [
        (
            ("V1", "I1", "V2", "I2"),
            None,
            "2 channels are a voltage (V1: mV, V2: mV): choose one with `electrode_channel`",
        ),
        (("V1", "I1", "I2"), None, "2 channels are a current (I1: pA, I2: pA): choose one with `electrode_channel`"),
        (("V1", "I1", "I2"), "V1", "2 channels are a current (I1: pA, I2: pA): choose one with `electrode_channel`"),
        (("V1", "V2", "I1"), "V1,V2", "2 channels are a voltage (V1: mV, V2: mV): choose one with `electrode_channel`"),
        (("V1", "V2", "I1"), "V3", "electrode_channel = 'V3': the channels are V1: mV, V2: mV, I1: pA"),
        (
            ("V1", "V2", "I1", "I2", "I3"),
            "V2",
            "3 channels are a current (I1: pA, I2: pA, I3: pA): choose one with `electrode_channel`, such as V2,I1",
        ),
    ],
)
def test_one_of_several_abf_channels_has_to_be_chosen(monkeypatch, abf_path, names, electrode, message):
    fake(monkeypatch, channels(*names))
    with pytest.raises(ValueError) as error:
        read_recording(abf_path, electrode_channel=electrode)
    assert one_line(error) == f"cell.abf: {message}"


def test_channels_of_an_abf_that_share_a_name_are_numbered(monkeypatch, abf_path):
    inputs = [("Vm", "mV", MILLIVOLT), ("Vm\0", "mV", MILLIVOLT + 1), ("a, b", "pA", TWO), ("", "pA", 2 * TWO)]
    fake(monkeypatch, inputs)
    with pytest.raises(ValueError, match="2 channels are a voltage .channel 0: mV, channel 1: mV.: choose one"):
        read_recording(abf_path)
    assert number_of(read_recording(abf_path, electrode_channel="channel 1")) == (1, 2)
    fake(monkeypatch, inputs[1:])
    assert number_of(read_recording(abf_path, electrode_channel="a, b")) == (1, 1)
    assert number_of(read_recording(abf_path, electrode_channel="channel 2")) == (1, 2)


def test_the_only_recorded_current_of_two_electrodes_is_doubted(monkeypatch, abf_path):
    fake(monkeypatch, channels("V1", "V2", "I3"))
    with pytest.warns(RecordingWarning, match="only recorded current, I3, is taken for that of V2: was it injected"):
        assert number_of(read_recording(abf_path, electrode_channel="V2")) == (2, 3)
    assert number_of(read_recording(abf_path, electrode_channel="V2,I3")) == (2, 3)


def test_the_command_of_an_abf_electrode(monkeypatch, abf_path):
    """Of as many outputs as voltages the one at the same place; else the one that varies, or one that was named."""
    outputs, commands = [("Cmd 0", "pA"), ("Cmd 1", "pA"), ("Cmd 2", "pA")], [1 * TWO, 2 * TWO, 0 * TWO]
    fake(monkeypatch, channels("V1", "V2"), outputs[:2], commands[:2])
    assert number_of(read_recording(abf_path, electrode_channel="V2")) == (2, 2)
    assert number_of(read_recording(abf_path, electrode_channel="V2,Cmd 0")) == (2, 1)
    fake(monkeypatch, channels("V1"), outputs, commands)
    with pytest.raises(
        ValueError, match=r"2 channels are a commanded current \(Cmd 0: pA, Cmd 1: pA\): choose one with"
    ):
        read_recording(abf_path)
    assert number_of(read_recording(abf_path, electrode_channel="Cmd 1")) == (1, 2)
    fake(monkeypatch, channels("V1", "I2"), outputs, commands)
    assert number_of(read_recording(abf_path)) == (1, 2), "a current that was recorded needs no choice of a command"
    with pytest.raises(ValueError, match="electrode_channel = 'Cmd 0': the channels are V1: mV, I2: pA"):
        read_recording(abf_path, electrode_channel="Cmd 0")
    with pytest.warns(RecordingWarning, match="recorded current is 2 times the command"):
        assert number_of(read_recording(abf_path, electrode_channel="Cmd 0", current="commanded")) == (1, 1)


def test_abf_sweeps_of_several_lengths(monkeypatch, abf_path):
    voltage, current = [VOLTAGE, VOLTAGE[:40], VOLTAGE], [CURRENT, CURRENT[:40], CURRENT]
    fake(monkeypatch, [("Vm", "mV", voltage), ("I", "pA", current)])
    with pytest.raises(ValueError, match="current has sweeps of \\[40, 50\\] samples: choose some"):
        read_recording(abf_path)
    assert read_recording(abf_path, sweeps=[0, 2]).num_sweeps == 2


def test_abf_needs_pyabf(monkeypatch, abf_path):
    monkeypatch.setitem(sys.modules, "pyabf", None)
    with pytest.raises(ImportError, match=r'needs pyabf: pip install "jaxlif\[recordings\]"'):
        read_recording(abf_path)


def test_a_real_abf_file_without_a_command(tmp_path):
    writer = pytest.importorskip("pyabf.abfWriter")
    path = tmp_path / "cell.abf"
    for unit, message in (("mV", "no command is a current"), ("pA", "no channel is a voltage .channel 0: pA.")):
        writer.writeABF1(np.tile(MILLIVOLT, 100), str(path), 10000, units=unit)
        with pytest.raises(ValueError, match=message):
            read_recording(path)


def test_the_measured_current_of_the_pyramidal_cell(data_folder):
    path = data_folder / "recordings" / "ferguson2015_PYR1.abf"
    cell = read_recording(path)
    assert (cell.current_source, cell.dt, cell.current.shape) == ("recorded", 0.1, (30, 20000))
    in_step = np.median(cell.current[:, 900:10700], axis=1)
    assert -2.0 < in_step[0] < 0.0 and 280.0 < in_step[-1] < 285.0
    assert -70.0 < np.median(cell.voltage) < -55.0 and detect_spikes(cell.voltage[-1], cell.dt).sum() == 29
    with pytest.raises(ValueError, match=r"no command is .* \(Cmd 0: mV, .*\), a current was recorded \(Imemb: pA\)"):
        read_recording(path, current="commanded")


def test_the_commanded_current_of_the_interneuron(data_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell = read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf")
    assert (cell.current_source, cell.dt, cell.current.shape) == ("commanded", 0.05, (17, 60000))
    np.testing.assert_array_equal(cell.current[:, 3000], np.arange(-100.0, 301.0, 25.0))
    with pytest.raises(ValueError, match='current = "recorded": no channel is a current'):
        read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf", current="recorded")


def test_real_npz_files(data_folder):
    cell = read_recording(data_folder / "recordings" / "l5_pyramidal_frozen_noise.npz")
    assert cell.current.shape == (9, 140000) and cell.electrode_current.shape == (100000,)
    assert read_recording(data_folder / "recordings" / "qsnmc2007_a.npz").current.shape == (16, 34000)
