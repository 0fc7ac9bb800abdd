"""Machine, software and settings: all that a reader needs to judge or repeat a number.

Facts that a machine does not tell are None, never a guess. Names of people and hosts are left out.
"""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from psannlm import ROOT
from psannlm.bench import machine

PACKAGES = (
    "torch", "triton", "numpy", "pandas", "scipy", "matplotlib", "papermill", "nbclient",
    "ipykernel", "jupyter-book", "pydantic",
)  # fmt: skip

COMPUTING = ("torch", "triton", "pytorch-", "nvidia-", "numpy", "mkl", "intel-", "onednn", "tbb")
"""How the names of packages open that compute."""

PREFIXES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "PYTORCH_",
    "TRITON_", "CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_", "LD_PRELOAD", "GLIBC_TUNABLES",
    "MALLOC_",
)  # fmt: skip
"""How the names of variables open that change speed."""

HARMLESS = re.compile(
    r"^NVIDIA_(?!TF32)|VISIBLE_DEVICES|_(NUM_THREADS|DEVICE_ORDER|ARCH_LIST|HOME|PATH|DIR|DEBUG|LOGS?|VERSION)$"
)
"""Variables that change no speed, or whose effect is known otherwise: as threads, or as a GPU."""

PRIVATE = re.compile(r"KEY|TOKEN|SECRET|PASS|CRED|AUTH|USER|HOST|ADDR|COMM_ID|PROXY", re.IGNORECASE)
# Words of up to 40 characters, as a GPU's UUID has; no path, and no address of a network.
PLAIN = re.compile(r"(?!.*\d+\.\d+\.\d+\.\d+)(?!.*[\w-]{41})[\w.,:;=+%*(){}\[\] -]{0,400}")
WITHHELD = "set, not published"


def utc_now() -> datetime.datetime:
    """The time, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Machine, software and settings, ready for JSON."""
    installed = distributions()
    build = str(torch.__version__)  # with +cpu or +cu130, which its distribution may leave out
    return {
        "device": device_name(device),
        "device_type": device.type,
        "cpu": machine.describe_cpu(),
        "gpu": machine.describe_gpu() if device.type == "cuda" else None,
        "software": {
            "os": platform.system() + " " + platform.release(),
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "compiler": _compiler(),
            "packages": {name: installed.get(name) for name in PACKAGES} | {"torch": build},
            "distributions": installed,
        },
        "settings": {
            "threads": torch.get_num_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "variables": {
                name: published_value(name, os.environ[name])
                for name in sorted(os.environ)
                if name.startswith(PREFIXES)
            },
            "prefixes": list(PREFIXES),
        },
    }


def _compiler() -> str | None:
    """The C++ compiler by the first line that it says of itself."""
    try:
        command = ("c++", "--version")
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def device_name(device: torch.device) -> str:
    """What the measured device is called: the GPU's name, or the CPU's and its usable cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = machine.describe_cpu()
    cores = cpu["usable_cores"]
    return f"{cpu['name']}, {round(cores, 2):g} core{'' if cores == 1 else 's'}"


def use_usable_cores() -> None:
    """Compute with no more threads than there are usable cores; OMP_NUM_THREADS overrules that."""
    usable = machine.usable_threads()
    if "OMP_NUM_THREADS" not in os.environ and usable < torch.get_num_threads():
        torch.set_num_threads(usable)


def published_value(name: str, value: str) -> str:
    """What a manifest says of a variable: numbers and words, but no path, secret or address.

    Of a library that is loaded first its file name says which it is.
    """
    if name == "LD_PRELOAD":
        return ":".join(PurePosixPath(path).name for path in re.split("[: ]+", value) if path)
    return value if PLAIN.fullmatch(value) and not PRIVATE.search(name) else WITHHELD


def distributions() -> dict[str, str]:
    """Version of everything that is installed, by its name; of two of one name the one in use."""
    found = [(one.metadata["Name"], one.version) for one in importlib.metadata.distributions()]
    named = {name.lower().replace("_", "-"): version for name, version in reversed(found) if name}
    return dict(sorted(named.items()))


def decides_speed(package: str) -> bool:
    """Whether a package is torch or computes for it, so that its version may change speed."""
    return package.startswith(COMPUTING)


def available_memory_bytes(device: torch.device) -> int:
    """Memory that a process could still get on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return machine.available_main_memory_bytes()


def worker_environment(cache: Path, variables: Mapping[str, str] | None) -> Mapping[str, str]:
    """Environment of a measuring process, with `variables` of its own.

    Its compile cache is the run's, so that the first compilation is seen cold. The C library keeps
    freed memory: else each step would return its large buffers and pay for their pages again. It
    has as many threads as this process, or as OMP_NUM_THREADS says, but no more than usable cores.
    """
    n_threads = min(torch.get_num_threads(), machine.usable_threads())
    return (
        {"OMP_NUM_THREADS": str(n_threads)}
        | os.environ
        | {
            "TORCHINDUCTOR_CACHE_DIR": str(cache),
            "MALLOC_MMAP_THRESHOLD_": str(2**30),
            "MALLOC_TRIM_THRESHOLD_": str(2**32),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONWARNINGS": "ignore",
            **(variables or {}),
        }
    )
