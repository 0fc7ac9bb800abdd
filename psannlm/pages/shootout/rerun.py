"""A row of the shootout page again: an arm's compared trainings, with the setting it had chosen."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from psannlm.config.schema import ConfigError
from psannlm.evidence.page import RerunRequest
from psannlm.evidence.rows import Row
from psannlm.pages.shootout.comparison import by_seed
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.measure import run_cells
from psannlm.pages.shootout.plan import Cell, choose, finals, key_of
from psannlm.pages.shootout.records import TrainingRecord


def measure_again(
    row: Row, request: RerunRequest[ShootoutConfig], records: Sequence[TrainingRecord]
) -> list[TrainingRecord]:
    """Train the arm of a row again, with the first of the published seeds.

    Args:
        row: Of the summary.
        request: How many seeds, and where.
        records: The published trainings.

    Raises:
        ConfigError: The arm was never tuned, or there are fewer seeds.
    """
    here = {"with_lm_eval": False, "scheduler": ""}  # neither decides a loss
    config = request.config.model_copy(update=here)
    cells = cells_of(row, config, records, request.repeats)
    took = {record.key: record.train_seconds or 0.0 for record in records}
    seconds = sum(took[key_of(cell, config)] for cell in cells)
    request.say(
        f"training {len(cells)} of {len(config.seeds)} seeds again, which took "
        f"{seconds / 60:.0f} min when published"
    )
    return _train(cells, config)


def cells_of(
    row: Row, config: ShootoutConfig, old: Sequence[TrainingRecord], n_seeds: int
) -> list[Cell]:
    """The trainings that a row is a mean of, those of the first seeds.

    Args:
        row: Of the summary.
        config: Of the run.
        old: Its trainings.
        n_seeds: How many are wanted.

    Raises:
        ConfigError: The arm was never tuned, or there are fewer seeds.
    """
    cells = [
        cell for cell in finals(config, choose(config, old)) if cell.arm.name == row.values["base"]
    ]
    if not cells:
        raise ConfigError(
            f"row {row.number} of {row.run.name}: all tunings of {row.values['base']} failed, so "
            "no training was compared; choose another row"
        )
    if n_seeds > len(cells):
        raise ConfigError(
            f"repeats must be at most the number of published seeds, {len(cells)}, got {n_seeds}"
        )
    return cells[:n_seeds]


def losses(records: Sequence[TrainingRecord], arm: str) -> dict[int, float]:
    """Validation losses of the compared trainings of an arm, by seed."""
    return by_seed(record for record in records if record.final and record.arm == arm)


def _train(cells: Sequence[Cell], config: ShootoutConfig) -> list[TrainingRecord]:
    """Train in processes of their own, in a folder that vanishes."""
    by_key = {key_of(cell, config): cell for cell in cells}
    with (
        tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as folder,
        contextlib.closing(run_cells(by_key, config, done=(), place=Path(folder))) as ended,
    ):
        return list(ended)
