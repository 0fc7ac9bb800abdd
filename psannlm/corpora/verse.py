"""Verse out of a pickled table, of which nothing can run; lines grouped into paragraphs."""

import pickle
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from psannlm.config.schema import ConfigError

_ENDS = re.compile(r"[.!?;:]['\")\]]*$")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and of to in a that his with he i is for as not her my was all but thy on from it be "
        "they at by so their this or no which she when him we me you thou have had our what shall "
        "were o are who if one now there then than will would your its upon an thee into more "
        "like where them how do can may these us said out up been yet some did has",
    )
)
"""Words by which English is told from other languages."""


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


def lines_of_table(stream: BinaryIO, name: str) -> Sequence[str]:
    """The first column of text of a pickled data frame.

    A column block is an array of shape (columns, rows): its state holds that shape and the
    objects, column after column.

    Args:
        stream: The pickle.
        name: Of the file, for the message.

    Raises:
        ConfigError: The stream is no pickle, or holds no column of text.
    """
    try:
        table = InertUnpickler(stream).load()
    except Exception as error:  # a broken pickle can raise anything
        raise ConfigError(f"{name} cannot be read as a pickle: {error}") from None
    columns = list(_columns(table))
    if not columns:
        raise ConfigError(f"{name} holds no column of text")
    return max(columns, key=len)


def verse_paragraphs(lines: Sequence[str], target: int, min_english: float) -> Iterator[str]:
    """Lines grouped so that a paragraph ends where a sentence does.

    Args:
        lines: Of verse, in order.
        target: Lines of a paragraph; a quarter less or more to end with a sentence.
        min_english: Least share of common English words; paragraphs below it are left out.
    """
    least, most = target - target // 4, target + target // 4
    run: list[str] = []
    for line in lines:
        run.append(line)
        if len(run) >= most or (len(run) >= least and _ENDS.search(line.rstrip())):
            yield from _if_english(run, min_english)
            run = []
    yield from _if_english(run, min_english)


def _if_english(run: Sequence[str], least: float) -> Iterator[str]:
    words = re.findall(r"[^\W\d_]+", " ".join(run).lower())
    if words and sum(word in _COMMON for word in words) >= least * len(words):
        yield "\n".join(run)


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
