"""Each reader makes documents of what it is given: titles, and paragraphs under them."""

import gzip
import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.archives import Member
from psannlm.corpora.clean import normalised
from psannlm.corpora.readers import Title, articles, first_bad_byte, read
from psannlm.corpora.recipe import FilesSource, PipSource
from psannlm.corpora.verse import lines_of_table, verse_paragraphs


def member(content: str | bytes, name: str = "texts/emma.txt") -> Member:
    data = content.encode() if isinstance(content, str) else content
    return Member(name, lambda: io.BytesIO(data))


def documents(content: str | bytes, **settings) -> list[tuple[str, list[str]]]:
    """Titles and normalised paragraphs as a source with `settings` reads them."""
    source = FilesSource(kind="files", name="s", licence="l", paths=("x",), **settings)
    return grouped(read(source, [member(content)]))


def grouped(stream) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for item in stream:
        if isinstance(item, Title):
            found.append((item.text, []))
        else:
            found[-1][1].append(normalised(item))
    return found


def test_prose_has_paragraphs_between_blank_lines_and_the_name_of_its_file():
    assert documents("a\r\nb\r\n\r\nc\n \nd") == [("emma", ["a b", "c", "d"])]


def test_the_first_line_can_be_the_title():
    text = "[Emma by Jane Austen 1816]\n\nEmma Woodhouse\n"

    assert documents(text, title="first_line") == [("Emma by Jane Austen 1816", ["Emma Woodhouse"])]


def test_text_begins_and_ends_where_the_recipe_says():
    text = "title\n\ncast\n\nACT I\n\nspeech\n\nNOTES\n\nnote"

    assert documents(text, begin="^ACT", end="^NOTES") == [("emma", ["ACT I", "speech"])]
    with pytest.raises(ConfigError, match=r"emma\.txt has no paragraph with '\^ACT', where its te"):
        documents("a\n\nb", begin="^ACT")


def test_what_is_to_be_cut_is_cut_before_lines_are_joined():
    cut = ["_", r"(?m)[ \t]{2,}\d+[ \t]*$"]

    assert documents("_Yes_, he    10\nsaid  2", cut=cut) == [("emma", ["Yes, he said"])]


def test_chapters_can_be_documents():
    text = "preface\n\nCHAPTER I\n\na\n\nb\n\nCHAPTER II\n\nc\n"

    assert documents(text, new_document="^CHAPTER") == [
        ("emma", ["preface"]),
        ("emma: CHAPTER I", ["a", "b"]),
        ("emma: CHAPTER II", ["c"]),
    ]


def test_speeches_are_joined_within_a_document():
    text = "Ber.\nWho's there?\n\nFran.\nNay, answer me.\n\nBer.\nLong live the king!\n"

    [(_, found)] = documents(text, join_characters=20)

    assert found == ["Ber. Who's there? Fran. Nay, answer me.", "Ber. Long live the king!"]


def test_a_file_without_blank_lines_has_a_paragraph_a_line():
    assert documents("a\nb\nc\n", reader="own") == [("emma", ["a", "b", "c"])]
    assert documents("a\nb\n\nc\n", reader="own") == [("emma", ["a b", "c"])]
    assert documents("a\nb\n\nc\n", reader="lines") == [("emma", ["a", "b", "", "c"])]
    assert documents("a\nb\n\n\n", reader="own") == [("emma", ["a", "b", "", ""])]


SCRIPTURE = """[The Bible]

The Old Testament

The First Book of Moses:  Called Genesis

1:1 In the beginning
was light. 1:2 And it was good.

And so it was.

1:3 And there was evening.

Amen.

Ecclesiastes

or

The Preacher

1:1 The words.

2:1 More words.

The end.
"""


def test_books_of_scripture_are_documents_without_numbers_of_verses():
    assert documents(SCRIPTURE, reader="scripture") == [
        (
            "The First Book of Moses: Called Genesis",
            [
                "In the beginning was light. And it was good.",
                "And so it was.",
                "And there was evening.",
                "Amen.",
            ],
        ),
        ("Ecclesiastes, or, The Preacher", ["The words.", "More words.", "The end."]),
    ]
    joined = documents(SCRIPTURE, reader="scripture", join_characters=10**4)
    assert [len(paragraphs) for _, paragraphs in joined] == [1, 1]


