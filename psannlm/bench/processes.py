"""A cell in a fresh process: started, watched and read from outside, served within."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from psannlm.bench.environment import available_memory_bytes, utc_now, worker_environment
from psannlm.bench.fork_server import ASK_SECONDS, ForkServer, never
from psannlm.bench.upkeep import reason_of, release_memory, stop_when_orphaned

TaskT = TypeVar("TaskT", bound="Task")


class Task(Protocol):
    """What one process measures: a dataclass that knows its worker."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it; the paths of the task and of the result follow."""

    @property
    def modes(self) -> tuple[str, ...]:
        """What is measured, one after the other."""


def run_task(
    task: Task,
    *,
    cache: Path,
    timeout_seconds: float,
    fork_server: ForkServer | None = None,
    variables: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = never,
) -> list[dict[str, Any]]:
    """Measure `task` in a process of its own.

    Args:
        task: What is measured.
        cache: Where compiled code is kept.
        timeout_seconds: The process is stopped when it takes longer.
        fork_server: Where the process comes from; otherwise the task's worker is started anew.
        variables: Further variables of the environment of a process that is started anew; those
            of a fork server are its own.
        stopped: Asked again and again; the process is ended once it says so.

    Returns:
        One mapping a mode of the task, in its order. A mode that crashed, was killed or ran out
        of time has status "failed" and says why.
    """
    with tempfile.TemporaryDirectory(prefix="psannlm-cell-") as folder:
        task_path, result_path = Path(folder, "task.json"), Path(folder, "result.jsonl")
        log_path = Path(folder, "log.txt")
        task_path.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        if fork_server is not None:
            code = fork_server.run(task_path, result_path, log_path, timeout_seconds, stopped)
        else:
            command = [*task.worker, str(task_path), str(result_path)]
            environment = worker_environment(cache, variables)
            code = _execute(command, log_path, environment, timeout_seconds, stopped)
        found = {}
        if result_path.exists():
            for line in result_path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # a killed process may leave half a line
                    values = json.loads(line)
                    found[values["mode"]] = values
        reason = _reason(code, log_path, timeout_seconds)
    return [
        found.get(mode, {"mode": mode, "status": "failed", "reason": reason}) for mode in task.modes
    ]


def _execute(
    command: list[str],
    log_path: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    stopped: Callable[[], bool],
) -> int | None:
    """Exit code of the command, negative for a signal; None if it had to be ended."""
    last = time.monotonic() + timeout_seconds
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
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
    said = log_path.read_text(encoding="utf-8", errors="replace") if log_path.exists() else ""
    return f"process ended without a result: {_last_line(said)}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def serve(
    task_type: Callable[..., TaskT],
    measure: Callable[[TaskT, str], dict[str, Any]],
    arguments: Sequence[str],
) -> None:
    """Measure every mode of the task, a failed one too.

    A line of JSON is appended to the result as soon as a mode is done, so that what was measured
    outlives a crash of what comes next.

    Args:
        task_type: Makes the task from its fields.
        measure: Tells what a record needs to know of a mode; raises whatever goes wrong.
        arguments: Paths of the task, a JSON file, and of the result.
    """
    task_path, result_path = map(Path, arguments)
    stop_when_orphaned()
    values = json.loads(task_path.read_text(encoding="utf-8"))
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    task = task_type(**values | lists)
    with result_path.open("a", encoding="utf-8") as out:
        for mode in task.modes:
            started_at = utc_now().isoformat()
            try:
                found = {"status": "ok", "reason": ""} | measure(task, mode)
            except Exception as error:
                found = {"status": "failed", "reason": reason_of(error)}
            out.write(json.dumps({"mode": mode, "started_at": started_at} | found) + "\n")
            out.flush()
            release_memory()


def refuse_what_cannot_fit(needed: int, what: str, device: torch.device) -> None:
    """Stop before the machine does.

    Args:
        needed: Bytes that are needed at least.
        what: What they are, in words.
        device: Where they are needed.

    Raises:
        MemoryError: Fewer are free.
    """
    free = available_memory_bytes(device)
    if needed > free:
        raise MemoryError(
            f"needs at least {needed / 2**30:.1f} GiB ({what}), {free / 2**30:.1f} GiB are free"
        )
