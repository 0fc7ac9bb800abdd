"""A committed text whose digits were changed is named."""

import shutil

import pytest
from psannlm.corpora.corpus import SUMS, altered_files

FILES = ("sample.txt", "sample.json", "sample.documents.csv")


@pytest.fixture
def sums(tmp_path):
    """The list of sums of the committed text, in a copy that may be changed."""
    for name in (*FILES, SUMS.name):
        shutil.copy(SUMS.parent / name, tmp_path)
    return tmp_path / SUMS.name


def test_the_committed_text_is_as_it_was_built():
    assert list(altered_files()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_changed_digit_is_named_with_its_file(sums, name):
    path = sums.parent / name
    whole = path.read_bytes()
    place = next(i for i in range(len(whole) // 2, len(whole)) if whole[i : i + 1].isdigit())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    [problem] = altered_files(sums)

    assert problem.startswith(f"{name}: was altered")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(sums, name):
    (sums.parent / name).unlink()

    [problem] = altered_files(sums)

    assert problem.startswith(f"{name}: is missing")


def test_a_list_that_was_changed_emptied_or_taken_away_is_no_pass(sums):
    text = sums.read_text()
    first = text[0]

    sums.write_text(("1" if first == "0" else "0") + text[1:])
    assert [said.split(":")[0] for said in altered_files(sums)] == ["sample.txt"]
    sums.write_text("")
    assert [said.split(":")[0] for said in altered_files(sums)] == ["sample.sha256"]
    sums.unlink()
    assert [said.split(":")[0] for said in altered_files(sums)] == ["sample.sha256"]
