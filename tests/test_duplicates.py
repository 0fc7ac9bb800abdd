"""What was seen before is known again, whatever its case and punctuation."""

import random

import pytest

from psannlm.corpora.duplicates import PHRASE, Exact, PhraseTable, phrases

RNG = random.Random(0)
WORDS = [f"word{i}" for i in range(5000)]


def text(n_words: int) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(n_words))


@pytest.mark.parametrize(
    "again", ["Yes, he said.", "yes he said", '"YES," -- he  said!', "yeshesaid"]
)
def test_case_spaces_and_punctuation_make_no_new_paragraph(again):
    exact = Exact()

    assert not exact.seen_before("Yes, he said.")
    assert exact.seen_before(again)
    assert not exact.seen_before("Yes, she said.")


def test_phrases_are_those_of_eight_words():
    assert len(phrases("a b c d e f g")) == 0
    assert len(phrases("a b c d e f g h")) == 1
    assert len(phrases(text(100))) == 100 - PHRASE + 1


def test_equal_phrases_have_equal_numbers_wherever_they_stand():
    common = text(PHRASE)
    first, second = phrases(f"{text(5)} {common}"), phrases(f"{common.upper()}! {text(5)}")

    assert first[-1] == second[0]
    assert len({*first.tolist(), *second.tolist()}) == len(first) + len(second) - 1


def test_the_order_of_words_makes_another_phrase():
    words = text(PHRASE).split()

    assert phrases(" ".join(words)) != phrases(" ".join(reversed(words)))


def shared(first: str, second: str) -> float:
    """The share of the second text's phrases in the first, by sets of words."""
    sets = []
    for words in (first.split(), second.split()):
        sets.append([tuple(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1)])
    return sum(p in set(sets[0]) for p in sets[1]) / len(sets[1])


@pytest.mark.parametrize("kept", [0, 50, 100, 150, 200])
def test_the_share_is_that_of_common_phrases(kept):
    first = text(200)
    second = " ".join([*first.split()[:kept], *text(200 - kept).split()])
    table = PhraseTable(10_000)
    table.add(phrases(first))

    assert table.share(phrases(second)) == pytest.approx(shared(first, second), abs=0.02)


def test_a_text_without_phrases_shares_nothing():
    table = PhraseTable(100)
    table.add(phrases("too short"))

    assert table.share(phrases("too short")) == 0.0


def test_few_unseen_phrases_are_taken_for_seen_in_a_full_table():
    n_words = 200_000
    table = PhraseTable(5 * n_words)
    table.add(phrases(text(n_words)))

    assert table.share(phrases(text(50_000))) < 1 / 32
