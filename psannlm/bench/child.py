"""Inside a measuring process: its task read, each mode measured, each failure given its reason."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from psannlm.bench.environment import available_memory_bytes, utc_now
from psannlm.bench.processes import Task
from psannlm.bench.upkeep import reason_of, release_memory, stop_when_orphaned

TaskT = TypeVar("TaskT", bound=Task)


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
