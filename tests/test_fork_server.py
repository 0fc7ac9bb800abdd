"""A fork server forks a fresh process for each cell, and tells how each ended."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from psannlm.bench.fork_server import ForkServer

WORK = """
import json, os, signal, sys, time
seen = []

def main(paths):
    task, result = paths
    what = open(task).read()
    seen.append(what)
    if what == "write":
        open(result, "w").write(json.dumps([os.getpid(), os.getppid(), len(seen)]))
    elif what == "say":
        print("some words")
        raise RuntimeError("no such luck")
    elif what == "hang":
        time.sleep(60)
    else:
        os.kill(os.getppid() if what == "kill the fork server" else os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def fork_server(tmp_path):
    """One whose cells do what their task says."""
    (tmp_path / "work_of_cells.py").write_text(WORK)
    made = ForkServer("work_of_cells", tmp_path)
    made.environment = {**made.environment}
    made.environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    with made:
        yield made
        last = made.process
    assert last.poll() == 0


def run(fork_server: ForkServer, folder: Path, what: str, timeout_seconds: float = 50.0):
    (folder / "task").write_text(what)
    return fork_server.run(folder / "task", folder / "result", folder / "log", timeout_seconds)


@pytest.mark.slow
def test_every_cell_has_a_process_of_its_own_that_knows_nothing_of_the_others(
    fork_server, tmp_path
):
    lives = []
    for _ in range(2):
        assert run(fork_server, tmp_path, "write") == 0
        lives.append((tmp_path / "result").read_text())

    first, second = map(json.loads, lives)
    assert first[0] != second[0]
    assert first[1] == second[1] == fork_server.process.pid
    assert (first[2], second[2]) == (1, 1)


@pytest.mark.slow
def test_every_end_is_told_and_the_next_cell_runs_all_the_same(fork_server, tmp_path):
    assert run(fork_server, tmp_path, "say") == 1
    words = (tmp_path / "log").read_text()
    assert words.startswith("some words\n")
    assert words.endswith("RuntimeError: no such luck\n")

    start = time.monotonic()
    assert run(fork_server, tmp_path, "hang", 0.3) is None
    assert time.monotonic() - start < 20

    assert run(fork_server, tmp_path, "kill") == -signal.SIGKILL
    assert run(fork_server, tmp_path, "write") == 0


@pytest.mark.slow
def test_a_fork_server_that_was_killed_is_replaced(fork_server, tmp_path):
    assert run(fork_server, tmp_path, "kill the fork server") == -signal.SIGKILL

    assert run(fork_server, tmp_path, "write") == 0
