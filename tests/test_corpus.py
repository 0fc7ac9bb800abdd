"""A corpus gives back its splits byte by byte, and refuses what is not as its table says."""

import json
import tracemalloc
from collections import Counter

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.build import build_recipe
from psannlm.corpora.corpus import LONGEST_LINE, beside, load
from psannlm.corpora.recipe import FilesSource, Recipe
from psannlm.files import sha256_of

SPLITS = ("train", "validation", "test")


@pytest.fixture
def built(tmp_path):
    """A corpus of twenty documents with a table."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(20):
        lines = [f"document {i} has, é, a paragraph {n} of its own" for n in range(i + 1)]
        (folder / f"{i:02}.txt").write_text("\n\n".join(lines))
    source = FilesSource(kind="files", name="own", licence="CC0", paths=(str(folder),))
    recipe = Recipe(name="r", description="d", sources=(source,), validation=0.1, test=0.1)
    return build_recipe(recipe, tmp_path / "mine.txt", {})


@pytest.fixture
def plain(tmp_path):
    """A text without a table, of 3,000 lines."""
    path = tmp_path / "plain.txt"
    path.write_text("".join(f"line {i} {'word ' * (i % 50)}\n" for i in range(3000)))
    return path


@pytest.mark.parametrize("which", ["built", "plain"])
def test_the_splits_together_are_the_text(which, request):
    path = request.getfixturevalue(which)
    corpus = load(path)
    texts = {split: iter(corpus.texts(split)) for split in SPLITS}

    whole = "".join(next(texts[document.split]) for document in corpus.documents)

    assert whole == path.read_text()
    assert (corpus.name, corpus.sha256) == (path.stem, sha256_of(path))
    assert all(corpus.n_bytes(split) > 0 for split in SPLITS)


@pytest.mark.parametrize("which", ["built", "plain"])
def test_bytes_and_lines_are_those_of_the_documents(which, request):
    corpus = load(request.getfixturevalue(which))

    for split in SPLITS:
        texts = list(corpus.texts(split))
        documents = [d for d in corpus.documents if d.split == split]
        assert [len(text.encode()) for text in texts] == [d.n_bytes for d in documents]
        assert [text.count("\n") for text in texts] == [d.n_lines for d in documents]
        assert corpus.n_bytes(split) == sum(len(text.encode()) for text in texts)


def test_titles_sources_and_licences_are_kept(built):
    titles = {document.title for document in load(built).documents}

    assert titles == {f"{i:02}" for i in range(20)}
    assert {(d.source, d.licence) for d in load(built).documents} == {("own", "CC0")}


@pytest.mark.parametrize("max_bytes", [1, 46, 47, 500, 2000, 10**9])
def test_a_bound_ends_with_the_paragraph_that_reaches_it(built, max_bytes):
    corpus = load(built)
    whole = "".join(corpus.texts("train"))

    part = "".join(corpus.texts("train", max_bytes))

    lines = part.encode().splitlines(keepends=True)
    assert whole.startswith(part)
    assert part.endswith("\n")
    assert sum(map(len, lines[:-1])) < max_bytes
    assert len(part.encode()) >= min(max_bytes, len(whole.encode()))


def test_a_bound_of_nothing_gives_nothing(built):
    assert list(load(built).texts("train", 0)) == []


def test_an_unknown_split_is_refused(built):
    with pytest.raises(ConfigError, match="split must be one of train, validation, test, got 'dev"):
        next(load(built).texts("dev"))


def test_a_text_alone_has_blocks_of_whole_lines_for_documents(plain):
    corpus = load(plain)

    assert 45 <= len(corpus.documents) <= 50
    assert Counter(d.split for d in corpus.documents)["train"] >= 40
    assert load(plain).documents == corpus.documents


def test_blocks_of_a_large_text_have_64_kib(tmp_path):
    path = tmp_path / "large.txt"
    path.write_text("".join(f"line {i}\n" for i in range(500_000)))

    sizes = [d.n_bytes for d in load(path).documents]

    assert all(2**16 <= size < 2**16 + 20 for size in sizes[:-1])


def test_a_text_without_an_end_of_line_is_read_to_its_end(tmp_path):
    path = tmp_path / "open.txt"
    path.write_text("one\ntwo\nthree")
    corpus = load(path)

    assert sorted(t for s in SPLITS for t in corpus.texts(s)) == ["one\n", "three", "two\n"]


def test_memory_does_not_grow_with_the_text(tmp_path):
    path = tmp_path / "large.txt"
    path.write_text("".join(f"{'word ' * 50}{i}\n" for i in range(20_000)))  # 5 MB
    tracemalloc.start()

    n_bytes = sum(len(text) for split in SPLITS for text in load(path).texts(split))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert n_bytes == path.stat().st_size
    assert peak < 2e6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tiny_books.txt", None, "does not exist; run: python -m psannlm corpus build tiny_books"),
        ("mine.txt", None, "does not exist; build one: python -m psannlm corpus from FILES"),
        ("mine.txt", b"", "is empty; build one: "),
        ("mine.txt", b"one\ntwo\n", "must have at least 3 lines, .*, got 2"),
        ("mine.txt", b"one\ntw\xff\n", "must be UTF-8 text, got something else at byte 6; save"),
        ("mine.txt", b"a" * (LONGEST_LINE + 2), "at most 1,000,000 bytes, got a longer one at by"),
    ],
    ids=["recipe", "missing", "empty", "short", "not UTF-8", "one line"],
)
def test_what_is_no_corpus_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        load(tmp_path / name)


def test_an_enormous_line_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"a" * 10**7)
    tracemalloc.start()

    with pytest.raises(ConfigError, match="got a longer one at byte 0; cut it with: python -m"):
        load(tmp_path / "mine.txt")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5e6


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def change_text(text, table, facts):
    text.write_text(text.read_text().replace("document", "Document", 1))


def lengthen_text(text, table, facts):
    text.write_text(text.read_text() + "more\n")


def change_title(text, table, facts):
    table.write_text(table.read_text().replace(",07,", ",77,"))


def drop_row(text, table, facts):
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def swap_rows(text, table, facts):
    head, first, second, *rest = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, second, first, *rest]))
    told = json.loads(facts.read_text()) | {"documents_sha256": sha256_of(table)}
    facts.write_text(json.dumps(told))


def remove_facts(text, table, facts):
    facts.unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_text, r"the text has the sha256 \w+, mine.json says \w+"),
        (lengthen_text, r"its documents end at byte [\d,]+, the text at byte [\d,]+"),
        (change_title, "the table has another sha256 than mine.json says"),
        (drop_row, r"its documents end at byte [\d,]+, the text at byte [\d,]+"),
        (swap_rows, r"its documents end at byte 0, the text at byte [\d,]+"),
        (remove_facts, "mine.json is missing or cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_its_text_is_refused(built, change, problem):
    change(built, *beside(built))

    with pytest.raises(ConfigError, match=rf"does not fit mine\.txt: {problem}; build the corpus"):
        load(built)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (",train,", ",trian,", "split must be one of train, validation, test, got 'trian'"),
        ("first_byte", "start", "its columns must be document, source"),
        (",45,1\n", ",x,1\n", "invalid literal"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(built, old, new, problem):
    table, _ = beside(built)
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new, 1))

    with pytest.raises(ConfigError, match=f"mine.documents.csv cannot be read: {problem}"):
        load(built)


def test_a_text_that_changes_under_a_reader_is_noticed(built):
    corpus = load(built)
    built.write_text("x" * built.stat().st_size)

    with pytest.raises(ConfigError, match="was changed while it was read; load it again"):
        list(corpus.texts("train"))


def test_the_facts_name_the_text(built):
    _, facts = beside(built)

    assert json.loads(facts.read_text())["sha256"] == load(built).sha256
