"""What a measurement leaves: one frozen record a cell and mode, and the CSV files that keep it."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CEILING = "matmul"
"""The mode, and the base, of the records that tell what the device can do at most."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One mode of one cell, measured in one fresh process; a failure is a record too."""

    repeat: int
    """Number of the block that the process belongs to, from 0."""

    order: int
    """Position of the process in the run, from 0."""

    label: str
    """Name in tables; the base, but for the second measurement of the baseline."""

    base: str
    batch_tokens: int
    context_length: int
    mode: str
    """forward, train_step, or matmul."""

    precision: str
    compiled: bool
    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty otherwise."""

    started_at: str
    """UTC."""

    flops: int
    """Of one step, matrix products only."""

    compile_seconds: float | None
    """First call less a steady one; None without compilation."""

    n_warmup: int
    steady: bool
    loss: float | None
    """Of the last training step, nats per token; None for other modes."""

    peak_allocated_bytes: int | None
    """Of CUDA memory, over the timed steps; None on CPU."""

    peak_reserved_bytes: int | None
    peak_rss_bytes: int | None
    """Of the process, since it started."""

    seconds: tuple[float, ...]
    """Each timed step, in order."""

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all time."""
        return self.batch_tokens * len(self.seconds) / sum(self.seconds)

    @property
    def flop_per_s(self) -> float:
        """All FLOPs over all time."""
        return self.flops * len(self.seconds) / sum(self.seconds)

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, self.label, self.batch_tokens, self.mode, self.precision)


CELL_COLUMNS = [f.name for f in dataclasses.fields(CellRecord) if f.name != "seconds"]
KEY_COLUMNS = ["repeat", "label", "batch_tokens", "mode", "precision"]
SAMPLE_COLUMNS = [*KEY_COLUMNS, "step", "seconds"]


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Text of a CSV file; None is an empty field, floats keep every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def cells_csv(records: Iterable[CellRecord]) -> str:
    """One row a record, without its samples."""
    return to_csv(CELL_COLUMNS, ([getattr(r, name) for name in CELL_COLUMNS] for r in records))


def samples_csv(records: Iterable[CellRecord]) -> str:
    """One row a timed step."""
    rows = ((*r.key, step, s) for r in records for step, s in enumerate(r.seconds))
    return to_csv(SAMPLE_COLUMNS, rows)


def read_records(cells: str, samples: str) -> list[CellRecord]:
    """The records whose two CSV texts these are; samples of no cell are left out."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for row in csv.DictReader(io.StringIO(samples)):
        seconds.setdefault(tuple(row[k] for k in KEY_COLUMNS), []).append(float(row["seconds"]))
    return [
        from_json(
            {name: parse_field(_TYPES[name], text) for name, text in row.items()}
            | {"seconds": tuple(seconds.get(tuple(row[k] for k in KEY_COLUMNS), ()))}
        )
        for row in csv.DictReader(io.StringIO(cells))
    ]


def from_json(values: dict[str, Any]) -> CellRecord:
    """The record that `dataclasses.asdict` took apart."""
    return CellRecord(**values | {"seconds": tuple(values["seconds"])})


def types_of(record: Any) -> dict[str, str]:
    """What each field of a class of records holds, in the words of its annotation."""
    return {f.name: str(f.type) for f in dataclasses.fields(record)}


_TYPES = types_of(CellRecord)


def parse_field(kind: str, text: str) -> Any:
    """The value of a CSV field, by the type of the record's field."""
    if "None" in kind and text == "":
        return None
    if "bool" in kind:
        return json.loads(text.lower())
    if "int" in kind:
        return int(text)
    if "float" in kind:
        return float(text)
    return text
