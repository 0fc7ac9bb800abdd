"""What of a source is text: paragraphs in one form, without headings, markup and repetitions."""

import hashlib
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice

import numpy as np
import numpy.typing as npt

from psannlm.corpora.recipe import Recipe

PHRASE = 8  # words of a phrase
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_NOT_WORD = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W_]+")
_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?;:][\"')\]\u2019\u201d]* ")
_INVISIBLE = "\ufeff\u00ad\u200b\u2060"  # byte order mark, soft hyphen, zero-width space, joiner
_HEADER_ENDS = re.compile(
    r"\*{3} ?START OF (THE|THIS) PROJECT GUTENBERG"
    r"|\*END\*? ?THE SMALL PRINT! FOR PUBLIC DOMAIN"
)
_BODY_ENDS = re.compile(
    r"\*{3} ?END OF (THE|THIS) PROJECT GUTENBERG|END OF (THE |THIS )?PROJECT GUTENBERG", re.I
)

Phrases = npt.NDArray[np.uint64]


def cleaned(raw: str, recipe: Recipe, removed: Counter[str]) -> Iterator[str]:
    """A paragraph in its final form, several if it is very long.

    One that is not within the recipe's bounds is left out, and counted in `removed` by its reason.
    """
    text = normalised(raw)
    if len(text) < max(recipe.min_characters, 1):
        removed["short"] += 1  # a heading or a page number
    elif any(pattern.search(text) for pattern in recipe.boilerplate):
        removed["boilerplate"] += 1
    elif recipe.min_lowercase and _lowercase(text) < recipe.min_lowercase:
        removed["capitals or figures"] += 1  # a heading, a table or a cast
    else:
        yield from _pieces(text, recipe.max_characters)


def normalised(raw: str) -> str:
    """One line in NFC, single spaces, no control or invisible characters."""
    text = _SPACE.sub(" ", raw)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        kept = (c for c in text if unicodedata.category(c) not in {"Cc", "Cs", "Co", "Cn"})
        text = _SPACE.sub(" ", "".join(c for c in kept if c not in _INVISIBLE))
    return text.strip()


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    r"""Runs of lines between blank ones; the lines of a run keep their breaks as "\n"."""
    for is_text, run in groupby(lines, key=lambda line: bool(line.strip())):
        if is_text:
            yield "\n".join(run)


def body(found: Iterable[str]) -> Iterator[str]:
    """Paragraphs between the markers of a Project Gutenberg file; all of a file without them."""
    found = iter(found)
    head = list(islice(found, 500))
    starts = [i for i, paragraph in enumerate(head) if _HEADER_ENDS.search(paragraph)]
    for paragraph in chain(head[starts[-1] + 1 if starts else 0 :], found):
        if _BODY_ENDS.match(paragraph):
            return
        yield paragraph


def joined(found: Iterable[str], characters: int) -> Iterator[str]:
    """Consecutive paragraphs joined until each has at least `characters`; 0 joins nothing.

    Speeches of a play and verses of scripture are too short to be paragraphs by themselves.
    """
    run: list[str] = []
    for paragraph in found:
        run.append(paragraph)
        if sum(map(len, run)) >= characters:
            yield "\n".join(run)
            run = []
    if run:
        yield "\n".join(run)


def _lowercase(text: str) -> float:
    """Share of small letters among letters and digits."""
    counted = sum(map(str.isalnum, text))
    return sum(map(str.islower, text)) / counted if counted else 0.0


def _pieces(text: str, longest: int) -> Iterator[str]:
    """`text` cut where a sentence ends, else at a space, else anywhere."""
    while len(text) > longest:
        ends = [end.end() for end in _SENTENCE_END.finditer(text, longest // 2, longest + 1)]
        cut = ends[-1] if ends else text.rfind(" ", 1, longest + 1)
        cut = cut if cut > 0 else longest
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    if text:
        yield text


class DuplicateFilter:
    """Whether a paragraph is new; counts in `removed` those that are not.

    Held-out text comes first, and is never a near duplicate. Near duplicates share most of their
    phrases with what came before.
    """

    def __init__(self, recipe: Recipe, n_bytes: int, removed: Counter[str]) -> None:
        self.recipe, self.removed = recipe, removed
        self._seen: set[bytes] = set()
        near = recipe.near_duplicate_share < 1
        self._tables = [PhraseTable(n_bytes) for _ in range(2 * near)]  # of held-out text, of train

    def __call__(self, paragraph: str, *, held_out: bool) -> bool:
        if self.recipe.drop_exact_duplicates:
            # Blind to case, spaces and punctuation.
            letters = _NOT_WORD.sub("", paragraph).lower()
            key = hashlib.blake2b(letters.encode(), digest_size=12).digest()
            if key in self._seen:
                self.removed["exact duplicates"] += 1
                return False
            self._seen.add(key)
        if not self._tables:
            return True
        found = phrases(paragraph)
        if not held_out:
            reasons = ("near duplicates of held-out text", "near duplicates within train")
            for table, reason in zip(self._tables, reasons, strict=True):
                if table.share(found) > self.recipe.near_duplicate_share:
                    self.removed[reason] += 1
                    return False
        self._tables[0 if held_out else 1].add(found)
        return True


class PhraseTable:
    """Which phrases were seen, as bits of a table: no text is kept.

    One that was never seen is taken for a known one with a probability of at most 1/32.
    """

    def __init__(self, n_bytes: int) -> None:
        """32 bits for each phrase of a text of `n_bytes`, at five bytes a word or more."""
        self._log2 = max(16, (32 * n_bytes // 5).bit_length())
        self._bits = np.zeros(2 ** (self._log2 - 3), dtype=np.uint8)

    def share(self, found: Phrases) -> float:
        """Fraction of the phrases that were seen; 0 for none."""
        byte, bit = self._places(found)
        return np.count_nonzero(self._bits[byte] & bit) / max(len(found), 1)

    def add(self, found: Phrases) -> None:
        """From now on these were seen."""
        byte, bit = self._places(found)
        np.bitwise_or.at(self._bits, byte, bit)

    def _places(self, found: Phrases) -> tuple[Phrases, npt.NDArray[np.uint8]]:
        place = found >> np.uint64(64 - self._log2)
        return place >> np.uint64(3), np.left_shift(1, place & np.uint64(7)).astype(np.uint8)


def phrases(paragraph: str) -> Phrases:
    """A 64-bit number for each run of eight words, blind to case and punctuation."""
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
