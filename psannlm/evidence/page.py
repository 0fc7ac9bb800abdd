"""What a page of the report is: its declarations, and how it measures, tabulates and says it.

A page is a folder below pages/ with a subclass of `Page`, and a line in pages/registry.py. Runner,
book, landing page, History, downloads and repeats follow from it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import pandas as pd
import torch

from psannlm.bench.rates import Pace
from psannlm.config.parse import parse
from psannlm.config.schema import Strict
from psannlm.config.training import TrainingConfig
from psannlm.evidence import parts, text
from psannlm.evidence.runs import Evidence, emulated_in
from psannlm.evidence.store import RecordStore, RecordT
from psannlm.evidence.table import Column, Number, Row, Table, rows_of
from psannlm.model.bases import BASES

if TYPE_CHECKING:
    from psannlm.evidence.figures import Figure
    from psannlm.evidence.session import Session

ConfigT = TypeVar("ConfigT", bound=Strict)
Tables = Mapping[str, pd.DataFrame]  # of a run, by the name of their file


@dataclass(frozen=True)
class RunInfo(Generic[ConfigT]):
    """What tables and sentences need to know of the run that they are of."""

    config: ConfigT
    manifest: Mapping[str, Any]
    records: Sequence[Any] = ()  # for sentences that say more than its tables

    @property
    def name(self) -> str:
        """Of the run folder: when the run began, in UTC."""
        return str(self.manifest["run"])

    def emulated(self, precision: str) -> bool:
        """Whether the measured device emulates a precision that the run has used."""
        return precision in emulated_in(self.manifest)

    @property
    def device(self) -> str:
        """The measured device, by name."""
        return str(self.manifest["environment"]["device"])

    @property
    def origin(self) -> str:
        """What ends README.md: the command, and what a mixed run was made with."""
        mixed = parts.sentence(self.manifest)
        again = f"To make it again: `{self.manifest['command']}`.\n"
        return again + (f"\n{mixed}\n" if mixed else "")


@dataclass(frozen=True)
class RerunRequest(Generic[ConfigT]):
    """What a page is asked for when a row of it is measured again."""

    config: ConfigT  # of the run, on the device that measures now
    device: torch.device
    repeats: int  # fresh processes, or trainings
    say: Callable[[str], None]  # told, in a sentence, what begins
    floor: float = 0.0  # noise floor of this machine, for a run that measures nothing twice
    no_verdict: str = ""  # why speeds here have none: another machine, or other settings
    same_digits: bool = True  # whether the same training should reach the same digits here


class Quantity(NamedTuple):
    """One number, or word, of a row: as published, as expected of the repeat, as it came out."""

    name: str  # with its unit
    published: str
    expected: str
    measured: str
    inside: bool | None  # None where it is shown and not judged


class Repeat(NamedTuple):
    """What a page found when it measured a row again."""

    quantities: tuple[Quantity, ...]
    rules: tuple[str, ...]  # what each kind of quantity is judged by, a sentence each


class Page(ABC, Generic[ConfigT, RecordT]):
    """One page of the report."""

    name: ClassVar[str]  # of its notebook, its parameter files and its file in the book
    title: ClassVar[str]
    question: ClassVar[str]  # what it asks, on the landing page
    config: type[ConfigT]
    store: RecordStore[RecordT]
    tables: tuple[Table, ...]  # rows of the first are numbered, linked and measured again
    raw: tuple[Table, ...] = ()  # further files of a run, for the dictionary of data
    shown: tuple[Table, ...] = ()  # tables that are on the page alone, in no file
    folder: ClassVar[Literal["gpu", "benchmarks"]] = "benchmarks"  # below reports/
    suffix: ClassVar[str] = ""  # ends the names of its run folders
    installs: ClassVar[bool] = False  # another package, so that it runs only if asked for by name
    parameters_variable: ClassVar[str] = ""  # of the environment: names another parameter file
    readme_table: ClassVar[Table | None] = None  # whose best rows README.md shows, if not the first
    readme_columns: ClassVar[tuple[str, ...]] = ()  # of that table; if empty, all with a heading
    readme_figure: ClassVar[str] = ""  # README.md of the project shows the first that is named
    usual_repeats: ClassVar[int] = 4  # most fresh processes, or trainings, of a repeated row
    repeats_once: ClassVar[bool] = False  # whether a row is one value, which one repeat decides
    smoke_note: ClassVar[str] = (  # what the book says of a run of the smoke preset
        "A smoke run: it proves that this page runs. Its sizes, and its repeats where there are "
        "any, are too small for its numbers to mean anything."
    )
    constants: ClassVar[Mapping[str, str]] = {}  # numbers of its method, for prose, by their place
    # Least values that verdicts need, of a number or of a list's length: a run over its budget is
    # reduced down to them, the first first.
    reducible: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def measure(self, session: "Session[ConfigT, RecordT]") -> Iterator[Sequence[RecordT]]:
        """Measure what the session's records do not hold yet; each batch is saved when it comes."""

    def texts(self, records: Sequence[RecordT], run: RunInfo[ConfigT]) -> Mapping[str, str]:
        """The files that hold the records."""
        return self.store.texts(records)

    @abstractmethod
    def tabulate(self, records: Sequence[RecordT], run: RunInfo[ConfigT]) -> Tables:
        """The published tables, computed from the records alone."""

    def total(self, config: ConfigT) -> int | None:
        """How many measurements a run makes, for the progress bar."""
        return None

    def expected_seconds(self, config: ConfigT, pace: Pace) -> float:
        """What a run should take, but for notebook and figures; infinite where nobody can tell."""
        return math.inf

    def names(self) -> Sequence[str]:
        """What the parameters `base` and `baseline` may name."""
        return tuple(BASES)

    def check_config(self, config: ConfigT) -> None:
        """Refuse a configuration that its types and rules let pass; raises ConfigError."""

    def checks(self, config: ConfigT) -> Iterable[Callable[[], object]]:
        """What its notebook needs beside a device and a text: each raises ConfigError if it lacks.

        Nothing is written by them.
        """
        return ()

    def trainings(self, config: ConfigT) -> Iterable[TrainingConfig]:
        """What is trained on this machine, as far as trainings differ in size."""
        return ()

    def figures(self, tables: Tables, run: RunInfo[ConfigT]) -> "Mapping[str, Figure]":
        """The figures of the page, by the name of their files."""
        return {}

    def answer(self, tables: Tables, run: RunInfo[ConfigT]) -> str:
        """What the run found, as Markdown; every number is taken from its tables."""
        return ""

    def reading(self, tables: Tables, run: RunInfo[ConfigT]) -> str:
        """How to read the tables, as far as that depends on the run."""
        return ""

    def section(self, name: str, tables: Tables, run: RunInfo[ConfigT]) -> str:
        """A further piece of the page, HTML or Markdown, by the name that its notebook uses."""
        raise KeyError(name)

    def best(self, tables: Tables, run: RunInfo[ConfigT]) -> pd.DataFrame:
        """The rows that README.md shows."""
        return tables[self.tables[0].file]

    def readme(self, tables: Tables, run: RunInfo[ConfigT]) -> str:
        """README.md of a run folder: preset, machine, the best rows, the command."""
        table = self.readme_table or self.tables[0]
        return (
            f"# {self.title}, {run.name}\n\n"
            f"Preset {run.manifest['preset']}, on {run.device}. {self.readme_note(run)}\n\n"
            f"{table.markdown(self.best(tables, run), self.readme_columns)}\n\n"
            f"{run.origin}"
        )

    def readme_note(self, run: RunInfo[ConfigT]) -> str:
        """What README.md says of its rows."""
        return self.tables[0].text

    def files(self, tables: Tables, run: RunInfo[ConfigT]) -> Mapping[str, str]:
        """All files that state the result, by name; they follow from the records."""
        written = {table.file: table.write(tables[table.file]) for table in self.tables}
        return written | {"README.md": self.readme(tables, run)}

    def bounds(self, records: Sequence[RecordT], config: ConfigT) -> Iterator[str]:
        """What no machine could have measured, as `file, row: what is wrong`."""
        yield from ()

    def setting(self, row: Row) -> str:
        """What tells a row from others of its base, in words."""
        keys = [key for key in self.table_of(row).of_role("key") if key.name != "base"]
        said = [key.show(row.values.get(key.name)) for key in keys]
        return ", ".join(part for part in said if part not in ("", text.UNKNOWN))

    def stem(self, row: Row) -> str:
        """Opens the names of the numbers of a row."""
        keys = self.table_of(row).of_role("key")
        return ".".join([self.name, *(str(row.values[key.name]) for key in keys)])

    def table_of(self, row: Row) -> Table:
        """The table that a row stands in."""
        return next(table for table in self.tables if table.file == row.file)

    @property
    def items(self) -> set[str]:
        """Items of the benchmark plan that it answers."""
        return {c.headline for table in self.tables for c in table.columns if c.headline}

    def item_of(self, row: Row) -> str | None:
        """The item that a row answers alone, or an empty word; None where rows answer together."""
        return None

    def pieces(self) -> Mapping[str, str]:
        """Parts of written pages that follow from its settings, by their file in book/results/."""
        return {}

    def is_headline(self, row: Row, column: Column) -> bool:
        """Whether a number stands on the landing page."""
        return bool(column.headline) and self.is_main(row)

    def is_main(self, row: Row) -> bool:
        """Whether the numbers of a row are among those that the page is known by."""
        return True

    def target(self, row: Row, column: Column) -> str:
        """What the benchmark plan asks of a number, in words; empty where it asks nothing."""
        return ""

    def verdict(self, row: Row, column: Column) -> str:
        """What a row says of a number."""
        stated = [c.name for c in self.table_of(row).of_role("verdict")]
        return str(row.values.get(stated[0]) or "") if stated else ""

    def column_of(self, row: Row, column: Column) -> Column:
        """What a column means on a row, where rows are of more than one quantity."""
        return column

    def rows(self, run: Evidence, where: str = "", file: str = "") -> list[Row]:
        """Rows of one of its tables, the first if no file is named; see `rows_of`."""
        first = self.tables[0].file
        return rows_of(run, file or first, where, numbered=file in ("", first))

    def numbers(self, run: Evidence) -> Iterator[Number]:
        """Every number of a complete run that stands outside its table, in the order of rows."""
        for table in self.tables:
            if columns := [column for column in table.columns if column.quantity]:
                for row in self.rows(run, file=table.file):
                    yield from (self.number(row, c) for c in columns if self.counts(row, c))

    def counts(self, row: Row, column: Column) -> bool:
        """Whether a number is one of its page's: not what took time in an emulated precision."""
        is_timed = self.column_of(row, column).compare in ("noise", "single")
        return not (is_timed and row.values.get("emulated"))

    def number(self, row: Row, column: Column) -> Number:
        """The number in a column of a row."""
        column = self.column_of(row, column)
        name, values, asked = column.name, row.values, row.run.manifest["parameters"]
        status = str(values.get("status") or "ok")
        value = values.get(name) if status == "ok" else None
        return Number(
            run=row.run,
            name=f"{self.stem(row)}.{name}",
            column=column,
            quantity=column.quantity.format(**asked),
            unit=text.UNITS.get(column.unit, column.unit).format(**asked),
            base=str(values.get("base") or ""),
            setting=self.setting(row),
            value=None if value is None else float(value),
            status=status if status != "ok" or value is not None else "unknown",
            verdict=self.verdict(row, column) if status == "ok" else status,
            row=row,
            low=values.get(f"{name}_low"),
            high=values.get(f"{name}_high"),
            target=self.target(row, column),
            floor=values.get("noise_floor"),
            n=int(values.get("n_ok") or values.get("n_seeds") or 1),
            is_main=self.is_main(row),
        )

    def summary(self, numbers: Sequence[Number]) -> str:
        """The answer to the page's question in a sentence, from its headline numbers."""
        return text.by_verdict((n.base, n.plain, n.verdict) for n in numbers if n.is_main)

    def cards(self, numbers: Sequence[Number]) -> Mapping[str, Sequence[Number]]:
        """Headline numbers of each card on the landing page, by the title of the card."""
        found: dict[str, list[Number]] = {}
        for number in numbers:
            found.setdefault(f"{self.title}: {number.base}", []).append(number)
        return found

    def found(self, run: Evidence) -> str:
        """What a complete run is known by, in the table of runs."""
        known = (n for n in self.numbers(run) if n.is_main and n.value is not None)
        return next((f"{n.about}: {n.shown}" for n in known), "nothing was measured")

    def judge(self, records: Sequence[RecordT]) -> None:
        """End the notebook in an error, once its run is sealed, if what was found is one."""

    def measure_again(
        self, row: Row, request: RerunRequest[ConfigT], records: Sequence[RecordT]
    ) -> Sequence[RecordT]:
        """New records of a row of the first table, and of what it was compared with."""
        raise NotImplementedError

    def replicates(
        self, records: Sequence[RecordT], row: Row, config: ConfigT
    ) -> Mapping[str, Mapping[Any, float]]:
        """Values of the row's compared columns, each by the block or seed it was measured in."""
        raise NotImplementedError

    def failures(self, records: Sequence[RecordT], row: Row) -> list[str]:
        """Why records of a row failed."""
        return []

    def compare_again(
        self,
        row: Row,
        request: RerunRequest[ConfigT],
        old: Sequence[RecordT],
        new: Sequence[RecordT],
    ) -> Repeat | None:
        """What new records say of a row, where that is more than `replicates` tells."""
        return None


def run_info(page: Page[ConfigT, Any], run: Evidence) -> RunInfo[ConfigT]:
    """The run with its configuration, parsed from its manifest, and its records once sealed."""
    config = parse(page.config, run.manifest["parameters"], source=f"parameters of {run.name}")
    return RunInfo(
        config, run.manifest, page.store.read(run.manifest.get("artifacts", ()), run.text)
    )
