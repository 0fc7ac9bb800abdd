"""Ranks are held to one process; how processes are told what to do, watched and stopped."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from psannlm.checks import ranks
from psannlm.checks.findings import Case
from psannlm.checks.launcher import Outcome, ProcessError, Results, Task, run_jobs
from psannlm.checks.ranks import join_group, main, steps_of, train
from psannlm.checks.training_runs import (
    Tensors,
    learn,
    n_different,
    parameters_of,
    start,
    with_prefix,
)
from psannlm.train.distributed import Ranks
from tests.checked import BASES, be_the_only_worker, case_of, failed, validation_config

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


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """Jobs of each start of ranks, which leave what one process learns."""
    starts: list[list[str]] = []

    def run_jobs(worker: Any, jobs: Sequence[str], config: Any, **options: Any) -> Any:
        starts.append(list(jobs))
        bases = {job: job.split(".")[1] for job in jobs}
        made = {
            b: ranks._alone(Case(base=b, config=config, device=CPU), "cpu") for b in bases.values()
        }
        return {job: Outcome((made[base], dict(made[base])), "") for job, base in bases.items()}

    monkeypatch.setattr(ranks, "run_jobs", run_jobs)
    monkeypatch.setattr(ranks, "_results", Results())
    return starts


def test_ranks_are_started_once_for_all_bases_and_both_ways(started) -> None:
    config = validation_config(base=BASES[:2])
    cases = [Case(base=base, config=config, device=CPU) for base in BASES[:2]]

    results = [check(case) for check in (ranks.ddp, ranks.fsdp) for case in cases]

    jobs = ["ddp.respsann", "ddp.sgrpsann", "fsdp.respsann", "fsdp.sgrpsann"]
    assert started == [jobs]
    assert not any(failed(result) for result in results)
    assert results[0].device == "cpu, 2 processes over gloo, as no GPU is used"
    ranks.fsdp(cases[0])  # a result that has been asked for is made anew
    assert sorted(started[1]) == jobs


@pytest.fixture(scope="module")
def alone() -> Tensors:
    """What one process learns."""
    return ranks._alone(CASE, "cpu")


def judged(patch: pytest.MonkeyPatch, outcome: Outcome, case: Case = CASE) -> list[str]:
    """What is out of bounds if the ranks end so."""
    patch.setattr(ranks, "run_jobs", lambda *_, **__: {"ddp.transformer": outcome})
    return [*failed(ranks.ddp(case))]


@pytest.mark.parametrize(
    ("name", "error", "rank", "broken"),
    [
        ("losses", 0.0, 0, []),
        ("gradient.model.blocks.1.mlp.up.bias", 1e-3, 0, [GRADIENTS]),
        ("parameter.model.lm_head.weight", 1e-3, 0, [UPDATE, EQUAL]),
        ("losses", 0.01, 0, [LOSSES]),
        ("parameter.model.norm.weight", 1e-6, 1, [EQUAL]),
    ],
)
def test_each_measure_sees_what_it_is_for(monkeypatch, alone, name, error, rank, broken) -> None:
    left = [alone, alone]
    left[rank] = alone | {name: alone[name] + error}

    assert judged(monkeypatch, Outcome(tuple(left), "")) == broken


def test_text_that_repeats_itself_is_no_evidence(monkeypatch, tmp_path) -> None:
    (tmp_path / "same.txt").write_text(("a" * 4000 + "\n") * 3)
    case = case_of("transformer", only="GPU-05", corpus=str(tmp_path / "same.txt"))
    alone = ranks._alone(case, "cpu")

    assert judged(monkeypatch, Outcome((alone, alone), ""), case) == [CONTROL]


def test_a_gradient_that_a_rank_has_not_is_infinitely_off(monkeypatch, alone) -> None:
    without = {name: t for name, t in alone.items() if name != "gradient.model.norm.weight"}

    assert judged(monkeypatch, Outcome((without, without), "")) == [GRADIENTS]
    with pytest.raises(ProcessError, match="timed out after 1 s; last words: still here"):
        judged(monkeypatch, Outcome((), "timed out after 1 s; last words: still here"))


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
    place = torch.device("cuda" if n_gpus else "cpu")

    assert ranks._place(Case(base=CASE.base, config=CASE.config, device=place)) == (device, words)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What process groups are asked for; an empty set of options where one is left."""
    asked: list[dict[str, Any]] = []
    calls = {
        (dist, "init_process_group"): lambda backend, **o: asked.append({"backend": backend} | o),
        (dist, "destroy_process_group"): lambda: asked.append({}),
        (torch.cuda, "set_device"): lambda device: asked.append({"device": device}),
    }
    for (module, name), call in calls.items():
        monkeypatch.setattr(module, name, call)
    return asked


