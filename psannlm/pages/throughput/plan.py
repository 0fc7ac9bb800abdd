"""Plan and run the throughput measurements."""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from psannlm.bench.environment import utc_now
from psannlm.bench.processes import ForkServer, run_task
from psannlm.bench.rates import COMPILING, FORKED_SECONDS, PROCESS_SECONDS, Pace, is_emulated
from psannlm.bench.statistics import shuffled_blocks
from psannlm.bench.steps import SETTINGS
from psannlm.device import select_device
from psannlm.pages.throughput.records import CEILING, CellRecord, ThroughputConfig
from psannlm.pages.throughput.worker import Task


class Cell(NamedTuple):
    """What one process measures, and its place in the run."""

    repeat: int
    order: int
    label: str
    base: str
    batch_tokens: int
    precision: str
    modes: tuple[str, ...]


def again(baseline: str) -> str:
    """Label of the second measurement of the baseline, from which the noise floor comes."""
    return f"{baseline} (again)"


def labels(config: ThroughputConfig) -> dict[str, str]:
    """Every row label of the run and the base it measures, in the order of tables."""
    bases = dict.fromkeys([*config.base, config.baseline])
    return {name: name for name in bases} | {again(config.baseline): config.baseline}


def plan(config: ThroughputConfig) -> list[Cell]:
    """All cells, in the order in which they run: every block has each once."""
    settings: list[tuple[str, str, int, str, tuple[str, ...]]] = [
        (label, base, tokens, precision, config.mode)
        for label, base in labels(config).items()
        for tokens in config.batch_tokens
        for precision in config.precision
    ]
    settings += [(CEILING, CEILING, 0, precision, (CEILING,)) for precision in config.precision]
    blocks = shuffled_blocks(settings, n_repeats=config.n_repeats, seed=config.seed)
    return [Cell(repeat, order, *setting) for repeat, order, setting in blocks]


def expected_seconds(config: ThroughputConfig, pace: Pace) -> float:
    """What all cells should take, the first of each label compiling cold; see `Page`."""
    seconds = 0.0
    for cell in plan(config):
        seconds += FORKED_SECONDS if forks(config) else PROCESS_SECONDS
        if cell.base == CEILING:
            seconds += pace.ceiling(cell.precision, config)
            continue
        for mode in cell.modes:
            work = pace.forward if mode == "forward" else pace.step
            given = config.network_of(cell.base), cell.batch_tokens, cell.precision
            step = work(*given, compiled=config.compile)
            seconds += pace.timed(step, cell.precision, config)
            seconds += config.compile * COMPILING[cell.repeat == 0]
    return seconds


def cells_of_row(row: Mapping[str, Any], config: ThroughputConfig) -> list[Cell]:
    """The cells that a row was computed from; modes that came after the row's are left out."""
    wanted = {(label, row["batch_tokens"]) for label in (row["label"], config.baseline)}
    wanted.add((CEILING, 0))
    modes = config.mode[: config.mode.index(row["mode"]) + 1]
    return [
        cell if cell.base == CEILING else cell._replace(modes=modes)
        for cell in plan(config)
        if cell.precision == row["precision"] and (cell.label, cell.batch_tokens) in wanted
    ]


def throughput(
    config: ThroughputConfig, *, done: Collection[object] = (), cells: Sequence[Cell] = ()
) -> Iterator[list[CellRecord]]:
    """Measure cells, all if none is given, in fresh processes; yields records, one a mode, at once.

    Nothing is measured whose keys are all in `done`, as an interrupted run has its records already.
    """
    with (
        tempfile.TemporaryDirectory(prefix="psannlm-compile-") as cache,
        # The first optimizer of a process loads torch's compiler, used or not.
        ForkServer(Task.__module__, Path(cache), loads=["torch._dynamo"]) as server,
    ):
        for cell in cells or plan(config):
            row = cell.repeat, cell.label, cell.batch_tokens
            if not {(*row, mode, cell.precision) for mode in cell.modes} <= set(done):
                yield _measure(cell, config, Path(cache), server if forks(config) else None)


def forks(config: ThroughputConfig) -> bool:
    """Whether processes are forked: not for a GPU, nor where the time of compiling is asked for."""
    return not config.compile and select_device(config.device).type == "cpu"


def _measure(
    cell: Cell, config: ThroughputConfig, cache: Path, server: ForkServer | None
) -> list[CellRecord]:
    place = cell._asdict()
    task = Task(
        model={} if cell.base == CEILING else config.network_of(cell.base).model_dump(),
        batch_tokens=cell.batch_tokens,
        modes=place.pop("modes"),
        precision=cell.precision,
        compile=config.compile,
        emulated=is_emulated(config.device, cell.precision),
        **config.model_dump(include=SETTINGS),
    )
    place |= {"context_length": config.context_length, "started_at": utc_now().isoformat()}
    # A label compiles for itself, so that the first process of each is seen cold.
    cache = cache / re.sub(r"\W+", "_", cell.label)
    limit = config.timeout_seconds
    found = run_task(task, cache=cache, timeout_seconds=limit, fork_server=server)
    return [CellRecord(**place | values) for values in found]
