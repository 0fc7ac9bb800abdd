"""Whether code ran compiled, read back from torch's compiler.

That there is a C++ compiler says little: torch.compile may be switched off, may suppress its
errors, or give up on a function that it has compiled too often, and runs it eagerly without a word.
Needs torch alone, so that the interpreter of another package uses this same file.
"""

import importlib
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

SWITCHES = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")  # variables that switch it off
LONGEST = 200  # characters of a reason
FoundT = TypeVar("FoundT")


class Compilation(NamedTuple):
    """What the compiler made of the code that it was given."""

    frames: int = 0  # Python functions, or parts of them, that were compiled
    graph_breaks: int = 0  # places between which Python itself went on
    eager: str = ""  # why the code ran eagerly, at least a part of it; empty if none did

    @property
    def words(self) -> str:
        """In words, for people."""
        if self.eager:
            return f"eager ({self.eager})"
        return f"compiled ({self.frames} frames, {self.graph_breaks} graph breaks)"


def _dynamo() -> Any:
    """The compiler's record, loaded where it is asked for: it takes a second."""
    return importlib.import_module("torch._dynamo.utils")


def begin() -> None:
    """Forget what was compiled before, so that `read_back` tells of what comes next alone."""
    dynamo = _dynamo()
    torch.compiler.reset()
    dynamo.clear_compilation_metrics()
    dynamo.counters["graph_break"].clear()


def read_back() -> Compilation:
    """What was compiled since `begin`, by the compiler's own record."""
    tried = _dynamo().get_compilation_metrics()  # also of backward passes, which are no frames
    good = [one for one in tried if one.is_forward and one.fail_type is None and one.graph_op_count]
    breaks = sum(_dynamo().counters["graph_break"].values())
    failed = [one for one in tried if one.fail_type is not None]
    why = ""
    if failed:
        cause = _cause(failed[0].fail_reason or "")
        why = f"{failed[0].fail_type}: {cause}, in {len(failed)} of {len(tried)} attempts"
    elif not good:
        switched_off = " and ".join(name for name in SWITCHES if os.environ.get(name) == "1")
        why = f"torch.compile compiled nothing{switched_off and f', {switched_off} is 1'}"
    return Compilation(len(good), breaks, why)


def compiled_or_eager(
    run: Callable[[bool], FoundT], lacking: str | None = None
) -> tuple[FoundT, Compilation]:
    """What `run(True)` finds with compiled code, or where that cannot be, `run(False)` without.

    `lacking` is what is known to be missing for it. What fails eagerly too is raised, as is a lack
    of memory.
    """
    if lacking:
        return run(False), Compilation(eager=lacking)
    begin()
    try:
        return run(True), read_back()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        torch.compiler.reset()
        return run(False), Compilation(eager=reason_of(error))


def reason_of(error: Exception) -> str:
    """Why something does not compile, in a line without folders of the machine."""
    return f"it does not compile, {type(error).__name__}: {_cause(str(error))}"


def _cause(said: str) -> str:
    """The first line, and what a C++ compiler complained of, which comes after its command."""
    first = (said.strip().splitlines() or [""])[0]
    complaint = re.search(r"\b(?:fatal )?error: .+", said)
    whole = f"{first}: {complaint[0]}" if complaint and complaint[0] not in first else first
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)+", "", whole)[:LONGEST]
