"""The formulas written a second time, beside the networks and beside sums done by hand."""

import math

import pytest
import torch
from torch import Tensor

from psannlm.checks import reference
from psannlm.checks.networks import difference
from psannlm.checks.reference import Reference, alibi_slopes, cut_to
from psannlm.model import positions
from psannlm.model.loss import IGNORED
from tests.networks import OPTIONS, VARIANTS, moved, tiny, tokens_of


@pytest.mark.parametrize(
    "options",
    [*OPTIONS.values(), *(pytest.param(o, marks=pytest.mark.slow) for o in VARIANTS.values())],
    ids=[*OPTIONS, *VARIANTS],
)
def test_networks_compute_their_formulas_but_for_rounding(options: dict[str, object]) -> None:
    config = tiny(**options)
    model, tokens = moved(config), tokens_of(config, 2, 24)

    exact, rounded = (Reference.of(model, t).logits(tokens) for t in (torch.float64, torch.float32))

    rounding = difference(rounded, exact)
    assert difference(model(tokens), exact) <= 4 * rounding < 1e-4


@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 6, 8, 12, 17])
def test_slopes_are_those_of_the_network_for_any_number_of_heads(n_heads: int) -> None:
    assert alibi_slopes(n_heads) == pytest.approx(positions.alibi_slopes(n_heads), rel=1e-15)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_losses_are_those_of_each_token_and_the_mean_of_those_that_count(dtype) -> None:
    logits, targets = draw(6, 5).to(dtype), torch.tensor([0, 1, IGNORED, 4, 2, IGNORED])

    each, mean = reference.token_losses(logits, targets), reference.mean_loss(logits, targets)

    wide = torch.promote_types(dtype, torch.float32)
    expected = -logits.to(wide).log_softmax(-1)[[0, 1, 3, 4], [0, 1, 4, 2]]
    torch.testing.assert_close(each[[0, 1, 3, 4]], expected)
    assert each[[2, 5]].tolist() == [0, 0]
    torch.testing.assert_close(mean, expected.mean())
    rows = reference.token_losses(logits.view(2, 3, 5), targets.view(2, 3))
    assert torch.equal(rows.flatten(), each)


def test_a_cut_rounds_values_and_gradients() -> None:
    x = torch.tensor([1.0 + 2**-9, math.pi], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([1.0 + 2**-9, 1.0], dtype=torch.float64)

    cut_to(torch.bfloat16)(x).backward(g)

    assert cut_to(torch.bfloat16)(x).tolist() == [1.0, 3.140625]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]
