"""The formulas written a second time, beside the networks and beside sums done by hand."""

import math

import pytest
import torch

from psannlm.checks.networks import difference
from psannlm.checks.reference import Reference, _slopes, cut_to, token_losses
from psannlm.model.positions import alibi_slopes
from tests.networks import OPTIONS, VARIANTS, moved, tiny, tokens_of


def gap_and_rounding(options: dict[str, object]) -> tuple[float, float]:
    config = tiny(**options)
    model = moved(config)
    tokens = tokens_of(config, 2, 24)

    exact, rounded = (Reference.of(model, t).logits(tokens) for t in (torch.float64, torch.float32))
    return difference(model(tokens), exact), difference(rounded, exact)


@pytest.mark.parametrize("name", OPTIONS)
def test_networks_compute_their_formulas_but_for_rounding(name: str):
    gap, rounding = gap_and_rounding(OPTIONS[name])

    assert gap <= 4 * rounding < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_formulas_hold_at_each_kind_of_positions(name: str):
    gap, rounding = gap_and_rounding(VARIANTS[name])

    assert gap <= 4 * rounding < 1e-4


@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 6, 8, 12, 17])
def test_slopes_are_those_of_the_network_for_any_number_of_heads(n_heads: int):
    assert _slopes(n_heads) == pytest.approx(alibi_slopes(n_heads), rel=1e-15)


def test_token_losses_are_torchs_cross_entropy(generator: torch.Generator):
    logits = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(7, (2, 5), generator=generator)

    losses = token_losses(logits, targets)

    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert losses.mean().item() == pytest.approx(wanted.item(), rel=1e-12)


def test_a_cut_rounds_values_and_gradients():
    x = torch.tensor([1.0 + 2**-9, math.pi], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([1.0 + 2**-9, 1.0], dtype=torch.float64)

    cut_to(torch.bfloat16)(x).backward(g)

    assert cut_to(torch.bfloat16)(x).tolist() == [1.0, 3.140625]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


def test_gradients_of_what_is_kept_are_not_asked_for():
    config = tiny(learnable=("amplitude",))
    tokens = tokens_of(config, 1, 9)

    reference = Reference.of(moved(config), torch.float64)
    gradients = reference.gradients(reference.losses(tokens[:, :-1], tokens[:, 1:]).mean())

    assert "blocks.0.mlp.nonlinearity.raw_amplitude" in gradients
    assert "blocks.0.mlp.nonlinearity.raw_decay" not in gradients
