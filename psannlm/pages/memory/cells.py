"""How a run folder keeps what was measured of memory."""

from collections.abc import Sequence

from psannlm.evidence.cells import RecordStore
from psannlm.pages.memory.records import MemoryRecord, read_records, records_json
from psannlm.pages.throughput.records import to_csv

SAMPLES = (
    "repeat", "base", "context_length", "batch_tokens", "grad_checkpoint", "precision", "variant",
    "step", "seconds",
)  # fmt: skip

PEERS = "peer_records.json"
"""The file of what was counted of the published package."""


def samples_csv(records: Sequence[MemoryRecord]) -> str:
    """One row a timed step."""
    rows = ((*r.key, step, s) for r in records for step, s in enumerate(r.seconds))
    return to_csv(SAMPLES, rows)


MEMORY = RecordStore[MemoryRecord](
    ("samples.csv", "memory_records.json"),
    lambda records: (samples_csv(records), records_json(records)),
    lambda _, records: read_records(records),
    lambda record: f"{record.base}, {record.precision}",
)
"""Of the memory page; the timed steps are in both files, in one of them as a table."""
