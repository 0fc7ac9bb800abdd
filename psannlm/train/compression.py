"""Yardsticks for bits per byte: what well-known compressors and an n-gram model need for a text.

A network has read the training text before it meets the held-out text. Two yardsticks have, too:
xz, as what the held-out text adds to the training text's compressed size, and the n-gram model.
"""

import bz2
import lzma
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from psannlm.config.schema import ConfigError
from psannlm.train.ngrams import NgramModel

ORDER = 6
"""Bytes of the longest gram."""

MAX_TRAINING_BYTES = 2**26
"""Of the training text that the n-gram model counts: 64 MiB."""

MAX_XZ_TRAINING_BYTES = 12 * 10**6
"""Of the training text that xz reads, the last: it takes about two seconds a million bytes."""

_STRONGEST = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True)
class Yardstick:
    """What one method needs for the held-out text."""

    name: str
    training_bytes: int
    """Bytes of the training text that it has read before."""

    bits_per_byte: float
    seconds: float
    """That it took, learning included."""

    @property
    def sees_training_text(self) -> bool:
        """Whether it has learned from the training text, as a network has."""
        return self.training_bytes > 0


def yardsticks(
    training: Iterable[str],
    held_out: Iterable[str],
    *,
    order: int = ORDER,
    max_training_bytes: int = MAX_TRAINING_BYTES,
) -> list[Yardstick]:
    """Every yardstick on one held-out text: zlib, bz2, xz, xz after training text, n-grams.

    Args:
        training: Documents of the training split; read as far as is used.
        held_out: Documents of the held-out split, measured as a whole.
        order: Bytes of the longest gram, 1 to 8.
        max_training_bytes: Most of the training text that is used, from its beginning.

    Raises:
        ConfigError: One of the texts is empty.
    """
    learned = _text("training", training, max_training_bytes)
    text = _text("held-out", held_out, None)
    before = learned[-MAX_XZ_TRAINING_BYTES:]
    methods: list[tuple[str, int, Callable[[], float]]] = [
        ("zlib", 0, lambda: 8 * len(zlib.compress(text, 9))),
        ("bz2", 0, lambda: 8 * len(bz2.compress(text, 9))),
        ("xz", 0, lambda: 8 * len(lzma.compress(text, preset=_STRONGEST))),
        ("xz after training text", len(before), lambda: 8 * _added_by(text, before)),
        (f"{order}-gram model", len(learned), lambda: NgramModel(learned, order).bits(text)),
    ]
    return [_measured(name, n_bytes, bits, len(text)) for name, n_bytes, bits in methods]


def _measured(name: str, training_bytes: int, bits: Callable[[], float], n_bytes: int) -> Yardstick:
    start = time.perf_counter()
    bits_per_byte = bits() / n_bytes
    return Yardstick(name, training_bytes, bits_per_byte, time.perf_counter() - start)


def _added_by(text: bytes, before: bytes) -> int:
    """Bytes that `text` adds to the size of `before` when xz compresses both as one."""
    # The dictionary reaches back to the first byte of all.
    method = [
        {"id": lzma.FILTER_LZMA2, "preset": _STRONGEST, "dict_size": len(before) + len(text) + 4096}
    ]

    def size(data: bytes) -> int:
        # Raw: the container would round sizes up to four bytes.
        return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=method))

    with ThreadPoolExecutor() as threads:  # lzma leaves Python to others while it works
        together, alone = threads.map(size, (before + text, before))
    return together - alone


def _text(what: str, texts: Iterable[str], max_bytes: int | None) -> bytes:
    """The documents one after another as UTF-8, no more than `max_bytes` of them."""
    found = bytearray()
    for text in texts:
        found += text.encode()
        if max_bytes is not None and len(found) >= max_bytes:
            break
    if not found:
        raise ConfigError(
            f"the {what} split must hold text, got none; give it a larger share of the corpus, "
            "or give more text"
        )
    return bytes(found[:max_bytes])
