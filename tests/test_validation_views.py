"""What people read of a validation is what the findings hold, in words and not by colour alone."""

import dataclasses
import re

import pytest

from psannlm.checks.findings import Finding
from psannlm.pages.validation import prose as validation_views
from tests.synthetic import start_manifest
from tests.validations import SOUND, made, made_up_checks, measure, validation_config

CONFIG = validation_config()
MANIFEST = start_manifest("validation", CONFIG) | {"run": "20260101_000000"}


@pytest.fixture
def checks(monkeypatch):
    """A suite of made-up checks."""
    return made_up_checks(monkeypatch)


@pytest.fixture
def findings(checks):
    """Of a suite in which everything happens."""
    return made(CONFIG)


def test_the_answer_says_what_failed_and_why(findings):
    said = validation_views.answer(findings)

    assert said.startswith("- **3 of 6 checks failed**, 3 passed; 2 could not be made here.")
    failed = "**GPU-02 Precision**, respsann: *failed*: loss is inf, must be at most 0.5."
    assert failed in said
    assert "GPU-06 FSDP, respsann, transformer: *skipped*: there is one GPU, two are" in said


def test_the_answer_of_a_sound_run_names_what_comes_nearest_to_a_bound(checks):
    checks.clear()
    checks.update(SOUND)

    said = validation_views.answer(made(CONFIG))

    assert said.startswith("- **All 2 checks passed**; 2 could not be made here.")
    assert "nearest to a bound: tokens/s 299,512, bound at least 250,000." in said


def test_a_measure_that_has_to_be_its_bound_is_not_called_near_to_it(findings):
    exact = measure(name="bits that differ", value=1.0, bound=1.0)
    near = measure(name="loss", value=0.9, bound=1.0)

    said = validation_views.answer([dataclasses.replace(findings[0], measures=(exact, near))])

    assert "nearest to a bound: loss 0.9, bound at most 1." in said


def test_the_answer_names_what_was_not_asked_for(findings):
    some = [finding for finding in findings if finding.check == "GPU-01"]

    said = validation_views.answer(some)

    assert "Not asked for: GPU-02 Precision, GPU-06 FSDP, GPU-08 Saving." in said


def test_a_run_that_checked_nothing_does_not_say_passed(findings):
    some = [finding for finding in findings if finding.check == "GPU-06"]

    said = validation_views.answer(some)

    assert "**No check could be made**" in said
    assert "passed" not in said


def test_the_matrix_has_a_word_for_every_check_and_base(findings):
    table = validation_views.matrix(findings)

    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    assert cells == [
        "✓ passed", "✓ passed", "✗ failed", "✓ passed", "– skipped", "– skipped",
        "✗ failed", "✗ failed",
    ]  # fmt: skip


def test_only_what_failed_is_red(findings):
    table = validation_views.matrix(findings)

    coloured = re.findall(r'<td style="([^"]*)"[^>]*>([^<]*)<', table)
    assert coloured == [(validation_views.ALARM, "✗ failed")] * 3


def test_a_check_without_a_finding_is_a_dash(findings):
    table = validation_views.matrix(findings[:3])

    assert "<td>—</td>" in table


def test_every_measure_is_a_row_and_what_was_not_measured_has_its_reason(findings):
    rows = validation_views.rows(findings)

    assert len(rows) == 2 * 2 + 2 + 2 + 2
    skipped = rows[rows["status"] == "skipped"]
    assert set(skipped["reason"]) == {"there is one GPU, two are needed"}
    least = rows[rows["measure"] == "tokens/s"].iloc[0]
    assert (least["value"], least["bound"]) == ("299,512", "≥ 250,000")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (3.0, "3"), (299_512.25, "299,512"), (0.98765, "0.9877"), (1.2e-7, "1.20e-07"),
     (float("inf"), "inf"), (float("nan"), "nan"), (1.25e12, "1.25e+12")],
)  # fmt: skip
def test_numbers_are_short_and_true(value, shown):
    assert validation_views.number(value) == shown


def test_facts_are_shown_in_a_line_each(findings):
    table = validation_views.facts(findings)

    assert list(table["value"]) == ["It was | so", "2"] * 2


@pytest.mark.parametrize(
    ("fact", "shown"),
    [(True, "yes"), ([1, 0.5], "1, 0.5"), (None, "—"), ("a\nb", "a⏎b"),
     ("x" * 500, "x" * 159 + "…"), ("\x00", "�")],
)  # fmt: skip
def test_a_fact_of_any_kind_fits_a_line(fact, shown):
    one = Finding(
        check="GPU-01", base="b", status="passed", device="d", seconds=1.0, reason="",
        facts={"fact": fact},
    )  # fmt: skip

    assert list(validation_views.facts([one])["value"]) == [shown]


def test_what_ran_elsewhere_is_said(findings):
    said = validation_views.limits(findings, findings[0].device)

    assert "GPU-02 ran on two processes, gloo, not on " in said
    assert "Nothing about GPU-06 FSDP of respsann, transformer: there is one GPU" in said


@pytest.mark.parametrize("facts", [{"not tried": {"fp16": "no"}}, {"fp16, skipped": "no"}])
def test_what_a_check_left_out_is_said_once(findings, facts):
    left_out = [dataclasses.replace(finding, facts=facts) for finding in findings[:2]]

    said = validation_views.limits(left_out, findings[0].device)

    assert said.count("- GPU-01 did not try fp16: no\n") == 1


def test_facts_within_facts_are_rows(findings):
    facts = {"errors": {"sine": {"plain": 0.5}, "loss": 1}, "draws": [1, 2]}

    table = validation_views.facts([dataclasses.replace(findings[0], facts=facts)])

    assert list(table["fact"]) == ["errors, sine, plain", "errors, loss", "draws"]
    assert list(table["value"]) == ["0.5", "1", "1, 2"]


def test_every_check_of_the_suite_is_explained(checks):
    said = validation_views.questions()

    assert all(entry.question in said for entry in checks.values())


def test_the_readme_has_a_row_a_finding(findings):
    text = validation_views.readme(findings, MANIFEST)

    assert "3 passed, 3 failed, 2 skipped" in text
    row = "| GPU-01 Learning | respsann | passed | tokens/s | 299,512 | ≥ 250,000 | "
    assert row in text
    assert "| GPU-08 Saving | respsann | failed | ValueError: no such tensor | — | — | " in text
    assert "| GPU-02 Precision | respsann | failed | loss | inf | ≤ 0.5 | two processes" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b\\c\nd", "a\\|b\\\\c d"),
        ("<b> $x$ a_b", "\\<b\\> \\$x\\$ a\\_b"),
        ("1.5e-07", "1.5e-07"),
    ],
)
def test_a_text_that_looks_like_markdown_is_shown_as_it_is(text, shown):
    assert validation_views.literal(text) == shown


def test_highlights_put_the_numbers_of_all_bases_into_a_line(findings, monkeypatch):
    parts = {"GPU-01": "sample|tokens/s", "GPU-02": "^loss$", "GPU-08": "no"}
    monkeypatch.setattr(validation_views, "HIGHLIGHTS", parts)

    said = validation_views.highlights(findings)

    assert said.splitlines() == [
        "- GPU-01, tokens/s: 299,512 for all bases",
        r"- GPU-01, sample: It was \| so for all bases",
        "- GPU-02, loss: respsann inf; transformer 0.125",
    ]
    assert said in validation_views.readme(findings, MANIFEST)


def test_a_measure_is_told_beside_its_bound():
    assert validation_views.in_words(measure()) == "relative error 0.25, bound at most 0.5"
