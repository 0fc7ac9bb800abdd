"""An n-gram model over bytes, smoothed by interpolated modified Kneser-Ney.

A gram of k bytes is one uint64 code, its first byte the most significant, so that sorted codes hold
the grams of one context side by side. After Chen and Goodman (1999), section 3 and table 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_SYMBOLS = 256
MAX_ORDER = 8  # bytes of a uint64
CHUNK = 2**22  # positions counted or looked up at once

Codes = NDArray[np.uint64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Level:
    """Grams of one length: what each takes from its context's share, and what that leaves."""

    grams: Codes
    """Sorted, (n,)."""

    probabilities: Values
    """(count - discount) / count of the context, (n,)."""

    contexts: Codes
    """Sorted, (m,)."""

    left: Values
    """Share of each context for the next shorter gram, (m,)."""


class NgramModel:
    """Probabilities of the next byte given the `order - 1` bytes before it.

    Before the first byte of a text stand line ends, as between the documents of a corpus.
    """

    def __init__(self, text: bytes, order: int) -> None:
        """Count `text`.

        Args:
            text: To learn from, at least `order` bytes.
            order: Bytes of the longest gram, 1 to 8.
        """
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order must be 1 to {MAX_ORDER}, got {order}")
        self.order = order
        self._levels: list[_Level] = []
        grams, counts = _counted(_padded(text, order), order)
        for length in range(order, 0, -1):
            self._levels.append(_level(grams, counts))
            # A shorter gram counts for the number of different bytes it was seen after.
            if length > 1:
                shorter = grams & np.uint64(2 ** (8 * (length - 1)) - 1)
                grams, counts = np.unique(shorter, return_counts=True)

    def bits(self, text: bytes) -> float:
        """Information of `text` in bits: the sum of -log2 of its bytes' probabilities."""
        total = 0.0
        for codes in _codes(_padded(text, self.order), self.order):
            total -= float(np.log2(self._probabilities(codes)).sum())
        return total

    def probabilities(self, context: bytes) -> Values:
        """Probability of each of the 256 bytes after `context`, (256,)."""
        before = _padded(context + b"\0", self.order)[-self.order :]
        [codes] = _codes(before, self.order)
        return self._probabilities(codes | np.arange(N_SYMBOLS, dtype=np.uint64))

    def _probabilities(self, codes: Codes) -> Values:
        """Of the last byte of each gram of `order` bytes, given the others."""
        found = np.full(len(codes), 1 / N_SYMBOLS)
        for length, level in enumerate(reversed(self._levels), start=1):
            grams = codes & np.uint64(2 ** (8 * length) - 1)
            found *= _looked_up(grams >> np.uint64(8), level.contexts, level.left, absent=1.0)
            found += _looked_up(grams, level.grams, level.probabilities, absent=0.0)
        return found


def _padded(text: bytes, order: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"\n" * (order - 1) + text, dtype=np.uint8)


def _codes(data: NDArray[np.uint8], order: int) -> Iterator[Codes]:
    """The gram that ends at each position from `order - 1` on, in chunks."""
    for start in range(0, len(data) - order + 1, CHUNK):
        n = min(CHUNK, len(data) - order + 1 - start)
        codes = np.zeros(n, dtype=np.uint64)
        for place in range(order):
            codes <<= np.uint64(8)
            codes |= data[start + place : start + place + n]
        yield codes


def _counted(data: NDArray[np.uint8], order: int) -> tuple[Codes, NDArray[np.int64]]:
    """Different grams, sorted, and how often each stands in `data`."""
    grams, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for codes in _codes(data, order):
        new, n_new = np.unique(codes, return_counts=True)
        grams, counts = _merged(np.append(grams, new), np.append(counts, n_new))
    return grams, counts


def _merged(grams: Codes, counts: NDArray[np.int64]) -> tuple[Codes, NDArray[np.int64]]:
    """Each gram once, with the sum of its counts."""
    by_code = np.argsort(grams, kind="stable")
    grams, starts = np.unique(grams[by_code], return_index=True)
    return grams, np.add.reduceat(counts[by_code], starts)


def _level(grams: Codes, counts: NDArray[np.int64]) -> _Level:
    """Discounted shares of `grams` and what they leave of each context."""
    contexts, starts, sizes = np.unique(
        grams >> np.uint64(8), return_index=True, return_counts=True
    )
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    totals = np.add.reduceat(counts, starts)
    return _Level(
        grams=grams,
        probabilities=(counts - discounts) / np.repeat(totals, sizes),
        contexts=contexts,
        left=np.add.reduceat(discounts, starts) / totals,
    )


def _discounts(counts: NDArray[np.int64]) -> Values:
    """What is taken from a count of 0, 1, 2, and 3 or more, (4,).

    Where too few grams have a small count to estimate it (n1 to n4 of Chen and Goodman), it is half
    a count.
    """
    n1, n2, n3, n4 = (float(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    found = np.array([0.0, 0.5, 0.5, 0.5])
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
