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
    """The device that `auto`, `cpu` or `cuda` means here; the CPU only where no GPU is.

    ConfigError if torch finds no CUDA that is asked for, or cannot compute on a GPU that is here.
    """
    if name == "cpu":
        return torch.device("cpu")
    if reason := unusable_gpu():
        problem = f"device: {name} means the GPU that is here, which torch cannot use: {reason}"
        raise ConfigError(f"{problem}; or ask for device: cpu")
    if torch.cuda.is_available():
        # fp32 is float32 in convolutions too, as it is in torch's matrix products.
        torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda")
    if name == "cuda":
        raise ConfigError("device: cuda is asked for but torch finds none; use device: cpu or auto")
    return torch.device("cpu")


def unusable_gpu() -> str | None:
    """Why torch does not see a GPU that the driver shows, and the way out; None where none is.

    Both sides are named: the driver, as NVML tells it, and torch, by what it was built for.
    """
    shown, newest = ("", 0) if torch.cuda.is_available() else _nvidia_driver()
    if not shown:
        return None
    built, visible = torch.version.cuda, os.environ.get("CUDA_VISIBLE_DEVICES")
    if built is None or 0 < newest < 1000 * int(built.partition(".")[0]):
        wheel = "cu130" if newest >= 13000 else "cu126" if newest >= 12000 else ""
        way_out = f"run `make setup TORCH={wheel}`" if wheel else "install a newer driver"
    elif visible is not None:
        way_out = f"CUDA_VISIBLE_DEVICES={visible!r} hides it: unset it, or name one that is there"
    else:
        way_out = "restart the machine if the driver was updated, give a container "
        way_out += "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    kind = f"CUDA {built}" if built else "no CUDA"
    return f"{shown}, torch {torch.__version__} is built for {kind}; {way_out}"


def _nvidia_driver() -> tuple[str, int]:
    """GPUs and driver in words, and the newest CUDA it runs: 12020 is 12.2, 0 is unknown.

    No words without a GPU: where NVML is not installed, its driver not loaded, or no GPU is shown.
    """
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        if not (n_gpus := nvml.nvmlDeviceGetCount()):
            return "", 0
        name = nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0))
        newest = nvml.nvmlSystemGetCudaDriverVersion()
        driver = nvml.nvmlSystemGetDriverVersion()
    except Exception as error:
        absent = ("ModuleNotFoundError", "NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
        return "" if type(error).__name__ in absent else f"the NVIDIA driver says: {error}", 0
    cuda = f"CUDA {newest // 1000}.{newest % 1000 // 10}"
    return f"the driver {driver} for {cuda} shows {n_gpus} x {name}", newest


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
