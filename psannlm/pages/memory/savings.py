"""What checkpointing, the fast sine and the chunked loss save: pairs of rows that differ in one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from psannlm.bench.statistics import ratio_interval
from psannlm.pages.memory.worker import DEFAULT, PLAIN_LOSS, PLAIN_SINE

SAVINGS = (
    "saver", "base", "precision", "context_length", "batch_tokens", "grad_checkpoint", "status",
    "reason", "saved_without_mib", "saved_with_mib", "saved_less_mib", "saved_less_share",
    "peak_without_mib", "peak_with_mib", "peak_less_mib", "peak_less_share",
    "elapsed_without_s", "elapsed_with_s", "time_ratio", "time_ratio_low", "time_ratio_high",
    "n_blocks",
)  # fmt: skip
"""Of savings.csv. `less` is negative where more is needed with the saver than without."""

SAVERS = {"checkpointing": DEFAULT, "fast_sine": PLAIN_SINE, "chunked_loss": PLAIN_LOSS}
"""What saves memory, and the variant that goes without; checkpointing goes by its own switch."""


Setting = tuple[Any, ...]
"""Base, context, batch tokens, checkpointing, precision, variant: the `setting` of a record."""


class Side(NamedTuple):
    """One of two rows that are compared."""

    row: Mapping[str, Any]
    """Of memory.json."""

    seconds: dict[int, float]
    """Of a step, by block."""


def savings_table(sides: Mapping[Setting, Side]) -> pd.DataFrame:
    """One row a pair of settings of which one has a saver that the other lacks.

    Args:
        sides: Every row of a run, by its setting.
    """
    rows = [
        _saving(saver, sides[without], sides[with_])
        for saver, without, with_ in pairs_of(list(sides))
    ]
    return pd.DataFrame(rows, columns=list(SAVINGS))


def pairs_of(settings: Sequence[Setting]) -> Iterator[tuple[str, Setting, Setting]]:
    """Each saver, with the setting that lacks it and the one that has it."""
    for with_ in settings:
        *shape, grad_checkpoint, precision, variant = with_
        for saver, plain in SAVERS.items():
            off = saver == "checkpointing"
            without = (*shape, grad_checkpoint and not off, precision, plain)
            if variant == DEFAULT and without != with_ and without in settings:
                yield saver, without, with_


def _saving(saver: str, without: Side, with_: Side) -> dict[str, Any]:
    before, after = without.row, with_.row
    row: dict[str, Any] = dict.fromkeys(SAVINGS) | {
        "saver": saver,
        "base": after["base"],
        "precision": after["amp"],
        "context_length": after["context_length"],
        "batch_tokens": after["batch_tokens"],
        "grad_checkpoint": after["grad_checkpoint"],
        "status": "ok" if before["status"] == after["status"] == "ok" else "failed",
        "reason": "; ".join(r for r in (before["reason"], after["reason"]) if r),
        "elapsed_without_s": before["elapsed_s"],
        "elapsed_with_s": after["elapsed_s"],
        "n_blocks": 0,
    }
    for what, column in (("saved", "saved_mib"), ("peak", "peak_allocated_mib")):
        row |= {f"{what}_without_mib": before[column], f"{what}_with_mib": after[column]}
        if before[column] and after[column] is not None:
            less = before[column] - after[column]
            row |= {f"{what}_less_mib": less, f"{what}_less_share": less / before[column]}
    if ratio := ratio_interval(with_.seconds, without.seconds):
        row |= {"time_ratio": ratio.median, "n_blocks": ratio.n}
        row |= {"time_ratio_low": ratio.low, "time_ratio_high": ratio.high}
    return row
