"""Paragraphs seen before: the same but for case and signs, or sharing most of their phrases.

Phrases are word 8-grams. They are remembered as bits of a table, not as text: one that was never
seen is taken for a known one with a probability of at most 1/32.
"""

import hashlib
import re
import zlib

import numpy as np
import numpy.typing as npt

PHRASE = 8
"""Words of a phrase."""

BITS_PER_PHRASE = 32
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_NOT_WORD = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W_]+")

Phrases = npt.NDArray[np.uint64]


class Exact:
    """Which paragraphs were seen, blind to case, spaces and punctuation."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def seen_before(self, paragraph: str) -> bool:
        """Whether it was; from now on it is."""
        letters = _NOT_WORD.sub("", paragraph).lower()
        key = hashlib.blake2b(letters.encode(), digest_size=12).digest()
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


class PhraseTable:
    """Which phrases were seen."""

    def __init__(self, n_bytes: int) -> None:
        """Make room for the phrases of a text of `n_bytes`, at five bytes a word or more."""
        self._log2 = max(16, (BITS_PER_PHRASE * n_bytes // 5).bit_length())
        self._bits = np.zeros(2 ** (self._log2 - 3), dtype=np.uint8)

    def share(self, found: Phrases) -> float:
        """Fraction of the phrases that were seen; 0 for none."""
        if not len(found):
            return 0.0
        byte, bit = self._places(found)
        return float(np.count_nonzero(self._bits[byte] & bit)) / len(found)

    def add(self, found: Phrases) -> None:
        """From now on these were seen."""
        byte, bit = self._places(found)
        np.bitwise_or.at(self._bits, byte, bit)

    def _places(self, found: Phrases) -> tuple[Phrases, npt.NDArray[np.uint8]]:
        place = found >> np.uint64(64 - self._log2)
        return place >> np.uint64(3), np.left_shift(1, place & np.uint64(7)).astype(np.uint8)


def phrases(paragraph: str) -> Phrases:
    """A 64-bit number for each word 8-gram, blind to case and punctuation."""
    words = _WORD.findall(paragraph.lower())
    count = len(words) - PHRASE + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    codes = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
    mixed = np.zeros(count, dtype=np.uint64)
    for k in range(PHRASE):
        mixed = (mixed ^ codes[k : k + count]) * _MULTIPLIER  # wraps at 2**64
        mixed ^= mixed >> np.uint64(29)
    return mixed * _MULTIPLIER
