"""Text without its markup comes out word for word, and what was seen before is known again."""

import random
import unicodedata
from collections import Counter

import pytest

from psannlm.corpora import clean
from psannlm.corpora.clean import PHRASE, DuplicateFilter, PhraseTable, normalised, phrases
from psannlm.corpora.recipe import FilesSource, Recipe


def recipe(**settings) -> Recipe:
    source = FilesSource(kind="files", name="s", licence="l", paths=("x",))
    return Recipe(name="r", description="d", sources=(source,), **settings)


def cleaned(text: str, removed: Counter[str], **settings) -> list[str]:
    return list(clean.cleaned(text, recipe(**settings), removed))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  a\tb\r\n c\u00a0d \n", "a b c d"),
        ("line\u2028separator\x0band\x85more", "line separator and more"),
        ("\ufeffmark, so\u00adft, zero\u200bwidth", "mark, soft, zerowidth"),
        ("bell\x07 and \x00 nothing", "bell and nothing"),
        ("lone \ud800 half", "lone half"),
        ("\x00 \x01", ""),
        ("cafe\u0301", "caf\u00e9"),
        ("plain", "plain"),
        ("\u0378\U0001e4d0 \U0001e6c0", "\u0378\U0001e4d0 \U0001e6c0"),  # newer than Unicode 3.2
    ],
)
def test_a_paragraph_is_one_line_of_visible_characters(raw, text):
    assert normalised(raw) == text
    assert unicodedata.is_normalized("NFC", normalised(raw))


@pytest.mark.parametrize(
    ("settings", "removed", "stays", "reason"),
    [
        ({"min_characters": 5}, ["four", "  \n "], "fives", "short"),
        ({"min_lowercase": 0.5}, ["CHAP. I", "1 ... 7"], "in 1850 they", "capitals or figures"),
        ({"boilerplate": ("(?i)gutenberg text",)}, ["A\nGutenberg text"], "Emma", "boilerplate"),
    ],
)
def test_what_is_no_text_is_removed_and_counted(settings, removed, stays, reason):
    counts = Counter()

    found = [cleaned(text, counts, **settings) for text in [*removed, stays]]

    assert found == [[]] * len(removed) + [[stays]]
    assert counts == {reason: len(removed)}


@pytest.mark.parametrize("text", ["no stop " * 100, "x" * 1000, "a. b? " * 100, "é" * 350 + " y"])
def test_cutting_where_a_sentence_ends_loses_no_word_and_exceeds_no_bound(text):
    pieces = cleaned(text, Counter(), max_characters=100)

    sentences = ["word " * 12 + 'end."', "more " * 12 + "end."]
    assert cleaned(" ".join(sentences), Counter(), max_characters=100) == sentences
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 100 for piece in pieces)
    assert all(piece == piece.strip() for piece in pieces)


START = "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***"
BOOK = ["The Project Gutenberg eBook of Emma", "This ebook is for anyone.", START, "a", "b", END]
BOOK += ["Updated editions of Project Gutenberg replace these.", "1.E.7. Do not charge a fee."]
BOOK += ["This website tells how to subscribe to our newsletter to hear about new eBooks."]
OLD_BOOK = ["**The Project Gutenberg Etext of Emma**", START.replace("THE P", "THIS P")]
OLD_BOOK += ["a", "b", "End of The Project Gutenberg Etext of Emma", END]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (["a", "b"], ["a", "b"]),
        (["Licence", START, "a", "b", END, "Project Gutenberg's licence"], ["a", "b"]),
        (["Licence", "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "a"], ["a"]),
        (["x", "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", "a"], ["a"]),
        (["a", "End of Project Gutenberg's Emma, by Jane Austen"], ["a"]),
        (["a", "He went to the end of the Project Gutenberg office."], None),
        ([START, *map(str, range(600)), END], list(map(str, range(600)))),
        ([*map(str, range(600)), START], list(map(str, range(600)))),  # too late to end a header
        ([*BOOK, *BOOK, *BOOK], ["a", "b"] * 3),
        ([*BOOK, "mine", *BOOK, "mine too"], ["a", "b", "mine", "a", "b", "mine too"]),
        (["mine", *OLD_BOOK, *OLD_BOOK, "mine"], ["mine", "a", "b", "a", "b", "mine"]),
        ([*BOOK[:-1], f"{BOOK[-1]}\n{BOOK[0]}", *BOOK[1:]], ["a", "b"] * 2),
    ],
)
def test_all_but_the_headers_and_licences_of_books_is_kept_and_they_are_counted(found, kept):
    removed = Counter()

    assert list(clean.body(found, removed)) == (found if kept is None else kept)
    assert removed[clean.LICENCE] == len(found) - len(found if kept is None else kept)


def test_blank_lines_part_paragraphs_and_short_ones_are_joined():
    assert list(clean.paragraphs(["a", "b", "", "  \t", "c", ""])) == ["a\nb", "c"]
    assert list(clean.joined(["aaa", "bb", "c", "dddd", "e"], 4)) == ["aaa\nbb", "c\ndddd", "e"]
    assert list(clean.joined(["a", "b"], 0)) == ["a", "b"]


RNG = random.Random(0)
WORDS = [f"word{i}" for i in range(5000)]


def text(n_words: int) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(n_words))


def test_case_spaces_and_punctuation_make_no_new_paragraph():
    is_new = DuplicateFilter(recipe(), 1000, Counter())

    said = ["Yes, he said.", "yes he said", '"YES," -- he  said!', "Yes, she said."]
    said += ["\U0001e4d0\U0001e4d1", "\U0001e4d0\U0001e4d2"]  # letters to the newest Pythons alone
    kept = [True, False, False, True, True, True]
    assert [is_new(text, held_out=False) for text in said] == kept
    assert is_new.removed == {"exact duplicates": 2}


def test_phrases_are_those_of_eight_words_in_their_order_wherever_they_stand():
    words, common = text(PHRASE), text(PHRASE)
    first, second = phrases(f"{text(5)} {common}"), phrases(f"{common.upper()}! {text(5)}")

    assert [len(phrases(x)) for x in ("a b c d e f g", "a b c d e f g h")] == [0, 1]
    assert len(phrases(text(100))) == 100 - PHRASE + 1
    assert phrases(words) != phrases(" ".join(reversed(words.split())))
    assert first[-1] == second[0]
    assert len({*first.tolist(), *second.tolist()}) == len(first) + len(second) - 1


@pytest.mark.parametrize("common", [0, 50, 200])
def test_the_share_is_that_of_common_phrases(common):
    first = text(200)
    second = " ".join([*first.split()[:common], *text(200 - common).split()])
    table = PhraseTable(10_000)
    table.add(phrases(first))

    n_shared, n_phrases = max(0, common - PHRASE + 1), 200 - PHRASE + 1
    # A table of 2**16 bits holds 193 phrases: one that was never seen passes for seen in 1 of 340.
    assert table.share(phrases(second)) == pytest.approx(n_shared / n_phrases, abs=0.02)
    assert table.share(phrases("too short")) == 0.0


def test_few_unseen_phrases_are_taken_for_seen_in_a_full_table():
    table = PhraseTable(5 * 50_000)
    table.add(phrases(text(50_000)))

    assert table.share(phrases(text(20_000))) < 1 / 32
