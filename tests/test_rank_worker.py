"""A rank is trained on text of its own, and leaves what it learned."""

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from psannlm.checks import launcher, rank_worker
from psannlm.checks.courses import learn, n_different, objective_of, optimizer_of, parameters_of
from psannlm.checks.launcher import TASK, Task
from psannlm.checks.rank_worker import joined, main, steps_of, train
from psannlm.train.distributed import Ranks
from tests.checked import validation_config

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
TINY = validation_config(n_layers=1, context_length=8, base="transformer")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What process groups are asked for; an empty set of options where one is left."""
    asked: list[dict[str, Any]] = []

    def init(backend: str, **options: Any) -> None:
        asked.append({"backend": backend} | options)

    monkeypatch.setattr(dist, "init_process_group", init)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append({}))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append({"device": device}))
    return asked


def task(folder: Path, **changes: Any) -> Task:
    values = {"config": TINY, "jobs": ("ddp.transformer",), "device": "cpu", "folder": folder}
    return Task(**values | {"rank": 0, "world": 2} | changes)


def test_each_rank_has_two_passes_in_each_of_three_steps() -> None:
    steps = steps_of(TINY, 1)

    assert [len(passes) for passes in steps] == [2, 2, 2]
    assert {tuple(text.shape) for passes in steps for text in passes} == {(TINY.batch, 9)}


def test_no_two_passes_of_a_step_are_the_same_text() -> None:
    seen = [text for rank in (0, 1) for step in steps_of(TINY, rank) for text in step]

    rows = torch.cat(seen)
    assert len(rows) == 3 * 2 * 2 * TINY.batch
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_alone_leaves_what_one_process_learns_from_its_text(kind: str) -> None:
    objective = objective_of(TINY.network_of("transformer"), TINY.seed, CPU)
    learned = learn(objective, optimizer_of(objective, TINY), steps_of(TINY, 0), CPU)
    expected = {f"gradient.{name}": t for name, t in learned.gradients.items()}
    expected |= {f"parameter.{name}": t for name, t in parameters_of(objective).items()}

    left = train(TINY, f"{kind}.transformer", ALONE)

    assert n_different(left, expected | {"losses": learned.losses}) == 0
    assert len(learned.losses) == 3


def test_a_network_is_shared_by_its_blocks_in_the_way_that_the_job_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []

    def share(module: Any, blocks: Any, ranks: Ranks, kind: str) -> Any:
        asked.append((blocks == list(module.model.blocks), len(blocks), ranks, kind))
        return module

    monkeypatch.setattr(rank_worker, "share", share)

    for kind in ("ddp", "fsdp"):
        train(TINY, f"{kind}.transformer", ALONE)

    assert asked == [(True, TINY.n_layers, ALONE, kind) for kind in ("ddp", "fsdp")]


def test_a_way_of_sharing_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no way to share a network is called tensor"):
        train(TINY, "tensor.transformer", ALONE)


def test_ranks_find_each_other_by_a_file_in_their_folder(group: list[Any], tmp_path: Path) -> None:
    ranks = joined(task(tmp_path, rank=1))

    assert astuple(ranks) == (1, 2, CPU)
    place = (tmp_path / "store").as_uri()
    assert group == [{"backend": "gloo", "init_method": place, "rank": 1, "world_size": 2}]


def test_each_rank_on_gpus_has_one_of_its_own(group: list[Any], tmp_path: Path) -> None:
    ranks = joined(task(tmp_path, rank=1, device="cuda"))

    own = torch.device("cuda", 1)
    assert ranks.device == own
    assert [(a.get("device"), a.get("backend")) for a in group] == [(own, None), (None, "nccl")]


def test_every_job_is_left_in_a_file_and_the_group_is_ended(
    group: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher, "stop_when_orphaned", lambda: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    jobs = ["ddp.transformer", "fsdp.respsann"]
    told = {"config": TINY.model_dump(mode="json"), "jobs": jobs, "device": "cpu", "threads": 1}
    (tmp_path / TASK).write_text(json.dumps(told))

    main(tmp_path)

    for job in jobs:
        left = load_file(tmp_path / f"{job}.0.safetensors")
        assert n_different(left, train(TINY, job, ALONE)) == 0
    assert [options.get("backend") for options in group] == ["gloo", None]
