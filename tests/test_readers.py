"""Each reader makes documents of what it is given: titles, and paragraphs under them."""

import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pandas as pd
import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import readers
from psannlm.corpora.archives import Member
from psannlm.corpora.clean import normalised
from psannlm.corpora.readers import Title, articles, lines_of_table, read
from psannlm.corpora.recipe import FilesSource, PackageSource


def member(content: str | bytes, name: str = "texts/emma.txt") -> Member:
    return Member(name, content.encode() if isinstance(content, str) else content)


def files_source(**settings) -> FilesSource:
    return FilesSource(kind="files", name="s", licence="l", paths=("x",), **settings)


def documents(content: str | bytes, **settings) -> list[tuple[str, list[str]]]:
    """Titles and normalised paragraphs as a source with `settings` reads them."""
    return grouped(read(files_source(**settings), [member(content)], Counter()))


def grouped(stream) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for item in stream:
        if isinstance(item, Title):
            found.append((item, []))
        else:
            found[-1][1].append(normalised(item))
    return found


PLAY = "title\n\ncast\n\nACT I\n\nspeech\n\nNOTES\n\nnote"
CHAPTERS = "preface\n\nCHAPTER I\n\na\n\nb\n\nCHAPTER II\n\nc\n"
SPEECHES = "Ber.\nWho?\n\nFran.\nNay.\n\nBer.\nLong live!\n"
CUT = ["_", r"(?m)[ \t]{2,}\d+[ \t]*$"]


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("a\r\nb\r\n\r\nc\n \nd", {}, ["a b", "c", "d"]),
        (PLAY, {"begin": "^ACT", "end": "^NOTES"}, ["ACT I", "speech"]),
        ("\ufeffACT I", {"begin": "^ACT"}, ["ACT I"]),
        ("_Yes_, he    10\nsaid  2", {"cut": CUT}, ["Yes, he said"]),  # before lines are joined
        (SPEECHES, {"join_characters": 20}, ["Ber. Who? Fran. Nay.", "Ber. Long live!"]),
        ("a\nb\nc\n", {"reader": "own"}, ["a", "b", "c"]),
        ("a\nb\n\nc\n", {"reader": "own"}, ["a b", "c"]),
        ("a\n*** START OF THE PROJECT GUTENBERG EBOOK ***\nb\nc", {"reader": "own"}, ["b", "c"]),
        ("a\nb\n\n\n", {"reader": "own"}, ["a", "b", "", ""]),
        ("a\nb\n\nc\n", {"reader": "lines"}, ["a", "b", "", "c"]),
        ("Br\u00fbte!".encode("latin-1"), {"fallback_encoding": "latin-1"}, ["Br\u00fbte!"]),
    ],
)
def test_a_file_is_a_document_of_its_name_in_paragraphs(content, settings, expected):
    assert documents(content, **settings) == [("emma", expected)]


def test_the_first_line_can_be_the_title_and_chapters_can_be_documents():
    text = "\ufeff[Emma by Jane Austen 1816]\n\nEmma Woodhouse\n"

    assert documents(text, title="first_line") == [("Emma by Jane Austen 1816", ["Emma Woodhouse"])]
    assert documents(CHAPTERS, new_document="^CHAPTER") == [
        ("emma", ["preface"]),
        ("emma: CHAPTER I", ["a", "b"]),
        ("emma: CHAPTER II", ["c"]),
    ]


def test_a_file_without_its_beginning_or_in_another_encoding_is_named():
    with pytest.raises(ConfigError, match=r"emma\.txt has no paragraph with '\^ACT', where its te"):
        documents("a\n\nb", begin="^ACT")
    with pytest.raises(ConfigError, match=r"emma\.txt must be utf-8 text, got .* at byte 9; save"):
        documents("Et tu, Br\u00fbte!".encode("latin-1"))


SCRIPTURE = "\n\n".join(
    [
        "[The Bible]", "The Old Testament", "The First Book of Moses:  Called Genesis",
        "1:1 In the beginning\nwas light. 1:2 And it was good.", "And so it was.",
        "1:3 And there was evening.", "Amen.", "Ecclesiastes", "or", "The Preacher",
        "1:1 The words.", "2:1 More words.", "The end.",
    ]
)  # fmt: skip


