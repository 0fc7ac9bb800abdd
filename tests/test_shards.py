"""Token ids in files: made once, found again, and never half there."""

import json
import subprocess
import sys
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import Corpus, Document
from psannlm.train import shards
from psannlm.train.shards import Tokens, prepare, prepare_split
from psannlm.train.tokenizer import byte_tokenizer, train_bpe

TEXTS = ["one é\n", "two\n"]
BYTES = byte_tokenizer()
END = BYTES.end_of_text


def kept(tmp_path, texts=TEXTS, tokenizer=BYTES, **changes) -> Tokens:
    key = {"corpus": "abc", "split": "train", "max_bytes": None} | changes
    return prepare(texts, tokenizer, **key, cache=tmp_path / "cache")


def unread():
    raise AssertionError("the texts were read")
    yield ""


def files(tmp_path) -> list[str]:
    return sorted(path.suffix for path in (tmp_path / "cache").iterdir())


def test_documents_stand_between_ends_of_text(tmp_path):
    tokens = kept(tmp_path)

    expected = [END, *"one é\n".encode(), END, *b"two\n", END]
    assert tokens.ids.tolist() == expected
    assert tokens.n_tokens == len(expected) == 14
    assert tokens.n_predicted == 13
    assert tokens.n_bytes == 11
    assert tokens.bytes_per_token == 11 / 13
    assert tokens.largest == END


def test_ids_are_those_of_the_tokenizer(tmp_path):
    tokenizer = train_bpe(["the cat sat on the mat"] * 9, 264)

    tokens = kept(tmp_path, ["the cat\n"], tokenizer)

    end = tokenizer.end_of_text
    assert tokens.ids.tolist() == [end, *tokenizer.encode("the cat\n"), end]
    assert tokens.n_bytes == 8


def test_a_document_of_many_pieces_is_one_document(tmp_path, monkeypatch):
    whole = kept(tmp_path, ["a few words " * 9000, "and more", "x " * 9], max_bytes=1)
    monkeypatch.setattr(shards, "BATCH", 10)

    in_parts = kept(tmp_path, ["a few words " * 9000, "and more", "x " * 9], max_bytes=2)

    assert in_parts.ids.tolist() == whole.ids.tolist()
    assert in_parts.n_bytes == whole.n_bytes == 9000 * 12 + 8 + 18
    assert np.flatnonzero(whole.ids == END).tolist() == [0, 108001, 108010, 108029]


@pytest.mark.parametrize(("vocab_size", "size"), [(2**16, 2), (2**16 + 1, 4)])
def test_an_id_takes_two_bytes_while_all_ids_fit(tmp_path, vocab_size, size):
    end = vocab_size - 1
    tokenizer = SimpleNamespace(
        vocab_size=vocab_size, end_of_text=end, sha256="", encode_batch=lambda texts: [[0, 258]]
    )

    tokens = kept(tmp_path, ["a"], tokenizer)

    [path] = (tmp_path / "cache").glob("*.ids")
    assert tokens.ids.tolist() == [end, 0, 258, end]
    assert path.read_bytes()[size : size * 3] == b"".join(
        i.to_bytes(size, "little") for i in (0, 258)
    )


