"""A headline is read from a column, with its interval, unless its row failed."""

from psannlm.publish.headline import read
from tests.published import made_up_row

WORDS = {"name": "a.b", "claim": "BMRK-02", "about": "a", "quantity": "speed", "unit": "tokens/s"}


def test_the_interval_stands_in_the_columns_of_its_ends():
    row = made_up_row("throughput", {"speed": 2, "speed_low": 1.5, "speed_high": 2.5})

    found = read(row, "speed", **WORDS, verdict="faster")

    assert (found.value, found.low, found.high, found.verdict) == (2.0, 1.5, 2.5, "faster")
    assert found.row is row


def test_what_is_unknown_stays_unknown():
    found = read(made_up_row("throughput", {"speed": None}), "speed", **WORDS)

    assert (found.value, found.low, found.high) == (None, None, None)


def test_a_row_that_failed_says_so_instead_of_its_verdict():
    row = made_up_row("throughput", {"speed": None, "status": "failed"})

    assert read(row, "speed", **WORDS, verdict="faster").verdict == "failed"
