"""Published rows by number: how to name, find, choose and repeat them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import read_table


@dataclass(frozen=True)
class Row:
    """One published row of one run."""

    run: Evidence
    number: int
    """In its table, from 1."""

    values: Mapping[str, Any]
    """By column; None where unknown."""

    file: str
    """The artifact it stands in."""

    numbered: bool = True
    """Whether that is the first table of its page, whose rows can be measured again one by one."""

    @property
    def page(self) -> str:
        """The notebook it was measured by."""
        return str(self.run.manifest["notebook"])

    @property
    def label(self) -> str:
        """Target of links to it in the book, on the page of raw rows."""
        table = "" if self.numbered else f"-{Path(self.file).stem}"
        return (
            f"row-{self.page}{table}".replace("_", "-") + f"-{self.run.folder.name}-{self.number}"
        )

    @property
    def command(self) -> str:
        """What measures it again: itself, or its run where it follows from several rows."""
        if not self.numbered:
            return str(self.run.manifest["command"])
        path = f"reports/{self.run.name}"
        return f"python -m psannlm rerun {path} --row {self.number}"


def table_of(run: Evidence, file: str) -> pd.DataFrame:
    """A table of a run; its index is the number of the row."""
    frame = read_table(file, run.text(file))
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    return frame


def rows_of(run: Evidence, file: str, where: str = "", *, numbered: bool = True) -> list[Row]:
    """The rows of a table for which a condition holds; all of them without one.

    Args:
        run: Whose table it is.
        file: The artifact.
        where: A condition on columns, as pandas' `query` takes it.
        numbered: Whether it is the first table of its page.

    Raises:
        ValueError: The condition names no column, or cannot be read.
    """
    frame = table_of(run, file)
    if where:
        frame = selected(frame, where)
    return [
        Row(run, int(number), {str(k): _known(v) for k, v in values.items()}, file, numbered)
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