def test_a_rank_has_two_passes_of_text_of_its_own_in_each_of_three_steps() -> None:
    passes = [text for rank in (0, 1) for step in steps_of(TINY, rank) for text in step]

    assert [len(step) for step in steps_of(TINY, 1)] == [2, 2, 2]
    assert {tuple(text.shape) for text in passes} == {(TINY.batch, 9)}
    assert len(torch.cat(passes).unique(dim=0)) == 3 * 2 * 2 * TINY.batch


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_alone_leaves_what_one_process_learns_from_its_text(kind: str) -> None:
    objective, optimizer = start(TINY.network_of("transformer"), TINY, CPU, TINY.seed)
    learned = learn(objective, optimizer, steps_of(TINY, 0), CPU)
    expected = with_prefix("gradient.", learned.gradients) | {"losses": learned.losses}
    expected |= with_prefix("parameter.", parameters_of(objective))

    assert n_different(train(TINY, f"{kind}.transformer", ALONE), expected) == 0


def test_a_network_is_shared_by_its_blocks_in_the_way_that_the_job_names(monkeypatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def share(module: Any, blocks: Any, ranks: Ranks, kind: str) -> Any:
        asked.append((blocks == list(module.model.blocks), len(blocks), ranks, kind))
        return module

    with pytest.raises(ValueError, match="no way to share a network is called tensor"):
        train(TINY, "tensor.transformer", ALONE)
    monkeypatch.setattr(ranks, "share", share)
    for kind in ("ddp", "fsdp"):
        train(TINY, f"{kind}.transformer", ALONE)

    assert asked == [(True, TINY.n_layers, ALONE, kind) for kind in ("ddp", "fsdp")]


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_ranks_find_each_other_by_a_file_in_their_folder(group, tmp_path, device, backend) -> None:
    joined = join_group(Task(TINY, ("ddp.transformer",), device, tmp_path, 1, 2))

    own = torch.device("cuda", 1) if device == "cuda" else CPU
    assert astuple(joined) == (1, 2, own)
    store = (tmp_path / "store").as_uri()
    first = [{"device": own}] if device == "cuda" else []
    options = {"backend": backend, "init_method": store, "rank": 1, "world_size": 2}
    assert group == [*first, options]


def test_every_job_is_left_in_a_file_and_the_group_is_ended(
    group: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = ["ddp.transformer", "fsdp.respsann"]
    be_the_only_worker(monkeypatch, tmp_path, TINY, *jobs)

    main(tmp_path)

    for job in jobs:
        left = load_file(tmp_path / f"{job}.0.safetensors")
        assert n_different(left, train(TINY, job, ALONE)) == 0
    assert [options.get("backend") for options in group] == ["gloo", None]


WORKER = ("tests.tiny_worker",)


def run(worker: tuple[str, ...], *jobs: str, **options: Any) -> dict[str, Outcome]:
    """What two processes leave, or as many as asked."""
    given = {"config": validation_config(), "device": "cpu", "world": 2, "threads": 1} | options
    return dict(run_jobs(worker, jobs, **given))


@pytest.mark.slow
def test_all_ranks_do_all_jobs_and_one_that_ends_costs_its_job_alone(monkeypatch, tmp_path) -> None:
    saved, temporary = tmp_path / "saved", tmp_path / "temporary"
    saved.mkdir()
    temporary.mkdir()
    (saved / "there.txt").write_text("12345")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    found = run(WORKER, "a", "dies", "b", config=validation_config(seed=7), beside=saved)

    assert list(found) == ["a", "dies", "b"]
    for job in ("a", "b"):
        assert found[job].reason == ""
        told = [found[job].of(rank)["told"].tolist() for rank in (0, 1)]
        assert told == [[0, 2, 1, 7, 5], [1, 2, 1, 7, 5]]
    said = "process 1 of 2 ended with status 1; last words: out of ideas"
    with pytest.raises(ProcessError, match=said):
        found["dies"].of(0)
    assert (saved / "there.txt").read_text() == "12345"
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_processes_that_take_too_long_are_stopped() -> None:
    start = time.monotonic()

    # A module of Python's own, which starts at once and listens for ever.
    server = ("http.server", "0", "--directory")
    found = run(server, "a", config=validation_config(timeout_seconds=0.3))

    assert found["a"].reason.startswith("timed out after 0.3 s; ")
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_processes_that_leave_nothing_are_told_from_those_that_fail() -> None:
    silent, failed = (run((module,), "a", world=1)["a"] for module in ("this", "nowhere"))

    assert silent == Outcome((), "the processes ended without a result")
    assert "ended with status 1; last words: " in failed.reason
    assert failed.reason.endswith("No module named nowhere")
