"""Processes of a check: started together, watched, stopped, their results read.

Starting Python with torch takes seconds, so one start does the jobs of all bases. Rank r leaves
JOB.r.pt for each job it has done, and what it says in log.r.txt.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from psannlm.bench.worker import stop_when_orphaned
from psannlm.checks.config import ValidationConfig

ResultT = TypeVar("ResultT")


class ProcessError(Exception):
    """A process of a check that left no result; its text says what became of it."""


@dataclass(frozen=True)
class Task:
    """What a process is asked to do."""

    config: ValidationConfig
    jobs: Sequence[str]  # names, in order
    device: torch.device
    threads: int = 1
    world: int = 1  # processes that do each job together
    rank: int = 0  # of this one among them
    source: Path = Path()  # what the jobs read
    folder: Path = Path()  # where results are left, and ranks find each other


Work = Callable[[Task], Iterator[Any]]
"""Yields the result of each job in order; found by its name in the new process."""


_made: dict[tuple[ValidationConfig, str], Any] = {}


def take(
    config: ValidationConfig, name: str, make: Callable[[], Mapping[str, ResultT | ProcessError]]
) -> ResultT:
    """One of the results that processes make for all bases at one time; each is handed out once.

    Raises:
        ProcessError: There is none; its text says why.
    """
    if (config, name) not in _made:
        _made.update({(config, n): result for n, result in make().items()})
    result: ResultT | ProcessError = _made.pop((config, name))
    if isinstance(result, ProcessError):
        raise result
    return result


def run_jobs(work: Work, task: Task) -> dict[str, list[Any] | ProcessError]:
    """Have `task.world` new processes do all jobs; returns what each rank left of each job.

    A job that fails costs a new start of those after it. Each start has `config.timeout_seconds`.
    """
    found: dict[str, list[Any] | ProcessError] = {}
    left = list(task.jobs)
    while left:
        with tempfile.TemporaryDirectory(prefix="psannlm-check-") as name:
            reason = _run(work, replace(task, jobs=tuple(left), folder=Path(name)))
            while left:
                paths = [Path(name, f"{left[0]}.{rank}.pt") for rank in range(task.world)]
                if not all(path.exists() for path in paths):
                    break
                found[left.pop(0)] = [torch.load(path, weights_only=False) for path in paths]
        if left:
            error = ProcessError(reason or "the processes ended without a result")
            found[left.pop(0)] = error
    return found


def _run(work: Work, task: Task) -> str:
    """Start the processes and wait for their ends; returns what was wrong, or nothing."""
    processes: list[BaseProcess] = []
    try:
        for rank in range(task.world):
            given = work, replace(task, rank=rank)
            process = multiprocessing.get_context("spawn").Process(target=_begin, args=given)
            process.start()
            processes.append(process)
        ending = _watch(processes, task.config.timeout_seconds)
    finally:
        for started in processes:
            started.kill()
            started.join()
    if not ending:
        return ""
    words = "; ".join(_last_words(task.folder))
    return f"{ending}; last words: {words}" if words else f"{ending}; it said nothing"


def _begin(work: Work, task: Task) -> None:
    """Do the jobs, in a new process, which ends when the one that started it does."""
    stop_when_orphaned()
    with (task.folder / f"log.{task.rank}.txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(task.threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the process that started this one
    for job, result in zip(task.jobs, work(task), strict=True):
        path = task.folder / f"{job}.{task.rank}.pt"
        torch.save(result, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)  # it is there whole or not at all


def _watch(processes: Sequence[BaseProcess], seconds: float) -> str:
    """Until all have ended, one has failed, or time is over: the others would wait for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        codes = [process.exitcode for process in processes]
        for rank, code in enumerate(codes):
            if code:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"process {rank} of {len(processes)} {how}"
        if all(code == 0 for code in codes):
            return ""
        time.sleep(0.02)
    return f"timed out after {seconds:g} s"


def _last_words(folder: Path) -> Iterator[str]:
    """The last line that each process said, if it said anything; 300 characters at most."""
    for log in sorted(folder.glob("log.*.txt")):
        text = log.read_text(encoding="utf-8", errors="replace")
        if lines := [line.strip() for line in text.splitlines() if line.strip()]:
            yield lines[-1][:300]
