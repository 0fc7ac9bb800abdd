"""What a measurement of speed leaves: one frozen record a process and mode, and its CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from psannlm.evidence.store import (
    RecordStore,
    about,
    columns_of,
    parse_field,
    to_csv,
    types_of,
)
from psannlm.evidence.table import (
    BASE,
    BATCH_TOKENS,
    CONTEXT_LENGTH,
    ORDER,
    PEAK_ALLOCATED_BYTES,
    PEAK_RESERVED_BYTES,
    PEAK_RSS_BYTES,
    PRECISION,
    REASON,
    REPEAT,
    STARTED_AT,
    STATUS,
    Column,
    Table,
)

MODES = {"forward": "forward", "train_step": "training step"}
"""What people call a mode."""

LABEL = Column(
    "label",
    "Name in tables, the base but for the second measurement of the baseline.",
    heading="base",
)
MODE = Column(
    "mode",
    "What was timed, forward or train_step; matmul is the ceiling.",
    heading="mode",
    words=MODES,
    role="key",
)

CEILING = "matmul"
"""The mode, and the base, of the records that tell what the device can do at most."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One mode of one cell, measured in one fresh process; a failure is a record too."""

    repeat: Annotated[int, REPEAT]
    order: Annotated[int, ORDER]
    label: Annotated[str, LABEL]
    base: Annotated[str, BASE]
    batch_tokens: Annotated[int, BATCH_TOKENS]
    context_length: Annotated[int, CONTEXT_LENGTH]
    mode: Annotated[str, MODE]
    precision: Annotated[str, PRECISION]
    compiled: Annotated[bool, about("Whether the step was compiled.")]
    status: Annotated[Literal["ok", "failed"], STATUS]
    reason: Annotated[str, REASON]
    started_at: Annotated[str, STARTED_AT]
    flops: Annotated[int, about("Matrix products of one step.", "FLOP")]
    compile_seconds: Annotated[
        float | None, about("First call less a steady one; empty without compilation.", "s")
    ]
    n_warmup: Annotated[int, about("Steps before the timed ones.")]
    steady: Annotated[bool, about("Whether the time of a step had settled before the timed ones.")]
    loss: Annotated[
        float | None, about("Of the last training step; empty in other modes.", "nats/token")
    ]
    peak_allocated_bytes: Annotated[int | None, PEAK_ALLOCATED_BYTES]
    peak_reserved_bytes: Annotated[int | None, PEAK_RESERVED_BYTES]
    peak_rss_bytes: Annotated[int | None, PEAK_RSS_BYTES]
    seconds: Annotated[tuple[float, ...], about("Time of the step.", "s")]

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
        return (self.repeat, *self.row)

    @property
    def row(self) -> tuple[Any, ...]:
        """What the records behind one row of the table have in common."""
        return (self.label, self.batch_tokens, self.mode, self.precision)


KEY = ("repeat", "label", "batch_tokens", "mode", "precision")
TYPES = types_of(CellRecord)
_COLUMNS = {column.name: column for column in columns_of(CellRecord)}
SAMPLES = Table(
    "samples.csv",
    "One row a timed step.",
    (
        *(_COLUMNS[name] for name in KEY),
        Column("step", "Number of the timed step, from 0."),
        _COLUMNS["seconds"],
    ),
)
CELLS = Table(
    "cells.csv",
    "One row a process and mode.",
    tuple(column for name, column in _COLUMNS.items() if name != "seconds"),
)


def to_texts(records: Sequence[CellRecord]) -> dict[str, str]:
    """The timed steps as one file, everything else as another."""
    steps = ((*r.key, step, s) for r in records for step, s in enumerate(r.seconds))
    cells = ([getattr(r, name) for name in CELLS.names] for r in records)
    return {
        SAMPLES.file: to_csv(SAMPLES.names, steps),
        CELLS.file: to_csv(CELLS.names, cells),
    }


def from_texts(texts: Mapping[str, str]) -> list[CellRecord]:
    """The records whose files these are; samples of no cell are left out."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for row in csv.DictReader(io.StringIO(texts[SAMPLES.file])):
        seconds.setdefault(tuple(row[k] for k in KEY), []).append(float(row["seconds"]))
    return [
        CellRecord(
            **{name: parse_field(TYPES[name], text) for name, text in row.items()},
            seconds=tuple(seconds.get(tuple(row[k] for k in KEY), ())),
        )
        for row in csv.DictReader(io.StringIO(texts[CELLS.file]))
    ]


STORE = RecordStore((SAMPLES, CELLS), to_texts, from_texts, lambda record: record.label)
