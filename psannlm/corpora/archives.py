"""Files and archives as texts: read by their names, decompressed, never unpacked to disk."""

import bz2
import fnmatch
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from psannlm.config.schema import ConfigError
from psannlm.files import printable

DEPTH = 3  # archives within one another that are read
LARGEST_MEMBER = 2**31  # bytes of a text: what is larger would fill the memory
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
# What unpacks a file, by its ending.
PACKED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".compress": gzip.open
}  # fmt: skip
TEXTS = (".txt", ".gz", ".xz", ".bz2", ".zip", *TARS)  # what is read of a user's folder or archive
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError),
    *(RuntimeError, UnicodeError),  # a zip with a password, of an unknown method, with two names
)


@dataclass(frozen=True)
class Member:
    """What stands under a name in an archive, or a file by itself; decompressed."""

    name: str
    content: bytes

    @property
    def title(self) -> str:
        """File name without folders and ending."""
        name = PurePosixPath(self.name).name
        while PurePosixPath(name).suffix.lower() in {".txt", *PACKED}:
            name = PurePosixPath(name).stem
        return name


def members(
    path: Path, patterns: Sequence[str] = ("*",), without: Sequence[str] = ()
) -> Iterator[Member]:
    """Members of an archive by the order of their names, or the file itself, decompressed.

    Links and folders of an archive are passed over, and of its paths those that fit a pattern in
    `without`. ConfigError if the file is damaged, or an archive has nothing that a pattern fits.
    """

    def choose(archive: Iterable[str]) -> list[str]:
        names = sorted(archive)
        for pattern in sorted(patterns):
            if not fnmatch.filter(names, pattern):
                some = ", ".join(names[:5]) or "nothing"
                raise ConfigError(f"{path.name} has no member {pattern!r}; it begins with {some}")
        fitting = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
        return sorted(fitting - {n for pattern in without for n in fnmatch.filter(names, pattern)})

    return _members(path.name, partial(path.open, "rb"), choose)


def own_members(path: Path, passed_over: Counter[str]) -> Iterator[Member]:
    """A user's file, or the texts in it by the rules of folders, in archives within it too.

    Those that are no texts are counted by their reason. ConfigError as of `members`.
    """

    def choose(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if is_text(name, passed_over))

    for member in _members(printable(path.name), partial(path.open, "rb"), choose):
        passed_over["empty"] += not member.content or member.content.isspace()
        yield member


Archive = Mapping[str, Callable[[], Any]]  # what opens a member, by its name
Choice = Callable[[Iterable[str]], list[str]]  # the names of those to read, in order


def _members(
    name: str, opened: Callable[[], Any], choose: Choice, depth: int = DEPTH
) -> Iterator[Member]:
    with opened() as file, readable(name), _opened(name, file) as archive:
        if archive is None:
            unpack = PACKED.get(PurePosixPath(name.lower()).suffix)
            with unpack(file) if unpack else file as text:
                content = text.read(LARGEST_MEMBER + 1)
            if len(content) > LARGEST_MEMBER:
                most = f"{LARGEST_MEMBER:,} bytes unpacked"
                raise ConfigError(f"{name} must have at most {most}; cut it into several")
            yield Member(name, content)
        elif not depth:
            raise ConfigError(f"{name} lies in {DEPTH} archives, one in another; unpack it")
        else:
            for inner in choose(archive):
                yield from _members(printable(inner), archive[inner], choose, depth - 1)


@contextmanager
def _opened(name: str, file: IO[bytes]) -> Iterator[Archive | None]:
    """The files in an archive; None for a file that is none by its name."""
    name = name.lower()
    if name.endswith((".zip", ".whl")):
        try:  # what archivers write who do not say so
            packed = zipfile.ZipFile(file, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            packed = zipfile.ZipFile(file)
        with packed:
            names = (entry.filename for entry in packed.infolist() if not entry.is_dir())
            yield {inner: partial(packed.open, inner) for inner in names}
    elif name.endswith(TARS):
        with tarfile.open(fileobj=file) as archive:
            entries = {entry.name: entry for entry in archive if entry.isfile()}
            yield {n: partial(archive.extractfile, entry) for n, entry in entries.items()}
    else:
        yield None


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what a damaged, locked or forbidden file raises into a message."""
    try:
        yield
    except DAMAGE as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = said.splitlines()[0].rstrip(":")
        way_out = "fetch it again, or make it readable and unlocked"
        raise ConfigError(f"{name} cannot be read: {reason}; {way_out}") from None


def is_text(name: str, passed_over: Counter[str]) -> bool:
    """Whether a file in a folder or archive is read, by its path there; else it is counted."""
    path = PurePosixPath(printable(name).lower())
    is_hidden = any(part.startswith((".", "__macosx")) for part in path.parts)
    if path.name.endswith(TEXTS) and not is_hidden:
        return True
    reason = f"ending in {path.suffix}" if path.suffix else "without an ending"
    passed_over["hidden" if is_hidden else reason] += 1
    return False


def own_files(paths: Sequence[Path], passed_over: Counter[str]) -> Iterator[Path]:
    """Files among `paths` and, by name, the texts in those that are folders.

    ConfigError for what is neither, cannot be searched, or holds no text.
    """
    for path in paths:
        with readable(printable(path)):
            if path.is_dir():
                yield from _in_folder(path, passed_over)
            elif path.is_file():
                yield path
            else:
                is_no_file = "is a pipe or device" if path.exists() else "does not exist"
                raise ConfigError(f"{path} {is_no_file}; name files or folders of text")


def _in_folder(folder: Path, passed_over: Counter[str]) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    inside = [Path(at, n) for at, _, names in os.walk(folder, onerror=refuse) for n in names]
    files = sorted(p for p in inside if p.is_file())
    passed_over["pipes or broken links"] += len(inside) - len(files)
    if not (texts := [p for p in files if is_text(str(p.relative_to(folder)), passed_over)]):
        raise ConfigError(f"{folder} holds no file that ends in {', '.join(TEXTS)}")
    return texts
