"""The report of a repeat says what was published, expected and measured, and what differs."""

from dataclasses import replace

import pytest
import torch
from psannlm.rerun.surroundings import Differing, EnvironmentDiff

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.rerun.expectation import Expected
from psannlm.rerun.outcome import Outcome, Repeat, columns, exact, rate, status
from tests.synthetic import throughput_run

HERE = EnvironmentDiff(
    torch.device("cpu"), (), {"device": "A, 2 cores", "load_1min": 0.5}, {"device": "A, 2 cores"}
)


@pytest.fixture
def outcome(tmp_path):
    row = rows_of(load(throughput_run(tmp_path)))[0]
    return Outcome(row, Repeat((exact("bytes", "5", "5"),), ("bytes: the same",)), HERE)


def test_columns_stand_below_one_another():
    assert columns(("a", "long"), [("wide", "1")]) == ["a     long", "wide  1"]


def test_a_speed_is_inside_or_outside_or_of_another_device():
    def speed(value, comparable=True, expected=Expected(9.0, 11.0)):  # noqa: B008
        return rate("s", (10.0, 9.5, 10.5), value, expected, pattern=".1f", comparable=comparable)

    assert speed(10.9).inside is True
    assert speed(11.1).inside is False
    assert speed(10.9, comparable=False).inside is None
    assert speed(10.9, comparable=False).expected == "not comparable: another device"
    assert speed(10.9, expected=None).inside is None
    assert speed(10.9).published == "10.0 (9.5 to 10.5)"
    assert speed(10.9).expected == "9.0 to 11.0"


def test_a_status_is_told_only_where_something_failed():
    assert status("ok", "", "ok", "") == ()
    [failed] = status("failed", "killed", "ok", "")
    assert failed.inside is False
    assert failed.published == "failed: killed"


def test_without_differences_the_report_says_none(outcome):
    assert "differences of the environment: none" in outcome.text.splitlines()


def test_differences_are_a_table(outcome):
    other = replace(HERE, differing=(Differing("torch", "1.0", "2.0"),))

    text = replace(outcome, surroundings=other).text

    assert "differs in the environment  published  here" in text
    assert "torch                       1.0        2.0" in text


def test_another_device_is_told_in_words(outcome):
    other = replace(HERE, differing=(Differing("device", "A, 2 cores", "B"),))

    text = replace(outcome, surroundings=other).text

    assert "the published interval is that of A, 2 cores" in text
    assert "overall: INSIDE" in text


def test_a_row_that_failed_when_published_says_so(outcome):
    values = dict(outcome.row.values) | {"status": "failed", "reason": "out of memory"}

    text = replace(outcome, row=replace(outcome.row, values=values)).text

    assert "when published this row failed: out of memory; tried again" in text
