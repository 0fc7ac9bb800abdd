"""Trainings on the workers of a dask scheduler; which one trains what is dask's business."""

import json
import os
import shutil
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from psannlm import CHECKPOINTS, ROOT
from psannlm.bench.environment import device_name
from psannlm.bench.worker import reason_of
from psannlm.config import packages
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.device import select_device
from psannlm.files import texts_sha256
from psannlm.pages.shootout.pool import COMPILED, Found, train
from psannlm.pages.shootout.records import ShootoutConfig
from psannlm.pages.shootout.worker import TrainingTask
from psannlm.places import VARIABLE, located, places

CONNECT_SECONDS, LOOK_SECONDS = 10, 2
PATIENCE_SECONDS = 120  # how long trainings wait while there is no worker, as in a restart of one


def refuse_unready(config: ShootoutConfig) -> None:
    """Refuse, by ConfigError, a cluster on which nothing, or something else, would be trained.

    That is where dask.distributed is not installed, the scheduler does not answer or has no worker,
    or a worker's code, torch, corpus, device or threads are not as they must be.
    """
    with _connect(config.scheduler) as client:
        _refuse_unfit(client, config)


def on_cluster(
    tasks: Sequence[TrainingTask], config: ShootoutConfig, place: Path
) -> Generator[tuple[str, Found], None, None]:
    """Train on whatever workers the scheduler has; closed early, it ends what they train.

    A training whose worker dies is given to another one by dask, and fails if that one dies too,
    as often as the scheduler allows. Tasks are begun in their order; the key and the result of each
    are yielded as soon as it has ended. On each worker the folder of the run has the same name.
    ConfigError if the cluster cannot be used, or all of its workers are gone.
    """
    with _connect(config.scheduler) as client:
        _refuse_unfit(client, config)
        corpus = str(located(config.corpus))
        told = _standing(corpus), corpus, place.name, places()
        futures = [
            client.submit(train_on_worker, task, *told, pure=False, retries=0, priority=-i)
            for i, task in enumerate(tasks)
        ]
        keys = {future.key: task.key for future, task in zip(futures, tasks, strict=True)}
        try:
            yield from ((keys[future.key], found) for future, found in _ended(futures, client))
        except TimeoutError:
            raise ConfigError(
                f"scheduler: {config.scheduler} or all of its workers are gone; start them again "
                "and resume the run"
            ) from None
        finally:
            client.cancel(futures)


def _ended(futures: Sequence[Any], client: Any) -> Iterator[tuple[Any, Found]]:
    """Each future when it has ended, with what came of it; an error of its worker is that, too.

    TimeoutError if the scheduler is lost, or if there was no worker for a while.
    """
    from distributed import wait

    last, waiting = time.monotonic() + PATIENCE_SECONDS, set(futures)
    while waiting:
        try:
            with client.as_current():
                done = wait(waiting, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        if done or (client.status == "running" and client.nthreads()):
            last = time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > last or any(one.status not in ("finished", "error") for one in done):
            raise TimeoutError
        for future in done:
            waiting.remove(future)
            if future.status == "finished":
                yield future, future.result()
            else:
                yield future, {"status": "failed", "reason": reason_of(future.exception())}


def train_on_worker(
    task: TrainingTask, ours: Mapping[str, str], corpus: str, name: str, known: Mapping[str, str]
) -> Found:
    """What a worker does in the run `name`: the training, on a machine that may do it.

    Files outside the project lie where they are `known` to lie on the machine that asks.
    """
    from distributed import get_worker

    worker = get_worker()
    device = task.config["device"]
    if reason := objection(ours, corpus, device, worker):
        return {"status": "failed", "reason": f"the worker must not train: {reason}"}
    asked_for = worker.get_current_task()

    def stopped() -> bool:
        known = worker.state.tasks.get(asked_for)
        return known is None or known.state == "cancelled"

    place = CHECKPOINTS / name
    os.environ[VARIABLE] = json.dumps(dict(known))
    found = train(task, place, Path(worker.local_directory, COMPILED), stopped=stopped)
    if not stopped():
        shutil.rmtree(place / task.key, ignore_errors=True)
    return found | {"device": device_name(select_device(device))}


def objection(ours: Mapping[str, str], corpus: str, device: str, dask_worker: Any) -> str:
    """Why a worker must not train, said on the worker itself; empty if it may."""
    if dask_worker.state.nthreads != 1:
        return (
            f"it would train {dask_worker.state.nthreads} networks at a time on one device; "
            "start it with --nthreads 1"
        )
    try:
        select_device(device)
        theirs = _standing(corpus)
    except ConfigError as error:
        return str(error)
    for what, value in ours.items():
        if theirs[what] != value:
            return f"its {what} is {theirs[what]}, not {value}; install or copy the same there"
    return ""


def _standing(corpus: str) -> dict[str, str]:
    """What decides the result of a training beside its configuration."""
    return {
        "code": texts_sha256(ROOT, (ROOT / "psannlm").rglob("*.py"))[:16],
        "torch": torch.__version__.split("+")[0],  # without the device it was built for
        "corpus": load(ROOT / corpus).sha256[:16],
    }


def _connect(address: str) -> Any:
    """A client of the scheduler."""
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError:
        raise ConfigError(
            f"scheduler: {address} needs dask.distributed, which is not installed; "
            f"run: {packages.installing('cluster')}"
        ) from None
    try:  # a client that finds no scheduler would never quite end
        socket.create_connection(get_address_host_port(address), CONNECT_SECONDS).close()
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, OverflowError):
        raise ConfigError(
            f"scheduler must be the address of a running dask scheduler, got {address}, where none "
            f"answers within {CONNECT_SECONDS} s; start one with `dask scheduler`, or leave it "
            "empty to train on this machine"
        ) from None


def _refuse_unfit(client: Any, config: ShootoutConfig) -> None:
    corpus = str(located(config.corpus))
    told = _standing(corpus), corpus, config.device
    found = client.run(objection, *told, on_error="return")
    if not found:
        raise ConfigError(
            f"scheduler: {config.scheduler} has no worker; start one with "
            f"`dask worker {config.scheduler} --nthreads 1`"
        )
    for worker, said in found.items():
        if said:
            reason = reason_of(said) if isinstance(said, BaseException) else said
            raise ConfigError(f"scheduler: its worker {worker} must not train: {reason}")
