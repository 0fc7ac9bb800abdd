"""What may have disturbed a run is told, each fact by itself, unknown where nothing tells it."""

import json

import pytest
import torch

from psannlm.bench import conditions as module
from psannlm.bench.conditions import conditions, during
from tests.machines import GROUPS, V1, V2, machine_at

CPU = torch.device("cpu")
CPUS = "sys/devices/system/cpu"


def stat(*busy: int, steal: int = 0) -> str:
    """Of each processor its busy hundredths of a second, those of work and of interrupts alike."""
    lines = (f"cpu{n} {one - 3} 1 1 777 88 1 0 {steal} 55 0" for n, one in enumerate(busy))
    return "cpu  1 2 3 4 5 6 7 8 9 0\n" + "\n".join(lines) + "\n"


@pytest.fixture
def moments(tmp_path, monkeypatch):
    """Conditions of a machine whose files may change in between."""
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_own_seconds", lambda: 1.0)
    clock = iter(range(10))
    monkeypatch.setattr(module.time, "monotonic", lambda: 10.0 * next(clock))

    def at(**facts):
        return conditions(CPU, machine_at(tmp_path, **facts))

    return at


def test_clocks_governor_and_turbo_are_read_and_unknown_without_files(moments):
    files = {
        f"{CPUS}/cpu0/cpufreq/scaling_cur_freq": "2000000",
        f"{CPUS}/cpu1/cpufreq/scaling_cur_freq": "3000000",
        f"{CPUS}/cpu2/cpufreq/scaling_cur_freq": "<unknown>",
        f"{CPUS}/cpu1/cpufreq/cpuinfo_max_freq": "3500000",
        f"{CPUS}/cpu0/cpufreq/scaling_governor": "powersave",
        f"{CPUS}/cpu7/cpufreq/scaling_governor": "performance",
    }
    names = ("clock_mhz", "max_clock_mhz", "governor", "turbo")

    bare = moments()
    found = moments(allowed="0-2", files=files)

    assert [bare[name] for name in names] == [None] * 4
    assert [found[name] for name in names] == [2500, 3500, "powersave", None]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("file", "text", "turbo"),
    [
        ("intel_pstate/no_turbo", "0", True),
        ("intel_pstate/no_turbo", "1", False),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
    ],
)
def test_turbo_is_told_by_either_driver(file, text, turbo, moments):
    assert moments(files={f"{CPUS}/{file}": text})["turbo"] is turbo


def test_what_others_did_in_between_is_counted_on_the_usable_processors(moments):
    start = moments(allowed="0-1", files={"proc/stat": stat(1000, 2000, 9000)})
    end = moments(allowed="0-1", files={"proc/stat": stat(2000, 3500, 99999, steal=100)})

    found = during(start, end)

    assert found["others_cores"] == pytest.approx(25 / 20)
    assert found["steal_share"] == pytest.approx(2 / 40)


def test_own_work_is_no_load_of_others(moments, monkeypatch):
    start = moments(allowed="0", files={"proc/stat": stat(1000)})
    monkeypatch.setattr(module, "_own_seconds", lambda: 9.0)
    end = moments(allowed="0", files={"proc/stat": stat(2000)})

    assert during(start, end)["others_cores"] == pytest.approx(2 / 20)


@pytest.mark.parametrize(
    ("groups", "mounts", "place", "text"),
    [
        ("0::/\n", V2, "cpu.stat", "usage_usec 9\nnr_throttled 3\nthrottled_usec {}000000\n"),
        ("1:cpu,cpuacct:/\n", V1, "cpu/cpu.stat", "nr_periods 9\nthrottled_time {}000000000\n"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_time_for_which_a_quota_or_heat_stopped_it_is_told(
    groups, mounts, place, text, moments
):
    hot = f"{CPUS}/cpu3/thermal_throttle/core_throttle_count"
    start, end = (
        moments(
            groups=groups, mounts=mounts,
            files={f"{GROUPS}/{place}": text.format(n), hot: str(10 * n)},
        )
        for n in (2, 5)
    )  # fmt: skip

    found = during(start, end)

    assert (found["throttled_s"], found["thermal_throttles"]) == (3, 30)


def test_between_two_processes_and_for_old_manifests_nothing_is_known(moments):
    end = moments(files={"proc/stat": stat(1000)})
    other = {"counters": end["counters"] | {"process": 1.0}}

    for start in ({}, {"load_1min": 0.5}, other):
        assert set(during(start, end).values()) == {None}


def test_this_machine_tells_its_moment():
    start, end = conditions(CPU), conditions(CPU)

    assert start["load_1min"] >= 0
    assert during(start, end)["others_cores"] is None or end["counters"]["own_s"] > 0
