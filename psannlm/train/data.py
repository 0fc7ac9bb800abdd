"""What a training reads: the splits of a corpus as token ids, and the tokenizer that made them.

The ids of a split are made once, kept in a file and mapped into memory. The file holds end of
text, a document, end of text, a document, ..., end of text: each token of the text then has one
before it to be predicted from. Ids are little-endian, two bytes each, or four where the vocabulary
needs them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psannlm import CACHE
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.corpora.corpus import Corpus, load
from psannlm.files import replacing, sha256_of, write_atomically, writing
from psannlm.places import located
from psannlm.train.tokenizer import Tokenizer, byte_tokenizer, gpt2_tokenizer, pieces, train_bpe

BATCH = 2**21  # characters encoded at once, on all cores

Part = tuple[list[int], int]  # ids, and the bytes of text that they stand for
Dtype = np.dtype[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Tokens:
    """The ids of one split, on disk."""

    ids: NDArray[np.unsignedinteger[Any]]  # mapped read-only, (n_tokens,)
    n_bytes: int  # UTF-8 bytes of the text itself; ends of text are none of it
    sha256: str  # of the ids as they stand in the file

    @property
    def n_predicted(self) -> int:
        """Tokens that have one before them: all but the first."""
        return len(self.ids) - 1


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
        parts = ("corpus", "tokenizer", "train", "validation")
        return {f"{part}_sha256": getattr(self, part).sha256 for part in parts}


def read(config: TrainingConfig, *, cache: Path | None = None) -> Data:
    """The splits that a training reads; what is made for it stays in `cache`, or in CACHE.

    ConfigError if the corpus is missing or broken, a split is empty, the text does not bear the
    vocabulary, the tokenizer has another one, or the cache cannot be written.
    """
    cache = cache or CACHE
    corpus, within = load(located(config.corpus)), limits(config)
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
    train, held_out = config.train_megabytes, config.validation_megabytes
    megabytes = {"train": train, "validation": held_out, "test": held_out}
    return {split: round(size * 10**6) or None for split, size in megabytes.items()}


def sources(config: TrainingConfig, data: Data) -> dict[str, dict[str, object]]:
    """What the manifest of a run says of the text and the tokenizer of a training."""
    return {
        "corpus": {
            "path": config.corpus,
            "sha256": data.corpus.sha256,
            **{f"{split}_bytes": getattr(data, split).n_bytes for split in limits(config)},
        },
        "tokenizer": {
            "kind": data.tokenizer.kind,
            "vocab_size": data.tokenizer.vocab_size,
            "sha256": data.tokenizer.sha256,
            "bytes_per_token": data.validation.n_bytes / data.validation.n_predicted,
        },
    }


def _tokenizer(
    config: TrainingConfig, corpus: Corpus, max_bytes: int | None, cache: Path
) -> Tokenizer:
    """The tokenizer that is asked for; byte pairs are learned from the training text alone."""
    if config.tokenizer == "bytes":
        return byte_tokenizer()
    if config.tokenizer == "gpt2":
        return gpt2_tokenizer(located(config.tokenizer_file))
    key = _short_hash([_split_sha256(corpus, "train"), max_bytes, config.vocab_size])
    path = cache / f"bpe-{key}.json"
    if path.exists():
        return Tokenizer.load(path)
    made = train_bpe(corpus.texts("train", max_bytes), config.vocab_size)
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        made.save(path)
    return made


def prepare(
    corpus: Corpus, split: str, tokenizer: Tokenizer, *, max_bytes: int | None = None, cache: Path
) -> Tokens:
    """The ids of a split, cut at `max_bytes`, from the cache or else made and kept there.

    Memory does not grow with the text, and several processes may do this at once. ConfigError if
    the split is empty or none of the corpus, or the cache cannot be written.
    """
    key = {
        "format": 1,
        "corpus": _split_sha256(corpus, split),
        "split": split,
        "max_bytes": max_bytes,
        "tokenizer": tokenizer.sha256,
    }
    path = cache / f"{split}-{_short_hash(key)}.ids"
    dtype: Dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    if kept := _kept(path, dtype):
        return kept
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        return _made(path, key, dtype, stream(corpus.texts(split, max_bytes), tokenizer))


def _split_sha256(corpus: Corpus, split: str) -> str:
    """Hash of a corpus and of which of its documents a split has."""
    places = [(d.first_byte, d.n_bytes) for d in corpus.documents if d.split == split]
    return hashlib.sha256(f"{corpus.sha256} {places}".encode()).hexdigest()


def _short_hash(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def stream(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Part]:
    """Ids of end of text, a document, end of text, ..., in parts."""
    yield [tokenizer.end_of_text], 0
    for batch in _batches(texts):
        ids: list[int] = []
        encoded = tokenizer.encode_batch([piece for piece, _ in batch])
        for (_, ends), found in zip(batch, encoded, strict=True):
            ids += [*found, tokenizer.end_of_text] if ends else found
        yield ids, sum(len(piece.encode()) for piece, _ in batch)


def _batches(texts: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of the documents, and whether each is its document's last, encoded together."""
    batch: list[tuple[str, bool]] = []
    n_characters = 0
    for text in texts:
        found = list(pieces(text))
        for number, piece in enumerate(found, start=1):
            batch.append((piece, number == len(found)))
            n_characters += len(piece)
            if n_characters >= BATCH:
                yield batch
                batch, n_characters = [], 0
    yield batch


def _made(path: Path, key: dict[str, Any], dtype: Dtype, parts: Iterable[Part]) -> Tokens:
    """Write the ids, then the JSON beside them that makes them valid."""
    n_tokens = n_bytes = 0
    digest = hashlib.sha256()
    with replacing(path) as out:
        for ids, n_bytes_of_part in parts:
            data = np.asarray(ids, dtype=dtype).tobytes()
            digest.update(data)
            out.write(data)
            n_tokens += len(ids)
            n_bytes += n_bytes_of_part
        if n_bytes == 0:
            raise ConfigError(
                f"split {key['split']} must hold text, got none; give it a larger share of the "
                "corpus, or give more text"
            )
    sha256 = digest.hexdigest()
    beside = {"key": key, "n_tokens": n_tokens, "n_bytes": n_bytes, "sha256": sha256}
    write_atomically(path.with_suffix(".json"), json.dumps(beside, indent=2) + "\n")
    return Tokens(np.memmap(path, dtype=dtype, mode="r"), n_bytes, sha256)


def _kept(path: Path, dtype: Dtype) -> Tokens | None:
    """What the cache has, if it is whole: the JSON holds the hash of the ids."""
    try:
        beside = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        sha256 = sha256_of(path)
        if beside["sha256"] != sha256:
            return None
        return Tokens(np.memmap(path, dtype=dtype, mode="r"), beside["n_bytes"], sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None
