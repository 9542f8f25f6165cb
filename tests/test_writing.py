"""Files are there whole or not at all, in the folder that was named, as readable as the umask says."""

import os
import platform
import subprocess
import sys

import pytest

from jaxlif.writing import require_file, staged, staged_file, write_atomically


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_and_folders_have_the_modes_of_the_umask(umask, tmp_path):
    with staged(tmp_path / "out") as folder:
        write_atomically(folder / "a", b"1")
    write_atomically(tmp_path / "b", b"2")
    for path, mode in ((tmp_path / "out", 0o777), (tmp_path / "out" / "a", 0o666), (tmp_path / "b", 0o666)):
        assert path.stat().st_mode & 0o777 == mode & ~umask, path


def test_all_files_come_or_none(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path) as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"
    with staged(tmp_path) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("too")
        assert (tmp_path / "a").read_text() == "old", "not before the end"
    assert names(tmp_path) == ["a", "b"] and (tmp_path / "a").read_text() == "new"


def test_folders_that_nothing_came_into_are_unmade(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="no"), staged(tmp_path / "there" / "new" / "newer"):
        raise ValueError("no")
    assert names(tmp_path) == ["there"] and not names(tmp_path / "there")


def test_files_of_an_earlier_run_are_taken_away_and_no_others(tmp_path):
    for name in ("old.png", "again.png", "mine.png"):
        (tmp_path / name).write_text("old")
    with staged(tmp_path, lambda: ["old.png", "again.png", "never.png"]) as folder:
        (folder / "again.png").write_text("new")
    assert names(tmp_path) == ["again.png", "mine.png"] and (tmp_path / "again.png").read_text() == "new"


def test_what_a_killed_run_left_is_swept_and_a_live_one_kept(tmp_path):
    """A process is killed while it writes; another is at work in the same folder."""
    code = "import os, pathlib, sys; from jaxlif.writing import staged, write_atomically\n"
    code += "with staged(pathlib.Path(sys.argv[1])) as f: (f / 'half').write_text('x'); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert killed.returncode == -9
    [left] = names(tmp_path / "out")
    assert left.startswith(".jaxlif-") and (tmp_path / "out" / left / "half").exists()
    alive, elsewhere = f".jaxlif-{platform.node()}-{os.getppid()}-ab", f".jaxlif-another.host-{2**22 + 1}-ab"
    mine = (".jaxlif", "jaxlif-1-2-3")
    for name in (alive, elsewhere, *mine):
        (tmp_path / "out" / name).mkdir()
    with staged(tmp_path / "out") as folder:
        (folder / "result").write_text("x")
    assert names(tmp_path / "out") == sorted([alive, elsewhere, *mine, "result"])


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_begins(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"^out = {folder}: nothing can be written there"), staged(folder):
            pytest.fail("begun")
    with pytest.raises(ValueError, match="this is a folder; name a file"), staged_file(tmp_path):
        pytest.fail("begun")


def test_an_output_that_is_an_input_is_refused(tmp_path):
    (tmp_path / "cell.npz").write_text("recorded")
    (tmp_path / "link.npz").symlink_to(tmp_path / "cell.npz")
    with pytest.raises(ValueError, match="this file is read, and would be lost"):
        require_file(tmp_path / "link.npz", None, tmp_path / "cell.npz")
