"""What all bases share: attention, MLPs, the length limit, checkpointing, module ownership."""

import math
from typing import Any

import pytest
import torch
from networks import OPTIONS, loss_and_gradients, moved, tiny, tokens_of
from torch.nn.functional import gelu

from psannlm.model.bases import build
from psannlm.model.transformer import MLP, GeluScaled, SwiGLU, swiglu_width

EXACT = 1e-12  # sums of a few float64 products of size 10


@pytest.mark.parametrize(("start", "length"), [(0, 25), (20, 5), (24, 1)])
def test_more_tokens_than_the_context_are_refused(start: int, length: int) -> None:
    config = tiny()
    model, state = build(config, seed=0), None
    if start:
        state = model.state()
        model(tokens_of(config, 1, start), state)

    with pytest.raises(ValueError, match="longer than context_length, got 25 and 24"):
        model(tokens_of(config, 1, length), state)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_checkpointing_changes_neither_loss_nor_gradients(options: dict[str, Any]) -> None:
    tokens = tokens_of(tiny(), 2, 12)

    plain, checkpointed = (
        loss_and_gradients(moved(tiny(**options, grad_checkpoint=flag)).train(), tokens)
        for flag in (False, True)
    )

    assert torch.equal(plain[0], checkpointed[0])
    # The same float32 numbers, possibly summed in another order.
    torch.testing.assert_close(checkpointed[1], plain[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", ["respsann", "sgrpsann"])
def test_a_checkpointed_model_in_training_still_remembers(base: str) -> None:
    config = tiny(base=base, grad_checkpoint=True)
    model, tokens = moved(config).train(), tokens_of(config, 2, 9)
    whole, state = model(tokens), model.state()

    pieces = torch.cat([model(piece, state) for piece in tokens.split((5, 4), dim=1)], dim=1)

    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=0)  # float32 logits of size 10


@pytest.mark.parametrize(
    ("d_model", "d_mlp"), [(8, 12), (8, 1), (64, 256), (512, 2048), (768, 3072), (5, 7)]
)
def test_swiglu_has_the_parameters_of_an_mlp_to_within_one_row(d_model: int, d_mlp: int) -> None:
    config = tiny(d_model=d_model, d_mlp=d_mlp, n_heads=1, positions="alibi")

    plain, gated = (
        sum(parameter.numel() for parameter in mlp.parameters())
        for mlp in (MLP(config, gelu), SwiGLU(config))
    )

    assert abs(plain - gated) <= 3 * d_model + 2  # what one more feature costs
    assert swiglu_width(d_model, d_mlp) >= 1


def test_a_scaled_gelu_starts_with_the_sines_gains(generator: torch.Generator) -> None:
    nonlinearity = GeluScaled(5, tiny(sine_amplitude=1.7, sine_frequency=0.6))
    z = torch.randn(4, 5, generator=generator)

    value = nonlinearity(z)

    inner = 0.6 * z.double()
    expected = 1.7 * inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=0)  # float32
