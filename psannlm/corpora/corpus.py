"""A corpus on disk: UTF-8 text, one paragraph a line, and the table of its documents.

Beside `name.txt` stand `name.documents.csv`, a row a document in the order of the text, and
`name.json`, which says how both came about. A text alone is a corpus too: its documents are then
blocks of paragraphs. Whole documents are drawn into splits by a seed.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora.clean import is_known
from psannlm.corpora.recipe import SPLITS, Recipe, load_recipe, names
from psannlm.files import sha256_of, what_altered

CORPORA = ROOT / "datasets" / "lm"
# Hashes of the committed texts, a line a file, as `sha256sum` writes and checks them.
SUMS = CORPORA / "sample.sha256"
COLUMNS = ("document", "source", "title", "licence", "split", "first_byte", "bytes", "lines")
LONGEST_LINE = 10**6  # bytes
BLOCK_BYTES, LEAST_BLOCKS = 2**16, 50
SLACK = 0.25  # by what fraction of its target a split may be over


@dataclass
class Document:
    """A run of whole lines of a corpus; its split is empty until it is drawn."""

    source: str
    title: str
    licence: str
    split: str
    first_byte: int
    n_bytes: int = 0
    n_lines: int = 0


@dataclass(frozen=True)
class Corpus:
    """A text whose documents are known; only what is asked for is read."""

    path: Path
    sha256: str
    documents: tuple[Document, ...]

    def texts(self, split: str, max_bytes: int | None = None) -> Iterator[str]:
        r"""Documents of a split in order: paragraphs, each with "\n" after it.

        They stop after the paragraph with which `max_bytes` are reached. ConfigError if there is no
        such split, or the file was changed since it was loaded.
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
        _refuse_unknown(split)
        return (document for document in self.documents if document.split == split)


