"""Files written whole or not at all, by one process at a time, and the hash of their content."""

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from psannlm import ROOT
from psannlm.config.schema import ConfigError

MIB = 2**20
LOCK = ".lock"  # in a folder that one process at a time writes
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk, rename over `path`."""
    with replacing(path) as out:
        out.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which becomes `path` at the end and vanishes after an error.

    For content that need not stand in memory as a whole.
    """
    # Numbers of processes repeat: in containers that share a folder, and in threads.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
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


class InUseError(ConfigError):
    """A folder that another process writes; names both."""


def lock(folder: Path, *, patience: float = 0.0) -> FileLock:
    """Keep all other processes from writing `folder`, until `unlock` or the end of this process.

    It ends with this process, however that ends; what it starts or forks has none of it. `patience`
    is how many seconds to wait for another process, negative for as long as it takes. InUseError
    names that process, ConfigError a file system without locks; an empty `folder` is gone then.
    """
    path = folder / LOCK
    own = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        own.acquire(timeout=patience)
        path.write_text(str(os.getpid()), encoding="ascii")
    except Timeout:
        raise InUseError(
            f"{folder} is being written by process {_holder(path)}; wait until it ends, or end it"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        path.unlink(missing_ok=True)
        _remove_empty(folder)
        raise ConfigError(
            f"{folder} must lie where files can be locked, and its file system says: "
            f"{error.strerror}; name a folder on a disk of this machine"
        ) from None
    return own


def unlock(own: FileLock) -> None:
    """Let other processes write the folder; the file that was locked goes."""
    with contextlib.suppress(OSError):
        Path(own.lock_file).unlink()
    own.release()


@contextlib.contextmanager
def locked(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it is missing and goes again if it stays empty.

    Errors as of `lock`, and ConfigError if the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        own = lock(folder, patience=patience)
    try:
        yield
    finally:
        unlock(own)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _holder(path: Path) -> str:
    """Number of the process that holds a lock, as it wrote it."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace") or "unknown"
    return "unknown"


def sha256_of(path: Path) -> str:
    """Hash of a file, or of all that lies below a folder, in hexadecimal."""
    if path.is_dir():
        below = (file for file in sorted(path.rglob("*")) if file.is_file())
        lines = (f"{sha256_of(file)} {file.relative_to(path).as_posix()}\n" for file in below)
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def texts_sha256(root: Path, paths: Iterable[Path]) -> str:
    """One hash of texts and of their names below `root`, lines ended either way."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        name = path.relative_to(root).as_posix()
        whole.update(f"{hashlib.sha256(text).hexdigest()} {name}\n".encode())
    return whole.hexdigest()


def what_altered(path: Path, folder: Path | None = None) -> str:
    """What has probably altered a file, and how git restores it, or the `folder` that it is in.

    git leaves alone what has its time of change, even where it would write other line ends now.
    """
    content, whole = path.read_bytes() if path.is_file() else b"", folder or path
    is_text = b"\0" not in content
    signs = {
        "core.autocrlf of git or an editor changed its line ends": is_text and b"\r\n" in content,
        "it is a pointer of git-lfs: `git lfs pull` fetches it": b"/git-lfs" in content[:99],
        "it was cut short": is_text and not content.endswith((b"\n", b"}")),
        "nbstripout, another git filter or JupyterLab wrote it anew": path.suffix == ".ipynb",
        "a person or a program edited it": True,
    }
    cause = next(sign for sign, holds in signs.items() if holds)
    place = shlex.quote(os.path.relpath(whole, ROOT) if whole.is_relative_to(ROOT) else whole.name)
    way_out = f"`find {place} -exec touch {{}} + && git checkout -- {place}`"
    return f"{cause}; if it is committed, {way_out} restores it"


@contextlib.contextmanager
def folder_made(folder: Path) -> Iterator[None]:
    """A folder and those above it; those that were not there go again if they stay empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            _remove_empty(path)


def printable(name: str | Path) -> str:
    r"""A name as text; the bytes of one that is not UTF-8 are written as \xff."""
    return os.fsencode(name).decode(errors="backslashreplace")
