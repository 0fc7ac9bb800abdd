"""Losses at equal budgets lie on the curves, and nothing lies outside them."""

import math

import pytest

from psannlm.pages.shootout.budgets import at_budget, common_budget

CURVE = [(100.0, 5.0), (400.0, 4.0), (1600.0, 3.5)]


@pytest.mark.parametrize(("amount", "loss"), CURVE)
def test_an_evaluation_is_itself(amount, loss):
    assert at_budget(CURVE, amount) == loss


def test_a_loss_falls_alike_with_every_doubling_between_evaluations():
    assert at_budget(CURVE, 200.0) == pytest.approx(4.5)
    assert at_budget(CURVE, 800.0) == pytest.approx(3.75)


def test_a_power_law_is_read_better_than_along_a_straight_line():
    def loss(amount: float) -> float:
        return 2.0 + 20.0 * amount**-0.3

    curve = [(amount, loss(amount)) for amount in (1e3, 2e3, 4e3)]
    for amount in (1.5e3, 3e3):
        straight = sum(loss(end) for end in (amount / 1.5, amount * 2 / 1.5)) / 2
        found = at_budget(curve, amount)

        assert abs(found - loss(amount)) < abs(straight - loss(amount)) / 4


def test_the_unit_of_amounts_does_not_matter():
    flops = [(amount * 6e9, loss) for amount, loss in CURVE]

    assert at_budget(flops, 700.0 * 6e9) == pytest.approx(at_budget(CURVE, 700.0))


@pytest.mark.parametrize("amount", [0.0, -1.0, 99.9, 1600.1, math.inf, math.nan])
def test_nothing_is_extrapolated(amount):
    assert at_budget(CURVE, amount) is None


def test_a_curve_without_evaluations_says_nothing():
    assert at_budget([], 100.0) is None


def test_the_common_budget_is_where_the_shortest_curve_ends():
    short = [(50.0, 6.0), (900.0, 3.0)]

    found = common_budget([CURVE, short])

    assert found == 900.0
    assert at_budget(short, found) == 3.0
    assert at_budget(CURVE, found) is not None


def test_one_curve_has_its_end_in_common_with_itself():
    assert common_budget([CURVE]) == 1600.0


def test_curves_that_only_touch_have_that_amount_in_common():
    assert common_budget([CURVE, [(1600.0, 4.0), (3200.0, 3.0)]]) == 1600.0


@pytest.mark.parametrize(
    "curves",
    [[], [[]], [CURVE, []], [CURVE, [(2000.0, 4.0), (3000.0, 3.0)]]],
    ids=["no curve", "nothing evaluated", "one without evaluations", "one begins after"],
)
def test_curves_without_a_common_amount_have_no_common_budget(curves):
    assert common_budget(curves) is None


@pytest.mark.parametrize("amounts", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_amounts_that_do_not_rise_from_above_zero_are_refused(amounts):
    curve = [(amount, 3.0) for amount in amounts]

    with pytest.raises(ValueError, match="amounts of a curve must rise from above zero"):
        at_budget(curve, 1.0)
    with pytest.raises(ValueError, match="amounts of a curve must rise from above zero"):
        common_budget([CURVE, curve])
