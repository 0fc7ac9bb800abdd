"""What a training reads: the splits of a corpus as tokens, and the tokenizer that made them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psannlm import CACHE, ROOT
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.corpora.corpus import Corpus, load
from psannlm.train.journal import writing
from psannlm.train.shards import Tokens, prepare, split_sha256
from psannlm.train.tokenizer import Tokenizer, byte_tokenizer, gpt2_tokenizer, train_bpe


@dataclass(frozen=True)
class Data:
    """A corpus in tokens."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    test: Tokens

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes by which two trainings on the same data are known."""
        return {
            "corpus_sha256": self.corpus.sha256,
            "tokenizer_sha256": self.tokenizer.sha256,
            "train_sha256": self.train.sha256,
            "validation_sha256": self.validation.sha256,
        }


def read(config: TrainingConfig, *, cache: Path | None = None) -> Data:
    """The splits that a training reads; what is made for it stays in `cache`, or in CACHE.

    Raises:
        ConfigError: The corpus is missing or broken, a split is empty, the text does not bear the
            vocabulary, the tokenizer has another one, or the cache cannot be written.
    """
    cache = cache or CACHE
    corpus = load(ROOT / config.corpus)
    within = limits(config)
    tokenizer = _tokenizer(config, corpus, within["train"], cache / "tokenizers")
    if tokenizer.vocab_size != config.vocab_size:
        raise ConfigError(
            f"vocab_size must be that of the tokenizer, got {config.vocab_size} and "
            f"{tokenizer.vocab_size} of {config.tokenizer_file or config.tokenizer}; give the "
            "file of all of its ranks"
        )
    splits = {
        split: prepare(corpus, split, tokenizer, max_bytes=limit, cache=cache / "tokens")
        for split, limit in within.items()
    }
    return Data(corpus, tokenizer, **splits)


def limits(config: TrainingConfig) -> dict[str, int | None]:
    """Bytes to which each split is cut; None where it is not."""
    training, held_out = (
        round(megabytes * 10**6) or None
        for megabytes in (config.train_megabytes, config.validation_megabytes)
    )
    return {"train": training, "validation": held_out, "test": held_out}


def sources(config: TrainingConfig, data: Data) -> dict[str, dict[str, object]]:
    """What the manifest of a run says of text and tokenizer.

    Args:
        config: Of a training that reads them.
        data: What it reads.
    """
    return {
        "corpus": {
            "path": config.corpus,
            "sha256": data.corpus.sha256,
            "train_bytes": data.train.n_bytes,
            "validation_bytes": data.validation.n_bytes,
            "test_bytes": data.test.n_bytes,
        },
        "tokenizer": {
            "kind": data.tokenizer.kind,
            "vocab_size": data.tokenizer.vocab_size,
            "sha256": data.tokenizer.sha256,
            "bytes_per_token": data.validation.bytes_per_token,
        },
    }


def _tokenizer(
    config: TrainingConfig, corpus: Corpus, max_bytes: int | None, cache: Path
) -> Tokenizer:
    """The tokenizer that is asked for; byte pairs are learned from the training text alone."""
    if config.tokenizer == "bytes":
        return byte_tokenizer()
    if config.tokenizer == "gpt2":
        return gpt2_tokenizer(ROOT / config.tokenizer_file)
    key = [split_sha256(corpus, "train"), max_bytes, config.vocab_size]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = cache / f"bpe-{name}.json"
    if path.exists():
        return Tokenizer.load(path)
    made = train_bpe(corpus.texts("train", max_bytes), config.vocab_size)
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        made.save(path)
    return made
