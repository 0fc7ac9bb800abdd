"""What parts keep for backward, and how the peaks of parts make the peak of all."""

from collections import Counter

import pytest
import torch
from networks import tiny

from psannlm.model import saved_activations
from psannlm.model.cost import Shape
from psannlm.model.saved_activations import SavedActivations, Step


def walked(parts: list[SavedActivations], working: list[int]) -> int:
    """The peak as a walk finds it: all are kept, then the last one works, leaves, and so on."""
    highest, held = 0, sum(part.total for part in parts)
    for part, extra in zip(reversed(parts), reversed(working), strict=True):
        highest = max(highest, held + extra)
        held += part.gradients - part.total
        highest = max(highest, held)
    return highest


def test_the_peak_of_parts_is_that_of_a_walk_through_their_backward(
    generator: torch.Generator,
) -> None:
    for _ in range(200):
        drawn = torch.randint(1, 50, (5, 3), generator=generator).tolist()
        working = [extra for _, extra, _ in drawn]
        parts = [
            SavedActivations(Counter({"a": size}), extra, gradients)
            for size, extra, gradients in drawn
        ]

        left = ((parts[0] + parts[1]) + parts[2]) + (parts[3] + parts[4])
        right = parts[0] + (parts[1] + (parts[2] + (parts[3] + parts[4])))

        assert left == right
        assert left.peak == walked(parts, working)


def test_kinds_of_parts_add_up() -> None:
    both = SavedActivations(Counter({"mlp": 3, "gate": 1})) + SavedActivations(
        Counter({"mlp": 4, "wave": 5})
    )

    assert both.kinds == {"mlp": 7, "gate": 1, "wave": 5}
    assert both.total == 13


def test_attention_keeps_what_its_letters_say() -> None:
    config = tiny(d_model=64, n_heads=4, context_length=32)

    half = saved_activations.attention(config, Step(Shape(2, 16), "bf16", "cpu"))

    assert half.kinds == {
        "residual stream": 4 * 32 * 64,
        "attention": 4 * 2 * 32 * 64 + 4 * 32 * 4,  # q, k, v, output; log-sum-exp
        "position tables": 2 * 4 * 32 * 8,
    }


def test_a_norm_on_its_own_keeps_a_copy_on_a_cpu_only() -> None:
    config, shape = tiny(), Shape(3, 5)

    cpu, cuda = (
        saved_activations.norm(config, Step(shape, "fp32", kind)) for kind in ("cpu", "cuda")
    )

    assert cpu.total - cuda.total == 4 * 15 * config.d_model


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_autocast_halves_what_products_yield_and_nothing_else(precision: str) -> None:
    step = Step(Shape(1, 8), precision, "cuda")

    assert (step.item, step.casts) == ((4, False) if precision == "fp32" else (2, True))
    assert saved_activations.stream(tiny(), step).total == 4 * 8 * tiny().d_model
    assert saved_activations.weighted(tiny(), step).total == step.item * 8 * tiny().d_model
