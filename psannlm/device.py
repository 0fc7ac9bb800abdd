"""Device and precision of a computation, whether it compiles or repeats, and its main memory."""

import contextlib
import importlib.util
import os
import platform
import re
import resource
import shutil
from collections.abc import Callable, Iterator
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
    """Why torch cannot compute on a GPU that is here, and the way out; None if it can, or none is.

    Both sides are named: the driver, as NVML tells it, and torch, by what it was built for.
    """
    if torch.cuda.is_available():
        return _foreign_gpu()
    said, version = _nvidia_driver()
    if not said:
        return None
    built, hidden = torch.version.cuda, os.environ.get("CUDA_VISIBLE_DEVICES")
    said += f", torch {torch.__version__} is built for {f'CUDA {built}' if built else 'no CUDA'}"
    wheel = "cu130" if version >= 13000 else "cu126" if version >= 12000 else ""
    fitting = f"run `make setup TORCH={wheel}`" if wheel else "install a newer driver"
    if built is None:
        return f"{said}; {fitting}"
    if 0 < version < 1000 * int(built.partition(".")[0]):
        return f"{said}; {fitting}{' or install a newer driver' if wheel else ''}"
    if hidden is not None:
        shown = f"CUDA_VISIBLE_DEVICES={hidden!r} shows it none"
        return f"{said}, and {shown}; unset it, or name a GPU that is there"
    try:
        initialise: Any = torch.cuda.init
        initialise()
    except Exception as error:
        said += f", and says: {str(error).splitlines()[0]}"
    return (
        f"{said}; restart the machine if the driver was updated, give a container "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    )


def _nvidia_driver() -> tuple[str, int]:
    """GPUs and driver in words, and the newest CUDA it runs: 12020 is 12.2, 0 is unknown.

    No words without a GPU: where NVML is not installed, its driver not loaded, or no GPU is shown.
    """
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except Exception as error:
        absent = ("ModuleNotFoundError", "NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
        return "" if type(error).__name__ in absent else f"the NVIDIA driver says: {error}", 0

    def told(question: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return question()
        except Exception:  # each answer by itself: a call that is not supported loses no other
            return otherwise

    n = told(nvml.nvmlDeviceGetCount, 0)
    name = told(lambda: nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)), "a GPU")
    driver = told(nvml.nvmlSystemGetDriverVersion, "of unknown version")
    version = told(nvml.nvmlSystemGetCudaDriverVersion, 0)
    cuda = f" for CUDA {version // 1000}.{version % 1000 // 10}" if version else ""
    return (
        f"the driver {driver}{cuda} shows {f'{n} x ' if n > 1 else ''}{name}" if n else "",
        version,
    )


def _foreign_gpu() -> str | None:
    """Why torch's code does not run on the GPU that it sees; None if it does."""
    if torch.version.cuda is None:  # of another maker
        return None
    major, minor = torch.cuda.get_device_capability()
    flags = torch.cuda.get_arch_list()
    found = [(kind, int(n)) for kind, n in re.findall(r"(sm|compute)_(\d+)", " ".join(flags))]
    if not found or any(
        n // 10 == major and n % 10 <= minor if kind == "sm" else n <= 10 * major + minor
        for kind, n in found
    ):
        return None
    return (
        f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, torch "
        f"{torch.__version__} is built for {', '.join(flags)}; install a build of torch for it"
    )


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
