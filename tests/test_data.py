"""What a training reads is the corpus it names, in the tokens of the tokenizer it names."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.data import Data, read
from psannlm.train.shards import Tokens
from tests.test_tokenizer import write_ranks
from tests.tiny_trainings import training_config, write_text


def config_for(folder: Path, n_bytes: int = 6000, **changes: object) -> TrainingConfig:
    return training_config(corpus=str(write_text(folder, n_bytes)), **changes)


def text_of(data: Data, tokens: Tokens) -> str:
    return data.tokenizer.decode(tokens.ids.tolist())


def test_splits_are_those_of_the_corpus_in_bytes(tmp_path) -> None:
    data = read(config_for(tmp_path), cache=tmp_path / "cache")

    assert data.tokenizer.kind == "bytes"
    for split in ("train", "validation", "test"):
        tokens: Tokens = getattr(data, split)
        assert text_of(data, tokens) == "".join(data.corpus.texts(split))
        assert tokens.n_bytes == data.corpus.n_bytes(split)


def test_megabytes_bound_what_is_trained_and_evaluated_on(tmp_path) -> None:
    config = config_for(tmp_path, train_megabytes=0.001, validation_megabytes=0.0001)

    data = read(config, cache=tmp_path / "cache")

    whole = read(training_config(corpus=config.corpus), cache=tmp_path / "cache")
    # A split ends with the paragraph in which its bytes are reached, here of some 30 bytes.
    assert 1000 <= data.train.n_bytes < 1100 < whole.train.n_bytes
    assert 100 <= data.validation.n_bytes < 200 < whole.validation.n_bytes
    assert 100 <= data.test.n_bytes < 200 < whole.test.n_bytes
    assert text_of(whole, whole.train).startswith(text_of(data, data.train)[:1000])


def test_byte_pairs_are_learned_from_the_text_that_is_trained_on(tmp_path) -> None:
    config = config_for(tmp_path, tokenizer="bpe", vocab_size=280)

    data = read(config, cache=tmp_path / "cache")
    less = read(config.model_copy(update={"train_megabytes": 0.002}), cache=tmp_path / "cache")

    assert data.tokenizer.kind == "bpe"
    assert data.tokenizer.vocab_size == 280
    assert data.train.n_tokens < data.train.n_bytes
    assert text_of(data, data.train) == "".join(data.corpus.texts("train"))
    assert less.tokenizer.sha256 != data.tokenizer.sha256


def test_what_was_made_once_is_read_again(tmp_path, monkeypatch) -> None:
    config = config_for(tmp_path, tokenizer="bpe", vocab_size=280)
    first = read(config, cache=tmp_path / "cache")
    monkeypatch.setattr("psannlm.train.data.train_bpe", None)
    monkeypatch.setattr("psannlm.train.shards.stream", None)

    again = read(config, cache=tmp_path / "cache")

    assert again.identity == first.identity
    assert np.array_equal(again.train.ids, first.train.ids)


def test_an_identity_is_of_the_text_and_not_of_its_place(tmp_path) -> None:
    for name in ("here", "there", "other"):
        (tmp_path / name).mkdir()
    here, there = (config_for(tmp_path / name) for name in ("here", "there"))
    other = training_config(corpus=str(write_text(tmp_path / "other", 6000, seed=1)))

    first, same, differing = (
        read(config, cache=tmp_path / "cache").identity for config in (here, there, other)
    )

    assert first == same
    assert {key for key in first if first[key] != differing[key]} == {
        "corpus_sha256", "train_sha256", "validation_sha256",
    }  # fmt: skip


def gpt2_config(folder: Path, n_ranks: int) -> TrainingConfig:
    pairs = (bytes(pair) for pair in itertools.product(range(32, 256), repeat=2))
    longer = list(itertools.islice(pairs, n_ranks - 256))
    ranks = write_ranks(folder / "gpt2.tiktoken", longer)
    return config_for(folder, tokenizer="gpt2", tokenizer_file=str(ranks), vocab_size=50257)


def test_ranks_of_gpt2_are_read_from_their_file(tmp_path) -> None:
    data = read(gpt2_config(tmp_path, 50256), cache=tmp_path / "cache")

    assert data.tokenizer.kind == "gpt2"
    assert data.tokenizer.vocab_size == 50257
    assert text_of(data, data.test) == "".join(data.corpus.texts("test"))


def test_a_vocabulary_that_ranks_or_text_do_not_give_is_refused(tmp_path) -> None:
    fewer = gpt2_config(tmp_path, 300)
    missing = fewer.model_copy(update={"tokenizer_file": str(tmp_path / "none")})
    too_many = config_for(tmp_path, tokenizer="bpe", vocab_size=5000)

    for config, message in (
        (fewer, r"got 50257 and 301 of .*gpt2\.tiktoken; give the file"),
        (missing, "none cannot be read as ranks"),
        (too_many, r"vocab_size must be at most \d+ for this text, got 5000"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(config, cache=tmp_path / "cache")


def test_a_missing_corpus_and_a_cache_that_cannot_be_written_are_messages(tmp_path) -> None:
    (tmp_path / "cache").touch()

    with pytest.raises(ConfigError, match="python -m psannlm corpus build tiny_books"):
        read(training_config(corpus=str(tmp_path / "tiny_books.txt")), cache=tmp_path)
    for changes in ({}, {"tokenizer": "bpe", "vocab_size": 280}):
        with pytest.raises(ConfigError, match=r"cannot be written: .*or name another folder"):
            read(config_for(tmp_path, **changes), cache=tmp_path / "cache")
