"""Numbers of two machines are never put side by side, whatever both machines are called."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from psannlm.bench.environment import other_settings
from psannlm.bench.identity import identity, labels
from psannlm.bench.machine import describe_cpu
from psannlm.evidence.runs import Evidence, with_machines
from psannlm.publish import landing
from psannlm.publish.claims import ClaimChecker, Source
from psannlm.publish.history import best_numbers
from psannlm.publish.regressions import pairs, regressions
from psannlm.publish.run_facts import machine, runs_table
from psannlm.publish.trends import trends
from psannlm.run.check import machine_floor
from tests.histories import history_run
from tests.machines import GRAVITON, GROUPS, V2, XEON, ZEN3, ZEN5, machine_at
from tests.published import committed

NAME = "AMD EPYC, 2 cores"
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
OTHERS = {
    "instructions": AVX2,
    "family": NEW | {"family": "25"},
    "stepping": NEW | {"stepping": "2"},
    "affinity": NEW | {"usable_cores": 1.0},
    "quota": NEW | {"usable_cores": 1.5},
    "memory limit": NEW | {"memory_limit_mib": 8192},
    "instructions that torch is told to use": NEW | {"capability": "AVX2"},
    "bare metal": NEW | {"virtual": False},
}
GPU = {
    "name": "NVIDIA H100", "memory_mib": 81559, "power_limit_w": 700.0, "mig": "none",
    "multiprocessors": 132, "count": 1,
}  # fmt: skip


def of(cpu, gpu=None, device=NAME):
    kind = "cuda" if gpu else "cpu"
    return identity({"device": device, "device_type": kind, "cpu": cpu, "gpu": gpu})


def test_a_machine_is_itself_before_and_after_more_was_recorded():
    assert of(OLD).is_same(of(NEW))
    assert of(NEW).is_same(of(NEW | {"memory_limit_mib": 24300, "stepping": None}))
    assert of(NEW, GPU).is_same(of(NEW, GPU | {"power_limit_w": None, "memory_mib": 81920}))
    assert labels([of(OLD), of(NEW)]) == [NAME] * 2


@pytest.mark.parametrize("cpu", OTHERS.values(), ids=OTHERS)
def test_one_name_is_not_one_machine(cpu):
    assert of(NEW).differing(of(cpu))
    plain, told = labels([of(NEW), of(cpu)])
    assert plain == NAME
    assert told.startswith(f"{NAME}, ")


@pytest.mark.parametrize(
    ("fact", "value", "said"),
    [
        ("memory_mib", 40960, "40,960 MiB of GPU memory"),
        ("mig", "1g.10gb", "slice 1g.10gb"),
        ("power_limit_w", 350.0, "350 W"),
        ("count", 8, "8 GPUs"),
        ("multiprocessors", 114, "114 multiprocessors"),
    ],
)
def test_gpus_of_one_name_are_told_apart(fact, value, said):
    found = labels([of(NEW, gpu, "NVIDIA H100") for gpu in (GPU, GPU | {fact: value})])

    assert found == ["NVIDIA H100", f"NVIDIA H100, {said}"]


@pytest.mark.parametrize(
    ("here", "there"), list(itertools.combinations([ZEN5, ZEN3, XEON, GRAVITON], 2))
)
def test_processors_differ_by_what_the_system_tells_of_them(here, there, tmp_path):
    cpus = [describe_cpu(machine_at(tmp_path / n, text)) for n, text in (("a", here), ("b", there))]
    limited = {f"{GROUPS}/cpu.max": "150000 100000"}
    less = describe_cpu(machine_at(tmp_path / "c", here, groups="0::/\n", mounts=V2, files=limited))

    assert of(cpus[0]).differing(of(cpus[1]))
    assert of(cpus[0]).differing(of(less)) == ["cores"]


def test_what_may_be_either_of_two_machines_is_neither_in_any_order():
    found = {"old": of(OLD), "one": of(NEW), "two": of(NEW | {"stepping": "2"})}

    for names in itertools.permutations(found):
        said = dict(zip(names, labels([found[name] for name in names]), strict=True))
        assert len(set(said.values())) == 3
        assert said[names[0]] == NAME, "the oldest keeps the plain name"


def test_an_older_arm_processor_listed_no_instructions_and_is_not_held_to_that():
    arm = {"name": "aarch64", "family": None, "instructions": [], "cores": 4}

    assert of(arm).instructions is None
    assert of(arm | {"family": "6"}).instructions == ()


def test_the_committed_runs_are_of_the_machine_that_their_manifests_name():
    runs = [run for run in committed() if isinstance(run, Evidence)]

    for run in with_machines(runs):
        assert run.machine == run.manifest["environment"]["device"]
        assert identity(run.manifest["environment"]).instructions


@pytest.fixture
def mixed(tmp_path):
    """Runs of a page on one machine, on another of its name, and on the first again."""
    cpus = (OLD, AVX2, NEW)
    return [history_run(tmp_path, "throughput", machine=NAME, cpu=cpu) for cpu in cpus]


def test_history_joins_runs_of_one_machine_and_no_others(mixed):
    old, other, new = mixed
    there = f"{NAME}, avx2"

    assert [(a.folder, b.folder) for a, b in pairs(with_machines(mixed))] == [
        (new.folder, old.folder), (other.folder, old.folder),
    ]  # fmt: skip
    said = regressions(mixed).set_index("machine")["reason"]
    assert said[there] == f"machine: {there}, before {NAME}"
    assert not said[NAME]
    assert {trend.machine: len(trend.runs) for trend in trends(mixed)} == {NAME: 2, there: 1}
    assert list(best_numbers(mixed)["machine"]) == [NAME, there]
    assert list(runs_table(mixed)["machine"]) == [NAME, there, NAME]


def test_the_noise_floor_of_another_machine_is_not_this_ones(tmp_path):
    noisy = history_run(tmp_path, "throughput", {"noise_floor": 0.5}, machine=NAME, cpu=AVX2)
    quiet = history_run(tmp_path, "throughput", {"noise_floor": 0.1}, machine=NAME, cpu=OLD)

    assert machine_floor([quiet, noisy], quiet) == 0.1
    assert machine_floor([noisy], quiet) is None


def test_a_claim_and_the_other_runs_of_a_page_stay_on_their_machine(mixed, monkeypatch):
    source = Source(page="throughput", preset="cpu", device=NAME)
    checker = ClaimChecker(mixed)

    assert checker.run(source) == mixed[2]
    other = checker.run(source.model_copy(update={"device": f"{NAME}, avx2"}))
    assert other == mixed[1]
    monkeypatch.setattr(landing, "headlines_of", lambda run: [run])
    shown = with_machines(mixed)
    here = type("Number", (), {"run": shown[2]})()
    monkeypatch.setattr(type(landing.pages()["throughput"]), "summary", lambda page, found: "found")
    assert [line.split("`")[1] for line in landing._others([here], shown)] == [shown[0].name]


def test_an_older_run_keeps_its_name_whatever_comes_after_it(mixed):
    names = [run.machine for run in with_machines(mixed)]

    assert [run.machine for run in with_machines(mixed[:2])] == names[:2]
    unfinished = replace(mixed[1], manifest=mixed[1].manifest | {"status": "failed"})
    earlier = unfinished.manifest | {"started_at": "2020-01-01"}
    found = with_machines([replace(unfinished, manifest=earlier), *mixed])
    assert [machine(run) for run in found[1:]] == names


def settings(variables=None, *, prefixes=None, threads=2, **start):
    told = {"threads": threads, "variables": variables or {}}
    told |= {"prefixes": prefixes} if prefixes else {}
    return {"environment": {"settings": told}, "conditions": {"start": start}}


ALL = ["OMP_", "ONEDNN_", "LD_PRELOAD", "TORCH", "NVIDIA_", "CUDA_"]


@pytest.mark.parametrize(
    ("newer", "older", "said"),
    [
        (settings(), settings(), []),
        (settings(threads=1), settings(), ["threads: 1, before 2"]),
        (settings({"OMP_WAIT_POLICY": "x"}), settings(), ["OMP_WAIT_POLICY: x, before not set"]),
        (
            settings({"LD_PRELOAD": "libjemalloc.so.2"}, prefixes=ALL),
            settings(prefixes=ALL),
            ["LD_PRELOAD: libjemalloc.so.2, before not set"],
        ),
        (settings({"LD_PRELOAD": ""}, prefixes=ALL), settings(prefixes=ALL), []),
        (settings({"ONEDNN_MAX_CPU_ISA": "AVX2"}, prefixes=ALL), settings(), []),
        (settings({"TORCH_HOME": "x", "CUDA_VISIBLE_DEVICES": "0"}, prefixes=ALL),
         settings(prefixes=ALL), []),
        (settings({"NVIDIA_TF32_OVERRIDE": "0", "NVIDIA_REQUIRE_CUDA": "1"}, prefixes=ALL),
         settings(prefixes=ALL), ["NVIDIA_TF32_OVERRIDE: 0, before not set"]),
        (settings(governor="powersave", turbo=True), settings(governor="performance", turbo=True),
         ["governor: powersave, before performance"]),
        (settings(governor=None, turbo=False), settings(governor="performance", turbo=True),
         ["turbo: False, before True"]),
    ],
    ids=[
        "the same", "threads", "a variable", "a library loaded first", "an empty one",
        "once not recorded", "harmless", "of containers", "governor", "turbo",
    ],
)  # fmt: skip
def test_what_was_set_otherwise_is_named(newer, older, said):
    assert list(other_settings(newer, older)) == said


def test_runs_made_under_other_settings_are_not_compared(tmp_path):
    older, newer = (history_run(tmp_path, "throughput") for _ in range(2))
    told = newer.manifest["environment"]
    changed = told | {"settings": {"threads": 2, "variables": {"OMP_PROC_BIND": "close"}}}
    newer = replace(newer, manifest=newer.manifest | {"environment": changed})

    [row] = regressions([older, newer]).to_dict("records")

    assert row["reason"] == "OMP_PROC_BIND: close, before not set"


def test_a_label_is_no_part_of_what_a_run_is():
    run = Evidence(Path("reports/benchmarks/a"), {"environment": {"device": NAME}})

    assert run == replace(run, label="other")
