"""Ranks are held to one process: what they leave is judged, however they came to it.

Real processes, sound and broken, are started in test_twins.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from psannlm.checks import ranks
from psannlm.checks.courses import Tensors
from psannlm.checks.findings import Case
from psannlm.checks.launcher import Outcome, ProcessError
from tests.checked import BASES, case_of, failed, validation_config

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
        outcomes = {}
        for job in jobs:
            case = Case(base=job.split(".")[1], config=config, device=torch.device("cpu"))
            alone = ranks._alone(case, "cpu")
            outcomes[job] = Outcome((alone, dict(alone)), "")
        return outcomes

    monkeypatch.setattr(ranks, "run_jobs", run_jobs)
    monkeypatch.setattr(ranks, "_waiting", {})
    return starts


def test_ranks_are_started_once_for_all_bases_and_both_ways(started) -> None:
    config = validation_config(base=BASES[:2])
    cases = [Case(base=base, config=config, device=torch.device("cpu")) for base in BASES[:2]]

    results = [check(case) for check in (ranks.ddp, ranks.fsdp) for case in cases]

    assert started == [["ddp.respsann", "ddp.sgrpsann", "fsdp.respsann", "fsdp.sgrpsann"]]
    assert not any(failed(result) for result in results)
    assert results[0].device == "cpu, 2 processes over gloo, as no GPU is used"


def test_what_was_asked_for_once_is_made_anew(started) -> None:
    case = case_of("respsann", only="GPU-06")

    for _ in range(2):
        ranks.fsdp(case)

    assert started == [["fsdp.respsann"]] * 2


def measured(monkeypatch, changed: Tensors, of_rank: int = 0, **changes: Any) -> list[str]:
    """What is out of bounds if a rank leaves these tensors and, else, all is as it should be."""
    case = case_of("transformer", only="GPU-05", **changes)
    alone = ranks._alone(case, "cpu")
    left = [alone, alone]
    left[of_rank] = alone | {n: change + alone[n] for n, change in changed.items()}
    outcome = Outcome(tuple(left), "")
    monkeypatch.setattr(ranks, "run_jobs", lambda *_, **__: {"ddp.transformer": outcome})
    return [*failed(ranks.ddp(case))]


def test_each_measure_sees_what_it_is_for(monkeypatch) -> None:
    small = {"gradient.model.blocks.1.mlp.up.bias": torch.tensor(1e-3)}
    far = {"parameter.model.lm_head.weight": torch.tensor(1e-3)}
    last_bit = {"parameter.model.norm.weight": torch.tensor(1e-6)}

    assert measured(monkeypatch, {}) == []
    assert measured(monkeypatch, small) == [GRADIENTS]
    assert measured(monkeypatch, far) == [UPDATE, EQUAL]
    assert measured(monkeypatch, {"losses": torch.tensor(0.01)}) == [LOSSES]
    assert measured(monkeypatch, last_bit, of_rank=1) == [EQUAL]


def test_text_that_repeats_itself_is_no_evidence(monkeypatch, tmp_path) -> None:
    (tmp_path / "same.txt").write_text(("a" * 4000 + "\n") * 3)

    assert measured(monkeypatch, {}, corpus=str(tmp_path / "same.txt")) == [CONTROL]


def test_a_gradient_that_a_rank_has_not_is_infinitely_off(monkeypatch) -> None:
    case = case_of("transformer", only="GPU-05")
    alone = ranks._alone(case, "cpu")
    without = {name: t for name, t in alone.items() if name != "gradient.model.norm.weight"}
    outcome = Outcome((without, without), "")
    monkeypatch.setattr(ranks, "run_jobs", lambda *_, **__: {"ddp.transformer": outcome})

    assert [*failed(ranks.ddp(case))] == [GRADIENTS]


def test_ranks_that_leave_nothing_fail_with_their_last_words(monkeypatch) -> None:
    outcome = Outcome((), "timed out after 1 s; last words: still here")
    monkeypatch.setattr(ranks, "run_jobs", lambda *_, **__: {"ddp.transformer": outcome})

    with pytest.raises(ProcessError, match="timed out after 1 s; last words: still here"):
        ranks.ddp(case_of("transformer", only="GPU-05"))


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
    case = case_of("respsann")
    case = Case(
        base=case.base, config=case.config, device=torch.device("cuda" if n_gpus else "cpu")
    )

    assert ranks._place(case) == (device, words)
