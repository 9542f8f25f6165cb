"""Igor binary waves: partners, units and sweeps of files written to the public format, and real ones against NumPy."""

import hashlib
import struct

import numpy as np
import pytest

from jaxlif.recordings import RecordingWarning, read_recording
from tests.recordings import CURRENT, VOLTAGE, T, read, refused

TYPES = {"f4": 2, "f8": 4, "i2": 16, "i4": 32}


def wave5(data, unit="", dt=1e-4, dt_unit="s", kind="f4", note=b""):
    """Return a version 5 wave as Igor's technical note PTN003 lays it out, little-endian.

    Units of up to three characters stand in the header, longer ones after the data.
    """
    data = np.asarray(data).astype("<" + kind)
    shape = data.shape + (0,) * (4 - data.ndim)
    units = [u.encode("latin-1") for u in (unit, dt_unit)]
    short, extended = ([u if (len(u) < 4) == fits else b"" for u in units] for fits in (True, False))
    header = struct.pack("<3I i h h 6x h 32s i I", 0, 0, 0, data.size, TYPES[kind], 0, 1, b"wave", 0, 0)
    header += struct.pack("<4i 4d 4d", *shape, dt, 1, 1, 1, 0, 0, 0, 0)
    header += struct.pack("<4s 4s 12x h h 2d", short[0], short[1], 0, 0, 0, 0)
    header += bytes(320 - len(header))
    payload = data.tobytes(order="F")
    sizes = (len(header) + len(payload), 0, len(note), len(extended[0]), len(extended[1]), *[0] * 10)
    file_header = struct.pack("<h h 15i", 5, 0, *sizes)
    total = np.frombuffer(file_header + header, "<i2").astype(int).sum()  # the headers must add up to 0
    file_header = struct.pack("<h h 15i", 5, (-total + 2**15) % 2**16 - 2**15, *sizes)
    return file_header + header + payload + note + b"".join(extended)


def wave2(data, unit, dt):
    """Return a version 2 wave, big-endian as old Macintosh files are: no dimensions, 16 bytes of padding."""
    data = np.asarray(data).astype(">f4")
    header = struct.pack(">h I 20s h h I", 2, 0, b"wave", 0, 0, 0)
    header += struct.pack(">4s 4s i h 2d", unit.encode(), b"s", data.size, 0, dt, 0.0)
    header += bytes(110 - len(header))
    sizes = (len(header) + data.nbytes + 16, 0, 0)
    total = np.frombuffer(struct.pack(">h 3i h", 2, *sizes, 0) + header, ">i2").astype(int).sum()
    file_header = struct.pack(">h 3i h", 2, *sizes, (-total + 2**15) % 2**16 - 2**15)
    return file_header + header + data.tobytes() + bytes(16)


def save(folder, name, *args, **settings):
    path = folder / f"{name}.ibw"
    path.write_bytes(wave5(*args, **settings))
    return path


def save_sweep(folder, number, scale=1.0, **settings):
    save(folder, f"B6_Ch0_IDRest_{number}", scale * CURRENT, "pA", **settings)
    return save(folder, f"B6_Ch3_IDRest_{number}", VOLTAGE + scale, "mV", **settings)


def scales(cell):
    np.testing.assert_allclose(cell.voltage[:, 0] + 70.0, cell.current[:, 1], atol=1e-5)
    return cell.current[:, 1].tolist()


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [0, 3])
def test_either_wave_finds_its_partner(tmp_path, channel):
    save_sweep(tmp_path, 181)
    path = tmp_path / f"B6_Ch{channel}_IDRest_181.ibw"
    cell = read(path)
    np.testing.assert_array_equal(cell.current, CURRENT[None])
    np.testing.assert_allclose(cell.voltage, VOLTAGE[None] + 1.0, rtol=1e-6)
    assert (cell.dt, cell.name, cell.current_source) == (0.1, path.name, "unknown")
    files = [tmp_path / f"B6_Ch{c}_IDRest_181.ibw" for c in (0, 3)]
    assert cell.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert read(path, current="recorded").current_source == "recorded"


@pytest.mark.parametrize(
    ("ampere", "volt", "factors"), [("A", "V", (1e-12, 1e-3)), ("nA", "mV", (1e-3, 1.0)), ("µA", "uV", (1e-6, 1e3))]
)
def test_data_units_are_converted(tmp_path, ampere, volt, factors):
    save(tmp_path, "Ch0_1", factors[0] * CURRENT, ampere, kind="f8")
    cell = read(save(tmp_path, "Ch1_1", factors[1] * VOLTAGE, volt, kind="f8"))
    np.testing.assert_allclose(cell.current, CURRENT[None], rtol=1e-12)
    np.testing.assert_allclose(cell.voltage, VOLTAGE[None], rtol=1e-12)


@pytest.mark.parametrize(("dt", "unit"), [(2e-4, "s"), (0.2, "ms"), (200.0, "us"), (2e-4, ""), (0.2, "")])
def test_units_of_x_give_the_interval(tmp_path, dt, unit):
    assert read(save_sweep(tmp_path, 1, dt=dt, dt_unit=unit)).dt == 0.2


