"""Intervals cover what they say, verdicts need what they say, and blocks are complete."""

import numpy as np
import pytest

from psannlm.bench import statistics
from psannlm.bench.blocks import shuffled_blocks
from psannlm.bench.statistics import (
    FEWEST_REPEATS,
    Interval,
    median_interval,
    noise_floor,
    ratio_interval,
    verdict,
)


@pytest.fixture
def fewer_resamples(monkeypatch):
    """A tenth of them: of a thousand intervals, none needs its third digit."""
    monkeypatch.setattr(statistics, "N_RESAMPLES", 999)


def test_the_interval_of_six_processes_covers_the_true_median_nine_times_in_ten(fewer_resamples):
    draw = np.random.default_rng(0)
    samples = np.exp(draw.normal(0.0, 0.03, size=(400, 6)))

    covered = np.mean([not median_interval(s).excludes(1.0) for s in samples])

    # 400 tries at a true 0.93 stay within 0.93 +- 0.03 (2.3 standard errors).
    assert 0.90 <= covered <= 0.97


def test_an_interval_is_repeatable_that_of_one_value_is_the_value_and_none_has_no_interval():
    values = [3.0, 1.0, 2.0, 5.0]

    assert median_interval(values) == median_interval(values)
    assert median_interval([2.0]) == Interval(2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="at least one value, got none"):
        median_interval([])


def test_ratios_are_paired_within_the_blocks_that_both_sides_measured():
    drifting = {0: 10.0, 1: 20.0, 2: 40.0}
    half = {block: value / 2 for block, value in drifting.items()}

    # Unpaired, the medians' interval would span the drift.
    assert ratio_interval(half, drifting) == Interval(0.5, 0.5, 0.5, 3)
    assert ratio_interval({0: 1.0, 1: 8.0}, {1: 4.0, 2: 9.0}) == Interval(2.0, 2.0, 2.0, 1)
    assert ratio_interval({0: 1.0}, {1: 1.0}) is None


def test_the_noise_floor_is_the_far_end_of_the_baselines_interval():
    assert noise_floor(Interval(1.0, 0.97, 1.01, 6)) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("ratio", "floor", "expected"),
    [
        (Interval(1.10, 1.05, 1.15, 6), 0.02, "faster"),
        (Interval(0.90, 0.85, 0.95, 6), 0.02, "slower"),
        (Interval(1.10, 0.99, 1.20, 6), 0.02, "not separated"),
        (Interval(1.10, 1.05, 1.15, 6), 0.12, "not separated"),
        (Interval(1.005, 1.004, 1.006, 6), 0.0, "not separated"),
        (Interval(1.10, 1.05, 1.15, FEWEST_REPEATS - 1), 0.02, "not separated"),
        (None, 0.0, "not separated"),
        (Interval(1.10, 1.05, 1.15, 6), None, "not separated"),
    ],
    ids=["faster", "slower", "holds 1", "noise", "too small", "too few", "no ratio", "no floor"],
)
def test_a_verdict_needs_repeats_an_interval_without_one_and_size(ratio, floor, expected):
    assert verdict(ratio, floor) == expected


def test_equal_arms_are_rarely_called_different(fewer_resamples):
    draw = np.random.default_rng(1)
    called = 0
    for _ in range(200):
        rates = np.exp(draw.normal(0.0, 0.02, size=(3, 6)))
        one, same, other = (dict(enumerate(row)) for row in rates)
        floor = noise_floor(ratio_interval(same, one))
        called += verdict(ratio_interval(other, one), floor) != "not separated"

    assert called / 200 <= 0.05


SETTINGS = ["a", "b", "c", "d", "e"]


def test_every_block_has_every_setting_once_and_the_first_some_more():
    cells = shuffled_blocks(SETTINGS, n_repeats=3, seed=0, once=["x", "y"])
    blocks = [[what for repeat, _, what in cells if repeat == block] for block in range(3)]

    assert [sorted(block) for block in blocks] == [[*SETTINGS, "x", "y"], SETTINGS, SETTINGS]
    assert [order for _, order, _ in cells] == list(range(len(cells)))
    assert [repeat for repeat, _, _ in cells] == [0] * 7 + [1] * 5 + [2] * 5


def test_blocks_are_shuffled_anew_and_the_same_for_the_same_seed():
    orders = [
        "".join(what for _, _, what in shuffled_blocks(SETTINGS, n_repeats=3, seed=seed))
        for seed in (0, 1)
    ]

    assert orders[0] != orders[1]
    assert len({orders[0][i : i + 5] for i in (0, 5, 10)}) == 3
    assert orders[0].startswith("cbaed"), "runs of today are resumed tomorrow"
