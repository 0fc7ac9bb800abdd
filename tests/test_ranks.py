"""Ranks are held to one process; how processes are started, watched and stopped."""

import functools
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from psannlm.checks import ranks
from psannlm.checks.findings import Case
from psannlm.checks.networks import Learned, learn, n_different, start
from psannlm.checks.ranks import ProcessError, in_processes, steps_of, train, work
from psannlm.train.distributed import Ranks
from tests.checked import case_of, failed

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
TINY = case_of("transformer", n_layers=1, context_length=8)
CASE = case_of("transformer")

GRADIENTS, UPDATE, LOSSES, EQUAL, CONTROL = (name for name, _ in ranks.JUDGED.values())


@pytest.fixture(scope="module")
def alone() -> Learned:
    """What one process learns."""
    return ranks._alone(CASE, CPU)[1]


def judged(patch: pytest.MonkeyPatch, left: list[Learned], case: Case = CASE) -> list[str]:
    """What is out of bounds if this is left of the ranks."""
    patch.setattr(ranks, "in_processes", lambda *_: left)
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
def test_each_measure_sees_what_it_is_for(monkeypatch, alone, part, name, error, rank, broken):
    left = [alone, alone]
    right = getattr(alone, part)
    wrong = right | {name: right[name] + error} if name else right + error
    left[rank] = alone._replace(**{part: wrong})

    assert judged(monkeypatch, left) == broken


def test_text_that_repeats_itself_is_no_evidence(monkeypatch, tmp_path) -> None:
    (tmp_path / "same.txt").write_text(("a" * 4000 + "\n") * 3)
    case = case_of("transformer", corpus=str(tmp_path / "same.txt"))

    assert judged(monkeypatch, [ranks._alone(case, CPU)[1]] * 2, case) == [CONTROL]


def test_a_gradient_that_a_rank_has_not_is_infinitely_off(monkeypatch, alone) -> None:
    gradients = {name: t for name, t in alone.gradients.items() if name != "model.norm.weight"}

    assert judged(monkeypatch, [alone._replace(gradients=gradients)] * 2) == [GRADIENTS]


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
    passes = [text for rank in (0, 1) for step in steps_of(TINY.config, rank) for text in step]

    assert [len(step) for step in steps_of(TINY.config, 1)] == [2, 2, 2]
    assert {tuple(text.shape) for text in passes} == {(TINY.config.batch, 9)}
    assert len(torch.cat(passes).unique(dim=0)) == 3 * 2 * 2 * TINY.config.batch


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_alone_learns_what_one_process_learns_from_its_text(monkeypatch, kind: str) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(ranks, "share", lambda module, *given: asked.append(given) or module)
    objective, optimizer = start(TINY.network, TINY.config, CPU, TINY.config.seed)
    expected = learn(objective, optimizer, steps_of(TINY.config, 0))

    found = train(TINY, kind, ALONE)

    assert torch.equal(found.losses, expected.losses)
    assert n_different(found.gradients, expected.gradients) == 0
    assert n_different(found.parameters, expected.parameters) == 0
    [(blocks, *others)] = asked
    assert (len(blocks), others) == (1, [ALONE, kind])


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_a_rank_joins_the_other_before_it_trains(monkeypatch, device, backend) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **o: asked.append((given, o)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("end"))
    monkeypatch.setattr(ranks, "train", lambda *given: given)

    trained = work(TINY, "fsdp", torch.device(device), 1, "file:///store")

    own = torch.device("cuda", 1) if device == "cuda" else CPU
    assert trained == (TINY, "fsdp", Ranks(1, 2, own))
    options = {"init_method": "file:///store", "rank": 1, "world_size": 2}
    assert asked == [*([own] if device == "cuda" else []), ((backend,), options), "end"]


def finds(number: int) -> tuple[int, int]:
    return number, torch.get_num_threads()


def dies() -> None:
    sys.exit("out of ideas")


def waits() -> None:
    time.sleep(60)


@pytest.mark.slow
def test_every_process_leaves_what_it_finds() -> None:
    found = in_processes([functools.partial(finds, number) for number in (5, 7)], 60)

    assert found == [(5, 1), (7, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calls", "seconds", "said"),
    [
        ([waits, dies], 60, "process 1 of 2 ended with status 1; last words: out of ideas"),
        ([waits], 0.3, "timed out after 0.3 s; it said nothing"),
    ],
)
def test_one_that_fails_or_time_that_is_over_stops_all(calls, seconds, said) -> None:
    begin = time.monotonic()

    with pytest.raises(ProcessError, match=said):
        in_processes(calls, seconds)

    assert time.monotonic() - begin < 30
