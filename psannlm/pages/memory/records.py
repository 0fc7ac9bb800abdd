"""What a measurement of memory leaves: one frozen record a process, and the JSON that keeps it."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class MemoryRecord:
    """Whole training steps of one network in one fresh process; a failure is a record too.

    Bytes that were not or could not be measured are None.
    """

    repeat: int
    """Number of the block that the process belongs to, from 0."""

    order: int
    """Position of the process in the run, from 0."""

    base: str
    context_length: int
    batch_tokens: int
    grad_checkpoint: bool
    precision: str
    variant: str
    """`default`, or the plain path that was taken instead: plain_sine, plain_loss."""

    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty otherwise."""

    started_at: str
    """UTC."""

    n_parameters: int
    predicted: Mapping[str, int]
    """Bytes by construction: parameters, gradients, optimizer, logits, peak, and `saved: KIND` of
    each kind of tensor that backward needs."""

    saved_bytes: int | None
    """Counted: of all storages, but those of parameters, that autograd keeps for backward."""

    saved_kinds: Mapping[str, int]
    """The same by shape and dtype, as a check on the prediction."""

    peak_allocated_bytes: int | None
    """Of the device's allocator over the counted steps, whole training step. On CPU that of
    torch's allocator, from its own record of every allocation."""

    peak_reserved_bytes: int | None
    """CUDA only."""

    rss_before_bytes: int | None
    """Resident set before the network was built, on CPU."""

    peak_rss_bytes: int | None
    """Resident set at its largest, of the process, since it started."""

    loss: float | None
    """Of the last step, nats per token."""

    seconds: tuple[float, ...]
    """Each timed step, in order."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, *self.setting)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What repeats of a row have in common."""
        return (
            self.base,
            self.context_length,
            self.batch_tokens,
            self.grad_checkpoint,
            self.precision,
            self.variant,
        )

    def as_json(self) -> dict[str, Any]:
        """For the file that keeps the run's records."""
        return dataclasses.asdict(self)


def from_json(values: Mapping[str, Any]) -> MemoryRecord:
    """The record that `as_json` took apart."""
    return MemoryRecord(**dict(values) | {"seconds": tuple(values["seconds"])})


def records_json(records: Iterable[MemoryRecord]) -> str:
    """A JSON list with a line for each record."""
    return _lines(record.as_json() for record in records)


def read_records(text: str) -> list[MemoryRecord]:
    """The records whose JSON this is."""
    return [from_json(values) for values in json.loads(text)]


@dataclass(frozen=True, kw_only=True)
class PeerRecord:
    """What a training step of the published package keeps for backward; a failure is one too."""

    package: str
    version: str
    base: str
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    context_length: int
    batch_tokens: int
    precision: str
    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty otherwise."""

    started_at: str
    """UTC."""

    n_parameters: int | None
    saved_bytes: int | None
    """Counted as a MemoryRecord's, by the same code, with the plain loss of the package's kind."""

    saved_kinds: Mapping[str, int]


def peers_json(peers: Iterable[PeerRecord]) -> str:
    """A JSON list with a line for each record."""
    return _lines(dataclasses.asdict(peer) for peer in peers)


def read_peers(text: str) -> list[PeerRecord]:
    """The records whose JSON this is."""
    return [PeerRecord(**values) for values in json.loads(text)]


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]\n"
