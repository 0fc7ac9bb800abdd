"""What the memory page is asked to measure and what it leaves: a record a process, its files."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from psannlm.config.schema import AnyOf, Length, Rule, Tokens
from psannlm.config.training import BatchSettings
from psannlm.evidence import store
from psannlm.evidence import table as shared
from psannlm.evidence.store import about, of_type
from psannlm.evidence.table import Column, Table
from psannlm.pages.peer.records import SAVED_BYTES

DEFAULT, PLAIN_SINE, PLAIN_LOSS = "default", "plain_sine", "plain_loss"

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
    words={DEFAULT: "", PLAIN_SINE: "plain sine", PLAIN_LOSS: "plain loss"},
    role="key",
)
N_PARAMETERS = Column("n_parameters", "Parameters of the network.")
D_MODEL = Column("d_model", "Width of the residual stream.", "features")
N_LAYERS = Column("n_layers", "Blocks of the network.")
VOCAB_SIZE = Column("vocab_size", "Tokens that the vocabulary has.")
SAVED_KINDS = about("What was counted as saved for backward, by dtype and shape.", "bytes")
RSS_BEFORE_BYTES = Column(
    "rss_before_bytes", "Resident set before the network was built, on a CPU.", "bytes"
)
PREDICTED = about(
    "By construction, of parameters, gradients, optimizer, logits, peak, kinds of saved tensors.",
    "bytes",
)


class MemoryConfig(BatchSettings):
    """Everything that notebooks/memory.ipynb may vary.

    Bases are compared at the first of `batch_tokens`; all of them together make a curve.
    """

    contexts: AnyOf[Length]  # beside context_length, for a curve at the first of batch_tokens
    variants: AnyOf[Literal["plain_sine", "plain_loss"]]  # paths measured beside the default ones
    loss_chunk_tokens: Tokens  # tokens whose logits exist at one time
    peer: str  # published package measured beside, such as `psannlm==2.0.1`; empty for none

    rules: ClassVar[tuple[Rule, ...]] = (
        *BatchSettings.rules,
        Rule(
            ("grad_checkpoint",),
            lambda on: not on,
            "grad_checkpoint is not a parameter here: off and on are both measured, got {}",
        ),
        Rule(
            ("batch_tokens", "contexts"),
            lambda tokens, contexts: all(tokens[0] % context == 0 for context in contexts),
            "the first of batch_tokens must be a multiple of all contexts, got {} and {}",
        ),
    )


class Setting(NamedTuple):
    """What is measured; repeats of a row have it in common."""

    base: str
    context_length: int
    batch_tokens: int
    grad_checkpoint: bool
    precision: str
    variant: str

    def __str__(self) -> str:
        return (
            f"{self.base}, {self.precision}, {self.batch_tokens} tokens at {self.context_length}, "
            f"checkpointing {'on' if self.grad_checkpoint else 'off'}"
            f"{'' if self.variant == DEFAULT else f', {self.variant}'}"
        )


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
    rss_before_bytes: Annotated[int | None, RSS_BEFORE_BYTES] = None
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


def to_texts(records: Sequence[AnyRecord]) -> dict[str, str]:
    """Timed steps as a table, which are in the records too; all records, each in a line."""
    ours, peers = of_type(MemoryRecord, records), of_type(PeerRecord, records)
    return {
        SAMPLES.file: store.samples_csv(SAMPLES, ours),
        PEERS.file: store.to_json_lines(map(asdict, peers)),
        RECORDS.file: store.to_json_lines(map(asdict, ours)),
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


def main_settings(config: MemoryConfig) -> list[Setting]:
    """Every base, checkpointing off and on, in every precision, at the first batch."""
    place = config.context_length, config.batch_tokens[0]
    wanted = product(config.base, (False, True), config.precision)
    return [Setting(base, *place, on, precision, DEFAULT) for base, on, precision in wanted]


def problems(records: Sequence[AnyRecord], config: MemoryConfig) -> Iterator[str]:
    """What is wrong with the records of a run, or lacks of what was asked for."""
    ours = of_type(MemoryRecord, records)
    for record in ours:
        for problem in impossible(record):
            yield f"{RECORDS.file}: block {record.repeat}, {record.setting}: {problem}"
    for peer in of_type(PeerRecord, records):
        for problem in _kinds(peer):
            yield f"{PEERS.file}: {peer.precision}: {problem}"
    measured = {record.setting for record in ours}
    for setting in main_settings(config):
        if setting not in measured:
            yield f"memory.json: no row for {setting}, which was asked for"


def impossible(record: MemoryRecord) -> Iterator[str]:
    """What no machine could have measured; nothing of a process that can be."""
    weights = 4 * record.n_parameters  # float32, whatever precision products are in
    if record.predicted["parameters"] != weights:
        yield f"predicted parameters are {record.predicted['parameters']} bytes, not {weights}"
    if record.status != "ok":
        return
    if not record.seconds or not all(0 < s < math.inf for s in record.seconds):
        yield f"seconds must be positive and finite, got {record.seconds}"
    yield from _kinds(record)
    held = weights + (record.saved_bytes or 0)
    at_least = [
        ("peak_allocated_bytes", "parameters", weights),
        ("peak_allocated_bytes", "parameters and saved tensors", held),
        ("peak_reserved_bytes", "peak_allocated_bytes", record.peak_allocated_bytes),
        ("peak_rss_bytes", "rss_before_bytes", record.rss_before_bytes),
    ]
    if record.peak_reserved_bytes is None:  # on a CPU
        at_least.append(("peak_rss_bytes", "parameters", weights))
    for name, what, bound in at_least:
        value = getattr(record, name)
        if value is not None and bound is not None and value < bound:
            yield f"{name} is {value}, less than the {bound} bytes of {what}"


def _kinds(record: AnyRecord) -> Iterator[str]:
    total = sum(record.saved_kinds.values())
    if record.saved_kinds and total != record.saved_bytes:
        yield f"saved_kinds are {total} bytes together, saved_bytes is {record.saved_bytes}"
