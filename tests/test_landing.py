"""The landing page, raw rows and data.json say the same of the same evidence, and link to it."""

import dataclasses
import json
import re

import pytest

from psannlm.evidence.runs import Refused
from psannlm.evidence.text import badge
from psannlm.files import sha256_of
from psannlm.pages.registry import pages
from psannlm.publish import landing
from psannlm.publish.claims import CLAIMS, PLAN, checked
from tests.published import best, committed, made_up_row, number

VALUES = {
    "base": "one", "label": "one", "batch_tokens": 32, "mode": "forward", "precision": "fp32",
    "tokens_per_s": 1234.5678901234, "reason": "", "x": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def pieces():
    return landing.files(committed(), checked(committed(), CLAIMS)[0])


def blocks(text):
    """Cards by their title."""
    found = re.findall(r":::\{grid-item-card\} (.*?) <small>.*?</small>\n(.*?)\n:::\n", text, re.S)
    return dict(found)


@pytest.mark.slow
def test_the_committed_evidence_has_a_line_and_cards_a_page_with_its_machine_once(pieces):
    lines = [line for line in pieces["answers.md"].splitlines() if line.startswith("1. ")]

    assert len(lines) == len(best()) == len(pages())
    assert pieces["answers.md"].count("AMD EPYC, 2 cores") == 1
    for body in blocks(pieces["cards.md"]).values():
        assert "AMD EPYC, 2 cores · 2026-11-22 · [" in body
        assert "(#row-" in body
    for item in PLAN:
        assert f"<small>{item}</small>" in pieces["cards.md"]


@pytest.mark.slow
def test_every_link_to_a_row_has_its_target(pieces):
    targets = set(re.findall(r"^\((row-[^)]+)\)=$", pieces["rows.md"], re.M))

    for name in ("cards.md", "claims.md"):
        linked = set(re.findall(r"\(#(row-[^)]+)\)", pieces[name]))
        assert linked
        assert linked <= targets
    assert len(pieces["rows.md"].encode()) < 400_000, "the page stays light"


@pytest.mark.slow
def test_data_has_every_headline_with_the_file_its_hash_and_its_row(pieces):
    data = json.loads(pieces["data.json"])
    numbers = [number for found in landing.headlines(committed()).values() for number in found]

    assert len({number.name for number in numbers}) == len(numbers) == len(data["headlines"])
    for one, headline in zip(data["headlines"], numbers, strict=True):
        assert (one["name"], one["value"]) == (headline.name, headline.value)
        assert one["row"] == headline.row.number
    for one in {(one["page"], one["file"]): one for one in data["headlines"]}.values():
        assert one["sha256"] == sha256_of(best()[one["page"]].folder / one["file"])
    assert all(claim["holds"] for claim in data["claims"])
    assert {run["run"] for run in data["runs"]} >= {run.name for run in best().values()}


def test_a_refused_run_is_a_warning_by_name_on_the_landing_page(tmp_path):
    runs = [Refused(tmp_path, "benchmarks/x: samples.csv was altered")]

    text = landing.files(runs, [])["answers.md"]

    assert text.startswith("```{warning}\n")
    assert "`benchmarks/x: samples.csv was altered`" in text
    assert landing.refused(committed()) == ""


def test_without_evidence_each_page_says_so_but_for_what_nobody_asks_for():
    pieces = landing.files([], [])
    asked = [page for page in pages().values() if not page.installs]

    assert pieces["answers.md"].count("No complete run yet") == len(asked)
    assert pieces["cards.md"].count("No complete run yet") == len(asked)
    assert "Measured on" not in pieces["answers.md"]
    assert "Nothing is claimed" in pieces["claims.md"]
    assert json.loads(pieces["data.json"])["headlines"] == []
    assert "No complete run yet" in pieces["rows.md"]


def test_a_line_gathers_bases_under_the_verdicts_they_have_at_the_largest_training_step():
    def ratio(base, verdict, tokens=32, mode="train_step", value=0.5):
        setting = f"{tokens} tokens a step, {mode}"
        row = made_up_row("throughput", VALUES | {"batch_tokens": tokens, "mode": mode})
        return number(row, base=base, verdict=verdict, setting=setting, value=value)

    found = [
        ratio("one", "slower", 64, "forward"),
        ratio("one", "slower"), ratio("two", "faster"), ratio("three", "slower", value=0.25),
        ratio("one", "faster", 16),
    ]  # fmt: skip

    text = landing.answers({"throughput": found})

    assert "(32 tokens a step, train_step)" in text
    assert (
        "**faster** two 0.500 (0.250 – 0.750); "
        "**slower** one 0.500 (0.250 – 0.750), three 0.250 (0.250 – 0.750)."
    ) in text
    assert "2 more settings on the page" in text


def test_each_line_names_its_machine_where_they_differ():
    rows = [made_up_row(page, VALUES, device=page) for page in ("throughput", "memory")]

    text = landing.answers({row.page: [number(row)] for row in rows})

    assert "On throughput. (" in text
    assert "On memory. (" in text
    assert "Measured on **memory**, **throughput**, 2026-01-02, preset cpu." in text


def test_a_card_has_number_interval_unit_and_each_verdict_once():
    row = made_up_row("throughput", VALUES, 3)
    speed = number(
        row, "tokens_per_s", quantity="speed", unit="tokens/s", value=1e3, low=9e2, high=2e3
    )

    text = landing.cards({"throughput": [speed, number(row, target="at most 1")]})
    body = blocks(text)["Throughput: respsann"]

    assert "**1,000 (900 – 2,000) tokens/s** <span" in body
    assert body.count('<span class="verdict bad">✗ slower</span>') == 1
    assert "speed as a ratio to transformer **0.500 (0.250 – 0.750)**" in body
    assert "Target: at most 1." in body
    assert f"(#{row.label})" in body
    assert "a device · 2026-01-02" in body


def test_a_verdict_is_a_sign_and_a_word():
    assert 'good">✓ faster' in badge("faster")
    assert 'bad">✗ not reached' in badge("not reached")
    assert 'open">○ &lt;' in badge("<b>")
    assert badge("") == ""


def test_a_row_has_its_target_its_place_and_every_digit_and_stands_in_order():
    row, first = (made_up_row("throughput", VALUES, number) for number in (12, 2))

    page = landing.rows_page([row, row, first], {"throughput": row.run})

    assert page.count(f"({row.label})=\n") == 1
    assert page.count("## Throughput: throughput.csv") == 1
    assert page.index("**Row 2**: one, batch\\_tokens 32, forward, fp32") < page.index("**Row 12**")
    for said in ("<td>throughput.csv, row 12</td>", "a" * 64, row.command, "<td>1234.5678901234<"):
        assert said in page
    assert "reason" not in page
    assert '<th scope="row">x</th>' not in page


def test_files_lie_beside_the_page_of_the_best_run_and_others_by_their_run(tmp_path):
    shown_run, other = (made_up_row("throughput", VALUES) for _ in range(2))
    folder = tmp_path / "20250101_000000"
    folder.mkdir()
    (folder / "throughput.csv").write_text("base\n")
    other = dataclasses.replace(other, run=dataclasses.replace(other.run, folder=folder))
    best = {"throughput": shown_run.run}

    assert landing.location(shown_run, best) == "data/throughput/throughput.csv"
    assert landing.files_beside([shown_run, other], best) == {
        "data/throughput/20250101_000000/throughput.csv": b"base\n"
    }


def test_a_long_value_is_cut():
    assert landing.shown(["x" * 100]).endswith("… (104 characters)")
    assert landing.shown(0.1) == "0.1"
