"""Token ids of a split, made once, kept in a file and mapped into memory.

The file holds end of text, a document, end of text, a document, ..., end of text: each token of
the text then has one before it to be predicted from. Ids are little-endian, two bytes each, or four
where the vocabulary needs them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import Corpus
from psannlm.files import replacing, sha256_of, write_atomically
from psannlm.train.journal import writing
from psannlm.train.tokenizer import Tokenizer, pieces

FORMAT = 1
BATCH = 2**21  # characters encoded at once, on all cores


@dataclass(frozen=True)
class Tokens:
    """The ids of one split, on disk."""

    ids: NDArray[np.unsignedinteger[Any]]
    """Mapped read-only, (n_tokens,)."""

    n_bytes: int
    """UTF-8 bytes of the text itself; ends of text are none of it."""

    sha256: str
    """Hash of the ids as they stand in the file."""

    @property
    def n_tokens(self) -> int:
        """Ids, ends of text included."""
        return len(self.ids)

    @property
    def n_predicted(self) -> int:
        """Tokens that have one before them: all but the first."""
        return self.n_tokens - 1

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text a predicted token, by which nats a token become bits a byte."""
        return self.n_bytes / self.n_predicted

    def check(self, vocab_size: int) -> None:
        """Refuse ids that a network of `vocab_size` does not know.

        Raises:
            ConfigError: An id is `vocab_size` or more.
        """
        largest = int(self.ids.max())
        if largest >= vocab_size:
            raise ConfigError(
                f"token ids must be below vocab_size {vocab_size}, got {largest}; "
                "give the network as many ids as the tokenizer has"
            )


def prepare(
    corpus: Corpus, split: str, tokenizer: Tokenizer, *, max_bytes: int | None = None, cache: Path
) -> Tokens:
    """The ids of a split, from the cache if they are there and whole, else made and kept there.

    Memory does not grow with the text. Several processes may do this at once: each writes a file of
    its own and renames it, and all write the same.

    Args:
        corpus: Its text is not read if the cache has the ids.
        split: train, validation or test.
        tokenizer: What makes ids of it.
        max_bytes: Where the split is cut; None for all of it.
        cache: Folder that keeps the ids; made if it is not there.

    Raises:
        ConfigError: The split is empty or none of the corpus, or the cache cannot be written.
    """
    key = {
        "format": FORMAT,
        "corpus": split_sha256(corpus, split),
        "split": split,
        "max_bytes": max_bytes,
        "tokenizer": tokenizer.sha256,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{split}-{name}.ids"
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    kept = _kept(path, dtype)
    if kept is None:
        with writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
            _make(path, key, dtype, corpus.texts(split, max_bytes), tokenizer)
        kept = _kept(path, dtype)
    if kept is None:
        raise ConfigError(f"{path} reads otherwise than it was written; name another folder")
    return kept


def split_sha256(corpus: Corpus, split: str) -> str:
    """Hash of a corpus and of which of its documents a split has."""
    places = [(d.first_byte, d.n_bytes) for d in corpus.documents if d.split == split]
    return hashlib.sha256(f"{corpus.sha256} {places}".encode()).hexdigest()


def stream(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
    """Ids of end of text, a document, end of text, ..., in parts.

    Yields:
        The ids of a part, and the bytes of text that they stand for.
    """
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
        cut = list(pieces(text))
        for piece, ends in zip(cut, [False] * (len(cut) - 1) + [True], strict=True):
            batch.append((piece, ends))
            n_characters += len(piece)
            if n_characters >= BATCH:
                yield batch
                batch, n_characters = [], 0
    yield batch


def _make(
    path: Path,
    key: dict[str, Any],
    dtype: np.dtype[np.unsignedinteger[Any]],
    texts: Iterable[str],
    tokenizer: Tokenizer,
) -> None:
    """Write the ids, then the JSON beside them that makes them valid."""
    n_tokens = n_bytes = 0
    digest = hashlib.sha256()
    with replacing(path) as out:
        for ids, n_bytes_of_part in stream(texts, tokenizer):
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
    beside = {"key": key, "n_tokens": n_tokens, "n_bytes": n_bytes, "sha256": digest.hexdigest()}
    write_atomically(_beside(path), json.dumps(beside, indent=2) + "\n")


def _kept(path: Path, dtype: np.dtype[np.unsignedinteger[Any]]) -> Tokens | None:
    """What the cache has, if it is whole: the JSON holds the hash of the ids."""
    try:
        beside = json.loads(_beside(path).read_text(encoding="utf-8"))
        sha256 = sha256_of(path)
        if beside["sha256"] != sha256:
            return None
        ids = np.memmap(path, dtype=dtype, mode="r")
        return Tokens(ids, n_bytes=beside["n_bytes"], sha256=sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")
