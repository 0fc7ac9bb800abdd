"""Where text comes from: files downloaded once and checked by their hash, rows of the hub.

Packages come through the clients of their registries, so that mirrors and proxies set up there
are used, and nothing is installed.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import requests
from tqdm import tqdm

from psannlm import CACHE, ROOT
from psannlm.config import packages
from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import FilesSource, HubSource, PackageSource, Source
from psannlm.files import sha256_of, writing

T = TypeVar("T")
P = ParamSpec("P")
REGISTRY = "npm_config_registry"  # the variable by which npm itself is told its registry
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
    rf"\b{_STATUS}(?= (Client|Server) Error| error responses| while getting)|\bE{_STATUS}$"
    r"|ECONNRESET|E(SOCKET)?TIMEDOUT|Connection (reset|aborted|broken)|Remote(Disconnected| end cl)"
    r"|([Rr]ead|[Cc]onnection|request) timed out|(Connect|Read) ?Timeout|IncompleteRead",
    re.M,
)


class BusyError(ConfigError):
    """A server that may answer when it is asked again, not before so many `seconds`."""

    def __init__(self, problem: str, seconds: float = 0.0) -> None:
        later = f"in {seconds:,.0f} s" if seconds else "later"
        busy = "the server is busy or the connection breaks off"
        super().__init__(f"{problem}; {busy}: run this again {later}")
        self.problem, self.seconds = problem, seconds


def patiently(ask: Callable[P, T]) -> Callable[P, T]:
    """Calls `ask` again, after growing waits, while it raises BusyError."""

    @wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        waits = iter(WAITS)
        while True:
            try:
                return ask(*args, **kwargs)
            except BusyError as busy:
                seconds = max(next(waits, float("inf")), busy.seconds)
                if seconds > LONGEST_WAIT:
                    raise
                tqdm.write(f"{busy.problem}; it is asked again in {seconds:g} s", file=sys.stderr)
                time.sleep(seconds)

    return asked


def refuse_out_of_reach(source: Source, cache: Path = CACHE) -> None:
    """Raise ConfigError where a source is not here, and nothing here could fetch it."""
    if isinstance(source, FilesSource):
        if missing := [path for path in source.paths if not (ROOT / path).exists()]:
            raise ConfigError(f"{source.name}: {missing[0]} does not exist; put it there")
    elif isinstance(source, PackageSource):
        if not any(cache.glob(f"{source.sha256[:12]}-*")):
            _refuse_without_client(source)
    elif isinstance(source, HubSource) and any(packages.unfit("hub")):
        needs = f"{source.dataset} needs the client of the hub, which is missing or too old"
        raise ConfigError(f"{needs}; run: {packages.installing('hub')}")


def _refuse_without_client(source: PackageSource) -> None:
    """Raise ConfigError where neither its client nor a setting tells how to fetch a package."""
    problem = f"{source.package} {source.version} cannot be fetched: {source.kind} is missing"
    if source.kind == "pip" and not packages.has_pip():
        raise ConfigError(f"{problem}; run: {sys.executable} -m ensurepip")
    if source.kind == "npm" and not (shutil.which("npm") or os.environ.get(REGISTRY)):
        way_out = f"install npm, or set {REGISTRY} to the address of a registry"
        raise ConfigError(f"{problem}, and no registry is named; {way_out}")


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
            if (got := sha256_of(found[0])) != source.sha256:
                rule = f"{found[0].name} of {source.name} must have the sha256 {source.sha256}"
                way_out = "try again, or mend the recipe if the new content is trusted"
                raise ConfigError(f"{rule}, got {got}; it was removed: {way_out}")
            return found[0].replace(cache / f"{key}-{found[0].name}")


def _run_client(source: PackageSource, folder: Path) -> None:
    """Have the client of a registry download a package into `folder`; nothing of it is run."""
    _refuse_without_client(source)
    if source.kind == "npm" and not shutil.which("npm"):
        scope, _, name = source.package.removeprefix("@").rpartition("/")
        file = f"{name}-{source.version}.tgz"
        address = f"{os.environ[REGISTRY].rstrip('/')}/{source.package}/-/{file}"
        packed = f"{scope}-{file}" if scope else file  # as npm names what it packs
        return download(address, folder / packed)
    if source.kind == "npm":
        command = ["npm", "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=0"]
        command += [f"--fetch-timeout={TIMEOUT * 1000:.0f}", f"{source.package}@{source.version}"]
    else:  # pip checks the hash before it looks into a source distribution
        wanted = folder / "wanted.requirements"
        wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
        form = "--only-binary=:all:" if source.form == "wheel" else f"--no-binary={source.package}"
        command = [sys.executable, "-m", "pip", "download", *PIP, "--no-deps", "--require-hashes"]
        command += [form, "--requirement", wanted.name]
    problem = f"{source.package} {source.version} cannot be fetched: {source.kind}"
    return run_client(command, problem, folder)


@patiently
def run_client(command: Sequence[str], problem: str, folder: Path | None = None) -> None:
    """Run pip or npm; ConfigError if it has failed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if not done.returncode:
        return
    stripped = (line.strip() for line in (done.stdout + done.stderr).splitlines())
    lines = [line for line in stripped if line and not line.upper().startswith("WARNING")]
    # pip tells the answer of an index among much else, and then that it has found no version.
    starts = ("error", "could not fetch url", "npm err")
    errors = [line for line in lines if line.lower().startswith(starts)] or lines
    if passing := [line for line in errors if PASSING.search(line)]:
        raise BusyError(f"{problem} says: {passing[-1][:300]}")
    reason = " ".join(errors[-8:]) or "it said nothing"
    way_out = "check its name, version and hash, and the network connection"
    raise ConfigError(f"{problem} ended with status {done.returncode}: {reason}; {way_out}")


