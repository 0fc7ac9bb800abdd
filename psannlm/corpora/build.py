"""From a recipe to a corpus on disk, the same to the byte whenever and wherever it is built."""

import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora import readers
from psannlm.corpora.archives import members, own_files, readable
from psannlm.corpora.clean import Cleaner
from psannlm.corpora.corpus import BLOCK_BYTES, COLUMNS, CORPORA, LEAST_BLOCKS, beside
from psannlm.corpora.duplicates import Exact, PhraseTable, phrases
from psannlm.corpora.fetch import fetch_file, rows
from psannlm.corpora.recipe import (
    RECIPES,
    SPLITS,
    FilesSource,
    HubSource,
    PackedSource,
    Recipe,
    Source,
    Split,
    load_recipe,
)
from psannlm.corpora.split import Candidate, assign, shuffled
from psannlm.files import replacing, sha256_of, write_atomically

WRITTEN: tuple[Split, ...] = ("validation", "test", "train")
"""Order of the splits in a text: what is held out comes first, so that it stays whole."""


@dataclass
class Draft:
    """A document as it was cleaned: a run of the spool."""

    title: str
    source: Source
    first_byte: int
    n_bytes: int = 0
    n_lines: int = 0
    split: Split = "train"


@dataclass
class Account:
    """What became of the paragraphs that were read."""

    removed: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)


def build(name: str, folder: Path = CORPORA, recipes: Path = RECIPES) -> Path:
    """Build the corpus of the recipe `name`.

    Returns:
        The text; its table of documents and its facts stand beside it.

    Raises:
        ConfigError: No such recipe, a source that cannot be had or read, or too little text.
    """
    recipe = load_recipe(name, recipes)
    told = {"recipe": name, "recipe_sha256": sha256_of(recipes / f"{name}.yaml")}
    return build_recipe(recipe, folder / f"{name}.txt", told)


