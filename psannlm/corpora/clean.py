"""What of a source is text: paragraphs in one form, without headings, markup and repetitions."""

import hashlib
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from psannlm.corpora.recipe import Recipe

PHRASE = 8  # words of a phrase
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?;:][\"')\]\u2019\u201d]* ")
# Every Python knows these characters alike. What is newer stays as it is and passes for letters.
_KNOWN = unicodedata.ucd_3_2_0
# Byte order mark, soft hyphen, zero-width space, joiner; controls, surrogates, private use.
_INVISIBLE = re.compile(
    "[\ufeff\u00ad\u200b\u2060\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\uf8ff\ufffe\uffff"
    "\U000f0000-\U0010ffff]"
)
LICENCE, NEAR = "licence of Project Gutenberg", 500  # paragraphs of a header or licence at most
_HEADER_ENDS = re.compile(
    r"\*{3} ?START OF (THE|THIS) PROJECT GUTENBERG"
    r"|\*END\*? ?THE SMALL PRINT! FOR PUBLIC DOMAIN"
)
_BODY_ENDS = re.compile(
    r"\*{3} ?END OF (THE|THIS) PROJECT GUTENBERG|END OF (THE |THIS )?PROJECT GUTENBERG", re.I
)
_TITLE = re.compile(r"\W*(This is )?(The )?Project Gutenberg(['\u2019]s\b| e-?(book|text)\b)", re.I)
_LICENCE_ENDS = re.compile(r"hear\s+about\s+new\s+eBooks", re.I)
_MARKER = re.compile(
    r"\*{3} ?(START|END) OF (THE|THIS) PROJECT GUTENBERG|.*\bhear about new eBooks", re.I
)
_LICENCE = re.compile(r"Project\s+Gutenberg", re.I)

Phrases = npt.NDArray[np.uint64]


def cleaned(
    raw: str, recipe: Recipe, removed: Counter[str], *, keep_lines: bool = False
) -> Iterator[str]:
    """A paragraph in its final form, several if it is very long.

    One that is not within the recipe's bounds is left out, and counted in `removed` by its reason.
    """
    text = _with_lines(raw) if keep_lines else normalised(raw)
    if len(text) < max(recipe.min_characters, 1):
        removed["short"] += 1  # a heading or a page number
    elif any(pattern.search(text) for pattern in recipe.boilerplate):
        removed["boilerplate"] += 1
    elif recipe.min_lowercase and _lowercase(text) < recipe.min_lowercase:
        removed["capitals or figures"] += 1  # a heading, a table or a cast
    else:
        yield from _pieces(text, recipe.max_characters, keep_lines)


def normalised(raw: str) -> str:
    """One line in NFC, single spaces, no control or invisible characters."""
    return _SPACE.sub(" ", _visible(raw)).strip()


def _with_lines(raw: str) -> str:
    """The lines of a paragraph with their indents, then a blank one."""
    lines = [line.rstrip() for line in _visible(raw).splitlines()]
    return "\n".join([*filter(None, lines), ""])


def _visible(text: str) -> str:
    """`text` in NFC, without control or invisible characters; the same from every Python."""
    if not text.isascii():
        runs = [(known, "".join(run)) for known, run in groupby(text, key=is_known)]
        text = "".join(unicodedata.normalize("NFC", t) if known else t for known, t in runs)
    return _INVISIBLE.sub("", text)


@cache
def is_known(character: str) -> bool:
    """Whether every Python tells the same of a character."""
    return _KNOWN.category(character) != "Cn"


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    r"""Runs of lines between blank ones; the lines of a run keep their breaks as "\n"."""
    # Where a book begins or ends, texts may have been joined without a blank line.
    for kind, run in groupby(lines, key=lambda line: line.strip() and not _MARKER.match(line)):
        if kind != "":
            yield "\n".join(run)


def body(found: Iterable[str], removed: Counter[str]) -> Iterator[str]:
    """Paragraphs without the headers and licences of Project Gutenberg, which count as removed.

    A file may be several joined, of Project Gutenberg or not: the text of each is kept.
    """
    texts, start = list(found), 0
    for i, text in enumerate(texts):
        if i < start:
            continue
        if _HEADER_ENDS.search(text):
            # A header begins at its title, else where nothing is decided yet.
            titles = (j for j in range(max(start, i - NEAR), i) if _TITLE.match(texts[j]))
            first, last = next(titles, start if i - start < NEAR else i), i
        elif _BODY_ENDS.match(text):
            first, last = i, _last_of_licence(texts, i)
        else:
            continue
        yield from texts[start:first]
        removed[LICENCE] += last + 1 - first
        start = last + 1
    yield from texts[start:]


def _last_of_licence(texts: list[str], start: int) -> int:
    """The last paragraph of a licence; what follows is the next header, or a text without one."""
    last = start
    for i, text in enumerate(texts[start : start + NEAR], start=start):
        # The end of a book is often told twice.
        is_next_end = i > start + 3 and _BODY_ENDS.match(text)
        is_title = _TITLE.match(text) and any(map(_HEADER_ENDS.search, texts[i : i + NEAR]))
        if is_next_end or is_title or _HEADER_ENDS.search(text):
            break
        if _LICENCE_ENDS.search(text):
            return i
        if _LICENCE.search(text):
            last = i
    return last


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
    kinds = Counter(map(_KNOWN.category, text))
    counted = sum(number for kind, number in kinds.items() if kind[0] in "LN")
    return kinds["Ll"] / counted if counted else 0.0


def _pieces(text: str, longest: int, keep_lines: bool) -> Iterator[str]:
    """`text` cut where a line or else a sentence ends, else at a space, else anywhere."""
    start = 0
    while (most := start + longest) < len(text):
        sentences = _SENTENCE_END.finditer(text, start + longest // 2, most + 1)
        ends = [end.end() - 1 for end in sentences]
        if keep_lines:
            ends = [text.rfind("\n", start, most + 1)]
        cut = ends[-1] if ends else text.rfind(" ", start + 1, most + 1)
        cut = cut if cut > start else most
        yield text[start:cut]
        start = cut + (text[cut] in " \n")
    if start < len(text):
        yield text[start:]


class _Small(dict[int, str]):
    """Letters and digits as small letters, all else as spaces: for str.translate."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        small = character.lower()
        if not all(map(is_known, character + small)):
            small = character
        elif _KNOWN.category(character)[0] not in "LN":
            small = " "
        self[code] = small
        return small


_SMALL = _Small()


def words(text: str) -> list[str]:
    """Runs of letters and digits, blind to case and punctuation."""
    return text.translate(_SMALL).split()


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
            letters = "".join(words(paragraph))
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
    found = words(paragraph)
    count = len(found) - PHRASE + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    codes = np.array([zlib.crc32(word.encode()) for word in found], dtype=np.uint64)
    mixed = np.zeros(count, dtype=np.uint64)
    for k in range(PHRASE):
        mixed = (mixed ^ codes[k : k + count]) * _MULTIPLIER  # wraps at 2**64
        mixed ^= mixed >> np.uint64(29)
    return mixed * _MULTIPLIER
