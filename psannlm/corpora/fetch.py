"""Sources had from elsewhere: files downloaded once and checked by their hash, rows of a dataset.

Packages come through the clients of their registries, so that mirrors and proxies set up there
are used; nothing is installed.
"""

import errno
import importlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from psannlm import CACHE
from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import HubSource, NpmSource, PackedSource, PipSource, UrlSource
from psannlm.files import sha256_of

KEY = 12
"""Digits of the hash that stand before a cached file's own name."""

BLOCK = 2**18
ATTEMPTS = 3
TIMEOUT_SECONDS = 60.0
BROKEN = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError)


def fetch_file(source: PackedSource, cache: Path = CACHE) -> Path:
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
            case PipSource() | NpmSource():
                return _from_client(source, cache)
    raise ConfigError(f"{source.name}: there is no way to fetch a {type(source).__name__}")


def _from_client(source: PipSource | NpmSource, cache: Path) -> Path:
    """The one file that the client of the registry downloads for a source."""
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        folder = Path(name)
        if isinstance(source, PipSource):
            _run(_pip_command(source, folder), folder, source)
        else:
            _run(_npm_command(source), folder, source)
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


def download(url: str, part: Path) -> None:
    """Fetch `url` into `part`, of which what is already there is not fetched again.

    A server that cannot send the rest of a file sends it from the beginning. Whether the content
    is the right one is for the caller to check.

    Raises:
        ConfigError: The server refuses, cannot be reached, or broke off several times; what came
            so far stays in `part`.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            if _is_complete_after(url, part):
                return
            reason = "the server sent less than it announced"
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not part.exists():
                raise ConfigError(
                    f"{url} cannot be fetched: the server answered {error.code} {error.reason}; "
                    "correct the address in the recipe"
                ) from None
            part.unlink()  # there is more of it than the server has: begin anew
            reason = str(error)
        except BROKEN as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    got = part.stat().st_size if part.exists() else 0
    raise ConfigError(
        f"{url} broke off after {got:,} bytes: {reason}; check the network connection and run "
        "this again to go on from there"
    )


def _is_complete_after(url: str, part: Path) -> bool:
    """One transfer of what is missing; whether all came that the server announced."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT and answer.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {have}-")
        have = have if goes_on else 0
        announced = answer.headers.get("Content-Length")
        whole = have + int(announced) if announced else None
        with (
            part.open("ab" if goes_on else "wb") as out,
            tqdm(total=whole, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := answer.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    return whole is None or part.stat().st_size == whole


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
    try:
        found = client.load_dataset(
            source.dataset,
            source.config or None,
            split=source.rows,
            revision=None if Path(source.dataset).is_dir() else source.revision,
            streaming=True,
        )
        for row in found:
            text = row.get(source.column)
            if not isinstance(text, str):
                known = ", ".join(row)
                raise ConfigError(
                    f"{source.dataset}: column must be one of text among {known}, "
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
