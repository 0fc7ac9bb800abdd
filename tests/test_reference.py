"""The formulas written a second time, beside the networks and beside sums done by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.checks import reference
from psannlm.checks.networks import difference
from psannlm.checks.reference import Reference, cut_to
from psannlm.model.loss import IGNORED
from psannlm.model.transformer import Attention
from tests.networks import OPTIONS, VARIANTS, moved, randomise, tiny, tokens_of


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


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


@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
def test_damped_sine_is_its_formula(mode: str) -> None:
    z, a, f, d = draw(4, 3), 1.5, 0.7, 0.3
    gains = [torch.full((3,), value, dtype=torch.float64) for value in (a, f, d)]

    y = reference.damped_sine(z, *gains[:2], None if mode == "none" else gains[2], mode)

    for value, x in zip(y.flatten().tolist(), z.flatten().tolist(), strict=True):
        size = {"abs": abs(x), "relu": max(x, 0.0), "none": 0.0}[mode]
        assert value == pytest.approx(a * math.exp(-d * size) * math.sin(f * x), abs=1e-14)


def test_attention_weighs_what_came_before_by_the_softmax_of_the_scores() -> None:
    q, k, v = (draw(1, 2, 5, 4 + i)[..., :4] for i in range(3))

    y = reference.attention(q, k, v, scale=0.5)

    for head in range(2):
        for i in range(5):
            weights = [math.exp(0.5 * float(q[0, head, i] @ k[0, head, j])) for j in range(i + 1)]
            row = sum(w * v[0, head, j] for j, w in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(y[0, head, i], row)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
def test_attention_layer_is_that_of_the_networks(positions, n_heads, generator) -> None:
    config = tiny(d_model=4 * n_heads, n_heads=n_heads, positions=positions, context_length=300)
    layer = Attention(config)
    randomise(layer, generator)

    for length in (1, 9, 300):
        x = torch.randn(2, length, config.d_model, generator=generator)
        y = reference.attention_layer(x, layer.to_qkv.weight, layer.out.weight, config)

        # Scores reach about 300 and are rounded to 1e-16 of that; values to a few units.
        torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-9)


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
    assert torch.equal(rows.flatten(), cross_entropy(logits.to(wide), targets, reduction="none"))


def test_a_cut_rounds_values_and_gradients() -> None:
    x = torch.tensor([1.0 + 2**-9, math.pi], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([1.0 + 2**-9, 1.0], dtype=torch.float64)

    cut_to(torch.bfloat16)(x).backward(g)

    assert cut_to(torch.bfloat16)(x).tolist() == [1.0, 3.140625]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


def test_gradients_of_what_is_not_learned_are_not_asked_for() -> None:
    config = tiny(learnable=("amplitude",))
    tokens = tokens_of(config, 1, 9)

    formulas = Reference.of(moved(config), torch.float64)
    losses = reference.token_losses(formulas.logits(tokens[:, :-1]), tokens[:, 1:])
    gradients = formulas.gradients(losses.mean())

    assert "blocks.0.mlp.nonlinearity.raw_amplitude" in gradients
    assert "blocks.0.mlp.nonlinearity.raw_decay" not in gradients
