"""Files written whole or not at all, and the hash that tells one content from another."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from psannlm.config.schema import ConfigError

MIB = 2**20


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk, rename over `path`."""
    with replacing(path) as out:
        out.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which becomes `path` at the end and vanishes after an error.

    For content that need not stand in memory as a whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system refuses becomes a ConfigError that names `folder`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}; make room there, make it "
            "writable, or name another folder"
        ) from None


def sha256_of(path: Path) -> str:
    """Hash of a file, in hexadecimal; memory does not grow with the file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
