"""Records and the files of a run folder that hold them: the way there and the way back."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, get_args, get_type_hints

from psannlm.evidence.table import Column, Table
from psannlm.files import MIB


class Record(Protocol):
    """What one measurement leaves."""

    @property
    def key(self) -> Any:
        """Names the record within its run."""


RecordT = TypeVar("RecordT", bound=Record)
KindT = TypeVar("KindT")


@dataclass(frozen=True)
class RecordStore(Generic[RecordT]):
    """How a run folder holds the records that its tables are computed from."""

    tables: tuple[Table, ...]  # files and their columns, for the dictionary of data
    texts: Callable[[Sequence[RecordT]], Mapping[str, str]]  # of files; the one that counts is last
    records: Callable[[Mapping[str, str]], list[RecordT]]  # the way back
    label: Callable[[RecordT], str]  # what the progress bar calls a record
    unit: str = "cell"  # what one measurement is called, in one word
    prefix: str = ""  # begins the names of files where each record has one of its own

    def read(self, artifacts: Collection[str], text_of: Callable[[str], str]) -> list[RecordT]:
        """The records of a run, complete or interrupted; none before all their files are whole.

        `artifacts` are the names of its files, `text_of` reads one of them.
        """
        files = [table.file for table in self.tables]
        if self.prefix:
            own = sorted(name for name in artifacts if name.startswith(self.prefix))
            files = [*own, *(name for name in files if name in artifacts)]
        is_whole = set(files) <= set(artifacts)
        return self.records({name: text_of(name) for name in files}) if is_whole else []


def about(text: str, unit: str = "") -> Column:
    """What a field of a record is, as the annotation that documents it.

    Used as `seconds: Annotated[float, about("Time of the step.", "s")]`; a column that tables have
    too annotates the field itself.
    """
    return Column("", text, unit=unit)


def columns_of(record: type) -> tuple[Column, ...]:
    """The columns that the annotated fields of a record make, in their order."""
    hints = get_type_hints(record, include_extras=True)
    found = []
    for field in dataclasses.fields(record):
        notes = getattr(hints[field.name], "__metadata__", ())
        column = next((note for note in notes if isinstance(note, Column)), Column("", ""))
        found.append(column.but(name=field.name))
    return tuple(found)


def types_of(record: type) -> dict[str, Any]:
    """The type of each field of a record, without its annotations."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


@dataclass(frozen=True)
class TimedRecords(Generic[RecordT]):
    """Two CSV files of records with timed steps: a row a step, and a row a record with all else."""

    record: type[RecordT]  # a dataclass whose field `seconds` has the time of each step
    key: tuple[str, ...]  # fields whose values are the key of a record
    text: str  # what a row of cells.csv is

    @property
    def samples(self) -> Table:
        """Of the steps."""
        return samples_table(self.record, self.key)

    @property
    def cells(self) -> Table:
        """Of the records."""
        columns = (column for column in columns_of(self.record) if column.name != "seconds")
        return Table("cells.csv", self.text, tuple(columns))

    def texts(self, records: Sequence[RecordT]) -> dict[str, str]:
        """The content of both files, by name."""
        return {
            self.samples.file: samples_csv(self.samples, records),
            self.cells.file: records_csv(self.cells, records),
        }

    def records(self, texts: Mapping[str, str]) -> list[RecordT]:
        """The records whose files these are; samples of no cell are left out."""
        make: Callable[..., RecordT] = self.record
        seconds: dict[tuple[Any, ...], list[float]] = {}
        for row in fields_of_csv(self.record, texts[self.samples.file]):
            seconds.setdefault(tuple(row[name] for name in self.key), []).append(row["seconds"])
        return [
            make(**row, seconds=tuple(seconds.get(tuple(row[n] for n in self.key), ())))
            for row in fields_of_csv(self.record, texts[self.cells.file])
        ]


def samples_table(record: type, key: Sequence[str]) -> Table:
    """The file of timed steps: a row a step, named by the key of its record."""
    columns = {column.name: column for column in columns_of(record)}
    step = Column("step", "Number of the timed step, from 0.")
    seconds = Column("seconds", "Time of the step.", "s")
    named = tuple(columns[name] for name in key)
    return Table("samples.csv", "One row a timed step.", (*named, step, seconds))


def samples_csv(table: Table, records: Iterable[Any]) -> str:
    """Text of the file of timed steps."""
    return to_csv(
        table.names, ((*r.key, step, s) for r in records for step, s in enumerate(r.seconds))
    )


def records_csv(table: Table, records: Iterable[Any]) -> str:
    """Text of a CSV file whose columns are fields of the records."""
    return to_csv(table.names, ([getattr(r, name) for name in table.names] for r in records))


def fields_of_csv(record: type, text: str) -> list[dict[str, Any]]:
    """The rows of such a file, each field in the type that the record has it in."""
    kinds = types_of(record)
    return [
        {name: parse_field(kinds.get(name, str), field) for name, field in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def of_type(kind: type[KindT], records: Iterable[object]) -> list[KindT]:
    """Those of the records that are of one kind."""
    return [record for record in records if isinstance(record, kind)]


def outcome_cells(records: Sequence[Any]) -> dict[str, Any]:
    """How many processes of a row succeeded and failed, and why: n_ok, n_failed, status, reason."""
    failed = [record for record in records if record.status != "ok"]
    return {
        "n_ok": len(records) - len(failed),
        "n_failed": len(failed),
        "status": "ok" if len(failed) < len(records) else "failed",
        "reason": "; ".join(dict.fromkeys(record.reason for record in failed)),
    }


def most_mib(records: Iterable[Any], name: str) -> float | None:
    """The largest of a number of bytes over the processes that know it, in MiB."""
    known = [value / MIB for record in records if (value := getattr(record, name)) is not None]
    return max(known, default=None)


def in_mib(of_bytes: Column, heading: str = "") -> Column:
    """The column of the largest number of bytes over the processes of a row, in MiB."""
    name, most = of_bytes.name.replace("bytes", "mib"), partial(most_mib, name=of_bytes.name)
    return of_bytes.but(name=name, unit="MiB", heading=heading, format=",.0f", value=most)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Text of a CSV file; None is an empty field, floats keep every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def to_json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """A JSON list with a line for each row."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]\n"


def parse_field(kind: Any, text: str) -> Any:
    """The value of a CSV field, by the type of the record's field."""
    kinds = get_args(kind) or (kind,)
    if type(None) in kinds and text == "":
        return None
    if bool in kinds:
        return json.loads(text.lower())
    if int in kinds:
        return int(text)
    return float(text) if float in kinds else text
