"""Files are written whole or not at all, and read from archives without unpacking them."""

import contextlib
import gzip
import hashlib
import lzma
import os
from collections import Counter

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import archives
from psannlm.corpora.archives import members, own_files, own_members, readable
from psannlm.files import replacing, sha256_of, write_atomically
from tests.texts import packed

FILES = {"p/b.txt": b"bee", "p/a.txt": b"ay", "p/c.md": b"sea", "a/../../escape.txt": b"out"}


def contents(found) -> dict[str, bytes]:
    return {member.name: member.content for member in found}


@pytest.mark.parametrize("name", ["x.zip", "x.whl", "x.tgz", "x.tar.gz", "x.tar.xz"])
def test_members_are_read_by_name_and_no_path_leads_out_of_an_archive(tmp_path, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / name
    path.write_bytes(packed(name, FILES, link="p/link.txt"))

    assert contents(members(path, ["p/*.txt"], ["*/b.txt"])) == {"p/a.txt": b"ay"}
    assert list(contents(members(path, ["p/*"]))) == ["p/a.txt", "p/b.txt", "p/c.md"]
    assert contents(members(path))["a/../../escape.txt"] == b"out"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_packed_files_and_members_are_unpacked(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"ay"))
    (tmp_path / "b.xz").write_bytes(lzma.compress(b"bee"))
    (tmp_path / "c.txt").write_bytes(b"sea")
    (tmp_path / "d.zip").write_bytes(packed("zip", {"d.txt.gz": gzip.compress(b"dee")}))

    found = [next(members(p)) for p in sorted(tmp_path.iterdir())]

    pairs = {"a": b"ay", "b": b"bee", "c": b"sea", "d": b"dee"}
    assert {member.title: member.content for member in found} == pairs


def test_a_pattern_that_fits_nothing_and_a_member_too_large_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    path.write_bytes(packed("zip", FILES))

    with pytest.raises(ConfigError, match=r"x\.zip has no member 'q/\*\.txt'; it begins with a/"):
        list(members(path, ["p/*.txt", "q/*.txt"]))
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 2)
    with pytest.raises(ConfigError, match=r"p/b\.txt must have at most 2 bytes unpacked"):
        list(members(path, ["p/*.txt"]))


@pytest.mark.parametrize("name", ["x.zip", "x.tgz", "x.tar", "x.txt.gz"])
def test_a_damaged_archive_and_a_file_that_may_not_be_read_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"text " * 10_000)[:-20])

    with pytest.raises(ConfigError, match=f"{name} cannot be read: .*; fetch it again"):
        list(members(tmp_path / name))
    refused = pytest.raises(ConfigError, match=r"a\.txt cannot be read: Permission denied; fetch")
    with refused, readable("a.txt"):
        raise PermissionError(13, "Permission denied")


def test_archives_in_archives_are_read_but_not_without_end(tmp_path):
    content, name = b"text", "a.txt"
    for depth in range(archives.DEPTH + 1):
        content = packed("x.zip", {name: content})
        name = f"{depth}.zip"
        (tmp_path / name).write_bytes(content)
    inner, outer = (tmp_path / f"{n}.zip" for n in (archives.DEPTH - 1, archives.DEPTH))

    assert contents(own_members(inner, Counter())) == {"a.txt": b"text"}
    with pytest.raises(ConfigError, match=r"^0\.zip lies in .* archives.*; unpack it$"):
        list(own_members(outer, Counter()))


def test_folders_are_searched_for_texts_by_name(tmp_path):
    for name in ("b.txt", "deep/a.TXT.gz", "c.pdf", ".hidden.txt", "deep/.git/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    passed_over = Counter()

    found = list(own_files([tmp_path, tmp_path / "c.pdf"], passed_over))

    assert [p.name for p in found] == ["b.txt", "a.TXT.gz", "c.pdf"]
    assert passed_over == {"ending in .pdf": 1, "hidden": 2, "pipes or broken links": 2}
    for name, message in (
        ("nowhere", "nowhere does not exist; name files or folders"),
        ("deep/.git", r"holds no file that ends in \.txt"),
        ("pipe", "pipe is a pipe or device; name files"),
        ("loop", "loop does not exist"),
    ):
        (tmp_path / "deep/.git/d.txt").unlink(missing_ok=True)
        with pytest.raises(ConfigError, match=message):
            list(own_files([tmp_path / name], passed_over))


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


@pytest.mark.parametrize("content", ["", "é\r\n", b"\xff\n", b"\x00\x0a" * 2**18])
def test_text_and_bytes_are_written_as_they_are_and_hashed_as_a_whole(tmp_path, content):
    write_atomically(tmp_path / "file", content)

    expected = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "file").read_bytes() == expected
    assert sha256_of(tmp_path / "file") == hashlib.sha256(expected).hexdigest()
