"""Landing page, claims, rows and data.json say the same of the same evidence, and link to it."""

import json
import re

import pytest

from psannlm.files import sha256_of
from psannlm.publication.claims import CLAIMS
from psannlm.publication.evidence_pages import Stated, refused
from psannlm.report.runs import Refused
from tests.published import best, committed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stated():
    return Stated.of(committed(), CLAIMS)


@pytest.fixture(scope="module")
def pieces(stated):
    return stated.pieces()


def test_every_link_to_a_row_has_its_target(pieces):
    targets = set(re.findall(r"^\((row-[^)]+)\)=$", pieces["rows.md"], re.M))

    for name in ("cards.md", "claims.md"):
        linked = set(re.findall(r"\(#(row-[^)]+)\)", pieces[name]))
        assert linked
        assert linked <= targets


def test_data_has_every_headline_with_the_file_its_hash_and_its_row(stated, pieces):
    data = json.loads(pieces["data.json"])

    assert len(data["headlines"]) == len(stated.found)
    for one, headline in zip(data["headlines"], stated.found, strict=True):
        assert one["name"] == headline.name
        assert one["value"] == headline.value
        assert one["row"] == headline.row.number
    hashes = {(one["page"], one["file"]): one["sha256"] for one in data["headlines"]}
    for (page, file), sha256 in hashes.items():
        assert sha256 == sha256_of(best()[page].folder / file)
    assert all(claim["holds"] for claim in data["claims"])
    assert {run["run"] for run in data["runs"]} >= {run.name for run in best().values()}


def test_data_is_the_same_each_time(pieces):
    assert Stated.of(committed(), CLAIMS).pieces()["data.json"] == pieces["data.json"]


def test_a_claim_that_fails_is_shown_as_one_that_does_not_hold(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS.read_text().replace("'slower'", "'faster'", 1))

    page = Stated.of(committed(), path).pieces()["claims.md"]

    assert page.count("✗ does not hold") == 1
    assert "row 7: verdict 'slower' does not satisfy" in page


def test_a_refused_run_is_a_warning_by_name_on_the_landing_page(tmp_path):
    runs = [Refused(tmp_path, "benchmarks/x: samples.csv was altered")]

    text = Stated.of(runs, None).pieces()["answers.md"]

    assert text.startswith("```{warning}\n")
    assert "`benchmarks/x: samples.csv was altered`" in text
    assert refused(committed()) == ""


def test_nothing_at_all_is_published_too():
    pieces = Stated.of([], None).pieces()

    assert "Nothing is claimed" in pieces["claims.md"]
    assert json.loads(pieces["data.json"])["headlines"] == []


def test_the_page_of_raw_rows_stays_light(pieces):
    assert len(pieces["rows.md"].encode()) < 240_000
