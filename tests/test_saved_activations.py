"""What parts keep for backward, and how the peaks of parts make the peak of all."""

from collections import Counter

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


def test_a_norm_on_its_own_keeps_a_copy_on_a_cpu_only() -> None:
    config, shape = tiny(), Shape(3, 5)

    cpu, cuda = (
        saved_activations.norm(config, Step(shape, "fp32", kind)) for kind in ("cpu", "cuda")
    )

    assert cpu.total - cuda.total == 4 * 15 * config.d_model
