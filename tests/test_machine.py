"""A machine is known by its processor and by what of it may be used, and not by its name alone."""

import os
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psannlm.bench import environment, machine
from psannlm.bench.conditions import conditions
from psannlm.bench.machine import describe_cpu, memory_limit_bytes, usable_cores, usable_threads
from psannlm.bench.processes import refuse_what_cannot_fit
from tests.machines import (
    APPLE,
    GRAVITON,
    GROUPS,
    UNHEARD_OF,
    V1,
    V2,
    XEON,
    ZEN3,
    ZEN5,
    machine_at,
)  # fmt: skip

GIB, CPU = 2**30, torch.device("cpu")
UNLIMITED = "9223372036854771712"  # bytes, as version 1 says where there is no limit
DOCKER = V1.replace(" / /sys", " /docker/a1 /sys")  # the container's own group, mounted as the top


@pytest.mark.parametrize(
    ("cpuinfo", "known", "instructions"),
    [
        (ZEN5, ("AMD EPYC", "AuthenticAMD", "26", "2", "1"), "avx2 avx512f avx512_bf16"),
        (ZEN3, ("AMD EPYC", "AuthenticAMD", "25", "1", "1"), "avx2"),
        (
            XEON,
            ("Intel(R) Xeon(R) Platinum 8488C", "GenuineIntel", "6", "143", "8"),
            "avx2 avx512f avx512_bf16 amx_bf16 avx512_fp16",
        ),
        (
            GRAVITON,
            ("ARM Neoverse-V1", "ARM", "8", "0xd40", "0x1.1"),
            "asimd asimdhp bf16 i8mm sve",
        ),
        (APPLE, ("Apple M1", "Apple", "8", "0x023", "0x1.1"), "asimd asimdhp"),
        (UNHEARD_OF, ("0x99 0x001", "0x99", "8", "0x001", "0x1.1"), "asimd"),
    ],
    ids=["Zen 5", "Zen 3", "Xeon", "Graviton", "Apple", "a part that no list has"],
)
def test_a_processor_tells_its_maker_model_and_instructions(cpuinfo, known, instructions, tmp_path):
    cpu = describe_cpu(machine_at(tmp_path, cpuinfo))

    assert tuple(cpu[n] for n in ("name", "vendor", "family", "model", "stepping")) == known
    assert cpu["instructions"] == instructions.split()
    assert cpu["usable_cores"] == 8
    assert cpu["memory_mib"] == cpu["memory_limit_mib"] == 16 * 1024


def test_of_a_machine_without_proc_nothing_is_guessed(tmp_path):
    cpu = describe_cpu(tmp_path)

    unknown = ("vendor", "family", "model", "stepping", "instructions", "virtual")
    assert [cpu[name] for name in unknown] == [None] * len(unknown)
    assert cpu["usable_cores"] == cpu["cores"]


