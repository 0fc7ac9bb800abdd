"""What a check leaves is judged by its bounds, and told by the measure nearest to its own."""

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest

from psannlm.checks.findings import Finding, Measure
from tests.validations import measure

NUMBERS = (-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, math.inf, math.nan)


def at_most(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound)


def at_least(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound, upper=False)


def finding(*measures: Measure, **changes: Any) -> Finding:
    values = {"check": "GPU-01", "base": "respsann", "status": "passed", "device": "cpu"}
    return Finding(**values | {"seconds": 1.5, "reason": "", "measures": measures} | changes)


@pytest.mark.parametrize(
    ("make", "value", "bound", "passed", "ratio"),
    [
        (at_most, 3.0, 4.0, True, 0.75),
        (at_most, 4.0, 4.0, True, 1.0),
        (at_most, 6.0, 4.0, False, 1.5),
        (at_most, -3.0, 4.0, True, 0.0),
        (at_most, 0.0, 0.0, True, 0.0),
        (at_most, 1e-30, 0.0, False, math.inf),
        (at_most, -2.0, -1.0, True, 0.0),
        (at_most, -0.5, -1.0, False, math.inf),
        (at_most, 5.0, math.inf, True, 0.0),
        (at_least, 4.0, 3.0, True, 0.75),
        (at_least, 4.0, 4.0, True, 1.0),
        (at_least, 4.0, 6.0, False, 1.5),
        (at_least, 1.0, 0.0, True, 0.0),
        (at_least, 0.0, 0.0, True, 0.0),
        (at_least, 0.0, 1e-30, False, math.inf),
        (at_least, -0.5, -1.0, True, 0.0),
        (at_least, -2.0, -1.0, False, math.inf),
        (at_least, 5.0, math.inf, False, math.inf),
    ],
)
def test_a_value_may_reach_its_bound_and_not_pass_it(make, value, bound, passed, ratio) -> None:
    found = make(value, bound)

    assert (found.passed, found.bound_ratio) == (passed, ratio)


@pytest.mark.parametrize("make", [at_most, at_least])
def test_a_measure_passes_where_it_has_numbers_and_a_bound_ratio_of_at_most_one(make) -> None:
    for value, bound in itertools.product(NUMBERS, NUMBERS):
        found = make(value, bound)

        assert found.passed == (found.bound_ratio <= 1)
        if math.isnan(bound) or not math.isfinite(value):
            assert (found.passed, found.bound_ratio) == (False, math.inf)


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
    far, near = at_most(1.0, 4.0), measure(name="loss", value=1.0, bound=3.0, upper=False)
    found = finding(far, near, status="failed", reason="too slow", facts={"steps": 3})

    told = json.loads(json.dumps(found.as_json()))

    head = {"check": "GPU-01", "base": "respsann", "status": "failed", "device": "cpu"}
    head |= {"value": 1.0, "bound": 3.0, "measure": "loss"}
    head |= {"seconds": 1.5, "reason": "too slow", "facts": {"steps": 3}}
    measures = [dataclasses.asdict(far) | {"passed": True}]
    measures += [dataclasses.asdict(near) | {"passed": False}]
    assert told == head | {"measures": measures}
