"""What is measured of a side, on a network whose every number is known."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from psannlm.bench.timing import Timing
from psannlm.pages.peer import works as peer_works
from psannlm.pages.peer.works import measure
from tests.peers import TOOLS, side_task, text_of
from tests.standing_alone import foreign_imports


class Known:
    """An embedding and a head; tells what it was asked for."""

    attention, loss, generation, note = "no attention", "plain loss", "all at once", "a stand-in"

    def __init__(self, n_made: int = 5) -> None:
        self.n_made, self.asked = n_made, []
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(24, 8), nn.Linear(8, 24, bias=False))

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        return self.model

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Callable[[Tensor, Tensor], Tensor]:
        self.asked.append(compiled)
        return lambda tokens, targets: TOOLS.saved_worker.next_token_loss(
            model, tokens, targets, None
        )

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        self.prompt = prompt
        return lambda: self.n_made


def time_steps(step, *, stopwatch, min_seconds, min_steps) -> Timing:
    """Three steps, of which two are timed."""
    results = [step() for _ in range(3)]
    seconds = tuple(1.0 for _ in results[1:])
    return Timing(first_seconds=1.0, n_warmup=1, steady=True, seconds=seconds)


FAST = SimpleNamespace(
    **vars(TOOLS)
    | {"timing": SimpleNamespace(time_steps=time_steps, stopwatch_for=lambda device: None)}
)


def test_both_sides_get_the_same_tokens_and_those_that_follow():
    tokens, targets = peer_works.batch_of(side_task())

    text = text_of(side_task())
    assert torch.equal(tokens, text[:, :-1])
    assert torch.equal(targets, text[:, 1:])
    assert not torch.equal(tokens, peer_works.batch_of(side_task(seed=1))[0])


def test_a_forward_pass_is_in_evaluation_mode_without_gradients():
    side = Known()
    seen = []
    side.model.register_forward_hook(
        lambda model, inputs, out: seen.append((model.training, out.requires_grad))
    )

    found = measure(side, side_task(), "forward", FAST)

    assert set(seen) == {(False, False)}
    assert found == {
        "n_parameters": 2 * 24 * 8,
        "choices": "no attention; eager; a stand-in",
        "tokens": 16,
        "seconds": (1.0, 1.0),
    }


def test_half_precision_is_that_of_autocast():
    side = Known()
    seen = []
    side.model.register_forward_hook(lambda model, inputs, out: seen.append(out.dtype))

    measure(side, side_task(precision="bf16"), "forward", FAST)
    measure(side, side_task(), "forward", FAST)

    assert seen == [torch.bfloat16] * 3 + [torch.float32] * 3


def test_a_training_step_learns():
    side = Known()
    before = [p.clone() for p in side.model.parameters()]

    found = measure(side, side_task(), "train_step", FAST)

    assert side.model.training
    assert not any(torch.equal(a, b) for a, b in zip(before, side.model.parameters(), strict=True))
    assert found["choices"] == "no attention; plain loss; eager; a stand-in"
    assert found["tokens"] == 16


def test_a_loss_that_is_no_number_is_a_failure():
    side = Known()
    with torch.no_grad():
        side.model[1].weight.fill_(math.nan)

    with pytest.raises(ArithmeticError, match="loss is nan after 2 timed steps"):
        measure(side, side_task(), "train_step", FAST)


def test_kept_bytes_are_those_of_the_whole_step_without_parameters():
    found = measure(Known(), side_task(), "saved", TOOLS)

    tokens, embedded, log_chances, targets = 16 * 8, 16 * 8 * 4, 16 * 24 * 4, 16 * 8
    # Besides, the sum of the targets' weights.
    assert found["saved_bytes"] == tokens + embedded + log_chances + targets + 4
    assert found["seconds"] == ()


def test_generation_continues_the_first_tokens_of_the_batch():
    side = Known()

    found = measure(side, side_task(), "generate", FAST)

    assert side.prompt == text_of(side_task())[0, :3].tolist()
    assert found["tokens"] == 5
    assert found["choices"] == "no attention; all at once; eager; a stand-in"


def test_a_generation_of_another_length_is_a_failure():
    with pytest.raises(ArithmeticError, match="made 4 tokens where 5 were asked for"):
        measure(Known(n_made=4), side_task(), "generate", FAST)


@pytest.fixture
def compiled(monkeypatch):
    """Functions that were asked to be compiled; each call of one is `calls` too."""
    made = SimpleNamespace(functions=[], calls=[])

    def compile_(function):
        made.functions.append(function)

        def whole(*inputs):
            made.calls.append(inputs)
            return function(*inputs)

        return whole

    monkeypatch.setattr(torch, "compile", compile_)
    return made


@pytest.mark.parametrize(("work", "n_calls"), [("forward", 1 + 3), ("train_step", 1 + 3)])
def test_the_best_setting_is_compiled(work, n_calls, compiled):
    side = Known()

    found = measure(side, side_task(setting="best"), work, FAST)

    assert len(compiled.functions) == 1
    assert len(compiled.calls) == n_calls
    assert "compiled" in found["choices"]
    assert side.asked == ([True] if work == "train_step" else [])


@pytest.mark.parametrize("work", ["forward", "train_step", "saved", "generate"])
def test_the_defaults_are_not(work, compiled):
    measure(Known(), side_task(), work, FAST)

    assert compiled.functions == []


def refuses(error: Exception) -> Callable:
    def fails(*_):
        raise error

    return lambda function: fails


@pytest.mark.parametrize("work", ["forward", "train_step"])
def test_what_does_not_compile_is_measured_eager_and_says_so(work, monkeypatch):
    monkeypatch.setattr(torch, "compile", refuses(ValueError("no such\noperation")))

    found = measure(Known(), side_task(setting="best"), work, FAST)

    assert "eager, as it does not compile (ValueError: no such)" in found["choices"]
    assert len(found["seconds"]) == 2


def test_memory_that_runs_out_in_compiling_is_a_failure(monkeypatch):
    monkeypatch.setattr(torch, "compile", refuses(torch.OutOfMemoryError("8 GiB")))

    with pytest.raises(torch.OutOfMemoryError):
        measure(Known(), side_task(setting="best"), "forward", FAST)


def test_it_needs_torch_alone():
    assert foreign_imports(peer_works) == set()
