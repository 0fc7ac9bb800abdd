"""What a training reads: the corpus it names as token ids, made once and never half there."""

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.corpora.corpus import Corpus, Document
from psannlm.files import sha256_of
from psannlm.train import data as data_module
from psannlm.train.data import Data, Tokens, prepare, read
from psannlm.train.tokenizer import byte_tokenizer, train_bpe
from tests.test_tokenizer import write_ranks
from tests.texts import peak_while
from tests.tiny_trainings import training_config, write_text

TEXTS = ["one é\n", "two\n"]
BYTES = byte_tokenizer()
END = BYTES.end_of_text


@dataclasses.dataclass(frozen=True)
class Texts(Corpus):
    """A corpus that has its documents in memory."""

    content: Iterable[str] = ()

    def texts(self, split: str, max_bytes: int | None = None) -> Any:
        return self.content


def kept(
    tmp_path: Path, texts: Iterable[str] = TEXTS, tokenizer: Any = BYTES, **changes: Any
) -> Tokens:
    corpus = Texts(tmp_path, changes.pop("sha256", "abc"), (), texts)
    options = {"split": "train", "tokenizer": tokenizer, "cache": tmp_path / "cache"} | changes
    return prepare(cast("Corpus", corpus), **options)


def unread():
    raise AssertionError("the texts were read")
    yield ""


def test_documents_stand_between_ends_of_text(tmp_path):
    tokens = kept(tmp_path)

    assert tokens.ids.tolist() == [END, *"one é\n".encode(), END, *b"two\n", END]
    assert (tokens.n_predicted, tokens.n_bytes) == (13, 11)
    with pytest.raises(ValueError, match="read-only"):
        tokens.ids[0] = 0


def test_a_document_of_many_pieces_is_one_document_and_memory_does_not_grow(tmp_path, monkeypatch):
    def written(n_documents: int) -> None:
        kept(tmp_path, ("word " * 1000 for _ in range(n_documents)), max_bytes=n_documents)

    texts = ["a few words " * 9000, "and more", "x " * 9]
    whole = kept(tmp_path, texts, max_bytes=1)
    monkeypatch.setattr(data_module, "BATCH", 2**14)

    in_parts = kept(tmp_path, texts, max_bytes=2)

    assert in_parts.ids.tolist() == whole.ids.tolist()
    assert in_parts.n_bytes == whole.n_bytes == 9000 * 12 + 8 + 18
    assert np.flatnonzero(whole.ids == END).tolist() == [0, 108001, 108010, 108029]
    assert peak_while(lambda: written(400)) < 1.5 * peak_while(lambda: written(100))


