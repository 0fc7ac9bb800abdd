"""How a run folder keeps what was measured beside the published package."""

from collections.abc import Sequence

from psannlm.evidence.cells import RecordStore
from psannlm.pages.peer.cells import PeerCell
from psannlm.pages.peer.records import cells_csv, read_cells, samples_csv

PROTOCOL_RECORDS = "protocol_records.csv"
"""The file of what the original's own protocol gave."""


def _texts(records: Sequence[PeerCell]) -> tuple[str, str]:
    return samples_csv(records), cells_csv(records)


PEERS = RecordStore[PeerCell](
    ("samples.csv", "cells.csv"),
    _texts,
    read_cells,
    lambda record: f"{record.side}, {record.base}, {record.setting}, {record.precision}",
)
"""Of the comparison with the published package."""
