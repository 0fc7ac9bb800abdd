"""What a comparison with the published package leaves: frozen records, and their CSV files.

What was not or could not be measured is None, or empty; a failure is a record too.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from psannlm.evidence import table as shared
from psannlm.evidence.store import RecordStore, about, columns_of, parse_field, to_csv, types_of
from psannlm.evidence.table import Column, Table
from psannlm.files import MIB

OURS, AGAIN, PUBLISHED = "ours", "ours (again)", "published"
SIDES = (OURS, AGAIN, PUBLISHED)
"""Our network, the same once more for the noise floor, and that of the published package."""

SAVED = "saved"
"""The work that is counted, not timed."""

SIDE = Column(
    "side", "Ours, ours once more for the noise floor, or published.", heading="side", role="key"
)
PROTOCOL_SIDE = SIDE.but(text="ours or published.")
SETTING = Column(
    "setting",
    "Each package by its defaults, or best, with the fastest choices that it offers.",
    heading="setting",
    role="key",
)
WORK = Column(
    "work",
    "What was measured, forward, train_step, generate or saved.",
    heading="mode",
    words={
        "forward": "forward",
        "train_step": "training step",
        "generate": "generation",
        SAVED: "saved for backward",
    },
    role="key",
)
CHOICES = Column("choices", "What the setting chose, in words.")
N_PARAMETERS = Column(
    "n_parameters", "Parameters of the network.", heading="parameters", format=",.0f"
)
CHECK = Column("check", "Name of the check, GPU-01 to GPU-08.", heading="check", role="key")
MEASURE = Column(
    "measure",
    "Name of the measure, as the protocol names it.",
    heading="measure",
    words={
        "rel_diff": "relative difference of losses",
        "tokens_per_s": "speed",
        "max_allocated_mib": "peak allocated",
        "max_reserved_mib": "peak reserved",
        "saved_mib": WORK.show(SAVED),
        "elapsed_s": "time of a step",
    },
    role="key",
)
PROTOCOL_VALUE = Column(
    "value",
    "What was measured; empty where the device has no such number.",
    heading="value",
    format=",.5g",
)


@dataclass(frozen=True, kw_only=True)
class PeerCell:
    """One kind of work of one side in one fresh process."""

    repeat: Annotated[int, shared.REPEAT]
    order: Annotated[int, shared.ORDER]
    side: Annotated[str, SIDE]
    base: Annotated[str, shared.BASE]
    setting: Annotated[str, SETTING]
    work: Annotated[str, WORK]
    precision: Annotated[str, shared.PRECISION]
    batch_tokens: Annotated[int, shared.BATCH_TOKENS]
    context_length: Annotated[int, shared.CONTEXT_LENGTH]
    status: Annotated[Literal["ok", "failed"], shared.STATUS]
    reason: Annotated[str, shared.REASON]
    started_at: Annotated[str, shared.STARTED_AT]
    choices: Annotated[str, CHOICES]
    n_parameters: Annotated[int | None, N_PARAMETERS]
    tokens: Annotated[int, about("Of one timed step, or new ones of one generation.", "tokens")]
    seconds: Annotated[tuple[float, ...], about("Time of the step.", "s")]
    saved_bytes: Annotated[
        int | None,
        about(
            "Counted bytes that a training step saves for backward, parameters left out.", "bytes"
        ),
    ]

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, self.side, *self.row)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """What the records that are compared with one another have in common."""
        return (self.base, self.setting, self.work, self.precision)

    @property
    def amount(self) -> float:
        """Tokens/s, all tokens over all time; of bytes saved for backward, MiB."""
        if self.work == SAVED:
            return (self.saved_bytes or 0) / MIB
        return self.tokens * len(self.seconds) / sum(self.seconds)


@dataclass(frozen=True, kw_only=True)
class ProtocolCell:
    """What one side gives under the original's own protocol, in one fresh process."""

    side: Annotated[str, PROTOCOL_SIDE]
    check: Annotated[Literal["GPU-02", "GPU-03", "GPU-04"], CHECK]
    base: Annotated[str, shared.BASE]
    batch_tokens: Annotated[int, shared.BATCH_TOKENS]
    context_length: Annotated[int, shared.CONTEXT_LENGTH]
    measure: Annotated[str, MEASURE]
    value: Annotated[float | None, PROTOCOL_VALUE]
    status: Annotated[Literal["ok", "failed"], shared.STATUS]
    reason: Annotated[str, shared.REASON]
    started_at: Annotated[str, shared.STARTED_AT]

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.side, self.check, self.base, self.batch_tokens, self.measure)


AnyCell = PeerCell | ProtocolCell

KEY = ("repeat", "side", "base", "setting", "work", "precision")
_COLUMNS = {column.name: column for column in columns_of(PeerCell)}
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
    "One row a process and work, failed ones with the reason.",
    tuple(column for name, column in _COLUMNS.items() if name != "seconds"),
)
PROTOCOL_RECORDS = Table(
    "protocol_records.csv",
    "One row a process of the original's own protocol and measure.",
    columns_of(ProtocolCell),
)


def compared(records: Iterable[AnyCell]) -> list[PeerCell]:
    """Those of the comparison."""
    return [record for record in records if isinstance(record, PeerCell)]


def repeated(records: Iterable[AnyCell]) -> list[ProtocolCell]:
    """Those of the original's own protocol."""
    return [record for record in records if isinstance(record, ProtocolCell)]


def to_texts(records: Sequence[AnyCell]) -> dict[str, str]:
    """The timed steps as one file, all else of the comparison as another, the protocol a third."""
    cells = compared(records)
    steps = ((*r.key, step, s) for r in cells for step, s in enumerate(r.seconds))
    return {
        SAMPLES.file: to_csv(SAMPLES.names, steps),
        CELLS.file: _csv(CELLS, cells),
        PROTOCOL_RECORDS.file: _csv(PROTOCOL_RECORDS, repeated(records)),
    }


def from_texts(texts: Mapping[str, str]) -> list[AnyCell]:
    """The records whose files these are; samples of no cell are left out."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for row in _rows(texts[SAMPLES.file]):
        seconds.setdefault(tuple(row[k] for k in KEY), []).append(float(row["seconds"]))
    cells: list[AnyCell] = [
        PeerCell(
            **_parsed(PeerCell, row),
            seconds=tuple(seconds.get(tuple(row[k] for k in KEY), ())),
        )
        for row in _rows(texts[CELLS.file])
    ]
    protocol = _rows(texts[PROTOCOL_RECORDS.file])
    return cells + [ProtocolCell(**_parsed(ProtocolCell, row)) for row in protocol]


def _csv(table: Table, records: Iterable[AnyCell]) -> str:
    return to_csv(table.names, ([getattr(r, name) for name in table.names] for r in records))


def _rows(text: str) -> Iterable[dict[str, str]]:
    return csv.DictReader(io.StringIO(text))


def _parsed(record: type, row: Mapping[str, str]) -> dict[str, Any]:
    kinds = types_of(record)
    return {name: parse_field(kinds[name], text) for name, text in row.items()}


STORE: RecordStore[AnyCell] = RecordStore(
    (SAMPLES, CELLS, PROTOCOL_RECORDS),
    to_texts,
    from_texts,
    lambda record: ", ".join(map(str, record.key)),
)
