"""From text to token ids and back: bytes, byte pairs learned from a corpus, or GPT-2's own.

V is the number of ids; the last of them, V - 1, is always the end of a text. Every text can be
written in ids and comes back unchanged, because all 256 bytes are tokens of every kind.
"""

import base64
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from psannlm.config.schema import ConfigError
from psannlm.files import write_atomically

Kind = Literal["bytes", "bpe", "gpt2"]
N_BYTES = 256
END_OF_TEXT = "<|endoftext|>"
MIN_FREQUENCY = 2  # a pair seen fewer times is not merged: an id for it would stand for one place
PIECE = 2**15  # characters; the library keeps about 100 bytes a token while it encodes

# The library works on all cores. A fork of this process must not wait for threads that it did not
# inherit, of which some versions of the library warn unless they are told what to do.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))

_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
# The library writes printable bytes as themselves and the others, in order, as what follows.
_CHARACTERS = dict(
    zip(sorted(range(N_BYTES), key=lambda b: (chr(b) not in _ALPHABET, b)), _ALPHABET, strict=True)
)
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
_BREAK = re.compile(r"(?<=\S)[ \n]")


class Tokenizer:
    """What one tokenizer.json says; the file is in the format of the `tokenizers` library."""

    def __init__(self, content: str) -> None:
        """Read what `save` wrote; ConfigError if it is no byte-level BPE with END_OF_TEXT last."""
        self._content = content
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()
        try:
            self._library = tokenizers.Tokenizer.from_str(content)
            vocabulary = self._library.get_vocab()
            self._bytes = _bytes_of_ids(vocabulary)
            _check_words(json.loads(self._library.to_str()))
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(
                f"a tokenizer must be byte-level BPE, with {END_OF_TEXT} as its last id: {error}; "
                "train one, or give the tokenizer.json that a training has saved"
            ) from None
        self._library.encode_special_tokens = True  # in a text, the name of an id is only text
        self.kind: Kind = "gpt2" if self._library.post_processor else "bpe"
        if self._bytes == [bytes([byte]) for byte in range(N_BYTES)] + [b""]:
            self.kind = "bytes"
        self.vocab_size = len(vocabulary)
        self.end_of_text = self.vocab_size - 1

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without end of text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each of `texts`, on all cores; ConfigError for half a surrogate pair."""
        try:
            encoded = [text.encode() for text in texts]
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"a text must be valid Unicode, got a lone surrogate at character {error.start}; "
                "read it as UTF-8 with errors='replace'"
            ) from None
        if self.kind == "bytes":
            return [list(data) for data in encoded]
        encode = self._library.encode_batch_fast
        return [found.ids for found in encode(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, end of text becomes nothing."""
        ids = list(ids)
        if unknown := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ConfigError(
                f"a token id must be from 0 to {self.vocab_size - 1}, got {unknown[0]}; "
                "decode with the tokenizer that the ids were made with"
            )
        return b"".join(self._bytes[i] for i in ids).decode(errors="replace")

    def save(self, path: Path) -> None:
        """Write its file, atomically."""
        write_atomically(path, self._content)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer in a file; ConfigError if it cannot be read, or is no tokenizer of ours."""
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} cannot be read: {error}; give the tokenizer.json that a training has saved"
            ) from None
        return cls(content)


def byte_tokenizer() -> Tokenizer:
    """One id a byte, in order, and end of text: V = 257."""
    return _finished(tokenizers.Tokenizer(models.BPE(vocab=_BYTES, merges=[])))


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte pairs merged in the order of how often they stand in `texts`, which are read once.

    The same texts give the same tokenizer. ConfigError if V is too small to hold all bytes, or
    larger than the text supports.
    """
    if vocab_size <= N_BYTES:
        raise ConfigError(
            f"vocab_size must be at least {N_BYTES + 1} for 256 bytes and end of text, "
            f"got {vocab_size}; raise it"
        )
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=_ALPHABET,
        show_progress=False,
    )
    library.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    supported = library.get_vocab_size() + 1
    if supported < vocab_size:
        raise ConfigError(
            f"vocab_size must be at most {supported} for this text, got {vocab_size}: no other "
            f"pair stands in it {MIN_FREQUENCY} times; lower vocab_size, or give more text"
        )
    return _finished(library)


