"""Every check ends in a finding: passed, failed or skipped, each for a reason."""

import math
from typing import get_args

import pytest
import torch

from psannlm import ROOT
from psannlm.checks import suite
from psannlm.checks.config import Check
from psannlm.checks.findings import Result
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
    assert suite.chosen(validation_config()) == tuple(ENTRIES)
    assert suite.chosen(validation_config(only=("GPU-08", "GPU-01"))) == ("GPU-01", "GPU-08")


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


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        (
            [{"value": 0.6}, {"value": 0.8}, {"value": 0.1}],
            "relative error is 0.8, must be at most 0.5, and 1 more out of bounds",
        ),
        ([{"value": 0.1, "upper": False}], "relative error is 0.1, must be at least 0.5"),
        ([{"value": 0.1}], ""),
    ],
)
def test_the_worst_of_broken_measures_is_told(measures, said) -> None:
    assert suite.complaint([measure(**changes) for changes in measures]) == said
