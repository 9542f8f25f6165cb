"""Several files of one cell: one recording, or a refusal that names what does not belong to it."""

import shutil

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.several import named_files
from jaxlif.recordings import RecordingWarning, read_recording
from tests.command_line import good, step_family
from tests.recordings.test_ibw import save_sweep, scales

CURRENT, VOLTAGE, SPIKES = step_family()


def save(folder, name, sweeps, **changes):
    arrays = {"current": CURRENT[sweeps], "voltage": VOLTAGE[sweeps], "spikes": SPIKES[sweeps], "dt": 0.5} | changes
    np.savez(folder / f"{name}.npz", **{field: x for field, x in arrays.items() if x is not None})
    return folder / f"{name}.npz"


def test_a_folder_is_one_recording_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 2):
        save(tmp_path, f"sweep_{number}", [number % 8])
    found = read_recording(tmp_path)
    np.testing.assert_array_equal(found.current, CURRENT[[2, 1, 2]])
    np.testing.assert_array_equal(found.voltage, VOLTAGE[[2, 1, 2]])
    np.testing.assert_array_equal(found.spikes, SPIKES[[2, 1, 2]] > 0)
    assert found.name == tmp_path.name and len(found.sha256) == 64
    np.testing.assert_array_equal(read_recording(tmp_path, sweeps=[1]).current, CURRENT[[1]])


def test_files_are_one_recording_in_their_own_order(tmp_path):
    files = [save(tmp_path, "b", [0, 1]), save(tmp_path, "a", [5])]
    found = read_recording(files)
    np.testing.assert_array_equal(found.current, CURRENT[[0, 1, 5]])
    assert found.name == "b.npz and 1 more"
    assert found.sha256 != read_recording(files[::-1]).sha256


def test_of_waves_those_are_read_that_are_named(tmp_path):
    paths = [save_sweep(tmp_path, number, scale=1.0 + number) for number in (9, 10, 11)]
    assert read_recording(tmp_path).num_sweeps == 3
    some = read_recording([paths[2], paths[0]])
    scales(some)
    np.testing.assert_array_equal(some.current, read_recording(paths[0]).current[[0, 2]])
    pair = [tmp_path / f"B6_Ch{channel}_IDRest_10.ibw" for channel in (0, 3)]
    np.testing.assert_array_equal(read_recording(pair).current, read_recording(paths[0]).current[[1]])


def test_a_wave_without_its_partner_is_refused(tmp_path):
    paths = [save_sweep(tmp_path, number) for number in (1, 2)]
    (tmp_path / "B6_Ch0_IDRest_2.ibw").unlink()
    with pytest.raises(ValueError, match=r"B6_Ch3_IDRest_2\.ibw has no partner"):
        read_recording(paths)


def test_waves_of_one_protocol_are_not_several_cells(tmp_path):
    paths = [save_sweep(tmp_path, number) for number in (1, 2)]
    with pytest.raises(ValueError, match="_1.ibw and .*_2.ibw are waves of one protocol: .*--one-cell"):
        named_files(paths)


SHORTER = {"current": CURRENT[[1], 9:], "voltage": VOLTAGE[[1], 9:], "spikes": SPIKES[[1], 9:]}
HELD = CURRENT[[1]] + 40.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dt": 0.25}, "a.npz has a sampling interval of 0.5 ms and b.npz a sampling interval of 0.25 ms"),
        (
            {"current": CURRENT[[1], 9:], "voltage": VOLTAGE[[1], 9:], "spikes": SPIKES[[1], 9:]},
            "sweeps of 1600 samples",
        ),
        ({"voltage": None}, "a.npz has a voltage: yes and b.npz a voltage: no"),
        ({"spikes": None}, "known spikes: yes and b.npz known spikes: no"),
        ({"current": HELD}, "a.npz is held at 0 pA and b.npz at 40 pA: fit them apart"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path, changes, words):
    save(tmp_path, "a", [5]), save(tmp_path, "b", [1], **changes)
    with pytest.raises(ValueError, match=words):
        read_recording(tmp_path)


def test_a_holding_current_is_none_where_noise_begins_at_once(tmp_path):
    rng = np.random.default_rng(0)
    for name, mean in (("a", 0.0), ("b", 60.0)):
        save(tmp_path, name, [1], current=mean + rng.normal(0.0, 50.0, (1, 1600)))
    assert read_recording(tmp_path).num_sweeps == 2


def test_what_is_no_recording_is_said_and_a_bad_one_is_named(tmp_path):
    save(tmp_path, "a", [5]), save(tmp_path, "b", [1])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.npz").write_text("x")
    with pytest.warns(RecordingWarning, match="what is no recording is left out: notes.txt"):
        assert read_recording(tmp_path).num_sweeps == 2
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.warns(RecordingWarning), pytest.raises(ValueError, match=r"^c\.npz: "):
        read_recording(tmp_path)
    with pytest.raises(FileNotFoundError, match="d.npz: no such file"):
        read_recording([tmp_path / "a.npz", tmp_path / "d.npz"])


def test_the_command_fits_sweep_files_as_it_fits_their_recording(tmp_path, steps_file):
    """A family in one file, in a folder, and in files of one cell: the same numbers."""
    files = [save(tmp_path, f"s{n}", [n]) for n in range(len(CURRENT))]
    (cells := tmp_path / "cells" / "c.1").mkdir(parents=True)
    for file in files:
        shutil.copy(file, cells)
    good("fit", steps_file, "--out", tmp_path / "one")
    good("fit", *files, "--one-cell", "--out", tmp_path / "files")
    good("fit", cells, "--out", tmp_path / "folder")
    one, *others = [jl.load_fit(tmp_path / name / "fit.json") for name in ("one", "files", "folder")]
    for other in others:
        assert other.params == one.params and other.scores == one.scores
    assert "8 sweeps" in good("inspect", cells).output
    assert list(named_files([cells, steps_file])) == ["c.1", "steps"]


def test_real_waves(data_folder):
    folder = data_folder / "recordings"
    whole = read_recording(folder / "B6_Ch0_IDRest_181.ibw")
    some = read_recording([folder / f"B6_Ch{channel}_IDRest_18{n}.ibw" for n in (1, 3) for channel in (0, 3)])
    np.testing.assert_array_equal(some.voltage, whole.voltage[[0, 2]])
