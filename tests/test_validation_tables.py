"""Findings come back from their files as they were, whatever their numbers are."""

import csv
import io
import json
import math

import pytest

from psannlm.checks import suite
from psannlm.checks.findings import Finding
from psannlm.pages.validation import tables as validation_tables
from tests.synthetic import start_manifest
from tests.validations import made, made_up_checks, measure, validation_config

CONFIG = validation_config()
MANIFEST = start_manifest("validation", CONFIG) | {"run": "20260101_000000"}


@pytest.fixture
def findings(monkeypatch):
    """Of a suite in which everything happens."""
    made_up_checks(monkeypatch)
    return made(CONFIG)


def finding(**changes):
    values = {
        "check": "GPU-01", "base": "respsann", "status": "passed", "device": "a CPU",
        "seconds": 1.5, "reason": "",
    }  # fmt: skip
    return Finding(**values | changes)


def test_findings_are_read_as_they_were_written(findings):
    again = validation_tables.read(validation_tables.summary(findings, MANIFEST))

    assert again == findings


def test_a_number_that_is_none_stays_one(findings):
    strange = finding(measures=(measure(value=math.nan), measure(value=-math.inf)))

    [again] = validation_tables.read(validation_tables.summary([strange], MANIFEST))

    assert math.isnan(again.measures[0].value)
    assert again.measures[1].value == -math.inf


def test_the_summary_is_json_that_any_reader_takes(findings):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = validation_tables.summary(findings, MANIFEST)

    whole = json.loads(text, parse_constant=refuse)
    assert whole["findings"][2]["value"] == "inf"


def test_each_finding_has_what_a_reader_looks_for(findings):
    [entry, *_] = json.loads(validation_tables.summary(findings, MANIFEST))["findings"]

    assert {"check", "base", "status", "value", "bound", "device", "seconds", "reason"} <= set(
        entry
    )
    assert (entry["value"], entry["bound"]) == (299_512.25, 250_000.0), "the worst measure"


def test_the_run_is_counted(findings):
    whole = json.loads(validation_tables.summary(findings, MANIFEST))

    assert whole["counts"] == {"passed": 3, "failed": 3, "skipped": 2}
    assert whole["status"] == "failed"
    assert whole["seconds"] == pytest.approx(sum(f.seconds for f in findings))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed", "skipped"], "passed"),
        (["skipped"], "skipped"),
        ([], "skipped"),
        (["skipped", "failed", "passed"], "failed"),
    ],
)
def test_a_run_in_which_nothing_was_checked_has_not_passed(statuses, expected):
    assert validation_tables.overall([finding(status=status) for status in statuses]) == expected


def test_facts_of_any_kind_can_be_written():
    facts = {"shape": (2, 3), "loss": math.nan, "path": suite, "deep": {1: [True, None]}}

    plain = validation_tables.plain(facts)

    assert plain["shape"] == [2, 3]
    assert plain["loss"] == "nan"
    assert plain["deep"] == {"1": [True, None]}
    assert isinstance(plain["path"], str)


def test_the_table_of_measures_has_every_digit(findings):
    rows = list(csv.DictReader(io.StringIO(validation_tables.measures_csv(findings))))

    measures = [m for f in findings for m in f.measures]
    assert [float(row["value"]) for row in rows] == [m.value for m in measures]
    assert [row["passed"] == "True" for row in rows] == [m.passed for m in measures]
    assert [float(row["strain"]) for row in rows] == [m.bound_ratio for m in measures]
