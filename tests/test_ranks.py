"""Ranks are held to one process; how processes are told what to do, watched and stopped."""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from psannlm.checks import launcher, ranks
from psannlm.checks.findings import Case
from psannlm.checks.launcher import ProcessError, Task, run_jobs
from psannlm.checks.networks import Learned, learn, n_different, start
from psannlm.checks.ranks import steps_of, train, work
from psannlm.train.distributed import Ranks
from tests.checked import BASES, case_of, failed, validation_config

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
TINY = validation_config(n_layers=1, context_length=8, base="transformer")
CASE = case_of("transformer", only="GPU-05")

GRADIENTS, UPDATE, LOSSES, EQUAL, CONTROL = (
    "difference of the gradients from those of one process, relative, worst parameter",
    "difference of what 3 AdamW steps changed, relative",
    "difference of the losses, relative, worst step",
    "parameters that differ between the ranks, elements",
    "control: difference of one rank's own gradients from those of both, relative",
)


def learned_alone(case: Case) -> Learned:
    """What one process learns."""
    return ranks._alone(case, CPU)[1]


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """Jobs of each start of ranks, which leave what one process learns."""
    starts: list[list[str]] = []

    def run_jobs(_: Any, task: Task) -> Any:
        starts.append(list(task.jobs))
        bases = {job: job.split(".")[1] for job in task.jobs}
        cases = {base: Case(base=base, config=task.config, device=CPU) for base in bases.values()}
        made = {base: learned_alone(case) for base, case in cases.items()}
        return {job: [made[base]] * 2 for job, base in bases.items()}

    monkeypatch.setattr(ranks, "run_jobs", run_jobs)
    monkeypatch.setattr(launcher, "_made", {})
    return starts


def test_ranks_are_started_once_for_all_bases_and_both_ways(started) -> None:
    config = validation_config(base=BASES[:2])
    cases = [Case(base=base, config=config, device=CPU) for base in BASES[:2]]

    results = [ranks.check(case, kind) for kind in ("ddp", "fsdp") for case in cases]

    jobs = ["ddp.respsann", "ddp.sgrpsann", "fsdp.respsann", "fsdp.sgrpsann"]
    assert started == [jobs]
    assert not any(failed(result) for result in results)
    assert results[0].device == "cpu, 2 processes over gloo, as no GPU is used"
    ranks.check(cases[0], "fsdp")  # a result that has been asked for is made anew
    assert sorted(started[1]) == jobs


@pytest.fixture(scope="module")
def alone() -> Learned:
    return learned_alone(CASE)


def judged(patch: pytest.MonkeyPatch, left: Any, case: Case = CASE) -> list[str]:
    """What is out of bounds if this is left of the ranks."""
    patch.setattr(ranks, "run_jobs", lambda *_: {"ddp.transformer": left})
    return [*failed(ranks.check(case, "ddp"))]


@pytest.mark.parametrize(
    ("part", "name", "error", "rank", "broken"),
    [
        ("losses", "", 0.0, 0, []),
        ("gradients", "model.blocks.1.mlp.up.bias", 1e-3, 0, [GRADIENTS]),
        ("parameters", "model.lm_head.weight", 1e-3, 0, [UPDATE, EQUAL]),
        ("losses", "", 0.01, 0, [LOSSES]),
        ("parameters", "model.norm.weight", 1e-6, 1, [EQUAL]),
    ],
)
def test_each_measure_sees_what_it_is_for(
    monkeypatch, alone, part, name, error, rank, broken
) -> None:
    left = [alone, alone]
    right = getattr(alone, part)
    wrong = right | {name: right[name] + error} if name else right + error
    left[rank] = replace(alone, **{part: wrong})

    assert judged(monkeypatch, left) == broken


def test_text_that_repeats_itself_is_no_evidence(monkeypatch, tmp_path) -> None:
    (tmp_path / "same.txt").write_text(("a" * 4000 + "\n") * 3)
    case = case_of("transformer", only="GPU-05", corpus=str(tmp_path / "same.txt"))

    assert judged(monkeypatch, [learned_alone(case)] * 2, case) == [CONTROL]


def test_a_gradient_that_a_rank_has_not_is_infinitely_off(monkeypatch, alone) -> None:
    gradients = {name: t for name, t in alone.gradients.items() if name != "model.norm.weight"}

    assert judged(monkeypatch, [replace(alone, gradients=gradients)] * 2) == [GRADIENTS]
    with pytest.raises(ProcessError, match="timed out after 1 s; last words: still here"):
        judged(monkeypatch, ProcessError("timed out after 1 s; last words: still here"))


