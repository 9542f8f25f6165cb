"""Files are there whole or not at all, in the folder that was named, as readable as the umask says."""

import os
from contextlib import suppress

import pytest

from jaxlif.files import STAGED, staged


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_and_folders_have_the_modes_of_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        with staged(tmp_path / "out") as folder:
            (folder / "a").write_text("1")
    finally:
        os.umask(before)
    for path, mode in ((tmp_path / "out", 0o777), (tmp_path / "out" / "a", 0o666)):
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


def test_folders_that_nothing_came_into_are_not_made(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="no"), staged(tmp_path / "there" / "new" / "newer"):
        raise ValueError("no")
    with staged(tmp_path / "there" / "empty"):
        pass
    assert names(tmp_path) == ["there"] and not names(tmp_path / "there")


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_begins(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"^out = {folder}: nothing can be written there"), staged(folder):
            pytest.fail("begun")


def test_what_is_being_filled_is_known_to_what_ends_a_process(tmp_path):
    for error in (None, KeyboardInterrupt):
        with suppress(KeyboardInterrupt), staged(tmp_path / "out") as folder:
            assert {str(folder)} == STAGED
            if error:
                raise error
        assert not STAGED
