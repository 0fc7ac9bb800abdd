"""Every item of the plan has headline numbers, each with a name of its own."""

from collections import Counter

import pytest

from psannlm.publish.headline import PLAN
from psannlm.publish.headlines import headlines
from tests.published import best_headlines


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def test_names_are_unique_and_every_item_of_the_plan_has_a_number(found):
    names = Counter(headline.name for headline in best_headlines())

    assert max(names.values()) == 1
    assert {headline.claim for headline in found.values()} >= set(PLAN)


def test_no_evidence_gives_no_headline():
    assert headlines({}) == []