@pytest.mark.parametrize(("vocab_size", "size"), [(2**16, 2), (2**16 + 1, 4)])
def test_an_id_takes_two_bytes_while_all_ids_fit(tmp_path, vocab_size, size):
    end = vocab_size - 1
    tokenizer = SimpleNamespace(
        vocab_size=vocab_size, end_of_text=end, sha256="", encode_batch=lambda texts: [[0, 258]]
    )

    tokens = kept(tmp_path, ["a"], tokenizer)

    [path] = (tmp_path / "cache").glob("*.ids")
    assert tokens.ids.tolist() == [end, 0, 258, end]
    numbers = b"".join(i.to_bytes(size, "little") for i in (0, 258))
    assert path.read_bytes()[size : size * 3] == numbers


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "other"}, {"split": "validation"}, {"max_bytes": 9},
        {"tokenizer": train_bpe(TEXTS, 257)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_ids_of_something_else_are_not_taken(tmp_path, change):
    before = kept(tmp_path)

    other = kept(tmp_path, ["other"], **change)

    again = kept(tmp_path, unread())
    assert other.n_bytes == 5
    assert (again.sha256, again.n_bytes) == (before.sha256, before.n_bytes)
    assert again.ids.tolist() == before.ids.tolist()


DAMAGES = {
    "flipped": lambda ids, beside: ids.write_bytes(b"\1" + ids.read_bytes()[1:]),
    "cut within an id": lambda ids, beside: ids.write_bytes(ids.read_bytes()[:-1]),
    "empty": lambda ids, beside: ids.write_bytes(b""),
    "gone": lambda ids, beside: ids.unlink(),
    "not described": lambda ids, beside: beside.unlink(),
    "described by no JSON": lambda ids, beside: beside.write_text("{"),
    "described by a list": lambda ids, beside: beside.write_text("[]"),
    "of another hash": lambda ids, beside: beside.write_text('{"sha256": "0", "n_bytes": 11}'),
    "of no length": lambda ids, beside: beside.write_text(f'{{"sha256": "{sha256_of(ids)}"}}'),
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
        Document("", f"{i}", "", split, first_byte=7 * i, n_bytes=7, n_lines=1)
        for i, split in enumerate(splits)
    ]
    return Corpus(path, "abc", tuple(documents))


def test_a_split_of_a_corpus_has_the_ids_of_its_documents_also_when_split_anew(tmp_path):
    corpus = corpus_of(tmp_path / "corpus.txt", ["train", "test", "train"])
    other = corpus_of(tmp_path / "corpus.txt", ["train", "train", "test"])

    whole = prepare(corpus, "train", BYTES, cache=tmp_path)
    cut = prepare(corpus, "train", BYTES, max_bytes=3, cache=tmp_path)
    anew = prepare(other, "train", BYTES, cache=tmp_path)

    assert whole.ids.tolist() == [END, *b"text 0\n", END, *b"text 2\n", END]
    assert cut.ids.tolist() == [END, *b"text 0\n", END]
    assert BYTES.decode(anew.ids.tolist()) == "text 0\ntext 1\n"
    with pytest.raises(ConfigError, match="split validation must hold text"):
        prepare(corpus, "validation", BYTES, cache=tmp_path)
    with pytest.raises(ConfigError, match="split must be one of"):
        prepare(corpus, "nonsense", BYTES, cache=tmp_path)


def broken():
    yield "text " * 10
    raise RuntimeError("midway")


@pytest.mark.parametrize("texts", [[], ["", ""], broken()])
def test_an_empty_split_or_an_error_midway_leaves_nothing_behind(tmp_path, texts):
    message = "split validation must hold text, got none|midway"
    with pytest.raises((ConfigError, RuntimeError), match=message):
        kept(tmp_path, texts, split="validation")

    assert list((tmp_path / "cache").iterdir()) == []


def config_for(folder: Path, **changes: object) -> TrainingConfig:
    return training_config(corpus=str(write_text(folder, 6000)), **changes)


def text_of(data: Data, tokens: Tokens) -> str:
    return data.tokenizer.decode(tokens.ids.tolist())


def kind_of(folder: Path, kind: str) -> TrainingConfig:
    """A training that reads `folder` with a tokenizer of that kind."""
    if kind == "gpt2":
        return gpt2_config(folder, 50256)
    return config_for(folder, tokenizer=kind, vocab_size={"bytes": 257, "bpe": 280}[kind])


@pytest.mark.parametrize("kind", ["bytes", "bpe", "gpt2"])
def test_splits_are_those_of_the_corpus_in_tokens_of_the_kind_asked_for(tmp_path, kind) -> None:
    config = kind_of(tmp_path, kind)

    data = read(config, cache=tmp_path / "cache")

    assert data.tokenizer.kind == kind
    assert data.tokenizer.vocab_size == config.vocab_size
    for split in ("train", "validation", "test"):
        tokens: Tokens = getattr(data, split)
        assert text_of(data, tokens) == "".join(data.corpus.texts(split))
        assert tokens.n_bytes == data.corpus.n_bytes(split)


def test_megabytes_bound_what_is_trained_and_evaluated_on(tmp_path) -> None:
    config = config_for(tmp_path, train_megabytes=0.001, validation_megabytes=0.0001)

    part = read(config, cache=tmp_path / "cache")
    whole = read(training_config(corpus=config.corpus), cache=tmp_path / "cache")

    # A split ends with the paragraph in which its bytes are reached, here of some 30 bytes.
    for split, least in (("train", 1000), ("validation", 100), ("test", 100)):
        some, all_of_it = getattr(part, split), getattr(whole, split)
        assert least <= some.n_bytes < least + 100 < all_of_it.n_bytes
        assert text_of(whole, all_of_it).startswith(text_of(part, some)[:least])


def test_byte_pairs_are_learned_once_from_the_training_text(tmp_path, monkeypatch) -> None:
    config, cache = kind_of(tmp_path, "bpe"), tmp_path / "cache"
    first = read(config, cache=cache)
    less = read(config.model_copy(update={"train_megabytes": 0.002}), cache=cache)
    monkeypatch.setattr(data_module, "train_bpe", None)
    monkeypatch.setattr(data_module, "stream", None)

    again = read(config, cache=cache)

    assert first.train.n_predicted < first.train.n_bytes
    assert less.tokenizer.sha256 != first.tokenizer.sha256
    assert again.identity == first.identity


def gpt2_config(folder: Path, n_ranks: int) -> TrainingConfig:
    pairs = (bytes(pair) for pair in itertools.product(range(32, 256), repeat=2))
    longer = list(itertools.islice(pairs, n_ranks - 256))
    ranks = write_ranks(folder / "gpt2.tiktoken", longer)
    return config_for(folder, tokenizer="gpt2", tokenizer_file=str(ranks), vocab_size=50257)


def test_what_cannot_be_read_as_asked_is_refused_with_the_way_out(tmp_path) -> None:
    (tmp_path / "full").touch()
    fewer = gpt2_config(tmp_path, 300)
    missing = fewer.model_copy(update={"tokenizer_file": str(tmp_path / "none")})
    too_many = config_for(tmp_path, tokenizer="bpe", vocab_size=5000)
    nowhere = training_config(corpus=str(tmp_path / "tiny_books.txt"))

    for config, cache, message in (
        (fewer, "cache", r"got 50257 and 301 of .*gpt2\.tiktoken; give the file"),
        (missing, "cache", "none cannot be read as ranks"),
        (too_many, "cache", r"vocab_size must be at most \d+ for this text, got 5000"),
        (nowhere, "cache", "python -m psannlm corpus build tiny_books"),
        (kind_of(tmp_path, "bytes"), "full", r"cannot be written: .*or name another folder"),
        (kind_of(tmp_path, "bpe"), "full", r"cannot be written: .*or name another folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(config, cache=tmp_path / cache)
