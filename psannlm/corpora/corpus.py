"""A corpus on disk: UTF-8 text, one paragraph a line, and the table of its documents.

Beside `name.txt` stand `name.documents.csv`, a row a document in the order of the text, and
`name.json`, which says how both came about. A text alone is a corpus too: its documents are then
blocks of paragraphs.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import SPLITS, Split, names
from psannlm.corpora.split import assign_blocks
from psannlm.files import sha256_of

CORPORA = ROOT / "datasets" / "lm"
"""Where corpora are built."""

SUMS = CORPORA / "sample.sha256"
"""Hashes of the committed texts, a line a file, as `sha256sum` writes and checks them."""

COLUMNS = ("document", "source", "title", "licence", "split", "first_byte", "bytes", "lines")
LONGEST_LINE = 10**6
"""Bytes of the longest paragraph that is read."""

BLOCK_BYTES = 2**16
LEAST_BLOCKS = 50
BLOCK_SEED = 0


@dataclass(frozen=True)
class Document:
    """A run of whole lines of a corpus."""

    title: str
    source: str
    licence: str
    split: Split
    first_byte: int
    n_bytes: int
    n_lines: int


@dataclass(frozen=True)
class Corpus:
    """A text whose documents are known; only what is asked for is read."""

    path: Path
    name: str
    sha256: str
    documents: tuple[Document, ...]

    def texts(self, split: str, max_bytes: int | None = None) -> Iterator[str]:
        r"""Documents of a split in order: paragraphs, each with "\n" after it.

        Args:
            split: train, validation or test.
            max_bytes: Stop after the paragraph with which so many bytes are reached.

        Raises:
            ConfigError: No such split, or the file was changed since it was loaded.
        """
        left = self.n_bytes(split) if max_bytes is None else max_bytes
        with self.path.open("rb") as text:
            for document in self._of(split):
                if left <= 0:
                    return
                content = self._read(text, document, left)
                left -= len(content)
                yield content.decode()

    def n_bytes(self, split: str) -> int:
        """Bytes of a split."""
        return sum(document.n_bytes for document in self._of(split))

    def _read(self, text: BinaryIO, document: Document, most: int) -> bytes:
        """A document, or as many whole paragraphs of it as reach `most` bytes."""
        text.seek(document.first_byte)
        content = text.read(min(document.n_bytes, most))
        if len(content) < document.n_bytes and not content.endswith(b"\n"):
            content += text.readline()
        is_last = document is self.documents[-1]  # whose last line may have no end
        if not 0 < len(content) <= document.n_bytes or not (content.endswith(b"\n") or is_last):
            raise ConfigError(f"{self.path} was changed while it was read; load it again")
        return content

    def _of(self, split: str) -> Iterator[Document]:
        if split not in SPLITS:
            raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return (document for document in self.documents if document.split == split)


def load(path: Path) -> Corpus:
    """The corpus at `path`, every byte of it checked once.

    Raises:
        ConfigError: The file is missing, empty, no UTF-8, has an enormous line or, without a
            table of documents, fewer than three lines; or the table does not fit the text.
    """
    survey = _Survey(path)
    table, _ = beside(path)
    if table.exists():
        documents = _documents(table)
        _check_fit(path, survey, documents)
    else:
        documents = list(survey.documents(path))
    return Corpus(path, path.stem, survey.sha256, tuple(documents))


def beside(path: Path) -> tuple[Path, Path]:
    """Paths of the table of documents and of the facts that belong to a text."""
    return path.with_name(f"{path.stem}.documents.csv"), path.with_name(f"{path.stem}.json")


class _Survey:
    """One pass over a text: its hash, its length and where its blocks end."""

    def __init__(self, path: Path) -> None:
        digest = hashlib.sha256()
        self.n_bytes = self.n_lines = 0
        self.ends: list[tuple[int, int]] = []  # (bytes, lines) up to the end of each block
        with _opened(path) as text:
            block = min(BLOCK_BYTES, path.stat().st_size // LEAST_BLOCKS)
            for line in _lines(text, path):
                digest.update(line)
                self.n_bytes += len(line)
                self.n_lines += 1
                start = self.ends[-1][0] if self.ends else 0
                if self.n_bytes - start >= block:
                    self.ends.append((self.n_bytes, self.n_lines))
        if not self.n_bytes:
            raise ConfigError(f"{path} is empty; {_way_out(path)}")
        if not self.ends or self.ends[-1][0] < self.n_bytes:
            self.ends.append((self.n_bytes, self.n_lines))
        self.sha256 = digest.hexdigest()

    def documents(self, path: Path) -> Iterator[Document]:
        """Blocks of whole paragraphs, drawn into splits."""
        if len(self.ends) < len(SPLITS):
            raise ConfigError(
                f"{path} must have at least {len(SPLITS)} lines, a paragraph each, so that train, "
                f"validation and test each have one, got {self.n_lines}"
            )
        starts = [(0, 0), *self.ends]
        splits = assign_blocks(len(self.ends), seed=BLOCK_SEED)
        for number, (start, end, split) in enumerate(zip(starts, self.ends, splits, strict=False)):
            n_bytes, n_lines = end[0] - start[0], end[1] - start[1]
            title = f"block {number + 1}"
            yield Document(title, path.name, "unknown", split, start[0], n_bytes, n_lines)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; {_way_out(path)}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; {_way_out(path)}") from None


def _way_out(path: Path) -> str:
    if path.stem in names():
        return f"run: python -m psannlm corpus build {path.stem}"
    return "build one: python -m psannlm corpus from FILES... --out FILE.txt"


def _lines(text: BinaryIO, path: Path) -> Iterator[bytes]:
    done = 0
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise ConfigError(
                f"{path} must have a paragraph a line, each of at most {LONGEST_LINE:,} bytes, got "
                f"a longer one at byte {done:,}; cut it with: python -m psannlm corpus from {path} "
                "--out OTHER.txt"
            )
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{path} must be UTF-8 text, got something else at byte {done + error.start:,}; "
                "save it as UTF-8"
            ) from None
        yield line
        done += len(line)


def _documents(table: Path) -> list[Document]:
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            found = csv.reader(lines)
            if tuple(next(found, ())) != COLUMNS:
                raise ValueError(f"its columns must be {', '.join(COLUMNS)}")
            return [_document(row) for row in found]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{table} cannot be read: {error}; build the corpus again, or remove the table to read "
            "the text alone"
        ) from None


def _document(row: Sequence[str]) -> Document:
    """A row of the table, its fields in the order of COLUMNS."""
    _, source, title, licence, split, *numbers = row
    first_byte, n_bytes, n_lines = map(int, numbers)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return Document(title, source, licence, split, first_byte, n_bytes, n_lines)


def _check_fit(path: Path, survey: _Survey, documents: Sequence[Document]) -> None:
    """Refuse a table that is not of this text."""
    table, facts = beside(path)
    end = 0
    for document in documents:
        if document.first_byte != end or document.n_bytes <= 0:
            break
        end += document.n_bytes
    if end != survey.n_bytes:
        problem = f"its documents end at byte {end:,}, the text at byte {survey.n_bytes:,}"
    elif sum(document.n_lines for document in documents) != survey.n_lines:
        problem = "its numbers of lines are not those of the text"
    else:
        problem = _hash_mismatch(facts, survey.sha256, table)
    if problem:
        raise ConfigError(
            f"{table} does not fit {path.name}: {problem}; build the corpus again, or remove "
            f"{table.name} and {facts.name} to read the text alone"
        )


def _hash_mismatch(facts: Path, sha256: str, table: Path) -> str:
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
        expected = {"text": told["sha256"], "table": told["documents_sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return f"{facts.name} is missing or cannot be read"
    if expected["text"] != sha256:
        return f"the text has the sha256 {sha256}, {facts.name} says {expected['text']}"
    if expected["table"] != sha256_of(table):
        return f"the table has another sha256 than {facts.name} says"
    return ""


def altered_files(sums: Path = SUMS) -> Iterator[str]:
    """What the files that lie beside a list of sums are otherwise than it says, file first."""
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield f"{sums.name}: cannot be read: {error}; restore it from git"
        return
    if not lines:
        yield f"{sums.name}: names no file; restore it from git"
    for line in lines:
        expected, _, name = line.partition("  ")
        path = sums.parent / name
        if not name or not path.is_file():
            yield f"{name or line}: is missing, {sums.name} names it; restore it from git"
        elif sha256_of(path) != expected:
            yield f"{name}: was altered, its sha256 is not that of {sums.name}; restore it from git"
