"""Problems of fast paths cover what they say, and every path solves them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend

from psannlm.checks import problems
from psannlm.checks.exactness import Problem, results
from psannlm.checks.problems import DECAY_MODES, SPREADS, Draw
from psannlm.model import blockwise, loss
from psannlm.model.loss import IGNORED
from tests.checked import case_of

Make = Callable[[Draw], Iterator[Problem]]

MAKES: dict[str, Make] = {
    "sines": problems.sines,
    "attention_layers": problems.attention_layers,
    "attentions": functools.partial(problems.attentions, backends={"math": SDPBackend.MATH}),
    "losses": problems.losses,
    "gates": problems.gates,
    "waves": problems.waves,
}


def drawn(make: Make, precision: str = "fp32", seed: int = 0, **changes: Any) -> list[Problem]:
    return list(make(Draw(case_of("waveresnet", context_length=37, **changes), precision, seed)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_every_path_is_the_plain_one_in_float64(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "fits", lambda q: False)  # its scores are float32

    for problem in drawn(make):
        leaves = {
            name: leaf.detach().double().requires_grad_(leaf.requires_grad)
            for name, leaf in problem.leaves.items()
        }
        plain = results(problem.plain, leaves, "fp32")
        for path in problem.fast.values():
            found = results(path, leaves, "fp32")
            torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_leaves_follow_from_the_seed(make: Make) -> None:
    (first, *_), (again, *_), (other, *_) = drawn(make), drawn(make), drawn(make, seed=1)

    for name, leaf in first.leaves.items():
        assert torch.equal(leaf, again.leaves[name])
        assert not torch.equal(leaf, other.leaves[name])


def test_sines_are_tried_in_every_decay_mode_on_small_z_and_on_large() -> None:
    tried = drawn(problems.sines)

    assert len(tried) == len(DECAY_MODES) * len(SPREADS)
    assert sum("decay" not in problem.leaves for problem in tried) == len(SPREADS)
    phases = [(p.leaves["frequency"] * p.leaves["z"]).detach() for p in tried]
    reaches = sorted(phase.abs().max().item() for phase in phases)
    assert reaches[-3] > 100 * torch.pi


def test_some_chunks_divide_the_tokens_and_some_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    chunked = loss.linear_cross_entropy

    def note(*given: Any, targets: torch.Tensor, chunk_tokens: int) -> Any:
        sizes.append(chunk_tokens)
        assert (targets == IGNORED).any()
        return chunked(*given, targets=targets, chunk_tokens=chunk_tokens)

    monkeypatch.setattr(loss, "linear_cross_entropy", note)
    for problem in drawn(problems.losses):
        for path in problem.fast.values():
            path(*problem.leaves.values())

    n = 2 * 37
    assert len(sizes) == 3
    assert {n % size == 0 for size in sizes} == {True, False}


@pytest.mark.parametrize(("n_layers", "n_dilations"), [(3, 3), (6, 4)])
def test_the_wave_is_tried_at_every_dilation(n_layers: int, n_dilations: int) -> None:
    waves = drawn(problems.waves, "fp16", n_layers=n_layers)

    assert len(waves) == n_dilations
    for problem in waves:
        features, *parameters = problem.leaves.values()
        assert features.dtype == torch.float16
        assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_attention_in_blocks_is_tried_where_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_FAST_PRODUCTS", True)

    def names(precision: str) -> set[str]:
        (problem,) = drawn(MAKES["attentions"], precision)
        return set(problem.fast)

    assert "attention, in blocks" in names("bf16")
    assert "attention, in blocks" not in names("fp32")
