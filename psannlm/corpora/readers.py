"""From the members of a source to its documents: titles, each followed by its raw paragraphs."""

import codecs
import io
import pickle
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, takewhile
from typing import Any

from psannlm.config.schema import ConfigError
from psannlm.corpora.archives import Member
from psannlm.corpora.clean import body, joined, normalised, paragraphs
from psannlm.corpora.recipe import PackageSource, Source

_CHAPTER_AND_VERSE = re.compile(r"(?<!\S)(\d+):(\d+)\s+")
_ARTICLE = re.compile(r"\s*= [^=](.*[^=])? =\s*$")
_ENDS = re.compile(r"[.!?;:]['\")\]]*$")
# Words by which English is told from other languages.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and of to in a that his with he i is for as not her my was all but thy on from it be "
        "they at by so their this or no which she when him we me you thou have had our what shall "
        "were o are who if one now there then than will would your its upon an thee into more "
        "like where them how do can may these us said out up been yet some did has",
    )
)


class Title(str):
    """The paragraphs that follow, up to the next title, are a document of this name."""


Stream = Iterator[str]  # titles and paragraphs


def read(source: Source, members: Iterable[Member], removed: Counter[str]) -> Stream:
    """Documents of a source, member after member; ConfigError where one has another form.

    Paragraphs that are no text of the member are counted in `removed` by their reason.
    """
    for member in members:
        for item in READERS[source.reader](source, member, removed):
            if not isinstance(item, Title):
                for pattern in source.cut:
                    item = pattern.sub("", item)
            yield item


def articles(rows: Iterable[str]) -> Stream:
    """Rows of a dataset, a new document at each heading ` = Title = `."""
    titled = False
    for row in rows:
        heading = _ARTICLE.match(row)
        if heading or (not titled and row.strip()):
            yield Title(normalised(row).strip("= ") if heading else "untitled")
            titled = True
        if row.strip():
            yield row


def _plain(source: Source, member: Member, removed: Counter[str]) -> Stream:
    """Paragraphs of a member as one document, or several where `new_document` says so.

    They are parted by blank lines, one a line, or `own`: as the beginning of the member shows.
    """
    lines = _lines(source, member)
    by_blank_lines = source.reader == "prose" or source.keep_lines
    if source.reader == "own" and not source.keep_lines:
        runs = groupby(lines[:1000], key=lambda line: bool(line.strip()))
        by_blank_lines = sum(is_text for is_text, _ in runs) > 1
    found = body(paragraphs(lines) if by_blank_lines else lines, removed)
    title, end = member.title, source.end
    if source.title == "first_line":
        first = next(found, title)
        title = normalised(first.split("\n")[0]).strip("[]. ")
    if source.begin:
        found = _from(source.begin, found, member.name)
    if end:
        found = takewhile(lambda paragraph: not end.search(paragraph), found)
    parts = _parted(source.new_document, title, found) if source.new_document else [(title, found)]
    for name, part in parts:
        yield Title(name)
        yield from joined(part, source.join_characters)


def _parted(
    heading: re.Pattern[str], title: str, found: Iterable[str]
) -> Iterator[tuple[str, list[str]]]:
    """Title and paragraphs of each document that has any, a new one at each heading."""
    name, run = title, list[str]()
    for paragraph in found:
        if not heading.search(paragraph):
            run.append(paragraph)
            continue
        if run:
            yield name, run
        name, run = f"{title}: {normalised(paragraph)[:80]}", []
    if run:
        yield name, run


def _from(pattern: re.Pattern[str], found: Iterator[str], name: str) -> Iterator[str]:
    for paragraph in found:
        if pattern.search(paragraph):
            return chain([paragraph], found)
    raise ConfigError(f"{name} has no paragraph with {pattern.pattern!r}, where its text begins")


def _scripture(source: Source, member: Member, removed: Counter[str]) -> Stream:
    """Books as documents, verses joined without their numbers.

    A paragraph without a number goes on with its verse; before verse 1:1 it names a book, unless
    it ends as a sentence does.
    """
    verses: list[str] = []
    loose: list[str] = []
    for paragraph in body(paragraphs(_lines(source, member)), removed):
        number = _CHAPTER_AND_VERSE.match(paragraph)
        if number is None:
            loose.append(paragraph)
            continue
        if number.groups() == ("1", "1"):
            verses += [p for p in loose if verses and not _is_heading(p)]
            yield from joined(verses, source.join_characters)
            names = [normalised(p) for p in loose if _is_heading(p) and "Testament" not in p]
            yield Title(", ".join(names) or member.title)
            verses = []
        else:
            verses += loose
        loose = []
        verses.append(_CHAPTER_AND_VERSE.sub("", paragraph))
    yield from joined([*verses, *loose], source.join_characters)