def below(group: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{group}/{name}": text for name, text in files.items()}


def grouped(groups: str, mounts: str, **files: str) -> dict[str, Any]:
    """A process in these groups, whose files lie below their mount."""
    return {"groups": groups, "mounts": mounts, "files": below(GROUPS, files)}


def quota(of: str, microseconds: int) -> dict[str, str]:
    """Of version 1."""
    return {f"{of}.cfs_quota_us": f"{microseconds}", f"{of}.cfs_period_us": "100000"}


V2_TOP, V1_TOP = ("0::/\n", V2), ("3:cpu,cpuacct:/\n2:memory:/\n", V1)
IN_DOCKER = ("3:cpu,cpuacct:/docker/a1\n2:memory:/docker/a1\n0::/\n", DOCKER)
CORES = {
    "one processor": ({"allowed": "3"}, 1),
    "a list": ({"allowed": "0-1,4"}, 3),
    "more allowed than there are": ({"allowed": "0-7,64-127"}, 8),
    "two threads a core": ({"threads_a_core": 2}, 4),
    "both threads of a core": ({"threads_a_core": 2, "allowed": "0,1"}, 1),
    "one thread of two cores": ({"threads_a_core": 2, "allowed": "0,2"}, 2),
    "no quota": (grouped(*V2_TOP, **{"cpu.max": "max 100000\n"}), 8),
    "version 2": (grouped(*V2_TOP, **{"cpu.max": "150000 100000"}), 1.5),
    "the group above": (
        grouped("0::/a/b", V2, **{"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}), 2.5
    ),
    "version 1": (
        grouped("3:cpu,cpuacct:/a\n", V1, **quota("cpu/a/cpu", 50000), **quota("cpu/cpu", -1)), 0.5
    ),
    "a container": (grouped(*IN_DOCKER, **quota("cpu/cpu", 300000)), 3),
    "another group": (grouped("0::/../other\n", V2, **{"cpu.max": "x"}), 8),
    "no mount": (grouped("0::/\n", ""), 8),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "cores"), CORES.values(), ids=CORES)
def test_usable_cores_are_those_of_affinity_and_quota(facts, cores, tmp_path):
    root = machine_at(tmp_path, **facts)

    assert usable_cores(root) == cores
    assert usable_threads(root) == max(1, cores // 1)


def uses(limit: int | None, used: int, stat: str = "") -> dict[str, str]:
    """Of version 2, in GiB."""
    size = "max" if limit is None else f"{limit * GIB}"
    return {"memory.max": size, "memory.current": f"{used * GIB}", "memory.stat": stat}


OLD_LIMIT = {
    "memory/memory.limit_in_bytes": f"{3 * GIB}", "memory/memory.usage_in_bytes": f"{2 * GIB}",
    "memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
}  # fmt: skip
NONE = {"memory/memory.limit_in_bytes": UNLIMITED, "memory/memory.usage_in_bytes": "1"}
ULIMIT = "Limit  Soft Limit  Hard Limit  Units\nMax address space         {}  unlimited  bytes\n"
MEMORY = {
    "no group": ({}, 16, 12),
    "ulimit": ({"files": {"proc/self/limits": ULIMIT.format(5 * GIB)}}, 5, 4),
    "no ulimit": ({"files": {"proc/self/limits": ULIMIT.format("unlimited")}}, 16, 12),
    "no limit": (grouped(*V2_TOP, **uses(None, 1)), 16, 12),
    "version 2": (grouped(*V2_TOP, **uses(4, 3, f"anon 5\ninactive_file {2 * GIB}\n")), 4, 3),
    "the group above": (
        grouped("0::/a/b\n", V2, **below("a", uses(2, 1)), **below("a/b", uses(8, 0))), 2, 1
    ),
    "a container of version 1": (grouped(*IN_DOCKER, **OLD_LIMIT), 3, 2),
    "no limit of version 1": (grouped(*V1_TOP, **NONE), 16, 12),
    "more used than allowed": (grouped(*V2_TOP, **uses(1, 2)), 1, 0),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "limit", "free"), MEMORY.values(), ids=MEMORY)
def test_memory_is_that_of_the_tightest_limit(facts, limit, free, tmp_path):
    root = machine_at(tmp_path, **facts)

    assert memory_limit_bytes(root) == limit * GIB
    assert machine.available_main_memory_bytes(root) == free * GIB


@pytest.fixture
def tight(monkeypatch, tmp_path):
    """This process in a group that may take 1.5 processors and 2 GiB, 1 of them used."""
    files = {"cpu.max": "150000 100000"} | uses(2, 1)
    root = machine_at(tmp_path, **grouped(*V2_TOP, **files))
    for name in ("describe_cpu", "usable_threads", "available_main_memory_bytes"):
        monkeypatch.setattr(machine, name, partial(getattr(machine, name), root))
    return root


def test_what_does_not_fit_below_a_limit_is_refused_on_a_host_that_has_room(tight):
    refuse_what_cannot_fit(GIB, "weights", CPU)
    with pytest.raises(MemoryError, match=r"1\.5 GiB \(weights\), 1\.0 GiB are free"):
        refuse_what_cannot_fit(3 * GIB // 2, "weights", CPU)


def test_session_and_processes_have_no_more_threads_than_cores_unless_told(
    tight, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    environment.use_usable_cores()

    assert asked == [1]
    assert environment.worker_environment(tmp_path, None)["OMP_NUM_THREADS"] == "1"
    assert environment.device_name(CPU) == "AMD EPYC, 1.5 cores"

    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    environment.use_usable_cores()

    assert asked == [1]
    assert environment.worker_environment(tmp_path, None)["OMP_NUM_THREADS"] == "6"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_one_processor_of_this_machine_is_seen_as_one():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() <= 1
        assert usable_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


class Driver:
    """NVML of a GPU, with a call that this GPU does not support."""

    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, unsupported: str, handles: str = "GPU-1") -> None:
        self.unsupported, self.handles = unsupported, handles

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name == self.unsupported or (
                name.endswith("ByUUID") and [*arguments] != [self.handles.encode()]
            ):
                raise self.NVMLError("Not Supported")
            known = {"MemoryInfo": SimpleNamespace(total=80 * GIB), "GetName": "NVIDIA H100"}
            return next((v for end, v in known.items() if name.endswith(end)), 700_000)

        return call


@pytest.fixture
def gpu(monkeypatch):
    """torch finds a GPU of that name, whose driver is to be chosen."""

    def found(driver: Driver, name: str = "NVIDIA H100") -> None:
        properties = SimpleNamespace(
            name=name, uuid=1, total_memory=79 * GIB, multi_processor_count=132
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setitem(sys.modules, "pynvml", driver)

    return found


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_w"}),
        ("nvmlDeviceGetUUID", {"uuid"}),
        ("nvmlDeviceGetMaxClockInfo", {"max_sm_clock_mhz"}),
        ("nvmlInit", {"power_limit_w", "uuid", "max_sm_clock_mhz", "driver"}),
    ],
)
def test_a_call_that_the_driver_does_not_support_loses_one_fact(call, unknown, gpu):
    gpu(Driver(call))

    found = machine.describe_gpu()

    assert {name for name, value in found.items() if value is None} == unknown
    assert ("unknown" in found) == (call == "nvmlInit")
    assert found["memory_mib"] // 1024 in (79, 80)
    assert found["mig"] == "none"


def test_a_slice_of_a_gpu_is_found_by_its_own_number_and_told(gpu):
    gpu(Driver("nvmlDeviceGetName", "MIG-1"), "NVIDIA H100 MIG 1g.10gb")

    found = machine.describe_gpu()

    assert (found["mig"], found["name"]) == ("1g.10gb", "NVIDIA H100 MIG 1g.10gb")
    assert found["power_limit_w"] == 700


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetComputeRunningProcesses"]
)
def test_conditions_of_a_gpu_keep_what_is_known(call, gpu):
    gpu(Driver(call))

    found = conditions(torch.device("cuda"))

    assert found["sm_clock_mhz"] is not None
    assert found["power_w" if call.endswith("Usage") else "other_processes"] is None
