"""Measure a shootout, or an arm of it again: each training is kept when it ends."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from psannlm import CHECKPOINTS
from psannlm.bench.environment import utc_now
from psannlm.bench.rates import COMPILING, FORKED_SECONDS, Pace
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.evidence.page import RerunRequest
from psannlm.evidence.session import Session
from psannlm.evidence.table import Row
from psannlm.files import sha256_of, writing
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.shootout import cluster, plan, records
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.gates import gates
from psannlm.pages.shootout.plan import Cell, choose, distinct, training_of, tunings
from psannlm.pages.shootout.pool import Found, on_this_machine, slots
from psannlm.pages.shootout.records import ShootoutConfig
from psannlm.pages.shootout.worker import TrainingTask
from psannlm.places import located
from psannlm.train.data import read, sources

ShootoutSession = Session[ShootoutConfig, records.ShootoutRecord]


def measure(session: ShootoutSession) -> Iterator[Sequence[records.ShootoutRecord]]:
    """Tune every arm, train what is compared, and examine the networks.

    A killed run, resumed, repeats no training that has ended. Logs and checkpoints of those under
    way lie below checkpoints/, under the name of the run, until all is measured. ConfigError as of
    `refuse_early`.
    """
    config, place = session.config, CHECKPOINTS / session.run.folder.name
    refuse_early(config)
    one = training_of(tunings(config)[0], config)
    session.run.state(**sources(one, read(one)), **own_tasks(config))
    yield from _trained(tunings(config), session, place)
    chosen = choose(config, records.split(session.records)[0])
    yield from _trained(plan.after_tuning(config, chosen), session, place)
    trainings, examined = records.split(session.records)
    if not examined:
        yield gates(config, chosen, trainings)
    shutil.rmtree(place, ignore_errors=True)


def own_tasks(config: ShootoutConfig) -> dict[str, dict[str, str]]:
    """What the manifest says of task definitions of one's own, where they are evaluated."""
    folder = config.lm_eval_folder if config.with_lm_eval else ""
    return {"lm_eval": {"path": folder, "sha256": sha256_of(located(folder))}} if folder else {}


def all_cells(config: ShootoutConfig) -> Collection[Cell]:
    """Trainings of a run, as if every tuning chose the first setting of its grid."""
    first = {arm.name: plan.grid(arm, config)[0] for arm in arms_of(config)}
    return distinct([*tunings(config), *plan.after_tuning(config, first)], config).values()


def expected_seconds(config: ShootoutConfig, pace: Pace) -> float:
    """What all trainings should take, each arm compiling cold once; see `Page`."""
    cells, n_arms = all_cells(config), len(arms_of(config))
    steps = sum(pace.training(training_of(c, config), with_test=c.final) for c in cells)
    compiling = n_arms * COMPILING[True] + len(cells) * COMPILING[False]
    starts = len(cells) * FORKED_SECONDS + config.compile * compiling
    at_once = max(1, config.cells_at_once)  # they share a CPU, but each has a GPU for itself
    return starts / at_once + (steps if pace.device_type == "cpu" else steps / at_once)


def _trained(
    cells: Iterable[Cell], session: ShootoutSession, place: Path
) -> Iterator[list[records.ShootoutRecord]]:
    """The records of the cells that the session does not hold yet."""
    config, done = session.config, session.done
    with contextlib.closing(run_cells(distinct(cells, config), config, done, place)) as ended:
        for record in ended:
            yield [record]


def refuse_early(config: ShootoutConfig) -> None:
    """Refuse, by a ConfigError before the first training, what no training could be done with.

    The text is read on the way, so that its tokens are there before several processes want them.
    """
    arms_of(config)
    for check in checks(config):
        check()
    read(training_of(tunings(config)[0], config))


def checks(config: ShootoutConfig) -> Iterator[Callable[[], object]]:
    """What is needed for the tasks and the place of the trainings; see `Page.checks`."""

    def tasks() -> None:
        from psannlm.pages.shootout.lm_eval import load_tasks

        load_tasks(config.lm_eval_tasks, config.lm_eval_folder)

    if config.with_lm_eval:
        yield tasks
    yield partial(cluster.refuse_unready if config.scheduler else slots, config)


