"""The row of the tiny-corpus page again: the whole training, from the same seed."""

from collections.abc import Mapping
from typing import Any

from psannlm.evidence.page import Quantity, Repeat
from psannlm.evidence.rows import Row
from psannlm.pages.shootout.comparison import SMALLEST_EFFECT

SAME = (
    "validation loss: the same to the digit, as the same seed on the same processor and torch gives"
)
NEAR = (
    "validation loss: on another processor, torch or number of threads rounding differs, and one "
    f"seed gives no interval; within {SMALLEST_EFFECT:g} nats per token, the smallest effect that "
    "a shootout calls a difference"
)


def compared(row: Row, metrics: Mapping[str, Any], *, same_digits: bool) -> Repeat:
    """What the new training's metrics say of the row.

    Args:
        row: As published.
        metrics: Of the new training.
        same_digits: Whether it should have reached the same digits.
    """
    names = {"val_loss": "validation loss, nats/token", "test_loss": "test loss, nats/token"}
    quantities = [
        loss(shown, row.values[name], metrics[name], same_digits=same_digits)
        for name, shown in names.items()
    ]
    speeds = (f"{values['tokens_per_s']:,.0f}" for values in (row.values, metrics))
    quantities.append(Quantity("tokens/s", next(speeds), "shown only", next(speeds), None))
    return Repeat(tuple(quantities), (SAME if same_digits else NEAR,))


def loss(name: str, published: float, measured: float, *, same_digits: bool) -> Quantity:
    """A loss from the same seed: the same to the digit, or else near.

    Args:
        name: With its unit.
        published: As published.
        measured: Of the new training.
        same_digits: Whether it should have reached the same digits.
    """
    if same_digits:
        inside, expected = measured == published, "the same"
    else:
        inside = abs(measured - published) <= SMALLEST_EFFECT
        expected = f"within {SMALLEST_EFFECT:g}"
    return Quantity(name, repr(published), expected, repr(measured), inside)
