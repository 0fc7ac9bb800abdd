"""Costs by construction are what torch counts, allocates and keeps."""

from typing import Any

import pytest
import torch
from networks import VARIANTS, tiny, tokens_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from psannlm.config.network import ModelConfig
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import FILTER, MASKED, Shape, training_bytes


def counted(config: ModelConfig, shape: Shape, *, backward: bool) -> dict[str, int]:
    """FLOPs by operator as torch counts them; the math kernel is the one that counts all scores."""
    model, tokens = build(config, seed=0), tokens_of(config, *shape)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(tokens)
        if backward:
            cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    return {str(operator): n for operator, n in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_parameters_and_executed_flops_are_those_that_torch_counts(options: dict[str, Any]) -> None:
    config = tiny(**options)

    for shape in (Shape(1, 1), Shape(2, 6), Shape(3, 24)):
        own = cost_of(config, shape)

        assert own.executed_flops == sum(counted(config, shape, backward=False).values())
    assert own.n_parameters == sum(p.numel() for p in build(config, seed=0).parameters())


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_training_step_takes_three_times_the_products_of_a_forward_pass(
    options: dict[str, Any],
) -> None:
    config, shape = tiny(**options), Shape(2, 6)
    own = cost_of(config, shape)

    step = counted(config, shape, backward=True)

    # Exact for all that counts as the model's, and for the masked scores beside it. Convolutions
    # are left out: torch counts a depthwise weight gradient as a dense one, D times too many.
    products = sum(n for operator, n in step.items() if "convolution" not in operator)
    # The product of masks with the fixed tap matrix needs no gradient of the latter: twice.
    n_bins = config.gate_n_fft // 2 + 1
    taps = config.n_layers * 2 * config.d_model * n_bins**2 if config.base == "sgrpsann" else 0
    assert products == 3 * (own.model_flops + own.flops[MASKED]) + 2 * taps


# B = 2, T = 3, D = 4, F = 8, V = 5, two layers: six tokens. A layer has
#   projections 2 * 6 * 4 * (4 * 4) = 768 and scores 2 * 2 * 6 pairs * 4 wide * 2 sequences = 192,
#   an MLP      2 * 6 * (4 * 8 + 8 * 4) = 768,
# and the head  2 * 6 * 4 * 5 = 240. Masked is the rest of 3 x 3 scores: 2 * 2 * 3 * 4 * 2 = 96.
# A filter of L taps: 2 * 6 * 4 * L; the gate's product of 4 masks and 5 x 5 taps: 2 * 4 * 25.
GATE = 2 * (2 * 6 * 4 * 5 + 2 * 4 * 25)
WAVE = 2 * (2 * 6 * 4 * 3)
HAND: dict[str, tuple[dict[str, Any], int, int]] = {
    "transformer": ({"base": "transformer"}, 768, 0),
    # F' = round(8 * 9 / 14) = 5: 2 * 6 * (4 * 10 + 5 * 4) = 720 instead of 768.
    "swiglu": ({"base": "transformer", "mlp": "swiglu"}, 720, 0),
    "respsann": ({"base": "respsann"}, 768, 0),
    "sgrpsann": ({"base": "sgrpsann"}, 768, GATE),
    # The mix and the wave's W are D x D: 2 * 6 * 16 = 192.
    "sgrpsann, full": ({"base": "sgrpsann", "gate_mix": "full"}, 768 + 192, GATE),
    "waveresnet": ({"base": "waveresnet"}, 768 + 192, WAVE),
    "waveresnet, replace": ({"base": "waveresnet", "wave": "replace"}, 192, WAVE),
}


@pytest.mark.parametrize(("options", "products", "filters"), HAND.values(), ids=HAND)
def test_model_flops_are_those_worked_out_by_hand(
    options: dict[str, Any], products: int, filters: int
) -> None:
    config = tiny(vocab_size=5, context_length=3, d_model=4, d_mlp=8, **options)

    own = cost_of(config, Shape(2, 3))

    assert own.model_flops == 2 * (768 + 192 + products) + 240
    assert own.flops[MASKED] == 2 * 96
    assert own.flops.get(FILTER, 0) == filters


def test_parameters_are_those_worked_out_by_hand() -> None:
    config = tiny(vocab_size=5, d_model=4, d_mlp=8, base="sgrpsann", gate_n_fft=8)

    own = cost_of(config, Shape(1, 1))

    assert dict(own.parameters) == {
        "attention": 2 * (4 * 4 * 4),
        "norms": 2 * (4 + 4) + 4,
        "mlp": 2 * (4 * 8 + 8 + 8 * 4 + 4 + 3 * 8 + 1),  # A, d, f of 8 features, alpha
        "gate": 2 * (4 * 5 + 4 + 1),  # masks of 5 bins, mix, strength
        "embedding": 5 * 4,
        "head": 5 * 4,
    }


@pytest.mark.parametrize("base", ["transformer", "respsann", "sgrpsann", "waveresnet"])
def test_training_bytes_are_those_that_adamw_holds(base: str) -> None:
    config = tiny(base=base)
    model = build(config, seed=0)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters)

    model(tokens_of(config, 2, 6)).sum().backward()
    optimizer.step()

    held = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert len(held) == 3 * len(parameters)
    assert training_bytes(cost_of(config, Shape(2, 6)).n_parameters) == {
        "parameters": sum(parameter.nbytes for parameter in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "optimizer": sum(tensor.nbytes for tensor in held if tensor.dim()),  # without step counts
    }
