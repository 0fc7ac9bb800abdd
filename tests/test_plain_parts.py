"""Plain parts are the formulas that the networks compute, by independent means."""

import math

import pytest
import torch
from networks import tiny
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.checks import plain_parts
from psannlm.model.loss import IGNORED
from psannlm.model.mixers import SpectralGate
from psannlm.model.transformer import Attention

pytestmark = pytest.mark.usefixtures("float64")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))


@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
def test_damped_sine_is_its_formula(mode: str) -> None:
    z, a, f, d = draw(4, 3), 1.5, 0.7, 0.3
    gains = [torch.full((3,), value) for value in (a, f, d)]

    y = plain_parts.damped_sine(z, *gains[:2], None if mode == "none" else gains[2], mode)

    for value, x in zip(y.flatten().tolist(), z.flatten().tolist(), strict=True):
        size = {"abs": abs(x), "relu": max(x, 0.0), "none": 0.0}[mode]
        assert value == pytest.approx(a * math.exp(-d * size) * math.sin(f * x), abs=1e-14)


def test_attention_weighs_what_came_before_by_the_softmax_of_the_scores() -> None:
    q, k, v = (draw(1, 2, 5, 4 + i)[..., :4] for i in range(3))

    y = plain_parts.attention(q, k, v, scale=0.5)

    for head in range(2):
        for i in range(5):
            weights = [math.exp(0.5 * float(q[0, head, i] @ k[0, head, j])) for j in range(i + 1)]
            row = sum(w * v[0, head, j] for j, w in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(y[0, head, i], row)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
def test_attention_layer_is_that_of_the_networks(positions: str) -> None:
    config = tiny(positions=positions)
    layer = Attention(config)
    x = draw(2, 24, 8)

    y = plain_parts.attention_layer(x, layer.to_qkv.weight, layer.out.weight, config)

    torch.testing.assert_close(y, layer(x), rtol=1e-12, atol=1e-13)


def test_losses_are_those_of_each_token_and_the_mean_of_those_that_count() -> None:
    logits, targets = draw(6, 5), torch.tensor([0, 1, IGNORED, 4, 2, IGNORED])

    each, mean = plain_parts.token_losses(logits, targets), plain_parts.mean_loss(logits, targets)

    expected = -logits.log_softmax(-1)[[0, 1, 3, 4], [0, 1, 4, 2]]
    torch.testing.assert_close(each[[0, 1, 3, 4]], expected)
    assert each[[2, 5]].tolist() == [0, 0]
    torch.testing.assert_close(mean, expected.mean())


def test_losses_of_half_logits_are_float32() -> None:
    logits, targets = draw(6, 5).bfloat16(), torch.tensor([0, 1, 2, 3, 4, 0])

    losses = plain_parts.token_losses(logits, targets)

    assert losses.dtype == torch.float32
    assert torch.equal(losses, cross_entropy(logits.float(), targets, reduction="none"))


@pytest.mark.parametrize("dilation", [1, 3])
def test_convolution_weighs_each_token_and_those_before_it(dilation: int) -> None:
    x, taps = draw(2, 9, 3), draw(3, 4)

    y = plain_parts.convolution(x, taps, dilation)

    for t in range(9):
        reached = [(k, t - k * dilation) for k in range(4) if t >= k * dilation]
        row = sum(taps[:, k] * x[:, s] for k, s in reached)
        torch.testing.assert_close(y[:, t], row)


@pytest.mark.parametrize("n_fft", [2, 8, 64])
def test_taps_of_the_gate_are_those_of_the_module(n_fft: int) -> None:
    gate = SpectralGate(tiny(base="sgrpsann", gate_n_fft=n_fft))
    with torch.no_grad():
        gate.mask.copy_(draw(*gate.mask.shape))

    torch.testing.assert_close(plain_parts.gate_taps(gate.mask), gate.taps())
