"""How a measuring process behaves: it gives memory back, puts failures in words, ends if orphaned.

Needs torch alone, so that the interpreter of another package uses this same file.
"""

import gc
import os
import threading
import time

import torch


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
