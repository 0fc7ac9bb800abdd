"""What the throughput page is asked to measure and what it leaves: a record a process and mode."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from psannlm.config.schema import OneOrMore, Text
from psannlm.config.training import BatchSettings
from psannlm.evidence import table as shared
from psannlm.evidence.store import RecordStore, TimedRecords, about
from psannlm.evidence.table import Column

LABEL = Column(
    "label", "Name in tables, the base but for the second measurement of the baseline.", "", "base"
)
MODE = Column(
    "mode",
    "What was timed, forward or train_step; matmul is the ceiling.",
    heading="mode",
    words={"forward": "forward", "train_step": "training step"},
    role="key",
)

CEILING = "matmul"  # mode and base of the records that tell what the device can do at most
ROW = ("label", "batch_tokens", "mode", "precision")  # common to the records behind one row


class ThroughputConfig(BatchSettings):
    """Everything that notebooks/throughput.ipynb may vary."""

    baseline: Text  # base that every ratio is taken against; measured twice, for the noise floor
    mode: OneOrMore[Literal["forward", "train_step"]]
    compile: bool


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One mode of one cell, measured in one fresh process; a failure is a record too."""

    repeat: Annotated[int, shared.REPEAT]
    order: Annotated[int, shared.ORDER]
    label: Annotated[str, LABEL]
    base: Annotated[str, shared.BASE]
    batch_tokens: Annotated[int, shared.BATCH_TOKENS]
    context_length: Annotated[int, shared.CONTEXT_LENGTH]
    mode: Annotated[str, MODE]
    precision: Annotated[str, shared.PRECISION]
    compiled: Annotated[bool, shared.COMPILED] = False
    frames: Annotated[int | None, shared.FRAMES] = None
    graph_breaks: Annotated[int | None, shared.GRAPH_BREAKS] = None
    eager: Annotated[str, shared.EAGER] = ""
    status: Annotated[Literal["ok", "failed"], shared.STATUS]
    reason: Annotated[str, shared.REASON]
    started_at: Annotated[str, shared.STARTED_AT]
    flops: Annotated[int, about("Matrix products of one step.", "FLOP")] = 0
    compile_seconds: Annotated[
        float | None, about("First call less a steady one; empty without compilation.", "s")
    ] = None
    n_warmup: Annotated[int, about("Steps before the timed ones.")] = 0
    steady: Annotated[
        bool, about("Whether the time of a step had settled before the timed ones.")
    ] = False
    loss: Annotated[
        float | None, about("Of the last training step; empty in other modes.", "nats/token")
    ] = None
    peak_allocated_bytes: Annotated[int | None, shared.PEAK_ALLOCATED_BYTES] = None
    peak_reserved_bytes: Annotated[int | None, shared.PEAK_RESERVED_BYTES] = None
    peak_rss_bytes: Annotated[int | None, shared.PEAK_RSS_BYTES] = None
    seconds: Annotated[tuple[float, ...], about("Time of the step.", "s")] = ()

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all time."""
        return self.batch_tokens * len(self.seconds) / sum(self.seconds)

    @property
    def flop_per_s(self) -> float:
        """All FLOPs over all time."""
        return self.flops * len(self.seconds) / sum(self.seconds)

    @property
    def row(self) -> tuple[Any, ...]:
        """Names the row of the table that it is behind."""
        return tuple(getattr(self, name) for name in ROW)

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, *self.row)


FILES = TimedRecords(CellRecord, ("repeat", *ROW), "One row a process and mode.")
STORE = RecordStore(
    (FILES.samples, FILES.cells), FILES.texts, FILES.records, lambda record: record.label
)
