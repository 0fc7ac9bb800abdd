"""A transfer that breaks off goes on, and one that cannot succeed says why."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import download as module
from psannlm.corpora.download import download

CONTENT = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT as /file; breaks off after `limits`, one a request."""

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
        if start >= len(CONTENT):
            self.send_error(416)
            return
        start = 0 if self.server.sends_all else start
        rest = CONTENT[start:]
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        if asked and self.server.knows_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
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


def test_a_file_comes_whole(server: Server, tmp_path: Path) -> None:
    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT
    assert server.ranges == [""]


def test_a_broken_transfer_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.limits = [300_000, 1000]

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=300000-", "bytes=301000-"]


def test_what_came_in_an_earlier_run_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT[:5000])

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-"]


def test_a_server_that_knows_no_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "a.part").write_bytes(b"x" * 5000)

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT


def test_another_part_than_asked_for_starts_over(server: Server, tmp_path: Path) -> None:
    server.sends_all = True
    (tmp_path / "a.part").write_bytes(CONTENT[:5000])

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT


def test_more_than_there_is_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT + b"x")

    download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    server.limits = [1000] * 9

    with pytest.raises(ConfigError, match=r"/file broke off after 3,000 bytes: .*; check the netw"):
        download(url(server), tmp_path / "a.part")

    assert (tmp_path / "a.part").read_bytes() == CONTENT[:3000]


def test_a_file_that_is_not_there_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/none cannot be fetched: the server answered 404 Not"):
        download(url(server, "none"), tmp_path / "a.part")

    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.5)
    address = url(server)
    server.server_close()

    with pytest.raises(ConfigError, match=r"broke off after 0 bytes: .*; check the network"):
        download(address.replace("127.0.0.1", "127.0.0.2"), tmp_path / "a.part")
