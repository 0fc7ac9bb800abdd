"""Cells of measurement in a run folder: each saved before the next begins, none measured twice."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.throughput.records import CellRecord, cells_csv, read_records, samples_csv


class Measured(Protocol):
    """A record of any kind."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""


RecordT = TypeVar("RecordT", bound=Measured)


@dataclass(frozen=True)
class RecordStore(Generic[RecordT]):
    """How a run folder keeps one kind of records."""

    files: tuple[str, ...]
    """Written in this order: a cell counts as measured once it stands in the last."""

    texts: Callable[[Sequence[RecordT]], Sequence[str]]
    """From records to what the files hold, in their order."""

    records: Callable[..., list[RecordT]]
    """The way back."""

    label: Callable[[RecordT], str]
    """What the progress bar calls a record."""


def _cell_texts(records: Sequence[CellRecord]) -> tuple[str, str]:
    return samples_csv(records), cells_csv(records)


def _cell_records(samples: str, cells: str) -> list[CellRecord]:
    return read_records(cells, samples)


CELLS = RecordStore(("samples.csv", "cells.csv"), _cell_texts, _cell_records, lambda r: r.label)
"""Of the throughput page."""


def recorded(run: Run, keeping: RecordStore[RecordT]) -> list[RecordT]:
    """The records that a run holds; those of an interrupted one when it is resumed."""
    if not set(keeping.files) <= run.artifacts:
        return []
    return keeping.records(
        *((run.folder / name).read_text(encoding="utf-8") for name in keeping.files)
    )


def done(run: Run, keeping: RecordStore[RecordT]) -> set[tuple[Any, ...]]:
    """Keys of the records that a run holds."""
    return {record.key for record in recorded(run, keeping)}


def collect(
    page: Page, cells: Iterable[list[RecordT]], keeping: RecordStore[RecordT], *, total: int
) -> list[RecordT]:
    """Measure cell by cell behind a progress bar.

    Args:
        page: Whose run keeps the records.
        cells: The records of one cell after the other, measured as they are asked for.
        keeping: How they are kept.
        total: Number of cells.

    Returns:
        All records of the run, those from before an interruption first.
    """
    records = recorded(page.run, keeping)
    bar = tqdm(cells, total=total, unit="cell", file=sys.stdout, dynamic_ncols=False, ncols=88)
    for measured in bar:
        records += measured
        for name, text in zip(keeping.files, keeping.texts(records), strict=True):
            page.run.write(name, text)
        label = keeping.label(measured[0])
        bar.set_postfix_str(label, refresh=False)
        page.report_progress(bar.n + 1, total, label, unit="cell")
    return records
