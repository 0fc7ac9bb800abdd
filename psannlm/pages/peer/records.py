"""What a comparison with the published package is asked to do and leaves: records, their files.

What was not or could not be measured is None, or empty; a failure is a record too.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from psannlm.config.schema import AnyOf, OneOrMore, Rule, Text, Tokens, multiple_of
from psannlm.config.training import ProcessSettings
from psannlm.evidence import store
from psannlm.evidence import table as shared
from psannlm.evidence.store import RecordStore, TimedRecords, about, of_type
from psannlm.evidence.table import Column, Table
from psannlm.files import MIB

OURS, AGAIN, PUBLISHED = "ours", "ours (again)", "published"
SIDES = (OURS, AGAIN, PUBLISHED)  # again: the same once more, for the noise floor
SAVED = "saved"  # the work that is counted, not timed
ROW = ("base", "setting", "work", "precision")  # what records that are compared have in common

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
N_PARAMETERS = Column("n_parameters", "Parameters of the network.", "", "parameters", ",.0f")
SAVED_BYTES = about(
    "Counted bytes that a training step saves for backward, parameters left out.", "bytes"
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
    "value", "What was measured; empty where the device has no such number.", "", "value", ",.5g"
)


class PeerConfig(ProcessSettings):
    """Everything that notebooks/peer.ipynb may vary."""

    peer: Text  # the published package by name and version, such as `psannlm==2.0.1`
    base: OneOrMore[Text]  # of the same name in both packages
    batch_tokens: Tokens  # of a step, B * T with T = context_length
    work: OneOrMore[Literal["forward", "train_step", "generate", "saved"]]  # saved for backward
    setting: OneOrMore[Literal["defaults", "best"]]  # as it comes, or with its fastest choices
    prompt_tokens: Tokens  # of generation, given
    new_tokens: Tokens  # of generation, made one after the other
    protocol_batch_tokens: AnyOf[Tokens]  # of the original's own protocol; none leaves it out

    rules: ClassVar[tuple[Rule, ...]] = (
        *ProcessSettings.rules,
        multiple_of("batch_tokens", "context_length"),
        Rule(
            ("prompt_tokens", "new_tokens", "context_length"),
            lambda prompt, new, context: prompt + new <= context,
            "prompt_tokens and new_tokens must fit in context_length, got {}, {} and {}",
        ),
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
    choices: Annotated[str, CHOICES] = ""
    n_parameters: Annotated[int | None, N_PARAMETERS] = None
    tokens: Annotated[int, about("Of one timed step, or new ones of one generation.", "tokens")] = 0
    seconds: Annotated[tuple[float, ...], about("Time of the step.", "s")] = ()
    saved_bytes: Annotated[int | None, SAVED_BYTES] = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, self.side, *self.row)

    @property
    def row(self) -> tuple[Any, ...]:
        """Names the rows of the table that it is behind, one a side."""
        return tuple(getattr(self, name) for name in ROW)

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
COMPARED = TimedRecords(
    PeerCell, ("repeat", "side", *ROW), "One row a process and work, failed ones with the reason."
)
CELLS = COMPARED.cells.file
PROTOCOL_RECORDS = Table(
    "protocol_records.csv",
    "One row a process of the original's own protocol and measure.",
    store.columns_of(ProtocolCell),
)


def to_texts(records: Sequence[AnyCell]) -> dict[str, str]:
    """The comparison as two files, the protocol as a third."""
    protocol = store.records_csv(PROTOCOL_RECORDS, of_type(ProtocolCell, records))
    return COMPARED.texts(of_type(PeerCell, records)) | {PROTOCOL_RECORDS.file: protocol}


def from_texts(texts: Mapping[str, str]) -> list[AnyCell]:
    """The records whose files these are."""
    protocol = store.fields_of_csv(ProtocolCell, texts[PROTOCOL_RECORDS.file])
    return [*COMPARED.records(texts), *(ProtocolCell(**fields) for fields in protocol)]


STORE: RecordStore[AnyCell] = RecordStore(
    (COMPARED.samples, COMPARED.cells, PROTOCOL_RECORDS),
    to_texts,
    from_texts,
    lambda record: _named(record.key),
)


def problems(records: Sequence[AnyCell], config: PeerConfig) -> Iterator[str]:
    """What no comparison could have left, or nobody asked for: file, record and rule."""
    cells, protocol = of_type(PeerCell, records), of_type(ProtocolCell, records)
    named = (config.base, config.setting, config.work, config.precision)
    wanted = set(product(range(config.n_repeats), SIDES, *named))
    there = {cell.key for cell in cells}
    for key in sorted(wanted ^ there):
        missing = f"no row for {_named(key)}, which was asked for"
        yield f"{CELLS}: {missing if key in wanted else f'{_named(key)} was not asked for'}"
    for record in cells:
        for problem in impossible(record, config):
            yield f"{CELLS}: {_named(record.key)}: {problem}"
    for problem in _protocol_problems(protocol, config):
        yield f"{PROTOCOL_RECORDS.file}: {problem}"


def impossible(record: PeerCell, config: PeerConfig) -> Iterator[str]:
    """What no process could have left."""
    if (record.batch_tokens, record.context_length) != (config.batch_tokens, config.context_length):
        yield "its shape is not that of the run"
    if (record.status == "failed") != bool(record.reason):
        yield f"status {record.status} with reason {record.reason!r}"
    if not all(math.isfinite(second) and second > 0 for second in record.seconds):
        yield "seconds must be finite and positive"
    if record.status == "failed":
        return
    n_tokens = config.new_tokens if record.work == "generate" else config.batch_tokens
    if record.tokens != n_tokens:
        yield f"tokens is {record.tokens}, a step has {n_tokens}"
    if record.work == SAVED and not (record.saved_bytes and record.saved_bytes > 0):
        yield f"saved_bytes must be positive, got {record.saved_bytes!r}"
    if record.work != SAVED and not record.seconds:
        yield "no step was timed, and yet it did not fail"


def _protocol_problems(protocol: Sequence[ProtocolCell], config: PeerConfig) -> Iterator[str]:
    """Both sides stand there with the same measures, if there is a protocol at all."""
    if bool(protocol) != bool(config.protocol_batch_tokens):
        yield f"{len(protocol)} records, which is not what was asked for"
    there = {cell.key for cell in protocol}
    for measure in dict.fromkeys(cell.key[1:] for cell in protocol):
        for side in (OURS, PUBLISHED):
            if (side, *measure) not in there:
                yield f"no row of {side} for {_named(measure)}"
    for cell in protocol:
        value = cell.value
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield f"{_named(cell.key)}: value must be finite and at least 0, got {value!r}"
        has_reason = bool(cell.reason)
        if has_reason != (value is None) or (cell.status == "failed" and not has_reason):
            yield f"{_named(cell.key)}: {value!r}, status {cell.status}, has reason {cell.reason!r}"


def _named(key: Iterable[object]) -> str:
    return ", ".join(map(str, key))
