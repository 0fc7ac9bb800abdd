"""A number has become worse only beyond a bound that was known before it was measured."""

import pytest

from psannlm.evidence.runs import Evidence
from psannlm.publish.judging import are_disjoint, judge
from psannlm.publish.numbers import BITS, CHECK, KEPT, LOSS, SPEED, STEP, TRAINING_SPEED, Number

RUN = Evidence(None, {})  # type: ignore[arg-type]


def a(quantity, value, reach=0.0, *, floor=None, n=8, status="ok") -> Number:
    low, high = (None, None) if value is None else (value - reach, value + reach)
    return Number(RUN, quantity, "respsann", "", value, status, 1, low, high, floor, n)


def test_a_planted_loss_of_speed_is_found_and_noise_is_not():
    before = a(SPEED, 1000.0, 20, floor=0.05)

    slow, noisy = a(SPEED, 700.0, 20, floor=0.05), a(SPEED, 970.0, 20, floor=0.05)

    assert judge(slow, before, None).verdict == "regressed"
    assert judge(slow, before, None).change == pytest.approx(-0.3)
    assert judge(noisy, before, None).verdict == "within the noise"
    assert judge(before, slow, None).verdict == "improved"


def test_disjoint_intervals_within_the_noise_floor_are_noise():
    found = judge(a(SPEED, 950.0, 1, floor=0.02), a(SPEED, 1000.0, 1, floor=0.06), None)

    assert found.verdict == "within the noise"
    assert found.bound.startswith("6.0% (noise floor)")


def test_a_change_beyond_the_noise_floor_within_wide_intervals_is_noise():
    found = judge(a(SPEED, 800.0, 150, floor=0.01), a(SPEED, 1000.0, 150, floor=0.01), None)

    assert found.verdict == "within the noise"


def test_the_smallest_effect_bounds_what_has_almost_no_noise():
    found = judge(a(SPEED, 995.0, 0, floor=0.0001), a(SPEED, 1000.0, 0, floor=0.0001), None)

    assert (found.verdict, found.bound[:4]) == ("within the noise", "1.0%")


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_processes_on_either_side_compare_nothing(n):
    found = judge(a(SPEED, 500.0, floor=0.01), a(SPEED, 1000.0, floor=0.01, n=n), None)

    assert found.verdict == "not comparable"
    assert f"needs 6 processes, these are {n}" in found.reason


def test_a_longer_step_is_worse_by_the_noise_floor_of_the_machine():
    before, longer = a(STEP, 0.5, 0.001), a(STEP, 0.6, 0.001)

    assert judge(longer, before, 0.1).verdict == "regressed"
    assert judge(before, longer, 0.1).verdict == "improved"
    assert judge(longer, before, 0.25).verdict == "within the noise"
    assert judge(longer, before, None).reason == "no noise floor is known of this machine"


def test_counted_bytes_have_changed_beyond_one_percent():
    before = a(KEPT, 100.0, n=3)

    assert judge(a(KEPT, 101.5, n=3), before, None).verdict == "regressed"
    assert judge(a(KEPT, 98.5, n=3), before, None).verdict == "improved"
    assert judge(a(KEPT, 100.9, n=3), before, None).verdict == "unchanged"
    assert judge(a(KEPT, 1.0), a(KEPT, 0.0), None).verdict == "regressed"
    assert judge(a(KEPT, 0.0), a(KEPT, 0.0), None).verdict == "unchanged"


def test_a_single_training_is_bounded_without_an_interval_and_says_so():
    speed = judge(a(TRAINING_SPEED, 800.0, n=1), a(TRAINING_SPEED, 1000.0, n=1), 0.15)
    bits = judge(a(BITS, 2.05, n=1), a(BITS, 2.0, n=1), None)

    assert (speed.verdict, bits.verdict) == ("regressed", "regressed")
    assert "no interval" in speed.bound
    assert "no interval" in bits.bound
    assert judge(a(TRAINING_SPEED, 800.0), a(TRAINING_SPEED, 1000.0), None).verdict == (
        "not comparable"
    )


def test_losses_over_seeds_have_changed_when_their_intervals_do_not_meet():
    before = a(LOSS, 3.0, 0.1, n=5)

    assert judge(a(LOSS, 3.3, 0.1, n=5), before, None).verdict == "regressed"
    assert judge(a(LOSS, 2.7, 0.1, n=5), before, None).verdict == "improved"
    assert judge(a(LOSS, 3.15, 0.1, n=5), before, None).verdict == "within the noise"


@pytest.mark.parametrize(
    ("now", "then", "verdict"),
    [
        ("passed", "passed", "unchanged"),
        ("failed", "passed", "regressed"),
        ("skipped", "passed", "regressed"),
        ("passed", "failed", "improved"),
        ("failed", "failed", "unchanged"),
        ("failed", "skipped", "not comparable"),
    ],
)
def test_a_check_passes_or_does_not(now, then, verdict):
    values = {"passed": 1.0, "failed": 0.0, "skipped": None}

    found = judge(a(CHECK, values[now], status=now), a(CHECK, values[then], status=then), None)

    assert found.verdict == verdict


def test_what_could_be_measured_and_no_longer_can_has_regressed():
    works, fails = a(SPEED, 1000.0, floor=0.05), a(SPEED, None, status="failed")

    assert judge(fails, works, None).verdict == "regressed"
    assert judge(works, fails, None).verdict == "improved"


def test_a_row_that_the_run_before_has_not_is_not_compared():
    found = judge(a(SPEED, 1000.0), None, None)

    assert (found.verdict, found.reason) == ("not comparable", "the run before has no such row")


def test_intervals_that_touch_are_not_disjoint():
    assert not are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.0, 0.5))
    assert are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.001, 0.5))
    assert not are_disjoint(a(LOSS, 3.0), a(LOSS, None))
