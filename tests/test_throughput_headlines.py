"""Speeds and their ratios are those of the table, row by row."""

import csv
import io

import pytest

from tests.published import best, best_headlines


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def lines(page, name):
    return list(csv.DictReader(io.StringIO(best()[page].text(name))))


def test_each_line_of_the_speed_table_is_a_speed_and_but_for_the_baseline_a_ratio(found):
    for number, line in enumerate(lines("throughput", "throughput.csv"), 1):
        stem = f"throughput.{line['base']}.{line['batch_tokens']}.{line['mode']}"
        speed = found[f"{stem}.{line['precision']}.tokens_per_s"]
        ratio = found.get(f"{stem}.{line['precision']}.ratio")
        if line["verdict"] == "noise floor":
            assert speed.row.number != number
        elif line["verdict"] == "baseline":
            assert ratio is None
        else:
            assert (speed.row.number, ratio.row.number) == (number, number)
            assert speed.value == pytest.approx(float(line["tokens_per_s"]), rel=1e-12)
            assert ratio.low == pytest.approx(float(line["ratio_low"]), rel=1e-12)
            assert ratio.verdict == line["verdict"]
