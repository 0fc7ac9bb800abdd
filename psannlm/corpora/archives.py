"""Members of archives and plain files as streams of bytes; nothing is ever unpacked to disk."""

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from psannlm.config.schema import ConfigError

LARGEST_MEMBER = 2**31
"""Bytes of the largest member of an archive: what is larger would fill the memory."""

ZIPS = (".zip", ".whl")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
PACKED: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".compress": gzip.open,
}
"""What opens a packed file, by its ending."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError),
    RuntimeError,  # a zip with a password or of an unknown method
)
TEXTS = (".txt", ".txt.gz", ".txt.xz", ".gz", ".xz", ".zip")
"""Endings of a user's own files that are read."""


@dataclass(frozen=True)
class Member:
    """A named stream that can be opened more than once."""

    name: str
    open: Callable[[], BinaryIO]

    @property
    def title(self) -> str:
        """File name without folders and ending."""
        name = PurePosixPath(self.name).name
        while PurePosixPath(name).suffix.lower() in {".txt", *PACKED}:
            name = PurePosixPath(name).stem
        return name


class Entry(NamedTuple):
    """A regular file in an archive."""

    name: str
    n_bytes: int
    read: Callable[[], bytes]


def members(
    path: Path, patterns: Sequence[str] = ("*",), without: Sequence[str] = ()
) -> Iterator[Member]:
    """Members of an archive by the order of their names, or the file itself, decompressed.

    Links and folders of an archive are passed over.

    Args:
        path: A .zip, .whl, .tar (.gz, .xz, .bz2), .tgz, .gz, .xz or plain file.
        patterns: Of the paths inside an archive, such as `texts/*.txt`.
        without: Of paths to leave out.

    Raises:
        ConfigError: The file is damaged, or an archive has nothing that a pattern fits.
    """
    name = path.name.lower()
    with readable(path.name):
        if name.endswith(ZIPS):
            yield from _chosen(path, _zipped(path), patterns, without)
        elif name.endswith(TARS):
            yield from _chosen(path, _tarred(path), patterns, without)
        else:
            yield Member(path.name, partial(_opened, path))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what a damaged, locked or forbidden file raises into a message."""
    try:
        yield
    except DAMAGE as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = said.splitlines()[0].rstrip(":")
        raise ConfigError(
            f"{name} cannot be read: {reason}; fetch it again, or make it readable and unlocked"
        ) from None


def own_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files among `paths` and, by name, the texts in those that are folders.

    Raises:
        ConfigError: A path does not exist, or a folder holds no text.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and _is_text(p))
            if not found:
                raise ConfigError(f"{path} holds no file that ends in {', '.join(TEXTS)}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"{path} does not exist; name files or folders of text")


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(TEXTS) and not path.name.startswith(".")


def _zipped(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            if not entry.is_dir():
                yield Entry(entry.filename, entry.file_size, partial(archive.read, entry))


def _tarred(path: Path) -> Iterator[Entry]:
    with tarfile.open(path) as archive:

        def read(entry: tarfile.TarInfo) -> bytes:
            content = archive.extractfile(entry)
            assert content is not None  # a regular file has one
            return content.read()

        for entry in sorted(archive.getmembers(), key=lambda entry: entry.name):
            if entry.isfile():
                yield Entry(entry.name, entry.size, partial(read, entry))


def _chosen(
    path: Path, entries: Iterator[Entry], patterns: Sequence[str], without: Sequence[str]
) -> Iterator[Member]:
    unused, names = set(patterns), []
    for entry in entries:
        names.append(entry.name)
        fitting = {pattern for pattern in patterns if fnmatchcase(entry.name, pattern)}
        unused -= fitting
        if not fitting or any(fnmatchcase(entry.name, pattern) for pattern in without):
            continue
        if entry.n_bytes > LARGEST_MEMBER:
            raise ConfigError(
                f"{entry.name} in {path.name} must have at most {LARGEST_MEMBER:,} bytes, got "
                f"{entry.n_bytes:,}; unpack it and name the file itself"
            )
        yield Member(entry.name, partial(_in_memory, entry.read(), entry.name))
    if unused:
        some = ", ".join(names[:5]) or "nothing"
        raise ConfigError(f"{path.name} has no member {min(unused)!r}; it begins with {some}")


def _opened(path: Path) -> BinaryIO:
    opener = PACKED.get(path.suffix.lower())
    found: BinaryIO = opener(path) if opener else path.open("rb")
    return found


def _in_memory(content: bytes, name: str) -> BinaryIO:
    opener = PACKED.get(PurePosixPath(name.lower()).suffix)
    found: BinaryIO = opener(io.BytesIO(content)) if opener else io.BytesIO(content)
    return found