@pytest.mark.parametrize(
    ("n_gpus", "device", "words"),
    [
        (0, "cpu", "cpu, 2 processes over gloo, as no GPU is used"),
        (1, "cpu", "cpu, 2 processes over gloo, as there is one GPU"),
        (2, "cuda", "cuda, 2 processes over nccl, a GPU each"),
    ],
)
def test_two_gpus_are_used_if_there_are_two(monkeypatch, n_gpus, device, words) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    case = replace(CASE, device=torch.device("cuda" if n_gpus else "cpu"))

    assert ranks._place(case) == (torch.device(device), words)


def test_a_rank_has_two_passes_of_text_of_its_own_in_each_of_three_steps() -> None:
    passes = [text for rank in (0, 1) for step in steps_of(TINY, rank) for text in step]

    assert [len(step) for step in steps_of(TINY, 1)] == [2, 2, 2]
    assert {tuple(text.shape) for text in passes} == {(TINY.batch, 9)}
    assert len(torch.cat(passes).unique(dim=0)) == 3 * 2 * 2 * TINY.batch


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_alone_learns_what_one_process_learns_from_its_text(monkeypatch, kind: str) -> None:
    asked: list[Any] = []

    def share(module: Any, *given: Any) -> Any:
        asked.append(given)
        return module

    monkeypatch.setattr(ranks, "share", share)
    objective, optimizer = start(TINY.network_of("transformer"), TINY, CPU, TINY.seed)
    expected = learn(objective, optimizer, steps_of(TINY, 0))

    found = train(TINY, f"{kind}.transformer", ALONE)

    assert torch.equal(found.losses, expected.losses)
    assert n_different(found.gradients, expected.gradients) == 0
    assert n_different(found.parameters, expected.parameters) == 0
    [(blocks, *others)] = asked
    assert (len(blocks), others) == (TINY.n_layers, [ALONE, kind])


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_ranks_find_each_other_by_a_file_in_their_folder(
    monkeypatch, tmp_path, device, backend
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **o: asked.append((given, o)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("end"))
    monkeypatch.setattr(ranks, "train", lambda config, job, joined: (job, joined))
    jobs = ("ddp.transformer", "fsdp.respsann")
    task = Task(TINY, jobs, torch.device(device), world=2, rank=1, folder=tmp_path)

    left = list(work(task))

    own = torch.device("cuda", 1) if device == "cuda" else CPU
    assert left == [(job, Ranks(1, 2, own)) for job in jobs]
    options = {"init_method": (tmp_path / "store").as_uri(), "rank": 1, "world_size": 2}
    assert asked == [*([own] if device == "cuda" else []), ((backend,), options), "end"]


def tiny_work(task: Task) -> Iterator[list[int]]:
    """What a job does is its name: `dies` ends, `waits` does not, all others are done."""
    for job in task.jobs:
        if job == "dies" and task.rank == 1:
            sys.exit("out of ideas")
        while job in ("dies", "waits"):
            time.sleep(0.1)
        yield [task.rank, task.world, torch.get_num_threads(), task.config.seed]


def silent_work(task: Task) -> Iterator[Any]:
    sys.exit(0)


def run(doing: Any, *jobs: str, world: int = 2, **changes: Any) -> dict[str, Any]:
    """What processes leave, or how they fail, as text."""
    found = run_jobs(doing, Task(validation_config(**changes), jobs, CPU, world=world))
    return {job: str(left) if isinstance(left, Exception) else left for job, left in found.items()}


@pytest.mark.slow
def test_all_ranks_do_all_jobs_and_one_that_ends_costs_its_job_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    found = run(tiny_work, "a", "dies", "b", seed=7)

    told = [[0, 2, 1, 7], [1, 2, 1, 7]]
    died = "process 1 of 2 ended with status 1; last words: out of ideas"
    assert list(found.items()) == [("a", told), ("dies", died), ("b", told)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_that_take_too_long_are_stopped() -> None:
    begin = time.monotonic()

    found = run(tiny_work, "waits", timeout_seconds=0.3)

    assert found == {"waits": "timed out after 0.3 s; it said nothing"}
    assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_processes_that_leave_nothing_are_told_from_those_that_fail() -> None:
    assert run(silent_work, "a", world=1) == {"a": "the processes ended without a result"}
