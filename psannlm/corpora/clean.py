"""What of a source is text: paragraphs in one form, without headings, markup and boilerplate."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?;:][\"')\]\u2019\u201d]* ")
_UNPRINTABLE = {"Cc", "Cs", "Co", "Cn"}
_INVISIBLE = "\ufeff\u00ad\u200b\u2060"  # byte order mark, soft hyphen, zero-width space, joiner
_HEADER_PARAGRAPHS = 500
_HEADER_ENDS = re.compile(
    r"\*{3} ?START OF (THE|THIS) PROJECT GUTENBERG"
    r"|\*END\*? ?THE SMALL PRINT! FOR PUBLIC DOMAIN"
)
_BODY_ENDS = re.compile(
    r"\*{3} ?END OF (THE|THIS) PROJECT GUTENBERG|END OF (THE |THIS )?PROJECT GUTENBERG", re.I
)


@dataclass(kw_only=True)
class Cleaner:
    """Judges paragraphs one by one by a recipe's bounds, and counts what it removes and why."""

    min_characters: int
    """A shorter paragraph is a heading or a page number."""

    max_characters: int
    """A longer one is cut, where a sentence ends if possible."""

    min_lowercase: float
    """Least share of small letters among letters and digits; below it stand headings, tables and
    casts. 0 lets everything pass."""

    boilerplate: Sequence[re.Pattern[str]]
    """A paragraph in which one of these is found is not the author's."""

    removed: Counter[str] = field(default_factory=Counter)

    def __call__(self, raw: str) -> list[str]:
        """The paragraph in its final form: none if it is removed, several if it is very long."""
        text = normalised(raw)
        if reason := self._objection(text):
            self.removed[reason] += 1
            return []
        return list(_pieces(text, self.max_characters))

    def _objection(self, text: str) -> str:
        if len(text) < max(self.min_characters, 1):
            return "short"
        if any(pattern.search(text) for pattern in self.boilerplate):
            return "boilerplate"
        if self.min_lowercase and _lowercase(text) < self.min_lowercase:
            return "capitals or figures"
        return ""


def normalised(raw: str) -> str:
    """One line in NFC, single spaces, no control or invisible characters."""
    text = _SPACE.sub(" ", raw)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(c for c in text if _is_kept(c))
        text = _SPACE.sub(" ", text)
    return text.strip()


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    r"""Runs of lines between blank ones; the lines of a run keep their breaks as "\n"."""
    run: list[str] = []
    for line in lines:
        if line and not line.isspace():
            run.append(line)
        elif run:
            yield "\n".join(run)
            run = []
    if run:
        yield "\n".join(run)


def body(found: Iterable[str]) -> Iterator[str]:
    """Paragraphs between the markers of a Project Gutenberg file; all of a file without them."""
    found = iter(found)
    head = list(islice(found, _HEADER_PARAGRAPHS))
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


def _is_kept(character: str) -> bool:
    return unicodedata.category(character) not in _UNPRINTABLE and character not in _INVISIBLE


def _lowercase(text: str) -> float:
    counted = sum(map(str.isalnum, text))
    return sum(map(str.islower, text)) / counted if counted else 0.0


def _pieces(text: str, longest: int) -> Iterator[str]:
    while len(text) > longest:
        ends = [end.end() for end in _SENTENCE_END.finditer(text, longest // 2, longest + 1)]
        cut = ends[-1] if ends else text.rfind(" ", 1, longest + 1)
        cut = cut if cut > 0 else longest
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    if text:
        yield text
