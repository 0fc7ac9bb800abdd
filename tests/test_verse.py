"""Verse comes out of a pickle that can run nothing."""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.verse import lines_of_table, verse_paragraphs

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


def test_the_first_column_of_text_comes_out_in_order():
    assert list(lines_of_table(io.BytesIO(array_state(LINES)), "data.pkl")) == LINES


def test_a_data_frame_of_objects_is_read_without_its_library():
    frame = pd.DataFrame({"text": LINES, "meter": "iambic", "n": range(5)})
    frame = frame.astype({"text": object, "meter": object})

    assert list(lines_of_table(io.BytesIO(pickle.dumps(frame)), "data.pkl")) == LINES


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
