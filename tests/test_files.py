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


@pytest.mark.parametrize("breaks", ["", "in the block", "on the disk"])
def test_what_is_written_piece_by_piece_appears_at_the_end_or_never(tmp_path, monkeypatch, breaks):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_if(place: str) -> None:
        if breaks == place:
            raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", lambda fd: fail_if("on the disk"))
    with contextlib.suppress(OSError), replacing(path) as out:
        out.write(b"new ")
        assert path.read_text() == "old"
        fail_if("in the block")
        out.write(b"text")

    assert path.read_text() == ("old" if breaks else "new text")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 2**18 + 1])
def test_a_hash_is_that_of_the_whole_content(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"\x00\x0a" * size)

    assert sha256_of(path) == hashlib.sha256(b"\x00\x0a" * size).hexdigest()
