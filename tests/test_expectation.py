"""A prediction interval covers new means as often as it says, and follows the textbook formula."""

import math
from statistics import stdev

import numpy as np
import pytest
from scipy.stats import t as student

from psannlm.rerun.outcome import Expected, expected_mean, expected_rate

TRIES = 10000


def test_the_interval_is_that_of_the_textbook():
    published = [10.0, 12.0, 11.0, 13.0]

    half = student.ppf(0.995, 3) * stdev(published) * math.sqrt(1 / 2 + 1 / 4)
    assert expected_mean(published, 2) == pytest.approx((11.5 - half, 11.5 + half))


@pytest.mark.parametrize(("freedom", "least"), [(1e9, 0.985), (3, 0.965)], ids=["normal", "heavy"])
@pytest.mark.parametrize(("n", "m"), [(6, 1), (6, 6), (8, 4), (10, 1), (10, 6)])
def test_new_means_fall_inside_as_often_as_it_says(freedom, least, n, m):
    draw = np.random.default_rng(n * 100 + m)
    old, new = (draw.standard_t(freedom, size=(TRIES, size)) for size in (n, m))
    spread = [-1.0, 1.0] * (n // 2)
    halves = expected_mean(spread, m).high / stdev(spread)

    inside = abs(new.mean(1) - old.mean(1)) <= halves * old.std(1, ddof=1)

    assert least <= inside.mean() <= 0.995


def test_a_rate_is_predicted_on_logarithms_and_widened_by_the_noise_floor():
    rates = [90.0, 100.0, 111.0]
    low, high = expected_mean([math.log(rate) for rate in rates], 2, judged=2)

    found = expected_rate(rates, 2, judged=2, floor=0.1)

    assert found == pytest.approx((math.exp(low) / 1.1, math.exp(high) * 1.1))


def test_intervals_that_are_judged_together_are_each_wider():
    one, both = (expected_mean([1.0, 2.0, 3.0], 1, judged=n) for n in (1, 2))

    assert both.low < one.low < one.high < both.high


def test_one_value_predicts_nothing():
    assert expected_mean([1.0], 3) is None
    assert expected_rate([1.0], 3) is None


def test_no_number_lies_outside_and_the_ends_inside():
    interval = Expected(1.0, 2.0)

    assert [interval.covers(x) for x in (1.0, 2.0, 2.1, math.nan)] == [True, True, False, False]
