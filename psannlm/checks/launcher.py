"""Processes of a check: started together, watched, stopped, their results read.

Starting Python with torch takes seconds, so one start does the jobs of all bases. Both sides meet
in a folder: the check writes task.json, rank r leaves JOB.r.safetensors for each job it has done.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from psannlm import ROOT
from psannlm.bench.worker import stop_when_orphaned
from psannlm.checks.config import ValidationConfig

TASK = "task.json"
PAUSE_SECONDS = 0.02
LAST_CHARACTERS = 300
"""Of what a process said last."""

ResultT = TypeVar("ResultT")


class ProcessError(Exception):
    """A process of a check that left no result; its text says what became of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one job."""

    results: tuple[Mapping[str, Tensor], ...]
    """What each rank left; empty if the job failed."""

    reason: str
    """Why it failed; empty if it did not."""

    def of(self, rank: int) -> Mapping[str, Tensor]:
        """What a rank left.

        Raises:
            ProcessError: The job failed.
        """
        if self.reason:
            raise ProcessError(self.reason)
        return self.results[rank]


@dataclass(frozen=True)
class Task:
    """What processes are asked to do, as they read it."""

    config: ValidationConfig
    jobs: tuple[str, ...]
    device: str
    folder: Path
    rank: int
    world: int

    def leave(self, job: str, result: Mapping[str, Tensor]) -> None:
        """Put the result of a job where the check finds it, whole or not at all."""
        path = _result(self.folder, job, self.rank)
        temporary = path.with_suffix(".tmp")
        on_cpu = {name: t.detach().cpu().contiguous() for name, t in result.items()}
        safetensors.torch.save_file(on_cpu, temporary)
        temporary.replace(path)


class Results(Generic[ResultT]):
    """Results that are made for all bases at one time, each handed out once."""

    def __init__(self) -> None:
        self._made: dict[tuple[ValidationConfig, str], ResultT] = {}

    def take(
        self, config: ValidationConfig, name: str, make: Callable[[], Mapping[str, ResultT]]
    ) -> ResultT:
        """The result of that name; where it is not there, all are made again."""
        if (config, name) not in self._made:
            self._made = {(config, n): result for n, result in make().items()}
        return self._made.pop((config, name))


def read_task(folder: Path) -> Task:
    """The task of this process, which ends when the one that started it does."""
    stop_when_orphaned()
    told: dict[str, Any] = json.loads((folder / TASK).read_text(encoding="utf-8"))
    config = ValidationConfig(**told["config"])
    torch.set_num_threads(told["threads"])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Task(config, tuple(told["jobs"]), told["device"], folder, rank, world)


def run_jobs(
    worker: Sequence[str],
    jobs: Sequence[str],
    config: ValidationConfig,
    *,
    device: str,
    world: int,
    threads: int,
    beside: Path | None = None,
) -> dict[str, Outcome]:
    """Have `world` processes do all jobs; a job that fails costs a new start of those after it.

    Args:
        worker: Module that is run, and its first arguments; the folder comes last.
        jobs: Names, in order.
        config: Handed on; each start has its timeout.
        device: Handed on.
        world: Ranks 0 to world - 1, told by RANK and WORLD_SIZE.
        threads: Of each process.
        beside: Folder whose content the processes find below theirs, under its own name.
    """
    found: dict[str, Outcome] = {}
    left = list(jobs)
    while left:
        with tempfile.TemporaryDirectory(prefix="psannlm-check-") as name:
            folder = Path(name)
            if beside is not None:
                (folder / beside.name).symlink_to(beside, target_is_directory=True)
            told = {"jobs": left, "device": device, "threads": threads}
            about = told | {"config": config.model_dump(mode="json")}
            (folder / TASK).write_text(json.dumps(about), encoding="utf-8")
            reason = _run(worker, folder, world, threads, config.timeout_seconds)
            while left and (results := _results(folder, left[0], world)):
                found[left.pop(0)] = Outcome(results, "")
        if left:
            found[left.pop(0)] = Outcome((), reason or "the processes ended without a result")
    return found


def _run(worker: Sequence[str], folder: Path, world: int, threads: int, seconds: float) -> str:
    """Start the processes and wait for their ends; returns what was wrong, or nothing."""
    command = [sys.executable, "-m", *worker, str(folder)]
    processes = []
    try:
        for rank in range(world):
            with _log(folder, rank).open("wb") as log:
                environment = _environment(rank, world, threads)
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        ending = _watch(processes, seconds)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if not ending:
        return ""
    words = "; ".join(_last_words(folder, world))
    return f"{ending}; last words: {words}" if words else f"{ending}; it said nothing"


def _watch(processes: "Sequence[subprocess.Popen[bytes]]", seconds: float) -> str:
    """Until all have ended, one has failed, or time is over: the others would wait for it."""
    end = time.monotonic() + seconds
    while True:
        codes = [process.poll() for process in processes]
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        if failed:
            rank, code = failed[0]
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            return f"process {rank} of {len(processes)} {how}"
        if all(code == 0 for code in codes):
            return ""
        if time.monotonic() > end:
            return f"timed out after {seconds:g} s"
        time.sleep(PAUSE_SECONDS)


def _environment(rank: int, world: int, threads: int) -> dict[str, str]:
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "ignore",
    }


def _last_words(folder: Path, world: int) -> Iterator[str]:
    """The last line that each process said, if it said anything."""
    for rank in range(world):
        text = _log(folder, rank).read_text(encoding="utf-8", errors="replace")
        if lines := [line.strip() for line in text.splitlines() if line.strip()]:
            yield lines[-1][:LAST_CHARACTERS]


def _log(folder: Path, rank: int) -> Path:
    return folder / f"log.{rank}.txt"


def _result(folder: Path, job: str, rank: int) -> Path:
    return folder / f"{job}.{rank}.safetensors"


def _results(folder: Path, job: str, world: int) -> tuple[dict[str, Tensor], ...]:
    """What all ranks left of a job; nothing if one of them left nothing."""
    paths = [_result(folder, job, rank) for rank in range(world)]
    if not all(path.exists() for path in paths):
        return ()
    return tuple(safetensors.torch.load_file(path) for path in paths)
