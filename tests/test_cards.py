"""Cards say target, measured, verdict, machine and date of each item of the plan, or what lacks."""

import re

from psannlm.publish.cards import cards
from psannlm.publish.headline import PLAN
from tests.published import best, best_headlines, headline, made_up_row


def blocks(text):
    """Cards by title and item."""
    found = re.findall(
        r":::\{grid-item-card\} (.*?) <small>(.*?)</small>\n(.*?)\n:::\n", text, re.S
    )
    return {(title, item): body for title, item, body in found}


def test_every_item_of_the_plan_has_a_card_and_so_has_every_base():
    found = blocks(cards(best_headlines()))

    assert {item for _, item in found} >= set(PLAN)
    for base in best()["throughput"].manifest["parameters"]["base"]:
        assert (f"Speed of {base}", "BMRK-02") in found
        assert (f"Checkpointing of {base}, off to on", "BMRK-03") in found
    for body in found.values():
        assert "AMD EPYC, 2 cores · 2026-11-22 · [" in body
        assert "(#row-" in body


def test_without_evidence_each_item_has_a_card_that_says_so():
    found = blocks(cards([]))

    assert {item for _, item in found} == set(PLAN)
    assert all("No complete run yet" in body for body in found.values())


def test_a_card_has_number_interval_unit_and_a_verdict_in_words():
    values = {"base": "one", "batch_tokens": 32, "mode": "forward", "precision": "fp32"}
    row = made_up_row("throughput", values, 3)
    speed = headline(row, name="a.tokens_per_s", unit="tokens/s", value=1e3, low=9e2, high=2e3)

    body = blocks(cards([speed, headline(row)]))["Speed of one", "BMRK-02"]

    assert "**1,000 (900 – 2,000) tokens/s**" in body
    assert '<span class="verdict bad">✗ slower</span>' in body
    assert "0.500 (0.250 – 0.750) × transformer" in body
    assert f"(#{row.label})" in body
    assert "a device · 2026-01-02" in body


def test_a_check_that_was_not_asked_for_says_so():
    row = made_up_row("validation", {"base": "one"})
    worst = headline(
        row, name="validation.GPU-02.worst", claim="GPU-02", target="at most 1", unit="",
        verdict="failed", quantity="loss",
    )  # fmt: skip
    counts = [
        headline(row, name=f"validation.GPU-02.{s}", claim="GPU-02", value=n, unit="of 4")
        for s, n in (("passed", 3.0), ("failed", 1.0), ("skipped", 0.0))
    ]

    found = {item: body for (_, item), body in blocks(cards([worst, *counts])).items()}

    assert "Not asked for" in found["GPU-01"]
    assert "passed 3 of 4, failed 1 of 4 bases; worst, one: loss" in found["GPU-02"]
    assert "✗ failed" in found["GPU-02"]
    assert "Target: at most 1." in found["GPU-02"]