def _is_heading(paragraph: str) -> bool:
    return not paragraph.rstrip().endswith((".", ";", ":", "]"))


def _lines(source: Source, member: Member) -> list[str]:
    """Lines of a member, decoded as its byte order mark says, or else its source."""
    is_marked = member.content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_marked else source.encoding
    try:
        text = member.content.decode(encoding)
    except UnicodeDecodeError as error:
        if not source.fallback_encoding:
            rule = f"{member.name} must be {encoding} text"
            place = f"got something else at byte {error.start:,}"
            raise ConfigError(f"{rule}, {place}; save it as UTF-8") from None
        text = member.content.decode(source.fallback_encoding)
    if (nulls := text.count("\0")) > len(text) // 100:
        raise ConfigError(
            f"{member.name} must be text, got {nulls:,} NUL bytes; save it as UTF-8 if it is text"
        )
    return list(io.StringIO(text.removeprefix("\ufeff"), newline=None))


def _verse(source: Source, member: Member, removed: Counter[str]) -> Stream:
    """Lines of a pickled table; every so many are a document, of which one in so many is kept."""
    assert isinstance(source, PackageSource)
    lines, step = lines_of_table(member.content, member.name), source.document_lines
    for start in range(0, len(lines), step * source.keep_one_in):
        run = lines[start : start + step]
        yield Title(f"lines {start + 1} to {start + len(run)}")
        yield from verse_paragraphs(run, source.paragraph_lines, source.min_english, removed)


def verse_paragraphs(
    lines: Sequence[str], target: int, min_english: float, removed: Counter[str]
) -> Iterator[str]:
    """Lines grouped into about `target`, a quarter less or more to end where a sentence does.

    Paragraphs with a smaller share of common English words than `min_english` are removed.
    """
    least, most = target - target // 4, target + target // 4
    run: list[str] = []
    for i, line in enumerate(lines, start=1):
        run.append(line)
        ends = len(run) >= least and _ENDS.search(line.rstrip())
        if ends or len(run) >= most or i == len(lines):
            words = re.findall(r"[^\W\d_]+", " ".join(run).lower())
            if words and sum(word in _COMMON for word in words) >= min_english * len(words):
                yield "\n".join(run)
            else:
                removed["not English"] += 1
            run = []


READERS: dict[str, Callable[[Source, Member, Counter[str]], Stream]] = {
    **dict.fromkeys(("prose", "lines", "own"), _plain),
    "scripture": _scripture,
    "verse": _verse,
}


class Inert:
    """Stands in for every class and function of a pickle: keeps what it is given, does nothing."""

    state: Any = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *_: Any) -> None:
        """What a pickle puts into a list or mapping of its own kind is let go."""

    append = extend = __setitem__ = _ignore


class InertUnpickler(pickle.Unpickler):
    """Reads the data of a pickle and none of its code: whatever class it names is `Inert`."""

    def find_class(self, module: str, name: str) -> type[Inert]:
        return Inert


def lines_of_table(content: bytes, name: str) -> Sequence[str]:
    """The first column of text of a pickled data frame, read without running any of its code.

    A column block is an array of shape (columns, rows): its state holds that shape and the
    objects, column after column. ConfigError if the file `name` is no such pickle.
    """
    try:
        table = InertUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a broken pickle can raise anything
        raise ConfigError(f"{name} cannot be read as a pickle: {error}") from None
    columns = list(_columns(table))
    if not columns:
        raise ConfigError(f"{name} holds no column of text")
    return max(columns, key=len)


def _columns(table: Any) -> Iterator[Sequence[str]]:
    """First columns of all arrays of text, wherever they hang."""
    waiting, seen = deque([table]), set()
    while waiting:
        item = waiting.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        match item:
            case (int(), (int(), int() as rows), _, bool(), [str(), *_] as values):
                yield values[:rows]
            case Inert():
                waiting += [item.state, vars(item).get("arguments", ())]
            case dict():
                waiting += item.values()
            case list() | tuple():
                waiting += item
