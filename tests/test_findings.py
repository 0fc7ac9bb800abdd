"""What a check leaves is judged by its bounds, and told by the measure nearest to its own."""

import itertools
import json
import math
from typing import Any

import pytest

from psannlm.checks.findings import Finding, Measure
from tests.validations import measure

NUMBERS = (-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, math.inf, math.nan)


def at_least(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound, upper=False)


def at_most(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound)


def finding(*measures: Measure, **changes: Any) -> Finding:
    values = {"check": "GPU-01", "base": "respsann", "status": "passed", "device": "cpu"}
    return Finding(**values | {"seconds": 1.5, "reason": "", "measures": measures} | changes)


@pytest.mark.parametrize(
    ("value", "bound", "passed", "ratio"),
    [
        (3.0, 4.0, True, 0.75),
        (4.0, 4.0, True, 1.0),
        (6.0, 4.0, False, 1.5),
        (-3.0, 4.0, True, 0.0),
        (0.0, 0.0, True, 0.0),
        (1e-30, 0.0, False, math.inf),
        (-2.0, -1.0, True, 0.0),
        (-0.5, -1.0, False, math.inf),
        (5.0, math.inf, True, 0.0),
    ],
)
def test_a_value_may_reach_the_most_and_not_exceed_it(value, bound, passed, ratio) -> None:
    found = at_most(value, bound)

    assert (found.passed, found.bound_ratio) == (passed, ratio)


@pytest.mark.parametrize(
    ("value", "bound", "passed", "ratio"),
    [
        (4.0, 3.0, True, 0.75),
        (4.0, 4.0, True, 1.0),
        (4.0, 6.0, False, 1.5),
        (1.0, 0.0, True, 0.0),
        (0.0, 0.0, True, 0.0),
        (0.0, 1e-30, False, math.inf),
        (-0.5, -1.0, True, 0.0),
        (-2.0, -1.0, False, math.inf),
        (5.0, math.inf, False, math.inf),
    ],
)
def test_a_value_may_reach_the_least_and_not_fall_below_it(value, bound, passed, ratio) -> None:
    found = at_least(value, bound)

    assert (found.passed, found.bound_ratio) == (passed, ratio)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", NUMBERS)
@pytest.mark.parametrize("upper", [True, False])
def test_what_is_no_finite_number_fails_whatever_the_bound(value, bound, upper) -> None:
    found = measure(value=value, bound=bound, upper=upper)

    assert (found.passed, found.bound_ratio) == (False, math.inf)


@pytest.mark.parametrize("make", [at_most, at_least])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_no_value_is_within_a_bound_that_is_no_number(make, value) -> None:
    found = make(value, math.nan)

    assert (found.passed, found.bound_ratio) == (False, math.inf)


@pytest.mark.parametrize("make", [at_most, at_least])
def test_a_measure_passes_where_its_bound_ratio_is_at_most_one(make) -> None:
    made = [make(value, bound) for value, bound in itertools.product(NUMBERS, NUMBERS)]

    assert [m.passed for m in made] == [m.bound_ratio <= 1 for m in made]
    assert {m.passed for m in made} == {True, False}


def test_the_worst_measure_is_the_one_nearest_to_its_bound_or_beyond_it() -> None:
    near, far = at_least(4.0, 3.9), at_most(1.0, 4.0)
    broken, without_number = at_most(5.0, 4.0), at_most(math.nan, 4.0)
    without_bound = at_most(1.0, math.nan)

    assert finding(far, near).worst is near
    assert finding(broken, near, far).worst is broken
    assert finding(near, without_number, broken).worst is without_number
    assert finding(near, without_bound, broken).worst is without_bound
    assert finding().worst is None


def test_a_finding_tells_its_worst_measure_and_all_of_them_as_json() -> None:
    far, near = at_most(1.0, 4.0), at_least(1.0, 4.0)
    found = finding(far, near, status="failed", reason="too slow", facts={"steps": 3})

    told = json.loads(json.dumps(found.as_json()))

    head = {"check": "GPU-01", "base": "respsann", "status": "failed", "device": "cpu"}
    head |= {"value": 1.0, "bound": 4.0, "measure": "relative error"}
    head |= {"seconds": 1.5, "reason": "too slow", "facts": {"steps": 3}}
    words = {"name": "relative error", "value": 1.0, "bound": 4.0, "why": near.why}
    measures = [words | {"upper": True, "passed": True}, words | {"upper": False, "passed": False}]
    assert told == head | {"measures": measures}


def test_the_head_of_a_finding_is_its_worst_measure_not_its_first() -> None:
    first, worst = at_most(0.25, 0.5), measure(name="loss", value=3.0, bound=2.0)

    told = finding(first, worst).as_json()

    assert (told["measure"], told["value"], told["bound"]) == ("loss", 3.0, 2.0)
