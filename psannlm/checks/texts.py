"""Real text for the checks: bytes of the corpus, in the windows that a training would take."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from psannlm import ROOT
from psannlm.checks.config import ValidationConfig
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.train.batches import Batches
from psannlm.train.shards import Tokens, stream
from psannlm.train.tokenizer import byte_tokenizer


def batches_of(
    config: ValidationConfig, n_windows: int, *, length: int | None = None, rows: int = 1
) -> Batches:
    """Batches over the first `n_windows` windows of the training split, a token a byte.

    Args:
        config: Its corpus and seed are read.
        n_windows: N.
        length: T; None for the context length.
        rows: B.

    Raises:
        ConfigError: The corpus is missing, broken or too short, or the vocabulary has no bytes.
    """
    length = length or config.context_length
    tokens = tokens_of(ROOT / config.corpus, n_windows * length + 1)
    tokens.check(config.vocab_size)
    return Batches(tokens, length, rows, config.seed)


def passages(config: ValidationConfig, count: int, length: int) -> Tensor:
    """Token ids, int64 (count, length): passages of the training split, one after the other.

    The mark that begins its first document is left out, so that all is text up to its end.

    Args:
        config: Its corpus is read.
        count: Of passages.
        length: Of each, in tokens.

    Raises:
        ConfigError: The corpus is missing, broken or too short, or the vocabulary has no bytes.
    """
    tokens = tokens_of(ROOT / config.corpus, count * length + 1)
    tokens.check(config.vocab_size)
    return torch.from_numpy(tokens.ids[1:].astype(np.int64)).view(count, length)


def tokens_of(path: Path, n_tokens: int) -> Tokens:
    """The first tokens of the training split of the corpus at `path`.

    Raises:
        ConfigError: The corpus is missing, broken or too short.
    """
    parts = stream(load(path).texts("train", n_tokens), byte_tokenizer())
    ids = np.asarray([token for part, _ in parts for token in part][:n_tokens], dtype=np.uint16)
    if len(ids) < n_tokens:
        raise ConfigError(
            f"{path} must hold {n_tokens:,} bytes of training text, got {len(ids):,}; "
            "name a longer corpus, or shorten batch or context_length"
        )
    sha256 = hashlib.sha256(ids.tobytes()).hexdigest()
    return Tokens(ids, n_bytes=n_tokens, sha256=sha256)
