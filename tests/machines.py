"""Machines made up for tests: the files from which a processor and its limits are read."""

from collections.abc import Mapping
from pathlib import Path

X86 = """processor	: 0
vendor_id	: {vendor}
cpu family	: {family}
model		: {model}
model name	: {name}
stepping	: {stepping}
flags		: fpu sse2 fma sme {flags}
"""
ARM = """processor	: 0
BogoMIPS	: 2100.00
Features	: fp {flags} crc32
CPU implementer	: {implementer}
CPU architecture: 8
CPU variant	: 0x1
CPU part	: {part}
CPU revision	: 1
"""
AMD = {"vendor": "AuthenticAMD", "name": "AMD EPYC", "stepping": "1"}
ZEN5 = X86.format(
    **AMD, family="26", model="2", flags="hypervisor avx2 avx512f avx512_bf16 avx512_vnni"
)
ZEN3 = X86.format(**AMD, family="25", model="1", flags="hypervisor avx2")
XEON = X86.format(
    vendor="GenuineIntel", family="6", model="143", name="Intel(R) Xeon(R) Platinum 8488C",
    stepping="8", flags="avx2 avx512f avx512_bf16 amx_bf16 avx512_fp16",
)  # fmt: skip
GRAVITON = ARM.format(implementer="0x41", part="0xd40", flags="asimd asimdhp sve bf16 i8mm")
APPLE = ARM.format(implementer="0x61", part="0x023", flags="asimd asimdhp")
UNHEARD_OF = ARM.format(implementer="0x99", part="0x001", flags="asimd")

V1 = """30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
GROUPS = "sys/fs/cgroup"


def machine_at(
    root: Path,
    cpuinfo: str = ZEN5,
    *,
    allowed: str = "0-7",
    threads_a_core: int = 1,
    groups: str = "",
    mounts: str = "",
    files: Mapping[str, str] = {},
) -> Path:
    """The root of a machine of 8 processors and 16 GiB, 12 of them free; `files` lie below it."""
    for n in range(8):
        first = n - n % threads_a_core
        name = f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list"
        files = {name: f"{first}-{first + threads_a_core - 1}", **files}
    free, total = (gib * 2**20 for gib in (12, 16))
    files = {
        "proc/cpuinfo": cpuinfo,
        "proc/meminfo": f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\n",
        "proc/self/status": f"VmSize:\t1048576 kB\nCpus_allowed_list:\t{allowed}\n",
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": f"20 1 0:1 / / rw - ext4 /dev/vda rw\n{mounts}",
        "sys/devices/system/cpu/online": "0-7\n",
    } | {**files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
