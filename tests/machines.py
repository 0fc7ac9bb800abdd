"""Machines made up for tests: the files from which a processor and its limits are read."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from psannlm.bench import machine

X86 = """processor	: 0
vendor_id	: {}
cpu family	: {}
model		: {}
model name	: {}
stepping	: {}
flags		: fpu sse2 fma sme {}
"""
ARM = """processor	: 0
Features	: fp {} crc32
CPU implementer	: {}
CPU architecture: 8
CPU variant	: 0x1
CPU part	: {}
CPU revision	: 1
"""
ZEN5 = X86.format(
    "AuthenticAMD", 26, 2, "AMD EPYC", 1, "hypervisor avx2 avx512f avx512_bf16 avx512_vnni"
)
ZEN3 = X86.format("AuthenticAMD", 25, 1, "AMD EPYC", 1, "hypervisor avx2")
XEON = X86.format(
    "GenuineIntel", 6, 143, "Intel(R) Xeon(R) Platinum 8488C", 8,
    "avx2 avx512f avx512_bf16 amx_bf16 avx512_fp16",
)  # fmt: skip
GRAVITON = ARM.format("asimd asimdhp sve bf16 i8mm", "0x41", "0xd40")
UNHEARD_OF = ARM.format("asimd", "0x99", "0x001")

GIB = 2**30
V1, V2 = "3:cpu,cpuacct:{0}\n2:memory:{0}\n", "0::{}\n"  # groups of a process, of either version
CPUS, GROUPS = "sys/devices/system/cpu", "sys/fs/cgroup"


def simulate(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    cpuinfo: str = ZEN5,
    *,
    allowed: Iterable[int] = range(8),
    threads_a_core: int = 1,
    groups: str = "",
    files: Mapping[str, str] = {},
) -> None:
    """Let this process run on a machine of 8 processors and 16 GiB, 12 of them free."""
    topology = f"{CPUS}/cpu{{}}/topology/thread_siblings_list"
    texts = {topology.format(n): f"core {n // threads_a_core}" for n in range(8)}
    texts |= {"proc/cpuinfo": cpuinfo, "proc/self/cgroup": groups, **files}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    memory = SimpleNamespace(total=16 * GIB, available=12 * GIB)
    monkeypatch.setattr(machine, "ROOT", root)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*allowed})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