def trainings(config: ShootoutConfig) -> Iterator[TrainingConfig]:
    """One of each arm that is trained on this machine."""
    known = {cell.arm.name: cell for cell in tunings(config)} if not config.scheduler else {}
    return (training_of(cell, config) for cell in known.values())


def run_cells(
    cells: Mapping[str, Cell], config: ShootoutConfig, done: Collection[str], place: Path
) -> Generator[records.TrainingRecord, None, None]:
    """Train the cells that are not done, each in a process of its own; a record as soon as it ends.

    A cell trains in `place`/key, and goes on there if it was killed before. The folder is removed
    when the next record is asked for: by then this one is kept. A failure is a record like any
    other: kept, it is done, and a resumed run does not try it again.

    To be closed (contextlib.closing), so that no process outlives an error of the caller.
    ConfigError if the place cannot be written, or the cluster cannot be used.
    """
    for key in cells.keys() & done:
        shutil.rmtree(place / key, ignore_errors=True)
    tasks = [task_of(key, cell, config) for key, cell in cells.items() if key not in done]
    if not tasks:
        return
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    run = cluster.on_cluster if config.scheduler else on_this_machine
    with contextlib.closing(run(tasks, config, place)) as ended:
        for key, found in ended:
            yield record_of(key, cells[key], config, found)
            shutil.rmtree(place / key, ignore_errors=True)


def task_of(key: str, cell: Cell, config: ShootoutConfig) -> TrainingTask:
    """What the process of a cell is told; only what is compared is asked about by lm-eval."""
    lm_eval = {name: getattr(config, f"lm_eval_{name}") for name in ("tasks", "limit", "folder")}
    asked = lm_eval if cell.final and config.with_lm_eval else {}
    training = training_of(cell, config).model_dump(mode="json")
    return TrainingTask(key, training, cell.final, config.timeout_seconds, lm_eval=asked)


def record_of(key: str, cell: Cell, config: ShootoutConfig, found: Found) -> records.TrainingRecord:
    """The record of a cell: what is known by construction, and what its process found."""
    network = training_of(cell, config).network
    cost = cost_of(network, Shape(1, config.context_length))
    known: dict[str, Any] = {
        **vars(cell),  # setting, seed, final
        "key": key,
        "arm": cell.arm.name,
        "base": cell.arm.base,
        "started_at": utc_now().isoformat(),
        "device": "",
        "d_mlp": network.d_mlp,
        "n_parameters": cost.n_parameters,
        "flops_per_token": 3 * cost.model_flops // config.context_length,
    }
    try:
        text = json.dumps(known | found, allow_nan=False)
    except ValueError:
        failed = {"status": "failed", "reason": "a result of the training is not finite"}
        text = json.dumps(known | {"device": found["device"]} | failed)
    return records.from_json(text)


def measure_again(
    row: Row, request: RerunRequest[ShootoutConfig], published: Sequence[records.TrainingRecord]
) -> list[records.TrainingRecord]:
    """Train the arm of a row again, at its chosen setting, with the first of its published seeds.

    ConfigError if the arm was never tuned, or there are fewer seeds.
    """
    # Neither lm-eval nor where it trains decides a loss.
    config = request.config.model_copy(update={"with_lm_eval": False, "scheduler": ""})
    arm, compared = row.values["base"], plan.finals(config, choose(config, published))
    cells = [cell for cell in compared if cell.arm.name == arm]
    if not cells:
        raise ConfigError(
            f"row {row.number} of {row.run.name}: all tunings of {arm} failed, so "
            "no training was compared; choose another row"
        )
    if (n := request.repeats) > len(cells):
        raise ConfigError(
            f"repeats must be at most the number of published seeds, {len(cells)}, got {n}"
        )
    again = distinct(cells[:n], config)
    seconds = sum(record.train_seconds or 0.0 for record in published if record.key in again)
    request.say(
        f"training {len(again)} of {len(config.seeds)} seeds again, which took "
        f"{seconds / 60:.0f} min when published"
    )
    with tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as folder:
        return list(run_cells(again, config, (), Path(folder)))
