"""data.json says of every number where it stands, and of every claim whether it holds."""

import json

import pytest

from psannlm.files import sha256_of
from psannlm.publish.claims import CLAIMS
from psannlm.publish.evidence_pages import LandingData
from tests.published import best, committed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stated():
    return LandingData.of(committed(), CLAIMS)


@pytest.fixture(scope="module")
def pieces(stated):
    return stated.pieces()


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
    assert LandingData.of(committed(), CLAIMS).pieces()["data.json"] == pieces["data.json"]