def test_books_of_scripture_are_documents_without_numbers_of_verses():
    genesis = [
        "In the beginning was light. And it was good.", "And so it was.",
        "And there was evening.", "Amen.",
    ]  # fmt: skip
    assert documents(SCRIPTURE, reader="scripture") == [
        ("The First Book of Moses: Called Genesis", genesis),
        ("Ecclesiastes, or, The Preacher", ["The words.", "More words.", "The end."]),
    ]
    joined = documents(SCRIPTURE, reader="scripture", join_characters=10**4)
    assert [len(paragraphs) for _, paragraphs in joined] == [1, 1]


def test_every_so_many_lines_of_verse_are_a_document():
    lines = [f"and the line {i}." for i in range(45)]
    block = np.array([lines, ["meter"] * 45], dtype=object)
    packed = {"kind": "pip", "name": "s", "licence": "l", "package": "p", "version": "1"}
    packed |= {"sha256": "0" * 64, "members": ("*",), "reader": "verse"}
    source = PackageSource(**packed, document_lines=10, paragraph_lines=4, keep_one_in=2)

    found = grouped(read(source, [member(pickle.dumps(block), "data.pkl")], Counter()))

    assert [title for title, _ in found] == ["lines 1 to 10", "lines 21 to 30", "lines 41 to 45"]
    assert [" ".join(p) for _, p in found] == [" ".join(lines[i : i + 10]) for i in (0, 20, 40)]


def test_rows_are_grouped_into_articles():
    rows = ["", " = Robert = \n", "", " text = more = \n", " = = Life = = \n", " x \n"]
    rows += [" = Du Fu = \n", " y \n"]

    assert grouped(articles(rows)) == [
        ("Robert", ["= Robert =", "text = more =", "= = Life = =", "x"]),
        ("Du Fu", ["= Du Fu =", "y"]),
    ]
    assert grouped(articles(["a", "b"])) == [("untitled", ["a", "b"])]


LINES = [f"line {i}, and so on" for i in range(5)]


class Attack:
    """Creates a file as soon as it is unpickled the usual way."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def array_state(lines: list[str]):
    """Pickled as an array of shape (2, rows) in an older data frame: columns after each other."""
    block = np.array([lines, ["iambic"] * len(lines)], dtype=object)
    return pickle.dumps({"table": [block, np.arange(3)], "other": OrderedDict(a=1)})


def test_the_first_column_of_text_is_read_without_the_library_of_its_table():
    frame = pd.DataFrame({"text": LINES, "meter": "iambic", "n": range(5)})
    frame = frame.astype({"text": object, "meter": object})

    for content in (array_state(LINES), pickle.dumps(frame)):
        assert list(lines_of_table(content, "data.pkl")) == LINES


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_can_run(tmp_path, protocol):
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    table = array_state(LINES)
    attack = pickle.dumps([Attack(trap), pickle.loads(table)], protocol=protocol)

    found = lines_of_table(attack, "data.pkl")

    assert list(found) == LINES
    assert not trap.exists()
    pickle.loads(pickle.dumps(Attack(sprung), protocol=protocol))
    assert sprung.exists()  # the attack would have worked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.pkl cannot be read as a pickle: Ran out of input"),
        (b"\x80\x04nonsense", "data.pkl cannot be read as a pickle"),
        (pickle.dumps([1, 2]), "data.pkl holds no column of text"),
    ],
)
def test_a_file_without_verse_is_refused(content, message):
    with pytest.raises(ConfigError, match=message):
        lines_of_table(content, "data.pkl")


def test_verse_is_parted_where_a_sentence_ends_and_other_languages_are_left_out():
    lines = ["the one,", "and the two,", "and the three.", "and the four,", "and the five;"] * 2

    removed = Counter()
    found = list(readers.verse_paragraphs(lines, 4, 0.0, removed))
    endless = readers.verse_paragraphs(["and the line"] * 45, 16, 0.0, removed)

    assert "\n".join(found) == "\n".join(lines)
    assert [len(p.split("\n")) for p in found] == [3, 5, 2]
    assert [len(p.split("\n")) for p in endless] == [20, 20, 5]
    english, latin = "And all the men of the hills are with me", "Arma virumque cano Troiae qui"
    assert list(readers.verse_paragraphs([english, latin], 1, 0.3, removed)) == [english]
    assert list(readers.verse_paragraphs(["1 2 3"], 1, 0.0, removed)) == []
    assert removed == {"not English": 2}
