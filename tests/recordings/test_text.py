"""Text tables: units, layouts and countries of headers, and one line for each defect."""

import io

import numpy as np
import pytest

from jaxlif.recordings import RecordingWarning, read_recording
from tests.recordings import CURRENT, VOLTAGE, T, refused


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
    assert message in refused(path)


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
    assert message in refused(tmp_path / "cell.csv")


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
        ([*ROWS, "0.3,1_0,-69.97"], "row 4, column 'current_pA': '1_0' is no number"),
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
            "columns of currents [1, 2] and of voltages [2, 3]: they must pair up",
        ),
    ],
)
def test_tables_that_would_be_read_wrongly_are_refused(tmp_path, lines, message):
    assert refused(table(tmp_path, lines)).startswith(message)


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
