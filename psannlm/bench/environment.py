"""The machine and the moment: all that a reader needs to judge or repeat a number.

Facts that a machine does not tell are None, never a guess. Names of people and hosts are left out.
"""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from psannlm import ROOT
from psannlm.files import MIB

PACKAGES = (
    "torch", "triton", "numpy", "pandas", "scipy", "matplotlib", "papermill", "nbclient",
    "ipykernel", "jupyter-book", "pydantic",
)  # fmt: skip


def utc_now() -> datetime.datetime:
    """The time, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Machine, software and conditions, ready for JSON."""
    return {
        "device": device_name(device),
        "device_type": device.type,
        "cpu": describe_cpu(),
        "gpu": describe_gpu() if device.type == "cuda" else None,
        "software": {
            "os": platform.system() + " " + platform.release(),
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "compiler": (_output("c++", "--version") or "").partition("\n")[0].strip() or None,
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
    """What the measured device is called: the GPU's name, or the CPU's and its cores."""
    cpu = describe_cpu()
    here = f"{cpu['name']}, {cpu['cores']} cores"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else here


def describe_cpu() -> dict[str, Any]:
    """Model, cores, vector instructions and memory of the host."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    parts = (line.partition(":") for line in reversed(lines))  # the first processor counts
    facts = {key.strip(): value.strip() for key, _, value in parts}
    flags = facts.get("flags", "").split()
    telling = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")
    return {
        "name": facts.get("model name") or platform.processor() or platform.machine(),
        "family": facts.get("cpu family"),
        "model": facts.get("model"),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "logical_cores": psutil.cpu_count(),
        "instructions": [flag for flag in telling if flag in flags],
        "memory_mib": round(psutil.virtual_memory().total / MIB),
        "virtual": "hypervisor" in flags,
    }


def describe_gpu() -> dict[str, Any]:
    """Name, UUID, driver, memory and limits of the first visible GPU, as its driver tells them."""
    properties = torch.cuda.get_device_properties(0)
    told = _told_by_driver(
        lambda nvml, gpu: {
            "name": nvml.nvmlDeviceGetName(gpu),
            "uuid": nvml.nvmlDeviceGetUUID(gpu),
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "memory_mib": round(nvml.nvmlDeviceGetMemoryInfo(gpu).total / MIB),
            "power_limit_w": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
            "max_sm_clock_mhz": nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "count": torch.cuda.device_count(),
        }
    )
    return {"name": properties.name, "memory_mib": round(properties.total_memory / MIB)} | told


def conditions(device: torch.device) -> dict[str, Any]:
    """What may disturb a measurement at this moment: load, clocks, power, throttling."""
    load = {"load_1min": round(os.getloadavg()[0], 2)}
    if device.type != "cuda":
        return load
    return load | _told_by_driver(
        lambda nvml, gpu: {
            "sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "temperature_c": nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            "power_w": nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "throttle_reasons": hex(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
            "other_processes": len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
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
    return int(psutil.virtual_memory().available)


def worker_environment(cache: Path, variables: Mapping[str, str] | None) -> Mapping[str, str]:
    """Environment of a measuring process, with `variables` of its own.

    Its compile cache is the run's, so that the first compilation is seen cold. The C library keeps
    freed memory: else each step would return its large buffers and pay for their pages again.
    """
    return os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONWARNINGS": "ignore",
        **(variables or {}),
    }


def _told_by_driver(facts: Callable[[Any, Any], dict[str, Any]]) -> dict[str, Any]:
    """What `facts` reads from NVML about torch's first device; without NVML, why it is unknown."""
    try:
        import pynvml

        pynvml.nvmlInit()
        # Found by UUID, as CUDA_VISIBLE_DEVICES may reorder.
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        return facts(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
    except Exception as error:  # a driver without NVML still computes
        return {"unknown": f"{type(error).__name__}: {error}"}


def _output(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
