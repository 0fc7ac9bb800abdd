"""What a measuring process says of a failure, and what it leaves behind for the next work.

Needs torch alone, so that the interpreter of another package uses this same file.
"""

import gc

import torch


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong."""
    first = (str(error).strip().splitlines() or [""])[0]
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return f"{'out of memory' if out_of_memory else type(error).__name__}: {first}"


def give_back() -> None:
    """Free what nothing refers to, so that what comes next starts from nothing."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
