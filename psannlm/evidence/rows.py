"""Published rows by number: the table of every page, and how to name, find and repeat its rows."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.evidence.runs import Evidence

TABLES: Mapping[str, str] = {
    "validation": "summary.json",
    "throughput": "throughput.csv",
    "memory": "memory.json",
    "tiny_corpus": "metrics.json",
    "shootout": "summary.csv",
    "peer": "peer.csv",
}
"""Of each page: the artifact whose rows are published. A row is a line of a CSV file below its
head, an entry of a JSON list, or a whole JSON object; numbers start at 1."""


@dataclass(frozen=True)
class Row:
    """One published row of one run."""

    run: Evidence
    number: int
    """In its table, from 1."""

    values: Mapping[str, Any]
    """By column; None where unknown."""

    artifact: str = ""
    """The table it stands in, where that is not the published one of its page."""

    @property
    def page(self) -> str:
        """The notebook it was measured by."""
        return str(self.run.manifest["notebook"])

    @property
    def file(self) -> str:
        """The artifact it stands in."""
        return self.artifact or TABLES[self.page]

    @property
    def label(self) -> str:
        """Target of links to it in the book, on the page of raw rows."""
        table = f"-{Path(self.artifact).stem}" if self.artifact else ""
        return (
            f"row-{self.page}{table}".replace("_", "-") + f"-{self.run.folder.name}-{self.number}"
        )

    @property
    def command(self) -> str:
        """What measures it again: itself, or its run where it follows from several rows."""
        if self.artifact:
            return str(self.run.manifest["command"])
        path = f"reports/{self.run.name}"
        return f"python -m psannlm rerun {path} --row {self.number}"


def table_of(run: Evidence, artifact: str = "") -> pd.DataFrame:
    """The published table of a run, or another of its files; its index is the number of the row."""
    name = artifact or TABLES[run.manifest["notebook"]]
    text = run.text(name)
    if name.endswith(".csv"):
        frame = pd.read_csv(io.StringIO(text))
    else:
        content = json.loads(text)
        if isinstance(content, dict):
            content = content.get("findings", [content])
        frame = pd.DataFrame(content)
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    return frame


def rows_of(run: Evidence, where: str = "", artifact: str = "") -> list[Row]:
    """The rows of a run for which a condition holds; all of them without one.

    Args:
        run: Whose table it is.
        where: A condition on columns, as pandas' `query` takes it.
        artifact: Another of its files than the published table.

    Raises:
        ValueError: The condition names no column, or cannot be read.
    """
    frame = table_of(run, artifact)
    if where:
        frame = selected(frame, where)
    own = "" if artifact == TABLES[run.manifest["notebook"]] else artifact
    return [
        Row(run, int(number), {str(k): _known(v) for k, v in values.items()}, own)
        for number, values in zip(frame.index, frame.to_dict("records"), strict=True)
    ]


def selected(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows of a table for which a condition holds.

    Raises:
        ValueError: The condition names no column, or cannot be read.
    """
    try:
        return frame.query(where, engine="python")
    except Exception as error:  # pandas raises many kinds for a condition it cannot read
        raise ValueError(f"cannot select by {where!r}: {error}") from None


def _known(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
