"""A file is the old one or the new one, never half of one."""

import contextlib
import hashlib
import os

import pytest

from psannlm.files import replacing, sha256_of, write_atomically


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "text", "é\r\n")
    write_atomically(tmp_path / "bytes", b"\xff\n")

    assert (tmp_path / "text").read_bytes() == b"\xc3\xa9\r\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(fd):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("breaks", [False, True])
def test_what_is_written_piece_by_piece_appears_at_the_end_or_never(tmp_path, breaks):
    path = tmp_path / "file"
    path.write_text("old")

    with contextlib.suppress(ZeroDivisionError), replacing(path) as out:
        out.write(b"new ")
        assert path.read_text() == "old"
        out.write(str(1 / (not breaks)).encode())

    assert path.read_text() == ("old" if breaks else "new 1.0")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 2**18 + 1])
def test_a_hash_is_that_of_the_whole_content(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"\x00\x0a" * size)

    assert sha256_of(path) == hashlib.sha256(b"\x00\x0a" * size).hexdigest()
