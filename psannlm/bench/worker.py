"""How a measuring process behaves: a line a mode, failures in words, an end once it is orphaned.

Needs torch alone, so that the interpreter of another package uses this same file.
"""

import datetime
import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def measure_modes(
    modes: Iterable[str], measure: Callable[[str], dict[str, Any]], result: Path
) -> None:
    """Measure one mode after the other, whatever becomes of those before.

    A line of JSON is appended to the file `result` as soon as a mode is done, so that what was
    measured outlives a crash of what comes next: what `measure` returns, or why it raised.
    """
    stop_when_orphaned()
    with result.open("a", encoding="utf-8") as out:
        for mode in modes:
            now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
            row = {"mode": mode, "started_at": now.isoformat()}
            try:
                row |= {"status": "ok", "reason": ""} | measure(mode)
            except Exception as error:
                row |= {"status": "failed", "reason": reason_of(error)}
            out.write(json.dumps(row) + "\n")
            out.flush()
            release_memory()


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong."""
    first = (str(error).strip().splitlines() or [""])[0]
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return f"{'out of memory' if out_of_memory else type(error).__name__}: {first}"


def release_memory() -> None:
    """Free what nothing refers to, so that what comes next starts from nothing."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def stop_when_orphaned() -> None:
    """End this process once the one that started it is gone: nobody would read the result."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
