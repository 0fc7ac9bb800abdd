"""What a training has made of the parameters that nonlinearities have of their own.

Shape letters: F features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled, Transformer

PARTS = {"amplitude": "A", "frequency": "f", "decay": "d"}
"""Learned parameters of the damped sine, by the letter of the formula."""

LOW, HIGH = 0.05, 0.95
"""Quantiles between which most features lie."""


@dataclass(frozen=True)
class LearnedNonlinearity:
    """The parameters of one nonlinearity, before a training and after it."""

    layer: str
    """As people call it: `0 mlp`, and `0 wave` where there is such a block."""

    kind: type[DampedSine] | type[GeluScaled]
    before: dict[str, Tensor]
    """Those of PARTS that it has, each (F,), on the CPU."""

    after: dict[str, Tensor]


def nonlinearities(before: Transformer, after: Transformer) -> Iterator[LearnedNonlinearity]:
    """Every nonlinearity of two equal networks that has parameters, in the order of the layers.

    Args:
        before: As it was built.
        after: As it was trained.
    """
    for (name, old), new in zip(before.named_modules(), after.modules(), strict=True):
        if isinstance(old, DampedSine | GeluScaled):
            _, number, part, _ = name.split(".")
            yield LearnedNonlinearity(f"{number} {part}", type(old), _values(old), _values(new))


def _values(module: object) -> dict[str, Tensor]:
    found = {part: getattr(module, part, None) for part in PARTS}
    return {part: v.detach().cpu() for part, v in found.items() if v is not None}
