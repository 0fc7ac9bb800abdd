"""Published rows, and the numbers in them: how to name, find, choose and repeat them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.evidence import text
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column, plain_rows, read_table


@dataclass(frozen=True)
class Row:
    """One published row of one run."""

    run: Evidence
    number: int  # in its table, from 1
    values: Mapping[str, Any]  # by column; None where unknown
    file: str  # the artifact it stands in
    numbered: bool = True  # whether that is the first table of its page, measured again by row

    @property
    def page(self) -> str:
        """The notebook it was measured by."""
        return str(self.run.manifest["notebook"])

    @property
    def label(self) -> str:
        """Target of links to it in the book, on the page of raw rows."""
        table = "" if self.numbered else f"-{Path(self.file).stem}"
        kind = f"row-{self.page}{table}".replace("_", "-")
        return f"{kind}-{self.run.folder.name}-{self.number}"

    @property
    def command(self) -> str:
        """What measures it again: itself, or its run where it follows from several rows."""
        if not self.numbered:
            return str(self.run.manifest["command"])
        return f"python -m psannlm rerun reports/{self.run.name} --row {self.number}"


@dataclass(frozen=True)
class Number:
    """One published number; those of two runs with equal `key` can be compared."""

    run: Evidence
    name: str  # dotted, unique, stable: `throughput.respsann.1024.train_step.bf16.tokens_per_s`
    column: Column  # what is declared of it: format, comparison, plan item
    quantity: str  # what it is, in words: `speed`, `validation perplexity`
    unit: str
    base: str
    setting: str  # in words: all that tells it from other numbers of this quantity and base
    value: float | None  # None where it failed, was refused or was skipped; `status` says which
    status: str
    verdict: str
    row: Row | None  # what it was read from; None of a sum over rows
    low: float | None = None
    high: float | None = None
    target: str = ""  # in words, as `at most 8`; empty where the plan names none
    floor: float | None = None  # the noise floor that its row states
    n: int = 1  # processes or trainings behind the interval
    is_main: bool = True  # whether it is one of those that a page is known by

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a number of."""
        return self.quantity, self.base, self.setting

    @property
    def about(self) -> str:
        """What it is of, in words: `respsann, 1,024 tokens a step, training step, bf16`."""
        return ", ".join(part for part in (self.base, self.setting) if part)

    @property
    def plain(self) -> str:
        """The value with its interval; a dash where it is unknown."""
        if self.value is None or self.column.format:
            return text.interval(self.value, self.low, self.high, self.column.format)
        return text.number_in_words(self.value)

    @property
    def shown(self) -> str:
        """The same with its unit, or the status of what has no value."""
        if self.value is None or self.column.compare == "check":
            return self.status
        return f"{self.plain} {self.unit}".strip()


def table_of(run: Evidence, file: str) -> pd.DataFrame:
    """A table of a run; its index is the number of the row."""
    frame = read_table(file, run.text(file))
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    return frame


def rows_of(run: Evidence, file: str, where: str = "", *, numbered: bool = True) -> list[Row]:
    """The rows of a table for which a condition holds, see `selected`; all without one."""
    frame = table_of(run, file)
    if where:
        frame = selected(frame, where)
    return [
        Row(run, int(number), values, file, numbered)
        for number, values in zip(frame.index, plain_rows(frame), strict=True)
    ]


def selected(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows for which a condition of pandas' `query` holds; ValueError if it cannot be read."""
    try:
        return frame.query(where, engine="python")
    except Exception as error:  # pandas raises many kinds for a condition it cannot read
        raise ValueError(f"cannot select by {where!r}: {error}") from None
