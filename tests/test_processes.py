"""A cell in a process of its own, seen from outside and from within: every end is a row."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from psannlm.bench import processes, upkeep
from psannlm.bench.fork_server import ForkServer
from psannlm.bench.processes import run_task
from tests.standing_alone import foreign_imports
from tests.test_throughput_measure import task

HALF = {"mode": "forward", "status": "ok", "reason": ""}


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Replaces the worker by a script; {result} in it is the path of the result file."""

    def install(script: str) -> None:
        source = tmp_path / "worker.py"
        source.write_text(f"import sys, os, signal, time\nresult = sys.argv[2]\n{script}\n")
        real = processes.subprocess.Popen

        def start(command, **options):
            return real([sys.executable, str(source), *command[3:]], **options)

        monkeypatch.setattr(processes.subprocess, "Popen", start)

    return install


def outcome(timeout_seconds: float = 30.0):
    return run_task(task(), cache=Path("/nonexistent"), timeout_seconds=timeout_seconds)


def test_a_killed_process_keeps_what_it_had_measured(stand_in):
    stand_in(f"""
out = open(result, "a")
out.write({json.dumps(HALF)!r} + "\\n")
out.write('{{"mode": "train_st')
out.flush()
os.kill(os.getpid(), signal.SIGKILL)
""")

    forward, training = outcome()

    assert forward == HALF
    assert training["status"] == "failed"
    assert training["reason"].startswith("killed by signal SIGKILL")


@pytest.mark.parametrize(
    ("script", "timeout_seconds", "reason"),
    [
        ("time.sleep(60)", 0.5, "timed out after 0.5 s"),
        (
            "raise RuntimeError('no such luck')",
            30.0,
            "process ended without a result: RuntimeError: no such luck",
        ),
    ],
    ids=["hangs", "crashes"],
)
def test_a_process_without_a_result_has_a_reason(stand_in, script, timeout_seconds, reason):
    stand_in(script)

    assert {row["reason"] for row in outcome(timeout_seconds)} == {reason}


def test_a_process_that_nobody_waits_for_any_more_is_ended(stand_in):
    stand_in("time.sleep(60)")
    start = time.monotonic()

    run_task(task(), cache=Path("/nonexistent"), timeout_seconds=50, stopped=lambda: True)

    assert time.monotonic() - start < 20


def test_a_new_process_has_the_variables_that_it_is_given(stand_in):
    stand_in("sys.exit(os.environ['TOLD'])")
    told = {"TOLD": "some words"}

    [row, _] = run_task(task(), cache=Path("/nonexistent"), timeout_seconds=30, variables=told)

    assert row["reason"] == "process ended without a result: some words"


@pytest.mark.slow
def test_the_real_worker_measures_every_mode(tmp_path):
    rows = run_task(task(), cache=tmp_path, timeout_seconds=120)

    assert [(row["mode"], row["status"]) for row in rows] == [
        ("forward", "ok"),
        ("train_step", "ok"),
    ]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "timed out after 5 s"),
        (-9, "killed by signal SIGKILL, as the system does when memory runs out"),
        (-11, "killed by signal SIGSEGV"),
        (1, "process ended without a result: it said nothing"),
    ],
)
def test_a_fork_server_runs_the_task_and_its_end_is_the_reason(code, reason):
    class Answering:
        def run(self, task_path, result_path, log_path, timeout_seconds, stopped):
            assert json.loads(task_path.read_text())["batch_tokens"] == 32
            assert timeout_seconds == 5
            result_path.write_text(json.dumps(HALF) + "\n")
            return code

    forward, training = run_task(
        task(), cache=Path("/nonexistent"), timeout_seconds=5, fork_server=Answering()
    )

    assert forward == HALF
    assert training["reason"] == reason


@dataclass(frozen=True)
class Errand:
    worker: ClassVar[tuple[str, ...]] = ()
    modes: tuple[str, ...]
    factor: int


@pytest.fixture
def collections(monkeypatch):
    """Nothing watches, and what would be collected is counted: here it takes a second each time."""
    made = []
    monkeypatch.setattr(processes, "stop_when_orphaned", lambda: None)
    monkeypatch.setattr(upkeep.gc, "collect", lambda: made.append(1))
    return made


@pytest.fixture
def served(tmp_path, collections):
    """Serves a task with the function that measures; returns the lines that are left."""

    def serve(measure, errand: Errand = Errand(("first", "second"), 3)) -> list[dict]:
        (tmp_path / "task").write_text(json.dumps(asdict(errand)))
        processes.serve(Errand, measure, [str(tmp_path / "task"), str(tmp_path / "result")])
        return [json.loads(line) for line in (tmp_path / "result").read_text().splitlines()]

    return serve


def test_a_failed_mode_does_not_take_the_other_with_it(served):
    def measure(errand, mode):
        if mode == "first":
            raise torch.OutOfMemoryError("tried to allocate 8 GiB\nmore words")
        return {"value": errand.factor}

    first, second = served(measure)

    assert (first["mode"], first["status"]) == ("first", "failed")
    assert first["reason"] == "out of memory: tried to allocate 8 GiB"
    assert (second["mode"], second["status"], second["reason"]) == ("second", "ok", "")
    assert second["value"] == 3
    assert first["started_at"].endswith("+00:00")


def test_a_mode_finds_the_task_as_sent_the_lines_before_it_and_the_memory_given_back(
    served, collections, tmp_path
):
    arrived = []

    def measure(errand, mode):
        lines = (tmp_path / "result").read_text().count("\n")
        arrived.append((errand, lines, len(collections)))
        return {}

    served(measure)

    errand = Errand(("first", "second"), 3)
    assert arrived == [(errand, 0, 0), (errand, 1, 1)]


def test_what_is_more_than_free_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**30)
    cpu = torch.device("cpu")

    processes.refuse_what_cannot_fit(2**30, "all of it", cpu)
    with pytest.raises(MemoryError, match=r"needs at least 3\.0 GiB \(all of it\), 1\.0 GiB"):
        processes.refuse_what_cannot_fit(3 * 2**30, "all of it", cpu)


def test_a_reason_names_the_kind_of_error():
    assert upkeep.reason_of(ValueError("bad\nworse")) == "ValueError: bad"
    assert upkeep.reason_of(MemoryError("full")) == "out of memory: full"
    assert upkeep.reason_of(KeyboardInterrupt()) == "KeyboardInterrupt: "


def test_the_words_of_a_failure_need_torch_alone():
    assert foreign_imports(upkeep) == set()


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
def test_every_cell_has_a_process_of_its_own_and_every_end_is_told(fork_server, tmp_path):
    lives = []
    for _ in range(2):
        assert run(fork_server, tmp_path, "write") == 0
        lives.append(json.loads((tmp_path / "result").read_text()))
    (first, parent, seen), (second, other_parent, also_seen) = lives
    assert first != second
    assert parent == other_parent == fork_server.process.pid
    assert seen == also_seen == 1, "it knows nothing of the others"

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
