"""Numbers of two machines are never put side by side, whatever both machines are called."""

from dataclasses import replace
from itertools import combinations

import pytest

from psannlm.bench.machine import describe_cpu, differing_facts, identity, labels
from psannlm.evidence.runs import Evidence, with_machines
from psannlm.publish import landing
from psannlm.publish.claims import ClaimChecker, Source
from psannlm.publish.history import best_numbers
from psannlm.publish.regressions import pairs, regressions
from psannlm.publish.run_facts import runs_table
from psannlm.publish.trends import trends
from psannlm.rerun.difference import other_settings
from psannlm.run.check import machine_floor
from tests.histories import history_run
from tests.machines import GRAVITON, GROUPS, V2, XEON, ZEN3, ZEN5
from tests.published import committed

NAME = "AMD EPYC, 2 cores"
THERE = f"{NAME}, avx2"
OLD = {
    "name": "AMD EPYC", "family": "26", "model": "2", "cores": 2, "logical_cores": 2,
    "instructions": ["avx2", "avx512f", "avx512_bf16"], "memory_mib": 24106, "virtual": True,
}  # fmt: skip
"""A processor as manifests told it once."""

NEW = OLD | {
    "vendor": "AuthenticAMD", "stepping": "1", "usable_cores": 2.0, "memory_limit_mib": 24100,
    "capability": "AVX512",
}  # fmt: skip
AVX2 = NEW | {"family": "25", "model": "1", "instructions": ["avx2"], "capability": "AVX2"}
GPU = {"name": "NVIDIA H100", "memory_mib": 81559, "power_limit_w": 700, "mig": "none", "count": 1}


def of(cpu, gpu=None):
    return identity({"device": NAME, "cpu": cpu, "gpu": gpu})


def test_a_machine_is_itself_before_and_after_more_was_recorded():
    told = [
        of(OLD),
        of(NEW),
        of(NEW | {"memory_limit_mib": 24300, "stepping": None}),
        of(NEW, GPU),
        of(NEW, GPU | {"power_limit_w": None, "memory_mib": 81920}),
    ]

    assert not any(differing_facts(one, other) for one, other in combinations(told, 2))
    assert labels(told) == [NAME] * 5


@pytest.mark.parametrize(
    ("cpu", "gpu", "label"),
    [
        (AVX2, {}, "avx2"),
        ({"family": "25"}, {}, "family 25"),
        ({"stepping": "2"}, {}, "stepping 2"),
        ({"usable_cores": 1.5}, {}, "1.5 usable cores"),
        ({"memory_limit_mib": 8192}, {}, "8,192 MiB"),
        ({"capability": "AVX2"}, {}, "computing with AVX2"),
        ({"virtual": False}, {}, "virtual: False"),
        ({"vendor": "HygonGenuine"}, {}, "HygonGenuine"),
        ({}, {"memory_mib": 40960}, "40,960 MiB of GPU memory"),
        ({}, {"mig": "1g.10gb"}, "slice 1g.10gb"),
        ({}, {"power_limit_w": 350.0}, "350 W"),
        ({}, {"count": 8}, "8 GPUs"),
    ],
)
def test_one_name_is_not_one_machine(cpu, gpu, label):
    other = of(NEW | cpu, GPU | gpu)

    assert differing_facts(of(NEW, GPU), other)
    assert labels([of(NEW, GPU), other]) == [NAME, f"{NAME}, {label}"]


def test_processors_differ_by_what_the_system_tells_of_them(machine_is):
    found = []
    for cpuinfo in (ZEN5, ZEN3, XEON, GRAVITON):
        machine_is(cpuinfo)
        found.append(of(describe_cpu()))
    machine_is(ZEN5, groups=V2.format("/"), files={f"{GROUPS}/cpu.max": "150000 100000"})

    assert all(differing_facts(one, other) for one, other in combinations(found, 2))
    assert differing_facts(found[0], of(describe_cpu())) == ["cores"]


def test_a_manifest_that_lacks_facts_joins_no_two_machines():
    others = [of(NEW | {"stepping": n}) for n in ("1", "2", "3")]

    assert labels([of(OLD), *others]) == [
        NAME, NAME, f"{NAME}, stepping 2", f"{NAME}, stepping 3",
    ]  # fmt: skip
    assert labels([others[0], of(AVX2), of(AVX2 | {"stepping": "2"})])[2] == f"{THERE}, machine 2"


def test_the_committed_runs_are_of_the_machine_that_their_manifests_name():
    runs = [run for run in committed() if isinstance(run, Evidence)]

    for run in with_machines(runs):
        assert run.machine == run.manifest["environment"]["device"]
        assert identity(run.manifest["environment"])["instructions"]
        assert run == replace(run, label="other"), "a label is no part of what a run is"


@pytest.fixture
def mixed(tmp_path):
    """Runs of a page on one machine, on another of its name, and on the first again."""
    cpus = (OLD, AVX2, NEW)
    return [history_run(tmp_path, "throughput", machine=NAME, cpu=cpu) for cpu in cpus]


