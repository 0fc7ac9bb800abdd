"""Device and precision of a computation, whether it compiles or repeats, and its main memory."""

import contextlib
import importlib.util
import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from psannlm.config.schema import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here; ConfigError if torch finds no CUDA."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("device: cuda is asked for but torch finds none; use device: cpu or auto")
    if has_cuda and name != "cpu":
        # fp32 is float32 in convolutions too, as it is in torch's matrix products.
        torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda")
    return torch.device("cpu")


def missing_compiler(device: torch.device) -> str | None:
    """Why torch.compile cannot work for `device`, or None if it can."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in names):
        return f"no C++ compiler found (looked for {', '.join(names)})"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in `precision` on `device`; nothing to do for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Sums in a fixed order on a CPU, so that the same steps give the same digits.

    Compiled code would else add up an embedding's gradient in whatever order its threads come. A
    GPU is left alone: there the fixed order is slow, and some operations have none.
    """
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    filled = settings.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        settings.fill_uninitialized_memory = False  # a check of torch's own, at the cost of time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


def resident_bytes() -> int:
    """Resident set of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Largest resident set of this process since it started.

    Linux lets `getrusage` begin with that of the process that started this one, and so would tell
    of a notebook's kernel; the mark in /proc belongs to this process alone.
    """
    status = Path("/proc/self/status")
    told = status.read_text() if status.exists() else ""
    if mark := re.search(r"^VmHWM:\s*(\d+)", told, re.MULTILINE):
        return int(mark[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
