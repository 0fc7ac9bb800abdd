"""One's own files become a corpus as they are, in whole files or in parts."""

import csv
import io

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.build import build_from
from psannlm.corpora.corpus import beside, load
from tests.texts import facts_of, prose, written


def test_few_files_of_ones_own_are_cut_into_parts(tmp_path):
    written(tmp_path / "a", {"one": [prose() for _ in range(300)], "two": [prose()]})

    path = build_from([tmp_path / "a"], tmp_path / "out" / "mine.txt")

    corpus = load(path)
    assert 40 <= len(corpus.documents) <= 55
    assert {d.title for d in corpus.documents} == {"one", "two"}
    assert facts_of(path)["lines"] == 301


def test_many_files_of_ones_own_stay_whole(tmp_path):
    written(tmp_path / "a", {f"file {i}": [prose() for _ in range(i + 1)] for i in range(50)})

    corpus = load(build_from([tmp_path / "a"], tmp_path / "mine.txt"))

    assert sorted(d.n_lines for d in corpus.documents) == list(range(1, 51))


def test_ones_own_headings_and_other_scripts_stay(tmp_path):
    lines = [f"{word} {i}" for i in range(40) for word in ("CHAPTER", "Глава", "第", "ok")]
    written(tmp_path / "a", {"a": lines})

    path = build_from([tmp_path / "a" / "a.txt"], tmp_path / "mine.txt")

    assert sorted(path.read_text().splitlines()) == sorted(lines)


def test_nothing_written_names_a_folder_of_this_machine(tmp_path):
    written(tmp_path / "a", {"a": [prose() for _ in range(100)]})

    path = build_from([tmp_path / "a"], tmp_path / "mine.txt")

    for file in (path, *beside(path)):
        assert str(tmp_path) not in file.read_text()


@pytest.mark.parametrize(
    ("files", "out", "message"),
    [
        (["a"], "mine.csv", r"mine\.csv must end in \.txt"),
        ([], "mine.txt", "no file was named"),
        (["a"], "a/a.txt", r"a\.txt is one of the files to be read; name another output"),
        (["b"], "mine.txt", "b does not exist"),
    ],
)
def test_what_cannot_be_built_from_files_is_refused(tmp_path, files, out, message):
    written(tmp_path / "a", {"a": [prose()]})

    with pytest.raises(ConfigError, match=message):
        build_from([tmp_path / name for name in files], tmp_path / out)


def test_titles_with_commas_survive_the_table(tmp_path):
    written(tmp_path / "a", {f'He said, "yes" {i}': [prose()] for i in range(50)})

    path = build_from([tmp_path / "a"], tmp_path / "mine.txt")

    rows = list(csv.DictReader(io.StringIO(beside(path)[0].read_text())))
    assert {row["title"] for row in rows} == {f'He said, "yes" {i}' for i in range(50)}
