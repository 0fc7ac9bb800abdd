"""One process at a time writes a run, a training, a book, a package; what was killed holds none."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from psannlm import ROOT
from psannlm.bench.environment import utc_now
from psannlm.config.schema import ConfigError
from psannlm.evidence import runs
from psannlm.evidence.runs import EvidenceError, Run, all_runs, best_run, load
from psannlm.files import LOCK, InUseError, lock, locked, unlock
from psannlm.pages.peer import plan as peers
from psannlm.publish import staging
from psannlm.run import preset as runner
from psannlm.train.recorder import Progress
from tests.test_runs import NOW, START, begun
from tests.tiny_trainings import rows, session_in, training_config, write_text

OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from psannlm.files import lock
own, child = lock(Path(sys.argv[1])), os.getpid()
if sys.argv[2] == "starts":
    child = subprocess.Popen(["sleep", "60"]).pid
if sys.argv[2] == "forks" and not (child := os.fork()):
    time.sleep(60)
print(child, flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def locked_by_another(folder: Path, what: str = "") -> Iterator[tuple["subprocess.Popen", int]]:
    """A process that has the lock of a folder, and the process that it has begun."""
    command, pipe = [sys.executable, "-c", OWNER, str(folder), what], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            for pid in {child, process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def killed(process: "subprocess.Popen") -> None:
    process.kill()
    process.wait()


def at_once(n: int, function: Callable[[int], Any]) -> list[Any]:
    """What a function returns to so many threads that call it at the same time."""
    barrier = threading.Barrier(n)

    def together(i: int) -> Any:
        barrier.wait()
        return function(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(together, range(n)))


def test_a_run_that_is_alive_is_resumed_by_nobody_and_goes_on_once_it_is_killed(tmp_path):
    run = begun(tmp_path)
    run.write("data.csv", "a\n1\n")
    run.lock.release()
    with locked_by_another(run.folder) as (process, _):
        before = (run.folder / "run.json").read_bytes()
        with pytest.raises(InUseError, match=f"{run.folder.name} is being written by process"):
            Run.resume(run.folder, NOW)
        with pytest.raises(InUseError, match=f" {process.pid}; wait until it ends"):
            lock(run.folder)
        assert (run.folder / "run.json").read_bytes() == before
        killed(process)
        assert (run.folder / LOCK).exists()  # what a kill leaves is in nobody's way

        resumed = Run.resume(run.folder, NOW)

    with pytest.raises(InUseError, match=f" {os.getpid()};"):  # resumed twice at once, one wins
        Run.resume(run.folder, NOW)
    resumed.seal("complete")
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "data.csv"}
    assert load(run.folder).is_complete


@pytest.mark.parametrize("what", ["forks", "starts"])
def test_what_a_killed_process_has_begun_locks_nothing(tmp_path, what):
    with locked_by_another(tmp_path, what) as (process, child):
        killed(process)
        os.kill(child, 0)  # it lives on

        unlock(lock(tmp_path))


def test_a_failed_run_is_locked_while_its_notebook_is_open_and_a_refused_one_is_not(tmp_path):
    run = begun(tmp_path)
    run.seal("failed", "it broke")
    with pytest.raises(InUseError):
        Run.resume(run.folder, NOW)
    run.lock.release()
    with pytest.raises(EvidenceError, match="other parameters"):
        Run.resume(run.folder, NOW | {"parameters": {"seed": 1}})

    assert Run.resume(run.folder, NOW).manifest["status"] == "running"
    with pytest.raises(EvidenceError, match=r"run\.json is missing"):
        Run.resume(run.folder.parent, NOW)
    assert not (run.folder.parent / LOCK).exists()  # no lock is left where no run is


def test_sixteen_runs_of_one_second_have_sixteen_folders_and_the_last_is_the_newest(
    tmp_path, monkeypatch
):
    now = utc_now()  # a clock that stands still, or was set back
    monkeypatch.setattr(runs, "utc_now", lambda: now)
    made = at_once(
        16, lambda _: Run.start("benchmarks", START | NOW, reports=tmp_path, suffix="_x")
    )
    for run in made:
        run.seal("complete")

    known = list(all_runs(tmp_path))

    stamp = f"{now:%Y%m%d_%H%M%S}_x"
    expected = [stamp, *(f"{stamp}_{n}" for n in range(2, 17))]
    assert [run.folder.name for run in known] == expected
    assert {run.manifest["run"] for run in made} == set(expected)
    assert best_run("throughput", known) == known[-1]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_nothing_stays_there(
    tmp_path, monkeypatch, number
):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)

    for begin in (lambda: begun(tmp_path), lambda: locked(tmp_path / "new").__enter__()):
        with pytest.raises(ConfigError, match=r"must lie where files can be locked.*a disk"):
            begin()

    assert [path for path in tmp_path.rglob("*") if path.name != "benchmarks"] == []


def test_a_second_training_in_one_folder_is_refused_and_the_first_goes_on(tmp_path):
    config = training_config(corpus=str(write_text(tmp_path)), n_layers=1, epochs=0.5)
    begin = partial(session_in, tmp_path / "training", config, tmp_path / "cache")
    steps = []

    def again(progress: Progress) -> None:
        with pytest.raises(InUseError, match=f"training is being written by process {os.getpid()}"):
            begin()
        steps.append(str(progress.step))

    done = begin(watch=again)

    assert [row["step"] for row in rows(tmp_path / "training", "step")] == steps
    assert done.metrics["n_steps"] == len(steps) > 1
    assert not (tmp_path / "training" / LOCK).exists()


def test_what_waits_for_a_lock_has_it_once_it_is_free_and_locks_the_new_file(tmp_path):
    with locked_by_another(tmp_path) as (process, _):
        timer = threading.Timer(0.3, process.kill)
        timer.start()
        own = lock(tmp_path, patience=30)
        timer.join()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock, tmp_path, patience=30)
        unlock(own)  # which takes the file away under the one that waits
        waiting.result()
        with pytest.raises(InUseError):
            lock(tmp_path)


def test_two_reports_at_once_read_each_its_own_notebook(tmp_path, monkeypatch):
    both = threading.Barrier(2)

    def papermill(command, **_):
        """Write an error of one's own, and end when both have."""
        assert command[4] == "notebooks/memory.ipynb"
        error = new_output("error", ename="Error", evalue=f"of {command[-1]}")
        nbformat.write(new_notebook(cells=[new_code_cell(outputs=[error])]), command[5])
        both.wait()
        return SimpleNamespace(returncode=1, poll=lambda: 1, wait=lambda: 1, terminate=lambda: 1)

    monkeypatch.setattr(runner.subprocess, "Popen", papermill)
    output = tmp_path / "executed" / "smoke_memory.ipynb"

    ended = at_once(2, lambda i: runner.run_notebook("memory", ["-f", f"{i}.yaml"], output))

    assert [one.reason for one in ended] == ["Error: of 0.yaml", "Error: of 1.yaml"]
    assert nbformat.read(output, as_version=4).cells  # whole, of one of them


