"""What a measurement of memory leaves: one frozen record a process, and its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from psannlm.evidence import store
from psannlm.evidence import table as shared
from psannlm.evidence.store import about
from psannlm.evidence.table import Column, Table

GRAD_CHECKPOINT = Column(
    "grad_checkpoint",
    "Whether only the input of each block was saved for backward.",
    heading="checkpointing",
    words={False: "not checkpointed", True: "checkpointed"},
    role="key",
)
VARIANT = Column(
    "variant",
    "default, or the plain path taken instead, plain_sine or plain_loss.",
    heading="variant",
    words={"default": "", "plain_sine": "plain sine", "plain_loss": "plain loss"},
    role="key",
)
N_PARAMETERS = Column("n_parameters", "Parameters of the network.")
D_MODEL = Column("d_model", "Width of the residual stream.", "features")
N_LAYERS = Column("n_layers", "Blocks of the network.")
VOCAB_SIZE = Column("vocab_size", "Tokens that the vocabulary has.")
SAVED_BYTES = about(
    "Counted bytes that a training step saves for backward, parameters left out.", "bytes"
)
SAVED_KINDS = about("What was counted as saved for backward, by dtype and shape.", "bytes")
PREDICTED = about(
    "By construction, of parameters, gradients, optimizer, logits, peak, kept kinds.", "bytes"
)


class Setting(NamedTuple):
    """What is measured; repeats of a row have it in common."""

    base: str
    context_length: int
    batch_tokens: int
    grad_checkpoint: bool
    precision: str
    variant: str


@dataclass(frozen=True, kw_only=True)
class MemoryRecord:
    """Whole training steps of one network in one fresh process; a failure is a record too.

    Bytes that were not or could not be measured are None.
    """

    repeat: Annotated[int, shared.REPEAT]
    order: Annotated[int, shared.ORDER]
    base: Annotated[str, shared.BASE]
    context_length: Annotated[int, shared.CONTEXT_LENGTH]
    batch_tokens: Annotated[int, shared.BATCH_TOKENS]
    grad_checkpoint: Annotated[bool, GRAD_CHECKPOINT]
    precision: Annotated[str, shared.PRECISION]
    variant: Annotated[str, VARIANT]
    status: Annotated[Literal["ok", "failed"], shared.STATUS]
    reason: Annotated[str, shared.REASON]
    started_at: Annotated[str, shared.STARTED_AT]
    n_parameters: Annotated[int, N_PARAMETERS]
    predicted: Annotated[Mapping[str, int], PREDICTED]
    saved_bytes: Annotated[int | None, SAVED_BYTES] = None
    saved_kinds: Annotated[Mapping[str, int], SAVED_KINDS] = field(default_factory=dict)
    peak_allocated_bytes: Annotated[int | None, shared.PEAK_ALLOCATED_BYTES] = None
    peak_reserved_bytes: Annotated[int | None, shared.PEAK_RESERVED_BYTES] = None
    rss_before_bytes: Annotated[
        int | None, about("Resident set before the network was built, on a CPU.", "bytes")
    ] = None
    peak_rss_bytes: Annotated[int | None, shared.PEAK_RSS_BYTES] = None
    loss: Annotated[float | None, about("Of the last step.", "nats/token")] = None
    seconds: Annotated[tuple[float, ...], about("Time of each timed step, in order.", "s")] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, *self.setting)

    @property
    def setting(self) -> Setting:
        """What its row is about."""
        return Setting(*(getattr(self, name) for name in Setting._fields))


@dataclass(frozen=True, kw_only=True)
class PeerRecord:
    """What a training step of the published package saves for backward; a failure is one too."""

    package: Annotated[str, about("The published package, by name.")]
    version: Annotated[str, about("Version of the published package.")]
    base: Annotated[str, shared.BASE]
    vocab_size: Annotated[int, VOCAB_SIZE]
    d_model: Annotated[int, D_MODEL]
    n_layers: Annotated[int, N_LAYERS]
    n_heads: Annotated[int, about("Attention heads of a layer.")]
    d_mlp: Annotated[int, about("Width of the hidden layer of the MLP.", "features")]
    context_length: Annotated[int, shared.CONTEXT_LENGTH]
    batch_tokens: Annotated[int, shared.BATCH_TOKENS]
    precision: Annotated[str, shared.PRECISION]
    status: Annotated[Literal["ok", "failed"], shared.STATUS]
    reason: Annotated[str, shared.REASON]
    started_at: Annotated[str, shared.STARTED_AT]
    n_parameters: Annotated[int | None, N_PARAMETERS]
    saved_bytes: Annotated[int | None, SAVED_BYTES]
    saved_kinds: Annotated[Mapping[str, int], SAVED_KINDS]

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.package, self.version, self.precision)


AnyRecord = MemoryRecord | PeerRecord

SAMPLES = store.samples_table(MemoryRecord, ("repeat", *Setting._fields))
PEERS = Table(
    "peer_records.json", "What was counted of the published package.", store.columns_of(PeerRecord)
)
RECORDS = Table(
    "memory_records.json",
    "One record a process, all that was counted, measured and predicted.",
    store.columns_of(MemoryRecord),
)


def ours(records: Sequence[AnyRecord]) -> list[MemoryRecord]:
    """Those of this project's networks."""
    return [record for record in records if isinstance(record, MemoryRecord)]


def peers(records: Sequence[AnyRecord]) -> list[PeerRecord]:
    """Those of the published package."""
    return [record for record in records if isinstance(record, PeerRecord)]


def to_texts(records: Sequence[AnyRecord]) -> dict[str, str]:
    """Timed steps as a table, which are in the records too; all records, each in a line."""
    return {
        SAMPLES.file: store.samples_csv(SAMPLES, ours(records)),
        PEERS.file: store.to_json_lines(map(asdict, peers(records))),
        RECORDS.file: store.to_json_lines(map(asdict, ours(records))),
    }


def from_texts(texts: Mapping[str, str]) -> list[AnyRecord]:
    """The records whose files these are."""
    found: list[AnyRecord] = [
        MemoryRecord(**values | {"seconds": tuple(values["seconds"])})
        for values in json.loads(texts[RECORDS.file])
    ]
    return found + [PeerRecord(**values) for values in json.loads(texts[PEERS.file])]


STORE = store.RecordStore(
    (SAMPLES, PEERS, RECORDS), to_texts, from_texts, lambda r: f"{r.base}, {r.precision}"
)
