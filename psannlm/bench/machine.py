"""A machine: its processor and GPU, what this process may use of it, and when two are the same.

A fact that a system does not tell is None.
"""

import contextlib
import math
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import torch

from psannlm.files import MIB

ROOT = Path("/")  # tests have machines elsewhere
PROCESSORS = "sys/devices/system/cpu"
INSTRUCTIONS = (
    "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16",
    "asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
"""Instruction sets that decide how fast matrices are multiplied, as Linux calls them."""

ARM_NAMES = {
    "0x41 0xd0c": "ARM Neoverse-N1", "0x41 0xd40": "ARM Neoverse-V1",
    "0x41 0xd4f": "ARM Neoverse-V2", "0x61 0x022": "Apple M1",
}  # fmt: skip
"""Of ARM processors, which have two numbers for a name: of the maker and of the part."""

WITHIN = {"memory_mib": 0.03, "gpu_memory_mib": 0.03, "power_limit_w": 0.01}
"""Share by which numbers of one machine differ: a kernel or driver keeps more memory or less."""

WORDS = {
    "capability": "computing with {}", "family": "family {}", "model": "model {}",
    "stepping": "stepping {}", "cores": "{:g} usable cores", "memory_mib": "{:,.0f} MiB",
    "mig": "slice {}", "power_limit_w": "{:g} W", "gpu_memory_mib": "{:,.0f} MiB of GPU memory",
    "gpus": "{} GPUs", "virtual": "virtual: {}",
}  # fmt: skip
"""How a fact tells a machine from an older one of its name; others by their value alone."""

Identity = Mapping[str, Any]
"""What a machine must share with another to be the same; None is what a manifest lacks."""


def describe_cpu() -> dict[str, Any]:
    """Vendor, model, vector instructions, and cores and memory of the host and of this process."""
    lines = (line.partition(":") for line in reversed((read("proc/cpuinfo") or "").splitlines()))
    facts = {name.strip(): value.strip() for name, _, value in lines}  # of the first processor
    part = f"{facts.get('CPU implementer', '')} {facts.get('CPU part', '')}".strip()
    flags = facts.get("flags", facts.get("Features", "")).split()
    revision = "{CPU variant}.{CPU revision}".format_map(facts) if "CPU variant" in facts else None
    return {
        "name": facts.get("model name") or ARM_NAMES.get(part, part) or platform.machine(),
        "vendor": facts.get("vendor_id", facts.get("CPU implementer")),
        "family": facts.get("cpu family", facts.get("CPU architecture")),
        "model": facts.get("model", facts.get("CPU part")),
        "stepping": facts.get("stepping", revision),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags] if flags else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_mib": round(psutil.virtual_memory().total / MIB),
        "memory_limit_mib": round(memory_limit_bytes() / MIB),
        "virtual": "hypervisor" in flags if "flags" in facts else None,
    }


def usable_cores() -> float:
    """Cores that this process may use: those of its affinity, or less by a quota, such as 1.5.

    Two threads of one core count once.
    """
    siblings = f"{PROCESSORS}/cpu{{}}/topology/thread_siblings_list"
    cores = {read(siblings.format(n)) or n for n in os.sched_getaffinity(0)}
    return min([float(len(cores)), *_quotas()])


def usable_threads() -> int:
    """Threads that keep the usable cores busy: of 1.5 cores one, as two would wait for the quota.

    More threads than a quota serves stop together, at its end, while each waits for the others.
    """
    return max(1, int(usable_cores()))


def memory_limit_bytes() -> int:
    """Memory that this process may use: that of the host, or the least limit of its groups."""
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _memory_limits())])


