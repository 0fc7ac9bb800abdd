"""What no machine could have measured of memory, whatever a file says."""

import math
from collections.abc import Iterator

from psannlm.pages.memory.records import MemoryRecord

PARAMETER_BYTES = 4
"""Weights are float32, whatever precision products are in."""


def impossible(record: MemoryRecord) -> Iterator[str]:
    """What is wrong with a process that succeeded; nothing of one that can be."""
    if not record.seconds or not all(0 < s < math.inf for s in record.seconds):
        yield f"seconds must be positive and finite, got {record.seconds}"
    if record.saved_kinds and sum(record.saved_kinds.values()) != record.saved_bytes:
        yield (
            f"saved_kinds are {sum(record.saved_kinds.values())} bytes together, "
            f"saved_bytes is {record.saved_bytes}"
        )
    weights = PARAMETER_BYTES * record.n_parameters
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
