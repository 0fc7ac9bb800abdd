"""A machine: its processor, its GPU, and how much of their cores and memory this process may use.

Facts are read from files below a root, which tests replace. What is not told is None.
"""

import contextlib
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import torch

from psannlm.files import MIB

ROOT = Path("/")
TELLING = (
    "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16",
    "asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
"""Instruction sets that decide how fast matrices are multiplied, as Linux calls them."""

# ARM processors have numbers for names.
IMPLEMENTERS = {
    "0x41": "ARM", "0x43": "Cavium", "0x46": "Fujitsu", "0x48": "HiSilicon", "0x4e": "NVIDIA",
    "0x50": "APM", "0x51": "Qualcomm", "0x61": "Apple", "0xc0": "Ampere",
}  # fmt: skip
PARTS = {
    "ARM": {
        "0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2",
        "0xd4f": "Neoverse-V2", "0xd83": "Neoverse-V3", "0xd8e": "Neoverse-N3",
    },
    "Apple": {"0x022": "M1", "0x023": "M1", "0x032": "M2", "0x033": "M2"},
    "Ampere": {"0xac3": "Ampere-1", "0xac4": "Ampere-1A"},
}  # fmt: skip


def describe_cpu(root: Path = ROOT) -> dict[str, Any]:
    """Vendor, model, vector instructions, and cores and memory of the host and of this process."""
    facts = _cpuinfo(root)
    vendor = facts.get("vendor_id") or IMPLEMENTERS.get(facts.get("CPU implementer", ""))
    flags = facts.get("flags", facts.get("Features", "")).split()
    step = "{CPU variant}.{CPU revision}".format_map(facts) if "CPU variant" in facts else None
    return {
        "name": facts.get("model name") or _arm_name(facts) or platform.machine(),
        "vendor": vendor or facts.get("CPU implementer"),
        "family": facts.get("cpu family") or facts.get("CPU architecture"),
        "model": facts.get("model") or facts.get("CPU part"),
        "stepping": facts.get("stepping") or step,
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(root),
        "instructions": [flag for flag in TELLING if flag in flags] if flags else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_mib": round(_memory("MemTotal", root) / MIB),
        "memory_limit_mib": round(memory_limit_bytes(root) / MIB),
        "virtual": "hypervisor" in flags if "flags" in facts else None,
    }


def _cpuinfo(root: Path) -> dict[str, str]:
    """What the system says of its first processor."""
    if platform.system() == "Darwin" and root == ROOT:
        return {"model name": output_of("sysctl", "-n", "machdep.cpu.brand_string") or ""}
    lines = (read(root / "proc/cpuinfo") or "").splitlines()
    parts = (line.partition(":") for line in reversed(lines))  # the first processor counts
    return {key.strip(): value.strip() for key, _, value in parts}


def _arm_name(facts: Mapping[str, str]) -> str | None:
    number, part = facts.get("CPU implementer", ""), facts.get("CPU part", "")
    vendor = IMPLEMENTERS.get(number, number)
    return f"{vendor} {PARTS.get(vendor, {}).get(part, part)}".strip() or None


def usable_cores(root: Path = ROOT) -> float:
    """Cores that this process may use: those of its affinity, or less by a quota, such as 1.5.

    Two threads of one core count once.
    """
    place = "topology/thread_siblings_list"
    cores = {read(folder / place) or folder.name for folder in usable_processors(root)}
    n_cores = len(cores) or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return min([float(n_cores), *_quotas(root)])


def usable_processors(root: Path = ROOT) -> list[Path]:
    """Folders of the processors that this process may run on; none where no system tells."""
    allowed = line_of(root / "proc/self/status", r"Cpus_allowed_list:(.*)")
    if allowed is None:
        return []
    cpus = root / "sys/devices/system/cpu"
    online = _listed(read(cpus / "online") or allowed)
    return [cpus / f"cpu{n}" for n in sorted(_listed(allowed) & online)]


def usable_threads(root: Path = ROOT) -> int:
    """Threads that keep the usable cores busy: of 1.5 cores one, as two would wait for the quota.

    More threads than a quota serves stop together, at its end, while each waits for the others.
    """
    return max(1, int(usable_cores(root)))


def memory_limit_bytes(root: Path = ROOT) -> int:
    """Memory that this process may use: that of the host, or the least limit of its groups."""
    return min([_memory("MemTotal", root), *(limit for limit, _ in _memory_limits(root))])


def available_main_memory_bytes(root: Path = ROOT) -> int:
    """Main memory that this process could still get, from the host and below every limit."""
    left = (max(0, limit - used) for limit, used in _memory_limits(root))
    return min([_memory("MemAvailable", root), *left])


def _memory(name: str, root: Path) -> int:
    if told := line_of(root / "proc/meminfo", rf"{name}:\s*(\d+) kB"):
        return int(told) * 1024
    memory = psutil.virtual_memory()
    return int(memory.total if name == "MemTotal" else memory.available)


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit of each control group that has one, and what it uses of that and cannot give back.

    And the limit of this process's own addresses, as `ulimit -v` sets it.
    """
    own = line_of(root / "proc/self/limits", r"Max address space +(\d+)")
    size = line_of(root / "proc/self/status", r"VmSize:\s*(\d+) kB")
    if own and size:
        yield int(own), int(size) * 1024
    for folder in control_groups("memory.max", root):
        limit = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes") or ""
        used = read(folder / "memory.current") or read(folder / "memory.usage_in_bytes") or "0"
        cached = line_of(folder / "memory.stat", r"total_inactive_file (\d+)")
        cached = cached or line_of(folder / "memory.stat", r"inactive_file (\d+)") or "0"
        if limit.isdecimal() and used.isdecimal():
            yield int(limit), int(used) - int(cached)


def _quotas(root: Path) -> Iterator[float]:
    """Processors whose time the control groups of this process may take, a number a quota."""
    for folder in control_groups("cpu.max", root):
        old = (read(folder / f"cpu.cfs_{what}_us") or "" for what in ("quota", "period"))
        quota, _, period = (read(folder / "cpu.max") or " ".join(old)).partition(" ")
        if quota.isdecimal() and period.isdecimal():  # and not `max`, or -1
            yield int(quota) / int(period)


def control_groups(limit: str, root: Path = ROOT) -> Iterator[Path]:
    """Folders of the control groups, of version 1 or 2, that this process is in, innermost first.

    A limit, such as cpu.max, holds for all that lies below it. A container may see nothing but its
    own group, and that as if it were the outermost one.
    """
    controller = limit.partition(".")[0]
    groups = [line.split(":", 2) for line in (read(root / "proc/self/cgroup") or "").splitlines()]
    by_version = {bool(of): path for _, of, path in groups if controller in of.split(",") or not of}
    is_old = True in by_version
    for line in (read(root / "proc/self/mountinfo") or "").splitlines():
        place, _, kind = line.partition(" - ")
        system, _, options = kind.split(" ", 2)
        old = system == "cgroup" and controller in options.split(",")
        if not (old if is_old else system == "cgroup2" and False in by_version):
            continue
        top, mount = place.split(" ")[3:5]
        folder = PurePosixPath(by_version[is_old])
        below = folder.relative_to(top) if folder.is_relative_to(top) else PurePosixPath()
        parts = () if ".." in below.parts else below.parts
        outermost = root / mount.lstrip("/")
        yield from (outermost.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))
        return


def describe_gpu() -> dict[str, Any]:
    """Name, UUID, driver, memory, slice and limits of torch's first GPU, each fact by itself."""
    properties = torch.cuda.get_device_properties(0)
    told = told_by_driver(
        {
            "name": lambda n, g: n.nvmlDeviceGetName(g),
            "uuid": lambda n, g: n.nvmlDeviceGetUUID(g),
            "driver": lambda n, g: n.nvmlSystemGetDriverVersion(),
            "memory_mib": lambda n, g: round(n.nvmlDeviceGetMemoryInfo(g).total / MIB),
            "power_limit_w": lambda n, g: n.nvmlDeviceGetEnforcedPowerLimit(g) / 1000,
            "max_sm_clock_mhz": lambda n, g: n.nvmlDeviceGetMaxClockInfo(g, n.NVML_CLOCK_SM),
        }
    )
    slices = (re.search(r"\bMIG (\S+)", name) for name in (told["name"] or "", properties.name))
    return {
        **told,
        "name": told["name"] or properties.name,
        "memory_mib": told["memory_mib"] or round(properties.total_memory / MIB),
        "multiprocessors": properties.multi_processor_count,
        "mig": next((found[1] for found in slices if found), "none"),
        "count": torch.cuda.device_count(),
    }


def told_by_driver(facts: Mapping[str, Callable[[Any, Any], Any]]) -> dict[str, Any]:
    """What NVML says of torch's first device; None for each call that it does not support.

    Where nothing can be asked, `unknown` says why.
    """
    found: dict[str, Any] = dict.fromkeys(facts)
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = _handle(pynvml)
    except Exception as error:  # a driver without NVML still computes
        return found | {"unknown": f"{type(error).__name__}: {error}"}
    for name, fact in facts.items():
        with contextlib.suppress(Exception):
            found[name] = fact(pynvml, gpu)
    return found


def _handle(nvml: Any) -> Any:
    """Of torch's first device, by its UUID, as CUDA_VISIBLE_DEVICES may reorder; of a slice too."""
    uuid = torch.cuda.get_device_properties(0).uuid
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}".encode())


def _listed(text: str) -> set[int]:
    """The numbers of a list such as 0-3,8."""
    parts = (part.partition("-") for part in text.strip().split(",") if part.strip())
    return {n for low, _, high in parts for n in range(int(low), int(high or low) + 1)}


def read(path: Path) -> str | None:
    """Text of a file that a system may lack, or refuse to open."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def line_of(path: Path, pattern: str) -> str | None:
    """The group of a pattern where a line of a file opens with it; None where none does."""
    found = re.search(f"^{pattern}", read(path) or "", re.MULTILINE)
    return found[1] if found else None


def output_of(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
