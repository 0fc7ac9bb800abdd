"""What may have disturbed a run is told, each fact by itself, unknown where nothing tells it."""

import json
from types import SimpleNamespace

import psutil
import pytest
import torch

from psannlm.bench import conditions as module
from psannlm.bench.conditions import conditions, during
from tests.machines import CPUS, GROUPS, V1, V2

CPU = torch.device("cpu")


@pytest.fixture
def moments(machine_is, monkeypatch):
    """Conditions 10 s apart: of each processor, seconds of work; own ones; what the host stole."""
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0.0)
    clock = iter(range(10))
    monkeypatch.setattr(module.time, "monotonic", lambda: 10.0 * next(clock))

    def at(*busy, own=1.0, steal=0.0, **facts):
        machine_is(**facts)
        times = [
            SimpleNamespace(user=one - 4, nice=1, system=1, irq=1, softirq=1, idle=777, steal=steal)
            for one in busy
        ]
        monkeypatch.setattr(psutil, "cpu_times", lambda percpu: times)
        monkeypatch.setattr(module, "_own_seconds", lambda: own)
        return conditions(CPU)

    return at


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({}, {}),
        ({"cpu0/cpufreq/scaling_cur_freq": "2000000", "cpu1/cpufreq/scaling_cur_freq": "3000000",
          "cpu2/cpufreq/scaling_cur_freq": "<unknown>"}, {"clock_mhz": 2500}),
        ({"cpu1/cpufreq/cpuinfo_max_freq": "3500000"}, {"max_clock_mhz": 3500}),
        ({"cpu0/cpufreq/scaling_governor": "powersave",
          "cpu7/cpufreq/scaling_governor": "performance"}, {"governor": "powersave"}),
        ({"intel_pstate/no_turbo": "0"}, {"turbo": True}),
        ({"intel_pstate/no_turbo": "1"}, {"turbo": False}),
        ({"cpufreq/boost": "1"}, {"turbo": True}),
        ({"cpufreq/boost": "0"}, {"turbo": False}),
    ],
)  # fmt: skip
def test_clocks_governor_and_turbo_are_read_and_unknown_without_files(files, known, moments):
    moment = moments(allowed={0, 1, 2}, files={f"{CPUS}/{name}": files[name] for name in files})

    facts = {name: moment[name] for name in ("clock_mhz", "max_clock_mhz", "governor", "turbo")}
    assert {name: value for name, value in facts.items() if value is not None} == known
    assert json.loads(json.dumps(moment)) == moment


@pytest.mark.parametrize("own", [1.0, 9.0])
def test_what_others_did_in_between_is_counted_on_the_usable_processors(moments, own):
    start = moments(10, 20, 90, allowed={0, 1})
    end = moments(20, 35, 999, allowed={0, 1}, own=own, steal=1.0)

    changes = during(start, end)

    assert changes["others_cores"] == pytest.approx((25 - (own - 1)) / 20)
    assert changes["steal_share"] == pytest.approx(2 / 40)


@pytest.mark.parametrize(
    ("groups", "place", "text"),
    [
        (V2, "cpu.stat", "usage_usec 9\nnr_throttled 3\nthrottled_usec {}000000\n"),
        (V1, "cpu/cpu.stat", "nr_periods 9\nthrottled_time {}000000000\n"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_time_for_which_a_quota_stopped_it_is_told(groups, place, text, moments):
    start, end = (
        moments(groups=groups.format("/"), files={f"{GROUPS}/{place}": text.format(seconds)})
        for seconds in (2, 5)
    )

    assert during(start, end)["throttled_s"] == 3


def test_between_two_processes_and_for_old_manifests_nothing_is_known(moments):
    end = moments()
    other = {"counters": end["counters"] | {"process": 1.0}}

    for start in ({}, {"load_1min": 0.5}, other):
        assert set(during(start, end).values()) == {None}


def test_this_machine_tells_its_moment():
    start, end = conditions(CPU), conditions(CPU)

    assert start["load_1min"] >= 0
    assert during(start, end)["others_cores"] >= 0
    assert end["counters"]["own_s"] > 0
