"""Landing page, claims, rows and data.json say the same of the same evidence, and link to it."""

import json
import re

import pytest

from psannlm.evidence.runs import Refused
from psannlm.publish.claims import CLAIMS
from psannlm.publish.evidence_pages import LandingData, refused
from tests.published import committed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stated():
    return LandingData.of(committed(), CLAIMS)


@pytest.fixture(scope="module")
def pieces(stated):
    return stated.pieces()


def test_every_link_to_a_row_has_its_target(pieces):
    targets = set(re.findall(r"^\((row-[^)]+)\)=$", pieces["rows.md"], re.M))

    for name in ("cards.md", "claims.md"):
        linked = set(re.findall(r"\(#(row-[^)]+)\)", pieces[name]))
        assert linked
        assert linked <= targets


def test_a_refused_run_is_a_warning_by_name_on_the_landing_page(tmp_path):
    runs = [Refused(tmp_path, "benchmarks/x: samples.csv was altered")]

    text = LandingData.of(runs, None).pieces()["answers.md"]

    assert text.startswith("```{warning}\n")
    assert "`benchmarks/x: samples.csv was altered`" in text
    assert refused(committed()) == ""


def test_nothing_at_all_is_published_too():
    pieces = LandingData.of([], None).pieces()

    assert "Nothing is claimed" in pieces["claims.md"]
    assert json.loads(pieces["data.json"])["headlines"] == []


def test_the_page_of_raw_rows_stays_light(pieces):
    assert len(pieces["rows.md"].encode()) < 400_000
