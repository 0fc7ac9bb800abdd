"""Cells of measurement in a run folder: each saved before the next begins, none measured twice."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from psannlm.bench.records import CellRecord, cells_csv, read_records, samples_csv
from psannlm.report.notebook import Page
from psannlm.report.runs import Run

FILES = ("cells.csv", "samples.csv")


def recorded(run: Run) -> list[CellRecord]:
    """The records that a run holds; those of an interrupted one when it is resumed."""
    if not set(FILES) <= run.artifacts:
        return []
    cells, samples = ((run.folder / name).read_text(encoding="utf-8") for name in FILES)
    return read_records(cells, samples)


def done(run: Run) -> set[tuple[Any, ...]]:
    """Keys of the records that a run holds."""
    return {record.key for record in recorded(run)}


def collect(page: Page, cells: Iterable[list[CellRecord]], *, total: int) -> list[CellRecord]:
    """Measure cell by cell behind a progress bar.

    Args:
        page: Whose run keeps the records.
        cells: The records of one cell after the other, measured as they are asked for.
        total: Number of cells.

    Returns:
        All records of the run, those from before an interruption first.
    """
    records = recorded(page.run)
    bar = tqdm(cells, total=total, unit="cell", file=sys.stdout, dynamic_ncols=False, ncols=88)
    for measured in bar:
        records += measured
        # Samples first: a cell counts as measured only once its row stands in cells.csv.
        page.run.write("samples.csv", samples_csv(records))
        page.run.write("cells.csv", cells_csv(records))
        bar.set_postfix_str(measured[0].label, refresh=False)
        page.tell(bar.n + 1, total, measured[0].label, unit="cell")
    return records
