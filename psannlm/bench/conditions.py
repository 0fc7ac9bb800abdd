"""What may disturb a measurement: load of others, stolen time, clocks, power and throttling.

What a system does not tell is None, each fact by itself.
"""

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch

from psannlm.bench import machine
from psannlm.bench.machine import ROOT, line_of, read

SAMPLE_SECONDS = 0.2  # in which the load of others is counted before and after a run


def conditions(device: torch.device, root: Path = ROOT) -> dict[str, Any]:
    """This moment: load, clocks, governor and, of a GPU, power, temperature and throttling.

    `counters` are those that `during` compares with those of a later moment.
    """
    before = _counters(root)
    time.sleep(SAMPLE_SECONDS)
    now = _counters(root)
    found = {
        "load_1min": round(os.getloadavg()[0], 2),
        "others_cores": during({"counters": before}, {"counters": now})["others_cores"],
        **_clocks(root),
        "counters": now,
    }
    return found | _gpu() if device.type == "cuda" else found


def during(start: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, float | None]:
    """What others did on the usable processors between two moments of one process.

    `others_cores` of them were busy with other work; `steal_share` of their time the host gave to
    other guests; for `throttled_s` a quota stopped them; `thermal_throttles` is how often heat did.
    """
    then, now = start.get("counters") or {}, end.get("counters") or {}
    same = then.get("process") is not None and then.get("process") == now.get("process")

    def grown(name: str) -> float | None:
        before, after = then.get(name), now.get(name)
        return float(after - before) if same and before is not None and after is not None else None

    def share(part: float | None, whole: float | None) -> float | None:
        return round(max(0.0, part / whole), 3) if part is not None and whole else None

    seconds, busy, own = grown("at_s"), grown("busy_s"), grown("own_s")
    processors = now.get("processors")
    others = busy - own if busy is not None and own is not None else None
    return {
        "others_cores": share(others, seconds),
        "steal_share": share(grown("steal_s"), seconds and processors and seconds * processors),
        "throttled_s": grown("throttled_s"),
        "thermal_throttles": grown("thermal_throttles"),
    }


def _counters(root: Path) -> dict[str, Any]:
    """Sums that only grow, over the usable processors, and which process saw them."""
    folders = machine.usable_processors(root)
    names = {folder.name for folder in folders}
    lines = (line.split() for line in (read(root / "proc/stat") or "").splitlines())
    ticks = [[int(n) for n in line[1:9]] for line in lines if line and line[0] in names]
    second = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(sum(one[:3]) + sum(one[5:7]) for one in ticks) / second
    hot = (read(folder / "thermal_throttle/core_throttle_count") for folder in folders)
    counted = [int(n) for n in hot if n and n.isdecimal()]
    return {
        "process": psutil.Process().create_time(),
        "at_s": time.monotonic(),
        "processors": len(ticks) or None,
        "busy_s": busy if ticks else None,
        "steal_s": sum(one[7] for one in ticks) / second if ticks else None,
        "own_s": _own_seconds(),
        "throttled_s": _throttled(root),
        "thermal_throttles": sum(counted) if counted else None,
    }


def _own_seconds() -> float:
    """Processor time of this process and of all that it began, those that have ended too."""
    own = psutil.Process()
    total = float(sum(own.cpu_times()[:4]))
    with contextlib.suppress(psutil.Error):  # one has just ended
        total += sum(sum(one.cpu_times()[:4]) for one in own.children(recursive=True))
    return total


def _throttled(root: Path) -> float | None:
    """Seconds for which a quota has stopped this process's own control group."""
    for folder in machine.control_groups("cpu.max", root):
        for name, unit in (("throttled_usec", 1e6), ("throttled_time", 1e9)):
            if told := line_of(folder / "cpu.stat", rf"{name} (\d+)"):
                return int(told) / unit
    return None


def _clocks(root: Path) -> dict[str, Any]:
    """Current and highest clock in MHz, governor, and whether the clock may rise above its base."""
    folders = [folder / "cpufreq" for folder in machine.usable_processors(root)]
    now, most, governors = (
        [text for folder in folders if (text := read(folder / name)) and text != "<unknown>"]
        for name in ("scaling_cur_freq", "cpuinfo_max_freq", "scaling_governor")
    )
    mhz = [int(text) / 1000 for text in now]
    told = re.findall(r"^cpu MHz\s*: ([\d.]+)$", read(root / "proc/cpuinfo") or "", re.MULTILINE)
    mhz = mhz or [float(one) for one in told]
    cpus = root / "sys/devices/system/cpu"
    fixed, boost = read(cpus / "intel_pstate/no_turbo"), read(cpus / "cpufreq/boost")
    return {
        "clock_mhz": round(fmean(mhz)) if mhz else None,
        "max_clock_mhz": round(max(int(one) for one in most) / 1000) if most else None,
        "governor": ", ".join(sorted(set(governors))) or None,
        "turbo": fixed == "0" if fixed is not None else boost == "1" if boost is not None else None,
    }


def _gpu() -> dict[str, Any]:
    return machine.told_by_driver(
        {
            "sm_clock_mhz": lambda n, g: n.nvmlDeviceGetClockInfo(g, n.NVML_CLOCK_SM),
            "temperature_c": lambda n, g: n.nvmlDeviceGetTemperature(g, n.NVML_TEMPERATURE_GPU),
            "power_w": lambda n, g: n.nvmlDeviceGetPowerUsage(g) / 1000,
            "throttle_reasons": lambda n, g: hex(n.nvmlDeviceGetCurrentClocksThrottleReasons(g)),
            "other_processes": lambda n, g: len(n.nvmlDeviceGetComputeRunningProcesses(g)),
        }
    )
