"""The dictionary of published data: what files hold, and their columns and fields with units."""

import csv
import functools
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence.text import UNKNOWN

SOURCE = ROOT / "book" / "columns.yaml"


@dataclass(frozen=True)
class Column:
    """One column of a table, or one field of a JSON object."""

    name: str
    what: str
    """In one line; a dash where the dictionary has no word on it."""

    unit: str
    """Empty without one."""


@dataclass(frozen=True)
class Entry:
    """What the dictionary says of the files that one pattern names."""

    holds: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Where a name means something of its own here."""

    like: str = ""
    """Another pattern, whose columns these files have too."""


@dataclass(frozen=True)
class Dictionary:
    """What there is to say of published files and their columns."""

    shared: Mapping[str, str]
    """Columns that mean the same wherever an entry does not say otherwise."""

    files: Mapping[str, Entry]
    """By pattern, as `shootout/cells/*.json`."""

    def pattern(self, file: str) -> str:
        """The pattern that a file goes by: its own name, or the first that fits; itself if none."""
        if file in self.files:
            return file
        return next((p for p in self.files if fnmatchcase(file, p)), file)

    def holds(self, file: str) -> str:
        """What a file holds, in one sentence; a dash if the dictionary has no word on it."""
        entry = self.files.get(self.pattern(file))
        return entry.holds if entry else UNKNOWN

    def columns(self, file: str, names: Sequence[str]) -> list[Column]:
        """What each of the names means in a file, in their order."""
        entry = self.files.get(self.pattern(file), Entry(UNKNOWN))
        like = self.files[entry.like].columns if entry.like else {}
        known = {**self.shared, **like, **entry.columns}
        return [_column(name, known.get(name, UNKNOWN)) for name in names]


@functools.cache
def dictionary(path: Path = SOURCE) -> Dictionary:
    """The dictionary as its file tells it.

    Raises:
        ConfigError: The file cannot be read, or an entry is like one that is not there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = {pattern: Entry(**entry) for pattern, entry in content["files"].items()}
        shared = dict(content["shared"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path.name} must have `shared` columns and `files`, each with `holds`, `columns` or "
            f"`like`: {error}; mend it"
        ) from None
    for pattern, entry in files.items():
        if entry.like and entry.like not in files:
            raise ConfigError(
                f"{path.name}: {pattern} is like {entry.like}, which is not described; "
                f"name one of {', '.join(files)}"
            )
    return Dictionary(shared, files)


def names_of(file: str, text: str) -> list[str]:
    """Names of the columns of a CSV file, or of the fields of a JSON object or list of objects.

    Args:
        file: Its name; of other files than CSV and JSON nothing is known.
        text: Its content.
    """
    if file.endswith(".csv"):
        return next(csv.reader(io.StringIO(text)), [])
    if not file.endswith(".json"):
        return []
    content = json.loads(text)
    objects = content if isinstance(content, list) else [content]
    return list(dict.fromkeys(name for one in objects if isinstance(one, dict) for name in one))


def n_rows(file: str, text: str) -> int | None:
    """Rows of a CSV file below its head, or entries of a JSON list; None of other files."""
    if file.endswith(".csv"):
        return max(sum(1 for _ in csv.reader(io.StringIO(text))) - 1, 0)
    if file.endswith(".json"):
        content = json.loads(text)
        return len(content) if isinstance(content, list) else None
    return None


def _column(name: str, said: str) -> Column:
    """The column of that description, whose unit stands in brackets at the end."""
    found = re.fullmatch(r"(.+\.) \[([^]]+)\]", said)
    return Column(name, found[1], found[2]) if found else Column(name, said, "")
