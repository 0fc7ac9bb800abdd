"""Headline numbers of memory: what backward keeps and the peak, without checkpointing and with."""

from collections.abc import Iterator
from typing import Any

from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.memory.worker import DEFAULT
from psannlm.publish.headline import Headline, read

CLAIM = "BMRK-03"
QUANTITIES = {
    "saved_mib": ("saved for backward", "MiB"),
    "peak_allocated_mib": ("peak allocated", "MiB"),
    "max_memory_mb": ("torch.cuda.max_memory_allocated", "MiB"),
    "elapsed_s": ("time of a step", "s"),
}
"""Of columns of memory.json that make headlines; the one of CUDA is left out where unknown."""


def headlines(run: Evidence) -> Iterator[Headline]:
    """Of each base and precision at the first batch: both rows, then what is saved and paid."""
    asked = run.manifest["parameters"]
    where = (
        f"batch_tokens == {asked['batch_tokens'][0]} and "
        f"context_length == {asked['context_length']}"
    )
    for row in rows_of(run, f"{where} and variant == '{DEFAULT}'"):
        yield from _of_row(row)
    for row in rows_of(run, f"{where} and saver == 'checkpointing'", "savings.csv"):
        yield from _of_saving(row)


def _of_row(row: Row) -> Iterator[Headline]:
    values = row.values
    on = "on" if values["grad_checkpoint"] else "off"
    stem = f"memory.{values['base']}.{values['amp']}.{values['batch_tokens']}.checkpointing_{on}"
    about = f"{_where(values, values['amp'])}, checkpointing {on}"
    for column, (quantity, unit) in QUANTITIES.items():
        if column != "max_memory_mb" or values[column] is not None:
            yield read(
                row,
                column,
                name=f"{stem}.{column}",
                claim=CLAIM,
                about=about,
                quantity=quantity,
                unit=unit,
            )


def _of_saving(row: Row) -> Iterator[Headline]:
    values = row.values
    stem = f"memory.{values['base']}.{values['precision']}.{values['batch_tokens']}.checkpointing"
    about = f"{_where(values, values['precision'])}, checkpointing on against off"
    less = values["saved_less_mib"]
    yield read(
        row,
        "saved_less_share",
        name=f"{stem}.saved_less_share",
        claim=CLAIM,
        about=about,
        quantity="less saved for backward",
        unit="of all",
        verdict="" if less is None else "less" if less > 0 else "not less",
    )
    yield read(
        row,
        "time_ratio",
        name=f"{stem}.time_ratio",
        claim=CLAIM,
        about=about,
        quantity="time of a step",
        unit="× without",
    )


def _where(values: Any, precision: str) -> str:
    return f"{values['base']}, {precision}, {values['batch_tokens']:,} tokens a step"
