"""Where trainings run on this machine: slots, each with a process at a time."""

import contextlib
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from psannlm.bench.environment import device_name
from psannlm.bench.processes import ForkServer, never, run_task
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.worker import COMPILER, TrainingTask

COMPILED = "compiled"
"""Folder of compiled code below the place of a run: all trainings but the first start warm."""

Found = dict[str, Any]
"""What a process has left of a training: status, reason, and fields of a TrainingRecord."""


@dataclass(frozen=True)
class Job:
    """A training that waits for a process."""

    key: str
    task: TrainingTask
    """Its folder and its start are filled in where and when it runs."""

    timeout_seconds: float


@dataclass(frozen=True)
class Slot:
    """A part of this machine that trains one network at a time."""

    device: torch.device
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment of its processes: what they see of the machine."""


def slots(config: ShootoutConfig) -> list[Slot]:
    """Where a shootout trains: `cells_at_once` GPUs, or equal shares of the CPU's threads.

    Raises:
        ConfigError: There are fewer GPUs.
    """
    if select_device(config.device).type == "cpu":
        n = config.cells_at_once or 1
        if n == 1:
            return [Slot(torch.device("cpu"))]
        share = str(max(1, torch.get_num_threads() // n))
        variables = {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}
        return [Slot(torch.device("cpu"), variables) for _ in range(n)]
    gpus = visible_gpus()
    n = config.cells_at_once or len(gpus)
    if n > len(gpus):
        raise ConfigError(
            f"cells_at_once must be at most the number of visible GPUs, {len(gpus)}, got {n}; "
            "lower it, or use 0 for one training a GPU"
        )
    return [Slot(torch.device("cuda", i), {"CUDA_VISIBLE_DEVICES": gpus[i]}) for i in range(n)]


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in said.split(",")] if said else [str(i) for i in range(count)]
    return names[:count]


def train(
    job: Job,
    place: Path,
    cache: Path,
    *,
    fork_server: ForkServer | None = None,
    variables: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = never,
) -> Found:
    """Train in a process of its own, or go on with what was begun in `place`/key.

    Args:
        job: What to train.
        place: Folder of the run.
        cache: Where compiled code is kept.
        fork_server: Where the process comes from; otherwise from a new interpreter.
        variables: Further variables of the new interpreter's environment.
        stopped: Asked again and again; the process is ended once it says so.
    """
    folder = str(place / job.key)
    [found] = run_task(
        dataclasses.replace(job.task, folder=folder, started=time.time()),
        cache=cache,
        timeout_seconds=job.timeout_seconds,
        fork_server=fork_server,
        variables=variables,
        stopped=stopped,
    )
    return {name: value for name, value in found.items() if name != "mode"}


def on_this_machine(
    jobs: Sequence[Job], config: ShootoutConfig, place: Path
) -> Generator[tuple[str, Found], None, None]:
    """Train in all slots; closed early, it ends every process that still runs.

    Args:
        jobs: Begun in their order.
        config: What the slots follow from.
        place: Folder of the run.

    Yields:
        Key and result of each training as soon as it has ended.
    """
    over = threading.Event()
    free: queue.SimpleQueue[tuple[Slot, ForkServer | None]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        places = slots(config)
        for slot in places:
            module = jobs[0].task.worker[-1] if slot.device.type == "cpu" else None
            fork_server = stack.enter_context(_fork_server(module, slot, config, place))
            free.put((slot, fork_server))

        def run(job: Job) -> Found:
            slot, fork_server = free.get()
            try:
                found = train(
                    job,
                    place,
                    place / COMPILED,
                    fork_server=fork_server,
                    variables=slot.variables,
                    stopped=over.is_set,
                )
                return found | {"device": device_name(slot.device)}
            finally:
                free.put((slot, fork_server))

        pool = ThreadPoolExecutor(len(places))
        try:
            futures = {pool.submit(run, job): job.key for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _fork_server(
    module: str | None, slot: Slot, config: ShootoutConfig, place: Path
) -> Iterator[ForkServer | None]:
    """Where the processes of a slot are forked from; nothing for CUDA, which outlives no fork."""
    if module is None:
        yield None
        return
    # The first optimizer of a process loads torch's compiler, used or not.
    loads = COMPILER if config.compile else ("torch._dynamo",)
    with ForkServer(module, place / COMPILED, loads=loads, variables=slot.variables) as fork_server:
        yield fork_server