def test_every_so_many_lines_of_verse_are_a_document():
    lines = [f"and the line {i}." for i in range(45)]
    block = np.array([lines, ["meter"] * 45], dtype=object)
    packed = {"kind": "pip", "name": "s", "licence": "l", "package": "p", "version": "1"}
    packed |= {"sha256": "0" * 64, "members": ("*",), "reader": "verse"}
    source = PipSource(**packed, document_lines=10, paragraph_lines=4, keep_one_in=2)

    found = grouped(read(source, [member(pickle.dumps(block), "data.pkl")]))

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


def test_latin_1_is_read_where_the_recipe_allows_it():
    content = "Et tu, Br\u00fbte!".encode("latin-1")

    assert documents(content, fallback_encoding="latin-1") == [("emma", ["Et tu, Br\u00fbte!"])]
    with pytest.raises(ConfigError, match=r"emma\.txt must be utf-8 text, got .* at byte 9; save"):
        documents(content)


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert documents("\ufeffEmma\n\na", title="first_line") == [("Emma", ["a"])]
    assert documents("\ufeffACT I", begin="^ACT") == [("emma", ["ACT I"])]


def test_a_damaged_file_is_named():
    whole = gzip.compress(b"text " * 10_000)
    broken = Member("a.txt.gz", lambda: gzip.GzipFile(fileobj=io.BytesIO(whole[:-20])))
    source = FilesSource(kind="files", name="s", licence="l", paths=("x",))

    with pytest.raises(ConfigError, match=r"a\.txt\.gz cannot be read"):
        list(read(source, [broken]))


@pytest.mark.parametrize("offset", [0, 1, 2**20 - 1, 2**20, 2**20 + 1])
def test_the_first_bad_byte_is_found_wherever_blocks_end(offset):
    good = "\u20ac" * (2**20 // 3 + 10)
    data = bytearray(good.encode())

    assert first_bad_byte(io.BytesIO(bytes(data))) is None
    data[offset:offset] = b"\xff"
    place = offset - offset % 3  # the sign that the bad byte breaks begins there
    assert first_bad_byte(io.BytesIO(bytes(data))) == place
    assert first_bad_byte(io.BytesIO(good.encode()[:-1])) == len(good.encode()) - 3


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


def test_the_first_column_of_text_comes_out_in_order_without_the_library_of_its_table():
    frame = pd.DataFrame({"text": LINES, "meter": "iambic", "n": range(5)})
    frame = frame.astype({"text": object, "meter": object})

    for content in (array_state(LINES), pickle.dumps(frame)):
        assert list(lines_of_table(io.BytesIO(content), "data.pkl")) == LINES


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_can_run(tmp_path, protocol):
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    table = array_state(LINES)
    attack = pickle.dumps([Attack(trap), pickle.loads(table)], protocol=protocol)

    found = lines_of_table(io.BytesIO(attack), "data.pkl")

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
        lines_of_table(io.BytesIO(content), "data.pkl")


def test_a_paragraph_ends_where_a_sentence_does():
    lines = ["the one,", "and the two,", "and the three.", "and the four,", "and the five;"]

    found = list(verse_paragraphs(lines * 2, 4, 0.0))

    assert found[0] == "the one,\nand the two,\nand the three."
    assert "\n".join(found) == "\n".join(lines * 2)
    assert [len(p.split("\n")) for p in found] == [3, 5, 2]


def test_a_sentence_without_an_end_is_cut_after_a_quarter_more():
    sizes = [len(p.split("\n")) for p in verse_paragraphs(["and the line"] * 45, 16, 0.0)]

    assert sizes == [20, 20, 5]


def test_other_languages_are_left_out():
    english, latin = "And all the men of the hills are with me", "Arma virumque cano Troiae qui"

    assert list(verse_paragraphs([english, latin], 1, 0.3)) == [english]
    assert list(verse_paragraphs(["1 2 3"], 1, 0.0)) == []