def _refuse_unknown(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def load(path: Path) -> Corpus:
    """The corpus at `path`, every byte of it checked once.

    ConfigError if the file is missing, empty, no UTF-8, has an enormous line or, without a table of
    documents, fewer than three lines; or if the table does not fit the text.
    """
    sha256, ends = _survey(path)
    table, facts = beside(path)
    if not table.exists():
        return Corpus(path, sha256, tuple(_blocks(path, ends)))
    documents = _documents(table)
    if problem := _misfit(sha256, *ends[-1], documents, table, facts):
        raise ConfigError(
            f"{table} does not fit {path.name}: {problem}; build the corpus again, or remove "
            f"{table.name} and {facts.name} to read the text alone"
        )
    return Corpus(path, sha256, tuple(documents))


def beside(path: Path) -> tuple[Path, Path]:
    """Paths of the table of documents and of the facts that belong to a text."""
    return path.with_name(f"{path.stem}.documents.csv"), path.with_name(f"{path.stem}.json")


def recipe_to_build(path: Path) -> Recipe | None:
    """The recipe that makes the corpus at `path`; None if it is there, or none makes it."""
    made = path == CORPORA / f"{path.stem}.txt" and path.stem in names()
    return load_recipe(path.stem) if made and not path.exists() else None


def _survey(path: Path) -> tuple[str, list[tuple[int, int]]]:
    """One pass over a text: its hash, and (bytes, lines) before its first and after each block."""
    digest, ends, n_bytes, n_lines = hashlib.sha256(), [(0, 0)], 0, 0
    way_out = "build one: python -m psannlm corpus from FILES... --out FILE.txt"
    if path.stem in names():
        way_out = f"run: python -m psannlm corpus build {path.stem}"
    try:
        text = path.open("rb")
    except OSError as error:
        reason = f"cannot be read: {error.strerror}" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {reason}; {way_out}") from None
    with text:
        block = min(BLOCK_BYTES, path.stat().st_size // LEAST_BLOCKS)
        for n_lines, line in enumerate(_lines(text, path), start=1):
            digest.update(line)
            n_bytes += len(line)
            if n_bytes - ends[-1][0] >= block:
                ends.append((n_bytes, n_lines))
    if not n_bytes:
        raise ConfigError(f"{path} is empty; {way_out}")
    if ends[-1][0] < n_bytes:
        ends.append((n_bytes, n_lines))
    return digest.hexdigest(), ends


def _blocks(path: Path, ends: Sequence[tuple[int, int]]) -> Iterator[Document]:
    """Blocks of whole paragraphs, drawn into splits."""
    n_blocks = len(ends) - 1
    if n_blocks < len(SPLITS):
        raise ConfigError(
            f"{path} must have at least {len(SPLITS)} lines, a paragraph each, so that train, "
            f"validation and test each have one, got {ends[-1][1]}"
        )
    for i, split in enumerate(assign_blocks(n_blocks, seed=0)):
        (start, first_line), (end, last_line) = ends[i : i + 2]
        size = (end - start, last_line - first_line)
        yield Document(path.name, f"block {i + 1}", "unknown", split, start, *size)


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
            place = f"got something else at byte {done + error.start:,}"
            raise ConfigError(f"{path} must be UTF-8 text, {place}; save it as UTF-8") from None
        yield line
        done += len(line)


def _documents(table: Path) -> list[Document]:
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
        if tuple(header) != COLUMNS:
            raise ValueError(f"its columns must be {', '.join(COLUMNS)}")
        documents = []
        for _, source, title, licence, split, *numbers in rows:
            _refuse_unknown(split)
            documents.append(Document(source, title, licence, split, *map(int, numbers)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{table} cannot be read: {error}; build the corpus again, or remove the table to read "
            "the text alone"
        ) from None
    return documents


def _misfit(
    sha256: str, n_bytes: int, n_lines: int, documents: list[Document], table: Path, facts: Path
) -> str:
    """Why a table is not of this text; empty if it is."""
    end = 0
    for document in documents:
        if document.first_byte != end or document.n_bytes <= 0:
            break
        end += document.n_bytes
    if end != n_bytes:
        return f"its documents end at byte {end:,}, the text at byte {n_bytes:,}"
    if sum(document.n_lines for document in documents) != n_lines:
        return "its numbers of lines are not those of the text"
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
        text_sha256, table_sha256 = told["sha256"], told["documents_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{facts.name} is missing or cannot be read"
    if text_sha256 != sha256:
        return f"the text has the sha256 {sha256}, {facts.name} says {text_sha256}"
    if table_sha256 != sha256_of(table):
        return f"the table has another sha256 than {facts.name} says"
    return ""


def altered_files(sums: Path = SUMS) -> Iterator[str]:
    """What the files that lie beside a list of sums are otherwise than it says, file first."""
    way_out = "restore it from git"
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield f"{sums.name}: cannot be read: {error}; {way_out}"
        return
    if not lines:
        yield f"{sums.name}: names no file; {way_out}"
    for line in lines:
        expected, _, name = line.partition("  ")
        path = sums.parent / name
        if not name or not path.is_file():
            yield f"{name or line}: is missing, {sums.name} names it; {way_out}"
        elif sha256_of(path) != expected:
            cause = what_altered(path)
            yield f"{name}: was altered, its sha256 is not that of {sums.name}: {cause}"


def assign(documents: Sequence[Document], validation: float, test: float, seed: int) -> None:
    """Draw a split for each document that has none yet.

    Every source is a stratum: each held-out split takes its share of each source's bytes, as far
    as whole documents allow. Which documents those are depends on the seed and on the titles and
    sizes of the source's own documents alone. ConfigError if a split is left without any.
    """
    free = [document for document in shuffled(documents, seed) if not document.split]
    fractions = {"validation": validation, "test": test}
    for split, fraction in fractions.items():
        for source in dict.fromkeys(document.source for document in free):
            stratum = [document for document in free if document.source == source]
            target, total = fraction * sum(document.n_bytes for document in stratum), 0
            # In drawn order what fits into the target; the last one stays.
            for document in [document for document in stratum if not document.split][:-1]:
                if total < target and total + document.n_bytes <= (1 + SLACK) * target:
                    document.split = split
                    total += document.n_bytes
    for split, fraction in fractions.items():
        if not fraction or any(document.split == split for document in documents):
            continue
        # None fitted: it takes the smallest document there is.
        left = [document for document in free if not document.split]
        if not left or sum(document.split in ("", "train") for document in documents) < 2:
            raise ConfigError(
                f"a corpus must have at least {len(SPLITS)} documents, so that train, validation "
                f"and test each have one, got {len(documents)}"
            )
        min(left, key=lambda document: document.n_bytes).split = split
    for document in free:
        document.split = document.split or "train"


def shuffled(documents: Sequence[Document], seed: int) -> list[Document]:
    """The documents in an order drawn by the seed, whatever their order is.

    Those of equal title and source are drawn one after the other.
    """
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for document in documents:
        name = document.source, document.title
        keys.append(_random_key(seed, *name, seen[name]))
        seen[name] += 1
    return [documents[i] for i in sorted(range(len(documents)), key=keys.__getitem__)]


def _random_key(*parts: Hashable) -> bytes:
    # What repr() escapes of newer letters depends on the Python.
    text = repr(parts) if all(map(is_known, "".join(map(str, parts)))) else ascii(parts)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def assign_blocks(n_blocks: int, *, seed: int) -> list[str]:
    """Splits of equal parts: one in twenty for validation, as many for test, at least one each."""
    order = sorted(range(n_blocks), key=lambda i: _random_key(seed, i))
    share = max(1, n_blocks // 20)
    splits = ["train"] * n_blocks
    for rank, i in enumerate(order[: 2 * share]):
        splits[i] = "validation" if rank < share else "test"
    return splits
