"""Real text for checks: passages of a corpus, a token for each byte."""

import numpy as np
import torch
from torch import Tensor

from psannlm import ROOT
from psannlm.config import ValidationConfig
from psannlm.schema import ConfigError

N_BYTES = 256


def passages(config: ValidationConfig, count: int, length: int) -> Tensor:
    """Token ids, int64 (count, length): passages that lie evenly over the whole text.

    Raises:
        ConfigError: The text cannot be read or is too short for passages that do not overlap, or
            the vocabulary has no token for each byte.
    """
    if config.vocab_size < N_BYTES:
        raise ConfigError(f"vocab_size must be at least {N_BYTES}, got {config.vocab_size}")
    path = ROOT / config.corpus
    try:
        text = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ConfigError(f"corpus {config.corpus} cannot be read: {error.strerror}") from None
    distance = len(text) // count
    if distance < length:
        raise ConfigError(
            f"corpus must have at least {count} x {length} bytes, got {len(text)} in "
            f"{config.corpus}; give more text, or lower batch or context_length"
        )
    starts = np.arange(count) * distance
    return torch.from_numpy(text[starts[:, None] + np.arange(length)].astype(np.int64))
