"""A row of the shootout page again: an arm's compared trainings, with the setting it had chosen."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from psannlm.config.schema import ConfigError
from psannlm.evidence.rows import Row
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.files import trainings_of
from psannlm.pages.shootout.measure import run_cells
from psannlm.pages.shootout.plan import Cell, choose, finals, key_of
from psannlm.pages.shootout.records import TrainingRecord
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.expectation import SURE, expected_mean
from psannlm.rerun.outcome import Quantity, Repeat, between, exact, status
from psannlm.rerun.surroundings import refuse_other_text

USUAL = 1
"""Seeds that are trained again where nothing else is asked for."""

SAME = (
    "loss of a seed: the same to the digit, as the same seed on the same processor and torch gives"
)
SPREAD = (
    "loss of a seed: on another processor, torch or number of threads rounding differs; within the "
    f"{SURE} prediction interval of one more seed"
)
MEAN = f"mean loss: within the {SURE} prediction interval that the published seeds give for so many"


def measure_again(row: Row, asked: RerunRequest) -> Repeat:
    """Train the arm again, with the first of the published seeds.

    Args:
        row: Of a shootout.
        asked: How many seeds, and where.

    Raises:
        ConfigError: The arm was never tuned, there are fewer seeds, or the text is missing or
            another one.
    """
    refuse_other_text(row.run)
    here = {"with_lm_eval": False, "scheduler": ""}  # neither decides a loss
    config = asked.configuration(ShootoutConfig).model_copy(update=here)
    old = trainings_of(row.run)
    cells = cells_of(row, config, old, asked.times(len(config.seeds), usual=USUAL))
    published = {r.seed: r for r in old if r.final and r.arm == row.values["base"]}
    seconds = sum(published[cell.seed].train_seconds or 0 for cell in cells)
    asked.say(
        f"training {len(cells)} of {len(config.seeds)} seeds again, which took "
        f"{seconds / 60:.0f} min when published"
    )
    new = _train(cells, config)
    return compared(published, new, same_digits=asked.surroundings.same_digits)


def cells_of(
    row: Row, config: ShootoutConfig, old: Sequence[TrainingRecord], n_seeds: int
) -> list[Cell]:
    """The trainings that a row is a mean of, those of the first seeds.

    Args:
        row: Of a shootout.
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


def compared(
    published: dict[int, TrainingRecord], new: Sequence[TrainingRecord], *, same_digits: bool
) -> Repeat:
    """What the new trainings say of the published ones.

    Args:
        published: The compared trainings of the arm, by seed.
        new: Those of the repeat.
        same_digits: Whether they should have reached the same digits.
    """
    losses = [r.val_loss for r in published.values() if r.val_loss is not None]
    quantities: list[Quantity] = []
    for record in sorted(new, key=lambda r: r.seed):
        quantities += _seed(published[record.seed], record, losses, same_digits)
    found = [r.val_loss for r in new if r.val_loss is not None]
    expected = expected_mean(losses, len(found)) if found else None
    if found and expected:
        mean, inside = fmean(found), expected.covers(fmean(found))
        within = between(expected.low, expected.high, ".4f")
        name = f"mean loss of {len(found)}, nats/token"
        quantities.append(Quantity(name, f"{fmean(losses):.4f}", within, f"{mean:.4f}", inside))
    return Repeat(tuple(quantities), (SAME if same_digits else SPREAD, MEAN))


def _seed(
    old: TrainingRecord, new: TrainingRecord, losses: Sequence[float], same_digits: bool
) -> tuple[Quantity, ...]:
    if old.val_loss is None or new.val_loss is None:
        return status(old.status, old.reason, new.status, new.reason)
    name = f"loss of seed {new.seed}, nats/token"
    then, now = repr(old.val_loss), repr(new.val_loss)
    if same_digits:
        return (exact(name, then, now),)
    expected = expected_mean(losses, 1)
    inside = expected.covers(new.val_loss) if expected else None
    within = between(expected.low, expected.high, ".4f") if expected else "no interval"
    return (Quantity(name, then, within, now, inside),)


def _train(cells: Sequence[Cell], config: ShootoutConfig) -> list[TrainingRecord]:
    """Train in processes of their own, in a folder that vanishes."""
    by_key = {key_of(cell, config): cell for cell in cells}
    with (
        tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as folder,
        contextlib.closing(run_cells(by_key, config, done=(), place=Path(folder))) as ended,
    ):
        return list(ended)
