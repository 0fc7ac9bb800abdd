"""Records and the files of a run folder that hold them: the way there and the way back."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

from psannlm.evidence.table import Column, Table


class Record(Protocol):
    """What one measurement leaves."""

    @property
    def key(self) -> Any:
        """Names the record within its run."""


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True)
class RecordStore(Generic[RecordT]):
    """How a run folder holds the records that its tables are computed from."""

    tables: tuple[Table, ...]
    """Files and their columns, for the dictionary of data."""

    texts: Callable[[Sequence[RecordT]], Mapping[str, str]]
    """From records to the content of files, by name; the file that counts is the last."""

    records: Callable[[Mapping[str, str]], list[RecordT]]
    """The way back."""

    label: Callable[[RecordT], str]
    """What the progress bar calls a record."""

    unit: str = "cell"
    """What one measurement is called, in one word."""

    prefix: str = ""
    """Begins the names of files where each record has one of its own."""

    def files_of(self, artifacts: Collection[str]) -> list[str]:
        """Which files of a run hold records; none before the first is whole."""
        wanted = [table.file for table in self.tables]
        if self.prefix:
            own = sorted(name for name in artifacts if name.startswith(self.prefix))
            return [*own, *(name for name in wanted if name in artifacts)]
        return wanted if set(wanted) <= set(artifacts) else []

    def read(self, artifacts: Collection[str], text_of: Callable[[str], str]) -> list[RecordT]:
        """The records of a run, complete or interrupted; none if it holds none yet.

        Args:
            artifacts: Names of its files.
            text_of: Content of one of them.
        """
        files = self.files_of(artifacts)
        return self.records({name: text_of(name) for name in files}) if files else []


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
        hint = hints[field.name]
        notes = [n for n in get_args(hint)[1:] if isinstance(n, Column)] if _annotated(hint) else []
        column = notes[0] if notes else Column("", "")
        found.append(dataclasses.replace(column, name=field.name))
    return tuple(found)


def types_of(record: type) -> dict[str, Any]:
    """The type of each field of a record, without its annotations."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


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


def _annotated(hint: Any) -> bool:
    return get_origin(hint) is Annotated