def test_ids_cannot_be_written_to(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        kept(tmp_path).ids[0] = 0


def test_kept_ids_are_found_without_reading_the_text(tmp_path):
    first = kept(tmp_path)

    second = kept(tmp_path, unread())

    assert second.ids.tolist() == first.ids.tolist()
    assert (second.sha256, second.n_bytes) == (first.sha256, first.n_bytes)


@pytest.mark.parametrize(
    "change",
    [{"corpus": "other"}, {"split": "validation"}, {"max_bytes": 9}, {"tokenizer": "bpe"}],
    ids=lambda change: next(iter(change)),
)
def test_ids_of_something_else_are_not_taken(tmp_path, change):
    if "tokenizer" in change:
        change = {"tokenizer": train_bpe(TEXTS, 257)}
    before = kept(tmp_path)

    other = kept(tmp_path, ["other"], **change)

    assert other.n_bytes == 5
    assert kept(tmp_path, unread()).sha256 == before.sha256


def damage_beside(change):
    def damage(ids, beside):
        beside.write_text(json.dumps(change(json.loads(beside.read_text()))))

    return damage


DAMAGES = {
    "flipped": lambda ids, beside: ids.write_bytes(b"\1" + ids.read_bytes()[1:]),
    "cut": lambda ids, beside: ids.write_bytes(ids.read_bytes()[:-2]),
    "cut within an id": lambda ids, beside: ids.write_bytes(ids.read_bytes()[:-1]),
    "longer": lambda ids, beside: ids.write_bytes(ids.read_bytes() + b"\0\0"),
    "empty": lambda ids, beside: ids.write_bytes(b""),
    "gone": lambda ids, beside: ids.unlink(),
    "not described": lambda ids, beside: beside.unlink(),
    "described by no JSON": lambda ids, beside: beside.write_text("{"),
    "described by a list": lambda ids, beside: beside.write_text("[]"),
    "of another hash": damage_beside(lambda content: content | {"sha256": "0"}),
    "of no length": damage_beside(lambda content: {"sha256": content["sha256"]}),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ids_are_made_anew(tmp_path, name):
    expected = kept(tmp_path).ids.tolist()
    [ids] = (tmp_path / "cache").glob("*.ids")
    DAMAGES[name](ids, ids.with_suffix(".json"))

    assert kept(tmp_path).ids.tolist() == expected
    assert kept(tmp_path, unread()).n_bytes == 11


def corpus_of(path, splits: list[str]) -> Corpus:
    """Paragraphs `text 0`, `text 1`, ... of 7 bytes, each a document of the given split."""
    path.write_text("".join(f"text {i}\n" for i in range(len(splits))))
    documents = [
        Document(f"{i}", "", "", split, first_byte=7 * i, n_bytes=7, n_lines=1)
        for i, split in enumerate(splits)
    ]
    return Corpus(path, "corpus", "abc", tuple(documents))


def test_a_split_of_a_corpus_has_the_ids_of_its_documents(tmp_path):
    corpus = corpus_of(tmp_path / "corpus.txt", ["train", "test", "train"])

    whole = prepare_split(corpus, "train", BYTES, cache=tmp_path)
    cut = prepare_split(corpus, "train", BYTES, max_bytes=3, cache=tmp_path)

    assert whole.ids.tolist() == [END, *b"text 0\n", END, *b"text 2\n", END]
    assert cut.ids.tolist() == [END, *b"text 0\n", END]


def test_a_text_that_is_split_anew_has_ids_anew(tmp_path):
    before = corpus_of(tmp_path / "corpus.txt", ["train", "test", "train"])
    after = corpus_of(tmp_path / "corpus.txt", ["train", "train", "test"])

    old = prepare_split(before, "train", BYTES, cache=tmp_path)
    new = prepare_split(after, "train", BYTES, cache=tmp_path)

    assert BYTES.decode(old.ids.tolist()) == "text 0\ntext 2\n"
    assert BYTES.decode(new.ids.tolist()) == "text 0\ntext 1\n"


def test_a_split_that_a_corpus_does_not_have_is_refused(tmp_path):
    corpus = corpus_of(tmp_path / "corpus.txt", ["train"])

    with pytest.raises(ConfigError, match="split validation must hold text"):
        prepare_split(corpus, "validation", BYTES, cache=tmp_path)
    with pytest.raises(ConfigError, match="split must be one of"):
        prepare_split(corpus, "nonsense", BYTES, cache=tmp_path)


def test_an_error_midway_leaves_nothing_behind(tmp_path):
    def broken():
        yield "text " * 10
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        kept(tmp_path, broken())

    assert files(tmp_path) == []


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_an_empty_split_is_refused_and_leaves_nothing_behind(tmp_path, texts):
    with pytest.raises(ConfigError, match="split validation must hold text, got none"):
        kept(tmp_path, texts, split="validation")

    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    (tmp_path / "cache").write_text("a file stands where the folder should")

    with pytest.raises(ConfigError, match=r"cache cannot be written: .*name another folder"):
        kept(tmp_path)


def test_more_ids_than_a_network_has_are_refused(tmp_path):
    tokens = kept(tmp_path)
    tokens.check(257)

    with pytest.raises(ConfigError, match="must be below vocab_size 256, got 256"):
        tokens.check(256)


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH", 2**14)
    monkeypatch.setattr(shards, "CHUNK", 2**14)

    def peak(n_documents: int) -> int:
        tracemalloc.start()
        kept(tmp_path, ("word " * 1000 for _ in range(n_documents)), max_bytes=n_documents)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # what is made once, at the first use

    assert peak(400) < 1.5 * peak(100)


MAKER = """
import pathlib, sys
from psannlm.train.shards import prepare
from psannlm.train.tokenizer import byte_tokenizer
texts = (f"document {i} " * 50 for i in range(2000))
sys.stdin.readline()
tokens = prepare(texts, byte_tokenizer(), corpus="", split="train", max_bytes=None,
                 cache=pathlib.Path(sys.argv[1]))
print(tokens.n_tokens, tokens.n_bytes, tokens.sha256)
"""


@pytest.mark.slow
def test_several_makers_at_once_agree(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    makers = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    time.sleep(2)  # all stand at the start

    for maker in makers:
        maker.stdin.write("go\n")
        maker.stdin.flush()
    said = {maker.communicate(timeout=120)[0] for maker in makers}

    assert [maker.returncode for maker in makers] == [0] * 4
    [line] = said
    assert int(line.split()[1]) == sum(len(f"document {i} ") * 50 for i in range(2000))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".ids", ".json"]
