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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from tests.synthetic import throughput_run
from tests.test_runs import NOW, START, begun
from tests.tiny_trainings import rows, session_in, training_config, write_text

HOLDER = """
import multiprocessing, os, subprocess, sys, time
from pathlib import Path
from psannlm.files import lock
held = lock(Path(sys.argv[1]))
def outlive():
    print(os.getpid(), flush=True)
    time.sleep(60)
if sys.argv[2] == "forks":
    if os.fork() == 0: outlive()
if sys.argv[2] == "starts a program":
    sleep = subprocess.Popen(["sleep", "60"])
    print(sleep.pid, flush=True)
if sys.argv[2] == "has a worker":
    multiprocessing.get_context("fork").Process(target=outlive).start()
if sys.argv[2] == "waits":
    print(os.getpid(), flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def held_by_another(folder: Path, what: str = "waits") -> Iterator[tuple["subprocess.Popen", int]]:
    """A process that has the lock of a folder, and the process that it has begun."""
    command, pipe = [sys.executable, "-c", HOLDER, str(folder), what], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            for pid in {child, process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Be on a file system that answers every lock with an error."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_run_that_is_alive_is_resumed_by_nobody_and_goes_on_once_it_is_killed(tmp_path):
    run = begun(tmp_path)
    run.write("data.csv", "a\n1\n")
    run.lock.release()
    with held_by_another(run.folder) as (process, _):
        before = (run.folder / "run.json").read_bytes()
        with pytest.raises(InUseError, match=f"{run.folder.name} is being written by process"):
            Run.resume(run.folder, NOW)
        with pytest.raises(InUseError, match=f" {process.pid}; wait until it ends"):
            lock(run.folder)
        assert (run.folder / "run.json").read_bytes() == before
        process.kill()
        process.wait()
        assert (run.folder / LOCK).exists()  # what a kill leaves is in nobody's way

        resumed = Run.resume(run.folder, NOW)

    with pytest.raises(InUseError, match=f" {os.getpid()};"):  # resumed twice at once, one wins
        Run.resume(run.folder, NOW)
    resumed.seal("complete")
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "data.csv"}
    assert load(run.folder).is_complete


@pytest.mark.parametrize("what", ["forks", "starts a program", "has a worker"])
def test_what_a_killed_process_has_begun_holds_nothing(tmp_path, what):
    with held_by_another(tmp_path, what) as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives on

        unlock(lock(tmp_path))


def test_a_failed_run_stays_locked_while_its_notebook_is_open_and_a_refused_one_does_not(run):
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


@pytest.fixture
def run(tmp_path) -> Run:
    return begun(tmp_path)


def test_sixteen_runs_of_one_second_have_sixteen_folders_in_their_order(tmp_path, monkeypatch):
    now = utc_now()  # a clock that stands still, or was set back
    monkeypatch.setattr(runs, "utc_now", lambda: now)
    together = threading.Barrier(16)

    def start(_: int) -> Run:
        together.wait()
        return Run.start("benchmarks", START | NOW, reports=tmp_path, suffix="_x")

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(start, range(16)))

    stamp = f"{now:%Y%m%d_%H%M%S}_x"
    expected = [stamp, *(f"{stamp}_{n}" for n in range(2, 17))]
    assert [run.folder.name for run in all_runs(tmp_path)] == expected
    assert {run.manifest["run"] for run in made} == set(expected)


def test_of_two_runs_of_one_second_the_later_is_the_newest(tmp_path, monkeypatch):
    now = utc_now()
    monkeypatch.setattr(runs, "utc_now", lambda: now)
    *_, last = [throughput_run(tmp_path) for _ in range(10)]

    assert last.name.endswith("_10")
    assert best_run("throughput", list(all_runs(tmp_path))).folder == last


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_nothing_stays_there(
    tmp_path, monkeypatch, number
):
    refuse_locks(monkeypatch, number)

    for begin in (lambda: begun(tmp_path), lambda: locked(tmp_path / "new").__enter__()):
        with pytest.raises(ConfigError, match=r"must lie where files can be locked.*a disk"):
            begin()

    assert [path for path in tmp_path.rglob("*") if path.name != "benchmarks"] == []


def test_a_second_training_in_one_folder_is_refused_and_the_first_goes_on(tmp_path):
    config = training_config(corpus=str(write_text(tmp_path)), n_layers=1, epochs=0.5)
    refused = []

    def again(_: object) -> None:
        with pytest.raises(InUseError, match=f"training is being written by process {os.getpid()}"):
            session_in(tmp_path / "training", config, tmp_path / "cache")
        refused.append(1)

    done = session_in(tmp_path / "training", config, tmp_path / "cache", watch=again)

    steps = [row["step"] for row in rows(tmp_path / "training", "step")]
    assert steps == [str(n) for n in range(1, len(refused) + 1)]
    assert done.metrics["n_steps"] == len(refused) > 1
    assert not (tmp_path / "training" / LOCK).exists()


def test_what_waits_for_a_lock_has_it_once_it_is_free_and_holds_the_new_file(tmp_path):
    with held_by_another(tmp_path) as (process, _):
        timer = threading.Timer(0.3, process.kill)
        timer.start()

        held = lock(tmp_path, patience=30)

        timer.join()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock, tmp_path, patience=30)
        unlock(held)  # which takes the file away under the one that waits
        waiting.result()
        with pytest.raises(InUseError):
            lock(tmp_path)


class Papermill:
    """Two at once: each writes the error of its own, and ends when both have."""

    returncode, both = 1, threading.Barrier(2)

    def __init__(self, command, **_):
        notebook, output = Path(command[4]), Path(command[5])
        error = new_output("error", ename="Error", evalue=f"of {command[-1]}")
        nbformat.write(new_notebook(cells=[new_code_cell(outputs=[error])]), output)
        assert notebook == Path("notebooks/memory.ipynb")
        self.both.wait()

    def poll(self):
        return 1

    terminate = wait = poll


def test_two_reports_at_once_read_each_its_own_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.subprocess, "Popen", Papermill)
    output = tmp_path / "executed" / "smoke_memory.ipynb"

    def reason(mine: str) -> str:
        return runner.run_notebook("memory", ["-f", mine], output).reason

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(reason, ["a.yaml", "b.yaml"]))

    assert found == ["Error: of a.yaml", "Error: of b.yaml"]
    assert nbformat.read(output, as_version=4).cells  # whole, of one of them


def test_a_second_build_of_a_book_waits_and_says_for_whom(tmp_path):
    said: list[str] = []
    with held_by_another(tmp_path) as (process, _), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(staging.wait_for_others, tmp_path, said.append)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        process.kill()
        waiting.result(30)
    assert f"by process {process.pid};" in said[0]


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
    installed, together = [], threading.Barrier(2)

    def install(requirement: str, folder: Path) -> None:
        installed.append(requirement)
        folder.mkdir()

    monkeypatch.setattr(peers, "PACKAGES", tmp_path / "peers")
    monkeypatch.setattr(peers, "_install", install)

    def ask(_: int) -> Path:
        together.wait()
        return peers.environment("psannlm==2.0.1")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))

    assert first == second
    assert installed == ["psannlm==2.0.1"]
    assert json.loads((first.parents[1] / peers.STAMP).read_text())["torch"]