def test_gains_of_the_note_are_not_applied(tmp_path):
    assert scales(read(save_sweep(tmp_path, 1, note=b"AMP_GAIN:10;GAIN:0.1;"))) == [1.0]


def test_version_2_big_endian_and_integer_waves(tmp_path):
    (tmp_path / "Ch0_1.ibw").write_bytes(wave2(CURRENT, "pA", 5e-4))
    path = tmp_path / "Ch3_1.ibw"
    path.write_bytes(wave2(VOLTAGE, "mV", 5e-4))
    cell = read(path)
    np.testing.assert_array_equal(cell.current, CURRENT[None])
    assert cell.dt == 0.5
    save(tmp_path, "Ch0_2", CURRENT, "pA", kind="i2")
    integers = read(save(tmp_path, "Ch3_2", -CURRENT, "mV", kind="i4"), sweeps=1)
    np.testing.assert_array_equal(np.concatenate([integers.current, -integers.voltage]), [CURRENT, CURRENT])


def test_all_sweeps_of_the_protocol_in_the_order_of_their_numbers(tmp_path):
    for number in (9, 100, 10):
        path = save_sweep(tmp_path, number, scale=float(number))
    save(tmp_path, "B6_Ch0_APThresh_1", CURRENT, "pA")
    save(tmp_path, "B7_Ch0_IDRest_1", CURRENT, "pA")
    (tmp_path / "B6_Ch0_IDRest_9.txt").write_text("no wave")
    assert scales(read(path)) == [9.0, 10.0, 100.0]
    cell = read(path, sweeps=[2, 0])
    files = [tmp_path / f"B6_Ch{c}_IDRest_{n}.ibw" for n in (100, 9) for c in (0, 3)]
    assert scales(cell) == [100.0, 9.0]
    assert cell.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert refused(path, sweeps=3) == "sweeps = 3: the recording has 3, numbered 0 to 2"


def test_a_name_without_a_sweep_number_is_one_sweep(tmp_path):
    save(tmp_path, "cell_ch1", CURRENT, "pA")
    assert read(save(tmp_path, "cell_ch2", VOLTAGE, "mV")).num_sweeps == 1


def test_sweeps_without_a_partner_are_left_out_and_named(tmp_path):
    path = save_sweep(tmp_path, 1)
    save(tmp_path, "B6_Ch3_IDRest_2", VOLTAGE, "mV")
    with pytest.warns(
        RecordingWarning, match="1 waves have no partner and are left out .B6_Ch3_IDRest_2.ibw."
    ) as caught:
        assert read_recording(path).num_sweeps == 1
    assert caught[0].filename == __file__


def test_a_damaged_sweep_does_not_cost_the_others(tmp_path):
    path = save_sweep(tmp_path, 1)
    other = save_sweep(tmp_path, 2)
    other.write_bytes(other.read_bytes()[:400])
    assert refused(path).startswith("B6_Ch3_IDRest_2.ibw: not an Igor binary wave, or one that was cut short: ")
    assert scales(read(path, sweeps=0)) == [1.0]


# --- what is refused --------------------------------------------------------------------------------------


def test_a_missing_partner_and_two_of_them(tmp_path):
    path = save(tmp_path, "B6_Ch3_IDRest_1", VOLTAGE, "mV")
    save(tmp_path, "B6_Ch0_IDRest_2", CURRENT, "pA")
    text = (
        "one wave of current of the same sweep is expected beside it, in a name that differs in the channel; there are"
    )
    assert refused(path) == f"{text} 0 (no other channel): is a unit wrong?"
    save(tmp_path, "B6_Ch1_IDRest_1", VOLTAGE, "mV")
    assert refused(path) == f"{text} 0 (B6_Ch1_IDRest_1.ibw: mV): is a unit wrong?"
    for channel in (0, 2):
        save(tmp_path, f"B6_Ch{channel}_IDRest_1", CURRENT, "pA")
    listed = "B6_Ch0_IDRest_1.ibw: pA, B6_Ch1_IDRest_1.ibw: mV, B6_Ch2_IDRest_1.ibw: pA"
    assert refused(path) == f"{text} 2 ({listed}): is a unit wrong?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": CURRENT[1:]}, "Ch0_1.ibw has 49 samples and Ch3_1.ibw 50: they must agree"),
        ({"dt": 2e-4}, "Ch0_1.ibw was sampled every 0.2 ms and Ch3_1.ibw every 0.1 ms: they must agree"),
        ({"unit": "kg"}, "Ch0_1.ibw: data unit 'kg': A, mA, uA, nA, pA, V, mV or uV is expected"),
        ({"unit": ""}, "Ch0_1.ibw: data unit '': A, mA"),
        ({"unit": "ampere"}, "Ch0_1.ibw: units of more than three characters are not read"),
        ({"dt_unit": "Hz"}, "Ch0_1.ibw: time in 'Hz': the units known are s, ms, us"),
        ({"data": CURRENT.reshape(2, 5, 5)}, "Ch0_1.ibw: a wave of shape (2, 5, 5) and type f4: real numbers [T] exp"),
        ({"data": CURRENT[:, None] * [1, 2]}, "Ch0_1.ibw: a wave of shape (50, 2) and type f4: real numbers [T] exp"),
        ({"data": np.where(CURRENT == 3, np.nan, CURRENT)}, "current[0, 3] = nan pA: current must be finite"),
    ],
)
def test_defects_of_the_partner_are_one_line(tmp_path, changes, message):
    save(tmp_path, "Ch0_1", **({"data": CURRENT, "unit": "pA"} | changes))
    assert refused(save(tmp_path, "Ch3_1", VOLTAGE, "mV")).startswith(message)