def available_main_memory_bytes() -> int:
    """Main memory that this process could still get, from the host and below every limit."""
    left = (max(0, limit - used) for limit, used in _memory_limits())
    return min([int(psutil.virtual_memory().available), *left])


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Limit of each control group that has one, and what it uses of that and cannot give back."""
    for group in control_groups("memory.max"):
        limit = read(group / "memory.max") or read(group / "memory.limit_in_bytes") or ""
        used = read(group / "memory.current") or read(group / "memory.usage_in_bytes") or "0"
        # Version 1 counts those of the group alone, and in another line of all below it.
        caches = re.findall(r"inactive_file (\d+)", read(group / "memory.stat") or "")
        if limit.isdecimal():
            yield int(limit), int(used) - max(map(int, caches), default=0)


def _quotas() -> Iterator[float]:
    """Processors whose time the control groups of this process may take, a number a quota."""
    for group in control_groups("cpu.max"):
        old = (read(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        quota, _, period = (read(group / "cpu.max") or " ".join(old)).partition(" ")
        if quota.isdecimal():  # and not `max`, or -1
            yield int(quota) / int(period)


def control_groups(limit: str) -> Iterator[Path]:
    """Folders of the control groups, of version 1 or 2, that this process is in, innermost first.

    A limit, such as cpu.max, holds for all that lies below it. A container may see nothing but its
    own group, and that as if it were the outermost one.
    """
    controller, _, _ = limit.partition(".")
    for line in (read("proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            outermost = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
            below = PurePosixPath(group.lstrip("/"))
            yield from (outermost / folder for folder in (below, *below.parents))


def describe_gpu() -> dict[str, Any]:
    """Name, UUID, driver, memory, slice and limits of torch's first GPU, each fact by itself."""
    properties = torch.cuda.get_device_properties(0)
    found = ask_driver(
        {
            "uuid": lambda n, g: n.nvmlDeviceGetUUID(g),
            "driver": lambda n, g: n.nvmlSystemGetDriverVersion(),
            "memory_mib": lambda n, g: round(n.nvmlDeviceGetMemoryInfo(g).total / MIB),
            "power_limit_w": lambda n, g: n.nvmlDeviceGetEnforcedPowerLimit(g) / 1000,
            "max_sm_clock_mhz": lambda n, g: n.nvmlDeviceGetMaxClockInfo(g, n.NVML_CLOCK_SM),
        }
    )
    part = re.search(r"\bMIG (\S+)", properties.name)
    return {
        **found,
        "name": properties.name,
        "memory_mib": found["memory_mib"] or round(properties.total_memory / MIB),
        "mig": part[1] if part else "none",
        "count": torch.cuda.device_count(),
    }


def ask_driver(questions: Mapping[str, Callable[[Any, Any], Any]]) -> dict[str, Any]:
    """What NVML says of torch's first device; None for each call that it does not support.

    Where nothing can be asked, `unknown` says why. A question gets NVML and the device.
    """
    answers: dict[str, Any] = dict.fromkeys(questions)
    try:
        import pynvml

        pynvml.nvmlInit()
        # By UUID, as CUDA_VISIBLE_DEVICES may reorder; a slice has one of its own.
        uuid = torch.cuda.get_device_properties(0).uuid
        try:
            gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        except pynvml.NVMLError:
            gpu = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}".encode())
    except Exception as error:  # a driver without NVML still computes
        return answers | {"unknown": f"{type(error).__name__}: {error}"}
    for name, question in questions.items():
        with contextlib.suppress(Exception):
            answers[name] = question(pynvml, gpu)
    return answers


def identity(environment: Mapping[str, Any]) -> Identity:
    """The machine of a run, by the `environment` of its manifest; what tells most comes first.

    Manifests without usable cores are of runs that had every core and all memory, as far as is
    known; and torch uses the best instructions that there are unless it is told not to.
    """
    cpu, gpu = environment.get("cpu") or {}, environment.get("gpu") or {}
    instructions = cpu.get("instructions") or ()
    best = "AVX512" if "avx512f" in instructions else "AVX2" if "avx2" in instructions else None
    return {
        "device": environment.get("device"),
        "instructions": " ".join(instructions) or None,
        "capability": cpu.get("capability", best),
        **{name: cpu.get(name) for name in ("family", "model", "stepping")},
        "cores": cpu.get("usable_cores", cpu.get("cores")),
        "memory_mib": cpu.get("memory_limit_mib", cpu.get("memory_mib")),
        **{name: gpu.get(name) for name in ("mig", "power_limit_w")},
        "gpu_memory_mib": gpu.get("memory_mib"),
        "gpus": gpu.get("count"),
        "processor": cpu.get("name"),
        **{name: cpu.get(name) for name in ("vendor", "virtual")},
    }


def differing_facts(one: Identity, other: Identity) -> list[str]:
    """Names of the facts that are known of both and are not the same: none of one machine."""
    known = [name for name in one if None not in (one[name], other[name])]
    return [
        name
        for name in known
        if one[name] != other[name]
        and not (name in WITHIN and math.isclose(one[name], other[name], rel_tol=WITHIN[name]))
    ]


def labels(identities: Sequence[Identity]) -> list[str]:
    """What people call each machine; runs of one machine get one label. The oldest comes first.

    The first of a name has the plain one, whatever comes after it. A manifest that lacks facts is
    of the oldest machine that it may be of.
    """
    machines: dict[str, Identity] = {}
    found = []
    for one in identities:
        same = (label for label, known in machines.items() if not differing_facts(one, known))
        label = next(same, None) or _new_label(one, machines)
        known = machines.get(label, one)
        machines[label] = {name: one[name] if known[name] is None else known[name] for name in one}
        found.append(label)
    return found


def _new_label(one: Identity, machines: Mapping[str, Identity]) -> str:
    label = one["device"] or "unknown"
    if label not in machines:
        return str(label)
    name, *_ = differing_facts(one, machines[label])
    label += f", {WORDS.get(name, '{}').format(one[name])}"
    numbered = (label if n == 1 else f"{label}, machine {n}" for n in count(1))
    return next(text for text in numbered if text not in machines)


def read(path: Path | str) -> str | None:
    """Text of a file below ROOT that a system may lack, or refuse to open."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
