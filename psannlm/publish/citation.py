"""How this report is cited: its citation file, and the BibTeX entry that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError

SOURCE = ROOT / "CITATION.cff"
SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"})


@dataclass(frozen=True)
class Citation:
    """What a citation needs to name."""

    title: str
    authors: tuple[str, ...]
    version: str
    date: str
    """Of the version, as 2026-01-31."""

    license: str

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        year, month, _ = self.date.split("-")
        authors = " and ".join(f"{{{name.translate(SPECIAL)}}}" for name in self.authors)
        fields = {
            "author": authors,
            "title": f"{{{self.title.translate(SPECIAL)}}}",
            "year": year,
            "month": str(int(month)),
            "version": self.version,
            "note": f"Software and data, {self.license} license",
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@software{{psannlm_report_{year},\n{lines}\n}}\n"


def citation(path: Path = SOURCE) -> Citation:
    """The citation that a file in the Citation File Format asks for.

    Raises:
        ConfigError: The file cannot be read, or lacks what a citation needs.
    """
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Citation(
            title=content["title"],
            authors=tuple(_name(author) for author in content["authors"]),
            version=str(content["version"]),
            date=str(content["date-released"]),
            license=content["license"],
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path.name} must have title, authors, version, date-released and license: {error}; "
            "mend it as the Citation File Format 1.2.0 asks"
        ) from None


def _name(author: Mapping[str, str]) -> str:
    """Of an entity, or of a person."""
    return (
        author["name"] if "name" in author else f"{author['family-names']}, {author['given-names']}"
    )
