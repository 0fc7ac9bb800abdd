"""How much main memory this process holds, and held at most."""

import platform
import resource
from pathlib import Path

import psutil


def resident_bytes() -> int:
    """Resident set of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Largest resident set of this process since it started.

    Linux lets `getrusage` begin with that of the process that started this one, and so would tell
    of a notebook's kernel; the mark in /proc belongs to this process alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
