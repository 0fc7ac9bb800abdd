"""The shootout behind its page: from a page to trainings, gates and the files of its run folder."""

import contextlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from psannlm import CHECKPOINTS
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.files import CELLS, cell_file, files
from psannlm.pages.shootout.gates import gates
from psannlm.pages.shootout.measure import refuse_early, run_cells
from psannlm.pages.shootout.plan import (
    Cell,
    after_tuning,
    choose,
    distinct,
    grid,
    training_of,
    tunings,
)
from psannlm.pages.shootout.records import Setting, TrainingRecord, from_json
from psannlm.pages.shootout.tables import Shootout, shootout_of
from psannlm.train.data import read, sources


def measure(page: Page, config: ShootoutConfig) -> Shootout:
    """Tune every arm, train what is compared, examine the networks, and write the run's files.

    Every training is a file before the next one is awaited: a killed run, resumed, repeats none of
    them. Logs and checkpoints of those under way lie below checkpoints/, under the name of the run,
    until it is complete.

    Args:
        page: Whose run keeps the trainings.
        config: Of the run.

    Raises:
        ConfigError: An arm, the corpus, the device, the cluster or lm-eval is not there.
    """
    refuse_early(config)
    one = training_of(tunings(config)[0], config)
    page.run.state(**sources(one, read(one)))
    place = CHECKPOINTS / page.run.folder.name
    expected = len(distinct([*tunings(config), *after_tuning(config, _first(config))], config))
    records = collect(page, distinct(tunings(config), config), config, place, total=expected)
    chosen = choose(config, records)
    later = distinct(after_tuning(config, chosen), config)
    records = collect(page, later, config, place, total=len(records) + len(later))
    shootout = shootout_of(records, gates(config, chosen, records), config)
    page.write(files(shootout, page.run.manifest))
    shutil.rmtree(place, ignore_errors=True)
    return shootout


def recorded(run: Run) -> list[TrainingRecord]:
    """The trainings that a run holds; those of an interrupted one when it is resumed."""
    names = [name for name in sorted(run.artifacts) if name.startswith(CELLS)]
    return [from_json((run.folder / name).read_text(encoding="utf-8")) for name in names]


def collect(
    page: Page, cells: Mapping[str, Cell], config: ShootoutConfig, place: Path, *, total: int
) -> list[TrainingRecord]:
    """Train the cells that the run does not hold yet, behind a progress bar.

    Args:
        page: Whose run keeps the trainings.
        cells: By their key.
        config: What they share.
        place: Of what is kept of a training while it is under way.
        total: Trainings of the whole run, as far as it is known.

    Returns:
        All trainings that the run holds, in the order of their files.
    """
    done = {record.key for record in recorded(page.run)}
    n_done, missing = len(done), len(cells.keys() - done)
    with (
        contextlib.closing(run_cells(cells, config, done=done, place=place)) as ended,
        tqdm(ended, total=missing, unit="training", file=sys.stdout, ncols=88) as bar,
    ):
        for record in bar:
            page.run.write(cell_file(record), record.as_json())
            n_done += 1
            bar.set_postfix_str(label(record), refresh=False)
            page.report_progress(n_done, total, label(record), unit="training")
    return recorded(page.run)


def label(record: TrainingRecord) -> str:
    """What the progress bar calls a training that has ended."""
    outcome = record.status if record.val_loss is None else f"{record.val_loss:.3f}"
    return f"{record.arm}, seed {record.seed}: {outcome}"


def _first(config: ShootoutConfig) -> dict[str, Setting]:
    """What the tuning might choose, before it has: enough to count trainings by."""
    return {arm.name: grid(arm, config)[0] for arm in arms_of(config)}
