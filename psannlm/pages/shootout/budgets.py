"""Losses at equal budgets, read off the curves of trainings: tokens, FLOPs or seconds.

A curve is a loss at each amount spent, both as plain numbers; FLOPs are tokens times FLOPs a token.
A loss on the way is not that of a training planned to end there: its learning rate had not fallen.
"""

from collections.abc import Sequence

import numpy as np

Curve = Sequence[tuple[float, float]]
"""Amounts spent so far, each with the loss that was reached."""


def at_budget(curve: Curve, amount: float) -> float | None:
    """Loss at an amount, interpolated between the two evaluations around it.

    A straight line over the logarithm of the amount: losses fall about as much with every doubling,
    while a straight line over the amount itself would lie above so bent a curve, most where
    evaluations are sparse.

    Args:
        curve: By rising amounts.
        amount: In the curve's unit.

    Returns:
        None outside the curve: nothing is extrapolated.

    Raises:
        ValueError: Amounts that do not rise, or that begin at zero or below.
    """
    amounts, losses = _amounts(curve), [loss for _, loss in curve]
    if not amounts or not amounts[0] <= amount <= amounts[-1]:
        return None
    return float(np.interp(np.log(amount), np.log(amounts), losses))


def common_budget(curves: Sequence[Curve]) -> float | None:
    """The largest amount that all curves reach and none begins after; None if there is none.

    Raises:
        ValueError: Amounts that do not rise, or that begin at zero or below.
    """
    amounts = [_amounts(curve) for curve in curves]
    if not amounts or not all(amounts):
        return None
    reached = min(mine[-1] for mine in amounts)
    return reached if reached >= max(mine[0] for mine in amounts) else None


def _amounts(curve: Curve) -> list[float]:
    amounts = [amount for amount, _ in curve]
    if any(after <= before for before, after in zip([0.0, *amounts], amounts, strict=False)):
        raise ValueError(f"amounts of a curve must rise from above zero, got {amounts}")
    return amounts
