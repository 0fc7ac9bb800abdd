"""A cell in a fresh process: started or forked, watched and read from outside, served within.

A fork server is a process that has loaded all that cells need, and forks a fresh process for each:
loading torch takes ten times as long as measuring a small network. What is forked has never built,
timed or freed anything. Not for CUDA, whose driver does not outlive a fork. It is started as
`python -m psannlm.bench.processes MODULE LOADS...`.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from psannlm.bench.environment import available_memory_bytes, worker_environment
from psannlm.bench.worker import measure_modes
from psannlm.places import public

ASK_SECONDS = 0.2  # between asking whether a process is to be stopped; less would disturb it

TaskT = TypeVar("TaskT", bound="Task")
Work = Callable[[Sequence[str]], None]  # given the paths of a task and of its result
Variables = Mapping[str, str] | None  # further ones of a process's environment
Stopped = Callable[[], bool]  # whether a process is to be ended; asked again and again


class Task(Protocol):
    """What one process measures: a dataclass that knows its worker."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it; the paths of the task and of the result follow."""

    @property
    def modes(self) -> tuple[str, ...]:
        """What is measured, one after the other."""


class ForkServer(contextlib.AbstractContextManager["ForkServer"]):
    """Cells of one module, whose `main` is the work, each in its own process; used as a context.

    `loads` names further modules that cells would load each for itself; see `worker_environment`.
    """

    def __init__(
        self, module: str, cache: Path, *, loads: Sequence[str] = (), variables: Variables = None
    ) -> None:
        self.command = [sys.executable, "-m", "psannlm.bench.processes", module, *loads]
        self.environment = worker_environment(cache, variables)
        self.process: subprocess.Popen[str] | None = None

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(
        self, paths: Sequence[Path], timeout_seconds: float, stopped: Stopped = lambda: False
    ) -> int | None:
        """Exit code of a fresh process, negative for a signal; the paths are as of `run_task`.

        None if it ran out of time or had to be stopped.
        """
        pipe = subprocess.PIPE
        self.process = self.process or subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, text=True, env=self.environment
        )
        asked, answered = self.process.stdin, self.process.stdout
        assert asked is not None
        assert answered is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, and there will be no answer
            print(json.dumps([*map(str, paths), timeout_seconds]), file=asked, flush=True)
        while not select.select([answered], [], [], ASK_SECONDS)[0]:
            if stopped():
                self._close()
                return None
        answer = answered.readline()
        code: int | None = json.loads(answer) if answer else self._close()
        return code

    def _close(self) -> int:
        """End the process, if there is one, by ending its input; returns its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.read()  # until it has ended the cell that may still run
        process.stdout.close()
        return process.wait()


def answer_requests(work: Work) -> None:
    """Be a fork server: answer every line of standard input with the end of a fresh process."""
    for line in sys.stdin:
        *paths, timeout_seconds = json.loads(line)
        process = multiprocessing.get_context("fork").Process(target=_forked, args=(work, *paths))
        process.start()
        # Nothing is asked while a cell runs: input that can be read has ended.
        ended = process.sentinel in wait([process.sentinel, sys.stdin.fileno()], timeout_seconds)
        if not ended:
            process.kill()
        process.join()
        sys.stdout.write(json.dumps(process.exitcode if ended else None) + "\n")
        sys.stdout.flush()


def _forked(work: Work, task: str, result: str, log: str) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    try:
        work([task, result])
    finally:
        sys.stdout.flush()  # before the traceback, which the log ends with


def run_task(
    task: Task,
    *,
    cache: Path,
    timeout_seconds: float,
    fork_server: ForkServer | None = None,
    variables: Variables = None,
    stopped: Stopped = lambda: False,
) -> list[dict[str, Any]]:
    """One mapping a mode of `task`, in its order, measured in a process of its own.

    A mode that crashed, was killed or ran out of time has status "failed" and says why.

    The process comes from the fork server; without one, the task's worker is started anew, in a
    `worker_environment` of the cache and the variables.
    """
    with tempfile.TemporaryDirectory(prefix="psannlm-cell-") as folder:
        names = ("task.json", "result.jsonl", "log.txt")
        task_path, result_path, log_path = paths = [Path(folder, name) for name in names]
        task_path.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        if fork_server is not None:
            code = fork_server.run(paths, timeout_seconds, stopped)
        else:
            environment = worker_environment(cache, variables)
            code = _execute(task.worker, paths, environment, timeout_seconds, stopped)
        result_path.touch()
        found = {}
        for line in result_path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # a killed process may leave half a line
                values = json.loads(public(line))
                found[values["mode"]] = values
        failed = {"status": "failed", "reason": _reason(code, log_path, timeout_seconds)}
    return [found.get(mode, {"mode": mode} | failed) for mode in task.modes]


def _execute(
    command: Sequence[str],
    paths: Sequence[Path],
    environment: Mapping[str, str],
    timeout_seconds: float,
    stopped: Stopped,
) -> int | None:
    """Exit code of a new interpreter, negative for a signal; None if it had to be ended."""
    last = time.monotonic() + timeout_seconds
    with paths[-1].open("wb") as log:
        process = subprocess.Popen([*command, *paths[:-1]], stdout=log, stderr=log, env=environment)
        try:
            while not stopped() and (left := last - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(min(left, ASK_SECONDS))
            return None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _reason(code: int | None, log_path: Path, timeout_seconds: float) -> str:
    """Why a process that ended like this has no result."""
    if code is None:
        return f"timed out after {timeout_seconds:g} s"
    if code == -signal.SIGKILL:
        return "killed by signal SIGKILL, as the system does when memory runs out"
    if code < 0:
        return f"killed by signal {signal.Signals(-code).name}"
    return public(f"process ended without a result: {last_words(log_path) or 'it said nothing'}")


def last_words(log: Path) -> str:
    """The last line of what a process said, 300 characters at most."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return said.strip().rpartition("\n")[2].strip()[:300]


def serve(
    task_type: Callable[..., TaskT],
    measure: Callable[[TaskT, str], dict[str, Any]],
    arguments: Sequence[str],
) -> None:
    """Measure every mode of a task, whose fields are in a JSON file; see `measure_modes`.

    The arguments are the paths of the task and of the result.
    """
    task_path, result_path = map(Path, arguments)
    values = json.loads(task_path.read_text(encoding="utf-8"))
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    task = task_type(**values | lists)
    measure_modes(task.modes, lambda mode: measure(task, mode), result_path)


def refuse_what_cannot_fit(needed: int, what: str, device: torch.device) -> None:
    """Stop before the machine does: raise MemoryError if `needed` bytes are more than are free."""
    free = available_memory_bytes(device)
    if needed > free:
        raise MemoryError(
            f"needs at least {needed / 2**30:.1f} GiB ({what}), {free / 2**30:.1f} GiB are free"
        )


if __name__ == "__main__":
    module, *_ = [importlib.import_module(name) for name in sys.argv[1:]]
    gc.freeze()  # what is loaded stays: no cell need look through it
    answer_requests(module.main)