def test_history_joins_runs_of_one_machine_and_no_others(mixed):
    old, other, new = mixed

    assert [(a.folder, b.folder) for a, b in pairs(with_machines(mixed))] == [
        (new.folder, old.folder), (other.folder, old.folder),
    ]  # fmt: skip
    reasons = regressions(mixed).set_index("machine")["reason"]
    assert [*reasons[[NAME, THERE]]] == ["", f"machine: {THERE}, before {NAME}"]
    assert {trend.machine: len(trend.runs) for trend in trends(mixed)} == {NAME: 2, THERE: 1}
    assert list(best_numbers(mixed)["machine"]) == [NAME, THERE]
    assert list(runs_table(mixed)["machine"]) == [NAME, THERE, NAME]


def test_the_noise_floor_of_another_machine_is_not_this_ones(tmp_path):
    noisy = history_run(tmp_path, "throughput", {"noise_floor": 0.5}, machine=NAME, cpu=AVX2)
    quiet = history_run(tmp_path, "throughput", {"noise_floor": 0.1}, machine=NAME, cpu=OLD)

    assert machine_floor([quiet, noisy], quiet) == 0.1
    assert machine_floor([noisy], quiet) is None


def test_a_claim_and_the_other_runs_of_a_page_stay_on_their_machine(mixed, monkeypatch):
    source = Source(page="throughput", preset="cpu", device=NAME)
    checker = ClaimChecker(mixed)

    assert checker.run(source) == mixed[2]
    assert checker.run(source.model_copy(update={"device": THERE})) == mixed[1]
    monkeypatch.setattr(landing, "headlines_of", lambda run: [run])
    shown = with_machines(mixed)
    here = type("Number", (), {"run": shown[2]})()
    monkeypatch.setattr(type(landing.pages()["throughput"]), "summary", lambda page, found: "found")
    assert [line.split("`")[1] for line in landing._others([here], shown)] == [shown[0].name]


def test_an_older_run_keeps_its_name_whatever_comes_after_it(mixed):
    names = [run.machine for run in with_machines(mixed)]

    assert [run.machine for run in with_machines(mixed[:2])] == names[:2]
    earlier = mixed[1].manifest | {"status": "failed", "started_at": "2020-01-01"}
    unfinished = replace(mixed[1], manifest=earlier)
    assert [run.machine for run in with_machines([unfinished, *mixed])][1:] == names


def settings(variables=(), *, prefixes=None, threads=2, **start):
    told = {"threads": threads, "variables": dict(variables)}
    told |= {"prefixes": prefixes} if prefixes else {}
    machine = {"device": NAME, "cpu": {}, "gpu": None, "software": {"packages": {}}}
    git = {"commit": None, "dirty": None}
    return {
        "environment": machine | {"settings": told}, "git": git, "conditions": {"start": start}
    }  # fmt: skip


ALL = ["OMP_", "ONEDNN_", "LD_PRELOAD", "TORCH", "NVIDIA_", "CUDA_"]
RECORDED = settings(prefixes=ALL)
FAST = settings(governor="performance", turbo=True)


@pytest.mark.parametrize(
    ("changes", "older", "differing"),
    [
        ({}, settings(), []),
        ({"threads": 1}, settings(), ["threads: 1, before 2"]),
        ({"OMP_WAIT_POLICY": "x"}, settings(), ["OMP_WAIT_POLICY: x, before absent"]),
        ({"LD_PRELOAD": "libx.so.2"}, RECORDED, ["LD_PRELOAD: libx.so.2, before absent"]),
        ({"LD_PRELOAD": ""}, RECORDED, []),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, settings(), []),  # which once was not recorded
        ({"TORCH_HOME": "x", "CUDA_VISIBLE_DEVICES": "0"}, RECORDED, []),  # which is harmless
        ({"NVIDIA_REQUIRE_CUDA": "1"}, RECORDED, []),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, RECORDED, ["NVIDIA_TF32_OVERRIDE: 0, before absent"]),
        ({"governor": "powersave"}, FAST, ["governor: powersave, before performance"]),
        ({"governor": None, "turbo": False}, FAST, ["turbo: no, before yes"]),
    ],
)
def test_what_was_set_otherwise_is_named(changes, older, differing):
    variables = {name: value for name, value in changes.items() if name.isupper()}
    others = {name: value for name, value in changes.items() if name.islower()}

    newer = settings(variables, prefixes=ALL, **others)

    assert list(other_settings(newer, older)) == differing


def test_runs_made_under_other_settings_are_not_compared(tmp_path):
    older, newer = (history_run(tmp_path, "throughput") for _ in range(2))
    newer.manifest["environment"]["settings"]["variables"] = {"OMP_PROC_BIND": "close"}

    assert [*regressions([older, newer])["reason"]] == ["OMP_PROC_BIND: close, before absent"]
