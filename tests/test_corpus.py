"""A corpus gives back its splits byte by byte, and refuses what is not as its table says."""

import re
import shutil
from collections import Counter

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.build import build_recipe
from psannlm.corpora.corpus import SUMS, altered_files, beside, load
from psannlm.corpora.recipe import SPLITS, FilesSource, Recipe
from psannlm.files import sha256_of
from tests.texts import peak_while, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A corpus of twenty documents with a table, to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = {
        f"{i:02}": [f"document {i} has, é, a paragraph {n} of its own" for n in range(i + 1)]
        for i in range(20)
    }
    paths = (str(written(folder / "texts", texts)),)
    source = FilesSource(kind="files", name="own", licence="CC0", paths=paths)
    recipe = Recipe(name="r", description="d", sources=(source,), validation=0.1, test=0.1)
    return build_recipe(recipe, folder / "mine.txt", {})


@pytest.fixture
def built(whole, tmp_path):
    for file in (whole, *beside(whole)):
        shutil.copy(file, tmp_path)
    return tmp_path / whole.name


@pytest.fixture
def plain(tmp_path):
    """A text without a table, of 3,000 lines."""
    path = tmp_path / "plain.txt"
    path.write_text("".join(f"line {i} {'word ' * (i % 50)}\n" for i in range(3000)))
    return path


@pytest.mark.parametrize("which", ["built", "plain"])
def test_the_splits_together_are_the_text_and_add_up(which, request):
    path = request.getfixturevalue(which)
    corpus = load(path)
    found = {split: list(corpus.texts(split)) for split in SPLITS}
    texts = {split: iter(found[split]) for split in SPLITS}

    text = "".join(next(texts[document.split]) for document in corpus.documents)

    assert text == path.read_text()
    assert corpus.sha256 == sha256_of(path)
    for split in SPLITS:
        documents = [d for d in corpus.documents if d.split == split]
        assert [len(text.encode()) for text in found[split]] == [d.n_bytes for d in documents]
        assert [text.count("\n") for text in found[split]] == [d.n_lines for d in documents]
        assert corpus.n_bytes(split) == sum(d.n_bytes for d in documents) > 0


@pytest.mark.parametrize("max_bytes", [1, 46, 47, 2000, 10**9])
def test_a_bound_ends_with_the_paragraph_that_reaches_it(built, max_bytes):
    corpus = load(built)
    whole = "".join(corpus.texts("train"))

    part = "".join(corpus.texts("train", max_bytes))

    lines = part.encode().splitlines(keepends=True)
    assert whole.startswith(part)
    assert part.endswith("\n")
    assert sum(map(len, lines[:-1])) < max_bytes
    assert len(part.encode()) >= min(max_bytes, len(whole.encode()))
    assert list(corpus.texts("train", 0)) == []


def test_a_text_alone_has_blocks_of_whole_lines_for_documents(plain, whole):
    corpus = load(plain)

    assert {d.title for d in load(whole).documents} == {f"{i:02}" for i in range(20)}
    assert {(d.source, d.licence) for d in load(whole).documents} == {("own", "CC0")}
    assert 45 <= len(corpus.documents) <= 50
    assert Counter(d.split for d in corpus.documents)["train"] >= 40
    assert load(plain).documents == corpus.documents


def test_a_text_without_an_end_of_line_is_read_to_its_end(tmp_path):
    (tmp_path / "open.txt").write_text("one\ntwo\nthree")
    corpus = load(tmp_path / "open.txt")

    assert sorted(t for s in SPLITS for t in corpus.texts(s)) == ["one\n", "three", "two\n"]