@patiently
def download(url: str, path: Path) -> None:
    """Write what lies at `url` to `path`; ConfigError if it cannot be had."""
    problem = re.sub(r"//[^/@]*@", "//", url) + " cannot be fetched: "  # without a password
    plain = {"Accept-Encoding": "identity"}  # as it is hashed
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as answer:
            problem += f"{answer.status_code} {answer.reason or ''}".rstrip()
            if answer.status_code in BUSY:
                wait = answer.headers.get("Retry-After", "")
                raise BusyError(problem, float(wait) if wait.isdecimal() else 0.0)
            if not answer.ok:
                raise ConfigError(f"{problem}; check the address")
            with path.open("wb") as out:
                out.writelines(answer.iter_content(2**20))
    except requests.RequestException as error:
        problem += f"{type(error).__name__}: {error}"
        if isinstance(error, requests.Timeout) or PASSING.search(problem):
            raise BusyError(problem) from None
        raise ConfigError(f"{problem}; check the address and the network connection") from None


def rows(source: HubSource) -> Iterator[str]:
    """The text of each row of a dataset's split, at the revision that the recipe pins.

    ConfigError if the client is missing, or the dataset or its column of text cannot be had.
    """
    refuse_out_of_reach(source)
    # The submodule, because the project's own folder datasets/ would pass for the package.
    client: Any = importlib.import_module("datasets.load")
    revision = None if Path(source.dataset).is_dir() else source.revision
    pinned = {"split": source.rows, "revision": revision, "streaming": True}

    @patiently
    def opened() -> Any:
        with _naming(source):
            return client.load_dataset(source.dataset, source.config or None, **pinned)

    with _naming(source):
        for row in opened():
            text = row.get(source.column)
            if not isinstance(text, str):
                raise ConfigError(
                    f"{source.dataset}: column must be one of text among {', '.join(row)}, "
                    f"got {source.column!r}"
                )
            yield text


@contextmanager
def _naming(source: HubSource) -> Iterator[None]:
    """Turns what the client of the hub raises, of many libraries, into a message."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind, first = type(error).__name__, (str(error).splitlines() or [""])[0]
        problem = f"{source.dataset} ({source.rows}) cannot be read: {kind}: {first}"
        if PASSING.search(f"{kind}: {error}"):
            raise BusyError(problem) from None
        way_out = "check the name, configuration, split and network connection"
        raise ConfigError(f"{problem}; {way_out}") from None
