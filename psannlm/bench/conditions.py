"""What may disturb a measurement: load of others, stolen time, clocks, power and throttling.

What a system does not tell is None, each fact by itself.
"""

import contextlib
import os
import re
import time
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import psutil
import torch

from psannlm.bench.machine import PROCESSORS, ask_driver, control_groups, read

SAMPLE_SECONDS = 0.2  # in which the load of others is counted before and after a run


def conditions(device: torch.device) -> dict[str, Any]:
    """This moment: load, clocks, governor and, of a GPU, power, temperature and throttling.

    `counters` are those that `during` compares with those of a later moment.
    """
    before = _counters()
    time.sleep(SAMPLE_SECONDS)
    now = _counters()
    moment = {
        "load_1min": round(os.getloadavg()[0], 2),
        "others_cores": during({"counters": before}, {"counters": now})["others_cores"],
        **_clocks(),
        "counters": now,
    }
    if device.type != "cuda":
        return moment
    return moment | ask_driver(
        {
            "sm_clock_mhz": lambda n, g: n.nvmlDeviceGetClockInfo(g, n.NVML_CLOCK_SM),
            "temperature_c": lambda n, g: n.nvmlDeviceGetTemperature(g, n.NVML_TEMPERATURE_GPU),
            "power_w": lambda n, g: n.nvmlDeviceGetPowerUsage(g) / 1000,
            "throttle_reasons": lambda n, g: hex(n.nvmlDeviceGetCurrentClocksThrottleReasons(g)),
            "other_processes": lambda n, g: len(n.nvmlDeviceGetComputeRunningProcesses(g)),
        }
    )


def during(start: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, float | None]:
    """What others did on the usable processors between two moments of one process.

    `others_cores` of them were busy with other work; `steal_share` of their time the host gave to
    other guests; for `throttled_s` a quota stopped them.
    """
    then, now = (moment.get("counters") or {} for moment in (start, end))
    if not then or then["process"] != now["process"]:
        return dict.fromkeys(("others_cores", "steal_share", "throttled_s"))
    known = [name for name in now if None not in (then.get(name), now[name])]
    grown = {name: now[name] - then[name] for name in known}
    others = (grown["busy_s"] - grown["own_s"]) / grown["at_s"]
    return {
        "others_cores": round(max(0.0, others), 3),
        "steal_share": round(grown["steal_s"] / (grown["at_s"] * now["processors"]), 3),
        "throttled_s": grown.get("throttled_s"),
    }


def _counters() -> dict[str, Any]:
    """Sums that only grow, over the usable processors, and which process saw them."""
    usable = os.sched_getaffinity(0)
    times = [one for n, one in enumerate(psutil.cpu_times(percpu=True)) if n in usable]
    return {
        "process": psutil.Process().create_time(),
        "at_s": time.monotonic(),
        "processors": len(usable),
        "busy_s": sum(one.user + one.nice + one.system + one.irq + one.softirq for one in times),
        "steal_s": sum(one.steal for one in times),
        "own_s": _own_seconds(),
        "throttled_s": _throttled_seconds(),
    }


def _own_seconds() -> float:
    """Processor time of this process and of all that it began, those that have ended too."""
    own = psutil.Process()
    total = float(sum(own.cpu_times()[:4]))
    with contextlib.suppress(psutil.Error):  # one has just ended
        total += sum(sum(one.cpu_times()[:4]) for one in own.children(recursive=True))
    return total


def _throttled_seconds() -> float | None:
    """For how long a quota has stopped this process's own control group, of either version."""
    for group in control_groups("cpu.max"):
        stat = read(group / "cpu.stat") or ""
        if counter := re.search(r"throttled_(usec|time) (\d+)", stat):
            return int(counter[2]) / {"usec": 1e6, "time": 1e9}[counter[1]]
    return None


def _clocks() -> dict[str, Any]:
    """Current and highest clock in MHz, governor, and whether the clock may rise above its base."""
    megahertz = [int(text) / 1000 for text in _cpufreq("scaling_cur_freq")]
    listed = re.findall(r"^cpu MHz\s*: ([\d.]+)$", read("proc/cpuinfo") or "", re.MULTILINE)
    megahertz = megahertz or [float(text) for text in listed]
    highest = max(map(int, _cpufreq("cpuinfo_max_freq")), default=None)
    no_turbo = read(f"{PROCESSORS}/intel_pstate/no_turbo")
    boost = read(f"{PROCESSORS}/cpufreq/boost")
    return {
        "clock_mhz": round(fmean(megahertz)) if megahertz else None,
        "max_clock_mhz": round(highest / 1000) if highest else None,
        "governor": ", ".join(sorted(set(_cpufreq("scaling_governor")))) or None,
        "turbo": no_turbo == "0" if no_turbo else boost == "1" if boost else None,
    }


def _cpufreq(name: str) -> list[str]:
    """What a file tells of the clock of each usable processor that has it."""
    paths = (f"{PROCESSORS}/cpu{n}/cpufreq/{name}" for n in os.sched_getaffinity(0))
    return [text for path in paths if (text := read(path)) and text != "<unknown>"]
