"""What no machine could have measured of memory, whatever a file says."""

import math
from collections.abc import Iterator, Sequence

from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.plan import main_settings
from psannlm.pages.memory.records import (
    PEERS,
    RECORDS,
    AnyRecord,
    MemoryRecord,
    Setting,
    ours,
    peers,
)

PARAMETER_BYTES = 4
"""Weights are float32, whatever precision products are in."""


def problems(records: Sequence[AnyRecord], config: MemoryConfig) -> Iterator[str]:
    """What is wrong with the records of a run, or lacks of what was asked for."""
    for record in ours(records):
        for problem in impossible(record):
            yield f"{RECORDS.file}: block {record.repeat}, {_name(record.setting)}: {problem}"
    for peer in peers(records):
        for problem in _kinds(peer):
            yield f"{PEERS.file}: {peer.precision}: {problem}"
    measured = {record.setting for record in ours(records)}
    for setting in main_settings(config):
        if setting not in measured:
            yield f"memory.json: no row for {_name(setting)}, which was asked for"


def impossible(record: MemoryRecord) -> Iterator[str]:
    """What is wrong with a process; nothing of one that can be."""
    weights = PARAMETER_BYTES * record.n_parameters
    if record.predicted["parameters"] != weights:
        yield f"predicted parameters are {record.predicted['parameters']} bytes, not {weights}"
    if record.status != "ok":
        return
    if not record.seconds or not all(0 < s < math.inf for s in record.seconds):
        yield f"seconds must be positive and finite, got {record.seconds}"
    yield from _kinds(record)
    at_least: dict[str, dict[str, int | None]] = {
        "peak_allocated_bytes": {
            "parameters": weights,
            "parameters and saved tensors": weights + (record.saved_bytes or 0),
        },
        "peak_reserved_bytes": {"peak_allocated_bytes": record.peak_allocated_bytes},
        "peak_rss_bytes": {"rss_before_bytes": record.rss_before_bytes},
    }
    if record.peak_reserved_bytes is None:
        at_least["peak_rss_bytes"]["parameters"] = weights
    for name, bounds in at_least.items():
        for what, bound in bounds.items():
            value = getattr(record, name)
            if value is not None and bound is not None and value < bound:
                yield f"{name} is {value}, less than the {bound} bytes of {what}"


def _kinds(record: AnyRecord) -> Iterator[str]:
    total = sum(record.saved_kinds.values())
    if record.saved_kinds and total != record.saved_bytes:
        yield f"saved_kinds are {total} bytes together, saved_bytes is {record.saved_bytes}"


def _name(setting: Setting) -> str:
    """A setting as a message names it."""
    base, context, tokens, on, precision, variant = setting
    plain = "" if variant == "default" else f", {variant}"
    return (
        f"{base}, {precision}, {tokens} tokens at {context}, "
        f"checkpointing {'on' if on else 'off'}{plain}"
    )
