"""Measure a shootout: tunings, what they have chosen, and the gates, each kept when it ends."""

import contextlib
import json
import shutil
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from psannlm import CHECKPOINTS
from psannlm.bench.environment import utc_now
from psannlm.evidence.session import Session
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.shootout import cluster
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.gates import gates
from psannlm.pages.shootout.plan import (
    Cell,
    after_tuning,
    choose,
    distinct,
    grid,
    training_of,
    tunings,
)
from psannlm.pages.shootout.pool import Found, Job, on_this_machine, slots
from psannlm.pages.shootout.records import (
    TUPLES,
    ShootoutRecord,
    TrainingRecord,
    from_json,
    gates_of,
    trainings_of,
)
from psannlm.pages.shootout.worker import TrainingTask
from psannlm.train.data import read, sources
from psannlm.train.journal import writing


def measure(
    session: Session[ShootoutConfig, ShootoutRecord],
) -> Iterator[Sequence[ShootoutRecord]]:
    """Tune every arm, train what is compared, and examine the networks.

    A killed run, resumed, repeats no training that has ended. Logs and checkpoints of those under
    way lie below checkpoints/, under the name of the run, until all is measured.

    Raises:
        ConfigError: An arm, the corpus, the device, the cluster or lm-eval is not there.
    """
    config, place = session.config, CHECKPOINTS / session.run.folder.name
    refuse_early(config)
    one = training_of(tunings(config)[0], config)
    session.run.state(**sources(one, read(one)))
    yield from _trained(distinct(tunings(config), config), session, place)
    chosen = choose(config, trainings_of(session.records))
    yield from _trained(distinct(after_tuning(config, chosen), config), session, place)
    if not gates_of(session.records):
        yield gates(config, chosen, trainings_of(session.records))
    shutil.rmtree(place, ignore_errors=True)


def n_cells(config: ShootoutConfig) -> int:
    """Trainings of a run, as if every tuning chose the first setting of its grid."""
    first = {arm.name: grid(arm, config)[0] for arm in arms_of(config)}
    return len(distinct([*tunings(config), *after_tuning(config, first)], config))


def _trained(
    cells: Mapping[str, Cell], session: Session[ShootoutConfig, ShootoutRecord], place: Path
) -> Iterator[list[ShootoutRecord]]:
    """The records of the cells that the session does not hold yet."""
    ended = run_cells(cells, session.config, done=session.done, place=place)
    with contextlib.closing(ended):
        for record in ended:
            yield [record]


def refuse_early(config: ShootoutConfig) -> None:
    """Refuse, before the first training, what no training could be done with.

    The text is read on the way, so that its tokens are there before several processes want them.

    Raises:
        ConfigError: An arm, the corpus, the device, the cluster or lm-eval is not there.
    """
    arms_of(config)
    if config.with_lm_eval:
        from psannlm.pages.shootout.lm_eval import refuse_missing

        refuse_missing(config.lm_eval_tasks, config.lm_eval_folder)
    if not config.scheduler:
        slots(config)
    read(training_of(tunings(config)[0], config))
    if config.scheduler:
        cluster.refuse_unready(config)


def run_cells(
    cells: Mapping[str, Cell], config: ShootoutConfig, *, done: Collection[str], place: Path
) -> Generator[TrainingRecord, None, None]:
    """Train every cell in a process of its own.

    A cell trains in `place`/key, and goes on there if it was killed before. The folder is removed
    when the next record is asked for: by then this one is kept. A failure is a record like any
    other: kept, it is done, and a resumed run does not try it again.

    To be closed (contextlib.closing), so that no process outlives an error of the caller.

    Args:
        cells: By their key, in the order in which they begin.
        config: What they share, and where they run.
        done: Keys of records that an interrupted run has already.
        place: Folder of the run's checkpoints and compiled code.

    Yields:
        The record of each cell as soon as its training has ended.

    Raises:
        ConfigError: The place cannot be written, or the cluster cannot be used.
    """
    for key in cells:
        if key in done:
            shutil.rmtree(place / key, ignore_errors=True)
    jobs = [job_of(key, cell, config) for key, cell in cells.items() if key not in done]
    if not jobs:
        return
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    run = cluster.on_cluster if config.scheduler else on_this_machine
    with contextlib.closing(run(jobs, config, place)) as ended:
        for key, found in ended:
            yield record_of(key, cells[key], config, found)
            shutil.rmtree(place / key, ignore_errors=True)


def job_of(key: str, cell: Cell, config: ShootoutConfig) -> Job:
    """What the process of a cell is told; only what is compared is asked about by lm-eval."""
    asked = cell.final and config.with_lm_eval
    task = TrainingTask(
        config=training_of(cell, config).model_dump(mode="json"),
        folder="",
        final=cell.final,
        started=0.0,
        lm_eval_tasks=config.lm_eval_tasks if asked else (),
        lm_eval_limit=config.lm_eval_limit if asked else 0,
        lm_eval_folder=config.lm_eval_folder if asked else "",
    )
    return Job(key, task, config.timeout_seconds)


def record_of(key: str, cell: Cell, config: ShootoutConfig, found: Found) -> TrainingRecord:
    """The record of a cell: what is known by construction, and what its process found."""
    network = training_of(cell, config).network
    cost = cost_of(network, Shape(1, config.context_length))
    known: dict[str, Any] = {
        "key": key,
        "arm": cell.arm.name,
        "base": cell.arm.base,
        "setting": cell.setting,
        "seed": cell.seed,
        "final": cell.final,
        "started_at": utc_now().isoformat(),
        "device": "",
        "d_mlp": network.d_mlp,
        "n_parameters": cost.n_parameters,
        "flops_per_token": 3 * cost.model_flops // config.context_length,
        **dict.fromkeys(TUPLES, ()),
    }
    try:
        text = json.dumps(known | found, allow_nan=False)
    except ValueError:
        failed = {"status": "failed", "reason": "a result of the training is not finite"}
        text = json.dumps(known | {"device": found["device"]} | failed)
    return from_json(text)
