"""What no comparison could have left: records that are impossible, or that nobody asked for."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.records import (
    CELLS,
    OURS,
    PROTOCOL_RECORDS,
    PUBLISHED,
    SAVED,
    SIDES,
    AnyCell,
    PeerCell,
    ProtocolCell,
    compared,
    repeated,
)


def problems(records: Iterable[AnyCell], config: PeerConfig) -> Iterator[str]:
    """What is wrong with the records of a complete run: file, record and rule."""
    records = list(records)
    cells, protocol = compared(records), repeated(records)
    yield from _requested(cells, config)
    yield from _both_sides(protocol, config)
    for record in cells:
        for problem in impossible(record, config):
            yield f"{CELLS.file}: {_named(record.key)}: {problem}"
    for cell in protocol:
        where = f"{PROTOCOL_RECORDS.file}: {_named(cell.key)}"
        if cell.value is not None and not (math.isfinite(cell.value) and cell.value >= 0):
            yield f"{where}: value must be finite and at least 0, got {cell.value!r}"
        is_unknown = cell.value is None
        if is_unknown != bool(cell.reason) or (cell.status == "failed" and not is_unknown):
            yield f"{where}: {cell.value!r}, status {cell.status}, has reason {cell.reason!r}"


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


def _requested(cells: Sequence[PeerCell], config: PeerConfig) -> Iterator[str]:
    """Each side does each work with each base, setting and precision in each block."""
    named = (config.base, config.setting, config.work, config.precision)
    wanted = set(product(range(config.n_repeats), SIDES, *named))
    there = {cell.key for cell in cells}
    for key in sorted(wanted - there):
        yield f"{CELLS.file}: no row for {_named(key)}, which was asked for"
    for key in sorted(there - wanted):
        yield f"{CELLS.file}: {_named(key)} was not asked for"


def _both_sides(protocol: Sequence[ProtocolCell], config: PeerConfig) -> Iterator[str]:
    """Both sides stand there with the same measures, if there is a protocol at all."""
    if bool(protocol) != bool(config.protocol_batch_tokens):
        n = len(protocol)
        yield f"{PROTOCOL_RECORDS.file}: {n} records, which is not what was asked for"
    there = {cell.key for cell in protocol}
    for measure in dict.fromkeys(cell.key[1:] for cell in protocol):
        for side in (OURS, PUBLISHED):
            if (side, *measure) not in there:
                yield f"{PROTOCOL_RECORDS.file}: no row of {side} for {_named(measure)}"


def _named(key: Iterable[object]) -> str:
    return ", ".join(map(str, key))