def test_sweeps_of_several_lengths_and_intervals(tmp_path):
    save_sweep(tmp_path, 1)
    save_sweep(tmp_path, 2, dt=2e-4)
    save(tmp_path, "B6_Ch0_IDRest_3", CURRENT[:40], "pA")
    path = save(tmp_path, "B6_Ch3_IDRest_3", VOLTAGE[:40], "mV")
    assert refused(path) == "sweeps have dt = 0.1, 0.2 ms: choose some of one with `sweeps`, as [0, 2]"
    assert (
        refused(path, sweeps=[0, 2])
        == "current has sweeps of [40, 50] samples: choose some of one length with `sweeps`"
    )
    assert read(path, sweeps=[1]).dt == 0.2


def test_a_name_without_a_channel(tmp_path):
    path = save(tmp_path, "Chris_1", VOLTAGE, "mV")
    assert refused(path).startswith("the name has no channel, as Ch0 in B6_Ch0_IDRest_181.ibw")


@pytest.mark.parametrize("size", [1, 60, 300, 400, 500])
def test_a_wave_that_was_cut_short_is_one_line_and_logs_nothing(tmp_path, size, caplog):
    path = save_sweep(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:size])
    assert refused(path).startswith("not an Igor binary wave, or one that was cut short")
    assert not caplog.records


def test_other_files_and_files_that_are_missing(tmp_path):
    path = tmp_path / "B6_Ch0_IDRest_1.ibw"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_recording(path)
    path.touch()
    assert refused(path) == "the file is empty"
    path.write_bytes(b"time,current\n" * 99)
    assert refused(path).startswith("not an Igor binary wave, or one that was cut short")


def test_waves_name_no_electrode(tmp_path):
    path = save_sweep(tmp_path, 1)
    assert (
        refused(path, electrode_channel="soma")
        == "electrode_channel = 'soma': only .nwb and .abf files name their electrodes, leave it out"
    )


@pytest.mark.parametrize("version", [2, 5])
def test_a_byte_of_a_header_is_noticed_and_the_next_file_is_sound(tmp_path, version):
    """The headers add up to 0, and a byte that was turned does not."""
    sound = save_sweep(tmp_path, 1)
    raw = wave5(VOLTAGE, "mV") if version == 5 else wave2(VOLTAGE, "mV", 5e-4)
    path = tmp_path / "other_Ch3_IDRest_2.ibw"
    for place in range(0, 384 if version == 5 else 126, 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 24]) + raw[place + 1 :])
        assert "Igor binary wave" in refused(path)
    assert read(sound, sweeps=0).num_steps == T


def test_sizes_of_a_wave_that_the_file_does_not_hold(tmp_path):
    raw = bytearray(wave5(VOLTAGE, "mV"))
    size, checksum = (int.from_bytes(raw[a : a + 2], "little") for a in (14, 2))
    raw[14:16], raw[2:4] = (x.to_bytes(2, "little") for x in (size + 2**14, (checksum - 2**14) % 2**16))
    path = tmp_path / "B6_Ch3_IDRest_1.ibw"
    path.write_bytes(raw)
    sizes = f"{len(raw)} bytes of {len(raw) + 2**30}"
    assert refused(path) == f"not an Igor binary wave, or one that was cut short: {sizes}"


# --- real files -------------------------------------------------------------------------------------------


def test_the_cortical_cell(data_folder):
    folder = data_folder / "recordings"
    cell = read(folder / "B6_Ch3_IDRest_183.ibw")
    assert (cell.current.shape, cell.dt) == ((5, 12000), 0.25)
    for sweep, number in enumerate(range(181, 186)):
        for channel, values in ((0, cell.current), (3, cell.voltage)):
            # A header of 64 + 320 bytes, then big-endian float32: these came from a Macintosh.
            raw = np.fromfile(folder / f"B6_Ch{channel}_IDRest_{number}.ibw", ">f4", 12000, offset=384)
            np.testing.assert_array_equal(values[sweep], raw.astype(float))
    step = cell.current[:, 2900:10700].mean(axis=1) - cell.current[:, :2700].mean(axis=1)
    np.testing.assert_allclose(np.diff(step), 59.0, rtol=0.03)  # the note's P0AMP3 grows by 25 from sweep to sweep
    assert -75.0 < np.median(cell.voltage[:, :2700]) < -65.0
