"""Records of the comparison with the published package as CSV files, and read back."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from typing import Any

from psannlm.pages.peer.cells import PeerCell, ProtocolCell
from psannlm.pages.throughput.records import parse_field, to_csv, types_of

CELL_COLUMNS = [f.name for f in dataclasses.fields(PeerCell) if f.name != "seconds"]
KEY_COLUMNS = ["repeat", "side", "base", "setting", "work", "precision"]
SAMPLE_COLUMNS = [*KEY_COLUMNS, "step", "seconds"]
PROTOCOL_COLUMNS = [f.name for f in dataclasses.fields(ProtocolCell)]


def cells_csv(records: Iterable[PeerCell]) -> str:
    """One row a process and work, without its samples."""
    return to_csv(CELL_COLUMNS, (_values(record, CELL_COLUMNS) for record in records))


def samples_csv(records: Iterable[PeerCell]) -> str:
    """One row a timed step."""
    rows = ((*r.key, step, s) for r in records for step, s in enumerate(r.seconds))
    return to_csv(SAMPLE_COLUMNS, rows)


def read_cells(samples: str, cells: str) -> list[PeerCell]:
    """The records whose two CSV texts these are; samples of no cell are left out."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for row in csv.DictReader(io.StringIO(samples)):
        seconds.setdefault(tuple(row[k] for k in KEY_COLUMNS), []).append(float(row["seconds"]))
    return [
        PeerCell(
            **_parsed(row, PeerCell),
            seconds=tuple(seconds.get(tuple(row[k] for k in KEY_COLUMNS), ())),
        )
        for row in csv.DictReader(io.StringIO(cells))
    ]


def protocol_csv(records: Iterable[ProtocolCell]) -> str:
    """One row a measure of the original's protocol."""
    return to_csv(PROTOCOL_COLUMNS, (_values(record, PROTOCOL_COLUMNS) for record in records))


def read_protocol(text: str) -> list[ProtocolCell]:
    """The records whose CSV text this is."""
    rows = csv.DictReader(io.StringIO(text))
    return [ProtocolCell(**_parsed(row, ProtocolCell)) for row in rows]


def _values(record: Any, columns: Iterable[str]) -> list[Any]:
    return [getattr(record, name) for name in columns]


def _parsed(row: dict[str, str], record: type[Any]) -> dict[str, Any]:
    kinds = types_of(record)
    return {name: parse_field(kinds[name], text) for name, text in row.items()}
