"""Yardsticks for bits per byte: what well-known compressors and an n-gram model need for a text.

A network has read the training text before it meets the held-out text. Two yardsticks have, too:
xz, as what the held-out text adds to the training text's compressed size, and the n-gram model.
"""

import bz2
import lzma
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psannlm.config.schema import ConfigError

MAX_TRAINING_BYTES = 2**26  # of the training text that the n-gram model counts: 64 MiB
MAX_XZ_TRAINING_BYTES = 12 * 10**6  # that xz reads, the last: about two seconds a million bytes
CHUNK = 2**22  # positions whose grams are counted or looked up at once
_STRONGEST = 9 | lzma.PRESET_EXTREME

Codes = NDArray[np.uint64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Yardstick:
    """What one method needs for the held-out text."""

    name: str
    training_bytes: int  # of the training text, that it has read before
    bits_per_byte: float
    seconds: float  # that it took, learning included


def yardsticks(training: Iterable[str], held_out: Iterable[str], *, order: int) -> list[Yardstick]:
    """Every yardstick on one held-out text: zlib, bz2, xz, xz after training text, n-grams.

    Of the documents of `training` no more are read than are used. The longest gram has `order`
    bytes, 1 to 8. ConfigError if one of the texts is empty.
    """
    learned = _text("training", training, MAX_TRAINING_BYTES)
    text = _text("held-out", held_out, None)
    before = learned[-MAX_XZ_TRAINING_BYTES:]
    methods: list[tuple[str, int, Callable[[], float]]] = [
        ("zlib", 0, lambda: 8 * len(zlib.compress(text, 9))),
        ("bz2", 0, lambda: 8 * len(bz2.compress(text, 9))),
        ("xz", 0, lambda: 8 * len(lzma.compress(text, preset=_STRONGEST))),
        ("xz after training text", len(before), lambda: 8 * _added_by(text, before)),
        (f"{order}-gram model", len(learned), lambda: NgramModel(learned, order).bits(text)),
    ]
    found = []
    for name, n_bytes, bits in methods:
        start = time.perf_counter()
        bits_per_byte = bits() / len(text)
        found.append(Yardstick(name, n_bytes, bits_per_byte, time.perf_counter() - start))
    return found


def _added_by(text: bytes, before: bytes) -> int:
    """Bytes that `text` adds to the size of `before` when xz compresses both as one."""
    reach = len(before) + len(text) + 4096  # back to the first byte of all
    method = [{"id": lzma.FILTER_LZMA2, "preset": _STRONGEST, "dict_size": reach}]

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


@dataclass(frozen=True)
class _Level:
    """Grams of one length: what each takes from its context's share, and what that leaves."""

    grams: Codes  # sorted, (n,)
    probabilities: Values  # (count - discount) / count of the context, (n,)
    contexts: Codes  # sorted, (m,)
    left: Values  # share of each context for the next shorter gram, (m,)


class NgramModel:
    """An n-gram model over bytes, smoothed by interpolated modified Kneser-Ney.

    After Chen and Goodman (1999), section 3 and table 4. A gram of k bytes is one uint64 code, its
    first byte the most significant, so that sorted codes hold the grams of one context side by
    side. Before the first byte of a text stand line ends, as between the documents of a corpus.
    """

    def __init__(self, text: bytes, order: int) -> None:
        """Count the grams of `text` up to `order` bytes, 1 to 8."""
        self.order = order
        self._levels: list[_Level] = []
        grams, counts = _counted(text, order)
        for length in range(order, 0, -1):
            self._levels.append(_level(grams, counts))
            # A shorter gram counts for the number of different bytes it was seen after.
            if length > 1:
                shorter = grams & np.uint64(2 ** (8 * (length - 1)) - 1)
                grams, counts = np.unique(shorter, return_counts=True)

    def bits(self, text: bytes) -> float:
        """Information of `text` in bits: the sum of -log2 of its bytes' probabilities."""
        found = (self._probabilities(codes) for codes in _codes(text, self.order))
        return -sum(float(np.log2(probabilities).sum()) for probabilities in found)

    def _probabilities(self, codes: Codes) -> Values:
        """Of the last byte of each gram of `order` bytes, given the others."""
        found = np.full(len(codes), 1 / 256)
        for length, level in enumerate(reversed(self._levels), start=1):
            grams = codes & np.uint64(2 ** (8 * length) - 1)
            found *= _looked_up(grams >> np.uint64(8), level.contexts, level.left, absent=1.0)
            found += _looked_up(grams, level.grams, level.probabilities, absent=0.0)
        return found


def _codes(text: bytes, order: int) -> Iterator[Codes]:
    """The gram that ends at each byte, in chunks."""
    data = np.frombuffer(b"\n" * (order - 1) + text, dtype=np.uint8)
    for start in range(0, len(text), CHUNK):
        n = min(CHUNK, len(text) - start)
        codes = np.zeros(n, dtype=np.uint64)
        for place in range(order):
            codes <<= np.uint64(8)
            codes |= data[start + place : start + place + n]
        yield codes


def _counted(text: bytes, order: int) -> tuple[Codes, NDArray[np.int64]]:
    """Different grams, sorted, and how often each stands in `text`."""
    grams, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for codes in _codes(text, order):
        new, n_new = np.unique(codes, return_counts=True)
        grams, counts = np.append(grams, new), np.append(counts, n_new)
        by_code = np.argsort(grams, kind="stable")  # each gram once, with the sum of its counts
        grams, starts = np.unique(grams[by_code], return_index=True)
        counts = np.add.reduceat(counts[by_code], starts)
    return grams, counts


def _level(grams: Codes, counts: NDArray[np.int64]) -> _Level:
    """Discounted shares of `grams` and what they leave of each context."""
    before = grams >> np.uint64(8)
    contexts, starts, sizes = np.unique(before, return_index=True, return_counts=True)
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    totals = np.add.reduceat(counts, starts)
    shares = (counts - discounts) / np.repeat(totals, sizes)
    return _Level(grams, shares, contexts, np.add.reduceat(discounts, starts) / totals)


def _discounts(counts: NDArray[np.int64]) -> Values:
    """What is taken from a count of 0, 1, 2, and 3 or more, (4,), after Chen and Goodman."""
    n1, n2, n3, n4 = (float(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    found = np.array([0.0, 0.5, 0.5, 0.5])  # where too few grams have a small count to tell
    if min(n1, n2, n3, n4) > 0:
        share = n1 / (n1 + 2 * n2)
        estimates = [1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
        # Some is always left for what was never seen, and nothing is taken that is not there.
        found[1:] = np.clip(estimates, 0.01, [1.0, 2.0, 3.0])
    return found


def _looked_up(keys: Codes, known: Codes, values: Values, *, absent: float) -> Values:
    """The value of each key, `absent` where it is not known."""
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, values[at], absent)