def build_from(files: Sequence[Path], out: Path) -> Path:
    """Build a corpus of one's own files or folders of .txt, .gz, .xz or .zip.

    Files stay whole documents if there are at least 50; fewer are cut into parts.

    Raises:
        ConfigError: A file cannot be read, `out` is no .txt or among the files, or there is too
            little text.
    """
    if out.suffix != ".txt":
        raise ConfigError(f"{out} must end in .txt")
    found = list(own_files(files))
    if not found:
        raise ConfigError("no file was named; name files or folders of text")
    if out.resolve() in {path.resolve() for path in found}:
        raise ConfigError(f"{out} is one of the files to be read; name another output")
    n_bytes = sum(path.stat().st_size for path in found)
    whole = len(found) >= LEAST_BLOCKS
    recipe = Recipe(
        name="from_files",
        description="A user's own files.",
        sources=(
            FilesSource(
                kind="files",
                name="own files",
                licence="unknown",
                reader="own",
                paths=tuple(dict.fromkeys(str(path) for path in found)),
            ),
        ),
        max_document_bytes=2**22 if whole else max(1, min(BLOCK_BYTES, n_bytes // LEAST_BLOCKS)),
        validation=0.05,
        test=0.05,
    )
    return build_recipe(recipe, out, {"recipe": "corpus from FILES", "recipe_sha256": None})


def build_recipe(recipe: Recipe, out: Path, told: Mapping[str, Any]) -> Path:
    """Build what `recipe` says as `out`; `told` opens the facts beside it."""
    account = Account()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent) as spool:
            drafts = list(_drafts(recipe, spool, account))
            _split(recipe, drafts)
            with replacing(out) as text:
                written = list(_written(recipe, drafts, spool, text, account))
                if not written:
                    raise ConfigError(f"{recipe.name}: nothing is left of its sources")
        table, facts = beside(out)
        write_atomically(table, _table(written))
        content = {**told, **_facts(out, table, written, account)}
        write_atomically(facts, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{out.parent} cannot be written: {error.strerror}; free some space or make it writable"
        ) from None
    return out


def _drafts(recipe: Recipe, spool: BinaryIO, account: Account) -> Iterator[Draft]:
    """Documents of all sources, cleaned and written to the spool; empty ones are left out."""
    clean = Cleaner(
        min_characters=recipe.min_characters,
        max_characters=recipe.max_characters,
        min_lowercase=recipe.min_lowercase,
        boilerplate=recipe.boilerplate,
    )
    for source in recipe.sources:
        draft = Draft(source.name, source, spool.tell())
        for item in tqdm(
            _stream(source, account), desc=source.name, unit=" paragraphs", mininterval=1
        ):
            if isinstance(item, readers.Title):
                if draft.n_bytes:
                    yield draft
                draft = Draft(item.text, source, spool.tell())
                continue
            for paragraph in clean(item):
                if 0 < recipe.max_document_bytes <= draft.n_bytes:
                    yield draft
                    draft = Draft(draft.title, source, spool.tell())
                draft.n_bytes += spool.write(f"{paragraph}\n".encode())
                draft.n_lines += 1
        if draft.n_bytes:
            yield draft
    account.removed.update(clean.removed)


def _stream(source: Source, account: Account) -> readers.Stream:
    if isinstance(source, HubSource):
        account.inputs[source.name] = f"{source.dataset}@{source.revision}"
        yield from readers.articles(rows(source))
    elif isinstance(source, PackedSource):
        path = fetch_file(source)
        account.inputs[path.name.partition("-")[2]] = source.sha256
        yield from readers.read(source, members(path, source.members, source.without))
    elif isinstance(source, FilesSource):
        for path in own_files([ROOT / name for name in source.paths]):
            with readable(path.name):
                account.inputs[path.name] = sha256_of(path)
            yield from readers.read(source, members(path))


def _split(recipe: Recipe, drafts: Sequence[Draft]) -> None:
    candidates = [_candidate(draft) for draft in drafts]
    splits = assign(candidates, validation=recipe.validation, test=recipe.test, seed=recipe.seed)
    for draft, split in zip(drafts, splits, strict=True):
        draft.split = split


def _candidate(draft: Draft) -> Candidate:
    return Candidate(draft.title, draft.source.name, draft.n_bytes, draft.source.split or None)


def _written(
    recipe: Recipe, drafts: Sequence[Draft], spool: BinaryIO, text: BinaryIO, account: Account
) -> Iterator[Draft]:
    """Documents in their final order, without duplicates, as they stand in `text`.

    Those of a split are shuffled, so that a beginning of it has of all sources.
    """
    fresh = DuplicateFilter(recipe, sum(draft.n_bytes for draft in drafts), account.removed)
    order = shuffled([_candidate(draft) for draft in drafts], recipe.seed)
    ordered = [drafts[i] for split in WRITTEN for i in order if drafts[i].split == split]
    for draft in tqdm(ordered, desc="duplicates", unit=" documents", mininterval=1):
        final = Draft(draft.title, draft.source, text.tell(), split=draft.split)
        spool.seek(draft.first_byte)
        for _ in range(draft.n_lines):
            line = spool.readline()
            if fresh(line.decode().rstrip("\n"), held_out=draft.split != "train"):
                final.n_bytes += text.write(line)
                final.n_lines += 1
        if final.n_bytes:
            yield final


class DuplicateFilter:
    """Whether a paragraph is new; held-out text comes first, and is never a near duplicate."""

    def __init__(self, recipe: Recipe, n_bytes: int, removed: Counter[str]) -> None:
        self._bound = recipe.near_duplicate_share
        self._exact = Exact() if recipe.drop_exact_duplicates else None
        near = self._bound < 1
        self._held_out = PhraseTable(n_bytes) if near else None
        self._trained = PhraseTable(n_bytes) if near else None
        self._removed = removed

    def __call__(self, paragraph: str, *, held_out: bool) -> bool:
        if self._exact and self._exact.seen_before(paragraph):
            self._removed["exact duplicates"] += 1
            return False
        if self._held_out is None or self._trained is None:
            return True
        found = phrases(paragraph)
        if held_out:
            self._held_out.add(found)
            return True
        for table, reason in (
            (self._held_out, "near duplicates of held-out text"),
            (self._trained, "near duplicates within train"),
        ):
            if table.share(found) > self._bound:
                self._removed[reason] += 1
                return False
        self._trained.add(found)
        return True


def _table(documents: Sequence[Draft]) -> str:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for number, d in enumerate(documents):
        facts = (d.source.name, d.title, d.source.licence, d.split)
        rows.writerow((number, *facts, d.first_byte, d.n_bytes, d.n_lines))
    return table.getvalue()


def _facts(out: Path, table: Path, documents: Sequence[Draft], account: Account) -> dict[str, Any]:
    sources = dict.fromkeys(document.source.name for document in documents)
    return {
        "name": out.stem,
        "sha256": sha256_of(out),
        "documents_sha256": sha256_of(table),
        **_size(documents),
        "splits": {s: _size([d for d in documents if d.split == s]) for s in SPLITS},
        "sources": {s: _size([d for d in documents if d.source.name == s]) for s in sources},
        "removed_paragraphs": dict(sorted(account.removed.items())),
        "inputs": dict(sorted(account.inputs.items())),
    }


def _size(documents: Sequence[Draft]) -> dict[str, int]:
    return {
        "documents": len(documents),
        "bytes": sum(document.n_bytes for document in documents),
        "lines": sum(document.n_lines for document in documents),
    }
