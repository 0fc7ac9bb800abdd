"""A machine is known by its processor and by what of it may be used, and not by its name alone."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from psannlm.bench import conditions as module
from psannlm.bench import environment, machine
from psannlm.bench.conditions import conditions
from psannlm.bench.processes import refuse_what_cannot_fit
from tests.machines import GIB, GRAVITON, GROUPS, UNHEARD_OF, V1, V2, XEON, ZEN3, ZEN5

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cpuinfo", "known", "instructions"),
    [
        (ZEN5, "AMD EPYC|AuthenticAMD|26|2|1", "avx2 avx512f avx512_bf16"),
        (ZEN3, "AMD EPYC|AuthenticAMD|25|1|1", "avx2"),
        (XEON, "Intel(R) Xeon(R) Platinum 8488C|GenuineIntel|6|143|8",
         "avx2 avx512f avx512_bf16 amx_bf16 avx512_fp16"),
        (GRAVITON, "ARM Neoverse-V1|0x41|8|0xd40|0x1.1", "asimd asimdhp bf16 i8mm sve"),
        (UNHEARD_OF, "0x99 0x001|0x99|8|0x001|0x1.1", "asimd"),
    ],
    ids=["Zen 5", "Zen 3", "Xeon", "Graviton", "a part that no list has"],
)  # fmt: skip
def test_a_processor_tells_its_maker_model_and_instructions(
    cpuinfo, known, instructions, machine_is
):
    machine_is(cpuinfo)

    cpu = machine.describe_cpu()

    named = [cpu[name] for name in ("name", "vendor", "family", "model", "stepping")]
    assert named == known.split("|")
    assert cpu["instructions"] == instructions.split()
    assert cpu["usable_cores"] == 8
    assert cpu["memory_mib"] == cpu["memory_limit_mib"] == 16 * 1024


def test_of_a_machine_without_proc_nothing_is_guessed(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "ROOT", tmp_path)

    cpu = machine.describe_cpu()

    unknown = ("vendor", "family", "model", "stepping", "instructions", "virtual")
    assert {cpu[name] for name in unknown} == {None}
    assert cpu["usable_cores"] == len(os.sched_getaffinity(0))


def group(folder="", *, cpu="max", memory="max", used=1, cached=0):
    """Files of a group of version 2: processors as a quota says them, memory in GiB."""
    return {
        f"{GROUPS}/{folder}cpu.max": f"{cpu} 100000",
        f"{GROUPS}/{folder}memory.max": memory if memory == "max" else f"{memory * GIB}",
        f"{GROUPS}/{folder}memory.current": f"{used * GIB}",
        f"{GROUPS}/{folder}memory.stat": f"anon 5\ninactive_file {cached * GIB}\n",
    }


def old_group(folder="", *, cpu="-1", memory=2**63 - 4096):
    """Files of a group of version 1, 2 GiB of whose memory are used, and half of them cached."""
    files = {
        f"cpu{folder}/cpu.cfs_quota_us": cpu,
        f"cpu{folder}/cpu.cfs_period_us": "100000",
        f"memory{folder}/memory.limit_in_bytes": f"{memory}",
        f"memory{folder}/memory.usage_in_bytes": f"{2 * GIB}",
        f"memory{folder}/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
    }
    return {f"{GROUPS}/{name}": text for name, text in files.items()}


ABOVE = {**group("a/", cpu=250000, memory=2), **group("a/b/", memory=8)}
OLD_ABOVE = old_group("/a", cpu="50000") | old_group()
LIMITS = {
    "one processor": ({"allowed": {3}}, 1, 16, 12),
    "some processors": ({"allowed": {0, 1, 4}}, 3, 16, 12),
    "two threads a core": ({"threads_a_core": 2}, 4, 16, 12),
    "both threads of a core": ({"threads_a_core": 2, "allowed": {0, 1}}, 1, 16, 12),
    "no limit": ({"groups": V2.format("/"), "files": group()}, 8, 16, 12),
    "a quota": ({"groups": V2.format("/"), "files": group(cpu=150000)}, 1.5, 16, 12),
    "a cache": ({"groups": V2.format("/"), "files": group(memory=4, used=3, cached=2)}, 8, 4, 3),
    "too much used": ({"groups": V2.format("/"), "files": group(memory=1, used=2)}, 8, 1, 0),
    "the group above": ({"groups": V2.format("/a/b"), "files": ABOVE}, 2.5, 2, 1),
    "another group": ({"groups": V2.format("/../other")}, 8, 16, 12),
    "version 1": ({"groups": V1.format("/a"), "files": OLD_ABOVE}, 0.5, 16, 12),
    "a container of version 1": (
        {"groups": V1.format("/docker/a1"), "files": old_group(cpu="300000", memory=3 * GIB)},
        3, 3, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "cores", "limit", "free"), LIMITS.values(), ids=LIMITS)
def test_cores_and_memory_are_what_affinity_and_groups_leave(facts, cores, limit, free, machine_is):
    machine_is(**facts)

    assert machine.usable_cores() == cores
    assert machine.usable_threads() == max(1, cores // 1)
    assert machine.memory_limit_bytes() == limit * GIB
    assert machine.available_main_memory_bytes() == free * GIB


@pytest.fixture
def tight(machine_is):
    """This process in a group that may take 1.5 processors and 2 GiB, 1 of them used."""
    machine_is(groups=V2.format("/"), files=group(cpu=150000, memory=2))


def test_what_does_not_fit_below_a_limit_is_refused_on_a_host_that_has_room(tight):
    refuse_what_cannot_fit(GIB, "weights", CPU)
    with pytest.raises(MemoryError, match=r"1\.5 GiB \(weights\), 1\.0 GiB are free"):
        refuse_what_cannot_fit(3 * GIB // 2, "weights", CPU)


@pytest.mark.parametrize(("told", "asked", "of_a_process"), [(None, [1], "1"), ("6", [], "6")])
def test_session_and_processes_have_no_more_threads_than_cores_unless_told(
    told, asked, of_a_process, tight, tmp_path, monkeypatch
):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)

    environment.use_usable_cores()

    assert set_to == asked
    assert environment.worker_environment(tmp_path, None)["OMP_NUM_THREADS"] == of_a_process
    assert environment.device_name(CPU) == "AMD EPYC, 1.5 cores"


def test_one_processor_of_this_machine_is_seen_as_one():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.usable_cores() <= 1
        assert machine.usable_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


class Driver:
    """NVML of a GPU, with a call that this GPU does not support."""

    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0
    NVMLError = LookupError

    def __init__(self, unsupported, uuid="GPU-1"):
        self.unsupported, self.uuid = unsupported, uuid.encode()

    def __getattr__(self, name):
        def call(*arguments):
            if name == self.unsupported or (name.endswith("ByUUID") and arguments != (self.uuid,)):
                raise self.NVMLError("Not Supported")
            memory = SimpleNamespace(total=80 * GIB)
            known = {"nvmlDeviceGetMemoryInfo": memory, "nvmlDeviceGetComputeRunningProcesses": []}
            return known.get(name, 700_000)

        return call


@pytest.fixture
def gpu(monkeypatch):
    """torch finds a GPU of that name, whose driver is to be chosen."""

    def use(driver, name="NVIDIA H100"):
        properties = SimpleNamespace(name=name, uuid=1, total_memory=79 * GIB)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setitem(sys.modules, "pynvml", driver)

    return use


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetUUID", "uuid"),
        ("nvmlDeviceGetMaxClockInfo", "max_sm_clock_mhz"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetComputeRunningProcesses", "other_processes"),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", "throttle_reasons"),
    ],
)
def test_a_call_that_the_driver_does_not_support_loses_one_fact(call, unknown, gpu, monkeypatch):
    gpu(Driver(call))
    monkeypatch.setattr(module, "_clocks", dict)

    facts = machine.describe_gpu() | conditions(torch.device("cuda"))

    assert [name for name, value in facts.items() if value is None] == [unknown]
    assert (facts["memory_mib"], facts["mig"]) == (80 * 1024, "none")


def test_without_nvml_a_gpu_is_described_as_torch_knows_it(gpu):
    gpu(Driver("nvmlInit"))

    facts = machine.describe_gpu()

    assert (facts["name"], facts["memory_mib"], facts["uuid"]) == ("NVIDIA H100", 79 * 1024, None)
    assert facts["unknown"] == "LookupError: Not Supported"


def test_a_slice_of_a_gpu_is_found_by_its_own_number_and_told(gpu):
    gpu(Driver("", "MIG-1"), "NVIDIA H100 MIG 1g.10gb")

    assert machine.describe_gpu()["mig"] == "1g.10gb"
    assert machine.describe_gpu()["power_limit_w"] == 700
