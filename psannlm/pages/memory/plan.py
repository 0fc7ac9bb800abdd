"""Plan and run the measurements of memory, and count what the published package saves."""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path

import torch

from psannlm.bench.environment import utc_now
from psannlm.bench.processes import ForkServer, run_task
from psannlm.bench.rates import FORKED_SECONDS, PROCESS_SECONDS, Pace, is_emulated
from psannlm.bench.statistics import Cell, shuffled_blocks
from psannlm.bench.steps import SETTINGS
from psannlm.config.network import ModelConfig
from psannlm.device import select_device
from psannlm.model.bases import base_of, cost_of
from psannlm.model.sine import DampedSine
from psannlm.pages.memory import records as raw
from psannlm.pages.memory.records import MemoryConfig, MemoryRecord, PeerRecord, Setting
from psannlm.pages.memory.worker import MemoryTask, predicted
from psannlm.pages.peer import plan as peer
from psannlm.pages.peer.records import PUBLISHED, PeerConfig

MemoryCell = Cell[Setting]


def memory_plan(config: MemoryConfig) -> list[MemoryCell]:
    """All cells, in the order in which they run.

    Every block has the settings whose times are compared; the first has those too of which bytes
    alone are asked, as these repeat exactly: curves over batch and context, and variants.
    """
    main = raw.main_settings(config)
    own, first = config.context_length, config.batch_tokens[0]
    places = [(own, tokens) for tokens in config.batch_tokens]
    places += [(context, first) for context in config.contexts]
    curves = [
        Setting(base, *place, checkpoint, config.precision[0], raw.DEFAULT)
        for base, place, checkpoint in product(config.base, places, (False, True))
    ]
    variants = [
        Setting(base, own, first, False, precision, variant)
        for variant, base, precision in product(config.variants, config.base, config.precision)
        if variant != raw.PLAIN_SINE or has_sine(config.network_of(base))
    ]
    further = [setting for setting in (*curves, *variants) if setting not in main]
    return shuffled_blocks(main, n_repeats=config.n_repeats, seed=config.seed, once=further)


def expected_seconds(config: MemoryConfig, pace: Pace) -> float:
    """What all cells should take; see `Page`."""
    seconds = PROCESS_SECONDS if config.peer else 0.0
    for cell in memory_plan(config):
        task = task_of(cell.setting, config)
        step = pace.step(task.config, task.batch_tokens, task.precision)
        timed = task.compared or task.emulated
        steps = pace.timed(step, task.precision, config) if timed else config.min_steps * step
        # Two make the optimizer and the peak, one is counted; two more are traced.
        seconds += FORKED_SECONDS + steps + 5 * step
    return seconds


def memory(
    config: MemoryConfig, *, done: Collection[object] = (), cells: Sequence[MemoryCell] = ()
) -> Iterator[MemoryRecord]:
    """Measure cells, all if none is given, in fresh processes; yields each record at once.

    Nothing is measured whose key is in `done`, as an interrupted run has its record already.
    """
    with (
        tempfile.TemporaryDirectory(prefix="psannlm-compile-") as folder,
        # The first optimizer of a process loads torch's compiler, used or not.
        ForkServer("psannlm.pages.memory.worker", Path(folder), loads=["torch._dynamo"]) as server,
    ):
        forks = select_device(config.device).type == "cpu"
        for cell in cells or memory_plan(config):
            if (cell.repeat, *cell.setting) not in done:
                yield _measure(cell, config, Path(folder), server if forks else None)


def task_of(setting: Setting, config: MemoryConfig) -> MemoryTask:
    """What the process of a cell is told."""
    length, on = setting.context_length, setting.grad_checkpoint
    network = config.network_of(setting.base, context_length=length, grad_checkpoint=on)
    return MemoryTask(
        model=network.model_dump(),
        batch_tokens=setting.batch_tokens,
        precision=setting.precision,
        variant=setting.variant,
        chunk_tokens=config.loss_chunk_tokens,
        compared=setting in raw.main_settings(config),
        emulated=is_emulated(config.device, setting.precision),
        **config.model_dump(include=SETTINGS),
    )


def has_sine(config: ModelConfig) -> bool:
    """Whether a block of the network holds a damped sine."""
    with torch.device("meta"):  # without memory
        block = base_of(config)(config, 0)
    return any(isinstance(module, DampedSine) for module in block.modules())


def _measure(
    cell: MemoryCell, config: MemoryConfig, cache: Path, server: ForkServer | None
) -> MemoryRecord:
    task, started_at = task_of(cell.setting, config), utc_now().isoformat()
    limit = config.timeout_seconds
    [found] = run_task(task, cache=cache, timeout_seconds=limit, fork_server=server)
    del found["mode"]
    return MemoryRecord(
        repeat=cell.repeat,
        order=cell.order,
        **cell.setting._asdict(),
        n_parameters=cost_of(task.config, task.shape).n_parameters,
        predicted=dict(predicted(task)),
        **{"started_at": started_at} | found | {"seconds": tuple(found.get("seconds", ()))},
    )


def published(config: MemoryConfig, *, done: Collection[object] = ()) -> Iterator[PeerRecord]:
    """Count what a step of the package that `config.peer` names saves for backward.

    A record a precision whose key is not in `done`, in the shape of the run's main cells, with
    fused attention; none if no package is named. What goes wrong is a record with its reason.
    """
    package, _, version = config.peer.partition("==")
    missing = [p for p in config.precision if (package, version, p) not in done]
    if not config.peer or not missing:
        return
    named = {"package": package, "version": version, "saved_kinds": {}}
    settings = [peer.Setting(PUBLISHED, "respsann", "best", precision) for precision in missing]
    cells = [Cell(0, order, setting) for order, setting in enumerate(settings)]
    # Saved bytes alone are asked of the comparison.
    shared = {k: v for k, v in config.model_dump().items() if k in PeerConfig.model_fields}
    shared |= {"base": ("respsann",), "work": ("saved",), "setting": ("best",), "n_repeats": 1}
    shared |= {"batch_tokens": config.batch_tokens[0], "protocol_batch_tokens": ()}
    asked = PeerConfig(**shared | {"prompt_tokens": 1, "new_tokens": 1})
    for [cell] in peer.compare(asked, cells=cells):
        values = config.model_dump() | asdict(cell) | named
        yield PeerRecord(**{field.name: values[field.name] for field in fields(PeerRecord)})
