"""A cell in a process of its own, seen from outside and from within: every end is a row."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from psannlm.bench import processes, worker
from psannlm.bench.processes import ForkServer, run_task


@dataclass(frozen=True)
class Errand:
    """A task whose worker is a script; `result` in it is the path of the result file."""

    script: str = ""
    modes: tuple[str, ...] = ("first", "second")
    factor: int = 3

    @property
    def worker(self) -> tuple[str, ...]:
        opening = "import os, signal, sys, time\nresult = sys.argv[2]\n"
        return sys.executable, "-c", opening + self.script


HALF = {"mode": "first", "status": "ok", "reason": ""}
NO_RESULT = "process ended without a result"


def outcome(script: str, timeout_seconds: float = 30.0, **options):
    cache = Path("/nonexistent")
    return run_task(Errand(script), cache=cache, timeout_seconds=timeout_seconds, **options)


def test_a_killed_process_keeps_what_it_had_measured():
    first, second = outcome(f"""
out = open(result, "a")
out.write({json.dumps(HALF)!r} + "\\n")
out.write('{{"mode": "sec')
out.flush()
os.kill(os.getpid(), signal.SIGKILL)
""")

    assert first == HALF
    assert second["status"] == "failed"
    assert second["reason"].startswith("killed by signal SIGKILL")


@pytest.mark.parametrize(
    ("script", "options", "reason"),
    [
        ("time.sleep(60)", {"timeout_seconds": 0.3}, "timed out after 0.3 s"),
        ("time.sleep(60)", {"stopped": lambda: True}, "timed out after 30 s"),
        ("raise RuntimeError('no luck')", {}, f"{NO_RESULT}: RuntimeError: no luck"),
        ("sys.exit(os.environ['TOLD'])", {"variables": {"TOLD": "words"}}, f"{NO_RESULT}: words"),
    ],
    ids=["hangs", "nobody waits for it", "crashes", "knows its variables"],
)
def test_a_process_without_a_result_is_ended_and_has_a_reason(script, options, reason):
    start = time.monotonic()

    assert {row["reason"] for row in outcome(script, **options)} == {reason}
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-9, "killed by signal SIGKILL, as the system does when memory runs out"),
        (-11, "killed by signal SIGSEGV"),
        (1, f"{NO_RESULT}: it said nothing"),
    ],
)
def test_a_fork_server_runs_the_task_and_its_end_is_the_reason(code, reason):
    class Answering:
        def run(self, paths, timeout_seconds, stopped):
            task_path, result_path, _ = paths
            assert json.loads(task_path.read_text())["factor"] == 3
            assert timeout_seconds == 5
            result_path.write_text(json.dumps(HALF) + "\n")
            return code

    first, second = outcome("", 5, fork_server=Answering())

    assert first == HALF
    assert second["reason"] == reason


def test_modes_are_measured_one_by_one_and_a_failed_one_takes_no_other_with_it(
    monkeypatch, tmp_path
):
    collected, arrived = [], []
    monkeypatch.setattr(worker, "stop_when_orphaned", lambda: None)
    monkeypatch.setattr(worker.gc, "collect", lambda: collected.append(1))
    task, result = tmp_path / "task", tmp_path / "result"
    task.write_text(json.dumps(asdict(Errand())))

    def measure(errand, mode):
        arrived.append((errand, result.read_text().count("\n"), len(collected)))
        if mode == "first":
            raise torch.OutOfMemoryError("tried to allocate 8 GiB\nmore words")
        return {"value": errand.factor}

    processes.serve(Errand, measure, [str(task), str(result)])

    first, second = map(json.loads, result.read_text().splitlines())
    assert (first["mode"], first["status"]) == ("first", "failed")
    assert first["reason"] == "out of memory: tried to allocate 8 GiB"
    assert first["started_at"].endswith("+00:00")
    assert (second["mode"], second["status"], second["reason"]) == ("second", "ok", "")
    assert second["value"] == 3
    # Each finds the task as sent, the lines before it, and the memory given back.
    assert arrived == [(Errand(), 0, 0), (Errand(), 1, 1)]


def test_what_is_more_than_free_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**30)
    cpu = torch.device("cpu")

    processes.refuse_what_cannot_fit(2**30, "all of it", cpu)
    with pytest.raises(MemoryError, match=r"needs at least 3\.0 GiB \(all of it\), 1\.0 GiB"):
        processes.refuse_what_cannot_fit(3 * 2**30, "all of it", cpu)


def test_a_reason_names_the_kind_of_error():
    assert worker.reason_of(ValueError("bad\nworse")) == "ValueError: bad"
    assert worker.reason_of(MemoryError("full")) == "out of memory: full"
    assert worker.reason_of(KeyboardInterrupt()) == "KeyboardInterrupt: "


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


@pytest.mark.slow
def test_every_cell_has_a_process_of_its_own_and_every_end_is_told(tmp_path):
    (tmp_path / "work_of_cells.py").write_text(WORK)
    task, result, log = paths = [tmp_path / name for name in ("task", "result", "log")]
    server = ForkServer("work_of_cells", tmp_path)
    found = os.pathsep.join([server.environment["PYTHONPATH"], str(tmp_path)])
    server.environment = {**server.environment, "PYTHONPATH": found, "PYTHONUNBUFFERED": ""}

    def run(what: str, timeout_seconds: float = 50.0) -> int | None:
        task.write_text(what)
        return server.run(paths, timeout_seconds)

    with server:
        lives = [(run("write"), *json.loads(result.read_text())) for _ in range(2)]
        codes, pids, parents, seen = map(set, zip(*lives, strict=True))
        assert len(pids) == 2
        assert (codes, parents) == ({0}, {server.process.pid})
        assert seen == {1}, "it knows nothing of the others"

        assert run("say") == 1
        words = log.read_text()
        assert words.startswith("some words\n")
        assert words.endswith("RuntimeError: no such luck\n")
        assert run("hang", 0.3) is None
        assert run("kill") == -signal.SIGKILL
        assert run("write") == 0

        assert run("kill the fork server") == -signal.SIGKILL
        assert run("write") == 0, "it is replaced"
        last = server.process
    assert last.poll() == 0
