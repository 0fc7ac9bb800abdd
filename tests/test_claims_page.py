"""The page of claims shows each with its rows, and one that fails as failing."""

import pytest

from psannlm.publish.claims import CLAIMS
from psannlm.publish.claims_page import claims_page
from psannlm.publish.evidence_pages import LandingData
from tests.published import committed

pytestmark = pytest.mark.slow


def test_a_claim_that_fails_is_shown_as_one_that_does_not_hold(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS.read_text().replace("'slower'", "'faster'", 1))

    page = LandingData.of(committed(), path).pieces()["claims.md"]

    assert page.count("✗ does not hold") == 1
    assert "row 7: verdict 'slower' does not satisfy" in page


def test_a_page_without_claims_says_so():
    assert "Nothing is claimed" in claims_page([])
