"""Checks end in findings: passed, failed or skipped, each for a reason, by their bounds."""

import dataclasses
import itertools
import json
import math
from typing import Any, get_args

import pytest
import torch

from psannlm import ROOT
from psannlm.checks import suite
from psannlm.checks.findings import Check, Finding, Measure, Result
from tests.validations import ENTRIES, made, made_up_checks, measure, validation_config

CPU = torch.device("cpu")
uses_checks = pytest.mark.usefixtures("checks")


@pytest.fixture
def checks(monkeypatch):
    """A suite of made-up checks."""
    return made_up_checks(monkeypatch)


def test_every_name_that_can_be_asked_for_is_a_check_in_that_order():
    assert tuple(suite.CHECKS) == get_args(Check)


@uses_checks
def test_none_named_means_all_and_the_suite_keeps_its_order():
    for only, checks in (((), list(ENTRIES)), (("GPU-08", "GPU-01"), ["GPU-01", "GPU-08"])):
        planned = suite.plan(validation_config(only=only))
        assert list(dict.fromkeys(check for check, _ in planned)) == checks


@uses_checks
def test_each_check_is_made_for_every_base_before_the_next_but_for_what_is_known():
    config = validation_config(only=("GPU-01", "GPU-02"))

    found = [(f.check, f.base) for f in suite.validate(config, CPU, done={("GPU-01", "respsann")})]

    pairs = [(check, base) for check in ("GPU-01", "GPU-02") for base in config.base]
    assert [("GPU-01", "respsann"), *found] == pairs


@uses_checks
@pytest.mark.parametrize(
    ("check", "status", "reason"),
    [
        ("GPU-01", "passed", ""),
        ("GPU-02", "failed", "loss is inf, must be at most 0.5"),
        ("GPU-06", "skipped", "there is one GPU, two are needed"),
        ("GPU-08", "failed", "ValueError: no such tensor"),
    ],
)
def test_a_check_passes_fails_or_is_skipped_for_a_reason(check, status, reason):
    found = made(validation_config(only=(check,)))[0]

    assert (found.status, found.reason) == (status, reason)
    assert 0 < found.seconds < math.inf
    assert (found.worst is None) == (status == "skipped" or "Error" in reason)


def test_a_check_that_judges_nothing_has_not_passed(checks):
    checks["GPU-01"] = checks["GPU-01"]._replace(run=lambda case: Result(measures=()))

    found = made(validation_config(only=("GPU-01",)))[0]

    assert (found.status, found.reason) == ("failed", "the check judged nothing")


def test_an_interruption_ends_the_suite(checks):
    def interrupted(case):
        raise KeyboardInterrupt

    checks["GPU-01"] = checks["GPU-01"]._replace(run=interrupted)

    with pytest.raises(KeyboardInterrupt):
        made(validation_config())


@uses_checks
def test_a_check_names_the_device_it_ran_on_where_that_is_another():
    usual, other = made(validation_config(base=("transformer",)))[:2]

    assert other.device == "two processes, gloo"
    assert usual.device == made(validation_config(only=("GPU-06",)))[0].device != ""


def test_each_check_draws_the_same_numbers_whatever_was_made_before(checks):
    def drawing(case):
        return Result(measures=(measure(value=float(torch.rand(())), bound=1.0),))

    checks["GPU-02"] = checks["GPU-02"]._replace(run=drawing)
    after_another = made(validation_config())[3]
    torch.rand(100)

    alone = made(validation_config(only=("GPU-02",)))[0]

    assert alone.measures == after_another.measures


def test_a_reason_names_no_folder_of_the_machine():
    assert suite.first_line(ValueError(f"{ROOT}/params/x.yaml: no")) == "params/x.yaml: no"
    assert suite.first_line(AssertionError()) == "AssertionError"


def test_the_worst_of_broken_measures_is_told() -> None:
    high, higher, low = (measure(value=value) for value in (0.6, 0.8, 0.1))
    too_low = measure(value=0.1, upper=False)

    worst = "relative error is 0.8, must be at most 0.5, and 1 more out of bounds"
    assert suite.complaint([high, higher, low]) == worst
    assert suite.complaint([too_low]) == "relative error is 0.1, must be at least 0.5"
    assert suite.complaint([low]) == ""


NUMBERS = (-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, math.inf, math.nan)


def at_most(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound)


def at_least(value: float, bound: float) -> Measure:
    return measure(value=value, bound=bound, upper=False)


def finding(*measures: Measure, **changes: Any) -> Finding:
    values = {"check": "GPU-01", "base": "respsann", "status": "passed", "device": "cpu"}
    return Finding(**values | {"seconds": 1.5, "reason": "", "measures": measures} | changes)


@pytest.mark.parametrize(
    ("found", "passed", "ratio"),
    [
        (at_most(3.0, 4.0), True, 0.75),
        (at_most(4.0, 4.0), True, 1.0),
        (at_most(6.0, 4.0), False, 1.5),
        (at_most(-3.0, 4.0), True, 0.0),
        (at_most(1e-30, 0.0), False, math.inf),
        (at_most(-0.5, -1.0), False, math.inf),
        (at_most(5.0, math.inf), True, 0.0),
        (at_least(4.0, 3.0), True, 0.75),
        (at_least(0.0, 0.0), True, 0.0),
        (at_least(0.0, 1e-30), False, math.inf),
        (at_least(-0.5, -1.0), True, 0.0),
    ],
)
def test_a_value_may_reach_its_bound_and_not_pass_it(found, passed, ratio) -> None:
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