def test_a_large_text_has_blocks_of_64_kib_and_neither_it_nor_a_line_fills_the_memory(tmp_path):
    path = tmp_path / "large.txt"
    path.write_text("".join(f"{'word ' * 50}{i}\n" for i in range(15_000)))  # 3.8 MB
    corpus = load(path)

    assert sum(map(corpus.n_bytes, SPLITS)) == path.stat().st_size
    assert all(2**16 <= d.n_bytes < 2**16 + 300 for d in corpus.documents[:-1])
    assert peak_while(lambda: load(path)) < 2e6
    assert peak_while(lambda: [sum(map(len, corpus.texts(split))) for split in SPLITS]) < 2e6
    path.write_bytes(b"a" * 10**7)

    def refused() -> None:
        with pytest.raises(ConfigError, match="1,000,000 bytes, got a longer one at byte 0"):
            load(path)

    assert peak_while(refused) < 5e6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tiny_books.txt", None, "does not exist; run: python -m psannlm corpus build tiny_books"),
        ("mine.txt", None, "does not exist; build one: python -m psannlm corpus from FILES"),
        ("mine.txt", b"", "is empty; build one: "),
        ("mine.txt", b"one\ntwo\n", "must have at least 3 lines, .*, got 2"),
        ("mine.txt", b"one\ntw\xff\n", "must be UTF-8 text, got something else at byte 6; save"),
    ],
    ids=["recipe", "missing", "empty", "short", "not UTF-8"],
)
def test_what_is_no_corpus_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        load(tmp_path / name)


def test_an_unknown_split_and_a_folder_are_refused(built):
    with pytest.raises(ConfigError, match="split must be one of train, validation, test, got 'dev"):
        next(load(built).texts("dev"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(built.parent)


TEXT, TABLE, FACTS = range(3)
UNFIT, UNREAD = r"does not fit mine\.txt: ", r"mine\.documents\.csv cannot be read: "
ENDS = rf"{UNFIT}its documents end at byte [\d,]+, the text at byte [\d,]+"


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (TEXT, "document", "Document", rf"{UNFIT}the text has the sha256 \w+, mine.json says \w+"),
        (TEXT, r"\Z", "more\n", ENDS),
        (TABLE, ",07,", ",77,", f"{UNFIT}the table has another sha256 than mine.json says"),
        (TABLE, r".*\n\Z", "", ENDS),
        (TABLE, r"\n(.*\n)(.*\n)", r"\n\2\1", f"{UNFIT}its documents end at byte 0, the text at"),
        (TABLE, ",45,1\n", ",45,2\n", f"{UNFIT}its numbers of lines are not those of the text"),
        (FACTS, "(?s).*", "", f"{UNFIT}mine.json is missing or cannot be read"),
        (TABLE, ",train,", ",trian,", f"{UNREAD}split must be one of .*, test, got 'trian'"),
        (TABLE, "first_byte", "start", f"{UNREAD}its columns must be document, source"),
        (TABLE, ",45,1\n", ",x,1\n", f"{UNREAD}invalid literal"),
    ],
)
def test_a_table_that_does_not_fit_its_text_or_cannot_be_read_is_refused(
    built, file, old, new, problem
):
    path = (built, *beside(built))[file]
    text, n_changes = re.subn(old, new, path.read_text(), count=1)
    path.write_text(text)

    assert n_changes == 1
    with pytest.raises(ConfigError, match=problem):
        load(built)


def test_a_text_that_changes_under_a_reader_is_noticed(built):
    corpus = load(built)
    built.write_text("x" * built.stat().st_size)

    with pytest.raises(ConfigError, match="was changed while it was read; load it again"):
        list(corpus.texts("train"))


@pytest.fixture
def sums(tmp_path):
    """The list of hashes of the committed text, in a copy that may be changed."""
    for path in SUMS.parent.glob("sample.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / SUMS.name


def test_a_committed_file_that_was_changed_or_is_missing_is_named(sums):
    assert list(altered_files()) == list(altered_files(sums)) == []
    for name in ("sample.txt", "sample.json", "sample.documents.csv"):
        path = sums.parent / name
        path.write_bytes(path.read_bytes().swapcase())
        [problem] = altered_files(sums)
        assert problem.startswith(f"{name}: was altered")
        path.unlink()
        [problem] = altered_files(sums)
        assert problem.startswith(f"{name}: is missing")
        shutil.copy(SUMS.parent / name, path)
    text = sums.read_text()
    for changed, name in ((text.replace(text[0], "x", 1), "sample.txt"), ("", "sample.sha256")):
        sums.write_text(changed)
        assert [said.split(":")[0] for said in altered_files(sums)] == [name]
    sums.unlink()
    assert [said.split(":")[0] for said in altered_files(sums)] == ["sample.sha256"]
