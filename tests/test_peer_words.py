"""The comparison's sentences take each number from its table, and hide no failure."""

import pytest
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED

from psannlm.pages.peer import prose as peer_words
from psannlm.pages.peer.tables import Comparison, comparison
from tests.synthetic_peer import peer_config, peer_records


def told(config, **changes) -> tuple[Comparison, dict]:
    records = peer_records(config, **changes)
    found = comparison(records, [], config, timestamp="20260101_000000", device="a CPU")
    return found, config.model_dump(mode="json")


def test_the_answer_tells_best_settings_first_then_defaults_then_bytes():
    lines = peer_words.answer(*told(peer_config())).splitlines()

    assert [line.split(", fp32")[0] for line in lines] == [
        "- **Speed of ours to that of psannlm 2.0.1**, each with the fastest settings it offers",
        "- **Speed of ours to that of psannlm 2.0.1**, each as it comes",
        "- **Kept for backward**, ours against psannlm 2.0.1, each with the fastest settings it "
        "offers",
        "- **Kept for backward**, ours against psannlm 2.0.1, each as it comes",
    ]
    assert "training step **respsann** 1.50 (" in lines[0]
    assert "(faster), **sgrpsann** 1.50 (" in lines[0]
    assert "**respsann** 4.0 MiB against 10.0 (0.40 ×, fewer)" in lines[2]


def test_a_ratio_stands_with_the_interval_of_its_row():
    found, asked = told(peer_config(base=("respsann",), setting=("best",)))
    row = found.rows[found.rows["side"] == OURS].iloc[0]

    said = peer_words.answer(found, asked)

    assert f"{row.ratio:.2f} ({row.ratio_low:.2f} – {row.ratio_high:.2f}) × (faster)" in said


def test_slower_is_said_as_plainly_as_faster():
    speeds = {OURS: 800.0, AGAIN: 800.0, PUBLISHED: 1000.0}

    said = peer_words.answer(*told(peer_config(), speeds=speeds))

    assert "**respsann** 0.80 (" in said
    assert said.count("(slower)") == 4
    assert "(faster)" not in said


def test_what_failed_is_counted_with_its_reason_and_no_ratio_is_made_up():
    said = peer_words.answer(*told(peer_config(), failing=[PUBLISHED]))

    assert said == (
        "- 8 of 24 rows failed, which leaves 8 of ours without a ratio: cannot be installed."
    )


@pytest.mark.parametrize(
    ("n", "words"),
    [(1, "With 1 fresh process a row"), (5, "With 5 fresh processes a row"), (6, "")],
)
def test_too_few_repeats_are_said(n, words):
    found, asked = told(peer_config(n_repeats=1))

    said = peer_words.answer(found, asked | {"n_repeats": n})

    assert words in said
    assert ("no difference of speed is called one" in said) == bool(words)


def test_the_reading_says_how_large_the_noise_was_and_how_often_all_was_measured():
    found, asked = told(peer_config())

    said = peer_words.reading(found, asked)

    assert f"by up to {found.rows['noise_floor'].max():.1%}" in said
    assert "6 fresh processes" in said


def test_a_run_in_which_everything_failed_still_has_its_words():
    found, asked = told(peer_config(), failing=[OURS, AGAIN, PUBLISHED])

    assert peer_words.answer(found, asked).startswith("- 24 of 24 rows failed: ")
    assert "by up to —" in peer_words.reading(found, asked)
