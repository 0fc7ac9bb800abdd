"""What is published: the columns of a table, the one declaration; its rows, the numbers in them.

From a `Table` follow its file, the table on its page and in README.md, the dictionary of data,
headline numbers, History, and how a repeated row is judged.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, Interval
from psannlm.evidence import text
from psannlm.evidence.runs import Evidence

Role = Literal["key", "verdict", "status", "reason", "fact"]
"""`key` tells rows apart; `x_low` and `x_high` end the interval of a column `x`."""

Compare = Literal["noise", "single", "counted", "interval", "check"]
"""How two measurements of a number are compared: by intervals beyond the noise floor; by the noise
floor alone, for single runs; beyond a fixed share; by intervals over seeds; by pass or fail."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a published table, or one field of a JSON object."""

    name: str  # as in the file
    text: str  # one line for the dictionary of data
    unit: str = ""
    heading: str = ""  # on pages and in README.md; a column without one is in the file alone
    format: str = ""  # of numbers on pages: a specification, or a template as `{:,} tokens a step`
    words: Mapping[Any, str] = field(default_factory=dict)  # of values; "" describes no row
    noted: str = ""  # column of yes and no whose name is put behind the value where it is yes
    beside: str = ""  # column whose value is shown in parentheses, as a share beside a size
    role: Role = "fact"
    nested: bool = False  # whether its cells are lists or objects, which no other file takes over
    cell: Callable[[Mapping[str, Any]], str] | None = None  # as people read it, of the whole row
    value: Callable[[Any], Any] | None = None  # computes the cell from the records of its row
    quantity: str = ""  # what the number is, in words, where it stands outside its table
    better: Literal["higher", "lower"] | None = None
    compare: Compare | None = None
    within: float = 0.0  # of a counted number: the relative difference that a repeat may have
    headline: str = ""  # the item of the benchmark plan that it answers, such as `BMRK-02`

    @property
    def title(self) -> str:
        """The heading with its unit, unless that is named already, there or in every cell."""
        if self.cell is not None or not self.unit or "{" in self.format + self.unit:
            return self.heading
        named = re.search(rf"(?<!\w){re.escape(self.unit)}(?!\w)", self.heading)
        return self.heading if named else f"{self.heading}, {self.unit}"

    def but(self, **changes: Any) -> "Column":
        """The same column, but for what is named."""
        return replace(self, **changes)

    def show(self, value: Any) -> str:
        """A value as people read it; a dash where it is unknown."""
        if isinstance(value, list | dict):
            return json.dumps(value)
        if value is None or pd.isna(value):
            return text.UNKNOWN
        if value in self.words:
            return self.words[value]
        if "{" in self.format:
            return self.format.format(value)
        return format(value, self.format) if self.format else str(value)


