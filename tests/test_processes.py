"""A cell in a process of its own: whatever becomes of it, there is a row with a reason."""

import json
import sys
import time
from pathlib import Path

import pytest
from tests.test_worker import task

from psannlm.bench import processes
from psannlm.bench.processes import run_task

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


def test_a_process_that_hangs_is_stopped(stand_in):
    stand_in("time.sleep(60)")

    rows = outcome(timeout_seconds=0.5)

    assert {row["reason"] for row in rows} == {"timed out after 0.5 s"}


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


def test_a_crash_leaves_its_last_words(stand_in):
    stand_in("raise RuntimeError('no such luck')")

    rows = outcome()

    expected = "process ended without a result: RuntimeError: no such luck"
    assert {row["reason"] for row in rows} == {expected}


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
    class ForkServer:
        def run(self, task_path, result_path, log_path, timeout_seconds, stopped):
            assert json.loads(task_path.read_text())["batch_tokens"] == 32
            assert timeout_seconds == 5
            result_path.write_text(json.dumps(HALF) + "\n")
            return code

    forward, training = run_task(
        task(), cache=Path("/nonexistent"), timeout_seconds=5, fork_server=ForkServer()
    )

    assert forward == HALF
    assert training["reason"] == reason
