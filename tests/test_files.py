"""Files are written whole or not at all."""

import os
import stat
import sys
import zipfile
from contextlib import suppress

import pytest

from helpers.errors import UserError
from helpers.files import atomic_open, is_whole_archive


def test_a_new_file_appears_with_its_folder(tmp_path):
    file = tmp_path / "a" / "b" / "note.txt"
    with atomic_open(file) as handle:
        handle.write("α\n")
        assert not file.exists()
    assert file.read_bytes() == "α\n".encode()  # the same bytes on every system


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "note.txt"
    file.write_text("old")
    with suppress(RuntimeError), atomic_open(file) as handle:
        handle.write("half")
        handle.flush()
        raise RuntimeError
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_an_interrupt_leaves_nothing_either(tmp_path):
    with suppress(KeyboardInterrupt), atomic_open(tmp_path / "a.bin", "wb") as handle:
        handle.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    writing = atomic_open(tmp_path / "file" / "sub" / "note.txt")
    with pytest.raises(UserError, match=r"note\.txt: could not be written"), writing:
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_others_may_read_what_was_written(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_open(tmp_path / "note.txt") as handle:
            handle.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o644


def test_the_umask_is_never_changed(tmp_path, monkeypatch):
    """It belongs to all threads: what others write meanwhile would be open to everybody."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    with atomic_open(tmp_path / "note.txt") as handle:
        handle.write("x")
    assert (tmp_path / "note.txt").read_text() == "x"


def test_damaged_archives_are_told_from_whole_ones(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("member", b"some content")
    assert is_whole_archive(file)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"some", b"sOme"))
    assert not is_whole_archive(file)
    file.write_bytes(content[:-10])
    assert not is_whole_archive(file)
    assert not is_whole_archive(tmp_path / "missing.zip")