@dataclass(frozen=True, eq=False)
class Table:
    """A published file of rows: CSV, or a JSON list of objects, by its ending."""

    file: str
    text: str  # what it holds, in one sentence
    columns: tuple[Column, ...]
    caption: str = ""  # of the table on its page
    shown: tuple[str, ...] = ("*",)  # columns on its page; `*`: all others with a heading
    fixed: tuple[str, ...] = ()  # columns that every committed file must have
    filters: tuple[str, ...] = ()  # headings by whose values readers can choose rows

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> list[str]:
        """Of all columns, in the order of the file."""
        return [column.name for column in self.columns]

    def of_role(self, role: Role) -> list[Column]:
        """Its columns of one role."""
        return [column for column in self.columns if column.role == role]

    def row(self, group: Any) -> dict[str, Any]:
        """The cells of one row that its columns compute from a group of records."""
        return {c.name: c.value(group) for c in self.columns if c.value is not None}

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """The rows as a table; what a row does not have is unknown, whole numbers stay whole."""
        found = list(rows)
        return pd.DataFrame({n: _series([row.get(n) for row in found]) for n in self.names})

    def write(self, frame: pd.DataFrame) -> str:
        """Text of the file; floats keep every digit, what is unknown is empty or null."""
        if self.file.endswith(".csv"):
            return str(frame.to_csv(index=False, lineterminator="\n"))
        return json.dumps(plain_rows(frame), indent=1, allow_nan=False) + "\n"

    def view(self, frame: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
        """The table as people read it: units in the headings, intervals beside their numbers.

        Its columns are shown in the order in which they are named; `shown` if none is.
        """
        rows = plain_rows(frame)
        names = columns or self.shown
        others = [column.name for column in self.columns if column.heading]
        others = [name for name in others if name not in names]
        shown = [self[n] for name in names for n in (others if name == "*" else [name])]
        return pd.DataFrame({c.title: [self._cell(row, c) for row in rows] for c in shown})

    def html(self, frame: pd.DataFrame, columns: Sequence[str] = ()) -> str:
        """HTML of the table as people read it, its headings sort it."""
        caption = f"{self.caption}; {CONFIDENCE:.0%} intervals in parentheses"
        has_interval = any(name.endswith("_low") for name in self.names)
        view = self.view(frame, columns)
        return text.sortable(view, caption if has_interval else self.caption, filters=self.filters)

    def markdown(self, frame: pd.DataFrame, columns: Sequence[str] = ()) -> str:
        """The same in Markdown."""
        view = self.view(frame, columns)
        return text.markdown(list(view.columns), view.itertuples(index=False, name=None))

    def _cell(self, row: Mapping[str, Any], column: Column) -> str:
        if column.cell is not None:
            return column.cell(row)
        value, low = row.get(column.name), row.get(f"{column.name}_low")
        if 1 in (row.get("n_ok"), row.get("n_blocks")):
            low = None  # a single process has no interval
        if column.role in ("verdict", "status") and row.get("status") in ("failed", "refused"):
            return f"{row['status']}: {row.get('reason') or ''}"
        if low is not None and value is not None:
            return text.interval(value, low, row.get(f"{column.name}_high"), column.format)
        shown = column.show(value)
        if column.noted and row.get(column.noted):
            return f"{shown}, {column.noted}"
        if column.beside and value is not None:
            return f"{shown} ({self[column.beside].show(row.get(column.beside))})"
        return shown


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, None where a value is unknown."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def read_table(file: str, content: str) -> pd.DataFrame:
    """The rows of a CSV file, the entries of a JSON list, or a JSON object as a single row."""
    if Path(file).suffix == ".csv":
        return pd.read_csv(io.StringIO(content))
    found = json.loads(content)
    if isinstance(found, dict):
        found = found.get("findings", [found])
    return pd.DataFrame(found)


def _series(values: list[Any]) -> pd.Series:
    known = [value for value in values if value is not None]
    mixed = len(known) < len(values) and all(isinstance(value, int) for value in known)
    return pd.Series(values, dtype=object if mixed and known else None)


def interval_columns(
    name: str, of: str, unit: str = "", end: Callable[[str], Callable[[Any], Any]] | None = None
) -> tuple[Column, Column]:
    """The columns that end the interval of the column `name`, which is `of` in words.

    Of both ends, `unit`; `end` computes `low` and `high` where columns compute themselves.
    """

    def column(which: str, word: str) -> Column:
        text = f"{word} end of the interval of {of}."
        return Column(f"{name}_{which}", text, unit, value=end(which) if end else None)

    return column("low", "Lower"), column("high", "Upper")


def interval_cells(name: str, found: Interval | None) -> dict[str, float]:
    """The cells of a column and of both ends of its interval; none where it is unknown."""
    if found is None:
        return {}
    return {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}


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


# Columns that mean the same in every table.
BASE = Column(
    "base", "Architecture under test, by its name in this report.", heading="base", role="key"
)
BATCH_TOKENS = Column(
    "batch_tokens",
    "Tokens of one step, all its sequences together.",
    "tokens",
    heading="batch",
    format="{:,} tokens a step",
    role="key",
)
COMPILED = Column("compiled", "Whether the step was compiled, as the compiler tells.")
EMULATED = Column(
    "emulated",
    "Whether the device emulates the precision: measured over few steps, compared with nothing.",
)
FRAMES = Column("frames", "Functions, or parts of them, that the compiler compiled.")
GRAPH_BREAKS = Column("graph_breaks", "Places in the step between which Python itself went on.")
EAGER = Column(
    "eager", "Why the step ran eagerly though it was to be compiled; empty if it did not."
)
CONTEXT_LENGTH = Column("context_length", "Tokens of one sequence.", "tokens")
DEVICE = Column("device", "Device that did the work.")
N_FAILED = Column("n_failed", "Processes or trainings that failed.")
N_OK = Column("n_ok", "Processes that succeeded.")
NOISE_FLOOR = Column(
    "noise_floor",
    "How far the ratio of the baseline to itself strays from 1, its interval included.",
)
ORDER = Column("order", "Position of the process in the run, from 0.")
PEAK_ALLOCATED_BYTES = Column(
    "peak_allocated_bytes", "Most memory that the allocator had handed out at one time.", "bytes"
)
PEAK_RESERVED_BYTES = Column(
    "peak_reserved_bytes", "Most memory taken from the driver of a GPU; empty on a CPU.", "bytes"
)
PEAK_RSS_BYTES = Column(
    "peak_rss_bytes", "Largest resident set of the process since it started.", "bytes"
)
PRECISION = Column(
    "precision",
    "Precision of matrix products, fp32 or bf16.",
    heading="precision",
    role="key",
    noted="emulated",
)
REASON = Column(
    "reason",
    "Why it, or a process of it, failed, was refused or was skipped; empty otherwise.",
    role="reason",
)
REPEAT = Column("repeat", "Number of the block that the process belongs to, from 0.")
STARTED_AT = Column("started_at", "When it began, in UTC.")
STATUS = Column("status", "ok, failed or refused.", role="status")
TIMESTAMP = Column("timestamp", "Run folder, named by its start in UTC.")
VERDICT = Column(
    "verdict",
    "What a comparison found, such as faster, worse or not separated; else why there is none.",
    heading="verdict",
    role="verdict",
)
