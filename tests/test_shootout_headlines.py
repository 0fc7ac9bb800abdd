"""Arms are told by their differences to the baseline, the gain by its own comparison."""

import csv
import io

import pytest
from psannlm.pages.shootout.files import read

from tests.published import best, best_headlines


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def lines(page, name):
    return list(csv.DictReader(io.StringIO(best()[page].text(name))))


def test_an_arm_is_told_by_its_difference_and_the_gain_by_one_paired_by_seed(found):
    shootout = read(best()["shootout"])
    losses = {
        (r.arm, r.seed): r.val_loss
        for r in shootout.records
        if r.final and r.key in set(shootout.runs["key"])
    }

    for line in lines("shootout", "summary.csv"):
        if line["difference"]:
            difference = found[f"shootout.{line['base']}.difference"]
            assert difference.value == pytest.approx(float(line["difference"]), rel=1e-12)
            assert difference.verdict == line["verdict"]
    gain = found["shootout.respsann.difference_to_gelu_scaled"]
    pairs = [losses["respsann", seed] - losses["gelu_scaled", seed] for seed in range(5)]
    assert gain.value == pytest.approx(sum(pairs) / 5)
    assert gain.low < gain.value < gain.high
