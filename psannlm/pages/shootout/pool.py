"""Where trainings run on this machine: slots, each with a process at a time."""

import contextlib
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch

from psannlm.bench.environment import device_name
from psannlm.bench.processes import ForkServer, run_task
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.pages.shootout.records import ShootoutConfig
from psannlm.pages.shootout.worker import COMPILER, TrainingTask

COMPILED = "compiled"  # below the place of a run: all trainings but the first start warm
Found = dict[str, Any]  # what a process leaves: status, reason, and fields of a TrainingRecord


class Slot(NamedTuple):
    """A part of this machine that trains one network at a time."""

    device: torch.device
    variables: Mapping[str, str]  # of its processes' environment


def slots(config: ShootoutConfig) -> list[Slot]:
    """Where a shootout trains: `cells_at_once` GPUs, or equal shares of the CPU's threads.

    ConfigError if there are fewer GPUs.
    """
    if select_device(config.device).type == "cpu":
        n = config.cells_at_once or 1
        share = str(max(1, torch.get_num_threads() // n))
        variables = {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share} if n > 1 else {}
        return [Slot(torch.device("cpu"), variables)] * n
    count, said = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in said.split(",")] if said else map(str, range(count))
    gpus = list(names)[:count]  # those that torch sees
    n = config.cells_at_once or len(gpus)
    if n > len(gpus):
        raise ConfigError(
            f"cells_at_once must be at most the number of visible GPUs, {len(gpus)}, got {n}; "
            "lower it, or use 0 for one training a GPU"
        )
    return [Slot(torch.device("cuda", i), {"CUDA_VISIBLE_DEVICES": gpus[i]}) for i in range(n)]


def train(task: TrainingTask, place: Path, cache: Path, **options: Any) -> Found:
    """Train in a process of its own, or go on with what was begun in `place`/key.

    Compiled code is kept in `cache`; further options are those of `run_task`.
    """
    begun = dataclasses.replace(task, folder=str(place / task.key), started=time.time())
    [found] = run_task(begun, cache=cache, timeout_seconds=task.timeout_seconds, **options)
    return {name: value for name, value in found.items() if name != "mode"}


def on_this_machine(
    tasks: Sequence[TrainingTask], config: ShootoutConfig, place: Path
) -> Generator[tuple[str, Found], None, None]:
    """Train in all slots, below `place`; key and result of each training as soon as it has ended.

    Tasks begin in their order. Closed early, it ends every process that still runs.
    """
    over, cache = threading.Event(), place / COMPILED
    free: queue.SimpleQueue[tuple[Slot, ForkServer | None]] = queue.SimpleQueue()
    # The first optimizer of a process loads torch's compiler, used or not.
    loads = COMPILER if config.compile else ("torch._dynamo",)

    def run(task: TrainingTask) -> Found:
        slot, fork_server = free.get()
        how = {"fork_server": fork_server, "variables": slot.variables, "stopped": over.is_set}
        try:
            return train(task, place, cache, **how) | {"device": device_name(slot.device)}
        finally:
            free.put((slot, fork_server))

    with contextlib.ExitStack() as stack:
        places, module = slots(config), TrainingTask.worker[-1]
        for slot in places:
            fork_server = None
            if slot.device.type == "cpu":  # CUDA outlives no fork
                fork_server = ForkServer(module, cache, loads=loads, variables=slot.variables)
                stack.enter_context(fork_server)
            free.put((slot, fork_server))
        pool = ThreadPoolExecutor(len(places))
        try:
            futures = {pool.submit(run, task): task.key for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