def gpt2_tokenizer(path: Path) -> Tokenizer:
    """GPT-2's tokenizer from a file of its ranks; its ids are those of GPT-2."""
    ranks = read_ranks(path)
    names = {token: "".join(_CHARACTERS[b] for b in token) for token in ranks}
    merges = [(names[left], names[right]) for left, right in merges_of(ranks)]
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    library = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # Moves no id; GPT-2's own tokenizer.json has it, and it tells the kinds apart.
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    return _finished(library)


def read_ranks(path: Path) -> dict[bytes, int]:
    """Rank of each token, which is its id, from lines of its bytes in base64, a space, its rank.

    ConfigError if the file cannot be read, or its lines are not ranks 0, 1, 2, ... of tokens, all
    single bytes among them.
    """
    form = "give a file in the form of gpt2.tiktoken"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as ranks: {error}; {form}") from None
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise ConfigError(
                f"{path}: line {number} must be a token in base64, a space and its rank, "
                f"got {line[:40]!r}; {form}"
            ) from None
    if sorted(ranks.values()) != list(range(len(lines))):
        raise ConfigError(
            f"{path} must rank its tokens 0 to {len(lines) - 1}, each once, and does not; "
            "give the whole file"
        )
    if missing := [byte for byte in range(N_BYTES) if bytes([byte]) not in ranks]:
        raise ConfigError(
            f"{path} must rank all 256 bytes, {len(missing)} are missing; give the whole file"
        )
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two tokens that each longer token was merged from, in the order of its rank.

    A token came to be when all merges of lower rank had been made, so applying these to its bytes,
    lowest rank first, leaves two parts.
    """
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.__getitem__):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
            if min(pairs) >= ranks[token]:
                raise ConfigError(
                    f"ranks must be those of byte pairs, but {token!r} of rank {ranks[token]} is "
                    f"no pair of tokens of lower rank; give a file in the form of gpt2.tiktoken"
                )
            at = pairs.index(min(pairs))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[0], parts[1]


def pieces(text: str, n_characters: int = PIECE) -> Iterator[str]:
    """`text` cut into pieces of about `n_characters` whose ids, one after another, are its ids.

    A cut lies between a character and the white space after it: there GPT-2's pattern, by which
    all kinds split a text into words, always ends one word and begins another.
    """
    start = 0
    while found := _BREAK.search(text, start + n_characters):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _finished(library: Any) -> Tokenizer:
    """`library` with the parts that all kinds share, and end of text as its last id."""
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([END_OF_TEXT])
    return Tokenizer(library.to_str(pretty=True) + "\n")


def _check_words(content: dict[str, Any]) -> None:
    """Refuse a tokenizer that changes a text, or cuts it into words otherwise than GPT-2 does."""
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    expected = {"pre_tokenizer": cut, "normalizer": None, "truncation": None, "padding": None}
    for part, wanted in expected.items():
        if content[part] != wanted:
            raise ValueError(f"its {part} is {content[part]}, not {wanted}")
    if len(content["added_tokens"]) != 1:
        raise ValueError(f"it has other added tokens than {END_OF_TEXT}")


def _bytes_of_ids(vocabulary: dict[str, int]) -> list[bytes]:
    """Bytes that each id stands for, in the order of ids."""
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError("its ids are not 0, 1, 2, ...")
    if vocabulary.get(END_OF_TEXT) != len(vocabulary) - 1:
        raise ValueError(f"{END_OF_TEXT} is not its last id")
    if missing := set(_ALPHABET) - vocabulary.keys():
        raise ValueError(f"{len(missing)} of 256 bytes are no token of it")
    names = sorted(vocabulary, key=vocabulary.__getitem__)[:-1]
    return [bytes(_BYTES[character] for character in name) for name in names] + [b""]
