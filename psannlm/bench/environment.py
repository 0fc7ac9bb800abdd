"""The machine and the moment: all that a reader needs to judge or repeat a number.

Facts that a machine does not tell are None, never a guess. Names of people and hosts are left out.
"""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from psannlm import ROOT
from psannlm.bench import machine

PACKAGES = (
    "torch", "triton", "numpy", "pandas", "scipy", "matplotlib", "papermill", "nbclient",
    "ipykernel", "jupyter-book", "pydantic",
)  # fmt: skip


def utc_now() -> datetime.datetime:
    """The time, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Machine, software and settings, ready for JSON."""
    compiler = machine.output_of("c++", "--version") or ""
    return {
        "device": device_name(device),
        "device_type": device.type,
        "cpu": machine.describe_cpu(),
        "gpu": machine.describe_gpu() if device.type == "cuda" else None,
        "software": {
            "os": platform.system() + " " + platform.release(),
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "compiler": compiler.partition("\n")[0].strip() or None,
            "packages": {name: version_of(name) for name in PACKAGES},
        },
        "settings": {
            "threads": torch.get_num_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "variables": {
                name: os.environ[name]
                for name in sorted(os.environ)
                if name.startswith(("OMP_", "MKL_", "KMP_", "CUDA_VISIBLE", "PYTORCH_"))
            },
        },
    }


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


def conditions(device: torch.device) -> dict[str, Any]:
    """What may disturb a measurement at this moment: load, clocks, power, throttling."""
    load = {"load_1min": round(os.getloadavg()[0], 2)}
    if device.type != "cuda":
        return load
    return load | machine.told_by_driver(
        {
            "sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(
                gpu, nvml.NVML_TEMPERATURE_GPU
            ),
            "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "throttle_reasons": lambda nvml, gpu: hex(
                nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
            ),
            "other_processes": lambda nvml, gpu: len(
                nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
            ),
        }
    )


def version_of(package: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
