"""Paragraphs come out in one form, and nothing but the author's words comes out."""

import re
import unicodedata

import pytest

from psannlm.corpora.clean import Cleaner, body, joined, normalised, paragraphs


def cleaner(**changes) -> Cleaner:
    settings = {
        "min_characters": 1,
        "max_characters": 1000,
        "min_lowercase": 0.0,
        "boilerplate": (),
    }
    return Cleaner(**(settings | changes))


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
    ],
)
def test_a_paragraph_is_one_line_of_visible_characters(raw, text):
    assert normalised(raw) == text
    assert unicodedata.is_normalized("NFC", normalised(raw))


def test_blank_lines_part_paragraphs_and_line_breaks_stay_within():
    lines = ["a\n".rstrip("\n"), "b", "", "  \t", "c", ""]

    assert list(paragraphs(lines)) == ["a\nb", "c"]


def test_what_is_short_is_counted_as_such():
    clean = cleaner(min_characters=5)

    assert clean("four") == []
    assert clean("  \n ") == []
    assert clean("fives") == ["fives"]
    assert clean.removed == {"short": 2}


def test_headings_and_tables_are_told_by_their_few_small_letters():
    clean = cleaner(min_lowercase=0.5)

    assert clean("CHAPTER XII. THE DUEL") == []
    assert clean("1850 ... 17,311 ... 4,411") == []
    assert clean("* * *") == []
    assert clean("In 1850 the duty was five cents") == ["In 1850 the duty was five cents"]
    assert clean.removed == {"capitals or figures": 3}


def test_boilerplate_is_removed_with_its_paragraph():
    clean = cleaner(boilerplate=[re.compile("(?i)project gutenberg")])

    assert clean("This is a Project\nGutenberg text") == []
    assert clean("A project of Gutenberg") == ["A project of Gutenberg"]
    assert clean.removed == {"boilerplate": 1}


def test_a_long_paragraph_is_cut_where_a_sentence_ends():
    clean = cleaner(max_characters=100)
    text = "word " * 12 + 'end." ' + "more " * 12 + "end."

    first, second = clean(text)

    assert first == "word " * 12 + 'end."'
    assert f"{first} {second}" == text


@pytest.mark.parametrize("text", ["no stop " * 100, "x" * 1000, "a. b? " * 100, "é" * 350 + " y"])
def test_cutting_loses_no_word_and_exceeds_no_bound(text):
    pieces = cleaner(max_characters=100)(text)

    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 100 for piece in pieces)
    assert all(piece == piece.strip() for piece in pieces)


START = "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (["a", "b"], ["a", "b"]),
        (["Licence", START, "a", "b", END, "More licence"], ["a", "b"]),
        (["Licence", "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "a"], ["a"]),
        (["x", "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", "a"], ["a"]),
        (["a", "End of Project Gutenberg's Emma, by Jane Austen", "x"], ["a"]),
        (["a", "He went to the end of the Project Gutenberg office."], None),
        ([START, *map(str, range(600)), END], list(map(str, range(600)))),
        ([*map(str, range(600)), START], None),  # too late to end a header
    ],
)
def test_only_what_stands_between_the_markers_is_the_body(found, kept):
    assert list(body(found)) == (found if kept is None else kept)


def test_short_paragraphs_are_joined_until_they_are_long_enough():
    assert list(joined(["aaa", "bb", "c", "dddd", "e"], 4)) == ["aaa\nbb", "c\ndddd", "e"]
    assert list(joined(["a", "b"], 0)) == ["a", "b"]
