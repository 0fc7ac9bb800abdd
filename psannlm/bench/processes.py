"""A cell in a fresh process: started, watched, stopped, and read whatever became of it."""

import dataclasses
import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Protocol

from psannlm.bench.environment import worker_environment


class Task(Protocol):
    """What one process measures: a dataclass that knows its worker."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it; the paths of the task and of the result follow."""

    @property
    def modes(self) -> tuple[str, ...]:
        """What is measured, one after the other."""


def run_task(task: Task, *, cache: Path, timeout_seconds: float) -> list[dict[str, Any]]:
    """Measure `task` in a process of its own.

    Returns:
        One mapping a mode of the task, in its order. A mode that crashed, was killed or ran out
        of time has status "failed" and says why.
    """
    with tempfile.TemporaryDirectory(prefix="psannlm-cell-") as folder:
        task_path, result_path = Path(folder, "task.json"), Path(folder, "result.jsonl")
        log_path = Path(folder, "log.txt")
        task_path.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*task.worker, str(task_path), str(result_path)],
                stdout=log,
                stderr=log,
                env=worker_environment(cache),
            )
            ending = _wait(process, timeout_seconds)
        found = {}
        if result_path.exists():
            for line in result_path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # a killed process may leave half a line
                    values = json.loads(line)
                    found[values["mode"]] = values
        last_words = _last_line(log_path.read_text(encoding="utf-8", errors="replace"))
    reason = ending or f"process ended without a result: {last_words}"
    return [
        found.get(mode, {"mode": mode, "status": "failed", "reason": reason}) for mode in task.modes
    ]


def _wait(process: "subprocess.Popen[bytes]", timeout_seconds: float) -> str:
    """Wait for the end; returns what was wrong with it, or nothing."""
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return f"timed out after {timeout_seconds:g} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code == -signal.SIGKILL:
        return "killed by signal SIGKILL, as the system does when memory runs out"
    if code < 0:
        return f"killed by signal {signal.Signals(-code).name}"
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