def test_a_second_build_of_a_book_waits_and_says_for_whom(tmp_path):
    lines: list[str] = []
    with locked_by_another(tmp_path) as (process, _), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(staging.wait_for_others, tmp_path, lines.append)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        process.kill()
        waiting.result(30)
    assert f"by process {process.pid};" in lines[0]


def test_a_book_that_cannot_be_written_is_built_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(staging.os, "access", lambda *_: False)

    assert staging.wait_for_others(tmp_path, pytest.fail) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_live_run_is_about_to_rename_is_no_input_of_a_book(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "REPORTS", tmp_path)
    for name in ("run.json", ".run.json.1.tmp", LOCK):
        (tmp_path / name).write_text("{}")

    assert [path.name for path in staging._inputs() if path.parent == tmp_path] == ["run.json"]


def test_a_package_is_installed_once_by_two_that_need_it_at_once(tmp_path, monkeypatch):
    installed = []
    monkeypatch.setattr(peers, "PACKAGES", tmp_path / "peers")
    monkeypatch.setattr(
        peers, "_install", lambda *asked: installed.append(asked[0]) or asked[1].mkdir()
    )

    first, second = at_once(2, lambda _: peers.environment("psannlm==2.0.1"))

    assert first == second
    assert installed == ["psannlm==2.0.1"]
    assert json.loads((first.parents[1] / peers.STAMP).read_text())["torch"]
