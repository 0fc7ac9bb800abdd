"""A training is told by its perplexity against its target, and by bits per byte."""

import json

import pytest

from tests.published import best, best_headlines


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def test_a_training_is_told_by_perplexity_against_the_target_of_its_own_row(found):
    metrics = json.loads(best()["tiny_corpus"].text("metrics.json"))

    perplexity = found["tiny_corpus.respsann.perplexity"]

    assert perplexity.value == metrics["perplexity"]
    assert perplexity.target == f"at most {metrics['target_perplexity']:g}"
    reached = metrics["perplexity"] <= metrics["target_perplexity"]
    assert perplexity.verdict == ("reached" if reached else "not reached")
    assert found["tiny_corpus.respsann.bits_per_byte"].value == metrics["bits_per_byte"]
